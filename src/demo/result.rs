// SPDX-License-Identifier: GPL-2.0-only
//! What the demo found: medians over the rounds, one table, a few sentences that follow from the numbers, and JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::phase::{Mode, Outcome};
use crate::lab::statistics::median;
use crate::lab::system::Machine;
use crate::runqlat::Migrations;

/// A mode's medians over the rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Runqueue latency of all tasks, us.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// The workload's rate, in `throughput_unit`.
    pub throughput: f64,
    /// Over EEVDF's.
    pub throughput_ratio: f64,
    /// CPU changes.
    pub migrations_per_s: Migrations<f64>,
    /// Decisions taken in all rounds together; none under EEVDF.
    pub decisions: Option<u64>,
    /// Decisions logged in all rounds together.
    pub events: Option<u64>,
    /// Decisions that were to be logged but found the ring buffer full.
    pub dropped: Option<u64>,
    /// The rounds, as measured.
    pub rounds: Vec<Outcome>,
}

/// The whole demo. `eevdf`, `heuristic`, `random`, `frozen` are keys of the JSON.
#[derive(Debug, Serialize)]
pub struct Demo {
    /// Of scx_rl.
    pub version: &'static str,
    /// The running kernel.
    pub kernel: String,
    /// Its CPUs.
    pub topology: Machine,
    /// Of learning, workload and the order of phases.
    pub seed: u64,
    /// Rounds.
    pub rounds: usize,
    /// Measured, each phase.
    pub phase_seconds: f64,
    /// Learned.
    pub learn_seconds: f64,
    /// The commands.
    pub workload: Vec<String>,
    /// What `throughput` is.
    pub throughput_unit: &'static str,
    /// Policies that were published while learning.
    pub generations_published: u64,
    /// Decisions that were logged while learning.
    pub events: u64,
    /// Of these lost.
    pub events_dropped: u64,
    /// Mean reward of the first quarter of learning, ms.
    pub reward_first_quarter_ms: Option<f64>,
    /// Mean reward of the last quarter, ms.
    pub reward_last_quarter_ms: Option<f64>,
    /// Is the last larger? Rewards are better the larger.
    pub reward_improved: Option<bool>,
    /// The learner's own summary.
    pub learn: Value,
    /// The modes.
    #[serde(flatten)]
    pub modes: BTreeMap<&'static str, Row>,
    /// Did the kernel log no fault?
    pub dmesg_clean: bool,
    /// The faults it logged.
    pub dmesg_lines: Vec<String>,
    /// How long all took.
    pub total_seconds: f64,
}

/// A number of a scheduler's summary, by the path of its keys.
pub fn number(summary: &Value, path: &[&str]) -> Option<f64> {
    path.iter().try_fold(summary, |value, key| value.get(key))?.as_f64()
}

/// The rows of all modes.
pub fn rows(outcomes: &[(Mode, Outcome)]) -> BTreeMap<&'static str, Row> {
    let of = |mode: Mode| outcomes.iter().filter(move |(other, _)| *other == mode).map(|(_, outcome)| outcome);
    let base = median(of(Mode::Eevdf).map(|outcome| outcome.throughput));
    Mode::ALL.into_iter().map(|mode| (mode.name(), row(of(mode).cloned().collect(), base))).collect()
}

fn row(rounds: Vec<Outcome>, base: f64) -> Row {
    let of = |value: &dyn Fn(&Outcome) -> f64| median(rounds.iter().map(value));
    let throughput = of(&|o| o.throughput);
    // Sums over the rounds; none if no round has the number.
    let count = |paths: &[&[&str]]| {
        let found: Vec<f64> = rounds
            .iter()
            .filter_map(|o| o.summary.as_ref())
            .flat_map(|summary| paths.iter().filter_map(|path| number(summary, path)))
            .collect();
        (!found.is_empty()).then(|| found.iter().sum::<f64>() as u64)
    };
    Row {
        p50_us: of(&|o| o.latency.total.p50_us),
        p90_us: of(&|o| o.latency.total.p90_us),
        p99_us: of(&|o| o.latency.total.p99_us),
        p999_us: of(&|o| o.latency.total.p999_us),
        throughput,
        throughput_ratio: if base > 0.0 { throughput / base } else { 0.0 },
        migrations_per_s: Migrations {
            smt: of(&|o| o.migrations_per_s.smt),
            llc: of(&|o| o.migrations_per_s.llc),
            node: of(&|o| o.migrations_per_s.node),
            numa: of(&|o| o.migrations_per_s.numa),
        },
        decisions: count(&[&["counters", "wake_decisions"], &["counters", "pull_decisions"]]),
        events: count(&[&["events"]]),
        dropped: count(&[&["events_dropped"]]),
        rounds,
    }
}

impl Demo {
    /// The table.
    pub fn table(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{:<10}|{:^39}|{:^20}|{:^31}|{:^28}",
            "", "runqueue latency, us", "throughput", "migrations/s", "decisions"
        );
        let _ = writeln!(
            out,
            "{:<10}|{:>9}{:>9}{:>9}{:>11} |{:>10}{:>9} |{:>6}{:>8}{:>8}{:>8} |{:>10}{:>9}{:>9}",
            "",
            "p50",
            "p90",
            "p99",
            "p99.9",
            "index",
            "/ eevdf",
            "core",
            "LLC",
            "node",
            "other",
            "taken",
            "logged",
            "dropped"
        );
        for mode in Mode::ALL {
            let Some(row) = self.modes.get(mode.name()) else { continue };
            let m = row.migrations_per_s;
            let or_dash = |count: Option<u64>| count.map_or("-".into(), |count| count.to_string());
            let _ = writeln!(
                out,
                "{:<10}|{:>9.1}{:>9.1}{:>9.0}{:>11.0} |{:>10.1}{:>9.3} |{:>6.0}{:>8.0}{:>8.0}{:>8.0} |{:>10}{:>9}{:>9}",
                mode.name(),
                row.p50_us,
                row.p90_us,
                row.p99_us,
                row.p999_us,
                row.throughput,
                row.throughput_ratio,
                m.smt,
                m.llc,
                m.node,
                m.numa,
                or_dash(row.decisions),
                or_dash(row.events),
                or_dash(row.dropped)
            );
        }
        out
    }

    /// What the numbers say, in words.
    pub fn sentences(&self) -> String {
        let mut out = format!(
            "Throughput: {}.\nLearning published {} generations in {:.0} s, from {} logged decisions ({} dropped).\n{}\n",
            self.throughput_unit,
            self.generations_published,
            self.learn_seconds,
            self.events,
            self.events_dropped,
            reward_sentence(self.reward_first_quarter_ms, self.reward_last_quarter_ms)
        );
        for other in [Mode::Eevdf, Mode::Heuristic, Mode::Random] {
            if let (Some(frozen), Some(row)) = (self.modes.get("frozen"), self.modes.get(other.name())) {
                let p99 = compare(frozen, row, false, |o| o.latency.total.p99_us);
                let throughput = compare(frozen, row, true, |o| o.throughput);
                let _ = writeln!(out, "frozen against {}: p99 {p99}; throughput {throughput}.", other.name());
            }
        }
        out.push_str(
            "A verdict is that of one trained network. With two rounds each, chance alone separates two equal schedulers \
             in one of three comparisons; with six, in one of 462.\n",
        );
        out + if self.dmesg_clean {
            "The kernel logged no fault."
        } else {
            "THE KERNEL LOGGED FAULTS: see dmesg_lines in the JSON."
        }
    }
}

fn reward_sentence(first: Option<f64>, last: Option<f64>) -> String {
    let (Some(first), Some(last)) = (first, last) else {
        return "The reward cannot be compared: learning was too short for quarters.".into();
    };
    let verdict = if last > first { "higher" } else { "not higher" };
    format!(
        "Mean reward of the logged decisions, first quarter of updates {first:.3} ms -> last {last:.3} ms ({verdict}). \
         Load and the mix of decisions change too, so this alone does not show learning."
    )
}

/// How the medians of two modes compare, and whether every round of the one beats every round of the other.
fn compare(ours: &Row, theirs: &Row, larger_is_better: bool, value: impl Fn(&Outcome) -> f64) -> String {
    let of = |row: &Row| -> Vec<f64> { row.rounds.iter().map(&value).collect() };
    let (mine, other) = (of(ours), of(theirs));
    let base = median(other.iter().copied());
    if base <= 0.0 {
        return "not comparable".into();
    }
    let percent = 100.0 * (median(mine.iter().copied()) / base - 1.0);
    let range = |values: &[f64]| {
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)))
    };
    let ((my_low, my_high), (low, high)) = (range(&mine), range(&other));
    let above = my_low > high;
    let verdict = if above || my_high < low {
        if above == larger_is_better {
            "better: all rounds beat the other's"
        } else {
            "worse: the other's rounds all beat these"
        }
    } else {
        "the rounds overlap: no difference shown"
    };
    let verdict = if mine.len() < 2 || other.len() < 2 { "one round: no verdict" } else { verdict };
    format!("{percent:+.1} % ({verdict})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::workload::Throughput;
    use crate::runqlat::Report;

    fn outcome(mode: Mode, round: usize, p99_us: f64, throughput: f64) -> (Mode, Outcome) {
        let mut latency = Report::default();
        latency.total.p99_us = p99_us;
        let summary = (mode != Mode::Eevdf).then(|| {
            serde_json::json!({
                "counters": { "wake_decisions": 100, "pull_decisions": 20 + round },
                "events": 30, "events_dropped": 1,
            })
        });
        let rates = Throughput { cpu: throughput, pipe: throughput, hackbench: throughput };
        let migrations_per_s = Migrations { smt: 0.0, llc: 4.0, node: 2.0 + round as f64, numa: 0.0 };
        let out = Outcome { round, position: 0, latency, migrations_per_s, rates, throughput: rates.index(), summary };
        (mode, out)
    }

    fn demo() -> Demo {
        let outcomes = [
            outcome(Mode::Eevdf, 0, 1000.0, 100.0),
            outcome(Mode::Eevdf, 1, 1200.0, 110.0),
            outcome(Mode::Heuristic, 0, 900.0, 100.0),
            outcome(Mode::Heuristic, 1, 1500.0, 120.0),
            outcome(Mode::Random, 0, 700.0, 90.0),
            outcome(Mode::Random, 1, 750.0, 95.0),
            outcome(Mode::Frozen, 0, 800.0, 100.0),
            outcome(Mode::Frozen, 1, 850.0, 108.0),
        ];
        Demo {
            version: "0",
            kernel: "6.18".into(),
            topology: Machine { cpus: 4, cores: 4, nodes: 1, llcs: vec![vec![0, 1], vec![2, 3]] },
            seed: 1,
            rounds: 2,
            phase_seconds: 10.0,
            learn_seconds: 120.0,
            workload: vec![],
            throughput_unit: "ops/s",
            generations_published: 40,
            events: 9000,
            events_dropped: 3,
            reward_first_quarter_ms: Some(-2.0),
            reward_last_quarter_ms: Some(-1.5),
            reward_improved: Some(true),
            learn: Value::Null,
            modes: rows(&outcomes),
            dmesg_clean: true,
            dmesg_lines: vec![],
            total_seconds: 250.0,
        }
    }

    #[test]
    fn rows_are_medians_and_counts_are_sums() {
        let demo = demo();
        let frozen = &demo.modes["frozen"];
        assert_eq!(frozen.p99_us, 825.0);
        assert!((frozen.throughput - 104.0).abs() < 1e-9);
        assert!((frozen.throughput_ratio - 104.0 / 105.0).abs() < 1e-9);
        assert_eq!(frozen.migrations_per_s.node, 2.5);
        assert_eq!((frozen.decisions, frozen.events, frozen.dropped), (Some(241), Some(60), Some(2)));
        assert_eq!(demo.modes["eevdf"].decisions, None);
        assert_eq!(demo.modes["eevdf"].throughput_ratio, 1.0);
    }

    #[test]
    fn words_follow_the_numbers() {
        let demo = demo();
        let text = demo.sentences();
        assert!(text.contains("-2.000 ms -> last -1.500 ms (higher)"), "{text}");
        assert!(
            text.contains("frozen against eevdf: p99 -25.0 % (better: all rounds beat the other's); throughput -1.0 %"),
            "{text}"
        );
        assert!(text.contains("frozen against heuristic: p99 -31.2 % (better: all rounds beat the other's)"), "{text}");
        assert!(
            text.contains(
                "frozen against random: p99 +13.8 % (worse: the other's rounds all beat these); throughput +12.4 % (better: all rounds beat the other's)"
            ),
            "{text}"
        );
        assert!(text.contains("throughput -5.5 % (the rounds overlap: no difference shown)"), "{text}");
        assert!(reward_sentence(Some(-1.0), Some(-1.2)).contains("(not higher)"));
        assert!(reward_sentence(None, None).contains("cannot be compared"));
    }

    #[test]
    fn the_table_has_a_row_for_each_mode_under_its_columns() {
        let table = demo().table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 6);
        let bars = |line: &str| line.match_indices('|').map(|(at, _)| at).collect::<Vec<_>>();
        assert!(lines.iter().all(|line| bars(line) == bars(lines[0])), "{table}");
        assert!(lines.iter().all(|line| line.len() <= 140));
        for (line, mode) in lines[2..].iter().zip(Mode::ALL) {
            assert!(line.starts_with(mode.name()), "{table}");
        }
        assert!(lines[2].trim_end().ends_with('-'));
    }

    #[test]
    fn the_json_has_the_keys_that_are_relied_on() {
        let json = serde_json::to_value(demo()).unwrap();
        for key in ["generations_published", "events", "events_dropped", "seed", "reward_first_quarter_ms"] {
            assert!(json[key].is_number(), "{key}");
        }
        assert_eq!(json["dmesg_clean"], true);
        for mode in Mode::ALL {
            let row = &json[mode.name()];
            for key in ["p50_us", "p90_us", "p99_us", "p999_us", "throughput"] {
                assert!(row[key].is_number(), "{} {key}", mode.name());
            }
            assert!(row["migrations_per_s"]["node"].is_number());
            assert_eq!(row["rounds"].as_array().unwrap().len(), 2);
        }
        assert_eq!(json["frozen"]["decisions"], 241);
    }
}
