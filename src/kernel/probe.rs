// SPDX-License-Identifier: GPL-2.0-only
//! The policy's arithmetic run by the kernel's `test_run`: needs BPF and root, but neither sched_ext nor a VM.

use std::mem::MaybeUninit;
use std::ptr::NonNull;

use anyhow::{Context, Result, anyhow};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{OpenObject, ProgramInput, ProgramMut};

use super::slots::Publisher;
use crate::policy::{RL_FEATURES, RL_HIDDEN, rl_policy, rl_probe_args, rl_probe_batch, rl_weights};

#[allow(clippy::all, missing_docs, non_camel_case_types, dead_code)]
mod skel {
    include!(concat!(env!("OUT_DIR"), "/probe_skel.rs"));
}
use skel::{ProbeSkel, ProbeSkelBuilder};

/// The test programs, loaded.
pub struct Probe<'a> {
    skel: ProbeSkel<'a>,
}

/// A program of `probe.bpf.c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Features of each input of the batch.
    Features,
    /// Output and decision for each feature vector of the batch.
    Decide,
    /// Decisions under concurrent publication.
    Publication,
    /// Features, forward pass and action, timed.
    BenchPolicy,
    /// The same with a naive loop, timed.
    BenchNaive,
    /// An empty call, timed.
    BenchEmpty,
}

impl<'a> Probe<'a> {
    /// Load the programs; `object` keeps them.
    ///
    /// # Errors
    /// When BPF programs cannot be loaded here (not root, or a kernel without BPF).
    pub fn load(object: &'a mut MaybeUninit<OpenObject>) -> Result<Self> {
        let open = ProbeSkelBuilder::default().open(object).context("cannot open the BPF test programs")?;
        let skel = open.load().context("cannot load the BPF test programs (root is needed)")?;
        Ok(Self { skel })
    }

    /// The batch, as mapped: what is written is what the programs see.
    pub fn batch(&mut self) -> Result<&mut rl_probe_batch> {
        let data = self.skel.maps.data_batch_data.as_mut().ok_or_else(|| anyhow!("the batch is not mapped"))?;
        // SAFETY: the skeleton's type and bindgen's are made from the same C struct.
        Ok(unsafe { &mut *(&raw mut data.batch).cast::<rl_probe_batch>() })
    }

    /// The writer of the programs' policy.
    pub fn publisher(&mut self) -> Result<Publisher> {
        let data = self.skel.maps.data_policy_data.as_mut().ok_or_else(|| anyhow!("the policy is not mapped"))?;
        // SAFETY: as in batch(); the mapping lives as long as the process keeps the skeleton, and callers keep one
        // publisher per probe.
        Ok(unsafe { Publisher::new(NonNull::from(&mut data.policy).cast::<rl_policy>(), 0) })
    }

    /// Give the naive loop the same network.
    pub fn set_naive(
        &mut self,
        w1: &[[i8; RL_FEATURES as usize]; RL_HIDDEN as usize],
        weights: &rl_weights,
    ) -> Result<()> {
        let data = self.skel.maps.data_naive_data.as_mut().ok_or_else(|| anyhow!("naive weights are not mapped"))?;
        data.naive_w1 = *w1;
        data.naive_b1 = weights.b1;
        data.naive_w2 = weights.w2;
        data.naive_b2 = weights.b2;
        Ok(())
    }

    /// Run `program` with `n` repetitions (where it repeats) and return what it reports.
    pub fn run(&self, program: Program, n: u64) -> Result<rl_probe_args> {
        run(self.program(program), n)
    }

    fn program(&self, program: Program) -> &ProgramMut<'_> {
        let progs = &self.skel.progs;
        match program {
            Program::Features => &progs.probe_features,
            Program::Decide => &progs.probe_decide,
            Program::Publication => &progs.probe_publication,
            Program::BenchPolicy => &progs.probe_bench_policy,
            Program::BenchNaive => &progs.probe_bench_naive,
            Program::BenchEmpty => &progs.probe_bench_empty,
        }
    }

    /// A runner of one program that other threads can use.
    pub fn runner(&self, program: Program) -> Result<Runner> {
        use std::os::fd::{AsFd, OwnedFd};
        let fd: OwnedFd = self.program(program).as_fd().try_clone_to_owned().context("cannot duplicate the program")?;
        Ok(Runner { fd })
    }
}

/// One loaded program, by its file descriptor.
pub struct Runner {
    fd: std::os::fd::OwnedFd,
}

impl Runner {
    /// As [`Probe::run`].
    pub fn run(&self, n: u64) -> Result<rl_probe_args> {
        use std::os::fd::AsRawFd;
        let mut args = rl_probe_args { n, ..Default::default() };
        let mut opts = libbpf_rs::libbpf_sys::bpf_test_run_opts {
            sz: size_of::<libbpf_rs::libbpf_sys::bpf_test_run_opts>() as u64,
            ctx_in: (&raw const args).cast(),
            ctx_size_in: size_of::<rl_probe_args>() as u32,
            ..Default::default()
        };
        // The kernel writes the context of a syscall program back to ctx_in.
        // SAFETY: fd is a loaded program, and opts points to args, which outlives the call.
        let rc = unsafe { libbpf_rs::libbpf_sys::bpf_prog_test_run_opts(self.fd.as_raw_fd(), &mut opts) };
        if rc < 0 {
            return Err(std::io::Error::from_raw_os_error(-rc)).context("test_run failed");
        }
        // SAFETY: args was written by the kernel behind a const pointer; read it afresh.
        args = unsafe { std::ptr::read_volatile(&raw const args) };
        Ok(args)
    }
}

fn run(program: &ProgramMut<'_>, n: u64) -> Result<rl_probe_args> {
    let mut args = rl_probe_args { n, ..Default::default() };
    // SAFETY: rl_probe_args is plain integers without padding; any bytes are a valid value.
    let bytes = unsafe { std::slice::from_raw_parts_mut((&raw mut args).cast::<u8>(), size_of::<rl_probe_args>()) };
    program.test_run(ProgramInput { context_in: Some(bytes), ..Default::default() }).context("test_run failed")?;
    Ok(args)
}
