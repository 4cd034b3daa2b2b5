// SPDX-License-Identifier: GPL-2.0-only
//! `scx_rl ope`: what other policies would have earned in recorded runs. The estimates are made in
//! [`crate::agent::ope`]; here they get recordings and checkpoints, and are told.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::agent::ope::{
    BLOCKS, CONFIDENCE, Counts, Difference, Estimate, Estimates, Evaluator, FOLDS, Log, Policy, Settings, Shortage,
    Value,
};
use crate::agent::recording::{Reader, Record, RecordingError};
use crate::policy::{probability_q16, rl_weights};
use crate::process::print;
use crate::suite::table::markdown;

/// The policies that are no files.
const KNOWN: &str = "logged, heuristic, stay, migrate, random";

/// What other policies would have earned in recorded runs: off-policy evaluation.
///
/// A recording holds decisions with the probability of the action that was taken, and what came of
/// it. Weighing each by how much likelier another policy was to do the same tells, without running
/// that policy, what a decision of its would have earned on average: the raw reward in ms, minus
/// (wait + service beyond the usual, where a whole burst was served), so higher is better. Three
/// estimates, each with its 95 % confidence interval: IPS (inverse propensity scores), SNIPS (the
/// same, self-normalised) and DR (doubly robust; the one to judge by). Then the difference of each
/// policy to one of them. Where too few events carry a result, it says so instead of giving a
/// number. Nothing is random.
///
/// A POLICY is one of: logged (what acted in the recording), heuristic (the fixed rule), stay,
/// migrate, random (a coin), FILE (a checkpoint, as with --frozen), FILE:learn (with
/// the probability floor of --learn), or FILE:greedy (always the better action, as with --frozen --greedy).
///
/// Record for minutes: a twentieth of the recordings should outlast the swings of the load, or
/// intervals are too narrow. What it cannot tell: decisions share queues, and a policy in use would
/// meet other queues than those in the log. A better estimate is a reason to try a policy, not to
/// believe in it; that takes a comparison on the running machine. And a policy that was trained on
/// the recording looks better than it is: judge it by a later one.
///
/// Examples:
///
///   scx_rl --learn --record run.rec --duration 300     a recording
///   scx_rl ope run.rec                                 the rules against what acted
///   scx_rl ope later.rec --policy ckpt.safetensors     was it worth learning?
///   scx_rl ope a.rec b.rec --policy new.safetensors:learn --against heuristic
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct OpeArgs {
    /// Recordings that --record wrote; several are taken together.
    #[arg(required = true, value_name = "RECORDING")]
    pub recordings: Vec<PathBuf>,

    /// A policy to evaluate. May be given several times. Without it: heuristic, stay, migrate, random.
    #[arg(long = "policy", value_name = "POLICY")]
    pub policies: Vec<String>,

    /// The policy that the others are compared with.
    #[arg(long, value_name = "POLICY", default_value = "logged")]
    pub against: String,

    /// Least probability of each action for FILE:learn.
    #[arg(long, value_name = "P", default_value_t = 0.001, value_parser = crate::cli::floor)]
    pub explore_floor: f64,

    /// Cut weights down to this. Steadier, but in favour of policies that do what was rarely tried: their bad outcomes
    /// count less.
    #[arg(long, value_name = "WEIGHT")]
    pub clip: Option<f64>,

    /// Print JSON: all numbers, and what became of the events.
    #[arg(long)]
    pub json: bool,
}

/// A recording that was read.
#[derive(Debug, Serialize)]
struct Source {
    path: PathBuf,
    events: u64,
    /// Why there are no more, if there might have been.
    cut: Option<String>,
}

/// A policy, and what is known of it.
#[derive(Debug, Serialize)]
struct Row {
    policy: String,
    value: Value,
    /// To the one that all are compared with; none for that itself.
    difference: Option<Difference>,
}

#[derive(Debug, Serialize)]
struct Report {
    recordings: Vec<Source>,
    counts: Counts,
    confidence: f64,
    blocks: usize,
    folds: usize,
    clip: Option<f64>,
    against: String,
    policies: Vec<Row>,
}

/// The subcommand `ope`.
///
/// # Errors
/// When a recording or checkpoint cannot be used, no event can, or the output cannot be written.
pub fn run(args: &OpeArgs) -> Result<()> {
    let report = evaluate(args)?;
    if args.json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&report)?));
    }
    print(&report.render())
}

fn evaluate(args: &OpeArgs) -> Result<Report> {
    // Policies first: a typing error should not have to wait for a gigabyte.
    let floor_q16 = probability_q16(args.explore_floor);
    let names: Vec<String> = match args.policies.as_slice() {
        [] => ["heuristic", "stay", "migrate", "random"].map(String::from).to_vec(),
        given => given.to_vec(),
    };
    let baseline = policy(&args.against, floor_q16)?;
    let others: Vec<(String, Policy)> = names
        .into_iter()
        .filter(|name| *name != args.against)
        .map(|name| policy(&name, floor_q16).map(|policy| (name, policy)))
        .collect::<Result<_>>()?;
    let mut log = Log::default();
    let recordings = args.recordings.iter().map(|path| read(path, &mut log)).collect::<Result<Vec<_>>>()?;
    let counts = log.counts().clone();
    let settings = Settings { clip: args.clip, ..Default::default() };
    let evaluator = Evaluator::new(log, settings).context("cannot evaluate")?;
    let baseline = evaluator.evaluate(&baseline);
    let mut policies = vec![Row { policy: args.against.clone(), value: baseline.value(), difference: None }];
    policies.extend(others.into_iter().map(|(name, policy)| {
        let evaluated = evaluator.evaluate(&policy);
        Row { policy: name, value: evaluated.value(), difference: Some(evaluated.minus(&baseline)) }
    }));
    Ok(Report {
        recordings,
        counts,
        confidence: CONFIDENCE,
        blocks: BLOCKS,
        folds: FOLDS,
        clip: args.clip,
        against: args.against.clone(),
        policies,
    })
}

/// A policy by its name, or from a checkpoint.
fn policy(spec: &str, floor_q16: u32) -> Result<Policy> {
    let network = |path: &str| -> Result<rl_weights> {
        let checkpoint = crate::run::load(Path::new(path))?;
        checkpoint.publishable().with_context(|| format!("{path} is not fit to run"))
    };
    let policy = match spec {
        "logged" => Ok(Policy::Logged),
        "heuristic" => Ok(Policy::heuristic()),
        "stay" => Ok(Policy::Stay),
        "migrate" => Ok(Policy::Migrate),
        "random" => Ok(Policy::random()),
        file => match file.rsplit_once(':') {
            Some((file, "learn")) => network(file).map(|weights| Policy::network(weights, floor_q16)),
            Some((file, "greedy")) => network(file).map(Policy::greedy),
            _ => network(file).map(|weights| Policy::network(weights, 0)),
        },
    };
    policy.with_context(|| format!("the policy {spec:?} is neither one of {KNOWN} nor a checkpoint that can be used"))
}

/// Take in a recording, as far as it is whole.
fn read(path: &Path, log: &mut Log) -> Result<Source> {
    let file = File::open(path).with_context(|| format!("cannot open the recording {}", path.display()))?;
    let context = || format!("cannot evaluate from {}", path.display());
    let before = log.counts().events;
    let mut cut = None;
    for record in Reader::new(file).with_context(context)? {
        match record {
            Ok(Record::Event(event)) => log.add(&event),
            Ok(Record::Restart) => {}
            Ok(Record::Stopped) => cut = Some("it stopped at its size limit".to_string()),
            Err(torn @ RecordingError::Torn { .. }) => cut = Some(torn.to_string()),
            Err(other) => return Err(other).with_context(context),
        }
    }
    Ok(Source { path: path.to_path_buf(), events: log.counts().events - before, cut })
}

impl Report {
    /// For people.
    fn render(&self) -> String {
        let mut out = String::new();
        for Source { path, events, cut } in &self.recordings {
            let cut = cut.as_ref().map_or(String::new(), |why| format!("; used as far as it goes: {why}"));
            out += &format!("{}: {events} events{cut}\n", path.display());
        }
        let c = &self.counts;
        out += &format!(
            "{} of {} events used, which stand for {} decisions; {} of them were decided again before they ran\n",
            c.used, c.events, c.decisions, c.redecided
        );
        let mut left_out: Vec<String> = Vec::new();
        left_out.extend(c.censored.iter().map(|(why, count)| format!("{count} censored ({why})")));
        left_out.extend((c.turns > 0).then(|| format!("{} about turns", c.turns)));
        left_out.extend((c.off_mode > 0).then(|| format!("{} decided with certainty", c.off_mode)));
        left_out.extend(c.invalid.iter().map(|(what, count)| format!("{count} invalid ({what})")));
        if !left_out.is_empty() {
            out += &format!("left out: {}\n", left_out.join(", "));
        }
        out += &format!("\n{}\n", self.values());
        out += &format!(
            "Mean reward of a decision in ms (higher is better) with {:.0} % confidence intervals from {} blocks of time.\n",
            100.0 * self.confidence,
            self.blocks
        );
        if let Some(clip) = self.clip {
            out += &format!("Weights are cut down to {clip}, in favour of policies that do what was rarely tried.\n");
        }
        if self.policies.len() > 1 {
            out += &format!("\n{}\n", self.differences());
            out += &format!(
                "Reward beyond that of {}. At least: a {:.0} % bound from one side, by DR; above 0 it is better here.\n",
                self.against,
                100.0 * self.confidence
            );
        }
        let shortages = self.shortages();
        if !shortages.is_empty() {
            out += &format!("\n{shortages}");
        }
        out + "\nDecisions share queues, and a policy in use would meet others: a reason to try it, no proof.\n"
    }

    fn values(&self) -> String {
        let header = ["policy", "IPS", "SNIPS", "DR", "migrates", "effective events", "largest weight", "mean weight"];
        let mut rows = vec![header.map(String::from).to_vec()];
        for Row { policy, value, .. } in &self.policies {
            let mut row = vec![policy.clone()];
            row.extend(cells(&value.estimates));
            row.extend([
                format!("{:.1} %", 100.0 * value.migrated_share),
                format!("{:.0}", value.effective_events),
                format!("{:.1}", value.largest_weight),
                format!("{:.3}", value.mean_weight),
            ]);
            rows.push(row);
        }
        markdown(&rows)
    }

    fn differences(&self) -> String {
        let minus = format!("minus {}", self.against);
        let header = [minus.as_str(), "IPS", "SNIPS", "DR", "at least", "effective events"];
        let mut rows = vec![header.map(String::from).to_vec()];
        for Row { policy, difference, .. } in &self.policies {
            let Some(Difference { effective_events, estimates, .. }) = difference else { continue };
            let mut row = vec![policy.clone()];
            row.extend(cells(estimates));
            row.push(estimates.as_ref().map_or("-".to_string(), |e| format!("{:.3}", e.dr.at_least_ms)));
            row.push(format!("{effective_events:.0}"));
            rows.push(row);
        }
        markdown(&rows)
    }

    /// Why there are no numbers, a line each.
    fn shortages(&self) -> String {
        let mut out = String::new();
        for Row { policy, value, difference } in &self.policies {
            let differs = difference.as_ref().and_then(|d| d.estimates.as_ref().err());
            if let Err(why) = &value.estimates {
                out += &format!("{policy}: not enough: {why}\n");
            } else if let Some(why) = differs {
                out += &format!("{policy} minus {}: not enough: {why}\n", self.against);
            }
        }
        out
    }
}

/// The three estimates, or that there is not enough for them.
fn cells(estimates: &std::result::Result<Estimates, Shortage>) -> [String; 3] {
    // Intervals are symmetric.
    let cell = |e: &Estimate| format!("{:.3} +- {:.3}", e.value_ms, e.high_ms - e.value_ms);
    match estimates {
        Ok(Estimates { ips, snips, dr }) => [ips, snips, dr].map(cell),
        Err(_) => ["not enough"; 3].map(String::from),
    }
}
