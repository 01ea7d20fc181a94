//! Reverse-mode differentiation of an ONNX graph: the gradients are ordinary nodes of an ordinary graph.
//!
//! [`differentiate`] goes backwards over the nodes that lead to a loss and calls the rule of each operator for the
//! gradients of its inputs. `tape` has the state of a differentiation, `registry` maps operators to rules, and `rules`
//! has the rules, one file per family; `broadcast` sums a gradient to the shape of its value. [`uncovered`] finds the
//! nodes without a rule before anything runs. [`infer`] infers the type and shape of each value with ONNX Runtime,
//! [`fn@upgrade`] converts graphs of old opsets to one that has the operators for gradients, and `lower` splits fused
//! operators into ones with rules.
//!
//! Source of the method: Griewank, Walther, "Evaluating Derivatives", 2nd ed., 2008, chapter 3 (reverse
//! accumulation).

mod broadcast;
mod coverage;
mod registry;
mod rules;
#[cfg(test)]
mod sweep;
mod tape;
#[cfg(test)]
mod tests;
mod upgrade;

pub use crate::graph::builder::NodeBuilder;
pub use crate::graph::lower::{Lowered, Type};
pub use crate::runtime::infer_types as infer;
pub use coverage::{Uncovered, uncovered};
pub(crate) use rules::adding;
pub use tape::Tape;
pub use upgrade::upgrade;

use crate::call::Call;
use crate::error::{Context, Result, bail};
use crate::graph::lower;
use crate::onnx::proto::{ModelProto, NodeProto};
use crate::runtime::Runtime;
use std::collections::{HashMap, HashSet};

/// A node whose inputs get gradients, with the gradients of its outputs.
pub(crate) struct Step {
    /// Index of the node among the forward nodes of the tape.
    pub index: usize,
    /// Node that is differentiated.
    pub node: NodeProto,
    /// Name of the gradient of each output that the loss depends on.
    pub gradients: Vec<Option<String>>,
}

impl Step {
    /// Returns the name of the gradient of the first output. Fails with `Internal` if there is none.
    fn gradient(&self) -> Result<&str> {
        match self.gradients.first() {
            Some(Some(gradient)) => Ok(gradient),
            _ => bail!(Internal, "{}: its first output has no gradient", self.node.label()),
        }
    }

    /// Returns the name of the first output.
    fn output(&self) -> &str {
        self.node.output.first().map_or("", String::as_str)
    }

    /// Returns the name of the required input `index`. Fails with `InvalidModel` if the node lacks the input.
    fn input(&self, index: usize) -> Result<&str> {
        match self.node.input_at(index) {
            Some(name) => Ok(name),
            None => bail!(InvalidModel, "has no input {index}"),
        }
    }
}

/// Lowers the operators of the main graph for which a lowering is known, most of which have no rule, and returns the
/// tables of rotary embeddings and the nodes that could not be lowered. Values keep their names. If a lowering needs
/// shapes, they are inferred with ONNX Runtime. Fails if ONNX Runtime does not accept the model, and with
/// `InvalidModel` if a node lacks an input or its sizes contradict each other.
pub fn lower(runtime: &'static Runtime, model: &mut ModelProto, call: &Call) -> Result<Lowered> {
    let by_shape = model.graph.iter().flat_map(|graph| &graph.node).any(lower::by_shape);
    let types = if by_shape { infer(runtime, model, call)? } else { HashMap::new() };
    lower::lower(model, types, &|_| true)
}

/// The indices of a node's inputs, each with the name of its gradient.
pub(crate) type Parts = Vec<(usize, String)>;

/// Adds nodes that compute the gradient of each of `parameters` to `tape`. `seeds` are pairs of names: a value of the
/// model, and the gradient of the loss with respect to it. Returns the names of the gradients by parameter; parameters
/// that the loss does not depend on are missing.
///
/// Fails with [`crate::error::Kind::Unsupported`] for a node without a rule, or with attributes that its rule does not
/// support, and with `InvalidModel` for a node whose inputs or attributes are missing or do not fit. The message names
/// the node.
pub fn differentiate(
    tape: &mut Tape,
    seeds: &[(String, String)],
    parameters: &[String],
) -> Result<HashMap<String, String>> {
    tape.need = needed(tape, parameters);
    let mut sums: HashMap<String, Vec<String>> = HashMap::new();
    for (value, gradient) in seeds {
        sums.entry(value.clone()).or_default().push(gradient.clone());
    }
    for index in (0..tape.forward.len()).rev() {
        let node = tape.forward[index].clone();
        if !node.output.iter().any(|o| tape.need.contains(o)) {
            continue;
        }
        let gradients: Vec<Option<String>> = node.output.iter().map(|o| total(tape, &mut sums, o)).collect();
        if gradients.iter().all(Option::is_none) {
            continue;
        }
        let (place, inputs) = (node.label().to_owned(), node.input.clone());
        let Some(rule) = registry::rule(&node) else {
            bail!(Unsupported, "node {place:?}: {} has no gradient", node.operator());
        };
        let step = Step { index, node, gradients };
        for (input, gradient) in rule(tape, &step).at(|| format!("the gradient of node {place:?}"))? {
            sums.entry(inputs[input].clone()).or_default().push(gradient);
        }
    }
    let found = parameters.iter().filter_map(|p| Some((p.clone(), total(tape, &mut sums, p)?)));
    Ok(found.collect())
}

/// Returns the names of the parameters and of the values that depend on them through floating-point values.
fn needed(tape: &Tape, parameters: &[String]) -> HashSet<String> {
    let mut need: HashSet<String> = parameters.iter().cloned().collect();
    for node in &tape.forward {
        if registry::stops(node) || !node.input.iter().any(|i| need.contains(i)) {
            continue;
        }
        need.extend(node.output.iter().filter(|o| !o.is_empty() && tape.is_float(o)).cloned());
    }
    need
}

/// Adds nodes that sum the gradients of a value, and returns the name of the sum; `None` if there are no gradients.
fn total(tape: &mut Tape, sums: &mut HashMap<String, Vec<String>>, value: &str) -> Option<String> {
    let list = sums.remove(value)?;
    let mut parts = list.into_iter();
    let first = parts.next()?;
    let sum = parts.fold(first, |sum, part| tape.op("Add", &[&sum, &part]));
    sums.insert(value.to_owned(), vec![sum.clone()]);
    Some(sum)
}
