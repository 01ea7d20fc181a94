//! Application of scaling factors to the model.

use super::{Group, Place, Product, vector};
use crate::error::Result;
use crate::files::Scratch;
use crate::graph::View;
use crate::graph::dead::{Policy, eliminate};
use crate::graph::edit::{self, Names, float_tensor};
use crate::graph::floats::to_bytes;
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, NodeProto, TensorProto};
use crate::quantize::rewrite::take_names;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The factors by which one weight is multiplied.
#[derive(Default)]
struct Factors {
    /// Factor of each input of the weight.
    inputs: Option<Vec<f32>>,
    /// Factor of each output of the weight.
    outputs: Option<Vec<f32>>,
}

/// Returns the model with the inputs of each group divided by its factors. New weights are float32, in scratch
/// storage. Fails with `Io` if scratch storage cannot be written, and with `Unsupported` or `InvalidModel` if a weight
/// is not a float matrix.
pub fn apply(model: &Model, groups: &[(Group<'_>, Vec<f32>)], scratch: &Scratch) -> Result<Model> {
    let view = View::new(model.proto());
    let mut names = Names::of(model.proto());
    let mut proto = model.proto().clone();
    let Some(graph) = &mut proto.graph else { return Ok(model.derive(proto)) };
    let products: HashMap<usize, &Product<'_>> =
        groups.iter().flat_map(|(group, _)| &group.products).map(|product| (product.node, product)).collect();
    let mut factors: BTreeMap<usize, Factors> = BTreeMap::new();
    let mut before: HashMap<usize, NodeProto> = HashMap::new();
    let (mut unread, mut replaced) = (HashSet::new(), Vec::new());
    for (group, scales) in groups {
        for product in &group.products {
            factors.entry(product.node).or_default().inputs = Some(scales.clone());
        }
        let inverse: Vec<f32> = scales.iter().map(|s| 1.0 / s).collect();
        match &group.place {
            Place::Constants { node, inputs } => {
                for input in inputs {
                    let old = graph.node[*node].input[*input].clone();
                    let Some(values) = vector(&view, &old) else { continue };
                    let values: Vec<f32> = values.iter().zip(&inverse).map(|(v, i)| v * i).collect();
                    let name = names.fresh(&format!("{old}_scaled"));
                    graph.initializer.push(float_tensor(&name, &[values.len() as i64], &values));
                    graph.node[*node].input[*input] = name;
                    unread.insert(old);
                }
            }
            Place::Columns { node } => factors.entry(*node).or_default().outputs = Some(inverse),
            Place::Own => {
                let (first, node) = own_node(graph, &mut names, group, &inverse);
                before.insert(first, node);
            }
        }
    }
    for (node, factors) in &factors {
        let Some(product) = products.get(node) else { continue };
        let name = names.fresh(&format!("{}_scaled", product.constant.name));
        graph.initializer.push(scaled(product, factors, &name, scratch)?);
        let old = std::mem::replace(&mut graph.node[*node].input[1], name.clone());
        replaced.push((name, product.constant.name.to_owned()));
        unread.extend([old, product.constant.name.to_owned()]);
        unread.extend(product.constant.chain.iter().flat_map(|(_, n)| view.node(0, *n).output.iter().cloned()));
        if let Some(attribute) = graph.node[*node].attribute.iter_mut().find(|a| a.name.as_deref() == Some("transB")) {
            attribute.i = Some(0);
        }
    }
    let old = std::mem::take(&mut graph.node);
    for (index, node) in old.into_iter().enumerate() {
        graph.node.extend(before.remove(&index));
        graph.node.push(node);
    }
    eliminate(graph, Policy::Named(&unread));
    take_names(graph, &replaced);
    edit::modernize_ir(&mut proto);
    Ok(model.derive(proto))
}

/// Returns a `Mul` that scales the value of a group, and the index of the first product of the group, before which it
/// belongs. The products then read its output.
fn own_node(graph: &mut GraphProto, names: &mut Names, group: &Group<'_>, inverse: &[f32]) -> (usize, NodeProto) {
    let (name, output) =
        (names.fresh(&format!("{}_factor", group.value)), names.fresh(&format!("{}_scaled", group.value)));
    graph.initializer.push(float_tensor(&name, &[inverse.len() as i64], inverse));
    let mut node = edit::node("Mul", &[&group.value, &name], &[&output]);
    node.name = Some(names.fresh(&format!("{}_Mul", group.value)));
    for product in &group.products {
        graph.node[product.node].input[0] = output.clone();
    }
    (group.products.iter().map(|product| product.node).min().unwrap_or(0), node)
}

/// Returns the scaled weight as `[inputs, outputs]`.
fn scaled(product: &Product<'_>, factors: &Factors, name: &str, scratch: &Scratch) -> Result<TensorProto> {
    let matrix = &product.matrix;
    let (inputs, outputs) = match product.inputs_are_rows {
        true => (matrix.rows, matrix.columns),
        false => (matrix.columns, matrix.rows),
    };
    let slot = scratch.reserve(inputs * outputs * 4)?;
    let factor = |list: &Option<Vec<f32>>, index: usize| list.as_ref().map_or(1.0, |list| list[index]);
    // Stored rows are read once each; a transposed weight is transposed in bands of rows.
    const BAND: usize = 64;
    let mut lines = vec![0f32; BAND * matrix.columns];
    for first in (0..matrix.rows).step_by(BAND) {
        let count = BAND.min(matrix.rows - first);
        for (row, line) in lines.chunks_mut(matrix.columns.max(1)).take(count).enumerate() {
            matrix.read(first + row, 0, line);
            let by_row = if product.inputs_are_rows { &factors.inputs } else { &factors.outputs };
            let by_column = if product.inputs_are_rows { &factors.outputs } else { &factors.inputs };
            let own = factor(by_row, first + row);
            line.iter_mut().enumerate().for_each(|(column, v)| *v *= own * factor(by_column, column));
        }
        if product.inputs_are_rows {
            slot.write_at(first * outputs * 4, &to_bytes(&lines[..count * matrix.columns], DataType::Float32))?;
        } else {
            for input in 0..inputs {
                let values: Vec<f32> = (0..count).map(|row| lines[row * matrix.columns + input]).collect();
                slot.write_at((input * outputs + first) * 4, &to_bytes(&values, DataType::Float32))?;
            }
        }
    }
    Ok(edit::tensor(name, DataType::Float32, &[inputs as i64, outputs as i64], slot.finish()?))
}
