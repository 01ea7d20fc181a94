//! The roles of the inputs of operators: weights, and the axes of their channels.

use crate::graph::View;
use crate::graph::constants::whole_numbers;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::NodeProto;

/// The use of an input by a node.
pub enum Role {
    /// A weight, with a mask of the axes that have their own scales, if known.
    Weight(Option<Vec<bool>>),
    /// A table of which a `Gather` or `EmbedLayerNormalization` reads rows, with a mask of the axes that have their own
    /// scales, if known.
    Table(Option<Vec<bool>>),
    /// A value that the node returns in another shape, order or type, with the axis of the input for each axis of the
    /// output, if known.
    Passes(Option<Vec<usize>>),
    /// A value of which the node uses only the shape.
    Shape,
    /// A value with another use, which may need full precision.
    Other,
}

/// Returns a mask of all axes except one.
fn all_but(rank: usize, axis: usize) -> Vec<bool> {
    (0..rank).map(|a| a != axis).collect()
}

/// Returns a mask of one axis.
fn only(rank: usize, axis: usize) -> Vec<bool> {
    (0..rank).map(|a| a == axis).collect()
}

/// Returns an integer attribute, or the default if there is none; `None` if the call of a function sets it.
fn int(node: &NodeProto, name: &str, default: i64) -> Option<i64> {
    match node.attribute(name) {
        Some(attribute) if attribute.ref_attr_name.is_some() => None,
        _ => Some(node.int(name, default)),
    }
}

/// Returns the role of the input `input` of a node; `rank` is the rank of its value, if known.
pub fn role(view: &View<'_>, body: usize, node: &NodeProto, input: usize, rank: Option<usize>) -> Role {
    match node.domain.as_deref() {
        None | Some("" | "ai.onnx") => standard(view, body, node, input, rank),
        Some("com.microsoft") => contributed(node, input, rank),
        _ => Role::Other,
    }
}

fn standard(view: &View<'_>, body: usize, node: &NodeProto, input: usize, rank: Option<usize>) -> Role {
    match (node.op(), input) {
        ("Conv" | "DeformConv", 1) => Role::Weight(rank.map(|r| only(r, 0))),
        // With several groups, the channels are pairs of a group of inputs and an output, which are no single axis.
        ("ConvTranspose", 1) => {
            Role::Weight(rank.filter(|r| *r > 1 && int(node, "group", 1) == Some(1)).map(|r| only(r, 1)))
        }
        ("LSTM" | "GRU" | "RNN", 1 | 2) => Role::Weight(rank.filter(|r| *r == 3).map(|r| all_but(r, 2))),
        ("MatMul", _) => Role::Weight(factor(rank, input, false)),
        ("Gemm", 0 | 1) => gemm(node, input, rank),
        ("Einsum", _) => Role::Weight(None),
        ("Gather", 0) => {
            let axis = int(node, "axis", 0).zip(rank).and_then(|(axis, rank)| place(axis, rank).map(|a| only(rank, a)));
            Role::Table(axis)
        }
        ("Shape" | "Size", _) => Role::Shape,
        ("Identity", _) => Role::Passes(rank.map(|r| (0..r).collect())),
        ("Cast", _) if to_float(node) => Role::Passes(rank.map(|r| (0..r).collect())),
        ("Transpose", _) => Role::Passes(rank.and_then(|r| permutation(node, r))),
        ("Reshape" | "Unsqueeze" | "Squeeze" | "Flatten" | "Slice" | "Split" | "Expand", 0) | ("Concat", _) => {
            Role::Passes(None)
        }
        // The other operand is a constant factor that the exporter did not fold into the weight.
        ("Mul", _) | ("Div", 0)
            if node.input_at(1 - input.min(1)).is_some_and(|n| view.constant(body, n).is_some()) =>
        {
            Role::Passes(None)
        }
        _ => Role::Other,
    }
}

fn contributed(node: &NodeProto, input: usize, rank: Option<usize>) -> Role {
    match (node.op(), input) {
        ("FusedConv", 1) => Role::Weight(rank.map(|r| only(r, 0))),
        ("NhwcFusedConv" | "NhwcConv" | "ConvTransposeWithDynamicPads", 1) => Role::Weight(None),
        ("FusedGemm", 0 | 1) => gemm(node, input, rank),
        ("FusedMatMul" | "TransposeMatMul" | "FusedMatMulActivation", 0 | 1) => {
            let plain = ["transBatchA", "transBatchB"].iter().all(|name| int(node, name, 0) == Some(0));
            let transposed = int(node, if input == 0 { "transA" } else { "transB" }, 0);
            Role::Weight(transposed.filter(|_| plain).and_then(|transposed| factor(rank, input, transposed != 0)))
        }
        ("GemmFastGelu" | "Attention" | "PackedAttention", 1) | ("DecoderAttention", 2 | 3) => {
            Role::Weight(factor(rank, 1, false))
        }
        ("LongformerAttention", 1 | 4) => Role::Weight(factor(rank, 1, false)),
        ("AttnLSTM", 1 | 2) => Role::Weight(rank.filter(|r| *r == 3).map(|r| all_but(r, 2))),
        ("MoE", 2 | 4 | 6) => Role::Weight(None),
        ("EmbedLayerNormalization", 2..=4) => Role::Table(rank.map(|r| only(r, 0))),
        _ => Role::Other,
    }
}

/// Returns the channels of an operand of a product: all axes except the one that is summed over.
fn factor(rank: Option<usize>, input: usize, transposed: bool) -> Option<Vec<bool>> {
    let rank = rank.filter(|r| *r > 1)?;
    let summed = if (input == 0) != transposed { rank - 1 } else { rank - 2 };
    Some(all_but(rank, summed))
}

fn gemm(node: &NodeProto, input: usize, rank: Option<usize>) -> Role {
    let transposed = int(node, if input == 0 { "transA" } else { "transB" }, 0);
    Role::Weight(transposed.and_then(|transposed| factor(rank, input, transposed != 0)))
}

fn place(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(axis).ok().filter(|a| *a < rank)
}

fn to_float(node: &NodeProto) -> bool {
    let to = int(node, "to", 0).and_then(|to| i32::try_from(to).ok()).and_then(DataType::from_onnx);
    matches!(to, Some(DataType::Float32 | DataType::Float16 | DataType::Bfloat16))
}

fn permutation(node: &NodeProto, rank: usize) -> Option<Vec<usize>> {
    match node.attribute("perm") {
        None => Some((0..rank).rev().collect()),
        Some(perm) if perm.ref_attr_name.is_some() => None,
        Some(perm) => {
            let axes: Option<Vec<usize>> = perm.ints.iter().map(|axis| place(*axis, rank)).collect();
            axes.filter(|axes| axes.len() == rank)
        }
    }
}

/// Returns whether a value is a weight that is already stored in few bits.
pub fn already(view: &View<'_>, body: usize, name: &str) -> bool {
    let (mut at, mut name) = (body, name);
    for _ in 0..16 {
        let Some((owner, crate::graph::Producer::Node(index))) = view.producer(at, name) else { return false };
        let node = view.node(owner, index);
        let Some(first) = node.input_at(0) else { return false };
        if node.is("Cast") {
            let Some(constant) = stored_constant(view, owner, first) else {
                (at, name) = (owner, first);
                continue;
            };
            return constant;
        }
        let through =
            ["Mul", "Sub", "Concat", "Reshape", "Transpose", "Identity", "Unsqueeze", "Squeeze", "Slice", "Conv"];
        if !through.iter().any(|op| node.is(op)) {
            return false;
        }
        (at, name) = (owner, first);
    }
    false
}

/// Returns whether a constant has 8-bit elements and at least two dimensions; `None` if the value is not a constant.
fn stored_constant(view: &View<'_>, body: usize, name: &str) -> Option<bool> {
    let constant = view.constant(body, name)?;
    let dtype = constant.tensor.dtype();
    let whole = whole_numbers(constant.tensor).is_none();
    Some(whole && matches!(dtype, Some(DataType::Int8 | DataType::Uint8)) && constant.tensor.dims.len() > 1)
}
