// SPDX-License-Identifier: GPL-2.0-only
//! This process as a guest of the machine that it schedules: its CPUs, its priority, its memory, its signals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use log::warn;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use scx_utils::Cpumask;

/// Keep this process, and the threads that it starts from now on, on `cpus` (a list such as `0-1`).
///
/// # Errors
/// When the list cannot be read or holds no CPU that the process may use.
pub fn pin(cpus: &str) -> Result<()> {
    let mask = Cpumask::from_cpulist(cpus)
        .with_context(|| format!("bad CPU list {cpus:?} in --agent-cpus: expected a form such as 0 or 0-3"))?;
    let mut set = CpuSet::new();
    for cpu in mask.iter() {
        set.set(cpu).with_context(|| format!("CPU {cpu} in --agent-cpus is out of range"))?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)
        .with_context(|| format!("cannot keep the agent on CPUs {cpus}: are they online?"))
}

/// Set the nice value of this process.
pub fn renice(nice: i32) {
    // SAFETY: a system call without pointers.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } != 0 {
        warn!("cannot set the nice value to {nice}: {}", std::io::Error::last_os_error());
    }
}

/// Resident memory of this process, bytes; 0 if /proc cannot tell.
pub fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|s| s.split_whitespace().nth(1).and_then(|v| v.parse::<u64>().ok()))
        .unwrap_or(0);
    pages * page_bytes()
}

fn page_bytes() -> u64 {
    // SAFETY: a call without pointers.
    let n = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(n).unwrap_or(4096)
}

/// Flags that signals set.
#[derive(Clone)]
pub struct Signals {
    stop: Arc<AtomicBool>,
    checkpoint: Arc<AtomicBool>,
}

impl Signals {
    /// Catch SIGINT and SIGTERM (stop) and SIGUSR1 (checkpoint).
    ///
    /// # Errors
    /// When handlers cannot be installed.
    pub fn install() -> Result<Self> {
        let signals = Self { stop: Arc::default(), checkpoint: Arc::default() };
        let stop = signals.stop.clone();
        ctrlc::set_handler(move || stop.store(true, Ordering::Relaxed)).context("cannot catch SIGINT")?;
        signal_hook::flag::register(libc::SIGUSR1, signals.checkpoint.clone()).context("cannot catch SIGUSR1")?;
        Ok(signals)
    }

    /// Was the process asked to stop?
    pub fn stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Was a checkpoint asked for since the last call?
    pub fn take_checkpoint(&self) -> bool {
        self.checkpoint.swap(false, Ordering::Relaxed)
    }

    /// The flag itself, for other threads.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }
}
