//! Detection of attention in a graph: its queries, keys and values.

use crate::graph::order::{consumers, producer_nodes};
use crate::model::Model;
use crate::onnx::proto::NodeProto;
use std::collections::HashMap;

/// The operators between the scores and their softmax, or between the probabilities and the values.
const BETWEEN: [&str; 9] = ["Add", "Mul", "Div", "Where", "Reshape", "Cast", "Dropout", "Identity", "Tanh"];
/// The operators between queries or keys and their product.
const SCALES: [&str; 3] = ["Mul", "Div", "Identity"];

/// Names of the values with queries, keys and values of an attention.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// Name of the value with the queries: `[batch, heads, token, size]`.
    pub query: String,
    /// Name of the value with the keys: `[batch, heads, token, size]`, or `[batch, heads, size, token]` if
    /// `key_is_transposed`.
    pub key: String,
    /// Whether the last two dimensions of the keys are transposed.
    pub key_is_transposed: bool,
    /// Name of the value with the values: `[batch, heads, token, size]`.
    pub value: String,
}

/// Returns the last attention of a model; `None` if there is none that consists of products and a softmax.
pub fn last(model: &Model) -> Option<Attention> {
    let graph = model.graph();
    let (makers, readers) = (producer_nodes(&graph.node), consumers(&graph.node));
    let softmaxes: Vec<&NodeProto> = graph.node.iter().filter(|node| node.is("Softmax")).collect();
    softmaxes.into_iter().rev().find_map(|softmax| {
        let scores = back(&makers, softmax.input_at(0)?, &BETWEEN, |node| node.is("MatMul"))?;
        let mut shares = softmax.output.first()?.as_str();
        let product = loop {
            let next = &graph.node[*readers.get(shares)?.first()?];
            match next.is("MatMul") {
                true => break next,
                false if BETWEEN.contains(&next.op()) => shares = next.output.first()?,
                false => return None,
            }
        };
        let (query, _) = before_transpose(&makers, scores.input_at(0)?, false);
        let (key, key_is_transposed) = before_transpose(&makers, scores.input_at(1)?, true);
        Some(Attention { query, key, key_is_transposed, value: product.input_at(1)?.to_owned() })
    })
}

/// Returns the nearest node for which `found` is true on the way back from a value, over the first inputs of the
/// operators `through`; `None` if there is none.
fn back<'g>(
    makers: &HashMap<&'g str, &'g NodeProto>,
    from: &'g str,
    through: &[&str],
    found: impl Fn(&NodeProto) -> bool,
) -> Option<&'g NodeProto> {
    let mut name = from;
    for _ in 0..16 {
        let node = makers.get(name)?;
        if found(node) {
            return Some(node);
        }
        if !through.contains(&node.op()) {
            return None;
        }
        // The scores are one of the branches of a Where, and the first input of other operators.
        let inputs = if node.is("Where") { 1..3 } else { 0..1 };
        let made = |index: usize| node.input_at(index).filter(|input| makers.contains_key(input));
        name = inputs.into_iter().find_map(made)?;
    }
    None
}

/// Returns the name of the value before scaling and, if `keys` is set, before the transposition of its last two
/// dimensions; and whether these are still transposed in the value.
fn before_transpose(makers: &HashMap<&str, &NodeProto>, from: &str, keys: bool) -> (String, bool) {
    let mut name = from;
    for _ in 0..8 {
        let Some(node) = makers.get(name) else { break };
        let swaps_last = node.attribute("perm").is_some_and(|perm| perm.ints == [0, 1, 3, 2]);
        if keys && node.is("Transpose") && swaps_last {
            return (node.input_at(0).unwrap_or(from).to_owned(), false);
        }
        if !SCALES.contains(&node.op()) {
            break;
        }
        match node.input_at(0) {
            Some(input) if makers.contains_key(input) => name = input,
            _ => break,
        }
    }
    (name.to_owned(), keys)
}
