// SPDX-License-Identifier: GPL-2.0-only
//! `scx_rl explain`: which features drive the decisions of a policy, in recorded situations.
//!
//! Shapley values, estimated as by Strumbelj and Kononenko ("Explaining prediction models and individual predictions with
//! feature contributions", 2014): from the features of another decision, those of the one to be explained are put in one
//! by one, in random order, and each gets the change of the logit that it makes; then the mean over many such walks. So the
//! contributions add up to the difference between this decision's logit and those that the walks began at.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rand::SeedableRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::agent::recording;
use crate::policy::host::{self, FEATURES, Features};
use crate::policy::{
    RL_EV_CENSORED, RL_MIGRATE, RL_MODE_HEURISTIC, RL_POINT_PULL, RL_POINT_TURN, RL_POINT_WAKE, rl_event, rl_weights,
};
use crate::process::print;
use crate::suite::table::markdown;

/// Decisions that usual ones are drawn from, at each point; and how many of them are explained for the overview.
const USUAL: usize = 2000;
const EXPLAINED: usize = 200;
/// Walks for one decision.
const WALKS: usize = 200;
/// Features that are shown for one decision.
const SHOWN: usize = 6;

/// Which features drive the decisions of a policy: over a recording, and in single decisions.
///
/// For each kind of decision (WAKE: a task wakes; PULL: a CPU looks elsewhere; TURN: a turn may end)
/// the features in the order of how much they push, to and fro: mean size of what each adds to the
/// logit of the decision, compared with usual decisions of the recording (Shapley values). Half a
/// logit moves a coin from 50 to 62 %. At TURN, home_run_avg is what the task has run since it slept, and
/// other_run_avg the least that one of those who wait wants. Then single decisions, if asked for: what was measured, what
/// is usual, what each feature added, and what came of it.
///
/// The checkpoint says what is explained. The decisions of the recording were made by the networks of
/// that time, or by the fixed rule where the guard let that decide; the probability that was logged is
/// shown beside that of the checkpoint. Logged decisions count alike, however many each stands for.
///
/// Examples:
///
///   scx_rl --learn --record run.rec --duration 60
///   scx_rl explain checkpoints/latest.safetensors run.rec
///   scx_rl explain checkpoints/latest.safetensors run.rec --task 1234 --last 3
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct ExplainArgs {
    /// The policy.
    pub checkpoint: PathBuf,
    /// A recording that --record wrote.
    pub recording: PathBuf,
    /// Explain the last decisions about this task (its thread id), five without --last.
    #[arg(long, value_name = "TID")]
    pub task: Option<u32>,
    /// Explain this many of the last decisions.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub last: Option<u64>,
    /// Print JSON: everything, all features included.
    #[arg(long)]
    pub json: bool,
}

/// A kind of decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Point {
    Wake,
    Pull,
    Turn,
}

const POINTS: [(u32, Point); 3] =
    [(RL_POINT_WAKE, Point::Wake), (RL_POINT_PULL, Point::Pull), (RL_POINT_TURN, Point::Turn)];

impl Point {
    fn of(event: &rl_event) -> Option<Self> {
        POINTS.iter().find(|(number, _)| *number == u32::from(event.point)).map(|(_, point)| *point)
    }

    fn label(self) -> &'static str {
        match self {
            Point::Wake => "WAKE",
            Point::Pull => "PULL",
            Point::Turn => "TURN",
        }
    }
}

impl Point {
    /// What action 1 and action 0 are.
    fn actions(self) -> (&'static str, &'static str) {
        match self {
            Point::Turn => ("go on", "end the turn"),
            Point::Wake | Point::Pull => ("migrate", "stay"),
        }
    }
}

/// What a feature does.
#[derive(Clone, Debug, Serialize)]
struct Push {
    feature: &'static str,
    /// Of the decision that is explained; in an overview, the mean.
    value: f64,
    /// Mean over the usual decisions.
    usual: f64,
    /// What it adds to the logit; in an overview, the mean size of that.
    logit: f64,
}

/// What drives decisions of one kind.
#[derive(Debug, Serialize)]
struct Overview {
    point: Point,
    /// Logged in the recording.
    decisions: u64,
    /// Mean probability to migrate (at TURN: to go on with the turn) under the checkpoint.
    p_migrate: f64,
    /// Largest first.
    pushes: Vec<Push>,
}

/// One decision.
#[derive(Debug, Serialize)]
struct Explained {
    decided_at_ns: u64,
    task: u32,
    point: Point,
    home: u16,
    other: u16,
    /// What was chosen; at TURN: to go on.
    migrated: bool,
    /// The fixed rule chose.
    by_rule: bool,
    generation: u64,
    /// The probability to migrate that was logged, and that of the checkpoint.
    p_logged: f64,
    p_migrate: f64,
    /// Not meaningful if `censored`.
    wait_ns: u64,
    censored: bool,
    /// Largest first.
    pushes: Vec<Push>,
}

#[derive(Debug, Serialize)]
struct Report {
    overviews: Vec<Overview>,
    decisions: Vec<Explained>,
}

/// Decisions of one kind: a random sample of them.
#[derive(Default)]
struct Sample {
    seen: u64,
    features: Vec<Features>,
}

impl Sample {
    /// Each of those seen is kept with the same probability (reservoir sampling).
    fn add(&mut self, features: &Features, rng: &mut ChaCha8Rng) {
        use rand::Rng;
        self.seen += 1;
        if self.features.len() < USUAL {
            self.features.push(*features);
        } else if let Some(place) = self.features.get_mut(rng.random_range(0..self.seen) as usize) {
            *place = *features;
        }
    }

    fn mean(&self, feature: usize) -> f64 {
        self.features.iter().map(|f| f64::from(f[feature])).sum::<f64>() / self.features.len().max(1) as f64
    }
}

fn logit(weights: &rl_weights, features: &Features) -> f64 {
    host::forward(weights, features) as f64 / 65536.0
}

fn probability(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

/// What each feature adds to the logit, compared with walks that begin at `usual` decisions. `usual` is not empty.
fn contributions(
    weights: &rl_weights,
    features: &Features,
    usual: &[Features],
    rng: &mut ChaCha8Rng,
) -> [f64; FEATURES] {
    let mut sums = [0.0; FEATURES];
    let mut order: [usize; FEATURES] = std::array::from_fn(|i| i);
    for _ in 0..WALKS {
        let mut at = usual.choose(rng).copied().unwrap_or(*features);
        order.shuffle(rng);
        let mut before = logit(weights, &at);
        for &feature in &order {
            at[feature] = features[feature];
            let now = logit(weights, &at);
            sums[feature] += now - before;
            before = now;
        }
    }
    sums.map(|sum| sum / WALKS as f64)
}

fn sorted(mut pushes: Vec<Push>) -> Vec<Push> {
    pushes.sort_by(|a, b| b.logit.abs().total_cmp(&a.logit.abs()));
    pushes
}

fn overview(weights: &rl_weights, point: Point, sample: &Sample, rng: &mut ChaCha8Rng) -> Overview {
    let explained: Vec<&Features> = sample.features.choose_multiple(rng, EXPLAINED).collect();
    let mut sizes = [0.0; FEATURES];
    for features in &explained {
        let each = contributions(weights, features, &sample.features, rng);
        sizes.iter_mut().zip(each).for_each(|(sum, push)| *sum += push.abs() / explained.len() as f64);
    }
    let names = host::feature_table().into_iter().zip(sizes).enumerate();
    let pushes = names.map(|(i, (info, logit))| {
        let mean = sample.mean(i);
        Push { feature: info.name, value: mean, usual: mean, logit }
    });
    let p = sample.features.iter().map(|f| probability(logit(weights, f))).sum::<f64>() / sample.features.len() as f64;
    Overview { point, decisions: sample.seen, p_migrate: p, pushes: sorted(pushes.collect()) }
}

fn explain(weights: &rl_weights, event: &rl_event, point: Point, usual: &Sample, rng: &mut ChaCha8Rng) -> Explained {
    let each = contributions(weights, &event.features, &usual.features, rng);
    let names = host::feature_table().into_iter().zip(each).enumerate();
    let pushes = names.map(|(i, (info, logit))| Push {
        feature: info.name,
        value: f64::from(event.features[i]),
        usual: usual.mean(i),
        logit,
    });
    Explained {
        decided_at_ns: event.decided_at_ns,
        task: event.tid,
        point,
        home: event.home_dom,
        other: event.other_dom,
        migrated: u32::from(event.action) == RL_MIGRATE,
        by_rule: u32::from(event.mode) == RL_MODE_HEURISTIC,
        generation: event.generation,
        p_logged: f64::from(event.p_migrate_q16) / 65536.0,
        p_migrate: probability(logit(weights, &event.features)),
        wait_ns: event.wait_ns,
        censored: event.flags & RL_EV_CENSORED != 0,
        pushes: sorted(pushes.collect()),
    }
}

/// The subcommand `explain`.
///
/// # Errors
/// The checkpoint or the recording cannot be used, or has nothing that was asked for; or the output cannot be written.
pub fn run(args: &ExplainArgs) -> Result<()> {
    let weights = crate::run::load(&args.checkpoint)?
        .publishable()
        .with_context(|| format!("{} is not fit to run", args.checkpoint.display()))?;
    let wanted = args.last.or(args.task.map(|_| 5)).unwrap_or(0) as usize;
    // Not random to the user: the same files, the same answer.
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (samples, last) = read(&args.recording, args.task, wanted, &mut rng)?;
    ensure!(samples.iter().any(|s| s.seen > 0), "{} holds no decisions", args.recording.display());
    if let (Some(task), true) = (args.task, last.is_empty()) {
        anyhow::bail!("{} holds no decision about task {task}", args.recording.display());
    }
    let mut report = Report { overviews: Vec::new(), decisions: Vec::new() };
    for ((_, point), sample) in POINTS.iter().zip(&samples).filter(|(_, sample)| sample.seen > 0) {
        report.overviews.push(overview(&weights, *point, sample, &mut rng));
    }
    for event in &last {
        if let Some((point, sample)) = Point::of(event).map(|point| (point, &samples[event.point as usize])) {
            report.decisions.push(explain(&weights, event, point, sample, &mut rng));
        }
    }
    match args.json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&report)?)),
        false => print(&report.render()),
    }
}

/// A sample of the decisions of each kind, and the last ones (about `task`), as far as the recording is whole.
fn read(
    path: &Path,
    task: Option<u32>,
    wanted: usize,
    rng: &mut ChaCha8Rng,
) -> Result<([Sample; 3], VecDeque<rl_event>)> {
    let (mut samples, mut last) = (<[Sample; 3]>::default(), VecDeque::new());
    for event in recording::events(path)? {
        let event = event?;
        let Some(sample) = samples.get_mut(usize::from(event.point)) else { continue };
        sample.add(&event.features, rng);
        if wanted > 0 && task.is_none_or(|task| task == event.tid) {
            last.push_back(event);
            if last.len() > wanted {
                last.pop_front();
            }
        }
    }
    Ok((samples, last))
}

impl Report {
    /// For people.
    fn render(&self) -> String {
        let row = |cells: &[&str]| cells.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut out = String::new();
        for overview in &self.overviews {
            let Overview { point, decisions, p_migrate, pushes } = overview;
            let mut rows = vec![row(&["feature", "mean (0-127)", "pushes by"])];
            rows.extend(pushes.iter().map(|push| {
                vec![push.feature.to_string(), format!("{:.1}", push.usual), format!("{:.3}", push.logit)]
            }));
            out += &format!(
                "{}: {decisions} logged decisions, p({}) {p_migrate:.3} on the mean\n\n{}\n",
                point.label(),
                point.actions().0,
                markdown(&rows)
            );
        }
        for decision in &self.decisions {
            let (yes, no) = decision.point.actions();
            let outcome = match (decision.censored, decision.point) {
                (true, _) => "; what came of it is not known".to_string(),
                (false, Point::Turn) => String::new(),
                (false, _) => format!("; then waited {:.3} ms", decision.wait_ns as f64 / 1e6),
            };
            let mut rows = vec![row(&["feature", "value", "usual", "adds to the logit"])];
            rows.extend(decision.pushes.iter().take(SHOWN).map(|push| {
                let Push { feature, value, usual, logit } = push;
                vec![feature.to_string(), format!("{value:.0}"), format!("{usual:.1}"), format!("{logit:+.3}")]
            }));
            out += &format!(
                "{:.6} s: {} of task {} between domains {} and {}: p({yes}) {:.3}; {:.3} when {} {} decided: {}{outcome}\n\n{}\n",
                decision.decided_at_ns as f64 / 1e9,
                decision.point.label(),
                decision.task,
                decision.home,
                decision.other,
                decision.p_migrate,
                decision.p_logged,
                if decision.by_rule { "the fixed rule of generation" } else { "generation" },
                decision.generation,
                if decision.migrated { yes } else { no },
                markdown(&rows)
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{Agent, Hyper, Origin};
    use crate::bench::random_inputs;

    fn network(seed: u64) -> rl_weights {
        Agent::new(Hyper::default(), seed).unwrap().checkpoint(Origin::default()).unwrap().publishable().unwrap()
    }

    #[test]
    fn contributions_add_up_to_the_difference() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let weights = network(3);
        let (usual, features) = (host::features(&random_inputs(&mut rng)), host::features(&random_inputs(&mut rng)));
        let each = contributions(&weights, &features, &[usual], &mut rng);
        let difference = logit(&weights, &features) - logit(&weights, &usual);
        assert!((each.iter().sum::<f64>() - difference).abs() < 1e-9 && difference != 0.0, "{each:?}");
        for i in (0..FEATURES).filter(|&i| usual[i] == features[i]) {
            assert_eq!(each[i], 0.0, "what does not differ adds nothing");
        }
        assert_eq!(contributions(&weights, &usual, &[usual], &mut rng), [0.0; FEATURES]);
    }

    #[test]
    fn actions_have_the_names_of_their_numbers() {
        use crate::policy::{RL_END_TURN, RL_GO_ON, RL_STAY};
        assert_eq!((RL_GO_ON, RL_END_TURN), (RL_MIGRATE, RL_STAY));
        assert_eq!(Point::Turn.actions(), ("go on", "end the turn"));
    }

    #[test]
    fn a_sample_stands_for_all() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut sample = Sample::default();
        for i in 0..20_000u32 {
            sample.add(&[(i / 200) as u8; FEATURES], &mut rng);
        }
        assert_eq!((sample.seen, sample.features.len()), (20_000, USUAL));
        assert!((sample.mean(0) - 49.5).abs() < 2.5, "{}", sample.mean(0));
    }
}
