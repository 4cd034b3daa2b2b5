// SPDX-License-Identifier: GPL-2.0-only
//! Off-policy evaluation: what another policy would have earned, from events that one policy logged with the
//! probabilities of its actions.
//!
//! ```text
//! c = 2^sample_shift       decisions that the event stands for: sampling knows nothing of the outcome
//! p                        the logged probability of the action that was taken (the sampler's integer)
//! w = pi(action | x) / p   importance weight of policy pi; pi is asked of the same C that BPF runs
//! r                        raw reward, ms (minus winsorised cost)
//! m(x, a)                  expected reward by a regression fitted on other events (model.rs)
//!
//! IPS   = sum c w r / sum c                                                  Horvitz and Thompson 1952
//! SNIPS = sum c w r / sum c w                                                Swaminathan and Joachims 2015
//! DR    = sum c (sum over a of pi(a | x) m(x, a) + w (r - m(x, taken))) / sum c    Dudik, Langford and Li 2011
//! logged policy = sum c r / sum c
//! effective events = (sum c w)^2 / sum (c w)^2                               Kish 1965
//! ```
//!
//! IPS is unbiased whatever the model and the rewards, and noisy. SNIPS is steadier and does not change with the zero
//! point of rewards, at the price of a small bias. DR is as free of bias as IPS, and less noisy the better the model
//! is: it is the one to judge by; the others are there so that a disagreement shows. All are ratios of sums; their
//! intervals (interval.rs) come from blocks of contiguous events, because queues make neighbours alike. Nothing is
//! random.
//!
//! Weights are not clipped unless asked for. Rewards are minus costs, so a clipped weight hides cost: it would flatter
//! exactly the policies that leave the logged one farthest behind. What bounds weights is the exploration floor of the
//! log, and where few events carry a result, it is refused ([`Shortage`]).
//!
//! **What this cannot do.** It answers what one decision would have brought, all others left as they were. Decisions
//! share queues: a policy that decides otherwise throughout also meets other queues, whose features and waits are not
//! in the log (each unit's outcome depending on its own treatment alone, SUTVA, does not hold), and the wait that a move
//! puts onto others is in nobody's reward. Events that were censored or lost are missing, and not at random. A policy
//! that was trained on these very events fits their noise, and looks better than it is. So this is a gate before
//! publication, cheap and quick; the true effect of a policy comes from switching between policies on the running
//! machine.

use std::ops::Range;

use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::policy::host;
use crate::policy::{
    RL_MODE_DRAW, RL_MODE_GREEDY, RL_MODE_HEURISTIC, RL_MODE_RANDOM, RL_PROB_ONE, rl_event, rl_mode, rl_slot,
    rl_weights,
};

mod events;
pub(in crate::agent) mod interval;
mod model;

pub use events::{Counts, Log};
pub use interval::{CONFIDENCE, Estimate};

use events::Observation;
use interval::{Quantiles, Ratio};

/// Blocks of time that intervals are made of. From about ten on a few more change little (Schmeiser 1982, "Batch size
/// effects in the analysis of simulation output"), and few blocks are long ones, which depend little on each other.
pub const BLOCKS: usize = 20;
/// Parts of the log for the regressions: each is predicted from the others. Four blocks each.
pub const FOLDS: usize = 5;
/// Fewer events than this in a block, and its sum is not yet nearly normally distributed.
pub const BLOCK_EVENTS_MIN: usize = 25;
/// A result that fewer effective events than this carry is refused: ten for each block.
pub const EFFECTIVE_MIN: f64 = 200.0;
/// Weights have the mean 1. One that is farther off than this, and than [`MEAN_WEIGHT_ERRORS`] standard errors, shows
/// that the log does not have what the policy needs.
pub const MEAN_WEIGHT_SLACK: f64 = 0.05;
/// See [`MEAN_WEIGHT_SLACK`]. Four: what chance does about once in a thousand times.
pub const MEAN_WEIGHT_ERRORS: f64 = 4.0;

/// A policy to be evaluated.
#[derive(Debug, Clone, PartialEq)]
pub enum Policy {
    /// The one that acted, whatever it was at each event.
    Logged,
    /// What BPF would do with this slot.
    Slot(Box<rl_slot>),
    /// Never migrate.
    Stay,
    /// Always migrate.
    Migrate,
}

impl Policy {
    /// The network: each action keeps at least the probability `floor_q16`, out of `RL_PROB_ONE`, as while it learns, or 0.
    pub fn network(weights: rl_weights, floor_q16: u32) -> Self {
        Self::slot(RL_MODE_DRAW, weights, floor_q16)
    }

    /// The network, always its better action: as `--frozen --greedy`.
    pub fn greedy(weights: rl_weights) -> Self {
        Self::slot(RL_MODE_GREEDY, weights, 0)
    }

    /// The fixed rule.
    pub fn heuristic() -> Self {
        Self::slot(RL_MODE_HEURISTIC, rl_weights::default(), 0)
    }

    /// A fair coin.
    pub fn random() -> Self {
        Self::slot(RL_MODE_RANDOM, rl_weights::default(), 0)
    }

    fn slot(mode: rl_mode, weights: rl_weights, floor_q16: u32) -> Self {
        Self::Slot(Box::new(rl_slot { mode, floor_q16, weights, rule: host::default_rule(), ..Default::default() }))
    }

    /// Probability of migrating, out of `RL_PROB_ONE`.
    fn p_migrate_q16(&self, o: &Observation) -> u32 {
        match self {
            Self::Logged => o.of_migrating_q16(o.propensity_q16),
            Self::Slot(slot) => host::act(slot, &o.features, 0).p_migrate_q16,
            Self::Stay => 0,
            Self::Migrate => RL_PROB_ONE,
        }
    }
}

/// How to evaluate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    /// Cut importance weights down to this (none): less noise for an error that favours what was rarely tried.
    pub clip: Option<f64>,
    /// Blocks of time ([`BLOCKS`]).
    pub blocks: usize,
    /// Strength of the regressions' ridge, in events (10): less than what a rare action brings in a usable log, enough
    /// for features that never change.
    pub ridge_events: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { clip: None, blocks: BLOCKS, ridge_events: 10.0 }
    }
}

/// Why a log cannot be evaluated at all.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpeError {
    /// No events.
    #[error("there are no events: record for longer")]
    Empty,
    /// Only events of deterministic policies.
    #[error(
        "no action was drawn: {off_mode} events were decided with certainty (--heuristic or --greedy), which tells \
         nothing of the other action; record with --learn, which draws every action with a logged probability"
    )]
    OffMode {
        /// Such events.
        off_mode: u64,
    },
    /// All censored or invalid.
    #[error("none of the {events} events has a known outcome and makes sense: record again, for longer")]
    Unusable {
        /// All events.
        events: u64,
    },
    /// A setting out of range.
    #[error("{name} = {value}: choose {range}")]
    Setting {
        /// Which.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        range: &'static str,
    },
}

/// Why a log does not tell enough about a policy, or about the difference of two.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum Shortage {
    /// Too few events for blocks.
    #[error("{events} events can be used, and {needed} are needed: record for longer")]
    Events {
        /// Those that can be used.
        events: usize,
        /// The least.
        needed: usize,
    },
    /// Few events carry the result.
    #[error(
        "the weighted events are worth {effective:.0} equal ones, and {needed:.0} are needed: record for longer, or \
         with a greater --explore-floor"
    )]
    Effective {
        /// Effective events.
        effective: f64,
        /// The least.
        needed: f64,
    },
    /// The weights do not have the mean 1.
    #[error(
        "the mean weight is {mean:.3}, not 1: the log hardly has the actions that this policy takes (or --clip cuts \
         too much); record for longer, or with a greater --explore-floor"
    )]
    MeanWeight {
        /// Their mean.
        mean: f64,
    },
    /// The policies hardly ever differ.
    #[error(
        "the two policies differ in what {effective:.0} events are worth, and {needed:.0} are needed: they are nearly \
         the same here, or the log is too short"
    )]
    Difference {
        /// Effective events in which they differ.
        effective: f64,
        /// The least.
        needed: f64,
    },
}

/// As its sentence.
impl Serialize for Shortage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A quantity by each estimator.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimates {
    /// Inverse propensity scores.
    pub ips: Estimate,
    /// Self-normalised inverse propensity scores.
    pub snips: Estimate,
    /// Doubly robust: the one to judge by.
    pub dr: Estimate,
}

/// What a policy would have earned.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Value {
    /// Share of decisions that it would migrate, 0 to 1.
    pub migrated_share: f64,
    /// Equal events that the weighted ones are worth.
    pub effective_events: f64,
    /// Largest importance weight.
    pub largest_weight: f64,
    /// Mean importance weight: 1 but for chance.
    pub mean_weight: f64,
    /// Mean reward of a decision, or why the log cannot tell.
    pub estimates: Result<Estimates, Shortage>,
}

/// What a policy would have earned more than another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Equal events that the differences of the weights are worth: in how many events the policies differ.
    pub effective_events: f64,
    /// Mean of the weights' differences without their signs: by how much, 0 to 2.
    pub mean_weight_change: f64,
    /// Mean reward of a decision, the candidate's minus the baseline's, or why the log cannot tell.
    pub estimates: Result<Estimates, Shortage>,
}

/// The difference of two policies on these events, in the order of the stream; for a gate: publish where
/// `estimates.dr.at_least_ms` is not below what may be lost. The candidate must not have been trained on them.
///
/// # Errors
/// When no event can be used, or a setting is out of range. That there are too few is in the result.
pub fn compare(
    events: &[rl_event],
    candidate: &Policy,
    baseline: &Policy,
    settings: Settings,
) -> Result<Difference, OpeError> {
    let evaluator = Evaluator::new(Log::of(events), settings)?;
    Ok(evaluator.evaluate(candidate).minus(&evaluator.evaluate(baseline)))
}

/// A log, ready to evaluate policies on it.
pub struct Evaluator {
    observations: Vec<Observation>,
    /// By the model, of staying and of migrating.
    expected_ms: Vec<[f64; 2]>,
    settings: Settings,
    quantiles: Quantiles,
}

impl Evaluator {
    /// Fits the model.
    ///
    /// # Errors
    /// When no event can be used, or a setting is out of range.
    pub fn new(log: Log, settings: Settings) -> Result<Self, OpeError> {
        let bad = |name, value: String, range| Err(OpeError::Setting { name, value, range });
        match settings {
            Settings { clip: Some(clip), .. } if !(1.0..f64::INFINITY).contains(&clip) => {
                return bad("clip", clip.to_string(), "a weight of at least 1, which is the mean weight");
            }
            Settings { blocks, .. } if blocks < 2 => return bad("blocks", blocks.to_string(), "at least 2"),
            Settings { ridge_events, .. } if !(f64::MIN_POSITIVE..f64::INFINITY).contains(&ridge_events) => {
                return bad("ridge_events", ridge_events.to_string(), "a positive number");
            }
            _ => {}
        }
        match *log.counts() {
            Counts { events: 0, .. } => return Err(OpeError::Empty),
            Counts { used: 0, off_mode: off_mode @ 1.., .. } => return Err(OpeError::OffMode { off_mode }),
            Counts { used: 0, events, .. } => return Err(OpeError::Unusable { events }),
            _ => {}
        }
        let observations = log.observations;
        let expected_ms = model::cross_fit(&observations, FOLDS, settings.ridge_events);
        Ok(Self { observations, expected_ms, quantiles: Quantiles::new(settings.blocks), settings })
    }

    /// Weigh the events for a policy.
    pub fn evaluate(&self, policy: &Policy) -> Evaluated {
        let mut blocks = vec![Block::default(); self.settings.blocks];
        let mut masses = Vec::with_capacity(self.observations.len());
        let mut largest_weight: f64 = 0.0;
        for (block, part) in blocks.iter_mut().zip(parts(self.observations.len(), self.settings.blocks)) {
            for (o, &[stay_ms, migrate_ms]) in self.observations[part.clone()].iter().zip(&self.expected_ms[part]) {
                let p_migrate_q16 = policy.p_migrate_q16(o);
                let share = f64::from(p_migrate_q16) / f64::from(RL_PROB_ONE);
                let weight = f64::from(o.of_migrating_q16(p_migrate_q16)) / f64::from(o.propensity_q16);
                let weight = weight.min(self.settings.clip.unwrap_or(f64::INFINITY));
                let taken_ms = if o.migrate { migrate_ms } else { stay_ms };
                let doubly_robust_ms = match policy {
                    // What it earned is known, and needs no model.
                    Policy::Logged => o.reward_ms,
                    _ => share * migrate_ms + (1.0 - share) * stay_ms + weight * (o.reward_ms - taken_ms),
                };
                block.mass += o.mass;
                block.migrated += o.mass * share;
                block.weighted += o.mass * weight;
                block.weighted_reward += o.mass * weight * o.reward_ms;
                block.doubly_robust += o.mass * doubly_robust_ms;
                masses.push(o.mass * weight);
                largest_weight = largest_weight.max(weight);
            }
        }
        Evaluated::new(&blocks, masses, largest_weight, self.quantiles)
    }
}

/// Sums over the events of a block, each weighted by mass.
#[derive(Debug, Clone, Default)]
struct Block {
    mass: f64,
    /// Probability of migrating.
    migrated: f64,
    /// Importance weight.
    weighted: f64,
    /// Importance weight times reward, ms.
    weighted_reward: f64,
    /// The terms of DR, ms.
    doubly_robust: f64,
}

/// A policy on a log. Two of the same [`Evaluator`] can be compared.
#[derive(Debug, Clone)]
pub struct Evaluated {
    /// Mass times importance weight, per event.
    masses: Vec<f64>,
    /// Mass of all events.
    mass: f64,
    largest_weight: f64,
    migrated_share: f64,
    mean_weight: Ratio,
    ips: Ratio,
    snips: Ratio,
    dr: Ratio,
    quantiles: Quantiles,
    /// Events that are needed for the blocks.
    needed: usize,
}

impl Evaluated {
    fn new(blocks: &[Block], masses: Vec<f64>, largest_weight: f64, quantiles: Quantiles) -> Self {
        Self {
            masses,
            mass: blocks.iter().map(|b| b.mass).sum(),
            largest_weight,
            migrated_share: Ratio::new(blocks.iter().map(|b| (b.migrated, b.mass))).value,
            mean_weight: Ratio::new(blocks.iter().map(|b| (b.weighted, b.mass))),
            ips: Ratio::new(blocks.iter().map(|b| (b.weighted_reward, b.mass))),
            snips: Ratio::new(blocks.iter().map(|b| (b.weighted_reward, b.weighted))),
            dr: Ratio::new(blocks.iter().map(|b| (b.doubly_robust, b.mass))),
            quantiles,
            needed: blocks.len() * BLOCK_EVENTS_MIN,
        }
    }

    /// What the policy would have earned.
    pub fn value(&self) -> Value {
        Value {
            migrated_share: self.migrated_share,
            effective_events: effective(self.masses.iter().copied()),
            largest_weight: self.largest_weight,
            mean_weight: self.mean_weight.value,
            estimates: match self.shortage() {
                Some(shortage) => Err(shortage),
                None => Ok(self.estimates(|ratio, _| ratio.clone(), self)),
            },
        }
    }

    /// What the policy would have earned more than another on the same log.
    pub fn minus(&self, other: &Self) -> Difference {
        let changes = self.masses.iter().zip(&other.masses).map(|(a, b)| (a - b).abs());
        let effective_events = effective(changes.clone());
        let few = Shortage::Difference { effective: effective_events, needed: EFFECTIVE_MIN };
        let shortage =
            self.shortage().or_else(|| other.shortage()).or((effective_events < EFFECTIVE_MIN).then_some(few));
        Difference {
            effective_events,
            mean_weight_change: changes.sum::<f64>() / self.mass.max(f64::MIN_POSITIVE),
            estimates: match shortage {
                Some(shortage) => Err(shortage),
                None => Ok(self.estimates(Ratio::minus, other)),
            },
        }
    }

    /// By each estimator, what `combine` makes of this policy and another; without asking whether there is enough.
    pub(in crate::agent) fn estimates(&self, combine: impl Fn(&Ratio, &Ratio) -> Ratio, other: &Self) -> Estimates {
        Estimates {
            ips: combine(&self.ips, &other.ips).estimate(&self.quantiles),
            snips: combine(&self.snips, &other.snips).estimate(&self.quantiles),
            dr: combine(&self.dr, &other.dr).estimate(&self.quantiles),
        }
    }

    fn shortage(&self) -> Option<Shortage> {
        let (events, effective) = (self.masses.len(), effective(self.masses.iter().copied()));
        let mean = self.mean_weight.value;
        let slack = MEAN_WEIGHT_SLACK.max(MEAN_WEIGHT_ERRORS * self.mean_weight.error());
        if events < self.needed {
            Some(Shortage::Events { events, needed: self.needed })
        } else if effective < EFFECTIVE_MIN {
            Some(Shortage::Effective { effective, needed: EFFECTIVE_MIN })
        } else if (mean - 1.0).abs() > slack {
            Some(Shortage::MeanWeight { mean })
        } else {
            None
        }
    }
}

/// Equal weights that these are worth, by Kish: as many as there are if all are equal, 0 of none.
fn effective(weights: impl Iterator<Item = f64>) -> f64 {
    let (sum, squares) = weights.fold((0.0, 0.0), |(sum, squares), w| (sum + w, squares + w * w));
    if squares > 0.0 { sum * sum / squares } else { 0.0 }
}

/// So many contiguous parts of nearly equal size.
fn parts(count: usize, parts: usize) -> impl Iterator<Item = Range<usize>> {
    (0..parts).map(move |part| count * part / parts..count * (part + 1) / parts)
}
