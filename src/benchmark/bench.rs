//! The parts of a benchmark ([`Bench`]): running each model alone, running both in turn, and comparing their outputs.

use super::pairing::{Pairing, same_inputs};
use super::quality::Comparison;
use super::steps::Steps;
use super::timing::{Alone, Pair, Rounds, Side, Subject, alone, latency, prime};
use super::{BenchmarkOptions, BenchmarkReport, Both, QualityReport, clock, speedup};
use crate::error::{Context, Error, Result};
use crate::inputs::{Batch, Source, is_refusal};
use crate::runtime::{Runtime, SessionOptions};
use crate::text::Tokenizer;
use std::time::Instant;

/// The state of a benchmark that is running.
pub struct Bench<'a> {
    /// ONNX Runtime on which the models run.
    pub runtime: &'static Runtime,
    /// The original model or engine.
    pub original: Side<'a>,
    /// The model or engine that is compared with the original.
    pub result: Side<'a>,
    /// Options of the benchmark.
    pub options: &'a BenchmarkOptions,
    /// Source of the inputs of the original, and of the result unless `of_result` is set.
    pub source: Source<'a>,
    /// Source of the inputs of the result, if they are texts and the result has another tokenizer.
    of_result: Option<Source<'a>>,
    pairing: &'a Pairing,
    /// Time at which the benchmark was created.
    pub start: Instant,
}

/// The inputs on which both models are timed.
pub struct Fed {
    original: Batch,
    /// Inputs of the result, if they differ from those of the original.
    result: Option<Batch>,
}

impl Fed {
    /// Returns the inputs of the original and of the result.
    pub fn each(&self) -> [&Batch; 2] {
        [&self.original, self.result.as_ref().unwrap_or(&self.original)]
    }
}

impl<'a> Bench<'a> {
    /// Returns a benchmark for which nothing is loaded yet. Fails with `InvalidArgument` if the inputs of the models
    /// differ, if the options do not match the inputs, or if the outputs are over different vocabularies.
    pub fn new(
        runtime: &'static Runtime,
        [original, result]: [Side<'a>; 2],
        tokenizer: Option<&'a Tokenizer>,
        pairing: &'a Pairing,
        options: &'a BenchmarkOptions,
    ) -> Result<Bench<'a>> {
        same_inputs(&original.model().inputs(), &result.model().inputs())?;
        let source = Source::pair(original.model(), result.model(), tokenizer, &options.inputs)?;
        pairing.check(&source)?;
        let of_result = match (&pairing.reading, source.name()) {
            (Some(reading), "text") => Some(Source::new(result.model(), Some(&reading.tokenizer), &options.inputs)?),
            _ => None,
        };
        Ok(Bench { runtime, original, result, options, source, of_result, pairing, start: Instant::now() })
    }

    /// Returns the inputs for timing.
    fn timing(&self) -> Result<Fed> {
        let result = self.of_result.as_ref().map(Source::timing).transpose()?;
        Ok(Fed { original: self.source.timing()?, result })
    }

    /// Returns the input set `index` for comparing outputs.
    fn set(&self, index: usize) -> Result<Fed> {
        let result = self.of_result.as_ref().map(|source| source.set(index)).transpose()?;
        Ok(Fed { original: self.source.set(index)?, result })
    }

    /// Returns the options of the sessions of both models.
    pub fn session(&self) -> SessionOptions {
        let execution = self.options.execution.clone();
        SessionOptions { threads: self.options.threads, execution, ..SessionOptions::default() }
    }

    /// Loads both models and returns them. An error names the model that cannot be loaded.
    pub fn pair(&self, session: &SessionOptions, steps: &Steps) -> Result<Pair> {
        let load = |side: Side<'_>| Subject::of(self.runtime, side, session, &steps.quiet());
        Ok(Pair::new(load(self.original).at(|| "the original")?, load(self.result).at(|| "the result")?))
    }

    /// Finds inputs of sizes that the original accepts by running it, runs the result on them once, and returns them.
    /// Fails if a model does not run; the error names the model.
    pub fn settled(&mut self, pair: &mut Pair, steps: &Steps) -> Result<Fed> {
        let quiet = steps.quiet();
        let source = &mut self.source;
        let settled = source.settle(|source| pair.original.run(&source.timing()?.feed(), &quiet).map(drop));
        settled.at(|| "the original")?;
        if let Some(other) = &mut self.of_result {
            other.follow(source);
        }
        let inputs = self.timing()?;
        let outputs = pair.result.run(&inputs.each()[1].feed(), &quiet);
        outputs.map_err(|e| self.source.hinted(e)).at(|| "the result")?;
        Ok(inputs)
    }

    /// Runs each model alone, and returns the inputs and the measurements. If a model refuses the inputs, both are run
    /// on those that [`Self::settled`] finds. Fails like [`Subject::of`] and [`Subject::run`]; the place of the error
    /// names the model.
    pub fn alone(&mut self, session: &SessionOptions, steps: &mut Steps) -> Result<(Fed, Both<Alone>)> {
        let inputs = self.timing()?;
        match self.each_alone(&inputs, session, steps) {
            Err((_, e)) if is_refusal(&e) => {
                let mut pair = self.pair(session, steps)?;
                let inputs = self.settled(&mut pair, steps)?;
                drop(pair);
                let each = self.each_alone(&inputs, session, steps);
                Ok((inputs, each.map_err(|(name, e)| self.source.hinted(e).at(name))?))
            }
            each => Ok((inputs, each.map_err(|(name, e)| e.at(name))?)),
        }
    }

    /// Runs each model alone, the smaller one first: the allocator keeps some memory of the first model and reuses it
    /// for the second, whose growth then looks smaller; this matters least for the larger model. Returns the
    /// measurements; an error names its model.
    fn each_alone(
        &self,
        inputs: &Fed,
        options: &SessionOptions,
        steps: &mut Steps,
    ) -> std::result::Result<Both<Alone>, (&'static str, Error)> {
        let (first, second) = ("the original", "the result");
        prime(self.runtime, options, &steps.quiet()).map_err(|e| (first, e))?;
        let mut measure = |side: Side<'_>, inputs: &Batch, name: &'static str| {
            let alone = alone(self.runtime, side, inputs, options, &steps.quiet()).map_err(|e| (name, e))?;
            steps.next().map_err(|e| (name, e))?;
            Ok(alone)
        };
        let [of_original, of_result] = inputs.each();
        if self.result.bytes() <= self.original.bytes() {
            let result = measure(self.result, of_result, second)?;
            Ok(Both { original: measure(self.original, of_original, first)?, result })
        } else {
            let original = measure(self.original, of_original, first)?;
            Ok(Both { original, result: measure(self.result, of_result, second)? })
        }
    }

    /// Compares the outputs on the input sets, until all sets are compared or the time `until` has come; the first set
    /// is always compared. Returns the results. Fails like [`Subject::run`], and if the inputs cannot be made or the
    /// outputs cannot be compared.
    pub fn compare(&self, pair: &mut Pair, until: Option<Instant>, steps: &mut Steps) -> Result<QualityReport> {
        let source = &self.source;
        let mut comparison = Comparison::new(source.vocabularies());
        let quiet = steps.quiet();
        for index in 0..source.count() {
            if index > 0 && until.is_some_and(|until| Instant::now() > until) {
                steps.skip(source.count() - index)?;
                break;
            }
            let inputs = self.set(index)?;
            let [of_original, of_result] = inputs.each();
            let original = pair.original.run(&of_original.feed(), &quiet).map_err(|e| source.hinted(e));
            let original = original.at(|| "the original")?;
            let result = pair.result.run(&of_result.feed(), &quiet).map_err(|e| source.hinted(e));
            let result = result.at(|| "the result")?;
            let result = self.pairing.aligned(result, [of_original.mask.as_ref(), of_result.mask.as_ref()])?;
            comparison.add(&original, &result, of_original.mask.as_ref(), of_original.samples)?;
            steps.next()?;
        }
        Ok(comparison.finish())
    }

    /// Returns the report. `each` holds the measurements of each model alone, `None` in a brief benchmark.
    pub fn report(&self, pair: &Pair, inputs: &Fed, rounds: &Rounds, each: Option<Both<Alone>>) -> BenchmarkReport {
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
            input_shapes: inputs.original.shapes(),
            latency_ms: Both { original: latency(&rounds.original), result: latency(&rounds.result) },
            speedup: speedup(rounds, self.options.inputs.seed),
            load_ms,
            first_run_ms: each.map(|each| each.map(|alone| alone.first_run_ms)),
            resident_bytes: each.map(|each| each.map(|alone| alone.resident_bytes)),
            bytes,
            size_ratio: bytes.original as f64 / bytes.result.max(1) as f64,
            notes: self.pairing.notes.clone(),
            seconds: self.start.elapsed().as_secs_f64(),
        }
    }
}
