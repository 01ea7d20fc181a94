//! Functions that build small models, each for the test of one rule.

use optimize::graph::edit::{float_tensor, node};
use optimize::model::Model;
use optimize::onnx::dtype::DataType;
use optimize::onnx::proto::*;

/// Returns a value of a type and shape; -1 is an open size.
pub fn value(name: &str, dtype: DataType, dims: &[i64]) -> ValueInfoProto {
    let dim = |size: &i64| DimensionProto {
        dim_value: (*size >= 0).then_some(*size),
        dim_param: (*size < 0).then(|| "n".to_owned()),
        ..Default::default()
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect(), ..Default::default() };
    let tensor =
        TensorTypeProto { elem_type: Some(dtype.to_onnx()), shape: Some(Box::new(shape)), ..Default::default() };
    let value_type = TypeProto { tensor_type: Some(Box::new(tensor)), ..Default::default() };
    ValueInfoProto { name: Some(name.into()), value_type: Some(Box::new(value_type)), ..Default::default() }
}

/// Returns a float32 weight of smooth, reproducible values.
pub fn weight(name: &str, dims: &[i64]) -> TensorProto {
    float_tensor(name, dims, &smooth(dims.iter().product::<i64>() as usize, name.len() as f32))
}

/// Returns reproducible values in (-1, 1) without a pattern that would favour quantization.
pub fn smooth(count: usize, seed: f32) -> Vec<f32> {
    (0..count).map(|i| ((i as f32 * 12.9898 + seed).sin() * 43_758.547).fract()).collect()
}

/// Returns a node with integer attributes.
pub fn op(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, i64)]) -> NodeProto {
    let mut made = node(op, inputs, outputs);
    made.attribute =
        attributes.iter().map(|(name, value)| optimize::graph::edit::int_attribute(name, *value)).collect();
    made
}

/// Returns a node with an attribute that is a graph.
pub fn with_graph(mut node: NodeProto, name: &str, graph: GraphProto) -> NodeProto {
    node.attribute.push(AttributeProto {
        name: Some(name.into()),
        kind: Some(attribute_kind::GRAPH),
        g: Some(Box::new(graph)),
        ..Default::default()
    });
    node
}

/// Returns a `Constant` node.
pub fn constant(tensor: TensorProto) -> NodeProto {
    let mut made = node("Constant", &[], &[tensor.name.as_deref().unwrap()]);
    made.attribute.push(AttributeProto {
        name: Some("value".into()),
        kind: Some(attribute_kind::TENSOR),
        t: Some(Box::new(tensor)),
        ..Default::default()
    });
    made
}

/// Returns a model of one graph.
pub fn model(
    opset: i64,
    inputs: Vec<ValueInfoProto>,
    outputs: Vec<ValueInfoProto>,
    initializer: Vec<TensorProto>,
    node: Vec<NodeProto>,
) -> Model {
    let name = Some("test".to_owned());
    let graph = GraphProto { name, node, initializer, input: inputs, output: outputs, ..Default::default() };
    Model::from_proto(model_of(opset, graph))
}

/// Returns the message of a model around a graph.
pub fn model_of(opset: i64, graph: GraphProto) -> ModelProto {
    let import = OperatorSetIdProto { domain: Some(String::new()), version: Some(opset), ..Default::default() };
    ModelProto { ir_version: Some(8), opset_import: vec![import], graph: Some(Box::new(graph)), ..Default::default() }
}
