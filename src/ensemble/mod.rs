//! Ensembles: several models that are combined, or merged into one.
//!
//! [`Ensemble`] holds members that fit together, and the method that combines their outputs. There are three ways to
//! combine models:
//!
//! - [`Ensemble::generator`] generates text: members decode in step, and at every token their distributions are
//!   combined ([`combine`]) for the sampler. `chorus` is for members with one vocabulary, `union` for different ones,
//!   `rerank` lets each member generate and selects the best text; [`schedule`] assigns threads.
//! - [`Ensemble::fuse`] returns one model that has the members as branches: it is saved, run, evaluated and benchmarked
//!   like any other. Loading a manifest ([`manifest`]) also returns such a model.
//! - [`mod@merge`] averages weights into one model of the size of a member.
//!
//! [`fit`] fits the weights of the members to a text.
//!
//! ```no_run
//! # use optimize::{call::Call, ensemble::*, error::Result, model::Model, runtime::*, text::*};
//! # fn main() -> Result<()> {
//! let models = vec![Model::load("a.gguf".as_ref())?, Model::load("b.gguf".as_ref())?];
//! let ensemble = Ensemble::new(models, EnsembleOptions::default())?;
//! let (runtime, call) = (Runtime::open(None)?, Call::default());
//! let mut generator = ensemble.generator(runtime, &SessionOptions::default(), &call)?;
//! let written = generator.generate(&[Prompt::Text("Once")], &GenerateOptions::default(), None, &call)?;
//! println!("{}", written[0].text);
//! # Ok(()) }
//! ```

mod alike;
mod chorus;
mod classes;
pub mod combine;
pub mod fit;
mod fuse;
pub mod manifest;
pub mod merge;
mod rerank;
pub mod schedule;
mod union;
pub mod vocabulary;

pub use combine::{Combined, Combiner};
pub use fit::FitReport;
pub use merge::{MergeMethod, MergeOptions, merge};

use crate::call::Call;
use crate::choice::choice;
use crate::encoder::LogitKind;
use crate::error::{Context, Result, bail};
use crate::limits;
use crate::model::{Model, Task};
use crate::report::Report;
use crate::runtime::{Runtime, SessionOptions};
use crate::text::{Decoder, Rows, Tokenizer};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use vocabulary::Vocabularies;

choice! {
    /// The method by which the outputs of the members are combined. Formulas are in [`combine`].
    pub enum Method: optimize_ensemble_method_t = Mean {
        /// The mean of the probabilities.
        ///
        /// For embeddings, the mean of the normalized vectors; for numbers, the mean of the numbers. Weights are used
        /// if they are given.
        Mean = 0, "mean";
        /// The weighted mean of the probabilities, which requires weights.
        ///
        /// For embeddings and numbers, the weighted mean as in [`Method::Mean`].
        Weighted = 1, "weighted";
        /// The softmax of the weighted mean of the logits, each divided by its temperature.
        Logits = 2, "logits";
        /// The normalized product of the probabilities.
        ///
        /// Each is raised to the power of its weight times the number of members.
        Product = 3, "product";
        /// The maximum probability of each token.
        ///
        /// Divided by the sum over all tokens. For numbers, the maximum of the numbers.
        Max = 4, "max";
        /// The median probability of each token.
        ///
        /// Divided by the sum over all tokens. For numbers, the median of the numbers.
        Median = 5, "median";
        /// The sum of the weights of the members that rank the token first.
        Vote = 6, "vote";
        /// The probabilities of the first member divided by those of the second.
        ///
        /// The result is normalized. Tokens whose probability in the first member is below a tenth of the maximum get
        /// the probability 0.
        Contrastive = 7, "contrastive";
        /// The text with the best score: each member generates texts, and all members score them.
        Rerank = 8, "rerank";
        /// The concatenated embeddings.
        ///
        /// Each is normalized and multiplied by the root of its weight.
        Concat = 9, "concat";
    }
}

choice! {
    /// The task of the members of an ensemble, which replaces the one that is detected from the models.
    pub enum EnsembleTask: optimize_ensemble_task_t {
        /// Text generation.
        Generate = 1, "generate";
        /// Text embedding.
        Embed = 2, "embed";
        /// Classification.
        ///
        /// The members have one output with logits.
        Classify = 3, "classify";
        /// Numeric outputs.
        ///
        /// Every output is combined element by element.
        Numbers = 4, "numbers";
    }
}

impl From<EnsembleTask> for Task {
    fn from(task: EnsembleTask) -> Task {
        match task {
            EnsembleTask::Generate => Task::Generate,
            EnsembleTask::Embed => Task::Embed,
            EnsembleTask::Classify => Task::Classify,
            EnsembleTask::Numbers => Task::Unknown,
        }
    }
}

/// Options of [`Ensemble::new`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct EnsembleOptions {
    /// Method by which the outputs of the members are combined. Default: [`Method::Mean`].
    pub method: Method,
    /// Weights of the members, 0 or more, which are normalized to the sum 1. Empty (default): equal weights. The
    /// methods `max`, `median` and `contrastive` use no weights, and fail with `InvalidArgument` if some are given.
    pub weights: Vec<f64>,
    /// Temperatures of the members, at least 0.001, by which their logits are divided. Empty (default): 1.
    pub temperatures: Vec<f64>,
    /// Whether the first member's distribution is used unchanged if all members rank the same token first. Only for
    /// text generation, and not with [`Method::Rerank`]. Default: false.
    pub gate: bool,
    /// Whether members may have different vocabularies: the union of their best tokens is combined by text. Default:
    /// false.
    pub allow_different_vocabularies: bool,
    /// Rerank: number of texts per member; 0 selects 1. More than one needs a sampling temperature above 0.
    pub candidates: usize,
    /// Rerank: exponent of the number of tokens by which a text's log-probability is divided, from 0 to 10; `None`
    /// selects 1, which gives the mean log-probability of a token.
    pub length_penalty: Option<f64>,
    /// Task of the members; `None` selects the task that is detected.
    pub task: Option<Task>,
}

/// Adds the paths of the models after the first to the recipe of a report, or removes the recipe if a model has no
/// path.
fn note_models<'m>(report: &mut Report, models: impl Iterator<Item = &'m Model>) {
    let path = |model: &Model| model.path().map(|path| path.display().to_string());
    match models.skip(1).map(path).collect::<Option<Vec<String>>>() {
        Some(paths) => report.note_in_recipe("models", paths),
        None => report.recipe.clear(),
    }
}

/// A model of an ensemble, with its weight.
#[derive(Clone)]
pub struct Member {
    /// Model of the member.
    pub model: Model,
    /// Weight of the member; the sum over all members is 1.
    pub weight: f64,
    /// Temperature by which the logits of the member are divided.
    pub temperature: f64,
}

/// The models whose outputs are combined, and the method. An ensemble is immutable, cheap to clone, and can be shared
/// between threads.
#[derive(Clone)]
pub struct Ensemble {
    members: Vec<Member>,
    options: EnsembleOptions,
    task: Task,
    /// What the outputs of classifiers have, and whether they are scores instead of logits.
    kind: (LogitKind, bool),
    vocabularies: Vocabularies,
    notes: Vec<String>,
}

impl Ensemble {
    /// Returns an ensemble of these models, after checking that they can be combined.
    ///
    /// A member of weight 0 is omitted. Classes in another order than those of the first member are reordered.
    ///
    /// Fails with [`crate::error::Kind::InvalidArgument`] if there is only one model, if the number of weights or
    /// temperatures differs from that of models, or if an option is out of range or does not apply to the method or
    /// task. Fails with the same kind if the method does not support the task, the kind of logits or the number of
    /// members, if tasks, classes or kinds of logits differ, or if vocabularies differ and the options do not allow it.
    /// Fails with `LimitExceeded` for too many members or candidates. If one member is the cause, the message names it.
    pub fn new(models: Vec<Model>, options: EnsembleOptions) -> Result<Ensemble> {
        let count = models.len();
        if count < 2 {
            bail!(InvalidArgument, "an ensemble has at least two members; {count} was given");
        }
        if count > limits::ENSEMBLE_MEMBERS {
            bail!(LimitExceeded, "the ensemble has {count} members; the limit is {}", limits::ENSEMBLE_MEMBERS);
        }
        let weights = weights(&options, count)?;
        let temperatures = temperatures(&options, count)?;
        let task = task(&models, options.task)?;
        check_method(&options, task, count)?;
        let mut notes = Vec::new();
        let parts = models.into_iter().zip(weights).zip(temperatures);
        let mut members = Vec::with_capacity(count);
        for (index, ((model, weight), temperature)) in parts.enumerate() {
            if weight > 0.0 {
                members.push(Member { model, weight, temperature });
            } else {
                notes.push(format!("member {} has weight 0 and is left out", index + 1));
            }
        }
        let vocabularies = vocabulary::compare(&members, task, options.allow_different_vocabularies)?;
        notes.extend(vocabularies.note());
        let mut kind = (LogitKind::Classes, false);
        if task == Task::Classify {
            notes.extend(classes::orders(&members)?.1);
            kind = classes::kind(&members, options.method)?;
        }
        notes.extend(shortest(&members, task).map(|length| {
            format!(
                "members read texts of different lengths: texts are truncated to {length} tokens, the least of them"
            )
        }));
        Ok(Ensemble { members, options, task, kind, vocabularies, notes })
    }

    /// Returns whether the members must return outputs of the same shapes: they classify or return numbers.
    pub fn has_outputs_alike(&self) -> bool {
        matches!(self.task, Task::Classify | Task::Unknown)
    }

    /// Returns the members whose weight is above 0.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Returns the options with which the ensemble was created.
    pub fn options(&self) -> &EnsembleOptions {
        &self.options
    }

    /// Returns the task of the members.
    pub fn task(&self) -> Task {
        self.task
    }

    /// Returns notes on unexpected properties, such as a vocabulary that was truncated or a member that was omitted.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns an ensemble of the same members with other weights, one for each of [`Ensemble::members`], which are
    /// normalized. Fails with [`crate::error::Kind::InvalidArgument`] for another number of weights or invalid ones,
    /// and if the method does not use weights.
    pub fn with_weights(&self, weights: &[f64]) -> Result<Ensemble> {
        let mut options = EnsembleOptions { weights: weights.to_vec(), ..self.options.clone() };
        options.temperatures = self.members.iter().map(|member| member.temperature).collect();
        let normal = self::weights(&options, self.members.len())?;
        let mut ensemble = self.clone();
        ensemble.members.iter_mut().zip(normal).for_each(|(member, weight)| member.weight = weight);
        ensemble.options = options;
        Ok(ensemble)
    }

    /// Returns a generator that combines the members.
    ///
    /// Equal models are loaded once. `options.threads` are divided among the members ([`schedule`]). Fails with
    /// [`crate::error::Kind::Unsupported`] if the members do not generate text, or have different vocabularies with the
    /// method `rerank`; otherwise like [`crate::text::Generator::new`], with the number of the member (from 1) in the
    /// error.
    pub fn generator(&self, runtime: &'static Runtime, options: &SessionOptions, call: &Call) -> Result<Box<dyn Rows>> {
        if self.task != Task::Generate {
            bail!(Unsupported, "the members do not generate text: their task is {:?}", self.task);
        }
        match (&self.vocabularies, self.options.method) {
            (Vocabularies::Different(_), Method::Rerank) => {
                bail!(Unsupported, "members with different vocabularies cannot score each other's tokens")
            }
            (Vocabularies::Different(_), _) => Ok(Box::new(union::Union::new(self, runtime, options, call)?)),
            (Vocabularies::Same(_), Method::Rerank) => {
                Ok(Box::new(rerank::Rerank::new(self, chorus::Voices::new(self, runtime, options, call)?)))
            }
            (Vocabularies::Same(_), _) => {
                Ok(Box::new(chorus::Chorus::new(self, chorus::Voices::new(self, runtime, options, call)?)))
            }
        }
    }

    fn combiner(&self) -> Combiner {
        let weights: Vec<f64> = self.members.iter().map(|member| member.weight).collect();
        let temperatures: Vec<f64> = self.members.iter().map(|member| member.temperature).collect();
        Combiner::new(self.options.method, self.options.gate, &weights, &temperatures)
    }

    /// Returns the tokenizer of the first member that has one; `None` if no member has one.
    fn tokenizer(&self) -> Result<Option<Arc<Tokenizer>>> {
        for (index, member) in self.members.iter().enumerate() {
            if let Some(tokenizer) = Tokenizer::of(&member.model).at(|| place(index))? {
                return Ok(Some(Arc::new(tokenizer)));
            }
        }
        Ok(None)
    }
}

/// Returns the least of the lengths, in tokens, to which members that do not generate text truncate texts by default;
/// `None` if all have the same length.
fn shortest(members: &[Member], task: Task) -> Option<usize> {
    let length = |member: &Member| {
        let card = member.model.card();
        // A member without any limit reads whatever the others read.
        card.longest_text().ok().flatten().and_then(|_| card.usual_text().ok())
    };
    let lengths: Vec<usize> = members.iter().filter_map(length).collect();
    let least = lengths.iter().min().copied().filter(|_| task != Task::Generate)?;
    lengths.iter().any(|length| *length != least).then_some(least)
}

/// Returns the name of a member in messages.
fn place(index: usize) -> String {
    format!("member {}", index + 1)
}

/// Returns the weights of `count` members, with the sum 1. Fails with `InvalidArgument` if the given weights are
/// invalid, missing, or not used by the method.
fn weights(options: &EnsembleOptions, count: usize) -> Result<Vec<f64>> {
    let given = &options.weights;
    if given.is_empty() {
        if options.method == Method::Weighted {
            bail!(InvalidArgument, "the method `weighted` requires a weight for each member (or fitted weights)");
        }
        return Ok(vec![1.0 / count as f64; count]);
    }
    if matches!(options.method, Method::Max | Method::Median | Method::Contrastive) {
        bail!(InvalidArgument, "the method `{}` does not use weights", name_of(options.method));
    }
    if given.len() != count {
        bail!(InvalidArgument, "{} weights are given for {count} members", given.len());
    }
    if let Some(index) = given.iter().position(|w| !w.is_finite() || *w < 0.0) {
        bail!(InvalidArgument, "the weight of {} is {}; it must be 0 or more", place(index), given[index]);
    }
    let sum: f64 = given.iter().sum();
    if sum <= 0.0 || !sum.is_finite() {
        bail!(InvalidArgument, "the sum of the weights is {sum}; at least one must be above 0");
    }
    // Weights that are already normalized, as in a manifest, stay the same to the last bit.
    let normal = (sum - 1.0).abs() < 1e-12;
    Ok(given.iter().map(|w| if normal { *w } else { w / sum }).collect())
}

fn temperatures(options: &EnsembleOptions, count: usize) -> Result<Vec<f64>> {
    let given = &options.temperatures;
    if given.is_empty() {
        return Ok(vec![1.0; count]);
    }
    if given.len() != count {
        bail!(InvalidArgument, "{} temperatures are given for {count} members", given.len());
    }
    match given.iter().position(|t| !(t.is_finite() && *t >= 1e-3)) {
        Some(index) => {
            bail!(InvalidArgument, "the temperature of {} is {}; it must be 0.001 or more", place(index), given[index])
        }
        None => Ok(given.clone()),
    }
}

/// Returns the requested task, or otherwise the task that all members have. Fails with `InvalidArgument` if the members
/// have different tasks.
fn task(models: &[Model], asked: Option<Task>) -> Result<Task> {
    if let Some(task) = asked {
        return Ok(task);
    }
    // Without a configuration, the graph alone determines the task.
    let of = |model: &Model| match model.card().task {
        Task::Unknown if Decoder::of(model).is_ok() => Task::Generate,
        task => task,
    };
    let first = of(&models[0]);
    for (index, model) in models.iter().enumerate() {
        let task = of(model);
        if task != first {
            bail!(InvalidArgument, "the members have different tasks: member 1 {first:?}, {} {task:?}", place(index));
        }
    }
    Ok(first)
}

fn check_method(options: &EnsembleOptions, task: Task, count: usize) -> Result<()> {
    let method = options.method;
    let name = name_of(method);
    if method == Method::Contrastive && count != 2 {
        bail!(
            InvalidArgument,
            "the method `{name}` requires two members, an expert and an amateur; {count} were given"
        );
    }
    let fits = match task {
        Task::Generate => method != Method::Concat,
        Task::Embed => matches!(method, Method::Mean | Method::Weighted | Method::Concat),
        Task::Classify | Task::FillMask => !matches!(method, Method::Contrastive | Method::Rerank | Method::Concat),
        Task::Unknown => matches!(method, Method::Mean | Method::Weighted | Method::Max | Method::Median),
    };
    if !fits {
        bail!(InvalidArgument, "the method `{name}` does not support the task {task:?}");
    }
    if options.gate && (task != Task::Generate || method == Method::Rerank) {
        bail!(InvalidArgument, "`gate` requires members that generate text token by token");
    }
    if method != Method::Rerank && (options.candidates > 1 || options.length_penalty.is_some()) {
        bail!(InvalidArgument, "candidates and length_penalty apply to the method `rerank`, not `{name}`");
    }
    if options.length_penalty.is_some_and(|penalty| !(0.0..=10.0).contains(&penalty)) {
        bail!(InvalidArgument, "length_penalty is {:?}; it must be between 0 and 10", options.length_penalty);
    }
    if options.candidates > limits::GENERATED_ROWS {
        bail!(LimitExceeded, "candidates is {}; the limit is {}", options.candidates, limits::GENERATED_ROWS);
    }
    Ok(())
}

/// Returns the name of a method in flags, JSON and messages.
pub fn name_of(method: Method) -> String {
    let name = serde_json::to_value(method).ok();
    name.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
