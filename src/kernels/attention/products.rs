//! The steps for a block of keys: scores, their exponentials and the weighted values; and the merging of partial
//! results.

use super::Stored;
use super::flash::{Block, KEYS, Memory, Partial};
use super::stored::{Bfloat16, Element, widen};
use crate::kernels::simd::Simd;
use crate::kernels::{reference, vmath};

/// Maximum number of columns for which the kernels of `few.rs` are used, where the lanes of scores are keys.
pub const FEW: usize = 4;
/// Size of a cache line in bytes.
const LINE: usize = 64;

impl Block<'_> {
    /// Returns whether there are few columns, as for one token of a decoder.
    #[inline(always)]
    pub fn is_few(&self) -> bool {
        self.count <= FEW
    }

    /// Returns the number of columns for which the block has memory: one or two whole vectors.
    #[inline(always)]
    pub fn width(&self) -> usize {
        self.head.width
    }

    /// Returns the address of the score of a key and a column of the block. The scores are keys × columns, or columns ×
    /// keys for few columns.
    #[inline(always)]
    pub fn score(&self, key: usize, column: usize) -> *mut f32 {
        let place = if self.is_few() { column * KEYS + key } else { key * self.width() + column };
        self.memory.scores.wrapping_add(place)
    }

    /// Computes the scores: the products of the queries and of `count` keys, beginning with the key `start`.
    #[inline(always)]
    pub unsafe fn scores<V: Simd, const N: usize>(&self, start: usize, count: usize) {
        let (place, token, size) = (self.first_key(start), self.head.spec.k.token, self.head.spec.head_size);
        // SAFETY: the keys are in bounds.
        unsafe {
            match self.head.tensors.k {
                Stored::Float32(keys) => self.scores_of_many::<V, N>(keys.as_ptr().add(place), token, count),
                // bfloat16 keys are converted first, because each is read more than once.
                Stored::Bfloat16(keys) => {
                    let keys = keys.as_ptr().add(place).cast::<Bfloat16>();
                    widen::<V, Bfloat16>(keys, token, (count, size), self.memory.widened);
                    self.scores_of_many::<V, N>(self.memory.widened, size, count);
                }
            }
        }
    }

    /// Returns the index of the first element of the key `start` in the tensor of keys.
    pub fn first_key(&self, start: usize) -> usize {
        let spec = &self.head.spec;
        self.head.place.0 * spec.k.batch + self.head.place.1 * spec.k.head + start * spec.k.token
    }

    /// Returns the index of the first element of the value that belongs to the key `start`, in the tensor of values.
    pub fn first_value(&self, start: usize) -> usize {
        let spec = &self.head.spec;
        self.head.place.0 * spec.v.batch + self.head.place.1 * spec.v.head + start * spec.v.token
    }

    /// Computes the scores of many columns, in blocks of as many keys as there are registers for their sums. Two keys
    /// are `token` elements apart.
    #[inline(always)]
    unsafe fn scores_of_many<V: Simd, const N: usize>(&self, keys: *const f32, token: usize, count: usize) {
        let step = if V::LANES == 16 { 8 } else { 4 };
        let mut key = 0;
        // SAFETY: guaranteed by the caller.
        unsafe {
            while key + step <= count {
                if V::LANES == 16 {
                    self.some_scores::<V, N, 8>(keys.add(key * token), token, key);
                } else {
                    self.some_scores::<V, N, 4>(keys.add(key * token), token, key);
                }
                key += step;
            }
            while key < count {
                self.some_scores::<V, N, 1>(keys.add(key * token), token, key);
                key += 1;
            }
        }
    }

    #[inline(always)]
    unsafe fn some_scores<V: Simd, const N: usize, const R: usize>(&self, keys: *const f32, token: usize, key: usize) {
        let mut sums = [[V::zero(); N]; R];
        // SAFETY: R keys and the queries are in bounds.
        unsafe {
            for index in 0..self.head.spec.head_size {
                let mut queries = [V::zero(); N];
                for (vector, query) in queries.iter_mut().enumerate() {
                    *query = V::load(self.memory.queries.add((index * N + vector) * V::LANES));
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let value = V::splat(*keys.add(row * token + index));
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
    pub unsafe fn values<V: Simd>(&self, start: usize, count: usize, to: Partial) {
        let (place, token, size) = (self.first_value(start), self.head.spec.v.token, self.head.spec.value_size);
        // SAFETY: the values are in bounds.
        unsafe {
            match self.head.tensors.v {
                Stored::Float32(values) => self.many_values::<V>((values.as_ptr().add(place), token), count, to),
                Stored::Bfloat16(values) => {
                    let values = values.as_ptr().add(place).cast::<Bfloat16>();
                    widen::<V, Bfloat16>(values, token, (count, size), self.memory.widened);
                    self.many_values::<V>((self.memory.widened, size), count, to);
                }
            }
        }
    }

    /// Writes the weighted sum as [`Self::values`] does, for more than [`FEW`] columns. The values of two keys are
    /// `token` elements apart.
    #[inline(always)]
    unsafe fn many_values<V: Simd>(&self, (values, token): (*const f32, usize), count: usize, to: Partial) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            for first in (0..self.count).step_by(if V::LANES == 16 { 8 } else { 4 }) {
                if V::LANES == 16 {
                    self.column_values::<V, 8>((values, token), first, count, to);
                } else {
                    self.column_values::<V, 4>((values, token), first, count, to);
                }
            }
        }
    }

    /// Writes the weighted sum as [`Self::values`] does, for the `R` columns that begin with `first`.
    #[inline(always)]
    unsafe fn column_values<V: Simd, const R: usize>(
        &self,
        values: (*const f32, usize),
        first: usize,
        count: usize,
        to: Partial,
    ) {
        let size = self.head.spec.value_size;
        let mut at = 0;
        // SAFETY: guaranteed by the caller; whole vectors are only loaded within a value vector.
        unsafe {
            while at + 2 * V::LANES <= size {
                self.some_values::<V, f32, R, 2>(values, (first, at), count, V::LANES, to);
                at += 2 * V::LANES;
            }
            while at < size {
                self.some_values::<V, f32, R, 1>(values, (first, at), count, V::LANES.min(size - at), to);
                at += V::LANES;
            }
        }
    }

    /// Writes the weighted sum as [`Self::values`] does, for the `R` columns that begin with `first` and the `W`
    /// vectors that begin with `at`, the last of which has `lanes` lanes. The values of two keys are `token` elements
    /// apart.
    #[inline(always)]
    pub unsafe fn some_values<V: Simd, E: Element, const R: usize, const W: usize>(
        &self,
        (values, token): (*const E, usize),
        (first, at): (usize, usize),
        count: usize,
        lanes: usize,
        to: Partial,
    ) {
        let out_width = self.head.spec.value_size.next_multiple_of(32);
        // The distances of the exponentials of two keys, and of two columns; see `score`.
        let (next, other) = if self.is_few() { (1, KEYS) } else { (self.width(), 1) };
        let mut sums = [[V::zero(); W]; R];
        // SAFETY: guaranteed by the caller; a partial result has room for all columns of its vectors.
        unsafe {
            let mut powers = self.score(0, first).cast_const();
            let mut values = values.add(at);
            for _ in 0..count {
                let mut loaded = [V::zero(); W];
                for (vector, loaded) in loaded.iter_mut().enumerate() {
                    let from = values.wrapping_add(vector * V::LANES);
                    if W == 4 && (vector * V::LANES * size_of::<E>()).is_multiple_of(LINE) {
                        V::prefetch(from.wrapping_add(E::AHEAD * token).cast());
                    }
                    *loaded = if lanes == V::LANES { E::load::<V>(from) } else { E::load_some::<V>(from, lanes) };
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let power = V::splat(*powers.add(row * other));
                    for vector in 0..W {
                        sums[vector] = V::fma(power, loaded[vector], sums[vector]);
                    }
                }
                powers = powers.add(next);
                values = values.wrapping_add(token);
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
