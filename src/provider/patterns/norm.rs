//! Normalizations: `LayerNormalization`, `RMSNormalization` and `SimplifiedLayerNormalization` with the sums before
//! them, and ONNX Runtime's `SkipLayerNormalization` and `SkipSimplifiedLayerNormalization`.

use super::epilogue::row;
use super::{Group, Plan};
use crate::provider::graph::{Element, Graph, NodeId, ValueId};

/// A normalization of rows of `gamma.len()` elements.
#[derive(Debug)]
pub struct NormPlan {
    /// Input of the normalization.
    pub x: ValueId,
    /// Value that is added to the input before the normalization. Either of the two may be broadcast.
    pub residual: Option<ValueId>,
    /// Bias that is added to the sum of the input and the residual.
    pub bias: Option<Vec<f32>>,
    /// Scale by which normalized rows are multiplied.
    pub gamma: Vec<f32>,
    /// Bias that is added after the scale.
    pub beta: Option<Vec<f32>>,
    /// Epsilon, which is added to the variance, or to the mean square.
    pub epsilon: f32,
    /// Whether the normalization is RMSNorm, which does not subtract the mean.
    pub rms: bool,
    /// Output of the normalization.
    pub y: ValueId,
    /// Output for the sum before the normalization, if it has other consumers or is an output of the graph.
    pub sum: Option<ValueId>,
}

/// Returns the group of the normalization `node`, with the sum before it; `None` if `node` is another operator, or if
/// there is no residual: `node` adds none itself, and no free `Add` produces its input. `is_free` returns whether a
/// node belongs to no other group.
pub fn find(graph: &Graph<'_>, node: NodeId, is_free: &dyn Fn(NodeId) -> bool) -> Option<Group> {
    if let Some(plan) = skip(graph, node) {
        return Some(Group { nodes: vec![node], plan: Plan::Norm(plan) });
    }
    let mut plan = plain(graph, node)?;
    let mut nodes = vec![node];
    take_sum(graph, &mut plan, &mut nodes, is_free)?;
    Some(Group { nodes, plan: Plan::Norm(plan) })
}

/// Returns the plan of a normalization `node` that does not itself add a residual; `None` for other nodes and forms.
fn plain(graph: &Graph<'_>, node: NodeId) -> Option<NormPlan> {
    let rms = match graph.node(node).op.as_str() {
        "LayerNormalization" => false,
        "RMSNormalization" | "SimplifiedLayerNormalization" => true,
        _ => return None,
    };
    if !graph.node(node).domain.is_empty() || !graph.has_one_output(node) || graph.int(node, "stash_type", 1) != 1 {
        return None;
    }
    let x = graph.input(node, 0)?;
    let gamma = vector(graph, graph.input(node, 1)?, None)?;
    let rank = graph.shape_of(x, Element::Float32)?.len() as i64;
    let axis = graph.int(node, "axis", -1);
    if rank == 0 || (axis != -1 && axis != rank - 1) || gamma.is_empty() {
        return None;
    }
    let beta = match graph.input(node, 2) {
        Some(beta) => Some(vector(graph, beta, Some(gamma.len()))?),
        None => None,
    };
    let epsilon = graph.float(node, "epsilon", 1e-5);
    Some(NormPlan { x, residual: None, bias: None, gamma, beta, epsilon, rms, y: graph.output(node)?, sum: None })
}

/// Returns the content of a constant float32 vector; `None` if `value` is not one, or does not have `length` elements.
fn vector(graph: &Graph<'_>, value: ValueId, length: Option<usize>) -> Option<Vec<f32>> {
    let [size] = graph.shape_of(value, Element::Float32)?[..] else { return None };
    let fits = graph.value(value).is_constant && length.is_none_or(|length| length as i64 == size);
    if fits { Some(graph.constant(value)?.floats().ok()?.into_owned()) } else { None }
}

/// Adds to the group (`plan` and `nodes`) the `Add` that produces the input of the normalization, and an `Add` of a
/// bias before that, if there is one. Returns `None` if no free `Add` produces the input: a normalization alone is as
/// fast in ONNX Runtime.
fn take_sum(
    graph: &Graph<'_>,
    plan: &mut NormPlan,
    nodes: &mut Vec<NodeId>,
    is_free: &dyn Fn(NodeId) -> bool,
) -> Option<()> {
    let sum = plan.x;
    let add = graph.made_by(sum, "Add").filter(|add| is_free(*add))?;
    let (Some(a), Some(b)) = (graph.input(add, 0), graph.input(add, 1)) else { return None };
    let width = plan.gamma.len();
    let plain = |value: ValueId| {
        let rows = graph.shape_of(value, Element::Float32).is_some_and(|shape| !shape.is_empty());
        rows && !graph.value(value).is_constant
    };
    if a == b || !plain(a) || !plain(b) {
        return None;
    }
    nodes.push(add);
    (plan.x, plan.residual) = (a, Some(b));
    if graph.only_use(sum).is_none() {
        plan.sum = Some(sum);
    }
    for (operand, other) in [(a, b), (b, a)] {
        let Some(bias_add) = graph.only_use(operand).and(graph.made_by(operand, "Add")).filter(|add| is_free(*add))
        else {
            continue;
        };
        let found = graph.node(bias_add).inputs.iter().flatten().find_map(|bias| {
            let x = graph.other(bias_add, *bias).filter(|x| plain(*x) && *x != other)?;
            // The rows must have the full width, because adding the bias would otherwise broadcast them.
            let wide = graph.shape_of(x, Element::Float32)?.last() == Some(&(width as i64));
            Some((x, row(graph, *bias, width).filter(|_| wide)?))
        });
        if let Some((x, bias)) = found {
            nodes.push(bias_add);
            (plan.x, plan.residual, plan.bias) = (x, Some(other), Some(bias));
            break;
        }
    }
    Some(())
}

/// Returns the plan of a `SkipLayerNormalization` or `SkipSimplifiedLayerNormalization` of ONNX Runtime; `None` for
/// other nodes and forms.
fn skip(graph: &Graph<'_>, node: NodeId) -> Option<NormPlan> {
    let rms = graph.is_microsoft(node, "SkipSimplifiedLayerNormalization");
    if !rms && !graph.is_microsoft(node, "SkipLayerNormalization") {
        return None;
    }
    let (x, residual) = (graph.input(node, 0)?, graph.input(node, 1)?);
    let gamma = vector(graph, graph.input(node, 2)?, None)?;
    let optional = |index: Option<ValueId>| match index {
        Some(value) => vector(graph, value, Some(gamma.len())).map(Some),
        None => Some(None),
    };
    let (beta, bias) = match rms {
        true => (None, optional(graph.input(node, 3))?),
        false => (optional(graph.input(node, 3))?, optional(graph.input(node, 4))?),
    };
    let values = [x, residual];
    let unused = |index: usize| {
        let output = graph.node(node).outputs.get(index).copied().flatten();
        output.is_none_or(|value| graph.value(value).consumers.is_empty() && !graph.value(value).is_output)
    };
    let plain = values.iter().all(|value| {
        let value = graph.value(*value);
        value.element == Some(Element::Float32) && !value.is_constant
    });
    if !plain || gamma.is_empty() || !unused(1) || !unused(2) {
        return None;
    }
    let sum = if unused(3) { None } else { graph.node(node).outputs[3] };
    let epsilon = graph.float(node, "epsilon", 1e-12);
    Some(NormPlan { x, residual: Some(residual), bias, gamma, beta, epsilon, rms, y: graph.output(node)?, sum })
}
