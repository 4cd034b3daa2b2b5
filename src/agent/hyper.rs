// SPDX-License-Identifier: GPL-2.0-only
//! The hyper-parameters: one struct, every field with its default and the reason for it.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::network::Form;

/// What can be tuned about learning. Unknown names are refused, so that a typing error is not a silent default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hyper {
    /// What the actor may be (mlp): an ablation, see `experiments/hyper`.
    pub network: Form,
    /// Accepted events per update (512): enough that a rare expensive wait does not decide an update alone.
    pub batch_events: usize,
    /// Events per gradient step (128): four steps per epoch. At most 2048, where candle would start threads.
    pub minibatch_events: usize,
    /// Passes over a batch (2): each event is paid for once with latency, so it is used twice; more drifts off-policy.
    pub epochs: usize,
    /// Adam's step for the actor (0.003): about a tenth of the quantisation step 1/32, so no step jumps over a level.
    pub actor_learning_rate: f64,
    /// Adam's step for the critic (0.01): the baseline is never published and should be ahead of the actor.
    pub critic_learning_rate: f64,
    /// PPO's clip (0.2): how far an update may take pi(a|x) from its value at the start of that update, as a share.
    pub clip: f64,
    /// Cap of the importance weight pi_start(a|x) / logged propensity (4): bounds the variance that rare actions bring.
    pub importance_max: f64,
    /// Entropy bonus at the first update (0.03): keeps both actions alive while the critic is still wrong.
    pub entropy_start: f64,
    /// Entropy bonus in the long run (0.03): because the load will change. With it the learner came back sooner from moves
    /// that cost nothing to dear ones than with 0.01; 0.1 costs 2 % where nothing changes (`experiments/hyper`).
    pub entropy_end: f64,
    /// Updates over which the bonus falls linearly from start to end (1000): half a million events.
    pub entropy_updates: u64,
    /// Bound on the norm of each network's gradient (0.5): one odd batch must not spoil Adam's second moments.
    pub gradient_norm_max: f64,
    /// Horizon of the running means, in events (4096): eight batches; slower than an update, faster than load swings.
    pub mean_horizon_events: u64,
    /// Training rewards are clipped to [-this, this] (8): eight times the usual response is "bad" without distinction.
    pub reward_clip: f64,
}

impl Default for Hyper {
    fn default() -> Self {
        Self {
            network: Form::Mlp,
            batch_events: 512,
            minibatch_events: 128,
            epochs: 2,
            actor_learning_rate: 3e-3,
            critic_learning_rate: 1e-2,
            clip: 0.2,
            importance_max: 4.0,
            entropy_start: 0.03,
            entropy_end: 0.03,
            entropy_updates: 1000,
            gradient_norm_max: 0.5,
            mean_horizon_events: 4096,
            reward_clip: 8.0,
        }
    }
}

impl Hyper {
    /// Check every limit. The error names the field, its value and its range.
    pub fn validate(&self) -> Result<()> {
        let count = |name: &str, value: u64, max: u64| {
            ensure!((1..=max).contains(&value), "hyper-parameter {name} = {value}: choose 1 to {max}");
            Ok(())
        };
        count("batch_events", self.batch_events as u64, 65_536)?;
        count("minibatch_events", self.minibatch_events as u64, 2048.min(self.batch_events as u64))?;
        count("epochs", self.epochs as u64, 16)?;
        count("entropy_updates", self.entropy_updates, 1 << 40)?;
        count("mean_horizon_events", self.mean_horizon_events, 1 << 30)?;
        for (name, value, min, max) in [
            ("actor_learning_rate", self.actor_learning_rate, 0.0, 1.0),
            ("critic_learning_rate", self.critic_learning_rate, 0.0, 1.0),
            ("clip", self.clip, 0.01, 0.9),
            ("importance_max", self.importance_max, 1.0, 1000.0),
            ("entropy_start", self.entropy_start, 0.0, 10.0),
            ("entropy_end", self.entropy_end, 0.0, 10.0),
            ("gradient_norm_max", self.gradient_norm_max, 1e-3, 1e6),
            ("reward_clip", self.reward_clip, 0.1, 1e6),
        ] {
            // Written so that NaN fails.
            ensure!((min..=max).contains(&value), "hyper-parameter {name} = {value}: choose {min} to {max}");
        }
        // serde_json parses numbers of up to 15 digits exactly; a longer one could change on its way through a file.
        let again: Self = serde_json::from_str(&self.to_json()?).context("reading the hyper-parameters back")?;
        ensure!(again == *self, "a hyper-parameter changes when written as JSON: give each at most 15 digits");
        Ok(())
    }

    /// One line of JSON.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).context("writing the hyper-parameters as JSON")
    }

    /// Read JSON (absent fields take their defaults) and validate.
    pub fn from_json(json: &str) -> Result<Self> {
        let hyper: Self =
            serde_json::from_str(json).context("the hyper-parameters are not valid JSON of known fields")?;
        hyper.validate()?;
        Ok(hyper)
    }

    /// Entropy coefficient after `updates` updates.
    pub fn entropy(&self, updates: u64) -> f64 {
        let done = (updates as f64 / self.entropy_updates as f64).min(1.0);
        self.entropy_start * (1.0 - done) + self.entropy_end * done
    }
}
