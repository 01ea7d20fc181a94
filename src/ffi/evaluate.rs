//! Evaluation of models on data.

use super::call::{self, optimize_call_t};
use super::context::optimize_context_t;
use super::error::optimize_error_t;
use super::handle;
use super::model::optimize_model_t;
use super::options::{self, Options};
use super::session::where_of;
use super::status::optimize_status_t;
use super::tokenizer::optimize_tokenizer_t;
use super::{Out, buffer, guard, text_of};
use crate::error::{Result, bail, error};
use crate::evaluate::{Bos, EvaluateOptions, EvaluateTask, evaluate};
use crate::text::Tokenizer;
use std::ffi::c_char;

/// Evaluation task. It determines the format of the data.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_evaluate_task_t {
    /// The task that fits the model: perplexity for text generation, embedding for embedding models, classification for
    /// classifiers.
    OPTIMIZE_EVALUATE_DEFAULT = 0,
    /// Perplexity of a language model on plain text.
    OPTIMIZE_EVALUATE_PERPLEXITY = 1,
    /// Similarity of two models' embeddings of texts, one per line.
    OPTIMIZE_EVALUATE_EMBEDDING = 2,
    /// Accuracy of a classifier. The data are rows with a label and a text, as TSV or CSV.
    OPTIMIZE_EVALUATE_CLASSIFICATION = 3,
    /// Accuracy of a linear classifier that is trained on the model's embeddings. The data have the format of
    /// classification.
    OPTIMIZE_EVALUATE_PROBE = 4,
}

/// Position of the beginning-of-sequence token (such as `<s>`), for models whose tokenizer has one. The token itself is
/// not scored.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_bos_t {
    /// At the start of every window, as in llama.cpp.
    OPTIMIZE_BOS_EVERY_WINDOW = 0,
    /// At the start of the text only, as in the documentation of transformers.
    OPTIMIZE_BOS_FIRST_WINDOW = 1,
    /// Nowhere: the token is not inserted.
    OPTIMIZE_BOS_NEVER = 2,
}

/// Options of `optimize_model_evaluate`. Fields that are 0 or NULL have their defaults. Fields that do not apply to
/// the task are ignored.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_evaluate_options_t {
    /// sizeof(optimize_evaluate_options_t).
    pub struct_size: u32,
    /// Evaluation task, an optimize_evaluate_task_t.
    pub task: i32,
    /// Number of threads; 0 uses that of the context.
    pub threads: u32,
    /// Perplexity: number of tokens per window; 0 selects the limit of the model, up to 512.
    pub context_length: u32,
    /// Perplexity: number of tokens between the starts of two windows; 0 selects half of the context length. A
    /// smaller stride takes longer and usually gives a lower, more accurate perplexity.
    pub stride: u32,
    /// Perplexity: position of the beginning-of-sequence token, an optimize_bos_t.
    pub bos: i32,
    /// Other tasks: number of tokens after which a text is truncated; 0 selects the limit for texts in the model's
    /// files, otherwise the number of positions of the model, up to 512.
    pub max_length: u32,
    /// Other tasks: number of texts per run; 0 selects 1, with which the result of a text does not depend on other
    /// texts.
    pub batch_size: u32,
    /// Perplexity: maximum number of tokens of the text to use; 0 selects all.
    pub max_tokens: u64,
    /// Other tasks: maximum number of lines or rows to use; 0 selects all.
    pub max_texts: u64,
    /// Probe: seed of the split into training set and test set.
    pub seed: u64,
    /// Probe: share of the texts of each class in the test set, below 1; 0 selects 0.2.
    pub test_share: f64,
    /// Probe: L2 penalty on the weights of the linear classifier; 0 selects 0.5, a negative value disables the penalty.
    pub penalty: f64,
    /// Execution provider of the sessions, an optimize_provider_t.
    pub provider: i32,
    /// Index of the device, from 0; 0 for the CPU.
    pub device_id: u32,
    /// TensorRT: absolute path of a folder that caches engines; NULL disables the cache.
    pub engine_cache: *const c_char,
    /// Kernels that run the nodes of the model on the CPU, an optimize_kernels_t.
    pub kernels: i32,
    /// Precision of matrix products with constant float32 weights on the CPU, an optimize_session_precision_t. Any
    /// value but OPTIMIZE_SESSION_PRECISION_FP32 needs this library's kernels, and returns OPTIMIZE_BACKEND_MISSING if
    /// they cannot be used.
    pub precision: i32,
}
// SAFETY: repr(C), eight 32-bit and five 64-bit numbers, two of 32, a pointer and two of 32: no padding, all zero is
// valid.
unsafe impl Options for optimize_evaluate_options_t {}

/// Evaluates a model on `data`: `size` bytes of UTF-8 text in the format of the task (see optimize_evaluate_task_t). If
/// `against` is not NULL, both models are evaluated on the same data and compared sample by sample: `model` is the
/// original, `against` the changed model. The task embedding requires `against`. If `tokenizer` is NULL, that of
/// `model` is used. For perplexity, `against` reads the same token ids as `model`; for other tasks, it uses its own
/// tokenizer if that differs. Classes of the two models are matched by name. `report` receives the JSON of
/// docs/report.md. Progress stages: "evaluate", in tokens or texts, then "hash", in bytes. Any thread may call this
/// function.
///
/// Returns OPTIMIZE_NOT_FOUND if there is no tokenizer; OPTIMIZE_INVALID_ARGUMENT if the data do not have the format of
/// the task (the message names the line), if options do not fit the model, or if `task` is 0 and no task fits the
/// model; OPTIMIZE_INVALID_ARGUMENT also if the token ids or the classes of the two models cannot be compared;
/// OPTIMIZE_UNSUPPORTED if a model does not support the task; OPTIMIZE_LIMIT_EXCEEDED above 64 MiB of data.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_evaluate(
    context: *const optimize_context_t,
    model: *const optimize_model_t,
    against: *const optimize_model_t,
    tokenizer: *const optimize_tokenizer_t,
    data: *const c_char,
    size: usize,
    options: *const optimize_evaluate_options_t,
    call: *const optimize_call_t,
    report: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(report, "report")?;
            let context = handle::get(context)?;
            let (model, against) = (&handle::get(model)?.model, handle::optional(against)?.map(|handle| &handle.model));
            let given = options::read(options)?;
            let mut options = convert(&given)?;
            options.threads = context.threads(given.threads)?;
            let found;
            let tokenizer = match handle::optional(tokenizer)? {
                Some(tokenizer) => tokenizer,
                None => {
                    let own = Tokenizer::of(model)?;
                    found = own.ok_or_else(|| error!(NotFound, "the model has no tokenizer.json next to it"))?;
                    &found
                }
            };
            let data = text_of(data, size, "data")?;
            let runtime = context.runtime()?;
            let report = call::with(call, |call| {
                let mut report = evaluate(runtime, model, against, tokenizer, data, &options, call)?;
                report.input = Some(model.identity(call)?);
                report.output = against.map(|other| other.identity(call)).transpose()?;
                Ok(report)
            })?;
            out.set(buffer::new(report.to_json()));
            Ok(())
        })
    }
}

/// Returns the options that a C struct describes.
///
/// # Safety
/// The contract of `ffi`.
unsafe fn convert(given: &optimize_evaluate_options_t) -> Result<EvaluateOptions> {
    let defaults = EvaluateOptions::default();
    let Ok(max_tokens) = usize::try_from(given.max_tokens) else { bail!(InvalidArgument, "max_tokens is too large") };
    let Ok(max_texts) = usize::try_from(given.max_texts) else { bail!(InvalidArgument, "max_texts is too large") };
    let or = |value: f64, default: f64| if value == 0.0 { default } else { value };
    Ok(EvaluateOptions {
        task: (given.task != 0).then(|| EvaluateTask::from_code(given.task, "task")).transpose()?,
        context_length: given.context_length as usize,
        stride: given.stride as usize,
        max_tokens,
        bos: Bos::from_code(given.bos, "bos")?,
        max_texts,
        max_length: given.max_length as usize,
        batch_size: if given.batch_size == 0 { defaults.batch_size } else { given.batch_size as usize },
        test_share: or(given.test_share, defaults.test_share),
        seed: given.seed,
        penalty: if given.penalty < 0.0 { 0.0 } else { or(given.penalty, defaults.penalty) },
        // SAFETY: same contract.
        execution: unsafe { where_of!(given).execution() }?,
        ..defaults
    })
}
