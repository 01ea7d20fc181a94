//! What a caller should know of a result that is not what was hoped for.

use super::planner::{LEFT, reasons};
use crate::graph::View;
use crate::model::Model;
use crate::report::NodeReport;

/// What stands in the way of a smaller result, to go behind a sentence that says so; empty if nothing was left.
pub fn why_left(nodes: &[NodeReport], static_type: bool) -> String {
    let left: Vec<NodeReport> = nodes.iter().filter(|node| node.action == LEFT).cloned().collect();
    if left.is_empty() {
        return String::new();
    }
    let convolutions = !static_type && left.iter().any(|node| node.op == "Conv");
    format!("; left are {}{}", reasons(&left), if convolutions { "; static quantization takes Conv too" } else { "" })
}

/// Optional inputs of the original that went with the constants that were their defaults.
pub fn gone(model: &Model, result: &Model) -> Option<String> {
    let (view, graph) = (View::new(model.proto()), model.graph());
    let kept = |name: &str| result.graph().input.iter().any(|input| input.name.as_deref() == Some(name));
    let defaults = graph.initializer.iter().filter_map(|tensor| tensor.name.as_deref());
    let names: Vec<&str> = defaults.filter(|name| view.is_optional_input(0, name) && !kept(name)).collect();
    match names.as_slice() {
        [] => None,
        [one] => Some(format!("the optional input {one:?} is gone: its default is part of the result")),
        [first, ..] => Some(format!(
            "{} optional inputs are gone, {first:?} the first: their defaults are part of the result",
            names.len()
        )),
    }
}
