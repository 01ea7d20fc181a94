//! Values whose rank shape inference does not determine. TensorRT's parser fails on a node that reads such a value, and
//! its message does not name the node that outputs the value.

use crate::error::{Error, Kind};
use crate::model::Model;
use crate::onnx::validate::subgraphs;
use crate::runtime::{Runtime, inferred};

/// Returns a parser error of kind `Unsupported` with a message that also names the nodes with subgraphs (`If`, `Loop`)
/// whose outputs have no rank until they run. Returns other errors unchanged, and all errors without a `runtime`.
pub(super) fn explained(runtime: Option<&'static Runtime>, model: &Model, error: Error) -> Error {
    let (Kind::Unsupported, Some(runtime)) = (error.kind(), runtime) else { return error };
    let nodes: Vec<_> = model.graph().node.iter().filter(|node| subgraphs(node).next().is_some()).collect();
    let names: Vec<String> = nodes.iter().flat_map(|node| &node.output).filter(|o| !o.is_empty()).cloned().collect();
    if names.is_empty() {
        return error;
    }
    let Ok(found) = inferred(runtime, model.proto().clone(), &names) else { return error };
    let unranked =
        |name: &String| found.outputs().iter().any(|o| o.name == *name && o.dtype.is_some() && o.shape.is_none());
    let lost: Vec<String> = nodes
        .iter()
        .filter_map(|node| {
            let output = node.output.iter().find(|name| unranked(name))?;
            Some(format!("{} {:?} gives {output:?}", node.op(), node.label()))
        })
        .collect();
    if lost.is_empty() {
        return error;
    }
    let text = format!(
        "TensorRT needs the rank of every value, which shape inference does not determine: {} (its branches or \
         iterations differ). The parser reports: {}",
        lost.join(", "),
        error.message()
    );
    Error::new(Kind::Unsupported, text)
}
