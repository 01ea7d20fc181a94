//! Attention of decoders: new tokens are rotated and appended to a cache, and attend to all tokens in it.

use super::flash::{self, Decoding, Tensors};
use super::stored::{Stored, StoredMut, Target};
use super::{Attention, Mask, Strides};
use crate::kernels::parallel::{Parallel, Shared, split};
use crate::kernels::scratch::Scratch;
use crate::kernels::simd::{self, Simd, Work};
use crate::kernels::{Class, Rows, reference};

/// Rotary position embedding of queries and keys.
#[derive(Clone, Copy, Debug)]
pub struct Rotary<'a> {
    /// Cosines of the rotation angles: a row of `half` values for each position.
    pub cos: &'a [f32],
    /// Sines of the rotation angles: a row of `half` values for each position.
    pub sin: &'a [f32],
    /// Number of pairs of elements that are rotated; elements after them are not.
    pub half: usize,
    /// Whether the elements of a pair are adjacent. Otherwise they are `half` elements apart.
    pub interleaved: bool,
    /// Position of each new token: batch × tokens.
    pub positions: &'a [usize],
}

/// The sizes and options of an attention with a cache. Queries attend to keys up to their own.
#[derive(Clone, Copy, Debug)]
pub struct GroupedAttention<'a> {
    /// Number of sequences.
    pub batch: usize,
    /// Number of new tokens per sequence.
    pub tokens: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads, a divisor of `heads`.
    pub kv_heads: usize,
    /// Number of elements of a query, key or value.
    pub head_size: usize,
    /// Factor by which the product of query and key is multiplied.
    pub scale: f32,
    /// Maximum number of keys that a query attends to, including its own; `None` for no limit.
    pub window: Option<usize>,
    /// Soft cap of the scores, which become cap · tanh(score / cap); `None` for no cap.
    pub cap: Option<f32>,
    /// Scores, one per query head, that take part in the softmax but have no value (attention sinks); `None` for none.
    pub sinks: Option<&'a [f32]>,
    /// Rotary position embedding of the new queries and keys; `None` if they are not rotated here.
    pub rotary: Option<Rotary<'a>>,
    /// Number of tokens before the new ones, by sequence. New keys are appended there, so the cache must have room for
    /// `past` + `tokens`.
    pub past: &'a [usize],
    /// Number of keys, by sequence: at most `past` + `tokens`, fewer if a sequence ends with padding.
    pub lengths: &'a [usize],
}

/// A cache of keys and values: batch × key heads × columns × head size of each.
#[derive(Debug)]
pub struct Cache<'a> {
    /// Keys in the cache.
    pub keys: StoredMut<'a>,
    /// Values in the cache.
    pub values: StoredMut<'a>,
    /// Number of tokens of each sequence that the cache can hold.
    pub columns: usize,
}

impl Cache<'_> {
    /// Copies the first `lengths[b]` tokens of each sequence `b` from `from`, or fewer if one of the caches cannot hold
    /// that many, and fills the rest of this cache with 0. `from` are the keys and values of another cache, and the
    /// number of tokens of a sequence that it can hold; `heads` and `size` are the key heads and the head size of both.
    /// Panics if a slice is too short, or if the caches have elements of different types.
    pub fn copy(
        &mut self,
        from: (Stored<'_>, Stored<'_>, usize),
        heads: usize,
        size: usize,
        lengths: &[usize],
        parallel: &dyn Parallel,
    ) {
        let (keys, values, columns) = from;
        let to = self.columns;
        let sizes = CopySizes { from: columns * size, to: to * size, size, heads, lengths };
        for (from, to) in [(keys, &mut self.keys), (values, &mut self.values)] {
            match (from, to) {
                (Stored::Float32(from), StoredMut::Float32(to)) => sizes.copy(from, to, parallel),
                (Stored::Bfloat16(from), StoredMut::Bfloat16(to)) => sizes.copy(from, to, parallel),
                _ => panic!("the caches have elements of different types"),
            }
        }
    }
}

/// The sizes of two caches, one of which is copied to the other: numbers of elements of a head in each, the head size,
/// the number of key heads, and the number of tokens of each sequence.
struct CopySizes<'a> {
    from: usize,
    to: usize,
    size: usize,
    heads: usize,
    lengths: &'a [usize],
}

impl CopySizes<'_> {
    fn copy<T: Copy + Default + Send + Sync>(&self, from: &[T], to: &mut [T], parallel: &dyn Parallel) {
        split(parallel, to, self.to, |head, to| {
            let count = (self.lengths[head / self.heads] * self.size).min(self.from).min(self.to);
            to[..count].copy_from_slice(&from[head * self.from..][..count]);
            to[count..].fill(T::default());
        });
    }
}

/// Appends the new keys and values to the cache, and writes the attention of the queries to `out` (batch × tokens ×
/// heads × size). `q`, and the keys and values in `kv`, have a row for each new token; without `kv`, the cache already
/// contains the new tokens. If a slice or the cache is too short, a debug build panics, and a release build writes
/// nothing.
#[allow(clippy::too_many_arguments)] // three inputs, a cache and an output
pub fn grouped_attention(
    class: Class,
    spec: &GroupedAttention<'_>,
    q: &Rows<'_>,
    kv: Option<[&Rows<'_>; 2]>,
    cache: &mut Cache<'_>,
    out: &mut [f32],
    parallel: &dyn Parallel,
) {
    let fits = spec.fits(q, kv, cache, out);
    debug_assert!(fits, "slices shorter than the sizes ask for");
    if !fits || spec.batch * spec.tokens * spec.head_size == 0 {
        return;
    }
    let class = class.usable();
    let (rows, width) = (spec.batch * spec.tokens, spec.heads * spec.head_size);
    let mut memory = Scratch::take(if spec.rotary.is_some() { rows * width * 4 } else { 0 });
    let rotated = spec.rotary.map(|_| Shared(memory.start().cast::<f32>()));
    let append = Append {
        spec,
        q,
        kv,
        rotated,
        keys: cache.keys.shared(),
        values: cache.values.shared(),
        columns: cache.columns,
        rows: 0..0,
    };
    let tasks = if rows * width < 1 << 13 { 1 } else { rows.min(parallel.threads().max(1) * 4) };
    parallel.run(tasks, &|task| {
        let append = Append { rows: rows * task / tasks..rows * (task + 1) / tasks, ..append.clone() };
        if class == Class::Scalar { append.scalar() } else { simd::run_float(class, append) }
    });
    let dense;
    let queries = match &rotated {
        Some(rotated) => {
            // SAFETY: all of these values were just written.
            dense = Rows::dense(unsafe { std::slice::from_raw_parts(rotated.at(0), rows * width) }, rows, width);
            &dense
        }
        None => q,
    };
    attend(class, spec, queries, cache, out, parallel);
}

/// Writes the attention of the rotated queries `q` to the cache to `out`.
fn attend(
    class: Class,
    spec: &GroupedAttention<'_>,
    q: &Rows<'_>,
    cache: &Cache<'_>,
    out: &mut [f32],
    parallel: &dyn Parallel,
) {
    let size = spec.head_size;
    let stored = Strides::heads_first(cache.columns, spec.kv_heads, size);
    let stored = Strides { batch: spec.kv_heads * cache.columns * size, ..stored };
    let attention = Attention {
        batch: spec.batch,
        queries: spec.tokens,
        keys: spec.lengths.iter().copied().max().unwrap_or(0),
        heads: spec.heads,
        kv_heads: spec.kv_heads,
        head_size: size,
        value_size: size,
        scale: spec.scale,
        causal: true,
        past: 0,
        window: spec.window,
        q: Strides { batch: spec.tokens * q.stride, head: size, token: q.stride },
        k: stored,
        v: stored,
        out: Strides::tokens_first(spec.tokens, spec.heads, size),
    };
    let decoding = Decoding { past: spec.past, lengths: spec.lengths, cap: spec.cap, sinks: spec.sinks };
    let (k, v) = (cache.keys.view(), cache.values.view());
    let tensors = Tensors { q: q.values, k, v, mask: &Mask::None, decoding: Some(decoding) };
    match class {
        Class::Scalar => reference::grouped(&attention, &tensors, out),
        class => flash::attention(class, &attention, &tensors, out, parallel),
    }
}

impl GroupedAttention<'_> {
    /// Returns whether all slices are long enough, and whether the cache has room for all tokens.
    fn fits(&self, q: &Rows<'_>, kv: Option<[&Rows<'_>; 2]>, cache: &Cache<'_>, out: &[f32]) -> bool {
        let (rows, size) = (self.batch * self.tokens, self.head_size);
        let holds = |from: &Rows<'_>, heads: usize| {
            from.rows >= rows && (rows == 0 || from.values.len() >= (rows - 1) * from.stride + heads * size)
        };
        let stored = self.batch * self.kv_heads * cache.columns * size;
        let lengths = self.past.len() == self.batch
            && self.lengths.len() == self.batch
            && self.past.iter().zip(self.lengths).all(|(past, length)| {
                let end = past + self.tokens;
                *length <= end && *length <= cache.columns && (kv.is_none() || end <= cache.columns)
            });
        let rotary = self.rotary.is_none_or(|rotary| {
            let inside = |position: &usize| (position + 1) * rotary.half <= rotary.cos.len().min(rotary.sin.len());
            rotary.positions.len() >= rows && rotary.positions.iter().all(inside) && 2 * rotary.half <= size
        });
        self.kv_heads > 0
            && self.heads.is_multiple_of(self.kv_heads)
            && holds(q, self.heads)
            && kv.is_none_or(|kv| kv.iter().all(|from| holds(from, self.kv_heads)))
            && cache.keys.view().count() >= stored
            && cache.values.view().count() >= stored
            && out.len() >= rows * self.heads * size
            && self.sinks.is_none_or(|sinks| sinks.len() >= self.heads)
            && lengths
            && rotary
    }
}

/// Work on the new tokens of some rows: keys and values are appended to the cache, after queries and keys are rotated.
#[derive(Clone)]
struct Append<'a> {
    spec: &'a GroupedAttention<'a>,
    q: &'a Rows<'a>,
    kv: Option<[&'a Rows<'a>; 2]>,
    /// Destination of the rotated queries.
    rotated: Option<Shared<f32>>,
    keys: Target,
    values: Target,
    columns: usize,
    rows: std::ops::Range<usize>,
}

impl Append<'_> {
    /// Calls `rotate` for the query heads and for the key heads of each row. Its arguments are the row, the first of
    /// the heads and their number, the destination, and the distance between two heads there.
    #[inline(always)]
    fn each(&self, rotate: impl Fn(usize, (*const f32, usize), *mut f32, usize)) {
        let (spec, size) = (self.spec, self.spec.head_size);
        // Keys are rotated in float32 before they are rounded to 16 bits.
        let narrow = !matches!(self.keys, Target::Float32(_));
        let mut memory = Scratch::take(if narrow { spec.kv_heads * size * 4 } else { 0 });
        let rounded = memory.start().cast::<f32>();
        for row in self.rows.clone() {
            if let Some(rotated) = &self.rotated {
                let from = self.q.values[row * self.q.stride..].as_ptr();
                rotate(row, (from, spec.heads), rotated.at(row * spec.heads * size), size);
            }
            let Some([k, v]) = self.kv else { continue };
            let (batch, token) = (row / spec.tokens, row % spec.tokens);
            let place = (batch * spec.kv_heads * self.columns + spec.past[batch] + token) * size;
            let from = (k.values[row * k.stride..].as_ptr(), spec.kv_heads);
            let (to, stride) = match self.keys {
                Target::Float32(keys) => (keys.at(place), self.columns * size),
                Target::Bfloat16(_) => (rounded, size),
            };
            rotate(row, from, to, stride);
            for head in 0..spec.kv_heads {
                let to = place + head * self.columns * size;
                // SAFETY: `fits` checked that the place is in the cache; each row has places of its own. `rounded` has
                // room for the keys of a token.
                unsafe {
                    if narrow {
                        self.keys.write(to, std::slice::from_raw_parts(rounded.add(head * size), size));
                    }
                    self.values.write(to, &v.values[row * v.stride + head * size..][..size]);
                }
            }
        }
    }

    /// Returns the cosines and the sines for the position of a row; `None` without a rotary position embedding.
    #[inline(always)]
    fn angles(&self, row: usize) -> Option<(&[f32], &[f32])> {
        let rotary = self.spec.rotary.as_ref()?;
        let start = rotary.positions[row] * rotary.half;
        Some((&rotary.cos[start..start + rotary.half], &rotary.sin[start..start + rotary.half]))
    }

    fn scalar(&self) {
        let (size, rotary) = (self.spec.head_size, self.spec.rotary);
        let pairs = rotary.map_or((0, false), |rotary| (rotary.half, rotary.interleaved));
        self.each(|row, (from, heads), to, stride| {
            for head in 0..heads {
                // SAFETY: `fits` checked that both have a vector here, which belongs to this task.
                unsafe {
                    let (from, to) = (from.add(head * size), to.add(head * stride));
                    let from = std::slice::from_raw_parts(from, size);
                    rotate(from, self.angles(row), pairs, std::slice::from_raw_parts_mut(to, size));
                }
            }
        });
    }
}

impl Work for Append<'_> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        let (size, rotary) = (self.spec.head_size, self.spec.rotary);
        let pairs = rotary.map_or((0, false), |rotary| (rotary.half, rotary.interleaved));
        self.each(|row, (from, heads), to, stride| {
            let angles = self.angles(row);
            for head in 0..heads {
                // SAFETY: `fits` checked that both have a vector here, which belongs to this task.
                unsafe {
                    let (from, to) = (from.add(head * size), to.add(head * stride));
                    match angles {
                        Some(angles) if !pairs.1 => rotate_halves::<V>(from, angles, size, to),
                        _ => {
                            let from = std::slice::from_raw_parts(from, size);
                            rotate(from, angles, pairs, std::slice::from_raw_parts_mut(to, size));
                        }
                    }
                }
            }
        });
    }
}

/// Rotates the pairs of a vector, and writes the result to `to`.
#[inline(always)]
fn rotate(from: &[f32], angles: Option<(&[f32], &[f32])>, (half, interleaved): (usize, bool), to: &mut [f32]) {
    to.copy_from_slice(from);
    let Some((cos, sin)) = angles else { return };
    for (index, (cos, sin)) in cos.iter().zip(sin).enumerate() {
        let (first, second) = if interleaved { (2 * index, 2 * index + 1) } else { (index, index + half) };
        to[first] = from[first] * cos - from[second] * sin;
        to[second] = from[second] * cos + from[first] * sin;
    }
}

/// Rotates the pairs of a vector as [`rotate`] does, for pairs whose elements are `half` elements apart.
///
/// # Safety
/// `size` values can be read at `from` and written at `to`.
#[inline(always)]
unsafe fn rotate_halves<V: Simd>(from: *const f32, (cos, sin): (&[f32], &[f32]), size: usize, to: *mut f32) {
    let half = cos.len();
    // SAFETY: guaranteed by the caller; 2 · half ≤ size.
    unsafe {
        for index in (0..half).step_by(V::LANES) {
            let count = V::LANES.min(half - index);
            let load = |from: *const f32| {
                if count == V::LANES { V::load(from.add(index)) } else { V::load_some(from.add(index), count) }
            };
            let (first, second) = (load(from), load(from.add(half)));
            let (cos, sin) = (load(cos.as_ptr()), load(sin.as_ptr()));
            V::store_some(to.add(index), V::fnma(second, sin, V::mul(first, cos)), count);
            V::store_some(to.add(half + index), V::fma(first, sin, V::mul(second, cos)), count);
        }
        to.add(2 * half).copy_from_nonoverlapping(from.add(2 * half), size - 2 * half);
    }
}
