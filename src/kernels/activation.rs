//! Activation functions.

use super::{Class, Parallel, reference};

/// A function of one value, applied to every element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Activation {
    /// x
    #[default]
    None = 0,
    /// max(x, 0)
    Relu = 1,
    /// x/2 (1 + erf(x/√2))
    Gelu = 2,
    /// x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))
    GeluTanh = 3,
    /// x · sigmoid(x)
    Silu = 4,
    /// 1 / (1 + exp(-x))
    Sigmoid = 5,
    /// tanh(x)
    Tanh = 6,
    /// x · sigmoid(1.702 x)
    QuickGelu = 7,
}

/// Applies `activation` to each value of `x` (rows of `bias.len()` values if there is a bias, which is added
/// first) and writes `out`.
pub fn activate(
    class: Class,
    x: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
    out: &mut [f32],
    parallel: &dyn Parallel,
) {
    debug_assert_eq!(x.len(), out.len());
    let _ = (class, parallel);
    for (index, (value, to)) in x.iter().zip(out).enumerate() {
        let shift = bias.and_then(|bias| bias.get(index % bias.len().max(1))).copied().unwrap_or(0.0);
        *to = reference::activation(activation, value + shift);
    }
}
