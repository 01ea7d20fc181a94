//! Activation functions.

use super::parallel::split;
use super::simd::{self, Simd, Work};
use super::{Class, Parallel, reference, vmath};

/// A function of one value, applied to every element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Activation {
    /// Identity: x
    #[default]
    None = 0,
    /// ReLU: max(x, 0)
    Relu = 1,
    /// GELU: x/2 (1 + erf(x/√2))
    Gelu = 2,
    /// GELU with the tanh approximation: x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))
    GeluTanh = 3,
    /// SiLU: x · sigmoid(x)
    Silu = 4,
    /// Sigmoid: 1 / (1 + exp(-x))
    Sigmoid = 5,
    /// Hyperbolic tangent: tanh(x)
    Tanh = 6,
    /// GELU with the sigmoid approximation: x · sigmoid(1.702 x)
    QuickGelu = 7,
}

/// Applies `activation` to each value of `x` and writes the results to `out`, which has the same length. If there is a
/// bias, `x` has rows of `bias.len()` values, to which it is added first. If the lengths do not fit, a debug build
/// panics, and a release build writes nothing.
pub fn activate(
    class: Class,
    x: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
    out: &mut [f32],
    parallel: &dyn Parallel,
) {
    let width = bias.map_or(x.len(), <[f32]>::len);
    let fits = x.len() == out.len() && (x.is_empty() || width > 0 && x.len().is_multiple_of(width));
    debug_assert!(fits, "an output of another length, or rows that are not as long as the bias");
    if !fits || x.is_empty() {
        return;
    }
    let class = class.usable();
    if class == Class::Scalar {
        for (index, (value, to)) in x.iter().zip(out).enumerate() {
            *to = reference::activation(activation, value + bias.map_or(0.0, |bias| bias[index % width]));
        }
        return;
    }
    let piece = if bias.is_some() { width * 1024usize.div_ceil(width) } else { 4096 };
    split(parallel, out, piece, |index, to| {
        let x = &x[index * piece..][..to.len()];
        simd::run_float(class, Activate { x, bias, activation, to });
    });
}

struct Activate<'a> {
    x: &'a [f32],
    bias: Option<&'a [f32]>,
    activation: Activation,
    to: &'a mut [f32],
}

impl Work for Activate<'_> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        if let Some(bias) = self.bias {
            for (x, to) in self.x.chunks(bias.len()).zip(self.to.chunks_mut(bias.len())) {
                x.iter().zip(bias).zip(to).for_each(|((value, bias), to)| *to = value + bias);
            }
        }
        let to = self.to.as_mut_ptr();
        let from = if self.bias.is_some() { to.cast_const() } else { self.x.as_ptr() };
        // SAFETY: `x` and `to` have the same length, which is the number of values.
        unsafe { vmath::apply_to::<V>(self.activation, from, to, std::ptr::null(), self.x.len()) };
    }
}
