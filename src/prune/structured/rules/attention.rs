//! Rules for fused attention: heads can only be removed whole, and heads that share keys and values only together.

use super::super::analysis::{Analysis, Follow, Judged, Value};
use super::super::axes::{Axis, AxisId, is_fixed};
use crate::onnx::proto::NodeProto;
use std::ops::Range;

/// Divides two axes into `steps` parts of equal length, and joins all elements of part `i` of both.
fn in_steps(cx: &mut Analysis<'_>, a: AxisId, b: AxisId, steps: usize) {
    let (each_a, each_b) = (cx.axes.size(a) / steps, cx.axes.size(b) / steps);
    for step in 0..steps {
        let first = (a, step * each_a);
        (1..each_a).for_each(|i| cx.axes.join(first, (a, step * each_a + i)));
        (0..each_b).for_each(|i| cx.axes.join(first, (b, step * each_b + i)));
    }
}

/// Joins the elements of all `axes` as [`in_steps`] does; if one of the axes is blocked, all are. Fails if a size is
/// not a multiple of `steps`.
fn together(cx: &mut Analysis<'_>, axes: &[Axis], steps: i64) -> Judged<()> {
    let fixed = axes.iter().find_map(|axis| if let Axis::Fixed(why) = axis { Some(*why) } else { None });
    if let Some(why) = fixed {
        axes.iter().for_each(|axis| cx.axes.block(*axis, why));
        return Ok(());
    }
    let ids: Vec<AxisId> =
        axes.iter().filter_map(|axis| if let Axis::Units(id) = axis { Some(*id) } else { None }).collect();
    if steps < 1 || ids.iter().any(|id| !cx.axes.size(*id).is_multiple_of(steps as usize)) {
        return Err("its heads do not match its shapes");
    }
    ids.iter().for_each(|id| in_steps(cx, ids[0], *id, steps as usize));
    Ok(())
}

/// Blocks the axes of some inputs of a node, such as tables, lengths and masks.
fn block_inputs<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto, inputs: Range<usize>) {
    for name in node.input.iter().take(inputs.end).skip(inputs.start) {
        let axes = cx.values.get(name.as_str()).map(|value| value.axes.clone()).unwrap_or_default();
        axes.iter().for_each(|axis| cx.block(*axis, "it is used head by head"));
    }
}

/// Returns the axes of the heads of the inputs of a `GroupQueryAttention` that have one value or matrix per head: the
/// bias of the scores `[batch or 1, heads or 1, tokens, tokens]` and the sinks `[heads]`. Blocks all other axes of the
/// inputs after the cache. Fails for inputs and outputs whose heads are not followed.
fn per_head<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto, heads: i64) -> Judged<Vec<Axis>> {
    const BIAS: usize = 10;
    const SINK: usize = 11;
    let scores = node.output.get(3).is_some_and(|name| !name.is_empty());
    if scores || (SINK + 1..node.input.len()).any(|index| node.input_at(index).is_some()) {
        return Err("it has scales or scores of its heads");
    }
    let mut axes = Vec::new();
    for (index, rank, at) in [(BIAS, 4, 1), (SINK, 1, 0)] {
        let Some(value) = cx.optional(node, index)? else { continue };
        let whole = value.rank() == rank && (value.dims[at] == [heads; 2] || index == BIAS && value.dims[at] == [1, 1]);
        if !whole {
            return Err("its heads do not match its shapes");
        }
        let others = value.axes.iter().enumerate().filter(|(axis, _)| *axis != at);
        others.for_each(|(_, axis)| cx.block(*axis, "it is used head by head"));
        if index == BIAS && value.dims[at] == [1, 1] && heads != 1 {
            cx.block(value.axes[at], "it is used head by head"); // All heads share the bias.
        } else {
            axes.push(value.axes[at]);
        }
    }
    block_inputs(cx, node, 5..BIAS);
    Ok(axes)
}

fn last(value: &Value<'_>) -> Axis {
    value.axes[value.rank() - 1]
}

/// Rule for `GroupQueryAttention` on queries, keys and values `[batch, tokens, heads * size]` with a cache `[batch,
/// kv_heads, tokens, size]`.
pub fn group_query<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let (heads, kv_heads) = (node.int("num_heads", 0), node.int("kv_num_heads", 0));
    let q = cx.input(node, 0)?.clone();
    let (Some(k), Some(v)) = (cx.optional(node, 1)?, cx.optional(node, 2)?) else {
        return packed(cx, node, &q, (heads, kv_heads));
    };
    if heads < 1 || kv_heads < 1 || heads % kv_heads != 0 || [&q, &k, &v].iter().any(|v| v.rank() != 3) {
        return Err("its heads do not match its shapes");
    }
    let mut axes = vec![last(&q), last(&k), last(&v)];
    let mut cache = Vec::new();
    for index in [3, 4] {
        if let Some(past) = cx.optional(node, index)?.filter(|past| past.rank() == 4) {
            axes.push(past.axes[1]);
            cache.push(past);
        }
    }
    axes.extend(per_head(cx, node, heads)?);
    together(cx, &axes, kv_heads)?;
    let size = q.dims[2][0] / heads;
    if let (Axis::Units(q), Axis::Units(k)) = (last(&q), last(&k)) {
        let (name, node) = ("num_heads", cx.at);
        cx.follows.push(Follow::Attribute { node, name, axis: q, per: size });
        cx.follows.push(Follow::Attribute { node, name: "kv_num_heads", axis: k, per: size });
    }
    cx.set(node, 0, q.dims.clone(), q.axes.clone());
    for (index, past) in cache.into_iter().enumerate() {
        // The length is the sum of two open sizes: that of the past and that of the new tokens.
        let mut dims = past.dims.clone();
        dims[2] = [dims[2][0].saturating_add(q.dims[1][0]), dims[2][1].saturating_add(q.dims[1][1])];
        cx.set(node, index + 1, dims, past.axes.clone());
    }
    Ok(())
}

/// Rule for `GroupQueryAttention` on packed heads of queries, keys and values.
fn packed<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto, x: &Value<'m>, (heads, kv_heads): (i64, i64)) -> Judged<()> {
    let past = [cx.optional(node, 3)?, cx.optional(node, 4)?];
    let all = heads.saturating_add(kv_heads.saturating_mul(2));
    let fits = x.rank() == 3 && is_fixed(x.dims[2]) && heads > 0 && kv_heads > 0 && heads % kv_heads == 0;
    if !fits || x.dims[2][0] % all != 0 {
        return Err("its heads do not match its shapes");
    }
    let own = per_head(cx, node, heads)?;
    let size = x.dims[2][0] / all;
    let mut dims = x.dims.clone();
    dims[2] = [heads * size; 2];
    let mut axes = x.axes.clone();
    axes[2] = cx.axes.add(dims[2], Some(cx.at));
    // Queries, keys and values become separate axes, whose heads are removed together.
    let mut parts = vec![axes[2]];
    let mut start = 0;
    for count in [heads, kv_heads, kv_heads] {
        let part = cx.axes.add([count * size; 2], Some(cx.at));
        for index in 0..(count * size) as usize {
            match (x.axes[2], part) {
                (Axis::Units(whole), Axis::Units(part)) => cx.axes.join((whole, start + index), (part, index)),
                (Axis::Units(whole), Axis::Fixed(why)) => cx.axes.block_element(whole, start + index, why),
                (Axis::Fixed(why), part) => cx.axes.block(part, why),
            }
        }
        start += (count * size) as usize;
        parts.push(part);
    }
    parts.extend(past.iter().flatten().filter(|past| past.rank() == 4).map(|past| past.axes[1]));
    parts.extend(own);
    together(cx, &parts, kv_heads)?;
    if let (Axis::Units(q), Axis::Units(k)) = (parts[1], parts[2]) {
        cx.follows.push(Follow::Attribute { node: cx.at, name: "num_heads", axis: q, per: size });
        cx.follows.push(Follow::Attribute { node: cx.at, name: "kv_num_heads", axis: k, per: size });
    }
    for (index, past) in past.into_iter().enumerate() {
        let Some(past) = past.filter(|past| past.rank() == 4) else { continue };
        let mut grown = past.dims.clone();
        grown[2] = [0, 1].map(|side| grown[2][side].saturating_add(x.dims[1][side]));
        cx.set(node, index + 1, grown, past.axes);
    }
    cx.set(node, 0, dims, axes);
    Ok(())
}

/// Rule for `MultiHeadAttention` on queries, keys and values `[batch, tokens, heads * size]`, without a cache.
pub fn multi_head<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let heads = node.int("num_heads", 0);
    let (q, k, v) = (cx.input(node, 0)?.clone(), cx.input(node, 1)?.clone(), cx.input(node, 2)?.clone());
    if heads < 1 || [&q, &k, &v].iter().any(|v| v.rank() != 3) || node.input.len() > 4 && node.input_at(4).is_some() {
        return Err("its heads do not match its shapes, or there is a mask");
    }
    if (5..node.input.len()).any(|i| node.input_at(i).is_some()) || node.output.len() > 1 {
        return Err("it has a bias or a cache");
    }
    let mut axes = vec![last(&q), last(&k), last(&v)];
    if let Some(bias) = cx.optional(node, 3)? {
        bias.axes.iter().for_each(|axis| cx.block(*axis, "queries, keys and values share a bias"));
        axes.iter().for_each(|axis| cx.block(*axis, "queries, keys and values share a bias"));
    }
    axes.dedup_by(|a, b| matches!((a, b), (Axis::Units(a), Axis::Units(b)) if a == b));
    together(cx, &axes, heads)?;
    if let Axis::Units(axis) = last(&q) {
        cx.follows.push(Follow::Attribute { node: cx.at, name: "num_heads", axis, per: q.dims[2][0] / heads });
    }
    let (mut dims, mut out) = (q.dims.clone(), q.axes.clone());
    (dims[2], out[2]) = (v.dims[2], last(&v));
    cx.set(node, 0, dims, out);
    Ok(())
}

/// Rule for `RotaryEmbedding`: the output has the heads of the input `[batch, heads, tokens, size]`. Of an input
/// `[batch, tokens, heads * size]`, whole heads can be cut if their number is given.
pub fn rotary<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    block_inputs(cx, node, 1..node.input.len());
    let mut axes = x.axes.clone();
    match (x.rank(), node.int("num_heads", 0)) {
        (4, 0) => {
            cx.block(axes[3], "it rotates pairs of elements of this axis");
            axes[3] = cx.fixed("it rotates pairs of elements of this axis");
        }
        (3, heads) if heads > 0 => {
            together(cx, &[axes[2]], heads)?;
            if let Axis::Units(axis) = axes[2] {
                cx.follows.push(Follow::Attribute { node: cx.at, name: "num_heads", axis, per: x.dims[2][0] / heads });
            }
        }
        _ => return Err("the number of heads is not given"),
    }
    cx.set(node, 0, x.dims, axes);
    Ok(())
}
