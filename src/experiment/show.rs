// SPDX-License-Identifier: GPL-2.0-only
//! What studies there are, what one found, and how two differ.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::plan;
use super::study::{Record, Study};
use super::subject::subjects;
use crate::process::print;
use crate::suite::cell::Cell;
use crate::suite::summary::Findings;
use crate::suite::table;

/// Where studies are, if nobody says otherwise.
pub fn default_root() -> PathBuf {
    PathBuf::from("scx_rl-experiments")
}

/// Options of `experiment list`.
#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    /// The folder that has the studies' folders.
    #[arg(value_name = "DIR", default_value_os_t = default_root())]
    pub root: PathBuf,
}

/// Options of `experiment show`.
#[derive(Clone, Debug, clap::Args)]
pub struct ShowArgs {
    /// The study's folder.
    #[arg(value_name = "DIR")]
    pub study: PathBuf,
    /// Print JSON: for each topology all that was found.
    #[arg(long)]
    pub json: bool,
}

/// Options of `experiment compare`.
#[derive(Clone, Debug, clap::Args)]
pub struct CompareArgs {
    /// The study that ratios are to.
    #[arg(value_name = "DIR")]
    pub before: PathBuf,
    /// The other one.
    #[arg(value_name = "DIR")]
    pub after: PathBuf,
}

/// The subcommand `experiment list`.
///
/// # Errors
/// The folder cannot be read.
pub fn list(args: &ListArgs) -> Result<()> {
    let entries = std::fs::read_dir(&args.root).with_context(|| format!("reading {}", args.root.display()))?;
    let mut folders: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    folders.sort();
    let mut text = String::new();
    for folder in folders.iter().filter(|folder| folder.join("study.json").exists()) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        // Writing to a String cannot fail.
        let _ = match Study::open(folder) {
            Ok(study) => {
                let (done, all) = study.progress();
                writeln!(text, "{name:<24} {done:>6} of {all:>6} cells  {}", study.spec().about)
            }
            Err(error) => writeln!(text, "{name:<24} damaged: {error:#}"),
        };
    }
    ensure!(!text.is_empty(), "no study in {}", args.root.display());
    print(&text)
}

/// The subcommand `experiment show`.
///
/// # Errors
/// The folder has no study, or a damaged one.
pub fn run_show(args: &ShowArgs) -> Result<()> {
    let study = Study::open(&args.study)?;
    if !args.json {
        return show(&study);
    }
    let findings = findings(&study)?;
    let by_topology: serde_json::Map<String, serde_json::Value> = findings
        .into_iter()
        .map(|(topology, findings)| Ok((topology, serde_json::to_value(findings)?)))
        .collect::<Result<_>>()?;
    print(&(serde_json::to_string_pretty(&by_topology)? + "\n"))
}

/// Prints what a study found.
///
/// # Errors
/// A cell is damaged.
pub fn show(study: &Study) -> Result<()> {
    print(&text(study)?)
}

/// What a study found, in Markdown.
///
/// # Errors
/// A cell is damaged.
pub fn text(study: &Study) -> Result<String> {
    let spec = study.spec();
    let (done, all) = study.progress();
    let provenance = study.provenance();
    let mut text = format!("# {}\n\n", spec.name);
    // Writing to a String cannot fail.
    if !spec.about.is_empty() {
        let _ = writeln!(text, "{}\n", spec.about);
    }
    if done < all {
        let _ = writeln!(text, "**Incomplete**: {done} of {all} cells.\n");
    }
    let names = spec.names();
    for (topology, findings) in findings(study)? {
        let _ = writeln!(
            text,
            "## {topology}\n\n{}",
            table::findings(&findings, &names, &spec.baseline, spec.all_rounds())
        );
    }
    let _ = writeln!(text, "- scx_rl {}, begun {}", provenance.version, provenance.created_at);
    let _ = writeln!(text, "- specification: SHA-256 {}", provenance.spec_sha256);
    Ok(text)
}

/// By topology.
///
/// # Errors
/// A cell is damaged.
pub fn findings(study: &Study) -> Result<Vec<(String, Findings)>> {
    let (spec, records) = (study.spec(), study.cells()?);
    let names = spec.names();
    let subjects = subjects(spec);
    let of = |topology: String| {
        let mine = records.iter().filter(|record| record.key.topology == topology);
        let cells: Vec<Cell> = mine.filter_map(|record| cell(study, record, &record.key.scheduler)).collect();
        (topology, Findings::new(&cells, &names, &spec.baseline, &subjects, 1))
    };
    Ok(spec.topologies.iter().map(|topology| of(topology.name())).collect())
}

/// As the suite has it.
fn cell(study: &Study, record: &Record, scheduler: &str) -> Option<Cell> {
    Some(Cell {
        round: plan::round_of(study.spec(), &record.key)?,
        position: 0,
        scheduler: scheduler.into(),
        workload: record.key.workload.clone(),
        figures: record.figures.clone(),
        seconds: record.seconds,
        latency: None,
        complaint: record.complaint.clone(),
        kernel: record.kernel_log.clone(),
        counts: record.waits.as_ref().map(Into::into),
    })
}

/// The subcommand `experiment compare`: each scheduler that both studies have, on each machine that both have.
///
/// # Errors
/// A folder has no study, or they have nothing in common.
pub fn compare(args: &CompareArgs) -> Result<()> {
    let (before, after) = (Study::open(&args.before)?, Study::open(&args.after)?);
    let (old, new) = (before.cells()?, after.cells()?);
    let common: Vec<_> =
        subjects(before.spec()).into_iter().filter(|subject| after.spec().workloads.contains(&subject.name)).collect();
    let mut text = String::new();
    for topology in before.spec().topologies.iter().filter(|t| after.spec().topologies.contains(t)) {
        for scheduler in
            before.spec().schedulers.iter().filter(|s| after.spec().schedulers.iter().any(|o| o.name == s.name))
        {
            let names = [label("before", &args.before), label("after", &args.after)];
            let mine =
                |record: &&Record| record.key.topology == topology.name() && record.key.scheduler == scheduler.name;
            let mut cells: Vec<Cell> = old.iter().filter(mine).filter_map(|r| cell(&before, r, &names[0])).collect();
            cells.extend(new.iter().filter(mine).filter_map(|r| cell(&after, r, &names[1])));
            let rounds = cells.iter().map(|cell| cell.round + 1).max().unwrap_or(0);
            let findings = Findings::new(&cells, &names, &names[0], &common, 1);
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "## {}, {}\n\n{}",
                topology.name(),
                scheduler.name,
                table::ratios(&findings, &names, &names[0], rounds)
            );
        }
    }
    ensure!(!text.is_empty() && !common.is_empty(), "the studies have no machine, scheduler and workload in common");
    print(&text)
}

fn label(when: &str, folder: &Path) -> String {
    let name =
        folder.file_name().map_or_else(|| folder.display().to_string(), |name| name.to_string_lossy().into_owned());
    format!("{when} ({name})")
}
