//! [`Writer`]: nodes and constants in the making, with names that nobody has.

use super::edit::{self, Names, int_attribute};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{AttributeProto, ModelProto, NodeProto, TensorProto};
use bytes::Bytes;
use std::collections::HashMap;

/// What is to be added to a graph.
pub struct Writer {
    names: Names,
    /// In front of the names.
    prefix: &'static str,
    /// In an order in which they can run.
    pub nodes: Vec<NodeProto>,
    /// Constants, each once.
    pub constants: Vec<TensorProto>,
    /// Version of the standard operator set.
    pub opset: i64,
    known: HashMap<(Vec<u8>, Vec<i64>, i32), String>,
}

impl Writer {
    /// For a model: names begin with `prefix`.
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

    /// A name nobody has.
    pub fn fresh(&mut self, wanted: &str) -> String {
        self.names.fresh(&format!("{}/{wanted}", self.prefix))
    }

    /// A constant.
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

    /// A list of whole numbers.
    pub fn ints(&mut self, values: &[i64]) -> String {
        self.constant(DataType::Int64, &[values.len() as i64], values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A whole number.
    pub fn int(&mut self, value: i64) -> String {
        self.constant(DataType::Int64, &[], value.to_le_bytes().to_vec())
    }

    /// A number.
    pub fn scalar(&mut self, value: f32) -> String {
        self.constant(DataType::Float32, &[], value.to_le_bytes().to_vec())
    }

    /// A node of the standard operators with one output.
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

    /// A node with some outputs.
    pub fn ops(&mut self, op: &str, inputs: &[&str], outputs: usize, attributes: Vec<AttributeProto>) -> Vec<String> {
        let made: Vec<String> = (0..outputs).map(|_| self.fresh(op)).collect();
        let names: Vec<&str> = made.iter().map(String::as_str).collect();
        let mut node = edit::node(op, inputs, &names);
        node.name = made.first().map(|output| self.names.fresh(&format!("{output}/{op}")));
        node.attribute = attributes;
        self.nodes.push(node);
        made
    }

    /// The values made another type.
    pub fn cast(&mut self, x: &str, to: DataType) -> String {
        self.op_with("Cast", &[x], vec![int_attribute("to", to.to_onnx().into())])
    }

    /// Lists, or values along `axis`, behind one another.
    pub fn concat(&mut self, parts: &[&str], axis: i64) -> String {
        self.op_with("Concat", parts, vec![int_attribute("axis", axis)])
    }

    /// In the shape of the list `sizes`.
    pub fn reshaped(&mut self, x: &str, sizes: &[i64]) -> String {
        let sizes = self.ints(sizes);
        self.op("Reshape", &[x, &sizes])
    }

    /// Dimensions in another order.
    pub fn permuted(&mut self, x: &str, order: &[i64]) -> String {
        self.op_with("Transpose", &[x], vec![edit::ints_attribute("perm", order)])
    }

    /// A reduction over `axes`, which stay as 1. Their place changed with operator set 18 for all but `ReduceSum`.
    pub fn reduced(&mut self, op: &str, x: &str, axes: &[i64]) -> String {
        let mut attributes = vec![int_attribute("keepdims", 1)];
        if self.opset >= 18 || op == "ReduceSum" {
            let axes = self.ints(axes);
            return self.op_with(op, &[x, &axes], attributes);
        }
        attributes.push(edit::ints_attribute("axes", axes));
        self.op_with(op, &[x], attributes)
    }

    /// `0, 1, 2 ...` as many as the list of one `size` says.
    pub fn count_to(&mut self, size: &str) -> String {
        let (zero, one, scalar) = (self.int(0), self.int(1), self.constant(DataType::Int64, &[0], Vec::new()));
        let size = self.op("Reshape", &[size, &scalar]);
        self.op("Range", &[&zero, &size, &one])
    }

    /// `[from, to)` along `axis`.
    pub fn slice(&mut self, x: &str, from: i64, to: i64, axis: i64) -> String {
        let (from, to, axis) = (self.ints(&[from]), self.ints(&[to]), self.ints(&[axis]));
        self.op("Slice", &[x, &from, &to, &axis])
    }

    /// The sum over `axes`, which go; over all if there are none.
    pub fn total(&mut self, x: &str, axes: &[i64]) -> String {
        let attributes = vec![int_attribute("keepdims", 0)];
        if axes.is_empty() {
            return self.op_with("ReduceSum", &[x], attributes);
        }
        let axes = self.ints(axes);
        self.op_with("ReduceSum", &[x, &axes], attributes)
    }
}
