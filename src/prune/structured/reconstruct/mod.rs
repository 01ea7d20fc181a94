//! Reconstruction by least squares: the weights that read the kept units compensate the removed ones.
//!
//! Weights are processed in the order in which they run, each on the outputs of the changed weights before it. With
//! `X` the input of a weight `W` and `X_k` its kept columns, the kept rows become `W' = W_k + (X_kᵀ X_k + d)⁻¹ X_kᵀ
//! X_g W_g` with the removed part `X_g W_g`: `X_k W'` is as close to `X W` as possible. If a bias is added, means are
//! subtracted first, and the bias takes the difference. (Fitting to the outputs of the uncut model instead of `X W`
//! overfits: it cost 1 to 25 % in perplexity on other text.)

mod jobs;
mod moments;
mod patches;

use super::Plan;
use super::analysis::Analysis;
use super::axes::Kept;
use super::{cut, tensors};
use crate::calibrate::{Data, Products, Run, Walk};
use crate::call::{Call, Stage, Ticket};
use crate::error::{Context, Result};
use crate::files::Scratch;
use crate::onnx::proto::TensorProto;
use crate::runtime::{Stop, Tensor};
use jobs::{Job, jobs};
use moments::{Moments, Solver};
use patches::Window;
use std::collections::HashMap;

/// The changed weights, with notes on the others.
#[derive(Default)]
pub struct Done {
    /// Whole tensors of the weights by name, with zeros for removed units.
    pub weights: HashMap<String, TensorProto>,
    /// Reasons why weights were not changed.
    pub notes: Vec<String>,
}

/// Changes every weight that reads removed units, where possible, and returns the changed weights and the reasons why
/// others stay unchanged. Fails if the model cannot be run on the data, with `InvalidModel` if a fit gives values that
/// are not finite, and with `Cancelled` or `Timeout`.
pub fn all(plan: &Plan, analysis: &Analysis<'_>, kept: &Kept, data: Data<'_>, call: &Call) -> Result<Done> {
    let mut done = Done::default();
    let jobs = jobs(analysis, kept, &mut done.notes);
    if jobs.is_empty() {
        return Ok(done);
    }
    let masks: Vec<TensorProto> = cut::consumed(analysis, kept)
        .into_iter()
        .filter(|(name, _, _)| !jobs.iter().any(|job| job.weight == *name))
        .map(|(name, at, list)| Ok(named(tensors::zeroed(analysis.constants[name], at, list)?, name)))
        .collect::<Result<_>>()?;
    let pool = crate::threads::pool(plan.options.threads)?;
    let stop = Stop::new()?;
    let work = |ticket: &Ticket| {
        let run = data.run(plan.options.threads, ticket, &stop);
        pool.install(|| change(&run, plan, &jobs, masks))
    };
    let changed = call.drive(Stage::RECONSTRUCT, jobs.len() as u64, work)?;
    if changed.scarce > 0 {
        done.notes.push(format!(
            "{} weights have fewer rows of calibration data than twice their inputs (with fewer than their \
             inputs they are not reconstructed): use more data",
            changed.scarce
        ));
    }
    if changed.idle > 0 {
        done.notes.push(format!(
            "{} weights keep their values: a fit on half of the calibration data does not improve the other half",
            changed.idle
        ));
    }
    done.weights = changed.weights;
    Ok(done)
}

/// The weights changed so far, with counts of the others.
#[derive(Default)]
struct Changed {
    /// Whole tensors of the weights by name, with zeros for removed units.
    weights: HashMap<String, TensorProto>,
    /// Number of weights that were not changed because there are few rows of data.
    scarce: usize,
    /// Number of weights for which no change is better.
    idle: usize,
}

/// Changes one weight after the other, and returns the changed weights. `masks` are the original weights with zeros for
/// removed units.
fn change(run: &Run<'_>, plan: &Plan, jobs: &[Job], masks: Vec<TensorProto>) -> Result<Changed> {
    let Run { runtime, batches, threads, ticket, stop } = *run;
    let folder = plan.options.scratch_folder.clone().unwrap_or_else(std::env::temp_dir);
    let asked: Vec<&str> = jobs.iter().map(|job| job.input.as_str()).collect();
    let mut walk = Walk::new(run, &plan.model, &asked)?;
    masks.into_iter().for_each(|mask| walk.replace(mask));
    let mut solver = Solver { products: Products::new(runtime, threads)?, scratch: Scratch::new(&folder), stop };
    let mut known: Option<(Key<'_>, Moments)> = None;
    let mut read: HashMap<&str, Vec<Tensor>> = HashMap::new();
    let mut changed = Changed::default();
    for (index, job) in jobs.iter().enumerate() {
        ticket.check()?;
        let key = (job.input.as_str(), job.kept.as_slice(), job.bias.is_some(), job.window.as_ref());
        if known.as_ref().is_none_or(|(of, _)| *of != key) {
            // The walk may have dropped a value that it returned before.
            let x = match read.remove(key.0) {
                Some(x) => x,
                None => walk.value(&job.input, stop)?,
            };
            known = Some((key, solver.moments(job, batches, &x).at(|| format!("value {:?}", job.input))?));
            if jobs[index + 1..].iter().any(|later| later.input == job.input) {
                read.insert(key.0, x);
            }
        }
        let Some((_, moments)) = &known else { continue };
        let inputs = job.size();
        changed.scarce += usize::from(moments.rows < 2 * inputs);
        changed.idle += usize::from(!moments.helps());
        if moments.rows < inputs {
            ticket.add(1);
            continue; // Least squares would fit so few rows exactly, and ruin other outputs.
        }
        for tensor in solver.solve(job, moments).at(|| format!("tensor {:?}", job.weight))? {
            walk.replace(tensor.clone());
            changed.weights.insert(tensor.name.clone().unwrap_or_default(), tensor);
        }
        ticket.add(1);
    }
    Ok(changed)
}

/// The key of moments: the name of the value, its kept elements, whether means are subtracted, and the window of a
/// convolution.
type Key<'k> = (&'k str, &'k [u32], bool, Option<&'k Window>);

pub fn named(tensor: TensorProto, name: &str) -> TensorProto {
    TensorProto { name: Some(name.to_owned()), ..tensor }
}
