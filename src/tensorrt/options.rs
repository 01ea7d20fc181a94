//! Options of a build.

use super::backend::Choice;
use crate::choice::choice;
use crate::error::{Result, bail, error};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Sizes of a dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// Minimum size.
    pub min: i64,
    /// Optimum size.
    pub opt: i64,
    /// Maximum size.
    pub max: i64,
}

choice! {
    /// The precision in which the engine computes. It is written into the graph; inputs and outputs keep their types.
    pub enum Precision: optimize_precision_t = Fp32 {
        /// The precision of the model.
        Fp32 = 0, "fp32";
        /// Matrix products and the nodes around them in float16.
        Fp16 = 1, "fp16";
        /// Matrix products and the nodes around them in bfloat16.
        Bf16 = 2, "bf16";
        /// Products with weights in 8-bit integers.
        Int8 = 3, "int8";
        /// Products with weights in float8 (E4M3).
        Fp8 = 4, "fp8";
    }
}

impl Precision {
    /// Returns the default limit of the error: relative, of the worst output. Float16 has 11 significant bits,
    /// bfloat16 8, int8 7 and float8 4.
    fn usual_error(self) -> f64 {
        match self {
            Precision::Fp32 | Precision::Fp16 => 0.01,
            Precision::Bf16 => 0.08,
            Precision::Int8 | Precision::Fp8 => 0.15,
        }
    }

    /// Returns whether it is written as `QuantizeLinear` and `DequantizeLinear`.
    pub(super) fn is_quantized(self) -> bool {
        matches!(self, Precision::Int8 | Precision::Fp8)
    }
}

/// Shapes of inputs by name.
pub type Shapes = Vec<(String, Vec<i64>)>;

/// A complete optimization profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct GivenProfile {
    /// Minimum shapes; inputs that are not listed use the optimum shape.
    pub min: Shapes,
    /// Optimum shapes.
    pub opt: Shapes,
    /// Maximum shapes.
    pub max: Shapes,
}

/// Options of a build. `Default` keeps the model's precision and requires that it fixes all sizes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct TensorRtOptions {
    /// Precision. Default: [`Precision::Fp32`].
    pub precision: Precision,
    /// The library that builds. Default: [`Choice::Auto`].
    pub backend: Choice,
    /// Folder of the library; `None` searches for it.
    pub library: Option<PathBuf>,
    /// Batch size; 0 leaves it to the profiles.
    pub batch_size: i64,
    /// Sequence length in tokens; 0 leaves it to the profiles.
    pub sequence_length: i64,
    /// Sizes of dimensions by their name in the model, or by `batch`, `sequence` and `past`.
    pub dimensions: Vec<(String, Span)>,
    /// Profiles; the first one is that of `--min-shapes` and its siblings. Without profiles, one is made of the sizes
    /// above.
    pub profiles: Vec<GivenProfile>,
    /// Device memory that a layer may use as workspace, in bytes; 0 for all of it.
    pub workspace: u64,
    /// TensorRT's builder optimization level, 0 to 5; `None` for its default.
    pub optimization_level: Option<i32>,
    /// File of the timing cache (TensorRT).
    pub timing_cache: Option<PathBuf>,
    /// Whether the engine also runs with later versions of the library.
    pub version_compatible: bool,
    /// Whether the engine runs on all GPUs since Ampere instead of this one only (TensorRT).
    pub hardware_compatible: bool,
    /// Whether the engine omits its weights; they are added when it is loaded.
    pub strip: bool,
    /// Whether weights may be replaced later.
    pub refit: bool,
    /// Whether to use 2:4 structured sparsity of weights.
    pub sparsity: bool,
    /// Whether layers keep all details for profilers.
    pub detailed: bool,
    /// Whether to disable TensorFloat-32 in layers that stay fp32.
    pub no_tf32: bool,
    /// Compute capabilities to build for (TensorRT-RTX), 89 for 8.9; empty for all that it supports.
    pub compute_capabilities: Vec<i32>,
    /// Largest relative error of an output against fp32 on a sample; nodes return to fp32 until it is met. 0 selects
    /// 0.01 for fp16, 0.08 for bf16 and 0.15 for int8 and fp8.
    pub max_error: f64,
    /// Calibration data for int8 and fp8: a text file, or tensors for the inputs (`X.safetensors`); `None` uses
    /// built-in sentences or generated numbers.
    pub calibration: Option<PathBuf>,
    /// Nodes that stay fp32, by name or operator.
    pub keep_fp32: Vec<String>,
    /// Whether to build even if the existing engine matches.
    pub force: bool,
    /// Whether a different existing engine is an error; otherwise it is replaced.
    pub refuse_mismatch: bool,
    /// Threads of the measurements; 0 for all.
    pub threads: usize,
    /// Whether the library reads the model from a file with external weights, as it must above 2 GiB.
    #[doc(hidden)]
    #[serde(skip)]
    pub by_file: bool,
}

impl TensorRtOptions {
    pub(super) fn check(&self) -> Result<()> {
        if let Some(level) = self.optimization_level.filter(|level| !(0..=5).contains(level)) {
            bail!(InvalidArgument, "the optimization level is {level}; it must be from 0 to 5");
        }
        for (name, size) in [("batch size", self.batch_size), ("sequence length", self.sequence_length)] {
            if !(0..=1 << 31).contains(&size) {
                bail!(InvalidArgument, "the {name} is {size}");
            }
        }
        if !self.max_error.is_finite() || self.max_error < 0.0 {
            bail!(InvalidArgument, "max_error is {}; it must be 0 or more", self.max_error);
        }
        if self.strip && self.refit {
            bail!(
                InvalidArgument,
                "strip and refit exclude each other: an engine without weights can always be refitted"
            );
        }
        Ok(())
    }

    /// Returns the error limit; see [`TensorRtOptions::max_error`].
    pub fn error_allowed(&self) -> f64 {
        if self.max_error > 0.0 { self.max_error } else { self.precision.usual_error() }
    }
}

/// Reads shapes, for example `ids:1x16,mask:1x16`.
pub fn parse_shapes(text: &str) -> Result<Shapes> {
    text.split(',').filter(|part| !part.trim().is_empty()).map(|part| crate::shapes::parse_shape(part.trim())).collect()
}

/// Reads minimum, optimum and maximum sizes, for example `batch=1:8:32,sequence=128`; in `1:32`, the optimum is the
/// maximum.
pub fn parse_dimensions(text: &str) -> Result<Vec<(String, Span)>> {
    let one = |part: &str| {
        let wrong = || error!(InvalidArgument, "{part:?} is not a dimension like NAME=MIN:OPT:MAX");
        let (name, sizes) = part.rsplit_once('=').ok_or_else(wrong)?;
        let sizes: Vec<i64> = sizes
            .split(':')
            .map(|size| size.trim().parse())
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| wrong())?;
        let span = match sizes.as_slice() {
            [one] => Span { min: *one, opt: *one, max: *one },
            [min, max] => Span { min: *min, opt: *max, max: *max },
            [min, opt, max] => Span { min: *min, opt: *opt, max: *max },
            _ => return Err(wrong()),
        };
        if span.min < 0 || span.min > span.opt || span.opt > span.max {
            bail!(InvalidArgument, "{part:?}: sizes must ascend, from 0");
        }
        Ok((name.trim().to_owned(), span))
    };
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(one).collect()
}

/// Reads several profiles: `[{"ids": {"min": [1, 16], "opt": [1, 64], "max": [1, 128]}}, ...]`.
pub fn parse_profiles(json: &str) -> Result<Vec<GivenProfile>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Three {
        min: Option<Vec<i64>>,
        opt: Option<Vec<i64>>,
        max: Option<Vec<i64>>,
    }
    type Listed = Vec<std::collections::BTreeMap<String, Three>>;
    let listed: Listed = serde_json::from_str(json)
        .map_err(|e| error!(InvalidArgument, "profiles: not a list of {{input: {{min, opt, max}}}}: {e}"))?;
    if listed.is_empty() {
        bail!(InvalidArgument, "profiles: the list is empty");
    }
    let one = |inputs: std::collections::BTreeMap<String, Three>| {
        let mut profile = GivenProfile::default();
        for (name, three) in inputs {
            let lists = [(&mut profile.min, three.min), (&mut profile.opt, three.opt), (&mut profile.max, three.max)];
            for (list, shape) in lists {
                list.extend(shape.map(|shape| (name.clone(), shape)));
            }
        }
        profile
    };
    Ok(listed.into_iter().map(one).collect())
}
