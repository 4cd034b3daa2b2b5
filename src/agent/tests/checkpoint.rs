// SPDX-License-Identifier: GPL-2.0-only
//! Checkpoints: complete, checked, and the end of one run is the start of the next.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use safetensors::tensor::Dtype;

use super::super::format::{Raw, RawTensor, open, seal};
use super::*;

/// A folder for one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("scx_rl-agent-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn names(&self) -> Vec<String> {
        fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn origin() -> Origin {
    Origin {
        generation: 17,
        kernel: "6.18.15 \"test\"".to_string(),
        topology: "4 LLCs x 2 CPUs, ünïcode".to_string(),
        created_at: "2026-11-01T12:00:00Z".to_string(),
    }
}

fn trained() -> Agent {
    let mut agent = Agent::new(small(), 21).unwrap();
    agent.observe(&World::new(21, RL_MODE_RANDOM).events(1000)).unwrap();
    agent
}

fn sample_checkpoint() -> Checkpoint {
    trained().checkpoint(origin()).unwrap()
}

#[test]
fn resumed_equals_uninterrupted() {
    let folder = Folder::new();
    let path = folder.0.join("run.safetensors");
    let mut world = World::new(22, RL_MODE_DRAW);
    let mut agent = Agent::new(small(), 22).unwrap();
    for part in 0..4 {
        world.slot.weights = agent.weights().unwrap();
        let events = world.events(700 + part);
        agent.observe(&events).unwrap();
        agent.checkpoint(origin()).unwrap().save(&path).unwrap();

        let mut resumed = Agent::resume(&Checkpoint::load(&path).unwrap()).unwrap();
        assert_eq!(resumed.weights().unwrap(), agent.weights().unwrap());
        let events = world.events(1234);
        agent.observe(&events).unwrap();
        resumed.observe(&events).unwrap();
        assert_eq!(bits(&resumed), bits(&agent));
        assert_eq!(resumed.metrics(), agent.metrics());
        // And so is what the two would save next: normaliser, random numbers, counters.
        assert_eq!(resumed.checkpoint(origin()).unwrap(), agent.checkpoint(origin()).unwrap());
        agent = resumed;
    }
    assert!(agent.metrics().updates > 100);
}

#[test]
fn a_file_holds_everything() {
    let folder = Folder::new();
    let path = folder.0.join("a.safetensors");
    let checkpoint = sample_checkpoint();
    checkpoint.save(&path).unwrap();
    let loaded = Checkpoint::load(&path).unwrap();
    assert_eq!(loaded, checkpoint);
    assert_eq!(loaded.publishable().unwrap(), loaded.weights);
    checkpoint.save(&path).unwrap();
    assert_eq!(folder.names(), ["a.safetensors"], "no temporary file is left");

    let text = checkpoint.describe();
    for part in ["6.18.15", "4 LLCs", "18-12-1", "other_idle", "updates     15", "generation  17", "publishable yes"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let json = serde_json::to_value(checkpoint.summary()).unwrap();
    assert_eq!((&json["updates"], &json["kernel"]), (&15.into(), &"6.18.15 \"test\"".into()));
    assert_eq!(json["counters"]["accepted"], 1000);
}

#[test]
fn a_failed_save_leaves_the_old_file() {
    let folder = Folder::new();
    let path = folder.0.join("a.safetensors");
    let mut checkpoint = sample_checkpoint();
    checkpoint.save(&path).unwrap();
    let before = fs::read(&path).unwrap();
    checkpoint.parameters.critic.w1[0] = f32::NAN;
    assert!(matches!(checkpoint.save(&path), Err(CheckpointError::NotFinite("critic.w1"))));
    let checkpoint = sample_checkpoint();
    // The rename fails: the target is a folder that is not empty.
    let occupied = folder.0.join("folder");
    fs::create_dir_all(occupied.join("inside")).unwrap();
    assert!(matches!(checkpoint.save(&occupied), Err(CheckpointError::Io { .. })));
    assert!(matches!(checkpoint.save(&folder.0.join("absent/b")), Err(CheckpointError::Io { .. })));
    assert!(matches!(checkpoint.save(std::path::Path::new("/")), Err(CheckpointError::Io { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);
    let mut names = folder.names();
    names.sort();
    assert_eq!(names, ["a.safetensors", "folder"], "no temporary file is left");
}

#[test]
fn what_is_no_checkpoint_is_refused_with_a_reason() {
    let folder = Folder::new();
    let load = |name: &str, content: &[u8]| {
        fs::write(folder.0.join(name), content).unwrap();
        Checkpoint::load(&folder.0.join(name)).unwrap_err()
    };
    let missing = Checkpoint::load(&folder.0.join("none")).unwrap_err();
    assert!(matches!(missing, CheckpointError::Missing(_)) && missing.to_string().contains("none"), "{missing}");
    assert!(matches!(Checkpoint::load(&folder.0), Err(CheckpointError::NotAFile(_))));
    assert!(matches!(load("empty", b""), CheckpointError::Truncated { found: 0, expected: 8 }));
    assert!(matches!(load("text", b"#!/bin/sh\necho this is not a checkpoint\n"), CheckpointError::NotSafetensors(_)));
    assert!(matches!(load("zeros", &[0; 4096]), CheckpointError::NotSafetensors(_)));
    let foreign = safetensors::serialize(Vec::<(String, safetensors::tensor::TensorView)>::new(), None).unwrap();
    assert!(matches!(load("foreign", &foreign), CheckpointError::NotOurs));
    let large = fs::File::create(folder.0.join("large")).unwrap();
    large.set_len((16 << 20) + 1).unwrap();
    assert!(matches!(Checkpoint::load(&folder.0.join("large")), Err(CheckpointError::NotAFile(_))));
}

/// Change a good checkpoint, give it a right checksum, and read it.
fn edited(change: impl FnOnce(&mut Raw)) -> Result<Checkpoint, CheckpointError> {
    let mut raw = open(&sample_checkpoint().to_bytes().unwrap()).unwrap();
    change(&mut raw);
    Checkpoint::from_bytes(&seal(raw).unwrap())
}

fn set(key: &str, value: &str) -> Result<Checkpoint, CheckpointError> {
    edited(|raw| assert!(raw.meta.insert(key.to_string(), value.to_string()).is_some(), "{key} was not there"))
}

#[test]
fn senseless_content_is_refused_though_its_checksum_is_right() {
    edited(|_| ()).unwrap();
    for key in ["features", "feature_schema", "event_version", "network", "quantisation"] {
        let error = set(key, "16-12-2").unwrap_err();
        assert!(matches!(error, CheckpointError::Schema { .. }) && error.to_string().contains("16-12-2"), "{error}");
    }
    let counters = serde_json::to_string(&sample_checkpoint().counters).unwrap();
    assert!(matches!(set("format", "other"), Err(CheckpointError::NotOurs)));
    assert!(matches!(set("format_version", "2"), Err(CheckpointError::FormatVersion { .. })));
    for (key, value) in [
        ("seed", "-1"),
        ("updates", "many"),
        ("updates", "18446744073709551615"),
        ("counters", &counters.replace("1000", "18446744073709551615")),
        ("generation", ""),
        ("hyper", r#"{"batch_events":0}"#),
        ("hyper", r#"{"clip":1e999}"#),
        ("hyper", r#"{"unknown":1}"#),
        ("normaliser", r#"{"wake":{"sum":"NaN","weight":"1"},"pull":{"sum":"0","weight":"0"}}"#),
        ("reward_ms", "null"),
        ("counters", "{}"),
        ("rng", r#"{"seed":[1,2],"stream":0,"word_pos":0}"#),
    ] {
        let error = set(key, value).unwrap_err();
        assert!(matches!(error, CheckpointError::Metadata { key: k, .. } if k == key), "{key}: {error}");
    }
    let keys: Vec<_> = open(&sample_checkpoint().to_bytes().unwrap()).unwrap().meta.into_keys().collect();
    for key in keys.iter().filter(|k| *k != "sha256" && *k != "events") {
        assert!(edited(|raw| drop(raw.meta.remove(key))).is_err(), "{key}");
    }
}

#[test]
fn senseless_tensors_are_refused_though_the_checksum_is_right() {
    let overwrite = |name: &str, at: usize, bytes: &[u8]| {
        edited(|raw| raw.tensors.get_mut(name).unwrap().data[at..at + bytes.len()].copy_from_slice(bytes))
    };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (name, _) in Parameters::TABLE {
            let error = overwrite(name, 0, &bad.to_le_bytes()).unwrap_err();
            assert!(matches!(error, CheckpointError::NotFinite(n) if n == name), "{error}");
        }
    }
    for name in ["quantised.w1", "quantised.b1", "quantised.w2", "quantised.b2", "actor.w1"] {
        let error = overwrite(name, 0, &[0x3f, 0x40, 0x41, 0x42]).unwrap_err();
        assert!(matches!(error, CheckpointError::Quantised), "{name}: {error}");
    }
    let shape =
        |change: fn(&mut RawTensor)| edited(|raw| change(raw.tensors.get_mut("actor.b1").unwrap())).unwrap_err();
    for error in [
        shape(|t| t.shape = vec![12, 1]),
        shape(|t| t.dtype = Dtype::I32),
        shape(|t| (t.shape, t.data) = (vec![11], t.data[..44].to_vec())),
        edited(|raw| drop(raw.tensors.remove("critic.w2"))).unwrap_err(),
        edited(|raw| drop(raw.tensors.insert("extra".to_string(), raw.tensors["actor.b2"].clone()))).unwrap_err(),
    ] {
        assert!(matches!(error, CheckpointError::Shape { .. }), "{error}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = sample_checkpoint().to_bytes().unwrap();
    for length in 0..bytes.len() {
        let error = Checkpoint::from_bytes(&bytes[..length]).unwrap_err();
        assert!(matches!(error, CheckpointError::Truncated { .. }), "{length}: {error}");
    }
    assert!(Checkpoint::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_err(), "a byte too many");
}

#[test]
fn every_flipped_bit_is_an_error() {
    let mut bytes = sample_checkpoint().to_bytes().unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            assert!(Checkpoint::from_bytes(&bytes).is_err(), "bit {bit} of byte {at}");
            bytes[at] ^= 1 << bit;
        }
    }
    Checkpoint::from_bytes(&bytes).unwrap();
}

/// `MUTATIONS=100000` for more, half of them with a right checksum.
#[test]
fn mutated_checkpoints_never_panic() {
    let count: u32 = std::env::var("MUTATIONS").map_or(6000, |text| text.parse().unwrap());
    let original = sample_checkpoint();
    let bytes = original.to_bytes().unwrap();
    let raw = open(&bytes).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(23);
    let (mut refused, mut read) = (0, 0);
    for _ in 0..count / 2 {
        let mut mutated = bytes.clone();
        for _ in 0..rng.random_range(1..8) {
            let at = rng.random_range(0..mutated.len());
            match rng.random_range(0..4) {
                0 => mutated[at] = rng.random(),
                1 => drop(mutated.drain(at..(at + rng.random_range(1..40)).min(mutated.len()))),
                2 => mutated.insert(at, rng.random()),
                _ => mutated[at] = *b"0[]{}\",:-e9".get(rng.random_range(0..11)).unwrap(),
            }
        }
        assert!(mutated == bytes || Checkpoint::from_bytes(&mutated).is_err());
    }
    // With a right checksum the mutations reach every check behind it.
    for _ in 0..count / 2 {
        let mut raw = raw.clone();
        if rng.random() {
            let key = raw.meta.keys().nth(rng.random_range(0..raw.meta.len())).unwrap().clone();
            let mut value: Vec<char> = raw.meta[&key].chars().collect();
            let at = rng.random_range(0..value.len());
            value[at] = ['0', '9', '-', 'e', '.', '}', '"', 'x'][rng.random_range(0..8)];
            raw.meta.insert(key, value.into_iter().collect());
        } else {
            let name = raw.tensors.keys().nth(rng.random_range(0..raw.tensors.len())).unwrap().clone();
            let data = &mut raw.tensors.get_mut(&name).unwrap().data;
            let at = rng.random_range(0..data.len());
            data[at] = rng.random();
        }
        match Checkpoint::from_bytes(&seal(raw).unwrap()) {
            Err(error) => refused += usize::from(!error.to_string().is_empty()),
            Ok(checkpoint) => {
                // Whatever is accepted works.
                let mut agent = Agent::resume(&checkpoint).unwrap();
                agent.observe(&World::new(1, RL_MODE_RANDOM).events(150)).unwrap();
                assert_eq!(agent.metrics().counters.accepted, checkpoint.counters.accepted + 150);
                assert!(!checkpoint.describe().is_empty());
                read += 1;
            }
        }
    }
    println!("{refused} refused, {read} read");
    assert!(refused > 500 && read > 100);
}
