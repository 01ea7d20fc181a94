//! Rules for the effect of each kind of node on axes, one file per family.
//!
//! A rule sets the dimensions and axes of the outputs. For every axis of every input it determines whether the axis is
//! also one of an output, is linked with another axis (elements at the same position are removed together), or is
//! blocked (it cannot be cut), with the reason. If a rule returns an error, all axes of the node are blocked.

mod attention;
mod conv;
mod elementwise;
mod gather;
mod join;
mod matmul;
mod norm;
mod numbers;
mod opaque;
mod reduce;
mod reshape;
mod shapes;
mod spatial;

use super::analysis::{Analysis, Judged};
use crate::graph::quantized::is_quantized;
use crate::onnx::proto::NodeProto;
pub use spatial::TOO_SHORT;

/// Applies the rule of a node. The error is the reason why no axis can be cut through it.
pub fn judge<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    match node.domain.as_deref() {
        None | Some("" | "ai.onnx") => standard(cx, node),
        Some("com.microsoft") => contrib(cx, node),
        Some("ai.onnx.ml") => learned(cx, node),
        _ => Err("its operator is not known"),
    }
}

fn standard<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    match node.op() {
        op if elementwise::UNARY.contains(&op) => elementwise::unary(cx, node),
        op if elementwise::BROADCAST.contains(&op) => elementwise::broadcast(cx, node),
        op if reduce::REDUCE.contains(&op) => reduce::reduce(cx, node),
        op if is_quantized(node) && !op.is_empty() => Err("it is already quantized"),
        "Constant" => Err("it is not a tensor"),
        "MatMul" => matmul::matmul(cx, node),
        "Gemm" => matmul::gemm(cx, node),
        "Conv" => conv::conv(cx, node),
        "ConvTranspose" => conv::transposed(cx, node),
        "MaxPool" | "AveragePool" | "LpPool" => spatial::pool(cx, node),
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => spatial::global_pool(cx, node),
        "Resize" | "Upsample" => spatial::resize(cx, node),
        "Pad" => spatial::pad(cx, node),
        "BatchNormalization" => norm::batch(cx, node),
        "InstanceNormalization" => norm::instance(cx, node),
        "LayerNormalization" | "SimplifiedLayerNormalization" | "RMSNormalization" => norm::layer(cx, node),
        "GroupNormalization" => norm::group(cx, node),
        "LRN" | "LpNormalization" | "MeanVarianceNormalization" => norm::channel(cx, node),
        "Softmax" | "LogSoftmax" | "Hardmax" => norm::softmax(cx, node),
        "ArgMax" | "ArgMin" => reduce::arg(cx, node),
        "CumSum" => reduce::cumulative(cx, node),
        "Reshape" => reshape::reshape(cx, node),
        "Flatten" => reshape::flatten(cx, node),
        "Transpose" => shapes::transpose(cx, node),
        "Squeeze" => shapes::squeeze(cx, node),
        "Unsqueeze" => shapes::unsqueeze(cx, node),
        "Shape" => shapes::shape(cx, node),
        "Size" => shapes::size(cx, node),
        "Expand" => shapes::expand(cx, node),
        "ConstantOfShape" => shapes::constant_of_shape(cx, node),
        "Range" => shapes::range(cx, node),
        "Tile" => shapes::tile(cx, node),
        "Trilu" => shapes::trilu(cx, node),
        "Concat" => join::concat(cx, node),
        "Split" => join::split(cx, node),
        "Slice" => join::slice(cx, node),
        "Gather" => gather::gather(cx, node),
        "RotaryEmbedding" => attention::rotary(cx, node),
        "LSTM" | "GRU" | "RNN" => opaque::recurrent(cx, node),
        "DepthToSpace" | "SpaceToDepth" => opaque::blocks(cx, node),
        "ScatterElements" | "ScatterND" | "ReverseSequence" | "EyeLike" | "RandomNormalLike" | "RandomUniformLike" => {
            opaque::as_input(cx, node, 0)
        }
        "GatherElements" => opaque::as_input(cx, node, 1),
        "GatherND" => opaque::gather_nd(cx, node),
        "TopK" => opaque::top_k(cx, node),
        "OneHot" => opaque::one_hot(cx, node),
        _ => Err("its effect on the units is not known"),
    }
}

/// Applies the rule of an operator of classic machine learning.
fn learned<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    match node.op() {
        "Scaler" | "Normalizer" | "Binarizer" | "Imputer" | "LabelEncoder" => opaque::as_input(cx, node, 0),
        _ => Err("its effect on the units is not known"),
    }
}

fn contrib<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    match node.op() {
        "Gelu" | "QuickGelu" => elementwise::unary(cx, node),
        "BiasGelu" | "FastGelu" => elementwise::broadcast(cx, node),
        "GroupQueryAttention" => attention::group_query(cx, node),
        "MultiHeadAttention" => attention::multi_head(cx, node),
        "RotaryEmbedding" => attention::rotary(cx, node),
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => norm::skip(cx, node),
        _ if is_quantized(node) => Err("it is already quantized"),
        _ => Err("its effect on the units is not known"),
    }
}
