//! Detection of `MatMul`, `Gemm` and `Conv` nodes whose results are the input of a logarithm, as in log-mel
//! spectrograms. Such nodes stay float: with 8 bits and one scale, the rounding error is as large for small values as
//! for large ones, and the logarithm turns a small error of a small value into a large error.

use crate::graph::constants::Constant;
use crate::graph::{BodyId, Use, View};
use crate::onnx::proto::NodeProto;
use crate::quantize::QuantizeOptions;
use std::collections::HashSet;

/// The reason why a product in front of a logarithm stays float.
pub const REASON: &str = "its results are the input of a logarithm, for which 8 bits are too coarse; with \
                          max_quality_loss, the loss is measured instead";

/// The operators whose small results come from small operands.
const CARRIERS: [&str; 26] = [
    "Abs",
    "Add",
    "Cast",
    "Clip",
    "Concat",
    "Div",
    "Gather",
    "Identity",
    "Max",
    "Mul",
    "Pad",
    "Pow",
    "ReduceL2",
    "ReduceMean",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Slice",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Transpose",
    "Unsqueeze",
];

/// The maximum number of nodes between the product and the logarithm.
const DEPTH: usize = 16;

/// The magnitude from which on a constant, as a summand or lower bound, keeps small values away from the logarithm, as
/// in `log(1 + x)`.
const OFFSET: f32 = 0.1;

/// Returns whether `node` stays float because its results reach a logarithm. Returns `false` if the options limit the
/// loss of quality: then the loss is measured instead.
pub fn leaves(view: &View<'_>, body: BodyId, node: &NodeProto, options: &QuantizeOptions) -> bool {
    options.max_quality_loss == 0.0 && reach(view, body, node)
}

/// Returns whether results of `node` reach a logarithm through at most [`DEPTH`] nodes: [`CARRIERS`], and at most one
/// product with a constant (a filter bank over a spectrum).
fn reach(view: &View<'_>, body: BodyId, node: &NodeProto) -> bool {
    let mut seen = HashSet::new();
    let mut open: Vec<(BodyId, &str, bool, usize)> =
        node.output.iter().map(|output| (body, output.as_str(), false, 0)).collect();
    while let Some((owner, name, filtered, depth)) = open.pop() {
        if depth == DEPTH || !seen.insert((owner, name, filtered)) {
            continue;
        }
        for place in view.uses(owner, name) {
            let Use::Node { body, node, .. } = *place else { continue };
            let reader = view.node(body, node);
            let product = ["MatMul", "Gemm", "Conv"].contains(&reader.op());
            match reader.op() {
                "Log" | "ReduceLogSum" => return true,
                _ if product && !filtered && constant(view, body, reader, 1).is_some() => {}
                op if CARRIERS.contains(&op) && !is_offset(view, body, reader) => {}
                _ => continue,
            }
            open.extend(reader.output.iter().map(|output| (body, output.as_str(), filtered || product, depth + 1)));
        }
    }
    false
}

fn constant<'a>(view: &View<'a>, body: BodyId, node: &NodeProto, input: usize) -> Option<Constant<'a>> {
    view.constant(body, node.input_at(input)?)
}

/// Returns whether a node keeps its results away from zero by a constant.
fn is_offset(view: &View<'_>, body: BodyId, node: &NodeProto) -> bool {
    let inputs = match node.op() {
        "Add" | "Max" | "Sum" => 0..node.input.len(),
        "Clip" => 1..2,
        _ => return false,
    };
    let least = |input| constant(view, body, node, input)?.floats()?.into_iter().reduce(f32::min);
    inputs.filter_map(least).any(|least| least >= OFFSET)
}
