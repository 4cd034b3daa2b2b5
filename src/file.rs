// SPDX-License-Identifier: GPL-2.0-only
//! Files that are there whole, or not at all, whatever ends their writer.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

/// What the names of unfinished files begin with.
const TEMPORARY: &str = ".scx_rl-";

/// Puts a file at `path` so that at any moment the old one or the new one is there, whole: a temporary file in the same folder,
/// fsync, rename, fsync of the folder.
///
/// # Errors
/// It cannot be written; on an error before the rename the old file is untouched.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Two writers of one process get two names.
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let temporary = folder.join(format!("{TEMPORARY}{}-{number}.tmp", std::process::id()));
    let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Best effort: the error that matters is the first one.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    File::open(folder)?.sync_all()
}

/// Files whose writers were killed before they were whole.
///
/// # Errors
/// The folder cannot be read.
pub fn leftovers(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let unfinished =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY));
    Ok(fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())).filter(unfinished).collect())
}

/// SHA-256 of bytes, in hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of a file's content, in hex.
///
/// # Errors
/// It cannot be read.
pub fn sha256_of(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hex(&hash.finalize()))
}

/// Bytes in hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Write a new file to the disk. An old one of that name can only be a leftover of a killed process with the same id.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        fs::remove_file(path)?;
    }
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_what_was_not_finished_is_found() {
        let folder = std::env::temp_dir().join(format!("scx_rl-file-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a");
        replace(&path, b"old").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(leftovers(&folder).unwrap().is_empty());
        fs::write(folder.join(".scx_rl-1-0.tmp"), "half").unwrap();
        assert_eq!(leftovers(&folder).unwrap(), [folder.join(".scx_rl-1-0.tmp")]);
        // The target cannot be replaced: it is a folder that is not empty.
        assert!(replace(&folder, b"x").is_err() && fs::read(&path).unwrap() == b"new");
        fs::remove_dir_all(&folder).unwrap();
    }
}
