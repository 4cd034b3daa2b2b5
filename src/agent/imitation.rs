// SPDX-License-Identifier: GPL-2.0-only
//! A warm start: an actor that decides as the fixed rule does, with a little doubt. So that a machine need not pay for
//! decisions of a network that has seen nothing yet. Not more than a start: who imitates cannot beat its teacher.
//!
//! Its numbers are in `imitation/actor.txt`, since to find them takes a minute on an emulated machine under load. The tests
//! beside it have the method, check that the numbers still fit the features and the rule, and write them anew when asked.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::policy::host::{self, FEATURES, Features};
use crate::policy::{RL_POINT_TURN, rl_inputs};

use super::network::{ACTOR_HIDDEN, Layers};

#[cfg(test)]
mod tests;

/// The actor's arrays in their fixed order, a line each.
const ACTOR: &str = include_str!("imitation/actor.txt");

/// The actor that imitates the rule as it is without options.
///
/// # Errors
/// The numbers do not fit the network: it has another shape than they had.
pub fn actor() -> Result<Layers> {
    let shape = "the imitator's numbers do not fit the network: write them anew (src/agent/imitation/tests.rs)";
    let mut lines = ACTOR.lines();
    let mut array = |length: usize| -> Result<Vec<f32>> {
        let line = lines.next().context(shape)?;
        let numbers: Vec<f32> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().context(shape)?;
        ensure!(numbers.len() == length, shape);
        Ok(numbers)
    };
    Ok(Layers {
        w1: array(FEATURES * ACTOR_HIDDEN)?,
        b1: array(ACTOR_HIDDEN)?,
        w2: array(ACTOR_HIDDEN)?,
        b2: array(1)?,
    })
}

/// A time, ns, of an order of magnitude that is drawn first: of 2^octave.
fn time(octaves: Range<u32>, rng: &mut ChaCha8Rng) -> u64 {
    let octave = rng.random_range(octaves);
    rng.random_range(1u64 << octave..2 << octave)
}

/// What a decision point may see, as features. Of the kind that the balancer asks about: the other domain is never worse.
pub fn situation(rng: &mut ChaCha8Rng) -> Features {
    let mut time = |octaves| time(octaves, rng);
    let mut input = rl_inputs {
        home_run_avg_ns: time(14..24),
        other_run_avg_ns: time(14..24),
        task_run_avg_ns: time(12..25),
        task_sleep_avg_ns: time(14..30),
        since_ran_ns: time(14..32),
        since_moved_ns: time(18..35),
        home_head_age_ns: time(10..26),
        other_head_age_ns: time(10..26),
        move_cost_ns: time(10..23),
        task_want_ns: time(12..28),
        ..Default::default()
    };
    if rng.random() {
        input.move_cost_ns = 0;
    }
    input.home_cpus = rng.random_range(1..17);
    input.other_cpus = rng.random_range(1..17);
    input.home_queued = rng.random_range(0..=3 * input.home_cpus);
    input.other_queued = rng.random_range(0..=3 * input.other_cpus);
    if rng.random_range(0..3) == 0 {
        input.other_idle = rng.random_range(1..=input.other_cpus);
        input.other_queued = 0;
    }
    if input.home_queued == 0 {
        input.home_head_age_ns = 0;
    }
    if input.other_queued == 0 {
        input.other_head_age_ns = 0;
    }
    input.point = rng.random_range(0..2);
    input.distance = rng.random_range(0..4);
    input.waker = rng.random_range(0..4);
    input.weight = 100;
    host::features(&input)
}

/// The i-th of many, with all decision points: every fourth is a tick.
pub fn any_situation(i: usize, rng: &mut ChaCha8Rng) -> Features {
    if i.is_multiple_of(4) { turn_situation(rng) } else { situation(rng) }
}

/// Likewise at a tick, for how long a turn lasts.
fn turn_situation(rng: &mut ChaCha8Rng) -> Features {
    let mut time = |octaves| time(octaves, rng);
    let mut input = rl_inputs {
        point: RL_POINT_TURN,
        home_run_avg_ns: time(20..30),
        other_run_avg_ns: time(14..30),
        task_run_avg_ns: time(12..25),
        task_sleep_avg_ns: time(14..30),
        task_want_ns: time(20..30),
        turn_ns: time(20..25),
        home_head_age_ns: time(10..26),
        other_cpus: 1,
        weight: 100,
        ..Default::default()
    };
    // What it has run since its last sleep it wants at least.
    input.home_run_avg_ns = input.home_run_avg_ns.min(input.task_want_ns);
    input.home_cpus = rng.random_range(1..17);
    input.home_queued = rng.random_range(0..=3 * input.home_cpus);
    input.other_queued = u32::from(input.home_queued == 0);
    host::features(&input)
}
