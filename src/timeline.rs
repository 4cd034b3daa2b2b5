// SPDX-License-Identifier: GPL-2.0-only
//! Timelines to look at, as JSON in the Trace Event Format, which Perfetto (ui.perfetto.dev) and Chrome's tracer open: of a
//! recording (`scx_rl timeline`), what was decided and what came of it; of a simulation, what ran where, too.
//!
//! Each home domain is a "process" whose "threads" are tasks: a slice from the decision to when the task ran (at TURN, to
//! the end of the turn), named after the action. A simulation has one more for each last-level cache, whose "threads" are
//! its CPUs. Times are those of the kernel's clock, or simulated.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::agent::recording;
use crate::policy::host::feature_names;
use crate::policy::{RL_EV_CENSORED, RL_MIGRATE, RL_POINT_PULL, RL_POINT_TURN, rl_event};
use crate::process::print;

/// Numbers of processes with decisions begin here; those below are last-level caches.
const DECISIONS: usize = 1000;

/// The decisions of a recording on a timeline, for Perfetto (ui.perfetto.dev, which keeps the file in the browser).
///
/// Each home domain is a process, each task a thread: a slice from the decision to when the task ran, named
/// after the point and the action (at TURN, to the end of the turn). Click on one for its probability, its
/// features, where the task ran, how long, and how long it usually does (at TURN: the least that one of those
/// who wait wants).
///
/// Example:
///
///   scx_rl --learn --record run.rec --duration 60
///   scx_rl timeline run.rec --out run.json
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct TimelineArgs {
    /// A recording that --record wrote.
    pub recording: PathBuf,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Only decisions about this task (its thread id).
    #[arg(long, value_name = "TID")]
    pub task: Option<u32>,
    /// At most so many decisions, the first ones: some 600 bytes each, and browsers take some 100,000.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,
}

/// The subcommand `timeline`.
///
/// # Errors
/// The recording cannot be used or holds no such decision; or the file cannot be written.
pub fn run(args: &TimelineArgs) -> Result<()> {
    let (mut events, mut left_out) = (Vec::new(), 0);
    for event in recording::events(&args.recording)? {
        let event = event?;
        match (args.task.is_none_or(|task| task == event.tid), (events.len() as u64) < args.limit) {
            (true, true) => events.push(event),
            (true, false) => left_out += 1,
            (false, _) => {}
        }
    }
    let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    ensure!(!same(&args.recording, &args.out), "--out is the recording itself: choose another file");
    ensure!(!events.is_empty(), "{} holds no such decision", args.recording.display());
    let mut trace = Trace::create(&args.out, Vec::new())?;
    for event in &events {
        trace.decision(event);
    }
    trace.finish(0)?;
    let rest = if left_out > 0 { format!("; {left_out} more left out: see --limit and --task") } else { String::new() };
    print(&format!("{} decisions in {}{rest}\n", events.len(), args.out.display()))
}

/// A trace that is being written.
pub struct Trace {
    out: BufWriter<File>,
    /// What runs on each CPU, and since when, ns.
    running: Vec<Option<(String, u64)>>,
    /// The last-level cache of each CPU.
    llcs: Vec<usize>,
    /// Home domains that have got a name.
    homes: HashSet<u16>,
    /// Names of the features.
    features: Vec<&'static str>,
    first: bool,
    /// The first error; nothing is written after it.
    failed: Option<std::io::Error>,
}

impl Trace {
    /// A new trace of a machine whose CPUs have these last-level caches; no CPUs: only decisions.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(path: &Path, llcs: Vec<usize>) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write a timeline to {}", path.display()))?;
        let running = vec![None; llcs.len()];
        let features = feature_names();
        let out = BufWriter::new(file);
        let mut trace = Self { out, running, llcs, homes: HashSet::new(), features, first: true, failed: None };
        for llc in 0..trace.llcs.iter().max().map_or(0, |&last| last + 1) {
            trace.name_process(llc, &format!("LLC {llc}"));
        }
        for cpu in 0..trace.llcs.len() {
            let (pid, name) = (trace.llcs[cpu], format!("CPU {cpu}"));
            trace.event(&json!({"name": "thread_name", "ph": "M", "pid": pid, "tid": cpu, "args": {"name": name}}));
        }
        Ok(trace)
    }

    fn name_process(&mut self, pid: usize, name: &str) {
        self.event(&json!({"name": "process_name", "ph": "M", "pid": pid, "args": {"name": name}}));
    }

    /// From now on this task runs on the CPU, or none.
    pub fn switch(&mut self, cpu: usize, next: Option<&str>, now_ns: u64) {
        let began = std::mem::replace(&mut self.running[cpu], next.map(|name| (name.to_string(), now_ns)));
        if let Some((name, began_ns)) = began {
            let pid = self.llcs[cpu];
            self.event(&slice(&name, pid, cpu, began_ns, now_ns - began_ns, json!({})));
        }
    }

    /// A decision, with what came of it.
    pub fn decision(&mut self, event: &rl_event) {
        let chosen = u32::from(event.action) == RL_MIGRATE;
        let (point, action) = match (u32::from(event.point), chosen) {
            (RL_POINT_PULL, true) => ("pull", "migrate"),
            (RL_POINT_PULL, false) => ("pull", "stay"),
            (RL_POINT_TURN, true) => ("turn", "go on"),
            (RL_POINT_TURN, false) => ("turn", "end"),
            (_, true) => ("wake", "migrate"),
            (_, false) => ("wake", "stay"),
        };
        let features = self.features.iter().map(ToString::to_string).zip(event.features.map(Value::from));
        let details = json!({
            "other": event.other_dom,
            "ran": event.ran_dom,
            "p_migrate": f64::from(event.p_migrate_q16) / 65536.0,
            "service_us": event.service_ns as f64 / 1e3,
            // At TURN it is what one of those who wait wants.
            if point == "turn" { "least_want_us" } else { "usual_us" }: event.usual_service_ns as f64 / 1e3,
            "censored": event.flags & RL_EV_CENSORED != 0,
            "features": Value::Object(features.collect()),
        });
        let pid = DECISIONS + usize::from(event.home_dom);
        if self.homes.insert(event.home_dom) {
            self.name_process(pid, &format!("decisions, home {}", event.home_dom));
        }
        // At TURN the task runs already.
        let lasted_ns = if point == "turn" { event.service_ns } else { event.wait_ns };
        let name = format!("{point}: {action}");
        self.event(&slice(&name, pid, event.tid as usize, event.decided_at_ns, lasted_ns, details));
    }

    /// The end of the trace.
    ///
    /// # Errors
    /// Something could not be written, now or before.
    pub fn finish(mut self, now_ns: u64) -> Result<()> {
        for cpu in 0..self.running.len() {
            self.switch(cpu, None, now_ns);
        }
        let end = if self.first { "[]\n" } else { "\n]\n" };
        let written = match self.failed {
            Some(error) => Err(error),
            None => self.out.write_all(end.as_bytes()).and_then(|()| self.out.flush()),
        };
        written.context("the timeline is not complete")
    }

    fn event(&mut self, event: &Value) {
        if self.failed.is_some() {
            return;
        }
        let before = if std::mem::replace(&mut self.first, false) { "[\n" } else { ",\n" };
        self.failed = write!(self.out, "{before}{event}").err();
    }
}

/// A slice of time, ns.
fn slice(name: &str, pid: usize, tid: usize, at_ns: u64, ns: u64, args: Value) -> Value {
    json!({"name": name, "ph": "X", "pid": pid, "tid": tid, "ts": at_ns as f64 / 1e3, "dur": ns as f64 / 1e3, "args": args})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_json_with_a_slice_for_each_run() {
        let path = std::env::temp_dir().join(format!("scx_rl-trace-{}", std::process::id()));
        let mut trace = Trace::create(&path, vec![0, 1]).unwrap();
        trace.switch(0, Some("a"), 1_000);
        trace.switch(0, Some("b"), 3_000);
        trace.decision(&rl_event {
            home_dom: 1,
            tid: 7,
            action: 1,
            decided_at_ns: 500,
            wait_ns: 250,
            ..Default::default()
        });
        trace.finish(9_000).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let Value::Array(events) = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
        let slices: Vec<_> = events.iter().filter(|e| e["ph"] == "X").collect();
        let times =
            |i: usize| (slices[i]["name"].as_str().unwrap(), slices[i]["ts"].as_f64(), slices[i]["dur"].as_f64());
        assert_eq!(slices.len(), 3);
        assert_eq!(times(0), ("a", Some(1.0), Some(2.0)));
        assert_eq!(times(1), ("wake: migrate", Some(0.5), Some(0.25)));
        assert_eq!(times(2), ("b", Some(3.0), Some(6.0)));
        assert_eq!(events.iter().filter(|e| e["name"] == "thread_name").count(), 2);
    }
}
