//! Conversion between errors of the provider and the status of ONNX Runtime.

use std::any::Any;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

use ort::sys::{OrtApi, OrtErrorCode, OrtStatusPtr};

use super::api::Api;
use super::tables::Status;

/// An error of the provider: its message, which ONNX Runtime passes on to its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(pub String);

impl Error {
    /// Returns an error with the message `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<String> for Error {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Error {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

/// The result of most functions of the provider.
pub type Result<T> = std::result::Result<T, Error>;

/// Returns the text at `pointer`; empty if the pointer is null.
///
/// # Safety
/// `pointer` is null or points to a text that ends in NUL.
pub unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the contract of this function.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// Releases `status`. Returns `Ok` for NULL, which means success, and otherwise an error with its message.
pub fn check(api: &OrtApi, status: Status) -> Result<()> {
    if status.is_null() {
        return Ok(());
    }
    // SAFETY: a status that is not null is a valid status of ONNX Runtime, and is released only here.
    let message = unsafe {
        let message = text((api.GetErrorMessage)(status));
        (api.ReleaseStatus)(status);
        message
    };
    Err(Error(message))
}

/// Runs `call` and returns its status for ONNX Runtime. An error or a panic of `call` becomes a status.
pub fn guard(api: Api, call: impl FnOnce() -> Result<()>) -> Status {
    let message = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => return null_mut(),
        Ok(Err(error)) => error.0,
        Err(panic) => format!("liboptimize: internal error: {}", panic_text(&*panic)),
    };
    let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
    // SAFETY: `message` lives through the call, which copies it.
    let OrtStatusPtr(status) = unsafe { (api.ort().CreateStatus)(OrtErrorCode::ORT_EP_FAIL, message.as_ptr()) };
    status
}

/// Returns the message with which a thread panicked.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
}
