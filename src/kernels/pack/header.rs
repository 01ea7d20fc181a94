//! The header of packed bytes: everything that a reader needs to interpret them.

use super::{Blocks, Dense, Int8, PackError, Precision};
use crate::kernels::Class;

/// Version of the packed formats, which every change of one of them increases.
const VERSION: u32 = 1;

/// The description of packed weights, which a file stores with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearHeader {
    pub(in crate::kernels) class: Class,
    pub(in crate::kernels) precision: Precision,
    pub(in crate::kernels) k: usize,
    pub(in crate::kernels) n: usize,
    /// Bits of a code (4 or 8), for precisions with blocks.
    pub(in crate::kernels) bits: usize,
    /// Number of weights that share a scale, for precisions with blocks.
    pub(in crate::kernels) block: usize,
}

impl LinearHeader {
    /// Number of bytes of [`Self::to_bytes`].
    pub const LEN: usize = 32;

    /// Returns the header in the form for a file.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let words = [
            VERSION,
            self.class as u32,
            self.precision as u32,
            self.k as u32,
            self.n as u32,
            self.bits as u32,
            self.block as u32,
            0,
        ];
        let mut bytes = [0; Self::LEN];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Returns the header from its form in a file.
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
        let [k, n, bits, block] = [3, 4, 5, 6].map(|index| word(index) as usize);
        let header = Self { class, precision, k, n, bits, block };
        header.bytes()?;
        Ok(header)
    }

    /// Returns the number of packed bytes that belong to this header.
    pub fn bytes(&self) -> Result<usize, PackError> {
        super::count(self.k, self.n)?;
        match self.precision {
            Precision::Float32 | Precision::Bfloat16 => Ok(Dense::of(self).len()),
            Precision::Int8 => Ok(Int8::of(self).len()),
            Precision::Blocks | Precision::ExactBlocks => {
                super::blocks::check(self.bits, self.block)?;
                Ok(Blocks::of(self).len())
            }
        }
    }
}
