// SPDX-License-Identifier: GPL-2.0-only
//! What a running scheduler measures, for other programs: through the `metrics` facade, for whatever recorder is installed,
//! and with `--prometheus` over HTTP in Prometheus' text format.
//!
//! Three kinds: gauges `scx_rl_NAME`, the statistics of the last second ([`Metrics`]); counters `scx_rl_NAME_total`, those
//! of the BPF side (`RL_COUNTERS` in intf.h) since this process began, through restarts after hotplug; and the histogram of
//! runqueue waits `scx_rl_wait_us`, in counters as Prometheus' `histogram_quantile()` wants them. [`table`] has all of them.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use metrics::Unit;
use metrics_exporter_prometheus::PrometheusBuilder;
use scx_stats::prelude::*;

use crate::kernel::scheduler::Counters;
use crate::policy::host;
use crate::policy::{RL_CNT_runs, RL_CNT_wait_sum_ns};
use crate::stats::Metrics;

/// Where `--prometheus` listens when it is not told: this machine alone can read it.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:9764";

/// The histogram's name, without what Prometheus appends.
const WAITS: &str = "scx_rl_wait_us";

/// What a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of the last second.
    Gauge,
    /// Since this process began.
    Counter,
}

/// A number that is exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// As Prometheus shows it.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// What it tells.
    pub help: String,
}

/// Every number that is exported.
pub fn table() -> Vec<Exported> {
    let numbers = serde_json::to_value(Metrics::default()).unwrap_or_default();
    let gauges = Metrics::meta().fields.into_iter().filter(|(field, _)| numbers[field].is_number());
    let gauges = gauges.map(|(field, about)| Exported {
        name: format!("scx_rl_{field}"),
        kind: Kind::Gauge,
        help: about.attrs.desc.unwrap_or_default(),
    });
    let counters = host::counter_table().into_iter().map(|(name, doc)| Exported {
        name: format!("scx_rl_{name}_total"),
        kind: Kind::Counter,
        help: doc.into(),
    });
    let waits = [
        ("_bucket", "runqueue waits shorter than `le` microseconds"),
        ("_count", "runqueue waits"),
        ("_sum", "runqueue waits, summed, microseconds"),
    ]
    .map(|(suffix, help)| Exported { name: format!("{WAITS}{suffix}"), kind: Kind::Counter, help: help.into() });
    gauges.chain(counters).chain(waits).collect()
}

/// Serve everything that is recorded in this process to Prometheus at this address, from a thread of its own.
///
/// # Errors
/// When the address cannot be listened to.
pub fn serve(address: SocketAddr) -> Result<()> {
    PrometheusBuilder::new().with_http_listener(address).install().with_context(|| {
        format!("cannot serve Prometheus at {address}: choose another address with --prometheus=ADDRESS:PORT")
    })?;
    for Exported { name, kind, help } in table() {
        match kind {
            Kind::Gauge => metrics::describe_gauge!(name, Unit::Count, help),
            Kind::Counter => metrics::describe_counter!(name, Unit::Count, help),
        }
    }
    Ok(())
}

/// Record the statistics of an interval.
pub fn record_statistics(statistics: &Metrics) {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(statistics) else { return };
    for (name, value) in fields {
        if let Some(v) = value.as_f64() {
            metrics::gauge!(format!("scx_rl_{name}")).set(v);
        }
    }
}

/// Record what BPF has counted in an interval.
pub fn record_counters(counted: &Counters) {
    for (name, n) in counted.named() {
        metrics::counter!(format!("scx_rl_{name}_total")).increment(n);
    }
    let mut below = 0;
    for (i, n) in counted.wait_hist.iter().enumerate() {
        below += n;
        metrics::counter!(format!("{WAITS}_bucket"), "le" => (2u64 << i).to_string()).increment(below);
    }
    metrics::counter!(format!("{WAITS}_bucket"), "le" => "+Inf").increment(below);
    metrics::counter!(format!("{WAITS}_count")).increment(counted.get(RL_CNT_runs));
    metrics::counter!(format!("{WAITS}_sum")).increment(counted.get(RL_CNT_wait_sum_ns) / 1000);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;

    fn recorded(record: impl FnOnce()) -> BTreeMap<(String, String), DebugValue> {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, record);
        let key = |k: &metrics::Key| {
            let le = k.labels().find(|l| l.key() == "le").map_or("", |l| l.value());
            (k.name().to_string(), le.to_string())
        };
        snapshotter.snapshot().into_vec().into_iter().map(|(k, _, _, v)| (key(k.key()), v)).collect()
    }

    #[test]
    fn what_is_recorded_is_what_the_table_names() {
        let numbers = recorded(|| {
            record_statistics(&Metrics { reward_ms: -1.25, ..Default::default() });
            record_counters(&Counters::default());
        });
        let names: std::collections::BTreeSet<_> = numbers.keys().map(|(name, _)| name.clone()).collect();
        assert_eq!(names, table().into_iter().map(|e| e.name).collect());
        assert_eq!(numbers[&("scx_rl_reward_ms".into(), String::new())], DebugValue::Gauge((-1.25).into()));
        assert!(table().iter().all(|e| e.help.len() > 8), "{:#?}", table());
    }

    #[test]
    fn waits_are_cumulative_and_counters_add_up() {
        let mut counted = Counters::default();
        counted.wait_hist[0] = 5;
        counted.wait_hist[3] = 2;
        counted.values[RL_CNT_runs as usize] = 7;
        counted.values[RL_CNT_wait_sum_ns as usize] = 31_000;
        let numbers = recorded(|| (0..2).for_each(|_| record_counters(&counted)));
        let of = |name: &str, le: &str| &numbers[&(name.to_string(), le.to_string())];
        for (le, n) in [("2", 10), ("8", 10), ("16", 14), ("4294967296", 14), ("+Inf", 14)] {
            assert_eq!(of("scx_rl_wait_us_bucket", le), &DebugValue::Counter(n), "{le}");
        }
        assert_eq!(of("scx_rl_wait_us_sum", ""), &DebugValue::Counter(62));
        assert_eq!(of("scx_rl_wait_us_count", ""), of("scx_rl_runs_total", ""));
    }

    fn file(name: &str) -> std::path::PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
    }

    #[test]
    fn every_number_is_documented() {
        let (begin, path) = ("| name | kind | what it tells |\n| --- | --- | --- |\n", file("dist/METRICS.md"));
        let rows = table().into_iter().map(|Exported { name, kind, help }| {
            format!("| `{name}` | {} | {} |\n", format!("{kind:?}").to_lowercase(), help.replace('|', "\\|"))
        });
        let expected: String = std::iter::once(begin.to_string()).chain(rows).collect();
        let text = std::fs::read_to_string(&path).unwrap();
        let head = &text[..text.find(begin).unwrap_or(text.len())];
        if std::env::var_os("SCX_RL_BLESS").is_some() {
            std::fs::write(&path, format!("{head}{expected}")).unwrap();
        } else {
            assert_eq!(text[head.len()..], expected, "SCX_RL_BLESS=1 cargo test --lib every_number writes it anew");
        }
    }

    #[test]
    fn the_dashboard_asks_for_what_there_is() {
        let text = std::fs::read_to_string(file("dist/grafana.json")).unwrap();
        let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
        let known: std::collections::BTreeSet<String> = table().into_iter().map(|e| e.name).collect();
        let mut asked = 0;
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let words = target["expr"].as_str().unwrap().split(|c: char| !c.is_alphanumeric() && c != '_');
                for name in words.filter(|word| word.starts_with("scx_rl_")) {
                    assert!(known.contains(name), "{name} in {panel:#}");
                    asked += 1;
                }
            }
        }
        assert!(asked > 20, "{asked}");
    }
}
