// SPDX-License-Identifier: GPL-2.0-only
//! `scx_rl replay`: the recorded run again, to the bit; and what it says about recordings that are none.

use scx_rl::agent::recording::{Header, RECORD_BYTES, Reader, Record, Recorder};
use scx_rl::agent::{Agent, Checkpoint, Parameters};

use super::common::{Folder, learn, learn_on};
use super::scx_rl;

fn bits(parameters: &Parameters) -> Vec<u32> {
    parameters.arrays().iter().flat_map(|a| a.iter().map(|v| v.to_bits())).collect()
}

#[test]
fn a_recording_replays_to_the_network_of_its_run() {
    let folder = Folder::new();
    let run = learn(11, 3000);
    let (recording, out) = (folder.with("a.rec", &run.recording), folder.text("out.safetensors"));
    let replay = scx_rl(&["replay", &recording, "--checkpoint", &out]);
    // One restart half way and one at the end; the two halves are 1501 and 1499 events of batches of 512.
    replay.succeeds(&["3000 events and 2 restarts replayed, 4 updates; checkpoint: ", &out]);
    let replayed = Checkpoint::load(out.as_ref()).unwrap();
    assert_eq!(bits(&replayed.parameters), bits(&run.checkpoint.parameters), "bit for bit");
    assert_eq!((replayed.weights, replayed.updates), (run.checkpoint.weights, run.checkpoint.updates));
    assert!(replayed.origin.created_at.ends_with('Z'), "{:?}", replayed.origin);
    scx_rl(&["checkpoint", "show", &out]).succeeds(&["updates     4", "3000 learned from"]);
    // It learned something: another seed gives another network.
    assert_ne!(bits(&replayed.parameters), bits(&learn(12, 3000).checkpoint.parameters));
}

#[test]
fn a_resumed_run_replays_onto_its_checkpoint() {
    let folder = Folder::new();
    let first = learn(13, 1200).checkpoint;
    let second = learn_on(Agent::resume(&first).unwrap(), 14, 2000);
    let resume = folder.with("first.safetensors", &first.to_bytes().unwrap());
    let recording = folder.with("second.rec", &second.recording);
    let out = folder.text("out.safetensors");
    scx_rl(&["replay", &recording, "--checkpoint", &out]).fails(
        1,
        &[
            "cannot replay",
            &recording,
            "seed 13 after 2 updates",
            "replay onto the checkpoint that the run resumed from",
        ],
    );
    assert!(!folder.file("out.safetensors").exists());
    scx_rl(&["replay", &recording, "--resume", &resume, "--checkpoint", &out])
        .succeeds(&["2000 events and 2 restarts"]);
    let replayed = Checkpoint::load(out.as_ref()).unwrap();
    assert_eq!(bits(&replayed.parameters), bits(&second.checkpoint.parameters));
    assert_eq!(replayed.origin.topology, first.origin.topology, "where it comes from is kept");
}

#[test]
fn a_recording_that_reached_its_limit_says_so() {
    let folder = Folder::new();
    let run = learn(15, 600);
    let header = Header::of(&Agent::new(run.agent.hyper().clone(), run.agent.seed()).unwrap());
    let mut recorder = Recorder::new(Vec::new(), &header, Some(20_000)).unwrap();
    for record in Reader::new(run.recording.as_slice()).unwrap() {
        if let Record::Event(event) = record.unwrap() {
            recorder.events(&[event]).unwrap();
        }
    }
    assert!(recorder.lost() > 0);
    let recording = folder.with("a.rec", &recorder.finish().unwrap());
    scx_rl(&["replay", &recording, "--checkpoint", &folder.text("out.safetensors")])
        .succeeds(&["the recording ended at its size limit"]);
}

#[test]
fn bad_recordings_are_refused_with_the_reason() {
    let folder = Folder::new();
    let good = learn(16, 600).recording;
    let records = 602;
    let header = good.len() - records * RECORD_BYTES;
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let noise: Vec<u8> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let cut = |n: usize| good[..n].to_vec();
    let files: [(&str, Vec<u8>, &[&str]); 9] = [
        ("empty", vec![], &["cut off within its header"]),
        ("noise", noise, &["not a recording of scx_rl", "--record"]),
        ("a checkpoint", learn(16, 600).checkpoint.to_bytes().unwrap(), &["not a recording of scx_rl"]),
        ("cut in the header", cut(header - 1), &["cut off within its header", "nothing can be replayed"]),
        ("cut in the last record", cut(good.len() - 1), &["ends within a record, after 601 whole ones"]),
        ("cut in the first record", cut(header + 1), &["ends within a record, after 0 whole ones"]),
        ("a damaged record", with(header + 4 * RECORD_BYTES, 77), &["record 4 has the unknown tag 77"]),
        ("another format", with(8, 9), &["format of the recording is 9", "replay it with the build that wrote it"]),
        ("another feature table", with(40, b'x'), &["feature schema", "replay it with the build that wrote it"]),
    ];
    let out = folder.text("out.safetensors");
    for (name, bytes, parts) in files {
        println!("{name}");
        let path = folder.with(name, &bytes);
        let outcome = scx_rl(&["replay", &path, "--checkpoint", &out]);
        outcome.fails(1, parts);
        outcome.fails(1, &["cannot replay", &path]);
    }
    scx_rl(&["replay", &folder.text("missing"), "--checkpoint", &out])
        .fails(1, &["cannot open the recording", "missing", "No such file"]);
    scx_rl(&["replay", &folder.text("."), "--checkpoint", &out]).fails(1, &["cannot replay", "Is a directory"]);
    assert!(!folder.file("out.safetensors").exists(), "nothing is written for any of them");
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_told() {
    let folder = Folder::new();
    let recording = folder.with("a.rec", &learn(17, 600).recording);
    for (path, why) in [
        (folder.text("absent/out.safetensors"), "No such file or directory"),
        (folder.text("a.rec/out.safetensors"), "Not a directory"),
    ] {
        scx_rl(&["replay", &recording, "--checkpoint", &path]).fails(1, &["cannot write", &path, why]);
    }
}
