//! Distillation: the training of a student model on the outputs of a teacher.

use super::call::{self, optimize_call_t};
use super::context::optimize_context_t;
use super::error::optimize_error_t;
use super::handle;
use super::model::{self, optimize_model_t};
use super::options::{self, Options};
use super::session;
use super::status::optimize_status_t;
use super::{Out, buffer, guard, optional_path, text as c_text, text_of, texts};
use crate::distill::{Corpus, DistillOptions, Divergence, LossWeights, Moment, Schedule, distill, student_of};
use crate::error::{Context as _, Result, bail};
use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;

/// Divergence between the distributions of teacher and student.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_divergence_t {
    /// KL(teacher ‖ student): the student learns to cover all outcomes that the teacher considers possible.
    OPTIMIZE_DIVERGENCE_FORWARD = 0,
    /// KL(student ‖ teacher): the student learns to concentrate on outcomes that the teacher considers most probable.
    OPTIMIZE_DIVERGENCE_REVERSE = 1,
    /// Jensen-Shannon divergence: the mean of the divergences of both distributions from their mean.
    OPTIMIZE_DIVERGENCE_JENSEN_SHANNON = 2,
}

/// Decay of the learning rate after the warm-up.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_schedule_t {
    /// Linear decay to 0.
    OPTIMIZE_SCHEDULE_LINEAR = 0,
    /// Cosine decay to 0.
    OPTIMIZE_SCHEDULE_COSINE = 1,
    /// Constant learning rate.
    OPTIMIZE_SCHEDULE_CONSTANT = 2,
}

/// A training step or a validation, as the training callback receives it.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_training_step_t {
    /// Size of the struct in this version of the library.
    pub struct_size: u32,
    /// 1 for a validation on held-out text, 0 for a training step.
    pub is_validation: u32,
    /// Index of the epoch, from 0.
    pub epoch: u32,
    /// Number of planned epochs.
    pub total_epochs: u32,
    /// Number of completed steps.
    pub step: u64,
    /// Number of planned steps; a time limit can end training earlier.
    pub total_steps: u64,
    /// Training loss of this step, or loss of this validation.
    pub loss: f64,
    /// Norm of all gradients together before clipping; 0 for a validation.
    pub gradient_norm: f64,
    /// Learning rate of this step; 0 for a validation.
    pub learning_rate: f64,
    /// Number of tokens per second in this step; 0 for a validation.
    pub tokens_per_second: f64,
    /// Seconds of training, including the time before a resume.
    pub seconds: f64,
    /// Estimated number of remaining seconds; 0 for a validation.
    pub seconds_left: f64,
}

/// Training callback. It is called on the thread that made the call, after each step and each validation. `step` is
/// valid during the callback. A return value other than 0 cancels the training, which then writes its checkpoint if
/// `checkpoint` is set. The callback must not throw or use longjmp.
#[allow(non_camel_case_types)]
pub type optimize_training_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, step: *const optimize_training_step_t) -> i32>;

/// Options of `optimize_model_distill`. Fields that are 0 or NULL have their defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_distill_options_t {
    /// sizeof(optimize_distill_options_t).
    pub struct_size: u32,
    /// Number of passes over the text; 0 selects 3.
    pub epochs: u32,
    /// A value other than 0 reads each line of the text as a JSON object `{"text": "..."}` with a separate text.
    pub json_lines: u32,
    /// Number of rows per run: blocks of tokens for models that generate text, lines for others; 0 selects 4.
    pub batch_size: u32,
    /// Number of tokens per block; lines are truncated to this length. 0 selects 128, or the limit of the models if
    /// it is less.
    pub sequence_length: u32,
    /// Number of runs whose gradients are accumulated into one step; 0 selects 1.
    pub gradient_accumulation_steps: u32,
    /// Learning rate after the warm-up; 0 selects 5e-5.
    pub learning_rate: f64,
    /// Temperature of both distributions; 0 selects 2.
    pub temperature: f64,
    /// Divergence of the distributions, an optimize_divergence_t.
    pub divergence: i32,
    /// Decay of the learning rate, an optimize_schedule_t.
    pub schedule: i32,
    /// Weight of the divergence of logits in the loss; 0 selects 1 if both models have logits, and otherwise disables
    /// this part; a negative value always disables it.
    pub logits_weight: f64,
    /// Weight of the cross-entropy with the tokens of the text, or for classifiers with the classes (`"label"` of JSON
    /// lines); 0 or a negative value disables it.
    pub labels_weight: f64,
    /// Weight of the mean squared difference of hidden states; 0 selects 1 if a model has no logits, and otherwise
    /// disables this part; a negative value always disables it.
    pub hidden_weight: f64,
    /// Weight of 1 - cosine of hidden states; 0 selects 1 if a model has no logits, and otherwise disables this part; a
    /// negative value always disables it.
    pub cosine_weight: f64,
    /// Weight of the divergence of self-attention relations (queries, keys, values) in the last layer; 0 or a negative
    /// value disables it.
    pub relations_weight: f64,
    /// Share of the steps in which the learning rate warms up; 0 selects 0.05, a negative value disables the warm-up.
    pub warmup_ratio: f64,
    /// Weight decay of the weights with more than one dimension; 0 selects 0.01, a negative value disables it.
    pub weight_decay: f64,
    /// Maximum norm of the gradients; 0 selects 1, a negative value disables clipping.
    pub max_grad_norm: f64,
    /// Share of the text that is held out for validation, above 0 and at most 0.5; 0 selects 0.05.
    pub validation_ratio: f64,
    /// Maximum training time in seconds; 0 means no limit.
    pub time_limit: f64,
    /// Maximum number of steps; 0 means no limit.
    pub max_steps: u64,
    /// Number of steps between validations; 0 selects ten validations during the training.
    pub evaluate_every: u64,
    /// Number of steps between checkpoints; 0 selects an interval of ten minutes.
    pub checkpoint_every: u64,
    /// Seed of the order in which the text is read, and of random initial values.
    pub seed: u64,
    /// Array of `freeze_count` names or globs of modules or weights to keep unchanged.
    pub freeze: *const *const c_char,
    /// Number of names in `freeze`.
    pub freeze_count: u64,
    /// Layers of the teacher that form the student, if `student` is NULL: "layers:every-other", or a number of layers
    /// such as "layers:6". NULL if there is a `student`.
    pub student_layers: *const c_char,
    /// Path of the checkpoint file, from which stopped training can continue; NULL disables checkpoints. The file is
    /// removed when the training is complete.
    pub checkpoint: *const c_char,
    /// A value other than 0 continues from the checkpoint, if it exists; this requires `checkpoint`. With 0, an
    /// existing checkpoint is an error.
    pub resume: u32,
    /// Number of threads; 0 uses that of the context.
    pub threads: u32,
    /// Training callback, or NULL.
    pub training: optimize_training_fn,
    /// User data passed to `training`.
    pub training_user_data: *mut c_void,
    /// Path of a file that caches the teacher's outputs, so that the teacher runs only once on each part of the text;
    /// NULL disables the cache. The file is kept for other calls with the same teacher and text; a file that is not
    /// such a cache, or of another teacher, text, loss or `teacher_top_k`, returns OPTIMIZE_INVALID_ARGUMENT.
    pub teacher_cache: *const c_char,
    /// Number of most probable tokens or classes to cache for each distribution; all others are treated as equally
    /// probable. 0 selects 64.
    pub teacher_top_k: u64,
    /// Execution provider of teacher and student, an optimize_provider_t. OPTIMIZE_PROVIDER_AUTO selects CUDA if it is
    /// available, otherwise the CPU; OPTIMIZE_PROVIDER_TENSORRT returns OPTIMIZE_UNSUPPORTED.
    pub provider: i32,
    /// Index of the device, from 0; 0 for the CPU.
    pub device_id: u32,
}
// SAFETY: repr(C): 32-bit fields in pairs, and 64-bit ones: no padding, all zero is valid.
unsafe impl Options for optimize_distill_options_t {}

/// Trains a student model to reproduce the teacher's outputs on `size` bytes of UTF-8 text, and writes the trained
/// model to `result`; teacher and student are unchanged. `student` may be NULL if `student_layers` selects layers of
/// the teacher. Both models must have the same vocabulary, and at least one of them a tokenizer. `report` (may be
/// NULL) receives the JSON of docs/report.md: losses over time, and a comparison with the teacher on held-out text
/// before and after the training. Progress stages: "distill", in steps; with a report also "hash". With a checkpoint,
/// a call that was cancelled or timed out can be continued with `resume`.
///
/// Returns OPTIMIZE_UNSUPPORTED if a node of the student has no gradient (the message names it), or if the models lack
/// an output that the loss needs; OPTIMIZE_INVALID_ARGUMENT if the text is too short, if the vocabularies differ, if
/// both `student` and `student_layers` or neither are given, or if there is a checkpoint that `resume` does not
/// continue; OPTIMIZE_NOT_FOUND if no model has a tokenizer; OPTIMIZE_RUNTIME if the gradients of many steps in a row
/// are not finite.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_distill(
    context: *const optimize_context_t,
    teacher: *const optimize_model_t,
    student: *const optimize_model_t,
    text: *const c_char,
    size: usize,
    options: *const optimize_distill_options_t,
    call: *const optimize_call_t,
    result: *mut *mut optimize_model_t,
    report: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let (out, report_out) = (Out::new(result, "result"), Out::optional(report));
            let out = out?;
            let (context, teacher) = (handle::get(context)?, &handle::get(teacher)?.model);
            let student = handle::optional(student)?.map(|student| &student.model);
            let given = options::read(options)?;
            let mut options = convert(&given)?;
            options.threads = context.threads(given.threads)?;
            let content = text_of(text, size, "text")?;
            let corpus =
                if given.json_lines != 0 { Corpus::from_json_lines(content) } else { Corpus::from_text(content) };
            let corpus = corpus.at(|| "text")?;
            let layers = match given.student_layers.is_null() {
                true => None,
                false => Some(c_text(given.student_layers, "student_layers")?.parse().at(|| "student_layers")?),
            };
            if student.is_some() == layers.is_some() {
                bail!(InvalidArgument, "exactly one of student and student_layers is required");
            }
            let (result, report) = call::with(call, |call| {
                let cut = layers.map(|layers| student_of(teacher, layers, call)).transpose()?;
                let Some(student) = student.or(cut.as_ref()) else { bail!(Internal, "no student") };
                let tell = |moment: &Moment| tell(&given, moment);
                let (result, mut report) =
                    distill(context.runtime()?, teacher, student, &corpus, &options, &tell, call)?;
                if report_out.is_some() {
                    report.input = Some(teacher.identity(call)?);
                }
                Ok((result, report))
            })?;
            report_out.set_with(|| buffer::new(report.to_json()));
            out.set(model::new(result));
            Ok(())
        })
    }
}

fn tell(given: &optimize_distill_options_t, moment: &Moment) -> ControlFlow<()> {
    let Some(function) = given.training else { return ControlFlow::Continue(()) };
    let step = optimize_training_step_t {
        struct_size: size_of::<optimize_training_step_t>() as u32,
        is_validation: moment.validation.is_some().into(),
        epoch: moment.epoch,
        total_epochs: moment.total_epochs,
        step: moment.step,
        total_steps: moment.total,
        loss: moment.loss,
        gradient_norm: moment.gradient_norm,
        learning_rate: moment.learning_rate.into(),
        tokens_per_second: moment.tokens_per_second,
        seconds: moment.seconds,
        seconds_left: moment.seconds_left,
    };
    // SAFETY: the caller's function with the caller's data, on the caller's thread.
    match unsafe { function(given.training_user_data, &raw const step) } {
        0 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    }
}

/// Returns the number that an option selects: the default `usual` for 0, and 0 for a negative value.
fn or(given: f64, usual: f32) -> f32 {
    match given {
        0.0 => usual,
        below if below < 0.0 => 0.0,
        given => given as f32,
    }
}

/// Returns the weight that an option gives to a part of the loss: 0 for a negative value; `None` for 0, which selects
/// the default.
fn weight(given: f64) -> Option<f32> {
    (given != 0.0).then(|| or(given, 0.0))
}

unsafe fn convert(given: &optimize_distill_options_t) -> Result<DistillOptions> {
    let usual = DistillOptions::default();
    let count = |given: u32, usual: usize| if given == 0 { usual } else { given as usize };
    // SAFETY: the contract of `ffi`.
    let freeze = unsafe { texts(given.freeze, usize::try_from(given.freeze_count).unwrap_or(usize::MAX), "freeze") }?;
    let options = DistillOptions {
        epochs: if given.epochs == 0 { usual.epochs } else { given.epochs },
        batch_size: count(given.batch_size, usual.batch_size),
        sequence_length: given.sequence_length as usize,
        learning_rate: if given.learning_rate == 0.0 { usual.learning_rate } else { given.learning_rate as f32 },
        temperature: if given.temperature == 0.0 { usual.temperature } else { given.temperature as f32 },
        divergence: Divergence::from_code(given.divergence, "divergence")?,
        weights: LossWeights {
            logits: weight(given.logits_weight),
            labels: weight(given.labels_weight),
            hidden: weight(given.hidden_weight),
            cosine: weight(given.cosine_weight),
            relations: weight(given.relations_weight),
        },
        warmup_ratio: or(given.warmup_ratio, usual.warmup_ratio),
        schedule: Schedule::from_code(given.schedule, "schedule")?,
        weight_decay: or(given.weight_decay, usual.weight_decay),
        max_grad_norm: or(given.max_grad_norm, usual.max_grad_norm),
        gradient_accumulation_steps: count(given.gradient_accumulation_steps, usual.gradient_accumulation_steps),
        freeze: freeze.into_iter().map(str::to_owned).collect(),
        validation_ratio: if given.validation_ratio == 0.0 {
            usual.validation_ratio
        } else {
            given.validation_ratio as f32
        },
        seed: given.seed,
        max_steps: given.max_steps,
        time_limit: given.time_limit,
        evaluate_every: given.evaluate_every,
        // SAFETY: the contract of `ffi`.
        teacher_cache: unsafe { optional_path(given.teacher_cache, "teacher_cache") }?,
        teacher_top_k: match given.teacher_top_k {
            0 => usual.teacher_top_k,
            count => usize::try_from(count).unwrap_or(usize::MAX),
        },
        // SAFETY: the contract of `ffi`.
        checkpoint: unsafe { optional_path(given.checkpoint, "checkpoint") }?,
        checkpoint_every: given.checkpoint_every,
        // SAFETY: the contract of `ffi`.
        execution: unsafe { session::Where::of_training(given.provider, given.device_id).execution() }?,
        resume: given.resume != 0,
        ..usual
    };
    options.check()?;
    Ok(options)
}
