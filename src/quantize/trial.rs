//! Measurement of the loss of a result, and of each weight alone.
//!
//! [`Judge`] holds inputs and the outputs of the original. [`Trial`] is a model in which a switch selects for each unit
//! of weights whether the nodes of the main graph that read them run quantized or as in the original. So any
//! combination of units runs in one session.

use super::rewrite::Switches;
use super::{Run, WeightForm, Work, dynamic, stored, weight_only, weights};
use crate::benchmark::{self, rows::Sums};
use crate::call::Ticket;
use crate::error::{Context, Result, bail};
use crate::graph::edit::Names;
use crate::inputs::{Batch, Mask};
use crate::likelihood::{divergence, log_sum_exp};
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::runtime::{Runtime, Session, SessionOptions, Stop, Tensor};
use rayon::prelude::*;

/// The maximum size of the original's outputs in bytes. Further batches are ignored; the first is always used.
const REFERENCE_BYTES: usize = 512 << 20;

/// The inputs for measuring the loss of a result, and the outputs of the original.
pub struct Judge {
    runtime: &'static Runtime,
    threads: usize,
    pool: rayon::ThreadPool,
    /// Names of the outputs on which the loss is measured.
    outputs: Vec<String>,
    cases: Vec<Case>,
}

struct Case {
    batch: Batch,
    /// The original's outputs, in the order of [`Judge::outputs`].
    references: Vec<Reference>,
}

struct Reference {
    tensor: Tensor,
    /// The [`log_sum_exp`] of each row of logits, whose loss is a divergence; empty for other outputs.
    norms: Vec<f64>,
}

impl Judge {
    /// Runs the original on the batches, and returns the batches with the outputs of the original. Fails with
    /// `Unsupported` if the model has no float output, with `InvalidArgument` if there are no batches or an output has
    /// no finite value, and if the model cannot be loaded or run.
    pub fn new(runtime: &'static Runtime, run: &Run<'_>, batches: Vec<Batch>) -> Result<Judge> {
        let floats = |info: &crate::model::ValueInfo| {
            matches!(info.dtype, Some(DataType::Float32 | DataType::Float16 | DataType::Bfloat16))
        };
        let outputs: Vec<(String, bool)> = run.model.outputs().iter().map(|o| (o.name.clone(), floats(o))).collect();
        let judged = benchmark::judged_outputs(&outputs);
        if judged.is_empty() {
            bail!(Unsupported, "the model has no float output on which quality could be measured");
        }
        let outputs = judged.into_iter().map(|index| outputs[index].0.clone()).collect();
        let threads = run.options.threads;
        let pool = crate::threads::pool(threads)?;
        let mut judge = Judge { runtime, threads, pool, outputs, cases: Vec::new() };
        let session = judge.session(run.model, run)?;
        let (stop, mut bytes) = (Stop::new()?, 0);
        for batch in batches {
            run.call.check()?;
            let tensors = judge.run(&session, &batch, None, &stop).at(|| "the original")?;
            bytes += tensors.iter().map(|tensor| tensor.elements() * 4).sum::<usize>();
            if bytes > REFERENCE_BYTES && !judge.cases.is_empty() {
                break;
            }
            let mut references = Vec::with_capacity(tensors.len());
            for (name, tensor) in judge.outputs.iter().zip(tensors) {
                let rows = tensor.as_slice::<f32>()?;
                let norms = || rows.par_chunks(width(&tensor)).map(log_sum_exp).collect();
                let norms = if is_logits(name) { judge.pool.install(norms) } else { Vec::new() };
                references.push(Reference { tensor, norms });
            }
            judge.cases.push(Case { batch, references });
        }
        if judge.cases.is_empty() {
            bail!(InvalidArgument, "there is no data on which the loss could be measured");
        }
        for (index, name) in judge.outputs.iter().enumerate() {
            let mut tensors = judge.cases.iter().map(|case| &case.references[index].tensor);
            let is_empty = judge.cases.iter().all(|case| case.references[index].tensor.elements() == 0);
            let finite = |tensor: &Tensor| tensor.as_slice::<f32>().is_ok_and(|v| v.iter().any(|v| v.is_finite()));
            if !is_empty && !tensors.any(finite) {
                bail!(InvalidArgument, "the output {name:?} of the original has no finite value on the data");
            }
        }
        Ok(judge)
    }

    /// Returns the name of the metric: `kl` if an output on which the loss is measured contains logits, otherwise
    /// `cosine`.
    pub fn metric(&self) -> &'static str {
        if self.outputs.iter().any(|name| is_logits(name)) { "kl" } else { "cosine" }
    }

    /// Returns the number of batches on which the loss is measured.
    pub fn batches(&self) -> usize {
        self.cases.len()
    }

    /// Returns the loss of the output with the largest loss. For logits, the loss is the mean over the rows of the KL
    /// divergence from the original in nats; for other outputs, the mean of 1 - cosine. Rows of one element are taken
    /// together as one row. Fails if the model cannot be loaded or run, and with `Internal` if an output has another
    /// shape.
    pub fn loss(&self, model: &Model, run: &Run<'_>) -> Result<f64> {
        let session = self.session(model, run)?;
        self.mean(&session, None, self.cases.len(), &Stop::new()?)
    }

    fn session(&self, model: &Model, run: &Run<'_>) -> Result<Session> {
        let options = SessionOptions { threads: self.threads, varying_sizes: true, ..SessionOptions::stock() };
        Session::new(self.runtime, model, &options, run.call)
    }

    /// Returns [`Judge::outputs`] of a run, as float32.
    fn run(&self, session: &Session, batch: &Batch, more: Option<(&str, &Tensor)>, stop: &Stop) -> Result<Vec<Tensor>> {
        let feed: Vec<(&str, &Tensor)> = batch.inputs.iter().map(|(n, t)| (n.as_str(), t)).chain(more).collect();
        let names: Vec<&str> = self.outputs.iter().map(String::as_str).collect();
        let found = session.run_until(&feed, &names, stop)?;
        let float32 = |(_, tensor): (String, Tensor)| match tensor.dtype() {
            DataType::Float32 => Ok(tensor),
            _ => Tensor::from_f32(tensor.shape(), tensor.to_f32_vec()?),
        };
        found.into_iter().map(float32).collect()
    }

    fn mean(&self, session: &Session, more: Option<(&str, &Tensor)>, cases: usize, stop: &Stop) -> Result<f64> {
        let mut sums = vec![(0f64, 0usize); self.outputs.len()];
        for case in &self.cases[..cases] {
            let results = self.run(session, &case.batch, more, stop)?;
            for ((reference, result), (sum, count)) in case.references.iter().zip(&results).zip(&mut sums) {
                if result.shape() != reference.tensor.shape() {
                    bail!(Internal, "the quantized model returns an output of another shape");
                }
                let (loss, rows) = self.rows(case, reference, result)?;
                *sum += loss;
                *count += rows;
            }
        }
        Ok(sums.into_iter().map(|(sum, count)| sum / count.max(1) as f64).fold(f64::NEG_INFINITY, f64::max))
    }

    fn rows(&self, case: &Case, reference: &Reference, result: &Tensor) -> Result<(f64, usize)> {
        let (before, after) = (reference.tensor.as_slice::<f32>()?, result.as_slice::<f32>()?);
        let kept = |row: usize, values: &[f32]| {
            // Nothing can be compared with a row of the original that has no finite value.
            is_kept(case.batch.mask.as_ref(), &reference.tensor, row) && values.iter().any(|value| value.is_finite())
        };
        let one = |(row, (a, b)): (usize, (&[f32], &[f32]))| {
            let loss = match reference.norms.get(row) {
                Some(norm) => divergence((a, *norm), (b, log_sum_exp(b))),
                None => 1.0 - Sums::of(a, b).cosine(),
            };
            // NaN counts as the worst result, not as a missing one.
            if loss.is_nan() { f64::INFINITY } else { loss }
        };
        let width = width(result);
        if width == 1 {
            return Ok((1.0 - Sums::of(before, after).cosine(), 1));
        }
        let rows = before.par_chunks_exact(width).zip(after.par_chunks_exact(width)).enumerate();
        let losses: Vec<f64> = self.pool.install(|| rows.filter(|(row, (a, _))| kept(*row, a)).map(one).collect());
        Ok((losses.iter().sum(), losses.len()))
    }
}

/// Returns whether the output of that name contains logits.
fn is_logits(name: &str) -> bool {
    name.to_lowercase().contains("logit")
}

fn width(tensor: &Tensor) -> usize {
    tensor.shape().last().map_or(1, |d| usize::try_from(*d).unwrap_or(1)).max(1)
}

/// Returns whether a row belongs to a token, not to padding.
fn is_kept(mask: Option<&Mask>, tensor: &Tensor, row: usize) -> bool {
    let Some(mask) = mask.filter(|mask| tensor.shape().len() >= 3 && tensor.shape()[..2] == mask.shape) else {
        return true;
    };
    let rows_each = (tensor.elements() / width(tensor) / mask.keep.len().max(1)).max(1);
    mask.keep.get(row / rows_each).copied().unwrap_or(true)
}

/// The number of elements of the first input, over all batches, after which sensitivities are measured on no further
/// batches: enough to rank weights.
const TRIAL_ELEMENTS: usize = 512;
const SWITCHES: &str = "optimize_switches";

/// A model with a switch for each unit.
pub struct Trial<'j> {
    judge: &'j Judge,
    session: Session,
    input: String,
    /// Number of batches to run.
    cases: usize,
    stop: Stop,
}

/// The switch of each weight of a plan.
pub struct SwitchOf<'s> {
    /// Index of the switch of each weight of the plan.
    pub weights: &'s [usize],
    /// Index of the switch of each stored weight of the plan.
    pub stored: &'s [usize],
    /// Number of switches of the model.
    pub count: usize,
}

impl<'j> Trial<'j> {
    /// Returns the trial model with weights quantized as planned. Fails if the weights cannot be coded or the model
    /// cannot be loaded.
    pub fn new(judge: &'j Judge, work: &Work<'_>, of: &SwitchOf<'_>) -> Result<Trial<'j>> {
        let (original, plan) = (work.run.model.proto(), &work.plan);
        let (form, options) = (work.form, work.run.options);
        let input = Names::of(original).fresh(SWITCHES);
        let switches = Switches { input: &input, of: of.weights, count: of.count };
        let ticket = Ticket::default();
        let proto = work.pool.install(|| -> Result<_> {
            let outcomes = stored::all(plan, options, &ticket)?;
            let mut proto = match form {
                WeightForm::Blocks => {
                    let made = weight_only::all(plan, options, &ticket)?;
                    weight_only::rewrite(original, plan, &made, options, Some(&switches)).0
                }
                WeightForm::Int8 => {
                    let made = weights::all(plan, options, &ticket)?;
                    dynamic::rewrite(original, plan, made, Some(&switches)).0
                }
            };
            let switched = stored::Switched { input: &input, of: of.stored };
            stored::apply(&mut proto, &plan.stored, &outcomes, Some(&switched));
            Ok(proto)
        })?;
        let session = judge.session(&work.run.model.derive(proto), &work.run).at(|| "the model on trial")?;
        let elements = |case: &Case| case.batch.inputs.first().map_or(1, |(_, t)| t.elements());
        let mut seen = 0;
        let cases = judge.cases.iter().take_while(|case| {
            let more = seen < TRIAL_ELEMENTS;
            seen += elements(case);
            more
        });
        Ok(Trial { judge, session, cases: cases.count(), input, stop: Stop::new()? })
    }

    /// Returns the loss if the units whose element of `on` is true are quantized, and the others are as in the
    /// original. Fails like [`Judge::loss`].
    pub fn loss(&mut self, on: &[bool]) -> Result<f64> {
        let switches = Tensor::from_bools(&[on.len() as i64], on)?;
        self.judge.mean(&self.session, Some((&self.input, &switches)), self.cases, &self.stop)
    }
}
