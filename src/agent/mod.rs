// SPDX-License-Identifier: GPL-2.0-only
//! The learning agent: decision events in, network weights out. It knows neither BPF nor a simulator, and reads no clock:
//! what it becomes is a function of its seed, its hyper-parameters and the stream of events and restarts, to the bit. So a
//! run can be recorded and replayed, and a checkpoint continues it.
//!
//! Reading order, along the data:
//!
//! 1. [`reward`]: which events count, and what they are worth
//! 2. [`buffer`]: the batch under construction
//! 3. [`network`]: actor and critic
//! 4. [`learner`]: the algorithm, with its [`hyper`]-parameters
//! 5. [`quantise`]: the integers that BPF runs, and the guard before them
//! 6. [`imitation`]: a start from the fixed rule instead of from nothing
//! 7. [`guard`]: how much of the time the policy may decide; [`publishing`]: what is published when
//! 8. [`checkpoint`] and [`recording`]: the agent's state, and the stream that made it, on disk
//! 9. [`ope`]: what another policy would have earned on that stream
//!
//! A restart happens at every checkpoint: the unfinished batch is given up and the optimisers begin anew, in the run that
//! goes on exactly as in a run that resumes from the file. Hence "resumed equals uninterrupted" means: given the same
//! events after the checkpoint, all parameters are equal to the bit, and so are the counters.

pub mod buffer;
pub mod checkpoint;
mod format;
pub mod gate;
pub mod guard;
pub mod hyper;
pub mod imitation;
pub mod learner;
pub mod metrics;
pub mod network;
pub mod ope;
pub mod publishing;
pub mod quantise;
pub mod recording;
pub mod reward;
#[cfg(test)]
mod tests;

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::policy::{rl_event, rl_mode, rl_weights};

pub use buffer::{Buffer, Sample};
pub use checkpoint::{Checkpoint, CheckpointError, Origin};
pub use hyper::Hyper;
pub use metrics::{AgentMetrics, Counters, History};
pub use network::Parameters;
pub use reward::Verdict;

use learner::{Learner, UpdateStats};
use reward::{Normaliser, RunningMean};

/// Where events come from and weights go to: a kernel, a simulator, a recording. Only implementations may read clocks.
pub trait Environment {
    /// Append the events that have arrived since the last call. Does not wait.
    fn poll(&mut self, out: &mut Vec<rl_event>) -> Result<()>;

    /// Make these weights, in this mode, with this probability floor (out of `RL_PROB_ONE`), the ones that decide. Returns
    /// their generation.
    fn publish(&mut self, weights: &rl_weights, mode: rl_mode, floor_q16: u32) -> Result<u64>;
}

/// What an agent began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Random numbers.
    Random = 0,
    /// An actor that imitates the fixed rule.
    Rule = 1,
    /// A checkpoint.
    Checkpoint = 2,
}

/// The learning agent.
pub struct Agent {
    hyper: Hyper,
    seed: u64,
    start: Start,
    learner: Learner,
    buffer: Buffer,
    normaliser: Normaliser,
    counters: Counters,
    reward_ms: RunningMean,
    history: History,
    last: UpdateStats,
    last_reward_ms: f64,
    last_migrated_share: f64,
}

impl Agent {
    /// A fresh agent: nearly a fair coin. Errors if a hyper-parameter is out of range.
    pub fn new(hyper: Hyper, seed: u64) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let parameters = Parameters::random(&mut rng);
        Self::assemble(hyper, seed, Start::Random, &parameters, rng, 0)
    }

    /// A fresh agent that begins by deciding as the fixed rule does.
    ///
    /// # Errors
    /// A hyper-parameter is out of range.
    pub fn imitating(hyper: Hyper, seed: u64) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut parameters = Parameters::random(&mut rng);
        parameters.actor = imitation::actor()?;
        Self::assemble(hyper, seed, Start::Rule, &parameters, rng, 0)
    }

    /// Continue from a checkpoint. The reward history starts empty.
    pub fn resume(checkpoint: &Checkpoint) -> Result<Self> {
        let c = checkpoint;
        let mut agent =
            Self::assemble(c.hyper.clone(), c.seed, Start::Checkpoint, &c.parameters, c.rng.clone(), c.updates)?;
        agent.normaliser = c.normaliser;
        agent.counters = c.counters;
        agent.reward_ms = c.reward_ms;
        Ok(agent)
    }

    fn assemble(
        hyper: Hyper,
        seed: u64,
        start: Start,
        parameters: &Parameters,
        rng: ChaCha8Rng,
        updates: u64,
    ) -> Result<Self> {
        hyper.validate()?;
        Ok(Self {
            seed,
            start,
            learner: Learner::new(hyper.clone(), parameters, rng, updates)?,
            buffer: Buffer::new(hyper.batch_events),
            normaliser: Normaliser::default(),
            counters: Counters::default(),
            reward_ms: RunningMean::default(),
            history: History::default(),
            last: UpdateStats::default(),
            last_reward_ms: 0.0,
            last_migrated_share: 0.0,
            hyper,
        })
    }

    /// Take in events, in the order of the stream, and learn whenever a batch is full. How the stream is cut into calls
    /// makes no difference. An error is the first update that failed: its batch is lost and the parameters are as before,
    /// while all other events are taken in.
    pub fn observe(&mut self, events: &[rl_event]) -> Result<()> {
        let mut outcome = Ok(());
        for event in events {
            match reward::judge(event) {
                Verdict::Censored => self.counters.censored += 1,
                Verdict::OffMode => self.counters.off_mode += 1,
                Verdict::Invalid(why) => {
                    if self.counters.invalid == 0 {
                        log::warn!("an invalid event was not learned from ({why}); further ones are only counted");
                    }
                    self.counters.invalid += 1;
                }
                Verdict::Learn => {
                    let accepted = self.accept(event);
                    outcome = outcome.and(accepted);
                }
            }
        }
        outcome
    }

    fn accept(&mut self, event: &rl_event) -> Result<()> {
        let (horizon, clip) = (self.hyper.mean_horizon_events, self.hyper.reward_clip);
        let sample = Sample::new(event, self.normaliser.training_reward(event, horizon, clip));
        self.counters.accepted += 1;
        self.reward_ms.add(sample.raw_ms, horizon);
        if self.buffer.push(sample) { self.train() } else { Ok(()) }
    }

    fn train(&mut self) -> Result<()> {
        let samples = self.buffer.take();
        let n = samples.len() as f64;
        self.last_reward_ms = samples.iter().map(|s| s.raw_ms).sum::<f64>() / n;
        self.last_migrated_share = samples.iter().filter(|s| s.migrate).count() as f64 / n;
        self.history.add(self.counters.accepted, self.last_reward_ms);
        match self.learner.update(&samples).context("an update of the policy failed")? {
            Some(stats) => self.last = stats,
            None => {
                self.counters.skipped_updates += 1;
                log::warn!("an update gave numbers that are not finite; it was undone");
            }
        }
        Ok(())
    }

    /// The policy as BPF runs it. Refuses, with the reason, a network that must not be published.
    pub fn weights(&self) -> Result<rl_weights> {
        quantise::check(&self.learner.actor_layers()?).context("the policy is not fit to be published")
    }

    /// Give up the unfinished batch and begin the optimisers anew. [`Agent::checkpoint`] does it by itself.
    pub fn restart_optimiser(&mut self) -> Result<()> {
        self.counters.discarded += self.buffer.take().len() as u64;
        self.counters.restarts += 1;
        self.learner.restart()
    }

    /// Restart, and take the state. Whoever records the stream records a restart here.
    pub fn checkpoint(&mut self, origin: Origin) -> Result<Checkpoint> {
        self.restart_optimiser()?;
        let parameters = self.learner.parameters()?;
        Ok(Checkpoint {
            weights: quantise::quantise(&parameters.actor)?.weights,
            parameters,
            hyper: self.hyper.clone(),
            seed: self.seed,
            updates: self.learner.updates(),
            counters: self.metrics().counters,
            normaliser: self.normaliser,
            reward_ms: self.reward_ms,
            rng: self.learner.rng().clone(),
            build: checkpoint::BUILD.to_string(),
            origin,
        })
    }

    /// The agent's state in numbers.
    pub fn metrics(&self) -> AgentMetrics {
        let (wake, pull) = self.normaliser.means_ns();
        AgentMetrics {
            updates: self.learner.updates(),
            counters: Counters { dropped: self.counters.dropped + self.buffer.dropped(), ..self.counters },
            batch_reward_ms: self.last_reward_ms,
            reward_ms: self.reward_ms.get().unwrap_or(0.0),
            response_ms: [wake, pull].map(|mean| mean.unwrap_or(0.0) / 1e6),
            migrated_share: self.last_migrated_share,
            policy_loss: self.last.policy_loss,
            value_loss: self.last.value_loss,
            entropy: self.last.entropy,
            kl: self.last.kl,
        }
    }

    /// Mean raw reward per update: `(accepted events so far, ms)`.
    pub fn history(&self) -> &[(u64, f64)] {
        self.history.entries()
    }

    /// Mean raw reward of the first and of the last quarter of the updates since the process started or resumed, ms.
    pub fn reward_quarters(&self) -> Option<(f64, f64)> {
        self.history.quarters()
    }

    /// Every trained number, for comparisons.
    pub fn parameters(&self) -> Result<Parameters> {
        self.learner.parameters()
    }

    /// The hyper-parameters.
    pub fn hyper(&self) -> &Hyper {
        &self.hyper
    }

    /// What it began with.
    pub fn start(&self) -> Start {
        self.start
    }

    /// The seed of the run.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}
