// SPDX-License-Identifier: GPL-2.0-only
//! What an event is worth: the one definition of the reward, and of which events have one.
//!
//! ```text
//! cost            = min(wait, CAP) + (whole ? service - usual service, within +-CAP : 0)     CAP = 50 ms
//! raw reward      = -cost, in ms                                     what reports and curves show
//! training reward = -cost / running mean of the response, in [-8, 8]     what the learner sees
//! response        = min(wait, CAP) + min(usual service, CAP)
//! ```
//!
//! The wait is the runqueue latency of the decided task; the difference of service times is a noisy measure of what the move
//! cost it in cache misses. It counts where the period was a whole burst, from one sleep to the next: how long others last is
//! up to who else wants the CPU, and a task that never sleeps would seem to pay for having one to itself. It counts when it
//! is negative, too: bursts vary by themselves, and without their lucky half a move would seem to cost less than it does, and
//! staying more. (With exponential bursts of 5 ms, a move that costs 2 ms would count 0.9.) Both are winsorised, because one starved task must not outweigh ten
//! thousand ordinary ones. The running mean makes the scale independent of the machine and of the load; each decision point
//! has its own, since WAKE waits start at zero and PULL waits do not.
//!
//! At TURN a task runs already, and others wait. What its turn is worth is whether it gets to sleep; what it costs is the
//! time for which it keeps the CPU from those who wait, measured by the least that one of them wants between two sleeps:
//!
//! ```text
//! raw reward      = min(want, TURN_CAP) x ((slept ? 1 : 0) - (min(service, CAP) + (ended and switched ? SWITCH : 0)) / want)      in ms
//! training reward = raw reward / TURN_CAP, in [-8, 8]                                                     TURN_CAP = 10 ms
//! want            = the least that one of the first waiting tasks usually runs between two sleeps, or has run since its last
//!                   one; of one that has never slept, what new ones usually do
//! ```
//!
//! So it is bursts done, less the bursts that others would have done in the same time; with a weight, so that a wait of a
//! moment's task counts for as much as it is long, and no more. The idea is that of the index that
//! orders jobs of unknown length (Gittins, "Bandit processes and dynamic allocation indices", 1979): a burst that is nearly
//! done is worth going on with, one that never ends is not, and where those who wait never end either it does not matter. It
//! is not that index: the outcome is that of the rest of the turn under the present policy, not of the best time to stop;
//! weights do not count; bursts count whole, however much of them is done; and who is next is a matter of deadlines, not of
//! this. A mean over the domain's bursts would be wrong here: most are those of tasks that sleep soon, while those who wait are mostly others.

use serde::{Deserialize, Serialize};

use crate::policy::{
    RL_END_TURN, RL_EV_CENSORED, RL_EV_KEPT, RL_EV_WHOLE, RL_EVENT_VERSION, RL_FEATURE_MAX, RL_MIGRATE, RL_MODE_DRAW,
    RL_MODE_RANDOM, RL_NR_DISTANCES, RL_NR_POINTS, RL_POINT_TURN, RL_POINT_WAKE, RL_PROB_ONE, rl_event,
};

/// Which rewards, and which measurements behind the features: to be changed with their meaning, so that what was learned of
/// others is refused. `2`: turns are judged by who waits.
pub const REWARDS: u32 = 2;

/// Waits and extra service times count at most this much.
pub const CAP_NS: u64 = 50_000_000;

/// What it costs to end a turn: a switch, and caches of the core that the next task finds full of another's data.
const SWITCH_NS: u64 = 100_000;

/// At TURN a burst counts at most this much, ns: about what a slice has.
const TURN_CAP_NS: f64 = 10_000_000.0;

/// A response mean below this (1 us) would turn timer noise into large rewards.
const RESPONSE_MIN_NS: f64 = 1000.0;

/// What the agent does with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its reward is learned from.
    Learn,
    /// The outcome is unknown: no reward.
    Censored,
    /// A valid event of a mode that does not draw its actions.
    OffMode,
    /// Something that the BPF side cannot have meant, and what.
    Invalid(&'static str),
}

/// Judge an event. Validity comes first: the flags of an event of another version mean nothing. Unknown flag bits outside
/// of `RL_EV_CENSORED` are ignored, as they do not change the reward.
pub fn judge(event: &rl_event) -> Verdict {
    if let Some(why) = invalid(event) {
        return Verdict::Invalid(why);
    }
    if event.flags & RL_EV_CENSORED != 0 {
        return Verdict::Censored;
    }
    match u32::from(event.mode) {
        RL_MODE_DRAW | RL_MODE_RANDOM => Verdict::Learn,
        _ => Verdict::OffMode,
    }
}

fn invalid(event: &rl_event) -> Option<&'static str> {
    if u32::from(event.version) != RL_EVENT_VERSION {
        Some("event version")
    } else if event.features.iter().any(|&f| u32::from(f) > RL_FEATURE_MAX) {
        Some("feature out of range")
    } else if u32::from(event.point) >= RL_NR_POINTS {
        Some("decision point")
    } else if u32::from(event.action) > RL_MIGRATE {
        Some("action")
    } else if u32::from(event.distance) >= RL_NR_DISTANCES {
        Some("distance class")
    } else if u32::from(event.mode) > RL_MODE_RANDOM {
        Some("mode")
    } else if event.p_migrate_q16 > RL_PROB_ONE {
        Some("propensity above one")
    } else if propensity_q16(event) == 0 {
        Some("action of propensity zero")
    } else {
        None
    }
}

/// The logged probability of the action that was taken, out of `RL_PROB_ONE`: the sampler's own integer.
pub fn propensity_q16(event: &rl_event) -> u32 {
    if u32::from(event.action) == RL_MIGRATE {
        event.p_migrate_q16
    } else {
        RL_PROB_ONE.saturating_sub(event.p_migrate_q16)
    }
}

/// The cost of the decision's outcome: from -CAP to 2 CAP, and SWITCH.
pub fn cost_ns(event: &rl_event) -> i64 {
    let cap = CAP_NS as i64;
    if u32::from(event.point) == RL_POINT_TURN {
        return turn_cost_ns(event).round() as i64;
    }
    let wait_ns = event.wait_ns.min(CAP_NS) as i64;
    if event.flags & RL_EV_WHOLE == 0 {
        return wait_ns;
    }
    let extra_ns = i64::try_from(i128::from(event.service_ns) - i128::from(event.usual_service_ns));
    wait_ns + extra_ns.unwrap_or(cap).clamp(-cap, cap)
}

/// At TURN: from -TURN_CAP to CAP and SWITCH.
fn turn_cost_ns(event: &rl_event) -> f64 {
    let slept = event.flags & RL_EV_WHOLE != 0;
    let switched = u32::from(event.action) == RL_END_TURN && event.flags & RL_EV_KEPT == 0;
    let taken_ns = event.service_ns.min(CAP_NS) + if switched { SWITCH_NS } else { 0 };
    let want_ns = (event.usual_service_ns as f64).max(RESPONSE_MIN_NS);
    want_ns.min(TURN_CAP_NS) * (taken_ns as f64 / want_ns - if slept { 1.0 } else { 0.0 })
}

/// The raw reward, ms: from -100 to 50.
pub fn raw_reward_ms(event: &rl_event) -> f64 {
    -(cost_ns(event) as f64) / 1e6
}

/// An exponentially weighted mean whose early values are not biased towards zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct RunningMean {
    #[serde(with = "exact")]
    sum: f64,
    #[serde(with = "exact")]
    weight: f64,
}

impl RunningMean {
    /// Take in one value with a horizon of `horizon` values.
    pub fn add(&mut self, value: f64, horizon: u64) {
        let share = 1.0 / horizon.max(1) as f64;
        self.sum += share * (value - self.sum);
        self.weight += share * (1.0 - self.weight);
    }

    /// The mean, or `None` before the first value.
    pub fn get(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

/// The running means of the response, ns, one per decision point: the state behind the training reward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Normaliser {
    wake: RunningMean,
    pull: RunningMean,
    turn: RunningMean,
}

impl Normaliser {
    /// The training reward of a valid event, in `[-clip, clip]`. The event counts towards the mean that it is divided by, so
    /// the first event already has a scale. (At TURN that is a constant, and the mean only says how much was seen.)
    pub fn training_reward(&mut self, event: &rl_event, horizon_events: u64, clip: f64) -> f64 {
        let response_ns = event.wait_ns.min(CAP_NS) + event.usual_service_ns.min(CAP_NS);
        let mean = match u32::from(event.point) {
            RL_POINT_TURN => {
                self.turn.add(response_ns as f64, horizon_events);
                return (-turn_cost_ns(event) / TURN_CAP_NS).clamp(-clip, clip);
            }
            RL_POINT_WAKE => &mut self.wake,
            _ => &mut self.pull,
        };
        mean.add(response_ns as f64, horizon_events);
        let scale_ns = mean.get().unwrap_or(0.0).max(RESPONSE_MIN_NS);
        (-(cost_ns(event) as f64) / scale_ns).clamp(-clip, clip)
    }

    /// Have there been enough decisions about the length of turns to know anything of them? A tenth of the mean's horizon.
    pub fn knows_turns(&self) -> bool {
        self.turn.weight >= 0.1
    }

    /// Mean response at WAKE and at PULL, ns; `None` before the first event.
    pub fn means_ns(&self) -> (Option<f64>, Option<f64>) {
        (self.wake.get(), self.pull.get())
    }
}

/// Finite f64 through text without losing a bit: as a string, because serde_json's float parser may be off by one unit in
/// the last place while Rust's own is exact.
pub(super) mod exact {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{value:?}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        let text = String::deserialize(deserializer)?;
        let value: f64 = text.parse().map_err(|_| D::Error::custom(format!("{text:?} is not a number")))?;
        if value.is_finite() { Ok(value) } else { Err(D::Error::custom(format!("{text:?} is not finite"))) }
    }
}
