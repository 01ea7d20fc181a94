//! Biases of nodes with a weight: an input of the node, or the constant operand of the `Add` after it.

use super::select::{Selection, Weighted};
use super::{operand, operators};
use crate::graph::constants::Constant;
use crate::graph::{Use, View};
use crate::onnx::proto::NodeProto;

/// An `Add` after a product, whose constant has one number per column.
pub struct Addend<'a> {
    /// Index of the `Add`.
    pub node: usize,
    /// Index of its constant input.
    pub input: usize,
    /// The constant.
    pub constant: Constant<'a>,
    /// The numbers of the constant.
    pub values: Vec<f32>,
}

/// Returns the `Add` that adds a constant row of finite values to the output of the `MatMul` at `index`; `None` if
/// there is none, or if another node reads that output.
pub fn addend<'a>(view: &View<'a>, index: usize) -> Option<Addend<'a>> {
    let product = view.node(0, index);
    let &[Use::Node { body: 0, node, input }] = view.uses(0, product.output.first()?) else { return None };
    let sum = view.node(0, node);
    let input = 1usize.checked_sub(input)?;
    let (constant, values) = operand::constant(view, sum, sum.input_at(input)?).filter(|_| sum.is("Add"))?;
    let columns = view.constant(0, product.input_at(1)?).and_then(|weight| {
        let dims = &weight.tensor.dims;
        if weight.transposed { dims.first().copied() } else { dims.last().copied() }
    });
    let row = matches!(constant.tensor.dims.as_slice(), [n] | [1, n] if Some(*n) == columns);
    (row && values.iter().all(|v| v.is_finite())).then_some(Addend { node, input, constant, values })
}

impl<'a> Selection<'_, 'a> {
    /// Fails with a reason if the constant is an optional input that another node reads too: the input would be removed
    /// from the graph.
    pub fn alone(&self, constant: &Constant<'a>) -> Result<(), String> {
        let readers = self.view.uses(constant.owner, constant.name).len();
        match constant.overridable && readers > 1 {
            true => Err("its weight or bias is an optional input that another node reads too".to_owned()),
            false => Ok(()),
        }
    }

    /// Returns the bias that is an input of a node, as a constant and its values (times `beta` for a `Gemm`); `None` if
    /// there is none. The error is the reason why the node or its bias cannot be quantized.
    pub fn bias(&self, body: usize, node: &'a NodeProto) -> Result<Option<(Constant<'a>, Vec<f32>)>, String> {
        if node.is("Gemm") && node.int("transA", 0) != 0 {
            return Err("the left operand is transposed".to_owned());
        }
        if node.is("Gemm") && (node.float("alpha", 1.0) <= 0.0 || !node.float("alpha", 1.0).is_finite()) {
            return Err("alpha is not above zero".to_owned());
        }
        let Some(name) = node.input_at(2).filter(|_| !node.is("MatMul")) else { return Ok(None) };
        let constant = self.view.constant_or_default(body, name).ok_or("the bias is computed")?;
        self.alone(&constant)?;
        let values = operators::floats(&constant).filter(|values| values.iter().all(|v| v.is_finite()));
        let beta = if node.is("Gemm") { node.float("beta", 1.0) } else { 1.0 };
        let values = values.ok_or("the bias has values that are not finite float32 numbers")?;
        // The kernel does not support one value per row.
        let shape = &constant.tensor.dims;
        if shape.len() > 1 && shape[0] != 1 {
            return Err("the bias is a matrix".to_owned());
        }
        Ok(Some((constant, values.into_iter().map(|value| value * beta).collect())))
    }

    /// Returns the `Add` whose constant is used as the bias of the product with the index `index`; `None` if there is
    /// none.
    pub fn addend(&self, index: usize) -> Option<Addend<'a>> {
        let node = self.view.node(0, index);
        if !node.is("MatMul") || !self.biased.contains(node.label()) || self.wanted(&node.output[0]) {
            return None;
        }
        addend(self.view, index).filter(|addend| !self.chosen.contains_key(&addend.node))
    }

    /// Returns the values of the bias of a selected node with a weight, whether it is an input or a constant of the
    /// following `Add`.
    pub fn bias_of(&self, index: usize, weighted: &Weighted<'a>) -> Option<Vec<f32>> {
        let own = weighted.bias.as_ref().map(|(_, values)| values.clone());
        own.or_else(|| self.addend(index).map(|addend| addend.values))
    }

    /// Returns the number of channels of a weight, and a function that returns the channel of an element by its index.
    pub fn channels(&self, weighted: &Weighted<'a>) -> (usize, impl Fn(usize) -> usize + use<>) {
        let (dims, axis) = (&self.weights[weighted.weight].dims, weighted.axis as usize);
        let inner = dims.iter().skip(axis + 1).product::<i64>().max(1) as usize;
        let count = dims.get(axis).map_or(1, |dim| (*dim).max(1)) as usize;
        (count, move |element| element / inner % count)
    }
}
