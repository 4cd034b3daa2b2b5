// SPDX-License-Identifier: GPL-2.0-only
//! The two networks: an actor (18 -> 12 ReLU -> 1 logit) that is quantised and published, and a critic (18 -> 16 ReLU -> 1)
//! that stays here. Parameters are explicit variables in a fixed, named order: candle's `VarMap` iterates a hash map, and
//! its CPU random numbers cannot be seeded; both would make two runs of one seed differ.
//!
//! candle runs single-threaded at these sizes (its matmul starts threads above 48 * 48 * 256 multiplications), so results
//! are the same to the bit on one machine with one build.

use candle_core::{Device, Result, Tensor, Var, backprop::GradStore};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::policy::{RL_HIDDEN, host::FEATURES};

/// Hidden neurons of the actor, as in BPF.
pub const ACTOR_HIDDEN: usize = RL_HIDDEN as usize;
/// Hidden neurons of the critic.
pub const CRITIC_HIDDEN: usize = 16;
/// Bound of the actor's initial output weights: small, so that the first policy is nearly a fair coin.
const ACTOR_OUT: f32 = 0.05;
/// Bound of the critic's initial output weights.
const CRITIC_OUT: f32 = 0.25;

/// The numbers of one network, row-major: `w1[feature][neuron]`, `b1[neuron]`, `w2[neuron]`, `b2[0]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Layers {
    /// Input weights, `FEATURES` x hidden.
    pub w1: Vec<f32>,
    /// Hidden biases.
    pub b1: Vec<f32>,
    /// Output weights.
    pub w2: Vec<f32>,
    /// Output bias, one number.
    pub b2: Vec<f32>,
}

impl Layers {
    /// Seeded initial numbers (He-uniform inputs) for a network of `hidden` neurons.
    fn random(hidden: usize, out: f32, rng: &mut ChaCha8Rng) -> Self {
        let mut uniform = |n: usize, bound: f32| (0..n).map(|_| rng.random_range(-bound..bound)).collect::<Vec<_>>();
        let (he, bias) = ((6.0 / FEATURES as f32).sqrt(), (1.0 / FEATURES as f32).sqrt());
        Self { w1: uniform(FEATURES * hidden, he), b1: uniform(hidden, bias), w2: uniform(hidden, out), b2: vec![0.0] }
    }

    /// The four arrays in their fixed order.
    pub fn arrays(&self) -> [&Vec<f32>; 4] {
        [&self.w1, &self.b1, &self.w2, &self.b2]
    }
}

/// Every trained number: what a checkpoint keeps, and what two runs are compared by.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parameters {
    /// The policy.
    pub actor: Layers,
    /// The baseline.
    pub critic: Layers,
}

impl Parameters {
    /// Names and shapes, in the fixed order of [`Parameters::arrays`].
    pub const TABLE: [(&str, &[usize]); 8] = [
        ("actor.w1", &[FEATURES, ACTOR_HIDDEN]),
        ("actor.b1", &[ACTOR_HIDDEN]),
        ("actor.w2", &[ACTOR_HIDDEN, 1]),
        ("actor.b2", &[1]),
        ("critic.w1", &[FEATURES, CRITIC_HIDDEN]),
        ("critic.b1", &[CRITIC_HIDDEN]),
        ("critic.w2", &[CRITIC_HIDDEN, 1]),
        ("critic.b2", &[1]),
    ];

    /// Seeded initial parameters.
    pub fn random(rng: &mut ChaCha8Rng) -> Self {
        Self {
            actor: Layers::random(ACTOR_HIDDEN, ACTOR_OUT, rng),
            critic: Layers::random(CRITIC_HIDDEN, CRITIC_OUT, rng),
        }
    }

    /// The arrays in the order of [`Parameters::TABLE`].
    pub fn arrays(&self) -> [&Vec<f32>; 8] {
        let ([a, b, c, d], [e, f, g, h]) = (self.actor.arrays(), self.critic.arrays());
        [a, b, c, d, e, f, g, h]
    }

    /// The same, to be filled.
    pub fn arrays_mut(&mut self) -> [&mut Vec<f32>; 8] {
        let (a, c) = (&mut self.actor, &mut self.critic);
        [&mut a.w1, &mut a.b1, &mut a.w2, &mut a.b2, &mut c.w1, &mut c.b1, &mut c.w2, &mut c.b2]
    }

    /// Name of the first array with a number that is not finite.
    pub fn not_finite(&self) -> Option<&'static str> {
        let bad = self.arrays().iter().position(|a| a.iter().any(|v| !v.is_finite()))?;
        Some(Self::TABLE[bad].0)
    }
}

/// What the actor may be. All forms are special cases of the one network that BPF computes, so an ablation needs no other
/// arithmetic: two neurons with opposite weights are a linear unit, because `relu(z) - relu(-z) = z`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// No linear unit: 12 ReLU neurons.
    #[default]
    Mlp,
    /// Nothing but a linear unit: logistic regression.
    Linear,
    /// A linear unit beside 10 ReLU neurons: a skip connection from the features to the logit.
    Residual,
}

impl Form {
    /// The nearest numbers to these that have the form; of a gradient, what the tied numbers can follow.
    fn tie(self, layers: &mut Layers) {
        let hidden = layers.b1.len();
        for row in [&mut layers.w1, &mut layers.b1, &mut layers.w2].into_iter().flat_map(|a| a.chunks_exact_mut(hidden))
        {
            let half = (row[0] - row[1]) / 2.0;
            (row[0], row[1]) = (half, -half);
        }
        if self == Form::Linear {
            layers.w2[2..].fill(0.0);
        }
    }

    /// Bring a network's variables to the form.
    ///
    /// # Errors
    /// candle fails.
    pub fn bring(self, network: &Mlp) -> Result<()> {
        if self == Form::Mlp {
            return Ok(());
        }
        let mut layers = network.layers()?;
        self.tie(&mut layers);
        network.set(&layers)
    }

    /// The same of its gradients, before an optimiser sees them: what is tied takes the same steps, and so keeps the form.
    ///
    /// # Errors
    /// candle fails.
    pub fn tie_gradients(self, grads: &mut GradStore, network: &Mlp) -> Result<()> {
        if self == Form::Mlp {
            return Ok(());
        }
        let read = |var: &Var| match grads.get(var) {
            Some(grad) => grad.flatten_all()?.to_vec1::<f32>(),
            None => Ok(vec![0.0; var.elem_count()]),
        };
        let [w1, b1, w2, b2] = network.vars();
        let mut layers = Layers { w1: read(w1)?, b1: read(b1)?, w2: read(w2)?, b2: read(b2)? };
        self.tie(&mut layers);
        for (var, values) in network.vars().into_iter().zip(layers.arrays()) {
            grads.insert(var, Tensor::from_slice(values, var.shape(), &Device::Cpu)?);
        }
        Ok(())
    }
}

/// One network as candle variables.
#[derive(Debug, Clone)]
pub struct Mlp {
    w1: Var,
    b1: Var,
    w2: Var,
    b2: Var,
}

impl Mlp {
    /// From numbers; the hidden width is that of `b1`. Errors if the arrays do not fit each other.
    pub fn new(layers: &Layers) -> Result<Self> {
        let hidden = layers.b1.len();
        let var = |values: &[f32], shape: &[usize]| Var::from_slice(values, shape, &Device::Cpu);
        Ok(Self {
            w1: var(&layers.w1, &[FEATURES, hidden])?,
            b1: var(&layers.b1, &[hidden])?,
            w2: var(&layers.w2, &[hidden, 1])?,
            b2: var(&layers.b2, &[1])?,
        })
    }

    /// The output, shape `(n)`, for inputs of shape `(n, FEATURES)`.
    pub fn forward(&self, inputs: &Tensor) -> Result<Tensor> {
        let hidden = inputs.matmul(&self.w1)?.broadcast_add(&self.b1)?.relu()?;
        hidden.matmul(&self.w2)?.broadcast_add(&self.b2)?.squeeze(1)
    }

    /// The variables, in their fixed order.
    pub fn vars(&self) -> [&Var; 4] {
        [&self.w1, &self.b1, &self.w2, &self.b2]
    }

    /// The numbers as they are now.
    pub fn layers(&self) -> Result<Layers> {
        let read = |var: &Var| var.flatten_all()?.to_vec1::<f32>();
        Ok(Layers { w1: read(&self.w1)?, b1: read(&self.b1)?, w2: read(&self.w2)?, b2: read(&self.b2)? })
    }

    /// Overwrite the numbers.
    pub fn set(&self, layers: &Layers) -> Result<()> {
        for (var, values) in self.vars().into_iter().zip(layers.arrays()) {
            var.set(&Tensor::from_slice(values, var.shape(), &Device::Cpu)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_linear_actor_is_linear_and_a_residual_one_has_a_linear_part() {
        let outputs = |form: Form, scales: &[f32]| {
            let network = Mlp::new(&Parameters::random(&mut ChaCha8Rng::seed_from_u64(7)).actor).unwrap();
            form.bring(&network).unwrap();
            let tied = network.layers().unwrap();
            form.bring(&network).unwrap();
            assert_eq!(network.layers().unwrap(), tied, "what has the form stays as it is");
            let rows: Vec<[f32; FEATURES]> =
                scales.iter().map(|&s| std::array::from_fn(|i| s * (i as f32 - 8.5))).collect();
            let inputs = Tensor::from_slice(rows.as_flattened(), (rows.len(), FEATURES), &Device::Cpu).unwrap();
            network.forward(&inputs).unwrap().to_vec1::<f32>().unwrap()
        };
        let bend = |y: &[f32]| (y[0] - 2.0 * y[1] + y[2]).abs();
        let scales = [-1.0, 0.0, 1.0];
        let (linear, mlp) = (outputs(Form::Linear, &scales), outputs(Form::Mlp, &scales));
        assert!(bend(&linear) < 1e-5 && (linear[2] - linear[0]).abs() > 0.01, "{linear:?}");
        assert!(bend(&mlp) > 0.01, "{mlp:?}");
        let residual = outputs(Form::Residual, &scales);
        assert!(bend(&residual) > 0.01 && residual != mlp, "{residual:?}");
    }

    #[test]
    fn tied_gradients_are_those_of_the_tied_numbers() {
        let network = Mlp::new(&Parameters::random(&mut ChaCha8Rng::seed_from_u64(3)).actor).unwrap();
        Form::Linear.bring(&network).unwrap();
        let row: [f32; FEATURES] = std::array::from_fn(|i| i as f32 / 9.0 - 0.7);
        let output = |layers: &Layers| {
            let inputs = Tensor::from_slice(&row, (1, FEATURES), &Device::Cpu).unwrap();
            Mlp::new(layers).unwrap().forward(&inputs).unwrap().sum_all().unwrap()
        };
        let inputs = Tensor::from_slice(&row, (1, FEATURES), &Device::Cpu).unwrap();
        let mut grads = network.forward(&inputs).unwrap().sum_all().unwrap().backward().unwrap();
        Form::Linear.tie_gradients(&mut grads, &network).unwrap();
        let grad = |i: usize| grads.get(network.vars()[i]).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        // One weight of the pair goes up, its twin down by as much: the slope is that of both.
        let (at, step) = (5 * ACTOR_HIDDEN, 1e-2);
        let (mut up, mut down) = (network.layers().unwrap(), network.layers().unwrap());
        (up.w1[at], up.w1[at + 1]) = (up.w1[at] + step, up.w1[at + 1] - step);
        (down.w1[at], down.w1[at + 1]) = (down.w1[at] - step, down.w1[at + 1] + step);
        let value = |layers: &Layers| output(layers).to_scalar::<f32>().unwrap();
        let slope = (value(&up) - value(&down)) / (2.0 * step);
        let (w1, w2) = (grad(0), grad(2));
        assert!((2.0 * w1[at] - slope).abs() < 1e-3 * slope.abs().max(1e-2), "{} {slope}", w1[at]);
        assert_eq!(w1[at + 1], -w1[at]);
        assert!(w2[2..].iter().all(|&g| g == 0.0) && w2[0] == -w2[1]);
    }
}
