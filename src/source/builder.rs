//! A builder of ONNX graphs, node by node.
//!
//! Values are names; every method that adds a node returns the name of its output. Nodes are named after their module
//! (`/model/layers.0/self_attn/q_proj/MatMul`), so that techniques can select them by module, and weights keep their
//! names in the checkpoint.

use super::weights::{BlockForm, Form, Stored, Weights};
use crate::error::{Context, Result, bail};
use crate::files::Scratch;
use crate::graph::edit::{self, Names};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::*;
use bytes::Bytes;
use std::collections::HashMap;

/// The operators that a built graph uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Operators of ONNX Runtime (`com.microsoft`), which run fastest.
    #[default]
    Runtime,
    /// Standard operators of opset [`OPSET`], for other runtimes, TensorRT and differentiation.
    Portable,
}

/// The opset of built graphs, which has `LayerNormalization`, and in which axes of reductions are inputs.
pub const OPSET: i64 = 18;

/// The value of an attribute of a node.
pub enum Attribute<'a> {
    /// An attribute that is an integer.
    Int(i64),
    /// An attribute that is a float.
    Float(f32),
    /// An attribute that is a list of integers.
    Ints(&'a [i64]),
    /// An attribute that is a string.
    Text(&'a str),
}

/// A graph that is being built.
pub struct Builder<'w> {
    /// Source of the weights.
    pub weights: &'w dyn Weights,
    /// Operators that the graph uses.
    pub dialect: Dialect,
    graph: GraphProto,
    names: Names,
    scope: Vec<String>,
    constants: HashMap<(Vec<u8>, Vec<i64>, i32), String>,
    /// Names of half-precision weights that were already cast.
    casts: HashMap<String, String>,
    contrib: bool,
    /// Storage for weights whose form in the graph differs from that in the checkpoint.
    pub(super) scratch: Scratch,
}

impl<'w> Builder<'w> {
    /// Returns a builder of an empty graph over a checkpoint.
    pub fn new(name: &str, weights: &'w dyn Weights, dialect: Dialect) -> Builder<'w> {
        let graph = GraphProto { name: Some(name.to_owned()), ..Default::default() };
        let (scope, constants, casts) = Default::default();
        let names = Names::counting_from(1);
        let scratch = Scratch::new(&std::env::temp_dir());
        Builder { weights, dialect, graph, names, scope, constants, casts, contrib: false, scratch }
    }

    /// Runs `body`, whose nodes are named after the module `name`, and returns its result. Fails only with an error of
    /// `body`.
    pub fn within<T>(&mut self, name: &str, body: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.scope.push(name.to_owned());
        let result = body(self);
        self.scope.pop();
        result
    }

    /// Declares an input and returns its name. Each dimension is a size as text, or a symbolic name.
    pub fn input(&mut self, name: &str, dtype: DataType, dims: &[&str]) -> String {
        self.names.take(name);
        self.graph.input.push(value_info(name, dtype, dims));
        name.to_owned()
    }

    /// Declares `value` as an output with the name `name`.
    pub fn output(&mut self, name: &str, value: &str, dtype: DataType, dims: &[&str]) {
        if name != value {
            self.names.take(name);
            let mut node = edit::node("Identity", &[value], &[name]);
            node.name = Some(format!("/{name}/Identity"));
            self.graph.node.push(node);
        }
        self.graph.output.push(value_info(name, dtype, dims));
    }

    /// Declares the value `name`, the output of an earlier node with exactly this name, as an output.
    pub fn output_as_is(&mut self, name: &str, dtype: DataType, dims: &[&str]) {
        self.graph.output.push(value_info(name, dtype, dims));
    }

    /// Adds a node of a standard operator and returns the name of its only output.
    pub fn op(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Attribute<'_>)]) -> String {
        self.node("", op, inputs, 1, attributes).swap_remove(0)
    }

    /// Adds a node of `com.microsoft` with several outputs and returns their names.
    pub fn contrib(
        &mut self,
        op: &str,
        inputs: &[&str],
        outputs: usize,
        attributes: &[(&str, Attribute<'_>)],
    ) -> Vec<String> {
        self.contrib = true;
        self.node("com.microsoft", op, inputs, outputs, attributes)
    }

    /// Adds a node of any domain with new output names, and returns these names.
    pub fn node(
        &mut self,
        domain: &str,
        op: &str,
        inputs: &[&str],
        outputs: usize,
        attributes: &[(&str, Attribute<'_>)],
    ) -> Vec<String> {
        let path = format!("/{}{}{op}", self.scope.join("/"), if self.scope.is_empty() { "" } else { "/" });
        let name = self.fresh(&path);
        let made: Vec<String> = (0..outputs).map(|i| self.fresh(&format!("{name}_output_{i}"))).collect();
        let names: Vec<&str> = made.iter().map(String::as_str).collect();
        self.push(domain, op, &name, inputs, &names, attributes);
        made
    }

    /// Adds a node whose outputs have the given names; an empty name omits an output. Fresh names are never equal to
    /// these.
    pub fn node_to(
        &mut self,
        domain: &str,
        op: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[(&str, Attribute<'_>)],
    ) {
        self.contrib |= domain == "com.microsoft";
        let path = format!("/{}{}{op}", self.scope.join("/"), if self.scope.is_empty() { "" } else { "/" });
        let name = self.fresh(&path);
        outputs.iter().for_each(|output| _ = self.names.take(output));
        self.push(domain, op, &name, inputs, outputs, attributes);
    }

    fn push(
        &mut self,
        domain: &str,
        op: &str,
        name: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[(&str, Attribute<'_>)],
    ) {
        let mut node = edit::node(op, inputs, outputs);
        node.name = Some(name.to_owned());
        node.domain = (!domain.is_empty()).then(|| domain.to_owned());
        node.attribute = attributes.iter().map(|(name, value)| attribute(name, value)).collect();
        self.graph.node.push(node);
    }

    /// Returns an unused name: `wanted`, or `wanted_1`, `wanted_2` and so on.
    pub fn fresh(&mut self, wanted: &str) -> String {
        self.names.fresh(wanted)
    }

    /// Returns the name of a weight of the checkpoint as a float32 value. Half precision is cast in the graph, so that
    /// nothing is copied; float64 and blocks are converted. Fails with `InvalidModel` if the weight is missing or has
    /// another shape than `dims`, and with `Unsupported` if it is not float.
    pub fn weight(&mut self, name: &str, dims: &[i64]) -> Result<String> {
        let stored = self.weights.shaped(name, dims)?;
        match stored.form {
            Form::Plain(_) => self.stored(name, stored),
            Form::Blocks(form) => super::blocks::floats(self, name, &stored, form).at(|| name.to_owned()),
        }
    }

    fn stored(&mut self, name: &str, stored: Stored) -> Result<String> {
        let dtype = self.add_stored(name, stored)?;
        if dtype == DataType::Float32 {
            return Ok(name.to_owned());
        }
        if let Some(cast) = self.casts.get(name) {
            return Ok(cast.clone());
        }
        let cast = self.cast_to_float32(name);
        self.casts.insert(name.to_owned(), cast.clone());
        Ok(cast)
    }

    /// Returns a plain tensor and its type in the graph: float64 becomes float32, because built graphs have no float64
    /// values.
    fn plain(&self, dtype: DataType, stored: Stored) -> Result<(DataType, Stored)> {
        if dtype != DataType::Float64 {
            return Ok((dtype, stored));
        }
        let slot = self.scratch.reserve(stored.bytes.len() / 2)?;
        const PIECE: usize = 1 << 16;
        for (index, piece) in stored.bytes.chunks(8 * PIECE).enumerate() {
            let (numbers, _) = piece.as_chunks::<8>();
            let floats: Vec<u8> = numbers.iter().flat_map(|n| (f64::from_le_bytes(*n) as f32).to_le_bytes()).collect();
            slot.write_at(4 * PIECE * index, &floats)?;
        }
        let bytes = slot.finish()?;
        Ok((DataType::Float32, Stored { form: Form::Plain(DataType::Float32), bytes, ..stored }))
    }

    /// Adds a plain tensor as an initializer, if it is not in the graph yet, and returns its type there.
    fn add_stored(&mut self, name: &str, stored: Stored) -> Result<DataType> {
        let Form::Plain(dtype) = stored.form else { bail!(Internal, "{name} is not a plain tensor") };
        if self.has(name) && dtype == DataType::Float64 {
            return Ok(DataType::Float32);
        }
        let (dtype, stored) = self.plain(dtype, stored)?;
        if !matches!(dtype, DataType::Float32 | DataType::Float16 | DataType::Bfloat16) {
            bail!(Unsupported, "the tensor {name:?} is {}, not float", dtype.name());
        }
        if self.names.take(name) {
            self.graph.initializer.push(edit::tensor(name, dtype, &stored.dims, stored.bytes));
        }
        Ok(dtype)
    }

    fn cast_to_float32(&mut self, x: &str) -> String {
        self.op("Cast", &[x], &[("to", Attribute::Int(i64::from(DataType::Float32.to_onnx())))])
    }

    /// Adds `y = x Wᵀ + b` with the checkpoint's `{module}.weight` `[out, in]` and, if it exists, `{module}.bias`, and
    /// returns the name of `y`. Fails with `InvalidModel` if a weight is missing or has another shape, and with
    /// `Unsupported` if it is not float.
    pub fn linear(&mut self, x: &str, module: &str, inputs: i64, outputs: i64) -> Result<String> {
        let short = module.rsplit_once('.').map_or(module, |(_, last)| last).to_owned();
        self.within(&short, |b| {
            let product = b.product(x, &format!("{module}.weight"), inputs, outputs)?;
            b.add_bias(&product, &format!("{module}.bias"), outputs)
        })
    }

    /// Adds `x Wᵀ` with the weight `[out, in]` of the name `weight` in any stored form, and returns the name of the
    /// product. Fails with `InvalidModel` if it is missing or has another shape, and with `Unsupported` if it is not
    /// float.
    pub fn product(&mut self, x: &str, weight: &str, inputs: i64, outputs: i64) -> Result<String> {
        let stored = self.weights.shaped(weight, &[outputs, inputs])?;
        match stored.form {
            Form::Plain(_) => {
                let value = self.stored(weight, stored)?;
                let transposed = self.op("Transpose", &[&value], &[("perm", Attribute::Ints(&[1, 0]))]);
                Ok(self.op("MatMul", &[x, &transposed], &[]))
            }
            Form::Blocks(form) => self.block_product(x, weight, &stored, form),
        }
    }

    /// Adds a bias if the checkpoint has one with the name `name`, and returns the name of the sum, or `x` if there is
    /// none. Fails with `InvalidModel` if it has another shape, and with `Unsupported` if it is not float.
    pub fn add_bias(&mut self, x: &str, name: &str, size: i64) -> Result<String> {
        if self.weights.find(name)?.is_none() {
            return Ok(x.to_owned());
        }
        let bias = self.weight(name, &[size])?;
        Ok(self.op("Add", &[x, &bias], &[]))
    }

    /// Adds the selection of rows of the checkpoint's table `name` `[rows, width]`, and returns the name of the result,
    /// which is float32. For half precision, the selected rows are cast, not the table. Fails with `InvalidModel` if
    /// the table is missing or has another shape, and with `Unsupported` if it is not float.
    pub fn embedding(&mut self, ids: &str, name: &str, rows: i64, width: i64) -> Result<String> {
        let stored = self.weights.shaped(name, &[rows, width])?;
        if let Form::Blocks(form) = stored.form {
            return super::blocks::embedding(self, ids, name, &stored, form).at(|| name.to_owned());
        }
        let dtype = self.add_stored(name, stored)?;
        let found = self.op("Gather", &[name, ids], &[]);
        Ok(if dtype == DataType::Float32 { found } else { self.cast_to_float32(&found) })
    }

    /// Adds `LayerNormalization` over the last dimension with `{module}.weight` and `{module}.bias`, and returns the
    /// name of its output. Fails like [`Self::linear`].
    pub fn layer_norm(&mut self, x: &str, module: &str, width: i64, epsilon: f32) -> Result<String> {
        let short = module.rsplit_once('.').map_or(module, |(_, last)| last).to_owned();
        self.within(&short, |b| {
            let scale = b.weight(&format!("{module}.weight"), &[width])?;
            let bias = b.weight(&format!("{module}.bias"), &[width])?;
            let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(epsilon))];
            Ok(b.op("LayerNormalization", &[x, &scale, &bias], &attributes))
        })
    }

    /// Returns the name of a constant list of integers, which is added only once.
    pub fn ints(&mut self, values: &[i64]) -> String {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(DataType::Int64, &[values.len() as i64], raw)
    }

    /// Returns the name of a constant integer, which is added only once.
    pub fn int(&mut self, value: i64) -> String {
        self.constant(DataType::Int64, &[], value.to_le_bytes().to_vec())
    }

    /// Returns the name of a constant float, which is added only once.
    pub fn float(&mut self, value: f32) -> String {
        self.constant(DataType::Float32, &[], value.to_le_bytes().to_vec())
    }

    /// Returns the name of a constant tensor of floats (such as rotary angles), which is added only once.
    pub fn floats(&mut self, dims: &[i64], values: &[f32]) -> String {
        self.constant(DataType::Float32, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn constant(&mut self, dtype: DataType, dims: &[i64], raw: Vec<u8>) -> String {
        let key = (raw, dims.to_vec(), dtype.to_onnx());
        if let Some(name) = self.constants.get(&key) {
            return name.clone();
        }
        let name = self.fresh(&format!("constant_{}", self.constants.len()));
        self.graph.initializer.push(edit::tensor(&name, dtype, dims, Bytes::from(key.0.clone())));
        self.constants.insert(key, name.clone());
        name
    }

    /// Returns whether the graph has a value with the name `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Adds an initializer of any kind with its own name, if it is not in the graph yet, and returns that name.
    pub fn initializer(&mut self, tensor: TensorProto) -> String {
        let name = tensor.name.clone().unwrap_or_default();
        if self.names.take(&name) {
            self.graph.initializer.push(tensor);
        }
        name
    }

    /// Adds the product of `x` and a block-quantized weight, and returns its name. In the runtime dialect it is a
    /// `MatMulNBits` without loss, because nibbles and scales are only rearranged; in the portable dialect, the weight
    /// is converted to float32.
    fn block_product(&mut self, x: &str, weight: &str, stored: &Stored, form: BlockForm) -> Result<String> {
        super::blocks::product(self, x, weight, stored, form).at(|| weight.to_owned())
    }

    /// Returns the finished model.
    pub fn finish(self) -> ModelProto {
        let import = |domain: &str, version| OperatorSetIdProto {
            domain: Some(domain.to_owned()),
            version: Some(version),
            ..Default::default()
        };
        let mut opset_import = vec![import("", OPSET)];
        if self.contrib {
            opset_import.push(import("com.microsoft", 1));
        }
        ModelProto {
            ir_version: Some(9),
            producer_name: Some("liboptimize".to_owned()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            graph: Some(Box::new(self.graph)),
            opset_import,
            ..Default::default()
        }
    }
}

fn attribute(name: &str, value: &Attribute<'_>) -> AttributeProto {
    match value {
        Attribute::Int(v) => edit::int_attribute(name, *v),
        Attribute::Float(v) => edit::float_attribute(name, *v),
        Attribute::Ints(v) => edit::ints_attribute(name, v),
        Attribute::Text(v) => edit::text_attribute(name, v),
    }
}

fn value_info(name: &str, dtype: DataType, dims: &[&str]) -> ValueInfoProto {
    let dim = |d: &&str| match d.parse::<i64>() {
        Ok(size) => DimensionProto { dim_value: Some(size), ..Default::default() },
        Err(_) => DimensionProto { dim_param: Some((*d).to_owned()), ..Default::default() },
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect(), ..Default::default() };
    let tensor =
        TensorTypeProto { elem_type: Some(dtype.to_onnx()), shape: Some(Box::new(shape)), ..Default::default() };
    let value_type = TypeProto { tensor_type: Some(Box::new(tensor)), ..Default::default() };
    ValueInfoProto { name: Some(name.to_owned()), value_type: Some(Box::new(value_type)), ..Default::default() }
}
