//! Preparation of the student's graph for training: its weights become float32 (also block-quantized ones), and each
//! weight is stored once for the nodes that should share it.
//!
//! Exporters merge constants of equal value, so that in an untrained model biases and norms of different layers are one
//! constant. Here each node that reads such a constant gets its own copy. Some exporters store a table that is also the
//! output layer twice, once transposed. These two are merged.

use crate::error::{Result, bail};
use crate::graph::blocks::dequantize;
use crate::graph::edit::{self, Names};
use crate::graph::floats::floats;
use crate::graph::order::consumers;
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, NodeProto, TensorProto};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Returns the model with the main graph prepared, and the number of nodes whose block-quantized weights were
/// converted. The outputs of the model are unchanged, except for rounding where weights were stored in half precision,
/// or where activations were quantized. Fails with `InvalidModel` if the model has no graph, or if a node or a weight
/// is damaged.
pub fn ready(model: &Model) -> Result<(Model, usize)> {
    let mut proto = model.proto().clone();
    let in_blocks = dequantize(&mut proto)?;
    let mut names = Names::of(&proto);
    let Some(graph) = proto.graph.as_deref_mut() else { bail!(InvalidModel, "the model has no graph") };
    hoist(graph);
    widen(graph)?;
    untie(graph, &mut names)?;
    retie(graph, &mut names)?;
    Ok((model.derive(proto), in_blocks))
}

/// Converts weights in `Constant` nodes to initializers.
fn hoist(graph: &mut GraphProto) {
    let weight = |node: &NodeProto| {
        let tensor = node.attribute("value").and_then(|a| a.t.as_deref()).filter(|_| node.is("Constant"))?;
        let float = matches!(tensor.data_type.and_then(DataType::from_onnx), Some(d) if is_float(d));
        (float && !tensor.dims.is_empty()).then(|| TensorProto { name: node.output.first().cloned(), ..tensor.clone() })
    };
    let hoisted: Vec<TensorProto> = graph.node.iter().filter_map(weight).collect();
    graph.node.retain(|node| weight(node).is_none());
    graph.initializer.extend(hoisted);
}

fn is_float(dtype: DataType) -> bool {
    matches!(dtype, DataType::Float32 | DataType::Float16 | DataType::Bfloat16)
}

/// Converts half-precision weights that the graph only reads through casts to float32, and removes the casts.
fn widen(graph: &mut GraphProto) -> Result<()> {
    let read = consumers(&graph.node);
    let widens = |node: &NodeProto| node.is("Cast") && node.int("to", 0) == i64::from(DataType::Float32.to_onnx());
    let by = |name: &str| read.get(name).map_or(&[][..], Vec::as_slice).iter().map(|index| &graph.node[*index]);
    let only_widened = |name: &str| {
        let gathered = |node: &NodeProto| node.is("Gather") && node.output.iter().all(|o| by(o).all(&widens));
        by(name).all(|node| widens(node) || gathered(node))
    };
    let half = |t: &TensorProto| {
        let dtype = t.data_type.and_then(DataType::from_onnx);
        matches!(dtype, Some(DataType::Float16 | DataType::Bfloat16)) && only_widened(t.name.as_deref().unwrap_or(""))
    };
    let chosen: HashSet<String> = graph.initializer.iter().filter(|t| half(t)).filter_map(|t| t.name.clone()).collect();
    let mut now: HashSet<String> = chosen.clone();
    for name in &chosen {
        now.extend(by(name).filter(|node| node.is("Gather")).flat_map(|node| node.output.clone()));
    }
    for tensor in graph.initializer.iter_mut().filter(|t| t.name.as_ref().is_some_and(|n| chosen.contains(n))) {
        *tensor = widened(tensor)?;
    }
    // The remaining casts have no effect.
    let mut renamed: HashMap<String, String> = HashMap::new();
    let outputs: HashSet<String> = graph.output.iter().filter_map(|o| o.name.clone()).collect();
    graph.node.retain(|node| {
        let from = node.input.first().filter(|from| widens(node) && now.contains(*from));
        match (from, node.output.first()) {
            (Some(from), Some(to)) if !outputs.contains(to) => {
                renamed.insert(to.clone(), from.clone());
                false
            }
            _ => true,
        }
    });
    for input in graph.node.iter_mut().flat_map(|node| &mut node.input) {
        if let Some(new) = renamed.get(input) {
            new.clone_into(input);
        }
    }
    Ok(())
}

/// Returns a tensor with its elements converted to float32.
fn widened(tensor: &TensorProto) -> Result<TensorProto> {
    Ok(edit::float_tensor(tensor.name.as_deref().unwrap_or(""), &tensor.dims, &floats(tensor)?))
}

/// Returns whether all elements of a float32 tensor have the same bit pattern.
fn uniform(tensor: &TensorProto) -> bool {
    match (&tensor.raw_data, tensor.float_data.0.as_slice()) {
        (Some(raw), _) => raw.chunks_exact(4).all(|value| value == &raw[..4]),
        (None, values) => values.windows(2).all(|pair| pair[0] == pair[1]),
    }
}

/// Gives each node its own copy of weights whose elements are all equal: exporters merge such weights, although
/// training makes them differ.
fn untie(graph: &mut GraphProto, names: &mut Names) -> Result<()> {
    let read = consumers(&graph.node);
    let mut copies: Vec<(usize, String, TensorProto)> = Vec::new();
    for tensor in &graph.initializer {
        let Some(name) = tensor.name.clone() else { continue };
        let users = read.get(name.as_str()).map_or(&[][..], Vec::as_slice);
        let float = tensor.data_type == Some(DataType::Float32.to_onnx());
        let elements: i64 = tensor.dims.iter().product();
        if !float || users.len() < 2 || elements < 2 || tensor.dims.is_empty() || !uniform(tensor) {
            continue;
        }
        let copy =
            |user: &usize| (*user, name.clone(), TensorProto { name: Some(names.fresh(&name)), ..tensor.clone() });
        copies.extend(users[1..].iter().map(copy));
    }
    for (user, name, copy) in copies {
        let inputs = graph.node[user].input.iter_mut().filter(|input| **input == name);
        inputs.for_each(|input| input.clone_from(copy.name.as_ref().unwrap_or(&name)));
        graph.initializer.push(copy);
    }
    Ok(())
}

/// Replaces an output layer that is a transposed copy of the token table by the table.
fn retie(graph: &mut GraphProto, names: &mut Names) -> Result<()> {
    let matrices = |graph: &GraphProto, op: &str, input: usize| -> BTreeMap<String, [i64; 2]> {
        let used: HashSet<&str> =
            graph.node.iter().filter(|node| node.is(op)).filter_map(|node| node.input_at(input)).collect();
        let of = |t: &TensorProto| match (t.name.as_deref(), t.dims.as_slice()) {
            (Some(name), [a, b]) if used.contains(name) && t.data_type == Some(DataType::Float32.to_onnx()) => {
                Some((name.to_owned(), [*a, *b]))
            }
            _ => None,
        };
        graph.initializer.iter().filter_map(of).collect()
    };
    let (tables, heads) = (matrices(graph, "Gather", 0), matrices(graph, "MatMul", 1));
    for (head, [width, rows]) in heads {
        let table = tables.iter().find(|(table, dims)| **dims == [rows, width] && is_transposed(graph, table, &head));
        let Some((table, _)) = table else { continue };
        let transposed = names.fresh(&format!("{table}/turned"));
        let mut node = edit::node("Transpose", &[table], &[&transposed]);
        node.name = Some(transposed.clone());
        node.attribute = vec![edit::ints_attribute("perm", &[1, 0])];
        for input in graph.node.iter_mut().flat_map(|node| &mut node.input).filter(|input| **input == head) {
            transposed.clone_into(input);
        }
        graph.node.insert(0, node);
        graph.initializer.retain(|t| t.name.as_deref() != Some(&head));
    }
    Ok(())
}

/// Returns whether one matrix is the transpose of the other.
fn is_transposed(graph: &GraphProto, table: &str, head: &str) -> bool {
    let raw = |name: &str| {
        let tensor = graph.initializer.iter().find(|t| t.name.as_deref() == Some(name))?;
        Some((
            tensor.raw_data.as_deref()?,
            tensor.dims.first().copied()? as usize,
            tensor.dims.get(1).copied()? as usize,
        ))
    };
    let (Some((a, rows, width)), Some((b, ..))) = (raw(table), raw(head)) else { return false };
    a.len() == b.len()
        && (0..rows).all(|row| {
            (0..width).all(|column| {
                let (at, transposed) = (4 * (row * width + column), 4 * (column * rows + row));
                a[at..at + 4] == b[transposed..transposed + 4]
            })
        })
}
