//! Can the nodes of a graph run at all, each after those it waits for?

use super::proto::NodeProto;
use super::validate::{place_of, subgraphs};
use crate::error::{Result, bail};
use std::collections::{HashMap, HashSet};

/// Every node must be reachable without waiting for itself. Values that subgraphs capture count as inputs.
///
/// `producer` maps each value to the index of the node in `list` that makes it. The order in the file is
/// free: ONNX demands a sorted list, but ONNX Runtime takes any.
pub(super) fn check(list: &[NodeProto], producer: &HashMap<&str, usize>) -> Result<()> {
    if in_order(list, producer) {
        return Ok(());
    }
    let mut waiting: Vec<usize> = vec![0; list.len()];
    let mut consumers: Vec<Vec<usize>> = vec![Vec::new(); list.len()];
    for (index, node) in list.iter().enumerate() {
        for from in reads(node).into_iter().filter_map(|name| producer.get(name)) {
            consumers[*from].push(index);
            waiting[index] += 1;
        }
    }
    let mut ready: Vec<usize> = (0..list.len()).filter(|&i| waiting[i] == 0).collect();
    while let Some(index) = ready.pop() {
        for &next in &consumers[index] {
            waiting[next] -= 1;
            if waiting[next] == 0 {
                ready.push(next);
            }
        }
    }
    match (0..list.len()).find(|&i| waiting[i] > 0) {
        Some(index) => bail!(InvalidModel, "{}: takes part in a cycle", place_of(&list[index], index)),
        None => Ok(()),
    }
}

fn in_order(list: &[NodeProto], producer: &HashMap<&str, usize>) -> bool {
    let earlier = |index: usize, name: &str| producer.get(name).is_none_or(|&from| from < index);
    list.iter().enumerate().all(|(index, node)| reads(node).into_iter().all(|name| earlier(index, name)))
}

/// Names a node reads: its inputs, and what its subgraphs take from around them.
/// The values a node needs: its inputs, and what the graphs inside it take from around them.
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
