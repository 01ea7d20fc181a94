//! The state of a differentiation ([`Tape`]): the forward nodes, the known facts about their values, and the gradient
//! nodes so far.

use super::{NodeBuilder, Type};
use crate::error::{Result, bail};
use crate::graph::edit;
use crate::graph::floats::floats;
use crate::graph::order::sorted;
use crate::model::Dim;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{ModelProto, NodeProto, TensorProto};
use std::collections::{HashMap, HashSet};
use std::ops::{Deref, DerefMut};

/// A graph that is being differentiated: the nodes of its main graph, and the gradient nodes so far, which the caller
/// takes from the [`NodeBuilder`] that a tape dereferences to.
pub struct Tape {
    /// Nodes of the model in topological order. Rules may request additional outputs from them.
    pub forward: Vec<NodeProto>,
    writer: NodeBuilder,
    /// Names of the values whose gradient is needed.
    pub(super) need: HashSet<String>,
    types: HashMap<String, Type>,
    /// Small constants of the model, whose elements may be read.
    small: HashMap<String, TensorProto>,
    /// Names of the added shapes, by the name of the value.
    shapes: HashMap<String, String>,
}

/// Access to the methods of the tape's node builder.
impl Deref for Tape {
    type Target = NodeBuilder;

    fn deref(&self) -> &NodeBuilder {
        &self.writer
    }
}

impl DerefMut for Tape {
    fn deref_mut(&mut self) -> &mut NodeBuilder {
        &mut self.writer
    }
}

/// The maximum number of elements of a constant whose elements are read; larger ones are mostly weights.
const SMALL: usize = 4096;

impl Tape {
    /// Returns a tape over the main graph of `model`. `types` are the types of its values; those that are missing count
    /// as unknown. Fails with `InvalidModel` if the model has no graph or its nodes form a cycle.
    pub fn new(model: &ModelProto, types: HashMap<String, Type>) -> Result<Tape> {
        let Some(graph) = model.graph.as_deref() else { bail!(InvalidModel, "the model has no graph") };
        let small = |(_, t): &(&str, &TensorProto)| t.dims.iter().product::<i64>() as usize <= SMALL;
        let constants = graph.initializers().filter(small).chain(graph.node.iter().filter_map(NodeProto::constant));
        Ok(Tape {
            forward: sorted(&graph.node)?,
            writer: NodeBuilder::new(model, "gradient"),
            need: HashSet::new(),
            types,
            small: constants.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect(),
            shapes: HashMap::new(),
        })
    }

    /// Returns the dimensions of a value of the model; `None` if the rank is unknown.
    pub fn dims(&self, value: &str) -> Option<&[Dim]> {
        self.types.get(value)?.dims.as_deref()
    }

    /// Returns the rank of a value of the model. Fails with `Unsupported` if it is unknown.
    pub fn rank(&self, value: &str) -> Result<usize> {
        match self.dims(value) {
            Some(dims) => Ok(dims.len()),
            None => bail!(Unsupported, "the number of dimensions of {value:?} is not known"),
        }
    }

    /// Returns the sizes of a value if all are fixed; otherwise `None`.
    pub fn fixed(&self, value: &str) -> Option<Vec<i64>> {
        let size = |dim: &Dim| if let Dim::Fixed(size) = dim { Some(*size) } else { None };
        self.dims(value)?.iter().map(size).collect()
    }

    /// Returns the element type of a value if it is known; otherwise `None`.
    pub fn dtype(&self, value: &str) -> Option<DataType> {
        self.types.get(value)?.dtype
    }

    /// Returns whether gradients can flow through a value: it is float32, float64 or of unknown type.
    pub fn is_float(&self, value: &str) -> bool {
        self.dtype(value).is_none_or(|d| matches!(d, DataType::Float32 | DataType::Float64))
    }

    /// Returns whether the gradient of a node's input is needed.
    pub fn wants(&self, node: &NodeProto, input: usize) -> bool {
        node.input_at(input).is_some_and(|name| self.need.contains(name))
    }

    /// Returns the name of the shape of a value of the model, a one-dimensional int64 tensor: a constant if all sizes
    /// are fixed, otherwise the output of a `Shape` node, which is added once.
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

    /// Returns the name of the size of the dimension `axis` of a value of the model, an int64 tensor with one element.
    pub fn size(&mut self, value: &str, axis: usize) -> String {
        if let Some(Dim::Fixed(size)) = self.dims(value).and_then(|dims| dims.get(axis)) {
            let size = *size;
            return self.ints(&[size]);
        }
        let shape = self.shape(value);
        let axis = self.ints(&[axis as i64]);
        self.op("Gather", &[&shape, &axis])
    }

    /// Returns the elements of an integer constant of the model with at most 4096 elements; `None` for other values.
    pub fn integers(&self, value: &str) -> Option<Vec<i64>> {
        crate::graph::constants::whole_numbers(self.small.get(value)?)
    }

    /// Returns the elements of a float32 constant of the model with at most 4096 elements; `None` for other values.
    pub fn numbers(&self, value: &str) -> Option<Vec<f32>> {
        let float = |t: &&TensorProto| t.data_type == Some(DataType::Float32.to_onnx());
        floats(self.small.get(value).filter(float)?).ok()
    }

    /// Returns the element of a float32 constant of the model with one element; `None` for other values.
    pub fn number(&self, value: &str) -> Option<f32> {
        self.numbers(value).filter(|all| all.len() == 1).map(|all| all[0])
    }

    /// Returns the axes of a node, which are the input `input` in newer opsets, and the attribute `axes` in older ones;
    /// `None` if there are none. Fails with `Unsupported` if they are not constant.
    pub fn axes(&self, node: &NodeProto, input: usize) -> Result<Option<Vec<i64>>> {
        match (node.input_at(input), node.attribute("axes")) {
            (Some(name), _) => match self.integers(name) {
                Some(axes) => Ok(Some(axes)),
                None => bail!(Unsupported, "the axes of the node are computed by other nodes, which is not supported"),
            },
            (None, Some(attribute)) => Ok(Some(attribute.ints.clone())),
            (None, None) => Ok(None),
        }
    }

    /// Returns the index of an axis of a value of `rank` dimensions; a negative axis counts from the end. Fails with
    /// `InvalidModel` if it does not exist.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let at = if axis < 0 { axis + rank as i64 } else { axis };
        match usize::try_from(at) {
            Ok(at) if at < rank => Ok(at),
            _ => bail!(InvalidModel, "axis {axis} does not exist in an input of {rank} dimensions"),
        }
    }

    /// Adds the output `index` to the forward node with the index `node`, if it does not have that output, and returns
    /// its name.
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

    /// Adds a node that transposes the last two dimensions of `value`, and returns the name of the result. `value` has
    /// `rank` dimensions, at least two.
    pub fn transposed(&mut self, value: &str, rank: usize) -> String {
        let mut order: Vec<i64> = (0..rank as i64).collect();
        order.swap(rank - 1, rank - 2);
        self.op_with("Transpose", &[value], vec![edit::ints_attribute("perm", &order)])
    }

    /// Adds a node that sums `value` over `axes`, and returns the name of the sum. The axes keep size 1 if `keep` is
    /// set, and are removed otherwise.
    pub fn sum(&mut self, value: &str, axes: &[i64], keep: bool) -> String {
        let axes = self.ints(axes);
        self.op_with("ReduceSum", &[value, &axes], vec![edit::int_attribute("keepdims", keep.into())])
    }

    /// Adds a node for float32 zeros in the shape that the value `shape` contains, and returns their name.
    pub fn zeros(&mut self, shape: &str) -> String {
        let zero = edit::float_tensor("", &[1], &[0.0]);
        self.op_with("ConstantOfShape", &[shape], vec![edit::tensor_attribute("value", zero)])
    }
}
