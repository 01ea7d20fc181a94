//! Attention operators of the domain `com.microsoft`.

use super::attention::{AttentionPlan, Fill, Heads, MaskTerm, Operand, ScoresPlan};
use super::linear::{LinearPart, Weight, fits};
use super::{Group, Kind, Plan, Rules, quantized};
use crate::kernels::{Activation, Layout};
use crate::provider::graph::{Element, Graph, NodeId, ValueId};

/// Attention whose queries, keys and values are parts of one product.
#[derive(Debug)]
pub struct PackedAttentionPlan {
    /// Input of the attention: batch × tokens × K.
    pub x: ValueId,
    /// Product that computes queries, keys and values. `y` of it is the output of the attention.
    pub product: LinearPart,
    /// Number of heads of the attention.
    pub heads: usize,
    /// Computation of the scores of the attention.
    pub scores: ScoresPlan,
}

/// Returns the group of the attention operator `node`, or of the `DynamicQuantizeLinear` `node` before one; `None` if
/// it is not supported.
pub fn attention(graph: &Graph<'_>, rules: &Rules<'_>, node: NodeId) -> Option<Group> {
    if graph.is_microsoft(node, "MultiHeadAttention") {
        return multi_head(graph, node);
    }
    if graph.is_microsoft(node, "Attention") {
        return packed(graph, rules, node);
    }
    let wanted = graph.is(node, "DynamicQuantizeLinear") && rules.claims(Kind::Quantized);
    if wanted { packed_int8(graph, node) } else { None }
}

/// Returns the padding mask `value` of `node`; `None` if its type or rank is not supported. `lengths` is whether a mask
/// of one dimension is supported, which contains the lengths of the sequences.
fn padding(graph: &Graph<'_>, node: NodeId, value: ValueId, lengths: bool) -> Option<MaskTerm> {
    let with = graph.float(node, "mask_filter_value", -10_000.0);
    let rank = graph.shape_of(value, Element::Int32).filter(|_| !graph.value(value).is_constant)?.len();
    let fill = match rank {
        1 if lengths => Fill::Lengths { with },
        2 | 3 => Fill::Keep { with },
        _ => return None,
    };
    Some(MaskTerm { value, fill })
}

/// Returns the computation of the scores of `node`, whose inputs `mask` and `bias` are masks; `None` if one of them is
/// not supported. See [`padding`] for `lengths`.
fn scores(
    graph: &Graph<'_>,
    node: NodeId,
    mask: Option<ValueId>,
    bias: Option<ValueId>,
    lengths: bool,
) -> Option<ScoresPlan> {
    let mut masks = Vec::new();
    if let Some(mask) = mask {
        masks.push(padding(graph, node, mask, lengths)?);
    }
    if let Some(bias) = bias {
        let rank = graph.shape_of(bias, Element::Float32).filter(|_| !graph.value(bias).is_constant)?.len();
        masks.push(MaskTerm { value: bias, fill: Fill::Add });
        if rank != 4 {
            return None;
        }
    }
    let scale = Some(graph.float(node, "scale", 0.0)).filter(|scale| *scale != 0.0);
    let causal = graph.int(node, "unidirectional", 0) != 0;
    Some(ScoresPlan { scale, masks, causal, zero_if_hidden: false })
}

/// Returns the group of a `MultiHeadAttention` node with separate queries, keys and values, without a cache; `None` for
/// other forms of the node.
fn multi_head(graph: &Graph<'_>, node: NodeId) -> Option<Group> {
    let input = |index| graph.input(node, index);
    let (q, k, v) = (input(0)?, input(1)?, input(2)?);
    let heads = usize::try_from(graph.int(node, "num_heads", 0)).ok().filter(|heads| *heads > 0)?;
    let rank = |value: ValueId| graph.shape_of(value, Element::Float32).map_or(0, <[i64]>::len);
    let variable = [q, k, v].iter().all(|value| !graph.value(*value).is_constant);
    let has_more = (6..10).any(|index| input(index).is_some());
    if !variable || has_more || !graph.has_one_output(node) || rank(q) != 3 {
        return None;
    }
    let keys = match (rank(k), rank(v)) {
        (3, 3) => Heads::Joined(heads),
        (4, 4) => Heads::First,
        _ => return None,
    };
    let bias = match input(3) {
        // A bias of keys that are already split into heads is not supported; no known model has one.
        Some(bias) if keys == Heads::Joined(heads) => Some(vector(graph, bias)?),
        Some(_) => return None,
        None => None,
    };
    let scores = scores(graph, node, input(4), input(5), false)?;
    // A causal mask together with another mask is not claimed, because ONNX Runtime does not document in which order it
    // adds them.
    if scores.causal && !scores.masks.is_empty() {
        return None;
    }
    let operand = |value, heads| Operand { value, heads };
    let (q, k, v) = (operand(q, Heads::Joined(heads)), operand(k, keys), operand(v, keys));
    let y = operand(graph.output(node)?, Heads::Joined(0));
    Some(Group { nodes: vec![node], plan: Plan::Attention(AttentionPlan { q, k, v, bias, scores, y }) })
}

/// Returns the content of a constant float32 vector; `None` for other values.
fn vector(graph: &Graph<'_>, value: ValueId) -> Option<Vec<f32>> {
    let tensor = graph.constant(value).filter(|tensor| tensor.shape.len() == 1)?;
    Some(tensor.floats().ok()?.into_owned())
}

/// Returns the group of an attention `node` with packed weights of queries, keys and values; the group consists of
/// `nodes`. Returns `None` if an attribute or a shape is not supported.
fn group(
    graph: &Graph<'_>,
    node: NodeId,
    nodes: Vec<NodeId>,
    x: ValueId,
    (k, n, weight): (usize, usize, Weight),
    (bias, mask, more): (Option<ValueId>, Option<ValueId>, Option<ValueId>),
) -> Option<Group> {
    let heads = usize::try_from(graph.int(node, "num_heads", 0)).ok().filter(|heads| *heads > 0)?;
    let thirds =
        n.is_multiple_of(3 * heads) && graph.ints(node, "qkv_hidden_sizes").is_none_or(|sizes| sizes.is_empty());
    let plain = graph.int(node, "do_rotary", 0) == 0 && graph.int(node, "past_present_share_buffer", 0) == 0;
    let rank = graph.shape_of(x, Element::Float32)?.len();
    if !thirds || !plain || rank != 3 || !graph.has_one_output(node) || !fits(graph, x, k as i64, n as i64) {
        return None;
    }
    let bias = match bias {
        Some(bias) => Some(vector(graph, bias).filter(|bias| bias.len() == n)?),
        None => None,
    };
    let scores = scores(graph, node, mask, more, true)?;
    if scores.causal && !scores.masks.is_empty() {
        return None;
    }
    let y = graph.output(node)?;
    let product = LinearPart { weight, k, n, bias, activation: Activation::None, steps: Vec::new(), y };
    Some(Group { nodes, plan: Plan::PackedAttention(PackedAttentionPlan { x, product, heads, scores }) })
}

/// Returns the group of an `Attention` node with float32 weights; `None` if products with float32 weights are not
/// claimed.
fn packed(graph: &Graph<'_>, rules: &Rules<'_>, node: NodeId) -> Option<Group> {
    let precision = rules.float_products()?;
    let input = |index| graph.input(node, index);
    let (x, values) = (input(0)?, input(1)?);
    let [k, n] = graph.shape_of(values, Element::Float32)?[..] else { return None };
    if input(4).is_some() || input(6).is_some() || !graph.value(values).is_constant {
        return None;
    }
    let weight = Weight::Float { values, layout: Layout::KxN, precision };
    let sizes = (usize::try_from(k).ok()?, usize::try_from(n).ok()?, weight);
    group(graph, node, vec![node], x, sizes, (input(2), input(3), input(5)))
}

/// Returns the group of a `QAttention` node whose input the `DynamicQuantizeLinear` `node` quantizes; `None` if there
/// is no such node or its form is not supported.
fn packed_int8(graph: &Graph<'_>, node: NodeId) -> Option<Group> {
    let outputs: Vec<ValueId> = graph.node(node).outputs.iter().flatten().copied().collect();
    let [codes, scale, zero_point] = outputs[..] else { return None };
    let attention = graph.only_use(codes).filter(|node| graph.is_microsoft(*node, "QAttention"))?;
    let input = |index| graph.input(attention, index);
    let fits = [(0, codes), (3, scale), (6, zero_point)]
        .iter()
        .all(|(index, value)| input(*index) == Some(*value) && graph.only_use(*value) == Some(attention));
    if !fits || input(8).is_some() {
        return None;
    }
    let sizes = quantized::int8(graph, input(1)?, input(7), input(4)?)?;
    let x = graph.input(node, 0)?;
    group(graph, attention, vec![node, attention], x, sizes, (input(2), input(5), None))
}
