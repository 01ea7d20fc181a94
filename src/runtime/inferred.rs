//! Inference by ONNX Runtime of the shapes of selected values, and of the constants that follow from shapes.

use super::{Execution, OptimizationLevel, Runtime, Session, SessionOptions};
use crate::call::Call;
use crate::error::Result;
use crate::files::ScratchFolder;
use crate::graph::edit::{self, Names};
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{DimensionProto, GraphProto, ModelProto, TensorProto, ValueInfoProto};
use std::collections::HashSet;

/// Number of elements above which a floating-point weight becomes an input: no shapes are computed from such weights.
const WEIGHT: i64 = 64;

/// Session option that limits the size of folded constants: a mask of all pairs of positions of a long input would take
/// too much memory.
const FOLDED: (&str, &str) = ("optimization.constant_folding_max_output_size_in_bytes", "1048576");

/// Returns a model with the graph after ONNX Runtime's inference and constant folding, whose outputs are the values
/// `names`. The shapes of these values are inferred, and values that were folded are initializers under their own
/// names. float16, float32 and float64 weights of more than [`WEIGHT`] elements become inputs, so the model is not
/// meant to be run. Fails with `Io` if the temporary folder cannot be created, and like [`Session::new`] and
/// [`Model::from_file`].
pub fn inferred(runtime: &'static Runtime, mut proto: ModelProto, names: &[String]) -> Result<Model> {
    let mut own = Names::of(&proto);
    let (constant, folded) = (own.fresh("constant"), own.fresh("folded"));
    if let Some(graph) = proto.graph.as_deref_mut() {
        // The declared shapes might contradict the sizes that the inputs have been given.
        graph.value_info.clear();
        graph.output = names.iter().map(|name| edit::untyped(name)).collect();
        without_weights(graph);
        // If ONNX Runtime changes nothing in a graph, it writes the graph without inferred shapes; this node is added
        // so that it is folded.
        graph.initializer.push(edit::tensor(&constant, DataType::Int64, &[1], vec![0; 8].into()));
        graph.node.push(edit::node("Neg", &[&constant], &[&folded]));
    }
    let folder = ScratchFolder::new("inferred")?;
    let file = folder.path().join("model.onnx");
    let options = SessionOptions {
        threads: 1,
        optimization_level: OptimizationLevel::Basic,
        optimized_model: Some(file.clone()),
        execution: Execution { session_config: vec![(FOLDED.0.into(), FOLDED.1.into())], ..Execution::default() },
        ..SessionOptions::stock()
    };
    Session::new(runtime, &Model::from_proto(proto), &options, &Call::default())?;
    Model::from_file(&file)
}

/// Sets the dimensions of a declared value to fixed sizes. Dimensions beyond the declared rank are ignored.
pub fn resize(info: &mut ValueInfoProto, sizes: &[i64]) {
    let tensor = info.value_type.as_deref_mut().and_then(|t| t.tensor_type.as_deref_mut());
    if let Some(shape) = tensor.and_then(|t| t.shape.as_deref_mut()) {
        for (dim, size) in shape.dim.iter_mut().zip(sizes) {
            *dim = DimensionProto { dim_value: Some(*size), ..Default::default() };
        }
    }
}

/// Makes the large float weights of a graph inputs: nothing is folded with them, and the written graph is small.
fn without_weights(graph: &mut GraphProto) {
    let weight = |tensor: &mut TensorProto| {
        let float = tensor.dtype().is_some_and(DataType::is_float);
        float && tensor.name.is_some() && tensor.dims.iter().product::<i64>() > WEIGHT
    };
    let inputs: HashSet<String> = graph.input.iter().filter_map(|i| i.name.clone()).collect();
    for tensor in graph.initializer.extract_if(.., weight) {
        let dtype = tensor.dtype();
        let (Some(name), Some(dtype)) = (tensor.name, dtype) else {
            continue;
        };
        if !inputs.contains(&name) {
            let mut info = edit::value(&name, dtype, tensor.dims.len());
            resize(&mut info, &tensor.dims);
            graph.input.push(info);
        }
    }
}
