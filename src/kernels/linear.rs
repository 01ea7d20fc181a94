//! Linear layers: x · W with bias, activation and residual in one pass.

#[cfg(target_arch = "x86_64")]
mod amx;
mod blocks;
mod dense;
mod exact_blocks;
mod factors;
mod input;
mod int8;

use super::pack::Int8;
use super::simd::{Simd, Work};
use super::{Activation, Class, PackedLinear, Parallel, Precision, reference, vmath};
use input::Rounded;

/// Minimum number of rows for which tiles are used: fewer are faster without them.
pub(super) const LEAST_TILE_ROWS: usize = 5;

/// A matrix of float32 values, whose rows are equally spaced in memory.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Elements of the matrix; row `r` begins at `r * stride`.
    pub values: &'a [f32],
    /// Number of rows of the matrix.
    pub rows: usize,
    /// Distance between the beginnings of two rows of the matrix, in elements.
    pub stride: usize,
}

impl<'a> Rows<'a> {
    /// Returns a matrix of adjacent rows of `width` elements.
    pub fn dense(values: &'a [f32], rows: usize, width: usize) -> Self {
        Self { values, rows, stride: width }
    }
}

/// Operations on a product before it is stored: bias, then activation, then residual.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Bias of N values, which is added first.
    pub bias: Option<&'a [f32]>,
    /// Activation function, which is applied second.
    pub activation: Activation,
    /// Residual of rows × N values, which is added last.
    pub residual: Option<&'a [f32]>,
}

/// Writes x · W with its epilogue to `out` (rows × N).
///
/// With `Int8` weights, each row of `x` is quantized to int8 with its own scale, which maps the largest magnitude to
/// 127; products are summed exactly, and scales are applied in float32. With `Blocks`, each block of a row (of at most
/// 64 values) has its own scale. In both cases, a row with NaN or an infinity gives NaN before the activation. With the
/// other precisions, rows are not quantized. With `Bfloat16`, they are rounded to bfloat16 if that is faster: for the
/// class `Amx` if there are at least 5 rows, and on AMD's processors for classes with the bfloat16 dot product.
///
/// If a slice is too short, a debug build panics, and a release build writes nothing.
pub fn linear(x: &Rows<'_>, weights: &PackedLinear, epilogue: &Epilogue<'_>, out: &mut [f32], parallel: &dyn Parallel) {
    linears(x, &[(weights, *epilogue)], &mut [out], parallel);
}

/// Computes several linear layers of one input, like [`linear`]. There is one output per weight. The input is quantized
/// once for adjacent weights of the same class, precision and block size.
pub fn linears(
    x: &Rows<'_>,
    weights: &[(&PackedLinear, Epilogue<'_>)],
    outs: &mut [&mut [f32]],
    parallel: &dyn Parallel,
) {
    let fits = weights.len() == outs.len()
        && weights.iter().zip(outs.iter()).all(|((packed, epilogue), out)| {
            x.holds(packed.k()) && epilogue.fits(packed.n()) && holds(x.rows, packed.n(), epilogue, out)
        });
    debug_assert!(fits, "slices shorter than rows, K and N ask for");
    if !fits || x.rows == 0 {
        return;
    }
    // Adjacent weights that can share a quantized input are computed together.
    let mut start = 0;
    while start < weights.len() {
        let alike = |(packed, _): &(&PackedLinear, Epilogue<'_>)| {
            let first = weights[start].0;
            (packed.precision(), packed.class(), packed.k()) == (first.precision(), first.class(), first.k())
                && (!matches!(first.precision(), Precision::Blocks | Precision::ExactBlocks)
                    || packed.header().blocks.block == first.header().blocks.block)
        };
        let count = weights[start..].iter().take_while(|weight| alike(weight)).count();
        group(x, &weights[start..start + count], &mut outs[start..start + count], parallel);
        start += count;
    }
}

/// Computes the products with weights of the same K, class and precision.
fn group(x: &Rows<'_>, weights: &[(&PackedLinear, Epilogue<'_>)], outs: &mut [&mut [f32]], parallel: &dyn Parallel) {
    let first = weights[0].0;
    #[cfg(target_arch = "x86_64")]
    {
        let tiles = matches!(first.precision(), Precision::Int8 | Precision::Bfloat16);
        if first.class() == Class::Amx && tiles && x.rows >= LEAST_TILE_ROWS {
            return amx::multiply::<super::x86::Hardware>(Class::Amx, x, weights, outs, parallel);
        }
    }
    match (first.precision(), first.class()) {
        (Precision::Int8, class) if class > Class::Scalar => {
            let groups = Int8::of(&first.header()).groups;
            int8::multiply(&Rounded::dynamic(x, first.k(), groups, class, parallel), weights, outs, parallel);
        }
        (Precision::Float32 | Precision::Bfloat16, class) if class > Class::Scalar => {
            dense::multiply(x, weights, outs, parallel);
        }
        (Precision::Blocks, class) if class > Class::Scalar => blocks::multiply(x, weights, outs, parallel),
        (Precision::ExactBlocks, class) if class > Class::Scalar => {
            exact_blocks::multiply(x, weights, outs, parallel);
        }
        _ => {
            for ((packed, epilogue), out) in weights.iter().zip(outs) {
                reference::linear(x, packed, epilogue, out);
            }
        }
    }
}

impl Rows<'_> {
    /// Returns whether the slice contains all rows, of `k` elements each.
    fn holds(&self, k: usize) -> bool {
        let needed = self.rows.saturating_sub(1).checked_mul(self.stride).and_then(|start| start.checked_add(k));
        self.rows == 0 || needed.is_some_and(|needed| needed <= self.values.len())
    }
}

impl Epilogue<'_> {
    fn fits(&self, n: usize) -> bool {
        self.bias.is_none_or(|bias| bias.len() >= n)
    }
}

/// Returns whether the slices of the output and of the residual are long enough.
fn holds(rows: usize, n: usize, epilogue: &Epilogue<'_>, out: &[f32]) -> bool {
    rows.checked_mul(n)
        .is_some_and(|count| out.len() >= count && epilogue.residual.is_none_or(|residual| residual.len() >= count))
}

/// Runs `$work` for a block of `$rows` rows, with their number as the constant `$r`. It is compiled separately for each
/// number of rows up to `$most`.
macro_rules! by_rows {
    ($rows:expr, $most:expr, |$r:ident| $work:expr, $($count:literal),*) => {
        match $rows {
            $($count if $count <= $most => {
                const $r: usize = $count;
                V::call($work)
            })*
            rows => debug_assert!(false, "a block of {rows} rows"),
        }
    };
}
use by_rows;

/// Writes the sums of a block of `R` rows and at most two vectors of columns, with bias, activation and residual.
/// `place` is the first row and column of the block and N; `count` is the number of its columns.
///
/// # Safety
/// The block lies within `out` and the residual; `out` points to its first value. Two vectors can be read at `bias`.
#[inline(always)]
unsafe fn write_sums<V: Simd, const R: usize>(
    sums: &[[V::F; 2]; R],
    bias: *const f32,
    epilogue: &Epilogue<'_>,
    place: (usize, usize, usize),
    (out, count): (*mut f32, usize),
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        for vector in 0..2 {
            let bias = V::load(bias.add(vector * V::LANES));
            for (row, sums) in sums.iter().enumerate() {
                let value = V::add(sums[vector], bias);
                let to = out.add(row * place.2 + vector * V::LANES);
                if count >= (vector + 1) * V::LANES {
                    V::store(to, value);
                } else if count > vector * V::LANES {
                    V::store_some(to, value, count - vector * V::LANES);
                }
            }
        }
        finish_rows::<V>(epilogue.activation, epilogue.residual, place, out, (R, count));
    }
}

/// Applies activation and residual to a block of an output. `place` is the first row and column of the block and N;
/// `size` is the number of its rows and columns.
///
/// # Safety
/// The block lies within `out` and `residual`; `out` points to its first value.
#[inline(always)]
unsafe fn finish_rows<V: Simd>(
    activation: Activation,
    residual: Option<&[f32]>,
    place: (usize, usize, usize),
    out: *mut f32,
    size: (usize, usize),
) {
    if activation != Activation::None || residual.is_some() {
        V::call(FinishRows { activation, residual, place, out, size });
    }
}

/// The work of [`finish_rows`], which is a separate function because blocks of every size use it.
struct FinishRows<'a> {
    activation: Activation,
    residual: Option<&'a [f32]>,
    place: (usize, usize, usize),
    out: *mut f32,
    size: (usize, usize),
}

impl Work for FinishRows<'_> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        let (row, column, n) = self.place;
        for index in 0..self.size.0 {
            let added = self.residual.map_or(std::ptr::null(), |it| it[(row + index) * n + column..].as_ptr());
            // SAFETY: the caller of `finish_rows` guarantees that the block is valid.
            unsafe { vmath::finish::<V>(self.activation, self.out.add(index * n), added, self.size.1) };
        }
    }
}

/// The elements of an input that is quantized with a constant scale and zero point.
#[derive(Clone, Copy, Debug)]
pub enum StaticValues<'a> {
    /// float32 elements, which are quantized by the kernel.
    Float32 {
        /// Elements of the input.
        values: &'a [f32],
        /// Whether the elements are quantized to int8 (-128 to 127), otherwise to uint8 (0 to 255).
        signed: bool,
    },
    /// uint8 elements, which are already quantized.
    Unsigned(&'a [u8]),
    /// int8 elements, which are already quantized.
    Signed(&'a [i8]),
}

impl StaticValues<'_> {
    /// Returns whether the quantized values are int8.
    fn signed(&self) -> bool {
        matches!(self, Self::Signed(_) | Self::Float32 { signed: true, .. })
    }

    fn len(&self) -> usize {
        match self {
            Self::Float32 { values, .. } => values.len(),
            Self::Unsigned(codes) => codes.len(),
            Self::Signed(codes) => codes.len(),
        }
    }
}

/// An input with one scale and zero point, as the output of a `QuantizeLinear` has.
#[derive(Clone, Copy, Debug)]
pub struct StaticInput<'a> {
    /// Elements of the input: dense rows of K.
    pub values: StaticValues<'a>,
    /// Number of rows of the input.
    pub rows: usize,
    /// Scale of the input.
    pub scale: f32,
    /// Zero point of the input.
    pub zero_point: i32,
}

/// Writes x · W with its epilogue to `out`, with a statically quantized `x`. If the weights are not int8 or a slice is
/// too short, a debug build panics, and a release build writes nothing.
pub fn linear_static(
    x: &StaticInput<'_>,
    weights: &PackedLinear,
    epilogue: &Epilogue<'_>,
    out: &mut [f32],
    parallel: &dyn Parallel,
) {
    let fits = weights.precision() == Precision::Int8
        && x.rows.checked_mul(weights.k()).is_some_and(|count| x.values.len() >= count)
        && epilogue.fits(weights.n())
        && holds(x.rows, weights.n(), epilogue, out);
    debug_assert!(fits, "not int8, or slices shorter than rows, K and N ask for");
    if !fits || x.rows == 0 {
        return;
    }
    if weights.class() == Class::Scalar {
        return reference::linear_static(x, weights, epilogue, out);
    }
    let groups = Int8::of(&weights.header()).groups;
    let rounded = Rounded::fixed(x, weights.k(), groups, weights.class(), parallel);
    int8::multiply(&rounded, &[(weights, *epilogue)], &mut [out], parallel);
}

/// Computes a linear layer as [`linear`] does, with weights packed for AMX and emulated tiles.
#[cfg(all(test, target_arch = "x86_64"))]
pub(super) fn emulated(
    x: &Rows<'_>,
    weights: &PackedLinear,
    epilogue: &Epilogue<'_>,
    out: &mut [f32],
    parallel: &dyn Parallel,
) {
    let class = Class::Avx512Bf16.usable();
    amx::multiply::<super::x86::Emulated>(class, x, &[(weights, *epilogue)], &mut [out], parallel);
}

/// Returns whether the tiles of this processor give the same results as the emulation, for some irregular shapes.
#[cfg(target_arch = "x86_64")]
pub(super) fn tiles_agree() -> bool {
    [(5, 70, 33, Precision::Int8), (37, 130, 20, Precision::Int8), (37, 70, 50, Precision::Bfloat16)].into_iter().all(
        |(m, k, n, precision)| {
            let values = |count: usize, step: usize| -> Vec<f32> {
                (0..count).map(|index| (index * step % 127) as f32 / 64.0 - 1.0).collect()
            };
            let (x, weights) = (values(m * k, 31), values(k * n, 57));
            let packed =
                PackedLinear::from_f32_as(&weights, super::Layout::KxN, (k, n), precision, Class::Amx, &super::Serial);
            let Ok(packed) = packed else { return false };
            let rows = Rows::dense(&x, m, k);
            let (mut found, mut wanted) = (vec![0.0; m * n], vec![0.0; m * n]);
            let weights = [(&packed, Epilogue::default())];
            let class = Class::Avx512Bf16;
            amx::multiply::<super::x86::Hardware>(class, &rows, &weights, &mut [&mut found], &super::Serial);
            reference::linear(&rows, &packed, &Epilogue::default(), &mut wanted);
            let bound = if precision == Precision::Int8 { 0.0 } else { k as f32 / 128.0 };
            found.iter().zip(&wanted).all(|(found, wanted)| (found - wanted).abs() <= bound)
        },
    )
}

/// Returns whether [`linear`] multiplies weights of this class and precision by the bfloat16 dot product.
#[cfg(test)]
pub(super) fn is_dot(class: Class, precision: Precision) -> bool {
    dense::Kind::of(class, precision) == dense::Kind::Dot
}

/// Computes a linear layer as [`linear`] does, with bfloat16 weights and the bfloat16 dot product of the processor.
#[cfg(test)]
pub(super) fn dense_dot(
    x: &Rows<'_>,
    weights: &PackedLinear,
    epilogue: &Epilogue<'_>,
    out: &mut [f32],
    parallel: &dyn Parallel,
) {
    dense::multiply_as(dense::Kind::Dot, x, &[(weights, *epilogue)], &mut [out], parallel);
}
