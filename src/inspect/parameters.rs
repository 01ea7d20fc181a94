//! The number of weights of a model. Scales, zero points and offsets of quantization are not counted, and a byte may
//! hold several weights.

use crate::graph::quantized::BlockPart;
use crate::graph::{BodyId, Producer, View};
use crate::onnx::dtype::element_count;
use crate::onnx::proto::{NodeProto, TensorProto, attribute_kind};
use std::collections::{HashMap, HashSet};

/// The number of weights per element of a constant, as a ratio (numerator, denominator).
type Worth = (u64, u64);

/// The ratio of each constant that does not have one weight per element, by body and name.
type Found<'m> = HashMap<(BodyId, &'m str), Worth>;

/// Returns the number of weights of the model.
pub fn count(view: &View<'_>) -> u64 {
    let mut found = Found::new();
    for (body, content) in view.bodies.iter().enumerate() {
        for node in content.nodes {
            for index in marks(node) {
                if let Some(name) = node.input_at(*index) {
                    mark(view, (body, name), 0, &mut found);
                }
            }
            packed(view, body, node, &mut found);
        }
        let named = content.graph.iter().flat_map(|graph| &graph.initializer).filter_map(|t| t.name.as_deref());
        let names: HashSet<&str> = named.collect();
        for weight in names.iter().filter_map(|name| name.strip_suffix(BlockPart::Codes.suffix())) {
            let mut has = |part: BlockPart, worth: Worth| {
                let name = names.get(part.of(weight).as_str());
                name.map(|name| found.insert((body, *name), worth)).is_some()
            };
            has(BlockPart::Scales, (0, 1));
            has(BlockPart::Offsets, (0, 1));
            let planes = has(BlockPart::ZeroPoints, (0, 1));
            // A byte has two nibbles. A weight of more than four bits, which has zero points, takes two of them: one
            // for its high and one for its low bits.
            has(BlockPart::Codes, if planes { (1, 1) } else { (2, 1) });
        }
    }
    let worth = |body: BodyId, name: Option<&str>, tensor: &TensorProto| {
        let (weights, elements) = name.and_then(|name| found.get(&(body, name))).copied().unwrap_or((1, 1));
        element_count(&tensor.dims).unwrap_or(0).saturating_mul(weights) / elements
    };
    let mut total = 0u64;
    for (body, content) in view.bodies.iter().enumerate() {
        for node in content.nodes {
            let constants = node.attribute.iter().filter(|a| a.kind == Some(attribute_kind::TENSOR));
            let name = node.output.first().map(String::as_str).filter(|_| node.is("Constant"));
            total += constants.filter_map(|a| a.t.as_deref()).map(|t| worth(body, name, t)).sum::<u64>();
        }
        let initializers = content.graph.iter().flat_map(|graph| &graph.initializer);
        total += initializers.map(|t| worth(body, t.name.as_deref(), t)).sum::<u64>();
    }
    total
}

/// Returns the indices of the inputs of a node that are scales, zero points and group indices of a quantization.
fn marks(node: &NodeProto) -> &'static [usize] {
    match node.op() {
        "DequantizeLinear" | "QuantizeLinear" => &[1, 2],
        "MatMulNBits" => &[2, 3, 4],
        "GatherBlockQuantized" | "MatMulInteger" | "ConvInteger" | "DynamicQuantizeMatMul" => &[2, 3],
        "MatMulIntegerToFloat" => &[2, 3, 4, 5],
        "QLinearMatMul" | "QLinearConv" => &[1, 2, 4, 5, 6, 7],
        "QGemm" => &[1, 2, 4, 5, 7, 8],
        "DynamicQuantizeLSTM" => &[8, 9, 10, 11],
        _ => &[],
    }
}

/// Marks a scale or zero point, and the constants from which simple operators compute it, as not being weights.
fn mark<'m>(view: &View<'m>, (body, name): (BodyId, &'m str), depth: usize, found: &mut Found<'m>) {
    match view.producer(body, name) {
        Some((owner, Producer::Initializer(_))) => {
            found.insert((owner, name), (0, 1));
        }
        Some((owner, Producer::Node(index))) => {
            let node = view.node(owner, index);
            if node.is("Constant") {
                found.insert((owner, name), (0, 1));
            } else if depth < 8 && matches!(node.op(), "Cast" | "Mul" | "Reshape" | "Identity" | "Transpose") {
                let inputs = node.input.iter().filter(|input| !input.is_empty());
                inputs.for_each(|input| mark(view, (owner, input), depth + 1, found));
            }
        }
        _ => {}
    }
}

/// Records the ratio of a weight whose elements share bytes.
fn packed<'m>(view: &View<'m>, body: BodyId, node: &'m NodeProto, found: &mut Found<'m>) {
    let bits = node.int("bits", 4);
    let (at, true) = (usize::from(node.op() == "MatMulNBits"), matches!(bits, 1 | 2 | 4)) else { return };
    if !matches!(node.op(), "MatMulNBits" | "GatherBlockQuantized") {
        return;
    }
    let (mut at, mut name) = (body, node.input_at(at));
    // An embedding table that is also the matrix of the output layer is stored once, and reshaped for one of the two.
    let (owner, index) = loop {
        match name.and_then(|name| view.producer(at, name)) {
            Some((owner, Producer::Initializer(index))) => break (owner, index),
            Some((owner, Producer::Node(index))) if matches!(view.node(owner, index).op(), "Reshape" | "Identity") => {
                (at, name) = (owner, view.node(owner, index).input_at(0));
            }
            _ => return,
        }
    };
    let Some(tensor) = view.initializer(owner, index) else { return };
    // An element of another type, such as int4, is one weight.
    let bytes = tensor.data_type == Some(crate::onnx::dtype::DataType::Uint8.to_onnx());
    if let (Some(name), true) = (tensor.name.as_deref(), bytes) {
        found.insert((owner, name), (8 / bits.unsigned_abs(), 1));
    }
}
