//! 4- and 8-bit weights in blocks of a column, as `MatMulNBits` has them.
//!
//! The packed bytes contain the scales, then the zero points, then the codes, each ordered by panel of columns, block
//! of K and column. Scales have the first of the formats float16, uint8 and float32 that is exact for all of them;
//! uint8 scales follow the factors of the columns. Zero points are not stored if all of them are 2^(bits - 1). Of 8-bit
//! codes, four values of a column are adjacent. Of 4-bit codes, four bytes hold the values 0…3 in their low and 4…7 in
//! their high halves.

use super::header::ZeroPointFormat;
use super::scales::{ScaleFormat, Scales, ZeroPoints, byte, choose};
use super::{
    ALIGNMENT, BlockFormat, LinearHeader, PackError, PackedLinear, Precision, Storage, count, expect, section,
    section_mut,
};
use crate::kernels::{Class, Parallel, parallel::split};
use half::f16;
use std::borrow::Cow;

/// The inputs of a `MatMulNBits` node.
#[derive(Clone, Copy, Debug)]
pub struct BlockWeights<'a> {
    /// Codes of the weights: N × blocks × (block · bits / 8) bytes, the lower half of a byte first.
    pub codes: &'a [u8],
    /// Scales of the blocks: N × blocks numbers of any sign.
    pub scales: &'a [f32],
    /// Zero points of the blocks: N × ⌈blocks · bits / 8⌉ bytes; `None` if each is 2^(bits - 1).
    pub zero_points: Option<&'a [u8]>,
    /// Offsets of the blocks: blocks × N numbers that are added to the dequantized weights, only with 4 bits; `None`
    /// for no offsets.
    pub offsets: Option<&'a [f32]>,
    /// Number of bits of a code: 4 or 8.
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
    /// Number of bits of a code.
    pub bits: usize,
    format: BlockFormat,
}

impl Blocks {
    /// Returns the layout of the packed bytes that a header describes.
    pub fn of(header: &LinearHeader) -> Self {
        let panel = if header.class >= Class::Avx512Vnni { 32 } else { 16 };
        let BlockFormat { block, bits, .. } = header.blocks;
        let (panels, blocks) = (header.n.div_ceil(panel), header.k.div_ceil(block));
        Self { panel, panels, blocks, block, bits, format: header.blocks }
    }

    /// Returns the number of scales, which is also the number of zero points.
    pub fn count(&self) -> usize {
        self.panels * self.blocks * self.panel
    }

    /// Returns the size in bytes of the codes of one block of a panel.
    pub fn each(&self) -> usize {
        self.panel * self.block * self.bits / 8
    }

    /// Returns the number of columns' factors: 0 unless the scales are uint8.
    fn factors(&self) -> usize {
        if self.format.scales == ScaleFormat::Uint8 { self.panels * self.panel } else { 0 }
    }

    /// Returns the size of the scales in bytes, including the factors and the padding that aligns float32 zero points.
    fn scale_bytes(&self) -> usize {
        (self.factors() * 4 + self.count() * self.format.scales.size()).next_multiple_of(4)
    }

    /// Returns the size in bytes of what precedes the codes: the scales and zero points, and the padding that aligns
    /// the codes.
    fn head(&self) -> usize {
        (self.scale_bytes() + self.count() * self.format.zero_points.size()).next_multiple_of(ALIGNMENT)
    }

    /// Returns the number of packed bytes.
    pub fn len(&self) -> usize {
        self.head() + self.panels * self.blocks * self.each()
    }

    /// Returns the scales of all panels.
    pub fn scales<'a>(&self, bytes: &'a [u8]) -> Scales<'a> {
        let (start, count) = (self.factors() * 4, self.count());
        match self.format.scales {
            ScaleFormat::Float32 => Scales::Float32(section(bytes, start, count)),
            ScaleFormat::Float16 => Scales::Float16(section(bytes, start, count)),
            ScaleFormat::Uint8 => Scales::Uint8(section(bytes, start, count), section(bytes, 0, self.factors())),
        }
    }

    /// Returns the zero points of all panels.
    pub fn zero_points<'a>(&self, bytes: &'a [u8]) -> ZeroPoints<'a> {
        let (start, count) = (self.scale_bytes(), self.count());
        match self.format.zero_points {
            ZeroPointFormat::Default => ZeroPoints::Default(default_zero_point(self.bits)),
            ZeroPointFormat::Uint8 => ZeroPoints::Uint8(section(bytes, start, count)),
            ZeroPointFormat::Float32 => ZeroPoints::Float32(section(bytes, start, count)),
        }
    }

    /// Returns the codes of all panels.
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

    /// Returns a code, with its zero point and its scale.
    pub fn at(&self, bytes: &[u8], k: usize, n: usize) -> (i32, f32, f32) {
        let (byte, shift) = self.index(k, n);
        let code = self.codes(bytes)[byte] >> shift & mask(self.bits);
        let place = self.place(k / self.block, n);
        let zero_point = match self.zero_points(bytes) {
            ZeroPoints::Default(zero_point) => f32::from(zero_point),
            ZeroPoints::Uint8(zero_points) => f32::from(zero_points[place]),
            ZeroPoints::Float32(zero_points) => zero_points[place],
        };
        let scale = match self.scales(bytes) {
            Scales::Float32(scales) => scales[place],
            Scales::Float16(scales) => f16::from_bits(scales[place]).to_f32(),
            Scales::Uint8(scales, factors) => f32::from(scales[place]) * factors[n],
        };
        (i32::from(code), zero_point, scale)
    }
}

/// Returns 8 values of 4 bits, of which adjacent ones share a byte, in the packed order: the first four in the lower
/// halves.
fn halves([a, b, c, d]: [u8; 4]) -> [u8; 4] {
    [a & 15 | c << 4, a >> 4 | c & 0xf0, b & 15 | d << 4, b >> 4 | d & 0xf0]
}

/// Returns the zero point of weights that have none: half the range of the codes.
fn default_zero_point(bits: usize) -> u8 {
    1 << (bits - 1)
}

fn mask(bits: usize) -> u8 {
    if bits == 4 { 15 } else { 255 }
}

/// Fails unless the kernels support codes of `bits` bits in blocks of `block` values.
pub fn check(bits: usize, block: usize) -> Result<(), PackError> {
    if bits != 4 && bits != 8 {
        return Err(PackError::Size("bits"));
    }
    if !(16..=256).contains(&block) || !block.is_power_of_two() {
        return Err(PackError::Size("the block"));
    }
    Ok(())
}

/// Scales and zero points in their packed formats, N × blocks of each.
struct Numbers<'a> {
    scales: Cow<'a, [f32]>,
    scale_format: ScaleFormat,
    /// Factors of the columns, if scales are packed as uint8.
    factors: Vec<f32>,
    zero_points: Vec<f32>,
    zero_point_format: ZeroPointFormat,
}

impl<'a> Numbers<'a> {
    /// Returns the scales and zero points of `weights`, with `blocks` blocks per column.
    fn new(weights: &BlockWeights<'a>, blocks: usize) -> Self {
        let (mut scales, count) = (Cow::Borrowed(weights.scales), weights.scales.len());
        let default = f32::from(default_zero_point(weights.bits));
        let mut zero_points = match weights.zero_points {
            Some(given) => {
                let rows = given.chunks_exact((blocks * weights.bits).div_ceil(8).max(1));
                rows.flat_map(|row| (0..blocks).map(|index| f32::from(read(row, index, weights.bits)))).collect()
            }
            None => vec![default; count],
        };
        let mut zero_point_format = ZeroPointFormat::Uint8;
        if let Some(offsets) = weights.offsets {
            shift(scales.to_mut(), &mut zero_points, offsets, blocks);
            zero_point_format = ZeroPointFormat::Float32;
        } else if zero_points.iter().all(|zero_point| *zero_point == default) {
            zero_point_format = ZeroPointFormat::Default;
        }
        let (scale_format, factors) = choose(&scales, blocks);
        Self { scales, scale_format, factors, zero_points, zero_point_format }
    }

    /// Writes the scales and zero points to the bytes before the codes.
    fn write(&self, blocks: &Blocks, to: &mut [u8]) {
        let (count, scales, zero_points) = (blocks.count(), blocks.factors() * 4, blocks.scale_bytes());
        section_mut(to, 0, blocks.factors())[..self.factors.len()].copy_from_slice(&self.factors);
        for (from, (scale, zero_point)) in self.scales.iter().zip(&self.zero_points).enumerate() {
            let (column, index) = (from / blocks.blocks, from % blocks.blocks);
            let place = blocks.place(index, column);
            match self.scale_format {
                ScaleFormat::Float32 => section_mut(to, scales, count)[place] = *scale,
                ScaleFormat::Float16 => section_mut(to, scales, count)[place] = f16::from_f32(*scale).to_bits(),
                ScaleFormat::Uint8 => {
                    section_mut(to, scales, count)[place] = byte(*scale, self.factors[column]).unwrap_or_default();
                }
            }
            match self.zero_point_format {
                ZeroPointFormat::Default => {}
                ZeroPointFormat::Uint8 => section_mut(to, zero_points, count)[place] = *zero_point as u8,
                ZeroPointFormat::Float32 => section_mut(to, zero_points, count)[place] = *zero_point,
            }
        }
    }
}

/// Maximum magnitude of the quotient of an offset and its scale.
const LARGEST_SHIFT: f32 = (1u64 << 40) as f32;

/// Adds `offsets` (blocks × N) to the zero points: `scale (q - z) + offset` is `scale (q - (z - offset / scale))`. If
/// the scale is 0, or almost 0 compared with the offset, the scale is changed as well, such that the weight is the
/// offset for every code: codes are less than half a unit in the last place of [`LARGEST_SHIFT`].
fn shift(scales: &mut [f32], zero_points: &mut [f32], offsets: &[f32], blocks: usize) {
    let n = scales.len() / blocks.max(1);
    for (place, (scale, zero_point)) in scales.iter_mut().zip(zero_points).enumerate() {
        let offset = offsets[place % blocks * n + place / blocks];
        if *scale == 0.0 || (offset / *scale).abs() > LARGEST_SHIFT {
            (*scale, *zero_point) = (-offset / LARGEST_SHIFT, LARGEST_SHIFT);
        } else {
            *zero_point -= offset / *scale;
        }
    }
}

/// Returns the value with this index among packed values of `bits` bits.
fn read(bytes: &[u8], index: usize, bits: usize) -> u8 {
    bytes[index * bits / 8] >> (index * bits % 8) & mask(bits)
}

/// Fails unless the slices of `weights` have the lengths that follow from K, N and the block size.
fn check_lengths(weights: &BlockWeights<'_>, (k, n): (usize, usize)) -> Result<(), PackError> {
    let (bits, blocks) = (weights.bits, k.div_ceil(weights.block));
    expect("codes", weights.codes.len(), n * blocks * weights.block * bits / 8)?;
    expect("scales", weights.scales.len(), n * blocks)?;
    if let Some(zero_points) = weights.zero_points {
        expect("zero points", zero_points.len(), n * (blocks * bits).div_ceil(8))?;
    }
    if let Some(offsets) = weights.offsets {
        expect("offsets", offsets.len(), n * blocks)?;
        if bits != 4 {
            return Err(PackError::Size("the bits of weights with offsets"));
        }
    }
    Ok(())
}

/// Packs weights in blocks, for `class`, and returns them. Fails if a size is not supported, or if a slice does not
/// have the length that follows from the sizes.
pub fn pack(
    weights: &BlockWeights<'_>,
    (k, n): (usize, usize),
    class: Class,
    parallel: &dyn Parallel,
) -> Result<PackedLinear, PackError> {
    check(weights.bits, weights.block)?;
    count(k, n)?;
    check_lengths(weights, (k, n))?;
    let (bits, block) = (weights.bits, weights.block);
    let numbers = Numbers::new(weights, k.div_ceil(block));
    let (scales, zero_points) = (numbers.scale_format, numbers.zero_point_format);
    let precision = if weights.exact { Precision::ExactBlocks } else { Precision::Blocks };
    let header = LinearHeader { class, precision, k, n, blocks: BlockFormat { bits, block, scales, zero_points } };
    let blocks = Blocks::of(&header);
    let mut storage = Storage::resident(blocks.len());
    let (head, body) = storage.bytes_mut().split_at_mut(blocks.head());
    numbers.write(&blocks, head);
    let (row, whole) = (blocks.blocks * block * bits / 8, blocks.blocks * blocks.each());
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
                to[byte - panel * whole] |= read(from, inside, bits) << shift;
            }
        }
    });
    Ok(PackedLinear { header, storage })
}
