//! What a benchmark says: the `benchmark` and `quality` parts of a [`Report`](crate::report::Report).

use crate::runtime::Placement;
use serde::{Serialize, Serializer};

/// A figure of the original and the same of the result.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Both<T> {
    /// The model before.
    pub original: T,
    /// The model after.
    pub result: T,
}

/// Speed, load time, memory and size of two models on the same inputs.
#[derive(Debug, Clone, Serialize)]
pub struct BenchmarkReport {
    /// Timed rounds; each ran both models once.
    pub runs: usize,
    /// Threads of each session.
    pub threads: usize,
    /// `thread_cpu` (one thread: the processor time of the run) or `wall`.
    pub clock: &'static str,
    /// What each ran on.
    pub placement: Both<Placement>,
    /// `text`, `given` or `generated`.
    pub inputs: &'static str,
    /// Shapes of the inputs that were timed.
    #[serde(serialize_with = "as_map")]
    pub input_shapes: Vec<(String, Vec<i64>)>,
    /// Milliseconds a run over the timed rounds.
    pub latency_ms: Both<Latency>,
    /// How many times as fast as the original the result is.
    pub speedup: Speedup,
    /// Milliseconds to make a session (wall clock): the faster of two times, as the first also reads the files
    /// and the code that is needed.
    pub load_ms: Both<f64>,
    /// Milliseconds of the first run after that (wall clock); not in a brief benchmark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_run_ms: Option<Both<f64>>,
    /// Growth of the process's resident memory, code of libraries apart, over load and first run. Memory that
    /// the process's allocator kept from earlier work and uses again does not show. Not in a brief benchmark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<Both<u64>>,
    /// Bytes of the models on disk.
    pub bytes: Both<u64>,
    /// Bytes of the original over bytes of the result: how many times smaller the result is.
    pub size_ratio: f64,
    /// What the caller may not expect: another tokenizer, another order of the classes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Wall-clock seconds of the whole benchmark, the quality part included.
    pub seconds: f64,
}

/// Time of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Half of the runs took less.
    pub median: f64,
    /// The fastest run.
    pub min: f64,
    /// Nine of ten runs took less.
    pub p90: f64,
}

/// Time of the original over time of the result, round by round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Speedup {
    /// Median over the rounds.
    pub median: f64,
    /// Lower end of the 95 % interval of the median.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// `faster` or `slower`; `no difference` if the interval spans 1.
    pub verdict: &'static str,
}

impl Speedup {
    /// The verdict that a 95 % interval of the speedup allows.
    pub fn verdict(low: f64, high: f64) -> &'static str {
        if low > 1.0 {
            "faster"
        } else if high < 1.0 {
            "slower"
        } else {
            "no difference"
        }
    }
}

/// How close the result's outputs are to the original's, over all samples. The first figures are those of the
/// primary output; a figure that makes no sense for an output is absent (`null` in JSON).
#[derive(Debug, Clone, Serialize)]
pub struct QualityReport {
    /// The primary output: the first whose name contains `logits`; else `sentence_embedding`; else the first
    /// float output.
    pub output: String,
    /// See [`OutputQuality::cosine`].
    pub cosine: Option<f64>,
    /// See [`OutputQuality::max_abs_error`].
    pub max_abs_error: Option<f64>,
    /// See [`OutputQuality::top1_agreement`].
    pub top1_agreement: Option<f64>,
    /// See [`OutputQuality::kl`].
    pub kl: Option<f64>,
    /// Texts, given samples or generated inputs that were compared.
    pub samples: usize,
    /// Why outputs were not compared, if some could not be: they have other sizes or types in the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_compared: Option<String>,
    /// Every output.
    pub outputs: Vec<OutputQuality>,
}

/// How close one output is. A *row* is the vector along the last dimension; rows of padding are left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OutputQuality {
    /// Name of the output.
    pub name: String,
    /// Element type in the original.
    pub dtype: &'static str,
    /// Rows that were compared.
    pub rows: u64,
    /// Mean over the rows of `a·b / (|a| |b|)`; 0 for a row in which the result has a value that is not finite.
    /// Where rows are single numbers, all of them together are one row.
    pub cosine: Option<f64>,
    /// The smallest cosine of a row.
    pub cosine_min: Option<f64>,
    /// The largest `|a - b|`.
    pub max_abs_error: Option<f64>,
    /// `sqrt(Σ(a - b)² / Σa²)`.
    pub relative_rms: Option<f64>,
    /// Share of rows whose largest element is at the same place.
    pub top1_agreement: Option<f64>,
    /// Mean over the rows of `KL(softmax(a) ‖ softmax(b))` in nats, for outputs that look like logits.
    pub kl: Option<f64>,
    /// Share of equal elements, for outputs that are not float.
    pub exact_match: Option<f64>,
    /// Elements of the result that are infinite or not a number where the original's are not the same.
    pub non_finite: u64,
}

/// Pairs as a JSON object.
pub(super) fn as_map<T: Serialize, S: Serializer>(pairs: &[(String, T)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}

/// Tensors may be large, and are the caller's own: reports only name them.
pub(super) fn names<T, S: Serializer>(pairs: &[(String, T)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(pairs.iter().map(|(name, _)| name))
}
