//! Buffers: text and bytes that the library returns.

use super::handle::{self, handle};
use std::ffi::c_char;

/// Bytes that the library returns, such as a report or a decoded text. A NUL follows them, which is not counted, so
/// that text can be printed directly. A buffer is immutable, and any thread may read it.
#[allow(non_camel_case_types)]
pub struct optimize_buffer_t(());

handle!(optimize_buffer_t(Vec<u8>), b"opt-buff", "buffer");

pub(super) fn new(text: String) -> *mut optimize_buffer_t {
    let mut bytes = text.into_bytes();
    bytes.push(0);
    handle::new(bytes)
}

/// Returns the NUL-terminated bytes, or "" if `buffer` is NULL. The pointer is valid until the buffer is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_buffer_data(buffer: *const optimize_buffer_t) -> *const c_char {
    // SAFETY: the contract of `ffi`.
    unsafe { handle::get(buffer) }.map_or(c"".as_ptr(), |bytes| bytes.as_ptr().cast())
}

/// Returns the number of bytes without the final NUL, or 0 if `buffer` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_buffer_size(buffer: *const optimize_buffer_t) -> usize {
    // SAFETY: the contract of `ffi`.
    unsafe { handle::get(buffer) }.map_or(0, |bytes| bytes.len() - 1)
}

/// Frees a buffer. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_buffer_free(buffer: *mut optimize_buffer_t) {
    // SAFETY: the contract of `ffi`.
    super::guard_value((), || unsafe { handle::free(buffer) });
}
