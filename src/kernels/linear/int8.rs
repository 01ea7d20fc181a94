//! Products of int8 inputs and weights: exact sums in int32, then scales, bias, activation and residual while the block
//! is in the cache.

use std::ops::Range;

use super::input::{Rounded, spread};
use crate::kernels::parallel::{Parallel, Shared};
use crate::kernels::simd::{self, Simd, Work};
use crate::kernels::{Epilogue, PackedLinear, pack::Int8};

/// Multiplies `x` by each of the weights, which have the same K and class.
pub fn multiply(
    x: &Rounded,
    weights: &[(&PackedLinear, Epilogue<'_>)],
    outs: &mut [&mut [f32]],
    parallel: &dyn Parallel,
) {
    let Some(class) = weights.first().map(|(packed, _)| packed.class()) else { return };
    let outs: Vec<_> = outs.iter_mut().map(|out| Shared(out.as_mut_ptr())).collect();
    let panels: Vec<_> = weights.iter().map(|(packed, _)| Int8::of(&packed.header()).panels).collect();
    let width: usize = weights.iter().map(|(packed, _)| packed.n()).sum();
    spread(&x.blocking, (x.groups + width) * 4, &panels, parallel, &|blocks, index, panels| {
        let (packed, epilogue) = &weights[index];
        simd::run(class, Panels { x, packed, epilogue, blocks, panels, out: outs[index] });
    });
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
        let int8 = Int8::of(&self.packed.header());
        let (n, bytes) = (self.packed.n(), self.packed.bytes());
        debug_assert_eq!(int8.panel, 2 * V::LANES);
        let mut bias = [0f32; 32];
        for panel in self.panels.clone() {
            let column = panel * int8.panel;
            let count = int8.panel.min(n - column);
            if let Some(values) = self.epilogue.bias {
                bias[..count].copy_from_slice(&values[column..][..count]);
            }
            for block in self.blocks.clone() {
                let (row, end) = (self.x.blocking.start(block), self.x.blocking.start(block + 1));
                let tile = Tile {
                    x: self.x,
                    row,
                    activations: self.x.codes(block),
                    weights: int8.codes(bytes)[panel * int8.each()..].as_ptr(),
                    scales: int8.scales(bytes)[column..].as_ptr(),
                    zero_points: int8.zero_points(bytes)[column..].as_ptr(),
                    sums: int8.sums(bytes)[column..].as_ptr(),
                    bias: bias.as_ptr(),
                    epilogue: self.epilogue,
                    n,
                    column,
                    out: self.out.at(row * n + column),
                };
                tile.run_rows::<V>(end - row);
            }
        }
    }
}

/// The product of a block of rows and a panel.
#[derive(Clone, Copy)]
struct Tile<'a> {
    x: &'a Rounded,
    row: usize,
    activations: *const u8,
    weights: *const u8,
    scales: *const f32,
    zero_points: *const i32,
    sums: *const i32,
    bias: *const f32,
    epilogue: &'a Epilogue<'a>,
    n: usize,
    column: usize,
    out: *mut f32,
}

impl Tile<'_> {
    #[inline(always)]
    fn run_rows<V: Simd>(self, rows: usize) {
        macro_rules! with_rows {
            ($($rows:literal * $unroll:literal),*) => {
                match rows {
                    $($rows if $rows <= V::ROWS => V::call(Sized::<$rows, $unroll>(self)),)*
                    _ => debug_assert!(false, "a block of {rows} rows"),
                }
            };
        }
        with_rows!(1 * 4, 2 * 2, 3 * 2, 4 * 1, 5 * 1, 6 * 1, 7 * 1, 8 * 1, 9 * 1, 10 * 1, 11 * 1, 12 * 1);
    }
}

/// The product of `R` rows and a panel, computed in steps of `U` groups of K.
struct Sized<'a, const R: usize, const U: usize>(Tile<'a>);

impl<const R: usize, const U: usize> Work for Sized<'_, R, U> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        let Self(tile) = self;
        let count = (2 * V::LANES).min(tile.n - tile.column);
        // SAFETY: the panel has `groups` groups of two vectors, and the block has as many of R · 4 codes; each has its
        // scales, zero points and sums; `out` and `residual` have `count` columns, as `linear` has checked.
        unsafe {
            for row in 0..R {
                // The lines of the output are prefetched early, because they are seldom in the cache.
                V::prefetch_write(tile.out.wrapping_add(row * tile.n).cast());
                V::prefetch_write(tile.out.wrapping_add(row * tile.n + 16).cast());
            }
            let signed = V::SIGNED && tile.x.symmetric;
            let sums = if signed {
                sums::<V, R, U, true>(tile.activations, tile.weights, tile.x.groups)
            } else {
                sums::<V, R, U, false>(tile.activations, tile.weights, tile.x.groups)
            };
            let moved = V::isplat(if signed { 128 } else { 0 });
            let load = |from: *const i32, vector: usize| V::iload(from.add(vector * V::LANES).cast());
            for vector in 0..2 {
                let zero_points = V::isub(load(tile.zero_points, vector), moved);
                let shift = V::imul(V::isplat(tile.x.shift), load(tile.sums, vector));
                let scales = V::load(tile.scales.add(vector * V::LANES));
                let bias = V::load(tile.bias.add(vector * V::LANES));
                for (row, sums) in sums.iter().enumerate() {
                    let exact = V::isub(sums[vector], V::imul(zero_points, V::isplat(tile.x.sum(tile.row + row))));
                    let scale = V::mul(V::splat(tile.x.scale(tile.row + row)), scales);
                    let value = V::fma(V::to_f32(V::isub(exact, shift)), scale, bias);
                    let to = tile.out.add(row * tile.n + vector * V::LANES);
                    if count >= (vector + 1) * V::LANES {
                        V::store(to, value);
                    } else if count > vector * V::LANES {
                        V::store_some(to, value, count - vector * V::LANES);
                    }
                }
            }
            let Epilogue { activation, residual, .. } = *tile.epilogue;
            super::finish_rows::<V>(activation, residual, (tile.row, tile.column, tile.n), tile.out, (R, count));
        }
    }
}

/// Returns the sums of a block; with `SIGNED` those of the weights minus 128.
///
/// # Safety
///
/// `groups` groups of R · 4 bytes and of two vectors can be read.
#[inline(always)]
unsafe fn sums<V: Simd, const R: usize, const U: usize, const SIGNED: bool>(
    mut activations: *const u8,
    mut weights: *const u8,
    groups: usize,
) -> [[V::I; 2]; R] {
    let mut sums = [[[V::izero(); 2]; R]; U];
    // SAFETY: guaranteed by the caller.
    unsafe {
        for _ in 0..groups / U {
            for part in sums.iter_mut() {
                group::<V, R, SIGNED>(part, activations, weights);
                activations = activations.add(R * 4);
                weights = weights.add(V::LANES * 8);
            }
        }
        for _ in 0..groups % U {
            group::<V, R, SIGNED>(&mut sums[0], activations, weights);
            activations = activations.add(R * 4);
            weights = weights.add(V::LANES * 8);
        }
    }
    let mut total = sums[0];
    for part in &sums[1..] {
        for row in 0..R {
            for vector in 0..2 {
                total[row][vector] = V::iadd(total[row][vector], part[row][vector]);
            }
        }
    }
    total
}

#[inline(always)]
unsafe fn group<V: Simd, const R: usize, const SIGNED: bool>(
    sums: &mut [[V::I; 2]; R],
    activations: *const u8,
    weights: *const u8,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        // Prefetching helps the first block of rows: it reads the weights from memory, later ones from the cache.
        V::prefetch(weights.wrapping_add(2048));
        V::prefetch(weights.wrapping_add(2048 + 64));
        let (first, second) = (V::iload(weights), V::iload(weights.add(V::LANES * 4)));
        add_dots::<V, R, SIGNED>(sums, activations, first, second);
    }
}

/// Adds the products of two vectors of uint8 weights with four codes of each row; with `SIGNED` those of the weights
/// minus 128, for codes that are not -128.
///
/// # Safety
///
/// R · 4 bytes can be read at `activations`.
#[inline(always)]
pub unsafe fn add_dots<V: Simd, const R: usize, const SIGNED: bool>(
    sums: &mut [[V::I; 2]; R],
    activations: *const u8,
    first: V::I,
    second: V::I,
) {
    let flip = V::isplat(0x8080_8080u32 as i32);
    let (low, high) = (V::ixor(first, flip), V::ixor(second, flip));
    let (low_sizes, high_sizes) = (V::magnitudes(low), V::magnitudes(high));
    for (row, sums) in sums.iter_mut().enumerate() {
        // SAFETY: guaranteed by the caller.
        let codes = unsafe { V::iload_splat(activations.add(row * 4)) };
        if SIGNED {
            sums[0] = V::dot_signed(sums[0], low, low_sizes, codes);
            sums[1] = V::dot_signed(sums[1], high, high_sizes, codes);
        } else {
            sums[0] = V::dot(sums[0], first, codes);
            sums[1] = V::dot(sums[1], second, codes);
        }
    }
}
