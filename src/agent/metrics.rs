// SPDX-License-Identifier: GPL-2.0-only
//! What the agent tells about itself: counters, the figures of the last update, and the reward's history.

use serde::{Deserialize, Serialize};

/// Counts since the run began, kept across resumes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Events learned from.
    pub accepted: u64,
    /// Events whose outcome is unknown.
    pub censored: u64,
    /// Events that the BPF side cannot have meant.
    pub invalid: u64,
    /// Valid events of modes that do not draw their actions.
    pub off_mode: u64,
    /// Accepted events lost because the batch was full.
    pub dropped: u64,
    /// Accepted events of unfinished batches, given up at checkpoints.
    pub discarded: u64,
    /// Updates undone because a number was not finite.
    pub skipped_updates: u64,
    /// Times the optimisers began anew (once per checkpoint).
    pub restarts: u64,
}

impl Counters {
    /// The largest of them.
    pub fn largest(&self) -> u64 {
        let Self { accepted, censored, invalid, off_mode, dropped, discarded, skipped_updates, restarts } = *self;
        [accepted, censored, invalid, off_mode, dropped, discarded, skipped_updates, restarts]
            .into_iter()
            .fold(0, u64::max)
    }
}

/// The agent's state in numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct AgentMetrics {
    /// Updates done.
    pub updates: u64,
    /// Counts of events and mishaps.
    pub counters: Counters,
    /// Mean raw reward of the last batch, ms.
    pub batch_reward_ms: f64,
    /// Running mean of the raw reward, ms.
    pub reward_ms: f64,
    /// Running means of the response at WAKE and PULL, ms: the scales of the training reward.
    pub response_ms: [f64; 2],
    /// Share of the last batch that migrated.
    pub migrated_share: f64,
    /// Clipped policy loss of the last update.
    pub policy_loss: f64,
    /// Mean squared error of the baseline in the last update.
    pub value_loss: f64,
    /// Mean entropy of the policy in the last update, nats.
    pub entropy: f64,
    /// KL divergence that the last update made, nats.
    pub kl: f64,
}

/// How far learning was at one time: a point of the learning curves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LearningPoint {
    /// Since it began, s (simulated, in a simulation).
    pub at_s: f64,
    /// Generation of the weights published last.
    pub generation: u64,
    /// Running mean of the raw reward, ms.
    pub reward_ms: f64,
    /// Of the last update; see [`AgentMetrics`].
    pub policy_loss: f64,
    /// Likewise.
    pub value_loss: f64,
    /// Likewise, nats.
    pub entropy: f64,
    /// Likewise, nats.
    pub kl: f64,
    /// Share of its batch that migrated.
    pub migrated_share: f64,
}

impl LearningPoint {
    /// Where an agent is now.
    pub fn new(at_s: f64, generation: u64, metrics: &AgentMetrics) -> Self {
        let &AgentMetrics { reward_ms, policy_loss, value_loss, entropy, kl, migrated_share, .. } = metrics;
        Self { at_s, generation, reward_ms, policy_loss, value_loss, entropy, kl, migrated_share }
    }
}

/// Most entries that a [`History`] keeps.
pub const HISTORY_MAX: usize = 65_536;

/// Mean raw reward per update since the process started or resumed. When full, neighbours are averaged into one and every
/// later entry covers twice as many updates, so entries always have equal weight.
#[derive(Debug, Clone)]
pub struct History {
    entries: Vec<(u64, f64)>,
    max: usize,
    /// Updates per entry.
    stride: u64,
    pending: u64,
    pending_sum: f64,
}

impl Default for History {
    fn default() -> Self {
        Self::new(HISTORY_MAX)
    }
}

impl History {
    /// An empty history of at most `max` entries (rounded up to an even number, at least 4).
    pub fn new(max: usize) -> Self {
        Self { entries: Vec::new(), max: max.max(4).next_multiple_of(2), stride: 1, pending: 0, pending_sum: 0.0 }
    }

    /// Add an update: accepted events so far, and the mean raw reward of its batch, ms.
    pub fn add(&mut self, accepted: u64, reward_ms: f64) {
        self.pending += 1;
        self.pending_sum += reward_ms;
        if self.pending < self.stride {
            return;
        }
        self.entries.push((accepted, self.pending_sum / self.pending as f64));
        (self.pending, self.pending_sum) = (0, 0.0);
        if self.entries.len() >= self.max {
            self.entries = self.entries.chunks(2).map(|c| (c[1].0, (c[0].1 + c[1].1) / 2.0)).collect();
            self.stride *= 2;
        }
    }

    /// `(accepted events so far, mean raw reward in ms)`, oldest first.
    pub fn entries(&self) -> &[(u64, f64)] {
        &self.entries
    }

    /// Mean raw reward of the first and of the last quarter, ms; `None` with fewer than four entries.
    pub fn quarters(&self) -> Option<(f64, f64)> {
        let quarter = self.entries.len() / 4;
        if quarter == 0 {
            return None;
        }
        let mean = |part: &[(u64, f64)]| part.iter().map(|e| e.1).sum::<f64>() / quarter as f64;
        Some((mean(&self.entries[..quarter]), mean(&self.entries[self.entries.len() - quarter..])))
    }
}
