//! The rule for `Einsum`, which computes sums of products by a formula.

use crate::autodiff::{Parts, Step, Tape};
use crate::error::{Result, bail};
use crate::graph::edit::text_attribute;
use crate::onnx::dtype::DataType;

/// The equation of an `Einsum` with a letter for each dimension; `...` is expanded to unused letters.
struct Formula {
    inputs: Vec<Vec<char>>,
    output: Vec<char>,
}

impl Formula {
    /// Returns the formula that the equation `text` describes for inputs with these ranks. Dimensions of `...` get
    /// unused letters, aligned at the last dimension, as they are broadcast. Fails if the equation does not fit.
    fn of(text: &str, ranks: &[usize]) -> Result<Formula> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = match text.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (text.as_str(), None),
        };
        let spare: Vec<char> = ('a'..='z').chain('A'..='Z').filter(|c| !text.contains(*c)).collect();
        let written = |term: &str, dots: usize| -> Result<Vec<char>> {
            let Some(skipped) = spare.len().checked_sub(dots) else {
                bail!(Unsupported, "an equation of more than 52 letters is not supported")
            };
            let (before, behind) = term.split_once("...").unwrap_or((term, ""));
            let dots = if term.contains("...") { &spare[skipped..] } else { &[] };
            Ok(before.chars().chain(dots.iter().copied()).chain(behind.chars()).collect())
        };
        let letters = |term: &str| term.chars().filter(|c| *c != '.').count();
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != ranks.len() {
            bail!(InvalidModel, "{} inputs do not fit the equation {text:?}", ranks.len());
        }
        let (mut inputs, mut most) = (Vec::new(), 0);
        for (term, rank) in terms.iter().zip(ranks) {
            let Some(dots) = rank.checked_sub(letters(term)) else {
                bail!(InvalidModel, "an input of {rank} dimensions does not fit {term:?}");
            };
            most = most.max(if term.contains("...") { dots } else { 0 });
            inputs.push(written(term, dots)?);
        }
        let output = match right {
            Some(term) => written(term, most)?,
            None => {
                let all: Vec<char> = terms.iter().flat_map(|t| t.chars()).filter(|c| *c != '.').collect();
                let mut once: Vec<char> =
                    all.iter().copied().filter(|c| all.iter().filter(|o| *o == c).count() == 1).collect();
                once.sort_unstable();
                spare[spare.len() - most..].iter().copied().chain(once).collect()
            }
        };
        Ok(Formula { inputs, output })
    }
}

/// Returns the gradients of `Einsum`. The gradient of an input is an `Einsum` in which `g` takes the place of that
/// input, and whose output has the letters of that input. Fails with `InvalidModel` if there is no equation or it does
/// not fit the inputs, and with `Unsupported` for more than 52 letters. Also fails like [every rule](super).
pub fn einsum(t: &mut Tape, step: &Step) -> Result<Parts> {
    let g = step.gradient()?;
    let Some(text) = step.node.attribute("equation").and_then(|a| a.s.as_deref()) else {
        bail!(InvalidModel, "the node has no equation");
    };
    let text = String::from_utf8_lossy(text).into_owned();
    let ranks = step.node.input.iter().map(|input| t.rank(input)).collect::<Result<Vec<_>>>()?;
    let formula = Formula::of(&text, &ranks)?;
    let mut parts = Vec::new();
    for input in 0..step.node.input.len() {
        if t.wants(&step.node, input) {
            parts.push((input, of_input(t, step, &formula, input, g)));
        }
    }
    Ok(parts)
}

fn of_input(t: &mut Tape, step: &Step, formula: &Formula, input: usize, g: &str) -> String {
    let (x, letters) = (step.node.input[input].as_str(), &formula.inputs[input]);
    let mut terms: Vec<String> = vec![formula.output.iter().collect()];
    let mut values = vec![g];
    for (other, name) in step.node.input.iter().enumerate().filter(|(other, _)| *other != input) {
        terms.push(formula.inputs[other].iter().collect());
        values.push(name);
    }
    let reached = |letter: &char| terms.iter().any(|term| term.contains(*letter));
    let mut target: Vec<char> = Vec::new();
    // In the gradient, these dimensions have size 1: letters that only this input has (they were summed), and the
    // repeated letters of a diagonal.
    let mut missing: Vec<i64> = Vec::new();
    for (at, letter) in letters.iter().enumerate() {
        if reached(letter) && !target.contains(letter) {
            target.push(*letter);
        } else {
            missing.push(at as i64);
        }
    }
    let equation = format!("{}->{}", terms.join(","), target.iter().collect::<String>());
    let mut gradient = t.op_with("Einsum", &values, vec![text_attribute("equation", &equation)]);
    if !missing.is_empty() {
        let missing = t.ints(&missing);
        gradient = t.op("Unsqueeze", &[&gradient, &missing]);
    }
    let shape = t.shape(x);
    // In the gradient, broadcast dimensions are wider than in the input, and summed ones narrower. The gradient is
    // expanded to the larger size of each, and then summed to the shape of the input.
    let reach = t.op("Shape", &[&gradient]);
    let whole = t.op("Max", &[&reach, &shape]);
    let wide = t.op("Expand", &[&gradient, &whole]);
    let wide = diagonals(t, &wide, &shape, letters);
    t.unbroadcast_to(&wide, x, &whole)
}

/// Adds nodes that set the elements of `value` off the diagonals to zero, for letters that occur twice, and returns the
/// name of the result.
fn diagonals(t: &mut Tape, value: &str, shape: &str, letters: &[char]) -> String {
    let mut value = value.to_owned();
    for (second, letter) in letters.iter().enumerate() {
        let Some(first) = letters[..second].iter().position(|other| other == letter) else { continue };
        let own = t.ints(&[second as i64]);
        let size = t.op("Gather", &[shape, &own]);
        let places = t.count_to(&size);
        let mut along = |at: usize| {
            let mut sizes = vec![1; letters.len()];
            sizes[at] = -1;
            t.reshaped(&places, &sizes)
        };
        let (rows, columns) = (along(first), along(second));
        let on = t.op("Equal", &[&rows, &columns]);
        let on = t.cast(&on, DataType::Float32);
        value = t.op("Mul", &[&value, &on]);
    }
    value
}
