//! Scaling of channels: the inputs of matrix products are divided by a factor per channel, and their weights are
//! multiplied by it.
//!
//! `x W = (x / s) (s W)`, with `s` along the inputs of `W`. In exact arithmetic nothing changes; the rounding error
//! of either side does. `smooth` chooses `s` for 8-bit activations (SmoothQuant), `awq` for weights of few bits.
//!
//! All products that read one value share its factors. If no other node reads the value, the division is folded into
//! its producer. In a normalization, the scale and offset are divided; in a `Mul` by a constant vector, the vector; in
//! a `Mul` by the result of another product, the columns of that product's weight. Otherwise a `Mul` is inserted.

mod apply;
pub mod awq;
pub mod smooth;

pub use apply::apply;

use crate::graph::constants::{Constant, Matrix};
use crate::graph::{Producer, Use, View};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::NodeProto;

/// The products that read one value.
pub struct Group<'a> {
    /// Name of the value.
    pub value: String,
    /// Products that read the value.
    pub products: Vec<Product<'a>>,
    /// Number of channels of the value.
    pub size: usize,
    place: Place,
}

/// A product with a constant weight.
pub struct Product<'a> {
    /// Index of the node in the main graph.
    pub node: usize,
    /// Constant that is the weight.
    pub constant: Constant<'a>,
    /// Weight as a matrix, as stored.
    pub matrix: Matrix,
    /// Whether the inputs are the rows of the stored weight.
    pub inputs_are_rows: bool,
}

/// The place where the division by the factors is applied.
#[derive(Debug, Clone, PartialEq)]
enum Place {
    /// Constant inputs of the producer of the value.
    Constants { node: usize, inputs: Vec<usize> },
    /// Columns of the weight of another product.
    Columns { node: usize },
    /// A separate `Mul` node.
    Own,
}

/// The normalizations, with the indices of their scale and bias.
const NORMS: [(&str, &[usize]); 5] = [
    ("LayerNormalization", &[1, 2]),
    ("SimplifiedLayerNormalization", &[1]),
    ("RMSNormalization", &[1]),
    ("SkipLayerNormalization", &[2, 3]),
    ("SkipSimplifiedLayerNormalization", &[2]),
];

/// Returns the products among `nodes` of the main graph, grouped by the value that they read, in the order of `nodes`.
/// Omitted are nodes other than `MatMul` and `Gemm`, products whose left operand is transposed, whose weight has other
/// readers, or that do not compute in float32, and products with another number of inputs than the first of their
/// group.
pub fn groups<'a>(view: &View<'a>, nodes: &[usize]) -> Vec<Group<'a>> {
    let mut found: Vec<Group<'a>> = Vec::new();
    for &index in nodes {
        let node = view.node(0, index);
        let Some(product) = product(view, index, node) else { continue };
        let size = if product.inputs_are_rows { product.matrix.rows } else { product.matrix.columns };
        match found.iter_mut().find(|group| group.value == node.input[0]) {
            Some(group) if group.size == size => group.products.push(product),
            Some(_) => {}
            None => {
                found.push(Group { value: node.input[0].clone(), products: vec![product], size, place: Place::Own })
            }
        }
    }
    let all: Vec<usize> = found.iter().flat_map(|group| &group.products).map(|product| product.node).collect();
    for group in &mut found {
        group.place = place(view, group, &all);
    }
    found
}

/// Returns a node as a product; `None` if its inputs cannot be scaled.
fn product<'a>(view: &View<'a>, index: usize, node: &'a NodeProto) -> Option<Product<'a>> {
    if !(node.is("MatMul") || node.is("Gemm") && node.int("transA", 0) == 0) {
        return None;
    }
    let constant = view.constant(0, node.input_at(1)?)?;
    let matrix = Matrix::new(constant.tensor).ok()?;
    let transposed = constant.transposed != (node.is("Gemm") && node.int("transB", 0) != 0);
    let alone = constant.owner == 0 && only_read_by(view, constant.name, &constant, index);
    (alone && constant.dtype == DataType::Float32.to_onnx()).then_some(Product {
        node: index,
        constant,
        matrix,
        inputs_are_rows: !transposed,
    })
}

/// Returns whether the input 1 of the node `reader` is the only use of a constant.
fn only_read_by(view: &View<'_>, name: &str, constant: &Constant<'_>, reader: usize) -> bool {
    view.uses(0, name).iter().all(|place| match *place {
        Use::Node { body: 0, node, input } if node == reader => input == 1,
        Use::Node { body: 0, node, .. } if constant.chain.contains(&(0, node)) => {
            view.node(0, node).output.iter().all(|output| only_read_by(view, output, constant, reader))
        }
        Use::Node { .. } | Use::Output { .. } => false,
    })
}

/// Returns the place where the value of a group is divided. `products` are the nodes of all groups.
fn place(view: &View<'_>, group: &Group<'_>, products: &[usize]) -> Place {
    let own = |node: usize| group.products.iter().any(|product| product.node == node);
    let only_ours = view.uses(0, &group.value).iter().all(|place| match *place {
        Use::Node { body: 0, node, input } => own(node) && input == 0,
        Use::Node { .. } | Use::Output { .. } => false,
    });
    let Some((0, Producer::Node(index))) = view.producer(0, &group.value).filter(|_| only_ours) else {
        return Place::Own;
    };
    let node = view.node(0, index);
    let constants = |inputs: &[usize]| {
        inputs
            .iter()
            .filter_map(|input| node.input_at(*input))
            .all(|name| vector(view, name).is_some_and(|v| v.len() == group.size))
    };
    if let Some((_, inputs)) = NORMS.iter().find(|(op, _)| node.op() == *op) {
        let inputs: Vec<usize> = inputs.iter().copied().filter(|input| node.input_at(*input).is_some()).collect();
        let first = node.output.first() == Some(&group.value);
        return if first && constants(&inputs) { Place::Constants { node: index, inputs } } else { Place::Own };
    }
    if !node.is("Mul") {
        return Place::Own;
    }
    for input in 0..2 {
        if constants(&[input]) {
            return Place::Constants { node: index, inputs: vec![input] };
        }
        if let Some((0, Producer::Node(before))) = view.producer(0, &node.input[input])
            && products.contains(&before)
            && !own(before)
            && view.node(0, before).is("MatMul")
            && view.uses(0, &node.input[input]).len() == 1
            && outputs(view, before) == Some(group.size)
        {
            return Place::Columns { node: before };
        }
    }
    Place::Own
}

/// Returns the number of outputs of a product; `None` if its weight is not a constant. Values of a product with one
/// output may be multiplied by more values, and then have no factor for each.
fn outputs(view: &View<'_>, index: usize) -> Option<usize> {
    let product = product(view, index, view.node(0, index))?;
    Some(if product.inputs_are_rows { product.matrix.columns } else { product.matrix.rows })
}

/// Returns the elements of a constant float32 vector; `None` for other values.
fn vector(view: &View<'_>, name: &str) -> Option<Vec<f32>> {
    let constant = view.constant(0, name)?;
    let vector = constant.tensor.dims.len() == 1 && constant.dtype == DataType::Float32.to_onnx();
    constant.floats().filter(|_| vector)
}
