//! Weights that a loop hands from iteration to iteration.
//!
//! Exporters of recurrent layers write a `Loop` or `Scan` whose state contains the weights: each is an initial value
//! of the state, a constant, and the body returns it unchanged. As the input of the body, a weight is not a constant of
//! the nodes that read it. [`hoisted`] makes these nodes read the constant itself, which subgraphs can see.

use super::dead::read_values;
use super::edit::node;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto};
use crate::onnx::validate::subgraphs;
use std::collections::HashSet;

/// Returns the model with loops whose bodies read constant weights directly; `None` if no loop hands on a weight.
/// Values that other nodes read keep their names.
pub fn hoisted(model: &ModelProto) -> Option<ModelProto> {
    let graph = model.graph.as_deref()?;
    let loops = |graph: &GraphProto| graph.node.iter().any(|node| state_of(node).is_some());
    if !any_graph(graph, &loops) {
        return None;
    }
    let mut model = model.clone();
    let mut changed = false;
    hoist(model.graph.as_deref_mut()?, &HashSet::new(), &mut changed);
    changed.then_some(model)
}

/// Returns whether a constant is a float matrix or a larger float tensor.
fn is_weight(tensor: &TensorProto) -> bool {
    let dtype = DataType::from_onnx(tensor.data_type.unwrap_or(0));
    let float = [DataType::Float32, DataType::Float16, DataType::Bfloat16, DataType::Float64];
    tensor.dims.len() >= 2 && dtype.is_some_and(|dtype| float.contains(&dtype))
}

/// Returns whether `wanted` is true for a graph or one of its subgraphs.
fn any_graph(graph: &GraphProto, wanted: &dyn Fn(&GraphProto) -> bool) -> bool {
    wanted(graph) || graph.node.iter().flat_map(subgraphs).any(|graph| any_graph(graph, wanted))
}

/// The state of a loop: the number of inputs of the body before its state, the difference between the index of a state
/// among the outputs of the body and of the node, and the number of values in the state.
struct State {
    before: usize,
    condition: usize,
    count: usize,
}

/// Returns the state of a `Loop` or `Scan`; `None` for other nodes and for one whose body has another number of inputs.
fn state_of(node: &NodeProto) -> Option<State> {
    let body = node.attribute("body")?.g.as_deref()?;
    if body.input.len() != node.input.len() {
        return None;
    }
    let state = match node.op() {
        "Loop" => State { before: 2, condition: 1, count: node.input.len().checked_sub(2)? },
        "Scan" => {
            let scanned = usize::try_from(node.int("num_scan_inputs", 0)).ok()?;
            State { before: 0, condition: 0, count: node.input.len().checked_sub(scanned)? }
        }
        _ => return None,
    };
    (state.condition + state.count <= body.output.len() && state.count <= node.output.len()).then_some(state)
}

/// Hoists the weights of all loops of a graph and of its subgraphs. `visible` are the constant weights of the enclosing
/// graphs.
fn hoist(graph: &mut GraphProto, visible: &HashSet<String>, changed: &mut bool) {
    let defined: HashSet<&str> = defined(graph).collect();
    let mut weights: HashSet<String> = visible.iter().filter(|n| !defined.contains(n.as_str())).cloned().collect();
    let given: HashSet<&str> = graph.input.iter().filter_map(|input| input.name.as_deref()).collect();
    let stored = graph.initializer.iter().filter_map(|t| Some((t.name.as_deref()?, t)));
    let constants = stored.chain(graph.node.iter().filter_map(NodeProto::constant));
    weights
        .extend(constants.filter(|(name, t)| is_weight(t) && !given.contains(name)).map(|(name, _)| name.to_owned()));
    let read = read_values(graph);
    let mut nodes = Vec::with_capacity(graph.node.len());
    for mut each in std::mem::take(&mut graph.node) {
        let mut copies = Vec::new();
        while let Some((index, weight)) = invariant(&each, &weights) {
            *changed = true;
            let output = remove(&mut each, index, &weight);
            if read.contains(&output) {
                copies.push(node("Identity", &[&weight], &[&output]));
            }
        }
        for attribute in &mut each.attribute {
            for body in attribute.g.iter_mut().map(|g| &mut **g).chain(&mut attribute.graphs) {
                hoist(body, &weights, changed);
            }
        }
        nodes.push(each);
        nodes.append(&mut copies);
    }
    graph.node = nodes;
}

/// Returns the names that a graph defines.
fn defined(graph: &GraphProto) -> impl Iterator<Item = &str> {
    let inputs = graph.input.iter().filter_map(|input| input.name.as_deref());
    let initializers = graph.initializer.iter().filter_map(|tensor| tensor.name.as_deref());
    inputs.chain(initializers).chain(graph.node.iter().flat_map(|node| node.output.iter().map(String::as_str)))
}

/// Returns the index in the state of a loop of a weight that the body returns unchanged, and the name of the weight;
/// `None` if there is none.
fn invariant(node: &NodeProto, weights: &HashSet<String>) -> Option<(usize, String)> {
    let state = state_of(node)?;
    let body = node.attribute("body")?.g.as_deref()?;
    // A node must keep an output.
    if node.output.len() < 2 {
        return None;
    }
    let name = |index: usize| body.output.get(index).and_then(|output| output.name.as_deref());
    (0..state.count).find_map(|index| {
        let weight = weights.get(node.input.get(state.before + index)?)?;
        let inside = body.input[state.before + index].name.as_deref()?;
        let returned = state.condition + index;
        let is_unchanged = source(body, name(returned)?) == inside;
        // An output of a graph must be a value of that graph.
        let only_here = (0..body.output.len()).all(|other| other == returned || name(other) != Some(inside));
        let hidden = any_graph(body, &|graph| defined(graph).any(|name| name == weight));
        (is_unchanged && only_here && !hidden).then(|| (index, weight.clone()))
    })
}

/// Returns the value that `name` is a copy of, through `Identity` nodes of `body`.
fn source<'b>(body: &'b GraphProto, name: &'b str) -> &'b str {
    let mut at = name;
    for _ in 0..body.node.len() {
        let producer = body.node.iter().find(|node| node.output.iter().any(|output| output == at));
        match producer.filter(|node| node.is("Identity")).and_then(|node| node.input_at(0)) {
            Some(input) => at = input,
            None => break,
        }
    }
    at
}

/// Removes the value `index` of the state of a loop, whose body reads `weight` instead, and returns the name of the
/// output that is gone; empty if the output had no name.
fn remove(node: &mut NodeProto, index: usize, weight: &str) -> String {
    let Some(state) = state_of(node) else { return String::new() };
    node.input.remove(state.before + index);
    let output = node.output.remove(index);
    let body = node.attribute.iter_mut().find(|attribute| attribute.name.as_deref() == Some("body"));
    if let Some(body) = body.and_then(|attribute| attribute.g.as_deref_mut()) {
        let inside = body.input.remove(state.before + index).name.unwrap_or_default();
        body.output.remove(state.condition + index);
        rename(body, &inside, weight);
        drop_unread_copies(body);
    }
    output
}

/// Removes the `Identity` nodes of a body whose outputs nothing reads: they would keep a weight that is replaced.
fn drop_unread_copies(body: &mut GraphProto) {
    loop {
        let (read, count) = (read_values(body), body.node.len());
        body.node.retain(|node| !node.is("Identity") || node.output.iter().any(|output| read.contains(output)));
        if body.node.len() == count {
            return;
        }
    }
}

/// Makes the nodes of a graph, and of its subgraphs that do not define `from`, read `to` in its place.
fn rename(graph: &mut GraphProto, from: &str, to: &str) {
    for node in &mut graph.node {
        node.input.iter_mut().filter(|input| *input == from).for_each(|input| *input = to.to_owned());
        for attribute in &mut node.attribute {
            for body in attribute.g.iter_mut().map(|g| &mut **g).chain(&mut attribute.graphs) {
                if !defined(body).any(|name| name == from) {
                    rename(body, from, to);
                    // The outputs of a branch must be values of that branch.
                    copy_outputs(body, from, to);
                }
            }
        }
    }
}

/// Adds a copy of `to` under the name `from` if that is an output of the graph.
fn copy_outputs(graph: &mut GraphProto, from: &str, to: &str) {
    if graph.output.iter().any(|output| output.name.as_deref() == Some(from)) {
        graph.node.push(node("Identity", &[to], &[from]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Call;
    use crate::graph::edit::graph_attribute;
    use crate::model::Model;
    use crate::runtime::testing::{graph, model, node as simple, value, weight};
    use crate::runtime::{Session, SessionOptions, Tensor, test_runtime};

    /// Returns `y = x w w w` by a loop of three iterations whose state is the product and `w`; with `changes`, the body
    /// returns another weight.
    fn looped(changes: bool) -> ModelProto {
        let mut body = vec![simple("Identity", &["go"], "go_on"), simple("MatMul", &["h", "v"], "h_next")];
        body.push(simple(if changes { "Neg" } else { "Identity" }, &["v"], "v_next"));
        let state = |product: &str, w: &str| vec![value(product, 1, &["n", "8"]), value(w, 1, &["8", "8"])];
        let (mut inputs, mut outputs) = (vec![value("i", 7, &[]), value("go", 9, &[])], vec![value("go_on", 9, &[])]);
        inputs.extend(state("h", "v"));
        outputs.extend(state("h_next", "v_next"));
        let mut each = node("Loop", &["trips", "", "x", "w"], &["p", "w_last"]);
        each.attribute = vec![graph_attribute("body", graph(body, inputs, outputs))];
        let nodes = vec![each, simple("MatMul", &["p", "w_last"], "y")];
        let mut graph = graph(nodes, vec![value("x", 1, &["n", "8"])], vec![value("y", 1, &["n", "8"])]);
        let values: Vec<f32> = (0..64).map(|i| (i as f32 * 0.7).sin() * 0.5).collect();
        let trips = crate::graph::edit::tensor("trips", DataType::Int64, &[], 3i64.to_le_bytes().to_vec().into());
        graph.initializer = vec![weight("w", &[8, 8], &values), trips];
        model(graph)
    }

    fn run(model: &ModelProto) -> Vec<f32> {
        let x = Tensor::from_f32(&[2, 8], (0..16).map(|i| i as f32 / 8.0 - 1.0).collect()).unwrap();
        let model = Model::from_proto(model.clone());
        let session = Session::new(test_runtime(), &model, &SessionOptions::default(), &Call::default()).unwrap();
        session.run(&[("x", &x)], &[], &Call::default()).unwrap()[0].1.to_f32_vec().unwrap()
    }

    #[test]
    fn a_weight_that_a_loop_hands_on_is_read_directly() {
        let original = looped(false);
        let changed = hoisted(&original).unwrap();
        let graph = changed.graph.as_deref().unwrap();
        assert_eq!(
            (&graph.node[0].input[2..], &graph.node[0].output[..]),
            (&["x".to_owned()][..], &["p".to_owned()][..])
        );
        let body = graph.node[0].attribute("body").unwrap().g.as_deref().unwrap();
        assert_eq!((body.input.len(), body.output.len(), body.node[1].input[1].as_str()), (3, 2, "w"));
        // The copy of the weight that the body returned is gone, so that nothing else reads the weight.
        assert_eq!(body.node.len(), 2);
        // The value after the loop, which another node reads, is a copy.
        assert_eq!(graph.node[1].op(), "Identity");
        assert_eq!(run(&changed), run(&original));
        assert!(hoisted(&changed).is_none());
    }

    #[test]
    fn a_state_that_changes_stays() {
        assert!(hoisted(&looped(true)).is_none());
        // A caller may give an optional input another value.
        let mut optional = looped(false);
        optional.graph.as_deref_mut().unwrap().input.push(value("w", 1, &["8", "8"]));
        assert!(hoisted(&optional).is_none());
        // The body has a value of the same name.
        let mut hidden = looped(false);
        let node = &mut hidden.graph.as_deref_mut().unwrap().node[0];
        node.attribute[0].g.as_deref_mut().unwrap().node.push(simple("Relu", &["h"], "w"));
        assert!(hoisted(&hidden).is_none());
    }
}
