// SPDX-License-Identifier: GPL-2.0-only
//! `scx_rl bench --learner`: what learning costs. The agent's own loop without a kernel: events in, updates of the network,
//! the gate, a network considered for publication once for each second's events.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{Cost, cost, random_inputs};
use crate::agent::guard::{Guard, Limits};
use crate::agent::publishing::Publishing;
use crate::agent::{Agent, Hyper};
use crate::policy::{RL_EVENT_VERSION, RL_MODE_DRAW, host, probability_q16, rl_event, rl_slot};
use crate::process::resident_bytes;

/// The load that shares are stated for, events per second.
const EVENTS_PER_S: usize = 10_000;
/// The agent's loop takes what 20 ms bring.
const CHUNK: usize = EVENTS_PER_S / 50;
/// Least probability of each action.
const FLOOR: f64 = 0.01;

/// What learning costs.
#[derive(Debug, Serialize)]
pub struct Report {
    events_per_s: f64,
    cpu_share_at_10k: f64,
    /// CPU time for each event, all threads.
    event: Cost,
    events: u64,
    updates: u64,
    resident_mib: f64,
    rounds: u32,
}

impl Report {
    /// As text.
    pub fn text(&self) -> String {
        let Cost { median_ns, min_ns, max_ns } = self.event;
        format!(
            "learning from {} events, {} updates of the network, median of {} rounds:\n  \
             an event costs {median_ns:.0} ns of CPU time (fastest round {min_ns:.0}, slowest {max_ns:.0})\n  \
             one CPU takes in {:.0} events/s; 10,000 events/s are {:.2} % of it\n  \
             resident memory {:.1} MiB\n",
            self.events,
            self.updates,
            self.rounds,
            self.events_per_s,
            self.cpu_share_at_10k * 100.0,
            self.resident_mib
        )
    }
}

/// Learn from `events` events in each round, about decisions of the agent's own network.
///
/// # Errors
/// The agent cannot be made, or fails.
pub fn run(rounds: u32, events: u64) -> Result<Report> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut agent = Agent::imitating(Hyper::default(), 1)?;
    let floor_q16 = probability_q16(FLOOR);
    let guard = Guard::new(Limits::default(), 1, 0);
    let mut publishing = Publishing::new(&agent, floor_q16, Some(guard), false, &mut rng)?;
    let (mut times, mut seen) = (Vec::new(), 0);
    // The first round warms up.
    for round in 0..=rounds {
        let (_, _, weights) = publishing.current();
        let slot = rl_slot { mode: RL_MODE_DRAW, floor_q16, weights, ..Default::default() };
        let stream: Vec<rl_event> = (0..events).map(|i| event(&slot, seen + i, &mut rng)).collect();
        let before = cpu_time()?;
        for second in stream.chunks(EVENTS_PER_S) {
            for chunk in second.chunks(CHUNK) {
                publishing.observe(chunk);
                agent.observe(chunk)?;
            }
            publishing.consider(&agent);
        }
        let spent = cpu_time()?.saturating_sub(before);
        seen += events;
        if round > 0 {
            times.push(spent.as_nanos() as f64 / events as f64);
        }
    }
    let event = cost(times);
    Ok(Report {
        events_per_s: 1e9 / event.median_ns,
        cpu_share_at_10k: event.median_ns * EVENTS_PER_S as f64 / 1e9,
        event,
        events: seen,
        updates: agent.metrics().updates,
        resident_mib: resident_bytes() as f64 / f64::from(1 << 20),
        rounds,
    })
}

/// A decision in some situation, and an outcome: what there is to learn does not matter, but nothing may be invalid.
fn event(slot: &rl_slot, number: u64, rng: &mut ChaCha8Rng) -> rl_event {
    let input = random_inputs(rng);
    let features = host::features(&input);
    let decision = host::act(slot, &features, rng.random());
    let exponential = |rng: &mut ChaCha8Rng, mean_ns: f64| (-(1.0 - rng.random::<f64>()).ln() * mean_ns) as u64;
    rl_event {
        decided_at_ns: (number + 1) * 100_000,
        generation: 1,
        wait_ns: exponential(rng, 1e6),
        service_ns: exponential(rng, 2e6),
        usual_service_ns: 2_000_000,
        logit_q8: decision.logit_q8,
        p_migrate_q16: decision.p_migrate_q16,
        tid: 1,
        other_dom: 1,
        version: RL_EVENT_VERSION as u8,
        point: input.point as u8,
        action: decision.action as u8,
        distance: input.distance as u8,
        mode: RL_MODE_DRAW as u8,
        features,
        ..Default::default()
    }
}

/// CPU time of all threads of this process.
fn cpu_time() -> Result<Duration> {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from).context("cannot read the CPU time used")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::reward::{Verdict, judge};

    #[test]
    fn all_events_are_learned_from() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let slot = rl_slot { mode: RL_MODE_DRAW, floor_q16: probability_q16(FLOOR), ..Default::default() };
        for number in 0..1000 {
            assert_eq!(judge(&event(&slot, number, &mut rng)), Verdict::Learn);
        }
        let report = run(1, 3_000).unwrap();
        assert_eq!((report.events, report.updates), (6_000, 6_000 / Hyper::default().batch_events as u64));
        assert!(report.events_per_s > 0.0 && report.resident_mib > 1.0, "{report:?}");
    }
}
