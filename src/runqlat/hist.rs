// SPDX-License-Identifier: GPL-2.0-only
//! The histogram of waits and what can be said from it. The arithmetic of `bucket_of` is that of `runqlat.bpf.c`.
//!
//! Below 1 us the buckets are 1/16 us wide; each power of two above has 16 of equal width. A percentile is the middle
//! of its bucket, so it is off by at most half a bucket: 1/32 = 3.1 % of its value (or 1/32 us below 1 us). The counts
//! themselves, the sum and the maximum are exact.

use std::fmt::Write as _;

/// Linear buckets in each power of two.
pub const SUB_BUCKETS: usize = 1 << SUB_BITS;
const SUB_BITS: usize = 4;
const OCTAVES: usize = 32;
/// All buckets: those below 1 us and 32 octaves above. Longer waits (71 minutes) are counted in the last.
pub const BUCKETS: usize = SUB_BUCKETS * (1 + OCTAVES);
/// The largest error of a percentile, relative to the exact one, for percentiles of 1 us and more.
pub const RELATIVE_ERROR: f64 = 0.5 / SUB_BUCKETS as f64;

/// How many characters the longest bar has: bpftrace's.
const BAR_WIDTH: u64 = 52;

/// Waits of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// How many waits fell into each of the `BUCKETS` buckets.
    pub buckets: Vec<u64>,
    /// Sum of the waits, ns.
    pub sum_ns: u64,
    /// The longest wait, ns.
    pub max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], sum_ns: 0, max_ns: 0 }
    }
}

/// The bucket of a wait.
pub fn bucket_of(wait_ns: u64) -> usize {
    let sixteenths_us = wait_ns.saturating_mul(2) / 125;
    if sixteenths_us < SUB_BUCKETS as u64 {
        return sixteenths_us as usize;
    }
    let octave = sixteenths_us.ilog2() as usize - SUB_BITS;
    let sub = (sixteenths_us >> octave) as usize & (SUB_BUCKETS - 1);
    ((octave + 1) * SUB_BUCKETS + sub).min(BUCKETS - 1)
}

/// The lower bound of a bucket, us. The upper bound is that of the next one.
pub fn bucket_low_us(bucket: usize) -> f64 {
    if bucket < SUB_BUCKETS {
        return bucket as f64 / SUB_BUCKETS as f64;
    }
    let octave = bucket / SUB_BUCKETS - 1;
    let sub = bucket % SUB_BUCKETS;
    2f64.powi(octave as i32) * (1.0 + sub as f64 / SUB_BUCKETS as f64)
}

impl Histogram {
    /// Counts one wait.
    pub fn add(&mut self, wait_ns: u64) {
        self.buckets[bucket_of(wait_ns)] += 1;
        self.sum_ns += wait_ns;
        self.max_ns = self.max_ns.max(wait_ns);
    }

    /// Adds the waits of another histogram.
    pub fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// What was counted since `earlier`, an older reading of the same counters. The maximum stays: it is not a sum.
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        Histogram {
            buckets: self.buckets.iter().zip(&earlier.buckets).map(|(now, then)| now.saturating_sub(*then)).collect(),
            sum_ns: self.sum_ns.saturating_sub(earlier.sum_ns),
            max_ns: self.max_ns,
        }
    }

    /// The number of waits.
    pub fn samples(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The mean wait, us; 0 without samples.
    pub fn mean_us(&self) -> f64 {
        match self.samples() {
            0 => 0.0,
            samples => self.sum_ns as f64 / samples as f64 / 1e3,
        }
    }

    /// The wait, us, that a share `q` (0 to 1) of the waits does not exceed, within [`RELATIVE_ERROR`]; 0 without
    /// samples. Never more than the maximum.
    pub fn percentile_us(&self, q: f64) -> f64 {
        let rank = ((q.clamp(0.0, 1.0) * self.samples() as f64).ceil() as u64).max(1);
        let mut below = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            below += count;
            if below >= rank {
                let middle = (bucket_low_us(bucket) + bucket_low_us(bucket + 1)) / 2.0;
                return middle.min(self.max_ns as f64 / 1e3);
            }
        }
        0.0
    }

    /// Waits by powers of two: [0, 1) us, [1, 2), [2, 4) ...
    pub fn powers_of_two(&self) -> Vec<u64> {
        self.buckets.chunks(SUB_BUCKETS).map(|octave| octave.iter().sum()).collect()
    }

    /// The picture that bpftrace draws of `hist(usecs)`: from the first to the last power of two with a wait.
    pub fn picture(&self) -> String {
        let counts = self.powers_of_two();
        let mut out = String::from("@usecs:\n");
        let (Some(first), Some(last)) = (counts.iter().position(|&n| n > 0), counts.iter().rposition(|&n| n > 0))
        else {
            return out + "(no samples)\n";
        };
        let most = counts.iter().copied().max().unwrap_or(0).max(1);
        for (octave, &count) in counts.iter().enumerate().take(last + 1).skip(first) {
            let bar = "@".repeat((u128::from(count) * u128::from(BAR_WIDTH) / u128::from(most)) as usize);
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{:<16}{count:>8} |{bar:<52}|", interval(octave));
        }
        out
    }
}

/// `[1]`, `[2, 4)`, `[512, 1K)` ...: the interval of a power of two, us.
fn interval(octave: usize) -> String {
    match octave {
        0 => "[0]".into(),
        1 => "[1]".into(),
        _ => format!("[{}, {})", short(octave - 1), short(octave)),
    }
}

/// 2^`power` in bpftrace's notation: K, M and G are powers of 1024.
fn short(power: usize) -> String {
    let unit = ["", "K", "M", "G", "T"][(power / 10).min(4)];
    format!("{}{unit}", 1u64 << (power % 10))
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn buckets_tile_the_line() {
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(999), 15);
        assert_eq!(bucket_of(1_000), 16);
        assert_eq!(bucket_of(1_062), 16);
        assert_eq!(bucket_of(1_063), 17);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        for bucket in 0..BUCKETS - 1 {
            let low_ns = (bucket_low_us(bucket) * 1e3).ceil() as u64;
            let next_ns = (bucket_low_us(bucket + 1) * 1e3).ceil() as u64;
            assert_eq!(bucket_of(low_ns), bucket, "low end of bucket {bucket}");
            assert_eq!(bucket_of(next_ns - 1), bucket, "high end of bucket {bucket}");
        }
    }

    #[test]
    fn percentiles_are_within_the_stated_error() {
        for seed in 0..20 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            // Waits from 1 us to 10 s, spread over the orders of magnitude, as waits are.
            let mut exact: Vec<u64> =
                (0..rng.random_range(1..5000)).map(|_| 10f64.powf(rng.random_range(3.0..10.0)) as u64).collect();
            let mut histogram = Histogram::default();
            exact.iter().for_each(|&wait_ns| histogram.add(wait_ns));
            exact.sort_unstable();
            for q in [0.5, 0.9, 0.99, 0.999, 1.0] {
                let rank = ((q * exact.len() as f64).ceil() as usize).max(1);
                let want_us = exact[rank - 1] as f64 / 1e3;
                let got_us = histogram.percentile_us(q);
                assert!(
                    (got_us - want_us).abs() <= want_us * RELATIVE_ERROR + 1e-3,
                    "seed {seed} q {q}: {got_us} is not near {want_us}"
                );
            }
            let mean_us = exact.iter().sum::<u64>() as f64 / exact.len() as f64 / 1e3;
            assert!((histogram.mean_us() - mean_us).abs() < 1e-6 * mean_us);
            assert_eq!(histogram.samples(), exact.len() as u64);
            assert_eq!(histogram.max_ns, exact[exact.len() - 1]);
        }
    }

    #[test]
    fn below_a_microsecond_the_error_is_a_thirty_second_of_one() {
        let mut histogram = Histogram::default();
        histogram.add(100);
        histogram.add(700);
        assert!((histogram.percentile_us(0.5) - 0.1).abs() <= 1.0 / 32.0);
        assert!((histogram.percentile_us(1.0) - 0.7).abs() <= 1.0 / 32.0);
    }

    #[test]
    fn nothing_counted_is_zero_not_a_panic() {
        let empty = Histogram::default();
        assert_eq!(empty.percentile_us(0.99), 0.0);
        assert_eq!(empty.mean_us(), 0.0);
        assert_eq!(empty.picture(), "@usecs:\n(no samples)\n");
    }

    #[test]
    fn since_and_merge_are_inverse() {
        let mut first = Histogram::default();
        [5_000, 70_000].iter().for_each(|&wait_ns| first.add(wait_ns));
        let mut later = first.clone();
        [1_500, 2_000_000].iter().for_each(|&wait_ns| later.add(wait_ns));
        let between = later.since(&first);
        assert_eq!(between.samples(), 2);
        assert_eq!(between.sum_ns, 2_001_500);
        first.merge(&between);
        assert_eq!(first, later);
    }

    #[test]
    fn the_picture_is_bpftraces() {
        let mut histogram = Histogram::default();
        for (wait_us, times) in [(1, 21), (3, 1590), (9, 18371), (700, 2148), (1500, 2234)] {
            (0..times).for_each(|_| histogram.add(wait_us * 1000));
        }
        let picture = histogram.picture();
        let lines: Vec<&str> = picture.lines().collect();
        // Three lines of the document that users compare with, to the character.
        assert_eq!(lines[0], "@usecs:");
        assert_eq!(lines[1], "[1]                   21 |                                                    |");
        assert_eq!(lines[2], "[2, 4)              1590 |@@@@                                                |");
        assert_eq!(lines[4], "[8, 16)            18371 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|");
        assert_eq!(lines[10], "[512, 1K)           2148 |@@@@@@                                              |");
        assert_eq!(lines[11], "[1K, 2K)            2234 |@@@@@@                                              |");
        assert_eq!(lines.len(), 12);
        // Empty lines between the first and the last are drawn, none outside.
        assert_eq!(lines[3], format!("{:<16}{:>8} |{:<52}|", "[4, 8)", 0, ""));
    }
}
