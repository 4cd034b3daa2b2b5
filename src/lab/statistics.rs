// SPDX-License-Identifier: GPL-2.0-only
//! Medians, geometric means, and how sure a ratio is.

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
