//! The origin of a value that is not a constant, for messages about weights that cannot be changed ([`Origin`]).

use super::{BodyId, Producer, View};
use crate::onnx::proto::NodeProto;

/// The maximum number of nodes that are followed before a value counts as computed.
const LOOKS: usize = 64;
/// The operators that return the elements of their first input, in another shape, order or type.
const PASSING: [&str; 7] = ["Identity", "Transpose", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten"];

/// The origin of a value that is not a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// A `DequantizeLinear` node whose first input follows from constants.
    Dequantized,
    /// Other nodes whose inputs follow from constants. The text is the operator of the node that produces the value.
    Constants(&'a str),
    /// A parameter of the enclosing function.
    Parameter,
    /// A sparse initializer, of which only the elements that are not zero are stored.
    Sparse,
    /// An input of the model, a random number or a node with subgraphs, on which the value depends at least in part; or
    /// too many nodes to follow.
    Computed,
}

impl Origin<'_> {
    /// Returns the reason why a weight of that origin stays unchanged; `None` if the value is not a weight.
    pub fn why_left(self) -> Option<String> {
        match self {
            Origin::Dequantized => Some("is already quantized".to_owned()),
            Origin::Constants(op) => Some(format!("the weight is computed from constants by {op}")),
            Origin::Parameter => Some("the weight is a parameter of the function".to_owned()),
            Origin::Sparse => Some("the weight is sparse".to_owned()),
            Origin::Computed => None,
        }
    }
}

impl<'a> View<'a> {
    /// Returns the reason why the weight of a MatMul, Gemm or Conv is not a constant. It is meant for nodes for whose
    /// second input [`View::constant_or_default`] finds no constant.
    pub fn why_not_constant(&self, body: BodyId, node: &NodeProto) -> String {
        let first = node.input_at(0).filter(|_| !node.is("Conv"));
        if first.is_some_and(|name| self.constant(body, name).is_some()) {
            return "the constant is the left operand".to_owned();
        }
        let origin = |name: Option<&str>| name.map_or(Origin::Computed, |name| self.origin(body, name));
        let computed = if node.is("Conv") { "the weight is computed" } else { "both operands are computed" };
        match (origin(first), origin(node.input_at(1))) {
            (Origin::Parameter, Origin::Parameter) => "both operands are parameters of the function".to_owned(),
            (_, right) => right.why_left().unwrap_or_else(|| computed.to_owned()),
        }
    }

    /// Returns the origin of the value `name` of the graph or function `body`. It is meant for values for which
    /// [`View::constant_or_default`] finds no constant; for an initializer, it returns [`Origin::Computed`].
    pub fn origin(&self, body: BodyId, name: &str) -> Origin<'a> {
        let (mut at, mut value, mut last) = (body, name, None);
        for _ in 0..LOOKS {
            match self.producer(at, value) {
                Some((owner, Producer::Input)) => {
                    let content = &self.bodies[owner];
                    let parameter = content.function.is_some() && content.graph.is_none();
                    return if parameter { Origin::Parameter } else { Origin::Computed };
                }
                Some((_, Producer::Sparse(_))) => return Origin::Sparse,
                Some((_, Producer::Initializer(_))) => return last.map_or(Origin::Computed, Origin::Constants),
                None => return Origin::Computed,
                Some((owner, Producer::Node(index))) => {
                    let node = self.node(owner, index);
                    let first = node.input_at(0);
                    if node.op() == "DequantizeLinear" && self.is_of_constants(owner, first, &mut LOOKS.clone()) {
                        return Origin::Dequantized;
                    }
                    last = last.or(Some(node.op()));
                    match first.filter(|_| PASSING.contains(&node.op())) {
                        Some(input) => (at, value) = (owner, input),
                        None => {
                            let of_constants = self.is_of_constants(at, Some(value), &mut LOOKS.clone());
                            return last.filter(|_| of_constants).map_or(Origin::Computed, Origin::Constants);
                        }
                    }
                }
            }
        }
        Origin::Computed
    }

    /// Returns whether a value follows from constants alone. `looks` is the number of nodes that may still be followed;
    /// if they do not suffice, the answer is false.
    fn is_of_constants(&self, body: BodyId, name: Option<&str>, looks: &mut usize) -> bool {
        let Some(name) = name else { return true };
        match self.producer(body, name) {
            Some((_, Producer::Initializer(_) | Producer::Sparse(_))) => true,
            Some((_, Producer::Input)) | None => false,
            Some((owner, Producer::Node(index))) => {
                let node = self.node(owner, index);
                if *looks == 0 || node.op().starts_with("Random") || node.attribute.iter().any(|a| a.g.is_some()) {
                    return false;
                }
                *looks -= 1;
                let known = node.op() == "Constant" || !node.input.is_empty();
                let inputs = || node.input.iter().filter(|input| !input.is_empty());
                known && inputs().all(|input| self.is_of_constants(owner, Some(input), looks))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::edit::{self, float_tensor};
    use crate::onnx::proto::{FunctionProto, GraphProto, ModelProto};

    #[test]
    fn what_is_no_constant_is_told_apart() {
        let graph = GraphProto {
            input: vec![edit::untyped("x")],
            initializer: vec![float_tensor("w", &[4], &[0.0; 4]), float_tensor("s", &[], &[1.0])],
            node: vec![
                edit::node("DequantizeLinear", &["w", "s"], &["d"]),
                edit::node("Transpose", &["d"], &["transposed"]),
                edit::node("Reshape", &["w", "s"], &["shaped"]),
                edit::node("Mul", &["shaped", "s"], &["product"]),
                edit::node("Mul", &["w", "x"], &["computed"]),
                edit::node("DequantizeLinear", &["x", "s"], &["activation"]),
                edit::node("RandomNormal", &[], &["random"]),
            ],
            ..Default::default()
        };
        let function = FunctionProto { input: vec!["p".into()], ..Default::default() };
        let model = ModelProto { graph: Some(Box::new(graph)), functions: vec![function], ..Default::default() };
        let view = View::new(&model);
        let cases = [
            ("transposed", Origin::Dequantized),
            ("shaped", Origin::Constants("Reshape")),
            ("product", Origin::Constants("Mul")),
            ("computed", Origin::Computed),
            ("activation", Origin::Computed),
            ("random", Origin::Computed),
            ("x", Origin::Computed),
        ];
        for (name, origin) in cases {
            assert_eq!(view.origin(0, name), origin, "{name}");
        }
        assert_eq!(view.origin(1, "p"), Origin::Parameter);
    }

    #[test]
    fn the_reason_is_about_the_weight() {
        let graph = GraphProto {
            input: vec![edit::untyped("x")],
            initializer: vec![float_tensor("w", &[4], &[0.0; 4]), float_tensor("s", &[], &[1.0])],
            node: vec![edit::node("Reshape", &["w", "s"], &["shaped"])],
            ..Default::default()
        };
        let function = FunctionProto { input: vec!["p".into(), "q".into()], ..Default::default() };
        let model = ModelProto { graph: Some(Box::new(graph)), functions: vec![function], ..Default::default() };
        let view = View::new(&model);
        let reason = |body, op, inputs: [&str; 2]| view.why_not_constant(body, &edit::node(op, &inputs, &["y"]));
        assert_eq!(reason(0, "MatMul", ["x", "shaped"]), "the weight is computed from constants by Reshape");
        assert_eq!(reason(0, "Conv", ["x", "shaped"]), "the weight is computed from constants by Reshape");
        assert_eq!(reason(0, "Conv", ["w", "x"]), "the weight is computed");
        assert_eq!(reason(0, "Gemm", ["w", "x"]), "the constant is the left operand");
        assert_eq!(reason(0, "MatMul", ["x", "x"]), "both operands are computed");
        assert_eq!(reason(1, "MatMul", ["p", "q"]), "both operands are parameters of the function");
    }
}
