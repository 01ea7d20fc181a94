//! Indices of the values and nodes of an immutable model.

use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto};
use crate::onnx::validate::subgraphs;
use std::collections::HashMap;

/// The id of a graph or function. Ids count in depth-first order: the main graph is 0; its subgraphs follow, node by
/// node, each with its own subgraphs after it; then the functions, each with its subgraphs after it.
pub type BodyId = usize;

/// The IR version from which on an initializer that is also an input is only its default value.
const DEFAULTS_IR: i64 = 4;

/// The producer of a value inside a graph or function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Producer {
    /// An input of the graph, for example of a loop body, or of the function.
    Input,
    /// The initializer with this index, which may also be an input that has it as its default.
    Initializer(usize),
    /// The sparse initializer with this index.
    Sparse(usize),
    /// An output of the node with this index.
    Node(usize),
}

/// A place where a value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// The input with index `input` of the node with index `node` in `body`.
    #[allow(missing_docs)] // the line above documents it
    Node { body: BodyId, node: usize, input: usize },
    /// An output of `body`.
    #[allow(missing_docs)] // the line above documents it
    Output { body: BodyId },
}

/// A graph or function, with its place in the model.
pub struct Body<'a> {
    /// Id of the enclosing graph or function, whose values it can read; `None` for the main graph and functions.
    pub parent: Option<BodyId>,
    /// Nodes in the order of the file.
    pub nodes: &'a [NodeProto],
    /// Message of the graph; `None` for a function, which has no initializers.
    pub graph: Option<&'a GraphProto>,
    /// Index of the function in [`ModelProto::functions`], also for the subgraphs in it; `None` outside of functions.
    pub function: Option<usize>,
    producers: HashMap<&'a str, Producer>,
}

/// All graphs and functions of a model, with the producer and the readers of each value.
pub struct View<'a> {
    /// Graphs and functions, indexed by [`BodyId`].
    pub bodies: Vec<Body<'a>>,
    /// Uses of each value, for each graph or function.
    uses: Vec<HashMap<&'a str, Vec<Use>>>,
    /// Whether initializers of the main graph that are also inputs are defaults. Before IR version 4 every initializer
    /// had to be an input, and was constant nevertheless.
    defaults: bool,
}

impl<'a> View<'a> {
    /// Returns a view of `model`. The time is linear in the number of nodes; weights are not read.
    pub fn new(model: &'a ModelProto) -> View<'a> {
        let defaults = model.ir_version.unwrap_or(0) >= DEFAULTS_IR;
        let mut view = View { bodies: Vec::new(), uses: Vec::new(), defaults };
        if let Some(graph) = &model.graph {
            view.add_graph(graph, None, None);
        }
        for (index, function) in model.functions.iter().enumerate() {
            let inputs = function.input.iter().map(|name| (name.as_str(), Producer::Input)).collect();
            view.add_body(&function.node, None, inputs, None, Some(index));
        }
        view.index_uses(model);
        view
    }

    fn add_graph(&mut self, graph: &'a GraphProto, parent: Option<BodyId>, function: Option<usize>) {
        let mut producers = HashMap::new();
        producers.extend(graph.input.iter().filter_map(|i| Some((i.name.as_deref()?, Producer::Input))));
        let sparse = graph.sparse_initializer.iter().enumerate();
        producers
            .extend(sparse.filter_map(|(i, s)| Some((s.values.as_deref()?.name.as_deref()?, Producer::Sparse(i)))));
        let initializers = graph.initializer.iter().enumerate();
        producers.extend(initializers.filter_map(|(i, t)| Some((t.name.as_deref()?, Producer::Initializer(i)))));
        self.add_body(&graph.node, parent, producers, Some(graph), function);
    }

    fn add_body(
        &mut self,
        nodes: &'a [NodeProto],
        parent: Option<BodyId>,
        mut producers: HashMap<&'a str, Producer>,
        graph: Option<&'a GraphProto>,
        function: Option<usize>,
    ) {
        for (index, node) in nodes.iter().enumerate() {
            let outputs = node.output.iter().filter(|name| !name.is_empty());
            producers.extend(outputs.map(|name| (name.as_str(), Producer::Node(index))));
        }
        let id = self.bodies.len();
        self.bodies.push(Body { parent, nodes, graph, function, producers });
        for graph in nodes.iter().flat_map(subgraphs) {
            self.add_graph(graph, Some(id), function);
        }
    }

    fn index_uses(&mut self, model: &'a ModelProto) {
        let mut found = Vec::new();
        for (id, body) in self.bodies.iter().enumerate() {
            for (node, proto) in body.nodes.iter().enumerate() {
                for (input, name) in proto.input.iter().enumerate() {
                    found.push((id, name.as_str(), Use::Node { body: id, node, input }));
                }
            }
            let outputs = body.graph.iter().flat_map(|g| &g.output).filter_map(|o| o.name.as_deref());
            let of_function = body.function.filter(|_| body.graph.is_none()).map(|f| &model.functions[f].output);
            let outputs = outputs.chain(of_function.into_iter().flatten().map(String::as_str));
            found.extend(outputs.map(|name| (id, name, Use::Output { body: id })));
        }
        self.uses.resize_with(self.bodies.len(), HashMap::new);
        for (reader, name, place) in found {
            if let Some((owner, _)) = self.producer(reader, name) {
                self.uses[owner].entry(name).or_default().push(place);
            }
        }
    }

    /// Returns the producer of the value that `name` refers to in `body`, and the graph or function that contains the
    /// producer: `body` or an enclosing one. Returns `None` for an empty or unknown name.
    pub fn producer(&self, body: BodyId, name: &str) -> Option<(BodyId, Producer)> {
        let mut at = Some(body);
        while let Some(id) = at.filter(|_| !name.is_empty()) {
            if let Some(&producer) = self.bodies[id].producers.get(name) {
                return Some((id, producer));
            }
            at = self.bodies[id].parent;
        }
        None
    }

    /// Returns every use of the value `name` that the graph or function `owner` defines, also those in subgraphs.
    pub fn uses(&self, owner: BodyId, name: &str) -> &[Use] {
        self.uses[owner].get(name).map_or(&[], Vec::as_slice)
    }

    /// Returns the node with an index in `body`, as [`Producer::Node`] and [`Use::Node`] give it. Panics for other ids
    /// or indices.
    pub fn node(&self, body: BodyId, index: usize) -> &'a NodeProto {
        &self.bodies[body].nodes[index]
    }

    /// Returns whether the initializer `name` of `body` is the default of an input, which a caller may override.
    pub fn is_optional_input(&self, body: BodyId, name: &str) -> bool {
        let content = &self.bodies[body];
        let inputs = content.graph.map_or(&[][..], |graph| &graph.input);
        // In the main graph this depends on the IR version (`defaults`); in a subgraph, the value that the node passes
        // always replaces the initializer.
        (self.defaults || content.parent.is_some()) && inputs.iter().any(|i| i.name.as_deref() == Some(name))
    }

    /// Returns the initializer with an index in `body`, as [`Producer::Initializer`] gives it; `None` if there is none.
    pub fn initializer(&self, body: BodyId, index: usize) -> Option<&'a TensorProto> {
        self.bodies[body].graph.and_then(|g| g.initializer.get(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::*;

    fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
        let own = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
        NodeProto { op_type: Some(op.into()), input: own(inputs), output: own(outputs), ..Default::default() }
    }

    #[test]
    fn values_resolve_through_subgraphs_and_shadowing_ends_at_the_innermost() {
        let value = |name: &str| ValueInfoProto { name: Some(name.into()), ..Default::default() };
        let weight = |name: &str| TensorProto { name: Some(name.into()), ..Default::default() };
        let inner = GraphProto {
            node: vec![node("MatMul", &["x", "w"], &["y"]), node("Add", &["y", "v"], &["z"])],
            initializer: vec![weight("v")],
            output: vec![value("z")],
            ..Default::default()
        };
        let mut branch = node("If", &["c"], &["out"]);
        branch.attribute = vec![AttributeProto { g: Some(Box::new(inner)), ..Default::default() }];
        let graph = GraphProto {
            node: vec![branch],
            initializer: vec![weight("w"), weight("v")],
            input: vec![value("x"), value("c")],
            output: vec![value("out")],
            ..Default::default()
        };
        let model = ModelProto { graph: Some(Box::new(graph)), ..Default::default() };
        let view = View::new(&model);
        assert_eq!(view.producer(1, "w"), Some((0, Producer::Initializer(0))));
        assert_eq!(view.producer(1, "v"), Some((1, Producer::Initializer(0))));
        assert_eq!(view.producer(1, "x"), Some((0, Producer::Input)));
        assert_eq!(view.producer(1, "nothing"), None);
        assert_eq!(view.uses(0, "w"), [Use::Node { body: 1, node: 0, input: 1 }]);
        assert_eq!(view.uses(0, "v"), []);
        assert_eq!(view.uses(1, "z"), [Use::Output { body: 1 }]);
    }
}
