//! Rules for operators that move, add and remove dimensions, and for computations with shapes.

use super::super::analysis::{Analysis, Follow, Judged, axis_at};
use super::super::axes::{Axis, Dim, Int, UNKNOWN, is_fixed};
use crate::onnx::proto::NodeProto;

/// Rule for `Transpose`, which permutes dimensions.
pub fn transpose<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    let order: Vec<usize> = match node.attribute("perm").map(|a| &a.ints) {
        Some(list) => list.iter().map(|i| axis_at(*i, x.rank())).collect::<Judged<_>>()?,
        None => (0..x.rank()).rev().collect(),
    };
    if order.len() != x.rank() {
        return Err("its permutation does not match");
    }
    let (dims, axes) = (order.iter().map(|i| x.dims[*i]).collect(), order.iter().map(|i| x.axes[*i]).collect());
    cx.set(node, 0, dims, axes);
    let transposed = x.ints.as_ref().and_then(|list| super::numbers::transposed(&x.dims, &order, list));
    if let Some(value) = node.output.first().and_then(|name| cx.values.get_mut(name.as_str())) {
        value.constant = x.constant;
        value.ints = transposed;
    }
    Ok(())
}

/// Rule for `Squeeze`, which removes dimensions of size 1.
pub fn squeeze<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    let gone: Vec<usize> = match cx.fixed_list(node, "axes", 1)? {
        Some(axes) => axes.iter().map(|axis| axis_at(*axis, x.rank())).collect::<Judged<_>>()?,
        None => {
            // A dimension cut to one element would be removed as well.
            x.axes.iter().for_each(|axis| cx.block(*axis, "it removes every axis of size 1"));
            (0..x.rank()).filter(|i| x.dims[*i] == [1, 1]).collect()
        }
    };
    let left: Vec<usize> = (0..x.rank()).filter(|i| !gone.contains(i)).collect();
    cx.set(node, 0, left.iter().map(|i| x.dims[*i]).collect(), left.iter().map(|i| x.axes[*i]).collect());
    cx.set_ints(node, x.ints);
    Ok(())
}

/// Rule for `Unsqueeze`, which adds dimensions of size 1.
pub fn unsqueeze<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    let axes = cx.fixed_list(node, "axes", 1)?.ok_or("its axes are not known")?;
    let rank = x.rank() + axes.len();
    let new: Vec<usize> = axes.iter().map(|axis| axis_at(*axis, rank)).collect::<Judged<_>>()?;
    let (mut dims, mut out) = (Vec::with_capacity(rank), Vec::with_capacity(rank));
    let mut old = x.dims.iter().zip(&x.axes);
    for place in 0..rank {
        let known = if new.contains(&place) { None } else { old.next() };
        dims.push(known.map_or([1, 1], |(dim, _)| *dim));
        out.push(known.map_or(cx.fixed("the size of the axis is 1"), |(_, axis)| *axis));
    }
    cx.set(node, 0, dims, out);
    cx.set_ints(node, x.ints);
    Ok(())
}

/// Rule for `Shape`, whose output are the sizes of dimensions.
pub fn shape<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    let rank = x.rank() as i64;
    let bound = |name: &str, default: i64| {
        let at = node.int(name, default);
        (if at < 0 { at + rank } else { at }).clamp(0, rank) as usize
    };
    let (start, end) = (bound("start", 0), bound("end", rank));
    let ints: Vec<Int> = (start..end.max(start)).map(|i| Int::size(x.dims[i], x.axes[i])).collect();
    cx.set(node, 0, vec![[ints.len() as i64; 2]], vec![cx.fixed("it is a shape")]);
    cx.set_ints(node, Some(ints));
    Ok(())
}

/// Rule for `Size`, whose output is the number of elements.
pub fn size<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    let mut count = Some(Int::constant([1, 1]));
    for (dim, axis) in x.dims.iter().zip(&x.axes) {
        count = count.and_then(|c| Int::product(&c, &Int::size(*dim, *axis)));
    }
    if count.is_none() {
        x.axes.iter().for_each(|axis| cx.block(*axis, "it uses the number of elements of this axis"));
    }
    cx.set(node, 0, Vec::new(), Vec::new());
    cx.set_ints(node, count.map(|c| vec![c]));
    Ok(())
}

/// Rule for `Expand`, which repeats its input along dimensions of size 1. A dimension that consists of copies can be
/// cut: the node then makes fewer copies.
pub fn expand<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    let ints = cx.list(node, "shape", 1)?.ok_or("its shape is not known")?;
    let rank = x.rank().max(ints.len());
    let (mut dims, mut axes) = (Vec::with_capacity(rank), Vec::with_capacity(rank));
    let mut wants = vec![None; ints.len()];
    for place in 0..rank {
        let own = (place + x.rank()).checked_sub(rank).map(|at| (x.dims[at], x.axes[at]));
        let asked = (place + ints.len()).checked_sub(rank);
        let (dim, axis) = match (own, asked) {
            (Some(own), None) => own,
            (Some(own), Some(at)) if ints[at].values == [1, 1] => own,
            (Some(own), Some(at)) if own.0 == ints[at].values => own,
            (Some(own), Some(_)) if own.0 != [1, 1] && is_fixed(own.0) => {
                cx.block(own.1, "the size of its other input along this axis is not fixed");
                (own.0, cx.fixed("the size of its other input along this axis is not fixed"))
            }
            (Some(own), Some(_)) if own.0 != [1, 1] => own,
            (_, Some(at)) => made(cx, &ints[at])?,
            (None, None) => return Err("its shape is not valid"),
        };
        if let (Some(at), Axis::Units(id)) = (asked.filter(|at| ints[*at].values != [1, 1]), axis) {
            wants[at] = Some(id);
        }
        dims.push(dim);
        axes.push(axis);
    }
    cx.set(node, 0, dims, axes);
    cx.follows.push(Follow::Sizes { node: cx.at, input: 1, ints, axes: wants });
    Ok(())
}

/// Returns a dimension with the size `int`, whose elements are all equal.
fn made(cx: &mut Analysis<'_>, int: &Int) -> Judged<(Dim, Axis)> {
    if int.values.iter().any(|size| *size < 0) {
        return Err("its shape is not valid");
    }
    Ok((int.values, cx.axes.add(int.values, Some(cx.at))))
}

/// Rule for `ConstantOfShape`, whose output has a computed shape.
pub fn constant_of_shape<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let ints = cx.list(node, "", 0)?.ok_or("its shape is not known")?;
    let (mut dims, mut axes, mut wants) = (Vec::new(), Vec::new(), Vec::new());
    for int in &ints {
        let (dim, axis) = made(cx, int)?;
        dims.push(dim);
        axes.push(axis);
        wants.push(if let Axis::Units(id) = axis { Some(id) } else { None });
    }
    let fill = node.attribute("value").and_then(|a| a.t.as_deref()).and_then(super::super::sizes::ints_of);
    let fill = fill.and_then(|list| list.first().cloned());
    let count = match dims.as_slice() {
        [[a, b]] if a == b && (0..=64).contains(a) => Some(*a as usize),
        _ => None,
    };
    if fill.is_some() {
        // Integers are used in shapes, so their axes are not cut.
        axes.iter_mut().for_each(|axis| *axis = cx.fixed("its output is not float"));
        wants.iter_mut().for_each(|want| *want = None);
    }
    cx.set(node, 0, dims, axes);
    cx.set_ints(node, fill.zip(count).map(|(fill, count)| vec![fill; count]));
    cx.follows.push(Follow::Sizes { node: cx.at, input: 0, ints, axes: wants });
    Ok(())
}

/// Rule for `Range`, whose output has a computed length.
pub fn range<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let bound = |index: usize| -> Judged<Option<Int>> {
        Ok(cx.input(node, index)?.ints.as_ref().and_then(|ints| ints.first().cloned()))
    };
    let dim = match (bound(0)?, bound(1)?, bound(2)?) {
        (Some(start), Some(limit), Some(step)) => [0, 1].map(|side| {
            let room = limit.values[side].wrapping_sub(start.values[side]);
            let whole = room.checked_div(step.values[side]).unwrap_or(0);
            (whole + i64::from(whole.wrapping_mul(step.values[side]) != room)).max(0)
        }),
        _ => UNKNOWN,
    };
    cx.set(node, 0, vec![dim], vec![cx.fixed("it counts")]);
    Ok(())
}

/// Rule for `Tile`, which repeats its input.
pub fn tile<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    const TEXT: &str = "it repeats it";
    let x = cx.input(node, 0)?.clone();
    let times = cx.list(node, "", 1)?.ok_or("its repeats are not known")?;
    if times.len() != x.rank() {
        return Err("its repeats do not match");
    }
    let (mut dims, mut axes) = (Vec::new(), Vec::new());
    for ((dim, axis), times) in x.dims.iter().zip(&x.axes).zip(&times) {
        let once = times.values == [1, 1];
        if !once {
            cx.block(*axis, TEXT);
        }
        dims.push([0, 1].map(|side| dim[side].wrapping_mul(times.values[side])));
        axes.push(if once { *axis } else { cx.fixed(TEXT) });
    }
    let once = times.iter().all(|times| times.values == [1, 1]);
    cx.set(node, 0, dims, axes);
    cx.set_ints(node, x.ints.filter(|_| once));
    Ok(())
}

/// Rule for `Trilu`, for which the order of the last two axes matters.
pub fn trilu<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    let mut axes = x.axes.clone();
    let first = x.rank().saturating_sub(2);
    for axis in &mut axes[first..] {
        cx.block(*axis, "it keeps only a triangle of its input");
        *axis = cx.fixed("it keeps only a triangle of its input");
    }
    cx.set(node, 0, x.dims, axes);
    Ok(())
}
