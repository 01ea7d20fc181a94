//! Lowering to the operators that TensorRT's parser supports: the default domain up to opset 20.

use crate::call::Call;
use crate::error::{Result, bail};
use crate::graph::edit::modernize_ir;
use crate::graph::{blocks, lower};
use crate::model::Model;
use crate::onnx::proto::{ModelProto, NodeProto};
use crate::onnx::validate::subgraphs;
use crate::runtime::{Runtime, infer_types};
use std::collections::{BTreeMap, HashMap};

/// The newest opset of the default domain that the parser receives.
pub const NEWEST: i64 = 20;

/// The operators introduced after [`NEWEST`] that are not lowered here.
const LATER: [&str; 5] = ["Attention", "RotaryEmbedding", "TensorScatter", "BitCast", "CumProd"];

/// Returns the model with the operators lowered that the parser does not support, and the number of lowered nodes.
/// Functions of the model are kept, and a newer opset is set to [`NEWEST`].
///
/// Fails with [`crate::error::Kind::Unsupported`], naming the operators that cannot be lowered. Without a `runtime`,
/// these include operators whose lowering depends on shapes.
pub(super) fn lower(runtime: Option<&'static Runtime>, model: &Model, call: &Call) -> Result<(ModelProto, usize)> {
    let mut proto = model.proto().clone();
    // Before IR version 4, constants were also listed as inputs.
    modernize_ir(&mut proto);
    let opset = model.opset();
    let mut reasons = HashMap::new();
    let mut lowered = blocks::dequantize(&mut proto)?;
    lowered += by_shape(runtime, &mut proto, opset, &mut reasons, call)?;
    lowered += lower::lower_grouped(&mut proto, opset, &mut reasons)?;
    lowered += lower::lower_each(&mut proto, opset);
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
            "TensorRT does not support these operators, and they cannot be replaced: {}; a checkpoint or GGUF file \
             loaded with portable operators has none of them",
            list.join(", ")
        );
    }
    for import in &mut proto.opset_import {
        let default = matches!(import.domain.as_deref(), None | Some("" | "ai.onnx"));
        if default && import.version > Some(NEWEST) {
            import.version = Some(NEWEST);
        }
    }
    // Imports of unused domains are removed, because parsers look for their operators.
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
    // `lower_each` lowers a FusedMatMul without shapes, and TensorRT supports GridSample.
    let wanted = |node: &NodeProto| lower::by_shape(node) && !matches!(node.op(), "FusedMatMul" | "GridSample");
    let named: Vec<String> =
        proto.graph.iter().flat_map(|g| &g.node).filter(|n| wanted(n)).map(|n| n.label().to_owned()).collect();
    if named.is_empty() {
        return Ok(0);
    }
    let missing = match runtime {
        None => "its shapes cannot be inferred without ONNX Runtime",
        _ if opset < lower::OLDEST => lower::TOO_OLD,
        Some(runtime) => {
            let found = lower::lower(proto, infer_types(runtime, proto, call)?, &wanted)?;
            let stayed = found.left.len();
            reasons.extend(found.left.into_iter().map(|left| (left.name, left.reason)));
            return Ok(named.len() - stayed);
        }
    };
    reasons.extend(named.into_iter().map(|name| (name, missing.to_owned())));
    Ok(0)
}

/// Adds to `left` the operators that are neither in the default domain up to [`NEWEST`] nor functions of the model,
/// with the first node of each.
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
