//! Lowering of operators that ONNX Runtime's optimizer fuses from standard ones.

use super::Lowering;
use crate::error::{Result, bail};
use crate::graph::edit::{self, int_attribute};
use crate::onnx::proto::NodeProto;

impl Lowering {
    /// Lowers `SkipLayerNormalization` and `SkipSimplifiedLayerNormalization`: the normalization of `x + skip + bias`.
    pub(super) fn skip(&mut self, node: &NodeProto) -> Result<()> {
        let simple = node.op() == "SkipSimplifiedLayerNormalization";
        let (Some(x), Some(skip), Some(scale)) = (node.input_at(0), node.input_at(1), node.input_at(2)) else {
            bail!(InvalidModel, "{} lacks an input", node.op());
        };
        let (shift, bias) = match simple {
            true => (None, node.input_at(3)),
            false => (node.input_at(3), node.input_at(4)),
        };
        if [1, 2].iter().any(|i| node.output.get(*i).is_some_and(|o| !o.is_empty())) {
            bail!(Unsupported, "a {} that returns its mean is not supported", node.op());
        }
        let sum = node.output.get(3).filter(|o| !o.is_empty()).cloned();
        let sum = sum.unwrap_or_else(|| self.w.fresh("sum"));
        match bias {
            Some(bias) => {
                let first = self.w.op("Add", &[x, bias]);
                self.w.op_to("Add", &[&first, skip], &sum, Vec::new());
            }
            None => self.w.op_to("Add", &[x, skip], &sum, Vec::new()),
        }
        let mut inputs = vec![sum.as_str(), scale];
        inputs.extend(shift);
        let epsilon = edit::float_attribute("epsilon", node.float("epsilon", 1e-12));
        let op = if simple { "SimplifiedLayerNormalization" } else { "LayerNormalization" };
        let Some(output) = node.output.first() else { return Ok(()) };
        self.w.op_to(op, &inputs, output, vec![int_attribute("axis", -1), epsilon]);
        Ok(())
    }

    /// Lowers `BiasGelu` to a sum and ONNX Runtime's `Gelu`.
    pub(super) fn bias_gelu(&mut self, node: &NodeProto) {
        let (x, bias) = (node.input_at(0).unwrap_or(""), node.input_at(1).unwrap_or(""));
        let sum = self.w.op("Add", &[x, bias]);
        let mut gelu = edit::node("Gelu", &[&sum], &[node.output.first().map_or("", String::as_str)]);
        gelu.domain = Some("com.microsoft".to_owned());
        gelu.name = node.name.clone();
        self.w.nodes.push(gelu);
    }

    /// Lowers `FusedMatMul`: `alpha A B`, where either operand may be transposed in its last two dimensions.
    pub(super) fn fused_product(&mut self, node: &NodeProto) -> Result<()> {
        if ["transBatchA", "transBatchB"].iter().any(|name| node.int(name, 0) != 0) {
            bail!(Unsupported, "a FusedMatMul that transposes the batch is not supported");
        }
        let mut sides = Vec::new();
        for (input, flag) in [(0, "transA"), (1, "transB")] {
            let Some(name) = node.input_at(input) else { bail!(InvalidModel, "the node does not have two inputs") };
            sides.push(if node.int(flag, 0) == 0 {
                name.to_owned()
            } else {
                let rank = self.rank(name)? as i64;
                let order: Vec<i64> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
                self.w.permuted(name, &order)
            });
        }
        let alpha = self.w.scalar(node.float("alpha", 1.0));
        let product = self.w.op("MatMul", &[&sides[0], &sides[1]]);
        self.w.op_to("Mul", &[&product, &alpha], &node.output[0], Vec::new());
        Ok(())
    }
}
