// SPDX-License-Identifier: GPL-2.0-only
//! Which events can be used for evaluation, what is needed of them, and what became of the others.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::reward::{self, Verdict};
use crate::policy::host::Features;
use crate::policy::{
    RL_EV_CENSOR_AFFINITY, RL_EV_CENSOR_EXIT, RL_EV_REDECIDED, RL_MIGRATE, RL_POINT_TURN, RL_PROB_ONE, rl_event,
};

/// The loop logs at least one in 2^this decisions (`next_shift` in run.rs). An event that says otherwise would outweigh
/// all others.
const SHIFT_MAX: u8 = 16;

/// What is needed of an event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observation {
    pub features: Features,
    pub reward_ms: f64,
    /// Decisions that it stands for.
    pub mass: f64,
    /// Of the action that was taken; not zero.
    pub propensity_q16: u32,
    pub migrate: bool,
}

impl Observation {
    fn of(event: &rl_event) -> Self {
        Self {
            features: event.features,
            reward_ms: reward::raw_reward_ms(event),
            mass: f64::from(event.sample_shift).exp2(),
            propensity_q16: reward::propensity_q16(event),
            migrate: u32::from(event.action) == RL_MIGRATE,
        }
    }

    /// From the probability of the action that was taken to that of migrating; and back, as it is its own inverse.
    pub fn of_migrating_q16(&self, q16: u32) -> u32 {
        if self.migrate { q16 } else { RL_PROB_ONE - q16 }
    }
}

/// What became of the events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All.
    pub events: u64,
    /// Those that estimates are made of.
    pub used: u64,
    /// Decisions that these stand for.
    pub decisions: u64,
    /// Of those used: a later decision, or the waiting bound, had a say too.
    pub redecided: u64,
    /// Left out: decisions about turns, whose rewards have another zero, and whose later ticks are logged more rarely.
    pub turns: u64,
    /// Left out: decided with certainty, so the other action was never tried.
    pub off_mode: u64,
    /// Left out, as the outcome is unknown: why, and how many.
    pub censored: BTreeMap<&'static str, u64>,
    /// Left out, as they make no sense: what does not, and how many.
    pub invalid: BTreeMap<&'static str, u64>,
}

/// The events that can be used, in the order of time.
#[derive(Debug, Clone, Default)]
pub struct Log {
    pub(super) observations: Vec<Observation>,
    counts: Counts,
}

impl Log {
    /// Of these events, in the order of the stream.
    pub fn of(events: &[rl_event]) -> Self {
        let mut log = Self::default();
        events.iter().for_each(|event| log.add(event));
        log
    }

    /// Take in the next event of the stream; one that cannot be used is only counted.
    pub fn add(&mut self, event: &rl_event) {
        self.counts.events += 1;
        match reward::judge(event) {
            Verdict::Learn if u32::from(event.point) == RL_POINT_TURN => self.counts.turns += 1,
            Verdict::Learn if event.sample_shift > SHIFT_MAX => {
                *self.counts.invalid.entry("sample shift").or_default() += 1;
            }
            Verdict::Learn => {
                self.counts.used += 1;
                self.counts.decisions += 1u64 << event.sample_shift;
                self.counts.redecided += u64::from(event.flags & RL_EV_REDECIDED != 0);
                self.observations.push(Observation::of(event));
            }
            Verdict::Censored => *self.counts.censored.entry(censored_by(event.flags)).or_default() += 1,
            Verdict::OffMode => self.counts.off_mode += 1,
            Verdict::Invalid(why) => *self.counts.invalid.entry(why).or_default() += 1,
        }
    }

    /// What became of the events.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

fn censored_by(flags: u32) -> &'static str {
    if flags & RL_EV_CENSOR_EXIT != 0 {
        "exit"
    } else if flags & RL_EV_CENSOR_AFFINITY != 0 {
        "affinity"
    } else {
        "dequeued"
    }
}
