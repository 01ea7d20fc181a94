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

/// A constant of a weight in blocks that was converted from a GGUF file. The weight consists of several constants,
/// whose names begin with the weight's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockPart {
    /// The codes of the elements.
    Codes,
    /// The scale of each block.
    Scales,
    /// The zero point of each block.
    ZeroPoints,
    /// The offset of each block, in float.
    Offsets,
}

impl BlockPart {
    /// Returns the end of the name of the constant.
    pub fn suffix(self) -> &'static str {
        match self {
            BlockPart::Codes => ".blocks",
            BlockPart::Scales => ".scales",
            BlockPart::ZeroPoints => ".zero_points",
            BlockPart::Offsets => ".offsets",
        }
    }

    /// Returns the name of the constant of the weight `weight`.
    pub fn of(self, weight: &str) -> String {
        format!("{weight}{}", self.suffix())
    }
}

/// Returns whether the constant `name` of the graph `owner` is a part of a weight in blocks that was converted from a
/// GGUF file, but not its codes.
pub fn belongs_to_blocks(view: &View<'_>, owner: BodyId, name: &str) -> bool {
    let parts = [BlockPart::Scales, BlockPart::ZeroPoints, BlockPart::Offsets];
    let weight = parts.iter().find_map(|part| name.strip_suffix(part.suffix()));
    weight.is_some_and(|weight| view.constant_or_default(owner, &BlockPart::Codes.of(weight)).is_some())
}
