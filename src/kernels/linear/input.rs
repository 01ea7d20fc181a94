//! Inputs in the order in which register blocks read them: in blocks of at most [`most_rows`] rows, in which the
//! elements of all rows for one group of K are adjacent.

use std::ops::Range;

use crate::kernels::parallel::{Parallel, Shared};
use crate::kernels::scratch::Scratch;
use crate::kernels::simd::{self, Simd, Work};
use crate::kernels::{Class, Rows, StaticInput, StaticValues, pack};

/// The division of rows into blocks of nearly equal size.
#[derive(Clone, Copy, Debug)]
pub struct Blocking {
    /// Number of rows.
    pub rows: usize,
    /// Number of blocks.
    pub blocks: usize,
}

impl Blocking {
    /// Returns the division of `rows` rows into blocks of at most `most` rows.
    pub fn new(rows: usize, most: usize) -> Self {
        Self { rows, blocks: rows.div_ceil(most) }
    }

    /// Returns the index of the first row of a block, or the number of rows for the index after the last block.
    #[inline(always)]
    pub fn start(&self, block: usize) -> usize {
        if block == self.blocks { self.rows } else { self.rows * block / self.blocks }
    }
}

/// Returns the maximum number of rows of a register block of the class.
pub fn most_rows(class: Class) -> usize {
    if class >= Class::Avx512Vnni { 12 } else { 6 }
}

/// Returns the maximum number of rows of a register block of int8, which is smaller without VNNI, because products need
/// additional registers.
fn most_int8_rows(class: Class) -> usize {
    if class == Class::Avx2 { 4 } else { most_rows(class) }
}

/// Rows of int8 values, each with a scale and the sum of its values.
pub struct Rounded {
    pub blocking: Blocking,
    /// Number of groups of four values in a row.
    pub groups: usize,
    /// Zero point of a statically quantized input as int8: that of uint8 values minus 128. 0 for other inputs.
    pub shift: i32,
    /// Whether it is known that no quantized value is -128.
    pub symmetric: bool,
    codes: *mut u8,
    scales: *mut f32,
    sums: *mut i32,
    _memory: Scratch,
}

// SAFETY: the memory is written before it is shared, and then only read.
unsafe impl Sync for Rounded {}

impl Rounded {
    fn new(rows: usize, groups: usize, class: Class) -> Self {
        let code_bytes = (rows * groups * 4).next_multiple_of(64);
        let mut memory = Scratch::take(code_bytes + rows * 8 + 64);
        let codes = memory.start();
        let scales = codes.wrapping_add(code_bytes).cast::<f32>();
        let sums = scales.wrapping_add(rows).cast();
        let blocking = Blocking::new(rows, most_int8_rows(class));
        Self { blocking, groups, shift: 0, symmetric: true, codes, scales, sums, _memory: memory }
    }

    /// Returns the quantized values of a block.
    #[inline(always)]
    pub fn codes(&self, block: usize) -> *const u8 {
        self.codes.wrapping_add(self.blocking.start(block) * self.groups * 4)
    }

    /// Returns the scale of a row. If each row has its own scale, that of a row with a value that is not finite is NaN.
    #[inline(always)]
    pub fn scale(&self, row: usize) -> f32 {
        // SAFETY: there is a scale for each row.
        unsafe { *self.scales.add(row) }
    }

    /// Returns the sum of the quantized values of a row, each minus the zero point.
    #[inline(always)]
    pub fn sum(&self, row: usize) -> i32 {
        // SAFETY: there is a sum for each row.
        unsafe { *self.sums.add(row) }
    }

    /// Returns the rows of `x`, each quantized with its own scale.
    pub fn dynamic(x: &Rows<'_>, k: usize, groups: usize, class: Class, parallel: &dyn Parallel) -> Self {
        Self::new(x.rows, groups, class).fill(&Source::Dynamic(x), k, class, parallel)
    }

    /// Returns the rows of a statically quantized input, whose quantized values are copied or computed.
    pub fn fixed(x: &StaticInput<'_>, k: usize, groups: usize, class: Class, parallel: &dyn Parallel) -> Self {
        let mut rounded = Self::new(x.rows, groups, class);
        rounded.symmetric = false;
        rounded.shift = x.zero_point - if x.values.signed() { 0 } else { 128 };
        rounded.fill(&Source::Static(x), k, class, parallel)
    }

    fn fill(self, source: &Source<'_>, k: usize, class: Class, parallel: &dyn Parallel) -> Self {
        let (blocking, groups, shift) = (self.blocking, self.groups, self.shift);
        let tasks = tasks(blocking.rows * k, blocking.blocks, parallel);
        let (codes, scales, sums) = (Shared(self.codes), Shared(self.scales), Shared(self.sums));
        parallel.run(tasks, &|task| {
            let blocks = blocking.blocks * task / tasks..blocking.blocks * (task + 1) / tasks;
            simd::run_float(class, Round { source, k, groups, shift, blocking, blocks, codes, scales, sums });
        });
        self
    }
}

/// The source of the quantized values: an input to be quantized with a scale per row, or a statically quantized one.
enum Source<'a> {
    Dynamic(&'a Rows<'a>),
    Static(&'a StaticInput<'a>),
}

/// Size in bytes of the rows of input and output that stay in the second-level cache while all weights are read once.
const CACHED: usize = 1 << 20;

/// Minimum number of rows of a chunk, for which it pays to read all weights again.
const LEAST_ROWS: usize = 96;

/// The division of blocks of rows × panels of weights into tasks: chunks of blocks, each with pieces of all panels.
pub struct Cut {
    blocks: usize,
    chunk: usize,
    pub chunks: usize,
    pub pieces: usize,
}

impl Cut {
    /// Returns the division for `panels` panels and rows of `row_bytes` bytes, input and output together.
    pub fn new(blocking: &Blocking, row_bytes: usize, panels: usize, parallel: &dyn Parallel) -> Self {
        let blocks = blocking.blocks;
        let block_rows = blocking.rows.div_ceil(blocks.max(1)).max(1);
        let rows = (CACHED / row_bytes.max(1)).max(LEAST_ROWS);
        let chunk = (rows / block_rows).clamp(1, blocks.max(1));
        let chunks = blocks.div_ceil(chunk);
        let threads = parallel.threads().max(1);
        let pieces = if threads == 1 { 1 } else { panels.min((threads * 4).div_ceil(chunks.max(1)).max(1)) };
        Self { blocks, chunk, chunks, pieces }
    }

    /// Returns the range of the blocks of a chunk.
    pub fn blocks(&self, chunk: usize) -> Range<usize> {
        chunk * self.chunk..((chunk + 1) * self.chunk).min(self.blocks)
    }

    /// Calls `work` with some blocks of rows, the index of a weight, and some of its panels. `panels` has the number of
    /// panels of each weight.
    pub fn spread(
        &self,
        panels: &[usize],
        parallel: &dyn Parallel,
        work: &(dyn Fn(Range<usize>, usize, Range<usize>) + Sync),
    ) {
        let (total, pieces) = (panels.iter().sum::<usize>(), self.pieces);
        parallel.run(self.chunks * pieces, &|task| {
            let (blocks, piece) = (self.blocks(task / pieces), task % pieces);
            let (mut from, to) = (total * piece / pieces, total * (piece + 1) / pieces);
            let mut first = 0;
            for (index, count) in panels.iter().enumerate() {
                let end = to.min(first + count);
                if from < end {
                    work(blocks.clone(), index, from - first..end - first);
                    from = end;
                }
                first += count;
            }
        });
    }
}

/// Divides blocks of rows × panels of several weights into tasks, and calls `work` as [`Cut::spread`] does. `row_bytes`
/// is the size of a row of input and output together.
pub fn spread(
    blocking: &Blocking,
    row_bytes: usize,
    panels: &[usize],
    parallel: &dyn Parallel,
    work: &(dyn Fn(Range<usize>, usize, Range<usize>) + Sync),
) {
    Cut::new(blocking, row_bytes, panels.iter().sum(), parallel).spread(panels, parallel, work);
}

/// Returns the number of tasks for `values` elements, at most `most`.
pub fn tasks(values: usize, most: usize, parallel: &dyn Parallel) -> usize {
    if values < 1 << 14 { 1.min(most) } else { most.min(parallel.threads().max(1) * 4) }
}

struct Round<'a> {
    source: &'a Source<'a>,
    k: usize,
    groups: usize,
    shift: i32,
    blocking: Blocking,
    blocks: Range<usize>,
    codes: Shared<u8>,
    scales: Shared<f32>,
    sums: Shared<i32>,
}

impl Work for Round<'_> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        let width = self.groups * 4 + 64;
        let mut codes = Scratch::take(most_rows(Class::Amx) * width);
        for block in self.blocks.clone() {
            let (start, end) = (self.blocking.start(block), self.blocking.start(block + 1));
            // SAFETY: each row of `x` has K values, as `linears` has checked; only this task writes the codes, scales
            // and sums.
            unsafe {
                for row in start..end {
                    let to = codes.start().add((row - start) * width);
                    let (scale, sum) = match self.source {
                        Source::Dynamic(x) => {
                            round_row::<V>(x.values.as_ptr().add(row * x.stride), self.k, self.groups * 4, to)
                        }
                        Source::Static(x) => {
                            let sum = fixed_row::<V>(x, row, self.k, self.groups * 4, to);
                            (x.scale, sum.wrapping_sub((self.k as i32).wrapping_mul(self.shift)))
                        }
                    };
                    *self.scales.at(row) = scale;
                    *self.sums.at(row) = sum;
                }
                let to = self.codes.at(start * self.groups * 4).cast();
                interleave::<V>(codes.start().cast(), width / 4, end - start, self.groups, to);
            }
        }
    }
}

/// Writes the transpose of `rows` rows of `width` 4-byte elements: the elements of all rows with one index are
/// adjacent.
///
/// # Safety
///
/// The rows can be read, and as many elements can be written.
#[inline(always)]
pub unsafe fn interleave<V: Simd>(from: *const f32, stride: usize, rows: usize, width: usize, to: *mut f32) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let whole = width / V::LANES * V::LANES;
        for first in (0..rows).step_by(V::LANES) {
            let count = V::LANES.min(rows - first);
            for column in (0..whole).step_by(V::LANES) {
                V::transpose(from.add(first * stride + column), stride, count, to.add(column * rows + first), rows);
            }
        }
        for column in whole..width {
            for row in 0..rows {
                // The elements are copied as bits, because they need not be float32.
                to.add(column * rows + row).cast::<u32>().write(from.add(row * stride + column).cast::<u32>().read());
            }
        }
    }
}

/// Writes a row of a statically quantized input as int8 (uint8 minus 128), filled with zeros up to `len`. Returns the
/// sum of the written values.
///
/// # Safety
/// `len` + 16 bytes can be written at `codes`; `k` ≤ `len`.
#[inline(always)]
unsafe fn fixed_row<V: Simd>(x: &StaticInput<'_>, row: usize, k: usize, len: usize, codes: *mut u8) -> i32 {
    // SAFETY: guaranteed by the caller; the rows were checked by `linear_static`.
    unsafe {
        match x.values {
            StaticValues::Signed(from) => std::ptr::copy_nonoverlapping(from[row * k..].as_ptr().cast(), codes, k),
            StaticValues::Unsigned(from) => {
                for (index, code) in from[row * k..][..k].iter().enumerate() {
                    *codes.add(index) = code ^ 0x80;
                }
            }
            StaticValues::Float32 { values, signed } => {
                let (low, high, offset) = if signed { (-128.0, 127.0, 0) } else { (0.0, 255.0, 128) };
                let from = values[row * k..].as_ptr();
                for index in (0..k).step_by(V::LANES) {
                    // The value is divided, as in `QuantizeLinear`, because multiplying by the inverse would round some
                    // ties differently.
                    let value = V::div(V::load_some(from.add(index), V::LANES.min(k - index)), V::splat(x.scale));
                    let value = V::add(V::round(value), V::splat(x.zero_point as f32));
                    let value = V::min(V::splat(high), V::max(V::splat(low), value));
                    // NaN becomes 0.
                    let value = V::if_less(value, V::splat(256.0), value, V::zero());
                    V::store_bytes(codes.add(index), V::isub(V::to_i32(value), V::isplat(offset)));
                }
            }
        }
        std::ptr::write_bytes(codes.add(k), 0, len - k);
        std::slice::from_raw_parts(codes.cast::<i8>(), k).iter().map(|code| i32::from(*code)).sum()
    }
}

/// Quantizes `k` values to int8 with one scale, and fills with zeros up to `len`. Returns the scale, which is NaN if a
/// value is not finite, and the sum of the quantized values.
///
/// # Safety
/// `k` values can be read at `values`, `len` + 16 bytes written at `codes`; `k` ≤ `len`.
#[inline(always)]
pub unsafe fn round_row<V: Simd>(values: *const f32, k: usize, len: usize, codes: *mut u8) -> (f32, i32) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let whole = k / V::LANES * V::LANES;
        let magnitude = V::isplat(i32::MAX);
        let mut largest = V::izero();
        let mut index = 0;
        while index < whole {
            largest = V::imax(largest, V::iand(V::bits(V::load(values.add(index))), magnitude));
            index += V::LANES;
        }
        let rest = V::load_some(values.add(whole), k - whole);
        let largest = V::ilargest(V::imax(largest, V::iand(V::bits(rest), magnitude)));
        let largest = f32::from_bits(largest as u32);
        if !largest.is_finite() {
            std::ptr::write_bytes(codes, 0, len);
            return (f32::NAN, 0);
        }
        let scale = largest / 127.0;
        let inverse = V::splat(pack::inverse(scale));
        let mut sum = V::izero();
        index = 0;
        while index < whole {
            let code = V::to_i32(V::mul(V::load(values.add(index)), inverse));
            sum = V::iadd(sum, code);
            V::store_bytes(codes.add(index), code);
            index += V::LANES;
        }
        if whole < len {
            let code = V::to_i32(V::mul(rest, inverse));
            sum = V::iadd(sum, code);
            V::store_bytes(codes.add(whole), code);
            let filled = whole + V::LANES;
            if filled < len {
                std::ptr::write_bytes(codes.add(filled), 0, len - filled);
            }
        }
        (scale, V::isum(sum))
    }
}
