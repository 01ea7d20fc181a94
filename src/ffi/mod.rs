//! The C interface, with one file per noun. This file contains the helpers that all of them share.
//!
//! Callers must obey this contract, which the header also states: each pointer is NULL or valid for the use that the
//! function documents, each handle comes from this library and is freed once, and the rules for threads are kept. Other
//! mistakes are detected and return a status, for example NULL where a value is required, handles of another type,
//! unknown enum values, text that is not UTF-8, and option structs with fields that this version does not have. A panic
//! also returns a status.
//!
//! The body of each function that returns a status is one call of `guard`. Most access to the caller's memory is in
//! the unsafe helpers below and in `handle`, `options` and `tensor`, so that each rule is in one place.

// The comments of the functions become those of the header, whose introduction states the safety contract for all.
#![allow(clippy::missing_safety_doc)]

pub mod benchmark;
pub mod buffer;
pub mod call;
pub mod chat;
#[cfg(test)]
mod choices;
pub mod context;
pub mod distill;
pub mod encoder;
pub mod ensemble;
pub mod error;
pub mod evaluate;
pub mod generation;
pub mod generator;
pub mod generator_options;
pub mod handle;
pub mod model;
pub mod options;
pub mod package;
pub mod prune;
pub mod quantize;
pub mod recipe;
pub mod report;
pub mod run;
pub mod session;
pub mod sink;
pub mod source;
pub mod status;
pub mod table;
pub mod tagger;
pub mod tensor;
pub mod tensorrt;
pub mod tokenizer;

use crate::error::{Error, Kind, Result, bail};
use crate::limits;
use bytes::Bytes;
use error::optimize_error_t;
use status::optimize_status_t;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// Runs the body of a C function and returns its status. An error or a panic also becomes an error object, which is
/// written to `error` if that is not NULL.
///
/// # Safety
/// `error` is NULL or points to a pointer that may be written.
unsafe fn guard(error: *mut *mut optimize_error_t, body: impl FnOnce() -> Result<()>) -> optimize_status_t {
    if !error.is_null() {
        // SAFETY: not NULL, and writable by the contract above.
        unsafe { error.write(std::ptr::null_mut()) };
    }
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(from_panic(&*panic)));
    let Err(failure) = outcome else { return optimize_status_t::OPTIMIZE_OK };
    let status = optimize_status_t::from(failure.kind());
    if !error.is_null() {
        // SAFETY: not NULL, and writable by the contract above.
        unsafe { error.write(error::new(failure)) };
    }
    status
}

/// Runs the body of a C function that returns no status, and returns its value, or `default` after a panic.
fn guard_value<T>(default: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(default)
}

/// Returns the text as a C string. Each NUL in it becomes U+FFFD: names from files may contain NUL, where C would stop
/// reading.
fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

fn from_panic(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    Error::new(Kind::Internal, format!("a defect in liboptimize; please report it: {text}"))
}

/// An output pointer. It is set to NULL first, and written only on success.
struct Out<T>(*mut *mut T);

impl<T> Out<T> {
    /// Sets the pointer at `place` to NULL, and returns the output. Fails with `InvalidArgument` if `place` is NULL;
    /// `name` is its name in the message.
    ///
    /// # Safety
    /// `place` is NULL or points to a pointer that may be written.
    unsafe fn new(place: *mut *mut T, name: &str) -> Result<Self> {
        // SAFETY: the contract of this function.
        match unsafe { Self::optional(place) } {
            OptionalOut(Some(out)) => Ok(out),
            OptionalOut(None) => bail!(InvalidArgument, "{name} is NULL; an output pointer is required"),
        }
    }

    /// Sets the pointer at `place` to NULL, unless `place` is NULL, and returns the output.
    ///
    /// # Safety
    /// The contract is that of [`Out::new`].
    unsafe fn optional(place: *mut *mut T) -> OptionalOut<T> {
        if place.is_null() {
            return OptionalOut(None);
        }
        // SAFETY: not NULL, and writable by the contract.
        unsafe { place.write(std::ptr::null_mut()) };
        OptionalOut(Some(Out(place)))
    }

    fn set(self, value: *mut T) {
        // SAFETY: checked in `new`, and the caller's place is valid during the call.
        unsafe { self.0.write(value) };
    }
}

/// An output pointer that may be NULL.
struct OptionalOut<T>(Option<Out<T>>);

impl<T> OptionalOut<T> {
    fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Writes what `value` returns, which is not called if the pointer is NULL.
    fn set_with(self, value: impl FnOnce() -> *mut T) {
        if let Some(out) = self.0 {
            out.set(value());
        }
    }
}

/// Returns a NUL-terminated UTF-8 string. Fails with `InvalidArgument` if it is NULL or not UTF-8; `name` is its name
/// in the message.
///
/// # Safety
/// `text` is NULL or points to a NUL-terminated string that lives for `'a`.
unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<&'a str> {
    if text.is_null() {
        bail!(InvalidArgument, "{name} is NULL");
    }
    // SAFETY: not NULL, terminated by the contract.
    let text = unsafe { CStr::from_ptr(text) };
    match text.to_str() {
        Ok(text) => Ok(text),
        Err(_) if text.to_bytes().windows(NUL.len()).any(|bytes| bytes == NUL) => {
            bail!(InvalidArgument, "{name} contains the character NUL, at which a string of C ends")
        }
        Err(_) => bail!(InvalidArgument, "{name} is not UTF-8"),
    }
}

/// The encoding of NUL in the modified UTF-8 of Java, which has no zero byte. Bindings replace a NUL inside a string by
/// these bytes, so that it is reported as an error instead of ending the string.
const NUL: &[u8] = b"\xc0\x80";

/// Returns a path, or `None` if `path` is NULL. Fails with `InvalidArgument` if the path is not UTF-8.
///
/// # Safety
/// The contract is that of [`text`].
unsafe fn optional_path(path: *const c_char, name: &str) -> Result<Option<PathBuf>> {
    // SAFETY: the contract of this function.
    if path.is_null() { Ok(None) } else { Ok(Some(PathBuf::from(unsafe { text(path, name) }?))) }
}

/// Returns the `count` elements at `data`, which may be NULL if `count` is 0. If `count` is not 0, fails with
/// `InvalidArgument` if `data` is NULL or not aligned, or if the elements would not fit into memory.
///
/// # Safety
/// `data` is NULL or points to `count` elements that live for `'a`.
unsafe fn slice<'a, T>(data: *const T, count: usize, name: &str) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        bail!(InvalidArgument, "{name} is NULL, but its count is {count}");
    }
    if !data.is_aligned() {
        bail!(InvalidArgument, "{name} is not aligned for its type");
    }
    if count.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) {
        bail!(InvalidArgument, "{name} has a count of {count} elements, more than memory can hold");
    }
    // SAFETY: not NULL, aligned, and of the length that the contract requires.
    Ok(unsafe { std::slice::from_raw_parts(data, count) })
}

/// Returns the `count` writable elements at `data`. Fails like [`slice`].
///
/// # Safety
/// `data` is NULL or points to `count` elements that live for `'a` and that nothing else uses.
unsafe fn slice_mut<'a, T>(data: *mut T, count: usize, name: &str) -> Result<&'a mut [T]> {
    // SAFETY: same contract.
    unsafe { slice(data.cast_const(), count, name)? };
    if count == 0 {
        return Ok(&mut []);
    }
    // SAFETY: checked like those of `slice`, and exclusive by the contract.
    Ok(unsafe { std::slice::from_raw_parts_mut(data, count) })
}

/// Returns a copy of the bytes. A failed allocation is an error of the kind `LimitExceeded` and does not abort the
/// process.
fn copied(bytes: &[u8]) -> Result<Bytes> {
    let mut copy = Vec::new();
    if copy.try_reserve_exact(bytes.len()).is_err() {
        bail!(LimitExceeded, "out of memory for a copy of {} bytes", bytes.len());
    }
    copy.extend_from_slice(bytes);
    Ok(Bytes::from(copy))
}

/// Returns `count` NUL-terminated UTF-8 strings. Fails like [`slice`] and [`text`].
///
/// # Safety
/// The contract is that of [`slice`] and [`text`], for every element.
unsafe fn texts<'a>(list: *const *const c_char, count: usize, name: &str) -> Result<Vec<&'a str>> {
    // SAFETY: the contract of this function.
    let pointers = unsafe { slice(list, count, name) }?;
    let one = |(index, &pointer): (usize, &*const c_char)| {
        // SAFETY: the contract of this function.
        unsafe { text(pointer, &format!("{name}[{index}]")) }
    };
    pointers.iter().enumerate().map(one).collect()
}

/// Returns a UTF-8 text of `size` bytes. Fails with `LimitExceeded` above [`limits::TEXT_BYTES`], and with
/// `InvalidArgument` if the text is not UTF-8, or if `text` is NULL and `size` is not 0.
///
/// # Safety
/// The contract is that of [`slice`].
unsafe fn text_of<'a>(text: *const c_char, size: usize, name: &str) -> Result<&'a str> {
    if size > limits::TEXT_BYTES {
        bail!(LimitExceeded, "{name} has {size} bytes; the limit is {}", limits::TEXT_BYTES);
    }
    // SAFETY: the contract of this function.
    let bytes = unsafe { slice(text.cast::<u8>(), size, name) }?;
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(e) => bail!(InvalidArgument, "{name} is not UTF-8 after {} bytes", e.valid_up_to()),
    }
}

/// Returns `count` UTF-8 texts, whose lengths in bytes are `sizes`. If `sizes` is NULL, the texts are NUL-terminated.
/// Fails like [`slice`] for the arrays, and for each text like [`text_of`], or like [`text`] if `sizes` is NULL.
///
/// # Safety
/// The contract is that of [`slice`] and [`text`], for every element.
unsafe fn texts_of<'a>(
    list: *const *const c_char,
    sizes: *const usize,
    count: usize,
    name: &str,
) -> Result<Vec<&'a str>> {
    // SAFETY: the contract of this function, here and below.
    unsafe {
        if sizes.is_null() {
            return texts(list, count, name);
        }
        let (pointers, sizes) = (slice(list, count, name)?, slice(sizes, count, "sizes")?);
        let one = |(index, (&pointer, &size)): (usize, (&*const c_char, &usize))| {
            text_of(pointer, size, &format!("{name}[{index}]"))
        };
        pointers.iter().zip(sizes).enumerate().map(one).collect()
    }
}
