// SPDX-License-Identifier: GPL-2.0-only
//! The contract with the C side in Rust's terms: the bindgen types of `src/bpf/intf.h`, and the host build of the same
//! C arithmetic. Nothing here knows the kernel or the agent.

#[allow(non_upper_case_globals, non_camel_case_types, non_snake_case, dead_code, missing_docs, clippy::all)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/intf.rs"));
}

pub mod host;
pub mod rule;

pub use bindings::*;

/// A probability, 0 to 1, as the nearest integer out of `RL_PROB_ONE`.
pub fn probability_q16(p: f64) -> u32 {
    (p * f64::from(RL_PROB_ONE)).round() as u32
}
