// SPDX-License-Identifier: GPL-2.0-only
//! The batch under construction: bounded, and it counts what does not fit.

use crate::policy::{RL_FEATURE_BITS, RL_MIGRATE, host::FEATURES, rl_event};

use super::reward;

/// One accepted event in the learner's terms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Network inputs: feature / 2^RL_FEATURE_BITS, in 0..2.
    pub inputs: [f32; FEATURES],
    /// Whether the action was to migrate.
    pub migrate: bool,
    /// The logged probability of the action taken, in (0, 1]; exact, as 16 bits fit an f32.
    pub propensity: f32,
    /// Training reward.
    pub reward: f32,
    /// Raw reward, ms.
    pub raw_ms: f64,
}

impl Sample {
    /// Of a valid, uncensored event and its training reward.
    pub fn new(event: &rl_event, training_reward: f64) -> Self {
        Self {
            inputs: event.features.map(|f| f32::from(f) / (1 << RL_FEATURE_BITS) as f32),
            migrate: u32::from(event.action) == RL_MIGRATE,
            propensity: reward::propensity_q16(event) as f32 / crate::policy::RL_PROB_ONE as f32,
            reward: training_reward as f32,
            raw_ms: reward::raw_reward_ms(event),
        }
    }
}

/// Up to `capacity` samples; more are dropped and counted.
#[derive(Debug)]
pub struct Buffer {
    samples: Vec<Sample>,
    capacity: usize,
    dropped: u64,
}

impl Buffer {
    /// An empty buffer.
    pub fn new(capacity: usize) -> Self {
        Self { samples: Vec::with_capacity(capacity), capacity, dropped: 0 }
    }

    /// Add a sample, or drop and count it if the buffer is full. Returns whether a whole batch is there.
    pub fn push(&mut self, sample: Sample) -> bool {
        if self.samples.len() < self.capacity {
            self.samples.push(sample);
        } else {
            self.dropped += 1;
        }
        self.samples.len() == self.capacity
    }

    /// Take everything out.
    pub fn take(&mut self) -> Vec<Sample> {
        std::mem::replace(&mut self.samples, Vec::with_capacity(self.capacity))
    }

    /// Samples waiting.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether none wait.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Samples dropped because the buffer was full.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}
