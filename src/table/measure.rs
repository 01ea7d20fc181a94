//! The speed, load time and memory of a result, compared with those of its original, which runs on ONNX Runtime's own
//! kernels.
//!
//! A *visit* loads both models and times them in rounds, each of which runs both models once. There are several visits,
//! because a session may be fast or slow as a whole (depending on where its memory is and on what else the machine
//! does), and an interval over the rounds of a single visit would be too narrow. Intervals are bootstrapped over visits
//! first and then over the rounds of each visit.

use super::report::{Interval, Pair, Speed};
use crate::benchmark::Subject;
use crate::call::Call;
use crate::error::{Context, Result};
use crate::inputs::{Batch, InputOptions, Source};
use crate::model::{Model, Task};
use crate::platform::memory;
use crate::runtime::{Runtime, SessionOptions};
use crate::statistics::{grouped_interval, median};
use crate::text::{Decoder, GenerateOptions, Generator, Prompt, Tokenizer};
use std::time::{Duration, Instant};

/// The maximum number of tokens of the prompt of a decoder; fewer if the context of the model has no room for them and
/// for [`TOKENS`] more.
const PROMPT: usize = 128;
/// The number of tokens that a decoder generates in a round.
const TOKENS: usize = 16;
/// The batch sizes and lengths at which encoders are timed.
const SIZES: [(usize, usize); 3] = [(1, 16), (1, 128), (8, 128)];
/// The number of visits.
const VISITS: usize = 3;
/// The minimum number of rounds of a visit, however long they take; [`How::runs`] may be smaller.
const FEWEST: usize = 3;

/// The result of a measurement.
pub(super) struct Measurement {
    /// Time to load the original and the result, in milliseconds.
    pub load_ms: Pair,
    /// Growth of resident memory over load and first run, in bytes, of original and result.
    pub resident_bytes: [u64; 2],
    /// Speed for each size of the inputs.
    pub speed: Vec<Speed>,
}

/// The options of a measurement.
pub(super) struct How {
    /// ONNX Runtime on which the models run.
    pub runtime: &'static Runtime,
    /// Number of threads of a session.
    pub threads: usize,
    /// Maximum number of rounds of each visit, for each size.
    pub runs: usize,
    /// Time in seconds after which a visit begins no further round once it has made [`FEWEST`] rounds, for each size.
    pub max_seconds: f64,
}

/// The inputs on which models are timed.
pub(super) enum Load {
    /// Inputs of one run each, with the names of their sizes.
    Batches(Vec<(String, Batch)>),
    /// Tokens of a prompt, after which [`TOKENS`] tokens are generated.
    Prompt(Vec<i64>),
}

impl Load {
    /// Returns the inputs for a model: a prompt for a decoder with a tokenizer; for other models those of [`SIZES`]
    /// that the model accepts, or generated inputs of the default size if it accepts none of them. Fails if the text
    /// cannot be tokenized, the model cannot be loaded, or no inputs fit it.
    pub fn new(how: &How, model: &Model, tokenizer: Option<&Tokenizer>, call: &Call) -> Result<Load> {
        if let (Task::Generate, Some(tokenizer)) = (model.card().task, tokenizer) {
            let text = InputOptions::default().texts().join(" ");
            let ids = tokenizer.encode(&text, false)?.ids;
            // The context needs room for the generated tokens, too.
            let context = Decoder::of(model)?.context.unwrap_or(usize::MAX);
            let count = PROMPT.min(context.saturating_sub(TOKENS).max(1));
            return Ok(Load::Prompt(ids.into_iter().cycle().take(count).collect()));
        }
        let mut subject = Subject::new(how.runtime, model, &how.session(true), call)?;
        let mut batches: Vec<(String, Batch)> = Vec::new();
        let longest = model.card().longest_text()?.unwrap_or(usize::MAX);
        for (batch_size, length) in SIZES {
            let sequence_length = length.min(longest);
            let options = InputOptions { batch_size, sequence_length, ..InputOptions::default() };
            let mut source = Source::new(model, tokenizer, &options)?;
            let batch = source.settle(|source| {
                let batch = source.timing()?;
                subject.run(&batch.feed(), call).map(|_| batch)
            });
            // A model with fixed sizes rejects some of the sizes, or gets inputs of the same size each time.
            let Ok(batch) = batch else { continue };
            if batches.iter().all(|(_, other)| other.shapes() != batch.shapes()) {
                let own = shape_name(&batch.shapes());
                let is_taken = batches.iter().any(|(size, _)| *size == own);
                batches.push((if is_taken { format!("{batch_size}x{sequence_length}") } else { own }, batch));
            }
        }
        if batches.is_empty() {
            let options = InputOptions::default();
            batches.push(("as generated".to_owned(), Source::new(model, tokenizer, &options)?.timing()?));
        }
        Ok(Load::Batches(batches))
    }

    /// Returns descriptions of the sizes of the inputs.
    pub fn describe(&self) -> Vec<String> {
        let shape = |(name, dims): (String, Vec<i64>)| {
            format!("{name} {}", dims.iter().map(i64::to_string).collect::<Vec<_>>().join("x"))
        };
        match self {
            Load::Prompt(ids) => vec![
                format!("prefill {}: a prompt of {} tokens, 1 row", ids.len(), ids.len()),
                format!("decode: {TOKENS} tokens after it, one by one"),
            ],
            Load::Batches(batches) => batches
                .iter()
                .map(|(size, batch)| {
                    format!("{size}: {}", batch.shapes().into_iter().map(shape).collect::<Vec<_>>().join(", "))
                })
                .collect(),
        }
    }

    fn sizes(&self) -> Vec<String> {
        match self {
            Load::Prompt(ids) => vec![format!("prefill {}", ids.len()), "decode".to_owned()],
            Load::Batches(batches) => batches.iter().map(|(size, _)| size.clone()).collect(),
        }
    }
}

/// Returns the shape of the input with the most elements, which is the name of a size: `1x128` for a text of 128
/// tokens.
pub(super) fn shape_name(shapes: &[(String, Vec<i64>)]) -> String {
    let elements = |dims: &[i64]| dims.iter().product::<i64>();
    // Of several inputs with the most elements, the first is wanted, but `max_by_key` returns the last.
    let largest = shapes.iter().rev().max_by_key(|(_, dims)| elements(dims));
    match largest {
        Some((_, dims)) if !dims.is_empty() => dims.iter().map(i64::to_string).collect::<Vec<_>>().join("x"),
        _ => "scalar".to_owned(),
    }
}

/// A model that is loaded for timing, as a session or as a generator.
enum Loaded {
    Session(Box<Subject>),
    Decoder(Box<Generator>),
}

impl How {
    fn session(&self, stock: bool) -> SessionOptions {
        let base = if stock { SessionOptions::stock() } else { SessionOptions::default() };
        SessionOptions { threads: self.threads, ..base }
    }

    fn load(&self, model: &Model, stock: bool, load: &Load, call: &Call) -> Result<(Loaded, f64)> {
        let (options, start) = (self.session(stock), Instant::now());
        let loaded = match load {
            Load::Batches(_) => Loaded::Session(Box::new(Subject::new(self.runtime, model, &options, call)?)),
            Load::Prompt(_) => Loaded::Decoder(Box::new(Generator::new(self.runtime, model, &options, call)?)),
        };
        Ok((loaded, milliseconds(start.elapsed())))
    }
}

impl Loaded {
    /// Runs the inputs with the index `size`, and returns the time in milliseconds. For a decoder, `size` is ignored,
    /// and the times are those of the prompt and of each generated token.
    fn run(&mut self, load: &Load, size: usize, call: &Call) -> Result<Vec<f64>> {
        match (self, load) {
            (Loaded::Session(subject), Load::Batches(batches)) => {
                let feed = batches[size].1.feed();
                let start = Instant::now();
                subject.run(&feed, call)?;
                Ok(vec![milliseconds(start.elapsed())])
            }
            (Loaded::Decoder(generator), Load::Prompt(ids)) => {
                generator.start(1)?;
                generator.append(0, Prompt::Tokens(ids))?;
                let start = Instant::now();
                generator.advance(call)?;
                let prefill = milliseconds(start.elapsed());
                let options = GenerateOptions {
                    max_new_tokens: Some(TOKENS),
                    eos_token_ids: Some(Vec::new()),
                    ..GenerateOptions::default()
                };
                let start = Instant::now();
                generator.run(&options, None, call)?;
                Ok(vec![prefill, milliseconds(start.elapsed()) / TOKENS as f64])
            }
            _ => Ok(Vec::new()),
        }
    }
}

/// The times of original and result in milliseconds, one list per visit.
#[derive(Default)]
struct Times {
    original: Vec<Vec<f64>>,
    result: Vec<Vec<f64>>,
}

/// Returns the measurements of `result` against `original`. `step` is called with the fraction that is done, up to 1;
/// an error that it returns ends the measurement.
pub(super) fn measure(
    how: &How,
    original: &Model,
    result: &Model,
    load: &Load,
    call: &Call,
    step: &mut dyn FnMut(f64) -> Result<()>,
) -> Result<Measurement> {
    let sizes = load.sizes();
    let mut times: Vec<Times> = sizes.iter().map(|_| Times::default()).collect();
    let mut loads = Times::default();
    let resident_bytes = [resident(how, result, false, load, call).at(|| "the result")?];
    let resident_bytes = [resident(how, original, true, load, call).at(|| "the original")?, resident_bytes[0]];
    for visit in 0..VISITS {
        let (mut first, first_ms) = how.load(original, true, load, call).at(|| "the original")?;
        let (mut second, second_ms) = how.load(result, false, load, call).at(|| "the result")?;
        loads.original.push(vec![first_ms]);
        loads.result.push(vec![second_ms]);
        // A run of a decoder measures both of its sizes, `prefill` and `decode`.
        let runs = if matches!(load, Load::Prompt(_)) { 1 } else { sizes.len() };
        for index in 0..runs {
            let pairs = visit_once(how, (&mut first, &mut second), load, index, call)?;
            for (at, (a, b)) in pairs.into_iter().enumerate() {
                times[index + at].original.push(a);
                times[index + at].result.push(b);
            }
            step((visit * runs + index + 1) as f64 / (VISITS * runs) as f64)?;
        }
    }
    let speed = sizes.into_iter().zip(&times).map(|(size, times)| speed(size, times)).collect();
    Ok(Measurement { load_ms: pair(&loads), resident_bytes, speed })
}

/// Runs both models in turn at one size, after a warm-up, and returns their times in milliseconds, by size: one pair of
/// lists, or for a decoder two.
fn visit_once(
    how: &How,
    (first, second): (&mut Loaded, &mut Loaded),
    load: &Load,
    size: usize,
    call: &Call,
) -> Result<Vec<(Vec<f64>, Vec<f64>)>> {
    second.run(load, size, call)?;
    let sizes = first.run(load, size, call)?.len();
    let mut all: Vec<(Vec<f64>, Vec<f64>)> = vec![Default::default(); sizes];
    let start = Instant::now();
    for round in 0..how.runs.max(1) {
        if round >= FEWEST && start.elapsed().as_secs_f64() > how.max_seconds {
            break;
        }
        // The order alternates, so that a machine that becomes slower or faster favours neither model.
        let (a, b) = if round % 2 == 0 {
            let a = first.run(load, size, call)?;
            (a, second.run(load, size, call)?)
        } else {
            let b = second.run(load, size, call)?;
            (first.run(load, size, call)?, b)
        };
        for ((times, a), b) in all.iter_mut().zip(&a).zip(&b) {
            times.0.push(*a);
            times.1.push(*b);
        }
    }
    Ok(all)
}

fn speed(size: String, times: &Times) -> Speed {
    let ratios: Vec<Vec<f64>> =
        times.original.iter().zip(&times.result).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a / b).collect()).collect();
    Speed { size, latency_ms: pair(times), speedup: interval(&ratios) }
}

fn pair(times: &Times) -> Pair {
    Pair { original: interval(&times.original), result: interval(&times.result) }
}

fn interval(groups: &[Vec<f64>]) -> Interval {
    Interval::new(median(&groups.concat()), grouped_interval(groups, 0))
}

/// Returns the growth of resident memory over load and first run, in bytes.
fn resident(how: &How, model: &Model, stock: bool, load: &Load, call: &Call) -> Result<u64> {
    let (_, bytes) = memory::growth(|| {
        let (mut loaded, _) = how.load(model, stock, load, call)?;
        loaded.run(load, 0, call).map(|_| loaded)
    })?;
    Ok(bytes)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_named_after_the_largest_input() {
        let named = |shapes: &[(&str, &[i64])]| {
            shape_name(&shapes.iter().map(|(name, dims)| ((*name).to_owned(), dims.to_vec())).collect::<Vec<_>>())
        };
        assert_eq!(named(&[("ids", &[1, 128]), ("mask", &[1, 128])]), "1x128");
        assert_eq!(named(&[("scale", &[1]), ("image", &[8, 3, 32, 32])]), "8x3x32x32");
        assert_eq!((named(&[("x", &[])]), named(&[])), ("scalar".to_owned(), "scalar".to_owned()));
    }
}
