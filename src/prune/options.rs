//! What to prune, and how: options and their checks.

use crate::error::{Error, Result, bail, error};
use crate::limits;
use serde::{Serialize, Serializer};
use std::path::PathBuf;
use std::str::FromStr;

/// How weights are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PruneMethod {
    /// The smallest by magnitude become zero.
    #[default]
    Magnitude,
    /// Any become zero, by the seed.
    Random,
    /// For each output, those with the smallest magnitude times norm of the input (Sun et al. 2023, arXiv 2306.11695).
    Wanda,
    /// Those whose loss the others of their row can make up for, which they then do (Frantar & Alistarh 2023, arXiv
    /// 2301.00774).
    SparseGpt,
    /// Whole neurons, channels and heads go.
    Structured,
}

impl PruneMethod {
    /// As options and reports name it.
    pub fn name(self) -> &'static str {
        match self {
            PruneMethod::Magnitude => "magnitude",
            PruneMethod::Random => "random",
            PruneMethod::Wanda => "wanda",
            PruneMethod::SparseGpt => "sparsegpt",
            PruneMethod::Structured => "structured",
        }
    }
}

/// By what structured pruning judges a neuron, channel or head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Importance {
    /// Sum of magnitudes.
    #[default]
    L1,
    /// Root of the sum of squares.
    L2,
    /// Weighted by what flows through on calibration data.
    Activation,
    /// By the seed.
    Random,
}

/// `keep:of`, as `2:4`: of each `of` weights in a row, along the inputs of a product, at most `keep` are not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    /// Weights that may stay.
    pub keep: usize,
    /// Of so many neighbours.
    pub of: usize,
}

/// Neighbours of the largest pattern. Hardware has 4; papers go to 16 or 32.
const LARGEST_PATTERN: usize = 64;

impl Pattern {
    /// Its share of zeros.
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

/// Another sparsity for some weights.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SparsityOverride {
    /// As [`PruneOptions::target_modules`].
    pub pattern: String,
    /// From 0, which leaves what matches, to below 1.
    pub sparsity: f64,
}

impl FromStr for SparsityOverride {
    type Err = Error;

    /// `GLOB=SPARSITY`.
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

/// What to prune, and how.
#[derive(Debug, Clone, Serialize)]
pub struct PruneOptions {
    /// How weights are chosen.
    pub method: PruneMethod,
    /// Share of each weight that is to be zero, above 0 and below 1; for a pattern, what the pattern says.
    pub sparsity: f64,
    /// Zeros in a pattern, for hardware that wants it.
    pub pattern: Option<Pattern>,
    /// Magnitude and random: one threshold for all weights, instead of one for each. Those with an override have their
    /// own all the same.
    pub global: bool,
    /// Another sparsity for weights that match. The first that matches counts.
    pub overrides: Vec<SparsityOverride>,
    /// Of random choices.
    pub seed: u64,
    /// Names or globs of modules, weights or nodes: `query`, `mlp.fc1`, `layer.*.mlp.*`; each may stand for a part of
    /// a longer name, from dot to dot. Empty means all weights of `MatMul`, `Gemm` and `Conv`; those of `LSTM` and `GRU`
    /// must be named.
    pub target_modules: Vec<String>,
    /// As `target_modules`: what is left as it is; wins over them.
    pub exclude: Vec<String>,
    /// Also prune embedding tables (`Gather` of a matrix), and heads that are such a table.
    pub embeddings: bool,
    /// Weights with fewer elements are left.
    pub min_elements: u64,
    /// Structured: by what units are judged.
    pub importance: Importance,
    /// Structured: sizes stay multiples of this, as hardware likes them; 0 is what is usual: 16 for the channels of
    /// convolutions of images and for 256 units or more, 8 from 64 on, the same on every machine (see
    /// [`structured::StructuredOptions::round_to`](super::structured::StructuredOptions::round_to)).
    pub round_to: usize,
    /// Structured, with calibration: the weight behind each cut is fitted to give what it gave.
    pub reconstruct: bool,
    /// Structured: so many whole layers go: those that change least of what flows through them, with calibration, else
    /// some of the later middle. A sparsity of 0 cuts nothing else.
    pub drop_layers: usize,
    /// Structured: the layers that go instead, as names number them.
    pub layers: Vec<usize>,
    /// Structured: instead of a sparsity, the least with which the model takes at most so many bytes; 0 is none.
    pub target_size: u64,
    /// Structured: instead of a sparsity, the least with which the model is measured to be so many times as fast; 0 is
    /// none. Needs ONNX Runtime.
    pub target_speedup: f64,
    /// Worker threads; 0 means all processors.
    #[serde(skip)]
    pub threads: usize,
    /// Where pruned weights lie until they are saved (an unlinked file); default the system's temporary folder.
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
    /// Whether whole layers go.
    pub(super) fn drops_layers(&self) -> bool {
        self.drop_layers > 0 || !self.layers.is_empty()
    }

    /// Refuses what makes no sense.
    pub(super) fn check(&self) -> Result<()> {
        // First: a pattern that is none has no sparsity either.
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
            bail!(InvalidArgument, "{} has no global threshold", self.method.name());
        }
        if let Some(pattern) = self.pattern {
            if structured {
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
                bail!(InvalidArgument, "{:?} has another sparsity, but a pattern has only one", other.pattern);
            }
        }
        let default = PruneOptions::default();
        let set = self.target_size != 0
            || self.target_speedup != 0.0
            || self.importance != default.importance
            || self.round_to != 0
            || self.reconstruct
            || self.drops_layers();
        if set && !structured {
            bail!(InvalidArgument, "importance, round_to, reconstruct, layers and targets are for structured pruning");
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
}
