//! Progress, timeout and cancellation of a call.

use super::error::optimize_error_t;
use super::handle::{self, handle};
use super::options::{self, Options};
use super::status::optimize_status_t;
use super::{Out, guard};
use crate::call::{Call, Cancel, Progress, Seldom};
use crate::error::Result;
use std::ffi::{CString, c_char, c_void};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// A cancel token. Any thread can fire it to stop all calls to which it was passed. It may be freed while such calls
/// are running.
#[allow(non_camel_case_types)]
pub struct optimize_cancel_t(());

handle!(optimize_cancel_t(Cancel), b"opt-canc", "cancel token");

/// Progress callback. It is called on the thread that made the call: for the first report of a stage, in which `done`
/// can already be above 0; then at most 20 times per second; and when `done` reaches a `total` above 0. `stage` names
/// the stage and is valid during the callback. `done` and `total` count the work of the stage in its unit; `total` is 0
/// if it is unknown. A return value other than 0 cancels the call. The callback must not throw or use longjmp.
///
/// Stages (units): "benchmark" (steps), "build" (steps), "calibrate" (runs), "classify" (texts), "distill" (steps),
/// "embed" (texts), "evaluate" (texts or tokens), "fit" (tokens), "fuse" (models), "generate" (tokens), "hash" (bytes),
/// "influence" (layers), "load" (bytes), "merge" (tensors), "package" (bytes), "precision" (measurements), "prompt"
/// (tokens), "prune" (bytes), "quantize" (bytes), "reconstruct" (tensors), "save" (bytes), "scale" (tensors),
/// "sensitivity" (measurements), "speed" (measurements), "table: ROW of MODEL" (thousandths of a row), "tag" (texts),
/// "verify" (bytes). Later versions can add stages to a function.
#[allow(non_camel_case_types)]
pub type optimize_progress_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, stage: *const c_char, done: u64, total: u64) -> i32>;

/// Progress, timeout and cancellation of a call. A field that is 0 or NULL disables its part; NULL in place of the
/// struct disables all of them.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_call_t {
    /// sizeof(optimize_call_t).
    pub struct_size: u32,
    /// Timeout in milliseconds from the beginning of the call, after which it returns OPTIMIZE_TIMEOUT as soon as
    /// possible; 0 means no timeout.
    pub timeout_ms: u32,
    /// Progress callback, or NULL.
    pub progress: optimize_progress_fn,
    /// User data passed to the progress callback.
    pub user_data: *mut c_void,
    /// Cancel token that ends the call with OPTIMIZE_CANCELLED, or NULL.
    pub cancel: *const optimize_cancel_t,
}
// SAFETY: repr(C), two u32 and three pointers that may be NULL: no padding, all zero is valid.
unsafe impl Options for optimize_call_t {}

/// Runs `body` with the caller's progress, timeout and cancel token, and returns its result. If the token has been
/// fired already, fails with `Cancelled` and does not run `body`. Fails with `InvalidArgument` for an invalid struct,
/// and with `InvalidHandle` for an invalid token.
///
/// # Safety
/// `call` is NULL or points to a valid `optimize_call_t` during the call.
pub(super) unsafe fn with<T>(call: *const optimize_call_t, body: impl FnOnce(&Call<'_>) -> Result<T>) -> Result<T> {
    // SAFETY: the contract of this function.
    let given = unsafe { options::read(call) }?;
    // SAFETY: a token or NULL by the contract. The clone remains valid if the handle is freed during the call.
    let cancel = unsafe { handle::optional(given.cancel) }?.cloned();
    let seldom = Seldom::default();
    let progress = |p: Progress<'_>| {
        let Some(function) = given.progress.filter(|_| seldom.passes(&p)) else { return ControlFlow::Continue(()) };
        let stage = CString::new(p.stage).unwrap_or_default();
        // SAFETY: the caller's function with the caller's data, on the caller's thread.
        match unsafe { function(given.user_data, stage.as_ptr(), p.done, p.total) } {
            0 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    };
    let timeout = Duration::from_millis(u64::from(given.timeout_ms));
    let call = Call {
        progress: if given.progress.is_some() { Some(&progress) } else { None },
        deadline: (given.timeout_ms > 0).then(|| Instant::now() + timeout),
        cancel: cancel.as_ref(),
    };
    call.check()?;
    body(&call)
}

/// Creates a cancel token. Returns only statuses that every function can return.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_cancel_new(
    cancel: *mut *mut optimize_cancel_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            Out::new(cancel, "cancel")?.set(handle::new(Cancel::new()));
            Ok(())
        })
    }
}

/// Cancels all running and later calls to which this token is passed. Any thread may call this function, any number of
/// times. Returns only statuses that every function can return.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_cancel_fire(
    cancel: *const optimize_cancel_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            handle::get(cancel)?.fire();
            Ok(())
        })
    }
}

/// Frees a cancel token. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_cancel_free(cancel: *mut optimize_cancel_t) {
    // SAFETY: the contract of `ffi`.
    super::guard_value((), || unsafe { handle::free(cancel) });
}
