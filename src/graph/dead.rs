//! Elimination of unused nodes and initializers: no node reads their values, and they are not outputs.

use super::constants::Constant;
use super::order::{producers, reads};
use super::{BodyId, Use, View};
use crate::onnx::proto::{GraphProto, NodeProto};
use std::collections::{HashMap, HashSet};

/// The nodes and initializers that [`eliminate`] may remove if they are unused.
#[derive(Clone, Copy)]
pub enum Policy<'a> {
    /// All nodes and all initializers.
    All,
    /// Initializers with these names, and nodes of which all outputs have these names.
    Named(&'a HashSet<String>),
    /// All nodes, and the initializers with these names.
    NodesAnd(&'a HashSet<String>),
    /// All initializers, but no nodes.
    Initializers,
}

impl Policy<'_> {
    fn takes_node(&self, node: &NodeProto) -> bool {
        match self {
            Policy::All | Policy::NodesAnd(_) => true,
            Policy::Named(names) => named_outputs(node).all(|name| names.contains(name)),
            Policy::Initializers => false,
        }
    }

    fn takes_initializer(&self, name: &str) -> bool {
        match self {
            Policy::All | Policy::Initializers => true,
            Policy::Named(names) | Policy::NodesAnd(names) => names.contains(name),
        }
    }
}

fn named_outputs(node: &NodeProto) -> impl Iterator<Item = &String> {
    node.output.iter().filter(|name| !name.is_empty())
}

/// Returns the names of the values that nodes of a graph or of its subgraphs read, or that are outputs of the graph.
pub fn read_values(graph: &GraphProto) -> HashSet<String> {
    let outputs = graph.output.iter().filter_map(|o| o.name.clone());
    graph.node.iter().flat_map(reads).map(str::to_owned).chain(outputs).collect()
}

/// Removes the unused nodes and initializers that `policy` allows, also those that are unused only after others have
/// been removed. If an initializer is the default value of a graph input, the input is removed with it. A node without
/// outputs is kept for its side effect.
pub fn eliminate(graph: &mut GraphProto, policy: Policy<'_>) {
    let dead = dead_nodes(graph, policy);
    let mut flags = dead.into_iter();
    graph.node.retain(|_| !flags.next().unwrap_or(false));
    let read = read_values(graph);
    let gone = |name: &String| !read.contains(name) && policy.takes_initializer(name);
    let names: HashSet<String> = graph.initializer.iter().filter_map(|t| t.name.clone()).filter(gone).collect();
    graph.initializer.retain(|t| !t.name.as_ref().is_some_and(|name| names.contains(name)));
    graph.input.retain(|i| !i.name.as_ref().is_some_and(|name| names.contains(name)));
}

fn dead_nodes(graph: &GraphProto, policy: Policy<'_>) -> Vec<bool> {
    let producer = producers(&graph.node);
    let mut readers: HashMap<&str, usize> = HashMap::new();
    let outputs = graph.output.iter().filter_map(|o| o.name.as_deref());
    graph.node.iter().flat_map(reads).chain(outputs).for_each(|name| *readers.entry(name).or_default() += 1);
    let mut dead = vec![false; graph.node.len()];
    let mut todo: Vec<usize> = (0..graph.node.len()).collect();
    while let Some(index) = todo.pop() {
        let node = &graph.node[index];
        let unread = |name: &String| readers.get(name.as_str()).is_none_or(|count| *count == 0);
        let idle = named_outputs(node).next().is_some() && named_outputs(node).all(unread);
        if dead[index] || !idle || !policy.takes_node(node) {
            continue;
        }
        dead[index] = true;
        for name in reads(node) {
            readers.entry(name).and_modify(|count| *count -= 1);
            todo.extend(producer.get(name));
        }
    }
    dead
}

/// Returns the names of the values that would be unused if the node inputs `gone` (graph or function, node, index of
/// the input) were removed, by graph or function. Only `constants` are considered: their tensors, and the outputs of
/// the nodes between a tensor and its reader ([`Constant::chain`]).
pub fn unread_without<'c, 'm: 'c>(
    view: &View<'_>,
    gone: &HashSet<(BodyId, usize, usize)>,
    constants: impl Iterator<Item = &'c Constant<'m>> + Clone,
) -> HashMap<BodyId, HashSet<String>> {
    let mut dead: HashMap<BodyId, HashSet<String>> = HashMap::new();
    let mut dead_nodes: HashSet<(BodyId, usize)> = HashSet::new();
    // The nodes of a chain become unused one by one, from the last node to the first. If chains share nodes, an unused
    // node of one chain may make nodes of another chain unused, which the next iteration detects.
    loop {
        let before = dead_nodes.len() + dead.values().map(HashSet::len).sum::<usize>();
        let unread = |dead_nodes: &HashSet<(BodyId, usize)>, owner: BodyId, name: &str| {
            view.uses(owner, name).iter().all(|place| match *place {
                Use::Output { .. } => false,
                Use::Node { body, node, input } => {
                    gone.contains(&(body, node, input)) || dead_nodes.contains(&(body, node))
                }
            })
        };
        for constant in constants.clone() {
            for &(body, node) in &constant.chain {
                let outputs = &view.node(body, node).output;
                if outputs.iter().all(|output| unread(&dead_nodes, body, output)) {
                    dead_nodes.insert((body, node));
                    dead.entry(body).or_default().extend(outputs.iter().cloned());
                }
            }
            if unread(&dead_nodes, constant.owner, constant.name) {
                dead.entry(constant.owner).or_default().insert(constant.name.to_owned());
            }
        }
        if dead_nodes.len() + dead.values().map(HashSet::len).sum::<usize>() == before {
            return dead;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::edit::{float_tensor, node, untyped};

    /// Returns a graph of `y = x + a`. Two more nodes, which nothing reads, read `c`; nothing reads `d`.
    fn graph() -> GraphProto {
        GraphProto {
            node: vec![
                node("Add", &["x", "a"], &["y"]),
                node("Neg", &["c"], &["e"]),
                node("Neg", &["e"], &["f"]),
                node("Neg", &["x"], &["g", ""]),
            ],
            initializer: ["a", "c", "d"].map(|name| float_tensor(name, &[1], &[1.0])).to_vec(),
            input: ["x", "d"].map(untyped).to_vec(),
            output: vec![untyped("y")],
            ..Default::default()
        }
    }

    fn left(policy: Policy<'_>) -> String {
        let mut graph = graph();
        eliminate(&mut graph, policy);
        let nodes = graph.node.iter().map(|node| node.output[0].clone());
        let tensors = graph.initializer.iter().filter_map(|t| t.name.clone());
        let inputs = graph.input.iter().filter_map(|i| i.name.clone());
        [nodes.collect::<String>(), tensors.collect(), inputs.collect()].join(" ")
    }

    #[test]
    fn the_policy_says_what_may_go() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<HashSet<_>>();
        assert_eq!(left(Policy::All), "y a x");
        assert_eq!(left(Policy::Initializers), "yefg ac x");
        assert_eq!(left(Policy::Named(&names(&["c", "e", "f", "a"]))), "yg ad xd");
        assert_eq!(left(Policy::Named(&names(&["c", "e"]))), "yefg acd xd", "f stays, and reads what it reads");
        assert_eq!(left(Policy::NodesAnd(&names(&["c"]))), "y ad xd");
    }
}
