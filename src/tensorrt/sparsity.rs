//! The number of weights with 2:4 structured sparsity, which have at least two zeros in every four values along the
//! axis of the input channels.

use super::quantized::{Weighted, weight_of};
use crate::graph::floats::floats;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{ModelProto, TensorProto};
use std::collections::HashMap;

/// The number of weights of products, and the number of those with the 2:4 pattern. A weight of several products counts
/// once for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    /// Number of weights.
    pub weights: usize,
    /// Number of weights with the pattern.
    pub with_pattern: usize,
}

/// Returns the numbers of float32 weights of the products in the main graph of `model` (see [`weight_of`]).
pub(super) fn count(model: &ModelProto) -> Counted {
    let Some(graph) = model.graph.as_deref() else { return Counted { weights: 0, with_pattern: 0 } };
    let float = |(_, t): &(&str, &TensorProto)| t.data_type == Some(DataType::Float32.to_onnx());
    let constants: HashMap<&str, &TensorProto> = graph.initializers().filter(float).collect();
    let mut counted = Counted { weights: 0, with_pattern: 0 };
    for node in &graph.node {
        let Some(Ok(Weighted { weight, axis })) = weight_of(node, &constants) else { continue };
        counted.weights += 1;
        counted.with_pattern += usize::from(has_pattern(weight, 1 - axis));
    }
    counted
}

/// Returns whether every group of four values along `axis` has at least two zeros; false if the length of the axis is 0
/// or not a multiple of 4, or if the values cannot be read.
fn has_pattern(weight: &TensorProto, axis: usize) -> bool {
    let Some(length) =
        weight.dims.get(axis).map(|d| *d as usize).filter(|length| length.is_multiple_of(4) && *length > 0)
    else {
        return false;
    };
    let Ok(values) = floats(weight) else { return false };
    let inner: usize = weight.dims[axis + 1..].iter().product::<i64>().max(1) as usize;
    values.chunks_exact(length * inner).all(|part| {
        (0..inner).all(|column| {
            let four = |first: usize| (first..first + 4).filter(|row| part[row * inner + column] == 0.0).count();
            (0..length).step_by(4).all(|first| four(first) >= 2)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::edit::float_tensor;

    #[test]
    fn the_pattern_is_looked_for_along_what_is_summed_over() {
        // The columns of the [4, 2] matrix are 1 0 2 0 and 0 3 0 4.
        let matrix = float_tensor("w", &[4, 2], &[1.0, 0.0, 0.0, 3.0, 2.0, 0.0, 0.0, 4.0]);
        assert!(has_pattern(&matrix, 0));
        assert!(!has_pattern(&matrix, 1), "2 is no multiple of 4");
        let full = float_tensor("w", &[4, 2], &[1.0, 0.0, 5.0, 3.0, 2.0, 0.0, 0.0, 4.0]);
        assert!(!has_pattern(&full, 0), "three of a column are not zero");
        assert!(has_pattern(&float_tensor("w", &[1, 4], &[0.0, 1.0, 1.0, 0.0]), 1));
    }
}
