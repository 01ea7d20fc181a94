//! What a mask does to the scores of a block of keys.

use super::Mask;
use super::flash::Block;
use crate::kernels::reference;
use crate::kernels::simd::Simd;

impl Block<'_> {
    /// Adds the mask to the scores of `count` keys from `start` on.
    #[inline(always)]
    pub unsafe fn mask<V: Simd, const N: usize>(&self, start: usize, count: usize) {
        let (spec, mask) = (self.head.spec, self.head.tensors.mask);
        let scores = self.memory.scores;
        let width = N * V::LANES;
        // SAFETY: count × columns scores are there, and the masks of their places, as `attention` checked.
        unsafe {
            let same_for_all = match mask {
                Mask::None => false,
                Mask::KeyLengths(_) => true,
                Mask::Additive { strides, .. } | Mask::Keep { strides, .. } => strides[1] == 0 && strides[2] == 0,
            };
            if same_for_all {
                for key in 0..count {
                    let place = [self.head.place.0, 0, 0, start + key];
                    // the mask of 0 is what is added, or the lowest number where the key is hidden
                    let value = V::splat(reference::masked(mask, 0.0, place));
                    let hidden = !matches!(mask, Mask::Additive { .. });
                    for vector in 0..N {
                        let at = scores.add(key * width + vector * V::LANES);
                        let score = V::load(at);
                        V::store(
                            at,
                            if hidden { V::if_less(value, V::zero(), value, score) } else { V::add(score, value) },
                        );
                    }
                }
            } else if !matches!(mask, Mask::None) {
                for column in 0..self.count {
                    let (head, query) = self.head.column(self.first + column);
                    for key in 0..count {
                        let at = scores.add(key * width + column);
                        *at = reference::masked(mask, *at, [self.head.place.0, head, query, start + key]);
                    }
                }
            }
            if spec.causal {
                for column in 0..self.count {
                    let seen = reference::seen(spec, self.head.column(self.first + column).1);
                    let hide = |keys: std::ops::Range<usize>| {
                        for key in keys.start.max(start)..keys.end.min(start + count) {
                            *scores.add((key - start) * width + column) = f32::NEG_INFINITY;
                        }
                    };
                    hide(0..seen.start);
                    hide(seen.end..usize::MAX);
                }
            }
        }
    }
}
