// SPDX-License-Identifier: GPL-2.0-only
//! `scx_rl locality` as a workload: moves between caches have a price, also where there are no caches.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Site, found, read};

/// Bursts of 2 ms, far longer than what a switch takes under emulation, and a cost as long as a burst. A third of the time is
/// left for costs, and for CPUs that an emulator does not get.
const OPTIONS: &[&str] = &["--burst-us", "2000", "--load", "0.65", "--warm-up", "3", "--seconds", "8"];
/// Workers for each CPU: enough that somebody waits.
const WORKERS: usize = 6;
/// How fast the loop of arithmetic is, iterations per us: of one measurement, so that a burst is the same work in every cell.
const SPEED_FILE: &str = "locality-speed";

fn scx_rl(args: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("finding scx_rl's own program file")?);
    command.arg("locality").args(args);
    Ok(command)
}

fn report(site: &Site<'_>, command: &mut Command) -> Result<Value> {
    site.run("locality", command.args(["--out", "locality.json"]))?;
    serde_json::from_str(&read(&site.path("locality.json"))?).context("reading what scx_rl locality wrote")
}

fn number(report: &Value, pointer: &str) -> Result<f64> {
    found(report.pointer(pointer).and_then(Value::as_f64), "scx_rl locality", &report.to_string())
}

pub fn prepare(site: &Site<'_>) -> Result<()> {
    if site.path(SPEED_FILE).exists() {
        return Ok(());
    }
    let report = report(site, &mut scx_rl(&["--cost-us", "0", "--seconds", "0.1", "--warm-up", "0"])?)?;
    ensure!(report.pointer("/caches/1").is_some(), "there is one last-level cache only, so no move costs anything");
    let speed = number(&report, "/iterations_per_us")?;
    fs::write(site.path(SPEED_FILE), speed.to_string()).context("writing the speed of the loop")
}

fn run(site: &Site<'_>, costs: &[&str]) -> Result<Vec<f64>> {
    let mut command = scx_rl(OPTIONS)?;
    command.args(costs).args(["--iterations-per-us", &read(&site.path(SPEED_FILE))?]);
    command.args(["--workers", &(WORKERS * site.cpus).to_string(), "--seed", &site.seed.to_string()]);
    let report = report(site, &mut command)?;
    let figures = ["/response/mean_us", "/response/p99_us", "/bursts_per_s", "/backlog_at_end"];
    figures.iter().map(|pointer| number(&report, pointer)).collect()
}

pub fn free(site: &Site<'_>) -> Result<Vec<f64>> {
    run(site, &["--cost-us", "0"])
}

pub fn dear(site: &Site<'_>) -> Result<Vec<f64>> {
    run(site, &["--cost-us", "2000"])
}

pub fn half(site: &Site<'_>) -> Result<Vec<f64>> {
    run(site, &["--cost-us", "2000", "--costly", "0.5"])
}
