// SPDX-License-Identifier: GPL-2.0-only
//! Which cells a study has, and in which order they are measured.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::spec::{Backend, Spec};
use crate::lab::order;

/// A cell's place in a study.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// The machine.
    pub topology: String,
    /// The seed.
    pub seed: u64,
    /// Which round with that seed, from 0.
    pub round: usize,
    /// The scheduler.
    pub scheduler: String,
    /// The workload.
    pub workload: String,
}

impl Key {
    /// The name of its file. No part has a comma.
    pub fn file_name(&self) -> String {
        format!("{},{},{},{},{}.json", self.topology, self.seed, self.round, self.scheduler, self.workload)
    }
}

/// What is measured without a pause: one machine with one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Which topology of the specification.
    pub topology: usize,
    /// The seed.
    pub seed: u64,
}

/// All batches, in their order.
pub fn batches(spec: &Spec) -> Vec<Batch> {
    let seeds = |topology| spec.seeds.iter().map(move |&seed| Batch { topology, seed });
    (0..spec.topologies.len()).flat_map(seeds).collect()
}

/// The cells of a batch in the order of measuring. In a kernel a scheduler is attached once in each round for all workloads, and
/// the order of schedulers is shuffled and mirrored (see [`order`]). In the simulator, where nothing disturbs a cell, all are
/// shuffled, so that the time left can be told from the time gone.
pub fn keys(spec: &Spec, batch: Batch) -> Vec<Key> {
    let topology = spec.topologies[batch.topology].name();
    let names: Vec<&String> = spec.schedulers.iter().map(|scheduler| &scheduler.name).collect();
    let mut keys = Vec::new();
    for round in 0..spec.rounds {
        for scheduler in order::order(&names, batch.seed, round) {
            keys.extend(spec.workloads.iter().map(|workload| Key {
                topology: topology.clone(),
                seed: batch.seed,
                round,
                scheduler: scheduler.clone(),
                workload: workload.clone(),
            }));
        }
    }
    if spec.backend == Backend::Simulator {
        keys.shuffle(&mut ChaCha8Rng::seed_from_u64(batch.seed));
    }
    keys
}

/// All cells.
pub fn all_keys(spec: &Spec) -> Vec<Key> {
    batches(spec).into_iter().flat_map(|batch| keys(spec, batch)).collect()
}

/// A cell's round among all of its topology, for statistics that pair rounds.
pub fn round_of(spec: &Spec, key: &Key) -> Option<usize> {
    let seed = spec.seeds.iter().position(|&seed| seed == key.seed)?;
    Some(seed * spec.rounds + key.round)
}
