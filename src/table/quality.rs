//! The quality of a result, by the measures that fit the task of the model.

use super::report::{Figure, Interval};
use crate::benchmark::{BenchmarkOptions, closeness};
use crate::call::Call;
use crate::error::Result;
use crate::evaluate::{
    self, Labelled, PerplexityOptions, ProbeOptions, TextOptions, compare_classification, compare_embeddings,
    compare_perplexity, compare_probes, labelled,
};
use crate::inputs::InputOptions;
use crate::model::{Model, Task};
use crate::runtime::Runtime;
use crate::text::Tokenizer;

/// The maximum number of texts that are embedded.
const TEXTS: usize = 256;
/// The maximum number of tokens of the text on which perplexity is measured.
const TOKENS: usize = 2048;
/// The maximum number of tokens of a window of that text.
const WINDOW: usize = 512;

/// The data on which quality is measured.
pub(super) struct Data<'a> {
    /// ONNX Runtime on which the models run.
    pub runtime: &'static Runtime,
    pub tokenizer: Option<&'a Tokenizer>,
    /// Text of the caller; `None` for built-in sentences.
    pub text: Option<&'a str>,
    /// Number of threads of a session.
    pub threads: usize,
}

impl Data<'_> {
    /// Returns a description of the data for the task of a model.
    pub fn describe(&self, model: &Model) -> String {
        let given = if self.text.is_some() { "the held-out part of the text" } else { "built-in sentences" };
        match (model.card().task, self.tokenizer) {
            (Task::Generate, Some(_)) => format!("up to {TOKENS} tokens of {given}, in windows of {WINDOW}"),
            (_, Some(_)) if self.rows().is_some() => "held-out labelled texts".to_owned(),
            (_, Some(_)) => format!("{} lines of {given}", self.texts().len()),
            (_, None) => "generated inputs".to_owned(),
        }
    }

    /// Returns the quality of `result` against `original`, the most important measure first. Fails if a model cannot be
    /// run on the data, and with `Cancelled` or `Timeout`.
    pub fn compare(&self, original: &Model, result: &Model, call: &Call) -> Result<Vec<Figure>> {
        let Some(tokenizer) = self.tokenizer else { return self.closeness(original, result, call) };
        match original.card().task {
            Task::Generate => self.perplexity(original, result, tokenizer, call),
            Task::Embed => self.embedding(original, result, tokenizer, call),
            Task::Classify => match self.rows() {
                Some(rows) => {
                    let found = compare_classification(
                        self.runtime,
                        original,
                        result,
                        tokenizer,
                        &rows,
                        &self.options(),
                        call,
                    )?;
                    let agreement = figure("top1_agreement", Interval::exactly(found.agreement));
                    Ok(vec![figure("accuracy_change", of(&found.accuracy_change)), agreement])
                }
                None => self.closeness(original, result, call),
            },
            Task::FillMask | Task::Unknown => self.closeness(original, result, call),
        }
    }

    fn perplexity(&self, original: &Model, result: &Model, tokenizer: &Tokenizer, call: &Call) -> Result<Vec<Figure>> {
        let built_in;
        let text = match self.text {
            Some(text) => text,
            None => {
                built_in = InputOptions::default().texts().join("\n");
                &built_in
            }
        };
        let longest = original.card().longest_text()?.unwrap_or(WINDOW).min(WINDOW);
        let options = PerplexityOptions {
            context_length: longest,
            max_tokens: TOKENS,
            threads: self.threads,
            ..PerplexityOptions::default()
        };
        let found = compare_perplexity(self.runtime, original, result, tokenizer, text, &options, call)?;
        Ok(vec![
            figure("perplexity_ratio", of(&found.ratio)),
            figure("kl", of(&found.kl)),
            figure("top1_agreement", Interval::exactly(found.top1_agreement)),
            figure("perplexity", Interval::exactly(found.perplexity.result.perplexity)),
        ])
    }

    fn embedding(&self, original: &Model, result: &Model, tokenizer: &Tokenizer, call: &Call) -> Result<Vec<Figure>> {
        let (texts, options) = (self.texts(), self.options());
        let found = compare_embeddings(self.runtime, original, result, tokenizer, &texts, &options, call)?;
        let mut figures = vec![
            figure("cosine", Interval::new(found.cosine, (found.cosine_low, found.cosine_high))),
            figure("nearest_kept", Interval::exactly(found.nearest_kept)),
        ];
        if let Some(rows) = self.rows() {
            let options = ProbeOptions { text: options, ..ProbeOptions::default() };
            let found = compare_probes(self.runtime, original, result, tokenizer, &rows, &options, call)?;
            figures.push(figure("accuracy_change", of(&found.accuracy_change)));
        }
        Ok(figures)
    }

    fn closeness(&self, original: &Model, result: &Model, call: &Call) -> Result<Vec<Figure>> {
        let texts = if self.text.is_some() && self.tokenizer.is_some() { self.texts() } else { Vec::new() };
        let inputs = InputOptions { texts, ..InputOptions::default() };
        let options = BenchmarkOptions { threads: self.threads, inputs, ..BenchmarkOptions::default() };
        let found = closeness(self.runtime, original, result, self.tokenizer, &options, call)?;
        let named = [("cosine", found.cosine), ("kl", found.kl), ("top1_agreement", found.top1_agreement)];
        Ok(named.into_iter().filter_map(|(name, value)| Some(figure(name, Interval::exactly(value?)))).collect())
    }

    fn rows(&self) -> Option<Vec<Labelled>> {
        let first = self.text?.lines().find(|line| !line.trim().is_empty())?;
        let rows = first.contains('\t').then(|| labelled::parse(self.text.unwrap_or("")).ok()).flatten();
        rows.map(|rows| rows.into_iter().take(8 * TEXTS).collect())
    }

    /// Returns at most [`TEXTS`] texts, evenly spaced over the data.
    fn texts(&self) -> Vec<String> {
        let lines: Vec<String> = match (self.rows(), self.text) {
            (Some(rows), _) => rows.into_iter().map(|row| row.text).collect(),
            (None, Some(text)) => text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect(),
            (None, None) => InputOptions::default().texts().into_iter().map(str::to_owned).collect(),
        };
        let step = lines.len().div_ceil(TEXTS).max(1);
        lines.into_iter().step_by(step).collect()
    }

    fn options(&self) -> TextOptions {
        TextOptions { threads: self.threads, ..TextOptions::default() }
    }
}

fn figure(name: &str, value: Interval) -> Figure {
    Figure { name: name.to_owned(), value }
}

fn of(interval: &evaluate::Interval) -> Interval {
    Interval::new(interval.value, (interval.low, interval.high))
}
