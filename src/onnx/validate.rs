//! Is this a model? The checks every model passes before anything else looks at it.
//!
//! They are what the rest of the library relies on: sizes that agree with shapes, names that resolve, no
//! value made twice, no cycle, bounded depth. Operators and attributes are not judged here: what this
//! version does not understand goes through untouched, and ONNX Runtime has the last word.

use super::dtype::{DataType, element_count};
use super::external_data::stored_bytes;
use super::proto::*;
use crate::error::{Context, Result, bail};
use crate::limits;
use std::collections::{HashMap, HashSet};

/// Checks one tensor: type, shape and number of elements agree.
pub fn tensor(tensor: &TensorProto) -> Result<()> {
    if tensor.dims.len() > limits::TENSOR_RANK {
        bail!(LimitExceeded, "has {} dimensions (at most {})", tensor.dims.len(), limits::TENSOR_RANK);
    }
    let count = element_count(&tensor.dims)?;
    let Some(number) = tensor.data_type.filter(|&n| n != 0) else { bail!(InvalidModel, "has no element type") };
    // Types newer than this version are carried along unjudged.
    let Some(dtype) = DataType::from_onnx(number) else { return Ok(()) };
    if let Some(raw) = &tensor.raw_data {
        let expected = stored_bytes(tensor)?;
        if raw.len() as u64 != expected {
            let (shape, name) = (&tensor.dims, dtype.name());
            bail!(InvalidModel, "holds {} bytes, but {name} of shape {shape:?} needs {expected}", raw.len());
        }
        return Ok(());
    }
    let (found, expected) = typed_count(tensor, dtype, count);
    if found != expected {
        bail!(InvalidModel, "holds {found} values, but {} of shape {:?} needs {expected}", dtype.name(), tensor.dims);
    }
    Ok(())
}

/// Values found and values needed in the typed field that belongs to `dtype` (table in `onnx.proto`).
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

/// Checks the structure of a whole model; tensors were checked one by one before.
pub fn model(model: &ModelProto) -> Result<()> {
    let Some(graph) = &model.graph else {
        bail!(InvalidModel, "holds no graph: not an ONNX model, or one cut short");
    };
    match model.ir_version {
        Some(1..=1000) => {}
        Some(version) => bail!(InvalidModel, "the IR version {version} is not one of ONNX"),
        None => bail!(InvalidModel, "has no IR version: not an ONNX model"),
    }
    for import in &model.opset_import {
        if import.version.unwrap_or(0) < 1 {
            let domain = import.domain.as_deref().unwrap_or("");
            bail!(InvalidModel, "opset_import {domain:?} has version {}", import.version.unwrap_or(0));
        }
    }
    let mut nodes = 0;
    check_graph(graph, &Scope::default(), 0, &mut nodes).at(|| "graph")?;
    functions(model, &mut nodes)
}

/// Names visible in a graph: its own and, behind them, those of the graphs around it.
#[derive(Default)]
struct Scope<'a> {
    names: HashSet<&'a str>,
    outer: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    fn sees(&self, name: &str) -> bool {
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
    let sparse = graph.sparse_initializer.iter().filter_map(|s| s.values.as_deref());
    for (index, tensor) in graph.initializer.iter().chain(sparse).enumerate() {
        let name = tensor.name.as_deref().unwrap_or("");
        if name.is_empty() {
            bail!(InvalidModel, "initializer[{index}] has no name");
        }
        if !constants.insert(name) {
            bail!(InvalidModel, "two initializers are named {name:?}");
        }
        names.insert(name);
    }
    check_nodes(&graph.node, names, outer, depth, nodes)?;
    Ok(())
}

/// Checks nodes in a scope and returns nothing: names made twice, unknown inputs and cycles are errors.
fn check_nodes<'a>(
    list: &'a [NodeProto],
    mut names: HashSet<&'a str>,
    outer: &Scope<'_>,
    depth: usize,
    nodes: &mut usize,
) -> Result<()> {
    *nodes += list.len();
    if *nodes > limits::NODES {
        bail!(LimitExceeded, "more than {} nodes", limits::NODES);
    }
    let mut producer = HashMap::new();
    for (index, node) in list.iter().enumerate() {
        let place = || place_of(node, index);
        if node.op_type.as_deref().unwrap_or("").is_empty() {
            bail!(InvalidModel, "{}: has no operator type", place());
        }
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            if producer.insert(output.as_str(), index).is_some() || !names.insert(output) {
                bail!(InvalidModel, "{}: the value {output:?} is made twice", place());
            }
        }
    }
    let scope = Scope { names, outer: Some(outer) };
    for (index, node) in list.iter().enumerate() {
        for input in node.input.iter().filter(|name| !name.is_empty()) {
            if !scope.sees(input) {
                bail!(InvalidModel, "{}: the input {input:?} is made by nothing", place_of(node, index));
            }
        }
        for graph in subgraphs(node) {
            check_graph(graph, &scope, depth + 1, nodes).at(|| place_of(node, index))?;
        }
    }
    cycles(list, &producer)
}

/// Every node must be reachable without waiting for itself. Values that subgraphs capture count as inputs.
fn cycles(list: &[NodeProto], producer: &HashMap<&str, usize>) -> Result<()> {
    if in_order(list, producer) {
        return Ok(());
    }
    let mut waiting: Vec<usize> = vec![0; list.len()];
    let mut consumers: Vec<Vec<usize>> = vec![Vec::new(); list.len()];
    for (index, node) in list.iter().enumerate() {
        for from in reads(node).into_iter().filter_map(|name| producer.get(name)) {
            consumers[*from].push(index);
            waiting[index] += 1;
        }
    }
    let mut ready: Vec<usize> = (0..list.len()).filter(|&i| waiting[i] == 0).collect();
    let mut done = 0;
    while let Some(index) = ready.pop() {
        done += 1;
        for &next in &consumers[index] {
            waiting[next] -= 1;
            if waiting[next] == 0 {
                ready.push(next);
            }
        }
    }
    match (0..list.len()).find(|&i| waiting[i] > 0) {
        Some(index) if done < list.len() => {
            bail!(InvalidModel, "{}: takes part in a cycle", place_of(&list[index], index))
        }
        _ => Ok(()),
    }
}

fn in_order(list: &[NodeProto], producer: &HashMap<&str, usize>) -> bool {
    let earlier = |index: usize, name: &str| producer.get(name).is_none_or(|&from| from < index);
    list.iter().enumerate().all(|(index, node)| reads(node).into_iter().all(|name| earlier(index, name)))
}

/// Names a node reads: its inputs, and what its subgraphs take from around them.
fn reads(node: &NodeProto) -> Vec<&str> {
    let mut names: Vec<&str> = node.input.iter().map(String::as_str).filter(|n| !n.is_empty()).collect();
    for graph in subgraphs(node) {
        let own: HashSet<&str> = graph
            .input
            .iter()
            .filter_map(|i| i.name.as_deref())
            .chain(graph.initializer.iter().filter_map(|t| t.name.as_deref()))
            .chain(graph.node.iter().flat_map(|n| n.output.iter().map(String::as_str)))
            .collect();
        let outputs = graph.output.iter().filter_map(|o| o.name.as_deref());
        names.extend(graph.node.iter().flat_map(reads).chain(outputs).filter(|name| !own.contains(name)));
    }
    names
}

fn functions(model: &ModelProto, nodes: &mut usize) -> Result<()> {
    let key = |domain: &Option<String>, name: &Option<String>| {
        (domain.clone().unwrap_or_default(), name.clone().unwrap_or_default())
    };
    let mut known: HashMap<(String, String), Vec<usize>> = HashMap::new();
    for (index, function) in model.functions.iter().enumerate() {
        let names = function.input.iter().map(String::as_str).filter(|n| !n.is_empty()).collect();
        check_nodes(&function.node, names, &Scope::default(), 0, nodes)
            .at(|| format!("functions[{index}] {:?}", function.name.as_deref().unwrap_or("")))?;
        known.entry(key(&function.domain, &function.name)).or_default().push(index);
    }
    // Depth-first over the calls; a function met again while it is open calls itself.
    let mut state = vec![0u8; model.functions.len()];
    for start in 0..model.functions.len() {
        let mut stack = vec![(start, false)];
        while let Some((index, leaving)) = stack.pop() {
            if leaving {
                state[index] = 2;
                continue;
            }
            if state[index] != 0 {
                continue;
            }
            state[index] = 1;
            stack.push((index, true));
            for node in all_nodes(&model.functions[index].node) {
                for &called in known.get(&key(&node.domain, &node.op_type)).into_iter().flatten() {
                    if state[called] == 1 {
                        let name = model.functions[called].name.as_deref().unwrap_or("");
                        bail!(InvalidModel, "functions[{called}]: the function {name:?} calls itself");
                    }
                    stack.push((called, false));
                }
            }
        }
    }
    Ok(())
}

fn all_nodes(list: &[NodeProto]) -> Vec<&NodeProto> {
    let mut nodes = Vec::new();
    for node in list {
        nodes.push(node);
        nodes.extend(subgraphs(node).flat_map(|graph| all_nodes(&graph.node)));
    }
    nodes
}

/// The graphs inside a node's attributes.
pub fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|a| a.g.as_deref().into_iter().chain(&a.graphs))
}

fn place_of(node: &NodeProto, index: usize) -> String {
    let op = node.op_type.as_deref().unwrap_or("?");
    match node.name.as_deref().unwrap_or("") {
        "" => format!("node[{index}] {op}"),
        name => format!("node[{index}] {op} {name:?}"),
    }
}
