//! The status codes of the C interface, and the version of the library.

use crate::error::Kind;
use std::ffi::c_char;

/// The status of a call. OPTIMIZE_OK (0) is success. Later versions do not change these values; they add new ones at
/// the end.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_status_t {
    /// Success.
    OPTIMIZE_OK = 0,
    /// An argument is NULL where a value is required, is out of range, or contradicts another one.
    OPTIMIZE_INVALID_ARGUMENT = 1,
    /// A handle has another type. Use of a freed handle is undefined; it may return this status.
    OPTIMIZE_INVALID_HANDLE = 2,
    /// A file, tensor, input or name does not exist.
    OPTIMIZE_NOT_FOUND = 3,
    /// Reading or writing a file failed, or a callback of a source or sink failed.
    OPTIMIZE_IO = 4,
    /// The file is damaged, or is not a valid model.
    OPTIMIZE_INVALID_MODEL = 5,
    /// The request is valid, but this version does not support it.
    OPTIMIZE_UNSUPPORTED = 6,
    /// A limit of this library or the memory limit of the context is exceeded, or there is too little memory.
    OPTIMIZE_LIMIT_EXCEEDED = 7,
    /// ONNX Runtime was not found or is too old.
    OPTIMIZE_RUNTIME_MISSING = 8,
    /// ONNX Runtime refused the model, or a run failed.
    OPTIMIZE_RUNTIME = 9,
    /// The call was stopped by the cancel token or the progress callback.
    OPTIMIZE_CANCELLED = 10,
    /// The timeout of the call expired.
    OPTIMIZE_TIMEOUT = 11,
    /// The handle accepts one call at a time and is in use.
    OPTIMIZE_BUSY = 12,
    /// A limit of the quality, size or speed of a result was not met.
    OPTIMIZE_GATE_NOT_MET = 13,
    /// A defect of this library caused the failure. The process can continue.
    OPTIMIZE_INTERNAL = 14,
    /// TensorRT, an execution provider or this library's kernels were not found, are too old, or are not supported by
    /// this build of the library.
    OPTIMIZE_BACKEND_MISSING = 15,
    /// No NVIDIA driver was found, or no device with the requested index.
    OPTIMIZE_DEVICE_MISSING = 16,
    /// TensorRT refused the model, or a build or run failed.
    OPTIMIZE_BACKEND = 17,
    /// The file belongs to another model, library or device.
    OPTIMIZE_MISMATCH = 18,
    /// The file contains executable code, and its source was not marked as trusted; or an engine has no manifest.
    OPTIMIZE_UNTRUSTED = 19,
}

impl From<Kind> for optimize_status_t {
    fn from(kind: Kind) -> Self {
        use optimize_status_t::*;
        match kind {
            Kind::InvalidArgument => OPTIMIZE_INVALID_ARGUMENT,
            Kind::InvalidHandle => OPTIMIZE_INVALID_HANDLE,
            Kind::NotFound => OPTIMIZE_NOT_FOUND,
            Kind::Io => OPTIMIZE_IO,
            Kind::InvalidModel => OPTIMIZE_INVALID_MODEL,
            Kind::Unsupported => OPTIMIZE_UNSUPPORTED,
            Kind::LimitExceeded => OPTIMIZE_LIMIT_EXCEEDED,
            Kind::RuntimeMissing => OPTIMIZE_RUNTIME_MISSING,
            Kind::Runtime => OPTIMIZE_RUNTIME,
            Kind::Cancelled => OPTIMIZE_CANCELLED,
            Kind::Timeout => OPTIMIZE_TIMEOUT,
            Kind::Busy => OPTIMIZE_BUSY,
            Kind::GateNotMet => OPTIMIZE_GATE_NOT_MET,
            Kind::Internal => OPTIMIZE_INTERNAL,
            Kind::BackendMissing => OPTIMIZE_BACKEND_MISSING,
            Kind::DeviceMissing => OPTIMIZE_DEVICE_MISSING,
            Kind::Backend => OPTIMIZE_BACKEND,
            Kind::Mismatch => OPTIMIZE_MISMATCH,
            Kind::Untrusted => OPTIMIZE_UNTRUSTED,
        }
    }
}

/// Returns the version of the library, for example "0.1.0". The string is static.
#[unsafe(no_mangle)]
pub extern "C" fn optimize_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Returns the version of the library as a number that can be compared with OPTIMIZE_VERSION of the header: major *
/// 10000 + minor * 100 + patch.
#[unsafe(no_mangle)]
pub extern "C" fn optimize_version_number() -> u32 {
    const fn number(text: &str) -> u32 {
        match u32::from_str_radix(text, 10) {
            Ok(number) => number,
            Err(_) => panic!("a part of the version is not a number"),
        }
    }
    const MAJOR: u32 = number(env!("CARGO_PKG_VERSION_MAJOR"));
    const MINOR: u32 = number(env!("CARGO_PKG_VERSION_MINOR"));
    const PATCH: u32 = number(env!("CARGO_PKG_VERSION_PATCH"));
    MAJOR * 10_000 + MINOR * 100 + PATCH
}

/// Returns the name of a status, for example "invalid_model", or "unknown" if there is no such status. The string is
/// static.
#[unsafe(no_mangle)]
pub extern "C" fn optimize_status_name(status: i32) -> *const c_char {
    let name = match status {
        0 => c"ok",
        1 => c"invalid_argument",
        2 => c"invalid_handle",
        3 => c"not_found",
        4 => c"io",
        5 => c"invalid_model",
        6 => c"unsupported",
        7 => c"limit_exceeded",
        8 => c"runtime_missing",
        9 => c"runtime",
        10 => c"cancelled",
        11 => c"timeout",
        12 => c"busy",
        13 => c"gate_not_met",
        14 => c"internal",
        15 => c"backend_missing",
        16 => c"device_missing",
        17 => c"backend",
        18 => c"mismatch",
        19 => c"untrusted",
        _ => c"unknown",
    };
    name.as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_kinds_have_the_same_numbers_and_names() {
        let kinds = [
            Kind::InvalidArgument,
            Kind::InvalidHandle,
            Kind::NotFound,
            Kind::Io,
            Kind::InvalidModel,
            Kind::Unsupported,
            Kind::LimitExceeded,
            Kind::RuntimeMissing,
            Kind::Runtime,
            Kind::Cancelled,
            Kind::Timeout,
            Kind::Busy,
            Kind::GateNotMet,
            Kind::Internal,
            Kind::BackendMissing,
            Kind::DeviceMissing,
            Kind::Backend,
            Kind::Mismatch,
            Kind::Untrusted,
        ];
        for kind in kinds {
            assert_eq!(optimize_status_t::from(kind) as i32, kind as i32);
            // SAFETY: a static string.
            let name = unsafe { std::ffi::CStr::from_ptr(optimize_status_name(kind as i32)) };
            assert_eq!(name.to_str().unwrap(), kind.name());
        }
    }
}
