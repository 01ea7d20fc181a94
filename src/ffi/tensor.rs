//! Tensors, and descriptions of inputs and outputs.

use super::error::optimize_error_t;
use super::handle::{self, handle};
use super::options::{self, Options};
use super::status::optimize_status_t;
use super::{Out, c_string, copied, guard, slice, texts_of};
use crate::error::{Error, Kind, Result, bail};
use crate::limits;
use crate::model::{Dim, ValueInfo};
use crate::onnx::dtype::{DataType, element_count};
use crate::runtime::Tensor;
use bytes::Bytes;
use std::ffi::{CString, c_char, c_void};

/// A tensor: elements with a type and a shape. It is immutable, and any number of threads may use it concurrently.
#[allow(non_camel_case_types)]
pub struct optimize_tensor_t(());

handle!(optimize_tensor_t(Tensor), b"opt-tens", "tensor");

/// Element types, with the values of ONNX's TensorProto.DataType. In memory, elements of less than a byte are packed,
/// low bits first.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_dtype_t {
    /// The value is not a tensor, or the model does not declare its type.
    OPTIMIZE_DTYPE_UNKNOWN = 0,
    OPTIMIZE_DTYPE_FLOAT32 = 1,
    OPTIMIZE_DTYPE_UINT8 = 2,
    OPTIMIZE_DTYPE_INT8 = 3,
    OPTIMIZE_DTYPE_UINT16 = 4,
    OPTIMIZE_DTYPE_INT16 = 5,
    OPTIMIZE_DTYPE_INT32 = 6,
    OPTIMIZE_DTYPE_INT64 = 7,
    OPTIMIZE_DTYPE_STRING = 8,
    OPTIMIZE_DTYPE_BOOL = 9,
    OPTIMIZE_DTYPE_FLOAT16 = 10,
    OPTIMIZE_DTYPE_FLOAT64 = 11,
    OPTIMIZE_DTYPE_UINT32 = 12,
    OPTIMIZE_DTYPE_UINT64 = 13,
    OPTIMIZE_DTYPE_COMPLEX64 = 14,
    OPTIMIZE_DTYPE_COMPLEX128 = 15,
    OPTIMIZE_DTYPE_BFLOAT16 = 16,
    OPTIMIZE_DTYPE_FLOAT8E4M3FN = 17,
    OPTIMIZE_DTYPE_FLOAT8E4M3FNUZ = 18,
    OPTIMIZE_DTYPE_FLOAT8E5M2 = 19,
    OPTIMIZE_DTYPE_FLOAT8E5M2FNUZ = 20,
    OPTIMIZE_DTYPE_UINT4 = 21,
    OPTIMIZE_DTYPE_INT4 = 22,
    OPTIMIZE_DTYPE_FLOAT4E2M1 = 23,
    OPTIMIZE_DTYPE_FLOAT8E8M0 = 24,
    OPTIMIZE_DTYPE_UINT2 = 25,
    OPTIMIZE_DTYPE_INT2 = 26,
}

/// Release callback of `optimize_tensor_borrow`. It is called once, on any thread, when nothing uses the borrowed
/// memory any more. It must not throw or use longjmp.
#[allow(non_camel_case_types)]
pub type optimize_release_fn = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// Name, type and shape of an input or output. Set `struct_size` before the call. The memory of the pointers belongs to
/// the model or session.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_value_info_t {
    /// sizeof(optimize_value_info_t).
    pub struct_size: u32,
    /// Element type, an optimize_dtype_t. It is OPTIMIZE_DTYPE_UNKNOWN for a sequence or map, or if the model does not
    /// declare it.
    pub dtype: i32,
    /// Name of the input or output.
    pub name: *const c_char,
    /// Number of dimensions, or -1 if the model does not declare it.
    pub rank: i64,
    /// Array of `rank` sizes, where -1 is a dynamic dimension; NULL if there are none.
    pub dims: *const i64,
    /// Array of `rank` names of dimensions, where "" is no name; NULL if there are none. Dimensions with the same name
    /// must have the same size in a run, except for names without meaning that exporters write, such as "?" or
    /// "unk__12".
    pub dim_names: *const *const c_char,
}
// SAFETY: repr(C), two 32-bit integers, a pointer, a 64-bit integer and two pointers: no padding, all zero is valid.
unsafe impl Options for optimize_value_info_t {}

/// Inputs or outputs as C structs.
pub(super) struct Signature(Vec<Entry>);

struct Entry {
    name: CString,
    dtype: i32,
    rank: i64,
    dims: Vec<i64>,
    dim_names: Vec<*const c_char>,
    /// Owner of the strings in `dim_names`.
    _owned: Vec<CString>,
}

// SAFETY: the pointers point into `_owned`, which moves with them and never changes.
unsafe impl Send for Entry {}
// SAFETY: as for `Send`; nothing is written after construction.
unsafe impl Sync for Entry {}

impl Signature {
    pub(super) fn new(values: &[ValueInfo]) -> Signature {
        let entry = |value: &ValueInfo| {
            let shape = value.shape.as_deref().unwrap_or(&[]);
            let size = |d: &Dim| if let Dim::Fixed(size) = d { *size } else { -1 };
            let name = |d: &Dim| if let Dim::Symbolic(name) = d { c_string(name) } else { CString::default() };
            let owned: Vec<CString> = shape.iter().map(name).collect();
            Entry {
                name: c_string(&value.name),
                dtype: value.dtype.map_or(0, DataType::to_onnx),
                rank: value.shape.as_ref().map_or(-1, |s| s.len() as i64),
                dims: shape.iter().map(size).collect(),
                dim_names: owned.iter().map(|name| name.as_ptr()).collect(),
                _owned: owned,
            }
        };
        Signature(values.iter().map(entry).collect())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Writes the value at `index` to `info`. Fails with `NotFound` if there is no such value, and like
    /// [`options::write`].
    ///
    /// # Safety
    /// `info` is NULL or points to a struct of the size it announces.
    pub(super) unsafe fn write(&self, index: usize, info: *mut optimize_value_info_t) -> Result<()> {
        let Some(entry) = self.0.get(index) else {
            bail!(NotFound, "index {index} is out of range; there are {}", self.0.len());
        };
        let full = optimize_value_info_t {
            struct_size: 0,
            dtype: entry.dtype,
            name: entry.name.as_ptr(),
            rank: entry.rank,
            dims: first(&entry.dims),
            dim_names: first(&entry.dim_names),
        };
        // SAFETY: the contract of this function.
        unsafe { options::write(&full, info, "info") }
    }
}

/// Returns the address of the first element, or NULL if there are no elements: garbage collectors of other languages
/// do not accept other invalid addresses.
fn first<T>(list: &[T]) -> *const T {
    if list.is_empty() { std::ptr::null() } else { list.as_ptr() }
}

fn dtype_of(number: i32) -> Result<DataType> {
    match DataType::from_onnx(number) {
        Some(dtype) => Ok(dtype),
        None => bail!(InvalidArgument, "dtype is {number}, which is not a value of optimize_dtype_t"),
    }
}

/// Returns the element type and the shape that the caller passes. Fails with `InvalidArgument` if the type is unknown
/// or string, or if the shape is invalid or does not need exactly `bytes` bytes.
pub(super) unsafe fn shape_of<'a>(
    dtype: i32,
    dims: *const i64,
    rank: usize,
    bytes: usize,
) -> Result<(DataType, &'a [i64])> {
    let dtype = dtype_of(dtype)?;
    if rank > limits::TENSOR_RANK {
        bail!(InvalidArgument, "rank is {rank}; the limit is {}", limits::TENSOR_RANK);
    }
    // SAFETY: the contract of `ffi`.
    let dims = unsafe { slice(dims, rank, "dims") }?;
    if let Some(dim) = dims.iter().find(|d| **d < 0) {
        bail!(InvalidArgument, "dims has the negative size {dim}");
    }
    // The shapes of model files use the same check, which reports `InvalidModel`; here the caller's argument is
    // invalid.
    let needed = element_count(dims).and_then(|count| dtype.bytes_of(count));
    let needed = needed.map_err(|e| Error::new(Kind::InvalidArgument, e.message()))?;
    if dtype == DataType::String {
        bail!(InvalidArgument, "tensors of strings are created by optimize_tensor_new_strings");
    }
    if needed != bytes as u64 {
        bail!(InvalidArgument, "{} of shape {dims:?} needs {needed} bytes, {bytes} were given", dtype.name());
    }
    Ok((dtype, dims))
}

/// Creates a tensor from a copy of the `size` bytes at `data`: row-major elements of `dtype`, an optimize_dtype_t, in
/// native byte order. `dims` are the `rank` sizes of the dimensions; a scalar has `rank` 0. Returns
/// OPTIMIZE_INVALID_ARGUMENT if a size in `dims` is negative, if `size` does not match the shape and the type, if a
/// boolean is neither 0 nor 1, or if the type is unknown or string (see `optimize_tensor_new_strings`).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_tensor_new(
    dtype: i32,
    dims: *const i64,
    rank: usize,
    data: *const c_void,
    size: usize,
    tensor: *mut *mut optimize_tensor_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(tensor, "tensor")?;
            let (dtype, dims) = shape_of(dtype, dims, rank, size)?;
            let bytes = copied(slice(data.cast::<u8>(), size, "data")?)?;
            out.set(handle::new(Tensor::new(dtype, dims, bytes)?));
            Ok(())
        })
    }
}

/// Memory of the caller, which is released by the caller's function.
struct Borrowed {
    data: *const u8,
    size: usize,
    release: optimize_release_fn,
    user_data: *mut c_void,
}

// SAFETY: the header requires memory that any thread may read and a release function that any thread may call.
unsafe impl Send for Borrowed {}
// SAFETY: as for `Send`; the memory is only read.
unsafe impl Sync for Borrowed {}

impl AsRef<[u8]> for Borrowed {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: valid and unchanged until released, by the contract of `optimize_tensor_borrow`.
        unsafe { std::slice::from_raw_parts(self.data, self.size) }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the caller's own function and data.
            unsafe { release(self.user_data) };
        }
    }
}

/// Creates a tensor that uses the caller's memory without copying it. The memory must stay valid and unchanged until
/// `release` is called, which can happen on another thread. If `release` is NULL, the memory must stay valid and
/// unchanged until the tensor is freed and all runs that use it have ended. Memory that is not aligned for the type is
/// copied, and `release` is then called before this function returns: a lock that `release` takes must not be held
/// here. If the call fails, `release` is not called. Returns the statuses of `optimize_tensor_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_tensor_borrow(
    dtype: i32,
    dims: *const i64,
    rank: usize,
    data: *const c_void,
    size: usize,
    release: optimize_release_fn,
    user_data: *mut c_void,
    tensor: *mut *mut optimize_tensor_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(tensor, "tensor")?;
            let (dtype, dims) = shape_of(dtype, dims, rank, size)?;
            let bytes = slice(data.cast::<u8>(), size, "data")?;
            if dtype == DataType::Bool && bytes.iter().any(|b| *b > 1) {
                bail!(InvalidArgument, "a boolean is neither 0 nor 1");
            }
            element_limit(dims)?;
            let borrowed = Borrowed { data: bytes.as_ptr(), size, release, user_data };
            out.set(handle::new(Tensor::new(dtype, dims, Bytes::from_owner(borrowed))?));
            Ok(())
        })
    }
}

/// Fails with `LimitExceeded` above [`limits::TENSOR_ELEMENTS`], like `Tensor::new`, but before the ownership of the
/// memory is transferred.
fn element_limit(dims: &[i64]) -> Result<()> {
    match element_count(dims)? > limits::TENSOR_ELEMENTS {
        true => bail!(LimitExceeded, "the tensor has more than {} elements", limits::TENSOR_ELEMENTS),
        false => Ok(()),
    }
}

/// Creates a tensor of strings from copies of `count` UTF-8 strings in row-major order. `dims` are the `rank` sizes of
/// the dimensions. `sizes` are the lengths of the strings in bytes; NULL means that the strings are NUL-terminated.
/// Returns OPTIMIZE_INVALID_ARGUMENT if a size in `dims` is negative, or if `count` does not match the shape.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_tensor_new_strings(
    dims: *const i64,
    rank: usize,
    strings: *const *const c_char,
    sizes: *const usize,
    count: usize,
    tensor: *mut *mut optimize_tensor_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(tensor, "tensor")?;
            if rank > limits::TENSOR_RANK {
                bail!(InvalidArgument, "rank is {rank}; the limit is {}", limits::TENSOR_RANK);
            }
            let dims = slice(dims, rank, "dims")?;
            let strings = texts_of(strings, sizes, count, "strings")?.into_iter().map(str::to_owned).collect();
            out.set(handle::new(Tensor::from_strings(dims, strings)?));
            Ok(())
        })
    }
}

/// Returns the element type, an optimize_dtype_t, or OPTIMIZE_DTYPE_UNKNOWN if `tensor` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_tensor_dtype(tensor: *const optimize_tensor_t) -> i32 {
    // SAFETY: the contract of `ffi`.
    unsafe { handle::get(tensor) }.map_or(0, |t| t.dtype().to_onnx())
}

/// Returns the number of dimensions, which is 0 for a scalar, or 0 if `tensor` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_tensor_rank(tensor: *const optimize_tensor_t) -> usize {
    // SAFETY: the contract of `ffi`.
    unsafe { handle::get(tensor) }.map_or(0, |t| t.shape().len())
}

/// Returns the array of the sizes of all dimensions, or NULL if the rank is 0 or `tensor` is NULL. The pointer is
/// valid until the tensor is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_tensor_dims(tensor: *const optimize_tensor_t) -> *const i64 {
    // SAFETY: the contract of `ffi`.
    unsafe { handle::get(tensor) }.map_or(std::ptr::null(), |t| first(t.shape()))
}

/// Returns the address of the elements in row-major order, or NULL for a tensor of strings, a tensor without elements,
/// or if `tensor` is NULL. The pointer is valid until the tensor is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_tensor_data(tensor: *const optimize_tensor_t) -> *const c_void {
    // SAFETY: the contract of `ffi`.
    let tensor = unsafe { handle::get(tensor) };
    tensor.ok().filter(|t| t.strings().is_none()).map_or(std::ptr::null(), |t| first(t.bytes()).cast())
}

/// Returns the size of all elements in bytes, or 0 for a tensor of strings or if `tensor` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_tensor_size(tensor: *const optimize_tensor_t) -> usize {
    // SAFETY: the contract of `ffi`.
    unsafe { handle::get(tensor) }.map_or(0, |t| t.bytes().len())
}

/// Writes the address and the length of the string at row-major position `index` of a tensor of strings: `size` bytes
/// of UTF-8 at `data`, not NUL-terminated. The string is valid until the tensor is freed. Returns
/// OPTIMIZE_INVALID_ARGUMENT for a tensor of another type; OPTIMIZE_NOT_FOUND if there is no such string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_tensor_string(
    tensor: *const optimize_tensor_t,
    index: usize,
    data: *mut *const c_char,
    size: *mut usize,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(data.cast::<*mut c_char>(), "data")?;
            if size.is_null() {
                bail!(InvalidArgument, "size is NULL; an output pointer is required");
            }
            let tensor = handle::get(tensor)?;
            let Some(strings) = tensor.strings() else {
                bail!(InvalidArgument, "the tensor holds {}, not strings", tensor.dtype().name());
            };
            let Some(string) = strings.get(index) else {
                bail!(NotFound, "index {index} is out of range; there are {} strings", strings.len());
            };
            size.write(string.len());
            out.set(string.as_ptr().cast_mut().cast());
            Ok(())
        })
    }
}

/// Frees a tensor. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_tensor_free(tensor: *mut optimize_tensor_t) {
    // SAFETY: the contract of `ffi`.
    super::guard_value((), || unsafe { handle::free(tensor) });
}
