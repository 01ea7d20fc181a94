//! Lowering of fused operators to simpler ones, one file per family.
//!
//! [`lower`] produces operators that have gradients. To lower some operators ([`by_shape`]), it needs the types of the
//! values. [`lower_grouped`] and [`lower_each`] produce standard operators, for parsers that support no others. The
//! lowering of `GroupQueryAttention` is shared.

mod activation;
mod attention;
mod form;
mod fused;
mod grouped;
mod normalization;
mod rotary;
mod sample;
mod standard;
#[cfg(test)]
mod tests;

pub use form::{OLDEST, TOO_OLD};
pub use grouped::{Past, lower_grouped};
pub use standard::lower_each;

use super::builder::NodeBuilder;
use crate::error::{Context, Kind, Result, bail};
use crate::model::Dim;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto};
use form::Form;
use grouped::Grouped;
use std::collections::{BTreeSet, HashMap};

/// The element type and the dimensions of a value, as far as they are known.
#[derive(Debug, Clone, Default)]
pub struct Type {
    /// Element type of the value; `None` if it is not a tensor.
    pub dtype: Option<DataType>,
    /// Dimensions of the value; `None` if the rank is unknown.
    pub dims: Option<Vec<Dim>>,
}

/// The types of values, by name.
pub type Types = HashMap<String, Type>;

/// The result of [`lower`] in addition to the graph.
pub struct Lowered {
    /// Names of the tables with the cosines and sines of rotary embeddings. They are not weights, even if they are
    /// constants.
    pub tables: BTreeSet<String>,
    /// Nodes that stay unchanged although their operator can be lowered, because of their attributes, inputs or shapes.
    pub left: Vec<Left>,
}

/// A node that was not lowered.
pub struct Left {
    /// Name of the node, or of its first output.
    pub name: String,
    /// Operator of the node, with its domain unless it is a standard one.
    pub op: String,
    /// Reason why the node was not lowered.
    pub reason: String,
}

/// Returns whether lowering a node needs the dimensions of its inputs.
pub fn by_shape(node: &NodeProto) -> bool {
    match node.domain.as_deref() {
        None | Some("" | "ai.onnx") => matches!(node.op(), "Attention" | "RotaryEmbedding" | "GridSample"),
        Some("com.microsoft") => {
            matches!(node.op(), "Attention" | "MultiHeadAttention" | "RotaryEmbedding" | "FusedMatMul")
        }
        _ => false,
    }
}

/// Lowers the nodes of the main graph for which `wanted` is true and whose operator can be lowered. Values keep their
/// names. `types` are the types of the values of the main graph; they may be empty if no node is one of [`by_shape`].
///
/// Nodes that cannot be lowered stay unchanged and are listed in [`Lowered::left`]. Fails with
/// [`crate::error::Kind::InvalidModel`] if a node lacks an input or its sizes contradict each other.
pub fn lower(model: &mut ModelProto, types: Types, wanted: &dyn Fn(&NodeProto) -> bool) -> Result<Lowered> {
    let mut lowered = Lowered { tables: BTreeSet::new(), left: Vec::new() };
    let mut lowering = Lowering { w: NodeBuilder::new(model, "lowered"), grouped: Grouped::new(Past::Nothing), types };
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
                let (name, op, reason) = (node.label().to_owned(), node.operator(), e.message().to_owned());
                lowered.left.push(Left { name, op, reason });
                lowering.w.nodes.push(node);
            }
            Err(e) => return Err(e).at(|| place),
        }
    }
    graph.node = lowering.w.nodes;
    graph.initializer.append(&mut lowering.w.constants);
    Ok(lowered)
}

/// Returns the indices of the inputs of a node that are tables of cosines and sines.
fn tables(node: &NodeProto) -> &'static [usize] {
    match (node.op(), node.domain.as_deref()) {
        ("GroupQueryAttention", _) => &[7, 8],
        ("RotaryEmbedding", Some("com.microsoft")) => &[2, 3],
        ("RotaryEmbedding", _) => &[1, 2],
        _ => &[],
    }
}

/// The state of lowering the nodes of a graph.
struct Lowering {
    w: NodeBuilder,
    grouped: Grouped,
    /// Types of the model's values; empty if no node needs them.
    types: Types,
}

impl Lowering {
    /// Lowers a node, and returns whether its operator can be lowered. Fails with `Unsupported` if the operator can be
    /// lowered, but not with the attributes, inputs or shapes of this node.
    fn apart(&mut self, graph: &GraphProto, node: &NodeProto) -> Result<bool> {
        let op = node.op();
        match (node.domain.as_deref().unwrap_or(""), op) {
            (_, _) if node.output.first().is_none_or(String::is_empty) => return Ok(false),
            ("com.microsoft", "GroupQueryAttention") => {
                let form = Form::of(graph, node, self.w.opset, Past::Nothing)?;
                self.grouped.lower(&mut self.w, node, &form);
            }
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

    /// Returns the rank of a value of the model. Fails with `Unsupported` if it is unknown.
    fn rank(&self, value: &str) -> Result<usize> {
        match self.types.get(value).and_then(|t| t.dims.as_ref()) {
            Some(dims) => Ok(dims.len()),
            None => bail!(Unsupported, "the number of dimensions of {value:?} is not known"),
        }
    }

    /// Returns the size of a dimension of a value of the model; a negative `axis` counts from the end. Fails with
    /// `Unsupported` if it is not fixed.
    fn size(&self, value: &str, axis: i64) -> Result<i64> {
        let rank = self.rank(value)? as i64;
        let at = usize::try_from(if axis < 0 { axis + rank } else { axis }).unwrap_or(usize::MAX);
        match self.types.get(value).and_then(|t| t.dims.as_ref()).and_then(|dims| dims.get(at)) {
            Some(Dim::Fixed(size)) => Ok(*size),
            _ => bail!(Unsupported, "dimension {axis} of {value:?} is not fixed"),
        }
    }
}

/// Returns the name of the input `index` of a node. Fails with `InvalidModel` if it is omitted.
fn input(node: &NodeProto, index: usize) -> Result<&str> {
    match node.input_at(index) {
        Some(name) => Ok(name),
        None => bail!(InvalidModel, "{} has no input {index}", node.op()),
    }
}
