//! What is written beside an engine: of what, for what and with what it was made. Looked at before it is used again.

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

/// Version of the manifest that is written, and the newest that is read.
pub const FORMAT: u32 = 1;

/// The content of `X.engine.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// See [`FORMAT`].
    pub format: u32,
    /// Everything that makes an engine another one.
    #[serde(flatten)]
    pub key: Key,
    /// Bytes of the engine.
    pub engine_bytes: u64,
    /// SHA-256 of the engine.
    pub engine_sha256: String,
    /// SHA-256 of the graph that the library was given.
    pub graph_sha256: String,
    /// Error against fp32 that was measured before the build.
    pub error: Option<Value>,
}

/// What an engine is made of and for: equal keys, equal engines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// Of this library.
    pub library_version: String,
    /// SHA-256 of the model.
    pub model_sha256: String,
    /// What built it.
    pub backend: Backend,
    /// Its version.
    pub backend_version: String,
    /// Of the device it was built for: `89`, a list, or `none` if it was built without one for all.
    pub compute_capability: String,
    /// See [`Precision`].
    pub precision: Precision,
    /// Options that make the engine another one.
    pub flags: Map<String, Value>,
    /// As `Profiles::to_json` writes them.
    pub profiles: Value,
    /// Whether a timing cache was used: engines may differ by it.
    pub timing_cache: bool,
}

impl Key {
    /// What differs, in words; empty if nothing does.
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

/// Where the manifest of an engine is.
pub fn path_of(engine: &Path) -> PathBuf {
    let mut name = engine.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

impl Manifest {
    /// Reads the manifest of an engine; `None` if there is none.
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

    /// The text of the manifest.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Whether the file is the engine that the manifest is about.
    pub fn is_of(&self, engine: &[u8]) -> bool {
        self.engine_bytes == engine.len() as u64 && self.engine_sha256 == sha256(engine)
    }
}

/// In lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// How an engine is looked at.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// SHA-256 of the model that it must be of; `None` for any.
    pub model_sha256: Option<String>,
    /// An engine is code: whoever opens one says that its maker is trusted.
    pub trust: bool,
    /// Which library reads it; its own is taken for `Auto`.
    pub backend: Choice,
    /// Folder of the library.
    pub library: Option<PathBuf>,
}

/// Looks whether an engine may be used here: trusted, whole, of that model, for that library and device.
///
/// `Untrusted` without trust or a manifest, `InvalidModel` for a file that is not the one its manifest is about or no
/// engine at all, `Mismatch` for one of another model, version or device; the message says which. With a device, or
/// TensorRT-RTX, the library reads it too.
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
        // What is inside, ONNX Runtime reads, and knows its version.
        return Ok(manifest);
    }
    let choice = match options.backend {
        Choice::Auto => Choice::from(manifest.key.backend),
        asked => asked,
    };
    let library = Library::open(choice, options.library.as_deref())?;
    if library.backend() != manifest.key.backend {
        bail!(
            Mismatch,
            "{}: the engine is for {}, not {}",
            place(),
            manifest.key.backend.name(),
            library.backend().name()
        );
    }
    let compatible = manifest.key.flags.get("version_compatible") == Some(&Value::Bool(true));
    if library.version() != manifest.key.backend_version && !compatible {
        let (built, here) = (&manifest.key.backend_version, library.version());
        bail!(Mismatch, "{}: the engine was built by version {built}; this is {here}", place());
    }
    let capability = &manifest.key.compute_capability;
    if let Ok(device) = device()
        && library.backend() == Backend::TensorRt
        && *capability != device.to_string()
        && manifest.key.flags.get("hardware_compatible") != Some(&Value::Bool(true))
    {
        bail!(
            Mismatch,
            "{}: the engine was built for compute capability {capability}; this device has {device}",
            place()
        );
    }
    match shim::check(&library, &bytes) {
        // The beginning has been read; the rest takes a device.
        Err(e) if e.kind() == Kind::DeviceMissing && library.backend() == Backend::TensorRtRtx => Ok(manifest),
        Err(e) => Err(e.at(place())),
        Ok(()) => Ok(manifest),
    }
}
