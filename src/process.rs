// SPDX-License-Identifier: GPL-2.0-only
//! This process as a guest of the machine that it schedules: its CPUs, its priority, its memory, its signals; and its
//! standard output.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use log::warn;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use scx_utils::Cpumask;

/// The CPUs of a list such as `0-1`.
///
/// # Errors
/// When it cannot be read, or names a CPU that is not online.
pub fn parse_cpus(cpus: &str) -> Result<CpuSet> {
    let mask = Cpumask::from_cpulist(cpus)
        .with_context(|| format!("bad CPU list {cpus:?} in --agent-cpus: expected a form such as 0 or 0-3"))?;
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").context("cannot read the online CPUs")?;
    let online = Cpumask::from_cpulist(online.trim()).context("cannot read the online CPUs")?;
    let mut set = CpuSet::new();
    for cpu in mask.iter() {
        ensure!(online.test_cpu(cpu), "--agent-cpus names CPU {cpu}, which is not online");
        set.set(cpu).with_context(|| format!("CPU {cpu} in --agent-cpus is out of range"))?;
    }
    ensure!(!mask.is_empty(), "--agent-cpus is empty");
    Ok(set)
}

/// Take a seat at the side: this nice value, and these CPUs only, for every thread of this process.
pub fn settle(nice: i32, cpus: Option<&CpuSet>) {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    for tid in threads.filter_map(|t| t.file_name().to_str()?.parse::<libc::pid_t>().ok()) {
        // SAFETY: a system call without pointers.
        if unsafe { libc::setpriority(libc::PRIO_PROCESS, tid as libc::id_t, nice) } != 0 {
            warn!("cannot set the nice value to {nice}: {}", std::io::Error::last_os_error());
        }
        if let Some(Err(e)) = cpus.map(|set| sched_setaffinity(Pid::from_raw(tid), set)) {
            warn!("cannot keep the agent on --agent-cpus: {e}");
        }
    }
}

/// Run `f` with this thread in the real-time class.
///
/// While a scheduler is enabled, the kernel moves tasks one by one from the fair class to the lower sched_ext class. On
/// kernels before 7.0 the enabling thread moves itself early on, and on a saturated machine the tasks that are still in
/// the fair class can starve it until the watchdog fires. A real-time thread stays where it is.
pub fn with_realtime<T>(f: impl FnOnce() -> T) -> T {
    let set = |policy, priority| {
        let param = libc::sched_param { sched_priority: priority };
        // SAFETY: param outlives the call; 0 is the calling thread.
        if unsafe { libc::sched_setscheduler(0, policy, &raw const param) } != 0 {
            warn!("cannot change the scheduling class: {}", std::io::Error::last_os_error());
        }
    };
    set(libc::SCHED_FIFO, 1);
    let result = f();
    set(libc::SCHED_OTHER, 0);
    result
}

/// Print to the standard output. A reader that has gone (`scx_rl ... | head`) has seen enough; that is no error.
///
/// # Errors
/// When the output cannot be written, as to a full disk; `println!` would panic.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to the standard output"),
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
