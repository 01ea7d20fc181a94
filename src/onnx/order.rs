//! The topological order of nodes, in which each node comes after those whose values it reads.
//!
//! ONNX requires this order in a file, but ONNX Runtime accepts any order, and so does this library.

use super::proto::NodeProto;
use super::validate::{place_of, subgraphs};
use crate::error::{Result, bail};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

/// Returns the names of the values that a node reads: its inputs, and the values of the enclosing graphs that its
/// subgraphs read. A name may occur several times.
pub(crate) fn reads(node: &NodeProto) -> Vec<&str> {
    let mut names: Vec<&str> = node.input.iter().map(String::as_str).filter(|n| !n.is_empty()).collect();
    for graph in subgraphs(node) {
        let sparse = graph.sparse_initializer.iter().filter_map(|s| s.values.as_deref());
        let own: HashSet<&str> = graph
            .input
            .iter()
            .filter_map(|i| i.name.as_deref())
            .chain(graph.initializer.iter().chain(sparse).filter_map(|t| t.name.as_deref()))
            .chain(graph.node.iter().flat_map(|n| n.output.iter().map(String::as_str)))
            .collect();
        let outputs = graph.output.iter().filter_map(|o| o.name.as_deref());
        names.extend(graph.node.iter().flat_map(reads).chain(outputs).filter(|name| !own.contains(name)));
    }
    names
}

/// Returns the index of the node that produces each value, by the name of the value.
pub(crate) fn producers(nodes: &[NodeProto]) -> HashMap<&str, usize> {
    let made = nodes.iter().enumerate().flat_map(|(index, node)| node.output.iter().map(move |name| (name, index)));
    made.filter(|(name, _)| !name.is_empty()).map(|(name, index)| (name.as_str(), index)).collect()
}

/// Returns the indices of `nodes` in a topological order. Among several nodes that could come next, the one that is
/// first in the list does, so a list in topological order stays unchanged.
///
/// Fails with [`crate::error::Kind::InvalidModel`] if there is a cycle, and names one of its nodes.
pub(crate) fn topological(nodes: &[NodeProto]) -> Result<Vec<usize>> {
    sort(nodes, &producers(nodes))
}

/// Returns the indices of `nodes` like [`topological`], and fails like it; `producer` is the result of [`producers`].
pub(super) fn sort(nodes: &[NodeProto], producer: &HashMap<&str, usize>) -> Result<Vec<usize>> {
    let earlier = |index: usize, name: &str| producer.get(name).is_none_or(|from| *from < index);
    if nodes.iter().enumerate().all(|(index, node)| reads(node).into_iter().all(|name| earlier(index, name))) {
        return Ok((0..nodes.len()).collect());
    }
    let mut waiting = vec![0usize; nodes.len()];
    let mut consumers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        for from in reads(node).into_iter().filter_map(|name| producer.get(name)) {
            consumers[*from].push(index);
            waiting[index] += 1;
        }
    }
    let mut ready: BinaryHeap<Reverse<usize>> = (0..nodes.len()).filter(|i| waiting[*i] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(index)) = ready.pop() {
        order.push(index);
        for &next in &consumers[index] {
            waiting[next] -= 1;
            if waiting[next] == 0 {
                ready.push(Reverse(next));
            }
        }
    }
    match (0..nodes.len()).find(|index| waiting[*index] > 0) {
        Some(index) => bail!(InvalidModel, "{}: the node is part of a cycle", place_of(&nodes[index], index)),
        None => Ok(order),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::edit::node;

    #[test]
    fn a_list_in_order_stays_and_another_is_sorted_by_what_is_ready_first() {
        let (a, b) = (node("Neg", &["x"], &["a"]), node("Neg", &["a"], &["b"]));
        let (c, d) = (node("Add", &["a", "b"], &["c"]), node("Neg", &["x"], &["d"]));
        assert_eq!(topological(&[a.clone(), b.clone(), c.clone(), d.clone()]).unwrap(), [0, 1, 2, 3]);
        assert_eq!(topological(&[c, d, b, a]).unwrap(), [1, 3, 2, 0]);
    }

    #[test]
    fn nodes_that_wait_for_one_another_are_an_error_that_names_one() {
        let error = topological(&[node("Neg", &["x"], &["y"]), node("Add", &["y", "z"], &["z"])]).unwrap_err();
        assert!(error.to_string().contains("node[1] Add"), "{error}");
    }
}
