// SPDX-License-Identifier: GPL-2.0-only
//! The subcommand `sim`.

use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};

use super::faults::Faults;
use super::machine::{Costs, Shape};
use super::report::{Summary, Times, decisions, share};
use super::workload::Workload;
use super::{Balancer, Sim, SimConfig};
use crate::agent::recording::{Header, Recorder};
use crate::agent::{Agent, Environment, Hyper};
use crate::process::{print, resident_bytes};

/// Events are taken that often, simulated ns, so that none are lost.
const POLL_NS: u64 = 10_000_000;
/// A CPU that is lost is lost for this long, on the mean, ns.
const LOST_NS: u64 = 10_000_000;

/// Run the scheduler on a simulated machine, and print what came of it as JSON.
///
/// It is the scheduler's own C, compiled for this machine, on a simulated kernel: no root, no sched_ext, no VM. The
/// workload is a mixture of servers, pipelines, and tasks that run and sleep. The same options give the same events,
/// which the hash shows. That a task starves, or the scheduler does what a kernel would end it for, is an error.
#[derive(Clone, Debug, clap::Args)]
pub struct SimArgs {
    /// CPUs, at most 1024.
    #[arg(long, default_value_t = 16)]
    pub cpus: usize,

    /// Last-level caches, at most 64; each is a domain.
    #[arg(long, default_value_t = 4)]
    pub llcs: usize,

    /// NUMA nodes, at most 8.
    #[arg(long, default_value_t = 1)]
    pub nodes: usize,

    /// Two CPUs share a core.
    #[arg(long)]
    pub smt: bool,

    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Simulated time, seconds.
    #[arg(long, value_name = "SEC", default_value_t = 5.0)]
    pub seconds: f64,

    /// Which balancer decides.
    #[arg(long, value_enum, default_value = "heuristic")]
    pub balancer: Balancer,

    /// How busy the CPUs are, from the work that the tasks have; costs come on top.
    #[arg(long, value_name = "SHARE", default_value_t = 0.8)]
    pub load: f64,

    /// Tasks that never sleep, besides.
    #[arg(long, default_value_t = 0)]
    pub hogs: usize,

    /// What things cost on the machine, as a JSON object: switch_ns, wakeup_ns, ipi_ns, idle_exit_ns, take_ns, tick_ns,
    /// tick_skew_ns, smt_q8, l2_kib, l2_refill_ns, memory_ns, llc_refill_ns, numa_refill_ns, l2_half_ns, llc_half_ns.
    /// What it leaves out keeps its default, which is that of a server.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub costs: Costs,

    /// Lose this share of the decision events.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, help_heading = "Faults")]
    pub lose_events: f64,

    /// Lose a CPU to a higher scheduling class, for 10 ms on the mean, this often per second.
    #[arg(long, value_name = "RATE", default_value_t = 0.0, help_heading = "Faults")]
    pub lose_cpus: f64,

    /// Write a timeline, too: what ran where, and what was decided. Open it in ui.perfetto.dev. Some 100 MB for a second
    /// of 16 CPUs.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,

    /// Record the decisions, as --learn does: to evaluate policies by (`scx_rl ope`), or to learn from (`scx_rl replay`,
    /// `scx_rl fleet`). With --balancer random, whose actions are drawn.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

/// The subcommand `sim`.
///
/// # Errors
/// The options make no sense, or the simulation fails.
pub fn run(args: &SimArgs) -> Result<()> {
    let summary = simulate(args)?;
    print(&format!("{}\n", serde_json::to_string_pretty(&summary)?))
}

fn simulate(args: &SimArgs) -> Result<Summary> {
    anyhow::ensure!(args.seconds > 0.0 && args.seconds < 1e6, "{} is not a time to simulate", args.seconds);
    anyhow::ensure!(args.load > 0.0 && args.load < 10.0, "{} is not a load; 0.8 is", args.load);
    let shape = Shape { cpus: args.cpus, llcs: args.llcs, nodes: args.nodes, threads: if args.smt { 2 } else { 1 } };
    anyhow::ensure!((0.0..=1e6).contains(&args.lose_cpus), "{} CPUs cannot be lost in a second", args.lose_cpus);
    let faults = Faults {
        lose_events: args.lose_events,
        lose_cpu_every_ns: if args.lose_cpus > 0.0 { (1e9 / args.lose_cpus) as u64 } else { 0 },
        lose_cpu_for_ns: LOST_NS,
        ..Faults::default()
    };
    let config = SimConfig { faults, costs: args.costs.clone(), ..SimConfig::new(shape, args.seed) };
    // What a CPU can do while its core's other one is busy.
    let speed = if args.smt { config.costs.smt_q8 as f64 / 256.0 } else { 1.0 };
    let mut workload = Workload::mixed(args.cpus, args.load * speed);
    workload.hogs(args.hogs, 100, 512);
    let tasks = workload.tasks.len();
    let mut sim = Sim::new(&config, workload, &args.balancer.publication())?;
    let started = Instant::now();
    if let Some(path) = &args.trace {
        sim.trace_to(path)?;
    }
    let mut recorder = match &args.record {
        None => None,
        Some(path) => {
            anyhow::ensure!(
                args.balancer == Balancer::Random,
                "--record needs --balancer random: others draw no actions"
            );
            let file = File::create(path).with_context(|| format!("cannot record to {}", path.display()))?;
            // As if an agent had listened that began as the fixed rule.
            Some(Recorder::new(file, &Header::of(&Agent::imitating(Hyper::default(), args.seed)?), None)?)
        }
    };
    let (end_ns, mut events) = ((args.seconds * 1e9) as u64, Vec::new());
    while sim.elapsed_ns() < end_ns {
        sim.run_for(POLL_NS.min(end_ns - sim.elapsed_ns()))?;
        events.clear();
        sim.poll(&mut events)?;
        recorder.as_mut().map_or(Ok(()), |recorder| recorder.events(&events))?;
    }
    recorder.map_or(Ok(()), |recorder| recorder.finish().map(|_| ()))?;
    sim.end_trace()?;
    Ok(summary(&mut sim, args.balancer, shape, tasks, args.seed, started.elapsed().as_secs_f64()))
}

/// A workload on a simulated machine under a fixed balancer, from its beginning.
///
/// # Errors
/// The simulation fails.
pub fn simulated(config: &SimConfig, workload: Workload, balancer: Balancer, ns: u64) -> Result<Summary> {
    let tasks = workload.tasks.len();
    let mut sim = Sim::new(config, workload, &balancer.publication())?;
    // Nobody learns from what would be logged.
    sim.scheduler_mut().set_sample_shift(16);
    let started = Instant::now();
    sim.run_for(ns)?;
    Ok(summary(&mut sim, balancer, config.shape, tasks, config.seed, started.elapsed().as_secs_f64()))
}

fn summary(sim: &mut Sim, balancer: Balancer, shape: Shape, tasks: usize, seed: u64, wall_s: f64) -> Summary {
    let counters = sim.scheduler_mut().counters();
    let (decisions, migrated) = decisions(&counters);
    let elapsed_ns = sim.elapsed_ns();
    let totals = sim.totals();
    Summary {
        balancer: format!("{balancer:?}").to_lowercase(),
        cpus: shape.cpus,
        llcs: shape.llcs,
        nodes: shape.nodes,
        tasks,
        seed,
        simulated_s: elapsed_ns as f64 / 1e9,
        wall_s,
        events: totals.events,
        events_per_s: totals.events as f64 / wall_s.max(1e-9),
        resident_mib: resident_bytes() as f64 / f64::from(1 << 20),
        hash: format!("{:016x}", totals.hash()),
        utilisation: share(totals.busy_ns, elapsed_ns * shape.cpus as u64),
        wakeups: totals.wakeups,
        runs: totals.runs,
        moved_share: share(totals.moves, totals.runs),
        refill_share: share(totals.refill_ns, totals.busy_ns),
        decisions,
        migrated_share: share(migrated, decisions),
        wait: Times::of(&totals.wait),
        response: Times::of(&totals.response),
        counters: counters.named(),
    }
}
