// SPDX-License-Identifier: GPL-2.0-only
//! `scx_rl`: a sched_ext scheduler whose load balancer learns from measured runqueue latency.

pub mod policy;
pub mod vm;
