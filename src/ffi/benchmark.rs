//! Benchmarks of a result against its original.

use super::call::{self, optimize_call_t};
use super::context::optimize_context_t;
use super::error::optimize_error_t;
use super::handle;
use super::model::optimize_model_t;
use super::options::{self, Options};
use super::session::where_of;
use super::status::optimize_status_t;
use super::tensor::optimize_tensor_t;
use super::tensorrt::{self, optimize_tensorrt_open_options_t};
use super::tokenizer::optimize_tokenizer_t;
use super::{Out, buffer, guard, quantize, text, texts};
use crate::benchmark::{BenchmarkOptions, benchmark, benchmark_engine, into_report};
use crate::error::{Result, bail};
use crate::inputs::InputOptions;
use crate::runtime::Execution;
use crate::shapes::{parse_shape, parse_values};
use crate::tensorrt::EngineFile;
use std::ffi::c_char;
use std::path::Path;

/// Options of `optimize_model_benchmark`. All zero selects the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_benchmark_options_t {
    /// sizeof(optimize_benchmark_options_t).
    pub struct_size: u32,
    /// Number of timed rounds; 0 is 50.
    pub runs: u32,
    /// Number of rounds before the timed ones; 0 is 5.
    pub warmup: u32,
    /// Number of threads; 0 uses that of the context. With 1, processor time is measured, otherwise wall-clock time.
    pub threads: u32,
    /// Number of rows of the timed input; 0 is 1.
    pub batch_size: u32,
    /// Tokens per row of the timed input; 0 is the length of the texts (truncated at 512 tokens), and 128 for
    /// built-in text and generated inputs. Longer texts are truncated.
    pub sequence_length: u32,
    /// Time limit of the timed rounds in milliseconds, after at least 5 of them; 0 is 30000.
    pub max_milliseconds: u32,
    /// Seed of generated inputs and of the bootstrap.
    pub seed: u32,
    /// Array of `text_count` texts to compare the models on; NULL selects built-in sentences. Needs a tokenizer.
    pub texts: *const *const c_char,
    /// Number of texts in `texts`.
    pub text_count: u64,
    /// Array of `shape_count` input shapes, each "NAME:2x3x4", for inputs whose dimensions the model leaves open.
    pub shapes: *const *const c_char,
    /// Number of shapes in `shapes`.
    pub shape_count: u64,
    /// Array of `value_count` input values, each "NAME:1,2,3", for inputs for which random numbers are unsuitable.
    pub values: *const *const c_char,
    /// Number of values in `values`.
    pub value_count: u64,
    /// Execution provider of the sessions, an optimize_provider_t.
    pub provider: i32,
    /// Index of the device, from 0; 0 for the CPU.
    pub device_id: u32,
    /// TensorRT: absolute path of a folder that caches engines; NULL disables the cache.
    pub engine_cache: *const c_char,
    /// Not 0: trusts the source of the models. Engines inside a model (EPContext) are executable code.
    pub trust_engines: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Array of `input_count` names of inputs for `input_tensors`, which replace texts and generated inputs.
    pub input_names: *const *const c_char,
    /// Array of `input_count` tensors, whose first dimension counts samples. A run uses `batch_size` samples, or as
    /// many as the model requires; a tensor with one dimension more than its input is split along it.
    pub input_tensors: *const *const optimize_tensor_t,
    /// Number of inputs in `input_names` and `input_tensors`.
    pub input_count: u64,
    /// Kernels on the CPU, an optimize_kernels_t.
    pub kernels: i32,
    /// Precision of products with constant float32 weights on the CPU, an optimize_session_precision_t. Any but FP32
    /// needs the kernels of this library, and returns OPTIMIZE_BACKEND_MISSING without.
    pub precision: i32,
}
// SAFETY: repr(C), eight u32, six 64-bit fields, two of 32, a pointer, two of 32, three 64-bit fields and two of 32: no
// padding, all zero is valid.
unsafe impl Options for optimize_benchmark_options_t {}

/// Compares two models, interleaved in this process: speed with a bootstrap interval, load time, memory, size, and
/// closeness of the outputs. If `tokenizer` is NULL, inputs are generated from the model's signature. `report`
/// receives the JSON of docs/report.md. Progress stage: "benchmark".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_benchmark(
    context: *const optimize_context_t,
    original: *const optimize_model_t,
    result: *const optimize_model_t,
    tokenizer: *const optimize_tokenizer_t,
    options: *const optimize_benchmark_options_t,
    call: *const optimize_call_t,
    report: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(report, "report")?;
            let (context, tokenizer) = (handle::get(context)?, handle::optional(tokenizer)?);
            let (original, result) = (&handle::get(original)?.model, &handle::get(result)?.model);
            let given = options::read(options)?;
            let mut options = convert(&given)?;
            options.threads = context.threads(given.threads)?;
            let runtime = context.runtime()?;
            let report = call::with(call, |call| {
                let (speed, quality) = benchmark(runtime, original, result, tokenizer, &options, call)?;
                let mut report = into_report(&options, &speed, &quality);
                report.input = Some(original.identity(call)?);
                report.output = Some(result.identity(call)?);
                Ok(report)
            })?;
            out.set(buffer::new(report.to_json()));
            Ok(())
        })
    }
}

/// Compares an engine file with the model that it was built from, as `optimize_model_benchmark` compares two models.
/// The original runs on the provider of `options`, the engine on the device of `engine_options`; times are measured
/// from inputs in host memory to outputs in host memory. `tokenizer` may be NULL. Progress stages: "hash",
/// "benchmark".
///
/// Returns OPTIMIZE_MISMATCH if the engine does not belong to `original`, unless `model_sha256` names another model
/// that it belongs to; otherwise the statuses of `optimize_tensorrt_open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_benchmark_engine(
    context: *const optimize_context_t,
    original: *const optimize_model_t,
    path: *const c_char,
    tokenizer: *const optimize_tokenizer_t,
    engine_options: *const optimize_tensorrt_open_options_t,
    options: *const optimize_benchmark_options_t,
    call: *const optimize_call_t,
    report: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(report, "report")?;
            let (context, tokenizer) = (handle::get(context)?, handle::optional(tokenizer)?);
            let original = &handle::get(original)?.model;
            let path = text(path, "path")?;
            let (mut opening, device_id) = tensorrt::open_options(engine_options)?;
            let given = options::read(options)?;
            let mut options = convert(&given)?;
            options.threads = context.threads(given.threads)?;
            let report = call::with(call, |call| {
                let identity = original.identity(call)?;
                opening.model_sha256.get_or_insert_with(|| identity.sha256.clone());
                let engine = EngineFile::new(Path::new(path), &opening, device_id)?;
                let runtime = context.runtime()?;
                let (speed, quality) = benchmark_engine(runtime, original, &engine, tokenizer, &options, call)?;
                let mut report = into_report(&options, &speed, &quality);
                (report.input, report.output) = (Some(identity), Some(engine.identity()));
                Ok(report)
            })?;
            out.set(buffer::new(report.to_json()));
            Ok(())
        })
    }
}

unsafe fn convert(given: &optimize_benchmark_options_t) -> Result<BenchmarkOptions> {
    if given.reserved != 0 {
        bail!(InvalidArgument, "reserved is not 0");
    }
    // SAFETY: the contract of `ffi`.
    let execution = unsafe { where_of!(given).execution() }?;
    let defaults = BenchmarkOptions::default();
    let or = |value: u32, default: usize| if value == 0 { default } else { value as usize };
    let list = |list, count: u64, name| -> Result<Vec<&str>> {
        let Ok(count) = usize::try_from(count) else { bail!(InvalidArgument, "{name}: {count} entries") };
        // SAFETY: the contract of `ffi`.
        unsafe { texts(list, count, name) }
    };
    // SAFETY: the contract of `ffi`.
    let tensors = unsafe { quantize::named(given.input_names, given.input_tensors, given.input_count, "input") }?;
    let inputs = InputOptions {
        tensors,
        batch_size: or(given.batch_size, defaults.inputs.batch_size),
        sequence_length: or(given.sequence_length, defaults.inputs.sequence_length),
        seed: if given.seed == 0 { defaults.inputs.seed } else { u64::from(given.seed) },
        texts: list(given.texts, given.text_count, "texts")?.into_iter().map(str::to_owned).collect(),
        shapes: list(given.shapes, given.shape_count, "shapes")?.into_iter().map(parse_shape).collect::<Result<_>>()?,
        values: list(given.values, given.value_count, "values")?
            .into_iter()
            .map(parse_values)
            .collect::<Result<_>>()?,
        ..InputOptions::default()
    };
    Ok(BenchmarkOptions {
        inputs,
        runs: or(given.runs, defaults.runs),
        warmup: or(given.warmup, defaults.warmup),
        max_seconds: match given.max_milliseconds {
            0 => defaults.max_seconds,
            milliseconds => f64::from(milliseconds) / 1e3,
        },
        execution: Execution { trust_engines: given.trust_engines != 0, ..execution },
        ..defaults
    })
}
