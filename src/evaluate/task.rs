//! The evaluation of a model by the name of a task, for the command and the C interface ([`evaluate()`]).

use super::labelled::{self, Labelled};
use super::options::{Bos, PerplexityOptions};
use super::probe::ProbeOptions;
use super::{classification, embedding, paired, perplexity, probe};
use crate::call::Call;
use crate::choice::choice;
use crate::encoder::TextOptions;
use crate::error::{Result, bail, error};
use crate::limits;
use crate::meaning::{Order, Reading, reading};
use crate::model::{Model, Task};
use crate::report::Report;
use crate::runtime::{Execution, Runtime};
use crate::text::Tokenizer;
use serde::Serialize;
use serde_json::Value;
use std::time::Instant;

choice! {
    /// The task of an evaluation.
    pub enum EvaluateTask: optimize_evaluate_task_t {
        /// Perplexity of a language model on the text.
        ///
        /// See [`super::perplexity`].
        Perplexity = 1, "perplexity";
        /// Similarity of two models' embeddings of the lines of the text.
        ///
        /// See [`super::compare_embeddings`].
        Embedding = 2, "embedding";
        /// Accuracy of a classifier.
        ///
        /// See [`super::classify`].
        Classification = 3, "classification";
        /// Accuracy of a linear classifier on the model's embeddings.
        ///
        /// See [`super::probe_accuracy`].
        Probe = 4, "probe";
    }
}

/// The options of an evaluation. Options that a task does not use are ignored.
#[derive(Debug, Clone)]
pub struct EvaluateOptions {
    /// Task of the evaluation; `None` selects perplexity for decoders, and otherwise the task of the model: embedding
    /// or classification.
    pub task: Option<EvaluateTask>,
    /// Length of a window in tokens; see [`PerplexityOptions::context_length`].
    pub context_length: usize,
    /// Distance between the beginnings of windows in tokens; see [`PerplexityOptions::stride`].
    pub stride: usize,
    /// Maximum number of tokens of the text; see [`PerplexityOptions::max_tokens`].
    pub max_tokens: usize,
    /// Position of the beginning-of-sequence token; see [`PerplexityOptions::bos`].
    pub bos: Bos,
    /// Maximum number of texts (lines, rows); 0 for all.
    pub max_texts: usize,
    /// Maximum length of a text in tokens; see [`TextOptions::max_length`].
    pub max_length: usize,
    /// Number of texts in a run; see [`TextOptions::batch_size`].
    pub batch_size: usize,
    /// Share of texts for the test; see [`ProbeOptions::test_share`].
    pub test_share: f64,
    /// Seed of the split; see [`ProbeOptions::seed`].
    pub seed: u64,
    /// Weight of the penalty; see [`ProbeOptions::penalty`].
    pub penalty: f64,
    /// Number of threads of each session; 0 for one per physical core.
    pub threads: usize,
    /// Execution provider and device of the sessions. `auto` is resolved once, before the first session, by what can
    /// be started on this machine.
    pub execution: Execution,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        let (text, probe) = (TextOptions::default(), ProbeOptions::default());
        let (test_share, seed, penalty) = (probe.test_share, probe.seed, probe.penalty);
        EvaluateOptions {
            task: None,
            context_length: 0,
            stride: 0,
            max_tokens: 0,
            bos: Bos::default(),
            max_texts: 0,
            max_length: text.max_length,
            batch_size: text.batch_size,
            test_share,
            seed,
            penalty,
            threads: 0,
            execution: Execution::default(),
        }
    }
}

/// Evaluates `model` on `data` (the content of a file), or compares it with `against` on the same data, and returns the
/// report.
///
/// `data` is plain text for perplexity, one text per line for embeddings, and rows of a label and a text
/// ([`labelled::parse`]) for classification and probes. The report's `quality` has the task's name and its results:
/// those of [`super::PerplexityReport`], [`super::ClassScores`] or [`super::ProbeReport`]; with `against` those of
/// [`super::PairedPerplexity`], [`super::EmbeddingSimilarity`], [`super::PairedClassification`] or
/// [`super::PairedProbe`], in which `model` is the original and `against` the result. `tokenizer` is that of `model`.
/// If the tokenizer of `against` differs, `against` reads with its own, except for perplexity; the summary's `notes`
/// say so.
///
/// Fails with [`crate::error::Kind::InvalidArgument`] if no task is given and none follows from the model, if the data
/// do not match the task, or if embeddings have no second model to compare with; with `LimitExceeded` if the data are
/// too large; and otherwise like the task's own function.
pub fn evaluate(
    runtime: &'static Runtime,
    model: &Model,
    against: Option<&Model>,
    tokenizer: &Tokenizer,
    data: &str,
    options: &EvaluateOptions,
    call: &Call,
) -> Result<Report> {
    if data.len() > limits::TEXT_BYTES {
        bail!(LimitExceeded, "the data have {} bytes; the limit is {}", data.len(), limits::TEXT_BYTES);
    }
    let start = Instant::now();
    let task = options.task.map_or_else(|| task_of(model), Ok)?;
    let (execution, placement) = options.execution.settle(runtime)?;
    let options = &EvaluateOptions { execution, ..options.clone() };
    let on = On { runtime, model, against, tokenizer, data, options, call };
    let (used, figures) = match task {
        EvaluateTask::Perplexity => on.perplexity(),
        EvaluateTask::Embedding => on.embedding(),
        EvaluateTask::Classification => on.classification(),
        EvaluateTask::Probe => on.probe(),
    }?;
    let mut report = Report::new("evaluate", with_task(task, used));
    report.quality = Some(with_task(task, figures));
    report.summary.insert("placement".to_owned(), json(placement)?);
    let notes = against.map_or(Ok(Vec::new()), |other| notes(task, model, other, tokenizer))?;
    if !notes.is_empty() {
        report.summary.insert("notes".to_owned(), json(notes)?);
    }
    report.finish(start);
    Ok(report)
}

/// The arguments of a task.
struct On<'a> {
    runtime: &'static Runtime,
    model: &'a Model,
    against: Option<&'a Model>,
    tokenizer: &'a Tokenizer,
    data: &'a str,
    options: &'a EvaluateOptions,
    call: &'a Call<'a>,
}

/// The options of the task, and its results.
type Figures = (Value, Value);

impl On<'_> {
    fn perplexity(&self) -> Result<Figures> {
        let EvaluateOptions { context_length, stride, max_tokens, bos, threads, .. } = *self.options;
        let execution = self.options.execution.clone();
        let options = PerplexityOptions { context_length, stride, max_tokens, bos, threads, execution };
        let (runtime, tokenizer, call) = (self.runtime, self.tokenizer, self.call);
        let figures = match self.against {
            None => json(perplexity::perplexity(runtime, self.model, tokenizer, self.data, &options, call)?)?,
            Some(other) => {
                json(paired::compare_perplexity(runtime, self.model, other, tokenizer, self.data, &options, call)?)?
            }
        };
        Ok((json(options)?, figures))
    }

    fn embedding(&self) -> Result<Figures> {
        let Some(other) = self.against else {
            bail!(
                InvalidArgument,
                "embeddings are compared with those of another model, but `against` is not given; with labelled \
                 texts, the task `probe` evaluates one model"
            )
        };
        let texts = self.data.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned);
        let texts: Vec<String> = texts.take(self.most()).collect();
        let (runtime, tokenizer, options) = (self.runtime, self.tokenizer, self.text());
        let found = embedding::compare_embeddings(runtime, self.model, other, tokenizer, &texts, &options, self.call)?;
        Ok((json(options)?, json(found)?))
    }

    fn classification(&self) -> Result<Figures> {
        let (rows, options) = (self.rows()?, self.text());
        let (runtime, tokenizer, call) = (self.runtime, self.tokenizer, self.call);
        let figures = match self.against {
            None => json(classification::classify(runtime, self.model, tokenizer, &rows, &options, call)?)?,
            Some(other) => {
                let (model, options) = (self.model, &options);
                json(classification::compare_classification(runtime, model, other, tokenizer, &rows, options, call)?)?
            }
        };
        Ok((json(options)?, figures))
    }

    fn probe(&self) -> Result<Figures> {
        let EvaluateOptions { test_share, seed, penalty, .. } = *self.options;
        let options = ProbeOptions { text: self.text(), test_share, seed, penalty };
        let rows = self.rows()?;
        let (runtime, tokenizer, call) = (self.runtime, self.tokenizer, self.call);
        let figures = match self.against {
            None => json(probe::probe_accuracy(runtime, self.model, tokenizer, &rows, &options, call)?)?,
            Some(other) => json(probe::compare_probes(runtime, self.model, other, tokenizer, &rows, &options, call)?)?,
        };
        Ok((json(options)?, figures))
    }

    fn text(&self) -> TextOptions {
        let EvaluateOptions { max_length, batch_size, threads, .. } = *self.options;
        TextOptions { max_length, batch_size, threads, execution: self.options.execution.clone() }
    }

    fn rows(&self) -> Result<Vec<Labelled>> {
        let mut rows = labelled::parse(self.data)?;
        rows.truncate(self.most());
        Ok(rows)
    }

    fn most(&self) -> usize {
        if self.options.max_texts == 0 { usize::MAX } else { self.options.max_texts }
    }
}

/// Returns notes for the caller on what limits a comparison.
fn notes(task: EvaluateTask, model: &Model, other: &Model, tokenizer: &Tokenizer) -> Result<Vec<String>> {
    let (first, second) = ("the original", "the result");
    let mut notes = Vec::new();
    if task == EvaluateTask::Classification {
        notes.extend(Order::of(model.card(), other.card(), first, second).note(first, second));
    }
    if let Some(Reading { ids, cut, .. }) = reading(model, other, Some(tokenizer))? {
        let how = ids.unwrap_or_else(|| format!("for example, {} is split differently", cut.unwrap_or_default()));
        notes.push(match task {
            EvaluateTask::Perplexity => {
                format!("{second} reads the tokens of {first}, although its tokenizer differs: {how}")
            }
            _ => format!("{second} uses its own tokenizer, which differs from that of {first}: {how}"),
        });
    }
    Ok(notes)
}

/// Returns the default task of a model.
fn task_of(model: &Model) -> Result<EvaluateTask> {
    match model.card().task {
        Task::Generate => Ok(EvaluateTask::Perplexity),
        Task::Embed => Ok(EvaluateTask::Embedding),
        Task::Classify => Ok(EvaluateTask::Classification),
        Task::FillMask | Task::Unknown => bail!(
            InvalidArgument,
            "the model's task is not known: name a task (perplexity, embedding, classification or probe)"
        ),
    }
}

fn json(value: impl Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|e| error!(Internal, "a report cannot be written: {e}"))
}

/// Returns the results with the task's name first.
fn with_task(task: EvaluateTask, figures: Value) -> Value {
    let mut all = serde_json::Map::new();
    all.insert("task".to_owned(), serde_json::to_value(task).unwrap_or_default());
    all.extend(figures.as_object().cloned().unwrap_or_default());
    Value::Object(all)
}
