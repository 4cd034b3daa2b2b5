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
use prost::Message;
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

/// The parts of onnx.proto3 that a small network needs, with the numbers of their fields
/// (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
mod onnx {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Model {
        #[prost(int64, tag = "1")]
        pub ir_version: i64,
        #[prost(string, tag = "2")]
        pub producer_name: String,
        #[prost(string, tag = "3")]
        pub producer_version: String,
        #[prost(string, tag = "6")]
        pub doc_string: String,
        #[prost(message, optional, tag = "7")]
        pub graph: Option<Graph>,
        #[prost(message, repeated, tag = "8")]
        pub opset_import: Vec<OperatorSet>,
        #[prost(message, repeated, tag = "14")]
        pub metadata_props: Vec<Property>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct OperatorSet {
        #[prost(int64, tag = "2")]
        pub version: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Property {
        #[prost(string, tag = "1")]
        pub key: String,
        #[prost(string, tag = "2")]
        pub value: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Graph {
        #[prost(message, repeated, tag = "1")]
        pub node: Vec<Node>,
        #[prost(string, tag = "2")]
        pub name: String,
        #[prost(message, repeated, tag = "5")]
        pub initializer: Vec<Tensor>,
        #[prost(message, repeated, tag = "11")]
        pub input: Vec<Value>,
        #[prost(message, repeated, tag = "12")]
        pub output: Vec<Value>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Node {
        #[prost(string, repeated, tag = "1")]
        pub input: Vec<String>,
        #[prost(string, repeated, tag = "2")]
        pub output: Vec<String>,
        #[prost(string, tag = "4")]
        pub op_type: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Tensor {
        #[prost(int64, repeated, tag = "1")]
        pub dims: Vec<i64>,
        #[prost(int32, tag = "2")]
        pub data_type: i32,
        #[prost(float, repeated, tag = "4")]
        pub float_data: Vec<f32>,
        #[prost(string, tag = "8")]
        pub name: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Value {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(message, optional, tag = "2")]
        pub r#type: Option<Type>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Type {
        #[prost(message, optional, tag = "1")]
        pub tensor_type: Option<TensorType>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TensorType {
        #[prost(int32, tag = "1")]
        pub elem_type: i32,
        #[prost(message, optional, tag = "2")]
        pub shape: Option<Shape>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Shape {
        #[prost(message, repeated, tag = "1")]
        pub dim: Vec<Dimension>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Dimension {
        #[prost(oneof = "Size", tags = "1, 2")]
        pub size: Option<Size>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Size {
        #[prost(int64, tag = "1")]
        Value(i64),
        #[prost(string, tag = "2")]
        Name(String),
    }

    /// `TensorProto.DataType.FLOAT`
    pub const FLOAT: i32 = 1;
    /// Of 2021: older runtimes take it, too.
    pub const IR_VERSION: i64 = 8;
    pub const OPSET: i64 = 13;
}

/// `logit = relu(features w1 + b1) w2 + b2`, `p_migrate = sigmoid(logit)`; the scale of the inputs is in w1.
fn as_onnx(checkpoint: &Checkpoint, weights: &rl_weights) -> Vec<u8> {
    let layers = dequantise(weights);
    let scale = 1.0 / (1u32 << RL_FEATURE_BITS) as f32;
    let tensor = |name: &str, dims: &[i64], float_data| onnx::Tensor {
        dims: dims.to_vec(),
        data_type: onnx::FLOAT,
        float_data,
        name: name.to_string(),
    };
    let value = |name: &str, columns: i64| {
        let dim = [onnx::Size::Name("N".to_string()), onnx::Size::Value(columns)]
            .map(|size| onnx::Dimension { size: Some(size) })
            .to_vec();
        let tensor_type = onnx::TensorType { elem_type: onnx::FLOAT, shape: Some(onnx::Shape { dim }) };
        onnx::Value { name: name.to_string(), r#type: Some(onnx::Type { tensor_type: Some(tensor_type) }) }
    };
    let node = |op_type: &str, input: &[&str], output: &str| onnx::Node {
        input: input.iter().map(ToString::to_string).collect(),
        output: vec![output.to_string()],
        op_type: op_type.to_string(),
    };
    let (features, hidden) = (FEATURES as i64, i64::from(RL_HIDDEN));
    let graph = onnx::Graph {
        node: vec![
            node("Gemm", &["features", "w1", "b1"], "sum"),
            node("Relu", &["sum"], "hidden"),
            node("Gemm", &["hidden", "w2", "b2"], "logit"),
            node("Sigmoid", &["logit"], "p_migrate"),
        ],
        name: "policy".to_string(),
        initializer: vec![
            tensor("w1", &[features, hidden], layers.w1.iter().map(|w| w * scale).collect()),
            tensor("b1", &[hidden], layers.b1),
            tensor("w2", &[hidden, 1], layers.w2),
            tensor("b2", &[1], layers.b2),
        ],
        input: vec![value("features", features)],
        output: vec![value("logit", 1), value("p_migrate", 1)],
    };
    let names: Vec<_> = host::feature_table().iter().map(|feature| feature.name).collect();
    let property = |key: &str, value: String| onnx::Property { key: key.to_string(), value };
    onnx::Model {
        ir_version: onnx::IR_VERSION,
        producer_name: "scx_rl".to_string(),
        producer_version: env!("CARGO_PKG_VERSION").to_string(),
        doc_string: "The probability to migrate a task (to go on with a turn, where the feature turn is not 0)."
            .to_string(),
        graph: Some(graph),
        opset_import: vec![onnx::OperatorSet { version: onnx::OPSET }],
        metadata_props: vec![
            property("features", names.join(",")),
            property("feature_schema", host::feature_schema_hash()),
            property("updates", checkpoint.updates.to_string()),
        ],
    }
    .encode_to_vec()
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
        // Every second one is kept to say how good the tree is.
        let half = |rest: usize| -> Vec<Features> {
            situations.iter().skip(rest).step_by(2).take(SITUATIONS).copied().collect()
        };
        let (known, others) = (half(0), half(1));
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
        branch(&mut out, tree.root_node(), *actions, 0);
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

fn branch(out: &mut String, node: &TreeNode<f32, usize>, actions: [&str; 2], depth: usize) {
    let indent = "    ".repeat(depth);
    if let Some(action) = node.prediction() {
        let _ = writeln!(out, "{indent}{}", actions[action.min(1)]);
        return;
    }
    let (feature, limit, _) = node.split();
    let names = host::feature_table();
    let name = names.get(feature).map_or("?", |feature| feature.name);
    for (child, relation) in node.children().into_iter().zip(["<=", "> "]) {
        let _ = writeln!(out, "{indent}{name} {relation} {:.0}", limit.floor());
        if let Some(child) = child {
            branch(out, child, actions, depth + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{Agent, Hyper, Origin};

    #[test]
    fn an_onnx_model_is_the_policy() {
        let mut agent = Agent::new(Hyper::default(), 1).unwrap();
        let checkpoint = agent.checkpoint(Origin::default()).unwrap();
        let weights = checkpoint.publishable().unwrap();
        let model = onnx::Model::decode(as_onnx(&checkpoint, &weights).as_slice()).unwrap();
        let graph = model.graph.unwrap();
        let data = |i: usize| graph.initializer[i].float_data.as_slice();
        let (w1, b1, w2, b2) = (data(0), data(1), data(2), data(3));
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
