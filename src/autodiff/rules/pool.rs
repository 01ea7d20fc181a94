//! Rules for pooling.

use super::conv::{Window, back, flat_kernel};
use super::gather::adding;
use crate::autodiff::{Parts, Step, Tape};
use crate::error::{Result, bail};
use crate::graph::edit;
use crate::onnx::dtype::DataType;

/// Returns the gradient of max pooling: `g` goes to the largest element of each window. Fails like [every rule](super).
pub fn max(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x) = (step.gradient()?, step.input(0)?);
    let places = t.extra_output(step.index, 1);
    let (column, flat, shape) = (t.ints(&[-1, 1]), t.ints(&[-1]), t.shape(x));
    let (places, g) = (t.op("Reshape", &[&places, &column]), t.op("Reshape", &[g, &flat]));
    let size = t.op("Size", &[x]);
    let size = t.op("Reshape", &[&size, &flat]);
    let zeros = t.zeros(&size);
    let sum = t.op_with("ScatterND", &[&zeros, &places, &g], adding());
    Ok(vec![(0, t.op("Reshape", &[&sum, &shape]))])
}

/// Returns the gradient of average pooling: `g` is distributed evenly over the elements of each window. Fails with
/// `InvalidModel` without `kernel_shape`, with `Unsupported` for `ceil_mode`, and like [`Window::of`]. Also fails like
/// [every rule](super).
pub fn average(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x) = (step.gradient()?, step.input(0)?);
    let rank = t.rank(x)?;
    if rank < 3 {
        bail!(InvalidModel, "the input has {rank} dimensions; at least 3 are needed");
    }
    let window = Window::of(&step.node, rank - 2)?;
    let Some(kernel) = step.node.attribute("kernel_shape").map(|a| a.ints.clone()) else {
        bail!(InvalidModel, "the node has no kernel_shape");
    };
    if step.node.int("ceil_mode", 0) != 0 {
        bail!(Unsupported, "an AveragePool with ceil_mode is not supported");
    }
    let spatial = rank - 2;
    let ones = flat_kernel(t, &kernel, 1.0);
    // Each channel is pooled separately, as a sample with one channel.
    let (shape, two, end) = (t.shape(x), t.ints(&[2]), t.ints(&[rank as i64]));
    let sizes = t.op("Slice", &[&shape, &two, &end]);
    let (single, axis) = (t.ints(&[1, 1]), vec![edit::int_attribute("axis", 0)]);
    let gradient_shape = t.op("Shape", &[g]);
    let gradient_sizes = t.op("Slice", &[&gradient_shape, &two, &end]);
    let front = t.ints(&[-1, 1]);
    let alone = t.op_with("Concat", &[&front, &gradient_sizes], axis.clone());
    let g = t.op("Reshape", &[g, &alone]);
    let share = if step.node.int("count_include_pad", 0) != 0 || window.pads.iter().all(|p| *p == 0) {
        let count = t.scalar(kernel.iter().product::<i64>() as f32);
        t.op("Div", &[&g, &count])
    } else {
        let plane = t.op_with("Concat", &[&single, &sizes], axis);
        let one = t.scalar(1.0);
        let plane = t.op("Expand", &[&one, &plane]);
        let attributes = vec![
            edit::ints_attribute("strides", &window.strides),
            edit::ints_attribute("dilations", &window.dilations),
            edit::ints_attribute("pads", &window.pads),
        ];
        let counts = t.op_with("Conv", &[&plane, &ones], attributes);
        t.op("Div", &[&g, &counts])
    };
    debug_assert_eq!(window.strides.len(), spatial);
    let gradient = back(t, &share, &ones, x, &window, 1)?;
    Ok(vec![(0, t.op("Reshape", &[&gradient, &shape]))])
}

/// Returns the gradient of global average pooling: `g` is distributed evenly over all elements of a channel. Fails like
/// [every rule](super).
pub fn global_average(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x) = (step.gradient()?, step.input(0)?);
    let shape = t.shape(x);
    let float = || vec![edit::int_attribute("to", 1)];
    let (all, one) = (t.op("Size", &[x]), t.op("Size", &[g]));
    let (all, one) = (t.op_with("Cast", &[&all], float()), t.op_with("Cast", &[&one], float()));
    let count = t.op("Div", &[&all, &one]);
    let share = t.op("Div", &[g, &count]);
    Ok(vec![(0, t.op("Expand", &[&share, &shape]))])
}

/// Returns the gradient of global max pooling: `g` goes to the largest element of each channel; several equal ones
/// share it evenly. Fails like [every rule](super).
pub fn global_max(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x, y) = (step.gradient()?, step.input(0)?, step.output());
    let axes: Vec<i64> = (2..t.rank(x)? as i64).collect();
    let same = t.op("Equal", &[x, y]);
    let same = t.cast(&same, DataType::Float32);
    let ties = t.sum(&same, &axes, true);
    let share = t.op("Div", &[g, &ties]);
    Ok(vec![(0, t.op("Mul", &[&same, &share]))])
}

/// Returns the gradient of `(Σ|x|^p)^(1/p)` of each channel: `g sign(x) (|x| / y)^(p - 1)`; 0 if all elements of the
/// channel are 0, as in PyTorch. Fails like [every rule](super).
pub fn global_norm(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x, y) = (step.gradient()?, step.input(0)?, step.output());
    let less = t.scalar(step.node.int("p", 2) as f32 - 1.0);
    let (size, sign) = (t.op("Abs", &[x]), t.op("Sign", &[x]));
    let (zero, share) = (t.scalar(0.0), t.op("Div", &[&size, y]));
    let none = t.op("Equal", &[y, &zero]);
    let share = t.op("Where", &[&none, &zero, &share]);
    let share = t.op("Pow", &[&share, &less]);
    let slope = t.op("Mul", &[&sign, &share]);
    Ok(vec![(0, t.op("Mul", &[g, &slope]))])
}
