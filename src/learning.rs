// SPDX-License-Identifier: GPL-2.0-only
//! The learning side of a run: the agent, its recording, its checkpoints, and what must be true before it publishes.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use log::{error, info, warn};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::agent::guard::{Counts, Guard, Limits};
use crate::agent::publishing::Publishing;
use crate::agent::recording::{Header, Recorder};
use crate::agent::{Agent, Environment, Hyper, Origin};
use crate::cli::Opts;
use crate::keeping::Keeping;
use crate::kernel::scheduler::Counters;
use crate::policy::{RL_CNT_burst_sum_ns, RL_CNT_bursts, RL_CNT_wait_sum_ns, probability_q16, rl_event};
use crate::{kernel, process};

/// Name of the newest checkpoint in the checkpoint folder.
pub const LATEST: &str = "latest.safetensors";

/// A learning run.
pub struct Learning {
    agent: Agent,
    recorder: Option<Recorder<BufWriter<File>>>,
    checkpoint_path: PathBuf,
    keeping: Keeping,
    topology: String,
    memory_limit_bytes: u64,
    /// Learning stopped before the run did.
    stopped: bool,
    /// What decides, and when that changes.
    pub publishing: Publishing,
    /// Updates in the last checkpoint.
    checkpoint_updates: Option<u64>,
    /// Failed attempts to write a checkpoint.
    pub checkpoint_failures: u64,
    /// The last attempt failed.
    pub last_checkpoint_failed: bool,
}

/// What `--continue` goes on from: the latest checkpoint of a folder, if it has one that this version can use. Another one is
/// put aside.
///
/// # Errors
/// It cannot be put aside.
fn latest(folder: &Path) -> Result<Option<PathBuf>> {
    let (path, aside) = (folder.join(LATEST), folder.join("refused.safetensors"));
    if !path.exists() {
        info!("nothing to continue in {}: learning begins", folder.display());
        return Ok(None);
    }
    let Err(why) = crate::run::load(&path) else { return Ok(Some(path)) };
    std::fs::rename(&path, &aside).with_context(|| format!("cannot move {} aside", path.display()))?;
    warn!("{why:#}: it is {} now, and learning begins anew", aside.display());
    Ok(None)
}

impl Learning {
    /// A fresh agent, or one that goes on from `--resume` or `--continue`, for a machine with this topology. Returns the generation to
    /// go on from, too.
    ///
    /// # Errors
    /// When the checkpoint to resume from is refused, or the recording cannot be created.
    pub fn new(opts: &Opts, topology: String) -> Result<(Self, u64)> {
        let resume = if opts.go_on { latest(&opts.checkpoint_dir)? } else { opts.resume.clone() };
        let (agent, generation) = match &resume {
            None if opts.from_scratch => (Agent::new(Hyper::default(), opts.seed)?, 0),
            None => (Agent::imitating(Hyper::default(), opts.seed)?, 0),
            Some(path) => {
                let checkpoint = crate::run::load(path)?;
                if checkpoint.origin.topology != topology {
                    warn!(
                        "{} was learned on another topology ({}; this is {topology}): going on from it all the same, \
                         since features are per CPU and domain, but expect to relearn",
                        path.display(),
                        checkpoint.origin.topology
                    );
                }
                info!("resuming after {} updates from {}", checkpoint.updates, path.display());
                (Agent::resume(&checkpoint)?, checkpoint.origin.generation)
            }
        };
        let recorder = match &opts.record {
            None => None,
            Some(path) => {
                let file = File::create(path).with_context(|| format!("cannot record to {}", path.display()))?;
                let limit = opts.record_limit_mib.saturating_mul(1 << 20);
                Some(Recorder::new(BufWriter::new(file), &Header::of(&agent), Some(limit))?)
            }
        };
        if let Err(e) = std::fs::create_dir_all(&opts.checkpoint_dir) {
            error!(
                "cannot create the checkpoint folder {}: {e}; learning goes on, and writing is tried again",
                opts.checkpoint_dir.display()
            );
        }
        let floor_q16 = probability_q16(opts.explore_floor);
        let guard = (!opts.no_guard).then(|| Guard::new(Limits::default(), opts.seed, 0));
        let publishing =
            Publishing::new(&agent, floor_q16, guard, opts.slices, &mut ChaCha8Rng::seed_from_u64(opts.seed))?;
        let learning = Self {
            agent,
            recorder,
            checkpoint_path: opts.checkpoint_dir.join(LATEST),
            keeping: Keeping::new(&opts.checkpoint_dir, opts.checkpoint_keep),
            topology,
            memory_limit_bytes: opts.agent_memory_mib << 20,
            stopped: false,
            publishing,
            checkpoint_updates: None,
            checkpoint_failures: 0,
            last_checkpoint_failed: false,
        };
        Ok((learning, generation))
    }

    /// Is there anything new for a periodic checkpoint? Each one costs the unfinished batch and the optimiser's memory:
    /// on a quiet machine, where a batch takes longer than the period, nothing would ever be learned.
    pub fn has_news(&self) -> bool {
        self.checkpoint_updates != Some(self.agent.metrics().updates) && self.agent.metrics().updates > 0
    }

    /// The agent.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Take in events: record them, then learn from them.
    pub fn observe(&mut self, events: &[rl_event]) {
        if self.stopped || events.is_empty() {
            return;
        }
        if let Some(recorder) = &mut self.recorder
            && let Err(e) = recorder.events(events)
        {
            error!("cannot record any further: {e:#}; learning goes on");
            self.recorder = None;
        }
        self.publishing.observe(events);
        if let Err(e) = self.agent.observe(events) {
            warn!("{e:#}");
        }
    }

    /// Stop learning when the process has grown too large: the current weights stay, without the probability
    /// floor, which would serve no purpose.
    pub fn check_memory(&mut self, environment: &mut impl Environment) -> Result<()> {
        let resident = process::resident_bytes();
        if self.stopped || resident <= self.memory_limit_bytes {
            return Ok(());
        }
        error!(
            "learning stops: the agent uses {} MiB, more than --agent-memory-mib {}; the last weights stay, frozen",
            resident >> 20,
            self.memory_limit_bytes >> 20
        );
        self.stopped = true;
        self.publishing.freeze();
        self.publishing.publish(environment)
    }

    /// Look whether there is a newer network to publish.
    pub fn consider(&mut self) {
        self.publishing.consider(&self.agent);
    }

    /// Write a checkpoint. A failure is logged and counted, and leaves the last good one as it was.
    pub fn checkpoint(&mut self, generation: u64) -> Option<&Path> {
        let origin = Origin {
            generation,
            kernel: kernel::preflight::kernel_release(),
            topology: self.topology.clone(),
            created_at: now_utc(),
        };
        let outcome = self.agent.checkpoint(origin).and_then(|checkpoint| {
            checkpoint.save(&self.checkpoint_path)?;
            Ok(checkpoint)
        });
        // The agent restarted its optimisers even if the file could not be written: the recording must say so.
        if let Some(recorder) = &mut self.recorder
            && let Err(e) = recorder.restart()
        {
            error!("cannot record any further: {e:#}; learning goes on");
            self.recorder = None;
        }
        self.last_checkpoint_failed = outcome.is_err();
        self.checkpoint_updates = Some(self.agent.metrics().updates);
        match outcome {
            Ok(checkpoint) => {
                info!("checkpoint written: {}", self.checkpoint_path.display());
                let harm = self.publishing.harm_of(&checkpoint.weights);
                if let Err(e) = self.keeping.keep(&self.checkpoint_path, &checkpoint, harm) {
                    self.checkpoint_failures += 1;
                    error!("the checkpoint is written, but could not be kept beside the latest: {e:#}");
                }
                Some(&self.checkpoint_path)
            }
            Err(e) => {
                self.checkpoint_failures += 1;
                error!("checkpoint failed: {e:#}; learning goes on, an earlier checkpoint is untouched");
                None
            }
        }
    }

    /// Close the recording.
    pub fn finish(mut self) -> Result<()> {
        if let Some(recorder) = self.recorder.take() {
            let out = recorder.finish().context("the recording is not complete")?;
            let file = out.into_inner().context("the recording is not complete")?;
            file.sync_all().context("the recording is not on disk")?;
        }
        ensure!(
            !self.last_checkpoint_failed,
            "the last checkpoint could not be written to {}: see the log",
            self.checkpoint_path.display()
        );
        Ok(())
    }
}

/// What the guard looks at.
pub fn guard_counts(counters: &Counters) -> Counts {
    Counts {
        wait_ns: counters.get(RL_CNT_wait_sum_ns),
        burst_ns: counters.get(RL_CNT_burst_sum_ns),
        bursts: counters.get(RL_CNT_bursts),
        waits: counters.wait_hist,
    }
}

/// The time now, as RFC 3339 in UTC, to the second.
pub fn now_utc() -> String {
    utc(SystemTime::now())
}

/// A time, as RFC 3339 in UTC, to the second.
pub fn utc(time: SystemTime) -> String {
    let secs = time.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(0));
    let (days, rest) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    // Civil date from days since 1970-01-01: Hinnant, "chrono-compatible low-level date algorithms".
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}
