// SPDX-License-Identifier: GPL-2.0-only
//! The learning algorithm: a contextual-bandit actor-critic with logged propensities. Read top to bottom:
//!
//! ```text
//! V      = critic(x)                       learned baseline, before the update
//! A      = (reward - V), standardised over the batch
//! w      = min(pi_start(a|x) / logged propensity, importance_max)
//! r      = pi_now(a|x) / pi_start(a|x)     1 at the start of the update
//! actor  : minimise  -mean(w * min(r A, clip(r, 1 - c, 1 + c) A)) - entropy coefficient * mean entropy
//! critic : minimise   mean((critic(x) - reward)^2)
//! ```
//!
//! w * r is the ratio of the policy now to the policy that acted, whose probability is the integer that was logged, never a
//! recomputed one. PPO clips around the policy at the start of the update rather than around the one that acted: events of
//! older weights, of the probability floor or of the fair coin are far from today's policy from the first step, and a clip
//! around them would switch off exactly the gradients that random actions pay for. The cap on w bounds what remains.
//!
//! Adam's moments cannot be read from `candle-optimisers`, so they are not part of the state: [`Learner::restart`] begins
//! anew, and is called at every checkpoint, in the run that goes on as in the run that resumes.

use anyhow::{Context, Result};
use candle_core::{Device, Tensor, Var, backprop::GradStore};
use candle_nn::{Optimizer, ops::sigmoid};
use candle_optimisers::adam::{Adam, ParamsAdam};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::policy::RL_F_turn;
use crate::policy::host::FEATURES;

use super::buffer::Sample;
use super::hyper::Hyper;
use super::network::{Layers, Mlp, Parameters};
use super::quantise;

/// Rewards of turns that differ by less, 0.2 ms, differ by nothing: among tasks that never sleep all are nearly zero, and to
/// standardise them would make a policy of noise.
const TURN_DEVIATION_MIN: f64 = 0.02;

/// What one update did.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct UpdateStats {
    /// Clipped policy loss, mean over the gradient steps.
    pub policy_loss: f64,
    /// Mean squared error of the baseline, mean over the gradient steps.
    pub value_loss: f64,
    /// Mean entropy of the policy, nats (0.693 is a fair coin), mean over the gradient steps.
    pub entropy: f64,
    /// KL divergence of the policy after the update from the one before, nats, mean over the batch.
    pub kl: f64,
}

/// One batch as arrays, with everything that stays fixed during an update.
pub(super) struct Batch {
    pub inputs: Vec<[f32; FEATURES]>,
    /// +1 where the action was to migrate, else -1: pi(a|x) = sigmoid(sign * logit).
    pub sign: Vec<f32>,
    /// pi_start(a|x)
    pub start: Vec<f32>,
    /// w
    pub importance: Vec<f32>,
    pub advantage: Vec<f32>,
    pub reward: Vec<f32>,
}

/// The losses of one minibatch, scalars.
pub(super) struct Losses {
    pub policy: Tensor,
    pub value: Tensor,
    pub entropy: Tensor,
    /// What is minimised.
    pub total: Tensor,
}

/// Networks, optimisers and the random numbers of the shuffles.
pub struct Learner {
    hyper: Hyper,
    pub(super) actor: Mlp,
    pub(super) critic: Mlp,
    actor_adam: Adam,
    critic_adam: Adam,
    rng: ChaCha8Rng,
    updates: u64,
}

impl Learner {
    /// A learner with these parameters, after `updates` updates, with fresh optimisers.
    pub fn new(hyper: Hyper, parameters: &Parameters, rng: ChaCha8Rng, updates: u64) -> Result<Self> {
        let actor = Mlp::new(&parameters.actor).context("the actor's arrays do not fit its shape")?;
        let critic = Mlp::new(&parameters.critic).context("the critic's arrays do not fit its shape")?;
        hyper.network.bring(&actor)?;
        let (actor_adam, critic_adam) = optimisers(&hyper, &actor, &critic)?;
        Ok(Self { hyper, actor, critic, actor_adam, critic_adam, rng, updates })
    }

    /// Forget the optimisers' moments.
    pub fn restart(&mut self) -> Result<()> {
        (self.actor_adam, self.critic_adam) = optimisers(&self.hyper, &self.actor, &self.critic)?;
        Ok(())
    }

    /// Updates done, without the skipped ones.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The state of the random numbers.
    pub fn rng(&self) -> &ChaCha8Rng {
        &self.rng
    }

    /// The parameters as they are now.
    pub fn parameters(&self) -> Result<Parameters> {
        Ok(Parameters { actor: self.actor.layers()?, critic: self.critic.layers()? })
    }

    /// The actor as it is now.
    pub fn actor_layers(&self) -> Result<Layers> {
        Ok(self.actor.layers()?)
    }

    /// Learn from a batch. `None`: a loss, gradient or parameter was not finite; the parameters are as before, and the
    /// optimisers are fresh. On an error the parameters are as before, too.
    pub fn update(&mut self, samples: &[Sample]) -> Result<Option<UpdateStats>> {
        let before = self.parameters()?;
        let outcome = self.run_epochs(samples);
        if matches!(outcome, Ok(Some(_))) {
            self.updates += 1;
        } else {
            self.actor.set(&before.actor)?;
            self.critic.set(&before.critic)?;
            self.restart()?;
        }
        outcome
    }

    fn run_epochs(&mut self, samples: &[Sample]) -> Result<Option<UpdateStats>> {
        let batch = self.prepare(samples)?;
        let entropy_coefficient = self.hyper.entropy(self.updates);
        let logits_before = self.outputs(&self.actor, &batch.inputs)?;
        let mut order: Vec<usize> = (0..samples.len()).collect();
        let mut stats = UpdateStats::default();
        let mut steps = 0.0;
        for _ in 0..self.hyper.epochs {
            order.shuffle(&mut self.rng);
            for rows in order.chunks(self.hyper.minibatch_events) {
                let losses = self.losses(&batch, rows, entropy_coefficient)?;
                let scalar = |t: &Tensor| t.to_scalar::<f32>().map(f64::from);
                stats.policy_loss += scalar(&losses.policy)?;
                stats.value_loss += scalar(&losses.value)?;
                stats.entropy += scalar(&losses.entropy)?;
                steps += 1.0;
                if !scalar(&losses.total)?.is_finite() || !self.step(&losses)? {
                    return Ok(None);
                }
            }
        }
        for sum in [&mut stats.policy_loss, &mut stats.value_loss, &mut stats.entropy] {
            *sum /= steps;
        }
        stats.kl = kl(&logits_before, &self.outputs(&self.actor, &batch.inputs)?);
        Ok(Some(stats))
    }

    /// One gradient step. Returns whether gradients and parameters are finite.
    fn step(&mut self, losses: &Losses) -> Result<bool> {
        let mut grads = losses.total.backward()?;
        let max = self.hyper.gradient_norm_max;
        self.hyper.network.tie_gradients(&mut grads, &self.actor)?;
        if !limit_norm(&mut grads, self.actor.vars(), max)? || !limit_norm(&mut grads, self.critic.vars(), max)? {
            return Ok(false);
        }
        self.actor_adam.step(&grads)?;
        self.critic_adam.step(&grads)?;
        quantise::project(&self.actor)?;
        Ok(self.parameters()?.not_finite().is_none())
    }

    /// Fix what does not change during an update.
    pub(super) fn prepare(&self, samples: &[Sample]) -> Result<Batch> {
        let inputs: Vec<_> = samples.iter().map(|s| s.inputs).collect();
        let sign: Vec<f32> = samples.iter().map(|s| if s.migrate { 1.0 } else { -1.0 }).collect();
        let reward: Vec<f32> = samples.iter().map(|s| s.reward).collect();
        let logits = self.outputs(&self.actor, &inputs)?;
        // Far below any logged propensity; keeps r finite.
        let start: Vec<f32> = logits.iter().zip(&sign).map(|(l, s)| probability(s * l).max(1e-6)).collect();
        let cap = self.hyper.importance_max as f32;
        let importance = start.iter().zip(samples).map(|(p, s)| (p / s.propensity).min(cap)).collect();
        let baseline = self.outputs(&self.critic, &inputs)?;
        let mut advantage: Vec<f32> = reward.iter().zip(baseline).map(|(r, v)| r - v).collect();
        // Two kinds of questions, whose rewards differ in scale.
        for (about_turns, least) in [(false, 0.0), (true, TURN_DEVIATION_MIN)] {
            standardise(&mut advantage, least, |row| (inputs[row][RL_F_turn as usize] > 0.0) == about_turns);
        }
        Ok(Batch { inputs, sign, start, importance, advantage, reward })
    }

    /// The losses over some rows of a batch.
    pub(super) fn losses(&self, batch: &Batch, rows: &[usize], entropy_coefficient: f64) -> Result<Losses> {
        let column = |values: &[f32]| {
            let picked: Vec<f32> = rows.iter().map(|&i| values[i]).collect();
            Tensor::from_vec(picked, rows.len(), &Device::Cpu)
        };
        let picked: Vec<_> = rows.iter().map(|&i| batch.inputs[i]).collect();
        let inputs = Tensor::from_slice(picked.as_flattened(), (rows.len(), FEATURES), &Device::Cpu)?;

        let logit = self.actor.forward(&inputs)?;
        let ratio = (sigmoid(&(&logit * column(&batch.sign)?)?)? / column(&batch.start)?)?;
        let advantage = column(&batch.advantage)?;
        let clipped = ratio.clamp(1.0 - self.hyper.clip, 1.0 + self.hyper.clip)?;
        let gain = (ratio * &advantage)?.minimum(&(clipped * &advantage)?)?;
        let policy = (gain * column(&batch.importance)?)?.mean_all()?.neg()?;

        // 1 - p is computed as sigmoid(-logit) and the logarithms are kept off zero, so that no logit gives NaN.
        let (p, q) = (sigmoid(&logit)?, sigmoid(&logit.neg()?)?);
        let plogp = |p: &Tensor| p * (p + 1e-8)?.log()?;
        let entropy = (plogp(&p)? + plogp(&q)?)?.neg()?.mean_all()?;

        let value = (self.critic.forward(&inputs)? - column(&batch.reward)?)?.sqr()?.mean_all()?;
        let total = ((&policy + &value)? - (&entropy * entropy_coefficient)?)?;
        Ok(Losses { policy, value, entropy, total })
    }

    /// Outputs of a network, minibatch by minibatch (see network.rs on threads).
    fn outputs(&self, network: &Mlp, inputs: &[[f32; FEATURES]]) -> Result<Vec<f32>> {
        let mut outputs = Vec::with_capacity(inputs.len());
        for chunk in inputs.chunks(self.hyper.minibatch_events) {
            let x = Tensor::from_slice(chunk.as_flattened(), (chunk.len(), FEATURES), &Device::Cpu)?;
            outputs.extend(network.forward(&x)?.to_vec1::<f32>()?);
        }
        Ok(outputs)
    }
}

fn optimisers(hyper: &Hyper, actor: &Mlp, critic: &Mlp) -> Result<(Adam, Adam)> {
    let adam = |network: &Mlp, lr| {
        let vars: Vec<Var> = network.vars().into_iter().cloned().collect();
        Adam::new(vars, ParamsAdam { lr, ..Default::default() })
    };
    Ok((adam(actor, hyper.actor_learning_rate)?, adam(critic, hyper.critic_learning_rate)?))
}

fn probability(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// Zero mean and unit variance, of the rows that are meant; less, if the standard deviation is below `least`. Where there is no
/// variance, there are no advantages.
fn standardise(values: &mut [f32], least: f64, meant: impl Fn(usize) -> bool) {
    let rows: Vec<usize> = (0..values.len()).filter(|&row| meant(row)).collect();
    let n = rows.len().max(1) as f64;
    let mean = rows.iter().map(|&row| f64::from(values[row])).sum::<f64>() / n;
    let variance = rows.iter().map(|&row| (f64::from(values[row]) - mean).powi(2)).sum::<f64>() / n;
    for row in rows {
        values[row] = ((f64::from(values[row]) - mean) / (variance.sqrt().max(least) + 1e-8)) as f32;
    }
}

/// Scale the gradients of one network down to norm `max`. Returns whether they are finite.
fn limit_norm(grads: &mut GradStore, vars: [&Var; 4], max: f64) -> Result<bool> {
    let mut sum = 0.0;
    for var in vars {
        let grad = grads.get(var).context("a parameter has no gradient")?;
        sum += grad.flatten_all()?.to_vec1::<f32>()?.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>();
    }
    let norm = sum.sqrt();
    if norm > max && norm.is_finite() {
        for var in vars {
            let grad = grads.get(var).context("a parameter has no gradient")?;
            let scaled = (grad * (max / norm))?;
            grads.insert(var, scaled);
        }
    }
    Ok(norm.is_finite())
}

/// Mean KL divergence between the Bernoulli policies of two lists of logits.
pub(super) fn kl(before: &[f32], after: &[f32]) -> f64 {
    // ln sigmoid(l), without overflow
    let log = |l: f64| -((-l).max(0.0) + (-l.abs()).exp().ln_1p());
    let each = before.iter().zip(after).map(|(&b, &a)| {
        let (b, a) = (f64::from(b), f64::from(a));
        log(b).exp() * (log(b) - log(a)) + log(-b).exp() * (log(-b) - log(-a))
    });
    each.sum::<f64>() / before.len().max(1) as f64
}
