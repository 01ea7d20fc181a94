//! The options for the content of a package ([`CompileOptions`]).

use super::shapes::Asked;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::path::PathBuf;

/// The name of the precision of the original model.
pub const ORIGINAL: &str = "fp32";

/// The name of the precision of the original model whose products this library's kernels compute in bfloat16.
pub const BF16: &str = "bf16";

/// Options for a package.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CompileOptions {
    /// Whether input sizes may vary: `batch` from [`CompileOptions::batch_min`] to [`CompileOptions::batch_max`],
    /// other open dimensions freely. Otherwise a dimension without its own range has its size in the example.
    /// Decoders are always dynamic because their texts grow. Default: false.
    pub dynamic: bool,
    /// Minimum batch size; see [`CompileOptions::dynamic`].
    pub batch_min: i64,
    /// Maximum batch size; see [`CompileOptions::dynamic`].
    pub batch_max: i64,
    /// Ranges of dimensions by input (see [`super::shapes::parse`]).
    #[serde(rename = "dynamic_shapes")]
    pub shapes: Asked,
    /// Sizes of the example input. Missing sizes are selected by name and position as for a benchmark, one size for
    /// equal names; see [`crate::inputs::Sizes`].
    pub example: HashMap<String, Vec<i64>>,
    /// Precisions, best first: `fp32` (the original model), `bf16` (the original model, compiled to compute its products
    /// in bfloat16 with this library's kernels), `int8`, `int4`.
    pub variants: Vec<String>,
    /// Whether to omit graphs optimized for this processor.
    pub portable_only: bool,
    /// Whether to pack the weights so that zeros take almost no space; then every variant has its own weights, and
    /// none is optimized for this processor. See [`crate::onnx::packed`].
    pub packed: bool,
    /// Whether to write one file instead of a folder.
    pub single_file: bool,
    /// Secret key with which the package is signed, 32 bytes; `None` does not sign.
    #[serde(skip)]
    pub key: Option<[u8; 32]>,
    /// Licence of the model.
    pub licence: Option<String>,
    /// Reports of the steps that led to this model, oldest first.
    #[serde(skip)]
    pub lineage: Vec<Value>,
    /// Path of a TensorRT engine of the model, with its manifest next to it, which becomes a variant for machines with
    /// the device.
    pub engine: Option<PathBuf>,
}

impl Default for CompileOptions {
    fn default() -> Self {
        CompileOptions {
            dynamic: false,
            batch_min: 1,
            batch_max: 64,
            shapes: Asked::new(),
            example: HashMap::new(),
            variants: vec![ORIGINAL.to_owned()],
            portable_only: false,
            packed: false,
            single_file: false,
            key: None,
            licence: None,
            lineage: Vec::new(),
            engine: None,
        }
    }
}
