//! Lowering of activations, products and normalizations of ONNX Runtime to standard operators, for parsers that support
//! no others.

use crate::graph::builder::{Naming, NodeBuilder};
use crate::graph::edit::{Names, float_attribute, int_attribute, ints_attribute, text_attribute};
use crate::onnx::proto::{ModelProto, NodeProto};

/// Lowers the nodes of the main graph whose operator belongs to ONNX Runtime or a newer opset and whose lowering needs
/// no shapes, such as `Gelu`, `FusedMatMul` and `SkipLayerNormalization`, and returns their number. `opset` is the
/// version of the default domain.
pub fn lower_each(proto: &mut ModelProto, opset: i64) -> usize {
    let mut parts = NodeBuilder::with(Names::of(proto), Naming::Parts(String::new()), opset);
    let mut lowered = 0;
    let Some(graph) = proto.graph.as_deref_mut() else { return 0 };
    for node in std::mem::take(&mut graph.node) {
        let before = parts.nodes.len();
        parts.naming = Naming::Parts(node.label().to_owned());
        match apart(&mut parts, &node) {
            Some(()) => lowered += 1,
            None => {
                parts.nodes.truncate(before);
                parts.nodes.push(node);
            }
        }
    }
    graph.node = parts.nodes;
    graph.initializer.extend(parts.constants);
    lowered
}

/// Adds nodes that are equivalent to `original`; returns `None` if the node is not lowered here.
fn apart(b: &mut NodeBuilder, original: &NodeProto) -> Option<()> {
    let contrib = matches!(original.domain.as_deref(), Some("com.microsoft"));
    let default = matches!(original.domain.as_deref(), None | Some("" | "ai.onnx"));
    let x = original.input_at(0)?;
    let y = original.output.first()?.clone();
    match original.op() {
        "Gelu" if contrib => b.gelu(x, &y),
        "BiasGelu" if contrib => {
            let sum = b.op("Add", &[x, original.input_at(1)?]);
            b.gelu(&sum, &y);
        }
        "FastGelu" if contrib => {
            let sum = original.input_at(1).map(|bias| b.op("Add", &[x, bias]));
            b.fast_gelu(sum.as_deref().unwrap_or(x), &y);
        }
        "QuickGelu" if contrib => {
            let alpha = b.scalar(original.float("alpha", 1.702));
            let scaled = b.op("Mul", &[x, &alpha]);
            let gate = b.op("Sigmoid", &[&scaled]);
            b.op_to("Mul", &[x, &gate], &y, Vec::new());
        }
        "Swish" if default => {
            let alpha = b.scalar(original.float("alpha", 1.0));
            let scaled = b.op("Mul", &[x, &alpha]);
            let gate = b.op("Sigmoid", &[&scaled]);
            b.op_to("Mul", &[x, &gate], &y, Vec::new());
        }
        "FusedMatMul" if contrib => b.fused_product(original, x, &y)?,
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" if contrib => b.skip_norm(original, x, &y)?,
        // ONNX Runtime also has these operators in the default domain.
        "SimplifiedLayerNormalization" | "RMSNormalization" if original.output.len() == 1 => {
            b.rms_norm(x, original.input_at(1)?, original.float("epsilon", 1e-5), original.int("axis", -1), &y)?;
        }
        _ => return None,
    }
    Some(())
}

impl NodeBuilder {
    /// Returns a new name for the value `what` of the lowered node.
    fn part(&mut self, what: &str) -> String {
        match &self.naming {
            Naming::Parts(label) => self.names.fresh(&format!("{label}/{what}")),
            _ => self.fresh(what),
        }
    }

    /// Adds `alpha A B`, where either operand may be transposed in its last two dimensions; a transposed product is an
    /// `Einsum`, which needs no rank. Returns `None` for attributes that are not supported.
    fn fused_product(&mut self, original: &NodeProto, x: &str, y: &str) -> Option<()> {
        if original.int("transBatchA", 0) != 0 || original.int("transBatchB", 0) != 0 {
            return None;
        }
        let other = original.input_at(1)?;
        let (a, b) = (original.int("transA", 0) != 0, original.int("transB", 0) != 0);
        let alpha = original.float("alpha", 1.0);
        let target = if alpha == 1.0 { y.to_owned() } else { self.part("product") };
        if !a && !b {
            self.op_to("MatMul", &[x, other], &target, Vec::new());
        } else {
            let equation = format!("...{},...{}->...mn", if a { "km" } else { "mk" }, if b { "nk" } else { "kn" });
            self.op_to("Einsum", &[x, other], &target, vec![text_attribute("equation", &equation)]);
        }
        if alpha != 1.0 {
            let alpha = self.scalar(alpha);
            self.op_to("Mul", &[&target, &alpha], y, Vec::new());
        }
        Some(())
    }

    /// Adds `norm(x + skip + bias)`; the sum is the fourth output if it is used. Returns `None` if an input is missing,
    /// or if the mean or deviation is an output.
    fn skip_norm(&mut self, original: &NodeProto, x: &str, y: &str) -> Option<()> {
        if [1, 2].iter().any(|i| original.output.get(*i).is_some_and(|o| !o.is_empty())) {
            return None;
        }
        let simple = original.op() == "SkipSimplifiedLayerNormalization";
        let bias = original.input_at(if simple { 3 } else { 4 });
        let sum = match original.output.get(3).filter(|o| !o.is_empty()) {
            Some(name) => name.clone(),
            None => self.part("sum"),
        };
        let skip = original.input_at(1)?;
        match bias {
            None => self.op_to("Add", &[x, skip], &sum, Vec::new()),
            Some(bias) => {
                let part = self.op("Add", &[x, skip]);
                self.op_to("Add", &[&part, bias], &sum, Vec::new());
            }
        }
        let (scale, epsilon) = (original.input_at(2)?, original.float("epsilon", 1e-12));
        if simple {
            return self.rms_norm(&sum, scale, epsilon, -1, y);
        }
        let mut inputs = vec![sum.as_str(), scale];
        inputs.extend(original.input_at(3));
        self.op_to(
            "LayerNormalization",
            &inputs,
            y,
            vec![int_attribute("axis", -1), float_attribute("epsilon", epsilon)],
        );
        Some(())
    }

    /// Adds `scale x / √(mean(x²) + epsilon)` over the last dimension; returns `None` for any other `axis`.
    fn rms_norm(&mut self, x: &str, scale: &str, epsilon: f32, axis: i64, y: &str) -> Option<()> {
        if axis != -1 {
            return None;
        }
        let epsilon = self.scalar(epsilon);
        let square = self.op("Mul", &[x, x]);
        let mean = self.part("mean");
        if self.opset < 18 {
            self.op_to("ReduceMean", &[&square], &mean, vec![ints_attribute("axes", &[-1])]);
        } else {
            let axes = self.integers("axes", &[1], &[-1]);
            self.op_to("ReduceMean", &[&square, &axes], &mean, Vec::new());
        }
        let sum = self.op("Add", &[&mean, &epsilon]);
        let root = self.op("Sqrt", &[&sum]);
        let norm = self.op("Div", &[x, &root]);
        self.op_to("Mul", &[&norm, scale], y, Vec::new());
        Some(())
    }

    /// Adds the GELU `x/2 (1 + erf(x/√2))`.
    fn gelu(&mut self, x: &str, y: &str) {
        let (root, one, half) = (self.scalar(std::f32::consts::FRAC_1_SQRT_2), self.scalar(1.0), self.scalar(0.5));
        let scaled = self.op("Mul", &[x, &root]);
        let erf = self.op("Erf", &[&scaled]);
        let sum = self.op("Add", &[&erf, &one]);
        let product = self.op("Mul", &[x, &sum]);
        self.op_to("Mul", &[&product, &half], y, Vec::new());
    }

    /// Adds the approximate GELU `x/2 (1 + tanh(0.7978845608 (x + 0.044715 x³)))`.
    fn fast_gelu(&mut self, x: &str, y: &str) {
        let (cubic, root) = (self.scalar(0.044_715), self.scalar(0.797_884_6));
        let (one, half) = (self.scalar(1.0), self.scalar(0.5));
        let square = self.op("Mul", &[x, x]);
        let factor = self.op("Mul", &[&square, &cubic]);
        let more = self.op("Add", &[&factor, &one]);
        let inner = self.op("Mul", &[x, &more]);
        let scaled = self.op("Mul", &[&inner, &root]);
        let tanh = self.op("Tanh", &[&scaled]);
        let sum = self.op("Add", &[&tanh, &one]);
        let product = self.op("Mul", &[x, &sum]);
        self.op_to("Mul", &[&product, &half], y, Vec::new());
    }
}
