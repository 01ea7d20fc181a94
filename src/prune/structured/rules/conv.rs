//! Rules for convolutions: plain, grouped, depthwise, transposed.

use super::super::analysis::{Analysis, Follow, Judged, Value};
use super::super::axes::{Axis, AxisId, Dim, is_fixed};
use super::matmul::{consumed, produced};
use super::spatial::{Window, block_spatial};
use crate::onnx::proto::NodeProto;

/// Rule for `Conv`: the weight is `[out, in / group, window…]`.
pub fn conv<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let (x, w, bias) = (cx.input(node, 0)?.clone(), cx.input(node, 1)?.clone(), cx.optional(node, 2)?);
    if x.rank() < 3 || w.rank() != x.rank() || !is_fixed(x.dims[1]) || w.dims.iter().any(|d| !is_fixed(*d)) {
        return Err("its shapes are not known");
    }
    let group = node.int("group", 1);
    if group < 1 || x.dims[1][0] != w.dims[1][0].wrapping_mul(group) || w.dims[0][0] % group != 0 {
        return Err("its channels and groups do not match");
    }
    let kernel: Vec<i64> = w.dims[2..].iter().map(|d| d[0]).collect();
    let window = Window::of(node, &kernel)?;
    block_spatial(cx, &x);
    block_spatial(cx, &w);
    if group == 1 {
        cx.link(x.axes[1], w.axes[1]);
        plain(cx, node, &w);
    } else {
        grouped(cx, node, &x, &w, group as usize);
    }
    if let Some(bias) = bias.filter(|b| b.rank() == 1) {
        cx.link(w.axes[0], bias.axes[0]);
    }
    let mut dims = vec![x.dims[0], w.dims[0]];
    for (index, dim) in x.dims[2..].iter().enumerate() {
        dims.push(window.out(index, *dim, false)?);
    }
    let mut axes = vec![x.axes[0], w.axes[0]];
    axes.resize(dims.len(), cx.fixed("its window slides over this axis"));
    cx.set(node, 0, dims, axes);
    Ok(())
}

fn plain<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto, w: &Value<'m>) {
    match w.constant {
        Some(weight) => consumed(cx, weight, w.axes[1], node.input_at(0), 1),
        None => cx.block(w.axes[1], "its weight is computed"),
    }
    produced(cx, w, w.axes[0]);
}

/// Rule for grouped convolutions, whose groups are independent. If there are at least as many groups as input channels
/// in a group (as in depthwise convolutions), whole groups can be removed; otherwise the channels at the same positions
/// of every group.
fn grouped<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto, x: &Value<'m>, w: &Value<'m>, group: usize) {
    let (each_in, each_out) = (w.dims[1][0] as usize, w.dims[0][0] as usize / group);
    let whole = each_in == 1 || group >= each_in;
    if whole {
        cx.block(w.axes[1], "its groups cannot be split");
        // With only one output channel there is no axis to cut.
        match (x.axes[1], w.axes[0]) {
            (Axis::Units(from), Axis::Units(to)) => {
                whole_groups(cx, (from, each_in), (to, each_out), group);
                let name = "group";
                cx.follows.push(Follow::Attribute { node: cx.at, name, axis: to, per: each_out as i64 });
                if each_in > 1 {
                    produced(cx, w, w.axes[0]);
                }
            }
            (from, to) => {
                cx.block(from, "its groups cannot be removed");
                cx.block(to, "its groups cannot be removed");
            }
        }
        return;
    }
    match (x.axes[1], w.axes[1]) {
        (Axis::Units(from), Axis::Units(to)) => {
            (0..group * each_in).for_each(|i| cx.axes.join((from, i), (to, i % each_in)));
        }
        (from, to) => {
            cx.block(from, "its groups cannot be removed");
            cx.block(to, "its groups cannot be removed");
        }
    }
    if let Axis::Units(to) = w.axes[0] {
        (each_out..group * each_out).for_each(|o| cx.axes.join((to, o), (to, o % each_out)));
    }
    plain(cx, node, w);
}

fn whole_groups(cx: &mut Analysis<'_>, from: (AxisId, usize), to: (AxisId, usize), group: usize) {
    for g in 0..group {
        let first = (to.0, g * to.1);
        (1..to.1).for_each(|o| cx.axes.join(first, (to.0, g * to.1 + o)));
        (0..from.1).for_each(|i| cx.axes.join(first, (from.0, g * from.1 + i)));
    }
}

/// Rule for `ConvTranspose`: the weight is `[in, out / group, window…]`.
pub fn transposed<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let (x, w, bias) = (cx.input(node, 0)?.clone(), cx.input(node, 1)?.clone(), cx.optional(node, 2)?);
    if x.rank() < 3 || w.rank() != x.rank() || node.int("group", 1) != 1 {
        return Err("it has groups, or unknown shapes");
    }
    if node.attribute("output_shape").is_some() || node.attribute("auto_pad").is_some() {
        return Err("its output size is fixed");
    }
    let kernel: Vec<i64> = w.dims[2..].iter().map(|d| d[0]).collect();
    let window = Window::of(node, &kernel)?;
    let extra = node.attribute("output_padding").map(|a| a.ints.clone()).unwrap_or_default();
    block_spatial(cx, &x);
    block_spatial(cx, &w);
    cx.link(x.axes[1], w.axes[0]);
    match w.constant {
        Some(weight) => consumed(cx, weight, w.axes[0], node.input_at(0), 1),
        None => cx.block(w.axes[0], "its weight is computed"),
    }
    produced(cx, &w, w.axes[1]);
    if let Some(bias) = bias.filter(|b| b.rank() == 1) {
        cx.link(w.axes[1], bias.axes[0]);
    }
    let mut dims: Vec<Dim> = vec![x.dims[0], w.dims[1]];
    for (index, dim) in x.dims[2..].iter().enumerate() {
        dims.push(window.back(index, *dim, extra.get(index).copied().unwrap_or(0)));
    }
    let mut axes = vec![x.axes[0], w.axes[1]];
    axes.resize(dims.len(), cx.fixed("its window slides over this axis"));
    cx.set(node, 0, dims, axes);
    Ok(())
}
