//! The use of this library's CPU kernels in its own sessions. The module finds `liboptimize.so` and registers it with
//! ONNX Runtime, once per process, as the execution provider that `docs/provider.md` describes.

use super::library::{self, Runtime};
use super::options::OptimizationLevel;
use super::{Provider, ProviderChoice, SessionOptions, register};
use crate::choice::choice;
use crate::error::{Result, bail, error};
use ort::AsPointer;
use ort::device::Device;
use ort::session::builder::SessionBuilder;
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;

choice! {
    /// The kernels that run the nodes of a model on the CPU.
    pub enum Kernels: optimize_kernels_t = Auto {
        /// This library's kernels for groups of nodes that are faster with them, ONNX Runtime's for the other nodes.
        /// With the environment variable `OPTIMIZE_KERNELS=stock`, sessions of precision fp32 use ONNX Runtime's only.
        Auto = 0, "auto";
        /// Only ONNX Runtime's kernels, as in a program without this library.
        Stock = 1, "stock";
    }
}

choice! {
    /// The precision in which products of float32 inputs and constant float32 weights are computed on the CPU.
    pub enum SessionPrecision: optimize_session_precision_t = Fp32 {
        /// float32 weights and inputs.
        Fp32 = 0, "fp32";
        /// bfloat16 weights and inputs, with sums in float32: half the memory of weights, and faster with few rows
        /// (with AMX also with many).
        Bf16 = 1, "bf16";
        /// int8 weights with a scale for each output column, and int8 inputs with a scale for each row, which is
        /// computed at run time.
        Int8 = 2, "int8";
    }
}

impl SessionPrecision {
    /// Returns whether the precision is [`SessionPrecision::Fp32`].
    pub(super) fn is_fp32(&self) -> bool {
        *self == SessionPrecision::Fp32
    }
}

/// The name of the execution provider in ONNX Runtime.
pub(super) const NAME: &str = "OptimizeExecutionProvider";
/// The name under which the library is registered. By this name, the provider recognizes the sessions of this library:
/// it is not selected for sessions of other parts of the program.
pub(crate) const REGISTRATION: &str = "liboptimize for its own sessions";
/// The name of the execution provider in [`Placement::nodes`](super::Placement::nodes).
pub(super) const SHORT_NAME: &str = "optimize";
/// The file names of the shared library, in the order in which they are searched for.
const FILES: [&str; 2] = [env!("OPTIMIZE_SONAME"), "liboptimize.so"];

/// The environment variable that makes `auto` mean `stock`, if its value is `stock`.
const VARIABLE: &str = "OPTIMIZE_KERNELS";

/// Returns whether a session with these options uses this library's kernels.
///
/// Options that request another optimization level, or a file of the optimized graph, are meant for ONNX Runtime's own
/// kernels. A graph that is optimized `ahead` of time uses ONNX Runtime's kernels, too, unless another precision than
/// fp32 is requested: its weights are read where they are mapped, which execution providers cannot do.
pub(super) fn wanted(options: &SessionOptions, provider: Provider, ahead: bool) -> bool {
    let form = match ahead {
        true => !options.execution.precision.is_fp32(),
        false => options.optimization_level == OptimizationLevel::All,
    };
    provider == Provider::Cpu && form && options.optimized_model.is_none() && allowed(options)
}

fn allowed(options: &SessionOptions) -> bool {
    options.execution.kernels == Kernels::Auto && !(options.execution.precision.is_fp32() && auto_means_stock())
}

/// Returns whether the environment variable makes `auto` mean `stock`.
pub(crate) fn auto_means_stock() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|value| value == Kernels::Stock.name())
}

/// Returns the entry of the session configuration with the path of a compiled model's graph. Fails with
/// `InvalidArgument` if the path is not UTF-8.
pub(super) fn context_path(path: &Path) -> Result<(String, String)> {
    let Some(text) = path.to_str() else { bail!(InvalidArgument, "the path {:?} is not UTF-8", path.display()) };
    Ok(("ep.context_file_path".to_owned(), text.to_owned()))
}

/// Returns `Ok` if sessions with these options can use this library's kernels; otherwise the reason why they cannot.
pub(crate) fn usable(runtime: &'static Runtime, options: &SessionOptions) -> std::result::Result<(), String> {
    if !allowed(options) {
        return Err("sessions use ONNX Runtime's kernels only".to_owned());
    }
    registered(runtime)
}

/// Adds the execution provider of this library to a session builder, and returns the builder. Fails with
/// `BackendMissing` if the provider cannot be used.
pub(super) fn add(
    builder: SessionBuilder,
    runtime: &'static Runtime,
    options: &SessionOptions,
) -> Result<SessionBuilder> {
    let missing = |reason: &str| error!(BackendMissing, "this library's kernels: {reason}");
    registered(runtime).map_err(|reason| missing(&reason))?;
    let devices = devices(runtime, |name| *name == NAME).take(1);
    let mut entries = vec![(format!("{NAME}.threads"), options.thread_count().to_string())];
    entries.push((format!("{NAME}.precision"), options.execution.precision.name().to_owned()));
    // With `auto`, the provider options are meant for a device.
    let is_for_cpu = options.execution.provider == ProviderChoice::Cpu;
    let given = options.execution.provider_options.iter().filter(|_| is_for_cpu);
    entries.extend(given.map(|(name, value)| (format!("{NAME}.{name}"), value.clone())));
    let told = |e: ort::Error<SessionBuilder>| missing(e.message().trim_end());
    let builder = builder.with_config_entry(register::RECORD.0, register::RECORD.1).map_err(told)?;
    builder.with_devices(devices, Some(&entries)).map_err(told)
}

/// Restricts a session builder to ONNX Runtime's CPU provider, and returns the builder. Without this, ONNX Runtime
/// could select any execution provider that the program has registered.
pub(super) fn leave_out(builder: SessionBuilder, runtime: &'static Runtime) -> Result<SessionBuilder> {
    const BUILT_IN: [&str; 2] = ["CPUExecutionProvider", "AzureExecutionProvider"];
    if devices(runtime, |name| !BUILT_IN.contains(name)).next().is_none() {
        return Ok(builder);
    }
    Ok(builder.with_devices(devices(runtime, |name| *name == BUILT_IN[0]).take(1), None)?)
}

/// Returns the devices whose execution provider has a name that `wanted` accepts.
fn devices(runtime: &Runtime, wanted: fn(&&str) -> bool) -> impl Iterator<Item = Device<'_>> {
    runtime.environment().devices().filter(move |device| device.ep().is_ok_and(|name| wanted(&name)))
}

/// Registers the execution provider of this library with ONNX Runtime. This happens once per process; later calls
/// return the same result. The error is the reason why the provider cannot be used.
pub(crate) fn registered(runtime: &'static Runtime) -> std::result::Result<(), String> {
    static REGISTERED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    REGISTERED.get_or_init(|| register(runtime)).clone()
}

fn register(runtime: &Runtime) -> std::result::Result<(), String> {
    // A program may have registered the library itself.
    if offered(runtime).is_none() {
        let path = library_path()?;
        let registered = runtime.environment().register_ep_library(REGISTRATION, &path);
        registered.map_err(|e| format!("{}: {}", path.display(), e.message().trim_end()))?;
    }
    let ours = env!("CARGO_PKG_VERSION");
    match offered(runtime) {
        None => Err("there are no kernels for this processor".to_owned()),
        Some(version) if version != ours => {
            Err(format!("the library with the kernels has version {version}, this one {ours}"))
        }
        Some(_) => Ok(()),
    }
}

/// Returns the version of the registered execution provider, empty if it does not say; `None` if none is registered or
/// it has no kernels for this processor.
fn offered(runtime: &Runtime) -> Option<String> {
    let device = devices(runtime, |name| *name == NAME).next()?;
    let api = ort::api();
    // SAFETY: the device belongs to the environment, which lives as long as the process; the table of metadata belongs
    // to the device, and a value to the table.
    let version = unsafe {
        let metadata = (api.EpDevice_EpMetadata)(device.ptr());
        let value = if metadata.is_null() { ptr::null() } else { (api.GetKeyValue)(metadata, c"version".as_ptr()) };
        if value.is_null() { String::new() } else { CStr::from_ptr(value).to_string_lossy().into_owned() }
    };
    Some(version)
}

/// Returns the absolute path of the shared library: the file that contains this code or, if that is the program itself,
/// a library next to it ([`library::folders`]). ONNX Runtime would resolve a relative path against its own folder. The
/// error says where the library was searched for.
fn library_path() -> std::result::Result<PathBuf, String> {
    let program = std::env::current_exe().and_then(std::fs::canonicalize).ok();
    let ours = library::file_of(library_path as *const std::ffi::c_void).and_then(|file| file.canonicalize().ok());
    if let Some(file) = ours.filter(|file| Some(file) != program.as_ref()) {
        return Ok(file);
    }
    let places = library::folders();
    let found = places.iter().flat_map(|folder| FILES.map(|name| folder.join(name))).find(|file| file.is_file());
    let list = |places: &[PathBuf]| places.iter().map(|p: &PathBuf| p.display().to_string()).collect::<Vec<_>>();
    let absolute = |file: PathBuf| std::path::absolute(&file).unwrap_or(file);
    found.map(absolute).ok_or_else(|| format!("{} was not found in {}", FILES[0], list(&places).join(", ")))
}
