//! The order of nodes, and who makes and who reads each value of one list of nodes.
//!
//! A [`View`](super::View) tells the same of all bodies of a model; what is here serves code that has one graph, or a
//! list of nodes that is no model yet.

use crate::error::Result;
pub(crate) use crate::onnx::order::{producers, reads, topological};
use crate::onnx::proto::NodeProto;
use std::collections::HashMap;

/// Returns for each value that one of `nodes` makes that node.
pub(crate) fn producer_nodes(nodes: &[NodeProto]) -> HashMap<&str, &NodeProto> {
    producers(nodes).into_iter().map(|(name, index)| (name, &nodes[index])).collect()
}

/// Returns for each value the indexes of the nodes that read it, in order; a node that reads it twice counts twice.
pub(crate) fn consumers(nodes: &[NodeProto]) -> HashMap<&str, Vec<usize>> {
    let mut found: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        reads(node).into_iter().for_each(|name| found.entry(name).or_default().push(index));
    }
    found
}

/// Returns copies of `nodes` in a topological order. Fails as [`topological`].
pub(crate) fn sorted(nodes: &[NodeProto]) -> Result<Vec<NodeProto>> {
    Ok(topological(nodes)?.into_iter().map(|index| nodes[index].clone()).collect())
}

/// Returns for each node the length of the longest path to it: the order in which layers run. Fails as [`topological`].
pub(crate) fn depths(nodes: &[NodeProto]) -> Result<Vec<usize>> {
    let producer = producers(nodes);
    let mut depth = vec![0; nodes.len()];
    for index in topological(nodes)? {
        let before = reads(&nodes[index]).into_iter().filter_map(|name| producer.get(name));
        depth[index] = before.map(|from| depth[*from] + 1).max().unwrap_or(0);
    }
    Ok(depth)
}

/// Returns which of `nodes` lead to one of the values `ends`.
pub(crate) fn leading_to<'n>(nodes: &'n [NodeProto], ends: impl IntoIterator<Item = &'n str>) -> Vec<bool> {
    let producer = producers(nodes);
    let mut found = vec![false; nodes.len()];
    let mut todo: Vec<usize> = ends.into_iter().filter_map(|name| producer.get(name).copied()).collect();
    while let Some(index) = todo.pop() {
        if !std::mem::replace(&mut found[index], true) {
            todo.extend(reads(&nodes[index]).into_iter().filter_map(|name| producer.get(name)));
        }
    }
    found
}
