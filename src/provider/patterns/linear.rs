//! Products with constant weights: `MatMul`, `Gemm`, `FusedMatMul`, `MatMulNBits`, each with the bias and the
//! activation that follow it.

use std::collections::{BTreeMap, BTreeSet};

use super::epilogue::{self, Epilogue};
use super::static_quantized::Grid;
use super::{Found, Group, Plan, Rules, blocks};
use crate::kernels::{Activation, Layout, Precision as Packed};
use crate::provider::graph::{Element, Graph, NodeId, ValueId};

/// An input and all products with it as the left operand.
#[derive(Debug)]
pub struct LinearPlan {
    /// Input of the products: rows of K values.
    pub x: ValueId,
    /// Quantization of the input.
    pub form: InputForm,
    /// Products with the input, which is quantized once for all of them.
    pub parts: Vec<LinearPart>,
}

/// The quantization of the input of a product.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum InputForm {
    /// The input is converted as the packed weights require: not at all, to bfloat16, or to int8 with one scale per
    /// row.
    Dynamic,
    /// The input is quantized to 8 bits, with the scale and zero point of the model.
    Static {
        /// Scale of the input.
        scale: f32,
        /// Zero point of the input.
        zero_point: i32,
        /// Whether quantized values are int8, otherwise uint8.
        signed: bool,
        /// Whether `x` is already quantized.
        rounded: bool,
    },
}

/// A product with constant weights, and the operations after it.
#[derive(Debug)]
pub struct LinearPart {
    /// Weights of the product.
    pub weight: Weight,
    /// Number of inputs of the product (K).
    pub k: usize,
    /// Number of outputs of the product (N).
    pub n: usize,
    /// Bias of the product: one value per output.
    pub bias: Option<Vec<f32>>,
    /// Activation function that is applied after the bias.
    pub activation: Activation,
    /// Elementwise operations after the activation function.
    pub steps: Vec<Step>,
    /// Value with the result of the last operation.
    pub y: ValueId,
}

/// An elementwise operation on a product.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// Quantization and dequantization with the parameters of a `Grid`.
    Round(Grid),
    /// Addition of a bias with one value per column.
    Bias(Vec<f32>),
    /// An activation function of each element.
    Activation(Activation),
}

/// Constant weights in the form of the model.
#[derive(Debug)]
pub enum Weight {
    /// float32 weights, to be packed in `precision`.
    Float {
        /// Index of the constant with the weights.
        values: ValueId,
        /// Layout of the constant.
        layout: Layout,
        /// Precision of the packed weights.
        precision: Packed,
    },
    /// int8 or uint8 weights.
    Int8 {
        /// Index of the constant with the quantized weights.
        codes: ValueId,
        /// Layout of the constant.
        layout: Layout,
        /// Bytes of the zero points of the weights, which have the type of the weights: none, one, or N.
        zero_points: Vec<u8>,
        /// Scales of the weights: one, or N.
        scales: Vec<f32>,
    },
    /// Block-quantized weights of `MatMulNBits`.
    Blocks {
        /// Index of the constant with the quantized weights.
        codes: ValueId,
        /// Index of the constant with the scales of the blocks.
        scales: ValueId,
        /// Index of the constant with the zero points of the blocks, if there are any.
        zero_points: Option<ValueId>,
        /// Index of the constant with the offsets of the blocks, if there are any.
        offsets: Option<ValueId>,
        /// Number of bits per weight: 4 or 8.
        bits: usize,
        /// Number of weights that share a scale.
        block: usize,
        /// Whether the input of the product stays float32. Otherwise it is quantized to int8.
        exact: bool,
    },
}

/// A product, and the nodes that compute it.
pub struct Product {
    /// Input of the product.
    pub x: ValueId,
    /// Nodes that compute the product.
    pub nodes: Vec<NodeId>,
    /// Weights, sizes and output of the product.
    pub part: LinearPart,
    /// Values that only nodes of the group may read.
    pub inside: Vec<ValueId>,
    /// Variant of the product without the nodes that compute the values in `inside`; `None` if there are no such
    /// values.
    pub without: Option<Box<Product>>,
}

/// Largest K or N of products that are claimed.
const MOST: i64 = 1 << 16;

/// Adds the groups of products to `found`. Products with the same input form one group.
pub fn find(graph: &Graph<'_>, rules: &Rules<'_>, found: &mut Found) {
    let mut by_input: BTreeMap<ValueId, Vec<Product>> = BTreeMap::new();
    for node in graph.ids().filter(|node| found.is_free(*node)) {
        if let Some(product) = product(graph, rules, node) {
            by_input.entry(product.x).or_default().push(product);
        }
    }
    let mut groups: Vec<_> = by_input.into_values().collect();
    groups.sort_by_key(|products| products[0].nodes.iter().min().copied());
    for products in groups {
        for products in pieces(products) {
            found.add(Some(group(closed(graph, products))));
        }
    }
}

/// Returns `products`; if nodes outside of the group read a value in `inside`, returns their variants without the nodes
/// that compute such values.
fn closed(graph: &Graph<'_>, products: Vec<Product>) -> Vec<Product> {
    let nodes: BTreeSet<NodeId> = products.iter().flat_map(|product| product.nodes.iter().copied()).collect();
    let is_inside = |value: &ValueId| {
        let value = graph.value(*value);
        !value.is_output && value.consumers.iter().all(|node| nodes.contains(node))
    };
    if products.iter().flat_map(|product| &product.inside).all(is_inside) {
        return products;
    }
    let without = |mut product: Product| product.without.take().map_or(product, |without| *without);
    products.into_iter().map(without).collect()
}

/// Maximum number of outputs of a group.
const OUTPUTS: usize = 32;

/// Returns `products`, divided into groups of at most [`OUTPUTS`] outputs.
fn pieces(mut products: Vec<Product>) -> Vec<Vec<Product>> {
    let mut pieces = Vec::new();
    while products.len() > OUTPUTS {
        let rest = products.split_off(OUTPUTS);
        pieces.push(std::mem::replace(&mut products, rest));
    }
    pieces.push(products);
    pieces
}

/// Returns the group of products with the same input.
fn group(products: Vec<Product>) -> Group {
    let x = products[0].x;
    let nodes: BTreeSet<_> = products.iter().flat_map(|product| product.nodes.clone()).collect();
    let nodes = nodes.into_iter().collect();
    let parts = products.into_iter().map(|product| product.part).collect();
    Group { nodes, plan: Plan::Linear(LinearPlan { x, form: InputForm::Dynamic, parts }) }
}

/// Returns the product whose first node is `node`; `None` if `node` does not begin a product that can be claimed.
fn product(graph: &Graph<'_>, rules: &Rules<'_>, node: NodeId) -> Option<Product> {
    if graph.is_microsoft(node, "MatMulNBits") {
        return blocks::find(graph, rules, node);
    }
    let precision = rules.float_products()?;
    let (x, values) = (graph.input(node, 0)?, graph.input(node, 1)?);
    let layout = layout(graph, node)?;
    let [rows, columns] = graph.shape_of(values, Element::Float32)?[..] else { return None };
    let (k, n) = if layout == Layout::KxN { (rows, columns) } else { (columns, rows) };
    if !graph.value(values).is_constant || !fits(graph, x, k, n) {
        return None;
    }
    let n = n as usize;
    let bias = match graph.input(node, 2).filter(|_| graph.is(node, "Gemm")) {
        Some(bias) => Some(gemm_bias(graph, bias, n)?),
        None => None,
    };
    let follow = epilogue::follow(graph, graph.output(node)?, n, bias);
    Some(whole(node, x, Weight::Float { values, layout, precision }, (k as usize, n), follow))
}

/// Returns the product of `node` with the weights `weight`, together with its epilogue.
pub fn whole(node: NodeId, x: ValueId, weight: Weight, (k, n): (usize, usize), follow: Epilogue) -> Product {
    let Epilogue { mut nodes, bias, activation, y } = follow;
    nodes.push(node);
    let part = LinearPart { weight, k, n, bias, activation, steps: Vec::new(), y };
    Product { x, nodes, part, inside: Vec::new(), without: None }
}

/// Returns whether `x` is a float32 value that is not constant, and K and N are from 1 to [`MOST`].
pub fn fits(graph: &Graph<'_>, x: ValueId, k: i64, n: i64) -> bool {
    let float = graph.value(x).element == Some(Element::Float32) && !graph.value(x).is_constant;
    float && (1..=MOST).contains(&k) && (1..=MOST).contains(&n)
}

/// Returns the layout of the weights of a `MatMul`, `Gemm` or `FusedMatMul`; `None` for other nodes and attributes.
pub fn layout(graph: &Graph<'_>, node: NodeId) -> Option<Layout> {
    let order = |transposed: bool| if transposed { Layout::NxK } else { Layout::KxN };
    if graph.is(node, "MatMul") {
        return Some(Layout::KxN);
    }
    let plain = |names: &[&str]| names.iter().all(|name| graph.int(node, name, 0) == 0);
    if graph.is(node, "Gemm") {
        let whole = graph.float(node, "alpha", 1.0) == 1.0 && graph.float(node, "beta", 1.0) == 1.0;
        return (whole && plain(&["transA"])).then(|| order(graph.int(node, "transB", 0) != 0));
    }
    let fused = graph.is_microsoft(node, "FusedMatMul") && graph.float(node, "alpha", 1.0) == 1.0;
    (fused && plain(&["transA", "transBatchA", "transBatchB"])).then(|| order(graph.int(node, "transB", 0) != 0))
}

/// Returns the bias of a `Gemm` as `n` values; `None` if it is not constant, or neither a single value nor a row of N
/// values (N or 1 × N).
pub fn gemm_bias(graph: &Graph<'_>, bias: ValueId, n: usize) -> Option<Vec<f32>> {
    let shape = graph.shape_of(bias, Element::Float32)?;
    let one_row = shape.len() < 2 || shape[0] == 1;
    if shape.len() > 2 || !one_row || !graph.value(bias).is_constant {
        return None;
    }
    let numbers = graph.constant(bias)?.floats().ok()?.into_owned();
    match numbers.len() {
        length if length == n => Some(numbers),
        1 => Some(vec![numbers[0]; n]),
        _ => None,
    }
}
