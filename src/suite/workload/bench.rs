// SPDX-License-Identifier: GPL-2.0-only
//! Workloads that are one benchmark program.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Site, compile, found, read};
use crate::lab::tools;

/// Seconds of those that run for a time.
const SECONDS: &str = "4";
/// Messages of each sender of hackbench: 2 to 3 s on four emulated CPUs.
const MESSAGES: &str = "300";

fn hackbench(site: &Site<'_>, mode: &str) -> Result<Vec<f64>> {
    let ran = site.run("hackbench", Command::new("hackbench").args([mode, "-g", "4", "-l", MESSAGES]))?;
    Ok(vec![found(tools::hackbench_s(&ran.text), "hackbench", &ran.text)?])
}

pub fn hackbench_pipe(site: &Site<'_>) -> Result<Vec<f64>> {
    hackbench(site, "-p")
}

pub fn hackbench_thread(site: &Site<'_>) -> Result<Vec<f64>> {
    hackbench(site, "-T")
}

pub fn perf_messaging(site: &Site<'_>) -> Result<Vec<f64>> {
    let args = ["bench", "sched", "messaging", "-g", "4", "-l", "100"];
    let ran = site.run("perf", Command::new("perf").args(args))?;
    Ok(vec![found(tools::perf_bench_s(&ran.text), "perf", &ran.text)?])
}

pub fn perf_pipe(site: &Site<'_>) -> Result<Vec<f64>> {
    let ran = site.run("perf", Command::new("perf").args(["bench", "sched", "pipe", "-l", "12000"]))?;
    Ok(vec![found(tools::perf_bench_us_per_op(&ran.text), "perf", &ran.text)?])
}

fn stress(site: &Site<'_>, stressor: &str) -> Result<Vec<f64>> {
    let mut command = Command::new("stress-ng");
    command.args([&format!("--{stressor}"), &site.cpus.to_string(), "--timeout", SECONDS, "--metrics"]);
    command.args(["--seed", &site.seed.to_string(), "--yaml", "stress-ng.yaml", "--temp-path"]).arg(&site.folder);
    site.run("stress-ng", &mut command)?;
    let yaml = read(&site.path("stress-ng.yaml"))?;
    Ok(vec![found(tools::stress_rate(&yaml, stressor), "stress-ng", &yaml)?])
}

pub fn stress_switch(site: &Site<'_>) -> Result<Vec<f64>> {
    stress(site, "switch")
}

pub fn stress_fork(site: &Site<'_>) -> Result<Vec<f64>> {
    stress(site, "fork")
}

pub fn sysbench_threads(site: &Site<'_>) -> Result<Vec<f64>> {
    let mut command = Command::new("sysbench");
    command.args(["threads", "--percentile=99", "--thread-yields=100", "--thread-locks=4"]);
    command.args([format!("--time={SECONDS}"), format!("--threads={}", 4 * site.cpus)]).arg("run");
    let ran = site.run("sysbench", &mut command)?;
    let (events_per_s, p99_ms) = found(tools::sysbench(&ran.text), "sysbench", &ran.text)?;
    Ok(vec![events_per_s, p99_ms])
}

pub fn cyclictest(site: &Site<'_>) -> Result<Vec<f64>> {
    // More messages than it can send while it is needed.
    let mut load = site.start("hackbench", Command::new("hackbench").args(["-p", "-g", "1", "-l", "1000000"]))?;
    site.stop.sleep_until(Instant::now() + Duration::from_millis(500), || Ok(()))?;
    let mut command = Command::new("cyclictest");
    command.args(["--policy", "other", "-t", "2", "-i", "1000", "-D", SECONDS, "-q", "-h", "60000"]);
    command.arg("--json=cyclictest.json");
    site.run("cyclictest", &mut command)?;
    site.still_runs("hackbench", &mut load)?;
    load.kill();
    let json = read(&site.path("cyclictest.json"))?;
    let wake_us = |q| found(tools::cyclictest_us(&json, q), "cyclictest", &json);
    Ok(vec![wake_us(0.99)?, wake_us(0.5)?])
}

/// schbench's output with so many workers in each of its two groups.
fn run_schbench(site: &Site<'_>, workers: usize) -> Result<String> {
    let mut command = Command::new("schbench");
    command.args(["-m", "2", "-n", "1", "-r", "5", "-i", "1000", "-t", &workers.max(1).to_string()]);
    Ok(site.run("schbench", &mut command)?.text)
}

/// p99 of wakeups and requests, requests per second, median of wakeups.
fn schbench_figures(text: &str) -> Result<Vec<f64>> {
    let us = |section, percentile| found(tools::schbench_us(text, section, percentile), "schbench", text);
    Ok(vec![
        us("Wakeup Latencies", "99.0")?,
        us("Request Latencies", "99.0")?,
        found(tools::schbench_rps(text), "schbench", text)?,
        us("Wakeup Latencies", "50.0")?,
    ])
}

pub fn schbench(site: &Site<'_>) -> Result<Vec<f64>> {
    schbench_figures(&run_schbench(site, site.cpus)?)
}

pub fn schbench_compile(site: &Site<'_>) -> Result<Vec<f64>> {
    let mut make = compile::start(site)?;
    site.stop.sleep_until(Instant::now() + Duration::from_millis(500), || Ok(()))?;
    let text = run_schbench(site, site.cpus / 2)?;
    site.still_runs("make", &mut make)?;
    make.kill();
    schbench_figures(&text)
}

pub fn schbench_hogs(site: &Site<'_>) -> Result<Vec<f64>> {
    let mut command = Command::new("stress-ng");
    command.args(["--cpu", &site.cpus.to_string(), "--cpu-method", "int64", "--temp-path"]).arg(&site.folder);
    let mut hogs = site.start("stress-ng", &mut command)?;
    site.stop.sleep_until(Instant::now() + Duration::from_millis(500), || Ok(()))?;
    let text = run_schbench(site, site.cpus / 2)?;
    site.still_runs("stress-ng", &mut hogs)?;
    hogs.kill();
    let us = |percentile| found(tools::schbench_us(&text, "Wakeup Latencies", percentile), "schbench", &text);
    Ok(vec![us("99.0")?, found(tools::schbench_rps(&text), "schbench", &text)?, us("50.0")?])
}
