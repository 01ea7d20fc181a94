//! The subcommand `optimize evaluate`, which measures a model on data, alone or compared with another.

use crate::common::{self, KvCache, Machine, On, Output, Page};
use crate::read;
use crate::table::{self, Table};
use clap::Args;
use optimize::benchmark::{BenchmarkOptions, closeness};
use optimize::error::{Context, Result, bail};
use optimize::evaluate::{Bos, EvaluateOptions, EvaluateTask, evaluate};
use optimize::inputs::{InputOptions, read_tensors};
use optimize::report::Report;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Instant;

/// Arguments of `evaluate`.
#[derive(Args)]
pub struct Arguments {
    /// The model to evaluate
    #[arg(short, long, value_name = "MODEL")]
    model: PathBuf,
    /// The data: text for perplexity; one text per line for embedding; rows with a label and a text, as TSV or CSV,
    /// for classification and probe. With --against also a .safetensors file with one tensor per input (first
    /// dimension: samples), on which the outputs of any two models are compared. - reads standard input
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// A changed model to compare with the first on the same data
    #[arg(long, value_name = "MODEL")]
    against: Option<PathBuf>,
    /// Evaluation task [default: the task that fits the model]
    #[arg(long, value_enum)]
    task: Option<EvaluateTask>,
    #[command(flatten, next_help_heading = "Data")]
    how: How,
    #[command(flatten, next_help_heading = "Limits")]
    gates: Gates,
    #[command(flatten, next_help_heading = "Device")]
    on: On,
    #[command(flatten, next_help_heading = "Device")]
    cache: KvCache,
    #[command(flatten, next_help_heading = "Runtime")]
    machine: Machine,
    #[command(flatten, next_help_heading = "Output")]
    page: Page,
    #[command(flatten, next_help_heading = "Output")]
    output: Output,
}

/// Arguments for the reading of the data.
#[derive(Args)]
struct How {
    /// A tokenizer.json, or a folder that contains one [default: that of the model]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Perplexity: number of tokens per window [default: the limit of the model, up to 512]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    context_length: usize,
    /// Perplexity: number of tokens between the starts of two windows [default: half of the context length]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    stride: usize,
    /// Perplexity: maximum number of tokens of the text to use [default: all]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    max_tokens: usize,
    /// Perplexity: where the begin-of-text token is inserted, for tokenizers that have one
    #[arg(long, value_enum, default_value_t = Bos::EveryWindow)]
    bos: Bos,
    /// Maximum number of lines or rows to use [default: all]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    max_texts: usize,
    /// Number of tokens after which a text is truncated [default: the limit for texts in the model's files; if they
    /// have none, its positions, up to 512]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    max_length: usize,
    /// Number of texts per run
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch_size: usize,
    /// Probe: share of the texts of each class in the test set
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    test_share: f64,
    /// Probe: seed of the split into training set and test set
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Probe: L2 penalty on the weights of the linear classifier
    #[arg(long, value_name = "X", default_value_t = 0.5)]
    penalty: f64,
}

/// Arguments for limits. If one is not met, the command fails with exit code 3. With `--against`, limits of one model
/// apply to the changed model.
#[derive(Args)]
struct Gates {
    /// Fail (exit code 3) if the perplexity is above this value
    #[arg(long, value_name = "PERPLEXITY")]
    max_perplexity: Option<f64>,
    /// Fail (exit code 3) if the upper bound of the perplexity, relative to the original's, is above this ratio
    #[arg(long, value_name = "RATIO")]
    max_perplexity_ratio: Option<f64>,
    /// Fail (exit code 3) if the mean KL divergence of the next-token distributions, in nats, is above this value
    #[arg(long, value_name = "NATS")]
    max_kl: Option<f64>,
    /// Fail (exit code 3) if the mean cosine of the embeddings is below this value
    #[arg(long, value_name = "COSINE")]
    min_cosine: Option<f64>,
    /// Fail (exit code 3) if the accuracy is below this value
    #[arg(long, value_name = "SHARE")]
    min_accuracy: Option<f64>,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    if read::is_tensors(&arguments.data) {
        return on_tensors(arguments);
    }
    let report = common::with_bar(&arguments.output, |bar| {
        let model = common::load(&arguments.model, bar)?;
        let against = arguments.against.as_deref().map(|path| common::load(path, bar)).transpose()?;
        let Some(tokenizer) = common::tokenizer(arguments.how.tokenizer.as_deref(), &model)? else {
            bail!(
                NotFound,
                "{}: the model has no tokenizer.json next to it; pass one with --tokenizer",
                arguments.model.display()
            );
        };
        tokenizer.notes().iter().for_each(|note| arguments.output.warn(note));
        let (data, options, runtime) =
            (read::text(&arguments.data)?, options(arguments)?, arguments.machine.runtime()?);
        let report = bar.call(|call| evaluate(runtime, &model, against.as_ref(), &tokenizer, &data, &options, call));
        let mut report = report.at(|| arguments.data.display())?;
        report.input = Some(bar.call(|call| model.identity(call))?);
        report.output = against.map(|other| bar.call(|call| other.identity(call))).transpose()?;
        Ok(report)
    })?;
    common::notes(&report).for_each(|note| arguments.output.warn(note));
    arguments.page.write(&report)?;
    if arguments.output.json {
        common::print(&report.to_json())?;
    } else if !arguments.output.quiet {
        common::print(&shown(&report, arguments.output.verbose))?;
    }
    arguments.gates.check(&report)
}

/// Compares the outputs of two models on given tensors, and prints the results.
fn on_tensors(arguments: &Arguments) -> Result<()> {
    let Some(against) = &arguments.against else {
        bail!(
            InvalidArgument,
            "tensors have no labels, so a single model cannot be evaluated on them: --against is required"
        );
    };
    let start = Instant::now();
    let (report, before, after) = common::with_bar(&arguments.output, |bar| {
        let (model, against) = (common::load(&arguments.model, bar)?, common::load(against, bar)?);
        let options = BenchmarkOptions {
            inputs: InputOptions {
                tensors: read_tensors(&arguments.data)?,
                batch_size: arguments.how.batch_size,
                ..InputOptions::default()
            },
            threads: arguments.machine.threads,
            execution: arguments.on.with_cache(&arguments.cache)?,
            ..BenchmarkOptions::default()
        };
        let runtime = arguments.machine.runtime()?;
        let quality = bar.call(|call| closeness(runtime, &model, &against, None, &options, call))?;
        let mut report = Report::new("evaluate", serde_json::to_value(&options).unwrap_or_default());
        report.quality = serde_json::to_value(&quality).ok();
        report.input = Some(bar.call(|call| model.identity(call))?);
        report.output = Some(bar.call(|call| against.identity(call))?);
        report.finish(start);
        Ok((report, model.shipped_bytes(), against.shipped_bytes()))
    })?;
    arguments.page.write(&report)?;
    if arguments.output.json {
        common::print(&report.to_json())?;
    } else if !arguments.output.quiet {
        common::print(&table::comparison(&report, before, after))?;
    }
    arguments.gates.check(&report)
}

fn options(arguments: &Arguments) -> Result<EvaluateOptions> {
    let how = &arguments.how;
    Ok(EvaluateOptions {
        task: arguments.task,
        context_length: how.context_length,
        stride: how.stride,
        max_tokens: how.max_tokens,
        bos: how.bos,
        max_texts: how.max_texts,
        max_length: how.max_length,
        batch_size: how.batch_size,
        test_share: how.test_share,
        seed: how.seed,
        penalty: how.penalty,
        threads: arguments.machine.threads,
        execution: arguments.on.with_cache(&arguments.cache)?,
    })
}

/// Returns a number of the report's quality part; `None` if it is absent or not a number.
fn figure(report: &Report, path: &str) -> Option<f64> {
    report.quality.as_ref()?.pointer(path)?.as_f64()
}

impl Gates {
    fn check(&self, report: &Report) -> Result<()> {
        // If two models are compared, the limit applies to the result.
        let either =
            |name: &str| figure(report, &format!("/result/{name}")).or_else(|| figure(report, &format!("/{name}")));
        at_most("perplexity", either("perplexity"), self.max_perplexity)?;
        // The upper end of the interval is compared, so that a limit is not met by chance. Too little text has no
        // interval.
        at_most("perplexity ratio", figure(report, "/ratio/high"), self.max_perplexity_ratio)?;
        at_most("mean KL divergence", figure(report, "/kl/value").or_else(|| figure(report, "/kl")), self.max_kl)?;
        at_least("cosine", figure(report, "/cosine"), self.min_cosine)?;
        at_least("accuracy", either("accuracy"), self.min_accuracy)
    }
}

fn at_most(name: &str, found: Option<f64>, most: Option<f64>) -> Result<()> {
    match (found, most) {
        (Some(found), Some(most)) if found > most => {
            bail!(GateNotMet, "the {name} is {found:.5}, above the allowed {most}")
        }
        (None, Some(most)) => bail!(GateNotMet, "there is no {name} to compare with the allowed {most}"),
        _ => Ok(()),
    }
}

fn at_least(name: &str, found: Option<f64>, least: Option<f64>) -> Result<()> {
    match (found, least) {
        (Some(found), Some(least)) if found < least => {
            bail!(GateNotMet, "the {name} is {found:.5}, below the required {least}")
        }
        (None, Some(least)) => bail!(GateNotMet, "there is no {name} to compare with the required {least}"),
        _ => Ok(()),
    }
}

/// Returns the results as a table, with original and result side by side if there are two, and a description of the
/// measurement.
fn shown(report: &Report, verbose: bool) -> String {
    let figures = Figures(report);
    match figures.text("task") {
        "perplexity" => figures.perplexity(),
        "embedding" => figures.embedding(),
        _ => figures.classes(verbose),
    }
}

/// The quality part of a report, formatted for reading.
struct Figures<'a>(&'a Report);

impl Figures<'_> {
    fn text(&self, name: &str) -> &str {
        self.0.quality.as_ref().and_then(|quality| quality.get(name)).and_then(Value::as_str).unwrap_or("")
    }

    fn number(&self, path: &str, digits: usize) -> String {
        figure(self.0, path).map_or("?".to_owned(), |value| format!("{value:.digits$}"))
    }

    fn interval(&self, path: &str, digits: usize) -> String {
        let end = |name: &str| self.number(&format!("{path}/{name}"), digits);
        format!("{} [{}, {}]", end("value"), end("low"), end("high"))
    }

    /// Returns whether the report compares two models.
    fn paired(&self) -> bool {
        self.0.quality.as_ref().is_some_and(|quality| quality.get("original").is_some())
    }

    fn table(&self) -> Table {
        let mut table = Table::default();
        table.row(if self.paired() { &["", "original", "result", "change"] } else { &["", "value"] });
        table
    }

    /// Adds a row for a number that each model has.
    fn row(&self, table: &mut Table, label: &str, name: &str, digits: usize, change: &str) {
        if self.paired() {
            let of = |side: &str| self.number(&format!("/{side}/{name}"), digits);
            table.row(&[label, &of("original"), &of("result"), change]);
        } else {
            table.row(&[label, &self.number(&format!("/{name}"), digits)]);
        }
    }

    fn perplexity(&self) -> String {
        let mut table = self.table();
        let change = format!("x {} {}", self.interval("/ratio", 4), self.text("verdict"));
        self.row(&mut table, "perplexity", "perplexity", 3, &change);
        self.row(&mut table, "nats per token", "nll", 4, "");
        self.row(&mut table, "bits per byte", "bits_per_byte", 4, "");
        self.row(&mut table, "tokens per second", "tokens_per_second", 0, "");
        if self.paired() {
            table.row(&["KL (nats)", "", "", &self.interval("/kl", 5)]);
            table.row(&["top-1 agreement", "", "", &self.number("/top1_agreement", 4)]);
        }
        let side = if self.paired() { "/original" } else { "" };
        let count = |name: &str| self.number(&format!("{side}/{name}"), 0);
        format!(
            "{}\n{} tokens scored in {} windows of {} tokens with a stride of {}\n",
            table.render(),
            count("tokens"),
            count("windows"),
            count("context_length"),
            count("stride")
        )
    }

    fn embedding(&self) -> String {
        let mut table = self.table();
        let rows = [("cosine", "cosine"), ("cosine, 1st percentile", "cosine_p1"), ("cosine, minimum", "cosine_min")];
        rows.iter().for_each(|(label, name)| self.row(&mut table, label, name, 5, ""));
        self.row(&mut table, "nearest text kept", "nearest_kept", 4, "");
        let pooling = match self.text("pooling") {
            "" => String::new(),
            pooling => format!(", pooled by {pooling}"),
        };
        let (texts, width) = (self.number("/texts", 0), self.number("/width", 0));
        format!("{}\n{texts} texts, {width} elements of {:?}{pooling}\n", table.render(), self.text("output"))
    }

    fn classes(&self, verbose: bool) -> String {
        let mut table = self.table();
        let accuracy = |side: &str| {
            let of = |name: &str| self.number(&format!("{side}/{name}"), 4);
            format!("{} [{}, {}]", of("accuracy"), of("accuracy_low"), of("accuracy_high"))
        };
        if self.paired() {
            let change = self.interval("/accuracy_change", 4);
            table.row(&["accuracy", &accuracy("/original"), &accuracy("/result"), &change]);
        } else {
            table.row(&["accuracy", &accuracy("")]);
        }
        self.row(&mut table, "macro F1", "macro_f1", 4, "");
        self.row(&mut table, "texts", "samples", 0, "");
        if self.text("task") == "probe" {
            self.row(&mut table, "training texts", "train_samples", 0, "");
            self.row(&mut table, "training accuracy", "train_accuracy", 4, "");
        }
        if figure(self.0, "/agreement").is_some() {
            table.row(&["same class", "", "", &self.number("/agreement", 4)]);
        }
        let sides: &[&str] = if self.paired() { &["/original", "/result"] } else { &[""] };
        let confusions: String = sides.iter().filter(|_| verbose).map(|side| self.confusion(side)).collect();
        table.render() + &confusions
    }

    /// Returns the classes of one model and its confusion matrix as text.
    fn confusion(&self, side: &str) -> String {
        let list = |name: &str| {
            let list = self.0.quality.as_ref().and_then(|quality| quality.pointer(&format!("{side}/{name}")));
            list.and_then(Value::as_array).cloned().unwrap_or_default()
        };
        let (classes, counts) = (list("classes"), list("confusion"));
        let name = |class: &Value| class["name"].as_str().unwrap_or("").to_owned();
        let mut table = Table::default();
        let head = [side.trim_start_matches('/'), "texts", "precision", "recall", "F1"].map(str::to_owned);
        let names: Vec<String> =
            classes.iter().filter(|_| !counts.is_empty()).map(|c| format!("as {}", name(c))).collect();
        table.row(&head.iter().chain(&names).map(String::as_str).collect::<Vec<_>>());
        for (index, class) in classes.iter().enumerate() {
            let share = |key: &str| format!("{:.4}", class[key].as_f64().unwrap_or(f64::NAN));
            let row = counts.get(index).and_then(Value::as_array).cloned().unwrap_or_default();
            let cells = [name(class), class["support"].to_string(), share("precision"), share("recall"), share("f1")];
            let cells: Vec<String> = cells.into_iter().chain(row.iter().map(Value::to_string)).collect();
            table.row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
        }
        format!("\n{}", table.render())
    }
}
