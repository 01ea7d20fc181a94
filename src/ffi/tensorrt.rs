//! TensorRT engines.

use super::call::{self, optimize_call_t};
use super::context::optimize_context_t;
use super::error::optimize_error_t;
use super::handle;
use super::model::optimize_model_t;
use super::options::{self, Options};
use super::session::{self, optimize_session_t};
use super::status::optimize_status_t;
use super::{Out, buffer, guard, slice, text, texts};
use crate::error::{Context, Result, bail};
use crate::files::digest::hex;
use crate::package::verify;
use crate::tensorrt::{
    Choice, Engine, GivenProfile, OpenOptions, Precision, TensorRtOptions, build, graph, open, parse_dimensions,
    parse_profiles, parse_shapes, save_graph,
};
use std::ffi::c_char;
use std::path::Path;

/// Precision of an engine.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_precision_t {
    /// fp32: the types of the model.
    OPTIMIZE_PRECISION_FP32 = 0,
    /// float16 for matrix products, convolutions and the nodes around them. Needs ONNX Runtime, which measures the
    /// error.
    OPTIMIZE_PRECISION_FP16 = 1,
    /// bfloat16 for the same nodes as OPTIMIZE_PRECISION_FP16. Needs ONNX Runtime, which measures the error.
    OPTIMIZE_PRECISION_BF16 = 2,
    /// 8-bit integers for matrix products and convolutions with a weight. Needs ONNX Runtime, which measures ranges of
    /// activations and the error.
    OPTIMIZE_PRECISION_INT8 = 3,
    /// float8 (e4m3) for the same nodes as OPTIMIZE_PRECISION_INT8. Needs ONNX Runtime for the same measurements.
    OPTIMIZE_PRECISION_FP8 = 4,
}

/// Library that builds an engine.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_tensorrt_backend_t {
    /// TensorRT if the library and a device are available, otherwise TensorRT-RTX, otherwise ONNX Runtime's provider.
    /// The report gives the reason.
    OPTIMIZE_TENSORRT_AUTO = 0,
    /// TensorRT 11 (libnvinfer.so.11), which builds for the device of this machine.
    OPTIMIZE_TENSORRT_NVINFER = 1,
    /// TensorRT-RTX 1 (libtensorrt_rtx.so.1), which needs no device.
    OPTIMIZE_TENSORRT_RTX = 2,
    /// ONNX Runtime's TensorRT provider, which writes a model that contains engines (X_ctx.onnx).
    OPTIMIZE_TENSORRT_ONNXRUNTIME = 3,
}

/// Options of `optimize_model_build_tensorrt`. Fields that are 0 or NULL have their defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_tensorrt_options_t {
    /// sizeof(optimize_tensorrt_options_t).
    pub struct_size: u32,
    /// Precision of the engine, an optimize_precision_t.
    pub precision: i32,
    /// Library that builds the engine, an optimize_tensorrt_backend_t.
    pub backend: i32,
    /// Builder optimization level plus 1: 1 to 6 for TensorRT's levels 0 to 5; 0 selects TensorRT's default.
    pub optimization_level: u32,
    /// Batch size, if it is dynamic in the model. 0 leaves it to the profiles.
    pub batch_size: u64,
    /// Sequence length, if it is dynamic in the model. 0 leaves it to the profiles.
    pub sequence_length: u64,
    /// Minimum, optimal and maximum sizes by the name of the dimension, or by "batch", "sequence" and "past", such as
    /// "batch=1:8:32,sequence=128"; or NULL.
    pub dimensions: *const c_char,
    /// Minimum shapes of inputs, such as "ids:1x16,mask:1x16". NULL selects the optimal shapes.
    pub min_shapes: *const c_char,
    /// Optimal shapes of inputs, for which TensorRT tunes the engine. NULL selects the maximum shapes, or else the
    /// minimum shapes.
    pub opt_shapes: *const c_char,
    /// Maximum shapes of inputs. NULL selects the optimal shapes. If all three are NULL, the sizes are those of
    /// `profiles`, `dimensions`, `batch_size` and `sequence_length`, and of the contract of a package.
    pub max_shapes: *const c_char,
    /// Several profiles as JSON, instead of single shapes: [{"ids": {"min": [1, 16], "opt": [1, 64], "max": [1,
    /// 128]}}]; or NULL.
    pub profiles: *const c_char,
    /// Folder of TensorRT's libraries. NULL selects the folder in the environment variable OPTIMIZE_TENSORRT_PATH, or
    /// else searches for the libraries.
    pub library: *const c_char,
    /// Path of TensorRT's timing cache, which is read if it exists, and updated; NULL uses no cache.
    pub timing_cache: *const c_char,
    /// Maximum device memory for TensorRT's workspace in bytes; 0 means no limit.
    pub workspace: u64,
    /// Maximum error of an output relative to fp32, measured on a sample. As many nodes stay fp32 as are needed to meet
    /// it. 0 selects 0.01 for fp16, 0.08 for bf16 and 0.15 for int8 and fp8.
    pub max_error: f64,
    /// TensorRT-RTX: array of `compute_capability_count` compute capabilities for which to build, such as 89 for 8.9;
    /// NULL selects all.
    pub compute_capabilities: *const i32,
    /// Number of elements in `compute_capabilities`.
    pub compute_capability_count: u64,
    /// A value other than 0 builds an engine that also runs with later versions of TensorRT.
    pub version_compatible: u32,
    /// TensorRT: a value other than 0 builds an engine that runs on all devices from Ampere on.
    pub hardware_compatible: u32,
    /// A value other than 0 strips the weights from the engine. A program must add them with TensorRT's refitter before
    /// the engine runs, which this library does not do.
    pub strip: u32,
    /// A value other than 0 allows programs to replace the weights later with TensorRT's refitter. It cannot be
    /// combined with `strip`.
    pub refit: u32,
    /// A value other than 0 allows TensorRT to use weights with a 2:4 pattern of zeros as sparse weights.
    pub sparsity: u32,
    /// A value other than 0 keeps detailed information on layers, for profilers.
    pub detailed: u32,
    /// A value other than 0 disables TensorFloat-32.
    pub no_tf32: u32,
    /// A value other than 0 builds the engine even if the existing one matches the options.
    pub force: u32,
    /// A value other than 0 returns OPTIMIZE_MISMATCH if the existing engine does not match, instead of replacing it.
    pub refuse_mismatch: u32,
    /// Number of threads of the measurements; 0 uses that of the context.
    pub threads: u32,
    /// int8 and fp8: path of the calibration data that determines the scales: a text, or tensors for the inputs
    /// (X.safetensors). NULL selects built-in sentences or generated numbers.
    pub calibration: *const c_char,
    /// Array of `keep_fp32_count` names of nodes, or of operators, that stay fp32.
    pub keep_fp32: *const *const c_char,
    /// Number of names in `keep_fp32`.
    pub keep_fp32_count: u64,
    /// A value other than 0 builds no engine: the graph for it, with its precisions, is written to `path` as an .onnx
    /// file. Neither TensorRT nor a device is needed.
    pub graph_only: u32,
    /// Must be 0.
    pub reserved: u32,
}
// SAFETY: repr(C): four 32-bit fields, two u64, seven pointers, u64, double, pointer, u64, ten u32, two pointers, u64,
// two u32: no padding.
unsafe impl Options for optimize_tensorrt_options_t {}

/// Builds a TensorRT engine of a model and writes it to `path` (FILE.engine, or a folder for model.engine), with a
/// manifest next to it (FILE.engine.json); with `graph_only`, writes the graph for the engine. An existing engine that
/// matches model, library and options is kept, and the report contains "reused". `report` (may be NULL) receives the
/// JSON of docs/report.md: among others backend, profiles, error relative to fp32, and the nodes that stay fp32, with
/// reasons. Progress stages: "hash", "precision", "build" (in steps; the total grows), for int8 and fp8 also
/// "calibrate". A cancellation of "build" takes effect within about 200 ms; TensorRT may then continue on a thread in
/// the background.
///
/// Returns OPTIMIZE_BACKEND_MISSING if TensorRT is not found; OPTIMIZE_DEVICE_MISSING if the backend needs a device and
/// there is none; OPTIMIZE_UNSUPPORTED for an unsupported version of TensorRT and for operators that TensorRT does not
/// support (the message names them); OPTIMIZE_INVALID_ARGUMENT if a dynamic dimension of an input has no range, or if
/// options contradict each other; OPTIMIZE_NOT_FOUND if the options name an input that the model does not have, or if
/// calibration text is given and the model has no tokenizer; OPTIMIZE_GATE_NOT_MET if `max_error` cannot be met;
/// OPTIMIZE_MISMATCH if `refuse_mismatch` is set and the existing engine does not match.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_build_tensorrt(
    context: *const optimize_context_t,
    model: *const optimize_model_t,
    path: *const c_char,
    options: *const optimize_tensorrt_options_t,
    call: *const optimize_call_t,
    report: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::optional(report);
            let (context, model) = (handle::get(context)?, &handle::get(model)?.model);
            let path = text(path, "path")?;
            let given = options::read(options)?;
            let mut options = convert(&given)?;
            options.threads = context.threads(given.threads)?;
            let runtime = match options.precision {
                // ONNX Runtime only infers shapes here, which few replacements of operators need.
                Precision::Fp32 if options.backend != Choice::OnnxRuntime => context.runtime().ok(),
                _ => Some(context.runtime()?),
            };
            let (output, graph_only) = (Path::new(path), given.graph_only != 0);
            let built = call::with(call, |call| {
                if !graph_only {
                    return build(runtime, model, output, &options, call);
                }
                let (made, mut report) = graph(runtime, model, &options, call)?;
                report.input = Some(model.identity(call)?);
                report.output = Some(save_graph(&made, output, call)?);
                Ok(report)
            })?;
            out.set_with(|| buffer::new(built.to_json()));
            Ok(())
        })
    }
}

/// Checks whether an engine file can be used on this machine and, if `model` is not NULL, whether the engine was built
/// from `model`. Returns OPTIMIZE_OK if the check succeeds. `manifest` (may be NULL) receives the manifest of the
/// engine as JSON. A value of `trust` other than 0 states that you trust the source of the engine, which contains
/// executable code.
///
/// Returns OPTIMIZE_UNTRUSTED if `trust` is 0, or if the engine has no manifest; OPTIMIZE_NOT_FOUND if there is no file
/// at `path`; OPTIMIZE_INVALID_MODEL for a file that does not match its manifest or is not an engine; OPTIMIZE_MISMATCH
/// for an engine of another model, version or device; OPTIMIZE_BACKEND_MISSING if TensorRT is not found;
/// OPTIMIZE_DEVICE_MISSING if there is no device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_tensorrt_check(
    context: *const optimize_context_t,
    path: *const c_char,
    model: *const optimize_model_t,
    trust: u32,
    call: *const optimize_call_t,
    manifest: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::optional(manifest);
            handle::get(context)?;
            let path = text(path, "path")?;
            let model = if model.is_null() { None } else { Some(&handle::get(model)?.model) };
            let found = call::with(call, |call| {
                let model_sha256 = model.map(|model| model.identity(call)).transpose()?.map(|identity| identity.sha256);
                let options = OpenOptions { model_sha256, trust: trust != 0, ..OpenOptions::default() };
                open(Path::new(path), &options)
            })?;
            out.set_with(|| buffer::new(found.to_json()));
            Ok(())
        })
    }
}

/// Options of `optimize_tensorrt_open`. Fields that are 0 or NULL have their defaults. With `trust` 0, every engine
/// is refused with OPTIMIZE_UNTRUSTED.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_tensorrt_open_options_t {
    /// sizeof(optimize_tensorrt_open_options_t).
    pub struct_size: u32,
    /// A value other than 0 states that you trust the source of the engine, which contains code that TensorRT runs.
    pub trust: u32,
    /// Index of the device, from 0.
    pub device_id: u32,
    /// Must be 0.
    pub reserved: u32,
    /// SHA-256 of the model from which the engine must have been built, as 64 hexadecimal digits (`input.sha256` of
    /// reports); or NULL.
    pub model_sha256: *const c_char,
    /// Folder of TensorRT's libraries. NULL selects the folder in the environment variable OPTIMIZE_TENSORRT_PATH, or
    /// else searches for the libraries.
    pub library: *const c_char,
}
// SAFETY: repr(C), four u32 and two pointers that may be NULL: no padding.
unsafe impl Options for optimize_tensorrt_open_options_t {}

/// Creates a session of an engine file (FILE.engine, with its manifest FILE.engine.json next to it) on a device. The
/// session is used like other sessions, and its provider is OPTIMIZE_PROVIDER_TENSORRT. ONNX Runtime is not needed.
///
/// Returns OPTIMIZE_UNTRUSTED if `trust` is 0, or if the engine has no manifest; OPTIMIZE_NOT_FOUND if there is no file
/// at `path`; OPTIMIZE_INVALID_MODEL for a file that does not match its manifest or is not an engine; OPTIMIZE_MISMATCH
/// for an engine of another model, version or device; OPTIMIZE_BACKEND_MISSING if TensorRT is not found;
/// OPTIMIZE_DEVICE_MISSING if there is no such device; OPTIMIZE_BACKEND if TensorRT cannot use the engine on the
/// device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_tensorrt_open(
    context: *const optimize_context_t,
    path: *const c_char,
    options: *const optimize_tensorrt_open_options_t,
    call: *const optimize_call_t,
    session: *mut *mut optimize_session_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(session, "session")?;
            handle::get(context)?;
            let path = text(path, "path")?;
            let (options, device_id) = open_options(options)?;
            let engine = call::with(call, |call| {
                call.check()?;
                Engine::open(Path::new(path), &options, device_id)
            })?;
            out.set(session::of_engine(engine));
            Ok(())
        })
    }
}

/// Returns the options of an engine and the index of its device. Fails with `InvalidArgument` for invalid values.
///
/// # Safety
/// The contract is that of [`options::read`]; the texts are NULL or NUL-terminated.
pub(super) unsafe fn open_options(options: *const optimize_tensorrt_open_options_t) -> Result<(OpenOptions, u32)> {
    // SAFETY: the contract of this function.
    let given = unsafe { options::read(options) }?;
    if given.reserved != 0 {
        bail!(InvalidArgument, "reserved is not 0");
    }
    // SAFETY: the contract of this function.
    let (sha256, library) =
        unsafe { (text_or_null(given.model_sha256, "model_sha256")?, text_or_null(given.library, "library")?) };
    let model_sha256 = match sha256 {
        Some(digits) => Some(hex(&verify::from_hex::<32>(digits).at(|| "model_sha256")?)),
        None => None,
    };
    let (trust, library) = (given.trust != 0, library.map(Into::into));
    Ok((OpenOptions { model_sha256, trust, library, ..OpenOptions::default() }, given.device_id))
}

/// Returns a string, or `None` for NULL. Fails with `InvalidArgument` if the string is not UTF-8.
///
/// # Safety
/// The contract is that of [`text`].
unsafe fn text_or_null<'a>(given: *const c_char, name: &str) -> Result<Option<&'a str>> {
    // SAFETY: the contract of this function.
    if given.is_null() { Ok(None) } else { unsafe { text(given, name) }.map(Some) }
}

/// Returns the options that a C struct describes. Fails with `InvalidArgument` for invalid values.
///
/// # Safety
/// The texts are NULL or NUL-terminated, and each array has as many elements as its count says.
unsafe fn convert(given: &optimize_tensorrt_options_t) -> Result<TensorRtOptions> {
    // SAFETY: the contract of this function.
    let read = |pointer, name| unsafe { text_or_null(pointer, name) };
    let size = |value: u64, name: &str| match i64::try_from(value) {
        Ok(value) => Ok(value),
        Err(_) => bail!(InvalidArgument, "{name} is too large"),
    };
    let shapes = |pointer, name| parse_shapes(read(pointer, name)?.unwrap_or(""));
    let one = GivenProfile {
        min: shapes(given.min_shapes, "min_shapes")?,
        opt: shapes(given.opt_shapes, "opt_shapes")?,
        max: shapes(given.max_shapes, "max_shapes")?,
    };
    let profiles = match read(given.profiles, "profiles")? {
        Some(json) if one == GivenProfile::default() => parse_profiles(json)?,
        Some(_) => bail!(InvalidArgument, "profiles and shapes are both given; only one of them is allowed"),
        None if one == GivenProfile::default() => Vec::new(),
        None => vec![one],
    };
    let count = usize::try_from(given.compute_capability_count).unwrap_or(usize::MAX);
    // SAFETY: the contract of this function.
    let capabilities = unsafe { slice(given.compute_capabilities, count, "compute_capabilities") }?;
    if given.reserved != 0 {
        bail!(InvalidArgument, "reserved is not 0");
    }
    let count = usize::try_from(given.keep_fp32_count).unwrap_or(usize::MAX);
    // SAFETY: the contract of this function.
    let keep_fp32 = unsafe { texts(given.keep_fp32, count, "keep_fp32") }?;
    Ok(TensorRtOptions {
        precision: Precision::from_code(given.precision, "precision")?,
        backend: Choice::from_code(given.backend, "backend")?,
        library: read(given.library, "library")?.map(Into::into),
        batch_size: size(given.batch_size, "batch_size")?,
        sequence_length: size(given.sequence_length, "sequence_length")?,
        dimensions: parse_dimensions(read(given.dimensions, "dimensions")?.unwrap_or(""))?,
        profiles,
        workspace: given.workspace,
        optimization_level: match i32::try_from(given.optimization_level) {
            Ok(0) => None,
            level => Some(level.unwrap_or(i32::MAX) - 1),
        },
        timing_cache: read(given.timing_cache, "timing_cache")?.map(Into::into),
        version_compatible: given.version_compatible != 0,
        hardware_compatible: given.hardware_compatible != 0,
        strip: given.strip != 0,
        refit: given.refit != 0,
        sparsity: given.sparsity != 0,
        detailed: given.detailed != 0,
        no_tf32: given.no_tf32 != 0,
        compute_capabilities: capabilities.to_vec(),
        max_error: given.max_error,
        keep_fp32: keep_fp32.into_iter().map(str::to_owned).collect(),
        calibration: read(given.calibration, "calibration")?.map(Into::into),
        calibration_text: None,
        force: given.force != 0,
        refuse_mismatch: given.refuse_mismatch != 0,
        threads: 0,
        by_file: false,
    })
}
