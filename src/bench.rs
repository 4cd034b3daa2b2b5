// SPDX-License-Identifier: GPL-2.0-only
//! `scx_rl bench`: what a decision costs, natively, on this machine's BPF JIT; and what learning costs.
//!
//! For decisions it runs the programs of `probe.bpf.c` by `test_run`; that needs root and BPF, but neither sched_ext nor a VM.

mod learner;

use std::mem::MaybeUninit;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::agent::network::ACTOR_HIDDEN;
use crate::kernel::probe::{Probe, Program};
use crate::kernel::slots::Publication;
use crate::policy::host::FEATURES;
use crate::policy::{RL_GROUPS, RL_LANES, RL_MODE_DRAW, RL_WEIGHT_OFFSET, rl_inputs, rl_weights};
use crate::process::print;

/// Options of `scx_rl bench`.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// Write the result as JSON to this file as well.
    #[clap(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Rounds; the median is reported, with the fastest and the slowest.
    #[clap(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,

    /// Decisions per round.
    #[clap(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=8_000_000))]
    pub decisions: u64,

    /// What learning costs, instead: CPU time for each event, and memory. Needs nothing.
    #[clap(long)]
    pub learner: bool,

    /// Events per round that the learner takes in.
    #[clap(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    pub events: u64,
}

/// Cost of one call, ns.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cost {
    /// Median over the rounds.
    pub median_ns: f64,
    /// Fastest round.
    pub min_ns: f64,
    /// Slowest round.
    pub max_ns: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    policy_ns: f64,
    naive_ns: f64,
    empty_ns: f64,
    policy: Cost,
    naive: Cost,
    empty: Cost,
    network: String,
    decisions: u64,
    rounds: u32,
    kernel: String,
}

/// A random network within the quantised range, with the same first layer as plain int8.
pub fn random_network(rng: &mut impl RngCore) -> (rl_weights, [[i8; FEATURES]; ACTOR_HIDDEN]) {
    let mut w = rl_weights::default();
    let mut plain = [[0i8; FEATURES]; ACTOR_HIDDEN];
    for (n, row) in plain.iter_mut().enumerate() {
        for (f, value) in row.iter_mut().enumerate() {
            *value = rng.random_range(-127..=127);
            let lane = (i64::from(*value) + i64::from(RL_WEIGHT_OFFSET)) as u64;
            w.w1[n / RL_LANES as usize][f] |= lane << (21 * (n % RL_LANES as usize));
        }
        w.b1[n] = rng.random_range(-50_000..50_000);
        w.w2[n] = rng.random_range(-127..=127);
    }
    debug_assert_eq!(w.w1.len(), RL_GROUPS as usize);
    w.b2 = rng.random_range(-1_000_000..1_000_000);
    (w, plain)
}

/// Measurements of the magnitudes that a busy machine shows.
pub fn random_inputs(rng: &mut impl RngCore) -> rl_inputs {
    let mut time = || 1u64 << rng.random_range(8..34);
    rl_inputs {
        home_head_age_ns: time(),
        other_head_age_ns: time(),
        home_run_avg_ns: time(),
        other_run_avg_ns: time(),
        task_run_avg_ns: time(),
        task_sleep_avg_ns: time(),
        since_ran_ns: time(),
        since_moved_ns: time(),
        move_cost_ns: time(),
        task_want_ns: time(),
        turn_ns: 0,
        home_queued: rng.random_range(0..20),
        other_queued: rng.random_range(0..20),
        home_cpus: rng.random_range(1..17),
        other_cpus: rng.random_range(1..17),
        home_idle: rng.random_range(0..4),
        other_idle: rng.random_range(0..4),
        point: rng.random_range(0..2),
        distance: rng.random_range(0..4),
        waker: rng.random_range(0..4),
        weight: 100,
    }
}

/// Run the benchmark, print it, and write it where asked.
///
/// # Errors
/// When BPF programs cannot be loaded here, learning fails, or the JSON file cannot be written.
pub fn run(args: &BenchArgs) -> Result<()> {
    if args.learner {
        let report = learner::run(args.rounds, args.events)?;
        print(&report.text())?;
        return write(args, &report);
    }
    let mut object = MaybeUninit::uninit();
    let mut probe = Probe::load(&mut object)?;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for input in &mut probe.batch()?.inputs {
        *input = random_inputs(&mut rng);
    }
    let (weights, plain) = random_network(&mut rng);
    probe.set_naive(&plain, &weights)?;
    probe.publisher()?.publish(&Publication { mode: RL_MODE_DRAW, floor_q16: 64, weights, ..Publication::default() });

    // Interleaved, so that a change of the machine's speed meets all three; the first round warms up.
    let programs = [Program::BenchPolicy, Program::BenchNaive, Program::BenchEmpty];
    let mut times: [Vec<f64>; 3] = Default::default();
    for round in 0..=args.rounds {
        for (program, times) in programs.iter().zip(&mut times) {
            let ns = probe.run(*program, args.decisions)?.ns as f64 / args.decisions as f64;
            if round > 0 {
                times.push(ns);
            }
        }
    }
    let [policy, naive, empty] = times.map(cost);
    let report = Report {
        policy_ns: policy.median_ns,
        naive_ns: naive.median_ns,
        empty_ns: empty.median_ns,
        policy,
        naive,
        empty,
        network: format!("{FEATURES}-{ACTOR_HIDDEN}-1"),
        decisions: args.decisions,
        rounds: args.rounds,
        kernel: crate::kernel::preflight::kernel_release(),
    };
    let mut text = format!(
        "cost of one decision (features + forward pass + action, network {}), {} rounds of {} decisions:\n",
        report.network, report.rounds, report.decisions
    );
    for (name, c) in [("policy", policy), ("naive loop", naive), ("empty call", empty)] {
        let Cost { median_ns, min_ns, max_ns } = c;
        text += &format!("  {name:<11} {median_ns:>7.1} ns   (fastest {min_ns:.1}, slowest {max_ns:.1})\n");
    }
    print(&text)?;
    write(args, &report)
}

fn write(args: &BenchArgs, report: &impl Serialize) -> Result<()> {
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(report)?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn cost(mut ns: Vec<f64>) -> Cost {
    ns.sort_by(f64::total_cmp);
    let at = |i: usize| ns.get(i).copied().unwrap_or(f64::NAN);
    Cost { median_ns: at(ns.len() / 2), min_ns: at(0), max_ns: at(ns.len().saturating_sub(1)) }
}
