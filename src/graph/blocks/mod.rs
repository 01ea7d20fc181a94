//! Dequantization of block-quantized weights, for consumers that do not support their operators: TensorRT, and
//! distillation, which trains weights. These are the weights of `MatMulNBits`, `GatherBlockQuantized` and
//! `DequantizeLinear` with a `block_size`, and those that a few standard nodes compute from 8-bit codes.

mod decode;
mod steps;
mod values;

use crate::error::{Result, bail};
use crate::files::Scratch;
use crate::graph::dead::{Policy, eliminate};
use crate::graph::edit::{self, Names};
use crate::graph::floats::store;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{ModelProto, NodeProto, TensorProto};
use std::collections::HashMap;
use values::Constants;

/// The elements of a weight as floats.
struct Weight {
    dims: [usize; 2],
    dtype: DataType,
    values: Vec<f32>,
}

/// Replaces nodes of the main graph with block-quantized weights by `MatMul` and `Gather` with constants, in the type
/// of the scales, and nodes that compute a weight from codes by the weight. Returns the number of replacements; if
/// there are any, unused nodes and initializers are removed. Nodes whose blocks or scales do not follow from constants,
/// or have an unsupported layout, stay unchanged.
///
/// The weights are written to scratch storage in the system's temporary folder. Fails with `NotFound` or `Io` if that
/// is not possible, and with [`crate::error::Kind::InvalidModel`] if a node with block-quantized weights lacks an input
/// or an output.
pub fn dequantize(proto: &mut ModelProto) -> Result<usize> {
    Ok(of_operators(proto)? + steps::expand(proto)?)
}

fn of_operators(proto: &mut ModelProto) -> Result<usize> {
    let mut names = Names::of(proto);
    let Some(graph) = proto.graph.as_deref() else { return Ok(0) };
    let scratch = Scratch::new(&std::env::temp_dir());
    let constants = Constants::of(graph);
    // A weight that is read twice becomes one constant.
    let mut known: HashMap<String, String> = HashMap::new();
    let mut made: HashMap<usize, Vec<NodeProto>> = HashMap::new();
    let mut weights: Vec<TensorProto> = Vec::new();
    for (index, node) in graph.node.iter().enumerate() {
        if is_linear(node) {
            if let Some((dims, dtype, values)) = decode::linear(&constants, node) {
                let name = node.output.first().map(String::as_str).unwrap_or_default();
                weights.push(edit::tensor(name, dtype, &dims, store(&values, dtype, &scratch)?));
                made.insert(index, Vec::new());
            }
            continue;
        }
        if !is_in_blocks(node) {
            continue;
        }
        let key = key(node);
        let name = match known.get(&key) {
            Some(name) => name.clone(),
            None => {
                let Some(weight) = decode::weight(&constants, node) else { continue };
                let source = node.input_at(usize::from(!is_table(node))).unwrap_or("weight");
                let name = names.fresh(&format!("{source}/float"));
                let dims = weight.dims.map(|d| d as i64);
                let raw = store(&weight.values, weight.dtype, &scratch)?;
                weights.push(edit::tensor(&name, weight.dtype, &dims, raw));
                known.insert(key, name.clone());
                name
            }
        };
        made.insert(index, instead(node, &name, &mut names)?);
    }
    let count = made.len();
    let Some(graph) = proto.graph.as_deref_mut().filter(|_| count > 0) else { return Ok(count) };
    for (index, node) in std::mem::take(&mut graph.node).into_iter().enumerate() {
        match made.remove(&index) {
            Some(nodes) => graph.node.extend(nodes),
            None => graph.node.push(node),
        }
    }
    graph.initializer.extend(weights);
    eliminate(graph, Policy::All);
    Ok(count)
}

/// Returns whether a node is an ONNX Runtime operator with block-quantized weights.
fn is_in_blocks(node: &NodeProto) -> bool {
    node.domain.as_deref() == Some("com.microsoft") && (is_table(node) || node.op() == "MatMulNBits")
}

fn is_table(node: &NodeProto) -> bool {
    node.op() == "GatherBlockQuantized"
}

/// Returns whether a node is a `DequantizeLinear` of the standard with a block size.
fn is_linear(node: &NodeProto) -> bool {
    node.is("DequantizeLinear") && node.int("block_size", 0) > 0
}

/// Returns a key that is equal for nodes whose weights are computed from the same constants.
fn key(node: &NodeProto) -> String {
    let at: &[usize] = if is_table(node) { &[0, 2, 3] } else { &[1, 2, 3, 4] };
    let inputs: Vec<&str> = at.iter().map(|index| node.input_at(*index).unwrap_or("")).collect();
    let sizes = ["K", "N", "bits", "block_size"].map(|name| node.int(name, 0));
    format!("{} {inputs:?} {sizes:?}", node.op())
}

/// Returns the nodes that replace a node and read its weight as `name`.
fn instead(node: &NodeProto, name: &str, names: &mut Names) -> Result<Vec<NodeProto>> {
    let table = is_table(node);
    let (Some(other), Some(output)) = (node.input_at(usize::from(table)), node.output.first()) else {
        bail!(InvalidModel, "node {:?} ({}) lacks an input or an output", node.label(), node.op());
    };
    let bias = node.input_at(5).filter(|_| !table);
    let product = if bias.is_some() { names.fresh(&format!("{output}/product")) } else { output.clone() };
    let mut nodes = vec![match table {
        true => edit::node("Gather", &[name, other], &[&product]),
        false => edit::node("MatMul", &[other, name], &[&product]),
    }];
    nodes[0].name = node.name.clone();
    nodes.extend(bias.map(|bias| NodeProto {
        name: Some(names.fresh(&format!("{}/Add", node.label()))),
        ..edit::node("Add", &[&product, bias], &[output])
    }));
    Ok(nodes)
}
