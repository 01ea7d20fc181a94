//! The manifests of a package: `optimize.json` and, next to it, `manifest.json` in ONNX Runtime's package layout.

use super::check::Check;
use crate::error::{Result, bail, error};
use crate::model::Card;
use crate::model::ValueInfo;
use crate::model::contract::Contract;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The package format version that this library writes, and the newest that it reads. Older versions stay readable.
pub const FORMAT: u32 = 1;
/// The name of the file with the manifest.
pub const OURS: &str = "optimize.json";
/// The name of the file with the SHA-256 of the manifest, in the format of `sha256sum`.
pub const SEAL: &str = "optimize.json.sha256";
/// The name of the file with the signature of the manifest.
pub const SIGNATURE: &str = "optimize.json.sig";
/// The name of the file with the manifest in ONNX Runtime's package layout.
pub const THEIRS: &str = "manifest.json";
/// The path in the package of the weights of its graphs; compiled and packed variants and engines have weights of
/// their own.
pub const WEIGHTS: &str = "shared/weights.safetensors";
/// The name that graphs use for the weights file.
pub const LOCATION: &str = "weights.safetensors";
/// The name of the folder with the model's other files, such as its tokenizer.
pub const ASSETS: &str = "assets";

/// The content of `optimize.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// Format version; see [`FORMAT`].
    pub format: u32,
    /// Version of the library that wrote the package.
    pub library_version: String,
    /// Version of ONNX Runtime with which the package was written.
    pub runtime_version: String,
    /// Oldest 1.x version of ONNX Runtime that can run the package.
    pub runtime_minimum: String,
    /// Inputs as readable text, for example `input_ids: int64[batch, sequence]`.
    pub inputs: Vec<String>,
    /// Outputs as readable text, in the format of `inputs`.
    pub outputs: Vec<String>,
    /// Shapes of inputs that runs accept.
    pub shapes: Contract,
    /// Other known facts about the model.
    pub card: Card,
    /// Way in which a decoder with a KV cache extends it: `in-place` (`GroupQueryAttention`) or `concatenated`; `None`
    /// for other models.
    pub kv_scheme: Option<String>,
    /// Graphs of the package, best first.
    pub variants: Vec<Variant>,
    /// Licence of the model, as its authors name it; `None` if none was given.
    pub licence: Option<String>,
    /// Warnings about requests that were not fully met, for example a graph optimized ahead of time that was omitted
    /// because its results differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Reports of the techniques that were applied to the model, oldest first.
    pub lineage: Vec<Value>,
    /// Sizes and hashes of all files except the manifest, its SHA-256 and its signature, by path in the package.
    pub files: BTreeMap<String, FileOf>,
}

/// A graph of a package.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Variant {
    /// Name of the variant and of its folder, for example `fp32`, `fp32-ahead` or `int8-compiled`.
    pub name: String,
    /// Precision of the graph: `fp32` (the original model), `bf16`, `int8` or `int4`; for an engine, the precision that
    /// it was built with, for example `fp16`.
    pub precision: String,
    /// Whether the graph was prepared for one kind of processor or device, as are optimized and compiled graphs and
    /// engines. Other graphs are portable.
    pub ahead: bool,
    /// Path of the graph or engine in the package.
    pub file: String,
    /// Execution provider that runs the graph: `cpu`, `optimize` (this library's kernels) or `tensorrt`.
    pub provider: String,
    /// Architecture of the processor that the graph requires, for example `x86_64`; `None` for any.
    pub architecture: Option<String>,
    /// Processor extensions that the graph requires, for example `avx2`.
    pub features: Vec<String>,
    /// Version of ONNX Runtime that the graph requires, `major.minor`; `None` for any from
    /// [`Manifest::runtime_minimum`].
    pub runtime: Option<String>,
    /// Packed weights of a graph compiled for this library's kernels (`provider` is `optimize`), and what they require;
    /// `None` for other variants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compiled: Option<CompiledGraph>,
    /// Result of the check of a graph that was optimized or compiled ahead of time; `None` for other graphs and for
    /// engines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
}

/// The packed weights of a graph compiled for this library's kernels, and what they require.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CompiledGraph {
    /// Path in the package of the file with the packed weights.
    pub weights: String,
    /// Version of this library and class of processors that the packed weights require.
    pub made_for: String,
}

impl Variant {
    /// Returns whether the graph and the weights of the variant are one packed file, which only this library reads. See
    /// [`crate::onnx::packed`].
    pub fn is_packed(&self) -> bool {
        self.file.ends_with(PACKED)
    }
}

/// The suffix of the names of packed models, and of files with the packed weights of compiled graphs.
pub const PACKED: &str = ".packed";

/// The size and the hash of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOf {
    /// Size of the file in bytes.
    pub bytes: u64,
    /// SHA-256 of the file in lower-case hexadecimal digits.
    pub sha256: String,
}

impl Manifest {
    /// Returns the manifest in the content of `optimize.json`. Fails with [`crate::error::Kind::Unsupported`] for a
    /// format version newer than [`FORMAT`], and with `InvalidModel` for content that is not a manifest or lists no
    /// variant.
    pub fn read(content: &[u8]) -> Result<Manifest> {
        let value: Value =
            serde_json::from_slice(content).map_err(|e| error!(InvalidModel, "the file is damaged: {e}"))?;
        let format = value.get("format").and_then(Value::as_u64).unwrap_or(0);
        if format > u64::from(FORMAT) {
            let by = value.get("library_version").and_then(Value::as_str).unwrap_or("a newer version");
            let this = env!("CARGO_PKG_VERSION");
            bail!(Unsupported, "the package has format {format} (liboptimize {by}); {this} reads up to {FORMAT}");
        }
        if format == 0 {
            bail!(InvalidModel, "the manifest has no format");
        }
        let manifest: Manifest = serde_json::from_value(value)
            .map_err(|e| error!(InvalidModel, "the file is not the manifest of a package: {e}"))?;
        if manifest.variants.is_empty() {
            bail!(InvalidModel, "the package has no variant");
        }
        Ok(manifest)
    }

    /// Returns the manifest as the text of `optimize.json`.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Returns the manifest as the text of `manifest.json`, in ONNX Runtime's package layout. It lists only the
    /// variants of ONNX Runtime's CPU provider that are not packed. `weights` describes the file [`WEIGHTS`].
    pub fn to_theirs(&self, weights: &FileOf) -> String {
        let variant = |v: &Variant| {
            let level = if v.ahead { "ORT_DISABLE_ALL" } else { "ORT_ENABLE_ALL" };
            let folder = v.file.rsplit_once('/').map_or("", |(folder, _)| folder);
            let ort = json!({
                "model_file": "model.onnx",
                "session_options": {
                    "graph_optimization_level": level,
                    "session.model_external_initializers_file_folder_path": "../../shared",
                },
            });
            let ours = json!({ "manifest": OURS, "variant": v.name });
            let compatibility = match v.features.as_slice() {
                [] => String::new(),
                features => format!("{};{}", v.architecture.as_deref().unwrap_or(""), features.join("+")),
            };
            let value = json!({
                "variant_directory": folder,
                "ep": "CPUExecutionProvider",
                "device": v.provider,
                "compatibility_string": compatibility,
                "executor_info": { "ort": ort, "optimize": ours },
            });
            (v.name.clone(), value)
        };
        let variants: Map<String, Value> =
            self.variants.iter().filter(|v| !v.is_packed() && v.provider == "cpu").map(variant).collect();
        let manifest = json!({
            "schema_version": "1.0",
            "layout": "directory",
            "components": { "model": { "variants": variants } },
            "shared_assets": { "weights": { "path": WEIGHTS, "sha256": weights.sha256 } },
        });
        let mut text = serde_json::to_string_pretty(&manifest).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// Returns a readable text for each value, for example `input_ids: int64[batch, sequence]`.
pub fn describe(values: &[ValueInfo]) -> Vec<String> {
    values.iter().map(|value| format!("{}: {}", value.name, value.describe())).collect()
}
