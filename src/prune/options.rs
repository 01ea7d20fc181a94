//! Options of pruning, with their checks.

use crate::choice::choice;
use crate::error::{Error, Result, bail, error};
use crate::limits;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::PathBuf;
use std::str::FromStr;

choice! {
    /// The method that selects the weights or units to remove.
    pub enum PruneMethod: optimize_prune_method_t = Magnitude {
        /// Sets the smallest weights to zero.
        Magnitude = 0, "magnitude";
        /// Sets random weights to zero, selected with the seed.
        Random = 1, "random";
        /// Sets the weights with the smallest product of magnitude and input norm to zero.
        ///
        /// Sun et al. 2023, arXiv 2306.11695.
        Wanda = 2, "wanda";
        /// Sets weights to zero whose error the rest of the row can compensate.
        ///
        /// Frantar & Alistarh 2023, arXiv 2301.00774.
        SparseGpt = 3, "sparsegpt";
        /// Removes neurons, channels and heads.
        Structured = 4, "structured";
    }
}

choice! {
    /// The score by which structured pruning ranks neurons, channels and heads.
    pub enum Importance: optimize_importance_t = L1 {
        /// Sum of the magnitudes of the weights.
        L1 = 0, "l1";
        /// Sum of the squares of the weights.
        L2 = 1, "l2";
        /// Energy that a unit contributes: its squared weights times its mean squared activations on calibration data.
        Activation = 2, "activation";
        /// Random score, determined by the seed.
        Random = 3, "random";
    }
}

/// A pattern `keep:of`, such as `2:4`: among each `of` consecutive weights along the inputs of a product, at most
/// `keep` are not zero. `keep` is at least 1 and less than `of`, which is at most 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    /// Number of weights that may be kept.
    pub keep: usize,
    /// Number of consecutive weights.
    pub of: usize,
}

/// The maximum length of a pattern. Hardware supports 4; papers use up to 16 or 32.
const LARGEST_PATTERN: usize = 64;

impl Pattern {
    /// Returns the share of zeros that the pattern requires, for example 0.5 for `2:4`.
    pub fn sparsity(self) -> f64 {
        1.0 - self.keep as f64 / self.of.max(1) as f64
    }
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Pattern> {
        let parsed = text.split_once(':').and_then(|(keep, of)| {
            let pattern = Pattern { keep: keep.parse().ok()?, of: of.parse().ok()? };
            (1..pattern.of).contains(&pattern.keep).then_some(pattern)
        });
        let parsed = parsed.filter(|pattern| pattern.of <= LARGEST_PATTERN);
        parsed.ok_or_else(|| {
            error!(InvalidArgument, "{text:?} is not a pattern like 2:4, with at most {LARGEST_PATTERN}")
        })
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.keep, self.of)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Pattern, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "cli")]
impl schemars::JsonSchema for Pattern {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Pattern".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9]+:[0-9]+$" })
    }
}

/// A sparsity for the weights that match a pattern, instead of the one for all weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SparsityOverride {
    /// Pattern of names, as in [`PruneOptions::target_modules`].
    pub pattern: String,
    /// Sparsity of the matching weights, below 1; 0 leaves them unchanged.
    pub sparsity: f64,
}

impl FromStr for SparsityOverride {
    type Err = Error;

    /// Returns the override that a text of the form `GLOB=SPARSITY` describes. Fails with `InvalidArgument` for other
    /// texts.
    fn from_str(text: &str) -> Result<SparsityOverride> {
        let parsed = text.rsplit_once('=').and_then(|(pattern, sparsity)| {
            Some(SparsityOverride { pattern: pattern.to_owned(), sparsity: sparsity.parse().ok()? })
        });
        match parsed {
            Some(parsed) if !parsed.pattern.is_empty() => Ok(parsed),
            _ => bail!(InvalidArgument, "{text:?} is not GLOB=SPARSITY"),
        }
    }
}

/// Options of [`super::prune`] and [`super::prune_calibrated`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct PruneOptions {
    /// Method that selects the weights or units to remove. Default: [`PruneMethod::Magnitude`].
    pub method: PruneMethod,
    /// Share of each weight to set to zero, or of each group of units to remove, above 0 and below 1; 0 is valid if
    /// only layers are removed. Default: 0.5. With a pattern, it must be the default or the share that the pattern
    /// requires.
    pub sparsity: f64,
    /// Pattern of zeros, such as `2:4`, for hardware that supports it. Default: none.
    pub pattern: Option<Pattern>,
    /// Magnitude and random: whether one threshold applies to all weights, instead of one per weight. Weights with an
    /// override keep their own. Default: false.
    pub global: bool,
    /// Sparsities for the weights that match a pattern of names; the first match counts. Default: none.
    pub overrides: Vec<SparsityOverride>,
    /// Seed of random choices. Default: 0.
    pub seed: u64,
    /// Names or globs of modules, weights or nodes: `query`, `mlp.fc1`, `layer.*.mlp.*`; each may match a part of a
    /// longer name, from dot to dot. Empty (default) means all weights of `MatMul`, `FusedMatMul`, `Gemm`, `Conv`,
    /// `ConvTranspose` and `Attention` (com.microsoft); those of `LSTM`, `GRU` and `RNN` must be named. An embedding
    /// table that is named without a wildcard is pruned without `embeddings`, too.
    pub target_modules: Vec<String>,
    /// Names or globs of weights to leave unchanged, like `target_modules`, over which they have priority. Default:
    /// none.
    pub exclude: Vec<String>,
    /// Whether embedding tables (`Gather` of a matrix), and output layers that share one, are pruned. Default: false.
    pub embeddings: bool,
    /// Minimum number of elements of a weight that is pruned. Default: 1024.
    pub min_elements: u64,
    /// Structured: score by which the units are ranked. Default: [`Importance::L1`].
    pub importance: Importance,
    /// Structured: number of which the number of remaining units is a multiple, if possible. 0 (default) selects it:
    /// for the channels of 2-D convolutions, 16 in groups of 32 or more and 8 in groups of 16 or more; for all other
    /// units, 16 in groups of 256 or more and 8 in groups of 64 or more; otherwise 1. ONNX Runtime's fastest layout of
    /// images needs multiples of 16 channels with AVX-512 and of 8 without; the choice is the same on every machine.
    pub round_to: usize,
    /// Structured, with calibration: whether the weight that reads the kept units is fitted to reproduce its original
    /// output. Default: false.
    pub reconstruct: bool,
    /// Structured: number of layers to remove: the least influential on the calibration data; without data, evenly
    /// spaced ones, in the second half if that has enough. With a sparsity of 0, nothing else is removed. Default: 0.
    pub drop_layers: usize,
    /// Structured: indices of the layers to remove, as in names, instead of `drop_layers`. Default: none.
    pub layers: Vec<usize>,
    /// Structured: size in bytes to reach, with as little pruning as needed, instead of a sparsity; 0 (default) for
    /// none.
    pub target_size: u64,
    /// Structured: measured speed-up to reach, at least 1, with as little pruning as needed, instead of a sparsity; 0
    /// (default) for none. Needs ONNX Runtime, and excludes `target_size`.
    pub target_speedup: f64,
    /// Number of worker threads; 0 (default) means all processors.
    #[serde(skip)]
    pub threads: usize,
    /// Folder of the temporary file with the pruned weights until they are saved (an unlinked file); default: the
    /// system's temporary folder.
    #[serde(skip)]
    pub scratch_folder: Option<PathBuf>,
}

impl Default for PruneOptions {
    fn default() -> Self {
        PruneOptions {
            method: PruneMethod::Magnitude,
            sparsity: 0.5,
            pattern: None,
            global: false,
            overrides: Vec::new(),
            seed: 0,
            target_modules: Vec::new(),
            exclude: Vec::new(),
            embeddings: false,
            min_elements: 1024,
            importance: Importance::default(),
            round_to: 0,
            reconstruct: false,
            drop_layers: 0,
            layers: Vec::new(),
            target_size: 0,
            target_speedup: 0.0,
            threads: 0,
            scratch_folder: None,
        }
    }
}

impl PruneOptions {
    /// Returns the defaults for structured pruning.
    pub fn structured() -> PruneOptions {
        PruneOptions { method: PruneMethod::Structured, sparsity: 0.3, ..PruneOptions::default() }
    }

    /// Returns whether the options remove whole layers.
    pub(super) fn drops_layers(&self) -> bool {
        self.drop_layers > 0 || !self.layers.is_empty()
    }

    /// Fails with `InvalidArgument` if an option is invalid, or contradicts another.
    pub(super) fn check(&self) -> Result<()> {
        // The pattern is checked first, because the sparsity of an invalid pattern may be 0 or 1.
        let is_none = |p: &Pattern| p.keep == 0 || p.keep >= p.of || p.of > LARGEST_PATTERN;
        if let Some(pattern) = self.pattern.filter(is_none) {
            bail!(InvalidArgument, "{pattern} is not a pattern like 2:4, with at most {LARGEST_PATTERN}");
        }
        let structured = self.method == PruneMethod::Structured;
        let only_layers = structured && self.drops_layers() && self.sparsity == 0.0;
        if self.sparsity == 0.0 && !only_layers {
            bail!(InvalidArgument, "sparsity is 0, which prunes nothing");
        }
        if self.sparsity == 1.0 {
            bail!(InvalidArgument, "sparsity is 1, which leaves nothing of a weight");
        }
        if !(0.0..1.0).contains(&self.sparsity) {
            bail!(InvalidArgument, "sparsity is {}, not above 0 and below 1", self.sparsity);
        }
        if let Some(other) = self.overrides.iter().find(|o| !(0.0..1.0).contains(&o.sparsity)) {
            bail!(InvalidArgument, "sparsity is {} for {:?}, not from 0 to below 1", other.sparsity, other.pattern);
        }
        let scored = matches!(self.method, PruneMethod::Magnitude | PruneMethod::Random);
        if self.global && !scored {
            bail!(InvalidArgument, "the method {} has no global threshold", self.method.name());
        }
        if let Some(pattern) = self.pattern {
            self.check_pattern(pattern)?;
        }
        let default = PruneOptions::default();
        let set = self.target_size != 0
            || self.target_speedup != 0.0
            || self.importance != default.importance
            || self.round_to != 0
            || self.reconstruct
            || self.drops_layers();
        if set && !structured {
            bail!(
                InvalidArgument,
                "importance, round_to, reconstruct, layers and targets are for structured pruning only"
            );
        }
        if self.drop_layers > 0 && !self.layers.is_empty() {
            bail!(InvalidArgument, "drop_layers and layers exclude each other");
        }
        if !(self.target_speedup == 0.0 || self.target_speedup >= 1.0 && self.target_speedup.is_finite()) {
            bail!(InvalidArgument, "target_speedup is {}; it must be 1 or more", self.target_speedup);
        }
        if self.target_size > 0 && self.target_speedup > 0.0 {
            bail!(InvalidArgument, "target_size and target_speedup exclude each other");
        }
        if self.threads > limits::THREADS {
            bail!(InvalidArgument, "threads is {}; the limit is {}", self.threads, limits::THREADS);
        }
        Ok(())
    }

    /// Fails with `InvalidArgument` for options that cannot be combined with a pattern.
    fn check_pattern(&self, pattern: Pattern) -> Result<()> {
        if self.method == PruneMethod::Structured {
            bail!(InvalidArgument, "a pattern does not apply to structured pruning");
        }
        if self.global {
            bail!(InvalidArgument, "a pattern and a global threshold exclude each other");
        }
        if self.sparsity != PruneOptions::default().sparsity && (self.sparsity - pattern.sparsity()).abs() > 1e-6 {
            bail!(
                InvalidArgument,
                "the pattern {pattern} has a sparsity of {}, not {}",
                pattern.sparsity(),
                self.sparsity
            );
        }
        if let Some(other) = self.overrides.iter().find(|o| o.sparsity != 0.0) {
            bail!(InvalidArgument, "{:?} has another sparsity, which a pattern does not allow", other.pattern);
        }
        Ok(())
    }
}
