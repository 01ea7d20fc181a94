//! [`Learner`]: weights, gradients and moments on any device, and their updates.

use super::DistillOptions;
use super::optimizer::Moments;
use crate::error::Result;
use crate::model::ValueInfo;
use crate::runtime::{Stop, Tensor};
use std::borrow::Cow;

/// Holds the student's weights and updates them. On the CPU it is [`super::host`], on a device [`super::device`].
pub trait Learner {
    /// Returns the inputs of the training graph besides the weights.
    fn inputs(&self) -> &[ValueInfo];

    /// Runs the training graph: returns the losses, and keeps the gradients, added to those of earlier runs unless it
    /// is the `first` of a step.
    fn gradients(&mut self, feed: &[(&str, &Tensor)], first: bool, stop: &Stop) -> Result<Vec<Tensor>>;

    /// Updates the weights by the gradients, if these and the loss are finite. Returns the norm of the gradients, and
    /// whether the weights were left unchanged.
    fn update(&mut self, update: &Update<'_>, stop: &Stop) -> Result<Updated>;

    /// Returns the losses of each feed with the present weights.
    fn losses(&mut self, feeds: &mut dyn Iterator<Item = Result<Feeding>>, stop: &Stop) -> Result<Vec<Vec<Tensor>>>;

    /// Completes postponed updates. Must be called before [`Learner::weights`] and [`Learner::moments`].
    fn settle(&mut self) {}

    /// Returns the present weights.
    fn weights(&self) -> Result<Weights<'_>>;

    /// Returns the present moments.
    fn moments(&self) -> Result<Cow<'_, [Moments]>>;

    /// Restores a state.
    fn restore(&mut self, weights: &[Vec<f32>], moments: Vec<Moments>) -> Result<()>;
}

/// The values of each parameter.
pub type Weights<'l> = Vec<Cow<'l, [f32]>>;

/// Inputs by name.
pub type Feeding = Vec<(String, Tensor)>;

/// The parameters of an update.
pub struct Update<'o> {
    /// Options of the run.
    pub options: &'o DistillOptions,
    /// Index of the step, from 1, without skipped ones.
    pub count: u64,
    /// Learning rate of the step.
    pub learning_rate: f32,
    /// Whether the loss is finite.
    pub loss_is_finite: bool,
}

/// The result of an update.
pub struct Updated {
    /// Norm of the gradients before clipping.
    pub norm: f64,
    /// Whether the weights were left unchanged.
    pub skipped: bool,
}
