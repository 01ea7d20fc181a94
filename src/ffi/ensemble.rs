//! Ensembles: models whose outputs are combined, or whose weights are merged.

use super::call::{self, optimize_call_t};
use super::context::optimize_context_t;
use super::error::optimize_error_t;
use super::generator::{self, optimize_generator_t};
use super::generator_options::{self, optimize_generator_options_t};
use super::handle::{self, handle};
use super::model::{self, optimize_model_t};
use super::options::{self, Options};
use super::status::optimize_status_t;
use super::{Out, buffer, guard, optional_path, slice, text, text_of};
use crate::ensemble::fit::FitOptions;
use crate::ensemble::{Ensemble, EnsembleOptions, EnsembleTask, MergeMethod, MergeOptions, Method, merge, name_of};
use crate::error::{Context, Result, bail};
use crate::limits;
use crate::model::{Model, Task};
use serde_json::json;
use std::ffi::c_char;
use std::path::Path;

/// A set of models whose outputs are combined. It is immutable, and any number of threads may use it concurrently.
#[allow(non_camel_case_types)]
pub struct optimize_ensemble_t(());

handle!(optimize_ensemble_t(Ensemble), b"opt-ense", "ensemble");

/// Method by which the outputs of the members are combined.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_ensemble_method_t {
    /// Mean of the probabilities, of the normalized embeddings, or of the numeric outputs, weighted by any `weights`.
    OPTIMIZE_ENSEMBLE_MEAN = 0,
    /// Mean like OPTIMIZE_ENSEMBLE_MEAN, weighted by `weights`, which are required.
    OPTIMIZE_ENSEMBLE_WEIGHTED = 1,
    /// Softmax of the weighted mean of the logits, each divided by its temperature.
    OPTIMIZE_ENSEMBLE_LOGITS = 2,
    /// Normalized product of the probabilities, each to the power of its weight times the number of members.
    OPTIMIZE_ENSEMBLE_PRODUCT = 3,
    /// Maximum probability of each token or class, normalized so that the sum is 1; maximum of numeric outputs.
    OPTIMIZE_ENSEMBLE_MAX = 4,
    /// Median probability of each token or class, normalized so that the sum is 1; median of numeric outputs.
    OPTIMIZE_ENSEMBLE_MEDIAN = 5,
    /// Sum of the weights of the members that rank the token or class first.
    OPTIMIZE_ENSEMBLE_VOTE = 6,
    /// Probabilities of the first of two members divided by those of the second, for tokens whose probability in the
    /// first member is at least a tenth of the maximum, and 0 for other tokens; normalized.
    OPTIMIZE_ENSEMBLE_CONTRASTIVE = 7,
    /// Each member generates texts, all members score all of these texts, and the text with the best score is selected.
    OPTIMIZE_ENSEMBLE_RERANK = 8,
    /// Concatenated embeddings, each normalized and multiplied by the square root of its weight.
    OPTIMIZE_ENSEMBLE_CONCAT = 9,
}

/// Task of the members of an ensemble.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_ensemble_task_t {
    /// Task that is detected from the members.
    OPTIMIZE_ENSEMBLE_AS_MEMBERS = 0,
    /// Text generation.
    OPTIMIZE_ENSEMBLE_GENERATE = 1,
    /// Text embedding.
    OPTIMIZE_ENSEMBLE_EMBED = 2,
    /// Classification: one output with logits.
    OPTIMIZE_ENSEMBLE_CLASSIFY = 3,
    /// Other numeric outputs, which are combined element by element.
    OPTIMIZE_ENSEMBLE_NUMBERS = 4,
}

/// Options of `optimize_ensemble_new`. Fields that are 0 or NULL have their defaults: the mean with equal weights.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_ensemble_options_t {
    /// sizeof(optimize_ensemble_options_t).
    pub struct_size: u32,
    /// Combination method, an optimize_ensemble_method_t.
    pub method: i32,
    /// Task of the members, an optimize_ensemble_task_t.
    pub task: i32,
    /// A value other than 0 uses the first member's distribution where all members rank the same token first.
    pub gate: u32,
    /// A value other than 0 allows members with different vocabularies, whose tokens are matched by their text.
    pub allow_different_vocabularies: u32,
    /// Rerank: number of texts per member; 0 selects 1. A number above 1 needs a sampling temperature above 0.
    pub candidates: u32,
    /// Rerank: power, up to 10, of the number of tokens by which the log-probability of a text is divided; 0 selects 1,
    /// a negative value disables the division.
    pub length_penalty: f64,
    /// Array of `weight_count` weights (0 or more, normalized), not with max, median or contrastive; NULL: equal ones.
    pub weights: *const f64,
    /// Number of elements in `weights`.
    pub weight_count: u64,
    /// Array of `temperature_count` temperatures from 0.001, one per member, which divide its logits. NULL selects 1.
    pub temperatures: *const f64,
    /// Number of elements in `temperatures`.
    pub temperature_count: u64,
}
// SAFETY: repr(C), six 32-bit and five 64-bit fields: no padding, all zero is valid.
unsafe impl Options for optimize_ensemble_options_t {}

/// Options of `optimize_ensemble_fit`. Fields that are 0 or NULL have their defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_fit_options_t {
    /// sizeof(optimize_fit_options_t).
    pub struct_size: u32,
    /// Number of threads; 0 uses that of the context.
    pub threads: u32,
    /// Number of tokens per window; 0 selects the limit of the members, up to 512.
    pub context_length: u32,
    /// Number of tokens between the starts of two windows; 0 selects half of the context length.
    pub stride: u32,
    /// Number of tokens of the text to read; 0 selects 8192.
    pub max_tokens: u64,
}
// SAFETY: repr(C), four 32-bit fields and one of 64: no padding, all zero is valid.
unsafe impl Options for optimize_fit_options_t {}

/// Method by which the weights of several models are merged.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_merge_method_t {
    /// Weighted mean of the weights.
    OPTIMIZE_MERGE_LINEAR = 0,
    /// Spherical linear interpolation between two models; the weight of the second is the position between them.
    OPTIMIZE_MERGE_SLERP = 1,
    /// TIES: the base model plus the mean of the models' largest changes from it that agree in sign.
    OPTIMIZE_MERGE_TIES = 2,
}

/// Options of `optimize_model_merge`. Fields that are 0 or NULL have their defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_merge_options_t {
    /// sizeof(optimize_merge_options_t).
    pub struct_size: u32,
    /// Merge method, an optimize_merge_method_t.
    pub method: i32,
    /// Array of `weight_count` non-negative weights, one per model; their sum is normalized to 1. NULL selects equal
    /// weights.
    pub weights: *const f64,
    /// Number of elements in `weights`.
    pub weight_count: u64,
    /// Ties: the base model, from which the models were trained; required for this method, NULL for the others.
    pub base: *const optimize_model_t,
    /// Ties: share of each model's changes to keep, in (0, 1]; 0 selects 0.2.
    pub density: f64,
    /// Ties: scale of the mean change; 0 selects 1.
    pub scale: f64,
    /// Folder of the temporary file with the merged weights; NULL selects the system's temporary folder.
    pub scratch_folder: *const c_char,
}
// SAFETY: repr(C), two 32-bit and six 64-bit fields: no padding, all zero is valid.
unsafe impl Options for optimize_merge_options_t {}

/// Creates an ensemble of `count` models, which may be freed before the ensemble. No session is created yet.
///
/// Returns OPTIMIZE_INVALID_ARGUMENT if there is only one model, if the models have different tasks or classes, or
/// different vocabularies without `allow_different_vocabularies`, or if an option is out of range or does not fit the
/// task, the method or `count`; the message names the member or the option.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_ensemble_new(
    models: *const *const optimize_model_t,
    count: usize,
    options: *const optimize_ensemble_options_t,
    ensemble: *mut *mut optimize_ensemble_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(ensemble, "ensemble")?;
            let models = models_of(models, count)?;
            out.set(handle::new(Ensemble::new(models, convert(&options::read(options)?)?)?));
            Ok(())
        })
    }
}

/// Loads an ensemble and its members from a manifest: `ensemble.json`, or a folder that contains it.
/// `optimize_model_load` accepts a manifest, too, and returns the model that `optimize_ensemble_fuse` would create.
/// Returns OPTIMIZE_NOT_FOUND if there is no manifest; OPTIMIZE_INVALID_MODEL if the manifest is damaged or has a newer
/// version, or if the size of a member differs from the one in the manifest; OPTIMIZE_UNSUPPORTED if a member is itself
/// an ensemble; otherwise the statuses of `optimize_model_load` and `optimize_ensemble_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_ensemble_load(
    path: *const c_char,
    ensemble: *mut *mut optimize_ensemble_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(ensemble, "ensemble")?;
            out.set(handle::new(Ensemble::load(Path::new(text(path, "path")?))?));
            Ok(())
        })
    }
}

/// Saves the manifest of an ensemble in a folder, which is created if necessary: `ensemble.json` with the paths of the
/// members. Returns OPTIMIZE_INVALID_ARGUMENT if a member exists only in memory, and the statuses of
/// `optimize_ensemble_fuse` if members that generate no text cannot be fused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_ensemble_save(
    ensemble: *const optimize_ensemble_t,
    folder: *const c_char,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            handle::get(ensemble)?.save(Path::new(text(folder, "folder")?))?;
            Ok(())
        })
    }
}

/// Writes a description of an ensemble as JSON: {"method", "task", "members", "weights", "temperatures", "notes"}.
/// Notes are unexpected properties, such as a vocabulary that is truncated to that of another member. Returns only
/// statuses that every function can return.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_ensemble_inspect(
    ensemble: *const optimize_ensemble_t,
    report: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(report, "report")?;
            let ensemble = handle::get(ensemble)?;
            let members = ensemble.members();
            let paths: Vec<_> = members.iter().map(|m| m.model.path().map(|path| path.display().to_string())).collect();
            let report = json!({
                "method": name_of(ensemble.options().method),
                "task": ensemble.task(),
                "members": paths,
                "weights": members.iter().map(|member| member.weight).collect::<Vec<_>>(),
                "temperatures": members.iter().map(|member| member.temperature).collect::<Vec<_>>(),
                "notes": ensemble.notes(),
            });
            out.set(buffer::new(format!("{report:#}\n")));
            Ok(())
        })
    }
}

/// Fits the weights of an ensemble of decoders to `size` bytes of UTF-8 text, and writes an ensemble with these weights
/// to `fitted`; the original is unchanged. `report` (may be NULL) receives JSON: {"weights", "member_nll", "equal_nll",
/// "fitted_nll", "gap", "tokens"}. Fields with "nll" are negative log-likelihoods, and "gap" bounds the difference of
/// "fitted_nll" from its minimum, in nats per token. Progress stage: "fit", in tokens. Returns OPTIMIZE_UNSUPPORTED if
/// the members do not generate text or have different vocabularies, or if the method is not mean, weighted, logits or
/// product; OPTIMIZE_NOT_FOUND if no member has a tokenizer; OPTIMIZE_INVALID_ARGUMENT if the text is too short;
/// OPTIMIZE_RUNTIME if a logit is not a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_ensemble_fit(
    context: *const optimize_context_t,
    ensemble: *const optimize_ensemble_t,
    text: *const c_char,
    size: usize,
    options: *const optimize_fit_options_t,
    call: *const optimize_call_t,
    fitted: *mut *mut optimize_ensemble_t,
    report: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let (out, report_out) = (Out::new(fitted, "fitted"), Out::optional(report));
            let out = out?;
            let (context, ensemble) = (handle::get(context)?, handle::get(ensemble)?);
            let given = options::read(options)?;
            let Ok(max_tokens) = usize::try_from(given.max_tokens) else {
                bail!(InvalidArgument, "max_tokens is too large")
            };
            let options = FitOptions {
                context_length: given.context_length as usize,
                stride: given.stride as usize,
                max_tokens,
                threads: context.threads(given.threads)?,
                ..FitOptions::default()
            };
            let (text, runtime) = (text_of(text, size, "text")?, context.runtime()?);
            let (found, figures) = call::with(call, |call| ensemble.fit(runtime, text, &options, call))?;
            report_out.set_with(|| buffer::new(serde_json::to_string_pretty(&figures).unwrap_or_default() + "\n"));
            out.set(handle::new(found));
            Ok(())
        })
    }
}

/// Creates a model that contains all members as branches and combines their outputs. The logits of a fused decoder are
/// the logarithms of the combined probabilities. `report` (may be NULL) receives the JSON of docs/report.md. Progress
/// stage: "fuse", in models. Returns OPTIMIZE_UNSUPPORTED if the members or their method cannot be fused;
/// OPTIMIZE_INVALID_ARGUMENT if inputs or outputs of the members do not match.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_ensemble_fuse(
    ensemble: *const optimize_ensemble_t,
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
            let ensemble = handle::get(ensemble)?;
            let (fused, report) = call::with(call, |call| ensemble.fuse(call))?;
            report_out.set_with(|| buffer::new(report.to_json()));
            out.set(model::new(fused));
            Ok(())
        })
    }
}

/// Creates a generator that combines the distributions of the members for every token. Its tokens and reports have
/// measures of uncertainty (see `optimize_written_t`). A model that occurs twice is loaded once; threads are divided
/// among the members. The ensemble may be freed before the generator.
/// Returns OPTIMIZE_UNSUPPORTED if the members do not generate text, or if the method is rerank and their vocabularies
/// differ; OPTIMIZE_INVALID_ARGUMENT if the options have a draft; otherwise the statuses of `optimize_generator_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_ensemble_generator(
    context: *const optimize_context_t,
    ensemble: *const optimize_ensemble_t,
    options: *const optimize_generator_options_t,
    call: *const optimize_call_t,
    generator: *mut *mut optimize_generator_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(generator, "generator")?;
            let (context, ensemble) = (handle::get(context)?, handle::get(ensemble)?);
            let (session, runtime) = (generator_options::without_draft(context, options)?, context.runtime()?);
            let made = call::with(call, |call| context.limited(|| ensemble.generator(runtime, &session, call)))?;
            out.set(generator::new(made));
            Ok(())
        })
    }
}

/// Frees an ensemble. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_ensemble_free(ensemble: *mut optimize_ensemble_t) {
    // SAFETY: the contract of `ffi`.
    super::guard_value((), || unsafe { handle::free(ensemble) });
}

/// Merges the weights of `count` models of one architecture into a new model of the same size, `result`. `report` (may
/// be NULL) receives the JSON of docs/report.md. Progress stage: "merge", in tensors.
/// Returns OPTIMIZE_INVALID_ARGUMENT if there are fewer than two models, if graphs or shapes differ (the message names
/// the first difference), or if options are out of range or do not fit the method; OPTIMIZE_UNSUPPORTED if a weight
/// that differs is quantized.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_merge(
    models: *const *const optimize_model_t,
    count: usize,
    options: *const optimize_merge_options_t,
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
            let models = models_of(models, count)?;
            let given = options::read(options)?;
            let base = handle::optional(given.base)?.map(|handle| &handle.model);
            let options = merge_options(&given)?;
            let (merged, report) = call::with(call, |call| merge(&models, base, &options, call))?;
            report_out.set_with(|| buffer::new(report.to_json()));
            out.set(model::new(merged));
            Ok(())
        })
    }
}

/// Returns the models behind `count` handles. Fails for an invalid handle, and above [`limits::ENSEMBLE_MEMBERS`].
///
/// # Safety
/// The contract of `ffi`.
unsafe fn models_of(models: *const *const optimize_model_t, count: usize) -> Result<Vec<Model>> {
    if count > limits::ENSEMBLE_MEMBERS {
        bail!(LimitExceeded, "count is {count}; the limit is {} models", limits::ENSEMBLE_MEMBERS);
    }
    // SAFETY: the contract of this function.
    let list = unsafe { slice(models, count, "models") }?;
    let one = |(index, model): (usize, &*const optimize_model_t)| {
        // SAFETY: the contract of this function.
        unsafe { handle::get(*model) }.at(|| format!("model {}", index + 1)).map(|handle| handle.model.clone())
    };
    list.iter().enumerate().map(one).collect()
}

/// Returns a copy of `count` numbers. Fails like [`slice`], and above [`limits::ENSEMBLE_MEMBERS`].
///
/// # Safety
/// The contract of `ffi`.
unsafe fn numbers(list: *const f64, count: u64, name: &str) -> Result<Vec<f64>> {
    if count > limits::ENSEMBLE_MEMBERS as u64 {
        bail!(InvalidArgument, "the number of {name} is {count}; the limit is {}", limits::ENSEMBLE_MEMBERS);
    }
    // SAFETY: the contract of this function.
    Ok(unsafe { slice(list, count as usize, name) }?.to_vec())
}

unsafe fn convert(given: &optimize_ensemble_options_t) -> Result<EnsembleOptions> {
    let task = (given.task != 0).then(|| EnsembleTask::from_code(given.task, "task")).transpose()?;
    // SAFETY: the contract of `ffi`.
    let numbers = |list, count, name| unsafe { numbers(list, count, name) };
    Ok(EnsembleOptions {
        method: Method::from_code(given.method, "method")?,
        weights: numbers(given.weights, given.weight_count, "weights")?,
        temperatures: numbers(given.temperatures, given.temperature_count, "temperatures")?,
        gate: given.gate != 0,
        allow_different_vocabularies: given.allow_different_vocabularies != 0,
        candidates: given.candidates as usize,
        length_penalty: match given.length_penalty {
            0.0 => None,
            penalty => Some(if penalty < 0.0 { 0.0 } else { penalty }),
        },
        task: task.map(Task::from),
    })
}

unsafe fn merge_options(given: &optimize_merge_options_t) -> Result<MergeOptions> {
    let defaults = MergeOptions::default();
    let or = |value: f64, default: f64| if value == 0.0 { default } else { value };
    Ok(MergeOptions {
        method: MergeMethod::from_code(given.method, "method")?,
        // SAFETY: the contract of `ffi`.
        weights: unsafe { numbers(given.weights, given.weight_count, "weights") }?,
        density: or(given.density, defaults.density),
        scale: or(given.scale, defaults.scale),
        // SAFETY: the contract of `ffi`.
        scratch_folder: unsafe { optional_path(given.scratch_folder, "scratch_folder") }?,
    })
}
