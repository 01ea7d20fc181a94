//! The module names of nodes and weights, such as `query`, `q_proj`, `dense` and `fc1`.

use super::constants::Constant;
use super::{BodyId, Producer, Use, View};
use std::collections::BTreeMap;

/// The operators whose weights [`modules`] considers.
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

/// Returns the short names of the modules of a model, each with the number of nodes that apply a weight of it: nodes of
/// operators such as `MatMul`, `Gemm`, `Conv` and `Gather` with a constant of at least two dimensions.
pub fn modules(view: &View<'_>) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for (body, content) in view.bodies.iter().enumerate() {
        for (index, node) in content.nodes.iter().enumerate().filter(|(_, node)| WEIGHTED.contains(&node.op())) {
            let matrix = |name: &String| weight(view, body, name).filter(|c| c.tensor.dims.len() > 1);
            let weight = node.input.iter().find_map(matrix);
            if let Some(name) = weight.and_then(|weight| module(view, body, index, weight.name)) {
                *found.entry(name).or_default() += 1;
            }
        }
    }
    found
}

/// Returns the constant behind an input of a node, also if a `Reshape` is between them, as for the codes of weights in
/// blocks; `None` if the input is not a constant.
pub fn weight<'a>(view: &View<'a>, body: BodyId, name: &str) -> Option<Constant<'a>> {
    if let Some((owner, Producer::Node(index))) = view.producer(body, name)
        && view.node(owner, index).is("Reshape")
    {
        return view.constant_or_default(owner, view.node(owner, index).input_at(0)?);
    }
    view.constant_or_default(body, name)
}

/// Returns the short module name of a node: the last part that is not a number of the first of its [`paths`]; `None` if
/// it has none. `weight` is the name of its weight.
pub fn module(view: &View<'_>, body: BodyId, node: usize, weight: &str) -> Option<String> {
    paths(view, body, node, weight).into_iter().find_map(|path| last_word(&path))
}

/// Returns the dotted module names of a node (`encoder.layer.0.attention.self.query`), most reliable first: from its
/// scope (the part of its name before the last slash), from the name `weight` of its weight, from the name of its bias.
/// Some exporters drop the names of scopes and weights (`onnx::MatMul_123`), but keep those of biases. The list is
/// empty if all three are missing.
pub fn paths(view: &View<'_>, body: BodyId, node: usize, weight: &str) -> Vec<String> {
    let proto = view.node(body, node);
    let scope = proto.name.as_deref().and_then(|name| name.rsplit_once('/')).map(|(parents, _)| dotted(parents));
    let bias = bias_of(view, body, node);
    let mut paths: Vec<String> = [scope, named(weight), bias.and_then(named)].into_iter().flatten().collect();
    paths.retain(|path| last_word(path).is_some());
    let mut seen = std::collections::HashSet::new();
    paths.retain(|path| seen.insert(path.clone()));
    paths
}

/// Returns the path in the name of a constant, unless an exporter derived it from an operator.
fn named(constant: &str) -> Option<String> {
    if constant.starts_with("onnx::") {
        return None;
    }
    let ends = [".weight", "_weight", "/weight", ".kernel", "/kernel", ".bias", "_bias", "/bias"];
    let path = ends.iter().find_map(|end| constant.strip_suffix(end)).unwrap_or(constant);
    Some(dotted(path))
}

fn dotted(path: &str) -> String {
    path.trim_matches('/').replace('/', ".")
}

/// Returns the name of the bias of a node: the third input of a `Gemm`, `Conv` or `ConvTranspose`, or the other operand
/// of the `Add` that alone reads the output of a `MatMul`. Returns `None` for other nodes, or if the bias is not a
/// constant vector.
fn bias_of<'a>(view: &View<'a>, body: BodyId, node: usize) -> Option<&'a str> {
    let proto = view.node(body, node);
    let vector = |at: BodyId, name: &'a str| {
        view.constant_or_default(at, name).filter(|c| c.tensor.dims.len() == 1).map(|c| c.name)
    };
    if matches!(proto.op(), "Gemm" | "Conv" | "ConvTranspose") {
        return vector(body, proto.input_at(2)?);
    }
    if proto.op() != "MatMul" {
        return None;
    }
    let &[Use::Node { body: at, node: next, input }] = view.uses(body, proto.output.first()?) else { return None };
    let next = view.node(at, next);
    if next.op() != "Add" {
        return None;
    }
    vector(at, next.input_at(1 - input.min(1))?)
}

/// Returns the last part of a dotted path that is not a number; `None` if there is none.
fn last_word(path: &str) -> Option<String> {
    let mut words = path.split('.').filter(|part| !part.is_empty() && !part.bytes().all(|b| b.is_ascii_digit()));
    words.next_back().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::edit::{self, float_tensor};
    use crate::onnx::proto::{GraphProto, ModelProto, NodeProto};

    /// Returns the paths of a node in a graph of `Add(MatMul(x, weight), bias)`.
    fn of(name: &str, weight: &str, bias: &str) -> Vec<String> {
        let product = NodeProto { name: Some(name.into()), ..edit::node("MatMul", &["x", weight], &["y"]) };
        let graph = GraphProto {
            node: vec![product, edit::node("Add", &[bias, "y"], &["z"])],
            initializer: vec![float_tensor(weight, &[2, 2], &[0.0; 4]), float_tensor(bias, &[2], &[0.0; 2])],
            ..Default::default()
        };
        let model = ModelProto { graph: Some(Box::new(graph)), ..Default::default() };
        paths(&View::new(&model), 0, 0, weight)
    }

    #[test]
    fn modules_are_found_in_scopes_in_weight_names_and_in_those_of_biases() {
        let cases = [
            ("/encoder/layer.0/attention/self/query/MatMul", "onnx::MatMul_12", "onnx::Add_3", Some("query")),
            ("MatMul_7", "model.layers.3.mlp.down_proj.weight", "7", Some("down_proj")),
            ("/model/layers.3/self_attn/q_proj/MatMul", "x2", "b", Some("q_proj")),
            ("", "classifier.2.weight", "b", Some("classifier")),
            ("MatMul_57", "onnx::MatMul_12", "encoder.layer.0.output.dense.bias", Some("dense")),
            ("", "onnx::MatMul_12", "12", None),
        ];
        for (name, weight, bias, expected) in cases {
            let found = of(name, weight, bias).into_iter().find_map(|path| last_word(&path));
            assert_eq!(found.as_deref(), expected, "{name} {weight} {bias}");
        }
        assert_eq!(
            of("/a/b.0/MatMul", "c.d.weight", "e.f.bias"),
            ["a.b.0".to_owned(), "c.d".to_owned(), "e.f".to_owned()]
        );
    }
}
