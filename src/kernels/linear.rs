//! x · W with everything that follows it in one pass.

use super::{Activation, PackedLinear, Parallel, Precision, reference};

/// Rows of float32 values.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The values; row `r` begins at `r * stride`.
    pub values: &'a [f32],
    /// How many rows.
    pub rows: usize,
    /// Distance from one row to the next, in values.
    pub stride: usize,
}

impl<'a> Rows<'a> {
    /// Returns dense rows of `width` values.
    pub fn dense(values: &'a [f32], rows: usize, width: usize) -> Self {
        Self { values, rows, stride: width }
    }
}

/// What is done with a result before it is stored: bias, then activation, then residual.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// N values, added first.
    pub bias: Option<&'a [f32]>,
    /// Applied second.
    pub activation: Activation,
    /// rows × N values, added last.
    pub residual: Option<&'a [f32]>,
}

/// Writes x · W with its epilogue to `out` (rows × N).
///
/// Int8 weights: each row of `x` is rounded to int8 with a scale of its own (its largest magnitude is 127), the
/// products are summed exactly, the scales applied in float32. Blocks of 4 and 8 bits: the same a block of `x`.
/// A row that holds NaN or an infinity gives NaN.
pub fn linear(x: &Rows<'_>, weights: &PackedLinear, epilogue: &Epilogue<'_>, out: &mut [f32], parallel: &dyn Parallel) {
    let _ = parallel;
    reference::linear(x, weights, epilogue, out);
}

/// Several linears of one input, which is rounded once. As many outputs as weights.
pub fn linears(
    x: &Rows<'_>,
    weights: &[(&PackedLinear, Epilogue<'_>)],
    outs: &mut [&mut [f32]],
    parallel: &dyn Parallel,
) {
    debug_assert_eq!(weights.len(), outs.len());
    for ((packed, epilogue), out) in weights.iter().zip(outs) {
        linear(x, packed, epilogue, out, parallel);
    }
}

/// Writes activation(x · gate + gate bias) ⊙ (x · up + up bias) to `out`: the first half of a gated MLP.
#[allow(clippy::too_many_arguments)] // two linears
pub fn gated(
    x: &Rows<'_>,
    gate: &PackedLinear,
    gate_bias: Option<&[f32]>,
    up: &PackedLinear,
    up_bias: Option<&[f32]>,
    activation: Activation,
    out: &mut [f32],
    parallel: &dyn Parallel,
) {
    debug_assert_eq!(gate.n(), up.n());
    let mut other = vec![0.0; out.len()];
    linear(x, up, &Epilogue { bias: up_bias, ..Default::default() }, &mut other, parallel);
    linear(x, gate, &Epilogue { bias: gate_bias, activation, residual: None }, out, parallel);
    out.iter_mut().zip(&other).for_each(|(value, other)| *value *= other);
}

/// The values of an input whose scale the file gives.
#[derive(Clone, Copy, Debug)]
pub enum StaticValues<'a> {
    /// To be rounded: to 0…255 if `signed` is false, to -128…127 else.
    Float32 {
        /// The values.
        values: &'a [f32],
        /// Whether they become int8 or uint8.
        signed: bool,
    },
    /// Rounded already.
    Unsigned(&'a [u8]),
    /// Rounded already.
    Signed(&'a [i8]),
}

/// An input with one scale and zero point (QuantizeLinear).
#[derive(Clone, Copy, Debug)]
pub struct StaticInput<'a> {
    /// Dense rows of K values.
    pub values: StaticValues<'a>,
    /// How many rows.
    pub rows: usize,
    /// The step.
    pub scale: f32,
    /// The code of 0.
    pub zero_point: i32,
}

/// Writes x · W with its epilogue to `out`, with the scale of `x` as the file has it. Int8 weights only: with
/// others `out` stays as it is.
pub fn linear_static(
    x: &StaticInput<'_>,
    weights: &PackedLinear,
    epilogue: &Epilogue<'_>,
    out: &mut [f32],
    parallel: &dyn Parallel,
) {
    debug_assert_eq!(weights.precision(), Precision::Int8);
    let _ = parallel;
    if weights.precision() == Precision::Int8 {
        reference::linear_static(x, weights, epilogue, out);
    }
}
