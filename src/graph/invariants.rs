//! Weights that a loop hands from iteration to iteration.
//!
//! Exporters of recurrent layers write a `Loop` or `Scan` whose state contains the weights: each is an initial value
//! of the state, a constant, and the body returns it unchanged. As the input of the body, a weight is not a constant of
//! the nodes that read it. [`hoisted`] makes these nodes read the constant itself, which subgraphs can see. The state
//! of a nested loop, and of a loop that takes the weight from the outputs of another one, is treated alike.

use super::dead::read_values;
use super::edit::node;
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto};
use crate::onnx::validate::{all_nodes, subgraphs};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Returns the model with loops whose bodies read constant weights directly: the model itself if no loop hands on a
/// weight. Values that other nodes read keep their names.
pub fn hoisted(model: &Model) -> Cow<'_, Model> {
    hoisted_graph(model.proto()).map_or(Cow::Borrowed(model), |proto| Cow::Owned(model.derive(proto)))
}

/// Returns the model of [`hoisted`]; `None` if no loop hands on a weight.
fn hoisted_graph(model: &ModelProto) -> Option<ModelProto> {
    let graph = model.graph.as_deref()?;
    if !all_nodes(&graph.node).any(|node| state_of(node).is_some()) {
        return None;
    }
    let mut model = model.clone();
    let mut changed = false;
    hoist(model.graph.as_deref_mut()?, &HashMap::new(), &mut changed);
    changed.then_some(model)
}

/// Returns whether a constant is a float matrix or a larger float tensor.
fn is_weight(tensor: &TensorProto) -> bool {
    let dtype = tensor.dtype();
    tensor.dims.len() >= 2 && dtype.is_some_and(DataType::is_float)
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
/// graphs: their names and those of their copies, with the name of the weight.
fn hoist(graph: &mut GraphProto, visible: &HashMap<String, String>, changed: &mut bool) {
    let hidden: HashSet<&str> = defined(graph).collect();
    let seen = visible.iter().filter(|(name, of)| !hidden.contains(name.as_str()) && !hidden.contains(of.as_str()));
    let mut weights: HashMap<String, String> = seen.map(|(name, of)| (name.clone(), of.clone())).collect();
    let given: HashSet<&str> = graph.input.iter().filter_map(|input| input.name.as_deref()).collect();
    let stored = graph.initializer.iter().filter_map(|t| Some((t.name.as_deref()?, t)));
    let constants = stored.chain(graph.node.iter().filter_map(NodeProto::constant));
    let constants = constants.filter(|(name, t)| is_weight(t) && !given.contains(name));
    weights.extend(constants.map(|(name, _)| (name.to_owned(), name.to_owned())));
    let read = read_values(graph);
    let (mut nodes, mut copied_to) = (Vec::with_capacity(graph.node.len()), HashSet::new());
    for mut each in std::mem::take(&mut graph.node) {
        let mut copies = Vec::new();
        while let Some((index, weight)) = invariant(&each, &weights) {
            *changed = true;
            let output = remove(&mut each, index, &weight);
            if read.contains(&output) {
                copies.push(node("Identity", &[&weight], &[&output]));
                copied_to.insert(output.clone());
                weights.insert(output, weight);
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
    drop_unread_copies(graph, copied_to);
}

/// Returns the names that a graph defines.
fn defined(graph: &GraphProto) -> impl Iterator<Item = &str> {
    let inputs = graph.input.iter().filter_map(|input| input.name.as_deref());
    let initializers = graph.initializer.iter().filter_map(|tensor| tensor.name.as_deref());
    inputs.chain(initializers).chain(graph.node.iter().flat_map(|node| node.output.iter().map(String::as_str)))
}

/// Returns the index in the state of a loop of a weight that the body returns unchanged, and the name of the weight;
/// `None` if there is none.
fn invariant(node: &NodeProto, weights: &HashMap<String, String>) -> Option<(usize, String)> {
    let state = state_of(node)?;
    let body = node.attribute("body")?.g.as_deref()?;
    // A node must keep an output.
    if node.output.len() < 2 {
        return None;
    }
    let name = |index: usize| body.output.get(index).and_then(|output| output.name.as_deref());
    (0..state.count).find_map(|index| {
        let weight = weights.get(node.input.get(state.before + index)?)?;
        let (inside, returned) = (body.input[state.before + index].name.as_deref()?, state.condition + index);
        // Another output with this name would become the weight of the enclosing graph, but an output must be a value
        // of its own graph.
        let only_here = (0..body.output.len()).all(|other| other == returned || name(other) != Some(inside));
        let mut graphs = std::iter::once(body).chain(all_nodes(&body.node).flat_map(subgraphs));
        let hidden = graphs.any(|graph| defined(graph).any(|name| name == weight));
        (is_kept(body, &state, index) && only_here && !hidden).then(|| (index, weight.clone()))
    })
}

/// Returns whether the body of a loop returns the value `index` of its state unchanged.
fn is_kept(body: &GraphProto, state: &State, index: usize) -> bool {
    let given = body.input.get(state.before + index).and_then(|input| input.name.as_deref());
    let returned = body.output.get(state.condition + index).and_then(|output| output.name.as_deref());
    returned.is_some_and(|returned| Some(source(body, returned)) == given)
}

/// Returns the value that `name` is a copy of, through `Identity` nodes of `body` and loops that keep it.
fn source<'b>(body: &'b GraphProto, name: &'b str) -> &'b str {
    let mut at = name;
    for _ in 0..body.node.len() {
        let place = |node: &NodeProto| node.output.iter().position(|output| output == at);
        let producer = body.node.iter().find_map(|node| Some((node, place(node)?)));
        match producer.and_then(|(node, output)| copied(node, output)) {
            Some(input) => at = input,
            None => break,
        }
    }
    at
}

/// Returns the input that an output of a node is a copy of.
fn copied(node: &NodeProto, output: usize) -> Option<&str> {
    if node.is("Identity") {
        return node.input_at(0);
    }
    let state = state_of(node)?;
    let kept = output < state.count && is_kept(node.attribute("body")?.g.as_deref()?, &state, output);
    node.input_at(state.before + output).filter(|_| kept)
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
        let returned = body.output.remove(state.condition + index).name;
        rename(body, &inside, weight);
        drop_unread_copies(body, returned.into_iter().collect());
    }
    output
}

/// Removes the `Identity` nodes whose outputs are in `copies`, unless something reads them, and then those that they
/// copied: they would keep a weight that is replaced. Other unread nodes stay.
fn drop_unread_copies(body: &mut GraphProto, mut copies: HashSet<String>) {
    while !copies.is_empty() {
        let read = read_values(body);
        let mut behind = HashSet::new();
        body.node.retain(|node| {
            let is_copy = node.is("Identity") && node.output.iter().any(|output| copies.contains(output));
            let stays = !is_copy || node.output.iter().any(|output| read.contains(output));
            if !stays {
                behind.extend(node.input.iter().cloned());
            }
            stays
        });
        copies = behind;
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
    use crate::runtime::testing::{graph, model, node as simple, value, weight};
    use crate::runtime::{Session, SessionOptions, Tensor, test_runtime};

    /// Returns a loop of three iterations from the values `[h, v]` to `[h_next, v_next]`. Its body has the names with
    /// `prefix`, and the nodes that `steps` returns for them.
    fn each(prefix: &str, ends: [&str; 4], steps: impl Fn([&str; 4]) -> Vec<NodeProto>) -> NodeProto {
        let named = |name: &str| format!("{prefix}{name}");
        let names = ["h", "v", "h_next", "v_next"].map(named);
        let (i, go, on) = (named("i"), named("go"), named("go_on"));
        let mut body = vec![simple("Identity", &[&go], &on)];
        body.extend(steps([&names[0], &names[1], &names[2], &names[3]]));
        let state = |h: &str, v: &str| vec![value(h, 1, &["n", "8"]), value(v, 1, &["8", "8"])];
        let (mut inputs, mut outputs) = (vec![value(&i, 7, &[]), value(&go, 9, &[])], vec![value(&on, 9, &[])]);
        inputs.extend(state(&names[0], &names[1]));
        outputs.extend(state(&names[2], &names[3]));
        let mut each = node("Loop", &["trips", "", ends[0], ends[1]], &[ends[2], ends[3]]);
        each.attribute = vec![graph_attribute("body", graph(body, inputs, outputs))];
        each
    }

    /// Returns a model with the input `x`, the output `y` and the weight `w`.
    fn with(nodes: Vec<NodeProto>) -> ModelProto {
        let mut graph = graph(nodes, vec![value("x", 1, &["n", "8"])], vec![value("y", 1, &["n", "8"])]);
        let values: Vec<f32> = (0..64).map(|i| (i as f32 * 0.7).sin() * 0.5).collect();
        let trips = crate::graph::edit::tensor("trips", DataType::Int64, &[], 3i64.to_le_bytes().to_vec().into());
        graph.initializer = vec![weight("w", &[8, 8], &values), trips];
        model(graph)
    }

    fn product([h, v, h_next, v_next]: [&str; 4]) -> Vec<NodeProto> {
        vec![simple("MatMul", &[h, v], h_next), simple("Identity", &[v], v_next)]
    }

    /// Returns `y = x w w w w` by a loop whose state is the product and `w`; with `changes`, the body returns another
    /// weight.
    fn looped(changes: bool) -> ModelProto {
        let steps = |[h, v, h_next, v_next]: [&str; 4]| {
            let next = if changes { "Neg" } else { "Identity" };
            vec![simple("MatMul", &[h, v], h_next), simple(next, &[v], v_next)]
        };
        with(vec![each("", ["x", "w", "p", "w_last"], steps), simple("MatMul", &["p", "w_last"], "y")])
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
        let changed = hoisted_graph(&original).unwrap();
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
        assert!(hoisted_graph(&changed).is_none());
    }

    #[test]
    fn only_the_copies_of_a_weight_that_is_read_directly_are_removed() {
        let kept = |[h, v, h_next, v_next]: [&str; 4]| {
            let mut steps = product([h, v, h_next, "copy"]);
            steps.extend([simple("Identity", &["copy"], v_next), simple("Identity", &[h], "unread_inside")]);
            steps
        };
        let other = |[h, v, h_next, v_next]: [&str; 4]| {
            let sum = simple("Add", &[v, v], v_next);
            vec![simple("MatMul", &[h, v], h_next), simple("Identity", &[v], "unread_in_another"), sum]
        };
        let original = with(vec![
            each("a", ["x", "w", "p", "w_last"], kept),
            each("b", ["p", "w", "y", "w_end"], other),
            simple("Identity", &["x"], "unread"),
        ]);
        let changed = hoisted_graph(&original).unwrap();
        let graph = changed.graph.as_deref().unwrap();
        assert_eq!(loops(graph), (1, 1));
        let copies = |nodes: &[NodeProto]| -> Vec<String> {
            nodes.iter().filter(|node| node.op() == "Identity").map(|node| node.output[0].clone()).collect()
        };
        let inside: Vec<_> = graph.node.iter().flat_map(subgraphs).map(|body| copies(&body.node)).collect();
        assert_eq!(inside, [vec!["ago_on", "unread_inside"], vec!["bgo_on", "unread_in_another"]]);
        assert_eq!(copies(&graph.node), ["unread"]);
        assert_eq!(run(&changed), run(&original));
    }

    #[test]
    fn a_state_that_changes_stays() {
        assert!(hoisted_graph(&looped(true)).is_none());
        // A caller may give an optional input another value.
        let mut optional = looped(false);
        optional.graph.as_deref_mut().unwrap().input.push(value("w", 1, &["8", "8"]));
        assert!(hoisted_graph(&optional).is_none());
        // The body has a value of the same name.
        let mut hidden = looped(false);
        let node = &mut hidden.graph.as_deref_mut().unwrap().node[0];
        node.attribute[0].g.as_deref_mut().unwrap().node.push(simple("Relu", &["h"], "w"));
        assert!(hoisted_graph(&hidden).is_none());
    }

    /// Returns the number of loops with a state of one value, and of those with a larger one.
    fn loops(graph: &GraphProto) -> (usize, usize) {
        let nested = graph.node.iter().flat_map(subgraphs).map(loops);
        let own = graph.node.iter().filter(|node| node.op() == "Loop");
        let own = own.map(|node| if node.output.len() == 1 { (1, 0) } else { (0, 1) });
        own.chain(nested).fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1))
    }

    #[test]
    fn a_weight_goes_through_loops_in_a_row_and_in_each_other() {
        let row = with(vec![
            each("a", ["x", "w", "p", "w_last"], product),
            each("b", ["p", "w_last", "y", "w_end"], product),
        ]);
        let inner = |names: [&str; 4]| vec![each("b", names, product)];
        let nested = with(vec![each("a", ["x", "w", "y", "w_last"], inner)]);
        for original in [row, nested] {
            let changed = hoisted_graph(&original).unwrap();
            let graph = changed.graph.as_deref().unwrap();
            assert_eq!(loops(graph), (2, 0));
            assert!(graph.node.iter().all(|node| node.op() == "Loop"), "copies that nothing reads are removed");
            assert_eq!(run(&changed), run(&original));
        }
        // The inner loop changes the weight, and the outer one hands the changed weight on.
        let negated =
            |[h, v, h_next, v_next]: [&str; 4]| vec![simple("MatMul", &[h, v], h_next), simple("Neg", &[v], v_next)];
        let outer = |names: [&str; 4]| vec![each("b", names, negated)];
        assert!(hoisted_graph(&with(vec![each("a", ["x", "w", "y", "w_last"], outer)])).is_none());
    }
}
