//! Buffers: text and bytes that the library returns.

use super::generation::Rows;
use super::handle::{self, handle};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::c_char;
use std::sync::{Mutex, OnceLock};

/// A buffer: bytes that the library returns, such as a report or a decoded text. A NUL follows them, which is not
/// counted in the size, so that text can be printed directly. A buffer is immutable, and any thread may read it.
#[allow(non_camel_case_types)]
pub struct optimize_buffer_t(());

handle!(optimize_buffer_t(Buffer), b"opt-buff", "buffer");

/// The value behind a buffer handle.
#[derive(Default)]
pub struct Buffer {
    /// Bytes of the buffer, with the final NUL.
    bytes: Vec<u8>,
    /// JSON of the buffer, parsed when a value of it is first requested; `None` if the bytes are not JSON.
    json: OnceLock<Option<Value>>,
    /// Tokens and log-probabilities of the JSON, read when they are first requested.
    rows: OnceLock<Rows>,
    /// Texts of the JSON that C programs have pointers to, which stay valid until the buffer is freed.
    texts: Mutex<BTreeMap<String, Box<[u8]>>>,
}

impl Buffer {
    /// Returns the content of the buffer as JSON; `None` if it is not JSON.
    pub(super) fn json(&self) -> Option<&Value> {
        let parse = || serde_json::from_slice(self.bytes.strip_suffix(b"\0")?).ok();
        self.json.get_or_init(parse).as_ref()
    }

    /// Returns the tokens and log-probabilities of the generated texts in the JSON; empty if there are none.
    pub(super) fn rows(&self) -> &Rows {
        self.rows.get_or_init(|| self.json().map(Rows::of).unwrap_or_default())
    }

    /// Returns the address of a copy of the text, followed by a NUL, that lives as long as the buffer.
    pub(super) fn keep(&self, text: &str) -> *const c_char {
        let mut texts = self.texts.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let c_text = || [text.as_bytes(), b"\0"].concat().into_boxed_slice();
        texts.entry(text.to_owned()).or_insert_with(c_text).as_ptr().cast()
    }
}

pub(super) fn new(text: String) -> *mut optimize_buffer_t {
    let mut bytes = text.into_bytes();
    bytes.push(0);
    handle::new(Buffer { bytes, ..Buffer::default() })
}

/// Returns the bytes of a buffer, followed by a NUL, or "" if `buffer` is NULL. Text in a buffer is UTF-8. The pointer
/// is valid until the buffer is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_buffer_data(buffer: *const optimize_buffer_t) -> *const c_char {
    // SAFETY: the contract of `ffi`.
    unsafe { handle::get(buffer) }.map_or(c"".as_ptr(), |buffer| buffer.bytes.as_ptr().cast())
}

/// Returns the number of bytes of a buffer without the final NUL, or 0 if `buffer` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_buffer_size(buffer: *const optimize_buffer_t) -> usize {
    // SAFETY: the contract of `ffi`.
    unsafe { handle::get(buffer) }.map_or(0, |buffer| buffer.bytes.len() - 1)
}

/// Frees a buffer. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_buffer_free(buffer: *mut optimize_buffer_t) {
    // SAFETY: the contract of `ffi`.
    super::guard_value((), || unsafe { handle::free(buffer) });
}
