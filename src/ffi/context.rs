//! The context: the ONNX Runtime library, the default number of threads, the log callback and the memory limit.

use super::error::optimize_error_t;
use super::handle::{self, handle};
use super::options::{self, Options};
use super::status::optimize_status_t;
use super::{Out, buffer, c_string, guard, text};
use crate::counters::{Counters, CountersFormat};
use crate::error::{Result, bail};
use crate::limits;
use crate::log::{LogFn, LogLevel, Sink};
use crate::memory::{self, Budget};
use crate::runtime::{Runtime, available, follow_log_level};
use std::ffi::{CString, c_char, c_void};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// A context: the ONNX Runtime library, the default number of threads, the log callback and the memory limit. A program
/// usually has one context. Any number of threads may use it concurrently.
#[allow(non_camel_case_types)]
pub struct optimize_context_t(());

handle!(optimize_context_t(Arc<Context>), b"opt-cont", "context");

/// The value behind a context handle. ONNX Runtime is opened when it is first needed.
pub struct Context {
    library: Option<PathBuf>,
    /// Default number of threads; 0 as in [`optimize_context_options_t`].
    pub(super) threads: usize,
    version: OnceLock<CString>,
    log: Option<Arc<Sink>>,
    /// Limit on the memory of models and sessions that are created with the context; `None` for no limit.
    memory: Option<Arc<Budget>>,
}

impl Context {
    pub(super) fn runtime(&self) -> Result<&'static Runtime> {
        Runtime::open(self.library.as_deref())
    }

    /// Runs `work`, whose models and sessions are charged to the memory limit of the context, and returns its result.
    pub(super) fn limited<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        memory::within(self.memory.as_ref(), work)
    }

    /// Returns `asked`, the number of threads in an options struct, or that of the context if `asked` is 0. Fails with
    /// `InvalidArgument` above [`limits::THREADS`].
    pub(super) fn threads(&self, asked: u32) -> Result<usize> {
        let threads = if asked == 0 { self.threads } else { asked as usize };
        if threads > limits::THREADS {
            bail!(InvalidArgument, "threads is {threads}; the limit is {}", limits::THREADS);
        }
        Ok(threads)
    }
}

/// Level of a log message.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_log_level_t {
    /// Errors and warnings.
    OPTIMIZE_LOG_LEVEL_DEFAULT = 0,
    /// Errors: something has failed.
    OPTIMIZE_LOG_LEVEL_ERROR = 1,
    /// Warnings: something works, but not as well as possible, for example because a slower kernel is used or a file is
    /// ignored.
    OPTIMIZE_LOG_LEVEL_WARNING = 2,
    /// Events, for example: a model was loaded, a session was created.
    OPTIMIZE_LOG_LEVEL_INFO = 3,
    /// Details for developers, including those of ONNX Runtime.
    OPTIMIZE_LOG_LEVEL_DEBUG = 4,
}

/// Log callback. `level` is an optimize_log_level_t, `target` is "optimize" or "onnxruntime", and `message` is UTF-8
/// text, usually one line. Both texts are valid during the callback. The callback receives the messages of the whole
/// process, on any thread, also on several threads at once. It must not throw or use longjmp. It may call the library,
/// also to free its own context.
#[allow(non_camel_case_types)]
pub type optimize_log_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, level: i32, target: *const c_char, message: *const c_char)>;

/// Options of `optimize_context_new`. Fields that are 0 or NULL have their defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_context_options_t {
    /// sizeof(optimize_context_options_t).
    pub struct_size: u32,
    /// Default number of threads, at most 1024. 0 selects one thread per physical core for sessions, and one per
    /// logical processor for work outside of ONNX Runtime, such as quantizing.
    pub threads: u32,
    /// Path of the ONNX Runtime library. NULL selects the path in the environment variable ORT_DYLIB_PATH. If that is
    /// not set, the library is searched for in the folder of this library and of the program, in ../lib and
    /// ../lib/liboptimize next to these folders, and in the system's library path. A process can open only one ONNX
    /// Runtime: with another path, functions that need ONNX Runtime return OPTIMIZE_INVALID_ARGUMENT.
    pub runtime_library: *const c_char,
    /// Log callback, or NULL for no messages. It receives messages until the context is freed.
    pub log: optimize_log_fn,
    /// User data passed to the log callback.
    pub log_user_data: *mut c_void,
    /// Most detailed level of the messages that the log callback receives, an optimize_log_level_t.
    pub log_level: i32,
    /// Must be 0.
    pub reserved: u32,
    /// Maximum memory in bytes of the objects that are created with the context; 0 means no limit. A function that
    /// would exceed it returns OPTIMIZE_LIMIT_EXCEEDED, and existing objects stay usable. The limit counts the contents
    /// of models that are loaded from memory or from a source. For sessions, generators, embedders, classifiers and
    /// taggers, it counts the weights, activations and outputs that ONNX Runtime allocates (also in runs, until the
    /// tensors are freed), the packed weights of this library's kernels, and caches. It does not count mapped files,
    /// whose pages the system can take back at any time; graphs without their weights; small buffers of kernels and
    /// threads; memory of devices; tensors of the program; and the memory that techniques need while they run.
    pub memory_limit: u64,
}
// SAFETY: repr(C), two u32, three pointers that may be NULL, two 32-bit integers and a u64: no padding, all zero is
// valid.
unsafe impl Options for optimize_context_options_t {}

/// Creates a context. ONNX Runtime is opened when it is first needed: loading and saving, for example, do not need it,
/// and neither does quantizing without calibration data, limits or measurements of speed. Returns only statuses that
/// every function can return.
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
            if options.reserved != 0 {
                bail!(InvalidArgument, "reserved is not 0");
            }
            let level = match options.log_level {
                0 => LogLevel::default(),
                level => LogLevel::from_code(level, "log_level")?,
            };
            let memory = (options.memory_limit > 0).then(|| Budget::new(options.memory_limit));
            let context = Context { library, threads: 0, version: OnceLock::new(), log: None, memory };
            let threads = context.threads(options.threads)?;
            let log = options.log.map(|function| Sink::open(level, receiver(function, options.log_user_data)));
            follow_log_level();
            out.set(handle::new(Arc::new(Context { threads, log, ..context })));
            Ok(())
        })
    }
}

/// Writes the version of ONNX Runtime to `version`, for example "1.32.0". This opens ONNX Runtime if it is not open
/// yet. The string is valid until the context is freed. Returns OPTIMIZE_RUNTIME_MISSING if ONNX Runtime is not found
/// (the message lists the places that were searched); OPTIMIZE_INVALID_ARGUMENT if the process has opened ONNX Runtime
/// from another path than `runtime_library`.
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
/// and, if the provider is not available, `status` and `reason`. The object of the CPU also has `kernels`: whether this
/// library's kernels can be used; if they cannot, `kernels_unused` is the reason. A provider is available if ONNX
/// Runtime contains it *and* it could be started on the device with the index `device_id`, which is ignored for the
/// CPU. Returns OPTIMIZE_RUNTIME_MISSING if ONNX Runtime is not found.
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

/// Counters of all models, sessions and threads of the process since its start. Set `struct_size` before the call.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_counters_t {
    /// sizeof(optimize_counters_t).
    pub struct_size: u32,
    /// Always 0.
    pub reserved: u32,
    /// Number of models that were loaded from files or memory.
    pub models_loaded: u64,
    /// Sum of the sizes of all loaded models in bytes. Mapped weights count, even if they were never read.
    pub bytes_loaded: u64,
    /// Time that the loading of models took, in seconds.
    pub load_seconds: f64,
    /// Number of sessions that were created, including those of generators, embedders and techniques.
    pub sessions_created: u64,
    /// Time that the creation of sessions took, in seconds.
    pub session_seconds: f64,
    /// Number of runs of sessions that ended, including failed ones. A generator usually needs one run for each
    /// generated token, and at least one for the prompts.
    pub runs: u64,
    /// Number of runs that failed, including cancelled ones.
    pub failed_runs: u64,
    /// Time that runs took, in seconds, summed over threads.
    pub run_seconds: f64,
    /// Number of runs that are now in progress.
    pub active_runs: u64,
    /// Number of calls that now wait for another call of the same TensorRT engine to end.
    pub waiting_calls: u64,
    /// Number of tokens that the models of generators have read: those of prompts, and generated ones.
    pub read_tokens: u64,
    /// Number of tokens that generators have generated.
    pub generated_tokens: u64,
}
// SAFETY: repr(C), two u32 and 64-bit numbers: no padding, all zero is valid.
unsafe impl Options for optimize_counters_t {}

/// Format of the text with the counters.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_counters_format_t {
    /// A JSON object with the fields of optimize_counters_t.
    OPTIMIZE_COUNTERS_FORMAT_JSON = 0,
    /// The text format of Prometheus, with names that begin with optimize_.
    OPTIMIZE_COUNTERS_FORMAT_PROMETHEUS = 1,
}

/// Writes the counters of the process. They are the same for all contexts, and are not reset. Any thread may call this
/// function.
///
/// Returns OPTIMIZE_INVALID_ARGUMENT if `counters` is NULL or its `struct_size` is not set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_context_counters(
    context: *const optimize_context_t,
    counters: *mut optimize_counters_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            handle::get(context)?;
            let now = Counters::now();
            let full = optimize_counters_t {
                struct_size: 0,
                reserved: 0,
                models_loaded: now.models_loaded,
                bytes_loaded: now.bytes_loaded,
                load_seconds: now.load_seconds,
                sessions_created: now.sessions_created,
                session_seconds: now.session_seconds,
                runs: now.runs,
                failed_runs: now.failed_runs,
                run_seconds: now.run_seconds,
                active_runs: now.active_runs,
                waiting_calls: now.waiting_calls,
                read_tokens: now.read_tokens,
                generated_tokens: now.generated_tokens,
            };
            options::write(&full, counters, "counters")
        })
    }
}

/// Writes the counters of the process as a text; `format` is an optimize_counters_format_t. Any thread may call this
/// function.
///
/// Returns OPTIMIZE_INVALID_ARGUMENT for an unknown format.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_context_counters_text(
    context: *const optimize_context_t,
    format: i32,
    text: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(text, "text")?;
            handle::get(context)?;
            let now = Counters::now();
            out.set(buffer::new(match CountersFormat::from_code(format, "format")? {
                CountersFormat::Json => serde_json::to_string(&now).unwrap_or_default(),
                CountersFormat::Prometheus => now.prometheus(),
            }));
            Ok(())
        })
    }
}

/// Frees a context. NULL is allowed. Objects created with the context remain usable. When this function returns, no
/// thread other than possibly the calling one is in the log callback of the context, and none will call it again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_context_free(context: *mut optimize_context_t) {
    // SAFETY: the contract of `ffi`.
    super::guard_value((), || unsafe {
        if let Ok(Some(log)) = handle::get(context.cast_const()).map(|context| &context.log) {
            log.close();
            follow_log_level();
        }
        handle::free(context);
    });
}

/// Returns the function of a log sink that calls a C function.
fn receiver(
    function: unsafe extern "C" fn(*mut c_void, i32, *const c_char, *const c_char),
    user_data: *mut c_void,
) -> Box<LogFn> {
    struct Data(*mut c_void);
    // SAFETY: the program passes data that its function may use on any thread, which the header requires.
    unsafe impl Send for Data {}
    // SAFETY: as for `Send`.
    unsafe impl Sync for Data {}
    impl Data {
        fn get(&self) -> *mut c_void {
            self.0
        }
    }
    let data = Data(user_data);
    Box::new(move |level, target, text| {
        let (target, text) = (c_string(target), c_string(text));
        // SAFETY: the program's function with the program's data.
        unsafe { function(data.get(), level.code(), target.as_ptr(), text.as_ptr()) }
    })
}
