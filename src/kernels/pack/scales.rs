//! The scales of weights in blocks, in the first of the formats float16, uint8 and float32 that is exact for all of
//! them.

use half::f16;

/// The format of packed scales.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum ScaleFormat {
    #[default]
    Float32 = 0,
    Float16 = 1,
    /// uint8 scales, each multiplied by the factor of its column.
    Uint8 = 2,
}

impl ScaleFormat {
    pub const ALL: [Self; 3] = [Self::Float32, Self::Float16, Self::Uint8];

    /// Returns the size of a scale in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Float16 => 2,
            Self::Uint8 => 1,
        }
    }
}

/// The scales of packed weights.
#[derive(Clone, Copy, Debug)]
pub enum Scales<'a> {
    Float32(&'a [f32]),
    /// float16 scales, by their bits.
    Float16(&'a [u16]),
    /// uint8 scales, and a factor per column.
    Uint8(&'a [u8], &'a [f32]),
}

/// The zero points of packed weights.
#[derive(Clone, Copy, Debug)]
pub enum ZeroPoints<'a> {
    /// Zero points that are all the same number.
    Default(u8),
    Uint8(&'a [u8]),
    Float32(&'a [f32]),
}

/// Returns the format for these scales, `blocks` per column: float16 if that is exact for all of them, otherwise uint8
/// if that is, otherwise float32. For uint8, also returns the factors of the columns.
pub fn choose(scales: &[f32], blocks: usize) -> (ScaleFormat, Vec<f32>) {
    if scales.iter().all(|scale| f16::from_f32(*scale).to_f32().to_bits() == scale.to_bits()) {
        return (ScaleFormat::Float16, Vec::new());
    }
    let factors: Option<Vec<f32>> = scales.chunks_exact(blocks.max(1)).map(factor).collect();
    factors.map_or((ScaleFormat::Float32, Vec::new()), |factors| (ScaleFormat::Uint8, factors))
}

/// Returns the factor of a column of which all scales are products of an integer from 1 to 255 and the factor; `None`
/// if no such factor is found.
///
/// Quantizers that store scales as bytes, such as this library's, give the largest scale the byte 255. The quotient of
/// scale and byte may differ from the factor by some units in the last place, because the product was rounded.
fn factor(scales: &[f32]) -> Option<f32> {
    let largest = scales.iter().copied().fold(0f32, f32::max);
    if !largest.is_normal() {
        return None;
    }
    let near = (largest / 255.0).to_bits();
    let candidates = (near.saturating_sub(2)..=near + 2).map(f32::from_bits).chain([largest]);
    candidates.filter(|it| it.is_normal()).find(|factor| scales.iter().all(|scale| byte(*scale, *factor).is_some()))
}

/// Returns the integer whose product with `factor`, rounded to float32, is `scale`; `None` if there is none.
pub fn byte(scale: f32, factor: f32) -> Option<u8> {
    let byte = (scale / factor).round();
    ((1.0..=255.0).contains(&byte) && byte * factor == scale).then_some(byte as u8)
}
