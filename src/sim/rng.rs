// SPDX-License-Identifier: GPL-2.0-only
//! Random numbers that are the same on every machine: no library of the system has a part in them.

/// SplitMix64 (Steele, Lea and Flood, 2014): one word of state, passes BigCrush.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A stream of its own for each seed and purpose.
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut rng = Self(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ purpose.rotate_left(32));
        rng.bits();
        rng
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Uniform in 0..n; 0 if n is 0. (Not exactly uniform: the error is n / 2^64.)
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// Exponential with this mean; at least 1.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        // 53 bits, never 0.
        let uniform = ((self.bits() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        ((-ln(uniform) * mean as f64) as u64).max(1)
    }
}

/// The natural logarithm of x, 0 < x <= 1, within 1e-12: by additions, multiplications and divisions only, which IEEE
/// 754 defines to the bit. The system's own differs between versions of its library.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i64 - 1023;
    // In [1, 2)
    let m = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    // ln m = 2 atanh t, |t| <= 1/3
    let t = (m - 1.0) / (m + 1.0);
    let t2 = t * t;
    let series = (0..14).rev().fold(0.0, |sum, k| sum * t2 + 1.0 / f64::from(2 * k + 1));
    2.0 * t * series + exponent as f64 * std::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_one() {
        for i in 1..=10_000 {
            let x = f64::from(i) / 10_000.0;
            assert!((ln(x) - x.ln()).abs() < 1e-12, "ln({x})");
        }
    }

    #[test]
    fn streams_differ_and_repeat() {
        let take = |seed, purpose| {
            let mut rng = Rng::new(seed, purpose);
            (0..100).map(|_| rng.bits()).collect::<Vec<_>>()
        };
        assert_eq!(take(1, 2), take(1, 2));
        assert_ne!(take(1, 2), take(1, 3));
        assert_ne!(take(1, 2), take(2, 2));
    }

    #[test]
    fn means_are_as_asked_for() {
        let mut rng = Rng::new(7, 0);
        let n = 100_000;
        let mean = (0..n).map(|_| rng.exponential(1_000_000)).sum::<u64>() as f64 / f64::from(n);
        assert!((mean / 1e6 - 1.0).abs() < 0.02, "{mean}");
        let mean = (0..n).map(|_| rng.below(11)).sum::<u64>() as f64 / f64::from(n);
        assert!((mean - 5.0).abs() < 0.05, "{mean}");
    }
}
