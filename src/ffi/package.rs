//! Packages: models prepared ahead of time.

use super::call::{self, optimize_call_t};
use super::context::optimize_context_t;
use super::error::optimize_error_t;
use super::generator::{self, optimize_generator_options_t, optimize_generator_t};
use super::handle::{self, handle};
use super::model::{self, optimize_model_t};
use super::options::{self, Options};
use super::session::{self, optimize_session_t};
use super::status::optimize_status_t;
use super::tensorrt::{self, optimize_tensorrt_open_options_t};
use super::tokenizer::optimize_tokenizer_t;
use super::{Out, buffer, guard, text};
use crate::error::{Result, bail};
use crate::limits;
use crate::model::contract::Range;
use crate::package::shapes::{self, Asked};
use crate::package::{CompileOptions, OpenOptions, Package, compile, verify};
use std::ffi::c_char;
use std::path::Path;

/// An open package. Immutable: any number of threads may use it concurrently. Its files stay mapped.
#[allow(non_camel_case_types)]
pub struct optimize_package_t(());

handle!(optimize_package_t(Package), b"opt-pack", "package");

/// The range of a dimension of an input, for `optimize_package_compile`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_dimension_t {
    /// sizeof(optimize_dimension_t).
    pub struct_size: u32,
    /// Index of the dimension of the input, from 0.
    pub dimension: u32,
    /// Name of the input, or its position as text: "0".
    pub input: *const c_char,
    /// Name of the dimension. Dimensions of one name have one size in each run, and one range.
    pub name: *const c_char,
    /// Minimum size.
    pub min: u64,
    /// Maximum size; 0 is no limit.
    pub max: u64,
}
// SAFETY: repr(C), two u32, two pointers that may be NULL and two u64: no padding.
unsafe impl Options for optimize_dimension_t {}

/// Options of `optimize_package_compile`. All zero selects the defaults: the model as it is, with fixed input sizes,
/// in a folder.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_package_compile_options_t {
    /// sizeof(optimize_package_compile_options_t).
    pub struct_size: u32,
    /// Not 0: allows any size where the model does; the first dimension is the batch. Always set for decoders.
    pub dynamic: u32,
    /// Minimum batch size; 0 is 1.
    pub batch_min: u64,
    /// Maximum batch size; 0 is 64.
    pub batch_max: u64,
    /// Ranges of dimensions as JSON, {input: {dimension: {"name", "min", "max"}}}, with inputs by name or position;
    /// or NULL.
    pub dynamic_shapes: *const c_char,
    /// Comma-separated precisions of the variants, best first: "fp32" (the model as it is), "bf16" (the model as
    /// it is, compiled to compute its products in bfloat16 with this library's kernels), "int8", "int4"; NULL is "fp32".
    pub variants: *const c_char,
    /// Licence of the model, or NULL.
    pub licence: *const c_char,
    /// Secret ed25519 key to sign with, as 64 hexadecimal digits; or NULL.
    pub sign_key: *const c_char,
    /// Not 0: writes one file instead of a folder.
    pub single_file: u32,
    /// Not 0: leaves out graphs optimized for this processor.
    pub portable_only: u32,
    /// Not 0: stores the weights packed, with one bit per zero. Each variant then has its own weights, no graph is
    /// optimized for this processor, and opening unpacks into an unlinked file.
    pub packed: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Array of `dimension_count` ranges of dimensions, or NULL. Like `dynamic_shapes`; a dimension may be in one of
    /// them only.
    pub dimensions: *const optimize_dimension_t,
    /// Number of ranges in `dimensions`.
    pub dimension_count: u64,
    /// Path of a TensorRT engine of the model to include as a variant, with its manifest next to it; or NULL.
    pub engine: *const c_char,
}
// SAFETY: repr(C), two u32, two u64, four pointers that may be NULL, four u32, a pointer, a u64, a pointer: no padding.
unsafe impl Options for optimize_package_compile_options_t {}

/// Options of `optimize_package_open`. All zero selects the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_package_open_options_t {
    /// sizeof(optimize_package_open_options_t).
    pub struct_size: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Name or precision of the variant to open; NULL selects it by processor and provider.
    pub variant: *const c_char,
    /// Public ed25519 key that must have signed the package, as 64 hexadecimal digits; or NULL.
    pub public_key: *const c_char,
}
// SAFETY: repr(C), two u32 and two pointers that may be NULL.
unsafe impl Options for optimize_package_open_options_t {}

/// Returns a string, or `None` for NULL.
///
/// # Safety
/// Like [`text`], or NULL.
unsafe fn text_or_null<'a>(given: *const c_char, name: &str) -> Result<Option<&'a str>> {
    // SAFETY: same contract.
    if given.is_null() { Ok(None) } else { unsafe { text(given, name) }.map(Some) }
}

/// Writes a package of a model at `path`, atomically. An existing package is replaced. `report` (may be NULL)
/// receives JSON: the files with sizes and hashes. Progress stages: those of quantizing, then "package", in bytes.
/// Returns OPTIMIZE_INVALID_ARGUMENT if something other than a package exists at `path`, or if ranges do not fit the
/// model or each other (the message names input and dimension).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_package_compile(
    context: *const optimize_context_t,
    model: *const optimize_model_t,
    path: *const c_char,
    options: *const optimize_package_compile_options_t,
    call: *const optimize_call_t,
    report: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::optional(report);
            let (context, model) = (handle::get(context)?, &handle::get(model)?.model);
            let path = text(path, "path")?;
            let options = convert(&options::read(options)?)?;
            let runtime = context.runtime()?;
            let saved = call::with(call, |call| compile(runtime, model, Path::new(path), &options, call))?;
            if let Some(out) = out {
                out.set(buffer::new(saved.to_json()));
            }
            Ok(())
        })
    }
}

/// Returns the options that a C struct describes.
///
/// # Safety
/// The texts are NULL or NUL-terminated.
unsafe fn convert(given: &optimize_package_compile_options_t) -> Result<CompileOptions> {
    if given.reserved != 0 {
        bail!(InvalidArgument, "reserved is not 0");
    }
    let size = |value: u64, default: i64, name: &str| match i64::try_from(value) {
        Ok(0) => Ok(default),
        Ok(value) => Ok(value),
        Err(_) => bail!(InvalidArgument, "{name} is too large"),
    };
    let defaults = CompileOptions::default();
    // SAFETY: same contract.
    let (engine, asked, variants, licence, key) = unsafe {
        (
            text_or_null(given.engine, "engine")?,
            text_or_null(given.dynamic_shapes, "dynamic_shapes")?,
            text_or_null(given.variants, "variants")?,
            text_or_null(given.licence, "licence")?,
            text_or_null(given.sign_key, "sign_key")?,
        )
    };
    let mut asked = asked.map_or(Ok(defaults.shapes), shapes::parse)?;
    // SAFETY: same contract.
    unsafe { add_dimensions(&mut asked, given.dimensions, given.dimension_count)? };
    Ok(CompileOptions {
        dynamic: given.dynamic != 0,
        batch_min: size(given.batch_min, defaults.batch_min, "batch_min")?,
        batch_max: size(given.batch_max, defaults.batch_max, "batch_max")?,
        shapes: asked,
        variants: variants.map_or(defaults.variants, |v| v.split(',').map(|name| name.trim().to_owned()).collect()),
        licence: licence.map(str::to_owned),
        key: key.map(verify::from_hex).transpose()?,
        single_file: given.single_file != 0,
        portable_only: given.portable_only != 0,
        packed: given.packed != 0,
        engine: engine.map(Into::into),
        ..defaults
    })
}

/// Adds ranges of dimensions to the requested ones.
///
/// # Safety
/// `first` is NULL or points to `count` structs of the size that the first announces, with texts as [`text`]
/// requires.
unsafe fn add_dimensions(asked: &mut Asked, first: *const optimize_dimension_t, count: u64) -> Result<()> {
    if first.is_null() != (count == 0) {
        bail!(InvalidArgument, "dimensions and dimension_count do not match: dimension_count is {count}");
    }
    if count > limits::PACKAGE_RANGES {
        bail!(LimitExceeded, "{count} ranges of dimensions; the limit is {}", limits::PACKAGE_RANGES);
    }
    for index in 0..count as usize {
        // SAFETY: same contract; callers of other versions have structs of other sizes, but all of one.
        let (range, input, name) = unsafe {
            let stride = first.cast::<u32>().read() as usize;
            let range = options::read(first.byte_add(index * stride))?;
            (range, text(range.input, "input")?, text(range.name, "name")?)
        };
        let size = |value: u64| match i64::try_from(value) {
            Ok(value) => Ok(value),
            Err(_) => bail!(InvalidArgument, "dimensions[{index}]: the size {value} is too large"),
        };
        let max = if range.max == 0 { None } else { Some(size(range.max)?) };
        let made = Range { name: name.to_owned(), min: size(range.min)?, max };
        let dims = asked.entry(input.to_owned()).or_default();
        if dims.insert(range.dimension as usize, made).is_some() {
            let dimension = range.dimension;
            bail!(InvalidArgument, "dimensions[{index}]: dimension {dimension} of input {input:?} already has a range");
        }
    }
    Ok(())
}

/// Opens a package, a folder or a file. Its manifest is read and checked; the rest is mapped, and read when it is
/// used (`optimize_package_verify` checks all of it). Returns OPTIMIZE_UNSUPPORTED for a package of a newer version,
/// or without a variant for this machine; OPTIMIZE_INVALID_MODEL for one that is damaged, or not signed by
/// `public_key`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_package_open(
    path: *const c_char,
    options: *const optimize_package_open_options_t,
    package: *mut *mut optimize_package_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(package, "package")?;
            let path = text(path, "path")?;
            let given = options::read(options)?;
            if given.reserved != 0 {
                bail!(InvalidArgument, "reserved is not 0");
            }
            let variant = text_or_null(given.variant, "variant")?.map(str::to_owned);
            let key = text_or_null(given.public_key, "public_key")?.map(verify::from_hex).transpose()?;
            out.set(handle::new(Package::open(Path::new(path), &OpenOptions { variant, key })?));
            Ok(())
        })
    }
}

/// Returns the model of a package, for techniques, benchmarks and inspection. Its sessions enforce the shape
/// contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_package_model(
    package: *const optimize_package_t,
    model: *mut *mut optimize_model_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(model, "model")?;
            out.set(model::new(handle::get(package)?.model()?));
            Ok(())
        })
    }
}

/// Creates a session of the variant that fits this processor. The shape contract is checked before every run:
/// OPTIMIZE_INVALID_ARGUMENT names input, dimension, value and range. The package may be freed before the session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_package_session(
    context: *const optimize_context_t,
    package: *const optimize_package_t,
    options: *const session::optimize_session_options_t,
    call: *const optimize_call_t,
    session: *mut *mut optimize_session_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(session, "session")?;
            let (context, package) = (handle::get(context)?, handle::get(package)?);
            let options = session::convert(context, options)?;
            let runtime = context.runtime()?;
            out.set(session::new(call::with(call, |call| package.session(runtime, &options, call))?));
            Ok(())
        })
    }
}

/// Creates a session of the package's TensorRT engine, on the device. The shape contract is checked before every run.
/// The package may be freed before the session. Returns OPTIMIZE_NOT_FOUND if the package has no engine;
/// OPTIMIZE_UNSUPPORTED if the package is a single file; otherwise the statuses of `optimize_tensorrt_open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_package_engine(
    context: *const optimize_context_t,
    package: *const optimize_package_t,
    options: *const optimize_tensorrt_open_options_t,
    call: *const optimize_call_t,
    session: *mut *mut optimize_session_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(session, "session")?;
            handle::get(context)?;
            let package = handle::get(package)?;
            let (options, device_id) = tensorrt::open_options(options)?;
            let engine = call::with(call, |call| {
                call.check()?;
                package.engine(&options, device_id)
            })?;
            out.set(session::of_engine(engine));
            Ok(())
        })
    }
}

/// Returns the tokenizer of a package. OPTIMIZE_NOT_FOUND if it has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_package_tokenizer(
    package: *const optimize_package_t,
    tokenizer: *mut *mut optimize_tokenizer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(tokenizer, "tokenizer")?;
            out.set(handle::new(handle::get(package)?.tokenizer()?));
            Ok(())
        })
    }
}

/// Creates a generator of the package's model, with the options of `optimize_generator_new`. Returns
/// OPTIMIZE_UNSUPPORTED if it does not generate text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_package_generator(
    context: *const optimize_context_t,
    package: *const optimize_package_t,
    options: *const optimize_generator_options_t,
    call: *const optimize_call_t,
    generator: *mut *mut optimize_generator_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(generator, "generator")?;
            let (context, package) = (handle::get(context)?, handle::get(package)?);
            let options = generator::session_options(context, options)?;
            let runtime = context.runtime()?;
            let made = call::with(call, |call| package.generator(runtime, &options, call))?;
            out.set(generator::new(Box::new(made)));
            Ok(())
        })
    }
}

/// Describes a package as JSON, with the variant that is used here and why.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_package_inspect(
    context: *const optimize_context_t,
    package: *const optimize_package_t,
    json: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(json, "json")?;
            let (context, package) = (handle::get(context)?, handle::get(package)?);
            out.set(buffer::new(package.inspect(context.runtime().ok())?));
            Ok(())
        })
    }
}

/// Verifies every byte of a package: the hash of each file, and the signature if there is one. `public_key` is NULL,
/// or the public ed25519 key that must have signed it, as 64 hexadecimal digits. Progress stage: "verify", in bytes.
/// Returns OPTIMIZE_INVALID_MODEL if a file is damaged, or if the package is not signed or signed by another key; the
/// message says which.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_package_verify(
    package: *const optimize_package_t,
    public_key: *const c_char,
    call: *const optimize_call_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let package = handle::get(package)?;
            let key = text_or_null(public_key, "public_key")?.map(verify::from_hex).transpose()?;
            call::with(call, |call| package.verify(key.as_ref(), call))
        })
    }
}

/// Frees a package. NULL is allowed. Objects created from it remain usable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_package_free(package: *mut optimize_package_t) {
    // SAFETY: the contract of `ffi`.
    super::guard_value((), || unsafe { handle::free(package) });
}
