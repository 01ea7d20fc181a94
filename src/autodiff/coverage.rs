//! The search for nodes that prevent a gradient, before anything runs.

use super::registry;
use crate::onnx::proto::NodeProto;
use std::collections::HashSet;

/// A node between the parameters and the loss that has no rule.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Uncovered {
    /// Name of the node, or of its first output.
    pub name: String,
    /// Operator of the node, with its domain unless it is a standard one.
    pub op: String,
}

/// Returns the nodes without a rule on a path from one of `parameters` to one of `outputs`, in the order of `nodes`,
/// which must be topological. Paths end at operators through which no gradient flows, such as `Shape` and `ArgMax`.
pub fn uncovered(nodes: &[NodeProto], parameters: &[String], outputs: &[&str]) -> Vec<Uncovered> {
    let mut reached: HashSet<&str> = parameters.iter().map(String::as_str).collect();
    for node in nodes.iter().filter(|node| !registry::stops(node)) {
        if crate::graph::order::reads(node).iter().any(|i| reached.contains(i)) {
            reached.extend(node.output.iter().map(String::as_str));
        }
    }
    let mut leads: HashSet<&str> = outputs.iter().copied().collect();
    let mut found = Vec::new();
    for node in nodes.iter().rev() {
        if registry::stops(node) || !node.output.iter().any(|o| leads.contains(o.as_str())) {
            continue;
        }
        leads.extend(node.input.iter().map(String::as_str));
        if node.output.iter().any(|o| reached.contains(o.as_str())) && registry::rule(node).is_none() {
            found.push(Uncovered { name: node.label().to_owned(), op: node.operator() });
        }
    }
    found.reverse();
    found
}
