//! The outcome of quantization: counts for the report, and the message if nothing was quantized.

use super::planner::{LEFT, QUANTIZED, WEIGHTED, is_float};
use super::{QuantizeOptions, QuantizeType};
use crate::error::{Error, Kind, Result, bail};
use crate::graph::View;
use crate::model::{Format, Model};
use crate::report::{NodeReport, Report, count_reasons};

/// Adds the numbers of quantized and other nodes to the report. Fails with the error of [`nothing`] if no node of
/// `model` was quantized.
pub fn count(report: &mut Report, nodes: &[NodeReport], options: &QuantizeOptions, model: &Model) -> Result<()> {
    let with = |action: &str| nodes.iter().filter(|n| n.action == action).count();
    let (quantized, left) = (with(QUANTIZED), with(LEFT));
    if left == nodes.len() {
        let why = match nodes.is_empty() && !has_weights(model) {
            true => "the model has no operator with a constant weight".to_owned(),
            false => reasons(nodes) + &help(nodes, options),
        };
        return Err(nothing(nodes, why));
    }
    report.summary.insert("nodes_quantized".into(), quantized.into());
    report.summary.insert("nodes_stored".into(), (nodes.len() - left - quantized).into());
    report.summary.insert("nodes_left".into(), left.into());
    Ok(())
}

/// The texts that occur in the reasons of nodes that stay float because of a limit on quality, size or speed.
const LIMITS: [&str; 3] = ["max_quality_loss", "target_size", "not faster"];

/// Returns the error if no node was quantized: [`Kind::GateNotMet`] if a limit left a node float, otherwise
/// [`Kind::Unsupported`].
pub fn nothing(nodes: &[NodeReport], why: String) -> Error {
    let limited = nodes.iter().any(|node| LIMITS.iter().any(|limit| node.reason.contains(limit)));
    let kind = if limited { Kind::GateNotMet } else { Kind::Unsupported };
    Error::new(kind, format!("no node could be quantized: {why}"))
}

/// Fails with [`crate::error::Kind::Unsupported`] if `model` comes from a GGUF file and the result, of `after` bytes,
/// is not smaller than the file.
pub fn smaller_than_gguf(model: &Model, after: u64, options: &QuantizeOptions) -> Result<()> {
    let before = model.bytes();
    if model.card().format != Format::Gguf || after < before {
        return Ok(());
    }
    let fewest = options.quantize_type == QuantizeType::WeightOnly && options.bits <= 4;
    let hint = if fewest { "" } else { ": its weights already have few bits; type weight-only with bits 4 has fewer" };
    bail!(Unsupported, "the result would have {after} bytes, but the GGUF file has {before}{hint}")
}

/// Returns whether an operator of the model has a constant weight, of any size, that this library quantizes or leaves
/// with a reason.
fn has_weights(model: &Model) -> bool {
    let view = View::new(model.proto());
    let is_weight = |body, name: &String| {
        view.constant_or_default(body, name).is_some_and(|c| is_float(c.tensor) && c.tensor.dims.len() >= 2)
    };
    let holds = |op: &str| WEIGHTED.contains(&op) || matches!(op, "MatMul" | "Gemm" | "Gather");
    let mut bodies = view.bodies.iter().enumerate();
    bodies.any(|(id, body)| body.nodes.iter().any(|n| holds(n.op()) && n.input.iter().any(|name| is_weight(id, name))))
}

/// Returns the reasons why nodes stay unchanged, with their counts, most frequent first. If there are no such nodes,
/// the text says that no operator has a large enough constant weight.
pub fn reasons(nodes: &[NodeReport]) -> String {
    match count_reasons(nodes.iter().filter(|node| node.action == LEFT)) {
        none if none.is_empty() => "no operator has a large enough constant weight".to_owned(),
        reasons => reasons,
    }
}

/// Returns the end of the message if nothing was quantized, which suggests what to try. It is empty if a node was
/// excluded by the options, is already quantized, or stays float because of a limit, and if there is nothing to
/// suggest.
fn help(nodes: &[NodeReport], options: &QuantizeOptions) -> String {
    let settled = ["already quantized", "excluded", "not included"];
    if nodes.iter().any(|n| settled.iter().chain(&LIMITS).any(|reason| n.reason.contains(reason))) {
        return String::new();
    }
    let most = options.min_elements;
    let small = nodes.is_empty() || nodes.iter().any(|n| n.reason.contains(" elements"));
    let mut ways = Vec::new();
    if small && most > 1 {
        ways.push(format!("a min_elements below {most} includes smaller weights"));
    }
    // Neither static quantization nor pruning applies to weights that are not constants.
    let variable = ["computed", "parameter", "sparse"];
    if nodes.is_empty() || nodes.iter().any(|node| variable.iter().all(|reason| !node.reason.contains(reason))) {
        let integers =
            "static quantization (--type static --calibration) quantizes activations and computes in integers";
        ways.extend([integers.to_owned(), "pruning (optimize prune) removes weights".to_owned()]);
    }
    if ways.is_empty() { String::new() } else { format!(". Alternatives: {}", ways.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::edit::{float_tensor, node, untyped};
    use crate::onnx::proto::{GraphProto, ModelProto, NodeProto};
    use crate::report::report_of;

    #[test]
    fn advice_is_given_only_if_it_helps() {
        let refused = |nodes: Vec<NodeProto>| {
            let graph = GraphProto {
                node: nodes,
                input: vec![untyped("x")],
                initializer: vec![float_tensor("w", &[1, 4, 4], &[0.5; 16])],
                ..GraphProto::default()
            };
            let model = Model::from_proto(ModelProto { graph: Some(Box::new(graph)), ..ModelProto::default() });
            let mut report = Report::new("quantize", serde_json::Value::Null);
            count(&mut report, &[], &QuantizeOptions::default(), &model).unwrap_err().to_string()
        };
        let e = refused(vec![node("Relu", &["x"], &["y"])]);
        assert_eq!(e, "no node could be quantized: the model has no operator with a constant weight");
        let e = refused(vec![node("LSTM", &["x", "w", "w"], &["y"])]);
        assert!(
            e.contains("no operator has a large enough constant weight. Alternatives: a min_elements below"),
            "{e}"
        );
        let left = |reason: &str| report_of(&node("MatMul", &["x", "x"], &["y"]), LEFT, reason.to_owned());
        let options = QuantizeOptions::default();
        assert_eq!(help(&[left("both operands are computed")], &options), "");
        assert!(help(&[left("the weight has only 12 elements")], &options).contains("a min_elements below"));
    }
}
