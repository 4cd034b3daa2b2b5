// SPDX-License-Identifier: GPL-2.0-only
//! `scx_rl locality`: what it refuses, what it writes, and that it can be ended.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::common::Folder;
use super::{BINARY, scx_rl};

#[test]
fn senseless_values_are_refused_by_name() {
    for (flag, value) in [
        ("--workers", "0"),
        ("--workers", "4097"),
        ("--burst-us", "0"),
        ("--burst-us", "nan"),
        ("--distribution", "normal"),
        ("--load", "0"),
        ("--load", "11"),
        ("--cost-us", "1e300"),
        ("--cost-us", "dear"),
        ("--cost-kib", "0"),
        ("--cost-kib", "1.5"),
        ("--costly", "1.1"),
        ("--forget-ms", "inf"),
        ("--hogs", "1025"),
        ("--domains", "l9"),
        ("--seconds", "0"),
        ("--seconds", "3601"),
        ("--warm-up", "soon"),
        ("--iterations-per-us", "0"),
    ] {
        scx_rl(&["locality", flag, value]).fails(2, &["invalid value", flag, value]);
    }
    scx_rl(&["locality", "--costs", "{}"]).fails(2, &["required arguments", "--simulate"]);
    let typo = ["locality", "--simulate", "2/2", "--costs", r#"{"swich_ns":1}"#];
    scx_rl(&typo).fails(2, &["--costs", "unknown field `swich_ns`"]);
    scx_rl(&["locality", "--load", "7e3"]).fails(2, &["is not a number from 0.001 to 10"]);
    scx_rl(&["locality", "--cost-us", "5", "--cost-kib", "5"]).fails(2, &["cannot be used with", "--cost-kib"]);
    // The combination is senseless, not a value.
    let often = ["locality", "--workers", "1", "--burst-us", "1", "--load", "10"];
    scx_rl(&often).fails(1, &["each worker would get a burst every", "--workers", "--burst-us", "--load"]);
    let much = ["locality", "--workers", "4096", "--cost-kib", "1048576"];
    scx_rl(&much).fails(1, &["4096 workers with 1048576 KiB each", "more than 8 GiB"]);
    scx_rl(&["locality", "--domains", "cpus:9999"]).fails(1, &["CPU"]);
    scx_rl(&["locality", "--out", "/nonexistent/x.json"]).fails(1, &["cannot write /nonexistent/x.json"]);
}

#[test]
fn it_writes_what_it_measured() {
    let folder = Folder::new();
    let out = folder.text("locality.json");
    let line = "locality --workers 4 --load 0.05 --burst-us 200 --costly 0.5 --seconds 0.5 --warm-up 0.1 --seed 3 \
                --iterations-per-us 50 --distribution bimodal --cost-us 20 --out";
    let outcome = scx_rl(&line.split_whitespace().chain([out.as_str()]).collect::<Vec<_>>());
    outcome.succeeds(&[]);
    assert!(outcome.stdout.is_empty(), "{outcome:#?}");
    let json: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    let number =
        |path: &str| json.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} in {json:#}"));
    for (path, expected) in [
        ("/seconds", 0.5),
        ("/warm_up_s", 0.1),
        ("/seed", 3.0),
        ("/load", 0.05),
        ("/iterations_per_us", 50.0),
        ("/workload/workers", 4.0),
        ("/workload/burst_ns", 200_000.0),
        ("/workload/cost/ns", 20_000.0),
        ("/workers", 4.0),
        ("/costly/workers", 2.0),
        ("/free/workers", 2.0),
        ("/free/costs_paid", 0.0),
    ] {
        assert_eq!(number(path), expected, "{path}");
    }
    assert_eq!(json["calibrated"], Value::Bool(false));
    assert_eq!(json["workload"]["distribution"], "bimodal");
    assert!(json["caches"].as_array().is_some_and(|caches| !caches.is_empty()));
    for key in
        ["bursts", "bursts_per_s", "offered_per_s", "backlog_at_begin", "llc_changes", "costs_paid", "cost_cpu_s"]
    {
        let (all, parts) =
            (number(&format!("/{key}")), number(&format!("/costly/{key}")) + number(&format!("/free/{key}")));
        assert!((all - parts).abs() < 1e-6 * (1.0 + all), "{key}: {all} is not {parts}");
    }
    assert!(number("/bursts") > 10.0 && number("/response/samples") == number("/bursts"));
    let percentiles = ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"].map(|q| number(&format!("/response/{q}")));
    assert!(percentiles.is_sorted() && percentiles[0] > 0.0, "{percentiles:?}");
}

#[test]
fn without_a_file_the_standard_output_is_json() {
    let line = "locality --workers 2 --load 0.01 --seconds 0.1 --warm-up 0 --iterations-per-us 50 --cost-kib 16";
    let outcome = scx_rl(&line.split_whitespace().collect::<Vec<_>>());
    outcome.succeeds(&["\"response\"", "\"kib\": 16"]);
    assert!(serde_json::from_str::<Value>(&outcome.stdout).is_ok(), "{outcome:#?}");
}

#[test]
fn ctrl_c_ends_it_and_is_an_error() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut command = Command::new(BINARY);
        command.args(["locality", "--workers", "2", "--hogs", "1", "--load", "0.01", "--seconds", "3600"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        // Signals are caught before there are threads.
        let threads = || std::fs::read_dir(format!("/proc/{}/task", child.id())).map_or(0, Iterator::count);
        let begin = Instant::now();
        while threads() < 4 {
            assert!(begin.elapsed() < Duration::from_secs(30), "no threads: {}", threads());
            std::thread::sleep(Duration::from_millis(5));
        }
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(begin.elapsed() < Duration::from_secs(40), "it took {:?} to end", begin.elapsed());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("Error: nothing was measured: interrupted"),
            "{output:?}"
        );
        assert!(output.stdout.is_empty(), "{output:?}");
    }
}
