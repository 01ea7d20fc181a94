//! Packages: models prepared ahead of time.

use super::call::{self, optimize_call_t};
use super::context::optimize_context_t;
use super::error::optimize_error_t;
use super::generator::{self, optimize_generator_t};
use super::generator_options::{draft_of, optimize_generator_options_t, session_options};
use super::handle::{self, handle};
use super::model::{self, optimize_model_t};
use super::options::{self, Options};
use super::session::{self, optimize_session_t};
use super::status::optimize_status_t;
use super::tensorrt::{self, optimize_tensorrt_open_options_t};
use super::tokenizer::optimize_tokenizer_t;
use super::{Out, buffer, guard, text, texts};
use crate::call::Call;
use crate::error::{Result, bail, error};
use crate::limits;
use crate::model::contract::Range;
use crate::package::shapes::{self, Asked};
use crate::package::{CompileOptions, OpenOptions, Package, compile, verify};
use std::ffi::c_char;
use std::path::Path;

/// An open package. It is immutable, and any number of threads may use it concurrently. Its files stay memory-mapped,
/// and must not be changed while the package is open.
#[allow(non_camel_case_types)]
pub struct optimize_package_t(());

handle!(optimize_package_t(Package), b"opt-pack", "package");

/// The range of a dimension of an input, in the options of `optimize_package_compile`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_dimension_t {
    /// sizeof(optimize_dimension_t).
    pub struct_size: u32,
    /// Index of the dimension of the input, from 0.
    pub dimension: u32,
    /// Name of the input, or its position among the inputs as text, such as "0".
    pub input: *const c_char,
    /// Name of the dimension. Dimensions with the same name have the same range, and the same size in each run.
    pub name: *const c_char,
    /// Minimum size of the dimension.
    pub min: u64,
    /// Maximum size of the dimension; 0 means no limit.
    pub max: u64,
}
// SAFETY: repr(C), two u32, two pointers that may be NULL and two u64: no padding, all zero is valid.
unsafe impl Options for optimize_dimension_t {}

/// Options of `optimize_package_compile`. Fields that are 0 or NULL have their defaults: the model as it is, with fixed
/// input sizes, in a folder.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_package_compile_options_t {
    /// sizeof(optimize_package_compile_options_t).
    pub struct_size: u32,
    /// A value other than 0 gives a range to every dynamic dimension of the model; the first dimension of an input is
    /// the batch. The dynamic dimensions of decoders have ranges in any case.
    pub dynamic: u32,
    /// Minimum batch size, with `dynamic`; 0 selects 1.
    pub batch_min: u64,
    /// Maximum batch size, with `dynamic`; 0 selects 64.
    pub batch_max: u64,
    /// Ranges of dimensions as JSON, {input: {dimension: {"name", "min", "max"}}}, where an input is a name or a
    /// position, and a dimension an index; or NULL.
    pub dynamic_shapes: *const c_char,
    /// Comma-separated precisions of the variants, in order of preference: "fp32" (the model as it is), "bf16" (the
    /// model as it is, with matrix products in bfloat16 on this library's kernels), "int8" (dynamic quantization),
    /// "int4" (weight-only quantization). NULL selects "fp32".
    pub variants: *const c_char,
    /// Licence of the model, which is stored in the manifest; or NULL.
    pub licence: *const c_char,
    /// Secret ed25519 key that signs the package, as 64 hexadecimal digits; or NULL.
    pub sign_key: *const c_char,
    /// A value other than 0 writes one file instead of a folder, without graphs compiled for this library's kernels.
    pub single_file: u32,
    /// A value other than 0 leaves out graphs that are optimized for this processor.
    pub portable_only: u32,
    /// A value other than 0 stores the weights packed, so that a zero takes one bit. Each variant then has its own
    /// weights, no graph is optimized for this processor, and opening the package unpacks the weights into an unlinked
    /// file.
    pub packed: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Array of `dimension_count` ranges of dimensions, or NULL. A dimension must not have ranges both here and in
    /// `dynamic_shapes`.
    pub dimensions: *const optimize_dimension_t,
    /// Number of ranges in `dimensions`.
    pub dimension_count: u64,
    /// Path of a TensorRT engine of the model, with its manifest next to it, which is added as a variant; or NULL.
    pub engine: *const c_char,
    /// Array of `lineage_count` reports in JSON of the steps that led to the model, oldest first, which the package
    /// keeps; or NULL.
    pub lineage: *const *const c_char,
    /// Number of reports in `lineage`.
    pub lineage_count: u64,
}
// SAFETY: repr(C), two u32, two u64, four pointers that may be NULL, four u32, a pointer, a u64, two pointers, a u64:
// no padding, all zero is valid.
unsafe impl Options for optimize_package_compile_options_t {}

/// Options of `optimize_package_open`. Fields that are 0 or NULL have their defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_package_open_options_t {
    /// sizeof(optimize_package_open_options_t).
    pub struct_size: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Name or precision of the variant to use; NULL selects a variant by processor and execution provider.
    pub variant: *const c_char,
    /// Public ed25519 key that must have signed the package, as 64 hexadecimal digits; or NULL.
    pub public_key: *const c_char,
}
// SAFETY: repr(C), two u32 and two pointers that may be NULL: no padding, all zero is valid.
unsafe impl Options for optimize_package_open_options_t {}

/// Returns a string, or `None` for NULL.
///
/// # Safety
/// The contract is that of [`text`].
unsafe fn text_or_null<'a>(given: *const c_char, name: &str) -> Result<Option<&'a str>> {
    // SAFETY: the contract of this function.
    if given.is_null() { Ok(None) } else { unsafe { text(given, name) }.map(Some) }
}

/// Writes a package of a model at `path`, and replaces an existing package there, atomically where the file system
/// supports it. `report` (may be NULL) receives JSON with the sizes and hashes of the files. Progress stages: those of
/// quantizing, if a variant is quantized, then "package", in bytes. Returns OPTIMIZE_INVALID_ARGUMENT if something
/// other than a package of the same kind (folder or file) exists at `path`, or if ranges contradict the model or each
/// other (the message names input and dimension); OPTIMIZE_NOT_FOUND if the folder of `path` does not exist;
/// OPTIMIZE_MISMATCH if `engine` was built from another model.
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
            out.set_with(|| buffer::new(saved.to_json()));
            Ok(())
        })
    }
}

/// Returns the options that a C struct describes.
///
/// # Safety
/// The texts are NULL or NUL-terminated.
pub(super) unsafe fn convert(given: &optimize_package_compile_options_t) -> Result<CompileOptions> {
    if given.reserved != 0 {
        bail!(InvalidArgument, "reserved is not 0");
    }
    let size = |value: u64, default: i64, name: &str| match i64::try_from(value) {
        Ok(0) => Ok(default),
        Ok(value) => Ok(value),
        Err(_) => bail!(InvalidArgument, "{name} is too large"),
    };
    let defaults = CompileOptions::default();
    // SAFETY: the contract of this function.
    let (engine, asked, variants, licence, key) = unsafe {
        (
            text_or_null(given.engine, "engine")?,
            text_or_null(given.dynamic_shapes, "dynamic_shapes")?,
            text_or_null(given.variants, "variants")?,
            text_or_null(given.licence, "licence")?,
            text_or_null(given.sign_key, "sign_key")?,
        )
    };
    let count = usize::try_from(given.lineage_count).unwrap_or(usize::MAX);
    // SAFETY: the contract of this function.
    let lineage = unsafe { texts(given.lineage, count, "lineage") }?;
    let report = |text: &str| {
        serde_json::from_str(text).map_err(|e| error!(InvalidArgument, "lineage: a text is not a report: {e}"))
    };
    let mut asked = asked.map_or(Ok(defaults.shapes), shapes::parse)?;
    // SAFETY: the contract of this function.
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
        lineage: lineage.into_iter().map(report).collect::<Result<_>>()?,
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
        bail!(LimitExceeded, "dimension_count is {count}; the limit is {}", limits::PACKAGE_RANGES);
    }
    for index in 0..count as usize {
        // SAFETY: the contract of this function. All structs have the same size, which depends on the caller's version.
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

/// Opens a package, which is a folder or a file. This reads and checks the manifest. The other files are memory-mapped,
/// and checked only as far as they are used; `optimize_package_verify` checks every byte. Returns OPTIMIZE_NOT_FOUND if
/// there is no package at `path`, or no variant with the requested name or precision; OPTIMIZE_UNSUPPORTED if the
/// package has a newer format or no variant for this machine; OPTIMIZE_INVALID_MODEL if it is damaged, or not signed by
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
            out.set(handle::new(Package::open(Path::new(path), &open_options(options)?)?));
            Ok(())
        })
    }
}

/// Returns the options that a C struct describes.
///
/// # Safety
/// The contract is that of [`options::read`]; the texts are NULL or NUL-terminated.
pub(super) unsafe fn open_options(options: *const optimize_package_open_options_t) -> Result<OpenOptions> {
    // SAFETY: same contract.
    let given = unsafe { options::read(options) }?;
    if given.reserved != 0 {
        bail!(InvalidArgument, "reserved is not 0");
    }
    // SAFETY: same contract.
    let (variant, key) =
        unsafe { (text_or_null(given.variant, "variant")?, text_or_null(given.public_key, "public_key")?) };
    Ok(OpenOptions { variant: variant.map(str::to_owned), key: key.map(verify::from_hex).transpose()? })
}

/// Writes the model of a package to `model`, for techniques, benchmarks and inspection. Sessions of this model enforce
/// the shape contract. Returns OPTIMIZE_INVALID_MODEL if the model's files are damaged.
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

/// Creates a session of a package. On the CPU, it runs the requested variant, or else the first one that fits this
/// machine; on other providers, it runs the portable graph. Each run first checks the shape contract (types and sizes
/// of inputs), and returns OPTIMIZE_INVALID_ARGUMENT if an input does not fit. The package may be freed before the
/// session. Returns the statuses of `optimize_session_new`.
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
            let make = |call: &Call| package.session(runtime, &options, call);
            out.set(session::new(call::with(call, |call| context.limited(|| make(call)))?));
            Ok(())
        })
    }
}

/// Creates a session of the TensorRT engine in a package, on a device. Each run checks the shape contract first. The
/// package may be freed before the session. Returns OPTIMIZE_NOT_FOUND if the package has no engine;
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

/// Writes the tokenizer of a package to `tokenizer`. Returns OPTIMIZE_NOT_FOUND if the package has none;
/// OPTIMIZE_INVALID_MODEL if it is damaged.
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

/// Creates a generator of the model of a package. The package and the draft model may be freed before the generator.
/// Returns OPTIMIZE_UNSUPPORTED if a model does not generate text; otherwise the statuses of `optimize_generator_new`.
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
            let (session, draft) = (session_options(context, options)?, draft_of(options)?);
            let runtime = context.runtime()?;
            let make = |call: &Call| draft.add(package.generator(runtime, &session, call)?, runtime, &session, call);
            let made = call::with(call, |call| context.limited(|| make(call)))?;
            out.set(generator::new(Box::new(made)));
            Ok(())
        })
    }
}

/// Writes a description of a package as JSON. It includes the variant that is used on this machine, and the reason.
/// Returns OPTIMIZE_UNSUPPORTED if the requested variant cannot run with this ONNX Runtime.
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
/// or the public ed25519 key that must have signed the package, as 64 hexadecimal digits. Progress stage: "verify",
/// in bytes. Returns OPTIMIZE_INVALID_MODEL if a file is damaged or, with a `public_key`, if the signature is missing
/// or of another key; the message says which.
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
