//! The operators for which ONNX Runtime has CPU kernels with 8-bit activations.
//!
//! The operators are among those of ONNX Runtime's QDQ transformer: an operator between `DequantizeLinear` and
//! `QuantizeLinear` becomes one integer kernel, or for [`Rule::Same`] moves bytes. For operators that the transformer
//! does not know, the conversions would be wasted.

use crate::graph::View;
use crate::graph::constants::Constant;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::NodeProto;

/// The computation of an operator without a weight on quantized values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// `QLinearAdd` or `QLinearMul`, in which either operand may be a constant.
    Binary,
    /// `QLinearConcat`, in which each input has its own scale.
    Concat,
    /// `QLinearAveragePool`, `QLinearGlobalAveragePool`, `QLinearSigmoid` or `QLinearLeakyRelu`.
    Unary,
    /// An operator whose output contains elements of the input: both have one scale, and nothing is computed.
    Same,
    /// `HardSigmoid`, as a sum with a constant that saturates at both ends. Its factor is applied by the scale with
    /// which the codes are read.
    Gate,
    /// `Relu` or `Clip`, which is removed, because the codes of the output saturate at its bounds.
    Bound,
}

/// The opset from which on `Resize` supports bytes, and `Clip` has its bounds as inputs.
const INPUTS_OPSET: i64 = 11;
/// The opset from which on `MaxPool` supports bytes.
const MAX_POOL_OPSET: i64 = 12;

/// Returns the rule for a node; `None` if there is none.
pub fn rule(node: &NodeProto, opset: i64) -> Option<Rule> {
    if !matches!(node.domain.as_deref(), None | Some("" | "ai.onnx")) {
        return None;
    }
    let one_output = node.output.iter().filter(|name| !name.is_empty()).count() == 1;
    let rule = match node.op() {
        "Add" | "Mul" => Rule::Binary,
        "Concat" => Rule::Concat,
        "AveragePool" if !pools_otherwise(node) => Rule::Unary,
        "HardSigmoid" if gate(node).is_some() => Rule::Gate,
        "GlobalAveragePool" | "Sigmoid" | "LeakyRelu" => Rule::Unary,
        "Relu" | "Clip" => Rule::Bound,
        "MaxPool" if opset >= MAX_POOL_OPSET => Rule::Same,
        "Resize" if opset >= INPUTS_OPSET && resizes_bytes(node) => Rule::Same,
        "Reshape" | "Transpose" | "Squeeze" | "Unsqueeze" | "Flatten" | "Gather" => Rule::Same,
        "Split" => Rule::Same,
        _ => return None,
    };
    (one_output || node.op() == "Split").then_some(rule)
}

/// Returns whether ONNX Runtime's integer kernel does not support this `AveragePool`, or divides windows that extend
/// beyond the input differently from the float kernel. Between quantized values, ONNX Runtime selects that kernel
/// anyway.
pub fn pools_otherwise(node: &NodeProto) -> bool {
    let set = |name: &str| node.int(name, 0) != 0;
    node.is("AveragePool") && (node.attribute("dilations").is_some() || set("ceil_mode") && set("count_include_pad"))
}

/// Returns the factor of a `HardSigmoid`, and the number that is added to its input before the multiplication. Returns
/// `None` if the slope is not positive, or the number is not positive.
pub fn gate(node: &NodeProto) -> Option<(f32, f32)> {
    let (alpha, beta) = (node.float("alpha", 0.2), node.float("beta", 0.5));
    let added = beta / alpha;
    (alpha > 0.0 && added > 0.0 && added.is_finite()).then_some((alpha, added))
}

/// Returns whether a mode of `Resize` has an integer kernel. Cubic interpolation has negative weights, so its results
/// can leave the range.
fn resizes_bytes(node: &NodeProto) -> bool {
    let text = |name: &str| node.attribute(name).and_then(|a| a.s.as_deref());
    let mode = text("mode").unwrap_or(b"nearest");
    let outside = text("coordinate_transformation_mode") == Some(b"tf_crop_and_resize");
    let stretched = text("keep_aspect_ratio_policy").is_none_or(|policy| policy == b"stretch");
    let all = node.attribute("axes").is_none() && stretched;
    (mode == b"nearest" || mode == b"linear") && !outside && all && node.int("antialias", 0) == 0
}

/// Returns the inputs of a node with a rule that are activations (or constants that are quantized like them).
pub fn data_inputs(node: &NodeProto, rule: Rule) -> std::ops::Range<usize> {
    match rule {
        Rule::Binary | Rule::Concat => 0..node.input.len(),
        Rule::Unary | Rule::Gate | Rule::Same | Rule::Bound => 0..1,
    }
}

/// Returns the bounds of a `Relu` or `Clip`, infinite where there is none; `None` if a bound is not a constant.
pub fn bounds(view: &View<'_>, node: &NodeProto) -> Option<(f32, f32)> {
    if node.is("Relu") {
        return Some((0.0, f32::INFINITY));
    }
    let bound = |name: &str, input: usize, default: f32| match (node.attribute(name), node.input_at(input)) {
        (Some(attribute), _) => attribute.f,
        (None, None) => Some(default),
        (None, Some(input)) => scalar(&view.constant(0, input)?),
    };
    Some((bound("min", 1, f32::NEG_INFINITY)?, bound("max", 2, f32::INFINITY)?))
}

fn scalar(constant: &Constant<'_>) -> Option<f32> {
    match floats(constant)?.as_slice() {
        [value] => Some(*value),
        _ => None,
    }
}

/// Returns the elements of a constant that is read as float32, in storage order (not transposed); `None` if it is not
/// such a constant.
pub fn floats(constant: &Constant<'_>) -> Option<Vec<f32>> {
    constant.floats().filter(|_| constant.dtype == DataType::Float32.to_onnx())
}
