//! The sizes of inputs that a package accepts, tested before they are written into the manifest.
//!
//! A model without a KV cache is run on the example and on both ends of every range. Runs on more than 2^24 input
//! elements, and runs after the first 60 seconds, are omitted. A requested size that does not run is an error; a
//! default range is narrowed until it runs, with a warning.

use super::options::CompileOptions;
use super::shapes::{self, Asked};
use crate::call::Call;
use crate::error::{Context, Error, Kind, Result, bail};
use crate::inputs::sizes::TRIALS;
use crate::inputs::{InputOptions, Sizes, Source, Wanted, guesses_values, is_of_tokens, is_past, is_refusal};
use crate::model::contract::{Contract, Range, Size, describe};
use crate::model::{Model, Task, ValueInfo};
use crate::onnx::dtype::element_count;
use crate::runtime::{Runtime, Session, SessionOptions};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// The names and shapes of inputs.
pub type Shapes = Vec<(String, Vec<i64>)>;

/// The inputs that a package accepts, with an example.
pub struct Promise {
    /// Sizes that the package accepts.
    pub contract: Contract,
    /// Shapes of an example within the contract. The model was run on it, unless it has a KV cache or a warning says
    /// that it was not.
    pub example: Shapes,
    /// Warnings about ranges that were narrowed, and about an example that was not tested.
    pub warnings: Vec<String>,
}

/// The length of the example in tokens if the length may vary: a short example is enough to find errors in a graph.
const LENGTH: i64 = 16;
/// The length of the example in tokens if it is fixed.
const FIXED_LENGTH: i64 = 128;
/// The number of elements of all inputs above which a run is omitted, because it could use up the memory.
const ELEMENTS: u64 = 1 << 24;
/// The time limit of one run. A run that reaches it counts as successful, because a wrong size fails sooner.
const PATIENCE: Duration = Duration::from_secs(10);
/// The time after which no further run begins.
const ALL: Duration = Duration::from_secs(60);

impl Promise {
    /// Returns the sizes that follow from the options, after testing them. A model with a KV cache is not tested, nor
    /// is one that ONNX Runtime cannot open if only portable graphs are requested.
    ///
    /// Fails with [`Kind::InvalidArgument`] if the model does not run on the example or on a requested size, or if the
    /// batch range is empty; with [`Kind::NotFound`] for an example of an unknown input; and like [`shapes::contract`].
    pub fn new(runtime: &'static Runtime, model: &Model, options: &CompileOptions, call: &Call) -> Result<Promise> {
        let (min, max) = (options.batch_min, options.batch_max);
        if min < 0 || max < min {
            bail!(InvalidArgument, "the batch range from {min} to {max} is empty");
        }
        let infos = model.inputs();
        if let Some(name) = options.example.keys().find(|name| !infos.iter().any(|info| info.name == **name)) {
            let names: Vec<&str> = infos.iter().map(|info| info.name.as_str()).collect();
            bail!(NotFound, "there is no input {name:?}; the inputs are {}", names.join(", "));
        }
        let longest = model.card().longest_text()?.map(|tokens| tokens as i64);
        let dynamic = options.dynamic || model.card().task == Task::Generate;
        let asked = match dynamic {
            true => shapes::all_open(&infos, (min, max), longest, &options.shapes),
            false => options.shapes.clone(),
        };
        let length = if dynamic { LENGTH } else { FIXED_LENGTH };
        let maker = Maker { model, infos, asked, options, sequence: length.min(longest.unwrap_or(length)), longest };
        let cached = maker.infos.iter().any(|info| is_past(&info.name));
        let (contract, example) = maker.contract(0)?;
        let mut promise = Promise { contract, example, warnings: Vec::new() };
        if cached {
            // A decoder runs on a text that grows with each step, which these single runs would not test.
            return Ok(promise);
        }
        let mut trial = match Trial::new(runtime, model, call) {
            Err(e) if options.portable_only && !e.kind().ends_a_call() => {
                promise.warnings.push(format!("ONNX Runtime cannot open the model on this machine: {e}"));
                return Ok(promise);
            }
            trial => trial?,
        };
        let Some(at) = maker.example(&mut trial, &mut promise)? else { return Ok(promise) };
        let (batch, others): (Vec<_>, Vec<_>) =
            maker.ranges(&promise.contract).into_iter().partition(|(range, _)| range.name == "batch");
        let usual = Base { at, set: Vec::new() };
        for (range, given) in others {
            maker.ends(&mut trial, &mut promise, &range, given, &usual)?;
        }
        // Large batches are tested with the smallest samples, if these run.
        let least = maker.ranges(&promise.contract).into_iter().filter(|(range, _)| range.name != "batch");
        let small = Base { at, set: least.map(|(range, _)| (range.name, range.min)).collect() };
        let small = match trial.run(&maker.shapes(&maker.sizes(at, &small.set)?)?)? {
            Tried::Runs => small,
            _ => usual,
        };
        for (range, given) in batch {
            maker.ends(&mut trial, &mut promise, &range, given, &small)?;
        }
        Ok(promise)
    }
}

/// The sizes that a test run starts from: the index `at` of a guess, and sizes `set` for ranges by name.
struct Base {
    at: usize,
    set: Vec<(String, i64)>,
}

struct Maker<'a> {
    model: &'a Model,
    infos: Vec<ValueInfo>,
    asked: Asked,
    options: &'a CompileOptions,
    sequence: i64,
    longest: Option<i64>,
}

impl Maker<'_> {
    /// Returns the sizes of the guess `trial`, within the requested ranges, with the ranges in `set` at the given
    /// sizes.
    fn sizes(&self, trial: usize, set: &[(String, i64)]) -> Result<Sizes> {
        let mut sizes = Sizes::new(self.model);
        for (position, info) in self.infos.iter().enumerate() {
            let ranges = self.asked.get(&info.name).or_else(|| self.asked.get(&position.to_string()));
            for (axis, range) in ranges.into_iter().flatten() {
                sizes.limit(position, *axis, range);
            }
        }
        for (position, info) in self.infos.iter().enumerate() {
            if let Some(shape) = self.options.example.get(&info.name) {
                sizes.bind(position, shape)?;
            }
        }
        set.iter().for_each(|(name, size)| sizes.set_range(name, *size));
        let sequential: Vec<bool> = self.infos.iter().map(is_of_tokens).collect();
        let (sequence, longest) = (self.sequence, self.longest);
        sizes.choose(&Wanted { batch: 1, sequence, asked: false, longest, sequential: &sequential, trial });
        Ok(sizes)
    }

    /// Returns the shapes of inputs whose rank is known.
    fn shapes(&self, sizes: &Sizes) -> Result<Shapes> {
        let known = |(position, info): (usize, &ValueInfo)| {
            info.shape.is_some().then(|| Ok((info.name.clone(), sizes.shape(position)?)))
        };
        self.infos.iter().enumerate().filter_map(known).collect()
    }

    fn contract(&self, trial: usize) -> Result<(Contract, Shapes)> {
        let shapes = self.shapes(&self.sizes(trial, &[])?)?;
        let example: HashMap<String, Vec<i64>> = shapes.iter().cloned().collect();
        Ok((shapes::contract(&self.infos, &self.asked, &example)?, shapes))
    }

    /// Searches for an example that runs, and stores it and its contract in `promise`. Returns the index of its guess;
    /// `None`, with a warning, if the example could not be tested or the input values may be the reason why it does not
    /// run. Fails with `InvalidArgument` if the model runs on no example.
    fn example(&self, trial: &mut Trial<'_>, promise: &mut Promise) -> Result<Option<usize>> {
        let mut refused = None;
        for at in 0..TRIALS {
            let made = self.contract(at);
            let (contract, example) = if at == 0 { made? } else { made.unwrap_or_default() };
            if at > 0 && (example == promise.example || example.is_empty()) {
                continue;
            }
            match trial.run(&example)? {
                Tried::Runs => {
                    (promise.contract, promise.example) = (contract, example);
                    return Ok(Some(at));
                }
                Tried::Untried(why) if at == 0 => {
                    promise.warnings.push(format!("the inputs of the package were not tested: {why}"));
                    return Ok(None);
                }
                Tried::Untried(_) => {}
                Tried::Refused(e) => drop(refused.get_or_insert(e)),
            }
            if trial.is_late() {
                break;
            }
        }
        let Some(e) = refused else { return Ok(None) };
        if guesses_values(self.model) {
            promise.warnings.push(format!(
                "the model does not run on {}, perhaps because of the values of its inputs: {e}",
                listed(&promise.example)
            ));
            return Ok(None);
        }
        Err(Error::new(
            Kind::InvalidArgument,
            format!(
                "the model does not run on {}: {}; set the sizes of its inputs (`shape`, or ranges)",
                listed(&promise.example),
                e.message()
            ),
        ))
    }

    /// Returns the ranges of a contract, each with whether it was requested. Defaults were not requested.
    fn ranges(&self, contract: &Contract) -> Vec<(Range, bool)> {
        let defaults = CompileOptions::default();
        let usual = (self.options.batch_min, self.options.batch_max) == (defaults.batch_min, defaults.batch_max);
        let mut ranges: BTreeMap<String, (Range, bool)> = BTreeMap::new();
        for (position, input) in contract.inputs.iter().enumerate() {
            let asked = [input.name.clone(), position.to_string()];
            let asked = asked.iter().any(|key| self.options.shapes.contains_key(key));
            for size in input.dims.iter().flatten() {
                if let Size::Range(range) = size {
                    let given = asked || (range.name == "batch" && !usual);
                    ranges.entry(range.name.clone()).or_insert((range.clone(), false)).1 |= given;
                }
            }
        }
        ranges.into_values().collect()
    }

    /// Runs the model at both ends of a range, while all other ranges keep the sizes of `others`. If the model refuses
    /// an end, this fails with `InvalidArgument` for a range that was `given`, and otherwise narrows the range in the
    /// contract of `promise`.
    fn ends(
        &self,
        trial: &mut Trial<'_>,
        promise: &mut Promise,
        range: &Range,
        given: bool,
        others: &Base,
    ) -> Result<()> {
        let Some(base) = self.sizes(others.at, &others.set)?.range_size(&range.name) else { return Ok(()) };
        let mut run = |size: i64| {
            let set = [&others.set[..], &[(range.name.clone(), size)]].concat();
            trial.run(&self.shapes(&self.sizes(others.at, &set)?)?)
        };
        let (mut narrow, mut why) = (range.clone(), None);
        if range.min < base
            && let Tried::Refused(e) = run(range.min)?
        {
            why = Some((range.min, e));
            let between = (1..31).map(|power| 1i64 << power).filter(|size| (range.min + 1..base).contains(size));
            narrow.min = base;
            for size in between {
                if !given && matches!(run(size)?, Tried::Runs) {
                    narrow.min = size;
                    break;
                }
            }
        }
        // A range without a maximum is tested beyond the example.
        let most = range.max.unwrap_or(base.saturating_mul(2));
        if most > base
            && let Tried::Refused(e) = run(most)?
        {
            why.get_or_insert((most, e));
            let mut size = most / 2;
            while !given && size > base && !matches!(run(size)?, Tried::Runs) {
                size /= 2;
            }
            narrow.max = Some(size.max(base));
        }
        let Some((size, e)) = why else { return Ok(()) };
        if given {
            let takes = describe(&Size::Range(range.clone()));
            let hint = "set another minimum or maximum";
            bail!(
                InvalidArgument,
                "the package would accept {takes}, but the model does not run with {size}; {hint}: {e}"
            );
        }
        let takes = describe(&Size::Range(narrow.clone()));
        let note = format!("the package accepts only {takes}, because the model does not run with {size} ({e})");
        promise.warnings.push(note);
        let dims = promise.contract.inputs.iter_mut().filter_map(|input| input.dims.as_mut()).flatten();
        for size in dims {
            match size {
                Size::Range(range) if range.name == narrow.name => *range = narrow.clone(),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Returns the text for shapes, for example `x [1, 128], y [1]`.
fn listed(shapes: &Shapes) -> String {
    shapes.iter().map(|(name, shape)| format!("{name} {shape:?}")).collect::<Vec<_>>().join(", ")
}

/// The result of a test run.
enum Tried {
    Runs,
    Refused(Error),
    /// The run was not tried, for the reason given: its inputs cannot be made, or it needs too much memory or time.
    Untried(String),
}

/// The state of the test runs of a model.
struct Trial<'a> {
    model: &'a Model,
    session: Session,
    call: &'a Call<'a>,
    start: Instant,
}

impl<'a> Trial<'a> {
    fn new(runtime: &'static Runtime, model: &'a Model, call: &'a Call<'a>) -> Result<Trial<'a>> {
        let options = SessionOptions { varying_sizes: true, ..SessionOptions::stock() };
        let session = Session::new(runtime, model, &options, call).at(|| "the model that is tried")?;
        Ok(Trial { model, session, call, start: Instant::now() })
    }

    fn is_late(&self) -> bool {
        self.start.elapsed() > ALL
    }

    /// Runs the model on these shapes and returns what happened. A run that reaches the time limit [`PATIENCE`] counts
    /// as successful. Fails if the caller ends the work, and with errors other than the refusals of [`is_refusal`].
    fn run(&mut self, shapes: &Shapes) -> Result<Tried> {
        self.call.check()?;
        let elements = |(_, shape): &(String, Vec<i64>)| element_count(shape).unwrap_or(u64::MAX);
        if shapes.iter().map(elements).fold(0, u64::saturating_add) > ELEMENTS || self.is_late() {
            return Ok(Tried::Untried(format!("{} would need too much memory or time", listed(shapes))));
        }
        let options = InputOptions { shapes: shapes.clone(), ..InputOptions::default() };
        let made = Source::new(self.model, None, &options).and_then(|source| source.timing());
        let inputs = match made {
            Err(e) => return Ok(Tried::Untried(e.to_string())),
            Ok(inputs) => inputs,
        };
        let deadline = Instant::now() + PATIENCE;
        let deadline = self.call.deadline.map_or(deadline, |own| own.min(deadline));
        let call = Call { progress: None, deadline: Some(deadline), cancel: self.call.cancel };
        let outputs: Vec<String> =
            self.session.outputs().iter().filter(|o| o.dtype.is_some()).map(|o| o.name.clone()).collect();
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        match self.session.run(&inputs.feed(), &outputs, &call) {
            Ok(_) => Ok(Tried::Runs),
            Err(e) if e.kind() == Kind::Timeout => self.call.check().map(|()| Tried::Runs),
            Err(e) if is_refusal(&e) => Ok(Tried::Refused(e)),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests;
