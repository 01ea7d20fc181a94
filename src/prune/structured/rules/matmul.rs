//! Rules for matrix products.

use super::super::analysis::{Analysis, Consumer, Judged, Producer, Value};
use super::super::axes::{Axis, is_fixed};
use super::elementwise::{meet, together};
use crate::onnx::proto::NodeProto;

/// Rule for `A B`, with broadcast leading dimensions.
pub fn matmul<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let (a, b) = (cx.input(node, 0)?.clone(), cx.input(node, 1)?.clone());
    if a.rank() == 0 || b.rank() == 0 {
        return Err("it multiplies a scalar");
    }
    let (inner_a, inner_b) = (a.rank() - 1, b.rank().saturating_sub(2));
    if is_fixed(a.dims[inner_a]) && is_fixed(b.dims[inner_b]) && a.dims[inner_a] != b.dims[inner_b] {
        return Err("the shapes of its inputs do not match");
    }
    sum_over(cx, node, (&a, inner_a, 0), (&b, inner_b, 1));
    let leading = |v: &Value<'m>| {
        let count = v.rank().saturating_sub(2);
        Value { dims: v.dims[..count].to_vec(), axes: v.axes[..count].to_vec(), ints: None, constant: None }
    };
    let (mut dims, mut axes) = (Vec::new(), Vec::new());
    if a.rank() > 2 || b.rank() > 2 {
        (dims, axes) = together(cx, &[leading(&a), leading(&b)])?;
    }
    for (value, at) in [(&a, a.rank().checked_sub(2)), (&b, (b.rank() > 1).then(|| b.rank() - 1))] {
        let Some(at) = at else { continue };
        dims.push(value.dims[at]);
        axes.push(value.axes[at]);
        produced(cx, value, value.axes[at]);
    }
    cx.set(node, 0, dims, axes);
    Ok(())
}

/// Rule for `alpha A B + beta C`, with either operand transposed.
pub fn gemm<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let (a, b) = (cx.input(node, 0)?.clone(), cx.input(node, 1)?.clone());
    let c = cx.optional(node, 2)?;
    if a.rank() != 2 || b.rank() != 2 {
        return Err("its operands are not matrices");
    }
    let (row_a, inner_a) = if node.int("transA", 0) != 0 { (1, 0) } else { (0, 1) };
    let (inner_b, column_b) = if node.int("transB", 0) != 0 { (1, 0) } else { (0, 1) };
    sum_over(cx, node, (&a, inner_a, 0), (&b, inner_b, 1));
    let mut out = [(a.dims[row_a], a.axes[row_a]), (b.dims[column_b], b.axes[column_b])];
    produced(cx, &a, a.axes[row_a]);
    produced(cx, &b, b.axes[column_b]);
    if let Some(c) = c {
        for back in 1..=c.rank().min(2) {
            let at = c.rank() - back;
            out[2 - back] = meet(cx, out[2 - back], (c.dims[at], c.axes[at]))?;
        }
    }
    cx.set(node, 0, out.iter().map(|o| o.0).collect(), out.iter().map(|o| o.1).collect());
    Ok(())
}

/// Records a product that sums over one axis of each operand, and blocks these axes unless exactly one operand is a
/// stored weight. An operand is given by its value, the dimension that is summed over, and the index of the input.
fn sum_over<'m>(
    cx: &mut Analysis<'m>,
    node: &'m NodeProto,
    a: (&Value<'m>, usize, usize),
    b: (&Value<'m>, usize, usize),
) {
    let (axis_a, axis_b) = (a.0.axes[a.1], b.0.axes[b.1]);
    cx.link(axis_a, axis_b);
    let (weight, axis, input, dimension) = match (a.0.constant, b.0.constant) {
        (None, Some(weight)) => (weight, axis_b, node.input_at(a.2), a.1),
        (Some(weight), None) => (weight, axis_a, node.input_at(b.2), b.1),
        _ => {
            cx.block(axis_a, "it sums over this axis in a product of two computed values");
            cx.block(axis_b, "it sums over this axis in a product of two computed values");
            return;
        }
    };
    consumed(cx, weight, axis, input, dimension);
}

/// Records that a stored weight sums over an axis.
pub fn consumed<'m>(cx: &mut Analysis<'m>, constant: &'m str, axis: Axis, input: Option<&'m str>, dimension: usize) {
    if let (Axis::Units(axis), Some(input)) = (axis, input) {
        cx.consumers.push(Consumer { node: cx.at, constant, axis, input, dimension });
    }
}

/// Records that a stored weight produces the elements of an axis.
pub fn produced<'m>(cx: &mut Analysis<'m>, weight: &Value<'m>, axis: Axis) {
    if let (Axis::Units(axis), Some(constant)) = (axis, weight.constant) {
        cx.producers.push(Producer { node: cx.at, constant, axis });
    }
}
