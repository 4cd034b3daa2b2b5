// SPDX-License-Identifier: GPL-2.0-only
//! The policy's arithmetic and its publication, in this machine's own kernel by BPF test_run: no sched_ext is needed, but
//! root and a kernel with BPF are.

#[path = "../common/mod.rs"]
mod common;
mod decisions;
mod parity;
mod publication;

use std::mem::MaybeUninit;

use common::skip;
use libbpf_rs::OpenObject;
use scx_rl::agent::quantise::{B1_MAX, B2_MAX};
use scx_rl::kernel::preflight::kernel_release;
use scx_rl::kernel::probe::Probe;
use scx_rl::policy::host::{FEATURES, Features};
use scx_rl::policy::{RL_HIDDEN, RL_LANE_BITS, RL_LANES, RL_PROBE_BATCH, RL_WEIGHT_MAX, RL_WEIGHT_OFFSET, rl_weights};

const BATCH: usize = RL_PROBE_BATCH as usize;
const HIDDEN: usize = RL_HIDDEN as usize;

/// Load the programs, or say why this machine cannot.
fn probe(object: &mut MaybeUninit<OpenObject>) -> Option<Probe<'_>> {
    if let Err(why) = bpf_available() {
        skip(&why);
        return None;
    }
    Some(Probe::load(object).unwrap())
}

fn bpf_available() -> Result<(), String> {
    use libbpf_rs::libbpf_sys::{BPF_PROG_TYPE_SYSCALL, libbpf_probe_bpf_prog_type};
    if !nix::unistd::geteuid().is_root() {
        return Err("not root: BPF programs cannot be loaded".to_string());
    }
    // SAFETY: no options are passed, and a null pointer says so.
    match unsafe { libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SYSCALL, std::ptr::null()) } {
        1 => {}
        rc => return Err(format!("no BPF here (the kernel's answer to a first program: {rc})")),
    }
    // The programs loop by bpf_for.
    let release = kernel_release();
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) < (Some(6), Some(4)) {
        return Err(format!("kernel {release}: bpf_for needs Linux 6.4"));
    }
    Ok(())
}

/// A network as integers, not yet packed.
#[derive(Clone)]
struct Plain {
    w1: [[i64; FEATURES]; HIDDEN],
    b1: [i64; HIDDEN],
    w2: [i64; HIDDEN],
    b2: i64,
}

impl Plain {
    /// Every number from `f`, which is given the largest absolute value that it may take.
    fn from_fn(mut f: impl FnMut(i64) -> i64) -> Self {
        let w = i64::from(RL_WEIGHT_MAX);
        Self {
            w1: std::array::from_fn(|_| std::array::from_fn(|_| f(w))),
            b1: std::array::from_fn(|_| f(B1_MAX)),
            w2: std::array::from_fn(|_| f(w)),
            b2: f(B2_MAX),
        }
    }

    fn of(w: &rl_weights) -> Self {
        let lane = |n: usize, i: usize| {
            let word = w.w1[n / RL_LANES as usize][i] >> (RL_LANE_BITS * (n as u32 % RL_LANES));
            (word & ((1 << RL_LANE_BITS) - 1)) as i64 - i64::from(RL_WEIGHT_OFFSET)
        };
        Self {
            w1: std::array::from_fn(|n| std::array::from_fn(|i| lane(n, i))),
            b1: w.b1.map(i64::from),
            w2: w.w2.map(i64::from),
            b2: w.b2,
        }
    }

    fn packed(&self) -> rl_weights {
        let mut w = rl_weights { b2: self.b2, ..Default::default() };
        for n in 0..HIDDEN {
            for i in 0..FEATURES {
                let stored = (self.w1[n][i] + i64::from(RL_WEIGHT_OFFSET)) as u64;
                w.w1[n / RL_LANES as usize][i] |= stored << (RL_LANE_BITS * (n as u32 % RL_LANES));
            }
            (w.b1[n], w.w2[n]) = (self.b1[n] as i32, self.w2[n] as i32);
        }
        w
    }

    /// The forward pass as one would write it first.
    fn forward(&self, f: &Features) -> i64 {
        let hidden = |n: usize| self.b1[n] + (0..FEATURES).map(|i| self.w1[n][i] * i64::from(f[i])).sum::<i64>();
        self.b2 + (0..HIDDEN).map(|n| hidden(n).max(0) * self.w2[n]).sum::<i64>()
    }
}
