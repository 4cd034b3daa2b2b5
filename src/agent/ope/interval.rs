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

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};

use serde::Serialize;

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

/// The value below which a t-distributed number with `df` >= 1 degrees of freedom lies with probability `p`, 0.5 to 1.
pub(in crate::agent) fn student_t(p: f64, df: usize) -> f64 {
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    // Each step gains a bit; a double has 53.
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if within(middle, df) < 2.0 * p - 1.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    (df as f64).sqrt() * low.tan()
}

/// P(|T| < sqrt(df) tan(angle)), exactly: Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.3 and
/// 26.7.4.
fn within(angle: f64, df: usize) -> f64 {
    let (sin, cos) = angle.sin_cos();
    let odd = df % 2 == 1;
    // cos + 2/3 cos^3 + (2 4)/(3 5) cos^5 ... where df is odd, 1 + 1/2 cos^2 + (1 3)/(2 4) cos^4 ... where it is even
    let mut term = if odd { cos } else { 1.0 };
    let mut sum = 0.0;
    for exponent in (df % 2..df.saturating_sub(1)).step_by(2) {
        sum += term;
        term *= cos * cos * (exponent + 1) as f64 / (exponent + 2) as f64;
    }
    if odd { FRAC_2_PI * (angle + sin * sum) } else { sin * sum }
}
