// SPDX-License-Identifier: GPL-2.0-only
//! The gate: before a new network decides anything, events that it was not trained on must not speak against it.
//!
//! A network waits here while the one that decides goes on logging. Off-policy evaluation (`ope.rs`) then tells from those
//! events what the new one would have earned more than the present one, with a bound. Learning goes on meanwhile, and what
//! waits is not changed by it: so the events are new to it, and none are kept from learning. Decisions about turns are not
//! looked at here; what they do to the machine, the guard sees.
//!
//! ```text
//! passes    the difference is at least -MARGIN of the present cost, with 95 % confidence; or the two are all but the same
//! refused   it is negative with 95 % confidence; or EVENTS_MAX events could not say
//! waits     otherwise
//! ```
//!
//! The margin is for each network against the one before: what many small steps add up to, the guard sees, not the gate.

use super::ope::{Evaluator, Log, Policy, Settings, Shortage};
use crate::policy::{rl_event, rl_weights};

/// What a network may cost more than the present one, as a share of the present cost, and still pass: what evidence of
/// some seconds can tell from nothing.
const MARGIN: f64 = 0.1;
/// Two networks are all but the same where the weights of the logged actions differ by so much on the mean: of a hundred
/// decisions one at most is another (half of this is the total variation).
const SAME: f64 = 0.02;
/// No more events are kept for one judgement: half a MiB.
const EVENTS_MAX: u64 = 4096;

/// What is known of the network that waits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// Nothing waits, or more events are needed.
    Wait,
    /// It may decide.
    Pass,
    /// It must not: what it would earn more than the present one, ms for each decision, and the present cost.
    Refuse {
        /// The estimate.
        gain_ms: f64,
        /// Mean cost of a decision at present; infinite: the events could not tell.
        cost_ms: f64,
    },
}

/// The gate of one run.
#[derive(Debug, Default)]
pub struct Gate {
    candidate: Option<rl_weights>,
    log: Log,
}

impl Gate {
    /// A network wants to be published. One that waits already is replaced.
    pub fn propose(&mut self, weights: rl_weights) {
        self.candidate = Some(weights);
        self.log = Log::default();
    }

    /// The network that waits.
    pub fn candidate(&self) -> Option<rl_weights> {
        self.candidate
    }

    /// What was logged since then.
    pub fn observe(&mut self, events: &[rl_event]) {
        if self.candidate.is_some() {
            // Only those that tell something fill it: while the guard lets the rule decide, none does.
            for event in events {
                if !self.full() {
                    self.log.add(event);
                }
            }
        }
    }

    fn full(&self) -> bool {
        self.log.counts().used >= EVENTS_MAX
    }

    /// May what waits take the place of the present network? Both are taken as they explore, with this probability floor.
    /// Unless the answer is to wait, nothing waits any more.
    pub fn judge(&mut self, present: &rl_weights, floor_q16: u32) -> Verdict {
        let Some(candidate) = self.candidate else { return Verdict::Wait };
        let verdict = self.weigh(&candidate, present, floor_q16);
        if verdict != Verdict::Wait {
            self.candidate = None;
            self.log = Log::default();
        }
        verdict
    }

    fn weigh(&self, candidate: &rl_weights, present: &rl_weights, floor_q16: u32) -> Verdict {
        // No event tells anything, yet.
        let Ok(evaluator) = Evaluator::new(self.log.clone(), Settings::default()) else { return Verdict::Wait };
        let full = self.full();
        let present = evaluator.evaluate(&Policy::network(*present, floor_q16));
        let difference = evaluator.evaluate(&Policy::network(*candidate, floor_q16)).minus(&present);
        let cost_ms = present.value().estimates.map_or(f64::INFINITY, |e| -e.dr.value_ms);
        match difference.estimates.map(|e| e.dr) {
            // It does what the present one does: little is risked.
            Err(Shortage::Difference { .. }) if difference.mean_weight_change < SAME => Verdict::Pass,
            Err(_) if full => Verdict::Refuse { gain_ms: 0.0, cost_ms: f64::INFINITY },
            Err(_) => Verdict::Wait,
            Ok(gain) if gain.at_least_ms >= -MARGIN * cost_ms.max(0.0) => Verdict::Pass,
            Ok(gain) if full || gain.high_ms < 0.0 => Verdict::Refuse { gain_ms: gain.value_ms, cost_ms },
            Ok(_) => Verdict::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::quantise;
    use super::*;
    use crate::policy::{
        RL_EV_WHOLE, RL_EVENT_VERSION, RL_F_home_queued, RL_MIGRATE, RL_MODE_DRAW, RL_MODE_HEURISTIC, RL_PROB_ONE,
        RL_STAY, host, rl_slot,
    };

    const FLOOR_Q16: u32 = 655;

    /// A network with this logit, whatever it sees.
    fn always(logit: f64) -> rl_weights {
        rl_weights { b2: (logit * 65_536.0) as i64, ..rl_weights::default() }
    }

    /// Logged by a network; staying costs 2 ms on the mean, migrating so much.
    fn log(weights: rl_weights, migrate_ms: f64, events: usize, seed: u64) -> Vec<rl_event> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let slot = rl_slot { mode: RL_MODE_DRAW, floor_q16: FLOOR_Q16, weights, ..Default::default() };
        let mut event = || {
            let inputs =
                crate::policy::rl_inputs { home_queued: rng.random_range(0..8), home_cpus: 4, ..Default::default() };
            let features = host::features(&inputs);
            let decision = host::act(&slot, &features, rng.random_range(0..RL_PROB_ONE));
            let mean_ms = if decision.action == RL_MIGRATE { migrate_ms } else { 2.0 };
            assert!(decision.action == RL_MIGRATE || decision.action == RL_STAY);
            rl_event {
                version: RL_EVENT_VERSION as u8,
                mode: RL_MODE_DRAW as u8,
                action: decision.action as u8,
                p_migrate_q16: decision.p_migrate_q16,
                features,
                wait_ns: (mean_ms * 1e6 * rng.random_range(0.5..1.5)) as u64,
                service_ns: 1_000_000,
                usual_service_ns: 1_000_000,
                flags: RL_EV_WHOLE,
                ..Default::default()
            }
        };
        (0..events).map(|_| event()).collect()
    }

    /// The present network is nearly a coin; the candidate mostly migrates.
    fn judged(migrate_ms: f64, events: usize) -> Verdict {
        let present = always(0.2);
        let mut gate = Gate::default();
        gate.propose(always(1.5));
        gate.observe(&log(present, migrate_ms, events, 1));
        gate.judge(&present, FLOOR_Q16)
    }

    #[test]
    fn what_is_better_passes_and_what_is_worse_does_not() {
        assert_eq!(judged(1.0, 3000), Verdict::Pass);
        let Verdict::Refuse { gain_ms, cost_ms } = judged(4.0, 3000) else { panic!("twice the cost passes") };
        // Migrating with p = 0.55 and 0.82 at present and then, 2 ms more each time.
        assert!((gain_ms + 0.53).abs() < 0.1 && (cost_ms - 3.1).abs() < 0.15, "{gain_ms} {cost_ms}");
    }

    #[test]
    fn few_events_are_waited_for_but_not_without_end() {
        assert_eq!(judged(1.0, 0), Verdict::Wait);
        assert_eq!(judged(1.0, 300), Verdict::Wait);
        let mut gate = Gate::default();
        gate.propose(always(8.0));
        // The log hardly has what the candidate does.
        let present = always(-8.0);
        gate.observe(&log(present, 1.0, 2 * EVENTS_MAX as usize, 2));
        assert_eq!(gate.log.counts().used, EVENTS_MAX);
        assert!(matches!(gate.judge(&present, 66), Verdict::Refuse { .. }));
        assert_eq!((gate.candidate(), gate.judge(&present, 66)), (None, Verdict::Wait), "it is gone");
    }

    #[test]
    fn what_tells_nothing_takes_no_place() {
        let present = always(0.2);
        let mut gate = Gate::default();
        gate.propose(always(1.5));
        let rule = rl_event { mode: RL_MODE_HEURISTIC as u8, p_migrate_q16: RL_PROB_ONE, ..log(present, 1.0, 1, 1)[0] };
        gate.observe(&vec![rl_event { action: RL_MIGRATE as u8, ..rule }; EVENTS_MAX as usize + 1]);
        assert_eq!(gate.judge(&present, FLOOR_Q16), Verdict::Wait);
        gate.observe(&log(present, 1.0, 3000, 1));
        assert_eq!(gate.judge(&present, FLOOR_Q16), Verdict::Pass);
    }

    /// Like `weights`, but where seven tasks are queued at home, an eighth of the log, it migrates nearly always.
    fn otherwise_where_queues_are_long(weights: rl_weights) -> rl_weights {
        let mut layers = quantise::dequantise(&weights);
        layers.w1.fill(0.0);
        let hidden = layers.b1.len();
        for neuron in 0..8 {
            // As numbers, features are 64ths: 28 of them with seven tasks on four CPUs, 24 with six.
            layers.w1[RL_F_home_queued as usize * hidden + neuron] = 3.75;
            layers.b1[neuron] = -3.75 * 26.0 / 64.0;
            layers.w2[neuron] = 3.75;
        }
        quantise::check(&layers).unwrap()
    }

    #[test]
    fn a_network_that_differs_seldom_but_much_has_to_wait() {
        let present = always(-1.0);
        let judged = |events| {
            let mut gate = Gate::default();
            gate.propose(otherwise_where_queues_are_long(present));
            gate.observe(&log(present, 40.0, events, 4));
            gate.judge(&present, FLOOR_Q16)
        };
        assert_eq!(judged(600), Verdict::Wait);
        let Verdict::Refuse { gain_ms, .. } = judged(4000) else { panic!("40 ms instead of 2 pass") };
        // P(migrate) 0.27 and 0.92 there: 37 ms more each time, in an eighth.
        assert!((gain_ms + 3.0).abs() < 0.6, "{gain_ms}");
    }

    #[test]
    fn a_network_that_does_the_same_passes() {
        let present = always(0.2);
        let mut gate = Gate::default();
        gate.propose(always(0.21));
        gate.observe(&log(present, 4.0, 1000, 3));
        assert_eq!(gate.judge(&present, FLOOR_Q16), Verdict::Pass);
    }
}
