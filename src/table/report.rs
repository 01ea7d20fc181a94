//! The result of [`super::table`], which is also the content of `table.json`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of the schema of `table.json`.
pub const SCHEMA_VERSION: u32 = 1;

/// The table of all models and techniques.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Version of the schema, [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Name of the operation, `table`.
    pub operation: String,
    /// Version of this library.
    pub library_version: String,
    /// Version of ONNX Runtime.
    pub runtime_version: String,
    /// Properties of the machine, as in [`crate::report::Report`].
    pub machine: Value,
    /// Class of this library's kernels on which results run, or `stock: ` with the reason why they run on those of ONNX
    /// Runtime.
    #[serde(default)]
    pub kernels: String,
    /// All fields of [`super::TableOptions`] except `more`; of `data`, the size in bytes and a SHA-256, or `null`.
    pub options: Value,
    /// Rows of each model.
    pub models: Vec<ModelTable>,
}

/// The rows of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelTable {
    /// Name of the model, made from the name of its folder or file; no other model of the table has it.
    pub name: String,
    /// Path of the model; empty for a model in memory.
    pub path: String,
    /// SHA-256 of the model, as in [`crate::report::Report`].
    pub sha256: String,
    /// Size in bytes of the model with its tokenizer and configuration.
    pub bytes: u64,
    /// Task of the model: `embed`, `classify`, `generate`, `fill-mask` or `unknown`.
    pub task: String,
    /// Descriptions of the timed inputs.
    pub inputs: Vec<String>,
    /// Description of the data on which quality was measured.
    pub data: String,
    /// Rows of the model; a row that has not been measured yet is absent.
    pub rows: Vec<Row>,
}

/// The state of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The row was measured.
    Measured,
    /// The row was not measured, because something that it needs is missing on this machine: a GPU, data, another
    /// model.
    Skipped,
    /// The row was not measured, because the technique failed on the model.
    Failed,
}

/// The results of one technique on one model. Unless `state` is [`State::Measured`], only `name`, `title`, `state`,
/// `reason`, `recipe` and `promise` have a meaning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the row, as in the option `--rows`.
    pub name: String,
    /// Title of the row for readers.
    pub title: String,
    /// State of the row.
    pub state: State,
    /// Reason why the row was not measured; `None` if it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Recipe that makes the package (or the TensorRT engine) from the model.
    pub recipe: Vec<Value>,
    /// Common promise of the technique.
    pub promise: Promise,
    /// Name of the package or engine in the folder `packages` of the output folder; `None` if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Size of the package or engine in bytes.
    pub bytes: u64,
    /// Share by which the package is smaller than the original; negative if it is larger.
    pub smaller: f64,
    /// Time in seconds that the recipe took.
    pub made_seconds: f64,
    /// Time to create a session or generator in milliseconds, of original and result; `None` if it was not measured.
    pub load_ms: Option<Pair>,
    /// Growth of resident memory over load and first run, in bytes, of original and result; `None` if it was not
    /// measured.
    pub resident_bytes: Option<[u64; 2]>,
    /// Latency for each timed size of the input.
    pub speed: Vec<Speed>,
    /// Measures of quality, the most important first.
    pub quality: Vec<Figure>,
    /// Comparisons of the promises with what was measured.
    pub verdicts: Vec<Verdict>,
    /// Number of nodes for each action of a technique on them (such as `quantized`), over all steps of the recipe.
    #[serde(default)]
    pub actions: Vec<(String, u64)>,
    /// Warnings of the techniques.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A measurement of the original and of the result.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Value for the original model, on ONNX Runtime's own kernels.
    pub original: Interval,
    /// Value for the result.
    pub result: Interval,
}

/// A number with its 95 % bootstrap interval, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Number that was measured.
    pub value: f64,
    /// Lower end of the interval; `null` if there is none.
    pub low: Option<f64>,
    /// Upper end of the interval; `null` if there is none.
    pub high: Option<f64>,
}

/// The latency for one size of the input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Name of the size: the shape of the input with the most elements, for example `1x128`; `prefill 128` or `decode`
    /// for decoders.
    pub size: String,
    /// Latency in milliseconds per run, or per token for `decode`.
    pub latency_ms: Pair,
    /// Time of the original divided by time of the result in the same round: the median over the rounds.
    pub speedup: Interval,
}

/// A measure of quality.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Name of the measure: `cosine`, `nearest_kept`, `accuracy_change`, `perplexity_ratio`, `kl`, `top1_agreement` or
    /// `perplexity`.
    pub name: String,
    /// Value of the measure.
    pub value: Interval,
}

/// The common promise of a technique: what publications and tools usually say of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Promise {
    /// Share by which the model becomes smaller; `null` if nothing is promised.
    pub smaller: Option<f64>,
    /// Minimum and maximum speed-up; `null` if nothing is promised.
    pub speedup: Option<[f64; 2]>,
    /// Loss of quality: `none`, `minimal`, `moderate`, `varies` (nothing is promised), or `better` for a gain.
    pub loss: String,
}

/// The comparison of a promise with what was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Subject of the promise: `size`, `speed` or `quality`.
    pub of: String,
    /// Whether the promise is met.
    pub met: bool,
    /// Text on what was promised and what was measured, and if the promise is not met, the usual reason if there is
    /// one.
    pub text: String,
}

impl Interval {
    /// Returns a number without an interval.
    pub fn exactly(value: f64) -> Interval {
        Interval { value, low: None, high: None }
    }

    /// Returns a number with an interval; ends that are not finite become `None`.
    pub fn new(value: f64, (low, high): (f64, f64)) -> Interval {
        let end = |end: f64| end.is_finite().then_some(end);
        Interval { value, low: end(low), high: end(high) }
    }

    /// Returns whether two intervals have a number in common. A number without an interval counts as a point.
    pub fn overlaps(&self, other: &Interval) -> bool {
        let ends = |i: &Interval| (i.low.unwrap_or(i.value), i.high.unwrap_or(i.value));
        let ((a, b), (c, d)) = (ends(self), ends(other));
        a <= d && c <= b
    }
}

impl Row {
    /// Returns the speed that is compared with the promise: that of the size `decode`, otherwise of `1x128`, otherwise
    /// of the first size; `None` if no speed was measured.
    pub fn headline(&self) -> Option<&Speed> {
        let named = |name: &str| self.speed.iter().find(|speed| speed.size == name);
        named("decode").or_else(|| named("1x128")).or(self.speed.first())
    }

    /// Returns the measure of quality with the name `name`; `None` if there is none.
    pub fn figure(&self, name: &str) -> Option<&Interval> {
        self.quality.iter().find(|figure| figure.name == name).map(|figure| &figure.value)
    }
}
