//! Quantization, and the estimate of its result.

use super::call::{self, optimize_call_t};
use super::context::{Context, optimize_context_t};
use super::error::optimize_error_t;
use super::handle;
use super::model::{self, optimize_model_t};
use super::options::{self, Options};
use super::status::optimize_status_t;
use super::tensor::optimize_tensor_t;
use super::{Out, buffer, guard, optional_path, slice, text_of, texts};
use crate::calibrate::Calibration;
use crate::call::Call;
use crate::error::{Context as _, Result, bail};
use crate::limits;
use crate::model::Model;
use crate::quantize::{
    Algorithm, CalibrationMethod, QuantizeOptions, QuantizeType, ReduceRange, ScaleType, forecast, quantize,
    quantize_with,
};
use crate::report::Report;
use crate::runtime::Tensor;
use crate::text::Tokenizer;
use std::ffi::c_char;

/// Kind of quantization.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_quantize_type_t {
    /// int8 weights; activations are quantized in each run. Needs no data. Weights of operators without an integer
    /// kernel (Conv, LSTM ...) are stored in 8 bits, and used in float.
    OPTIMIZE_QUANTIZE_DYNAMIC = 0,
    /// Weights of 2, 4 or 8 bits in blocks with one scale each. Activations are float; with the accuracy level 4, the
    /// default, kernels round them to 8 bits in blocks. Weights that no block operator supports are stored in 4 or 8
    /// bits, and used in float.
    OPTIMIZE_QUANTIZE_WEIGHT_ONLY = 1,
    /// int8 weights; activations are quantized with scales from calibration data.
    OPTIMIZE_QUANTIZE_STATIC = 2,
}

/// Algorithm that chooses the codes (the stored integers) of block-quantized weights (weight-only).
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_algorithm_t {
    /// GPTQ with calibration data, otherwise RTN.
    OPTIMIZE_ALGORITHM_AUTO = 0,
    /// Round to nearest, with a search for the best scale and zero point of each block.
    OPTIMIZE_ALGORITHM_RTN = 1,
    /// Half-quadratic quantization.
    OPTIMIZE_ALGORITHM_HQQ = 2,
    /// GPTQ: compensates the error of each weight by changing the following weights. Needs calibration data.
    OPTIMIZE_ALGORITHM_GPTQ = 3,
    /// AWQ: scales the inputs of weights by the magnitude of their activations. Needs calibration data.
    OPTIMIZE_ALGORITHM_AWQ = 4,
}

/// Method that determines the range of an activation from calibration data (static).
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_calibration_method_t {
    /// The range from the minimum to the maximum value.
    OPTIMIZE_CALIBRATION_MIN_MAX = 0,
    /// The range between two percentiles, without the outermost values.
    OPTIMIZE_CALIBRATION_PERCENTILE = 1,
    /// The range whose quantized histogram has the smallest divergence.
    OPTIMIZE_CALIBRATION_ENTROPY = 2,
    /// The range with the smallest squared error.
    OPTIMIZE_CALIBRATION_MSE = 3,
}

/// Type of the scales of blocks in the file (weight-only). Sessions convert scales to float32.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_scale_type_t {
    /// uint8, times a float32 factor per row.
    OPTIMIZE_SCALE_UINT8 = 0,
    /// float16.
    OPTIMIZE_SCALE_FLOAT16 = 1,
    /// float32.
    OPTIMIZE_SCALE_FLOAT32 = 2,
}

/// Use of only 7 of 8 bits for weights, because sums of 8-bit products can saturate on x86 processors without VNNI.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_reduce_range_t {
    /// 7 bits if the processor of this machine requires it.
    OPTIMIZE_REDUCE_RANGE_AUTO = 0,
    /// 7 bits, for models that will run on x86 processors without VNNI.
    OPTIMIZE_REDUCE_RANGE_ON = 1,
    /// 8 bits.
    OPTIMIZE_REDUCE_RANGE_OFF = 2,
}

/// Options of `optimize_model_quantize`. Fields that are 0 or NULL have their defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_quantize_options_t {
    /// sizeof(optimize_quantize_options_t).
    pub struct_size: u32,
    /// Kind of quantization, an optimize_quantize_type_t.
    pub r#type: i32,
    /// Bits per weight: 8, or for weight-only also 4 or 2. 0 selects 8, or for weight-only 4. Other values return
    /// OPTIMIZE_INVALID_ARGUMENT. 2 bits are meant for `target_size`, which mixes them with more bits.
    pub bits: u32,
    /// Static and dynamic: use of 7 bits for weights, an optimize_reduce_range_t. For weight-only, a value other than
    /// OPTIMIZE_REDUCE_RANGE_AUTO returns OPTIMIZE_INVALID_ARGUMENT.
    pub reduce_range: i32,
    /// A value other than 0 uses one scale per weight instead of one per output channel.
    pub per_tensor: u32,
    /// A value other than 0 keeps embedding tables float.
    pub keep_embeddings: u32,
    /// Number of threads; 0 uses that of the context.
    pub threads: u32,
    /// Weight-only: number of consecutive elements of a row that share a scale: 16, 32, 64, 128 or 256. 0 selects 32.
    pub block_size: u32,
    /// Weight-only: a value other than 0 quantizes symmetrically, without zero points. Blocks of 8 bits are always
    /// symmetric.
    pub symmetric: u32,
    /// Weight-only: type of the scales, an optimize_scale_type_t.
    pub scale_type: i32,
    /// Weight-only: accuracy_level of MatMulNBits. 4 rounds activations to 8 bits per block, which is faster; 1 keeps
    /// them float32. 0 selects 4.
    pub accuracy_level: u32,
    /// Number of windows of the calibration text; 0 selects 16.
    pub calibration_windows: u32,
    /// Number of tokens per window; 0 selects 512, or the limit of the model if it is less.
    pub calibration_length: u32,
    /// A value other than 0 compares the speed with products or tables of one shape (static: nodes of one operator) in
    /// float, and keeps those float that are slower quantized. If a static result is still slower than the original,
    /// the call returns OPTIMIZE_GATE_NOT_MET. Needs ONNX Runtime.
    pub never_slower: u32,
    /// Minimum number of elements of a weight to quantize; 0 selects 1024. Static quantization ignores it for Conv.
    pub min_elements: u64,
    /// Array of `include_count` globs of node and weight names to quantize; NULL selects all nodes.
    pub include: *const *const c_char,
    /// Number of globs in `include`.
    pub include_count: u64,
    /// Array of `exclude_count` globs of node and weight names to leave unchanged; it takes precedence over
    /// `include`.
    pub exclude: *const *const c_char,
    /// Number of globs in `exclude`.
    pub exclude_count: u64,
    /// Weight-only: array of `override_count` texts `GLOB=BITS` or `GLOB=BITS/BLOCK`, which set other bits and
    /// another block size for matching nodes and weights; the first match counts.
    pub overrides: *const *const c_char,
    /// Number of texts in `overrides`.
    pub override_count: u64,
    /// Calibration text in UTF-8 of `calibration_size` bytes, or NULL. Static quantization determines the ranges of
    /// activations from it. For weight-only, it selects GPTQ, which keeps the outputs of the layers on this text close
    /// to the original ones, and takes minutes instead of seconds. It needs ONNX Runtime, and a model with a tokenizer;
    /// without one, the call returns OPTIMIZE_NOT_FOUND.
    pub calibration: *const c_char,
    /// Number of bytes of `calibration`.
    pub calibration_size: u64,
    /// Folder of the temporary file that holds the quantized weights until they are saved; NULL selects the system's
    /// temporary folder.
    pub scratch_folder: *const c_char,
    /// Weight-only: algorithm that chooses the codes, an optimize_algorithm_t.
    pub algorithm: i32,
    /// Static: method that determines the ranges of activations, an optimize_calibration_method_t.
    pub calibration_method: i32,
    /// Static: percentage of the values of an activation that OPTIMIZE_CALIBRATION_PERCENTILE keeps; 0 selects 99.99.
    /// With another method, other values return OPTIMIZE_INVALID_ARGUMENT.
    pub percentile: f64,
    /// Static and dynamic: alpha of SmoothQuant, from 0 to 1, which moves outliers of activations into the weights; 0
    /// disables SmoothQuant. Good values are 0.8 for encoders and 0.5 for decoders. Activations are measured on the
    /// calibration data; dynamic quantization without data uses built-in sentences, and then the model must have a
    /// tokenizer.
    pub smooth_quant: f64,
    /// Maximum loss of each judged output (docs/report.md), measured on the calibration data or on generated inputs:
    /// mean KL divergence in nats for logits, 1 - mean cosine for other outputs. As many of the most sensitive nodes
    /// stay float as are needed to meet the limit. 0 means no limit. Needs ONNX Runtime.
    pub max_quality_loss: f64,
    /// Dynamic and weight-only: maximum size of the result in bytes. The number of bits of each weight is chosen, from
    /// `bits` up, so that the size is met. 0 means no limit. Needs ONNX Runtime.
    pub target_size: u64,
    /// Array of `calibration_tensor_count` names of the inputs for which `calibration_tensors` are the calibration
    /// data, instead of a text.
    pub calibration_names: *const *const c_char,
    /// Array of `calibration_tensor_count` tensors, whose first dimension counts samples. A run uses as many samples
    /// as the model requires, otherwise 8. If a tensor has one dimension more than its input, each run uses one of
    /// its slices along the first dimension.
    pub calibration_tensors: *const *const optimize_tensor_t,
    /// Number of inputs in `calibration_names` and `calibration_tensors`.
    pub calibration_tensor_count: u64,
}
// SAFETY: repr(C), sixteen 32-bit and seventeen 64-bit fields: no padding, all zero is valid.
unsafe impl Options for optimize_quantize_options_t {}

/// Writes a quantized copy of a model to `result`; the original is unchanged. `report` (may be NULL) receives the JSON
/// of docs/report.md: the action on each node, and the reasons why nodes were left unchanged. Progress stages: with
/// calibration data "calibrate", in runs; "quantize", in bytes; depending on the options "scale", "sensitivity" and
/// "speed"; with a report also "hash".
///
/// Returns OPTIMIZE_UNSUPPORTED if there is nothing to quantize (the message counts the reasons);
/// OPTIMIZE_INVALID_ARGUMENT if a pattern matches nothing, or if options contradict each other, have no effect with the
/// others, or need calibration data that is not given; OPTIMIZE_NOT_FOUND if the model lacks an input of the
/// calibration data, or a tokenizer for calibration text; OPTIMIZE_GATE_NOT_MET if no result meets `max_quality_loss`,
/// `target_size` or `never_slower`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_quantize(
    context: *const optimize_context_t,
    model: *const optimize_model_t,
    options: *const optimize_quantize_options_t,
    call: *const optimize_call_t,
    result: *mut *mut optimize_model_t,
    report: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let (out, report_out) = (Out::new(result, "result"), Out::optional(report));
            let out = out?;
            let (context, model) = (handle::get(context)?, &handle::get(model)?.model);
            let given = options::read(options)?;
            let mut options = convert(&given)?;
            options.threads = context.threads(given.threads)?;
            let (text, tensors) = (calibration_text(&given)?, tensors(&given)?);
            let (result, report) = call::with(call, |call| {
                let (result, mut report) = match (&text, tensors.is_empty()) {
                    (Some(_), false) => bail!(InvalidArgument, "calibration is given both as a text and as tensors"),
                    (Some(text), true) => calibrated(context, model, &options, text, &given, call)?,
                    (None, false) => {
                        let calibration = Calibration::Tensors(&tensors);
                        quantize_with(context.runtime()?, model, &options, Some(&calibration), call)?
                    }
                    (None, true) if options.needs_runtime() => {
                        quantize_with(context.runtime()?, model, &options, None, call)?
                    }
                    (None, true) => quantize(model, &options, call)?,
                };
                if report_out.is_some() {
                    report.input = Some(model.identity(call)?);
                }
                Ok((result, report))
            })?;
            report_out.set_with(|| buffer::new(report.to_json()));
            out.set(model::new(result));
            Ok(())
        })
    }
}

/// Estimates the result of `optimize_model_quantize` with the same options. `report` receives the JSON of
/// docs/report.md: nodes, bytes, approximate seconds and memory of quantizing, and the kernels that will run the
/// quantized matrix products. Nothing is quantized, so this takes milliseconds in general; `max_quality_loss`,
/// `target_size`, `never_slower` and calibration data are ignored. Returns OPTIMIZE_UNSUPPORTED if there is nothing to
/// quantize; OPTIMIZE_INVALID_ARGUMENT for static quantization, because the calibration data determine which nodes it
/// quantizes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_plan(
    context: *const optimize_context_t,
    model: *const optimize_model_t,
    options: *const optimize_quantize_options_t,
    report: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(report, "report")?;
            let (context, model) = (handle::get(context)?, &handle::get(model)?.model);
            let given = options::read(options)?;
            let mut options = convert(&given)?;
            options.threads = context.threads(given.threads)?;
            // An estimate does not use calibration data, but invalid combinations of options are still an error.
            let idle = options.smooth_quant == 0.0 && options.max_quality_loss == 0.0;
            if calibration_text(&given)?.is_some() && options.quantize_type == QuantizeType::Dynamic && idle {
                bail!(InvalidArgument, "calibration data is given, but dynamic quantization does not use it");
            }
            out.set(buffer::new(forecast(model, &options)?.to_json()));
            Ok(())
        })
    }
}

unsafe fn calibration_text(given: &optimize_quantize_options_t) -> Result<Option<String>> {
    let size = usize::try_from(given.calibration_size).unwrap_or(usize::MAX);
    match (given.calibration.is_null(), size) {
        (true, 0) => Ok(None),
        // SAFETY: the contract of `ffi`.
        _ => Ok(Some(unsafe { text_of(given.calibration, size, "calibration") }?.to_owned())),
    }
}

unsafe fn tensors(given: &optimize_quantize_options_t) -> Result<Vec<(String, Tensor)>> {
    let (names, tensors) = (given.calibration_names, given.calibration_tensors);
    // SAFETY: the contract of `ffi`.
    unsafe { named(names, tensors, given.calibration_tensor_count, "calibration_tensor") }
}

/// Returns the tensors of the caller with the names of their inputs. `what` is the prefix of the field names in
/// messages.
pub(super) unsafe fn named(
    names: *const *const c_char,
    tensors: *const *const optimize_tensor_t,
    count: u64,
    what: &str,
) -> Result<Vec<(String, Tensor)>> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > limits::RUN_VALUES {
        bail!(InvalidArgument, "{what}_count is {count}; the limit is {}", limits::RUN_VALUES);
    }
    let group = what.trim_end_matches("_tensor");
    // SAFETY: the contract of `ffi`.
    let (names, list) = unsafe {
        let names = texts(names, count, &format!("{group}_names"))?;
        (names, slice(tensors, count, &format!("{group}_tensors"))?)
    };
    let one = |(name, tensor): (&str, &*const optimize_tensor_t)| {
        // SAFETY: the contract of `ffi`.
        let tensor = unsafe { handle::get(*tensor) }.at(|| format!("{group} tensor {name:?}"))?;
        Ok((name.to_owned(), tensor.clone()))
    };
    names.into_iter().zip(list).map(one).collect()
}

fn calibrated(
    context: &Context,
    model: &Model,
    options: &QuantizeOptions,
    text: &str,
    given: &optimize_quantize_options_t,
    call: &Call,
) -> Result<(Model, Report)> {
    let Some(tokenizer) = Tokenizer::of(model)? else {
        bail!(NotFound, "the model has no tokenizer for the calibration text");
    };
    let calibration = Calibration::Text {
        text,
        tokenizer: &tokenizer,
        windows: given.calibration_windows as usize,
        length: given.calibration_length as usize,
    };
    quantize_with(context.runtime()?, model, options, Some(&calibration), call)
}

unsafe fn convert(given: &optimize_quantize_options_t) -> Result<QuantizeOptions> {
    let defaults = QuantizeOptions::default();
    let quantize_type = QuantizeType::from_code(given.r#type, "type")?;
    let globs = |list, count: u64, name| -> Result<Vec<String>> {
        // SAFETY: the contract of `ffi`.
        let found = unsafe { texts(list, usize::try_from(count).unwrap_or(usize::MAX), name) }?;
        Ok(found.into_iter().map(str::to_owned).collect())
    };
    Ok(QuantizeOptions {
        quantize_type,
        bits: match (given.bits, quantize_type) {
            (0, QuantizeType::WeightOnly) => 4,
            (0, QuantizeType::Dynamic | QuantizeType::Static) => defaults.bits,
            (bits, _) => bits,
        },
        block_size: if given.block_size == 0 { defaults.block_size } else { given.block_size as usize },
        symmetric: given.symmetric != 0,
        scale_type: ScaleType::from_code(given.scale_type, "scale_type")?,
        accuracy_level: if given.accuracy_level == 0 { defaults.accuracy_level } else { given.accuracy_level },
        algorithm: Algorithm::from_code(given.algorithm, "algorithm")?,
        calibration_method: CalibrationMethod::from_code(given.calibration_method, "calibration_method")?,
        percentile: if given.percentile == 0.0 { defaults.percentile } else { given.percentile },
        smooth_quant: given.smooth_quant,
        max_quality_loss: given.max_quality_loss,
        target_size: given.target_size,
        never_slower: given.never_slower != 0,
        per_channel: given.per_tensor == 0,
        reduce_range: ReduceRange::from_code(given.reduce_range, "reduce_range")?,
        embeddings: given.keep_embeddings == 0,
        include: globs(given.include, given.include_count, "include")?,
        exclude: globs(given.exclude, given.exclude_count, "exclude")?,
        overrides: globs(given.overrides, given.override_count, "overrides")?
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_>>()?,
        min_elements: if given.min_elements == 0 { defaults.min_elements } else { given.min_elements },
        race: defaults.race,
        threads: 0,
        // SAFETY: the contract of `ffi`.
        scratch_folder: unsafe { optional_path(given.scratch_folder, "scratch_folder") }?,
    })
}
