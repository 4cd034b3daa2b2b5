// SPDX-License-Identifier: GPL-2.0-only
//! What this machine cannot do is said before anything is changed.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::common::{Folder, learn, skip, skip_even_in_ci};
use super::{BINARY, Outcome, run, scx_rl};

const NO_SCHED_EXT: [&str; 4] = ["has no sched_ext", "CONFIG_SCHED_CLASS_EXT=y", "6.12", "make demo"];

fn has_sched_ext() -> bool {
    Path::new("/sys/kernel/sched_ext/state").exists()
}

fn has_runqlat() -> bool {
    Path::new("/sys/kernel/btf/vmlinux").exists()
}

#[test]
fn a_kernel_without_sched_ext_is_named_with_what_to_do() {
    if has_sched_ext() {
        // Here these commands would take over the machine.
        return skip_even_in_ci("this kernel has sched_ext");
    }
    let folder = Folder::new();
    let checkpoint = folder.with("good.safetensors", &learn(1, 600).checkpoint.to_bytes().unwrap());
    let release = scx_rl::kernel::preflight::kernel_release();
    for args in [
        &[][..],
        &["--greedy", "--duration", "1"],
        &["--learn"],
        &["--learn", "--resume", &checkpoint, "--stats", "0"],
        &["--learn", "--record", "events.rec", "--checkpoint-dir", "checkpoints"],
        &["--frozen", &checkpoint],
        &["--heuristic"],
        &["--heuristic", "--summary", "summary.json", "--duration", "1"],
        &["--random", "-v"],
    ] {
        let outcome = scx_rl(args);
        outcome.fails(1, &NO_SCHED_EXT);
        outcome.fails(1, &[&release]);
    }
}

#[test]
fn the_suite_needs_sched_ext_and_says_so_before_it_writes() {
    if has_sched_ext() {
        return skip_even_in_ci("this kernel has sched_ext");
    }
    for args in [&["suite", "--workloads", "stress-switch"][..], &["demo"]] {
        scx_rl(args).fails(1, &["has no sched_ext", "CONFIG_SCHED_CLASS_EXT=y", "6.12", "scx_rl vm"]);
    }
}

#[test]
fn a_summary_that_cannot_be_written_is_told_before_attaching() {
    for path in ["/nonexistent/summary.json", "/", "/dev/null/summary.json"] {
        let outcome = scx_rl(&["--heuristic", "--duration", "1", "--summary", path]);
        if has_sched_ext() && nix::unistd::geteuid().is_root() {
            outcome.fails(1, &["cannot write the summary", path]);
        } else {
            // Whether it can run at all is asked first.
            outcome.fails(1, &[if has_sched_ext() { "not root" } else { NO_SCHED_EXT[0] }]);
        }
    }
    assert!(!Path::new("/nonexistent").exists());
}

/// The binary as an ordinary user runs it, in a folder of its own.
struct Nobody {
    folder: Folder,
}

impl Nobody {
    fn new() -> Self {
        let folder = Folder::new();
        // Where it was built, another user may not be allowed to go. Copied by another process: a file that is open for
        // writing here when another test forks is busy for as long as that child has it.
        assert!(Command::new("cp").arg(BINARY).arg(folder.file("scx_rl")).status().unwrap().success());
        std::fs::set_permissions(folder.file("scx_rl"), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn scx_rl(&self, args: &[&str]) -> Outcome {
        let mut command = Command::new(self.folder.file("scx_rl"));
        if nix::unistd::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        run(command.args(args).current_dir(self.folder.path()))
    }
}

#[test]
fn who_is_not_root_is_told_so() {
    let nobody = Nobody::new();
    // The kernel comes first: being root does not help where sched_ext is missing.
    let expected = if has_sched_ext() { &["not root", "sudo"][..] } else { &NO_SCHED_EXT };
    for args in [&["--heuristic"][..], &["--learn"], &["--random", "--duration", "1"]] {
        nobody.scx_rl(args).fails(1, expected);
    }
    nobody.scx_rl(&["bench", "--rounds", "1", "--decisions", "1000"]).fails(1, &["root is needed"]);
    if has_runqlat() {
        nobody.scx_rl(&["runqlat", "--duration", "0.1"]).fails(1, &["root"]);
        nobody.scx_rl(&["progs"]).fails(1, &["listing BPF programs needs root"]);
    } else {
        skip("this kernel has no BTF: what runqlat says to who is not root was not tried");
    }
}

#[test]
fn tools_that_need_no_privileges_work_without() {
    let nobody = Nobody::new();
    let run = learn(2, 600);
    let checkpoint = nobody.folder.with("good.safetensors", &run.checkpoint.to_bytes().unwrap());
    let recording = nobody.folder.with("good.rec", &run.recording);
    nobody.scx_rl(&["checkpoint", "show", &checkpoint]).succeeds(&["publishable yes"]);
    // Not in this folder, which is not theirs.
    let denied = nobody.folder.text("denied.safetensors");
    if nix::unistd::geteuid().is_root() {
        nobody
            .scx_rl(&["replay", &recording, "--checkpoint", &denied])
            .fails(1, &["cannot write", &denied, "Permission denied"]);
        let secret = nobody.folder.with("secret.safetensors", &run.checkpoint.to_bytes().unwrap());
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
        nobody.scx_rl(&["--frozen", &secret]).fails(1, &["cannot read", &secret, "Permission denied"]);
    }
    nobody.scx_rl(&["--version"]).succeeds(&["scx_rl"]);
}
