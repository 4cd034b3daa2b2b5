// SPDX-License-Identifier: GPL-2.0-only
//! Samples are what the tools of Debian 12 printed.

use super::*;

const STRESS_NG_YAML: &str = "---
system-info:
      stress-ng-version: 0.15.06

metrics:
    - stressor: cpu
      bogo-ops: 6186
      bogo-ops-per-second-usr-sys-time: 2868.548953
      bogo-ops-per-second-real-time: 2060.397421
      wall-clock-time: 3.002333

    - stressor: pipe
      bogo-ops: 1154597
      bogo-ops-per-second-usr-sys-time: 540288.469683
      bogo-ops-per-second-real-time: 384767.387160
...
";

#[test]
fn stress_ng() {
    assert_eq!(stress_rate(STRESS_NG_YAML, "cpu"), Some(2060.397421));
    assert_eq!(stress_rate(STRESS_NG_YAML, "pipe"), Some(384767.387160));
    assert_eq!(stress_rate(STRESS_NG_YAML, "switch"), None);
    assert_eq!(stress_rate("---\n...\n", "cpu"), None);
    assert_eq!(stress_rate("- stressor: cpu\n- stressor: pipe\nbogo-ops-per-second-real-time: 1\n", "cpu"), None);
}

#[test]
fn hackbench_and_perf_bench() {
    let text = "Running in process mode with 4 groups using 40 file descriptors each (== 160 tasks)
Each sender will pass 150 messages of 100 bytes
Time: 1.473
";
    assert_eq!(hackbench_s(text), Some(1.473));
    assert_eq!(hackbench_s("Signal 15 caught, longjmp'ing out!\n"), None);
    let messaging = "# Running 'sched/messaging' benchmark:
# 20 sender and receiver processes per group
# 4 groups == 160 processes run

     Total time: 2.414 [sec]
";
    assert_eq!(perf_bench_s(messaging), Some(2.414));
    assert_eq!(perf_bench_us_per_op(messaging), None);
    let pipe = "# Running 'sched/pipe' benchmark:
# Executed 20000 pipe operations between two processes

     Total time: 5.643 [sec]

     282.156750 usecs/op
           3544 ops/sec
";
    assert_eq!(perf_bench_us_per_op(pipe), Some(282.156750));
}

#[test]
fn sysbench_threads() {
    let text = "General statistics:
    total time:                          4.0163s
    total number of events:              7157

Latency (ms):
         min:                                    0.14
         avg:                                    8.87
         max:                                  174.76
         99th percentile:                       80.03
         sum:                                63456.45
";
    let (events_per_s, p99_ms) = sysbench(text).unwrap();
    assert!((events_per_s - 7157.0 / 4.0163).abs() < 1e-9);
    assert_eq!(p99_ms, 80.03);
    assert_eq!(sysbench("FATAL: unable to create thread\n"), None);
}

#[test]
fn cyclictest() {
    let json = r#"{
  "num_threads": 2,
  "thread": {
    "0": { "histogram": { "26": 1, "62": 119, "63": 70 }, "cycles": 190, "min": 26, "max": 63, "avg": 62.1, "cpu": 0 },
    "1": { "histogram": { "30": 1, "203": 7 }, "cycles": 10, "min": 30, "max": 101336, "avg": 67.80, "cpu": 1 }
  }
}"#;
    assert_eq!(cyclictest_us(json, 0.5), Some(62.0));
    assert_eq!(cyclictest_us(json, 0.99), Some(203.0));
    // Two cycles were longer than the histogram.
    assert_eq!(cyclictest_us(json, 0.995), Some(101336.0));
    assert_eq!(cyclictest_us("{}", 0.99), None);
    assert_eq!(cyclictest_us(r#"{"thread": {}}"#, 0.99), None);
}

#[test]
fn fio() {
    let json = r#"{ "fio version" : "fio-3.33", "jobs" : [ { "jobname" : "read", "error" : 0, "read" : {
        "iops" : 2638.881957, "total_ios" : 10574,
        "clat_ns" : { "N" : 10574, "percentile" : { "50.000000" : 207872, "99.000000" : 5472256 } } } } ] }"#;
    assert_eq!(fio_reads(json), Some((2638.881957, 5472.256)));
    assert_eq!(fio_reads(&format!("fio: terminating on signal 2\n{json}")), Some((2638.881957, 5472.256)));
    assert_eq!(fio_reads("fio: engine io_uring not loadable\n"), None);
}

#[test]
fn wrk_units() {
    let text = |p99: &str| {
        format!(
            "  Latency Distribution
     50%    7.45ms
     99%   {p99}
  13323 requests in 4.12s, 16.05MB read
Requests/sec:   3231.51
Transfer/sec:      3.89MB
"
        )
    };
    assert_eq!(wrk(&text("39.60ms")), Some((3231.51, 39_600.0)));
    assert_eq!(wrk(&text("1.25s")), Some((3231.51, 1_250_000.0)));
    assert_eq!(wrk(&text("731.00us")), Some((3231.51, 731.0)));
    assert_eq!(wrk("unable to connect to 127.0.0.1:8089 Connection refused\n"), None);
}

#[test]
fn pgbench() {
    let text = "number of transactions actually processed: 354
number of failed transactions: 0 (0.000%)
latency average = 88.790 ms
initial connection time = 167.588 ms
tps = 90.100523 (without initial connection time)
";
    assert_eq!(pgbench_tps(text), Some(90.100523));
    let log = "1 1 181891 0 1795250129 217008\n1 2 27555 0 1795250129 244943\n4 1 141454 0 1 2\n1 3 72949 0 1 3\n";
    assert_eq!(pgbench_us(log, 1), [27555.0, 72949.0]);
    assert!(pgbench_us(log, 3).is_empty());
}

#[test]
fn schbench() {
    let text = "Wakeup Latencies percentiles (usec) runtime 5 (s) (1118 total samples)
\t  50.0th: 140        (330 samples)
\t  90.0th: 6360       (447 samples)
\t* 99.0th: 14480      (99 samples)
\t  99.9th: 21088      (10 samples)
\t  min=9, max=25428
Request Latencies percentiles (usec) runtime 5 (s) (1118 total samples)
\t  50.0th: 26720      (335 samples)
\t  90.0th: 53312      (449 samples)
\t* 99.0th: 115840     (99 samples)
\t  99.9th: 234752     (10 samples)
\t  min=4328, max=248684
RPS percentiles (requests) runtime 5 (s) (6 total samples)
\t  20.0th: 199        (2 samples)
\t* 50.0th: 200        (1 samples)
\t  90.0th: 258        (3 samples)
\t  min=199, max=258
average rps: 223.60
sched delay: message 0 (usec) worker 0 (usec)
";
    assert_eq!(schbench_us(text, "Wakeup Latencies", "50.0"), Some(140.0));
    assert_eq!(schbench_us(text, "Wakeup Latencies", "99.0"), Some(14480.0));
    assert_eq!(schbench_us(text, "Request Latencies", "99.0"), Some(115840.0));
    assert_eq!(schbench_rps(text), Some(223.6));
    assert_eq!(schbench_us("", "Wakeup Latencies", "99.0"), None);
}

#[test]
fn a_missing_tool_is_named_with_what_to_do() {
    let error = |tool: Tool| tool.check().unwrap_err().to_string();
    assert_eq!(error(Tool::of("no-such-tool", "something")), "no-such-tool is not installed: apt install something");
    assert!(error(Tool { name: "no-such-tool", package: None }).contains("build it from source"));
    assert!(find("sh").is_some());
}

#[test]
fn versions_are_those_of_packages_or_of_files() {
    let version = Tool { name: "sh", package: None }.version().unwrap();
    assert!(version.starts_with("sha256 ") && version.len() == 7 + 16, "{version}");
    assert_eq!(Tool { name: "no-such-tool", package: None }.version(), None);
    if find("dpkg-query").is_some() {
        assert!(Tool::of("bash", "bash").version().unwrap().starts_with("bash "));
    }
}
