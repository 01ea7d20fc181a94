//! The table that compares all techniques on models.

use super::call::{self, optimize_call_t};
use super::context::optimize_context_t;
use super::error::optimize_error_t;
use super::handle;
use super::model::optimize_model_t;
use super::options::{self, Options};
use super::recipe::data_of;
use super::status::optimize_status_t;
use super::{Out, buffer, guard, optional_path, slice, text, texts};
use crate::error::{Context as _, Result, bail, error};
use crate::model::Model;
use crate::table::{TableOptions, table};
use std::ffi::c_char;
use std::path::Path;

/// Options of `optimize_models_table`. Fields that are 0 or NULL have their defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_table_options_t {
    /// sizeof(optimize_table_options_t).
    pub struct_size: u32,
    /// Number of threads of sessions and techniques; 0 uses that of the context.
    pub threads: u32,
    /// Maximum number of timed rounds in each of the three repetitions of a measurement, which use new sessions; 0
    /// selects 15.
    pub runs: u32,
    /// Time limit in milliseconds for the rounds of a repetition with one size of the input, after at least three
    /// rounds; 0 selects 4000.
    pub max_milliseconds: u32,
    /// Time limit of each training in milliseconds; 0 selects 120000.
    pub training_milliseconds: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Text in UTF-8 of `data_size` bytes for calibration, training and quality; if its lines have a label, a tab and
    /// a text, the accuracy is measured, too. NULL measures quality on built-in sentences, and skips rows that need a
    /// text.
    pub data: *const c_char,
    /// Number of bytes of `data`.
    pub data_size: u64,
    /// Array of `row_count` names of rows to measure, such as "int8"; docs/table.md lists them. NULL selects all.
    pub rows: *const *const c_char,
    /// Number of names in `rows`.
    pub row_count: u64,
    /// Path of a second model for the row `ensemble`; NULL selects the result of the row `distill`.
    pub with: *const c_char,
}
// SAFETY: repr(C), six u32, a pointer, a u64, a pointer, a u64, a pointer: no padding, all zero is valid.
unsafe impl Options for optimize_table_options_t {}

/// Applies the techniques of the rows to models, compiles the results to packages, and compares them with the
/// originals, which run in ONNX Runtime with its own kernels. Writes the packages to `folder`, and after every row
/// table.json and table.md. `report` (may be NULL) receives the JSON of docs/table.md. A finished row is not measured
/// again for the same model, recipe, options, machine and versions: a call that was cancelled, timed out or killed
/// continues where it stopped. A row that needs a GPU or data that is not available is skipped, with the reason in the
/// table. The call takes minutes to an hour. Progress stage: "table: ROW of MODEL", in thousandths of a row.
///
/// Returns OPTIMIZE_INVALID_ARGUMENT if a row is unknown (the message lists the names), or if there is no model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_models_table(
    context: *const optimize_context_t,
    models: *const *const optimize_model_t,
    count: usize,
    folder: *const c_char,
    options: *const optimize_table_options_t,
    call: *const optimize_call_t,
    report: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::optional(report);
            let context = handle::get(context)?;
            let model = |(index, &model): (usize, &*const optimize_model_t)| -> Result<Model> {
                Ok(handle::get(model).at(|| format!("models[{index}]"))?.model.clone())
            };
            if models.is_null() {
                bail!(InvalidArgument, "models is NULL");
            }
            let models: Vec<Model> =
                slice(models, count, "models")?.iter().enumerate().map(model).collect::<Result<_>>()?;
            let folder = text(folder, "folder")?;
            let given = options::read(options)?;
            let mut options = convert(&given)?;
            options.threads = context.threads(given.threads)?;
            let runtime = context.runtime()?;
            let made = call::with(call, |call| table(runtime, &models, &options, Path::new(folder), call))?;
            let json = serde_json::to_string_pretty(&made);
            let json = json.map_err(|e| error!(Internal, "the table cannot be written: {e}"))?;
            out.set_with(|| buffer::new(json + "\n"));
            Ok(())
        })
    }
}

/// Returns the options that a C struct describes.
///
/// # Safety
/// The contract of `ffi`.
unsafe fn convert(given: &optimize_table_options_t) -> Result<TableOptions> {
    if given.reserved != 0 {
        bail!(InvalidArgument, "reserved is not 0");
    }
    let defaults = TableOptions::default();
    let seconds = |milliseconds: u32, default: f64| match milliseconds {
        0 => default,
        milliseconds => f64::from(milliseconds) / 1e3,
    };
    // SAFETY: the contract of this function.
    let (data, rows, with) = unsafe {
        (
            data_of(given.data, given.data_size)?,
            texts(given.rows, usize::try_from(given.row_count).unwrap_or(usize::MAX), "rows")?,
            optional_path(given.with, "with")?,
        )
    };
    Ok(TableOptions {
        data: data.map(str::to_owned),
        rows: rows.into_iter().map(str::to_owned).collect(),
        with,
        threads: 0,
        runs: if given.runs == 0 { defaults.runs } else { given.runs as usize },
        max_seconds: seconds(given.max_milliseconds, defaults.max_seconds),
        training_seconds: seconds(given.training_milliseconds, defaults.training_seconds),
        more: None,
    })
}
