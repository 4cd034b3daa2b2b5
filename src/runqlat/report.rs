// SPDX-License-Identifier: GPL-2.0-only
//! What a measurement came to, for people (a picture and percentiles) and for programs (JSON).

use std::fmt::Write as _;

use serde::Serialize;

use super::counts::{Counts, DISTANCES};
use super::hist::{Histogram, RELATIVE_ERROR};
use super::longest::Longest;

/// Waits of one kind. Percentiles are within [`Report::relative_error`]; the rest is exact.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// How many waits.
    pub samples: u64,
    /// Mean, us.
    pub mean_us: f64,
    /// Median, us.
    pub p50_us: f64,
    /// 90th percentile, us.
    pub p90_us: f64,
    /// 99th percentile, us.
    pub p99_us: f64,
    /// 99.9th percentile, us.
    pub p999_us: f64,
    /// The longest, us.
    pub max_us: f64,
    /// Waits in [0, 1) us, [1, 2), [2, 4), [4, 8) ..., up to the last that is not empty.
    pub powers_of_two: Vec<u64>,
}

/// CPU changes between two runs of a task, by the nearest level the CPUs share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Migrations<T> {
    /// To another thread of the same core.
    pub smt: T,
    /// To another core of the same last-level cache.
    pub llc: T,
    /// To another last-level cache of the same NUMA node.
    pub node: T,
    /// To another NUMA node.
    pub numa: T,
}

/// Tasks that are waiting at the end: they are in no histogram, so a starved task shows here only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Waiting {
    /// How many.
    pub tasks: u64,
    /// Since how long the first of them has been waiting, us.
    pub oldest_us: f64,
}

/// A measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// All waits.
    #[serde(flatten)]
    pub total: Latency,
    /// Waits that began with a wakeup (or with the task's creation).
    pub wakeup: Latency,
    /// Waits that began with a preemption or a yield.
    pub preempt: Latency,
    /// CPU changes.
    pub migrations: Migrations<u64>,
    /// Tasks still waiting when the report was made.
    pub waiting: Waiting,
    /// The longest wait among tasks of nice 0 or less.
    pub longest: Longest,
    /// The longest wait among tasks of nice 1 or more, which may have to wait.
    pub longest_niced: Longest,
    /// How long was measured.
    pub seconds: f64,
    /// Waits whose begin or end was not seen, or that could not be recorded.
    pub missed: u64,
    /// Bound of a percentile's error relative to its value, from 1 us up.
    pub relative_error: f64,
    #[serde(skip)]
    histogram: Histogram,
}

impl Latency {
    /// What a histogram says.
    pub fn new(histogram: &Histogram) -> Self {
        let mut powers_of_two = histogram.powers_of_two();
        powers_of_two.truncate(powers_of_two.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1));
        Latency {
            samples: histogram.samples(),
            mean_us: histogram.mean_us(),
            p50_us: histogram.percentile_us(0.5),
            p90_us: histogram.percentile_us(0.9),
            p99_us: histogram.percentile_us(0.99),
            p999_us: histogram.percentile_us(0.999),
            max_us: histogram.max_ns as f64 / 1e3,
            powers_of_two,
        }
    }

    fn line(&self, label: &str) -> String {
        format!(
            "{label:<8}{:>10} samples  mean {}  p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
            self.samples,
            figure(self.mean_us),
            figure(self.p50_us),
            figure(self.p90_us),
            figure(self.p99_us),
            figure(self.p999_us),
            figure(self.max_us)
        )
    }
}

impl Migrations<u64> {
    fn new(counts: [u64; DISTANCES]) -> Self {
        let [smt, llc, node, numa] = counts;
        Migrations { smt, llc, node, numa }
    }

    /// Per second of `seconds` > 0.
    pub fn per_second(&self, seconds: f64) -> Migrations<f64> {
        let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        Migrations { smt: rate(self.smt), llc: rate(self.llc), node: rate(self.node), numa: rate(self.numa) }
    }
}

impl Report {
    /// What `counts` of `seconds` say.
    pub fn new(counts: &Counts, waiting: Waiting, seconds: f64) -> Self {
        let mut histogram = counts.waits[0].clone();
        histogram.merge(&counts.waits[1]);
        Report {
            total: Latency::new(&histogram),
            wakeup: Latency::new(&counts.waits[0]),
            preempt: Latency::new(&counts.waits[1]),
            migrations: Migrations::new(counts.migrations),
            waiting,
            longest: counts.longest[0].clone(),
            longest_niced: counts.longest[1].clone(),
            seconds,
            missed: counts.missed,
            relative_error: RELATIVE_ERROR,
            histogram,
        }
    }

    /// bpftrace's picture of all waits, then the percentiles in us, and what else was counted.
    pub fn render(&self) -> String {
        let mut out = self.histogram.picture();
        let rates = self.migrations.per_second(self.seconds);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "\n{}", self.total.line("total"));
        let _ = writeln!(out, "{}", self.wakeup.line("wakeup"));
        let _ = writeln!(out, "{}", self.preempt.line("preempt"));
        let _ = writeln!(
            out,
            "migrations/s  same core {:.0}  same LLC {:.0}  same node {:.0}  other node {:.0}",
            rates.smt, rates.llc, rates.node, rates.numa
        );
        for (label, longest) in [("longest", &self.longest), ("longest, nice > 0", &self.longest_niced)] {
            if longest.wait_us > 0.0 {
                let _ =
                    writeln!(out, "{label}: {} us, {}, nice {}", figure(longest.wait_us), longest.task, longest.nice);
            }
        }
        let _ = writeln!(
            out,
            "{:.1} s measured; percentiles in us, +-{:.1} %; {} waits missed; {} tasks still waiting, the first for {} us",
            self.seconds,
            100.0 * self.relative_error,
            self.missed,
            self.waiting.tasks,
            figure(self.waiting.oldest_us)
        );
        out
    }
}

/// A number with the digits it deserves.
fn figure(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts() -> Counts {
        let mut counts = Counts::default();
        (0..90).for_each(|_| counts.waits[0].add(10_000));
        (0..10).for_each(|_| counts.waits[1].add(3_000_000));
        counts.migrations = [0, 40, 20, 0];
        counts.missed = 2;
        counts
    }

    #[test]
    fn the_total_is_both_kinds_together() {
        let report = Report::new(&counts(), Waiting::default(), 10.0);
        assert_eq!((report.total.samples, report.wakeup.samples, report.preempt.samples), (100, 90, 10));
        assert!((report.total.mean_us - 309.0).abs() < 1e-9);
        assert!((report.total.p90_us / 10.0 - 1.0).abs() < RELATIVE_ERROR);
        assert!((report.total.p99_us / 3000.0 - 1.0).abs() < RELATIVE_ERROR);
        assert_eq!(report.total.max_us, 3000.0);
        assert_eq!(report.migrations.per_second(10.0), Migrations { smt: 0.0, llc: 4.0, node: 2.0, numa: 0.0 });
    }

    #[test]
    fn json_has_the_documented_keys() {
        let json = serde_json::to_value(Report::new(&counts(), Waiting::default(), 10.0)).unwrap();
        for key in ["samples", "mean_us", "p50_us", "p90_us", "p99_us", "p999_us", "max_us", "seconds", "missed"] {
            assert!(json[key].is_number(), "{key}");
        }
        assert_eq!(json["wakeup"]["samples"], 90);
        assert_eq!(json["preempt"]["samples"], 10);
        assert_eq!(json["migrations"]["node"], 20);
        assert_eq!(json["missed"], 2);
    }

    #[test]
    fn rendering_shows_picture_and_percentiles() {
        let text = Report::new(&counts(), Waiting { tasks: 1, oldest_us: 12_345.0 }, 10.0).render();
        assert!(text.starts_with("@usecs:\n[8, 16)"), "{text}");
        assert!(text.contains("total          100 samples  mean 309  p50 10.2"), "{text}");
        assert!(text.contains("same LLC 4  same node 2"), "{text}");
        assert!(text.contains("2 waits missed; 1 tasks still waiting, the first for 12345 us"), "{text}");
    }
}
