//! Evaluation: what a model is worth on data.

use super::call::{self, optimize_call_t};
use super::context::optimize_context_t;
use super::error::optimize_error_t;
use super::handle;
use super::model::optimize_model_t;
use super::options::{self, Options};
use super::status::optimize_status_t;
use super::tokenizer::optimize_tokenizer_t;
use super::{Out, buffer, guard, session, text_of};
use crate::error::{Result, bail, error};
use crate::evaluate::{Bos, EvaluateOptions, EvaluateTask, evaluate};
use crate::text::Tokenizer;
use std::ffi::c_char;

/// What to evaluate, and what the data are for it.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_evaluate_task_t {
    /// What the model is for: one that writes text, embeds or classifies says so itself.
    OPTIMIZE_EVALUATE_DEFAULT = 0,
    /// How well a language model foresees the data, which are plain text.
    OPTIMIZE_EVALUATE_PERPLEXITY = 1,
    /// How alike two models embed the data, one text a line.
    OPTIMIZE_EVALUATE_EMBEDDING = 2,
    /// How often a classifier is right. The data are rows of a label and a text, TSV or CSV.
    OPTIMIZE_EVALUATE_CLASSIFICATION = 3,
    /// How well a linear classifier does on the model's embeddings. The data are as for classification.
    OPTIMIZE_EVALUATE_PROBE = 4,
}

/// Where the token that begins a text (`<s>`) stands, for models whose tokenizer puts one. It is never scored.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_bos_t {
    /// In front of every window, as llama.cpp has it.
    OPTIMIZE_BOS_EVERY_WINDOW = 0,
    /// In front of the text alone, as the documentation of transformers has it.
    OPTIMIZE_BOS_FIRST_WINDOW = 1,
    /// Nowhere.
    OPTIMIZE_BOS_NEVER = 2,
}

/// Options of `optimize_model_evaluate`. All zero means the defaults. What a task does not need is passed over.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_evaluate_options_t {
    /// sizeof(optimize_evaluate_options_t).
    pub struct_size: u32,
    /// An optimize_evaluate_task_t.
    pub task: i32,
    /// Threads; 0 is as the context says.
    pub threads: u32,
    /// Perplexity: tokens of a window; 0 is what the model takes, up to 512.
    pub context_length: u32,
    /// Perplexity: tokens from the beginning of one window to that of the next; 0 is half of the context length.
    /// A smaller stride takes longer and gives a lower, truer perplexity.
    pub stride: u32,
    /// Perplexity: an optimize_bos_t.
    pub bos: i32,
    /// Other tasks: tokens after which a text is cut; 0 is what the model takes, up to 512.
    pub max_length: u32,
    /// Other tasks: texts in one run; 0 is 1, with which a text's figures do not depend on its neighbours.
    pub batch_size: u32,
    /// Perplexity: tokens of the text to read; 0 is all.
    pub max_tokens: u64,
    /// Other tasks: lines or rows to use; 0 is all.
    pub max_texts: u64,
    /// Probe: seed of the split into training and test.
    pub seed: u64,
    /// Probe: share of each class's texts that is kept for the test, below 1; 0 is 0.2.
    pub test_share: f64,
    /// Probe: weight of the penalty on large weights; 0 is 0.5. For hardly any give a small number.
    pub penalty: f64,
    /// An optimize_provider_t: what the sessions run on.
    pub provider: i32,
    /// Number of the device, from 0; for the processor 0.
    pub device_id: u32,
    /// TensorRT: absolute path of a folder for engines; NULL keeps none.
    pub engine_cache: *const c_char,
}
// SAFETY: repr(C), eight 32-bit and five 64-bit numbers, two of 32 and a pointer: no padding, all zero is valid.
unsafe impl Options for optimize_evaluate_options_t {}

/// Measures what a model is worth on `size` bytes of UTF-8 `data` (the content of a file; not NUL-terminated): see
/// optimize_evaluate_task_t. `against` may be NULL, but for embeddings; else both models are measured on the same
/// data and compared pair by pair, `model` as the original and `against` as the result. `tokenizer` may be NULL:
/// then it is the one that belongs to `model`, and OPTIMIZE_NOT_FOUND if there is none. `against` reads with its own
/// where that is another; classes are compared by their names. `report` gets the JSON of docs/report.md. Progress stages: "evaluate", in tokens or texts, then "hash", in bytes.
///
/// OPTIMIZE_INVALID_ARGUMENT if the data are not what the task needs (the message names the line), if options do
/// not fit the model, if ids or classes of the two mean other things and cannot be compared, or if no task is named
/// and the model does not say what it is for; OPTIMIZE_UNSUPPORTED if a
/// model cannot do the task; OPTIMIZE_LIMIT_EXCEEDED above 64 MiB of data. Any thread may call it.
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
                    found = own.ok_or_else(|| error!(NotFound, "the model has no tokenizer.json beside it"))?;
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

/// # Safety
/// The contract of `ffi`.
unsafe fn convert(given: &optimize_evaluate_options_t) -> Result<EvaluateOptions> {
    let defaults = EvaluateOptions::default();
    let Ok(max_tokens) = usize::try_from(given.max_tokens) else { bail!(InvalidArgument, "max_tokens is too large") };
    let Ok(max_texts) = usize::try_from(given.max_texts) else { bail!(InvalidArgument, "max_texts is too large") };
    let or = |value: f64, default: f64| if value == 0.0 { default } else { value };
    Ok(EvaluateOptions {
        task: task(given.task)?,
        context_length: given.context_length as usize,
        stride: given.stride as usize,
        max_tokens,
        bos: bos(given.bos)?,
        max_texts,
        max_length: given.max_length as usize,
        batch_size: if given.batch_size == 0 { defaults.batch_size } else { given.batch_size as usize },
        test_share: or(given.test_share, defaults.test_share),
        seed: given.seed,
        penalty: or(given.penalty, defaults.penalty),
        // SAFETY: same contract.
        execution: unsafe { session::execution(given.provider, given.device_id, given.engine_cache) }?,
        ..defaults
    })
}

fn task(number: i32) -> Result<Option<EvaluateTask>> {
    Ok(match number {
        0 => None,
        1 => Some(EvaluateTask::Perplexity),
        2 => Some(EvaluateTask::Embedding),
        3 => Some(EvaluateTask::Classification),
        4 => Some(EvaluateTask::Probe),
        other => bail!(InvalidArgument, "task is {other}, which is no optimize_evaluate_task_t"),
    })
}

fn bos(number: i32) -> Result<Bos> {
    Ok(match number {
        0 => Bos::EveryWindow,
        1 => Bos::FirstWindow,
        2 => Bos::Never,
        other => bail!(InvalidArgument, "bos is {other}, which is no optimize_bos_t"),
    })
}
