//! Detection of float constants that belong to the architecture and are not weights, such as rotary angles, scales and
//! epsilons.
//!
//! ONNX does not mark weights. So the role of a constant is inferred from the nodes that read it, for rotary tables
//! also from its name. A constant whose name ends like that of a trained parameter is not taken for a factor or a
//! bound.

use super::constants::Matrix;
use super::order::producer_nodes;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, NodeProto, TensorProto};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// The maximum number of nodes that are followed: from a sine or cosine back to its angles, and from a constant to the
/// nodes that use it.
const NEAR: usize = 6;
/// The description of rotary tables.
const ANGLES: &str = "rotary angles";
/// Parts of the names of constants for rotary position embeddings, such as tables of sines.
const TABLES: [&str; 5] = ["cos_cache", "sin_cache", "inv_freq", "rotary", "rope"];
/// The operators that move numbers without changing them, apart from the rounding of a `Cast`.
const MOVES: [&str; 10] =
    ["Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Expand", "Transpose", "Slice", "Concat", "Flatten"];
/// The operators that compute angles from positions.
const FACTORS: [&str; 9] = ["Mul", "Div", "MatMul", "Einsum", "Pow", "Where", "Neg", "Reciprocal", "Exp"];
/// The last parts of the names of weights that may be a single number.
const WEIGHTS: [&str; 13] = [
    "weight",
    "bias",
    "gamma",
    "beta",
    "kernel",
    "slope",
    "scale",
    "logit_scale",
    "logit_bias",
    "temperature",
    "running_mean",
    "running_var",
    "alpha",
];

/// Returns the names of the float32, float16 and bfloat16 initializers of a graph that are not weights, each with a
/// description: "rotary angles", "a quantization scale" or "a constant of the architecture".
pub fn formula(graph: &GraphProto) -> BTreeMap<String, &'static str> {
    let floats: HashMap<&str, &TensorProto> = graph
        .initializer
        .iter()
        .filter(|tensor| is_float(tensor))
        .map(|tensor| (tensor.name.as_deref().unwrap_or(""), tensor))
        .collect();
    let readers = readers(graph);
    let angles = angles(graph, &floats);
    let mut found = BTreeMap::new();
    for (name, tensor) in &floats {
        let lowered = name.to_lowercase();
        let what = if angles.contains(*name) || TABLES.iter().any(|word| lowered.contains(word)) {
            Some(ANGLES)
        } else {
            used_as(name, tensor, &readers)
        };
        if let Some(what) = what {
            found.insert((*name).to_owned(), what);
        }
    }
    found
}

/// Returns the names of the float initializers that are rotary angles, or sines and cosines of them.
pub fn tables(graph: &GraphProto) -> BTreeSet<String> {
    formula(graph).into_iter().filter(|(_, what)| *what == ANGLES).map(|(name, _)| name).collect()
}

/// Returns the names of the values from which the arguments of sines and cosines are computed within [`NEAR`] nodes.
fn angles<'g>(graph: &'g GraphProto, floats: &HashMap<&str, &TensorProto>) -> HashSet<&'g str> {
    let makers = producer_nodes(&graph.node);
    let waves = graph.node.iter().filter(|node| node.is("Sin") || node.is("Cos"));
    let mut front: Vec<&str> = waves.flat_map(|node| node.input.iter().map(String::as_str)).collect();
    let mut found = HashSet::new();
    for _ in 0..NEAR {
        found.extend(front.iter().copied());
        let next = |name: &&str| makers.get(*name).filter(|node| passes(node, floats));
        front = front.iter().filter_map(next).flat_map(|node| node.input.iter().map(String::as_str)).collect();
    }
    found
}

/// Returns whether a node that contributes to the argument of a sine is followed to its inputs: it moves or multiplies
/// numbers, or adds no constant with more than one element, which would be the bias of a layer.
fn passes(node: &NodeProto, floats: &HashMap<&str, &TensorProto>) -> bool {
    let wide = |name: &String| floats.get(name.as_str()).is_some_and(|tensor| elements(tensor) > 1);
    match node.op() {
        "Add" | "Sub" => !node.input.iter().any(wide),
        op => MOVES.contains(&op) || FACTORS.contains(&op),
    }
}

/// The nodes that read each value, with the index of the input.
type Readers<'g> = HashMap<&'g str, Vec<(&'g NodeProto, usize)>>;

fn readers(graph: &GraphProto) -> Readers<'_> {
    let mut found: Readers<'_> = HashMap::new();
    for node in &graph.node {
        for (index, name) in node.input.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            found.entry(name).or_default().push((node, index));
        }
    }
    found
}

/// Returns the description of a constant that the nodes that read it do not use as a weight; `None` if it may be a
/// weight.
fn used_as(name: &str, tensor: &TensorProto, readers: &Readers<'_>) -> Option<&'static str> {
    let single = elements(tensor) == 1;
    let learned = named_as_weight(name);
    let mut front = vec![name];
    for _ in 0..NEAR {
        let uses: Vec<&(&NodeProto, usize)> = front.iter().filter_map(|name| readers.get(name)).flatten().collect();
        for (node, input) in &uses {
            let what = match (node.op(), *input) {
                ("RotaryEmbedding", 1..=3) | ("GroupQueryAttention", 7 | 8) => Some(ANGLES),
                ("Gather" | "Slice", 0) if is_table_of_waves(node, tensor, readers) => Some(ANGLES),
                ("QuantizeLinear" | "DequantizeLinear" | "QLinearMatMul", 1..) => Some("a quantization scale"),
                ("Pow" | "Clip" | "Pad" | "Resize" | "Upsample" | "Range" | "Mod", 1..) => {
                    Some("a constant of the architecture")
                }
                ("Where" | "Min" | "Max" | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" | "Equal", _)
                | ("Mul" | "Add" | "Div" | "Sub" | "ConstantOfShape", _)
                    if single && !learned =>
                {
                    Some("a constant of the architecture")
                }
                ("Div" | "Sub", 1) if !learned => Some("a constant of the architecture"),
                _ => None,
            };
            if what.is_some() {
                return what;
            }
        }
        let moved =
            uses.iter().filter(|(node, input)| *input == 0 && MOVES.contains(&node.op()) && node.op() != "Slice");
        front = moved.flat_map(|(node, _)| node.output.first()).map(String::as_str).collect();
    }
    None
}

/// Returns whether a table contains sines or cosines of positions: the rows that `node` (a `Gather` or `Slice`) reads
/// are only moved and multiplied with other values, and all elements of the first row, that of position 0, are equal.
fn is_table_of_waves(node: &NodeProto, tensor: &TensorProto, readers: &Readers<'_>) -> bool {
    if tensor.dims.len() < 2 {
        return false;
    }
    let mut front: Vec<&str> = node.output.first().map(String::as_str).into_iter().collect();
    let mut factor = false;
    for _ in 0..NEAR {
        let uses: Vec<&(&NodeProto, usize)> = front.iter().filter_map(|name| readers.get(name)).flatten().collect();
        if uses.iter().any(|(node, _)| !MOVES.contains(&node.op()) && node.op() != "Mul") {
            return false;
        }
        factor |= uses.iter().any(|(node, _)| node.is("Mul"));
        let moved = uses.iter().filter(|(node, _)| MOVES.contains(&node.op()));
        front = moved.flat_map(|(node, _)| node.output.first()).map(String::as_str).collect();
    }
    factor && first_row_is_even(tensor)
}

fn first_row_is_even(tensor: &TensorProto) -> bool {
    let width = tensor.dims.last().copied().unwrap_or(0);
    let count = elements(tensor);
    if width < 2 || count < width {
        return false;
    }
    let Ok(matrix) = Matrix::shaped(tensor, count / width, width) else { return false };
    let mut row = vec![0.0; usize::try_from(width).unwrap_or(0)];
    matrix.read(0, 0, &mut row);
    let even = row.iter().all(|value| *value == row[0]);
    even && row[0].is_finite()
}

/// Returns whether a name is that of a trained parameter that may be a single number.
fn named_as_weight(name: &str) -> bool {
    let lowered = name.to_lowercase();
    let last = lowered.split(':').next().unwrap_or("").rsplit(['.', '/']).next().unwrap_or("");
    WEIGHTS.contains(&last)
}

fn is_float(tensor: &TensorProto) -> bool {
    use DataType::*;
    matches!(tensor.data_type.and_then(DataType::from_onnx), Some(Float32 | Float16 | Bfloat16))
}

fn elements(tensor: &TensorProto) -> i64 {
    tensor.dims.iter().fold(1, |count: i64, dim| count.saturating_mul(*dim))
}
