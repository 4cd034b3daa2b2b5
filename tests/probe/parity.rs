// SPDX-License-Identifier: GPL-2.0-only
//! BPF and the host compute the same bits from the same C.

use std::mem::MaybeUninit;
use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use scx_rl::bench::{random_inputs, random_network};
use scx_rl::kernel::probe::{Probe, Program};
use scx_rl::kernel::slots::Publication;
use scx_rl::policy::host::{self, FEATURES, Features};
use scx_rl::policy::{
    RL_FEATURE_MAX, RL_LOGIT_MAX, RL_MODE_DRAW, RL_MODE_GREEDY, RL_MODE_HEURISTIC, RL_MODE_RANDOM, RL_MODE_TURNS,
    RL_PROB_ONE, rl_inputs, rl_rule, rl_slot, rl_weights,
};

use super::{BATCH, Plain, probe};

/// Networks of very different kinds, by turns: as large as they get, mostly saturated, and with logits in between.
fn network(rng: &mut ChaCha8Rng, turn: usize) -> rl_weights {
    let sign = |rng: &mut ChaCha8Rng| if rng.random() { 1 } else { -1 };
    match turn % 8 {
        0 => random_network(rng).0,
        1 => Plain::from_fn(|max| sign(rng) * max).packed(),
        2 => Plain::from_fn(|max| if turn.is_multiple_of(16) { max } else { -max }).packed(),
        3 => Plain::from_fn(|_| 0).packed(),
        4 => Plain::from_fn(|max| rng.random_range(-max..=max)).packed(),
        // The size of trained networks: weights of a few 32nds, biases below 1.
        _ => {
            let mut plain = Plain::from_fn(|_| rng.random_range(-12..=12));
            plain.b1 = std::array::from_fn(|_| rng.random_range(-2000..2000));
            plain.b2 = rng.random_range(-60_000..60_000);
            plain.packed()
        }
    }
}

/// 0, the ends, and powers of two with their neighbours.
fn extreme(rng: &mut ChaCha8Rng) -> u64 {
    let power = 1u64 << rng.random_range(0..64);
    [0, u64::MAX, power, power - 1, power + 1, u64::from(u32::MAX), rng.random()][rng.random_range(0..7)]
}

/// Measurements: ordinary ones, ordinary ones with one extreme, and nothing but extremes.
fn inputs(rng: &mut ChaCha8Rng) -> rl_inputs {
    let mut input = random_inputs(rng);
    let fields = match rng.random_range(0..4) {
        0 => 0,
        1 | 2 => 1 << rng.random_range(0..19),
        _ => u32::MAX,
    };
    let mut number = 0..;
    let mut chosen = || number.next().is_some_and(|n: u32| fields >> n & 1 == 1);
    for field in [
        &mut input.home_head_age_ns,
        &mut input.other_head_age_ns,
        &mut input.home_run_avg_ns,
        &mut input.other_run_avg_ns,
        &mut input.task_run_avg_ns,
        &mut input.task_sleep_avg_ns,
        &mut input.since_ran_ns,
        &mut input.since_moved_ns,
        &mut input.move_cost_ns,
    ] {
        if chosen() {
            *field = extreme(rng);
        }
    }
    for field in [
        &mut input.home_queued,
        &mut input.other_queued,
        &mut input.home_cpus,
        &mut input.other_cpus,
        &mut input.home_idle,
        &mut input.other_idle,
        &mut input.point,
        &mut input.distance,
        &mut input.waker,
        &mut input.weight,
    ] {
        if chosen() {
            *field = extreme(rng) as u32;
        }
    }
    input
}

/// Feature vectors that no measurement need give: the corners, and anything within the range.
fn any_features(rng: &mut ChaCha8Rng) -> Features {
    let max = RL_FEATURE_MAX as u8;
    match rng.random_range(0..8) {
        0 => [0; FEATURES],
        1 => [max; FEATURES],
        2 | 3 => std::array::from_fn(|_| if rng.random() { max } else { 0 }),
        _ => std::array::from_fn(|_| rng.random_range(0..=max)),
    }
}

/// What the inputs of the parity test reached: a comparison of saturated logits alone would show little.
#[derive(Default)]
struct Reached {
    between: u64,
    high: u64,
    low: u64,
    actions: [[u64; 2]; 5],
}

/// Any rule, but half of the time one that is near to sensible.
fn random_rule(rng: &mut ChaCha8Rng) -> rl_rule {
    let default = host::default_rule();
    if rng.random() {
        return rl_rule { margin: rng.random_range(0..40), hot_since: rng.random_range(0..80), ..default };
    }
    rl_rule {
        margin: rng.random(),
        numa_margin: rng.random(),
        hot_margin: rng.random(),
        hot_since: rng.random(),
        idle_gain: rng.random(),
        head_age: rng.random(),
        ..default
    }
}

#[test]
fn bpf_equals_the_host_to_the_bit_on_a_million_inputs() {
    let mut object = MaybeUninit::uninit();
    let Some(mut probe) = probe(&mut object) else { return };
    let started = Instant::now();
    let mut publisher = probe.publisher().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let floors = [0, 1, 2, 64, 655, 6554, RL_PROB_ONE / 2 - 1, RL_PROB_ONE / 2, RL_PROB_ONE / 2 + 1, u32::MAX];
    let (mut cases, mut reached) = (0, Reached::default());
    for turn in 0..1_000_000usize.div_ceil(BATCH) {
        observe_batch(&mut probe, &mut rng, turn.is_multiple_of(2));
        let weights = network(&mut rng, turn);
        for mode in [RL_MODE_DRAW, RL_MODE_GREEDY, RL_MODE_HEURISTIC, RL_MODE_RANDOM, RL_MODE_TURNS] {
            let floor_q16 = floors[(turn + mode as usize) % floors.len()];
            let rule = random_rule(&mut rng);
            let generation = publisher.publish(&Publication { mode, floor_q16, rule, weights });
            let slot = rl_slot { generation, mode, floor_q16, rule, weights, ..Default::default() };
            probe.batch().unwrap().rnd.fill_with(|| if rng.random() { rng.random() } else { extreme(&mut rng) as u32 });
            probe.run(Program::Decide, 1).unwrap();
            compare_decisions(&mut probe, &slot, &mut reached);
        }
        cases += BATCH;
    }
    println!(
        "{cases} inputs, each under 5 modes, in {:.1?}: logits {} inside, {} and {} at the ends; (stay, migrate) in the \
         order of enum rl_mode: {:?}",
        started.elapsed(),
        reached.between,
        reached.low,
        reached.high,
        reached.actions
    );
    assert!(cases >= 1_000_000);
    assert!([reached.between, reached.high, reached.low].iter().all(|&n| n > 100_000), "logits of every kind");
    assert!(reached.actions.as_flattened().iter().all(|&n| n > 10_000), "both actions in every mode");
}

/// Features of a batch of measurements in BPF and on the host; then, if `measured` is not wished, other features instead.
fn observe_batch(probe: &mut Probe<'_>, rng: &mut ChaCha8Rng, measured: bool) {
    probe.batch().unwrap().inputs.fill_with(|| inputs(rng));
    probe.run(Program::Features, 1).unwrap();
    let batch = probe.batch().unwrap();
    for (input, found) in batch.inputs.iter().zip(&mut batch.features) {
        let expected = host::features(input);
        assert_eq!(*found, expected, "BPF and host disagree about the features of {input:?}");
        assert!(expected.iter().all(|&v| u32::from(v) <= RL_FEATURE_MAX), "out of range: {expected:?} of {input:?}");
        if !measured {
            *found = any_features(rng);
        }
    }
}

/// Output and decision of every feature vector of the batch under `slot`: BPF, host, and the plain forward pass.
fn compare_decisions(probe: &mut Probe<'_>, slot: &rl_slot, reached: &mut Reached) {
    let plain = Plain::of(&slot.weights);
    let batch = probe.batch().unwrap();
    for (i, f) in batch.features.iter().enumerate() {
        let (z, decision) = (host::forward(&slot.weights, f), host::act(slot, f, batch.rnd[i]));
        let case = || format!("features {f:?}, rnd {:#x}, slot {slot:?}", batch.rnd[i]);
        assert_eq!(batch.z[i], z, "BPF and host disagree about the output for {}", case());
        assert_eq!(batch.decisions[i], decision, "BPF and host disagree about the decision for {}", case());
        reached.actions[slot.mode as usize][decision.action as usize] += 1;
        if slot.mode == RL_MODE_DRAW {
            assert_eq!(plain.forward(f), z, "the packed forward pass is wrong for {}", case());
            match decision.logit_q8 {
                v if v >= RL_LOGIT_MAX as i32 => reached.high += 1,
                v if v <= -(RL_LOGIT_MAX as i32) => reached.low += 1,
                _ => reached.between += 1,
            }
        }
    }
}
