//! The element types of a cache of keys and values. bfloat16 elements are converted to float32, exactly, when
//! they are read, and are rounded to the nearest, ties to even, when they are appended.

use super::flash::LARGEST;
use crate::kernels::pack::{from_bfloat16, to_bfloat16};
use crate::kernels::parallel::Shared;
use crate::kernels::simd::Simd;

/// Keys or values that are read.
#[derive(Clone, Copy, Debug)]
pub enum Stored<'a> {
    /// float32 elements.
    Float32(&'a [f32]),
    /// bfloat16 elements, as bits.
    Bfloat16(&'a [u16]),
}

/// Keys or values of a cache to which those of new tokens are appended.
#[derive(Debug)]
pub enum StoredMut<'a> {
    /// float32 elements.
    Float32(&'a mut [f32]),
    /// bfloat16 elements, as bits.
    Bfloat16(&'a mut [u16]),
}

impl Stored<'_> {
    /// Returns the number of elements.
    pub fn count(&self) -> usize {
        match self {
            Self::Float32(values) => values.len(),
            Self::Bfloat16(bits) => bits.len(),
        }
    }

    /// Returns whether the elements have 16 bits.
    pub fn is_narrow(&self) -> bool {
        !matches!(self, Self::Float32(_))
    }

    /// Returns an element as float32.
    pub fn at(&self, index: usize) -> f32 {
        match self {
            Self::Float32(values) => values[index],
            Self::Bfloat16(bits) => from_bfloat16(bits[index]),
        }
    }
}

impl StoredMut<'_> {
    /// Returns a view of the elements.
    pub fn view(&self) -> Stored<'_> {
        match self {
            Self::Float32(values) => Stored::Float32(values),
            Self::Bfloat16(bits) => Stored::Bfloat16(bits),
        }
    }

    /// Returns a pointer to the elements, with which several tasks write.
    pub(super) fn shared(&mut self) -> Target {
        match self {
            Self::Float32(values) => Target::Float32(Shared(values.as_mut_ptr())),
            Self::Bfloat16(bits) => Target::Bfloat16(Shared(bits.as_mut_ptr())),
        }
    }
}

/// Keys or values of a cache that several tasks write.
#[derive(Clone, Copy)]
pub(super) enum Target {
    Float32(Shared<f32>),
    Bfloat16(Shared<u16>),
}

impl Target {
    /// Writes `values` to the elements from `place` on, rounded to their type.
    ///
    /// # Safety
    /// The elements are in bounds, and belong to the task.
    #[inline(always)]
    pub unsafe fn write(&self, place: usize, values: &[f32]) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self {
                Self::Float32(to) => to.at(place).copy_from_nonoverlapping(values.as_ptr(), values.len()),
                Self::Bfloat16(to) => {
                    let to = std::slice::from_raw_parts_mut(to.at(place), values.len());
                    to.iter_mut().zip(values).for_each(|(to, value)| *to = to_bfloat16(*value));
                }
            }
        }
    }
}

/// An element type of keys and values, as kernels read it.
pub(super) trait Element: Copy + 'static {
    /// Number of elements in 32 bits.
    const PACKED: usize;
    /// Number of tokens by which values are prefetched ahead for few columns, when memory bandwidth is the limit.
    const AHEAD: usize;

    /// Returns the element as float32.
    fn widen(self) -> f32;

    /// Loads `LANES` elements as float32.
    ///
    /// # Safety
    /// `LANES` elements can be read at `from`.
    unsafe fn load<V: Simd>(from: *const Self) -> V::F;

    /// Loads the first `count` elements, at most `LANES`; the other lanes are 0.
    ///
    /// # Safety
    /// `count` elements can be read at `from`.
    #[inline(always)]
    unsafe fn load_some<V: Simd>(from: *const Self, count: usize) -> V::F {
        let mut values = [0f32; LARGEST];
        // SAFETY: guaranteed by the caller; a vector has at most LARGEST lanes.
        unsafe {
            for (index, value) in values.iter_mut().enumerate().take(count.min(V::LANES)) {
                *value = (*from.add(index)).widen();
            }
            V::load(values.as_ptr())
        }
    }

    /// Writes the transpose of `LANES` rows of `LANES` · 32 bits to `to`: lane `i` of row `j` has the `j`-th 32 bits of
    /// row `i` of the input.
    ///
    /// # Safety
    /// The rows can be read, and the result can be written. `stride` is a multiple of [`Element::PACKED`].
    unsafe fn transpose<V: Simd>(from: *const Self, stride: usize, to: *mut f32);

    /// Returns element `index` (below [`Element::PACKED`]) of each lane of a row that [`Element::transpose`] wrote.
    ///
    /// # Safety
    /// `LANES` float32 values can be read at `row`.
    unsafe fn part<V: Simd>(row: *const f32, index: usize) -> V::F;
}

/// A bfloat16 number.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Bfloat16(u16);

impl Element for f32 {
    const PACKED: usize = 1;
    const AHEAD: usize = 6;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    unsafe fn load<V: Simd>(from: *const f32) -> V::F {
        // SAFETY: guaranteed by the caller.
        unsafe { V::load(from) }
    }

    #[inline(always)]
    unsafe fn load_some<V: Simd>(from: *const f32, count: usize) -> V::F {
        // SAFETY: guaranteed by the caller.
        unsafe { V::load_some(from, count) }
    }

    #[inline(always)]
    unsafe fn transpose<V: Simd>(from: *const f32, stride: usize, to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe { V::transpose(from, stride, V::LANES, to, V::LANES) }
    }

    #[inline(always)]
    unsafe fn part<V: Simd>(row: *const f32, _: usize) -> V::F {
        // SAFETY: guaranteed by the caller.
        unsafe { V::load(row) }
    }
}

impl Element for Bfloat16 {
    const PACKED: usize = 2;
    const AHEAD: usize = 32;

    #[inline(always)]
    fn widen(self) -> f32 {
        from_bfloat16(self.0)
    }

    #[inline(always)]
    unsafe fn load<V: Simd>(from: *const Self) -> V::F {
        // SAFETY: guaranteed by the caller.
        unsafe { V::load_bf16(from.cast()) }
    }

    #[inline(always)]
    unsafe fn transpose<V: Simd>(from: *const Self, stride: usize, to: *mut f32) {
        // SAFETY: guaranteed by the caller. The lanes are only moved, and no alignment is required.
        unsafe { V::transpose(from.cast(), stride / 2, V::LANES, to, V::LANES) }
    }

    #[inline(always)]
    unsafe fn part<V: Simd>(row: *const f32, index: usize) -> V::F {
        // SAFETY: guaranteed by the caller.
        let pairs = unsafe { V::iload(row.cast()) };
        // The first element of a pair is in the lower half of the lane.
        V::from_bits(if index == 0 { V::shl::<16>(pairs) } else { V::iand(pairs, V::isplat(-0x1_0000)) })
    }
}

/// Converts `count` rows of `size` elements to dense rows of float32.
///
/// # Safety
/// The rows can be read, and the result can be written.
#[inline(always)]
pub(super) unsafe fn widen<V: Simd, E: Element>(
    from: *const E,
    stride: usize,
    (count, size): (usize, usize),
    to: *mut f32,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        for row in 0..count {
            let (from, to) = (from.add(row * stride), to.add(row * size));
            let whole = size / V::LANES * V::LANES;
            for at in (0..whole).step_by(V::LANES) {
                V::store(to.add(at), E::load::<V>(from.add(at)));
            }
            for at in whole..size {
                *to.add(at) = (*from.add(at)).widen();
            }
        }
    }
}
