//! LayerNorm and RMSNorm with a residual, exact float32.

use super::{Class, Parallel, reference};

/// What is added to the input before it is normalized: `rows` rows, repeated if the input has more.
#[derive(Clone, Copy, Debug)]
pub struct Residual<'a> {
    /// `rows` × width values.
    pub values: &'a [f32],
    /// How many rows there are; row `r` of the input gets row `r % rows`.
    pub rows: usize,
}

/// The parameters of a normalization of rows of `width` values.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Values in a row.
    pub width: usize,
    /// Added to the input.
    pub residual: Option<Residual<'a>>,
    /// `width` values, added to the input.
    pub bias: Option<&'a [f32]>,
    /// `width` values: the scale.
    pub gamma: &'a [f32],
    /// `width` values: the shift. RMSNorm as well as LayerNorm adds it.
    pub beta: Option<&'a [f32]>,
    /// Added to the variance.
    pub epsilon: f32,
}

/// Normalizes each row of `x` + residual + bias to mean 0 and variance 1, times gamma plus beta, and writes `out`.
/// The sum before the normalization goes to `sum`. Mean and variance take two passes over the row.
pub fn layer_norm(
    class: Class,
    x: &[f32],
    norm: &Norm<'_>,
    sum: Option<&mut [f32]>,
    out: &mut [f32],
    parallel: &dyn Parallel,
) {
    let _ = (class, parallel);
    reference::norm(x, norm, true, sum, out);
}

/// Divides each row of `x` + residual + bias by the root of its mean square, times gamma plus beta.
/// See [`layer_norm`].
pub fn rms_norm(
    class: Class,
    x: &[f32],
    norm: &Norm<'_>,
    sum: Option<&mut [f32]>,
    out: &mut [f32],
    parallel: &dyn Parallel,
) {
    let _ = (class, parallel);
    reference::norm(x, norm, false, sum, out);
}
