// SPDX-License-Identifier: GPL-2.0-only
//! A run of the scheduler: attach, then a loop of draining events, learning, publishing, checkpointing and answering
//! statistics requests, until asked to stop or the kernel ends it.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use log::{info, warn};
use nix::sched::CpuSet;
use scx_stats::prelude::*;
use serde::Serialize;

use crate::agent::{AgentMetrics, Checkpoint};
use crate::cli::{Balancer, Opts};
use crate::exporter;
use crate::kernel::domains::Domains;
use crate::kernel::scheduler::{Counters, ops_name};
use crate::kernel::slots::Publication;
use crate::kernel::{Scheduler, SchedulerConfig, preflight};
use crate::learning::{Learning, guard_counts};
use crate::policy::{
    RL_CNT_events_censored, RL_CNT_events_dropped, RL_CNT_events_sampled, RL_CNT_migrated_llc, RL_CNT_migrated_node,
    RL_CNT_migrated_numa, RL_CNT_migrated_smt, RL_CNT_overrides, RL_CNT_pull_decisions, RL_CNT_pull_migrated,
    RL_CNT_runs, RL_CNT_torn_retries, RL_CNT_turn_decisions, RL_CNT_wait_sum_ns, RL_CNT_wake_decisions,
    RL_CNT_wake_migrated, RL_MODE_DRAW, RL_MODE_GREEDY, RL_MODE_HEURISTIC, RL_MODE_RANDOM, RL_MODE_TURNS, rl_event,
    rl_weights,
};
use crate::privileges;
use crate::process::{self, Signals};
use crate::stats::{self, Metrics, ReaderId};

/// How often the loop drains the ring buffer, which holds about 10,000 events.
const POLL: Duration = Duration::from_millis(20);
/// Statistics readers that are remembered; the least recent one is forgotten beyond that.
const READERS_MAX: usize = 16;
/// The rarest sampling: 1 in 65536, which is as far as BPF goes.
const SHIFT_MAX: u32 = 16;

/// What `--summary` writes.
#[derive(Debug, Serialize)]
struct Summary {
    mode: Balancer,
    ops_name: String,
    /// Why the kernel ended the scheduler, if it was not asked to.
    error: Option<String>,
    seconds: f64,
    generations_published: u64,
    generation: u64,
    publications_refused: u64,
    /// Times that the guard distrusted the policy.
    distrusted: u64,
    /// Events received in userspace.
    events: u64,
    events_dropped: u64,
    counters: BTreeMap<&'static str, u64>,
    agent: Option<AgentMetrics>,
    reward_first_quarter_ms: Option<f64>,
    reward_last_quarter_ms: Option<f64>,
    /// (events learned from, mean reward of that update's batch in ms)
    reward_history: Vec<(u64, f64)>,
    checkpoint: Option<String>,
    checkpoint_failures: u64,
    /// The active slot, read back from the kernel at the end, has the network that was published.
    weights_as_published: Option<bool>,
    domains: String,
    kernel: String,
    resident_bytes: u64,
}

/// Run until asked to stop. Restarts by itself when the kernel asks for it (CPU hotplug).
///
/// # Errors
/// When the machine or a file is not as needed (before anything is attached), when the kernel ends the scheduler with an
/// error, or when the last checkpoint could not be written.
pub fn run(opts: &Opts, balancer: Balancer, signals: &Signals) -> Result<()> {
    // What can fail without the kernel fails first.
    let frozen = match balancer {
        Balancer::Frozen | Balancer::Greedy => {
            let (checkpoint, name) = (frozen(opts)?, frozen_name(opts));
            let weights = checkpoint.publishable().with_context(|| format!("{name} must not run"))?;
            ensure!(
                !opts.slices || checkpoint.knows_turns(),
                "{name} has not learned how long turns should last: leave out --slices, or learn with it"
            );
            Some((weights, checkpoint.origin.generation))
        }
        Balancer::Learn | Balancer::Heuristic | Balancer::Random => None,
    };
    let agent_cpus = opts.agent_cpus.as_deref().map(process::parse_cpus).transpose()?;
    preflight::check()?;
    if let Some(address) = opts.prometheus {
        exporter::serve(address)?;
    }
    if let Some(path) = &opts.summary {
        // Better now than after a long run.
        std::fs::write(path, "").with_context(|| format!("cannot write the summary to {}", path.display()))?;
    }

    let mut run: Option<Run> = None;
    loop {
        let domains = Domains::discover(&opts.domains)?;
        info!("{}", domains.description);
        if domains.cpus.len() == 1 {
            warn!("a single domain: nothing will be balanced");
        }
        let run = match &mut run {
            Some(run) => run,
            empty => {
                let (learning, generation) = if balancer == Balancer::Learn {
                    let (l, g) = Learning::new(opts, domains.signature())?;
                    (Some(l), g)
                } else {
                    (None, frozen.map_or(0, |f| f.1))
                };
                empty.insert(Run {
                    opts,
                    balancer,
                    learning,
                    generation,
                    tasks: None,
                    agent_cpus,
                    events: 0,
                    started: Instant::now(),
                    attached: false,
                    sample_shift: 0,
                    counted_from: Instant::now(),
                    counted_events: 0,
                    readers: BTreeMap::new(),
                    weights_match: None,
                })
            }
        };
        let rule = opts.rule.unwrap_or_default();
        // The floor is for those who learn.
        let (mode, floor_q16, weights) = match (&run.learning, frozen) {
            (Some(learning), _) => learning.publishing.current(),
            (None, Some((weights, _))) => {
                let mode = match balancer {
                    Balancer::Greedy => RL_MODE_GREEDY,
                    _ if opts.only_slices => RL_MODE_TURNS,
                    _ => RL_MODE_DRAW,
                };
                (mode, 0, weights)
            }
            (None, None) if balancer == Balancer::Random => (RL_MODE_RANDOM, 0, rl_weights::default()),
            (None, None) => (RL_MODE_HEURISTIC, 0, rl_weights::default()),
        };
        if !run.once(&domains, &Publication { mode, floor_q16, rule: rule.numbers(), weights }, signals)? {
            break;
        }
        info!("restarting, as the kernel asks (hotplug)");
    }
    run.map_or(Ok(()), Run::finish)
}

/// Load a checkpoint; errors name the file.
pub fn load(path: &Path) -> Result<Checkpoint> {
    Checkpoint::load(path).with_context(|| format!("cannot use {}", path.display()))
}

/// The checkpoint that comes with this program. `make bless` makes it, checkpoints/blessed.json says how.
///
/// # Errors
/// It is of another version, which a test rules out.
pub fn blessed() -> Result<Checkpoint> {
    Checkpoint::from_bytes(include_bytes!("../checkpoints/blessed.safetensors")).context("the built-in checkpoint")
}

/// What a run without learning uses.
fn frozen(opts: &Opts) -> Result<Checkpoint> {
    opts.frozen.as_deref().map_or_else(blessed, load)
}

/// What that is called.
fn frozen_name(opts: &Opts) -> String {
    opts.frozen.as_ref().map_or("the built-in checkpoint".to_string(), |path| path.display().to_string())
}

/// What outlives a restart.
struct Run<'o> {
    opts: &'o Opts,
    balancer: Balancer,
    learning: Option<Learning>,
    generation: u64,
    /// The kernel's map of tasks; see [`Scheduler::attach`].
    tasks: Option<OwnedFd>,
    agent_cpus: Option<CpuSet>,
    events: u64,
    /// Since the first attach.
    started: Instant,
    attached: bool,
    sample_shift: u32,
    /// When the last attach was, and the events that had been received by then.
    counted_from: Instant,
    counted_events: u64,
    readers: BTreeMap<ReaderId, (Instant, Counters, u64)>,
    weights_match: Option<bool>,
}

impl Run<'_> {
    /// Attach and loop. Returns whether to restart.
    fn once(&mut self, domains: &Domains, first: &Publication, signals: &Signals) -> Result<bool> {
        let opts = self.opts;
        let config = SchedulerConfig {
            slice_ns: opts.slice_us * 1000,
            slice_min_ns: opts.slice_min_us * 1000,
            learn_slices: opts.slices,
            without: opts.without.iter().fold(0, |bits, m| bits | m.bit()),
            wait_bound_ns: opts.wait_bound_ms * 1_000_000,
            migration_limits: opts.max_migrations.unwrap_or_default(),
            ..SchedulerConfig::DEFAULT
        };
        let mut object = MaybeUninit::uninit();
        let mut scheduler = privileges::while_attaching(|| {
            Scheduler::attach(&mut object, &config, domains, first, self.generation, &mut self.tasks)
        })?;
        scheduler.set_sample_shift(self.sample_shift);
        if Domains::discover(&self.opts.domains)? != *domains {
            // A CPU came or went after the topology was read, and before the kernel began to watch for us.
            self.generation = scheduler.generation();
            scheduler.detach()?;
            return Ok(true);
        }
        if !self.attached {
            // Only now: a low priority would make loading slow on a busy machine.
            self.attached = true;
            self.started = Instant::now();
            privileges::while_attaching(|| {
                process::settle(self.opts.agent_nice, self.agent_cpus.as_ref());
                Ok(())
            })?;
        }
        // Counters begin anew, and so do intervals.
        self.readers.clear();
        (self.counted_from, self.counted_events) = (Instant::now(), self.events);
        let ops_name = ops_name().unwrap_or_default();
        let server = StatsServer::new(stats::server_data()).launch().context("cannot serve statistics")?;
        let (responses, requests) = server.channels();

        let seconds = Duration::from_secs_f64;
        let mut publish_at = Instant::now() + seconds(opts.publish_every);
        let mut checkpoint_at = Instant::now() + seconds(opts.checkpoint_every);
        let mut second_at = Instant::now() + seconds(1.0);
        let (mut last_second, mut last_second_at) = (Counters::default(), Instant::now());
        let mut events: Vec<rl_event> = Vec::new();

        while !signals.stop()
            && !scheduler.exited()
            && opts.duration.is_none_or(|d| self.started.elapsed() < seconds(d))
        {
            // The wait of the loop: a request for statistics, or the time to drain.
            if let Ok(id) = requests.recv_timeout(POLL) {
                let metrics = self.metrics(id, &scheduler, domains)?;
                responses.send(metrics)?;
            }
            self.drain(&mut scheduler, &mut events)?;
            let now = Instant::now();
            if let Some(learning) = &mut self.learning {
                if now >= publish_at {
                    learning.consider();
                    publish_at = now + seconds(opts.publish_every);
                }
                let now_ns = u64::try_from(self.started.elapsed().as_nanos())?;
                learning.publishing.step(&mut scheduler, now_ns, |s| Ok(guard_counts(&s.counters()?)))?;
                if signals.take_checkpoint() || (now >= checkpoint_at && learning.has_news()) {
                    learning.checkpoint(scheduler.generation());
                    checkpoint_at = now + seconds(opts.checkpoint_every);
                }
            }
            if now >= second_at {
                second_at = now + seconds(1.0);
                let counters = scheduler.counters()?;
                let elapsed_s = (now - last_second_at).as_secs_f64();
                let counted = counters.since(&last_second);
                self.adapt_sampling(&counted, elapsed_s, &mut scheduler);
                exporter::record_counters(&counted);
                (last_second, last_second_at) = (counters, now);
                if let Some(learning) = &mut self.learning {
                    learning.check_memory(&mut scheduler)?;
                }
                exporter::record_statistics(&self.metrics(0, &scheduler, domains)?);
            }
        }

        self.drain(&mut scheduler, &mut events)?;
        let counters = scheduler.counters()?;
        exporter::record_counters(&counters.since(&last_second));
        let mut checkpoint = None;
        if let Some(learning) = &mut self.learning {
            learning.consider();
            learning.publishing.publish(&mut scheduler)?;
            self.weights_match = Some(scheduler.read_back()?.weights == learning.publishing.current().2);
            if let Some(path) = learning.checkpoint(scheduler.generation()).map(|p| p.to_path_buf()) {
                Checkpoint::load(&path)?;
                checkpoint = Some(path.display().to_string());
            }
        } else if matches!(self.balancer, Balancer::Frozen | Balancer::Greedy) {
            self.weights_match = Some(scheduler.read_back()?.weights == first.weights);
            checkpoint = Some(frozen_name(opts));
        }
        self.generation = scheduler.generation();
        drop(server);
        let exit = scheduler.detach();
        let error = exit.as_ref().err().map(|e| format!("{e:#}"));
        let written = self.write_summary(domains, &counters, ops_name, checkpoint, error);
        let exit = exit?;
        written?;
        Ok(exit.should_restart() && !signals.stop())
    }

    fn drain(&mut self, scheduler: &mut Scheduler, events: &mut Vec<rl_event>) -> Result<()> {
        events.clear();
        let malformed = scheduler.drain(events)?;
        if malformed > 0 {
            warn!("{malformed} malformed event(s) dropped: BPF and userspace disagree about the layout");
        }
        self.events += events.len() as u64;
        if let Some(learning) = &mut self.learning {
            learning.observe(events);
        }
        Ok(())
    }

    /// Keep the logged decisions at or below --events-per-sec by halving or doubling the sampling rate.
    fn adapt_sampling(&mut self, last: &Counters, elapsed_s: f64, scheduler: &mut Scheduler) {
        // Every second one about a turn is logged at most.
        let turns = last.get(RL_CNT_turn_decisions) / 2;
        let decisions = last.get(RL_CNT_wake_decisions) + last.get(RL_CNT_pull_decisions) + turns;
        let per_s = decisions as f64 / elapsed_s.max(1e-3);
        let next =
            next_shift(self.sample_shift, per_s, f64::from(self.opts.events_per_sec), last.get(RL_CNT_events_dropped));
        if next != self.sample_shift {
            self.sample_shift = next;
            scheduler.set_sample_shift(next);
        }
    }

    /// Statistics since the same reader asked last.
    fn metrics(&mut self, reader: ReaderId, scheduler: &Scheduler, domains: &Domains) -> Result<Metrics> {
        let counters = scheduler.counters()?;
        let now = Instant::now();
        let (then, before, events_before) = self
            .readers
            .insert(reader, (now, counters.clone(), self.events))
            .unwrap_or((self.counted_from, Counters::default(), self.counted_events));
        if self.readers.len() > READERS_MAX
            && let Some(oldest) = self.readers.iter().min_by_key(|(_, (t, ..))| *t).map(|(id, _)| *id)
        {
            self.readers.remove(&oldest);
        }
        let d = counters.since(&before);
        let secs = (now - then).as_secs_f64().max(1e-3);
        let decisions = d.get(RL_CNT_wake_decisions) + d.get(RL_CNT_pull_decisions);
        let migrated = d.get(RL_CNT_wake_migrated) + d.get(RL_CNT_pull_migrated);
        let moves: u64 = [RL_CNT_migrated_smt, RL_CNT_migrated_llc, RL_CNT_migrated_node, RL_CNT_migrated_numa]
            .iter()
            .map(|c| d.get(*c))
            .sum();
        let agent = self.learning.as_ref().map(|l| l.agent().metrics()).unwrap_or_default();
        let guarded = self.learning.as_ref().and_then(|l| l.publishing.guarded());
        Ok(Metrics {
            mode: format!("{:?}", self.balancer).to_lowercase(),
            interval_s: secs,
            decisions_per_s: decisions as f64 / secs,
            migrated_pct: 100.0 * migrated as f64 / decisions.max(1) as f64,
            migrations_per_s: moves as f64 / secs,
            wait_mean_us: d.get(RL_CNT_wait_sum_ns) as f64 / 1e3 / d.get(RL_CNT_runs).max(1) as f64,
            wait_p99_us: d.wait_quantile_us(0.99),
            events_per_s: (self.events - events_before) as f64 / secs,
            events_dropped: d.get(RL_CNT_events_dropped),
            events_censored: d.get(RL_CNT_events_censored),
            sample_shift: self.sample_shift,
            generation: scheduler.generation(),
            refused: self.learning.as_ref().map_or(0, |l| l.publishing.refused),
            guard_share: guarded.map_or(1.0, |(_, share)| share),
            guard_harm_pct: guarded.map_or(0.0, |(harm, _)| harm.mean * 100.0),
            guard_pairs: guarded.map_or(0, |(harm, _)| harm.pairs as u64),
            distrusted: self.learning.as_ref().map_or(0, |l| l.publishing.distrusted()),
            reward_ms: agent.reward_ms,
            policy_loss: agent.policy_loss,
            value_loss: agent.value_loss,
            entropy: agent.entropy,
            kl: agent.kl,
            updates: agent.updates,
            overrides: d.get(RL_CNT_overrides),
            torn_retries: d.get(RL_CNT_torn_retries),
            resident_bytes: process::resident_bytes(),
            checkpoint_failures: self.learning.as_ref().map_or(0, |l| l.checkpoint_failures),
            domains: domains.lists(),
            wait_hist: d.wait_hist.to_vec(),
        })
    }

    fn write_summary(
        &self,
        domains: &Domains,
        counters: &Counters,
        ops_name: String,
        checkpoint: Option<String>,
        error: Option<String>,
    ) -> Result<()> {
        let learning = self.learning.as_ref();
        let quarters = learning.and_then(|l| l.agent().reward_quarters());
        let summary = Summary {
            mode: self.balancer,
            ops_name,
            error,
            seconds: self.started.elapsed().as_secs_f64(),
            generations_published: learning.map_or(1, |l| l.publishing.published),
            generation: self.generation,
            publications_refused: learning.map_or(0, |l| l.publishing.refused),
            distrusted: learning.map_or(0, |l| l.publishing.distrusted()),
            events: self.events,
            events_dropped: counters.get(RL_CNT_events_dropped),
            counters: counters.named(),
            agent: learning.map(|l| l.agent().metrics()),
            reward_first_quarter_ms: quarters.map(|q| q.0),
            reward_last_quarter_ms: quarters.map(|q| q.1),
            reward_history: learning.map_or(Vec::new(), |l| l.agent().history().to_vec()),
            checkpoint,
            checkpoint_failures: learning.map_or(0, |l| l.checkpoint_failures),
            weights_as_published: self.weights_match,
            domains: domains.signature(),
            kernel: preflight::kernel_release(),
            resident_bytes: process::resident_bytes(),
        };
        info!(
            "{} decisions, {} events ({} sampled, {} dropped), {} generation(s) published",
            counters.get(RL_CNT_wake_decisions) + counters.get(RL_CNT_pull_decisions),
            self.events,
            counters.get(RL_CNT_events_sampled),
            summary.events_dropped,
            summary.generations_published
        );
        if let Some(path) = &self.opts.summary {
            let text = serde_json::to_string_pretty(&summary)?;
            std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        self.learning.map_or(Ok(()), Learning::finish)
    }
}

/// The sampling shift for the next second: one step up when more would be logged than `target_per_s`, or when events
/// were lost (this process gets too little CPU); one step down when half as rare would still leave a quarter of room.
pub fn next_shift(shift: u32, decisions_per_s: f64, target_per_s: f64, dropped: u64) -> u32 {
    let logged = |shift: u32| decisions_per_s / f64::from(1 << shift);
    if (dropped > 0 || logged(shift) > target_per_s) && shift < SHIFT_MAX {
        shift + 1
    } else if shift > 0 && dropped == 0 && logged(shift - 1) < 0.75 * target_per_s {
        shift - 1
    } else {
        shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampling_follows_the_load_without_fluttering() {
        let settle = |mut shift, rate| {
            for _ in 0..40 {
                shift = next_shift(shift, rate, 2000.0, 0);
            }
            shift
        };
        assert_eq!(settle(0, 1900.0), 0);
        assert_eq!(settle(0, 100_000.0), 6, "100,000 / 64 = 1,562");
        assert_eq!(settle(9, 100.0), 0);
        let steady = settle(0, 3500.0);
        assert_eq!(next_shift(steady, 3500.0, 2000.0, 0), steady);
        assert_eq!(next_shift(3, 10.0, 2000.0, 5), 4, "losses make it rarer whatever the rate");
        assert_eq!(settle(0, 1e12), SHIFT_MAX);
    }
}
