//! Coding of the weights of a row as small integers, block by block: `w = scale (q - zero)`.
//!
//! [`Coding`] describes the possible codes. `range` searches the scale and zero point of a block that minimize the
//! squared error, `hqq` those that minimize another norm; `gptq` compensates the error of each weight in the weights
//! that follow.

pub mod gptq;
pub mod hqq;
pub mod range;

use crate::choice::choice;
use crate::onnx::dtype::DataType;

/// The scale of blocks of zeros. It must not be zero, because values are divided by it. It must be tiny, because the
/// terms of such a block cancel only up to rounding in a product. Its square must not underflow.
const OF_NOTHING: f32 = 7.888_609e-31; // 2^-100

choice! {
    /// The type in which the scales of blocks are stored.
    ///
    /// The operators read scales in the type of the activations. Scales of another type are converted by a few nodes
    /// over constants, which ONNX Runtime evaluates once when it creates the session.
    pub enum ScaleType: optimize_scale_type_t = Uint8 {
        /// One byte, which is multiplied by a float32 factor per row.
        Uint8 = 0, "uint8";
        /// float16: two bytes.
        Float16 = 1, "float16";
        /// float32: four bytes, as the operator expects them, without nodes before it.
        Float32 = 2, "float32";
    }
}

impl ScaleType {
    /// Returns the element type of stored scales.
    pub fn dtype(self) -> DataType {
        match self {
            ScaleType::Uint8 => DataType::Uint8,
            ScaleType::Float16 => DataType::Float16,
            ScaleType::Float32 => DataType::Float32,
        }
    }
}

/// The coding of the rows of one weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coding {
    /// Number of bits per weight: 2, 4 or 8.
    pub bits: u32,
    /// Block size, the number of elements of a row that share a scale: a power of two, at least 16.
    pub block: usize,
    /// Whether zero is the middle of the range, and no zero points are stored.
    pub symmetric: bool,
    /// Type in which scales are stored; see [`ScaleType`].
    pub scale: ScaleType,
    /// Whether `hqq` instead of `range` searches scales and zero points.
    pub hqq: bool,
}

impl Coding {
    /// Returns the largest code.
    pub fn highest(&self) -> f32 {
        ((1u32 << self.bits) - 1) as f32
    }

    /// Returns the code of zero in symmetric codings.
    pub fn middle(&self) -> u8 {
        1 << (self.bits - 1)
    }

    /// Returns the maximum magnitude of a weight. Beyond it, the scale or the sums by which the scale is chosen could
    /// overflow.
    pub fn largest(&self) -> f32 {
        match self.scale {
            ScaleType::Float16 => f32::from(half::f16::MAX) * f32::from(self.middle()) / 2.0,
            ScaleType::Uint8 | ScaleType::Float32 => 1e30,
        }
    }

    /// Returns the number of blocks of a row; the last one may be padded.
    pub fn blocks(&self, columns: usize) -> usize {
        columns.div_ceil(self.block)
    }

    /// Returns the size of the codes of a block in bytes.
    pub fn block_bytes(&self) -> usize {
        self.block * self.bits as usize / 8
    }

    /// Returns the size of the zero points of a row in bytes; 0 if it has none.
    pub fn zero_bytes(&self, columns: usize) -> usize {
        if self.symmetric { 0 } else { (self.blocks(columns) * self.bits as usize).div_ceil(8) }
    }

    /// Returns the bits per weight, including scales and zero points, for rows of `columns` columns.
    pub fn bits_per_weight(&self, columns: usize) -> f64 {
        let scales = match self.scale {
            ScaleType::Uint8 => self.blocks(columns) + 4,
            ScaleType::Float16 => 2 * self.blocks(columns),
            ScaleType::Float32 => 4 * self.blocks(columns),
        };
        let bytes = self.blocks(columns) * self.block_bytes() + self.zero_bytes(columns) + scales;
        bytes as f64 * 8.0 / columns.max(1) as f64
    }
}

/// A coded row: a scale and zero point for each block, and a code for each weight (including padding).
pub struct CodedRow {
    /// Codes of the row, one per byte.
    pub codes: Vec<u8>,
    /// Scales of the blocks, rounded to the values that their type can store. Before [`CodedRow::store_scales`], they
    /// are not rounded, and the scale of a block of zeros is 0.
    pub scales: Vec<f32>,
    /// Zero points of the blocks.
    pub zeros: Vec<u8>,
    /// Factor of the row, by which [`ScaleType::Uint8`] scales are multiplied.
    pub factor: f32,
}

impl CodedRow {
    /// Returns a row of zeros, whose scales are 0 until they are chosen.
    pub fn new(coding: &Coding, columns: usize) -> CodedRow {
        let blocks = coding.blocks(columns);
        CodedRow {
            codes: vec![coding.middle(); blocks * coding.block],
            scales: vec![0.0; blocks],
            zeros: vec![coding.middle(); blocks],
            factor: OF_NOTHING,
        }
    }

    /// Rounds the scales to the values that their type can store. Blocks of zeros, whose scale is 0, do not affect the
    /// factor of the row, and get the smallest possible scale.
    pub fn store_scales(&mut self, coding: &Coding) {
        let largest = self.scales.iter().copied().fold(0f32, f32::max);
        if largest > 0.0 {
            self.factor = (largest / 255.0).max(f32::MIN_POSITIVE);
        }
        for block in 0..self.scales.len() {
            self.choose(coding, block, self.scales[block], self.zeros[block]);
        }
    }

    /// Sets the scale and the zero point of one block, rounded to the values that their types can store.
    pub fn choose(&mut self, coding: &Coding, block: usize, scale: f32, zero: u8) {
        self.zeros[block] = zero;
        self.scales[block] = match coding.scale {
            ScaleType::Float32 => {
                if scale == 0.0 {
                    OF_NOTHING
                } else {
                    scale
                }
            }
            // A scale that is too small for float16 becomes zero, and division by it is meaningless.
            ScaleType::Float16 => match half::f16::from_f32(scale.clamp(-65504.0, 65504.0)).to_f32() {
                0.0 => f32::from(half::f16::MIN_POSITIVE_SUBNORMAL),
                stored => stored,
            },
            ScaleType::Uint8 => (scale / self.factor).round().clamp(1.0, 255.0) * self.factor,
        };
    }

    /// Returns the code in the block `block` that represents the value nearest to `value`.
    pub fn nearest(&self, coding: &Coding, block: usize, value: f32) -> u8 {
        let zero = f32::from(self.zeros[block]);
        (range::round((value / self.scales[block]).max(-zero).min(coding.highest() - zero)) + zero) as u8
    }

    /// Returns the value of a code of the block `block`.
    pub fn value(&self, block: usize, code: u8) -> f32 {
        self.scales[block] * (f32::from(code) - f32::from(self.zeros[block]))
    }

    /// Sets each code to the one nearest to the value in `row`, and the codes of the padding to that of zero.
    pub fn code(&mut self, coding: &Coding, row: &[f32]) {
        let blocks = row.chunks(coding.block).zip(self.codes.chunks_mut(coding.block)).enumerate();
        for (block, (values, codes)) in blocks {
            let (scale, zero) = (self.scales[block], f32::from(self.zeros[block]));
            let high = coding.highest() - zero;
            for (code, value) in codes.iter_mut().zip(values) {
                *code = (range::round((value / scale).max(-zero).min(high)) + zero) as u8;
            }
            codes[values.len()..].fill(self.zeros[block]);
        }
    }
}
