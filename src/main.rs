// SPDX-License-Identifier: GPL-2.0-only
//! The binary: parse, set up logging and signals, and hand over to the library.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use log::{LevelFilter, warn};
use scx_rl::agent::recording::{self, Reader};
use scx_rl::agent::{Agent, Origin};
use scx_rl::cli::{Balancer, Cli, Command, Opts, ReplayArgs};
use scx_rl::process::{Signals, print};
use scx_rl::{
    bench, checkpoints, dashboard, demo, experiment, explain, fleet, kernel, learning, locality, ope, privileges,
    progs, run, runqlat, sim, stats, suite, timeline, verifier, vm,
};
use simplelog::{ColorChoice, TerminalMode};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(cli) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("Error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> Result<ExitCode> {
    // Errors are sentences; a backtrace of where they were made helps nobody.
    log_to_stderr(cli.opts.verbose)?;
    match cli.command {
        None => schedule(&cli.opts)?,
        Some(Command::Checkpoint(command)) => checkpoints::run(&command)?,
        Some(Command::Replay(args)) => replay(&args)?,
        Some(Command::Ope(args)) => ope::run(&args)?,
        Some(Command::Explain(args)) => explain::run(&args)?,
        Some(Command::Timeline(args)) => timeline::run(&args)?,
        Some(Command::Fleet(command)) => fleet::run(&command)?,
        Some(Command::Runqlat(args)) => runqlat::run(args)?,
        Some(Command::Bench(args)) => bench::run(&args)?,
        Some(Command::Verifier(args)) => verifier::run(&args)?,
        Some(Command::Demo(args)) => demo::run(args)?,
        Some(Command::Suite(args)) => suite::run(&args)?,
        Some(Command::Experiment(command)) => experiment::run(&command)?,
        Some(Command::Progs(args)) => progs::run(&args)?,
        Some(Command::Sim(args)) => sim::command::run(&args)?,
        Some(Command::Ablation(command)) => sim::ablation::run(&command)?,
        Some(Command::Locality(args)) => locality::run(&args)?,
        Some(Command::Completions { shell }) => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "scx_rl", &mut text);
            print(&String::from_utf8_lossy(&text))?;
        }
        Some(Command::Man { dir }) => {
            let write = || std::fs::create_dir_all(&dir).and_then(|()| clap_mangen::generate_to(Cli::command(), &dir));
            write().with_context(|| format!("cannot write man pages to {}", dir.display()))?;
        }
        Some(Command::Vm(args)) => {
            let code = vm::run(&args)?;
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn schedule(opts: &Opts) -> Result<()> {
    if opts.version {
        return print(&format!("scx_rl {}\n", scx_rl::version()));
    }
    if opts.help_stats {
        let mut text = Vec::new();
        stats::server_data().describe_meta(&mut text, None)?;
        return print(&String::from_utf8_lossy(&text));
    }
    // Before there are other threads, which would keep what they began with.
    privileges::limit()?;
    let signals = Signals::install()?;
    if let Some(interval) = opts.monitor {
        let (interval, stop) = (Duration::from_secs_f64(interval), signals.stop_flag());
        return match std::io::stdout().is_terminal() {
            true => dashboard::run(interval, &stop),
            false => stats::monitor(interval, stop),
        };
    }
    let balancer = opts.balancer();
    let interval = opts.stats.unwrap_or(if balancer == Balancer::Learn { 5.0 } else { 0.0 });
    if interval > 0.0 {
        let stop = signals.stop_flag();
        std::thread::spawn(move || {
            if let Err(e) = stats::monitor(Duration::from_secs_f64(interval), stop) {
                warn!("statistics are not shown any further: {e:#}");
            }
        });
    }
    run::run(opts, balancer, &signals)
}

fn replay(args: &ReplayArgs) -> Result<()> {
    let file = std::fs::File::open(&args.recording)
        .with_context(|| format!("cannot open the recording {}", args.recording.display()))?;
    let context = || format!("cannot replay {}", args.recording.display());
    let reader = Reader::new(std::io::BufReader::new(file)).with_context(context)?;
    let (replayed, origin) = match &args.resume {
        None => (recording::replay(reader).with_context(context)?, Origin::default()),
        Some(path) => {
            let checkpoint = run::load(path)?;
            let agent = Agent::resume(&checkpoint)?;
            (recording::replay_onto(reader, agent).with_context(context)?, checkpoint.origin)
        }
    };
    let mut agent = replayed.agent;
    agent.checkpoint(Origin { created_at: learning::now_utc(), ..origin })?.save(&args.checkpoint)?;
    print(&format!(
        "{} events and {} restarts replayed, {} updates{}; checkpoint: {}\n",
        replayed.events,
        replayed.restarts,
        agent.metrics().updates,
        if replayed.complete { "" } else { " (the recording ended at its size limit)" },
        args.checkpoint.display()
    ))
}

fn log_to_stderr(verbose: u8) -> Result<()> {
    let level = match verbose {
        0 => LevelFilter::Info,
        1 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    let config = simplelog::ConfigBuilder::new()
        .set_time_level(LevelFilter::Error)
        .set_location_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Off)
        .build();
    let colour = if std::io::stderr().is_terminal() { ColorChoice::Auto } else { ColorChoice::Never };
    simplelog::TermLogger::init(level, config, TerminalMode::Stderr, colour).context("cannot log")?;
    kernel::log_libbpf();
    Ok(())
}
