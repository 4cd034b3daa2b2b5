// SPDX-License-Identifier: GPL-2.0-only
//! `scx_rl experiment`: what it refuses, and that a study comes to the same end however often it is killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::common::Folder;
use super::{BINARY, PATIENCE, scx_rl};

/// 3 schedulers x 4 regimes x 3 seeds: 36 cells, which take some seconds.
const STUDY: &str = r#"
name = "tiny"
about = "Is it the same after a kill?"
backend = "simulator"
seeds = [1, 2, 3]
warm-up-s = 0.1
seconds = 2.5
jobs = 2
workloads = ["none-short-80", "high-short-95", "mixed-mixed-80", "high-long-95"]

[[scheduler]]
name = "rule"
balancer = "rule:margin=1"

[[scheduler]]
name = "stay"
balancer = "rule:margin=7.5,numa=7.5,idle=0"

[[scheduler]]
name = "learning"
balancer = "learn:rule"

[[topology]]
cpus = 16
llcs = 4
"#;
const CELLS: usize = 36;
const KILLS: usize = 20;

/// A quick study.
fn quick() -> String {
    STUDY.replace("2.5", "0.02").replace("seeds = [1, 2, 3]", "seeds = [1]")
}

fn start(args: &[&str]) -> Child {
    let mut command = Command::new(BINARY);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// All cells, whole: by file, what is not of the moment.
fn cells(study: &Path) -> BTreeMap<String, Value> {
    let entries = std::fs::read_dir(study.join("cells")).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| {
        let mut cell: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for key in ["seconds", "ended_at"] {
            assert!(cell.as_object_mut().unwrap().remove(key).is_some(), "{path:?} has no {key}");
        }
        (path.file_name().unwrap().to_str().unwrap().to_string(), cell)
    };
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "json")).map(read).collect()
}

#[test]
fn a_study_that_is_killed_twenty_times_ends_like_one_that_is_not() {
    let folder = Folder::new();
    let spec = folder.with("tiny.toml", STUDY.as_bytes());
    let (whole, killed) = (folder.text("whole"), folder.text("killed"));
    scx_rl(&["experiment", "run", &spec, "--out-dir", &whole]).succeeds(&["36 cells", "geometric mean of workloads"]);
    let expected = cells(Path::new(&whole));
    assert_eq!(expected.len(), CELLS);

    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut kills, mut counts) = (0, Vec::new());
    for attempt in 0..10 * KILLS {
        let args = if attempt == 0 {
            vec!["experiment", "run", &spec, "--out-dir", &killed]
        } else {
            vec!["experiment", "run", "--resume", &killed]
        };
        let mut child = start(&args);
        // Until the study is there, a kill says nothing but that it has to begin again.
        let deadline = Instant::now() + PATIENCE;
        while !Path::new(&killed).join("study.json").exists() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        if kills < KILLS {
            std::thread::sleep(Duration::from_millis(rng.random_range(20..400)));
        }
        if kills == KILLS || cells(Path::new(&killed)).len() == CELLS {
            assert!(child.wait().unwrap().success());
            break;
        }
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL).unwrap();
        assert!(!child.wait().unwrap().success());
        kills += 1;
        counts.push(cells(Path::new(&killed)).len());
    }
    println!("cells after each of {kills} kills: {counts:?}");
    assert!(kills >= KILLS / 2, "it was done after {kills} kills: it says too little");
    assert_eq!(cells(Path::new(&killed)), expected);
    let left: Vec<_> = std::fs::read_dir(Path::new(&killed).join("cells")).unwrap().collect();
    assert_eq!(left.len(), CELLS, "nothing but cells remains: {left:?}");
    // The tables are the same, too; what differs says when they were made.
    let table = |study: &str| {
        let text = scx_rl(&["experiment", "show", study]).stdout;
        text.lines().filter(|line| !line.contains("begun")).map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(table(&whole), table(&killed));
}

#[test]
fn a_study_can_be_interrupted_listed_and_compared() {
    let folder = Folder::new();
    let spec = folder.with("tiny.toml", STUDY.as_bytes());
    let (root, study) = (folder.text("studies"), folder.text("studies/a"));
    let mut child = start(&["experiment", "run", &spec, "--out-dir", &study]);
    let deadline = Instant::now() + PATIENCE;
    while !Path::new(&study).join("cells").is_dir() || cells(Path::new(&study)).is_empty() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let done = cells(Path::new(&study)).len();
    assert!(done < CELLS);
    scx_rl(&["experiment", "list", &root]).succeeds(&[&format!("{done} of     36 cells  Is it the same")]);
    scx_rl(&["experiment", "show", &study]).succeeds(&["**Incomplete**"]);

    let other = folder.text("studies/b");
    let quick = folder.with("quick.toml", quick().as_bytes());
    scx_rl(&["experiment", "run", &quick, "--out-dir", &other]).succeeds(&["12 cells, 0 of them done"]);
    scx_rl(&["experiment", "run", "--resume", &other]).succeeds(&["12 cells, 12 of them done"]);
    scx_rl(&["experiment", "compare", &other, &other]).succeeds(&["## 16cpu-4llc, learning", "before (b) |", "1.00"]);
    scx_rl(&["experiment", "report", &other]).succeeds(&["report.html", "report.md", "cells.jsonl", "figures.parquet"]);
    let read = |name: &str| std::fs::read_to_string(Path::new(&other).join(name)).unwrap();
    assert_eq!(read("cells.jsonl").lines().count(), 12);
    let table = std::fs::read(Path::new(&other).join("figures.parquet")).unwrap();
    let table = scx_rl::table::Table::open(table.into()).unwrap();
    let rounds = table.whole(0, "round").unwrap();
    assert!(rounds.len() > 12 && rounds.len() == table.text(0, "figure").unwrap().len(), "{rounds:?}");
    let page = read("report.html");
    assert!(
        page.matches("<svg").count() == 2 && page.contains("learning has 1.") || page.contains("learning has 0."),
        "{page}"
    );
    assert!(
        !page.contains("http") || page.matches("http").count() == page.matches("http://www.w3.org").count(),
        "no requests"
    );
    let shown = scx_rl(&["experiment", "show", "--json", &other]);
    let json: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(json["16cpu-4llc"]["workloads"].as_array().unwrap().len(), 4);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let folder = Folder::new();
    let spec = folder.with("tiny.toml", quick().as_bytes());
    let study = folder.text("study");
    scx_rl(&["experiment", "run"]).fails(2, &["SPEC.toml"]);
    scx_rl(&["experiment", "run", "/no/such.toml"]).fails(1, &["reading /no/such.toml"]);
    let bad =
        folder.with("bad.toml", quick().replace("seconds = 0.02", "seconds = -1").replace("rusty", "x").as_bytes());
    scx_rl(&["experiment", "run", &bad]).fails(1, &["bad.toml: the specification has 1 mistake", "line 7, column 11"]);
    scx_rl(&["experiment", "run", &spec, "--check"]).succeeds(&["valid", "12 cells"]);
    scx_rl(&["experiment", "show", &study]).fails(1, &["is no study"]);
    scx_rl(&["experiment", "list", folder.path().to_str().unwrap()]).fails(1, &["no study in"]);

    scx_rl(&["experiment", "run", &spec, "--out-dir", &study]).succeeds(&[]);
    scx_rl(&["experiment", "run", &spec, "--out-dir", &study]).fails(1, &["has a study already", "--resume"]);
    let cell = Path::new(&study).join("cells/16cpu-4llc,1,0,rule,none-short-80.json");
    let text = std::fs::read_to_string(&cell).unwrap();
    std::fs::write(&cell, &text[..text.len() / 2]).unwrap();
    scx_rl(&["experiment", "show", &study]).fails(1, &["none-short-80.json is damaged", "--resume measures it again"]);
    std::fs::remove_file(&cell).unwrap();
    scx_rl(&["experiment", "run", "--resume", &study]).succeeds(&["11 of them done"]);
    // Of another version, and of another specification.
    let about = Path::new(&study).join("study.json");
    let text = std::fs::read_to_string(&about).unwrap();
    std::fs::write(&about, text.replace("\"version\": \"", "\"version\": \"0.0.0 ")).unwrap();
    scx_rl(&["experiment", "run", "--resume", &study]).fails(1, &["was begun by scx_rl 0.0.0", "--out-dir"]);
    std::fs::write(Path::new(&study).join("spec.toml"), quick() + "# changed\n").unwrap();
    scx_rl(&["experiment", "run", "--resume", &study]).fails(1, &["was changed after the study had begun"]);
}

#[test]
fn the_specifications_that_come_with_it_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/specs");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let outcome = scx_rl(&["experiment", "run", "--check", path.to_str().unwrap()]);
        count += 1;
        // What is not installed here may be elsewhere.
        let faults = outcome
            .stderr
            .lines()
            .skip(1)
            .filter(|line| !line.contains("is not installed") && !line.contains("is not on PATH"));
        assert!(outcome.code == Some(0) || faults.count() == 0, "{outcome:#?}");
    }
    assert!(count >= 4);
}
