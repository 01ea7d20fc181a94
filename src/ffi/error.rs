//! Error objects.

use super::handle::{self, handle};
use super::status::optimize_status_t;
use crate::error::Error;
use std::ffi::{CString, c_char};

/// What went wrong: status, message and place. An object of its own and not thread-local state, because
/// goroutines and C# continuations change threads between a call and the question about it. Immutable:
/// any thread may read it.
#[allow(non_camel_case_types)]
pub struct optimize_error_t(());

handle!(optimize_error_t(ErrorText), b"opt-erro", "error");

/// An error with its texts in the form C reads.
pub struct ErrorText {
    error: Error,
    message: CString,
    place: CString,
}

pub(super) fn new(error: Error) -> *mut optimize_error_t {
    // A name out of a file may hold a NUL, where C would stop reading.
    let c_text = |text: &str| CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default();
    let (message, place) = (c_text(error.message()), c_text(error.place()));
    handle::new(ErrorText { error, message, place })
}

/// The status this error belongs to; OPTIMIZE_INVALID_HANDLE if `error` is NULL or no error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_error_status(error: *const optimize_error_t) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    let found = unsafe { handle::get(error) };
    found.map_or(optimize_status_t::OPTIMIZE_INVALID_HANDLE, |e| e.error.kind().into())
}

/// What is wrong, one sentence, UTF-8. Lives as long as the error; "" if `error` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_error_message(error: *const optimize_error_t) -> *const c_char {
    // SAFETY: the contract of `ffi`.
    unsafe { handle::get(error) }.map_or(c"".as_ptr(), |e| e.message.as_ptr())
}

/// Where: file, node, tensor or argument, outermost first; "" if the message says it all. Lives as long as
/// the error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_error_place(error: *const optimize_error_t) -> *const c_char {
    // SAFETY: the contract of `ffi`.
    unsafe { handle::get(error) }.map_or(c"".as_ptr(), |e| e.place.as_ptr())
}

/// Frees an error. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_error_free(error: *mut optimize_error_t) {
    // SAFETY: the contract of `ffi`.
    super::guard_value((), || unsafe { handle::free(error) });
}
