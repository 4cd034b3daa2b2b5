// SPDX-License-Identifier: GPL-2.0-only
//! The tables, in Markdown whose columns line up, so that the same text serves the terminal and the file.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::contender::Skipped;
use super::summary::{Failure, Findings, Measured};
use super::{Summary, bpf_cost};
use crate::lab::statistics::Estimate;

/// A Markdown table: the first row is the header, the first column is text, the others are right-aligned.
pub fn markdown(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a String cannot fail.
            let _ = if column == 0 { write!(out, "| {cell:<width$} ") } else { write!(out, "| {cell:>width$} ") };
        }
        out.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let dashes = "-".repeat(width + 1);
                out += &if column == 0 { format!("|:{dashes}") } else { format!("|{dashes}:") };
            }
            out.push_str("|\n");
        }
    }
    out
}

/// A number with the digits it deserves.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 100.0 => format!("{value:.1}"),
        v if v >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A ratio; with its interval, if there were rounds to draw from.
fn interval(estimate: &Estimate, rounds: usize) -> String {
    if rounds < 2 {
        return format!("{:.2}", estimate.value);
    }
    format!("{estimate:.2}")
}

const NONE: &str = "-";

/// Ratios to the baseline: a row for each figure, and the geometric mean.
pub fn ratios(findings: &Findings, schedulers: &[String], baseline: &str, rounds: usize) -> String {
    let others: Vec<&String> = schedulers.iter().filter(|name| *name != baseline).collect();
    let mut rows = vec![header("ratio, more than 1 is better", &[&baseline.to_string()], &others)];
    for workload in &findings.workloads {
        for row in &workload.figures {
            let figure = row.figure;
            let mark = if figure.counts { "" } else { " (not counted)" };
            let mut cells = vec![format!("{} {}{mark}", workload.name, figure.name)];
            let base = row.schedulers.get(baseline);
            cells.push(base.map_or(NONE.into(), |base| format!("{} {}", number(base.median), figure.unit)));
            cells.extend(others.iter().map(|name| {
                let ratio = row.schedulers.get(*name).and_then(|measured| measured.ratio.as_ref());
                ratio.map_or(NONE.into(), |ratio| interval(ratio, rounds))
            }));
            rows.push(cells);
        }
    }
    let most = findings.geometric_mean.values().map(|overall| overall.workloads).max().unwrap_or(0);
    let mut mean = vec!["**geometric mean of workloads**".to_string(), NONE.into()];
    let mut worst = vec!["worst counted figure".to_string(), NONE.into()];
    for name in &others {
        let overall = findings.geometric_mean.get(*name);
        mean.push(overall.map_or(NONE.into(), |overall| {
            let missing = most - overall.workloads;
            let mark = if missing == 0 { String::new() } else { format!(" (without {missing})") };
            interval(&overall.ratio, rounds) + &mark
        }));
        worst.push(overall.map_or(NONE.into(), |overall| format!("{:.2}: {}", overall.worst_ratio, overall.worst)));
    }
    rows.extend([mean, worst]);
    markdown(&rows)
}

fn header(first: &str, second: &[&String], names: &[&String]) -> Vec<String> {
    [first.to_string()].into_iter().chain(second.iter().chain(names).map(|name| (*name).clone())).collect()
}

/// Medians with the least and the most.
fn medians(findings: &Findings, schedulers: &[String]) -> String {
    let names: Vec<&String> = schedulers.iter().collect();
    let mut rows = vec![header("median (min, max)", &[], &names)];
    let cell = |measured: &Measured| {
        format!("{} ({}, {})", number(measured.median), number(measured.min), number(measured.max))
    };
    for workload in &findings.workloads {
        for row in &workload.figures {
            let values = names.iter().map(|name| row.schedulers.get(*name).map_or(NONE.into(), cell));
            let label = format!("{} {}, {}", workload.name, row.figure.name, row.figure.unit);
            rows.push([label].into_iter().chain(values).collect());
        }
    }
    markdown(&rows)
}

/// What BPF programs cost.
fn bpf_costs(costs: &BTreeMap<String, BTreeMap<String, f64>>, schedulers: &[String]) -> String {
    let figures = bpf_cost::figures();
    let mut rows = vec![header("BPF programs, mean of a run", &[], &[])];
    rows[0].extend(figures.iter().map(ToString::to_string));
    for name in schedulers {
        let Some(cost) = costs.get(name) else { continue };
        let values = figures.iter().map(|figure| {
            let digits = usize::from(figure.contains('%'));
            cost.get(*figure).map_or(NONE.into(), |value| format!("{value:.digits$}"))
        });
        rows.push([name.clone()].into_iter().chain(values).collect());
    }
    markdown(&rows)
}

/// Waits of all tasks, in all workloads together.
fn latencies(findings: &Findings, schedulers: &[String]) -> String {
    let mut rows = vec![
        ["runqueue latency of all tasks, us", "waits", "mean", "p50", "p90", "p99", "p99.9", "max"]
            .map(String::from)
            .to_vec(),
    ];
    for name in schedulers {
        let Some(waits) = findings.runqueue_latency.get(name) else { continue };
        let figures = [waits.mean_us, waits.p50_us, waits.p90_us, waits.p99_us, waits.p999_us, waits.max_us];
        let cells = [name.clone(), waits.samples.to_string()].into_iter().chain(figures.map(number));
        rows.push(cells.collect());
    }
    markdown(&rows)
}

/// Upper ends of the histogram's columns, as powers of two of 1 us; one more column has the rest.
const COLUMNS: [usize; 8] = [4, 6, 8, 10, 12, 14, 16, 18];

/// The same as a histogram: shares of all waits.
fn histograms(findings: &Findings, schedulers: &[String]) -> String {
    let short = |power: usize| match power {
        0..10 => format!("{} us", 1u64 << power),
        _ => format!("{} ms", 1u64 << (power - 10)),
    };
    let ends = COLUMNS.map(|power| format!("< {}", short(power)));
    let mut rows = vec![header("waits, %", &[], &[])];
    rows[0].extend(ends.into_iter().chain([format!(">= {}", short(COLUMNS[COLUMNS.len() - 1]))]));
    for name in schedulers {
        let Some(waits) = findings.runqueue_latency.get(name) else { continue };
        // The octave n > 0 is [2^(n-1), 2^n) us.
        let mut from = 0;
        let shares = COLUMNS.map(|power| power + 1).into_iter().chain([usize::MAX]).map(|to| {
            let count: u64 = waits.powers_of_two.iter().take(to).skip(from).sum();
            from = to;
            format!("{:.2}", 100.0 * count as f64 / waits.samples as f64)
        });
        rows.push([name.clone()].into_iter().chain(shares).collect());
    }
    markdown(&rows)
}

/// With fewer rounds an interval says little.
const ROUNDS_MIN: usize = 5;

/// What the ratios of so many rounds are, in words.
pub fn legend(rounds: usize) -> String {
    // Of two values the bootstrap's percentiles hold the true one in half of all cases, of three in three quarters.
    let intervals = match rounds {
        0 | 1 => "",
        2..ROUNDS_MIN => {
            ", with the range of resampled rounds (so few of them make no 95 % interval: it holds the true value in half of \
             all cases with two rounds, in three quarters with three)"
        }
        _ => ", with 95 % confidence intervals (bootstrap over rounds)",
    };
    format!(
        "Medians over the rounds, as ratios to the first column, turned so that more than 1 is better{intervals}. A workload \
         counts once: the geometric mean of its counted figures."
    )
}

/// Ratios, medians, costs and waits.
pub fn findings(findings: &Findings, names: &[String], baseline: &str, rounds: usize) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{}", ratios(findings, names, baseline, rounds));
    let _ = writeln!(out, "{} \"without N\": N workloads failed, so that mean is not comparable.\n", legend(rounds));
    let _ = writeln!(out, "{}", medians(findings, names));
    if !findings.bpf_cost.is_empty() {
        let _ = writeln!(out, "{}", bpf_costs(&findings.bpf_cost, names));
        out +=
            "By the kernel's statistics, under hackbench, in cells of their own; share: of the time of all CPUs.\n\n";
    }
    if !findings.runqueue_latency.is_empty() {
        let _ = writeln!(out, "{}", latencies(findings, names));
        let _ = writeln!(out, "{}", histograms(findings, names));
    }
    out + &failures(&findings.failures)
}

/// Everything, for people.
pub fn render(summary: &Summary) -> String {
    let findings = &summary.findings;
    let names: Vec<String> = summary.schedulers.iter().map(|contender| contender.name.clone()).collect();
    let mut out = format!(
        "# Suite: {} rounds, seed {}, {} CPUs in {} LLCs in {} nodes, Linux {}\n\n",
        summary.rounds_done,
        summary.seed,
        summary.topology.cpus,
        summary.topology.llcs.len(),
        summary.topology.nodes,
        summary.kernel
    );
    // Writing to a String cannot fail.
    if !summary.complete {
        let _ = writeln!(out, "**Incomplete**: {} of {} rounds.\n", summary.rounds_done, summary.rounds);
    }
    for Skipped { name, reason } in &summary.skipped {
        let _ = writeln!(out, "- SKIPPED {name}: {reason}");
    }
    if !summary.skipped.is_empty() {
        out.push('\n');
    }
    out += &self::findings(findings, &names, &summary.baseline, summary.rounds_done);
    for contender in &summary.schedulers {
        let _ = writeln!(out, "- {}: {}; {}", contender.name, contender.version, command(&contender.command));
    }
    let _ = writeln!(out, "- measured by scx_rl {} in {:.0} min", summary.version, summary.total_seconds / 60.0);
    out
}

fn command(words: &[String]) -> String {
    if words.is_empty() { "nothing attached".into() } else { format!("`{}`", words.join(" ")) }
}

fn failures(failures: &[Failure]) -> String {
    let mut out = String::new();
    for failure in failures {
        let words = failure.complaint.lines().chain(failure.kernel.iter().map(String::as_str));
        let words: Vec<&str> = words.take(4).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "- FAILED round {}, {}, {}: {}",
            failure.round + 1,
            failure.scheduler,
            failure.workload,
            words.join(" / ")
        );
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let text =
            markdown(&[vec!["what".into(), "a".into(), "bb".into()], vec!["x".into(), "12.5 us".into(), "-".into()]]);
        assert_eq!(text, "| what |       a |  bb |\n|:-----|--------:|----:|\n| x    | 12.5 us |   - |\n");
    }

    #[test]
    fn waits_fall_into_the_columns_whose_ends_are_written() {
        let mut histogram = crate::runqlat::Histogram::default();
        // One below 16 us, two in [16, 64), one beyond 256 ms.
        [15_000, 16_000, 63_000, 300_000_000].iter().for_each(|&wait_ns| histogram.add(wait_ns));
        let mut findings = Findings::new(&[], &[], "eevdf", &[], 1);
        findings.runqueue_latency.insert("eevdf".into(), crate::runqlat::Latency::new(&histogram));
        let text = histograms(&findings, &["eevdf".into(), "missing".into()]);
        let cells: Vec<Vec<&str>> = text.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
        assert_eq!(cells[0][2..4], ["< 16 us", "< 64 us"]);
        assert_eq!(cells[0][10], ">= 256 ms");
        assert_eq!(
            (cells[2][1], cells[2][2], cells[2][3], cells[2][4], cells[2][10]),
            ("eevdf", "25.00", "50.00", "0.00", "25.00")
        );
        assert_eq!(cells.len(), 3);
    }

    #[test]
    fn an_interval_needs_rounds() {
        let estimate = Estimate { value: 1.234, low: 1.1, high: 1.5 };
        assert_eq!(interval(&estimate, 1), "1.23");
        assert_eq!(interval(&estimate, 5), "1.23 [1.10, 1.50]");
    }

    #[test]
    fn numbers_have_four_digits() {
        assert_eq!(
            [0.1234, 12.345, 123.45, 12345.6].map(number),
            ["0.123", "12.35", "123.5", "12346"].map(String::from)
        );
    }
}
