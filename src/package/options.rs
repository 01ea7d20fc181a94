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
    /// Whether input sizes may vary. If true, the batch has a size from [`CompileOptions::batch_min`] to
    /// [`CompileOptions::batch_max`], and each other open dimension a size of at least 1 (0 in a KV cache). In inputs
    /// of tokens and KV caches, the maximum is the model's maximum text length. If false, a dimension without a range
    /// in [`CompileOptions::shapes`] has its size in the example. Models that generate text are always dynamic.
    /// Default: false.
    pub dynamic: bool,
    /// Minimum batch size, at least 0, of a dynamic package. Default: 1.
    pub batch_min: i64,
    /// Maximum batch size, at least the minimum, of a dynamic package. Default: 64.
    pub batch_max: i64,
    /// Ranges of dimensions by input (see [`super::shapes::parse`]). Default: none.
    #[serde(rename = "dynamic_shapes")]
    pub shapes: Asked,
    /// Shapes of the example by the name of the input. Other inputs get sizes by the names and positions of their
    /// dimensions, as in a benchmark; dimensions with equal names get equal sizes. See [`crate::inputs::Sizes`].
    /// Default: none.
    pub example: HashMap<String, Vec<i64>>,
    /// Precisions, best first: `fp32` (the original model), `bf16` (the original model, compiled to compute its
    /// products in bfloat16 with this library's kernels), `int8`, `int4`. Default: `fp32`.
    pub variants: Vec<String>,
    /// Whether to omit graphs prepared for this processor. Default: false.
    pub portable_only: bool,
    /// Whether to pack the weights so that zeros take one bit each; then every variant has its own weights, and none is
    /// prepared for this processor. See [`crate::onnx::packed`]. Default: false.
    pub packed: bool,
    /// Whether to write one file instead of a folder. Graphs compiled for this library's kernels are then omitted.
    /// Default: false.
    pub single_file: bool,
    /// Secret ed25519 key with which the package is signed, 32 bytes; `None` does not sign.
    #[serde(skip)]
    pub key: Option<[u8; 32]>,
    /// Licence of the model as text that is copied into the manifest; `None` records no licence.
    pub licence: Option<String>,
    /// Reports of the steps that led to this model, oldest first.
    #[serde(skip)]
    pub lineage: Vec<Value>,
    /// Path of a TensorRT engine of the model, with its manifest next to it, which becomes a variant for machines with
    /// an NVIDIA GPU; `None` for no engine.
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
