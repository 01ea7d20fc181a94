//! Compares an original model and its result in one process, on the same inputs: speed, memory, size and quality.
//!
//! [`benchmark`] is the entry point, [`brief`] a short version. [`crate::inputs`] makes the inputs, `pairing` relates
//! token ids and classes of the two models, `bench` runs the benchmark, `timing` runs the models in turn, `quality`
//! compares outputs (`rows` has the sums), and [`report`] contains the results. `crate::statistics` computes the
//! confidence intervals.

mod bench;
mod pairing;
mod quality;
pub mod report;
pub(crate) mod rows;
mod steps;
mod timing;

#[cfg(test)]
mod tests;

pub(crate) use quality::judged_outputs;
pub use report::{BenchmarkReport, Both, Latency, OutputQuality, QualityReport, Speedup};

use crate::call::Call;
use crate::error::{Result, bail};
use crate::inputs::{Batch, InputOptions, Source};
use crate::limits;
use crate::model::Model;
use crate::onnx::validate::model_nodes;
use crate::report::{Report, peak_rss_bytes};
use crate::runtime::{Execution, Kernels, ProviderChoice, Runtime, SessionOptions};
use crate::statistics::{median_interval, percentile, sorted};
use crate::text::Tokenizer;
use bench::Bench;
use pairing::Pairing;
use serde::Serialize;
use std::time::{Duration, Instant};
use steps::Steps;
use timing::{Clock, Rounds, Side};
pub(crate) use timing::{Pair, Subject};
pub use timing::{RunFn, Timed};

/// The options of a benchmark.
#[derive(Debug, Clone, Serialize)]
pub struct BenchmarkOptions {
    /// Number of timed rounds, in each of which one run of each model is timed: 1 to 1,000,000. Default: 50.
    pub runs: usize,
    /// Number of warm-up rounds, at most 1,000,000. The warm-up ends early after a fifth of `max_seconds`. Default: 5.
    pub warmup: usize,
    /// Number of threads of each session; 0 for one per physical core. Default: 0.
    pub threads: usize,
    /// Inputs of the models. The seed is also that of the bootstrap.
    #[serde(flatten)]
    pub inputs: InputOptions,
    /// Execution provider and device of the sessions.
    pub execution: Execution,
    /// Time limit of the timed rounds in seconds, 0 or more; at least five rounds (or `runs`, if that is less) are run
    /// even if they take longer. Default: 30.
    pub max_seconds: f64,
}

impl Default for BenchmarkOptions {
    fn default() -> Self {
        BenchmarkOptions {
            runs: 50,
            warmup: 5,
            threads: 0,
            inputs: InputOptions::default(),
            execution: Execution::default(),
            max_seconds: 30.0,
        }
    }
}

/// Measures `result` against `original` and compares their outputs. Returns times and memory, and the differences of
/// the outputs.
///
/// Each model is first loaded alone (the smaller, then the larger) for load time, first run and memory; then both are
/// loaded and run in turn. On the CPU with one thread, a run is timed in CPU time, otherwise by the wall clock. The
/// speedup is the median of the ratios of paired runs, with a 95 % bootstrap interval.
///
/// `tokenizer` is the original's; without it, texts cannot be inputs. A result with another tokenizer reads the texts
/// with its own, and classes in another order are compared by name. Progress stage: `benchmark`, in rounds and input
/// sets. Memory: both models loaded.
///
/// Fails with [`crate::error::Kind::InvalidArgument`] if the inputs of the models differ in name or type, or if the
/// result lacks an output of the original. Inputs and outputs of a decoder's cache may differ. Also fails with
/// `InvalidArgument` if the outputs are over different classes or tokens, or if the options are invalid or do not match
/// the models. Also fails if a model cannot be loaded or run.
pub fn benchmark(
    runtime: &'static Runtime,
    original: &Model,
    result: &Model,
    tokenizer: Option<&Tokenizer>,
    options: &BenchmarkOptions,
    call: &Call,
) -> Result<(BenchmarkReport, QualityReport)> {
    measure(runtime, Side::Model(original), Side::Model(result), tokenizer, options, call)
}

/// Measures an engine against its original, and returns the same as [`benchmark`]. Runs of both are timed by the wall
/// clock and include copying inputs and outputs. Fails like [`benchmark`].
pub fn benchmark_engine(
    runtime: &'static Runtime,
    original: &Model,
    engine: &dyn Timed,
    tokenizer: Option<&Tokenizer>,
    options: &BenchmarkOptions,
    call: &Call,
) -> Result<(BenchmarkReport, QualityReport)> {
    measure(runtime, Side::Model(original), Side::Engine(engine), tokenizer, options, call)
}

/// Measures `result` against `original`, and returns the same as [`benchmark`], but with less work: the models are not
/// loaded alone, so memory and the time of the first run are absent from the report. There are at most 15 timed rounds
/// and one warm-up round. Timing and comparison take about 0.6 seconds each; slow models take longer, because at least
/// three rounds (or `runs`, if that is less) and one input set are run. Fails like [`benchmark`].
pub fn brief(
    runtime: &'static Runtime,
    original: &Model,
    result: &Model,
    tokenizer: Option<&Tokenizer>,
    options: &BenchmarkOptions,
    call: &Call,
) -> Result<(BenchmarkReport, QualityReport)> {
    let max_seconds = options.max_seconds.min(BRIEF_SECONDS);
    let mut options = BenchmarkOptions { warmup: options.warmup.min(1), max_seconds, ..options.clone() };
    options.runs = options.runs.min(BRIEF_ROUNDS);
    check(&options)?;
    same_outputs(original, result)?;
    let pairing = Pairing::new(original, result, tokenizer)?;
    let sides = [Side::Model(original), Side::Model(result)];
    let mut bench = Bench::new(runtime, sides, tokenizer, &pairing, &options)?;
    let session = bench.session();
    let mut steps = Steps::new(call, options.warmup + options.runs + bench.source.count());
    let mut pair = bench.pair(&session, &steps)?;
    let begin = Instant::now();
    let inputs = bench.settled(&mut pair, &steps)?;
    // Slow models are run fewer times.
    let rounds = (2.0 * BRIEF_SECONDS / begin.elapsed().as_secs_f64()) as usize;
    let runs = options.runs.min(rounds.max(BRIEF_FEWEST));
    let timed = BenchmarkOptions { runs, ..options.clone() };
    steps.skip(options.runs - runs)?;
    let rounds = pair.race(inputs.each(), &timed, clock(&session), &mut steps)?;
    let limit = Instant::now() + Duration::from_secs_f64(BRIEF_SECONDS);
    let quality = bench.compare(&mut pair, Some(limit), &mut steps)?;
    Ok((bench.report(&pair, &inputs, &rounds, None), quality))
}

/// Returns the closeness of the outputs of two models on the inputs on which [`benchmark`] compares them, without
/// measuring speed. Fails like [`benchmark`].
pub fn closeness(
    runtime: &'static Runtime,
    original: &Model,
    result: &Model,
    tokenizer: Option<&Tokenizer>,
    options: &BenchmarkOptions,
    call: &Call,
) -> Result<QualityReport> {
    compared(runtime, (original, result), tokenizer, options, None, call)
}

/// Returns the closeness of the outputs on as many inputs as fit in the time `limit`, at least one.
fn compared(
    runtime: &'static Runtime,
    (original, result): (&Model, &Model),
    tokenizer: Option<&Tokenizer>,
    options: &BenchmarkOptions,
    limit: Option<Duration>,
    call: &Call,
) -> Result<QualityReport> {
    check(options)?;
    same_outputs(original, result)?;
    let pairing = Pairing::new(original, result, tokenizer)?;
    let sides = [Side::Model(original), Side::Model(result)];
    let mut bench = Bench::new(runtime, sides, tokenizer, &pairing, options)?;
    let mut steps = Steps::new(call, bench.source.count());
    let mut pair = bench.pair(&bench.session(), &steps)?;
    bench.settled(&mut pair, &steps)?;
    bench.compare(&mut pair, limit.map(|limit| Instant::now() + limit), &mut steps)
}

fn measure(
    runtime: &'static Runtime,
    original: Side<'_>,
    result: Side<'_>,
    tokenizer: Option<&Tokenizer>,
    options: &BenchmarkOptions,
    call: &Call,
) -> Result<(BenchmarkReport, QualityReport)> {
    check(options)?;
    same_outputs(original.model(), result.model())?;
    let pairing = Pairing::new(original.model(), result.model(), tokenizer)?;
    let mut bench = Bench::new(runtime, [original, result], tokenizer, &pairing, options)?;
    let session = bench.session();
    let mut steps = Steps::new(call, 2 + options.warmup + options.runs + bench.source.count());
    let (inputs, each) = bench.alone(&session, &mut steps)?;
    let mut pair = bench.pair(&session, &steps)?;
    let clock = if matches!(result, Side::Engine(_)) { Clock::Wall } else { clock(&session) };
    let rounds = pair.race(inputs.each(), options, clock, &mut steps)?;
    let quality = bench.compare(&mut pair, None, &mut steps)?;
    let mut report = bench.report(&pair, &inputs, &rounds, Some(each));
    report.clock = clock.name();
    report.seconds = bench.start.elapsed().as_secs_f64();
    Ok((report, quality))
}

/// The maximum number of rounds of a brief benchmark.
const BRIEF_ROUNDS: usize = 15;
/// The minimum number of rounds of a brief benchmark, unless fewer were requested.
const BRIEF_FEWEST: usize = 3;
/// The approximate duration in seconds of each of the two parts of a brief benchmark: timing and comparison.
const BRIEF_SECONDS: f64 = 0.6;

/// Returns the report of the operation `benchmark`, which only measures.
pub fn into_report(options: &BenchmarkOptions, benchmark: &BenchmarkReport, quality: &QualityReport) -> Report {
    let mut report = Report::new("benchmark", serde_json::to_value(options).unwrap_or_default());
    report.seconds = benchmark.seconds;
    report.peak_rss_bytes = peak_rss_bytes();
    attach(&mut report, benchmark, quality);
    report
}

/// Returns the closeness of the outputs when both models run on ONNX Runtime's own kernels; the comparison ends after
/// about 0.6 seconds. It may be lower than in the benchmark `speed`: for `DynamicQuantizeLinear`, ONNX Runtime uses one
/// scale for all rows of an activation, and this library one per row. Returns `None` if `result` has no such node, or
/// did not use this library's kernels in `speed`. Fails like [`benchmark`].
pub fn stock_closeness(
    runtime: &'static Runtime,
    (original, result): (&Model, &Model),
    tokenizer: Option<&Tokenizer>,
    options: &BenchmarkOptions,
    speed: &BenchmarkReport,
    call: &Call,
) -> Result<Option<QualityReport>> {
    // These nodes quantize activations when the model runs.
    let rounds = model_nodes(result.proto()).any(|node| node.op().starts_with("DynamicQuantize"));
    if speed.placement.result.groups == 0 || !rounds {
        return Ok(None);
    }
    let execution = Execution { kernels: Kernels::Stock, ..options.execution.clone() };
    let options = BenchmarkOptions { execution, ..options.clone() };
    let limit = Some(Duration::from_secs_f64(BRIEF_SECONDS));
    compared(runtime, (original, result), tokenizer, &options, limit, call).map(Some)
}

/// Adds the results of a benchmark to the report of the technique that produced the model.
pub fn attach(report: &mut Report, benchmark: &BenchmarkReport, quality: &QualityReport) {
    report.benchmark = serde_json::to_value(benchmark).ok();
    report.quality = serde_json::to_value(quality).ok();
}

fn check(options: &BenchmarkOptions) -> Result<()> {
    if options.runs == 0 || options.runs > limits::BENCHMARK_RUNS || options.warmup > limits::BENCHMARK_RUNS {
        let (runs, warmup, most) = (options.runs, options.warmup, limits::BENCHMARK_RUNS);
        bail!(InvalidArgument, "runs is {runs} and warmup {warmup}; runs is 1 to {most}, warmup up to {most}");
    }
    if options.inputs.batch_size == 0 {
        bail!(InvalidArgument, "batch_size is 0; it must be at least 1");
    }
    if options.max_seconds.is_nan() || options.max_seconds < 0.0 {
        bail!(InvalidArgument, "max_seconds is {}; it must be 0 or more", options.max_seconds);
    }
    Ok(())
}

/// Checks that the result has the outputs of the original, except those of a decoder's cache (`present…`). Fails with
/// `InvalidArgument` if one is missing. The comparison would notice that too, but only after the timing.
fn same_outputs(original: &Model, result: &Model) -> Result<()> {
    let given = result.outputs();
    let lacks = |name: &str| !name.starts_with("present") && !given.iter().any(|other| other.name == name);
    match original.outputs().iter().find(|output| lacks(&output.name)) {
        Some(missing) => {
            bail!(InvalidArgument, "only the original has the output {:?}: the models cannot be compared", missing.name)
        }
        None => Ok(()),
    }
}

/// Returns inputs for timing a model, of sizes that it accepts; it is loaded and run to find them. Fails if it accepts
/// none.
pub(crate) fn settled(
    runtime: &'static Runtime,
    model: &Model,
    options: &BenchmarkOptions,
    session: &SessionOptions,
    call: &Call,
) -> Result<Batch> {
    let tokenizer = Tokenizer::of(model)?;
    let mut source = Source::new(model, tokenizer.as_ref(), &options.inputs)?;
    let mut subject = Subject::new(runtime, model, session, call)?;
    source.settle(|source| {
        let inputs = source.timing()?;
        subject.run(&inputs.feed(), call).map(|_| inputs)
    })
}

/// Runs both models of a pair in turn on the same inputs, and returns the speedup. Fails if a model cannot be run.
pub(crate) fn race(
    pair: &mut Pair,
    inputs: &Batch,
    options: &BenchmarkOptions,
    session: &SessionOptions,
    call: &Call,
) -> Result<Speedup> {
    let quiet = Call { progress: None, ..*call };
    let mut steps = Steps::new(&quiet, options.warmup + options.runs);
    let rounds = pair.race([inputs, inputs], options, clock(session), &mut steps)?;
    Ok(speedup(&rounds, options.inputs.seed))
}

/// Returns the clock for a session. CPU time does not cover work on a GPU: there, the wall clock is used, including
/// copies.
fn clock(session: &SessionOptions) -> Clock {
    if session.execution.provider == ProviderChoice::Cpu {
        Clock::for_threads(session.thread_count())
    } else {
        Clock::Wall
    }
}

fn speedup(rounds: &Rounds, seed: u64) -> Speedup {
    let ratios = sorted(&rounds.ratios());
    let (low, high) = median_interval(&ratios, seed);
    Speedup { median: percentile(&ratios, 0.5), low, high, verdict: Speedup::verdict(low, high) }
}

impl<T: Copy> Both<T> {
    fn map<U>(self, change: impl Fn(T) -> U) -> Both<U> {
        Both { original: change(self.original), result: change(self.result) }
    }
}
