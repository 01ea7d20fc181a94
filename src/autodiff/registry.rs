//! The rules of operators, by name.

use super::rules::{
    conv, einsum, elementwise, gather, matmul, movement, normalization, pool, power, reduce, resize, shape, softmax,
};
use super::{Parts, Step, Tape};
use crate::error::Result;
use crate::onnx::proto::NodeProto;

/// The rule of an operator: a function that returns the gradients of a node's inputs, given the gradients of its
/// outputs.
pub(super) type Rule = fn(&mut Tape, &Step) -> Result<Parts>;

/// The operators through which no gradient flows: their outputs are integers, booleans, random, or constant almost
/// everywhere.
const STOPS: [&str; 31] = [
    "Shape",
    "Size",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "And",
    "Or",
    "Not",
    "Xor",
    "Range",
    "ConstantOfShape",
    "NonZero",
    "ArgMax",
    "ArgMin",
    "IsNaN",
    "IsInf",
    "Constant",
    "Floor",
    "Ceil",
    "Round",
    "Sign",
    "OneHot",
    "EyeLike",
    "Hardmax",
    "NonMaxSuppression",
    "Bernoulli",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniformLike",
];

/// Returns whether no gradient flows through a node.
pub(super) fn stops(node: &NodeProto) -> bool {
    STOPS.iter().any(|op| node.is(op))
}

/// Returns the rule of a node of the standard or ONNX Runtime's domain; `None` if there is none.
pub(super) fn rule(node: &NodeProto) -> Option<Rule> {
    let contrib = node.domain.as_deref() == Some("com.microsoft");
    let standard = matches!(node.domain.as_deref(), None | Some("" | "ai.onnx"));
    let rule: Rule = match (node.op(), standard, contrib) {
        ("Gelu", true, _) | ("Gelu", _, true) => elementwise::gelu,
        ("FastGelu", _, true) => elementwise::fast_gelu,
        ("QuickGelu", _, true) => elementwise::quick_gelu,
        (op, true, _) => standard_rule(op)?,
        _ => return None,
    };
    Some(rule)
}

fn standard_rule(op: &str) -> Option<Rule> {
    RULES.iter().find(|(ops, _)| ops.contains(&op)).map(|(_, rule)| *rule)
}

/// The rules of the standard operators.
pub(super) const RULES: [(&[&str], Rule); 50] = [
    (&["Add"], elementwise::add),
    (&["Sub"], elementwise::sub),
    (&["Mul"], elementwise::mul),
    (&["Div"], elementwise::div),
    (&["Sum"], elementwise::sum),
    (&["Min", "Max"], elementwise::extreme),
    (&["Pow"], power::pow),
    (&["Mod"], power::remainder),
    (&["Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"], power::angle),
    (&["Where"], elementwise::choose),
    (
        &[
            "Neg",
            "Erf",
            "Tanh",
            "Sigmoid",
            "Exp",
            "Log",
            "Sqrt",
            "Reciprocal",
            "Relu",
            "Sin",
            "Cos",
            "Abs",
            "LeakyRelu",
            "Elu",
            "HardSigmoid",
            "HardSwish",
            "Softplus",
            "Clip",
            "Cast",
            "CastLike",
            "Identity",
            "Dropout",
        ],
        elementwise::unary,
    ),
    (&["MatMul"], matmul::matmul),
    (&["Gemm"], matmul::gemm),
    (&["Softmax"], softmax::softmax),
    (&["LogSoftmax"], softmax::log_softmax),
    (&["LayerNormalization"], normalization::layer),
    (&["SimplifiedLayerNormalization"], normalization::rms),
    (&["BatchNormalization"], normalization::batch),
    (&["ReduceSum", "ReduceMean"], reduce::sum),
    (&["ReduceMax", "ReduceMin"], reduce::extreme),
    (&["ReduceL2", "ReduceL1", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"], reduce::norm),
    (&["ReduceProd"], reduce::product),
    (&["CumSum"], movement::running_sum),
    (&["Einsum"], einsum::einsum),
    (&["Reshape", "Squeeze", "Unsqueeze", "Flatten"], shape::reshape),
    (&["Transpose"], shape::transpose),
    (&["Expand"], shape::expand),
    (&["Tile"], shape::tile),
    (&["Concat"], shape::concat),
    (&["Split"], shape::split),
    (&["Slice"], shape::slice),
    (&["Pad"], shape::pad),
    (&["Gather"], gather::gather),
    (&["GatherND"], gather::gather_nd),
    (&["GatherElements"], gather::gather_elements),
    (&["ScatterND"], gather::scatter_nd),
    (&["ScatterElements"], movement::scatter_elements),
    (&["TopK"], movement::top),
    (&["DepthToSpace"], movement::depth_to_space),
    (&["SpaceToDepth"], movement::space_to_depth),
    (&["Trilu"], movement::triangle),
    (&["Compress", "ReverseSequence"], movement::by_place),
    (&["Resize"], resize::resize),
    (&["Conv"], conv::conv),
    (&["ConvTranspose"], conv::transposed),
    (&["MaxPool"], pool::max),
    (&["AveragePool"], pool::average),
    (&["GlobalAveragePool"], pool::global_average),
    (&["GlobalMaxPool"], pool::global_max),
    (&["GlobalLpPool"], pool::global_norm),
];
