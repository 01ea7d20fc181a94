//! Calls of a function for all constant tensors of a model, wherever they are in the file.

use super::proto::*;
use super::validate::place_of;
use crate::error::{Context, Result, bail};
use crate::limits;

/// Calls `visit` for every tensor of a model: initializers, sparse initializers (values and indices) and attributes, in
/// the main graph, subgraphs, functions and training graphs. Stops at the first error of `visit`, and returns it with
/// the place of the tensor. Fails with `LimitExceeded` if graphs are nested too deeply.
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
        for (part, graph) in [("initialization", &mut info.initialization), ("algorithm", &mut info.algorithm)] {
            let Some(graph) = graph else { continue };
            in_graph(graph, 0, visit).at(|| format!("training_info[{index}].{part}"))?;
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
        in_attributes(&mut node.attribute, depth, visit).at(|| place_of(node, index))?;
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

/// Returns whether a tensor of the model refers to external data. After loading, none does.
pub fn any_external(model: &ModelProto) -> bool {
    let training = model.training_info.iter().flat_map(|i| i.initialization.iter().chain(&i.algorithm));
    let functions = model.functions.iter();
    model.graph.iter().chain(training).any(|graph| external_in_graph(graph))
        || functions.clone().flat_map(|f| &f.node).flat_map(|n| &n.attribute).any(external_in_attribute)
        || functions.flat_map(|f| &f.attribute_proto).any(external_in_attribute)
}

fn external_in_graph(graph: &GraphProto) -> bool {
    graph.initializer.iter().any(is_external)
        || graph.sparse_initializer.iter().any(external_in_sparse)
        || graph.node.iter().flat_map(|n| &n.attribute).any(external_in_attribute)
}

fn external_in_attribute(attribute: &AttributeProto) -> bool {
    attribute.t.iter().map(|t| &**t).chain(&attribute.tensors).any(is_external)
        || attribute.sparse_tensor.iter().map(|t| &**t).chain(&attribute.sparse_tensors).any(external_in_sparse)
        || attribute.g.iter().map(|g| &**g).chain(&attribute.graphs).any(external_in_graph)
}

fn external_in_sparse(sparse: &SparseTensorProto) -> bool {
    sparse.values.iter().chain(&sparse.indices).any(|tensor| is_external(tensor))
}

fn is_external(tensor: &TensorProto) -> bool {
    !tensor.external_data.is_empty() || tensor.data_location.is_some_and(|location| location != 0)
}

/// Calls `visit` for the dense initializers of a graph and of the subgraphs of its nodes, in a fixed order.
pub fn for_each_initializer(graph: &mut GraphProto, visit: &mut dyn FnMut(&mut TensorProto)) {
    graph.initializer.iter_mut().for_each(&mut *visit);
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        for inner in attribute.g.iter_mut().map(|g| &mut **g).chain(&mut attribute.graphs) {
            for_each_initializer(inner, visit);
        }
    }
}
