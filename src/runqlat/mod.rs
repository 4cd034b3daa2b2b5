// SPDX-License-Identifier: GPL-2.0-only
//! Runqueue latency under any scheduler, by one yardstick: how long tasks wait between being runnable and running, and
//! how far they travel between CPUs.
//!
//! Reading order: `hist` (buckets, percentiles, the picture), `counts` (what the BPF side counts), `longest` (whose), `report`,
//! `tracer`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::process::print;

pub mod counts;
pub mod hist;
pub mod longest;
pub mod report;
mod tracer;

#[allow(missing_docs, clippy::all)]
mod skel {
    include!(concat!(env!("OUT_DIR"), "/runqlat_skel.rs"));
}

pub use counts::Counts;
pub use hist::Histogram;
pub use longest::Longest;
pub use report::{Latency, Migrations, Report, Waiting};
pub use tracer::{Tracer, programs};

/// How often a wait for the next report looks for Ctrl-C.
const POLL: Duration = Duration::from_millis(50);

/// Measure runqueue latency: how long tasks wait for a CPU, under whichever scheduler is running.
///
/// A wait begins when a task is woken (tracepoint sched_wakeup) or loses its CPU while it could go on (preemption), and
/// ends when it runs. Prints the histogram that bpftrace would print of the waits in microseconds, percentiles of all
/// waits and of the two kinds, and how often tasks changed CPU, by the nearest cache or node the CPUs share. Tasks that
/// still wait at the end are in no histogram; the last line tells how many there are, and for how long, so that
/// starvation is visible. The idle task is left out.
///
/// Needs root and a kernel with BTF. Works the same under EEVDF and under every sched_ext scheduler, so its numbers can
/// be compared: start it, run the workload under one scheduler, then under the next.
#[derive(Clone, Debug, clap::Args)]
pub struct RunqlatArgs {
    /// Stop after this many seconds. Without it: until Ctrl-C.
    #[arg(short, long, value_name = "SEC")]
    pub duration: Option<f64>,

    /// Also print what happened in each interval of this many seconds. Needs a whole report's space each time: 5 is a
    /// good choice. The last report is always of the whole time.
    #[arg(short, long, value_name = "SEC")]
    pub interval: Option<f64>,

    /// Write the whole time's report to this file as JSON. `samples`, `mean_us`, `p50_us`, `p90_us`, `p99_us`,
    /// `p999_us`, `max_us` are of all waits; `wakeup` and `preempt` have the same of each kind; `migrations` counts CPU
    /// changes; `missed` must be near zero.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Measures until the time is over or SIGINT / SIGTERM arrives, and prints.
///
/// # Errors
/// A time that is not positive, [`Tracer::start`]'s errors, or a JSON file that cannot be written.
pub fn run(args: RunqlatArgs) -> Result<()> {
    for (flag, seconds) in [("--duration", args.duration), ("--interval", args.interval)] {
        ensure!(
            seconds.is_none_or(|value| value > 0.0 && value < 1e9),
            "{flag} must be a positive number of seconds, less than 1e9"
        );
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stop.clone()).context("catching Ctrl-C")?;
    }
    let mut tracer = Tracer::start()?;
    let start = Instant::now();
    let end = args.duration.map(|seconds| start + Duration::from_secs_f64(seconds));
    let mut total = Counts::default();
    let mut seconds = 0.0;
    if end.is_none() {
        eprintln!("Measuring runqueue latency; Ctrl-C ends it.");
    }
    loop {
        let lap_end = args.interval.map(|interval| Instant::now() + Duration::from_secs_f64(interval));
        let over = wait(&stop, end, lap_end);
        let (counts, lap_seconds) = tracer.lap()?;
        total.merge(&counts);
        seconds += lap_seconds;
        if over {
            break;
        }
        print(&format!("{}\n", Report::new(&counts, tracer.waiting()?, lap_seconds).render()))?;
    }
    let report = Report::new(&total, tracer.waiting()?, seconds);
    print(&report.render())?;
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report).context("writing JSON")?;
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Sleeps until the lap, the whole measurement, or the user's patience ends; true: it is over.
fn wait(stop: &AtomicBool, end: Option<Instant>, lap_end: Option<Instant>) -> bool {
    loop {
        let now = Instant::now();
        if stop.load(Ordering::Relaxed) || end.is_some_and(|end| now >= end) {
            return true;
        }
        if lap_end.is_some_and(|lap_end| now >= lap_end) {
            return false;
        }
        let left = [end, lap_end].into_iter().flatten().map(|at| at - now).fold(POLL, Duration::min);
        std::thread::sleep(left);
    }
}
