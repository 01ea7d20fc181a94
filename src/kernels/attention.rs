//! Scaled dot-product attention.

mod few;
mod flash;
mod grouped;
mod masks;
mod products;
mod stored;

use super::{Class, Parallel, reference};
pub(super) use flash::{Decoding, Tensors};
pub use grouped::{Cache, GroupedAttention, Rotary, grouped_attention};
pub use stored::{Stored, StoredMut};

/// Strides of a tensor of batch × heads × tokens × size, in elements. The elements of one vector are adjacent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strides {
    /// Distance between two sequences of the batch.
    pub batch: usize,
    /// Distance between two heads.
    pub head: usize,
    /// Distance between two tokens.
    pub token: usize,
}

impl Strides {
    /// Returns the strides of a dense batch × tokens × heads × size tensor.
    pub fn tokens_first(tokens: usize, heads: usize, size: usize) -> Self {
        Self { batch: tokens * heads * size, head: size, token: heads * size }
    }

    /// Returns the strides of a dense batch × heads × tokens × size tensor.
    pub fn heads_first(tokens: usize, heads: usize, size: usize) -> Self {
        Self { batch: tokens * heads * size, head: tokens * size, token: size }
    }
}

/// The sizes and options of a scaled dot-product attention.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Number of sequences.
    pub batch: usize,
    /// Number of query tokens per sequence.
    pub queries: usize,
    /// Number of key tokens per sequence.
    pub keys: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads, a divisor of `heads`.
    pub kv_heads: usize,
    /// Number of elements of a query or key.
    pub head_size: usize,
    /// Number of elements of a value.
    pub value_size: usize,
    /// Factor by which the product of query and key is multiplied.
    pub scale: f32,
    /// Whether query `i` attends only to keys up to `past + i`.
    pub causal: bool,
    /// With `causal`: number of keys before that of the first query, such as the tokens in a cache.
    pub past: usize,
    /// With `causal`: maximum number of keys that a query attends to, including its own; `None` for no limit.
    pub window: Option<usize>,
    /// Strides of the tensor of queries.
    pub q: Strides,
    /// Strides of the tensor of keys.
    pub k: Strides,
    /// Strides of the tensor of values.
    pub v: Strides,
    /// Strides of the output tensor.
    pub out: Strides,
}

/// A mask of the keys. If all keys of a query are masked by -inf, the result is NaN, as in ONNX Runtime. If all are
/// masked by a number so low that scores do not change it (such as the lowest float32), all have equal weight.
#[derive(Clone, Copy, Debug)]
pub enum Mask<'a> {
    /// No mask.
    None,
    /// A mask that is added to the scaled scores.
    Additive {
        /// Elements of the additive mask.
        values: &'a [f32],
        /// Strides of batch, head, query and key in elements; 0 broadcasts.
        strides: [usize; 4],
    },
    /// Sequence `b` has `lengths[b]` keys; later keys are masked. With a length of 0 or less, all keys have equal
    /// weight.
    KeyLengths(&'a [i32]),
    /// Keys whose byte is 0 are masked. If all keys of a query are masked, they have equal weight.
    Keep {
        /// Elements of the boolean mask: a byte per key, 0 where it is masked.
        values: &'a [u8],
        /// Strides of batch, head, query and key in elements; 0 broadcasts.
        strides: [usize; 4],
    },
}

/// Computes softmax(q·kᵀ·scale + mask)·v in float32, and writes it to `out`. The result is 0 for a query for which
/// `causal` and `window` leave no key. If a slice is too short, a debug build panics, and a release build writes
/// nothing.
#[allow(clippy::too_many_arguments)] // three inputs and an output
pub fn attention(
    class: Class,
    spec: &Attention,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    mask: &Mask<'_>,
    out: &mut [f32],
    parallel: &dyn Parallel,
) {
    let fits = spec.fits(q, k, v, mask, out);
    debug_assert!(fits, "slices shorter than the sizes and strides ask for");
    if !fits || spec.batch == 0 || spec.queries == 0 || spec.value_size == 0 || spec.heads == 0 {
        return;
    }
    let class = class.usable();
    if class == Class::Scalar {
        return reference::attention(spec, q, k, v, mask, out);
    }
    let tensors = Tensors { q, k: Stored::Float32(k), v: Stored::Float32(v), mask, decoding: None };
    flash::attention(class, spec, &tensors, out, parallel);
}

impl Attention {
    /// Returns whether all slices are long enough for the sizes and strides of the attention.
    fn fits(&self, q: &[f32], k: &[f32], v: &[f32], mask: &Mask<'_>, out: &[f32]) -> bool {
        let vectors = |strides: &Strides, heads: usize, tokens: usize, size: usize, len: usize| {
            let places = [(strides.batch, self.batch), (strides.head, heads), (strides.token, tokens), (1, size)];
            reaches(&places).is_some_and(|end| end <= len)
        };
        let mask = match mask {
            Mask::None => true,
            Mask::KeyLengths(lengths) => lengths.len() >= self.batch,
            Mask::Additive { values, strides } => self.mask_reaches(strides).is_some_and(|end| end <= values.len()),
            Mask::Keep { values, strides } => self.mask_reaches(strides).is_some_and(|end| end <= values.len()),
        };
        mask && self.kv_heads > 0
            && self.heads.is_multiple_of(self.kv_heads)
            && vectors(&self.q, self.heads, self.queries, self.head_size, q.len())
            && vectors(&self.k, self.kv_heads, self.keys, self.head_size, k.len())
            && vectors(&self.v, self.kv_heads, self.keys, self.value_size, v.len())
            && vectors(&self.out, self.heads, self.queries, self.value_size, out.len())
    }

    fn mask_reaches(&self, strides: &[usize; 4]) -> Option<usize> {
        let sizes = [self.batch, self.heads, self.queries, self.keys];
        reaches(&[0, 1, 2, 3].map(|axis| (strides[axis], sizes[axis])))
    }
}

/// Returns the required length of a slice for sizes and strides; `None` if it overflows.
fn reaches(axes: &[(usize, usize)]) -> Option<usize> {
    if axes.iter().any(|(_, size)| *size == 0) {
        return Some(0);
    }
    axes.iter().try_fold(1usize, |end, (stride, size)| end.checked_add(stride.checked_mul(size - 1)?))
}
