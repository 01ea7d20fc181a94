//! Sinks: callbacks of the program that receive files.

use super::call::{self, optimize_call_t};
use super::context::optimize_context_t;
use super::error::optimize_error_t;
use super::handle;
use super::model::{optimize_model_t, optimize_save_options_t, save_options};
use super::options::{self, Options};
use super::package::{convert, optimize_package_compile_options_t};
use super::source::{c_name, failure};
use super::status::optimize_status_t;
use super::{Out, buffer, guard, text};
use crate::error::{Result, bail};
use crate::onnx::sink::FileSink;
use crate::package::compile_to;
use std::ffi::{c_char, c_void};

/// Write callback of a sink. It takes the next `size` bytes of the file `name`, at most 4 MiB, and returns OPTIMIZE_OK.
/// The bytes at `data` are valid during the callback. Files come one after another. After the last bytes of a file, the
/// callback is called once with NULL as `data` and 0 as `size`. The value OPTIMIZE_CANCELLED ends the call of the
/// library with this status; any other value but OPTIMIZE_OK ends it with OPTIMIZE_IO. The files are then not complete.
#[allow(non_camel_case_types)]
pub type optimize_write_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, name: *const c_char, data: *const c_void, size: usize) -> i32>;

/// A sink, which receives the files of a model, for example to encrypt or upload them. The callback is required. It is
/// called only during the call of the library to which the sink is passed, on the thread that made this call.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_sink_t {
    /// sizeof(optimize_sink_t).
    pub struct_size: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Write callback.
    pub write: optimize_write_fn,
    /// User data passed to the callback.
    pub user_data: *mut c_void,
}
// SAFETY: repr(C), two u32 and two pointers that may be NULL: no padding, all zero is valid.
unsafe impl Options for optimize_sink_t {}

/// The callback of a sink.
struct Callback {
    write: unsafe extern "C" fn(*mut c_void, *const c_char, *const c_void, usize) -> i32,
    user_data: *mut c_void,
}

impl Callback {
    /// Returns the callback of a sink. Fails with `InvalidArgument` if the sink or its callback is NULL.
    ///
    /// # Safety
    /// The contract is that of [`options::read`]; the callback does what its type requires for as long as the result is
    /// used.
    unsafe fn new(sink: *const optimize_sink_t) -> Result<Callback> {
        if sink.is_null() {
            bail!(InvalidArgument, "sink is NULL");
        }
        // SAFETY: same contract.
        let given = unsafe { options::read(sink) }?;
        if given.reserved != 0 {
            bail!(InvalidArgument, "reserved is not 0");
        }
        match given.write {
            Some(write) => Ok(Callback { write, user_data: given.user_data }),
            None => bail!(InvalidArgument, "the callback of the sink is NULL"),
        }
    }
}

impl FileSink for Callback {
    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let name = c_name(name)?;
        let data = if bytes.is_empty() { std::ptr::null() } else { bytes.as_ptr().cast() };
        // SAFETY: the program's function with the program's data, and bytes of the size that is passed.
        match unsafe { (self.write)(self.user_data, name.as_ptr(), data, bytes.len()) } {
            0 => Ok(()),
            code => Err(failure("write", code)),
        }
    }
}

/// Passes a model to a sink as the file `name`. If the weights are stored in a file of their own
/// (optimize_external_data_t), that file comes first, with a name in the same folder. Names and bytes are those that
/// `optimize_model_save` would write. `report` (may be NULL) receives JSON: {"files": [{"path", "bytes", "sha256"}]}.
/// Progress stages: "hash", for external data, then "save", in bytes of one file. Returns OPTIMIZE_IO if the callback
/// fails; OPTIMIZE_LIMIT_EXCEEDED if the model without external data has more than 2 GiB; OPTIMIZE_INVALID_ARGUMENT for
/// options that contradict each other.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_save_sink(
    model: *const optimize_model_t,
    sink: *const optimize_sink_t,
    name: *const c_char,
    options: *const optimize_save_options_t,
    call: *const optimize_call_t,
    report: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::optional(report);
            let model = &handle::get(model)?.model;
            let (sink, name, (external, packed)) = (Callback::new(sink)?, text(name, "name")?, save_options(options)?);
            let saved = call::with(call, |call| match packed {
                true => model.save_packed_to(&sink, name, call),
                false => model.save_to(&sink, name, external, call),
            })?;
            out.set_with(|| buffer::new(saved.to_json()));
            Ok(())
        })
    }
}

/// Passes a package of a model in one file to a sink as the file `name`, whatever `single_file` of the options says.
/// The bytes are those that `optimize_package_compile` would write. `report` (may be NULL) receives JSON with size and
/// hash. Progress stages: those of quantizing, then "package", in bytes that are hashed, and "save", in bytes that are
/// written. Returns OPTIMIZE_IO if the callback fails, and the statuses of `optimize_package_compile`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_package_compile_sink(
    context: *const optimize_context_t,
    model: *const optimize_model_t,
    sink: *const optimize_sink_t,
    name: *const c_char,
    options: *const optimize_package_compile_options_t,
    call: *const optimize_call_t,
    report: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::optional(report);
            let (context, model) = (handle::get(context)?, &handle::get(model)?.model);
            let (sink, name) = (Callback::new(sink)?, text(name, "name")?);
            let options = convert(&options::read(options)?)?;
            let runtime = context.runtime()?;
            let saved = call::with(call, |call| compile_to(runtime, model, (&sink, name), &options, call))?;
            out.set_with(|| buffer::new(saved.to_json()));
            Ok(())
        })
    }
}
