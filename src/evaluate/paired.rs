//! The comparison of two language models on the same windows of a text, token by token.

use super::options::PerplexityOptions;
use super::perplexity::{PerplexityReport, finite, pool, scores};
use super::reader::Reader;
use super::text_plan::Plan;
use crate::benchmark::Both;
use crate::call::{Call, Stage, Units};
use crate::error::{Context, Result, bail};
use crate::likelihood::{Judgement, judge};
use crate::meaning::{Reading, reading};
use crate::model::Model;
use crate::runtime::{Runtime, Stop};
use crate::statistics::{mean, mean_interval, percentile, sorted};
use crate::text::Tokenizer;
use serde::Serialize;
use std::time::{Duration, Instant};

/// The number of scored tokens that the bootstrap draws together, about one or two sentences.
const BLOCK: usize = 32;
/// The seed of the bootstrap, with which the same data give the same interval.
const SEED: u64 = 0;

/// A number with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Number that was estimated.
    pub value: f64,
    /// Lower end of the interval; NaN (`null` in JSON) if there are too few data.
    pub low: f64,
    /// Upper end of the interval; NaN (`null` in JSON) if there are too few data.
    pub high: f64,
}

/// The comparison of the predictions of two models for the same text.
#[derive(Debug, Clone, Serialize)]
pub struct PairedPerplexity {
    /// Perplexity of each model alone.
    #[serde(flatten)]
    pub perplexity: Both<PerplexityReport>,
    /// Perplexity of the result divided by that of the original, with a bootstrap interval over blocks of 32 tokens
    /// of the paired differences: difficult passages are difficult for both models and cancel out.
    pub ratio: Interval,
    /// Verdict: `worse` or `better` if the interval is above or below 1; otherwise `no difference`, or `too little
    /// text` without an interval.
    pub verdict: &'static str,
    /// Mean over the tokens of `KL(original ‖ result)` between the next-token distributions, in nats.
    pub kl: Interval,
    /// 99th percentile of the divergence `KL(original ‖ result)` over the tokens, in nats.
    pub kl_p99: f64,
    /// Fraction of tokens at which both models have the same most likely token.
    pub top1_agreement: f64,
}

/// Reads `text` with both models, window by window, and returns a comparison of their predictions at every scored
/// token.
///
/// Both models read the tokens of `tokenizer`, which is the original's. Only four numbers per token are kept. Memory:
/// both models and the logits of one window of each. Progress and errors are those of [`super::perplexity`]; also fails
/// with `InvalidArgument` if the vocabulary sizes differ, or if the result's own tokenizer gives its token ids another
/// meaning. An error of one model says which one it is.
pub fn compare_perplexity(
    runtime: &'static Runtime,
    original: &Model,
    result: &Model,
    tokenizer: &Tokenizer,
    text: &str,
    options: &PerplexityOptions,
    call: &Call,
) -> Result<PairedPerplexity> {
    if let Some(Reading { ids: Some(how), .. }) = reading(original, result, Some(tokenizer)).at(|| RESULT)? {
        bail!(
            InvalidArgument,
            "the original and the result have different vocabularies: {how}. They cannot be compared token by token; \
             evaluate each alone and compare their bits per byte"
        );
    }
    let plan = Plan::new(&[original, result], tokenizer, text, options)?;
    let mut units = Units::new(call, Stage::EVALUATE_TOKENS, plan.scored());
    let load = |model| Reader::new(runtime, model, options, &units.quiet());
    let (mut first, mut second) = (load(original).at(|| ORIGINAL)?, load(result).at(|| RESULT)?);
    let pool = pool(options.threads)?;
    let mut judged: Vec<Judgement> = Vec::with_capacity(plan.scored());
    let mut taken = [Duration::ZERO; 2];
    let stop = Stop::new()?;
    stop.during(&units.quiet(), || {
        for window in &plan.windows {
            let ids = plan.ids(window);
            let mut read = |reader: &mut Reader, side: usize| {
                let start = Instant::now();
                let logits = reader.read(&ids, window.scored + 1, &stop);
                taken[side] += start.elapsed();
                logits.at(|| [ORIGINAL, RESULT][side])
            };
            let (a, b) = (read(&mut first, 0)?, read(&mut second, 1)?);
            if a.vocabulary() != b.vocabulary() {
                let (a, b) = (a.vocabulary(), b.vocabulary());
                bail!(InvalidArgument, "the original has {a} tokens and the result {b}: they cannot be compared");
            }
            let score = |position, token| Ok(judge(a.at(position)?, b.at(position)?, token));
            judged.extend(pool.install(|| scores(&ids, window, a.vocabulary(), score))?);
            units.add(window.scored)?;
        }
        Ok(())
    })?;
    summarize(&plan, &judged, taken)
}

/// The name of the original in errors.
const ORIGINAL: &str = "the original";
const RESULT: &str = "the result";

fn summarize(plan: &Plan, judged: &[Judgement], taken: [Duration; 2]) -> Result<PairedPerplexity> {
    let column = |of: fn(&Judgement) -> f64| judged.iter().map(of).collect::<Vec<f64>>();
    let (original, result) = (column(|j| j.original), column(|j| j.result));
    finite(&original).at(|| ORIGINAL)?;
    finite(&result).at(|| RESULT)?;
    let differences: Vec<f64> = original.iter().zip(&result).map(|(before, after)| after - before).collect();
    let ratio = Interval::of(&differences, BLOCK).map(f64::exp);
    let kl = column(|j| j.kl);
    let agreeing = judged.iter().filter(|judgement| judgement.same_top).count();
    Ok(PairedPerplexity {
        perplexity: Both {
            original: PerplexityReport::new(plan, &original, taken[0].as_secs_f64()),
            result: PerplexityReport::new(plan, &result, taken[1].as_secs_f64()),
        },
        ratio,
        verdict: match ratio {
            Interval { low, .. } if low.is_nan() => "too little text",
            Interval { low, .. } if low > 1.0 => "worse",
            Interval { high, .. } if high < 1.0 => "better",
            _ => "no difference",
        },
        kl: Interval::of(&kl, BLOCK),
        kl_p99: percentile(&sorted(&kl), 0.99),
        top1_agreement: agreeing as f64 / judged.len().max(1) as f64,
    })
}

impl Interval {
    /// Returns the mean of consecutive values with its interval; see [`mean_interval`].
    pub(super) fn of(values: &[f64], block: usize) -> Interval {
        let (low, high) = mean_interval(values, block, SEED);
        Interval { value: mean(values), low, high }
    }

    fn map(self, change: impl Fn(f64) -> f64) -> Interval {
        Interval { value: change(self.value), low: change(self.low), high: change(self.high) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(count: usize, change: impl Fn(usize) -> f64) -> PairedPerplexity {
        let one = |i| Judgement { original: 2.0, result: 2.0 + change(i), kl: 0.1, same_top: i % 4 != 0 };
        let plan = Plan::with_windows(8, 4, 2, 16);
        let judged: Vec<Judgement> = (0..count).map(one).collect();
        summarize(&plan, &judged, [Duration::from_secs(1); 2]).unwrap()
    }

    #[test]
    fn the_ratio_is_that_of_the_perplexities_and_knows_how_sure_it_is() {
        let worse = judged(640, |i| 0.1 + (i as f64).sin());
        let Both { original, result } = &worse.perplexity;
        assert!((worse.ratio.value - result.perplexity / original.perplexity).abs() < 1e-12);
        assert!((worse.ratio.value - 1.105).abs() < 0.01 && worse.verdict == "worse", "{worse:?}");
        assert!(worse.ratio.low < worse.ratio.value && worse.ratio.value < worse.ratio.high);
        assert_eq!(judged(640, |i| (i as f64 * 0.7).sin()).verdict, "no difference");
        assert_eq!(judged(640, |_| -0.1).verdict, "better");
        assert!((worse.kl.value - 0.1).abs() < 1e-12 && worse.top1_agreement == 0.75);
    }

    #[test]
    fn too_little_text_has_no_interval_and_json_says_so() {
        let few = judged(20, |_| 0.5);
        assert_eq!(few.verdict, "too little text");
        let json = serde_json::to_value(&few).unwrap();
        assert!(json["ratio"]["low"].is_null() && json["ratio"]["value"].is_number());
        assert!(json["original"]["perplexity"].is_number() && json["result"]["tokens"] == 20);
    }
}
