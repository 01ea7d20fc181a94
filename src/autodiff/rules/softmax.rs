//! Rules for softmax and its logarithm.

use crate::autodiff::{Parts, Step, Tape};
use crate::error::Result;

/// Returns the gradient of softmax: `y (g - Σ g y)`. Fails like [every rule](super).
pub fn softmax(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, y) = (step.gradient()?, step.output());
    let axis = step.node.int("axis", -1);
    let share = t.op("Mul", &[g, y]);
    let sum = t.sum(&share, &[axis], true);
    let rest = t.op("Mul", &[y, &sum]);
    Ok(vec![(0, t.op("Sub", &[&share, &rest]))])
}

/// Returns the gradient of log softmax: `g - exp(y) Σ g`. Fails like [every rule](super).
pub fn log_softmax(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, y) = (step.gradient()?, step.output());
    let axis = step.node.int("axis", -1);
    let (likely, sum) = (t.op("Exp", &[y]), t.sum(g, &[axis], true));
    let rest = t.op("Mul", &[&likely, &sum]);
    Ok(vec![(0, t.op("Sub", &[g, &rest]))])
}
