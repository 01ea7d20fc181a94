//! The subcommand `optimize distill`, which trains a student model on the outputs of a teacher.

use crate::common::{self, Device, Machine, Output, Page, Target};
use crate::progress::Bar;
use crate::read;
use crate::signals::Running;
use crate::table::Table;
use clap::Args;
use optimize::call::Stage;
use optimize::distill::{
    Corpus, DistillOptions, Divergence, LossWeights, Moment, PREFIX, Schedule, distill, student_of,
};
use optimize::error::{Context, Kind, Result};
use optimize::model::Model;
use optimize::onnx::save::ExternalData;
use optimize::report::Report;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Arguments of `distill`.
#[derive(Args)]
pub struct Arguments {
    /// The teacher model
    #[arg(long, value_name = "MODEL")]
    teacher: PathBuf,
    /// The student model; or layers of the teacher that form the student: layers:every-other, or their number
    /// layers:N
    #[arg(long, value_name = "MODEL")]
    student: PathBuf,
    /// The training text: a text file, or .jsonl with {"text": "..."} per line, or for classifiers {"text": "...",
    /// "label": ...}; - reads standard input
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Path of the result: FILE.onnx, or a folder for model, tokenizer and configuration
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// Number of passes over the text
    #[arg(long, value_name = "N", default_value_t = 3)]
    epochs: u32,
    /// Rows per run: blocks of tokens for models that generate text, lines for others
    #[arg(long, value_name = "N", default_value_t = 4)]
    batch_size: usize,
    /// Number of tokens per block; lines are truncated to this length [default: 128, or the limit of the models if it
    /// is less]
    #[arg(long, value_name = "N")]
    sequence_length: Option<usize>,
    /// Learning rate after the warm-up
    #[arg(long, value_name = "RATE", default_value_t = 5e-5)]
    learning_rate: f32,
    /// Temperature of the distributions of teacher and student
    #[arg(long, value_name = "T", default_value_t = 2.0)]
    temperature: f32,
    /// Divergence between the distributions of teacher and student
    #[arg(long, value_enum, default_value = "forward")]
    divergence: Divergence,
    /// Weight of the divergence of logits in the loss [default: 1 if both models have logits]
    #[arg(long, value_name = "W")]
    logits_weight: Option<f32>,
    /// Weight of the cross-entropy with the tokens of the text, or with its classes [default: 0]
    #[arg(long, value_name = "W")]
    labels_weight: Option<f32>,
    /// Weight of the mean squared difference of hidden states [default: 1 if a model has no logits]
    #[arg(long, value_name = "W")]
    hidden_weight: Option<f32>,
    /// Weight of 1 - cosine of hidden states [default: 1 if a model has no logits]
    #[arg(long, value_name = "W")]
    cosine_weight: Option<f32>,
    /// Weight of the divergence of self-attention relations (queries, keys, values) in the last layer [default: 0]
    #[arg(long, value_name = "W")]
    relations_weight: Option<f32>,
    /// Share of the steps in which the learning rate warms up
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    warmup_ratio: f32,
    /// Decay of the learning rate after the warm-up
    #[arg(long, value_enum, default_value = "linear")]
    schedule: Schedule,
    /// Weight decay of weights with more than one dimension
    #[arg(long, value_name = "RATE", default_value_t = 0.01)]
    weight_decay: f32,
    /// Maximum norm of the gradients; 0 disables clipping
    #[arg(long, value_name = "NORM", default_value_t = 1.0)]
    max_grad_norm: f32,
    /// Number of runs whose gradients are accumulated into one step
    #[arg(long, value_name = "N", default_value_t = 1)]
    gradient_accumulation_steps: usize,
    /// Glob of modules or weights to keep unchanged; repeat for several
    #[arg(long, value_name = "GLOB")]
    freeze: Vec<String>,
    /// Share of the text that is held out for validation
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    validation_ratio: f32,
    /// Seed of the order in which the text is read, and of random initial values
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Maximum number of steps [default: no limit]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    max_steps: u64,
    /// Maximum training time in seconds [default: no limit]
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, hide_default_value = true)]
    time_limit: f64,
    /// Number of steps between validations [default: ten validations during the training]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    evaluate_every: u64,
    /// File that caches the teacher's outputs, so that the teacher runs only once on each part of the text
    #[arg(long, value_name = "FILE")]
    teacher_cache: Option<PathBuf>,
    /// Number of most probable tokens or classes to cache for each distribution; all others are treated as equally
    /// probable
    #[arg(long, value_name = "N", default_value_t = 64)]
    teacher_top_k: usize,
    /// Checkpoint file, from which a stopped run can continue [default: OUTPUT.checkpoint]
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Number of steps between checkpoints [default: a checkpoint every ten minutes]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    checkpoint_every: u64,
    /// Continue from the checkpoint, if it exists
    #[arg(long)]
    resume: bool,
    /// Store the weights in a file next to the .onnx, regardless of their size
    #[arg(long)]
    external_data: bool,
    #[command(flatten, next_help_heading = "Device")]
    on: Device,
    #[command(flatten, next_help_heading = "Runtime")]
    machine: Machine,
    #[command(flatten, next_help_heading = "Output")]
    page: Page,
    #[command(flatten, next_help_heading = "Output")]
    reporting: Output,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let options = options(arguments)?;
    options.check()?;
    let report = common::with_bar(&arguments.reporting, |bar| {
        let corpus = corpus(&arguments.data)?;
        let runtime = arguments.machine.runtime()?;
        let teacher = common::load(&arguments.teacher, bar)?;
        let student = student(&arguments.student, &teacher, bar)?;
        let _running = Running::begin();
        let target = Target::prepare(&arguments.output)?;
        let tell = |moment: &Moment| {
            bar.say(Stage::DISTILL, &line(moment), fields(moment));
            ControlFlow::Continue(())
        };
        let (result, mut report) =
            bar.call(|call| distill(runtime, &teacher, &student, &corpus, &options, &tell, call))?;
        report.recipe = recipe(arguments, &options);
        report.input = Some(bar.call(|call| teacher.identity(call))?);
        let external = if arguments.external_data { ExternalData::Always } else { ExternalData::Auto };
        let saved = bar.call(|call| result.save(&target.file, external, call))?;
        report.output = Some(saved.identity());
        target.carry_along(&student)?;
        Ok(report)
    });
    let left = options.checkpoint.as_ref().filter(|checkpoint| checkpoint.exists());
    if let (Err(e), Some(checkpoint), false) = (&report, left, arguments.reporting.quiet)
        && e.kind() == Kind::Cancelled
    {
        eprintln!("optimize: --resume continues from {}", checkpoint.display());
    }
    let report = report?;
    arguments.page.write(&report)?;
    show(arguments, &report)
}

/// Returns the recipe that repeats the training.
fn recipe(arguments: &Arguments, options: &DistillOptions) -> Vec<Value> {
    let mut report = Report::of_technique("distill", options, &["epochs"]);
    report.note_in_recipe("student", arguments.student.display().to_string());
    report.note_in_recipe("data", read::noted(&arguments.data));
    report.recipe
}

/// Returns the text about the progress of training that is shown next to the bar.
fn line(moment: &Moment) -> String {
    match moment.validation {
        Some(loss) => format!("validation loss {loss:.4} after {} steps", moment.step),
        None => format!(
            "loss {:.4}  {:.0} tokens/s  {} left",
            moment.loss,
            moment.tokens_per_second,
            duration(moment.seconds_left)
        ),
    }
}

/// Returns the fields about the progress of training that are added to lines of JSON.
fn fields(moment: &Moment) -> Value {
    match moment.validation {
        Some(loss) => json!({ "validation_loss": loss }),
        None => json!({
            "loss": moment.loss,
            "tokens_per_second": moment.tokens_per_second.round(),
            "seconds_left": moment.seconds_left.is_finite().then(|| moment.seconds_left.round()),
        }),
    }
}

fn duration(seconds: f64) -> String {
    let whole = if seconds.is_finite() { seconds.clamp(0.0, 1e9) as u64 } else { 0 };
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{}:{:02} min", whole / 60, whole % 60),
        _ => format!("{}:{:02} h", whole / 3600, whole % 3600 / 60),
    }
}

fn corpus(file: &Path) -> Result<Corpus> {
    let text = read::text(file)?;
    let made = if read::is_json_lines(file, &text) { Corpus::from_json_lines(&text) } else { Corpus::from_text(&text) };
    made.at(|| file.display())
}

fn student(named: &Path, teacher: &Model, bar: &Bar) -> Result<Model> {
    match named.to_str().filter(|name| name.starts_with(PREFIX)) {
        Some(name) => {
            let layers = name.parse().at(|| "--student")?;
            bar.call(|call| student_of(teacher, layers, call)).at(|| "--student")
        }
        None => common::load(named, bar),
    }
}

fn options(arguments: &Arguments) -> Result<DistillOptions> {
    let checkpoint = arguments.checkpoint.clone().unwrap_or_else(|| {
        let mut name = arguments.output.as_os_str().to_owned();
        name.push(".checkpoint");
        name.into()
    });
    Ok(DistillOptions {
        epochs: arguments.epochs,
        batch_size: arguments.batch_size,
        sequence_length: arguments.sequence_length.unwrap_or(0),
        learning_rate: arguments.learning_rate,
        temperature: arguments.temperature,
        divergence: arguments.divergence,
        weights: LossWeights {
            logits: arguments.logits_weight,
            labels: arguments.labels_weight,
            hidden: arguments.hidden_weight,
            cosine: arguments.cosine_weight,
            relations: arguments.relations_weight,
        },
        warmup_ratio: arguments.warmup_ratio,
        schedule: arguments.schedule,
        weight_decay: arguments.weight_decay,
        max_grad_norm: arguments.max_grad_norm,
        gradient_accumulation_steps: arguments.gradient_accumulation_steps,
        freeze: arguments.freeze.clone(),
        validation_ratio: arguments.validation_ratio,
        seed: arguments.seed,
        max_steps: arguments.max_steps,
        time_limit: arguments.time_limit,
        evaluate_every: arguments.evaluate_every,
        teacher_cache: arguments.teacher_cache.clone(),
        teacher_top_k: arguments.teacher_top_k,
        checkpoint: Some(checkpoint),
        checkpoint_every: arguments.checkpoint_every,
        resume: arguments.resume,
        threads: arguments.machine.threads,
        execution: arguments.on.execution()?,
        ..DistillOptions::default()
    })
}

fn show(arguments: &Arguments, report: &Report) -> Result<()> {
    let reporting = &arguments.reporting;
    reporting.warn_of(report);
    if reporting.json {
        return common::print(&report.to_json());
    }
    if reporting.quiet {
        return Ok(());
    }
    let path = report.output.as_ref().and_then(|o| o.path.clone()).unwrap_or_default();
    let of = |key: &str| report.summary.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN);
    common::print(&format!(
        "{path}: {} steps, {} tokens in {} ({:.0} per second); validation loss {:.4} -> {:.4}, best after step {}\n\n",
        of("steps"),
        of("tokens"),
        duration(of("training_seconds")),
        of("tokens_per_second"),
        of("loss_before"),
        of("loss_after"),
        of("best_step")
    ))?;
    common::print(&table(report))
}

/// Returns a table that compares the teacher and the student before and after training, on held-out text.
fn table(report: &Report) -> String {
    let at = |path: &str| report.quality.as_ref().and_then(|q| q.pointer(path)).and_then(Value::as_f64);
    let number = |path: &str, digits: usize| at(path).map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    let mut table = Table::default();
    table.row(&["", "teacher", "before", "after"]);
    let mut row = |name: &str, teacher: Option<&str>, path: &str, digits: usize| {
        let (before, after) = (format!("/before{path}"), format!("/after{path}"));
        if at(&after).is_some() {
            let first = teacher.map_or("-".to_owned(), |path| number(path, digits));
            table.row(&[name, &first, &number(&before, digits), &number(&after, digits)]);
        }
    };
    row("perplexity", Some("/after/original/perplexity"), "/result/perplexity", 2);
    row("KL to the teacher", None, "/kl/value", 4);
    row("same top-1 token", None, "/top1_agreement", 4);
    row("accuracy", Some("/after/original/accuracy"), "/result/accuracy", 4);
    row("same class", None, "/agreement", 4);
    row("cosine to the teacher", None, "/cosine", 4);
    row("cosine, 1st percentile", None, "/cosine_p1", 4);
    row("same nearest text", None, "/nearest_kept", 4);
    table.render()
}
