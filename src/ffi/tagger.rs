//! Token classification: labelled spans of texts.

use super::call::{self, optimize_call_t};
use super::context::optimize_context_t;
use super::encoder::{shared, text_options};
use super::error::optimize_error_t;
use super::handle::{self, handle};
use super::model::optimize_model_t;
use super::options::{self, Options};
use super::session::where_of;
use super::status::optimize_status_t;
use super::tokenizer::optimize_tokenizer_t;
use super::{Out, c_string, guard, texts};
use crate::encoder::{Aggregation, Span, Tagger, TaggerOptions};
use crate::error::bail;
use std::collections::BTreeMap;
use std::ffi::{CString, c_char};
use std::sync::Arc;

/// A tagger, which finds labelled spans in texts: named entities, parts of speech, or others that a model for token
/// classification recognizes. Any number of threads may use it at the same time.
#[allow(non_camel_case_types)]
pub struct optimize_tagger_t(());

handle!(optimize_tagger_t(Tagger), b"opt-tagg", "tagger");

/// The labelled spans of the texts of one `optimize_tagger_tag`. They are immutable, and any thread may read them.
#[allow(non_camel_case_types)]
pub struct optimize_spans_t(());

handle!(optimize_spans_t(Spans), b"opt-span", "spans");

/// The spans of texts, with their labels as C strings.
pub struct Spans(Vec<Vec<(Span, Arc<CString>)>>);

/// Rule by which the tokens of a text become spans.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_aggregation_t {
    /// Adjacent tokens of one class become a span, whose score is the mean of the scores of the tokens.
    OPTIMIZE_AGGREGATION_SIMPLE = 0,
    /// Each token is a span, with its label as it is.
    OPTIMIZE_AGGREGATION_NONE = 1,
    /// A word has the class of its first token; adjacent words of one class become a span.
    OPTIMIZE_AGGREGATION_FIRST = 2,
    /// A word has the class with the highest mean score over its tokens; adjacent words of one class become a span.
    OPTIMIZE_AGGREGATION_AVERAGE = 3,
    /// A word has the class of its token with the highest score; adjacent words of one class become a span.
    OPTIMIZE_AGGREGATION_MAX = 4,
}

/// Options of `optimize_tagger_new`. Fields that are 0 or NULL have their defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_tagger_options_t {
    /// sizeof(optimize_tagger_options_t).
    pub struct_size: u32,
    /// Number of threads; 0 uses that of the context.
    pub threads: u32,
    /// Number of texts per run; 0 selects 8. Texts of similar length are run together, padded to the longest.
    pub batch_size: u32,
    /// Number of tokens of a window, including special tokens; 0 selects the limit for texts in the model's files
    /// (`max_seq_length`, `model_max_length`), otherwise the number of positions of the model, up to 512. Longer texts
    /// are divided into overlapping windows.
    pub max_length: u32,
    /// Number of tokens by which the windows of a long text overlap; 0 selects a quarter of a window. A token has the
    /// label from the window in which it is furthest from an end at which the text was divided.
    pub stride: u32,
    /// Rule by which tokens become spans, an optimize_aggregation_t.
    pub aggregation: i32,
    /// A value other than 0 also returns spans with the label "O", which belong to no entity.
    pub keep_outside: u32,
    /// Execution provider of the session, an optimize_provider_t.
    pub provider: i32,
    /// Index of the device, from 0; 0 for the CPU.
    pub device_id: u32,
    /// Kernels that run the nodes of the model on the CPU, an optimize_kernels_t.
    pub kernels: i32,
    /// TensorRT: absolute path of a folder that caches engines; NULL disables the cache.
    pub engine_cache: *const c_char,
    /// Precision of matrix products with constant float32 weights on the CPU, an optimize_session_precision_t. Any
    /// value but OPTIMIZE_SESSION_PRECISION_FP32 needs this library's kernels, and returns OPTIMIZE_BACKEND_MISSING if
    /// they cannot be used.
    pub precision: i32,
    /// Must be 0.
    pub reserved: u32,
}
// SAFETY: repr(C), ten 32-bit integers, a pointer, two 32-bit integers: no padding, all zero is valid.
unsafe impl Options for optimize_tagger_options_t {}

/// A labelled part of a text. Set `struct_size` before the call. The memory of the label belongs to the
/// optimize_spans_t.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_span_t {
    /// sizeof(optimize_span_t).
    pub struct_size: u32,
    /// Probability of the label: the mean over the tokens or words of the span.
    pub score: f32,
    /// Class of the entity, for example "PER": the label without the prefix "B-" or "I-". With
    /// OPTIMIZE_AGGREGATION_NONE it is the label of the token, for example "B-PER".
    pub label: *const c_char,
    /// Offset of the first byte of the span in the text.
    pub start: u64,
    /// Offset of the byte after the last byte of the span.
    pub end: u64,
}
// SAFETY: repr(C), two 32-bit fields, a pointer and two 64-bit integers: no padding, all zero is valid.
unsafe impl Options for optimize_span_t {}

/// Creates a tagger of a model, which must have an output with logits of shape [texts, tokens, labels]. The labels are
/// those of `id2label` in the model's configuration. If `tokenizer` is NULL, the model's own is used. Model and
/// tokenizer may be freed before the tagger.
///
/// Returns OPTIMIZE_UNSUPPORTED if the model has no such output or does not name its labels; OPTIMIZE_NOT_FOUND if
/// there is no tokenizer; OPTIMIZE_INVALID_ARGUMENT if `max_length` is above the number of positions of the model, or
/// if `stride` does not fit a window; otherwise the statuses of `optimize_session_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_tagger_new(
    context: *const optimize_context_t,
    model: *const optimize_model_t,
    tokenizer: *const optimize_tokenizer_t,
    options: *const optimize_tagger_options_t,
    call: *const optimize_call_t,
    tagger: *mut *mut optimize_tagger_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(tagger, "tagger")?;
            let (context, model) = (handle::get(context)?, &handle::get(model)?.model);
            let given = options::read(options)?;
            if given.reserved != 0 {
                bail!(InvalidArgument, "reserved is not 0");
            }
            let sizes = [given.threads, given.batch_size, given.max_length];
            let options = TaggerOptions {
                text: text_options(context, sizes, where_of!(given))?,
                aggregation: Aggregation::from_code(given.aggregation, "aggregation")?,
                stride: given.stride as usize,
                keep_outside: given.keep_outside != 0,
            };
            let (tokenizer, runtime) = (shared(tokenizer)?, context.runtime()?);
            let made =
                call::with(call, |call| context.limited(|| Tagger::new(runtime, model, tokenizer, &options, call)))?;
            out.set(handle::new(made));
            Ok(())
        })
    }
}

/// Writes the spans of `count` texts to `spans`, which the caller frees. The spans of a text are in the order of the
/// text; a text without tokens has none. Progress stage: "tag", in texts.
///
/// Returns OPTIMIZE_INVALID_ARGUMENT if `count` is 0; OPTIMIZE_UNSUPPORTED if the output does not have the shape
/// [texts, tokens, labels]; OPTIMIZE_INVALID_MODEL if it has another number of labels than the configuration names;
/// OPTIMIZE_CANCELLED and OPTIMIZE_TIMEOUT, after which the tagger remains usable; OPTIMIZE_RUNTIME if the model
/// computes a value that is not a number, or if ONNX Runtime fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_tagger_tag(
    tagger: *const optimize_tagger_t,
    texts: *const *const c_char,
    count: usize,
    call: *const optimize_call_t,
    spans: *mut *mut optimize_spans_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(spans, "spans")?;
            let tagger = handle::get(tagger)?;
            let texts = self::texts(texts, count, "texts")?;
            let found = call::with(call, |call| tagger.tag(&texts, call))?;
            out.set(handle::new(Spans::new(found)));
            Ok(())
        })
    }
}

/// Frees a tagger. NULL is allowed. It must not be in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_tagger_free(tagger: *mut optimize_tagger_t) {
    // SAFETY: the contract of `ffi`.
    super::guard_value((), || unsafe { handle::free(tagger) });
}

/// Returns the number of spans of the text with the index `text`; 0 if `spans` is NULL or there is no such text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_spans_count(spans: *const optimize_spans_t, text: usize) -> usize {
    // SAFETY: the contract of `ffi`.
    super::guard_value(0, || unsafe { handle::get(spans) }.ok().and_then(|spans| spans.0.get(text)).map_or(0, Vec::len))
}

/// Writes the span at `index` of the text with the index `text` to `span`. The label in it is valid until the spans are
/// freed.
///
/// Returns OPTIMIZE_NOT_FOUND if there is no such text or span.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_spans_get(
    spans: *const optimize_spans_t,
    text: usize,
    index: usize,
    span: *mut optimize_span_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let all = &handle::get(spans)?.0;
            let Some(of_text) = all.get(text) else {
                bail!(NotFound, "text {text} is out of range; there are {}", all.len());
            };
            let found = of_text.get(index).map(|(found, label)| optimize_span_t {
                struct_size: 0,
                score: found.score,
                label: label.as_ptr(),
                start: found.bytes.start as u64,
                end: found.bytes.end as u64,
            });
            let Some(found) = found else {
                bail!(NotFound, "index {index} is out of range; there are {}", of_text.len());
            };
            options::write(&found, span, "span")
        })
    }
}

/// Frees spans. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_spans_free(spans: *mut optimize_spans_t) {
    // SAFETY: the contract of `ffi`.
    super::guard_value((), || unsafe { handle::free(spans) });
}

impl Spans {
    fn new(texts: Vec<Vec<Span>>) -> Spans {
        let mut labels: BTreeMap<String, Arc<CString>> = BTreeMap::new();
        let mut named = |span: Span| {
            let label = labels.entry(span.label.clone()).or_insert_with(|| Arc::new(c_string(&span.label))).clone();
            (span, label)
        };
        Spans(texts.into_iter().map(|spans| spans.into_iter().map(&mut named).collect()).collect())
    }
}
