//! Operators taken apart into those that have rules, a file a family. What is taken apart is the training graph alone;
//! the student that is saved keeps its nodes.
//!
//! For training only: `GroupQueryAttention` starts without a past, so what is cached plays no part, and rows that are
//! padded are padded behind their tokens, which under a causal mask nothing before them sees.

mod activation;
mod attention;
mod fused;
mod grouped;
mod normalization;
mod rotary;
mod sample;

use super::types::{Type, infer};
use super::{Uncovered, Writer, coverage};
use crate::call::Call;
use crate::error::{Context, Kind, Result, bail};
use crate::model::Dim;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto};
use crate::runtime::Runtime;
use std::collections::{BTreeSet, HashMap};

/// What a model was before and is now.
pub struct Lowered {
    /// Values that attention looks positions up in. No weights, though they may be constants.
    pub tables: BTreeSet<String>,
    /// Nodes of which only other forms can be taken apart, which are left as they are, and why.
    pub left: Vec<(Uncovered, String)>,
}

/// What can be taken apart only by knowing the dimensions of its inputs.
const BY_SHAPE: [&str; 4] = ["Attention", "MultiHeadAttention", "RotaryEmbedding", "FusedMatMul"];

/// Replaces operators of the main graph. Values keep their names.
pub fn lower(runtime: &'static Runtime, model: &mut ModelProto, call: &Call) -> Result<Lowered> {
    lower_some(runtime, model, &|_| true, call)
}

/// As [`lower`], of the nodes that are `wanted` alone.
pub fn lower_some(
    runtime: &'static Runtime,
    model: &mut ModelProto,
    wanted: &dyn Fn(&NodeProto) -> bool,
    call: &Call,
) -> Result<Lowered> {
    let mut lowered = Lowered { tables: BTreeSet::new(), left: Vec::new() };
    let by_shape = model.graph.iter().flat_map(|g| &g.node).any(|node| wanted(node) && BY_SHAPE.contains(&node.op()));
    let types = if by_shape { infer(runtime, model, call)? } else { HashMap::new() };
    let mut lowering = Lowering { w: Writer::new(model, "lowered"), masks: Vec::new(), types };
    let Some(graph) = model.graph.as_deref_mut() else { return Ok(lowered) };
    for node in std::mem::take(&mut graph.node) {
        if !wanted(&node) {
            lowering.w.nodes.push(node);
            continue;
        }
        let place = format!("node {:?}", node.label());
        lowered.tables.extend(tables(&node).iter().filter_map(|i| node.input_at(*i)).map(str::to_owned));
        let before = lowering.w.nodes.len();
        match lowering.apart(graph, &node) {
            Ok(true) => {}
            Ok(false) => lowering.w.nodes.push(node),
            Err(e) if e.kind() == Kind::Unsupported => {
                lowering.w.nodes.truncate(before);
                let name = Uncovered { name: node.label().to_owned(), op: coverage::operator(&node) };
                lowered.left.push((name, e.message().to_owned()));
                lowering.w.nodes.push(node);
            }
            Err(e) => return Err(e).at(|| place),
        }
    }
    graph.node = lowering.w.nodes;
    graph.initializer.append(&mut lowering.w.constants);
    Ok(lowered)
}

/// Which inputs of a node are tables of angles.
fn tables(node: &NodeProto) -> &'static [usize] {
    match (node.op(), node.domain.as_deref()) {
        ("GroupQueryAttention", _) => &[7, 8],
        ("RotaryEmbedding", Some("com.microsoft")) => &[2, 3],
        ("RotaryEmbedding", _) => &[1, 2],
        _ => &[],
    }
}

/// Takes nodes apart.
struct Lowering {
    w: Writer,
    /// What is added to scores, for each window.
    masks: Vec<(i64, String)>,
    /// Of the model's values, if any node asks for them.
    types: HashMap<String, Type>,
}

impl Lowering {
    /// Whether a node was taken apart.
    fn apart(&mut self, graph: &GraphProto, node: &NodeProto) -> Result<bool> {
        let op = node.op();
        match (node.domain.as_deref().unwrap_or(""), op) {
            (_, _) if node.output.first().is_none_or(String::is_empty) => return Ok(false),
            ("com.microsoft", "GroupQueryAttention") => self.grouped(graph, node)?,
            ("com.microsoft", "MultiHeadAttention") => self.many_heads(node)?,
            ("com.microsoft", "Attention") => self.packed(node)?,
            ("com.microsoft", "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization") => self.skip(node)?,
            ("com.microsoft", "BiasGelu") => self.bias_gelu(node),
            ("com.microsoft", "FusedMatMul") => self.fused_product(node)?,
            ("com.microsoft", "RotaryEmbedding") => self.rotary(node, [0, 2, 3, 1])?,
            ("" | "ai.onnx", "RotaryEmbedding") => self.rotary(node, [0, 1, 2, 3])?,
            ("" | "ai.onnx", "Attention") => self.attention(node)?,
            ("" | "ai.onnx", "GridSample") => self.sample(node)?,
            ("" | "ai.onnx", _) => return Ok(self.activation(node)? || self.normalization(node)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The number of dimensions of a value of the model.
    fn rank(&self, value: &str) -> Result<usize> {
        match self.types.get(value).and_then(|t| t.dims.as_ref()) {
            Some(dims) => Ok(dims.len()),
            None => bail!(Unsupported, "the number of dimensions of {value:?} is not known"),
        }
    }

    /// One fixed dimension of a value of the model.
    fn size(&self, value: &str, axis: i64) -> Result<i64> {
        let rank = self.rank(value)? as i64;
        let at = usize::try_from(if axis < 0 { axis + rank } else { axis }).unwrap_or(usize::MAX);
        match self.types.get(value).and_then(|t| t.dims.as_ref()).and_then(|dims| dims.get(at)) {
            Some(Dim::Fixed(size)) => Ok(*size),
            _ => bail!(Unsupported, "dimension {axis} of {value:?} is not fixed"),
        }
    }
}

/// The input of a node at `index`, which its operator must have.
fn input(node: &NodeProto, index: usize) -> Result<&str> {
    match node.input_at(index) {
        Some(name) => Ok(name),
        None => bail!(InvalidModel, "{} has no input {index}", node.op()),
    }
}
