//! Ensembles: several models, one answer.
//!
//! [`Ensemble`] holds the members and how they are combined, checked. From there three ways lead on:
//!
//! - [`Ensemble::generator`] writes text: members decode in step, and at every token their distributions become one
//!   ([`combine`]), from which a sampler draws. `chorus` is for members of one vocabulary, `union` for members of
//!   different ones, `rerank` has each write for itself and chooses; [`schedule`] shares the threads out.
//! - [`Ensemble::fuse`] makes one model of them, whose branches are the members: it is saved, run, evaluated and
//!   benchmarked like any other, and is what loading a manifest ([`manifest`]) gives.
//! - [`merge`] averages weights, so that one model of one member's size is left.
//!
//! [`fit`] finds the weights that foretell a text best.
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
use crate::error::{Context, Result, bail};
use crate::limits;
use crate::meaning::Order;
use crate::model::{Model, Task};
use crate::runtime::{Runtime, SessionOptions};
use crate::text::{Decoder, Rows, Tokenizer};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use vocabulary::Vocabularies;

/// How the members' answers become one. Formulas are in [`combine`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The mean of the probabilities; of embeddings, of the normalized vectors; of numbers, of the numbers.
    #[default]
    Mean,
    /// [`Method::Mean`] with weights, which must be given.
    Weighted,
    /// The softmax of the mean of the logits.
    Logits,
    /// The product of the probabilities.
    Product,
    /// The largest probability.
    Max,
    /// The middle probability.
    Median,
    /// The share of the members that hold the token, or class, for the most probable one.
    Vote,
    /// The first member's probabilities divided by the second's, where the first holds a token for plausible.
    Contrastive,
    /// Each member writes; all of them score what each has written; the best is taken.
    Rerank,
    /// Embeddings one after another, each normalized and times the root of its weight.
    Concat,
}

/// Options of [`Ensemble::new`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct EnsembleOptions {
    /// See [`Method`].
    pub method: Method,
    /// One for each member, 0 or more; they count relative to their sum. Empty: equal.
    pub weights: Vec<f64>,
    /// One for each member, above 0: its logits are divided by it before they are combined. Empty: 1.
    pub temperatures: Vec<f64>,
    /// Take the first member's distribution as it is where all hold the same token for the most probable one.
    pub gate: bool,
    /// Let members have different vocabularies: the union of their best tokens is combined, by the text they stand for.
    pub allow_different_vocabularies: bool,
    /// Rerank: texts that each member writes; 0 is 1. More than one needs a temperature of the sampling above 0.
    pub candidates: usize,
    /// Rerank: a text's log-probability is divided by its number of tokens to this power; `None` is 1, the mean.
    pub length_penalty: Option<f64>,
    /// What the members do; `None`: as they say themselves.
    pub task: Option<Task>,
}

/// A model of an ensemble.
#[derive(Clone)]
pub struct Member {
    /// The model.
    pub model: Model,
    /// Its weight; all weights add up to 1.
    pub weight: f64,
    /// Its logits are divided by this.
    pub temperature: f64,
}

/// Models that answer together, and how. Cheap to clone; never changes; shared freely between threads.
#[derive(Clone)]
pub struct Ensemble {
    members: Vec<Member>,
    options: EnsembleOptions,
    task: Task,
    vocabularies: Vocabularies,
    notes: Vec<String>,
}

impl Ensemble {
    /// Checks that these models can answer together.
    ///
    /// A member of weight 0 is left out. [`crate::error::Kind::InvalidArgument`] if there is one model only, if weights
    /// or temperatures are not as many as the models or out of range, if the method is not for the members' task or for
    /// their number, if their vocabularies differ and the options do not allow it, or if classifiers know other classes
    /// (those in another order are put in that of the first): the message names the member.
    pub fn new(models: Vec<Model>, options: EnsembleOptions) -> Result<Ensemble> {
        let count = models.len();
        if count < 2 {
            bail!(InvalidArgument, "an ensemble has at least two members; {count} was given");
        }
        if count > limits::ENSEMBLE_MEMBERS {
            bail!(LimitExceeded, "{count} members; the limit is {}", limits::ENSEMBLE_MEMBERS);
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
        if task == Task::Classify {
            notes.extend(orders(&members)?.1);
        }
        Ok(Ensemble { members, options, task, vocabularies, notes })
    }

    /// The members that have a weight.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The options as they were given.
    pub fn options(&self) -> &EnsembleOptions {
        &self.options
    }

    /// What the members do.
    pub fn task(&self) -> Task {
        self.task
    }

    /// What the caller may not expect: a vocabulary that was trimmed, a member that was left out.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The same members with other weights, which need not add up to 1.
    pub fn with_weights(&self, weights: &[f64]) -> Result<Ensemble> {
        let mut options = EnsembleOptions { weights: weights.to_vec(), ..self.options.clone() };
        options.temperatures = self.members.iter().map(|member| member.temperature).collect();
        let normal = self::weights(&options, self.members.len())?;
        let mut ensemble = self.clone();
        ensemble.members.iter_mut().zip(normal).for_each(|(member, weight)| member.weight = weight);
        ensemble.options = options;
        Ok(ensemble)
    }

    /// Makes the members ready to write text together.
    ///
    /// Equal models are loaded once. `options.threads` are shared out among the members ([`schedule`]).
    /// [`crate::error::Kind::Unsupported`] if the members do not write text; else as [`crate::text::Generator::new`],
    /// with the number of the member.
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

    /// The tokenizer of the first member that has one.
    fn tokenizer(&self) -> Result<Option<Arc<Tokenizer>>> {
        for (index, member) in self.members.iter().enumerate() {
            if let Some(tokenizer) = Tokenizer::of(&member.model).at(|| place(index))? {
                return Ok(Some(Arc::new(tokenizer)));
            }
        }
        Ok(None)
    }
}

/// An order of classes; `None` for that in which they are.
type ClassOrder = Option<Vec<usize>>;

/// The order in which each member's classes are those of the first, `None` where they are already, and what is to be
/// said of it. [`crate::error::Kind::InvalidArgument`] if a member knows other classes.
fn orders(members: &[Member]) -> Result<(Vec<ClassOrder>, Vec<String>)> {
    let (mut orders, mut notes) = (vec![None], Vec::new());
    for (index, member) in members.iter().enumerate().skip(1) {
        let order = Order::of(members[0].model.card(), member.model.card(), &place(0), &place(index));
        notes.extend(order.note(&place(0), &place(index)));
        orders.push(order.mapping()?);
    }
    Ok((orders, notes))
}

/// How messages name a member.
fn place(index: usize) -> String {
    format!("member {}", index + 1)
}

/// Weights that add up to 1.
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
        bail!(InvalidArgument, "{} weights for {count} members", given.len());
    }
    if let Some(index) = given.iter().position(|w| !w.is_finite() || *w < 0.0) {
        bail!(InvalidArgument, "the weight of {} is {}; it must be 0 or more", place(index), given[index]);
    }
    let sum: f64 = given.iter().sum();
    if sum <= 0.0 || !sum.is_finite() {
        bail!(InvalidArgument, "the sum of the weights is {sum}; at least one must be above 0");
    }
    // Weights that were normal already, as a manifest keeps them, stay the same to the last bit.
    let normal = (sum - 1.0).abs() < 1e-12;
    Ok(given.iter().map(|w| if normal { *w } else { w / sum }).collect())
}

fn temperatures(options: &EnsembleOptions, count: usize) -> Result<Vec<f64>> {
    let given = &options.temperatures;
    if given.is_empty() {
        return Ok(vec![1.0; count]);
    }
    if given.len() != count {
        bail!(InvalidArgument, "{} temperatures for {count} members", given.len());
    }
    match given.iter().position(|t| !(t.is_finite() && *t >= 1e-3)) {
        Some(index) => {
            bail!(InvalidArgument, "the temperature of {} is {}; it must be 0.001 or more", place(index), given[index])
        }
        None => Ok(given.clone()),
    }
}

/// What all members do.
fn task(models: &[Model], asked: Option<Task>) -> Result<Task> {
    if let Some(task) = asked {
        return Ok(task);
    }
    // A graph alone may say it, where no configuration does.
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
        bail!(LimitExceeded, "{} candidates; the limit is {}", options.candidates, limits::GENERATED_ROWS);
    }
    Ok(())
}

/// The name of a method in flags, JSON and messages.
pub fn name_of(method: Method) -> String {
    let name = serde_json::to_value(method).ok();
    name.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
