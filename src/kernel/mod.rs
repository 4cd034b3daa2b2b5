// SPDX-License-Identifier: GPL-2.0-only
//! The kernel side: the only place that knows libbpf.
//!
//! - [`domains`]: which CPUs form a scheduling domain, and how far domains are from each other
//! - [`slots`]: publishing a policy into the two slots that BPF reads
//! - [`scheduler`]: open, load, attach, read events and counters, detach
//! - [`preflight`]: what can be said before loading, in words
//! - [`probe`]: the policy's arithmetic as BPF programs run by `test_run`, for parity, benchmark and publication tests

pub mod domains;
pub mod preflight;
pub mod probe;
pub mod scheduler;
pub mod slots;

pub use scheduler::{Scheduler, SchedulerConfig};
