//! Functions that read values of reports, so that programs need no JSON parser.

use super::buffer::{Buffer, optimize_buffer_t};
use super::error::optimize_error_t;
use super::handle;
use super::options::{self, Options};
use super::status::optimize_status_t;
use super::{Out, guard, text};
use crate::error::{Result, bail, error};
use crate::report::LEFT;
use serde_json::Value;
use std::ffi::c_char;

/// Action of a technique on a node. Set `struct_size` before the call. The memory of the texts belongs to the report.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_node_report_t {
    /// sizeof(optimize_node_report_t).
    pub struct_size: u32,
    /// 1 if the node was changed, otherwise 0.
    pub changed: u32,
    /// Name of the node, or of its first output if it has none.
    pub name: *const c_char,
    /// Operator type of the node.
    pub op: *const c_char,
    /// Action: "quantized", "left" ... (docs/report.md).
    pub action: *const c_char,
    /// Reason for the action; for a changed node, a description of what it is now.
    pub reason: *const c_char,
    /// Loss of the model if this node alone is quantized, in the measure of `max_quality_loss`; NaN if it was not
    /// measured.
    pub sensitivity: f64,
}
// SAFETY: repr(C), two 32-bit integers, four pointers and a 64-bit number: no padding, all zero is valid.
unsafe impl Options for optimize_node_report_t {}

/// Results of a benchmark. Set `struct_size` before the call. The memory of `verdict` belongs to the report. A number
/// that was not measured, or does not apply to the models, is NaN, or 0 for bytes.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_benchmark_t {
    /// sizeof(optimize_benchmark_t).
    pub struct_size: u32,
    /// Number of timed rounds; both models ran once in each.
    pub runs: u32,
    /// Verdict on the speed of the result: "no difference" if the 95 % interval of the speedup contains 1, otherwise
    /// "faster" or "slower".
    pub verdict: *const c_char,
    /// Median over the rounds of the time of the original divided by that of the result.
    pub speedup: f64,
    /// Lower end of the 95 % interval of the speedup.
    pub speedup_low: f64,
    /// Upper end of the 95 % interval of the speedup.
    pub speedup_high: f64,
    /// Median latency of the original in milliseconds.
    pub original_ms: f64,
    /// Median latency of the result in milliseconds.
    pub result_ms: f64,
    /// 90th percentile of the original's latency in milliseconds.
    pub original_p90_ms: f64,
    /// 90th percentile of the result's latency in milliseconds.
    pub result_p90_ms: f64,
    /// Time to create a session of the original in milliseconds, the shorter of two measurements.
    pub original_load_ms: f64,
    /// Time to create a session of the result in milliseconds, the shorter of two measurements.
    pub result_load_ms: f64,
    /// Growth of the process's resident memory by the original, in bytes.
    pub original_resident_bytes: u64,
    /// Growth of the process's resident memory by the result, in bytes.
    pub result_resident_bytes: u64,
    /// Size of the original on disk in bytes.
    pub original_bytes: u64,
    /// Size of the result on disk in bytes.
    pub result_bytes: u64,
    /// Mean cosine of the outputs of both models; the lowest of the judged outputs (docs/report.md) if there are
    /// several.
    pub cosine: f64,
    /// Largest absolute difference of the judged outputs of both models.
    pub max_abs_error: f64,
    /// Share of the rows of the outputs whose largest element has the same index in both models; the lowest of the
    /// judged outputs.
    pub top1_agreement: f64,
    /// Mean Kullback-Leibler divergence in nats, for outputs that are logits; the largest of the judged outputs.
    pub kl: f64,
}
// SAFETY: repr(C), two 32-bit integers, a pointer and 64-bit numbers: no padding, all zero is valid.
unsafe impl Options for optimize_benchmark_t {}

/// Writes a number of a report, for example "/quality/perplexity" or "/summary/nodes_quantized". `pointer` is a JSON
/// Pointer (RFC 6901): the keys and indices on the way to the value, each after a "/". Booleans are 1 and 0. The fields
/// are those of docs/report.md. The function works for every buffer of this library that contains JSON.
///
/// Returns OPTIMIZE_NOT_FOUND if there is no such value, or if it is `null`; OPTIMIZE_INVALID_ARGUMENT if it is not a
/// number, or if the buffer holds no JSON.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_report_number(
    report: *const optimize_buffer_t,
    pointer: *const c_char,
    value: *mut f64,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let place = number_place(value)?;
            let pointer = text(pointer, "pointer")?;
            let found = match at(json(handle::get(report)?)?, pointer)? {
                Value::Bool(flag) => f64::from(u8::from(*flag)),
                other => match other.as_f64() {
                    Some(number) => number,
                    None => bail!(InvalidArgument, "{pointer} is not a number"),
                },
            };
            place.write(found);
            Ok(())
        })
    }
}

/// Writes a text of a report, for example "/benchmark/speedup/verdict", and its size in bytes without the final NUL;
/// see `optimize_report_number` for `pointer`. `size` may be NULL. The text is valid until the report is freed.
///
/// Returns OPTIMIZE_NOT_FOUND if there is no such value, or if it is `null`; OPTIMIZE_INVALID_ARGUMENT if it is not a
/// text, or if the buffer holds no JSON.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_report_text(
    report: *const optimize_buffer_t,
    pointer: *const c_char,
    value: *mut *const c_char,
    size: *mut usize,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(value.cast::<*mut c_char>(), "value")?;
            let (buffer, pointer) = (handle::get(report)?, text(pointer, "pointer")?);
            let Value::String(found) = at(json(buffer)?, pointer)? else {
                bail!(InvalidArgument, "{pointer} is not a text");
            };
            if !size.is_null() {
                size.write(found.len());
            }
            out.set(buffer.keep(found).cast_mut());
            Ok(())
        })
    }
}

/// Writes the number of entries of a list or an object of a report, for example "/nodes" or "/warnings"; see
/// `optimize_report_number` for `pointer`.
///
/// Returns OPTIMIZE_NOT_FOUND if there is no such value, or if it is `null`; OPTIMIZE_INVALID_ARGUMENT if it is neither
/// a list nor an object, or if the buffer holds no JSON.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_report_count(
    report: *const optimize_buffer_t,
    pointer: *const c_char,
    count: *mut usize,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            if count.is_null() {
                bail!(InvalidArgument, "count is NULL; an output pointer is required");
            }
            let pointer = text(pointer, "pointer")?;
            let found = match at(json(handle::get(report)?)?, pointer)? {
                Value::Array(list) => list.len(),
                Value::Object(object) => object.len(),
                _ => bail!(InvalidArgument, "{pointer} is neither a list nor an object"),
            };
            count.write(found);
            Ok(())
        })
    }
}

/// Returns the number of nodes in the report of a technique; 0 if `report` is NULL or has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_report_node_count(report: *const optimize_buffer_t) -> usize {
    // SAFETY: the contract of `ffi`.
    let count = || Some(nodes(json(unsafe { handle::get(report) }.ok()?).ok()?)?.len());
    super::guard_value(0, || count().unwrap_or(0))
}

/// Writes the action of a technique on the node at `index`. The texts in `node` are valid until the report is freed.
///
/// Returns OPTIMIZE_NOT_FOUND if there is no such node; OPTIMIZE_INVALID_ARGUMENT if the buffer holds no JSON.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_report_node(
    report: *const optimize_buffer_t,
    index: usize,
    node: *mut optimize_node_report_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let buffer = handle::get(report)?;
            let all = nodes(json(buffer)?).map_or(&[][..], Vec::as_slice);
            let Some(found) = all.get(index) else {
                bail!(NotFound, "index {index} is out of range; there are {}", all.len());
            };
            let field = |name: &str| found.get(name).and_then(Value::as_str).unwrap_or("");
            let full = optimize_node_report_t {
                struct_size: 0,
                changed: u32::from(field("action") != LEFT),
                name: buffer.keep(field("name")),
                op: buffer.keep(field("op")),
                action: buffer.keep(field("action")),
                reason: buffer.keep(field("reason")),
                sensitivity: number(found, "/sensitivity"),
            };
            options::write(&full, node, "node")
        })
    }
}

/// Writes the results of a benchmark, from the report of `optimize_model_benchmark` or
/// `optimize_model_benchmark_engine`. `verdict` is valid until the report is freed.
///
/// Returns OPTIMIZE_NOT_FOUND if the report has no benchmark; OPTIMIZE_INVALID_ARGUMENT if the buffer holds no JSON.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_report_benchmark(
    report: *const optimize_buffer_t,
    benchmark: *mut optimize_benchmark_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let buffer = handle::get(report)?;
            let json = json(buffer)?;
            let found = json.get("benchmark").ok_or_else(|| error!(NotFound, "the report has no benchmark"))?;
            let of = |pointer: &str| number(found, pointer);
            let bytes = |pointer: &str| found.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
            let quality = |name: &str| json.get("quality").map_or(f64::NAN, |quality| number(quality, name));
            let full = optimize_benchmark_t {
                struct_size: 0,
                runs: u32::try_from(bytes("/runs")).unwrap_or(u32::MAX),
                verdict: buffer.keep(found.pointer("/speedup/verdict").and_then(Value::as_str).unwrap_or("")),
                speedup: of("/speedup/median"),
                speedup_low: of("/speedup/low"),
                speedup_high: of("/speedup/high"),
                original_ms: of("/latency_ms/original/median"),
                result_ms: of("/latency_ms/result/median"),
                original_p90_ms: of("/latency_ms/original/p90"),
                result_p90_ms: of("/latency_ms/result/p90"),
                original_load_ms: of("/load_ms/original"),
                result_load_ms: of("/load_ms/result"),
                original_resident_bytes: bytes("/resident_bytes/original"),
                result_resident_bytes: bytes("/resident_bytes/result"),
                original_bytes: bytes("/bytes/original"),
                result_bytes: bytes("/bytes/result"),
                cosine: quality("/cosine"),
                max_abs_error: quality("/max_abs_error"),
                top1_agreement: quality("/top1_agreement"),
                kl: quality("/kl"),
            };
            options::write(&full, benchmark, "benchmark")
        })
    }
}

/// Returns the JSON of a buffer. Fails with `InvalidArgument` if it holds none.
pub(super) fn json(buffer: &Buffer) -> Result<&Value> {
    buffer.json().ok_or_else(|| error!(InvalidArgument, "the buffer holds no JSON"))
}

fn nodes(json: &Value) -> Option<&Vec<Value>> {
    json.get("nodes")?.as_array()
}

/// Returns the value at a JSON Pointer. Fails with `NotFound` if there is none or it is `null`.
fn at<'j>(json: &'j Value, pointer: &str) -> Result<&'j Value> {
    match json.pointer(pointer) {
        Some(Value::Null) => bail!(NotFound, "{pointer} is null"),
        Some(found) => Ok(found),
        None => bail!(NotFound, "there is no {pointer}"),
    }
}

/// Returns the number at a JSON Pointer; NaN if there is none.
pub(super) fn number(json: &Value, pointer: &str) -> f64 {
    json.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

fn number_place(value: *mut f64) -> Result<*mut f64> {
    if value.is_null() {
        bail!(InvalidArgument, "value is NULL; an output pointer is required");
    }
    Ok(value)
}
