//! [`Writer`], a builder of nodes and constants with fresh names.

use super::edit::{self, Names, int_attribute};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{AttributeProto, ModelProto, NodeProto, TensorProto};
use bytes::Bytes;
use std::collections::HashMap;

/// Nodes and constants to be added to a graph.
pub struct Writer {
    names: Names,
    /// Prefix of the names.
    prefix: &'static str,
    /// The nodes, in a topological order.
    pub nodes: Vec<NodeProto>,
    /// The constants, each once.
    pub constants: Vec<TensorProto>,
    /// Opset version of the default domain.
    pub opset: i64,
    known: HashMap<(Vec<u8>, Vec<i64>, i32), String>,
}

impl Writer {
    /// Returns a builder for a model, whose names start with `prefix`.
    pub fn new(model: &ModelProto, prefix: &'static str) -> Writer {
        let opset = super::opset::version(model);
        Writer {
            names: Names::of(model),
            prefix,
            nodes: Vec::new(),
            constants: Vec::new(),
            opset,
            known: HashMap::new(),
        }
    }

    /// Returns a fresh name.
    pub fn fresh(&mut self, wanted: &str) -> String {
        self.names.fresh(&format!("{}/{wanted}", self.prefix))
    }

    /// Adds a constant and returns its name.
    pub fn constant(&mut self, dtype: DataType, dims: &[i64], raw: Vec<u8>) -> String {
        let key = (raw, dims.to_vec(), dtype.to_onnx());
        if let Some(name) = self.known.get(&key) {
            return name.clone();
        }
        let name = self.fresh("constant");
        self.constants.push(edit::tensor(&name, dtype, dims, Bytes::from(key.0.clone())));
        self.known.insert(key, name.clone());
        name
    }

    /// Adds a list of integers.
    pub fn ints(&mut self, values: &[i64]) -> String {
        self.constant(DataType::Int64, &[values.len() as i64], values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// Adds an integer.
    pub fn int(&mut self, value: i64) -> String {
        self.constant(DataType::Int64, &[], value.to_le_bytes().to_vec())
    }

    /// Adds a float.
    pub fn scalar(&mut self, value: f32) -> String {
        self.constant(DataType::Float32, &[], value.to_le_bytes().to_vec())
    }

    /// Adds a node of the default domain with one output, and returns the output.
    pub fn op(&mut self, op: &str, inputs: &[&str]) -> String {
        self.op_with(op, inputs, Vec::new())
    }

    /// As [`Writer::op`], with attributes.
    pub fn op_with(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let output = self.fresh(op);
        self.op_to(op, inputs, &output, attributes);
        output
    }

    /// As [`Writer::op_with`], with an output of a given name.
    pub fn op_to(&mut self, op: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) {
        let mut node = edit::node(op, inputs, &[output]);
        node.name = Some(self.names.fresh(&format!("{output}/{op}")));
        node.attribute = attributes;
        self.nodes.push(node);
    }

    /// Adds a node with several outputs.
    pub fn ops(&mut self, op: &str, inputs: &[&str], outputs: usize, attributes: Vec<AttributeProto>) -> Vec<String> {
        let made: Vec<String> = (0..outputs).map(|_| self.fresh(op)).collect();
        let names: Vec<&str> = made.iter().map(String::as_str).collect();
        let mut node = edit::node(op, inputs, &names);
        node.name = made.first().map(|output| self.names.fresh(&format!("{output}/{op}")));
        node.attribute = attributes;
        self.nodes.push(node);
        made
    }

    /// Adds a `Cast`.
    pub fn cast(&mut self, x: &str, to: DataType) -> String {
        self.op_with("Cast", &[x], vec![int_attribute("to", to.to_onnx().into())])
    }

    /// Adds a `Concat` along `axis`.
    pub fn concat(&mut self, parts: &[&str], axis: i64) -> String {
        self.op_with("Concat", parts, vec![int_attribute("axis", axis)])
    }

    /// Adds a `Reshape` to `sizes`.
    pub fn reshaped(&mut self, x: &str, sizes: &[i64]) -> String {
        let sizes = self.ints(sizes);
        self.op("Reshape", &[x, &sizes])
    }

    /// Adds a `Transpose`.
    pub fn permuted(&mut self, x: &str, order: &[i64]) -> String {
        self.op_with("Transpose", &[x], vec![edit::ints_attribute("perm", order)])
    }

    /// Adds a reduction over `axes` that keeps dimensions. The axes became an input with opset 18 for all but
    /// `ReduceSum`.
    pub fn reduced(&mut self, op: &str, x: &str, axes: &[i64]) -> String {
        let mut attributes = vec![int_attribute("keepdims", 1)];
        if self.opset >= 18 || op == "ReduceSum" {
            let axes = self.ints(axes);
            return self.op_with(op, &[x, &axes], attributes);
        }
        attributes.push(edit::ints_attribute("axes", axes));
        self.op_with(op, &[x], attributes)
    }

    /// Adds `0, 1, 2 ...` up to the size in a list of one element.
    pub fn count_to(&mut self, size: &str) -> String {
        let (zero, one, scalar) = (self.int(0), self.int(1), self.constant(DataType::Int64, &[0], Vec::new()));
        let size = self.op("Reshape", &[size, &scalar]);
        self.op("Range", &[&zero, &size, &one])
    }

    /// Adds a slice `[from, to)` along `axis`.
    pub fn slice(&mut self, x: &str, from: i64, to: i64, axis: i64) -> String {
        let (from, to, axis) = (self.ints(&[from]), self.ints(&[to]), self.ints(&[axis]));
        self.op("Slice", &[x, &from, &to, &axis])
    }

    /// Adds a sum over `axes` that removes them; over all if there are none.
    pub fn total(&mut self, x: &str, axes: &[i64]) -> String {
        let attributes = vec![int_attribute("keepdims", 0)];
        if axes.is_empty() {
            return self.op_with("ReduceSum", &[x], attributes);
        }
        let axes = self.ints(axes);
        self.op_with("ReduceSum", &[x, &axes], attributes)
    }
}
