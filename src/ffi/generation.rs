//! Functions that read the generated texts of reports, so that programs need no JSON parser.

use super::buffer::{Buffer, optimize_buffer_t};
use super::error::optimize_error_t;
use super::generator::optimize_finish_reason_t;
use super::guard;
use super::handle;
use super::options::{self, Options};
use super::report::{json, number};
use super::status::optimize_status_t;
use crate::error::{Result, bail};
use crate::text::FinishReason;
use serde_json::Value;
use std::ffi::c_char;

/// The text that a generator generated in one of its rows. Set `struct_size` before the call. The memory of the
/// pointers belongs to the report.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_generation_t {
    /// sizeof(optimize_generation_t).
    pub struct_size: u32,
    /// Finish reason of the text, an optimize_finish_reason_t.
    pub finish_reason: i32,
    /// Text of the row: `text_size` bytes of UTF-8 followed by a NUL, without stop string and special tokens.
    pub text: *const c_char,
    /// Number of bytes in `text`.
    pub text_size: u64,
    /// Array of `token_count` ids of the generated tokens; NULL if there are none.
    pub tokens: *const i64,
    /// Array of `token_count` log-probabilities of the generated tokens; NULL if they were not requested or there are
    /// no tokens.
    pub logprobs: *const f32,
    /// Number of generated tokens.
    pub token_count: u64,
    /// Number of tokens in the row before the generated ones: those of the prompt and of earlier runs.
    pub prompt_tokens: u64,
    /// Ensembles: mean over the tokens of the entropy of the combined distribution, in nats; otherwise NaN.
    pub entropy: f64,
    /// Ensembles: mean over the tokens of the part of the entropy that comes from disagreement between the members, in
    /// nats; otherwise NaN.
    pub mutual_information: f64,
    /// Ensembles: mean over the tokens of the sum of the weights of the members that rank the token first; otherwise
    /// NaN.
    pub agreement: f64,
    /// With a draft: number of runs of the model, of which the first one reads the prompt; otherwise 0.
    pub steps: u64,
    /// Number of drafted tokens that the model verified; 0 without a draft.
    pub drafted: u64,
    /// Number of drafted tokens that were accepted; 0 without a draft.
    pub accepted: u64,
    /// Fraction of the drafted tokens that were accepted; NaN if none were drafted.
    pub acceptance: f64,
}
// SAFETY: repr(C), two 32-bit and thirteen 64-bit fields: no padding, all zero is valid.
unsafe impl Options for optimize_generation_t {}

/// A token that the model could have generated at a position, with its log-probability.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_candidate_t {
    /// sizeof(optimize_candidate_t).
    pub struct_size: u32,
    /// Log-probability of the token.
    pub logprob: f32,
    /// Id of the token.
    pub token: i64,
}
// SAFETY: repr(C), two 32-bit fields and a 64-bit one: no padding, all zero is valid.
unsafe impl Options for optimize_candidate_t {}

/// Tokens and log-probabilities of the rows of a report, as arrays to which C programs get pointers.
#[derive(Default)]
pub struct Rows(Vec<Row>);

struct Row {
    tokens: Vec<i64>,
    logprobs: Vec<f32>,
}

impl Rows {
    /// Returns the tokens and log-probabilities of the rows of a report.
    pub fn of(json: &Value) -> Rows {
        let list = |row: &Value, name: &str| row.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        let row = |row: &Value| Row {
            tokens: list(row, "tokens").iter().filter_map(Value::as_i64).collect(),
            logprobs: list(row, "logprobs").iter().map(|at| number(at, "/chosen/logprob") as f32).collect(),
        };
        Rows(generations(json).iter().map(row).collect())
    }
}

/// Returns the number of generated texts in the report of `optimize_generator_generate` or `optimize_generator_run`; 0
/// if `report` is NULL or has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_generation_count(report: *const optimize_buffer_t) -> usize {
    // SAFETY: the contract of `ffi`.
    let count = || Some(generations(json(unsafe { handle::get(report) }.ok()?).ok()?).len());
    super::guard_value(0, || count().unwrap_or(0))
}

/// Writes the generated text of a row. The pointers in `generation` are valid until the report is freed.
///
/// Returns OPTIMIZE_NOT_FOUND if there is no such row; OPTIMIZE_INVALID_ARGUMENT if the buffer holds no JSON.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_generation_get(
    report: *const optimize_buffer_t,
    row: usize,
    generation: *mut optimize_generation_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let buffer = handle::get(report)?;
            let found = row_of(buffer, row)?;
            let text = found.get("text").and_then(Value::as_str).unwrap_or("");
            let reason = found.get("finish_reason").and_then(Value::as_str).unwrap_or("");
            let none = optimize_finish_reason_t::OPTIMIZE_FINISH_NONE as i32;
            let Row { tokens, logprobs } = &buffer.rows().0[row];
            let count = |pointer: &str| found.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
            let mean = |name: &str| number(found, &format!("/mean_uncertainty/{name}"));
            let full = optimize_generation_t {
                struct_size: 0,
                finish_reason: reason.parse::<FinishReason>().map_or(none, FinishReason::code),
                text: buffer.keep(text),
                text_size: text.len() as u64,
                tokens: if tokens.is_empty() { std::ptr::null() } else { tokens.as_ptr() },
                logprobs: if logprobs.len() == tokens.len() && !tokens.is_empty() {
                    logprobs.as_ptr()
                } else {
                    std::ptr::null()
                },
                token_count: tokens.len() as u64,
                prompt_tokens: count("/prompt_tokens"),
                entropy: mean("entropy"),
                mutual_information: mean("mutual_information"),
                agreement: mean("agreement"),
                steps: count("/draft/steps"),
                drafted: count("/draft/drafted"),
                accepted: count("/draft/accepted"),
                acceptance: number(found, "/draft/acceptance"),
            };
            options::write(&full, generation, "generation")
        })
    }
}

/// Writes one of the most probable tokens at the position `token` of the generated tokens of a row; the token at
/// `index` 0 is the most probable one. The number of candidates is the option `logprobs`, less one. Set `struct_size`
/// of `candidate` before the call.
///
/// Returns OPTIMIZE_NOT_FOUND if there is no such row, token or candidate; OPTIMIZE_INVALID_ARGUMENT if the buffer
/// holds no JSON.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_generation_candidate(
    report: *const optimize_buffer_t,
    row: usize,
    token: usize,
    index: usize,
    candidate: *mut optimize_candidate_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let found = row_of(handle::get(report)?, row)?.pointer(&format!("/logprobs/{token}/top/{index}"));
            let Some(found) = found else {
                bail!(NotFound, "token {token} of row {row} has no candidate {index}");
            };
            let full = optimize_candidate_t {
                struct_size: 0,
                logprob: number(found, "/logprob") as f32,
                token: found.get("token").and_then(Value::as_i64).unwrap_or(0),
            };
            options::write(&full, candidate, "candidate")
        })
    }
}

fn generations(json: &Value) -> &[Value] {
    json.get("generations").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn row_of(buffer: &Buffer, row: usize) -> Result<&Value> {
    let all = generations(json(buffer)?);
    match all.get(row) {
        Some(found) => Ok(found),
        None => bail!(NotFound, "row {row} does not exist; there are {}", all.len()),
    }
}
