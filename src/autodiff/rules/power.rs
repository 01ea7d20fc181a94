//! Rules for powers, remainders and trigonometric functions.

use super::elementwise::each;
use crate::autodiff::{Parts, Step, Tape};
use crate::error::{Result, bail};

/// Returns the gradients of `x ^ p`: `g p x ^ (p - 1)` for `x`, and `g y log x` for a trainable exponent, where 0 is
/// used if `x` is 0, like in PyTorch. Fails like [every rule](super).
pub fn pow(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x, p, y) = (step.gradient()?, step.input(0)?, step.input(1)?, step.output());
    let known = t.number(p);
    let (zero, one) = (t.scalar(0.0), t.scalar(1.0));
    Ok(each(t, step, |t, input| {
        let slope = match (input, known) {
            (0, Some(2.0)) => {
                let two = t.scalar(2.0);
                t.op("Mul", &[x, &two])
            }
            (0, Some(1.0)) => one.clone(),
            (0, Some(0.0)) => zero.clone(),
            (0, Some(power)) => {
                let (less, factor) = (t.scalar(power - 1.0), t.scalar(power));
                let lower = t.op("Pow", &[x, &less]);
                t.op("Mul", &[&lower, &factor])
            }
            (0, None) => {
                let less = t.op("Sub", &[p, &one]);
                let lower = t.op("Pow", &[x, &less]);
                let slope = t.op("Mul", &[&lower, p]);
                // Without this, the product of 0 and infinity would give NaN.
                let flat = t.op("Equal", &[p, &zero]);
                t.op("Where", &[&flat, &zero, &slope])
            }
            _ => {
                let log = t.op("Log", &[x]);
                let slope = t.op("Mul", &[y, &log]);
                let none = t.op("Equal", &[x, &zero]);
                t.op("Where", &[&none, &zero, &slope])
            }
        };
        t.op("Mul", &[g, &slope])
    }))
}

/// Returns the gradients of `Mod`, `y = a - n b` with an integer `n`: `g` for `a` and `-n g` for `b`. Fails like [every
/// rule](super).
pub fn remainder(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, a, b, y) = (step.gradient()?, step.input(0)?, step.input(1)?, step.output());
    Ok(each(t, step, |t, input| match input {
        0 => g.to_owned(),
        _ => {
            let whole = t.op("Sub", &[y, a]);
            let times = t.op("Div", &[&whole, b]);
            t.op("Mul", &[g, &times])
        }
    }))
}

/// Returns the gradient of a trigonometric or hyperbolic function, or of its inverse. Fails with `Internal` for other
/// operators. Also fails like [every rule](super).
pub fn angle(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x, y, op) = (step.gradient()?, step.input(0)?, step.output(), step.node.op());
    let one = t.scalar(1.0);
    let square = |t: &mut Tape, value: &str| t.op("Mul", &[value, value]);
    let divided = match op {
        "Sinh" | "Cosh" | "Tan" => {
            let slope = match op {
                "Sinh" => t.op("Cosh", &[x]),
                "Cosh" => t.op("Sinh", &[x]),
                _ => {
                    let square = square(t, y);
                    t.op("Add", &[&square, &one])
                }
            };
            return Ok(vec![(0, t.op("Mul", &[g, &slope]))]);
        }
        "Asin" | "Acos" | "Atanh" => {
            let square = square(t, x);
            t.op("Sub", &[&one, &square])
        }
        "Atan" | "Asinh" => {
            let square = square(t, x);
            t.op("Add", &[&one, &square])
        }
        "Acosh" => {
            let square = square(t, x);
            t.op("Sub", &[&square, &one])
        }
        other => bail!(Internal, "{other} is not a trigonometric or hyperbolic function"),
    };
    let divided = if matches!(op, "Atan" | "Atanh") { divided } else { t.op("Sqrt", &[&divided]) };
    let gradient = t.op("Div", &[g, &divided]);
    Ok(vec![(0, if op == "Acos" { t.op("Neg", &[&gradient]) } else { gradient })])
}
