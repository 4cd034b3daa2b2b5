// SPDX-License-Identifier: GPL-2.0-only
//! Ratios of sums over events, and how sure they are although neighbours in time resemble each other.
//!
//! Every estimate here is a ratio of sums, `V = sum y / sum x`. To first order its error is a sum over events as well
//! (the delta method for ratios: Cochran, "Sampling Techniques", 3rd ed. 1977, ch. 6; for importance weights Owen,
//! "Monte Carlo theory, methods and examples", 2013, sec. 9.2), so it can be added up over blocks of contiguous events:
//!
//! ```text
//! psi(b)   = sum over events of block b of (y - V x) / sum x       adds up to zero over all blocks
//! variance = B / (B - 1) * sum of psi(b)^2                         B blocks
//! interval = V +- t(B - 1) * sqrt(variance)
//! ```
//!
//! Events within a block may depend on each other in any way; blocks must be long enough to be nearly independent, as
//! in the method of batch means. The difference of two estimates on the same events has the differences of their psi:
//! what hit both cancels.

use serde::Serialize;

use crate::lab::statistics::student_t;

/// How often intervals hold the truth, one-sided bounds too.
pub const CONFIDENCE: f64 = 0.95;

/// A mean reward, or a difference of two, in ms, and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The estimate, ms. A reward is minus a cost: higher is better.
    pub value_ms: f64,
    /// Its standard error, ms.
    pub error_ms: f64,
    /// Lower end of the two-sided interval of [`CONFIDENCE`], ms.
    pub low_ms: f64,
    /// Upper end, ms.
    pub high_ms: f64,
    /// One-sided lower bound: the truth is at least this with probability [`CONFIDENCE`], ms.
    pub at_least_ms: f64,
}

/// Quantiles of Student's t for a number of blocks.
#[derive(Debug, Clone, Copy)]
pub(in crate::agent) struct Quantiles {
    two_sided: f64,
    one_sided: f64,
}

impl Quantiles {
    /// For at least two blocks.
    pub fn new(blocks: usize) -> Self {
        let quantile = |p| student_t(p, blocks.saturating_sub(1));
        Self { two_sided: quantile((1.0 + CONFIDENCE) / 2.0), one_sided: quantile(CONFIDENCE) }
    }
}

/// A ratio of sums, with its influence values.
#[derive(Debug, Clone)]
pub(in crate::agent) struct Ratio {
    /// sum y / sum x; not a number if the x add up to nothing.
    pub value: f64,
    /// psi(b)
    influence: Vec<f64>,
}

impl Ratio {
    /// From the sums (y, x) of each block.
    pub fn new(blocks: impl Iterator<Item = (f64, f64)> + Clone) -> Self {
        let (y, x) = blocks.clone().fold((0.0, 0.0), |(ys, xs), (y, x)| (ys + y, xs + x));
        let value = y / x;
        Self { value, influence: blocks.map(|(block_y, block_x)| (block_y - value * block_x) / x).collect() }
    }

    /// The difference to another ratio on the same blocks.
    pub fn minus(&self, other: &Self) -> Self {
        let influence = self.influence.iter().zip(&other.influence).map(|(a, b)| a - b).collect();
        Self { value: self.value - other.value, influence }
    }

    /// Standard error of the value.
    pub fn error(&self) -> f64 {
        let blocks = self.influence.len() as f64;
        (blocks / (blocks - 1.0) * self.influence.iter().map(|psi| psi * psi).sum::<f64>()).sqrt()
    }

    /// With intervals. The quantiles must be for as many blocks.
    pub fn estimate(&self, quantiles: &Quantiles) -> Estimate {
        let (value_ms, error_ms) = (self.value, self.error());
        let reach_ms = quantiles.two_sided * error_ms;
        Estimate {
            value_ms,
            error_ms,
            low_ms: value_ms - reach_ms,
            high_ms: value_ms + reach_ms,
            at_least_ms: value_ms - quantiles.one_sided * error_ms,
        }
    }
}
