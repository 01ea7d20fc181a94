//! Quantization of weights to int8 values and scales, in pieces, on all threads.

use super::QuantizeOptions;
use super::plan::Channel;
use super::planner::{Plan, Weight};
use crate::call::Ticket;
use crate::error::Result;
use crate::files::Scratch;
use crate::graph::constants::Matrix;
use bytes::Bytes;
use rayon::prelude::*;
use std::ops::Range;

/// A quantized matrix, whose elements are `scale * q`.
pub struct Int8Matrix {
    /// Codes in the layout of the new graph (transposed if requested), as int8.
    pub data: Bytes,
    /// Scales of the channels, or a single scale.
    pub scales: Vec<f32>,
}

/// The maximum number of elements that a worker processes between two checks for a cancel, and that its buffers hold.
pub const PIECE: usize = 1 << 18;

/// Quantizes every weight of the plan, and returns the matrices; `None` where a weight has a value that is not finite.
/// Fails with `NotFound` or `Io` if scratch storage cannot be created or written, and with `Cancelled` or `Timeout`.
pub fn all(plan: &Plan<'_>, options: &QuantizeOptions, ticket: &Ticket) -> Result<Vec<Option<Int8Matrix>>> {
    let folder = options.scratch_folder.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = Scratch::new(&folder);
    plan.weights.par_iter().map(|weight| int8(weight, plan.limit, &scratch, ticket)).collect()
}

/// Returns a quantized weight, whose codes have at most the magnitude `limit`; `None` if a value is not finite.
fn int8(weight: &Weight<'_>, limit: f32, scratch: &Scratch, ticket: &Ticket) -> Result<Option<Int8Matrix>> {
    let matrix = &weight.matrix;
    let Some(mut scales) = scales(matrix, weight.channel, limit, ticket)? else { return Ok(None) };
    make_room(matrix, weight.channel, &mut scales, ticket)?;
    let slot = scratch.reserve(matrix.elements())?;
    let (lines, width) = match weight.transpose {
        false => (matrix.rows, matrix.columns),
        true => (matrix.columns, matrix.rows),
    };
    // The pieces are ranges of the *output*, even if it is transposed, so that each is one contiguous write.
    pieces(lines, width).into_par_iter().try_for_each(|(rows, columns)| {
        ticket.check()?;
        let mut out = vec![0u8; rows.len() * columns.len()];
        if weight.transpose {
            transposed_piece(matrix, weight.channel, &scales, limit, &rows, &columns, &mut out);
        } else {
            plain_piece(matrix, weight.channel, &scales, limit, &rows, &columns, &mut out);
            matrix.release(rows.clone());
        }
        ticket.add((out.len() * matrix.width() / 2) as u64);
        slot.write_at(rows.start * width + columns.start, &out)
    })?;
    matrix.release(0..matrix.rows);
    Ok(Some(Int8Matrix { data: slot.finish()?, scales }))
}

/// Returns ranges of rows and columns of a `rows` x `columns` matrix that are contiguous in memory and have at most
/// [`PIECE`] elements.
fn pieces(rows: usize, columns: usize) -> Vec<(Range<usize>, Range<usize>)> {
    let cut = |length: usize, step: usize| {
        (0..length).step_by(step.max(1)).map(move |from| from..length.min(from + step.max(1)))
    };
    if columns > PIECE {
        return (0..rows).flat_map(|row| cut(columns, PIECE).map(move |c| (row..row + 1, c))).collect();
    }
    cut(rows, PIECE / columns.max(1)).map(|r| (r, 0..columns)).collect()
}

/// Writes a piece of the matrix to `out`.
fn plain_piece(
    matrix: &Matrix,
    channel: Channel,
    scales: &[f32],
    limit: f32,
    rows: &Range<usize>,
    columns: &Range<usize>,
    out: &mut [u8],
) {
    let mut line = vec![0f32; columns.len()];
    for (row, out) in rows.clone().zip(out.chunks_mut(columns.len())) {
        matrix.read(row, columns.start, &mut line);
        match channel {
            Channel::Column => {
                let scales = &scales[columns.clone()];
                out.iter_mut().zip(&line).zip(scales).for_each(|((o, v), s)| *o = round(v / s, limit));
            }
            Channel::Row => out.iter_mut().zip(&line).for_each(|(o, v)| *o = round(v / scales[row], limit)),
            Channel::All => out.iter_mut().zip(&line).for_each(|(o, v)| *o = round(v / scales[0], limit)),
        }
    }
}

/// Writes a piece of the transposed matrix to `out`; `rows` and `columns` are those of the result.
fn transposed_piece(
    matrix: &Matrix,
    channel: Channel,
    scales: &[f32],
    limit: f32,
    rows: &Range<usize>,
    columns: &Range<usize>,
    out: &mut [u8],
) {
    let mut line = vec![0f32; rows.len()];
    let width = columns.len();
    for (offset, stored_row) in columns.clone().enumerate() {
        matrix.read(stored_row, rows.start, &mut line);
        for (index, value) in line.iter().enumerate() {
            let scale = match channel {
                Channel::Row => scales[stored_row],
                Channel::Column => scales[rows.start + index],
                Channel::All => scales[0],
            };
            out[index * width + offset] = round(value / scale, limit);
        }
    }
}

/// Returns the codes of rows of `columns` columns, each with its scale, as [`all`] computes them, to measure the time.
pub fn sample(values: &[f32], columns: usize) -> Vec<u8> {
    let mut out = vec![0u8; values.len()];
    for (row, out) in values.chunks(columns.max(1)).zip(out.chunks_mut(columns.max(1))) {
        let scale = row.iter().fold(f32::MIN_POSITIVE, |highest, v| highest.max(v.abs())) / 127.0;
        out.iter_mut().zip(row).for_each(|(o, v)| *o = round(v / scale, 127.0));
    }
    out
}

/// Returns the code of a value: rounds ties to even, as ONNX `QuantizeLinear` does, and clamps to the symmetric range.
fn round(value: f32, limit: f32) -> u8 {
    value.round_ties_even().clamp(-limit, limit) as i8 as u8
}

/// The maximum sum of the magnitudes of the codes of one output. Activations are at most 255, and the sums of products
/// must stay below 2^30, half of 32 bits: the other half is for a bias.
const MAGNITUDES: f64 = (1i64 << 30) as f64 / 255.0;

/// Increases the scales of channels whose sums of products could exceed 32 bits, such as a mean over tens of thousands
/// of inputs. The codes of these channels become smaller; nothing else changes.
///
/// If each row is a channel, its sum is along the row; if each column is one, along the column. With a single scale
/// both are checked.
fn make_room(matrix: &Matrix, channel: Channel, scales: &mut [f32], ticket: &Ticket) -> Result<()> {
    let lines: &[Channel] = match channel {
        Channel::All => &[Channel::Row, Channel::Column],
        Channel::Row => &[Channel::Row],
        Channel::Column => &[Channel::Column],
    };
    for line in lines {
        let length = if *line == Channel::Row { matrix.columns } else { matrix.rows } as f64;
        if length * 127.0 <= MAGNITUDES {
            continue;
        }
        // Rounding adds at most half to each code.
        let room = (MAGNITUDES - length / 2.0).max(MAGNITUDES / 2.0);
        for (index, sum) in magnitudes(matrix, *line, ticket)?.into_iter().enumerate() {
            let scale = &mut scales[if channel == Channel::All { 0 } else { index }];
            *scale = scale.max((sum / room * 1.000_001) as f32);
        }
    }
    Ok(())
}

/// Returns the sums of the magnitudes of the elements of each row or column.
fn magnitudes(matrix: &Matrix, line: Channel, ticket: &Ticket) -> Result<Vec<f64>> {
    let count = if line == Channel::Row { matrix.rows } else { matrix.columns };
    let sums = pieces(matrix.rows, matrix.columns).into_par_iter().try_fold(
        || vec![0f64; count],
        |mut sums, (rows, columns)| -> Result<Vec<f64>> {
            ticket.check()?;
            let mut values = vec![0f32; columns.len()];
            for row in rows.clone() {
                matrix.read(row, columns.start, &mut values);
                let of = values.iter().map(|v| f64::from(v.abs()));
                match line {
                    Channel::Row => sums[row] += of.sum::<f64>(),
                    _ => sums[columns.clone()].iter_mut().zip(of).for_each(|(sum, v)| *sum += v),
                }
            }
            matrix.release(rows);
            Ok(sums)
        },
    );
    sums.try_reduce(
        || vec![0f64; count],
        |mut a, b| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            Ok(a)
        },
    )
}

/// Returns the scale `max|w| / limit` of each channel. A channel of zeros gets the smallest scale of the others, or 1
/// if all are zero. Returns `None` if a weight is infinite or NaN.
fn scales(matrix: &Matrix, channel: Channel, limit: f32, ticket: &Ticket) -> Result<Option<Vec<f32>>> {
    let count = match channel {
        Channel::Row => matrix.rows,
        Channel::Column => matrix.columns,
        Channel::All => 1,
    };
    let highest = pieces(matrix.rows, matrix.columns).into_par_iter().try_fold(
        || vec![0u32; count],
        |mut highest, (rows, columns)| -> Result<Vec<u32>> {
            ticket.check()?;
            fold_piece(matrix, channel, &rows, &columns, &mut highest);
            matrix.release(rows.clone());
            ticket.add((rows.len() * columns.len() * matrix.width() / 2) as u64);
            Ok(highest)
        },
    );
    let highest = highest.try_reduce(
        || vec![0u32; count],
        |mut a, b| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a = (*a).max(b));
            Ok(a)
        },
    )?;
    if highest.iter().any(|&bits| bits >= f32::INFINITY.to_bits()) {
        return Ok(None);
    }
    // Denormal weights could give a scale of zero, and dividing by it would not be finite.
    let mut scales: Vec<f32> = highest.into_iter().map(|bits| f32::from_bits(bits) / limit).collect();
    let some = |scale: &f32| *scale >= f32::MIN_POSITIVE;
    // A bias is rounded to multiples of its channel's scale, so the scale of a zero channel must not be large.
    let least = scales.iter().copied().filter(some).reduce(f32::min).unwrap_or(1.0);
    scales.iter_mut().filter(|scale| !some(scale)).for_each(|scale| *scale = least);
    Ok(Some(scales))
}

/// Updates the largest magnitude of each channel in `highest`, as the bits of a float: magnitudes compare like their
/// bits, and the bits of NaN and infinity are larger than all others.
fn fold_piece(matrix: &Matrix, channel: Channel, rows: &Range<usize>, columns: &Range<usize>, highest: &mut [u32]) {
    let magnitude = |v: &f32| v.to_bits() & 0x7fff_ffff;
    let mut line = vec![0f32; columns.len()];
    for row in rows.clone() {
        matrix.read(row, columns.start, &mut line);
        match channel {
            Channel::Column => {
                let highest = &mut highest[columns.clone()];
                highest.iter_mut().zip(&line).for_each(|(h, v)| *h = (*h).max(magnitude(v)));
            }
            Channel::Row | Channel::All => {
                let own = if channel == Channel::Row { row } else { 0 };
                highest[own] = line.iter().map(magnitude).fold(highest[own], u32::max);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::edit::float_tensor;

    fn run(values: &[f32], dims: [i64; 2], channel: Channel, transpose: bool) -> Option<Int8Matrix> {
        let tensor = float_tensor("w", &dims, values);
        let matrix = Matrix::new(&tensor).unwrap();
        let weight = Weight { matrix, channel, transpose, tensor: &tensor, name: String::new(), bits: (8, 0) };
        int8(&weight, 127.0, &Scratch::new(&std::env::temp_dir()), &Ticket::default()).unwrap()
    }

    fn signed(m: &Int8Matrix) -> Vec<i8> {
        m.data.iter().map(|&b| b as i8).collect()
    }

    #[test]
    fn channels_have_their_own_scale_in_either_layout() {
        let values = [127.0, 1.0, -254.0, 0.5];
        let by_column = run(&values, [2, 2], Channel::Column, false).unwrap();
        assert_eq!((signed(&by_column), by_column.scales), (vec![64, 127, -127, 64], vec![2.0, 1.0 / 127.0]));
        let by_row = run(&values, [2, 2], Channel::Row, true).unwrap();
        assert_eq!((signed(&by_row), by_row.scales), (vec![127, -127, 1, 0], vec![1.0, 2.0]));
    }

    #[test]
    fn zeros_and_denormals_stay_finite_and_infinities_are_refused() {
        let zero = run(&[0.0, -0.0, 1e-42, 0.0], [2, 2], Channel::Row, false).unwrap();
        assert_eq!((signed(&zero), zero.scales), (vec![0; 4], vec![1.0, 1.0]));
        assert!(run(&[1.0, f32::NAN], [1, 2], Channel::Row, false).is_none());
        assert!(run(&[1.0, f32::NEG_INFINITY], [1, 2], Channel::Column, false).is_none());
    }

    #[test]
    fn pieces_cover_large_matrices_exactly_once_and_transposing_equals_turning() {
        let (rows, columns) = (700, 1100);
        let values: Vec<f32> = (0..rows * columns).map(|i| ((i * 7919) % 1013) as f32 - 506.0).collect();
        let dims = [rows as i64, columns as i64];
        let plain = run(&values, dims, Channel::Row, false).unwrap();
        let transposed = run(&values, dims, Channel::Row, true).unwrap();
        for row in 0..rows {
            for column in 0..columns {
                let expected = round(values[row * columns + column] / plain.scales[row], 127.0);
                assert_eq!(plain.data[row * columns + column], expected);
                assert_eq!(transposed.data[column * rows + row], expected);
            }
        }
    }

    #[test]
    fn the_error_is_at_most_half_a_step() {
        let values: Vec<f32> = (0..4096).map(|i| (i as f32 * 0.37).sin() * (1.0 + (i % 64) as f32)).collect();
        let result = run(&values, [64, 64], Channel::Column, false).unwrap();
        for (index, value) in values.iter().enumerate() {
            let scale = result.scales[index % 64];
            assert!((value - scale * f32::from(result.data[index] as i8)).abs() <= scale * 0.5001);
        }
    }
}
