//! Products of int8 inputs and weights in blocks of 4 or 8 bits: exact int32 sums per block, which are scaled and added
//! in float32.
//!
//! Inputs are also quantized in blocks (of at most 64 values), each with a scale.

use std::ops::Range;

use super::factors::{self, Factors, Panel, Tile};
use super::input::{Blocking, interleave, most_rows, round_row, spread, tasks};
use super::int8::add_dots;
use super::write_sums;
use crate::kernels::parallel::{Parallel, Shared};
use crate::kernels::reference::activation_block;
use crate::kernels::scratch::Scratch;
use crate::kernels::simd::{self, Simd, Work};
use crate::kernels::system::prefetch_distance;
use crate::kernels::{Class, Epilogue, PackedLinear, Rows, pack::Blocks};

/// Multiplies `x` by each of the weights, which have the same K, class and block size.
pub fn multiply(
    x: &Rows<'_>,
    weights: &[(&PackedLinear, Epilogue<'_>)],
    outs: &mut [&mut [f32]],
    parallel: &dyn Parallel,
) {
    let Some((first, _)) = weights.first() else { return };
    let (class, blocks) = (first.class(), Blocks::of(&first.header()));
    let size = activation_block(blocks.block);
    let rounded = Rounded::new(x, first.k(), (blocks.blocks * blocks.block, size), class, parallel);
    let outs: Vec<_> = outs.iter_mut().map(|out| Shared(out.as_mut_ptr())).collect();
    let panels: Vec<_> = weights.iter().map(|(packed, _)| Blocks::of(&packed.header()).panels).collect();
    spread(&rounded.blocking, rounded.width, &panels, parallel, &|blocks, index, panels| {
        let (packed, epilogue) = &weights[index];
        simd::run(class, Panels { x: &rounded, packed, epilogue, blocks, panels, out: outs[index] });
    });
}

/// Rows of int8 values in the order of the register blocks, with scales and sums by block of K, then row.
struct Rounded {
    blocking: Blocking,
    /// Number of values of a row.
    width: usize,
    /// Number of values that share a scale.
    size: usize,
    codes: *mut u8,
    scales: *mut f32,
    sums: *mut f32,
    _memory: Scratch,
}

// SAFETY: the memory is written before it is shared, and then only read.
unsafe impl Sync for Rounded {}

impl Rounded {
    fn new(x: &Rows<'_>, k: usize, (width, size): (usize, usize), class: Class, parallel: &dyn Parallel) -> Self {
        let blocking = Blocking::new(x.rows, most_block_rows(class));
        let code_bytes = (x.rows * width).next_multiple_of(64);
        let count = x.rows * (width / size);
        let mut memory = Scratch::take(code_bytes + count * 8 + 64);
        let codes = memory.start();
        let scales = codes.wrapping_add(code_bytes).cast::<f32>();
        let rounded = Self { blocking, width, size, codes, scales, sums: scales.wrapping_add(count), _memory: memory };
        let tasks = tasks(x.rows * k, blocking.blocks, parallel);
        let (codes, scales, sums) = (Shared(rounded.codes), Shared(rounded.scales), Shared(rounded.sums));
        parallel.run(tasks, &|task| {
            let blocks = blocking.blocks * task / tasks..blocking.blocks * (task + 1) / tasks;
            simd::run_float(class, Round { x, k, width, size, blocking, blocks, codes, scales, sums });
        });
        rounded
    }
}

/// Returns the maximum number of rows of a register block, in which both the sums of one block of K and the total sums
/// are in registers.
pub(super) fn most_block_rows(class: Class) -> usize {
    most_rows(class) / 2
}

struct Round<'a> {
    x: &'a Rows<'a>,
    k: usize,
    width: usize,
    size: usize,
    blocking: Blocking,
    blocks: Range<usize>,
    codes: Shared<u8>,
    scales: Shared<f32>,
    sums: Shared<f32>,
}

impl Work for Round<'_> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        let stride = self.width + 64;
        let mut codes = Scratch::take(most_rows(Class::Amx) * stride);
        let parts = self.width / self.size;
        for block in self.blocks.clone() {
            let (start, end) = (self.blocking.start(block), self.blocking.start(block + 1));
            let rows = end - start;
            // SAFETY: each row of `x` has K values, as `linears` has checked; only this task writes the codes, scales
            // and sums.
            unsafe {
                for row in 0..rows {
                    let values = self.x.values.as_ptr().add((start + row) * self.x.stride);
                    let to = codes.start().add(row * stride);
                    for part in 0..parts {
                        let first = part * self.size;
                        let count = self.size.min(self.k.saturating_sub(first));
                        let from = values.wrapping_add(first);
                        let (scale, sum) = round_row::<V>(from, count, self.size, to.add(first));
                        *self.scales.at(start * parts + part * rows + row) = scale;
                        *self.sums.at(start * parts + part * rows + row) = sum as f32;
                    }
                }
                let to = self.codes.at(start * self.width).cast();
                interleave::<V>(codes.start().cast(), stride / 4, rows, self.width / 4, to);
            }
        }
    }
}

/// A task: some blocks of rows and some panels of columns.
struct Panels<'a> {
    x: &'a Rounded,
    packed: &'a PackedLinear,
    epilogue: &'a Epilogue<'a>,
    blocks: Range<usize>,
    panels: Range<usize>,
    out: Shared<f32>,
}

impl Work for Panels<'_> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        let layout = Blocks::of(&self.packed.header());
        let (n, bytes, parts) = (self.packed.n(), self.packed.bytes(), self.x.width / self.x.size);
        debug_assert_eq!(layout.panel, 2 * V::LANES);
        let ahead = prefetch_distance();
        let moved = if V::SIGNED && layout.bits == 8 { 128 } else { 0 };
        let one = self.x.blocking.rows == 1;
        let mut memory = Scratch::take(if one { 0 } else { Panel::converted(&layout) * 4 });
        let mut bias = [0f32; 32];
        for panel in self.panels.clone() {
            let column = panel * layout.panel;
            let count = layout.panel.min(n - column);
            if let Some(values) = self.epilogue.bias {
                bias[..count].copy_from_slice(&values[column..][..count]);
            }
            let panel_factors = Panel::new(&layout, bytes, panel, moved);
            let converted = if one { None } else { Some(panel_factors.convert::<V>(&mut memory)) };
            for block in self.blocks.clone() {
                let (row, end) = (self.x.blocking.start(block), self.x.blocking.start(block + 1));
                let tile = Block {
                    parts,
                    per_scale: layout.block / self.x.size,
                    size: self.x.size,
                    activations: self.x.codes.wrapping_add(row * self.x.width),
                    row_scales: self.x.scales.wrapping_add(row * parts),
                    row_sums: self.x.sums.wrapping_add(row * parts),
                    weights: layout.codes(bytes)[panel * layout.blocks * layout.each()..].as_ptr(),
                    ahead,
                    bias: bias.as_ptr(),
                    epilogue: self.epilogue,
                    place: (row, column, n),
                    count,
                    out: self.out.at(row * n + column),
                };
                match (converted, layout.bits) {
                    (None, 4) => factors::row::<V, _, 4>(tile, panel_factors),
                    (None, _) => factors::row::<V, _, 8>(tile, panel_factors),
                    (Some(converted), 4) => factors::rows::<V, _, 4>(tile, end - row, converted),
                    (Some(converted), _) => factors::rows::<V, _, 8>(tile, end - row, converted),
                }
            }
        }
    }
}

/// The product of a block of rows and a panel.
#[derive(Clone, Copy)]
struct Block<'a> {
    /// Number of scales per row of the input.
    parts: usize,
    /// Number of scales of the input for each scale of the weights.
    per_scale: usize,
    size: usize,
    activations: *const u8,
    row_scales: *const f32,
    row_sums: *const f32,
    weights: *const u8,
    /// Distance in bytes between the weights that are prefetched and those that are read.
    ahead: usize,
    bias: *const f32,
    epilogue: &'a Epilogue<'a>,
    place: (usize, usize, usize),
    count: usize,
    out: *mut f32,
}

impl Tile for Block<'_> {
    #[inline(always)]
    fn multiply<V: Simd, const R: usize, const BITS: usize>(self, factors: impl Factors) {
        let tile = self;
        let mut totals = [[V::zero(); 2]; R];
        // SAFETY: the panel has its blocks of codes, scales and zero points, and the rows have their codes, scales and
        // sums; `out` and `residual` have `count` columns, as `linears` has checked.
        unsafe {
            let (mut activations, mut weights) = (tile.activations, tile.weights);
            for part in 0..tile.parts {
                let mut sums = [[V::izero(); 2]; R];
                for _ in 0..tile.size * BITS / 32 {
                    group::<V, R, BITS>(&mut sums, activations, weights, tile.ahead);
                    activations = activations.add(R * 32 / BITS);
                    weights = weights.add(V::LANES * 8);
                }
                let block = part / tile.per_scale;
                for vector in 0..2 {
                    let (scale, zero_point) = factors.get::<V>(block, vector);
                    for row in 0..R {
                        let (row_scale, row_sum) =
                            (tile.row_scales.add(part * R + row), tile.row_sums.add(part * R + row));
                        // This is exact for integer zero points, because all of these numbers are integers below 2²⁴.
                        let exact = V::fnma(zero_point, V::splat(*row_sum), V::to_f32(sums[row][vector]));
                        let scale = V::mul(V::splat(*row_scale), scale);
                        totals[row][vector] = V::fma(exact, scale, totals[row][vector]);
                    }
                }
            }
            write_sums::<V, R>(&totals, tile.bias, tile.epilogue, tile.place, (tile.out, tile.count));
        }
    }
}

/// Adds the products of one group: 8 values of K with 4 bits, 4 with 8 bits.
///
/// # Safety
///
/// Two vectors can be read at `weights`, and R · 32 / BITS bytes at `activations`.
#[inline(always)]
unsafe fn group<V: Simd, const R: usize, const BITS: usize>(
    sums: &mut [[V::I; 2]; R],
    activations: *const u8,
    weights: *const u8,
    ahead: usize,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        V::prefetch(weights.wrapping_add(ahead));
        V::prefetch(weights.wrapping_add(ahead + 64));
        let (first, second) = (V::iload(weights), V::iload(weights.add(V::LANES * 4)));
        if BITS == 4 {
            let low = V::isplat(0x0f0f_0f0f);
            let halves = [
                (V::iand(first, low), V::iand(second, low)),
                (V::iand(V::shr::<4>(first), low), V::iand(V::shr::<4>(second), low)),
            ];
            for (half, (first, second)) in halves.into_iter().enumerate() {
                for (row, sums) in sums.iter_mut().enumerate() {
                    let codes = V::iload_splat(activations.add((half * R + row) * 4));
                    sums[0] = V::dot_nibbles(sums[0], first, codes);
                    sums[1] = V::dot_nibbles(sums[1], second, codes);
                }
            }
        } else {
            // The codes of the input are never -128, because each block is rounded with a symmetric scale of its own.
            if V::SIGNED {
                add_dots::<V, R, true>(sums, activations, first, second);
            } else {
                add_dots::<V, R, false>(sums, activations, first, second);
            }
        }
    }
}
