// SPDX-License-Identifier: GPL-2.0-only
//! One phase: a scheduler, the workload, the tracer, and what they counted in the same window of time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::workload::{Throughput, Workload};
use crate::lab::child::{Process, Stop};
use crate::lab::system;
use crate::runqlat::{Migrations, Report, Tracer};

/// How long a scheduler may take to end after SIGINT: it writes its summary, and a checkpoint when it learns.
pub const END_LIMIT: Duration = Duration::from_secs(30);

/// What schedules during a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Nothing attached: the kernel's own scheduler.
    Eevdf,
    /// The fixed rule.
    Heuristic,
    /// A coin.
    Random,
    /// The policy that was learned.
    Frozen,
}

impl Mode {
    /// In the order of the table.
    pub const ALL: [Mode; 4] = [Mode::Eevdf, Mode::Heuristic, Mode::Random, Mode::Frozen];

    /// The row of the table, the key of the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Eevdf => "eevdf",
            Mode::Heuristic => "heuristic",
            Mode::Random => "random",
            Mode::Frozen => "frozen",
        }
    }

    /// The arguments of scx_rl; `None` where it does not run.
    fn args(self, checkpoint: &Path) -> Option<Vec<String>> {
        match self {
            Mode::Eevdf => None,
            Mode::Heuristic => Some(vec!["--heuristic".into()]),
            Mode::Random => Some(vec!["--random".into()]),
            Mode::Frozen => Some(vec!["--frozen".into(), checkpoint.display().to_string()]),
        }
    }
}

/// What a phase came to.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Which round, from 0.
    pub round: usize,
    /// Which phase of the round, from 0.
    pub position: usize,
    /// All tasks' waits.
    pub latency: Report,
    /// CPU changes, per second.
    pub migrations_per_s: Migrations<f64>,
    /// The workload's rates.
    pub rates: Throughput,
    /// One number for them.
    pub throughput: f64,
    /// The scheduler's own summary; none under EEVDF.
    pub summary: Option<serde_json::Value>,
}

/// What stays the same from phase to phase.
pub struct Bench<'a> {
    /// The scheduler's program.
    pub exe: &'a Path,
    /// For logs and results.
    pub folder: &'a Path,
    /// The learned policy.
    pub checkpoint: PathBuf,
    /// Of the machine.
    pub cpus: usize,
    /// Of the workload.
    pub seed: u64,
    /// Not measured, at the begin of each phase.
    pub warm_up: Duration,
    /// Measured.
    pub measure: Duration,
    /// The user's wish.
    pub stop: &'a Stop,
}

impl Bench<'_> {
    /// Runs one phase.
    ///
    /// # Errors
    /// A scheduler that does not start, stay, or end; a workload that fails; the user's wish to stop.
    pub fn run(&self, mode: Mode, round: usize, position: usize, tracer: &mut Tracer) -> Result<Outcome> {
        system::wait_detached()?;
        let name = format!("{}-{round}", mode.name());
        let mut scheduler = self.start_scheduler(mode, &name)?;
        let length = self.warm_up + self.measure;
        let mut workload = Workload::start(self.cpus, length, self.seed, self.folder, &name)?;
        let begin = Instant::now();
        let mut check = |scheduler: &mut Option<Scheduler>| {
            workload.check()?;
            scheduler.as_mut().map_or(Ok(()), Scheduler::check)
        };
        self.stop.sleep_until(begin + self.warm_up, || check(&mut scheduler))?;
        tracer.reset()?;
        let from = Instant::now();
        // stress-ng's clock began a little before ours; at the very end it may be done already.
        let end = begin + length;
        self.stop.sleep_until(end - Duration::from_millis(200).min(self.measure / 10), || check(&mut scheduler))?;
        let latency = tracer.snapshot()?;
        let to = Instant::now();
        let rates = workload.finish(from, to)?;
        let summary = scheduler.map(Scheduler::finish).transpose()?;
        system::wait_detached()?;
        Ok(Outcome {
            round,
            position,
            migrations_per_s: latency.migrations.per_second(latency.seconds),
            latency,
            rates,
            throughput: rates.index(),
            summary,
        })
    }

    fn start_scheduler(&self, mode: Mode, name: &str) -> Result<Option<Scheduler>> {
        let Some(args) = mode.args(&self.checkpoint) else { return Ok(None) };
        let summary = self.folder.join(format!("{name}.json"));
        let log = self.folder.join(format!("{name}.log"));
        let mut command = Command::new(self.exe);
        command.args(args).arg("--summary").arg(&summary);
        let process = Process::spawn_logged(&mut command, mode.name(), &log)?;
        Scheduler::attached(process, summary, log, self.stop).map(Some)
    }
}

/// One of our schedulers, attached.
pub struct Scheduler {
    process: Process,
    summary: PathBuf,
    log: PathBuf,
}

impl Scheduler {
    /// Waits until it is attached.
    ///
    /// # Errors
    /// It is not, in time.
    pub fn attached(mut process: Process, summary: PathBuf, log: PathBuf, stop: &Stop) -> Result<Scheduler> {
        system::wait_attached(&mut process, stop, &log, system::is_ours)?;
        Ok(Scheduler { process, summary, log })
    }

    /// Is it still running, and attached?
    ///
    /// # Errors
    /// It is not.
    pub fn check(&mut self) -> Result<()> {
        let ended = self.process.ended()?;
        ensure!(
            ended.is_none(),
            "the scheduler ended by itself; the last words in {}:\n{}",
            self.log.display(),
            system::tail(&self.log)
        );
        system::check_attached(system::is_ours).map(drop)
    }

    /// Ends it by SIGINT and reads its summary.
    ///
    /// # Errors
    /// It does not end, fails, or leaves no summary.
    pub fn finish(mut self) -> Result<serde_json::Value> {
        let status = self.process.interrupt(END_LIMIT)?;
        ensure!(
            status.success(),
            "the scheduler failed ({status}); the last words in {}:\n{}",
            self.log.display(),
            system::tail(&self.log)
        );
        let text = std::fs::read_to_string(&self.summary)
            .with_context(|| format!("the scheduler left no summary, {}", self.summary.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON", self.summary.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_those_of_the_command_line() {
        let checkpoint = Path::new("out/latest.safetensors");
        assert_eq!(Mode::Eevdf.args(checkpoint), None);
        assert_eq!(Mode::Frozen.args(checkpoint).unwrap(), ["--frozen", "out/latest.safetensors"]);
        assert_eq!(Mode::Heuristic.args(checkpoint).unwrap(), ["--heuristic"]);
    }
}
