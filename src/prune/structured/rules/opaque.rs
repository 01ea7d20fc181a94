//! Rules for operators that block all axes of their inputs, but whose outputs have known shapes, so that axes of later
//! nodes can be cut.

use super::super::analysis::{Analysis, Judged, axis_at};
use super::super::axes::{Axis, Dim, UNKNOWN, is_fixed};
use crate::onnx::proto::NodeProto;

const HELD: &str = "it moves elements along this axis";

fn block_inputs<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto, text: &'static str) {
    for name in &node.input {
        let axes = cx.values.get(name.as_str()).map(|value| value.axes.clone()).unwrap_or_default();
        axes.iter().for_each(|axis| cx.block(*axis, text));
    }
}

fn fixed_output<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto, index: usize, dims: Vec<Dim>, text: &'static str) {
    let axes: Vec<Axis> = dims.iter().map(|_| cx.fixed(text)).collect();
    cx.set(node, index, dims, axes);
}

/// Rule for `LSTM`, `GRU` and `RNN`, whose outputs are the whole sequence and the last states.
pub fn recurrent<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    const TEXT: &str = "units of recurrent layers are not removed";
    let (x, r) = (cx.input(node, 0)?.clone(), cx.input(node, 2)?.clone());
    if x.rank() != 3 || r.rank() != 3 {
        return Err("its shapes are not known");
    }
    let (directions, hidden) = (r.dims[0], r.dims[2]);
    cx.refuse(node, TEXT);
    let transposed = node.int("layout", 0) != 0;
    let (steps, batch) = if transposed { (x.dims[1], x.dims[0]) } else { (x.dims[0], x.dims[1]) };
    let all = if transposed { vec![batch, steps, directions, hidden] } else { vec![steps, directions, batch, hidden] };
    let last = if transposed { vec![batch, directions, hidden] } else { vec![directions, batch, hidden] };
    fixed_output(cx, node, 0, all, TEXT);
    fixed_output(cx, node, 1, last.clone(), TEXT);
    fixed_output(cx, node, 2, last, TEXT);
    Ok(())
}

/// Rule for operators whose first output has the shape of the input at `index`.
pub fn as_input<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto, index: usize) -> Judged<()> {
    let dims = cx.input(node, index)?.dims.clone();
    block_inputs(cx, node, HELD);
    fixed_output(cx, node, 0, dims, HELD);
    Ok(())
}

/// Rule for `DepthToSpace` and `SpaceToDepth`, which move blocks of elements between channels and space.
pub fn blocks<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let dims = cx.input(node, 0)?.dims.clone();
    let size = node.int("blocksize", 0);
    let (&[batch, channels, height, width], true) = (dims.as_slice(), (1..1 << 16).contains(&size)) else {
        return Err("its shapes are not known");
    };
    block_inputs(cx, node, HELD);
    let times = |dim: Dim, by: i64| dim.map(|size| size.saturating_mul(by));
    let over = |dim: Dim, by: i64| dim.map(|size| size / by);
    let dims = match node.is("DepthToSpace") {
        true => vec![batch, over(channels, size * size), times(height, size), times(width, size)],
        false => vec![batch, times(channels, size * size), over(height, size), over(width, size)],
    };
    fixed_output(cx, node, 0, dims, HELD);
    Ok(())
}

/// Rule for `GatherND`, whose output has the dimensions of the indices except the last, and those of the data that it
/// does not index.
pub fn gather_nd<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let (x, indices) = (cx.input(node, 0)?.clone(), cx.input(node, 1)?.clone());
    let batch = usize::try_from(node.int("batch_dims", 0)).map_err(|_| "its axes do not exist")?;
    let depth = indices.dims.last().filter(|dim| is_fixed(**dim)).ok_or("its shapes are not known")?[0];
    let chosen = usize::try_from(depth).ok().and_then(|depth| depth.checked_add(batch));
    let rest = chosen.and_then(|chosen| x.dims.get(chosen..)).ok_or("its axes do not exist")?;
    let dims = indices.dims[..indices.rank() - 1].iter().chain(rest).copied().collect();
    block_inputs(cx, node, HELD);
    fixed_output(cx, node, 0, dims, HELD);
    Ok(())
}

/// Rule for `TopK`, which returns values and indices along one axis and blocks all axes.
pub fn top_k<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let mut dims = cx.input(node, 0)?.dims.clone();
    let at = axis_at(node.int("axis", -1), dims.len())?;
    let given = match node.attribute("k").and_then(|a| a.i) {
        Some(k) => Some([k, k]),
        None => cx.optional(node, 1)?.and_then(|k| k.ints).and_then(|list| list.first().map(|k| k.values)),
    };
    dims[at] = given.unwrap_or(UNKNOWN);
    block_inputs(cx, node, HELD);
    fixed_output(cx, node, 0, dims.clone(), HELD);
    fixed_output(cx, node, 1, dims, HELD);
    Ok(())
}

/// Rule for `OneHot`, which adds a dimension.
pub fn one_hot<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let mut dims = cx.input(node, 0)?.dims.clone();
    let depth = cx.input(node, 1)?.ints.as_ref().and_then(|list| list.first().map(|depth| depth.values));
    let at = axis_at(node.int("axis", -1), dims.len() + 1)?;
    block_inputs(cx, node, HELD);
    dims.insert(at, depth.unwrap_or(UNKNOWN));
    fixed_output(cx, node, 0, dims, HELD);
    Ok(())
}
