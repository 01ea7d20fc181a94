//! Operators that compute with quantized values.

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
