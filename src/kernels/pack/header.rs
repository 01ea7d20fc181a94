//! The header of packed bytes: everything that a reader needs to interpret them.

use super::scales::ScaleFormat;
use super::{Blocks, Dense, Int8, PackError, Precision};
use crate::kernels::Class;

/// Version of the packed formats, which every change of one of them increases.
const VERSION: u32 = 2;

/// The description of packed weights that a file stores with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearHeader {
    /// Class of the kernels for which the weights are packed.
    pub(in crate::kernels) class: Class,
    /// Precision of the weights.
    pub(in crate::kernels) precision: Precision,
    /// Number of inputs (K).
    pub(in crate::kernels) k: usize,
    /// Number of outputs (N).
    pub(in crate::kernels) n: usize,
    /// Format of the blocks, if the weights are in blocks.
    pub(in crate::kernels) blocks: BlockFormat,
}

/// The format of packed zero points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum ZeroPointFormat {
    /// No zero points are stored: each is 2^(bits - 1).
    #[default]
    Default = 0,
    Uint8 = 1,
    /// float32 zero points, only for codes of 4 bits.
    Float32 = 2,
}

impl ZeroPointFormat {
    const ALL: [Self; 3] = [Self::Default, Self::Uint8, Self::Float32];

    /// Returns the size of a zero point in bytes.
    pub fn size(self) -> usize {
        [0, 1, 4][self as usize]
    }
}

/// The format of packed weights in blocks. For weights that are not in blocks, it is the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockFormat {
    /// Number of bits of a code: 4 or 8.
    pub bits: usize,
    /// Number of weights that share a scale.
    pub block: usize,
    /// Format of the scales.
    pub scales: ScaleFormat,
    /// Format of the zero points.
    pub zero_points: ZeroPointFormat,
}

impl LinearHeader {
    /// Number of bytes of a header in a file.
    pub const LEN: usize = 32;

    /// Returns the bytes of the header, as a file stores them.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let words = [
            VERSION,
            self.class as u32,
            self.precision as u32,
            self.k as u32,
            self.n as u32,
            self.blocks.bits as u32,
            self.blocks.block as u32,
            self.blocks.scales as u32 | (self.blocks.zero_points as u32) << 8,
        ];
        let mut bytes = [0; Self::LEN];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Returns the header with these bytes, which [`Self::to_bytes`] has written. Fails if it is damaged, has another
    /// version, or describes sizes that the kernels do not support.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Result<Self, PackError> {
        let word = |index: usize| {
            bytes[index * 4..].iter().take(4).rev().fold(0u32, |word, byte| word << 8 | u32::from(*byte))
        };
        if word(0) != VERSION {
            return Err(PackError::Header("another version"));
        }
        let class = Class::from_number(word(1)).ok_or(PackError::Header("the class is unknown"))?;
        let precision = Precision::ALL
            .into_iter()
            .find(|precision| *precision as u32 == word(2))
            .ok_or(PackError::Header("the precision is unknown"))?;
        let [k, n, bits, block, flags] = [3, 4, 5, 6, 7].map(|index| word(index) as usize);
        let scales = ScaleFormat::ALL.into_iter().find(|format| *format as usize == flags & 0xff);
        let zero_points = ZeroPointFormat::ALL.into_iter().find(|format| *format as usize == flags >> 8);
        let (Some(scales), Some(zero_points)) = (scales, zero_points) else {
            return Err(PackError::Header("the format of scales or zero points is unknown"));
        };
        let blocks = BlockFormat { bits, block, scales, zero_points };
        let header = Self { class, precision, k, n, blocks };
        header.bytes()?;
        Ok(header)
    }

    /// Returns the number of packed bytes that the header describes. Fails if the sizes are not supported,
    /// or if codes of 8 bits have float32 zero points.
    pub fn bytes(&self) -> Result<usize, PackError> {
        super::count(self.k, self.n)?;
        match self.precision {
            Precision::Float32 | Precision::Bfloat16 => Ok(Dense::of(self).len()),
            Precision::Int8 => Ok(Int8::of(self).len()),
            Precision::Blocks | Precision::ExactBlocks => {
                super::blocks::check(self.blocks.bits, self.blocks.block)?;
                if self.blocks.zero_points == ZeroPointFormat::Float32 && self.blocks.bits != 4 {
                    return Err(PackError::Header("float32 zero points of codes with 8 bits"));
                }
                Ok(Blocks::of(self).len())
            }
        }
    }
}
