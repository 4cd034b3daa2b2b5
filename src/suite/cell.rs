// SPDX-License-Identifier: GPL-2.0-only
//! A cell: one workload under one scheduler in one round, and what came of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::bpf_cost;
use super::contender::{Attached, Contender};
use super::workload::{Site, Workload};
use crate::lab::system::KernelLog;
use crate::runqlat::{Counts, Report, Tracer};

/// The kernel's words about a scheduler that it throws out may come a little later than the fact.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What is run in a cell.
#[derive(Clone, Copy)]
pub enum Job {
    /// A workload.
    Workload(&'static Workload),
    /// The cost of the scheduler's BPF programs.
    BpfCost,
}

impl Job {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Job::Workload(workload) => workload.name,
            Job::BpfCost => bpf_cost::NAME,
        }
    }

    /// Does it say something about this scheduler?
    pub fn concerns(self, contender: &Contender) -> bool {
        matches!(self, Job::Workload(_)) || !contender.command.is_empty()
    }

    fn run(self, site: &Site<'_>) -> Result<BTreeMap<String, f64>> {
        match self {
            Job::Workload(workload) => {
                let values = (workload.run)(site)?;
                Ok(workload.figures.iter().map(|figure| figure.name.to_string()).zip(values).collect())
            }
            Job::BpfCost => bpf_cost::measure(site),
        }
    }
}

/// A line of results.jsonl.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// Which round, from 0.
    pub round: usize,
    /// The scheduler's place in the round, from 0.
    pub position: usize,
    /// The scheduler.
    pub scheduler: String,
    /// The workload.
    pub workload: String,
    /// Its figures by name; empty where it failed.
    pub figures: BTreeMap<String, f64>,
    /// How long all of it took.
    pub seconds: f64,
    /// All tasks' waits meanwhile; none without the tracer.
    pub latency: Option<Report>,
    /// Why there are no figures.
    pub complaint: Option<String>,
    /// Faults that the kernel logged meanwhile.
    pub kernel: Vec<String>,
    /// The waits, to be merged.
    #[serde(skip)]
    pub counts: Option<Counts>,
}

/// The figures of a cell, or why it has none, in words.
pub fn outcome(figures: &BTreeMap<String, f64>, complaint: Option<&str>) -> String {
    match complaint {
        Some(complaint) => format!("FAILED: {complaint}"),
        None => figures.iter().map(|(name, value)| format!("{name} {value:.4}")).collect::<Vec<_>>().join(", "),
    }
}

impl Cell {
    /// One that could not even begin.
    pub fn refused(job: Job, place: (usize, usize, &str), complaint: String, kernel: Vec<String>) -> Cell {
        Cell { complaint: Some(complaint), kernel, ..Cell::empty(job, place) }
    }

    /// It in a line, and a line for each of the kernel's words.
    pub fn line(&self) -> String {
        let first = format!(
            "  {:<18}{:>5.1} s  {}",
            self.workload,
            self.seconds,
            outcome(&self.figures, self.complaint.as_deref())
        );
        [first]
            .into_iter()
            .chain(self.kernel.iter().map(|line| format!("    kernel: {line}")))
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn empty(job: Job, (round, position, scheduler): (usize, usize, &str)) -> Cell {
        Cell {
            round,
            position,
            scheduler: scheduler.into(),
            workload: job.name().into(),
            figures: BTreeMap::new(),
            seconds: 0.0,
            latency: None,
            complaint: None,
            kernel: Vec::new(),
            counts: None,
        }
    }
}

/// Runs one job under the scheduler that is attached. What goes wrong is in the cell.
///
/// # Errors
/// The user's wish to stop, or the tracer or the kernel's log cannot be read.
pub fn run(
    job: Job,
    place: (usize, usize, &str),
    attached: &mut Attached,
    site: &Site<'_>,
    tracer: &mut Option<Tracer>,
    kernel_log: &mut KernelLog,
) -> Result<Cell> {
    if let Some(tracer) = tracer {
        tracer.reset()?;
    }
    let begin = Instant::now();
    let ran = attached.check().and_then(|()| job.run(site));
    let (mut latency, mut measured) = (None, None);
    if let Some(tracer) = tracer {
        let (counts, seconds) = tracer.lap()?;
        latency = Some(Report::new(&counts, tracer.waiting()?, seconds));
        measured = Some(counts);
    }
    let seconds = begin.elapsed().as_secs_f64();
    ensure!(!site.stop.requested(), "interrupted");
    let stayed = attached.check();
    if stayed.is_err() {
        std::thread::sleep(LAST_WORDS);
    }
    let kernel = kernel_log.complaints()?;
    let mut cell = Cell { seconds, latency, kernel, counts: measured, ..Cell::empty(job, place) };
    // A scheduler that was thrown out is the reason, whatever the workload says.
    match stayed.with_context(|| format!("{} did not stay attached", cell.scheduler)).and(ran) {
        Ok(figures) => cell.figures = figures,
        Err(error) => cell.complaint = Some(format!("{error:#}")),
    }
    Ok(cell)
}
