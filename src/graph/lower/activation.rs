//! Lowering of activations, of `Mean` and of `LpPool` to simpler operators.

use super::{Lowering, input};
use crate::error::{Result, bail};
use crate::graph::builder::NodeBuilder;
use crate::graph::edit::{float_attribute, int_attribute};
use crate::onnx::proto::{AttributeProto, NodeProto};

impl Lowering {
    /// Lowers a node if it is one of the activations below, a `Mean` or an `LpPool`, and returns whether it is. Source
    /// of the formulas: the documentation of the ONNX operators.
    pub(super) fn activation(&mut self, node: &NodeProto) -> Result<bool> {
        let x = input(node, 0).unwrap_or("");
        let w = &mut self.w;
        let zero = |w: &mut NodeBuilder| w.scalar(0.0);
        let (op, inputs): (&str, Vec<String>) = match node.op() {
            "Mish" => {
                let soft = w.op("Softplus", &[x]);
                ("Mul", vec![x.to_owned(), w.op("Tanh", &[&soft])])
            }
            "Swish" => {
                let alpha = w.scalar(node.float("alpha", 1.0));
                let scaled = w.op("Mul", &[x, &alpha]);
                ("Mul", vec![x.to_owned(), w.op("Sigmoid", &[&scaled])])
            }
            "Softsign" => {
                let (size, one) = (w.op("Abs", &[x]), w.scalar(1.0));
                ("Div", vec![x.to_owned(), w.op("Add", &[&size, &one])])
            }
            "Selu" => {
                let alpha = float_attribute("alpha", node.float("alpha", 1.673_263_2));
                let gamma = w.scalar(node.float("gamma", 1.050_701));
                ("Mul", vec![w.op_with("Elu", &[x], vec![alpha]), gamma])
            }
            "Celu" => {
                let alpha = w.scalar(node.float("alpha", 1.0));
                let scaled = w.op("Div", &[x, &alpha]);
                ("Mul", vec![w.op("Elu", &[&scaled]), alpha])
            }
            "PRelu" => {
                let zero = zero(w);
                let (above, less) = (w.op("Greater", &[x, &zero]), w.op("Mul", &[x, input(node, 1)?]));
                ("Where", vec![above, x.to_owned(), less])
            }
            "ThresholdedRelu" => {
                let (zero, least) = (zero(w), w.scalar(node.float("alpha", 1.0)));
                ("Where", vec![w.op("Greater", &[x, &least]), x.to_owned(), zero])
            }
            "Shrink" => {
                let (zero, bias, edge) = (zero(w), w.scalar(node.float("bias", 0.0)), node.float("lambd", 0.5));
                let (low, high) = (w.scalar(-edge), w.scalar(edge));
                let (more, less) = (w.op("Add", &[x, &bias]), w.op("Sub", &[x, &bias]));
                let (below, above) = (w.op("Less", &[x, &low]), w.op("Greater", &[x, &high]));
                let rest = w.op("Where", &[&above, &less, &zero]);
                ("Where", vec![below, more, rest])
            }
            "Mean" => {
                let parts: Vec<&str> = node.input.iter().map(String::as_str).collect();
                let count = w.scalar(parts.len() as f32);
                ("Div", vec![w.op("Sum", &parts), count])
            }
            "LpPool" => {
                let (sum, root) = power_pool(w, node, x)?;
                ("Pow", vec![sum, root])
            }
            _ => return Ok(false),
        };
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        w.op_to(op, &inputs, &node.output[0], Vec::new());
        Ok(true)
    }
}

/// Adds the sum of the powers of each window of an `LpPool`. Returns the names of the sum and of the exponent `1 / p`.
/// The output of the pool is the sum to the power of this exponent. Fails with `Unsupported` for dilations.
fn power_pool(w: &mut NodeBuilder, node: &NodeProto, x: &str) -> Result<(String, String)> {
    if node.attribute("dilations").is_some_and(|a| a.ints.iter().any(|step| *step != 1)) {
        bail!(Unsupported, "an LpPool with dilations is not supported");
    }
    let power = node.int("p", 2) as f32;
    let size = w.op("Abs", &[x]);
    let exponent = w.scalar(power);
    let powers = w.op("Pow", &[&size, &exponent]);
    let taken = ["kernel_shape", "strides", "pads", "auto_pad", "ceil_mode"];
    let mut attributes: Vec<AttributeProto> = taken.iter().filter_map(|name| node.attribute(name).cloned()).collect();
    attributes.push(int_attribute("count_include_pad", 1));
    let mean = w.op_with("AveragePool", &[&powers], attributes);
    let kernel = node.attribute("kernel_shape").map(|a| a.ints.clone()).unwrap_or_default();
    let (count, root) = (w.scalar(kernel.iter().product::<i64>() as f32), w.scalar(1.0 / power));
    Ok((w.op("Mul", &[&mean, &count]), root))
}
