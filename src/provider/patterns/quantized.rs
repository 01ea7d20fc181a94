//! Products with dynamic quantization: `DynamicQuantizeLinear`, `MatMulInteger`, `Cast` and `Mul`, as the quantizers of
//! ONNX Runtime and of this library write them, and the fused operators of ONNX Runtime.

use super::epilogue::{self, Epilogue};
use super::linear::{InputForm, LinearPart, LinearPlan, Weight};
use super::{Group, Plan};
use crate::kernels::Layout;
use crate::provider::graph::{Element, Graph, NodeId, ValueId};

/// Returns the group of the products of a `DynamicQuantizeLinear` `node`, or of a `DynamicQuantizeMatMul` `node`;
/// `None` for other nodes, if one of the products cannot be claimed, or if there are none or more than 32.
///
/// The kernels quantize each row with its own symmetric scale. That is more accurate than one scale per tensor, except
/// for few rows whose values all have one sign.
pub fn find(graph: &Graph<'_>, node: NodeId) -> Option<Group> {
    if graph.is_microsoft(node, "DynamicQuantizeMatMul") {
        return fused(graph, node);
    }
    if !graph.is(node, "DynamicQuantizeLinear") {
        return None;
    }
    let outputs = &graph.node(node).outputs;
    let (Some(codes), Some(scale), Some(zero_point)) = (outputs[0], outputs[1], outputs[2]) else { return None };
    let rounded = Rounded { codes, scale, zero_point };
    if [codes, scale, zero_point].iter().any(|value| graph.value(*value).is_output) {
        return None;
    }
    let x = graph.input(node, 0).filter(|x| !graph.value(*x).is_constant)?;
    let (mut nodes, mut parts) = (vec![node], Vec::new());
    for product in &graph.value(codes).consumers {
        let (of_part, part) = rounded.product(graph, x, *product)?;
        nodes.extend(of_part);
        parts.push(part);
    }
    // Scale and zero point must not have other consumers either.
    let inside =
        [scale, zero_point].iter().all(|value| graph.value(*value).consumers.iter().all(|use_| nodes.contains(use_)));
    if parts.is_empty() || parts.len() > 32 || !inside {
        return None;
    }
    Some(Group { nodes, plan: Plan::Linear(LinearPlan { x, form: InputForm::Dynamic, parts }) })
}

/// The outputs of `DynamicQuantizeLinear`.
struct Rounded {
    codes: ValueId,
    scale: ValueId,
    zero_point: ValueId,
}

impl Rounded {
    /// Returns the nodes of the product that begins with `node`, and the product; `None` if it cannot be claimed.
    fn product(&self, graph: &Graph<'_>, x: ValueId, node: NodeId) -> Option<(Vec<NodeId>, LinearPart)> {
        if graph.is_microsoft(node, "MatMulIntegerToFloat") {
            return self.to_float(graph, x, node);
        }
        let plain = graph.is(node, "MatMulInteger")
            && graph.input(node, 0) == Some(self.codes)
            && graph.input(node, 2).is_none_or(|zero_point| zero_point == self.zero_point);
        if !plain || graph.input(node, 2).is_none() {
            return None;
        }
        let (codes, zero_points) = (graph.input(node, 1)?, graph.input(node, 3));
        let integers = graph.output(node)?;
        let cast = graph.only_use_by(integers, "Cast").filter(|cast| graph.int(*cast, "to", 0) == 1)?;
        let floats = graph.output(cast)?;
        let mul = graph.only_use_by(floats, "Mul")?;
        let both = graph.other(mul, floats)?;
        let scales_mul = graph.made_by(both, "Mul").filter(|_| graph.only_use(both) == Some(mul))?;
        let scales = graph.other(scales_mul, self.scale)?;
        let nodes = vec![node, cast, scales_mul, mul];
        finish(graph, x, nodes, codes, zero_points, scales, None, graph.output(mul)?)
    }

    /// Returns the nodes of the product of a `MatMulIntegerToFloat` node of ONNX Runtime, and the product; `None` if it
    /// cannot be claimed.
    fn to_float(&self, graph: &Graph<'_>, x: ValueId, node: NodeId) -> Option<(Vec<NodeId>, LinearPart)> {
        let input = |index| graph.input(node, index);
        if input(0) != Some(self.codes) || input(2) != Some(self.scale) || input(4) != Some(self.zero_point) {
            return None;
        }
        finish(graph, x, vec![node], input(1)?, input(5), input(3)?, input(6), graph.output(node)?)
    }
}

/// Returns all nodes of the product with the quantized weights `codes` and of its epilogue, and the product; `None` if
/// the weights or the bias are not supported.
#[allow(clippy::too_many_arguments)] // the inputs of the operators
fn finish(
    graph: &Graph<'_>,
    x: ValueId,
    mut nodes: Vec<NodeId>,
    codes: ValueId,
    zero_points: Option<ValueId>,
    scales: ValueId,
    bias: Option<ValueId>,
    product: ValueId,
) -> Option<(Vec<NodeId>, LinearPart)> {
    let (k, n, weight) = int8(graph, codes, zero_points, scales)?;
    if !super::linear::fits(graph, x, k as i64, n as i64) {
        return None;
    }
    let bias = match bias {
        Some(bias) => Some(epilogue::row(graph, bias, n)?),
        None => None,
    };
    let Epilogue { nodes: rest, bias, activation, y } = epilogue::follow(graph, product, n, bias);
    nodes.extend(rest);
    Some((nodes, LinearPart { weight, k, n, bias, activation, steps: Vec::new(), y }))
}

/// Returns K, N and the weights of a constant K × N matrix of quantized values, with one or N constant scales and zero
/// points; `None` if they are of another kind.
pub fn int8(
    graph: &Graph<'_>,
    codes: ValueId,
    zero_points: Option<ValueId>,
    scales: ValueId,
) -> Option<(usize, usize, Weight)> {
    let element = graph.value(codes).element.filter(|element| [Element::Int8, Element::Uint8].contains(element))?;
    let [k, n] = graph.shape_of(codes, element)?[..] else { return None };
    let (k, n) = (usize::try_from(k).ok()?, usize::try_from(n).ok()?);
    let length = |value: ValueId| -> Option<usize> {
        let shape = graph.value(value).shape.as_ref().filter(|shape| shape.len() <= 1)?;
        let length = shape.first().copied().unwrap_or(1) as usize;
        (graph.value(value).is_constant && (length == 1 || length == n)).then_some(length)
    };
    length(scales)?;
    let scales = graph.constant(scales)?.floats().ok()?.into_owned();
    let zero_points = match zero_points {
        Some(value) => {
            length(value).filter(|_| graph.value(value).element == Some(element))?;
            graph.constant(value)?.bytes.to_vec()
        }
        None => Vec::new(),
    };
    graph.value(codes).is_constant.then_some((k, n, Weight::Int8 { codes, layout: Layout::KxN, zero_points, scales }))
}

/// Returns the group of a `DynamicQuantizeMatMul` node of ONNX Runtime; `None` if it cannot be claimed.
fn fused(graph: &Graph<'_>, node: NodeId) -> Option<Group> {
    let input = |index| graph.input(node, index);
    let x = input(0)?;
    let (nodes, part) = finish(graph, x, vec![node], input(1)?, input(3), input(2)?, input(4), graph.output(node)?)?;
    Some(Group { nodes, plan: Plan::Linear(LinearPlan { x, form: InputForm::Dynamic, parts: vec![part] }) })
}
