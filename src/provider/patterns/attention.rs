//! Attention as exporters write it: two products, a scale, a mask, Softmax and transpositions.
//!
//! ```text
//!  q [b,s,h,d] -> Transpose ----------\
//!  k [b,t,h,d] -> Transpose ----> MatMul -> · scale -> + mask -> Softmax -\
//!  v [b,t,h,d] -> Transpose ----------------------------------------> MatMul -> Transpose -> [b,s,h,d]
//! ```
//! A `Reshape` before the first or after the last `Transpose` is part of the group if its shape is constant and only
//! splits or merges the heads. Any other `Reshape` stays outside the group, which costs nothing, because a `Reshape`
//! copies nothing.

use super::{Group, Plan};
use crate::provider::graph::{Element, Graph, NodeId, ValueId};

/// Attention: softmax(q·kᵀ·scale + masks)·v.
#[derive(Debug)]
pub struct AttentionPlan {
    /// Queries of the attention.
    pub q: Operand,
    /// Keys of the attention.
    pub k: Operand,
    /// Values of the attention.
    pub v: Operand,
    /// Bias of the rows of queries, keys and values, concatenated.
    pub bias: Option<Vec<f32>>,
    /// Computation of the scores between the two products.
    pub scores: ScoresPlan,
    /// Output of the attention.
    pub y: Operand,
}

/// The computation of the scores of attention: scale, masks and softmax, between the two products.
#[derive(Debug)]
pub struct ScoresPlan {
    /// Factor by which the scores are multiplied; `None` is 1/√(size of a head).
    pub scale: Option<f32>,
    /// Masks that are applied to the scores.
    pub masks: Vec<MaskTerm>,
    /// Whether a query attends only to keys up to its own position.
    pub causal: bool,
    /// Whether the result of a query whose keys are all masked by -inf is 0 instead of NaN.
    pub zero_if_hidden: bool,
}

/// An input or output of attention.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// Index of the value in the graph.
    pub value: ValueId,
    /// Order of the dimensions of the value.
    pub heads: Heads,
}

/// The order of the dimensions of queries, keys, values or the output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heads {
    /// batch × tokens × (heads · size), with this number of heads; 0 in an output, whose heads are those of the inputs.
    Joined(usize),
    /// batch × tokens × heads × size.
    TokensFirst,
    /// batch × heads × tokens × size.
    First,
    /// batch × heads × size × tokens: keys that are already transposed.
    SizeFirst,
}

/// A mask of attention.
#[derive(Clone, Copy, Debug)]
pub struct MaskTerm {
    /// Value with the mask, which is broadcast to batch × heads × queries × keys.
    pub value: ValueId,
    /// Effect of the mask on the scores.
    pub fill: Fill,
}

/// The effect of a mask on the scores.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Fill {
    /// The mask is float32 and is added to the scores.
    Add,
    /// The mask is bool; where it equals `when`, `with` replaces the score.
    Replace {
        /// The value of the mask where scores are replaced.
        when: bool,
        /// The value that replaces the score; so low that adding it to the score gives the same result.
        with: f32,
    },
    /// The mask is int32 and has, for each sequence, the position after its last key. Optionally, the position of the
    /// first key of each sequence follows (otherwise 0). Keys outside of these ranges are masked.
    Lengths {
        /// The value added to the scores of masked keys.
        with: f32,
    },
    /// The mask is int32, has the shape batch × keys or batch × queries × keys, and is 0 or less for masked keys.
    Keep {
        /// The value added to the scores of masked keys.
        with: f32,
    },
}

/// Returns the group of the attention whose softmax is `node`; `None` if the nodes around it are not an attention.
pub fn find(graph: &Graph<'_>, node: NodeId) -> Option<Group> {
    let mut nodes = vec![node];
    let (scores, probabilities) = softmax(graph, node)?;
    let (probabilities, zero_if_hidden) = guard(graph, probabilities, &mut nodes);
    let (scores, masks) = masks(graph, scores, &mut nodes)?;
    let mut scale = 1.0;
    let product = scales(graph, scores, &mut scale, &mut nodes)?;
    let (q, k) = operands(graph, product, &mut scale, &mut nodes)?;

    let product = graph.only_use_by(probabilities, "MatMul")?;
    let values = graph.other(product, probabilities).filter(|_| graph.input(product, 0) == Some(probabilities))?;
    nodes.push(product);
    let v = transposed(graph, values, &mut nodes)?;
    let y = output(graph, graph.output(product)?, &mut nodes)?;
    let scores = ScoresPlan { scale: Some(scale), masks, causal: false, zero_if_hidden };
    let plan = AttentionPlan { q, k, v, bias: None, scores, y };
    distinct(graph, &plan, &nodes).then_some(Group { nodes, plan: Plan::Attention(plan) })
}

/// Returns whether all inputs of the attention come from outside the group and are not constants.
fn distinct(graph: &Graph<'_>, plan: &AttentionPlan, nodes: &[NodeId]) -> bool {
    let operands = [plan.q.value, plan.k.value, plan.v.value].into_iter();
    let mut inputs = operands.chain(plan.scores.masks.iter().map(|mask| mask.value));
    inputs.all(|value| {
        let value = graph.value(value);
        !value.is_constant && value.producer.is_none_or(|producer| !nodes.contains(&producer))
    })
}

/// Returns the input and the output of a Softmax over the last of four axes; `None` for other nodes.
fn softmax(graph: &Graph<'_>, node: NodeId) -> Option<(ValueId, ValueId)> {
    let scores = graph.input(node, 0).filter(|_| graph.is(node, "Softmax"))?;
    let rank = graph.shape_of(scores, Element::Float32)?.len();
    // The default axis depends on the version of the operator.
    let last = [-1, 3].contains(&graph.int(node, "axis", i64::MIN));
    if rank == 4 && last { Some((scores, graph.output(node)?)) } else { None }
}

/// Returns the output of the `Where` that replaces NaN in `probabilities` by 0, as PyTorch exports
/// scaled_dot_product_attention, and whether there is one. Without one, the output is `probabilities`.
fn guard(graph: &Graph<'_>, probabilities: ValueId, nodes: &mut Vec<NodeId>) -> (ValueId, bool) {
    let found = || {
        let [first, second] = graph.value(probabilities).consumers[..] else { return None };
        let (is_nan, select) = if graph.is(first, "IsNaN") { (first, second) } else { (second, first) };
        let test = graph.output(is_nan).filter(|_| graph.is(is_nan, "IsNaN"))?;
        let fits = graph.is(select, "Where")
            && graph.input(select, 0) == Some(test)
            && graph.only_use(test) == Some(select)
            && graph.scalar(graph.input(select, 1)?) == Some(0.0)
            && graph.input(select, 2) == Some(probabilities)
            && !graph.value(probabilities).is_output;
        Some((is_nan, select, graph.output(select)?)).filter(|_| fits)
    };
    match found() {
        Some((is_nan, select, output)) => {
            nodes.extend([is_nan, select]);
            (output, true)
        }
        None => (probabilities, false),
    }
}

/// Returns the scores before their masks, and the masks, at most four.
fn masks(graph: &Graph<'_>, mut scores: ValueId, nodes: &mut Vec<NodeId>) -> Option<(ValueId, Vec<MaskTerm>)> {
    let mut masks = Vec::new();
    while masks.len() < 4 {
        let Some((node, inner, mask)) = mask(graph, scores) else { break };
        nodes.push(node);
        masks.push(mask);
        scores = inner;
    }
    Some((scores, masks))
}

/// Returns the node that applies a mask and has the output `scores`, the scores before the mask, and the mask; `None`
/// if there is no such node.
fn mask(graph: &Graph<'_>, scores: ValueId) -> Option<(NodeId, ValueId, MaskTerm)> {
    let node = graph.value(scores).producer?;
    graph.only_use(scores)?;
    if graph.is(node, "Add") {
        let (a, b) = (graph.input(node, 0)?, graph.input(node, 1)?);
        let (inner, value) = if leads_to_product(graph, a) { (a, b) } else { (b, a) };
        let known = graph.shape_of(value, Element::Float32).is_some_and(|shape| shape.len() <= 4);
        let fits = a != b && known && leads_to_product(graph, inner) && graph.only_use(inner) == Some(node);
        return fits.then_some((node, inner, MaskTerm { value, fill: Fill::Add }));
    }
    if !graph.is(node, "Where") {
        return None;
    }
    let (test, yes, no) = (graph.input(node, 0)?, graph.input(node, 1)?, graph.input(node, 2)?);
    let (inner, other, when) = if leads_to_product(graph, no) { (no, yes, true) } else { (yes, no, false) };
    // Adding a number as low as -1e30 to a score gives the number itself, so the body can add instead of replacing.
    // Numbers from -1e30 to -1e9 may be lowered to -1e30: beside a visible key, the exponentials of both are 0, and if
    // all keys are masked, all scores are equal in both cases.
    let with = graph.scalar(other).filter(|with| *with <= -1e9)?.min(-1e30);
    let known = graph.shape_of(test, Element::Bool).is_some_and(|shape| shape.len() <= 4);
    let fits = known && leads_to_product(graph, inner) && graph.only_use(inner) == Some(node);
    fits.then_some((node, inner, MaskTerm { value: test, fill: Fill::Replace { when, with } }))
}

/// Returns whether `value` is the product of queries and keys, possibly after scaling and masking.
fn leads_to_product(graph: &Graph<'_>, mut value: ValueId) -> bool {
    for _ in 0..8 {
        let Some(node) = graph.value(value).producer else { return false };
        if graph.is(node, "MatMul") {
            let constant = |index| graph.input(node, index).is_some_and(|input| graph.value(input).is_constant);
            return !constant(0)
                && !constant(1)
                && graph.value(value).shape.as_ref().is_some_and(|shape| shape.len() == 4);
        }
        let next = match graph.node(node).op.as_str() {
            "Mul" | "Div" => graph.node(node).inputs.iter().flatten().find(|input| !graph.value(**input).is_constant),
            "Add" => graph.node(node).inputs.iter().flatten().find(|input| leads_to_product(graph, **input)),
            "Where" => graph.node(node).inputs.iter().skip(1).flatten().find(|input| !graph.value(**input).is_constant),
            _ => None,
        };
        let Some(next) = next else { return false };
        value = *next;
    }
    false
}

/// Multiplies `scale` by the constant factors of `value`, and returns the value before them.
fn scales(graph: &Graph<'_>, mut value: ValueId, scale: &mut f32, nodes: &mut Vec<NodeId>) -> Option<ValueId> {
    while let Some(node) = graph.value(value).producer {
        let (inner, factor) = if graph.is(node, "Mul") {
            let (a, b) = (graph.input(node, 0)?, graph.input(node, 1)?);
            match (graph.scalar(a), graph.scalar(b)) {
                (None, Some(factor)) => (a, factor),
                (Some(factor), None) => (b, factor),
                _ => break,
            }
        } else if graph.is(node, "Div") {
            let (Some(divided), Some(divisor)) = (graph.input(node, 0), graph.input(node, 1)) else { break };
            match graph.scalar(divisor) {
                Some(divisor) => (divided, 1.0 / divisor),
                None => break,
            }
        } else {
            break;
        };
        // A factor with more dimensions would add dimensions to the product.
        let same_rank =
            graph.value(inner).shape.as_ref().map(Vec::len) == graph.value(value).shape.as_ref().map(Vec::len);
        if graph.only_use(value).is_none() || !same_rank {
            break;
        }
        *scale *= factor;
        nodes.push(node);
        value = inner;
    }
    Some(value)
}

/// Returns the queries and keys whose product is `scores`, and multiplies `scale` by their constant factors. Returns
/// `None` if `scores` is not such a product or is used elsewhere, too.
fn operands(
    graph: &Graph<'_>,
    scores: ValueId,
    scale: &mut f32,
    nodes: &mut Vec<NodeId>,
) -> Option<(Operand, Operand)> {
    let product = graph.made_by(scores, "MatMul").filter(|_| graph.only_use(scores).is_some())?;
    let (q, k) = (graph.input(product, 0)?, graph.input(product, 1)?);
    nodes.push(product);
    if q == k
        || [q, k].iter().any(|value| graph.shape_of(*value, Element::Float32).is_none_or(|shape| shape.len() != 4))
    {
        return None;
    }
    let q = inner_scales(graph, q, scale, nodes)?;
    let q = transposed(graph, q, nodes)?;
    let k = inner_scales(graph, k, scale, nodes)?;
    Some((q, keys(graph, k, scale, nodes)?))
}

/// Multiplies `scale` by the constant factors of an operand `value` of a product, and returns the value before them.
fn inner_scales(graph: &Graph<'_>, value: ValueId, scale: &mut f32, nodes: &mut Vec<NodeId>) -> Option<ValueId> {
    graph.only_use(value).map_or(Some(value), |_| scales(graph, value, scale, nodes))
}

/// Returns the Transpose node that produces `value` and its input; `None` if its permutation is not `order` or `value`
/// has several consumers.
fn transpose(graph: &Graph<'_>, value: ValueId, order: &[i64]) -> Option<(NodeId, ValueId)> {
    let node = graph.made_by(value, "Transpose").filter(|_| graph.only_use(value).is_some())?;
    (graph.ints(node, "perm").as_deref() == Some(order)).then_some((node, graph.input(node, 0)?))
}

/// Returns the operand that is transposed to `value`, which has the dimensions batch × heads × tokens × size.
fn transposed(graph: &Graph<'_>, value: ValueId, nodes: &mut Vec<NodeId>) -> Option<Operand> {
    match transpose(graph, value, &[0, 2, 1, 3]) {
        Some((node, inner)) => {
            nodes.push(node);
            Some(joined(graph, inner, nodes))
        }
        None => Some(Operand { value, heads: Heads::First }),
    }
}

/// Returns the operand that is transposed to the keys `value`, which have the dimensions batch × heads × size × tokens.
fn keys(graph: &Graph<'_>, value: ValueId, scale: &mut f32, nodes: &mut Vec<NodeId>) -> Option<Operand> {
    if let Some((node, inner)) = transpose(graph, value, &[0, 2, 3, 1]) {
        nodes.push(node);
        return Some(joined(graph, inner, nodes));
    }
    if let Some((node, inner)) = transpose(graph, value, &[0, 1, 3, 2]) {
        nodes.push(node);
        let inner = inner_scales(graph, inner, scale, nodes)?;
        return transposed(graph, inner, nodes);
    }
    Some(Operand { value, heads: Heads::SizeFirst })
}

/// Returns the operand before the Reshape that splits the heads of `value`, or `value` itself.
fn joined(graph: &Graph<'_>, value: ValueId, nodes: &mut Vec<NodeId>) -> Operand {
    let found = || {
        let node = graph.made_by(value, "Reshape").filter(|_| graph.only_use(value).is_some())?;
        let inner = graph.input(node, 0)?;
        let sizes = graph.constant(graph.input(node, 1)?)?.longs().ok()?.into_owned();
        let [0, 0, heads, size] = sizes[..] else { return None };
        let fits = heads > 0
            && size > 0
            && graph.int(node, "allowzero", 0) == 0
            && graph
                .shape_of(inner, Element::Float32)
                .is_some_and(|shape| shape.len() == 3 && shape[2] == heads * size);
        fits.then_some((node, Operand { value: inner, heads: Heads::Joined(heads as usize) }))
    };
    match found() {
        Some((node, operand)) => {
            nodes.push(node);
            operand
        }
        None => Operand { value, heads: Heads::TokensFirst },
    }
}

/// Returns the output of the group after the product `value`, which has the dimensions batch × heads × tokens × size.
fn output(graph: &Graph<'_>, value: ValueId, nodes: &mut Vec<NodeId>) -> Option<Operand> {
    let transpose = graph.only_use_by(value, "Transpose");
    let order = transpose.and_then(|node| graph.ints(node, "perm"));
    let (Some(transpose), Some([0, 2, 1, 3])) = (transpose, order.as_deref()) else {
        return Some(Operand { value, heads: Heads::First });
    };
    let value = graph.output(transpose)?;
    nodes.push(transpose);
    let joins = || {
        let node = graph.only_use_by(value, "Reshape")?;
        let sizes = graph.constant(graph.input(node, 1)?)?.longs().ok()?.into_owned();
        let y = graph.output(node)?;
        let [.., heads, size] = graph.shape_of(value, Element::Float32)?[..] else { return None };
        let [0, 0, last] = sizes[..] else { return None };
        let whole = last == -1 || (heads > 0 && size > 0 && last == heads * size);
        (whole && graph.int(node, "allowzero", 0) == 0).then_some((node, y))
    };
    match joins() {
        Some((node, y)) => {
            nodes.push(node);
            Some(Operand { value: y, heads: Heads::Joined(0) })
        }
        None => Some(Operand { value, heads: Heads::TokensFirst }),
    }
}
