//! Activations of ONNX Runtime.

use super::Parts;

impl Parts<'_> {
    /// Writes `x/2 (1 + erf(x/√2))`.
    pub(super) fn gelu(&mut self, x: &str, y: &str) {
        let (root, one, half) = (self.number(std::f32::consts::FRAC_1_SQRT_2), self.number(1.0), self.number(0.5));
        let scaled = self.op("Mul", &[x, &root]);
        let erf = self.op("Erf", &[&scaled]);
        let sum = self.op("Add", &[&erf, &one]);
        let product = self.op("Mul", &[x, &sum]);
        self.give("Mul", &[&product, &half], y);
    }

    /// Writes `x/2 (1 + tanh(0.7978845608 (x + 0.044715 x³)))`.
    pub(super) fn fast_gelu(&mut self, x: &str, y: &str) {
        let (cubic, root) = (self.number(0.044_715), self.number(0.797_884_6));
        let (one, half) = (self.number(1.0), self.number(0.5));
        let square = self.op("Mul", &[x, x]);
        let factor = self.op("Mul", &[&square, &cubic]);
        let more = self.op("Add", &[&factor, &one]);
        let inner = self.op("Mul", &[x, &more]);
        let scaled = self.op("Mul", &[&inner, &root]);
        let tanh = self.op("Tanh", &[&scaled]);
        let sum = self.op("Add", &[&tanh, &one]);
        let product = self.op("Mul", &[x, &sum]);
        self.give("Mul", &[&product, &half], y);
    }
}
