//! Products and normalizations that ONNX Runtime fuses into one operator.

use super::Parts;
use crate::graph::edit::{int_attribute, ints_attribute, tensor};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{AttributeProto, NodeProto};

impl Parts<'_> {
    /// Writes `alpha AᵗB`, where either input may be transposed in its last two dimensions, with `Einsum`, which
    /// needs no rank.
    pub(super) fn fused_product(&mut self, original: &NodeProto, x: &str, y: &str) -> Option<()> {
        if original.int("transBatchA", 0) != 0 || original.int("transBatchB", 0) != 0 {
            return None;
        }
        let other = original.input_at(1)?;
        let (a, b) = (original.int("transA", 0) != 0, original.int("transB", 0) != 0);
        let alpha = original.float("alpha", 1.0);
        let target = if alpha == 1.0 { y.to_owned() } else { self.names.fresh(&format!("{}/product", self.label)) };
        if !a && !b {
            self.give("MatMul", &[x, other], &target);
        } else {
            let equation = format!("...{},...{}->...mn", if a { "km" } else { "mk" }, if b { "nk" } else { "kn" });
            let attribute = AttributeProto {
                name: Some("equation".to_owned()),
                kind: Some(crate::onnx::proto::attribute_kind::STRING),
                s: Some(equation.into()),
                ..Default::default()
            };
            self.with("Einsum", &[x, other], &target, vec![attribute]);
        }
        if alpha != 1.0 {
            let alpha = self.number(alpha);
            self.give("Mul", &[&target, &alpha], y);
        }
        Some(())
    }

    /// Writes `norm(x + skip + bias)`; the sum is the fourth output if it is used.
    pub(super) fn skip_norm(&mut self, original: &NodeProto, x: &str, y: &str) -> Option<()> {
        if [1, 2].iter().any(|i| original.output.get(*i).is_some_and(|o| !o.is_empty())) {
            return None;
        }
        let simple = original.op() == "SkipSimplifiedLayerNormalization";
        let bias = original.input_at(if simple { 3 } else { 4 });
        let sum = match original.output.get(3).filter(|o| !o.is_empty()) {
            Some(name) => name.clone(),
            None => self.names.fresh(&format!("{}/sum", self.label)),
        };
        let skip = original.input_at(1)?;
        match bias {
            None => self.give("Add", &[x, skip], &sum),
            Some(bias) => {
                let part = self.op("Add", &[x, skip]);
                self.give("Add", &[&part, bias], &sum);
            }
        }
        let (scale, epsilon) = (original.input_at(2)?, original.float("epsilon", 1e-12));
        if simple {
            return self.rms_norm(&sum, scale, epsilon, -1, y);
        }
        let mut inputs = vec![sum.as_str(), scale];
        inputs.extend(original.input_at(3));
        let epsilon = AttributeProto {
            name: Some("epsilon".to_owned()),
            kind: Some(crate::onnx::proto::attribute_kind::FLOAT),
            f: Some(epsilon),
            ..Default::default()
        };
        self.with("LayerNormalization", &inputs, y, vec![int_attribute("axis", -1), epsilon]);
        Some(())
    }

    /// Writes `scale x / √(mean(x²) + epsilon)` over the last dimension.
    pub(super) fn rms_norm(&mut self, x: &str, scale: &str, epsilon: f32, axis: i64, y: &str) -> Option<()> {
        if axis != -1 {
            return None;
        }
        let epsilon = self.number(epsilon);
        let square = self.op("Mul", &[x, x]);
        let mean = self.names.fresh(&format!("{}/mean", self.label));
        if self.opset < 18 {
            self.with("ReduceMean", &[&square], &mean, vec![ints_attribute("axes", &[-1])]);
        } else {
            let axes = self.names.fresh(&format!("{}/axes", self.label));
            self.constants.push(tensor(&axes, DataType::Int64, &[1], (-1i64).to_le_bytes().to_vec().into()));
            self.give("ReduceMean", &[&square, &axes], &mean);
        }
        let sum = self.op("Add", &[&mean, &epsilon]);
        let root = self.op("Sqrt", &[&sum]);
        let norm = self.op("Div", &[x, &root]);
        self.give("Mul", &[&norm, scale], y);
        Some(())
    }
}
