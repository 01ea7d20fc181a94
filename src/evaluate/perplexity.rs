//! Perplexity: how well a language model foresees a text.

use super::progress::Units;
use super::reader::Reader;
use super::text_plan::Plan;
use super::windows::Window;
use crate::call::Call;
use crate::error::{Context, Result, bail, error};
use crate::likelihood::surprise;
use crate::model::Model;
use crate::runtime::{Execution, Runtime, SessionOptions, Stop};
use crate::statistics::mean;
use crate::text::Tokenizer;
use rayon::prelude::*;
use serde::Serialize;
use std::time::Instant;

/// Where the token that begins a text (`<s>`) stands, for models whose tokenizer puts one there. It is never scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bos {
    /// In front of every window, as llama.cpp has it: models trained with it do badly without.
    #[default]
    EveryWindow,
    /// In front of the text alone, as the strided evaluation in the documentation of transformers has it.
    FirstWindow,
    /// Nowhere.
    Never,
}

/// How a text is read.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PerplexityOptions {
    /// Tokens of a window; 0: as many as the model has positions for, up to 512.
    pub context_length: usize,
    /// Tokens from the beginning of one window to that of the next; 0: half of the context length. Each token is
    /// scored once, and from the second window on has at least `context_length - stride` tokens before it: a small
    /// stride takes longer and gives a lower (truer) perplexity.
    pub stride: usize,
    /// Tokens of the text to read; 0: all.
    pub max_tokens: usize,
    /// See [`Bos`].
    pub bos: Bos,
    /// Threads of the session, and for what is made of its logits; 0 is one for each physical core.
    pub threads: usize,
    /// What the session runs on.
    pub execution: Execution,
}

/// How well a model foresees a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PerplexityReport {
    /// `exp(nll)`.
    pub perplexity: f64,
    /// Mean of `-ln p(token | tokens before it)` over the scored tokens, in nats.
    pub nll: f64,
    /// `nll · tokens / (ln 2 · bytes)`, over the bytes of text that the scored tokens stand for: unlike the
    /// perplexity it can be compared between models of different vocabularies.
    pub bits_per_byte: f64,
    /// Tokens that were scored.
    pub tokens: usize,
    /// Bytes of text they stand for.
    pub bytes: usize,
    /// Windows that were read.
    pub windows: usize,
    /// Tokens of a window, as used.
    pub context_length: usize,
    /// Tokens from one window to the next, as used.
    pub stride: usize,
    /// Whether every window began with the token that begins a text.
    pub bos: bool,
    /// Wall-clock seconds, the loading of the model not counted.
    pub seconds: f64,
    /// Scored tokens a second.
    pub tokens_per_second: f64,
}

/// Measures how well `model` foresees `text`: the sliding window of [`super::windows`].
///
/// Logits become probabilities in float64. Reports the stage `evaluate` in tokens. Memory: the model, and the logits
/// of one window (of its scored half alone where the model has an input `num_logits_to_keep`). The same text and
/// options give the same figures whatever the threads, as far as ONNX Runtime's kernels do.
///
/// [`crate::error::Kind::Unsupported`] if the model does not write text; `InvalidArgument` if the options do not fit
/// it or the text is too short; `Runtime` if a logit is not a number.
pub fn perplexity(
    runtime: &'static Runtime,
    model: &Model,
    tokenizer: &Tokenizer,
    text: &str,
    options: &PerplexityOptions,
    call: &Call,
) -> Result<PerplexityReport> {
    let plan = Plan::new(&[model], tokenizer, text, options)?;
    let mut units = Units::new(call, plan.scored());
    let mut reader = Reader::new(runtime, model, options, &units.quiet())?;
    let pool = pool(options.threads)?;
    let start = Instant::now();
    let mut surprises = Vec::with_capacity(plan.scored());
    let stop = Stop::new()?;
    stop.during(&units.quiet(), || {
        for window in &plan.windows {
            let ids = plan.ids(window);
            let logits = reader.read(&ids, window.scored + 1, &stop)?;
            let score = |position, token| Ok(surprise(logits.at(position)?, token));
            surprises.extend(pool.install(|| scores(&ids, window, logits.vocabulary(), score))?);
            units.add(window.scored)?;
        }
        Ok(())
    })?;
    finite(&surprises)?;
    Ok(PerplexityReport::new(&plan, &surprises, start.elapsed().as_secs_f64()))
}

impl PerplexityReport {
    /// The figures for what each token cost.
    pub(super) fn new(plan: &Plan, surprises: &[f64], seconds: f64) -> PerplexityReport {
        let nll = mean(surprises);
        let tokens = surprises.len();
        PerplexityReport {
            perplexity: nll.exp(),
            nll,
            bits_per_byte: nll * tokens as f64 / (std::f64::consts::LN_2 * plan.bytes.max(1) as f64),
            tokens,
            bytes: plan.bytes,
            windows: plan.windows.len(),
            context_length: plan.context_length,
            stride: plan.stride,
            bos: plan.has_prefix(),
            seconds,
            tokens_per_second: tokens as f64 / seconds.max(1e-9),
        }
    }
}

/// What `score` makes of each scored token of a window, in their order: it gets the position before the token, whose
/// logits foretell it, and the token.
pub fn scores<T: Send>(
    ids: &[i64],
    window: &Window,
    vocabulary: usize,
    score: impl Fn(usize, usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let one = |position: usize| match usize::try_from(ids[position]) {
        Ok(token) if token < vocabulary => score(position - 1, token),
        _ => bail!(
            InvalidArgument,
            "the tokenizer returned the token {}, but the model has {vocabulary} tokens: they do not belong together",
            ids[position]
        ),
    };
    (ids.len() - window.scored..ids.len()).into_par_iter().map(one).collect()
}

/// An error if a figure is not a number; infinite ones (a token that is ruled out) are figures.
pub fn finite(surprises: &[f64]) -> Result<()> {
    match surprises.iter().position(|value| value.is_nan()) {
        Some(token) => bail!(Runtime, "the model's logits for scored token {} are not numbers", token + 1),
        None => Ok(()),
    }
}

/// Threads that turn logits into figures.
pub fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    let threads = SessionOptions { threads, ..SessionOptions::default() }.thread_count();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|e| error!(Internal, "{e}")).at(|| "the worker threads could not be started")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_by_hand() {
        let plan = Plan::with_windows(8, 4, 2, 16);
        let report = PerplexityReport::new(&plan, &[2f64.ln(), 8f64.ln()], 0.5);
        assert!((report.perplexity - 4.0).abs() < 1e-12 && (report.nll - 4f64.ln()).abs() < 1e-12);
        // 1 bit and 3 bits over 16 bytes.
        assert!((report.bits_per_byte - 0.25).abs() < 1e-12);
        assert_eq!((report.tokens, report.tokens_per_second, report.windows), (2, 4.0, 3));
        assert!(finite(&[1.0, f64::INFINITY]).is_ok());
        assert!(finite(&[1.0, f64::NAN]).unwrap_err().to_string().contains("token 2"));
    }
}
