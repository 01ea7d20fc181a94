//! 4- and 8-bit weights in blocks of a column, as `MatMulNBits` has them.
//!
//! The packed bytes contain the scales, then the zero points, then the codes, each ordered by panel of columns, block
//! of K and column. Of 8-bit codes, four values of a column are adjacent. Of 4-bit codes, four bytes hold the values
//! 0…3 in their low and 4…7 in their high halves.

use super::{
    ALIGNMENT, LinearHeader, PackError, PackedLinear, Precision, Storage, count, expect, section, section_mut,
};
use crate::kernels::{Class, Parallel, parallel::split};

/// The inputs of a `MatMulNBits` node.
#[derive(Clone, Copy, Debug)]
pub struct BlockWeights<'a> {
    /// N × blocks × (block · bits / 8) bytes, the lower half of a byte first.
    pub codes: &'a [u8],
    /// N × blocks scales; any sign.
    pub scales: &'a [f32],
    /// N × ⌈blocks · bits / 8⌉ bytes; without them the zero point is half the range.
    pub zero_points: Option<&'a [u8]>,
    /// Bits of a code: 4 or 8.
    pub bits: usize,
    /// Number of values of a block: a power of two from 16 to 256.
    pub block: usize,
    /// Whether inputs are multiplied as float32. Otherwise they are quantized to int8 in blocks.
    pub exact: bool,
}

/// The layout of the packed bytes.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    /// Number of columns of a panel.
    pub panel: usize,
    /// Number of panels.
    pub panels: usize,
    /// Number of blocks of a column.
    pub blocks: usize,
    /// Number of values of a block.
    pub block: usize,
    /// Bits of a code.
    pub bits: usize,
}

impl Blocks {
    pub fn of(header: &LinearHeader) -> Self {
        let panel = if header.class >= Class::Avx512Vnni { 32 } else { 16 };
        let (block, bits) = (header.block, header.bits);
        Self { panel, panels: header.n.div_ceil(panel), blocks: header.k.div_ceil(block), block, bits }
    }

    /// Returns the number of scales, which is also that of zero points.
    pub fn count(&self) -> usize {
        self.panels * self.blocks * self.panel
    }

    /// Returns the size in bytes of the codes of one block of a panel.
    pub fn each(&self) -> usize {
        self.panel * self.block * self.bits / 8
    }

    /// Returns the offset of the codes in bytes.
    fn head(&self) -> usize {
        (self.count() * 5).next_multiple_of(ALIGNMENT)
    }

    pub fn len(&self) -> usize {
        self.head() + self.panels * self.blocks * self.each()
    }

    /// Returns all scales.
    pub fn scales<'a>(&self, bytes: &'a [u8]) -> &'a [f32] {
        section(bytes, 0, self.count())
    }

    /// Returns all zero points.
    pub fn zero_points<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        section(bytes, self.count() * 4, self.count())
    }

    /// Returns all codes.
    pub fn codes<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.head()..]
    }

    /// Returns the index of the scale and the zero point of a block of column `n`.
    fn place(&self, block: usize, n: usize) -> usize {
        (n / self.panel * self.blocks + block) * self.panel + n % self.panel
    }

    /// Returns the index of the byte that contains a code, and the shift of the code in it.
    fn index(&self, k: usize, n: usize) -> (usize, usize) {
        let (block, inside, per) = (k / self.block, k % self.block, 32 / self.bits);
        let unit = (n / self.panel * self.blocks + block) * self.each();
        let group = unit + (inside / per * self.panel + n % self.panel) * 4;
        (group + inside % per % 4, inside % per / 4 * 4)
    }

    /// Returns a code, its zero point, and its scale.
    pub fn at(&self, bytes: &[u8], k: usize, n: usize) -> (i32, i32, f32) {
        let (byte, shift) = self.index(k, n);
        let code = self.codes(bytes)[byte] >> shift & mask(self.bits);
        let place = self.place(k / self.block, n);
        (i32::from(code), i32::from(self.zero_points(bytes)[place]), self.scales(bytes)[place])
    }
}

/// Returns 8 values of 4 bits, of which adjacent ones share a byte, in another order: the first four in the lower
/// halves.
fn halves([a, b, c, d]: [u8; 4]) -> [u8; 4] {
    [a & 15 | c << 4, a >> 4 | c & 0xf0, b & 15 | d << 4, b >> 4 | d & 0xf0]
}

fn mask(bits: usize) -> u8 {
    if bits == 4 { 15 } else { 255 }
}

pub fn check(bits: usize, block: usize) -> Result<(), PackError> {
    if bits != 4 && bits != 8 {
        return Err(PackError::Size("bits"));
    }
    if !(16..=256).contains(&block) || !block.is_power_of_two() {
        return Err(PackError::Size("the block"));
    }
    Ok(())
}

pub fn pack(
    weights: &BlockWeights<'_>,
    (k, n): (usize, usize),
    class: Class,
    parallel: &dyn Parallel,
) -> Result<PackedLinear, PackError> {
    check(weights.bits, weights.block)?;
    count(k, n)?;
    let (bits, block) = (weights.bits, weights.block);
    let precision = if weights.exact { Precision::ExactBlocks } else { Precision::Blocks };
    let header = LinearHeader { class, precision, k, n, bits, block };
    let blocks = Blocks::of(&header);
    let row = blocks.blocks * block * bits / 8;
    let zero_row = (blocks.blocks * bits).div_ceil(8);
    expect("codes", weights.codes.len(), n * row)?;
    expect("scales", weights.scales.len(), n * blocks.blocks)?;
    if let Some(zero_points) = weights.zero_points {
        expect("zero points", zero_points.len(), n * zero_row)?;
    }
    let read = |bytes: &[u8], index: usize| bytes[index * bits / 8] >> (index * bits % 8) & mask(bits);
    let mut storage = Storage::zeroed(blocks.len());
    let (head, body) = storage.bytes_mut().split_at_mut(blocks.head());
    let whole = blocks.blocks * blocks.each();
    split(parallel, body, whole, |panel, to| {
        for column in panel * blocks.panel..((panel + 1) * blocks.panel).min(n) {
            let from = &weights.codes[column * row..][..row];
            let groups = k * bits / 32;
            for (group, from) in from.chunks_exact(4).take(groups).enumerate() {
                let (byte, _) = blocks.index(group * 32 / bits, column);
                let from = [from[0], from[1], from[2], from[3]];
                let word = if bits == 4 { halves(from) } else { from };
                to[byte - panel * whole..][..4].copy_from_slice(&word);
            }
            for inside in groups * 32 / bits..k {
                let (byte, shift) = blocks.index(inside, column);
                to[byte - panel * whole] |= read(from, inside) << shift;
            }
        }
    });
    for column in 0..n {
        for index in 0..blocks.blocks {
            let place = blocks.place(index, column);
            section_mut::<f32>(head, 0, blocks.count())[place] = weights.scales[column * blocks.blocks + index];
            section_mut::<u8>(head, blocks.count() * 4, blocks.count())[place] = match weights.zero_points {
                Some(zero_points) => read(&zero_points[column * zero_row..], index),
                None => 1 << (bits - 1),
            };
        }
    }
    Ok(PackedLinear { header, storage })
}
