// SPDX-License-Identifier: GPL-2.0-only
//! Off-policy evaluation: what must hold exactly, what is refused, and (in files of their own) how often intervals hold
//! the truth, and numbers against an independent script.

mod coverage;
mod reference;

use super::super::ope::interval::{Quantiles, Ratio};
use super::super::ope::{
    Difference, EFFECTIVE_MIN, Estimate, Estimates, Evaluated, Evaluator, Log, OpeError, Policy, Settings, Shortage,
    Value, compare,
};
use super::*;
use crate::lab::statistics::student_t;
use crate::policy::{
    RL_EV_CENSOR_AFFINITY, RL_EV_CENSOR_DEQUEUED, RL_EV_REDECIDED, RL_F_home_idle, RL_F_home_queued, RL_F_other_queued,
};

/// Estimates without asking whether there is enough for them.
fn unguarded(evaluated: &Evaluated) -> Estimates {
    evaluated.estimates(|ratio, _| ratio.clone(), evaluated)
}

fn evaluator(events: &[rl_event]) -> Evaluator {
    Evaluator::new(Log::of(events), Settings::default()).unwrap()
}

fn value(events: &[rl_event], policy: &Policy) -> Value {
    evaluator(events).evaluate(policy).value()
}

fn coin_events(seed: u64, count: usize) -> Vec<rl_event> {
    World::new(seed, RL_MODE_RANDOM).events(count)
}

#[track_caller]
fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "{found} {expected}");
}

#[test]
fn a_policy_does_what_the_c_does() {
    let weights = Agent::new(Hyper::default(), 5).unwrap().weights().unwrap();
    let events = coin_events(1, 600);
    let by_c = |slot: rl_slot| {
        let sum: u32 = events.iter().map(|e| host::act(&slot, &e.features, 0).p_migrate_q16).sum();
        f64::from(sum) / f64::from(RL_PROB_ONE) / events.len() as f64
    };
    let slot = |mode: u32, floor_q16: u32| rl_slot {
        mode,
        floor_q16,
        weights,
        rule: host::default_rule(),
        ..Default::default()
    };
    let shares = [
        (Policy::network(weights, 0), by_c(slot(RL_MODE_DRAW, 0))),
        (Policy::network(weights, 31_000), by_c(slot(RL_MODE_DRAW, 31_000))),
        (Policy::greedy(weights), by_c(slot(RL_MODE_GREEDY, 0))),
        (Policy::heuristic(), by_c(slot(RL_MODE_HEURISTIC, 0))),
        (Policy::random(), 0.5),
        (Policy::Stay, 0.0),
        (Policy::Migrate, 1.0),
    ];
    for (policy, share) in &shares {
        close(value(&events, policy).migrated_share, *share);
    }
    // The four that ask the C are four different policies, or this would show nothing.
    for pair in shares[..4].windows(2) {
        assert!((pair[0].1 - pair[1].1).abs() > 1e-4, "{} {}", pair[0].1, pair[1].1);
    }
    let logged = events.iter().filter(|e| u32::from(e.action) == RL_MIGRATE).count();
    assert!((250..350).contains(&logged));
    close(value(&events, &Policy::Logged).migrated_share, 0.5);
}

#[test]
fn the_policy_that_acted_has_weights_of_one() {
    let mut world = World::new(2, RL_MODE_DRAW);
    world.slot.weights = Agent::new(Hyper::default(), 5).unwrap().weights().unwrap();
    let events = world.events(1000);
    let mean_ms = events.iter().map(reward::raw_reward_ms).sum::<f64>() / 1000.0;
    let acted = value(&events, &Policy::network(world.slot.weights, world.slot.floor_q16));
    assert_eq!((acted.largest_weight, acted.mean_weight, acted.effective_events), (1.0, 1.0, 1000.0));
    let logged = value(&events, &Policy::Logged).estimates.unwrap();
    close(logged.dr.value_ms, mean_ms);
    assert_eq!((logged.ips, logged.snips), (logged.dr, logged.dr));
    let acted = acted.estimates.unwrap();
    assert_eq!((acted.ips, acted.snips), (logged.ips, logged.snips));
    // The model knows part of what chance did, so DR is not the plain mean; it says the same, and is surer.
    assert!((acted.dr.value_ms - mean_ms).abs() < 3.0 * logged.dr.error_ms && acted.dr != logged.dr);
    assert!(acted.dr.error_ms < logged.dr.error_ms, "{} {}", acted.dr.error_ms, logged.dr.error_ms);
}

#[test]
fn a_cost_that_all_decisions_have_cancels_in_all_but_ips() {
    let events = coin_events(3, 1000);
    let dearer: Vec<_> = events.iter().map(|e| rl_event { wait_ns: e.wait_ns + 5 * MS, ..*e }).collect();
    let before = value(&events, &Policy::heuristic());
    let (a, b) = (before.estimates.unwrap(), value(&dearer, &Policy::heuristic()).estimates.unwrap());
    for (a, b) in [(a.snips, b.snips), (a.dr, b.dr)] {
        close(b.value_ms, a.value_ms - 5.0);
        close(b.error_ms, a.error_ms);
    }
    close(b.ips.value_ms, a.ips.value_ms - 5.0 * before.mean_weight);
    assert!((before.mean_weight - 1.0).abs() > 1e-3, "by chance IPS would look as good: {}", before.mean_weight);
}

#[test]
fn dr_is_exact_where_its_model_is() {
    let certain = |features: &Features, migrate: bool| {
        let queue = u64::from(features[if migrate { RL_F_other_queued } else { RL_F_home_queued } as usize]);
        MS + 10_000 * queue + if migrate { 700_000 } else { 0 }
    };
    let mut events = coin_events(4, 1000);
    for (i, e) in events.iter_mut().enumerate() {
        e.wait_ns = certain(&e.features, u32::from(e.action) == RL_MIGRATE);
        (e.service_ns, e.usual_service_ns, e.sample_shift) = (MS, MS, (i % 3) as u8);
    }
    let (mut sum, mut mass) = (0.0, 0.0);
    let slot = rl_slot { mode: RL_MODE_HEURISTIC, rule: host::default_rule(), ..Default::default() };
    for e in &events {
        let migrate = host::act(&slot, &e.features, 0).action == RL_MIGRATE;
        let c = f64::from(1 << e.sample_shift);
        sum -= c * certain(&e.features, migrate) as f64 / 1e6;
        mass += c;
    }
    let estimates = |ridge_events| {
        let log = Log::of(&events);
        let evaluator = Evaluator::new(log, Settings { ridge_events, ..Settings::default() }).unwrap();
        evaluator.evaluate(&Policy::heuristic()).value().estimates.unwrap()
    };
    let exact = estimates(1e-6);
    assert!((exact.dr.value_ms - sum / mass).abs() < 1e-6, "{} {}", exact.dr.value_ms, sum / mass);
    // IPS and SNIPS do not know the model, and a ridge that shrinks it away leaves DR with what they know.
    assert!((exact.ips.value_ms - sum / mass).abs() > 1e-3);
    assert!((exact.snips.value_ms - sum / mass).abs() > 1e-3);
    assert!((estimates(1e9).dr.value_ms - sum / mass).abs() > 1e-3);
}

#[test]
fn an_event_counts_as_the_decisions_that_it_stands_for() {
    let mut events = coin_events(5, 1000);
    let mut copies = Vec::new();
    for (i, e) in events.iter_mut().enumerate() {
        let shift = [0, 3, 1][i % 3];
        copies.extend(std::iter::repeat_n(*e, 1 << shift));
        e.sample_shift = shift;
    }
    let log = Log::of(&events);
    assert_eq!((log.counts().used, log.counts().decisions), (1000, copies.len() as u64));
    let (sampled, copied) = (value(&events, &Policy::Migrate), value(&copies, &Policy::Migrate));
    let (a, b) = (sampled.estimates.unwrap(), copied.estimates.unwrap());
    close(a.ips.value_ms, b.ips.value_ms);
    close(a.snips.value_ms, b.snips.value_ms);
    close(sampled.mean_weight, copied.mean_weight);
    assert!(sampled.effective_events < 0.5 * copied.effective_events, "but eight copies are not eight observations");
}

#[test]
fn what_cannot_be_used_is_left_out_and_counted() {
    let clean = coin_events(6, 600);
    let mut events = clean.clone();
    let ok = rl_event { wait_ns: 40 * MS, ..clean[0] };
    let greedy = rl_event { mode: RL_MODE_GREEDY as u8, p_migrate_q16: RL_PROB_ONE, action: RL_MIGRATE as u8, ..ok };
    events.extend([rl_event { flags: RL_EV_CENSOR_EXIT, ..ok }; 2]);
    events.push(rl_event { flags: RL_EV_CENSOR_AFFINITY, ..ok });
    events.push(rl_event { flags: RL_EV_CENSOR_DEQUEUED, ..ok });
    events.extend([greedy; 4]);
    events.push(rl_event { version: 9, ..ok });
    events.push(rl_event { p_migrate_q16: 0, action: RL_MIGRATE as u8, ..ok });
    events.extend([rl_event { sample_shift: 17, ..ok }, rl_event { sample_shift: 255, ..ok }]);
    let log = Log::of(&events);
    let c = log.counts();
    assert_eq!((c.events, c.used, c.decisions, c.redecided, c.off_mode), (612, 600, 600, 0, 4));
    assert_eq!(c.censored, [("affinity", 1), ("dequeued", 1), ("exit", 2)].into());
    assert_eq!(c.invalid, [("action of propensity zero", 1), ("event version", 1), ("sample shift", 2)].into());
    assert_eq!(value(&events, &Policy::heuristic()), value(&clean, &Policy::heuristic()));
    // What was decided again is kept.
    events.push(rl_event { flags: RL_EV_REDECIDED, ..ok });
    let c = Log::of(&events).counts().clone();
    assert_eq!((c.used, c.redecided), (601, 1));
    assert_ne!(value(&events, &Policy::heuristic()), value(&clean, &Policy::heuristic()));
}

#[test]
fn a_log_that_tells_nothing_is_an_error_that_says_what_to_do() {
    let error = |events: &[rl_event], settings: Settings| {
        compare(events, &Policy::Stay, &Policy::Logged, settings).unwrap_err()
    };
    assert_eq!(error(&[], Settings::default()), OpeError::Empty);
    let greedy = rl_event { mode: RL_MODE_GREEDY as u8, p_migrate_q16: RL_PROB_ONE, ..valid_event() };
    let text = error(&[greedy; 700], Settings::default()).to_string();
    assert!(text.contains("700 events were decided with certainty") && text.contains("record with --learn"), "{text}");
    let censored = rl_event { flags: RL_EV_CENSOR_EXIT, ..valid_event() };
    assert_eq!(error(&[censored; 3], Settings::default()), OpeError::Unusable { events: 3 });
    let events = coin_events(7, 10);
    for (settings, part) in [
        (Settings { clip: Some(0.9), ..Settings::default() }, "clip = 0.9: choose a weight of at least 1"),
        (Settings { clip: Some(f64::NAN), ..Settings::default() }, "clip = NaN"),
        (Settings { clip: Some(f64::INFINITY), ..Settings::default() }, "clip = inf"),
        (Settings { blocks: 1, ..Settings::default() }, "blocks = 1: choose at least 2"),
        (Settings { ridge_events: 0.0, ..Settings::default() }, "ridge_events = 0"),
        (Settings { ridge_events: f64::NAN, ..Settings::default() }, "ridge_events = NaN"),
    ] {
        let text = error(&events, settings).to_string();
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn too_few_events_are_said_to_be_too_few() {
    let events = coin_events(8, 500);
    assert!(value(&events, &Policy::Stay).estimates.is_ok());
    let few = Shortage::Events { events: 499, needed: 500 };
    assert_eq!(value(&events[..499], &Policy::Stay).estimates, Err(few));
    assert_eq!(few.to_string(), "499 events can be used, and 500 are needed: record for longer");
    for count in 1..60 {
        assert!(value(&events[..count], &Policy::Migrate).estimates.is_err(), "{count}");
    }
    assert_eq!(serde_json::to_value(few).unwrap(), few.to_string());
}

/// An event in which `action` was taken with the probability `p_migrate_q16` of migrating.
fn drawn(p_migrate_q16: u32, action: u32) -> rl_event {
    rl_event { p_migrate_q16, action: action as u8, ..valid_event() }
}

#[test]
fn a_policy_that_the_log_does_not_support_gets_no_number() {
    // Migrated with probability 0.001: 5 times in 5000, and a weight of 1000 each.
    let rare: Vec<_> = (0..5000).map(|i| drawn(66, if i % 1000 == 7 { RL_MIGRATE } else { RL_STAY })).collect();
    let migrate = value(&rare, &Policy::Migrate);
    close(migrate.effective_events, 5.0);
    close(migrate.largest_weight, 65536.0 / 66.0);
    assert!(matches!(migrate.estimates, Err(Shortage::Effective { .. })), "{migrate:?}");
    assert!(value(&rare, &Policy::Stay).estimates.is_ok());

    // Where it is rare it never happened. The other half has enough weight, which is not that of all decisions.
    let half = |i: usize| match i % 2 {
        0 => drawn(66, RL_STAY),
        _ => drawn(58_982, if i % 20 == 1 { RL_STAY } else { RL_MIGRATE }),
    };
    let never: Vec<_> = (0..4000).map(half).collect();
    let migrate = value(&never, &Policy::Migrate);
    assert!(migrate.effective_events > 1000.0);
    assert!(
        matches!(migrate.estimates, Err(Shortage::MeanWeight { mean }) if (mean - 0.5).abs() < 0.01),
        "{migrate:?}"
    );
    // The same for a difference in which it takes part, on either side.
    let evaluator = evaluator(&never);
    let (migrate, logged) = (evaluator.evaluate(&Policy::Migrate), evaluator.evaluate(&Policy::Logged));
    for difference in [migrate.minus(&logged), logged.minus(&migrate)] {
        assert!(matches!(difference.estimates, Err(Shortage::MeanWeight { .. })), "{difference:?}");
    }
}

#[test]
fn policies_that_hardly_differ_have_no_difference_to_show() {
    let mut events = coin_events(9, 2000);
    let same = compare(&events, &Policy::heuristic(), &Policy::heuristic(), Settings::default()).unwrap();
    let none = Shortage::Difference { effective: 0.0, needed: EFFECTIVE_MIN };
    assert_eq!(same, Difference { effective_events: 0.0, mean_weight_change: 0.0, estimates: Err(none) });
    // The rule moves tasks from a longer queue; make that rare, and it is nearly the policy that stays.
    for (i, e) in events.iter_mut().enumerate() {
        e.features[RL_F_home_queued as usize] = if i < 150 { 127 } else { 0 };
        e.features[RL_F_other_queued as usize] = 0;
        e.features[RL_F_home_idle as usize] = 1;
    }
    let near = compare(&events, &Policy::heuristic(), &Policy::Stay, Settings::default()).unwrap();
    close(near.effective_events, 150.0);
    assert!(matches!(near.estimates, Err(Shortage::Difference { .. })), "{near:?}");
    let far = compare(&events, &Policy::Migrate, &Policy::Stay, Settings::default()).unwrap();
    close(far.effective_events, 2000.0);
    assert!(far.estimates.is_ok());
}

#[test]
fn a_difference_is_that_of_the_values_and_surer() {
    let evaluator = evaluator(&coin_events(10, 2000));
    let (a, b) = (evaluator.evaluate(&Policy::heuristic()), evaluator.evaluate(&Policy::Logged));
    let (difference, reverse) = (a.minus(&b).estimates.unwrap(), b.minus(&a).estimates.unwrap());
    let (a, b) = (a.value().estimates.unwrap(), b.value().estimates.unwrap());
    for (d, a, b) in [(difference.ips, a.ips, b.ips), (difference.snips, a.snips, b.snips), (difference.dr, a.dr, b.dr)]
    {
        close(d.value_ms, a.value_ms - b.value_ms);
        assert!(d.low_ms < d.at_least_ms && d.at_least_ms < d.value_ms && d.value_ms < d.high_ms);
    }
    // Both saw the same rewards.
    assert!(difference.dr.error_ms < a.dr.error_ms.hypot(b.dr.error_ms), "{difference:?} {a:?} {b:?}");
    close(reverse.dr.value_ms, -difference.dr.value_ms);
    close(reverse.dr.low_ms, -difference.dr.high_ms);
}

#[test]
fn clipping_flatters() {
    let mut world = World::new(11, RL_MODE_DRAW);
    world.slot.weights = Agent::new(Hyper::default(), 5).unwrap().weights().unwrap();
    let events = world.events(2000);
    let clip = Settings { clip: Some(1.5), ..Settings::default() };
    let clipped = Evaluator::new(Log::of(&events), clip).unwrap().evaluate(&Policy::Migrate);
    let whole = evaluator(&events).evaluate(&Policy::Migrate);
    assert_eq!(clipped.value().largest_weight, 1.5);
    assert!(whole.value().largest_weight > 1.6);
    assert!(unguarded(&clipped).ips.value_ms > unguarded(&whole).ips.value_ms + 0.1);
    assert!(clipped.value().effective_events > whole.value().effective_events);
    // What was cut off is missing in the mean weight, and so the result is refused.
    assert!(matches!(clipped.value().estimates, Err(Shortage::MeanWeight { mean }) if mean < 0.95));
}

/// Published tables, such as Abramowitz and Stegun's 26.10.
#[test]
fn quantiles_are_students() {
    for (p, df, expected) in [
        (0.975, 1, 12.706_205),
        (0.975, 2, 4.302_653),
        (0.975, 3, 3.182_446),
        (0.975, 4, 2.776_445),
        (0.975, 5, 2.570_582),
        (0.975, 10, 2.228_139),
        (0.975, 19, 2.093_024),
        (0.975, 30, 2.042_272),
        (0.975, 120, 1.979_930),
        (0.95, 1, 6.313_752),
        (0.95, 19, 1.729_133),
        (0.995, 10, 3.169_273),
        (0.975, 100_000, 1.959_988),
    ] {
        let found = student_t(p, df);
        assert!((found - expected).abs() < 2e-6, "{p} {df}: {found} {expected}");
    }
}

#[test]
fn errors_are_those_of_means_where_events_are_their_own_blocks() {
    let y = [1.0, 4.0, 2.0, 2.0, 6.0];
    let ratio = Ratio::new(y.iter().map(|&y| (y, 1.0)));
    // Mean 3, sum of squared deviations 16: sqrt(16 / 4 / 5).
    close(ratio.value, 3.0);
    close(ratio.error(), 0.8f64.sqrt());
    let Estimate { low_ms, high_ms, .. } = ratio.estimate(&Quantiles::new(5));
    close(high_ms - low_ms, 2.0 * student_t(0.975, 4) * 0.8f64.sqrt());
}
