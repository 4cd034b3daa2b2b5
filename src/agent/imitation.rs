// SPDX-License-Identifier: GPL-2.0-only
//! A warm start: an actor that decides as the fixed rule does, with a little doubt. So that a machine need not pay for
//! decisions of a network that has seen nothing yet. Not more than a start: who imitates cannot beat its teacher.
//!
//! Supervised, on situations drawn at random: minimise the cross-entropy between `sigmoid(logit)` and [`CONFIDENCE`] for
//! the rule's own action. The doubt keeps the policy gradient alive; how much of it the first decisions have is a matter
//! of [`CONFIDENCE`] and of the floor that they are published with.

use anyhow::Result;
use candle_core::{Device, Tensor};
use candle_nn::{Optimizer, ops::sigmoid};
use candle_optimisers::adam::{Adam, ParamsAdam};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::policy::host::{FEATURES, Features};
use crate::policy::{RL_FEATURE_BITS, RL_MIGRATE, RL_MODE_HEURISTIC, host, rl_inputs, rl_rule, rl_slot};

use super::network::{Layers, Mlp};
use super::quantise;

/// The probability that the imitator should give to the rule's action.
pub const CONFIDENCE: f32 = 0.98;
/// Gradient steps; more do not help (see the test).
const STEPS: usize = 3000;
/// Situations for each.
const ROWS: usize = 128;
/// Adam's step at the beginning; it falls linearly to a tenth of it, where the quantisation is finer than the steps.
const LEARNING_RATE: f64 = 0.02;

/// What a decision point may see, as features. Of the kind that the balancer asks about: the other domain is never worse.
pub fn situation(rng: &mut ChaCha8Rng) -> Features {
    let mut time = |octaves: std::ops::Range<u32>| {
        let octave = rng.random_range(octaves);
        rng.random_range(1u64 << octave..2 << octave)
    };
    let mut input = rl_inputs {
        home_run_avg_ns: time(14..24),
        other_run_avg_ns: time(14..24),
        task_run_avg_ns: time(12..25),
        task_sleep_avg_ns: time(14..30),
        since_ran_ns: time(14..32),
        since_moved_ns: time(18..35),
        home_head_age_ns: time(10..26),
        other_head_age_ns: time(10..26),
        move_penalty_ns: time(10..23),
        ..Default::default()
    };
    if rng.random() {
        input.move_penalty_ns = 0;
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

/// Does the rule migrate?
fn teaches(rule: &rl_rule, features: &Features) -> bool {
    let slot = rl_slot { mode: RL_MODE_HEURISTIC, rule: *rule, ..Default::default() };
    host::act(&slot, features, 0).action == RL_MIGRATE
}

/// An actor that imitates the rule, from the one given. Random numbers are drawn from `rng`.
///
/// # Errors
/// The arrays do not fit each other.
pub fn imitate(actor: &Layers, rule: &rl_rule, rng: &mut ChaCha8Rng) -> Result<Layers> {
    let mlp = Mlp::new(actor)?;
    let params = ParamsAdam { lr: LEARNING_RATE, ..Default::default() };
    let mut adam = Adam::new(mlp.vars().into_iter().cloned().collect(), params)?;
    for step in 0..STEPS {
        let done = step as f64 / STEPS as f64;
        adam.set_learning_rate(LEARNING_RATE * (1.0 - 0.9 * done));
        let rows: Vec<Features> = (0..ROWS).map(|_| situation(rng)).collect();
        let sign: Vec<f32> = rows.iter().map(|f| if teaches(rule, f) { 1.0 } else { -1.0 }).collect();
        let inputs: Vec<[f32; FEATURES]> =
            rows.iter().map(|f| f.map(|v| f32::from(v) / (1 << RL_FEATURE_BITS) as f32)).collect();
        let inputs = Tensor::from_slice(inputs.as_flattened(), (ROWS, FEATURES), &Device::Cpu)?;
        let right = (mlp.forward(&inputs)? * Tensor::from_vec(sign, ROWS, &Device::Cpu)?)?;
        let log = |logit: &Tensor| (sigmoid(logit)? + 1e-8)?.log();
        let (yes, no) = ((log(&right)? * f64::from(CONFIDENCE))?, (log(&right.neg()?)? * f64::from(1.0 - CONFIDENCE))?);
        let loss = (yes + no)?.mean_all()?.neg()?;
        adam.backward_step(&loss)?;
        quantise::project(&mlp)?;
    }
    Ok(mlp.layers()?)
}
