// SPDX-License-Identifier: GPL-2.0-only
//! What the black-box and host tests share: skipping aloud, folders, and a trained agent with the stream that made it.
#![allow(dead_code)] // each test binary uses a part

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use scx_rl::agent::recording::{Header, Reader, Record, Recorder};
use scx_rl::agent::{Agent, Checkpoint, Hyper, Origin};
use scx_rl::bench::random_inputs;
use scx_rl::policy::host::{self, Features};
use scx_rl::policy::{
    RL_EVENT_VERSION, RL_F_other_idle, RL_MIGRATE, RL_MODE_DRAW, RL_STAY, rl_event, rl_inputs, rl_slot,
};

/// Say that a test did not run, past the test harness's capture.
pub fn skip_even_in_ci(reason: &str) {
    // That it cannot be said is no reason to fail.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}

/// Say that a test did not run. In CI that is a failure.
pub fn skip(reason: &str) {
    skip_even_in_ci(reason);
    assert!(std::env::var_os("CI").is_none(), "this test must run in CI: {reason}");
}

/// A folder for one test, removed at its end. Other users may enter it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("scx_rl-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Write a file, and return its path as text.
    pub fn with(&self, name: &str, content: &[u8]) -> String {
        std::fs::write(self.file(name), content).unwrap();
        self.text(name)
    }

    /// The path of a file, as text.
    pub fn text(&self, name: &str) -> String {
        self.file(name).into_os_string().into_string().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A learning run: what it recorded, and where it ended.
pub struct Run {
    pub recording: Vec<u8>,
    pub events: u64,
    pub checkpoint: Checkpoint,
    pub agent: Agent,
}

pub fn origin() -> Origin {
    Origin {
        generation: 17,
        kernel: "6.18.15-test".to_string(),
        topology: "llc 0-3/4-7".to_string(),
        created_at: "2026-11-01T12:00:00Z".to_string(),
    }
}

/// Let `agent` learn from `events` synthetic decisions and record them. Migrating is right where the other domain has
/// many idle CPUs. Every 1000 events the new weights are "published", and half way there is a checkpoint.
pub fn learn_on(mut agent: Agent, seed: u64, events: u64) -> Run {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut recorder = Recorder::new(Vec::new(), &Header::of(&agent), None).unwrap();
    let mut slot = rl_slot { mode: RL_MODE_DRAW, floor_q16: 64, ..Default::default() };
    for i in 0..events {
        if i % 1000 == 0 {
            slot.generation += 1;
            slot.weights = agent.weights().unwrap();
        }
        let event = decide(&slot, &mut rng);
        recorder.events(&[event]).unwrap();
        agent.observe(&[event]).unwrap();
        if i == events / 2 {
            recorder.restart().unwrap();
            agent.restart_optimiser().unwrap();
        }
    }
    recorder.restart().unwrap();
    let checkpoint = agent.checkpoint(origin()).unwrap();
    Run { recording: recorder.finish().unwrap(), events, checkpoint, agent }
}

/// As [`learn_on`], from a random network.
pub fn learn(seed: u64, events: u64) -> Run {
    learn_on(Agent::new(Hyper::default(), seed).unwrap(), seed, events)
}

/// The events of a whole recording.
pub fn events_of(recording: &[u8]) -> Vec<rl_event> {
    let records = Reader::new(recording).unwrap();
    records.filter_map(|record| if let Record::Event(event) = record.unwrap() { Some(event) } else { None }).collect()
}

/// A machine in which up to all CPUs of the other domain are idle.
pub fn situation(rng: &mut ChaCha8Rng) -> Features {
    let other_cpus = rng.random_range(1..17);
    let other_idle = rng.random_range(0..=other_cpus);
    host::features(&rl_inputs { other_cpus, other_idle, ..random_inputs(rng) })
}

fn decide(slot: &rl_slot, rng: &mut ChaCha8Rng) -> rl_event {
    const MS: u64 = 1_000_000;
    let features = situation(rng);
    let decision = host::act(slot, &features, rng.random());
    let right = if features[RL_F_other_idle as usize] > 63 { RL_MIGRATE } else { RL_STAY };
    rl_event {
        version: RL_EVENT_VERSION as u8,
        generation: decision.generation,
        mode: decision.mode as u8,
        action: decision.action as u8,
        point: u8::from(features[0] > 63),
        p_migrate_q16: decision.p_migrate_q16,
        logit_q8: decision.logit_q8,
        wait_ns: if decision.action == right { MS } else { 4 * MS } + rng.random_range(0..MS / 2),
        service_ns: rng.random_range(0..2 * MS),
        usual_service_ns: MS,
        features,
        ..Default::default()
    }
}
