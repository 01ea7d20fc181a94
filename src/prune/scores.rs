//! Pruning by scores of single weights: those with the smallest scores become zero.
//!
//! The number of zeros is the requested one, unless there are already more; among equal scores the first are chosen.
//! The threshold is found by counting scores twice, by their upper and by their lower 16 bits, so that nothing is
//! sorted and weights are read in pieces. For a pattern such as `2:4`, the scores of each group are compared.

use super::options::{Pattern, PruneMethod, PruneOptions};
use super::targets::{Layout, Target};
use super::weights::{PIECE, Writer};
use super::{Outcome, Pruned};
use crate::call::Ticket;
use crate::error::{Context, Result};
use crate::files::{self, Scratch};
use crate::statistics::mixed;
use rayon::prelude::*;

/// The score of a single weight.
#[derive(Clone, Copy)]
enum Score {
    /// The bits of the weight's magnitude, because floats of one sign have the order of their bits.
    Magnitude,
    /// A number that depends on the seed, the name and the index; 0 for a weight that is zero, so that zeros come
    /// first.
    Random(u64),
}

/// Prunes the weight of every target, and returns the outcome of each. Fails with `Io` if scratch storage cannot be
/// written, and with `Cancelled` or `Timeout`.
pub fn all(targets: &[Target<'_>], options: &PruneOptions, ticket: &Ticket) -> Result<Vec<Outcome>> {
    let folder = options.scratch_folder.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = Scratch::new(&folder);
    let mut outcomes: Vec<Option<Outcome>> = targets.iter().map(|_| None).collect();
    if options.global {
        let group: Vec<usize> = (0..targets.len()).filter(|i| !targets[*i].overridden).collect();
        let members: Vec<&Target<'_>> = group.iter().map(|i| &targets[*i]).collect();
        let elements: usize = members.iter().map(|t| t.elements()).sum();
        let wanted = members.first().map_or(0, |t| t.zeros(elements));
        let done = apply(&members, wanted, options, &scratch, ticket)?;
        group.into_iter().zip(done).for_each(|(i, outcome)| outcomes[i] = Some(outcome));
    }
    let fill = |(target, outcome): (&Target<'_>, Option<Outcome>)| match outcome {
        Some(outcome) => Ok(outcome),
        None => one(target, options, &scratch, ticket),
    };
    targets.iter().zip(outcomes).map(fill).collect()
}

/// Prunes one target, independently of all others, and returns the outcome. Fails like [`all`].
pub fn one(target: &Target<'_>, options: &PruneOptions, scratch: &Scratch, ticket: &Ticket) -> Result<Outcome> {
    let done = match options.pattern {
        Some(pattern) => in_pattern(target, pattern, options, scratch, ticket),
        None => {
            let mut done = apply(&[target], target.zeros(target.elements()), options, scratch, ticket)?;
            return Ok(done.remove(0));
        }
    };
    done.at(|| format!("weight {:?}", target.name))
}

/// The reason why a weight that already has enough zeros is unchanged.
pub const ENOUGH: &str = "already has as many zeros as requested";

fn score(options: &PruneOptions, target: &Target<'_>) -> Score {
    match options.method {
        PruneMethod::Random => Score::Random(mixed(options.seed ^ mixed(hash(&target.name) ^ target.owner as u64))),
        _ => Score::Magnitude,
    }
}

impl Score {
    /// Writes the scores of `values`, the elements of a weight from index `first` on, into `keys`. Only zeros have the
    /// score 0.
    fn keys(self, first: usize, values: &[f32], keys: &mut Vec<u32>) {
        keys.clear();
        match self {
            Score::Magnitude => keys.extend(values.iter().map(|v| v.to_bits() & 0x7fff_ffff)),
            Score::Random(seed) => keys.extend(values.iter().enumerate().map(|(index, value)| {
                let number = (mixed(seed ^ mixed((first + index) as u64)) >> 33) as u32 + 1;
                if *value == 0.0 { 0 } else { number }
            })),
        }
    }
}

/// Returns the FNV-1a hash of a text.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// A range of the elements of a target.
#[derive(Clone, Copy)]
struct Piece {
    target: usize,
    first: usize,
    count: usize,
}

fn pieces(targets: &[&Target<'_>]) -> Vec<Piece> {
    let of = |(target, t): (usize, &&Target<'_>)| {
        let elements = t.elements();
        (0..elements).step_by(PIECE).map(move |first| Piece { target, first, count: PIECE.min(elements - first) })
    };
    targets.iter().enumerate().flat_map(of).collect()
}

/// A reader of the pieces of weights and of their scores.
struct Scores<'s> {
    targets: &'s [&'s Target<'s>],
    options: &'s PruneOptions,
    ticket: &'s Ticket,
}

impl Scores<'_> {
    fn read<T>(&self, piece: Piece, body: impl FnOnce(&[f32], &[u32]) -> T) -> Result<T> {
        self.ticket.check()?;
        let target = self.targets[piece.target];
        let (mut values, mut keys) = (vec![0f32; piece.count], Vec::with_capacity(piece.count));
        target.matrix.read(0, piece.first, &mut values);
        score(self.options, target).keys(piece.first, &values, &mut keys);
        let width = target.matrix.width();
        files::release(&target.matrix.raw()[piece.first * width..(piece.first + piece.count) * width]);
        Ok(body(&values, &keys))
    }

    /// Returns how many scores have each of the 65,536 values of `part`. Scores for which `part` is `None` are not
    /// counted.
    fn count(&self, pieces: &[Piece], part: impl Fn(u32) -> Option<u16> + Sync) -> Result<Vec<u64>> {
        let counted = pieces.par_iter().try_fold(
            || vec![0u64; 1 << 16],
            |mut counts, piece| {
                self.read(*piece, |_, keys| {
                    keys.iter().filter_map(|key| part(*key)).for_each(|bin| counts[usize::from(bin)] += 1);
                })?;
                Ok(counts)
            },
        );
        let add = |mut a: Vec<u64>, b: Vec<u64>| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            Ok(a)
        };
        counted.try_reduce(|| vec![0u64; 1 << 16], add)
    }
}

/// Returns the index of the bin that contains the element of rank `rank` (from 1), and the number of elements in all
/// bins before it.
fn bin_of(counts: &[u64], rank: u64) -> (usize, u64) {
    let mut before = 0;
    for (bin, count) in counts.iter().enumerate() {
        if before + count >= rank {
            return (bin, before);
        }
        before += count;
    }
    (counts.len() - 1, before)
}

/// Sets the `wanted` weights with the smallest scores among all targets to zero, and returns the outcome of each
/// target.
fn apply(
    targets: &[&Target<'_>],
    wanted: usize,
    options: &PruneOptions,
    scratch: &Scratch,
    ticket: &Ticket,
) -> Result<Vec<Outcome>> {
    let (pieces, wanted) = (pieces(targets), wanted as u64);
    let scores = Scores { targets, options, ticket };
    let zeros: Vec<u64> = pieces
        .par_iter()
        .map(|piece| scores.read(*piece, |values, _| values.iter().filter(|v| **v == 0.0).count() as u64))
        .collect::<Result<_>>()?;
    if zeros.iter().sum::<u64>() >= wanted {
        return Ok(targets.iter().map(|_| Err(ENOUGH.to_owned())).collect());
    }
    let (upper, below) = bin_of(&scores.count(&pieces, |key| Some((key >> 16) as u16))?, wanted);
    let rank = wanted - below;
    let lower = scores.count(&pieces, |key| (key >> 16 == upper as u32).then_some(key as u16))?;
    let (low, below) = bin_of(&lower, rank);
    let (threshold, ties) = ((upper as u32) << 16 | low as u32, rank - below);
    let equal: Vec<u64> = pieces
        .par_iter()
        .map(|piece| scores.read(*piece, |_, keys| keys.iter().filter(|key| **key == threshold).count() as u64))
        .collect::<Result<_>>()?;
    let mut left = ties;
    let share = |count: &u64| {
        let own = left.min(*count);
        left -= own;
        own
    };
    let shares: Vec<u64> = equal.iter().map(share).collect();
    let writers: Vec<Writer<'_>> = targets.iter().map(|t| Writer::new(t, scratch)).collect::<Result<_>>()?;
    pieces.par_iter().zip(shares).try_for_each(|(piece, mut ties)| {
        let mut zeroed = Vec::with_capacity(piece.count);
        let values = scores.read(*piece, |values, keys| {
            zeroed.extend(keys.iter().map(|key| {
                let tie = *key == threshold && ties > 0;
                ties -= u64::from(tie);
                *key < threshold || tie
            }));
            values.to_vec()
        })?;
        ticket.add((piece.count * targets[piece.target].matrix.width()) as u64);
        writers[piece.target].keep(piece.first, &values, &zeroed)
    })?;
    let how = format!("{}{}", options.method.name(), if options.global { ", global threshold" } else { "" });
    let outcome = |writer: Writer<'_>| Ok(unchanged_or(writer.finish(how.clone())?));
    writers.into_iter().map(outcome).collect()
}

/// Returns the outcome for a weight: pruned, or unchanged if it has no new zero.
fn unchanged_or(pruned: Pruned) -> Outcome {
    if pruned.zeros_after == pruned.zeros_before {
        return Err("none of its weights is below the global threshold".to_owned());
    }
    Ok(pruned)
}

/// Prunes a weight to a pattern: of each group of weights along the inputs, all except the largest `keep` become zero.
/// Returns the outcome.
fn in_pattern(
    target: &Target<'_>,
    pattern: Pattern,
    options: &PruneOptions,
    scratch: &Scratch,
    ticket: &Ticket,
) -> Result<Outcome> {
    let mut layout = target.layout;
    if layout.inner == 1 && layout.inputs.is_multiple_of(pattern.of) {
        layout = Layout { outer: 1, inputs: layout.outer * layout.inputs, inner: 1 }; // groups end where rows do
    }
    let line = pattern.of * layout.inner;
    // Inputs per task: as many whole groups as `PIECE` elements contain, but at least one.
    let inputs = (PIECE / line.max(1)).max(1) * pattern.of;
    let tasks: Vec<(usize, usize)> =
        (0..layout.outer).flat_map(|o| (0..layout.inputs).step_by(inputs).map(move |k| (o, k))).collect();
    let writer = Writer::new(target, scratch)?;
    let scores = Scores { targets: &[target], options, ticket };
    tasks.par_iter().with_min_len(if layout.inputs < 1024 { 64 } else { 1 }).try_for_each(|&(o, k)| {
        let count = inputs.min(layout.inputs - k) * layout.inner;
        let piece = Piece { target: 0, first: (o * layout.inputs + k) * layout.inner, count };
        let (values, zeroed) = scores.read(piece, |values, keys| {
            let mut zeroed = vec![false; keys.len()];
            for (keys, zeroed) in keys.chunks(line).zip(zeroed.chunks_mut(line)) {
                mark(keys, zeroed, layout.inner, pattern.keep);
            }
            (values.to_vec(), zeroed)
        })?;
        ticket.add((count * target.matrix.width()) as u64);
        writer.keep(piece.first, &values, &zeroed)
    })?;
    let pruned = writer.finish(format!("{}, at most {pattern} are kept", options.method.name()))?;
    Ok(if pruned.zeros_after == pruned.zeros_before { Err(ENOUGH.to_owned()) } else { Ok(pruned) })
}

/// Marks the weights of a group that become zero: all except the `keep` largest. Among equal scores, the first become
/// zero.
fn mark(keys: &[u32], zeroed: &mut [bool], inner: usize, keep: usize) {
    let members = keys.len() / inner.max(1);
    let mut order: Vec<(u32, usize)> = Vec::with_capacity(members);
    for i in 0..inner {
        order.clear();
        order.extend((0..members).map(|m| (keys[m * inner + i], m)));
        order.sort_unstable();
        order.iter().take(members.saturating_sub(keep)).for_each(|(_, m)| zeroed[m * inner + i] = true);
    }
}
