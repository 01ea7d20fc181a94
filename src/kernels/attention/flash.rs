//! Attention by blocks of keys, computed in float32.
//!
//! The columns of a block are queries: up to two vectors, from all query heads that share a key head. Scores are keys ×
//! queries, so maximum and sum over the keys need no operation across lanes. Neither keys nor values are rearranged:
//! keys are broadcast, and values are loaded as stored.
//!
//! Blocks of keys begin at multiples of [`KEYS`]. Each block gives a separate [`Partial`] result, and these are merged
//! in order. So a query has the same bits in any block of queries, and blocks of keys may be divided among threads.

use super::few::{Few, VECTORS};
use super::{Attention, Mask, Stored};
use crate::kernels::parallel::{Parallel, Shared};
use crate::kernels::scratch::Scratch;
use crate::kernels::simd::{self, Simd, Work};
use crate::kernels::{Class, reference, vmath};

/// Number of keys of a block.
pub const KEYS: usize = 128;
/// Maximum number of queries of a block: two vectors.
const COLUMNS: usize = 32;
/// Maximum number of lanes of a vector.
pub const LARGEST: usize = 16;

/// The inputs of an attention.
pub struct Tensors<'a> {
    pub q: &'a [f32],
    pub k: Stored<'a>,
    pub v: Stored<'a>,
    pub mask: &'a Mask<'a>,
    /// The additional inputs of decoders; `None` for other models.
    pub decoding: Option<Decoding<'a>>,
}

/// The lengths of the sequences of a decoder, and the options of the softmax of their scores.
#[derive(Clone, Copy)]
pub struct Decoding<'a> {
    /// Number of tokens before the first query, by sequence.
    pub past: &'a [usize],
    /// Number of keys, by sequence.
    pub lengths: &'a [usize],
    /// Soft cap of the scores, which become cap · tanh(score / cap); `None` for no cap.
    pub cap: Option<f32>,
    /// Scores, one per query head, that take part in the softmax but have no value (attention sinks); `None` for none.
    pub sinks: Option<&'a [f32]>,
}

/// Computes the attention, and writes it to `out`. The caller has checked that the slices fit the sizes.
pub fn attention(class: Class, spec: &Attention, tensors: &Tensors<'_>, out: &mut [f32], parallel: &dyn Parallel) {
    let lanes = if class >= Class::Avx512Vnni { 16 } else { 8 };
    let columns = spec.heads / spec.kv_heads * spec.queries;
    // The block has one vector of columns if two would be at most half full.
    let width = if columns <= lanes { lanes } else { 2 * lanes };
    let out = Shared(out.as_mut_ptr());
    let job = Job { class, spec, tensors, width, columns, blocks: columns.div_ceil(width), out };
    let (heads, threads) = (spec.batch * spec.kv_heads, parallel.threads().max(1));
    if threads > 1 && tensors.decoding.is_some() && heads * job.blocks < 2 * threads && spec.keys > 2 * KEYS {
        return split_keys(&job, heads, parallel);
    }
    // A key head is divided only as far as about four tasks per thread require: the blocks of a task read the same
    // keys, which stay in the cache of its thread.
    let pieces = if threads == 1 { 1 } else { (threads * 4).div_ceil(heads.max(1)).clamp(1, job.blocks.max(1)) };
    parallel.run(heads * pieces, &|task| {
        let piece = task % pieces;
        let blocks = job.blocks * piece / pieces..job.blocks * (piece + 1) / pieces;
        simd::run_float(class, Task { head: job.head(task / pieces), blocks, mode: Mode::Whole });
    });
}

/// Computes the attention with the blocks of keys divided among the threads, for few queries.
fn split_keys(job: &Job<'_>, heads: usize, parallel: &dyn Parallel) {
    let parts = job.spec.keys.div_ceil(KEYS);
    let chunks = (parallel.threads() * 4).div_ceil(heads * job.blocks).clamp(1, parts);
    let each = Partial::len(job.spec, job.width);
    let mut memory = Scratch::take(heads * job.blocks * parts * each * 4);
    let partials = Shared(memory.start().cast::<f32>());
    let task = |index: usize, mode: &dyn Fn(Shared<f32>) -> Mode| {
        let (head, block) = (index / job.blocks, index % job.blocks);
        let partials = Shared(partials.at(index * parts * each));
        simd::run_float(job.class, Task { head: job.head(head), blocks: block..block + 1, mode: mode(partials) });
    };
    parallel.run(heads * job.blocks * chunks, &|index| {
        let chunk = index % chunks;
        task(index / chunks, &|to| Mode::Parts { to, parts: parts * chunk / chunks..parts * (chunk + 1) / chunks });
    });
    parallel.run(heads * job.blocks, &|index| task(index, &|from| Mode::Merge { from }));
}

/// An attention whose division into blocks of queries is known.
struct Job<'a> {
    class: Class,
    spec: &'a Attention,
    tensors: &'a Tensors<'a>,
    /// Maximum number of columns of a block.
    width: usize,
    /// Number of columns of a key head: its query heads times the queries of each.
    columns: usize,
    /// Number of blocks of queries of a key head.
    blocks: usize,
    out: Shared<f32>,
}

impl<'a> Job<'a> {
    /// Returns the key head with this index among the key heads of all sequences.
    fn head(&self, index: usize) -> Head<'a> {
        let place = (index / self.spec.kv_heads, index % self.spec.kv_heads);
        let mut spec = *self.spec;
        if let Some(decoding) = &self.tensors.decoding {
            (spec.past, spec.keys) = (decoding.past[place.0], decoding.lengths[place.0]);
        }
        Head { spec, tensors: self.tensors, place, width: self.width, columns: self.columns, out: self.out }
    }
}

/// A key head of one sequence, and the queries that share it.
pub struct Head<'a> {
    pub spec: Attention,
    pub tensors: &'a Tensors<'a>,
    /// Indices of the sequence and of the key head.
    pub place: (usize, usize),
    pub width: usize,
    columns: usize,
    pub out: Shared<f32>,
}

/// The work of one thread: some blocks of queries of one key head.
struct Task<'a> {
    head: Head<'a>,
    blocks: std::ops::Range<usize>,
    mode: Mode,
}

/// The result that a task computes for its blocks of queries.
enum Mode {
    /// The output, from all keys.
    Whole,
    /// The partial results of some blocks of keys.
    Parts { to: Shared<f32>, parts: std::ops::Range<usize> },
    /// The output, from the partial results of all blocks of keys.
    Merge { from: Shared<f32> },
}

/// The result for some keys: the maximum of the scores and the sum of their exponentials by column, and the values
/// weighted by these (columns × size).
#[derive(Clone, Copy)]
pub struct Partial {
    pub largest: *mut f32,
    pub total: *mut f32,
    pub out: *mut f32,
}

impl Partial {
    /// Returns the number of float32 values of a partial result.
    fn len(spec: &Attention, width: usize) -> usize {
        width * (2 + spec.value_size.next_multiple_of(32))
    }

    fn at(start: *mut f32, width: usize) -> Self {
        Self { largest: start, total: start.wrapping_add(width), out: start.wrapping_add(2 * width) }
    }
}

/// The working memory of a block: queries (size × columns), scores (keys × columns), partial results, two factors of
/// each column, and room for keys or values that are converted to dense float32. It has room for a block of them if
/// they are stored in 16 bits, and otherwise for the last keys, which do not fill [`VECTORS`] vectors.
pub struct Memory {
    pub queries: *mut f32,
    pub scores: *mut f32,
    pub factors: *mut f32,
    /// Partial result of all keys so far.
    pub sum: Partial,
    /// Partial result of the current block of keys, before it is merged into `sum`.
    pub part: Partial,
    pub widened: *mut f32,
    _memory: Scratch,
}

impl Memory {
    fn new(spec: &Attention, tensors: &Tensors<'_>) -> Self {
        let (queries, scores, partial) = (spec.head_size * COLUMNS, KEYS * COLUMNS, Partial::len(spec, COLUMNS));
        let narrow = tensors.k.is_narrow() || tensors.v.is_narrow();
        let widened = spec.head_size.max(spec.value_size) * if narrow { KEYS } else { VECTORS * LARGEST };
        let mut memory = Scratch::take((queries + scores + 2 * COLUMNS + 2 * partial + widened) * 4);
        let start = memory.start().cast::<f32>();
        let at = |place: usize| start.wrapping_add(place);
        // SAFETY: the scores were just allocated. Those of unused columns are read too, and denormal numbers would be
        // slow.
        unsafe { at(queries).write_bytes(0, scores) };
        let partials = queries + scores + 2 * COLUMNS;
        Self {
            queries: at(0),
            scores: at(queries),
            factors: at(queries + scores),
            sum: Partial::at(at(partials), COLUMNS),
            part: Partial::at(at(partials + partial), COLUMNS),
            widened: at(partials + 2 * partial),
            _memory: memory,
        }
    }
}

impl Head<'_> {
    /// Returns the query head and the query of a column.
    #[inline(always)]
    pub fn column(&self, column: usize) -> (usize, usize) {
        let group = self.spec.heads / self.spec.kv_heads;
        (self.place.1 * group + column / self.spec.queries, column % self.spec.queries)
    }
}

impl Work for Task<'_> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        let memory = Memory::new(&self.head.spec, self.head.tensors);
        for block in self.blocks.clone() {
            let first = block * self.head.width;
            let count = self.head.width.min(self.head.columns - first);
            let block = Block { head: &self.head, memory: &memory, first, count };
            if self.head.width == V::LANES {
                V::call(Sized::<1>(block, &self.mode));
            } else {
                V::call(Sized::<2>(block, &self.mode));
            }
        }
    }
}

/// A block of queries: the columns from `first` to `first + count`.
pub struct Block<'a> {
    pub head: &'a Head<'a>,
    pub memory: &'a Memory,
    pub first: usize,
    pub count: usize,
}

struct Sized<'a, const N: usize>(Block<'a>, &'a Mode);

impl<const N: usize> Work for Sized<'_, N> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        let Self(block, mode) = self;
        let (spec, sum) = (&block.head.spec, block.memory.sum);
        let (seen, width) = (block.seen(), N * V::LANES);
        let each = Partial::len(spec, width);
        // SAFETY: every pointer stays within memory that `attention` has checked, or that `Memory` and `split_keys`
        // have allocated.
        unsafe {
            match mode {
                Mode::Whole => {
                    block.take_queries::<V, N>();
                    let mut start = seen.start;
                    while start < seen.end {
                        let to = if start == seen.start { sum } else { block.memory.part };
                        block.part::<V, N>(start, KEYS.min(seen.end - start), to);
                        if start > seen.start {
                            block.merge::<V, N>(block.memory.part);
                        }
                        start += KEYS;
                    }
                    block.write::<V>();
                }
                Mode::Parts { to, parts } => {
                    block.take_queries::<V, N>();
                    for part in parts.clone() {
                        let start = part * KEYS;
                        if (seen.start..seen.end).contains(&start) {
                            let to = Partial::at(to.at(part * each), width);
                            block.part::<V, N>(start, KEYS.min(seen.end - start), to);
                        }
                    }
                }
                Mode::Merge { from } => {
                    for start in seen.clone().step_by(KEYS) {
                        let part = Partial::at(from.at(start / KEYS * each), width);
                        if start == seen.start { block.copy(part) } else { block.merge::<V, N>(part) }
                    }
                    block.write::<V>();
                }
            }
        }
    }
}

impl Block<'_> {
    /// Returns the range of the keys in a block, beginning with its first key, that at least one column attends to.
    fn seen(&self) -> std::ops::Range<usize> {
        let spec = &self.head.spec;
        let queries = || (self.first..self.first + self.count).map(|column| self.head.column(column).1);
        let ranges = || queries().map(|query| reference::seen(spec, query)).filter(|range| !range.is_empty());
        let start = ranges().map(|range| range.start).min().unwrap_or(0);
        let mut end = ranges().map(|range| range.end).max().unwrap_or(0);
        if let Mask::KeyLengths(lengths) = self.head.tensors.mask {
            // Keys after the last visible one have no effect, unless a query has no visible key.
            let length = usize::try_from(lengths[self.head.place.0]).unwrap_or(0);
            if ranges().all(|range| length > range.start) {
                end = end.min(length);
            }
        }
        start / KEYS * KEYS..end
    }

    /// Copies the scaled queries into the memory of the block, as size × columns.
    #[inline(always)]
    unsafe fn take_queries<V: Simd, const N: usize>(&self) {
        let (spec, to, width) = (&self.head.spec, self.memory.queries, N * V::LANES);
        let whole = spec.head_size / V::LANES * V::LANES;
        let at = |column: usize| {
            let (head, query) = self.head.column(column);
            let place = self.head.place.0 * spec.q.batch + head * spec.q.head + query * spec.q.token;
            self.head.tensors.q.as_ptr().wrapping_add(place)
        };
        // SAFETY: `attention` has checked the queries; `to` has room for size × columns.
        unsafe {
            let mut column = 0;
            while column < width {
                // As many columns as a vector has lanes are copied at once, if their rows are equally spaced.
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
                    let rows = if even { whole } else { 0 }..spec.head_size;
                    if column < self.count {
                        let from = at(self.first + column);
                        rows.for_each(|row| *to.add(row * width + column) = *from.add(row));
                    } else {
                        rows.for_each(|row| *to.add(row * width + column) = 0.0);
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

    /// Computes the partial result of `count` keys, beginning with the key `start`, and writes it to `to`.
    #[inline(always)]
    unsafe fn part<V: Simd, const N: usize>(&self, start: usize, count: usize, to: Partial) {
        if self.is_few() {
            // `call` makes this a separate function, which is compiled once for both widths.
            return V::call(Few { block: self, start, count, to });
        }
        // SAFETY: guaranteed by the caller.
        unsafe {
            self.scores::<V, N>(start, count);
            self.cap::<V>(0, count * N * V::LANES);
            self.mask::<V>(start, count);
            self.softmax::<V, N>(count, to);
            self.values::<V>(start, count, to);
        }
    }

    /// Caps `count` scores, beginning with the score `first`, if the attention has a cap.
    #[inline(always)]
    pub unsafe fn cap<V: Simd>(&self, first: usize, count: usize) {
        let Some(cap) = self.head.tensors.decoding.and_then(|decoding| decoding.cap) else { return };
        for index in (first..first + count).step_by(V::LANES) {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let score = self.memory.scores.add(index);
                V::store(score, vmath::capped::<V>(V::load(score), cap));
            }
        }
    }
}
