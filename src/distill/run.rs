//! The training loop: epochs, steps, validations and checkpoints.

use super::checkpoint::{self, State};
use super::data::{Batch, Dataset};
use super::graph::Graphs;
use super::schedule;
use super::trainer::{Trainer, held_out};
use super::{DistillOptions, Moment, Watch};
use crate::call::{self, Call, Stage};
use crate::error::{Kind, Result, bail};
use crate::runtime::Stop;
use serde_json::json;
use std::ops::ControlFlow;
use std::time::Instant;

/// The default number of seconds between checkpoints.
const CHECKPOINT_SECONDS: f64 = 600.0;
/// The default number of validations in a run.
const MEASUREMENTS: u64 = 10;
/// The number of consecutive steps without a finite gradient after which a run fails.
const HOPELESS: u64 = 20;

/// The result of a run.
pub struct Outcome {
    /// Weights of each parameter at the smallest validation loss; the last ones if no validation loss was finite.
    pub weights: Vec<Vec<f32>>,
    /// State at the end of the run.
    pub state: State,
    /// Number of planned steps.
    pub total: u64,
}

/// A training that is in progress.
pub struct Run<'r> {
    /// Trainer of the student.
    pub trainer: &'r mut Trainer,
    /// Graphs that the training runs.
    pub graphs: &'r Graphs,
    /// Training and validation data.
    pub data: &'r Dataset,
    /// Options of the training.
    pub options: &'r DistillOptions,
    pub watch: Watch<'r>,
    pub fingerprint: String,
}

/// The changing state of a run.
struct Progress {
    state: State,
    best: Option<Vec<Vec<f32>>>,
    began: Instant,
    /// Duration of training before this process, in seconds.
    before: f64,
    /// Step and time of the latest checkpoint (`saved`) and of the latest validation (`measured`).
    saved: (u64, f64),
    measured: (u64, f64),
    in_vain: u64,
}

impl Progress {
    fn seconds(&self) -> f64 {
        self.before + self.began.elapsed().as_secs_f64()
    }
}

impl Run<'_> {
    /// Trains on the text and returns the best weights. If the run fails or is stopped, and the options name a
    /// checkpoint, the checkpoint is written before the error is returned.
    pub fn go(mut self, call: &Call) -> Result<Outcome> {
        let mut progress = self.begin()?;
        let stop = Stop::new()?;
        let quiet = Call { progress: None, ..*call };
        let held = held_out(self.data, self.options.batch_size);
        let done = stop.during(&quiet, || self.epochs(&mut progress, &held, &stop, call));
        if let Err(e) = done {
            // A failure to write the checkpoint must not hide why the run ended.
            let saved = if progress.state.step > progress.saved.0 { self.save(&mut progress) } else { Ok(()) };
            return Err(match saved {
                Err(second) if !matches!(e.kind(), Kind::Cancelled | Kind::Timeout) => second,
                _ => e,
            });
        }
        let weights = match progress.best.take() {
            Some(best) => best,
            None => self.trainer.snapshot()?,
        };
        progress.state.seconds = progress.seconds();
        Ok(Outcome { weights, total: self.total(), state: progress.state })
    }

    fn begin(&mut self) -> Result<Progress> {
        let mut state = State { fingerprint: self.fingerprint.clone(), ..State::default() };
        let mut best = None;
        if let Some(path) = self.options.checkpoint.as_ref().filter(|path| path.exists()) {
            if !self.options.resume {
                bail!(
                    InvalidArgument,
                    "there is a checkpoint of an unfinished run, {}: continue it (resume), or remove it",
                    path.display()
                );
            }
            let (found, weights) = checkpoint::read(path, self.graphs, &self.fingerprint)?;
            self.trainer.restore(&weights.weights, weights.moments)?;
            (state, best) = (found, weights.best);
        }
        let (step, before) = (state.step, state.seconds);
        let last = state.history.last().and_then(|m| Some((m.get("step")?.as_u64()?, m.get("seconds")?.as_f64()?)));
        Ok(Progress {
            best,
            began: Instant::now(),
            before,
            saved: (step, before),
            measured: last.unwrap_or((0, 0.0)),
            in_vain: 0,
            state,
        })
    }

    fn groups(&self) -> u64 {
        let batches = self.data.len().div_ceil(self.options.batch_size);
        batches.div_ceil(self.options.gradient_accumulation_steps) as u64
    }

    fn total(&self) -> u64 {
        let all = self.groups() * u64::from(self.options.epochs);
        if self.options.max_steps > 0 { all.min(self.options.max_steps) } else { all }
    }

    fn epochs(&mut self, progress: &mut Progress, held: &[Batch], stop: &Stop, call: &Call) -> Result<()> {
        let total = self.total();
        if progress.state.history.is_empty() {
            self.measure(progress, held, stop)?;
        }
        while progress.state.epoch < self.options.epochs {
            let order = self.data.epoch(self.options.seed, progress.state.epoch, self.options.batch_size);
            while progress.state.batch < order.len() {
                let over = self.options.time_limit > 0.0 && progress.seconds() >= self.options.time_limit;
                if over || progress.state.step >= total {
                    return self.finish(progress, held, stop);
                }
                let group = order[progress.state.batch..].iter().take(self.options.gradient_accumulation_steps);
                let batches: Vec<Batch> = group.map(|rows| self.data.batch(rows)).collect();
                self.step(progress, &batches, stop, total)?;
                call.report(Stage::DISTILL, progress.state.step, total)?;
                if self.is_due(progress, total) {
                    self.measure(progress, held, stop)?;
                }
                if self.must_save(progress) {
                    self.save(progress)?;
                }
            }
            progress.state.epoch += 1;
            progress.state.batch = 0;
        }
        self.finish(progress, held, stop)
    }

    fn step(&mut self, progress: &mut Progress, batches: &[Batch], stop: &Stop, total: u64) -> Result<()> {
        let options = self.options;
        let start = Instant::now();
        let fraction = progress.state.step as f64 / total.max(1) as f64;
        let clock = if options.time_limit > 0.0 { progress.seconds() / options.time_limit } else { 0.0 };
        // The first warm-up step must not have a rate of 0.
        let begun = fraction.max(clock).max(1.0 / total.max(1) as f64 * f64::from(options.warmup_ratio > 0.0));
        let factor = schedule::factor(options.schedule, f64::from(options.warmup_ratio), begun);
        let rate = (f64::from(options.learning_rate) * factor) as f32;
        let count = progress.state.step + 1 - progress.state.skipped;
        let done = self.trainer.step(batches, options, count, rate, stop)?;
        let state = &mut progress.state;
        state.step += 1;
        state.batch += batches.len();
        state.tokens += done.tokens;
        state.skipped += u64::from(done.skipped);
        progress.in_vain = if done.skipped { progress.in_vain + 1 } else { 0 };
        if progress.in_vain >= HOPELESS {
            bail!(
                Runtime,
                "the gradients of {HOPELESS} steps in a row were not finite: a lower learning rate may help"
            );
        }
        let taken = start.elapsed().as_secs_f64();
        let seconds = progress.seconds();
        let left = if options.time_limit > 0.0 { (1.0 - clock).max(0.0) * options.time_limit } else { f64::INFINITY };
        let by_steps = seconds / progress.state.step as f64 * (total - progress.state.step.min(total)) as f64;
        self.tell(&Moment {
            step: progress.state.step,
            total,
            epoch: progress.state.epoch,
            total_epochs: options.epochs,
            loss: done.loss,
            validation: None,
            gradient_norm: done.norm,
            learning_rate: rate,
            tokens_per_second: done.tokens as f64 / taken.max(1e-9),
            seconds,
            seconds_left: by_steps.min(left),
        })
    }

    fn is_due(&self, progress: &Progress, total: u64) -> bool {
        let options = self.options;
        let (step, seconds) = (progress.state.step - progress.measured.0, progress.seconds() - progress.measured.1);
        match (options.evaluate_every, options.time_limit > 0.0) {
            (0, true) => seconds >= options.time_limit / MEASUREMENTS as f64,
            (0, false) => step >= (total / MEASUREMENTS).max(1) && progress.state.step < total,
            (every, _) => step >= every,
        }
    }

    fn must_save(&self, progress: &Progress) -> bool {
        let (steps, seconds) = (progress.state.step - progress.saved.0, progress.seconds() - progress.saved.1);
        match self.options.checkpoint_every {
            0 => seconds >= CHECKPOINT_SECONDS,
            every => steps >= every,
        }
    }

    fn measure(&mut self, progress: &mut Progress, held: &[Batch], stop: &Stop) -> Result<()> {
        let (loss, parts) = self.trainer.measure(held, stop)?;
        let state = &mut progress.state;
        let better = loss.is_finite() && state.best.is_none_or(|(best, _)| loss < best);
        if better {
            state.best = Some((loss, state.step));
            progress.best = Some(self.trainer.snapshot()?);
        }
        let seconds = progress.seconds();
        let mut entry = json!({ "step": progress.state.step, "seconds": seconds, "loss": loss });
        for (part, value) in self.graphs.parts.iter().zip(parts) {
            // Hidden states of several layers are one part of the report.
            let before = entry[part.name].as_f64().unwrap_or(0.0);
            entry[part.name] = json!(before + value * f64::from(part.weight));
        }
        progress.state.history.push(entry);
        progress.measured = (progress.state.step, seconds);
        self.tell(&Moment {
            step: progress.state.step,
            total: self.total(),
            epoch: progress.state.epoch,
            total_epochs: self.options.epochs,
            loss,
            validation: Some(loss),
            gradient_norm: 0.0,
            learning_rate: 0.0,
            tokens_per_second: 0.0,
            seconds,
            seconds_left: 0.0,
        })
    }

    fn tell(&self, moment: &Moment) -> Result<()> {
        match (self.watch)(moment) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(call::cancelled()),
        }
    }

    fn finish(&mut self, progress: &mut Progress, held: &[Batch], stop: &Stop) -> Result<()> {
        if progress.measured.0 < progress.state.step {
            self.measure(progress, held, stop)?;
        }
        Ok(())
    }

    fn save(&mut self, progress: &mut Progress) -> Result<()> {
        let Some(path) = &self.options.checkpoint else { return Ok(()) };
        progress.state.seconds = progress.seconds();
        let (weights, moments) = self.trainer.state()?;
        let weights: Vec<&[f32]> = weights.iter().map(|values| &**values).collect();
        checkpoint::write(path, &progress.state, &weights, &moments, progress.best.as_deref())?;
        progress.saved = (progress.state.step, progress.state.seconds);
        Ok(())
    }
}
