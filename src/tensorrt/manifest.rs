//! The manifest next to an engine, which records its model, target, backend and options, and which is checked before
//! the engine is used.

use super::backend::{Backend, Choice, Library, device};
use super::options::Precision;
use super::shim;
use crate::error::{Context, Kind, Result, bail, error};
use crate::files;
use crate::files::digest::hex;
use crate::limits;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The format version of manifests that this library writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// The content of the manifest of an engine, which is the file `X.engine.json` next to `X.engine` (see [`path_of`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format version; see [`FORMAT`].
    pub format: u32,
    /// Source and target of the engine.
    #[serde(flatten)]
    pub key: Key,
    /// Size of the engine in bytes.
    pub engine_bytes: u64,
    /// SHA-256 of the engine.
    pub engine_sha256: String,
    /// SHA-256 of the ONNX graph that the backend received.
    pub graph_sha256: String,
    /// Error of the precision against fp32, measured before the build, as in the field `error` of the report; `None`
    /// for fp32.
    pub error: Option<Value>,
}

/// The source and target of an engine, and the options of its build. An existing engine with an equal key is reused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// Version of this library.
    pub library_version: String,
    /// SHA-256 of the model.
    pub model_sha256: String,
    /// Backend that built the engine.
    pub backend: Backend,
    /// Version of the backend.
    pub backend_version: String,
    /// Compute capability of the target, for example `89`. For TensorRT-RTX, the requested capabilities, for example
    /// `86,89`, or `none` for an engine that runs on all capabilities that TensorRT-RTX supports.
    pub compute_capability: String,
    /// Precision of the engine; see [`Precision`].
    pub precision: Precision,
    /// Other options that change the engine, by name.
    pub flags: Map<String, Value>,
    /// Optimization profiles, as `Profiles::to_json` writes them.
    pub profiles: Value,
    /// Whether a timing cache was used. Engines built with different caches may differ.
    pub timing_cache: bool,
}

impl Key {
    /// Returns a description of each field that differs, with the value of `other` and of `self`; empty if the keys are
    /// equal.
    pub fn differences(&self, other: &Key) -> Vec<String> {
        let (a, b) = (serde_json::to_value(self), serde_json::to_value(other));
        let (Ok(Value::Object(a)), Ok(Value::Object(b))) = (a, b) else { return vec!["all".to_owned()] };
        let differs = |(name, value): (&String, &Value)| {
            let other = b.get(name).unwrap_or(&Value::Null);
            (value != other).then(|| format!("{name} is {other}, not {value}"))
        };
        a.iter().filter_map(differs).collect()
    }
}

/// Returns the path of the manifest of an engine: the path of the engine followed by `.json`.
pub fn path_of(engine: &Path) -> PathBuf {
    let mut name = engine.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

impl Manifest {
    /// Returns the manifest next to the file `engine`; `None` if there is none. Fails with `InvalidModel` if it is
    /// damaged, with `Unsupported` for a format version newer than [`FORMAT`], and like [`files::read`], except with
    /// `NotFound`.
    pub fn read(engine: &Path) -> Result<Option<Manifest>> {
        let path = path_of(engine);
        let content = match files::read(&path, limits::CONFIG_BYTES) {
            Err(e) if e.kind() == Kind::NotFound => return Ok(None),
            content => content?,
        };
        let damaged = |e: serde_json::Error| {
            error!(InvalidModel, "the file is not the manifest of an engine: {e}").at(path.display())
        };
        let value: Value = serde_json::from_slice(&content).map_err(damaged)?;
        let format = value.get("format").and_then(Value::as_u64).unwrap_or(0);
        if format > u64::from(FORMAT) {
            bail!(
                Unsupported,
                "{}: the manifest has format {format}; this version supports up to {FORMAT}",
                path.display()
            );
        }
        Ok(Some(serde_json::from_value(value).map_err(damaged)?))
    }

    /// Returns the text of the manifest as JSON.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Returns whether the manifest describes the engine with the content `engine`: whether size and SHA-256 are equal.
    pub fn is_of(&self, engine: &[u8]) -> bool {
        self.engine_bytes == engine.len() as u64 && self.engine_sha256 == sha256(engine)
    }
}

/// Returns the SHA-256 of `bytes` in lower-case hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Options for loading an engine.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// SHA-256 of the model that the engine must have been built from; `None` accepts any.
    pub model_sha256: Option<String>,
    /// Whether the caller trusts the author of the engine, which contains code. Default: false, which refuses every
    /// engine.
    pub trust: bool,
    /// Backend that must have built the engine, and that loads it; `Auto` accepts any. It is not checked for an engine
    /// that ONNX Runtime's provider built.
    pub backend: Choice,
    /// Folder of the backend's library; `None` searches for it.
    pub library: Option<PathBuf>,
}

/// Fails with `Mismatch` for a backend, a version or a device that an engine was not built for. The version may differ
/// for a version-compatible engine, and the device for a hardware-compatible engine or one of TensorRT-RTX.
fn check_library(library: &Library, key: &Key) -> Result<()> {
    if library.backend() != key.backend {
        bail!(Mismatch, "the engine is for {}, not {}", key.backend.name(), library.backend().name());
    }
    let compatible = key.flags.get("version_compatible") == Some(&Value::Bool(true));
    if library.version() != key.backend_version && !compatible {
        let (built, here) = (&key.backend_version, library.version());
        bail!(Mismatch, "the engine was built by version {built}; this is {here}");
    }
    let capability = &key.compute_capability;
    if let Ok(device) = device()
        && library.backend() == Backend::TensorRt
        && *capability != device.to_string()
        && key.flags.get("hardware_compatible") != Some(&Value::Bool(true))
    {
        bail!(Mismatch, "the engine was built for compute capability {capability}; this device has {device}");
    }
    Ok(())
}

/// Returns the manifest of an engine after checking whether the engine may be used on this machine: that it is trusted
/// and intact, and that model, backend, version and device match. The version may differ for a version-compatible
/// engine, and the device for a hardware-compatible engine or one of TensorRT-RTX.
///
/// The backend's library also reads the engine; TensorRT-RTX reads only its header on a machine without a GPU. For an
/// engine that ONNX Runtime's provider built, only trust, content, model and device are checked.
///
/// Fails with `Untrusted` if the engine is not trusted or has no manifest, and with `InvalidModel` if the file differs
/// from its manifest or is not an engine. Fails with `Mismatch` for another model, backend, version or device; the
/// message names the difference. Fails with `DeviceMissing` or `Backend` if the library cannot read the engine. Also
/// fails like [`files::open`], [`Manifest::read`], [`Library::open`] and [`device`].
pub fn open(engine: &Path, options: &OpenOptions) -> Result<Manifest> {
    let place = || engine.display().to_string();
    let file = files::open(engine)?;
    let bytes = files::map(&file, limits::DATA_FILE_BYTES).at(place)?;
    let Some(manifest) = Manifest::read(engine)? else {
        bail!(Untrusted, "{}: the engine has no manifest ({})", place(), path_of(engine).display());
    };
    if !options.trust {
        bail!(Untrusted, "{}: an engine is code that TensorRT runs: trust its source, or build it here", place());
    }
    if !manifest.is_of(&bytes) {
        bail!(InvalidModel, "{}: the engine does not match its manifest (SHA-256 differs)", place());
    }
    if let Some(model) = options.model_sha256.as_ref().filter(|model| **model != manifest.key.model_sha256) {
        bail!(
            Mismatch,
            "{}: the engine belongs to another model: SHA-256 {}, not {model}",
            place(),
            manifest.key.model_sha256
        );
    }
    if manifest.key.backend == Backend::OnnxRuntime {
        let (built, here) = (&manifest.key.compute_capability, device()?);
        if *built != here.to_string() {
            bail!(Mismatch, "{}: the engine was built for compute capability {built}; this device has {here}", place());
        }
        // ONNX Runtime reads the content and knows its version.
        return Ok(manifest);
    }
    let choice = match options.backend {
        Choice::Auto => Choice::from(manifest.key.backend),
        asked => asked,
    };
    let library = Library::open(choice, options.library.as_deref())?;
    check_library(&library, &manifest.key).at(place)?;
    match shim::check(&library, &bytes) {
        // The header has been read; the rest requires a device.
        Err(e) if e.kind() == Kind::DeviceMissing && library.backend() == Backend::TensorRtRtx => Ok(manifest),
        Err(e) => Err(e.at(place())),
        Ok(()) => Ok(manifest),
    }
}
