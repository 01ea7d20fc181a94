//! The result of [`super::table`], as `table.json` has it.

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
    /// Class of this library's kernels on which results run, or the reason why they run on those of ONNX Runtime.
    #[serde(default)]
    pub kernels: String,
    /// Options of the table, with defaults for missing ones.
    pub options: Value,
    /// Rows of each model.
    pub models: Vec<ModelTable>,
}

/// The rows of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelTable {
    /// Name of the model, which is that of its folder or file.
    pub name: String,
    /// Path of the model, as given.
    pub path: String,
    /// SHA-256 of the model, as in [`crate::report::Report`].
    pub sha256: String,
    /// Size in bytes of the model with its tokenizer and configuration.
    pub bytes: u64,
    /// Task of the model: `embed`, `classify`, `generate` or `unknown`.
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

/// The results of one technique on one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the row, as in the option `--rows`.
    pub name: String,
    /// Title of the row for readers.
    pub title: String,
    /// State of the row.
    pub state: State,
    /// Reason why the row was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Recipe of the package.
    pub recipe: Vec<Value>,
    /// Common promise of the technique.
    pub promise: Promise,
    /// Path of the package, relative to the output folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Size of the package in bytes.
    pub bytes: u64,
    /// Share by which the package is smaller than the original; negative if it is larger.
    pub smaller: f64,
    /// Time in seconds that the recipe took.
    pub made_seconds: f64,
    /// Time to create a session in milliseconds, of original and result.
    pub load_ms: Option<Pair>,
    /// Growth of resident memory over load and first run, in bytes, of original and result.
    pub resident_bytes: Option<[u64; 2]>,
    /// Latency for each size of the input.
    pub speed: Vec<Speed>,
    /// Measures of quality, the most important first.
    pub quality: Vec<Figure>,
    /// Comparisons of the promises with what was measured.
    pub verdicts: Vec<Verdict>,
    /// Number of nodes for each action on them, over all steps.
    #[serde(default)]
    pub actions: Vec<(String, u64)>,
    /// Warnings of the techniques.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// The same measurement of original and result.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Value for the original model, on ONNX Runtime's own kernels.
    pub original: Interval,
    /// Value for the result.
    pub result: Interval,
}

/// A number with its 95 % bootstrap interval.
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
    /// Name of the size, for example `1x128`, `prefill 128` or `decode`.
    pub size: String,
    /// Latency in milliseconds per run, or per token for `decode`.
    pub latency_ms: Pair,
    /// Time of the original divided by time of the result, paired round by round.
    pub speedup: Interval,
}

/// A measure of quality.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Name of the measure: `cosine`, `kl`, `perplexity_ratio`, `top1_agreement` or `accuracy_change`.
    pub name: String,
    /// Value of the measure.
    pub value: Interval,
}

/// The common promise of a technique.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Promise {
    /// Share by which the model becomes smaller; `null` for none.
    pub smaller: Option<f64>,
    /// Minimum and maximum speed-up; `null` for none.
    pub speedup: Option<[f64; 2]>,
    /// Loss of quality: `none`, `minimal`, `moderate`, `varies` or `better`.
    pub loss: String,
}

/// The comparison of a promise with what was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Subject of the promise: `size`, `speed` or `quality`.
    pub of: String,
    /// Whether the promise is met.
    pub met: bool,
    /// Text on what was promised and what was measured, and if the promise is not met, the reason.
    pub text: String,
}

impl Interval {
    /// Returns a number without an interval.
    pub fn exactly(value: f64) -> Interval {
        Interval { value, low: None, high: None }
    }

    /// Returns a number with an interval; ends that are not numbers are omitted.
    pub fn new(value: f64, (low, high): (f64, f64)) -> Interval {
        let end = |end: f64| end.is_finite().then_some(end);
        Interval { value, low: end(low), high: end(high) }
    }

    /// Returns whether two intervals have a number in common; numbers without an interval are points.
    pub fn overlaps(&self, other: &Interval) -> bool {
        let ends = |i: &Interval| (i.low.unwrap_or(i.value), i.high.unwrap_or(i.value));
        let ((a, b), (c, d)) = (ends(self), ends(other));
        a <= d && c <= b
    }
}

impl Row {
    /// Returns the speed by which the row is judged: a text of 128 tokens, or the generation of a token.
    pub fn headline(&self) -> Option<&Speed> {
        let named = |name: &str| self.speed.iter().find(|speed| speed.size == name);
        named("decode").or_else(|| named("1x128")).or(self.speed.first())
    }

    /// Returns the measure of quality with the name `name`; `None` if there is none.
    pub fn figure(&self, name: &str) -> Option<&Interval> {
        self.quality.iter().find(|figure| figure.name == name).map(|figure| &figure.value)
    }
}
