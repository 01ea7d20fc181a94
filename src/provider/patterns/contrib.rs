//! ONNX Runtime's own attention operators.

use super::Group;
use crate::provider::graph::{Graph, NodeId};

/// Returns the group of the attention operator `node`.
pub fn attention(_graph: &Graph<'_>, _node: NodeId) -> Option<Group> {
    None
}
