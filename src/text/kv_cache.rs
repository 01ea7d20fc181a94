//! The KV cache of decoders: the keys and values of each token, row by row.
//!
//! Rows that read one token each run together, as a *group* with one set of buffers. A row that reads several (a
//! prompt) runs alone, without padding, so that its cache has the same bits for any batch. Rows move to another group
//! by copying their part of the buffers, once each time the set of running rows changes. A step of an unchanged group
//! copies nothing: [`CacheKind::Shared`] buffers are written in place, and [`CacheKind::Concatenated`] outputs become
//! the next inputs.
//!
//! In a group, shared buffers hold a row's tokens from the first column on (padding on the right), concatenated ones up
//! to the last (padding on the left, zeroed and masked).

use super::decoder::{CacheKind, CachePair, Decoder};
use crate::error::{Context, Result, bail, error};
use crate::onnx::dtype::DataType;
use crate::runtime::{InPlace, Place, Session, Stop, Tensor};
use bytes::Bytes;

/// The logits after one token of a row.
#[derive(Clone)]
pub struct RowLogits {
    tensor: Tensor,
    start: usize,
    size: usize,
}

impl RowLogits {
    /// Returns one logit per token of the vocabulary. Fails only with `Internal`, for a defect of this library.
    pub fn values(&self) -> Result<&[f32]> {
        let all = self.tensor.as_slice::<f32>()?;
        all.get(self.start..self.start + self.size).ok_or_else(|| error!(Internal, "logits are out of range"))
    }
}

/// The caches of all rows of a generator.
pub struct Cache {
    groups: Vec<Group>,
    /// Number of columns that new shared buffers have beyond the existing tokens.
    pub room: usize,
}

/// The rows that share one set of buffers.
struct Group {
    /// Indices of the rows, in the order of the buffers.
    rows: Vec<usize>,
    /// Number of valid tokens of each row; after a rewind, fewer than `stored`.
    lengths: Vec<usize>,
    /// Number of tokens of each row that are in the buffers.
    stored: Vec<usize>,
    /// Number of columns of the buffers.
    columns: usize,
    store: Store,
}

// There is one `Store` per group of rows, so the size of the larger variant does not matter.
#[allow(clippy::large_enum_variant)]
enum Store {
    Shared(InPlace),
    Concatenated(Vec<Tensor>),
}

/// The location of a row: the index of its group, and its index in the group.
type At = (usize, usize);

/// The tokens that a run reads, and the logits that it returns.
pub struct Read<'a> {
    /// Indices of the rows.
    pub rows: &'a [usize],
    /// New tokens of each row, the same number for all rows; more than one token only if there is a single row.
    pub tokens: &'a [&'a [i64]],
    /// Number of last tokens of each row whose logits are returned.
    pub keep: usize,
    /// Length of the longest of the rows after all its known tokens have been read: buffers get at least this size.
    pub expected: usize,
}

impl Cache {
    /// Returns an empty cache. See [`Cache::room`].
    pub fn new(room: usize) -> Cache {
        Cache { groups: Vec::new(), room }
    }

    /// Returns the number of tokens of a row in the cache; 0 for an unknown row.
    pub fn length(&self, row: usize) -> usize {
        self.find(row).map_or(0, |(group, index)| self.groups[group].lengths[index])
    }

    /// Removes the tokens of a row after the first `length` tokens.
    pub fn truncate(&mut self, row: usize, length: usize) {
        if let Some((group, index)) = self.find(row) {
            let lengths = &mut self.groups[group].lengths;
            lengths[index] = lengths[index].min(length);
        }
    }

    /// Runs new tokens, and returns the logits after the last [`Read::keep`] tokens of each row, in the order of the
    /// rows.
    ///
    /// After an error of the run, the rows have the tokens that they had before. Fails with
    /// [`crate::error::Kind::Unsupported`] if the model does not output as many logits, with `InvalidModel` if the
    /// logits or the returned cache have an unexpected shape or type, and otherwise like [`Session::run_until`].
    pub fn run(
        &mut self,
        session: &mut Session,
        decoder: &Decoder,
        read: &Read<'_>,
        stop: &Stop,
    ) -> Result<Vec<RowLogits>> {
        let Read { rows, tokens, keep, expected } = *read;
        let count = tokens.first().map_or(0, |t| t.len());
        if decoder.kind == CacheKind::Recompute {
            let feed = Feed { lengths: &[0], columns: 0, count, kind: decoder.kind };
            let inputs = feed.inputs(decoder, tokens, keep)?;
            let outputs = session.run_until(&named(&inputs), &[decoder.logits.as_str()], stop)?;
            return last_logits(&outputs[0].1, rows.len(), keep);
        }
        let at = self.arrange(session, decoder, rows, count, expected)?;
        let group = &mut self.groups[at];
        let feed = Feed { lengths: &group.lengths, columns: group.columns, count, kind: decoder.kind };
        let inputs = feed.inputs(decoder, tokens, keep)?;
        let logits = match &mut group.store {
            Store::Shared(memory) => {
                let outputs = session.run_in_place(memory, &named(&inputs), stop)?;
                last_logits(&outputs[0], rows.len(), keep)?
            }
            Store::Concatenated(past) => {
                let mut given = named(&inputs);
                given.extend(decoder.cache.iter().map(|pair| pair.past.as_str()).zip(past.iter()));
                let mut wanted = vec![decoder.logits.as_str()];
                wanted.extend(decoder.cache.iter().map(|pair| pair.present.as_str()));
                let mut outputs = session.run_until(&given, &wanted, stop)?;
                let logits = last_logits(&outputs.remove(0).1, rows.len(), keep)?;
                grown(decoder, &outputs, rows.len(), group.columns + count)?;
                *past = outputs.into_iter().map(|(_, tensor)| tensor).collect();
                group.columns += count;
                logits
            }
        };
        group.lengths.iter_mut().for_each(|length| *length += count);
        group.stored.clone_from(&group.lengths);
        Ok(logits)
    }

    fn find(&self, row: usize) -> Option<At> {
        let index_in = |group: &Group| group.rows.iter().position(|r| *r == row);
        self.groups.iter().enumerate().find_map(|(at, group)| Some((at, index_in(group)?)))
    }

    /// Returns the index of the group of exactly these rows, with columns for `count` more tokens; creates the group if
    /// needed.
    fn arrange(
        &mut self,
        session: &Session,
        decoder: &Decoder,
        rows: &[usize],
        count: usize,
        expected: usize,
    ) -> Result<usize> {
        let longest = rows.iter().map(|row| self.length(*row)).max().unwrap_or(0) + count;
        let fits = |group: &Group| match group.store {
            // Rewound tokens are after a row's tokens and are overwritten.
            Store::Shared(_) => group.columns >= longest,
            Store::Concatenated(_) => group.lengths == group.stored,
        };
        if let Some(at) = self.groups.iter().position(|group| group.rows == rows && fits(group)) {
            return Ok(at);
        }
        let columns = match decoder.kind {
            CacheKind::Shared => self.capacity(decoder, rows, longest.max(expected)),
            _ => longest - count,
        };
        let made = self.assemble(session, decoder, rows, columns)?;
        // Rows that shared a group with some of these get a group of their own, so that the old buffers can be freed.
        let touched: Vec<usize> =
            (0..self.groups.len()).filter(|g| self.groups[*g].rows.iter().any(|r| rows.contains(r))).collect();
        let mut rest = Vec::new();
        for &group in &touched {
            let left: Vec<usize> = self.groups[group].rows.iter().copied().filter(|r| !rows.contains(r)).collect();
            if !left.is_empty() {
                let longest = left.iter().map(|row| self.length(*row)).max().unwrap_or(0);
                rest.push(self.assemble(session, decoder, &left, longest)?);
            }
        }
        touched.iter().rev().for_each(|group| drop(self.groups.swap_remove(*group)));
        self.groups.extend(rest);
        self.groups.push(made);
        Ok(self.groups.len() - 1)
    }

    /// Returns the number of columns of shared buffers that must hold `needed` tokens: with spare capacity, which
    /// increases each time they grow.
    fn capacity(&self, decoder: &Decoder, rows: &[usize], needed: usize) -> usize {
        let before = self.groups.iter().find(|group| group.rows == rows).map_or(0, |group| group.columns);
        let wanted = (needed + self.room).max(before.saturating_mul(2));
        wanted.min(decoder.context.unwrap_or(usize::MAX)).max(needed)
    }

    /// Returns a group with new buffers for `rows`, into which the tokens of these rows are copied from their old
    /// buffers. The old buffers stay unchanged.
    fn assemble(&self, session: &Session, decoder: &Decoder, rows: &[usize], columns: usize) -> Result<Group> {
        let lengths: Vec<usize> = rows.iter().map(|row| self.length(*row)).collect();
        let fill = |index: usize, pair: &CachePair, to: &mut [u8]| {
            for (new, (row, &length)) in rows.iter().zip(&lengths).enumerate() {
                let Some((group, old)) = self.find(*row) else { continue };
                let group = &self.groups[group];
                let source = group.bytes(index);
                let shared = decoder.kind == CacheKind::Shared;
                let first = if shared { 0 } else { group.columns - group.stored[old] };
                let from = Block { rows: group.rows.len(), row: old, columns: group.columns, first };
                let first = if shared { 0 } else { columns - length };
                let into = Block { rows: rows.len(), row: new, columns, first };
                copy(pair, source, &from, to, &into, length);
            }
        };
        let shape = |pair: &CachePair| -> Vec<i64> {
            let mut shape = pair.shape.clone();
            (shape[pair.batch], shape[pair.sequence]) = (rows.len() as i64, columns as i64);
            shape
        };
        let place = || format!("a cache of {} rows with {columns} tokens", rows.len());
        let store = if decoder.kind == CacheKind::Shared {
            let places = decoder.cache.iter().map(|pair| Place {
                input: Some(pair.past.clone()),
                output: Some(pair.present.clone()),
                dtype: pair.dtype,
                shape: shape(pair),
            });
            let mut memory = session.in_place(&places.collect::<Vec<_>>(), &[&decoder.logits]).at(place)?;
            decoder.cache.iter().enumerate().for_each(|(index, pair)| fill(index, pair, memory.bytes_mut(index)));
            Store::Shared(memory)
        } else {
            let make = |(index, pair): (usize, &CachePair)| {
                let shape = shape(pair);
                let count = crate::onnx::dtype::element_count(&shape)?;
                let mut bytes = vec![0u8; pair.dtype.bytes_of(count)? as usize];
                fill(index, pair, &mut bytes);
                Tensor::new(pair.dtype, &shape, Bytes::from(bytes))
            };
            Store::Concatenated(decoder.cache.iter().enumerate().map(make).collect::<Result<_>>().at(place)?)
        };
        Ok(Group { rows: rows.to_vec(), stored: lengths.clone(), lengths, columns, store })
    }
}

impl Group {
    fn bytes(&self, index: usize) -> &[u8] {
        match &self.store {
            Store::Shared(memory) => memory.bytes(index),
            Store::Concatenated(tensors) => tensors[index].bytes(),
        }
    }
}

/// The place of a row's tokens in a buffer: the size of the buffer in rows and columns, the row, and its first column.
struct Block {
    rows: usize,
    row: usize,
    columns: usize,
    first: usize,
}

/// Copies `length` tokens of a row from one buffer to another.
fn copy(pair: &CachePair, source: &[u8], from: &Block, target: &mut [u8], into: &Block, length: usize) {
    let product = |dims: &[i64]| dims.iter().map(|d| *d as usize).product::<usize>();
    let outer = product(&pair.shape[..pair.batch]);
    let heads = product(&pair.shape[pair.batch + 1..pair.sequence]);
    let width = product(&pair.shape[pair.sequence + 1..]) * pair.dtype.bits() as usize / 8;
    let start = |block: &Block, o: usize, h: usize| {
        (((o * block.rows + block.row) * heads + h) * block.columns + block.first) * width
    };
    for (o, h) in (0..outer).flat_map(|o| (0..heads).map(move |h| (o, h))) {
        let (a, b) = (start(from, o, h), start(into, o, h));
        target[b..b + length * width].copy_from_slice(&source[a..a + length * width]);
    }
}

/// The tokens of a run in which each row reads `count` new tokens.
struct Feed<'a> {
    lengths: &'a [usize],
    columns: usize,
    count: usize,
    kind: CacheKind,
}

impl Feed<'_> {
    /// Returns the inputs of the run other than the cache, for logits of the last `keep` tokens.
    fn inputs<'d>(&self, decoder: &'d Decoder, tokens: &[&[i64]], keep: usize) -> Result<Vec<(&'d str, Tensor)>> {
        let (rows, count) = (tokens.len() as i64, self.count as i64);
        let ids = &decoder.input_ids;
        let mut inputs = vec![(ids.name.as_str(), ids.tensor(&[rows, count], tokens.concat())?)];
        if let Some(mask) = &decoder.attention_mask {
            let (columns, values) = self.mask();
            inputs.push((&mask.name, mask.tensor(&[rows, columns as i64], values)?));
        }
        if let Some(positions) = &decoder.position_ids {
            let of = |length: &usize| (*length..length + self.count).map(|p| p as i64);
            inputs
                .push((&positions.name, positions.tensor(&[rows, count], self.lengths.iter().flat_map(of).collect())?));
        }
        if let Some(port) = &decoder.logits_to_keep {
            inputs.push((&port.name, port.tensor(&[1], vec![keep as i64])?));
        }
        if let Some(branch) = &decoder.use_cache_branch {
            inputs.push((branch, Tensor::from_bools(&[1], &[self.columns > 0])?));
        }
        Ok(inputs)
    }

    fn mask(&self) -> (usize, Vec<i64>) {
        let longest = self.lengths.iter().max().copied().unwrap_or(0);
        let total = if self.kind == CacheKind::Concatenated { self.columns } else { longest } + self.count;
        let row = |length: &usize| {
            let (ones, zeros) = (length + self.count, total - length - self.count);
            let before = if self.kind == CacheKind::Concatenated { zeros } else { 0 };
            (0..total).map(move |column| i64::from((before..before + ones).contains(&column)))
        };
        (total, self.lengths.iter().flat_map(row).collect())
    }
}

fn named<'a>(inputs: &'a [(&'a str, Tensor)]) -> Vec<(&'a str, &'a Tensor)> {
    inputs.iter().map(|(name, tensor)| (*name, tensor)).collect()
}

/// Fails with `InvalidModel` if a returned cache does not have the type and the shape of the input cache, with
/// `columns` columns.
fn grown(decoder: &Decoder, outputs: &[(String, Tensor)], rows: usize, columns: usize) -> Result<()> {
    for (pair, (name, tensor)) in decoder.cache.iter().zip(outputs) {
        let mut shape = pair.shape.clone();
        (shape[pair.batch], shape[pair.sequence]) = (rows as i64, columns as i64);
        if tensor.shape() != shape || tensor.dtype() != pair.dtype {
            let found = tensor.describe();
            bail!(InvalidModel, "output {name:?} is {found}, but the next step needs {}{shape:?}", pair.dtype.name());
        }
    }
    Ok(())
}

/// Returns the last `keep` columns of logits `[rows, columns, vocabulary]`, row by row. Fails with `InvalidModel` for
/// another shape, with `Unsupported` if there are fewer columns.
fn last_logits(logits: &Tensor, rows: usize, keep: usize) -> Result<Vec<RowLogits>> {
    let &[batch, columns, size] = logits.shape() else {
        bail!(InvalidModel, "the logits are {}, not of three dimensions", logits.describe());
    };
    let (batch, columns, size) = (batch as usize, columns as usize, size as usize);
    if batch != rows || columns == 0 || size == 0 {
        bail!(InvalidModel, "the logits are {}, but {rows} rows were run", logits.describe());
    }
    if columns < keep {
        let found = logits.describe();
        bail!(
            Unsupported,
            "the logits are {found}, but a draft needs those of {keep} tokens: the model has to output the logits of \
             every token"
        );
    }
    let firsts = (0..rows).flat_map(|row| (columns - keep..columns).map(move |column| (row * columns + column) * size));
    if logits.dtype() == DataType::Float32 {
        return Ok(firsts.map(|start| RowLogits { tensor: logits.clone(), start, size }).collect());
    }
    let width = logits.dtype().bits() as usize / 8;
    let of = |first: usize| {
        let bytes = Bytes::copy_from_slice(&logits.bytes()[first * width..][..size * width]);
        let tensor = Tensor::new(logits.dtype(), &[size as i64], bytes)?;
        let tensor = Tensor::from_f32(&[size as i64], tensor.to_f32_vec()?)?;
        Ok(RowLogits { tensor, start: 0, size })
    };
    firsts.map(of).collect()
}
