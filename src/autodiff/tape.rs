//! [`Tape`]: the forward nodes, what is known about their values, and the gradient nodes in the making.

use super::Writer;
use super::types::Type;
use crate::error::{Result, bail};
use crate::graph::edit;
use crate::graph::order::sorted;
use crate::model::Dim;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{AttributeProto, ModelProto, NodeProto, TensorProto, attribute_kind};
use std::collections::{HashMap, HashSet};
use std::ops::{Deref, DerefMut};

/// A graph that is being differentiated.
pub struct Tape {
    /// The nodes of the model, in an order in which they can run. Rules may ask them for more outputs.
    pub forward: Vec<NodeProto>,
    writer: Writer,
    pub(super) need: HashSet<String>,
    types: HashMap<String, Type>,
    /// Constants of the model that are small enough to look at.
    small: HashMap<String, TensorProto>,
    shapes: HashMap<String, String>,
}

/// A tape is written to as a writer is.
impl Deref for Tape {
    type Target = Writer;

    fn deref(&self) -> &Writer {
        &self.writer
    }
}

impl DerefMut for Tape {
    fn deref_mut(&mut self) -> &mut Writer {
        &mut self.writer
    }
}

/// Constants of more elements are weights; nobody asks for their values.
const SMALL: usize = 4096;

impl Tape {
    /// Over the main graph of `model`, whose values have the given types.
    pub fn new(model: &ModelProto, types: HashMap<String, Type>) -> Result<Tape> {
        let Some(graph) = model.graph.as_deref() else { bail!(InvalidModel, "the model has no graph") };
        let small = |t: &&TensorProto| t.dims.iter().product::<i64>() as usize <= SMALL;
        let initializers = graph.initializer.iter().filter(small).filter_map(|t| Some((t.name.clone()?, t.clone())));
        let mut constants: HashMap<String, TensorProto> = initializers.collect();
        for node in graph.node.iter().filter(|node| node.is("Constant")) {
            let value = node.attribute("value").and_then(|a| a.t.as_deref());
            constants.extend(node.output.first().cloned().zip(value.cloned()));
        }
        Ok(Tape {
            forward: sorted(&graph.node)?,
            writer: Writer::new(model, "gradient"),
            need: HashSet::new(),
            types,
            small: constants,
            shapes: HashMap::new(),
        })
    }

    /// Dimensions of a value of the model; `None` if not even their number is known.
    pub fn dims(&self, value: &str) -> Option<&[Dim]> {
        self.types.get(value)?.dims.as_deref()
    }

    /// The number of dimensions, which the rule cannot do without.
    pub fn rank(&self, value: &str) -> Result<usize> {
        match self.dims(value) {
            Some(dims) => Ok(dims.len()),
            None => bail!(Unsupported, "the number of dimensions of {value:?} is not known"),
        }
    }

    /// The sizes, if all are fixed.
    pub fn fixed(&self, value: &str) -> Option<Vec<i64>> {
        let size = |dim: &Dim| if let Dim::Fixed(size) = dim { Some(*size) } else { None };
        self.dims(value)?.iter().map(size).collect()
    }

    /// The element type, where it is known.
    pub fn dtype(&self, value: &str) -> Option<DataType> {
        self.types.get(value)?.dtype
    }

    /// Whether gradients can flow through a value.
    pub fn is_float(&self, value: &str) -> bool {
        self.dtype(value).is_none_or(|d| matches!(d, DataType::Float32 | DataType::Float64))
    }

    /// Whether the gradient of a node's input is asked for.
    pub fn wants(&self, node: &NodeProto, input: usize) -> bool {
        node.input_at(input).is_some_and(|name| self.need.contains(name))
    }

    /// A value of the model's shape, as a list: a constant where it is fixed.
    pub fn shape(&mut self, value: &str) -> String {
        if let Some(sizes) = self.fixed(value) {
            return self.ints(&sizes);
        }
        if let Some(known) = self.shapes.get(value) {
            return known.clone();
        }
        let shape = self.op("Shape", &[value]);
        self.shapes.insert(value.to_owned(), shape.clone());
        shape
    }

    /// The size of one dimension, as a list of one.
    pub fn size(&mut self, value: &str, axis: usize) -> String {
        if let Some(Dim::Fixed(size)) = self.dims(value).and_then(|dims| dims.get(axis)) {
            let size = *size;
            return self.ints(&[size]);
        }
        let shape = self.shape(value);
        let axis = self.ints(&[axis as i64]);
        self.op("Gather", &[&shape, &axis])
    }

    /// The whole numbers that a constant of the model holds.
    pub fn integers(&self, value: &str) -> Option<Vec<i64>> {
        crate::graph::constants::whole_numbers(self.small.get(value)?)
    }

    /// The numbers that a constant of the model holds.
    pub fn numbers(&self, value: &str) -> Option<Vec<f32>> {
        let tensor = self.small.get(value)?;
        if tensor.data_type != Some(DataType::Float32.to_onnx()) {
            return None;
        }
        let raw = |raw: &[u8]| raw.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Some(tensor.raw_data.as_deref().map_or_else(|| tensor.float_data.0.clone(), raw))
    }

    /// The one number that a constant of the model holds.
    pub fn number(&self, value: &str) -> Option<f32> {
        self.numbers(value).filter(|all| all.len() == 1).map(|all| all[0])
    }

    /// Axes of a node: an input since some version, an attribute before it. `None` if there are none.
    pub fn axes(&self, node: &NodeProto, input: usize) -> Result<Option<Vec<i64>>> {
        match (node.input_at(input), node.attribute("axes")) {
            (Some(name), _) => match self.integers(name) {
                Some(axes) => Ok(Some(axes)),
                None => bail!(Unsupported, "its axes are computed"),
            },
            (None, Some(attribute)) => Ok(Some(attribute.ints.clone())),
            (None, None) => Ok(None),
        }
    }

    /// An axis counted from the front.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let at = if axis < 0 { axis + rank as i64 } else { axis };
        match usize::try_from(at) {
            Ok(at) if at < rank => Ok(at),
            _ => bail!(InvalidModel, "axis {axis} of {rank} dimensions"),
        }
    }

    /// Asks the forward node for its output at `index` too.
    pub fn extra_output(&mut self, node: usize, index: usize) -> String {
        while self.forward[node].output.len() <= index {
            self.forward[node].output.push(String::new());
        }
        if self.forward[node].output[index].is_empty() {
            let name = self.fresh("saved");
            self.forward[node].output[index] = name;
        }
        self.forward[node].output[index].clone()
    }

    /// The last two dimensions of a value of `rank` turned.
    pub fn turned(&mut self, value: &str, rank: usize) -> String {
        let mut order: Vec<i64> = (0..rank as i64).collect();
        order.swap(rank - 1, rank - 2);
        self.op_with("Transpose", &[value], vec![edit::ints_attribute("perm", &order)])
    }

    /// The sum over `axes`.
    pub fn sum(&mut self, value: &str, axes: &[i64], keep: bool) -> String {
        let axes = self.ints(axes);
        self.op_with("ReduceSum", &[value, &axes], vec![edit::int_attribute("keepdims", keep.into())])
    }

    /// Zeros in the shape that `shape` holds.
    pub fn zeros(&mut self, shape: &str) -> String {
        let zero = edit::float_tensor("", &[1], &[0.0]);
        let value = AttributeProto {
            name: Some("value".to_owned()),
            kind: Some(attribute_kind::TENSOR),
            t: Some(Box::new(zero)),
            ..Default::default()
        };
        self.op_with("ConstantOfShape", &[shape], vec![value])
    }
}
