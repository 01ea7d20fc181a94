//! A graph for the search of patterns: nodes and values by index, copied from ONNX Runtime once.
//!
//! Constants and attributes are read only when a pattern needs them, from a [`Source`].

use crate::provider::abi::{Result, Tensor};

/// Index of a node in its [`Graph`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId(pub usize);

/// Index of a value in its [`Graph`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ValueId(pub usize);

/// The element type of a tensor, as far as patterns distinguish types.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // their names say it
pub enum Element {
    Float32,
    Float16,
    Bfloat16,
    Int8,
    Uint8,
    Int4,
    Uint4,
    Int32,
    Int64,
    Bool,
    /// Another element type, by its number in ONNX.
    Other(i32),
}

impl Element {
    /// Returns the element type with this number in ONNX.
    pub fn from_onnx(number: i32) -> Self {
        match number {
            1 => Self::Float32,
            2 => Self::Uint8,
            3 => Self::Int8,
            6 => Self::Int32,
            7 => Self::Int64,
            9 => Self::Bool,
            10 => Self::Float16,
            16 => Self::Bfloat16,
            21 => Self::Uint4,
            22 => Self::Int4,
            other => Self::Other(other),
        }
    }

    /// Returns the size of `count` elements in bytes; `None` for a type that the provider does not read, or if the size
    /// overflows.
    pub fn bytes(self, count: usize) -> Option<usize> {
        match self {
            Self::Float32 | Self::Int32 => count.checked_mul(4),
            Self::Float16 | Self::Bfloat16 => count.checked_mul(2),
            Self::Int64 => count.checked_mul(8),
            Self::Int8 | Self::Uint8 | Self::Bool => Some(count),
            Self::Int4 | Self::Uint4 => Some(count.div_ceil(2)),
            Self::Other(_) => None,
        }
    }
}

/// An attribute of a node.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)] // their names say it
pub enum Attribute {
    Int(i64),
    Float(f32),
    Ints(Vec<i64>),
    Text(Vec<u8>),
}

/// The source of the constants and attributes of a graph.
pub trait Source {
    /// Returns the content of the constant `value`. Fails if it cannot be read.
    fn constant(&self, value: ValueId) -> Result<Tensor<'_>>;
    /// Returns the attribute `name` of `node`, or `None` if the node has no such attribute.
    fn attribute(&self, node: NodeId, name: &str) -> Option<Attribute>;
}

/// A node of a graph.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Operator type of the node, such as `MatMul`.
    pub op: String,
    /// Domain of the operator; empty for the ONNX standard.
    pub domain: String,
    /// Name of the node.
    pub name: String,
    /// Inputs of the node; `None` for an omitted one.
    pub inputs: Vec<Option<ValueId>>,
    /// Outputs of the node; `None` for an unused one.
    pub outputs: Vec<Option<ValueId>>,
}

/// A value of a graph.
#[derive(Clone, Debug, Default)]
pub struct Value {
    /// Name of the value, unique in the graph.
    pub name: String,
    /// Element type of the value; `None` if it is unknown or the value is not a tensor.
    pub element: Option<Element>,
    /// Shape of the value, with -1 for a dynamic dimension; `None` if the rank is unknown.
    pub shape: Option<Vec<i64>>,
    /// Node that has the value as an output; `None` for constants and inputs of the graph.
    pub producer: Option<NodeId>,
    /// Nodes that read the value, with one entry per input. A node whose subgraph reads it is one of them.
    pub consumers: Vec<NodeId>,
    /// Whether the value is an output of the graph.
    pub is_output: bool,
    /// Whether the value is a constant initializer, which no run can override.
    pub is_constant: bool,
}

/// A graph of nodes and values.
pub struct Graph<'g> {
    /// Nodes of the graph, in topological order.
    pub nodes: Vec<Node>,
    /// Values of the graph.
    pub values: Vec<Value>,
    /// Whether the graph is the body of an `If`, `Loop` or `Scan`.
    pub nested: bool,
    source: &'g dyn Source,
}

impl<'g> Graph<'g> {
    /// Returns the graph of `nodes` and `values`, with producers and consumers filled in. `captured` lists the values
    /// that the subgraphs of each node read from the outer graph.
    pub fn new(
        nodes: Vec<Node>,
        mut values: Vec<Value>,
        captured: &[(NodeId, ValueId)],
        nested: bool,
        source: &'g dyn Source,
    ) -> Self {
        for (index, node) in nodes.iter().enumerate() {
            node.inputs.iter().flatten().for_each(|value| values[value.0].consumers.push(NodeId(index)));
            node.outputs.iter().flatten().for_each(|value| values[value.0].producer = Some(NodeId(index)));
        }
        captured.iter().for_each(|(node, value)| values[value.0].consumers.push(*node));
        Self { nodes, values, nested, source }
    }

    /// Returns the graph of `nodes` alone, as ONNX Runtime passes it to `Compile`. Indices do not change: the other
    /// nodes and values are empty.
    pub fn part(&self, nodes: &[NodeId]) -> Self {
        let mut part = vec![Node::default(); self.nodes.len()];
        let mut values = vec![Value::default(); self.values.len()];
        for node in nodes {
            let node_of = self.node(*node);
            for value in node_of.inputs.iter().chain(&node_of.outputs).flatten() {
                let whole = self.value(*value);
                let leaves = whole.is_output || whole.consumers.iter().any(|consumer| !nodes.contains(consumer));
                let made_here = whole.producer.is_some_and(|producer| nodes.contains(&producer));
                let is_output = leaves && made_here;
                values[value.0] = Value { producer: None, consumers: Vec::new(), is_output, ..whole.clone() };
            }
            part[node.0] = node_of.clone();
        }
        Self::new(part, values, &[], self.nested, self.source)
    }

    /// Returns the indices of all nodes.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(NodeId)
    }

    /// Returns a node by its index.
    pub fn node(&self, node: NodeId) -> &Node {
        &self.nodes[node.0]
    }

    /// Returns a value by its index.
    pub fn value(&self, value: ValueId) -> &Value {
        &self.values[value.0]
    }

    /// Returns whether `node` is the operator `op` of the ONNX standard.
    pub fn is(&self, node: NodeId, op: &str) -> bool {
        let node = self.node(node);
        node.op == op && (node.domain.is_empty() || node.domain == "ai.onnx")
    }

    /// Returns whether `node` is the operator `op` of the domain `com.microsoft`.
    pub fn is_microsoft(&self, node: NodeId, op: &str) -> bool {
        let node = self.node(node);
        node.op == op && node.domain == "com.microsoft"
    }

    /// Returns the input `index` of `node`; `None` if it is omitted.
    pub fn input(&self, node: NodeId, index: usize) -> Option<ValueId> {
        self.node(node).inputs.get(index).copied().flatten()
    }

    /// Returns the first output of `node`; `None` if it is unused.
    pub fn output(&self, node: NodeId) -> Option<ValueId> {
        self.node(node).outputs.first().copied().flatten()
    }

    /// Returns whether no output of `node` except the first is used.
    pub fn has_one_output(&self, node: NodeId) -> bool {
        let rest = self.node(node).outputs.iter().skip(1).flatten();
        rest.into_iter().all(|value| self.value(*value).consumers.is_empty() && !self.value(*value).is_output)
    }

    /// Returns the input of `node` other than `value`, if the node has two inputs and `value` is one of them,
    /// otherwise `None`.
    pub fn other(&self, node: NodeId, value: ValueId) -> Option<ValueId> {
        match self.node(node).inputs[..] {
            [Some(first), Some(second)] if first == value && second != value => Some(second),
            [Some(first), Some(second)] if second == value && first != value => Some(first),
            _ => None,
        }
    }

    /// Returns the producer of `value` if it is the operator `op` of the ONNX standard; otherwise `None`.
    pub fn made_by(&self, value: ValueId, op: &str) -> Option<NodeId> {
        self.value(value).producer.filter(|node| self.is(*node, op))
    }

    /// Returns the only consumer of `value`, if it reads the value once and the value is not an output of the graph;
    /// otherwise `None`.
    pub fn only_use(&self, value: ValueId) -> Option<NodeId> {
        match self.value(value).consumers[..] {
            [node] if !self.value(value).is_output => Some(node),
            _ => None,
        }
    }

    /// Returns the only consumer of `value` if it is the operator `op` of the ONNX standard, otherwise `None`.
    pub fn only_use_by(&self, value: ValueId, op: &str) -> Option<NodeId> {
        self.only_use(value).filter(|node| self.is(*node, op))
    }

    /// Returns the content of `value`; `None` if it is not a constant or cannot be read.
    pub fn constant(&self, value: ValueId) -> Option<Tensor<'g>> {
        if self.value(value).is_constant { self.source.constant(value).ok() } else { None }
    }

    /// Returns the value of a float32 constant with one element; `None` for other values.
    pub fn scalar(&self, value: ValueId) -> Option<f32> {
        let one = self.value(value).shape.as_ref().is_some_and(|shape| shape.iter().all(|size| *size == 1));
        let tensor = if one { self.constant(value)? } else { return None };
        tensor.floats().ok()?.first().copied()
    }

    /// Returns whether `value` is a float32 constant with one element that equals `expected` within rounding.
    pub fn is_scalar(&self, value: ValueId, expected: f32) -> bool {
        self.scalar(value).is_some_and(|found| (found - expected).abs() <= expected.abs() * 1e-5)
    }

    /// Returns the shape of `value` if it is a tensor of `element` with a known rank, otherwise `None`.
    pub fn shape_of(&self, value: ValueId, element: Element) -> Option<&[i64]> {
        let value = self.value(value);
        if value.element == Some(element) { value.shape.as_deref() } else { None }
    }

    /// Returns the integer attribute `name` of `node`, or `default` if it has no integer attribute of this name.
    pub fn int(&self, node: NodeId, name: &str, default: i64) -> i64 {
        match self.source.attribute(node, name) {
            Some(Attribute::Int(value)) => value,
            _ => default,
        }
    }

    /// Returns the float attribute `name` of `node`, or `default` if it has no float attribute of this name.
    pub fn float(&self, node: NodeId, name: &str, default: f32) -> f32 {
        match self.source.attribute(node, name) {
            Some(Attribute::Float(value)) => value,
            _ => default,
        }
    }

    /// Returns the list of integers in the attribute `name` of `node`; `None` if there is no such attribute of this
    /// type.
    pub fn ints(&self, node: NodeId, name: &str) -> Option<Vec<i64>> {
        match self.source.attribute(node, name) {
            Some(Attribute::Ints(values)) => Some(values),
            _ => None,
        }
    }

    /// Returns the string attribute `name` of `node`; `None` if there is no such attribute of this type, or if it is
    /// not UTF-8.
    pub fn text(&self, node: NodeId, name: &str) -> Option<String> {
        match self.source.attribute(node, name) {
            Some(Attribute::Text(bytes)) => String::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

/// The fused node that replaces a group of nodes in ONNX Runtime's graph.
#[derive(Debug, Clone)]
pub struct FusedNode {
    /// Name of the fused node.
    pub name: String,
    /// Names of the inputs of the fused node. Constants are among them only if the group keeps its constants.
    pub inputs: Vec<String>,
    /// Names of the outputs of the fused node.
    pub outputs: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Source for Nothing {
        fn constant(&self, _: ValueId) -> Result<Tensor<'_>> {
            Err("no constants".into())
        }

        fn attribute(&self, _: NodeId, _: &str) -> Option<Attribute> {
            None
        }
    }

    fn node(op: &str, inputs: &[usize], outputs: &[usize]) -> Node {
        let ids = |numbers: &[usize]| numbers.iter().map(|number| Some(ValueId(*number))).collect();
        Node { op: op.into(), inputs: ids(inputs), outputs: ids(outputs), ..Default::default() }
    }

    /// Returns the nodes and values of the graph 0 -> Relu -> 1 -> Add(1, 0) -> 2 -> Neg -> 3.
    fn chain() -> (Vec<Node>, Vec<Value>) {
        let nodes = vec![node("Relu", &[0], &[1]), node("Add", &[1, 0], &[2]), node("Neg", &[2], &[3])];
        (nodes, vec![Value::default(); 4])
    }

    #[test]
    fn a_value_that_a_subgraph_takes_has_a_second_use() {
        let (nodes, values) = chain();
        let graph = Graph::new(nodes, values, &[], false, &Nothing);
        assert_eq!(graph.only_use(ValueId(1)), Some(NodeId(1)));
        assert_eq!(graph.other(NodeId(1), ValueId(1)), Some(ValueId(0)));
        let (nodes, values) = chain();
        let graph = Graph::new(nodes, values, &[(NodeId(2), ValueId(1))], false, &Nothing);
        assert_eq!(graph.only_use(ValueId(1)), None);
    }

    #[test]
    fn what_leaves_a_part_is_its_output() {
        let (nodes, values) = chain();
        let graph = Graph::new(nodes, values, &[], false, &Nothing);
        let part = graph.part(&[NodeId(0), NodeId(1)]);
        assert!(part.value(ValueId(2)).is_output && !part.value(ValueId(1)).is_output);
        assert!(!part.value(ValueId(0)).is_output, "an input is no output, whoever else takes it");
        assert!(part.value(ValueId(2)).consumers.is_empty());
        assert_eq!(part.only_use(ValueId(1)), Some(NodeId(1)));
    }
}
