// SPDX-License-Identifier: GPL-2.0-only
//! Medians, geometric means, and how sure a ratio is.

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};
use std::fmt;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The middle of the values, or the mean of the two middle ones; 0 of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// The value below which a share `q` (0 to 1) of the values lies, interpolated between the two nearest; 0 of none.
pub fn quantile(values: impl IntoIterator<Item = f64>, q: f64) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = q.clamp(0.0, 1.0) * last as f64;
    let below = sorted[at.floor() as usize];
    let above = sorted[at.ceil() as usize];
    below + (above - below) * at.fract()
}

/// The mean of ratios: what, to the power of their number, is their product. None of none.
///
/// Values must be positive.
pub fn geometric_mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.into_iter().fold((0usize, 0.0), |(count, sum), value| (count + 1, sum + value.ln()));
    (count > 0).then(|| (sum / count as f64).exp())
}

/// Geometric mean of independent ratios with its 95 % interval, by Student's t on their logarithms: unlike a bootstrap it is
/// honest about few of them. None of fewer than two. Values must be positive.
pub fn ratio_estimate(ratios: &[f64]) -> Option<Estimate> {
    let n = ratios.len();
    if n < 2 {
        return None;
    }
    let logs = || ratios.iter().map(|ratio| ratio.ln());
    let mean = logs().sum::<f64>() / n as f64;
    let variance = logs().map(|log| (log - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
    let reach = student_t(0.975, n - 1) * (variance / n as f64).sqrt();
    Some(Estimate { value: mean.exp(), low: (mean - reach).exp(), high: (mean + reach).exp() })
}

/// The value below which a t-distributed number with `df` >= 1 degrees of freedom lies with probability `p`, 0.5 to 1.
pub fn student_t(p: f64, df: usize) -> f64 {
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

/// Rounds drawn with replacement, the same for everything that is compared, so that what hit one round hits all in it.
pub struct Bootstrap {
    rounds: usize,
    /// Each has as many rounds as there are.
    draws: Vec<Vec<usize>>,
}

impl Bootstrap {
    /// `draws` times `rounds` rounds.
    pub fn new(rounds: usize, draws: usize, seed: u64) -> Bootstrap {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = || (0..rounds).map(|_| rng.random_range(0..rounds)).collect();
        Bootstrap { rounds, draws: if rounds == 0 { Vec::new() } else { (0..draws).map(|_| draw()).collect() } }
    }

    /// The statistic of all rounds, and where it lies in 95 % of the draws (percentiles). The statistic gets the rounds'
    /// numbers; where it has no value for a draw, that draw does not count.
    pub fn estimate(&self, statistic: impl Fn(&[usize]) -> Option<f64>) -> Option<Estimate> {
        let all: Vec<usize> = (0..self.rounds).collect();
        let value = statistic(&all)?;
        let drawn: Vec<f64> = self.draws.iter().filter_map(|draw| statistic(draw)).collect();
        Some(Estimate {
            value,
            low: quantile(drawn.iter().copied(), 0.025),
            high: quantile(drawn.iter().copied(), 0.975),
        })
    }
}

/// A value with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// Of all rounds.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl fmt::Display for Estimate {
    /// `value [low, high]`, with as many digits as the format says, or 3.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(3);
        write!(f, "{:.digits$} [{:.digits$}, {:.digits$}]", self.value, self.low, self.high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_many() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median([]), 0.0);
        assert_eq!(quantile([5.0, 1.0, 2.0, 3.0, 4.0], 0.25), 2.0);
        assert!((quantile([1.0, 2.0], 0.9) - 1.9).abs() < 1e-12);
        assert_eq!((quantile([7.0], 0.0), quantile([7.0], 1.0)), (7.0, 7.0));
    }

    #[test]
    fn a_geometric_mean_is_symmetric_in_ratios() {
        assert!((geometric_mean([2.0, 0.5]).unwrap() - 1.0).abs() < 1e-12);
        assert!((geometric_mean([8.0, 1.0, 1.0]).unwrap() - 2.0).abs() < 1e-12);
        assert_eq!(geometric_mean([]), None);
    }

    #[test]
    fn the_interval_holds_the_truth_about_as_often_as_it_says() {
        // Means of 20 values whose true mean is 0.5, in 200 experiments.
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let held = (0..200)
            .filter(|&seed| {
                let values: Vec<f64> = (0..20).map(|_| rng.random_range(0.0..1.0)).collect();
                let mean = |draw: &[usize]| Some(draw.iter().map(|&i| values[i]).sum::<f64>() / draw.len() as f64);
                let estimate = Bootstrap::new(20, 500, seed).estimate(mean).unwrap();
                assert!(estimate.low <= estimate.value && estimate.value <= estimate.high);
                (estimate.low..estimate.high).contains(&0.5)
            })
            .count();
        // The percentile interval of 20 values is a little too narrow: 92 to 93 % are expected.
        assert!((175..=198).contains(&held), "{held} of 200");
    }

    #[test]
    fn estimates_are_repeatable_and_say_when_there_are_none() {
        let first = |draw: &[usize]| draw.first().map(|&i| i as f64);
        assert_eq!(Bootstrap::new(5, 100, 1).estimate(first), Bootstrap::new(5, 100, 1).estimate(first));
        assert_eq!(Bootstrap::new(5, 100, 1).estimate(|_| None), None);
        assert_eq!(Bootstrap::new(0, 100, 1).estimate(first), None);
        let constant = Bootstrap::new(3, 50, 1).estimate(|_| Some(1.5)).unwrap();
        assert_eq!((constant.value, constant.low, constant.high), (1.5, 1.5, 1.5));
    }
}
