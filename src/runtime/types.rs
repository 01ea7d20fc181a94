//! Types and shapes of the values of a graph, from ONNX Runtime's own inference.

use super::{OptimizationLevel, Runtime, Session, SessionOptions};
use crate::call::Call;
use crate::error::{Result, bail};
use crate::graph::edit;
use crate::graph::lower::{Type, Types};
use crate::model::{Dim, Model};
use crate::onnx::proto::ModelProto;
use std::collections::HashSet;

/// Returns the type of each initializer, input and result of a node of the main graph, by name. For this, it creates a
/// session of a copy of the model in which each result is an output, because a session reports the types of its
/// outputs. Fails like [`Session::new`].
pub fn infer_types(runtime: &'static Runtime, proto: &ModelProto, call: &Call) -> Result<Types> {
    let mut probe = proto.clone();
    let Some(graph) = probe.graph.as_deref_mut() else { bail!(InvalidModel, "the model has no graph") };
    let mut known = Types::new();
    for tensor in &graph.initializer {
        let dims = tensor.dims.iter().map(|d| Dim::Fixed(*d)).collect();
        let dtype = tensor.dtype();
        known.insert(tensor.name.clone().unwrap_or_default(), Type { dtype, dims: Some(dims) });
    }
    let model = Model::from_proto(proto.clone());
    known.extend(model.inputs().into_iter().map(|v| (v.name, Type { dtype: v.dtype, dims: v.shape })));
    let there: HashSet<String> = graph.output.iter().filter_map(|o| o.name.clone()).collect();
    let made = graph.node.iter().flat_map(|node| &node.output).filter(|o| !o.is_empty() && !there.contains(*o));
    let more: Vec<_> = made.map(|name| edit::untyped(name)).collect();
    graph.output.extend(more);
    let options = SessionOptions {
        threads: 1,
        optimization_level: OptimizationLevel::Disabled,
        disable_prepacking: true,
        ..SessionOptions::stock()
    };
    let session = Session::new(runtime, &Model::from_proto(probe), &options, call)?;
    for value in session.outputs() {
        known.insert(value.name.clone(), Type { dtype: value.dtype, dims: value.shape.clone() });
    }
    Ok(known)
}
