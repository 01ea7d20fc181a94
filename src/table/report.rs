//! The result of [`super::table`], as `table.json` has it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Version of the schema of `table.json`.
pub const SCHEMA_VERSION: u32 = 1;

/// The table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Version of the schema, [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// `table`.
    pub operation: String,
    /// Version of this library.
    pub library_version: String,
    /// Version of ONNX Runtime.
    pub runtime_version: String,
    /// The machine, as in [`crate::report::Report`].
    pub machine: Value,
    /// Class of this library's kernels that results run on, or why they run on those of ONNX Runtime.
    #[serde(default)]
    pub kernels: String,
    /// The options, with defaults filled in.
    pub options: Value,
    /// One table for each model.
    pub models: Vec<ModelTable>,
}

/// The rows of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelTable {
    /// Name of the model: that of its folder or file.
    pub name: String,
    /// Path, as given.
    pub path: String,
    /// SHA-256 of the model, as in [`crate::report::Report`].
    pub sha256: String,
    /// Bytes of the model with its tokenizer and configuration.
    pub bytes: u64,
    /// The task: `embed`, `classify`, `generate`, `unknown`.
    pub task: String,
    /// The timed inputs, in words.
    pub inputs: Vec<String>,
    /// What quality was measured on, in words.
    pub data: String,
    /// The rows; a row that has not been measured yet is absent.
    pub rows: Vec<Row>,
}

/// The state of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was measured.
    Measured,
    /// Something that it needs is missing here: a GPU, data, another model.
    Skipped,
    /// The technique failed on this model.
    Failed,
}

/// One technique on one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the row, as in `--rows`.
    pub name: String,
    /// Title for readers.
    pub title: String,
    /// Its state.
    pub state: State,
    /// Reason why it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The recipe of the package.
    pub recipe: Vec<Value>,
    /// What is commonly promised of the technique.
    pub promise: Promise,
    /// Path of the package, relative to the output folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Bytes of the package.
    pub bytes: u64,
    /// Share by which it is smaller than the original; negative if it is larger.
    pub smaller: f64,
    /// Seconds that the recipe took.
    pub made_seconds: f64,
    /// Time to create a session in milliseconds, of original and result.
    pub load_ms: Option<Pair>,
    /// Growth of resident memory over load and first run, in bytes, of original and result.
    pub resident_bytes: Option<[u64; 2]>,
    /// Latencies, by size of the input.
    pub speed: Vec<Speed>,
    /// Quality, the most important figure first.
    pub quality: Vec<Figure>,
    /// The promises, compared with what was measured.
    pub verdicts: Vec<Verdict>,
    /// Number of nodes by what was done to them, over all steps.
    #[serde(default)]
    pub actions: Vec<(String, u64)>,
    /// Warnings of the techniques.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// The same figure for original and result.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The original model, on ONNX Runtime's own kernels.
    pub original: Interval,
    /// The result.
    pub result: Interval,
}

/// A figure with its 95 % bootstrap interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The figure.
    pub value: f64,
    /// Lower end; `null` if there is no interval.
    pub low: Option<f64>,
    /// Upper end; `null` if there is no interval.
    pub high: Option<f64>,
}

/// Latency for one size of the input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// The size: `1x128`, `prefill 128`, `decode`.
    pub size: String,
    /// Milliseconds per run, or per token for `decode`.
    pub latency_ms: Pair,
    /// Time of the original divided by time of the result, paired round by round.
    pub speedup: Interval,
}

/// A figure of quality.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// `cosine`, `kl`, `perplexity_ratio`, `top1_agreement`, `accuracy_change`.
    pub name: String,
    /// The figure.
    pub value: Interval,
}

/// What is commonly promised of a technique.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Promise {
    /// Share by which the model becomes smaller; `null` for none.
    pub smaller: Option<f64>,
    /// Speed-up from and to; `null` for none.
    pub speedup: Option<[f64; 2]>,
    /// Loss of quality: `none`, `minimal`, `moderate`, `varies`, `better`.
    pub loss: String,
}

/// A promise, compared with what was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// `size`, `speed` or `quality`.
    pub of: String,
    /// Whether the promise is met.
    pub met: bool,
    /// What was promised and what was measured, and if the promise is not met, why.
    pub text: String,
}

impl Interval {
    /// Returns a figure without an interval.
    pub fn exactly(value: f64) -> Interval {
        Interval { value, low: None, high: None }
    }

    /// Returns a figure with an interval; ends that are not numbers are left out.
    pub fn new(value: f64, (low, high): (f64, f64)) -> Interval {
        let end = |end: f64| end.is_finite().then_some(end);
        Interval { value, low: end(low), high: end(high) }
    }

    /// Returns whether two intervals have a number in common; figures without an interval are points.
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

    /// Returns a figure of quality by its name.
    pub fn figure(&self, name: &str) -> Option<&Interval> {
        self.quality.iter().find(|figure| figure.name == name).map(|figure| &figure.value)
    }
}
