//! Lowering of normalizations: `InstanceNormalization`, `GroupNormalization`, `RMSNormalization`, `LpNormalization` and
//! `MeanVarianceNormalization`.

use super::{Lowering, input};
use crate::error::Result;
use crate::onnx::proto::NodeProto;

impl Lowering {
    /// Lowers a node if it is one of the normalizations of this file, and returns whether it is.
    pub(super) fn normalization(&mut self, node: &NodeProto) -> Result<bool> {
        match node.op() {
            "InstanceNormalization" => self.groups(node, None)?,
            "GroupNormalization" => self.groups(node, Some(node.int("num_groups", 1)))?,
            // ONNX Runtime has an older version of this operator, named `SimplifiedLayerNormalization`.
            "RMSNormalization" => {
                let mut attributes = node.attribute.clone();
                attributes.retain(|a| a.name.as_deref() != Some("stash_type"));
                let inputs = [input(node, 0)?, input(node, 1)?];
                self.w.op_to("SimplifiedLayerNormalization", &inputs, &node.output[0], attributes);
            }
            "LpNormalization" => {
                let (x, axis) = (input(node, 0)?, node.int("axis", -1));
                let op = if node.int("p", 2) == 1 { "ReduceL1" } else { "ReduceL2" };
                let norm = self.w.reduced(op, x, &[axis]);
                self.w.op_to("Div", &[x, &norm], &node.output[0], Vec::new());
            }
            "MeanVarianceNormalization" => {
                let axes = node.attribute("axes").map_or_else(|| vec![0, 2, 3], |a| a.ints.clone());
                let (center, variance) = self.moments(input(node, 0)?, &axes);
                let (deviation, least) = (self.w.op("Sqrt", &[&variance]), self.w.scalar(1e-9));
                let deviation = self.w.op("Add", &[&deviation, &least]);
                self.w.op_to("Div", &[&center, &deviation], &node.output[0], Vec::new());
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Adds `x` minus its mean, and its variance, and returns the names of both.
    fn moments(&mut self, x: &str, axes: &[i64]) -> (String, String) {
        let mean = self.w.reduced("ReduceMean", x, axes);
        let center = self.w.op("Sub", &[x, &mean]);
        let square = self.w.op("Mul", &[&center, &center]);
        let variance = self.w.reduced("ReduceMean", &square, axes);
        (center, variance)
    }

    /// Lowers a normalization over each group of channels (over each channel if `groups` is `None`), with a scale and a
    /// bias. Before opset 21, these have one element per group, afterwards one per channel.
    fn groups(&mut self, node: &NodeProto, groups: Option<i64>) -> Result<()> {
        let (x, scale, shift) = (input(node, 0)?, input(node, 1)?, input(node, 2)?);
        let shape = self.w.op("Shape", &[x]);
        let apart = self.w.reshaped(x, &[0, groups.unwrap_or(0), -1]);
        let (center, variance) = self.moments(&apart, &[2]);
        let epsilon = self.w.scalar(node.float("epsilon", 1e-5));
        let variance = self.w.op("Add", &[&variance, &epsilon]);
        let deviation = self.w.op("Sqrt", &[&variance]);
        let mut normal = self.w.op("Div", &[&center, &deviation]);
        if groups.is_some() && self.w.opset >= 21 {
            normal = self.w.op("Reshape", &[&normal, &shape]);
            normal = self.w.reshaped(&normal, &[0, 0, -1]);
        }
        let (scale, shift) = (self.w.reshaped(scale, &[-1, 1]), self.w.reshaped(shift, &[-1, 1]));
        let scaled = self.w.op("Mul", &[&normal, &scale]);
        let shifted = self.w.op("Add", &[&scaled, &shift]);
        self.w.op_to("Reshape", &[&shifted, &shape], &node.output[0], Vec::new());
        Ok(())
    }
}
