// SPDX-License-Identifier: GPL-2.0-only
//! A child process with everything it starts, which can be ended as a whole and touches nothing else.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// How long a group may take to end by itself after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);

/// A process group that lives no longer than this value.
pub(super) struct Group {
    leader: Child,
    pgid: Pid,
    /// The leader's exit code, once it is reaped. From then on the group's id may belong to others.
    code: Option<i32>,
}

impl Group {
    /// Starts `command` as the leader of a new group. `command` is consumed, so that no copy of its pipes stays here.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        let leader = command.process_group(0).spawn()?;
        let pgid = Pid::from_raw(leader.id().cast_signed());
        Ok(Self { leader, pgid, code: None })
    }

    /// Whether the leader has ended. It is not reaped by this.
    pub fn ended(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        self.code.is_some() || !matches!(waitid(Id::Pid(self.pgid), flags), Ok(WaitStatus::StillAlive))
    }

    /// Ends what is left of the group and gives the leader's exit code; 128 + N where signal N ended it.
    pub fn end(&mut self) -> io::Result<i32> {
        if let Some(code) = self.code {
            return Ok(code);
        }
        if !self.ended() {
            let _ = killpg(self.pgid, Signal::SIGTERM);
            let deadline = Instant::now() + GRACE;
            while !self.ended() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let _ = killpg(self.pgid, Signal::SIGKILL);
        let status = self.leader.wait()?;
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        self.code = Some(code);
        Ok(code)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            log::warn!("could not wait for process group {}: {error}", self.pgid);
        }
    }
}

/// Set by SIGINT and SIGTERM from the first call on; a second SIGINT ends this process at once. Stays set.
pub(super) fn interrupted() -> bool {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    let flag = FLAG.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            let registered = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)));
            if let Err(error) = registered {
                log::warn!("signal {signal} will not end the VM early: {error}");
            }
        }
        flag
    });
    flag.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn the_leaders_code_is_kept() {
        let mut group = Group::spawn(sh("exit 7")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !group.ended() {
            assert!(Instant::now() < deadline, "sh does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(group.end().unwrap(), 7);
        assert_eq!(group.end().unwrap(), 7);
        assert!(group.ended());
    }

    #[test]
    fn ending_takes_the_grandchildren_along_even_those_that_ignore_sigterm() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut command = sh("(trap '' TERM; sleep 1000) & (trap '' TERM; sleep 1000) & echo up; wait");
        command.stdout(writer);
        let mut group = Group::spawn(command).unwrap();
        io::Read::read_exact(&mut reader, &mut [0; 3]).unwrap();
        assert!(!group.ended());
        assert_eq!(group.end().unwrap(), 128 + Signal::SIGTERM as i32);
        // All three held the pipe: its end shows that all three are gone.
        assert_eq!(io::Read::read(&mut reader, &mut [0; 1]).unwrap(), 0);
    }
}
