// SPDX-License-Identifier: GPL-2.0-only
//! In which order the things to compare take their turns.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// The order of a round: shuffled by the seed; every second round runs backwards, so that a drift of the machine hits
/// all alike, and each pair of rounds begins with another one.
pub fn order<T: Clone>(all: &[T], seed: u64, round: usize) -> Vec<T> {
    let mut order = all.to_vec();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    if !order.is_empty() {
        order.rotate_left(round / 2 % all.len());
    }
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_all_and_pairs_are_mirrored() {
        let all = ["eevdf", "heuristic", "rusty", "lavd", "bpfland"];
        for seed in 0..10 {
            for round in 0..10 {
                let mut names = order(&all, seed, round);
                if round % 2 == 1 {
                    let mut mirrored = order(&all, seed, round - 1);
                    mirrored.reverse();
                    assert_eq!(names, mirrored);
                }
                names.sort_unstable();
                assert_eq!(names, ["bpfland", "eevdf", "heuristic", "lavd", "rusty"]);
            }
            assert_eq!(order(&all, seed, 3), order(&all, seed, 3));
            assert_ne!(order(&all, seed, 0)[0], order(&all, seed, 2)[0]);
        }
        assert!((1..10).any(|seed| order(&all, seed, 0) != order(&all, 0, 0)), "the seed decides");
        assert!(order::<u8>(&[], 1, 3).is_empty());
    }
}
