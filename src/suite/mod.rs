// SPDX-License-Identifier: GPL-2.0-only
//! `scx_rl suite`: EEVDF, the published schedulers and scx_rl under the same real programs, in one boot, in turns, and one
//! table.
//!
//! Reading order: `workload` (what is run), `contender` (what is compared), `cell` (one under the other), `turn` (all under
//! one), `bpf_cost`, `summary` (what the cells say), `table`. [`crate::experiment`] uses the same parts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

mod bpf_cost;
pub(crate) mod cell;
pub(crate) mod contender;
pub(crate) mod summary;
pub(crate) mod table;
pub(crate) mod turn;
pub(crate) mod workload;

use cell::{Cell, Job};
use contender::{Contender, EEVDF, Skipped, Wanted};
use summary::{Findings, Subject};
use turn::Rig;
use workload::{Site, Workload};

use crate::lab::child::{self, Stop};
use crate::lab::system::{self, Machine};
use crate::lab::{order, prepare_out_dir};

/// How long attaching and detaching take, for the estimate.
const ATTACH_GUESS: Duration = Duration::from_secs(6);

/// Compare schedulers on real programs: EEVDF, the published ones, and scx_rl.
///
/// In each round every scheduler is attached once, in a shuffled order that is mirrored every second round, and runs all
/// workloads: a compile, hackbench, perf bench sched, stress-ng, sysbench, cyclictest, fio beside a compile, nginx with
/// wrk, PostgreSQL with pgbench, and schbench. Before that, all workloads run once to warm up. One more cell for each
/// scheduler, bpf-cost, measures its BPF programs. --list shows what there is here, and what is missing.
///
/// Results: a line of results.jsonl for each cell as it ends; summary.json and summary.md at the end, also after Ctrl-C.
/// The table has, for each figure, the ratio of medians to EEVDF, turned so that more than 1 is better, with a 95 %
/// confidence interval (of five rounds or more); and for each scheduler the geometric mean over workloads, in which each workload counts once. A
/// scheduler that the kernel throws out has failed in that cell, and is attached again for the next.
///
/// Others only run where --workloads names them: schbench-compile and apache-wrk; and three that are not real,
/// locality-free, locality-dear and locality-half, in which a move between caches costs nothing, as much as a burst of
/// work, or that for every second worker (see scx_rl locality).
///
/// Needs root, sched_ext, and the tools of the workloads (`make suite-setup`); what is missing is skipped and said.
/// `make peers` installs the published schedulers. Run it on a machine without other load, or in the VM (`make suite`).
/// A round takes a little over a minute for each scheduler.
///
/// Examples:
///
///   scx_rl suite --rounds 5
///   scx_rl suite --schedulers eevdf,heuristic,scx_rusty --workloads compile,schbench
///   scx_rl suite --schedulers eevdf --scheduler 'short=scx_rl --heuristic --slice-us 5000'
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct SuiteArgs {
    /// Where results and logs go. Created if missing; must be writable.
    #[arg(long, value_name = "DIR", default_value = "scx_rl-suite")]
    pub out_dir: PathBuf,

    /// How often each scheduler runs each workload. With less than five, intervals say little.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub rounds: usize,

    /// Decides the order of schedulers, generated input, and the draws of the bootstrap.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Only these: eevdf, heuristic, frozen, or published ones by name. Without it: all that are here.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub schedulers: Vec<String>,

    /// One more, by its command line, which is split at spaces. `scx_rl` as its first word is this program. May be given
    /// several times.
    #[arg(long = "scheduler", value_name = "NAME=COMMAND")]
    pub variants: Vec<String>,

    /// Compare `scx_rl --frozen` with this checkpoint, too.
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,

    /// Ratios are to this one.
    #[arg(long, value_name = "NAME", default_value = EEVDF)]
    pub baseline: String,

    /// Only these; bpf-cost is one of them. Without it: all whose tools are here.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub workloads: Vec<String>,

    /// Do not measure runqueue latency meanwhile. Measuring costs the same under every scheduler.
    #[arg(long)]
    pub no_tracer: bool,

    /// List schedulers and workloads, which of them can be had here, and exit.
    #[arg(long)]
    pub list: bool,
}

/// summary.json.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Of scx_rl, with the commit.
    pub version: String,
    /// The running kernel.
    pub kernel: String,
    /// Its CPUs.
    pub topology: Machine,
    /// Of everything random.
    pub seed: u64,
    /// Rounds that were asked for.
    pub rounds: usize,
    /// Rounds of which there are cells.
    pub rounds_done: usize,
    /// Did it run to its end?
    pub complete: bool,
    /// Was runqueue latency measured?
    pub tracer: bool,
    /// Ratios are to this one.
    pub baseline: String,
    /// What was compared.
    pub schedulers: Vec<Contender>,
    /// The workloads' programs: packages and versions.
    pub tools: BTreeMap<&'static str, String>,
    /// Schedulers and workloads that were left out, and why.
    pub skipped: Vec<Skipped>,
    /// What was found.
    #[serde(flatten)]
    pub findings: Findings,
    /// How long all took.
    pub total_seconds: f64,
}

/// What is to be done.
struct Plan {
    contenders: Vec<Contender>,
    workloads: Vec<&'static Workload>,
    bpf_cost: bool,
    skipped: Vec<Skipped>,
}

/// The subcommand. All processes it started have ended when it returns, and no scheduler is attached.
///
/// # Errors
/// Something it needs is missing, or the user stopped it. A scheduler or workload that fails is no error: it is in the
/// results.
pub fn run(args: &SuiteArgs) -> Result<()> {
    ensure!((1..=1000).contains(&args.rounds), "--rounds must be from 1 to 1000");
    let plan = plan(args)?;
    if args.list {
        return list(&plan);
    }
    ensure!(!plan.workloads.is_empty(), "no workload is left: see scx_rl suite --list");
    system::check("the suite")?;
    let begin = Instant::now();
    let out_dir = prepare_out_dir(&args.out_dir)?;
    let stop = Stop::on_signals()?;
    child::adopt_orphans()?;
    let folder = std::env::temp_dir().join(format!("scx_rl-suite-{}", std::process::id()));
    fs::create_dir(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let machine = Machine::read()?;
    let site = Site { folder, cpus: machine.cpus, seed: args.seed, stop: &stop };
    let done = measure(args, plan, machine, &site, &out_dir, begin);
    if let Err(error) = fs::remove_dir_all(&site.folder) {
        log::warn!("{} stays: {error}", site.folder.display());
    }
    let summary = done?;
    println!("\n{}\nAll numbers: {}", table::render(&summary), out_dir.join("summary.json").display());
    ensure!(summary.complete, "interrupted; what was measured is in {}", out_dir.display());
    Ok(())
}

/// What there is, and what was asked for.
fn plan(args: &SuiteArgs) -> Result<Plan> {
    let (exe, peers) = contender::places()?;
    let wanted = Wanted {
        names: &args.schedulers,
        variants: &args.variants,
        checkpoint: args.checkpoint.as_deref(),
        exe: &exe,
        peers: peers.as_deref(),
    };
    let (contenders, mut skipped) = contender::select(&wanted)?;
    ensure!(
        contenders.iter().any(|contender| contender.name == args.baseline),
        "ratios are to {}, which is not among the schedulers: add it, or choose another --baseline",
        args.baseline
    );
    let all = || workload::REAL.iter().chain(workload::ON_DEMAND);
    let known = || all().map(|workload| workload.name).chain([bpf_cost::NAME]);
    if let Some(name) = args.workloads.iter().find(|name| known().all(|other| other != name.as_str())) {
        bail!("--workloads: there is no {name:?}; there are {}", known().collect::<Vec<_>>().join(", "));
    }
    let is_wanted = |name: &str| match args.workloads.as_slice() {
        [] => workload::ON_DEMAND.iter().all(|other| other.name != name),
        named => named.iter().any(|other| other == name),
    };
    let mut workloads = Vec::new();
    for workload in all().filter(|workload| is_wanted(workload.name)) {
        match workload.tools.iter().find_map(|tool| tool.check().err()) {
            None => workloads.push(workload),
            Some(error) => skipped.push(Skipped::new(workload.name, error.to_string())),
        }
    }
    Ok(Plan { contenders, workloads, bpf_cost: is_wanted(bpf_cost::NAME), skipped })
}

fn list(plan: &Plan) -> Result<()> {
    let mut text = String::from("schedulers:\n");
    for Contender { name, command, .. } in &plan.contenders {
        text += &format!(
            "  {name:<18}{}\n",
            if command.is_empty() { "the kernel's own".into() } else { command.join(" ") }
        );
    }
    text += "workloads:\n";
    for workload in &plan.workloads {
        text += &format!("  {:<18}{}\n", workload.name, workload.about);
        for figure in workload.figures {
            let counts = if figure.counts { "" } else { ", not counted" };
            let better = if figure.better == workload::Better::Higher { "higher" } else { "lower" };
            text += &format!("  {:<18}  {}, {}, {better} is better{counts}\n", "", figure.name, figure.unit);
        }
    }
    if plan.bpf_cost {
        text += &format!("  {:<18}what the scheduler's BPF programs cost under hackbench\n", bpf_cost::NAME);
    }
    for Skipped { name, reason } in &plan.skipped {
        text += &format!("left out:\n  {name:<18}{reason}\n");
    }
    crate::process::print(&text)
}

/// Prepares, warms up, runs all rounds, and sums up, also if the user stopped it after the first cell.
fn measure(
    args: &SuiteArgs,
    mut plan: Plan,
    machine: Machine,
    site: &Site<'_>,
    out_dir: &Path,
    begin: Instant,
) -> Result<Summary> {
    for contender in &mut plan.contenders {
        contender.ask_version(&site.folder, site.stop)?;
    }
    let warm_up = prepare(&mut plan, site)?;
    let workloads = plan.workloads.iter().map(|&workload| Job::Workload(workload));
    let jobs: Vec<Job> = workloads.chain(plan.bpf_cost.then_some(Job::BpfCost)).collect();
    let results = out_dir.join("results.jsonl");
    let mut run = Run {
        args,
        plan: &plan,
        jobs: &jobs,
        machine,
        out_dir,
        results: File::create(&results).with_context(|| format!("creating {}", results.display()))?,
        rig: Rig::new(site, !args.no_tracer, out_dir.join("logs"))?,
        cells: Vec::new(),
        estimate: (warm_up + ATTACH_GUESS) * u32::try_from(plan.contenders.len() * args.rounds)?,
        begin,
        rounds_begin: Instant::now(),
    };
    println!(
        "{} schedulers x {} workloads x {} rounds: about {}",
        plan.contenders.len(),
        jobs.len(),
        args.rounds,
        minutes(run.estimate)
    );
    match run.rounds() {
        Ok(()) => run.sum_up(true),
        Err(error) if run.cells.is_empty() || !site.stop.requested() => Err(error),
        Err(_) => run.sum_up(false),
    }
}

/// Prepares each workload and runs it once under the kernel's own scheduler, so that programs and files are in memory; how
/// long the runs took together. What fails there would fail everywhere, so it is left out.
fn prepare(plan: &mut Plan, site: &Site<'_>) -> Result<Duration> {
    println!("preparing and warming up {} workloads", plan.workloads.len());
    let mut total = Duration::ZERO;
    let mut kept = Vec::new();
    for workload in &plan.workloads {
        let ready = (workload.prepare)(site);
        let begin = Instant::now();
        match ready.and_then(|()| (workload.run)(site)) {
            Ok(_) => {
                println!("  {:<18}{:>5.1} s", workload.name, begin.elapsed().as_secs_f64());
                total += begin.elapsed();
                kept.push(*workload);
            }
            Err(_) if site.stop.requested() => bail!("interrupted"),
            Err(error) => {
                println!("  {:<18}left out: {error:#}", workload.name);
                plan.skipped.push(Skipped::new(workload.name, format!("failed in the warm-up: {error:#}")));
            }
        }
    }
    plan.workloads = kept;
    ensure!(!plan.workloads.is_empty(), "no workload runs here");
    Ok(total)
}

/// The rounds.
struct Run<'a> {
    args: &'a SuiteArgs,
    plan: &'a Plan,
    jobs: &'a [Job],
    rig: Rig<'a>,
    machine: Machine,
    out_dir: &'a Path,
    results: File,
    cells: Vec<Cell>,
    estimate: Duration,
    begin: Instant,
    rounds_begin: Instant,
}

impl Run<'_> {
    fn rounds(&mut self) -> Result<()> {
        let contenders = &self.plan.contenders;
        let turns: Vec<usize> = (0..contenders.len()).collect();
        let total = turns.len() * self.args.rounds;
        for round in 0..self.args.rounds {
            for (position, turn) in order::order(&turns, self.args.seed, round).into_iter().enumerate() {
                let done = round * turns.len() + position;
                let elapsed = self.rounds_begin.elapsed();
                // The estimate serves until a round has shown how long one takes.
                let left = if round == 0 {
                    self.estimate.saturating_sub(elapsed)
                } else {
                    elapsed * u32::try_from(total - done)? / u32::try_from(done)?
                };
                println!(
                    "round {}/{}, {}/{}: {} ({} left)",
                    round + 1,
                    self.args.rounds,
                    position + 1,
                    turns.len(),
                    contenders[turn].name,
                    minutes(left)
                );
                let Run { rig, results, cells, .. } = self;
                let mut record = |cell| record(results, cells, cell);
                rig.turn(&contenders[turn], self.jobs, (round, position), &mut record)?;
            }
            // So that a machine that dies later takes only what came later.
            self.sum_up(false)?;
        }
        Ok(())
    }

    /// Writes summary.json and summary.md from the cells there are.
    fn sum_up(&self, complete: bool) -> Result<Summary> {
        let Plan { contenders, workloads, skipped, .. } = self.plan;
        let names: Vec<String> = contenders.iter().map(|contender| contender.name.clone()).collect();
        let subjects: Vec<Subject> = workloads.iter().map(|&workload| workload.into()).collect();
        let tools = workloads.iter().flat_map(|workload| workload.tools);
        let summary = Summary {
            version: crate::version(),
            kernel: system::kernel_release()?,
            topology: self.machine.clone(),
            seed: self.args.seed,
            rounds: self.args.rounds,
            rounds_done: self.cells.iter().map(|cell| cell.round + 1).max().unwrap_or(0),
            complete,
            tracer: !self.args.no_tracer,
            baseline: self.args.baseline.clone(),
            schedulers: contenders.clone(),
            tools: tools.filter_map(|tool| Some((tool.name, tool.version()?))).collect(),
            skipped: skipped.clone(),
            findings: Findings::new(&self.cells, &names, &self.args.baseline, &subjects, self.args.seed),
            total_seconds: self.begin.elapsed().as_secs_f64(),
        };
        let text = serde_json::to_string_pretty(&summary).context("writing JSON")? + "\n";
        for (name, text) in [("summary.json", text), ("summary.md", table::render(&summary))] {
            let path = self.out_dir.join(name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(summary)
    }
}

/// Keeps a cell and prints it.
fn record(results: &mut File, cells: &mut Vec<Cell>, cell: Cell) -> Result<()> {
    let line = serde_json::to_string(&cell).context("writing JSON")?;
    writeln!(results, "{line}").context("writing results.jsonl")?;
    println!("{}", cell.line());
    cells.push(cell);
    Ok(())
}

fn minutes(duration: Duration) -> String {
    format!("{:.0} min", (duration.as_secs_f64() / 60.0).ceil())
}
