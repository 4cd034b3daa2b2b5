// SPDX-License-Identifier: GPL-2.0-only
//! What the kernel tells of loaded BPF programs: their sizes, and what it cost to verify them.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use anyhow::{Context, Result, anyhow};
use libbpf_rs::libbpf_sys::{bpf_prog_get_info_by_fd, bpf_prog_info};
use libbpf_rs::skel::Skel;
use libbpf_rs::{Object, OpenObject};
use scx_utils::{scx_ops_load, scx_ops_open};
use serde::{Deserialize, Serialize};

use super::domains::{CpuPlace, DomainSpec, Domains};
use super::scheduler::ops_flags;

#[allow(clippy::all, missing_docs, non_camel_case_types, dead_code)]
mod skel {
    include!(concat!(env!("OUT_DIR"), "/main_skel.rs"));
}

/// One loaded program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramCost {
    /// Its name in the C source.
    pub name: String,
    /// Instructions that the verifier walked, over all paths.
    pub verified_insns: u32,
    /// Machine code, bytes.
    pub jited_bytes: u32,
    /// BPF code as the verifier left it, bytes.
    pub xlated_bytes: u32,
}

/// The programs of a loaded object, by name.
///
/// # Errors
/// When the kernel does not tell.
pub fn of_object(object: &Object) -> Result<Vec<ProgramCost>> {
    let mut costs = Vec::new();
    for program in object.progs().filter(|p| p.as_fd().as_raw_fd() >= 0) {
        let name = program.name().to_string_lossy().into_owned();
        costs.push(cost(name, program.as_fd())?);
    }
    costs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(costs)
}

/// The scheduler's programs, loaded for this purpose and not attached. Always for the same machine of 8 CPUs with SMT in
/// 4 last-level caches of 2 NUMA nodes, wherever it runs: the verifier knows the configuration and leaves out what a
/// smaller machine has no use for.
///
/// # Errors
/// When the kernel does not load them.
pub fn of_scheduler() -> Result<Vec<ProgramCost>> {
    let places: Vec<CpuPlace> =
        (0..8).map(|cpu| CpuPlace { cpu, core: cpu / 2, l2: cpu / 2, llc: cpu / 2, node: cpu / 4 }).collect();
    let groups = (0..4).map(|llc| vec![2 * llc, 2 * llc + 1]).collect();
    let domains = Domains::from_groups(&DomainSpec::Llc, &places, groups)?;

    let mut object = MaybeUninit::<OpenObject>::uninit();
    let builder = skel::MainSkelBuilder::default();
    let no_options: Option<libbpf_rs::libbpf_sys::bpf_object_open_opts> = None;
    let mut open = scx_ops_open!(builder, &mut object, rl_ops, no_options)?;
    let rodata = open.maps.rodata_data.as_mut().ok_or_else(|| anyhow!("the BPF object has no rodata"))?;
    rodata.nr_cpu_ids = domains.nr_cpu_ids as u32;
    rodata.nr_domains = domains.cpus.len() as u32;
    rodata.smt_enabled = domains.smt;
    // What is behind an option that is off would be dead code to the verifier.
    rodata.learn_slices = true;
    for (cpu, dom) in domains.domain_of_cpu() {
        rodata.cpu_domain[cpu] = dom as u16;
        rodata.domain_cpus[dom][cpu / 64] |= 1 << (cpu % 64);
        rodata.domain_nr_cpus[dom] += 1;
    }
    for (a, row) in domains.distance.iter().enumerate() {
        rodata.domain_distance[a][..row.len()].copy_from_slice(row);
        rodata.domain_neighbours[a][..domains.neighbours[a].len()].copy_from_slice(&domains.neighbours[a]);
    }
    open.struct_ops.rl_ops_mut().flags = ops_flags(0);
    let skel = scx_ops_load!(open, rl_ops, uei)?;
    of_object(skel.object())
}

fn cost(name: String, fd: BorrowedFd<'_>) -> Result<ProgramCost> {
    let mut info = bpf_prog_info::default();
    let mut bytes = size_of::<bpf_prog_info>() as u32;
    // SAFETY: info has the size that bytes says, and asks for no arrays; both outlive the call.
    let err = unsafe { bpf_prog_get_info_by_fd(fd.as_raw_fd(), &raw mut info, &raw mut bytes) };
    if err != 0 {
        return Err(std::io::Error::from_raw_os_error(-err))
            .with_context(|| format!("the kernel tells nothing of the BPF program {name}"));
    }
    Ok(ProgramCost {
        name,
        verified_insns: info.verified_insns,
        jited_bytes: info.jited_prog_len,
        xlated_bytes: info.xlated_prog_len,
    })
}
