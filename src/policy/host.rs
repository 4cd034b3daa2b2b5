// SPDX-License-Identifier: GPL-2.0-only
//! Safe wrappers around the host build of `features.h` and `policy.h` (compiled by `build.rs` from `src/bpf/host.c`).

use std::ffi::CStr;
use std::os::raw::c_char;

use crate::file::sha256;

use super::{RL_FEATURES, RL_NR_COUNTERS, RL_PROB_ONE, rl_decision, rl_inputs, rl_rule, rl_slot, rl_weights};

/// Number of features, the width of every feature vector.
pub const FEATURES: usize = RL_FEATURES as usize;

/// A feature vector as the policy sees it; each value is in `0..=127`.
pub type Features = [u8; FEATURES];

unsafe extern "C" {
    fn rl_host_feature_name(i: u32) -> *const c_char;
    fn rl_host_feature_doc(i: u32) -> *const c_char;
    fn rl_host_feature_expr(i: u32) -> *const c_char;
    fn rl_host_counter_name(i: u32) -> *const c_char;
    fn rl_host_counter_doc(i: u32) -> *const c_char;
    fn rl_host_features(input: *const rl_inputs, f: *mut u8);
    fn rl_host_act(slot: *const rl_slot, f: *const u8, rnd: u32, d: *mut rl_decision);
    fn rl_host_forward(w: *const rl_weights, f: *const u8) -> i64;
    fn rl_host_rule() -> rl_rule;
}

/// One row of the feature table in `features.h`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureInfo {
    /// The name, as in checkpoints and reports.
    pub name: &'static str,
    /// What it measures, with its scale.
    pub doc: &'static str,
    /// The C expression that computes it.
    pub expr: &'static str,
}

/// # Safety
/// `p` must be one of the string literals that host.c returns, which live as long as the program.
unsafe fn text(p: *const c_char) -> &'static str {
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(p) }.to_str().unwrap_or("?")
}

/// The feature table, in the order of the feature vector.
pub fn feature_table() -> Vec<FeatureInfo> {
    (0..FEATURES as u32)
        .map(|i| {
            // SAFETY: plain functions without side effects; any index is allowed, and literals are returned.
            unsafe {
                FeatureInfo {
                    name: text(rl_host_feature_name(i)),
                    doc: text(rl_host_feature_doc(i)),
                    expr: text(rl_host_feature_expr(i)),
                }
            }
        })
        .collect()
}

/// Names of the features, in the order of [`Features`].
pub fn feature_names() -> Vec<&'static str> {
    feature_table().into_iter().map(|feature| feature.name).collect()
}

/// Names of the counters and what they count, in the order of `RL_COUNTERS` in intf.h.
pub fn counter_table() -> Vec<(&'static str, &'static str)> {
    (0..RL_NR_COUNTERS)
        .map(|i| {
            // SAFETY: as for features.
            unsafe { (text(rl_host_counter_name(i)), text(rl_host_counter_doc(i))) }
        })
        .collect()
}

/// SHA-256 (hex) over names and expressions of the feature table: two builds with the same hash see the same features.
pub fn feature_schema_hash() -> String {
    let table: String = feature_table().iter().map(|f| format!("{}={}\n", f.name, f.expr)).collect();
    sha256(table.as_bytes())
}

/// Compute the feature vector of raw measurements.
pub fn features(input: &rl_inputs) -> Features {
    let mut f = [0; FEATURES];
    // SAFETY: both pointers are valid for the call, and f has RL_FEATURES elements.
    unsafe { rl_host_features(input, f.as_mut_ptr()) };
    f
}

/// Decide for `f` under `slot` with random bits `rnd` (the low 16 are used), exactly as BPF does.
pub fn act(slot: &rl_slot, f: &Features, rnd: u32) -> rl_decision {
    let mut d = rl_decision { generation: slot.generation, ..Default::default() };
    // SAFETY: all pointers are valid for the call, and f has RL_FEATURES elements.
    unsafe { rl_host_act(slot, f.as_ptr(), rnd, &mut d) };
    d
}

/// The probability to migrate (at TURN: to go on) under `slot`.
pub fn p_migrate(slot: &rl_slot, f: &Features) -> f64 {
    f64::from(act(slot, f, 0).p_migrate_q16) / f64::from(RL_PROB_ONE)
}

/// The forward pass: network output in units of 1 / 2^16 of a logit.
pub fn forward(w: &rl_weights, f: &Features) -> i64 {
    // SAFETY: both pointers are valid for the call, and f has RL_FEATURES elements.
    unsafe { rl_host_forward(w, f.as_ptr()) }
}

/// The fixed rule as it is without options: `RL_RULE_DEFAULT` in intf.h.
pub fn default_rule() -> rl_rule {
    // SAFETY: a plain function without side effects.
    unsafe { rl_host_rule() }
}
