//! int8 and bfloat16 linear layers on AMX tiles: blocks of 32 rows × 32 columns in four tiles.

use std::ops::Range;

use super::input::{Blocking, round_row, spread, tasks};
use crate::kernels::pack::{Dense, Int8};
use crate::kernels::parallel::{Parallel, Shared};
use crate::kernels::scratch::Scratch;
use crate::kernels::simd::{self, Simd, Work};
use crate::kernels::x86::Tiles;
use crate::kernels::{Class, Epilogue, PackedLinear, Precision, Rows};

/// Number of rows and of columns of a block.
const SIDE: usize = 32;
/// Size of a tile in bytes.
const TILE: usize = 1024;

/// Multiplies `x` by each of the weights, which have the same K and are all int8 or all bfloat16, packed for AMX.
/// `class` determines the vectors for all work outside of tiles.
pub fn multiply<T: Tiles>(
    class: Class,
    x: &Rows<'_>,
    weights: &[(&PackedLinear, Epilogue<'_>)],
    outs: &mut [&mut [f32]],
    parallel: &dyn Parallel,
) {
    let Some((first, _)) = weights.first() else { return };
    let int8 = first.precision() == Precision::Int8;
    let groups = |packed: &PackedLinear| {
        if int8 { Int8::of(&packed.header()).groups } else { Dense::of(&packed.header()).groups }
    };
    let input = Input::new(class, x, first.k(), groups(first) / 16, int8, parallel);
    let outs: Vec<_> = outs.iter_mut().map(|out| Shared(out.as_mut_ptr())).collect();
    let panels: Vec<_> = weights.iter().map(|(packed, _)| packed.n().div_ceil(SIDE)).collect();
    spread(&input.blocking, input.tiles * 64, &panels, parallel, &|blocks, index, panels| {
        let (packed, epilogue) = &weights[index];
        let mut tiles = T::new();
        let mut sums = Scratch::take(SIDE * SIDE * 4);
        for panel in panels {
            for block in blocks.clone() {
                let rows = input.blocking.start(block)..input.blocking.start(block + 1);
                // SAFETY: the block and the panel have that many tiles, and `sums` has room for four.
                unsafe {
                    let bytes = if int8 { Int8::of(&packed.header()).codes(packed.bytes()) } else { packed.bytes() };
                    let weights = bytes[panel * input.tiles * 2 * TILE..].as_ptr();
                    let activations = input.block(block);
                    let sums = sums.start();
                    match (int8, rows.len() > 16) {
                        (true, true) => product::<T, true, true>(&mut tiles, activations, weights, input.tiles, sums),
                        (true, false) => product::<T, true, false>(&mut tiles, activations, weights, input.tiles, sums),
                        (false, true) => product::<T, false, true>(&mut tiles, activations, weights, input.tiles, sums),
                        (false, false) => {
                            product::<T, false, false>(&mut tiles, activations, weights, input.tiles, sums);
                        }
                    }
                }
                let (sums, out) = (sums.start(), outs[index]);
                simd::run_float(class, Finish { input: &input, packed, epilogue, rows, panel, sums, out, int8 });
            }
        }
    });
}

/// Writes the sums of products of a block: 32 rows of 32 values.
///
/// # Safety
///
/// 2 × `count` tiles can be read at `activations` (two rows of tiles if `TALL`) and at `weights` (side by side), and
/// four can be written at `sums`.
#[inline(always)]
unsafe fn product<T: Tiles, const INT8: bool, const TALL: bool>(
    tiles: &mut T,
    activations: *const u8,
    weights: *const u8,
    count: usize,
    sums: *mut u8,
) {
    tiles.zero::<0>();
    tiles.zero::<1>();
    tiles.zero::<2>();
    tiles.zero::<3>();
    // SAFETY: guaranteed by the caller.
    unsafe {
        for index in 0..count {
            let (upper, lower) = (activations.add(index * TILE), activations.add((count + index) * TILE));
            let panel = weights.add(index * 2 * TILE);
            tiles.load::<6>(panel, 128);
            tiles.load::<4>(upper, 64);
            dot::<T, INT8, 0, 4, 6>(tiles);
            tiles.load::<7>(panel.add(64), 128);
            dot::<T, INT8, 1, 4, 7>(tiles);
            if TALL {
                tiles.load::<5>(lower, 64);
                dot::<T, INT8, 2, 5, 6>(tiles);
                dot::<T, INT8, 3, 5, 7>(tiles);
            }
        }
        tiles.store::<0>(sums, 128);
        tiles.store::<1>(sums.add(64), 128);
        if TALL {
            tiles.store::<2>(sums.add(2 * TILE), 128);
            tiles.store::<3>(sums.add(2 * TILE + 64), 128);
        }
    }
}

#[inline(always)]
fn dot<T: Tiles, const INT8: bool, const C: usize, const A: usize, const B: usize>(tiles: &mut T) {
    if INT8 { tiles.dot_int8::<C, A, B>() } else { tiles.dot_bf16::<C, A, B>() }
}

/// An input whose rows are in the order of the tiles: by block of 32, half of the block, tile of K, row.
struct Input {
    blocking: Blocking,
    /// Number of tiles along K.
    tiles: usize,
    codes: *mut u8,
    scales: *mut f32,
    sums: *mut i32,
    _memory: Scratch,
}

// SAFETY: the memory is written before it is shared, and then only read.
unsafe impl Sync for Input {}

impl Input {
    fn new(class: Class, x: &Rows<'_>, k: usize, tiles: usize, int8: bool, parallel: &dyn Parallel) -> Self {
        let blocking = Blocking::new(x.rows, SIDE);
        let bytes = blocking.blocks * 2 * tiles * TILE;
        let mut memory = Scratch::take(bytes + x.rows * 8);
        let codes = memory.start();
        let scales = codes.wrapping_add(bytes).cast::<f32>();
        let input = Self { blocking, tiles, codes, scales, sums: scales.wrapping_add(x.rows).cast(), _memory: memory };
        let tasks = tasks(x.rows * k, blocking.blocks, parallel);
        let (codes, scales, sums) = (Shared(input.codes), Shared(input.scales), Shared(input.sums));
        parallel.run(tasks, &|task| {
            let blocks = blocking.blocks * task / tasks..blocking.blocks * (task + 1) / tasks;
            simd::run_float(class, Arrange { x, k, tiles, int8, blocking, blocks, codes, scales, sums });
        });
        input
    }

    fn block(&self, block: usize) -> *const u8 {
        self.codes.wrapping_add(block * 2 * self.tiles * TILE)
    }
}

struct Arrange<'a> {
    x: &'a Rows<'a>,
    k: usize,
    tiles: usize,
    int8: bool,
    blocking: Blocking,
    blocks: Range<usize>,
    codes: Shared<u8>,
    scales: Shared<f32>,
    sums: Shared<i32>,
}

impl Work for Arrange<'_> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        let width = self.tiles * 64;
        let mut codes = Scratch::take(width + 64);
        for block in self.blocks.clone() {
            let (start, end) = (self.blocking.start(block), self.blocking.start(block + 1));
            for row in 0..SIDE {
                // SAFETY: each row of `x` has K values, as `linears` has checked; only this task writes the block,
                // scales and sums; a row of codes has room for one more vector.
                unsafe {
                    let codes = codes.start();
                    if start + row >= end {
                        std::ptr::write_bytes(codes, 0, width);
                    } else {
                        let values = self.x.values.as_ptr().add((start + row) * self.x.stride);
                        if self.int8 {
                            let (scale, sum) = round_row::<V>(values, self.k, width, codes);
                            *self.scales.at(start + row) = scale;
                            *self.sums.at(start + row) = sum;
                        } else {
                            for index in (0..width / 2).step_by(V::LANES) {
                                let count = V::LANES.min(self.k.saturating_sub(index));
                                let value = V::load_some(values.wrapping_add(index), count);
                                V::store_bf16(codes.cast::<u16>().add(index), value);
                            }
                        }
                    }
                    for tile in 0..self.tiles {
                        let place = ((block * 2 + row / 16) * self.tiles + tile) * TILE + row % 16 * 64;
                        std::ptr::copy_nonoverlapping(codes.add(tile * 64), self.codes.at(place), 64);
                    }
                }
            }
        }
    }
}

/// The last step of a block: scales, bias, activation and residual.
struct Finish<'a> {
    input: &'a Input,
    packed: &'a PackedLinear,
    epilogue: &'a Epilogue<'a>,
    rows: Range<usize>,
    panel: usize,
    sums: *const u8,
    out: Shared<f32>,
    int8: bool,
}

impl Work for Finish<'_> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        let (n, column) = (self.packed.n(), self.panel * SIDE);
        let count = SIDE.min(n - column);
        let mut bias = [0f32; SIDE];
        if let Some(values) = self.epilogue.bias {
            bias[..count].copy_from_slice(&values[column..][..count]);
        }
        let layout = Int8::of(&self.packed.header());
        // SAFETY: a panel has 32 scales and zero points, the block its sums, `out` and `residual` `count` columns.
        unsafe {
            for start in (0..count).step_by(V::LANES) {
                let here = V::LANES.min(count - start);
                let bias = V::load(bias.as_ptr().add(start));
                let (scales, zero_points) = if self.int8 {
                    let bytes = self.packed.bytes();
                    let zero_points = layout.zero_points(bytes)[column + start..].as_ptr();
                    (V::load(layout.scales(bytes)[column + start..].as_ptr()), V::iload(zero_points.cast()))
                } else {
                    (V::zero(), V::izero())
                };
                for row in self.rows.clone() {
                    let sums = self.sums.add(((row - self.rows.start) * SIDE + start) * 4);
                    let value = if self.int8 {
                        let offset = V::imul(zero_points, V::isplat(*self.input.sums.add(row)));
                        let exact = V::to_f32(V::isub(V::iload(sums), offset));
                        V::fma(exact, V::mul(V::splat(*self.input.scales.add(row)), scales), bias)
                    } else {
                        V::add(V::load(sums.cast()), bias)
                    };
                    let to = self.out.at(row * n + column + start);
                    if here == V::LANES { V::store(to, value) } else { V::store_some(to, value, here) }
                }
            }
            let Epilogue { activation, residual, .. } = *self.epilogue;
            let place = (self.rows.start, column, n);
            let out = self.out.at(self.rows.start * n + column);
            super::finish_rows::<V>(activation, residual, place, out, (self.rows.len(), count));
        }
    }
}
