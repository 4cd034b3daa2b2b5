// SPDX-License-Identifier: GPL-2.0-only
//! The agent's state: what a checkpoint holds, and how it is written and read as a file. The format itself (safetensors,
//! its metadata, the checks) is in format.rs.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::file;
use crate::policy::rl_weights;

use super::format;
use super::hyper::Hyper;
use super::metrics::Counters;
use super::network::Parameters;
use super::quantise::{self, QuantiseError};
use super::reward::{Normaliser, RunningMean};

/// The build that writes checkpoints.
pub const BUILD: &str = concat!("scx_rl ", env!("CARGO_PKG_VERSION"));
/// A file larger than this is not read: a checkpoint is a few kilobytes.
pub const SIZE_MAX_BYTES: u64 = 16 << 20;

/// Where a checkpoint comes from: what only the caller knows, as the agent sees neither machine nor clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Generation of the weights published last.
    pub generation: u64,
    /// Kernel release.
    pub kernel: String,
    /// The domains that were scheduled, in words.
    pub topology: String,
    /// When, as text (RFC 3339).
    pub created_at: String,
}

/// Everything that a run needs to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The float networks.
    pub parameters: Parameters,
    /// The quantised actor; always equal to `quantise(parameters.actor)`.
    pub weights: rl_weights,
    /// Hyper-parameters of the run.
    pub hyper: Hyper,
    /// Seed of the run.
    pub seed: u64,
    /// Updates done.
    pub updates: u64,
    /// Events and mishaps.
    pub counters: Counters,
    /// Scales of the training reward.
    pub normaliser: Normaliser,
    /// Running mean of the raw reward.
    pub reward_ms: RunningMean,
    /// State of the shuffles' random numbers.
    pub rng: ChaCha8Rng,
    /// Version of the build that wrote it.
    pub build: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// Why a checkpoint was not read or written.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// No such file.
    #[error("there is no checkpoint {}: give the path of a .safetensors file that scx_rl wrote", .0.display())]
    Missing(PathBuf),
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Not a file, or too large to be one of ours.
    #[error("{} is not a regular file of at most 16 MiB, so it is not a checkpoint", .0.display())]
    NotAFile(PathBuf),
    /// Fewer bytes than announced.
    #[error("the checkpoint is truncated ({found} bytes of at least {expected}): use an older one")]
    Truncated {
        /// Bytes that are there.
        found: u64,
        /// Bytes that its header announces.
        expected: u64,
    },
    /// Another kind of file, or a damaged header.
    #[error("not a safetensors file, or its header is damaged ({0}): use another file")]
    NotSafetensors(String),
    /// safetensors, but of another program.
    #[error("a safetensors file, but not a checkpoint of scx_rl: use a file that scx_rl wrote")]
    NotOurs,
    /// A format that this build does not know.
    #[error("checkpoint format {found:?}, this build reads {expected:?}: use a build of the same format")]
    FormatVersion {
        /// In the file.
        found: String,
        /// In this build.
        expected: String,
    },
    /// Damaged.
    #[error("the checksum does not match: the file was damaged or edited; use an older checkpoint")]
    Checksum,
    /// Other features, event layout or fixed point.
    #[error(
        "{what} of the checkpoint is {found:?}, of this build {expected:?}: use the build that wrote it, or train anew"
    )]
    Schema {
        /// Which part.
        what: &'static str,
        /// In the file.
        found: String,
        /// In this build.
        expected: String,
    },
    /// Missing, superfluous or misshapen tensors.
    #[error(
        "tensor {name}: {found}, expected {expected}: the network is of another shape; use the build that wrote it"
    )]
    Shape {
        /// Which tensor.
        name: String,
        /// In the file.
        found: String,
        /// In this build.
        expected: String,
    },
    /// Absent or senseless metadata.
    #[error("metadata {key}: {why}: the checkpoint is damaged; use an older one")]
    Metadata {
        /// Which key.
        key: &'static str,
        /// What is wrong.
        why: String,
    },
    /// NaN or infinity.
    #[error("tensor {0} has a number that is not finite: learning had diverged; use an older checkpoint")]
    NotFinite(&'static str),
    /// The published integers are not those of the float network.
    #[error("the quantised network is not the quantised float network: the file was edited; use an older checkpoint")]
    Quantised,
}

/// A checkpoint in short: for people, and as JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Build that wrote it.
    pub build: String,
    /// Generation, kernel, topology, time.
    #[serde(flatten)]
    pub origin: Origin,
    /// Actor and critic.
    pub network: String,
    /// Hash of the feature table.
    pub feature_schema: String,
    /// Names of the features.
    pub features: Vec<&'static str>,
    /// Seed of the run.
    pub seed: u64,
    /// Updates done.
    pub updates: u64,
    /// Events and mishaps.
    pub counters: Counters,
    /// Running mean of the raw reward, ms.
    pub reward_ms: Option<f64>,
    /// Running means of the response at WAKE and PULL, ms.
    pub response_ms: [Option<f64>; 2],
    /// Weights at the limit of their range, and all.
    pub saturated: (usize, usize),
    /// Whether it has learned how long turns should last.
    pub slices: bool,
    /// Whether the policy may be published, or why not.
    pub publishable: std::result::Result<(), String>,
    /// Hyper-parameters of the run.
    pub hyper: Hyper,
}

impl Checkpoint {
    /// The policy for publication, or the reason why it must not be.
    pub fn publishable(&self) -> std::result::Result<rl_weights, QuantiseError> {
        quantise::check(&self.parameters.actor)
    }

    /// Write to `path` so that at any moment the old file or the new one is there, whole ([`file::replace`]).
    pub fn save(&self, path: &Path) -> Result<(), CheckpointError> {
        let bytes = format::encode(self)?;
        file::replace(path, &bytes).map_err(|source| CheckpointError::Io {
            action: "write",
            path: path.to_path_buf(),
            source,
        })
    }

    /// Read and check everything.
    pub fn load(path: &Path) -> Result<Self, CheckpointError> {
        let io = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => CheckpointError::Missing(path.to_path_buf()),
            _ => CheckpointError::Io { action: "read", path: path.to_path_buf(), source },
        };
        // Asked before opening, because opening a named pipe waits for its writer.
        let info = fs::metadata(path).map_err(io)?;
        if !info.is_file() || info.len() > SIZE_MAX_BYTES {
            return Err(CheckpointError::NotAFile(path.to_path_buf()));
        }
        let mut bytes = Vec::new();
        File::open(path).and_then(|file| file.take(SIZE_MAX_BYTES).read_to_end(&mut bytes)).map_err(io)?;
        format::decode(&bytes)
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CheckpointError> {
        format::encode(self)
    }

    /// From the bytes of a file, with every check of [`Checkpoint::load`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CheckpointError> {
        format::decode(bytes)
    }

    /// Has its network learned how long turns should last (`--slices`)?
    pub fn knows_turns(&self) -> bool {
        self.normaliser.knows_turns()
    }

    /// In short, serialisable.
    pub fn summary(&self) -> Summary {
        let (wake_ns, pull_ns) = self.normaliser.means_ns();
        Summary {
            build: self.build.clone(),
            origin: self.origin.clone(),
            network: format::networks(),
            feature_schema: crate::policy::host::feature_schema_hash(),
            features: crate::policy::host::feature_names(),
            seed: self.seed,
            updates: self.updates,
            counters: self.counters,
            reward_ms: self.reward_ms.get(),
            response_ms: [wake_ns, pull_ns].map(|mean| mean.map(|ns| ns / 1e6)),
            saturated: quantise::quantise(&self.parameters.actor).map_or((0, 0), |q| (q.saturated, q.count)),
            slices: self.knows_turns(),
            publishable: self.publishable().map(|_| ()).map_err(|e| e.to_string()),
            hyper: self.hyper.clone(),
        }
    }

    /// In short, for people: one fact a line.
    pub fn describe(&self) -> String {
        let s = self.summary();
        let ms = |value: Option<f64>| value.map_or("none yet".to_string(), |v| format!("{v:.4} ms"));
        let c = &s.counters;
        let lines = [
            ("written by", format!("{} at {}", s.build, or_unknown(&s.origin.created_at))),
            ("kernel", or_unknown(&s.origin.kernel).to_string()),
            ("topology", or_unknown(&s.origin.topology).to_string()),
            ("generation", s.origin.generation.to_string()),
            ("network", s.network),
            ("features", s.features.join(" ")),
            ("schema", s.feature_schema),
            ("seed", s.seed.to_string()),
            ("updates", format!("{} ({} skipped)", s.updates, c.skipped_updates)),
            ("events", format!("{} learned from, {} censored, {} off mode", c.accepted, c.censored, c.off_mode)),
            ("lost", format!("{} invalid, {} dropped, {} discarded at restarts", c.invalid, c.dropped, c.discarded)),
            ("raw reward", ms(s.reward_ms)),
            ("response", format!("wake {}, pull {}", ms(s.response_ms[0]), ms(s.response_ms[1]))),
            ("slices", if s.slices { "learned" } else { "not learned" }.to_string()),
            ("saturated", format!("{} of {} weights", s.saturated.0, s.saturated.1)),
            ("publishable", s.publishable.map_or_else(|why| format!("no: {why}"), |()| "yes".to_string())),
            ("hyper", s.hyper.to_json().unwrap_or_default()),
        ];
        lines.iter().map(|(name, value)| format!("{name:<12}{value}\n")).collect()
    }
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}
