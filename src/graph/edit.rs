//! Editing of a model: iteration over its graphs and functions with the ids of a [`View`](super::View), new names, and
//! functions that build nodes, attributes, tensors and declarations.

use super::BodyId;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::*;
use crate::onnx::validate::all_nodes;
use bytes::Bytes;
use std::collections::HashSet;

/// The nodes and constants of a graph or function, for editing.
pub struct BodyMut<'a> {
    /// Nodes of the graph or function.
    pub nodes: &'a mut Vec<NodeProto>,
    /// Initializers of the graph; `None` in a function, where constants are nodes.
    pub initializers: Option<&'a mut Vec<TensorProto>>,
    /// Inputs of the graph; `None` in a function.
    pub inputs: Option<&'a mut Vec<ValueInfoProto>>,
}

/// Calls `visit` for all graphs and functions, with their ids in a view of the same model.
///
/// The subgraphs of a node are visited before the graph that contains the node, so that `visit` may replace nodes.
pub fn for_each_body(model: &mut ModelProto, visit: &mut dyn FnMut(BodyId, BodyMut<'_>)) {
    let mut next = 0;
    if let Some(graph) = &mut model.graph {
        in_graph(graph, &mut next, visit);
    }
    for function in &mut model.functions {
        let id = next;
        next += 1;
        in_nodes(&mut function.node, &mut next, visit);
        visit(id, BodyMut { nodes: &mut function.node, initializers: None, inputs: None });
    }
}

fn in_graph(graph: &mut GraphProto, next: &mut BodyId, visit: &mut dyn FnMut(BodyId, BodyMut<'_>)) {
    let id = *next;
    *next += 1;
    in_nodes(&mut graph.node, next, visit);
    let GraphProto { node, initializer, input, .. } = graph;
    visit(id, BodyMut { nodes: node, initializers: Some(initializer), inputs: Some(input) });
}

fn in_nodes(nodes: &mut [NodeProto], next: &mut BodyId, visit: &mut dyn FnMut(BodyId, BodyMut<'_>)) {
    for attribute in nodes.iter_mut().flat_map(|n| &mut n.attribute) {
        for graph in attribute.g.iter_mut().map(|g| &mut **g).chain(&mut attribute.graphs) {
            in_graph(graph, next, visit);
        }
    }
}

impl BodyMut<'_> {
    /// Adds a constant: an initializer, or in a function a `Constant` node at the start.
    pub fn add_constant(&mut self, tensor: TensorProto) {
        match &mut self.initializers {
            Some(list) => list.push(tensor),
            None => {
                let mut constant = node("Constant", &[], &[tensor.name.as_deref().unwrap_or("")]);
                constant.attribute = vec![tensor_attribute("value", TensorProto { name: None, ..tensor })];
                self.nodes.insert(0, constant);
            }
        }
    }

    /// Removes the initializers and the inputs with these names, and the nodes whose outputs all have these names.
    pub fn remove_values(&mut self, names: &HashSet<String>) {
        if let Some(list) = &mut self.initializers {
            list.retain(|t| !t.name.as_ref().is_some_and(|n| names.contains(n)));
        }
        if let Some(list) = &mut self.inputs {
            list.retain(|i| !i.name.as_ref().is_some_and(|n| names.contains(n)));
        }
        let unused = |node: &NodeProto| !node.output.is_empty() && node.output.iter().all(|o| names.contains(o));
        self.nodes.retain(|node| !unused(node));
    }
}

/// The names of values and nodes that are used, for creating new ones.
#[derive(Debug)]
pub struct Names {
    taken: HashSet<String>,
    /// Number that is appended to a name the first time it is taken already.
    first: usize,
}

impl Default for Names {
    fn default() -> Names {
        Names::counting_from(2)
    }
}

impl Names {
    /// Returns an empty set that numbers repeated names from `first` on.
    pub fn counting_from(first: usize) -> Names {
        Names { taken: HashSet::new(), first }
    }

    /// Returns the names of the nodes and values of `model`, including those in subgraphs and functions.
    pub fn of(model: &ModelProto) -> Names {
        let mut names = Names::default();
        for body in super::View::new(model).bodies {
            for node in body.nodes {
                names.taken.extend(node.input.iter().chain(&node.output).chain(&node.name).cloned());
            }
            if let Some(graph) = body.graph {
                names.taken.extend(graph.initializer.iter().filter_map(|t| t.name.clone()));
                let values = graph.input.iter().chain(&graph.output).chain(&graph.value_info);
                names.taken.extend(values.filter_map(|v| v.name.clone()));
            }
        }
        names
    }

    /// Returns `wanted`, or if it is used the first unused of `wanted_2`, `wanted_3` and so on, and marks the result as
    /// used. [`Names::counting_from`] sets another first number than 2.
    pub fn fresh(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut count = self.first;
        while !self.taken.insert(name.clone()) {
            name = format!("{wanted}_{count}");
            count += 1;
        }
        name
    }

    /// Marks a name as used, and returns whether it was free.
    pub fn take(&mut self, name: &str) -> bool {
        self.taken.insert(name.to_owned())
    }

    /// Returns whether a name is used.
    pub fn contains(&self, name: &str) -> bool {
        self.taken.contains(name)
    }
}

/// Returns a node of the default domain.
pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    NodeProto { op_type: Some(op.to_owned()), input: own(inputs), output: own(outputs), ..Default::default() }
}

/// Returns an integer attribute.
pub fn int_attribute(name: &str, value: i64) -> AttributeProto {
    let kind = Some(attribute_kind::INT);
    AttributeProto { name: Some(name.to_owned()), kind, i: Some(value), ..Default::default() }
}

/// Returns an attribute with a list of integers.
pub fn ints_attribute(name: &str, values: &[i64]) -> AttributeProto {
    let kind = Some(attribute_kind::INTS);
    AttributeProto { name: Some(name.to_owned()), kind, ints: values.to_vec(), ..Default::default() }
}

/// Returns a float attribute.
pub fn float_attribute(name: &str, value: f32) -> AttributeProto {
    let kind = Some(attribute_kind::FLOAT);
    AttributeProto { name: Some(name.to_owned()), kind, f: Some(value), ..Default::default() }
}

/// Returns a string attribute.
pub fn text_attribute(name: &str, value: &str) -> AttributeProto {
    let (kind, s) = (Some(attribute_kind::STRING), Some(Bytes::copy_from_slice(value.as_bytes())));
    AttributeProto { name: Some(name.to_owned()), kind, s, ..Default::default() }
}

/// Returns a tensor attribute.
pub fn tensor_attribute(name: &str, value: TensorProto) -> AttributeProto {
    let (kind, t) = (Some(attribute_kind::TENSOR), Some(Box::new(value)));
    AttributeProto { name: Some(name.to_owned()), kind, t, ..Default::default() }
}

/// Returns a graph attribute, such as a branch of `If`.
pub fn graph_attribute(name: &str, value: GraphProto) -> AttributeProto {
    let (kind, g) = (Some(attribute_kind::GRAPH), Some(Box::new(value)));
    AttributeProto { name: Some(name.to_owned()), kind, g, ..Default::default() }
}

/// Returns the declaration of an input or output with `rank` dynamic dimensions without names.
pub fn value(name: &str, dtype: DataType, rank: usize) -> ValueInfoProto {
    let shape = TensorShapeProto { dim: vec![DimensionProto::default(); rank], ..Default::default() };
    let tensor =
        TensorTypeProto { elem_type: Some(dtype.to_onnx()), shape: Some(Box::new(shape)), ..Default::default() };
    let value_type = TypeProto { tensor_type: Some(Box::new(tensor)), ..Default::default() };
    ValueInfoProto { value_type: Some(Box::new(value_type)), ..untyped(name) }
}

/// Returns the declaration of an input or output without a type.
pub fn untyped(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.to_owned()), ..Default::default() }
}

/// Returns a constant tensor of raw little-endian bytes.
pub fn tensor(name: &str, dtype: DataType, dims: &[i64], raw: Bytes) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        data_type: Some(dtype.to_onnx()),
        dims: dims.to_vec(),
        raw_data: Some(raw),
        ..Default::default()
    }
}

/// Returns a float32 constant tensor.
pub fn float_tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    tensor(name, DataType::Float32, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// Adds the import of `domain` with `version`, unless the domain is already imported, in any version.
pub fn import_domain(imports: &mut Vec<OperatorSetIdProto>, domain: &str, version: i64) {
    if !imports.iter().any(|i| i.domain.as_deref().unwrap_or("") == domain) {
        let (domain, version) = (Some(domain.to_owned()), Some(version));
        imports.push(OperatorSetIdProto { domain, version, ..Default::default() });
    }
}

/// Adds the import of `domain` to the model, and to each function, if they or their subgraphs have nodes of it: ONNX
/// Runtime resolves the nodes of a function by the function's own imports.
pub fn import_where_used(model: &mut ModelProto, domain: &str, version: i64) {
    fn uses(nodes: &[NodeProto], domain: &str) -> bool {
        all_nodes(nodes).any(|node| node.domain.as_deref() == Some(domain))
    }
    let mut used = model.graph.as_deref().is_some_and(|graph| uses(&graph.node, domain));
    for function in model.functions.iter_mut().filter(|function| uses(&function.node, domain)) {
        import_domain(&mut function.opset_import, domain, version);
        used = true;
    }
    if used {
        import_domain(&mut model.opset_import, domain, version);
    }
}

/// Converts a model of an IR version below 4 to version 4, in which initializers need not be inputs; newer models stay
/// unchanged.
///
/// Before version 4, every initializer had to be listed as an input and still was constant. From version 4 on, such an
/// entry would make the constant overridable, so the entries are removed.
pub fn modernize_ir(model: &mut ModelProto) {
    if model.ir_version.unwrap_or(0) >= 4 {
        return;
    }
    model.ir_version = Some(4);
    for_each_body(model, &mut |_, body| {
        if let (Some(inputs), Some(initializers)) = (body.inputs, body.initializers) {
            let constants: HashSet<&str> = initializers.iter().filter_map(|t| t.name.as_deref()).collect();
            inputs.retain(|i| !constants.contains(i.name.as_deref().unwrap_or("")));
        }
    });
}
