//! The interface of weights, gradients and moments on any device ([`Learner`]).

use super::DistillOptions;
use super::optimizer::Moments;
use crate::error::Result;
use crate::model::ValueInfo;
use crate::runtime::{Stop, Tensor};
use std::borrow::Cow;

/// The holder of the student's weights, which updates them. On the CPU it is [`super::host`], on a device
/// [`super::device`].
pub trait Learner {
    /// Returns the inputs of the training graph other than the weights.
    fn inputs(&self) -> &[ValueInfo];

    /// Runs the training graph and returns the losses. The gradients are kept, and added to those of earlier runs
    /// unless the run is the `first` of a step.
    fn gradients(&mut self, feed: &[(&str, &Tensor)], first: bool, stop: &Stop) -> Result<Vec<Tensor>>;

    /// Updates the weights by the gradients, if these and the loss are finite. Returns the norm of the gradients before
    /// clipping, and whether the weights were left unchanged.
    fn update(&mut self, update: &Update<'_>, stop: &Stop) -> Result<Updated>;

    /// Returns the losses of each feed with the current weights.
    fn losses(&mut self, feeds: &mut dyn Iterator<Item = Result<Feeding>>, stop: &Stop) -> Result<Vec<Vec<Tensor>>>;

    /// Completes postponed updates. This must be called before [`Learner::weights`] and [`Learner::moments`].
    fn settle(&mut self) {}

    /// Returns the current weights.
    fn weights(&self) -> Result<Weights<'_>>;

    /// Returns the current moments.
    fn moments(&self) -> Result<Cow<'_, [Moments]>>;

    /// Replaces the weights and moments by those of a checkpoint.
    fn restore(&mut self, weights: &[Vec<f32>], moments: Vec<Moments>) -> Result<()>;
}

/// The values of each parameter.
pub type Weights<'l> = Vec<Cow<'l, [f32]>>;

/// The inputs of a run by name.
pub type Feeding = Vec<(String, Tensor)>;

/// The parameters of an update of the weights.
pub struct Update<'o> {
    /// Options of the run.
    pub options: &'o DistillOptions,
    /// Index of the step, from 1, without skipped steps.
    pub count: u64,
    /// Learning rate of the step.
    pub learning_rate: f32,
    /// Whether the loss of the step is finite.
    pub loss_is_finite: bool,
}

/// The result of an update of the weights.
pub struct Updated {
    /// Norm of the gradients before clipping.
    pub norm: f64,
    /// Whether the weights were left unchanged.
    pub skipped: bool,
}
