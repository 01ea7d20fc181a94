//! Attention by blocks of keys, in float32.
//!
//! A block has up to two vectors of queries, of all query heads that share a key head, as its columns. Scores are
//! keys × queries, so that maximum and sum over the keys need no operation across lanes, and neither keys nor values
//! are rearranged: keys are broadcast, and values are loaded as stored.

use super::{Attention, Mask};
use crate::kernels::parallel::{Parallel, Shared};
use crate::kernels::scratch::Scratch;
use crate::kernels::simd::{self, Simd, Work};
use crate::kernels::{Class, reference, vmath};

/// Number of keys of a block.
const KEYS: usize = 128;
/// Maximum number of queries of a block: two vectors.
const COLUMNS: usize = 32;

/// The inputs and the output of an attention.
pub struct Tensors<'a> {
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub mask: &'a Mask<'a>,
}

pub fn attention(class: Class, spec: &Attention, tensors: &Tensors<'_>, out: &mut [f32], parallel: &dyn Parallel) {
    let lanes = if class >= Class::Avx512Vnni { 16 } else { 8 };
    let columns = spec.heads / spec.kv_heads * spec.queries;
    // one vector, if two would be at most half full
    let width = if columns <= lanes { lanes } else { 2 * lanes };
    let blocks = columns.div_ceil(width);
    let heads = spec.batch * spec.kv_heads;
    let out = Shared(out.as_mut_ptr());
    // only as many tasks as there is work for all threads: the keys of a task stay in the cache of its thread
    let pieces = (parallel.threads().max(1) * 4).div_ceil(heads.max(1)).clamp(1, blocks.max(1));
    let pieces = if parallel.threads() <= 1 { 1 } else { pieces };
    parallel.run(heads * pieces, &|task| {
        let (head, piece) = (task / pieces, task % pieces);
        let place = (head / spec.kv_heads, head % spec.kv_heads);
        let blocks = blocks * piece / pieces..blocks * (piece + 1) / pieces;
        simd::run_float(class, Head { spec, tensors, place, blocks, width, columns, out });
    });
}

/// A task: some blocks of queries of one key head.
pub struct Head<'a> {
    pub spec: &'a Attention,
    pub tensors: &'a Tensors<'a>,
    /// Indices of sequence and key head.
    pub place: (usize, usize),
    blocks: std::ops::Range<usize>,
    width: usize,
    columns: usize,
    out: Shared<f32>,
}

/// The working memory of a block: queries (size × columns), scores (keys × columns), output (columns × size),
/// and the maximum, sum and factor of each column.
pub struct Memory {
    queries: *mut f32,
    pub scores: *mut f32,
    out: *mut f32,
    largest: *mut f32,
    total: *mut f32,
    factor: *mut f32,
    _memory: Scratch,
}

impl Memory {
    fn new(spec: &Attention) -> Self {
        let out_width = spec.value_size.next_multiple_of(32);
        let (queries, scores, out) = (spec.head_size * COLUMNS, KEYS * COLUMNS, out_width * COLUMNS);
        let mut memory = Scratch::take((queries + scores + out + 3 * COLUMNS) * 4);
        let start = memory.start().cast::<f32>();
        let at = |place: usize| start.wrapping_add(place);
        Self {
            queries: at(0),
            scores: at(queries),
            out: at(queries + scores),
            largest: at(queries + scores + out),
            total: at(queries + scores + out + COLUMNS),
            factor: at(queries + scores + out + 2 * COLUMNS),
            _memory: memory,
        }
    }
}

impl Head<'_> {
    /// Returns query head and query of a column.
    #[inline(always)]
    pub fn column(&self, column: usize) -> (usize, usize) {
        let group = self.spec.heads / self.spec.kv_heads;
        (self.place.1 * group + column / self.spec.queries, column % self.spec.queries)
    }
}

impl Work for Head<'_> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        let memory = Memory::new(self.spec);
        for block in self.blocks.clone() {
            let first = block * self.width;
            let count = self.width.min(self.columns - first);
            let block = Block { head: &self, memory: &memory, first, count };
            if self.width == V::LANES { V::call(Sized::<1>(block)) } else { V::call(Sized::<2>(block)) }
        }
    }
}

/// A block: the columns from `first` to `first + count`.
pub struct Block<'a> {
    pub head: &'a Head<'a>,
    pub memory: &'a Memory,
    pub first: usize,
    pub count: usize,
}

struct Sized<'a, const N: usize>(Block<'a>);

impl<const N: usize> Work for Sized<'_, N> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        let Self(block) = self;
        let spec = block.head.spec;
        // SAFETY: every pointer stays within what `attention` checked and `Memory` holds.
        unsafe {
            block.take_queries::<V, N>();
            let seen = block.seen();
            for vector in 0..N {
                V::store(block.memory.largest.add(vector * V::LANES), V::splat(f32::NEG_INFINITY));
                V::store(block.memory.total.add(vector * V::LANES), V::zero());
            }
            std::ptr::write_bytes(block.memory.out, 0, spec.value_size.next_multiple_of(32) * COLUMNS);
            let mut start = seen.start;
            while start < seen.end {
                let count = KEYS.min(seen.end - start);
                block.scores::<V, N>(start, count);
                block.mask::<V, N>(start, count);
                block.softmax::<V, N>(count);
                block.values::<V, N>(start, count);
                start += count;
            }
            block.write::<V>();
        }
    }
}

impl Block<'_> {
    /// Returns the range of keys that at least one column attends to.
    fn seen(&self) -> std::ops::Range<usize> {
        let spec = self.head.spec;
        let queries = || (self.first..self.first + self.count).map(|column| self.head.column(column).1);
        let ranges = || queries().map(|query| reference::seen(spec, query)).filter(|range| !range.is_empty());
        let start = ranges().map(|range| range.start).min().unwrap_or(0);
        let mut end = ranges().map(|range| range.end).max().unwrap_or(0);
        if let Mask::KeyLengths(lengths) = self.head.tensors.mask {
            // keys after the last visible one have no effect, unless a query has no visible key
            let length = usize::try_from(lengths[self.head.place.0]).unwrap_or(0);
            if ranges().all(|range| length > range.start) {
                end = end.min(length);
            }
        }
        start..end
    }

    /// Copies the scaled queries to size × columns.
    #[inline(always)]
    unsafe fn take_queries<V: Simd, const N: usize>(&self) {
        let (spec, to, width) = (self.head.spec, self.memory.queries, N * V::LANES);
        let whole = spec.head_size / V::LANES * V::LANES;
        let at = |column: usize| {
            let (head, query) = self.head.column(column);
            let place = self.head.place.0 * spec.q.batch + head * spec.q.head + query * spec.q.token;
            self.head.tensors.q.as_ptr().wrapping_add(place)
        };
        // SAFETY: the queries are there, as `attention` checked; `to` holds size × columns.
        unsafe {
            let mut column = 0;
            while column < width {
                // as many columns at once as a vector has lanes, if their rows are equally spaced
                let next = column + V::LANES;
                let even = next <= self.count
                    && self.head.column(self.first + column).0 == self.head.column(self.first + next - 1).0;
                if even {
                    for row in (0..whole).step_by(V::LANES) {
                        let from = at(self.first + column).add(row);
                        V::transpose(from, spec.q.token, V::LANES, to.add(row * width + column), width);
                    }
                }
                for column in column..next {
                    for row in if even { whole } else { 0 }..spec.head_size {
                        let value = if column < self.count { *at(self.first + column).add(row) } else { 0.0 };
                        *to.add(row * width + column) = value;
                    }
                }
                column = next;
            }
            let scale = V::splat(spec.scale);
            for index in (0..spec.head_size * width).step_by(V::LANES) {
                V::store(to.add(index), V::mul(V::load(to.add(index)), scale));
            }
        }
    }

    /// Computes the scores: the products of `count` keys from `start` on and the queries.
    #[inline(always)]
    unsafe fn scores<V: Simd, const N: usize>(&self, start: usize, count: usize) {
        let spec = self.head.spec;
        let place = self.head.place.0 * spec.k.batch + self.head.place.1 * spec.k.head;
        // SAFETY: the keys are there.
        unsafe {
            let keys = self.head.tensors.k.as_ptr().add(place + start * spec.k.token);
            let mut key = 0;
            // as many sums as fit into the registers
            let step = if V::LANES == 16 { 8 } else { 4 };
            while key + step <= count {
                if V::LANES == 16 {
                    self.some_scores::<V, N, 8>(keys.add(key * spec.k.token), key);
                } else {
                    self.some_scores::<V, N, 4>(keys.add(key * spec.k.token), key);
                }
                key += step;
            }
            while key < count {
                self.some_scores::<V, N, 1>(keys.add(key * spec.k.token), key);
                key += 1;
            }
        }
    }

    #[inline(always)]
    unsafe fn some_scores<V: Simd, const N: usize, const R: usize>(&self, keys: *const f32, key: usize) {
        let spec = self.head.spec;
        let mut sums = [[V::zero(); N]; R];
        // SAFETY: R keys and the queries are there.
        unsafe {
            for index in 0..spec.head_size {
                let queries: [V::F; N] =
                    std::array::from_fn(|vector| V::load(self.memory.queries.add((index * N + vector) * V::LANES)));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let value = V::splat(*keys.add(row * spec.k.token + index));
                    for vector in 0..N {
                        sums[vector] = V::fma(value, queries[vector], sums[vector]);
                    }
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                for (vector, sum) in sums.iter().enumerate() {
                    V::store(self.memory.scores.add(((key + row) * N + vector) * V::LANES), *sum);
                }
            }
        }
    }

    /// Replaces the scores of `count` keys by the exponentials of their differences from the maximum so far.
    #[inline(always)]
    unsafe fn softmax<V: Simd, const N: usize>(&self, count: usize) {
        let Memory { scores, largest, total, factor, .. } = *self.memory;
        let width = N * V::LANES;
        // SAFETY: count × columns scores are there.
        unsafe {
            for vector in 0..N {
                let scores = scores.add(vector * V::LANES);
                let (largest, total) = (largest.add(vector * V::LANES), total.add(vector * V::LANES));
                let before = V::load(largest);
                // four independent chains each, because of their latency
                let mut parts = [before; 4];
                for first in (0..count).step_by(4) {
                    for (part, now) in parts.iter_mut().enumerate().take(count - first) {
                        *now = V::max(V::load(scores.add((first + part) * width)), *now);
                    }
                }
                let now = V::max(V::max(parts[0], parts[1]), V::max(parts[2], parts[3]));
                V::store(largest, now);
                // if all keys are masked, nothing is subtracted: -inf minus -inf would be NaN
                let shift = V::if_less(V::splat(f32::NEG_INFINITY), now, now, V::zero());
                let correction = vmath::exp_or_zero::<V>(V::sub(before, shift));
                let mut parts = [V::mul(V::load(total), correction), V::zero(), V::zero(), V::zero()];
                for first in (0..count).step_by(4) {
                    for (part, sum) in parts.iter_mut().enumerate().take(count - first) {
                        let at = scores.add((first + part) * width);
                        let power = vmath::exp_or_zero::<V>(V::sub(V::load(at), shift));
                        V::store(at, power);
                        *sum = V::add(*sum, power);
                    }
                }
                V::store(total, V::add(V::add(parts[0], parts[1]), V::add(parts[2], parts[3])));
                V::store(factor.add(vector * V::LANES), correction);
            }
        }
    }

    /// Scales the output by the factor, and adds the values of `count` keys from `start` on, weighted by the
    /// exponentials.
    #[inline(always)]
    unsafe fn values<V: Simd, const N: usize>(&self, start: usize, count: usize) {
        let spec = self.head.spec;
        let place = self.head.place.0 * spec.v.batch + self.head.place.1 * spec.v.head + start * spec.v.token;
        // SAFETY: the values are there; whole vectors are only loaded within a value vector.
        unsafe {
            let values = self.head.tensors.v.as_ptr().add(place);
            let step = if V::LANES == 16 { 8 } else { 4 };
            for first in (0..self.count).step_by(step) {
                if V::LANES == 16 {
                    self.column_values::<V, N, 8>(values, first, count);
                } else {
                    self.column_values::<V, N, 4>(values, first, count);
                }
            }
        }
    }

    /// As [`Self::values`] for `R` columns from `first` on.
    #[inline(always)]
    unsafe fn column_values<V: Simd, const N: usize, const R: usize>(
        &self,
        values: *const f32,
        first: usize,
        count: usize,
    ) {
        let size = self.head.spec.value_size;
        let mut at = 0;
        // SAFETY: the caller's; whole vectors are only loaded within a value vector.
        unsafe {
            while at + 2 * V::LANES <= size {
                self.some_values::<V, N, R, 2>(values, (first, at), count, V::LANES);
                at += 2 * V::LANES;
            }
            while at < size {
                self.some_values::<V, N, R, 1>(values, (first, at), count, V::LANES.min(size - at));
                at += V::LANES;
            }
        }
    }

    /// As [`Self::values`] for `R` columns from `first` on and `W` vectors from `at` on, the last with `lanes` lanes.
    #[inline(always)]
    unsafe fn some_values<V: Simd, const N: usize, const R: usize, const W: usize>(
        &self,
        values: *const f32,
        (first, at): (usize, usize),
        count: usize,
        lanes: usize,
    ) {
        let (spec, width) = (self.head.spec, N * V::LANES);
        let out_width = spec.value_size.next_multiple_of(32);
        // SAFETY: the caller's; there are memory for 32 columns, some of them unused.
        unsafe {
            let place =
                |row: usize, vector: usize| self.memory.out.add((first + row) * out_width + at + vector * V::LANES);
            let mut sums: [[V::F; W]; R] = std::array::from_fn(|row| {
                let factor = V::splat(*self.memory.factor.add(first + row));
                std::array::from_fn(|vector| V::mul(V::load(place(row, vector)), factor))
            });
            let mut powers = self.memory.scores.cast_const().add(first);
            let mut values = values.add(at);
            for _ in 0..count {
                let loaded: [V::F; W] = std::array::from_fn(|vector| {
                    let from = values.add(vector * V::LANES);
                    if lanes == V::LANES { V::load(from) } else { V::load_some(from, lanes) }
                });
                for (row, sums) in sums.iter_mut().enumerate() {
                    let power = V::splat(*powers.add(row));
                    for vector in 0..W {
                        sums[vector] = V::fma(power, loaded[vector], sums[vector]);
                    }
                }
                powers = powers.add(width);
                values = values.wrapping_add(spec.v.token);
            }
            for (row, sums) in sums.iter().enumerate() {
                for (vector, sum) in sums.iter().enumerate() {
                    V::store(place(row, vector), *sum);
                }
            }
        }
    }

    /// Writes the output, divided by the sum of the exponentials.
    #[inline(always)]
    unsafe fn write<V: Simd>(&self) {
        let spec = self.head.spec;
        let out_width = spec.value_size.next_multiple_of(32);
        for column in 0..self.count {
            let (head, query) = self.head.column(self.first + column);
            let place = self.head.place.0 * spec.out.batch + head * spec.out.head + query * spec.out.token;
            // SAFETY: this task's vectors of the output.
            unsafe {
                let (from, to) = (self.memory.out.add(column * out_width), self.head.out.at(place));
                let none = reference::seen(spec, query).is_empty();
                let inverse = if none { 0.0 } else { 1.0 / *self.memory.total.add(column) };
                for start in (0..spec.value_size).step_by(V::LANES) {
                    let count = V::LANES.min(spec.value_size - start);
                    let value = V::mul(V::load(from.add(start)), V::splat(inverse));
                    let value = if none { V::zero() } else { value };
                    if count == V::LANES {
                        V::store(to.add(start), value);
                    } else {
                        V::store_some(to.add(start), value, count);
                    }
                }
            }
        }
    }
}
