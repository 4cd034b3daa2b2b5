// SPDX-License-Identifier: GPL-2.0-only
//! The locality workload: workers with bursts of work, who pay a stated cost when they run in another last-level cache
//! than before. It is described here once, for a real kernel ([`crate::locality`]) and for the simulator
//! ([`Workload::locality`]), so that the two can be compared on it.
//!
//! The rules, in both:
//!
//! 1. A worker's bursts arrive at exponential intervals, whatever the scheduler does (an open loop). It serves them one
//!    by one, in their order, and sleeps when there is none. The response of a burst is the time from its arrival to
//!    its end.
//! 2. A worker who has the cost pays it, as work that comes before what is left of the burst, each time that it runs in
//!    another last-level cache than it last ran in; and, if forgetting is on, when it comes back to a CPU after at
//!    least so long. Its first run costs nothing. One that is moved while it pays owes the whole cost once more.
//! 3. Hogs never sleep, have no data, and pay nothing.
//!
//! What differs: a real worker looks where it is before a burst and after each 50 us of work, so it pays up to 50 us
//! late, and does not see that it was moved and moved back in between. A simulated one pays where it is put on a CPU.
//! Simulated wakeups come from a random CPU, a kernel's timers fire where the worker went to sleep. The two draw from
//! the same distributions, but not the same numbers. A cost in KiB is really read in a kernel; in the simulator it is a
//! working set, whose cost follows from [`super::machine::Costs`], forgetting included.

use serde::Serialize;

use super::machine::MoveCost;
use super::workload::{Distribution, Role, Source, TaskSpec, Workload};

/// What a worker pays when its data is elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cost {
    /// Work of so many ns.
    Ns(u64),
    /// It reads so many KiB of its own again.
    Kib(u64),
}

/// The workload.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LocalitySpec {
    /// How many workers.
    pub workers: usize,
    /// Mean work of a burst, ns on a CPU that does nothing else.
    pub burst_ns: u64,
    /// How the work varies around that.
    pub distribution: Distribution,
    /// How much work arrives: it would keep so many CPUs busy (the load times the CPUs). Costs come on top.
    pub busy_cpus: f64,
    /// What those workers pay who have a cost.
    pub cost: Cost,
    /// Share of the workers who have it, 0 to 1.
    pub costly: f64,
    /// A worker who was away from CPUs for so long pays wherever it runs, ns; none: time does not matter.
    pub forget_ns: Option<u64>,
    /// Tasks that never sleep, besides.
    pub hogs: usize,
}

impl LocalitySpec {
    /// Mean time between two bursts of a worker, ns; at least 1.
    pub fn interval_ns(&self) -> u64 {
        ((self.burst_ns as f64 * self.workers as f64 / self.busy_cpus.max(1e-9)) as u64).max(1)
    }

    /// The cost of a worker, by its number from 0; none if it has none. Those who have it are spread evenly.
    pub fn cost_of(&self, worker: usize) -> Option<Cost> {
        let costly_below = |workers: usize| (workers as f64 * self.costly).round() as usize;
        (costly_below(worker + 1) > costly_below(worker)).then_some(self.cost)
    }

    /// The name of a worker's task.
    pub fn name_of(&self, worker: usize) -> String {
        format!("{}-{worker}", if self.cost_of(worker).is_some() { "costly" } else { "free" })
    }
}

impl Workload {
    /// The locality workload. Workers are tasks 0, 1, ... in their order, then come the hogs.
    pub fn locality(spec: &LocalitySpec) -> Self {
        let mut workload = Self { inboxes: spec.workers, ..Self::default() };
        for inbox in 0..spec.workers {
            let (move_cost, working_set_kib) = match spec.cost_of(inbox) {
                None => (None, 0),
                Some(Cost::Ns(ns)) => (Some(MoveCost { ns, forget_ns: spec.forget_ns }), 0),
                Some(Cost::Kib(kib)) => (None, kib),
            };
            workload.tasks.push(TaskSpec {
                name: spec.name_of(inbox),
                working_set_kib,
                move_cost,
                work: spec.distribution,
                role: Role::Serve { inbox, work_ns: spec.burst_ns, next: None },
                ..TaskSpec::default()
            });
            workload.sources.push(Source { inbox, interval_ns: spec.interval_ns() });
        }
        workload.hogs(spec.hogs, 100, 0);
        workload
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::Shape;
    use super::super::{Balancer, Sim, SimConfig, TaskStats};
    use super::*;

    const MS: u64 = 1_000_000;

    /// Half of the workers pay 300 us, four CPUs of 8 are kept busy by the work alone.
    fn spec() -> LocalitySpec {
        LocalitySpec {
            workers: 32,
            burst_ns: MS,
            distribution: Distribution::Fixed,
            busy_cpus: 4.0,
            cost: Cost::Ns(300_000),
            costly: 0.5,
            forget_ns: None,
            hogs: 0,
        }
    }

    /// What each worker got in two simulated seconds on 8 CPUs in 4 caches, and the bursts that were done.
    fn outcome(spec: &LocalitySpec, balancer: Balancer) -> (Vec<TaskStats>, u64) {
        let config = SimConfig::new(Shape { cpus: 8, llcs: 4, nodes: 1, threads: 1 }, 1);
        let mut sim = Sim::new(&config, Workload::locality(spec), &balancer.publication()).unwrap();
        sim.run_for(2_000 * MS).unwrap();
        let stats = (0..spec.workers).map(|task| sim.task_stats(task).unwrap()).collect();
        (stats, sim.totals().response.samples())
    }

    #[test]
    fn the_cost_is_that_of_the_share_of_workers() {
        for (costly, expected) in [(0.0, 0), (0.25, 8), (0.5, 16), (0.99, 32), (1.0, 32)] {
            let spec = LocalitySpec { costly, ..spec() };
            let have = (0..spec.workers).filter(|&worker| spec.cost_of(worker).is_some()).count();
            assert_eq!(have, expected, "{costly} of 32");
        }
        let first: Vec<_> = (0..6).map(|worker| spec().name_of(worker)).collect();
        assert_eq!(first, ["costly-0", "free-1", "costly-2", "free-3", "costly-4", "free-5"]);
    }

    #[test]
    fn every_worker_has_its_own_bursts_and_all_together_the_load() {
        let spec = LocalitySpec { hogs: 2, ..spec() };
        assert_eq!(spec.interval_ns(), 8 * MS, "32 workers of 1 ms, four busy CPUs");
        let workload = Workload::locality(&spec);
        workload.check(8).unwrap();
        assert_eq!((workload.tasks.len(), workload.sources.len(), workload.inboxes), (34, 32, 32));
        for (worker, (task, source)) in workload.tasks.iter().zip(&workload.sources).enumerate() {
            assert_eq!(task.role, Role::Serve { inbox: worker, work_ns: MS, next: None });
            assert_eq!((source.inbox, source.interval_ns), (worker, 8 * MS));
            assert_eq!(task.move_cost.is_some(), worker % 2 == 0);
        }
        let in_kib = Workload::locality(&LocalitySpec { cost: Cost::Kib(512), ..spec });
        assert_eq!((in_kib.tasks[0].working_set_kib, in_kib.tasks[0].move_cost), (512, None));
        assert_eq!(in_kib.tasks[1].working_set_kib, 0);
    }

    #[test]
    fn a_worker_pays_exactly_the_cost_for_each_move() {
        let (stats, bursts) = outcome(&spec(), Balancer::Greedy);
        for (worker, got) in stats.iter().enumerate() {
            let expected_ns = if worker % 2 == 0 { got.moves * 300_000 } else { 0 };
            assert_eq!(got.refill_ns, expected_ns, "worker {worker}: {got:?}");
        }
        let moves = |parity: usize| stats.iter().skip(parity).step_by(2).map(|got| got.moves).sum::<u64>();
        assert!(moves(0) > 20 && moves(1) > 20, "the moves must matter: {} {}", moves(0), moves(1));
        // Four CPUs' worth of bursts of 1 ms in 2 s
        assert!((7_200..8_800).contains(&bursts), "{bursts} bursts");
    }

    #[test]
    fn who_forgets_pays_without_moves_too() {
        let (stats, _) = outcome(&LocalitySpec { forget_ns: Some(10 * MS), ..spec() }, Balancer::Stay);
        let (runs, moves, refill_ns) = stats.iter().step_by(2).fold((0, 0, 0), |(runs, moves, refill_ns), got| {
            (runs + got.runs, moves + got.moves, refill_ns + got.refill_ns)
        });
        assert_eq!(refill_ns % 300_000, 0, "all of it or nothing");
        let paid = refill_ns / 300_000;
        // Intervals are 8 ms on the mean, so of exponential ones more than a fifth leave it asleep for 10 ms.
        assert!(paid > moves + runs / 8 && paid < runs, "{paid} costs in {runs} runs with {moves} moves");
    }
}
