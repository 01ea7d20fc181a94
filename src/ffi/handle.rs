//! The opaque handles of the C interface. A handle points to a type tag and a value, so that a handle of a wrong type
//! is an error and not a crash.

use crate::call::Call;
use crate::counters::PROCESS;
use crate::error::{Result, bail};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

/// A C handle type (`optimize_model_t` …) and the Rust value behind it.
pub trait Handle {
    /// The value behind the handle.
    type Value;
    /// Tag of this handle type, which no other type has.
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

/// Tag of a freed handle. As long as its memory has no new use, this tag makes a second free have no effect, and any
/// other use an error.
const FREED: u64 = u64::from_le_bytes(*b"opt-free");

/// Returns a new handle that owns `value`.
pub fn new<H: Handle>(value: H::Value) -> *mut H {
    Box::into_raw(Box::new(Tagged { kind: H::KIND, value })).cast()
}

/// Returns the value behind a handle. Fails with `InvalidArgument` if the handle is NULL, and with `InvalidHandle` if
/// it has another type or was freed.
///
/// # Safety
/// `handle` is NULL or a handle of any type from this library that is not freed during `'a`.
pub unsafe fn get<'a, H: Handle>(handle: *const H) -> Result<&'a H::Value> {
    // SAFETY: the contract of this function.
    match unsafe { optional(handle) }? {
        Some(value) => Ok(value),
        None => bail!(InvalidArgument, "the {} is NULL", H::NAME),
    }
}

/// Returns the value behind a handle, or `None` for NULL. Fails with `InvalidHandle` like [`get`].
///
/// # Safety
/// The contract is that of [`get`].
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
/// The contract is that of [`get`]. The handle must not be in use, and must not be used afterwards.
pub unsafe fn free<H: Handle>(handle: *mut H) {
    // SAFETY: the contract of this function.
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
/// call holds the lock; `doing` describes that call in the message.
pub fn lock<'h, T>(value: &'h Mutex<T>, doing: &str) -> Result<MutexGuard<'h, T>> {
    match value.try_lock() {
        Ok(guard) => Ok(guard),
        Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => bail!(Busy, "another call, or the call of this callback, is {doing}"),
    }
}

/// Interval between two attempts to lock a value while a call can be cancelled.
const WAIT: Duration = Duration::from_millis(1);

/// Waits until no other thread uses a value that accepts one call at a time, locks it, and returns the guard. Fails
/// with `Cancelled` or `Timeout` if `call` is cancelled or its deadline passes meanwhile.
pub fn wait<'h, T>(value: &'h Mutex<T>, call: &Call) -> Result<MutexGuard<'h, T>> {
    let _waiting = PROCESS.waiting_calls.hold();
    loop {
        if call.cancel.is_none() && call.deadline.is_none() {
            return Ok(value.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        }
        match value.try_lock() {
            Ok(guard) => return Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => call.check()?,
        }
        std::thread::sleep(WAIT);
    }
}

/// A macro that makes the opaque C type `$name` a [`Handle`] of `$value`, with its tag and its name in messages.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::time::Instant;

    #[test]
    fn a_call_waits_for_the_call_before_it_until_its_deadline() {
        let value = Mutex::new(1);
        let guard = lock(&value, "counting").unwrap();
        assert_eq!(lock(&value, "counting").unwrap_err().kind(), Kind::Busy);
        let late = Call { deadline: Some(Instant::now() + Duration::from_millis(5)), ..Call::default() };
        assert_eq!(wait(&value, &late).unwrap_err().kind(), Kind::Timeout);
        std::thread::scope(|scope| {
            for deadline in [None, Some(Instant::now() + Duration::from_secs(60))] {
                let value = &value;
                scope.spawn(move || *wait(value, &Call { deadline, ..Call::default() }).unwrap() += 1);
            }
            drop(guard);
        });
        assert_eq!(*wait(&value, &Call::default()).unwrap(), 3);
    }
}
