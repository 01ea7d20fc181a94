//! Rules for operators that reshape, move, repeat, join or pad values without computing with their elements.

use crate::autodiff::{Parts, Step, Tape};
use crate::error::{Result, bail};
use crate::graph::edit;

/// Returns the gradient of `Reshape`, `Flatten`, `Squeeze` or `Unsqueeze`: `g` in the shape of the input. Fails like
/// [every rule](super).
pub fn reshape(t: &mut Tape, step: &Step) -> Result<Parts> {
    let shape = t.shape(step.input(0)?);
    Ok(vec![(0, t.op("Reshape", &[step.gradient()?, &shape]))])
}

/// Returns the gradient of `Transpose`: `g` with its dimensions in the order of the input. Fails with `InvalidModel` if
/// `perm` does not fit the input. Also fails like [every rule](super).
pub fn transpose(t: &mut Tape, step: &Step) -> Result<Parts> {
    let rank = t.rank(step.input(0)?)? as i64;
    let given = step.node.attribute("perm").map(|a| a.ints.clone()).filter(|perm| !perm.is_empty());
    let order = given.unwrap_or_else(|| (0..rank).rev().collect());
    let back = |axis: i64| order.iter().position(|from| *from == axis).map(|at| at as i64);
    let Some(order) = (0..rank).map(back).collect::<Option<Vec<i64>>>() else {
        bail!(InvalidModel, "perm {order:?} does not fit an input of {rank} dimensions");
    };
    let gradient = t.op_with("Transpose", &[step.gradient()?], vec![edit::ints_attribute("perm", &order)]);
    Ok(vec![(0, gradient)])
}

/// Returns the gradient of `Expand`: the sums of `g` over the repeated elements. Fails like [every rule](super).
pub fn expand(t: &mut Tape, step: &Step) -> Result<Parts> {
    Ok(vec![(0, t.unbroadcast(step.gradient()?, step.input(0)?, step.output()))])
}

/// Returns the gradient of `Tile`: `g`, reshaped to `[r₀, d₀, r₁, d₁ …]` and summed over the repeats. Fails like [every
/// rule](super).
pub fn tile(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (x, repeats) = (step.input(0)?, step.input(1)?);
    let rank = t.rank(x)?;
    let axis = |n| vec![edit::int_attribute("axis", n)];
    let (shape, column) = (t.shape(x), t.ints(&[-1, 1]));
    let (repeats, sizes) = (t.op("Reshape", &[repeats, &column]), t.op("Reshape", &[&shape, &column]));
    let pairs = t.op_with("Concat", &[&repeats, &sizes], axis(1));
    let flat = t.ints(&[-1]);
    let pairs = t.op("Reshape", &[&pairs, &flat]);
    let apart = t.op("Reshape", &[step.gradient()?, &pairs]);
    let axes: Vec<i64> = (0..rank as i64).map(|at| 2 * at).collect();
    Ok(vec![(0, t.sum(&apart, &axes, false))])
}

/// Returns the gradients of `Concat`: a part of `g` for each input. Fails like [every rule](super).
pub fn concat(t: &mut Tape, step: &Step) -> Result<Parts> {
    let axis = t.axis(step.node.int("axis", 0), t.rank(step.output())?)?;
    let inputs = &step.node.input;
    if let [_] = inputs.as_slice() {
        return Ok(vec![(0, step.gradient()?.to_owned())]);
    }
    let sizes: Vec<String> = inputs.iter().map(|input| t.size(input, axis)).collect();
    let names: Vec<&str> = sizes.iter().map(String::as_str).collect();
    let sizes = t.op_with("Concat", &names, vec![edit::int_attribute("axis", 0)]);
    let attributes = vec![edit::int_attribute("axis", axis as i64)];
    let parts = t.ops("Split", &[step.gradient()?, &sizes], inputs.len(), attributes);
    Ok(parts.into_iter().enumerate().filter(|(input, _)| t.wants(&step.node, *input)).collect())
}

/// Returns the gradient of `Split`: the concatenated gradients of the parts, with zeros for unused parts. Fails like
/// [every rule](super).
pub fn split(t: &mut Tape, step: &Step) -> Result<Parts> {
    let mut parts = Vec::with_capacity(step.node.output.len());
    for (output, gradient) in step.node.output.iter().zip(&step.gradients) {
        parts.push(match gradient {
            Some(gradient) => gradient.clone(),
            None => {
                let shape = t.shape(output);
                t.zeros(&shape)
            }
        });
    }
    let names: Vec<&str> = parts.iter().map(String::as_str).collect();
    let axis = vec![edit::int_attribute("axis", step.node.int("axis", 0))];
    Ok(vec![(0, t.op_with("Concat", &names, axis))])
}

/// Returns the gradient of `Slice`: `g`, padded with zeros for the rest of the input. Fails with `Unsupported` if the
/// number of axes is not known. Also fails like [every rule](super).
pub fn slice(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x, starts, ends) = (step.gradient()?, step.input(0)?, step.input(1)?, step.input(2)?);
    let rank = t.rank(x)?;
    let axes = match step.node.input_at(3) {
        None => None,
        Some(name) => match t.integers(name) {
            Some(axes) => Some(axes),
            None => return super::movement::by_place(t, step),
        },
    };
    let steps = match step.node.input_at(4) {
        None => Vec::new(),
        Some(name) => match t.integers(name) {
            Some(steps) => steps,
            None => return super::movement::by_place(t, step),
        },
    };
    let Some(axes) = axes.or_else(|| {
        Some(
            (0..t.dims(starts).and_then(|d| match d {
                [crate::model::Dim::Fixed(count)] => Some(*count),
                _ => None,
            })?)
                .collect(),
        )
    }) else {
        bail!(Unsupported, "the number of axes of the node is not known");
    };
    let axes: Vec<usize> = axes.iter().map(|axis| t.axis(*axis, rank)).collect::<Result<_>>()?;
    if steps.iter().any(|s| *s != 1) {
        let [axis] = axes[..] else { return super::movement::by_place(t, step) };
        let kept = rows(t, x, axis, (starts, ends, step.node.input_at(4)), 0, false);
        return Ok(vec![(0, super::gather::scattered(t, g, &kept, x, axis, rank, 1))]);
    }
    let none = t.ints(&[0]);
    let (mut before, mut after) = (vec![none.clone(); rank], vec![none; rank]);
    for (at, axis) in axes.iter().enumerate() {
        let kept = rows(t, x, *axis, (starts, ends, None), at, axes.len() > 1);
        let (first, whole) = (t.ints(&[0]), t.size(x, *axis));
        before[*axis] = t.op("Gather", &[&kept, &first]);
        let count = t.op("Shape", &[&kept]);
        let rest = t.op("Sub", &[&whole, &count]);
        after[*axis] = t.op("Sub", &[&rest, &before[*axis]]);
    }
    let pads: Vec<&str> = before.iter().chain(&after).map(String::as_str).collect();
    let pads = t.op_with("Concat", &pads, vec![edit::int_attribute("axis", 0)]);
    Ok(vec![(0, t.op("Pad", &[g, &pads]))])
}

/// Adds nodes for the indices along `axis` that a slice keeps, which are the same slice of `0, 1, 2 …`, and returns
/// their name. `at` is the position of the axis in `starts` and `ends`; `many` is whether these have several elements.
fn rows(
    t: &mut Tape,
    x: &str,
    axis: usize,
    (starts, ends, steps): (&str, &str, Option<&str>),
    at: usize,
    many: bool,
) -> String {
    let size = t.size(x, axis);
    let (zero, one, scalar) = (t.int(0), t.int(1), t.constant(crate::onnx::dtype::DataType::Int64, &[0], Vec::new()));
    let size = t.op("Reshape", &[&size, &scalar]);
    let all = t.op("Range", &[&zero, &size, &one]);
    let own = t.ints(&[at as i64]);
    let (mut starts, mut ends) = (starts.to_owned(), ends.to_owned());
    if many {
        (starts, ends) = (t.op("Gather", &[&starts, &own]), t.op("Gather", &[&ends, &own]));
    }
    let first = t.ints(&[0]);
    // Bounds may be int32. They are converted to int64, the type of the axes, because `Slice` requires one type.
    let wide = |t: &mut Tape, value: &str| t.op_with("Cast", &[value], vec![edit::int_attribute("to", 7)]);
    let (starts, ends) = (wide(t, &starts), wide(t, &ends));
    match steps {
        None => t.op("Slice", &[&all, &starts, &ends, &first]),
        Some(steps) => {
            let steps = wide(t, steps);
            t.op("Slice", &[&all, &starts, &ends, &first, &steps])
        }
    }
}

/// Returns the gradient of `Pad`: the part of `g` inside the padding; if the padding repeats elements, the gradients of
/// all their copies are added. Fails like [every rule](super).
pub fn pad(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x, pads) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let mode = step.node.attribute("mode").and_then(|a| a.s.as_deref());
    if !matches!(mode, None | Some(b"constant")) || step.node.input_at(3).is_some() {
        return super::movement::by_place(t, step);
    }
    let rank = t.rank(x)? as i64;
    let (shape, zero, count) = (t.shape(x), t.ints(&[0]), t.ints(&[rank]));
    let starts = t.op("Slice", &[pads, &zero, &count]);
    let ends = t.op("Add", &[&starts, &shape]);
    Ok(vec![(0, t.op("Slice", &[g, &starts, &ends]))])
}
