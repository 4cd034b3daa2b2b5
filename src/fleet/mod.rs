// SPDX-License-Identifier: GPL-2.0-only
//! `scx_rl fleet`: what many machines recorded, in one place, and one policy learned from all of it. [`store`] is the place;
//! [`events`] are recordings as tables there.

pub mod events;
pub mod store;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};

use crate::agent::recording::{self, is_recording};
use crate::agent::{Agent, Checkpoint, Hyper, Origin};
use crate::learning::{now_utc, utc};
use crate::policy::rl_event;
use crate::process::print;
use crate::{file, run};

use store::Store;

/// Events of a table: some 10 MB, and a few hundred in memory while it is made.
const TABLE_EVENTS: usize = 250_000;
/// How names of checkpoints end.
const CHECKPOINT: &str = ".safetensors";
/// How names of tables end.
const TABLE: &str = ".parquet";

/// Logs and checkpoints of many machines in one place, and learning from all of them.
///
/// A place is a folder or an object store: a path, s3://BUCKET/PREFIX, gs://..., az://....
/// Object stores take credentials and endpoints from the environment, by the names that their own
/// tools use (AWS_ACCESS_KEY_ID, AWS_ENDPOINT, GOOGLE_SERVICE_ACCOUNT, AZURE_STORAGE_ACCOUNT_NAME).
///
///   events/machine=NAME/date=YYYY-MM-DD/RUN-N.parquet     recordings, a row for each decision
///   checkpoints/machine=NAME/FILE                         checkpoints
///
/// Tables are partitioned as DuckDB, Spark and Polars expect. Each row is complete, with its
/// propensity, so any of them can select, weigh and mix events of many machines; `learn` takes what
/// they write. experiments/fleet is an example.
///
/// Examples:
///
///   scx_rl fleet push run.rec checkpoints/latest.safetensors --to s3://fleet/scx_rl
///   scx_rl fleet list s3://fleet/scx_rl
///   scx_rl fleet learn s3://fleet/scx_rl/events --checkpoint fleet.safetensors
///   scx_rl fleet pull s3://fleet/scx_rl/checkpoints/machine=a/latest.safetensors a.safetensors
#[derive(Clone, Debug, clap::Subcommand)]
#[command(verbatim_doc_comment)]
pub enum FleetCommand {
    /// Put recordings (as tables) and checkpoints there. What is there already under the same name is replaced, so it may be
    /// done again.
    Push(PushArgs),
    /// Get one object. A checkpoint is checked before it takes the place of another.
    Pull {
        /// The object.
        from: String,
        /// The file to write.
        file: PathBuf,
    },
    /// What is there, and how large.
    List {
        /// The place, or a part of it.
        place: String,
    },
    /// Learn offline from tables, in the order in which they are named, and write the checkpoint that results.
    Learn(LearnArgs),
}

/// Options of `fleet push`.
#[derive(Clone, Debug, clap::Args)]
pub struct PushArgs {
    /// Recordings that --record wrote, and checkpoints.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The place: a folder, or the URL of an object store.
    #[arg(long, value_name = "PLACE")]
    to: String,
    /// Name of this machine there [default: its host name]
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
}

/// Options of `fleet learn`.
#[derive(Clone, Debug, clap::Args)]
pub struct LearnArgs {
    /// Tables, or places with tables below them, which are taken in the order of their names: what comes last is remembered
    /// best, so let an engine mix them first.
    #[arg(required = true, value_name = "PLACE")]
    logs: Vec<String>,
    /// The checkpoint to write.
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Go on from this checkpoint instead of an imitation of the fixed rule.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["hyper", "seed"])]
    resume: Option<PathBuf>,
    /// How often all tables are learned from.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    passes: u32,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Hyper-parameters as JSON; what is absent has its default.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    hyper: String,
}

/// The subcommand `fleet`.
///
/// # Errors
/// A file is neither a recording nor a checkpoint, a place cannot be used, or there is not enough to learn from.
pub fn run(command: &FleetCommand) -> Result<()> {
    match command {
        FleetCommand::Push(args) => push(args),
        FleetCommand::Pull { from, file } => pull(from, file),
        FleetCommand::List { place } => list(place),
        FleetCommand::Learn(args) => learn(args),
    }
}

fn push(args: &PushArgs) -> Result<()> {
    let machine = match &args.machine {
        Some(name) => name.clone(),
        None => fs::read_to_string("/proc/sys/kernel/hostname").context("this machine has no name")?.trim().to_string(),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    ensure!(
        !machine.is_empty() && machine.chars().all(plain) && !machine.starts_with('.'),
        "--machine {machine:?} cannot be part of a name: use letters, digits, - and _"
    );
    // All of them before the first is written.
    let recordings = args.files.iter().map(|path| is_a_recording(path)).collect::<Result<Vec<_>>>()?;
    let store = Store::open(&args.to)?;
    for (path, recording) in args.files.iter().zip(recordings) {
        if recording {
            push_recording(&store, path, &machine)?;
            continue;
        }
        let name = path.file_name().and_then(|name| name.to_str()).context("its name is not text")?;
        let name = format!("checkpoints/machine={machine}/{name}");
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        store.put(&name, bytes)?;
        print(&format!("{}: {name}\n", path.display()))?;
    }
    Ok(())
}

/// Is it a recording, or else a checkpoint?
fn is_a_recording(path: &Path) -> Result<bool> {
    if is_recording(path).with_context(|| format!("cannot read {}", path.display()))? {
        return Ok(true);
    }
    run::load(path).context("neither a recording nor a checkpoint")?;
    ensure!(
        path.to_string_lossy().ends_with(CHECKPOINT),
        "{} is a checkpoint: let its name end with {CHECKPOINT}",
        path.display()
    );
    Ok(false)
}

/// A recording as tables. They are named after its content, so that it is there once, however often it is pushed.
fn push_recording(store: &Store, path: &Path, machine: &str) -> Result<()> {
    let context = || format!("cannot push {}", path.display());
    let ended = fs::metadata(path).and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let run = file::sha256_of(path).with_context(context)?;
    let folder = format!("events/machine={machine}/date={}", utc(ended).get(..10).unwrap_or_default());
    let (mut part, mut rows, mut parts): (Vec<rl_event>, u64, u32) = (Vec::new(), 0, 0);
    let mut flush = |part: &mut Vec<rl_event>| -> Result<()> {
        let name = format!("{folder}/{}-{parts:04}{TABLE}", run.get(..16).unwrap_or_default());
        let table = events::write(part, rows).with_context(context)?;
        store.put(&name, table)?;
        print(&format!("{}: {name}, {} events\n", path.display(), part.len()))?;
        (rows, parts) = (rows + part.len() as u64, parts + 1);
        part.clear();
        Ok(())
    };
    for event in recording::events(path)? {
        part.push(event?);
        if part.len() == TABLE_EVENTS {
            flush(&mut part)?;
        }
    }
    if part.is_empty() { Ok(()) } else { flush(&mut part) }
}

fn pull(from: &str, to: &Path) -> Result<()> {
    let bytes = Store::open(from)?.get()?;
    if from.ends_with(CHECKPOINT) {
        Checkpoint::from_bytes(&bytes).with_context(|| format!("{from} is not fit to be used"))?;
    }
    file::replace(to, &bytes).with_context(|| format!("cannot write {}", to.display()))
}

fn list(place: &str) -> Result<()> {
    let store = Store::open(place)?;
    let lines: String =
        store.list()?.iter().map(|(path, bytes)| format!("{bytes:>12}  {}\n", store.below(path))).collect();
    print(&lines)
}

/// A place, and the tables at it.
fn tables_at(place: &str) -> Result<(Store, Vec<object_store::path::Path>)> {
    let store = Store::open(place)?;
    let found = store.list()?.into_iter().map(|(path, _)| path);
    let tables: Vec<_> = found.filter(|path| path.as_ref().ends_with(TABLE)).collect();
    ensure!(!tables.is_empty(), "there are no tables (*{TABLE}) at {place}");
    Ok((store, tables))
}

fn learn(args: &LearnArgs) -> Result<()> {
    let (mut agent, origin) = match &args.resume {
        Some(path) => {
            let checkpoint = run::load(path)?;
            (Agent::resume(&checkpoint)?, checkpoint.origin)
        }
        None => {
            let hyper = Hyper::from_json(&args.hyper).context("--hyper")?;
            (Agent::imitating(hyper, args.seed)?, Origin { topology: "many machines".to_string(), ..Origin::default() })
        }
    };
    let before = agent.metrics().updates;
    let places = args.logs.iter().map(|place| tables_at(place)).collect::<Result<Vec<_>>>()?;
    let (mut count, mut tables) = (0, 0);
    for _ in 0..args.passes {
        for (place, (store, paths)) in args.logs.iter().zip(&places) {
            for path in paths {
                let observe = |event: &rl_event| {
                    // As in a live run: an update that failed left the parameters as they were.
                    if let Err(e) = agent.observe(&[*event]) {
                        log::warn!("{e:#}");
                    }
                    Ok(())
                };
                count += events::read(store.read(path)?, observe)
                    .with_context(|| format!("cannot learn from {path} of {place}"))?;
                tables += 1;
            }
        }
    }
    let metrics = agent.metrics();
    let (updates, counts) = (metrics.updates - before, metrics.counters);
    if updates == 0 {
        bail!(
            "{count} events, {} of them usable, are fewer than an update takes ({}): nothing was learned",
            counts.accepted,
            agent.hyper().batch_events
        );
    }
    agent.checkpoint(Origin { created_at: now_utc(), ..origin })?.save(&args.checkpoint)?;
    print(&format!(
        "{count} events in {tables} tables, {} of them learned from, {} censored, {} decided with certainty, {} invalid; \
         {updates} updates; checkpoint: {}\n",
        counts.accepted,
        counts.censored,
        counts.off_mode,
        counts.invalid,
        args.checkpoint.display()
    ))
}
