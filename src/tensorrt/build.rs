//! The build of an engine file and its manifest from a model.

use super::backend::{Backend, Choice, Library, device};
use super::manifest::{self, FORMAT, Key, Manifest};
use super::options::{Precision, TensorRtOptions};
use super::precision::{self, Lowered};
use super::profile::Profiles;
use super::sparsity::{self, Counted};
use super::{EngineFile, context, portable, quantized, unranked, work};
use crate::call::Call;
use crate::error::{Context, Error, Kind, Result, bail, error};
use crate::files::digest::FileIdentity;
use crate::files::{self, ScratchFolder};
use crate::limits;
use crate::model::{Model, names};
use crate::onnx::proto::ModelProto;
use crate::onnx::save::{self, ExternalData};
use crate::report::{NodeReport, Report};
use crate::runtime::Runtime;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Bits of TensorRT's `BuilderFlag`, which are the same in both sets of headers.
mod flag {
    pub const REFIT: u32 = 1 << 4;
    pub const TF32: u32 = 1 << 6;
    pub const SPARSE_WEIGHTS: u32 = 1 << 7;
    pub const VERSION_COMPATIBLE: u32 = 1 << 12;
    pub const STRIP_PLAN: u32 = 1 << 18;
}

/// Builds an engine of `model`, and returns a report. `output` is a file with the extension of an engine (see
/// [`EngineFile::is_one`]), or a folder that receives `model.engine`; the manifest has the name of the engine followed
/// by `.json`. For ONNX Runtime's provider, `output` is a file `X.onnx`, or a folder that receives `model_ctx.onnx`.
///
/// An existing engine is kept if its manifest has the same model, backend, device, options and version of this library,
/// unless `force` is set. The report says whether it was `reused`. `runtime` is needed for ONNX Runtime's provider, for
/// precisions other than fp32, whose error is measured before the build, and for lowering some operators. Progress
/// stages: `hash`, then `calibrate` for int8 and fp8 (in runs), `precision` (in measurements) and `build` (in steps of
/// the library).
///
/// Fails with:
///
/// - `BackendMissing`, `DeviceMissing` and `Unsupported` like [`Library::open`];
/// - `InvalidArgument` for options out of range, if the size of an input varies and no option sets it, and without
///   `runtime` if the precision or the backend needs it;
/// - `NotFound` for an input that the model does not have, a calibration file that does not exist, and a calibration
///   text if the model has no tokenizer;
/// - `Unsupported` for operators that cannot be lowered, also for lack of `runtime` (the message names them), or that
///   the library rejects, and if no node can use the precision;
/// - `Runtime` if ONNX Runtime cannot run the model for the measurements;
/// - `GateNotMet` if the error stays above the limit;
/// - `Backend` or `LimitExceeded` if the library fails or memory is exhausted;
/// - `Mismatch` if a different engine exists and must not be replaced;
/// - `Io` if files cannot be written, and `Cancelled` or `Timeout` if `call` ends the build.
pub fn build(
    runtime: Option<&'static Runtime>,
    model: &Model,
    output: &Path,
    options: &TensorRtOptions,
    call: &Call,
) -> Result<Report> {
    let start = Instant::now();
    options.check()?;
    let builder = Builder::open(runtime, options)?;
    let profiles = Profiles::new(model, options)?;
    let engine = target(output, builder.backend())?;
    let identity = model.identity(call)?;
    let key = key(&builder, &identity, &profiles, options)?;
    let mut report = Report::of_technique("tensorrt", options, &["precision"]);
    let summary = &mut report.summary;
    summary.insert("backend".into(), builder.backend().name().into());
    summary.insert("backend_version".into(), builder.version().into());
    summary.insert("backend_reason".into(), builder.reason().into());
    summary.insert("backend_library".into(), builder.path().display().to_string().into());
    summary.insert("compute_capability".into(), key.compute_capability.clone().into());
    summary.insert("precision".into(), options.precision.name().into());
    summary.insert("profiles".into(), profiles.to_json());
    summary.insert("bytes_before".into(), identity.bytes.into());
    report.input = Some(identity);
    let (why, kept) = reusable(&engine, &key, options)?;
    report.summary.insert("reused".into(), kept.is_some().into());
    report.summary.insert("reason".into(), why.into());
    let manifest = match kept {
        Some(manifest) => manifest,
        None => make(runtime, model, &engine, key, builder, &profiles, options, &mut report, call)?,
    };
    report.summary.insert("error".into(), manifest.error.clone().unwrap_or(Value::Null));
    report.summary.insert("bytes_after".into(), manifest.engine_bytes.into());
    report.summary.insert("manifest".into(), manifest::path_of(&engine).display().to_string().into());
    report.output = Some(FileIdentity {
        path: Some(engine.display().to_string()),
        bytes: manifest.engine_bytes,
        sha256: manifest.engine_sha256,
    });
    report.finish(start);
    Ok(report)
}

/// Returns the graph that the backend would receive, and a report, without building an engine: the graph is lowered to
/// the operators that the backend's parser supports, in the requested precision. Its inputs and outputs are those of
/// `model`. No backend is needed, and `runtime` only where [`build`] needs it for the graph. Fails like [`build`] for
/// the options and the graph. Unless the options have profiles, sizes that no option sets are not an error.
pub fn graph(
    runtime: Option<&'static Runtime>,
    model: &Model,
    options: &TensorRtOptions,
    call: &Call,
) -> Result<(Model, Report)> {
    let start = Instant::now();
    options.check()?;
    let mut report = Report::of_technique("tensorrt", options, &["precision"]);
    report.summary.insert("precision".into(), options.precision.name().into());
    let profiles = match Profiles::new(model, options) {
        Ok(profiles) => profiles,
        // The graph is the same for all sizes; without given sizes, the sample uses its own.
        Err(e) if e.kind() == Kind::InvalidArgument && options.profiles.is_empty() => Profiles::default(),
        Err(e) => return Err(e),
    };
    let proto = lowered(runtime, model, &profiles, options, &mut report, call)?;
    let result = model.derive(proto);
    report.sizes(model.bytes(), result.bytes());
    report.finish(start);
    Ok((result, report))
}

fn lowered(
    runtime: Option<&'static Runtime>,
    model: &Model,
    profiles: &Profiles,
    options: &TensorRtOptions,
    report: &mut Report,
    call: &Call,
) -> Result<ModelProto> {
    let (mut proto, lowered) = portable::lower(runtime, model, call)?;
    // The parser treats dimensions with equal names as equal sizes, even where an exporter gave the names at random.
    names::clear(&mut proto);
    report.summary.insert("nodes_lowered".into(), lowered.into());
    if options.sparsity {
        let Counted { weights, with_pattern } = sparsity::count(&proto);
        report.summary.insert("weights_2_4".into(), json!({ "weights": weights, "with_pattern": with_pattern }));
    }
    if options.precision.is_quantized() {
        quantized::raise(&mut proto, options.precision)?;
    }
    if options.precision == Precision::Fp32 {
        return Ok(proto);
    }
    let Some(runtime) = runtime else {
        bail!(InvalidArgument, "{} needs ONNX Runtime, to measure its error", options.precision.name());
    };
    let plain = model.derive(proto);
    let Lowered { proto, nodes, error } = precision::lower(runtime, &plain, &profiles.usual(), options, call)?;
    let low = nodes.iter().filter(|node| node.action == precision::LOWERED).count();
    report.summary.insert("nodes_lower_precision".into(), low.into());
    report.summary.insert("nodes_fp32".into(), (nodes.len() - low).into());
    report.summary.insert("nodes_back_to_fp32".into(), back(&nodes));
    report.summary.insert("error".into(), error);
    report.nodes = nodes;
    Ok(proto)
}

fn back(nodes: &[NodeReport]) -> Value {
    nodes.iter().filter(|n| n.reason.starts_with(precision::BACK)).map(|n| Value::from(n.name.clone())).collect()
}

#[allow(clippy::too_many_arguments)]
fn make(
    runtime: Option<&'static Runtime>,
    model: &Model,
    engine: &Path,
    key: Key,
    builder: Builder,
    profiles: &Profiles,
    options: &TensorRtOptions,
    report: &mut Report,
    call: &Call,
) -> Result<Manifest> {
    let proto = lowered(runtime, model, profiles, options, report, call)?;
    let library = match builder {
        Builder::Library(library) => library,
        Builder::Runtime(runtime, _) => {
            let made = context::make(runtime, proto, engine, profiles, options, key, call)?;
            return Ok(Manifest { error: report.summary.get("error").cloned(), ..made });
        }
    };
    let parsed = Parsed::new(proto, engine, options.by_file, call)?;
    let graph_sha256 = parsed.sha256.clone();
    let job = job(library, &parsed, profiles, options)?;
    let started = Instant::now();
    let (built, _) = work::run(job, call).map_err(|e| unranked::explained(runtime, model, e))?;
    report.summary.insert("build_seconds".into(), started.elapsed().as_secs_f64().into());
    let manifest = Manifest {
        format: FORMAT,
        key,
        engine_bytes: built.engine.len() as u64,
        engine_sha256: manifest::sha256(&built.engine),
        graph_sha256,
        error: report.summary.get("error").cloned(),
    };
    // The old manifest is removed first: an engine must never be next to the manifest of another engine.
    let beside = manifest::path_of(engine);
    match std::fs::remove_file(&beside) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).at(|| beside.display().to_string()),
        _ => files::replace(engine, &built.engine)?,
    }
    files::replace(&beside, manifest.to_json().as_bytes())?;
    if let Some(path) = options.timing_cache.as_ref().filter(|_| !built.timing.is_empty()) {
        files::replace(path, &built.timing)?;
    }
    Ok(manifest)
}

/// Returns the parameters of a build, with the content of the timing cache. Fails if the cache cannot be read.
fn job(library: Library, parsed: &Parsed, profiles: &Profiles, options: &TensorRtOptions) -> Result<work::Job> {
    let timing = match &options.timing_cache {
        None => None,
        Some(path) => Some(match files::read(path, limits::DATA_FILE_BYTES) {
            Err(e) if e.kind() == Kind::NotFound => Bytes::new(),
            content => Bytes::from(content?),
        }),
    };
    Ok(work::Job {
        library,
        model: parsed.bytes.clone(),
        file: parsed.file.as_ref().map(|(path, _)| path.clone()),
        inputs: profiles.inputs.clone(),
        profiles: profiles.shapes.clone(),
        values: profiles.values.clone(),
        flags: flags(options),
        optimization_level: options.optimization_level.unwrap_or(-1),
        hardware_compatibility: i32::from(options.hardware_compatible),
        verbosity: if options.detailed { 2 } else { 0 },
        workspace: options.workspace,
        capabilities: options.compute_capabilities.clone(),
        timing,
    })
}

/// A graph as the backend's parser reads it: encoded in memory or, above protobuf's limit of 2 GiB, a file with
/// external weights in a temporary folder that is removed after the build.
struct Parsed {
    bytes: Bytes,
    /// Path of the file, and its folder.
    file: Option<(PathBuf, ScratchFolder)>,
    sha256: String,
}

impl Parsed {
    fn new(proto: ModelProto, engine: &Path, by_file: bool, call: &Call) -> Result<Parsed> {
        let segments = save::encode(&proto);
        let size: u64 = segments.iter().map(|s| s.len() as u64).sum();
        if size <= limits::MODEL_PROTO_BYTES && !by_file {
            let mut all = Vec::with_capacity(size as usize);
            segments.iter().for_each(|segment| all.extend_from_slice(segment));
            let sha256 = manifest::sha256(&all);
            return Ok(Parsed { bytes: all.into(), file: None, sha256 });
        }
        drop(segments);
        let folder = ScratchFolder::beside(&std::path::absolute(engine)?)?;
        let path = folder.path().join("model.onnx");
        let saved = Model::from_proto(proto).save(&path, ExternalData::Always, call)?;
        Ok(Parsed { bytes: Bytes::new(), file: Some((path, folder)), sha256: saved.identity().sha256 })
    }
}

fn target(output: &Path, backend: Backend) -> Result<PathBuf> {
    if output.as_os_str().is_empty() {
        bail!(InvalidArgument, "the path of the engine is empty");
    }
    let is_model = output.extension().is_some_and(|e| e == "onnx") && !output.is_dir();
    let (is_one, name) = match backend {
        Backend::OnnxRuntime => (is_model, "model_ctx.onnx"),
        _ => (EngineFile::is_one(output), "model.engine"),
    };
    if is_one {
        return Ok(output.to_owned());
    }
    std::fs::create_dir_all(output).at(|| output.display())?;
    Ok(output.join(name))
}

fn flags(options: &TensorRtOptions) -> u32 {
    let set = |on: bool, bit: u32| if on { bit } else { 0 };
    set(options.refit, flag::REFIT)
        | set(!options.no_tf32, flag::TF32)
        | set(options.sparsity, flag::SPARSE_WEIGHTS)
        | set(options.version_compatible, flag::VERSION_COMPATIBLE)
        | set(options.strip, flag::STRIP_PLAN)
}

/// The backend that builds the engine.
enum Builder {
    Library(Library),
    /// ONNX Runtime's provider, and the reason for choosing it.
    Runtime(&'static Runtime, String),
}

impl Builder {
    fn open(runtime: Option<&'static Runtime>, options: &TensorRtOptions) -> Result<Builder> {
        let library = || Library::open(options.backend, options.library.as_deref()).map(Builder::Library);
        let missing = || error!(InvalidArgument, "ONNX Runtime's provider was requested, but ONNX Runtime is not open");
        match options.backend {
            Choice::OnnxRuntime => {
                let runtime = runtime.ok_or_else(missing)?;
                context::starts(runtime)?;
                Ok(Builder::Runtime(runtime, "it was requested".to_owned()))
            }
            Choice::Auto => {
                library().or_else(|first| match runtime.map(|runtime| (runtime, context::starts(runtime))) {
                    Some((runtime, Ok(()))) => {
                        let why = first.message().lines().next().unwrap_or("").to_owned();
                        Ok(Builder::Runtime(runtime, format!("neither TensorRT nor TensorRT-RTX can be used: {why}")))
                    }
                    Some((_, Err(last))) => Err(Error::new(first.kind(), format!("{}\n{last}", first.message()))),
                    None => Err(first),
                })
            }
            _ => library(),
        }
    }

    fn backend(&self) -> Backend {
        match self {
            Builder::Library(library) => library.backend(),
            Builder::Runtime(..) => Backend::OnnxRuntime,
        }
    }

    fn version(&self) -> &str {
        match self {
            Builder::Library(library) => library.version(),
            Builder::Runtime(runtime, _) => runtime.version(),
        }
    }

    fn reason(&self) -> &str {
        match self {
            Builder::Library(library) => library.reason(),
            Builder::Runtime(_, reason) => reason,
        }
    }

    fn path(&self) -> &Path {
        match self {
            Builder::Library(library) => library.path(),
            Builder::Runtime(runtime, _) => runtime.path(),
        }
    }
}

fn key(library: &Builder, identity: &FileIdentity, profiles: &Profiles, options: &TensorRtOptions) -> Result<Key> {
    let calibration = match (&options.calibration, &options.calibration_text) {
        (_, Some(text)) => Some(manifest::sha256(text.as_bytes())),
        (Some(file), None) => Some(manifest::sha256(&files::read(file, limits::DATA_FILE_BYTES)?)),
        (None, None) => None,
    };
    let compute_capability = match (library.backend(), options.compute_capabilities.as_slice()) {
        (Backend::TensorRtRtx, []) => "none".to_owned(),
        (Backend::TensorRtRtx, many) => many.iter().map(i32::to_string).collect::<Vec<_>>().join(","),
        (Backend::OnnxRuntime, _) => context::capability()?.to_string(),
        (Backend::TensorRt, _) => device().map_or_else(|_| "none".to_owned(), |device| device.to_string()),
    };
    let mut flags = Map::new();
    let values = [
        ("workspace", json!(options.workspace)),
        ("optimization_level", json!(options.optimization_level)),
        ("version_compatible", json!(options.version_compatible)),
        ("hardware_compatible", json!(options.hardware_compatible)),
        ("strip", json!(options.strip)),
        ("refit", json!(options.refit)),
        ("sparsity", json!(options.sparsity)),
        ("detailed", json!(options.detailed)),
        ("no_tf32", json!(options.no_tf32)),
        ("max_error", json!(options.error_allowed())),
        ("keep_fp32", json!(options.keep_fp32)),
        ("calibration", json!(calibration)),
    ];
    flags.extend(values.map(|(name, value)| (name.to_owned(), value)));
    Ok(Key {
        library_version: env!("CARGO_PKG_VERSION").to_owned(),
        model_sha256: identity.sha256.clone(),
        backend: library.backend(),
        backend_version: library.version().to_owned(),
        compute_capability,
        precision: options.precision,
        flags,
        profiles: profiles.to_json(),
        timing_cache: options.timing_cache.is_some(),
    })
}

/// Returns the reason why an engine is built or reused and, if it is reused, the manifest of the existing engine. Fails
/// with `Mismatch` if an existing engine does not match, `refuse_mismatch` is set and `force` is not.
fn reusable(engine: &Path, key: &Key, options: &TensorRtOptions) -> Result<(String, Option<Manifest>)> {
    if !engine.exists() {
        return Ok(("there was no engine".to_owned(), None));
    }
    let why = match Manifest::read(engine) {
        _ if options.force => return Ok(("a new one was requested".to_owned(), None)),
        Err(e) => format!("the manifest cannot be read: {e}"),
        Ok(None) => "the existing engine has no manifest".to_owned(),
        Ok(Some(manifest)) => match key.differences(&manifest.key).as_slice() {
            [] => {
                let bytes = files::map(&files::open(engine)?, limits::DATA_FILE_BYTES).at(|| engine.display())?;
                if manifest.is_of(&bytes) {
                    return Ok(("model, library, device and options match the manifest".to_owned(), Some(manifest)));
                }
                "the existing engine does not match its manifest".to_owned()
            }
            differences => format!("the existing engine differs: {}", differences.join("; ")),
        },
    };
    if options.refuse_mismatch {
        bail!(Mismatch, "{}: {why}", engine.display());
    }
    Ok((why, None))
}

/// Saves the result of [`graph`] at `path`, with the weights in a separate file if they are too large for one, and
/// returns the identity of the file. Fails with [`Kind::Io`] if the files cannot be written.
pub fn save_graph(model: &Model, path: &Path, call: &Call) -> Result<FileIdentity> {
    Ok(model.save(path, ExternalData::Auto, call)?.identity())
}
