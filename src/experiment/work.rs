// SPDX-License-Identifier: GPL-2.0-only
//! Workers: processes that measure the cells of a batch which are not done yet.
//!
//! A worker ends when the run that started it does, even if that was killed. One for a VM boots it, and the same program goes
//! on inside; only what is inside measures.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::getppid;

use super::plan::{self, Batch, Key};
use super::spec::{Backend, Spec};
use super::study::{Record, Study};
use super::subject;
use crate::agent::Hyper;
use crate::kernel::SchedulerConfig;
use crate::lab::child::{self, Stop};
use crate::lab::system::{self, Machine};
use crate::learning::now_utc;
use crate::sim::contender::Contender as Simulated;
use crate::sim::regime::Regime;
use crate::sim::trial::{self, Learned, Setting};
use crate::suite::cell::{Cell, Job};
use crate::suite::contender::{self, Contender};
use crate::suite::turn::Rig;
use crate::suite::workload::Site;
use crate::vm::Vm;

/// Decisions logged for an agent that learns in the simulator, at most, per simulated second: `scx_rl ablation` has the same.
const EVENTS_PER_S: f64 = 10_000.0;
/// Points of a learning curve that a cell keeps, at most.
const POINTS_MAX: usize = 1000;
/// Least probability of each action of one that learns there.
const EXPLORE_FLOOR: f64 = 0.001;

/// Options of a worker; nobody else needs them.
#[derive(Clone, Debug, clap::Args)]
pub struct WorkArgs {
    /// The study's folder.
    pub folder: PathBuf,
    /// Which batch.
    #[arg(long)]
    pub batch: usize,
    /// Which part of its cells.
    #[arg(long, default_value_t = 0)]
    pub part: usize,
    /// Of how many.
    #[arg(long, default_value_t = 1)]
    pub parts: usize,
    /// The process that started this one.
    #[arg(long, default_value_t = 0)]
    pub parent: i32,
    /// This is inside of the VM.
    #[arg(long)]
    pub inside: bool,
}

/// Measures all cells of a batch that are not done.
///
/// # Errors
/// A cell cannot be measured at all, or the user's wish to stop. A scheduler or workload that fails is no error: it is in the
/// cell.
pub fn run(args: &WorkArgs) -> Result<()> {
    if !args.inside {
        nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).context("asking to end with the run")?;
        // It may have ended before that.
        ensure!(getppid().as_raw() == args.parent, "the run that started this worker has ended");
    }
    let study = Study::open(&args.folder)?;
    let spec = study.spec();
    ensure!(
        study.provenance().version == crate::version(),
        "the study was begun by scx_rl {}",
        study.provenance().version
    );
    let batch = *plan::batches(spec).get(args.batch).context("there is no such batch")?;
    let _lock = if args.inside { None } else { Some(study.lock_as_worker()?) };
    // Parts of all cells, not of those that are left: the other workers are at work already.
    let mut keys: Vec<Key> = plan::keys(spec, batch).into_iter().skip(args.part).step_by(args.parts.max(1)).collect();
    keys.retain(|key| !study.has(key));
    match spec.backend {
        Backend::Simulator => simulate(&study, batch, &keys),
        Backend::Vm if !args.inside => boot(&study, batch, args),
        Backend::Vm | Backend::Host => measure(&study, batch, &keys),
    }
}

/// What all records of a worker have in common.
fn record(spec: &Spec, key: &Key, kernel: &str, seconds: f64) -> Record {
    Record {
        key: key.clone(),
        figures: Default::default(),
        complaint: None,
        kernel_log: Vec::new(),
        waits: None,
        learning: Vec::new(),
        seconds,
        kernel: kernel.into(),
        version: crate::version(),
        spec_sha256: spec.sha256.clone(),
        ended_at: now_utc(),
    }
}

fn simulate(study: &Study, batch: Batch, keys: &[Key]) -> Result<()> {
    let (spec, stop) = (study.spec(), Stop::on_signals()?);
    let shape = spec.topologies[batch.topology].shape();
    let setting = Setting {
        shape,
        warm_up_ns: (spec.warm_up_s * 1e9) as u64,
        measure_ns: (spec.seconds * 1e9) as u64,
        events_per_s: EVENTS_PER_S,
        explore_floor: EXPLORE_FLOOR,
        hyper: Hyper::default(),
        scheduler: SchedulerConfig::DEFAULT,
        guard: None,
    };
    for key in keys {
        ensure!(!stop.requested(), "interrupted");
        let begin = Instant::now();
        let how = spec.scheduler(&key.scheduler).and_then(|scheduler| scheduler.how.as_ref());
        let how = how.with_context(|| format!("{} has no balancer", key.scheduler))?;
        let contender: Simulated = format!("{}={how}", key.scheduler).parse()?;
        let regime = Regime::of_name(&key.workload).with_context(|| format!("no regime {}", key.workload))?;
        let outcome = trial::run(&setting, &regime.workload(shape.cpus), &contender, key.seed);
        let mut record = record(spec, key, "simulator", begin.elapsed().as_secs_f64());
        match outcome {
            Ok((score, learned)) => {
                record.figures = subject::figures(&score);
                if let Some(Learned { points, checkpoint }) = learned {
                    // Before the cell: what has that is done.
                    match checkpoint.parameters.not_finite() {
                        None => study.record_checkpoint(key, &checkpoint)?,
                        Some(what) => log::warn!("{} learned no finite {what}: no checkpoint", key.scheduler),
                    }
                    let every = points.len().div_ceil(POINTS_MAX).max(1);
                    record.learning = points.into_iter().step_by(every).collect();
                }
            }
            Err(error) => record.complaint = Some(format!("{error:#}")),
        }
        study.record(&record)?;
    }
    Ok(())
}

/// Boots a VM, in which another worker measures.
fn boot(study: &Study, batch: Batch, args: &WorkArgs) -> Result<()> {
    let (spec, topology) = (study.spec(), &study.spec().topologies[batch.topology]);
    let folder = args.folder.canonicalize().context("finding the study's folder")?;
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let mut vm = Vm::new()
        .cpus(number(topology.cpus))
        .llcs(number(topology.llcs))
        .nodes(number(topology.nodes))
        .smt(topology.smt)
        .memory(&spec.memory)
        .timeout(Duration::from_secs(spec.timeout_s))
        .rwdir(folder.clone());
    if let Some(kernel) = &spec.kernel {
        vm = vm.kernel(kernel);
    }
    let exe = std::env::current_exe().context("finding scx_rl's own program file")?;
    let inside = format!("exec {} experiment work {} --batch {} --inside", quoted(&exe)?, quoted(&folder)?, args.batch);
    let output = vm.run_watched(&inside, &mut |bytes| {
        // Its words are in the log of this worker.
        let _ = std::io::Write::write_all(&mut std::io::stdout(), bytes);
    })?;
    ensure!(output.code == 0, "the worker in the VM failed (exit code {})", output.code);
    Ok(())
}

fn quoted(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(format!("'{}'", text.replace('\'', "'\\''")))
}

/// Measures in the running kernel.
fn measure(study: &Study, batch: Batch, keys: &[Key]) -> Result<()> {
    let Some(first) = keys.first() else { return Ok(()) };
    system::check("a study")?;
    let stop = Stop::on_signals()?;
    child::adopt_orphans()?;
    let folder = std::env::temp_dir().join(format!("scx_rl-study-{}", std::process::id()));
    fs::create_dir(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let site = Site { folder, cpus: Machine::read()?.cpus, seed: batch.seed, stop: &stop };
    let logs = study.path("logs").join(format!("{}-{}", first.topology, batch.seed));
    let measured = prepare(keys, &site).and_then(|()| turns(study, batch, keys, &site, logs));
    if let Err(error) = fs::remove_dir_all(&site.folder) {
        log::warn!("{} stays: {error}", site.folder.display());
    }
    ensure!(!stop.requested(), "interrupted");
    measured?;
    println!("{} cells of {} with seed {} done", keys.len(), first.topology, batch.seed);
    Ok(())
}

/// Prepares each workload that is still to run, and runs it once under the kernel's own scheduler, so that programs and files
/// are in memory.
fn prepare(keys: &[Key], site: &Site<'_>) -> Result<()> {
    let mut names: Vec<&str> = keys.iter().map(|key| key.workload.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let workload = subject::program(name).with_context(|| format!("no workload {name}"))?;
        println!("warming up: {name}");
        (workload.prepare)(site)
            .and_then(|()| (workload.run)(site))
            .with_context(|| format!("{name}, in the warm-up"))?;
        ensure!(!site.stop.requested(), "interrupted");
    }
    Ok(())
}

/// Each scheduler's turns: what of a round is not done yet.
fn turns(study: &Study, batch: Batch, keys: &[Key], site: &Site<'_>, logs: PathBuf) -> Result<()> {
    let (spec, kernel) = (study.spec(), system::kernel_release()?);
    let mut rig = Rig::new(site, spec.tracer, logs)?;
    for turn in keys.chunk_by(|a, b| (a.round, &a.scheduler) == (b.round, &b.scheduler)) {
        let Some(first) = turn.first() else { continue };
        let contender = contender_of(spec, &first.scheduler)?;
        let jobs: Vec<Job> = turn.iter().filter_map(|key| subject::program(&key.workload)).map(Job::Workload).collect();
        println!("round {} with seed {}: {}", first.round + 1, batch.seed, first.scheduler);
        rig.turn(&contender, &jobs, (first.round, 0), &mut |cell: Cell| {
            println!("{}", cell.line());
            let key = Key { workload: cell.workload.clone(), ..first.clone() };
            let Cell { figures, complaint, kernel: kernel_log, seconds, counts, .. } = cell;
            let waits = counts.as_ref().map(Into::into);
            study.record(&Record { figures, complaint, kernel_log, waits, ..record(spec, &key, &kernel, seconds) })
        })?;
    }
    Ok(())
}

fn contender_of(spec: &Spec, name: &str) -> Result<Contender> {
    let scheduler = spec.scheduler(name).with_context(|| format!("no scheduler {name}"))?;
    contender::of(name, scheduler.how.as_deref())
}
