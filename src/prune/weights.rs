//! Reading of weights in pieces, and writing of pruned weights.

use super::Pruned;
use super::targets::{Layout, Target};
use crate::call::Ticket;
use crate::error::Result;
use crate::files::{self, Scratch, ScratchSlot};
use crate::graph::floats::to_bytes;
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of elements that one thread processes at a time.
pub const PIECE: usize = 1 << 18;
/// The number of outputs that are transposed at a time.
const TILE: usize = 64;

/// A writer of a pruned weight.
pub struct Writer<'t> {
    target: &'t Target<'t>,
    slot: ScratchSlot,
    before: AtomicU64,
    after: AtomicU64,
}

impl<'t> Writer<'t> {
    /// Returns a writer with scratch storage for the new elements of a weight. Fails like [`Scratch::reserve`].
    pub fn new(target: &'t Target<'t>, scratch: &Scratch) -> Result<Writer<'t>> {
        let slot = scratch.reserve(target.elements() * target.matrix.width())?;
        Ok(Writer { target, slot, before: AtomicU64::new(0), after: AtomicU64::new(0) })
    }

    /// Writes the elements from index `first` on: 0 where `zeroed` is true, otherwise the element of `values`, which
    /// are the current elements. Fails like [`ScratchSlot::write_at`].
    pub fn keep(&self, first: usize, values: &[f32], zeroed: &[bool]) -> Result<()> {
        let width = self.target.matrix.width();
        let bytes = &self.target.matrix.raw()[first * width..(first + values.len()) * width];
        let mut copy = bytes.to_vec();
        let (mut before, mut after) = (0, 0);
        for (index, (value, zeroed)) in values.iter().zip(zeroed).enumerate() {
            before += u64::from(*value == 0.0);
            after += u64::from(*value == 0.0 || *zeroed);
            if *zeroed {
                copy[index * width..(index + 1) * width].fill(0);
            }
        }
        self.before.fetch_add(before, Ordering::Relaxed);
        self.after.fetch_add(after, Ordering::Relaxed);
        files::release(bytes);
        self.slot.write_at(first * width, &copy)
    }

    /// Writes new elements from index `first` on.
    fn put(&self, first: usize, values: &[f32]) -> Result<()> {
        let matrix = &self.target.matrix;
        let (mut old, zero) = (vec![0f32; values.len()], |v: &&f32| **v == 0.0);
        matrix.read(0, first, &mut old);
        self.before.fetch_add(old.iter().filter(zero).count() as u64, Ordering::Relaxed);
        self.after.fetch_add(values.iter().filter(zero).count() as u64, Ordering::Relaxed);
        self.slot.write_at(first * matrix.width(), &to_bytes(values, matrix.dtype()))
    }

    /// Returns the pruned weight after all its elements have been written; `how` describes the selection. Fails like
    /// [`ScratchSlot::finish`].
    pub fn finish(self, how: String) -> Result<Pruned> {
        let (zeros_before, zeros_after) = (self.before.into_inner(), self.after.into_inner());
        Ok(Pruned { raw: self.slot.finish()?, zeros_before, zeros_after, how })
    }
}

/// Returns all elements of a weight as rows `[outputs, inputs]`.
pub fn by_output(target: &Target<'_>) -> Vec<f32> {
    let Layout { inputs, inner, .. } = target.layout;
    let mut values = vec![0f32; target.elements()];
    if inner == 1 {
        values.par_chunks_mut(PIECE).enumerate().for_each(|(n, piece)| target.matrix.read(0, n * PIECE, piece));
    } else {
        // No tile extends beyond the inner dimension, so the last one may be smaller.
        let outer = values.par_chunks_mut(inputs * inner).enumerate();
        outer.for_each(|(o, values)| {
            values.par_chunks_mut(TILE * inputs).enumerate().for_each(|(tile, values)| {
                let mut line = vec![0f32; values.len() / inputs];
                for k in 0..inputs {
                    target.matrix.read(0, (o * inputs + k) * inner + tile * TILE, &mut line);
                    line.iter().enumerate().for_each(|(i, v)| values[i * inputs + k] = *v);
                }
            });
        });
    }
    files::release(target.matrix.raw());
    values
}

/// Writes the elements of a weight, in the layout of [`by_output`], and returns the pruned weight. Fails with
/// `NotFound` or `Io` if scratch storage cannot be created or written, and with `Cancelled` or `Timeout`.
pub fn store(target: &Target<'_>, values: &[f32], scratch: &Scratch, how: String, ticket: &Ticket) -> Result<Pruned> {
    let Layout { outer, inputs, inner } = target.layout;
    let writer = Writer::new(target, scratch)?;
    if inner == 1 {
        let pieces = values.par_chunks(PIECE).enumerate();
        pieces.try_for_each(|(n, piece)| writer.put(n * PIECE, piece))?;
    } else {
        let lines = (0..outer * inputs).into_par_iter().with_min_len(16);
        lines.try_for_each(|line| -> Result<()> {
            ticket.check()?;
            let (o, k) = (line / inputs, line % inputs);
            let of = |i: usize| values[(o * inner + i) * inputs + k];
            writer.put(line * inner, &(0..inner).map(of).collect::<Vec<f32>>())
        })?;
    }
    files::release(target.matrix.raw());
    writer.finish(how)
}
