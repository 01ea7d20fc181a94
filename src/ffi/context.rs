//! The context: the ONNX Runtime library and the default number of threads.

use super::error::optimize_error_t;
use super::handle::{self, handle};
use super::options::{self, Options};
use super::status::optimize_status_t;
use super::{Out, buffer, guard, text};
use crate::error::{Result, bail};
use crate::limits;
use crate::runtime::{Runtime, available};
use std::ffi::{CString, c_char};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// A context: the ONNX Runtime library and the default number of threads. A program usually has one context. Any
/// number of threads may use it concurrently.
#[allow(non_camel_case_types)]
pub struct optimize_context_t(());

handle!(optimize_context_t(Arc<Context>), b"opt-cont", "context");

/// The value behind a context handle. ONNX Runtime is opened when it is first needed.
pub struct Context {
    library: Option<PathBuf>,
    /// Default number of threads; 0 selects all processors.
    pub(super) threads: usize,
    version: OnceLock<CString>,
}

impl Context {
    pub(super) fn runtime(&self) -> Result<&'static Runtime> {
        Runtime::open(self.library.as_deref())
    }

    /// Returns the number of threads of an options struct, or else that of the context.
    pub(super) fn threads(&self, asked: u32) -> Result<usize> {
        let threads = if asked == 0 { self.threads } else { asked as usize };
        if threads > limits::THREADS {
            bail!(InvalidArgument, "threads is {threads}; the limit is {}", limits::THREADS);
        }
        Ok(threads)
    }
}

/// Options of `optimize_context_new`. Fields that are 0 or NULL have their defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_context_options_t {
    /// sizeof(optimize_context_options_t).
    pub struct_size: u32,
    /// Default number of threads; 0 selects all processors.
    pub threads: u32,
    /// Path of the ONNX Runtime library. NULL selects the path in the environment variable ORT_DYLIB_PATH, or else
    /// searches the folders near this library and the program, and the system's library path. A process can open only
    /// one ONNX Runtime: the path of another library returns OPTIMIZE_INVALID_ARGUMENT.
    pub runtime_library: *const c_char,
}
// SAFETY: repr(C), two u32 and a pointer that may be NULL.
unsafe impl Options for optimize_context_options_t {}

/// Creates a context. ONNX Runtime is opened when it is first needed; loading, quantizing without calibration, and
/// saving do not need it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_context_new(
    options: *const optimize_context_options_t,
    context: *mut *mut optimize_context_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(context, "context")?;
            let options = options::read(options)?;
            let library = match options.runtime_library.is_null() {
                true => None,
                false => Some(PathBuf::from(text(options.runtime_library, "runtime_library")?)),
            };
            let context = Context { library, threads: 0, version: OnceLock::new() };
            let threads = context.threads(options.threads)?;
            out.set(handle::new(Arc::new(Context { threads, ..context })));
            Ok(())
        })
    }
}

/// Writes the version of ONNX Runtime to `version`, for example "1.32.0". This opens ONNX Runtime if it is not open
/// yet. The string is valid until the context is freed. Returns OPTIMIZE_RUNTIME_MISSING if ONNX Runtime is not
/// found; the message lists the places that were searched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_context_runtime_version(
    context: *const optimize_context_t,
    version: *mut *const c_char,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(version.cast::<*mut c_char>(), "version")?;
            let context = handle::get(context)?;
            let found = context.runtime()?.version();
            let kept = context.version.get_or_init(|| CString::new(found).unwrap_or_default());
            out.set(kept.as_ptr().cast_mut());
            Ok(())
        })
    }
}

/// Writes the execution providers, best first, as JSON: a list of objects with `provider`, `device_id`, `available`
/// and, if the provider is not available, `status` and `reason`. A provider is available if ONNX Runtime contains it
/// *and* it could be started on the given device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_context_providers(
    context: *const optimize_context_t,
    device_id: u32,
    json: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(json, "json")?;
            let found = available(handle::get(context)?.runtime()?, device_id);
            out.set(buffer::new(serde_json::to_string(&found).unwrap_or_default()));
            Ok(())
        })
    }
}

/// Frees a context. NULL is allowed. Objects created with it remain usable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_context_free(context: *mut optimize_context_t) {
    // SAFETY: the contract of `ffi`.
    super::guard_value((), || unsafe { handle::free(context) });
}
