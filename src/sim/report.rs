// SPDX-License-Identifier: GPL-2.0-only
//! What a simulation counts, and how it is told.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::kernel::scheduler::Counters;
use crate::lab::statistics::geometric_mean;
use crate::policy::{RL_CNT_pull_decisions, RL_CNT_pull_migrated, RL_CNT_wake_decisions, RL_CNT_wake_migrated};
use crate::runqlat::Histogram;

/// Counts of a simulation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events that happened.
    pub events: u64,
    /// Wakeups, the first of each task included.
    pub wakeups: u64,
    /// Times a task was put on a CPU.
    pub runs: u64,
    /// Those in another last-level cache than the time before.
    pub moves: u64,
    /// Time to fill caches, ns at full speed.
    pub refill_ns: u64,
    /// Time that CPUs were busy, ns, summed over CPUs.
    pub busy_ns: u64,
    /// Waits for a CPU.
    pub wait: Histogram,
    /// From a request's arrival to its answer, or a wakeup of a batch task to its next sleep.
    pub response: Histogram,
    /// The same by kind of task.
    pub response_of: Vec<Histogram>,
    hash: u64,
}

impl Totals {
    /// What was counted after `earlier`. The hash remains that of all.
    pub fn since(&self, earlier: &Totals) -> Totals {
        Totals {
            events: self.events - earlier.events,
            wakeups: self.wakeups - earlier.wakeups,
            runs: self.runs - earlier.runs,
            moves: self.moves - earlier.moves,
            refill_ns: self.refill_ns - earlier.refill_ns,
            busy_ns: self.busy_ns - earlier.busy_ns,
            wait: self.wait.since(&earlier.wait),
            response: self.response.since(&earlier.response),
            response_of: (0..self.response_of.len())
                .map(|kind| match earlier.response_of.get(kind) {
                    Some(then) => self.response_of[kind].since(then),
                    None => self.response_of[kind].clone(),
                })
                .collect(),
            hash: self.hash,
        }
    }

    /// An event: all that happens goes into the hash, in order.
    pub fn event(&mut self, at_ns: u64, code: u64) {
        self.events += 1;
        self.mix(at_ns);
        self.mix(code);
    }

    /// A task is put on a CPU.
    pub fn run(&mut self, cpu: usize, task: usize, waited_ns: u64, moved: bool, refill_ns: u64) {
        self.runs += 1;
        self.moves += u64::from(moved);
        self.refill_ns += refill_ns;
        self.wait.add(waited_ns);
        self.mix((cpu as u64) << 32 | task as u64);
    }

    /// A request is answered, or a burst ends, after this time.
    pub fn respond(&mut self, kind: usize, response_ns: u64) {
        self.response.add(response_ns);
        if self.response_of.len() <= kind {
            self.response_of.resize_with(kind + 1, Histogram::default);
        }
        self.response_of[kind].add(response_ns);
    }

    /// Geometric mean over the kinds of tasks: those that ask more often do not count for more. 0 of none.
    pub fn response_us(&self, of: impl Fn(&Histogram) -> f64) -> f64 {
        let values = self.response_of.iter().filter(|h| h.samples() > 0).map(of);
        geometric_mean(values).unwrap_or(0.0)
    }

    /// Equal for two simulations in which the same happened at the same times.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

/// A distribution of times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Times {
    /// How many there were.
    pub samples: u64,
    /// Mean, us.
    pub mean_us: f64,
    /// Median, us.
    pub p50_us: f64,
    /// 99th percentile, us.
    pub p99_us: f64,
    /// The longest, us.
    pub max_us: f64,
}

impl Times {
    /// Of a histogram.
    pub fn of(histogram: &Histogram) -> Self {
        Self {
            samples: histogram.samples(),
            mean_us: histogram.mean_us(),
            p50_us: histogram.percentile_us(0.5),
            p99_us: histogram.percentile_us(0.99),
            max_us: histogram.max_ns as f64 / 1e3,
        }
    }
}

/// What `scx_rl sim` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Which balancer decided.
    pub balancer: String,
    /// CPUs.
    pub cpus: usize,
    /// Last-level caches.
    pub llcs: usize,
    /// NUMA nodes.
    pub nodes: usize,
    /// Tasks.
    pub tasks: usize,
    /// The seed.
    pub seed: u64,
    /// Simulated time, s.
    pub simulated_s: f64,
    /// Real time that it took, s.
    pub wall_s: f64,
    /// Events that happened.
    pub events: u64,
    /// Events in a second of real time.
    pub events_per_s: f64,
    /// Memory of this process at the end, MiB.
    pub resident_mib: f64,
    /// Hash over all events, hexadecimal.
    pub hash: String,
    /// Share of the CPUs' time that they were busy.
    pub utilisation: f64,
    /// Wakeups.
    pub wakeups: u64,
    /// Times a task was put on a CPU.
    pub runs: u64,
    /// Share of those in another last-level cache than the time before.
    pub moved_share: f64,
    /// Time to fill caches, of the time that CPUs were busy.
    pub refill_share: f64,
    /// Times the policy was asked.
    pub decisions: u64,
    /// Share of those that chose to migrate.
    pub migrated_share: f64,
    /// Waits for a CPU.
    pub wait: Times,
    /// From a request's arrival to its answer, or a wakeup of a batch task to its next sleep.
    pub response: Times,
    /// The scheduler's own counters.
    pub counters: BTreeMap<&'static str, u64>,
}

/// A share; 0 of nothing.
pub fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

/// Decisions, and how many of them chose to migrate.
pub fn decisions(counters: &Counters) -> (u64, u64) {
    (
        counters.get(RL_CNT_wake_decisions) + counters.get(RL_CNT_pull_decisions),
        counters.get(RL_CNT_wake_migrated) + counters.get(RL_CNT_pull_migrated),
    )
}
