// SPDX-License-Identifier: GPL-2.0-only
//! The raw counters of `runqlat.bpf.c`: their layout, and how the CPUs' copies add up.

use anyhow::{Result, ensure};

use super::hist::{BUCKETS, Histogram};
use super::longest::Longest;

/// `enum rq_kind`: what a wait began with.
pub const KINDS: usize = 2;
/// `enum rq_distance`.
pub const DISTANCES: usize = 4;

/// `struct rq_hist` and `struct rq_cpu`, in words of 64 bits.
const HIST_WORDS: usize = BUCKETS + 3;
/// The size of `struct rq_cpu` in words.
pub const CPU_WORDS: usize = KINDS * HIST_WORDS + DISTANCES + 1;

/// A reading of the counters, summed over all CPUs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Waits that began with a wakeup, and with a preemption.
    pub waits: [Histogram; KINDS],
    /// Migrations by the nearest shared level: core, LLC, node, none.
    pub migrations: [u64; DISTANCES],
    /// Waits that were not recorded.
    pub missed: u64,
    /// Whose wait was longest: of tasks of nice 0 or less and of those above. A maximum, so of one epoch only.
    pub longest: [Longest; 2],
}

impl Counts {
    /// Decodes and sums the CPUs' values of the map. A maximum counts only if it is of `epoch`.
    ///
    /// # Errors
    /// A value has another size: the BPF object and this code are not of one build.
    pub fn decode(per_cpu: &[Vec<u8>], epoch: u64) -> Result<Self> {
        let mut counts = Counts::default();
        for bytes in per_cpu {
            let words: Vec<u64> = bytes
                .chunks_exact(size_of::<u64>())
                .map(|chunk| chunk.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)))
                .collect();
            ensure!(
                words.len() == CPU_WORDS && bytes.len() == CPU_WORDS * size_of::<u64>(),
                "the tracer's counters are {} bytes, not {}: rebuild scx_rl",
                bytes.len(),
                CPU_WORDS * size_of::<u64>()
            );
            let (hists, rest) = words.split_at(KINDS * HIST_WORDS);
            for (total, hist) in counts.waits.iter_mut().zip(hists.chunks_exact(HIST_WORDS)) {
                let max_ns = if hist[BUCKETS + 2] == epoch { hist[BUCKETS + 1] } else { 0 };
                total.merge(&Histogram { buckets: hist[..BUCKETS].to_vec(), sum_ns: hist[BUCKETS], max_ns });
            }
            for (total, count) in counts.migrations.iter_mut().zip(rest) {
                *total += count;
            }
            counts.missed += rest[DISTANCES];
        }
        Ok(counts)
    }

    /// What was counted since an older reading.
    pub fn since(&self, earlier: &Counts) -> Counts {
        let mut difference = Counts {
            waits: [self.waits[0].since(&earlier.waits[0]), self.waits[1].since(&earlier.waits[1])],
            migrations: self.migrations,
            missed: self.missed.saturating_sub(earlier.missed),
            longest: self.longest.clone(),
        };
        for (count, then) in difference.migrations.iter_mut().zip(&earlier.migrations) {
            *count = count.saturating_sub(*then);
        }
        difference
    }

    /// Adds what was counted in another stretch of time.
    pub fn merge(&mut self, other: &Counts) {
        for (mine, theirs) in self.waits.iter_mut().zip(&other.waits) {
            mine.merge(theirs);
        }
        for (mine, theirs) in self.migrations.iter_mut().zip(&other.migrations) {
            *mine += theirs;
        }
        self.missed += other.missed;
        for (mine, theirs) in self.longest.iter_mut().zip(&other.longest) {
            *mine = std::mem::take(mine).or(theirs.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One CPU's value with the given words set.
    fn value(words: &[(usize, u64)]) -> Vec<u8> {
        let mut all = vec![0u64; CPU_WORDS];
        words.iter().for_each(|&(index, word)| all[index] = word);
        all.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn cpus_add_up_and_old_maxima_do_not_count() {
        let preempt = HIST_WORDS;
        let migrations = KINDS * HIST_WORDS;
        let first = value(&[(20, 3), (BUCKETS, 9_000), (BUCKETS + 1, 4_000), (BUCKETS + 2, 7), (migrations + 2, 5)]);
        let second = value(&[
            (20, 1),
            (BUCKETS, 1_000),
            (BUCKETS + 1, 99_000),
            (BUCKETS + 2, 6),
            (preempt + 3, 2),
            (preempt + BUCKETS, 500),
            (migrations + 4, 8),
        ]);
        let counts = Counts::decode(&[first, second], 7).unwrap();
        assert_eq!(counts.waits[0].buckets[20], 4);
        assert_eq!(counts.waits[0].sum_ns, 10_000);
        assert_eq!(counts.waits[0].max_ns, 4_000, "99 us belong to an epoch that is over");
        assert_eq!((counts.waits[1].samples(), counts.waits[1].sum_ns), (2, 500));
        assert_eq!(counts.migrations, [0, 0, 5, 0]);
        assert_eq!(counts.missed, 8);

        let none = counts.since(&counts);
        assert_eq!((none.waits[0].samples(), none.migrations, none.missed), (0, [0; 4], 0));
    }

    #[test]
    fn another_layout_is_refused() {
        assert!(Counts::decode(&[vec![0; 16]], 1).is_err());
    }
}
