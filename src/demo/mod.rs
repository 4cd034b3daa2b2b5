// SPDX-License-Identifier: GPL-2.0-only
//! `scx_rl demo`: the whole story on one machine, in a few minutes. It learns under a mixed workload, then lets the
//! learned policy, the fixed rule, a coin and the kernel's own scheduler run the same workload in turns, and prints one
//! table.
//!
//! Reading order: `workload`, `phase`, `result`; [`crate::lab`] has what it shares with the suite.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

mod phase;
mod result;
mod workload;

use phase::{Bench, Mode, Outcome, Scheduler};
use result::Demo;
use workload::Workload;

use crate::lab::child::{self, Process, Stop};
use crate::lab::system::{self, KernelLog, Machine};
use crate::lab::{order, prepare_out_dir};
use crate::runqlat::Tracer;

/// Not measured at the begin of each phase: processes start, caches and averages settle.
const WARM_UP: Duration = Duration::from_secs(2);
/// A learning phase may take this much longer before the workload ends by itself: attaching and the last checkpoint.
const LEARN_SLACK: Duration = Duration::from_secs(120);
const CHECKPOINT_EVERY_SECONDS: u32 = 30;
const STATS_EVERY_SECONDS: u32 = 5;

/// Learn on this machine, then compare: EEVDF, the fixed rule, a coin, and the policy that was learned.
///
/// Attaches scx_rl in its learning mode under a mixed workload (stress-ng and hackbench, more runnable tasks than CPUs),
/// shows what it learns, and detaches it. Then every scheduler runs the same workload for a while, in rounds whose order
/// is mirrored every second time. Runqueue latency, migrations and the workload's own throughput are measured in the same
/// way for all. Ends with one table, in which the learned policy may well lose: that is then what it says.
///
/// Needs root, sched_ext, and the packages stress-ng and rt-tests; no other sched_ext scheduler may be attached. Run it
/// on a machine without other load, or in the VM. With the default times it takes four to five minutes.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Where logs, checkpoints and demo.json go. Created if missing; must be writable.
    #[arg(long, value_name = "DIR", default_value = "scx_rl-demo")]
    pub out_dir: PathBuf,

    /// How long to learn. Shorter shows that it works, not what it can learn.
    #[arg(long, value_name = "SEC", default_value_t = 120)]
    pub learn_seconds: u32,

    /// How long each scheduler is measured in each round, after two seconds of warm-up.
    #[arg(long, value_name = "SEC", default_value_t = 10)]
    pub phase_seconds: u32,

    /// How often each scheduler is measured. The table shows medians; with two rounds a difference is called one only
    /// where both rounds of the one are better than both rounds of the other, which chance alone does in a third of cases.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub rounds: usize,

    /// Decides the network's first weights, the workload's random numbers, and the order of phases.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// Runs the demo. All processes it started have ended when it returns, and no scheduler is attached.
///
/// # Errors
/// Something it needs is missing, a scheduler did not start, stay or end, the workload failed, or the user stopped it.
pub fn run(args: DemoArgs) -> Result<()> {
    for (flag, value) in [("--learn-seconds", args.learn_seconds), ("--phase-seconds", args.phase_seconds)] {
        ensure!((1..=86_400).contains(&value), "{flag} must be from 1 to 86400");
    }
    ensure!((1..=100).contains(&args.rounds), "--rounds must be from 1 to 100");
    system::check("the demo")?;
    for tool in workload::TOOLS {
        tool.check()?;
    }
    let begin = Instant::now();
    let folder = prepare_out_dir(&args.out_dir)?;
    let exe = std::env::current_exe().context("finding scx_rl's own program file")?;
    let stop = Stop::on_signals()?;
    child::adopt_orphans()?;
    let mut kernel_log = KernelLog::from_now()?;
    // Attached before anything else, so that what it needs is missed early, and all phases have it alike.
    let mut tracer = Tracer::start()?;
    let machine = Machine::read()?;
    let kernel = system::kernel_release()?;
    println!(
        "Linux {kernel}, {} CPUs, last-level caches {:?}; results in {}",
        machine.cpus,
        machine.llcs,
        folder.display()
    );

    let bench = Bench {
        exe: &exe,
        folder: &folder,
        checkpoint: folder.join("latest.safetensors"),
        cpus: machine.cpus,
        seed: args.seed,
        warm_up: WARM_UP,
        measure: Duration::from_secs(args.phase_seconds.into()),
        stop: &stop,
    };
    let measured = measure(&args, &bench, &mut tracer);
    let complaints = kernel_log.complaints()?;
    if measured.is_err() {
        // The error alone rarely tells why the kernel threw a scheduler out.
        complaints.iter().for_each(|line| eprintln!("kernel: {line}"));
    }
    let (learn, outcomes) = measured?;
    let demo = summarise(&args, &bench, machine, kernel, learn, &outcomes, complaints, begin.elapsed())?;
    let path = folder.join("demo.json");
    let text = serde_json::to_string_pretty(&demo).context("writing JSON")?;
    std::fs::write(&path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    println!("\n{}\n{}\nAll numbers: {}", demo.table(), demo.sentences(), path.display());
    Ok(())
}

type Measured = (serde_json::Value, Vec<(Mode, Outcome)>);

/// Learns, then runs all rounds.
fn measure(args: &DemoArgs, bench: &Bench<'_>, tracer: &mut Tracer) -> Result<Measured> {
    let learn = learn(args, bench).context("learning")?;
    ensure!(
        bench.checkpoint.is_file(),
        "learning left no checkpoint, {}: it needs more time (--learn-seconds)",
        bench.checkpoint.display()
    );
    let mut outcomes = Vec::new();
    for round in 0..args.rounds {
        for (position, mode) in order::order(&Mode::ALL, args.seed, round).into_iter().enumerate() {
            let began = Instant::now();
            let outcome = bench
                .run(mode, round, position, tracer)
                .with_context(|| format!("round {} of {}, {}", round + 1, args.rounds, mode.name()))?;
            println!(
                "round {}/{}, phase {}/4  {:<10} p50 {:>8.1} us  p99 {:>8.0} us  throughput {:>9.1}  ({:.0} s)",
                round + 1,
                args.rounds,
                position + 1,
                mode.name(),
                outcome.latency.total.p50_us,
                outcome.latency.total.p99_us,
                outcome.throughput,
                began.elapsed().as_secs_f64()
            );
            outcomes.push((mode, outcome));
        }
    }
    Ok((learn, outcomes))
}

/// Runs scx_rl in its learning mode under the workload; its summary.
fn learn(args: &DemoArgs, bench: &Bench<'_>) -> Result<serde_json::Value> {
    let summary = bench.folder.join("learn.json");
    let log = bench.folder.join("learn.log");
    let mut command = Command::new(bench.exe);
    command
        .args(["--learn", "--from-scratch", "--no-guard"])
        .args(["--seed", &args.seed.to_string()])
        .arg("--checkpoint-dir")
        .arg(bench.folder);
    command.args(["--checkpoint-every", &CHECKPOINT_EVERY_SECONDS.to_string()]).arg("--summary").arg(&summary);
    command.arg("--record").arg(bench.folder.join("events.rec")).args(["--stats", &STATS_EVERY_SECONDS.to_string()]);
    println!("learning for {} s", args.learn_seconds);
    let duration = Duration::from_secs(args.learn_seconds.into());
    let process = Process::spawn_teed(&mut command, "learn", &log)?;
    let mut scheduler = Scheduler::attached(process, summary, log, bench.stop)?;
    let mut workload = Workload::start(bench.cpus, duration + LEARN_SLACK, bench.seed, bench.folder, "learn")?;
    bench.stop.sleep_until(Instant::now() + duration, || {
        workload.check()?;
        scheduler.check()
    })?;
    let summary = scheduler.finish()?;
    workload.abandon();
    system::wait_detached()?;
    Ok(summary)
}

#[allow(clippy::too_many_arguments, reason = "called once; a struct would only repeat the list")]
fn summarise(
    args: &DemoArgs,
    bench: &Bench<'_>,
    topology: Machine,
    kernel: String,
    learn: serde_json::Value,
    outcomes: &[(Mode, Outcome)],
    dmesg_lines: Vec<String>,
    total: Duration,
) -> Result<Demo> {
    let count = |key| {
        let found = result::number(&learn, &[key]).map(|number| number as u64);
        found.with_context(|| format!("learn.json has no number named {key}"))
    };
    let first = result::number(&learn, &["reward_first_quarter_ms"]);
    let last = result::number(&learn, &["reward_last_quarter_ms"]);
    Ok(Demo {
        version: env!("CARGO_PKG_VERSION"),
        kernel,
        workload: workload::description(topology.cpus, bench.warm_up + bench.measure, args.seed),
        topology,
        seed: args.seed,
        rounds: args.rounds,
        phase_seconds: args.phase_seconds.into(),
        learn_seconds: args.learn_seconds.into(),
        throughput_unit: workload::UNIT,
        generations_published: count("generations_published")?,
        events: count("events")?,
        events_dropped: count("events_dropped")?,
        reward_first_quarter_ms: first,
        reward_last_quarter_ms: last,
        reward_improved: first.zip(last).map(|(first, last)| last > first),
        modes: result::rows(outcomes),
        learn,
        dmesg_clean: dmesg_lines.is_empty(),
        dmesg_lines,
        total_seconds: total.as_secs_f64(),
    })
}
