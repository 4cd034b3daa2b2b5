// SPDX-License-Identifier: GPL-2.0-only
//! From the float actor to the integers that `src/bpf/policy.h` reads, and back.
//!
//! ```text
//! w1, w2: round(w * 2^5)  in +-127, w1 stored + 128 in lanes of 21 bits, three neurons to a word
//! b1:     round(b * 2^11) in +-2^19
//! b2:     round(b * 2^16) in +-2^26
//! ```

use candle_core::{Result, Tensor};
use thiserror::Error;

use crate::policy::{
    RL_FEATURE_BITS, RL_FEATURES, RL_HIDDEN, RL_LANE_BITS, RL_LANES, RL_WEIGHT_BITS, RL_WEIGHT_MAX, RL_WEIGHT_OFFSET,
    rl_weights,
};

use super::network::{ACTOR_HIDDEN, Layers, Mlp};

/// Largest quantised hidden bias (256.0).
pub const B1_MAX: i64 = 1 << 19;
/// Largest quantised output bias (1024.0).
pub const B2_MAX: i64 = 1 << 26;
/// A network with more than this share of its weights at the limit is not what was trained, and is not published.
pub const SATURATED_SHARE_MAX: f64 = 0.25;

const W_SCALE: f64 = (1 << RL_WEIGHT_BITS) as f64;
const B1_SCALE: f64 = (1 << (RL_FEATURE_BITS + RL_WEIGHT_BITS)) as f64;
const B2_SCALE: f64 = (1 << (RL_FEATURE_BITS + 2 * RL_WEIGHT_BITS)) as f64;
const LANE_MASK: u64 = (1 << RL_LANE_BITS) - 1;

/// Why a network must not be published.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum QuantiseError {
    /// An array has the wrong number of elements.
    #[error("the actor is not of the shape {RL_FEATURES}-{RL_HIDDEN}-1: it belongs to another build")]
    Shape,
    /// NaN or infinity.
    #[error("the actor has a number that is not finite: learning has diverged; restart from an older checkpoint")]
    NotFinite,
    /// Too many weights at the limit.
    #[error(
        "{saturated} of {weights} weights are at the limit of their 8 bits: learning has diverged; restart from an older \
         checkpoint or lower the learning rate"
    )]
    Saturated {
        /// Weights at the limit.
        saturated: usize,
        /// All weights.
        weights: usize,
    },
    /// An integer that the forward pass cannot take.
    #[error("{0} is out of range for the fixed-point forward pass: the weights are damaged")]
    Range(&'static str),
}

/// A quantised actor.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantised {
    /// As BPF reads it.
    pub weights: rl_weights,
    /// Weights and biases at the limit of their range (or beyond it, before rounding).
    pub saturated: usize,
    /// Weights and biases in all.
    pub count: usize,
}

/// Quantise. Only the shape is checked here (a wrong one gives an error); NaN becomes zero. See [`check`].
pub fn quantise(actor: &Layers) -> std::result::Result<Quantised, QuantiseError> {
    let shape = [FEATURES_X_HIDDEN, ACTOR_HIDDEN, ACTOR_HIDDEN, 1];
    if actor.arrays().map(|a| a.len()) != shape {
        return Err(QuantiseError::Shape);
    }
    let mut saturated = 0;
    let mut integer = |value: f32, scale: f64, max: i64| {
        let q = (f64::from(value) * scale).round().clamp(-max as f64, max as f64) as i64;
        saturated += usize::from(q.abs() == max);
        q
    };
    let w_max = i64::from(RL_WEIGHT_MAX);
    let mut weights = rl_weights::default();
    for (i, &w) in actor.w1.iter().enumerate() {
        let (feature, group, lane) = slot(i);
        let stored = (integer(w, W_SCALE, w_max) + i64::from(RL_WEIGHT_OFFSET)) as u64;
        weights.w1[group][feature] |= stored << (lane * RL_LANE_BITS);
    }
    for n in 0..ACTOR_HIDDEN {
        weights.b1[n] = integer(actor.b1[n], B1_SCALE, B1_MAX) as i32;
        weights.w2[n] = integer(actor.w2[n], W_SCALE, w_max) as i32;
    }
    weights.b2 = integer(actor.b2[0], B2_SCALE, B2_MAX);
    Ok(Quantised { weights, saturated, count: shape.iter().sum() })
}

const FEATURES_X_HIDDEN: usize = RL_FEATURES as usize * ACTOR_HIDDEN;

/// Where the i-th element of `w1[feature][neuron]` is packed: feature, group, lane.
fn slot(i: usize) -> (usize, usize, u32) {
    let (feature, neuron) = (i / ACTOR_HIDDEN, i % ACTOR_HIDDEN);
    (feature, neuron / RL_LANES as usize, (neuron % RL_LANES as usize) as u32)
}

/// The float network that the integers stand for: exact, apart from a b2 beyond +-256 that does not come from an f32.
pub fn dequantise(weights: &rl_weights) -> Layers {
    let unpack = |i| {
        let (feature, group, lane) = slot(i);
        let stored = (weights.w1[group][feature] >> (lane * RL_LANE_BITS) & LANE_MASK) as i64;
        ((stored - i64::from(RL_WEIGHT_OFFSET)) as f64 / W_SCALE) as f32
    };
    Layers {
        w1: (0..FEATURES_X_HIDDEN).map(unpack).collect(),
        b1: weights.b1.iter().map(|&b| (f64::from(b) / B1_SCALE) as f32).collect(),
        w2: weights.w2.iter().map(|&w| (f64::from(w) / W_SCALE) as f32).collect(),
        b2: vec![(weights.b2 as f64 / B2_SCALE) as f32],
    }
}

/// Quantise for publication: the guard between the learner and BPF. Refuses what is not finite, and what is saturated
/// beyond [`SATURATED_SHARE_MAX`].
pub fn check(actor: &Layers) -> std::result::Result<rl_weights, QuantiseError> {
    let quantised = quantise(actor)?;
    if actor.arrays().iter().any(|a| a.iter().any(|v| !v.is_finite())) {
        return Err(QuantiseError::NotFinite);
    }
    let Quantised { weights, saturated, count } = quantised;
    if saturated as f64 > SATURATED_SHARE_MAX * count as f64 {
        return Err(QuantiseError::Saturated { saturated, weights: count });
    }
    verify(&weights)?;
    Ok(weights)
}

/// Check that integers from wherever keep the promises of `struct rl_weights`: no lane can overflow.
pub fn verify(weights: &rl_weights) -> std::result::Result<(), QuantiseError> {
    let (low, high) = (u64::from(RL_WEIGHT_OFFSET - RL_WEIGHT_MAX), u64::from(RL_WEIGHT_OFFSET + RL_WEIGHT_MAX));
    for &word in weights.w1.as_flattened() {
        let lanes_ok = (0..RL_LANES).all(|l| (low..=high).contains(&(word >> (l * RL_LANE_BITS) & LANE_MASK)));
        if !lanes_ok || word >> (RL_LANES * RL_LANE_BITS) != 0 {
            return Err(QuantiseError::Range("an input weight"));
        }
    }
    if weights.b1.iter().any(|&b| i64::from(b).abs() > B1_MAX) {
        return Err(QuantiseError::Range("a hidden bias"));
    }
    if weights.w2.iter().any(|&w| w.unsigned_abs() > RL_WEIGHT_MAX) {
        return Err(QuantiseError::Range("an output weight"));
    }
    if weights.b2.unsigned_abs() > B2_MAX as u64 {
        return Err(QuantiseError::Range("the output bias"));
    }
    Ok(())
}

/// Pull the float actor back into the range that the integers can express, so that training cannot run away from what is
/// published. Keeps NaN, which the learner looks for.
pub fn project(actor: &Mlp) -> Result<()> {
    let w = f64::from(RL_WEIGHT_MAX) / W_SCALE;
    let limits = [w, B1_MAX as f64 / B1_SCALE, w, B2_MAX as f64 / B2_SCALE];
    for (var, limit) in actor.vars().into_iter().zip(limits) {
        let values: Vec<f32> = var.flatten_all()?.to_vec1()?;
        let limit = limit as f32;
        if values.iter().any(|v| v.abs() > limit) {
            let inside = values.into_iter().map(|v| v.clamp(-limit, limit)).collect::<Vec<_>>();
            var.set(&Tensor::from_vec(inside, var.shape(), var.device())?)?;
        }
    }
    Ok(())
}
