//! The selection of the output of a model with logits or scores, and what an output contains.

use crate::error::{Error, error};
use crate::graph::order::producer_nodes;
use crate::inputs::plain_name;
use crate::model::{Card, Model, ValueInfo};
use crate::onnx::dtype::DataType;

/// The operators that only move or convert values: scores before one of them are scores after it.
const MOVES: [&str; 12] = [
    "Identity",
    "Cast",
    "Squeeze",
    "Unsqueeze",
    "Reshape",
    "Flatten",
    "Transpose",
    "Slice",
    "Gather",
    "Dropout",
    "QuantizeLinear",
    "DequantizeLinear",
];
/// The operators that compute scores, of ONNX and of the optimizer of ONNX Runtime.
const SCORES: [&str; 5] = ["Softmax", "Sigmoid", "BiasSoftmax", "QLinearSoftmax", "QLinearSigmoid"];
/// The number of nodes that are examined, from an output backwards, in the search for the one that computes scores.
const STEPS: usize = 16;

/// Returns whether an output has floats in `dimensions` dimensions, or in an undeclared shape.
fn fits(info: &ValueInfo, dimensions: usize) -> bool {
    matches!(info.dtype, Some(DataType::Float32 | DataType::Float16 | DataType::Bfloat16))
        && info.shape.as_ref().is_none_or(|shape| shape.len() == dimensions)
}

/// Returns the name of the output with logits or scores; `None` if there is none. Only float outputs that have
/// `dimensions` dimensions or an undeclared shape count. The result is the first with `logit` in its name; otherwise
/// the first whose name says that it has scores; otherwise the only output of the model, unless its name says that it
/// has vectors.
pub(super) fn logits_in(model: &Model, dimensions: usize) -> Option<String> {
    let outputs = model.outputs();
    let fitting: Vec<&ValueInfo> = outputs.iter().filter(|info| fits(info, dimensions)).collect();
    let named = |test: fn(&str) -> bool| fitting.iter().find(|info| test(&info.name)).copied();
    let only = || fitting.first().copied().filter(|only| outputs.len() == 1 && !names_vectors(&only.name));
    named(names_logits).or_else(|| named(names_scores)).or_else(only).map(|info| info.name.clone())
}

/// Returns the error for a model in which [`logits_in`] finds no output. `dimensions` and `owner` are words of the
/// message.
pub(super) fn no_logits(model: &Model, dimensions: &str, owner: &str) -> Error {
    let outputs = model.outputs();
    let names: Vec<&str> = outputs.iter().map(|info| info.name.as_str()).take(8).collect();
    error!(
        Unsupported,
        "the model has no output `logits` of {dimensions} dimensions, as {owner} have; its outputs are {}",
        names.join(", ")
    )
}

/// Returns whether an output contains scores, and not logits or vectors: its name says so, or a softmax or a sigmoid
/// of the graph computes it, possibly followed by operators that only move or convert values.
pub(super) fn is_scores(model: &Model, output: &str) -> bool {
    names_scores(output) || computes_scores(model, output).is_some()
}

/// Returns the operator of the graph that computes the scores in an output, a softmax or a sigmoid; `None` if there is
/// none.
pub(super) fn computes_scores(model: &Model, output: &str) -> Option<&'static str> {
    let producers = producer_nodes(&model.graph().node);
    let mut value = output;
    for _ in 0..STEPS {
        let node = producers.get(value)?;
        if let Some(found) = SCORES.iter().find(|op| **op == node.op()) {
            return Some(found);
        }
        value = node.input_at(0).filter(|_| MOVES.contains(&node.op()))?;
    }
    None
}

fn names_logits(name: &str) -> bool {
    name.to_lowercase().contains("logit")
}

pub(super) fn names_scores(name: &str) -> bool {
    let name = plain_name(name).to_lowercase();
    !name.contains("logit") && ["prob", "scores"].iter().any(|part| name.contains(part))
}

fn names_vectors(name: &str) -> bool {
    let name = name.to_lowercase();
    ["embed", "hidden_state", "pooler"].iter().any(|part| name.contains(part))
}

/// Returns whether the configuration says that the model classifies texts or tokens.
pub(super) fn is_classifier(card: &Card) -> bool {
    let class = class_of(card);
    ["ForSequenceClassification", "ForTokenClassification"].iter().any(|end| class.ends_with(end))
}

/// Returns the first class in `architectures` of the configuration; empty if there is none.
pub(super) fn class_of(card: &Card) -> &str {
    let classes = card.config.get("architectures").and_then(|classes| classes.as_array());
    classes.and_then(|classes| classes.first()?.as_str()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::edit::{node, value};
    use crate::onnx::proto::{GraphProto, ModelProto, NodeProto};

    /// Returns a model with these nodes and outputs, each a float32 matrix.
    pub(in crate::encoder) fn model(nodes: Vec<NodeProto>, outputs: &[&str]) -> Model {
        let graph = GraphProto {
            node: nodes,
            input: vec![value("x", DataType::Float32, 2)],
            output: outputs.iter().map(|name| value(name, DataType::Float32, 2)).collect(),
            ..GraphProto::default()
        };
        let proto = ModelProto { graph: Some(Box::new(graph)), ..ModelProto::default() };
        Model::from_memory(proto, Card::default(), Vec::new())
    }

    #[test]
    fn scores_are_known_by_the_operator_before_them_or_by_their_name() {
        let behind = |op: &str| {
            let nodes = vec![
                node(op, &["x"], &["a"]),
                node("Cast", &["a"], &["b"]),
                node("Reshape", &["b", "shape"], &["c"]),
                node("Identity", &["c"], &["output_0"]),
            ];
            is_scores(&model(nodes, &["output_0"]), "output_0")
        };
        assert!(behind("Softmax") && behind("Sigmoid"));
        assert!(!behind("Gemm") && !behind("LogSoftmax"));
        let read = vec![node("Softmax", &["x"], &["a"]), node("Mul", &["a", "x"], &["y"])];
        assert!(!is_scores(&model(read, &["y"]), "y"), "a later operator computes other values");
        let named = |name: &str| is_scores(&model(vec![node("Gemm", &["x"], &[name])], &[name]), name);
        assert!(named("probabilities") && named("Probs:0") && named("class_scores"));
        assert!(!named("logits") && !named("score_logits") && !named("sentence_embedding"));
    }

    #[test]
    fn the_output_of_a_classifier_is_one_with_logits_or_else_with_scores() {
        let found = |outputs: &[&str]| logits_in(&model(Vec::new(), outputs), 2);
        assert_eq!(found(&["probs", "my_logits"]).as_deref(), Some("my_logits"));
        assert_eq!(found(&["label", "probabilities"]).as_deref(), Some("probabilities"));
        assert_eq!(found(&["output_0"]).as_deref(), Some("output_0"));
        assert_eq!(found(&["output_0", "output_1"]), None);
        assert_eq!(found(&["sentence_embedding"]), None);
        assert_eq!(logits_in(&model(Vec::new(), &["logits"]), 3), None);
    }
}
