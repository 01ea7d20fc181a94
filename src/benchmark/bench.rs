//! A benchmark under way: the models alone, then as a pair, on inputs of sizes that the original takes.

use super::inputs::{InputSet, Source, is_refusal};
use super::quality::Comparison;
use super::steps::Steps;
use super::timing::{Alone, Pair, Rounds, Side, Subject, alone, latency, prime};
use super::{BenchmarkOptions, BenchmarkReport, Both, QualityReport, clock, speedup};
use crate::error::{Context, Error, Result};
use crate::runtime::{Runtime, SessionOptions};
use std::time::Instant;

/// A benchmark under way.
pub struct Bench<'a> {
    pub runtime: &'static Runtime,
    pub original: Side<'a>,
    pub result: Side<'a>,
    pub options: &'a BenchmarkOptions,
    pub source: Source<'a>,
    pub start: Instant,
}

impl Bench<'_> {
    pub fn session(&self) -> SessionOptions {
        let execution = self.options.execution.clone();
        SessionOptions { threads: self.options.threads, execution, ..SessionOptions::default() }
    }

    pub fn pair(&self, session: &SessionOptions, steps: &Steps) -> Result<Pair> {
        let load = |side: Side<'_>| Subject::of(self.runtime, side, session, &steps.quiet());
        Ok(Pair::new(load(self.original).at(|| "the original")?, load(self.result).at(|| "the result")?))
    }

    /// Inputs of sizes that the original takes; an error that says which of the two takes none.
    pub fn settled(&mut self, pair: &mut Pair, steps: &Steps) -> Result<InputSet> {
        let quiet = steps.quiet();
        let source = &mut self.source;
        let inputs = source.settle(|source| {
            let inputs = source.timing()?;
            pair.original.run(&inputs.feed(), &quiet).map(|_| inputs)
        });
        let inputs = inputs.at(|| "the original")?;
        let outputs = pair.result.run(&inputs.feed(), &quiet);
        outputs.map_err(|e| source.hinted(e)).at(|| "the result")?;
        Ok(inputs)
    }

    /// Each alone, on inputs of sizes that the original takes.
    pub fn alone(&mut self, session: &SessionOptions, steps: &mut Steps) -> Result<(InputSet, Both<Alone>)> {
        let inputs = self.source.timing()?;
        let (runtime, original, result) = (self.runtime, self.original, self.result);
        match each_alone(runtime, original, result, &inputs, session, steps) {
            Err((_, e)) if is_refusal(&e) => {
                let mut pair = self.pair(session, steps)?;
                let inputs = self.settled(&mut pair, steps)?;
                drop(pair);
                let each = each_alone(runtime, original, result, &inputs, session, steps);
                Ok((inputs, each.map_err(|(name, e)| self.source.hinted(e).at(name))?))
            }
            each => Ok((inputs, each.map_err(|(name, e)| e.at(name))?)),
        }
    }

    /// How close the outputs are, over the input sets until a time.
    pub fn compare(&self, pair: &mut Pair, until: Option<Instant>, steps: &mut Steps) -> Result<QualityReport> {
        let source = &self.source;
        let mut comparison = Comparison::new(source.vocabularies());
        let quiet = steps.quiet();
        for index in 0..source.count() {
            if index > 0 && until.is_some_and(|until| Instant::now() > until) {
                steps.skip(source.count() - index)?;
                break;
            }
            let inputs = source.set(index)?;
            let feed = inputs.feed();
            let original = pair.original.run(&feed, &quiet).map_err(|e| source.hinted(e)).at(|| "the original")?;
            let result = pair.result.run(&feed, &quiet).map_err(|e| source.hinted(e)).at(|| "the result")?;
            comparison.add(&original, &result, inputs.mask.as_ref(), inputs.samples)?;
            steps.next()?;
        }
        Ok(comparison.finish())
    }

    pub fn report(
        &self,
        pair: &Pair,
        inputs: &InputSet,
        rounds: &Rounds,
        each: Option<Both<Alone>>,
    ) -> BenchmarkReport {
        let session = self.session();
        let bytes = Both { original: self.original.bytes(), result: self.result.bytes() };
        let loaded = Both { original: pair.original.load_ms, result: pair.result.load_ms };
        let load_ms = each.map_or(loaded, |each| Both {
            original: each.original.load_ms.min(loaded.original),
            result: each.result.load_ms.min(loaded.result),
        });
        BenchmarkReport {
            runs: rounds.original.len(),
            threads: session.thread_count(),
            clock: clock(&session).name(),
            placement: pair.placement(),
            inputs: self.source.name(),
            input_shapes: inputs.shapes(),
            latency_ms: Both { original: latency(&rounds.original), result: latency(&rounds.result) },
            speedup: speedup(rounds, self.options.seed),
            load_ms,
            first_run_ms: each.map(|each| each.map(|alone| alone.first_run_ms)),
            resident_bytes: each.map(|each| each.map(|alone| alone.resident_bytes)),
            bytes,
            size_ratio: bytes.original as f64 / bytes.result.max(1) as f64,
            seconds: self.start.elapsed().as_secs_f64(),
        }
    }
}

/// The smaller model comes first: the allocator keeps some memory of the model before and gives it to the one
/// after, whose growth then looks smaller than it is, and that matters least where it is large. An error comes with
/// the name of the model that it is about.
fn each_alone(
    runtime: &'static Runtime,
    original: Side<'_>,
    result: Side<'_>,
    inputs: &InputSet,
    options: &SessionOptions,
    steps: &mut Steps,
) -> std::result::Result<Both<Alone>, (&'static str, Error)> {
    let (first, second) = ("the original", "the result");
    prime(runtime, options, &steps.quiet()).map_err(|e| (first, e))?;
    let mut measure = |side: Side<'_>, name: &'static str| {
        let alone = alone(runtime, side, inputs, options, &steps.quiet()).map_err(|e| (name, e))?;
        steps.next().map_err(|e| (name, e))?;
        Ok(alone)
    };
    if result.bytes() <= original.bytes() {
        let result = measure(result, second)?;
        Ok(Both { original: measure(original, first)?, result })
    } else {
        let original = measure(original, first)?;
        Ok(Both { original, result: measure(result, second)? })
    }
}
