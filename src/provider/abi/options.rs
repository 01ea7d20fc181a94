//! The configuration of a session.

use std::ffi::c_char;
use std::ptr::null_mut;

use ort::sys::{OrtKeyValuePairs, OrtSessionOptions};

use super::api::{Api, ask};
use super::status::{Result, text};

/// Returns all configuration entries of a session, including those for providers. Fails if ONNX Runtime returns an
/// error.
///
/// # Safety
/// `options` is what ONNX Runtime gave to `CreateEp`.
pub unsafe fn entries(api: Api, options: *const OrtSessionOptions) -> Result<Vec<(String, String)>> {
    // SAFETY: the contract of this function; the arrays belong to `pairs`, which is released when they are copied.
    unsafe {
        let pairs = ask!(api, GetSessionOptionsConfigEntries(options) -> *mut OrtKeyValuePairs = null_mut())?;
        let (mut keys, mut values, mut count) = (std::ptr::null(), std::ptr::null(), 0usize);
        (api.ort().GetKeyValuePairs)(pairs, &mut keys, &mut values, &mut count);
        let word = |array: *const *const c_char, index: usize| text(*array.add(index));
        let entries = (0..count).map(|index| (word(keys, index), word(values, index))).collect();
        (api.ort().ReleaseKeyValuePairs)(pairs);
        Ok(entries)
    }
}
