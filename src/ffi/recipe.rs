//! Recipes: several techniques, applied one after another.

use super::call::{self, optimize_call_t};
use super::context::optimize_context_t;
use super::error::optimize_error_t;
use super::handle;
use super::model::optimize_model_t;
use super::options::{self, Options};
use super::status::optimize_status_t;
use super::{Out, buffer, guard, text, text_of};
use crate::error::{Result, bail};
use crate::recipe::{ApplyOptions, Recipe, apply};
use std::ffi::c_char;
use std::path::Path;

/// Options of `optimize_model_apply`. Fields that are 0 or NULL have their defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_apply_options_t {
    /// sizeof(optimize_apply_options_t).
    pub struct_size: u32,
    /// Number of threads; 0 uses that of the context.
    pub threads: u32,
    /// Text in UTF-8 of `data_size` bytes for steps whose data or calibration data is `true` in the recipe; or NULL.
    pub data: *const c_char,
    /// Number of bytes of `data`.
    pub data_size: u64,
}
// SAFETY: repr(C), two u32, a pointer that may be NULL and a u64: no padding, all zero is valid.
unsafe impl Options for optimize_apply_options_t {}

/// Returns the data of the caller, or `None` if `data` is NULL. Fails with `InvalidArgument` if only one of pointer and
/// size is 0, or if the data are not UTF-8; fails with `LimitExceeded` if they are too large.
///
/// # Safety
/// The contract of `ffi`.
pub(super) unsafe fn data_of<'a>(data: *const c_char, size: u64) -> Result<Option<&'a str>> {
    match (data.is_null(), size) {
        (true, 0) => return Ok(None),
        (false, 0) => bail!(InvalidArgument, "data is not NULL, but data_size is 0"),
        _ => {}
    }
    // SAFETY: the contract of this function.
    unsafe { text_of(data, usize::try_from(size).unwrap_or(usize::MAX), "data") }.map(Some)
}

/// Runs the steps of a recipe on a model, and writes the result to `path`: a package if the last step is `compile`, a
/// TensorRT engine if it is `tensorrt`, otherwise a model, as X.onnx or a folder. The original is unchanged, and
/// nothing is written to `path` before the last step. `recipe` is JSON (docs/recipes.md): a list of steps with the name
/// of an `operation` and its options, such as [{"operation": "quantize", "type": "dynamic"}, {"operation": "compile"}],
/// or the report of a technique, which contains a recipe. `report` (may be NULL) receives the JSON of docs/report.md;
/// its `summary.steps` contains the reports of the steps, which a package contains as its lineage. Progress stages:
/// those of the steps.
///
/// Returns OPTIMIZE_INVALID_ARGUMENT for a recipe with an unknown operation or option, or if a step needs `data` of
/// the caller and there is none; otherwise the statuses of the techniques. The place of the error begins with the
/// number and the name of the step.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_apply(
    context: *const optimize_context_t,
    model: *const optimize_model_t,
    recipe: *const c_char,
    path: *const c_char,
    options: *const optimize_apply_options_t,
    call: *const optimize_call_t,
    report: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::optional(report);
            let (context, model) = (handle::get(context)?, &handle::get(model)?.model);
            let (recipe, path) = (Recipe::parse(text(recipe, "recipe")?)?, text(path, "path")?);
            let given = options::read(options)?;
            let data = data_of(given.data, given.data_size)?;
            let options = ApplyOptions { data, threads: context.threads(given.threads)? };
            let runtime = context.runtime()?;
            let made = call::with(call, |call| apply(runtime, model, &recipe, Path::new(path), &options, call))?;
            out.set_with(|| buffer::new(made.to_json()));
            Ok(())
        })
    }
}
