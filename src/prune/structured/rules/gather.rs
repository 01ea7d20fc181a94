//! The rule for `Gather`, which selects rows of a table, or one of several parts.

use super::super::analysis::{Analysis, Judged, axis_at};
use super::super::axes::{Dim, Int};
use super::super::sizes::INTS;
use super::matmul::produced;
use crate::onnx::proto::NodeProto;

/// Rule for `Gather`: the axis that it selects along and the axes of the indices cannot be cut; the other axes are also
/// axes of the output.
pub fn gather<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    const TEXT: &str = "it selects elements along this axis";
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
        (Some(list), Some(indices)) => picked(&x.dims, at, list, indices),
        _ => None,
    };
    cx.set(node, 0, dims, axes);
    cx.set_ints(node, picked);
    Ok(())
}

/// Returns the elements of a list of integers that constant indices select along dimension `at`; `None` if they are not
/// known or too many.
fn picked(dims: &[Dim], at: usize, list: &[Int], indices: &[Int]) -> Option<Vec<Int>> {
    let (size, inner) = (dims[at][0] as usize, super::numbers::count(&dims[at + 1..])?);
    let places = indices.iter().map(|index| {
        let place = axis_at(index.values[0], size).ok()?;
        (index.values[0] == index.values[1]).then_some(place)
    });
    let places: Vec<usize> = places.collect::<Option<_>>()?;
    let outer = super::numbers::count(&dims[..at])?;
    let mut picked = Vec::new();
    for block in 0..outer {
        for place in &places {
            let start = (block * size + place) * inner;
            picked.extend_from_slice(list.get(start..start + inner)?);
        }
    }
    (picked.len() <= INTS).then_some(picked)
}
