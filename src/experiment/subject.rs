// SPDX-License-Identifier: GPL-2.0-only
//! What a study's workloads are: real programs in a kernel, regimes in the simulator.

use std::collections::BTreeMap;

use super::spec::{Backend, Spec};
use crate::sim::regime::Regime;
use crate::sim::trial::Score;
use crate::suite::summary::Subject;
use crate::suite::workload::{self, Better, Figure, Workload};

const fn figure(name: &'static str, unit: &'static str, better: Better, counts: bool) -> Figure {
    Figure { name, unit, better, counts }
}

/// What a simulated cell measures.
const SIMULATED: [Figure; 6] = [
    figure("response", "us", Better::Lower, true),
    figure("response p99", "us", Better::Lower, true),
    figure("bursts", "1/s", Better::Higher, true),
    figure("wait", "us", Better::Lower, false),
    figure("moved", "share", Better::Lower, false),
    figure("refill", "share", Better::Lower, false),
];

/// The figures of a simulated cell.
pub fn figures(score: &Score) -> BTreeMap<String, f64> {
    let values = [
        score.response_mean_us,
        score.response_p99_us,
        score.bursts_per_s,
        score.wait_mean_us,
        score.moved_share,
        score.refill_share,
    ];
    SIMULATED.iter().map(|figure| figure.name.to_string()).zip(values).collect()
}

fn programs() -> impl Iterator<Item = &'static Workload> {
    workload::REAL.iter().chain(workload::ON_DEMAND)
}

/// The real program of this name.
pub fn program(name: &str) -> Option<&'static Workload> {
    programs().find(|workload| workload.name == name)
}

/// Is there such a workload, and can it run here? Else: what is wrong.
pub fn check(backend: Backend, name: &str) -> Result<(), String> {
    if backend == Backend::Simulator {
        return Regime::of_name(name).map(|_| ()).ok_or_else(|| Regime::unknown(name));
    }
    let Some(workload) = program(name) else {
        let names: Vec<&str> = programs().map(|workload| workload.name).collect();
        return Err(format!("there is no workload {name:?}; there are {}", names.join(", ")));
    };
    workload.tools.iter().try_for_each(|tool| tool.check().map(|_| ()).map_err(|error| format!("{name}: {error:#}")))
}

/// The study's workloads with their figures.
pub fn subjects(spec: &Spec) -> Vec<Subject> {
    let of = |name: &String| match program(name) {
        Some(workload) if spec.backend != Backend::Simulator => workload.into(),
        _ => Subject { name: name.clone(), about: "a regime of the simulator".into(), figures: &SIMULATED },
    };
    spec.workloads.iter().map(of).collect()
}
