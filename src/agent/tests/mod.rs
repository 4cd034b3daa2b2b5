// SPDX-License-Identifier: GPL-2.0-only
//! Tests of the agent. This file: a synthetic world for all of them, and the small parts.

mod checkpoint;
mod learning;
mod numerics;
mod ope;
mod recording;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::policy::host::{self, FEATURES, Features};
use crate::policy::{
    RL_END_TURN, RL_EV_CENSOR_EXIT, RL_EV_KEPT, RL_EV_WHOLE, RL_EVENT_VERSION, RL_F_other_idle, RL_F_turn, RL_GO_ON,
    RL_MIGRATE, RL_MODE_DRAW, RL_MODE_GREEDY, RL_MODE_HEURISTIC, RL_MODE_RANDOM, RL_POINT_PULL, RL_POINT_TURN,
    RL_PROB_ONE, RL_STAY, rl_event, rl_slot,
};

use super::reward::{self, CAP_NS, Normaliser, RunningMean, Verdict};
use super::*;

const MS: u64 = 1_000_000;

/// A world in which migrating is right exactly where the other domain has many idle CPUs.
struct World {
    rng: ChaCha8Rng,
    slot: rl_slot,
    /// Reward the wrong action instead.
    inverted: bool,
}

impl World {
    fn new(seed: u64, mode: u32) -> Self {
        let slot = rl_slot { mode, floor_q16: 64, ..Default::default() };
        Self { rng: ChaCha8Rng::seed_from_u64(seed), slot, inverted: false }
    }

    fn features(&mut self) -> Features {
        let mut f: Features = std::array::from_fn(|_| self.rng.random_range(0..128));
        f[RL_F_turn as usize] = 0;
        f
    }

    fn right(&self, f: &Features) -> u32 {
        if (f[RL_F_other_idle as usize] > 63) != self.inverted { RL_MIGRATE } else { RL_STAY }
    }

    fn event(&mut self) -> rl_event {
        let f = self.features();
        let decision = host::act(&self.slot, &f, self.rng.random());
        let base = if decision.action == self.right(&f) { MS } else { 4 * MS };
        rl_event {
            version: RL_EVENT_VERSION as u8,
            generation: decision.generation,
            mode: decision.mode as u8,
            action: decision.action as u8,
            point: u8::from(f[0] > 63),
            p_migrate_q16: decision.p_migrate_q16,
            logit_q8: decision.logit_q8,
            wait_ns: base + self.rng.random_range(0..MS / 2),
            service_ns: self.rng.random_range(0..2 * MS),
            usual_service_ns: MS,
            features: f,
            ..Default::default()
        }
    }

    fn events(&mut self, n: usize) -> Vec<rl_event> {
        (0..n).map(|_| self.event()).collect()
    }

    /// Share of random situations in which the greedy policy is right.
    fn right_share(&mut self, agent: &Agent) -> f64 {
        let slot = rl_slot { mode: RL_MODE_GREEDY, weights: agent.weights().unwrap(), ..Default::default() };
        let n = 4000;
        let right = (0..n).filter(|_| {
            let f = self.features();
            host::act(&slot, &f, 0).action == self.right(&f)
        });
        right.count() as f64 / f64::from(n)
    }
}

/// Every bit of every parameter.
fn bits(agent: &Agent) -> Vec<u32> {
    agent.parameters().unwrap().arrays().iter().flat_map(|a| a.iter().map(|v| v.to_bits())).collect()
}

fn small() -> Hyper {
    Hyper { batch_events: 64, minibatch_events: 16, ..Default::default() }
}

fn valid_event() -> rl_event {
    rl_event {
        version: RL_EVENT_VERSION as u8,
        wait_ns: 3 * MS,
        service_ns: 2 * MS,
        usual_service_ns: MS,
        p_migrate_q16: RL_PROB_ONE / 4,
        action: RL_MIGRATE as u8,
        flags: RL_EV_WHOLE,
        ..Default::default()
    }
}

#[test]
fn reward_is_wait_plus_extra_service() {
    let event = valid_event();
    assert_eq!(reward::cost_ns(&event), 4 * MS as i64);
    assert_eq!(reward::raw_reward_ms(&event), -4.0);
    let faster = rl_event { service_ns: 0, ..event };
    assert_eq!(reward::cost_ns(&faster), 2 * MS as i64, "chance must count in both directions");
    let interrupted = rl_event { flags: 0, ..event };
    assert_eq!(reward::cost_ns(&interrupted), 3 * MS as i64, "how long it ran was up to others");
    let starved = rl_event { wait_ns: u64::MAX, service_ns: u64::MAX, ..event };
    assert_eq!(reward::cost_ns(&starved), 2 * CAP_NS as i64, "both parts are winsorised");
    assert_eq!(reward::raw_reward_ms(&starved), -100.0);
}

#[test]
fn a_turn_is_worth_what_it_completes_in_the_time_it_takes() {
    let turn = rl_event { point: RL_POINT_TURN as u8, usual_service_ns: 5 * MS, wait_ns: 0, ..valid_event() };
    let outcome = |action, service_ns, flags| reward::raw_reward_ms(&rl_event { action, service_ns, flags, ..turn });
    let (end, go_on) = (RL_END_TURN as u8, RL_GO_ON as u8);
    assert_eq!(outcome(go_on, 3 * MS, RL_EV_WHOLE), 2.0, "done in less than what the next one wants");
    assert_eq!(outcome(go_on, 16 * MS, 0), -16.0, "time that others would have had, for nothing");
    assert_eq!(outcome(end, 0, 0), -0.1, "a switch costs something");
    assert_eq!(outcome(end, 0, RL_EV_KEPT), 0.0, "there was none");
    assert_eq!(outcome(go_on, u64::MAX, 0), -50.0, "winsorised");
    let scaled = |usual_service_ns, action, service_ns, flags| {
        let event = rl_event { usual_service_ns, action, service_ns, flags, ..turn };
        Normaliser::default().training_reward(&event, 100, 8.0)
    };
    assert_eq!(scaled(10 * MS, go_on, 4 * MS, RL_EV_WHOLE), 0.6, "one burst done, 0.4 of the next one's not");
    assert_eq!(scaled(10 * MS, end, 0, 0), -0.01);
    assert!((scaled(20 * MS, go_on, 4 * MS, RL_EV_WHOLE) - 0.8).abs() < 1e-9, "the next one would take longer");
    assert_eq!(scaled(MS / 10, go_on, 4 * MS, 0), -0.4, "who wants a moment waits as long as others");
    let hogs = |action, service_ns| scaled(10_000_000 * MS, action, service_ns, 0);
    assert!((hogs(go_on, 20 * MS) - hogs(end, 0)).abs() < 1e-4, "among those who never sleep it does not matter");
    assert_eq!(scaled(0, go_on, 0, RL_EV_WHOLE), 0.0001, "finite, whatever the log says");
}

#[test]
fn training_reward_is_scaled_per_decision_point_and_clipped() {
    let mut normaliser = Normaliser::default();
    // Response 3 + 1 ms, cost 4 ms: the first event is its own scale.
    assert_eq!(normaliser.training_reward(&valid_event(), 100, 8.0), -1.0);
    let pull = rl_event { point: RL_POINT_PULL as u8, wait_ns: MS, ..valid_event() };
    assert_eq!(normaliser.training_reward(&pull, 100, 8.0), -1.0, "PULL has its own mean: cost 2 ms, response 2 ms");
    assert_eq!(normaliser.means_ns(), (Some(4e6), Some(2e6)));
    let starved = rl_event { wait_ns: 100 * CAP_NS, ..valid_event() };
    assert_eq!(normaliser.training_reward(&starved, 100_000, 8.0), -8.0, "clipped");
    let free = rl_event { wait_ns: 0, service_ns: 0, usual_service_ns: 0, ..valid_event() };
    let zero = Normaliser::default().training_reward(&free, 100, 8.0);
    assert!(zero == 0.0, "no cost, no response: {zero}");
}

#[test]
fn running_mean_is_not_biased_towards_zero() {
    let mut mean = RunningMean::default();
    assert_eq!(mean.get(), None);
    mean.add(10.0, 1000);
    assert!((mean.get().unwrap() - 10.0).abs() < 1e-9);
    (0..20_000).for_each(|_| mean.add(2.0, 1000));
    assert!((mean.get().unwrap() - 2.0).abs() < 1e-6);
}

#[test]
fn events_are_judged() {
    let ok = valid_event();
    assert_eq!(reward::judge(&ok), Verdict::Learn);
    assert_eq!(reward::judge(&rl_event { mode: RL_MODE_RANDOM as u8, ..ok }), Verdict::Learn);
    assert_eq!(reward::judge(&rl_event { flags: RL_EV_WHOLE, ..ok }), Verdict::Learn);
    assert_eq!(reward::judge(&rl_event { flags: RL_EV_CENSOR_EXIT, ..ok }), Verdict::Censored);
    assert_eq!(reward::judge(&rl_event { wait_ns: 1 << 40, ..ok }), Verdict::Learn, "the worst are known, too");
    for mode in [RL_MODE_GREEDY, RL_MODE_HEURISTIC] {
        let certain = rl_event { mode: mode as u8, p_migrate_q16: RL_PROB_ONE, ..ok };
        assert_eq!(reward::judge(&certain), Verdict::OffMode);
    }
    let mut feature = ok;
    feature.features[FEATURES - 1] = 128;
    for bad in [
        feature,
        rl_event { version: 0, ..ok },
        rl_event { point: 3, ..ok },
        rl_event { action: 2, ..ok },
        rl_event { distance: 4, ..ok },
        rl_event { mode: 4, ..ok },
        rl_event { p_migrate_q16: RL_PROB_ONE + 1, ..ok },
        rl_event { p_migrate_q16: 0, ..ok },
        rl_event { p_migrate_q16: RL_PROB_ONE, action: RL_STAY as u8, ..ok },
        rl_event { p_migrate_q16: u32::MAX, action: RL_STAY as u8, ..ok },
        rl_event { version: 9, flags: RL_EV_CENSOR_EXIT, ..ok },
    ] {
        assert!(matches!(reward::judge(&bad), Verdict::Invalid(_)), "{bad:?}");
    }
}

#[test]
fn only_valid_uncensored_events_are_learned_from() {
    let mut agent = Agent::new(small(), 1).unwrap();
    let before = bits(&agent);
    let ok = valid_event();
    let greedy = rl_event { mode: RL_MODE_GREEDY as u8, p_migrate_q16: RL_PROB_ONE, ..ok };
    for _ in 0..200 {
        let censored = rl_event { flags: RL_EV_CENSOR_EXIT, wait_ns: u64::MAX, ..ok };
        agent.observe(&[censored, rl_event { version: 7, ..ok }, greedy, greedy]).unwrap();
    }
    let c = agent.metrics().counters;
    assert_eq!((c.accepted, c.censored, c.invalid, c.off_mode), (0, 200, 200, 400));
    assert_eq!(bits(&agent), before);
    assert_eq!(agent.metrics().response_ms, [0.0, 0.0], "a censored wait is no measure of the response either");
    agent.observe(&World::new(1, RL_MODE_RANDOM).events(64)).unwrap();
    assert_eq!((agent.metrics().updates, agent.metrics().counters.accepted), (1, 64));
    assert_ne!(bits(&agent), before);
}

#[test]
fn buffer_is_bounded_and_counts_drops() {
    let sample = Sample::new(&valid_event(), -1.0);
    assert_eq!(sample.propensity, 0.25);
    assert_eq!(Sample::new(&rl_event { action: RL_STAY as u8, ..valid_event() }, 0.0).propensity, 0.75);
    let mut buffer = Buffer::new(3);
    assert_eq!([buffer.push(sample), buffer.push(sample), buffer.push(sample)], [false, false, true]);
    assert!(buffer.push(sample));
    assert_eq!((buffer.len(), buffer.dropped()), (3, 1));
    assert_eq!(buffer.take().len(), 3);
    assert!(buffer.is_empty());
}

#[test]
fn history_thins_and_keeps_its_means() {
    let mut history = History::new(8);
    assert_eq!(history.quarters(), None);
    for i in 0..1000u64 {
        history.add((i + 1) * 64, i as f64);
    }
    assert!(history.entries().len() <= 8 && history.entries().len() >= 4);
    let (first, last) = history.quarters().unwrap();
    assert!(first < 260.0 && last > 620.0, "{first} {last}");
    let accepted: Vec<_> = history.entries().iter().map(|e| e.0).collect();
    assert!(accepted.windows(2).all(|w| w[1] - w[0] == accepted[0]), "equal weights: {accepted:?}");
}

#[test]
fn hyper_parameters_are_validated() {
    Hyper::default().validate().unwrap();
    for bad in [
        Hyper { batch_events: 0, ..Default::default() },
        Hyper { minibatch_events: 513, ..Default::default() },
        Hyper { clip: f64::NAN, ..Default::default() },
        Hyper { actor_learning_rate: -1.0, ..Default::default() },
        Hyper { actor_learning_rate: f64::INFINITY, ..Default::default() },
    ] {
        assert!(Agent::new(bad, 0).is_err());
    }
    assert!(Hyper::from_json(r#"{"clop": 0.1}"#).is_err(), "unknown names are refused");
    assert_eq!(Hyper::from_json(r#"{"clip": 0.1}"#).unwrap(), Hyper { clip: 0.1, ..Default::default() });
    let falling = Hyper { entropy_start: 0.01, entropy_end: 0.001, ..Default::default() };
    assert_eq!((falling.entropy(0), falling.entropy(1 << 50)), (0.01, 0.001));
}

#[test]
fn the_first_policy_is_nearly_a_fair_coin() {
    for seed in 0..20 {
        let agent = Agent::new(Hyper::default(), seed).unwrap();
        let mut world = World::new(seed, RL_MODE_DRAW);
        world.slot.weights = agent.weights().unwrap();
        for _ in 0..200 {
            let f = world.features();
            let p = f64::from(host::act(&world.slot, &f, 0).p_migrate_q16) / f64::from(RL_PROB_ONE);
            assert!((0.35..0.65).contains(&p), "seed {seed}: {p}");
        }
    }
}
