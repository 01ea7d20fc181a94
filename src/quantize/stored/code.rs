//! Coding of weights as int8 with scales along some axes, and the choice of these axes where the operator does not
//! determine them.
//!
//! The axes are given by a mask, `keep`: each position along the marked ("kept") axes has its own scale, which the
//! elements along the other axes share.

use super::blocks::{self, Blocks};
use super::find::MUL_OPSET;
use super::{Outcome, Stored};
use crate::call::Ticket;
use crate::error::Result;
use crate::files::Scratch;
use crate::graph::constants::Matrix;
use crate::quantize::QuantizeOptions;
use crate::quantize::planner::Plan;
use crate::quantize::weights::PIECE;
use bytes::Bytes;
use rayon::prelude::*;

/// The maximum code of int8 weights.
const LIMIT: f32 = 127.0;
/// The maximum relative error of a channel. Normally distributed weights have 0.01; those with outliers 25 times as
/// large have 0.05.
const MOST: f64 = 0.05;
/// The maximum size of codes and scales relative to the float weight.
const WORTH: f64 = 0.75;
/// The magnitude below which scales would be denormal. Channels with only smaller values become zeros, whatever the
/// relative error.
const NOTHING: f32 = 1e-35;

/// A weight in few bits.
pub enum Coded {
    /// The weight in int8, with one scale per position along the kept axes; `instead` is the reason why it has more
    /// bits than requested, if it has.
    Int8 { keep: Vec<bool>, values: Bytes, scales: Vec<f32>, instead: Option<String> },
    /// The weight in blocks of 4 bits.
    Int4(Blocks),
}

impl Coded {
    /// Returns the bits per code.
    pub fn bits(&self) -> u32 {
        match self {
            Coded::Int8 { .. } => 8,
            Coded::Int4(_) => 4,
        }
    }

    /// Returns a description of the form for the report.
    pub fn describe(&self) -> String {
        let (keep, scales, instead) = match self {
            Coded::Int4(blocks) => return blocks.describe(),
            Coded::Int8 { keep, scales, instead, .. } => (keep, scales.len(), instead),
        };
        let form = if scales == 1 {
            "int8 weight, one scale".to_owned()
        } else {
            let axes: Vec<String> = (0..keep.len()).filter(|a| keep[*a]).map(|a| a.to_string()).collect();
            let plural = if axes.len() > 1 { "axes" } else { "axis" };
            format!("int8 weight per channel, {scales} scales along {plural} {}", axes.join(", "))
        };
        instead.iter().fold(form, |form, reason| format!("{form}, as {reason}"))
    }
}

/// Codes every stored weight of the plan, and returns the outcomes. Fails with `Io` if scratch storage cannot be
/// written, and with `Cancelled` or `Timeout`.
pub fn all(plan: &Plan<'_>, options: &QuantizeOptions, ticket: &Ticket) -> Result<Vec<Outcome>> {
    let folder = options.scratch_folder.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = Scratch::new(&folder);
    plan.stored
        .par_iter()
        .map(|stored| {
            let outcome = one(stored, options, &scratch, ticket);
            ticket.add(stored.bytes());
            outcome
        })
        .collect()
}

/// Returns one weight in the requested bits, or in 8 bits if 4 do not suffice. The inner error is the reason why it
/// cannot be stored in 8 bits either.
pub fn one(stored: &Stored<'_>, options: &QuantizeOptions, scratch: &Scratch, ticket: &Ticket) -> Result<Outcome> {
    if stored.bits.0 >= 8 {
        return int8(stored, scratch, ticket);
    }
    let reason = match blocks::code(stored, options, scratch, ticket)? {
        Ok(blocks) => return Ok(Ok(Coded::Int4(blocks))),
        Err(reason) => reason,
    };
    let mut outcome = int8(stored, scratch, ticket)?;
    if let Ok(Coded::Int8 { instead, .. }) = &mut outcome {
        *instead = Some(reason);
    }
    Ok(outcome)
}

/// Returns the number of scales for the axes that `keep` marks.
pub fn scale_count(dims: &[i64], keep: &[bool]) -> u64 {
    dims.iter().zip(keep).filter(|(_, keep)| **keep).map(|(size, _)| u64::try_from(*size).unwrap_or(0)).product()
}

/// Returns one weight in int8. Of the masks of axes that are precise enough, the one with the smallest squared error is
/// used; other masks than those of the operator are tried only if none of these is precise enough. The inner error is
/// the reason why the weight cannot be stored.
fn int8(stored: &Stored<'_>, scratch: &Scratch, ticket: &Ticket) -> Result<Outcome> {
    let matrix = Matrix::flat(stored.tensor)?;
    let dims = &stored.tensor.dims;
    let (given, tried) = axes(stored);
    let mut best: Option<(f64, Vec<bool>, Vec<f32>)> = None;
    let mut worst = f64::INFINITY;
    for (index, keep) in given.iter().chain(&tried).enumerate() {
        if index >= given.len() && !given.is_empty() && best.is_some() {
            break; // One of the axes that the operator determines is precise enough.
        }
        let places = Places::new(dims, keep);
        let Some(scales) = scales(&matrix, &places, ticket)? else {
            return Ok(Err("the weight has values that are not finite".to_owned()));
        };
        let (most, total) = errors(&matrix, &places, &scales, ticket)?;
        worst = worst.min(most);
        let better = best.as_ref().is_none_or(|(known, ..)| total < *known);
        if most <= MOST && better {
            best = Some((total, keep.clone(), scales));
        }
    }
    let Some((_, keep, scales)) = best else {
        return Ok(Err(match worst.is_finite() {
            true => format!("int8 would change a channel of the weight by {:.0} %", worst * 100.0),
            false => "no scales fit its shape".to_owned(),
        }));
    };
    let slot = scratch.reserve(matrix.elements())?;
    let places = Places::new(dims, &keep);
    pieces(&matrix, &places, ticket, &mut |from, values, at| {
        let code = |(v, at): (&f32, &u32)| round(v / scales[*at as usize]) as i8 as u8;
        slot.write_at(from, &values.iter().zip(at).map(code).collect::<Vec<u8>>())
    })?;
    Ok(Ok(Coded::Int8 { keep, values: slot.finish()?, scales, instead: None }))
}

/// Returns the axes to keep, in the order in which they are tried: the operator's channels, and others to try if those
/// are unknown or unsuitable.
fn axes(stored: &Stored<'_>) -> (Vec<Vec<bool>>, Vec<Vec<bool>>) {
    let dims = &stored.tensor.dims;
    let rank = dims.len();
    let one = |axis: usize| (0..rank).map(|a| a == axis).collect::<Vec<bool>>();
    let but = |axis: usize| (0..rank).map(|a| a != axis).collect::<Vec<bool>>();
    let first_two = (0..rank).map(|a| a < 2).collect();
    let mut tried = vec![one(0), one(1), one(rank - 1), first_two, but(rank - 1), but(rank - 2)];
    let (elements, bytes) = (stored.elements(), stored.bytes() as f64);
    let worth = |keep: &Vec<bool>| (elements + 4 * scale_count(dims, keep)) as f64 <= WORTH * bytes;
    // Without `Mul`, the elements that share a scale must be adjacent.
    let leading = |keep: &Vec<bool>| stored.opset >= MUL_OPSET || keep.is_sorted_by(|a, b| a >= b);
    tried.retain(|keep| worth(keep) && leading(keep));
    tried.sort_by_key(|keep| scale_count(dims, keep));
    tried.dedup();
    let given: Vec<Vec<bool>> = stored.keep.iter().filter(|keep| worth(keep) && leading(keep)).cloned().collect();
    (given, tried)
}

/// The index of the scale of each element.
struct Places {
    /// Sizes of the axes with the strides of scales, from the outermost; adjacent axes are merged.
    dims: Vec<(usize, usize)>,
    count: usize,
}

impl Places {
    fn new(dims: &[i64], keep: &[bool]) -> Places {
        let mut merged: Vec<(usize, usize)> = Vec::new();
        let mut count = 1;
        for (size, keep) in dims.iter().zip(keep).rev() {
            let size = usize::try_from(*size).unwrap_or(0);
            let step = if *keep { count } else { 0 };
            count *= if *keep { size } else { 1 };
            match merged.last_mut() {
                Some(inner) if (inner.1 > 0) == *keep => inner.0 *= size,
                _ => merged.push((size, step)),
            }
        }
        merged.reverse();
        Places { dims: merged, count }
    }

    /// Writes the scale indices of the elements from index `from` on to `out`.
    fn fill(&self, from: usize, out: &mut [u32]) {
        let Some((&(inner, step), outer)) = self.dims.split_last() else { return out.fill(0) };
        let mut done = 0;
        while done < out.len() {
            let at = from + done;
            let (mut row, column) = (at / inner, at % inner);
            let mut base = 0;
            for (size, step) in outer.iter().rev() {
                base += row % size * step;
                row /= size;
            }
            let count = (inner - column).min(out.len() - done);
            for (index, place) in out[done..done + count].iter_mut().enumerate() {
                *place = (base + (column + index) * step) as u32;
            }
            done += count;
        }
    }
}

type Visit<'v> = dyn FnMut(usize, &[f32], &[u32]) -> Result<()> + 'v;

/// Calls `visit` with the pieces of a tensor: index of the first element, elements, indices of their scales.
fn pieces(matrix: &Matrix, places: &Places, ticket: &Ticket, visit: &mut Visit<'_>) -> Result<()> {
    let count = PIECE.min(matrix.elements());
    let (mut values, mut at) = (vec![0f32; count], vec![0u32; count]);
    for from in (0..matrix.elements()).step_by(PIECE) {
        ticket.check()?;
        let count = PIECE.min(matrix.elements() - from);
        matrix.read(0, from, &mut values[..count]);
        places.fill(from, &mut at[..count]);
        visit(from, &values[..count], &at[..count])?;
    }
    matrix.release(0..1);
    Ok(())
}

/// Returns the scales `max|w| / 127`, or 1 where all values are nearly zero; `None` if a value is not finite.
fn scales(matrix: &Matrix, places: &Places, ticket: &Ticket) -> Result<Option<Vec<f32>>> {
    let (mut highest, mut finite) = (vec![0f32; places.count], true);
    pieces(matrix, places, ticket, &mut |_, values, at| {
        for (value, at) in values.iter().zip(at) {
            finite &= value.is_finite();
            let highest = &mut highest[*at as usize];
            *highest = highest.max(value.abs());
        }
        Ok(())
    })?;
    let scale = |highest: f32| if highest > NOTHING { highest / LIMIT } else { 1.0 };
    Ok(finite.then(|| highest.into_iter().map(scale).collect()))
}

/// Returns the largest relative error of a channel, and the total squared error.
fn errors(matrix: &Matrix, places: &Places, scales: &[f32], ticket: &Ticket) -> Result<(f64, f64)> {
    let mut sums = vec![(0f64, 0f64); places.count];
    pieces(matrix, places, ticket, &mut |_, values, at| {
        for (value, at) in values.iter().zip(at) {
            let scale = scales[*at as usize];
            let (error, sums) = (f64::from(value - round(value / scale) * scale), &mut sums[*at as usize]);
            // A squared float32 does not overflow a float64.
            sums.0 += error * error;
            sums.1 += f64::from(*value).powi(2);
        }
        Ok(())
    })?;
    let relative = |(error, length): &(f64, f64)| (error / length).sqrt();
    let nothing = f64::from(NOTHING).powi(2);
    let most = sums.iter().filter(|sums| sums.1 > nothing).map(relative).fold(0.0, f64::max);
    Ok((most, sums.iter().map(|sums| sums.0).sum()))
}

/// Returns the nearest integer from -127 to 127, with ties to even, as ONNX `QuantizeLinear` rounds.
fn round(value: f32) -> f32 {
    value.round_ties_even().clamp(-LIMIT, LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::edit::float_tensor;
    use crate::onnx::proto::TensorProto;

    fn stored<'a>(tensor: &'a TensorProto, keep: Option<&[bool]>) -> Stored<'a> {
        let keep = keep.map(<[bool]>::to_vec);
        Stored { owner: 0, name: "w", tensor, keep, readers: Vec::new(), bits: (8, 0), cautious: false, opset: 13 }
    }

    fn code(tensor: &TensorProto, keep: Option<&[bool]>) -> Outcome {
        int8(&stored(tensor, keep), &Scratch::new(&std::env::temp_dir()), &Ticket::default()).unwrap()
    }

    #[test]
    fn places_are_those_of_broadcasting() {
        let dims = [2i64, 3, 4, 5];
        for bits in 0..16usize {
            let keep: Vec<bool> = (0..4).map(|a| bits >> a & 1 == 1).collect();
            let places = Places::new(&dims, &keep);
            assert_eq!(places.count as u64, scale_count(&dims, &keep));
            for from in [0, 7, 31] {
                let mut found = vec![0u32; 120 - from];
                places.fill(from, &mut found);
                for (offset, place) in found.iter().enumerate() {
                    let (mut rest, mut wanted, mut step) = (from + offset, 0, 1);
                    for axis in (0..4).rev() {
                        let size = dims[axis] as usize;
                        wanted += if keep[axis] { rest % size * step } else { 0 };
                        step *= if keep[axis] { size } else { 1 };
                        rest /= size;
                    }
                    assert_eq!(*place as usize, wanted, "{keep:?} {from} {offset}");
                }
            }
        }
    }

    #[test]
    fn four_bits_are_for_channels_of_many_inputs() {
        let mut state = 7u64;
        let mut random = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (0..12).map(|k| (state >> (5 * k) & 31) as f32 / 32.0).sum::<f32>() - 5.8
        };
        for (inputs, cautious, bits) in [(48, true, 8), (512, true, 4), (48, false, 4)] {
            let values: Vec<f32> = (0..64 * inputs).map(|_| random()).collect();
            let tensor = float_tensor("w", &[64, inputs, 1, 1], &values);
            let keep = [true, false, false, false];
            let weight = Stored { bits: (4, 0), cautious, ..stored(&tensor, Some(&keep)) };
            let (scratch, options) = (Scratch::new(&std::env::temp_dir()), QuantizeOptions::default());
            let coded = one(&weight, &options, &scratch, &Ticket::default()).unwrap().ok().unwrap();
            assert_eq!(coded.bits(), bits, "{inputs}");
            let reason = coded.describe();
            assert_eq!(reason.contains("4 bits would change a channel of 48 inputs by"), bits == 8, "{reason}");
        }
    }

    #[test]
    fn axes_are_the_operators_unless_they_cost_too_much() {
        // One column is so much larger than the others that the others would become zeros with scales along axis 0,
        // which the operator requests.
        let wide: Vec<f32> = (0..64 * 1024).map(|i| if i % 1024 == 0 { 1.0 } else { 0.0035 }).collect();
        let tensor = float_tensor("w", &[64, 1024], &wide);
        let Ok(Coded::Int8 { keep, .. }) = code(&tensor, Some(&[true, false])) else { panic!("left") };
        assert_eq!(keep, [false, true]);
        let even: Vec<f32> = (0..64 * 64).map(|i| (i as f32 * 0.7).sin()).collect();
        let tensor = float_tensor("w", &[64, 64], &even);
        let Ok(Coded::Int8 { keep, values, scales, .. }) = code(&tensor, Some(&[true, false])) else { panic!("left") };
        assert_eq!((keep, values.len(), scales.len()), (vec![true, false], 4096, 64));
        for (index, value) in even.iter().enumerate() {
            let scale = scales[index / 64];
            assert!((value - scale * f32::from(values[index] as i8)).abs() <= scale * 0.5001);
        }
    }

    #[test]
    fn what_is_not_finite_or_spreads_too_far_stays() {
        let mut values = vec![0.001f32; 4096];
        values[7] = f32::NAN;
        assert!(matches!(code(&float_tensor("w", &[64, 64], &values), None), Err(why) if why.contains("not finite")));
        values[7] = f32::INFINITY;
        assert!(matches!(code(&float_tensor("w", &[64, 64], &values), None), Err(why) if why.contains("not finite")));
        // Each row and each column has one value so much larger than the others that these become zeros.
        let spread: Vec<f32> = (0..1 << 18).map(|i| if i / 512 == i % 512 { 1.0 } else { 0.0035 }).collect();
        let Err(reason) = code(&float_tensor("w", &[512, 512], &spread), None) else { panic!("stored") };
        assert!(reason.contains("would change a channel"), "{reason}");
        // Zeros and denormals are preserved.
        let mut few = vec![0f32; 4096];
        few[5] = 1e-42;
        assert!(code(&float_tensor("w", &[64, 64], &few), Some(&[true, false])).is_ok());
    }
}
