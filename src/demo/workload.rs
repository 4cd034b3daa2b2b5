// SPDX-License-Identifier: GPL-2.0-only
//! The workload of every phase: more runnable tasks than CPUs, some that only compute and many that wake each other.
//!
//! stress-ng computes (one process for three of four CPUs, at least two) and passes bytes through pipes (one pair for two
//! CPUs); beside it hackbench runs in a loop: 20 processes, woken in bursts. Each of the three has its own rate, per
//! second; the throughput of a phase is the geometric mean of the three, so that a scheduler that feeds one by starving
//! another gains nothing, and the ratio of two throughputs is the mean ratio of the three rates.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde::Serialize;

use crate::lab::child::{Killer, Process, Stop};
use crate::lab::system;
use crate::lab::tools::{HACKBENCH, STRESS_NG, Tool, stress_rate};

/// In which unit the throughput is.
pub const UNIT: &str = "geometric mean of stress-ng cpu bogo-ops/s, stress-ng pipe bogo-ops/s and hackbench messages/s";

/// What it needs.
pub const TOOLS: [Tool; 2] = [STRESS_NG, HACKBENCH];

/// hackbench: groups, senders (and as many receivers) in each, messages from each sender to each receiver.
const GROUPS: u64 = 2;
const SENDERS: u64 = 5;
const LOOPS: u64 = 50;
const MESSAGES_PER_RUN: u64 = GROUPS * SENDERS * SENDERS * LOOPS;
/// How much longer than asked for stress-ng may take to end.
const STRESS_GRACE: Duration = Duration::from_secs(20);

/// What the workload did, each second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Throughput {
    /// stress-ng's processes that compute, bogo-ops/s.
    pub cpu: f64,
    /// stress-ng's pipes, bogo-ops/s.
    pub pipe: f64,
    /// hackbench, messages/s.
    pub hackbench: f64,
}

impl Throughput {
    /// One number for the three: their geometric mean.
    pub fn index(&self) -> f64 {
        (self.cpu * self.pipe * self.hackbench).cbrt()
    }
}

/// A running workload.
pub struct Workload {
    stress: Process,
    yaml: PathBuf,
    log: PathBuf,
    hackbench: Hackbench,
}

impl Workload {
    /// Starts everything. stress-ng ends by itself after `duration`; files go to `folder`, their names begin with `name`.
    ///
    /// # Errors
    /// A tool cannot be started.
    pub fn start(cpus: usize, duration: Duration, seed: u64, folder: &Path, name: &str) -> Result<Workload> {
        let yaml = folder.join(format!("{name}.stress-ng.yaml"));
        let log = folder.join(format!("{name}.workload.log"));
        let mut command = Command::new("stress-ng");
        command.args(stress_args(cpus, duration, seed)).arg("--temp-path").arg(folder).arg("--yaml").arg(&yaml);
        let stress = Process::spawn_logged(command.current_dir(folder), "stress-ng", &log)?;
        Ok(Workload { stress, yaml, log, hackbench: Hackbench::start() })
    }

    /// Has a part of it ended before its time?
    ///
    /// # Errors
    /// It has.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.stress.ended()? {
            return Err(anyhow!("stress-ng ended early ({status}):\n{}", system::tail(&self.log)));
        }
        if self.hackbench.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            return self.hackbench.end().map(drop);
        }
        Ok(())
    }

    /// Ends it; nothing is reported.
    pub fn abandon(self) {}

    /// Waits for stress-ng's end, ends hackbench, and reads what they did. hackbench's rate is that of the runs between
    /// `from` and `to`; stress-ng's is of its whole duration.
    ///
    /// # Errors
    /// stress-ng does not end or reports nothing, or no hackbench run fits between `from` and `to`.
    pub fn finish(mut self, from: Instant, to: Instant) -> Result<Throughput> {
        let runs = self.hackbench.end()?;
        let status = self.stress.wait(STRESS_GRACE)?;
        ensure!(status.success(), "stress-ng failed ({status}):\n{}", system::tail(&self.log));
        let text = std::fs::read_to_string(&self.yaml).with_context(|| format!("reading {}", self.yaml.display()))?;
        let rate = |stressor| {
            stress_rate(&text, stressor).with_context(|| format!("{}: no rate of {stressor}", self.yaml.display()))
        };
        let hackbench = hackbench_rate(&runs, from, to).with_context(|| {
            format!(
                "no hackbench run began and ended within the {:.1} s that were measured: use a longer --phase-seconds",
                (to - from).as_secs_f64()
            )
        })?;
        Ok(Throughput { cpu: rate("cpu")?, pipe: rate("pipe")?, hackbench })
    }
}

/// The stressors, for so many CPUs.
fn stress_args(cpus: usize, duration: Duration, seed: u64) -> Vec<String> {
    let computing = (cpus * 3 / 4).max(2);
    let pipes = (cpus / 2).max(1);
    let mut args: Vec<String> = ["--metrics", "--cpu-method", "int64"].map(String::from).into();
    for (flag, value) in [
        ("--cpu", computing as u64),
        ("--pipe", pipes as u64),
        ("--seed", seed),
        ("--timeout", duration.as_secs_f64().ceil() as u64),
    ] {
        args.extend([flag.into(), value.to_string()]);
    }
    args
}

/// What is run, for the record.
pub fn description(cpus: usize, duration: Duration, seed: u64) -> Vec<String> {
    vec![
        format!("stress-ng {}", stress_args(cpus, duration, seed).join(" ")),
        format!("hackbench {} (in a loop)", hackbench_args().join(" ")),
    ]
}

fn hackbench_args() -> Vec<String> {
    ["-p", "-g", &GROUPS.to_string(), "-f", &SENDERS.to_string(), "-l", &LOOPS.to_string()].map(String::from).into()
}

/// Messages/s of the runs that lie between `from` and `to`, from the first one's begin to the last one's end.
fn hackbench_rate(runs: &[Run], from: Instant, to: Instant) -> Option<f64> {
    let within: Vec<_> = runs.iter().filter(|(begin, end)| *begin >= from && *end <= to).collect();
    let seconds = (within.last()?.1 - within.first()?.0).as_secs_f64();
    (seconds > 0.0).then(|| (within.len() as u64 * MESSAGES_PER_RUN) as f64 / seconds)
}

/// When a hackbench run began and ended.
type Run = (Instant, Instant);

/// hackbench, again and again, in a thread that remembers when each run began and ended.
struct Hackbench {
    stop: Stop,
    killer: Killer,
    thread: Option<JoinHandle<Result<Vec<Run>>>>,
}

impl Hackbench {
    fn start() -> Hackbench {
        let (stop, killer) = (Stop::manual(), Killer::default());
        let thread = Some(std::thread::spawn({
            let (stop, killer) = (stop.clone(), killer.clone());
            move || run_hackbench(&stop, &killer)
        }));
        Hackbench { stop, killer, thread }
    }

    /// Ends the loop, and the run it is in.
    fn end(&mut self) -> Result<Vec<Run>> {
        self.stop.request();
        let thread = self.thread.take().context("hackbench has ended before")?;
        // Repeated, because the thread may be just before the start of another run.
        while !thread.is_finished() {
            self.killer.kill();
            std::thread::sleep(Duration::from_millis(10));
        }
        thread.join().map_err(|_| anyhow!("the thread that runs hackbench panicked"))?
    }
}

impl Drop for Hackbench {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = self.end();
        }
    }
}

fn run_hackbench(stop: &Stop, killer: &Killer) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    while !stop.requested() {
        let begin = Instant::now();
        let mut process = Process::spawn_silent(Command::new("hackbench").args(hackbench_args()), "hackbench")?;
        killer.aim(&process);
        let status = process.wait_killable(killer)?;
        if stop.requested() {
            break;
        }
        ensure!(status.success(), "hackbench failed ({status})");
        runs.push((begin, Instant::now()));
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_runs_of_the_window_count() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let runs = [(at(0), at(900)), (at(900), at(1500)), (at(1500), at(2000)), (at(2000), at(2600))];
        // Two runs in 1.1 s; the first begins too early, the last ends too late.
        let rate = hackbench_rate(&runs, at(500), at(2500)).unwrap();
        assert!((rate - 2.0 * MESSAGES_PER_RUN as f64 / 1.1).abs() < 1e-6);
        assert_eq!(hackbench_rate(&runs, at(1), at(1400)), None);
        assert_eq!(hackbench_rate(&[], at(0), at(100)), None);
    }

    #[test]
    fn there_are_more_tasks_than_cpus() {
        for cpus in [1, 2, 4, 8, 64] {
            let args = stress_args(cpus, Duration::from_millis(11_500), 7);
            let of =
                |flag: &str| -> u64 { args[args.iter().position(|arg| arg == flag).unwrap() + 1].parse().unwrap() };
            assert!(of("--cpu") + 2 * of("--pipe") > cpus as u64, "{args:?}");
            assert_eq!((of("--timeout"), of("--seed")), (12, 7));
        }
    }

    #[test]
    fn the_index_is_a_geometric_mean() {
        let one = Throughput { cpu: 200.0, pipe: 10_000.0, hackbench: 4_000.0 };
        let other = Throughput { cpu: 100.0, pipe: 40_000.0, hackbench: 2_000.0 };
        assert!((one.index() - 2000.0).abs() < 1e-9);
        // Ratios 0.5, 4 and 0.5: no gain.
        assert!((other.index() / one.index() - 1.0).abs() < 1e-12);
    }
}
