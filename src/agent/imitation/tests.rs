// SPDX-License-Identifier: GPL-2.0-only
//! How the imitator's numbers are found: supervised, on situations drawn at random, by the cross-entropy between
//! `sigmoid(logit)` and [`CONFIDENCE`] for the rule's own action. The doubt keeps the policy gradient alive.

use candle_core::{Device, Tensor};
use candle_nn::{Optimizer, ops::sigmoid};
use candle_optimisers::adam::{Adam, ParamsAdam};
use rand::SeedableRng;

use super::*;
use crate::agent::network::{Mlp, Parameters};
use crate::agent::quantise;
use crate::policy::{
    RL_FEATURE_BITS, RL_MIGRATE, RL_MODE_DRAW, RL_MODE_GREEDY, RL_MODE_HEURISTIC, RL_PROB_ONE, rl_rule, rl_slot,
};

/// The probability that the imitator should give to the rule's action.
const CONFIDENCE: f32 = 0.98;
/// Gradient steps.
const STEPS: usize = 10_000;
/// Situations for each.
const ROWS: usize = 128;
/// Adam's step at the beginning; it falls linearly to a tenth of it, where the quantisation is finer than the steps.
const LEARNING_RATE: f64 = 0.02;

/// Does the rule migrate?
fn teaches(rule: &rl_rule, features: &Features) -> bool {
    let slot = rl_slot { mode: RL_MODE_HEURISTIC, rule: *rule, ..Default::default() };
    host::act(&slot, features, 0).action == RL_MIGRATE
}

/// An actor that imitates the rule, from the one given.
fn imitate(actor: &Layers, rule: &rl_rule, rng: &mut ChaCha8Rng) -> Result<Layers> {
    let mlp = Mlp::new(actor)?;
    let params = ParamsAdam { lr: LEARNING_RATE, ..Default::default() };
    let mut adam = Adam::new(mlp.vars().into_iter().cloned().collect(), params)?;
    for step in 0..STEPS {
        let done = step as f64 / STEPS as f64;
        adam.set_learning_rate(LEARNING_RATE * (1.0 - 0.9 * done));
        let rows: Vec<Features> = (0..ROWS).map(|row| any_situation(row, rng)).collect();
        let sign: Vec<f32> = rows.iter().map(|f| if teaches(rule, f) { 1.0 } else { -1.0 }).collect();
        let inputs: Vec<[f32; FEATURES]> =
            rows.iter().map(|f| f.map(|v| f32::from(v) / (1 << RL_FEATURE_BITS) as f32)).collect();
        let inputs = Tensor::from_slice(inputs.as_flattened(), (ROWS, FEATURES), &Device::Cpu)?;
        let right = (mlp.forward(&inputs)? * Tensor::from_vec(sign, ROWS, &Device::Cpu)?)?;
        let log = |logit: &Tensor| (sigmoid(logit)? + 1e-8)?.log();
        let (yes, no) = ((log(&right)? * f64::from(CONFIDENCE))?, (log(&right.neg()?)? * f64::from(1.0 - CONFIDENCE))?);
        let loss = (yes + no)?.mean_all()?.neg()?;
        adam.backward_step(&loss)?;
        quantise::project(&mlp)?;
    }
    Ok(mlp.layers()?)
}

#[test]
fn an_imitator_decides_as_the_rule_does() {
    let rule = host::default_rule();
    if std::env::var_os("SCX_RL_BLESS").is_some() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let actor = imitate(&Parameters::random(&mut rng).actor, &rule, &mut rng).unwrap();
        let line = |array: &Vec<f32>| array.iter().map(f32::to_string).collect::<Vec<_>>().join(" ") + "\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/agent/imitation/actor.txt");
        std::fs::write(path, actor.arrays().map(line).concat()).unwrap();
        panic!("{path} is written anew: build again, and test without SCX_RL_BLESS");
    }
    let mut rng = ChaCha8Rng::seed_from_u64(99);
    let greedy =
        rl_slot { mode: RL_MODE_GREEDY, weights: quantise::check(&actor().unwrap()).unwrap(), ..Default::default() };
    let learning = rl_slot { mode: RL_MODE_DRAW, ..greedy };
    let teacher = rl_slot { mode: RL_MODE_HEURISTIC, rule, ..Default::default() };
    let (mut same, mut right, n) = (0, 0.0, 20_000usize);
    for row in 0..n {
        let f = any_situation(row, &mut rng);
        let wanted = host::act(&teacher, &f, 0).action;
        same += u32::from(host::act(&greedy, &f, 0).action == wanted);
        let migrate = f64::from(host::act(&learning, &f, 0).p_migrate_q16) / f64::from(RL_PROB_ONE);
        right += if wanted == RL_MIGRATE { migrate } else { 1.0 - migrate };
    }
    let (same, right) = (f64::from(same) / n as f64, right / n as f64);
    println!("the same action in {same:.4}; probability of the rule's action {right:.4}");
    assert!(same > 0.96, "{same}");
    assert!(right > 0.92, "{right}");
}

#[test]
fn the_method_finds_an_imitator_from_anywhere() {
    let rule = rl_rule { margin: 8, ..host::default_rule() };
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let found = imitate(&Parameters::random(&mut rng).actor, &rule, &mut rng).unwrap();
    let greedy = rl_slot { mode: RL_MODE_GREEDY, weights: quantise::check(&found).unwrap(), ..Default::default() };
    let same = (0..5000).filter(|&row| {
        let f = any_situation(row, &mut rng);
        (host::act(&greedy, &f, 0).action == RL_MIGRATE) == teaches(&rule, &f)
    });
    let same = same.count();
    assert!(same > 4750, "{same} of 5000");
}
