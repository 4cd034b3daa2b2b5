// SPDX-License-Identifier: GPL-2.0-only
//! The shape of a guest's CPUs: how many, and how they fall into LLCs and NUMA nodes.
//!
//! QEMU gives each socket one last-level cache, so a socket stands for an LLC. CPUs are numbered socket by socket.

use std::ops::RangeInclusive;

use super::VmError;

/// QEMU's limit for the machine that virtme-ng uses, without an interrupt remapper.
const MAX_CPUS: u32 = 255;
/// Below this a Debian kernel with BTF does not boot reliably.
const MIN_NODE_MIB: u64 = 256;

/// A guest's CPUs and memory. Build it with [`Topology::new`], which refuses shapes that cannot exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Logical CPUs.
    cpus: u32,
    /// Last-level caches, all of the same size.
    llcs: u32,
    /// NUMA nodes, each with the same number of LLCs.
    nodes: u32,
    /// Two hardware threads per core.
    smt: bool,
    /// Memory of the whole guest, in MiB.
    memory_mib: u64,
}

impl Topology {
    /// `cpus` logical CPUs in `llcs` equal caches in `nodes` equal NUMA nodes; `memory` like `2G` or `768M`.
    ///
    /// # Errors
    /// [`VmError::Invalid`] with what does not fit, when the CPUs cannot be dealt out evenly.
    pub fn new(cpus: u32, llcs: u32, nodes: u32, smt: bool, memory: &str) -> Result<Self, VmError> {
        let invalid = |what: String| Err(VmError::Invalid(what));
        if cpus == 0 || cpus > MAX_CPUS {
            return invalid(format!("--cpus {cpus} is out of range: a guest has 1 to {MAX_CPUS} CPUs"));
        }
        if llcs == 0 || !cpus.is_multiple_of(llcs) {
            return invalid(format!("--cpus {cpus} cannot be dealt out evenly to --llcs {llcs}: use a multiple of it"));
        }
        if nodes == 0 || !llcs.is_multiple_of(nodes) {
            return invalid(format!(
                "--llcs {llcs} cannot be dealt out evenly to --nodes {nodes}: use a multiple of it"
            ));
        }
        if smt && !(cpus / llcs).is_multiple_of(2) {
            return invalid(format!(
                "--smt needs an even number of CPUs in each LLC; --cpus {cpus} --llcs {llcs} gives {}",
                cpus / llcs
            ));
        }
        let memory_mib = parse_mib(memory)?;
        if memory_mib < MIN_NODE_MIB * u64::from(nodes) {
            return invalid(format!(
                "--memory {memory} is too little: give at least {MIN_NODE_MIB}M for each of {nodes} NUMA node(s)"
            ));
        }
        Ok(Self { cpus, llcs, nodes, smt, memory_mib })
    }

    /// Two hardware CPUs in one cache: what a probe needs.
    pub(super) fn small() -> Self {
        Self { cpus: 2, llcs: 1, nodes: 1, smt: false, memory_mib: 512 }
    }

    /// `virtme-run`'s arguments for this shape.
    pub(super) fn args(&self) -> Vec<String> {
        let threads = if self.smt { 2 } else { 1 };
        let cores = self.cpus / self.llcs / threads;
        let mut args = vec![
            "--cpus".to_owned(),
            format!("{},sockets={},cores={cores},threads={threads}", self.cpus, self.llcs),
            "--memory".to_owned(),
            format!("{}M", self.memory_mib),
        ];
        if self.nodes > 1 {
            for node in 0..self.nodes {
                let cpus = self.node_cpus(node);
                args.push("--numa".to_owned());
                args.push(format!("{}M,cpus={}-{}", self.node_mib(node), cpus.start(), cpus.end()));
            }
        }
        args
    }

    /// The CPUs of one NUMA node.
    fn node_cpus(&self, node: u32) -> RangeInclusive<u32> {
        let per_node = self.cpus / self.nodes;
        node * per_node..=(node + 1) * per_node - 1
    }

    /// Memory of one node in MiB; the nodes must add up exactly, so the first takes what is left over.
    fn node_mib(&self, node: u32) -> u64 {
        let nodes = u64::from(self.nodes);
        self.memory_mib / nodes + if node == 0 { self.memory_mib % nodes } else { 0 }
    }
}

impl std::fmt::Display for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let smt = if self.smt { ", SMT" } else { "" };
        write!(f, "{} CPUs in {} LLC(s) in {} node(s){smt}, {} MiB", self.cpus, self.llcs, self.nodes, self.memory_mib)
    }
}

/// `2G` and `768M` in MiB.
fn parse_mib(memory: &str) -> Result<u64, VmError> {
    let (digits, factor) = match memory.strip_suffix(['G', 'g']) {
        Some(digits) => (digits, 1024),
        None => (memory.strip_suffix(['M', 'm']).unwrap_or(""), 1),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .ok_or_else(|| VmError::Invalid(format!("--memory {memory} is no size: give it like 2G or 768M")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(cpus: u32, llcs: u32, nodes: u32, smt: bool, memory: &str) -> String {
        Topology::new(cpus, llcs, nodes, smt, memory).unwrap().args().join(" ")
    }

    fn refusal(cpus: u32, llcs: u32, nodes: u32, smt: bool, memory: &str) -> String {
        Topology::new(cpus, llcs, nodes, smt, memory).unwrap_err().to_string()
    }

    #[test]
    fn a_socket_is_an_llc() {
        assert_eq!(args(4, 2, 1, false, "2G"), "--cpus 4,sockets=2,cores=2,threads=1 --memory 2048M");
    }

    #[test]
    fn smt_halves_the_cores() {
        assert_eq!(args(8, 2, 1, true, "768M"), "--cpus 8,sockets=2,cores=2,threads=2 --memory 768M");
    }

    #[test]
    fn nodes_split_cpus_and_all_of_the_memory() {
        assert_eq!(
            args(12, 6, 3, false, "1000M"),
            "--cpus 12,sockets=6,cores=2,threads=1 --memory 1000M \
             --numa 334M,cpus=0-3 --numa 333M,cpus=4-7 --numa 333M,cpus=8-11"
        );
    }

    #[test]
    fn impossible_shapes_are_refused_with_the_reason() {
        assert!(refusal(0, 1, 1, false, "2G").contains("1 to 255 CPUs"));
        assert!(refusal(5, 2, 1, false, "2G").contains("--cpus 5 cannot be dealt out evenly to --llcs 2"));
        assert!(refusal(4, 0, 1, false, "2G").contains("--llcs 0"));
        assert!(refusal(6, 3, 2, false, "2G").contains("--llcs 3 cannot be dealt out evenly to --nodes 2"));
        assert!(refusal(6, 2, 1, true, "2G").contains("even number of CPUs"));
        assert!(refusal(4, 4, 4, false, "512M").contains("at least 256M for each of 4"));
        for memory in ["", "2", "G", "2T", "-1G", "99999999999999999999G", "18446744073709551615G"] {
            assert!(refusal(4, 2, 1, false, memory).contains("like 2G or 768M"), "{memory}");
        }
    }
}
