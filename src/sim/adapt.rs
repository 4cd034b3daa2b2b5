// SPDX-License-Identifier: GPL-2.0-only
//! `ablation adapt`: how many decisions it takes a learner to find its way under a regime, from another one or from nothing.

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::Balancer;
use super::ablation::Machine;
use super::contender::{Contender, Kind};
use super::regime::Regime;
use super::trial::{self, Score};
use crate::lab::statistics::{Estimate, geometric_mean, ratio_estimate};
use crate::process::print;

/// As good as the best fixed balancer, in hindsight: its response time over that of the learner.
const NEAR: f64 = 0.95;
/// Windows that are looked at together, as one alone varies by itself.
const TOGETHER: usize = 3;

/// Options of `ablation adapt`.
#[derive(Clone, Debug, clap::Args)]
pub struct AdaptArgs {
    /// The regime to find one's way under, COST-BURST-LOAD.
    #[arg(long)]
    regime: String,

    /// The learner comes from this regime, where it learned during the warm-up. Default: it comes from nowhere.
    #[arg(long, value_name = "REGIME")]
    before: Option<String>,

    /// How the learner begins: learn (a network of random numbers), learn:rule (one that imitates the fixed rule), or
    /// learn:FILE.
    #[arg(long, value_name = "HOW", default_value = "learn:rule")]
    start: String,

    #[command(flatten)]
    machine: Machine,

    /// How many seeds, from 1 on.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..))]
    seeds: u64,

    /// Windows that the time under the regime (--seconds) is cut into.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(3..=1000))]
    windows: u64,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A window: geometric means over seeds, with 95 % intervals.
#[derive(Debug, Serialize)]
struct Point {
    /// Decisions under the regime until the end of the window, mean over seeds.
    decisions: f64,
    /// Response of the best fixed balancer over that of the learner: 1 is as good.
    to_best: Estimate,
    /// The same of the fixed rule.
    to_rule: Estimate,
}

#[derive(Debug, Serialize)]
struct Report {
    regime: String,
    before: Option<String>,
    start: String,
    seeds: u64,
    /// The best fixed balancer under the regime, by mean response over the seeds.
    best: String,
    points: Vec<Point>,
    /// Decisions until the learner is within 5 % of the best fixed one; none: it never was.
    near_best_after: Option<f64>,
    /// Decisions until it is level with the fixed rule.
    level_with_rule_after: Option<f64>,
}

/// Simulate, and print.
///
/// # Errors
/// The options make no sense, or a simulation fails.
pub fn run(args: &AdaptArgs) -> Result<()> {
    let report = adapt(args)?;
    if args.json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&report)?));
    }
    print(&text(&report))
}

fn one(name: &str) -> Result<Regime> {
    Regime::of_name(name).with_context(|| format!("there is no regime {name:?}; they are named as mixed-short-95"))
}

fn adapt(args: &AdaptArgs) -> Result<Report> {
    let setting = args.machine.setting()?;
    let regime = one(&args.regime)?;
    let before = args.before.as_deref().map(one).transpose()?;
    let workload = regime.workload(setting.shape.cpus);
    let before = before.map(|before| before.workload(setting.shape.cpus));
    let learner: Contender = format!("learner={}", args.start).parse()?;
    ensure!(
        matches!(learner.kind, Kind::Learn(_)),
        "--start {} does not learn: learn, learn:rule or learn:FILE do",
        args.start
    );

    // What each fixed one makes of the regime, by seed: mean response, us.
    let rule = format!("{:?}", Balancer::Heuristic).to_lowercase();
    let (mut best, mut of_rule): (Option<(String, Vec<f64>)>, Vec<f64>) = (None, Vec::new());
    for contender in Contender::all_fixed()? {
        let response =
            |seed| trial::run(&setting, &workload, &contender, seed).map(|(score, _)| score.response_mean_us);
        let responses = (1..=args.seeds).map(response).collect::<Result<Vec<f64>>>()?;
        if best.as_ref().is_none_or(|(_, least)| responses.iter().sum::<f64>() < least.iter().sum::<f64>()) {
            best = Some((contender.name.clone(), responses.clone()));
        }
        if contender.name == rule {
            of_rule = responses;
        }
    }
    let (best, of_best) = best.context("there is no fixed balancer")?;

    let window_ns = setting.measure_ns / args.windows;
    ensure!(window_ns > 0, "--seconds is too short for {} windows", args.windows);
    let curves = (1..=args.seeds)
        .map(|seed| trial::curve(&setting, before.as_ref(), &workload, &learner, seed, args.windows, window_ns))
        .collect::<Result<Vec<Vec<Score>>>>()?;
    let mut points: Vec<Point> = Vec::new();
    for window in 0..args.windows as usize {
        let to = |references: &[f64]| {
            let ratio = |(curve, reference): (&Vec<Score>, &f64)| reference / curve[window].response_mean_us;
            let ratios: Vec<f64> = curves.iter().zip(references).map(ratio).collect();
            ratio_estimate(&ratios).filter(|e| e.value.is_finite() && e.value > 0.0)
        };
        let per_s = curves.iter().map(|curve| curve[window].decisions_per_s).sum::<f64>() / curves.len() as f64;
        let empty = || format!("no burst ended in window {}: make --seconds longer", window + 1);
        points.push(Point {
            decisions: points.last().map_or(0.0, |last| last.decisions) + per_s * window_ns as f64 / 1e9,
            to_best: to(&of_best).with_context(empty)?,
            to_rule: to(&of_rule).with_context(empty)?,
        });
    }
    Ok(Report {
        regime: args.regime.clone(),
        before: args.before.clone(),
        start: args.start.clone(),
        seeds: args.seeds,
        best,
        near_best_after: reached(&points, |p| p.to_best.value, NEAR),
        level_with_rule_after: reached(&points, |p| p.to_rule.value, 1.0),
        points,
    })
}

/// Decisions until the end of the first window which, with those that follow it, has at least this level.
fn reached(points: &[Point], of: impl Fn(&Point) -> f64, level: f64) -> Option<f64> {
    let there = |together: &&[Point]| geometric_mean(together.iter().map(&of)).is_some_and(|mean| mean >= level);
    points.windows(TOGETHER).find(there).map(|together| together[0].decisions)
}

fn text(report: &Report) -> String {
    let from = report.before.as_ref().map_or(String::new(), |before| format!(", coming from {before}"));
    let mut text = format!(
        "{}{from}, {}: {} seeds; more is better\n  {:>10}{:>26}{:>26}\n",
        report.start,
        report.regime,
        report.seeds,
        "decisions",
        format!("to {}, the best", report.best),
        "to the fixed rule"
    );
    for point in &report.points {
        let show = Estimate::to_string;
        text += &format!("  {:>10.0}{:>26}{:>26}\n", point.decisions, show(&point.to_best), show(&point.to_rule));
    }
    let after = |decisions: Option<f64>| decisions.map_or("never".to_string(), |n| format!("after {n:.0} decisions"));
    text + &format!(
        "within 5 % of the best fixed one: {}; level with the fixed rule: {}\n",
        after(report.near_best_after),
        after(report.level_with_rule_after)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_reached_when_the_next_windows_have_it_too() {
        let estimate = |value| Estimate { value, low: value, high: value };
        let points: Vec<Point> = [0.8, 0.96, 0.9, 0.92, 0.95, 0.97, 0.96]
            .into_iter()
            .enumerate()
            .map(|(i, v)| Point { decisions: 100.0 * (i + 1) as f64, to_best: estimate(v), to_rule: estimate(v) })
            .collect();
        assert_eq!(reached(&points, |p| p.to_best.value, NEAR), Some(500.0), "one lucky window is not enough");
        assert_eq!(reached(&points, |p| p.to_rule.value, 1.0), None);
        assert_eq!(reached(&points[..2], |p| p.to_best.value, 0.1), None, "too few windows to tell");
    }
}
