//! Memory that this library and ONNX Runtime share without a copy.
//!
//! The `unsafe` code that passes memory to and from runs of a model is here, each part behind a safe function.

use crate::error::{Result, bail};
use crate::memory::{self, Charge};
use crate::onnx::dtype::DataType;
use bytes::Bytes;
use half::{bf16, f16};
use ort::AsPointer;
use ort::session::{NoSelectedOutputs, RunOptions, Session};
use ort::value::{DynTensor, DynTensorValueType, DynValue, TensorElementType};
use std::alloc::Layout;
use std::ffi::{CString, c_char};
use std::ptr::{NonNull, null_mut};

/// Types without padding for which every bit pattern is valid. The trait cannot be implemented outside this crate.
pub trait Plain: Copy + Send + Sync + 'static {}

macro_rules! plain {
    ($($rust:ty),+) => { $(impl Plain for $rust {})+ };
}
plain!(f32, f64, f16, bf16, u8, u16, u32, u64, i8, i16, i32, i64);

/// A vector that can be read as bytes.
struct Owned<T>(Vec<T>);

impl<T: Plain> AsRef<[u8]> for Owned<T> {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the elements are initialized and have no padding (`Plain`); bytes have no alignment.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), size_of_val(&self.0[..])) }
    }
}

/// Returns the memory of a vector as bytes, without a copy.
pub fn bytes_from_vec<T: Plain>(elements: Vec<T>) -> Bytes {
    Bytes::from_owner(Owned(elements))
}

/// Returns bytes as elements of type `T`; `None` if they are not aligned for it or not a whole number of elements.
pub fn slice_of<T: Plain>(bytes: &[u8]) -> Option<&[T]> {
    if bytes.is_empty() {
        return Some(&[]);
    }
    // SAFETY: any bit pattern is a value of `T` (`Plain`).
    let (before, elements, after) = unsafe { bytes.align_to::<T>() };
    (before.is_empty() && after.is_empty()).then_some(elements)
}

/// A value of ONNX Runtime that reads bytes of this library in place.
///
/// ONNX Runtime does not know that the bytes are shared: the code that passes `value` on must keep this struct (or a
/// clone of the bytes) for as long as ONNX Runtime may read it.
pub struct Lent {
    /// Value that refers to `bytes`. It comes before them, because fields are dropped in this order.
    pub value: DynValue,
    /// Elements of the value; empty for strings, which the value owns.
    pub bytes: Bytes,
}

/// Returns a value of ONNX Runtime that reads `bytes` in place. Fails with `Runtime` or `Unsupported` if there are
/// fewer bytes than type and shape need, or if this version of ONNX Runtime does not know the type.
pub fn lend(dtype: DataType, shape: &[i64], bytes: Bytes) -> Result<Lent> {
    // ONNX Runtime keeps the address of the bytes and never writes to the memory of an input or an initializer;
    // `Lent` keeps them alive together with the value.
    let value = value_over(dtype, shape, bytes.as_ptr().cast_mut(), bytes.len())?;
    Ok(Lent { value, bytes })
}

/// Returns a value of ONNX Runtime over `size` bytes from `start` on, which the caller must keep for as long as the
/// value is used. Fails like [`lend`].
fn value_over(dtype: DataType, shape: &[i64], start: *mut u8, size: usize) -> Result<DynValue> {
    let element: TensorElementType = element_type(dtype);
    let memory = ort::memory::MemoryInfo::default();
    let mut value = null_mut();
    // SAFETY: every pointer is valid during the call. ONNX Runtime keeps the address, checks that there are enough
    // bytes for type and shape, and reads them when the value is an input of a run (and writes them if it is an
    // output).
    unsafe {
        ort::error::Error::result_from_status((ort::api().CreateTensorWithDataAsOrtValue)(
            memory.ptr(),
            start.cast(),
            size,
            shape.as_ptr(),
            shape.len(),
            element.into(),
            &mut value,
        ))?;
        let Some(value) = NonNull::new(value) else { bail!(Internal, "ONNX Runtime returned no value") };
        Ok(DynValue::from_ptr(value, Some(&ort::memory::Allocator::default())))
    }
}

/// Runs a session and returns the outputs with the names `outputs`, in that order, in host memory.
///
/// Any number of threads may run one session at the same time, as ONNX Runtime documents. The functions of `ort`
/// require `&mut`, because a few execution providers do not support this; this library uses none of them.
///
/// Fails with `NotFound` if a name contains NUL, with `Runtime` or `Unsupported` if ONNX Runtime fails, also because
/// `options` ended the run, and with `Internal` if it returns no value.
pub fn run(
    session: &Session,
    inputs: &[(&str, &DynValue)],
    outputs: &[String],
    options: &RunOptions<NoSelectedOutputs>,
) -> Result<Vec<DynValue>> {
    let inputs_named = c_names(inputs.iter().map(|(name, _)| *name))?;
    let outputs_named = c_names(outputs.iter().map(String::as_str))?;
    let pointers = |names: &[CString]| names.iter().map(|name| name.as_ptr()).collect::<Vec<*const c_char>>();
    let (input_names, output_names) = (pointers(&inputs_named), pointers(&outputs_named));
    let values: Vec<_> = inputs.iter().map(|(_, value)| value.ptr()).collect();
    let mut made = vec![null_mut(); outputs.len()];
    // SAFETY: all pointers are valid during the call, and each list has the length that is passed. On success, each
    // output is a new value that belongs to the caller; on failure, none is.
    unsafe {
        ort::error::Error::result_from_status((ort::api().Run)(
            session.ptr().cast_mut(),
            options.ptr(),
            input_names.as_ptr(),
            values.as_ptr(),
            values.len(),
            output_names.as_ptr(),
            output_names.len(),
            made.as_mut_ptr(),
        ))?;
        // All values are taken over first, so that none is leaked if one is missing.
        let owned = |value| NonNull::new(value).map(|value| DynValue::from_ptr(value, Some(session.allocator())));
        let made: Vec<Option<DynValue>> = made.into_iter().map(owned).collect();
        match made.into_iter().collect() {
            Some(made) => Ok(made),
            None => bail!(Internal, "ONNX Runtime returned no value"),
        }
    }
}

/// Runs a session, which writes the outputs to the values in `outputs`, by name. The values come from [`value_into`].
/// Fails like [`run`].
pub fn run_into(
    session: &Session,
    inputs: &[(&str, &DynValue)],
    outputs: &[(&str, DynValue)],
    options: &RunOptions<NoSelectedOutputs>,
) -> Result<()> {
    let inputs_named = c_names(inputs.iter().map(|(name, _)| *name))?;
    let outputs_named = c_names(outputs.iter().map(|(name, _)| *name))?;
    let pointers = |names: &[CString]| names.iter().map(|name| name.as_ptr()).collect::<Vec<*const c_char>>();
    let (input_names, output_names) = (pointers(&inputs_named), pointers(&outputs_named));
    let values: Vec<_> = inputs.iter().map(|(_, value)| value.ptr()).collect();
    let mut places: Vec<_> = outputs.iter().map(|(_, value)| value.ptr().cast_mut()).collect();
    // SAFETY: all pointers are valid during the call, and each list has the length that is passed. ONNX Runtime writes
    // to the values of the outputs, and makes no new ones for places that are not NULL.
    unsafe {
        Ok(ort::error::Error::result_from_status((ort::api().Run)(
            session.ptr().cast_mut(),
            options.ptr(),
            input_names.as_ptr(),
            values.as_ptr(),
            values.len(),
            output_names.as_ptr(),
            output_names.len(),
            places.as_mut_ptr(),
        ))?)
    }
}

/// Returns a value over memory of the caller, for [`run_into`]. The memory must live as long as the value, and must not
/// be used otherwise until then. Fails like [`lend`].
pub fn value_into(dtype: DataType, shape: &[i64], memory: &mut [u8]) -> Result<DynValue> {
    value_over(dtype, shape, memory.as_mut_ptr(), memory.len())
}

fn c_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<Vec<CString>> {
    let name = |name: &str| match CString::new(name) {
        Ok(name) => Ok(name),
        Err(_) => bail!(NotFound, "the name {name:?} contains NUL"),
    };
    names.map(name).collect()
}

/// A block of memory that ONNX Runtime reads or writes while a model runs.
pub struct Room {
    start: NonNull<u8>,
    layout: Layout,
    size: usize,
    _charge: Charge,
}

// SAFETY: plain memory that nothing else owns; `bytes_mut` and runs (which take `&mut InPlace`) are exclusive.
unsafe impl Send for Room {}
// SAFETY: as for `Send`; shared access only reads.
unsafe impl Sync for Room {}

impl Room {
    /// Returns zeroed memory, aligned to 64 bytes, that is charged to the memory limit of the thread. Pages of large
    /// blocks take no physical memory until they are used. Fails with `LimitExceeded` if the memory is not available.
    pub fn zeroed(size: usize) -> Result<Room> {
        let Ok(layout) = Layout::from_size_align(size.max(1), 64) else {
            bail!(LimitExceeded, "{size} bytes exceed the address space");
        };
        let charge = memory::charge(layout.size() as u64)?;
        // SAFETY: the layout has a size above 0.
        let start = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) });
        let Some(start) = start else { bail!(LimitExceeded, "out of memory for {size} bytes") };
        Ok(Room { start, layout, size, _charge: charge })
    }

    /// Returns a value of ONNX Runtime over the memory. The room must be kept for as long as ONNX Runtime may use the
    /// value, and must not be read or written during a run. Fails like [`lend`].
    pub fn value(&self, dtype: DataType, shape: &[i64]) -> Result<DynValue> {
        value_over(dtype, shape, self.start.as_ptr(), self.size)
    }

    /// Returns the memory as bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `size` initialized bytes from `start` on, which only `&mut self` and runs write.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.size) }
    }

    /// Returns the memory as mutable bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.size) }
    }

    /// Returns the memory as elements of type `T`, without an incomplete one at the end.
    pub fn elements<T: Plain>(&self) -> &[T] {
        // SAFETY: any bit pattern is a value of `T` (`Plain`). The memory is aligned to 64 bytes, so that `align_to`
        // skips nothing at the beginning.
        unsafe { self.bytes().align_to::<T>().1 }
    }

    /// Returns the memory as mutable elements of type `T`, without an incomplete one at the end.
    pub fn elements_mut<T: Plain>(&mut self) -> &mut [T] {
        // SAFETY: as in `elements`.
        unsafe { self.bytes_mut().align_to_mut::<T>().1 }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout; values over it have been dropped (see `value`).
        unsafe { std::alloc::dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// A tensor that ONNX Runtime created, which the bytes that refer to it own.
struct Output(DynTensor, usize);

impl AsRef<[u8]> for Output {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the tensor is dense and in CPU memory (checked by `output_bytes`), has that many bytes according to
        // ONNX Runtime, and is not written after the end of the run that made it.
        unsafe { std::slice::from_raw_parts(self.0.data_ptr().cast(), self.1) }
    }
}

/// Returns the memory of a dense tensor that a run has created as bytes, which may outlive the session. Fails with
/// `Unsupported` for other values, and with `Internal` if the memory is not the host's.
pub fn output_bytes(value: DynValue) -> Result<Bytes> {
    // A sparse tensor has the type of a tensor but is not one.
    if !value.is_tensor() {
        bail!(Unsupported, "the value is not a dense tensor");
    }
    let tensor = value.downcast::<DynTensorValueType>()?;
    if !tensor.memory_info().is_cpu_accessible() {
        bail!(Internal, "the value is not in host memory");
    }
    match tensor.size() {
        None => bail!(Internal, "the value has no size in bytes"),
        Some(0) => Ok(Bytes::new()),
        Some(size) => Ok(Bytes::from_owner(Output(tensor, size))),
    }
}

const TYPES: [(DataType, TensorElementType); 26] = {
    use DataType as D;
    use TensorElementType as T;
    [
        (D::Float32, T::Float32),
        (D::Uint8, T::Uint8),
        (D::Int8, T::Int8),
        (D::Uint16, T::Uint16),
        (D::Int16, T::Int16),
        (D::Int32, T::Int32),
        (D::Int64, T::Int64),
        (D::String, T::String),
        (D::Bool, T::Bool),
        (D::Float16, T::Float16),
        (D::Float64, T::Float64),
        (D::Uint32, T::Uint32),
        (D::Uint64, T::Uint64),
        (D::Complex64, T::Complex64),
        (D::Complex128, T::Complex128),
        (D::Bfloat16, T::Bfloat16),
        (D::Float8E4m3fn, T::Float8E4M3FN),
        (D::Float8E4m3fnuz, T::Float8E4M3FNUZ),
        (D::Float8E5m2, T::Float8E5M2),
        (D::Float8E5m2fnuz, T::Float8E5M2FNUZ),
        (D::Uint4, T::Uint4),
        (D::Int4, T::Int4),
        (D::Float4E2m1, T::Float4E2M1),
        (D::Float8E8m0, T::Float8E8M0),
        (D::Uint2, T::Uint2),
        (D::Int2, T::Int2),
    ]
};

fn element_type(dtype: DataType) -> TensorElementType {
    TYPES[dtype as usize - 1].1
}

/// Returns the element type for one of ONNX Runtime; `None` for types that this library does not know.
pub fn data_type(element: TensorElementType) -> Option<DataType> {
    TYPES.iter().find(|row| row.1 == element).map(|row| row.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_types_is_in_order() {
        for (index, (dtype, element)) in TYPES.iter().enumerate() {
            assert_eq!(dtype.to_onnx() as usize, index + 1);
            assert_eq!((element_type(*dtype), data_type(*element)), (*element, Some(*dtype)));
        }
    }

    #[test]
    fn lent_bytes_are_read_in_place() {
        crate::runtime::test_runtime();
        let bytes = bytes_from_vec(vec![1i16, 2, 3]);
        let lent = lend(DataType::Int16, &[3], bytes.clone()).unwrap();
        let seen = output_bytes(lent.value).unwrap();
        assert_eq!((seen.as_ptr(), &seen[..]), (bytes.as_ptr(), &bytes[..]));
        assert!(lend(DataType::Int16, &[4], bytes).is_err());
        assert_eq!(slice_of::<i16>(&seen).unwrap(), [1, 2, 3]);
        assert!(slice_of::<i16>(&seen[1..]).is_none());
    }
}
