//! Small models for tests.

use crate::onnx::dtype::DataType;
use crate::onnx::proto::*;
use bytes::Bytes;

/// Returns a node without attributes.
pub fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        op_type: Some(op.to_owned()),
        ..Default::default()
    }
}

fn tensor_type(dtype: i32, dims: &[&str]) -> TypeProto {
    let dim = |name: &&str| match name.parse() {
        Ok(size) => DimensionProto { dim_value: Some(size), ..Default::default() },
        Err(_) => DimensionProto { dim_param: Some((*name).to_owned()), ..Default::default() },
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect(), ..Default::default() };
    let tensor = TensorTypeProto { elem_type: Some(dtype), shape: Some(Box::new(shape)), ..Default::default() };
    TypeProto { tensor_type: Some(Box::new(tensor)), ..Default::default() }
}

/// Returns the declaration of a tensor as input or output: numbers in `dims` are fixed sizes, all other texts are
/// symbols.
pub fn value(name: &str, dtype: i32, dims: &[&str]) -> ValueInfoProto {
    let value_type = Some(Box::new(tensor_type(dtype, dims)));
    ValueInfoProto { name: Some(name.to_owned()), value_type, ..Default::default() }
}

/// Returns the declaration of a sequence of tensors as output.
pub fn sequence(name: &str, dtype: i32) -> ValueInfoProto {
    let element = ElementTypeProto { elem_type: Some(Box::new(tensor_type(dtype, &["n"]))), ..Default::default() };
    let kind = TypeProto { sequence_type: Some(Box::new(element)), ..Default::default() };
    ValueInfoProto { name: Some(name.to_owned()), value_type: Some(Box::new(kind)), ..Default::default() }
}

/// Returns a float32 initializer.
pub fn weight(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: Some(DataType::Float32.to_onnx()),
        name: Some(name.to_owned()),
        raw_data: Some(Bytes::from(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())),
        ..Default::default()
    }
}

/// Returns a graph without initializers.
pub fn graph(node: Vec<NodeProto>, input: Vec<ValueInfoProto>, output: Vec<ValueInfoProto>) -> GraphProto {
    GraphProto { node, name: Some("test".to_owned()), input, output, ..Default::default() }
}

/// Returns a model of opset 17.
pub fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { version: Some(17), ..Default::default() }],
        graph: Some(Box::new(graph)),
        ..Default::default()
    }
}
