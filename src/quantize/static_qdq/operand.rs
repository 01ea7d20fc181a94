//! Quantized constant operands of sums and products.

use super::operators::{self, Rule};
use super::scales::Scale;
use super::select::{Role, Selection};
use crate::graph::View;
use crate::graph::constants::Constant;
use crate::onnx::proto::NodeProto;

/// The maximum number of steps of the output by which rounding a constant may change a result.
const STEPS: f64 = 2.0;
/// The maximum factor between codes of an operand and codes of the output of a sum, which kernels compute in 32 bits.
const SUM_FACTOR: f64 = (1u32 << 22) as f64;
/// The maximum factor between the product of two codes and codes of the output of a product.
const PRODUCT_FACTOR: f64 = (1u32 << 14) as f64;

/// Returns the operand `name` of `node` as a constant, with its values. Returns `None` if it is not a constant, is read
/// transposed or not as float32, or if a value is NaN or, unless `node` is `Add`, infinite.
pub fn constant<'a>(view: &View<'a>, node: &NodeProto, name: &str) -> Option<(Constant<'a>, Vec<f32>)> {
    let constant = view.constant(0, name).filter(|constant| !constant.transposed)?;
    let values = operators::floats(&constant)?;
    // Infinite values are allowed in a sum, whose result saturates, but not in a product.
    let known = |v: &f32| v.is_finite() || node.is("Add") && !v.is_nan();
    values.iter().all(known).then_some((constant, values))
}

/// Returns the scale and the codes of a constant that is added to, or multiplied with, a value of scale `other`, where
/// the result has the scale `output`. Returns `None` if 8 bits cannot represent the constant, because its small values
/// matter.
pub fn codes(node: &NodeProto, mut values: Vec<f32>, other: Scale, output: Scale) -> Option<(Scale, Vec<u8>)> {
    let (sum, other_ends, ends) = (node.is("Add"), other.ends(), output.ends());
    if sum {
        // Beyond these values the sum saturates in any case: -inf or -1e9 of a mask has no wider range.
        let (low, high) = (ends.0 - other_ends.1, ends.1 - other_ends.0);
        values.iter_mut().for_each(|v| *v = v.clamp(low.min(high), high.max(low)));
    }
    let (low, high) = values.iter().fold((0f32, 0f32), |(low, high), v| (low.min(*v), high.max(*v)));
    let scale = Scale::of(crate::calibrate::Range { low, high });
    let codes: Vec<u8> = values.iter().map(|v| scale.code(*v)).collect();
    let reach = if sum { 1.0 } else { f64::from(other_ends.1.max(-other_ends.0)) };
    let lost = |(value, code): (&f32, &u8)| (f64::from(*value) - f64::from(scale.value(*code))).abs() * reach;
    let lost = values.iter().zip(&codes).map(lost).fold(0.0, f64::max);
    let [own, other, output] = [scale, other, output].map(|scale| f64::from(scale.scale));
    let fits = match sum {
        true => own.max(other) / output < SUM_FACTOR,
        false => own * other / output < PRODUCT_FACTOR,
    };
    (fits && lost <= STEPS * output).then_some((scale, codes))
}

impl<'a> Selection<'_, 'a> {
    /// Returns the constant at the input `input` of a selected node, its scale and its codes; `scale` returns the
    /// scales of quantized values. Returns `None` if the input is not a constant, or 8 bits cannot represent it.
    pub fn operand(
        &self,
        index: usize,
        input: usize,
        scale: &dyn Fn(&str) -> Option<Scale>,
    ) -> Option<(Constant<'a>, Scale, Vec<u8>)> {
        let node = self.view.node(0, index);
        let (constant, values) = constant(self.view, node, node.input_at(input)?)?;
        let other = scale(node.input_at(1usize.checked_sub(input)?)?)?;
        let output = scale(&self.value_of(node.output.first()?))?;
        let (own, codes) = codes(node, values, other, output)?;
        Some((constant, own, codes))
    }

    /// Returns whether a selected node has a constant operand that 8 bits cannot represent.
    pub fn is_coarse(&self, index: usize, scale: &dyn Fn(&str) -> Option<Scale>) -> bool {
        let node = self.view.node(0, index);
        let constant = |input: &usize| constant(self.view, node, &node.input[*input]).is_some();
        matches!(self.chosen.get(&index), Some(Role::Follower(Rule::Binary)))
            && (0..node.input.len()).filter(constant).any(|input| self.operand(index, input, scale).is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::Range;
    use crate::graph::edit::node;

    #[test]
    fn a_mask_ends_where_the_sum_does_and_what_is_small_beside_the_rest_is_refused() {
        let of = |low: f32, high: f32| Scale::of(Range { low, high });
        let (add, mul) = (node("Add", &["x", "c"], &["y"]), node("Mul", &["x", "c"], &["y"]));
        let (x, y) = (of(-3.0, 3.0), of(0.0, 3.0));
        for mask in [f32::NEG_INFINITY, f32::MIN, -1e9, -1e4] {
            let (scale, codes) = codes(&add, vec![0.0, mask], x, y).unwrap();
            assert!((scale.value(codes[1]) + 3.0).abs() < 0.02 && scale.value(codes[0]) == 0.0, "{mask}: {scale:?}");
        }
        // The output extends to -1e4 in steps of 39, so it makes no difference that the constant's 0.5 becomes 0.
        let wide = of(-1e4, 3.0);
        assert!(codes(&add, vec![0.5, -1e4], x, wide).is_some(), "a step of the output is 39 itself");
        assert!(codes(&mul, vec![1e-3, 50.0], x, of(-150.0, 150.0)).is_some());
        assert!(codes(&mul, vec![0.1, 1e4], x, of(-3.0, 3.0)).is_none());
        assert!(codes(&mul, vec![1e8], of(-1e8, 1e8), of(0.0, 1.0)).is_none());
        assert_eq!(codes(&mul, vec![0.125; 3], x, of(-0.4, 0.4)).unwrap().1, [255; 3]);
    }
}
