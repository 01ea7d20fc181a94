//! The times of models: each alone (load, first run, memory), then both in turn.

use super::BenchmarkOptions;
use super::report::{Both, Latency};
use super::steps::Steps;
use crate::call::Call;
use crate::error::{Error, Result};
use crate::graph::edit;
use crate::inputs::{Batch, is_past};
use crate::model::{Dim, Model};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::*;
use crate::platform::{memory, time};
use crate::runtime::{Placement, Runtime, Session, SessionOptions, Tensor};
use crate::statistics::{percentile, sorted};
use std::time::{Duration, Instant};

/// The minimum number of timed rounds (unless fewer were requested), however long they take.
const FEWEST_ROUNDS: usize = 5;
/// The duration of a round of both models below which they count as quick. Runs of quick models are not watched for a
/// cancel: the step after them notices it in time, and the watching thread would cost as much as a small model.
const QUICK: Duration = Duration::from_millis(50);

/// The clock that measures runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// CPU time of this thread, which runs a session of one thread. Other programs on the machine disturb it far less
    /// than the wall clock.
    ThreadCpu,
    /// Wall clock time.
    Wall,
}

impl Clock {
    /// Returns the clock for sessions with this number of threads.
    pub fn for_threads(threads: usize) -> Clock {
        if threads == 1 { Clock::ThreadCpu } else { Clock::Wall }
    }

    /// Returns the name of the clock in reports.
    pub fn name(self) -> &'static str {
        match self {
            Clock::ThreadCpu => "thread_cpu",
            Clock::Wall => "wall",
        }
    }

    fn now(self) -> Duration {
        match self {
            Clock::ThreadCpu => time::of_this_thread(),
            Clock::Wall => time::monotonic(),
        }
    }
}

/// A function that runs a model on inputs, and returns the outputs of the given names.
pub type RunFn = Box<dyn FnMut(&[(&str, &Tensor)], &[&str], &Call) -> Result<Vec<(String, Tensor)>> + Send>;

/// A model that ONNX Runtime does not run, and that can be timed against one that it runs: an engine of another
/// library.
pub trait Timed {
    /// Returns a model that has the inputs and outputs of the engine and no nodes.
    fn signature(&self) -> &Model;

    /// Returns the size of the engine on disk in bytes.
    fn bytes(&self) -> u64;

    /// Returns the provider and the device on which the engine runs.
    fn placement(&self) -> Placement;

    /// Loads the engine, and returns a function that runs it.
    fn run_fn(&self) -> Result<RunFn>;
}

/// One of the two models that are measured: a model for a session, or an engine.
#[derive(Clone, Copy)]
pub enum Side<'s> {
    /// A model, which runs in a session with the options of the benchmark.
    Model(&'s Model),
    /// An engine, which the library that built it runs.
    Engine(&'s dyn Timed),
}

impl Side<'_> {
    /// Returns the model, or for an engine a model that has its inputs and outputs and no nodes.
    pub fn model(&self) -> &Model {
        match self {
            Side::Model(model) => model,
            Side::Engine(engine) => engine.signature(),
        }
    }

    /// Returns the size of the model on disk in bytes; for a model in a package, of all files of the package.
    pub fn bytes(&self) -> u64 {
        match self {
            Side::Model(model) => model.shipped_bytes(),
            Side::Engine(engine) => engine.bytes(),
        }
    }
}

/// The session or the engine that is run.
enum Runs {
    Session(Session),
    Engine(RunFn, Placement),
}

/// A loaded model, with its requested outputs: all outputs that are tensors.
pub struct Subject {
    runs: Runs,
    outputs: Vec<String>,
    /// Inputs of a decoder's cache with the dimensions that the model declares. A pruned model can have fewer or
    /// smaller ones than the inputs that it is given.
    past: Vec<(String, Vec<Dim>)>,
    /// Time to load the model in milliseconds.
    pub load_ms: f64,
}

impl Subject {
    /// Loads a model or an engine, and returns it. Fails like [`Session::new`] for a model, and if the engine cannot be
    /// opened.
    pub fn of(runtime: &'static Runtime, side: Side<'_>, options: &SessionOptions, call: &Call) -> Result<Subject> {
        match side {
            Side::Model(model) => Subject::new(runtime, model, options, call),
            Side::Engine(engine) => {
                let start = Instant::now();
                let runs = Runs::Engine(engine.run_fn()?, engine.placement());
                let outputs = engine.signature().outputs().into_iter().map(|info| info.name).collect();
                Ok(Subject { runs, outputs, past: Vec::new(), load_ms: milliseconds(start.elapsed()) })
            }
        }
    }

    /// Returns the provider and the device on which the model runs.
    pub fn placement(&self) -> &Placement {
        match &self.runs {
            Runs::Session(session) => session.placement(),
            Runs::Engine(_, placement) => placement,
        }
    }

    /// Loads a model, and returns it. Fails like [`Session::new`].
    pub fn new(runtime: &'static Runtime, model: &Model, options: &SessionOptions, call: &Call) -> Result<Subject> {
        let start = Instant::now();
        let session = Session::new(runtime, model, options, call)?;
        let load_ms = milliseconds(start.elapsed());
        let tensors = session.outputs().iter().filter(|info| info.dtype.is_some());
        let outputs = tensors.map(|info| info.name.clone()).collect();
        let past = session.inputs().iter().filter(|info| is_past(&info.name));
        let past = past.map(|info| (info.name.clone(), info.shape.clone().unwrap_or_default())).collect();
        Ok(Subject { runs: Runs::Session(session), outputs, past, load_ms })
    }

    /// Runs the model and returns its outputs. A session is not given cache inputs that the model lacks; those of
    /// another shape are replaced by zeros of the declared shape. Fails like [`Session::run`], or with the error of the
    /// engine.
    pub fn run(&mut self, inputs: &[(&str, &Tensor)], call: &Call) -> Result<Vec<(String, Tensor)>> {
        let outputs: Vec<&str> = self.outputs.iter().map(String::as_str).collect();
        let session = match &mut self.runs {
            Runs::Session(session) => session,
            Runs::Engine(run, _) => return run(inputs, &outputs, call),
        };
        let mut own = Vec::new();
        for (name, tensor) in inputs.iter().filter(|(name, _)| is_past(name)) {
            let Some((_, dims)) = self.past.iter().find(|(past, _)| past == name) else { continue };
            if let Some(shape) = cut(tensor.shape(), dims) {
                let elements = shape.iter().product::<i64>() as usize;
                let zeros = vec![0u8; elements * tensor.dtype().bits() as usize / 8];
                own.push((*name, Tensor::new(tensor.dtype(), &shape, zeros.into())?));
            }
        }
        let taken = |name: &str| !is_past(name) || self.past.iter().any(|(past, _)| past == name);
        let mut feed: Vec<(&str, &Tensor)> = inputs.iter().filter(|(name, _)| taken(name)).copied().collect();
        for (name, tensor) in &mut feed {
            if let Some((_, other)) = own.iter().find(|(of, _)| of == name) {
                *tensor = other;
            }
        }
        session.run(&feed, &outputs, call)
    }
}

/// Returns the shape of a cache input as the model declares it; symbolic dimensions are those of `shape`. `None` if it
/// equals `shape` or has another number of dimensions.
fn cut(shape: &[i64], dims: &[Dim]) -> Option<Vec<i64>> {
    let wants = |(size, dim): (&i64, &Dim)| match dim {
        Dim::Fixed(wanted) => *wanted,
        Dim::Symbolic(_) => *size,
    };
    let wanted: Vec<i64> = shape.iter().zip(dims).map(wants).collect();
    (shape.len() == dims.len() && wanted != shape).then_some(wanted)
}

/// The measurements of one model alone in the process.
#[derive(Debug, Clone, Copy)]
pub struct Alone {
    /// Time to load the model or engine in milliseconds.
    pub load_ms: f64,
    /// Time of the first run in milliseconds.
    pub first_run_ms: f64,
    /// Growth of resident memory over load and first run, in bytes.
    pub resident_bytes: u64,
}

/// Loads a model of one node, runs it and drops it. The first session of a process has fixed costs (13 MB for ONNX
/// Runtime's tables of kernels and operators), which are then not measured as part of a model. Fails like
/// [`Session::new`] and [`Session::run`].
pub fn prime(runtime: &'static Runtime, options: &SessionOptions, call: &Call) -> Result<()> {
    let mut one = edit::node("Constant", &[], &["one"]);
    one.attribute = vec![edit::int_attribute("value_int", 1)];
    let tensor = TensorTypeProto { elem_type: Some(DataType::Int64.to_onnx()), ..Default::default() };
    let value_type = TypeProto { tensor_type: Some(Box::new(tensor)), ..Default::default() };
    let output =
        ValueInfoProto { name: Some("one".to_owned()), value_type: Some(Box::new(value_type)), ..Default::default() };
    let graph =
        GraphProto { name: Some("prime".to_owned()), node: vec![one], output: vec![output], ..Default::default() };
    let imports = vec![OperatorSetIdProto { version: Some(13), ..Default::default() }];
    let proto =
        ModelProto { ir_version: Some(7), graph: Some(Box::new(graph)), opset_import: imports, ..Default::default() };
    Subject::new(runtime, &Model::from_proto(proto), options, call)?.run(&[], call).map(drop)
}

/// Loads a model, runs it once, and drops it. Returns the measurements; times are wall-clock times. Fails like
/// [`Subject::of`] and [`Subject::run`].
pub fn alone(
    runtime: &'static Runtime,
    side: Side<'_>,
    inputs: &Batch,
    options: &SessionOptions,
    call: &Call,
) -> Result<Alone> {
    let ((subject, first_run, _), resident_bytes) = memory::growth(|| {
        let mut subject = Subject::of(runtime, side, options, call)?;
        let start = Instant::now();
        let outputs = subject.run(&inputs.feed(), call)?;
        Ok::<_, Error>((subject, start.elapsed(), outputs))
    })?;
    Ok(Alone { load_ms: subject.load_ms, first_run_ms: milliseconds(first_run), resident_bytes })
}

/// The times of both models, round by round, in milliseconds.
#[derive(Debug, Default)]
pub struct Rounds {
    /// Times of the original.
    pub original: Vec<f64>,
    /// Times of the result.
    pub result: Vec<f64>,
}

impl Rounds {
    /// Returns the time of the original divided by the time of the result for each round: disturbances affect both
    /// runs of a pair.
    pub fn ratios(&self) -> Vec<f64> {
        self.original.iter().zip(&self.result).map(|(original, result)| original / result).collect()
    }
}

/// The original and the result, loaded.
pub struct Pair {
    /// Original model or engine, loaded.
    pub original: Subject,
    /// Resulting model or engine, loaded.
    pub result: Subject,
    /// Whether the models are quick; see [`QUICK`].
    quick: bool,
}

impl Pair {
    /// Returns the provider and the device on which each of the models runs.
    pub fn placement(&self) -> Both<Placement> {
        let of = |subject: &Subject| subject.placement().clone();
        Both { original: of(&self.original), result: of(&self.result) }
    }

    /// Returns a pair of models to run in turn.
    pub fn new(original: Subject, result: Subject) -> Pair {
        Pair { original, result, quick: false }
    }

    /// Warms both models up, then runs them in turn until `options.runs` rounds are done or `options.max_seconds` have
    /// passed, but for at least [`FEWEST_ROUNDS`]; returns the times. `inputs` are those of the original and of the
    /// result.
    pub fn race(
        &mut self,
        inputs: [&Batch; 2],
        options: &BenchmarkOptions,
        clock: Clock,
        steps: &mut Steps,
    ) -> Result<Rounds> {
        let feed = inputs.map(Batch::feed);
        let budget = Duration::try_from_secs_f64(options.max_seconds).unwrap_or(Duration::MAX);
        let start = Instant::now();
        for number in 0..options.warmup {
            self.round(number, [&feed[0], &feed[1]], clock, steps)?;
            steps.next()?;
            if start.elapsed() > budget / 5 {
                steps.skip(options.warmup - number - 1)?;
                break;
            }
        }
        let mut rounds = Rounds::default();
        let start = Instant::now();
        for number in 0..options.runs {
            let times = self.round(number, [&feed[0], &feed[1]], clock, steps)?;
            rounds.original.push(times.original);
            rounds.result.push(times.result);
            steps.next()?;
            if start.elapsed() > budget && number + 1 >= FEWEST_ROUNDS {
                steps.skip(options.runs - number - 1)?;
                break;
            }
        }
        Ok(rounds)
    }

    /// Returns the times in milliseconds of one run of each model. The order alternates (A B, B A, A B …), so that a
    /// machine that becomes slower or faster favours neither. A quick model runs once before each timed run: otherwise
    /// the time would depend on which model ran before, and so on whose weights are in the CPU caches.
    fn round(
        &mut self,
        number: usize,
        feed: [&[(&str, &Tensor)]; 2],
        clock: Clock,
        steps: &Steps,
    ) -> Result<Both<f64>> {
        let quick = self.quick;
        let call = if quick { Call::default() } else { steps.quiet() };
        let timed = |subject: &mut Subject, feed: &[(&str, &Tensor)]| -> Result<f64> {
            if quick {
                subject.run(feed, &call)?;
            }
            let start = clock.now();
            let outputs = subject.run(feed, &call)?;
            let taken = clock.now().saturating_sub(start);
            drop(outputs);
            // A clock may be too coarse for a tiny model; a ratio must stay finite.
            Ok(milliseconds(taken.max(Duration::from_nanos(1))))
        };
        let start = Instant::now();
        let times = if number.is_multiple_of(2) {
            let original = timed(&mut self.original, feed[0])?;
            Both { original, result: timed(&mut self.result, feed[1])? }
        } else {
            let result = timed(&mut self.result, feed[1])?;
            Both { original: timed(&mut self.original, feed[0])?, result }
        };
        self.quick |= start.elapsed() < QUICK;
        Ok(times)
    }
}

/// Returns the median, the minimum and the 90th percentile of times.
pub fn latency(times: &[f64]) -> Latency {
    let times = sorted(times);
    Latency { median: percentile(&times, 0.5), min: percentile(&times, 0.0), p90: percentile(&times, 0.9) }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_stands_still_in_sleep_and_the_wall_clock_does_not() {
        let taken = |clock: Clock| {
            let start = clock.now();
            std::thread::sleep(Duration::from_millis(40));
            clock.now() - start
        };
        assert!(taken(Clock::for_threads(1)) < Duration::from_millis(20));
        assert!(taken(Clock::for_threads(2)) >= Duration::from_millis(40));
    }

    #[test]
    fn ratios_are_paired() {
        let rounds = Rounds { original: vec![4.0, 9.0], result: vec![2.0, 3.0] };
        assert_eq!(rounds.ratios(), [2.0, 3.0]);
        assert_eq!(latency(&[3.0, 1.0, 2.0]), Latency { median: 2.0, min: 1.0, p90: 2.8 });
    }
}
