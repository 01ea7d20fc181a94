//! Rules for `Reshape` and `Flatten`: one axis becomes several, or several become one.
//!
//! Dimensions before and after are matched in the smallest runs of equal products. In a run the outermost axis of
//! each side can be cut, in steps that both have in common: in `[768] -> [12, 64]` whole heads, in `[C, H, W] -> [C H
//! W]` whole channels. Inner axes are blocked, and so is a run whose outermost size is open.

use super::super::analysis::{Analysis, Follow, Judged, Value};
use super::super::axes::{Axis, AxisId, Dim, Int, Reason, is_fixed};
use crate::onnx::proto::NodeProto;

/// Rule for `Reshape` with a shape that is known as far as possible.
pub fn reshape<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    let ints = cx.list(node, "shape", 1)?.ok_or("its shape is not known")?;
    let dims = target(&x, &ints, node.int("allowzero", 0) != 0)?;
    let axes = regroup(cx, &x, &dims);
    let wants: Vec<Option<AxisId>> = axes
        .iter()
        .zip(&ints)
        .enumerate()
        .map(|(index, (axis, int))| match axis {
            // A 0 in the shape copies the size of the input, so it needs no update if both are the same axis.
            Axis::Units(id) if int.values == [0, 0] => {
                let same = matches!(x.axes.get(index), Some(Axis::Units(from)) if from == id);
                (!same).then_some(*id)
            }
            Axis::Units(id) if int.values != [-1, -1] => Some(*id),
            _ => None,
        })
        .collect();
    cx.set(node, 0, dims, axes);
    cx.set_ints(node, x.ints);
    cx.follows.push(Follow::Sizes { node: cx.at, input: 1, ints, axes: wants });
    Ok(())
}

/// Returns the dimensions that the shape `ints` of a `Reshape` requests.
fn target(x: &Value<'_>, ints: &[Int], zero_is_zero: bool) -> Judged<Vec<Dim>> {
    let mut dims = Vec::with_capacity(ints.len());
    let mut open = None;
    for (index, int) in ints.iter().enumerate() {
        dims.push(match int.values {
            [0, 0] if !zero_is_zero => *x.dims.get(index).ok_or("it copies a size that does not exist")?,
            [-1, -1] => {
                open = Some(index);
                [1, 1]
            }
            [a, b] if a >= 0 && b >= 0 => [a, b],
            _ => return Err("its shape is not valid"),
        });
    }
    if let Some(open) = open {
        let (all, known) = (product(&x.dims), product(&dims));
        let one = |side: usize| all[side].checked_div(known[side]).filter(|q| q * known[side] == all[side]);
        dims[open] = match (one(0), one(1)) {
            (Some(a), Some(b)) => [a, b],
            _ => return Err("its shape does not match its input"),
        };
    }
    Ok(dims)
}

fn product(dims: &[Dim]) -> Dim {
    dims.iter().fold([1, 1], |p, d| [p[0].wrapping_mul(d[0]), p[1].wrapping_mul(d[1])])
}

/// Rule for `Flatten`: all dimensions before `axis` become one, and all from it on become another.
pub fn flatten<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    let axis = node.int("axis", 1);
    let at = if axis < 0 { axis + x.rank() as i64 } else { axis };
    let at = usize::try_from(at).ok().filter(|at| *at <= x.rank()).ok_or("its axis does not exist")?;
    let dims = vec![product(&x.dims[..at]), product(&x.dims[at..])];
    let axes = regroup(cx, &x, &dims);
    cx.set(node, 0, dims, axes);
    Ok(())
}

/// Returns the axes of `x` after its shape is changed to `dims`.
fn regroup(cx: &mut Analysis<'_>, x: &Value<'_>, dims: &[Dim]) -> Vec<Axis> {
    let inner = cx.fixed("it splits this axis or merges it with others");
    let mut axes = vec![inner; dims.len()];
    let big = |dims: &[Dim]| -> Vec<usize> { (0..dims.len()).filter(|i| dims[*i] != [1, 1]).collect() };
    let (from, to) = (big(&x.dims), big(dims));
    let (mut i, mut o) = (0, 0);
    while i < from.len() || o < to.len() {
        let (first_in, first_out) = (i, o);
        let (mut left, mut right) = ([1i64, 1], [1i64, 1]);
        loop {
            // The side with the smaller product takes its next dimension. Open sizes count with the first assignment.
            if i < from.len() && (left[0] <= right[0] || o == to.len()) {
                left = product(&[left, x.dims[from[i]]]);
                i += 1;
            } else if o < to.len() {
                right = product(&[right, dims[to[o]]]);
                o += 1;
            } else {
                break;
            }
            if left == right {
                break;
            }
        }
        let (ins, outs) = (&from[first_in..i], &to[first_out..o]);
        if left != right {
            ins.iter().for_each(|at| cx.axes.block(x.axes[*at], reason(inner)));
            continue;
        }
        run(cx, x, dims, (ins, outs), &mut axes);
    }
    axes
}

fn reason(axis: Axis) -> Reason {
    match axis {
        Axis::Fixed(reason) => reason,
        Axis::Units(_) => Reason::new(None, ""),
    }
}

/// Sets the axes of one run: dimensions `ins` of the input and `outs` of the output, with equal products.
fn run(cx: &mut Analysis<'_>, x: &Value<'_>, dims: &[Dim], (ins, outs): (&[usize], &[usize]), axes: &mut [Axis]) {
    const INNER: &str = "it splits this axis or merges it with others";
    let (Some(&first), Some(&head)) = (ins.first(), outs.first()) else {
        ins.iter().for_each(|at| cx.block(x.axes[*at], INNER));
        return;
    };
    if let ([_], [_]) = (ins, outs) {
        axes[head] = x.axes[first];
        return;
    }
    ins[1..].iter().for_each(|at| cx.block(x.axes[*at], INNER));
    let (Axis::Units(from), true) = (x.axes[first], is_fixed(dims[head])) else {
        cx.block(x.axes[first], INNER);
        if let Axis::Fixed(reason) = x.axes[first] {
            outs.iter().for_each(|at| axes[*at] = Axis::Fixed(reason));
        }
        return;
    };
    let (a, b) = (x.dims[first][0], dims[head][0]);
    let steps = common_divisor(a, b);
    let Axis::Units(to) = cx.axes.add([b, b], Some(cx.at)) else {
        cx.block(x.axes[first], INNER);
        return;
    };
    axes[head] = Axis::Units(to);
    if steps < 2 {
        cx.block(x.axes[first], INNER);
        cx.block(axes[head], INNER);
        return;
    }
    let (a, b) = ((a / steps) as usize, (b / steps) as usize);
    for step in 0..steps as usize {
        (1..a).for_each(|i| cx.axes.join((from, step * a), (from, step * a + i)));
        (0..b).for_each(|i| cx.axes.join((from, step * a), (to, step * b + i)));
    }
}

fn common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}
