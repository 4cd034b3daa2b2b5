// SPDX-License-Identifier: GPL-2.0-only
//! `scx_rl fleet`: from recordings of two machines to one checkpoint, by way of a shared folder.

use std::path::Path;

use scx_rl::agent::{Agent, Checkpoint, Hyper};
use scx_rl::fleet::events;

use super::common::{Folder, events_of, learn, origin};
use super::scx_rl;

/// The tables below a folder, in the order of their names.
fn tables(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(tables(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn machines_share_what_they_saw() {
    let folder = Folder::new();
    let (a, b) = (learn(41, 3000), learn(42, 2000));
    let place = folder.text("fleet");
    let recordings = [folder.with("a.rec", &a.recording), folder.with("b.rec", &b.recording)];
    let latest = folder.with("latest.safetensors", &a.checkpoint.to_bytes().unwrap());
    scx_rl(&["fleet", "push", &recordings[0], &latest, "--to", &place, "--machine", "a"]).succeeds(&[
        "events/machine=a/date=20",
        ".parquet, 3000 events",
        "checkpoints/machine=a/latest.safetensors\n",
    ]);
    scx_rl(&["fleet", "push", &recordings[1], "--to", &place, "--machine", "b"]).succeeds(&["2000 events"]);
    // Again, by another spelling of the place: it is there once.
    scx_rl(&["fleet", "push", &recordings[1], "--to", &format!("file://{place}"), "--machine", "b"]).succeeds(&[]);
    let listed = scx_rl(&["fleet", "list", &place]);
    listed.succeeds(&["  checkpoints/machine=a/latest.safetensors\n", "  events/machine=b/date=20"]);
    assert_eq!(listed.stdout.lines().count(), 3);

    // What is there is what was recorded, to the bit.
    let mut read = Vec::new();
    for table in tables(&folder.file("fleet/events")) {
        let count = events::read(std::fs::read(table).unwrap().into(), |event| {
            read.push(*event);
            Ok(())
        });
        assert!(count.unwrap() >= 2000);
    }
    let recorded = [events_of(&a.recording), events_of(&b.recording)].concat();
    assert_eq!(read.len(), recorded.len());
    assert!(read.iter().zip(&recorded).all(|(read, recorded)| format!("{read:?}") == format!("{recorded:?}")));

    // Learning from it is learning from them.
    let out = folder.text("fleet.safetensors");
    scx_rl(&["fleet", "learn", &format!("{place}/events"), "--checkpoint", &out, "--seed", "5"]).succeeds(&[
        "5000 events in 2 tables, 5000 of them learned from",
        "9 updates",
        &out,
    ]);
    let mut agent = Agent::imitating(Hyper::default(), 5).unwrap();
    agent.observe(&recorded).unwrap();
    let expected = agent.checkpoint(origin()).unwrap();
    assert_eq!(Checkpoint::load(out.as_ref()).unwrap().parameters, expected.parameters);
    scx_rl(&["fleet", "learn", &place, "--checkpoint", &out, "--resume", &out, "--passes", "2"])
        .succeeds(&["10000 events in 4 tables", "19 updates"]);

    let pulled = folder.text("pulled.safetensors");
    scx_rl(&["fleet", "pull", &format!("{place}/checkpoints/machine=a/latest.safetensors"), &pulled]).succeeds(&[]);
    assert_eq!(std::fs::read(&pulled).unwrap(), std::fs::read(&latest).unwrap());
}

#[test]
fn what_cannot_be_shared_or_learned_from_is_told() {
    let folder = Folder::new();
    let run = learn(43, 600);
    let (recording, place) = (folder.with("a.rec", &run.recording), folder.text("fleet"));
    let noise = folder.with("noise", b"noise");
    let push = |file: &str, rest: &[&str]| scx_rl(&[&["fleet", "push", file, "--to", &place], rest].concat());
    push(&noise, &[]).fails(1, &["neither a recording nor a checkpoint", "noise"]);
    push(&folder.text("absent"), &[]).fails(1, &["cannot read", "absent", "No such file"]);
    push(&recording, &["--machine", "a/../b"]).fails(1, &["--machine", "cannot be part of a name"]);
    let unnamed = folder.with("latest", &run.checkpoint.to_bytes().unwrap());
    push(&unnamed, &[]).fails(1, &["let its name end with .safetensors"]);
    scx_rl(&["fleet", "push", &recording, &noise, "--to", &place]).fails(1, &["neither a recording nor a checkpoint"]);
    assert!(!folder.file("fleet").exists(), "nothing is written if one of them is wrong");
    scx_rl(&["fleet", "push", &recording, "--to", "ftp://host/x"]).fails(1, &["ftp://host/x", "s3://BUCKET"]);

    let out = folder.text("out.safetensors");
    let learn = |place: &str| scx_rl(&["fleet", "learn", place, "--checkpoint", &out]);
    learn(&place).fails(1, &["there is nothing at", &place]);
    scx_rl(&["fleet", "list", &place]).fails(1, &["there is nothing at"]);
    std::fs::create_dir_all(folder.file("fleet/events")).unwrap();
    let bad = folder.with("fleet/events/bad.parquet", b"PAR1 noise PAR1");
    learn(&place).fails(1, &["cannot learn from", "bad.parquet", "not a Parquet file, or a damaged one"]);
    let few = events::write(&events_of(&run.recording)[..100], 0).unwrap();
    std::fs::write(&bad, few).unwrap();
    learn(&place).fails(1, &["100 events, 100 of them usable, are fewer than an update takes (512)"]);
    assert!(!folder.file("out.safetensors").exists());
    std::fs::write(folder.file("fleet/x.safetensors"), b"noise").unwrap();
    scx_rl(&["fleet", "pull", &format!("{place}/x.safetensors"), &out])
        .fails(1, &["x.safetensors is not fit to be used"]);
    scx_rl(&["fleet", "pull", &format!("{place}/absent"), &out]).fails(1, &["cannot read", "absent"]);
}

#[test]
fn a_simulated_machine_records_too() {
    let folder = Folder::new();
    let recording = folder.text("sim.rec");
    scx_rl(&["sim", "--cpus", "4", "--llcs", "2", "--seconds", "0.3", "--balancer", "random", "--record", &recording])
        .succeeds(&["\"balancer\": \"random\""]);
    let events = events_of(&std::fs::read(&recording).unwrap());
    assert!(events.len() > 100 && events.iter().all(|event| event.p_migrate_q16 == 1 << 15), "{}", events.len());
    scx_rl(&["ope", &recording]).succeeds(&["| heuristic "]);
    scx_rl(&["sim", "--seconds", "0.1", "--record", &recording]).fails(1, &["--record needs --balancer random"]);
}
