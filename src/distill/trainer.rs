//! One step of training ([`Trainer`]): the outputs of the teacher and the gradients of the student are computed, and
//! the student's weights are updated.

use super::DistillOptions;
use super::data::{Batch, Dataset};
use super::device::Device;
use super::graph::Graphs;
use super::host::Host;
use super::learner::{Feeding, Learner, Update, Weights};
use super::objective::input;
use super::optimizer::Moments;
use super::teacher::Teacher;
use crate::call::Call;
use crate::error::{Context, Result};
use crate::inputs::feed::Feed;
use crate::model::Model;
use crate::runtime::{Provider, Runtime, Session, SessionOptions, Stop, Tensor};
use std::borrow::Cow;

/// The student and the teacher during training.
pub struct Trainer {
    learner: Box<dyn Learner>,
    teacher: Teacher,
    inputs: Inputs,
    /// Weight of each part of the loss.
    parts: Vec<f32>,
}

/// A builder of the inputs of the training graph, except the weights.
struct Inputs {
    feed: Feed,
    /// Names of the inputs with the weights of tokens and rows, and with labels.
    counted: Vec<String>,
    /// Whether labels are classes of rows instead of next tokens.
    classifies: bool,
}

/// The result of a step.
#[derive(Debug, Clone, Default)]
pub struct Done {
    /// Loss before the update.
    pub loss: f64,
    /// Norm of the gradients before clipping.
    pub norm: f64,
    /// Whether the weights were left unchanged, because the loss or a gradient was not finite.
    pub skipped: bool,
    /// Number of trained tokens.
    pub tokens: u64,
}

impl Trainer {
    /// Returns a trainer with the weights of the student. Fails like [`Trainer::with_learner`].
    pub fn new(
        runtime: &'static Runtime,
        graphs: &Graphs,
        student: &Model,
        teacher: Teacher,
        options: &DistillOptions,
        call: &Call,
    ) -> Result<Trainer> {
        Trainer::with_learner(runtime, graphs, student, teacher, options, None, call)
    }

    /// Returns a trainer of the weights of the student. `on_device` says whether the weights stay on the device of the
    /// session; with `None`, they do unless the device is the CPU. Fails like [`Session::new`], and with `Runtime` or
    /// `LimitExceeded` if the memory does not suffice.
    pub fn with_learner(
        runtime: &'static Runtime,
        graphs: &Graphs,
        student: &Model,
        teacher: Teacher,
        options: &DistillOptions,
        on_device: Option<bool>,
        call: &Call,
    ) -> Result<Trainer> {
        // Varying sizes disable the planning of memory, which would increase the peak by a sixth and gain nothing.
        let session = SessionOptions {
            threads: options.threads,
            varying_sizes: true,
            disable_prepacking: true,
            execution: options.execution.clone(),
            ..SessionOptions::stock()
        };
        let make = |proto| Session::new(runtime, &Model::from_proto(proto), &session, call).at(|| "the training graph");
        let measure = make(graphs.measure.clone())?;
        let learner: Box<dyn Learner> = match on_device.unwrap_or(measure.provider() != Provider::Cpu) {
            true => {
                let train = make(graphs.train.clone())?;
                Box::new(Device::new(runtime, train, measure, graphs, (options, &session), call)?)
            }
            false => Box::new(Host::new(make(graphs.train_by_rows.clone())?, measure, graphs, options.threads)?),
        };
        let there: Vec<&str> = learner.inputs().iter().map(|info| info.name.as_str()).collect();
        let counted = [input::WEIGHTS, input::ROWS, input::LABELS, input::LABEL_WEIGHTS, input::KEEP];
        let counted = counted.into_iter().filter(|name| there.contains(name)).map(str::to_owned).collect();
        let of_labels = learner.inputs().iter().find(|info| info.name == input::LABELS);
        let classifies = of_labels.is_some_and(|info| info.shape.as_ref().is_some_and(|shape| shape.len() == 1));
        let inputs = Inputs { feed: Feed::new(student)?.only(&there), counted, classifies };
        Ok(Trainer { learner, teacher, inputs, parts: graphs.parts.iter().map(|part| part.weight).collect() })
    }

    /// Performs one step with the gradients of all `batches`, and returns its result. `count` is the number of the
    /// step, from 1, without skipped steps. Fails if the teacher or the student cannot be run, also because `stop` was
    /// triggered.
    pub fn step(
        &mut self,
        batches: &[Batch],
        options: &DistillOptions,
        count: u64,
        learning_rate: f32,
        stop: &Stop,
    ) -> Result<Done> {
        let totals = Totals::of(batches, self.inputs.classifies);
        let mut done = Done { tokens: totals.tokens as u64, ..Done::default() };
        for (index, batch) in batches.iter().enumerate() {
            let inputs = self.inputs.of(batch, &totals, self.teacher.say(batch, stop)?)?;
            let feed: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
            let losses = self.learner.gradients(&feed, index == 0, stop)?;
            done.loss += weighted(&losses, &self.parts)?.0;
        }
        let update = Update { options, count, learning_rate, loss_is_finite: done.loss.is_finite() };
        let updated = self.learner.update(&update, stop)?;
        (done.norm, done.skipped) = (updated.norm, updated.skipped);
        Ok(done)
    }

    /// Returns the loss of `batches` with the current weights, and each of its parts without its weight. Fails like
    /// [`Trainer::step`].
    pub fn measure(&mut self, batches: &[Batch], stop: &Stop) -> Result<(f64, Vec<f64>)> {
        let totals = Totals::of(batches, self.inputs.classifies);
        let Trainer { learner, teacher, inputs, parts } = self;
        let mut feeds = batches.iter().map(|batch| inputs.of(batch, &totals, teacher.say(batch, stop)?));
        let (mut sum, mut each) = (0.0, vec![0.0; parts.len()]);
        for losses in learner.losses(&mut feeds, stop)? {
            let (total, more) = weighted(&losses, parts)?;
            sum += total;
            each.iter_mut().zip(more).for_each(|(part, more)| *part += more);
        }
        Ok((sum, each))
    }

    /// Returns the current weights and moments. Fails with `Runtime` if they cannot be copied from the device.
    pub fn state(&mut self) -> Result<(Weights<'_>, Cow<'_, [Moments]>)> {
        self.learner.settle();
        Ok((self.learner.weights()?, self.learner.moments()?))
    }

    /// Returns a copy of the current weights. Fails like [`Trainer::state`].
    pub fn snapshot(&mut self) -> Result<Vec<Vec<f32>>> {
        self.learner.settle();
        Ok(self.learner.weights()?.into_iter().map(Cow::into_owned).collect())
    }

    /// Replaces the weights and moments by those of a checkpoint. Fails with `Runtime` if they cannot be copied to the
    /// device.
    pub fn restore(&mut self, weights: &[Vec<f32>], moments: Vec<Moments>) -> Result<()> {
        self.learner.restore(weights, moments)
    }
}

impl Inputs {
    /// Returns the inputs of the training graph for a batch, with the outputs of the teacher.
    fn of(&self, batch: &Batch, totals: &Totals, said: Feeding) -> Result<Feeding> {
        let mut inputs = self.feed.tensors([batch.rows, batch.columns], &batch.ids, &batch.keep)?;
        inputs.extend(said);
        let both = [batch.rows as i64, batch.columns as i64];
        for name in &self.counted {
            let of_tokens = |value: f64| batch.keep.iter().map(|k| if *k { value as f32 } else { 0.0 }).collect();
            let tensor = match name.as_str() {
                input::WEIGHTS => Tensor::from_f32(&both, of_tokens(1.0 / totals.tokens as f64))?,
                input::KEEP => Tensor::from_f32(&both, of_tokens(1.0))?,
                input::ROWS => Tensor::from_f32(&both[..1], vec![(1.0 / totals.rows as f64) as f32; batch.rows])?,
                input::LABELS => {
                    let labels: Vec<i64> = labels(batch, self.classifies).map(|label| label.unwrap_or(0)).collect();
                    Tensor::from_i64(&both[..2 - usize::from(self.classifies)], labels)?
                }
                _ => {
                    let value = (1.0 / totals.labelled.max(1) as f64) as f32;
                    let counts = labels(batch, self.classifies).map(|label| if label.is_some() { value } else { 0.0 });
                    Tensor::from_f32(&both[..2 - usize::from(self.classifies)], counts.collect())?
                }
            };
            inputs.push((name.clone(), tensor));
        }
        Ok(inputs)
    }
}

/// Returns the weighted sum of the parts of the loss, and each part without its weight.
fn weighted(losses: &[Tensor], parts: &[f32]) -> Result<(f64, Vec<f64>)> {
    let mut each = Vec::with_capacity(parts.len());
    for loss in losses {
        each.push(f64::from(loss.as_slice::<f32>()?.first().copied().unwrap_or(f32::NAN)));
    }
    let sum = each.iter().zip(parts).map(|(loss, weight)| loss * f64::from(*weight)).sum();
    Ok((sum, each))
}

/// The denominators of the losses, which are counts over all runs of a step.
struct Totals {
    tokens: usize,
    rows: usize,
    /// Number of tokens with a next token, or rows of a known class.
    labelled: usize,
}

/// Returns the label of each token or row: the next token, or the class. `None` if there is no next token, or the class
/// is unknown.
fn labels(batch: &Batch, classifies: bool) -> Box<dyn Iterator<Item = Option<i64>> + '_> {
    match classifies {
        true => Box::new(batch.classes.iter().copied()),
        false => Box::new(batch.next()),
    }
}

impl Totals {
    fn of(batches: &[Batch], classifies: bool) -> Totals {
        Totals {
            tokens: batches.iter().map(Batch::tokens).sum::<usize>().max(1),
            rows: batches.iter().map(|batch| batch.rows).sum::<usize>().max(1),
            labelled: batches.iter().map(|batch| labels(batch, classifies).flatten().count()).sum(),
        }
    }
}

/// Returns the validation batches, of the same size as the training batches.
pub fn held_out(data: &Dataset, batch_size: usize) -> Vec<Batch> {
    data.held(batch_size, MEASURED)
}

/// The approximate number of tokens of a validation during training.
const MEASURED: usize = 4096;
