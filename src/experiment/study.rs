// SPDX-License-Identifier: GPL-2.0-only
//! A study's folder: its specification, where it comes from, and a file for each cell that is done.
//!
//! `spec.toml` is a copy of the specification, `study.json` says by what it is measured, `cells/` has a file for each cell,
//! `checkpoints/` what was learned, `logs/` what programs said. A file is there whole or not at all, whatever ends the writer,
//! so what is in `cells/` is what is done, and there is nothing else that could contradict it.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::plan::{self, Key};
use super::spec::Spec;
use crate::agent::Checkpoint;
use crate::agent::metrics::LearningPoint;
use crate::file;
use crate::lab::child::POLL;
use crate::runqlat::{Counts, Histogram};

/// How long a run waits for what an earlier one, which was killed, had started.
const ORPHANS_LIMIT: Duration = Duration::from_secs(60);
/// A cell's file is smaller.
const CELL_MAX_BYTES: u64 = 4 << 20;

/// By what a study is measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Of scx_rl, with the commit.
    pub version: String,
    /// SHA-256 of the specification.
    pub spec_sha256: String,
    /// When it was begun, UTC.
    pub created_at: String,
}

/// A histogram of waits as a file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// Those of its buckets that are not empty: number and count.
    pub buckets: Vec<(usize, u64)>,
    /// Sum of the waits, ns.
    pub sum_ns: u64,
    /// The longest, ns.
    pub max_ns: u64,
}

impl From<&Counts> for Waits {
    fn from(counts: &Counts) -> Self {
        let mut all = Histogram::default();
        counts.waits.iter().for_each(|waits| all.merge(waits));
        let buckets = all.buckets.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect();
        Waits { buckets, sum_ns: all.sum_ns, max_ns: all.max_ns }
    }
}

impl From<&Waits> for Counts {
    /// A bucket that there cannot be is left out.
    fn from(waits: &Waits) -> Self {
        let mut all = Histogram { sum_ns: waits.sum_ns, max_ns: waits.max_ns, ..Histogram::default() };
        for &(bucket, count) in &waits.buckets {
            if let Some(total) = all.buckets.get_mut(bucket) {
                *total = count;
            }
        }
        Counts { waits: [all, Histogram::default()], ..Counts::default() }
    }
}

/// A cell that is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its place.
    #[serde(flatten)]
    pub key: Key,
    /// Its figures by name; empty where it failed.
    pub figures: BTreeMap<String, f64>,
    /// Why there are none.
    pub complaint: Option<String>,
    /// Faults that the kernel logged meanwhile.
    pub kernel_log: Vec<String>,
    /// All tasks' waits meanwhile, if they were measured.
    pub waits: Option<Waits>,
    /// The course of its learning, if it learned and was watched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learning: Vec<LearningPoint>,
    /// How long it took.
    pub seconds: f64,
    /// The kernel's release, or `simulator`.
    pub kernel: String,
    /// Of scx_rl, with the commit.
    pub version: String,
    /// SHA-256 of the specification.
    pub spec_sha256: String,
    /// When it ended, UTC.
    pub ended_at: String,
}

/// A study's folder.
#[derive(Debug)]
pub struct Study {
    folder: PathBuf,
    spec: Spec,
    provenance: Provenance,
}

impl Study {
    /// Makes the folder of a new study.
    ///
    /// # Errors
    /// There is one already, or it cannot be written.
    pub fn create(folder: &Path, text: &str, spec: Spec) -> Result<Study> {
        ensure!(
            !folder.join("study.json").exists(),
            "{} has a study already: go on with --resume, or choose another --out-dir",
            folder.display()
        );
        let cells = folder.join("cells");
        fs::create_dir_all(&cells).with_context(|| format!("creating {}", cells.display()))?;
        let empty = fs::read_dir(&cells).is_ok_and(|mut entries| entries.next().is_none());
        ensure!(empty, "{} is not empty, but no study of ours: choose another --out-dir", cells.display());
        let provenance = Provenance {
            version: crate::version(),
            spec_sha256: spec.sha256.clone(),
            created_at: crate::learning::now_utc(),
        };
        let study = Study { folder: folder.to_path_buf(), spec, provenance };
        study.write("spec.toml", text.as_bytes())?;
        // The last: what has it is a study.
        study.write("study.json", (serde_json::to_string_pretty(&study.provenance)? + "\n").as_bytes())?;
        Ok(study)
    }

    /// Opens a study.
    ///
    /// # Errors
    /// It is none, or its files are damaged or of another version.
    pub fn open(folder: &Path) -> Result<Study> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path)
                .with_context(|| format!("{} is no study: reading {}", folder.display(), path.display()))
        };
        let provenance: Provenance = serde_json::from_str(&read("study.json")?)
            .with_context(|| format!("{} is damaged", folder.join("study.json").display()))?;
        let spec =
            Spec::parse(&read("spec.toml")?).with_context(|| format!("{}", folder.join("spec.toml").display()))?;
        ensure!(
            spec.sha256 == provenance.spec_sha256,
            "{} was changed after the study had begun: make a new study of it",
            folder.join("spec.toml").display()
        );
        Ok(Study { folder: folder.to_path_buf(), spec, provenance })
    }

    /// What is to be measured.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// By what.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// A file or folder in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(name);
        file::replace(&path, bytes).with_context(|| format!("writing {}", path.display()))
    }

    /// Only one run at a time works on a study. Waits for what a run that was killed had started. The file is the lock.
    ///
    /// # Errors
    /// Another run is at work.
    pub fn lock(&self) -> Result<File> {
        let lock = self.lock_file("lock")?;
        ensure!(
            !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)),
            "another run works on {}",
            self.folder.display()
        );
        let workers = self.lock_file("workers")?;
        let deadline = Instant::now() + ORPHANS_LIMIT;
        while matches!(workers.try_lock(), Err(TryLockError::WouldBlock)) {
            ensure!(
                Instant::now() < deadline,
                "what an earlier run on {} started has not ended after {} s",
                self.folder.display(),
                ORPHANS_LIMIT.as_secs()
            );
            std::thread::sleep(POLL);
        }
        let folders = ["cells", "checkpoints"].map(|name| self.path(name)).into_iter().filter(|folder| folder.exists());
        let leftovers: Vec<_> =
            folders.map(|folder| file::leftovers(&folder)).collect::<Result<_, _>>().context("reading the study")?;
        for leftover in leftovers.into_iter().flatten() {
            fs::remove_file(&leftover).with_context(|| format!("removing {}", leftover.display()))?;
        }
        Ok(lock)
    }

    /// What a worker holds while it works.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn lock_as_worker(&self) -> Result<File> {
        let workers = self.lock_file("workers")?;
        workers.lock_shared().context("locking")?;
        Ok(workers)
    }

    fn lock_file(&self, name: &str) -> Result<File> {
        let path = self.path(&format!(".{name}"));
        File::create(&path).with_context(|| format!("opening {}", path.display()))
    }

    /// Writes a cell that is done.
    ///
    /// # Errors
    /// It cannot be written; then it is not there.
    pub fn record(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_string_pretty(record).context("writing JSON")? + "\n";
        self.write(&format!("cells/{}", record.key.file_name()), text.as_bytes())
    }

    /// Writes what a cell's agent learned.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn record_checkpoint(&self, key: &Key, checkpoint: &Checkpoint) -> Result<()> {
        let path = self.checkpoint_path(key);
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(checkpoint.save(&path)?)
    }

    /// What the cell's agent learned; `None`: nothing.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn checkpoint(&self, key: &Key) -> Result<Option<Checkpoint>> {
        let path = self.checkpoint_path(key);
        if path.exists() { crate::run::load(&path).map(Some) } else { Ok(None) }
    }

    fn checkpoint_path(&self, key: &Key) -> PathBuf {
        self.path("checkpoints").join(key.file_name()).with_extension("safetensors")
    }

    /// Is this cell done?
    pub fn has(&self, key: &Key) -> bool {
        self.path("cells").join(key.file_name()).exists()
    }

    /// How many cells are done, and how many there are.
    pub fn progress(&self) -> (usize, usize) {
        let all = plan::all_keys(&self.spec);
        (all.iter().filter(|key| self.has(key)).count(), all.len())
    }

    /// A cell that is done.
    ///
    /// # Errors
    /// It is not, or its file is damaged.
    pub fn cell(&self, key: &Key) -> Result<Record> {
        let path = self.path("cells").join(key.file_name());
        let damaged = || format!("{} is damaged: remove it, and --resume measures it again", path.display());
        let size = fs::metadata(&path).with_context(|| format!("reading {}", path.display()))?.len();
        ensure!(size <= CELL_MAX_BYTES, damaged());
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let record: Record = serde_json::from_str(&text).with_context(damaged)?;
        ensure!(record.key == *key, damaged());
        if record.spec_sha256 != self.provenance.spec_sha256 {
            bail!("{} is of another specification", path.display());
        }
        Ok(record)
    }

    /// All cells that are done, in the order of the plan.
    ///
    /// # Errors
    /// A file is damaged.
    pub fn cells(&self) -> Result<Vec<Record>> {
        plan::all_keys(&self.spec).iter().filter(|key| self.has(key)).map(|key| self.cell(key)).collect()
    }
}
