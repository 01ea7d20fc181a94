//! Packed weights, in the order in which the kernels of one class read them.
//!
//! A *panel* consists of 16 or 32 columns (outputs) whose weights are adjacent in the packed bytes.

mod blocks;
mod dense;
mod header;
mod int8;
mod resident;
mod scales;
mod storage;

use super::{Class, Parallel};
pub use blocks::BlockWeights;
pub(super) use blocks::Blocks;
pub(super) use dense::{Dense, from_bfloat16, to_bfloat16};
pub(super) use header::BlockFormat;
pub use header::LinearHeader;
pub use int8::Int8Weights;
pub(super) use int8::{Int8, inverse};
#[cfg(test)]
pub(super) use scales::ScaleFormat;
pub(super) use scales::{Scales, ZeroPoints};
pub use storage::{ALIGNMENT, Storage};

/// The precision of packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Precision {
    /// float32, the reference precision.
    Float32 = 0,
    /// bfloat16, with float32 sums.
    Bfloat16 = 1,
    /// 8 bits, with a scale and a zero point per column, for inputs that are quantized to 8 bits.
    Int8 = 2,
    /// 4 or 8 bits, with a scale per block of a column (`MatMulNBits`), for inputs that are quantized to int8.
    Blocks = 3,
    /// 4 or 8 bits, with a scale per block of a column, for inputs that stay float32.
    ExactBlocks = 4,
}

impl Precision {
    /// All precisions of packed weights.
    pub const ALL: [Self; 5] = [Self::Float32, Self::Bfloat16, Self::Int8, Self::Blocks, Self::ExactBlocks];
}

/// The layout of a weight matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// K rows of N values, as in `MatMul`.
    KxN,
    /// N rows of K values, as in `Gemm` with `transB` and `MatMulNBits`.
    NxK,
}

/// Maximum number of columns of a panel.
const WIDEST: usize = 32;

/// Copies the elements of row `k` of a K × N matrix to `to`, beginning with the column `start`. `sizes` are K and N.
#[inline]
fn copy_row<T: Copy>(from: &[T], layout: Layout, (k, start): (usize, usize), sizes: (usize, usize), to: &mut [T]) {
    match layout {
        Layout::KxN => to.copy_from_slice(&from[k * sizes.1 + start..][..to.len()]),
        Layout::NxK => {
            let columns = from[start * sizes.0..].chunks_exact(sizes.0);
            columns.zip(to).for_each(|(column, to)| *to = column[k]);
        }
    }
}

/// The reason why weights cannot be packed, or packed bytes cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackError {
    /// The length of a slice does not match the sizes.
    Length {
        /// Name of the slice whose length is wrong.
        what: &'static str,
        /// Actual length of this slice.
        found: usize,
        /// Required length of this slice.
        expected: usize,
    },
    /// K, N, the number of bits or the block size is not supported by the kernels.
    Size(&'static str),
    /// The packed bytes are damaged or were written by another version.
    Header(&'static str),
    /// The address of the packed bytes is not a multiple of 64.
    Alignment,
    /// This processor does not support the class.
    Class(Class),
}

impl std::fmt::Display for PackError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Length { what, found, expected } => write!(f, "{what}: {found} values instead of {expected}"),
            Self::Size(what) => write!(f, "{what} is out of range"),
            Self::Header(what) => write!(f, "the header of the packed weights: {what}"),
            Self::Alignment => write!(f, "packed weights do not begin at a multiple of {ALIGNMENT} bytes"),
            Self::Class(class) => write!(f, "this processor does not run {} kernels", class.name()),
        }
    }
}

impl std::error::Error for PackError {}

/// The weights of a linear layer with K inputs and N outputs, packed for one class.
#[derive(Debug)]
pub struct PackedLinear {
    header: LinearHeader,
    storage: Storage,
}

impl PackedLinear {
    /// Packs float32 weights in `precision`, and returns them. They are packed for `class` or, if this processor does
    /// not support it, for the fastest lower class. With `Int8`, each column has a scale that maps its largest
    /// magnitude to 127.
    ///
    /// Fails if the length of `weights` is not K × N, if K is larger than 65536 or N larger than 2²⁴, and for `Blocks`
    /// and `ExactBlocks`, which [`Self::from_blocks`] packs.
    pub fn from_f32(
        weights: &[f32],
        layout: Layout,
        (k, n): (usize, usize),
        precision: Precision,
        class: Class,
        parallel: &dyn Parallel,
    ) -> Result<Self, PackError> {
        Self::from_f32_as(weights, layout, (k, n), precision, class.usable(), parallel)
    }

    /// Packs float32 weights as [`Self::from_f32`] does, also for a class that this processor does not support, and
    /// returns them. Fails like [`Self::from_f32`].
    pub(super) fn from_f32_as(
        weights: &[f32],
        layout: Layout,
        (k, n): (usize, usize),
        precision: Precision,
        class: Class,
        parallel: &dyn Parallel,
    ) -> Result<Self, PackError> {
        expect("weights", weights.len(), count(k, n)?)?;
        match precision {
            Precision::Float32 | Precision::Bfloat16 => {
                dense::pack(weights, layout, (k, n), precision, class, parallel)
            }
            Precision::Int8 => int8::pack_f32(weights, layout, (k, n), class, parallel),
            Precision::Blocks | Precision::ExactBlocks => Err(PackError::Size("the block of float32 weights")),
        }
    }

    /// Packs int8 or uint8 weights with the scales and zero points of a quantized model, for a class as
    /// [`Self::from_f32`] does, and returns them. Fails if K or N is too large or a slice has the wrong length.
    pub fn from_int8(
        weights: &Int8Weights<'_>,
        (k, n): (usize, usize),
        class: Class,
        parallel: &dyn Parallel,
    ) -> Result<Self, PackError> {
        int8::pack(weights, (k, n), class.usable(), parallel)
    }

    /// Packs the blocks of a `MatMulNBits` node, for a class as [`Self::from_f32`] does, and returns them. Fails if a
    /// size is not supported or a slice has the wrong length.
    pub fn from_blocks(
        weights: &BlockWeights<'_>,
        (k, n): (usize, usize),
        class: Class,
        parallel: &dyn Parallel,
    ) -> Result<Self, PackError> {
        blocks::pack(weights, (k, n), class.usable(), parallel)
    }

    /// Returns the weights with this header and these packed bytes, which are not copied. Fails if this processor does
    /// not support their class, if the kernels do not support the sizes in the header, or if the bytes have the wrong
    /// length or are not aligned to 64 bytes. The content of the bytes is not checked.
    pub fn open(header: LinearHeader, storage: Storage) -> Result<Self, PackError> {
        if !header.class.supported() {
            return Err(PackError::Class(header.class));
        }
        expect("packed weights", storage.bytes().len(), header.bytes()?)?;
        if !storage.bytes().is_empty() && !(storage.bytes().as_ptr() as usize).is_multiple_of(ALIGNMENT) {
            return Err(PackError::Alignment);
        }
        Ok(Self { header, storage })
    }

    /// Returns the header that [`Self::open`] needs for these weights.
    pub fn header(&self) -> LinearHeader {
        self.header
    }

    /// Returns K, the number of inputs of the layer.
    pub fn k(&self) -> usize {
        self.header.k
    }

    /// Returns N, the number of outputs of the layer.
    pub fn n(&self) -> usize {
        self.header.n
    }

    /// Returns the precision of the weights.
    pub fn precision(&self) -> Precision {
        self.header.precision
    }

    /// Returns the class that the weights are packed for.
    pub fn class(&self) -> Class {
        self.header.class
    }

    /// Returns the packed bytes of the weights.
    pub fn bytes(&self) -> &[u8] {
        self.storage.bytes()
    }
}

/// Returns K × N. Fails if a size is larger than the kernels support.
fn count(k: usize, n: usize) -> Result<usize, PackError> {
    // A sum of 65536 products of 8 bits fits into an int32. The bound of N limits what a damaged header can request.
    if k > 1 << 16 {
        return Err(PackError::Size("K"));
    }
    if n > 1 << 24 {
        return Err(PackError::Size("N"));
    }
    Ok(k * n)
}

fn expect(what: &'static str, found: usize, expected: usize) -> Result<(), PackError> {
    if found == expected { Ok(()) } else { Err(PackError::Length { what, found, expected }) }
}

/// Returns the slice of `len` values that begins `start` bytes into `bytes`.
fn section<T: Plain>(bytes: &[u8], start: usize, len: usize) -> &[T] {
    let bytes = &bytes[start..start + len * size_of::<T>()];
    assert_eq!(bytes.as_ptr() as usize % align_of::<T>(), 0);
    // SAFETY: the range is in bounds and aligned, as was just checked; any bits are a valid `T`.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), len) }
}

/// Returns the mutable slice of `len` values that begins `start` bytes into `bytes`.
fn section_mut<T: Plain>(bytes: &mut [u8], start: usize, len: usize) -> &mut [T] {
    let bytes = &mut bytes[start..start + len * size_of::<T>()];
    assert_eq!(bytes.as_ptr() as usize % align_of::<T>(), 0);
    // SAFETY: as in `section`, and the bytes are borrowed exclusively.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), len) }
}

/// A type for which every bit pattern is a valid value.
trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for i32 {}
impl Plain for f32 {}
