//! Evaluation of values that follow from constants alone, through the operators that occur between the constants and a
//! node with block-quantized weights: `Constant`, `Identity`, `Cast`, `Mul` and `Reshape`.

use crate::graph::constants::whole_numbers;
use crate::graph::floats::{self, floats};
use crate::graph::order::producer_nodes;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, NodeProto, TensorProto};
use bytes::Bytes;
use std::collections::{HashMap, HashSet};

/// The maximum number of nodes between a constant and a value.
const DEEP: usize = 16;

/// The elements of a value.
pub(super) enum Numbers {
    /// The elements are uint8. An element may contain several codes of fewer bits.
    Bytes(Bytes),
    Floats(Vec<f32>),
    Whole(Vec<i64>),
}

impl Numbers {
    fn count(&self) -> usize {
        match self {
            Numbers::Bytes(bytes) => bytes.len(),
            Numbers::Floats(values) => values.len(),
            Numbers::Whole(values) => values.len(),
        }
    }
}

/// A value whose elements are known.
pub(super) struct Value {
    /// Shape of the value.
    pub dims: Vec<usize>,
    /// Type of the elements.
    pub dtype: DataType,
    /// Elements in row-major order.
    pub numbers: Numbers,
}

impl Value {
    /// Returns the elements as floats; `None` for [`Numbers::Whole`].
    pub fn floats(self) -> Option<Vec<f32>> {
        match self.numbers {
            Numbers::Floats(values) => Some(values),
            Numbers::Bytes(bytes) => Some(bytes.iter().map(|b| f32::from(*b)).collect()),
            Numbers::Whole(_) => None,
        }
    }
}

/// The constants of a graph, and the nodes that produce its values.
pub(super) struct Constants<'g> {
    makers: HashMap<&'g str, &'g NodeProto>,
    tensors: HashMap<&'g str, &'g TensorProto>,
}

impl<'g> Constants<'g> {
    /// Returns the constants of `graph`.
    pub fn of(graph: &'g GraphProto) -> Constants<'g> {
        // A constant that is also an input may differ in each run.
        let given: HashSet<&str> = graph.input.iter().filter_map(|input| input.name.as_deref()).collect();
        let tensors = graph.initializers();
        Constants {
            makers: producer_nodes(&graph.node),
            tensors: tensors.filter(|(name, _)| !given.contains(name)).collect(),
        }
    }

    /// Returns the value with the name `name`; `None` if it depends on an input, on an unsupported operator or element
    /// type, or on more than [`DEEP`] nodes in a row.
    pub fn value(&self, name: &str) -> Option<Value> {
        self.at(name, DEEP)
    }

    fn at(&self, name: &str, deep: usize) -> Option<Value> {
        if let Some(tensor) = self.tensors.get(name) {
            return of_tensor(tensor);
        }
        let node = *self.makers.get(name)?;
        let deep = deep.checked_sub(1)?;
        let input = |index: usize| self.at(node.input_at(index)?, deep);
        match node.op() {
            _ if !matches!(node.domain.as_deref(), None | Some("" | "ai.onnx")) => None,
            "Constant" => of_tensor(node.attribute("value")?.t.as_deref()?),
            "Identity" => input(0),
            "Cast" => cast(input(0)?, DataType::from_onnx(i32::try_from(node.int("to", 0)).ok()?)?),
            "Mul" => product(input(0)?, input(1)?),
            "Reshape" if node.int("allowzero", 0) == 0 => reshaped(input(0)?, input(1)?),
            _ => None,
        }
    }
}

fn of_tensor(tensor: &TensorProto) -> Option<Value> {
    let dtype = DataType::from_onnx(tensor.data_type?)?;
    let dims: Vec<usize> = tensor.dims.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<_>>()?;
    let count = dims.iter().try_fold(1usize, |all, d| all.checked_mul(*d))?;
    let raw = tensor.raw_data.as_ref();
    let numbers = match (dtype, raw) {
        (DataType::Uint8, Some(raw)) => Numbers::Bytes(raw.clone()),
        (DataType::Uint8, None) => Numbers::Bytes(tensor.int32_data.0.iter().map(|v| *v as u8).collect()),
        (DataType::Int8, Some(raw)) => Numbers::Floats(raw.iter().map(|b| f32::from(*b as i8)).collect()),
        (DataType::Uint4 | DataType::Int4, Some(raw)) => {
            let signed = dtype == DataType::Int4;
            let nibbles = raw.iter().flat_map(|byte| [byte & 15, byte >> 4]).take(count);
            Numbers::Floats(nibbles.map(|n| f32::from(n) - if signed && n > 7 { 16.0 } else { 0.0 }).collect())
        }
        (DataType::Float32 | DataType::Float16, _) => Numbers::Floats(floats(tensor).ok()?),
        (DataType::Int64 | DataType::Int32, _) => Numbers::Whole(whole_numbers(tensor)?),
        _ => return None,
    };
    (numbers.count() == count).then_some(Value { dims, dtype, numbers })
}

fn cast(value: Value, to: DataType) -> Option<Value> {
    let dims = value.dims.clone();
    let from = value.dtype;
    if from == to {
        return Some(value);
    }
    let mut values = value.floats()?;
    if !matches!(to, DataType::Float32 | DataType::Float16) {
        return None;
    }
    floats::round(&mut values, to);
    Some(Value { dims, dtype: to, numbers: Numbers::Floats(values) })
}

/// Returns the product of two float values of the same type, element by element; `None` unless one operand can be
/// broadcast to the shape of the other.
fn product(a: Value, b: Value) -> Option<Value> {
    if a.dtype != b.dtype || !matches!(a.dtype, DataType::Float32 | DataType::Float16) {
        return None;
    }
    let (mut large, small) = if a.numbers.count() >= b.numbers.count() { (a, b) } else { (b, a) };
    let ahead = large.dims.len().checked_sub(small.dims.len())?;
    let fits = small.dims.iter().zip(&large.dims[ahead..]).all(|(s, l)| s == l || *s == 1);
    let dtype = large.dtype;
    let dims = small.dims.clone();
    let (Numbers::Floats(values), Some(factors), true) = (&mut large.numbers, small.floats(), fits) else {
        return None;
    };
    for (index, value) in values.iter_mut().enumerate() {
        let (mut rest, mut at, mut step) = (index, 0, 1);
        for (size, own) in large.dims[ahead..].iter().zip(&dims).rev() {
            at += if *own == 1 { 0 } else { rest % size * step };
            step *= own;
            rest /= size;
        }
        *value *= factors.get(at)?;
    }
    floats::round(values, dtype);
    Some(large)
}

fn reshaped(mut value: Value, shape: Value) -> Option<Value> {
    let Numbers::Whole(sizes) = shape.numbers else { return None };
    let count = value.numbers.count();
    let mut dims = Vec::new();
    for (index, size) in sizes.iter().enumerate() {
        dims.push(match size {
            0 => *value.dims.get(index)?,
            // This size is computed below, from the other ones.
            -1 => 1,
            size => usize::try_from(*size).ok()?,
        });
    }
    let known = dims.iter().try_fold(1usize, |all, d| all.checked_mul(*d))?;
    if let Some(open) = sizes.iter().position(|size| *size == -1) {
        dims[open] = count.checked_div(known)?;
    }
    let all = dims.iter().try_fold(1usize, |all, d| all.checked_mul(*d))?;
    value.dims = dims;
    (all == count).then_some(value)
}
