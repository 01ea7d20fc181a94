//! How the weights of a row become small integers: block by block, `w = scale (q - zero)`.
//!
//! [`Coding`] says what there is to choose from. `range` looks for the scale and zero point of a block, `hqq`
//! for those of another norm; `gptq` spreads the error of each weight over those that follow.

pub mod gptq;
pub mod hqq;
pub mod range;

use crate::onnx::dtype::DataType;
use serde::Serialize;

/// The scale of blocks of zeros. It must be no zero, since codes come of dividing by it, and next to nothing, since the
/// sums that a product takes of such a block cancel only up to the rounding of floats; its square is a number all the same.
const OF_NOTHING: f32 = 7.888_609e-31; // 2^-100

/// How the scales of blocks are stored. Sessions see float32 all the same: a few nodes over constants, which ONNX
/// Runtime computes once, when it makes the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScaleType {
    /// One byte, times a float32 factor for each row.
    #[default]
    Uint8,
    /// Two bytes.
    Float16,
    /// Four bytes, as the operator takes them: no nodes before it.
    Float32,
}

impl ScaleType {
    /// The element type of stored scales.
    pub fn dtype(self) -> DataType {
        match self {
            ScaleType::Uint8 => DataType::Uint8,
            ScaleType::Float16 => DataType::Float16,
            ScaleType::Float32 => DataType::Float32,
        }
    }
}

/// The form of one weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coding {
    /// 2, 4 or 8.
    pub bits: u32,
    /// Elements of a row that share a scale; a power of two, at least 16.
    pub block: usize,
    /// Zero is the middle of the range, and no zero points are stored.
    pub symmetric: bool,
    /// See [`ScaleType`].
    pub scale: ScaleType,
    /// Scales and zero points are looked for by `hqq`, not by `range`.
    pub hqq: bool,
}

impl Coding {
    /// The largest code.
    pub fn highest(&self) -> f32 {
        ((1u32 << self.bits) - 1) as f32
    }

    /// The code of zero, where there are no zero points.
    pub fn middle(&self) -> u8 {
        1 << (self.bits - 1)
    }

    /// The largest magnitude a weight may have: beyond it scales overflow, or the sums by which they are chosen.
    pub fn largest(&self) -> f32 {
        match self.scale {
            ScaleType::Float16 => f32::from(half::f16::MAX) * f32::from(self.middle()) / 2.0,
            ScaleType::Uint8 | ScaleType::Float32 => 1e30,
        }
    }

    /// Blocks of a row; the last may be padded.
    pub fn blocks(&self, columns: usize) -> usize {
        columns.div_ceil(self.block)
    }

    /// Bytes of the codes of a block.
    pub fn block_bytes(&self) -> usize {
        self.block * self.bits as usize / 8
    }

    /// Bytes of the zero points of a row; 0 if it has none.
    pub fn zero_bytes(&self, columns: usize) -> usize {
        if self.symmetric { 0 } else { (self.blocks(columns) * self.bits as usize).div_ceil(8) }
    }

    /// Bits a weight, scales and zero points included, for rows of so many columns.
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

/// A row in the making: a scale and zero point for each block, a code for each weight (padding included).
pub struct CodedRow {
    /// Codes, one a byte.
    pub codes: Vec<u8>,
    /// As they will be read back: rounded to how they are stored. 0 until then for blocks that need none.
    pub scales: Vec<f32>,
    /// Codes that stand for zero.
    pub zeros: Vec<u8>,
    /// What [`ScaleType::Uint8`] scales are multiples of.
    pub factor: f32,
}

impl CodedRow {
    /// A row of zeros.
    pub fn new(coding: &Coding, columns: usize) -> CodedRow {
        let blocks = coding.blocks(columns);
        CodedRow {
            codes: vec![coding.middle(); blocks * coding.block],
            scales: vec![0.0; blocks],
            zeros: vec![coding.middle(); blocks],
            factor: OF_NOTHING,
        }
    }

    /// Rounds the scales to how they are stored. Blocks of zeros, whose scale is 0, take no part in choosing the factor of
    /// the row, and get the smallest scale there is.
    pub fn store_scales(&mut self, coding: &Coding) {
        let largest = self.scales.iter().copied().fold(0f32, f32::max);
        if largest > 0.0 {
            self.factor = (largest / 255.0).max(f32::MIN_POSITIVE);
        }
        for block in 0..self.scales.len() {
            self.choose(coding, block, self.scales[block], self.zeros[block]);
        }
    }

    /// Gives one block another scale and zero point, within how they are stored.
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
            // What is too small for half precision is zero in it, and dividing by that gives nothing.
            ScaleType::Float16 => match half::f16::from_f32(scale.clamp(-65504.0, 65504.0)).to_f32() {
                0.0 => f32::from(half::f16::MIN_POSITIVE_SUBNORMAL),
                stored => stored,
            },
            ScaleType::Uint8 => (scale / self.factor).round().clamp(1.0, 255.0) * self.factor,
        };
    }

    /// The code nearest to `value` in block `block`.
    pub fn nearest(&self, coding: &Coding, block: usize, value: f32) -> u8 {
        let zero = f32::from(self.zeros[block]);
        (range::round((value / self.scales[block]).max(-zero).min(coding.highest() - zero)) + zero) as u8
    }

    /// What a code of block `block` stands for.
    pub fn value(&self, block: usize, code: u8) -> f32 {
        self.scales[block] * (f32::from(code) - f32::from(self.zeros[block]))
    }

    /// Sets every code to the nearest of `row`; padding to zero.
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
