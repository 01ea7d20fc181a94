//! Options of distillation.

use crate::choice::choice;
use crate::error::{Result, bail};
use crate::limits;
use crate::runtime::{Execution, ProviderChoice};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

choice! {
    /// The divergence between the distributions of teacher and student.
    pub enum Divergence: optimize_divergence_t = Forward {
        /// KL(teacher, student).
        ///
        /// The student covers everything that the teacher considers possible.
        Forward = 0, "forward";
        /// KL(student, teacher).
        ///
        /// The student concentrates on what the teacher considers most probable. Gu et al. 2023, arXiv 2306.08543.
        Reverse = 1, "reverse";
        /// Mean of the divergences of both from their mean.
        ///
        /// Agarwal et al. 2023, arXiv 2306.13649, β = ½.
        JensenShannon = 2, "jensen-shannon";
    }
}

choice! {
    /// The decay of the learning rate after its warm-up.
    pub enum Schedule: optimize_schedule_t = Linear {
        /// Linear decay to 0.
        Linear = 0, "linear";
        /// Cosine decay to 0.
        Cosine = 1, "cosine";
        /// No decay.
        Constant = 2, "constant";
    }
}

/// Weights of the parts of the loss, each 0 or more. `None` selects the default for the models: if both have logits, 1
/// for `logits` and 0 for the others; otherwise 1 for `hidden` and `cosine` and 0 for the others.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct LossWeights {
    /// Weight of the divergence of the distributions over tokens or classes, times the square of the temperature
    /// (Hinton et al. 2015, arXiv 1503.02531). For labels that do not exclude each other, the divergences of the labels
    /// are added; for models with one logit and regressions, it is the weight of the squared differences.
    pub logits: Option<f32>,
    /// Weight of the cross-entropy with the tokens of the text itself, or with the classes of the texts, if
    /// classes exclude each other.
    pub labels: Option<f32>,
    /// Weight of the mean squared difference of hidden states: the last ones, and those of matching layers.
    pub hidden: Option<f32>,
    /// Weight of 1 - cosine of hidden states.
    pub cosine: Option<f32>,
    /// Weight of the divergence of the relations between queries, keys and values of the last attention (Wang et al.
    /// 2020, arXiv 2012.15828). The student may have another width than the teacher.
    pub relations: Option<f32>,
}

/// The weights of [`LossWeights`] with defaults for those that are `None`.
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
    /// Returns these weights, with those of `usual` where they are `None`.
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
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct DistillOptions {
    /// Number of passes over the text, at least 1. Default: 3.
    pub epochs: u32,
    /// Number of blocks or lines per run, at least 1. Default: 4.
    pub batch_size: usize,
    /// Number of tokens per block, at least 2; longer lines are truncated. 0 selects 128, or the limit of the models if
    /// that is less.
    pub sequence_length: usize,
    /// Learning rate after the warm-up, above 0. Default: 5e-5.
    pub learning_rate: f32,
    /// Temperature by which the logits of teacher and student are divided, above 0. Default: 2.
    pub temperature: f32,
    /// Divergence between the distributions of teacher and student. Default: [`Divergence::Forward`].
    pub divergence: Divergence,
    /// Weights of the parts of the loss.
    pub weights: LossWeights,
    /// Share of all steps, from 0 to 1, in which the learning rate warms up linearly. Default: 0.05.
    pub warmup_ratio: f32,
    /// Decay of the learning rate. Default: [`Schedule::Linear`].
    pub schedule: Schedule,
    /// Weight decay of AdamW, 0 or more, which applies to weights with more than one dimension, not to biases and
    /// norms. Default: 0.01.
    pub weight_decay: f32,
    /// Beta 1 of AdamW, for the mean of gradients, from 0 to 0.999999. Default: 0.9.
    pub beta1: f32,
    /// Beta 2 of AdamW, for the mean of squared gradients, from 0 to 0.9999999. Default: 0.999.
    pub beta2: f32,
    /// Epsilon of AdamW, above 0. Default: 1e-8.
    pub epsilon: f32,
    /// Maximum norm of all gradients together; 0 disables clipping. Default: 1.
    pub max_grad_norm: f32,
    /// Number of runs whose gradients are accumulated into one step, at least 1. Default: 1.
    pub gradient_accumulation_steps: usize,
    /// Names or globs of modules or weights that stay unchanged. Default: none.
    pub freeze: Vec<String>,
    /// Share of the text that is held out for validation, above 0 and at most a half. Default: 0.05.
    pub validation_ratio: f32,
    /// Seed of the order of the text, and of random initial values. Default: 0.
    pub seed: u64,
    /// Maximum number of steps, independent of the number of epochs; 0 (default) for no limit.
    pub max_steps: u64,
    /// Maximum training time in seconds, over which the learning rate then decays; 0 (default) for no limit. A run that
    /// reaches it is complete: it leaves no checkpoint.
    pub time_limit: f64,
    /// Number of steps between validations; 0 (default) for ten validations in the run.
    pub evaluate_every: u64,
    /// Path of a file that caches the teacher's outputs for each row, so that the teacher runs only once per row;
    /// `None` (default) disables the cache. Of logits, the [`DistillOptions::teacher_top_k`] most probable are kept.
    #[serde(skip)]
    pub teacher_cache: Option<PathBuf>,
    /// Number of the most probable tokens or classes of each distribution in the cache, at least 1; the others are
    /// treated as equally probable. Default: 64.
    pub teacher_top_k: usize,
    /// Path of the checkpoint, from which a stopped run can continue; `None` (default) for no checkpoints.
    #[serde(skip)]
    pub checkpoint: Option<PathBuf>,
    /// Number of steps between checkpoints; 0 (default) for a checkpoint every ten minutes.
    #[serde(skip)]
    pub checkpoint_every: u64,
    /// Whether to continue from the checkpoint, if there is one. Requires `checkpoint`. Default: false.
    #[serde(skip)]
    pub resume: bool,
    /// Number of threads; 0 (default) for one per physical core.
    #[serde(skip)]
    pub threads: usize,
    /// Execution provider of teacher and student: the CPU (default), CUDA, or `auto`, which selects CUDA if it is
    /// available. On a device, weights, gradients and moments stay in the memory of the device.
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
    /// Fails with [`crate::error::Kind::InvalidArgument`] and the name of an option if it is invalid, and with
    /// [`crate::error::Kind::Unsupported`] for the provider TensorRT.
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
