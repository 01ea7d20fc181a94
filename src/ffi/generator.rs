//! Text generation with decoders and ensembles of them.

use super::call::{self, optimize_call_t};
use super::context::optimize_context_t;
use super::error::optimize_error_t;
use super::generator_options::{draft_of, optimize_generator_options_t, session_options};
use super::handle::{self, handle};
use super::model::optimize_model_t;
use super::options::{self, Options};
use super::status::optimize_status_t;
use super::{Out, buffer, guard, slice, text_of, texts, texts_of};
use crate::call::Call;
use crate::error::{Result, bail};
use crate::limits;
use crate::model::GenerationDefaults;
use crate::text::{FinishReason, GenerateOptions, Generator, Prompt, Rows, SamplingOptions, Written};
use serde_json::json;
use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard};

/// A generator: a decoder, or an ensemble of decoders, with the rows of text that it has read and generated so far.
/// Any thread may use it, but only one at a time: a concurrent call, other than `optimize_generator_placement`, returns
/// OPTIMIZE_BUSY.
#[allow(non_camel_case_types)]
pub struct optimize_generator_t(());

/// The value behind a generator handle.
pub struct GeneratorHandle {
    rows: Mutex<Box<dyn Rows>>,
    /// Placement of the models as JSON. It does not change, so that other threads can read it during a call.
    placement: String,
}

handle!(optimize_generator_t(GeneratorHandle), b"opt-gene", "generator");

/// The reason why the text of a row ended.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_finish_reason_t {
    /// The text has not ended.
    OPTIMIZE_FINISH_NONE = 0,
    /// The model generated an end-of-text token.
    OPTIMIZE_FINISH_EOS = 1,
    /// The limit `max_new_tokens`, `max_length` or that of the model was reached.
    OPTIMIZE_FINISH_LENGTH = 2,
    /// A stop string or a stop token was found.
    OPTIMIZE_FINISH_STOP = 3,
    /// The token callback returned a value other than 0.
    OPTIMIZE_FINISH_CANCELLED = 4,
}

/// A generated token, as the token callback receives it.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_written_t {
    /// Size of the struct in this version of the library.
    pub struct_size: u32,
    /// Index of the row.
    pub row: u32,
    /// Id of the token.
    pub token: i64,
    /// Text that this token completes: `text_size` bytes of UTF-8, not NUL-terminated. It consists of whole
    /// characters that later tokens cannot change, without any part of a stop string, and may be empty. It is valid
    /// during the callback.
    pub text: *const c_char,
    /// Number of bytes in `text`.
    pub text_size: u64,
    /// Log-probability of the token, if log-probabilities were requested; otherwise 0.
    pub logprob: f32,
    /// Finish reason of the row, an optimize_finish_reason_t; OPTIMIZE_FINISH_NONE before its last token.
    pub finish_reason: i32,
    /// Ensembles: entropy of the combined distribution, in nats; otherwise 0.
    pub entropy: f64,
    /// Ensembles: part of the entropy that comes from disagreement between the members, in nats; otherwise 0.
    pub mutual_information: f64,
    /// Ensembles: sum of the weights of the members that rank this token first; otherwise 0.
    pub agreement: f64,
}

/// Token callback. It is called for every generated token, on the thread that made the call. A return value other
/// than 0 ends all rows. The callback must not throw or use longjmp.
#[allow(non_camel_case_types)]
pub type optimize_token_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, written: *const optimize_written_t) -> i32>;

/// Options of `optimize_generator_generate` and `optimize_generator_run`. Fields that are 0 or NULL have their
/// defaults: generation selects the most probable token each time, and ends after at most 256 new tokens.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_generate_options_t {
    /// sizeof(optimize_generate_options_t).
    pub struct_size: u32,
    /// Maximum number of new tokens per row; 0 means no limit, or 256 if max_length is 0, too.
    pub max_new_tokens: u32,
    /// Maximum number of tokens per row, including the prompt; 0 means no limit.
    pub max_length: u32,
    /// Sampling: number of most probable tokens among which the next token is sampled; 0 selects all tokens.
    pub top_k: u32,
    /// Sampling temperature, by which logits are divided; 0 selects the most probable token each time. Together with
    /// 0, a top_k above 1, top_p or min_p returns OPTIMIZE_INVALID_ARGUMENT, because they would have no effect.
    pub temperature: f32,
    /// Sampling: total probability, at most 1, of the most probable tokens among which the next token is sampled; 0
    /// selects all tokens.
    pub top_p: f32,
    /// Sampling: minimum probability of a token, from 0 to 1, relative to that of the most probable token; 0 selects
    /// all tokens.
    pub min_p: f32,
    /// Repetition penalty: a value above 1 makes tokens that occur in the prompt or the generated text less probable, a
    /// value below 1 more probable; 1 disables it. 0 selects that of generation_config.json, or 1 without one.
    pub repetition_penalty: f32,
    /// Presence penalty, from -2 to 2, which is subtracted from the logits of tokens that occur in the generated text;
    /// 0 disables it.
    pub presence_penalty: f32,
    /// Frequency penalty, from -2 to 2, which is subtracted from the logit of a token for each occurrence in the
    /// generated text; 0 disables it.
    pub frequency_penalty: f32,
    /// Length of token sequences that must not occur twice in prompt and generated text; 0 selects that of
    /// generation_config.json, or allows repetitions without one.
    pub no_repeat_ngram_size: u32,
    /// Log-probabilities to return: 0 returns none; n returns those of each generated token and of the n - 1 most
    /// probable tokens.
    pub logprobs: u32,
    /// Seed of sampling. The same seed gives the same text for the same prompts, options, model and machine.
    pub seed: u64,
    /// Array of `stop_count` strings that end the text of a row and are not part of it. A string that is the text of
    /// a special token ends the text when the model generates that token.
    pub stop: *const *const c_char,
    /// Number of strings in `stop`.
    pub stop_count: u64,
    /// Token callback, or NULL.
    pub on_token: optimize_token_fn,
    /// User data passed to `on_token`.
    pub user_data: *mut c_void,
    /// If not 0, prompts already contain their special tokens, like the result of `optimize_model_apply_chat_template`.
    pub rendered: u32,
    /// A value other than 0 continues after end-of-text tokens.
    pub ignore_eos: u32,
    /// Array of `stop_token_count` ids of tokens that end the text of a row and are not part of it.
    pub stop_tokens: *const i64,
    /// Number of ids in `stop_tokens`.
    pub stop_token_count: u64,
    /// A value other than 0 samples with the settings that the model recommends (generation_config.json), in place of
    /// fields that are 0: temperature (otherwise 1), top_k (otherwise 50), top_p, min_p, repetition_penalty,
    /// no_repeat_ngram_size.
    pub model_sampling: u32,
    /// Must be 0.
    pub reserved: u32,
}
// SAFETY: repr(C), twelve 32-bit, five 64-bit, two 32-bit, two 64-bit and two 32-bit fields: no padding, all zero is
// valid.
unsafe impl Options for optimize_generate_options_t {}

/// Creates a generator of a decoder model with a tokenizer. The model and the draft model may be freed before the
/// generator. Returns OPTIMIZE_UNSUPPORTED if a model is not a decoder, or cannot have the KV cache that the options
/// request; OPTIMIZE_INVALID_ARGUMENT if the draft model has another vocabulary; otherwise the statuses of
/// `optimize_session_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_generator_new(
    context: *const optimize_context_t,
    model: *const optimize_model_t,
    options: *const optimize_generator_options_t,
    call: *const optimize_call_t,
    generator: *mut *mut optimize_generator_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(generator, "generator")?;
            let (context, model) = (handle::get(context)?, &handle::get(model)?.model);
            let (session, draft) = (session_options(context, options)?, draft_of(options)?);
            let runtime = context.runtime()?;
            let make = |call: &Call| {
                let generator = Generator::new(runtime, model, &session, call)?;
                draft.add(generator, runtime, &session, call)
            };
            let made = call::with(call, |call| context.limited(|| make(call)))?;
            out.set(new(Box::new(made)));
            Ok(())
        })
    }
}

/// Generates text after each of `count` prompts. `sizes` are the lengths of the prompts in bytes; NULL means that they
/// are NUL-terminated. Each prompt becomes a row; previous rows are discarded. `report` receives JSON: {"generations":
/// [{"text", "tokens", "logprobs", "finish_reason", "prompt_tokens"}]}, with a draft also "draft", of an ensemble also
/// "uncertainty" and "mean_uncertainty". Progress stages: "prompt" and "generate", in tokens. After a call that was
/// cancelled or timed out, `optimize_generator_run` continues the texts.
///
/// Returns OPTIMIZE_INVALID_ARGUMENT if `count` is 0, if a prompt is empty or longer than `max_length` or the model's
/// limit, or if an option is out of range; OPTIMIZE_INVALID_ARGUMENT also if the model has no tokenizer, or if the
/// generator has a draft and `count` is not 1; OPTIMIZE_UNSUPPORTED if the generator has a draft and the model outputs
/// the logits of the last token only; OPTIMIZE_BUSY while another thread uses the generator; OPTIMIZE_RUNTIME if ONNX
/// Runtime fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_generator_generate(
    generator: *mut optimize_generator_t,
    prompts: *const *const c_char,
    sizes: *const usize,
    count: usize,
    options: *const optimize_generate_options_t,
    call: *const optimize_call_t,
    report: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let prompts = || match count {
                0 => bail!(InvalidArgument, "count is 0: there is no prompt"),
                _ => texts_of(prompts, sizes, count, "prompts").map(Some),
            };
            write(generator, prompts, options, call, report)
        })
    }
}

/// Appends `size` bytes of text to a row, for example a message of a conversation to row 0. If there are no rows, row 0
/// is created. The next `optimize_generator_run` processes only the appended text. Of the options, only `rendered` has
/// an effect. A model without a tokenizer is refused as an invalid argument. Returns OPTIMIZE_NOT_FOUND if the row does
/// not exist; OPTIMIZE_BUSY while another thread uses the generator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_generator_append(
    generator: *mut optimize_generator_t,
    row: usize,
    text: *const c_char,
    size: usize,
    options: *const optimize_generate_options_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let mut generator = lock(handle::get(generator.cast_const())?)?;
            let given = options::read(options)?;
            // Only `rendered` is used here, but invalid options are reported as early as possible.
            convert(&given, generator.defaults())?;
            let text = text_of(text, size, "text")?;
            let rows = generator.row_count();
            if rows == 0 && row == 0 {
                generator.start(1)?;
            } else if row >= rows {
                bail!(NotFound, "row {row} does not exist; there are {rows}");
            }
            generator.append(row, prompt(text, &given)).map(drop)
        })
    }
}

/// Generates text in all rows, without processing earlier tokens again. `report` receives JSON as from
/// `optimize_generator_generate`, for the new tokens. Returns OPTIMIZE_INVALID_ARGUMENT if a row is empty or has
/// reached the model's limit; otherwise the statuses of `optimize_generator_generate`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_generator_run(
    generator: *mut optimize_generator_t,
    options: *const optimize_generate_options_t,
    call: *const optimize_call_t,
    report: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe { guard(error, || write(generator, || Ok(None), options, call, report)) }
}

/// Discards all rows of a generator, which can then generate other texts. Returns OPTIMIZE_BUSY while another thread
/// uses the generator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_generator_reset(
    generator: *mut optimize_generator_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            lock(handle::get(generator.cast_const())?)?.reset();
            Ok(())
        })
    }
}

/// Frees a generator. NULL is allowed. It must not be in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_generator_free(generator: *mut optimize_generator_t) {
    // SAFETY: the contract of `ffi`.
    super::guard_value((), || unsafe { handle::free(generator) });
}

/// Generates text, after prompts if they are given, otherwise in the existing rows, and writes the report.
///
/// # Safety
/// The contract of `ffi`.
unsafe fn write<'a>(
    generator: *mut optimize_generator_t,
    prompts: impl FnOnce() -> Result<Option<Vec<&'a str>>>,
    options: *const optimize_generate_options_t,
    call: *const optimize_call_t,
    report: *mut *mut buffer::optimize_buffer_t,
) -> Result<()> {
    // SAFETY: the contract of this function.
    unsafe {
        let out = Out::new(report, "report")?;
        let mut generator = lock(handle::get(generator.cast_const())?)?;
        let given = options::read(options)?;
        let prompts: Option<Vec<Prompt<'_>>> =
            prompts()?.map(|texts| texts.into_iter().map(|text| prompt(text, &given)).collect());
        let options = convert(&given, generator.defaults())?;
        let mut tell = |written: &Written<'_>| report_token(&given, written);
        let written = call::with(call, |call| match &prompts {
            Some(prompts) => generator.generate(prompts, &options, Some(&mut tell), call),
            None => generator.run(&options, Some(&mut tell), call),
        })?;
        out.set(buffer::new(format!("{}\n", json!({ "generations": written }))));
        Ok(())
    }
}

/// Returns a generator handle.
pub(super) fn new(rows: Box<dyn Rows>) -> *mut optimize_generator_t {
    let placement = serde_json::to_string(&rows.placements()).unwrap_or_default();
    handle::new(GeneratorHandle { rows: Mutex::new(rows), placement })
}

fn lock(generator: &GeneratorHandle) -> Result<MutexGuard<'_, Box<dyn Rows>>> {
    handle::lock(&generator.rows, "using this generator")
}

fn prompt<'a>(text: &'a str, options: &optimize_generate_options_t) -> Prompt<'a> {
    if options.rendered != 0 { Prompt::Rendered(text) } else { Prompt::Text(text) }
}

unsafe fn convert(given: &optimize_generate_options_t, defaults: &GenerationDefaults) -> Result<GenerateOptions> {
    if given.reserved != 0 {
        bail!(InvalidArgument, "reserved is not 0");
    }
    let some = |value: u32| (value > 0).then_some(value as usize);
    let count = |given: u64, name: &str| match usize::try_from(given) {
        Ok(count) if count <= limits::RUN_VALUES => Ok(count),
        _ => bail!(InvalidArgument, "{name} is {given}; the limit is {}", limits::RUN_VALUES),
    };
    let counts = (count(given.stop_count, "stop_count")?, count(given.stop_token_count, "stop_token_count")?);
    // SAFETY: the contract of `ffi`.
    let (stop, stop_tokens) =
        unsafe { (texts(given.stop, counts.0, "stop")?, slice(given.stop_tokens, counts.1, "stop_tokens")?.to_vec()) };
    Ok(GenerateOptions {
        max_new_tokens: some(given.max_new_tokens),
        max_length: some(given.max_length),
        sampling: sampling(given, defaults),
        stop: stop.into_iter().map(str::to_owned).collect(),
        stop_tokens,
        eos_token_ids: (given.ignore_eos != 0).then(Vec::new),
        logprobs: some(given.logprobs).map(|n| n - 1),
        ..GenerateOptions::default()
    })
}

/// Returns the sampling options of a call. Fields that are 0 select the values that the model recommends; without
/// `model_sampling`, only those of the penalties, and greedy sampling.
fn sampling(given: &optimize_generate_options_t, defaults: &GenerationDefaults) -> SamplingOptions {
    let drawn = SamplingOptions::drawn(defaults);
    let base = if given.model_sampling == 0 { drawn.greedy() } else { drawn };
    let or = |value: f32, base: f32| if value == 0.0 { base } else { value };
    let count = |value: u32, base: usize| if value == 0 { base } else { value as usize };
    SamplingOptions {
        temperature: or(given.temperature, base.temperature),
        top_k: count(given.top_k, base.top_k),
        top_p: or(given.top_p, base.top_p),
        min_p: or(given.min_p, base.min_p),
        repetition_penalty: or(given.repetition_penalty, base.repetition_penalty),
        presence_penalty: or(given.presence_penalty, base.presence_penalty),
        frequency_penalty: or(given.frequency_penalty, base.frequency_penalty),
        no_repeat_ngram_size: count(given.no_repeat_ngram_size, base.no_repeat_ngram_size),
        seed: given.seed,
    }
}

fn report_token(options: &optimize_generate_options_t, written: &Written<'_>) -> ControlFlow<()> {
    let Some(function) = options.on_token else { return ControlFlow::Continue(()) };
    let thought = written.uncertainty.unwrap_or_default();
    let token = optimize_written_t {
        struct_size: size_of::<optimize_written_t>() as u32,
        row: written.row as u32,
        token: written.token,
        text: written.text.as_ptr().cast(),
        text_size: written.text.len() as u64,
        logprob: written.logprobs.map_or(0.0, |l| l.chosen.logprob),
        finish_reason: written.finish_reason.map_or(0, FinishReason::code),
        entropy: thought.entropy,
        mutual_information: thought.mutual_information,
        agreement: thought.agreement,
    };
    // SAFETY: the caller's function with the caller's data, on the caller's thread.
    match unsafe { function(options.user_data, &token) } {
        0 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    }
}

/// Writes the placement of the models of a generator as JSON: a list with an object for each model, as from
/// `optimize_session_placement`. Any thread may call this function at any time. Returns only statuses that every
/// function can return.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_generator_placement(
    generator: *const optimize_generator_t,
    json: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            Out::new(json, "json")?.set(buffer::new(handle::get(generator)?.placement.clone()));
            Ok(())
        })
    }
}
