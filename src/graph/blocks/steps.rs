//! Conversion of weights that a few standard nodes compute from 8-bit codes to floats. Quantization stores weights in
//! this way if no operator with block-quantized weights can be used.

use crate::error::Result;
use crate::files::Scratch;
use crate::graph::constants::whole_numbers;
use crate::graph::dead::{Policy, eliminate};
use crate::graph::edit;
use crate::graph::floats::{self, floats, store};
use crate::graph::order::reads;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto};
use std::collections::{HashMap, HashSet};

/// The operators between the codes and the weight.
const STEPS: [&str; 8] = ["Cast", "Mul", "Sub", "Floor", "Concat", "Reshape", "Transpose", "Conv"];

/// The elements of a tensor as floats, with its dimensions.
#[derive(Clone)]
struct Array {
    dims: Vec<usize>,
    values: Vec<f32>,
}

/// Replaces nodes of the main graph that compute a float32 or float16 weight from constant codes by the weight, and
/// returns the number of weights. If it is not 0, unused nodes and initializers are removed.
pub(super) fn expand(proto: &mut ModelProto) -> Result<usize> {
    let Some(graph) = proto.graph.as_deref() else { return Ok(0) };
    let given: HashSet<&str> = graph.input.iter().filter_map(|input| input.name.as_deref()).collect();
    let constants: HashMap<&str, &TensorProto> = (graph.initializers())
        .chain(graph.node.iter().filter_map(NodeProto::constant))
        .filter(|(name, _)| !given.contains(name))
        .collect();
    let mut steps: HashMap<&str, &NodeProto> = HashMap::new();
    for node in graph.node.iter().filter(|node| STEPS.iter().any(|op| node.is(op))) {
        let codes = |name: &String| constants.get(name.as_str()).is_some_and(|tensor| is_codes(tensor));
        let begins = node.is("Cast") && node.input.first().is_some_and(codes);
        let goes_on = node.input.iter().any(|name| steps.contains_key(name.as_str()));
        let follows = |name: &String| steps.contains_key(name.as_str()) || constants.contains_key(name.as_str());
        if let Some(output) = node.output.first()
            && (begins || goes_on)
            && node.input.iter().all(follows)
        {
            steps.insert(output, node);
        }
    }
    let scratch = Scratch::new(&std::env::temp_dir());
    let mut weights = Vec::new();
    for name in ends(graph, &steps) {
        let Some(array) = value(&name, &constants, &steps, 0) else { continue };
        let dtype = match steps.get(name.as_str()) {
            Some(node) if node.is("Cast") => DataType::from_onnx(node.int("to", 1) as i32),
            _ => Some(DataType::Float32),
        };
        let Some(dtype @ (DataType::Float32 | DataType::Float16)) = dtype else { continue };
        let dims: Vec<i64> = array.dims.iter().map(|size| *size as i64).collect();
        weights.push(edit::tensor(&name, dtype, &dims, store(&array.values, dtype, &scratch)?));
    }
    let count = weights.len();
    let made: HashSet<String> = weights.iter().filter_map(|tensor| tensor.name.clone()).collect();
    let Some(graph) = proto.graph.as_deref_mut().filter(|_| count > 0) else { return Ok(0) };
    graph.node.retain(|node| !node.output.first().is_some_and(|output| made.contains(output)));
    graph.initializer.extend(weights);
    eliminate(graph, Policy::All);
    Ok(count)
}

/// Returns whether a constant holds codes: 8-bit integers with more than one dimension.
fn is_codes(tensor: &TensorProto) -> bool {
    let dtype = tensor.dtype();
    matches!(dtype, Some(DataType::Int8 | DataType::Uint8)) && tensor.dims.len() > 1
}

/// Returns the names of the outputs of `steps` that other nodes read: the weights.
fn ends(graph: &GraphProto, steps: &HashMap<&str, &NodeProto>) -> Vec<String> {
    let is_step = |node: &NodeProto| node.output.first().is_some_and(|output| steps.contains_key(output.as_str()));
    let mut read: HashSet<&str> = graph.node.iter().filter(|node| !is_step(node)).flat_map(reads).collect();
    read.extend(graph.output.iter().filter_map(|output| output.name.as_deref()));
    let outputs = graph.node.iter().filter(|node| is_step(node)).filter_map(|node| node.output.first());
    outputs.filter(|output| read.contains(output.as_str())).cloned().collect()
}

fn value(
    name: &str,
    constants: &HashMap<&str, &TensorProto>,
    steps: &HashMap<&str, &NodeProto>,
    depth: usize,
) -> Option<Array> {
    if let Some(tensor) = constants.get(name) {
        return of_tensor(tensor);
    }
    let node = *steps.get(name).filter(|_| depth < 32)?;
    let input = |index: usize| value(node.input_at(index)?, constants, steps, depth + 1);
    match node.op() {
        "Cast" => rounded(input(0)?, DataType::from_onnx(i32::try_from(node.int("to", 1)).ok()?)?),
        "Floor" => input(0).map(|array| Array { values: array.values.iter().map(|v| v.floor()).collect(), ..array }),
        "Mul" => together(input(0)?, &input(1)?, |a, b| a * b),
        "Sub" => together(input(0)?, &input(1)?, |a, b| a - b),
        "Concat" => beside(&input(0)?, &input(1)?, node),
        "Transpose" => transposed(&input(0)?, &node.attribute("perm")?.ints),
        "Reshape" => {
            let dims = whole_numbers(constants.get(node.input_at(1)?)?)?;
            let dims: Vec<usize> = dims.iter().map(|size| usize::try_from(*size).ok()).collect::<Option<_>>()?;
            let array = input(0)?;
            (dims.iter().product::<usize>() == array.values.len()).then_some(Array { dims, ..array })
        }
        "Conv" => scaled(input(0)?, &input(1)?, node),
        _ => None,
    }
}

/// Returns an array rounded to the float type `to`; `None` for types other than float32, float16 and bfloat16.
fn rounded(mut array: Array, to: DataType) -> Option<Array> {
    if !matches!(to, DataType::Float32 | DataType::Float16 | DataType::Bfloat16) {
        return None;
    }
    floats::round(&mut array.values, to);
    Some(array)
}

fn of_tensor(tensor: &TensorProto) -> Option<Array> {
    let dims: Vec<usize> = tensor.dims.iter().map(|size| usize::try_from(*size).ok()).collect::<Option<_>>()?;
    let count: usize = dims.iter().product();
    let values = match tensor.dtype()? {
        DataType::Int8 => tensor.raw_data.as_ref()?.iter().map(|byte| f32::from(*byte as i8)).collect(),
        DataType::Uint8 => tensor.raw_data.as_ref()?.iter().map(|byte| f32::from(*byte)).collect(),
        _ => floats(tensor).ok()?,
    };
    (values.len() == count).then_some(Array { dims, values })
}

/// Returns the combination of two arrays, element by element, in the shape of the first. Along each axis the second has
/// the size of the first, or 1; otherwise returns `None`.
fn together(mut a: Array, b: &Array, of: impl Fn(f32, f32) -> f32) -> Option<Array> {
    let (rank, other) = (a.dims.len(), b.dims.len());
    if other > rank {
        return None;
    }
    let mut steps = vec![0; rank];
    let mut step = 1;
    for axis in (0..other).rev() {
        let (size, own) = (b.dims[axis], a.dims[axis + rank - other]);
        if size != own && size != 1 {
            return None;
        }
        steps[axis + rank - other] = if size == 1 { 0 } else { step };
        step *= size;
    }
    for (index, value) in a.values.iter_mut().enumerate() {
        let (mut rest, mut place) = (index, 0);
        for axis in (0..rank).rev() {
            place += rest % a.dims[axis] * steps[axis];
            rest /= a.dims[axis];
        }
        *value = of(*value, b.values[place]);
    }
    Some(a)
}

/// Returns the concatenation of two arrays of the same shape along the last axis; `None` for any other `Concat`.
fn beside(a: &Array, b: &Array, node: &NodeProto) -> Option<Array> {
    let width = *a.dims.last().filter(|width| **width > 0)?;
    if node.input.len() != 2 || a.dims != b.dims || node.int("axis", 0) + 1 != a.dims.len() as i64 {
        return None;
    }
    let mut dims = a.dims.clone();
    *dims.last_mut()? = 2 * width;
    let rows = a.values.chunks(width).zip(b.values.chunks(width));
    Some(Array { dims, values: rows.flat_map(|(a, b)| a.iter().chain(b)).copied().collect() })
}

/// Returns an array with its last two axes exchanged; `None` if `order` is another permutation.
fn transposed(a: &Array, order: &[i64]) -> Option<Array> {
    let rank = a.dims.len();
    let mut wanted: Vec<i64> = (0..rank as i64).collect();
    if rank < 2 || order.len() != rank {
        return None;
    }
    wanted.swap(rank - 1, rank - 2);
    let (rows, columns) = (a.dims[rank - 2], a.dims[rank - 1]);
    if wanted != order || rows * columns == 0 {
        return None;
    }
    let matrices = a.values.chunks(rows * columns);
    let values = matrices.flat_map(|m| (0..columns).flat_map(move |c| (0..rows).map(move |r| m[r * columns + c])));
    let mut dims = a.dims.clone();
    dims.swap(rank - 1, rank - 2);
    Some(Array { dims, values: values.collect() })
}

/// Returns the result of a convolution whose kernel has one element per channel: the product with `scales`; `None` for
/// any other `Conv`.
fn scaled(mut a: Array, scales: &Array, node: &NodeProto) -> Option<Array> {
    let (&[1, channels, 1, width], &[count, 1, 1, 1]) = (a.dims.as_slice(), scales.dims.as_slice()) else {
        return None;
    };
    let plain = node.input.len() == 2 && ["pads", "strides"].iter().all(|name| node.attribute(name).is_none());
    if !plain || channels != count || node.int("group", 1) != count as i64 || width == 0 {
        return None;
    }
    for (row, scale) in a.values.chunks_mut(width).zip(&scales.values) {
        row.iter_mut().for_each(|value| *value *= scale);
    }
    Some(a)
}
