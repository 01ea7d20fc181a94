//! Scaled dot-product attention.

mod flash;
mod masks;

use super::{Class, Parallel, reference};

/// Distances in a tensor of batch × heads × tokens × size, in values; the values of one vector are adjacent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strides {
    /// From one sequence to the next.
    pub batch: usize,
    /// From one head to the next.
    pub head: usize,
    /// From one token to the next.
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

/// The sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Sequences.
    pub batch: usize,
    /// Query tokens of a sequence.
    pub queries: usize,
    /// Key tokens of a sequence.
    pub keys: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Values in a query and a key.
    pub head_size: usize,
    /// Values in a value vector.
    pub value_size: usize,
    /// Multiplies the product of query and key.
    pub scale: f32,
    /// If true query `i` sees only the keys up to `past + i`.
    pub causal: bool,
    /// Tokens before the first query.
    pub past: usize,
    /// With `causal`: how many keys, its own included, a query sees at most.
    pub window: Option<usize>,
    /// Strides of the queries.
    pub q: Strides,
    /// Strides of the keys.
    pub k: Strides,
    /// Strides of the values.
    pub v: Strides,
    /// Strides of the output.
    pub out: Strides,
}

/// What is hidden from a query. Where every key of a query is masked by a finite number, all keys count the same
/// (softmax of equal values); where all are -inf the result is NaN, as ONNX Runtime has it.
#[derive(Clone, Copy, Debug)]
pub enum Mask<'a> {
    /// Nothing.
    None,
    /// Numbers that are added to the scaled products; strides of batch, head, query and key in values, 0 repeats.
    Additive {
        /// The numbers.
        values: &'a [f32],
        /// Strides of batch, head, query, key.
        strides: [usize; 4],
    },
    /// Sequence `b` has `lengths[b]` keys; those behind are hidden, with length 0 all count the same.
    KeyLengths(&'a [i32]),
    /// Keys whose byte is 0 are hidden. A query that sees no key takes all the same.
    Keep {
        /// The bytes.
        values: &'a [u8],
        /// Strides of batch, head, query, key.
        strides: [usize; 4],
    },
}

/// Writes softmax(q·kᵀ·scale + mask)·v to `out`, computed in float32.
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
    flash::attention(class, spec, &flash::Tensors { q, k, v, mask }, out, parallel);
}

impl Attention {
    /// Returns whether every slice holds what the sizes and strides reach.
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

/// Returns how many values strides and sizes reach, or nothing if that is beyond counting.
fn reaches(axes: &[(usize, usize)]) -> Option<usize> {
    if axes.iter().any(|(_, size)| *size == 0) {
        return Some(0);
    }
    axes.iter().try_fold(1usize, |end, (stride, size)| end.checked_add(stride.checked_mul(size - 1)?))
}
