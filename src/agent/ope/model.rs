// SPDX-License-Identifier: GPL-2.0-only
//! The model in the doubly robust estimate: for each action a ridge regression of the reward on the features, fitted
//! without the events that it predicts.
//!
//! It need not be right: weights correct what it misses, and being fitted on other events it cannot flatter itself. The
//! better it is, the less is left for the weights to multiply. So it is plain: the features and their squares, which
//! follow a bend, but no products.

use super::events::Observation;
use super::parts;
use crate::policy::RL_FEATURE_BITS;
use crate::policy::host::{FEATURES, Features};

/// One, the features, their squares.
const TERMS: usize = 1 + 2 * FEATURES;
/// Features become numbers in 0..2, as for the network.
const SCALE: f64 = (1 << RL_FEATURE_BITS) as f64;

type Vector = [f64; TERMS];

fn terms(features: &Features) -> Vector {
    let mut x = [1.0; TERMS];
    for (i, &feature) in features.iter().enumerate() {
        let value = f64::from(feature) / SCALE;
        x[1 + i] = value;
        x[1 + FEATURES + i] = value * value;
    }
    x
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Sums over events of one action, weighted by mass: all that a linear regression needs.
#[derive(Clone)]
struct Moments {
    /// sum of x x'
    xx: [Vector; TERMS],
    /// sum of x * reward
    xy: Vector,
}

impl Moments {
    const ZERO: Self = Self { xx: [[0.0; TERMS]; TERMS], xy: [0.0; TERMS] };

    fn add(&mut self, x: &Vector, reward_ms: f64, mass: f64) {
        for ((row, xy), &value) in self.xx.iter_mut().zip(&mut self.xy).zip(x) {
            let scaled = mass * value;
            *xy += scaled * reward_ms;
            row.iter_mut().zip(x).for_each(|(sum, &other)| *sum += scaled * other);
        }
    }

    fn merge(&mut self, other: &Self) {
        let pairs = self.xx.as_flattened_mut().iter_mut().zip(other.xx.as_flattened());
        pairs.chain(self.xy.iter_mut().zip(&other.xy)).for_each(|(sum, part)| *sum += part);
    }

    /// Sum of the masses, and of mass * reward: the first term is one.
    fn totals(&self) -> (f64, f64) {
        (self.xx[0][0], self.xy[0])
    }

    /// Coefficients for the reward's deviation from `mean_ms`.
    fn fit(&self, mean_ms: f64, ridge: f64) -> Vector {
        let mut deviation = self.xy;
        deviation.iter_mut().zip(&self.xx[0]).for_each(|(xy, x)| *xy -= mean_ms * x);
        solve(&self.xx, ridge, &deviation)
    }
}

/// Solves (a + ridge * I) x = b, where `a` is symmetric without negative eigenvalues, by its Cholesky factor.
#[allow(clippy::needless_range_loop)] // rows and columns by number, as in the formulas
fn solve(a: &[Vector; TERMS], ridge: f64, b: &Vector) -> Vector {
    let mut l = [[0.0; TERMS]; TERMS];
    for j in 0..TERMS {
        // No pivot is below the ridge but by rounding.
        let pivot = (a[j][j] + ridge - dot(&l[j][..j], &l[j][..j])).max(ridge).sqrt();
        l[j][j] = pivot;
        for i in j + 1..TERMS {
            l[i][j] = (a[i][j] - dot(&l[i][..j], &l[j][..j])) / pivot;
        }
    }
    let mut x = *b;
    for i in 0..TERMS {
        x[i] = (x[i] - dot(&l[i][..i], &x[..i])) / l[i][i];
    }
    for i in (0..TERMS).rev() {
        let below: f64 = (i + 1..TERMS).map(|k| l[k][i] * x[k]).sum();
        x[i] = (x[i] - below) / l[i][i];
    }
    x
}

/// Two regressions, for staying and for migrating.
struct Model {
    mean_ms: f64,
    coefficients: [Vector; 2],
}

impl Model {
    /// Every coefficient, the constant too, is drawn to zero as if by `ridge_events` events. An action that was hardly
    /// ever taken so gets nearly the mean reward of both.
    fn fit(actions: &[Moments; 2], ridge_events: f64) -> Self {
        let (mass, reward) = actions.iter().map(Moments::totals).fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
        let mean_ms = if mass > 0.0 { reward / mass } else { 0.0 };
        Self { mean_ms, coefficients: actions.each_ref().map(|moments| moments.fit(mean_ms, ridge_events)) }
    }

    fn predict(&self, features: &Features) -> [f64; 2] {
        let x = terms(features);
        self.coefficients.each_ref().map(|c| self.mean_ms + dot(c, &x))
    }
}

/// For each event, the rewards to be expected of staying and of migrating, ms: from regressions on all events but those
/// of its own fold. Folds are contiguous, so that an event's neighbours, which resemble it, are left out with it.
pub(super) fn cross_fit(observations: &[Observation], folds: usize, ridge_events: f64) -> Vec<[f64; 2]> {
    let count = observations.len();
    // Masses around one, so that the ridge is in events.
    let scale = count as f64 / observations.iter().map(|o| o.mass).sum::<f64>();
    let moments: Vec<[Moments; 2]> = parts(count, folds)
        .map(|fold| {
            let mut actions = [Moments::ZERO, Moments::ZERO];
            for o in &observations[fold] {
                actions[usize::from(o.migrate)].add(&terms(&o.features), o.reward_ms, o.mass * scale);
            }
            actions
        })
        .collect();
    let mut expected_ms = Vec::with_capacity(count);
    for (left_out, fold) in parts(count, folds).enumerate() {
        let mut others = [Moments::ZERO, Moments::ZERO];
        for (_, part) in moments.iter().enumerate().filter(|(number, _)| *number != left_out) {
            others.iter_mut().zip(part).for_each(|(sum, part)| sum.merge(part));
        }
        let model = Model::fit(&others, ridge_events);
        expected_ms.extend(observations[fold].iter().map(|o| model.predict(&o.features)));
    }
    expected_ms
}
