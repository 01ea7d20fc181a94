//! A view of a tensor of ONNX Runtime.

use std::borrow::Cow;
use std::ffi::c_void;
use std::ptr::null;

use ort::sys::OrtValue;

use super::api::{Api, ask};
use super::status::{Error, Result, check};
use crate::provider::graph::Element;

/// A dense tensor: element type, shape and bytes, borrowed from ONNX Runtime.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// Element type of the tensor.
    pub element: Element,
    /// Shape of the tensor; empty for a scalar.
    pub shape: &'a [i64],
    /// Bytes of the elements. Two 4-bit elements share a byte.
    pub bytes: &'a [u8],
}

impl<'a> Tensor<'a> {
    /// Returns a view of the tensor `value`. Fails if its element type is not supported or its size overflows.
    ///
    /// # Safety
    /// `value` is a tensor of ONNX Runtime in CPU memory that lives and is not written to during `'a`.
    pub unsafe fn read(api: Api, value: *const OrtValue) -> Result<Self> {
        // SAFETY: the contract of this function.
        let ((element, shape), data) =
            unsafe { (describe(api, value)?, ask!(api, GetTensorData(value) -> *const c_void = null())?) };
        let bytes = element
            .bytes(count(shape)?)
            .ok_or_else(|| Error::new("the element type or the size of a tensor is not supported"))?;
        // SAFETY: `data` holds as many values as the sizes say.
        let bytes = if bytes == 0 { &[][..] } else { unsafe { std::slice::from_raw_parts(data.cast::<u8>(), bytes) } };
        Ok(Self { element, shape, bytes })
    }

    /// Returns the number of elements of the tensor.
    pub fn element_count(&self) -> usize {
        self.shape.iter().map(|size| *size as usize).product()
    }

    /// Returns the size of the dimension `axis`, which must exist.
    pub fn size(&self, axis: usize) -> usize {
        self.shape[axis] as usize
    }

    /// Returns the elements of a float32 tensor. They are copied only if they are not aligned. Fails for other element
    /// types.
    pub fn floats(&self) -> Result<Cow<'a, [f32]>> {
        self.plain::<f32>(Element::Float32)
    }

    /// Returns the elements of an int32 tensor, like [`Self::floats`]. Fails for other element types.
    pub fn integers(&self) -> Result<Cow<'a, [i32]>> {
        self.plain::<i32>(Element::Int32)
    }

    /// Returns the elements of an int64 tensor, like [`Self::floats`]. Fails for other element types.
    pub fn longs(&self) -> Result<Cow<'a, [i64]>> {
        self.plain::<i64>(Element::Int64)
    }

    /// Returns the bits of the elements of a tensor of `element`, a type of 16 bits. Fails for other element types.
    pub fn halves(&self, element: Element) -> Result<Cow<'a, [u16]>> {
        if element.bytes(1) != Some(size_of::<u16>()) {
            return Err(Error(format!("elements of {element:?} do not have 16 bits")));
        }
        self.plain::<u16>(element)
    }

    /// Returns the elements of an int8 tensor. Fails for other element types.
    pub fn bytes_signed(&self) -> Result<&'a [i8]> {
        self.expect(Element::Int8)?;
        // SAFETY: every byte is an i8.
        Ok(unsafe { std::slice::from_raw_parts(self.bytes.as_ptr().cast(), self.bytes.len()) })
    }

    fn expect(&self, element: Element) -> Result<()> {
        if self.element == element {
            return Ok(());
        }
        Err(format!("a tensor of {:?} where {element:?} is needed", self.element).into())
    }

    fn plain<T: Plain>(&self, element: Element) -> Result<Cow<'a, [T]>> {
        self.expect(element)?;
        // SAFETY: every pattern of bits is a `T` (see `Plain`).
        let (before, values, after) = unsafe { self.bytes.align_to::<T>() };
        if before.is_empty() && after.is_empty() {
            return Ok(Cow::Borrowed(values));
        }
        Ok(Cow::Owned(self.bytes.chunks_exact(size_of::<T>()).map(T::read).collect()))
    }
}

/// Returns the element type and the shape of the tensor `value`. Fails if ONNX Runtime returns an error.
///
/// # Safety
/// `value` is a tensor of ONNX Runtime that lives during `'a`.
pub(super) unsafe fn describe<'a>(api: Api, value: *const OrtValue) -> Result<(Element, &'a [i64])> {
    // An integer, because later versions may have element types that are not in the enum.
    let (mut element, mut sizes, mut rank) = (0i32, null::<i64>(), 0usize);
    // SAFETY: the contract of this function; the results are pointers into `value`.
    unsafe {
        let ask_shape = api.ort().GetTensorElementTypeAndShapeDataReference;
        check(api.ort(), ask_shape(value, (&raw mut element).cast(), &mut sizes, &mut rank).0)?;
        let shape = if rank == 0 { &[][..] } else { std::slice::from_raw_parts(sizes, rank) };
        Ok((Element::from_onnx(element), shape))
    }
}

/// Types for which every bit pattern is a valid value.
pub trait Plain: Copy + 'static {
    /// Returns the value stored in `bytes`, in the byte order of the machine. Panics if `bytes` does not have the size
    /// of the type.
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! plain {
    ($($type:ty),*) => { $(impl Plain for $type {
        fn read(bytes: &[u8]) -> Self {
            let mut array = [0; size_of::<Self>()];
            array.copy_from_slice(bytes);
            Self::from_ne_bytes(array)
        }
    })* };
}
plain!(f32, i32, i64, u16);

/// Returns the number of elements of a tensor with this shape. Fails if it overflows.
fn count(shape: &[i64]) -> Result<usize> {
    let mut count = 1usize;
    for size in shape {
        let size = usize::try_from(*size).ok();
        count = size
            .and_then(|size| count.checked_mul(size))
            .ok_or_else(|| Error::new("the shape of a tensor is invalid"))?;
    }
    Ok(count)
}
