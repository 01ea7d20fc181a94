//! Two linear layers, the second on the output of the first.

use super::linear::{Epilogue, LEAST_TILE_ROWS, Rows, linear};
use super::parallel::{Parallel, Serial, Shared};
use super::scratch::Scratch;
use super::{Class, PackedLinear};

/// Maximum number of rows whose values between the layers stay in the second-level cache.
const ROWS: usize = 48;
/// Minimum number of rows for which it pays to read all weights again.
const LEAST_ROWS: usize = 24;

/// Maximum width of the values between the layers with which [`ROWS`] rows fit into the cache.
const WIDEST: usize = 4096;

/// A linear layer: its weights, and its epilogue without a residual.
pub type Layer<'a> = (&'a PackedLinear, Epilogue<'a>);

/// Computes the first layer of `x` and the second layer of its output, and writes the result to `out`: the same bits as
/// two calls of [`linear`]. Many rows are divided into pieces, so that the values between the layers stay in the cache.
/// K of the second layer must be N of the first, and neither may have a residual. If this is not so, or a slice is too
/// short, a debug build panics, and a release build writes nothing.
pub fn mlp(x: &Rows<'_>, layers: &[Layer<'_>; 2], out: &mut [f32], parallel: &dyn Parallel) {
    let [(first, _), (second, _)] = layers;
    let (inner, width) = (first.n(), second.n());
    let needed = x.rows.saturating_sub(1).checked_mul(x.stride).and_then(|start| start.checked_add(first.k()));
    let sizes = [needed, x.rows.checked_mul(width), x.rows.checked_mul(inner)];
    let fits = second.k() == inner
        && (x.rows == 0 || sizes[0].is_some_and(|needed| needed <= x.values.len()))
        && sizes[1].is_some_and(|count| count <= out.len())
        && sizes[2].is_some()
        && layers.iter().all(|(_, epilogue)| epilogue.residual.is_none());
    debug_assert!(
        fits,
        "slices shorter than rows, K and N ask for, layers that do not follow each other, or a residual"
    );
    if !fits || x.rows == 0 {
        return;
    }
    let each = piece(x.rows, inner, first.class(), parallel.threads().max(1));
    if each >= x.rows {
        return both(x, layers, out, parallel);
    }
    let shared = Shared(out.as_mut_ptr());
    parallel.run(x.rows.div_ceil(each), &|task| {
        let start = task * each;
        let rows = each.min(x.rows - start);
        // SAFETY: the output has all rows, and only this task writes these.
        let out = unsafe { std::slice::from_raw_parts_mut(shared.at(start * width), rows * width) };
        both(&Rows { values: &x.values[start * x.stride..], rows, stride: x.stride }, layers, out, &Serial);
    });
}

/// Returns the number of rows of each piece into which `rows` rows are divided, or `rows` if it does not pay to divide
/// them.
fn piece(rows: usize, inner: usize, class: Class, threads: usize) -> usize {
    if inner > WIDEST || class == Class::Scalar {
        return rows;
    }
    // The number of pieces is a multiple of the number of threads, so that all threads get equally many.
    let pieces = rows.div_ceil(ROWS).next_multiple_of(threads);
    let mut each = rows.div_ceil(pieces).next_multiple_of(12);
    // With fewer rows, the class `Amx` uses a kernel that rounds differently.
    while each < rows && (1..LEAST_TILE_ROWS).contains(&(rows % each)) {
        each += 12;
    }
    if each < LEAST_ROWS { rows } else { each }
}

/// Computes both layers for all rows, one layer after the other.
fn both(x: &Rows<'_>, layers: &[Layer<'_>; 2], out: &mut [f32], parallel: &dyn Parallel) {
    let [(first, first_epilogue), (second, second_epilogue)] = layers;
    let inner = first.n();
    let mut memory = Scratch::take(x.rows * inner * 4);
    // SAFETY: the memory has that many bytes, which are initialized and aligned.
    let between = unsafe { std::slice::from_raw_parts_mut(memory.start().cast::<f32>(), x.rows * inner) };
    linear(x, first, first_epilogue, between, parallel);
    linear(&Rows::dense(between, x.rows, inner), second, second_epilogue, out, parallel);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_piece_is_so_small_that_another_kernel_computes_it() {
        for threads in 1..9 {
            for rows in 1..3000 {
                let each = piece(rows, 512, Class::Amx, threads);
                let last = rows % each;
                assert!(last == 0 || last >= LEAST_TILE_ROWS.min(rows), "{rows} rows on {threads} threads: {each}");
            }
        }
    }
}
