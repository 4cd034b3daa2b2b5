// SPDX-License-Identifier: GPL-2.0-only
//! `scx_rl locality`: a workload that pays a stated cost when it is moved between last-level caches, on a real kernel.
//! An emulated machine has no caches, and there "always migrate" costs nothing; with this workload it does.
//!
//! [`crate::sim::locality`] says what the workload is, for this and for the simulator. `worker`: one worker, with all
//! that it sees of the machine behind a trait; `host`: that machine; `tally`: what is counted, and the JSON.

use std::path::PathBuf;
use std::thread::{Builder, ScopedJoinHandle};

use anyhow::{Context, Result, anyhow, ensure};
use log::warn;
use serde::Serialize;

use crate::kernel::domains::{DomainSpec, Domains, cpulist};
use crate::kernel::preflight::kernel_release;
use crate::lab::child::Stop;
use crate::lab::system;
use crate::process::print;
use crate::runqlat::hist::RELATIVE_ERROR;
use crate::sim::command::simulated;
use crate::sim::locality::{Cost, LocalitySpec};
use crate::sim::machine::{Costs, Shape};
use crate::sim::workload::{Distribution, Workload};
use crate::sim::{Balancer, SimConfig};

mod host;
pub mod tally;
mod worker;

use host::{Desk, Host};
use tally::{Group, Report, Tally, Window};
use worker::{Bursts, Worker};

/// Workers for each CPU, where nothing is said.
const WORKERS_PER_CPU: usize = 4;
/// The time in which threads are made: the first burst comes later. So much, and so much more for each thread.
const LEAD_NS: u64 = 20_000_000;
const LEAD_PER_THREAD_NS: u64 = 100_000;
/// A worker has little on its stack.
const STACK_BYTES: usize = 256 << 10;
/// Bursts may not come faster to a worker than so, ns. The bound is that of counting them at the end.
const INTERVAL_MIN_NS: u64 = 10_000;
/// All workers' data together may have so much, KiB.
const DATA_MAX_KIB: u64 = 8 << 20;

/// Run workers that pay a stated cost when they find themselves in another last-level cache, and print as JSON how many
/// bursts they did, and how fast.
///
/// A worker is a thread. Bursts of work come to it at random times, whatever the scheduler does; it works on one after
/// the other, and sleeps in between. Work is a loop of arithmetic. Before a burst and after each 50 us of work it looks
/// on which CPU it is. If that belongs to another cache than the time before, it pays: it works for --cost-us, or reads
/// --cost-kib of its own data again. So moves have a price, also on an emulated machine, which has no caches. What is
/// won by moving and what it costs can be compared: the same bursts come under every scheduler.
///
/// Start it under one scheduler, then under the next, in one boot, with one --iterations-per-us. Needs no root.
/// `response` is from a burst's arrival to its end; `costly` and `free` are the workers with and without the cost;
/// `backlog_at_end` far above `backlog_at_begin` tells of overload.
///
/// Examples:
///
///   scx_rl locality --load 0.8 --cost-us 500                     every move costs half a burst
///   scx_rl locality --load 0.8 --cost-us 500 --costly 0.5        for half of the workers; the others move for free
///   scx_rl locality --load 0.6 --cost-kib 512 --forget-ms 20     real data, cold after 20 ms wherever it is
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct LocalityArgs {
    /// Workers. Few for each CPU give a scheduler little to choose, many make the load smooth. Default: four for each
    /// CPU that this process may use.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub workers: Option<u32>,

    /// Mean work of a burst, us on a CPU that does nothing else.
    #[arg(long, value_name = "USEC", default_value_t = 1000.0, value_parser = number(1.0, 1e6))]
    pub burst_us: f64,

    /// How the work of bursts varies around the mean.
    #[arg(long, value_enum, default_value = "exponential")]
    pub distribution: Distribution,

    /// Share of the CPUs' time that the bursts take, of all CPUs that this process may use; costs come on top. It says
    /// how often bursts come. Where CPUs share something (two threads of a core, emulated CPUs on fewer real ones) they
    /// may be full with less than 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.7, value_parser = number(0.001, 10.0))]
    pub load: f64,

    /// What a change of the cache costs: work of this many us. 0: nothing.
    #[arg(long, value_name = "USEC", default_value_t = 200.0, value_parser = number(0.0, 1e6))]
    pub cost_us: f64,

    /// What it costs instead: the worker reads this many KiB of its own again, a word of each cache line. On a machine
    /// that has caches this is what happens; how long it takes is up to them.
    #[arg(long, value_name = "KIB", conflicts_with = "cost_us",
          value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub cost_kib: Option<u64>,

    /// Share of the workers who have the cost. With 0.5 a scheduler should tell the one half from the other.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = number(0.0, 1.0))]
    pub costly: f64,

    /// A worker who was away from CPUs for this many ms pays the cost wherever it runs then: others have pushed its
    /// data out, and there is nothing to stay for. 0: it never forgets.
    #[arg(long, value_name = "MSEC", default_value_t = 0.0, value_parser = number(0.0, 1e6))]
    pub forget_ms: f64,

    /// Threads that only burn CPU time, besides. They are not in the load.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1024))]
    pub hogs: u32,

    /// What counts as a cache: llc, l2, numa, virt:MIN-MAX or cpus:LIST/LIST/..., as the scheduler's --domains.
    #[arg(long, value_name = "HOW", default_value = "llc")]
    pub domains: DomainSpec,

    /// How long to measure, seconds.
    #[arg(long, value_name = "SEC", default_value_t = 10.0, value_parser = number(0.1, 3600.0))]
    pub seconds: f64,

    /// How long to run before that, seconds: schedulers and queues settle.
    #[arg(long, value_name = "SEC", default_value_t = 1.0, value_parser = number(0.0, 3600.0))]
    pub warm_up: f64,

    /// Seed of arrivals and bursts. The same seed and options give the same, under every scheduler.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// How fast work is, in iterations of the loop per us. Without it, that is measured at the start (the fastest of 30
    /// runs of a ms). To compare schedulers, give the `iterations_per_us` of the first run to all others.
    #[arg(long, value_name = "N", value_parser = number(0.01, 1e6))]
    pub iterations_per_us: Option<f64>,

    /// Write the JSON to this file, not to the standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Do not run the workload here, but simulate it, on a machine with so many CPUs in so many last-level caches (4/2),
    /// under --balancer, and print what `scx_rl sim` prints. --warm-up does not matter then.
    #[arg(long, value_name = "CPUS/LLCS", value_parser = shape, conflicts_with_all = ["domains", "iterations_per_us"],
          help_heading = "Simulation")]
    pub simulate: Option<Shape>,

    /// Which balancer decides in the simulation.
    #[arg(long, value_enum, default_value = "heuristic", requires = "simulate", help_heading = "Simulation")]
    pub balancer: Balancer,

    /// What things cost on the simulated machine, as `scx_rl sim --costs`.
    #[arg(long, value_name = "JSON", default_value = "{}", requires = "simulate", help_heading = "Simulation")]
    pub costs: Costs,
}

fn shape(text: &str) -> Result<Shape, String> {
    let (cpus, llcs) = text
        .split_once('/')
        .and_then(|(cpus, llcs)| Some((cpus.parse().ok()?, llcs.parse().ok()?)))
        .ok_or_else(|| format!("{text:?} is not CPUS/LLCS, such as 4/2"))?;
    let shape = Shape { cpus, llcs, nodes: 1, threads: 1 };
    shape.places().map_err(|e| e.to_string())?;
    Ok(shape)
}

/// A parser of numbers within bounds, both included.
fn number(least: f64, most: f64) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync + 'static {
    move |text: &str| match text.parse::<f64>() {
        Ok(value) if (least..=most).contains(&value) => Ok(value),
        _ => Err(format!("{text:?} is not a number from {least} to {most}")),
    }
}

impl LocalityArgs {
    /// The workload on so many CPUs.
    ///
    /// # Errors
    /// Bursts would come too fast, or the workers' data would be too much.
    fn spec(&self, cpus: usize) -> Result<LocalitySpec> {
        let spec = LocalitySpec {
            workers: self.workers.map_or(WORKERS_PER_CPU * cpus, |workers| workers as usize),
            burst_ns: (self.burst_us * 1e3) as u64,
            distribution: self.distribution,
            busy_cpus: self.load * cpus as f64,
            cost: self.cost_kib.map_or(Cost::Ns((self.cost_us * 1e3) as u64), Cost::Kib),
            costly: self.costly,
            forget_ns: (self.forget_ms > 0.0).then_some((self.forget_ms * 1e6) as u64),
            hogs: self.hogs as usize,
        };
        ensure!(
            spec.interval_ns() >= INTERVAL_MIN_NS,
            "each worker would get a burst every {:.1} us, which is less than {} us: give more --workers, a longer \
             --burst-us, or a lower --load",
            spec.interval_ns() as f64 / 1e3,
            INTERVAL_MIN_NS / 1000
        );
        let data_kib = self.cost_kib.unwrap_or(0).saturating_mul(spec.workers as u64);
        ensure!(
            data_kib <= DATA_MAX_KIB,
            "{} workers with {} KiB each would need more than {} GiB: give fewer --workers or less --cost-kib",
            spec.workers,
            self.cost_kib.unwrap_or(0),
            DATA_MAX_KIB >> 20
        );
        Ok(spec)
    }
}

/// The subcommand `locality`.
///
/// # Errors
/// The options make no sense together, the topology cannot be read, the JSON cannot be written, or Ctrl-C or SIGTERM
/// came before the end.
pub fn run(args: &LocalityArgs) -> Result<()> {
    if let Some(shape) = args.simulate {
        let workload = Workload::locality(&args.spec(shape.cpus)?);
        let config = SimConfig { costs: args.costs.clone(), ..SimConfig::new(shape, args.seed) };
        return tell(args, &simulated(&config, workload, args.balancer, (args.seconds * 1e9) as u64)?);
    }
    let cpus = host::cpus()?;
    let spec = args.spec(cpus)?;
    let domains = Domains::discover(&args.domains)?;
    if domains.cpus.len() == 1 {
        warn!("all CPUs are in one cache, so that nobody ever pays for a move: {}", domains.description);
    }
    if let Some(path) = &args.out {
        // Better now than after a long run.
        std::fs::write(path, "").with_context(|| format!("cannot write {}", path.display()))?;
    }
    let stop = Stop::on_signals()?;
    // Inherited by the threads. The usual slack of 50 us would be in all responses.
    nix::sys::prctl::set_timerslack(1).context("setting the timer slack")?;
    let iterations_per_us = args.iterations_per_us.map_or_else(host::calibrate, Ok)?;
    let host = Host::new(host::caches(&domains), iterations_per_us);
    let tallies = measure(&host, &spec, args, &stop).context("nothing was measured")?;
    let group = |wanted: &dyn Fn(usize) -> bool| {
        let (mut workers, mut sum) = (0, Tally::default());
        for (_, tally) in tallies.iter().enumerate().filter(|(worker, _)| wanted(*worker)) {
            workers += 1;
            sum.merge(tally);
        }
        Group::new(workers, &sum, args.seconds)
    };
    let report = Report {
        version: crate::version(),
        kernel: kernel_release(),
        sched_ext: system::check_attached(|_| true).ok(),
        cpus,
        caches: domains.cpus.iter().map(|cpus| cpulist(cpus)).collect(),
        workload: spec,
        load: args.load,
        interval_ns: spec.interval_ns(),
        seed: args.seed,
        iterations_per_us,
        calibrated: args.iterations_per_us.is_none(),
        warm_up_s: args.warm_up,
        seconds: args.seconds,
        relative_error: RELATIVE_ERROR,
        all: group(&|_| true),
        costly: group(&|worker| spec.cost_of(worker).is_some()),
        free: group(&|worker| spec.cost_of(worker).is_none()),
    };
    tell(args, &report)
}

/// As JSON, where the user wants it.
fn tell(args: &LocalityArgs, report: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(report).context("writing JSON")? + "\n";
    match &args.out {
        None => print(&text),
        Some(path) => std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display())),
    }
}

/// Runs the workload; what each worker came to. All threads have ended when it returns.
fn measure(host: &Host, spec: &LocalitySpec, args: &LocalityArgs, stop: &Stop) -> Result<Vec<Tally>> {
    let lead_ns = LEAD_NS + LEAD_PER_THREAD_NS * (spec.workers + spec.hogs) as u64;
    let begin_ns = lead_ns + (args.warm_up * 1e9) as u64;
    let window = Window { begin_ns, end_ns: begin_ns + (args.seconds * 1e9) as u64 };
    let work = |worker: usize| {
        let cost = spec.cost_of(worker);
        let data_kib = if let Some(Cost::Kib(kib)) = cost { kib as usize } else { 0 };
        let bursts = Bursts::new(spec, args.seed, worker, lead_ns);
        Worker::new(Desk::new(host, data_kib), cost, spec.forget_ns).run(bursts, window)
    };
    std::thread::scope(|scope| {
        let thread = |name: String| Builder::new().name(name).stack_size(STACK_BYTES);
        let mut workers: Vec<ScopedJoinHandle<'_, Tally>> = Vec::new();
        let mut start = || -> Result<()> {
            for hog in 0..spec.hogs {
                thread(format!("hog-{hog}")).spawn_scoped(scope, move || host.hog()).context("starting a hog")?;
            }
            for worker in 0..spec.workers {
                let work = &work;
                let started = thread(spec.name_of(worker)).spawn_scoped(scope, move || work(worker));
                workers.push(started.context("starting a worker")?);
            }
            Ok(())
        };
        let waited = start().and_then(|()| stop.sleep_until(host.instant(window.end_ns), || Ok(())));
        // Whatever happened: nobody is left behind.
        host.end();
        workers.iter().for_each(|worker| worker.thread().unpark());
        let tallies: Vec<_> = workers.into_iter().map(ScopedJoinHandle::join).collect();
        waited?;
        tallies.into_iter().map(|tally| tally.map_err(|_| anyhow!("a worker panicked"))).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: LocalityArgs,
    }

    fn args(line: &str) -> LocalityArgs {
        Line::parse_from(["locality"].into_iter().chain(line.split_whitespace())).args
    }

    /// The workload for so many CPUs on this machine, as if each CPU had a cache of its own.
    fn measured(cpus: usize, line: &str) -> (LocalitySpec, Vec<Tally>, f64) {
        let args = args(line);
        let spec = args.spec(cpus).unwrap();
        let host = Host::new((0..4096).map(Some).collect(), host::calibrate().unwrap());
        (spec, measure(&host, &spec, &args, &Stop::manual()).unwrap(), args.seconds)
    }

    #[test]
    fn options_make_the_workload() {
        let default = args("").spec(8).unwrap();
        let expected = LocalitySpec {
            workers: 32,
            burst_ns: 1_000_000,
            distribution: Distribution::Exponential,
            busy_cpus: 5.6,
            cost: Cost::Ns(200_000),
            costly: 1.0,
            forget_ns: None,
            hogs: 0,
        };
        assert_eq!(LocalitySpec { busy_cpus: 5.6, ..default }, expected);
        assert!((default.busy_cpus - 5.6).abs() < 1e-9);
        let all = args("--workers 3 --burst-us 20.5 --distribution bimodal --load 0.25 --cost-kib 64 --costly 0.5");
        let spec = all.spec(4).unwrap();
        assert_eq!((spec.workers, spec.burst_ns, spec.cost), (3, 20_500, Cost::Kib(64)));
        assert_eq!((spec.distribution, spec.busy_cpus, spec.interval_ns()), (Distribution::Bimodal, 1.0, 61_500));
        assert_eq!(args("--forget-ms 2.5 --hogs 7").spec(1).unwrap().forget_ns, Some(2_500_000));
        let refused = |line: &str| args(line).spec(64).unwrap_err().to_string();
        let error = refused("--workers 1 --burst-us 100");
        assert!(error.contains("a burst every 2.2 us") && error.contains("more --workers"), "{error}");
        let error = refused("--workers 4096 --cost-kib 4096");
        assert!(error.contains("more than 8 GiB") && error.contains("less --cost-kib"), "{error}");
    }

    /// Wide bounds: the machine may be busy with other tests.
    #[test]
    fn at_low_load_what_is_offered_is_done() {
        let line = "--workers 2 --load 0.1 --burst-us 500 --distribution fixed --cost-us 100 --costly 0.5";
        let (spec, tallies, seconds) = measured(2, &format!("{line} --seconds 1 --warm-up 0.1"));
        assert_eq!(tallies.len(), 2);
        let mut sum = Tally::default();
        tallies.iter().for_each(|tally| sum.merge(tally));
        let group = Group::new(2, &sum, seconds);
        // Two CPUs at 10 %, bursts of 500 us: 400 a second.
        let expected_per_s = 2e9 / spec.interval_ns() as f64;
        assert!((0.6..1.6).contains(&(group.offered_per_s / expected_per_s)), "{group:?}");
        assert!((0.5..1.2).contains(&(group.bursts_per_s / group.offered_per_s)), "{group:?}");
        assert!(group.response.mean_us > 150.0, "no burst is done before its work: {group:?}");
        assert_eq!(group.backlog_at_begin + sum.arrived, group.bursts + group.backlog_at_end);
        // Every move costs, and nothing else; who has no cost pays nothing.
        assert_eq!(tallies[0].costs, tallies[0].llc_changes);
        assert!(tallies[0].cost_cpu_ns >= tallies[0].costs * 30_000, "100 us each: {tallies:?}");
        assert_eq!((tallies[1].costs, tallies[1].cost_cpu_ns), (0, 0));
    }

    #[test]
    fn overload_shows_and_ends_in_time() {
        let begin = Instant::now();
        let cpus = host::cpus().unwrap();
        let (_, tallies, _) = measured(cpus, "--load 10 --burst-us 2000 --seconds 0.5 --warm-up 0 --hogs 1");
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
        let (done, backlog) =
            tallies.iter().fold((0, 0), |(done, left), t| (done + t.response.samples(), left + t.backlog()));
        assert!(backlog > 2 * done, "10 times as much as possible is offered: {done} done, {backlog} left");
    }

    #[test]
    fn a_wish_to_stop_is_followed() {
        let args = args("--workers 3 --load 0.001 --seconds 3600 --hogs 1");
        let spec = args.spec(1).unwrap();
        let stop = Stop::manual();
        stop.request();
        let host = Host::new(Vec::new(), 100.0);
        assert_eq!(measure(&host, &spec, &args, &stop).unwrap_err().to_string(), "interrupted");
    }
}
