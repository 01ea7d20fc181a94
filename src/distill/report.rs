//! The report of a distillation.

use super::DistillOptions;
use super::data::{Dataset, Document};
use super::graph::Graphs;
use super::run::Outcome;
use super::signals::Signals;
use crate::call::Call;
use crate::error::{Kind, Result};
use crate::evaluate::{self, Labelled, PerplexityOptions, TextOptions};
use crate::model::{Model, Task};
use crate::report::Report;
use crate::runtime::Runtime;
use crate::text::Tokenizer;
use serde_json::{Map, Value, json};

/// The size of the held-out text on which models are compared at the end, in bytes: about 4,000 tokens.
const BYTES: usize = 16_000;
/// The number of held-out lines, for models that read lines.
const LINES: usize = 300;

/// The models that are compared with the teacher.
pub struct Models<'m> {
    /// The teacher.
    pub teacher: &'m Model,
    /// The student before training.
    pub before: &'m Model,
    /// The student after training.
    pub after: &'m Model,
}

/// Adds the counts and the history of a run to the report. `notes` are warnings from before the run.
pub fn summarize(
    report: &mut Report,
    graphs: &Graphs,
    data: &Dataset,
    signals: &Signals,
    outcome: &Outcome,
    notes: Vec<String>,
) {
    let state = &outcome.state;
    let elements: usize = graphs.parameters[..graphs.of_student].iter().map(|p| p.elements()).sum();
    let summary = &mut report.summary;
    let mut add = |key: &str, value: Value| drop(summary.insert(key.to_owned(), value));
    add("weights_trained", elements.into());
    add("rows", data.len().into());
    add("tokens_of_text", data.tokens().into());
    add("steps", state.step.into());
    add("steps_planned", outcome.total.into());
    add("steps_skipped", state.skipped.into());
    add("tokens", state.tokens.into());
    add("training_seconds", state.seconds.into());
    add("tokens_per_second", (state.tokens as f64 / state.seconds.max(1e-9)).into());
    let first = state.history.first().and_then(|entry| entry.get("loss")).cloned();
    add("loss_before", first.unwrap_or_default());
    if let Some((loss, step)) = state.best {
        add("loss_after", loss.into());
        add("best_step", step.into());
    }
    add("loss_weights", serde_json::to_value(signals.weights).unwrap_or_default());
    let pairs: Vec<Value> =
        signals.hidden.iter().map(|pair| json!({ "teacher": pair.teacher, "student": pair.student })).collect();
    if !pairs.is_empty() {
        add("hidden_states", pairs.into());
    }
    let mut warnings = notes;
    if let Some((teacher, student)) = graphs.sizes {
        warnings.push(format!(
            "the teacher has {teacher} tokens and the student {student}; only the tokens that both have are compared"
        ));
    }
    if graphs.in_blocks > 0 {
        let count = graphs.in_blocks;
        warnings.push(format!(
            "the student's block-quantized weights ({count} nodes) were converted to float32: quantize the result"
        ));
    }
    add("history", state.history.clone().into());
    report.warnings.extend(warnings);
}

/// Compares the student before and after training with the teacher on held-out text. Returns the results as JSON:
/// `before` and `after`, each null if the models cannot be compared. Fails if a model cannot be loaded or run, and with
/// `Cancelled` or `Timeout`.
pub fn quality(
    runtime: &'static Runtime,
    models: &Models<'_>,
    tokenizer: &Tokenizer,
    held: &[Document],
    options: &DistillOptions,
    call: &Call,
) -> Result<Value> {
    let quiet = Call { progress: None, ..*call };
    let texts: Vec<String> = held.iter().map(|held| held.text.clone()).collect();
    let compared = |student: &Model| -> Result<Value> {
        match models.after.card().task {
            Task::Generate => written(runtime, models.teacher, student, tokenizer, &texts, options.threads, &quiet),
            Task::Embed => vectors(runtime, models.teacher, student, tokenizer, &texts, options.threads, &quiet),
            Task::Classify => classes(runtime, models.teacher, student, tokenizer, held, options.threads, &quiet),
            _ => Ok(Value::Null),
        }
    };
    let mut quality = Map::new();
    quality.insert("before".into(), compared(models.before)?);
    quality.insert("after".into(), compared(models.after)?);
    Ok(Value::Object(quality))
}

fn written(
    runtime: &'static Runtime,
    teacher: &Model,
    student: &Model,
    tokenizer: &Tokenizer,
    held: &[String],
    threads: usize,
    call: &Call,
) -> Result<Value> {
    let whole = held.join("\n");
    let end = whole.char_indices().map(|(at, _)| at).find(|at| *at >= BYTES).unwrap_or(whole.len());
    let options = PerplexityOptions { threads, ..PerplexityOptions::default() };
    let paired = evaluate::compare_perplexity(runtime, teacher, student, tokenizer, &whole[..end], &options, call);
    match paired {
        Ok(paired) => Ok(serde_json::to_value(paired).unwrap_or_default()),
        // Vocabularies of different sizes (one is padded) cannot be compared token by token; the perplexity can.
        Err(e) if e.kind() == Kind::InvalidArgument => {
            let one = |model| evaluate::perplexity(runtime, model, tokenizer, &whole[..end], &options, call);
            Ok(json!({ "original": one(teacher)?, "result": one(student)? }))
        }
        Err(e) => Err(e),
    }
}

fn vectors(
    runtime: &'static Runtime,
    teacher: &Model,
    student: &Model,
    tokenizer: &Tokenizer,
    held: &[String],
    threads: usize,
    call: &Call,
) -> Result<Value> {
    let lines: Vec<String> = held.iter().take(LINES).cloned().collect();
    let options = TextOptions { threads, batch_size: 8, ..TextOptions::default() };
    match evaluate::compare_embeddings(runtime, teacher, student, tokenizer, &lines, &options, call) {
        Ok(similarity) => Ok(serde_json::to_value(similarity).unwrap_or_default()),
        // Vectors of different widths have no cosine.
        Err(e) if e.kind() == Kind::InvalidArgument => Ok(Value::Null),
        Err(e) => Err(e),
    }
}

/// Returns the share of texts for which both models agree, and the share for which each is correct, if classes are
/// known.
fn classes(
    runtime: &'static Runtime,
    teacher: &Model,
    student: &Model,
    tokenizer: &Tokenizer,
    held: &[Document],
    threads: usize,
    call: &Call,
) -> Result<Value> {
    let held = &held[..held.len().min(LINES)];
    let options = TextOptions { threads, batch_size: 8, ..TextOptions::default() };
    let row = |(index, held): (usize, &Document)| {
        Some(Labelled { label: held.label.clone()?, text: held.text.clone(), line: index + 1 })
    };
    let labelled: Vec<Labelled> = held.iter().enumerate().filter_map(row).collect();
    let compared = match labelled.is_empty() {
        false => evaluate::compare_classification(runtime, teacher, student, tokenizer, &labelled, &options, call)
            .map(|paired| serde_json::to_value(paired).unwrap_or_default()),
        true => {
            let texts: Vec<String> = held.iter().map(|held| held.text.clone()).collect();
            evaluate::class_agreement(runtime, teacher, student, tokenizer, &texts, &options, call)
                .map(|agreement| json!({ "agreement": agreement }))
        }
    };
    match compared {
        Ok(value) => Ok(value),
        // Models with scores instead of classes, or with different classes, are not compared.
        Err(e) if matches!(e.kind(), Kind::InvalidArgument | Kind::Unsupported) => Ok(Value::Null),
        Err(e) => Err(e),
    }
}
