//! A builder of nodes and constants with new names ([`NodeBuilder`]).

use super::edit::{self, Names, int_attribute};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{AttributeProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto};
use bytes::Bytes;
use std::collections::HashMap;

/// The rule by which a [`NodeBuilder`] names nodes and values. A name that is used already gets a number
/// ([`Names::fresh`]). The names are part of written models, so the rule of a technique does not change.
#[derive(Debug, Clone)]
pub enum Naming {
    /// Values are named `prefix/Op`, their nodes `prefix/Op/Op`; equal constants are added once.
    Prefix(&'static str),
    /// The rule for nodes that replace the node with this label: values are named `label_Op_output`, nodes `label_Op`.
    /// The nodes get this metadata, which is that of the replaced node; constants are `Constant` nodes.
    #[allow(missing_docs)] // the lines above document it
    Replaced { label: String, metadata: Vec<StringStringEntryProto> },
    /// The rule for nodes that a node with this label is lowered to: values are named `label/Op_out`, nodes `label/Op`.
    Parts(String),
    /// Values are named `prefix/Op_n`, where `n` counts nodes and constants. The caller ensures that no other name in
    /// the graph begins with `prefix/`.
    Numbered(&'static str),
    /// Values are named `prefix_n`, where `n` counts from the given number plus 1; nodes have no names.
    Short(&'static str, usize),
}

/// Nodes and constants that are to be added to a graph.
#[derive(Debug)]
pub struct NodeBuilder {
    /// Names that are used in the model.
    pub names: Names,
    /// Rule by which new values and nodes are named.
    pub naming: Naming,
    /// New nodes in the order in which they were added. The caller moves them to the graph.
    pub nodes: Vec<NodeProto>,
    /// New initializers, which the caller moves to the graph.
    pub constants: Vec<TensorProto>,
    /// Opset version of the default domain.
    pub opset: i64,
    known: HashMap<(Vec<u8>, Vec<i64>, i32), String>,
}

impl NodeBuilder {
    /// Returns an empty builder for the opset of `model`, whose new names begin with `prefix` ([`Naming::Prefix`]).
    pub fn new(model: &ModelProto, prefix: &'static str) -> NodeBuilder {
        NodeBuilder::with(Names::of(model), Naming::Prefix(prefix), super::opset::version(model))
    }

    /// Returns an empty builder whose new names differ from those in `names`. `opset` is the version of the default
    /// domain.
    pub fn with(names: Names, naming: Naming, opset: i64) -> NodeBuilder {
        NodeBuilder { names, naming, nodes: Vec::new(), constants: Vec::new(), opset, known: HashMap::new() }
    }

    /// Returns an empty builder for nodes that replace others; [`NodeBuilder::at`] sets the replaced node. Its opset is
    /// 0, so it cannot add reductions.
    pub fn replacing(names: Names) -> NodeBuilder {
        NodeBuilder::with(names, Naming::Replaced { label: String::new(), metadata: Vec::new() }, 0)
    }

    /// Names the next nodes after `node`, which they replace ([`Naming::Replaced`]), and returns the builder.
    pub fn at(&mut self, node: &NodeProto) -> &mut NodeBuilder {
        self.naming = Naming::Replaced { label: node.label().to_owned(), metadata: node.metadata_props.clone() };
        self
    }

    /// Returns a new name for a value that the operator `op` computes.
    pub fn fresh(&mut self, op: &str) -> String {
        let wanted = match &mut self.naming {
            Naming::Prefix(prefix) => format!("{prefix}/{op}"),
            Naming::Replaced { label, .. } => format!("{label}_{op}_output"),
            Naming::Parts(label) => format!("{label}/{op}_out"),
            Naming::Numbered(prefix) => return format!("{prefix}/{op}_{}", self.nodes.len() + self.constants.len()),
            Naming::Short(prefix, count) => {
                *count += 1;
                format!("{prefix}_{count}")
            }
        };
        self.names.fresh(&wanted)
    }

    fn node_name(&mut self, op: &str, output: &str) -> Option<String> {
        let wanted = match &self.naming {
            Naming::Prefix(_) => format!("{output}/{op}"),
            Naming::Replaced { label, .. } => format!("{label}_{op}"),
            Naming::Parts(label) => format!("{label}/{op}"),
            Naming::Numbered(prefix) => return Some(format!("{prefix}/{op}_{}", self.nodes.len())),
            Naming::Short(..) => return None,
        };
        Some(self.names.fresh(&wanted))
    }

    /// Adds a node of the default domain without attributes, with the given output names, and returns it.
    pub fn push(&mut self, op: &str, inputs: &[&str], outputs: &[&str]) -> &mut NodeProto {
        let mut node = edit::node(op, inputs, outputs);
        node.name = outputs.first().and_then(|output| self.node_name(op, output));
        if let Naming::Replaced { metadata, .. } = &self.naming {
            node.metadata_props.clone_from(metadata);
        }
        self.nodes.push(node);
        let last = self.nodes.len() - 1;
        &mut self.nodes[last]
    }

    /// Adds a node of the standard operators, and returns the name of its only output.
    pub fn op(&mut self, op: &str, inputs: &[&str]) -> String {
        self.op_with(op, inputs, Vec::new())
    }

    /// Adds a node of the standard operators with attributes, and returns the name of its only output.
    pub fn op_with(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let output = self.fresh(op);
        self.op_to(op, inputs, &output, attributes);
        output
    }

    /// Adds a node of the standard operators with attributes, whose only output has the name `output`.
    pub fn op_to(&mut self, op: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) {
        self.push(op, inputs, &[output]).attribute = attributes;
    }

    /// Adds a node with `outputs` outputs, which get new names, and returns these names.
    pub fn ops(&mut self, op: &str, inputs: &[&str], outputs: usize, attributes: Vec<AttributeProto>) -> Vec<String> {
        let made: Vec<String> = (0..outputs).map(|_| self.fresh(op)).collect();
        let names: Vec<&str> = made.iter().map(String::as_str).collect();
        self.push(op, inputs, &names).attribute = attributes;
        made
    }

    /// Adds a constant with the little-endian elements `raw` and returns its name.
    pub fn constant(&mut self, dtype: DataType, dims: &[i64], raw: Vec<u8>) -> String {
        self.constant_named("constant", dtype, dims, raw)
    }

    /// Adds a constant and returns its name, which contains `word` if the naming uses words for constants.
    pub fn constant_named(&mut self, word: &str, dtype: DataType, dims: &[i64], raw: Vec<u8>) -> String {
        let wanted = match &self.naming {
            Naming::Prefix(_) => return self.shared_constant(dtype, dims, raw),
            Naming::Replaced { label, .. } => {
                let name = self.names.fresh(&format!("{label}_{word}"));
                let value = TensorProto { name: None, ..edit::tensor("", dtype, dims, raw.into()) };
                self.push("Constant", &[], &[&name]).attribute = vec![edit::tensor_attribute("value", value)];
                return name;
            }
            Naming::Parts(label) => Some(format!("{label}/{word}")),
            Naming::Numbered(_) | Naming::Short(..) => None,
        };
        let name = wanted.map(|wanted| self.names.fresh(&wanted)).unwrap_or_else(|| self.fresh(word));
        self.constants.push(edit::tensor(&name, dtype, dims, raw.into()));
        name
    }

    fn shared_constant(&mut self, dtype: DataType, dims: &[i64], raw: Vec<u8>) -> String {
        let key = (raw, dims.to_vec(), dtype.to_onnx());
        if let Some(name) = self.known.get(&key) {
            return name.clone();
        }
        let name = self.fresh("constant");
        self.constants.push(edit::tensor(&name, dtype, dims, Bytes::from(key.0.clone())));
        self.known.insert(key, name.clone());
        name
    }

    /// Adds a constant of int64 values with the dimensions `dims` and returns its name.
    pub fn integers(&mut self, word: &str, dims: &[i64], values: &[i64]) -> String {
        self.constant_named(word, DataType::Int64, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// Adds a one-dimensional constant of int64 values and returns its name.
    pub fn ints(&mut self, values: &[i64]) -> String {
        let word = if matches!(self.naming, Naming::Replaced { .. }) { "shape" } else { "ints" };
        self.integers(word, &[values.len() as i64], values)
    }

    /// Adds an int64 scalar and returns its name.
    pub fn int(&mut self, value: i64) -> String {
        self.integers("index", &[], &[value])
    }

    /// Adds a float32 scalar and returns its name.
    pub fn scalar(&mut self, value: f32) -> String {
        let word = if matches!(self.naming, Naming::Replaced { .. }) { "factor" } else { "number" };
        self.constant_named(word, DataType::Float32, &[], value.to_le_bytes().to_vec())
    }

    /// Adds a `Cast` to `to` and returns the name of its output.
    pub fn cast(&mut self, x: &str, to: DataType) -> String {
        self.cast_to(x, to.to_onnx())
    }

    /// Adds a `Cast` and returns the name of its output. `to` is the number of the element type in ONNX.
    pub fn cast_to(&mut self, x: &str, to: i32) -> String {
        self.op_with("Cast", &[x], vec![int_attribute("to", to.into())])
    }

    /// Adds a `Concat` along `axis` and returns the name of its output.
    pub fn concat(&mut self, parts: &[&str], axis: i64) -> String {
        self.op_with("Concat", parts, vec![int_attribute("axis", axis)])
    }

    /// Adds a `Reshape` to `sizes` and returns the name of its output.
    pub fn reshaped(&mut self, x: &str, sizes: &[i64]) -> String {
        let sizes = self.ints(sizes);
        self.op("Reshape", &[x, &sizes])
    }

    /// Adds a `Transpose` and returns the name of its output.
    pub fn permuted(&mut self, x: &str, order: &[i64]) -> String {
        self.op_with("Transpose", &[x], vec![edit::ints_attribute("perm", order)])
    }

    /// Adds the reduction `op` over `axes`, which keep size 1, and returns the name of its output.
    pub fn reduced(&mut self, op: &str, x: &str, axes: &[i64]) -> String {
        self.reduce(op, x, axes, true)
    }

    /// Adds the reduction `op` over `axes`, which keep size 1 if `keep` is set and are removed otherwise, and returns
    /// the name of its output. The axes became an input with opset 18, for `ReduceSum` with 13; older opsets than 13
    /// are not supported for `ReduceSum`.
    pub fn reduce(&mut self, op: &str, x: &str, axes: &[i64], keep: bool) -> String {
        let keep = int_attribute("keepdims", keep.into());
        if self.opset >= 18 || op == "ReduceSum" {
            let axes = self.ints(axes);
            return self.op_with(op, &[x, &axes], vec![keep]);
        }
        self.op_with(op, &[x], vec![edit::ints_attribute("axes", axes), keep])
    }

    /// Adds `cap tanh(x / cap)` and returns the name of its output.
    pub fn capped(&mut self, x: &str, cap: f32) -> String {
        let cap = self.scalar(cap);
        let part = self.op("Div", &[x, &cap]);
        let bent = self.op("Tanh", &[&part]);
        self.op("Mul", &[&bent, &cap])
    }

    /// Adds the integers from 0 to below the value of `size`, an int64 tensor with one element, and returns their name.
    pub fn count_to(&mut self, size: &str) -> String {
        let (zero, one, scalar) = (self.int(0), self.int(1), self.constant(DataType::Int64, &[0], Vec::new()));
        let size = self.op("Reshape", &[size, &scalar]);
        self.op("Range", &[&zero, &size, &one])
    }

    /// Adds a `Slice` of `[from, to)` along `axis` and returns the name of its output.
    pub fn slice(&mut self, x: &str, from: i64, to: i64, axis: i64) -> String {
        let (from, to, axis) = (self.ints(&[from]), self.ints(&[to]), self.ints(&[axis]));
        self.op("Slice", &[x, &from, &to, &axis])
    }

    /// Adds a sum over `axes`, which are removed (over all axes if there are none), and returns the name of its
    /// output.
    pub fn total(&mut self, x: &str, axes: &[i64]) -> String {
        match axes {
            [] => self.op_with("ReduceSum", &[x], vec![int_attribute("keepdims", 0)]),
            axes => self.reduce("ReduceSum", x, axes, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_names_values_nodes_and_constants() {
        let made = |naming: Naming| {
            let mut builder = NodeBuilder::with(Names::default(), naming, 18);
            let two = builder.scalar(2.0);
            let y = builder.op("Mul", &["x", &two]);
            let again = builder.scalar(2.0);
            builder.op("Mul", &[&y, &again]);
            let nodes = builder.nodes.iter().map(|n| format!("{}>{}", n.name.as_deref().unwrap_or("-"), n.output[0]));
            let constants = builder.constants.iter().filter_map(|t| t.name.clone());
            constants.chain(nodes).collect::<Vec<_>>().join(" ")
        };
        let replaced = Naming::Replaced { label: "l".into(), metadata: Vec::new() };
        assert_eq!(made(Naming::Prefix("p")), "p/constant p/Mul/Mul>p/Mul p/Mul_2/Mul>p/Mul_2");
        assert_eq!(
            made(replaced),
            "l_Constant>l_factor l_Mul>l_Mul_output l_Constant_2>l_factor_2 l_Mul_2>l_Mul_output_2"
        );
        assert_eq!(made(Naming::Parts("l".into())), "l/number l/number_2 l/Mul>l/Mul_out l/Mul_2>l/Mul_out_2");
        assert_eq!(made(Naming::Numbered("e")), "e/number_0 e/number_2 e/Mul_0>e/Mul_1 e/Mul_1>e/Mul_3");
        assert_eq!(made(Naming::Short("s", 4)), "s_5 s_7 ->s_6 ->s_8");
    }
}
