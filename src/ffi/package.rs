//! Packages: a model with all that belongs to it, and the shapes it takes.

use super::call::{self, optimize_call_t};
use super::error::optimize_error_t;
use super::handle;
use super::model::optimize_model_t;
use super::options::{self, Options};
use super::status::optimize_status_t;
use super::{Out, buffer, guard, text, texts};
use crate::error::{Result, bail};
use crate::limits;
use crate::package::{CompileOptions, DynamicShapes, compile, verify};
use crate::shapes::parse_shape;
use std::ffi::c_char;
use std::path::Path;

/// Options of `optimize_package_compile`. All zero means the defaults: every input has the shape of an example.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_compile_options_t {
    /// sizeof(optimize_compile_options_t).
    pub struct_size: u32,
    /// Not 0: inputs keep the sizes that the model leaves open.
    pub dynamic: u32,
    /// With dynamic: the fewest rows of a batch, the first dimension of every input that leaves it open; 0 and
    /// batch_max 0 is any.
    pub batch_min: u64,
    /// The most rows; 0 is no limit.
    pub batch_max: u64,
    /// Ranges of dimensions as JSON, {"input_ids": {"0": {"name": "batch", "min": 1, "max": 64}}}; an input goes by its
    /// name or its number, dimensions of one name have one size. NULL for none.
    pub dynamic_shapes: *const c_char,
    /// `example_count` shapes of the example, each "NAME:2x3x4", for inputs whose sizes the model leaves open; what is
    /// not given is as in a benchmark.
    pub example: *const *const c_char,
    /// Number of shapes.
    pub example_count: u64,
}
// SAFETY: repr(C), two 32-bit and five 64-bit fields: no padding, all zero is valid.
unsafe impl Options for optimize_compile_options_t {}

/// Writes a package: a folder with the model, its tokenizer and configuration, the shapes it takes, and a SHA-256 of every
/// file. It can be moved, and optimize_model_load takes it; sessions and generators of it refuse inputs outside the shapes,
/// naming input, dimension, size and range. `path` must not be there, or be a package, which is replaced as a whole.
/// `report` (may be NULL) gets the JSON of docs/report.md. Progress stages: "hash", in bytes, then "compile".
/// OPTIMIZE_INVALID_ARGUMENT if ranges do not fit the model or each other (the message names input and dimension).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_package_compile(
    model: *const optimize_model_t,
    path: *const c_char,
    options: *const optimize_compile_options_t,
    call: *const optimize_call_t,
    report: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let report_out = Out::optional(report);
            let (model, path) = (&handle::get(model)?.model, Path::new(text(path, "path")?));
            let options = convert(&options::read(options)?)?;
            let report = call::with(call, |call| compile(model, &options, path, call))?;
            if let Some(out) = report_out {
                out.set(buffer::new(report.to_json()));
            }
            Ok(())
        })
    }
}

/// Reads all of a package and compares it with the hashes in it. `report` (may be NULL) gets JSON: {"files", "bytes"}.
/// Progress stage: "verify", in bytes. OPTIMIZE_INVALID_MODEL, naming the file, if anything was changed, is missing or was
/// put there since.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_package_verify(
    path: *const c_char,
    call: *const optimize_call_t,
    report: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let report_out = Out::optional(report);
            let path = Path::new(text(path, "path")?);
            let verified = call::with(call, |call| verify(path, call))?;
            if let Some(out) = report_out {
                out.set(buffer::new(serde_json::to_string(&verified).unwrap_or_default() + "\n"));
            }
            Ok(())
        })
    }
}

unsafe fn convert(given: &optimize_compile_options_t) -> Result<CompileOptions> {
    let size = |value: u64, name: &str| match i64::try_from(value) {
        Ok(size) => Ok(size),
        Err(_) => bail!(InvalidArgument, "{name} is {value}, more than any dimension"),
    };
    let batch = match (size(given.batch_min, "batch_min")?, size(given.batch_max, "batch_max")?) {
        (0, 0) => None,
        (min, max) => Some((min, (max > 0).then_some(max))),
    };
    let count = usize::try_from(given.example_count).unwrap_or(usize::MAX);
    if count > limits::RUN_VALUES {
        bail!(InvalidArgument, "example_count is {count}, at most {} are possible", limits::RUN_VALUES);
    }
    // SAFETY: the contract of `ffi`.
    let (example, shapes) = unsafe {
        let shapes = (!given.dynamic_shapes.is_null()).then(|| text(given.dynamic_shapes, "dynamic_shapes"));
        (texts(given.example, count, "example")?, shapes.transpose()?)
    };
    Ok(CompileOptions {
        dynamic: given.dynamic != 0,
        dynamic_shapes: shapes.map(DynamicShapes::from_json).transpose()?.unwrap_or_default(),
        batch,
        example: example.into_iter().map(parse_shape).collect::<Result<_>>()?,
    })
}
