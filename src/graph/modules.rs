//! From nodes and weights to the modules people know them by: `query`, `q_proj`, `dense`, `fc1` …

use super::View;
use crate::onnx::proto::NodeProto;
use std::collections::BTreeMap;

/// Operators that apply a weight.
const WEIGHTED: [&str; 10] = [
    "MatMul",
    "Gemm",
    "Gather",
    "Conv",
    "ConvTranspose",
    "MatMulInteger",
    "MatMulNBits",
    "GatherBlockQuantized",
    "LSTM",
    "GRU",
];

/// The modules of a model by their short name, with the number of nodes that belong to each.
pub fn modules(view: &View<'_>) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for (body, content) in view.bodies.iter().enumerate() {
        for node in content.nodes.iter().filter(|node| WEIGHTED.contains(&node.op())) {
            let weight =
                node.input.iter().find_map(|name| view.constant(body, name).filter(|c| c.tensor.dims.len() > 1));
            if let Some(name) = weight.and_then(|weight| module(node, weight.name)) {
                *found.entry(name).or_default() += 1;
            }
        }
    }
    found
}

/// The module a node belongs to: the last part of its scope that is a word, else that of its weight's name.
pub fn module(node: &NodeProto, weight: &str) -> Option<String> {
    let scope = node.name.as_deref().filter(|name| name.contains('/')).unwrap_or("");
    let scoped = scope.rsplit_once('/').and_then(|(parents, _)| last_word(parents.split('/')));
    scoped.or_else(|| {
        // Exports without scopes name anonymous weights after their operator (`onnx::MatMul_123`).
        let path = weight.split("::").next().filter(|first| *first != "onnx").map(|_| weight)?;
        let path = path.strip_suffix(".weight").or_else(|| path.strip_suffix("_weight")).unwrap_or(path);
        last_word(path.split(['.', '/']))
    })
}

fn last_word<'a>(parts: impl Iterator<Item = &'a str>) -> Option<String> {
    let words =
        parts.flat_map(|part| part.split('.')).filter(|p| !p.is_empty() && !p.bytes().all(|b| b.is_ascii_digit()));
    words.last().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_in_scopes_and_in_weight_names() {
        let named = |name: &str| NodeProto { name: Some(name.into()), ..Default::default() };
        let cases = [
            ("/encoder/layer.0/attention/self/query/MatMul", "onnx::MatMul_12", Some("query")),
            ("MatMul_7", "model.layers.3.mlp.down_proj.weight", Some("down_proj")),
            ("/model/layers.3/self_attn/q_proj/MatMul", "x", Some("q_proj")),
            ("", "classifier.2.weight", Some("classifier")),
            ("", "onnx::MatMul_12", None),
        ];
        for (name, weight, expected) in cases {
            assert_eq!(module(&named(name), weight).as_deref(), expected, "{name} {weight}");
        }
    }
}
