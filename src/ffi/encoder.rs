//! Encoders: embedders, which compute vectors of texts, and classifiers, which compute scores of classes.

use super::call::{self, optimize_call_t};
use super::context::{Context, optimize_context_t};
use super::error::optimize_error_t;
use super::handle::{self, handle};
use super::model::optimize_model_t;
use super::options::{self, Options};
use super::session::{Where, where_of};
use super::status::optimize_status_t;
use super::tensor::optimize_tensor_t;
use super::tokenizer::optimize_tokenizer_t;
use super::{Out, guard, text, texts};
use crate::call::Call;
use crate::encoder::{Classifier, Embedder, EmbedderOptions, ScoreFunction, TextOptions};
use crate::error::{Result, bail};
use crate::runtime::Tensor;
use crate::text::Tokenizer;
use std::ffi::{CString, c_char};
use std::sync::Arc;

/// An embedder, which computes vectors of texts. Any number of threads may use it at the same time.
#[allow(non_camel_case_types)]
pub struct optimize_embedder_t(());

handle!(optimize_embedder_t(Embedder), b"opt-embe", "embedder");

/// A classifier, which computes scores of classes for texts or pairs of texts. Any number of threads may use it at the
/// same time.
#[allow(non_camel_case_types)]
pub struct optimize_classifier_t(());

handle!(optimize_classifier_t(ClassifierHandle), b"opt-clas", "classifier");

/// The value behind a classifier handle.
pub struct ClassifierHandle {
    classifier: Classifier,
    labels: Vec<CString>,
}

/// Options of `optimize_embedder_new`. Fields that are 0 or NULL have their defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_embedder_options_t {
    /// sizeof(optimize_embedder_options_t).
    pub struct_size: u32,
    /// Number of threads; 0 uses that of the context.
    pub threads: u32,
    /// Number of texts per run; 0 selects 8. Texts of similar length are run together, padded to the longest. With 1,
    /// the vector of a text does not depend on other texts; with more, it can in dynamically quantized models.
    pub batch_size: u32,
    /// Number of tokens after which a text is truncated; 0 selects the limit for texts in the model's files
    /// (`max_seq_length`, `model_max_length`), otherwise the number of positions of the model, up to 512.
    pub max_length: u32,
    /// Number of elements to keep of each vector, its first ones, for models that were trained with Matryoshka loss; 0
    /// selects `truncate_dim` of the model's config_sentence_transformers.json, otherwise keeps all. Truncated vectors
    /// are normalized again only if `normalize` is set.
    pub dimensions: u32,
    /// A value other than 0 normalizes each vector to length 1, even if the model does not ask for it.
    pub normalize: u32,
    /// Text that is put before every text, "" for none; NULL selects the default prompt of the model, if it has one.
    pub prompt: *const c_char,
    /// Name of a prompt in the model's config_sentence_transformers.json, such as "query", instead of `prompt`; or
    /// NULL. Only one of `prompt` and `prompt_name` may be given.
    pub prompt_name: *const c_char,
    /// Execution provider of the session, an optimize_provider_t.
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
// SAFETY: repr(C), six 32-bit integers, two pointers, two 32-bit integers, a pointer, two 32-bit integers: no padding,
// all zero is valid.
unsafe impl Options for optimize_embedder_options_t {}

/// The function that turns the logits of a classifier into scores.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_score_function_t {
    /// The function of the model. If the output contains scores already (a softmax or sigmoid of the graph computes it,
    /// or its name contains "prob" or "scores"), this is no function. Otherwise, it is the `activation_fn` of a
    /// CrossEncoder of sentence-transformers (Identity, Sigmoid, Softmax or Tanh), if there is one. Otherwise, it is no
    /// function if `problem_type` in config.json is regression; sigmoid if `problem_type` is
    /// multi_label_classification, or if the model has one class; and softmax in all other cases.
    OPTIMIZE_SCORE_FUNCTION_AUTO = 0,
    /// Softmax: the scores of a text are at least 0, and their sum is 1.
    OPTIMIZE_SCORE_FUNCTION_SOFTMAX = 1,
    /// Sigmoid: each score is between 0 and 1.
    OPTIMIZE_SCORE_FUNCTION_SIGMOID = 2,
    /// No function: the scores are the values of the model's output.
    OPTIMIZE_SCORE_FUNCTION_NONE = 3,
}

/// Options of `optimize_classifier_new`. Fields that are 0 or NULL have their defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_classifier_options_t {
    /// sizeof(optimize_classifier_options_t).
    pub struct_size: u32,
    /// Number of threads; 0 uses that of the context.
    pub threads: u32,
    /// Number of texts per run; 0 selects 8. Texts of similar length are run together, padded to the longest. With 1,
    /// the scores of a text do not depend on other texts; with more, they can in dynamically quantized models.
    pub batch_size: u32,
    /// Number of tokens after which a text or pair is truncated; 0 selects the limit for texts in the model's files
    /// (`max_seq_length`, `model_max_length`), otherwise the number of positions of the model, up to 512.
    pub max_length: u32,
    /// Function that turns logits into scores, an optimize_score_function_t.
    pub score_function: i32,
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
// SAFETY: repr(C), eight 32-bit integers, a pointer, two 32-bit integers: no padding, all zero is valid.
unsafe impl Options for optimize_classifier_options_t {}

/// Number of texts per run if the options do not set it.
const BATCH_SIZE: usize = 8;

/// Creates an embedder of a model. Vectors are read from the model's output `sentence_embedding`, or computed from
/// `token_embeddings` or `last_hidden_state` with the pooling that the files next to the model describe (default:
/// mean). In a model without these outputs, the vectors are those of the first other float output of two dimensions, or
/// else of three, which is pooled. Such an output must not contain scores (see OPTIMIZE_SCORE_FUNCTION_AUTO), and its
/// last dimension must be fixed and above 1. Its name must contain neither "logits" nor "pooler", and must contain
/// "embed" if the configuration names a class for classification. If `tokenizer` is NULL, the model's own is used.
/// Model and tokenizer may be freed before the embedder.
///
/// Returns OPTIMIZE_UNSUPPORTED if the model has none of these outputs, such as a classifier, or if the options have a
/// prompt but the graph pools without its default prompt and outputs no token vectors; OPTIMIZE_NOT_FOUND if there is
/// no tokenizer, or no prompt with the name `prompt_name`; OPTIMIZE_INVALID_ARGUMENT if both `prompt` and
/// `prompt_name` are given, or if `max_length` is above the number of positions of the model; otherwise the statuses of
/// `optimize_session_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_embedder_new(
    context: *const optimize_context_t,
    model: *const optimize_model_t,
    tokenizer: *const optimize_tokenizer_t,
    options: *const optimize_embedder_options_t,
    call: *const optimize_call_t,
    embedder: *mut *mut optimize_embedder_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(embedder, "embedder")?;
            let (context, model) = (handle::get(context)?, &handle::get(model)?.model);
            let given = options::read(options)?;
            let sizes = [given.threads, given.batch_size, given.max_length];
            let optional = |given: *const c_char, name| match given.is_null() {
                true => Ok(None),
                false => text(given, name).map(|text| Some(text.to_owned())),
            };
            let options = EmbedderOptions {
                text: text_options(context, sizes, where_of!(given))?,
                normalize: given.normalize != 0,
                dimensions: given.dimensions as usize,
                prompt: optional(given.prompt, "prompt")?,
                prompt_name: optional(given.prompt_name, "prompt_name")?,
            };
            let (tokenizer, runtime) = (shared(tokenizer)?, context.runtime()?);
            let made =
                call::with(call, |call| context.limited(|| Embedder::new(runtime, model, tokenizer, &options, call)))?;
            out.set(handle::new(made));
            Ok(())
        })
    }
}

/// Writes the vectors of `count` texts to `vectors`, a float32 tensor of shape [count, width] whose row `i` is the
/// vector of text `i`. The caller frees it. Texts beyond the maximum length are truncated. Progress stage: "embed",
/// in texts.
///
/// Returns OPTIMIZE_INVALID_ARGUMENT if `count` is 0, if a text has no tokens, or if `dimensions` of the options is
/// larger than the vectors; OPTIMIZE_UNSUPPORTED if the output does not have the shape of vectors; OPTIMIZE_RUNTIME if
/// an element of a vector is not finite, or if ONNX Runtime fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_embedder_embed(
    embedder: *const optimize_embedder_t,
    texts: *const *const c_char,
    count: usize,
    call: *const optimize_call_t,
    vectors: *mut *mut optimize_tensor_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(vectors, "vectors")?;
            let embedder = handle::get(embedder)?;
            let texts = self::texts(texts, count, "texts")?;
            let found = call::with(call, |call| embedder.embed(&texts, call))?;
            out.set(handle::new(Tensor::from_f32(&[count as i64, found.width as i64], found.values)?));
            Ok(())
        })
    }
}

/// Frees an embedder. NULL is allowed. It must not be in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_embedder_free(embedder: *mut optimize_embedder_t) {
    // SAFETY: the contract of `ffi`.
    super::guard_value((), || unsafe { handle::free(embedder) });
}

/// Creates a classifier of a model, which must have an output with logits or scores of shape [texts, classes]. If
/// `tokenizer` is NULL, the model's own is used. Model and tokenizer may be freed before the classifier.
///
/// Returns OPTIMIZE_UNSUPPORTED if the model is not a classifier of texts, or if its files name an unknown function of
/// the scores and `score_function` is OPTIMIZE_SCORE_FUNCTION_AUTO; OPTIMIZE_NOT_FOUND if there is no tokenizer;
/// OPTIMIZE_INVALID_ARGUMENT if `max_length` is above the number of positions of the model; otherwise the statuses of
/// `optimize_session_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_classifier_new(
    context: *const optimize_context_t,
    model: *const optimize_model_t,
    tokenizer: *const optimize_tokenizer_t,
    options: *const optimize_classifier_options_t,
    call: *const optimize_call_t,
    classifier: *mut *mut optimize_classifier_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(classifier, "classifier")?;
            let (context, model) = (handle::get(context)?, &handle::get(model)?.model);
            let given = options::read(options)?;
            if given.reserved != 0 {
                bail!(InvalidArgument, "reserved is not 0");
            }
            let function = ScoreFunction::from_code(given.score_function, "score_function")?;
            let sizes = [given.threads, given.batch_size, given.max_length];
            let options = text_options(context, sizes, where_of!(given))?;
            let (tokenizer, runtime) = (shared(tokenizer)?, context.runtime()?);
            let make = |call: &Call| Classifier::new(runtime, model, tokenizer, function, &options, call);
            let made = call::with(call, |call| context.limited(|| make(call)))?;
            let label = |label: &String| CString::new(label.replace('\0', "")).unwrap_or_default();
            let labels = made.labels().iter().map(label).collect();
            out.set(handle::new(ClassifierHandle { classifier: made, labels }));
            Ok(())
        })
    }
}

/// Returns the number of classes that have a label, or 0 if `classifier` is NULL or if neither the graph nor the
/// configuration of the model gives the number of classes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_classifier_label_count(classifier: *const optimize_classifier_t) -> usize {
    // SAFETY: the contract of `ffi`.
    super::guard_value(0, || unsafe { handle::get(classifier) }.map_or(0, |handle| handle.labels.len()))
}

/// Returns the label of the class at `index`: its name in `id2label` of the model's configuration, or else the index
/// as text. Returns "" if there is no such class. The string is valid until the classifier is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_classifier_label(
    classifier: *const optimize_classifier_t,
    index: usize,
) -> *const c_char {
    // SAFETY: the contract of `ffi`.
    let label = || unsafe { handle::get(classifier) }.ok()?.labels.get(index).map(|label| label.as_ptr());
    super::guard_value(c"".as_ptr(), || label().unwrap_or(c"".as_ptr()))
}

/// Writes the scores of `count` texts to `scores`, a float32 tensor of shape [count, classes] whose row `i` has the
/// scores of text `i`. The caller frees it. `second_texts` is NULL, or contains a second text for each of `texts`,
/// for models that read pairs of texts (rerankers, natural language inference). Texts beyond the maximum length are
/// truncated; in a pair, the longer text is truncated first. Progress stage: "classify", in texts.
///
/// Returns OPTIMIZE_INVALID_ARGUMENT if `count` is 0, or if a text has no tokens; OPTIMIZE_UNSUPPORTED if the output
/// does not have the shape [texts, classes]; OPTIMIZE_RUNTIME if a score is not a number, or if ONNX Runtime fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_classifier_classify(
    classifier: *const optimize_classifier_t,
    texts: *const *const c_char,
    second_texts: *const *const c_char,
    count: usize,
    call: *const optimize_call_t,
    scores: *mut *mut optimize_tensor_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(scores, "scores")?;
            let classifier = &handle::get(classifier)?.classifier;
            let first = self::texts(texts, count, "texts")?;
            let second = match second_texts.is_null() {
                true => None,
                false => Some(self::texts(second_texts, count, "second_texts")?),
            };
            let found = call::with(call, |call| classifier.classify(&first, second.as_deref(), call))?;
            out.set(handle::new(Tensor::from_f32(&[count as i64, found.classes as i64], found.values)?));
            Ok(())
        })
    }
}

/// Frees a classifier. NULL is allowed. It must not be in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_classifier_free(classifier: *mut optimize_classifier_t) {
    // SAFETY: the contract of `ffi`.
    super::guard_value((), || unsafe { handle::free(classifier) });
}

/// Returns the options for texts. `sizes` are the number of threads, the batch size and the maximum length, in this
/// order; 0 selects their defaults. Fails with `InvalidArgument` for invalid values.
///
/// # Safety
/// The contract is that of [`Where::execution`].
pub(super) unsafe fn text_options(context: &Context, sizes: [u32; 3], place: Where) -> Result<TextOptions> {
    let [threads, batch_size, max_length] = sizes;
    Ok(TextOptions {
        max_length: max_length as usize,
        batch_size: if batch_size == 0 { BATCH_SIZE } else { batch_size as usize },
        threads: context.threads(threads)?,
        // SAFETY: the contract of this function.
        execution: unsafe { place.execution() }?,
    })
}

/// Returns a copy of a tokenizer, or `None` if `tokenizer` is NULL. Fails with `InvalidHandle` like
/// [`handle::optional`].
///
/// # Safety
/// The contract is that of [`handle::optional`].
pub(super) unsafe fn shared(tokenizer: *const optimize_tokenizer_t) -> Result<Option<Arc<Tokenizer>>> {
    // SAFETY: the contract of this function.
    Ok(unsafe { handle::optional(tokenizer) }?.map(|tokenizer| Arc::new(tokenizer.clone())))
}
