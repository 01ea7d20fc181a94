//! The selection of the next token by a model's logits.
//!
//! The steps have the same order as in the Hugging Face library, so that options have the same effect:
//!
//! 1. Repetition penalty `r` (Keskar et al. 2019) for every token in the prompt or the text: positive logits are
//!    divided by `r`, negative ones multiplied.
//! 2. Presence and frequency penalties for every token of the generated text (not of the prompt):
//!    `presence + frequency · count` is subtracted from the logit.
//! 3. Tokens that would repeat an n-gram of prompt and text are excluded.
//! 4. Temperature `T`: logits are divided by it. With `T = 0`, the token with the highest logit is chosen here; of
//!    several, the one with the lowest id.
//! 5. Top-k: the `k` highest remain (of equal ones, the lowest ids).
//! 6. Top-p: of those, the most probable ones, as few as together have at least the probability `p`.
//! 7. Min-p: of those, the tokens that are at least `min_p` times as probable as the most probable one.
//! 8. One of the remaining tokens is sampled in proportion to their probabilities.
//!
//! The random number of a sample depends only on seed, row and position (a counter-based generator, Salmon et al.
//! 2011), so that neither the batch nor earlier samples change it. Only the few remaining candidates are sorted.

use crate::error::{Result, bail};
use crate::model::GenerationDefaults;
use serde_json::Value;
use std::collections::HashMap;

mod numbers;

use numbers::{Candidate, draw_from_all, exp, exp_sum, highest, highest_few, nucleus, order, uniform};

/// Options for the selection of the next token. The defaults select the most probable one, without penalties.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingOptions {
    /// Temperature, by which logits are divided before sampling; 0 always selects the most probable token. `top_k`,
    /// `top_p` and `min_p` require sampling: with a temperature of 0, values that would have an effect are rejected.
    pub temperature: f32,
    /// Number of most probable tokens to sample from; 0 for all.
    pub top_k: usize,
    /// Total probability of the most probable tokens to sample from, in (0, 1]; 1 for all.
    pub top_p: f32,
    /// Minimum probability of the tokens to sample from, relative to that of the most probable one, in [0, 1]; 0 for
    /// all.
    pub min_p: f32,
    /// Repetition penalty, above 0: above 1, tokens of prompt and text become less probable, below 1 more probable; 1
    /// disables it.
    pub repetition_penalty: f32,
    /// Presence penalty: subtracted from the logits of tokens already generated, in [-2, 2]; 0 disables it.
    pub presence_penalty: f32,
    /// Frequency penalty: subtracted from the logits of tokens already generated for each occurrence, in [-2, 2]; 0
    /// disables it.
    pub frequency_penalty: f32,
    /// Length of token sequences that must not appear twice in prompt and text; 0 disables it.
    pub no_repeat_ngram_size: usize,
    /// Random seed; the same seed gives the same text for the same prompt and options.
    pub seed: u64,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        SamplingOptions {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            no_repeat_ngram_size: 0,
            seed: 0,
        }
    }
}

impl SamplingOptions {
    /// Returns the options that the model's authors recommend (`generation_config.json`). They are greedy (temperature
    /// 0) unless the authors set `do_sample`.
    pub fn recommended(defaults: &GenerationDefaults) -> SamplingOptions {
        let drawn = SamplingOptions::drawn(defaults);
        let sample = defaults.sampling.get("do_sample").and_then(Value::as_bool).unwrap_or(false);
        if sample { drawn } else { drawn.greedy() }
    }

    /// Returns the options like [`SamplingOptions::recommended`], but with sampling even if the authors do not set
    /// `do_sample`. The temperature is theirs, or 1 if they set none above 0; `top_k` is theirs, or 50 if they set
    /// none.
    pub fn drawn(defaults: &GenerationDefaults) -> SamplingOptions {
        let map = &defaults.sampling;
        let number = |key: &str, default: f32| map.get(key).and_then(Value::as_f64).map_or(default, |v| v as f32);
        let count = |key: &str| map.get(key).and_then(Value::as_u64).unwrap_or(0) as usize;
        let off = SamplingOptions::default();
        let temperature = number("temperature", 1.0);
        SamplingOptions {
            temperature: if temperature > 0.0 { temperature } else { 1.0 },
            // 50 is the default of the Hugging Face library.
            top_k: if map.contains_key("top_k") { count("top_k") } else { 50 },
            top_p: number("top_p", off.top_p),
            min_p: number("min_p", off.min_p),
            repetition_penalty: number("repetition_penalty", off.repetition_penalty),
            no_repeat_ngram_size: count("no_repeat_ngram_size"),
            ..off
        }
    }

    /// Returns the same options without sampling: the most probable token, with unchanged penalties.
    pub fn greedy(self) -> SamplingOptions {
        let SamplingOptions { temperature, top_k, top_p, min_p, .. } = SamplingOptions::default();
        SamplingOptions { temperature, top_k, top_p, min_p, ..self }
    }

    /// Fails with [`crate::error::Kind::InvalidArgument`] if an option is out of range or has no effect; the message
    /// names the option.
    pub fn check(&self) -> Result<()> {
        let ranges = [
            ("temperature", self.temperature, 0.0, f32::MAX),
            ("top_p", self.top_p, f32::MIN_POSITIVE, 1.0),
            ("min_p", self.min_p, 0.0, 1.0),
            ("repetition_penalty", self.repetition_penalty, f32::MIN_POSITIVE, f32::MAX),
            ("presence_penalty", self.presence_penalty, -2.0, 2.0),
            ("frequency_penalty", self.frequency_penalty, -2.0, 2.0),
        ];
        for (name, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                let range = match (low, high) {
                    (0.0, f32::MAX) => "0 or more".to_owned(),
                    (f32::MIN_POSITIVE, f32::MAX) => "above 0".to_owned(),
                    (f32::MIN_POSITIVE, high) => format!("above 0 and at most {high}"),
                    (low, high) => format!("between {low} and {high}"),
                };
                bail!(InvalidArgument, "{name} is {value}; it must be {range}");
            }
        }
        let filters = [
            ("top_k", self.top_k as f32, self.top_k > 1),
            ("top_p", self.top_p, self.top_p < 1.0),
            ("min_p", self.min_p, self.min_p > 0.0),
        ];
        if let Some((name, value, _)) = filters.iter().find(|(_, _, on)| *on && self.temperature == 0.0) {
            bail!(
                InvalidArgument,
                "{name} is {value}, but temperature is 0, which selects the most probable token: set a temperature \
                 above 0, or omit {name}"
            );
        }
        Ok(())
    }

    fn penalizes(&self) -> bool {
        self.repetition_penalty != 1.0
            || self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
            || self.no_repeat_ngram_size > 0
    }
}

/// The tokens of a row so far, for penalties and sampling.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Ids of all tokens, of prompt and text.
    pub tokens: &'a [i64],
    /// Number of prompt tokens.
    pub prompt: usize,
    /// Index of the row; samples of different rows are independent.
    pub row: u64,
}

/// A sampler of tokens. It keeps only memory for reuse and no state from one token to the next; each thread needs its
/// own.
pub struct Sampler {
    options: SamplingOptions,
    adjusted: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// Returns a sampler. Fails with [`crate::error::Kind::InvalidArgument`] if an option is out of range or has no
    /// effect; see [`SamplingOptions::check`].
    pub fn new(options: &SamplingOptions) -> Result<Sampler> {
        options.check()?;
        Ok(Sampler { options: options.clone(), adjusted: Vec::new(), candidates: Vec::new() })
    }

    /// Returns the id of the next token, given the logits of all tokens.
    ///
    /// Fails with [`crate::error::Kind::Runtime`] if the highest logit is not finite; `InvalidArgument` if the options
    /// leave no token to choose.
    pub fn choose(&mut self, logits: &[f32], context: &Context<'_>) -> Result<i64> {
        if !self.options.penalizes() {
            return self.draw(logits, context);
        }
        let mut adjusted = std::mem::take(&mut self.adjusted);
        adjusted.clear();
        adjusted.extend_from_slice(logits);
        penalize(&mut adjusted, context, &self.options);
        let chosen = self.draw(&adjusted, context);
        self.adjusted = adjusted;
        if chosen.is_err() && highest(logits).is_ok() {
            let size = self.options.no_repeat_ngram_size;
            bail!(InvalidArgument, "no_repeat_ngram_size {size} excludes all tokens");
        }
        chosen
    }

    fn draw(&mut self, logits: &[f32], context: &Context<'_>) -> Result<i64> {
        let (best, max) = highest(logits)?;
        // Below this temperature, the best token has all the probability that float32 can represent.
        if self.options.temperature < 1e-6 || self.options.top_k == 1 {
            return Ok(i64::from(best));
        }
        let scale = 1.0 / self.options.temperature;
        let point = uniform(self.options.seed, context.row, context.tokens.len() as u64);
        let filtered = self.options.top_p < 1.0 || self.options.min_p > 0.0;
        if self.options.top_k == 0 && !filtered {
            return Ok(i64::from(draw_from_all(logits, (best, max), scale, point)));
        }
        self.filter(logits, max, scale);
        // Candidates are ordered by id, so that the sample does not depend on how they were found.
        self.candidates.sort_unstable_by_key(|c| c.1);
        let sum: f64 = self.candidates.iter().map(|c| f64::from(c.0)).sum();
        let mut left = point * sum;
        for &(weight, id) in &self.candidates {
            left -= f64::from(weight);
            if left < 0.0 {
                return Ok(i64::from(id));
            }
        }
        Ok(i64::from(best))
    }

    /// Puts the tokens that pass top-k, top-p and min-p into `candidates`, with their weights (the best has 1).
    fn filter(&mut self, logits: &[f32], max: f32, scale: f32) {
        let SamplingOptions { top_k, top_p, min_p, .. } = self.options;
        let found = &mut self.candidates;
        let sum;
        if top_k > 0 && top_k < logits.len() {
            highest_few(logits, top_k, found);
            found.iter_mut().for_each(|c| c.0 = exp((c.0 - max) * scale));
            sum = found.iter().map(|c| f64::from(c.0)).sum();
        } else {
            sum = if top_p < 1.0 { exp_sum(logits, max, scale) } else { 0.0 };
            // All tokens below this floor together have less than 1 - p: the others are enough to reach p.
            let floor = if top_p < 1.0 { (f64::from(1.0 - top_p) * sum / logits.len() as f64) as f32 } else { min_p };
            // With the same bound on logits, slightly lowered for rounding, the exponentials of the other tokens need
            // not be computed.
            let bound = if floor > 0.0 { max + (floor.ln() - 1e-3) / scale } else { f32::MIN };
            let near = logits.iter().enumerate().filter(|(_, logit)| **logit >= bound);
            found.clear();
            found.extend(near.map(|(id, logit)| (exp((logit - max) * scale), id as u32)));
            found.retain(|c| c.0 >= floor);
        }
        if top_p < 1.0 {
            nucleus(found, f64::from(top_p) * sum);
        }
        found.retain(|c| c.0 >= min_p);
    }
}

/// Applies the penalties and the ban on repeated n-grams, which are steps 1 to 3.
fn penalize(logits: &mut [f32], context: &Context<'_>, options: &SamplingOptions) {
    let place = |token: &i64| usize::try_from(*token).ok().filter(|id| *id < logits.len());
    let mut seen: Vec<usize> = Vec::new();
    if options.repetition_penalty != 1.0 {
        seen = context.tokens.iter().filter_map(place).collect();
        seen.sort_unstable();
        seen.dedup();
    }
    let mut counts: HashMap<usize, f32> = HashMap::new();
    if options.presence_penalty != 0.0 || options.frequency_penalty != 0.0 {
        let written = &context.tokens[context.prompt.min(context.tokens.len())..];
        written.iter().filter_map(place).for_each(|id| *counts.entry(id).or_default() += 1.0);
    }
    let banned: Vec<usize> = repeating(context.tokens, options.no_repeat_ngram_size).iter().filter_map(place).collect();
    for id in seen {
        let (logit, penalty) = (logits[id], options.repetition_penalty);
        logits[id] = if logit > 0.0 { logit / penalty } else { logit * penalty };
    }
    for (id, count) in counts {
        logits[id] -= options.presence_penalty + options.frequency_penalty * count;
    }
    for id in banned {
        logits[id] = f32::NEG_INFINITY;
    }
}

/// Returns the tokens that would complete a sequence of `size` tokens that `tokens` already contains.
fn repeating(tokens: &[i64], size: usize) -> Vec<i64> {
    if size == 0 || tokens.len() < size {
        return Vec::new();
    }
    let end = &tokens[tokens.len() - (size - 1)..];
    tokens.windows(size).filter(|gram| &gram[..size - 1] == end).map(|gram| gram[size - 1]).collect()
}

/// A token and the natural logarithm of its probability.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Logprob {
    /// Id of the token.
    pub token: i64,
    /// Natural logarithm of the probability by the unmodified logits: without penalties, temperature or filters.
    pub logprob: f32,
}

/// The log-probabilities at one position of a text.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Logprobs {
    /// Log-probability of the selected token.
    pub chosen: Logprob,
    /// Log-probabilities of the most probable tokens, best first: as many as requested, except tokens of probability 0.
    pub top: Vec<Logprob>,
}

/// Returns the log-probabilities of `token` and of the `top` most probable tokens under `logits`.
///
/// Fails with [`crate::error::Kind::Runtime`] if the highest logit is not finite, `InvalidArgument` if `token` has no
/// logit.
pub fn logprobs(logits: &[f32], token: i64, top: usize) -> Result<Logprobs> {
    let (_, max) = highest(logits)?;
    let Some(&logit) = usize::try_from(token).ok().and_then(|id| logits.get(id)) else {
        bail!(InvalidArgument, "token {token} is not among the model's {} logits", logits.len());
    };
    let total = exp_sum(logits, max, 1.0).ln();
    let of = |logit: f32| (f64::from(logit) - f64::from(max) - total) as f32;
    let mut best = Vec::new();
    if top > 0 {
        highest_few(logits, top, &mut best);
        best.sort_unstable_by(order);
    }
    let top = best.into_iter().map(|(logit, id)| Logprob { token: i64::from(id), logprob: of(logit) }).collect();
    Ok(Logprobs { chosen: Logprob { token, logprob: of(logit) }, top })
}

#[cfg(test)]
mod tests;
