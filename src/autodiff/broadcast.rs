//! Summation of a gradient to the shape of the value that was broadcast.

use super::Tape;
use crate::graph::edit;
use crate::model::Dim;
use crate::onnx::dtype::DataType;

/// The relation of a dimension of a value to the dimension of the result to which it is broadcast.
#[derive(PartialEq)]
enum Pair {
    /// Both have the same size.
    Same,
    /// The dimension has size 1, so the gradient is summed over it.
    Summed,
    /// The relation is known only at run time.
    Unknown,
}

fn pair(target: &Dim, out: &Dim) -> Pair {
    match (target, out) {
        (a, b) if a == b && *a != Dim::Symbolic(String::new()) => Pair::Same,
        (Dim::Fixed(1), _) => Pair::Summed,
        // A fixed size other than 1 is never broadcast.
        (Dim::Fixed(_), _) => Pair::Same,
        _ => Pair::Unknown,
    }
}

impl Tape {
    /// Adds nodes that sum `gradient` to the shape of the model's value `target`, and returns the name of the result.
    /// `gradient` has the shape of the model's value `out`, to which `target` was broadcast.
    pub(super) fn unbroadcast(&mut self, gradient: &str, target: &str, out: &str) -> String {
        let (Some(to), Some(from)) = (self.dims(target), self.dims(out)) else {
            let shape = self.shape(out);
            return self.unbroadcast_to(gradient, target, &shape);
        };
        let padding = from.len().saturating_sub(to.len());
        let pairs: Vec<Pair> = to.iter().zip(&from[padding..]).map(|(t, o)| pair(t, o)).collect();
        if pairs.contains(&Pair::Unknown) || from.len() < to.len() {
            let shape = self.shape(out);
            return self.unbroadcast_to(gradient, target, &shape);
        }
        let summed = pairs.iter().enumerate().filter(|(_, p)| **p == Pair::Summed).map(|(at, _)| at + padding);
        let axes: Vec<i64> = (0..padding).chain(summed).map(|axis| axis as i64).collect();
        match axes.len() {
            0 => gradient.to_owned(),
            count if count == padding => self.sum(gradient, &axes, false),
            _ => {
                let sum = self.sum(gradient, &axes, true);
                let shape = self.shape(target);
                self.op("Reshape", &[&sum, &shape])
            }
        }
    }

    /// Adds nodes that sum `gradient` to the shape of the model's value `target`, and returns the name of the result.
    /// The value `out_shape` is the shape of `gradient`. The sizes may be known only at run time: the nodes compare the
    /// shapes to find the axes.
    pub(super) fn unbroadcast_to(&mut self, gradient: &str, target: &str, out_shape: &str) -> String {
        let shape = self.shape(target);
        let (many, few) = (self.op("Shape", &[out_shape]), self.op("Shape", &[&shape]));
        let missing = self.op("Sub", &[&many, &few]);
        let one = self.constant(DataType::Int64, &[1], 1i64.to_le_bytes().to_vec());
        let ones = self.op("Expand", &[&one, &missing]);
        let aligned = self.op_with("Concat", &[&ones, &shape], vec![edit::int_attribute("axis", 0)]);
        let same = self.op("Equal", &[&aligned, out_shape]);
        let other = self.op("Not", &[&same]);
        let found = self.op("NonZero", &[&other]);
        let flat = self.ints(&[-1]);
        let axes = self.op("Reshape", &[&found, &flat]);
        let attributes = vec![edit::int_attribute("keepdims", 1), edit::int_attribute("noop_with_empty_axes", 1)];
        let sum = self.op_with("ReduceSum", &[gradient, &axes], attributes);
        self.op("Reshape", &[&sum, &shape])
    }
}
