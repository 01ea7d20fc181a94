//! Weights in blocks of 4 bits, as stored for nodes that compute in float.
//!
//! Two codes share a byte: the first half of a block is in the low bits, the second in the high bits. So a few nodes
//! of opset 7 or later convert them to floats, without the 4-bit types of opset 21.

use super::Stored;
use super::find::MUL_OPSET;
use crate::call::Ticket;
use crate::error::Result;
use crate::files::{Scratch, ScratchSlot};
use crate::graph::constants::Matrix;
use crate::graph::floats::to_bytes;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::TensorProto;
use crate::quantize::algorithms::{CodedRow, Coding, ScaleType, hqq, range};
use crate::quantize::{Algorithm, QuantizeOptions};
use bytes::Bytes;

/// The default block size.
const BLOCK: usize = 32;
/// The minimum block size.
const LEAST: usize = 16;
/// The maximum relative error of a row. Normally distributed weights have 0.08.
const MOST: f64 = 0.15;
/// The number of inputs per channel from which on [`MOST`] is the limit for weights with [`Stored::cautious`]. Errors
/// average out over the inputs, so with fewer inputs the limit is lower, in proportion to the square root of their
/// number.
const MANY: f64 = 256.0;
/// The number of elements that are coded at a time.
const ELEMENTS: usize = 1 << 17;

/// A weight in blocks of 4 bits.
pub struct Blocks {
    /// Number of rows: positions along the axes with their own scales.
    pub rows: usize,
    /// Number of columns: elements per row.
    pub columns: usize,
    /// Number of elements per block.
    pub block: usize,
    /// Whether the rows are columns of the matrices in the last two axes.
    pub transposed: bool,
    /// Codes of the weight, `[rows, blocks, block / 2]`.
    pub codes: Bytes,
    /// Scales of the blocks, `[rows, blocks, 1]`, float16.
    pub scales: Bytes,
    /// Zero points of the blocks, `[rows, blocks, 1]`, one byte each; empty if zero is the middle code.
    pub zeros: Bytes,
}

impl Blocks {
    /// Returns a description of the form for the report.
    pub fn describe(&self) -> String {
        let zeros = if self.zeros.is_empty() { 0 } else { 8 };
        let kind = if self.zeros.is_empty() { "symmetric" } else { "with zero points" };
        let bits = 4.0 + f64::from(16 + zeros) / self.block as f64;
        format!("4 bits in blocks of {}, {kind}, {bits:.2} bits per weight", self.block)
    }
}

/// The arrangement of the rows in a weight.
struct Layout {
    rows: usize,
    columns: usize,
    transposed: bool,
}

/// Returns the arrangement of the rows in a weight. There is one row per position along the axes that `keep` marks, by
/// default all axes but the last. Returns `None` unless these axes are the leading ones, or all axes except the second
/// to last.
fn layout(dims: &[i64], keep: Option<&[bool]>) -> Option<Layout> {
    let rank = dims.len();
    let leading = (0..rank).map(|a| a + 1 < rank).collect::<Vec<bool>>();
    let keep = keep.filter(|keep| keep.contains(&true)).unwrap_or(&leading);
    let size = |kept: bool| -> usize {
        let sizes = dims.iter().zip(keep).filter(|(_, k)| **k == kept);
        sizes.map(|(d, _)| usize::try_from(*d).unwrap_or(0)).product()
    };
    let transposed = (0..rank).all(|a| keep[a] == (a + 2 != rank));
    let fits = transposed || keep.is_sorted_by(|a, b| a >= b);
    fits.then(|| Layout { rows: size(true), columns: size(false), transposed })
}

/// Returns the arrangement of the rows and the block size. The error is the reason why the shape or the opset does not
/// allow 4 bits.
fn arrange(stored: &Stored<'_>) -> std::result::Result<(Layout, usize), String> {
    if stored.opset < MUL_OPSET {
        return Err(format!("4 bits need opset {MUL_OPSET}"));
    }
    let Some(layout) = layout(&stored.tensor.dims, stored.keep.as_deref()) else {
        return Err("its channels are not rows of the weight".to_owned());
    };
    let mut block = if stored.bits.1 == 0 { BLOCK } else { stored.bits.1.max(LEAST) };
    while block > LEAST && layout.columns % block != 0 {
        block /= 2;
    }
    if layout.columns % block != 0 {
        return Err(format!("rows of {} elements cannot be divided into blocks of {LEAST} or more", layout.columns));
    }
    if stored.stored_bytes(4) >= stored.stored_bytes(8) {
        return Err("4 bits would be no smaller".to_owned());
    }
    Ok((layout, block))
}

/// Returns the block size of a weight without reading it. The error is the reason why its shape or opset does not allow
/// 4 bits.
pub fn block_size(stored: &Stored<'_>) -> std::result::Result<usize, String> {
    arrange(stored).map(|(_, block)| block)
}

/// Returns a weight in blocks of 4 bits. The inner error is the reason why its shape, opset or values do not allow it.
pub fn code(
    stored: &Stored<'_>,
    options: &QuantizeOptions,
    scratch: &Scratch,
    ticket: &Ticket,
) -> Result<std::result::Result<Blocks, String>> {
    let (layout, block) = match arrange(stored) {
        Ok(arranged) => arranged,
        Err(reason) => return Ok(Err(reason)),
    };
    let most = if stored.cautious { MOST * (layout.columns as f64 / MANY).sqrt().min(1.0) } else { MOST };
    let symmetric = options.symmetric;
    let hqq = options.algorithm == Algorithm::Hqq && !symmetric;
    let coding = Coding { bits: 4, block, symmetric, scale: ScaleType::Float16, hqq };
    let matrix = rows_of(stored.tensor, &layout)?;
    let blocks = layout.rows * layout.columns / block;
    let slots = Slots {
        codes: scratch.reserve(blocks * block / 2)?,
        scales: scratch.reserve(blocks * 2)?,
        zeros: scratch.reserve(if symmetric { 0 } else { blocks })?,
    };
    let step = (ELEMENTS / layout.columns.max(1)).max(1);
    let mut first = 0;
    while first < layout.rows {
        ticket.check()?;
        // Transposed rows are columns of stacked matrices; one read is within one matrix.
        let room = if layout.transposed { matrix.columns - first % matrix.columns } else { layout.rows - first };
        let values = read(&matrix, &layout, first, step.min(room));
        if let Err(error) = slots.write(&coding, &layout, first, (&values, most))? {
            let (inputs, percent) = (layout.columns, error * 100.0);
            return Ok(Err(format!("4 bits would change a channel of {inputs} inputs by {percent:.0} %")));
        }
        first += step.min(room);
    }
    matrix.release(0..matrix.rows);
    Ok(Ok(Blocks {
        rows: layout.rows,
        columns: layout.columns,
        block,
        transposed: layout.transposed,
        codes: slots.codes.finish()?,
        scales: slots.scales.finish()?,
        zeros: slots.zeros.finish()?,
    }))
}

/// Returns the tensor as a matrix of its rows, or if they are transposed, as the stacked matrices of its last two axes.
fn rows_of(tensor: &TensorProto, layout: &Layout) -> Result<Matrix> {
    let (rows, columns) = match layout.transposed {
        false => (layout.rows, layout.columns),
        true => (matrices(tensor) * layout.columns, layout.rows / matrices(tensor).max(1)),
    };
    Matrix::shaped(tensor, rows as i64, columns as i64)
}

fn matrices(tensor: &TensorProto) -> usize {
    let outer = &tensor.dims[..tensor.dims.len() - 2];
    usize::try_from(outer.iter().product::<i64>()).unwrap_or(1)
}

/// Returns the elements of `count` rows from row `first` on.
fn read(matrix: &Matrix, layout: &Layout, first: usize, count: usize) -> Vec<f32> {
    let columns = layout.columns;
    let mut values = vec![0f32; count * columns];
    if !layout.transposed {
        values.chunks_mut(columns).enumerate().for_each(|(row, values)| matrix.read(first + row, 0, values));
        return values;
    }
    let (top, left) = (first / matrix.columns * columns, first % matrix.columns);
    let mut line = vec![0f32; count];
    for k in 0..columns {
        matrix.read(top + k, left, &mut line);
        line.iter().enumerate().for_each(|(row, value)| values[row * columns + k] = *value);
    }
    values
}

struct Slots {
    codes: ScratchSlot,
    scales: ScratchSlot,
    zeros: ScratchSlot,
}

impl Slots {
    /// Quantizes rows and writes them from row `first` on. The inner error is the relative error of a row, if it is
    /// larger than `most`, or 1 if a value is not finite or too large.
    fn write(
        &self,
        coding: &Coding,
        layout: &Layout,
        first: usize,
        (values, most): (&[f32], f64),
    ) -> Result<std::result::Result<(), f64>> {
        if !values.iter().all(|v| v.abs() <= coding.largest()) {
            return Ok(Err(1.0));
        }
        let (mut codes, mut scales, mut zeros) = (Vec::new(), Vec::new(), Vec::new());
        for row in values.chunks(layout.columns) {
            let mut coded = if coding.hqq { hqq::code_row(coding, row) } else { range::code_row(coding, row, None) };
            balance(coding, row, &mut coded);
            let error = error(coding, row, &coded);
            if error > most {
                return Ok(Err(error));
            }
            for block in coded.codes.chunks(coding.block) {
                let (low, high) = block.split_at(coding.block / 2);
                codes.extend(low.iter().zip(high).map(|(low, high)| low | high << 4));
            }
            scales.extend(to_bytes(&coded.scales, DataType::Float16));
            zeros.extend_from_slice(if coding.symmetric { &[] } else { &coded.zeros });
        }
        let blocks = first * layout.columns / coding.block;
        self.codes.write_at(blocks * coding.block / 2, &codes)?;
        self.scales.write_at(blocks * 2, &scales)?;
        self.zeros.write_at(if zeros.is_empty() { 0 } else { blocks }, &zeros)?;
        Ok(Ok(()))
    }
}

/// Changes the rounding of some codes, those with the least cost, so that the errors of each block sum to about zero.
///
/// The inputs of a weight usually have a mean other than zero, since they are outputs of an activation: errors that add
/// up would shift all outputs of a channel.
fn balance(coding: &Coding, row: &[f32], coded: &mut CodedRow) {
    for (block, values) in row.chunks(coding.block).enumerate() {
        let (scale, zero) = (coded.scales[block], f32::from(coded.zeros[block]));
        let codes = &mut coded.codes[block * coding.block..][..values.len()];
        let off: Vec<f32> = codes.iter().zip(values).map(|(code, v)| f32::from(*code) - zero - v / scale).collect();
        let sum: f32 = off.iter().sum();
        let count = sum.abs().round();
        if !(1.0..=coding.block as f32).contains(&count) {
            continue;
        }
        // The closer a value is to the middle between two codes, the less it costs to round it to the other code.
        let mut order: Vec<usize> = (0..values.len()).filter(|k| off[*k] * sum > 0.0).collect();
        order.sort_by(|a, b| off[*b].abs().total_cmp(&off[*a].abs()));
        let fits = |k: &usize| if sum > 0.0 { codes[*k] > 0 } else { f32::from(codes[*k]) < coding.highest() };
        let transposed: Vec<usize> =
            order.into_iter().filter(|k| off[*k].abs() <= 0.5 && fits(k)).take(count as usize).collect();
        for k in transposed {
            codes[k] = if sum > 0.0 { codes[k] - 1 } else { codes[k] + 1 };
        }
    }
}

/// Returns the relative error of a row after quantization.
fn error(coding: &Coding, row: &[f32], coded: &CodedRow) -> f64 {
    let (mut error, mut length) = (0f64, 0f64);
    for (k, value) in row.iter().enumerate() {
        error += f64::from(value - coded.value(k / coding.block, coded.codes[k])).powi(2);
        length += f64::from(*value).powi(2);
    }
    if length > 0.0 { (error / length).sqrt() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_block_add_up_to_nothing() {
        let row: Vec<f32> = (0..512).map(|k| ((k * k) as f32 * 0.61).sin() + 0.3 * (k as f32 * 1.7).cos()).collect();
        for symmetric in [false, true] {
            let coding = Coding { bits: 4, block: 32, symmetric, scale: ScaleType::Float16, hqq: false };
            let plain = range::code_row(&coding, &row, None);
            let mut coded = range::code_row(&coding, &row, None);
            balance(&coding, &row, &mut coded);
            let sums = |coded: &CodedRow| -> f64 {
                let off =
                    |block: usize, k: usize| coded.value(block, coded.codes[32 * block + k]) - row[32 * block + k];
                (0..16).map(|b| f64::from((0..32).map(|k| off(b, k)).sum::<f32>() / coded.scales[b]).abs()).sum()
            };
            assert!(
                sums(&coded) < 0.5 * 16.0 && sums(&coded) < 0.7 * sums(&plain),
                "{} {}",
                sums(&plain),
                sums(&coded)
            );
            assert!(error(&coding, &row, &coded) < 1.15 * error(&coding, &row, &plain));
        }
    }
}
