//! Search for the smallest sparsity at which a model is small or fast enough.

use super::Plan;
use crate::benchmark::{BenchmarkOptions, Pair, Subject, race, settled};
use crate::call::Call;
use crate::error::{Result, bail};
use crate::inputs::{Batch, InputOptions};
use crate::model::{Model, Task};
use crate::runtime::{Runtime, SessionOptions};

/// The maximum sparsity that is tried.
const MOST: f64 = 0.95;
/// The number of steps of a search for a size; the sparsity is found to a thousandth.
const STEPS: usize = 10;
/// The number of steps of a search for a speed-up, each of which is a benchmark.
const RACES: usize = 6;
const ROUNDS: usize = 15;
/// The duration of one benchmark in seconds.
const SECONDS: f64 = 6.0;

/// Returns the plan with the smallest sparsity, found by bisection to a thousandth, whose model has at most `bytes`
/// bytes. Fails with `GateNotMet` if a sparsity of [`MOST`] is not enough.
pub fn size(plan: &Plan, bytes: u64) -> Result<Plan> {
    let enough = |plan: &Plan| Ok(plan.bytes()? <= bytes);
    match search(plan, STEPS, enough)? {
        Some(found) => Ok(found),
        None => {
            let least = plan.at(MOST)?.bytes()?;
            bail!(GateNotMet, "target_size is {bytes} bytes, but {least} bytes are left without {MOST} of the units")
        }
    }
}

/// Returns the plan with the smallest sparsity among those measured in a bisection of [`RACES`] steps whose model has a
/// speed-up of at least `speedup`. Opens ONNX Runtime if `runtime` is `None`. Fails with `GateNotMet` if a sparsity of
/// [`MOST`] is not enough, with `RuntimeMissing` if ONNX Runtime is not found, with `Cancelled` or `Timeout`, and if a
/// model cannot be run.
pub fn speed(plan: &Plan, speedup: f64, runtime: Option<&'static Runtime>, call: &Call) -> Result<Plan> {
    let runtime = runtime.map_or_else(|| Runtime::open(None), Ok)?;
    let races = Races::new(runtime, plan, call)?;
    let mut best = 0f64;
    let enough = |plan: &Plan| {
        let measured = races.run(&plan.model, &plan.cut(call)?, call)?;
        best = best.max(measured);
        Ok(measured >= speedup)
    };
    match search(plan, RACES, enough)? {
        Some(found) => Ok(found),
        None => bail!(
            GateNotMet,
            "target_speedup is {speedup}, but without {MOST} of the units the model is only {best:.2} times as fast"
        ),
    }
}

/// Returns the plan with the smallest sparsity among those tried for which `enough` is true; `None` if there is none.
fn search(plan: &Plan, steps: usize, mut enough: impl FnMut(&Plan) -> Result<bool>) -> Result<Option<Plan>> {
    let mut best = plan.at(MOST)?;
    if !enough(&best)? {
        return Ok(None);
    }
    let (mut low, mut high) = (0f64, MOST);
    for _ in 0..steps {
        let middle = (low + high) / 2.0;
        let tried = plan.at(middle)?;
        // Candidates that round to the same sizes have already been measured.
        let known = tried.gone == best.gone;
        if known || enough(&tried)? {
            (best, high) = (tried, middle);
        } else {
            low = middle;
        }
    }
    Ok(Some(best))
}

struct Races {
    runtime: &'static Runtime,
    session: SessionOptions,
    options: BenchmarkOptions,
    inputs: Batch,
}

impl Races {
    fn new(runtime: &'static Runtime, plan: &Plan, call: &Call) -> Result<Races> {
        // Models that generate text are measured on a step of one token.
        let writes = plan.model.card().task == Task::Generate;
        let options = BenchmarkOptions {
            runs: ROUNDS,
            warmup: 3,
            max_seconds: SECONDS,
            inputs: InputOptions { sequence_length: usize::from(writes), ..InputOptions::default() },
            ..BenchmarkOptions::default()
        };
        let session = SessionOptions { threads: plan.options.threads, ..SessionOptions::default() };
        let inputs = settled(runtime, &plan.model, &options, &session, call)?;
        Ok(Races { runtime, session, options, inputs })
    }

    /// Returns the speed-up of `result` over `original`.
    fn run(&self, original: &Model, result: &Model, call: &Call) -> Result<f64> {
        let subject = |model: &Model| Subject::new(self.runtime, model, &self.session, call);
        let mut pair = Pair::new(subject(original)?, subject(result)?);
        // If heads were removed, `Subject::run` adapts the cache inputs of the original to the result.
        Ok(race(&mut pair, &self.inputs, &self.options, &self.session, call)?.median)
    }
}
