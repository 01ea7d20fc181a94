//! Rounding to nearest, with a search for the range of each block.
//!
//! For codes `q` the best scale is a least-squares fit, `s = Σ h w d / Σ h d²` with `d = q - z`, and the remaining
//! error is `Σ h w² - (Σ h w d)² / Σ h d²`. So ranges a little narrower than that of the block are tried, with
//! neighbouring zero points, and the one with the largest second term wins. `h` is the importance of each weight: the
//! mean square of its input, if known, otherwise 1.

use super::{CodedRow, Coding, ScaleType};
use crate::platform::processor::for_widest_vectors;

/// The ranges to try, relative to that of the block.
const PARTS: [f32; 9] = [1.0, 0.95, 0.9, 0.86, 0.82, 0.78, 0.74, 0.7, 0.65];

/// Returns the codes of a row. `importance` has one value per column.
pub fn code_row(coding: &Coding, row: &[f32], importance: Option<&[f32]>) -> CodedRow {
    let mut coded = CodedRow::new(coding, row.len());
    for (block, values) in row.chunks(coding.block).enumerate() {
        let importance = importance.map(|h| &h[block * coding.block..][..values.len()]);
        (coded.scales[block], coded.zeros[block]) = best(coding, values, importance);
    }
    coded.store_scales(coding);
    coded.code(coding, row);
    coded
}

/// Returns the best scale and zero point of a block; the scale is 0 if all values are zero or too small for a scale.
pub fn best(coding: &Coding, values: &[f32], importance: Option<&[f32]>) -> (f32, u8) {
    let (low, high) = values.iter().fold((0f32, 0f32), |(low, high), v| (low.min(*v), high.max(*v)));
    let (highest, middle) = (coding.highest(), f32::from(coding.middle()));
    let mut found = Best { gain: 0.0, scale: 0.0, zero: coding.middle() };
    if high - low < f32::MIN_POSITIVE * highest {
        return (0.0, coding.middle());
    }
    let parts = if coding.bits > 4 { &PARTS[..2] } else { &PARTS[..] };
    for part in parts {
        if coding.symmetric {
            // There is one more code below zero than above. A negative scale uses it for positive values, but uint8
            // scales cannot be negative.
            let reach = part * high.max(-low);
            found.offer(values, importance, reach / (middle - 0.5), middle, highest);
            found.offer(values, importance, reach / (middle - 1.0), middle, highest);
            if -low >= high {
                found.offer(values, importance, reach / middle, middle, highest);
            } else if coding.scale != ScaleType::Uint8 {
                found.offer(values, importance, -reach / middle, middle, highest);
            }
        } else {
            let scale = part * (high - low) / highest;
            // A narrower range keeps the middle of the block's range.
            let zero = (-low / (high - low) - 0.5) * highest / part + 0.5 * highest;
            for zero in [zero.floor(), zero.floor() + 1.0] {
                found.offer(values, importance, scale, zero.clamp(0.0, highest), highest);
            }
        }
    }
    // Weights without importance are quantized as if each mattered equally, not with a scale of 0.
    if found.scale == 0.0 && importance.is_some() {
        return best(coding, values, None);
    }
    (found.scale, found.zero)
}

/// Returns the best scale for the codes that a scale and a zero point give, and a measure of the squared weights that
/// they represent (larger is better); `None` if all codes are zero.
pub fn fit(values: &[f32], scale: f32, zero: f32, highest: f32) -> Option<(f32, f32)> {
    let (both, square) = sums(values, None, 1.0 / scale, -zero, highest - zero);
    (square > 0.0).then(|| (both / square, both.abs() / square.sqrt()))
}

/// The best scale and zero point found so far.
struct Best {
    /// Square root of the second term of the remaining error; see the module.
    gain: f32,
    scale: f32,
    zero: u8,
}

impl Best {
    /// Fits a scale to the codes that `scale` and `zero` give, and keeps it if it is better than the best so far.
    fn offer(&mut self, values: &[f32], importance: Option<&[f32]>, scale: f32, zero: f32, highest: f32) {
        let (both, square) = sums(values, importance, 1.0 / scale, -zero, highest - zero);
        if square <= 0.0 {
            return;
        }
        // This is the square root of the second term of the error (see the module), because the square could exceed the
        // range of float32.
        let gain = both.abs() / square.sqrt();
        if gain > self.gain {
            (self.gain, self.scale, self.zero) = (gain, both / square, zero as u8);
        }
    }
}

for_widest_vectors! {
    /// Returns `Σ h w d` and `Σ h d²`, with `d` the integer nearest to `w · inverse` from `low` to `high`.
    fn sums(values: &[f32], importance: Option<&[f32]>, inverse: f32, low: f32, high: f32) -> (f32, f32) = sums_in_lanes
}

/// Returns the sums of [`sums`], computed in sixteen lanes that the compiler can vectorize. The result has the same
/// bits for every vector width.
#[inline(always)]
fn sums_in_lanes(values: &[f32], importance: Option<&[f32]>, inverse: f32, low: f32, high: f32) -> (f32, f32) {
    const LANES: usize = 16;
    let (mut both, mut square) = ([0f32; LANES], [0f32; LANES]);
    let mut add = |lane: usize, v: f32, h: f32| {
        let d = round((v * inverse).max(low).min(high));
        both[lane] += h * v * d;
        square[lane] += h * d * d;
    };
    let (chunks, rest) = values.as_chunks::<LANES>();
    match importance {
        None => {
            for chunk in chunks {
                (0..LANES).for_each(|i| add(i, chunk[i], 1.0));
            }
            rest.iter().enumerate().for_each(|(i, v)| add(i, *v, 1.0));
        }
        Some(importance) => {
            let (h, h_rest) = importance.as_chunks::<LANES>();
            for (chunk, h) in chunks.iter().zip(h) {
                (0..LANES).for_each(|i| add(i, chunk[i], h[i]));
            }
            rest.iter().zip(h_rest).enumerate().for_each(|(i, (v, h))| add(i, *v, *h));
        }
    }
    (both.iter().sum(), square.iter().sum())
}

/// Returns the nearest integer, for magnitudes below 2²²: adding 1.5 · 2²³ removes the fraction.
#[inline(always)]
pub fn round(value: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (value + SHIFT) - SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coding(bits: u32, symmetric: bool, scale: ScaleType) -> Coding {
        Coding { bits, block: 32, symmetric, scale, hqq: false }
    }

    fn error(coding: &Coding, row: &[f32], coded: &CodedRow) -> f32 {
        let read = |i: usize| coded.value(i / coding.block, coded.codes[i]);
        row.iter().enumerate().map(|(i, v)| (v - read(i)).powi(2)).sum()
    }

    /// Returns values with an approximately normal distribution, the same in each call.
    fn row(length: usize) -> Vec<f32> {
        let mut state = 1u64;
        let mut uniform = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (0..length).map(|_| uniform() + uniform() + uniform() + uniform() + 0.1).collect()
    }

    #[test]
    fn lattices_come_back_exactly() {
        for (bits, symmetric) in [(4, true), (4, false), (8, true), (8, false)] {
            let coding = coding(bits, symmetric, ScaleType::Float32);
            let zero = if symmetric { i32::from(coding.middle()) } else { 3 };
            let row: Vec<f32> =
                (0..32).map(|i| 0.5 * ((i * 7 % (coding.highest() as i32 + 1)) - zero) as f32).collect();
            let mut row = row;
            (row[0], row[1]) = (-0.5 * zero as f32, 0.5 * (coding.highest() - zero as f32));
            assert!(error(&coding, &row, &code_row(&coding, &row, None)) < 1e-6, "{bits} bits, {symmetric}");
        }
    }

    #[test]
    fn a_searched_range_is_better_than_the_whole() {
        let (row, coding) = (row(4096), coding(4, false, ScaleType::Float32));
        let searched = error(&coding, &row, &code_row(&coding, &row, None));
        let mut whole = CodedRow::new(&coding, row.len());
        for (block, values) in row.chunks(32).enumerate() {
            let (low, high) = values.iter().fold((0f32, 0f32), |(l, h), v| (l.min(*v), h.max(*v)));
            whole.scales[block] = (high - low) / 15.0;
            whole.zeros[block] = (-low / whole.scales[block]).round() as u8;
        }
        whole.code(&coding, &row);
        let whole = error(&coding, &row, &whole);
        assert!(searched < 0.95 * whole, "{searched} {whole}");
    }

    #[test]
    fn what_matters_more_is_kept_better() {
        let (row, coding) = (row(32), coding(4, true, ScaleType::Float32));
        let importance: Vec<f32> = (0..32).map(|i| if i % 8 == 0 { 1000.0 } else { 1.0 }).collect();
        let weighted = |coded: &CodedRow| -> f32 {
            let read = |i: usize| coded.value(0, coded.codes[i]);
            row.iter().zip(&importance).enumerate().map(|(i, (v, h))| h * (v - read(i)).powi(2)).sum()
        };
        let (with, without) = (code_row(&coding, &row, Some(&importance)), code_row(&coding, &row, None));
        assert!(weighted(&with) <= weighted(&without));
    }

    #[test]
    fn scales_are_stored_as_they_are_read() {
        for scale in [ScaleType::Uint8, ScaleType::Float16, ScaleType::Float32] {
            let (row, coding) = (row(160), coding(4, true, scale));
            let coded = code_row(&coding, &row, None);
            for s in &coded.scales {
                match scale {
                    ScaleType::Uint8 => assert_eq!((s / coded.factor).round() * coded.factor, *s),
                    ScaleType::Float16 => assert_eq!(half::f16::from_f32(*s).to_f32(), *s),
                    ScaleType::Float32 => {}
                }
            }
        }
    }

    #[test]
    fn wide_registers_give_the_same_bits() {
        let values = row(100);
        let importance: Vec<f32> = row(100).iter().map(|v| v * v).collect();
        for importance in [None, Some(&importance[..])] {
            let plain = sums_in_lanes(&values, importance, 3.7, -7.0, 8.0);
            assert_eq!(sums(&values, importance, 3.7, -7.0, 8.0), plain);
        }
    }

    #[test]
    fn zeros_tiny_and_lone_values_are_finite() {
        for scale in [ScaleType::Uint8, ScaleType::Float16, ScaleType::Float32] {
            for symmetric in [true, false] {
                let coding = coding(4, symmetric, scale);
                for row in [vec![0f32; 40], vec![1e-44; 40], vec![-3.0], vec![1e30, -1e30, 0.0]] {
                    let coded = code_row(&coding, &row, None);
                    assert!(coded.scales.iter().all(|s| s.is_finite() && *s != 0.0), "{row:?}");
                    assert_eq!(coded.codes.len() % 32, 0);
                }
            }
        }
    }
}
