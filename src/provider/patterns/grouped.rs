//! Attention of decoders with a cache: `GroupQueryAttention`.

use super::{Group, Plan};
use crate::provider::graph::{Element, Graph, NodeId, ValueId};

/// The attention of a decoder, with its cache of keys and values.
#[derive(Debug)]
pub struct GroupedPlan {
    /// Queries, or the queries, keys and values of each token in one row.
    pub q: ValueId,
    /// Keys and values; `None` if they are in the rows of the queries.
    pub kv: Option<[ValueId; 2]>,
    /// Keys and values of earlier tokens, from the cache; `None` if the node has no such inputs.
    pub past: Option<[ValueId; 2]>,
    /// Value with the number of tokens of each sequence, minus one.
    pub lengths: ValueId,
    /// Value with the number of tokens of the longest sequence.
    pub total: ValueId,
    /// Cosines and sines of rotary embeddings; `None` if the node does not apply them.
    pub angles: Option<[ValueId; 2]>,
    /// Positions of the new tokens; `None` if they follow from the number of tokens.
    pub positions: Option<ValueId>,
    /// Scores, one per query head, that take part in the softmax but have no value (attention sinks); `None` if the
    /// node has no such input.
    pub sinks: Option<ValueId>,
    /// Output of the attention.
    pub y: ValueId,
    /// Outputs with the cached keys and values, including those of the new tokens.
    pub present: [ValueId; 2],
    /// Attributes of the node.
    pub form: GroupedForm,
}

/// The attributes of a `GroupQueryAttention`.
#[derive(Clone, Copy, Debug)]
pub struct GroupedForm {
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads.
    pub kv_heads: usize,
    /// Factor by which the scores are multiplied; `None` is 1/√(size of a head).
    pub scale: Option<f32>,
    /// Maximum number of keys that a query attends to, including its own; `None` for no limit.
    pub window: Option<usize>,
    /// Bound of the scores (soft cap), which become cap · tanh(score / cap); `None` for no bound.
    pub cap: Option<f32>,
    /// Whether a score of 0, without a value, takes part in the softmax.
    pub smooth: bool,
    /// Whether rotary embeddings rotate adjacent elements instead of elements of the two halves.
    pub interleaved: bool,
}

/// Attributes that are only in later versions of the operator or for other processors, and the value with which they
/// have no effect.
const WITHOUT_EFFECT: [(&str, i64); 4] =
    [("qk_output", 0), ("kv_cache_bit_width", 0), ("sliding_window_cache", 0), ("causal", 1)];

/// The types of the elements of caches.
const CACHES: [Element; 2] = [Element::Float32, Element::Bfloat16];

/// Returns the group of the `GroupQueryAttention` `node`; `None` if `node` is another operator or its form is not
/// supported.
pub fn find(graph: &Graph<'_>, node: NodeId) -> Option<Group> {
    if !graph.is_microsoft(node, "GroupQueryAttention") {
        return None;
    }
    let input = |index| graph.input(node, index);
    let floats = |value: ValueId| graph.value(value).element == Some(Element::Float32);
    let of = |value: ValueId, element: Element| graph.value(value).element == Some(element);
    // The node has both inputs or neither.
    let pair = |first: usize, element: Element| match (input(first), input(first + 1)) {
        (Some(a), Some(b)) => (of(a, element) && of(b, element)).then_some(Some([a, b])),
        (None, None) => Some(None),
        _ => None,
    };
    let q = input(0).filter(|q| graph.shape_of(*q, Element::Float32).is_some_and(|shape| shape.len() == 3))?;
    let (lengths, total) = (input(5)?, input(6)?);
    let rotated = graph.int(node, "do_rotary", 0) == 1;
    let angles = if rotated { Some(pair(7, Element::Float32)??) } else { None };
    let positions = input(9).filter(|_| rotated);
    let sinks = input(11);
    let outputs = &graph.node(node).outputs;
    let present = [outputs.get(1).copied().flatten()?, outputs.get(2).copied().flatten()?];
    // The type of the cache is that of the past.
    let cache = input(3).map_or(Some(Element::Float32), |past| graph.value(past).element);
    let cache = cache.filter(|cache| CACHES.contains(cache))?;
    let known = of(lengths, Element::Int32)
        && of(total, Element::Int32)
        && positions.is_none_or(|positions| of(positions, Element::Int64))
        && sinks.is_none_or(floats)
        && present.iter().all(|present| of(*present, cache))
        && input(10).is_none()
        && graph.node(node).inputs.iter().skip(12).all(Option::is_none)
        && outputs.iter().skip(3).all(Option::is_none);
    if !known {
        return None;
    }
    let form = form(graph, node)?;
    let (kv, past, y) = (pair(1, Element::Float32)?, pair(3, cache)?, graph.output(node)?);
    let plan = GroupedPlan { q, kv, past, lengths, total, angles, positions, sinks, y, present, form };
    Some(Group { nodes: vec![node], plan: Plan::Grouped(plan) })
}

/// Returns the attributes of `node`; `None` if the effect of one is not supported.
fn form(graph: &Graph<'_>, node: NodeId) -> Option<GroupedForm> {
    let number = |name: &str| usize::try_from(graph.int(node, name, 0)).ok().filter(|number| *number > 0);
    let (heads, kv_heads) = (number("num_heads")?, number("kv_num_heads")?);
    let window = match graph.int(node, "local_window_size", -1) {
        -1 => None,
        window => Some(usize::try_from(window).ok().filter(|window| *window > 0)?),
    };
    let plain = WITHOUT_EFFECT.iter().all(|(name, value)| graph.int(node, name, *value) == *value)
        && ["k_quant_type", "v_quant_type"].iter().all(|name| graph.text(node, name).is_none_or(|kind| kind == "NONE"));
    let positive = |name: &str| Some(graph.float(node, name, 0.0)).filter(|number| *number > 0.0);
    let interleaved = graph.int(node, "rotary_interleaved", 0) == 1;
    let smooth = graph.int(node, "smooth_softmax", 0) == 1;
    let scale = Some(graph.float(node, "scale", 0.0)).filter(|scale| *scale != 0.0);
    (plain && heads.is_multiple_of(kv_heads)).then_some(GroupedForm {
        heads,
        kv_heads,
        scale,
        window,
        cap: positive("softcap"),
        smooth,
        interleaved,
    })
}
