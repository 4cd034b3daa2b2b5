// SPDX-License-Identifier: GPL-2.0-only
//! What tasks and CPUs do between two events: work, and what it costs to get at it.

use super::machine::{Machine, Warmth};
use super::workload::TaskSpec;

/// Full speed. Work is counted in 256ths of what a CPU does in a nanosecond at full speed: so nothing is rounded when a
/// CPU's speed changes, and it does not matter how often one looks.
pub const FULL_Q8: u64 = 256;
/// The work of a task that never sleeps.
pub const ENDLESS: u64 = u64::MAX;

/// What a task does when its work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// What its role says.
    Finish,
    /// It has done that, has paid for the wakeups it made, and looks whether it sleeps.
    Rest,
}

/// A task, as time sees it.
pub struct Task {
    /// What it is.
    pub spec: TaskSpec,
    /// Costs that come before its work, 256ths of a ns at full speed.
    overhead_q8: u64,
    /// Work until it does something else, likewise.
    work_q8: u64,
    /// Work done, likewise.
    done_q8: u64,
    /// What comes after that.
    pub then: Then,
    /// When the request that it works on came into the machine, ns.
    pub request_at_ns: Option<u64>,
    /// It has never been woken.
    pub new: bool,
    /// Where its data is.
    pub warmth: Warmth,
    stats: TaskStats,
}

/// What a task got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskStats {
    /// Time on CPUs, ns.
    pub service_ns: u64,
    /// Work done, ns at full speed.
    pub work_ns: u64,
    /// Time that it waited for a CPU, ns.
    pub wait_ns: u64,
    /// The longest such wait, ns.
    pub wait_max_ns: u64,
    /// Times that it was put on a CPU.
    pub runs: u64,
    /// Those in another last-level cache than the time before.
    pub moves: u64,
    /// Time to fill caches, ns at full speed.
    pub refill_ns: u64,
}

impl Task {
    /// A task that is about to begin.
    pub fn new(spec: TaskSpec) -> Self {
        Self {
            spec,
            overhead_q8: 0,
            work_q8: 0,
            done_q8: 0,
            then: Then::Finish,
            request_at_ns: None,
            new: true,
            warmth: Warmth::default(),
            stats: TaskStats::default(),
        }
    }

    /// What it got so far.
    pub fn stats(&self) -> TaskStats {
        TaskStats { work_ns: self.done_q8 / FULL_Q8, ..self.stats }
    }

    /// Its next work takes this long at full speed, ns; [`ENDLESS`]: for ever.
    pub fn set_work(&mut self, work_ns: u64) {
        self.work_q8 = if work_ns == ENDLESS { ENDLESS } else { work_ns * FULL_Q8 };
    }

    /// Before it goes on with its work, it does something that takes this long at full speed, ns.
    pub fn charge(&mut self, cost_ns: u64) {
        self.overhead_q8 += cost_ns * FULL_Q8;
    }

    /// Has it paid all that was charged?
    pub fn has_paid(&self) -> bool {
        self.overhead_q8 == 0
    }

    /// It was on a CPU of this speed for this long, ns.
    pub fn progress(&mut self, elapsed_ns: u64, speed_q8: u64) {
        let done_q8 = elapsed_ns * speed_q8;
        let overhead_q8 = done_q8.min(self.overhead_q8);
        self.overhead_q8 -= overhead_q8;
        if self.work_q8 != ENDLESS {
            self.work_q8 = self.work_q8.saturating_sub(done_q8 - overhead_q8);
        }
        self.done_q8 += done_q8 - overhead_q8;
        self.stats.service_ns += elapsed_ns;
    }

    /// How long its work takes on a CPU of this speed, ns; none: for ever.
    pub fn needs_ns(&self, speed_q8: u64) -> Option<u64> {
        (self.work_q8 != ENDLESS).then(|| (self.overhead_q8 + self.work_q8).div_ceil(speed_q8.max(1)))
    }

    /// What it takes to get at its data because it is now put on a CPU, ns at full speed.
    pub fn refill_ns(&self, machine: &Machine, cpu: usize, now_ns: u64) -> u64 {
        match self.spec.move_cost {
            Some(cost) => self.warmth.stated_ns(machine, cpu, cost, now_ns),
            None => self.warmth.refill_ns(machine, cpu, self.spec.working_set_kib, now_ns),
        }
    }

    /// It was put on a CPU.
    pub fn count_run(&mut self, waited_ns: u64, moved: bool, refill_ns: u64) {
        self.stats.runs += 1;
        self.stats.moves += u64::from(moved);
        self.stats.refill_ns += refill_ns;
        self.stats.wait_ns += waited_ns;
        self.stats.wait_max_ns = self.stats.wait_max_ns.max(waited_ns);
    }
}

/// A CPU, as time sees it.
pub struct Cpu {
    /// What runs.
    pub curr: Option<usize>,
    /// What it does is accounted up to here, ns.
    pub since_ns: u64,
    /// How fast it is now.
    pub speed_q8: u64,
    /// Counts plans; an event of an older one is void.
    pub plan: u32,
    /// It will schedule then, ns.
    pub resched_at_ns: Option<u64>,
    /// Its next tick is planned.
    pub ticking: bool,
    /// Its ticks come this long after multiples of their period, ns.
    pub tick_phase_ns: u64,
}

impl Cpu {
    /// An idle one.
    pub fn new(now_ns: u64, tick_phase_ns: u64) -> Self {
        Self {
            curr: None,
            since_ns: now_ns,
            speed_q8: FULL_Q8,
            plan: 0,
            resched_at_ns: None,
            ticking: false,
            tick_phase_ns,
        }
    }
}
