//! Ensembles: several models that answer together, or become one.

use super::call::{self, optimize_call_t};
use super::context::optimize_context_t;
use super::error::optimize_error_t;
use super::generator::{self, optimize_generator_options_t, optimize_generator_t};
use super::handle::{self, handle};
use super::model::{self, optimize_model_t};
use super::options::{self, Options};
use super::status::optimize_status_t;
use super::{Out, buffer, guard, slice, text, text_of};
use crate::ensemble::fit::FitOptions;
use crate::ensemble::{Ensemble, EnsembleOptions, MergeMethod, MergeOptions, Method, merge, name_of};
use crate::error::{Context, Result, bail};
use crate::limits;
use crate::model::Model;
use crate::runtime::SessionOptions;
use crate::source::Task;
use serde_json::json;
use std::ffi::c_char;
use std::path::{Path, PathBuf};

/// Models that answer together, and how. Never changes; any number of threads may use it at once.
#[allow(non_camel_case_types)]
pub struct optimize_ensemble_t(());

handle!(optimize_ensemble_t(Ensemble), b"opt-ense", "ensemble");

/// How the members' answers become one.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_ensemble_method_t {
    /// The mean of the probabilities; of embeddings, of the normalized vectors; of numbers, of the numbers.
    OPTIMIZE_ENSEMBLE_MEAN = 0,
    /// That with weights, which must be given.
    OPTIMIZE_ENSEMBLE_WEIGHTED = 1,
    /// The softmax of the mean of the logits.
    OPTIMIZE_ENSEMBLE_LOGITS = 2,
    /// The product of the probabilities.
    OPTIMIZE_ENSEMBLE_PRODUCT = 3,
    /// The largest probability of each token, divided by their sum.
    OPTIMIZE_ENSEMBLE_MAX = 4,
    /// The middle probability of each token, divided by their sum.
    OPTIMIZE_ENSEMBLE_MEDIAN = 5,
    /// The share of the members that hold the token, or class, for the most probable one.
    OPTIMIZE_ENSEMBLE_VOTE = 6,
    /// The first member's probabilities divided by the second's, where the first holds a token for plausible.
    OPTIMIZE_ENSEMBLE_CONTRASTIVE = 7,
    /// Each member writes; all of them score what each has written; the best is taken.
    OPTIMIZE_ENSEMBLE_RERANK = 8,
    /// Embeddings one after another, each normalized and times the root of its weight.
    OPTIMIZE_ENSEMBLE_CONCAT = 9,
}

/// What the members of an ensemble do.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_ensemble_task_t {
    /// As they say themselves.
    OPTIMIZE_ENSEMBLE_AS_MEMBERS = 0,
    /// Write text.
    OPTIMIZE_ENSEMBLE_GENERATE = 1,
    /// Turn texts into vectors.
    OPTIMIZE_ENSEMBLE_EMBED = 2,
    /// Turn inputs into classes: one output with logits.
    OPTIMIZE_ENSEMBLE_CLASSIFY = 3,
    /// Give numbers: every output is combined element by element.
    OPTIMIZE_ENSEMBLE_NUMBERS = 4,
}

/// Options of `optimize_ensemble_new`. All zero means the defaults: the mean, all members alike.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_ensemble_options_t {
    /// sizeof(optimize_ensemble_options_t).
    pub struct_size: u32,
    /// An optimize_ensemble_method_t.
    pub method: i32,
    /// An optimize_ensemble_task_t.
    pub task: i32,
    /// Not 0: combine only where members differ on the most probable token; else the first member speaks.
    pub gate: u32,
    /// Not 0: members may have different vocabularies; they are combined by the text of their tokens.
    pub allow_different_vocabularies: u32,
    /// Rerank: texts that each member writes; 0 is 1.
    pub candidates: u32,
    /// Rerank: log-probabilities are divided by the number of tokens to this power; 0 is 1. For hardly any give a
    /// small number.
    pub length_penalty: f64,
    /// `weight_count` numbers from 0, one for each member; they count relative to their sum. NULL: equal.
    pub weights: *const f64,
    /// Numbers in `weights`.
    pub weight_count: u64,
    /// `temperature_count` numbers above 0, one for each member: its logits are divided by it before they are combined.
    /// NULL: 1.
    pub temperatures: *const f64,
    /// Numbers in `temperatures`.
    pub temperature_count: u64,
}
// SAFETY: repr(C), six 32-bit and five 64-bit fields: no padding, all zero is valid.
unsafe impl Options for optimize_ensemble_options_t {}

/// Options of `optimize_ensemble_fit`. All zero means the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_fit_options_t {
    /// sizeof(optimize_fit_options_t).
    pub struct_size: u32,
    /// Threads; 0 is as the context says.
    pub threads: u32,
    /// Tokens of a window; 0 is what the members take, up to 512.
    pub context_length: u32,
    /// Tokens from the beginning of one window to that of the next; 0 is half of the context length.
    pub stride: u32,
    /// Tokens of the text to read; 0 is 8192.
    pub max_tokens: u64,
}
// SAFETY: repr(C), four 32-bit fields and one of 64: no padding, all zero is valid.
unsafe impl Options for optimize_fit_options_t {}

/// How weights of several models become one.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_merge_method_t {
    /// The (weighted) mean.
    OPTIMIZE_MERGE_LINEAR = 0,
    /// A point on the arc between two models, at the weight of the second.
    OPTIMIZE_MERGE_SLERP = 1,
    /// Changes against a base that agree in sign, the largest of each model.
    OPTIMIZE_MERGE_TIES = 2,
}

/// Options of `optimize_model_merge`. All zero means the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_merge_options_t {
    /// sizeof(optimize_merge_options_t).
    pub struct_size: u32,
    /// An optimize_merge_method_t.
    pub method: i32,
    /// `weight_count` numbers from 0, one for each model; they count relative to their sum. NULL: equal.
    pub weights: *const f64,
    /// Numbers in `weights`.
    pub weight_count: u64,
    /// Ties, and only there: the model that the others were made from.
    pub base: *const optimize_model_t,
    /// Ties: share of each model's changes that is kept, in (0, 1]; 0 is 0.2.
    pub density: f64,
    /// Ties: factor of the mean change; 0 is 1.
    pub scale: f64,
    /// Folder for the new weights until they are saved (an unlinked file); NULL is the system's.
    pub scratch_folder: *const c_char,
}
// SAFETY: repr(C), two 32-bit and six 64-bit fields: no padding, all zero is valid.
unsafe impl Options for optimize_merge_options_t {}

/// Makes an ensemble of `count` models, which may be freed before it. No session is made yet.
/// OPTIMIZE_INVALID_ARGUMENT if there is one model only, if the models do different things, if weights or temperatures
/// are not as many as they or out of range, if the method is not for their task, or if their vocabularies differ and
/// the options do not allow it; the message names the member.
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

/// Loads the ensemble of a manifest (`ensemble.json`, or a folder with one) and its members. optimize_model_load takes
/// a manifest, too, and gives what optimize_ensemble_fuse would. OPTIMIZE_NOT_FOUND if there is none;
/// OPTIMIZE_INVALID_MODEL if it is damaged, of a newer version, or a member is not the model it was.
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

/// Saves a manifest, `ensemble.json`, into a folder, which is made if it is not there. The members stay where they
/// are. OPTIMIZE_INVALID_ARGUMENT if a member was made in memory.
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

/// Says what an ensemble is, as JSON: {"method", "task", "members", "weights", "temperatures", "notes"}; notes are what
/// may not be expected, such as a vocabulary that is cut to that of another member.
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

/// Finds the weights with which members that write text foretell `size` bytes of UTF-8 text best, and gives the
/// ensemble with them; the first stays as it is. `report` (may be NULL) gets JSON: {"weights", "member_nll",
/// "equal_nll", "fitted_nll", "gap", "tokens"}, in nats a token. Progress stage: "fit". OPTIMIZE_UNSUPPORTED for methods
/// without weights.
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
            if let Some(out) = report_out {
                let text = serde_json::to_string_pretty(&figures).unwrap_or_default();
                out.set(buffer::new(text + "\n"));
            }
            out.set(handle::new(found));
            Ok(())
        })
    }
}

/// Makes one model whose branches are the members: it is saved, run, evaluated and benchmarked like any other. A fused
/// decoder gives logarithms of the combined probabilities as its logits. `report` (may be NULL) gets the JSON of
/// docs/report.md. Progress stage: "fuse". OPTIMIZE_UNSUPPORTED if the members cannot be one graph.
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
            if let Some(out) = report_out {
                out.set(buffer::new(report.to_json()));
            }
            out.set(model::new(fused));
            Ok(())
        })
    }
}

/// Makes the members ready to write text together: at every token their distributions are combined, and one text comes
/// out. The generator is used like one of a single model; what it tells of each token includes what the members thought
/// of it, and its reports have "uncertainty". Equal models are loaded once; threads are shared out among the members.
/// OPTIMIZE_UNSUPPORTED if the members do not write text. The ensemble may be freed before the generator.
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
            let session: SessionOptions = generator::session_options(context, options)?;
            let runtime = context.runtime()?;
            let made = call::with(call, |call| ensemble.generator(runtime, &session, call))?;
            out.set(generator::new(made));
            Ok(())
        })
    }
}

/// Frees an ensemble. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_ensemble_free(ensemble: *mut optimize_ensemble_t) {
    // SAFETY: the contract of `ffi`.
    super::guard_value((), || unsafe { handle::free(ensemble) });
}

/// Merges the weights of `count` models of one architecture into a new model of the same size; the models stay.
/// `report` (may be NULL) gets the JSON of docs/report.md. Progress stage: "merge", in tensors.
/// OPTIMIZE_INVALID_ARGUMENT if graphs or shapes differ (the message names the first difference) or options are out of
/// range; OPTIMIZE_UNSUPPORTED if weights that differ are quantized.
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
            if let Some(out) = report_out {
                out.set(buffer::new(report.to_json()));
            }
            out.set(model::new(merged));
            Ok(())
        })
    }
}

/// # Safety
/// The contract of `ffi`.
unsafe fn models_of(models: *const *const optimize_model_t, count: usize) -> Result<Vec<Model>> {
    if count > limits::ENSEMBLE_MEMBERS {
        bail!(LimitExceeded, "count is {count}, at most {} models are possible", limits::ENSEMBLE_MEMBERS);
    }
    // SAFETY: same contract.
    let list = unsafe { slice(models, count, "models") }?;
    let one = |(index, model): (usize, &*const optimize_model_t)| {
        // SAFETY: same contract.
        let handle = unsafe { handle::get(*model) }.at(|| format!("model {}", index + 1))?;
        Ok(handle.model.clone())
    };
    list.iter().enumerate().map(one).collect()
}

/// # Safety
/// The contract of `ffi`.
unsafe fn numbers(list: *const f64, count: u64, name: &str) -> Result<Vec<f64>> {
    if count > limits::ENSEMBLE_MEMBERS as u64 {
        bail!(InvalidArgument, "{count} {name}, at most {} are possible", limits::ENSEMBLE_MEMBERS);
    }
    // SAFETY: same contract.
    Ok(unsafe { slice(list, count as usize, name) }?.to_vec())
}

unsafe fn convert(given: &optimize_ensemble_options_t) -> Result<EnsembleOptions> {
    let method = match given.method {
        0 => Method::Mean,
        1 => Method::Weighted,
        2 => Method::Logits,
        3 => Method::Product,
        4 => Method::Max,
        5 => Method::Median,
        6 => Method::Vote,
        7 => Method::Contrastive,
        8 => Method::Rerank,
        9 => Method::Concat,
        other => bail!(InvalidArgument, "method is {other}, which is no optimize_ensemble_method_t"),
    };
    let task = match given.task {
        0 => None,
        1 => Some(Task::Generate),
        2 => Some(Task::Embed),
        3 => Some(Task::Classify),
        4 => Some(Task::Unknown),
        other => bail!(InvalidArgument, "task is {other}, which is no optimize_ensemble_task_t"),
    };
    // SAFETY: the contract of `ffi`.
    let (weights, temperatures) = unsafe {
        let weights = numbers(given.weights, given.weight_count, "weights")?;
        (weights, numbers(given.temperatures, given.temperature_count, "temperatures")?)
    };
    Ok(EnsembleOptions {
        method,
        weights,
        temperatures,
        gate: given.gate != 0,
        allow_different_vocabularies: given.allow_different_vocabularies != 0,
        candidates: given.candidates as usize,
        length_penalty: (given.length_penalty != 0.0).then_some(given.length_penalty),
        task,
    })
}

unsafe fn merge_options(given: &optimize_merge_options_t) -> Result<MergeOptions> {
    let method = match given.method {
        0 => MergeMethod::Linear,
        1 => MergeMethod::Slerp,
        2 => MergeMethod::Ties,
        other => bail!(InvalidArgument, "method is {other}, which is no optimize_merge_method_t"),
    };
    let defaults = MergeOptions::default();
    let or = |value: f64, default: f64| if value == 0.0 { default } else { value };
    Ok(MergeOptions {
        method,
        // SAFETY: the contract of `ffi`.
        weights: unsafe { numbers(given.weights, given.weight_count, "weights") }?,
        density: or(given.density, defaults.density),
        scale: or(given.scale, defaults.scale),
        scratch_folder: match given.scratch_folder.is_null() {
            true => None,
            // SAFETY: the contract of `ffi`.
            false => Some(PathBuf::from(unsafe { text(given.scratch_folder, "scratch_folder") }?)),
        },
    })
}
