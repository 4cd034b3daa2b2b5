// SPDX-License-Identifier: GPL-2.0-only
//! Runs a study: starts workers, batch after batch, and tells how far they are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::plan::{self, Batch, Key};
use super::show;
use super::spec::{Backend, Spec};
use super::study::Study;
use crate::lab::child::{self, Process, Stop};
use crate::lab::system;
use crate::suite::cell::outcome;

/// How often the runner looks for new cells.
const LOOK: Duration = Duration::from_millis(300);
/// How long a worker may take to end what it does after Ctrl-C: a simulated cell, or a VM.
const END_LIMIT: Duration = Duration::from_secs(120);

/// Options of `experiment run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// The specification. Not needed with --resume.
    #[arg(value_name = "SPEC.toml", required_unless_present = "resume")]
    pub spec: Option<PathBuf>,

    /// The study's folder [default: scx_rl-experiments/NAME]
    #[arg(long, value_name = "DIR")]
    pub out_dir: Option<PathBuf>,

    /// Go on with the study in this folder: measure the cells that are not there.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["spec", "out_dir"])]
    pub resume: Option<PathBuf>,

    /// Only say whether the specification is valid, and how many cells it has.
    #[arg(long, conflicts_with = "resume")]
    pub check: bool,
}

/// Reads a specification.
///
/// # Errors
/// It cannot be read, or has mistakes; all of them are told.
pub fn read_spec(path: &Path) -> Result<(String, Spec)> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let spec = Spec::parse(&text).with_context(|| path.display().to_string())?;
    Ok((text, spec))
}

/// The subcommand `experiment run`.
///
/// # Errors
/// The specification has mistakes, the folder has another study, a worker failed, or the user stopped it. What is done is kept.
pub fn run(args: &RunArgs) -> Result<()> {
    let study = match (&args.resume, &args.spec) {
        (Some(folder), _) => Study::open(folder)?,
        (None, None) => bail!("which specification?"),
        (None, Some(path)) => {
            let (text, spec) = read_spec(path)?;
            if args.check {
                return crate::process::print(&format!("{}: valid; {}\n", path.display(), size(&spec)));
            }
            let folder = args.out_dir.clone().unwrap_or_else(|| show::default_root().join(&spec.name));
            Study::create(&folder, &text, spec)?
        }
    };
    let provenance = study.provenance();
    ensure!(
        provenance.version == crate::version(),
        "the study was begun by scx_rl {}, this is {}: cells of both would not compare; begin it again with --out-dir",
        provenance.version,
        crate::version()
    );
    let _lock = study.lock()?;
    let stop = Stop::on_signals()?;
    child::adopt_orphans()?;
    let mut progress = Progress::new(&study);
    println!(
        "{}: {}, {} of them done; in {}",
        study.spec().name,
        size(study.spec()),
        progress.done.len(),
        study.path("").display()
    );
    for (number, batch) in plan::batches(study.spec()).into_iter().enumerate() {
        work(&study, number, batch, &stop, &mut progress)?;
    }
    let missing = progress.all.len() - progress.done.len();
    ensure!(missing == 0, "{missing} cells are missing, although every worker has ended as it should");
    show::show(&study)
}

/// How large a study is.
fn size(spec: &Spec) -> String {
    let many = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let mut parts = vec![
        many(spec.schedulers.len(), "scheduler"),
        many(spec.workloads.len(), "workload"),
        many(spec.seeds.len(), "seed"),
        many(spec.rounds, "round"),
    ];
    if spec.backend != Backend::Host {
        parts.push(if spec.topologies.len() == 1 {
            "1 topology".into()
        } else {
            format!("{} topologies", spec.topologies.len())
        });
    }
    format!("{}: {} cells", parts.join(" x "), plan::all_keys(spec).len())
}

/// One batch, unless it is done.
fn work(study: &Study, number: usize, batch: Batch, stop: &Stop, progress: &mut Progress) -> Result<()> {
    let keys = plan::keys(study.spec(), batch);
    if keys.iter().all(|key| progress.done.contains(key)) {
        return Ok(());
    }
    let logs = study.path("logs");
    fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;
    let exe = std::env::current_exe().context("finding scx_rl's own program file")?;
    let parts = if study.spec().backend == Backend::Simulator { study.spec().jobs.min(keys.len()) } else { 1 };
    let mut workers = Vec::new();
    for part in 0..parts {
        let log = logs.join(format!("worker-{number}-{part}.log"));
        let mut command = Command::new(&exe);
        command.args(["experiment", "work"]).arg(study.path(""));
        for (option, value) in [("--batch", number), ("--part", part), ("--parts", parts)] {
            command.arg(option).arg(value.to_string());
        }
        command.arg("--parent").arg(std::process::id().to_string());
        workers.push((Process::spawn_logged(&mut command, "a worker", &log)?, log));
    }
    let mut failure = None;
    while !workers.is_empty() {
        std::thread::sleep(LOOK);
        if stop.requested() {
            println!("stopping; what is done is kept");
            for (mut worker, _) in workers {
                if let Err(error) = worker.interrupt(END_LIMIT) {
                    log::warn!("{error:#}");
                }
            }
            progress.look(study, &keys)?;
            bail!("interrupted; go on with scx_rl experiment run --resume {}", study.path("").display());
        }
        let mut running = Vec::new();
        for (mut worker, log) in workers {
            match worker.ended()? {
                None => running.push((worker, log)),
                Some(status) if status.success() => {}
                Some(status) => {
                    failure = Some(format!("a worker failed ({status}); its last words:\n{}", system::tail(&log)))
                }
            }
        }
        workers = running;
        progress.look(study, &keys)?;
    }
    match failure {
        None => Ok(()),
        Some(words) => bail!("{words}\nWhat is done is kept; go on with --resume {}", study.path("").display()),
    }
}

/// Which cells are done, and how long the others will take.
struct Progress {
    all: Vec<Key>,
    done: BTreeSet<Key>,
    begin: Instant,
    done_before: usize,
}

impl Progress {
    fn new(study: &Study) -> Progress {
        let all = plan::all_keys(study.spec());
        let done: BTreeSet<Key> = all.iter().filter(|key| study.has(key)).cloned().collect();
        Progress { all, done_before: done.len(), done, begin: Instant::now() }
    }

    /// Tells of each cell of these that is new.
    fn look(&mut self, study: &Study, keys: &[Key]) -> Result<()> {
        let new: Vec<&Key> = keys.iter().filter(|key| !self.done.contains(key) && study.has(key)).collect();
        for key in new {
            let cell = study.cell(key)?;
            self.done.insert(key.clone());
            let words = outcome(&cell.figures, cell.complaint.as_deref());
            println!(
                "[{}/{}, {} left] {} seed {} round {} {} {}: {words}",
                self.done.len(),
                self.all.len(),
                self.left(),
                key.topology,
                key.seed,
                key.round + 1,
                key.scheduler,
                key.workload
            );
        }
        Ok(())
    }

    /// By what the cells of this run took, booting and attaching included.
    fn left(&self) -> String {
        let measured = (self.done.len() - self.done_before).max(1);
        let seconds = self.begin.elapsed().as_secs_f64() * (self.all.len() - self.done.len()) as f64 / measured as f64;
        match seconds {
            s if s < 90.0 => format!("{s:.0} s"),
            s if s < 5400.0 => format!("{:.0} min", s / 60.0),
            s => format!("{:.1} h", s / 3600.0),
        }
    }
}
