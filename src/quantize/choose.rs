//! Selection of the form of each weight under a limit of loss, size or speed.

use super::allocate::{self, Choice, Limit, Unit, allocate};
use super::decide::Decision;
use super::prepare::is_sequential;
use super::speed::{self, SLOWER};
use super::trial::{Judge, SwitchOf, Trial};
use super::{Fit, Generated, QuantizeOptions, Run, Work};
use crate::benchmark::{BenchmarkOptions, settled};
use crate::calibrate::{self, Batch, Calibration};
use crate::call::Stage;
use crate::error::{Error, Kind, Result, bail};
use crate::inputs::{InputOptions, is_refusal};
use crate::model::Model;
use crate::report::{NodeReport, Report};
use crate::runtime::{Runtime, SessionOptions};

/// The number of batches of which one is held out to measure the loss of weights that are fitted to the others.
const HELD_OUT: usize = 4;
/// The maximum number of results that are made until one meets the limits. The loss of a result is not exactly the sum
/// of the losses of its weights, so the first result may miss the limits.
const ATTEMPTS: usize = 6;
/// The maximum number of results that are made with `target_size`.
const SIZE_ATTEMPTS: usize = 10;
const HINT: &str = "the models were measured on generated inputs: set them with the options `shapes` and `values`, \
                    or pass calibration data";
const SENSITIVE: &str = "loses more than max_quality_loss allows";
const LARGE: &str = "stays float, as target_size allows";

/// Quantizes a model within the limits of the options, with ONNX Runtime, and returns the result and the report on each
/// node. `data` is the calibration data, if any. Fails with `GateNotMet` if no result meets the limits.
pub fn run(
    work: &mut Work<'_>,
    runtime: &'static Runtime,
    data: Option<Vec<Batch>>,
    report: &mut Report,
) -> Result<(Model, Vec<NodeReport>)> {
    let options = work.run.options;
    let limited = options.max_quality_loss > 0.0 || options.target_size > 0;
    let (given, fits) = (data.is_some(), data.is_some() && is_sequential(options));
    let mut batches = match data {
        Some(batches) => batches,
        None if limited => {
            let Generated { shapes, values } = work.run.generated;
            calibrate::batches(work.run.model, &Calibration::Generated { shapes, values })?
        }
        None => Vec::new(),
    };
    let sample = batches.first().cloned();
    let mut held_out = Vec::new();
    if limited {
        held_out = hold_out(&mut batches, fits);
    }
    if fits {
        // The report counts only the batches that are left for fitting.
        report.summary.insert("calibration_batches".into(), batches.len().into());
        work.fit = Some(Fit { runtime, batches });
    }
    let work = &*work;
    let nothing = work.plan.weights.is_empty() && work.plan.stored.is_empty();
    if nothing || !(limited || options.never_slower) {
        return work.make(&work.plan);
    }
    let mut chooser = Chooser { units: allocate::units(&work.plan, options), slow: Vec::new() };
    chooser.slow = vec![false; chooser.units.len()];
    if options.never_slower {
        let sample = sample.as_ref().filter(|_| given);
        let found = speed::race_units(runtime, work, &chooser.units, sample).map_err(|e| hinted(e, given))?;
        chooser.slow = found.slow;
        if let Some(speedup) = found.speedup {
            report.summary.insert("speedup".into(), serde_json::to_value(speedup).unwrap_or_default());
        }
    }
    if !limited {
        return chooser.make(work, &vec![0; chooser.units.len()], SLOWER);
    }
    let judge = match Judge::new(runtime, &work.run, held_out) {
        Err(e) if !given && is_refusal(&e) => Judge::new(runtime, &work.run, accepted(runtime, &work.run)?),
        judge => judge,
    };
    let judge = judge.map_err(|e| hinted(e, given))?;
    report.summary.insert("quality_metric".into(), judge.metric().into());
    report.summary.insert("quality_batches".into(), judge.batches().into());
    let sensitivities = chooser.measure(work, &judge)?;
    let (result, mut nodes, loss) = chooser.settle(work, &judge)?;
    report.summary.insert("quality_loss".into(), loss.into());
    for node in &mut nodes {
        node.sensitivity = sensitivities.iter().find(|(name, _)| *name == node.name).map(|(_, loss)| *loss);
    }
    Ok((result, nodes))
}

/// Returns the error of a run, with a hint in its message unless the user has given the inputs.
fn hinted(e: Error, given: bool) -> Error {
    match e.kind() {
        Kind::Runtime | Kind::InvalidArgument if !given && !e.message().contains("options `shapes` and `values`") => {
            Error::new(e.kind(), format!("{}; {HINT}", e.message())).at(e.place())
        }
        _ => e,
    }
}

/// Returns generated batches of sizes that the model accepts, for a model that refuses those of the default sizes.
fn accepted(runtime: &'static Runtime, run: &Run<'_>) -> Result<Vec<Batch>> {
    let Generated { shapes, values } = run.generated;
    let inputs = InputOptions { shapes: shapes.to_vec(), values: values.to_vec(), ..InputOptions::default() };
    let options = BenchmarkOptions { inputs, ..BenchmarkOptions::default() };
    let session = SessionOptions { threads: run.options.threads, ..SessionOptions::stock() };
    let shapes = settled(runtime, run.model, &options, &session, run.call)?.shapes();
    calibrate::batches(run.model, &Calibration::Generated { shapes: &shapes, values })
}

/// Returns the batches to measure on. If `fits` is true and there are at least two batches, every fourth is returned
/// and removed from `batches`, to which weights are fitted; otherwise all are returned and stay in `batches`.
fn hold_out(batches: &mut Vec<Batch>, fits: bool) -> Vec<Batch> {
    if !fits || batches.len() < 2 {
        let copy = |b: &Batch| b.clone();
        return batches.iter().map(copy).collect();
    }
    let (mut kept, mut out) = (Vec::new(), Vec::new());
    for (index, batch) in std::mem::take(batches).into_iter().enumerate() {
        if index % HELD_OUT == 1 { out.push(batch) } else { kept.push(batch) }
    }
    *batches = kept;
    out
}

/// The selection of the form of each unit.
struct Chooser {
    units: Vec<Unit>,
    /// Whether a unit stays float because of speed, for each unit.
    slow: Vec<bool>,
}

impl Chooser {
    /// Measures the loss of each unit alone, and sets the losses of the candidates. Returns the losses by node name.
    fn measure(&mut self, work: &Work<'_>, judge: &Judge) -> Result<Vec<(String, f64)>> {
        let plan = &work.plan;
        let (mut of, mut of_stored) = (vec![0; plan.weights.len()], vec![0; plan.stored.len()]);
        for (index, unit) in self.units.iter().enumerate() {
            unit.weights.iter().for_each(|weight| of[*weight] = index);
            unit.stored.iter().for_each(|stored| of_stored[*stored] = index);
        }
        let count = self.units.len();
        let mut trial = Trial::new(judge, work, &SwitchOf { weights: &of, stored: &of_stored, count })?;
        // The switches are in the main graph only.
        let mut switched: Vec<bool> =
            self.units.iter().map(|unit| unit.stored.is_none_or(|stored| plan.stored[stored].owner == 0)).collect();
        plan.changes.iter().filter(|c| c.body != 0).for_each(|c| switched[of[c.weight]] = false);
        let mut losses = Vec::with_capacity(count);
        for index in 0..count {
            work.run.call.report(Stage::SENSITIVITY, index as u64, count as u64)?;
            if switched[index] {
                let mut on = vec![false; count];
                on[index] = true;
                losses.push(trial.loss(&on)?);
            } else {
                let mut alone: Vec<usize> = self.units.iter().map(|unit| unit.candidates.len() - 1).collect();
                alone[index] = 0;
                losses.push(judge.loss(&self.make(work, &alone, SENSITIVE)?.0, &work.run)?);
            }
        }
        work.run.call.report(Stage::SENSITIVITY, count as u64, count as u64)?;
        self.units.iter_mut().zip(&losses).for_each(|(unit, loss)| unit.measured(*loss));
        let named =
            |c: &super::planner::Change<'_>| (work.view.node(c.body, c.node).label().to_owned(), losses[of[c.weight]]);
        let mut all: Vec<(String, f64)> = plan.changes.iter().filter(|c| c.body == 0).map(named).collect();
        for (index, stored) in plan.stored.iter().enumerate().filter(|(_, stored)| stored.owner == 0) {
            // A node with several stored weights has the largest of their losses.
            for (body, node) in stored.readers.iter().filter(|(body, _)| *body == 0) {
                let (name, loss) = (work.view.node(*body, *node).label(), losses[of_stored[index]]);
                match all.iter_mut().find(|(known, _)| known == name) {
                    Some((_, known)) => *known = known.max(loss),
                    None => all.push((name.to_owned(), loss)),
                }
            }
        }
        Ok(all)
    }

    /// Quantizes the model until a result meets the limits, and returns the result with its loss. Fails with
    /// `GateNotMet` if none does.
    fn settle(&self, work: &Work<'_>, judge: &Judge) -> Result<(Model, Vec<NodeReport>, f64)> {
        let QuantizeOptions { max_quality_loss, target_size, .. } = *work.run.options;
        let weights: u64 = self.units.iter().filter_map(|u| u.candidates.last()).map(|c| c.bytes).sum();
        let others = work.run.model.bytes().saturating_sub(weights);
        let mut room = target_size.saturating_sub(others);
        let mut allowed = max_quality_loss;
        let mut closest = (u64::MAX, f64::INFINITY);
        let attempts = if target_size > 0 { SIZE_ATTEMPTS } else { ATTEMPTS };
        for attempt in 0..attempts {
            let picked = match target_size {
                0 => self.pick(Limit::Loss(allowed)),
                _ => self.pick(Limit::Bytes(room)),
            };
            let Some(pick) = picked else { break };
            let reason = if target_size > 0 { LARGE } else { SENSITIVE };
            let (result, nodes) = self.make(work, &pick, reason)?;
            let loss = judge.loss(&result, &work.run)?;
            let bytes = result.bytes();
            let small = target_size == 0 || bytes <= target_size;
            let good = max_quality_loss == 0.0 || loss <= max_quality_loss;
            if small && good {
                return Ok((result, nodes, loss));
            }
            closest = (bytes, loss);
            if target_size > 0 && small {
                break; // The result is small enough, and a smaller one would lose more.
            }
            // The result also contains names and shapes, whose size is known only now. The second selection may be too
            // large by as much as the first: later ones are reduced by more.
            let over = bytes.saturating_sub(target_size);
            room = room.saturating_sub(over << attempt.saturating_sub(1));
            let predicted = allocate::total(&self.units, &pick).1;
            // The limit on the predicted loss is reduced by as much as this result exceeds it, and by another 10 %.
            allowed = (predicted * max_quality_loss / loss).min(predicted) * 0.9;
            if predicted == 0.0 {
                break;
            }
        }
        let (bytes, loss) = closest;
        if target_size == 0 {
            bail!(
                GateNotMet,
                "max_quality_loss is {max_quality_loss}, but every result that was tried loses {loss:.3e} or more"
            )
        }
        if bytes <= target_size {
            bail!(
                GateNotMet,
                "with target_size {target_size} the result has {bytes} bytes and loses {loss:.3e}; the limit is \
                 {max_quality_loss}"
            )
        }
        self.smallest(work, judge)
    }

    /// Returns the result with the smallest form of each unit that is not slow. Fails with `GateNotMet` if even this
    /// result misses the limits.
    fn smallest(&self, work: &Work<'_>, judge: &Judge) -> Result<(Model, Vec<NodeReport>, f64)> {
        let QuantizeOptions { max_quality_loss, target_size, bits, .. } = *work.run.options;
        let smallest: Vec<usize> = self
            .slow
            .iter()
            .zip(&self.units)
            .map(|(slow, unit)| if *slow { unit.candidates.len() - 1 } else { 0 })
            .collect();
        let (result, nodes) = self.make(work, &smallest, LARGE)?;
        let (bytes, loss) = (result.bytes(), judge.loss(&result, &work.run)?);
        if bytes > target_size {
            bail!(
                GateNotMet,
                "target_size is {target_size} bytes, but the smallest result with {bits} bits or more has {bytes}"
            )
        }
        if max_quality_loss > 0.0 && loss > max_quality_loss {
            bail!(
                GateNotMet,
                "with target_size {target_size} the result has {bytes} bytes and loses {loss:.3e}; the limit is \
                 {max_quality_loss}"
            )
        }
        Ok((result, nodes, loss))
    }

    /// Returns the index of the selected candidate of each unit, with which all units together are within a limit; slow
    /// units stay float. Returns `None` if no selection is within the limit.
    fn pick(&self, limit: Limit) -> Option<Vec<usize>> {
        let open: Vec<usize> = (0..self.units.len()).filter(|u| !self.slow[*u]).collect();
        let floats: u64 = (0..self.units.len())
            .filter(|u| self.slow[*u])
            .filter_map(|u| self.units[u].candidates.last())
            .map(|c| c.bytes)
            .sum();
        let limit = match limit {
            Limit::Bytes(most) => Limit::Bytes(most.checked_sub(floats)?),
            loss => loss,
        };
        let candidates = |u: &usize| self.units[*u].candidates.clone();
        let of = |u: &usize| Unit { weights: Vec::new(), stored: None, candidates: candidates(u) };
        let picked = allocate(&open.iter().map(of).collect::<Vec<_>>(), limit)?;
        let mut pick: Vec<usize> = self.units.iter().map(|u| u.candidates.len() - 1).collect();
        open.iter().zip(picked).for_each(|(unit, at)| pick[*unit] = at);
        Some(pick)
    }

    /// Returns the model with these candidates; `reason` is the reason why units that are not slow stay float.
    fn make(&self, work: &Work<'_>, pick: &[usize], reason: &'static str) -> Result<(Model, Vec<NodeReport>)> {
        let mut decisions: Vec<Decision> = work.plan.weights.iter().map(|_| Decision::AsPlanned).collect();
        for ((unit, at), slow) in self.units.iter().zip(pick).zip(&self.slow) {
            for weight in &unit.weights {
                decisions[*weight] = match unit.candidates[*at].choice {
                    _ if *slow => Decision::Left(SLOWER),
                    Choice::Float => Decision::Left(reason),
                    Choice::Coded(bits, block) => Decision::Coded(bits, block),
                };
            }
        }
        let mut choices: Vec<Choice> = work.plan.stored.iter().map(|_| Choice::Float).collect();
        for (unit, at) in self.units.iter().zip(pick) {
            unit.stored.iter().for_each(|stored| choices[*stored] = unit.candidates[*at].choice);
        }
        let plan = work.plan.decide(work.view, &decisions);
        work.make(&super::stored::decide(plan, work.view, &choices, reason))
    }
}
