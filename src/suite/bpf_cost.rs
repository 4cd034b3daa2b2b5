// SPDX-License-Identifier: GPL-2.0-only
//! What a scheduler's BPF programs cost, by the kernel's statistics, while hackbench runs. A cell of its
//! own, because measuring slows every program down.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::workload::Site;
use crate::progs::{self, Measuring, Program};

/// The name of the cell.
pub const NAME: &str = "bpf-cost";
/// The callbacks that run for each wakeup or switch, and the figure of each.
const MEMBERS: [(&str, &str); 3] =
    [("select_cpu", "select_cpu ns"), ("enqueue", "enqueue ns"), ("dispatch", "dispatch ns")];
/// All programs' time, of the time of all CPUs.
const SHARE: &str = "share %";

/// The figures, in the table's order.
pub fn figures() -> Vec<&'static str> {
    MEMBERS.iter().map(|(_, figure)| *figure).chain([SHARE]).collect()
}

/// Runs hackbench and counts.
///
/// # Errors
/// The kernel does not count, or hackbench fails.
pub fn measure(site: &Site<'_>) -> Result<BTreeMap<String, f64>> {
    let _measuring = Measuring::start()?;
    let (before, begin) = (progs::list()?, Instant::now());
    site.run("hackbench", Command::new("hackbench").args(["-p", "-g", "4", "-l", "300"]))?;
    let cpu_ns = begin.elapsed().as_nanos() as f64 * site.cpus as f64;
    let figures = difference(&before, &progs::list()?, cpu_ns);
    ensure!(!figures.is_empty(), "no BPF program of a scheduler ran");
    Ok(figures)
}

fn difference(before: &[Program], after: &[Program], cpu_ns: f64) -> BTreeMap<String, f64> {
    let ran: Vec<(&str, u64, u64)> = after
        .iter()
        .map(|program| {
            let old = before.iter().find(|old| old.id == program.id);
            let (time_ns, count) = old.map_or((0, 0), |old| (old.run_time_ns, old.run_cnt));
            (program.name.as_str(), program.run_time_ns.saturating_sub(time_ns), program.run_cnt.saturating_sub(count))
        })
        .filter(|(_, _, count)| *count > 0)
        .collect();
    let mut figures = BTreeMap::new();
    for (member, figure) in MEMBERS {
        // Schedulers call their callbacks rusty_enqueue, lavd_enqueue, ...
        let of = ran.iter().filter(|(name, ..)| name.strip_suffix(member).is_some_and(|rest| rest.ends_with('_')));
        let (time_ns, count) = of.fold((0, 0), |(time, count), (_, t, c)| (time + t, count + c));
        figures.extend(progs::mean_ns(time_ns, count).map(|ns| (figure.to_string(), ns)));
    }
    if !ran.is_empty() && cpu_ns > 0.0 {
        figures.insert(SHARE.into(), 100.0 * ran.iter().map(|(_, time_ns, _)| *time_ns as f64).sum::<f64>() / cpu_ns);
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(id: u32, name: &str, run_cnt: u64, run_time_ns: u64) -> Program {
        Program { id, name: name.into(), verified_insns: 1, jited_bytes: 1, run_cnt, run_time_ns, avg_ns: None }
    }

    #[test]
    fn only_what_ran_meanwhile_counts() {
        let before = [program(1, "rusty_select_cpu", 10, 1_000), program(2, "rusty_enqueue", 5, 500)];
        let after = [
            program(1, "rusty_select_cpu", 30, 5_000),
            program(2, "rusty_enqueue", 5, 500),
            program(3, "rusty_dispatch", 4, 2_000),
            program(4, "rusty_running", 4, 4_000),
            program(5, "not_the_enqueue_one", 4, 0),
        ];
        let figures = difference(&before, &after, 1e6);
        assert_eq!(figures["select_cpu ns"], 200.0);
        assert_eq!(figures["dispatch ns"], 500.0);
        assert!(!figures.contains_key("enqueue ns"), "it did not run");
        assert!((figures[SHARE] - 1.0).abs() < 1e-12);
        assert!(difference(&after, &after, 1e6).is_empty());
    }
}
