//! Rules for reductions: the reduced axes cannot be cut, the others are also axes of the output.

use super::super::analysis::{Analysis, Judged, axis_at};
use crate::onnx::proto::NodeProto;

/// The reductions over selected axes.
pub const REDUCE: [&str; 10] = [
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
];

const OVER: &str = "it reduces this axis";

/// Rule for reductions over `axes`, or over all dimensions.
pub fn reduce<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let rank = cx.input(node, 0)?.rank();
    let given = cx.fixed_list(node, "axes", 1)?.filter(|axes| !axes.is_empty());
    let chosen: Vec<usize> = match given {
        Some(axes) => axes.iter().map(|axis| axis_at(*axis, rank)).collect::<Judged<_>>()?,
        None if node.int("noop_with_empty_axes", 0) != 0 => Vec::new(),
        None => (0..rank).collect(),
    };
    without(cx, node, &chosen, node.int("keepdims", 1) != 0)
}

/// Rule for reductions over one axis, such as `ArgMax`.
pub fn arg<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let axis = axis_at(node.int("axis", 0), cx.input(node, 0)?.rank())?;
    without(cx, node, &[axis], node.int("keepdims", 1) != 0)
}

fn without<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto, chosen: &[usize], keep: bool) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    let (mut dims, mut axes) = (Vec::new(), Vec::new());
    for index in 0..x.rank() {
        if !chosen.contains(&index) {
            dims.push(x.dims[index]);
            axes.push(x.axes[index]);
            continue;
        }
        cx.block(x.axes[index], OVER);
        if keep {
            dims.push([1, 1]);
            axes.push(cx.fixed(OVER));
        }
    }
    cx.set(node, 0, dims, axes);
    Ok(())
}

/// Rule for cumulative sums along an axis.
pub fn cumulative<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    let axis = cx.input(node, 1)?.ints.clone().and_then(|list| list.first().map(|i| i.values[0]));
    let at = axis_at(axis.ok_or("its axis is computed")?, x.rank())?;
    cx.block(x.axes[at], OVER);
    let mut axes = x.axes.clone();
    axes[at] = cx.fixed(OVER);
    cx.set(node, 0, x.dims, axes);
    Ok(())
}
