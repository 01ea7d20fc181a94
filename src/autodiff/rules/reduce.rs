//! Sums, means, extremes and norms along dimensions.

use crate::autodiff::{Parts, Step, Tape};
use crate::error::Result;
use crate::graph::edit;

/// What was reduced, and the gradient with the reduced dimensions put back.
struct Reduced {
    /// From the front; all of them if the node says nothing.
    axes: Vec<i64>,
    gradient: String,
}

/// `None` if the node reduces nothing.
fn reduced(t: &mut Tape, step: &Step, value: &str) -> Result<Option<Reduced>> {
    let x = step.input(0)?;
    let rank = t.rank(x)?;
    let given = t.axes(&step.node, 1)?.filter(|axes| !axes.is_empty());
    if given.is_none() && step.node.int("noop_with_empty_axes", 0) != 0 {
        return Ok(None);
    }
    let axes = match given {
        Some(axes) => axes.iter().map(|axis| Ok(t.axis(*axis, rank)? as i64)).collect::<Result<_>>()?,
        None => (0..rank as i64).collect::<Vec<i64>>(),
    };
    let gradient = restored(t, step, value, &axes);
    Ok(Some(Reduced { axes, gradient }))
}

/// A value in the shape of the output, with the reduced dimensions put back as 1.
fn restored(t: &mut Tape, step: &Step, value: &str, axes: &[i64]) -> String {
    if step.node.int("keepdims", 1) != 0 {
        return value.to_owned();
    }
    let mut sorted = axes.to_vec();
    sorted.sort_unstable();
    let axes = t.ints(&sorted);
    t.op("Unsqueeze", &[value, &axes])
}

/// The number of elements that each sum is over, as a float.
fn count(t: &mut Tape, x: &str, axes: &[i64]) -> String {
    if let Some(sizes) = t.fixed(x) {
        let product: i64 = axes.iter().map(|axis| sizes[*axis as usize]).product();
        return t.scalar(product as f32);
    }
    let (shape, axes) = (t.shape(x), t.ints(axes));
    let sizes = t.op("Gather", &[&shape, &axes]);
    let product = t.op_with("ReduceProd", &[&sizes], vec![edit::int_attribute("keepdims", 0)]);
    t.op_with("Cast", &[&product], vec![edit::int_attribute("to", 1)])
}

/// `ReduceSum` and `ReduceMean`.
pub fn sum(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x) = (step.gradient()?, step.input(0)?);
    let Some(Reduced { axes, mut gradient }) = reduced(t, step, g)? else { return Ok(vec![(0, g.to_owned())]) };
    if step.node.op() == "ReduceMean" {
        let count = count(t, x, &axes);
        gradient = t.op("Div", &[&gradient, &count]);
    }
    let shape = t.shape(x);
    Ok(vec![(0, t.op("Expand", &[&gradient, &shape]))])
}

/// `ReduceMax` and `ReduceMin`: elements that tie share evenly.
pub fn extreme(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x, y) = (step.gradient()?, step.input(0)?, step.output());
    let Some(Reduced { axes, gradient }) = reduced(t, step, g)? else { return Ok(vec![(0, g.to_owned())]) };
    let best = restored(t, step, y, &axes);
    let same = t.op("Equal", &[x, &best]);
    let same = t.op_with("Cast", &[&same], vec![edit::int_attribute("to", 1)]);
    let ties = t.sum(&same, &axes, true);
    let share = t.op("Div", &[&gradient, &ties]);
    Ok(vec![(0, t.op("Mul", &[&same, &share]))])
}

/// `√Σx²`: `g x / y`.
pub fn l2(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x, y) = (step.gradient()?, step.input(0)?, step.output());
    let share = t.op("Div", &[g, y]);
    let gradient = match reduced(t, step, &share)? {
        Some(reduced) => reduced.gradient,
        None => share,
    };
    Ok(vec![(0, t.op("Mul", &[x, &gradient]))])
}
