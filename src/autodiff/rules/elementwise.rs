//! Rules for elementwise arithmetic and activations.

use crate::autodiff::{Parts, Step, Tape};
use crate::error::{Result, bail};
use crate::graph::edit;

const SQRT_2: f32 = std::f32::consts::SQRT_2;

/// Returns the gradients of the inputs that need one: `gradient(tape, input)`, summed to the shape of the input.
pub(super) fn each(t: &mut Tape, step: &Step, gradient: impl Fn(&mut Tape, usize) -> String) -> Parts {
    let wanted: Vec<usize> = (0..step.node.input.len()).filter(|i| t.wants(&step.node, *i)).collect();
    let one = |t: &mut Tape, input: usize| {
        let whole = gradient(t, input);
        (input, t.unbroadcast(&whole, &step.node.input[input], step.output()))
    };
    wanted.into_iter().map(|input| one(t, input)).collect()
}

/// Returns the gradients of `a + b`: `g` for both. Fails like [every rule](super).
pub fn add(t: &mut Tape, step: &Step) -> Result<Parts> {
    let g = step.gradient()?;
    Ok(each(t, step, |_, _| g.to_owned()))
}

/// Returns the gradients of `a + b + ...`: `g` for all. Fails like [every rule](super).
pub fn sum(t: &mut Tape, step: &Step) -> Result<Parts> {
    add(t, step)
}

/// Returns the gradients of `a - b`: `g` and `-g`. Fails like [every rule](super).
pub fn sub(t: &mut Tape, step: &Step) -> Result<Parts> {
    let g = step.gradient()?;
    Ok(each(t, step, |t, input| if input == 0 { g.to_owned() } else { t.op("Neg", &[g]) }))
}

/// Returns the gradients of `a b`: `g b` and `g a`. Fails like [every rule](super).
pub fn mul(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, a, b) = (step.gradient()?, step.input(0)?, step.input(1)?);
    Ok(each(t, step, |t, input| t.op("Mul", &[g, if input == 0 { b } else { a }])))
}

/// Returns the gradients of `a / b`: `g / b` and `-(g / b) y`. Fails like [every rule](super).
pub fn div(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, b, y) = (step.gradient()?, step.input(1)?, step.output());
    let share = t.op("Div", &[g, b]);
    Ok(each(t, step, |t, input| match input {
        0 => share.clone(),
        _ => {
            let product = t.op("Mul", &[&share, y]);
            t.op("Neg", &[&product])
        }
    }))
}

/// Returns the gradients of `min(a, b, ...)` or `max(a, b, ...)`: `g` goes to the input that equals the output; several
/// equal ones share it evenly. Fails like [every rule](super).
pub fn extreme(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, y) = (step.gradient()?, step.output());
    let float = || vec![edit::int_attribute("to", 1)];
    let mut ties: Option<String> = None;
    for input in step.node.input.iter().filter(|i| !i.is_empty()) {
        let same = t.op("Equal", &[input, y]);
        let same = t.op_with("Cast", &[&same], float());
        ties = Some(ties.map_or(same.clone(), |sum| t.op("Add", &[&sum, &same])));
    }
    let Some(ties) = ties else { return Ok(Vec::new()) };
    let share = t.op("Div", &[g, &ties]);
    let zero = t.scalar(0.0);
    Ok(each(t, step, |t, input| {
        let same = t.op("Equal", &[&step.node.input[input], y]);
        t.op("Where", &[&same, &share, &zero])
    }))
}

/// Returns the gradients of `condition ? a : b`: `g` where the condition selects the input, otherwise 0. Fails like
/// [every rule](super).
pub fn choose(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, condition) = (step.gradient()?, step.input(0)?);
    let zero = t.scalar(0.0);
    Ok(each(t, step, |t, input| match input {
        1 => t.op("Where", &[condition, g, &zero]),
        _ => t.op("Where", &[condition, &zero, g]),
    }))
}

/// Returns the gradient of a function of one variable. Fails like [every rule](super).
pub fn unary(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x, y) = (step.gradient()?, step.input(0)?, step.output());
    if !t.wants(&step.node, 0) {
        return Ok(Vec::new());
    }
    let gradient = match step.node.op() {
        "Identity" => g.to_owned(),
        "Dropout" if step.node.input.len() < 3 => g.to_owned(),
        "Neg" => t.op("Neg", &[g]),
        "Cast" | "CastLike" => match t.dtype(x) {
            Some(dtype) => t.op_with("Cast", &[g], vec![edit::int_attribute("to", dtype.to_onnx().into())]),
            None => bail!(Unsupported, "the input type of a Cast is not known"),
        },
        "Sqrt" => {
            let half = t.scalar(0.5);
            let share = t.op("Mul", &[g, &half]);
            t.op("Div", &[&share, y])
        }
        "Log" => t.op("Div", &[g, x]),
        "Relu" | "LeakyRelu" | "Clip" | "HardSwish" | "HardSigmoid" | "Elu" => piecewise(t, step, g, x, y)?,
        _ => {
            let slope = smooth(t, step, x, y)?;
            t.op("Mul", &[g, &slope])
        }
    };
    Ok(vec![(0, gradient)])
}

/// Adds nodes for the slope `dy/dx` of a smooth function, and returns its name.
fn smooth(t: &mut Tape, step: &Step, x: &str, y: &str) -> Result<String> {
    let one = t.scalar(1.0);
    Ok(match step.node.op() {
        "Exp" => y.to_owned(),
        "Reciprocal" => {
            let square = t.op("Mul", &[y, y]);
            t.op("Neg", &[&square])
        }
        "Sin" => t.op("Cos", &[x]),
        "Cos" => {
            let sine = t.op("Sin", &[x]);
            t.op("Neg", &[&sine])
        }
        "Abs" => t.op("Sign", &[x]),
        "Softplus" => t.op("Sigmoid", &[x]),
        "Tanh" => {
            let square = t.op("Mul", &[y, y]);
            t.op("Sub", &[&one, &square])
        }
        "Sigmoid" => {
            let square = t.op("Mul", &[y, y]);
            t.op("Sub", &[y, &square])
        }
        "Erf" => {
            let factor = t.scalar(2.0 / std::f32::consts::PI.sqrt());
            let square = t.op("Mul", &[x, x]);
            let negative = t.op("Neg", &[&square]);
            let bell = t.op("Exp", &[&negative]);
            t.op("Mul", &[&bell, &factor])
        }
        other => bail!(Unsupported, "this form of {other} is not supported"),
    })
}

/// Adds nodes for the gradient of a function with kinks, and returns its name. At a kink, the slope closer to zero is
/// used, like in PyTorch; `Clip` has the slope 1 at its bounds, also like in PyTorch.
fn piecewise(t: &mut Tape, step: &Step, g: &str, x: &str, y: &str) -> Result<String> {
    let (node, zero) = (&step.node, t.scalar(0.0));
    Ok(match node.op() {
        "Relu" => {
            let above = t.op("Greater", &[y, &zero]);
            t.op("Where", &[&above, g, &zero])
        }
        "LeakyRelu" => {
            let slope = t.scalar(node.float("alpha", 0.01));
            let (above, less) = (t.op("Greater", &[x, &zero]), t.op("Mul", &[g, &slope]));
            t.op("Where", &[&above, g, &less])
        }
        "Elu" => {
            let alpha = t.scalar(node.float("alpha", 1.0));
            let above = t.op("Greater", &[x, &zero]);
            let slope = t.op("Add", &[y, &alpha]);
            let less = t.op("Mul", &[g, &slope]);
            t.op("Where", &[&above, g, &less])
        }
        "Clip" => {
            let mut kept = g.to_owned();
            for (input, outside) in [(1, "Less"), (2, "Greater")] {
                if let Some(bound) = node.input_at(input) {
                    let out = t.op(outside, &[x, bound]);
                    kept = t.op("Where", &[&out, &zero, &kept]);
                }
            }
            kept
        }
        // HardSwish, x * max(0, min(1, x / 6 + 1 / 2)), has the slope x / 3 + 1 / 2 between -3 and 3.
        "HardSwish" => {
            let (third, half, three) = (t.scalar(1.0 / 3.0), t.scalar(0.5), t.scalar(3.0));
            let minus = t.scalar(-3.0);
            let slope = t.op("Mul", &[x, &third]);
            let slope = t.op("Add", &[&slope, &half]);
            let sloped = t.op("Mul", &[g, &slope]);
            let (high, low) = (t.op("GreaterOrEqual", &[x, &three]), t.op("LessOrEqual", &[x, &minus]));
            let inner = t.op("Where", &[&high, g, &sloped]);
            t.op("Where", &[&low, &zero, &inner])
        }
        // HardSigmoid, max(0, min(1, alpha x + beta)), has the slope alpha where the result is between 0 and 1.
        _ => {
            let (alpha, one) = (t.scalar(node.float("alpha", 0.2)), t.scalar(1.0));
            let sloped = t.op("Mul", &[g, &alpha]);
            let (above, below) = (t.op("Greater", &[y, &zero]), t.op("Less", &[y, &one]));
            let inside = t.op("And", &[&above, &below]);
            t.op("Where", &[&inside, &sloped, &zero])
        }
    })
}

/// Returns the gradient of GELU, `x Φ(x)`, or of its approximation by tanh (Hendrycks, Gimpel, arXiv 1606.08415). Fails
/// like [every rule](super).
pub fn gelu(t: &mut Tape, step: &Step) -> Result<Parts> {
    let text = step.node.attribute("approximate").and_then(|a| a.s.as_deref());
    if text == Some(b"tanh") {
        return fast_gelu(t, step);
    }
    let (g, x) = (step.gradient()?, step.input(0)?);
    let (half, root) = (t.scalar(0.5), t.scalar(1.0 / SQRT_2));
    let scaled = t.op("Mul", &[x, &root]);
    let error = t.op("Erf", &[&scaled]);
    let error = t.op("Mul", &[&error, &half]);
    let share = t.op("Add", &[&error, &half]);
    let (minus, factor) = (t.scalar(-0.5), t.scalar(1.0 / (2.0 * std::f32::consts::PI).sqrt()));
    let square = t.op("Mul", &[x, x]);
    let square = t.op("Mul", &[&square, &minus]);
    let bell = t.op("Exp", &[&square]);
    let bell = t.op("Mul", &[&bell, &factor]);
    let bell = t.op("Mul", &[&bell, x]);
    let slope = t.op("Add", &[&share, &bell]);
    Ok(vec![(0, t.op("Mul", &[g, &slope]))])
}

/// Returns the gradients of `x / 2 (1 + tanh(k (x + 0.044715 x³)))`, `k = √(2/π)`; FastGelu first adds a bias to `x`.
/// Fails like [every rule](super).
pub fn fast_gelu(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, given) = (step.gradient()?, step.input(0)?);
    let x = match step.node.input_at(1) {
        Some(bias) => t.op("Add", &[given, bias]),
        None => given.to_owned(),
    };
    let k = (2.0 / std::f32::consts::PI).sqrt();
    let (one, half) = (t.scalar(1.0), t.scalar(0.5));
    let (first, third, slope) = (t.scalar(k), t.scalar(k * 0.044_715), t.scalar(3.0 * k * 0.044_715));
    let square = t.op("Mul", &[&x, &x]);
    let inner = t.op("Mul", &[&square, &third]);
    let inner = t.op("Add", &[&inner, &first]);
    let inner = t.op("Mul", &[&inner, &x]);
    let bent = t.op("Tanh", &[&inner]);
    let rest = t.op("Mul", &[&bent, &bent]);
    let rest = t.op("Sub", &[&one, &rest]);
    let inner_slope = t.op("Mul", &[&square, &slope]);
    let inner_slope = t.op("Add", &[&inner_slope, &first]);
    let curved = t.op("Mul", &[&rest, &inner_slope]);
    let curved = t.op("Mul", &[&curved, &x]);
    let whole = t.op("Add", &[&bent, &one]);
    let whole = t.op("Add", &[&whole, &curved]);
    let whole = t.op("Mul", &[&whole, &half]);
    let gradient = t.op("Mul", &[g, &whole]);
    Ok(each(t, step, |_, _| gradient.clone()))
}

/// Returns the gradient of `QuickGelu`, `x σ(αx)`. Fails like [every rule](super).
pub fn quick_gelu(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x, y) = (step.gradient()?, step.input(0)?, step.output());
    let (alpha, one) = (t.scalar(step.node.float("alpha", 1.702)), t.scalar(1.0));
    let scaled = t.op("Mul", &[x, &alpha]);
    let gate = t.op("Sigmoid", &[&scaled]);
    // The derivative is σ + α y (1 - σ).
    let rest = t.op("Sub", &[&one, &gate]);
    let rest = t.op("Mul", &[&rest, y]);
    let rest = t.op("Mul", &[&rest, &alpha]);
    let slope = t.op("Add", &[&gate, &rest]);
    Ok(vec![(0, t.op("Mul", &[g, &slope]))])
}
