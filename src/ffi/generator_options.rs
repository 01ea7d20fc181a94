//! Options of generators.

use super::context::Context;
use super::handle;
use super::model::optimize_model_t;
use super::options::{self, Options};
use super::session::where_of;
use crate::call::Call;
use crate::error::{Context as _, Result, bail};
use crate::model::Model;
use crate::runtime::{Execution, KvCacheType, Runtime, SessionOptions};
use crate::text::{Draft, Generator};
use std::ffi::c_char;

/// Element type of the KV cache of a decoder.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_kv_cache_type_t {
    /// float32, or the type of the model if it declares another one.
    OPTIMIZE_KV_CACHE_TYPE_FLOAT32 = 0,
    /// bfloat16: the cache takes half of the memory, and half as much of it is read for each token. Keys and values are
    /// rounded to 8 significant bits.
    OPTIMIZE_KV_CACHE_TYPE_BFLOAT16 = 1,
}

/// Options of `optimize_generator_new`. Fields that are 0 or NULL have their defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_generator_options_t {
    /// sizeof(optimize_generator_options_t).
    pub struct_size: u32,
    /// Number of threads; 0 uses that of the context.
    pub threads: u32,
    /// A value other than 0 rounds the activations of block-quantized matrix products; see optimize_session_options_t.
    pub round_activations: u32,
    /// Must be 0.
    pub reserved: u32,
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
    /// Draft model for speculative decoding: a smaller decoder, whose vocabulary has every token of the model, or NULL
    /// for none. Tokens that it generates are verified by the model, several in one run. The generated text is the same
    /// with and without a draft if a run of several tokens computes the same logits as runs of one token each; this
    /// library's kernels do so in float32. A generator with a draft has a single row.
    pub draft: *const optimize_model_t,
    /// A value other than 0 drafts by prompt look-up: the drafted tokens are those that followed the longest earlier
    /// occurrence of the last tokens. If there is also a draft model, it drafts where no occurrence is found.
    pub draft_lookup: u32,
    /// Maximum number of drafted tokens per run of the model, at most 64; 0 selects 8. Other values need `draft` or
    /// `draft_lookup`. Fewer tokens are drafted after a run in which some were not accepted.
    pub draft_max: u32,
    /// Element type of the KV cache, an optimize_kv_cache_type_t. Any value but OPTIMIZE_KV_CACHE_TYPE_FLOAT32 needs
    /// this library's kernels: it returns OPTIMIZE_BACKEND_MISSING if they cannot be used, and OPTIMIZE_UNSUPPORTED if
    /// the model has no cache that they read and write (that of GroupQueryAttention). It applies to a draft model, too.
    pub kv_cache_type: i32,
    /// Must be 0.
    pub reserved2: u32,
}
// SAFETY: repr(C), six 32-bit integers, a pointer that may be NULL, two 32-bit integers, a pointer that may be NULL and
// four 32-bit integers: no padding, all zero is valid.
unsafe impl Options for optimize_generator_options_t {}

/// Returns the session options that the C options of a generator select. Fails with `InvalidArgument` for an invalid
/// field.
///
/// # Safety
/// The contract of `ffi`.
pub(super) unsafe fn session_options(
    context: &Context,
    options: *const optimize_generator_options_t,
) -> Result<SessionOptions> {
    // SAFETY: the contract of this function.
    let given = unsafe { options::read(options) }?;
    for (name, value) in [("reserved", given.reserved), ("reserved2", given.reserved2)] {
        if value != 0 {
            bail!(InvalidArgument, "{name} is not 0");
        }
    }
    let (threads, round_activations) = (context.threads(given.threads)?, given.round_activations != 0);
    // SAFETY: the contract of this function.
    let execution = unsafe { where_of!(given).execution() }?;
    let kv_cache_type = KvCacheType::from_code(given.kv_cache_type, "kv_cache_type")?;
    let execution = Execution { kv_cache_type, ..execution };
    Ok(SessionOptions { threads, round_activations, execution, ..SessionOptions::default() })
}

/// Returns the session options like [`session_options`]. Fails with `InvalidArgument` if the options have a draft,
/// which needs a single model.
///
/// # Safety
/// The contract of `ffi`.
pub(super) unsafe fn without_draft(
    context: &Context,
    options: *const optimize_generator_options_t,
) -> Result<SessionOptions> {
    // SAFETY: the contract of this function.
    unsafe {
        if draft_of(options)?.is_given() {
            bail!(InvalidArgument, "draft and draft_lookup are for a single model, not for an ensemble");
        }
        session_options(context, options)
    }
}

/// The draft that the C options of a generator select.
pub(super) struct GivenDraft<'a> {
    model: Option<&'a Model>,
    lookup: bool,
    max: Option<usize>,
}

/// Returns the draft that the C options of a generator select. Fails with `InvalidHandle` if `draft` is not a model,
/// and with `InvalidArgument` if `draft_max` is set without `draft` or `draft_lookup`.
///
/// # Safety
/// The contract of `ffi`; the draft model outlives the result.
pub(super) unsafe fn draft_of<'a>(options: *const optimize_generator_options_t) -> Result<GivenDraft<'a>> {
    // SAFETY: the contract of this function.
    unsafe {
        let given = options::read(options)?;
        let model = match given.draft.is_null() {
            true => None,
            false => Some(&handle::get(given.draft).at(|| "draft")?.model),
        };
        let draft = GivenDraft {
            model,
            lookup: given.draft_lookup != 0,
            max: (given.draft_max > 0).then_some(given.draft_max as usize),
        };
        if draft.max.is_some() && !draft.is_given() {
            bail!(InvalidArgument, "draft_max is {}, but neither draft nor draft_lookup is set", given.draft_max);
        }
        Ok(draft)
    }
}

impl GivenDraft<'_> {
    /// Returns whether there is a draft model or prompt look-up.
    pub fn is_given(&self) -> bool {
        self.model.is_some() || self.lookup
    }

    /// Loads the draft model, and returns the generator with the draft.
    pub fn add(
        &self,
        mut generator: Generator,
        runtime: &'static Runtime,
        options: &SessionOptions,
        call: &Call,
    ) -> Result<Generator> {
        if self.is_given() {
            let load = |model| Generator::new(runtime, model, options, call).map(Box::new).at(|| "draft");
            let model = self.model.map(load).transpose()?;
            generator.set_draft(Some(Draft { model, lookup: self.lookup, max: self.max }))?;
        }
        Ok(generator)
    }
}
