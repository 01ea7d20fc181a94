//! Benchmark: original against result.

use super::call::{self, optimize_call_t};
use super::context::optimize_context_t;
use super::error::optimize_error_t;
use super::handle;
use super::model::optimize_model_t;
use super::options::{self, Options};
use super::status::optimize_status_t;
use super::tensor::optimize_tensor_t;
use super::tensorrt::{self, optimize_tensorrt_open_options_t};
use super::tokenizer::optimize_tokenizer_t;
use super::{Out, buffer, guard, quantize, session, text, texts};
use crate::benchmark::{BenchmarkOptions, benchmark, benchmark_engine, into_report};
use crate::error::{Result, bail};
use crate::runtime::Execution;
use crate::shapes::{parse_shape, parse_values};
use crate::tensorrt::EngineFile;
use std::ffi::c_char;
use std::path::Path;

/// Options of `optimize_model_benchmark`. All zero means the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_benchmark_options_t {
    /// sizeof(optimize_benchmark_options_t).
    pub struct_size: u32,
    /// Timed rounds; 0 is 50.
    pub runs: u32,
    /// Rounds before the timed ones; 0 is 5.
    pub warmup: u32,
    /// Threads; 0 is as the context says. With 1, processor time is measured, else wall-clock time.
    pub threads: u32,
    /// Rows of the timed input; 0 is 1.
    pub batch_size: u32,
    /// Tokens of each row of the timed input; 0 is the texts' own length, and 128 for built-in text and
    /// generated inputs. Longer texts are cut; without a length, after 512 tokens.
    pub sequence_length: u32,
    /// The timed rounds end after so many milliseconds, but not before 5 of them; 0 is 30000.
    pub max_milliseconds: u32,
    /// Seed of generated inputs and of the bootstrap.
    pub seed: u32,
    /// `text_count` texts to compare the models on; without any, built-in sentences. Needs a tokenizer.
    pub texts: *const *const c_char,
    /// Number of texts.
    pub text_count: u64,
    /// `shape_count` input shapes, each "NAME:2x3x4", for inputs whose sizes the model leaves open.
    pub shapes: *const *const c_char,
    /// Number of shapes.
    pub shape_count: u64,
    /// `value_count` input values, each "NAME:1,2,3", for inputs that random numbers do not suit.
    pub values: *const *const c_char,
    /// Number of values.
    pub value_count: u64,
    /// An optimize_provider_t: what the sessions run on.
    pub provider: i32,
    /// Number of the device, from 0; for the processor 0.
    pub device_id: u32,
    /// TensorRT: absolute path of a folder for engines; NULL keeps none.
    pub engine_cache: *const c_char,
    /// Not 0: the models' makers are trusted. Engines that are ready in a model (EPContext) are code.
    pub trust_engines: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Data to measure on, in place of texts and of generated numbers: `input_count` names of inputs ...
    pub input_names: *const *const c_char,
    /// ... and as many tensors, of which the first dimension counts the samples. A run takes `batch_size` of them, or as
    /// many as the model insists on; tensors with one dimension more than their input are cut along it.
    pub input_tensors: *const *const optimize_tensor_t,
    /// Number of inputs in `input_names` and `input_tensors`.
    pub input_count: u64,
}
// SAFETY: repr(C), eight u32, six 64-bit fields, two of 32, a pointer, two of 32 and three 64-bit fields: no padding, all
// zero is valid.
unsafe impl Options for optimize_benchmark_options_t {}

/// Measures two models side by side, interleaved in this process: speed with a bootstrap interval, load
/// time, memory, size, and how close the outputs are. `tokenizer` may be NULL: then inputs are generated
/// from the model's signature. `report` gets the JSON of docs/report.md. Progress stage: "benchmark".
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

/// Measures an engine file against the model that it was made of, as `optimize_model_benchmark` does with two models: the
/// original on what `options` say, the engine on the device of `engine_options`; times go from data in to data out. An
/// engine that is not of `original` is OPTIMIZE_MISMATCH, unless `model_sha256` names another model that it is of; what else
/// `optimize_tensorrt_open` answers is answered here. `tokenizer` may be NULL. Progress stages: "hash", "benchmark".
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
    let execution = unsafe { session::execution(given.provider, given.device_id, given.engine_cache) }?;
    let defaults = BenchmarkOptions::default();
    let or = |value: u32, default: usize| if value == 0 { default } else { value as usize };
    let list = |list, count: u64, name| -> Result<Vec<&str>> {
        let Ok(count) = usize::try_from(count) else { bail!(InvalidArgument, "{name}: {count} entries") };
        // SAFETY: the contract of `ffi`.
        unsafe { texts(list, count, name) }
    };
    // SAFETY: the contract of `ffi`.
    let tensors = unsafe { quantize::named(given.input_names, given.input_tensors, given.input_count, "input") }?;
    Ok(BenchmarkOptions {
        tensors,
        runs: or(given.runs, defaults.runs),
        warmup: or(given.warmup, defaults.warmup),
        batch_size: or(given.batch_size, defaults.batch_size),
        sequence_length: or(given.sequence_length, defaults.sequence_length),
        max_seconds: match given.max_milliseconds {
            0 => defaults.max_seconds,
            milliseconds => f64::from(milliseconds) / 1e3,
        },
        execution: Execution { trust_engines: given.trust_engines != 0, ..execution },
        seed: if given.seed == 0 { defaults.seed } else { u64::from(given.seed) },
        texts: list(given.texts, given.text_count, "texts")?.into_iter().map(str::to_owned).collect(),
        shapes: list(given.shapes, given.shape_count, "shapes")?.into_iter().map(parse_shape).collect::<Result<_>>()?,
        values: list(given.values, given.value_count, "values")?
            .into_iter()
            .map(parse_values)
            .collect::<Result<_>>()?,
        ..defaults
    })
}
