//! Application of a mask to the scores of a block of keys.

use super::Mask;
use super::flash::Block;
use crate::kernels::reference;
use crate::kernels::simd::Simd;

/// Maximum number of lanes of a vector.
const TILE: usize = 16;

impl Block<'_> {
    /// Applies the mask to the scores of `count` keys, beginning with the key `start`, and hides the keys that `causal`
    /// and `window` exclude.
    #[inline(always)]
    pub unsafe fn mask<V: Simd>(&self, start: usize, count: usize) {
        let (spec, mask) = (&self.head.spec, self.head.tensors.mask);
        let width = self.width();
        // SAFETY: the memory has scores for `count` keys and `width` columns, and the mask has an element for each key
        // and query, as `Attention::fits` has checked.
        unsafe {
            let same_for_all = match mask {
                _ if self.is_few() => false,
                Mask::None => false,
                Mask::KeyLengths(_) => true,
                Mask::Additive { strides, .. } | Mask::Keep { strides, .. } => strides[1] == 0 && strides[2] == 0,
            };
            if same_for_all {
                for key in 0..count {
                    let place = [self.head.place.0, 0, 0, start + key];
                    // For a score of 0, `masked` returns the number that an additive mask adds; for other masks, the
                    // lowest number if the key is hidden, and otherwise 0.
                    let value = V::splat(reference::masked(mask, 0.0, place));
                    let hidden = !matches!(mask, Mask::Additive { .. });
                    for column in (0..width).step_by(V::LANES) {
                        let at = self.score(key, column);
                        let score = V::load(at);
                        V::store(
                            at,
                            if hidden { V::if_less(value, V::zero(), value, score) } else { V::add(score, value) },
                        );
                    }
                }
            } else if !matches!(mask, Mask::None) {
                let mut column = 0;
                while column < self.count {
                    let whole = self.add_tiles::<V>((start, count), column, width);
                    let next = if whole > 0 { column + V::LANES } else { column + 1 };
                    for column in column..next {
                        let (head, query) = self.head.column(self.first + column);
                        for key in whole..count {
                            let at = self.score(key, column);
                            *at = reference::masked(mask, *at, [self.head.place.0, head, query, start + key]);
                        }
                    }
                    column = next;
                }
            }
            if spec.causal {
                for column in 0..self.count {
                    let seen = reference::seen(spec, self.head.column(self.first + column).1);
                    let hide = |keys: std::ops::Range<usize>| {
                        for key in keys.start.max(start)..keys.end.min(start + count) {
                            *self.score(key - start, column) = f32::NEG_INFINITY;
                        }
                    };
                    hide(0..seen.start);
                    hide(seen.end..usize::MAX);
                }
            }
        }
    }

    /// Adds the mask to the scores of a vector of queries, which begins at `column`, in square tiles. Returns the
    /// number of keys for which this was done: 0 if the queries belong to several heads or the keys of the mask are not
    /// adjacent.
    #[inline(always)]
    unsafe fn add_tiles<V: Simd>(&self, (start, count): (usize, usize), column: usize, width: usize) -> usize {
        let Mask::Additive { values, strides: [batch, head, query, 1] } = self.head.tensors.mask else { return 0 };
        let (first, last) = (self.first + column, self.first + column + V::LANES - 1);
        if column + V::LANES > self.count || self.head.column(first).0 != self.head.column(last).0 {
            return 0;
        }
        let (of_head, of_query) = self.head.column(first);
        let place = self.head.place.0 * batch + of_head * head + of_query * query + start;
        let whole = count / V::LANES * V::LANES;
        let mut tile = [0.0f32; TILE * TILE];
        // SAFETY: the mask has elements for these queries and keys, as `attention` has checked; a tile has room for
        // LANES x LANES.
        unsafe {
            for key in (0..whole).step_by(V::LANES) {
                let from = values.as_ptr().add(place + key);
                V::transpose(from, *query, V::LANES, tile.as_mut_ptr(), V::LANES);
                for row in 0..V::LANES {
                    let at = self.memory.scores.add((key + row) * width + column);
                    V::store(at, V::add(V::load(at), V::load(tile.as_ptr().add(row * V::LANES))));
                }
            }
        }
        whole
    }
}
