//! Replacement of weights by pruned weights.

use super::Outcome;
use super::targets::Target;
use crate::graph::BodyId;
use crate::graph::edit;
use crate::onnx::proto::{ModelProto, TensorProto, attribute_kind};
use bytes::Bytes;
use std::collections::HashMap;

/// Returns the tensor of a pruned weight, in which only the elements are new.
pub fn tensor(target: &Target<'_>, raw: Bytes) -> TensorProto {
    let matrix = &target.matrix;
    let name = target.tensor.name.clone();
    TensorProto { name, ..edit::tensor("", matrix.dtype(), &target.tensor.dims, raw) }
}

/// Replaces the initializers and the values of `Constant` nodes that were pruned.
pub fn replace(model: &mut ModelProto, targets: &[Target<'_>], outcomes: &[Outcome]) {
    let mut new: HashMap<(BodyId, String), TensorProto> = HashMap::new();
    for (target, outcome) in targets.iter().zip(outcomes) {
        if let Ok(pruned) = outcome {
            let doc_string = target.tensor.doc_string.clone();
            let tensor = TensorProto { doc_string, ..tensor(target, pruned.raw.clone()) };
            new.insert((target.owner, target.name.clone()), tensor);
        }
    }
    edit::for_each_body(model, &mut |body, content| {
        for tensor in content.initializers.into_iter().flatten() {
            if let Some(pruned) = tensor.name.clone().and_then(|name| new.remove(&(body, name))) {
                *tensor = pruned;
            }
        }
        for node in content.nodes.iter_mut().filter(|node| node.is("Constant")) {
            let Some(pruned) = node.output.first().and_then(|name| new.remove(&(body, name.clone()))) else {
                continue;
            };
            let value = node.attribute.iter_mut().find(|a| a.kind == Some(attribute_kind::TENSOR));
            if let Some(tensor) = value.and_then(|a| a.t.as_deref_mut()) {
                *tensor = pruned;
            }
        }
    });
}
