// SPDX-License-Identifier: GPL-2.0-only
//! Checkpoints, good and bad: nothing but a whole one of this build is taken, and the reason is told.

use std::collections::{BTreeMap, HashMap};
use std::process::Command;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use scx_rl::agent::{Checkpoint, quantise};
use scx_rl::bench::random_inputs;
use scx_rl::policy::host::{self, Features};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::common::{Folder, learn, origin};
use super::ope::right;
use super::scx_rl;

/// Metadata and tensors of a checkpoint: what a stranger with a safetensors library can take apart and put together.
struct Parts {
    meta: BTreeMap<String, String>,
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Parts {
    fn of(bytes: &[u8]) -> Self {
        let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
        let file = SafeTensors::deserialize(bytes).unwrap();
        let tensor = |t: TensorView| (t.dtype(), t.shape().to_vec(), t.data().to_vec());
        Self {
            meta: header.metadata().clone().unwrap().into_iter().collect(),
            tensors: file.iter().map(|(name, t)| (name.to_string(), tensor(t))).collect(),
        }
    }

    /// The checksum as checkpoints/README.md describes it.
    fn checksum(&self) -> String {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for (key, value) in self.meta.iter().filter(|(key, _)| *key != "sha256") {
            part(key.as_bytes());
            part(value.as_bytes());
        }
        for (name, (dtype, shape, data)) in &self.tensors {
            part(name.as_bytes());
            part(format!("{dtype:?} {shape:?}").as_bytes());
            part(data);
        }
        hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }

    fn to_bytes(&self) -> Vec<u8> {
        let views = self
            .tensors
            .iter()
            .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
        let meta: HashMap<String, String> = self.meta.clone().into_iter().collect();
        safetensors::serialize(views, Some(meta)).unwrap()
    }
}

/// A good checkpoint, changed, with a checksum that is right.
fn edited(good: &[u8], change: impl FnOnce(&mut Parts)) -> Vec<u8> {
    let mut parts = Parts::of(good);
    change(&mut parts);
    let checksum = parts.checksum();
    parts.meta.insert("sha256".to_string(), checksum);
    parts.to_bytes()
}

fn set(good: &[u8], key: &str, value: &str) -> Vec<u8> {
    edited(good, |p| assert!(p.meta.insert(key.to_string(), value.to_string()).is_some(), "{key} is not there"))
}

fn set_float(good: &[u8], tensor: &str, value: f32) -> Vec<u8> {
    edited(good, |p| p.tensors.get_mut(tensor).unwrap().2[..4].copy_from_slice(&value.to_le_bytes()))
}

fn flipped(good: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = good.to_vec();
    bytes[at] ^= 1;
    bytes
}

/// Files that are no checkpoint, and what must be said about each.
fn bad_files(good: &[u8]) -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    let header = 8 + u64::from_le_bytes(*good.first_chunk().unwrap()) as usize;
    let foreign = safetensors::serialize(Vec::<(String, TensorView)>::new(), None).unwrap();
    let schema: &[&str] = &["feature schema", "\"0123\"", "use the build that wrote it"];
    let finite: &[&str] = &["not finite", "use an older checkpoint"];
    vec![
        ("empty", vec![], &["truncated (0 bytes of at least 8)", "use an older one"]),
        ("cut in the length", good[..5].to_vec(), &["truncated (5 bytes"]),
        ("cut in the header", good[..100].to_vec(), &["truncated (100 bytes"]),
        ("cut in the tensors", good[..header + 200].to_vec(), &["truncated"]),
        ("cut by one", good[..good.len() - 1].to_vec(), &["truncated"]),
        ("a bit of a tensor flipped", flipped(good, header + 999), &["checksum does not match", "older checkpoint"]),
        ("the last bit flipped", flipped(good, good.len() - 1), &["checksum does not match"]),
        ("a bit of the header's length flipped", flipped(good, 0), &["safetensors"]),
        ("a script", b"#!/bin/sh\necho not a checkpoint\n".to_vec(), &["not a safetensors file", "use another file"]),
        ("zeros", vec![0; 4096], &["not a safetensors file"]),
        ("another program's", foreign, &["not a checkpoint of scx_rl", "use a file that scx_rl wrote"]),
        ("another format", set(good, "format_version", "2"), &["checkpoint format \"2\"", "reads \"1\""]),
        ("another schema", set(good, "feature_schema", "0123"), schema),
        ("other features", set(good, "features", "a,b"), &["feature list", "\"a,b\"", "home_queued"]),
        ("another network", set(good, "network", "8-4-1"), &["network shape", "\"8-4-1\"", "18-12-1"]),
        (
            "a tensor of another shape",
            edited(good, |p| p.tensors.get_mut("actor.b1").unwrap().1 = vec![3, 4]),
            &["tensor actor.b1", "F32 [3, 4]", "expected F32 [12]", "another shape"],
        ),
        (
            "a tensor too few",
            edited(good, |p| drop(p.tensors.remove("critic.w2"))),
            &["tensor critic.w2", "absent", "another shape"],
        ),
        ("NaN", set_float(good, "actor.w1", f32::NAN), finite),
        ("NaN of the critic", set_float(good, "critic.b2", f32::NAN), finite),
        ("infinity", set_float(good, "actor.b2", f32::INFINITY), finite),
        ("not the quantised network", set_float(good, "actor.w1", 1.5), &["quantised", "the file was edited"]),
        ("senseless counters", set(good, "counters", "{}"), &["metadata counters", "damaged"]),
        (
            "senseless hyper-parameters",
            set(good, "hyper", r#"{"batch_events":0}"#),
            &["metadata hyper", "batch_events"],
        ),
    ]
}

fn good() -> Vec<u8> {
    learn(5, 2600).checkpoint.to_bytes().unwrap()
}

#[test]
fn bad_checkpoints_are_refused_with_the_reason() {
    let (folder, good) = (Folder::new(), good());
    let recording = folder.with("a.rec", &learn(6, 600).recording);
    let out = folder.text("out.safetensors");
    assert_eq!(edited(&good, |_| ()).len(), good.len());
    Checkpoint::from_bytes(&edited(&good, |_| ())).expect("the test's own checksum is right");
    let mut files: Vec<(&str, String, &[&str])> = vec![
        ("missing", folder.text("missing"), &["there is no checkpoint", "missing", "give the path"]),
        ("a folder", folder.text("."), &["not a regular file", "not a checkpoint"]),
        ("a device", "/dev/zero".to_string(), &["not a regular file"]),
    ];
    for (i, (name, bytes, parts)) in bad_files(&good).into_iter().enumerate() {
        files.push((name, folder.with(&format!("{i}.safetensors"), &bytes), parts));
    }
    for (name, path, parts) in files {
        println!("{name}");
        scx_rl(&["--frozen", &path]).fails(1, parts);
        scx_rl(&["checkpoint", "show", &path]).fails(1, parts);
        scx_rl(&["checkpoint", "show", &path, "--json"]).fails(1, parts);
        scx_rl(&["replay", &recording, "--resume", &path, "--checkpoint", &out]).fails(1, parts);
    }
    assert!(!folder.file("out.safetensors").exists(), "a refused replay writes nothing");
}

#[test]
fn flipped_bits_are_noticed_wherever_they_are() {
    let (folder, good) = (Folder::new(), good());
    for at in (0..good.len()).step_by(good.len() / 60) {
        let path = folder.with("flipped.safetensors", &flipped(&good, at));
        scx_rl(&["--frozen", &path]).fails(1, &[]);
    }
}

#[test]
fn a_good_checkpoint_is_shown() {
    let folder = Folder::new();
    let checkpoint = learn(5, 2600).checkpoint;
    let path = folder.with("good.safetensors", &checkpoint.to_bytes().unwrap());
    let text = scx_rl(&["checkpoint", "show", &path]);
    text.succeeds(&["written by", "6.18.15-test", "llc 0-3/4-7", "18-12-1", "home_queued", "publishable yes"]);
    assert_eq!(text.stdout, checkpoint.describe());
    assert!(text.stderr.is_empty(), "{text:?}");
    text.succeeds(&["slices      not learned"]);
    scx_rl(&["--frozen", &path, "--slices"]).fails(1, &["has not learned how long turns should last", "--slices"]);
    let json = scx_rl(&["checkpoint", "show", &path, "--json"]);
    json.succeeds(&[]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["generation"], origin().generation);
    assert_eq!(json["seed"], 5);
    assert_eq!(json["updates"], checkpoint.updates);
    assert!(checkpoint.updates > 0 && json["updates"].is_u64());
    assert_eq!(json["features"].as_array().map(Vec::len), Some(18));
    assert_eq!(json["counters"]["accepted"], 2600);
    assert_eq!(json["publishable"], serde_json::json!({ "Ok": null }));
}

#[test]
fn a_saturated_network_is_shown_as_not_publishable() {
    let folder = Folder::new();
    let mut checkpoint = learn(5, 600).checkpoint;
    checkpoint.parameters.actor.w1.fill(100.0);
    checkpoint.weights = quantise::quantise(&checkpoint.parameters.actor).unwrap().weights;
    let path = folder.with("saturated.safetensors", &checkpoint.to_bytes().unwrap());
    scx_rl(&["checkpoint", "show", &path]).succeeds(&["publishable no: 216 of 241 weights", "learning has diverged"]);
}

#[test]
fn checkpoints_are_verified_and_compared() {
    let folder = Folder::new();
    let (a, b) = (folder.with("a", &good()), folder.with("b", &learn(6, 2600).checkpoint.to_bytes().unwrap()));
    let bad = folder.with("bad", &good()[..100]);
    scx_rl(&["checkpoint", "verify", &a, &b]).succeeds(&["ok      ", "/a: ", " updates", "/b: "]);
    let outcome = scx_rl(&["checkpoint", "verify", &a, &bad]);
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    assert!(outcome.stdout.contains("not ok  ") && outcome.stdout.contains("truncated"), "{outcome:#?}");
    assert!(outcome.stderr.contains("1 of 2 checkpoints are not fit to run"), "{outcome:#?}");
    scx_rl(&["checkpoint", "verify"]).fails(2, &["<FILES>"]);

    let same = ["differs by 0.0000", "the better action in 0.00 %", "actor.w1     0.00000   0.00000"];
    scx_rl(&["checkpoint", "diff", &a, &a]).succeeds(&same);
    let other = scx_rl(&["checkpoint", "diff", &a, &b]);
    other.succeeds(&["critic.b2", "nats"]);
    assert!(!other.stdout.contains("in 0.00 %"), "{other:#?}");
    scx_rl(&["checkpoint", "diff", &a, &bad]).fails(1, &["truncated"]);
}

#[test]
fn an_exported_policy_decides_as_the_checkpoint_does() {
    let folder = Folder::new();
    let checkpoint = learn(5, 2600).checkpoint;
    let file = folder.with("a", &checkpoint.to_bytes().unwrap());
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let situations: Vec<Features> = (0..200).map(|_| host::features(&random_inputs(&mut rng))).collect();
    let expected: Vec<i64> = situations.iter().map(|f| host::forward(&checkpoint.weights, f)).collect();

    let outcome = scx_rl(&["checkpoint", "export", &file, "--format", "json"]);
    let json: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    for (features, expected) in situations.iter().zip(&expected) {
        let mut logit = number(&json["b2"]);
        for n in 0..json["b1"].as_array().unwrap().len() {
            let inputs = features.iter().enumerate();
            let sum: f64 =
                inputs.map(|(f, v)| number(&json["w1"][f][n]) * f64::from(*v) * number(&json["input_scale"])).sum();
            logit += number(&json["w2"][n]) * (number(&json["b1"][n]) + sum).max(0.0);
        }
        assert!((logit - *expected as f64 / 65536.0).abs() < 1e-4, "{logit} {expected}");
    }

    let model = folder.text("a.onnx");
    scx_rl(&["checkpoint", "export", &file, "--format", "onnx", "--out", &model]).succeeds(&[]);
    assert!(std::fs::read(&model).unwrap().windows(9).any(|bytes| bytes == b"p_migrate"));
    scx_rl(&["checkpoint", "export", &file, "--format", "onnx"]).fails(1, &["give --out FILE"]);

    // A policy that is a tree.
    let right = folder.with("right", &right(checkpoint.clone()).to_bytes().unwrap());
    let tree = scx_rl(&["checkpoint", "export", &right, "--format", "tree", "--depth", "2"]);
    tree.succeeds(&["Moves between domains: the same as the policy in 100.0 %", "other_idle >= ", "    migrate"]);
    scx_rl(&["checkpoint", "export", &file, "--format", "json", "--recording", "x"])
        .fails(1, &["--recording is for --format tree"]);

    let header = folder.text("policy_of_a.h");
    scx_rl(&["checkpoint", "export", &file, "--format", "c", "--out", &header]).succeeds(&[]);
    let mut program =
        String::from("#include <stdio.h>\n#include \"policy.h\"\n#include \"policy_of_a.h\"\nint main(void)\n{\n");
    for features in &situations {
        let list = features.map(|v| v.to_string()).join(",");
        program += &format!("\tprintf(\"%lld\\n\", (long long)rl_forward(&rl_exported, (u8[]){{ {list} }}));\n");
    }
    let source = folder.with("main.c", (program + "\treturn 0;\n}\n").as_bytes());
    let (binary, include) = (folder.text("main"), concat!(env!("CARGO_MANIFEST_DIR"), "/src/bpf"));
    let built = Command::new("cc").args(["-iquote", include, "-o", &binary, &source]).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let text = String::from_utf8(Command::new(&binary).output().unwrap().stdout).unwrap();
    assert_eq!(text.lines().map(|line| line.parse::<i64>().unwrap()).collect::<Vec<_>>(), expected);
    scx_rl(&["checkpoint", "export", &file, "--format", "c", "--out", "/proc/x.h"])
        .fails(1, &["cannot write /proc/x.h"]);
}

#[test]
fn the_built_in_checkpoint_is_of_this_version_and_has_a_manifest() {
    let blessed = scx_rl::run::blessed().expect("make bless");
    blessed.publishable().unwrap();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints");
    let manifest = std::fs::read_to_string(folder.join("blessed.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let sha256 = scx_rl::file::sha256_of(&folder.join("blessed.safetensors")).unwrap();
    assert_eq!(manifest["sha256"], sha256);
    assert!(manifest["groups"]["all"]["response"][0].as_f64().is_some());
}
