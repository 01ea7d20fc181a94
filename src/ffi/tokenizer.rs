//! Tokenizers, which encode text to token ids and decode token ids to text.

use super::error::optimize_error_t;
use super::handle::{self, handle};
use super::model::optimize_model_t;
use super::options::{self, Options};
use super::status::optimize_status_t;
use super::tensor::optimize_tensor_t;
use super::{Out, buffer, guard, slice, text, texts_of};
use crate::error::{Context, bail};
use crate::runtime::Tensor;
use crate::text::Tokenizer;
use std::ffi::c_char;
use std::path::Path;

/// A tokenizer, which encodes text to token ids and decodes token ids to text. It is immutable, and any number of
/// threads may use it concurrently.
#[allow(non_camel_case_types)]
pub struct optimize_tokenizer_t(());

handle!(optimize_tokenizer_t(Tokenizer), b"opt-toke", "tokenizer");

/// Options of `optimize_tokenizer_encode`. Fields that are 0 or NULL have their defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_encode_options_t {
    /// sizeof(optimize_encode_options_t).
    pub struct_size: u32,
    /// A value other than 0 adds no special tokens, such as `[CLS]` or `<s>`.
    pub no_special_tokens: u32,
    /// Maximum number of tokens of a row, including special tokens; longer rows are truncated at the end. 0 means no
    /// limit.
    pub max_length: u32,
    /// Must be 0.
    pub reserved: u32,
}
// SAFETY: repr(C), four u32.
unsafe impl Options for optimize_encode_options_t {}

/// Options of `optimize_tokenizer_decode`. Fields that are 0 or NULL have their defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_decode_options_t {
    /// sizeof(optimize_decode_options_t).
    pub struct_size: u32,
    /// A value other than 0 includes the text of special tokens; otherwise they are left out.
    pub keep_special_tokens: u32,
}
// SAFETY: repr(C), two u32.
unsafe impl Options for optimize_decode_options_t {}

/// Loads a tokenizer from tokenizer.json or from the folder that contains it, with the settings of the files next to it
/// (tokenizer_config.json, added_tokens.json, special_tokens_map.json). Returns OPTIMIZE_NOT_FOUND if there is no such
/// file; OPTIMIZE_INVALID_MODEL if a file is damaged or describes a tokenizer that is not supported.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_tokenizer_load(
    path: *const c_char,
    tokenizer: *mut *mut optimize_tokenizer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(tokenizer, "tokenizer")?;
            let path = text(path, "path")?;
            out.set(handle::new(Tokenizer::load(Path::new(path))?));
            Ok(())
        })
    }
}

/// Writes the tokenizer of a model to `tokenizer`. Returns OPTIMIZE_NOT_FOUND if the model has none;
/// OPTIMIZE_INVALID_MODEL if its files are damaged or describe a tokenizer that is not supported.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_tokenizer(
    model: *const optimize_model_t,
    tokenizer: *mut *mut optimize_tokenizer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(tokenizer, "tokenizer")?;
            let Some(found) = Tokenizer::of(&handle::get(model)?.model)? else {
                bail!(NotFound, "the model has no tokenizer.json next to it");
            };
            out.set(handle::new(found));
            Ok(())
        })
    }
}

/// Encodes `count` UTF-8 texts into int64 tensors of shape [count, length of the longest row]. `sizes` are the lengths
/// of the texts in bytes; NULL means that they are NUL-terminated. Shorter rows are padded on the right. `ids` receives
/// the token ids, `attention_mask` receives 1 for tokens and 0 for padding, and `type_ids` the segment ids of BERT
/// (token_type_ids). `attention_mask` and `type_ids` may be NULL. Returns OPTIMIZE_INVALID_ARGUMENT if `count` is 0, or
/// if `max_length` has no room for the special tokens; OPTIMIZE_LIMIT_EXCEEDED for a text of more than 64 MiB.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_tokenizer_encode(
    tokenizer: *const optimize_tokenizer_t,
    texts: *const *const c_char,
    sizes: *const usize,
    count: usize,
    options: *const optimize_encode_options_t,
    ids: *mut *mut optimize_tensor_t,
    attention_mask: *mut *mut optimize_tensor_t,
    type_ids: *mut *mut optimize_tensor_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let (ids_out, mask_out, types_out) =
                (Out::new(ids, "ids"), Out::optional(attention_mask), Out::optional(type_ids));
            let ids_out = ids_out?;
            let tokenizer = handle::get(tokenizer)?;
            let options = options::read(options)?;
            if options.reserved != 0 {
                bail!(InvalidArgument, "reserved is not 0");
            }
            if count == 0 {
                bail!(InvalidArgument, "count is 0: there is no text to encode");
            }
            let given = texts_of(texts, sizes, count, "texts")?;
            let max_length = (options.max_length > 0).then_some(options.max_length as usize);
            let batch = tokenizer.encode_batch(&given, options.no_special_tokens == 0, max_length)?;
            let shape = [batch.batch as i64, batch.length as i64];
            let tensors = [batch.ids, batch.mask, batch.type_ids].map(|values| Tensor::from_i64(&shape, values));
            let [ids, mask, types] = tensors;
            let (ids, mask, types) = (ids?, mask?, types?);
            ids_out.set(handle::new(ids));
            mask_out.set_with(|| handle::new(mask));
            types_out.set_with(|| handle::new(types));
            Ok(())
        })
    }
}

/// Decodes `count` token ids, and writes the text to `text`. The caller frees it. Returns OPTIMIZE_INVALID_ARGUMENT for
/// a negative id or one of more than 32 bits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_tokenizer_decode(
    tokenizer: *const optimize_tokenizer_t,
    ids: *const i64,
    count: usize,
    options: *const optimize_decode_options_t,
    text: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(text, "text")?;
            let tokenizer = handle::get(tokenizer)?;
            let keep = options::read(options)?.keep_special_tokens != 0;
            let decoded = tokenizer.decode(slice(ids, count, "ids")?, !keep).at(|| "ids")?;
            out.set(buffer::new(decoded));
            Ok(())
        })
    }
}

/// Returns the number of tokens in the vocabulary, including added tokens, or 0 if `tokenizer` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_tokenizer_vocabulary_size(tokenizer: *const optimize_tokenizer_t) -> usize {
    // SAFETY: the contract of `ffi`.
    unsafe { handle::get(tokenizer) }.map_or(0, Tokenizer::vocabulary_size)
}

/// Frees a tokenizer. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_tokenizer_free(tokenizer: *mut optimize_tokenizer_t) {
    // SAFETY: the contract of `ffi`.
    super::guard_value((), || unsafe { handle::free(tokenizer) });
}
