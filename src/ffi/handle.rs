//! Opaque handles. A handle points to a type tag and a value, so that a handle of a wrong type is an error and not a
//! crash.

use crate::error::{Result, bail};
use std::sync::{Mutex, MutexGuard, TryLockError};

/// A C handle type (`optimize_model_t` …) and the Rust value behind it.
pub trait Handle {
    /// The value behind the handle.
    type Value;
    /// Tag of this handle type; every type has another.
    const KIND: u64;
    /// Name of the handle type in messages.
    const NAME: &'static str;
}

/// The memory that a handle points to.
#[repr(C)]
struct Tagged<T> {
    kind: u64,
    value: T,
}

/// Tag of a freed handle. With it, most double frees and uses after free are detected.
const FREED: u64 = u64::from_le_bytes(*b"opt-free");

/// Returns a new handle that owns `value`.
pub fn new<H: Handle>(value: H::Value) -> *mut H {
    Box::into_raw(Box::new(Tagged { kind: H::KIND, value })).cast()
}

/// Returns the value behind a handle.
///
/// # Safety
/// `handle` is NULL or a handle of any type from this library that is not freed during `'a`.
pub unsafe fn get<'a, H: Handle>(handle: *const H) -> Result<&'a H::Value> {
    // SAFETY: same contract.
    match unsafe { optional(handle) }? {
        Some(value) => Ok(value),
        None => bail!(InvalidArgument, "the {} is NULL", H::NAME),
    }
}

/// Returns the value behind a handle that may be NULL.
///
/// # Safety
/// As [`get`].
pub unsafe fn optional<'a, H: Handle>(handle: *const H) -> Result<Option<&'a H::Value>> {
    if handle.is_null() {
        return Ok(None);
    }
    let tagged = handle.cast::<Tagged<H::Value>>();
    if !tagged.is_aligned() {
        bail!(InvalidHandle, "the {} is not a handle of this library", H::NAME);
    }
    // SAFETY: every handle begins with its tag; the value is only read if the tag matches.
    match unsafe { (*tagged).kind } {
        // SAFETY: the tag says that the value has this type.
        kind if kind == H::KIND => Ok(Some(unsafe { &(*tagged).value })),
        FREED => bail!(InvalidHandle, "the {} was already freed", H::NAME),
        _ => bail!(InvalidHandle, "a handle of another type was passed as the {}", H::NAME),
    }
}

/// Frees a handle. NULL and handles of another type are ignored.
///
/// # Safety
/// As [`get`]; the handle is not used afterwards.
pub unsafe fn free<H: Handle>(handle: *mut H) {
    // SAFETY: same contract.
    if !handle.is_null() && unsafe { get(handle.cast_const()) }.is_ok() {
        let tagged = handle.cast::<Tagged<H::Value>>();
        // SAFETY: the tag matched, so this came from `new` and has no other owner.
        unsafe {
            (*tagged).kind = FREED;
            drop(Box::from_raw(tagged));
        }
    }
}

/// Locks the value of a handle that accepts one call at a time, and returns the guard. Fails with `Busy` if another
/// thread holds the lock; `doing` describes what that thread does, for the message.
pub fn lock<'h, T>(value: &'h Mutex<T>, doing: &str) -> Result<MutexGuard<'h, T>> {
    match value.try_lock() {
        Ok(guard) => Ok(guard),
        Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => bail!(Busy, "another thread is {doing}"),
    }
}

/// Declares an opaque C type.
macro_rules! handle {
    ($(#[$doc:meta])* $name:ident($value:ty), $tag:literal, $word:literal) => {
        impl $crate::ffi::handle::Handle for $name {
            type Value = $value;
            const KIND: u64 = u64::from_le_bytes(*$tag);
            const NAME: &'static str = $word;
        }
    };
}
pub(crate) use handle;
