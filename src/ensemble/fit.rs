//! The fit of the weights of the members to a text ([`Ensemble::fit`]).
//!
//! For a mean of probabilities the log-likelihood `Σ_n ln Σ_m w_m p_nm` is concave in `w`, and depends only on each
//! member's probability of the actual token: expectation maximization (Dempster, Laird, Rubin 1977, for mixture
//! weights) converges to its only maximum. The distance of `w` from the optimum is bounded by `ln max_m 1/N Σ_n p_nm /
//! p_n`, with `p_n` of the mixture; the search ends when that is nearly zero.
//!
//! For logits and products the likelihood is that of a log-linear model, which is also concave. There the weights
//! follow the exponentiated gradient (Kivinen, Warmuth 1997). Its step is doubled after each iteration that does not
//! increase the loss, and otherwise divided by four.

use super::{Ensemble, Method, name_of, place};
use crate::call::{Call, Stage};
use crate::error::{Context, Result, bail};
use crate::evaluate::reader::Reader;
use crate::evaluate::text_plan::Plan;
use crate::evaluate::{self, PerplexityOptions};
use crate::likelihood::log_sum_exp;
use crate::model::Task;
use crate::runtime::{Runtime, Stop};
use rayon::prelude::*;
use serde::Serialize;

/// The default number of tokens of the text to read.
const TOKENS: usize = 8192;
/// The size in bytes of the logits of all members from which on no further window is read, for methods that need all
/// logits.
const KEPT_BYTES: usize = 256 << 20;
/// The distance of the log-likelihood per token from the optimum at which the search ends, in nats.
const CLOSE: f64 = 1e-6;
/// The maximum number of iterations of a search.
const ROUNDS: usize = 10_000;
/// The maximum number of iterations of a search in which each is a pass over all logits.
const SLOW_ROUNDS: usize = 60;

/// Options for reading the text; see [`PerplexityOptions`]. A `max_tokens` of 0 selects 8,192.
pub type FitOptions = PerplexityOptions;

/// The fitted weights, with the losses of members and ensemble.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FitReport {
    /// Weights of the members; their sum is 1.
    pub weights: Vec<f64>,
    /// Mean `-ln p` per token of each member alone, in nats.
    pub member_nll: Vec<f64>,
    /// Mean `-ln p` per token of the ensemble with equal weights, in nats.
    pub equal_nll: f64,
    /// Mean `-ln p` per token of the ensemble with the fitted weights, in nats.
    pub fitted_nll: f64,
    /// Upper bound of the improvement that other weights could achieve, in nats per token.
    pub gap: f64,
    /// Number of tokens that the weights were fitted on.
    pub tokens: usize,
}

impl Ensemble {
    /// Fits the weights to `text`; the temperatures are unchanged. Returns the ensemble with these weights, and a
    /// report.
    ///
    /// Members are loaded one after another. Progress stage: `fit`, in tokens, counted once per member. For the methods
    /// `logits` and `product`, fewer tokens are used if the logits would take more than 256 MiB. Fails with
    /// [`crate::error::Kind::Unsupported`] for members that do not generate text or have different vocabularies, and
    /// for methods other than `mean`, `weighted`, `logits` and `product`. Fails with `NotFound` if no member has a
    /// tokenizer, with `InvalidArgument` if the text is too short or has a token for which a member has no logit, with
    /// `Runtime` if a logit is NaN, with `Cancelled` or `Timeout`, and if a member cannot be loaded or run.
    pub fn fit(
        &self,
        runtime: &'static Runtime,
        text: &str,
        options: &FitOptions,
        call: &Call,
    ) -> Result<(Ensemble, FitReport)> {
        let method = self.options.method;
        if self.task != Task::Generate || matches!(self.vocabularies, super::Vocabularies::Different(_)) {
            bail!(Unsupported, "weights can only be fitted for text generation with one vocabulary");
        }
        let Some(tokenizer) = self.tokenizer()? else {
            bail!(NotFound, "no member has a tokenizer.json for the text");
        };
        let mut options = options.clone();
        if options.max_tokens == 0 {
            options.max_tokens = TOKENS;
        }
        let models: Vec<_> = self.members.iter().map(|member| &member.model).collect();
        let plan = Plan::new(&models, &tokenizer, text, &options)?;
        let report = match method {
            Method::Mean | Method::Weighted => mixture(&self.read(runtime, &plan, &options, 0, call)?),
            Method::Logits | Method::Product => {
                let read = self.read(runtime, &plan, &options, KEPT_BYTES / self.members.len(), call)?;
                log_linear(&read, method == Method::Product, options.threads, call)?
            }
            other => bail!(Unsupported, "the method `{}` has no weights to fit", name_of(other)),
        };
        Ok((self.with_weights(&report.weights)?, report))
    }

    /// Reads the text with each member, and returns the members' probabilities. About `keep` bytes of each member's
    /// logits are kept; with 0, none are.
    fn read(
        &self,
        runtime: &'static Runtime,
        plan: &Plan,
        options: &FitOptions,
        keep: usize,
        call: &Call,
    ) -> Result<Vec<Reading>> {
        let total = (plan.scored() * self.members.len()) as u64;
        let mut done = 0;
        let mut readings = Vec::with_capacity(self.members.len());
        let stop = Stop::new()?;
        let quiet = Call { progress: None, deadline: call.deadline, cancel: call.cancel };
        for (index, member) in self.members.iter().enumerate() {
            let mut reader = Reader::new(runtime, &member.model, options, &quiet).at(|| place(index))?;
            let mut reading = Reading::default();
            for window in &plan.windows {
                if keep > 0 && reading.logits.len() * 4 >= keep {
                    break;
                }
                let ids = plan.ids(window);
                let logits = stop.during(&quiet, || reader.read(&ids, window.scored + 1, &stop)).at(|| place(index))?;
                for (position, id) in ids.iter().enumerate().skip(ids.len() - window.scored) {
                    let row = logits.at(position - 1)?;
                    let Some(token) = usize::try_from(*id).ok().filter(|token| *token < row.len()) else {
                        bail!(InvalidArgument, "{}: there is no logit of token {id}", place(index));
                    };
                    reading.add(row, token, member.temperature, keep > 0);
                }
                done += window.scored as u64;
                call.report(Stage::FIT, done, total)?;
            }
            if reading.logs.iter().any(|log| log.is_nan()) {
                bail!(Runtime, "{}: a logit is not a number", place(index));
            }
            readings.push(reading);
        }
        Ok(readings)
    }
}

/// The probabilities of a member on a text.
#[derive(Debug, Default)]
struct Reading {
    /// Log-probability `ln p` of each token.
    logs: Vec<f64>,
    /// Tokens of the text.
    tokens: Vec<usize>,
    /// Logits divided by the temperature, row by row, if they are kept.
    logits: Vec<f32>,
}

impl Reading {
    fn add(&mut self, row: &[f32], token: usize, temperature: f64, keep: bool) {
        let scaled: Vec<f64> = row.iter().map(|logit| f64::from(*logit) / temperature).collect();
        self.logs.push(scaled[token] - log_sum_exp(&scaled));
        self.tokens.push(token);
        if keep {
            self.logits.extend(scaled.iter().map(|logit| *logit as f32));
        }
    }

    fn nll(&self) -> f64 {
        -self.logs.iter().sum::<f64>() / self.logs.len().max(1) as f64
    }
}

/// Returns the best weights of a mean of probabilities, as a report.
fn mixture(readings: &[Reading]) -> FitReport {
    let (members, count) = (readings.len(), readings[0].logs.len());
    // Probabilities are relative to that of the best member, so that nothing underflows.
    let best: Vec<f64> =
        (0..count).map(|n| readings.iter().map(|r| r.logs[n]).fold(f64::NEG_INFINITY, f64::max)).collect();
    let rows: Vec<Vec<f64>> =
        (0..count).map(|n| readings.iter().map(|r| (r.logs[n] - best[n]).exp()).collect()).collect();
    let nll = |weights: &[f64]| -> f64 {
        let log = |(row, best): (&Vec<f64>, &f64)| best + row.iter().zip(weights).map(|(p, w)| p * w).sum::<f64>().ln();
        -rows.iter().zip(&best).map(log).sum::<f64>() / count as f64
    };
    let mut weights = vec![1.0 / members as f64; members];
    let equal_nll = nll(&weights);
    let mut gap = f64::INFINITY;
    for _ in 0..ROUNDS {
        let mut share = vec![0.0; members];
        for row in &rows {
            let sum: f64 = row.iter().zip(&weights).map(|(p, w)| p * w).sum();
            share.iter_mut().zip(row).for_each(|(share, p)| *share += p / sum);
        }
        share.iter_mut().for_each(|share| *share /= count as f64);
        gap = share.iter().copied().fold(0.0, f64::max).ln().max(0.0);
        if gap < CLOSE {
            break;
        }
        weights.iter_mut().zip(&share).for_each(|(weight, share)| *weight *= share);
        normalize(&mut weights);
    }
    let member_nll = readings.iter().map(Reading::nll).collect();
    FitReport { fitted_nll: nll(&weights), weights, member_nll, equal_nll, gap, tokens: count }
}

/// The logits of all members for the tokens of a text.
struct Rows<'r> {
    readings: &'r [Reading],
    /// Number of tokens of the text.
    count: usize,
    /// Number of logits per token.
    size: usize,
    /// Factor of the weighted sum of logits: the number of members for a product, otherwise 1.
    power: f64,
}

impl Rows<'_> {
    fn row(&self, member: usize, token: usize) -> &[f32] {
        let Reading { logits, logs, .. } = &self.readings[member];
        let width = logits.len() / logs.len().max(1);
        &logits[token * width..token * width + self.size]
    }

    /// Returns the loss of one token with these weights, and the gradient of the loss.
    fn token(&self, token: usize, weights: &[f64]) -> (f64, Vec<f64>) {
        let rows: Vec<&[f32]> = (0..self.readings.len()).map(|member| self.row(member, token)).collect();
        let mut sums = vec![0.0; self.size];
        for (row, weight) in rows.iter().zip(weights).filter(|(_, weight)| **weight > 0.0) {
            sums.iter_mut().zip(*row).for_each(|(sum, logit)| *sum += self.power * weight * f64::from(*logit));
        }
        let norm = log_sum_exp(&sums);
        let came = self.readings[0].tokens[token];
        let loss = norm - sums[came];
        sums.iter_mut().for_each(|sum| *sum = (*sum - norm).exp());
        let slope = |row: &&[f32]| {
            let mean: f64 = sums.iter().zip(*row).filter(|(p, _)| **p > 0.0).map(|(p, l)| p * f64::from(*l)).sum();
            self.power * (mean - f64::from(row[came]))
        };
        (loss, rows.iter().map(slope).collect())
    }

    /// Returns the mean loss over the tokens, and the gradient of the mean.
    fn loss(&self, weights: &[f64]) -> (f64, Vec<f64>) {
        let none = || (0.0, vec![0.0; weights.len()]);
        let add = |(a, mut b): (f64, Vec<f64>), (c, d): (f64, Vec<f64>)| {
            b.iter_mut().zip(d).for_each(|(b, d)| *b += d);
            (a + c, b)
        };
        // The sums of chunks are added in a fixed order, so that they do not depend on the number of threads.
        let parts: Vec<(f64, Vec<f64>)> = (0..self.count.div_ceil(32))
            .into_par_iter()
            .map(|chunk| {
                let tokens = chunk * 32..self.count.min(chunk * 32 + 32);
                tokens.map(|token| self.token(token, weights)).fold(none(), add)
            })
            .collect();
        let (sum, slopes) = parts.into_iter().fold(none(), add);
        let count = self.count as f64;
        (sum / count, slopes.into_iter().map(|slope| slope / count).collect())
    }
}

/// Returns the best weights of a mean of logits, or of a product, as a report.
fn log_linear(readings: &[Reading], product: bool, threads: usize, call: &Call) -> Result<FitReport> {
    let members = readings.len();
    let count = readings.iter().map(|r| r.logs.len()).min().unwrap_or(0);
    let size = readings.iter().map(|r| r.logits.len() / r.logs.len().max(1)).min().unwrap_or(0);
    let rows = Rows { readings, count, size, power: if product { members as f64 } else { 1.0 } };
    let pool = evaluate::pool(threads)?;
    let loss = |weights: &[f64]| pool.install(|| rows.loss(weights));
    let mut weights = vec![1.0 / members as f64; members];
    let (equal_nll, mut slopes) = loss(&weights);
    let (mut least, mut step, mut gap) = (equal_nll, 1.0, f64::INFINITY);
    for _ in 0..SLOW_ROUNDS {
        call.check()?;
        // For a convex function on the simplex, the line to the best corner bounds the remaining loss.
        let here: f64 = weights.iter().zip(&slopes).map(|(w, s)| w * s).sum();
        gap = (here - slopes.iter().copied().fold(f64::INFINITY, f64::min)).max(0.0);
        if gap < CLOSE || step < 1e-9 {
            break;
        }
        let mut tried: Vec<f64> = weights.iter().zip(&slopes).map(|(w, s)| w * (-step * (s - here)).exp()).collect();
        normalize(&mut tried);
        let (found, there) = loss(&tried);
        if found <= least {
            (weights, slopes, least) = (tried, there, found);
            step *= 2.0;
        } else {
            step /= 4.0;
        }
    }
    let member_nll = readings.iter().map(|r| -r.logs[..count].iter().sum::<f64>() / count.max(1) as f64).collect();
    Ok(FitReport { weights, member_nll, equal_nll, fitted_nll: least, gap, tokens: count })
}

fn normalize(weights: &mut [f64]) {
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(rows: &[(&[f32], usize)]) -> Reading {
        let mut reading = Reading::default();
        rows.iter().for_each(|(row, token)| reading.add(row, *token, 1.0, true));
        reading
    }

    /// Returns the smallest loss of a mean of probabilities on a grid of weights.
    fn best_on_a_grid(loss: impl Fn(f64) -> f64) -> f64 {
        (0..=10_000).map(|i| f64::from(i) / 10_000.0).min_by(|a, b| loss(*a).total_cmp(&loss(*b))).unwrap()
    }

    #[test]
    fn weights_are_the_best_there_are() {
        let a: [&[f32]; 4] = [&[3.0, 0.0, 0.0], &[0.0, 2.0, 0.0], &[1.0, 0.0, 0.5], &[2.0, 2.0, 0.0]];
        let b: [&[f32]; 4] = [&[0.0, 1.0, 0.0], &[0.0, 3.0, 1.0], &[0.0, 0.0, 2.0], &[0.0, 0.0, 3.0]];
        let tokens = [0, 1, 2, 0];
        let pair = |rows: [&'static [f32]; 4]| reading(&rows.into_iter().zip(tokens).collect::<Vec<_>>());
        let readings = [pair(a), pair(b)];
        let p = |m: usize, n: usize| readings[m].logs[n].exp();
        let report = mixture(&readings);
        let mean = |w: f64| -(0..4).map(|n| (w * p(0, n) + (1.0 - w) * p(1, n)).ln()).sum::<f64>() / 4.0;
        let best = best_on_a_grid(mean);
        assert!((report.weights[0] - best).abs() < 2e-3 && report.gap < 1e-5, "{report:?} {best}");
        assert!((report.fitted_nll - mean(report.weights[0])).abs() < 1e-12 && report.fitted_nll < report.equal_nll);
        for product in [false, true] {
            let report = log_linear(&readings, product, 1, &Call::default()).unwrap();
            let power = if product { 2.0 } else { 1.0 };
            let loss = |w: f64| -> f64 {
                let token = |n: usize| {
                    let sums: Vec<f64> =
                        (0..3).map(|i| power * (w * f64::from(a[n][i]) + (1.0 - w) * f64::from(b[n][i]))).collect();
                    log_sum_exp(&sums) - sums[tokens[n]]
                };
                (0..4).map(token).sum::<f64>() / 4.0
            };
            let best = best_on_a_grid(loss);
            assert!((report.weights[0] - best).abs() < 1e-2, "{report:?} {best}");
            assert!((report.fitted_nll - loss(report.weights[0])).abs() < 1e-9);
        }
    }
}
