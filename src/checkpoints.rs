// SPDX-License-Identifier: GPL-2.0-only
//! `scx_rl checkpoint`: what checkpoints hold, whether they are fit to run, how two differ, and the policy for other
//! programs.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::agent::{Checkpoint, Parameters};
use crate::bench::random_inputs;
use crate::export::{self, ExportArgs};
use crate::policy::host;
use crate::policy::{RL_MODE_DRAW, rl_slot, rl_weights};
use crate::process::print;
use crate::run;

/// Situations in which two policies are compared.
const SITUATIONS: u64 = 100_000;

/// What can be done with checkpoints.
#[derive(Debug, clap::Subcommand)]
pub enum CheckpointCommand {
    /// Check a checkpoint and print what it holds.
    Show {
        /// The checkpoint.
        file: PathBuf,
        /// Print JSON.
        #[clap(long)]
        json: bool,
    },
    /// Check checkpoints, as --frozen would: a line for each. The exit code tells whether all are fit to run.
    Verify {
        /// The checkpoints.
        #[clap(required = true)]
        files: Vec<PathBuf>,
    },
    /// How two checkpoints differ: their numbers, and what their policies do in 100,000 random situations (the same ones
    /// each time; random ones, so rare ones count as much as frequent ones).
    Diff {
        /// The checkpoint that differences are from.
        before: PathBuf,
        /// The checkpoint that differences are to.
        after: PathBuf,
    },
    Export(ExportArgs),
}

/// The subcommand `checkpoint`.
///
/// # Errors
/// A checkpoint cannot be read, or is not fit to run where it should be; or a file cannot be written.
pub fn run(command: &CheckpointCommand) -> Result<()> {
    match command {
        CheckpointCommand::Show { file, json: false } => print(&run::load(file)?.describe()),
        CheckpointCommand::Show { file, json: true } => {
            print(&format!("{}\n", serde_json::to_string_pretty(&run::load(file)?.summary())?))
        }
        CheckpointCommand::Verify { files } => verify(files),
        CheckpointCommand::Diff { before, after } => print(&diff(&run::load(before)?, &run::load(after)?)?),
        CheckpointCommand::Export(args) => export::run(args),
    }
}

fn verify(files: &[PathBuf]) -> Result<()> {
    let mut unfit = 0;
    for file in files {
        let checked = run::load(file).and_then(|checkpoint| {
            checkpoint.publishable()?;
            Ok(checkpoint.updates)
        });
        print(&match checked {
            Ok(updates) => format!("ok      {}: {updates} updates\n", file.display()),
            Err(error) => {
                unfit += 1;
                format!("not ok  {}: {error:#}\n", file.display())
            }
        })?;
    }
    ensure!(unfit == 0, "{unfit} of {} checkpoints are not fit to run", files.len());
    Ok(())
}

/// How two networks differ: largest and root mean square difference of each array.
fn numbers(before: &Parameters, after: &Parameters) -> String {
    let mut out = String::from("largest and root mean square difference of the float networks' numbers:\n");
    for ((name, _), (old, new)) in Parameters::TABLE.iter().zip(before.arrays().iter().zip(after.arrays())) {
        let differences = || old.iter().zip(new).map(|(old, new)| f64::from(new - old).abs());
        let largest = differences().fold(0.0, f64::max);
        let square = differences().map(|d| d * d).sum::<f64>() / old.len().max(1) as f64;
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {name:<10} {largest:>9.5} {:>9.5}", square.sqrt());
    }
    out
}

/// KL divergence of a coin with probability `p` from one with `q`, nats.
fn kl(p: f64, q: f64) -> f64 {
    let term = |a: f64, b: f64| if a > 0.0 { a * (a / b.max(1e-12)).ln() } else { 0.0 };
    term(p, q) + term(1.0 - p, 1.0 - q)
}

/// What two policies do: mean |difference| of the probability to migrate, mean KL divergence, share of other better actions.
fn behaviour(before: &rl_weights, after: &rl_weights) -> (f64, f64, f64) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let slot = |weights: &rl_weights| rl_slot { mode: RL_MODE_DRAW, weights: *weights, ..Default::default() };
    let (old, new) = (slot(before), slot(after));
    let (mut difference, mut divergence, mut other) = (0.0, 0.0, 0);
    for _ in 0..SITUATIONS {
        let features = host::features(&random_inputs(&mut rng));
        let (p, q) = (host::p_migrate(&old, &features), host::p_migrate(&new, &features));
        difference += (p - q).abs();
        divergence += kl(p, q);
        other += u64::from((p > 0.5) != (q > 0.5));
    }
    let count = SITUATIONS as f64;
    (difference / count, divergence / count, other as f64 / count)
}

fn diff(before: &Checkpoint, after: &Checkpoint) -> Result<String> {
    let (difference, divergence, other) = behaviour(&before.weights, &after.weights);
    let mut out = format!(
        "updates: {} and {}\n{}in {SITUATIONS} random situations the probability to migrate differs by {difference:.4}, the better action \
         in {:.2} %; KL divergence {divergence:.5} nats\n",
        before.updates,
        after.updates,
        numbers(&before.parameters, &after.parameters),
        100.0 * other
    );
    let (old, new) = (serde_json::to_value(&before.hyper)?, serde_json::to_value(&after.hyper)?);
    for (key, value) in old.as_object().into_iter().flatten() {
        if new.get(key) != Some(value) {
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "hyper-parameter {key}: {value} and {}",
                new.get(key).unwrap_or(&serde_json::Value::Null)
            );
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_zero_only_of_equals() {
        assert_eq!(kl(0.3, 0.3), 0.0);
        // 0.5 ln(0.5 / 0.25) + 0.5 ln(0.5 / 0.75)
        assert!((kl(0.5, 0.25) - 0.143_841).abs() < 1e-6);
        assert!(kl(0.0, 0.5) > 0.69 && kl(1.0, 0.0).is_finite());
    }
}
