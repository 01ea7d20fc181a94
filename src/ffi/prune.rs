//! Pruning: weights are set to zero, or units and layers are removed.

use super::call::{self, optimize_call_t};
use super::context::{Context, optimize_context_t};
use super::error::optimize_error_t;
use super::handle;
use super::model::{self, optimize_model_t};
use super::options::{self, Options};
use super::status::optimize_status_t;
use super::tensor::optimize_tensor_t;
use super::{Out, buffer, guard, optional_path, quantize, slice, text_of, texts};
use crate::calibrate::Calibration;
use crate::call::Call;
use crate::error::{Result, bail};
use crate::limits;
use crate::model::Model;
use crate::prune::{Importance, Pattern, PruneMethod, PruneOptions, prune, prune_calibrated};
use crate::report::Report;
use crate::text::Tokenizer;
use std::ffi::c_char;

/// Pruning method, which selects the weights or units to prune.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_prune_method_t {
    /// Magnitude: sets the weights with the smallest magnitude to zero.
    OPTIMIZE_PRUNE_MAGNITUDE = 0,
    /// Random: sets random weights to zero, selected with the seed.
    OPTIMIZE_PRUNE_RANDOM = 1,
    /// Wanda: sets to zero, for each output, the weights with the smallest product of their magnitude and the norm of
    /// their input. Needs calibration data.
    OPTIMIZE_PRUNE_WANDA = 2,
    /// SparseGPT: sets to zero the weights whose error the other weights of the row can compensate best, and updates
    /// these other weights. Needs calibration data.
    OPTIMIZE_PRUNE_SPARSEGPT = 3,
    /// Structured: removes neurons, channels and attention heads, so that tensors become smaller.
    OPTIMIZE_PRUNE_STRUCTURED = 4,
}

/// Criterion by which structured pruning ranks the units: neurons, channels and attention heads.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_importance_t {
    /// Sum of the magnitudes of the weights of a unit.
    OPTIMIZE_IMPORTANCE_L1 = 0,
    /// Sum of the squares of the weights of a unit.
    OPTIMIZE_IMPORTANCE_L2 = 1,
    /// Weights of a unit, and its activations on the calibration data, which it needs.
    OPTIMIZE_IMPORTANCE_ACTIVATION = 2,
    /// Random order, which depends on the seed.
    OPTIMIZE_IMPORTANCE_RANDOM = 3,
}

/// Options of `optimize_model_prune`. Fields that are 0 or NULL have their defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_prune_options_t {
    /// sizeof(optimize_prune_options_t).
    pub struct_size: u32,
    /// Pruning method, an optimize_prune_method_t.
    pub method: i32,
    /// Share of the elements of each weight to set to zero, or of the units of each group to remove: less than 1. 0
    /// selects the share of the pattern, if there is one, and otherwise 0.5; if structured pruning removes layers
    /// (`drop_layers`, `layers`), 0 prunes nothing else.
    pub sparsity: f64,
    /// Maximum number of nonzero weights in each `pattern_of` consecutive weights along the inputs of a matrix product:
    /// 2 and 4 for the pattern 2:4. If both fields are 0, there is no pattern. Structured pruning accepts none.
    pub pattern_keep: u32,
    /// Length of the pattern, at most 64; see `pattern_keep`.
    pub pattern_of: u32,
    /// Magnitude and random: a value other than 0 uses one threshold for all weights instead of one per weight. Weights
    /// with an override keep their own threshold.
    pub global: u32,
    /// A value other than 0 also prunes embedding tables, and output layers that share such a table.
    pub embeddings: u32,
    /// Number of threads; 0 uses that of the context.
    pub threads: u32,
    /// Structured: criterion by which the units are ranked, an optimize_importance_t.
    pub importance: i32,
    /// Structured: the remaining sizes are multiples of this number. 0 selects a number by the size of a group of
    /// units: for the channels of 2-D convolutions 16 for 32 channels or more, and 8 for 16 or more; for other units 16
    /// for 256 or more, and 8 for 64 or more; otherwise 1.
    pub round_to: u32,
    /// Structured: a value other than 0 fits the weights that read the remaining units, to reproduce their original
    /// outputs on the calibration data.
    pub reconstruct: u32,
    /// Structured: number of layers to remove: the least influential layers on the calibration data; without data,
    /// evenly spaced layers, in the second half of the model if it has enough. If `sparsity` is 0, nothing else is
    /// pruned.
    pub drop_layers: u32,
    /// Number of windows of the calibration text; 0 selects 16, or 64 with `reconstruct`.
    pub calibration_windows: u32,
    /// Number of tokens per window; 0 selects 512, or the limit of the model if it is less.
    pub calibration_length: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Seed of random choices. The default is 0.
    pub seed: u64,
    /// Minimum number of elements of a weight to prune; 0 selects 1024.
    pub min_elements: u64,
    /// Array of `target_module_count` names or globs of modules, weights or nodes ("query", "mlp.fc1",
    /// "layer.*.mlp.*"). Each must match a name, or consecutive parts of a name between dots or slashes. NULL selects
    /// all weights of MatMul, FusedMatMul, Gemm, Conv, ConvTranspose and Attention (com.microsoft); weights of LSTM,
    /// GRU and RNN must be named. An embedding table that is named without a wildcard is pruned without `embeddings`,
    /// too. Structured pruning removes outputs of these modules, or inputs if outputs cannot be removed.
    pub target_modules: *const *const c_char,
    /// Number of names in `target_modules`.
    pub target_module_count: u64,
    /// Array of `exclude_count` names or globs of modules to leave unchanged; it takes precedence over
    /// `target_modules`.
    pub exclude: *const *const c_char,
    /// Number of names in `exclude`.
    pub exclude_count: u64,
    /// Array of `override_count` texts `GLOB=SPARSITY`, which set another sparsity (0 leaves them unchanged) for
    /// matching modules; the first match counts.
    pub overrides: *const *const c_char,
    /// Number of texts in `overrides`.
    pub override_count: u64,
    /// Calibration text in UTF-8 of `calibration_size` bytes, for methods that measure activations; or NULL. It needs
    /// ONNX Runtime, and a model with a tokenizer; without one, the call returns OPTIMIZE_NOT_FOUND.
    pub calibration: *const c_char,
    /// Number of bytes of `calibration`.
    pub calibration_size: u64,
    /// Folder of the temporary file that holds the pruned weights until they are saved; NULL selects the system's
    /// temporary folder.
    pub scratch_folder: *const c_char,
    /// Structured: array of `layer_count` indices of layers to remove, as in the names of nodes, instead of
    /// `drop_layers`.
    pub layers: *const u32,
    /// Number of indices in `layers`.
    pub layer_count: u64,
    /// Structured: maximum size of the result in bytes, instead of a sparsity: as little as needed is pruned. 0 means
    /// no limit.
    pub target_size: u64,
    /// Structured: minimum measured speed-up, at least 1, instead of a sparsity or `target_size`: as little as needed
    /// is pruned. For a decoder, the speed of generating one token is measured. 0 means no limit. Needs ONNX Runtime.
    pub target_speedup: f64,
    /// Array of `calibration_tensor_count` names of the inputs for which `calibration_tensors` are the calibration
    /// data, instead of a text.
    pub calibration_names: *const *const c_char,
    /// Array of `calibration_tensor_count` tensors, as in optimize_quantize_options_t.
    pub calibration_tensors: *const *const optimize_tensor_t,
    /// Number of inputs in `calibration_names` and `calibration_tensors`.
    pub calibration_tensor_count: u64,
}
// SAFETY: repr(C), two 32-bit fields, a double, twelve 32-bit, fourteen 64-bit fields, a double and three 64-bit
// fields: no padding, all zero is valid.
unsafe impl Options for optimize_prune_options_t {}

/// Writes a pruned copy of a model to `result`; the original is unchanged. `report` (may be NULL) receives the JSON of
/// docs/report.md: the number of zeros of each node and module, and the reasons why other nodes were left unchanged.
/// Zeros make a plain .onnx file neither smaller nor faster: save with `packed` for a smaller file. Progress stages:
/// "prune", in bytes; depending on the options also "calibrate", "influence" and "reconstruct"; with a report also
/// "hash".
///
/// Returns OPTIMIZE_INVALID_ARGUMENT if a target matches nothing (the message lists the modules), or if options
/// contradict each other or need calibration data that is not given; OPTIMIZE_UNSUPPORTED if no weight could be pruned
/// (the message counts the reasons); OPTIMIZE_GATE_NOT_MET if no sparsity meets `target_size` or `target_speedup`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_prune(
    context: *const optimize_context_t,
    model: *const optimize_model_t,
    options: *const optimize_prune_options_t,
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
            if options.target_speedup > 0.0 {
                context.runtime()?;
            } else if options.method == PruneMethod::Structured {
                // If ONNX Runtime is available, it infers shapes; without it, only this library's rules do.
                let _ = context.runtime();
            }
            let calibration = match (given.calibration.is_null(), given.calibration_size) {
                (true, 0) => None,
                _ => Some(text_of(
                    given.calibration,
                    usize::try_from(given.calibration_size).unwrap_or(usize::MAX),
                    "calibration",
                )?),
            };
            let (names, count) = (given.calibration_names, given.calibration_tensor_count);
            let tensors = quantize::named(names, given.calibration_tensors, count, "calibration_tensor")?;
            if calibration.is_some() && !tensors.is_empty() {
                bail!(InvalidArgument, "calibration and calibration_tensors are both given");
            }
            let (result, report) = call::with(call, |call| {
                let (result, mut report) = match &calibration {
                    None if tensors.is_empty() => prune(model, &options, call)?,
                    None => {
                        let calibration = Calibration::Tensors(&tensors);
                        prune_calibrated(context.runtime()?, model, &options, &calibration, call)?
                    }
                    Some(text) => calibrated(context, model, &options, text, &given, call)?,
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

fn calibrated(
    context: &Context,
    model: &Model,
    options: &PruneOptions,
    text: &str,
    given: &optimize_prune_options_t,
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
    prune_calibrated(context.runtime()?, model, options, &calibration, call)
}

/// Returns the indices of the layers to remove; empty if the options give none.
///
/// # Safety
/// `layers` is NULL or points to `layer_count` numbers.
unsafe fn numbers(given: &optimize_prune_options_t) -> Result<Vec<usize>> {
    let count = given.layer_count.min(1 << 32) as usize;
    if count as i64 > limits::LAYERS {
        bail!(InvalidArgument, "layer_count is {}; the limit is {}", given.layer_count, limits::LAYERS);
    }
    // SAFETY: the contract of this function.
    Ok(unsafe { slice(given.layers, count, "layers") }?.iter().map(|n| *n as usize).collect())
}

unsafe fn convert(given: &optimize_prune_options_t) -> Result<PruneOptions> {
    let defaults = PruneOptions::default();
    let method = PruneMethod::from_code(given.method, "method")?;
    if given.reserved != 0 {
        bail!(InvalidArgument, "reserved is not 0");
    }
    let pattern = match (given.pattern_keep, given.pattern_of) {
        (0, 0) => None,
        (keep, of) => Some(Pattern { keep: keep as usize, of: of as usize }),
    };
    let usual = pattern.map_or(defaults.sparsity, Pattern::sparsity);
    let only_layers = method == PruneMethod::Structured && (given.drop_layers > 0 || given.layer_count > 0);
    let list = |list, count: u64, name| -> Result<Vec<String>> {
        // SAFETY: the contract of `ffi`.
        let found = unsafe { texts(list, usize::try_from(count).unwrap_or(usize::MAX), name) }?;
        Ok(found.into_iter().map(str::to_owned).collect())
    };
    Ok(PruneOptions {
        method,
        sparsity: if given.sparsity == 0.0 && !only_layers { usual } else { given.sparsity },
        pattern,
        global: given.global != 0,
        overrides: list(given.overrides, given.override_count, "overrides")?
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_>>()?,
        seed: given.seed,
        target_modules: list(given.target_modules, given.target_module_count, "target_modules")?,
        exclude: list(given.exclude, given.exclude_count, "exclude")?,
        embeddings: given.embeddings != 0,
        min_elements: if given.min_elements == 0 { defaults.min_elements } else { given.min_elements },
        importance: Importance::from_code(given.importance, "importance")?,
        round_to: given.round_to as usize,
        reconstruct: given.reconstruct != 0,
        drop_layers: given.drop_layers as usize,
        // SAFETY: the contract of `ffi`.
        layers: unsafe { numbers(given) }?,
        target_size: given.target_size,
        target_speedup: given.target_speedup,
        threads: 0,
        // SAFETY: the contract of `ffi`.
        scratch_folder: unsafe { optional_path(given.scratch_folder, "scratch_folder") }?,
    })
}
