//! The sizes that a graph requires of its inputs where the signature leaves them open: the channels of a convolution,
//! the rows of a weight.

use super::tables::dims_of;
use crate::graph::{BodyId, Use, View};
use crate::onnx::proto::NodeProto;

/// The operators whose output has the axes of their first input: element-wise ones, and those that normalize or
/// quantize along an axis.
const ALIKE: [&str; 24] = [
    "Cast",
    "Identity",
    "Relu",
    "LeakyRelu",
    "Sigmoid",
    "Tanh",
    "Neg",
    "Abs",
    "Sqrt",
    "Exp",
    "Log",
    "Clip",
    "Floor",
    "Dropout",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "Erf",
    "Softmax",
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
];
/// The maximum number of values of the graph that are followed from an input.
const VALUES: usize = 64;

/// A value that depends on the input, with the axis of the input that corresponds to each of its axes.
struct At<'a> {
    body: BodyId,
    name: &'a str,
    axes: Vec<usize>,
}

/// Returns axes of the graph's input `name`, each with a size above 0 that a constant of the graph requires of it.
/// `rank` is the number of dimensions of the input. An axis may occur several times.
pub fn sizes_wanted(view: &View<'_>, name: &str, rank: usize) -> Vec<(usize, i64)> {
    let mut queue = vec![At { body: 0, name, axes: (0..rank).collect() }];
    let (mut found, mut next) = (Vec::new(), 0);
    while next < queue.len().min(VALUES) {
        let At { body, name, axes } = &queue[next];
        let (body, name, axes) = (*body, *name, axes.clone());
        next += 1;
        for place in view.uses(body, name) {
            let Use::Node { body, node, input } = *place else { continue };
            let node = view.node(body, node);
            for (axis, size) in wanted(view, body, node, input, axes.len()) {
                found.extend(axes.get(axis).filter(|_| size > 0).map(|axis| (*axis, size)));
            }
            let Some(output) = node.output.first().filter(|_| input == 0) else { continue };
            if let Some(axes) = carried(view, body, node, &axes) {
                queue.push(At { body, name: output, axes });
            }
        }
    }
    found
}

/// Returns the axes of the graph's input that correspond to the axes of a node's output; `axes` are those that
/// correspond to the axes of its first input. `None` if the node may change the axes.
fn carried(view: &View<'_>, body: BodyId, node: &NodeProto, axes: &[usize]) -> Option<Vec<usize>> {
    if node.is("Transpose") {
        let Some(perm) = node.attribute("perm") else { return Some(axes.iter().rev().copied().collect()) };
        return perm.ints.iter().map(|p| axes.get(usize::try_from(*p).ok()?).copied()).collect();
    }
    if !ALIKE.iter().any(|op| node.is(op)) {
        return None;
    }
    let other = node.input_at(1).and_then(|other| dims_of(view, body, other));
    // Inputs with more dimensions would shift the axes.
    other.is_none_or(|dims| dims.len() <= axes.len()).then(|| axes.to_vec())
}

/// Returns axes of the node's input `input`, which has `rank` dimensions, with the sizes that constants of the node
/// require; a size is 0 if it is not known.
fn wanted(view: &View<'_>, body: BodyId, node: &NodeProto, input: usize, rank: usize) -> Vec<(usize, i64)> {
    let dims = |index: usize| node.input_at(index).and_then(|name| dims_of(view, body, name)).unwrap_or_default();
    let at = |dims: &[i64], axis: usize| dims.get(axis).copied().unwrap_or(0);
    let last = rank.wrapping_sub(1);
    if node.refers() {
        return Vec::new();
    }
    match (node.op(), input) {
        ("Conv" | "ConvInteger" | "FusedConv", 0) => vec![(1, at(&dims(1), 1).saturating_mul(node.int("group", 1)))],
        ("QLinearConv", 0) => vec![(1, at(&dims(3), 1).saturating_mul(node.int("group", 1)))],
        ("ConvTranspose", 0) => vec![(1, at(&dims(1), 0))],
        ("MatMul" | "MatMulInteger" | "DynamicQuantizeMatMul" | "MatMulIntegerToFloat" | "FusedMatMul", 0) => {
            let weight = dims(1);
            vec![(last, at(&weight, weight.len().saturating_sub(2)))]
        }
        ("MatMulNBits", 0) => vec![(last, node.int("K", 0))],
        ("Gemm", 0) => {
            let rows = usize::from(node.int("transB", 0) != 0);
            vec![(usize::from(node.int("transA", 0) == 0), at(&dims(1), rows))]
        }
        ("LSTM" | "GRU" | "RNN", 0) => vec![(2, at(&dims(1), 2))],
        ("LSTM" | "GRU" | "RNN", 5 | 6) => vec![(0, at(&dims(1), 0)), (2, at(&dims(2), 2))],
        ("LayerNormalization" | "SimplifiedLayerNormalization", 0) => {
            let scale = dims(1);
            if scale.len() == 1 { vec![(last, scale[0])] } else { Vec::new() }
        }
        ("BatchNormalization" | "InstanceNormalization", 0) => vec![(1, at(&dims(1), 0))],
        ("Add" | "Sub" | "Mul" | "Div", 0 | 1) => {
            let other = dims(1 - input);
            let of = |(index, size): (usize, &i64)| (*size > 1).then(|| (last.wrapping_sub(index), *size));
            other.iter().rev().enumerate().filter_map(of).collect()
        }
        ("Scaler", 0) => {
            let offsets = node.attribute("offset").map_or(0, |a| a.floats.len());
            if offsets > 1 { vec![(last, offsets as i64)] } else { Vec::new() }
        }
        ("TreeEnsembleRegressor" | "TreeEnsembleClassifier", 0) => {
            let features = node.attribute("nodes_featureids").and_then(|a| a.ints.iter().max().copied());
            features.map(|most| (last, most.saturating_add(1))).into_iter().collect()
        }
        ("LinearRegressor" | "LinearClassifier", 0) => {
            let count = |name: &str| node.attribute(name).map_or(0, |a| a.floats.len() as i64);
            vec![(last, count("coefficients").checked_div(count("intercepts").max(1)).unwrap_or(0))]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::edit;
    use crate::onnx::proto::{AttributeProto, ModelProto};
    use crate::runtime::testing::{graph, model, node, value, weight};

    fn of(mut nodes: Vec<NodeProto>, weights: &[(&str, &[i64])], rank: usize) -> Vec<(usize, i64)> {
        nodes.push(node("Identity", &["p"], "y"));
        let mut graph = graph(nodes, vec![value("x", 1, &[])], vec![value("y", 1, &[])]);
        let zeros = |dims: &[i64]| vec![0.0; dims.iter().product::<i64>() as usize];
        graph.initializer = weights.iter().map(|(name, dims)| weight(name, dims, &zeros(dims))).collect();
        let proto: ModelProto = model(graph);
        let view = View::new(&proto);
        sizes_wanted(&view, "x", rank)
    }

    #[test]
    fn constants_beside_an_input_say_its_channels_and_features() {
        let conv = NodeProto { attribute: vec![edit::int_attribute("group", 2)], ..node("Conv", &["x", "w"], "p") };
        assert_eq!(of(vec![conv.clone()], &[("w", &[4, 3, 3, 3])], 4), [(1, 6)]);
        assert_eq!(of(vec![node("MatMul", &["x", "w"], "p")], &[("w", &[8, 5])], 3), [(2, 8)]);
        let gemm = NodeProto { attribute: vec![edit::int_attribute("transB", 1)], ..node("Gemm", &["x", "w"], "p") };
        assert_eq!(of(vec![gemm], &[("w", &[8, 5])], 2), [(1, 5)]);
        assert_eq!(of(vec![node("Sub", &["x", "m"], "p")], &[("m", &[3, 1, 1])], 4), [(1, 3)]);
        assert_eq!(of(vec![node("MatMul", &["w", "x"], "p")], &[("w", &[8, 5])], 2), []);
    }

    #[test]
    fn axes_are_followed_through_transposes_and_casts() {
        let perm =
            AttributeProto { name: Some("perm".into()), ints: vec![0, 3, 1, 2], kind: Some(7), ..Default::default() };
        let turn = NodeProto { attribute: vec![perm], ..node("Transpose", &["x"], "t") };
        let nodes = vec![turn, node("Div", &["t", "s"], "d"), node("Conv", &["d", "w"], "p")];
        assert_eq!(of(nodes, &[("s", &[1]), ("w", &[4, 3, 3, 3])], 4), [(3, 3)]);
    }
}
