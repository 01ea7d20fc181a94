//! The messages of `onnx.proto` (IR version 14) that the library reads or changes.
//!
//! Field numbers and meanings are those of <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>. Other fields
//! (device configurations, annotations, additions of later versions) are kept in `unknown` and written back byte for
//! byte. Scalars are `Option`, so that presence is preserved as well.
#![allow(missing_docs)] // fields are documented in onnx.proto under the same names

use super::fields::{Packed, message};
use bytes::Bytes;

message! {
    /// The message of a whole model: one graph, its operator sets, functions and metadata.
    ModelProto {
        1 => ir_version: Option<i64>,
        2 => producer_name: Option<String>,
        3 => producer_version: Option<String>,
        4 => domain: Option<String>,
        5 => model_version: Option<i64>,
        6 => doc_string: Option<Bytes>,
        7 => graph: Option<Box<GraphProto>>,
        8 => opset_import: Vec<OperatorSetIdProto>,
        14 => metadata_props: Vec<StringStringEntryProto>,
        20 => training_info: Vec<TrainingInfoProto>,
        25 => functions: Vec<FunctionProto>,
    }

    /// The graphs of the retired training extension. They are preserved, and their tensors are checked like all others.
    TrainingInfoProto {
        1 => initialization: Option<Box<GraphProto>>,
        2 => algorithm: Option<Box<GraphProto>>,
    }

    /// An operator set that the model uses: its domain (empty for `ai.onnx`) and version.
    OperatorSetIdProto {
        1 => domain: Option<String>,
        2 => version: Option<i64>,
    }

    /// A key and a value of metadata, or of an external-data location.
    StringStringEntryProto {
        1 => key: Option<String>,
        2 => value: Option<Bytes>,
    }

    /// The nodes of a graph with the values that they need.
    GraphProto {
        1 => node: Vec<NodeProto>,
        2 => name: Option<String>,
        5 => initializer: Vec<TensorProto>,
        10 => doc_string: Option<Bytes>,
        11 => input: Vec<ValueInfoProto>,
        12 => output: Vec<ValueInfoProto>,
        13 => value_info: Vec<ValueInfoProto>,
        15 => sparse_initializer: Vec<SparseTensorProto>,
        16 => metadata_props: Vec<StringStringEntryProto>,
    }

    /// An operator applied to named values.
    NodeProto {
        1 => input: Vec<String>,
        2 => output: Vec<String>,
        3 => name: Option<String>,
        4 => op_type: Option<String>,
        5 => attribute: Vec<AttributeProto>,
        6 => doc_string: Option<Bytes>,
        7 => domain: Option<String>,
        8 => overload: Option<String>,
        9 => metadata_props: Vec<StringStringEntryProto>,
    }

    /// A named constant of a node; `kind` says which of the fields holds it.
    AttributeProto {
        1 => name: Option<String>,
        2 => f: Option<f32>,
        3 => i: Option<i64>,
        4 => s: Option<Bytes>,
        5 => t: Option<Box<TensorProto>>,
        6 => g: Option<Box<GraphProto>>,
        7 => floats: Vec<f32>,
        8 => ints: Vec<i64>,
        9 => strings: Vec<Bytes>,
        10 => tensors: Vec<TensorProto>,
        11 => graphs: Vec<GraphProto>,
        13 => doc_string: Option<Bytes>,
        20 => kind: Option<i32>,
        21 => ref_attr_name: Option<String>,
        22 => sparse_tensor: Option<Box<SparseTensorProto>>,
        23 => sparse_tensors: Vec<SparseTensorProto>,
    }

    /// The name, type and shape of a value.
    ValueInfoProto {
        1 => name: Option<String>,
        2 => value_type: Option<Box<TypeProto>>,
        3 => doc_string: Option<Bytes>,
    }

    /// A constant tensor. After loading its elements are always inside the message: external data is
    /// replaced by a slice of the mapped file in `raw_data`.
    TensorProto {
        1 => dims: Vec<i64>,
        2 => data_type: Option<i32>,
        4 => float_data: Packed<f32>,
        5 => int32_data: Packed<i32>,
        6 => string_data: Vec<Bytes>,
        7 => int64_data: Packed<i64>,
        8 => name: Option<String>,
        9 => raw_data: Option<Bytes>,
        10 => double_data: Packed<f64>,
        11 => uint64_data: Packed<u64>,
        12 => doc_string: Option<Bytes>,
        13 => external_data: Vec<StringStringEntryProto>,
        14 => data_location: Option<i32>,
    }

    /// The non-zero values of a tensor with their positions.
    SparseTensorProto {
        1 => values: Option<Box<TensorProto>>,
        2 => indices: Option<Box<TensorProto>>,
        3 => dims: Vec<i64>,
    }

    /// The type of a value: at most one of its `_type` fields is set. Maps and opaque types stay in `unknown`.
    TypeProto {
        1 => tensor_type: Option<Box<TensorTypeProto>>,
        4 => sequence_type: Option<Box<ElementTypeProto>>,
        6 => denotation: Option<String>,
        8 => sparse_tensor_type: Option<Box<TensorTypeProto>>,
        9 => optional_type: Option<Box<ElementTypeProto>>,
    }

    /// The element type and the shape of a tensor; no shape means that the rank is unknown.
    TensorTypeProto {
        1 => elem_type: Option<i32>,
        2 => shape: Option<Box<TensorShapeProto>>,
    }

    /// The type of the elements of a sequence or optional.
    ElementTypeProto {
        1 => elem_type: Option<Box<TypeProto>>,
    }

    /// The dimensions of a tensor.
    TensorShapeProto {
        1 => dim: Vec<DimensionProto>,
    }

    /// A dimension: a fixed size, a symbolic name, or neither (unknown). Loading refuses one with both in an input or
    /// output of the main graph.
    DimensionProto {
        1 => dim_value: Option<i64>,
        2 => dim_param: Option<String>,
        3 => denotation: Option<String>,
    }

    /// An operator defined by nodes inside the model.
    FunctionProto {
        1 => name: Option<String>,
        4 => input: Vec<String>,
        5 => output: Vec<String>,
        6 => attribute: Vec<String>,
        7 => node: Vec<NodeProto>,
        8 => doc_string: Option<Bytes>,
        9 => opset_import: Vec<OperatorSetIdProto>,
        10 => domain: Option<String>,
        11 => attribute_proto: Vec<AttributeProto>,
        12 => value_info: Vec<ValueInfoProto>,
        13 => overload: Option<String>,
        14 => metadata_props: Vec<StringStringEntryProto>,
    }
}

/// The values of `AttributeProto.kind` (`type` in `onnx.proto`) that the library uses; others exist.
pub mod attribute_kind {
    pub const FLOAT: i32 = 1;
    pub const INT: i32 = 2;
    pub const STRING: i32 = 3;
    pub const TENSOR: i32 = 4;
    pub const GRAPH: i32 = 5;
    pub const INTS: i32 = 7;
}

/// The value of `TensorProto.data_location` for a tensor whose elements are in another file.
pub const EXTERNAL: i32 = 1;
