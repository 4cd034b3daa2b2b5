// SPDX-License-Identifier: GPL-2.0-only
//! The bytes of a checkpoint: a safetensors file that any reader can open, with metadata and a checksum over all of it.
//!
//! Tensors: `actor.*` and `critic.*` (f32, see [`Parameters::TABLE`]) and `quantised.*`, the content of `struct rl_weights`
//! (w1 as the i64 words that BPF multiplies). Metadata: one string per key, see `pack` and `schema`; structured values are JSON.
//! The checksum is SHA-256 over every key, value, tensor name, type, shape and byte, each with its length before it.

use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::file::hex;
use crate::policy::{
    RL_EVENT_VERSION, RL_FEATURE_BITS, RL_FEATURES, RL_GROUPS, RL_HIDDEN, RL_LOGIT_BITS, RL_WEIGHT_BITS, host,
    rl_weights,
};

use super::checkpoint::{Checkpoint, CheckpointError, Origin};
use super::hyper::Hyper;
use super::metrics::Counters;
use super::network::{CRITIC_HIDDEN, Parameters};
use super::quantise;
use super::reward::REWARDS;

const FORMAT: &str = "scx_rl-checkpoint";
const FORMAT_VERSION: &str = "1";
const CHECKSUM: &str = "sha256";
/// Counts above this were not counted (a million events a second for eight years); they would overflow later.
const COUNT_MAX: u64 = 1 << 48;

/// Tensors of the quantised actor: name, type, shape.
const QUANTISED: [(&str, Dtype, &[usize]); 4] = [
    ("quantised.w1", Dtype::I64, &[RL_GROUPS as usize, RL_FEATURES as usize]),
    ("quantised.b1", Dtype::I32, &[RL_HIDDEN as usize]),
    ("quantised.w2", Dtype::I32, &[RL_HIDDEN as usize]),
    ("quantised.b2", Dtype::I64, &[1]),
];

/// One tensor, not yet interpreted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RawTensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

/// A file, not yet interpreted; sorted, so that the checksum has one order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Raw {
    pub tensors: BTreeMap<String, RawTensor>,
    pub meta: BTreeMap<String, String>,
}

/// Actor and critic in words.
pub(super) fn networks() -> String {
    format!("{RL_FEATURES}-{RL_HIDDEN}-1, critic {RL_FEATURES}-{CRITIC_HIDDEN}-1")
}

/// What must be equal in the file and in this build, beside the format: key, what it is, value.
fn schema() -> [(&'static str, &'static str, String); 6] {
    [
        ("event_version", "the event version", RL_EVENT_VERSION.to_string()),
        ("features", "the feature list", host::feature_names().join(",")),
        ("feature_schema", "the feature schema", host::feature_schema_hash()),
        ("rewards", "the meaning of the rewards", REWARDS.to_string()),
        ("network", "the network shape", networks()),
        (
            "quantisation",
            "the fixed point",
            format!("feature_bits={RL_FEATURE_BITS},weight_bits={RL_WEIGHT_BITS},logit_bits={RL_LOGIT_BITS}"),
        ),
    ]
}

/// The bytes of a checkpoint. Refuses what [`decode`] would refuse.
pub(super) fn encode(checkpoint: &Checkpoint) -> Result<Vec<u8>, CheckpointError> {
    if let Some(name) = checkpoint.parameters.not_finite() {
        return Err(CheckpointError::NotFinite(name));
    }
    let bytes = seal(pack(checkpoint)?)?;
    decode(&bytes)?;
    Ok(bytes)
}

/// A checkpoint from the bytes of a file.
pub(super) fn decode(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    let raw = open(bytes)?;
    for (key, what, expected) in schema() {
        let found = raw.meta.get(key).cloned().unwrap_or_default();
        if found != expected {
            return Err(CheckpointError::Schema { what, found, expected });
        }
    }
    unpack(&raw)
}

/// Name, type and shape of every tensor.
fn table() -> Vec<(&'static str, Dtype, &'static [usize])> {
    let floats = Parameters::TABLE.iter().map(|&(name, shape)| (name, Dtype::F32, shape));
    floats.chain(QUANTISED).collect()
}

fn pack(c: &Checkpoint) -> Result<Raw, CheckpointError> {
    let floats = c.parameters.arrays().map(|a| a.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
    let words = |w: &[i32]| w.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let quantised = [
        c.weights.w1.as_flattened().iter().flat_map(|v| v.to_le_bytes()).collect(),
        words(&c.weights.b1),
        words(&c.weights.w2),
        c.weights.b2.to_le_bytes().to_vec(),
    ];
    let mut raw = Raw::default();
    for ((name, dtype, shape), data) in table().into_iter().zip(floats.into_iter().chain(quantised)) {
        raw.tensors.insert(name.to_string(), RawTensor { dtype, shape: shape.to_vec(), data });
    }
    let text = [
        ("format", FORMAT.to_string()),
        ("format_version", FORMAT_VERSION.to_string()),
        ("seed", c.seed.to_string()),
        ("updates", c.updates.to_string()),
        ("events", c.counters.accepted.to_string()),
        ("counters", json("counters", &c.counters)?),
        ("normaliser", json("normaliser", &c.normaliser)?),
        ("reward_ms", json("reward_ms", &c.reward_ms)?),
        ("rng", json("rng", &c.rng)?),
        ("hyper", json("hyper", &c.hyper)?),
        ("generation", c.origin.generation.to_string()),
        ("kernel", c.origin.kernel.clone()),
        ("topology", c.origin.topology.clone()),
        ("created_at", c.origin.created_at.clone()),
        ("build", c.build.clone()),
    ];
    raw.meta.extend(text.map(|(key, value)| (key.to_string(), value)));
    raw.meta.extend(schema().map(|(key, _, value)| (key.to_string(), value)));
    Ok(raw)
}

fn unpack(raw: &Raw) -> Result<Checkpoint, CheckpointError> {
    check_shapes(raw)?;
    let mut parameters = Parameters::default();
    for ((name, _), array) in Parameters::TABLE.iter().zip(parameters.arrays_mut()) {
        *array = data(raw, name)?.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    }
    if let Some(name) = parameters.not_finite() {
        return Err(CheckpointError::NotFinite(name));
    }
    let weights = unpack_quantised(raw)?;
    if quantise::quantise(&parameters.actor).map(|q| q.weights).as_ref() != Ok(&weights) {
        return Err(CheckpointError::Quantised);
    }
    let hyper = Hyper::from_json(text(raw, "hyper")?)
        .map_err(|e| CheckpointError::Metadata { key: "hyper", why: format!("{e:#}") })?;
    let (updates, counters) = (number(raw, "updates")?, parse::<Counters>(raw, "counters")?);
    for (key, count) in [("updates", updates), ("counters", counters.largest())] {
        if count > COUNT_MAX {
            return Err(CheckpointError::Metadata { key, why: format!("{count} is no count") });
        }
    }
    Ok(Checkpoint {
        parameters,
        weights,
        hyper,
        seed: number(raw, "seed")?,
        updates,
        counters,
        normaliser: parse(raw, "normaliser")?,
        reward_ms: parse(raw, "reward_ms")?,
        rng: parse(raw, "rng")?,
        build: text(raw, "build")?.to_string(),
        origin: Origin {
            generation: number(raw, "generation")?,
            kernel: text(raw, "kernel")?.to_string(),
            topology: text(raw, "topology")?.to_string(),
            created_at: text(raw, "created_at")?.to_string(),
        },
    })
}

/// Exactly the tensors of [`table`], each of its type and shape.
fn check_shapes(raw: &Raw) -> Result<(), CheckpointError> {
    let words = |dtype: Dtype, shape: &[usize]| format!("{dtype:?} {shape:?}");
    let table = table();
    for &(name, dtype, shape) in &table {
        let expected = words(dtype, shape);
        let found = raw.tensors.get(name).map_or("absent".to_string(), |t| words(t.dtype, &t.shape));
        if found != expected {
            return Err(CheckpointError::Shape { name: name.to_string(), found, expected });
        }
    }
    match raw.tensors.iter().find(|(name, _)| !table.iter().any(|row| row.0 == name.as_str())) {
        None => Ok(()),
        Some((name, t)) => {
            let (found, expected) = (words(t.dtype, &t.shape), "none of that name".to_string());
            Err(CheckpointError::Shape { name: name.clone(), found, expected })
        }
    }
}

fn unpack_quantised(raw: &Raw) -> Result<rl_weights, CheckpointError> {
    let mut weights = rl_weights::default();
    let fill = |out: &mut [i32], bytes: &[u8]| {
        for (word, b) in out.iter_mut().zip(bytes.as_chunks().0) {
            *word = i32::from_le_bytes(*b);
        }
    };
    for (word, b) in weights.w1.as_flattened_mut().iter_mut().zip(data(raw, "quantised.w1")?.as_chunks().0) {
        *word = u64::from_le_bytes(*b);
    }
    fill(&mut weights.b1, data(raw, "quantised.b1")?);
    fill(&mut weights.w2, data(raw, "quantised.w2")?);
    if let [b] = data(raw, "quantised.b2")?.as_chunks().0 {
        weights.b2 = i64::from_le_bytes(*b);
    }
    Ok(weights)
}

/// Add the checksum and serialise.
pub(super) fn seal(mut raw: Raw) -> Result<Vec<u8>, CheckpointError> {
    raw.meta.insert(CHECKSUM.to_string(), checksum(&raw));
    let broken = |e: safetensors::SafeTensorError| CheckpointError::NotSafetensors(e.to_string());
    let mut views = Vec::new();
    for (name, t) in &raw.tensors {
        views.push((name, TensorView::new(t.dtype, t.shape.clone(), &t.data).map_err(broken)?));
    }
    let meta: HashMap<String, String> = raw.meta.clone().into_iter().collect();
    safetensors::serialize(views, Some(meta)).map_err(broken)
}

/// Parse the container, and check that it is ours and undamaged.
pub(super) fn open(bytes: &[u8]) -> Result<Raw, CheckpointError> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| truncated(bytes).unwrap_or(not_safetensors(e)))?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(not_safetensors)?;
    let mut raw = Raw::default();
    raw.meta.extend(header.metadata().clone().unwrap_or_default());
    for (name, t) in file.iter() {
        let tensor = RawTensor { dtype: t.dtype(), shape: t.shape().to_vec(), data: t.data().to_vec() };
        raw.tensors.insert(name.to_string(), tensor);
    }
    if raw.meta.get("format").map(String::as_str) != Some(FORMAT) {
        return Err(CheckpointError::NotOurs);
    }
    let found = raw.meta.get("format_version").cloned().unwrap_or_default();
    if found != FORMAT_VERSION {
        return Err(CheckpointError::FormatVersion { found, expected: FORMAT_VERSION.to_string() });
    }
    if raw.meta.get(CHECKSUM) != Some(&checksum(&raw)) {
        return Err(CheckpointError::Checksum);
    }
    Ok(raw)
}

fn not_safetensors(error: safetensors::SafeTensorError) -> CheckpointError {
    CheckpointError::NotSafetensors(error.to_string())
}

/// Whether a file that does not parse ends too early: in its length, its header, or the tensors that the header lists.
fn truncated(bytes: &[u8]) -> Option<CheckpointError> {
    let found = bytes.len() as u64;
    let short = |expected: u64| (found < expected).then_some(CheckpointError::Truncated { found, expected });
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return short(8);
    };
    let header_bytes = u64::from_le_bytes(*length);
    if header_bytes > super::checkpoint::SIZE_MAX_BYTES {
        return None;
    }
    let Some(header) = rest.get(..header_bytes as usize) else {
        return short(8 + header_bytes);
    };
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    let ends = header.values().filter_map(|t| t.get("data_offsets")?.get(1)?.as_u64());
    short(ends.max()?.saturating_add(8 + header_bytes))
}

fn checksum(raw: &Raw) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for (key, value) in raw.meta.iter().filter(|(key, _)| *key != CHECKSUM) {
        part(key.as_bytes());
        part(value.as_bytes());
    }
    for (name, tensor) in &raw.tensors {
        part(name.as_bytes());
        part(format!("{:?} {:?}", tensor.dtype, tensor.shape).as_bytes());
        part(&tensor.data);
    }
    hex(&hash.finalize())
}

fn data<'a>(raw: &'a Raw, name: &str) -> Result<&'a [u8], CheckpointError> {
    raw.tensors.get(name).map(|t| t.data.as_slice()).ok_or_else(|| CheckpointError::Shape {
        name: name.to_string(),
        found: "absent".to_string(),
        expected: "a tensor".to_string(),
    })
}

fn text<'a>(raw: &'a Raw, key: &'static str) -> Result<&'a str, CheckpointError> {
    raw.meta.get(key).map(String::as_str).ok_or(CheckpointError::Metadata { key, why: "absent".to_string() })
}

fn number(raw: &Raw, key: &'static str) -> Result<u64, CheckpointError> {
    let text = text(raw, key)?;
    text.parse().map_err(|_| CheckpointError::Metadata { key, why: format!("{text:?} is not a whole number") })
}

fn parse<T: DeserializeOwned>(raw: &Raw, key: &'static str) -> Result<T, CheckpointError> {
    serde_json::from_str(text(raw, key)?).map_err(|e| CheckpointError::Metadata { key, why: e.to_string() })
}

fn json<T: Serialize>(key: &'static str, value: &T) -> Result<String, CheckpointError> {
    serde_json::to_string(value).map_err(|e| CheckpointError::Metadata { key, why: e.to_string() })
}
