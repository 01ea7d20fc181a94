//! Weights in blocks of a few bits made float32, so that they can learn: those of GGUF files and of weight-only
//! quantization.
//!
//! Each is asked of its own operator, as the product with the unit matrix or the rows of a table, so that it is exactly
//! what the model computes with, in whatever form blocks and scales are stored.

use crate::call::Call;
use crate::error::{Context, Result, bail};
use crate::graph::edit::{self, Names};
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto};
use crate::runtime::{Runtime, Session, SessionOptions, Tensor};
use std::collections::{HashMap, HashSet};

/// Rows of the unit matrix, or of a table, in one run.
const ROWS: usize = 512;

/// Replaces `MatMulNBits` and `GatherBlockQuantized` of the main graph by `MatMul` and `Gather` with constants in float32,
/// and says how many. Those whose blocks or scales are no constants stay.
pub fn dequantize(runtime: &'static Runtime, proto: &mut ModelProto, call: &Call) -> Result<usize> {
    let mut names = Names::of(proto);
    let Some(graph) = proto.graph.as_deref() else { return Ok(0) };
    let constants = Constants::of(graph);
    let mut made: HashMap<usize, Replacement> = HashMap::new();
    for (index, node) in graph.node.iter().enumerate().filter(|(_, node)| is_in_blocks(node)) {
        if let Some(found) =
            replace(runtime, proto, &constants, node, &mut names, call).at(|| node.label().to_owned())?
        {
            made.insert(index, found);
        }
    }
    let count = made.len();
    let Some(graph) = proto.graph.as_deref_mut().filter(|_| count > 0) else { return Ok(count) };
    for (index, node) in std::mem::take(&mut graph.node).into_iter().enumerate() {
        match made.remove(&index) {
            Some(found) => {
                graph.initializer.push(found.weight);
                graph.node.extend(found.nodes);
            }
            None => graph.node.push(node),
        }
    }
    remove_unread(graph);
    Ok(count)
}

/// Whether a node has weights in blocks.
fn is_in_blocks(node: &NodeProto) -> bool {
    node.domain.as_deref() == Some("com.microsoft") && matches!(node.op(), "MatMulNBits" | "GatherBlockQuantized")
}

/// What stands for a node.
struct Replacement {
    weight: crate::onnx::proto::TensorProto,
    nodes: Vec<NodeProto>,
}

/// Values that depend on constants alone.
struct Constants<'g> {
    makers: HashMap<&'g str, &'g NodeProto>,
    initializers: HashSet<&'g str>,
}

impl<'g> Constants<'g> {
    fn of(graph: &'g GraphProto) -> Constants<'g> {
        let makers = graph.node.iter().flat_map(|node| node.output.iter().map(move |output| (output.as_str(), node)));
        let given: HashSet<&str> = graph.input.iter().filter_map(|input| input.name.as_deref()).collect();
        let names = graph.initializer.iter().filter_map(|tensor| tensor.name.as_deref());
        Constants { makers: makers.collect(), initializers: names.filter(|name| !given.contains(name)).collect() }
    }

    /// Adds the nodes and initializers that a value is made of; `false` if it depends on an input.
    fn collect(&self, name: &str, nodes: &mut Vec<&'g NodeProto>, tensors: &mut HashSet<&'g str>) -> bool {
        if let Some(name) = self.initializers.get(name) {
            tensors.insert(name);
            return true;
        }
        let Some(node) = self.makers.get(name) else { return false };
        if nodes.iter().any(|known| std::ptr::eq(*known, *node)) {
            return true;
        }
        let good = node.input.iter().filter(|input| !input.is_empty()).all(|input| self.collect(input, nodes, tensors));
        nodes.push(node);
        good
    }
}

fn replace(
    runtime: &'static Runtime,
    proto: &ModelProto,
    constants: &Constants<'_>,
    node: &NodeProto,
    names: &mut Names,
    call: &Call,
) -> Result<Option<Replacement>> {
    let table = node.op() == "GatherBlockQuantized";
    let Some((model, rows, columns)) = alone(proto, constants, node) else { return Ok(None) };
    let session = SessionOptions { varying_sizes: true, ..SessionOptions::default() };
    let mut session = Session::new(runtime, &model, &session, call)?;
    let (mut values, mut width) = (Vec::new(), columns);
    for first in (0..rows).step_by(ROWS) {
        let count = ROWS.min(rows - first);
        let asked = match table {
            true => Tensor::from_i64(&[count as i64], (first as i64..(first + count) as i64).collect())?,
            false => {
                let mut unit = vec![0f32; count * rows];
                (0..count).for_each(|row| unit[row * rows + first + row] = 1.0);
                Tensor::from_f32(&[count as i64, rows as i64], unit)?
            }
        };
        let found = session.run(&[(ASKED, &asked)], &[FOUND], call)?.remove(0).1;
        width = found.shape().last().map_or(0, |size| *size as usize);
        values.extend(found.to_f32_vec()?);
    }
    if values.len() != rows * width {
        bail!(InvalidModel, "it has weights of another size than its attributes say");
    }
    let source = node.input_at(usize::from(!table)).unwrap_or("weight");
    let name = names.fresh(&format!("{source}/float"));
    let weight = edit::float_tensor(&name, &[rows as i64, width as i64], &values);
    let (Some(other), Some(output)) = (node.input_at(usize::from(table)), node.output.first()) else { return Ok(None) };
    let bias = node.input_at(5).filter(|_| !table);
    let product = if bias.is_some() { names.fresh(&format!("{output}/product")) } else { output.clone() };
    let mut nodes = vec![match table {
        true => edit::node("Gather", &[&name, other], &[&product]),
        false => edit::node("MatMul", &[other, &name], &[&product]),
    }];
    nodes[0].name = node.name.clone();
    nodes.extend(bias.map(|bias| edit::node("Add", &[&product, bias], &[output])));
    Ok(Some(Replacement { weight, nodes }))
}

/// Input and output of a node alone.
const ASKED: &str = "asked";
const FOUND: &str = "found";

/// A model of nothing but the node and what its weights are made of; rows that it has, and columns if that is known.
fn alone(proto: &ModelProto, constants: &Constants<'_>, node: &NodeProto) -> Option<(Model, usize, usize)> {
    let table = node.op() == "GatherBlockQuantized";
    let graph = proto.graph.as_deref()?;
    let (mut nodes, mut tensors) = (Vec::new(), HashSet::new());
    let mut node = node.clone();
    let weights = if table { vec![0, 2, 3] } else { vec![1, 2, 3, 4] };
    for index in weights {
        let input = node.input_at(index).unwrap_or("");
        if !input.is_empty() && !constants.collect(input, &mut nodes, &mut tensors) {
            return None;
        }
    }
    let (rows, columns, dtype) = match table {
        true => {
            // Along the last axis, so that a row is one: as ours and GGUF's are.
            let first = graph.initializer.iter().find(|tensor| tensor.name.as_deref() == node.input_at(0));
            if node.int("gather_axis", 0) != 0 {
                return None;
            }
            (usize::try_from(*first?.dims.first()?).ok()?, 0, DataType::Int64)
        }
        false => {
            node.attribute.retain(|attribute| attribute.name.as_deref() != Some("accuracy_level"));
            node.input.truncate(5);
            (usize::try_from(node.int("K", 0)).ok()?, usize::try_from(node.int("N", 0)).ok()?, DataType::Float32)
        }
    };
    node.input[usize::from(table)] = ASKED.to_owned();
    node.output = vec![FOUND.to_owned()];
    let mut alone = GraphProto { name: Some("weight".into()), ..GraphProto::default() };
    alone.node = nodes.into_iter().cloned().chain([node]).collect();
    let kept = graph.initializer.iter().filter(|tensor| tensor.name.as_deref().is_some_and(|n| tensors.contains(n)));
    alone.initializer = kept.cloned().collect();
    alone.input = vec![edit::value(ASKED, dtype, if table { 1 } else { 2 })];
    alone.output = vec![edit::untyped(FOUND)];
    let proto = ModelProto { graph: Some(Box::new(alone)), ..proto.clone() };
    Some((Model::from_proto(proto), rows, columns))
}

/// Removes nodes and constants that nobody reads any more.
fn remove_unread(graph: &mut GraphProto) {
    loop {
        let mut read: HashSet<String> = graph.output.iter().filter_map(|output| output.name.clone()).collect();
        read.extend(graph.node.iter().flat_map(crate::onnx::order::reads).map(str::to_owned));
        let before = graph.node.len();
        graph.node.retain(|node| node.output.iter().any(|output| read.contains(output)));
        graph.initializer.retain(|tensor| tensor.name.as_ref().is_some_and(|name| read.contains(name)));
        if graph.node.len() == before {
            return;
        }
    }
}
