//! The perplexity of a language model on a text.

use super::options::PerplexityOptions;
use super::reader::Reader;
use super::text_plan::Plan;
use super::windows::Window;
use crate::call::{Call, Stage, Units};
use crate::error::{Result, bail};
use crate::likelihood::surprise;
use crate::model::Model;
use crate::runtime::{Runtime, SessionOptions, Stop};
use crate::statistics::mean;
use crate::text::Tokenizer;
use rayon::prelude::*;
use serde::Serialize;
use std::time::Instant;

/// The perplexity of a model on a text, and the sizes that it was computed with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PerplexityReport {
    /// Perplexity of the model, `exp(nll)`.
    pub perplexity: f64,
    /// Negative log-likelihood in nats: mean of `-ln p(token | tokens before it)` over the scored tokens.
    pub nll: f64,
    /// Bits per byte, `nll · tokens / (ln 2 · bytes)`, over the bytes of text of the scored tokens. Unlike the
    /// perplexity, they are comparable between models with different vocabularies.
    pub bits_per_byte: f64,
    /// Number of scored tokens.
    pub tokens: usize,
    /// Number of bytes of text of the scored tokens.
    pub bytes: usize,
    /// Number of windows.
    pub windows: usize,
    /// Length of a window in tokens.
    pub context_length: usize,
    /// Distance between the beginnings of two windows in tokens.
    pub stride: usize,
    /// Whether every window began with the beginning-of-sequence token.
    pub bos: bool,
    /// Wall-clock seconds of the evaluation, without loading the model; in a comparison, of the runs of this model.
    pub seconds: f64,
    /// Number of scored tokens per second.
    pub tokens_per_second: f64,
}

/// Returns the perplexity of `model` on `text`, which is read with the sliding window of [`super::windows`].
///
/// Probabilities are computed in float64. Reports the stage `evaluate`, in tokens. Memory: the model and the logits of
/// one window (only of its scored part if the model has an input `num_logits_to_keep`). The same text and options give
/// the same result for any number of threads, if the kernels of the session do.
///
/// Fails with [`crate::error::Kind::Unsupported`] if the model does not generate text; with `InvalidArgument` if the
/// options do not match it or the text is too short; with `Runtime` if a logit is NaN.
pub fn perplexity(
    runtime: &'static Runtime,
    model: &Model,
    tokenizer: &Tokenizer,
    text: &str,
    options: &PerplexityOptions,
    call: &Call,
) -> Result<PerplexityReport> {
    let plan = Plan::new(&[model], tokenizer, text, options)?;
    let mut units = Units::new(call, Stage::EVALUATE_TOKENS, plan.scored());
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
    /// Returns the report for the negative log-likelihood of each token.
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

/// Returns the result of `score` for each scored token of a window, in order. Its arguments are the position before
/// the token, whose logits predict it, and the token. Fails with `InvalidArgument` for a token beyond the vocabulary,
/// and with an error of `score`.
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

/// Checks the negative log-likelihoods of tokens. Fails with `Runtime` if one is NaN; infinite ones (of tokens with
/// probability 0) are allowed.
pub fn finite(surprises: &[f64]) -> Result<()> {
    match surprises.iter().position(|value| value.is_nan()) {
        Some(token) => bail!(Runtime, "the model's logits for scored token {} are not numbers", token + 1),
        None => Ok(()),
    }
}

/// Returns a pool of threads that compute on logits; 0 selects one thread per physical core. Fails with `Internal` if
/// they cannot be started.
pub fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    let threads = SessionOptions { threads, ..SessionOptions::default() }.thread_count();
    crate::threads::pool(threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_by_hand() {
        let plan = Plan::with_windows(8, 4, 2, 16);
        let report = PerplexityReport::new(&plan, &[2f64.ln(), 8f64.ln()], 0.5);
        assert!((report.perplexity - 4.0).abs() < 1e-12 && (report.nll - 4f64.ln()).abs() < 1e-12);
        // The two tokens have 1 bit and 3 bits, and the text has 16 bytes.
        assert!((report.bits_per_byte - 0.25).abs() < 1e-12);
        assert_eq!((report.tokens, report.tokens_per_second, report.windows), (2, 4.0, 3));
        assert!(finite(&[1.0, f64::INFINITY]).is_ok());
        assert!(finite(&[1.0, f64::NAN]).unwrap_err().to_string().contains("token 2"));
    }
}
