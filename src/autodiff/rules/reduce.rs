//! Rules for sums, means, extremes and norms along dimensions.

use crate::autodiff::{Parts, Step, Tape};
use crate::error::Result;
use crate::graph::edit;

/// The gradient of a reduction, with the reduced dimensions restored.
struct Reduced {
    /// Axes that are reduced, not negative; all of them if the node names none.
    axes: Vec<i64>,
    gradient: String,
}

/// Returns the name of the gradient `value` with the reduced dimensions restored as 1, and the axes; `None` if the node
/// reduces nothing. Fails with `Unsupported` if the axes are not constant.
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

/// Restores the reduced dimensions of `value`, which has the shape of the output, as 1, and returns the name of the
/// result: that of an added `Unsqueeze`, or `value` itself if the node has kept the dimensions.
fn restored(t: &mut Tape, step: &Step, value: &str, axes: &[i64]) -> String {
    if step.node.int("keepdims", 1) != 0 {
        return value.to_owned();
    }
    let mut sorted = axes.to_vec();
    sorted.sort_unstable();
    let axes = t.ints(&sorted);
    t.op("Unsqueeze", &[value, &axes])
}

/// Adds the number of elements of `x` along `axes` as a float32 value, and returns its name.
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

/// Returns the gradient of `ReduceSum` or `ReduceMean`: `g`, or `g` divided by the number of elements. Fails like
/// [every rule](super).
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

/// Returns the gradient of `ReduceMax` or `ReduceMin`: `g` goes to the element that equals the output; several equal
/// ones share it evenly. Fails like [every rule](super).
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

/// Returns the name of a value with the reduced dimensions restored; unchanged if nothing is reduced.
fn widened(t: &mut Tape, step: &Step, value: &str) -> Result<String> {
    Ok(reduced(t, step, value)?.map_or_else(|| value.to_owned(), |reduced| reduced.gradient))
}

/// Returns the gradient of `ReduceL1`, `ReduceL2`, `ReduceSumSquare`, `ReduceLogSum` or `ReduceLogSumExp`. Fails like
/// [every rule](super).
pub fn norm(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x, y) = (step.gradient()?, step.input(0)?, step.output());
    let gradient = match step.node.op() {
        // `x / y`; where all elements are 0 there is no slope, and 0 is used, like in PyTorch.
        "ReduceL2" => {
            let (zero, share) = (t.scalar(0.0), t.op("Div", &[g, y]));
            let none = t.op("Equal", &[y, &zero]);
            let share = t.op("Where", &[&none, &zero, &share]);
            let share = widened(t, step, &share)?;
            t.op("Mul", &[x, &share])
        }
        "ReduceL1" => {
            let (sign, g) = (t.op("Sign", &[x]), widened(t, step, g)?);
            t.op("Mul", &[&sign, &g])
        }
        "ReduceSumSquare" => {
            let (two, g) = (t.scalar(2.0), widened(t, step, g)?);
            let double = t.op("Mul", &[x, &two]);
            t.op("Mul", &[&double, &g])
        }
        "ReduceLogSum" => {
            let sum = t.op("Exp", &[y]);
            let share = t.op("Div", &[g, &sum]);
            let (share, shape) = (widened(t, step, &share)?, t.shape(x));
            t.op("Expand", &[&share, &shape])
        }
        _ => {
            let (g, y) = (widened(t, step, g)?, widened(t, step, y)?);
            let less = t.op("Sub", &[x, &y]);
            let share = t.op("Exp", &[&less]);
            t.op("Mul", &[&share, &g])
        }
    };
    Ok(vec![(0, gradient)])
}

/// Returns the gradient of `ReduceProd`: the gradient of an element is `g` times the product of the other elements. If
/// one element is 0, only its gradient is not 0; if several are, all gradients are 0. Fails like [every rule](super).
pub fn product(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x) = (step.gradient()?, step.input(0)?);
    let Some(Reduced { axes, gradient }) = reduced(t, step, g)? else { return Ok(vec![(0, g.to_owned())]) };
    let (zero, one) = (t.scalar(0.0), t.scalar(1.0));
    let is_zero = t.op("Equal", &[x, &zero]);
    let safe = t.op("Where", &[&is_zero, &one, x]);
    let rest = t.reduced("ReduceProd", &safe, &axes);
    let zeros = t.op_with("Cast", &[&is_zero], vec![edit::int_attribute("to", 1)]);
    let all = t.sum(&zeros, &axes, true);
    let others = t.op("Sub", &[&all, &zeros]);
    let open = t.op("Equal", &[&others, &zero]);
    let share = t.op("Div", &[&rest, &safe]);
    let slope = t.op("Where", &[&open, &share, &zero]);
    Ok(vec![(0, t.op("Mul", &[&slope, &gradient]))])
}
