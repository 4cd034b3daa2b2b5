// SPDX-License-Identifier: GPL-2.0-only
//! The scheduler in a running kernel: each test boots a VM and runs a scenario of `tests/guest/` in it. A scenario prints
//! `ok NAME` or `not ok NAME: why` for every check. Other kernels and topologies: `tests/storm.rs`.

mod vm_support;

use std::path::PathBuf;
use std::time::Duration;

use scx_rl::agent::Checkpoint;
use scx_rl::agent::recording::{self, Reader};
use scx_rl::vm::{Vm, VmOutput};
use vm_support::run_or_skip;

/// An empty folder that the guest can write.
fn folder(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// Run a scenario, and fail with its output if any of its checks did. None: no VM can run on this machine, which is a
/// failure in CI.
fn scenario(vm: Vm, name: &str, script: &str) -> Option<(PathBuf, VmOutput)> {
    let dir = folder(name);
    let root = env!("CARGO_MANIFEST_DIR");
    let command = format!(
        "export X='{}' W='{}'; bash '{root}/tests/guest/{script}.sh'",
        env!("CARGO_BIN_EXE_scx_rl"),
        dir.display()
    );
    let vm = vm.rwdir(&dir).timeout(Duration::from_secs(300));
    let output = run_or_skip(&vm, &command)?;
    let lines = || output.stdout.lines();
    let passed = lines().filter(|l| l.starts_with("ok ")).count();
    let failed: Vec<&str> = lines().filter(|l| l.starts_with("not ok ")).collect();
    println!("{name}: {passed} checks passed, {} failed", failed.len());
    let whole = lines().any(|l| l == "done");
    assert!(whole && failed.is_empty() && passed > 0, "{name}: {failed:#?}\nwhole output:\n{}", output.stdout);
    Some((dir, output))
}

#[test]
fn learns_checkpoints_replays_frozen_and_survives_sigstop() {
    let Some((dir, _)) = scenario(Vm::new().cpus(4).llcs(2), "vm-learn", "learn") else { return };
    // What was recorded in the kernel's run replays to the very same network here.
    let live = Checkpoint::load(&dir.join("ck/latest.safetensors")).unwrap();
    let file = std::fs::File::open(dir.join("events.rec")).unwrap();
    let replayed = recording::replay(Reader::new(std::io::BufReader::new(file)).unwrap()).unwrap();
    assert!(replayed.events > 1000, "only {} events were recorded", replayed.events);
    assert_eq!(replayed.agent.metrics().updates, live.updates);
    let bits = |p: &scx_rl::agent::Parameters| -> Vec<u32> {
        p.arrays().iter().flat_map(|a| a.iter().map(|v| v.to_bits())).collect()
    };
    assert_eq!(bits(&replayed.agent.parameters().unwrap()), bits(&live.parameters), "bit for bit");
}

#[test]
fn survives_faults() {
    scenario(Vm::new().cpus(4).llcs(2), "vm-faults", "faults");
}
