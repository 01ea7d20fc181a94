//! The subcommand `optimize benchmark`, and the `--benchmark` flags of every technique.

use crate::common::{self, Engines, Machine, On, Output, Page};
use crate::progress::Bar;
use crate::read;
use crate::table;
use crate::technique::Made;
use clap::Args;
use optimize::benchmark::{BenchmarkOptions, BenchmarkReport, QualityReport, Timed};
use optimize::benchmark::{attach, benchmark, benchmark_engine, brief, into_report, stock_closeness};
use optimize::error::{Kind, Result, bail};
use optimize::inputs::{InputOptions, read_tensors};
use optimize::model::Model;
use optimize::open;
use optimize::report::Report;
use optimize::runtime::Execution;
use optimize::shapes::{parse_shape, parse_values};
use optimize::source::{Dialect, LoadOptions};
use optimize::tensorrt::EngineFile;
use optimize::verify;
use std::path::PathBuf;

/// Arguments of `benchmark`.
#[derive(Args)]
pub struct Arguments {
    /// The original model
    #[arg(short, long, value_name = "MODEL")]
    model: PathBuf,
    /// The model to compare with the original, or a TensorRT engine of the original (X.engine, with --trust-engines)
    #[arg(long, value_name = "MODEL")]
    against: PathBuf,
    /// A text to compare the models on; repeat for several [default: built-in sentences]
    #[arg(long, value_name = "TEXT")]
    text: Vec<String>,
    /// A file with one text per line to compare the models on; - reads standard input
    #[arg(long, value_name = "FILE")]
    text_file: Option<PathBuf>,
    /// Maximum number of timed rounds [default: 50]
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// Fail (exit code 3) if the cosine of the outputs is below this value
    #[arg(long, value_name = "COSINE")]
    min_cosine: Option<f64>,
    /// Fail (exit code 3) if the lower bound of the speed-up is below this value
    #[arg(long, value_name = "RATIO")]
    min_speedup: Option<f64>,
    #[command(flatten, next_help_heading = "Inputs")]
    inputs: Inputs,
    #[command(flatten, next_help_heading = "Device")]
    on: On,
    #[command(flatten, next_help_heading = "Device")]
    engines: Engines,
    #[command(flatten, next_help_heading = "Runtime")]
    machine: Machine,
    #[command(flatten, next_help_heading = "Output")]
    page: Page,
    #[command(flatten, next_help_heading = "Output")]
    output: Output,
}

/// Arguments for the inputs of measured runs.
#[derive(Args)]
pub struct Inputs {
    /// A tokenizer.json, or a folder that contains one [default: that of the model]
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Batch size of the timed input
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub batch_size: usize,
    /// Number of tokens per row; longer texts are truncated [default: the length of the texts, up to 512 (for `run`:
    /// up to the limit of the model), or 128 for built-in text]
    #[arg(long, value_name = "N")]
    pub sequence_length: Option<usize>,
    /// Shape of an input with dynamic dimensions; repeat for several
    #[arg(long, value_name = "NAME:2x3x4")]
    pub shapes: Vec<String>,
    /// Values of an input that cannot be random numbers; repeat for several
    #[arg(long, value_name = "NAME:1,2,3")]
    pub values: Vec<String>,
    /// A .safetensors file with one tensor per input (first dimension: samples), instead of text and generated
    /// numbers
    #[arg(long, value_name = "FILE")]
    pub inputs: Option<PathBuf>,
}

/// Arguments for the benchmark that follows a technique.
#[derive(Args)]
pub struct AfterTechnique {
    /// Compare the result with the original in a full benchmark, instead of one of a few seconds; it uses the
    /// calibration data, if there are any
    #[arg(long)]
    pub benchmark: bool,
    /// Do not measure the result
    #[arg(long, conflicts_with_all = ["benchmark", "benchmark_text", "benchmark_runs"])]
    pub no_benchmark: bool,
    /// A text to compare the models on, in a full benchmark; repeat for several [default: built-in sentences]
    #[arg(long, value_name = "TEXT")]
    pub benchmark_text: Vec<String>,
    /// Maximum number of timed rounds, in a full benchmark [default: 50]
    #[arg(long, value_name = "N")]
    pub benchmark_runs: Option<usize>,
}

/// The speed and the quality of a result, and its quality on ONNX Runtime's own kernels if it differs.
type Compared = (BenchmarkReport, QualityReport, Option<QualityReport>);

/// The total size of both models above which a brief benchmark is skipped.
const BRIEF_BYTES: u64 = 3 << 30;

impl AfterTechnique {
    /// Returns whether one of the flags requests the full benchmark.
    fn wanted(&self) -> bool {
        self.benchmark || !self.benchmark_text.is_empty() || self.benchmark_runs.is_some()
    }

    /// Returns whether [`AfterTechnique::measure`] measures anything.
    pub fn measures(&self, output: &Output) -> bool {
        !self.no_benchmark && (!output.quiet || output.json || self.wanted())
    }

    /// Measures the result, loaded from its file, with the options of [`Made::measured_on`], and adds the results to
    /// the report. A brief benchmark that cannot run is not an error: the report gives the reason.
    pub fn measure(&self, made: &Made<'_>, on: BenchmarkOptions, report: &mut Report, bar: &Bar) -> Result<()> {
        if !self.measures(made.output) {
            return Ok(());
        }
        match self.compared(made, on, bar) {
            Ok((speed, quality, stock)) => {
                attach(report, &speed, &quality);
                if let Some(stock) = stock {
                    verify::note_stock(report, &quality, &stock);
                }
                verify::warn_of_speed(report, &speed.speedup);
            }
            Err(e) if self.wanted() || matches!(e.kind(), Kind::Cancelled | Kind::Timeout) => return Err(e),
            Err(e) => drop(report.summary.insert("not_measured".into(), e.to_string().into())),
        }
        Ok(())
    }

    /// Returns the speed and the quality of the result, and its quality on ONNX Runtime's own kernels, if that may be
    /// lower (see [`stock_closeness`]).
    fn compared(&self, made: &Made<'_>, mut options: BenchmarkOptions, bar: &Bar) -> Result<Compared> {
        let (inputs, machine) = (made.inputs, made.machine);
        let runtime = machine.runtime()?;
        let (original, result) = (made.original, common::load(&made.target.file, bar)?);
        let tokenizer = common::tokenizer(inputs.tokenizer.as_deref(), original)?;
        if tokenizer.is_none() && self.benchmark_text.is_empty() {
            options.inputs.texts.clear();
        }
        if !self.wanted() && original.bytes().saturating_add(result.bytes()) > BRIEF_BYTES {
            bail!(LimitExceeded, "the models are too large for a brief benchmark; --benchmark measures them anyway");
        }
        let way = if self.wanted() { benchmark } else { brief };
        bar.call(|call| {
            let tokenizer = tokenizer.as_ref();
            let (speed, quality) = way(runtime, original, &result, tokenizer, &options, call)?;
            let stock = stock_closeness(runtime, (original, &result), tokenizer, &options, &speed, call)?;
            Ok((speed, quality, stock))
        })
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let (report, before, after) = common::with_bar(&arguments.output, |bar| {
        let original = common::load(&arguments.model, bar)?;
        let mut texts = arguments.text.clone();
        if let Some(file) = &arguments.text_file {
            texts.extend(read::lines(file)?);
        }
        let mut options = options(&arguments.inputs, &arguments.machine, texts, arguments.runs)?;
        options.execution = Execution { trust_engines: arguments.engines.trust_engines, ..arguments.on.execution()? };
        if EngineFile::is_one(&arguments.against) {
            return against_engine(arguments, &original, &options, bar);
        }
        let result = common::load(&arguments.against, bar)?;
        let mut report = compare(&original, &result, &arguments.inputs, &arguments.machine, &options, bar)?;
        report.input = Some(bar.call(|call| original.identity(call))?);
        report.output = Some(bar.call(|call| result.identity(call))?);
        Ok((report, original.shipped_bytes(), result.shipped_bytes()))
    })?;
    let notes = report.benchmark.as_ref().and_then(|benchmark| benchmark.get("notes")).and_then(|n| n.as_array());
    let notes = notes.into_iter().flatten().filter_map(|note| note.as_str());
    notes.for_each(|note| arguments.output.warn(note));
    arguments.page.write(&report)?;
    if arguments.output.json {
        common::print(&report.to_json())?;
    } else if !arguments.output.quiet {
        common::print(&table::comparison(&report, before, after))?;
    }
    gates(arguments, &report)
}

/// Benchmarks an engine against its original model, and returns the report and the sizes of both.
fn against_engine(
    arguments: &Arguments,
    original: &Model,
    options: &BenchmarkOptions,
    bar: &Bar,
) -> Result<(Report, u64, u64)> {
    let of = open::load(&arguments.model, &LoadOptions { dialect: Dialect::Portable })?;
    let sha256 = bar.call(|call| of.identity(call))?.sha256;
    let engine = arguments.engines.open(&arguments.against, options.execution.device_id, Some(sha256))?;
    let tokenizer = common::tokenizer(arguments.inputs.tokenizer.as_deref(), original)?;
    let runtime = arguments.machine.runtime()?;
    let (speed, quality) =
        bar.call(|call| benchmark_engine(runtime, original, &engine, tokenizer.as_ref(), options, call))?;
    let mut report = into_report(options, &speed, &quality);
    report.input = Some(bar.call(|call| original.identity(call))?);
    report.output = Some(engine.identity());
    Ok((report, original.shipped_bytes(), engine.bytes()))
}

/// Returns the options that the flags describe.
pub fn options(
    inputs: &Inputs,
    machine: &Machine,
    texts: Vec<String>,
    runs: Option<usize>,
) -> Result<BenchmarkOptions> {
    let defaults = BenchmarkOptions::default();
    let of_inputs = InputOptions {
        texts,
        batch_size: inputs.batch_size,
        sequence_length: inputs.sequence_length.unwrap_or(defaults.inputs.sequence_length),
        shapes: inputs.shapes.iter().map(|s| parse_shape(s)).collect::<Result<_>>()?,
        values: inputs.values.iter().map(|v| parse_values(v)).collect::<Result<_>>()?,
        tensors: inputs.inputs.as_deref().map(read_tensors).transpose()?.unwrap_or_default(),
        ..defaults.inputs
    };
    let runs = runs.unwrap_or(defaults.runs);
    Ok(BenchmarkOptions { runs, threads: machine.threads, inputs: of_inputs, ..defaults })
}

/// Measures two models, and returns a report without their identities.
fn compare(
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

/// Returns the reason why an output was not compared; `None` if all were compared.
fn not_compared(report: &Report) -> Option<&str> {
    report.quality.as_ref()?.get("not_compared")?.as_str()
}

fn gates(arguments: &Arguments, report: &Report) -> Result<()> {
    let value = |part: &Option<serde_json::Value>, path: &str| part.as_ref()?.pointer(path)?.as_f64();
    if let Some(least) = arguments.min_cosine {
        match value(&report.quality, "/cosine") {
            Some(cosine) if cosine >= least => {}
            Some(cosine) => bail!(GateNotMet, "the cosine is {cosine:.5}, below the required {least}"),
            None if not_compared(report).is_some() => {
                bail!(
                    GateNotMet,
                    "the required cosine {least} cannot be compared: {}",
                    not_compared(report).unwrap_or_default()
                )
            }
            None => bail!(GateNotMet, "no output has a cosine, so the required {least} cannot be met"),
        }
    }
    if let Some(least) = arguments.min_speedup {
        // The lower end of the interval is compared, so that a limit is not met by chance.
        match value(&report.benchmark, "/speedup/low") {
            Some(low) if low >= least => {}
            low => bail!(
                GateNotMet,
                "the lower bound of the speed-up is {:.2}, below the required {least}",
                low.unwrap_or(0.0)
            ),
        }
    }
    Ok(())
}
