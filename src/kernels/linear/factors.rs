//! Scales and zero points of a panel of weights in blocks, as the kernels read them.

use super::by_rows;
use crate::kernels::pack::{Blocks, Scales, ZeroPoints};
use crate::kernels::scratch::Scratch;
use crate::kernels::simd::{Simd, Work};

/// A source of scales and zero points.
pub trait Factors: Copy {
    /// Returns the scales and the zero points of the columns of vector `vector` (0 or 1) in block `block` of K.
    ///
    /// # Safety
    /// The panel has this block.
    unsafe fn get<V: Simd>(&self, block: usize, vector: usize) -> (V::F, V::F);
}

/// Scales and zero points in their packed formats.
#[derive(Clone, Copy)]
pub struct Packed<S, Z> {
    scales: S,
    zero_points: Z,
}

impl<S: Scale, Z: ZeroPoint> Factors for Packed<S, Z> {
    #[inline(always)]
    unsafe fn get<V: Simd>(&self, block: usize, vector: usize) -> (V::F, V::F) {
        let place = (block * 2 + vector) * V::LANES;
        // SAFETY: guaranteed by the caller.
        unsafe { (self.scales.load::<V>(place, vector), self.zero_points.load::<V>(place)) }
    }
}

/// The zero points of a panel in one format.
pub trait ZeroPoint: Copy {
    /// Returns a vector of zero points, beginning with the zero point `place`.
    ///
    /// # Safety
    /// The panel has `place + V::LANES` zero points.
    unsafe fn load<V: Simd>(&self, place: usize) -> V::F;
}

/// The default zero point, which is the same number for all blocks.
impl ZeroPoint for f32 {
    #[inline(always)]
    unsafe fn load<V: Simd>(&self, _: usize) -> V::F {
        V::splat(*self)
    }
}

/// Zero points in uint8, with the number that is subtracted from each.
impl ZeroPoint for (&[u8], i32) {
    #[inline(always)]
    unsafe fn load<V: Simd>(&self, place: usize) -> V::F {
        // SAFETY: guaranteed by the caller.
        unsafe { V::to_f32(V::isub(V::iload_u8(self.0.as_ptr().add(place)), V::isplat(self.1))) }
    }
}

impl ZeroPoint for &[f32] {
    #[inline(always)]
    unsafe fn load<V: Simd>(&self, place: usize) -> V::F {
        // SAFETY: guaranteed by the caller.
        unsafe { V::load(self.as_ptr().add(place)) }
    }
}

/// The scales of a panel in one format.
pub trait Scale: Copy {
    /// Returns a vector of scales, beginning with the scale `place`: those of vector `vector` (0 or 1) of the columns.
    ///
    /// # Safety
    /// The panel has `place + V::LANES` scales.
    unsafe fn load<V: Simd>(&self, place: usize, vector: usize) -> V::F;
}

impl Scale for &[f32] {
    #[inline(always)]
    unsafe fn load<V: Simd>(&self, place: usize, _: usize) -> V::F {
        // SAFETY: guaranteed by the caller.
        unsafe { V::load(self.as_ptr().add(place)) }
    }
}

impl Scale for &[u16] {
    #[inline(always)]
    unsafe fn load<V: Simd>(&self, place: usize, _: usize) -> V::F {
        // SAFETY: guaranteed by the caller.
        unsafe { V::load_half(self.as_ptr().add(place)) }
    }
}

impl Scale for (&[u8], &[f32]) {
    #[inline(always)]
    unsafe fn load<V: Simd>(&self, place: usize, vector: usize) -> V::F {
        // SAFETY: guaranteed by the caller; there is a factor for each column.
        unsafe {
            let factors = V::load(self.1.as_ptr().add(vector * V::LANES));
            V::mul(V::to_f32(V::iload_u8(self.0.as_ptr().add(place))), factors)
        }
    }
}

/// Scales and zero points that were converted to float32, for a panel that many rows are multiplied by.
#[derive(Clone, Copy)]
pub struct Converted(*const f32);

impl Factors for Converted {
    #[inline(always)]
    unsafe fn get<V: Simd>(&self, block: usize, vector: usize) -> (V::F, V::F) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let from = self.0.add((block * 2 + vector) * 2 * V::LANES);
            (V::load(from), V::load(from.add(V::LANES)))
        }
    }
}

/// The scales and zero points of one panel.
#[derive(Clone, Copy)]
pub struct Panel<'a> {
    layout: Blocks,
    scales: Scales<'a>,
    zero_points: ZeroPoints<'a>,
    moved: i32,
}

impl<'a> Panel<'a> {
    /// Returns the scales and zero points of panel `index`, with `moved` subtracted from zero points of 8 bits.
    pub fn new(layout: &Blocks, bytes: &'a [u8], index: usize, moved: i32) -> Self {
        let range = index * layout.blocks * layout.panel..(index + 1) * layout.blocks * layout.panel;
        let scales = match layout.scales(bytes) {
            Scales::Float32(scales) => Scales::Float32(&scales[range.clone()]),
            Scales::Float16(scales) => Scales::Float16(&scales[range.clone()]),
            Scales::Uint8(scales, factors) => {
                Scales::Uint8(&scales[range.clone()], &factors[index * layout.panel..][..layout.panel])
            }
        };
        let zero_points = match layout.zero_points(bytes) {
            ZeroPoints::Default(zero_point) => ZeroPoints::Default(zero_point),
            ZeroPoints::Uint8(zero_points) => ZeroPoints::Uint8(&zero_points[range]),
            ZeroPoints::Float32(zero_points) => ZeroPoints::Float32(&zero_points[range]),
        };
        Self { layout: *layout, scales, zero_points, moved }
    }

    /// Returns the number of float32 values that [`Self::convert`] writes.
    pub fn converted(layout: &Blocks) -> usize {
        layout.blocks * layout.panel * 2
    }

    /// Converts the scales and zero points to float32, and returns them. They are in `memory`, which must outlive them
    /// and have room for [`Self::converted`] values.
    #[inline(always)]
    pub fn convert<V: Simd>(&self, memory: &mut Scratch) -> Converted {
        let to = memory.start().cast::<f32>();
        V::call(Convert { panel: *self, to });
        Converted(to)
    }

    /// Calls `work` with the scales and zero points as they are packed.
    #[inline(always)]
    pub fn packed<V: Simd>(&self, work: impl WithFactors) {
        match self.scales {
            Scales::Float32(scales) => self.with_scales::<V, _>(scales, work),
            Scales::Float16(scales) => self.with_scales::<V, _>(scales, work),
            Scales::Uint8(scales, factors) => self.with_scales::<V, _>((scales, factors), work),
        }
    }

    #[inline(always)]
    fn with_scales<V: Simd, S: Scale>(&self, scales: S, work: impl WithFactors) {
        match self.zero_points {
            ZeroPoints::Default(zero_point) => {
                let zero_points = (i32::from(zero_point) - self.moved) as f32;
                work.run::<V>(Packed { scales, zero_points });
            }
            ZeroPoints::Uint8(zero_points) => {
                work.run::<V>(Packed { scales, zero_points: (zero_points, self.moved) });
            }
            ZeroPoints::Float32(zero_points) => work.run::<V>(Packed { scales, zero_points }),
        }
    }
}

/// Work on scales and zero points that is compiled for each of their packed formats.
pub trait WithFactors {
    /// Runs the work. Always inlined, so that it is compiled with the instructions of `V`.
    fn run<V: Simd>(self, factors: impl Factors);
}

/// The product of a block of rows and a panel of columns.
pub trait Tile: Copy {
    /// Writes the product of `R` rows and codes of `BITS` bits. Always inlined, so that it is compiled with the
    /// instructions of `V`.
    fn multiply<V: Simd, const R: usize, const BITS: usize>(self, factors: impl Factors);
}

/// Writes the product of a single row, with scales and zero points as they are packed.
#[inline(always)]
pub fn row<V: Simd, T: Tile, const BITS: usize>(tile: T, factors: Panel<'_>) {
    V::call(Row::<T, BITS> { tile, factors });
}

/// Writes the product of `rows` rows, at most `V::ROWS / 2`, with scales and zero points converted to float32.
#[inline(always)]
pub fn rows<V: Simd, T: Tile, const BITS: usize>(tile: T, rows: usize, factors: Converted) {
    by_rows!(rows, V::ROWS / 2, |R| Sized::<T, R, BITS>(tile, factors), 1, 2, 3, 4, 5, 6);
}

struct Sized<T, const R: usize, const BITS: usize>(T, Converted);

impl<T: Tile, const R: usize, const BITS: usize> Work for Sized<T, R, BITS> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        self.0.multiply::<V, R, BITS>(self.1);
    }
}

struct Row<'a, T, const BITS: usize> {
    tile: T,
    factors: Panel<'a>,
}

impl<T: Tile, const BITS: usize> Work for Row<'_, T, BITS> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        let factors = self.factors;
        factors.packed::<V>(self);
    }
}

impl<T: Tile, const BITS: usize> WithFactors for Row<'_, T, BITS> {
    #[inline(always)]
    fn run<V: Simd>(self, factors: impl Factors) {
        self.tile.multiply::<V, 1, BITS>(factors);
    }
}

struct Convert<'a> {
    panel: Panel<'a>,
    to: *mut f32,
}

impl Work for Convert<'_> {
    #[inline(always)]
    fn run<V: Simd>(self) {
        self.panel.packed::<V>(Store { blocks: self.panel.layout.blocks, to: self.to });
    }
}

struct Store {
    blocks: usize,
    to: *mut f32,
}

impl WithFactors for Store {
    #[inline(always)]
    fn run<V: Simd>(self, factors: impl Factors) {
        for index in 0..self.blocks * 2 {
            // SAFETY: the panel has these blocks, and the memory has room for two vectors for each vector of columns.
            unsafe {
                let (scales, zero_points) = factors.get::<V>(index / 2, index % 2);
                V::store(self.to.add(index * 2 * V::LANES), scales);
                V::store(self.to.add((index * 2 + 1) * V::LANES), zero_points);
            }
        }
    }
}
