//! Original against result, in one process, on the same inputs: speed, memory, size and quality.
//!
//! [`benchmark`] is the way in. [`inputs`] makes what the models are given (`text` from texts, `sizes`, `tables`
//! and `values` from the signature), `timing` runs them in turn, `memory` says what they take, `quality` compares
//! what comes out (`rows` has its sums), [`report`] is what the caller gets. How sure the figures are says
//! `crate::statistics`.

pub mod inputs;
mod memory;
mod pairing;
mod quality;
pub mod report;
pub(crate) mod rows;
mod sentences;
mod sizes;
mod steps;
mod tables;
pub(crate) mod text;
mod timing;
mod values;

#[cfg(test)]
mod tests;

pub(crate) use quality::primary_output;
pub use report::{BenchmarkReport, Both, Latency, OutputQuality, QualityReport, Speedup};
pub(crate) use text::Role;

use crate::call::Call;
use crate::error::{Context, Error, Kind, Result, bail};
use crate::limits;
use crate::model::Model;
use crate::report::{Report, peak_rss_bytes};
use crate::runtime::{Execution, ProviderChoice, Runtime, SessionOptions};
use crate::statistics::{median_interval, percentile, sorted};
use crate::tensorrt::EngineFile;
use crate::text::Tokenizer;
use inputs::InputSet;
pub(crate) use inputs::Source;
use pairing::Pairing;
use quality::Comparison;
use serde::Serialize;
use std::time::Instant;
use steps::Steps;
use timing::{Alone, Clock, Rounds, Side, alone, latency, prime};
pub(crate) use timing::{Pair, Subject};

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
    engine: &EngineFile,
    tokenizer: Option<&Tokenizer>,
    options: &BenchmarkOptions,
    call: &Call,
) -> Result<(BenchmarkReport, QualityReport)> {
    measure(runtime, Side::Model(original), Side::Engine(engine), tokenizer, options, call)
}

fn measure(
    runtime: &'static Runtime,
    original: Side<'_>,
    result: Side<'_>,
    tokenizer: Option<&Tokenizer>,
    options: &BenchmarkOptions,
    call: &Call,
) -> Result<(BenchmarkReport, QualityReport)> {
    let start = Instant::now();
    check(options)?;
    same_outputs(original.model(), result.model())?;
    let pairing = Pairing::new(original.model(), result.model(), tokenizer)?;
    let source = Source::new(original.model(), result.model(), tokenizer, options)?;
    pairing.check(&source)?;
    // What the result reads with its own tokenizer, if that is another.
    let of_result = match (&pairing.reading, source.name()) {
        (Some(reading), "text") => Source::new(result.model(), result.model(), Some(&reading.tokenizer), options)?,
        _ => Source::new(original.model(), result.model(), tokenizer, options)?,
    };
    let sources = Both { original: &source, result: &of_result };
    let inputs = Both { original: source.timing()?, result: of_result.timing()? };
    let execution = options.execution.clone();
    let session = SessionOptions { threads: options.threads, execution, ..SessionOptions::default() };
    let mut steps = Steps::new(call, 2 + options.warmup + options.runs + source.count());
    let each = each_alone(runtime, original, result, &inputs, &session, &source, &mut steps)?;
    let load = |side: Side<'_>| Subject::of(runtime, side, &session, &steps.quiet());
    let mut pair = Pair::new(load(original).at(|| "the original")?, load(result).at(|| "the result")?);
    let clock = if matches!(result, Side::Engine(_)) { Clock::Wall } else { clock(&session) };
    let rounds = pair.race([&inputs.original, &inputs.result], options, clock, &mut steps)?;
    let quality = compare(&mut pair, sources, &pairing, &mut steps)?;
    let bytes = Both { original: original.bytes(), result: result.bytes() };
    let report = BenchmarkReport {
        runs: rounds.original.len(),
        threads: session.thread_count(),
        clock: clock.name(),
        placement: pair.placement(),
        inputs: source.name(),
        input_shapes: inputs.original.shapes(),
        latency_ms: Both { original: latency(&rounds.original), result: latency(&rounds.result) },
        speedup: speedup(&rounds, options.seed),
        load_ms: Both {
            original: each.original.load_ms.min(pair.original.load_ms),
            result: each.result.load_ms.min(pair.result.load_ms),
        },
        first_run_ms: each.map(|alone| alone.first_run_ms),
        resident_bytes: each.map(|alone| alone.resident_bytes),
        bytes,
        size_ratio: bytes.original as f64 / bytes.result.max(1) as f64,
        notes: pairing.notes,
        seconds: start.elapsed().as_secs_f64(),
    };
    Ok((report, quality))
}

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
        bail!(InvalidArgument, "batch_size is 0; it is at least 1");
    }
    if options.max_seconds.is_nan() || options.max_seconds < 0.0 {
        bail!(InvalidArgument, "max_seconds is {}; it is a number from 0 on", options.max_seconds);
    }
    Ok(())
}

/// The comparison would notice as well, but only after the timing.
fn same_outputs(original: &Model, result: &Model) -> Result<()> {
    let given = result.outputs();
    let lacks = |name: &str| !name.starts_with("present") && !given.iter().any(|other| other.name == name);
    match original.outputs().iter().find(|output| lacks(&output.name)) {
        Some(missing) => {
            bail!(InvalidArgument, "only the original has an output {:?}: the models cannot be compared", missing.name)
        }
        None => Ok(()),
    }
}

/// The smaller model comes first: the allocator keeps some memory of the model before and gives it to the one
/// after, whose growth then looks smaller than it is, and that matters least where it is large.
fn each_alone(
    runtime: &'static Runtime,
    original: Side<'_>,
    result: Side<'_>,
    inputs: &Both<InputSet>,
    options: &SessionOptions,
    source: &Source,
    steps: &mut Steps,
) -> Result<Both<Alone>> {
    let hinted = |e: Error| match e.kind() {
        Kind::Runtime | Kind::InvalidArgument => {
            Error::new(e.kind(), format!("{}; {}", e.message(), source.hint())).at(e.place())
        }
        _ => e,
    };
    prime(runtime, options, &steps.quiet())?;
    let mut measure = |side: Side<'_>, inputs: &InputSet, name: &str| -> Result<Alone> {
        let alone = alone(runtime, side, inputs, options, &steps.quiet()).map_err(hinted).at(|| name)?;
        steps.next()?;
        Ok(alone)
    };
    if result.bytes() <= original.bytes() {
        let result = measure(result, &inputs.result, "the result")?;
        Ok(Both { original: measure(original, &inputs.original, "the original")?, result })
    } else {
        let original = measure(original, &inputs.original, "the original")?;
        Ok(Both { original, result: measure(result, &inputs.result, "the result")? })
    }
}

fn compare(pair: &mut Pair, sources: Both<&Source>, pairing: &Pairing, steps: &mut Steps) -> Result<QualityReport> {
    let mut comparison = Comparison::new(sources.original.vocabularies());
    let quiet = steps.quiet();
    for index in 0..sources.original.count() {
        let (inputs, of_result) = (sources.original.set(index)?, sources.result.set(index)?);
        let original = pair.original.run(&inputs.feed(), &quiet).at(|| "the original")?;
        let result = pair.result.run(&of_result.feed(), &quiet).at(|| "the result")?;
        let result = pairing.aligned(result, [inputs.mask.as_ref(), of_result.mask.as_ref()])?;
        comparison.add(&original, &result, inputs.mask.as_ref(), inputs.samples)?;
        steps.next()?;
    }
    Ok(comparison.finish())
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
