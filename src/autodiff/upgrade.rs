//! Conversion of graphs of old opsets to one that has the operators for gradients.

use super::NodeBuilder;
use crate::error::{Result, bail};
use crate::graph::{edit, opset};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{AttributeProto, ModelProto, NodeProto, attribute_kind};

/// The opset that models are converted to: `ScatterND` adds since 16; `LayerNormalization` exists since 17.
const WANTED: i64 = 17;
/// The oldest opset that is supported: since then, operators are equivalent except for the changes made here.
const OLDEST: i64 = 6;

/// Converts a model of opset 6 to 16 to opset 17, and one of an IR version below 4 to IR version 4 or later. The opset
/// of newer models, and of models that import none, stays unchanged. Fails with [`crate::error::Kind::Unsupported`] for
/// opsets below 6, and like [`opset::raise`].
///
/// From opset 13 on, [`opset::raise`] does this. Older models differ more, and are changed here: some attributes became
/// inputs; `Softmax` no longer flattens (since 13); `Upsample` became `Resize` (10); broadcasting had an axis (until
/// 6). Source: the ONNX change log, `docs/Changelog.md`.
pub fn upgrade(model: &mut ModelProto) -> Result<()> {
    edit::modernize_ir(model);
    let from = opset::version(model);
    if !(1..WANTED).contains(&from) {
        return Ok(());
    }
    if from < OLDEST {
        bail!(Unsupported, "opset {from} is too old to differentiate; at least {OLDEST} is required");
    }
    model.ir_version = model.ir_version.max(Some(8));
    if from < opset::OLDEST {
        let mut w = NodeBuilder::new(model, "upgraded");
        if let Some(graph) = model.graph.as_deref_mut() {
            for node in std::mem::take(&mut graph.node) {
                lift(&mut w, node, from);
            }
            graph.node = w.nodes;
            graph.initializer.append(&mut w.constants);
        }
        for import in &mut model.opset_import {
            if matches!(import.domain.as_deref(), None | Some("" | "ai.onnx")) {
                import.version = Some(opset::OLDEST);
            }
        }
    }
    opset::raise(model, WANTED)
}

/// Returns the names of the attributes of an operator that became inputs, in the order of the inputs.
fn moved(op: &str) -> &'static [&'static str] {
    match op {
        "Squeeze" | "Unsqueeze" | "ReduceSum" => &["axes"],
        "Split" => &["split"],
        "Clip" => &["min", "max"],
        "Pad" => &["pads", "value"],
        "Slice" => &["starts", "ends", "axes"],
        "TopK" => &["k"],
        "Upsample" => &["scales"],
        _ => &[],
    }
}

fn lift(w: &mut NodeBuilder, mut node: NodeProto, from: i64) {
    if !matches!(node.domain.as_deref(), None | Some("" | "ai.onnx")) {
        return w.nodes.push(node);
    }
    for name in moved(node.op()) {
        match node.attribute.iter().position(|a| a.name.as_deref() == Some(name)) {
            Some(at) => {
                let attribute = node.attribute.remove(at);
                let constant = constant(w, &attribute);
                node.input.push(constant);
            }
            // A later input of the node may exist, so the omitted one gets an empty name.
            None if node.is("Clip") && node.input.len() == 1 => node.input.push(String::new()),
            None => {}
        }
    }
    if from < 7 {
        align(w, &mut node);
    }
    match node.op() {
        "Dropout" => node.attribute.retain(|a| a.name.as_deref() != Some("ratio")),
        "BatchNormalization" => node.attribute.retain(|a| a.name.as_deref() != Some("spatial")),
        "Upsample" => resize(&mut node),
        "Resize" if from < 11 => resize(&mut node),
        "Softmax" | "LogSoftmax" if node.int("axis", 1) != -1 => return flattened(w, node),
        _ => {}
    }
    w.nodes.push(node);
}

fn constant(w: &mut NodeBuilder, attribute: &AttributeProto) -> String {
    match attribute.kind {
        Some(attribute_kind::FLOAT) => w.scalar(attribute.f.unwrap_or(0.0)),
        _ if !attribute.floats.is_empty() => {
            let raw = attribute.floats.iter().flat_map(|v| v.to_le_bytes()).collect();
            w.constant(DataType::Float32, &[attribute.floats.len() as i64], raw)
        }
        Some(attribute_kind::INT) => w.ints(&[attribute.i.unwrap_or(0)]),
        _ => w.ints(&attribute.ints),
    }
}

/// Appends dimensions of 1 to the second input of a node before opset 7, so that it is aligned with the axis that the
/// node names, and removes attributes that only those opsets have.
fn align(w: &mut NodeBuilder, node: &mut NodeProto) {
    let axis = match node.op() {
        "PRelu" => Some(1),
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "And" | "Or" | "Xor" | "Equal" | "Greater" | "Less" => {
            node.attribute("axis").and_then(|a| a.i).filter(|axis| *axis >= 0)
        }
        _ => None,
    };
    let old = ["broadcast", "is_test", "consumed_inputs"];
    node.attribute.retain(|a| !old.contains(&a.name.as_deref().unwrap_or("")));
    let (Some(axis), Some(a), Some(b)) = (axis, node.input_at(0), node.input_at(1)) else { return };
    let (long, short) = (w.op("Shape", &[a]), w.op("Shape", &[b]));
    let (many, few) = (w.op("Shape", &[&long]), w.op("Shape", &[&short]));
    let (axis, one) = (w.ints(&[axis]), w.ints(&[1]));
    let end = w.op("Add", &[&few, &axis]);
    let missing = w.op("Sub", &[&many, &end]);
    let none = w.ints(&[0]);
    let beyond = w.op("Less", &[&missing, &none]);
    let missing = w.op("Where", &[&beyond, &none, &missing]);
    let ones = w.op("Expand", &[&one, &missing]);
    let sizes = w.concat(&[&short, &ones], 0);
    node.input[1] = w.op("Reshape", &[b, &sizes]);
    node.attribute.retain(|a| a.name.as_deref() != Some("axis"));
}

/// Converts `Resize` of opset 10 and earlier, and `Upsample`, to `Resize` of opset 11.
fn resize(node: &mut NodeProto) {
    node.op_type = Some("Resize".to_owned());
    node.input.insert(1, String::new());
    for (name, value) in [("coordinate_transformation_mode", "asymmetric"), ("nearest_mode", "floor")] {
        node.attribute.push(edit::text_attribute(name, value));
    }
}

/// Replaces a `Softmax` by one over all dimensions from the axis on, which is the meaning until opset 12.
fn flattened(w: &mut NodeBuilder, node: NodeProto) {
    let (Some(x), Some(y)) = (node.input_at(0), node.output.first()) else { return w.nodes.push(node) };
    let shape = w.op("Shape", &[x]);
    let flat = w.op_with("Flatten", &[x], vec![edit::int_attribute("axis", node.int("axis", 1))]);
    let made = w.op_with(node.op(), &[&flat], vec![edit::int_attribute("axis", -1)]);
    w.op_to("Reshape", &[&made, &shape], y, Vec::new());
}
