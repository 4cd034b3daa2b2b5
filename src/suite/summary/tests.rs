// SPDX-License-Identifier: GPL-2.0-only
//! Findings from cells whose numbers are known.

use super::*;
use crate::runqlat::Counts;
use crate::suite::workload;

fn workload(name: &str) -> Subject {
    workload::REAL.iter().find(|workload| workload.name == name).unwrap().into()
}

fn cell(round: usize, scheduler: &str, workload: &str, figures: &[(&str, f64)]) -> Cell {
    let mut counts = Counts::default();
    counts.waits[0].add(10_000);
    counts.waits[1].add(2_000_000);
    Cell {
        round,
        position: 0,
        scheduler: scheduler.into(),
        workload: workload.into(),
        figures: figures.iter().map(|(name, value)| (name.to_string(), *value)).collect(),
        seconds: 1.0,
        latency: None,
        complaint: figures.is_empty().then(|| "it was thrown out".into()),
        kernel: Vec::new(),
        counts: Some(counts),
    }
}

/// Three rounds: `fast` halves each time and doubles each rate; `slow` fails once, and never runs nginx.
fn findings() -> Findings {
    let mut cells = Vec::new();
    for round in 0..3 {
        let drift = 1.0 + round as f64;
        cells.push(cell(round, "eevdf", "compile", &[("time", 10.0 * drift)]));
        cells.push(cell(round, "fast", "compile", &[("time", 5.0 * drift)]));
        let slow: &[(&str, f64)] = if round == 1 { &[] } else { &[("time", 20.0 * drift)] };
        cells.push(cell(round, "slow", "compile", slow));
        cells.push(cell(round, "eevdf", "nginx-wrk", &[("requests", 100.0), ("p99", 9.0)]));
        cells.push(cell(round, "fast", "nginx-wrk", &[("requests", 800.0), ("p99", 4.5)]));
        cells.push(cell(round, "fast", "bpf-cost", &[("enqueue ns", 100.0 + round as f64)]));
    }
    let names = ["eevdf", "fast", "slow"].map(String::from);
    Findings::new(&cells, &names, "eevdf", &[workload("compile"), workload("nginx-wrk")], 1)
}

#[test]
fn ratios_are_turned_so_that_more_is_better() {
    let findings = findings();
    let row = |workload: usize, figure: usize, name: &str| {
        findings.workloads[workload].figures[figure].schedulers[name].clone()
    };
    let compile = row(0, 0, "fast");
    assert_eq!((compile.median, compile.min, compile.max), (10.0, 5.0, 15.0));
    // Paired by round, the drift cancels: every draw gives the same ratio.
    assert_eq!(compile.ratio.unwrap(), Estimate { value: 2.0, low: 2.0, high: 2.0 });
    assert_eq!(row(1, 0, "fast").ratio.unwrap().value, 8.0);
    assert_eq!(row(1, 1, "fast").ratio.unwrap().value, 2.0);
    assert_eq!(row(0, 0, "eevdf").ratio.unwrap().value, 1.0);
}

#[test]
fn a_workload_counts_once_however_many_figures_it_has() {
    let findings = findings();
    // compile 2; nginx sqrt(8 x 2) = 4; together sqrt(2 x 4).
    assert!((findings.workloads[1].ratio["fast"].value - 4.0).abs() < 1e-12);
    let fast = &findings.geometric_mean["fast"];
    assert!((fast.ratio.value - 8f64.sqrt()).abs() < 1e-12);
    assert_eq!((fast.workloads, fast.worst.as_str(), fast.worst_ratio), (2, "compile time", 2.0));
    assert_eq!(findings.geometric_mean["eevdf"].ratio.value, 1.0);
}

#[test]
fn failures_are_told_and_only_common_rounds_are_compared() {
    let findings = findings();
    let slow = &findings.workloads[0].figures[0].schedulers["slow"];
    assert_eq!(slow.values, [Some(20.0), None, Some(60.0)]);
    // Rounds 1 and 3 of both: medians 40 and 20.
    assert_eq!(slow.ratio.unwrap().value, 0.5);
    assert!(!findings.workloads[1].figures[0].schedulers.contains_key("slow"));
    assert_eq!(findings.geometric_mean["slow"].workloads, 1);
    assert_eq!(findings.failures.len(), 1);
    assert_eq!((findings.failures[0].round, findings.failures[0].scheduler.as_str()), (1, "slow"));
}

#[test]
fn costs_and_waits_are_by_scheduler() {
    let findings = findings();
    assert_eq!(findings.bpf_cost["fast"]["enqueue ns"], 101.0);
    assert!(!findings.bpf_cost.contains_key("eevdf"));
    // Six cells of two waits; those of bpf-cost are not among them, nor is the cell that failed.
    assert_eq!(findings.runqueue_latency["fast"].samples, 12);
    assert_eq!(findings.runqueue_latency["slow"].samples, 4);
    assert_eq!(findings.runqueue_latency_by_workload["nginx-wrk"]["eevdf"].samples, 6);
    assert_eq!(findings.runqueue_latency["fast"].max_us, 2000.0);
}

#[test]
fn nothing_measured_is_nothing_found() {
    let findings = Findings::new(&[], &["eevdf".into()], "eevdf", &[workload("compile")], 1);
    assert!(findings.geometric_mean.is_empty() && findings.runqueue_latency.is_empty());
    assert!(findings.workloads[0].figures[0].schedulers.is_empty());
}
