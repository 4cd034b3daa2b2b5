// SPDX-License-Identifier: GPL-2.0-only
//! What is counted, and how it is told.

use serde::Serialize;

use crate::runqlat::{Histogram, Latency};
use crate::sim::locality::LocalitySpec;

/// When is measured: what is before is warm-up. In ns since the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// From then on,
    pub begin_ns: u64,
    /// until before then.
    pub end_ns: u64,
}

/// A burst that was served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Served {
    /// When, ns.
    pub done_ns: u64,
    /// Looks that found another last-level cache than the look before.
    pub llc_changes: u64,
    /// How often the cost became due.
    pub costs: u64,
    /// CPU time that paying took, ns.
    pub cost_cpu_ns: u64,
}

/// What workers came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bursts that arrived before the window.
    pub arrived_before: u64,
    /// Bursts that were done before the window.
    pub done_before: u64,
    /// Bursts that arrived in the window.
    pub arrived: u64,
    /// Bursts that were done in the window, whenever they arrived: from arrival to end. What follows is of these.
    pub response: Histogram,
    /// Changes of the last-level cache.
    pub llc_changes: u64,
    /// Bursts in which a cost became due.
    pub paid_bursts: u64,
    /// Costs that became due.
    pub costs: u64,
    /// CPU time that paying took, ns.
    pub cost_cpu_ns: u64,
}

impl Tally {
    /// A burst arrived, before the end of the window.
    pub fn arrived(&mut self, at_ns: u64, window: Window) {
        if at_ns < window.begin_ns {
            self.arrived_before += 1;
        } else {
            self.arrived += 1;
        }
    }

    /// A burst that arrived then was served before the end of the window.
    pub fn served(&mut self, at_ns: u64, served: &Served, window: Window) {
        if served.done_ns < window.begin_ns {
            self.done_before += 1;
            return;
        }
        self.response.add(served.done_ns.saturating_sub(at_ns));
        self.llc_changes += served.llc_changes;
        self.paid_bursts += u64::from(served.costs > 0);
        self.costs += served.costs;
        self.cost_cpu_ns += served.cost_cpu_ns;
    }

    /// Adds what another worker came to.
    pub fn merge(&mut self, other: &Tally) {
        self.arrived_before += other.arrived_before;
        self.done_before += other.done_before;
        self.arrived += other.arrived;
        self.response.merge(&other.response);
        self.llc_changes += other.llc_changes;
        self.paid_bursts += other.paid_bursts;
        self.costs += other.costs;
        self.cost_cpu_ns += other.cost_cpu_ns;
    }

    /// Bursts that had arrived and were not done when the window began.
    pub fn backlog_before(&self) -> u64 {
        self.arrived_before - self.done_before
    }

    /// Bursts that had arrived and were not done when the window ended.
    pub fn backlog(&self) -> u64 {
        self.backlog_before() + self.arrived - self.response.samples()
    }
}

/// What a group of workers came to. All but the backlogs are of the bursts that were done in the measured time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// How many workers.
    pub workers: usize,
    /// Bursts that were done.
    pub bursts: u64,
    /// The same in a second.
    pub bursts_per_s: f64,
    /// Bursts that arrived in a second.
    pub offered_per_s: f64,
    /// Bursts that had arrived and were not done when measuring began.
    pub backlog_at_begin: u64,
    /// The same at the end. Where it grows by more than a few for each worker, the machine is overloaded, and the
    /// responses say more about how long was measured than about the scheduler.
    pub backlog_at_end: u64,
    /// From a burst's arrival to its end; percentiles within [`Report::relative_error`].
    pub response: Latency,
    /// Changes of the last-level cache that the workers saw.
    pub llc_changes: u64,
    /// Costs that became due.
    pub costs_paid: u64,
    /// Share of the bursts in which one did.
    pub paid_share: f64,
    /// CPU time that paying took, s.
    pub cost_cpu_s: f64,
}

impl Group {
    /// Of so many workers, together, in so many seconds.
    pub fn new(workers: usize, tally: &Tally, seconds: f64) -> Group {
        let bursts = tally.response.samples();
        Group {
            workers,
            bursts,
            bursts_per_s: bursts as f64 / seconds,
            offered_per_s: tally.arrived as f64 / seconds,
            backlog_at_begin: tally.backlog_before(),
            backlog_at_end: tally.backlog(),
            response: Latency::new(&tally.response),
            llc_changes: tally.llc_changes,
            costs_paid: tally.costs,
            paid_share: tally.paid_bursts as f64 / bursts.max(1) as f64,
            cost_cpu_s: tally.cost_cpu_ns as f64 / 1e9,
        }
    }
}

/// What `scx_rl locality` writes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Of scx_rl, with the commit.
    pub version: String,
    /// The running kernel.
    pub kernel: String,
    /// The sched_ext scheduler that was attached at the end; none: the kernel's own.
    pub sched_ext: Option<String>,
    /// CPUs that the workers may use.
    pub cpus: usize,
    /// The CPUs of each group that counts as a last-level cache.
    pub caches: Vec<String>,
    /// The workload.
    pub workload: LocalitySpec,
    /// Share of the CPUs' time that its work takes, without costs.
    pub load: f64,
    /// Mean time between two bursts of a worker, ns.
    pub interval_ns: u64,
    /// Of everything random.
    pub seed: u64,
    /// How fast work is: iterations of the loop in a us.
    pub iterations_per_us: f64,
    /// Was that measured, or was it given?
    pub calibrated: bool,
    /// What was discarded before, s.
    pub warm_up_s: f64,
    /// How long was measured, s.
    pub seconds: f64,
    /// Bound of a percentile's error relative to its value, from 1 us up.
    pub relative_error: f64,
    /// All workers.
    #[serde(flatten)]
    pub all: Group,
    /// Those who have the cost.
    pub costly: Group,
    /// Those who have none.
    pub free: Group,
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { begin_ns: 1_000, end_ns: 11_000 };

    fn tally(bursts: &[(u64, Option<u64>)]) -> Tally {
        let mut tally = Tally::default();
        for &(at_ns, done_ns) in bursts {
            tally.arrived(at_ns, WINDOW);
            if let Some(done_ns) = done_ns {
                let served = Served { done_ns, llc_changes: 2, costs: done_ns % 2, cost_cpu_ns: 10 };
                tally.served(at_ns, &served, WINDOW);
            }
        }
        tally
    }

    #[test]
    fn only_the_window_counts() {
        // Done before; done in the window, from before; within; in it, and paid for; never done.
        let all =
            tally(&[(1, Some(999)), (500, Some(1_000)), (1_000, Some(4_000)), (2_000, Some(9_001)), (9_000, None)]);
        assert_eq!((all.arrived_before, all.done_before, all.arrived), (2, 1, 3));
        assert_eq!((all.response.samples(), all.response.sum_ns), (3, 500 + 3_000 + 7_001));
        assert_eq!((all.backlog_before(), all.backlog()), (1, 1));
        assert_eq!((all.llc_changes, all.costs, all.paid_bursts, all.cost_cpu_ns), (6, 1, 1, 30));
    }

    #[test]
    fn groups_add_up() {
        let mut sum = tally(&[(1, None), (2_000, Some(3_001))]);
        sum.merge(&tally(&[(500, Some(2_000)), (4_000, Some(5_000)), (6_000, None)]));
        let group = Group::new(2, &sum, 0.5);
        assert_eq!((group.bursts, group.bursts_per_s, group.offered_per_s), (3, 6.0, 6.0));
        assert_eq!((group.backlog_at_begin, group.backlog_at_end), (2, 2));
        assert_eq!((group.llc_changes, group.costs_paid, group.response.samples), (6, 1, 3));
        assert!((group.paid_share - 1.0 / 3.0).abs() < 1e-12 && (group.cost_cpu_s - 30e-9).abs() < 1e-15);
        let nothing = Group::new(0, &Tally::default(), 1.0);
        assert_eq!((nothing.paid_share, nothing.bursts_per_s, nothing.response.p99_us), (0.0, 0.0, 0.0));
    }
}
