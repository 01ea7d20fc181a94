//! Original against result, in one process, on the same inputs: speed, memory, size and quality.
//!
//! [`benchmark`] is the way in, [`brief`] the short way. [`inputs`] makes what the models are given (`text` from texts,
//! `values` from the signature; of which sizes, [`crate::inputs`] says), `bench` leads the benchmark, `timing` runs the
//! models in turn, `memory` says what they take, `quality` compares what comes out (`rows` has its sums), [`report`] is
//! what the caller gets. How sure the figures are says `crate::statistics`.

mod bench;
pub mod inputs;
mod memory;
mod pairing;
mod quality;
pub mod report;
pub(crate) mod rows;
mod sentences;
mod steps;
pub(crate) mod text;
mod timing;
mod values;

#[cfg(test)]
mod tests;

pub(crate) use quality::primary_output;
pub use report::{BenchmarkReport, Both, Latency, OutputQuality, QualityReport, Speedup};
pub(crate) use text::Role;

use crate::call::Call;
use crate::error::{Result, bail};
use crate::limits;
use crate::model::Model;
use crate::report::{Report, peak_rss_bytes};
use crate::runtime::{Execution, ProviderChoice, Runtime, SessionOptions, Tensor};
use crate::statistics::{median_interval, percentile, sorted};
use crate::text::Tokenizer;
use bench::Bench;
use inputs::InputSet;
pub(crate) use inputs::Source;
use pairing::Pairing;
use serde::Serialize;
use std::time::{Duration, Instant};
use steps::Steps;
use timing::{Clock, Rounds, Side};
pub(crate) use timing::{Pair, Subject};
pub use timing::{RunFn, Timed};

/// What to measure, and on which inputs.
#[derive(Debug, Clone, Serialize)]
pub struct BenchmarkOptions {
    /// Texts for models that take token ids; needs a tokenizer. Empty: 32 built-in sentences.
    #[serde(serialize_with = "count")]
    pub texts: Vec<String>,
    /// Timed rounds, in each of which both models run once.
    pub runs: usize,
    /// Rounds before those.
    pub warmup: usize,
    /// Threads of each session; 0 is one for each physical core.
    pub threads: usize,
    /// Texts, or generated samples, in one run.
    pub batch_size: usize,
    /// Tokens of the timed inputs, and the most of any text. 0: the texts' own lengths for the caller's texts,
    /// 128 for built-in text and for generated inputs.
    pub sequence_length: usize,
    /// Shapes of inputs by name, where the model leaves them open.
    #[serde(serialize_with = "report::as_map")]
    pub shapes: Vec<(String, Vec<i64>)>,
    /// Values of inputs by name: one number for all elements, or one for each.
    #[serde(serialize_with = "report::as_map")]
    pub values: Vec<(String, Vec<f64>)>,
    /// Values of inputs by name, in place of generated ones and of texts: the first dimension counts samples, of which
    /// `batch_size` make a run, or as many as the model insists on; tensors with one dimension more than their input are
    /// cut along it.
    #[serde(serialize_with = "report::names")]
    pub tensors: Vec<(String, Tensor)>,
    /// Seed of generated inputs and of the bootstrap: the same seed gives the same inputs.
    pub seed: u64,
    /// What the sessions run on.
    pub execution: Execution,
    /// Seconds for the timed rounds. When they have passed the rounds end, but not before five.
    pub max_seconds: f64,
}

impl Default for BenchmarkOptions {
    fn default() -> Self {
        BenchmarkOptions {
            texts: Vec::new(),
            runs: 50,
            warmup: 5,
            threads: 0,
            batch_size: 1,
            sequence_length: 0,
            shapes: Vec::new(),
            values: Vec::new(),
            tensors: Vec::new(),
            seed: 0,
            execution: Execution::default(),
            max_seconds: 30.0,
        }
    }
}

/// Texts may be many, and are the caller's own: reports only count them.
fn count<S: serde::Serializer>(texts: &[String], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_u64(texts.len() as u64)
}

/// Measures `result` against `original`, and compares what they give.
///
/// Each model is loaded alone first (the smaller, then the larger) for load time, first run and memory; then
/// both are loaded and run in turn. With one thread a run is timed in processor time, else by the wall clock.
/// The speedup is the median of the ratios of paired runs, with a 95 % bootstrap interval.
///
/// Reports the stage `benchmark` in rounds and input sets. [`Kind::InvalidArgument`] if the models' inputs or
/// outputs differ or the options do not fit them; the message names the input and the option. `tokenizer` is the
/// original's: where the result's own is another, it reads the texts with that, and classes in another order are
/// compared by name. Memory: both models loaded.
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

/// As [`benchmark`], of an engine against its original: time from data in to data out of both.
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

/// As [`benchmark`], in some seconds: speed and closeness alone, of fewer rounds and inputs. What takes longer is left
/// out: memory, the time of the first run.
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
    // Models that are slow are run less often.
    let rounds = (2.0 * BRIEF_SECONDS / begin.elapsed().as_secs_f64()) as usize;
    let runs = options.runs.min(rounds.max(BRIEF_FEWEST));
    let timed = BenchmarkOptions { runs, ..options.clone() };
    steps.skip(options.runs - runs)?;
    let rounds = pair.race(inputs.each(), &timed, clock(&session), &mut steps)?;
    let limit = Instant::now() + Duration::from_secs_f64(BRIEF_SECONDS);
    let quality = bench.compare(&mut pair, Some(limit), &mut steps)?;
    Ok((bench.report(&pair, &inputs, &rounds, None), quality))
}

/// How close the outputs of two models are on the tensors of the options, or on what a benchmark compares on. No speed.
pub fn closeness(
    runtime: &'static Runtime,
    original: &Model,
    result: &Model,
    tokenizer: Option<&Tokenizer>,
    options: &BenchmarkOptions,
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
    bench.compare(&mut pair, None, &mut steps)
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

/// The most rounds of a brief benchmark, the fewest, and the seconds of each of its parts.
const BRIEF_ROUNDS: usize = 15;
const BRIEF_FEWEST: usize = 3;
const BRIEF_SECONDS: f64 = 0.6;

/// A report of its own for a benchmark that was all there was to do.
pub fn into_report(options: &BenchmarkOptions, benchmark: &BenchmarkReport, quality: &QualityReport) -> Report {
    let mut report = Report::new("benchmark", serde_json::to_value(options).unwrap_or_default());
    report.seconds = benchmark.seconds;
    report.peak_rss_bytes = peak_rss_bytes();
    attach(&mut report, benchmark, quality);
    report
}

/// Adds the figures to the report of the technique that made the result.
pub fn attach(report: &mut Report, benchmark: &BenchmarkReport, quality: &QualityReport) {
    report.benchmark = serde_json::to_value(benchmark).ok();
    report.quality = serde_json::to_value(quality).ok();
}

fn check(options: &BenchmarkOptions) -> Result<()> {
    if options.runs == 0 || options.runs > limits::BENCHMARK_RUNS || options.warmup > limits::BENCHMARK_RUNS {
        let (runs, warmup, most) = (options.runs, options.warmup, limits::BENCHMARK_RUNS);
        bail!(InvalidArgument, "runs is {runs} and warmup {warmup}; runs is 1 to {most}, warmup up to {most}");
    }
    if options.batch_size == 0 {
        bail!(InvalidArgument, "batch_size is 0; it must be at least 1");
    }
    if options.max_seconds.is_nan() || options.max_seconds < 0.0 {
        bail!(InvalidArgument, "max_seconds is {}; it must be 0 or more", options.max_seconds);
    }
    Ok(())
}

/// The comparison would notice as well, but only after the timing.
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

/// Inputs to time a model on, of sizes that it takes.
pub(crate) fn settled(
    runtime: &'static Runtime,
    model: &Model,
    options: &BenchmarkOptions,
    session: &SessionOptions,
    call: &Call,
) -> Result<InputSet> {
    let tokenizer = Tokenizer::of(model)?;
    let mut source = Source::new(model, model, tokenizer.as_ref(), options)?;
    let mut subject = Subject::new(runtime, model, session, call)?;
    source.settle(|source| {
        let inputs = source.timing()?;
        subject.run(&inputs.feed(), call).map(|_| inputs)
    })
}

/// Runs a pair in turn and says how many times as fast as the original the result is, and nothing else.
pub(crate) fn race(
    pair: &mut Pair,
    inputs: &InputSet,
    options: &BenchmarkOptions,
    session: &SessionOptions,
    call: &Call,
) -> Result<Speedup> {
    let quiet = Call { progress: None, ..*call };
    let mut steps = Steps::new(&quiet, options.warmup + options.runs);
    let rounds = pair.race([inputs, inputs], options, clock(session), &mut steps)?;
    Ok(speedup(&rounds, options.seed))
}

/// Whether an input is of token ids, masks and the like: `[batch, length]`.
pub(crate) fn is_of_tokens(info: &crate::model::ValueInfo) -> bool {
    Role::of(info).is_some()
}

/// Whether some input of a model gets whole numbers that are a mere guess: a run may fail for them alone.
pub(crate) fn guesses_values(model: &Model) -> bool {
    let view = crate::graph::View::new(model.proto());
    model.inputs().iter().any(|info| {
        let rows = crate::inputs::tables::rows_indexed_by(&view, &info.name);
        matches!(values::Fill::guess(info, rows), values::Fill::Constant(_))
            && !info.name.to_lowercase().contains("mask")
    })
}

/// A processor's time says nothing of work that another device does: there, time from data in to data out.
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
