//! Distillation: a student model is trained on the outputs of a teacher, without Python.
//!
//! [`distill`] is the entry point.
//!
//! - `data` tokenizes a [`Corpus`] into batches, and [`crate::inputs::feed`] makes inputs of them.
//! - `student` prepares a graph for training, `parameters` selects its weights, `cut` cuts a student from its teacher.
//! - `signals` pairs values of both models, and `relations` finds attention.
//! - `objective` adds the parts of the loss, and `graph` the gradients, with the rules of [`crate::autodiff`].
//! - `teacher` runs the teacher, and `answers` caches its outputs.
//! - `trainer` performs a step with a `learner`, which is `host` (with `optimizer`) or `device`; `run` is the loop,
//!   with `schedule` and `checkpoint`; `report` describes the result.
//!
//! Gradients are computed by an ordinary graph that ONNX Runtime runs. On the CPU, it reads weights and writes
//! gradients in the memory that the optimizer, which is part of this library, updates in place.

mod answers;
mod checkpoint;
mod cut;
mod data;
mod device;
mod graph;
mod host;
mod learner;
mod objective;
mod optimizer;
mod options;
mod parameters;
mod relations;
mod report;
mod run;
mod schedule;
mod signals;
mod student;
mod table;
mod teacher;
mod trainer;

#[cfg(test)]
mod tests;

pub use cut::{PREFIX, StudentLayers, student_of};
pub use data::Corpus;
pub use options::{DistillOptions, Divergence, LossWeights, Schedule};

use crate::call::Call;
use crate::encoder::LogitKind;
use crate::error::{Context, Result, bail};
use crate::evaluate;
use crate::graph::edit;
use crate::inputs::feed::Feed;
use crate::limits;
use crate::meaning::classes::reordered;
use crate::meaning::{Order, tokens};
use crate::model::{Dim, Model, Task};
use crate::report::Report;
use crate::runtime::{
    Execution, Kernels, Provider, ProviderChoice, Runtime, SessionOptions, SessionPrecision, available,
};
use crate::text::Tokenizer;
use data::Dataset;
use run::Run;
use sha2::{Digest, Sha256};
use signals::Signals;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Instant;
use teacher::Teacher;
use trainer::Trainer;

/// The progress of a run, reported after each step and each validation.
#[derive(Debug, Clone, PartialEq)]
pub struct Moment {
    /// Number of steps done.
    pub step: u64,
    /// Number of planned steps; a time limit may end the run earlier.
    pub total: u64,
    /// Index of the current epoch, from 0.
    pub epoch: u32,
    /// Number of planned epochs.
    pub total_epochs: u32,
    /// Training loss of this step, or validation loss.
    pub loss: f64,
    /// Validation loss, if a validation has ended; `None` after a step.
    pub validation: Option<f64>,
    /// Norm of the gradients before clipping; 0 after a validation.
    pub gradient_norm: f64,
    /// Learning rate of this step; 0 after a validation.
    pub learning_rate: f32,
    /// Tokens per second of this step; 0 after a validation.
    pub tokens_per_second: f64,
    /// Seconds since the run began, including time before a resume.
    pub seconds: f64,
    /// Estimated number of seconds remaining; 0 after a validation.
    pub seconds_left: f64,
}

/// A callback for each [`Moment`], on the calling thread. `Break` cancels the run.
pub type Watch<'a> = &'a dyn Fn(&Moment) -> ControlFlow<()>;

/// The default number of tokens of a block.
const LENGTH: usize = 128;

/// Trains `student` to reproduce the outputs of `teacher` on `corpus`, and returns the trained model with a report. The
/// originals are unchanged.
///
/// Both models must have the same tokens; the text is read with the student's tokenizer, or with the teacher's if the
/// student has none. Classes are matched by name. Reports the stage `distill` in steps. With
/// [`DistillOptions::checkpoint`] a run that was cancelled, timed out or killed can be continued; on one thread the
/// result is, bit for bit, that of an uninterrupted run.
///
/// Memory: both models, 16 bytes per weight of the student, and the activations of the student.
///
/// Fails with `Unsupported` if a node of the student has no gradient (the message names it, before training), if the
/// models lack values that a part of the loss compares, if the loss has labels but the student no classes that exclude
/// each other, for the provider TensorRT, or for a checkpoint of another
/// version. Fails with `InvalidArgument` if the vocabularies or classes differ, if the text is too short, if an option
/// is invalid, if there is a checkpoint without [`DistillOptions::resume`], or if the checkpoint or the teacher cache
/// belongs to another run. Fails with `NotFound` if there is no tokenizer, with `LimitExceeded` for a line that is too
/// long, and with `NotFound`, `Io` or `InvalidModel` if the checkpoint or the teacher cache cannot be read or written.
/// Fails with `Runtime` if a model cannot be run, or if the gradients of 20 steps in a row are not finite. Fails with
/// `Cancelled` if `watch` returns `Break` or the call is cancelled, and with `Timeout` if the deadline passes.
pub fn distill(
    runtime: &'static Runtime,
    teacher: &Model,
    student: &Model,
    corpus: &Corpus,
    options: &DistillOptions,
    watch: Watch<'_>,
    call: &Call,
) -> Result<(Model, Report)> {
    let start = Instant::now();
    options.check()?;
    let options = &placed(runtime, options);
    for (model, name) in [(teacher, "the teacher"), (student, "the student")] {
        Feed::new(model).at(|| name)?;
    }
    let (tokenizer, of_tokens) = tokenizer_of(teacher, student)?;
    let (in_order, of_classes) = in_order(teacher, student, options)?;
    let teacher = in_order.as_ref().unwrap_or(teacher);
    let signals = Signals::find(teacher, student, options.weights, corpus.is_labelled())?;
    let data = dataset(corpus, &tokenizer, teacher, student, options)?;
    let (mut asked, known) = Teacher::new(runtime, teacher, &signals, options, call).at(|| "the teacher")?;
    asked.remember(teacher, &known, &data, options, call)?;
    let graphs = graph::build(runtime, student, &known, &signals, options, call).at(|| "the student")?;
    let mut trainer = Trainer::new(runtime, &graphs, student, asked, options, call)?;
    let fingerprint = match options.checkpoint {
        Some(_) => fingerprint([teacher, student], (&graphs, signals.kind), &data, options, call)?,
        None => String::new(),
    };
    let run = Run { trainer: &mut trainer, graphs: &graphs, data: &data, options, watch, fingerprint };
    let outcome = run.go(call)?;
    drop(trainer);
    let result = with_weights(&graphs, &outcome.weights)?;
    let mut report = Report::of_technique("distill", options, &["epochs"]);
    match student.path() {
        Some(path) => {
            report.note_in_recipe("student", path.display().to_string());
            report.note_in_recipe("data", true);
        }
        None => report.recipe.clear(),
    }
    let notes = of_tokens.into_iter().chain(of_classes).collect();
    report::summarize(&mut report, &graphs, &data, &signals, &outcome, notes);
    report.summary.insert("provider".into(), options.execution.provider.name().into());
    let models = report::Models { teacher, before: &graphs.student, after: &result };
    report.quality = Some(report::quality(runtime, &models, &tokenizer, &data.held_text, options, call)?);
    report.finish(start);
    if let Some(path) = options.checkpoint.as_ref().filter(|path| path.exists()) {
        std::fs::remove_file(path).at(|| path.display())?;
    }
    Ok((result, report))
}

/// Returns the options with the selected provider in place of `auto`: CUDA if it is available, otherwise the CPU.
/// TensorRT is not selected, because it would build an engine for every shape.
fn placed(runtime: &'static Runtime, options: &DistillOptions) -> DistillOptions {
    let mut options = options.clone();
    // The trained student must not depend on this library's kernels.
    options.execution.kernels = Kernels::Stock;
    options.execution.precision = SessionPrecision::Fp32;
    if options.execution.provider == ProviderChoice::Auto {
        let found = available(runtime, options.execution.device_id);
        let cuda = found.iter().any(|found| found.provider == Provider::Cuda && found.reason.is_none());
        options.execution = match cuda {
            true => Execution { provider: ProviderChoice::Cuda, engine_cache: None, ..options.execution },
            false => SessionOptions::stock().execution,
        };
    }
    options
}

/// Returns the tokenizer for the text, and a note if it is not the student's.
fn tokenizer_of(teacher: &Model, student: &Model) -> Result<(Tokenizer, Option<String>)> {
    let (of_teacher, of_student) = (Tokenizer::of(teacher)?, Tokenizer::of(student)?);
    let mut note = None;
    match (&of_teacher, &of_student) {
        (Some(a), Some(b)) => match tokens::compare(a, b)? {
            Some((Some(how), _)) => bail!(
                InvalidArgument,
                "the teacher and the student do not share a vocabulary: {how}. Both read the same ids, so these must \
                 stand for the same tokens"
            ),
            Some((None, text)) => {
                let text = text.unwrap_or_default();
                note = Some(format!(
                    "the student's tokenizer is used; the teacher's splits texts differently, for example {text}"
                ));
            }
            None => {}
        },
        (None, Some(_)) => note = Some("the teacher has no tokenizer and reads the tokens of the student".to_owned()),
        (Some(_), None) => note = Some("the student has no tokenizer and reads the tokens of the teacher".to_owned()),
        (None, None) => {}
    }
    match of_student.or(of_teacher) {
        Some(tokenizer) => Ok((tokenizer, note)),
        None => bail!(NotFound, "neither the student nor the teacher has a tokenizer for the text"),
    }
}

/// Returns the teacher with its classes in the order of the student's, and a note, if the orders differ. Fails with
/// `InvalidArgument` if the classes differ and the teacher's logits are needed.
fn in_order(teacher: &Model, student: &Model, options: &DistillOptions) -> Result<(Option<Model>, Option<String>)> {
    let (first, second) = ("the student", "the teacher");
    if (teacher.card().task, student.card().task) != (Task::Classify, Task::Classify) {
        return Ok((None, None));
    }
    let order = Order::of(student.card(), teacher.card(), first, second);
    if options.weights.logits == Some(0.0) && matches!(order, Order::Different(_)) {
        return Ok((None, None));
    }
    let note = order.note(first, second);
    let Some(order) = order.mapping()? else { return Ok((None, note)) };
    match signals::logits_of(teacher) {
        Some(output) => Ok((Some(reordered(teacher, &output, &order)?), note)),
        None => Ok((None, note)),
    }
}

fn dataset(
    corpus: &Corpus,
    tokenizer: &Tokenizer,
    teacher: &Model,
    student: &Model,
    options: &DistillOptions,
) -> Result<Dataset> {
    let longest = [teacher.card().longest_text()?, student.card().longest_text()?].into_iter().flatten().min();
    let length = match (options.sequence_length, longest) {
        (0, longest) => LENGTH.min(longest.unwrap_or(limits::DEFAULT_TEXT_TOKENS)),
        (asked, Some(longest)) if asked > longest => {
            bail!(InvalidArgument, "sequence_length is {asked}, above the models' limit of {longest} tokens")
        }
        (asked, _) => asked,
    };
    if length < 2 {
        bail!(InvalidArgument, "sequence_length is {length}; it must be at least 2");
    }
    let read = || Dataset::new(corpus, tokenizer, student.card(), length, options.validation_ratio);
    let data = evaluate::pool(options.threads)?.install(read)?;
    // Of logits of different sizes, only the first ones are trained.
    let learns = options.weights.labels.is_some_and(|weight| weight > 0.0);
    for (model, name) in [(student, "student"), (teacher, "teacher")].into_iter().take(1 + usize::from(learns)) {
        let logits = model.outputs().into_iter().find(|output| output.name == "logits").and_then(|output| output.shape);
        if let (Some(class), Some([_, Dim::Fixed(classes)])) = (data.largest_class(), logits.as_deref())
            && class >= *classes
        {
            bail!(InvalidArgument, "the text has the class {class}, but the {name} has {classes} classes, from 0");
        }
    }
    Ok(data)
}

/// Returns a hash of the whole models, also of weights that are not trained, the text and the options, by which a
/// checkpoint of another run is recognized. Fails only like [`Model::identity`].
fn fingerprint(
    models: [&Model; 2],
    (graphs, kind): (&graph::Graphs, LogitKind),
    data: &Dataset,
    options: &DistillOptions,
    call: &Call,
) -> Result<String> {
    let mut hash = Sha256::new();
    let quiet = Call { progress: None, ..*call };
    for model in models {
        hash.update(model.identity(&quiet)?.sha256);
        hash.update(format!("{:?}", model.card().class_names()));
    }
    hash.update(format!("{kind:?}"));
    hash.update(serde_json::to_vec(options).unwrap_or_default());
    hash.update([u8::from(options.teacher_cache.is_some())]);
    data.hash(&mut hash);
    for parameter in &graphs.parameters {
        hash.update(parameter.name.as_bytes());
        parameter.dims.iter().for_each(|dim| hash.update(dim.to_le_bytes()));
    }
    for part in &graphs.parts {
        hash.update(part.name.as_bytes());
    }
    Ok(crate::files::digest::hex(&hash.finalize()))
}

/// Returns the student with the trained weights.
fn with_weights(graphs: &graph::Graphs, weights: &[Vec<f32>]) -> Result<Model> {
    let mut proto = graphs.student.proto().clone();
    let Some(graph) = proto.graph.as_deref_mut() else { bail!(Internal, "the student has no graph") };
    let learned = graphs.parameters[..graphs.of_student].iter().zip(weights);
    let learned: HashMap<&str, (&[i64], &Vec<f32>)> =
        learned.map(|(p, values)| (p.name.as_str(), (p.dims.as_slice(), values))).collect();
    for tensor in &mut graph.initializer {
        let name = tensor.name.clone().unwrap_or_default();
        if let Some((dims, values)) = learned.get(name.as_str()) {
            *tensor = edit::float_tensor(&name, dims, values);
        }
    }
    Ok(graphs.student.derive(proto))
}
