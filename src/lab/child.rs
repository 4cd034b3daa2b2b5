// SPDX-License-Identifier: GPL-2.0-only
//! Processes that a measurement starts: each ends with the value that stands for it, whichever way the measurement
//! ends, and every wait has a bound.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// How often waits look at what they wait for. Seldom enough not to be a workload of its own.
pub const POLL: Duration = Duration::from_millis(100);
/// How long a child that is being dropped may take to end by itself.
const DROP_GRACE: Duration = Duration::from_secs(5);

/// How long killed processes may take to disappear.
const REAP_LIMIT: Duration = Duration::from_secs(2);

/// From now on, processes whose parent has ended are this one's children, so that none of a killed group remains, not
/// even as a zombie. Otherwise they are init's, and in a VM that may be a simple one.
///
/// # Errors
/// The kernel refuses.
pub fn adopt_orphans() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).context("becoming the parent of orphaned processes")
}

/// The user's wish to stop: SIGINT or SIGTERM.
#[derive(Clone)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Catches both signals from now on.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn on_signals() -> Result<Stop> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, flag.clone()).context("catching Ctrl-C")?;
        }
        Ok(Stop(flag))
    }

    /// A wish that only [`Stop::request`] can make.
    pub fn manual() -> Stop {
        Stop(Arc::new(AtomicBool::new(false)))
    }

    /// Makes the wish.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Was it made?
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Sleeps until `deadline`, while `check` holds.
    ///
    /// # Errors
    /// The wish was made, or `check` failed.
    pub fn sleep_until(&self, deadline: Instant, mut check: impl FnMut() -> Result<()>) -> Result<()> {
        loop {
            if self.requested() {
                bail!("interrupted");
            }
            check()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(POLL));
        }
    }
}

/// Kills the child that another thread is waiting for.
#[derive(Clone, Default)]
pub struct Killer(Arc<Mutex<Option<Pid>>>);

impl Killer {
    /// From now on, this child is meant.
    pub fn aim(&self, process: &Process) {
        *self.lock() = Some(process.pid());
    }

    /// Kills the child and its children, if it has not ended.
    pub fn kill(&self) {
        if let Some(pid) = *self.lock() {
            // Its own group, and while the lock is held it is not reaped.
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A child in a process group of its own, so that a Ctrl-C in the terminal reaches us first, and so that the
/// child's own children can be ended with it.
pub struct Process {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
    copiers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts a child whose output goes to `log`.
    ///
    /// # Errors
    /// The log cannot be created, or the program cannot be started.
    pub fn spawn_logged(command: &mut Command, name: &str, log: &Path) -> Result<Process> {
        let out = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let err = out.try_clone().context("sharing the log")?;
        command.stdout(out).stderr(err);
        Self::spawn(command, name)
    }

    /// Starts a child whose output goes to the terminal, line by line, and to `log`.
    ///
    /// # Errors
    /// The log cannot be created, or the program cannot be started.
    pub fn spawn_teed(command: &mut Command, name: &str, log: &Path) -> Result<Process> {
        let log = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let err_log = log.try_clone().context("sharing the log")?;
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Self::spawn(command, name)?;
        if let Some(out) = process.child.stdout.take() {
            process.copiers.push(std::thread::spawn(move || copy_lines(out, std::io::stdout(), log)));
        }
        if let Some(err) = process.child.stderr.take() {
            process.copiers.push(std::thread::spawn(move || copy_lines(err, std::io::stderr(), err_log)));
        }
        Ok(process)
    }

    /// Starts a child whose output nobody wants.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn_silent(command: &mut Command, name: &str) -> Result<Process> {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self::spawn(command, name)
    }

    fn spawn(command: &mut Command, name: &str) -> Result<Process> {
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name} ({})", command.get_program().to_string_lossy()))?;
        Ok(Process { name: name.into(), child, status: None, copiers: Vec::new() })
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait().with_context(|| format!("waiting for {}", self.name))?;
        }
        Ok(self.status)
    }

    /// Waits for its end without a bound; another thread may end it through the [`Killer`] that aims at it.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn wait_killable(&mut self, killer: &Killer) -> Result<ExitStatus> {
        // Not reaped here, so that until the next line the pid cannot become somebody else's.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(self.pid()), flags) == Err(Errno::EINTR) {}
        *killer.lock() = None;
        let status = self.child.wait().with_context(|| format!("waiting for {}", self.name))?;
        self.status = Some(status);
        self.reap_group();
        Ok(status)
    }

    /// Waits for its end without looking at the clock, so that the wait costs no CPU time and ends when the child does.
    /// Another thread kills the child and its children after `limit`, or when `stop` is requested.
    ///
    /// # Errors
    /// It was killed.
    pub fn wait_within(&mut self, limit: Duration, stop: &Stop) -> Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let killer = Killer::default();
        killer.aim(self);
        let (ended, end) = mpsc::channel::<()>();
        let (status, killed) = std::thread::scope(|scope| {
            let to_kill = killer.clone();
            let watchdog = scope.spawn(move || {
                let deadline = Instant::now() + limit;
                while end.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
                    if stop.requested() || Instant::now() >= deadline {
                        to_kill.kill();
                        return true;
                    }
                }
                false
            });
            let status = self.wait_killable(&killer);
            drop(ended);
            (status, watchdog.join().unwrap_or(false))
        });
        ensure!(!(killed && stop.requested()), "interrupted");
        ensure!(!killed, "{} did not end within {:.0} s", self.name, limit.as_secs_f64());
        status
    }

    /// Waits for its end, at most so long.
    ///
    /// # Errors
    /// It has not ended by then.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.ended()? {
                // Its output is complete once the pipes are at their end, which its own children may delay.
                while self.copiers.iter().any(|copier| !copier.is_finished()) && Instant::now() < deadline {
                    std::thread::sleep(POLL);
                }
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} did not end within {:.0} s", self.name, timeout.as_secs_f64());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Asks it to end by SIGINT and waits, at most so long; then kills it, which is an error.
    ///
    /// # Errors
    /// It had to be killed.
    pub fn interrupt(&mut self, timeout: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        // Not reaped yet (ended() says so), so the pid is still the child's.
        let _ = kill(self.pid(), Signal::SIGINT);
        self.wait(timeout).inspect_err(|_| self.kill()).with_context(|| format!("stopping {} by SIGINT", self.name))
    }

    /// Kills it and its children at once.
    pub fn kill(&mut self) {
        if matches!(self.ended(), Ok(None)) {
            // The group is the child's own (process_group(0)), and exists as long as the child is not reaped.
            let _ = killpg(self.pid(), Signal::SIGKILL);
            self.status = self.child.wait().ok();
            self.reap_group();
        }
    }

    /// Collects the child's own children, which are ours once it has ended ([`adopt_orphans`]); those still running, if
    /// it was not killed, are left alone.
    fn reap_group(&self) {
        let group = Pid::from_raw(-self.pid().as_raw());
        let deadline = Instant::now() + REAP_LIMIT;
        loop {
            match waitpid(group, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.interrupt(DROP_GRACE).is_err() {
            self.kill();
        }
    }
}

/// Copies lines to the terminal and to a log; an unwritable one does not stop the other.
fn copy_lines(from: impl Read, mut terminal: impl Write, mut log: File) {
    for line in BufReader::new(from).lines() {
        let Ok(line) = line else { break };
        let _ = writeln!(terminal, "{line}");
        let _ = writeln!(log, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn alive(pid: i32) -> bool {
        std::path::Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn dropping_ends_the_child_and_its_children() {
        let log = std::env::temp_dir().join(format!("scx_rl-drop-{}", std::process::id()));
        adopt_orphans().unwrap();
        // The shell ignores SIGINT, and its child is not the one that would be signalled.
        let mut process =
            Process::spawn_logged(&mut sh("trap '' INT; sleep 1000 & echo $!; wait"), "test", &log).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let grandchild = loop {
            if let Ok(pid) = std::fs::read_to_string(&log).unwrap().trim().parse::<i32>() {
                break pid;
            }
            assert!(Instant::now() < deadline);
            std::thread::sleep(POLL);
        };
        assert!(alive(grandchild));
        assert!(process.interrupt(Duration::from_millis(200)).is_err(), "it had to be killed");
        drop(process);
        assert!(!alive(grandchild), "not even a zombie remains");
        std::fs::remove_file(&log).unwrap();
    }

    #[test]
    fn a_well_behaved_child_ends_by_sigint() {
        let log = std::env::temp_dir().join(format!("scx_rl-int-{}", std::process::id()));
        let script = "trap 'echo bye; exit 3' INT; echo ready; while :; do sleep 0.05; done";
        let mut process = Process::spawn_teed(&mut sh(script), "test", &log).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while !std::fs::read_to_string(&log).unwrap().contains("ready") {
            assert!(Instant::now() < deadline);
            std::thread::sleep(POLL);
        }
        assert_eq!(process.interrupt(Duration::from_secs(5)).unwrap().code(), Some(3));
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "ready\nbye\n");
        std::fs::remove_file(&log).unwrap();
    }

    #[test]
    fn another_thread_can_kill_what_is_waited_for() {
        let killer = Killer::default();
        let mut process = Process::spawn_silent(&mut sh("sleep 1000 & wait"), "test").unwrap();
        killer.aim(&process);
        let waiting = std::thread::spawn({
            let killer = killer.clone();
            move || process.wait_killable(&killer).unwrap()
        });
        std::thread::sleep(Duration::from_millis(100));
        killer.kill();
        assert!(!waiting.join().unwrap().success());
        killer.kill(); // aims at nothing any more
    }

    #[test]
    fn a_wait_ends_with_the_child_or_ends_the_child() {
        let stop = Stop::manual();
        let long = Duration::from_secs(100);
        let mut process = Process::spawn_silent(&mut sh("exit 7"), "test").unwrap();
        assert_eq!(process.wait_within(long, &stop).unwrap().code(), Some(7));
        assert_eq!(process.wait_within(long, &stop).unwrap().code(), Some(7), "asked again, it is remembered");
        let mut process = Process::spawn_silent(&mut sh("sleep 1000 & wait"), "sleeper").unwrap();
        let error = process.wait_within(Duration::from_millis(50), &stop).unwrap_err();
        assert_eq!(error.to_string(), "sleeper did not end within 0 s");
        let mut process = Process::spawn_silent(&mut sh("sleep 1000"), "sleeper").unwrap();
        stop.request();
        assert_eq!(process.wait_within(long, &stop).unwrap_err().to_string(), "interrupted");
    }

    #[test]
    fn sleeping_ends_by_request_and_by_failing_check() {
        let stop = Stop::manual();
        let far = Instant::now() + Duration::from_secs(100);
        assert!(stop.sleep_until(far, || bail!("the scheduler is gone")).is_err());
        assert!(stop.sleep_until(Instant::now() + Duration::from_millis(20), || Ok(())).is_ok());
        stop.request();
        assert_eq!(stop.sleep_until(far, || Ok(())).unwrap_err().to_string(), "interrupted");
    }
}
