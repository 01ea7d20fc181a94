//! The result of a benchmark: the `benchmark` and `quality` parts of a [`Report`](crate::report::Report).

use crate::inputs::as_map;
use crate::runtime::Placement;
use serde::Serialize;

/// The same measurement for the original and for the result.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Both<T> {
    /// Value for the original model.
    pub original: T,
    /// Value for the resulting model.
    pub result: T,
}

/// Speed, load time, memory and size of two models on the same inputs.
#[derive(Debug, Clone, Serialize)]
pub struct BenchmarkReport {
    /// Number of timed rounds, in each of which one run of each model was timed.
    pub runs: usize,
    /// Number of threads of each session.
    pub threads: usize,
    /// Name of the clock: `thread_cpu` (the CPU time of the thread, for one thread on the CPU) or `wall`.
    pub clock: &'static str,
    /// Provider and device on which each model ran.
    pub placement: Both<Placement>,
    /// Source of the inputs: `text`, `given` or `generated`.
    pub inputs: &'static str,
    /// Shapes of the timed inputs.
    #[serde(serialize_with = "as_map")]
    pub input_shapes: Vec<(String, Vec<i64>)>,
    /// Latency in milliseconds per run, over the timed rounds.
    pub latency_ms: Both<Latency>,
    /// Speed of the result relative to the original; 2 means twice as fast.
    pub speedup: Speedup,
    /// Time to create a session in milliseconds (wall clock). It is the shorter of two times, because the first also
    /// reads files and code; in a brief benchmark, there is only one.
    pub load_ms: Both<f64>,
    /// Time of the first run in milliseconds (wall clock); `None` (absent in JSON) in a brief benchmark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_run_ms: Option<Both<f64>>,
    /// Growth of the process's resident memory in bytes, without library code, over load and first run. Memory that the
    /// allocator kept from earlier work and reuses is not included. `None` (absent in JSON) in a brief benchmark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<Both<u64>>,
    /// Size of the models on disk in bytes; for a package, of all its files.
    pub bytes: Both<u64>,
    /// Size of the original divided by the size of the result.
    pub size_ratio: f64,
    /// Notes about differences that affect the comparison: another tokenizer or another order of the classes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Wall-clock seconds of the whole benchmark, including the quality part.
    pub seconds: f64,
}

/// The time of a run in milliseconds, over the timed rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Median of the times.
    pub median: f64,
    /// Minimum of the times.
    pub min: f64,
    /// 90th percentile of the times.
    pub p90: f64,
}

/// The speed of the result relative to the original: the ratios of their times, round by round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Speedup {
    /// Median of the ratios over the rounds.
    pub median: f64,
    /// Lower end of the 95 % interval of the median.
    pub low: f64,
    /// Upper end of the 95 % interval of the median.
    pub high: f64,
    /// Verdict: `faster` or `slower`, or `no difference` if the interval contains 1.
    pub verdict: &'static str,
}

impl Speedup {
    /// Returns the verdict for a 95 % interval of the speedup.
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

/// The closeness of the result's outputs to the original's, over all samples. Each of the numbers `cosine` to `kl` is
/// the worst over the outputs in `judged`; it is `None` (`null` in JSON) if no output in `judged` has it.
#[derive(Debug, Clone, Serialize)]
pub struct QualityReport {
    /// Name of the output in `judged` with the lowest cosine; the first output if `judged` is empty; an empty text if
    /// no output was compared.
    pub output: String,
    /// Names of the outputs by which the quality is judged: the float outputs whose name does not contain `present` (a
    /// decoder's cache). If a name contains `logit`, outputs with `hidden`, `attention` or `pool` in their names are
    /// not judged either. Otherwise, if a name contains `sentence_embedding`, only such outputs are judged. If none is
    /// left, all float outputs are judged.
    pub judged: Vec<String>,
    /// Lowest mean cosine; see [`OutputQuality::cosine`].
    pub cosine: Option<f64>,
    /// Largest difference; see [`OutputQuality::max_abs_error`].
    pub max_abs_error: Option<f64>,
    /// Lowest agreement of the largest elements; see [`OutputQuality::top1_agreement`].
    pub top1_agreement: Option<f64>,
    /// Largest KL divergence; see [`OutputQuality::kl`]. `None` if the divergence of an output in `judged` is not
    /// finite.
    pub kl: Option<f64>,
    /// Lowest fraction of equal elements of an output that is not float; see [`OutputQuality::exact_match`]. `None` if
    /// all outputs are float.
    pub exact_match: Option<f64>,
    /// Number of texts, given samples or generated inputs that were compared.
    pub samples: usize,
    /// Reason why an output was not compared: its shape differs in the result, it is float in only one of the models,
    /// or the original has no finite value in it. If several outputs were not compared, this is the reason for the
    /// first. `None` if all were compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_compared: Option<String>,
    /// Closeness of each output that was compared.
    pub outputs: Vec<OutputQuality>,
}

/// The closeness of one output. A *row* is the vector along the last dimension; padding rows are omitted. All numbers
/// that are `Option`s, except `exact_match`, are `None` (`null` in JSON) if the output is not float or no row was
/// compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OutputQuality {
    /// Name of the output.
    pub name: String,
    /// Element type of the output in the original.
    pub dtype: &'static str,
    /// Number of rows that were compared; 0 for outputs that are not float.
    pub rows: u64,
    /// Mean of the cosine `a·b / (|a| |b|)` over the rows, where `a` is the original's row and `b` the result's; 0 for
    /// a row with an element that `non_finite` counts. Where rows have one element, all of them together form one row.
    pub cosine: Option<f64>,
    /// Smallest cosine of a row.
    pub cosine_min: Option<f64>,
    /// Largest difference `|a - b|` of two finite elements.
    pub max_abs_error: Option<f64>,
    /// Relative root mean square `sqrt(Σ(a - b)² / Σa²)` of the difference, over finite elements; `None` if only the
    /// divisor is 0.
    pub relative_rms: Option<f64>,
    /// Fraction of rows whose largest element has the same index; `None` if rows have one element.
    pub top1_agreement: Option<f64>,
    /// Mean over the rows of the divergence `KL(softmax(a) ‖ softmax(b))` in nats, for outputs whose name contains
    /// `logit` or whose rows are as long as the vocabulary (at least 1000). `None` for other outputs, and if it is not
    /// finite.
    pub kl: Option<f64>,
    /// Fraction of equal elements of an output that is not float; `None` for float outputs.
    pub exact_match: Option<f64>,
    /// Number of elements of the result that are infinite or NaN where the original's are not the same.
    pub non_finite: u64,
}
