//! The steps for a block of keys and at most [`FEW`] columns (queries), as for one token of a decoder: the lanes of the
//! scores are keys, because lanes for columns would be mostly unused. The results have the same bits as those of
//! `products.rs`.

use super::Stored;
use super::flash::{Block, KEYS, LARGEST, Partial};
use super::products::FEW;
use super::stored::{Bfloat16, Element, widen};
use crate::kernels::simd::{Simd, Work};
use crate::kernels::vmath;

/// Number of vectors of keys whose scores are computed at once: enough independent sums to hide the latency of the
/// instructions.
pub const VECTORS: usize = 2;

/// The partial result of few columns.
pub struct Few<'a> {
    pub block: &'a Block<'a>,
    pub start: usize,
    pub count: usize,
    pub to: Partial,
}

impl Work for Few<'_> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        let Self { block, start, count, to } = self;
        // SAFETY: as in `Sized`.
        unsafe {
            block.scores_of_few::<V>(start, count);
            (0..block.count).for_each(|column| block.cap::<V>(column * KEYS, count));
            block.mask::<V>(start, count);
            block.softmax_of_few::<V>(count, to);
            block.values_of_few::<V>(start, count, to);
        }
    }
}

impl Block<'_> {
    /// Computes the scores as [`Self::scores`] does, for few columns.
    #[inline(always)]
    unsafe fn scores_of_few<V: Simd>(&self, start: usize, count: usize) {
        let place = self.first_key(start);
        // SAFETY: the keys are in bounds.
        unsafe {
            match self.head.tensors.k {
                Stored::Float32(keys) => self.few_columns::<V, f32>(keys.as_ptr().add(place), count),
                Stored::Bfloat16(keys) => self.few_columns::<V, Bfloat16>(keys.as_ptr().add(place).cast(), count),
            }
        }
    }

    #[inline(always)]
    unsafe fn few_columns<V: Simd, E: Element>(&self, keys: *const E, count: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self.count {
                1 => self.columns_of_few::<V, E, 1>(keys, count),
                2 => self.columns_of_few::<V, E, 2>(keys, count),
                3 => self.columns_of_few::<V, E, 3>(keys, count),
                _ => self.columns_of_few::<V, E, FEW>(keys, count),
            }
        }
    }

    #[inline(always)]
    unsafe fn columns_of_few<V: Simd, E: Element, const C: usize>(&self, keys: *const E, count: usize) {
        let (size, token) = (self.head.spec.head_size, self.head.spec.k.token);
        let mut key = 0;
        // SAFETY: guaranteed by the caller; there is room for a vector of converted keys.
        unsafe {
            while key + VECTORS * V::LANES <= count {
                self.few_scores::<V, E, C>(keys.add(key * token), token, key);
                key += VECTORS * V::LANES;
            }
            if key < count {
                let (rest, last) = (count - key, self.memory.widened);
                last.add(rest * size).write_bytes(0, (VECTORS * V::LANES - rest) * size);
                widen::<V, E>(keys.add(key * token), token, (rest, size), last);
                self.few_scores::<V, f32, C>(last, size, key);
            }
        }
    }

    /// Returns the element `index` of the query of a column, in all lanes.
    #[inline(always)]
    unsafe fn query<V: Simd>(&self, index: usize, column: usize) -> V::F {
        // SAFETY: guaranteed by the caller.
        V::splat(unsafe { *self.memory.queries.add(index * self.width() + column) })
    }

    /// Computes the scores of [`VECTORS`] vectors of keys and the `C` columns, with keys as lanes: the lanes of columns
    /// would be mostly unused. Products are added in the same order as in [`Self::some_scores`].
    #[inline(always)]
    unsafe fn few_scores<V: Simd, E: Element, const C: usize>(&self, keys: *const E, token: usize, key: usize) {
        let size = self.head.spec.head_size;
        let mut sums = [[V::zero(); C]; VECTORS];
        let mut tiles = [[0f32; LARGEST * LARGEST]; VECTORS];
        let whole = if token.is_multiple_of(E::PACKED) { size / (E::PACKED * V::LANES) } else { 0 };
        // SAFETY: the keys and the queries are in bounds; a tile has room for LANES x LANES values.
        unsafe {
            for row in (0..whole).map(|tile| tile * E::PACKED * V::LANES) {
                for (vector, tile) in tiles.iter_mut().enumerate() {
                    let keys = keys.add(vector * V::LANES * token + row);
                    for index in 0..V::LANES {
                        // The same part of the next keys is prefetched.
                        V::prefetch(keys.wrapping_add((VECTORS * V::LANES + index) * token).cast());
                    }
                    E::transpose::<V>(keys, token, tile.as_mut_ptr());
                }
                for index in 0..V::LANES {
                    for part in 0..E::PACKED {
                        let mut queries = [V::zero(); C];
                        for (column, query) in queries.iter_mut().enumerate() {
                            *query = self.query::<V>(row + index * E::PACKED + part, column);
                        }
                        for (tile, sums) in tiles.iter().zip(&mut sums) {
                            let values = E::part::<V>(tile.as_ptr().add(index * V::LANES), part);
                            for (query, sum) in queries.iter().zip(sums) {
                                *sum = V::fma(values, *query, *sum);
                            }
                        }
                    }
                }
            }
            for (vector, (tile, sums)) in tiles.iter_mut().zip(&mut sums).enumerate() {
                for index in whole * E::PACKED * V::LANES..size {
                    for (lane, value) in tile.iter_mut().enumerate().take(V::LANES) {
                        *value = (*keys.add((vector * V::LANES + lane) * token + index)).widen();
                    }
                    let values = V::load(tile.as_ptr());
                    for (column, sum) in sums.iter_mut().enumerate() {
                        *sum = V::fma(values, self.query::<V>(index, column), *sum);
                    }
                }
                for (column, sum) in sums.iter().enumerate() {
                    V::store(self.score(key + vector * V::LANES, column), *sum);
                }
            }
        }
    }

    /// Computes the exponentials as [`Self::softmax`] does, with the same bits, for few columns.
    #[inline(always)]
    unsafe fn softmax_of_few<V: Simd>(&self, count: usize, to: Partial) {
        let padded = count.next_multiple_of(V::LANES);
        // SAFETY: there are `padded` scores of each column, and a partial result has room for all columns.
        unsafe {
            // `merge` also reads the results of unused columns, so these must be initialized.
            to.largest.write_bytes(0, self.width());
            to.total.write_bytes(0, self.width());
            for column in 0..self.count {
                let scores = self.score(0, column);
                (count..padded).for_each(|key| *scores.add(key) = f32::NEG_INFINITY);
                let mut lanes = V::splat(f32::NEG_INFINITY);
                for key in (0..padded).step_by(V::LANES) {
                    lanes = V::max(V::load(scores.add(key)), lanes);
                }
                let mut parts = [f32::NEG_INFINITY; LARGEST];
                V::store(parts.as_mut_ptr(), lanes);
                let largest = parts.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let shift = V::splat(if largest == f32::NEG_INFINITY { 0.0 } else { largest });
                for key in (0..padded).step_by(V::LANES) {
                    let power = vmath::exp_or_zero::<V>(V::sub(V::load(scores.add(key)), shift));
                    V::store(scores.add(key), power);
                }
                let mut sums = [0f32; 4];
                for key in (0..padded).step_by(4) {
                    sums.iter_mut().enumerate().for_each(|(part, sum)| *sum += *scores.add(key + part));
                }
                *to.largest.add(column) = largest;
                *to.total.add(column) = (sums[0] + sums[1]) + (sums[2] + sums[3]);
            }
        }
    }

    /// Writes the weighted sum as [`Self::values`] does, for few columns.
    #[inline(always)]
    unsafe fn values_of_few<V: Simd>(&self, start: usize, count: usize, to: Partial) {
        let place = self.first_value(start);
        // SAFETY: the values are in bounds.
        unsafe {
            match self.head.tensors.v {
                Stored::Float32(values) => self.few_values::<V, f32>(values.as_ptr().add(place), count, to),
                Stored::Bfloat16(values) => {
                    self.few_values::<V, Bfloat16>(values.as_ptr().add(place).cast(), count, to);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn few_values<V: Simd, E: Element>(&self, values: *const E, count: usize, to: Partial) {
        let values = (values, self.head.spec.v.token);
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self.count {
                1 => self.columns_of_values::<V, E, 1>(values, count, to),
                2 => self.columns_of_values::<V, E, 2>(values, count, to),
                3 => self.columns_of_values::<V, E, 3>(values, count, to),
                _ => self.columns_of_values::<V, E, FEW>(values, count, to),
            }
        }
    }

    /// Writes the weighted sum as [`Self::values`] does, for `C` columns, with as many vectors at once as there are
    /// registers.
    #[inline(always)]
    unsafe fn columns_of_values<V: Simd, E: Element, const C: usize>(
        &self,
        values: (*const E, usize),
        count: usize,
        to: Partial,
    ) {
        let size = self.head.spec.value_size;
        let step = if V::LANES == 16 { 4 } else { 2 };
        let whole = size / (step * V::LANES) * (step * V::LANES);
        // SAFETY: guaranteed by the caller; a whole SIMD vector is loaded only where it lies within the values of one
        // token.
        unsafe {
            for at in (0..whole).step_by(step * V::LANES) {
                if V::LANES == 16 {
                    self.some_values::<V, E, C, 4>(values, (0, at), count, V::LANES, to);
                } else {
                    self.some_values::<V, E, C, 2>(values, (0, at), count, V::LANES, to);
                }
            }
            for at in (whole..size).step_by(V::LANES) {
                self.some_values::<V, E, C, 1>(values, (0, at), count, V::LANES.min(size - at), to);
            }
        }
    }
}
