// SPDX-License-Identifier: GPL-2.0-only
//! The scheduler in a running kernel: each test boots a VM and runs a scenario of `tests/guest/` in it. A scenario prints
//! `ok NAME` or `not ok NAME: why` for every check. Other kernels and topologies: `tests/storm.rs`.

mod vm_support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
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

#[test]
fn runs_as_a_service_from_its_debian_package() {
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/target/debian/scx_rl.deb");
    assert!(Path::new(package).exists(), "{package} is missing: run make deb");
    scenario(Vm::new().cpus(4).llcs(2), "vm-service", "service");
}

/// Two workloads whose tools the set-up of the tests installs.
const STUDY: &str = r#"
name = "vm-study"
backend = "vm"
workloads = ["hackbench-pipe", "stress-switch"]
timeout-s = 300

[[scheduler]]
name = "eevdf"

[[scheduler]]
name = "heuristic"

[[topology]]
cpus = 2
llcs = 2
"#;

fn experiment(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scx_rl"));
    command.arg("experiment").args(args).stdin(Stdio::null());
    command
}

fn cells(study: &Path) -> Vec<(PathBuf, serde_json::Value)> {
    let Ok(entries) = std::fs::read_dir(study.join("cells")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "json"));
    paths.map(|path| (path.clone(), serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap())).collect()
}

/// Waits until there are that many cells.
fn wait_for_cells(run: &mut Child, study: &Path, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(200);
    while cells(study).len() < count {
        assert!(run.try_wait().unwrap().is_none(), "the run ended early: {:?}", std::fs::read_dir(study.join("logs")));
        assert!(Instant::now() < deadline, "no cell came");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_study_whose_run_is_killed_goes_on() {
    // That there can be a VM at all.
    if run_or_skip(&Vm::new().cpus(1).llcs(1).timeout(Duration::from_secs(120)), "true").is_none() {
        return;
    }
    let dir = folder("vm-study");
    let (spec, study) = (dir.join("spec.toml"), dir.join("study"));
    std::fs::write(&spec, STUDY).unwrap();
    let study_text = study.to_str().unwrap();
    let mut run =
        experiment(&["run", spec.to_str().unwrap(), "--out-dir", study_text]).stdout(Stdio::null()).spawn().unwrap();
    wait_for_cells(&mut run, &study, 1);
    kill(Pid::from_raw(run.id().cast_signed()), Signal::SIGKILL).unwrap();
    run.wait().unwrap();
    let kept = cells(&study);
    assert!((1..4).contains(&kept.len()), "{kept:?}");

    // The VM of the killed run ends before the next one begins.
    let Output { status, stdout, stderr } = experiment(&["run", "--resume", study_text]).output().unwrap();
    let said = String::from_utf8_lossy(&stdout);
    assert!(status.success(), "{said}\n{}", String::from_utf8_lossy(&stderr));
    assert!(said.contains("geometric mean of workloads"), "{said}");
    let all = cells(&study);
    assert_eq!(all.len(), 4);
    for (path, cell) in &all {
        assert!(cell["complaint"].is_null() && !cell["figures"].as_object().unwrap().is_empty(), "{path:?}: {cell}");
        assert!(!cell["waits"]["buckets"].as_array().unwrap().is_empty(), "{path:?}: {cell}");
    }
    for (path, cell) in kept {
        assert!(all.contains(&(path, cell)), "what was done is not measured again");
    }
}
