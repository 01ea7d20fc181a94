//! Options of quantization.

use super::ScaleType;
use crate::choice::choice;
use crate::error::{Error, Result, bail, error};
use crate::limits;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

choice! {
    /// The type of quantization.
    pub enum QuantizeType: optimize_quantize_type_t = Dynamic {
        /// int8 weights, and activations that are quantized at run time, with one scale per tensor.
        ///
        /// Needs no data. Weights without an integer kernel (`Conv`, `LSTM`, batched matrices ...) are stored in 8 bits
        /// and computed in float.
        Dynamic = 0, "dynamic";
        /// Weights in blocks of 2, 4 or 8 bits, each block with its scale, and float activations.
        ///
        /// Weights that no block operator supports are stored in 4 or 8 bits and computed in float.
        WeightOnly = 1, "weight-only";
        /// int8 weights, and activations that are quantized with scales from calibration data.
        ///
        /// Each quantized operator is between `DequantizeLinear` and `QuantizeLinear`.
        Static = 2, "static";
    }
}

choice! {
    /// The algorithm that chooses the codes of block-quantized weights.
    pub enum Algorithm: optimize_algorithm_t = Auto {
        /// GPTQ with calibration data, otherwise RTN.
        Auto = 0, "auto";
        /// Rounding to nearest, with a search for scale and zero point.
        Rtn = 1, "rtn";
        /// Half-quadratic quantization.
        ///
        /// Like [`Algorithm::Rtn`], with zero points that minimize a norm in which a few large errors cost less than in
        /// the squared error.
        Hqq = 2, "hqq";
        /// Rounding that compensates the error of each weight in the following weights; needs calibration data.
        Gptq = 3, "gptq";
        /// Scaling of inputs by the magnitude of activations, then RTN; needs calibration data.
        Awq = 4, "awq";
    }
}

choice! {
    /// The method by which static quantization determines the range of an activation on calibration data.
    pub enum CalibrationMethod: optimize_calibration_method_t = MinMax {
        /// The range from the minimum to the maximum value.
        MinMax = 0, "min-max";
        /// The range without the outermost values.
        ///
        /// See [`QuantizeOptions::percentile`].
        Percentile = 1, "percentile";
        /// The range whose quantized histogram has the smallest KL divergence from the original.
        Entropy = 2, "entropy";
        /// The range with the smallest squared error.
        Mse = 3, "mse";
    }
}

choice! {
    /// Whether weights use 7 of their 8 bits.
    ///
    /// On x86 processors without VNNI the int8 instructions add pairs of products in 16 bits, which saturate
    /// with full-range weights.
    pub enum ReduceRange: optimize_reduce_range_t = Auto {
        /// 7 bits on processors without VNNI, otherwise 8 bits.
        Auto = 0, "auto";
        /// 7 bits, for models that will run on processors without VNNI.
        On = 1, "on";
        /// 8 bits.
        Off = 2, "off";
    }
}

/// The default block size.
pub(super) const BLOCK_SIZE: usize = 32;

/// The bits and the block size for the weights that match a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BitsOverride {
    /// Glob over node and weight names.
    pub pattern: String,
    /// Number of bits per weight: 2, 4 or 8.
    pub bits: u32,
    /// Block size, as in [`QuantizeOptions::block_size`]; 0 selects 32.
    #[serde(default)]
    pub block_size: usize,
}

impl std::str::FromStr for BitsOverride {
    type Err = Error;

    /// Returns the override that a text of the form `GLOB=BITS` or `GLOB=BITS/BLOCK` describes. Fails with
    /// `InvalidArgument` for other texts.
    fn from_str(text: &str) -> Result<BitsOverride> {
        let parsed = text.rsplit_once('=').and_then(|(pattern, form)| {
            let (bits, block) = form.split_once('/').unwrap_or((form, "0"));
            Some(BitsOverride {
                pattern: pattern.to_owned(),
                bits: bits.parse().ok()?,
                block_size: block.parse().ok()?,
            })
        });
        match parsed {
            Some(parsed) if !parsed.pattern.is_empty() => Ok(parsed),
            _ => bail!(InvalidArgument, "{text:?} is not GLOB=BITS or GLOB=BITS/BLOCK"),
        }
    }
}

/// Options of [`super::quantize`] and [`super::quantize_with`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct QuantizeOptions {
    /// Type of quantization. Default: [`QuantizeType::Dynamic`].
    #[serde(rename = "type")]
    pub quantize_type: QuantizeType,
    /// Number of bits per weight: 8, or for [`QuantizeType::WeightOnly`] also 4 or 2. 2 bits apply to products only
    /// (tables get 4), in blocks of 32 or more, and are meant for `target_size`, which mixes them: alone they ruin most
    /// models. Default: 8.
    pub bits: u32,
    /// Weight-only: block size, the number of elements of a row that share a scale: a power of two from 16 to 256. It
    /// is reduced for a weight whose rows would otherwise end with much padding. 0 (default) selects 32.
    pub block_size: usize,
    /// Weight-only: whether zero is the middle code, instead of a zero point per block. 8-bit codes are always
    /// symmetric. Default: `false`.
    pub symmetric: bool,
    /// Weight-only: bits and block size for matching weights; the first match counts. Default: none.
    pub overrides: Vec<BitsOverride>,
    /// Weight-only: type in which scales are stored. Default: [`ScaleType::Uint8`].
    pub scale_type: ScaleType,
    /// Weight-only: `accuracy_level` of `MatMulNBits`, 0 to 4. 4 rounds activations to 8 bits per block, which is
    /// faster; 1 keeps them float; 0 leaves it to ONNX Runtime, which currently keeps them float. Default: 4.
    pub accuracy_level: u32,
    /// Weight-only: algorithm that chooses the codes. Default: [`Algorithm::Auto`].
    pub algorithm: Algorithm,
    /// Static: method that determines the ranges of activations. Default: [`CalibrationMethod::MinMax`].
    pub calibration_method: CalibrationMethod,
    /// Static: percentage (0 to 100) of the values of an activation that [`CalibrationMethod::Percentile`] keeps in
    /// range; another method must have the default. Default: 99.99.
    pub percentile: f64,
    /// Static and dynamic: share of the spread of activations that moves into the weights, 0 (none, the default) to 1
    /// (SmoothQuant's alpha; use 0.8 for encoders, 0.5 for decoders). Measured on the calibration data or, for
    /// dynamic with a tokenizer, on built-in sentences.
    pub smooth_quant: f64,
    /// Maximum loss on the calibration data, or on generated inputs, of each judged output
    /// ([`crate::benchmark::QualityReport::judged`]): the mean KL divergence in nats for logits, 1 - the mean cosine
    /// for other outputs. 0 (default) for no limit.
    pub max_quality_loss: f64,
    /// Dynamic and weight-only: maximum size of the result in bytes; the bits of each weight are chosen for it. 0
    /// (default) for no limit.
    pub target_size: u64,
    /// Whether products or tables of one shape (static: nodes of one operator) stay float if the model runs faster with
    /// them in float than quantized, as measured on this machine. If a static result is still slower than the original,
    /// the call fails with `GateNotMet`. Default: `false`.
    pub never_slower: bool,
    /// Whether an int8 weight has one scale per output channel (default) or a single scale.
    pub per_channel: bool,
    /// Static and dynamic: whether int8 weights use 7 bits. Default: [`ReduceRange::Auto`].
    pub reduce_range: ReduceRange,
    /// Whether embedding tables (`Gather` of a matrix) are quantized, with scales along the rows. Default: `true`.
    pub embeddings: bool,
    /// Globs over node and weight names to quantize; empty (default) for all. `*` also matches `/` and `.`.
    pub include: Vec<String>,
    /// Globs over node and weight names to leave unchanged, which have priority over `include`. Default: none.
    pub exclude: Vec<String>,
    /// Minimum number of elements of a weight: quantizing smaller weights costs more than it gains. Static quantization
    /// ignores it for `Conv`. Default: 1024.
    pub min_elements: u64,
    /// Static: whether to time the result briefly against the original and warn if it is slower. Callers that
    /// benchmark the result themselves disable it. Default: `true`.
    #[serde(skip)]
    pub race: bool,
    /// Number of worker threads; 0 (default) for all processors.
    #[serde(skip)]
    pub threads: usize,
    /// Folder of the temporary file with the quantized weights until they are saved (an unlinked file); `None`
    /// (default) for the system's temporary folder.
    #[serde(skip)]
    pub scratch_folder: Option<PathBuf>,
}

impl QuantizeOptions {
    /// Fails with `InvalidArgument` if an option has a value out of its range, or has no effect with the others.
    pub(super) fn check(&self) -> Result<()> {
        let (weight_only, bits) = (self.quantize_type == QuantizeType::WeightOnly, self.bits);
        if !(bits == 8 || weight_only && matches!(bits, 2 | 4)) {
            let possible = if weight_only { "2, 4 or 8" } else { "8; weight-only quantization also supports 2 and 4" };
            bail!(InvalidArgument, "bits is {bits}; it must be {possible}");
        }
        for block in std::iter::once(self.block_size).chain(self.overrides.iter().map(|o| o.block_size)) {
            if weight_only && block != 0 && !(block.is_power_of_two() && (16..=256).contains(&block)) {
                bail!(InvalidArgument, "block_size is {block}, not 16, 32, 64, 128 or 256");
            }
        }
        if let Some(other) = self.overrides.iter().find(|o| !matches!(o.bits, 2 | 4 | 8)) {
            bail!(InvalidArgument, "bits is {} for {:?}; it must be 2, 4 or 8", other.bits, other.pattern);
        }
        if weight_only && self.accuracy_level > 4 {
            bail!(InvalidArgument, "accuracy_level is {}; it must be from 0 to 4", self.accuracy_level);
        }
        let within = |name: &str, value: f64, most: f64| match (0.0..=most).contains(&value) {
            true => Ok(()),
            false => Err(error!(InvalidArgument, "{name} is {value}; it must be from 0 to {most}")),
        };
        within("percentile", self.percentile, 100.0)?;
        within("smooth_quant", self.smooth_quant, 1.0)?;
        within("max_quality_loss", self.max_quality_loss, f64::MAX)?;
        if self.threads > limits::THREADS {
            bail!(InvalidArgument, "threads is {}; the limit is {}", self.threads, limits::THREADS);
        }
        self.has_no_effect().map_or(Ok(()), |(name, to)| bail!(InvalidArgument, "{name} applies only to {to}"))
    }

    /// Returns an option that is set although it has no effect with the other options, and what it applies to; `None`
    /// if there is none.
    fn has_no_effect(&self) -> Option<(&'static str, &'static str)> {
        let usual = QuantizeOptions::default();
        let [is_static, weight_only] =
            [QuantizeType::Static, QuantizeType::WeightOnly].map(|kind| self.quantize_type == kind);
        let blocks = (weight_only, "weight-only quantization");
        let percentile = self.calibration_method == CalibrationMethod::Percentile;
        let smooth = "int8 activations; use the algorithm awq for weight-only quantization";
        let sized = "dynamic and weight-only quantization: static quantization supports only 8 bits";
        let rules = [
            ("block_size", self.block_size != usual.block_size, blocks),
            ("symmetric", self.symmetric != usual.symmetric, blocks),
            ("overrides", self.overrides != usual.overrides, blocks),
            ("scale_type", self.scale_type != usual.scale_type, blocks),
            ("accuracy_level", self.accuracy_level != usual.accuracy_level, blocks),
            ("algorithm", self.algorithm != usual.algorithm, blocks),
            (
                "calibration_method",
                self.calibration_method != usual.calibration_method,
                (is_static, "static quantization"),
            ),
            ("percentile", self.percentile != usual.percentile, (percentile, "the calibration_method percentile")),
            ("smooth_quant", self.smooth_quant != usual.smooth_quant, (!weight_only, smooth)),
            ("target_size", self.target_size != usual.target_size, (!is_static, sized)),
            (
                "reduce_range",
                self.reduce_range != usual.reduce_range,
                (!weight_only, "dynamic and static quantization, not to the type weight-only"),
            ),
        ];
        rules.into_iter().find(|(_, is_set, (applies, _))| *is_set && !applies).map(|(name, _, (_, to))| (name, to))
    }

    /// Returns whether `smooth_quant` or a limit on loss, size or speed requires ONNX Runtime. Static quantization and
    /// calibration data require it too, but are not considered here.
    pub fn needs_runtime(&self) -> bool {
        self.max_quality_loss > 0.0 || self.target_size > 0 || self.never_slower || self.smooth_quant > 0.0
    }

    /// Fails with `InvalidArgument` if calibration data is given that the options do not use, if they need data that is
    /// not given, or if the algorithm does not suit the form of the blocks.
    pub(super) fn fits_data(&self, calibrated: bool) -> Result<()> {
        match self.quantize_type {
            QuantizeType::Dynamic if calibrated && !self.needs_runtime() => bail!(
                InvalidArgument,
                "calibration data is given, but dynamic quantization does not use it without smooth_quant, \
                 max_quality_loss, target_size or never_slower"
            ),
            QuantizeType::WeightOnly => self.weight_only_fits(calibrated),
            _ => Ok(()),
        }
    }

    fn weight_only_fits(&self, calibrated: bool) -> Result<()> {
        let limited = self.max_quality_loss > 0.0 || self.target_size > 0;
        match self.algorithm {
            Algorithm::Gptq | Algorithm::Awq if !calibrated => {
                bail!(InvalidArgument, "the algorithm {} needs calibration data", self.algorithm.name())
            }
            Algorithm::Rtn | Algorithm::Hqq if calibrated && !limited && !self.never_slower => {
                let name = self.algorithm.name();
                bail!(InvalidArgument, "the algorithm {name} uses no calibration data; gptq and awq do")
            }
            Algorithm::Hqq if self.symmetric || self.bits == 8 => bail!(
                InvalidArgument,
                "the algorithm hqq searches for zero points, which symmetric codes and 8-bit codes do not have"
            ),
            _ => Ok(()),
        }
    }
}

impl Default for QuantizeOptions {
    fn default() -> Self {
        QuantizeOptions {
            quantize_type: QuantizeType::Dynamic,
            bits: 8,
            block_size: 0,
            overrides: Vec::new(),
            symmetric: false,
            scale_type: ScaleType::default(),
            accuracy_level: 4,
            algorithm: Algorithm::Auto,
            calibration_method: CalibrationMethod::MinMax,
            percentile: 99.99,
            smooth_quant: 0.0,
            max_quality_loss: 0.0,
            target_size: 0,
            never_slower: false,
            per_channel: true,
            reduce_range: ReduceRange::Auto,
            embeddings: true,
            include: Vec::new(),
            exclude: Vec::new(),
            min_elements: 1024,
            race: true,
            threads: 0,
            scratch_folder: None,
        }
    }
}
