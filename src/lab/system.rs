// SPDX-License-Identifier: GPL-2.0-only
//! The machine that is measured on: which scheduler is attached, what the kernel logged, which CPUs there are.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use scx_utils::Topology;
use serde::Serialize;

use super::child::{POLL, Process, Stop};

const SCHED_EXT: &str = "/sys/kernel/sched_ext";
/// How all of scx_rl's schedulers are called in the kernel.
const OPS_PREFIX: &str = "rl";
/// How long a scheduler may take to attach. Under an emulator verification takes its time.
const ATTACH_LIMIT: Duration = Duration::from_secs(60);
const DETACH_LIMIT: Duration = Duration::from_secs(15);

/// Are we root, is sched_ext there and free? `who` needs it.
///
/// # Errors
/// The first that is not so, with what to do about it.
pub fn check(who: &str) -> Result<()> {
    let state = sched_ext_state().context(
        "this kernel has no sched_ext: it needs Linux 6.12 or later with CONFIG_SCHED_CLASS_EXT=y \
         (`scx_rl vm` boots one)",
    )?;
    ensure!(nix::unistd::geteuid().is_root(), "{who} attaches schedulers: run it as root");
    ensure!(
        state == "disabled",
        "a sched_ext scheduler is {state} ({}): stop it first, {who} compares with the kernel's own scheduler",
        sched_ext_ops().unwrap_or_else(|| "name unknown".into())
    );
    Ok(())
}

/// `enabled`, `disabled`, or one of the states between.
fn sched_ext_state() -> Result<String> {
    let path = Path::new(SCHED_EXT).join("state");
    Ok(fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?.trim().into())
}

/// The name of the attached scheduler.
fn sched_ext_ops() -> Option<String> {
    Some(fs::read_to_string(Path::new(SCHED_EXT).join("root/ops")).ok()?.trim().into())
}

/// How many schedulers were attached since boot: a change tells that one was exchanged.
pub fn attach_count() -> Option<u64> {
    fs::read_to_string(Path::new(SCHED_EXT).join("enable_seq")).ok()?.trim().parse().ok()
}

/// Is this the name of one of our schedulers?
pub fn is_ours(ops: &str) -> bool {
    ops.starts_with(OPS_PREFIX)
}

/// The name of the attached scheduler, which is the one that is `expected`.
///
/// # Errors
/// None is, or it is another.
pub fn check_attached(expected: impl Fn(&str) -> bool) -> Result<String> {
    let state = sched_ext_state()?;
    ensure!(state == "enabled", "the scheduler was detached: sched_ext is {state}; the kernel's log says why");
    let ops = sched_ext_ops().context("sched_ext is enabled, but its scheduler has no name")?;
    ensure!(expected(&ops), "another scheduler is attached: {ops}");
    Ok(ops)
}

/// No scheduler is attached.
///
/// # Errors
/// One is.
pub fn check_detached() -> Result<()> {
    let state = sched_ext_state()?;
    ensure!(state == "disabled", "sched_ext is {state} ({})", sched_ext_ops().unwrap_or_else(|| "name unknown".into()));
    Ok(())
}

/// Waits until the scheduler that `process` loads is attached; its name.
///
/// # Errors
/// It ended, or took too long. `log` is where its own words are.
pub fn wait_attached(
    process: &mut Process,
    stop: &Stop,
    log: &Path,
    expected: impl Fn(&str) -> bool,
) -> Result<String> {
    let deadline = Instant::now() + ATTACH_LIMIT;
    loop {
        if let Ok(ops) = check_attached(&expected) {
            return Ok(ops);
        }
        if let Some(status) = process.ended()? {
            bail!("the scheduler ended ({status}) before it was attached; its last words:\n{}", tail(log));
        }
        if Instant::now() >= deadline {
            let seconds = ATTACH_LIMIT.as_secs();
            bail!("the scheduler was not attached within {seconds} s; its last words:\n{}", tail(log));
        }
        stop.sleep_until(Instant::now() + POLL, || Ok(()))?;
    }
}

/// Waits until no scheduler is attached, which the kernel does after the process has ended.
///
/// # Errors
/// One still is.
pub fn wait_detached() -> Result<()> {
    let deadline = Instant::now() + DETACH_LIMIT;
    loop {
        let state = sched_ext_state()?;
        if state == "disabled" {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("sched_ext is still {state} {} s after the scheduler ended", DETACH_LIMIT.as_secs());
        }
        std::thread::sleep(POLL);
    }
}

/// The last lines of a file.
pub fn tail(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// The release of the running kernel.
///
/// # Errors
/// /proc cannot be read.
pub fn kernel_release() -> Result<String> {
    let path = "/proc/sys/kernel/osrelease";
    Ok(fs::read_to_string(path).with_context(|| format!("reading {path}"))?.trim().into())
}

/// The CPUs, by cache and node.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Online CPUs.
    pub cpus: usize,
    /// Cores.
    pub cores: usize,
    /// NUMA nodes.
    pub nodes: usize,
    /// The CPUs of each last-level cache.
    pub llcs: Vec<Vec<usize>>,
}

impl Machine {
    /// What the kernel says.
    ///
    /// # Errors
    /// /sys cannot be read.
    pub fn read() -> Result<Machine> {
        let topology = Topology::new().context("reading the CPU topology")?;
        Ok(Machine {
            cpus: topology.all_cpus.len(),
            cores: topology.all_cores.len(),
            nodes: topology.nodes.len(),
            llcs: topology.all_llcs.values().map(|llc| llc.all_cpus.keys().copied().collect()).collect(),
        })
    }
}

/// The kernel's log from a moment on.
pub struct KernelLog(File);

impl KernelLog {
    /// Remembers where the log ends now.
    ///
    /// # Errors
    /// /dev/kmsg cannot be read.
    pub fn from_now() -> Result<KernelLog> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .context("opening the kernel's log, /dev/kmsg")?;
        file.seek(SeekFrom::End(0)).context("finding the end of the kernel's log")?;
        Ok(KernelLog(file))
    }

    /// The lines logged since the last call that say that something went wrong.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn complaints(&mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        // The kernel gives one record each time, and refuses buffers that are too small.
        let mut record = [0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(0) => break,
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]);
                    let message = text.split_once(';').map_or(text.as_ref(), |(_, message)| message);
                    lines.extend(message.lines().filter(|line| is_complaint(line)).map(String::from));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    lines.push("(the kernel's log was overwritten before it could be read)".into());
                }
                Err(error) => return Err(error).context("reading the kernel's log"),
            }
        }
        Ok(lines)
    }
}

/// Does a line of the kernel's log tell of a fault, of sched_ext or of the kernel itself?
fn is_complaint(line: &str) -> bool {
    let lower = line.to_lowercase();
    if lower.contains("sched_ext:") {
        // What is logged when a scheduler comes and goes as it should.
        return !(lower.ends_with(" enabled") || lower.contains("disabled (unregistered from"));
    }
    ["warning:", "bug:", "oops", "call trace", "stall", "lockup", "blocked for more than", "general protection"]
        .iter()
        .any(|sign| lower.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_from_ordinary_lines() {
        for line in [
            "sched_ext: BPF scheduler \"rl\" disabled (runnable task stall)",
            "sched_ext: rl: stress-ng[812] failed to run for 30.016s",
            "WARNING: CPU: 1 PID: 812 at kernel/sched/ext.c:1234 scx_dispatch+0x12/0x30",
            "watchdog: BUG: soft lockup - CPU#2 stuck for 23s! [stress-ng:812]",
            "rcu: INFO: rcu_preempt self-detected stall on CPU",
            "INFO: task hackbench:99 blocked for more than 120 seconds.",
        ] {
            assert!(is_complaint(line), "{line}");
        }
        for line in [
            "sched_ext: BPF scheduler \"rl\" enabled",
            "sched_ext: BPF scheduler \"rl_0.1.0_x86_64\" disabled (unregistered from user space)",
            "sched_ext: BPF scheduler \"rl_0.1.0_x86_64\" disabled (unregistered from BPF)",
            "hrtimer: interrupt took 19960150 ns",
            "virtme-ng-init: starting script (console fallback)",
        ] {
            assert!(!is_complaint(line), "{line}");
        }
    }

    #[test]
    fn a_tail_is_the_end_of_the_file() {
        let path = std::env::temp_dir().join(format!("scx_rl-tail-{}", std::process::id()));
        let text: Vec<String> = (0..40).map(|line| format!("line {line}")).collect();
        fs::write(&path, text.join("\n")).unwrap();
        assert!(tail(&path).starts_with("line 25\n") && tail(&path).ends_with("line 39"));
        fs::remove_file(&path).unwrap();
        assert_eq!(tail(&path), "");
    }
}
