// SPDX-License-Identifier: GPL-2.0-only
//! The same bookkeeping without a VM, on a host whose own kernel has sched_ext.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::group::{Group, interrupted};
use super::{GuestEnd, VmError};

/// Runs `command` on this machine, its output going where ours goes, and gives its exit code. `exit-code` and
/// `dmesg.txt` are left in `records`.
///
/// # Errors
/// [`VmError::Unavailable`] when this kernel has no sched_ext, [`VmError::Guest`] when the time is up.
pub(super) fn run(command: &[String], timeout: Duration, records: &Path) -> Result<i32, VmError> {
    if !Path::new("/sys/kernel/sched_ext").exists() {
        return Err(VmError::Unavailable(
            "--direct needs a kernel with sched_ext and this one has none: leave --direct out to use a VM".to_owned(),
        ));
    }
    fs::create_dir_all(records).with_context(|| format!("creating {}", records.display()))?;
    let code = supervise(command, timeout, records)?;
    fs::write(records.join("exit-code"), format!("{code}\n")).context("keeping the exit code")?;
    match Command::new("dmesg").stderr(Stdio::null()).output() {
        Ok(dmesg) => fs::write(records.join("dmesg.txt"), dmesg.stdout).context("keeping the kernel's log")?,
        Err(error) => log::warn!("the kernel's log is not kept: {error}"),
    }
    Ok(code)
}

fn supervise(words: &[String], timeout: Duration, records: &Path) -> Result<i32, VmError> {
    let Some((program, args)) = words.split_first() else {
        return Err(VmError::Invalid("--direct needs a command after --".to_owned()));
    };
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    let start = Instant::now();
    let mut group = Group::spawn(command).with_context(|| format!("starting {program}"))?;
    while !group.ended() {
        if interrupted() {
            return Err(VmError::Interrupted);
        }
        if start.elapsed() >= timeout {
            let log = records.to_owned();
            let phase = "while the command ran";
            return Err(VmError::Guest { end: GuestEnd::Timeout(timeout), phase, log, tail: String::new() });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(group.end().context("waiting for the command")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[test]
    fn the_commands_code_is_ours() {
        assert_eq!(supervise(&words("exit 7"), Duration::from_secs(10), Path::new("/r")).unwrap(), 7);
    }

    #[test]
    fn time_is_a_hard_limit() {
        let start = Instant::now();
        let error = supervise(&words("sleep 1000"), Duration::from_millis(200), Path::new("/r")).unwrap_err();
        assert!(matches!(error, VmError::Guest { end: GuestEnd::Timeout(_), .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
