// SPDX-License-Identifier: GPL-2.0-only
//! `scx_rl`: a sched_ext scheduler whose load balancer learns from measured runqueue latency.
//!
//! The flow, and a reading order:
//!
//! 1. `src/bpf/` (C): a decision point measures features, runs the network, draws an action, and logs a sample of
//!    decisions with the wait that resulted. `intf.h` is the contract.
//! 2. [`policy`]: that contract in Rust, and the same C arithmetic built for the host.
//! 3. [`kernel`]: loads, attaches, drains events, publishes weights. The only place that knows libbpf.
//! 4. [`agent`]: reward, batch, actor-critic learner, quantisation, checkpoint, recording. Knows neither BPF nor clocks;
//!    [`agent::Environment`] is all it sees of the world.
//! 5. [`run`] (with [`learning`], [`keeping`], [`stats`], [`dashboard`], [`exporter`], [`process`], [`privileges`]): the loop that joins them. [`cli`]: the options.
//!
//! [`sim`] runs the scheduler's C on a simulated machine instead of a kernel, and is an [`agent::Environment`] like it.
//!
//! Around it: [`checkpoints`] looks at what was learned, [`export`] writes it for others, [`ope`] evaluates policies on
//! recordings, [`explain`] tells what drives them, [`timeline`] draws them, [`fleet`] shares them between machines (as tables, [`table`]), [`runqlat`] measures any scheduler by one
//! yardstick, [`bench`] the cost of a decision, [`progs`] that of loaded schedulers, [`verifier`] that of loading. [`vm`] boots a kernel that has sched_ext; [`demo`] runs the whole thing
//! there, and [`suite`] compares schedulers on real programs (both by [`lab`]).
//! [`experiment`] makes studies of the same parts: from one file, on all machines, and they can be interrupted.
//! [`locality`] is a workload to which moves cost something, also on an emulated machine.

pub mod agent;
pub mod bench;
pub mod checkpoints;
pub mod cli;
pub mod dashboard;
pub mod demo;
pub mod experiment;
pub mod explain;
pub mod export;
pub mod exporter;
pub mod file;
pub mod fleet;
pub mod keeping;
pub mod kernel;
pub mod lab;
pub mod learning;
pub mod locality;
pub mod ope;
pub mod policy;
pub mod privileges;
pub mod process;
pub mod progs;
pub mod run;
pub mod runqlat;
pub mod sim;
pub mod stats;
pub mod suite;
pub mod table;
pub mod timeline;
pub mod verifier;
pub mod vm;

/// The version, as `0.1.0-g7f210ff3a1 x86_64-unknown-linux-gnu`: with the commit, if it was built from a repository.
pub fn version() -> String {
    let commit = match env!("SCX_RL_COMMIT") {
        "" => String::new(),
        commit => format!("-g{commit}"),
    };
    scx_utils::build_id::full_version(&format!("{}{commit}", env!("CARGO_PKG_VERSION")))
}
