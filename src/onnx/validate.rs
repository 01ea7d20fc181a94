//! The checks of every model that is loaded from a file or from bytes.
//!
//! The rest of the library relies on them: sizes of tensors agree with shapes, names resolve, no value is produced
//! twice, there is no cycle, and the nesting of graphs is bounded. Operators and attributes are not checked: unknown
//! ones are preserved, and ONNX Runtime decides. Tensors with an element type that this version does not know are
//! preserved without a check of their size.

use super::dtype::{DataType, element_count};
use super::external_data::stored_bytes;
use super::proto::*;
use super::{functions, order};
use crate::error::{Context, Result, bail};
use crate::limits;
use std::collections::{HashMap, HashSet};

/// Checks a tensor. Fails with `InvalidModel` if its type, shape and number of elements do not agree, and with
/// `LimitExceeded` if it has too many dimensions.
pub fn tensor(tensor: &TensorProto) -> Result<()> {
    rank(tensor.dims.len())?;
    let count = element_count(&tensor.dims)?;
    let Some(number) = tensor.data_type.filter(|&n| n != 0) else {
        bail!(InvalidModel, "the tensor has no element type")
    };
    // Types newer than this version are kept without a check.
    let Some(dtype) = DataType::from_onnx(number) else { return Ok(()) };
    let (found, expected) = typed_count(tensor, dtype, count);
    let (shape, name, all) = (&tensor.dims, dtype.name(), typed_values(tensor));
    if let Some(raw) = &tensor.raw_data {
        let bytes = stored_bytes(tensor)?;
        if raw.len() as u64 != bytes {
            bail!(InvalidModel, "the tensor has {} bytes, but {name} of shape {shape:?} needs {bytes}", raw.len());
        }
        if all > 0 {
            bail!(InvalidModel, "the tensor has its elements twice: in raw_data and in {all} typed values");
        }
        return Ok(());
    }
    if found != expected {
        bail!(InvalidModel, "the tensor has {found} values, but {name} of shape {shape:?} needs {expected}");
    }
    if all != found {
        bail!(InvalidModel, "the tensor has {} values in fields that are not for {name}", all - found);
    }
    Ok(())
}

/// Returns the number of values found and required in the typed field of `dtype` (table in `onnx.proto`).
fn typed_count(tensor: &TensorProto, dtype: DataType, count: u64) -> (u64, u64) {
    use DataType::*;
    match dtype {
        Float32 => (tensor.float_data.0.len() as u64, count),
        Complex64 => (tensor.float_data.0.len() as u64, count.saturating_mul(2)),
        Float64 => (tensor.double_data.0.len() as u64, count),
        Complex128 => (tensor.double_data.0.len() as u64, count.saturating_mul(2)),
        Int64 => (tensor.int64_data.0.len() as u64, count),
        Uint32 | Uint64 => (tensor.uint64_data.0.len() as u64, count),
        String => (tensor.string_data.len() as u64, count),
        Uint4 | Int4 | Float4E2m1 => (tensor.int32_data.0.len() as u64, count.div_ceil(2)),
        Uint2 | Int2 => (tensor.int32_data.0.len() as u64, count.div_ceil(4)),
        _ => (tensor.int32_data.0.len() as u64, count),
    }
}

/// Returns the number of values in all typed fields.
fn typed_values(tensor: &TensorProto) -> u64 {
    let lengths = [
        tensor.float_data.0.len(),
        tensor.int32_data.0.len(),
        tensor.string_data.len(),
        tensor.int64_data.0.len(),
        tensor.double_data.0.len(),
        tensor.uint64_data.0.len(),
    ];
    lengths.iter().map(|&length| length as u64).sum()
}

/// Checks a sparse tensor. Fails with `InvalidModel` if its parts do not agree, and with `LimitExceeded` if it has too
/// many dimensions or the dense tensor to which ONNX Runtime converts it would be too large.
fn sparse(sparse: &SparseTensorProto) -> Result<()> {
    let (Some(values), Some(indices)) = (&sparse.values, &sparse.indices) else {
        bail!(InvalidModel, "a sparse tensor lacks its values or its indices");
    };
    rank(sparse.dims.len())?;
    let dense = element_count(&sparse.dims)?;
    if dense > limits::TENSOR_ELEMENTS {
        bail!(LimitExceeded, "a sparse tensor of {dense} elements; the limit is {}", limits::TENSOR_ELEMENTS);
    }
    let (&[count], shape) = (values.dims.as_slice(), indices.dims.as_slice()) else {
        bail!(InvalidModel, "the values of a sparse tensor have the shape {:?}, not one dimension", values.dims);
    };
    let ranks = sparse.dims.len() as i64;
    if count as u64 > dense || (shape != [count] && shape != [count, ranks]) {
        let dims = &sparse.dims;
        bail!(InvalidModel, "{count} sparse values with indices of shape {shape:?} do not match the shape {dims:?}");
    }
    Ok(())
}

fn rank(dimensions: usize) -> Result<()> {
    if dimensions > limits::TENSOR_RANK {
        bail!(LimitExceeded, "the tensor has {dimensions} dimensions; the limit is {}", limits::TENSOR_RANK);
    }
    Ok(())
}

/// Checks that a message is a model: it must have a graph and a valid IR version, and its operator sets must have valid
/// versions. Fails with `InvalidModel` if it is not.
pub fn header(model: &ModelProto) -> Result<()> {
    if model.graph.is_none() {
        bail!(InvalidModel, "the file has no graph: it is not an ONNX model, or truncated");
    }
    match model.ir_version {
        Some(1..=1000) => {}
        Some(version) => bail!(InvalidModel, "the IR version {version} is not one of ONNX"),
        None => bail!(InvalidModel, "the file has no IR version: it is not an ONNX model"),
    }
    operator_sets(&model.opset_import)
}

pub(super) fn operator_sets(imports: &[OperatorSetIdProto]) -> Result<()> {
    for import in imports {
        if import.version.unwrap_or(0) < 1 {
            let domain = import.domain.as_deref().unwrap_or("");
            bail!(InvalidModel, "opset_import {domain:?} has version {}", import.version.unwrap_or(0));
        }
    }
    Ok(())
}

/// Checks the structure of a model. Fails with `InvalidModel` if it is invalid, and with `LimitExceeded` if it has too
/// many nodes, dimensions of an input or output, or levels of nested graphs. [`header`] and [`tensor`] must have
/// checked its header and its tensors.
pub fn model(model: &ModelProto) -> Result<()> {
    let mut nodes = 0;
    if let Some(graph) = &model.graph {
        check_graph(graph, &Scope::default(), 0, &mut nodes).at(|| "graph")?;
    }
    functions::check(model, &mut nodes)
}

/// The names that are visible in a graph: its own and those of the enclosing graphs.
#[derive(Default)]
pub(super) struct Scope<'a> {
    names: HashSet<&'a str>,
    outer: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    pub(super) fn sees(&self, name: &str) -> bool {
        self.names.contains(name) || self.outer.is_some_and(|outer| outer.sees(name))
    }
}

fn check_graph(graph: &GraphProto, outer: &Scope<'_>, depth: usize, nodes: &mut usize) -> Result<()> {
    if depth > limits::SUBGRAPH_DEPTH {
        bail!(LimitExceeded, "graphs are nested deeper than {}", limits::SUBGRAPH_DEPTH);
    }
    let mut names = HashSet::new();
    for (index, input) in graph.input.iter().enumerate() {
        let name = input.name.as_deref().unwrap_or("");
        if name.is_empty() {
            bail!(InvalidModel, "input[{index}] has no name");
        }
        if !names.insert(name) {
            bail!(InvalidModel, "two inputs are named {name:?}");
        }
    }
    let mut constants = HashSet::new();
    for tensor in &graph.sparse_initializer {
        sparse(tensor).at(|| "sparse_initializer")?;
    }
    let values = graph.sparse_initializer.iter().filter_map(|s| s.values.as_deref());
    for (index, tensor) in graph.initializer.iter().chain(values).enumerate() {
        let name = tensor.name.as_deref().unwrap_or("");
        if name.is_empty() {
            bail!(InvalidModel, "initializer[{index}] has no name");
        }
        if !constants.insert(name) {
            bail!(InvalidModel, "two initializers are named {name:?}");
        }
        names.insert(name);
    }
    let scope = check_nodes(&graph.node, names, outer, depth, nodes)?;
    let mut seen = HashSet::new();
    for (index, output) in graph.output.iter().enumerate() {
        let name = output.name.as_deref().unwrap_or("");
        if !scope.sees(name) {
            bail!(InvalidModel, "output[{index}] {name:?} is not produced by any node");
        }
        // A branch may output one value twice; the outputs of a run are selected by name.
        if !seen.insert(name) && depth == 0 {
            bail!(InvalidModel, "two outputs are named {name:?}");
        }
    }
    let described = graph.input.iter().chain(&graph.output).filter(|_| depth == 0);
    for value in described {
        declared_shape(value).at(|| format!("value {:?}", value.name.as_deref().unwrap_or("")))?;
    }
    Ok(())
}

/// Checks the shape of an input or output. Fails with `InvalidModel` for a dimension with both a size and a name:
/// readers use the one that comes last in the file, and this library does not preserve the order of the two.
fn declared_shape(value: &ValueInfoProto) -> Result<()> {
    let tensor = value.value_type.as_deref().and_then(|t| t.tensor_type.as_deref());
    let Some(shape) = tensor.and_then(|t| t.shape.as_deref()) else { return Ok(()) };
    rank(shape.dim.len())?;
    if let Some(both) = shape.dim.iter().position(|d| d.dim_value.is_some() && d.dim_param.is_some()) {
        bail!(InvalidModel, "the dimension {both} has both a size and a name");
    }
    Ok(())
}

/// Returns the names that are visible after the nodes `list`: `names` and those that the nodes produce, inside those of
/// `outer`. Adds the number of nodes to `nodes`. Fails for names that are produced twice, unknown inputs, cycles and
/// too many nodes.
pub(super) fn check_nodes<'a>(
    list: &'a [NodeProto],
    mut names: HashSet<&'a str>,
    outer: &'a Scope<'a>,
    depth: usize,
    nodes: &mut usize,
) -> Result<Scope<'a>> {
    *nodes += list.len();
    if *nodes > limits::NODES {
        bail!(LimitExceeded, "the model has more than {} nodes", limits::NODES);
    }
    let mut producer = HashMap::new();
    for (index, node) in list.iter().enumerate() {
        let place = || place_of(node, index);
        if node.op_type.as_deref().unwrap_or("").is_empty() {
            bail!(InvalidModel, "{}: the node has no operator type", place());
        }
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            if producer.insert(output.as_str(), index).is_some() || !names.insert(output) {
                bail!(InvalidModel, "{}: the value {output:?} is produced twice", place());
            }
        }
    }
    let scope = Scope { names, outer: Some(outer) };
    for (index, node) in list.iter().enumerate() {
        for input in node.input.iter().filter(|name| !name.is_empty()) {
            if !scope.sees(input) {
                bail!(InvalidModel, "{}: the input {input:?} is not produced by any node", place_of(node, index));
            }
        }
        for tensor in
            node.attribute.iter().flat_map(|a| a.sparse_tensor.as_deref().into_iter().chain(&a.sparse_tensors))
        {
            sparse(tensor).at(|| place_of(node, index))?;
        }
        for graph in subgraphs(node) {
            check_graph(graph, &scope, depth + 1, nodes).at(|| place_of(node, index))?;
        }
    }
    order::sort(list, &producer)?;
    Ok(scope)
}

/// Returns the subgraphs in the attributes of a node, without those that are nested in them.
pub fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|a| a.g.as_deref().into_iter().chain(&a.graphs))
}

/// Returns the nodes of a list and of their subgraphs, at any depth; a node comes before those of its subgraphs.
pub fn all_nodes(list: &[NodeProto]) -> impl Iterator<Item = &NodeProto> {
    let mut open = vec![list.iter()];
    std::iter::from_fn(move || {
        loop {
            let Some(node) = open.last_mut()?.next() else {
                open.pop();
                continue;
            };
            let outside = open.len();
            open.extend(subgraphs(node).map(|graph| graph.node.iter()));
            open[outside..].reverse();
            return Some(node);
        }
    })
}

/// Returns the nodes of a model: those of its graph, its functions and all subgraphs.
pub fn model_nodes(model: &ModelProto) -> impl Iterator<Item = &NodeProto> {
    let graphs = model.graph.iter().map(|graph| &graph.node);
    graphs.chain(model.functions.iter().map(|function| &function.node)).flat_map(|nodes| all_nodes(nodes))
}

pub(super) fn place_of(node: &NodeProto, index: usize) -> String {
    let op = node.op_type.as_deref().filter(|op| !op.is_empty()).unwrap_or("?");
    match node.name.as_deref().unwrap_or("") {
        "" => format!("node[{index}] {op}"),
        name => format!("node[{index}] {op} {name:?}"),
    }
}
