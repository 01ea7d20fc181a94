//! Distillation.

use super::call::{self, optimize_call_t};
use super::context::optimize_context_t;
use super::error::optimize_error_t;
use super::handle;
use super::model::{self, optimize_model_t};
use super::options::{self, Options};
use super::session;
use super::status::optimize_status_t;
use super::{Out, buffer, guard, text as c_text, text_of, texts};
use crate::distill::{Corpus, DistillOptions, Divergence, LossWeights, Moment, Schedule, distill, student_of};
use crate::error::{Context as _, Result, bail};
use std::ffi::{c_char, c_void};
use std::path::PathBuf;

/// How far apart two distributions are.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_divergence_t {
    /// KL(teacher, student): the student covers all that the teacher holds possible.
    OPTIMIZE_DIVERGENCE_FORWARD = 0,
    /// KL(student, teacher): it keeps to what the teacher holds most likely.
    OPTIMIZE_DIVERGENCE_REVERSE = 1,
    /// The mean of both to their middle.
    OPTIMIZE_DIVERGENCE_JENSEN_SHANNON = 2,
}

/// How the learning rate goes down.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_schedule_t {
    /// In a line to 0.
    OPTIMIZE_SCHEDULE_LINEAR = 0,
    /// Along half a cosine to 0.
    OPTIMIZE_SCHEDULE_COSINE = 1,
    /// Not at all.
    OPTIMIZE_SCHEDULE_CONSTANT = 2,
}

/// Where training is.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_training_step_t {
    /// Steps done.
    pub step: u64,
    /// Steps there are to be, if the clock does not end training before.
    pub total_steps: u64,
    /// From 0.
    pub epoch: u32,
    /// Not 0: a measurement on the text kept for that, not a step.
    pub is_validation: u32,
    /// The loss.
    pub loss: f64,
    /// Of the gradients, before it was limited.
    pub gradient_norm: f64,
    /// Of this step.
    pub learning_rate: f64,
    /// Of this step.
    pub tokens_per_second: f64,
    /// Since training began, time before a resume included.
    pub seconds: f64,
    /// Expected.
    pub seconds_left: f64,
}

/// Called on the thread that made the call, after each step and each measurement. `step` lives until it returns. Must
/// not throw or jump out.
#[allow(non_camel_case_types)]
pub type optimize_training_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, step: *const optimize_training_step_t)>;

/// Options of `optimize_model_distill`. All zero means the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_distill_options_t {
    /// sizeof(optimize_distill_options_t).
    pub struct_size: u32,
    /// How often the text is read; 0 is 3.
    pub epochs: u32,
    /// Not 0: each line of the text is JSON, `{"text": "..."}`, and a text of its own.
    pub json_lines: u32,
    /// Blocks of text (lines, for models that read lines) in one run; 0 is 4.
    pub batch_size: u32,
    /// Tokens of a block; lines are cut there. 0 is 128, or what the models take.
    pub sequence_length: u32,
    /// Runs whose gradients make one step; 0 is 1.
    pub gradient_accumulation_steps: u32,
    /// At its highest; 0 is 5e-5.
    pub learning_rate: f64,
    /// Softens what both expect; 0 is 2.
    pub temperature: f64,
    /// An optimize_divergence_t.
    pub divergence: i32,
    /// An optimize_schedule_t.
    pub schedule: i32,
    /// What the divergence of logits counts; 0 is 1 where both models have logits. Below 0 is nothing, here and below.
    pub logits_weight: f64,
    /// What the surprise at the text itself counts; 0 is nothing.
    pub labels_weight: f64,
    /// What the mean square of differences of hidden states counts; 0 is 1 where there are no logits.
    pub hidden_weight: f64,
    /// What 1 less their cosine counts; 0 is 1 where there are no logits.
    pub cosine_weight: f64,
    /// What the relations of queries, keys and values of the last attention count; 0 is nothing.
    pub relations_weight: f64,
    /// Share of the steps in which the learning rate goes up; 0 is 0.05, below 0 none.
    pub warmup_ratio: f64,
    /// Of what has more than one dimension; 0 is 0.01, below 0 none.
    pub weight_decay: f64,
    /// Gradients are scaled down to this norm; 0 is 1, below 0 they are not.
    pub max_grad_norm: f64,
    /// Share of the text that is kept for measuring; 0 is 0.05.
    pub validation_ratio: f64,
    /// Training ends after so many seconds; 0 is no limit.
    pub time_limit: f64,
    /// Training ends after so many steps; 0 is no limit.
    pub max_steps: u64,
    /// Steps between measurements; 0 is ten in all.
    pub evaluate_every: u64,
    /// Steps between checkpoints; 0 is every ten minutes.
    pub checkpoint_every: u64,
    /// Of the order of the text.
    pub seed: u64,
    /// `freeze_count` names or globs of modules or weights that stay as they are.
    pub freeze: *const *const c_char,
    /// Number of texts in `freeze`.
    pub freeze_count: u64,
    /// A student cut from the teacher, if none is given: "layers:every-other" or "layers:6".
    pub student_layers: *const c_char,
    /// File for the state, so that training that was stopped can go on; NULL is none. It is removed at the end.
    pub checkpoint: *const c_char,
    /// Not 0: go on from the checkpoint, if it is there. Without this one that is there is an error.
    pub resume: u32,
    /// Threads; 0 is as the context says.
    pub threads: u32,
    /// Called after each step, or NULL.
    pub training: optimize_training_fn,
    /// Handed to `training`.
    pub training_user_data: *mut c_void,
    /// File for what the teacher says of each part of the text, so that it is asked only once; NULL asks it each time. It
    /// stays, for other runs with this teacher and text.
    pub teacher_cache: *const c_char,
    /// Tokens or classes of each distribution that the file keeps, the others count as equally likely; 0 is 64.
    pub teacher_top_k: u64,
    /// An optimize_provider_t: what teacher and student run on, the processor (0) or CUDA; auto takes CUDA where it can be
    /// had. TensorRT is OPTIMIZE_UNSUPPORTED.
    pub provider: i32,
    /// Number of the device, from 0; not for the processor.
    pub device_id: u32,
}
// SAFETY: repr(C): 32-bit fields in pairs, else 64-bit ones: no padding, all zero is valid.
unsafe impl Options for optimize_distill_options_t {}

/// Trains a student to answer as the teacher does on a text (UTF-8, `size` bytes), and gives it as a new model; the
/// originals stay. `student` may be NULL if `student_layers` says which layers of the teacher it begins with. Both models must know the same
/// tokens, and one of them have its tokenizer. `report` (may be NULL) gets the JSON of docs/report.md: losses over
/// time, and teacher, student before and student after on text that was not learned from. Progress stage: "distill", in
/// steps. With a checkpoint, a call that was cancelled or timed out can go on later with `resume`.
/// OPTIMIZE_UNSUPPORTED if the student has a node that cannot be trained (the message names it) or the models have
/// nothing in common to compare; OPTIMIZE_INVALID_ARGUMENT if the text is too short.
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
                bail!(InvalidArgument, "either student or student_layers says who learns, and one of them must");
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
            if let Some(out) = report_out {
                out.set(buffer::new(report.to_json()));
            }
            out.set(model::new(result));
            Ok(())
        })
    }
}

fn tell(given: &optimize_distill_options_t, moment: &Moment) {
    let Some(function) = given.training else { return };
    let step = optimize_training_step_t {
        step: moment.step,
        total_steps: moment.total,
        epoch: moment.epoch,
        is_validation: moment.validation.is_some().into(),
        loss: moment.loss,
        gradient_norm: moment.gradient_norm,
        learning_rate: moment.learning_rate.into(),
        tokens_per_second: moment.tokens_per_second,
        seconds: moment.seconds,
        seconds_left: moment.seconds_left,
    };
    // SAFETY: the caller's function with the caller's data, on the caller's thread.
    unsafe { function(given.training_user_data, &raw const step) }
}

/// A number of which 0 means the default and anything below it nothing.
fn or(given: f64, usual: f32) -> f32 {
    match given {
        0.0 => usual,
        below if below < 0.0 => 0.0,
        given => given as f32,
    }
}

/// A weight of the loss: `None` is what suits the models.
fn weight(given: f64) -> Option<f32> {
    (given != 0.0).then(|| or(given, 0.0))
}

/// A path, or `None` for NULL.
unsafe fn path(text: *const c_char, name: &str) -> Result<Option<PathBuf>> {
    // SAFETY: the contract of `ffi`.
    let text = (!text.is_null()).then(|| unsafe { c_text(text, name) }).transpose()?;
    Ok(text.map(PathBuf::from))
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
        divergence: match given.divergence {
            0 => Divergence::Forward,
            1 => Divergence::Reverse,
            2 => Divergence::JensenShannon,
            other => bail!(InvalidArgument, "divergence is {other}, which is no optimize_divergence_t"),
        },
        weights: LossWeights {
            logits: weight(given.logits_weight),
            labels: weight(given.labels_weight),
            hidden: weight(given.hidden_weight),
            cosine: weight(given.cosine_weight),
            relations: weight(given.relations_weight),
        },
        warmup_ratio: or(given.warmup_ratio, usual.warmup_ratio),
        schedule: match given.schedule {
            0 => Schedule::Linear,
            1 => Schedule::Cosine,
            2 => Schedule::Constant,
            other => bail!(InvalidArgument, "schedule is {other}, which is no optimize_schedule_t"),
        },
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
        teacher_cache: unsafe { path(given.teacher_cache, "teacher_cache") }?,
        teacher_top_k: match given.teacher_top_k {
            0 => usual.teacher_top_k,
            count => usize::try_from(count).unwrap_or(usize::MAX),
        },
        // SAFETY: the contract of `ffi`.
        checkpoint: unsafe { path(given.checkpoint, "checkpoint") }?,
        checkpoint_every: given.checkpoint_every,
        // SAFETY: the contract of `ffi`.
        execution: unsafe { session::execution(given.provider, given.device_id, std::ptr::null()) }?,
        resume: given.resume != 0,
        ..usual
    };
    options.check()?;
    Ok(options)
}
