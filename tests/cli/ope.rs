// SPDX-License-Identifier: GPL-2.0-only
//! `scx_rl ope`: policies judged by a recording, and what it says where that cannot be done.

use scx_rl::agent::recording::{Header, RECORD_BYTES, Recorder};
use scx_rl::agent::{Agent, Checkpoint, quantise, reward};
use scx_rl::policy::host;
use scx_rl::policy::{
    RL_EV_CENSOR_EXIT, RL_EV_REDECIDED, RL_F_other_idle, RL_HIDDEN, RL_MODE_HEURISTIC, RL_PROB_ONE, RL_STAY, rl_event,
    rl_slot,
};
use serde_json::Value;

use super::common::{Folder, Run, events_of, learn};
use super::scx_rl;

/// A recording of these events, as of the run's beginning.
fn recorded(run: &Run, events: &[rl_event], limit_bytes: Option<u64>) -> Vec<u8> {
    let fresh = Agent::new(run.agent.hyper().clone(), run.agent.seed()).unwrap();
    let mut recorder = Recorder::new(Vec::new(), &Header::of(&fresh), limit_bytes).unwrap();
    recorder.events(events).unwrap();
    recorder.finish().unwrap()
}

fn json(args: &[&str]) -> Value {
    let outcome = scx_rl(&[&["ope", "--json"], args].concat());
    outcome.succeeds(&[]);
    assert!(outcome.stderr.is_empty(), "{outcome:#?}");
    serde_json::from_str(&outcome.stdout).unwrap()
}

/// The row of a policy.
fn row<'a>(report: &'a Value, policy: &str) -> &'a Value {
    let rows = report["policies"].as_array().unwrap();
    rows.iter().find(|row| row["policy"] == policy).unwrap_or_else(|| panic!("no {policy} in {report:#}"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

#[test]
fn policies_are_judged_by_a_recording() {
    let folder = Folder::new();
    let run = learn(31, 6000);
    let recording = folder.with("a.rec", &run.recording);
    let text = scx_rl(&["ope", &recording]);
    text.succeeds(&[
        &format!("{recording}: 6000 events\n"),
        "6000 of 6000 events used, which stand for 6000 decisions; 0 of them were decided again",
        "| policy ",
        "| logged ",
        "| heuristic ",
        "| stay ",
        "| migrate ",
        "| random ",
        "95 % confidence intervals from 20 blocks",
        "| minus logged ",
        " +- ",
        "Decisions share queues",
    ]);
    assert!(!text.stdout.contains("left out") && !text.stdout.contains("not enough"), "{text:#?}");

    let report = json(&[&recording]);
    assert_eq!((&report["counts"]["used"], &report["blocks"]), (&6000.into(), &20.into()));
    let mean_ms = events_of(&run.recording).iter().map(reward::raw_reward_ms).sum::<f64>() / 6000.0;
    let logged = row(&report, "logged");
    assert_eq!(logged["difference"], Value::Null);
    for estimator in ["ips", "snips", "dr"] {
        assert!((number(&logged["value"]["estimates"]["Ok"][estimator]["value_ms"]) - mean_ms).abs() < 1e-9);
    }
    // The right action costs 1 ms, the wrong one 4, and both 0.25 of noise; service is the usual one on the mean.
    let coin = &row(&report, "random")["value"]["estimates"]["Ok"]["dr"];
    let error_ms = number(&coin["error_ms"]);
    assert!(error_ms < 0.1 && (number(&coin["value_ms"]) + 2.75).abs() < 4.0 * error_ms, "{coin}");
    assert_eq!(row(&report, "stay")["value"]["migrated_share"], 0.0);
    assert_eq!(row(&report, "migrate")["value"]["migrated_share"], 1.0);
    assert_eq!(json(&[&recording]), report, "nothing is random");
}

/// The network that is always right here: it migrates where more than half of the other domain's CPUs are idle.
pub(super) fn right(mut checkpoint: Checkpoint) -> Checkpoint {
    let actor = &mut checkpoint.parameters.actor;
    [&mut actor.w1, &mut actor.b1, &mut actor.w2, &mut actor.b2].into_iter().for_each(|array| array.fill(0.0));
    actor.w1[RL_F_other_idle as usize * RL_HIDDEN as usize] = 1.0;
    (actor.w2[0], actor.b2[0]) = (3.0, -3.0 * 63.5 / 64.0);
    checkpoint.weights = quantise::quantise(actor).unwrap().weights;
    checkpoint
}

#[test]
fn checkpoints_are_judged_greedy_and_drawing() {
    let folder = Folder::new();
    let run = learn(32, 6000);
    let recording = folder.with("a.rec", &run.recording);
    let checkpoint = right(run.checkpoint);
    let file = folder.with("right.safetensors", &checkpoint.to_bytes().unwrap());
    let (drawn, greedy) = (format!("{file}:learn"), format!("{file}:greedy"));
    let policies = ["--policy", &greedy, "--policy", &drawn, "--against", "stay"];
    let report = json(&[&policies[..], &["--explore-floor", "0.25", &recording]].concat());
    let names: Vec<&Value> = report["policies"].as_array().unwrap().iter().map(|row| &row["policy"]).collect();
    assert_eq!(names, ["stay", greedy.as_str(), drawn.as_str()]);
    let share = |name: &str| number(&row(&report, name)["value"]["migrated_share"]);
    assert!((0.25..=0.75).contains(&share(&drawn)), "{}", share(&drawn));
    let dr = |name: &str| &row(&report, name)["value"]["estimates"]["Ok"]["dr"];
    let (better, learning) = (dr(&greedy), dr(&drawn));
    // To be right costs 1 ms and 0.25 of noise; to be wrong 3 more.
    let slot = rl_slot { floor_q16: RL_PROB_ONE / 4, weights: checkpoint.weights, ..Default::default() };
    let wrong = |e: &rl_event| {
        let p = f64::from(host::act(&slot, &e.features, 0).p_migrate_q16) / f64::from(RL_PROB_ONE);
        if e.features[RL_F_other_idle as usize] > 63 { 1.0 - p } else { p }
    };
    let wrong_share = events_of(&run.recording).iter().map(wrong).sum::<f64>() / 6000.0;
    assert!((0.25..0.5).contains(&wrong_share));
    for (found, truth_ms) in [(better, -1.25), (learning, -1.25 - 3.0 * wrong_share)] {
        let off_ms = (number(&found["value_ms"]) - truth_ms).abs();
        assert!(off_ms < 4.0 * number(&found["error_ms"]) && number(&found["error_ms"]) < 0.1, "{truth_ms}: {found}");
    }
    let difference = &row(&report, &greedy)["difference"]["estimates"]["Ok"]["dr"];
    let expected_ms = number(&better["value_ms"]) - number(&dr("stay")["value_ms"]);
    assert!((number(&difference["value_ms"]) - expected_ms).abs() < 1e-9);
    assert!(number(&difference["at_least_ms"]) > 1.0, "{difference}");
    scx_rl(&["ope", &recording, "--policy", &file, "--against", "stay"]).succeeds(&["| minus stay ", &file]);
}

#[test]
fn what_is_left_out_is_counted_by_reason() {
    let folder = Folder::new();
    let run = learn(33, 2000);
    let mut events = events_of(&run.recording);
    events[..3].iter_mut().for_each(|e| e.flags = RL_EV_CENSOR_EXIT);
    events[3].version = 9;
    (events[4].mode, events[4].p_migrate_q16, events[4].action) = (RL_MODE_HEURISTIC as u8, 0, RL_STAY as u8);
    events[5].flags = RL_EV_REDECIDED;
    let first = folder.with("a.rec", &recorded(&run, &events, None));
    scx_rl(&["ope", &first]).succeeds(&[
        "1995 of 2000 events used",
        "1 of them were decided again",
        "left out: 3 censored (exit), 1 decided with certainty, 1 invalid (event version)",
    ]);
    // Two recordings are taken together.
    let second = folder.with("b.rec", &learn(34, 700).recording);
    let both = json(&[&first, &second]);
    assert_eq!((&both["counts"]["events"], &both["counts"]["used"]), (&2700.into(), &2695.into()));
    assert_eq!(both["counts"]["censored"]["exit"], 3);
    assert_eq!((&both["recordings"][1]["events"], &both["recordings"][1]["cut"]), (&700.into(), &Value::Null));
}

#[test]
fn a_recording_that_was_cut_is_used_as_far_as_it_goes() {
    let folder = Folder::new();
    let run = learn(35, 900);
    let torn = folder.with("torn.rec", &run.recording[..run.recording.len() - RECORD_BYTES - 1]);
    // The last of the 902 records is a restart.
    scx_rl(&["ope", &torn]).succeeds(&["899 events; used as far as it goes: the recording ends within a record"]);
    let stopped = folder.with("stopped.rec", &recorded(&run, &events_of(&run.recording), Some(70_000)));
    scx_rl(&["ope", &stopped]).succeeds(&["used as far as it goes: it stopped at its size limit", "| logged "]);
}

#[test]
fn too_little_is_said_instead_of_a_number() {
    let folder = Folder::new();
    let run = learn(36, 300);
    let few = folder.with("few.rec", &run.recording);
    let text = scx_rl(&["ope", &few]);
    text.succeeds(&[
        "not enough",
        "heuristic: not enough: 300 events can be used, and 500 are needed: record for longer",
    ]);
    assert!(!text.stdout.contains("+-"), "no interval: {text:#?}");
    let report = json(&[&few]);
    let estimates = &row(&report, "stay")["value"]["estimates"];
    assert!(estimates["Err"].as_str().unwrap().starts_with("300 events can be used"), "{estimates}");
    assert_eq!(estimates["Ok"], Value::Null);
}

#[test]
fn recordings_that_tell_nothing_are_refused_with_the_reason() {
    let folder = Folder::new();
    let run = learn(37, 600);
    let good = folder.with("good.rec", &run.recording);
    let mut fixed = events_of(&run.recording);
    fixed.iter_mut().for_each(|e| {
        (e.mode, e.p_migrate_q16) = (RL_MODE_HEURISTIC as u8, if e.action == 0 { 0 } else { RL_PROB_ONE });
    });
    let mut damaged = run.recording.clone();
    let header = damaged.len() - 602 * RECORD_BYTES;
    damaged[header + 4 * RECORD_BYTES] = 77;
    let files: [(&str, Vec<u8>, &[&str]); 5] = [
        ("fixed", recorded(&run, &fixed, None), &["no action was drawn: 600 events", "record with --learn"]),
        ("nothing", recorded(&run, &[], None), &["there are no events: record for longer"]),
        ("empty", vec![], &["cut off within its header"]),
        ("noise", vec![9; 5000], &["not a recording of scx_rl", "--record"]),
        ("damaged", damaged, &["cannot evaluate from", "record 4 has the unknown tag 77"]),
    ];
    for (name, bytes, parts) in files {
        println!("{name}");
        scx_rl(&["ope", &folder.with(name, &bytes)]).fails(1, parts);
    }
    scx_rl(&["ope", &folder.text("missing")]).fails(1, &["cannot open the recording", "No such file"]);
    scx_rl(&["ope", &good, &folder.text("missing")]).fails(1, &["cannot open the recording"]);
    scx_rl(&["ope", &folder.text(".")]).fails(1, &["cannot evaluate from", "Is a directory"]);
}

#[test]
fn policies_that_make_no_sense_are_refused_by_name() {
    let folder = Folder::new();
    let recording = folder.with("a.rec", &learn(38, 600).recording);
    for flag in ["--policy", "--against"] {
        scx_rl(&["ope", &recording, flag, "heuristik"])
            .fails(1, &["\"heuristik\" is neither one of logged, heuristic, stay", "there is no checkpoint heuristik"]);
        scx_rl(&["ope", &recording, flag, &format!("{recording}:learn")]).fails(1, &["neither one of", "cannot use"]);
    }
    scx_rl(&["ope", &recording, "--clip", "0.5"]).fails(1, &["clip = 0.5", "at least 1"]);
    scx_rl(&["ope", &recording, "--clip", "nan"]).fails(1, &["clip = NaN"]);
    scx_rl(&["ope", &recording, "--explore-floor", "0.6"]).fails(2, &["--explore-floor", "0.6"]);
    scx_rl(&["ope"]).fails(2, &["<RECORDING>"]);
    scx_rl(&["ope", &recording, "--clip", "1.2"]).succeeds(&["Weights are cut down to 1.2, in favour of"]);
}

#[test]
fn what_drives_decisions_is_told() {
    let folder = Folder::new();
    let run = learn(33, 3000);
    let recording = folder.with("a.rec", &run.recording);
    let task = events_of(&run.recording)[0].tid.to_string();
    let file = folder.with("right.safetensors", &right(run.checkpoint).to_bytes().unwrap());
    let text = scx_rl(&["explain", &file, &recording, "--last", "2"]);
    text.succeeds(&[
        "WAKE: ",
        "PULL: ",
        "p(migrate)",
        "| other_idle ",
        "adds to the logit",
        "then waited",
        " decided: ",
    ]);
    let json = scx_rl(&["explain", &file, &recording, "--task", &task, "--json"]);
    json.succeeds(&[]);
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    for of in report["overviews"].as_array().unwrap() {
        // It looks at this feature only.
        assert_eq!(of["pushes"][0]["feature"], "other_idle");
        assert!(number(&of["pushes"][0]["logit"]) > 1.0 && number(&of["pushes"][1]["logit"]) == 0.0, "{of:#}");
    }
    let decisions = report["decisions"].as_array().unwrap();
    assert_eq!(decisions.len(), 5);
    for decision in decisions {
        let push = &decision["pushes"][0];
        let idle = number(&push["value"]) > 63.0;
        assert_eq!(idle, number(&decision["p_migrate"]) > 0.5, "{decision:#}");
        assert_eq!(idle, number(&push["logit"]) > 0.0, "{decision:#}");
    }
    assert_eq!(scx_rl(&["explain", &file, &recording, "--task", &task, "--json"]).stdout, json.stdout, "reproducible");
    scx_rl(&["explain", &file, &recording, "--task", "4000000"]).fails(1, &["holds no decision about task 4000000"]);
    scx_rl(&["explain", &file, "/nonexistent"]).fails(1, &["cannot read the recording /nonexistent"]);
    scx_rl(&["explain", &recording, &recording]).fails(1, &["cannot use"]);
}

#[test]
fn decisions_are_drawn_on_a_timeline() {
    let folder = Folder::new();
    let run = learn(33, 3000);
    // A writer that was killed: the last record is not whole.
    let recording = folder.with("a.rec", &run.recording[..run.recording.len() - RECORD_BYTES - 9]);
    let mut all = events_of(&run.recording);
    all.pop();
    let out = folder.text("a.json");
    let drawn = |args: &[&str]| -> Vec<Value> {
        scx_rl(&[&["timeline", &recording, "--out", &out], args].concat()).succeeds(&[" decisions in "]);
        let Value::Array(list) = serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap() else {
            panic!()
        };
        list.into_iter().filter(|event| event["ph"] == "X").collect()
    };
    let slices = drawn(&[]);
    assert_eq!(slices.len(), all.len());
    for (slice, event) in slices.iter().zip(&all) {
        assert_eq!(slice["tid"], event.tid);
        assert_eq!(number(&slice["ts"]), event.decided_at_ns as f64 / 1e3);
        assert_eq!(slice["args"]["features"]["other_idle"], event.features[RL_F_other_idle as usize]);
    }
    let task = all[0].tid.to_string();
    assert_eq!(drawn(&["--task", &task]).len(), all.iter().filter(|event| event.tid == all[0].tid).count());
    assert_eq!(drawn(&["--limit", "10"]).len(), 10);
    scx_rl(&["timeline", &recording, "--out", &out, "--task", "4000000"]).fails(1, &["holds no such decision"]);
    scx_rl(&["timeline", &recording, "--out", "/nonexistent/a"])
        .fails(1, &["cannot write a timeline to /nonexistent/a"]);
}
