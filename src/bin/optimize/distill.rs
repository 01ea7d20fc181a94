//! `optimize distill`: a student learns from a teacher.

use crate::common::{self, Machine, On, Output, Target};
use crate::progress::Bar;
use crate::table::Table;
use clap::{Args, ValueEnum};
use optimize::distill::{
    Corpus, DistillOptions, Divergence, LossWeights, Moment, PREFIX, Schedule, distill, student_of,
};
use optimize::error::{Context, Result};
use optimize::model::Model;
use optimize::onnx::save::ExternalData;
use optimize::report::Report;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Arguments of `distill`.
#[derive(Args)]
pub struct Arguments {
    /// The model that is learned from
    #[arg(long, value_name = "MODEL")]
    teacher: PathBuf,
    /// The model that learns; or layers:every-other, or layers:N, for one cut from the teacher
    #[arg(long, value_name = "MODEL")]
    student: PathBuf,
    /// The text: a text file, or .jsonl with {"text": "..."} in each line, for classifiers {"text": "...", "label": ...}
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Where the result goes: FILE.onnx, or a folder for model, tokenizer and configuration
    #[arg(long, value_name = "PATH")]
    output: PathBuf,
    /// How often the text is read
    #[arg(long, value_name = "N", default_value_t = 3)]
    epochs: u32,
    /// Blocks of text (lines, for models that read lines) in one run
    #[arg(long, value_name = "N", default_value_t = 4)]
    batch_size: usize,
    /// Tokens of a block; lines are cut there [default: 128, or what the models take]
    #[arg(long, value_name = "N")]
    sequence_length: Option<usize>,
    /// Learning rate at its highest
    #[arg(long, value_name = "RATE", default_value_t = 5e-5)]
    learning_rate: f32,
    /// Softens what teacher and student expect
    #[arg(long, value_name = "T", default_value_t = 2.0)]
    temperature: f32,
    /// How far apart two distributions are
    #[arg(long, value_enum, default_value = "forward")]
    divergence: Apart,
    /// What the divergence of logits counts [default: 1 where both models have logits]
    #[arg(long, value_name = "W")]
    logits_weight: Option<f32>,
    /// What the surprise at the text itself, or at its classes, counts [default: 0]
    #[arg(long, value_name = "W")]
    labels_weight: Option<f32>,
    /// What the mean square of differences of hidden states counts [default: 1 where there are no logits]
    #[arg(long, value_name = "W")]
    hidden_weight: Option<f32>,
    /// What 1 less their cosine counts [default: 1 where there are no logits]
    #[arg(long, value_name = "W")]
    cosine_weight: Option<f32>,
    /// What the relations of queries, keys and values of the last attention count [default: 0]
    #[arg(long, value_name = "W")]
    relations_weight: Option<f32>,
    /// Share of the steps in which the learning rate goes up
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    warmup_ratio: f32,
    /// How the learning rate goes down
    #[arg(long, value_enum, default_value = "linear")]
    schedule: Falls,
    /// Of what has more than one dimension
    #[arg(long, value_name = "RATE", default_value_t = 0.01)]
    weight_decay: f32,
    /// Gradients are scaled down to this norm; 0 is no limit
    #[arg(long, value_name = "NORM", default_value_t = 1.0)]
    max_grad_norm: f32,
    /// Runs whose gradients make one step
    #[arg(long, value_name = "N", default_value_t = 1)]
    gradient_accumulation_steps: usize,
    /// Modules or weights that stay as they are; repeat for several
    #[arg(long, value_name = "GLOB")]
    freeze: Vec<String>,
    /// Share of the text that is kept for measuring
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    validation_ratio: f32,
    /// Of the order of the text
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// End after so many steps
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    max_steps: u64,
    /// End after so many seconds of training
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, hide_default_value = true)]
    time_limit: f64,
    /// Steps between measurements [default: ten in all]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    evaluate_every: u64,
    /// A file for what the teacher says of each part of the text: it is asked once, however often the text is read
    #[arg(long, value_name = "FILE")]
    teacher_cache: Option<PathBuf>,
    /// Tokens or classes of each distribution that the file keeps; the others count as equally likely
    #[arg(long, value_name = "N", default_value_t = 64)]
    teacher_top_k: usize,
    /// Where the state is kept, so that a run that was stopped can go on [default: OUTPUT.checkpoint]
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Steps between checkpoints [default: every ten minutes]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    checkpoint_every: u64,
    /// Go on with the run whose checkpoint is there
    #[arg(long)]
    resume: bool,
    /// Put the weights in a file beside the .onnx, whatever their size
    #[arg(long)]
    external_data: bool,
    #[command(flatten)]
    on: On,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    reporting: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Apart {
    /// KL(teacher, student)
    Forward,
    /// KL(student, teacher)
    Reverse,
    /// The mean of both to their middle
    JensenShannon,
}

#[derive(Clone, Copy, ValueEnum)]
enum Falls {
    Linear,
    Cosine,
    Constant,
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
        let target = Target::prepare(&arguments.output)?;
        let tell = |moment: &Moment| bar.say(&line(moment));
        let (result, mut report) =
            bar.call(|call| distill(runtime, &teacher, &student, &corpus, &options, &tell, call))?;
        report.input = Some(bar.call(|call| teacher.identity(call))?);
        let external = if arguments.external_data { ExternalData::Always } else { ExternalData::Auto };
        let saved = bar.call(|call| result.save(&target.file, external, call))?;
        report.output = Some(saved.identity());
        target.carry_along(&student)?;
        Ok(report)
    })?;
    show(arguments, &report)
}

/// One line about where training is.
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

fn duration(seconds: f64) -> String {
    let whole = if seconds.is_finite() { seconds.clamp(0.0, 1e9) as u64 } else { 0 };
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{}:{:02} min", whole / 60, whole % 60),
        _ => format!("{}:{:02} h", whole / 3600, whole % 3600 / 60),
    }
}

fn corpus(file: &Path) -> Result<Corpus> {
    let text = common::text_of(file)?;
    let lines = file.extension().is_some_and(|e| e.eq_ignore_ascii_case("jsonl"));
    let made = if lines { Corpus::from_json_lines(&text) } else { Corpus::from_text(&text) };
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
        divergence: match arguments.divergence {
            Apart::Forward => Divergence::Forward,
            Apart::Reverse => Divergence::Reverse,
            Apart::JensenShannon => Divergence::JensenShannon,
        },
        weights: LossWeights {
            logits: arguments.logits_weight,
            labels: arguments.labels_weight,
            hidden: arguments.hidden_weight,
            cosine: arguments.cosine_weight,
            relations: arguments.relations_weight,
        },
        warmup_ratio: arguments.warmup_ratio,
        schedule: match arguments.schedule {
            Falls::Linear => Schedule::Linear,
            Falls::Cosine => Schedule::Cosine,
            Falls::Constant => Schedule::Constant,
        },
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
    if reporting.json {
        return common::print(&report.to_json());
    }
    if reporting.quiet {
        return Ok(());
    }
    let path = report.output.as_ref().and_then(|o| o.path.clone()).unwrap_or_default();
    let of = |key: &str| report.summary.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN);
    common::print(&format!(
        "{path}: {} steps, {} tokens in {} ({:.0} a second); loss on text kept for measuring {:.4} -> {:.4}, best after {}\n\n",
        of("steps"),
        of("tokens"),
        duration(of("training_seconds")),
        of("tokens_per_second"),
        of("loss_before"),
        of("loss_after"),
        of("best_step")
    ))?;
    if let Some(text) = report.summary.get("warning").and_then(Value::as_str) {
        reporting.warn(text);
    }
    common::print(&table(report))
}

/// Teacher, student before and student after, on text that was not learned from.
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
    row("same likeliest token", None, "/top1_agreement", 4);
    row("accuracy", Some("/after/original/accuracy"), "/result/accuracy", 4);
    row("same class", None, "/agreement", 4);
    row("cosine to the teacher", None, "/cosine", 4);
    row("cosine, worst of 100", None, "/cosine_p1", 4);
    row("same nearest text", None, "/nearest_kept", 4);
    table.render()
}
