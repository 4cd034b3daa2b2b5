// SPDX-License-Identifier: GPL-2.0-only
//! Numbers against independent references: the quantised network against candle, and an update against a plain f64
//! implementation of the loss with finite differences.

use candle_core::{Device, Tensor};

use crate::policy::{RL_LOGIT_BITS, rl_weights};

use super::super::learner::Learner;
use super::super::network::{Layers, Mlp};
use super::super::quantise::{QuantiseError, check, dequantise, project, quantise, verify};
use super::*;

/// candle's logits.
fn candle_forward(layers: &Layers, features: &[Features]) -> Vec<f32> {
    let x: Vec<f32> = features.as_flattened().iter().map(|&f| f32::from(f) / 64.0).collect();
    let x = Tensor::from_vec(x, (features.len(), FEATURES), &Device::Cpu).unwrap();
    Mlp::new(layers).unwrap().forward(&x).unwrap().to_vec1().unwrap()
}

/// The sum of the magnitudes that the forward pass adds up, times the f32 roundings along one path: 19 additions and a
/// product in a hidden neuron, 13 and a product after it.
fn rounding_bound(l: &Layers, f: &Features) -> f64 {
    let magnitude = |n: usize| {
        let sum: f64 = (0..FEATURES).map(|i| f64::from(f[i]) / 64.0 * f64::from(l.w1[i * l.b1.len() + n]).abs()).sum();
        (sum + f64::from(l.b1[n]).abs()) * f64::from(l.w2[n]).abs()
    };
    let total = (0..l.b1.len()).map(magnitude).sum::<f64>() + f64::from(l.b2[0]).abs();
    total * 34.0 * f64::from(f32::EPSILON) / 2.0
}

fn random_layers(rng: &mut ChaCha8Rng, w: f32, b1: f32, b2: f32) -> Layers {
    let mut uniform = |n: usize, bound: f32| (0..n).map(|_| rng.random_range(-bound..=bound)).collect::<Vec<_>>();
    Layers { w1: uniform(FEATURES * 12, w), b1: uniform(12, b1), w2: uniform(12, w), b2: uniform(1, b2) }
}

/// Networks from tame to beyond the representable range, and the corners.
fn networks() -> Vec<Layers> {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut all = Vec::new();
    for (w, b1, b2) in [(0.3, 0.2, 0.5), (1.0, 1.0, 1.0), (4.0, 4.0, 8.0), (9.0, 300.0, 2000.0)] {
        all.extend((0..25).map(|_| random_layers(&mut rng, w, b1, b2)));
    }
    for (w1, b1, w2, b2) in
        [(9.0, 1e9, 9.0, 1e9), (-9.0, -1e9, 9.0, -1e9), (9.0, 1e9, -9.0, -1e9), (0.0, 0.0, 0.0, 0.0)]
    {
        all.push(Layers { w1: vec![w1; FEATURES * 12], b1: vec![b1; 12], w2: vec![w2; 12], b2: vec![b2] });
    }
    all
}

/// The bound: 1/256 of a logit (the fixed-point logit is floored) plus candle's f32 rounding; the unfloored output agrees
/// within the rounding alone. Logits saturate at +-8 on both sides.
#[test]
fn quantised_network_agrees_with_candle() {
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    let (mut worst, mut saturated) = (0.0f64, 0);
    for layers in networks() {
        let weights = quantise(&layers).unwrap().weights;
        verify(&weights).unwrap();
        let float = dequantise(&weights);
        let mut inputs: Vec<Features> = (0..200).map(|_| std::array::from_fn(|_| rng.random_range(0..128))).collect();
        inputs.extend([[0; FEATURES], [127; FEATURES], std::array::from_fn(|i| 127 * (i as u8 % 2))]);
        for (f, candle) in inputs.iter().zip(candle_forward(&float, &inputs)) {
            let (z, candle, rounding) = (host::forward(&weights, f), f64::from(candle), rounding_bound(&float, f));
            assert!((z as f64 / 65536.0 - candle).abs() <= rounding, "{z} {candle} {rounding}");
            let slot = rl_slot { weights, ..Default::default() };
            let logit = f64::from(host::act(&slot, f, 0).logit_q8) / f64::from(1 << RL_LOGIT_BITS);
            let error = (logit - candle.clamp(-8.0, 8.0)).abs();
            assert!(error <= 1.0 / 256.0 + rounding, "{logit} {candle}");
            worst = worst.max(error);
            saturated += usize::from(candle.abs() > 8.0);
        }
    }
    println!("worst error of a logit {worst:.6}, {saturated} saturated");
    assert!(worst > 1e-3 && saturated > 100, "the test must reach the floor and the saturation");
}

#[test]
fn quantisation_round_trips_and_rounds_to_nearest() {
    let mut rng = ChaCha8Rng::seed_from_u64(13);
    for _ in 0..200 {
        let layers = random_layers(&mut rng, 3.9, 200.0, 900.0);
        let q = quantise(&layers).unwrap();
        let back = dequantise(&q.weights);
        assert_eq!(quantise(&back).unwrap().weights, q.weights);
        for ((a, b), step) in layers.arrays().iter().zip(back.arrays()).zip([32.0, 2048.0, 32.0, 65536.0]) {
            for (&x, &y) in a.iter().zip(b) {
                assert!((f64::from(x) - f64::from(y)).abs() <= 0.5 / step, "{x} {y}");
            }
        }
        // 3.953 to 3.969 rounds to 126.5 to 127: none of these is at the limit.
        assert_eq!(q.saturated, 0);
    }
    let one = Layers { w1: vec![1.0; FEATURES * 12], b1: vec![1.0; 12], w2: vec![1.0; 12], b2: vec![1.0] };
    let weights = quantise(&one).unwrap().weights;
    assert_eq!(
        (weights.w1[3][15], weights.b1[11], weights.w2[11], weights.b2),
        (160 | 160 << 21 | 160 << 42, 2048, 32, 65536)
    );
}

#[test]
fn bad_networks_are_not_published() {
    let good = random_layers(&mut ChaCha8Rng::seed_from_u64(14), 1.0, 1.0, 1.0);
    check(&good).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for array in 0..4 {
            let mut layers = good.clone();
            [&mut layers.w1, &mut layers.b1, &mut layers.w2, &mut layers.b2][array][0] = bad;
            assert_eq!(check(&layers), Err(QuantiseError::NotFinite), "{bad} in array {array}");
        }
    }
    assert_eq!(check(&Layers { w2: vec![0.0; 11], ..good.clone() }), Err(QuantiseError::Shape));
    let mut layers = good.clone();
    layers.w1[..70].fill(4.0);
    assert!(matches!(check(&layers), Err(QuantiseError::Saturated { saturated: 70, weights: 241 })));
    layers.w1[..10].fill(0.0);
    check(&layers).unwrap();
    let ok = quantise(&good).unwrap().weights;
    let with = |change: fn(&mut rl_weights)| {
        let mut weights = ok;
        change(&mut weights);
        verify(&weights).unwrap_err()
    };
    with(|w| w.w1[2][3] |= 1 << 63);
    with(|w| w.w1[3][2] = 0);
    with(|w| w.w1[0][0] |= 0x1ff);
    with(|w| w.b1[1] = i32::MIN);
    with(|w| w.w2[1] = -128);
    with(|w| w.b2 = i64::MIN);
}

#[test]
fn projection_keeps_the_published_range_and_nan() {
    let mut layers = random_layers(&mut ChaCha8Rng::seed_from_u64(15), 1.0, 1.0, 1.0);
    (layers.w1[7], layers.w2[3], layers.b1[2]) = (9.0, -9.0, 0.5);
    let mlp = Mlp::new(&layers).unwrap();
    project(&mlp).unwrap();
    let after = mlp.layers().unwrap();
    assert_eq!((after.w1[7], after.w2[3], after.b1[2]), (127.0 / 32.0, -127.0 / 32.0, 0.5));
    assert_eq!(after.w1[8], layers.w1[8]);
    layers.w1[0] = f32::NAN;
    mlp.set(&layers).unwrap();
    project(&mlp).unwrap();
    assert!(mlp.layers().unwrap().w1[0].is_nan());
}

/// The reference: a network in f64, all numbers in one list (w1, b1, w2, b2).
fn reference_forward(p: &[f64], x: &[f32; FEATURES]) -> f64 {
    let hidden = (p.len() - 1) / (FEATURES + 2);
    let (w1, rest) = p.split_at(FEATURES * hidden);
    let neuron = |n: usize| {
        let sum: f64 = (0..FEATURES).map(|i| f64::from(x[i]) * w1[i * hidden + n]).sum();
        (sum + rest[n]).max(0.0) * rest[hidden + n]
    };
    (0..hidden).map(neuron).sum::<f64>() + rest[2 * hidden]
}

fn flat(layers: &Layers) -> Vec<f64> {
    layers.arrays().iter().flat_map(|a| a.iter().map(|&v| f64::from(v))).collect()
}

fn sigmoid64(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The loss of learner.rs, written again: what changes during an update (`actor`, `critic`) apart from its start.
struct Reference {
    samples: Vec<Sample>,
    start: Vec<f64>,
    advantage: Vec<f64>,
    hyper: Hyper,
}

impl Reference {
    fn new(samples: &[Sample], parameters: &Parameters, hyper: Hyper) -> Self {
        let (actor, critic) = (flat(&parameters.actor), flat(&parameters.critic));
        let pi = |s: &Sample| {
            let p = sigmoid64(reference_forward(&actor, &s.inputs));
            if s.migrate { p } else { 1.0 - p }
        };
        let raw: Vec<f64> =
            samples.iter().map(|s| f64::from(s.reward) - reference_forward(&critic, &s.inputs)).collect();
        // Decisions about turns are standardised by themselves.
        let about_turns = |s: &Sample| s.inputs[RL_F_turn as usize] > 0.0;
        let standardised = |s: &Sample, own: &f64| {
            let alike = || samples.iter().zip(&raw).filter(|(other, _)| about_turns(other) == about_turns(s));
            let n = alike().count() as f64;
            let mean = alike().map(|(_, a)| a).sum::<f64>() / n;
            let std = (alike().map(|(_, a)| (a - mean) * (a - mean)).sum::<f64>() / n).sqrt();
            // A single one has no advantage.
            (own - mean) / (std + 1e-8)
        };
        let advantage = samples.iter().zip(&raw).map(|(s, own)| standardised(s, own)).collect();
        Self { start: samples.iter().map(pi).collect(), samples: samples.to_vec(), advantage, hyper }
    }

    /// Policy loss, entropy, value loss.
    fn losses(&self, actor: &[f64], critic: &[f64]) -> (f64, f64, f64) {
        let (mut policy, mut entropy, mut value) = (0.0, 0.0, 0.0);
        for (i, s) in self.samples.iter().enumerate() {
            let p = sigmoid64(reference_forward(actor, &s.inputs));
            let now = if s.migrate { p } else { 1.0 - p };
            let importance = (self.start[i] / f64::from(s.propensity)).min(self.hyper.importance_max);
            let (r, a, c) = (now / self.start[i], self.advantage[i], self.hyper.clip);
            let gain = if a >= 0.0 { r.min(1.0 + c) * a } else { r.max(1.0 - c) * a };
            policy -= importance * gain;
            entropy -= p * p.ln() + (1.0 - p) * (1.0 - p).ln();
            value += (reference_forward(critic, &s.inputs) - f64::from(s.reward)).powi(2);
        }
        let n = self.samples.len() as f64;
        (policy / n, entropy / n, value / n)
    }

    /// Central differences of the total loss, actor's parameters first.
    fn gradient(&self, actor: &[f64], critic: &[f64], entropy_coefficient: f64) -> Vec<f64> {
        let total = |p: &[f64]| {
            let (policy, entropy, value) = self.losses(&p[..actor.len()], &p[actor.len()..]);
            policy + value - entropy_coefficient * entropy
        };
        let mut p = [actor, critic].concat();
        let h = 1e-6;
        (0..p.len())
            .map(|i| {
                let at = p[i];
                p[i] = at + h;
                let up = total(&p);
                p[i] = at - h;
                let down = total(&p);
                p[i] = at;
                (up - down) / (2.0 * h)
            })
            .collect()
    }
}

/// Samples with propensities from 1 % to 99 %, so that importance weights reach their cap.
fn samples(n: usize, seed: u64) -> Vec<Sample> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut sample = || Sample {
        inputs: std::array::from_fn(|_| rng.random_range(0..128) as f32 / 64.0),
        migrate: rng.random(),
        propensity: rng.random_range(0.01..0.99),
        reward: rng.random_range(-3.0..0.0),
        raw_ms: 0.0,
    };
    (0..n).map(|_| sample()).collect()
}

#[test]
fn losses_and_gradients_agree_with_a_plain_reference() {
    let mut rng = ChaCha8Rng::seed_from_u64(16);
    let mut parameters = Parameters::random(&mut rng);
    parameters.actor.w2.iter_mut().for_each(|w| *w *= 10.0);
    let learner = Learner::new(Hyper::default(), &parameters, rng.clone(), 0).unwrap();
    let samples = samples(96, 17);
    let batch = learner.prepare(&samples).unwrap();
    let reference = Reference::new(&samples, &parameters, Hyper::default());
    let capped = batch.importance.iter().filter(|&&w| w == 4.0).count();
    assert!(capped > 5 && capped < 60, "{capped} capped");
    for (i, a) in reference.advantage.iter().enumerate() {
        assert!((a - f64::from(batch.advantage[i])).abs() < 1e-4);
        assert!((reference.start[i] - f64::from(batch.start[i])).abs() < 1e-5);
    }

    // Away from the start, where part of the ratios is clipped.
    for array in parameters.arrays_mut() {
        array.iter_mut().for_each(|v| *v += rng.random_range(-0.1..0.1));
    }
    learner.actor.set(&parameters.actor).unwrap();
    learner.critic.set(&parameters.critic).unwrap();
    let rows: Vec<usize> = (0..samples.len()).collect();
    let losses = learner.losses(&batch, &rows, 0.05).unwrap();
    let (actor, critic) = (flat(&parameters.actor), flat(&parameters.critic));
    let (policy, entropy, value) = reference.losses(&actor, &critic);
    for (candle, expected) in [(&losses.policy, policy), (&losses.entropy, entropy), (&losses.value, value)] {
        let candle = f64::from(candle.to_scalar::<f32>().unwrap());
        assert!((candle - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{candle} {expected}");
    }
    let grads = losses.total.backward().unwrap();
    let vars = [learner.actor.vars(), learner.critic.vars()].concat();
    let candle: Vec<f32> =
        vars.iter().flat_map(|v| grads.get(v).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect();
    let expected = reference.gradient(&actor, &critic, 0.05);
    assert_eq!(candle.len(), expected.len());
    for (i, (c, e)) in candle.iter().zip(&expected).enumerate() {
        assert!((f64::from(*c) - e).abs() < 2e-5 * (1.0 + e.abs()), "gradient {i}: candle {c}, reference {e}");
    }
    assert!(expected.iter().filter(|g| g.abs() > 1e-3).count() > 200, "the gradients must not all be near zero");
}

#[test]
fn one_update_is_one_adam_step_down_the_reference_gradient() {
    let hyper = Hyper { batch_events: 64, minibatch_events: 64, epochs: 1, ..Default::default() };
    let mut rng = ChaCha8Rng::seed_from_u64(18);
    let parameters = Parameters::random(&mut rng);
    let samples = samples(64, 19);
    let mut learner = Learner::new(hyper.clone(), &parameters, rng, 0).unwrap();
    let stats = learner.update(&samples).unwrap().unwrap();
    let (actor, critic) = (flat(&parameters.actor), flat(&parameters.critic));
    let reference = Reference::new(&samples, &parameters, hyper.clone());
    let (policy, entropy, value) = reference.losses(&actor, &critic);
    assert!((stats.policy_loss - policy).abs() < 1e-5 && (stats.entropy - entropy).abs() < 1e-5);
    assert!((stats.value_loss - value).abs() < 1e-4 && stats.kl > 0.0);
    let after = learner.parameters().unwrap();
    let moved = [flat(&after.actor), flat(&after.critic)].concat();
    let before = [actor.clone(), critic.clone()].concat();
    let gradient = reference.gradient(&actor, &critic, hyper.entropy(0));
    let mut checked = 0;
    for i in 0..before.len() {
        let lr = if i < actor.len() { hyper.actor_learning_rate } else { hyper.critic_learning_rate };
        // Adam's first step is lr * g / (|g| + eps), whatever the norm was limited to.
        if gradient[i].abs() > 1e-4 {
            let step = before[i] - moved[i];
            assert!((step - lr * gradient[i].signum()).abs() < 0.01 * lr, "{i}: {step} for gradient {}", gradient[i]);
            checked += 1;
        }
    }
    assert!(checked > 200, "{checked}");
}
