//! The epilogue of a product (a bias and an activation), and activations that do not follow a product.

use super::{Group, Plan};
use crate::kernels::Activation;
use crate::provider::graph::{Element, Graph, NodeId, ValueId};

/// An activation function that does not follow a product, with the bias before it.
#[derive(Debug)]
pub struct ActivationPlan {
    /// Input of the activation function.
    pub x: ValueId,
    /// Bias that is added to each row before the activation function.
    pub bias: Option<Vec<f32>>,
    /// Activation function that the group computes.
    pub activation: Activation,
    /// Output of the activation function.
    pub y: ValueId,
}

/// The nodes after a product that the kernel of the product computes.
pub struct Epilogue {
    /// Nodes that compute the bias and the activation.
    pub nodes: Vec<NodeId>,
    /// Bias of the product: one value per column.
    pub bias: Option<Vec<f32>>,
    /// Activation function that is applied after the bias.
    pub activation: Activation,
    /// Output of the last of the nodes; the product if there are none.
    pub y: ValueId,
}

/// Returns the epilogue of `product`, whose rows have `n` elements; `bias` is the bias that the node of the product
/// itself adds.
pub fn follow(graph: &Graph<'_>, product: ValueId, n: usize, bias: Option<Vec<f32>>) -> Epilogue {
    let mut found = Epilogue { nodes: Vec::new(), bias, activation: Activation::None, y: product };
    if found.bias.is_none()
        && let Some(add) = graph.only_use_by(product, "Add")
        && let Some(bias) = graph.other(add, product).and_then(|bias| row(graph, bias, n))
        && let Some(y) = graph.output(add)
    {
        (found.bias, found.y) = (Some(bias), y);
        found.nodes.push(add);
    }
    if let Some(step) = biased(graph, found.y, n).filter(|step| step.bias.is_none() || found.bias.is_none()) {
        found.bias = found.bias.or(step.bias);
        (found.activation, found.y) = (step.activation, step.y);
        found.nodes.extend(step.nodes);
    } else if let Some((nodes, activation, y)) = activation(graph, found.y) {
        (found.activation, found.y) = (activation, y);
        found.nodes.extend(nodes);
    }
    found
}

/// Returns the content of `bias` as `n` values: a single value is repeated. Returns `None` if `bias` is not a float32
/// constant with at most one dimension and with 1 or `n` elements.
pub fn row(graph: &Graph<'_>, bias: ValueId, n: usize) -> Option<Vec<f32>> {
    let shape = graph.shape_of(bias, Element::Float32)?;
    if shape.len() > 1 || !graph.value(bias).is_constant {
        return None;
    }
    let numbers = graph.constant(bias)?.floats().ok()?.into_owned();
    match numbers.len() {
        length if length == n => Some(numbers),
        1 => Some(vec![numbers[0]; n]),
        _ => None,
    }
}

/// Returns the epilogue of an activation with a bias (`BiasGelu` or `FastGelu` of ONNX Runtime) that is the only
/// consumer of `x`; `None` if there is no such node.
fn biased(graph: &Graph<'_>, x: ValueId, n: usize) -> Option<Epilogue> {
    let node = graph.only_use(x)?;
    let activation = match (graph.is_microsoft(node, "BiasGelu"), graph.is_microsoft(node, "FastGelu")) {
        (true, _) => Activation::Gelu,
        (_, true) => Activation::GeluTanh,
        _ => return None,
    };
    if graph.input(node, 0) != Some(x) {
        return None;
    }
    let bias = match graph.input(node, 1) {
        Some(bias) => Some(row(graph, bias, n).filter(|_| graph.value(bias).shape.as_deref() == Some(&[n as i64]))?),
        None => None,
    };
    Some(Epilogue { nodes: vec![node], bias, activation, y: graph.output(node)? })
}

/// Returns the activation of `x` if `x` has no other consumer: its nodes, its function and its output; otherwise
/// `None`.
pub fn activation(graph: &Graph<'_>, x: ValueId) -> Option<(Vec<NodeId>, Activation, ValueId)> {
    if graph.value(x).is_output || graph.value(x).element != Some(Element::Float32) {
        return None;
    }
    single(graph, x).or_else(|| gelu_erf(graph, x)).or_else(|| gelu_tanh(graph, x)).or_else(|| silu(graph, x))
}

/// Returns the activation of `x` if it is a single node: the node, its function and its output; otherwise `None`.
fn single(graph: &Graph<'_>, x: ValueId) -> Option<(Vec<NodeId>, Activation, ValueId)> {
    let node = graph.only_use(x)?;
    let activation = match graph.node(node).op.as_str() {
        "Relu" if graph.is(node, "Relu") => Activation::Relu,
        "Tanh" if graph.is(node, "Tanh") => Activation::Tanh,
        "Sigmoid" if graph.is(node, "Sigmoid") => Activation::Sigmoid,
        "Gelu" if graph.is_microsoft(node, "Gelu") => Activation::Gelu,
        "Gelu" if graph.is(node, "Gelu") => match graph.text(node, "approximate").as_deref() {
            None | Some("none") => Activation::Gelu,
            Some("tanh") => Activation::GeluTanh,
            Some(_) => return None,
        },
        "QuickGelu" if graph.is_microsoft(node, "QuickGelu") => match graph.float(node, "alpha", 1.702) {
            1.0 => Activation::Silu,
            alpha if (alpha - 1.702).abs() < 1e-6 => Activation::QuickGelu,
            _ => return None,
        },
        _ => return None,
    };
    Some((vec![node], activation, graph.output(node)?))
}

/// Returns the output of `node` if it multiplies `value` by the constant `factor` or divides it by the inverse of
/// `factor`; otherwise `None`.
fn scaled(graph: &Graph<'_>, value: ValueId, node: NodeId, factor: f32) -> Option<ValueId> {
    let fits = if graph.is(node, "Mul") {
        graph.is_scalar(graph.other(node, value)?, factor)
    } else {
        graph.is(node, "Div")
            && graph.input(node, 0) == Some(value)
            && graph.is_scalar(graph.input(node, 1)?, 1.0 / factor)
    };
    if fits { graph.output(node) } else { None }
}

/// Returns the nodes, function and output of a GELU as PyTorch exports it: x/√2 → Erf → + 1 → · x → · 1/2; the factor
/// 1/2 may come before or after. Returns `None` for other nodes.
fn gelu_erf(graph: &Graph<'_>, x: ValueId) -> Option<(Vec<NodeId>, Activation, ValueId)> {
    let (div, inner) = graph
        .value(x)
        .consumers
        .iter()
        .find_map(|node| Some((*node, scaled(graph, x, *node, std::f32::consts::FRAC_1_SQRT_2)?)))?;
    let erf = graph.only_use_by(inner, "Erf")?;
    let add = graph.only_use_by(graph.output(erf)?, "Add")?;
    if !graph.is_scalar(graph.other(add, graph.output(erf)?)?, 1.0) {
        return None;
    }
    let (mut nodes, y) = half_product(graph, x, &[div], graph.output(add)?)?;
    nodes.extend([div, erf, add]);
    Some((nodes, Activation::Gelu, y))
}

/// Returns the nodes, function and output of a GELU with tanh as PyTorch and TensorFlow export it: 1/2 x (1 +
/// tanh(√(2/π) (x + 0.044715 x³))). Returns `None` for other nodes.
fn gelu_tanh(graph: &Graph<'_>, x: ValueId) -> Option<(Vec<NodeId>, Activation, ValueId)> {
    let pow = graph.value(x).consumers.iter().copied().find(|node| {
        graph.is(*node, "Pow")
            && graph.input(*node, 0) == Some(x)
            && graph.input(*node, 1).is_some_and(|power| graph.is_scalar(power, 3.0))
    })?;
    let cube = graph.output(pow)?;
    let mul = graph.only_use(cube)?;
    let small = scaled(graph, cube, mul, 0.044_715)?;
    let inner = graph.only_use_by(small, "Add").filter(|add| graph.other(*add, small) == Some(x))?;
    let sum = graph.output(inner)?;
    let scale = graph.only_use(sum)?;
    let argument = scaled(graph, sum, scale, 0.797_884_6)?;
    let tanh = graph.only_use_by(argument, "Tanh")?;
    let add = graph.only_use_by(graph.output(tanh)?, "Add")?;
    if !graph.is_scalar(graph.other(add, graph.output(tanh)?)?, 1.0) {
        return None;
    }
    let (mut nodes, y) = half_product(graph, x, &[pow, inner], graph.output(add)?)?;
    nodes.extend([pow, mul, inner, scale, tanh, add]);
    Some((nodes, Activation::GeluTanh, y))
}

/// Returns the nodes and the output of x · `gate` · 1/2, multiplied in any order; `None` if there are no such nodes.
/// `used` are the other consumers of x.
fn half_product(graph: &Graph<'_>, x: ValueId, used: &[NodeId], gate: ValueId) -> Option<(Vec<NodeId>, ValueId)> {
    let first = graph.only_use_by(gate, "Mul")?;
    let factor = graph.other(first, gate)?;
    let others: Vec<_> = graph.value(x).consumers.iter().filter(|node| !used.contains(node)).copied().collect();
    let [other] = others[..] else { return None };
    if factor == x && other == first {
        // (x · gate) · 1/2
        let product = graph.output(first)?;
        let half = graph.only_use(product)?;
        return Some((vec![first, half], scaled(graph, product, half, 0.5)?));
    }
    if graph.is_scalar(factor, 0.5) {
        // x · (gate · 1/2)
        let halved = graph.output(first)?;
        let last = graph.only_use_by(halved, "Mul")?;
        let fits = other == last && graph.other(last, halved) == Some(x);
        return if fits { Some((vec![first, last], graph.output(last)?)) } else { None };
    }
    // (x · 1/2) · gate
    let halved = scaled(graph, x, other, 0.5)?;
    let fits = factor == halved && graph.only_use(halved) == Some(first);
    if fits { Some((vec![other, first], graph.output(first)?)) } else { None }
}

/// Returns the nodes, function and output of a SiLU, x · Sigmoid(x); `None` for other nodes.
fn silu(graph: &Graph<'_>, x: ValueId) -> Option<(Vec<NodeId>, Activation, ValueId)> {
    let [first, second] = graph.value(x).consumers[..] else { return None };
    let (sigmoid, mul) = if graph.is(first, "Sigmoid") { (first, second) } else { (second, first) };
    let gate = graph.output(sigmoid).filter(|_| graph.is(sigmoid, "Sigmoid"))?;
    let fits = graph.only_use_by(gate, "Mul") == Some(mul) && graph.other(mul, gate) == Some(x);
    if fits { Some((vec![sigmoid, mul], Activation::Silu, graph.output(mul)?)) } else { None }
}

/// Returns the group of an activation that does not follow a product; `node` is the bias before it or one of its nodes.
/// Only GELUs are claimed, because in ONNX Runtime they are several nodes or slow; returns `None` for other nodes.
pub fn find(graph: &Graph<'_>, node: NodeId) -> Option<Group> {
    let is_gelu = |activation: Activation| matches!(activation, Activation::Gelu | Activation::GeluTanh);
    if graph.is(node, "Add") {
        let y = graph.output(node)?;
        let (x, bias) = graph.node(node).inputs.iter().flatten().find_map(|bias| {
            let [n] = graph.shape_of(*bias, Element::Float32)? else { return None };
            let x = graph.other(node, *bias)?;
            // Rows narrower than the bias would be broadcast.
            let fits = graph.shape_of(x, Element::Float32)?.last() == Some(n);
            Some((x, row(graph, *bias, *n as usize).filter(|_| fits)?))
        })?;
        let (mut nodes, activation, y) = activation(graph, y).filter(|found| is_gelu(found.1))?;
        nodes.push(node);
        return Some(Group { nodes, plan: Plan::Activation(ActivationPlan { x, bias: Some(bias), activation, y }) });
    }
    let x = graph.node(node).inputs.iter().flatten().copied().find(|value| !graph.value(*value).is_constant)?;
    let n = graph.value(x).shape.as_ref()?.last().copied()?;
    if let Some(step) = biased(graph, x, n.max(0) as usize).filter(|step| step.nodes == [node]) {
        let plan = ActivationPlan { x, bias: step.bias, activation: step.activation, y: step.y };
        return Some(Group { nodes: step.nodes, plan: Plan::Activation(plan) });
    }
    let (nodes, activation, y) = activation(graph, x).filter(|found| is_gelu(found.1) && found.0.contains(&node))?;
    Some(Group { nodes, plan: Plan::Activation(ActivationPlan { x, bias: None, activation, y }) })
}
