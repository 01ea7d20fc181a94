//! Error objects, with which functions of the C interface describe failures.

use super::c_string;
use super::handle::{self, handle};
use super::status::optimize_status_t;
use crate::error::Error;
use std::ffi::{CString, c_char};

/// An error, with a status, a message and a place. It is an object instead of thread-local state because goroutines
/// and C# continuations change threads between calls. It is immutable, and any thread may read it.
#[allow(non_camel_case_types)]
pub struct optimize_error_t(());

handle!(optimize_error_t(ErrorText), b"opt-erro", "error");

/// An error with its texts as C strings.
pub struct ErrorText {
    error: Error,
    message: CString,
    place: CString,
}

pub(super) fn new(error: Error) -> *mut optimize_error_t {
    let (message, place) = (c_string(error.message()), c_string(error.place()));
    handle::new(ErrorText { error, message, place })
}

/// Returns the status of an error, or OPTIMIZE_INVALID_HANDLE if `error` is NULL or a handle of another type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_error_status(error: *const optimize_error_t) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    let found = unsafe { handle::get(error) };
    found.map_or(optimize_status_t::OPTIMIZE_INVALID_HANDLE, |e| e.error.kind().into())
}

/// Returns the message of an error in UTF-8, or "" if `error` is NULL. The message says what is wrong, usually in one
/// sentence; if it lists the places where a library was searched for, it has several lines. The string is valid until
/// the error is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_error_message(error: *const optimize_error_t) -> *const c_char {
    // SAFETY: the contract of `ffi`.
    unsafe { handle::get(error) }.map_or(c"".as_ptr(), |e| e.message.as_ptr())
}

/// Returns the place where the error occurred: for example file, node, tensor or argument, outermost first. Returns ""
/// if `error` is NULL, or if there is no place or the message contains it. The string is valid until the error is
/// freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_error_place(error: *const optimize_error_t) -> *const c_char {
    // SAFETY: the contract of `ffi`.
    unsafe { handle::get(error) }.map_or(c"".as_ptr(), |e| e.place.as_ptr())
}

/// Frees an error. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_error_free(error: *mut optimize_error_t) {
    // SAFETY: the contract of `ffi`.
    super::guard_value((), || unsafe { handle::free(error) });
}
