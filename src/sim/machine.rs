// SPDX-License-Identifier: GPL-2.0-only
//! The simulated machine: where its CPUs are, what things cost on it, and how warm a task's caches are.

use std::str::FromStr;

use anyhow::{Error, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

use crate::kernel::domains::{CpuPlace, DomainSpec, Domains, group_by};
use crate::policy::{RL_MAX_CPUS, RL_MAX_DOMAINS};

/// Most NUMA nodes.
pub const NODES_MAX: usize = 8;
/// A task's data may be warm in that many last-level caches.
const WARM_LLCS: usize = 4;
/// No single thing costs more than this, ns.
const COST_MAX_NS: u64 = 100_000_000;
/// Caches do not stay warm for longer than this, ns.
const HALF_MAX_NS: u64 = 1_000_000_000_000;
/// 1 in the fixed point of shares.
const ONE_Q16: u64 = 1 << 16;

/// A regular machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// CPUs (hardware threads).
    pub cpus: usize,
    /// Last-level caches, each with equally many CPUs.
    pub llcs: usize,
    /// NUMA nodes, each with equally many caches.
    pub nodes: usize,
    /// CPUs of a core: 1, or 2 with SMT.
    pub threads: usize,
}

impl Shape {
    /// Where each CPU is. The CPUs of a core, of a cache and of a node have consecutive numbers.
    ///
    /// # Errors
    /// The numbers do not divide each other, or are beyond the limits: 1,024 CPUs, 64 caches, 8 nodes.
    pub fn places(&self) -> Result<Vec<CpuPlace>> {
        let Self { cpus, llcs, nodes, threads } = *self;
        ensure!((1..=RL_MAX_CPUS as usize).contains(&cpus), "{cpus} CPUs: 1 to {RL_MAX_CPUS} are possible");
        ensure!((1..=RL_MAX_DOMAINS as usize).contains(&llcs), "{llcs} LLCs: 1 to {RL_MAX_DOMAINS} are possible");
        ensure!((1..=NODES_MAX).contains(&nodes), "{nodes} NUMA nodes: 1 to {NODES_MAX} are possible");
        ensure!((1..=2).contains(&threads), "{threads} threads for each core: 1 or 2 are possible");
        ensure!(llcs % nodes == 0, "{llcs} LLCs cannot be shared evenly by {nodes} NUMA nodes");
        ensure!(cpus % (llcs * threads) == 0, "{cpus} CPUs cannot be shared evenly by {llcs} LLCs with whole cores");
        let (per_llc, per_node) = (cpus / llcs, cpus / nodes);
        let place =
            |cpu| CpuPlace { cpu, core: cpu / threads, l2: cpu / threads, llc: cpu / per_llc, node: cpu / per_node };
        Ok((0..cpus).map(place).collect())
    }
}

/// What things cost. Where nothing else is said, of the size that they have on server CPUs of the 2020s.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Costs {
    /// From one task to another, ns.
    pub switch_ns: u64,
    /// To wake a task, paid by who wakes, ns.
    pub wakeup_ns: u64,
    /// Until an interrupt from another CPU arrives, ns.
    pub ipi_ns: u64,
    /// Until an idle CPU executes again, ns.
    pub idle_exit_ns: u64,
    /// To take a task from another last-level cache's queue: locks and lists whose lines are there, ns.
    pub take_ns: u64,
    /// Between two timer ticks of a CPU, ns.
    pub tick_ns: u64,
    /// Ticks of different CPUs are apart by at most this, ns.
    pub tick_skew_ns: u64,
    /// How fast a CPU is while its core's other one is busy, of 256.
    pub smt_q8: u64,
    /// Capacity of a core's own caches, KiB.
    pub l2_kib: u64,
    /// To bring a KiB into the core's own caches from the last-level cache, ns.
    pub l2_refill_ns: u64,
    /// To bring a KiB into the last-level cache: from memory, ns.
    pub memory_ns: u64,
    /// From another last-level cache of the node, ns.
    pub llc_refill_ns: u64,
    /// From another node, ns.
    pub numa_refill_ns: u64,
    /// After this long, others have pushed half of a task's data out of a core's caches, ns.
    pub l2_half_ns: u64,
    /// The same for the last-level cache, ns.
    pub llc_half_ns: u64,
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            switch_ns: 1_200,
            wakeup_ns: 800,
            ipi_ns: 700,
            idle_exit_ns: 2_500,
            take_ns: 1_600,
            tick_ns: 4_000_000,
            tick_skew_ns: 20_000,
            smt_q8: 160,
            l2_kib: 1024,
            l2_refill_ns: 25,
            memory_ns: 90,
            llc_refill_ns: 150,
            numa_refill_ns: 300,
            l2_half_ns: 2_000_000,
            llc_half_ns: 50_000_000,
        }
    }
}

impl FromStr for Costs {
    type Err = Error;

    /// Read JSON; what it does not name keeps its default. It is an error if it is not JSON of known fields, or a machine
    /// cannot have such costs.
    fn from_str(json: &str) -> Result<Self> {
        let costs: Self = serde_json::from_str(json).map_err(|e| {
            let example = Self::default().switch_ns;
            anyhow!("the costs are not valid JSON of known fields such as {{\"switch_ns\": {example}}}: {e}")
        })?;
        for (name, value, least, most) in [
            ("switch_ns", costs.switch_ns, 0, COST_MAX_NS),
            ("wakeup_ns", costs.wakeup_ns, 0, COST_MAX_NS),
            ("ipi_ns", costs.ipi_ns, 0, COST_MAX_NS),
            ("idle_exit_ns", costs.idle_exit_ns, 0, COST_MAX_NS),
            ("take_ns", costs.take_ns, 0, COST_MAX_NS),
            ("tick_ns", costs.tick_ns, 100_000, COST_MAX_NS),
            ("tick_skew_ns", costs.tick_skew_ns, 0, costs.tick_ns),
            ("smt_q8", costs.smt_q8, 1, 256),
            ("l2_kib", costs.l2_kib, 1, 1 << 20),
            ("l2_refill_ns", costs.l2_refill_ns, 0, COST_MAX_NS),
            ("memory_ns", costs.memory_ns, 0, COST_MAX_NS),
            ("llc_refill_ns", costs.llc_refill_ns, 0, COST_MAX_NS),
            ("numa_refill_ns", costs.numa_refill_ns, 0, COST_MAX_NS),
            ("l2_half_ns", costs.l2_half_ns, 1, HALF_MAX_NS),
            ("llc_half_ns", costs.llc_half_ns, 1, HALF_MAX_NS),
        ] {
            ensure!((least..=most).contains(&value), "cost {name} = {value}: choose {least} to {most}");
        }
        Ok(costs)
    }
}

/// What a task pays when its data is not where it runs, stated instead of derived from a working set and [`Costs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveCost {
    /// Each time that it runs in another last-level cache than the time before, ns at full speed.
    pub ns: u64,
    /// And, wherever it runs, when it comes back to a CPU after so long, ns: others have pushed its data out by then.
    /// None: they never do.
    pub forget_ns: Option<u64>,
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Where each CPU is.
    pub places: Vec<CpuPlace>,
    /// The CPUs of each CPU's core, itself included.
    pub siblings: Vec<Vec<usize>>,
    /// What things cost.
    pub costs: Costs,
}

impl Machine {
    /// A machine with CPUs at these places, whose numbers are 0, 1, 2, ...
    ///
    /// # Errors
    /// The numbers are others.
    pub fn new(places: Vec<CpuPlace>, costs: Costs) -> Result<Self> {
        for (i, place) in places.iter().enumerate() {
            ensure!(place.cpu == i, "the place of CPU {i} is missing");
        }
        let mut siblings = vec![Vec::new(); places.len()];
        for core in group_by(&places, |p| p.core) {
            core.iter().for_each(|&cpu| siblings[cpu].clone_from(&core));
        }
        Ok(Self { places, siblings, costs })
    }

    /// The scheduling domains: one for each last-level cache.
    ///
    /// # Errors
    /// More than the scheduler can have.
    pub fn domains(&self) -> Result<Domains> {
        Domains::from_groups(&DomainSpec::Llc, &self.places, group_by(&self.places, |p| (p.node, p.llc)))
    }
}

/// What of a task's data is cold after a time in which half of it goes, as a share in 2^-16. Not an exponential: a
/// function of integers, the same on every machine.
fn cold_q16(away_ns: u64, half_ns: u64) -> u64 {
    (u128::from(away_ns) * u128::from(ONE_Q16) / (u128::from(away_ns) + u128::from(half_ns.max(1)))) as u64
}

/// Where a task's data is.
#[derive(Debug, Clone, Default)]
pub struct Warmth {
    /// Where it ran last, and when it left, ns.
    last: Option<(usize, u64)>,
    /// Last-level caches where it ran, and when it last left them, ns; the latest last.
    llcs: Vec<(usize, u64)>,
}

impl Warmth {
    /// The last-level cache in which the task ran last; none before its first run.
    pub fn llc(&self, machine: &Machine) -> Option<usize> {
        self.last.map(|(cpu, _)| machine.places[cpu].llc)
    }

    /// The task leaves a CPU.
    pub fn left(&mut self, machine: &Machine, cpu: usize, now_ns: u64) {
        let llc = machine.places[cpu].llc;
        self.last = Some((cpu, now_ns));
        self.llcs.retain(|(l, _)| *l != llc);
        if self.llcs.len() == WARM_LLCS {
            self.llcs.remove(0);
        }
        self.llcs.push((llc, now_ns));
    }

    /// What a task with a stated cost pays because it now runs on a CPU, ns: all of it or nothing. Nothing when it runs
    /// for the first time.
    pub fn stated_ns(&self, machine: &Machine, cpu: usize, cost: MoveCost, now_ns: u64) -> u64 {
        let Some((last_cpu, left_ns)) = self.last else { return 0 };
        let moved = machine.places[cpu].llc != machine.places[last_cpu].llc;
        let forgotten = cost.forget_ns.is_some_and(|after_ns| now_ns - left_ns >= after_ns);
        if moved || forgotten { cost.ns } else { 0 }
    }

    /// How much longer a task with a working set takes because it now runs on a CPU, ns. Nothing when it runs for the
    /// first time: its data is new wherever it is.
    pub fn refill_ns(&self, machine: &Machine, cpu: usize, working_set_kib: u64, now_ns: u64) -> u64 {
        let Some((last_cpu, left_ns)) = self.last else { return 0 };
        let (costs, here, there) = (&machine.costs, &machine.places[cpu], &machine.places[last_cpu]);
        let per_kib_ns = if here.llc == there.llc {
            costs.memory_ns
        } else if here.node == there.node {
            costs.llc_refill_ns
        } else {
            costs.numa_refill_ns
        };
        let visit = self.llcs.iter().find(|(llc, _)| *llc == here.llc);
        let cold_llc = visit.map_or(ONE_Q16, |(_, at)| cold_q16(now_ns - at, costs.llc_half_ns));
        let cold_l2 = if here.l2 == there.l2 { cold_q16(now_ns - left_ns, costs.l2_half_ns) } else { ONE_Q16 };
        let far = working_set_kib * per_kib_ns * cold_llc;
        let near = working_set_kib.min(costs.l2_kib) * costs.l2_refill_ns * cold_l2;
        (far + near) >> 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_read_and_have_limits() {
        let costs = r#"{"switch_ns": 30000, "idle_exit_ns": 90000}"#.parse::<Costs>().unwrap();
        assert_eq!(costs, Costs { switch_ns: 30_000, idle_exit_ns: 90_000, ..Costs::default() });
        assert_eq!("{}".parse::<Costs>().unwrap(), Costs::default());
        for (bad, why) in [
            (r#"{"swich_ns": 1}"#, "known fields"),
            (r#"{"switch_ns": -1}"#, "known fields"),
            (r#"{"switch_ns": 100000001}"#, "switch_ns = 100000001: choose 0 to 100000000"),
            (r#"{"tick_ns": 0}"#, "tick_ns = 0: choose 100000"),
            (r#"{"tick_skew_ns": 4000001}"#, "tick_skew_ns"),
            (r#"{"l2_half_ns": 0}"#, "l2_half_ns"),
            ("switch_ns=1", "not valid JSON"),
        ] {
            let error = format!("{:#}", bad.parse::<Costs>().unwrap_err());
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn shapes_have_limits() {
        let shape = |cpus, llcs, nodes, threads| Shape { cpus, llcs, nodes, threads };
        assert_eq!(shape(1024, 64, 8, 2).places().unwrap().len(), 1024);
        for (bad, why) in [
            (shape(1025, 1, 1, 1), "1 to 1024"),
            (shape(8, 65, 1, 1), "1 to 64"),
            (shape(16, 16, 16, 1), "1 to 8"),
            (shape(8, 3, 1, 1), "3 LLCs"),
            (shape(8, 4, 3, 1), "NUMA"),
            (shape(4, 4, 1, 2), "whole cores"),
            (shape(4, 1, 1, 4), "1 or 2"),
        ] {
            let error = bad.places().unwrap_err().to_string();
            assert!(error.contains(why), "{bad:?}: {error}");
        }
    }

    #[test]
    fn refills_grow_with_distance_time_and_working_set() {
        let places = Shape { cpus: 16, llcs: 4, nodes: 2, threads: 2 }.places().unwrap();
        let machine = Machine::new(places, Costs::default()).unwrap();
        let mut warmth = Warmth::default();
        assert_eq!(warmth.refill_ns(&machine, 3, 1000, 5), 0, "first run");
        warmth.left(&machine, 0, 1_000_000);
        let at = |cpu, kib, ms: u64| warmth.refill_ns(&machine, cpu, kib, ms * 1_000_000);
        assert_eq!(at(0, 256, 1), 0, "back at once");
        let by_distance: Vec<_> = [1, 2, 4, 8].map(|cpu| at(cpu, 256, 2)).into();
        assert!(by_distance.is_sorted_by(|a, b| a < b), "{by_distance:?}");
        assert!(at(0, 256, 2) < at(0, 256, 20) && at(0, 256, 20) < at(0, 256, 2000), "time away");
        assert!(at(8, 256, 2) < at(8, 4096, 2), "working set");
        // About 256 KiB * (150 + 25) ns when only the cache changes.
        assert_eq!(at(4, 256, 2), 256 * 175);
        let mut back = warmth.clone();
        back.left(&machine, 4, 1_200_000);
        assert!(back.refill_ns(&machine, 0, 256, 1_300_000) < at(4, 256, 2), "the old cache still has it");
    }

    #[test]
    fn a_stated_cost_is_paid_in_full_or_not_at_all() {
        let places = Shape { cpus: 16, llcs: 4, nodes: 2, threads: 2 }.places().unwrap();
        let machine = Machine::new(places, Costs::default()).unwrap();
        let mut warmth = Warmth::default();
        let never = MoveCost { ns: 777, forget_ns: None };
        let soon = MoveCost { forget_ns: Some(5_000), ..never };
        assert_eq!(warmth.stated_ns(&machine, 9, soon, 1 << 40), 0, "first run");
        warmth.left(&machine, 0, 1_000_000);
        // CPUs 0 to 3 share a cache; neither distance nor time matter beside that.
        let paid = [0, 3, 4, 8, 15].map(|cpu| warmth.stated_ns(&machine, cpu, never, 1 << 40));
        assert_eq!(paid, [0, 0, 777, 777, 777]);
        let paid = [0, 4_999, 5_000].map(|away_ns| warmth.stated_ns(&machine, 1, soon, 1_000_000 + away_ns));
        assert_eq!(paid, [0, 0, 777], "in the same cache, but forgotten");
        warmth.left(&machine, 4, 2_000_000);
        assert_eq!(warmth.stated_ns(&machine, 0, never, 2_000_001), 777, "the cache before the last is another one");
    }
}
