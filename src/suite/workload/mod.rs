// SPDX-License-Identifier: GPL-2.0-only
//! The workloads: real programs with a fixed amount of work, or a fixed time, and the figures they end with.
//!
//! Each is short, because everything may run under emulation. [`REAL`] and [`ON_DEMAND`] are the lists; `bench` has those that
//! are one program, `compile` and `servers` those that need more, `locality` the synthetic ones.

mod bench;
mod compile;
mod locality;
mod servers;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde::Serialize;

use crate::lab::child::{Process, Stop};
use crate::lab::system::tail;
use crate::lab::tools::{HACKBENCH, STRESS_NG, Tool};

/// How long one program of a workload may take. A scheduler that needs longer has failed.
const LIMIT: Duration = Duration::from_secs(180);
/// How long a program may take to end when asked to.
const END_LIMIT: Duration = Duration::from_secs(20);

/// Which way a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// The more the better: a rate.
    Higher,
    /// The less the better: a time.
    Lower,
}

/// What a workload measures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Its name, unique in the workload.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Which way it is better.
    pub better: Better,
    /// Is it part of the workload's ratio, and so of the geometric mean? The others are for information.
    pub counts: bool,
}

/// A workload.
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// What has to be installed.
    pub tools: &'static [Tool],
    /// What it measures.
    pub figures: &'static [Figure],
    /// Once, before anything is measured.
    pub prepare: fn(&Site<'_>) -> Result<()>,
    /// Runs it; the figures' values, in their order.
    pub run: fn(&Site<'_>) -> Result<Vec<f64>>,
}

const fn rate(name: &'static str, unit: &'static str) -> Figure {
    Figure { name, unit, better: Better::Higher, counts: true }
}

const fn time(name: &'static str, unit: &'static str) -> Figure {
    Figure { name, unit, better: Better::Lower, counts: true }
}

/// Shown, but not counted.
const fn aside(figure: Figure) -> Figure {
    Figure { counts: false, ..figure }
}

const GCC: Tool = Tool::of("gcc", "gcc");
const MAKE: Tool = Tool::of("make", "make");
const FIO: Tool = Tool::of("fio", "fio");
const PERF: Tool = Tool::of("perf", "linux-perf");
const SYSBENCH: Tool = Tool::of("sysbench", "sysbench");
const CYCLICTEST: Tool = Tool::of("cyclictest", "rt-tests");
const NGINX: Tool = Tool::of("nginx", "nginx-light");
const APACHE: Tool = Tool::of("apache2", "apache2-bin");
const WRK: Tool = Tool::of("wrk", "wrk");
const POSTGRES: Tool = Tool::of("postgres", "postgresql");
const PGBENCH: Tool = Tool::of("pgbench", "postgresql");
const SCHBENCH: Tool = Tool { name: "schbench", package: None };

/// Real programs, in the order in which they run.
pub const REAL: &[Workload] = &[
    Workload {
        name: "compile",
        about: "make -j, two jobs for each CPU: generated C files, in memory",
        tools: &[GCC, MAKE],
        figures: &[time("time", "s")],
        prepare: compile::prepare,
        run: compile::run,
    },
    Workload {
        name: "hackbench-pipe",
        about: "hackbench -p: 160 processes in 4 groups",
        tools: &[HACKBENCH],
        figures: &[time("time", "s")],
        prepare: nothing,
        run: bench::hackbench_pipe,
    },
    Workload {
        name: "hackbench-thread",
        about: "hackbench -T: 160 threads in 4 groups, over sockets",
        tools: &[HACKBENCH],
        figures: &[time("time", "s")],
        prepare: nothing,
        run: bench::hackbench_thread,
    },
    Workload {
        name: "perf-messaging",
        about: "perf bench sched messaging: 160 processes in 4 groups, over sockets",
        tools: &[PERF],
        figures: &[time("time", "s")],
        prepare: nothing,
        run: bench::perf_messaging,
    },
    Workload {
        name: "perf-pipe",
        about: "perf bench sched pipe: two processes that wake each other",
        tools: &[PERF],
        figures: &[time("operation", "us")],
        prepare: nothing,
        run: bench::perf_pipe,
    },
    Workload {
        name: "stress-switch",
        about: "stress-ng --switch: a pair for each CPU that passes a byte",
        tools: &[STRESS_NG],
        figures: &[rate("switches", "1/s")],
        prepare: nothing,
        run: bench::stress_switch,
    },
    Workload {
        name: "stress-fork",
        about: "stress-ng --fork: one for each CPU",
        tools: &[STRESS_NG],
        figures: &[rate("forks", "1/s")],
        prepare: nothing,
        run: bench::stress_fork,
    },
    Workload {
        name: "sysbench-threads",
        about: "sysbench threads: four threads for each CPU, yielding under locks",
        tools: &[SYSBENCH],
        figures: &[rate("events", "1/s"), aside(time("p99", "ms"))],
        prepare: nothing,
        run: bench::sysbench_threads,
    },
    Workload {
        name: "cyclictest",
        about: "cyclictest --policy other: timer wakeups each ms beside hackbench",
        tools: &[CYCLICTEST, HACKBENCH],
        figures: &[time("wake p99", "us"), aside(time("wake p50", "us"))],
        prepare: nothing,
        run: bench::cyclictest,
    },
    Workload {
        name: "fio-compile",
        about: "make -j (half the files) beside two fio jobs that read 4 KiB every 10 ms, through kernel threads",
        tools: &[GCC, MAKE, FIO],
        figures: &[time("compile", "s"), rate("reads", "1/s"), time("read p99", "us")],
        prepare: compile::prepare_mix,
        run: compile::run_mix,
    },
    Workload {
        name: "nginx-wrk",
        about: "nginx, a worker for each CPU, and wrk with 32 connections",
        tools: &[NGINX, WRK],
        figures: WEB_FIGURES,
        prepare: servers::prepare_web,
        run: servers::run_nginx,
    },
    Workload {
        name: "pgbench",
        about: "PostgreSQL, two clients for each CPU: pgbench -N -M prepared",
        tools: &[POSTGRES, PGBENCH],
        figures: &[rate("transactions", "1/s"), time("p99", "us")],
        prepare: servers::prepare_postgres,
        run: servers::run_pgbench,
    },
    Workload {
        name: "schbench",
        about: "schbench -m 2 -n 1, two workers for each CPU",
        tools: &[SCHBENCH],
        figures: SCHBENCH_FIGURES,
        prepare: nothing,
        run: bench::schbench,
    },
    Workload {
        name: "schbench-hogs",
        about: "schbench -m 2 -n 1, one worker for each CPU, beside a CPU hog for each CPU",
        tools: &[SCHBENCH, STRESS_NG],
        figures: &[time("wake p99", "us"), rate("requests", "1/s"), aside(time("wake p50", "us"))],
        prepare: nothing,
        run: bench::schbench_hogs,
    },
];

/// What wrk says of a web server.
const WEB_FIGURES: &[Figure] = &[rate("requests", "1/s"), time("p99", "us")];

/// What schbench ends with.
const SCHBENCH_FIGURES: &[Figure] =
    &[time("wake p99", "us"), time("request p99", "us"), rate("requests", "1/s"), aside(time("wake p50", "us"))];

/// From a burst's arrival to its end; and whether all were served: where the backlog is more than a few for each worker, costs
/// have overloaded the machine, and the times are too short, because what never ended is not in them.
const RESPONSES: &[Figure] =
    &[time("mean", "us"), time("p99", "us"), aside(rate("bursts", "1/s")), aside(time("backlog", "bursts"))];

/// Made up to show something, or for a study. They run if they are named, and are not among those that no name stands for.
pub const ON_DEMAND: &[Workload] = &[
    Workload {
        name: "schbench-compile",
        about: "schbench as beside hogs, but beside make -j, two jobs for each CPU",
        tools: &[SCHBENCH, GCC, MAKE],
        figures: SCHBENCH_FIGURES,
        prepare: compile::prepare,
        run: bench::schbench_compile,
    },
    Workload {
        name: "apache-wrk",
        about: "Apache (event), a process of 16 threads for each CPU, and wrk with 32 connections",
        tools: &[APACHE, WRK],
        figures: WEB_FIGURES,
        prepare: servers::prepare_web,
        run: servers::run_apache,
    },
    Workload {
        name: "locality-free",
        about: "scx_rl locality: bursts of 2 ms, 65 % of the CPUs; moves between caches cost nothing",
        tools: &[],
        figures: RESPONSES,
        prepare: locality::prepare,
        run: locality::free,
    },
    Workload {
        name: "locality-dear",
        about: "the same, and a move costs as much as a burst",
        tools: &[],
        figures: RESPONSES,
        prepare: locality::prepare,
        run: locality::dear,
    },
    Workload {
        name: "locality-half",
        about: "the same, but for half of the workers moves cost nothing",
        tools: &[],
        figures: RESPONSES,
        prepare: locality::prepare,
        run: locality::half,
    },
];

fn nothing(_site: &Site<'_>) -> Result<()> {
    Ok(())
}

/// Where workloads run.
pub struct Site<'a> {
    /// For their files; in memory.
    pub folder: PathBuf,
    /// CPUs of the machine.
    pub cpus: usize,
    /// Of generated input.
    pub seed: u64,
    /// The user's wish.
    pub stop: &'a Stop,
}

/// A program that ran to its end.
pub struct Ran {
    /// What it printed.
    pub text: String,
    /// How long it took.
    pub seconds: f64,
}

impl Site<'_> {
    /// A file's path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.log"))
    }

    /// Runs a program to its end.
    ///
    /// # Errors
    /// It cannot be started, takes too long, or fails.
    pub fn run(&self, name: &str, command: &mut Command) -> Result<Ran> {
        let log = self.log(name);
        let begin = Instant::now();
        let mut process = Process::spawn_logged(command.current_dir(&self.folder), name, &log)?;
        let status = process.wait_within(LIMIT, self.stop)?;
        let seconds = begin.elapsed().as_secs_f64();
        ensure!(status.success(), "{name} failed ({status}); its last words:\n{}", tail(&log));
        Ok(Ran { text: read(&log)?, seconds })
    }

    /// Starts a program that runs beside another.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, name: &str, command: &mut Command) -> Result<Process> {
        Process::spawn_logged(command.current_dir(&self.folder), name, &self.log(name))
    }

    /// The program beside has not ended by itself.
    ///
    /// # Errors
    /// It has.
    pub fn still_runs(&self, name: &str, process: &mut Process) -> Result<()> {
        match process.ended()? {
            None => Ok(()),
            Some(status) => Err(anyhow!("{name} ended early ({status}); its last words:\n{}", tail(&self.log(name)))),
        }
    }

    /// Waits until `ready`, looking ten times a second.
    ///
    /// # Errors
    /// It is not within [`END_LIMIT`], the process ended, or the user's wish to stop.
    pub fn wait_ready(&self, name: &str, process: &mut Process, ready: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + END_LIMIT;
        while !ready() {
            self.still_runs(name, process)?;
            ensure!(Instant::now() < deadline, "{name} is not ready after {} s", END_LIMIT.as_secs());
            self.stop.sleep_until(Instant::now() + Duration::from_millis(100), || Ok(()))?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A figure that must be in a tool's output.
fn found<T>(figure: Option<T>, name: &str, text: &str) -> Result<T> {
    figure.with_context(|| format!("{name} printed no figures, but:\n{}", text.chars().take(500).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_workload_counts() {
        let all = || REAL.iter().chain(ON_DEMAND);
        let names: std::collections::BTreeSet<_> = all().map(|workload| workload.name).collect();
        assert_eq!(names.len(), all().count());
        for workload in all() {
            assert!(workload.figures.iter().any(|figure| figure.counts), "{}", workload.name);
            assert!(!workload.name.contains([',', ' ']));
        }
        assert!(REAL.iter().all(|workload| !workload.tools.is_empty()));
    }

    #[test]
    fn programs_are_run_timed_and_bounded_by_their_success() {
        let stop = Stop::manual();
        let folder = std::env::temp_dir().join(format!("scx_rl-site-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let site = Site { folder: folder.clone(), cpus: 1, seed: 1, stop: &stop };
        let sh = |script: &str| site.run("sh", Command::new("sh").args(["-c", script]));
        let ran = sh("sleep 0.05; echo out; echo err >&2").unwrap();
        assert_eq!(ran.text, "out\nerr\n");
        assert!((0.05..30.0).contains(&ran.seconds));
        let error = format!("{:#}", sh("echo why; exit 3").err().unwrap());
        assert!(error.contains("sh failed (exit status: 3)") && error.contains("why"), "{error}");
        let error = found(None::<f64>, "tool", "rubbish").unwrap_err().to_string();
        assert!(error.contains("tool printed no figures") && error.contains("rubbish"), "{error}");
        fs::remove_dir_all(&folder).unwrap();
    }
}
