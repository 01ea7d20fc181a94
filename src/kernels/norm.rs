//! LayerNorm and RMSNorm with a residual, in float32 without approximations.

use super::parallel::Shared;
use super::simd::{self, Simd, Work};
use super::{Class, Parallel, reference};

/// A residual, which is added to the input before the normalization: `rows` rows, repeated if the input has more.
#[derive(Clone, Copy, Debug)]
pub struct Residual<'a> {
    /// Values of the residual: `rows` × width.
    pub values: &'a [f32],
    /// Number of rows of the residual; row `r % rows` is added to row `r` of the input.
    pub rows: usize,
}

/// The parameters of a normalization of rows of `width` values.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Number of values of a row.
    pub width: usize,
    /// Residual that is added to the input.
    pub residual: Option<Residual<'a>>,
    /// Bias of `width` values, which is added to the input.
    pub bias: Option<&'a [f32]>,
    /// Scale of `width` values.
    pub gamma: &'a [f32],
    /// Shift of `width` values, which is added to the result, by RMSNorm as well as by LayerNorm.
    pub beta: Option<&'a [f32]>,
    /// Constant that is added to the variance, or to the mean square.
    pub epsilon: f32,
}

/// Normalizes each row of `x` + residual + bias to mean 0 and variance 1, multiplies it by gamma, adds beta, and writes
/// the result to `out`. Writes the sum before the normalization to `sum`, if it is given. Mean and variance are
/// computed in two passes over the row. If a slice is too short, a debug build panics, and a release build writes
/// nothing.
pub fn layer_norm(
    class: Class,
    x: &[f32],
    norm: &Norm<'_>,
    sum: Option<&mut [f32]>,
    out: &mut [f32],
    parallel: &dyn Parallel,
) {
    normalize(class, x, norm, true, sum, out, parallel);
}

/// Divides each row of `x` + residual + bias by the root of its mean square, multiplies it by gamma, adds beta, and
/// writes the result to `out`. Writes the sum before the normalization to `sum`, if it is given. If a slice is too
/// short, a debug build panics, and a release build writes nothing.
pub fn rms_norm(
    class: Class,
    x: &[f32],
    norm: &Norm<'_>,
    sum: Option<&mut [f32]>,
    out: &mut [f32],
    parallel: &dyn Parallel,
) {
    normalize(class, x, norm, false, sum, out, parallel);
}

fn normalize(
    class: Class,
    x: &[f32],
    norm: &Norm<'_>,
    centered: bool,
    sum: Option<&mut [f32]>,
    out: &mut [f32],
    parallel: &dyn Parallel,
) {
    let (width, rows) = (norm.width, x.len() / norm.width.max(1));
    let wide = |values: Option<&[f32]>| values.is_none_or(|values| values.len() >= width);
    let residual = norm.residual.is_none_or(|it| it.rows > 0 && it.values.len() >= it.rows * width);
    let sums = sum.as_ref().is_none_or(|sum| sum.len() >= rows * width);
    let fits = out.len() >= rows * width && norm.gamma.len() >= width && wide(norm.beta) && wide(norm.bias);
    debug_assert!(fits && residual && sums, "slices shorter than rows and width ask for");
    if width == 0 || !fits || !residual || !sums {
        return;
    }
    if class.usable() == Class::Scalar {
        return reference::norm(x, norm, centered, sum, out);
    }
    let tasks = if rows * width < 1 << 14 { 1 } else { rows.min(parallel.threads().max(1) * 4) };
    let (sum, out) = (sum.map(|sum| Shared(sum.as_mut_ptr())), Shared(out.as_mut_ptr()));
    parallel.run(tasks, &|task| {
        let rows = rows * task / tasks..rows * (task + 1) / tasks;
        simd::run_float(class.usable(), Normalize { x, norm, centered, sum, out, rows });
    });
}

struct Normalize<'a> {
    x: &'a [f32],
    norm: &'a Norm<'a>,
    centered: bool,
    sum: Option<Shared<f32>>,
    out: Shared<f32>,
    rows: std::ops::Range<usize>,
}

impl Work for Normalize<'_> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        for row in self.rows.clone() {
            // SAFETY: `normalize` checked that a row of every slice is there; the rows are this task's.
            unsafe { self.row::<V>(row) };
        }
    }
}

/// Runs `$work` for each vector of a row, with its first column and its number of columns, which is a constant for
/// whole vectors.
macro_rules! columns {
    ($width:expr, |$column:ident, $count:ident| $work:block) => {
        let mut $column = 0;
        while $column + V::LANES <= $width {
            let $count = V::LANES;
            $work
            $column += V::LANES;
        }
        if $column < $width {
            let $count = $width - $column;
            $work
        }
    };
}

impl Normalize<'_> {
    #[inline(always)]
    unsafe fn row<V: Simd>(&self, row: usize) {
        let (norm, width) = (self.norm, self.norm.width);
        let pointer = |values: Option<&[f32]>| values.map_or(std::ptr::null(), |values| values.as_ptr());
        let (bias, beta) = (pointer(norm.bias), pointer(norm.beta));
        // SAFETY: guaranteed by the caller.
        unsafe {
            let x = self.x.as_ptr().add(row * width);
            let residual = norm.residual.map_or(std::ptr::null(), |it| it.values.as_ptr().add(row % it.rows * width));
            let out = self.out.at(row * width);
            let kept = self.sum.map_or(std::ptr::null_mut(), |sum| sum.at(row * width));
            let mut total = V::zero();
            columns!(width, |column, count| {
                let mut value = load::<V>(x.add(column), count);
                if !residual.is_null() {
                    value = V::add(value, load::<V>(residual.add(column), count));
                }
                if !bias.is_null() {
                    value = V::add(value, load::<V>(bias.add(column), count));
                }
                if !kept.is_null() {
                    store::<V>(kept.add(column), value, count);
                }
                store::<V>(out.add(column), value, count);
                total = V::add(total, value);
            });
            let mean = if self.centered { V::sum(total) / width as f32 } else { 0.0 };
            let center = V::splat(mean);
            let mut squares = V::zero();
            columns!(width, |column, count| {
                // The lanes after the row must not count.
                let value = V::sub(load::<V>(out.add(column), count), center);
                let value = if count == V::LANES { value } else { keep::<V>(value, count) };
                squares = V::fma(value, value, squares);
            });
            let variance = V::sum(squares) / width as f32;
            let scale = V::splat(1.0 / (variance + norm.epsilon).sqrt());
            columns!(width, |column, count| {
                let value = V::mul(V::sub(load::<V>(out.add(column), count), center), scale);
                let gamma = load::<V>(norm.gamma.as_ptr().add(column), count);
                let value = if beta.is_null() {
                    V::mul(value, gamma)
                } else {
                    V::fma(value, gamma, load::<V>(beta.add(column), count))
                };
                store::<V>(out.add(column), value, count);
            });
        }
    }
}

#[inline(always)]
unsafe fn load<V: Simd>(from: *const f32, count: usize) -> V::F {
    // SAFETY: guaranteed by the caller.
    unsafe { if count == V::LANES { V::load(from) } else { V::load_some(from, count) } }
}

#[inline(always)]
unsafe fn store<V: Simd>(to: *mut f32, value: V::F, count: usize) {
    // SAFETY: guaranteed by the caller.
    unsafe { if count == V::LANES { V::store(to, value) } else { V::store_some(to, value, count) } }
}

/// Returns the first `count` lanes of a vector, and 0 in the others.
#[inline(always)]
fn keep<V: Simd>(value: V::F, count: usize) -> V::F {
    let mut lanes = [0f32; 16];
    // SAFETY: a vector has at most 16 lanes.
    unsafe {
        V::store_some(lanes.as_mut_ptr(), value, count);
        V::load(lanes.as_ptr())
    }
}
