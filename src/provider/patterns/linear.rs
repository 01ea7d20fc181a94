//! Products with constant weights: MatMul, Gemm, FusedMatMul, MatMulNBits, each with its bias and activation.

use std::collections::BTreeMap;

use super::epilogue::{self, Epilogue};
use super::static_quantized::Grid;
use super::{Found, Group, Kind, Plan, Rules};
use crate::kernels::{Activation, Layout, Precision as Packed};
use crate::provider::graph::{Element, Graph, NodeId, ValueId};
use crate::provider::options::Precision;

/// One input and the products with it.
#[derive(Debug)]
pub struct LinearPlan {
    /// The input: rows of K values.
    pub x: ValueId,
    /// What the input is rounded to.
    pub form: InputForm,
    /// The products. They share the input's rounding.
    pub parts: Vec<LinearPart>,
}

/// How the input of a product is rounded.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum InputForm {
    /// As the packed weights want it: not at all, to bfloat16, or to int8 with a scale a row.
    Dynamic,
    /// To 8 bits, with the scale and zero point that the file gives.
    Static {
        /// The step.
        scale: f32,
        /// The code of 0.
        zero_point: i32,
        /// Whether the codes are int8.
        signed: bool,
        /// Whether `x` holds the codes already.
        rounded: bool,
    },
}

/// A product.
#[derive(Debug)]
pub struct LinearPart {
    /// The weights.
    pub weight: Weight,
    /// Inputs.
    pub k: usize,
    /// Outputs.
    pub n: usize,
    /// `n` numbers that are added.
    pub bias: Option<Vec<f32>>,
    /// The function applied then.
    pub activation: Activation,
    /// What is done after that.
    pub steps: Vec<Step>,
    /// The output.
    pub y: ValueId,
}

/// Something done to each value of a product.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// Rounded to a grid, and back.
    Round(Grid),
    /// A number of its column is added.
    Bias(Vec<f32>),
    /// A function.
    Activation(Activation),
}

/// Constant weights as the file has them.
#[derive(Debug)]
pub enum Weight {
    /// float32, to be packed as `precision`.
    Float {
        /// The values.
        values: ValueId,
        /// Their order.
        layout: Layout,
        /// What they become.
        precision: Packed,
    },
    /// int8 or uint8.
    Int8 {
        /// The codes.
        codes: ValueId,
        /// Their order.
        layout: Layout,
        /// None, one or N codes of 0.
        zero_points: Vec<u8>,
        /// One or N steps.
        scales: Vec<f32>,
    },
    /// MatMulNBits.
    Blocks {
        /// The codes.
        codes: ValueId,
        /// The steps.
        scales: ValueId,
        /// The codes of 0, or none.
        zero_points: Option<ValueId>,
        /// 4 or 8.
        bits: usize,
        /// Values that share a step.
        block: usize,
    },
}

/// A product with the nodes that compute it.
pub struct Product {
    /// Its input.
    pub x: ValueId,
    /// The nodes.
    pub nodes: Vec<NodeId>,
    /// The product.
    pub part: LinearPart,
}

/// K and N beyond these are left to ONNX Runtime.
const MOST: i64 = 1 << 16;

/// Adds the groups of products to `found`: those of one input are one group.
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
            found.add(Some(group(products)));
        }
    }
}

/// How many outputs a group has at most.
const OUTPUTS: usize = 32;

/// Returns `products` in pieces of as many outputs as a node may have.
fn pieces(mut products: Vec<Product>) -> Vec<Vec<Product>> {
    let mut pieces = Vec::new();
    while products.len() > OUTPUTS {
        let rest = products.split_off(OUTPUTS);
        pieces.push(std::mem::replace(&mut products, rest));
    }
    pieces.push(products);
    pieces
}

fn group(products: Vec<Product>) -> Group {
    let x = products[0].x;
    let nodes = products.iter().flat_map(|product| product.nodes.clone()).collect();
    let parts = products.into_iter().map(|product| product.part).collect();
    Group { nodes, plan: Plan::Linear(LinearPlan { x, form: InputForm::Dynamic, parts }) }
}

/// Returns the product that `node` begins.
fn product(graph: &Graph<'_>, rules: &Rules<'_>, node: NodeId) -> Option<Product> {
    if graph.is_microsoft(node, "MatMulNBits") {
        return blocks(graph, rules, node);
    }
    let precision = match rules.precision {
        Precision::Float32 => return None,
        Precision::Bfloat16 => Packed::Bfloat16,
        Precision::Int8 => Packed::Int8,
    };
    if !rules.claims(Kind::Linear) {
        return None;
    }
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

/// Returns the product of `node` with what follows it.
pub fn whole(node: NodeId, x: ValueId, weight: Weight, (k, n): (usize, usize), follow: Epilogue) -> Product {
    let Epilogue { mut nodes, bias, activation, y } = follow;
    nodes.push(node);
    Product { x, nodes, part: LinearPart { weight, k, n, bias, activation, steps: Vec::new(), y } }
}

/// Returns true if `x` is a float32 input of `k` values a row, and the sizes are ones that the kernels have.
pub fn fits(graph: &Graph<'_>, x: ValueId, k: i64, n: i64) -> bool {
    let float = graph.value(x).element == Some(Element::Float32) && !graph.value(x).is_constant;
    float && (1..=MOST).contains(&k) && (1..=MOST).contains(&n)
}

/// Returns the order of the weights of a plain product, or `None` if `node` is another one.
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

/// Returns the numbers that Gemm adds to each row: C of the sizes N, 1 × N or 1.
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

/// Returns the product of a MatMulNBits node.
///
/// Only with `accuracy_level` 4, by which the file lets the input be rounded to int8, or when the session asks for
/// int8: else ONNX Runtime computes in float32.
fn blocks(graph: &Graph<'_>, rules: &Rules<'_>, node: NodeId) -> Option<Product> {
    let rounded = graph.int(node, "accuracy_level", 0) == 4 || rules.precision == Precision::Int8;
    if !rules.claims(Kind::Blocks) || !rounded || graph.int(node, "weight_prepacked", 0) != 0 {
        return None;
    }
    let (k, n) = (graph.int(node, "K", 0), graph.int(node, "N", 0));
    let (bits, block) = (graph.int(node, "bits", 4), graph.int(node, "block_size", 0));
    let (x, codes, scales) = (graph.input(node, 0)?, graph.input(node, 1)?, graph.input(node, 2)?);
    let zero_points = graph.input(node, 3);
    let known_block = [16, 32, 64, 128, 256].contains(&block) && [4, 8].contains(&bits);
    let constant = |value: ValueId, element: Element| {
        graph.value(value).is_constant && graph.value(value).element == Some(element)
    };
    let constants = constant(codes, Element::Uint8)
        && constant(scales, Element::Float32)
        && zero_points.is_none_or(|zero_points| constant(zero_points, Element::Uint8));
    if !known_block || !constants || graph.input(node, 4).is_some() || !fits(graph, x, k, n) {
        return None;
    }
    let n = n as usize;
    let bias = match graph.input(node, 5) {
        Some(bias) => Some(epilogue::row(graph, bias, n)?),
        None => None,
    };
    let follow = epilogue::follow(graph, graph.output(node)?, n, bias);
    let weight = Weight::Blocks { codes, scales, zero_points, bits: bits as usize, block: block as usize };
    Some(whole(node, x, weight, (k as usize, n), follow))
}
