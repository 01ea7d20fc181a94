//! `Gather`: rows of a table, or one of several parts.

use super::super::analysis::{Analysis, Judged, axis_at};
use super::matmul::produced;
use crate::onnx::proto::NodeProto;

/// Along one axis, which is blocked; the others go on.
pub fn gather<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    const TEXT: &str = "it picks elements of it";
    let (x, indices) = (cx.input(node, 0)?.clone(), cx.input(node, 1)?.clone());
    let at = axis_at(node.int("axis", 0), x.rank())?;
    cx.block(x.axes[at], TEXT);
    indices.axes.iter().for_each(|axis| cx.block(*axis, TEXT));
    let mut dims = x.dims[..at].to_vec();
    dims.extend(&indices.dims);
    dims.extend(&x.dims[at + 1..]);
    let mut axes = x.axes[..at].to_vec();
    axes.extend(&indices.axes);
    axes.extend(&x.axes[at + 1..]);
    if x.constant.is_some() && at == 0 {
        x.axes[1..].iter().for_each(|axis| produced(cx, &x, *axis));
    }
    let picked = match (&x.ints, &indices.ints) {
        (Some(list), Some(indices)) if x.rank() == 1 => {
            let one = |index: &super::super::axes::Int| {
                let at = axis_at(index.lanes[0], list.len()).ok()?;
                (index.lanes[0] == index.lanes[1]).then(|| list[at].clone())
            };
            indices.iter().map(one).collect::<Option<Vec<_>>>()
        }
        _ => None,
    };
    cx.set(node, 0, dims, axes);
    cx.set_ints(node, picked);
    Ok(())
}
