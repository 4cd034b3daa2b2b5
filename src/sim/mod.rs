// SPDX-License-Identifier: GPL-2.0-only
//! A deterministic discrete-event simulator that runs the scheduler itself: `src/bpf/main.bpf.c` with its headers,
//! compiled for the host, on a simulated kernel and machine. It has no clock: the same seed gives the same events.
//!
//! From the bottom up:
//!
//! - `shim/` (C) takes the place of BPF's headers and helpers; `sim.c` compiles the scheduler with it
//! - `ffi`: the border; the lock that keeps a process to one simulated scheduler at a time, since the C has file-scope
//!   variables; all of them are reset when one is loaded
//! - `kernel`, `dsq`, `idle`: the state of the simulated kernel; `kfuncs`: what the scheduler calls
//! - `ext`: when the kernel calls the scheduler, after kernel/sched/ext.c
//! - [`machine`]: topology, costs, warm caches; [`workload`]: what tasks do; [`locality`]: the workload that a real
//!   kernel can run, too
//! - [`Sim`] (`engine`, `queue`, `work`): time
//! - [`report`], `trace`, [`command`]: what it tells, and `scx_rl sim`
//! - [`regime`], [`contender`], [`trial`], [`ablation`]: balancers, fixed and learned, against each other, under loads
//!   that differ in what a move costs
//! - [`adapt`]: how long a learner takes to find its way
//! - [`rival`]: how other schedulers choose between domains, for comparison
//!
//! - [`faults`]: what goes wrong on purpose
//!
//! What is left out: other scheduling classes (but that they take CPUs away, as a fault), cgroups, CPU hotplug, bypass mode, the time
//! that the scheduler's own code takes, contention for locks, and that two CPUs do something at the same time: an
//! operation of the scheduler is never interrupted, and sees the effects of all that began before.

pub mod ablation;
pub mod adapt;
pub mod command;
pub mod contender;
mod dsq;
mod engine;
mod ext;
pub mod faults;
mod ffi;
mod idle;
mod kernel;
mod kfuncs;
pub mod locality;
pub mod machine;
mod queue;
pub mod regime;
pub mod report;
pub mod rival;
pub(crate) mod rng;
#[cfg(test)]
mod tests;
pub mod trial;
mod work;
pub mod workload;
pub mod wreck;

use thiserror::Error;

pub use engine::Sim;
pub use rival::Rival;
pub use work::TaskStats;

use crate::kernel::SchedulerConfig;
use crate::kernel::slots::Publication;
use crate::policy::{RL_MODE_GREEDY, RL_MODE_RANDOM, rl_weights};

/// What is simulated, but for the workload.
#[derive(Debug, Clone)]
pub struct SimConfig {
    /// The machine.
    pub shape: machine::Shape,
    /// What things cost on it.
    pub costs: machine::Costs,
    /// The scheduler's settings.
    pub scheduler: SchedulerConfig,
    /// Seed of everything random.
    pub seed: u64,
    /// A task that waits longer than this starves, ns.
    pub starve_ns: u64,
    /// Decision events that are kept until somebody takes them; more are lost.
    pub events_max: usize,
    /// What goes wrong.
    pub faults: faults::Faults,
    /// Who chooses between domains in the place of the policy, if anybody does.
    pub rival: Rival,
}

impl SimConfig {
    /// A machine of this shape, the scheduler with its default settings.
    pub fn new(shape: machine::Shape, seed: u64) -> Self {
        Self {
            shape,
            costs: machine::Costs::default(),
            scheduler: SchedulerConfig::DEFAULT,
            seed,
            starve_ns: 5_000_000_000,
            events_max: 8_000,
            faults: faults::Faults::default(),
            rival: Rival::None,
        }
    }
}

/// Why a simulation cannot go on. The seed repeats it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SimError {
    /// A task got no CPU.
    #[error("{task} starves: it waits since {waited_ns} ns, {at_ns} ns after the start; seed {seed}")]
    Starved {
        /// Its name.
        task: String,
        /// Its wait so far, ns.
        waited_ns: u64,
        /// Simulated time, ns.
        at_ns: u64,
        /// The seed.
        seed: u64,
    },
    /// Events come without end at one time.
    #[error("the machine makes no progress, {at_ns} ns after the start; seed {seed}")]
    Stalled {
        /// Simulated time, ns.
        at_ns: u64,
        /// The seed.
        seed: u64,
    },
    /// A task was put on a CPU that it may not use.
    #[error("{task} was put on CPU {cpu}, which it may not use, {at_ns} ns after the start; seed {seed}")]
    Affinity {
        /// Its name.
        task: String,
        /// The CPU.
        cpu: usize,
        /// Simulated time, ns.
        at_ns: u64,
        /// The seed.
        seed: u64,
    },
    /// The scheduler did what the kernel ends schedulers for, or said itself that it cannot go on.
    #[error("the scheduler fails: {message}, {at_ns} ns after the start; seed {seed}")]
    Scheduler {
        /// What happened.
        message: String,
        /// Simulated time, ns.
        at_ns: u64,
        /// The seed.
        seed: u64,
    },
}

/// A fixed balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Balancer {
    /// The fixed rule: where a CPU is idle, or the queue is shorter by a task per CPU.
    Heuristic,
    /// A fair coin.
    Random,
    /// Never.
    Stay,
    /// Always.
    Greedy,
}

impl Balancer {
    /// What to publish for it. The constant ones are networks that do not look at their features.
    pub fn publication(self) -> Publication {
        let constant = |b2| Publication {
            mode: RL_MODE_GREEDY,
            weights: rl_weights { b2, ..rl_weights::default() },
            ..Publication::default()
        };
        match self {
            Balancer::Heuristic => Publication::default(),
            Balancer::Random => Publication { mode: RL_MODE_RANDOM, ..Publication::default() },
            Balancer::Stay => constant(-(1 << 20)),
            Balancer::Greedy => constant(1 << 20),
        }
    }
}
