//! `optimize benchmark`, and the `--benchmark` flags of every technique.

use crate::common::{self, Engines, Machine, On, Output};
use crate::progress::Bar;
use crate::table;
use clap::Args;
use optimize::benchmark::{BenchmarkOptions, benchmark, benchmark_engine, into_report};
use optimize::error::{Context, Result, bail};
use optimize::limits;
use optimize::model::Model;
use optimize::report::Report;
use optimize::runtime::Execution;
use optimize::shapes::{parse_shape, parse_values};
use optimize::source::{self, Dialect, LoadOptions};
use optimize::tensorrt::EngineFile;
use std::path::{Path, PathBuf};

/// Arguments of `benchmark`.
#[derive(Args)]
pub struct Arguments {
    /// The original model
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// The model to measure against it; or a TensorRT engine of it (X.engine, with --trust)
    #[arg(long, value_name = "MODEL")]
    against: PathBuf,
    /// Texts to compare the models on; repeat for several [default: built-in sentences]
    #[arg(long, value_name = "TEXT")]
    text: Vec<String>,
    /// A file with one text a line
    #[arg(long, value_name = "FILE")]
    text_file: Option<PathBuf>,
    /// Timed rounds
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// Fail (exit code 3) if the outputs' cosine is below this
    #[arg(long, value_name = "COSINE")]
    min_cosine: Option<f64>,
    /// Fail (exit code 3) if the result is not at least so many times as fast
    #[arg(long, value_name = "RATIO")]
    min_speedup: Option<f64>,
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    on: On,
    #[command(flatten)]
    engines: Engines,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    output: Output,
}

/// What the models are run on.
#[derive(Args)]
pub struct Inputs {
    /// A tokenizer.json, or a folder with one [default: the one beside the model]
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Rows of the timed input
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub batch_size: usize,
    /// Tokens a row; longer texts are cut [default: the texts' own length, up to 512 or in `run` up to what the
    /// model takes; 128 for built-in text]
    #[arg(long, value_name = "N")]
    pub sequence_length: Option<usize>,
    /// Shape of an input whose sizes the model leaves open; repeat for several
    #[arg(long, value_name = "NAME:2x3x4")]
    pub shapes: Vec<String>,
    /// Values of an input that random numbers do not suit; repeat for several
    #[arg(long, value_name = "NAME:1,2,3")]
    pub values: Vec<String>,
}

/// `--benchmark` of a technique.
#[derive(Args)]
pub struct AfterTechnique {
    /// Measure the result against the original
    #[arg(long)]
    pub benchmark: bool,
    /// A text to compare on; repeat for several [default: built-in sentences]
    #[arg(long, value_name = "TEXT")]
    pub benchmark_text: Vec<String>,
    /// Timed rounds of the benchmark
    #[arg(long, value_name = "N")]
    pub benchmark_runs: Option<usize>,
}

impl AfterTechnique {
    /// Whether any of the flags asks for a benchmark.
    pub fn wanted(&self) -> bool {
        self.benchmark || !self.benchmark_text.is_empty() || self.benchmark_runs.is_some()
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let (report, before, after) = common::with_bar(&arguments.output, |bar| {
        let original = common::load(&arguments.model, bar)?;
        let mut texts = arguments.text.clone();
        if let Some(file) = &arguments.text_file {
            texts.extend(lines(file)?);
        }
        let mut options = options(&arguments.inputs, &arguments.machine, texts, arguments.runs)?;
        options.execution = Execution { trust_engines: arguments.engines.trust, ..arguments.on.execution()? };
        if EngineFile::is_one(&arguments.against) {
            return against_engine(arguments, &original, &options, bar);
        }
        let result = common::load(&arguments.against, bar)?;
        let mut report = compare(&original, &result, &arguments.inputs, &arguments.machine, &options, bar)?;
        report.input = Some(bar.call(|call| original.identity(call))?);
        report.output = Some(bar.call(|call| result.identity(call))?);
        Ok((report, original.bytes(), result.bytes()))
    })?;
    let notes = report.benchmark.as_ref().and_then(|benchmark| benchmark.get("notes")).and_then(|n| n.as_array());
    let notes = notes.into_iter().flatten().filter_map(|note| note.as_str());
    notes.for_each(|note| arguments.output.warn(note));
    if arguments.output.json {
        common::print(&report.to_json())?;
    } else if !arguments.output.quiet {
        common::print(&table::comparison(&report, before, after))?;
    }
    gates(arguments, &report)
}

/// An engine against the model it was made of.
fn against_engine(
    arguments: &Arguments,
    original: &Model,
    options: &BenchmarkOptions,
    bar: &Bar,
) -> Result<(Report, u64, u64)> {
    let of = source::load(&arguments.model, &LoadOptions { dialect: Dialect::Portable })?;
    let sha256 = bar.call(|call| of.identity(call))?.sha256;
    let engine = arguments.engines.open(&arguments.against, options.execution.device_id, Some(sha256))?;
    let tokenizer = common::tokenizer(arguments.inputs.tokenizer.as_deref(), original)?;
    let runtime = arguments.machine.runtime()?;
    let (speed, quality) =
        bar.call(|call| benchmark_engine(runtime, original, &engine, tokenizer.as_ref(), options, call))?;
    let mut report = into_report(options, &speed, &quality);
    report.input = Some(bar.call(|call| original.identity(call))?);
    report.output = Some(engine.identity());
    Ok((report, original.bytes(), engine.bytes()))
}

/// Options from flags.
pub fn options(
    inputs: &Inputs,
    machine: &Machine,
    texts: Vec<String>,
    runs: Option<usize>,
) -> Result<BenchmarkOptions> {
    let defaults = BenchmarkOptions::default();
    Ok(BenchmarkOptions {
        texts,
        runs: runs.unwrap_or(defaults.runs),
        threads: machine.threads,
        batch_size: inputs.batch_size,
        sequence_length: inputs.sequence_length.unwrap_or(defaults.sequence_length),
        shapes: inputs.shapes.iter().map(|s| parse_shape(s)).collect::<Result<_>>()?,
        values: inputs.values.iter().map(|v| parse_values(v)).collect::<Result<_>>()?,
        ..defaults
    })
}

/// Measures two models and gives a report without identities.
pub fn compare(
    original: &Model,
    result: &Model,
    inputs: &Inputs,
    machine: &Machine,
    options: &BenchmarkOptions,
    bar: &Bar,
) -> Result<Report> {
    let tokenizer = common::tokenizer(inputs.tokenizer.as_deref(), original)?;
    let runtime = machine.runtime()?;
    let (speed, quality) = bar.call(|call| benchmark(runtime, original, result, tokenizer.as_ref(), options, call))?;
    Ok(into_report(options, &speed, &quality))
}

fn lines(file: &Path) -> Result<Vec<String>> {
    let content = optimize::files::read(file, limits::TEXT_BYTES as u64)?;
    let text = String::from_utf8(content);
    let text = text.map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e)).at(|| file.display())?;
    let lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    if lines.is_empty() {
        bail!(InvalidArgument, "{}: holds no text", file.display());
    }
    Ok(lines)
}

fn gates(arguments: &Arguments, report: &Report) -> Result<()> {
    let value = |part: &Option<serde_json::Value>, path: &str| part.as_ref()?.pointer(path)?.as_f64();
    if let Some(least) = arguments.min_cosine {
        match value(&report.quality, "/cosine") {
            Some(cosine) if cosine >= least => {}
            Some(cosine) => bail!(GateNotMet, "the cosine is {cosine:.5}, below the {least} asked for"),
            None => bail!(GateNotMet, "no output has a cosine, so {least} cannot be met"),
        }
    }
    if let Some(least) = arguments.min_speedup {
        // The lower end of the interval: a gate should not pass by luck.
        match value(&report.benchmark, "/speedup/low") {
            Some(low) if low >= least => {}
            low => bail!(GateNotMet, "the speed-up is at least {:.2}, not the {least} asked for", low.unwrap_or(0.0)),
        }
    }
    Ok(())
}
