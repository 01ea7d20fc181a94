//! Lowering to the operators that TensorRT's parser supports: the default domain up to opset 20.

mod activation;
mod attention;
mod form;
mod fused;

use crate::autodiff;
use crate::call::Call;
use crate::error::{Result, bail};
use crate::graph::blocks;
use crate::graph::edit::{Names, float_tensor, modernize_ir, node};
use crate::model::Model;
use crate::onnx::proto::{AttributeProto, ModelProto, NodeProto, TensorProto};
use crate::onnx::validate::subgraphs;
use crate::runtime::Runtime;
use std::collections::{BTreeMap, HashMap};

/// The newest opset of the default domain that the parser receives.
pub const NEWEST: i64 = 20;

/// Operators introduced after [`NEWEST`] that are not lowered here.
const LATER: [&str; 5] = ["Attention", "RotaryEmbedding", "TensorScatter", "BitCast", "CumProd"];

/// Operators that are lowered using the shapes of their inputs, which ONNX Runtime infers; gradients need them
/// lowered, too.
const BY_SHAPE: [(&str, &str); 5] = [
    ("", "Attention"),
    ("", "RotaryEmbedding"),
    ("com.microsoft", "Attention"),
    ("com.microsoft", "MultiHeadAttention"),
    ("com.microsoft", "RotaryEmbedding"),
];

/// Returns the model with every operator lowered, and the number of lowered nodes. Fails with `Unsupported`, naming
/// the operators that cannot be lowered.
///
/// Without a `runtime`, operators whose lowering depends on shapes remain and are reported.
pub(super) fn lower(runtime: Option<&'static Runtime>, model: &Model, call: &Call) -> Result<(ModelProto, usize)> {
    let mut proto = model.proto().clone();
    // Before IR 4 constants were listed as inputs.
    modernize_ir(&mut proto);
    let opset = model.opset();
    let mut reasons = HashMap::new();
    let mut lowered = blocks::dequantize(&mut proto)?;
    lowered += by_shape(runtime, &mut proto, opset, &mut reasons, call)?;
    lowered += attention::lower(&mut proto, opset, &mut reasons)?;
    lowered += one_by_one(&mut proto, opset);
    let functions: Vec<(String, String)> = proto
        .functions
        .iter()
        .map(|f| (f.domain.clone().unwrap_or_default(), f.name.clone().unwrap_or_default()))
        .collect();
    let mut left: BTreeMap<String, String> = BTreeMap::new();
    if let Some(graph) = proto.graph.as_deref() {
        find(&graph.node, &functions, &mut left);
    }
    if !left.is_empty() {
        let why = |node: &String| reasons.get(node).map_or_else(String::new, |reason| format!(": {reason}"));
        let list: Vec<String> = left.iter().map(|(op, node)| format!("{op} (node {node:?}{})", why(node))).collect();
        bail!(
            Unsupported,
            "TensorRT has no operator for, and none of it is lowered: {}; a checkpoint or GGUF file loaded with \
             portable \
             operators has none of these",
            list.join(", ")
        );
    }
    for import in &mut proto.opset_import {
        let default = matches!(import.domain.as_deref(), None | Some("" | "ai.onnx"));
        if default && import.version > Some(NEWEST) {
            import.version = Some(NEWEST);
        }
    }
    // Domains that no node is of any more: parsers look for their operators.
    if functions.is_empty() {
        proto.opset_import.retain(|import| matches!(import.domain.as_deref(), None | Some("" | "ai.onnx")));
    }
    Ok((proto, lowered))
}

fn by_shape(
    runtime: Option<&'static Runtime>,
    proto: &mut ModelProto,
    opset: i64,
    reasons: &mut HashMap<String, String>,
    call: &Call,
) -> Result<usize> {
    let wanted = |node: &NodeProto| {
        let domain = node.domain.as_deref().map_or("", |domain| if domain == "ai.onnx" { "" } else { domain });
        BY_SHAPE.contains(&(domain, node.op()))
    };
    let named: Vec<String> =
        proto.graph.iter().flat_map(|g| &g.node).filter(|n| wanted(n)).map(|n| n.label().to_owned()).collect();
    if named.is_empty() {
        return Ok(0);
    }
    let missing = match runtime {
        None => "its shapes cannot be inferred without ONNX Runtime",
        _ if opset < form::OLDEST => form::TOO_OLD,
        Some(runtime) => {
            let found = autodiff::lower_some(runtime, proto, &wanted, call)?;
            let stayed = found.left.len();
            reasons.extend(found.left.into_iter().map(|(node, reason)| (node.name, reason)));
            return Ok(named.len() - stayed);
        }
    };
    reasons.extend(named.into_iter().map(|name| (name, missing.to_owned())));
    Ok(0)
}

fn one_by_one(proto: &mut ModelProto, opset: i64) -> usize {
    let mut names = Names::of(proto);
    let (mut lowered, mut constants) = (0, Vec::new());
    let Some(graph) = proto.graph.as_deref_mut() else { return 0 };
    for node in std::mem::take(&mut graph.node) {
        match parts(&node, opset, &mut names, &mut constants) {
            Some(parts) => {
                lowered += 1;
                graph.node.extend(parts);
            }
            None => graph.node.push(node),
        }
    }
    graph.initializer.extend(constants);
    lowered
}

/// Returns the operators that are neither in the default domain up to [`NEWEST`] nor functions of the model, with the
/// first node of each.
fn find(nodes: &[NodeProto], functions: &[(String, String)], left: &mut BTreeMap<String, String>) {
    for node in nodes {
        let domain = node.domain.as_deref().unwrap_or("");
        let is_default = matches!(domain, "" | "ai.onnx");
        let own = functions.iter().any(|(d, name)| d == domain && name == node.op());
        let in_blocks = matches!(node.op(), "DequantizeLinear" | "QuantizeLinear") && node.int("block_size", 0) > 0;
        if !own && (!is_default || LATER.contains(&node.op()) || in_blocks) {
            let blocks = if in_blocks { " in blocks" } else { "" };
            let op = if is_default { format!("{}{blocks}", node.op()) } else { format!("{domain}.{}", node.op()) };
            left.entry(op).or_insert_with(|| node.label().to_owned());
        }
        for graph in subgraphs(node) {
            find(&graph.node, functions, left);
        }
    }
}

/// Returns nodes equivalent to one that the parser does not support; `None` if it supports the node or no lowering is
/// known.
fn parts(
    original: &NodeProto,
    opset: i64,
    names: &mut Names,
    constants: &mut Vec<TensorProto>,
) -> Option<Vec<NodeProto>> {
    let contrib = matches!(original.domain.as_deref(), Some("com.microsoft"));
    let default = matches!(original.domain.as_deref(), None | Some("" | "ai.onnx"));
    let mut b = Parts { opset, names, constants, nodes: Vec::new(), label: original.label().to_owned() };
    let x = original.input_at(0)?;
    let y = original.output.first()?.clone();
    match original.op() {
        "Gelu" if contrib => b.gelu(x, &y),
        "BiasGelu" if contrib => {
            let sum = b.op("Add", &[x, original.input_at(1)?]);
            b.gelu(&sum, &y);
        }
        "FastGelu" if contrib => {
            let sum = original.input_at(1).map(|bias| b.op("Add", &[x, bias]));
            b.fast_gelu(sum.as_deref().unwrap_or(x), &y);
        }
        "QuickGelu" if contrib => {
            let alpha = b.number(original.float("alpha", 1.702));
            let scaled = b.op("Mul", &[x, &alpha]);
            let gate = b.op("Sigmoid", &[&scaled]);
            b.give("Mul", &[x, &gate], &y);
        }
        "Swish" if default => {
            let alpha = b.number(original.float("alpha", 1.0));
            let scaled = b.op("Mul", &[x, &alpha]);
            let gate = b.op("Sigmoid", &[&scaled]);
            b.give("Mul", &[x, &gate], &y);
        }
        "FusedMatMul" if contrib => b.fused_product(original, x, &y)?,
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" if contrib => b.skip_norm(original, x, &y)?,
        // ONNX Runtime has these in the default domain, too.
        "SimplifiedLayerNormalization" | "RMSNormalization" if original.output.len() == 1 => {
            b.rms_norm(x, original.input_at(1)?, original.float("epsilon", 1e-5), original.int("axis", -1), &y)?;
        }
        _ => return None,
    }
    Some(b.nodes)
}

struct Parts<'p> {
    opset: i64,
    names: &'p mut Names,
    constants: &'p mut Vec<TensorProto>,
    nodes: Vec<NodeProto>,
    label: String,
}

impl Parts<'_> {
    fn give(&mut self, op: &str, inputs: &[&str], output: &str) {
        self.with(op, inputs, output, Vec::new());
    }

    fn with(&mut self, op: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) {
        let name = Some(self.names.fresh(&format!("{}/{op}", self.label)));
        self.nodes.push(NodeProto { name, attribute, ..node(op, inputs, &[output]) });
    }

    fn op(&mut self, op: &str, inputs: &[&str]) -> String {
        let output = self.names.fresh(&format!("{}/{op}_out", self.label));
        self.give(op, inputs, &output);
        output
    }

    fn number(&mut self, value: f32) -> String {
        let name = self.names.fresh(&format!("{}/number", self.label));
        self.constants.push(float_tensor(&name, &[], &[value]));
        name
    }
}
