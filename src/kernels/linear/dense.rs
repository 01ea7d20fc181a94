//! Products of float32 inputs with float32 or bfloat16 weights.
//!
//! bfloat16 weights are widened and multiplied in float32 (the inputs stay exact), unless the processor's bfloat16 dot
//! product is faster.

use std::ops::Range;

use super::by_rows;
use super::input::{Blocking, Cut, interleave, most_rows, tasks};
use crate::kernels::parallel::{Parallel, Serial, Shared};
use crate::kernels::scratch::Scratch;
use crate::kernels::simd::{self, Simd, Work};
use crate::kernels::{Class, Epilogue, PackedLinear, Precision, Rows, pack::Dense};

/// The type of the weights and of their products.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// float32 weights, multiplied in float32.
    Wide,
    /// bfloat16 weights, widened and multiplied in float32.
    Widened,
    /// bfloat16 weights and inputs, multiplied by the bfloat16 dot product.
    Dot,
}

impl Kind {
    /// Returns the kind of multiplication for weights of a class and precision.
    pub fn of(class: Class, precision: Precision) -> Self {
        match precision {
            Precision::Bfloat16 if class >= Class::Avx512Bf16 && class.fast_bf16_dot() => Self::Dot,
            Precision::Bfloat16 => Self::Widened,
            _ => Self::Wide,
        }
    }
}

/// Multiplies `x` by each of the weights, which have the same K, class and precision.
pub fn multiply(
    x: &Rows<'_>,
    weights: &[(&PackedLinear, Epilogue<'_>)],
    outs: &mut [&mut [f32]],
    parallel: &dyn Parallel,
) {
    let Some((first, _)) = weights.first() else { return };
    multiply_as(Kind::of(first.class(), first.precision()), x, weights, outs, parallel);
}

/// Multiplies `x` by each of the weights like [`multiply`], with the given kind of multiplication.
pub fn multiply_as(
    kind: Kind,
    x: &Rows<'_>,
    weights: &[(&PackedLinear, Epilogue<'_>)],
    outs: &mut [&mut [f32]],
    parallel: &dyn Parallel,
) {
    let Some((first, _)) = weights.first() else { return };
    let (class, dense) = (first.class(), Dense::of(&first.header()));
    let padded = dense.groups * dense.group;
    let width = if kind == Kind::Dot { padded / 2 } else { padded };
    let arranging =
        Arranging { x, k: first.k(), width, blocking: Blocking::new(x.rows, most_rows(class)), class, kind };
    let outs: Vec<_> = outs.iter_mut().map(|out| Shared(out.as_mut_ptr())).collect();
    let panels: Vec<_> = weights.iter().map(|(packed, _)| Dense::of(&packed.header()).panels).collect();
    let work = |x: &Arranged, blocks, index: usize, panels| {
        let (packed, epilogue) = &weights[index];
        let work = Panels { x, packed, epilogue, blocks, panels, out: outs[index], kind };
        if kind == Kind::Dot { simd::run_dot_bf16(work) } else { simd::run_float(class, work) }
    };
    let cut = Cut::new(&arranging.blocking, width * 4, panels.iter().sum(), parallel);
    if cut.pieces > 1 {
        let arranged = arranging.arrange(0..arranging.blocking.blocks, parallel);
        return cut.spread(&panels, parallel, &|blocks, index, panels| work(&arranged, blocks, index, panels));
    }
    // Each task arranges the rows that it processes, so that they are in its cache.
    parallel.run(cut.chunks, &|chunk| {
        let blocks = cut.blocks(chunk);
        let arranged = arranging.arrange(blocks.clone(), &Serial);
        (0..panels.len()).for_each(|index| work(&arranged, blocks.clone(), index, 0..panels[index]));
    });
}

/// The work of arranging rows in the order of the register blocks.
struct Arranging<'a> {
    x: &'a Rows<'a>,
    k: usize,
    width: usize,
    blocking: Blocking,
    class: Class,
    kind: Kind,
}

/// Rows in the order of the register blocks: float32, or pairs of bfloat16.
struct Arranged {
    blocking: Blocking,
    /// Index of the first row that is arranged.
    first: usize,
    /// Size of a row in elements of 4 bytes.
    width: usize,
    values: *mut f32,
    _memory: Scratch,
}

// SAFETY: the memory is written before it is shared, and then only read.
unsafe impl Sync for Arranged {}

impl Arranging<'_> {
    fn arrange(&self, blocks: Range<usize>, parallel: &dyn Parallel) -> Arranged {
        let Self { x, k, width, blocking, class, kind } = *self;
        let (first, end) = (blocking.start(blocks.start), blocking.start(blocks.end));
        let mut memory = Scratch::take(((end - first) * width + 16) * 4);
        let arranged = Arranged { blocking, first, width, values: memory.start().cast(), _memory: memory };
        let tasks = tasks((end - first) * k, blocks.len(), parallel);
        let to = Shared(arranged.values);
        parallel.run(tasks, &|task| {
            let at = |task: usize| blocks.start + blocks.len() * task / tasks;
            let blocks = at(task)..at(task + 1);
            simd::run_float(class, Arrange { x, k, width, blocking, first, blocks, to, pairs: kind == Kind::Dot });
        });
        arranged
    }
}

struct Arrange<'a> {
    x: &'a Rows<'a>,
    k: usize,
    width: usize,
    blocking: Blocking,
    first: usize,
    blocks: Range<usize>,
    to: Shared<f32>,
    pairs: bool,
}

impl Work for Arrange<'_> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        let stride = self.width + 32;
        let mut pairs = Scratch::take(if self.pairs { most_rows(Class::Amx) * stride * 4 } else { 0 });
        for block in self.blocks.clone() {
            let (start, end) = (self.blocking.start(block), self.blocking.start(block + 1));
            let rows = end - start;
            // SAFETY: each row of `x` has K values, as `linears` has checked; only this task writes the block; a row of
            // pairs has room for one more vector.
            unsafe {
                let from = self.x.values.as_ptr().add(start * self.x.stride);
                let to = self.to.at((start - self.first) * self.width);
                if self.pairs {
                    for row in 0..rows {
                        let pairs = pairs.start().cast::<f32>().add(row * stride).cast::<u16>();
                        for index in (0..self.width * 2).step_by(V::LANES) {
                            let count = V::LANES.min(self.k.saturating_sub(index));
                            let from = from.wrapping_add(row * self.x.stride + index);
                            V::store_bf16(pairs.add(index), V::load_some(from, count));
                        }
                    }
                    interleave::<V>(pairs.start().cast(), stride, rows, self.width, to);
                } else {
                    interleave::<V>(from, self.x.stride, rows, self.k, to);
                    std::ptr::write_bytes(to.add(self.k * rows), 0, (self.width - self.k) * rows);
                }
            }
        }
    }
}

/// A task: some blocks of rows and some panels of columns.
struct Panels<'a> {
    x: &'a Arranged,
    packed: &'a PackedLinear,
    epilogue: &'a Epilogue<'a>,
    blocks: Range<usize>,
    panels: Range<usize>,
    out: Shared<f32>,
    kind: Kind,
}

impl Work for Panels<'_> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        let dense = Dense::of(&self.packed.header());
        let (n, bytes) = (self.packed.n(), self.packed.bytes());
        debug_assert_eq!(dense.panel, 2 * V::LANES);
        let mut bias = [0f32; 32];
        let widen = self.kind == Kind::Widened && self.blocks.len() >= OFTEN;
        let mut wide = Scratch::take(if widen { PART * dense.panel * 4 } else { 0 });
        for panel in self.panels.clone() {
            let column = panel * dense.panel;
            let count = dense.panel.min(n - column);
            if let Some(values) = self.epilogue.bias {
                bias[..count].copy_from_slice(&values[column..][..count]);
            }
            // With many rows, a part of the panel that fits the first-level cache is used for all of them before the
            // next part.
            let part = if self.blocks.len() > 1 { PART / dense.group } else { dense.groups.max(1) };
            let parts = dense.groups.div_ceil(part).max(1);
            for part_index in 0..parts {
                let start = part_index * part;
                let mut groups = part.min(dense.groups - start);
                let mut weights = bytes[panel * dense.each() + start * dense.panel * 4..].as_ptr();
                let mut kind = self.kind;
                if widen {
                    // SAFETY: the panel has `groups` groups of two vectors; `wide` has room for those of a part.
                    unsafe { widened::<V>(weights, groups, wide.start().cast()) };
                    (weights, groups, kind) = (wide.start().cast_const(), groups * 2, Kind::Wide);
                }
                for block in self.blocks.clone() {
                    let (row, end) = (self.x.blocking.start(block), self.x.blocking.start(block + 1));
                    let values = start * if self.kind == Kind::Widened { 2 } else { 1 };
                    let tile = Tile {
                        activations: self
                            .x
                            .values
                            .wrapping_add((row - self.x.first) * self.x.width + values * (end - row)),
                        weights,
                        groups,
                        first: part_index == 0,
                        last: part_index + 1 == parts,
                        bias: bias.as_ptr(),
                        epilogue: self.epilogue,
                        place: (row, column, n),
                        count,
                        out: self.out.at(row * n + column),
                    };
                    match kind {
                        Kind::Dot if V::DOT_BF16 => tile.run_rows::<V, DOT>(end - row),
                        Kind::Wide if !V::DOT_BF16 => tile.run_rows::<V, WIDE>(end - row),
                        Kind::Widened if !V::DOT_BF16 => tile.run_rows::<V, WIDENED>(end - row),
                        _ => debug_assert!(false, "vectors without {kind:?}"),
                    }
                }
            }
        }
    }
}

/// Number of values of K in a part of a panel. The part has at most 32 KiB, and the input of a tile half as much.
const PART: usize = 256;
/// Minimum number of blocks of rows for which it pays to widen a part once for all of them.
const OFTEN: usize = 3;

/// Writes `groups` groups of two values of bfloat16 as float32, in the order of K.
///
/// # Safety
///
/// Two vectors per group can be read at `from`, and four can be written at `to`.
#[inline(always)]
unsafe fn widened<V: Simd>(from: *const u8, groups: usize, to: *mut f32) {
    let high = V::isplat(0xffff_0000u32 as i32);
    for group in 0..groups {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let (from, to) = (from.add(group * V::LANES * 8), to.add(group * V::LANES * 4));
            for vector in 0..2 {
                let pairs = V::iload(from.add(vector * V::LANES * 4));
                V::store(to.add(vector * V::LANES), V::from_bits(V::shl::<16>(pairs)));
                V::store(to.add((2 + vector) * V::LANES), V::from_bits(V::iand(pairs, high)));
            }
        }
    }
}

const WIDE: usize = 0;
const WIDENED: usize = 1;
const DOT: usize = 2;

/// The product of a block of rows and a panel.
#[derive(Clone, Copy)]
struct Tile<'a> {
    activations: *const f32,
    weights: *const u8,
    groups: usize,
    /// Whether sums begin with 0, instead of with the content of `out`.
    first: bool,
    /// Whether bias, activation and residual are applied after the sums.
    last: bool,
    bias: *const f32,
    epilogue: &'a Epilogue<'a>,
    place: (usize, usize, usize),
    count: usize,
    out: *mut f32,
}

impl Tile<'_> {
    #[inline(always)]
    fn run_rows<V: Simd, const KIND: usize>(self, rows: usize) {
        by_rows!(rows, V::ROWS, |R| Sized::<R, KIND>(self), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12);
    }
}

struct Sized<'a, const R: usize, const KIND: usize>(Tile<'a>);

impl<const R: usize, const KIND: usize> Work for Sized<'_, R, KIND> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        let Self(tile) = self;
        let n = tile.place.2;
        // SAFETY: the panel has `groups` groups of two vectors, and the block has as many groups of R values; `out` and
        // `residual` have `count` columns, as `linears` has checked.
        unsafe {
            for row in 0..R {
                V::prefetch_write(tile.out.wrapping_add(row * n).cast());
                V::prefetch_write(tile.out.wrapping_add(row * n + 16).cast());
            }
            let mut sums = [[V::zero(); 2]; R];
            if !tile.first {
                each::<V, R>(&mut sums, &tile, |sum, at, count| *sum = V::load_some(at, count));
            }
            add_products::<V, R, KIND>(&mut sums, tile.activations, tile.weights, tile.groups);
            if tile.last {
                let bias = [V::load(tile.bias), V::load(tile.bias.add(V::LANES))];
                for sums in &mut sums {
                    *sums = [V::add(sums[0], bias[0]), V::add(sums[1], bias[1])];
                }
            }
            each::<V, R>(&mut sums, &tile, |sum, at, count| {
                if count == V::LANES { V::store(at, *sum) } else { V::store_some(at, *sum, count) }
            });
            if tile.last {
                let Epilogue { activation, residual, .. } = *tile.epilogue;
                super::finish_rows::<V>(activation, residual, tile.place, tile.out, (R, tile.count));
            }
        }
    }
}

/// Calls `work` with each vector of sums, its address in the output, and the number of its columns that are inside the
/// output.
#[inline(always)]
fn each<V: Simd, const R: usize>(
    sums: &mut [[V::F; 2]; R],
    tile: &Tile<'_>,
    work: impl Fn(&mut V::F, *mut f32, usize),
) {
    for (row, sums) in sums.iter_mut().enumerate() {
        for (vector, sum) in sums.iter_mut().enumerate() {
            let start = vector * V::LANES;
            if tile.count > start {
                let at = tile.out.wrapping_add(row * tile.place.2 + start);
                work(sum, at, V::LANES.min(tile.count - start));
            }
        }
    }
}

/// Adds the products of a block. Each sum is in the order of K, so that the result of a row does not depend on other
/// rows.
///
/// # Safety
///
/// `groups` groups of R values (of 2 R for `WIDENED`) and of two vectors can be read.
#[inline(always)]
unsafe fn add_products<V: Simd, const R: usize, const KIND: usize>(
    sums: &mut [[V::F; 2]; R],
    mut activations: *const f32,
    mut weights: *const u8,
    groups: usize,
) {
    let high = V::isplat(0xffff_0000u32 as i32);
    for _ in 0..groups {
        // SAFETY: guaranteed by the caller.
        unsafe {
            V::prefetch(weights.wrapping_add(2048));
            V::prefetch(weights.wrapping_add(2048 + 64));
            let (first, second) = (V::iload(weights), V::iload(weights.add(V::LANES * 4)));
            weights = weights.add(V::LANES * 8);
            match KIND {
                WIDENED => {
                    let even = (V::from_bits(V::shl::<16>(first)), V::from_bits(V::shl::<16>(second)));
                    let odd = (V::from_bits(V::iand(first, high)), V::from_bits(V::iand(second, high)));
                    for (part, (first, second)) in [even, odd].into_iter().enumerate() {
                        for (row, sums) in sums.iter_mut().enumerate() {
                            let value = V::splat(*activations.add(part * R + row));
                            sums[0] = V::fma(value, first, sums[0]);
                            sums[1] = V::fma(value, second, sums[1]);
                        }
                    }
                    activations = activations.add(2 * R);
                }
                DOT => {
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let pair = V::iload_splat(activations.add(row).cast());
                        sums[0] = V::dot_bf16(sums[0], pair, first);
                        sums[1] = V::dot_bf16(sums[1], pair, second);
                    }
                    activations = activations.add(R);
                }
                _ => {
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let value = V::splat(*activations.add(row));
                        sums[0] = V::fma(value, V::from_bits(first), sums[0]);
                        sums[1] = V::fma(value, V::from_bits(second), sums[1]);
                    }
                    activations = activations.add(R);
                }
            }
        }
    }
}
