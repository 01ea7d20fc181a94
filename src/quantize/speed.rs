//! Comparison of the speed of a result with the original on this machine, to find weights that are not faster when
//! quantized.

use super::allocate::Unit;
use super::decide::Decision;
use super::planner::{Form, Plan};
use super::{Run, Work};
use crate::benchmark::{BenchmarkOptions, Pair, Speedup, Subject, race, settled};
use crate::call::Stage;
use crate::error::Result;
use crate::inputs::{Batch, InputOptions};
use crate::model::{Model, Task};
use crate::runtime::{Runtime, SessionOptions};
use std::collections::BTreeMap;

/// The maximum number of kinds of weights: the products of one shape are a kind, and the tables of one shape are
/// another. Kinds are tried one by one, those with most elements first. If there are more kinds, the remaining ones
/// count as one, which is tried last.
const KINDS: usize = 8;
/// The maximum duration of one timed comparison in seconds.
const SECONDS: f64 = 1.5;
/// The maximum number of rounds of one timed comparison.
const ROUNDS: usize = 41;
/// The reason why a node stays float.
pub const SLOWER: &str = "is not faster when quantized here";

/// The result of `never_slower`.
pub struct Found {
    /// Whether a unit stays float, for each unit.
    pub slow: Vec<bool>,
    /// Speed-up of the result; `None` if no unit is quantized.
    pub speedup: Option<Speedup>,
}

/// Returns the units that stay float because that is faster. The quantized model is timed against itself with the
/// weights of one kind (see [`KINDS`]) in float, kind by kind, and finally against the original.
///
/// A kind stays quantized unless the model is faster without it. If the result is then still slower than the original,
/// all units stay float, except weights that are stored in few bits. Both are decided by the 95 % interval of the
/// median over paired runs. Decoders are timed on one token. Fails with `Cancelled` or `Timeout`, and if a model cannot
/// be quantized, loaded or run.
pub fn race_units(runtime: &'static Runtime, work: &Work<'_>, units: &[Unit], sample: Option<&Batch>) -> Result<Found> {
    let kinds = kinds(&work.plan, units);
    let mut races = Races::new(runtime, work.run, sample)?;
    let mut slow = vec![false; units.len()];
    let mut best = races.subject(&made(work, units, &slow)?)?;
    for (done, kind) in kinds.iter().enumerate() {
        work.run.call.report(Stage::SPEED, done as u64, kinds.len() as u64 + 1)?;
        let mut without = slow.clone();
        kind.iter().for_each(|unit| without[*unit] = true);
        if without.iter().all(|slow| *slow) {
            continue; // This would be the original.
        }
        let other = races.subject(&made(work, units, &without)?)?;
        let (speedup, pair) = races.race(best, other)?;
        best = if speedup.low > 1.0 {
            slow = without;
            pair.result
        } else {
            pair.original
        };
    }
    work.run.call.report(Stage::SPEED, kinds.len() as u64, kinds.len() as u64 + 1)?;
    let original = races.subject(work.run.model)?;
    let (speedup, _) = races.race(original, best)?;
    work.run.call.report(Stage::SPEED, kinds.len() as u64 + 1, kinds.len() as u64 + 1)?;
    if speedup.high < 1.0 {
        slow.iter_mut().zip(units).for_each(|(slow, unit)| *slow = unit.stored.is_none());
    }
    Ok(Found { speedup: (!slow.iter().all(|slow| *slow)).then_some(speedup), slow })
}

/// Returns the model without the slow units. Weights are not fitted to data, which takes long and does not change the
/// speed.
fn made(work: &Work<'_>, units: &[Unit], slow: &[bool]) -> Result<Model> {
    let mut decisions: Vec<Decision> = work.plan.weights.iter().map(|_| Decision::AsPlanned).collect();
    for (unit, _) in units.iter().zip(slow).filter(|(_, slow)| **slow) {
        unit.weights.iter().for_each(|weight| decisions[*weight] = Decision::Left(SLOWER));
    }
    Ok(work.make_plainly(&work.plan.decide(work.view, &decisions))?.0)
}

/// Returns the units of each kind (see [`KINDS`]), the kinds with most elements first. Stored weights are omitted.
fn kinds(plan: &Plan<'_>, units: &[Unit]) -> Vec<Vec<usize>> {
    let mut kinds: BTreeMap<(bool, usize, usize), (usize, Vec<usize>)> = BTreeMap::new();
    // Weights stored in few bits are as fast as floats.
    for (index, unit) in units.iter().enumerate().filter(|(_, unit)| unit.stored.is_none()) {
        let weight = &plan.weights[unit.weights[0]];
        let form = plan.changes.iter().find(|c| c.weight == unit.weights[0]).map(|c| c.form);
        let table = unit.weights.len() == 1 && matches!(form, Some(Form::Table | Form::BlockTable));
        let (rows, columns) = (weight.matrix.rows, weight.matrix.columns);
        let shape = if weight.transpose { (columns, rows) } else { (rows, columns) };
        let kind = kinds.entry((table, shape.0, shape.1)).or_default();
        kind.0 += weight.matrix.elements();
        kind.1.push(index);
    }
    let mut kinds: Vec<(usize, Vec<usize>)> = kinds.into_values().collect();
    kinds.sort_by_key(|(elements, _)| std::cmp::Reverse(*elements));
    let rest: Vec<usize> = kinds.iter().skip(KINDS - 1).flat_map(|(_, units)| units.clone()).collect();
    let mut kinds: Vec<Vec<usize>> = kinds.into_iter().take(KINDS - 1).map(|(_, units)| units).collect();
    kinds.extend((!rest.is_empty()).then_some(rest));
    kinds
}

/// A comparison of the speed of models on the same inputs.
pub struct Races<'r> {
    runtime: &'static Runtime,
    run: Run<'r>,
    session: SessionOptions,
    options: BenchmarkOptions,
    inputs: Batch,
}

impl<'r> Races<'r> {
    /// Returns a comparison on a given batch, or otherwise on inputs as in `benchmark`. Fails if no inputs can be
    /// generated on which the model runs.
    pub fn new(runtime: &'static Runtime, run: Run<'r>, sample: Option<&Batch>) -> Result<Races<'r>> {
        let writes = run.model.card().task == Task::Generate;
        let options = BenchmarkOptions {
            runs: ROUNDS,
            warmup: 3,
            max_seconds: SECONDS,
            inputs: InputOptions {
                sequence_length: usize::from(writes),
                shapes: run.generated.shapes.to_vec(),
                values: run.generated.values.to_vec(),
                ..InputOptions::default()
            },
            ..BenchmarkOptions::default()
        };
        let session = SessionOptions { threads: run.options.threads, ..SessionOptions::default() };
        let inputs = match sample.filter(|_| !writes) {
            Some(batch) => batch.clone(),
            None => settled(runtime, run.model, &options, &session, run.call)?,
        };
        Ok(Races { runtime, run, session, options, inputs })
    }

    /// Returns a model that is loaded for comparison. Fails like [`Subject::new`].
    pub fn subject(&self, model: &Model) -> Result<Subject> {
        Subject::new(self.runtime, model, &self.session, self.run.call)
    }

    /// Returns the speed-up of `result` over `original`, and both models. Fails if a model cannot be run, and with
    /// `Cancelled` or `Timeout`.
    pub fn race(&mut self, original: Subject, result: Subject) -> Result<(Speedup, Pair)> {
        let mut pair = Pair::new(original, result);
        let speedup = race(&mut pair, &self.inputs, &self.options, &self.session, self.run.call)?;
        Ok((speedup, pair))
    }
}
