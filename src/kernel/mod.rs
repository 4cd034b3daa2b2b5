// SPDX-License-Identifier: GPL-2.0-only
//! The kernel side: the only place that knows libbpf.
//!
//! - [`domains`]: which CPUs form a scheduling domain, and how far domains are from each other
//! - [`slots`]: publishing a policy into the two slots that BPF reads
//! - [`scheduler`]: open, load, attach, read events and counters, detach
//! - [`preflight`]: what can be said before loading, in words
//! - [`programs`]: what loaded programs cost to verify, and how large they are
//! - [`probe`]: the policy's arithmetic as BPF programs run by `test_run`, for parity, benchmark and publication tests

pub mod domains;
pub mod preflight;
pub mod probe;
pub mod programs;
pub mod scheduler;
pub mod slots;

use libbpf_rs::PrintLevel;

pub use scheduler::{Scheduler, SchedulerConfig};

/// Send libbpf's own lines to the log: warnings as such, the rest for `-v` (its information) and `-vv` (all).
pub fn log_libbpf() {
    libbpf_rs::set_print(Some((PrintLevel::Debug, |level, line| match level {
        // libbpf-rs attaches struct_ops maps by hand, which libbpf takes for an oversight.
        PrintLevel::Warn if line.contains("skeleton link is uninitialized") => log::debug!("{}", line.trim_end()),
        PrintLevel::Warn => log::warn!("{}", line.trim_end()),
        PrintLevel::Info => log::debug!("{}", line.trim_end()),
        PrintLevel::Debug => log::trace!("{}", line.trim_end()),
    })));
}
