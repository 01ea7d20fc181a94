//! Visiting every constant tensor of a model, wherever a file can hide one.

use super::proto::*;
use crate::error::{Context, Result, bail};
use crate::limits;

/// Calls `visit` with the place and the tensor, for initializers, sparse ones (values and indices),
/// attributes, subgraphs, functions and training graphs.
pub fn for_each_tensor(model: &mut ModelProto, visit: &mut dyn FnMut(&mut TensorProto) -> Result<()>) -> Result<()> {
    if let Some(graph) = &mut model.graph {
        in_graph(graph, 0, visit).at(|| "graph")?;
    }
    for (index, function) in model.functions.iter_mut().enumerate() {
        let place = || format!("functions[{index}]");
        in_nodes(&mut function.node, 0, visit).at(place)?;
        in_attributes(&mut function.attribute_proto, 0, visit).at(place)?;
    }
    for (index, info) in model.training_info.iter_mut().enumerate() {
        for graph in info.initialization.iter_mut().chain(&mut info.algorithm) {
            in_graph(graph, 0, visit).at(|| format!("training_info[{index}]"))?;
        }
    }
    Ok(())
}

fn in_graph(graph: &mut GraphProto, depth: usize, visit: &mut dyn FnMut(&mut TensorProto) -> Result<()>) -> Result<()> {
    if depth > limits::SUBGRAPH_DEPTH {
        bail!(LimitExceeded, "graphs are nested deeper than {}", limits::SUBGRAPH_DEPTH);
    }
    for (index, tensor) in graph.initializer.iter_mut().enumerate() {
        named(tensor, visit).at(|| format!("initializer[{index}]"))?;
    }
    for (index, sparse) in graph.sparse_initializer.iter_mut().enumerate() {
        in_sparse(sparse, visit).at(|| format!("sparse_initializer[{index}]"))?;
    }
    in_nodes(&mut graph.node, depth, visit)
}

fn in_nodes(
    nodes: &mut [NodeProto],
    depth: usize,
    visit: &mut dyn FnMut(&mut TensorProto) -> Result<()>,
) -> Result<()> {
    for (index, node) in nodes.iter_mut().enumerate() {
        let NodeProto { attribute, op_type, name, .. } = node;
        in_attributes(attribute, depth, visit).at(|| {
            let (op, name) = (op_type.as_deref().unwrap_or("?"), name.as_deref().unwrap_or(""));
            format!("node[{index}] {op} {name:?}")
        })?;
    }
    Ok(())
}

fn in_attributes(
    attributes: &mut [AttributeProto],
    depth: usize,
    visit: &mut dyn FnMut(&mut TensorProto) -> Result<()>,
) -> Result<()> {
    for attribute in attributes {
        let AttributeProto { name, t, tensors, g, graphs, sparse_tensor, sparse_tensors, .. } = attribute;
        let place = || format!("attribute {:?}", name.as_deref().unwrap_or(""));
        for tensor in t.iter_mut().map(|t| &mut **t).chain(tensors) {
            named(tensor, visit).at(place)?;
        }
        for sparse in sparse_tensor.iter_mut().map(|t| &mut **t).chain(sparse_tensors) {
            in_sparse(sparse, visit).at(place)?;
        }
        for graph in g.iter_mut().map(|g| &mut **g).chain(graphs) {
            in_graph(graph, depth + 1, visit).at(place)?;
        }
    }
    Ok(())
}

fn in_sparse(sparse: &mut SparseTensorProto, visit: &mut dyn FnMut(&mut TensorProto) -> Result<()>) -> Result<()> {
    for tensor in sparse.values.iter_mut().chain(&mut sparse.indices) {
        named(tensor, visit)?;
    }
    Ok(())
}

fn named(tensor: &mut TensorProto, visit: &mut dyn FnMut(&mut TensorProto) -> Result<()>) -> Result<()> {
    visit(tensor).map_err(|e| match tensor.name.as_deref() {
        Some(name) if !name.is_empty() => e.at(format_args!("tensor {name:?}")),
        _ => e,
    })
}
