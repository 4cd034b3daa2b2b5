// SPDX-License-Identifier: GPL-2.0-only
//! One balancer under one regime: how long bursts take, how many are done.

use anyhow::{Result, bail};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::contender::{Contender, Kind, Start};
use super::machine::Shape;
use super::report::{Totals, decisions, share};
use super::workload::Workload;
use super::wreck::Wreck;
use super::{Sim, SimConfig};
use crate::agent::guard::{Guard, Limits};
use crate::agent::metrics::LearningPoint;
use crate::agent::publishing::Publishing;
use crate::agent::{Agent, Checkpoint, Environment, Hyper, Origin};
use crate::kernel::SchedulerConfig;
use crate::kernel::slots::Publication;
use crate::learning::guard_counts;
use crate::policy::{probability_q16, rl_event};
use crate::run::next_shift;
use crate::runqlat::Histogram;

/// The agent looks for events that often, simulated ns.
const POLL_NS: u64 = 10_000_000;
/// It publishes, and changes how often decisions are logged, that often, simulated ns.
const PUBLISH_NS: u64 = 250_000_000;

/// And a point of its learning curves is taken that often.
const POINT_NS: u64 = 1_000_000_000;

/// What all trials of a comparison have in common.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The machine.
    pub shape: Shape,
    /// Time before anything counts, simulated ns; an agent learns meanwhile.
    pub warm_up_ns: u64,
    /// Time that counts, simulated ns.
    pub measure_ns: u64,
    /// Decisions logged for a learning agent, at most, per simulated second.
    pub events_per_s: f64,
    /// Least probability of each action while it learns.
    pub explore_floor: f64,
    /// How agents that begin from scratch learn.
    pub hyper: Hyper,
    /// The scheduler's settings.
    pub scheduler: SchedulerConfig,
    /// What guards them, if anything.
    pub guard: Option<Limits>,
}

impl Setting {
    /// The machine of a trial.
    fn config(&self, seed: u64) -> SimConfig {
        SimConfig { scheduler: self.scheduler.clone(), ..SimConfig::new(self.shape, seed) }
    }
}

/// What came of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Bursts done, per second.
    pub bursts_per_s: f64,
    /// From wakeup to the end of the burst, us: mean, and of those of tasks with short and with long bursts the geometric mean.
    pub response_mean_us: f64,
    /// Likewise of the 99th percentiles, us.
    pub response_p99_us: f64,
    /// Mean wait for a CPU, us.
    pub wait_mean_us: f64,
    /// Share of the CPUs' time that they were busy.
    pub utilisation: f64,
    /// Of that, time to fill caches.
    pub refill_share: f64,
    /// Share of runs in another cache than the run before.
    pub moved_share: f64,
    /// Times the policy was asked, per second.
    pub decisions_per_s: f64,
    /// Share of those that chose to migrate.
    pub migrated_share: f64,
    /// Updates of the agent, from the beginning of its life.
    pub updates: u64,
    /// Entropy of its policy at its last update, nats.
    pub entropy: f64,
    /// Share of the time that the guard gives to the policy at the end; 1 without a guard.
    pub trusted_share: f64,
    /// Times that the guard distrusted the policy.
    pub distrusted: u64,
}

/// What came of learning in a trial.
#[derive(Debug)]
pub struct Learned {
    /// Its course, each simulated second.
    pub points: Vec<LearningPoint>,
    /// Its end.
    pub checkpoint: Checkpoint,
}

/// An agent that learns in simulations, with what it needs to go on between polls.
struct Pupil<'a> {
    agent: &'a mut Agent,
    publishing: Publishing,
    wreck: Option<Wreck>,
    seed: u64,
    events_per_s: f64,
    shift: u32,
    events: Vec<rl_event>,
    /// When it publishes next, simulated ns, and how many decisions there had been the last time.
    publish_at_ns: u64,
    asked: u64,
    points: Vec<LearningPoint>,
}

impl<'a> Pupil<'a> {
    /// An agent that is about to learn under this setting, in a simulation that begins now.
    fn new(agent: &'a mut Agent, setting: &Setting, seed: u64) -> Result<Self> {
        let floor_q16 = probability_q16(setting.explore_floor);
        let guard = setting.guard.clone().map(|limits| Guard::new(limits, seed, 0));
        let publishing = Publishing::new(
            agent,
            floor_q16,
            guard,
            setting.scheduler.learn_slices,
            &mut ChaCha8Rng::seed_from_u64(seed),
        )?;
        let events_per_s = setting.events_per_s;
        Ok(Self {
            agent,
            publishing,
            wreck: None,
            seed,
            events_per_s,
            shift: 0,
            events: Vec::new(),
            publish_at_ns: PUBLISH_NS,
            asked: 0,
            points: Vec::new(),
        })
    }

    /// A simulation in which it decides.
    fn begin(&mut self, config: &SimConfig, workload: Workload) -> Result<Sim> {
        let (mode, floor_q16, weights) = self.publishing.current();
        let mut sim = Sim::new(config, workload, &Publication { mode, floor_q16, weights, ..Publication::default() })?;
        self.publishing.publish(&mut sim)?;
        Ok(sim)
    }

    /// Let it learn for this long, simulated ns.
    fn learn_for(&mut self, sim: &mut Sim, ns: u64) -> Result<()> {
        let end_ns = sim.elapsed_ns() + ns;
        while sim.elapsed_ns() < end_ns {
            sim.run_for(POLL_NS.min(end_ns - sim.elapsed_ns()))?;
            self.events.clear();
            sim.poll(&mut self.events)?;
            // Before the gate sees them, too: one definition of the reward serves both.
            if let Some(wreck) = self.wreck {
                wreck.distort(&mut self.events);
            }
            self.publishing.observe(&self.events);
            if let Err(e) = self.agent.observe(&self.events) {
                log::warn!("{e:#}");
            }
            if sim.elapsed_ns() >= self.publish_at_ns {
                self.publish_at_ns += PUBLISH_NS;
                let asked = decisions(&sim.scheduler_mut().counters()).0;
                let per_s = (asked - self.asked) as f64 * 1e9 / PUBLISH_NS as f64;
                self.asked = asked;
                self.shift = next_shift(self.shift, per_s, self.events_per_s, 0);
                sim.scheduler_mut().set_sample_shift(self.shift);
                self.publishing.consider(self.agent);
                if sim.elapsed_ns() / POINT_NS > self.points.len() as u64 {
                    let at_s = sim.elapsed_ns() as f64 / 1e9;
                    self.points.push(LearningPoint::new(at_s, sim.generation(), &self.agent.metrics()));
                }
            }
            let now_ns = sim.elapsed_ns();
            self.publishing.step(sim, now_ns, |sim| Ok(guard_counts(&sim.scheduler_mut().counters())))?;
        }
        Ok(())
    }
}

/// Run a contender under a load: its score, and what it learned if it did.
///
/// # Errors
/// The simulation fails; its seed is in the error.
pub fn run(
    setting: &Setting,
    workload: &Workload,
    contender: &Contender,
    seed: u64,
) -> Result<(Score, Option<Learned>)> {
    match &contender.kind {
        Kind::Fixed(publication, rival) => {
            let config = SimConfig { rival: *rival, ..setting.config(seed) };
            let mut sim = Sim::new(&config, workload.clone(), publication)?;
            // Nobody learns from what would be logged.
            sim.scheduler_mut().set_sample_shift(16);
            sim.run_for(setting.warm_up_ns)?;
            let before = Reading::of(&mut sim);
            sim.run_for(setting.measure_ns)?;
            Ok((before.score(&mut sim, None), None))
        }
        Kind::Learn(start) => learn(setting, workload, start, None, seed),
        Kind::Wreck(wreck) => learn(setting, workload, &Start::Rule, Some(*wreck), seed),
    }
}

fn learn(
    setting: &Setting,
    workload: &Workload,
    start: &Start,
    wreck: Option<Wreck>,
    seed: u64,
) -> Result<(Score, Option<Learned>)> {
    let hyper = wreck.map_or(setting.hyper.clone(), |wreck| wreck.hyper(&setting.hyper));
    let mut agent = start.agent(&hyper, seed)?;
    let mut pupil = Pupil::new(&mut agent, setting, seed)?;
    let mut sim = pupil.begin(&setting.config(seed), workload.clone())?;
    pupil.learn_for(&mut sim, setting.warm_up_ns)?;
    let before = Reading::of(&mut sim);
    pupil.wreck = wreck;
    if let Some(wreck) = wreck {
        wreck.strike(pupil.agent, pupil.seed)?;
    }
    pupil.learn_for(&mut sim, setting.measure_ns)?;
    let score = before.score(&mut sim, Some(&pupil));
    let origin = Origin {
        generation: sim.generation(),
        kernel: "simulator".into(),
        topology: format!("{} simulated cpus, {} llcs", setting.shape.cpus, setting.shape.llcs),
        ..Origin::default()
    };
    let points = std::mem::take(&mut pupil.points);
    // What a wreck knows is nothing to keep.
    let learned = match wreck {
        Some(_) => None,
        None => Some(Learned { points, checkpoint: agent.checkpoint(origin)? }),
    };
    Ok((score, learned))
}

/// Let an agent learn under a load, from where it is.
///
/// # Errors
/// The simulation fails.
pub fn train(setting: &Setting, workload: &Workload, agent: &mut Agent, seed: u64, ns: u64) -> Result<()> {
    let config = setting.config(seed);
    let mut pupil = Pupil::new(agent, setting, seed)?;
    let mut sim = pupil.begin(&config, workload.clone())?;
    pupil.learn_for(&mut sim, ns)
}

/// The score of a learner in each of `windows` windows of a load. It comes from `before`, where it learned during the
/// warm-up, or from nowhere.
///
/// # Errors
/// The contender does not learn, or the simulation fails.
pub fn curve(
    setting: &Setting,
    before: Option<&Workload>,
    workload: &Workload,
    contender: &Contender,
    seed: u64,
    windows: u64,
    window_ns: u64,
) -> Result<Vec<Score>> {
    let Kind::Learn(start) = &contender.kind else { bail!("{} does not learn", contender.name) };
    let mut agent = start.agent(&setting.hyper, seed)?;
    if let Some(before) = before {
        train(setting, before, &mut agent, seed, setting.warm_up_ns)?;
    }
    let mut pupil = Pupil::new(&mut agent, setting, seed)?;
    let mut sim = pupil.begin(&setting.config(seed), workload.clone())?;
    (0..windows)
        .map(|_| {
            let before = Reading::of(&mut sim);
            pupil.learn_for(&mut sim, window_ns)?;
            Ok(before.score(&mut sim, Some(&pupil)))
        })
        .collect()
}

/// What was counted when the time that counts began.
struct Reading {
    at_ns: u64,
    totals: Totals,
    decisions: (u64, u64),
}

impl Reading {
    fn of(sim: &mut Sim) -> Self {
        let counters = sim.scheduler_mut().counters();
        Self { at_ns: sim.elapsed_ns(), totals: sim.totals().clone(), decisions: decisions(&counters) }
    }

    fn score(&self, sim: &mut Sim, pupil: Option<&Pupil<'_>>) -> Score {
        let now = Self::of(sim);
        let (ns, totals) = (now.at_ns - self.at_ns, now.totals.since(&self.totals));
        let (asked, migrated) = (now.decisions.0 - self.decisions.0, now.decisions.1 - self.decisions.1);
        let per_s = |count: u64| count as f64 * 1e9 / ns.max(1) as f64;
        let learned = pupil.map(|p| p.agent.metrics());
        Score {
            bursts_per_s: per_s(totals.response.samples()),
            response_mean_us: totals.response_us(Histogram::mean_us),
            response_p99_us: totals.response_us(|h| h.percentile_us(0.99)),
            wait_mean_us: totals.wait.mean_us(),
            utilisation: share(totals.busy_ns, ns * sim.cpus() as u64),
            refill_share: share(totals.refill_ns, totals.busy_ns),
            moved_share: share(totals.moves, totals.runs),
            decisions_per_s: per_s(asked),
            migrated_share: share(migrated, asked),
            updates: learned.as_ref().map_or(0, |m| m.updates),
            entropy: learned.as_ref().map_or(0.0, |m| m.entropy),
            trusted_share: pupil.and_then(|p| p.publishing.guarded()).map_or(1.0, |(_, share)| share),
            distrusted: pupil.map_or(0, |p| p.publishing.distrusted()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::regime::Regime;
    use super::super::workload::{Distribution, Role, TaskSpec};
    use super::*;
    use crate::policy::{RL_MODE_DRAW, RL_WITHOUT_depth};
    use crate::sim::Rival;

    fn setting(guard: bool, measure_s: u64) -> Setting {
        Setting {
            shape: Shape { cpus: 8, llcs: 2, nodes: 1, threads: 1 },
            warm_up_ns: 2_000_000_000,
            measure_ns: measure_s * 1_000_000_000,
            events_per_s: 10_000.0,
            explore_floor: 0.001,
            hyper: Hyper::default(),
            scheduler: SchedulerConfig::DEFAULT,
            guard: guard.then(Limits::default),
        }
    }

    fn score(setting: &Setting, regime: &str, contender: &str) -> Score {
        let workload = Regime::of_name(regime).unwrap().workload(setting.shape.cpus);
        run(setting, &workload, &contender.parse().unwrap(), 3).unwrap().0
    }

    #[test]
    fn the_guard_makes_a_wrecked_learner_cheap() {
        let of = |guard, contender: &str| score(&setting(guard, 60), "middle-short-95", contender);
        let rule = of(false, "rule=rule:margin=1").response_mean_us;
        let guarded = of(true, "sign=wreck:sign");
        let (free, share) = (of(false, "sign=wreck:sign").response_mean_us / rule, guarded.response_mean_us / rule);
        println!("a reward of the wrong sign makes responses longer: {free:.3} times, guarded {share:.3}");
        println!(
            "share of the time that it decides: {:.2}, distrusted {} times",
            guarded.trusted_share, guarded.distrusted
        );
        assert!(free > 1.05, "the wreck does no harm: {free}");
        assert!(share < 1.03, "{share}");
        // A minute is too short to tell for sure, so what it costs is held by the share of the time that it gets.
        assert!(guarded.trusted_share < 0.5, "the guard trusts it: {}", guarded.trusted_share);
    }

    #[test]
    fn what_is_not_finite_is_never_published() {
        let setting = setting(false, 0);
        let changes = |wreck: Option<Wreck>| {
            let mut agent = Start::Rule.agent(&setting.hyper, 3).unwrap();
            let mut pupil = Pupil::new(&mut agent, &setting, 3).unwrap();
            let workload = Regime::of_name("middle-short-95").unwrap().workload(setting.shape.cpus);
            let mut sim = pupil.begin(&setting.config(3), workload).unwrap();
            pupil.learn_for(&mut sim, 2_000_000_000).unwrap();
            if let Some(wreck) = wreck {
                wreck.strike(pupil.agent, 3).unwrap();
            }
            let before = pupil.publishing.current();
            pupil.learn_for(&mut sim, 3_000_000_000).unwrap();
            pupil.publishing.current() != before
        };
        assert!(changes(None), "it learns");
        assert!(!changes(Some(Wreck::Nan)), "the last good weights stay in use");
    }

    #[test]
    fn a_learner_finds_out_that_moves_are_dear() {
        let shape = Shape { cpus: 16, llcs: 4, nodes: 1, threads: 1 };
        let setting = Setting { shape, warm_up_ns: 8_000_000_000, ..setting(false, 4) };
        let learned = score(&setting, "high-short-95", "learned=learn:rule");
        let rule = score(&setting, "high-short-95", "rule=rule:margin=1");
        println!("learned {learned:?}\nrule {rule:?}");
        assert!(learned.moved_share < rule.moved_share * 0.7, "{} of {}", learned.moved_share, rule.moved_share);
        assert!(learned.response_mean_us < rule.response_mean_us * 0.9);
    }

    /// Bursts of 10 ms, more than the CPUs can do; beside tasks that run for a moment only, and such as never sleep.
    fn bursts(brief: usize, hogs: usize) -> Workload {
        let mut workload = Workload::default();
        let mut add = |count, run_ns, sleep_ns| {
            let role = Role::Batch { run_ns, sleep_ns };
            workload
                .add(count, &TaskSpec { name: "burst".into(), work: Distribution::Fixed, role, ..TaskSpec::default() });
        };
        add(32, 10_000_000, 20_000_000);
        if brief > 0 {
            add(brief, 50_000, 2_000_000);
        }
        workload.hogs(hogs, 100, 0);
        workload
    }

    /// Under these bursts with slices of at most so many ms: a rule's, or those that were learned.
    fn sliced(contender: &str, slice_ms: u64, brief: usize, hogs: usize) -> Score {
        let mut contender: Contender = contender.parse().unwrap();
        let learns = matches!(contender.kind, Kind::Learn(_));
        let (without, slice_ns) = (if learns { 0 } else { RL_WITHOUT_depth }, slice_ms * 1_000_000);
        let scheduler = SchedulerConfig { slice_ns, without, learn_slices: learns, ..SchedulerConfig::DEFAULT };
        let setting = Setting { scheduler, ..setting(false, 20) };
        let workload = bursts(brief, hogs);
        if let Kind::Learn(start) = &contender.kind {
            let mut agent = start.agent(&setting.hyper, 3).unwrap();
            // From random numbers it takes some hundred updates.
            let seconds = if matches!(start, Start::Random) { 200 } else { 30 };
            train(&setting, &workload, &mut agent, 3, seconds * 1_000_000_000).unwrap();
            let weights = agent.checkpoint(Origin::default()).unwrap().weights;
            let frozen = Publication { mode: RL_MODE_DRAW, weights, ..Publication::default() };
            contender.kind = Kind::Fixed(Box::new(frozen), Rival::None);
        }
        let (score, _) = run(&setting, &workload, &contender, 4).unwrap();
        println!("{brief} brief, {hogs} hogs, slice {slice_ms} ms, {}: {score:?}", contender.name);
        score
    }

    #[test]
    fn learned_slices_are_long_for_bursts_and_short_for_hogs() {
        let fixed = |slice_ms, hogs| sliced("a=rule:margin=1", slice_ms, 0, hogs);
        let (alone_4, alone_20) = (fixed(4, 0), fixed(20, 0));
        let (beside_4, beside_20) = (fixed(4, 16), fixed(20, 16));
        assert!(alone_20.bursts_per_s > alone_4.bursts_per_s, "long slices are better alone");
        assert!(beside_20.response_p99_us > beside_4.response_p99_us * 1.05, "short ones are, beside hogs, at p99");
        for start in ["a=learn:rule", "a=learn"] {
            let (alone, beside) = (sliced(start, 20, 0, 0), sliced(start, 20, 0, 16));
            assert!(alone.bursts_per_s > alone_20.bursts_per_s * 0.99, "{start}");
            assert!(beside.bursts_per_s > beside_20.bursts_per_s * 0.99, "{start}");
            assert!(beside.response_p99_us < beside_4.response_p99_us * 1.02, "{start}");
        }
    }

    /// Most bursts are brief, most of the time is the long ones': a turn must be judged by who waits, not by a mean.
    #[test]
    fn learned_slices_end_for_those_who_want_a_moment() {
        let fixed = sliced("a=rule:margin=1", 20, 16, 0);
        for start in ["a=learn:rule", "a=learn"] {
            let learned = sliced(start, 20, 16, 0);
            assert!(learned.bursts_per_s > fixed.bursts_per_s * 1.5, "{start}");
            assert!(learned.response_p99_us < fixed.response_p99_us * 0.9, "{start}");
        }
    }
}
