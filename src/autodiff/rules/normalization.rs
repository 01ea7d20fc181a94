//! Rules for layer, RMS and batch normalization.

use crate::autodiff::{Parts, Step, Tape};
use crate::error::{Result, bail};

/// Returns the normalized axes, which are all axes from the attribute `axis` on.
fn last_axes(t: &Tape, step: &Step, x: &str) -> Result<Vec<i64>> {
    let rank = t.rank(x)?;
    let first = t.axis(step.node.int("axis", -1), rank)? as i64;
    Ok((first..rank as i64).collect())
}

/// Returns the gradients of layer normalization. With `n = (x - mean) / deviation` and `h = g scale`, the gradient of
/// `x` is `(h - mean(h) - n mean(h n)) / deviation`, that of the scale `Σ g n`, that of the bias `Σ g`. Fails like
/// [every rule](super).
pub fn layer(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x, scale) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let axes = last_axes(t, step, x)?;
    let (center, inverse) = (t.extra_output(step.index, 1), t.extra_output(step.index, 2));
    let normal = t.op("Sub", &[x, &center]);
    let normal = t.op("Mul", &[&normal, &inverse]);
    let mut parts = Vec::new();
    if t.wants(&step.node, 0) {
        let scaled = t.op("Mul", &[g, scale]);
        let along = t.op("Mul", &[&scaled, &normal]);
        let (first, second) = (t.reduced("ReduceMean", &scaled, &axes), t.reduced("ReduceMean", &along, &axes));
        let second = t.op("Mul", &[&normal, &second]);
        let rest = t.op("Sub", &[&scaled, &first]);
        let rest = t.op("Sub", &[&rest, &second]);
        parts.push((0, t.op("Mul", &[&rest, &inverse])));
    }
    if t.wants(&step.node, 1) {
        let product = t.op("Mul", &[g, &normal]);
        parts.push((1, t.unbroadcast(&product, scale, x)));
    }
    if t.wants(&step.node, 2) {
        parts.push((2, t.unbroadcast(g, step.input(2)?, x)));
    }
    Ok(parts)
}

/// Returns the gradients of RMS normalization, which does not subtract the mean. With `d = sqrt(mean(x²) + ε)`,
/// `n = x / d` and `h = g scale`, the gradient of `x` is `(h - n mean(h n)) / d`, and that of the scale `Σ g n`. Fails
/// like [every rule](super).
pub fn rms(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x, scale) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let axes = last_axes(t, step, x)?;
    let inverse = t.extra_output(step.index, 1);
    let normal = t.op("Mul", &[x, &inverse]);
    let mut parts = Vec::new();
    if t.wants(&step.node, 0) {
        let scaled = t.op("Mul", &[g, scale]);
        let along = t.op("Mul", &[&scaled, &normal]);
        let along = t.reduced("ReduceMean", &along, &axes);
        let along = t.op("Mul", &[&normal, &along]);
        let rest = t.op("Sub", &[&scaled, &along]);
        parts.push((0, t.op("Mul", &[&rest, &inverse])));
    }
    if t.wants(&step.node, 1) {
        let product = t.op("Mul", &[g, &normal]);
        parts.push((1, t.unbroadcast(&product, scale, x)));
    }
    Ok(parts)
}

/// Returns the gradients of batch normalization in inference mode, which has a scale and a bias per channel. Fails with
/// `Unsupported` in training mode, and if mean or variance needs a gradient. Also fails like [every rule](super).
pub fn batch(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x, scale) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let (center, variance) = (step.input(3)?, step.input(4)?);
    let rank = t.rank(x)?;
    if rank < 2 {
        bail!(Unsupported, "a BatchNormalization of an input with {rank} dimensions is not supported");
    }
    if step.node.int("training_mode", 0) != 0 {
        bail!(Unsupported, "a BatchNormalization in training mode is not supported");
    }
    if t.wants(&step.node, 3) || t.wants(&step.node, 4) {
        bail!(Unsupported, "a BatchNormalization with trained statistics is not supported");
    }
    let mut sizes = vec![1; rank];
    sizes[1] = -1;
    let across = t.ints(&sizes);
    let epsilon = t.scalar(step.node.float("epsilon", 1e-5));
    let deviation = t.op("Add", &[variance, &epsilon]);
    let deviation = t.op("Sqrt", &[&deviation]);
    let deviation = t.op("Reshape", &[&deviation, &across]);
    let others: Vec<i64> = (0..rank as i64).filter(|axis| *axis != 1).collect();
    let mut parts = Vec::new();
    if t.wants(&step.node, 0) {
        let scale = t.op("Reshape", &[scale, &across]);
        let factor = t.op("Div", &[&scale, &deviation]);
        parts.push((0, t.op("Mul", &[g, &factor])));
    }
    if t.wants(&step.node, 1) {
        let center = t.op("Reshape", &[center, &across]);
        let normal = t.op("Sub", &[x, &center]);
        let normal = t.op("Div", &[&normal, &deviation]);
        let product = t.op("Mul", &[g, &normal]);
        parts.push((1, t.sum(&product, &others, false)));
    }
    if t.wants(&step.node, 2) {
        parts.push((2, t.sum(g, &others, false)));
    }
    Ok(parts)
}
