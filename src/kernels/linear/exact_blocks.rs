//! Products of float32 inputs and weights in blocks of 4 or 8 bits: the codes of a block are multiplied and added in
//! float32, in order, then the zero point and the scale are applied. Results do not depend on the number of rows.

use std::ops::Range;

use super::blocks::most_block_rows;
use super::factors::{self, Factors, Panel, Tile};
use super::input::{Blocking, interleave, most_rows, spread, tasks};
use super::write_sums;
use crate::kernels::parallel::{Parallel, Shared};
use crate::kernels::reference::lane_sum;
use crate::kernels::scratch::Scratch;
use crate::kernels::simd::{self, Simd, Work};
use crate::kernels::system::prefetch_distance;
use crate::kernels::{Class, Epilogue, PackedLinear, Rows, pack::Blocks};

/// Minimum number of blocks of rows for which the codes of a panel are converted to float32 only once.
const WORTH: usize = 4;

/// Unpacks the codes of a group: two vectors of 32-bit lanes with 32 / `$bits` codes each. Each code of a lane belongs
/// to another value of K. Calls the macro `$work` for each of these with its index and the float32 values of both
/// vectors. This is a macro, because a closure of this size is not inlined, and then not compiled for the class.
macro_rules! each {
    ($bits:expr, $first:expr, $second:expr, $work:ident) => {
        if $bits == 32 {
            $work!(0, V::from_bits($first), V::from_bits($second));
        } else if $bits == 4 {
            each!(15, $first, $second, $work, 0 0, 1 8, 2 16, 3 24, 4 4, 5 12, 6 20, 7 28);
        } else {
            each!(255, $first, $second, $work, 0 0, 1 8, 2 16, 3 24);
        }
    };
    ($mask:literal, $first:expr, $second:expr, $work:ident, $($index:literal $shift:literal),*) => {{
        let mask = V::isplat($mask);
        $($work!(
            $index,
            V::to_f32(V::iand(V::shr::<$shift>($first), mask)),
            V::to_f32(V::iand(V::shr::<$shift>($second), mask))
        );)*
    }};
}

/// Multiplies `x` by each of the weights, which have the same K, class and block size.
pub fn multiply(
    x: &Rows<'_>,
    weights: &[(&PackedLinear, Epilogue<'_>)],
    outs: &mut [&mut [f32]],
    parallel: &dyn Parallel,
) {
    let Some((first, _)) = weights.first() else { return };
    let (class, blocks) = (first.class(), Blocks::of(&first.header()));
    let input = Input::new(x, first.k(), (blocks.blocks, blocks.block), class, parallel);
    let outs: Vec<_> = outs.iter_mut().map(|out| Shared(out.as_mut_ptr())).collect();
    let panels: Vec<_> = weights.iter().map(|(packed, _)| Blocks::of(&packed.header()).panels).collect();
    let row_bytes = blocks.blocks * blocks.block * 4;
    spread(&input.blocking, row_bytes, &panels, parallel, &|blocks, index, panels| {
        let (packed, epilogue) = &weights[index];
        simd::run_float(class, Panels { x: &input, packed, epilogue, blocks, panels, out: outs[index] });
    });
}

/// Rows in the order of the register blocks, filled with zeros up to whole blocks of K, with sums by block of K, then
/// row.
struct Input {
    blocking: Blocking,
    /// Number of blocks of K, and number of values in each.
    parts: (usize, usize),
    values: *mut f32,
    sums: *mut f32,
    _memory: Scratch,
}

// SAFETY: the memory is written before it is shared, and then only read.
unsafe impl Sync for Input {}

impl Input {
    fn new(x: &Rows<'_>, k: usize, parts: (usize, usize), class: Class, parallel: &dyn Parallel) -> Self {
        let blocking = Blocking::new(x.rows, most_block_rows(class));
        let width = parts.0 * parts.1;
        let mut memory = Scratch::take(x.rows * (width + parts.0) * 4);
        let values = memory.start().cast::<f32>();
        let input = Self { blocking, parts, values, sums: values.wrapping_add(x.rows * width), _memory: memory };
        let tasks = tasks(x.rows * k, blocking.blocks, parallel);
        let (values, sums) = (Shared(input.values), Shared(input.sums));
        parallel.run(tasks, &|task| {
            let blocks = blocking.blocks * task / tasks..blocking.blocks * (task + 1) / tasks;
            simd::run_float(class, Take { x, k, parts, blocking, blocks, values, sums });
        });
        input
    }
}

struct Take<'a> {
    x: &'a Rows<'a>,
    k: usize,
    parts: (usize, usize),
    blocking: Blocking,
    blocks: Range<usize>,
    values: Shared<f32>,
    sums: Shared<f32>,
}

impl Work for Take<'_> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        let (parts, block) = self.parts;
        let width = parts * block;
        let mut filled = Scratch::take(most_rows(Class::Amx) * width * 4);
        let filled = filled.start().cast::<f32>();
        for index in self.blocks.clone() {
            let (start, end) = (self.blocking.start(index), self.blocking.start(index + 1));
            let rows = end - start;
            // SAFETY: each row of `x` has K values, as `linears` has checked; only this task writes the values and
            // sums.
            unsafe {
                for row in 0..rows {
                    let from = &self.x.values[(start + row) * self.x.stride..][..self.k];
                    let to = filled.add(row * width);
                    to.copy_from_nonoverlapping(from.as_ptr(), self.k);
                    to.add(self.k).write_bytes(0, width - self.k);
                    for part in 0..parts {
                        let sum = lane_sum(std::slice::from_raw_parts(to.add(part * block), block));
                        *self.sums.at(start * parts + part * rows + row) = sum;
                    }
                }
                interleave::<V>(filled, width, rows, width, self.values.at(start * width));
            }
        }
    }
}

/// A task: some blocks of rows and some panels of columns.
struct Panels<'a> {
    x: &'a Input,
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
        let (n, bytes, (parts, size)) = (self.packed.n(), self.packed.bytes(), self.x.parts);
        debug_assert_eq!(layout.panel, 2 * V::LANES);
        let ahead = prefetch_distance();
        let many = self.blocks.len() >= WORTH;
        let mut memory = Scratch::take(if many { layout.panel * parts * size * 4 } else { 0 });
        let floats = memory.start();
        let one = self.x.blocking.rows == 1;
        let mut memory = Scratch::take(if one { 0 } else { Panel::converted(&layout) * 4 });
        let mut bias = [0f32; 32];
        for panel in self.panels.clone() {
            let column = panel * layout.panel;
            let count = layout.panel.min(n - column);
            if let Some(values) = self.epilogue.bias {
                bias[..count].copy_from_slice(&values[column..][..count]);
            }
            let codes = layout.codes(bytes)[panel * layout.blocks * layout.each()..].as_ptr();
            if many {
                V::call(Convert { codes, bits: layout.bits, groups: parts * size * layout.bits / 32, to: floats });
            }
            let panel_factors = Panel::new(&layout, bytes, panel, 0);
            let converted = if one { None } else { Some(panel_factors.convert::<V>(&mut memory)) };
            for block in self.blocks.clone() {
                let (row, end) = (self.x.blocking.start(block), self.x.blocking.start(block + 1));
                let tile = Block {
                    parts,
                    size,
                    values: self.x.values.wrapping_add(row * parts * size),
                    sums: self.x.sums.wrapping_add(row * parts),
                    weights: if many { floats } else { codes },
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
                    (Some(converted), _) if many => factors::rows::<V, _, 32>(tile, end - row, converted),
                    (Some(converted), 4) => factors::rows::<V, _, 4>(tile, end - row, converted),
                    (Some(converted), _) => factors::rows::<V, _, 8>(tile, end - row, converted),
                }
            }
        }
    }
}

/// The work of converting the codes of a panel to float32.
struct Convert {
    codes: *const u8,
    bits: usize,
    groups: usize,
    to: *mut u8,
}

impl Work for Convert {
    #[inline(always)]
    fn run<V: Simd>(self) {
        for group in 0..self.groups {
            // SAFETY: the panel has these groups of two vectors of codes, and the memory has room for 32 / bits times
            // as much.
            unsafe {
                let from = self.codes.add(group * V::LANES * 8);
                let to = self.to.add(group * V::LANES * 8 * 32 / self.bits).cast::<f32>();
                let (first, second) = (V::iload(from), V::iload(from.add(V::LANES * 4)));
                macro_rules! store {
                    ($index:expr, $first:expr, $second:expr) => {
                        V::store(to.add($index * 2 * V::LANES), $first);
                        V::store(to.add($index * 2 * V::LANES + V::LANES), $second);
                    };
                }
                each!(self.bits, first, second, store);
            }
        }
    }
}

/// The product of a block of rows and a panel.
#[derive(Clone, Copy)]
struct Block<'a> {
    /// Number of blocks of K.
    parts: usize,
    /// Number of values of a block.
    size: usize,
    values: *const f32,
    sums: *const f32,
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
        // SAFETY: the panel has its blocks of codes, scales and zero points, and the rows have their values and sums;
        // `out` and `residual` have `count` columns, as `linears` has checked.
        unsafe {
            let (mut values, mut weights) = (tile.values, tile.weights);
            for part in 0..tile.parts {
                let mut sums = [[V::zero(); 2]; R];
                for _ in 0..tile.size * BITS / 32 {
                    V::prefetch(weights.wrapping_add(tile.ahead));
                    V::prefetch(weights.wrapping_add(tile.ahead + 64));
                    let (first, second) = (V::iload(weights), V::iload(weights.add(V::LANES * 4)));
                    macro_rules! add {
                        ($index:expr, $first:expr, $second:expr) => {
                            let (first, second) = ($first, $second);
                            for (row, sums) in sums.iter_mut().enumerate() {
                                let value = V::splat(*values.add($index * R + row));
                                sums[0] = V::fma(value, first, sums[0]);
                                sums[1] = V::fma(value, second, sums[1]);
                            }
                        };
                    }
                    each!(BITS, first, second, add);
                    values = values.add(R * 32 / BITS);
                    weights = weights.add(V::LANES * 8);
                }
                for vector in 0..2 {
                    let (scale, zero_point) = factors.get::<V>(part, vector);
                    for row in 0..R {
                        let sum = V::splat(*tile.sums.add(part * R + row));
                        let product = V::fnma(zero_point, sum, sums[row][vector]);
                        totals[row][vector] = V::fma(product, scale, totals[row][vector]);
                    }
                }
            }
            write_sums::<V, R>(&totals, tile.bias, tile.epilogue, tile.place, (tile.out, tile.count));
        }
    }
}
