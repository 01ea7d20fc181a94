//! Operators that compute with quantized values.

use super::{BodyId, View};
use crate::onnx::proto::NodeProto;

/// The operators that take quantized weights.
const WEIGHTED: [&str; 12] = [
    "MatMulNBits",
    "MatMulBnb4",
    "GatherBlockQuantized",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM",
    "ConvInteger",
    "QLinearMatMul",
    "QLinearConv",
    "QGemm",
    "QAttention",
];

/// The operators on quantized values that have no weights.
const WEIGHTLESS: [&str; 5] =
    ["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearAdd", "QLinearMul"];

/// Returns whether a node has an operator that takes quantized weights, such as `MatMulNBits`, `MatMulInteger` or
/// `QLinearConv`.
pub fn has_quantized_weights(node: &NodeProto) -> bool {
    WEIGHTED.contains(&node.op())
}

/// Returns whether a node takes quantized weights ([`has_quantized_weights`]), or quantizes, dequantizes, adds or
/// multiplies quantized values.
pub fn is_quantized(node: &NodeProto) -> bool {
    has_quantized_weights(node) || WEIGHTLESS.contains(&node.op())
}

/// Returns whether the constant `name` of the graph `owner` is a part of a weight in blocks that was converted from a
/// GGUF file: its scales, zero points or offsets. The weight is a constant with the same name that ends in `.blocks`.
pub fn belongs_to_blocks(view: &View<'_>, owner: BodyId, name: &str) -> bool {
    let whole = [".scales", ".zero_points", ".offsets"].iter().find_map(|part| name.strip_suffix(part));
    whole.is_some_and(|whole| view.constant_or_default(owner, &format!("{whole}.blocks")).is_some())
}
