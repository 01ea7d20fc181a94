//! Options of a build.

use super::backend::Choice;
use super::profile::Span;
use crate::error::{Result, bail, error};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What numbers the engine computes with. It is written into the graph; inputs and outputs keep their types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As the model is.
    #[default]
    Fp32,
    /// Products and what is around them in float16.
    Fp16,
    /// As [`Precision::Fp16`], in bfloat16.
    Bf16,
    /// What products with weights multiply, in 8-bit integers.
    Int8,
    /// As [`Precision::Int8`], in float8 (e4m3).
    Fp8,
}

impl Precision {
    /// `fp16`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Fp16 => "fp16",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
            Precision::Fp8 => "fp8",
        }
    }

    /// Largest error allowed where nobody says: relative, of the worst output. Float16 has 11 bits, bfloat16 8, what is
    /// quantized 7 or 4.
    fn usual_error(self) -> f64 {
        match self {
            Precision::Fp32 | Precision::Fp16 => 0.01,
            Precision::Bf16 => 0.08,
            Precision::Int8 | Precision::Fp8 => 0.15,
        }
    }

    /// Whether it is written as `QuantizeLinear` and `DequantizeLinear`.
    pub(super) fn is_quantized(self) -> bool {
        matches!(self, Precision::Int8 | Precision::Fp8)
    }
}

/// Shapes of inputs by name.
pub type Shapes = Vec<(String, Vec<i64>)>;

/// A profile that is given as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GivenProfile {
    /// Least shapes; those of inputs that are not here are the usual ones.
    pub min: Shapes,
    /// The shapes to be fast for.
    pub opt: Shapes,
    /// Largest shapes.
    pub max: Shapes,
}

/// Options of a build. `Default` is the model as it is, of sizes that it fixes itself.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TensorRtOptions {
    /// See [`Precision`].
    pub precision: Precision,
    /// Which library.
    pub backend: Choice,
    /// Folder of its files; `None` looks for them.
    pub library: Option<PathBuf>,
    /// Size of the batch; 0 leaves it to the profiles.
    pub batch_size: i64,
    /// Length of sequences; 0 leaves it to the profiles.
    pub sequence_length: i64,
    /// Sizes of dimensions by the model's name for them, or `batch`, `sequence` and `past`.
    pub dimensions: Vec<(String, Span)>,
    /// Profiles; the first of them is the one of `--min-shapes` and so on. Without any there is one of the sizes above.
    pub profiles: Vec<GivenProfile>,
    /// Bytes of device memory that a layer may work in; 0 is all there is.
    pub workspace: u64,
    /// 0 to 5, as TensorRT counts; `None` is its default.
    pub optimization_level: Option<i32>,
    /// File that timings of layers are kept in (TensorRT).
    pub timing_cache: Option<PathBuf>,
    /// The engine runs with later versions of the library, too.
    pub version_compatible: bool,
    /// The engine runs on devices of Ampere and later, not on this one alone (TensorRT).
    pub hardware_compatible: bool,
    /// No weights in the engine: they are put in when it is loaded.
    pub strip: bool,
    /// Weights may be replaced later.
    pub refit: bool,
    /// Use weights with the pattern 2:4 as such.
    pub sparsity: bool,
    /// Layers keep all that is known about them, for profilers.
    pub detailed: bool,
    /// No TensorFloat-32 in what stays fp32.
    pub no_tf32: bool,
    /// TensorRT-RTX: devices to build for, 89 for compute capability 8.9; without any, all that it knows.
    pub compute_capabilities: Vec<i32>,
    /// Largest relative error of an output against fp32, on a sample; nodes go back to fp32 until it is met. 0 is 0.01
    /// for fp16, 0.08 for bf16 and 0.15 for int8 and fp8.
    pub max_error: f64,
    /// int8 and fp8: a text file, or tensors for the inputs (`X.safetensors`), on which scales are found; `None` is
    /// built-in sentences or generated numbers.
    pub calibration: Option<PathBuf>,
    /// Nodes by name or operator that stay fp32.
    pub keep_fp32: Vec<String>,
    /// Build even if the engine that is there is the one asked for.
    pub force: bool,
    /// An engine that is there and is another one is an error; else it is replaced.
    pub refuse_mismatch: bool,
    /// Threads of the measurements; 0 is all.
    pub threads: usize,
    /// The library reads the model from a file with the weights beside it, as it has to above 2 GiB.
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

    /// See [`TensorRtOptions::max_error`].
    pub fn error_allowed(&self) -> f64 {
        if self.max_error > 0.0 { self.max_error } else { self.precision.usual_error() }
    }
}

/// Reads `ids:1x16,mask:1x16`.
pub fn parse_shapes(text: &str) -> Result<Shapes> {
    text.split(',').filter(|part| !part.trim().is_empty()).map(|part| crate::shapes::parse_shape(part.trim())).collect()
}

/// Reads `batch=1:8:32,sequence=128`: least, usual and largest size; `1:32` is without a usual one, which is the
/// largest.
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
