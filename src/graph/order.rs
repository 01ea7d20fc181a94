//! The order of nodes, and the producers and consumers of each value, for one list of nodes.
//!
//! A [`View`](super::View) provides the same for all bodies of a model. This module is for code with a single graph, or
//! with nodes that are not part of a model yet.

use crate::error::Result;
pub(crate) use crate::onnx::order::{producers, reads, topological};
use crate::onnx::proto::NodeProto;
use std::collections::HashMap;

/// Returns the node that produces each value.
pub(crate) fn producer_nodes(nodes: &[NodeProto]) -> HashMap<&str, &NodeProto> {
    producers(nodes).into_iter().map(|(name, index)| (name, &nodes[index])).collect()
}

/// Returns the indices of the nodes that read each value, in order; a node that reads a value twice is listed twice.
pub(crate) fn consumers(nodes: &[NodeProto]) -> HashMap<&str, Vec<usize>> {
    let mut found: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        reads(node).into_iter().for_each(|name| found.entry(name).or_default().push(index));
    }
    found
}

/// Returns copies of `nodes` in a topological order. Fails like [`topological`].
pub(crate) fn sorted(nodes: &[NodeProto]) -> Result<Vec<NodeProto>> {
    Ok(topological(nodes)?.into_iter().map(|index| nodes[index].clone()).collect())
}

/// Returns for each node the number of nodes before it on the longest path to it. Fails like [`topological`].
pub(crate) fn depths(nodes: &[NodeProto]) -> Result<Vec<usize>> {
    let producer = producers(nodes);
    let mut depth = vec![0; nodes.len()];
    for index in topological(nodes)? {
        let before = reads(&nodes[index]).into_iter().filter_map(|name| producer.get(name));
        depth[index] = before.map(|from| depth[*from] + 1).max().unwrap_or(0);
    }
    Ok(depth)
}

/// Returns for each of `nodes` whether it computes one of the values `ends`, or contributes to one of them.
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
