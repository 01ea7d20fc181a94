//! Operations over a whole vocabulary (maxima, sums of exponentials, the few highest values), and random numbers.

use crate::error::{Result, bail};
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A candidate of the next token: its weight or logit, and its token id.
pub(super) type Candidate = (f32, u32);

/// Returns the lowest id of the highest logit, and that logit. NaN is ignored. Fails with `Runtime` if the highest
/// logit is not finite.
pub(super) fn highest(logits: &[f32]) -> Result<(u32, f32)> {
    let mut best = (0, f32::NEG_INFINITY);
    for (block, chunk) in logits.chunks(BLOCK).enumerate() {
        let max = block_max(chunk);
        if max > best.1 {
            let index = chunk.iter().position(|logit| *logit == max).unwrap_or(0);
            best = ((block * BLOCK + index) as u32, max);
        }
    }
    if !best.1.is_finite() {
        bail!(Runtime, "none of the {} logits of the model is finite", logits.len());
    }
    Ok(best)
}

fn block_max(logits: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 8];
    let mut chunks = logits.chunks_exact(8);
    let larger = |lane: &mut f32, logit: f32| *lane = if logit > *lane { logit } else { *lane };
    for chunk in &mut chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, logit)| larger(lane, *logit));
    }
    lanes.iter_mut().zip(chunks.remainder()).for_each(|(lane, logit)| larger(lane, *logit));
    lanes.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Returns the order of two candidates: the one with the higher value comes first, of equal ones the one with the lower
/// id.
pub(super) fn order(a: &Candidate, b: &Candidate) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// A candidate in a heap whose top is the last one by [`order`].
#[derive(PartialEq)]
pub(super) struct Worst(Candidate);

impl Eq for Worst {}

impl PartialOrd for Worst {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Worst {
    fn cmp(&self, other: &Self) -> Ordering {
        order(&self.0, &other.0)
    }
}

/// Replaces the content of `found` by the `count` highest values with their ids, unordered; there are fewer if other
/// values are NaN or negative infinity. The time is usually linear in the size of the vocabulary.
pub(super) fn highest_few(values: &[f32], count: usize, found: &mut Vec<Candidate>) {
    found.clear();
    if count > 512 {
        found.extend(values.iter().enumerate().filter(|(_, v)| **v > f32::NEG_INFINITY).map(|(id, v)| (*v, id as u32)));
        if count < found.len() {
            found.select_nth_unstable_by(count, order);
            found.truncate(count);
        }
        return;
    }
    let mut heap = BinaryHeap::with_capacity(count + 1);
    let mut bar = f32::NEG_INFINITY;
    for (id, &value) in values.iter().enumerate() {
        // Ids ascend: an equal value later is the worse one.
        if value > bar {
            heap.push(Worst((value, id as u32)));
            if heap.len() > count {
                heap.pop();
            }
            if heap.len() == count {
                bar = heap.peek().map_or(bar, |worst| worst.0.0);
            }
        }
    }
    found.extend(heap.into_iter().map(|w| w.0));
}

/// Keeps the fewest candidates of highest weight that together have at least the weight `mass`, in the order of their
/// weights; all if they have less.
pub(super) fn nucleus(found: &mut Vec<Candidate>, mass: f64) {
    let (mut sorted, mut sum) = (0, 0.0);
    let mut step = 64;
    while sorted < found.len() {
        let end = (sorted + step).min(found.len());
        if end < found.len() {
            found[sorted..].select_nth_unstable_by(end - sorted, order);
        }
        found[sorted..end].sort_unstable_by(order);
        for (index, candidate) in found.iter().enumerate().take(end).skip(sorted) {
            sum += f64::from(candidate.0);
            if sum >= mass {
                found.truncate(index + 1);
                return;
            }
        }
        (sorted, step) = (end, step * 4);
    }
}

/// Returns a token that is sampled from all tokens in proportion to their weights `exp((logit - max) · scale)`. It is
/// the first token, in the order of ids, at which the sum of the weights exceeds the fraction `point` of the total;
/// `point` is at least 0 and below 1. `best` is a token with the logit `max`.
pub(super) fn draw_from_all(logits: &[f32], (best, max): (u32, f32), scale: f32, point: f64) -> u32 {
    let mut left = point * exp_sum(logits, max, scale);
    for (block, chunk) in logits.chunks(BLOCK).enumerate() {
        let sum = f64::from(block_sum(chunk, max, scale));
        if left >= sum {
            left -= sum;
            continue;
        }
        let mut last = best;
        for (index, logit) in chunk.iter().enumerate() {
            let weight = f64::from(exp((logit - max) * scale));
            if weight > 0.0 {
                last = (block * BLOCK + index) as u32;
            }
            left -= weight;
            if left < 0.0 {
                return last;
            }
        }
        // Only a rounding error leads here: the last possible token of the block is chosen.
        return last;
    }
    best
}

/// The number of values that are summed in float32 before they are added to a float64 sum.
pub(super) const BLOCK: usize = 256;

/// Returns the sum of `exp((logit - max) · scale)`.
pub(super) fn exp_sum(logits: &[f32], max: f32, scale: f32) -> f64 {
    logits.chunks(BLOCK).map(|chunk| f64::from(block_sum(chunk, max, scale))).sum()
}

/// Returns the sum of `exp((logit - max) · scale)` over one block. The exponentials are first stored in an array,
/// because the compiler vectorizes a loop that only stores them (it is three times as fast), but not one that also adds
/// them.
fn block_sum(logits: &[f32], max: f32, scale: f32) -> f32 {
    let mut weights = [0f32; BLOCK];
    weights.iter_mut().zip(logits).for_each(|(weight, logit)| *weight = exp((logit - max) * scale));
    let mut lanes = [0f32; 8];
    for chunk in weights.chunks_exact(8) {
        lanes.iter_mut().zip(chunk).for_each(|(lane, weight)| *lane += weight);
    }
    lanes.iter().sum()
}

/// Returns `e^x` for `x <= 0` with a relative error of at most 2e-7; 0 below -87 and for NaN.
///
/// A vocabulary has up to 250,000 logits: the compiler vectorizes this function, but not `f32::exp`.
#[inline]
pub(super) fn exp(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer
    let held = if x >= -87.0 { x } else { -87.0 };
    let shifted = held * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    // ln 2 in two parts, the first with few bits, so that the difference is exact.
    let f = (held - n * 0.693_145_75) - n * 1.428_606_8e-6;
    let p = 1.0 / 5040.0;
    let p = p * f + 1.0 / 720.0;
    let p = p * f + 1.0 / 120.0;
    let p = p * f + 1.0 / 24.0;
    let p = p * f + 1.0 / 6.0;
    let p = p * f + 0.5;
    let p = p * f + 1.0;
    let p = p * f + 1.0;
    let power = f32::from_bits((shifted.to_bits().wrapping_sub(SHIFT.to_bits()).wrapping_add(127)) << 23);
    if x >= -87.0 { p * power } else { 0.0 }
}

/// Returns a number in [0, 1) that depends only on the arguments, by Philox 4x32 with 10 rounds.
pub(super) fn uniform(seed: u64, row: u64, step: u64) -> f64 {
    let [a, b, ..] = philox([step as u32, (step >> 32) as u32, row as u32, (row >> 32) as u32], seed);
    let bits = (u64::from(a) << 32 | u64::from(b)) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

pub(super) fn philox(counter: [u32; 4], key: u64) -> [u32; 4] {
    let mut c = counter;
    let (mut k0, mut k1) = (key as u32, (key >> 32) as u32);
    for _ in 0..10 {
        let (x, y) = (u64::from(c[0]) * 0xD251_1F53, u64::from(c[2]) * 0xCD9E_8D57);
        c = [(y >> 32) as u32 ^ c[1] ^ k0, y as u32, (x >> 32) as u32 ^ c[3] ^ k1, x as u32];
        (k0, k1) = (k0.wrapping_add(0x9E37_79B9), k1.wrapping_add(0xBB67_AE85));
    }
    c
}
