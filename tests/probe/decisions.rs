// SPDX-License-Identifier: GPL-2.0-only
//! From outputs to actions: the sigmoid, the sampler, and frozen decisions of a checkpoint.

use std::mem::MaybeUninit;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use scx_rl::agent::Checkpoint;
use scx_rl::agent::recording::{Reader, Record};
use scx_rl::kernel::probe::Program;
use scx_rl::kernel::slots::Publication;
use scx_rl::policy::host::{self, FEATURES, Features};
use scx_rl::policy::{
    RL_F_turn, RL_LOGIT_BITS, RL_LOGIT_MAX, RL_LOGIT_SHIFT, RL_MIGRATE, RL_MODE_DRAW, RL_MODE_GREEDY,
    RL_MODE_HEURISTIC, RL_MODE_RANDOM, RL_MODE_TURNS, RL_PROB_ONE, rl_slot,
};

use super::common::{Folder, learn, situation};
use super::{BATCH, Plain, probe};

const LOGIT_MAX: i32 = RL_LOGIT_MAX as i32;

/// A slot whose network answers every question with this logit (in 1/256).
fn constant(mode: u32, floor_q16: u32, logit_q8: i32) -> rl_slot {
    let mut plain = Plain::from_fn(|_| 0);
    plain.b2 = i64::from(logit_q8) << RL_LOGIT_SHIFT;
    rl_slot { mode, floor_q16, rule: host::default_rule(), weights: plain.packed(), ..Default::default() }
}

/// Least probability of each action at TURN while learning.
const TURN_FLOOR: u32 = RL_PROB_ONE / 50;

/// Of all 65536 random numbers, how many migrate; and the propensity, which must be the same for each.
fn migrations(slot: &rl_slot, high_bits: u32, turn: u8) -> (u32, u32) {
    let mut f = [3; FEATURES];
    f[RL_F_turn as usize] = turn;
    let p = host::act(slot, &f, 0).p_migrate_q16;
    let migrated = (0..RL_PROB_ONE).filter(|low| {
        let d = host::act(slot, &f, high_bits << 16 | low);
        assert_eq!(d.p_migrate_q16, p, "the propensity depends on the random number {low}");
        d.action == RL_MIGRATE
    });
    (migrated.count() as u32, p)
}

#[test]
fn the_sampler_migrates_exactly_as_often_as_the_logged_propensity_says() {
    let logits = [-LOGIT_MAX, -2047, -1300, -700, -256, -100, -1, 0, 1, 100, 256, 700, 1300, 2047, LOGIT_MAX];
    let floors = [0, 1, 66, 655, 6554, RL_PROB_ONE / 2, RL_PROB_ONE / 2 + 1, u32::MAX];
    let (mut drawn, mut propensities) = (0u64, std::collections::BTreeSet::new());
    for (i, logit) in logits.into_iter().enumerate() {
        for (floor, turn) in floors.into_iter().flat_map(|floor| [(floor, 0), (floor, 3)]) {
            let (migrated, p) = migrations(&constant(RL_MODE_DRAW, floor, logit), i as u32 * 4369, turn);
            assert_eq!(migrated, p, "logit {logit}, floor {floor}");
            let at_turn = if floor > 0 && turn > 0 { TURN_FLOOR } else { 0 };
            let least = floor.max(at_turn).min(RL_PROB_ONE / 2);
            assert!((least..=RL_PROB_ONE - least).contains(&p), "logit {logit}, floor {floor}: {p}");
            let inside = (least..=RL_PROB_ONE - least).contains(&sigmoid(logit));
            assert!(!inside || p == sigmoid(logit), "the floor only binds where the network is beyond it");
            drawn += u64::from(RL_PROB_ONE);
            propensities.insert(p);
        }
        for (mode, expected) in
            [(RL_MODE_GREEDY, if logit > 0 { RL_PROB_ONE } else { 0 }), (RL_MODE_RANDOM, RL_PROB_ONE / 2)]
        {
            assert_eq!(
                migrations(&constant(mode, 66, logit), 0, 3),
                (expected, expected),
                "mode {mode}, logit {logit}"
            );
        }
    }
    let (migrated, p) = migrations(&constant(RL_MODE_HEURISTIC, 66, 0), 0, 0);
    assert!(migrated == p && [0, RL_PROB_ONE].contains(&p), "{p}");
    assert!(drawn >= 1_000_000 && propensities.len() > 20, "{drawn} {propensities:?}");
}

#[test]
fn a_policy_of_turns_alone_leaves_moves_to_the_rule() {
    let slot = constant(RL_MODE_TURNS, 0, 300);
    let at = |turn: u8| {
        let mut features = [0; FEATURES];
        features[RL_F_turn as usize] = turn;
        host::act(&slot, &features, 0)
    };
    assert_eq!((at(0).mode, at(0).logit_q8), (RL_MODE_HEURISTIC, 0));
    for turn in [1, 127] {
        assert_eq!((at(turn).mode, at(turn).logit_q8, at(turn).p_migrate_q16), (RL_MODE_DRAW, 300, sigmoid(300)));
    }
}

fn sigmoid(logit_q8: i32) -> u32 {
    let d = host::act(&constant(RL_MODE_DRAW, 0, logit_q8), &[0; FEATURES], 0);
    assert_eq!(d.logit_q8, logit_q8.clamp(-LOGIT_MAX, LOGIT_MAX));
    d.p_migrate_q16
}

#[test]
fn the_sigmoid_is_close_monotone_and_symmetric() {
    let (mut worst, mut before) = (0f64, 0);
    for logit in -LOGIT_MAX..=LOGIT_MAX {
        let p = sigmoid(logit);
        let real = 1.0 / (1.0 + (-f64::from(logit) / f64::from(1 << RL_LOGIT_BITS)).exp());
        worst = worst.max((f64::from(p) / f64::from(RL_PROB_ONE) - real).abs());
        assert!(p >= before, "not monotone at {logit}");
        assert_eq!(p + sigmoid(-logit), RL_PROB_ONE, "not symmetric at {logit}");
        before = p;
    }
    println!("largest error of the sigmoid: {worst:.2e}");
    assert!(worst <= 1.0e-4, "{worst}");
    assert_eq!(sigmoid(0), RL_PROB_ONE / 2);
    for beyond in [LOGIT_MAX + 1, 1 << 20, i32::MAX] {
        assert_eq!((sigmoid(beyond), sigmoid(-beyond)), (sigmoid(LOGIT_MAX), sigmoid(-LOGIT_MAX)));
    }
}

#[test]
fn frozen_decisions_in_bpf_are_those_of_the_checkpoints_network() {
    let mut object = MaybeUninit::uninit();
    let Some(mut probe) = probe(&mut object) else { return };
    let run = learn(7, 10_000);
    let folder = Folder::new();
    run.checkpoint.save(&folder.file("frozen.safetensors")).unwrap();
    let checkpoint = Checkpoint::load(&folder.file("frozen.safetensors")).unwrap();
    assert!(checkpoint.updates > 10, "it learned: {} updates", checkpoint.updates);
    let recorded = Reader::new(run.recording.as_slice()).unwrap().filter_map(|r| match r.unwrap() {
        Record::Event(event) => Some(event.features),
        _ => None,
    });
    let mut vectors: Vec<Features> = recorded.collect();
    assert_eq!(vectors.len(), 10_000);
    // The last batch is filled up with situations that were not recorded.
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    vectors.resize_with(vectors.len().next_multiple_of(BATCH), || situation(&mut rng));

    let weights = checkpoint.publishable().unwrap();
    let plain = Plain::of(&checkpoint.weights);
    // As --frozen publishes it, and with --greedy, where a floor would not matter.
    for (mode, floor_q16) in [(RL_MODE_DRAW, 0), (RL_MODE_GREEDY, 66)] {
        let publication = Publication { mode, floor_q16, weights, ..Publication::default() };
        let generation = probe.publisher().unwrap().publish(&publication);
        let slot = rl_slot { generation, mode, floor_q16, weights, ..Default::default() };
        let mut actions = [0; 2];
        for vectors in vectors.chunks(BATCH) {
            let batch = probe.batch().unwrap();
            batch.features.copy_from_slice(vectors);
            batch.rnd.fill_with(|| rng.random());
            let rnd = batch.rnd;
            probe.run(Program::Decide, 1).unwrap();
            for ((f, decision), rnd) in vectors.iter().zip(probe.batch().unwrap().decisions).zip(rnd) {
                assert_eq!(decision, host::act(&slot, f, rnd), "{f:?}");
                // And without any of the C, the logit in 1/256: who draws takes the likelier action with its probability,
                // within what sigmoid's approximation allows; else always.
                let logit = plain.forward(f) >> RL_LOGIT_SHIFT;
                let p = 1.0 / (1.0 + (-(logit.clamp(-2048, 2048) as f64) / 256.0).exp());
                let drawn = f64::from(rnd & (RL_PROB_ONE - 1)) / f64::from(RL_PROB_ONE);
                let migrates = if mode == RL_MODE_DRAW { drawn < p } else { logit > 0 };
                let too_close = mode == RL_MODE_DRAW && (drawn - p).abs() < 2e-4;
                assert!(too_close || (decision.action == RL_MIGRATE) == migrates, "{p} {drawn}: {f:?}");
                actions[decision.action as usize] += 1;
            }
        }
        println!("{} decisions equal: {} stay, {} migrate", vectors.len(), actions[0], actions[1]);
        assert!(actions.iter().all(|&n| n > 500), "the policy must use both actions: {actions:?}");
    }
}
