//! The inputs and outputs of a model, as the model declares them.

use crate::onnx::dtype::DataType;
use crate::onnx::proto::{DimensionProto, ValueInfoProto};

/// A dimension of an input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A fixed size.
    Fixed(i64),
    /// A size that is not fixed. Dimensions with equal names have equal sizes, if the name has a meaning
    /// ([`super::names`]). The name is empty if the model declares none.
    Symbolic(String),
}

/// The name, type and shape of an input or output, as the model declares them.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueInfo {
    /// Name of the input or output in a run.
    pub name: String,
    /// Element type; `None` if the value is not a tensor (a sequence, a map), or if the type is not declared or
    /// unknown.
    pub dtype: Option<DataType>,
    /// Shape; `None` if the rank is not declared.
    pub shape: Option<Vec<Dim>>,
}

impl From<&ValueInfoProto> for ValueInfo {
    fn from(value: &ValueInfoProto) -> Self {
        let tensor = value.value_type.as_deref().and_then(|t| t.tensor_type.as_deref());
        let dim = |d: &DimensionProto| match d.dim_value {
            Some(size) if size >= 0 => Dim::Fixed(size),
            _ => Dim::Symbolic(d.dim_param.clone().unwrap_or_default()),
        };
        ValueInfo {
            name: value.name.clone().unwrap_or_default(),
            dtype: tensor.and_then(|t| t.elem_type).and_then(DataType::from_onnx),
            shape: tensor.and_then(|t| t.shape.as_deref()).map(|s| s.dim.iter().map(dim).collect()),
        }
    }
}

impl ValueInfo {
    /// Returns the type and the shape as text, for example `int64[batch, 128]`.
    pub fn describe(&self) -> String {
        let dtype = self.dtype.map_or("not a tensor", DataType::name);
        match &self.shape {
            None => format!("{dtype}[...]"),
            Some(dims) => {
                let dim = |d: &Dim| match d {
                    Dim::Fixed(size) => size.to_string(),
                    Dim::Symbolic(name) if name.is_empty() => "?".to_owned(),
                    Dim::Symbolic(name) => name.clone(),
                };
                format!("{dtype}[{}]", dims.iter().map(dim).collect::<Vec<_>>().join(", "))
            }
        }
    }
}
