// SPDX-License-Identifier: GPL-2.0-only
//! A study as a page: one HTML file that needs nothing else, the same in Markdown, and the raw cells.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::plan::Key;
use super::plot::{self, Axis, Curve, Ratio};
use super::show;
use super::study::{Record, Study};
use crate::agent::imitation::situation;
use crate::agent::metrics::LearningPoint;
use crate::file;
use crate::lab::statistics::Estimate;
use crate::policy::host;
use crate::policy::{RL_F_turn, RL_MODE_DRAW, rl_slot, rl_weights};
use crate::process::print;
use crate::runqlat::Latency;
use crate::suite::summary::Findings;
use crate::suite::table::{legend, number};
use crate::suite::workload::Better;
use crate::table::{Column, to_parquet};

/// Options of `experiment report`.
#[derive(Clone, Debug, clap::Args)]
pub struct ReportArgs {
    /// The study's folder.
    #[arg(value_name = "DIR")]
    pub study: PathBuf,
    /// Where report.html, report.md, cells.jsonl and figures.parquet go [default: the study's folder]
    #[arg(long, value_name = "DIR")]
    pub out_dir: Option<PathBuf>,
    /// Heat maps of what those who learned knew at the end (under each workload, the first seed), over these two features; may
    /// be given more than once. `scx_rl checkpoint show` has their
    /// names.
    #[arg(long, value_name = "X,Y", value_parser = feature_pair, default_values = ["other_queued,home_queued", "move_cost,home_queued"])]
    pub heat: Vec<(usize, usize)>,
}

/// A number of a point.
type Part = fn(&LearningPoint) -> f64;

/// What the learning curves are of.
const CURVES: [(&str, Part); 7] = [
    ("reward, ms", |p| p.reward_ms),
    ("policy loss", |p| p.policy_loss),
    ("error of the baseline, squared", |p| p.value_loss),
    ("entropy, nats", |p| p.entropy),
    ("KL divergence of an update, nats", |p| p.kl),
    ("share migrated", |p| p.migrated_share),
    ("generation published", |p| p.generation as f64),
];

/// A cell of a heat map is that wide, in units of features; and so many situations are averaged for it.
const HEAT_STEP: u8 = 4;
const HEAT_SITUATIONS: usize = 100;

/// The subcommand `experiment report`.
///
/// # Errors
/// The folder has no study, or a damaged one; or files cannot be written.
pub fn run(args: &ReportArgs) -> Result<()> {
    let study = Study::open(&args.study)?;
    let folder = args.out_dir.clone().unwrap_or_else(|| args.study.clone());
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let mut lines = String::new();
    let cells = study.cells()?;
    for record in &cells {
        lines += &(serde_json::to_string(record)? + "\n");
    }
    for (name, bytes) in [
        ("report.html", html(&study, &cells, &args.heat)?.into_bytes()),
        ("report.md", show::text(&study)?.into_bytes()),
        ("cells.jsonl", lines.into_bytes()),
        ("figures.parquet", figures(&cells)?),
    ] {
        let path = folder.join(name);
        file::replace(&path, &bytes).with_context(|| format!("writing {}", path.display()))?;
        print(&format!("{}\n", path.display()))?;
    }
    Ok(())
}

/// A table of all figures of all cells, a row each. A cell that failed has one row, without a value.
fn figures(cells: &[Record]) -> Result<Vec<u8>> {
    let failed = (String::new(), None);
    let rows: Vec<(&Record, (String, Option<f64>))> = cells
        .iter()
        .flat_map(|cell| {
            let figures = cell.figures.iter().map(|(name, value)| (name.clone(), Some(*value)));
            let none = cell.figures.is_empty().then(|| failed.clone());
            figures.chain(none).map(move |figure| (cell, figure))
        })
        .collect();
    let text = |of: fn(&Record) -> &str| Column::Text(rows.iter().map(|(cell, _)| of(cell).to_string()).collect());
    let seeds = rows.iter().map(|(cell, _)| i64::try_from(cell.key.seed)).collect::<Result<_, _>>();
    to_parquet(&[
        ("topology", text(|cell| &cell.key.topology)),
        ("scheduler", text(|cell| &cell.key.scheduler)),
        ("workload", text(|cell| &cell.key.workload)),
        ("seed", Column::Whole(seeds.context("a seed is beyond 2^63")?)),
        ("round", Column::Whole(rows.iter().map(|(cell, _)| cell.key.round as i64).collect())),
        ("figure", Column::Text(rows.iter().map(|(_, (name, _))| name.clone()).collect())),
        ("value", Column::Real(rows.iter().map(|(_, (_, value))| *value).collect())),
        ("complaint", text(|cell| cell.complaint.as_deref().unwrap_or_default())),
        ("kernel", text(|cell| &cell.kernel)),
        ("version", text(|cell| &cell.version)),
        ("spec_sha256", text(|cell| &cell.spec_sha256)),
        ("ended_at", text(|cell| &cell.ended_at)),
    ])
}

/// What the numbers of a scheduler mean, in words.
fn verdict(name: &str, baseline: &str, ratio: &Estimate, rounds: usize) -> String {
    let percent = |ratio: f64| format!("{:.1} %", (ratio - 1.0).abs() * 100.0);
    if rounds < 2 {
        return format!("{name} has {:.2} of {baseline}; one round says nothing of how sure that is.", ratio.value);
    }
    let interval = format!("{:.2} [{:.2}, {:.2}]", ratio.value, ratio.low, ratio.high);
    if ratio.low > 1.0 {
        format!("{name} is better than {baseline}: {interval}, by {} at least.", percent(ratio.low))
    } else if ratio.high < 1.0 {
        format!("{name} is worse than {baseline}: {interval}, by {} at least.", percent(ratio.high))
    } else {
        format!("{name} and {baseline} do not differ by more than the noise: {interval}.")
    }
}

/// All verdicts on one machine.
fn verdicts(findings: &Findings, names: &[String], baseline: &str, rounds: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for name in names.iter().filter(|name| *name != baseline) {
        let Some(overall) = findings.geometric_mean.get(name) else {
            lines.push(format!("{name} has no workload in common with {baseline}."));
            continue;
        };
        let worst = format!(" Its worst figure is {} ({:.2}).", overall.worst, overall.worst_ratio);
        lines.push(verdict(name, baseline, &overall.ratio, rounds) + &worst);
    }
    match findings.failures.len() {
        0 => {}
        failed => lines.push(format!("{failed} cells failed; what is said above leaves them out.")),
    }
    lines
}

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1b1b; --ground: #fdfdfd; --line: #d0d0d0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e4; --ground: #16181b; --line: #44484d; } }
body { font: 16px/1.5 sans-serif; color: var(--ink); background: var(--ground); max-width: 64em; margin: 2em auto; padding: 0 1em; }
h1, h2, h3 { line-height: 1.2; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { border-bottom: 1px solid var(--line); padding: .25em .7em; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; }
svg { max-width: 100%; height: auto; }
svg text { fill: var(--ink); }
svg [stroke=\"#000000\"] { stroke: var(--ink); }
.worse { color: #d55e00; } .better { color: #009e73; } .dim { opacity: .7; }
";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn html(study: &Study, cells: &[Record], heat: &[(usize, usize)]) -> Result<String> {
    let spec = study.spec();
    let (names, rounds) = (spec.names(), spec.all_rounds());
    let (done, all) = study.progress();
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\">\n<link rel=\"icon\" href=\"data:,\">\n<title>{}</title>\n<style>{STYLE}</style></head><body>\n\
         <h1>{}</h1>\n<p>{}</p>\n",
        escape(&spec.name),
        escape(&spec.name),
        escape(&spec.about)
    );
    // Writing to a String cannot fail.
    if done < all {
        let _ = writeln!(out, "<p class=\"worse\"><b>Incomplete</b>: {done} of {all} cells.</p>");
    }
    for (topology, findings) in show::findings(study)? {
        let _ = writeln!(out, "<h2>{}</h2>\n<ul>", escape(&topology));
        for line in verdicts(&findings, &names, &spec.baseline, rounds) {
            let _ = writeln!(out, "<li>{}</li>", escape(&line));
        }
        out += "</ul>\n";
        out += &pictures(&findings, &names, &spec.baseline)?;
        out += &learning(study, cells, &topology, heat)?;
        let _ = writeln!(
            out,
            "<h3>All figures</h3>\n<div class=\"wide\">{}</div>",
            table(&findings, &names, &spec.baseline, rounds)
        );
        let _ = writeln!(out, "<p class=\"dim\">{}</p>", legend(rounds));
        for failure in &findings.failures {
            let words = format!(
                "round {}, {}, {}: {}",
                failure.round + 1,
                failure.scheduler,
                failure.workload,
                failure.complaint
            );
            let _ = writeln!(out, "<p class=\"worse\">FAILED {}</p>", escape(&words));
        }
    }
    let provenance = study.provenance();
    let _ = writeln!(
        out,
        "<h2>Where it comes from</h2>\n<ul><li>scx_rl {}</li><li>begun {}</li><li>specification: SHA-256 {}</li><li>{} rounds with \
         each of {} seeds</li></ul>\n<details><summary>The specification</summary><pre>{}</pre></details>\n</body></html>",
        escape(&provenance.version),
        escape(&provenance.created_at),
        escape(&provenance.spec_sha256),
        spec.rounds,
        spec.seeds.len(),
        escape(&fs::read_to_string(study.path("spec.toml")).context("reading the specification")?)
    );
    Ok(out)
}

/// The pictures of one machine.
fn pictures(findings: &Findings, names: &[String], baseline: &str) -> Result<String> {
    // The baseline is the first, which is grey.
    let order: Vec<&String> =
        names.iter().filter(|name| *name == baseline).chain(names.iter().filter(|name| *name != baseline)).collect();
    let of = |ratio: &dyn Fn(&str) -> Option<Estimate>| -> Vec<Ratio> {
        let row = |(scheduler, name): (usize, &&String)| {
            Some(Ratio { label: (*name).clone(), scheduler, ratio: ratio(name)? })
        };
        order.iter().enumerate().skip(1).filter_map(row).collect()
    };
    let mut out = String::new();
    let overall = of(&|name| Some(findings.geometric_mean.get(name)?.ratio));
    if !overall.is_empty() {
        let svg = plot::ratios(
            &overall,
            &format!("geometric mean of all workloads, as a ratio to {baseline}: more is better"),
        )?;
        let _ = writeln!(out, "<h3>Overall</h3>\n{svg}");
    }
    let mut rows = Vec::new();
    for workload in &findings.workloads {
        let mine = of(&|name| workload.ratio.get(name).copied());
        rows.extend(mine.into_iter().map(|row| Ratio { label: format!("{}: {}", workload.name, row.label), ..row }));
    }
    if !rows.is_empty() {
        let svg = plot::ratios(&rows, &format!("by workload, as a ratio to {baseline}: more is better"))?;
        let _ = writeln!(out, "<h3>By workload</h3>\n{svg}");
    }
    let waits: Vec<(&String, &Latency)> =
        order.iter().filter_map(|name| Some((*name, findings.runqueue_latency.get(*name)?))).collect();
    if !waits.is_empty() {
        out += &latencies(&waits)?;
    }
    Ok(out)
}

/// What was learned, on one machine: the course of it, and the policies at its end. Empty where nothing learned.
fn learning(study: &Study, cells: &[Record], topology: &str, heat: &[(usize, usize)]) -> Result<String> {
    let mut groups: BTreeMap<(&str, &str), Vec<&Record>> = BTreeMap::new();
    for record in cells.iter().filter(|record| record.key.topology == topology && !record.learning.is_empty()) {
        groups.entry((&record.key.scheduler, &record.key.workload)).or_default().push(record);
    }
    let mut out = String::new();
    if groups.is_empty() {
        return Ok(out);
    }
    out += "<h3>Learning</h3>\n<p>Means over seeds and rounds.</p>\n";
    for (description, value) in CURVES {
        let curves = groups.iter().map(|((scheduler, workload), records)| {
            let points = (0..records.iter().map(|record| record.learning.len()).min().unwrap_or(0)).map(|i| {
                let sum: f64 = records.iter().map(|record| value(&record.learning[i])).sum();
                (records[0].learning[i].at_s, sum / records.len() as f64)
            });
            Curve { label: format!("{scheduler}: {workload}"), points: points.collect() }
        });
        out += &plot::curves(
            &curves.collect::<Vec<_>>(),
            &Axis { description: "since it began, s", label: &|s: &f64| format!("{s:.0}"), labels: 10 },
            &Axis { description, label: &|v: &f64| format!("{v:.3}"), labels: 6 },
            1,
        )?;
        out += "\n";
    }
    for records in groups.values() {
        out += &maps(study, &records[0].key, heat)?;
    }
    Ok(out)
}

/// The policy that a cell's agent had learned at its end.
fn maps(study: &Study, key: &Key, heat: &[(usize, usize)]) -> Result<String> {
    let name = escape(&format!("{}: {}, seed {}", key.scheduler, key.workload, key.seed));
    let weights = match study.checkpoint(key) {
        Ok(None) => return Ok(String::new()),
        Ok(Some(checkpoint)) => checkpoint.publishable().map_err(Into::into),
        Err(why) => Err(why),
    };
    let weights = match weights {
        Ok(weights) => weights,
        Err(why) => return Ok(format!("<p class=\"worse\">No maps of {name}: {}</p>\n", escape(&format!("{why:#}")))),
    };
    let mut out = format!("<p>The policy of {name} at the end: mean over random values of the other features.</p>\n");
    let names = host::feature_names();
    for &(x, y) in heat {
        let rows = partial_dependence(&weights, x, y);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}", plot::heat_map(&rows, HEAT_STEP, names[x], names[y])?);
    }
    Ok(out)
}

/// The probability to migrate where two features have each of their values: the mean over the others (Friedman, "Greedy
/// function approximation", 2001, section 8.2). `[y][x]`, in steps of [`HEAT_STEP`].
fn partial_dependence(weights: &rl_weights, x: usize, y: usize) -> Vec<Vec<f64>> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let situations: Vec<_> = (0..HEAT_SITUATIONS).map(|_| situation(&mut rng)).collect();
    let slot = rl_slot { mode: RL_MODE_DRAW, weights: *weights, ..Default::default() };
    let at = |x_value: u8, y_value: u8| {
        let sum: f64 = situations
            .iter()
            .map(|features| {
                let mut features = *features;
                (features[x], features[y]) = (x_value, y_value);
                host::p_migrate(&slot, &features)
            })
            .sum();
        sum / situations.len() as f64
    };
    let values = || (0..128u8).step_by(usize::from(HEAT_STEP));
    values().map(|y| values().map(|x| at(x, y)).collect()).collect()
}

/// Two features by name, such as `home_queued,other_queued`.
fn feature_pair(text: &str) -> Result<(usize, usize), String> {
    let names = host::feature_names();
    let find = |name: &str| {
        let place = names.iter().position(|feature| *feature == name);
        place.ok_or_else(|| format!("there is no feature {name:?}; there are {}", names.join(", ")))
    };
    if text.split(',').any(|name| name == names[RL_F_turn as usize]) {
        return Err("the maps are of moves between domains, where no turn is judged: choose another feature".into());
    }
    match text.split_once(',') {
        Some((x, y)) if x != y => Ok((find(x)?, find(y)?)),
        _ => Err("not two features with a comma between, such as other_queued,home_queued".into()),
    }
}

/// A time in microseconds, short.
fn short_us(us: f64) -> String {
    match us {
        us if us < 1.0 => format!("{us:.1} us"),
        us if us < 1000.0 => format!("{us:.0} us"),
        us if us < 1e6 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.0} s", us / 1e6),
    }
}

/// How long tasks waited for a CPU: which share of waits was how long, and percentiles.
fn latencies(waits: &[(&String, &Latency)]) -> Result<String> {
    let shares = waits.iter().map(|(name, waits)| {
        let share = |count: &u64| 100.0 * *count as f64 / waits.samples.max(1) as f64;
        // The octave n > 0 is [2^(n-1), 2^n) us; a point is in its middle.
        let points = waits.powers_of_two.iter().enumerate().map(|(octave, count)| (octave as f64 - 0.5, share(count)));
        Curve { label: (*name).clone(), points: points.collect() }
    });
    let power = |log: &f64| short_us(2f64.powf(*log));
    let svg = plot::curves(
        &shares.collect::<Vec<_>>(),
        &Axis { description: "wait for a CPU", label: &power, labels: 12 },
        &Axis { description: "share of waits", label: &|share: &f64| format!("{share:.0} %"), labels: 6 },
        0,
    )?;
    let percentiles = waits.iter().map(|(name, waits)| {
        let values = [(0.5, waits.p50_us), (0.9, waits.p90_us), (0.99, waits.p99_us), (0.999, waits.p999_us)];
        let points = values.iter().map(|(q, us)| (-(1.0f64 - q).log10(), us.max(0.1).log2()));
        Curve { label: (*name).clone(), points: points.collect() }
    });
    let nines = |x: &f64| format!("{:.1} %", 100.0 * (1.0 - 10f64.powf(-x)));
    let curve = plot::curves(
        &percentiles.collect::<Vec<_>>(),
        &Axis { description: "percentile", label: &nines, labels: 6 },
        &Axis { description: "wait for a CPU", label: &power, labels: 8 },
        0,
    )?;
    Ok(format!("<h3>Runqueue latency of all tasks</h3>\n{svg}\n{curve}\n"))
}

fn table(findings: &Findings, names: &[String], baseline: &str, rounds: usize) -> String {
    let others: Vec<&String> = names.iter().filter(|name| *name != baseline).collect();
    let mut out = format!("<table><tr><th>figure</th><th>{}</th>", escape(baseline));
    // Writing to a String cannot fail.
    for name in &others {
        let _ = write!(out, "<th>{}</th>", escape(name));
    }
    out += "</tr>\n";
    for workload in &findings.workloads {
        for row in &workload.figures {
            let better = if row.figure.better == Better::Higher { "higher" } else { "lower" };
            let mark = if row.figure.counts { "" } else { ", not counted" };
            let base = row
                .schedulers
                .get(baseline)
                .map_or("-".into(), |base| format!("{} {}", number(base.median), row.figure.unit));
            let _ = write!(
                out,
                "<tr><td title=\"{better} is better{mark}\">{} {}</td><td>{}</td>",
                escape(&workload.name),
                row.figure.name,
                escape(&base)
            );
            for name in &others {
                let ratio = row.schedulers.get(*name).and_then(|measured| measured.ratio);
                out += &ratio.map_or("<td>-</td>".into(), |ratio| cell(&ratio, rounds, row.figure.counts));
            }
            out += "</tr>\n";
        }
    }
    out + "</table>\n"
}

/// Green and red are for what counts.
fn cell(ratio: &Estimate, rounds: usize, counts: bool) -> String {
    if rounds < 2 {
        return format!("<td>{:.2}</td>", ratio.value);
    }
    let class = if !counts {
        " class=\"dim\""
    } else if ratio.low > 1.0 {
        " class=\"better\""
    } else if ratio.high < 1.0 {
        " class=\"worse\""
    } else {
        ""
    };
    format!("<td{class}>{ratio:.2}</td>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_follows_from_the_interval() {
        let of = |low, high| verdict("a", "b", &Estimate { value: (low + high) / 2.0, low, high }, 5);
        assert_eq!(of(1.1, 1.3), "a is better than b: 1.20 [1.10, 1.30], by 10.0 % at least.");
        assert_eq!(of(0.5, 0.9), "a is worse than b: 0.70 [0.50, 0.90], by 10.0 % at least.");
        assert!(of(0.9, 1.2).contains("do not differ by more than the noise"));
        assert!(
            verdict("a", "b", &Estimate { value: 2.0, low: 2.0, high: 2.0 }, 1).contains("says nothing of how sure")
        );
    }

    #[test]
    fn a_map_shows_what_the_policy_does_over_two_features() {
        let (x, y) = feature_pair("other_idle,home_queued").unwrap();
        for wrong in ["other_idle", "other_idle,other_idle", "other_idle,nothing", "turn,home_queued"] {
            assert!(feature_pair(wrong).is_err(), "{wrong}");
        }
        // It migrates the more, the more CPUs are idle there.
        let mut layers = crate::agent::imitation::actor().unwrap();
        for array in [&mut layers.w1, &mut layers.b1, &mut layers.w2, &mut layers.b2] {
            array.fill(0.0);
        }
        layers.w1[x * crate::policy::RL_HIDDEN as usize] = 1.0;
        (layers.w2[0], layers.b2[0]) = (3.0, -3.0);
        let rows = partial_dependence(&crate::agent::quantise::check(&layers).unwrap(), x, y);
        assert_eq!((rows.len(), rows[0].len()), (32, 32));
        assert!(rows.iter().all(|row| row[0] < 0.1 && row[31] > 0.9 && row.is_sorted()));
        assert_eq!(plot::heat_map(&rows, HEAT_STEP, "x", "y").unwrap().matches("<rect").count(), 32 * 32 + 50);
    }

    #[test]
    fn times_are_short() {
        assert_eq!([0.5, 16.0, 1024.0, 2e6].map(short_us), ["0.5 us", "16 us", "1 ms", "2 s"].map(String::from));
    }
}
