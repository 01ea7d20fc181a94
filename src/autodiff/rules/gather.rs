//! Rules for operators that gather elements: gradients are added at the positions that were read.
//!
//! Most of them use `ScatterND`, which adds whole rows; `ScatterElements` takes 75 times as long for an embedding
//! table.

use crate::autodiff::{Parts, Step, Tape};
use crate::error::{Result, bail};
use crate::graph::edit;
use crate::onnx::proto::AttributeProto;

/// Returns the attribute `reduction: add`.
pub(crate) fn adding() -> Vec<AttributeProto> {
    vec![edit::text_attribute("reduction", "add")]
}

/// Adds nodes that add the parts of `gradient` at `indices` to zeros in the shape of `x`, and returns the name of the
/// result. `x` has `rank` dimensions. In `gradient`, the `index_rank` dimensions of the indices, at least one, take the
/// place of `axis` of `x`.
pub(super) fn scattered(
    t: &mut Tape,
    gradient: &str,
    indices: &str,
    x: &str,
    axis: usize,
    rank: usize,
    index_rank: usize,
) -> String {
    let shape = t.shape(x);
    let last = t.ints(&[-1]);
    let places = t.op("Unsqueeze", &[indices, &last]);
    if axis == 0 {
        let zeros = t.zeros(&shape);
        return t.op_with("ScatterND", &[&zeros, &places, gradient], adding());
    }
    let perm = |order: Vec<usize>| {
        let order: Vec<i64> = order.into_iter().map(|at| at as i64).collect();
        vec![edit::ints_attribute("perm", &order)]
    };
    // The gradient is transposed: the dimensions of the indices come first, then those before and after the axis.
    let total = rank - 1 + index_rank;
    let front = (axis..axis + index_rank).chain(0..axis).chain(axis + index_rank..total).collect();
    let transposed = t.op_with("Transpose", &[gradient], perm(front));
    let order: Vec<i64> = std::iter::once(axis).chain((0..rank).filter(|at| *at != axis)).map(|at| at as i64).collect();
    let order = t.ints(&order);
    let shape = t.op("Gather", &[&shape, &order]);
    let zeros = t.zeros(&shape);
    let sum = t.op_with("ScatterND", &[&zeros, &places, &transposed], adding());
    t.op_with("Transpose", &[&sum], perm((1..=axis).chain([0]).chain(axis + 1..rank).collect()))
}

/// Returns the gradient of `Gather`, which selects rows along any axis. Fails like [every rule](super).
pub fn gather(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x, indices) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let (rank, index_rank) = (t.rank(x)?, t.rank(indices)?);
    let axis = t.axis(step.node.int("axis", 0), rank)?;
    if index_rank > 0 {
        return Ok(vec![(0, scattered(t, g, indices, x, axis, rank, index_rank))]);
    }
    let (at, first) = (t.ints(&[axis as i64]), t.ints(&[0]));
    let g = t.op("Unsqueeze", &[g, &at]);
    let indices = t.op("Unsqueeze", &[indices, &first]);
    Ok(vec![(0, scattered(t, &g, &indices, x, axis, rank, 1))])
}

/// Returns the gradient of `GatherND`, which selects parts by tuples of indices. Fails like [every rule](super).
pub fn gather_nd(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x, indices) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let batches = step.node.int("batch_dims", 0);
    let indices = if batches > 0 { whole_places(t, indices, batches)? } else { indices.to_owned() };
    let shape = t.shape(x);
    let zeros = t.zeros(&shape);
    Ok(vec![(0, t.op_with("ScatterND", &[&zeros, &indices, g], adding()))])
}

/// Adds nodes that put the batch indices in front of each index tuple of a `GatherND`, and returns the name of the
/// result.
fn whole_places(t: &mut Tape, indices: &str, batches: i64) -> Result<String> {
    let rank = t.rank(indices)?;
    let (shape, first, last, one) = (t.op("Shape", &[indices]), t.ints(&[0]), t.ints(&[-1]), t.ints(&[1]));
    let before = t.op("Slice", &[&shape, &first, &last]);
    let each = t.concat(&[&before, &one], 0);
    let mut columns = Vec::new();
    for axis in 0..batches {
        let own = t.ints(&[axis]);
        let size = t.op("Gather", &[&shape, &own]);
        let places = t.count_to(&size);
        let mut sizes = vec![1; rank];
        sizes[t.axis(axis, rank)?] = -1;
        let places = t.reshaped(&places, &sizes);
        columns.push(t.op("Expand", &[&places, &each]));
    }
    columns.push(indices.to_owned());
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    Ok(t.concat(&columns, -1))
}

/// Returns the gradient of `GatherElements`, which selects single elements along an axis. Fails like [every
/// rule](super).
pub fn gather_elements(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x, indices) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let shape = t.shape(x);
    let zeros = t.zeros(&shape);
    let mut attributes = adding();
    attributes.push(edit::int_attribute("axis", step.node.int("axis", 0)));
    Ok(vec![(0, t.op_with("ScatterElements", &[&zeros, indices, g], attributes))])
}

/// Returns the gradients of `ScatterND`, which replaces parts of `x` or adds to them. The updates receive `g` at their
/// positions. The gradient of `x` is `g`, with zeros at the replaced positions. Fails with `Unsupported` for the
/// reductions `mul`, `min` and `max`. Also fails like [every rule](super).
pub fn scatter_nd(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, indices, updates) = (step.gradient()?, step.input(1)?, step.input(2)?);
    let adds = match step.node.attribute("reduction").and_then(|a| a.s.as_deref()) {
        None | Some(b"none") => false,
        Some(b"add") => true,
        Some(_) => bail!(Unsupported, "a ScatterND with the reduction mul, min or max is not supported"),
    };
    let mut parts = Vec::new();
    if t.wants(&step.node, 0) {
        parts.push((
            0,
            match adds {
                true => g.to_owned(),
                false => {
                    let shape = t.shape(updates);
                    let zeros = t.zeros(&shape);
                    t.op("ScatterND", &[g, indices, &zeros])
                }
            },
        ));
    }
    if t.wants(&step.node, 2) {
        parts.push((2, t.op("GatherND", &[g, indices])));
    }
    Ok(parts)
}
