//! [`Learner`]: weights, gradients and moments, wherever they are, and what changes them.

use super::DistillOptions;
use super::optimizer::Moments;
use crate::error::Result;
use crate::model::ValueInfo;
use crate::runtime::{Stop, Tensor};
use std::borrow::Cow;

/// Keeps the student's weights and changes them. On the processor it is [`super::host`], on a device [`super::device`].
pub trait Learner {
    /// What the training graph is to be given besides the weights.
    fn inputs(&self) -> &[ValueInfo];

    /// Runs the training graph: gives the losses, and keeps the gradients, added to those of the runs before unless it
    /// is the `first` of a step.
    fn gradients(&mut self, feed: &[(&str, &Tensor)], first: bool, stop: &Stop) -> Result<Vec<Tensor>>;

    /// Changes the weights by the gradients, if these and the loss are finite.
    fn update(&mut self, update: &Update<'_>, stop: &Stop) -> Result<Updated>;

    /// Gives the losses of each feed with the weights as they are.
    fn losses(&mut self, feeds: &mut dyn Iterator<Item = Result<Feeding>>, stop: &Stop) -> Result<Vec<Vec<Tensor>>>;

    /// Does what was put off, if anything is. To be called before [`Learner::weights`] and [`Learner::moments`].
    fn settle(&mut self) {}

    /// The weights as they are.
    fn weights(&self) -> Result<Weights<'_>>;

    /// The moments as they are.
    fn moments(&self) -> Result<Cow<'_, [Moments]>>;

    /// Goes back to a state.
    fn restore(&mut self, weights: &[Vec<f32>], moments: Vec<Moments>) -> Result<()>;
}

/// The values of each parameter.
pub type Weights<'l> = Vec<Cow<'l, [f32]>>;

/// Inputs by name.
pub type Feeding = Vec<(String, Tensor)>;

/// What a step is to be.
pub struct Update<'o> {
    /// For what stays the same.
    pub options: &'o DistillOptions,
    /// Number of the step, from 1, those skipped not counted.
    pub count: u64,
    /// Its learning rate.
    pub learning_rate: f32,
    /// Whether the loss is a number.
    pub loss_is_finite: bool,
}

/// What a step was.
pub struct Updated {
    /// The norm of the gradients, before it was limited.
    pub norm: f64,
    /// Whether the weights were left as they were.
    pub skipped: bool,
}
