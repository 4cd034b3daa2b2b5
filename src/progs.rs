// SPDX-License-Identifier: GPL-2.0-only
//! What the BPF programs of loaded schedulers are and cost, by the kernel's own statistics: of any scheduler, ours or not.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use libbpf_rs::ProgramType;
use libbpf_rs::btf::{Btf, types::Func};
use libbpf_rs::query::{ProgInfoIter, ProgInfoQueryOptions};
use serde::Serialize;

use crate::process::print;

/// Makes the kernel measure each run of a BPF program. It costs time, so it is off by default.
const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// List the BPF programs of the schedulers that are loaded, with their size and cost.
///
/// All programs of type struct_ops, which is what schedulers are made of (and congestion controls): name, instructions
/// that the verifier walked, bytes of machine code, and how often and how long they ran. The kernel counts runs only
/// while kernel.bpf_stats_enabled is 1: set it, wait, look again. The numbers are sums since the program was loaded.
#[derive(Clone, Debug, clap::Args)]
pub struct ProgsArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// A loaded BPF program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Program {
    /// The kernel's number for it.
    pub id: u32,
    /// Its function's name, in full where BTF has it (the kernel itself keeps 15 characters).
    pub name: String,
    /// Instructions that the verifier walked to accept it.
    pub verified_insns: u32,
    /// Machine code, bytes.
    pub jited_bytes: usize,
    /// Runs that were measured.
    pub run_cnt: u64,
    /// Their time, ns.
    pub run_time_ns: u64,
    /// Mean time of a run, ns; none without a run.
    pub avg_ns: Option<f64>,
}

/// All struct_ops programs that are loaded.
///
/// # Errors
/// Not root.
pub fn list() -> Result<Vec<Program>> {
    ensure!(nix::unistd::geteuid().is_root(), "listing BPF programs needs root");
    let options = ProgInfoQueryOptions::default().include_jited_prog_insns(true).include_func_info(true);
    let programs = ProgInfoIter::with_query_opts(options).filter(|info| info.ty == ProgramType::StructOps);
    Ok(programs
        .map(|info| Program {
            id: info.id,
            name: full_name(info.id, info.func_info.first().map(|func| func.type_id))
                .unwrap_or_else(|| info.name.to_string_lossy().into_owned()),
            verified_insns: info.verified_insns,
            jited_bytes: info.jited_prog_insns.len(),
            run_cnt: info.run_cnt,
            run_time_ns: info.run_time_ns,
            avg_ns: mean_ns(info.run_time_ns, info.run_cnt),
        })
        .collect())
}

/// The name of the program's function in its BTF.
fn full_name(id: u32, type_id: Option<u32>) -> Option<String> {
    let btf = Btf::from_prog_id(id).ok()?;
    let func = btf.type_by_id::<Func<'_>>(type_id?.into())?;
    Some(func.name()?.to_string_lossy().into_owned())
}

/// The mean time of a run; none without a run.
pub fn mean_ns(run_time_ns: u64, run_cnt: u64) -> Option<f64> {
    (run_cnt > 0).then(|| run_time_ns as f64 / run_cnt as f64)
}

/// While it lives, the kernel measures runs of BPF programs.
pub struct Measuring {
    before: String,
}

impl Measuring {
    /// Begins.
    ///
    /// # Errors
    /// The kernel does not offer it, or we are not root.
    pub fn start() -> Result<Measuring> {
        let before = fs::read_to_string(STATISTICS).with_context(|| {
            format!("reading {STATISTICS}: needs a kernel with CONFIG_BPF_SYSCALL and CONFIG_SYSCTL")
        })?;
        fs::write(STATISTICS, "1\n").with_context(|| format!("writing {STATISTICS}"))?;
        Ok(Measuring { before })
    }
}

impl Drop for Measuring {
    fn drop(&mut self) {
        if let Err(error) = fs::write(STATISTICS, &self.before) {
            log::warn!("{STATISTICS} stays 1, which costs time: {error}");
        }
    }
}

/// The subcommand `progs`.
///
/// # Errors
/// Not root, or the output cannot be written.
pub fn run(args: &ProgsArgs) -> Result<()> {
    let programs = list()?;
    if args.json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&programs)?));
    }
    if programs.is_empty() {
        return print("no scheduler is loaded\n");
    }
    let header =
        format!("{:>6}  {:<32}{:>10}{:>12}{:>14}{:>10}\n", "id", "program", "verified", "code bytes", "runs", "avg ns");
    let lines = programs.iter().map(|program| {
        let avg_ns = program.avg_ns.map_or("-".to_string(), |ns| format!("{ns:.0}"));
        let Program { id, name, verified_insns, jited_bytes, run_cnt, .. } = program;
        format!("{id:>6}  {name:<32}{verified_insns:>10}{jited_bytes:>12}{run_cnt:>14}{avg_ns:>10}\n")
    });
    let mut text: String = std::iter::once(header).chain(lines).collect();
    let counted = Path::new(STATISTICS).exists() && fs::read_to_string(STATISTICS).is_ok_and(|on| on.trim() == "1");
    if !counted {
        text += "runs are not counted now: sysctl kernel.bpf_stats_enabled=1\n";
    }
    print(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_needs_runs() {
        assert_eq!(mean_ns(900, 3), Some(300.0));
        assert_eq!(mean_ns(0, 0), None);
    }
}
