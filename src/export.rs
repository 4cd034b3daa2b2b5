// SPDX-License-Identifier: GPL-2.0-only
//! `scx_rl checkpoint export`: the policy for other programs, and for people.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use linfa::Dataset;
use linfa::prelude::*;
use linfa_trees::{DecisionTree, TreeNode};
use ndarray::{Array1, Array2, Ix1};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::agent::Checkpoint;
use crate::agent::imitation::any_situation;
use crate::agent::quantise::dequantise;
use crate::agent::recording::events;
use crate::policy::host::{self, FEATURES, Features};
use crate::policy::{RL_F_turn, RL_FEATURE_BITS, RL_HIDDEN, RL_WEIGHT_BITS, rl_weights};
use crate::process::print;
use crate::{file, run};

/// Situations that a tree is made from, for each kind of decision; as many others say how good it is.
const SITUATIONS: usize = 20_000;
/// A tree of fewer situations says nothing.
const SITUATIONS_MIN: usize = 200;

/// Write the policy for other programs, or as rules for people.
///
/// Formats:
///
///   json   the features with what they mean, the layers as floats, and the scale of the inputs
///   c      a header with a `struct rl_weights` (src/bpf/intf.h), for rl_forward() of src/bpf/policy.h
///   onnx   a model that any ONNX runtime takes: features (float, N x 18, each 0 to 127) to logit and p_migrate
///   tree   a decision tree that mostly does the same, to read; with the share of situations where it does
///
/// All but the tree are the policy as BPF runs it, in its precision, without what learning needs.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct ExportArgs {
    /// The checkpoint.
    pub file: PathBuf,
    /// Format of the file.
    #[arg(long, value_enum, hide_possible_values = true)]
    pub format: Format,
    /// The file to write. Without it: print it.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// With --format tree: situations of this recording instead of random ones, in which rare ones count as frequent ones do.
    #[arg(long, value_name = "FILE")]
    pub recording: Option<PathBuf>,
    /// With --format tree: questions from the root to a leaf, at most.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=12))]
    pub depth: u8,
}

/// Formats of an exported policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Layers as floats.
    Json,
    /// A C header.
    C,
    /// An ONNX model.
    Onnx,
    /// A decision tree.
    Tree,
}

/// The subcommand `checkpoint export`.
///
/// # Errors
/// The checkpoint is not fit to run, the recording cannot be read, or the file cannot be written.
pub fn run(args: &ExportArgs) -> Result<()> {
    let checkpoint = run::load(&args.file)?;
    let weights = checkpoint.publishable().with_context(|| format!("{} is not fit to run", args.file.display()))?;
    ensure!(args.recording.is_none() || args.format == Format::Tree, "--recording is for --format tree");
    let bytes = match args.format {
        Format::Json => as_json(&checkpoint, &weights)?.into_bytes(),
        Format::C => as_c(&checkpoint, &weights).into_bytes(),
        Format::Onnx => as_onnx(&checkpoint, &weights),
        Format::Tree => as_tree(&checkpoint, &weights, args)?.into_bytes(),
    };
    match &args.out {
        Some(out) => file::replace(out, &bytes).with_context(|| format!("cannot write {}", out.display())),
        None => match String::from_utf8(bytes) {
            Ok(text) if args.format != Format::Onnx => print(&text),
            _ => bail!("an ONNX model is nothing to print: give --out FILE"),
        },
    }
}

/// The policy as it is published, so rounded, in floats.
fn as_json(checkpoint: &Checkpoint, weights: &rl_weights) -> Result<String> {
    let layers = dequantise(weights);
    let features: Vec<_> = host::feature_table().iter().map(|f| json!({"name": f.name, "what": f.doc})).collect();
    let value = json!({
        "what": "migrate with probability sigmoid(b2 + sum_n w2[n] * max(0, b1[n] + sum_f w1[f][n] * feature[f] * input_scale))",
        "features": features,
        "feature_max": 127,
        "input_scale": 1.0 / f64::from(1u32 << RL_FEATURE_BITS),
        "w1": layers.w1.chunks(RL_HIDDEN as usize).collect::<Vec<_>>(),
        "b1": layers.b1,
        "w2": layers.w2,
        "b2": layers.b2[0],
        "updates": checkpoint.updates,
        "origin": checkpoint.origin,
    });
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

fn as_c(checkpoint: &Checkpoint, weights: &rl_weights) -> String {
    let list = |values: &mut dyn Iterator<Item = String>| values.collect::<Vec<_>>().join(", ");
    let groups: Vec<String> = weights
        .w1
        .iter()
        .map(|group| format!("{{ {} }}", list(&mut group.iter().map(|w| format!("{w:#x}ULL")))))
        .collect();
    format!(
        "/* SPDX-License-Identifier: GPL-2.0-only */\n/*\n * A policy of scx_rl after {} updates, network {FEATURES}-{RL_HIDDEN}-1, \
         weights in 1/2^{RL_WEIGHT_BITS}. Feature schema\n * {}.\n * Include after intf.h; rl_forward() of policy.h runs it.\n */\n\
         static const struct rl_weights rl_exported = {{\n\t.w1 = {{\n\t\t{},\n\t}},\n\t.b1 = {{ {} }},\n\t.w2 = {{ {} }},\n\t.b2 = {},\n}};\n",
        checkpoint.updates,
        host::feature_schema_hash(),
        groups.join(",\n\t\t"),
        list(&mut weights.b1.iter().map(ToString::to_string)),
        list(&mut weights.w2.iter().map(ToString::to_string)),
        weights.b2
    )
}

/// A message of Protocol Buffers under construction (https://protobuf.dev/programming-guides/encoding).
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A field that is a number.
    fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    /// A field that is a text, a message, or packed numbers.
    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn message(self, field: u64, value: Message) -> Self {
        self.bytes(field, &value.0)
    }
}

/// `logit = relu(features w1 + b1) w2 + b2`, `p_migrate = sigmoid(logit)`; the scale of the inputs is in w1. Field numbers
/// are those of onnx.proto3 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
fn as_onnx(checkpoint: &Checkpoint, weights: &rl_weights) -> Vec<u8> {
    const FLOAT: u64 = 1;
    // Of 2021: older runtimes take them, too.
    const IR_VERSION: u64 = 8;
    const OPSET: u64 = 13;
    let layers = dequantise(weights);
    let scale = 1.0 / (1u32 << RL_FEATURE_BITS) as f32;
    let new = Message::default;
    // TensorProto: dims 1, data_type 2, float_data 4, name 8
    let tensor = |name: &str, dims: &[usize], values: &[f32]| {
        let dims = dims.iter().fold(new(), |tensor, &dim| tensor.number(1, dim as u64));
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        dims.number(2, FLOAT).bytes(4, &data).bytes(8, name.as_bytes())
    };
    // ValueInfoProto: name 1, type 2 > TypeProto: tensor_type 1 > Tensor: elem_type 1, shape 2 > dim 1: dim_value 1, dim_param 2
    let value = |name: &str, columns: usize| {
        let shape = new().message(1, new().bytes(2, b"N")).message(1, new().number(1, columns as u64));
        let tensor = new().number(1, FLOAT).message(2, shape);
        new().bytes(1, name.as_bytes()).message(2, new().message(1, tensor))
    };
    // NodeProto: input 1, output 2, op_type 4
    let node = |op: &str, inputs: &[&str], output: &str| {
        let node = inputs.iter().fold(new(), |node, input| node.bytes(1, input.as_bytes()));
        node.bytes(2, output.as_bytes()).bytes(4, op.as_bytes())
    };
    let (hidden, w1) = (RL_HIDDEN as usize, layers.w1.iter().map(|w| w * scale).collect::<Vec<_>>());
    // GraphProto: node 1, name 2, initializer 5, input 11, output 12
    let graph = new()
        .message(1, node("Gemm", &["features", "w1", "b1"], "sum"))
        .message(1, node("Relu", &["sum"], "hidden"))
        .message(1, node("Gemm", &["hidden", "w2", "b2"], "logit"))
        .message(1, node("Sigmoid", &["logit"], "p_migrate"))
        .bytes(2, b"policy")
        .message(5, tensor("w1", &[FEATURES, hidden], &w1))
        .message(5, tensor("b1", &[hidden], &layers.b1))
        .message(5, tensor("w2", &[hidden, 1], &layers.w2))
        .message(5, tensor("b2", &[1], &layers.b2))
        .message(11, value("features", FEATURES))
        .message(12, value("logit", 1))
        .message(12, value("p_migrate", 1));
    // StringStringEntryProto: key 1, value 2
    let property = |key: &str, value: String| new().bytes(1, key.as_bytes()).bytes(2, value.as_bytes());
    let about = "The probability to migrate a task (to go on with a turn, where the feature turn is not 0).";
    // ModelProto: ir_version 1, producer_name 2, producer_version 3, doc_string 6, graph 7, opset_import 8, metadata_props 14
    new()
        .number(1, IR_VERSION)
        .bytes(2, b"scx_rl")
        .bytes(3, env!("CARGO_PKG_VERSION").as_bytes())
        .bytes(6, about.as_bytes())
        .message(7, graph)
        .message(8, new().number(2, OPSET))
        .message(14, property("features", host::feature_names().join(",")))
        .message(14, property("feature_schema", host::feature_schema_hash()))
        .message(14, property("updates", checkpoint.updates.to_string()))
        .0
}

/// Trees that mostly do what the policy would rather do: one for moves, one for turns if it has learned of them.
fn as_tree(checkpoint: &Checkpoint, weights: &rl_weights, args: &ExportArgs) -> Result<String> {
    let situations: Vec<Features> = match &args.recording {
        Some(path) => events(path)?.map(|event| Ok(event?.features)).collect::<Result<_>>()?,
        None => {
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            (0..8 * SITUATIONS).map(|i| any_situation(i, &mut rng)).collect()
        }
    };
    let (turns, moves): (Vec<_>, Vec<_>) = situations.into_iter().partition(|f| f[RL_F_turn as usize] > 0);
    let mut out = format!(
        "What a policy of scx_rl after {} updates would rather do, as a decision tree of at most {} questions. Features are 0 to 127.\n",
        checkpoint.updates, args.depth
    );
    let mut kinds = vec![("Moves between domains", moves, ["stay", "migrate"])];
    if checkpoint.knows_turns() {
        kinds.push(("Turns", turns, ["end the turn", "go on"]));
    }
    for (what, situations, actions) in &kinds {
        if situations.len() < SITUATIONS_MIN {
            let _ = writeln!(out, "\n{what}: only {} situations, too few", situations.len());
            continue;
        }
        // The earlier half makes the tree, the later one says how good it is.
        let (early, late) = situations.split_at(situations.len() / 2);
        let some = |half: &[Features]| -> Vec<Features> {
            half.iter().step_by(half.len().div_ceil(SITUATIONS)).copied().collect()
        };
        let (known, others) = (some(early), some(late));
        let tree = DecisionTree::params()
            .max_depth(Some(usize::from(args.depth)))
            .min_weight_leaf(known.len() as f32 / 1000.0)
            .fit(&dataset(weights, &known))
            .with_context(|| format!("{what}: no tree can be made"))?;
        let wanted = dataset(weights, &others);
        let predicted: Array1<usize> = tree.predict(&wanted);
        let agree = predicted.iter().zip(wanted.targets()).filter(|(a, b)| a == b).count();
        let _ = writeln!(
            out,
            "\n{what}: the same as the policy in {:.1} % of {} other situations\n",
            100.0 * agree as f64 / others.len() as f64,
            others.len()
        );
        branch(&mut out, tree.root_node(), &host::feature_names(), *actions, 0);
    }
    Ok(out)
}

/// Features, and the action that is more probable there.
fn dataset(weights: &rl_weights, situations: &[Features]) -> Dataset<f32, usize, Ix1> {
    let values: Vec<f32> = situations.iter().flat_map(|f| f.iter().map(|&value| f32::from(value))).collect();
    let actions: Vec<usize> = situations.iter().map(|f| usize::from(host::forward(weights, f) > 0)).collect();
    // The lengths agree by construction, so the shape is never refused.
    let records = Array2::from_shape_vec((situations.len(), FEATURES), values).unwrap_or_default();
    Dataset::new(records, Array1::from(actions))
}

fn branch(out: &mut String, node: &TreeNode<f32, usize>, names: &[&str], actions: [&str; 2], depth: usize) {
    let indent = "    ".repeat(depth);
    if let Some(action) = node.prediction() {
        let _ = writeln!(out, "{indent}{}", actions[action.min(1)]);
        return;
    }
    let (feature, limit, _) = node.split();
    let name = names.get(feature).unwrap_or(&"?");
    // Features are whole numbers, and below this limit is what goes left.
    for (child, relation) in node.children().into_iter().zip(["< ", ">="]) {
        let _ = writeln!(out, "{indent}{name} {relation} {:.0}", limit.ceil());
        if let Some(child) = child {
            branch(out, child, names, actions, depth + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{Agent, Hyper, Origin};

    /// The fields of a message: number, and the bytes or the number as bytes.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let mut varint = || {
                let (mut value, mut shift) = (0u64, 0);
                loop {
                    let byte = bytes[0];
                    bytes = &bytes[1..];
                    value |= u64::from(byte & 0x7f) << shift;
                    shift += 7;
                    if byte < 0x80 {
                        return value;
                    }
                }
            };
            let (tag, value) = (varint(), varint());
            match tag & 7 {
                0 => all.push((tag >> 3, value.to_le_bytes().to_vec())),
                2 => {
                    let (field, rest) = bytes.split_at(value as usize);
                    all.push((tag >> 3, field.to_vec()));
                    bytes = rest;
                }
                other => panic!("wire type {other}"),
            }
        }
        all
    }

    #[test]
    fn an_onnx_model_is_the_policy() {
        let mut agent = Agent::new(Hyper::default(), 1).unwrap();
        let checkpoint = agent.checkpoint(Origin::default()).unwrap();
        let weights = checkpoint.publishable().unwrap();
        let model = fields(&as_onnx(&checkpoint, &weights));
        let graph = fields(&model.iter().find(|(field, _)| *field == 7).unwrap().1);
        let data: Vec<Vec<f32>> = graph
            .iter()
            .filter(|(field, _)| *field == 5)
            .map(|(_, tensor)| {
                let tensor = fields(tensor);
                let values = &tensor.iter().find(|(field, _)| *field == 4).unwrap().1;
                values.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
            })
            .collect();
        let [w1, b1, w2, b2] = data.try_into().unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for i in 0..200 {
            let features = any_situation(i, &mut rng);
            let neuron = |n: usize| -> f32 {
                let inputs = features.iter().enumerate();
                inputs.map(|(f, &v)| f32::from(v) * w1[f * b1.len() + n]).sum::<f32>() + b1[n]
            };
            let logit: f32 = (0..b1.len()).map(|n| neuron(n).max(0.0) * w2[n]).sum::<f32>() + b2[0];
            let expected = host::forward(&weights, &features) as f32 / 65536.0;
            assert!((logit - expected).abs() < 1e-3, "{logit} {expected}");
        }
    }
}
