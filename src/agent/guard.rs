// SPDX-License-Identifier: GPL-2.0-only
//! The guard: how much of the time the learned policy may decide, from what it did to the whole workload.
//!
//! A reward is about one task; what counts is the machine. So time is cut into windows in which the policy decides and
//! windows in which the fixed rule does, in random order (a switchback design: Bojinov, Simchi-Levi, Zhao 2023, "Design
//! and Analysis of Switchback Experiments"), and two neighbours are compared:
//!
//! ```text
//! response = (time that tasks waited for a CPU + time that they ran) / bursts       bursts: times that a task fell asleep
//! harm     = ln(response under the policy / response under the rule)               of each pair; a move that costs time
//!                                                                                    on CPU counts like a wait
//! bound    = mean harm + t(n - 1) * sd / sqrt(n)                                    over the last pairs, one-sided 95 %
//! share    = budget / bound, within its limits                                      of the time under the policy
//! ```
//!
//! So what the policy may cost, share x harm, stays within the budget (3 %) as far as one can know: a policy of which
//! nothing is known is taken for a bad one, and decides a small share of the time; one that is known to be no worse decides
//! nearly all of it. The beginning of each window is discarded, because queues and caches are still those of the one before.
//!
//! If the policy is worse with confidence, or waits explode while it decides, it is distrusted: the rule decides alone for a
//! while, each time twice as long. This file knows no clock and no kernel: it is told the time and what was counted.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::lab::statistics::{median, student_t};
use crate::policy::RL_HIST_BUCKETS;

/// Fewer bursts than this in a window say nothing of its response.
const BURSTS_MIN: u64 = 20;
/// A window under the policy that has fewer although the rule's beside it has this many times as many: it stalls.
const STALL_FACTOR: u64 = 4;
/// The harm of such a window, as ln of the ratio: twice the response, for want of a number.
const STALL_HARM: f64 = std::f64::consts::LN_2;

/// Buckets of [`Counts::waits`]: bucket i counts waits in [2^i, 2^(i+1)) us.
pub const BUCKETS: usize = RL_HIST_BUCKETS as usize;

/// The limits of the guard.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Length of a window, ns.
    pub window_ns: u64,
    /// Its beginning, which does not count, ns.
    pub burn_in_ns: u64,
    /// What the policy may cost, as a share of the response time.
    pub budget: f64,
    /// The harm that a policy of which nothing is known is taken to do.
    pub unknown_harm: f64,
    /// Most time under the policy, as a share; the rest is what comparing costs.
    pub share_max: f64,
    /// Pairs of windows that are remembered: the policy changes, and so does the load.
    pub pairs_max: usize,
    /// Fewer pairs say nothing.
    pub pairs_min: usize,
    /// The policy is distrusted when it is worse with this confidence (one-sided). Higher than that of the bound: it is
    /// looked at after every pair, and one in many looks is wrong.
    pub worse_confidence: f64,
    /// How long the rule decides alone when the policy is distrusted for the first time, ns.
    pub pause_ns: u64,
    /// And at most, ns.
    pub pause_max_ns: u64,
    /// Waits explode when their 99th percentile is this many times what it is under the rule, and ...
    pub trip_factor: f64,
    /// ... longer than this, us.
    pub trip_us: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window_ns: 400_000_000,
            burn_in_ns: 100_000_000,
            budget: 0.03,
            unknown_harm: 0.15,
            share_max: 0.95,
            pairs_max: 64,
            pairs_min: 5,
            worse_confidence: 0.995,
            pause_ns: 30_000_000_000,
            pause_max_ns: 3_600_000_000_000,
            trip_factor: 8.0,
            trip_us: 20_000.0,
        }
    }
}

/// What the scheduler has counted since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Time that tasks waited for a CPU, ns.
    pub wait_ns: u64,
    /// Time on CPU of all bursts that have ended, ns.
    pub burst_ns: u64,
    /// Bursts that have ended: the task fell asleep.
    pub bursts: u64,
    /// Waits by length.
    pub waits: [u64; BUCKETS],
}

impl Counts {
    fn since(&self, earlier: &Counts) -> Counts {
        let mut waits = [0; BUCKETS];
        for (i, wait) in waits.iter_mut().enumerate() {
            *wait = self.waits[i].saturating_sub(earlier.waits[i]);
        }
        Counts {
            wait_ns: self.wait_ns.saturating_sub(earlier.wait_ns),
            burst_ns: self.burst_ns.saturating_sub(earlier.burst_ns),
            bursts: self.bursts.saturating_sub(earlier.bursts),
            waits,
        }
    }

    /// Mean response of a burst, ns; none if too few ended to say.
    fn response_ns(&self) -> Option<f64> {
        (self.bursts >= BURSTS_MIN).then(|| (self.wait_ns + self.burst_ns) as f64 / self.bursts as f64)
    }

    /// Upper edge of the bucket with the 99th percentile of waits, us; 0 without waits.
    fn p99_us(&self) -> f64 {
        let total: u64 = self.waits.iter().sum();
        let mut above = total / 100;
        for (i, &count) in self.waits.iter().enumerate().rev() {
            if count > above {
                return 2f64.powi(i as i32 + 1);
            }
            above -= count;
        }
        0.0
    }
}

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decider {
    /// The learned policy.
    Policy,
    /// The fixed rule.
    Rule,
}

/// Why the policy was distrusted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reason {
    /// It is worse with confidence: by this share of the response time, at least.
    Worse {
        /// Lower bound of the harm.
        at_least: f64,
    },
    /// Waits exploded while it decided.
    Waits {
        /// Their 99th percentile, us.
        p99_us: f64,
        /// What it usually is under the rule, us.
        usual_us: f64,
    },
}

/// What the guard wants now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Order {
    /// Who decides from now on.
    pub decider: Decider,
    /// The policy was distrusted just now. What it knows by then is not worth trying again: go back to weights that were
    /// trusted, or to the beginning.
    pub distrusted: Option<Reason>,
}

/// What is known of the harm, as a share of the response time.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Harm {
    /// Pairs of windows that it is from.
    pub pairs: usize,
    /// Mean.
    pub mean: f64,
    /// Standard error of the mean.
    pub error: f64,
}

impl Harm {
    fn of(pairs: &[f64]) -> Self {
        if pairs.len() < 2 {
            return Self { pairs: pairs.len(), ..Self::default() };
        }
        let n = pairs.len() as f64;
        let mean = pairs.iter().sum::<f64>() / n;
        let variance = pairs.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0);
        Self { pairs: pairs.len(), mean, error: (variance / n).sqrt() }
    }
}

/// What goes on within a block: a window of each, in random order, and then more of one of them.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    First,
    Second,
    Rest,
    /// The rule decides alone.
    Pause,
}

/// The guard of one run.
#[derive(Debug)]
pub struct Guard {
    limits: Limits,
    rng: ChaCha8Rng,
    stage: Stage,
    /// Of the stage.
    ends_at_ns: u64,
    decider: Decider,
    /// When the stage began to count, and what was counted then.
    from: Option<(u64, Counts)>,
    /// The stage began then.
    began_at_ns: u64,
    /// What was counted in the block's first window.
    first: Option<Counts>,
    /// ln of ratios since the learner was last distrusted, the oldest first.
    pairs: Vec<f64>,
    /// Of these, the last ones, which are about the policy as it is now.
    fresh: usize,
    /// Of the time under the policy; from the pairs.
    share: f64,
    /// 99th percentiles under the rule, us, the oldest first.
    usual_us: Vec<f64>,
    pauses: u32,
    /// Times that the policy was distrusted.
    distrusted: u64,
}

impl Guard {
    /// A guard that knows nothing of the policy yet.
    pub fn new(limits: Limits, seed: u64, now_ns: u64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let mut guard = Self {
            limits,
            rng,
            stage: Stage::Rest,
            ends_at_ns: now_ns,
            decider: Decider::Rule,
            from: None,
            began_at_ns: now_ns,
            first: None,
            pairs: Vec::new(),
            fresh: 0,
            share: 0.0,
            usual_us: Vec::new(),
            pauses: 0,
            distrusted: 0,
        };
        guard.weigh();
        guard.begin(Stage::Rest, Decider::Rule, now_ns, guard.limits.window_ns);
        guard
    }

    /// Who decides now.
    pub fn decider(&self) -> Decider {
        self.decider
    }

    /// Times that the policy was distrusted.
    pub fn distrusted(&self) -> u64 {
        self.distrusted
    }

    /// What is known of the harm of the policy as it is now.
    pub fn harm(&self) -> Harm {
        Harm::of(&self.pairs[self.pairs.len() - self.fresh..])
    }

    /// The share of the time that the policy may decide: none while it is paused.
    pub fn share(&self) -> f64 {
        if self.stage == Stage::Pause { 0.0 } else { self.share }
    }

    /// What is known of the harm has changed, so the share does. (Not on demand: that is in every turn of the loop.)
    fn weigh(&mut self) {
        let harm = self.harm();
        let bound = if harm.pairs < self.limits.pairs_min {
            self.limits.unknown_harm
        } else {
            let reach = student_t(0.95, harm.pairs - 1) * harm.error;
            ((harm.mean + reach).exp() - 1.0).min(self.limits.unknown_harm)
        };
        let least = self.limits.budget / self.limits.unknown_harm;
        self.share = (self.limits.budget / bound.max(1e-9)).clamp(least, self.limits.share_max);
    }

    /// Is the policy known to be harmless enough to decide nearly all of the time?
    pub fn trusts(&self) -> bool {
        self.share >= self.limits.share_max
    }

    /// Time goes on: who decides now? To be called at least ten times in a window.
    pub fn observe(&mut self, now_ns: u64, counts: &Counts) -> Order {
        let mut distrusted = None;
        if self.from.is_none() && now_ns >= self.began_at_ns + self.limits.burn_in_ns {
            self.from = Some((now_ns, *counts));
        }
        if self.decider == Decider::Policy
            && let Some(reason) = self.exploded(counts)
        {
            distrusted = Some(reason);
        } else if now_ns >= self.ends_at_ns {
            distrusted = self.end_stage(now_ns, counts);
        }
        if distrusted.is_some() {
            self.pause(now_ns);
        }
        Order { decider: self.decider, distrusted }
    }

    /// Learning has changed the policy: nothing is known of it as it is now, and its share begins anew. What it did before
    /// still counts against it, else a learner that goes wrong steadily would never be judged.
    pub fn changed(&mut self) {
        self.fresh = 0;
        self.weigh();
    }

    /// Another policy takes its place, of which nothing is known.
    pub fn forget(&mut self) {
        self.pairs.clear();
        self.changed();
    }

    fn exploded(&self, counts: &Counts) -> Option<Reason> {
        let (_, from) = self.from.as_ref()?;
        let so_far = counts.since(from);
        if so_far.waits.iter().sum::<u64>() < 200 || self.usual_us.is_empty() {
            return None;
        }
        let (p99_us, usual_us) = (so_far.p99_us(), median(self.usual_us.iter().copied()));
        let too_long = p99_us > self.limits.trip_us && p99_us > self.limits.trip_factor * usual_us;
        too_long.then_some(Reason::Waits { p99_us, usual_us })
    }

    fn end_stage(&mut self, now_ns: u64, counts: &Counts) -> Option<Reason> {
        let counted = self.from.as_ref().map(|(_, from)| counts.since(from));
        if let (Decider::Rule, Some(counted)) = (self.decider, &counted)
            && counted.waits.iter().sum::<u64>() >= 200
        {
            push(&mut self.usual_us, counted.p99_us(), 15);
        }
        let window_ns = self.limits.window_ns;
        match self.stage {
            Stage::First => {
                self.first = counted;
                let other = if self.decider == Decider::Policy { Decider::Rule } else { Decider::Policy };
                self.begin(Stage::Second, other, now_ns, window_ns);
            }
            Stage::Second => {
                let (policy, rule) =
                    if self.decider == Decider::Policy { (counted, self.first) } else { (self.first, counted) };
                if let (Some(policy), Some(rule)) = (policy, rule)
                    && let Some(harm) = harm_of(&policy, &rule)
                {
                    push(&mut self.pairs, harm, self.limits.pairs_max);
                    self.fresh = (self.fresh + 1).min(self.pairs.len());
                    self.weigh();
                    if let Some(reason) = self.worse() {
                        return Some(reason);
                    }
                }
                // A window of each is a part of the block; the rest makes up the share.
                let share = self.share;
                let block_ns = window_ns as f64 / share.min(1.0 - share);
                let rest_ns = (block_ns - 2.0 * window_ns as f64).max(0.0) as u64;
                let decider = if share > 0.5 { Decider::Policy } else { Decider::Rule };
                self.begin(Stage::Rest, decider, now_ns, rest_ns);
            }
            Stage::Rest | Stage::Pause => {
                let decider = if self.rng.random() { Decider::Policy } else { Decider::Rule };
                self.begin(Stage::First, decider, now_ns, window_ns);
            }
        }
        None
    }

    /// Is what the learner made worse with confidence?
    fn worse(&self) -> Option<Reason> {
        let harm = Harm::of(&self.pairs);
        if harm.pairs < self.limits.pairs_min {
            return None;
        }
        let at_least = harm.mean - student_t(self.limits.worse_confidence, harm.pairs - 1) * harm.error;
        (at_least > 0.0).then(|| Reason::Worse { at_least: at_least.exp() - 1.0 })
    }

    fn pause(&mut self, now_ns: u64) {
        // Each time twice as long, but for a policy that was trusted meanwhile.
        let pause_ns = self.limits.pause_ns.saturating_mul(1 << self.pauses.min(20)).min(self.limits.pause_max_ns);
        self.pauses += 1;
        self.distrusted += 1;
        self.forget();
        self.begin(Stage::Pause, Decider::Rule, now_ns, pause_ns);
    }

    fn begin(&mut self, stage: Stage, decider: Decider, now_ns: u64, ns: u64) {
        if self.trusts() {
            self.pauses = 0;
        }
        self.stage = stage;
        self.decider = decider;
        self.began_at_ns = now_ns;
        self.ends_at_ns = now_ns + ns;
        self.from = None;
    }
}

/// ln of the ratio of the responses in a pair of windows; none if they do not tell.
fn harm_of(policy: &Counts, rule: &Counts) -> Option<f64> {
    let rule_ns = rule.response_ns()?;
    match policy.response_ns() {
        Some(policy_ns) => Some((policy_ns / rule_ns).ln()),
        None => (rule.bursts >= STALL_FACTOR * BURSTS_MIN).then_some(STALL_HARM),
    }
}

fn push(values: &mut Vec<f64>, value: f64, most: usize) {
    if values.len() == most {
        values.remove(0);
    }
    values.push(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP_NS: u64 = 20_000_000;
    const SECOND_NS: u64 = 1_000_000_000;

    /// A machine on which the policy makes responses longer by `harm`, with noise and a load that swings.
    struct Outcome {
        /// Share of the response time that the policy cost, over all time.
        cost: f64,
        /// Share of the time that the policy decided, in the last quarter.
        share: f64,
        distrusted: u64,
        /// When the policy was distrusted first, s.
        first_s: Option<f64>,
    }

    fn live(seed: u64, seconds: u64, harm: impl Fn(f64) -> f64, p99: impl Fn(Decider, f64) -> u32) -> Outcome {
        live_changing(seed, seconds, harm, p99, f64::INFINITY)
    }

    /// The same with a policy that changes into another one every so many seconds.
    fn live_changing(
        seed: u64,
        seconds: u64,
        harm: impl Fn(f64) -> f64,
        p99: impl Fn(Decider, f64) -> u32,
        changes_s: f64,
    ) -> Outcome {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut guard = Guard::new(Limits::default(), seed, 0);
        let mut counts = Counts { wait_ns: 0, burst_ns: 0, bursts: 0, waits: [0; BUCKETS] };
        let (mut cost, mut late, mut first_s) = (0.0, 0u64, None);
        let steps = seconds * SECOND_NS / STEP_NS;
        for step in 0..steps {
            let at_s = (step * STEP_NS) as f64 / 1e9;
            if at_s % changes_s < STEP_NS as f64 / 1e9 {
                guard.changed();
            }
            let order = guard.observe(step * STEP_NS, &counts);
            if order.distrusted.is_some() && first_s.is_none() {
                first_s = Some(at_s);
            }
            let policy = order.decider == Decider::Policy;
            let here = if policy { harm(at_s) } else { 0.0 };
            cost += here;
            late += u64::from(policy && step >= steps * 3 / 4);
            let load = 1.0 + 0.3 * (at_s / 60.0).sin();
            let noise = rng.random_range(0.4..1.6);
            counts.bursts += 40;
            counts.wait_ns += (40.0 * 500_000.0 * load * (1.0 + 2.0 * here) * noise) as u64;
            counts.burst_ns += 40 * 500_000;
            counts.waits[9] += 60;
            counts.waits[p99(order.decider, at_s) as usize] += 2;
        }
        Outcome {
            cost: cost / steps as f64,
            share: late as f64 / (steps / 4) as f64,
            distrusted: guard.distrusted(),
            first_s,
        }
    }

    #[test]
    fn a_harmless_policy_soon_decides_nearly_always() {
        let mut wrongly = 0;
        for (seed, harm) in [(1, 0.0), (2, 0.0), (3, -0.2), (4, -0.2), (5, 0.0), (6, -0.05)] {
            let o = live(seed, 3600, |_| harm, |_, _| 11);
            println!("harm {harm}: cost {:.4}, share {:.3}, distrusted {} times", o.cost, o.share, o.distrusted);
            assert!(o.share > if harm < -0.1 { 0.9 } else { 0.4 }, "{}", o.share);
            wrongly += o.distrusted;
        }
        assert!(wrongly <= 6, "distrusted {wrongly} times in 6 hours without reason");
    }

    #[test]
    fn a_bad_policy_costs_less_than_the_budget() {
        for (seed, harm) in [(1, 0.05), (2, 0.1), (3, 0.3), (4, 0.5), (5, 1.0), (6, 3.0)] {
            let o = live(seed, 3600, |_| harm, |_, _| 11);
            println!("harm {harm}: cost {:.4}, share {:.3}, distrusted {} times", o.cost, o.share, o.distrusted);
            assert!(o.cost < Limits::default().budget, "harm {harm} cost {}", o.cost);
            assert!(o.distrusted > 0 || harm < 0.1, "harm {harm} was not noticed");
        }
    }

    #[test]
    fn a_policy_that_goes_bad_is_noticed() {
        let o = live(7, 3600, |at_s| if at_s < 1800.0 { -0.1 } else { 0.5 }, |_, _| 11);
        let noticed_s = o.first_s.unwrap();
        println!("noticed after {:.0} s, cost {:.4}", noticed_s - 1800.0, o.cost);
        assert!((1800.0..2100.0).contains(&noticed_s), "{noticed_s}");
        assert!(o.share < 0.15, "{}", o.share);
    }

    #[test]
    fn a_policy_that_never_stays_the_same_is_judged_all_the_same() {
        for (seed, harm) in [(1, 0.3), (2, 0.5), (3, 1.0)] {
            let o = live_changing(seed, 1800, |_| harm, |_, _| 11, 3.0);
            println!("harm {harm}: cost {:.4}, distrusted {} times", o.cost, o.distrusted);
            assert!(o.distrusted > 0 && o.cost < Limits::default().budget, "harm {harm} cost {}", o.cost);
        }
    }

    #[test]
    fn a_policy_under_which_nothing_ends_is_noticed() {
        let mut guard = Guard::new(Limits::default(), 1, 0);
        let mut counts = Counts { wait_ns: 0, burst_ns: 0, bursts: 0, waits: [0; BUCKETS] };
        let mut noticed_s = None;
        for step in 0..3000 {
            if guard.observe(step * STEP_NS, &counts).distrusted.is_some() {
                noticed_s = Some(step * STEP_NS / SECOND_NS);
                break;
            }
            if guard.decider() == Decider::Rule {
                counts.bursts += 40;
                counts.wait_ns += 40 * 500_000;
            }
        }
        assert!(noticed_s.is_some_and(|s| s < 30), "{noticed_s:?}");
        assert_eq!(guard.share(), 0.0, "it is paused");
    }

    #[test]
    fn exploding_waits_end_it_at_once() {
        // 8 times as long in mean would take pairs of windows; a p99 of half a second does not.
        let p99 = |decider, at_s: f64| if decider == Decider::Policy && at_s > 600.0 { 19 } else { 11 };
        let o = live(8, 900, |_| 0.0, p99);
        let noticed_s = o.first_s.unwrap();
        assert!((600.0..615.0).contains(&noticed_s), "{noticed_s}");
    }

    #[test]
    fn a_machine_that_does_nothing_says_nothing() {
        let mut guard = Guard::new(Limits::default(), 1, 0);
        let counts = Counts { wait_ns: 0, burst_ns: 0, bursts: 0, waits: [0; BUCKETS] };
        for step in 0..10_000 {
            assert_eq!(guard.observe(step * STEP_NS, &counts).distrusted, None);
        }
        assert_eq!(guard.harm().pairs, 0);
        assert!((guard.share() - 0.2).abs() < 1e-9, "nothing is known: {}", guard.share());
    }
}
