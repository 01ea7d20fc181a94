//! Statically quantized products (QDQ): `MatMul` and `Gemm` between `DequantizeLinear` nodes, as the quantizers of ONNX
//! Runtime and of this library write them.
//!
//! ```text
//!  x -> QuantizeLinear -> DequantizeLinear -> MatMul -> [QuantizeLinear -> DequantizeLinear] -> Add bias -> ...
//!                   weight codes -> DequantizeLinear -/
//! ```
//! The pairs after the product are computed as in the model: they not only round but also clip, and a quantizer may
//! have removed an activation because of that.

use super::epilogue;
use super::linear::{self, InputForm, LinearPart, LinearPlan, Step, Weight};
use super::{Group, Plan};
use crate::kernels::{Activation, Layout};
use crate::provider::graph::{Element, Graph, NodeId, ValueId};

/// Returns the group of all products with the quantized value that the `DequantizeLinear` `node` reads. Each of these
/// products has a `DequantizeLinear` of its own, and `node` must be the first of them. Returns `None` for other nodes,
/// if there are no such products, or if there are more than 32.
pub fn find(graph: &Graph<'_>, node: NodeId) -> Option<Group> {
    let codes = graph.input(node, 0).filter(|_| graph.is(node, "DequantizeLinear"))?;
    let grid = Grid::of(graph, node).filter(|_| !graph.value(codes).is_constant)?;
    let quantize = graph.made_by(codes, "QuantizeLinear").filter(|quantize| Grid::of(graph, *quantize) == Some(grid));
    let (mut nodes, mut parts, mut others) = (Vec::new(), Vec::new(), graph.value(codes).is_output);
    for dequantize in &graph.value(codes).consumers {
        match restored(graph, *dequantize, grid) {
            Some((of_part, part)) => {
                nodes.push(*dequantize);
                nodes.extend(of_part);
                parts.push(part);
            }
            None => others = true,
        }
    }
    // Each group is found once, from its first node.
    if nodes.first() != Some(&node) || parts.len() > 32 {
        return None;
    }
    let Grid { scale, zero_point, signed } = grid;
    let form = |rounded| InputForm::Static { scale, zero_point, signed, rounded };
    let float = quantize.filter(|_| !others).and_then(|quantize| {
        let x = graph.input(quantize, 0)?;
        let plain = graph.value(x).element == Some(Element::Float32) && !graph.value(x).is_constant;
        plain.then_some((quantize, x))
    });
    let (x, form) = match float {
        Some((quantize, x)) => {
            nodes.push(quantize);
            (x, form(false))
        }
        None => (codes, form(true)),
    };
    Some(Group { nodes, plan: Plan::Linear(LinearPlan { x, form, parts }) })
}

/// Returns the nodes of the product that reads the output of `dequantize`, and the product; `None` if the parameters of
/// `dequantize` are not `grid`, or if there is no product that can be claimed.
fn restored(graph: &Graph<'_>, dequantize: NodeId, grid: Grid) -> Option<(Vec<NodeId>, LinearPart)> {
    let back = graph.is(dequantize, "DequantizeLinear") && Grid::of(graph, dequantize) == Some(grid);
    let product = graph.only_use(graph.output(dequantize)?).filter(|_| back)?;
    self::product(graph, dequantize, product)
}

/// The scale and zero point of a quantization per tensor, to 8 bits.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Grid {
    /// Scale of the quantization.
    pub scale: f32,
    /// Zero point of the quantization.
    pub zero_point: i32,
    /// Whether quantized values are int8, otherwise uint8.
    pub signed: bool,
}

impl Grid {
    /// Returns the parameters of a `QuantizeLinear` or `DequantizeLinear` node; `None` if they are not constant, not
    /// per tensor or not for 8 bits.
    fn of(graph: &Graph<'_>, node: NodeId) -> Option<Self> {
        let scale = graph.scalar(graph.input(node, 1)?).filter(|scale| scale.is_normal() && *scale > 0.0)?;
        let zero_point = graph.input(node, 2)?;
        let tensor = graph.constant(zero_point).filter(|tensor| tensor.bytes.len() == 1)?;
        let (zero_point, signed) = match tensor.element {
            Element::Uint8 => (i32::from(tensor.bytes[0]), false),
            Element::Int8 => (i32::from(tensor.bytes[0] as i8), true),
            _ => return None,
        };
        Some(Self { scale, zero_point, signed })
    }
}

/// Returns the nodes of the product `node`, whose input is the output of `input`, and the product; `None` if it cannot
/// be claimed.
fn product(graph: &Graph<'_>, input: NodeId, node: NodeId) -> Option<(Vec<NodeId>, LinearPart)> {
    let layout = linear::layout(graph, node)?;
    if graph.input(node, 0) != graph.output(input) {
        return None;
    }
    let values = graph.input(node, 1)?;
    let dequantize = graph.made_by(values, "DequantizeLinear").filter(|_| graph.only_use(values) == Some(node))?;
    let (k, n, weight) = weight(graph, dequantize, layout)?;
    if !linear::fits(graph, graph.output(input)?, k as i64, n as i64) {
        return None;
    }
    let mut nodes = vec![node, dequantize];
    let bias = match graph.input(node, 2).filter(|_| graph.is(node, "Gemm")) {
        Some(bias) => Some(self::bias(graph, bias, n, &mut nodes)?),
        None => None,
    };
    let mut part =
        LinearPart { weight, k, n, bias, activation: Activation::None, steps: Vec::new(), y: graph.output(node)? };
    while part.steps.len() < 6 {
        let Some((of_step, step, y)) = step(graph, part.y, n) else { break };
        nodes.extend(of_step);
        part.y = y;
        part.steps.push(step);
    }
    take_in(&mut part);
    Some((nodes, part))
}

/// Moves the first operations of `part` into the epilogue of the kernel, as far as the kernel supports them.
fn take_in(part: &mut LinearPart) {
    if let (Some(Step::Bias(_)), None) = (part.steps.first(), &part.bias)
        && let Step::Bias(bias) = part.steps.remove(0)
    {
        part.bias = Some(bias);
    }
    if let Some(Step::Activation(activation)) = part.steps.first() {
        part.activation = *activation;
        part.steps.remove(0);
    }
}

/// Returns the operation that follows `value`: its nodes, the step, and its output; `None` if no operation that can be
/// claimed follows.
fn step(graph: &Graph<'_>, value: ValueId, n: usize) -> Option<(Vec<NodeId>, Step, ValueId)> {
    if let Some(quantize) = graph.only_use_by(value, "QuantizeLinear") {
        let codes = graph.output(quantize)?;
        let dequantize = graph.only_use_by(codes, "DequantizeLinear")?;
        let grid = Grid::of(graph, quantize).filter(|grid| Grid::of(graph, dequantize) == Some(*grid))?;
        // The pair before another product belongs to that product, whose input it quantizes.
        let next = graph.only_use(graph.output(dequantize)?);
        let free = next.is_none_or(|next| linear::layout(graph, next).is_none());
        return if free {
            Some((vec![quantize, dequantize], Step::Round(grid), graph.output(dequantize)?))
        } else {
            None
        };
    }
    if let Some(add) = graph.only_use_by(value, "Add") {
        let mut nodes = vec![add];
        let bias = bias(graph, graph.other(add, value)?, n, &mut nodes)?;
        return Some((nodes, Step::Bias(bias), graph.output(add)?));
    }
    let (nodes, activation, y) = epilogue::activation(graph, value)?;
    Some((nodes, Step::Activation(activation), y))
}

/// Returns the content of a bias as `n` values; `None` if it is not constant or does not fit. If the bias is an int32
/// constant with a `DequantizeLinear`, adds that node to `nodes`.
fn bias(graph: &Graph<'_>, value: ValueId, n: usize, nodes: &mut Vec<NodeId>) -> Option<Vec<f32>> {
    if graph.value(value).is_constant {
        return epilogue::row(graph, value, n);
    }
    let node = graph.made_by(value, "DequantizeLinear").filter(|_| graph.only_use(value).is_some())?;
    let codes = graph.constant(graph.input(node, 0)?)?;
    let scales = graph.constant(graph.input(node, 1)?)?.floats().ok()?;
    let zero = match graph.input(node, 2) {
        Some(zero_point) => graph.constant(zero_point)?.bytes.iter().all(|byte| *byte == 0),
        None => true,
    };
    let fits =
        codes.shape == [n as i64] && [1, n].contains(&scales.len()) && zero && graph.int(node, "block_size", 0) == 0;
    let integers = codes.integers().ok().filter(|_| fits)?;
    nodes.push(node);
    Some(integers.iter().enumerate().map(|(at, code)| *code as f32 * scales[at % scales.len()]).collect())
}

/// Returns K, N and the weights that the `DequantizeLinear` `node` dequantizes; `None` if these are not constant 8-bit
/// weights with one scale, or one per column.
fn weight(graph: &Graph<'_>, node: NodeId, layout: Layout) -> Option<(usize, usize, Weight)> {
    let codes = graph.input(node, 0)?;
    let element = graph.value(codes).element.filter(|element| [Element::Int8, Element::Uint8].contains(element))?;
    let [rows, columns] = graph.shape_of(codes, element)?[..] else { return None };
    let (rows, columns) = (usize::try_from(rows).ok()?, usize::try_from(columns).ok()?);
    let (k, n) = if layout == Layout::KxN { (rows, columns) } else { (columns, rows) };
    let axis = graph.int(node, "axis", 1);
    let by_column = if layout == Layout::KxN { [1, -1] } else { [0, -2] };
    let scales = graph.constant(graph.input(node, 1)?)?;
    // The axis matters only with several scales: they must be one per column.
    let fits = |length: usize| length == 1 || (length == n && by_column.contains(&axis));
    let zero_points = match graph.input(node, 2) {
        Some(zero_points) => graph.constant(zero_points).filter(|found| found.element == element)?.bytes.to_vec(),
        None => Vec::new(),
    };
    let plain = graph.value(codes).is_constant && graph.int(node, "block_size", 0) == 0 && scales.shape.len() <= 1;
    if !plain || !fits(scales.element_count()) || !(zero_points.is_empty() || fits(zero_points.len())) {
        return None;
    }
    let scales = scales.floats().ok()?.into_owned();
    Some((k, n, Weight::Int8 { codes, layout, zero_points, scales }))
}
