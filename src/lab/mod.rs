// SPDX-License-Identifier: GPL-2.0-only
//! What every comparison of schedulers needs: processes that surely end, the kernel's side of sched_ext, the order of
//! rounds, tools and what they print, and statistics. Used by [`crate::demo`] and [`crate::suite`].

pub mod child;
pub mod order;
pub mod statistics;
pub mod system;
pub mod tools;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Makes a folder for results, and sees that files can be written there.
///
/// # Errors
/// They cannot.
pub fn prepare_out_dir(folder: &Path) -> Result<PathBuf> {
    let writable = || -> std::io::Result<PathBuf> {
        std::fs::create_dir_all(folder)?;
        let probe = folder.join(".writable");
        std::fs::write(&probe, "")?;
        std::fs::remove_file(&probe)?;
        folder.canonicalize()
    };
    writable().with_context(|| format!("{} cannot be written: choose another --out-dir", folder.display()))
}
