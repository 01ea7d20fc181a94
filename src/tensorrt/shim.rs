//! The binding of `shim.cc` and `run.cc`: Rust declarations of their structs and functions.

use super::backend::{Backend, Library};
use crate::error::{Kind, Result, error};
use bytes::Bytes;
use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Registers `work`, which is then called when the process exits, before the handlers that were registered earlier.
pub(super) fn at_exit(work: extern "C" fn()) {
    // SAFETY: `work` is a static function, and this library is never unloaded. If there is no memory to register it, it
    // is not called.
    unsafe { libc::atexit(work) };
}

/// The parameters of a build.
pub(super) struct Request<'r> {
    /// Encoded ONNX model.
    pub model: &'r [u8],
    /// Path of the model if it is read from a file.
    pub file: Option<&'r Path>,
    /// Names of the inputs with dynamic sizes, with their ranks.
    pub inputs: &'r [(String, usize)],
    /// Minimum, optimum and maximum shape of each of `inputs`, for each profile.
    pub profiles: &'r [Vec<[Vec<i64>; 3]>],
    /// Names of inputs whose values may be sizes in the model, with the minimum, optimum and maximum of their values.
    pub values: &'r [(String, [i64; 3])],
    /// Bits of the flags of TensorRT's `BuilderFlag`.
    pub flags: u32,
    /// Builder optimization level; -1 for TensorRT's default.
    pub optimization_level: i32,
    /// Hardware compatibility, a value of `HardwareCompatibilityLevel`.
    pub hardware_compatibility: i32,
    /// Verbosity for profilers, a value of `ProfilingVerbosity`.
    pub verbosity: i32,
    /// Size of the workspace in bytes; 0 for TensorRT's default.
    pub workspace: u64,
    /// Compute capabilities to build for (TensorRT-RTX).
    pub capabilities: &'r [i32],
    /// Content of the existing timing cache; `None` for no cache.
    pub timing: Option<&'r [u8]>,
}

/// The result of a build.
#[derive(Debug)]
pub(super) struct Built {
    pub engine: Bytes,
    /// Content of the updated timing cache; empty if there is none.
    pub timing: Bytes,
}

/// A step in the progress of a build.
pub(super) enum Step {
    /// A phase with this number of steps begins.
    Begin { phase: String, steps: u64 },
    /// One more step of the phase is done.
    Done { phase: String },
    /// The phase has ended.
    End { phase: String },
}

/// A callback that receives each step. Returning `false` cancels the build.
pub(super) type Watch<'w> = dyn FnMut(Step) -> bool + 'w;

#[repr(C)]
struct RawRequest {
    create_builder: *mut c_void,
    create_parser: *mut c_void,
    model: *const c_void,
    model_size: u64,
    model_path: *const c_char,
    names: *const *const c_char,
    dims: *const i64,
    ranks: *const i32,
    inputs: i32,
    profiles: i32,
    flags: u32,
    optimization_level: i32,
    hardware_compatibility: i32,
    verbosity: i32,
    workspace: u64,
    value_names: *const *const c_char,
    values: *const i64,
    value_count: i64,
    capabilities: *const i32,
    capability_count: i32,
    timing_given: i32,
    timing: *const c_void,
    timing_size: u64,
    log: Option<unsafe extern "C" fn(*mut c_void, i32, *const c_char)>,
    progress: Option<unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char, i32, i32) -> i32>,
    user: *mut c_void,
}

#[repr(C)]
pub(super) struct RawResult {
    engine: *mut c_void,
    engine_size: u64,
    timing: *mut c_void,
    timing_size: u64,
    pub(super) stage: i32,
    padding: i32,
    error: [c_char; 4096],
}

impl RawResult {
    pub(super) fn empty() -> Box<RawResult> {
        let null = std::ptr::null_mut();
        Box::new(RawResult {
            engine: null,
            engine_size: 0,
            timing: null,
            timing_size: 0,
            stage: 0,
            padding: 0,
            error: [0; 4096],
        })
    }

    pub(super) fn message(&self) -> String {
        // SAFETY: the shim writes with snprintf, which terminates the string; initially it is all zeros.
        unsafe { CStr::from_ptr(self.error.as_ptr()) }.to_string_lossy().trim().to_owned()
    }
}

/// The stages of a failure that are treated separately here. The numbers are those of `Stage` in `shim.hpp`.
pub(super) mod stage {
    pub const START: i32 = 1;
    pub const PARSE: i32 = 2;
    pub const PROFILE: i32 = 3;
    pub const OPTION: i32 = 4;
    pub const MEMORY: i32 = 6;
}

/// A macro that declares the functions of the shim compiled for one backend, in a separate module.
#[cfg(any(tensorrt_rtx1, tensorrt_trt11))]
macro_rules! shim {
    ($module:ident, $suffix:literal) => {
        mod $module {
            use super::{Compiled, RawRequest, RawResult, RawTensor, Running, c_char, c_void};

            unsafe extern "C" {
                #[link_name = concat!("optimize_shim_version_", $suffix)]
                fn version() -> i32;
                #[link_name = concat!("optimize_shim_build_", $suffix)]
                fn build(request: *const RawRequest, result: *mut RawResult) -> i32;
                #[link_name = concat!("optimize_shim_check_", $suffix)]
                fn check(create: *mut c_void, engine: *const c_void, size: u64, result: *mut RawResult) -> i32;
                #[link_name = concat!("optimize_shim_open_", $suffix)]
                fn open(create: *mut c_void, engine: *const c_void, size: u64, result: *mut RawResult) -> *mut c_void;
                #[link_name = concat!("optimize_shim_close_", $suffix)]
                fn close(runner: *mut c_void);
                #[link_name = concat!("optimize_shim_tensor_", $suffix)]
                fn tensor(runner: *mut c_void, index: i32, tensor: *mut RawTensor) -> i32;
                #[link_name = concat!("optimize_shim_range_", $suffix)]
                fn range(
                    runner: *mut c_void,
                    name: *const c_char,
                    profile: i32,
                    which: i32,
                    dims: *mut i64,
                    rank: *mut i32,
                ) -> i32;
                #[link_name = concat!("optimize_shim_profile_", $suffix)]
                fn profile(runner: *mut c_void, profile: i32, stream: *mut c_void, result: *mut RawResult) -> i32;
                #[link_name = concat!("optimize_shim_place_", $suffix)]
                fn place(
                    runner: *mut c_void,
                    name: *const c_char,
                    dims: *const i64,
                    rank: i32,
                    address: *mut c_void,
                    result: *mut RawResult,
                ) -> i32;
                #[link_name = concat!("optimize_shim_shape_", $suffix)]
                fn shape(runner: *mut c_void, name: *const c_char, dims: *mut i64, rank: *mut i32) -> i32;
                #[link_name = concat!("optimize_shim_enqueue_", $suffix)]
                fn enqueue(runner: *mut c_void, stream: *mut c_void, result: *mut RawResult) -> i32;
            }

            pub fn compiled() -> Compiled {
                let running = Running { open, close, tensor, range, profile, place, shape, enqueue };
                // SAFETY: returns a constant.
                Compiled { version: unsafe { version() }, build, check, running }
            }
        }
    };
}

#[cfg(tensorrt_rtx1)]
shim!(rtx1, "rtx1");
#[cfg(tensorrt_trt11)]
shim!(trt11, "trt11");

/// The functions of the shim that was compiled for one backend, and the version of its headers.
pub(super) struct Compiled {
    /// Version of the headers, as they encode it.
    pub version: i32,
    build: unsafe extern "C" fn(*const RawRequest, *mut RawResult) -> i32,
    check: unsafe extern "C" fn(*mut c_void, *const c_void, u64, *mut RawResult) -> i32,
    pub running: Running,
}

/// The functions of `run.cc`, which run an engine.
#[derive(Clone, Copy)]
#[allow(clippy::type_complexity)]
pub(super) struct Running {
    pub open: unsafe extern "C" fn(*mut c_void, *const c_void, u64, *mut RawResult) -> *mut c_void,
    pub close: unsafe extern "C" fn(*mut c_void),
    pub tensor: unsafe extern "C" fn(*mut c_void, i32, *mut RawTensor) -> i32,
    pub range: unsafe extern "C" fn(*mut c_void, *const c_char, i32, i32, *mut i64, *mut i32) -> i32,
    pub profile: unsafe extern "C" fn(*mut c_void, i32, *mut c_void, *mut RawResult) -> i32,
    pub place: unsafe extern "C" fn(*mut c_void, *const c_char, *const i64, i32, *mut c_void, *mut RawResult) -> i32,
    pub shape: unsafe extern "C" fn(*mut c_void, *const c_char, *mut i64, *mut i32) -> i32,
    pub enqueue: unsafe extern "C" fn(*mut c_void, *mut c_void, *mut RawResult) -> i32,
}

/// An input or output of an engine.
#[repr(C)]
pub(super) struct RawTensor {
    pub name: *const c_char,
    pub dims: [i64; 8],
    pub rank: i32,
    pub data_type: i32,
    pub is_input: i32,
    pub on_host: i32,
}

/// Returns the shim for a backend; `None` if this library was built without the headers of the backend.
pub(super) fn compiled(backend: Backend) -> Option<Compiled> {
    match backend {
        #[cfg(tensorrt_rtx1)]
        Backend::TensorRtRtx => Some(rtx1::compiled()),
        #[cfg(tensorrt_trt11)]
        Backend::TensorRt => Some(trt11::compiled()),
        #[allow(unreachable_patterns)]
        _ => None,
    }
}

unsafe extern "C" fn on_progress(
    user: *mut c_void,
    phase: *const c_char,
    _parent: *const c_char,
    step: i32,
    steps: i32,
) -> i32 {
    // SAFETY: `user` is the watch that `build` passed for the duration of the call; phases are C strings of the
    // library.
    let (watch, phase) = unsafe { (&mut *user.cast::<&mut Watch<'_>>(), CStr::from_ptr(phase)) };
    let phase = phase.to_string_lossy().into_owned();
    let step = match step {
        -1 => Step::Begin { phase, steps: u64::try_from(steps).unwrap_or(0) },
        -2 => Step::End { phase },
        _ => Step::Done { phase },
    };
    // A panic must not unwind into C++.
    i32::from(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| watch(step))).unwrap_or(false))
}

/// Builds an engine and returns it. `watch` is called on threads of the backend, one call at a time.
///
/// Fails with `InvalidModel` or `InvalidArgument` if the name of an input or the path contains a NUL byte, and
/// otherwise with the error of the backend, whose kind [`failure`] chooses.
pub(super) fn build(library: &Library, request: &Request<'_>, watch: &mut Watch<'_>) -> Result<Built> {
    let text = |name: &String| match CString::new(name.as_str()) {
        Ok(name) => Ok(name),
        Err(_) => Err(error!(InvalidModel, "the name of an input contains a NUL byte")),
    };
    let path = request.file.map(|file| CString::new(file.as_os_str().as_bytes())).transpose();
    let path = path.map_err(|_| error!(InvalidArgument, "the path of the engine contains a NUL byte"))?;
    let names: Vec<CString> = request.inputs.iter().map(|(name, _)| text(name)).collect::<Result<_>>()?;
    let value_names: Vec<CString> = request.values.iter().map(|(name, _)| text(name)).collect::<Result<_>>()?;
    let pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let value_pointers: Vec<*const c_char> = value_names.iter().map(|name| name.as_ptr()).collect();
    let values: Vec<i64> = request.values.iter().flat_map(|(_, three)| *three).collect();
    let ranks: Vec<i32> = request.inputs.iter().map(|(_, rank)| *rank as i32).collect();
    let dims: Vec<i64> = request.profiles.iter().flatten().flatten().flatten().copied().collect();
    let (mut watch, mut result) = (watch, RawResult::empty());
    let raw = RawRequest {
        create_builder: library.create_builder,
        create_parser: library.create_parser,
        model: request.model.as_ptr().cast(),
        model_size: request.model.len() as u64,
        model_path: path.as_ref().map_or(std::ptr::null(), |path| path.as_ptr()),
        names: pointers.as_ptr(),
        dims: dims.as_ptr(),
        ranks: ranks.as_ptr(),
        inputs: names.len() as i32,
        profiles: if names.is_empty() { 0 } else { request.profiles.len() as i32 },
        flags: request.flags,
        optimization_level: request.optimization_level,
        hardware_compatibility: request.hardware_compatibility,
        verbosity: request.verbosity,
        workspace: request.workspace,
        value_names: value_pointers.as_ptr(),
        values: values.as_ptr(),
        value_count: values.len() as i64 / 3,
        capabilities: request.capabilities.as_ptr(),
        capability_count: request.capabilities.len() as i32,
        timing_given: i32::from(request.timing.is_some()),
        timing: request.timing.map_or(std::ptr::null(), |bytes| bytes.as_ptr().cast()),
        timing_size: request.timing.map_or(0, |bytes| bytes.len() as u64),
        log: None,
        progress: Some(on_progress),
        user: (&raw mut watch).cast(),
    };
    // SAFETY: every pointer lives until the call returns, the counts match the arrays, and the functions come from a
    // library whose version was checked against the headers.
    let status = unsafe { (library.compiled.build)(&raw, &mut *result) };
    // SAFETY: the shim returns memory that it allocated, once.
    let (engine, timing) =
        unsafe { (take(result.engine, result.engine_size), take(result.timing, result.timing_size)) };
    if status == 0 { Ok(Built { engine, timing }) } else { Err(failure(library, &result)) }
}

fn failure(library: &Library, result: &RawResult) -> crate::error::Error {
    let (name, text) = (library.name(), result.message());
    match result.stage {
        stage::START => error!(Backend, "{name} could not be started: {text}"),
        stage::PARSE => error!(Unsupported, "{name} does not accept the model: {text}"),
        stage::PROFILE => error!(InvalidArgument, "{name}: {text}"),
        stage::OPTION => error!(InvalidArgument, "{name}: {text}"),
        stage::MEMORY => error!(LimitExceeded, "{text}"),
        _ if text.contains("no optimization profile") => {
            error!(InvalidArgument, "{name}: an input has a dynamic shape, and no profile sets its range: {text}")
        }
        _ if text.contains("Cuda") || text.contains("CUDA") => error!(DeviceMissing, "{name} needs a device: {text}"),
        _ if text.is_empty() => error!(Backend, "{name} built no engine and reported no reason"),
        _ => error!(Backend, "{name}: {text}"),
    }
}

/// Fails if the backend cannot read an engine: with [`Kind::InvalidModel`] if it is not an engine, with `DeviceMissing`
/// if the backend cannot start, or if reading more than the header needs a GPU, and with `Backend` for other reasons.
pub(super) fn check(library: &Library, engine: &[u8]) -> Result<()> {
    let mut result = RawResult::empty();
    // SAFETY: the bytes live until the call returns; the function is the library's own.
    let status = unsafe {
        (library.compiled.check)(library.create_runtime, engine.as_ptr().cast(), engine.len() as u64, &mut *result)
    };
    if status == 0 {
        return Ok(());
    }
    let (name, text) = (library.name(), result.message());
    let kind = match &text {
        text if text.contains("magicTag") || text.contains("erialization") => Kind::InvalidModel,
        text if text.contains("Cuda") || text.contains("CUDA") => Kind::DeviceMissing,
        _ if result.stage == stage::START => Kind::DeviceMissing,
        _ => Kind::Backend,
    };
    Err(crate::error::Error::new(kind, format!("{name} cannot read the engine: {text}")))
}

/// Returns memory that the shim allocated as bytes, which free it when they are dropped.
///
/// # Safety
/// `data` must be NULL or come from `malloc` with at least `size` bytes, and must not be used elsewhere.
unsafe fn take(data: *mut c_void, size: u64) -> Bytes {
    struct Malloced(*mut c_void, usize);
    // SAFETY: memory is not bound to a thread.
    unsafe impl Send for Malloced {}
    impl AsRef<[u8]> for Malloced {
        fn as_ref(&self) -> &[u8] {
            // SAFETY: the contract of `take`.
            unsafe { std::slice::from_raw_parts(self.0.cast(), self.1) }
        }
    }
    impl Drop for Malloced {
        fn drop(&mut self) {
            // SAFETY: the contract of `take`.
            unsafe { libc::free(self.0) }
        }
    }
    if data.is_null() { Bytes::new() } else { Bytes::from_owner(Malloced(data, size as usize)) }
}
