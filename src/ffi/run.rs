//! Runs of sessions.

use super::call::{self, optimize_call_t};
use super::error::optimize_error_t;
use super::handle;
use super::options::{self, Options};
use super::session::{SessionHandle, optimize_session_t};
use super::status::optimize_status_t;
use super::tensor::{optimize_tensor_t, shape_of};
use super::{Out, guard, slice, slice_mut, text, texts};
use crate::error::{Context, Result, bail};
use crate::limits;
use crate::onnx::dtype::DataType;
use crate::runtime::{Destination, Tensor};
use std::ffi::{c_char, c_void};

/// Runs a session. `input_names` and `inputs` have `input_count` elements; all inputs of `optimize_session_input` are
/// required. `output_names` and `outputs` have `output_count` elements; if `output_names` is NULL, all outputs of the
/// model are written to `outputs`, in the order of the model. The caller frees each output. A run of an engine cannot
/// be interrupted: a cancellation takes effect after the run.
///
/// Any number of threads may run one session at the same time, each with its own call. The work of a node is divided
/// among the calling thread and the threads of the session, which all its runs share.
///
/// Names, types and shapes are checked before the run. Returns OPTIMIZE_NOT_FOUND for an input or output that the model
/// does not have; OPTIMIZE_INVALID_ARGUMENT if an input is missing, if its type or shape does not fit (the message
/// names the dimension and the sizes), or if an input or output is named twice; OPTIMIZE_UNSUPPORTED for an input or
/// output that is not a tensor; OPTIMIZE_CANCELLED and OPTIMIZE_TIMEOUT, after which the session remains usable;
/// OPTIMIZE_RUNTIME if ONNX Runtime fails; OPTIMIZE_BACKEND if TensorRT fails to run an engine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_session_run(
    session: *const optimize_session_t,
    input_names: *const *const c_char,
    inputs: *const *const optimize_tensor_t,
    input_count: usize,
    output_names: *const *const c_char,
    output_count: usize,
    call: *const optimize_call_t,
    outputs: *mut *mut optimize_tensor_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            if output_count > limits::RUN_VALUES {
                bail!(InvalidArgument, "output_count is {output_count}; the limit is {}", limits::RUN_VALUES);
            }
            if outputs.is_null() {
                bail!(InvalidArgument, "outputs is NULL; output pointers are required");
            }
            let mut places = Vec::with_capacity(output_count);
            for index in 0..output_count {
                places.push(Out::new(outputs.add(index), "outputs")?);
            }
            let handle = handle::get(session)?;
            let inputs = named(input_names, inputs, input_count)?;
            let names = wanted(handle, output_names, output_count)?;
            let results = call::with(call, |call| handle.ready.run(&inputs, &names, call))?;
            for (place, (_, tensor)) in places.into_iter().zip(results) {
                place.set(handle::new(tensor));
            }
            Ok(())
        })
    }
}

/// The memory of the program for an output of `optimize_session_run_into`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_output_t {
    /// sizeof(optimize_output_t).
    pub struct_size: u32,
    /// Element type of the output, an optimize_dtype_t.
    pub dtype: i32,
    /// Name of the output.
    pub name: *const c_char,
    /// Array of `rank` sizes of the dimensions of the output in this run.
    pub dims: *const i64,
    /// Number of dimensions of the output.
    pub rank: u64,
    /// Memory to which the elements are written, in row-major order. It must be aligned for the type.
    pub data: *mut c_void,
    /// Size of the memory in bytes, which must be that of all elements.
    pub size: u64,
}
// SAFETY: repr(C), two 32-bit integers, two pointers that may be NULL, a u64, a pointer and a u64: no padding.
unsafe impl Options for optimize_output_t {}

/// Runs a session like `optimize_session_run`, and writes outputs to memory of the program instead of new tensors.
/// `outputs` is an array of `output_count` structs, all with the `struct_size` of the first. The shape of each output
/// must be known: `dims` are its exact sizes in this run. The memory of an output must not be used otherwise during the
/// run, and must not overlap that of an input or of another output; after an error, its content is undefined.
///
/// Returns OPTIMIZE_NOT_FOUND for an input or output that the model does not have; OPTIMIZE_INVALID_ARGUMENT if an
/// input or output does not fit the model, or if an output gets another shape; OPTIMIZE_UNSUPPORTED for an output of
/// strings, or one that is not a tensor; otherwise the statuses of `optimize_session_run`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_session_run_into(
    session: *const optimize_session_t,
    input_names: *const *const c_char,
    inputs: *const *const optimize_tensor_t,
    input_count: usize,
    outputs: *const optimize_output_t,
    output_count: usize,
    call: *const optimize_call_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let handle = handle::get(session)?;
            let inputs = named(input_names, inputs, input_count)?;
            let mut outputs = destinations(outputs, output_count)?;
            call::with(call, |call| handle.ready.run_into(&inputs, &mut outputs, call))
        })
    }
}

/// Returns the inputs of a run, as pairs of name and tensor.
///
/// # Safety
/// The contract is that of [`slice`] and [`texts`], and each tensor is NULL or a handle.
unsafe fn named<'a>(
    names: *const *const c_char,
    tensors: *const *const optimize_tensor_t,
    count: usize,
) -> Result<Vec<(&'a str, &'a Tensor)>> {
    if count > limits::RUN_VALUES {
        bail!(InvalidArgument, "input_count is {count}; the limit is {}", limits::RUN_VALUES);
    }
    // SAFETY: same contract.
    let (names, tensors) = unsafe { (texts(names, count, "input_names")?, slice(tensors, count, "inputs")?) };
    let one = |(name, tensor): (&'a str, &*const optimize_tensor_t)| {
        // SAFETY: same contract.
        Ok((name, unsafe { handle::get(*tensor) }.at(|| format!("input {name:?}"))?))
    };
    names.into_iter().zip(tensors).map(one).collect()
}

/// Returns the memory of the caller for the outputs of a run. Fails with `InvalidArgument` for an invalid struct, and
/// with `Unsupported` for an output of strings.
///
/// # Safety
/// `first` is NULL or points to `count` structs of the size that the first announces, each with valid pointers.
unsafe fn destinations<'a>(first: *const optimize_output_t, count: usize) -> Result<Vec<Destination<'a>>> {
    if first.is_null() || count == 0 || count > limits::RUN_VALUES {
        bail!(InvalidArgument, "outputs is NULL, or output_count is not from 1 to {}", limits::RUN_VALUES);
    }
    let one = |index: usize| {
        // SAFETY: same contract. The structs of a caller of another version have another size, which is the same for
        // all of them.
        unsafe {
            let stride = first.cast::<u32>().read() as usize;
            let given = options::read(first.byte_add(index * stride))?;
            let (rank, size) = (usize::try_from(given.rank), usize::try_from(given.size));
            let (rank, size) = (rank.unwrap_or(usize::MAX), size.unwrap_or(usize::MAX));
            let name = text(given.name, "the name of an output")?;
            let checked = || -> Result<Destination<'a>> {
                if given.dtype == DataType::String.to_onnx() {
                    bail!(Unsupported, "strings cannot be written to memory of the program");
                }
                let (dtype, shape) = shape_of(given.dtype, given.dims, rank, size)?;
                let memory = slice_mut(given.data.cast::<u8>(), size, "data")?;
                Ok(Destination { name, dtype, shape, memory })
            };
            checked().at(|| format!("output {name:?}"))
        }
    };
    (0..count).map(one).collect()
}

unsafe fn wanted<'a>(handle: &SessionHandle, names: *const *const c_char, count: usize) -> Result<Vec<&'a str>> {
    if !names.is_null() {
        if count == 0 {
            bail!(InvalidArgument, "output_count is 0: no output is requested");
        }
        // SAFETY: the contract of `ffi`.
        return unsafe { texts(names, count, "output_names") };
    }
    if count != handle.outputs.len() {
        bail!(InvalidArgument, "output_count is {count}, but the model has {} outputs", handle.outputs.len());
    }
    Ok(Vec::new())
}
