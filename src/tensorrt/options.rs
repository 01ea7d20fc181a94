//! Options of the build of an engine.

use super::backend::Choice;
use crate::choice::choice;
use crate::error::{Result, bail, error};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The minimum, optimum and maximum size of a dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// Minimum size of the dimension.
    pub min: i64,
    /// Optimum size of the dimension.
    pub opt: i64,
    /// Maximum size of the dimension.
    pub max: i64,
}

choice! {
    /// The precision in which the engine computes. It is written into the graph; inputs and outputs keep their types.
    pub enum Precision: optimize_precision_t = Fp32 {
        /// The precision of the model.
        Fp32 = 0, "fp32";
        /// float16 for matrix products, convolutions and the nodes around them.
        Fp16 = 1, "fp16";
        /// bfloat16 for matrix products, convolutions and the nodes around them.
        Bf16 = 2, "bf16";
        /// 8-bit integers for matrix products and convolutions with weights.
        Int8 = 3, "int8";
        /// float8 (E4M3) for matrix products and convolutions with weights.
        Fp8 = 4, "fp8";
    }
}

impl Precision {
    /// Returns the default limit of the relative error of the worst output. The limit is higher for types with fewer
    /// significant bits: float16 has 11, bfloat16 8, int8 7 and float8 4. int8 and float8 have the same limit.
    fn usual_error(self) -> f64 {
        match self {
            Precision::Fp32 | Precision::Fp16 => 0.01,
            Precision::Bf16 => 0.08,
            Precision::Int8 | Precision::Fp8 => 0.15,
        }
    }

    /// Returns whether the graph expresses the precision by `QuantizeLinear` and `DequantizeLinear`.
    pub(super) fn is_quantized(self) -> bool {
        matches!(self, Precision::Int8 | Precision::Fp8)
    }
}

/// The shapes of inputs, by name.
pub type Shapes = Vec<(String, Vec<i64>)>;

/// An optimization profile. An input that is in none of its lists has the sizes that the other options set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct GivenProfile {
    /// Minimum shapes of inputs; by default the optimum shapes.
    pub min: Shapes,
    /// Optimum shapes of inputs, for which TensorRT tunes the engine; by default the maximum or else minimum shapes.
    pub opt: Shapes,
    /// Maximum shapes of inputs; by default the optimum shapes.
    pub max: Shapes,
}

/// Options of the build of an engine. The defaults keep the model's precision and require that the model or the
/// contract of its package fixes all sizes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct TensorRtOptions {
    /// Precision in which the engine computes. Default: [`Precision::Fp32`].
    pub precision: Precision,
    /// Backend that builds the engine. Default: [`Choice::Auto`].
    pub backend: Choice,
    /// Folder of the backend's library; `None` searches for it as [`super::Library::open`] does.
    pub library: Option<PathBuf>,
    /// Batch size of the engine, at most 2^31; 0 (default) leaves it to `dimensions`, `profiles` and the contract of a
    /// package.
    pub batch_size: i64,
    /// Sequence length in tokens, at most 2^31; 0 (default) leaves it to `dimensions`, `profiles` and the contract of a
    /// package.
    pub sequence_length: i64,
    /// Sizes of dimensions by their name in the model, or by `batch`, `sequence` and `past` for dimensions whose name
    /// or position suggests these. The name of an integer input that holds a size sets the range of its value.
    pub dimensions: Vec<(String, Span)>,
    /// Optimization profiles; the options `--min-shapes`, `--opt-shapes` and `--max-shapes` set the first. Without
    /// profiles, one profile follows from `batch_size`, `sequence_length` and `dimensions`, and from the contract of a
    /// package.
    pub profiles: Vec<GivenProfile>,
    /// Device memory that a layer may use as workspace, in bytes; 0 (default) for all device memory.
    pub workspace: u64,
    /// TensorRT's builder optimization level, 0 to 5; `None` (default) for TensorRT's own default.
    pub optimization_level: Option<i32>,
    /// Path of the file with the timing cache of TensorRT, which the build reads if it exists, and updates; `None`
    /// (default) for no cache. TensorRT-RTX has no timing cache.
    pub timing_cache: Option<PathBuf>,
    /// Whether the engine also runs with later versions of the backend.
    pub version_compatible: bool,
    /// Whether the engine runs on all GPUs since Ampere instead of this one only (TensorRT).
    pub hardware_compatible: bool,
    /// Whether the engine omits its weights. A program must add them with TensorRT's refitter before it runs the
    /// engine, which this library does not do.
    pub strip: bool,
    /// Whether programs may replace weights with TensorRT's refitter after loading. Cannot be combined with `strip`.
    pub refit: bool,
    /// Whether the builder may use 2:4 structured sparsity of weights.
    pub sparsity: bool,
    /// Whether layers keep all details for profilers.
    pub detailed: bool,
    /// Whether to disable TensorFloat-32 in layers that stay fp32.
    pub no_tf32: bool,
    /// Compute capabilities to build for (TensorRT-RTX), for example 89 for 8.9; empty (default) for all that the
    /// backend supports.
    pub compute_capabilities: Vec<i32>,
    /// Maximum relative error of an output against fp32 on a sample; nodes return to fp32 until it is met. 0 (default)
    /// selects 0.01 for fp16, 0.08 for bf16 and 0.15 for int8 and fp8. It has no effect for fp32.
    pub max_error: f64,
    /// Path of calibration data for int8 and fp8: a text file, or tensors for the inputs (`X.safetensors`). `None` uses
    /// built-in sentences for text models and generated numbers for others.
    pub calibration: Option<PathBuf>,
    /// Calibration text for int8 and fp8, which has priority over `calibration`; `None` for no text.
    #[serde(skip)]
    pub calibration_text: Option<String>,
    /// Names or operators of nodes that stay fp32.
    pub keep_fp32: Vec<String>,
    /// Whether to build even if the existing engine matches.
    pub force: bool,
    /// Whether an existing engine that does not match is an error; otherwise it is replaced. It is also replaced if
    /// `force` is set.
    pub refuse_mismatch: bool,
    /// Number of threads of the measurements on the CPU; 0 (default) for one per processor.
    pub threads: usize,
    /// Whether the backend reads the model from a file with external weights, as it must above 2 GiB.
    #[doc(hidden)]
    #[serde(skip)]
    pub by_file: bool,
}

impl TensorRtOptions {
    /// Fails with `InvalidArgument` if an option is out of range or contradicts another.
    pub(super) fn check(&self) -> Result<()> {
        if let Some(level) = self.optimization_level.filter(|level| !(0..=5).contains(level)) {
            bail!(InvalidArgument, "the optimization level is {level}; it must be from 0 to 5");
        }
        for (name, size) in [("batch size", self.batch_size), ("sequence length", self.sequence_length)] {
            if !(0..=1 << 31).contains(&size) {
                bail!(InvalidArgument, "the {name} is {size}");
            }
        }
        for (name, Span { min, opt, max }) in &self.dimensions {
            if *min < 0 || min > opt || opt > max {
                bail!(InvalidArgument, "the sizes {min}:{opt}:{max} of the dimension {name:?} must ascend, from 0");
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

    /// Returns the limit of the error; see [`TensorRtOptions::max_error`].
    pub fn error_allowed(&self) -> f64 {
        if self.max_error > 0.0 { self.max_error } else { self.precision.usual_error() }
    }
}

/// Returns the shapes in a text like `ids:1x16,mask:1x16`; an empty list for an empty text. Fails with
/// [`crate::error::Kind::InvalidArgument`] for texts of another form, negative sizes and too many dimensions.
pub fn parse_shapes(text: &str) -> Result<Shapes> {
    text.split(',').filter(|part| !part.trim().is_empty()).map(|part| crate::shapes::parse_shape(part.trim())).collect()
}

/// Returns the minimum, optimum and maximum sizes in a text like `batch=1:8:32,sequence=128`; in `1:32`, the optimum is
/// the maximum. Fails with [`crate::error::Kind::InvalidArgument`] for other texts, and for sizes that are negative or
/// descend.
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

/// Returns the profiles in a text of JSON: `[{"ids": {"min": [1, 16], "opt": [1, 64], "max": [1, 128]}}, ...]`, in
/// which `min`, `opt` and `max` may be omitted. Fails with [`crate::error::Kind::InvalidArgument`] for other texts, and
/// for an empty list.
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
