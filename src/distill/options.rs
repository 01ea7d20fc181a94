//! What is asked for.

use crate::error::{Result, bail};
use crate::limits;
use crate::runtime::{Execution, ProviderChoice};
use serde::Serialize;
use std::path::PathBuf;

/// How far what the student expects is from what the teacher expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Divergence {
    /// `KL(teacher ‖ student)`: the student covers all that the teacher holds possible.
    #[default]
    Forward,
    /// `KL(student ‖ teacher)`: it keeps to what the teacher holds most likely (Gu et al. 2023, arXiv 2306.08543).
    Reverse,
    /// Half the sum of both to their mean (Agarwal et al. 2023, arXiv 2306.13649, β = ½).
    JensenShannon,
}

/// How the learning rate goes down after its warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// In a line to 0.
    #[default]
    Linear,
    /// Along half a cosine to 0.
    Cosine,
    /// Not at all.
    Constant,
}

/// How much each part of the loss counts. `None` means what suits the model: see [`Weights::or`].
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct LossWeights {
    /// The divergence of the distributions over tokens or classes, times the square of the temperature (Hinton et al.
    /// 2015, arXiv 1503.02531).
    pub logits: Option<f32>,
    /// The surprise at the tokens of the text themselves. Only for models that write text.
    pub labels: Option<f32>,
    /// Mean square of the difference of hidden states: the last ones, and those of matching layers.
    pub hidden: Option<f32>,
    /// 1 less the cosine of the same.
    pub cosine: Option<f32>,
    /// Divergence of the relations of queries, keys and values of the last attention (Wang et al. 2020, arXiv
    /// 2012.15828). Works for students of any width.
    pub relations: Option<f32>,
}

/// [`LossWeights`] with nothing left open.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[allow(missing_docs)] // as in LossWeights
pub struct Weights {
    pub logits: f32,
    pub labels: f32,
    pub hidden: f32,
    pub cosine: f32,
    pub relations: f32,
}

impl LossWeights {
    /// These, and `usual` where nothing was asked for.
    pub fn or(self, usual: Weights) -> Weights {
        Weights {
            logits: self.logits.unwrap_or(usual.logits),
            labels: self.labels.unwrap_or(usual.labels),
            hidden: self.hidden.unwrap_or(usual.hidden),
            cosine: self.cosine.unwrap_or(usual.cosine),
            relations: self.relations.unwrap_or(usual.relations),
        }
    }
}

/// Options of [`super::distill`].
#[derive(Debug, Clone, Serialize)]
pub struct DistillOptions {
    /// How often the text is read.
    pub epochs: u32,
    /// Blocks or lines in one run.
    pub batch_size: usize,
    /// Tokens of a block; lines are cut there. 0: 128, or what the models take if that is less.
    pub sequence_length: usize,
    /// At its highest, after the warm-up.
    pub learning_rate: f32,
    /// Softens both distributions.
    pub temperature: f32,
    /// See [`Divergence`].
    pub divergence: Divergence,
    /// See [`LossWeights`].
    pub weights: LossWeights,
    /// Share of all steps during which the learning rate goes up in a line.
    pub warmup_ratio: f32,
    /// See [`Schedule`].
    pub schedule: Schedule,
    /// AdamW's, on what has more than one dimension.
    pub weight_decay: f32,
    /// AdamW's: of the mean of gradients.
    pub beta1: f32,
    /// AdamW's: of the mean of their squares.
    pub beta2: f32,
    /// AdamW's.
    pub epsilon: f32,
    /// Gradients are scaled down to this norm, all together; 0 is no limit.
    pub max_grad_norm: f32,
    /// Runs whose gradients make one step.
    pub gradient_accumulation_steps: usize,
    /// Modules or weights by name or glob that stay as they are.
    pub freeze: Vec<String>,
    /// Share of the text that is kept for measuring, above 0 and at most a half.
    pub validation_ratio: f32,
    /// Of the order of the text, and of what is drawn.
    pub seed: u64,
    /// Ends after so many steps, whatever the epochs; 0 is no limit.
    pub max_steps: u64,
    /// Ends after so many seconds of training; 0 is no limit. The learning rate follows the clock then.
    pub time_limit: f64,
    /// Steps between measurements on the text kept for them; 0 is ten times in all.
    pub evaluate_every: u64,
    /// A file for what the teacher says of each row, so that it is asked once; `None` asks it each time. Of logits the
    /// [`DistillOptions::teacher_top_k`] likeliest are kept.
    #[serde(skip)]
    pub teacher_cache: Option<PathBuf>,
    /// Tokens or classes of each distribution that the cache keeps; the others count as equally likely.
    pub teacher_top_k: usize,
    /// Where the state is kept, so that a run that was stopped can go on; `None` is nowhere.
    #[serde(skip)]
    pub checkpoint: Option<PathBuf>,
    /// Steps between checkpoints; 0 is every ten minutes.
    #[serde(skip)]
    pub checkpoint_every: u64,
    /// Go on from the checkpoint, if it is there.
    #[serde(skip)]
    pub resume: bool,
    /// Threads; 0 is one for each physical core.
    #[serde(skip)]
    pub threads: usize,
    /// What teacher and student run on: the processor or CUDA. On a device weights, gradients and moments stay there.
    #[serde(skip)]
    pub execution: Execution,
}

impl Default for DistillOptions {
    fn default() -> Self {
        DistillOptions {
            epochs: 3,
            batch_size: 4,
            sequence_length: 0,
            learning_rate: 5e-5,
            temperature: 2.0,
            divergence: Divergence::default(),
            weights: LossWeights::default(),
            warmup_ratio: 0.05,
            schedule: Schedule::default(),
            weight_decay: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            max_grad_norm: 1.0,
            gradient_accumulation_steps: 1,
            freeze: Vec::new(),
            validation_ratio: 0.05,
            seed: 0,
            max_steps: 0,
            time_limit: 0.0,
            evaluate_every: 0,
            teacher_cache: None,
            teacher_top_k: 64,
            checkpoint: None,
            checkpoint_every: 0,
            resume: false,
            threads: 0,
            execution: Execution::default(),
        }
    }
}

impl DistillOptions {
    /// [`crate::error::Kind::InvalidArgument`] for what makes no sense, by name.
    pub fn check(&self) -> Result<()> {
        if self.execution.provider == ProviderChoice::TensorRt {
            bail!(Unsupported, "provider is tensorrt, which cannot train; use cpu, cuda or auto");
        }
        let at_least_one = [
            ("epochs", self.epochs as usize),
            ("batch_size", self.batch_size),
            ("gradient_accumulation_steps", self.gradient_accumulation_steps),
            ("teacher_top_k", self.teacher_top_k),
        ];
        if let Some((name, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            bail!(InvalidArgument, "{name} is 0; it must be at least 1");
        }
        let positive =
            [("learning_rate", self.learning_rate), ("temperature", self.temperature), ("epsilon", self.epsilon)];
        if let Some((name, value)) = positive.iter().find(|(_, value)| !(*value > 0.0 && value.is_finite())) {
            bail!(InvalidArgument, "{name} is {value}; it must be above 0");
        }
        let weights = self.weights;
        let parts = [
            ("weight_decay", Some(self.weight_decay)),
            ("max_grad_norm", Some(self.max_grad_norm)),
            ("logits_weight", weights.logits),
            ("labels_weight", weights.labels),
            ("hidden_weight", weights.hidden),
            ("cosine_weight", weights.cosine),
            ("relations_weight", weights.relations),
        ];
        let bad = |value: &Option<f32>| value.is_some_and(|v| !(v >= 0.0 && v.is_finite()));
        if let Some((name, value)) = parts.iter().find(|(_, value)| bad(value)) {
            bail!(InvalidArgument, "{name} is {}; it must be at least 0", value.unwrap_or(0.0));
        }
        let shares = [
            ("warmup_ratio", self.warmup_ratio, 1.0),
            ("beta1", self.beta1, 0.999_999),
            ("beta2", self.beta2, 0.999_999_9),
        ];
        if let Some((name, value, most)) = shares.iter().find(|(_, value, most)| !(0.0..=*most).contains(value)) {
            bail!(InvalidArgument, "{name} is {value}; it must be from 0 to {most}");
        }
        if !(self.validation_ratio > 0.0 && self.validation_ratio <= 0.5) {
            bail!(InvalidArgument, "validation_ratio is {}; it must be above 0 and at most 0.5", self.validation_ratio);
        }
        if !(self.time_limit >= 0.0 && self.time_limit.is_finite()) {
            bail!(InvalidArgument, "time_limit is {}; it must be at least 0", self.time_limit);
        }
        if self.threads > limits::THREADS {
            bail!(InvalidArgument, "{} threads were requested; the limit is {}", self.threads, limits::THREADS);
        }
        if self.resume && self.checkpoint.is_none() {
            bail!(InvalidArgument, "resume needs a checkpoint");
        }
        Ok(())
    }
}
