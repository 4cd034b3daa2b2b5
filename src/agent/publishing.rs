// SPDX-License-Identifier: GPL-2.0-only
//! What decides in the kernel (or simulator), and when that changes: the learner's network, as it passes the checks and the
//! gate; the fixed rule, as the guard wants it; the last network that was trusted, when a newer one was not.

use anyhow::Result;
use rand_chacha::ChaCha8Rng;

use crate::policy::host::{self, Features};
use crate::policy::{RL_LOGIT_BITS, RL_MODE_DRAW, RL_MODE_HEURISTIC, rl_event, rl_mode, rl_slot, rl_weights};

use super::gate::{Gate, Verdict};
use super::guard::{Counts, Decider, Guard, Harm, Reason};
use super::imitation::{any_situation, situation};
use super::learner::kl;
use super::{Agent, Environment};

/// Situations in which networks are compared.
const SITUATIONS: usize = 512;
/// A network that differs from the one that the guard's evidence is about by more than this is another one: nats, mean
/// Kullback-Leibler divergence of its decisions. (0.02: about what ten ordinary updates do.)
const KNOWN_NATS: f64 = 0.02;

/// The publishing side of a learning run.
pub struct Publishing {
    guard: Option<Guard>,
    /// There is one where there is a guard.
    gate: Option<Gate>,
    floor_q16: u32,
    situations: Vec<Features>,
    /// The newest network that passed the checks, and the updates that it has had.
    good: rl_weights,
    updates: u64,
    /// The network that the guard's evidence is about.
    known: rl_weights,
    /// The last one that the guard let decide nearly always.
    trusted: Option<rl_weights>,
    /// The trusted one decides instead of the newest.
    restored: bool,
    /// Nothing is learned any more.
    frozen: bool,
    /// What was published last.
    last: Option<(rl_mode, u32, rl_weights)>,
    /// Publications so far.
    pub published: u64,
    /// Networks that the checks or the gate refused.
    pub refused: u64,
}

impl Publishing {
    /// For the agent's network as it is now, with this probability floor (out of `RL_PROB_ONE`). Without a guard the
    /// network decides all of the time, whatever events say of it. `rng` draws the situations in which networks are compared;
    /// every fourth is about the length of a turn, if the policy chooses slices.
    ///
    /// # Errors
    /// The network does not pass the checks.
    pub fn new(
        agent: &Agent,
        floor_q16: u32,
        guard: Option<Guard>,
        slices: bool,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self> {
        let good = agent.weights()?;
        let any = |i: usize| if slices { any_situation(i, rng) } else { situation(rng) };
        Ok(Self {
            gate: guard.as_ref().map(|_| Gate::default()),
            guard,
            floor_q16,
            situations: (0..SITUATIONS).map(any).collect(),
            good,
            updates: agent.metrics().updates,
            known: good,
            trusted: None,
            restored: false,
            frozen: false,
            last: None,
            published: 0,
            refused: 0,
        })
    }

    /// What is to decide now: the mode, the probability floor, and the network.
    pub fn current(&self) -> (rl_mode, u32, rl_weights) {
        let decider = self.guard.as_ref().map_or(Decider::Policy, Guard::decider);
        let floor_q16 = if self.frozen { 0 } else { self.floor_q16 };
        match (decider, self.trusted) {
            (Decider::Rule, _) => (RL_MODE_HEURISTIC, 0, self.good),
            (Decider::Policy, Some(trusted)) if self.restored => (RL_MODE_DRAW, floor_q16, trusted),
            (Decider::Policy, _) => (RL_MODE_DRAW, floor_q16, self.good),
        }
    }

    /// Nothing is learned any more: without the floor from now on.
    pub fn freeze(&mut self) {
        self.frozen = true;
    }

    /// What the guard knows, and the share of the time that it gives to the policy; none without a guard.
    pub fn guarded(&self) -> Option<(Harm, f64)> {
        self.guard.as_ref().map(|guard| (guard.harm(), guard.share()))
    }

    /// What the guard has measured of this network, or of one that hardly differs from it; none if that is another one.
    pub fn harm_of(&self, weights: &rl_weights) -> Option<Harm> {
        let measured = !self.restored && divergence(&self.known, weights, &self.situations) <= KNOWN_NATS;
        self.guard.as_ref().filter(|_| measured).map(Guard::harm)
    }

    /// Times that the guard distrusted the policy.
    pub fn distrusted(&self) -> u64 {
        self.guard.as_ref().map_or(0, Guard::distrusted)
    }

    /// What was logged: evidence for the gate.
    pub fn observe(&mut self, events: &[rl_event]) {
        if let Some(gate) = &mut self.gate {
            gate.observe(events);
        }
    }

    /// Look whether there is a newer network, and whether it passes the checks and the gate.
    pub fn consider(&mut self, agent: &Agent) {
        if self.frozen {
            return;
        }
        if let Some(gate) = &mut self.gate
            && let Some(candidate) = gate.candidate()
        {
            match gate.judge(&self.good, self.floor_q16) {
                Verdict::Wait => return,
                Verdict::Pass => self.adopt(candidate),
                Verdict::Refuse { cost_ms, .. } if !cost_ms.is_finite() => {
                    self.refused += 1;
                    log::info!(
                        "a network is not published: what was logged cannot tell what it would earn; learning goes on"
                    );
                }
                Verdict::Refuse { gain_ms, cost_ms } => {
                    self.refused += 1;
                    log::info!(
                        "a network is not published: by what was logged a decision would earn {gain_ms:+.3} ms more, \
                         and now costs {cost_ms:.3} ms; learning goes on"
                    );
                }
            }
        }
        let updates = agent.metrics().updates;
        if updates == self.updates {
            return;
        }
        self.updates = updates;
        match (agent.weights(), &mut self.gate) {
            (Ok(weights), Some(gate)) => gate.propose(weights),
            (Ok(weights), None) => self.adopt(weights),
            (Err(e), _) => {
                self.refused += 1;
                log::warn!("not published: {e:#}; the last weights stay in use");
            }
        }
    }

    fn adopt(&mut self, weights: rl_weights) {
        self.good = weights;
        if let Some(guard) = &mut self.guard
            && divergence(&self.known, &weights, &self.situations) > KNOWN_NATS
        {
            self.known = weights;
            guard.changed();
        }
    }

    /// Let time go on: ask the guard, and publish if something else is to decide than what was published last. Without a
    /// guard, nothing is counted.
    ///
    /// # Errors
    /// The environment fails.
    pub fn step<E: Environment>(
        &mut self,
        environment: &mut E,
        now_ns: u64,
        counts: impl FnOnce(&mut E) -> Result<Counts>,
    ) -> Result<()> {
        if let Some(guard) = &mut self.guard {
            let order = guard.observe(now_ns, &counts(environment)?);
            let trusts = guard.trusts();
            if let Some(reason) = order.distrusted {
                self.distrust(reason);
            } else if trusts && self.restored {
                log::info!("the guard trusts the restored policy; the newest is tried again");
                self.restored = false;
                guard.forget();
            } else if trusts && order.decider == Decider::Policy {
                self.trusted = Some(self.good);
            }
        }
        self.publish(environment)
    }

    /// Publish what is to decide, unless it decides already.
    ///
    /// # Errors
    /// The environment fails.
    pub fn publish(&mut self, environment: &mut impl Environment) -> Result<()> {
        let current = self.current();
        if self.last != Some(current) {
            let (mode, floor_q16, weights) = current;
            environment.publish(&weights, mode, floor_q16)?;
            self.last = Some(current);
            self.published += 1;
        }
        Ok(())
    }

    fn distrust(&mut self, reason: Reason) {
        let why = match reason {
            Reason::Worse { at_least } => {
                format!("responses are longer under it by at least {:.1} %", at_least * 100.0)
            }
            Reason::Waits { p99_us, usual_us } => {
                format!(
                    "the 99th percentile of waits is {:.1} ms under it, {:.1} ms under the rule",
                    p99_us / 1e3,
                    usual_us / 1e3
                )
            }
        };
        // First the newest, then the trusted one; then nothing is trusted.
        self.restored = !self.restored && self.trusted.is_some();
        if !self.restored {
            self.trusted = None;
        }
        let next = if self.restored { "the last trusted policy is tried next" } else { "it is tried again later" };
        log::warn!("the guard distrusts the policy: {why}. The fixed rule decides; {next}");
    }
}

/// Mean Kullback-Leibler divergence of the decisions of a network from those of another, nats.
fn divergence(from: &rl_weights, to: &rl_weights, situations: &[Features]) -> f64 {
    let logits = |weights: &rl_weights| -> Vec<f32> {
        let slot = rl_slot { mode: RL_MODE_DRAW, weights: *weights, ..Default::default() };
        let logit = |f| host::act(&slot, f, 0).logit_q8 as f32 / (1 << RL_LOGIT_BITS) as f32;
        situations.iter().map(logit).collect()
    };
    kl(&logits(from), &logits(to))
}
