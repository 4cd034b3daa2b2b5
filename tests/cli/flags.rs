// SPDX-License-Identifier: GPL-2.0-only
//! Help, version, and command lines that make no sense.

use std::fs::{File, OpenOptions};
use std::process::Command;

use clap::CommandFactory;
use scx_rl::cli::Cli;
use scx_rl::stats::Metrics;

use super::common::{Folder, learn};
use super::{BINARY, run_with_stdout, scx_rl};

/// Every command with the words that lead to it, the scheduler itself first.
fn commands() -> Vec<(Vec<String>, clap::Command)> {
    let (mut found, mut open) = (Vec::new(), vec![(Vec::new(), Cli::command())]);
    while let Some((path, command)) = open.pop() {
        for sub in command.get_subcommands() {
            open.push(([path.as_slice(), &[sub.get_name().to_string()]].concat(), sub.clone()));
        }
        found.push((path, command));
    }
    found
}

#[test]
fn every_command_and_every_flag_is_explained() {
    let commands = commands();
    assert!(commands.len() >= 8);
    for (path, command) in commands {
        let words: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let help = scx_rl(&words);
        help.succeeds(&["Usage: scx_rl"]);
        assert!(command.get_about().is_some_and(|about| about.to_string().len() > 10), "{path:?} has no description");
        for arg in command.get_arguments() {
            let text = arg.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(text.len() >= 10, "{path:?} {:?} has no help text", arg.get_id());
            if let Some(long) = arg.get_long() {
                help.succeeds(&[&format!("--{long}")]);
            }
            // Line breaks depend on the width; the first words do not.
            let first: String = text.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
            help.succeeds(&[&first]);
        }
    }
}

#[test]
fn help_says_the_essentials() {
    scx_rl(&["--help"]).succeeds(&[
        "sched_ext",
        "runqueue latency",
        "--learn --checkpoint-dir",
        "--frozen FILE",
        "--heuristic",
        "[default: ",
        "checkpoint",
        "replay",
        "\n  ope ",
        "runqlat",
    ]);
}

#[test]
fn version_and_statistics_are_told() {
    for flag in ["--version", "-V"] {
        scx_rl(&[flag]).succeeds(&[&format!("scx_rl {}", env!("CARGO_PKG_VERSION"))]);
    }
    let help = scx_rl(&["--help-stats"]);
    let serde_json::Value::Object(fields) = serde_json::to_value(Metrics::default()).unwrap() else { unreachable!() };
    assert!(fields.len() > 15);
    for name in fields.keys() {
        help.succeeds(&[name]);
    }
    help.succeeds(&["runqueue wait", "events_dropped", "ring buffer was full"]);
}

#[test]
fn the_suite_lists_what_there_is() {
    let variant = ["--scheduler", "slow=scx_rl --heuristic --slice-us 20000"];
    let list = scx_rl(&[&["suite", "--list", "--schedulers", "eevdf,heuristic"], &variant[..]].concat());
    list.succeeds(&[
        "eevdf             the kernel's own",
        "scx_rl --heuristic",
        "slow",
        "--slice-us 20000",
        "bpf-cost",
    ]);
    // What is not here is left out, with the reason.
    for workload in ["compile", "hackbench-pipe", "cyclictest", "fio-compile", "nginx-wrk", "pgbench", "schbench-hogs"]
    {
        list.succeeds(&[workload]);
    }
    let some = scx_rl(&["suite", "--list", "--workloads", "perf-pipe,bpf-cost"]);
    some.succeeds(&["perf-pipe", "frozen            no --checkpoint was given"]);
    assert!(!some.stdout.contains("hackbench-pipe"), "{some:#?}");
}

#[test]
fn options_of_learning_need_it() {
    for args in
        [&["--seed", "3"][..], &["--resume", "x"], &["--continue"], &["--no-guard"], &["--checkpoint-keep", "1"]]
    {
        scx_rl(args).fails(2, &["required", "--learn"]);
    }
}

#[test]
fn contradictory_flags_are_refused() {
    for args in [
        &["--learn", "--frozen", "x"][..],
        &["--learn", "--heuristic"],
        &["--learn", "--random"],
        &["--frozen", "x", "--heuristic"],
        &["--heuristic", "--slices"],
        &["--heuristic", "--random"],
        &["--heuristic", "--resume", "x"],
        &["--frozen", "x", "--resume", "y"],
        &["--random", "--record", "x"],
        &["--heuristic", "--checkpoint-dir", "x"],
        &["--monitor", "1", "--learn"],
        &["--monitor", "1", "--frozen", "x"],
        &["--monitor", "1", "--summary", "x"],
        &["--monitor", "1", "--duration", "1"],
        &["--learn", "checkpoint", "show", "x"],
    ] {
        // Both sides of the contradiction are named.
        let flags: Vec<&str> = args.iter().copied().filter(|a| a.starts_with("--")).collect();
        scx_rl(args).fails(2, &["cannot be used with", flags[0], "--help"]);
        scx_rl(args).fails(2, &flags);
    }
}

#[test]
fn senseless_values_are_refused_by_name() {
    for (flag, value) in [
        ("--domains", "l9"),
        ("--domains", ""),
        ("--domains", "cpus:"),
        ("--domains", "virt:4-2"),
        ("--slice-us", "1"),
        ("--slice-us", "100001"),
        ("--slice-us", "1e3"),
        ("--wait-bound-ms", "0"),
        ("--wait-bound-ms", "1001"),
        ("--explore-floor", "0.6"),
        ("--explore-floor", "nan"),
        ("--duration", "0"),
        ("--duration", "inf"),
        ("--duration", "soon"),
        ("--checkpoint-every", "0"),
        ("--publish-every", "nan"),
        ("--seed", "18446744073709551616"),
        ("--events-per-sec", "0"),
        ("--agent-nice", "20"),
        ("--agent-nice", "-21"),
        ("--agent-memory-mib", "31"),
        ("--stats", "x"),
        ("--stats", "inf"),
        ("--stats", "1e300"),
    ] {
        scx_rl(&["--learn", flag, value]).fails(2, &["invalid value", flag, value]);
    }
    for value in ["0", "nan", "1e300"] {
        scx_rl(&["--monitor", value]).fails(2, &["invalid value", "--monitor", value]);
    }
    scx_rl(&["--learn", "--duration", "-1"]).fails(2, &["-1"]);
    scx_rl(&["--frozen"]).fails(2, &["a value is required", "--frozen"]);
    scx_rl(&["--lern"]).fails(2, &["--lern", "--learn"]);
    scx_rl(&["chekpoint"]).fails(2, &["chekpoint", "checkpoint"]);
    scx_rl(&["checkpoint", "show"]).fails(2, &["<FILE>"]);
    scx_rl(&["replay", "x"]).fails(2, &["--checkpoint"]);
    scx_rl(&["bench", "--rounds", "0"]).fails(2, &["--rounds", "1..=1000"]);
    for (args, parts) in [
        (&["--rounds", "0"][..], &["--rounds must be from 1"][..]),
        (&["--schedulers", "cfs"], &["no \"cfs\"", "eevdf, heuristic, frozen, scx_rusty", "--scheduler NAME=COMMAND"]),
        (&["--schedulers", "eevdf,frozen"], &["frozen needs --checkpoint FILE"]),
        (&["--schedulers", "heuristic"], &["ratios are to eevdf", "--baseline"]),
        (&["--baseline", "nobody"], &["ratios are to nobody"]),
        (&["--scheduler", "slow"], &["\"slow\" is not NAME=COMMAND"]),
        (&["--scheduler", "slow=scx_nobody_has_this --fast"], &["slow: scx_nobody_has_this is not installed"]),
        (&["--scheduler", "eevdf=scx_rl --heuristic"], &["two schedulers are called eevdf"]),
        (&["--checkpoint", "/nonexistent.safetensors"], &["--checkpoint: no file /nonexistent.safetensors"]),
        (&["--workloads", "compile,doom"], &["no \"doom\"", "compile, hackbench-pipe", "bpf-cost"]),
    ] {
        scx_rl(&[&["suite", "--list"], args].concat()).fails(1, parts);
    }
    scx_rl(&["suite", "--rounds", "many"]).fails(2, &["invalid value", "--rounds"]);
    scx_rl(&["runqlat", "--duration", "nan"]).fails(1, &["--duration", "positive number of seconds"]);
    scx_rl(&["runqlat", "--interval", "1e300"]).fails(1, &["--interval", "positive number of seconds"]);
}

/// A full disk or a reader that has gone is no reason to panic.
#[test]
fn output_that_cannot_be_written_is_told() {
    let folder = Folder::new();
    let run = learn(3, 600);
    let checkpoint = folder.with("a.safetensors", &run.checkpoint.to_bytes().unwrap());
    let recording = folder.with("a.rec", &run.recording);
    let out = folder.text("out.safetensors");
    for args in [
        &["--version"][..],
        &["--help-stats"],
        &["suite", "--list"],
        &["checkpoint", "show", &checkpoint],
        &["checkpoint", "show", &checkpoint, "--json"],
        &["replay", &recording, "--checkpoint", &out],
        &["ope", &recording],
        &["ope", &recording, "--json"],
    ] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        run_with_stdout(Command::new(BINARY).args(args).stdout(full), &folder).fails(1, &["No space left on device"]);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let gone = run_with_stdout(Command::new(BINARY).args(args).stdout(writer), &folder);
        assert!(gone.code == Some(0) && gone.stderr.is_empty(), "{gone:#?}");
    }
    assert!(File::open(&out).is_ok(), "the replay's checkpoint was written before");
}

#[test]
fn shells_and_man_know_every_subcommand() {
    for shell in ["bash", "zsh", "fish"] {
        scx_rl(&["completions", shell]).succeeds(&["experiment", "checkpoint", "heuristic", "frozen"]);
    }
    scx_rl(&["completions", "tcsh"]).fails(2, &["invalid value"]);
    let folder = Folder::new();
    let dir = folder.text("man");
    scx_rl(&["man", &dir]).succeeds(&[]);
    let page = |name: &str| std::fs::read_to_string(folder.file("man").join(name)).unwrap();
    assert!(page("scx_rl.1").contains("\\-\\-heuristic") && page("scx_rl-suite.1").contains("\\-\\-rounds"));
    assert!(!folder.file("man").join("scx_rl-experiment-work.1").exists(), "what is hidden is for nobody");
    scx_rl(&["man", "/proc/man"]).fails(1, &["cannot write man pages to /proc/man"]);
}
