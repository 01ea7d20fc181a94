//! Lowers operators to those that have rules, one file per family. Only the training graph is lowered; the saved
//! student keeps its nodes.
//!
//! For training only: `GroupQueryAttention` starts without a past, so the cache plays no role, and padding follows
//! the tokens of a row, which under a causal mask do not attend to it.

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

/// The result of lowering a model.
pub struct Lowered {
    /// Tables in which attention looks up positions. They are not weights, even if they are constants.
    pub tables: BTreeSet<String>,
    /// Nodes whose form cannot be lowered and that remain, with the reason.
    pub left: Vec<(Uncovered, String)>,
}

/// Operators that can only be lowered with known input dimensions.
const BY_SHAPE: [&str; 4] = ["Attention", "MultiHeadAttention", "RotaryEmbedding", "FusedMatMul"];

/// Replaces operators of the main graph. Values keep their names.
pub fn lower(runtime: &'static Runtime, model: &mut ModelProto, call: &Call) -> Result<Lowered> {
    lower_some(runtime, model, &|_| true, call)
}

/// Like [`lower`], for the `wanted` nodes only.
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

/// Returns which inputs of a node are tables of angles.
fn tables(node: &NodeProto) -> &'static [usize] {
    match (node.op(), node.domain.as_deref()) {
        ("GroupQueryAttention", _) => &[7, 8],
        ("RotaryEmbedding", Some("com.microsoft")) => &[2, 3],
        ("RotaryEmbedding", _) => &[1, 2],
        _ => &[],
    }
}

/// Lowers nodes.
struct Lowering {
    w: Writer,
    /// Attention masks by window size.
    masks: Vec<(i64, String)>,
    /// Types of the model's values, if any node needs them.
    types: HashMap<String, Type>,
}

impl Lowering {
    /// Lowers a node; returns whether it was lowered.
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

    /// Returns the rank of a value of the model.
    fn rank(&self, value: &str) -> Result<usize> {
        match self.types.get(value).and_then(|t| t.dims.as_ref()) {
            Some(dims) => Ok(dims.len()),
            None => bail!(Unsupported, "the number of dimensions of {value:?} is not known"),
        }
    }

    /// Returns a fixed dimension of a value of the model.
    fn size(&self, value: &str, axis: i64) -> Result<i64> {
        let rank = self.rank(value)? as i64;
        let at = usize::try_from(if axis < 0 { axis + rank } else { axis }).unwrap_or(usize::MAX);
        match self.types.get(value).and_then(|t| t.dims.as_ref()).and_then(|dims| dims.get(at)) {
            Some(Dim::Fixed(size)) => Ok(*size),
            _ => bail!(Unsupported, "dimension {axis} of {value:?} is not fixed"),
        }
    }
}

/// Returns the required input of a node at `index`.
fn input(node: &NodeProto, index: usize) -> Result<&str> {
    match node.input_at(index) {
        Some(name) => Ok(name),
        None => bail!(InvalidModel, "{} has no input {index}", node.op()),
    }
}
