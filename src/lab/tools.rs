// SPDX-License-Identifier: GPL-2.0-only
//! The programs that make up workloads: where they are, and the figures in what they print. Each parser gives `None`
//! where the figure is missing; samples of real outputs are in the tests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::file;

/// A program, and where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// Its file's name.
    pub name: &'static str,
    /// Debian's package; none where there is none.
    pub package: Option<&'static str>,
}

/// stress-ng.
pub const STRESS_NG: Tool = Tool::of("stress-ng", "stress-ng");
/// hackbench.
pub const HACKBENCH: Tool = Tool::of("hackbench", "rt-tests");

impl Tool {
    /// A program of a Debian package.
    pub const fn of(name: &'static str, package: &'static str) -> Tool {
        Tool { name, package: Some(package) }
    }

    /// The program's file.
    ///
    /// # Errors
    /// It is not installed; says how to.
    pub fn check(&self) -> Result<PathBuf> {
        find(self.name).with_context(|| match self.package {
            Some(package) => format!("{} is not installed: apt install {package}", self.name),
            None => format!("{} is not on PATH, and Debian has no package of it: build it from source", self.name),
        })
    }

    /// For the record: the package's version, or the file's checksum where there is no package.
    pub fn version(&self) -> Option<String> {
        if let Some(package) = self.package {
            let asked =
                Command::new("dpkg-query").args(["-W", "-f", "${Package} ${Version}", package]).output().ok()?;
            if asked.status.success() {
                return Some(String::from_utf8_lossy(&asked.stdout).into_owned());
            }
        }
        let sum = file::sha256_of(&find(self.name)?).ok()?;
        Some(format!("sha256 {}", sum.get(..16)?))
    }
}

/// A program on PATH, or where Debian keeps those that are not.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let postgresql = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/bin".into()])
        .chain(postgresql.map(|version| version.path().join("bin")))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// The number that follows `label` in the first line that has it.
fn after(text: &str, label: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.trim_start().strip_prefix(label))?.trim_start();
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// bogo-ops/s (real time) of a stressor in stress-ng's YAML.
pub fn stress_rate(yaml: &str, stressor: &str) -> Option<f64> {
    let mut lines = yaml.lines().map(str::trim).skip_while(|line| *line != format!("- stressor: {stressor}"));
    lines.next()?;
    lines
        .take_while(|line| !line.starts_with("- stressor:"))
        .find_map(|line| line.strip_prefix("bogo-ops-per-second-real-time:")?.trim().parse().ok())
}

/// hackbench's time, s.
pub fn hackbench_s(text: &str) -> Option<f64> {
    after(text, "Time:")
}

/// perf bench's total time, s.
pub fn perf_bench_s(text: &str) -> Option<f64> {
    after(text, "Total time:")
}

/// The microseconds of one operation of perf bench.
pub fn perf_bench_us_per_op(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.trim_end().ends_with("usecs/op"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// sysbench's events/s, and the percentile of their times that it was asked for, ms.
pub fn sysbench(text: &str) -> Option<(f64, f64)> {
    let seconds = after(text, "total time:")?;
    let percentile = text.lines().find_map(|line| line.split_once("percentile:"))?.1.trim().parse().ok()?;
    (seconds > 0.0).then_some((after(text, "total number of events:")? / seconds, percentile))
}

/// The percentile `q` (0 to 1) of all threads' wakeup latencies in cyclictest's JSON, us. What went beyond the histogram
/// counts as the longest of its thread.
pub fn cyclictest_us(json: &str, q: f64) -> Option<f64> {
    let json: Value = serde_json::from_str(json).ok()?;
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for thread in json.get("thread")?.as_object()?.values() {
        let mut seen = 0;
        for (latency_us, count) in thread.get("histogram")?.as_object()? {
            let count = count.as_u64()?;
            *counts.entry(latency_us.parse().ok()?).or_default() += count;
            seen += count;
        }
        let beyond = thread.get("cycles")?.as_u64()?.saturating_sub(seen);
        *counts.entry(thread.get("max")?.as_u64()?).or_default() += beyond;
    }
    let rank = ((q * counts.values().sum::<u64>() as f64).ceil() as u64).max(1);
    let mut below = 0;
    let at = counts.iter().find(|(_, count)| {
        below += **count;
        below >= rank
    });
    at.map(|(latency_us, _)| *latency_us as f64)
}

/// Reads/s and the 99th percentile of their latency, us, in fio's JSON (of one group).
pub fn fio_reads(json: &str) -> Option<(f64, f64)> {
    // Warnings may come before it.
    let json: Value = serde_json::from_str(&json[json.find('{')?..]).ok()?;
    let read = json.get("jobs")?.get(0)?.get("read")?;
    let p99_ns = read.get("clat_ns")?.get("percentile")?.get("99.000000")?.as_f64()?;
    Some((read.get("iops")?.as_f64()?, p99_ns / 1e3))
}

/// wrk's requests/s and 99th percentile, us.
pub fn wrk(text: &str) -> Option<(f64, f64)> {
    let p99 = text.lines().find_map(|line| line.trim().strip_prefix("99%"))?.trim();
    let unit = p99.find(|c: char| c.is_ascii_alphabetic())?;
    let factor = match &p99[unit..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return None,
    };
    Some((after(text, "Requests/sec:")?, p99[..unit].parse::<f64>().ok()? * factor))
}

/// pgbench's transactions/s, without the time to connect.
pub fn pgbench_tps(text: &str) -> Option<f64> {
    after(text, "tps =")
}

/// The times of transactions in pgbench's logs, us: without the first `skip` of each client, which fill its caches.
pub fn pgbench_us(log: &str, skip: u64) -> Vec<f64> {
    let times = log.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let number: u64 = words.next()?.parse().ok()?;
        let time_us = words.next()?.parse().ok()?;
        (number > skip).then_some(time_us)
    });
    times.collect()
}

/// A percentile ("50.0", "99.0") in a section of schbench's last report, us.
pub fn schbench_us(text: &str, section: &str, percentile: &str) -> Option<f64> {
    let from = text.rfind(&format!("{section} percentiles"))?;
    let label = format!("{percentile}th:");
    let line = text[from..].lines().skip(1).take(5).find_map(|line| line.split_once(label.as_str()))?;
    line.1.split_whitespace().next()?.parse().ok()
}

/// schbench's requests/s.
pub fn schbench_rps(text: &str) -> Option<f64> {
    after(text, "average rps:")
}

#[cfg(test)]
mod tests;
