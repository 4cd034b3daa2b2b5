// SPDX-License-Identifier: GPL-2.0-only
//! What can be said before anything is loaded: can this machine run the scheduler now, and if not, what to do?

use std::path::Path;

use thiserror::Error;

/// Reasons not to start.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PreflightError {
    /// Loading a scheduler needs privileges.
    #[error("not root: a scheduler can only be loaded by root; run it with sudo")]
    NotRoot,
    /// The kernel was built without sched_ext.
    #[error(
        "this kernel ({release}) has no sched_ext (/sys/kernel/sched_ext is missing): boot one that was built with \
         CONFIG_SCHED_CLASS_EXT=y (Linux 6.12 or later; tested from 6.16 on), or try scx_rl in a VM with `make demo`"
    )]
    NoSchedExt {
        /// `uname -r`
        release: String,
    },
    /// Another scheduler is attached.
    #[error("another sched_ext scheduler is attached: {ops}; stop it first")]
    Occupied {
        /// Its name.
        ops: String,
    },
}

/// `uname -r`.
pub fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_string()
}

/// Check privileges, kernel support, and that no other scheduler is attached.
pub fn check() -> Result<(), PreflightError> {
    check_at(Path::new("/sys/kernel/sched_ext"), nix::unistd::geteuid().is_root(), kernel_release())
}

fn check_at(sysfs: &Path, root: bool, release: String) -> Result<(), PreflightError> {
    let Ok(state) = std::fs::read_to_string(sysfs.join("state")) else {
        return Err(PreflightError::NoSchedExt { release });
    };
    if !root {
        return Err(PreflightError::NotRoot);
    }
    if state.trim() != "disabled" {
        let ops = std::fs::read_to_string(sysfs.join("root/ops")).unwrap_or_default();
        let ops = if ops.trim().is_empty() { format!("state {}", state.trim()) } else { ops.trim().to_string() };
        return Err(PreflightError::Occupied { ops });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told() {
        let dir = std::env::temp_dir().join(format!("scx_rl-preflight-{}", std::process::id()));
        let check = |root| check_at(&dir, root, "6.1.0".into());
        assert_eq!(check(true), Err(PreflightError::NoSchedExt { release: "6.1.0".into() }));
        std::fs::create_dir_all(dir.join("root")).unwrap();
        std::fs::write(dir.join("state"), "disabled\n").unwrap();
        assert_eq!(check(false), Err(PreflightError::NotRoot));
        assert_eq!(check(true), Ok(()));
        std::fs::write(dir.join("state"), "enabled\n").unwrap();
        std::fs::write(dir.join("root/ops"), "rusty_1.1.4\n").unwrap();
        assert_eq!(check(true), Err(PreflightError::Occupied { ops: "rusty_1.1.4".into() }));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
