//! The steps for a block of keys: scores, their exponentials and the weighted values; and the merging of partial
//! results.

use super::flash::{Block, Memory, Partial};
use crate::kernels::simd::Simd;
use crate::kernels::{reference, vmath};

/// Maximum number of columns with which the lanes of the scores are keys instead of columns.
const FEW: usize = 4;
/// Number of values that are prefetched ahead for few columns, when memory bandwidth is the limit.
const AHEAD: usize = 6;
/// Maximum number of lanes of a vector.
const LARGEST: usize = 16;

impl Block<'_> {
    /// Returns whether there are few columns, as for one token of a decoder.
    #[inline(always)]
    fn is_few(&self) -> bool {
        self.count <= FEW
    }

    /// Computes the scores: the products of the queries and of `count` keys, beginning with the key `start`.
    #[inline(always)]
    pub unsafe fn scores<V: Simd, const N: usize>(&self, start: usize, count: usize) {
        let spec = &self.head.spec;
        let place = self.head.place.0 * spec.k.batch + self.head.place.1 * spec.k.head;
        // SAFETY: the keys are in bounds.
        unsafe {
            let keys = self.head.tensors.k.as_ptr().add(place + start * spec.k.token);
            let mut key = 0;
            if self.is_few() {
                while key + V::LANES <= count {
                    let from = keys.add(key * spec.k.token);
                    match self.count {
                        1 => self.few_scores::<V, N, 1>(from, key),
                        2 => self.few_scores::<V, N, 2>(from, key),
                        3 => self.few_scores::<V, N, 3>(from, key),
                        _ => self.few_scores::<V, N, FEW>(from, key),
                    }
                    key += V::LANES;
                }
            }
            // As many sums as fit into the registers are computed at once.
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
        let spec = &self.head.spec;
        let mut sums = [[V::zero(); N]; R];
        // SAFETY: R keys and the queries are in bounds.
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

    /// Computes the scores of a vector of keys and the first `C` columns, with keys as lanes: the lanes of columns
    /// would be mostly unused. Products are added in the same order as in [`Self::some_scores`].
    #[inline(always)]
    unsafe fn few_scores<V: Simd, const N: usize, const C: usize>(&self, keys: *const f32, key: usize) {
        let (spec, width) = (&self.head.spec, N * V::LANES);
        let mut sums = [V::zero(); C];
        let mut tile = [0f32; LARGEST * LARGEST];
        let tile = tile.as_mut_ptr();
        // SAFETY: a vector of keys and the queries are in bounds; a tile has room for LANES x LANES values.
        unsafe {
            for row in (0..spec.head_size).step_by(V::LANES) {
                let rows = V::LANES.min(spec.head_size - row);
                for index in 0..V::LANES {
                    // The same part of the next keys is prefetched.
                    V::prefetch(keys.wrapping_add((V::LANES + index) * spec.k.token + row).cast());
                }
                if rows == V::LANES {
                    V::transpose(keys.add(row), spec.k.token, V::LANES, tile, V::LANES);
                } else {
                    for (lane, index) in (0..V::LANES).flat_map(|lane| (0..rows).map(move |index| (lane, index))) {
                        *tile.add(index * V::LANES + lane) = *keys.add(lane * spec.k.token + row + index);
                    }
                }
                for index in 0..rows {
                    let values = V::load(tile.add(index * V::LANES));
                    for (column, sum) in sums.iter_mut().enumerate() {
                        let query = V::splat(*self.memory.queries.add((row + index) * width + column));
                        *sum = V::fma(values, query, *sum);
                    }
                }
            }
            for (column, sum) in sums.iter().enumerate() {
                V::store(tile.add(column * V::LANES), *sum);
            }
            V::transpose(tile, V::LANES, C, self.memory.scores.add(key * width), width);
        }
    }

    /// Replaces the scores of `count` keys by the exponentials of their differences from their maximum, and writes the
    /// maximum and the sum of the exponentials of each column to `to`.
    #[inline(always)]
    pub unsafe fn softmax<V: Simd, const N: usize>(&self, count: usize, to: Partial) {
        let width = N * V::LANES;
        // SAFETY: there are count × columns scores.
        unsafe {
            for vector in 0..N {
                let scores = self.memory.scores.add(vector * V::LANES);
                // Four independent chains hide the latency of the instructions.
                let mut parts = [V::splat(f32::NEG_INFINITY); 4];
                for first in (0..count).step_by(4) {
                    for (part, now) in parts.iter_mut().enumerate().take(count - first) {
                        *now = V::max(V::load(scores.add((first + part) * width)), *now);
                    }
                }
                let largest = V::max(V::max(parts[0], parts[1]), V::max(parts[2], parts[3]));
                V::store(to.largest.add(vector * V::LANES), largest);
                let shift = finite::<V>(largest);
                let mut parts = [V::zero(); 4];
                for first in (0..count).step_by(4) {
                    for (part, sum) in parts.iter_mut().enumerate().take(count - first) {
                        let at = scores.add((first + part) * width);
                        let power = vmath::exp_or_zero::<V>(V::sub(V::load(at), shift));
                        V::store(at, power);
                        *sum = V::add(*sum, power);
                    }
                }
                let total = V::add(V::add(parts[0], parts[1]), V::add(parts[2], parts[3]));
                V::store(to.total.add(vector * V::LANES), total);
            }
        }
    }

    /// Writes the sum of `count` values, beginning with that of the key `start`, weighted by the exponentials.
    #[inline(always)]
    pub unsafe fn values<V: Simd, const N: usize>(&self, start: usize, count: usize, to: Partial) {
        let spec = &self.head.spec;
        let place = self.head.place.0 * spec.v.batch + self.head.place.1 * spec.v.head + start * spec.v.token;
        // SAFETY: the values are in bounds; whole vectors are only loaded within a value vector.
        unsafe {
            let values = self.head.tensors.v.as_ptr().add(place);
            if V::LANES == 16 && self.is_few() {
                return self.few_values::<V, N>(values, count, to);
            }
            let wide = V::LANES == 16 && self.count > FEW;
            for first in (0..self.count).step_by(if wide { 8 } else { 4 }) {
                if wide {
                    self.column_values::<V, N, 8>(values, first, count, to);
                } else {
                    self.column_values::<V, N, 4>(values, first, count, to);
                }
            }
        }
    }

    /// Writes the weighted sum as [`Self::values`] does, for at most [`FEW`] columns, with as many vectors at once as
    /// there are registers.
    #[inline(always)]
    unsafe fn few_values<V: Simd, const N: usize>(&self, values: *const f32, count: usize, to: Partial) {
        let size = self.head.spec.value_size;
        let whole = size / (4 * V::LANES) * (4 * V::LANES);
        // SAFETY: guaranteed by the caller.
        unsafe {
            for at in (0..whole).step_by(4 * V::LANES) {
                self.some_values::<V, N, FEW, 4>(values, (0, at), count, V::LANES, to);
            }
            for at in (whole..size).step_by(V::LANES) {
                self.some_values::<V, N, FEW, 1>(values, (0, at), count, V::LANES.min(size - at), to);
            }
        }
    }

    /// Writes the weighted sum as [`Self::values`] does, for the `R` columns that begin with `first`.
    #[inline(always)]
    unsafe fn column_values<V: Simd, const N: usize, const R: usize>(
        &self,
        values: *const f32,
        first: usize,
        count: usize,
        to: Partial,
    ) {
        let size = self.head.spec.value_size;
        let mut at = 0;
        // SAFETY: guaranteed by the caller; whole vectors are only loaded within a value vector.
        unsafe {
            while at + 2 * V::LANES <= size {
                self.some_values::<V, N, R, 2>(values, (first, at), count, V::LANES, to);
                at += 2 * V::LANES;
            }
            while at < size {
                self.some_values::<V, N, R, 1>(values, (first, at), count, V::LANES.min(size - at), to);
                at += V::LANES;
            }
        }
    }

    /// Writes the weighted sum as [`Self::values`] does, for the `R` columns that begin with `first` and the `W`
    /// vectors that begin with `at`, the last of which has `lanes` lanes.
    #[inline(always)]
    unsafe fn some_values<V: Simd, const N: usize, const R: usize, const W: usize>(
        &self,
        values: *const f32,
        (first, at): (usize, usize),
        count: usize,
        lanes: usize,
        to: Partial,
    ) {
        let (spec, width) = (&self.head.spec, N * V::LANES);
        let out_width = spec.value_size.next_multiple_of(32);
        let mut sums = [[V::zero(); W]; R];
        // SAFETY: guaranteed by the caller; a partial result has room for all columns of its vectors.
        unsafe {
            let mut powers = self.memory.scores.cast_const().add(first);
            let mut values = values.add(at);
            for _ in 0..count {
                let loaded: [V::F; W] = std::array::from_fn(|vector| {
                    let from = values.wrapping_add(vector * V::LANES);
                    if W == 4 {
                        V::prefetch(from.wrapping_add(AHEAD * spec.v.token).cast());
                    }
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
                    V::store(to.out.add((first + row) * out_width + at + vector * V::LANES), *sum);
                }
            }
        }
    }

    /// Replaces the result of the block by `part`.
    pub unsafe fn copy(&self, part: Partial) {
        let sum = self.memory.sum;
        // SAFETY: both have room for the columns of this block.
        unsafe {
            sum.largest.copy_from_nonoverlapping(part.largest, self.count);
            sum.total.copy_from_nonoverlapping(part.total, self.count);
            let count = self.count * self.head.spec.value_size.next_multiple_of(32);
            sum.out.copy_from_nonoverlapping(part.out, count);
        }
    }

    /// Adds the partial result of later keys to the result of the block.
    #[inline(always)]
    pub unsafe fn merge<V: Simd, const N: usize>(&self, part: Partial) {
        let Memory { sum, factors, .. } = *self.memory;
        let (width, size) = (N * V::LANES, self.head.spec.value_size);
        let out_width = size.next_multiple_of(32);
        // SAFETY: both results have room for all columns of the vectors.
        unsafe {
            for at in (0..width).step_by(V::LANES) {
                let (before, other) = (V::load(sum.largest.add(at)), V::load(part.largest.add(at)));
                let largest = V::max(before, other);
                let shift = finite::<V>(largest);
                let factor = vmath::exp_or_zero::<V>(V::sub(before, shift));
                let added = vmath::exp_or_zero::<V>(V::sub(other, shift));
                let total = V::mul(V::load(sum.total.add(at)), factor);
                V::store(sum.total.add(at), V::fma(V::load(part.total.add(at)), added, total));
                V::store(sum.largest.add(at), largest);
                V::store(factors.add(at), factor);
                V::store(factors.add(width + at), added);
            }
            for column in 0..self.count {
                let (factor, added) = (V::splat(*factors.add(column)), V::splat(*factors.add(width + column)));
                for at in (0..size).step_by(V::LANES) {
                    let place = column * out_width + at;
                    let value = V::mul(V::load(sum.out.add(place)), factor);
                    V::store(sum.out.add(place), V::fma(V::load(part.out.add(place)), added, value));
                }
            }
        }
    }

    /// Writes the output of the block: the weighted values, divided by the sum of the exponentials (including those of
    /// attention sinks); 0 for a query that attends to no key.
    #[inline(always)]
    pub unsafe fn write<V: Simd>(&self) {
        let (spec, sum) = (&self.head.spec, self.memory.sum);
        let out_width = spec.value_size.next_multiple_of(32);
        let sinks = self.head.tensors.decoding.and_then(|decoding| decoding.sinks);
        for column in 0..self.count {
            let (head, query) = self.head.column(self.first + column);
            let place = self.head.place.0 * spec.out.batch + head * spec.out.head + query * spec.out.token;
            // SAFETY: only this task writes these vectors of the output.
            unsafe {
                let (from, to) = (sum.out.add(column * out_width), self.head.out.at(place));
                let none = reference::seen(spec, query).is_empty();
                let inverse = match sinks {
                    _ if none => 0.0,
                    Some(sinks) => reference::with_sink(*sum.largest.add(column), *sum.total.add(column), sinks[head]),
                    None => 1.0 / *sum.total.add(column),
                };
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

/// Returns the number that is subtracted from scores with this maximum: 0 if all keys are masked, because -inf minus
/// -inf would be NaN.
#[inline(always)]
fn finite<V: Simd>(largest: V::F) -> V::F {
    V::if_less(V::splat(f32::NEG_INFINITY), largest, largest, V::zero())
}
