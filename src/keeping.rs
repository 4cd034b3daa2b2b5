// SPDX-License-Identifier: GPL-2.0-only
//! Which checkpoints of a learning run are kept beside the latest: the last few, and the best.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use log::info;
use serde::{Deserialize, Serialize};

use crate::agent::Checkpoint;
use crate::agent::guard::Harm;
use crate::file;

/// The best checkpoint, and how good it was.
pub const BEST: &str = "best.safetensors";
const SCORE: &str = "best.json";

/// Pairs of the guard's windows before the policy's effect counts as known.
const PAIRS_MIN: usize = 30;

/// How good the policy of a checkpoint was when it was written, as the guard had measured it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Score {
    /// Upper end of the 95 % interval of how much longer responses were than under the fixed rule, percent.
    harm_at_most_pct: f64,
    /// Estimate.
    harm_pct: f64,
    /// Pairs of windows that this is from.
    pairs: usize,
    /// Updates of the network.
    updates: u64,
    /// Where; scores of different machines do not compare.
    topology: String,
}

impl Score {
    /// None: not known well enough yet. The guard's harm is a difference of logarithms.
    fn of(harm: Harm, checkpoint: &Checkpoint) -> Option<Self> {
        let percent = |log: f64| 100.0 * log.exp_m1();
        let known = harm.pairs >= PAIRS_MIN && harm.mean.is_finite() && harm.error.is_finite();
        known.then(|| Self {
            harm_at_most_pct: percent(harm.mean + 1.96 * harm.error),
            harm_pct: percent(harm.mean),
            pairs: harm.pairs,
            updates: checkpoint.updates,
            topology: checkpoint.origin.topology.clone(),
        })
    }
}

/// Copies of the latest checkpoint.
#[derive(Debug)]
pub struct Keeping {
    folder: PathBuf,
    last: usize,
}

impl Keeping {
    /// Keep the `last` ones in `folder`, and the best if the guard can tell.
    pub fn new(folder: &Path, last: usize) -> Self {
        Self { folder: folder.to_path_buf(), last }
    }

    /// `checkpoint` was just written to `latest`, and this is what the guard knows of its policy.
    ///
    /// # Errors
    /// A file cannot be read or written. What was there before is whole.
    pub fn keep(&self, latest: &Path, checkpoint: &Checkpoint, harm: Option<Harm>) -> Result<()> {
        let score = harm.and_then(|harm| Score::of(harm, checkpoint));
        if self.last == 0 && score.is_none() {
            return Ok(());
        }
        let bytes = fs::read(latest).with_context(|| format!("reading {}", latest.display()))?;
        let write = |name: &str, bytes: &[u8]| {
            let path = self.folder.join(name);
            file::replace(&path, bytes).with_context(|| format!("writing {}", path.display())).map(|()| path)
        };
        if self.last > 0 {
            let new = write(&name(checkpoint.updates), &bytes)?;
            for old in self.kept()?.into_iter().filter(|path| *path != new).skip(self.last - 1) {
                fs::remove_file(&old).with_context(|| format!("removing {}", old.display()))?;
            }
        }
        let Some(score) = score else { return Ok(()) };
        let best = fs::read(self.folder.join(SCORE)).ok().and_then(|text| serde_json::from_slice::<Score>(&text).ok());
        let better = |best: &Score| best.topology != score.topology || best.harm_at_most_pct > score.harm_at_most_pct;
        if best.as_ref().is_none_or(better) {
            // The score last: should this be interrupted, a worse score with a better checkpoint does no harm.
            write(BEST, &bytes)?;
            write(SCORE, (serde_json::to_string_pretty(&score)? + "\n").as_bytes())?;
            info!("the best so far: responses longer by {:+.1} % at most; {BEST}", score.harm_at_most_pct);
        }
        Ok(())
    }

    /// The copies that are there, newest first: by when they were written, as a run from the beginning counts updates anew.
    fn kept(&self) -> Result<Vec<PathBuf>> {
        let ours = |path: &PathBuf| {
            let number = path.file_name()?.to_str()?.strip_prefix("at-")?.strip_suffix(".safetensors")?;
            (number.len() == 10 && number.bytes().all(|b| b.is_ascii_digit())).then_some(())
        };
        let entries = fs::read_dir(&self.folder).with_context(|| format!("reading {}", self.folder.display()))?;
        let mut found: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| ours(path).is_some())
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        found.sort();
        Ok(found.into_iter().rev().map(|(_, path)| path).collect())
    }
}

fn name(updates: u64) -> String {
    format!("at-{updates:010}.safetensors")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{Agent, Hyper, Origin};

    fn checkpoint(updates: u64, topology: &str) -> Checkpoint {
        let origin = Origin { topology: topology.into(), ..Origin::default() };
        let mut checkpoint = Agent::new(Hyper::default(), 1).unwrap().checkpoint(origin).unwrap();
        checkpoint.updates = updates;
        checkpoint
    }

    #[test]
    fn the_last_few_and_the_best_are_kept() {
        let folder = std::env::temp_dir().join(format!("scx_rl-keeping-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let latest = folder.join("latest.safetensors");
        let foreign = folder.join("at-home.safetensors");
        fs::write(&foreign, "not ours").unwrap();
        let keeping = Keeping::new(&folder, 2);
        let harm = |mean, pairs| Some(Harm { pairs, mean, error: 0.001 });
        let keep = |keeping: &Keeping, updates: u64, harm, topology: &str| {
            fs::write(&latest, format!("checkpoint {updates}")).unwrap();
            keeping.keep(&latest, &checkpoint(updates, topology), harm).unwrap();
        };
        for (updates, harm) in
            [(9, None), (10, harm(-0.9, 5)), (11, harm(0.02, 40)), (12, harm(-0.01, 50)), (13, harm(0.01, 60))]
        {
            keep(&keeping, updates, harm, "here");
        }
        assert_eq!(keeping.kept().unwrap(), [folder.join(name(13)), folder.join(name(12))]);
        let best = || fs::read(folder.join(BEST)).unwrap();
        assert_eq!(best(), b"checkpoint 12", "neither the unsure one nor a worse one");
        let score: Score = serde_json::from_slice(&fs::read(folder.join(SCORE)).unwrap()).unwrap();
        assert_eq!((score.updates, score.pairs), (12, 50));
        assert!((score.harm_pct - -0.995).abs() < 0.001, "{score:?}");

        // A run from the beginning in the same folder: its own are the newest, and it knows what there was.
        keep(&keeping, 3, harm(0.0, 99), "here");
        assert_eq!(keeping.kept().unwrap()[0], folder.join(name(3)));
        assert_eq!(keeping.kept().unwrap().len(), 2);
        assert_eq!(best(), b"checkpoint 12");
        keep(&Keeping::new(&folder, 0), 4, harm(0.0, 99), "elsewhere");
        assert_eq!(best(), b"checkpoint 4", "what was best on another machine does not count");
        assert_eq!(keeping.kept().unwrap().len(), 2, "0 keeps none of its own, and removes nothing");
        assert!(foreign.exists());
        fs::remove_dir_all(&folder).unwrap();
        assert!(keeping.keep(&latest, &checkpoint(15, "here"), None).is_err());
    }
}
