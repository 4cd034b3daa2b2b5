// SPDX-License-Identifier: GPL-2.0-only
//! What a running scheduler tells about itself, through scx_stats (`--stats`, `--monitor`, scxtop), and as one compact line
//! for a person.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use scx_stats::prelude::*;
use scx_stats_derive::{Stats, stat_doc};
use serde::{Deserialize, Serialize};

/// The statistics of one interval.
#[stat_doc]
#[derive(Clone, Debug, Default, Serialize, Deserialize, Stats)]
#[stat(top)]
pub struct Metrics {
    #[stat(desc = "Balancer: learn, frozen, greedy, heuristic or random")]
    pub mode: String,
    #[stat(desc = "Length of the interval, seconds")]
    pub interval_s: f64,
    #[stat(desc = "Decisions per second, WAKE and PULL")]
    pub decisions_per_s: f64,
    #[stat(desc = "Share of decisions that chose to migrate, percent")]
    pub migrated_pct: f64,
    #[stat(desc = "Tasks that ran in another domain than before, per second")]
    pub migrations_per_s: f64,
    #[stat(desc = "Mean runqueue wait, microseconds")]
    pub wait_mean_us: f64,
    #[stat(desc = "99th percentile of runqueue waits, microseconds (upper edge of a power-of-two bucket)")]
    pub wait_p99_us: u64,
    #[stat(desc = "Logged decisions received, per second")]
    pub events_per_s: f64,
    #[stat(desc = "Logged decisions lost because the ring buffer was full, in the interval")]
    pub events_dropped: u64,
    #[stat(desc = "Logged decisions with a censored outcome, in the interval")]
    pub events_censored: u64,
    #[stat(desc = "Decisions are logged with probability 2^-sample_shift")]
    pub sample_shift: u32,
    #[stat(desc = "Generation of the published weights")]
    pub generation: u64,
    #[stat(desc = "Networks that the checks or the gate refused, since the start")]
    pub refused: u64,
    #[stat(desc = "Share of the time that the guard gives to the learned policy (1 without a guard)")]
    pub guard_share: f64,
    #[stat(
        desc = "Responses under the policy against those under the fixed rule, percent longer (mean of pairs of windows)"
    )]
    pub guard_harm_pct: f64,
    #[stat(desc = "Pairs of windows that this is from")]
    pub guard_pairs: u64,
    #[stat(desc = "Times that the guard distrusted the policy, since the start")]
    pub distrusted: u64,
    #[stat(desc = "Running mean of the reward, milliseconds (minus wait and extra service)")]
    pub reward_ms: f64,
    #[stat(desc = "Policy loss of the last update")]
    pub policy_loss: f64,
    #[stat(desc = "Value loss of the last update")]
    pub value_loss: f64,
    #[stat(desc = "Mean entropy of the policy in the last update, nats (0.69 is a fair coin)")]
    pub entropy: f64,
    #[stat(desc = "KL divergence that the last update made, nats")]
    pub kl: f64,
    #[stat(desc = "Updates of the network, since the run began")]
    pub updates: u64,
    #[stat(desc = "Decisions that the waiting bound took from the policy, in the interval")]
    pub overrides: u64,
    #[stat(desc = "Reads of the policy repeated because a publication overtook them, in the interval")]
    pub torn_retries: u64,
    #[stat(desc = "Resident memory of this process, bytes")]
    pub resident_bytes: u64,
    #[stat(desc = "Failed attempts to write a checkpoint, since the start")]
    pub checkpoint_failures: u64,
    #[stat(desc = "CPUs of each domain, as lists with / between them")]
    pub domains: String,
    #[stat(desc = "Runqueue waits in the interval: the i-th number is of those from 2^i us on, below 2^(i+1) us")]
    pub wait_hist: Vec<u64>,
}

impl Metrics {
    /// One compact line.
    pub fn format<W: Write>(&self, w: &mut W) -> Result<()> {
        write!(
            w,
            "[{}] {:6.0} dec/s {:3.0}% migr | wait {} p99 {} | ",
            self.mode,
            self.decisions_per_s,
            self.migrated_pct,
            time(self.wait_mean_us),
            time(self.wait_p99_us as f64),
        )?;
        if self.mode == "learn" {
            write!(
                w,
                "reward {:7.3}ms loss {:+.3}/{:.3} entropy {:.3} gen {} upd {} | trust {:2.0}% harm {:+.1}% | ",
                self.reward_ms,
                self.policy_loss,
                self.value_loss,
                self.entropy,
                self.generation,
                self.updates,
                self.guard_share * 100.0,
                self.guard_harm_pct
            )?;
        }
        writeln!(w, "{:5.0} ev/s 1/{} drop {}", self.events_per_s, 1u64 << self.sample_shift, self.events_dropped)?;
        Ok(())
    }
}

/// A time for people, five characters wide.
pub(crate) fn time(us: f64) -> String {
    if us < 1000.0 { format!("{us:4.0}us") } else { format!("{:4.1}ms", us / 1000.0) }
}

/// What a statistics reader asks the scheduler's loop: the statistics since the counters that `since` names.
pub type Request = ReaderId;
/// Readers are told apart, so that each has intervals of its own.
pub type ReaderId = u64;

/// The scx_stats server's side.
pub fn server_data() -> StatsServerData<Request, Metrics> {
    let next = Arc::new(std::sync::atomic::AtomicU64::new(1));
    let open: Box<dyn StatsOpener<Request, Metrics>> = Box::new(move |(requests, responses)| {
        let id = next.fetch_add(1, Ordering::Relaxed);
        requests.send(id)?;
        responses.recv()?;
        let read: Box<dyn StatsReader<Request, Metrics>> = Box::new(move |_args, (requests, responses)| {
            requests.send(id)?;
            responses.recv()?.to_json()
        });
        Ok(read)
    });
    StatsServerData::new().add_meta(Metrics::meta()).add_ops("top", StatsOps { open, close: None })
}

/// Print a line with the statistics of the running scheduler every `interval` until `stop` is set.
pub fn monitor(interval: Duration, stop: Arc<AtomicBool>) -> Result<()> {
    scx_utils::monitor_stats::<Metrics>(
        &[],
        interval,
        || stop.load(Ordering::Relaxed),
        |m| m.format(&mut std::io::stdout()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_learning_only_while_learning() {
        let mut m = Metrics { mode: "frozen".into(), wait_mean_us: 1500.0, wait_p99_us: 900, ..Default::default() };
        let line = |m: &Metrics| {
            let mut out = Vec::new();
            m.format(&mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert!(line(&m).contains("wait  1.5ms p99  900us") && !line(&m).contains("entropy"), "{}", line(&m));
        m.mode = "learn".into();
        m.generation = 42;
        assert!(line(&m).contains("gen 42"));
    }
}
