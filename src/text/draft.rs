//! Speculative decoding: tokens that are cheap to draft, and that the model verifies together in one run ([`Draft`]).
//!
//! The generation loop selects every token from the logits of the model, as without a draft: with the same penalties,
//! the same sampler and the same random number for the position. A drafted token is accepted if it is the selected one;
//! then the run that verified it has also computed the logits of the next token. So a draft changes only the number of
//! runs. This requires that a run of several tokens computes the same logits as runs of one token each. This library's
//! kernels in float32 and for block-quantized weights do so bit for bit; other kernels may add in another order, which
//! changes logits by rounding.

use super::Generator;
use super::rows::{Prompt, Rows};
use super::vocabulary;
use crate::error::{Context, Result, bail};
use crate::limits;
use crate::runtime::{Placement, Stop};

/// The maximum number of drafted tokens per run if the caller sets none.
pub const DEFAULT_DRAFT_MAX: usize = 8;

/// The number of drafted tokens of the first run.
const FIRST: usize = 4;
/// The maximum number of runs without drafted tokens, after runs in which none was accepted.
const LONGEST_PAUSE: usize = 15;
/// The minimum number of tokens of a match of prompt look-up.
const SHORTEST_MATCH: usize = 2;
/// The number of tokens at which a match of prompt look-up is long enough that no longer one is searched for.
const LONGEST_MATCH: usize = 16;

/// The sources of drafted tokens of a [`Generator`]; at least one is required.
#[derive(Default)]
pub struct Draft {
    /// Draft model, a smaller one with the same vocabulary. With `lookup`, the model only drafts where the look-up
    /// finds nothing. `None` for no draft model.
    pub model: Option<Box<Generator>>,
    /// Whether tokens are drafted by prompt look-up: those that followed the longest earlier occurrence of the last
    /// tokens, in the prompt or in the generated text.
    pub lookup: bool,
    /// Maximum number of drafted tokens per run, from 1 to [`limits::DRAFT_TOKENS`]. The number per run doubles after a
    /// run in which all were accepted, and is reduced after other runs. `None` selects [`DEFAULT_DRAFT_MAX`].
    pub max: Option<usize>,
}

/// The number of runs and of drafted tokens of a generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Drafted {
    /// Number of runs of the model, of which the first one reads the prompt.
    pub steps: usize,
    /// Number of drafted tokens that were verified.
    pub drafted: usize,
    /// Number of drafted tokens that were accepted.
    pub accepted: usize,
    /// Fraction of the drafted tokens that were accepted; `None` if none were drafted.
    pub acceptance: Option<f64>,
}

impl Drafted {
    /// Returns the same numbers with their acceptance.
    pub(super) fn rated(self) -> Drafted {
        let acceptance = (self.drafted > 0).then(|| self.accepted as f64 / self.drafted as f64);
        Drafted { acceptance, ..self }
    }
}

/// A function that selects a token by its logits and the tokens before it; `None` if the selection fails.
pub type Choose<'a> = dyn FnMut(&[f32], &[i64]) -> Option<i64> + 'a;

/// A request of the generation loop for drafted tokens.
pub struct DraftRequest<'a> {
    /// Maximum number of tokens to draft.
    pub most: usize,
    /// Function that selects a token as the generation loop itself does.
    pub choose: &'a mut Choose<'a>,
    /// Function that returns whether a token ends the text.
    pub ends: &'a dyn Fn(i64) -> bool,
}

/// The sources of drafted tokens, in the order in which they are asked.
pub(super) struct Drafter {
    sources: Vec<Source>,
    /// Index of the source of the latest drafted tokens.
    latest: usize,
}

struct Source {
    /// Draft model; `None` for prompt look-up.
    model: Option<Box<Generator>>,
    pace: Pace,
}

impl Drafter {
    /// Returns the drafter of a generator.
    ///
    /// Fails with [`crate::error::Kind::InvalidArgument`] if there is no source, if the maximum is out of range, or if
    /// the draft model has another vocabulary; the message names the first difference.
    pub fn new(target: &Generator, draft: Draft) -> Result<Drafter> {
        let max = draft.max.unwrap_or(DEFAULT_DRAFT_MAX);
        if !(1..=limits::DRAFT_TOKENS).contains(&max) {
            bail!(InvalidArgument, "draft_max is {max}; it must be between 1 and {}", limits::DRAFT_TOKENS);
        }
        let mut sources = Vec::new();
        if draft.lookup {
            sources.push(Source { model: None, pace: Pace::new(max) });
        }
        if let Some(model) = draft.model {
            if let Some(how) = difference(target, &model) {
                bail!(InvalidArgument, "the model and its draft model have different vocabularies: {how}");
            }
            sources.push(Source { model: Some(model), pace: Pace::new(max) });
        }
        if sources.is_empty() {
            bail!(InvalidArgument, "a draft needs a draft model or prompt look-up");
        }
        Ok(Drafter { sources, latest: 0 })
    }

    /// Returns drafted tokens that may follow `text`, none if no source has any. Fails with an error of the draft
    /// model, also because `stop` was triggered.
    pub fn draft(&mut self, text: &[i64], request: &mut DraftRequest<'_>, stop: &Stop) -> Result<Vec<i64>> {
        for (index, source) in self.sources.iter_mut().enumerate() {
            let most = source.pace.length().min(request.most);
            let mut drafted = match &mut source.model {
                _ if most == 0 => continue,
                None => look_up(text, most),
                Some(model) => by_model(model, text, most, request, stop).at(|| "the draft model")?,
            };
            if let Some(end) = drafted.iter().position(|token| (request.ends)(*token)) {
                drafted.truncate(end + 1);
            }
            if !drafted.is_empty() {
                self.latest = index;
                return Ok(drafted);
            }
        }
        Ok(Vec::new())
    }

    /// Adapts the number of tokens to draft to the outcome of the latest drafted ones.
    pub fn learn(&mut self, drafted: usize, accepted: usize) {
        self.sources[self.latest].pace.learn(drafted, accepted);
    }

    /// Resets the sources for another text.
    pub fn reset(&mut self) {
        for source in &mut self.sources {
            source.pace = Pace::new(source.pace.max);
            source.model.iter_mut().for_each(|model| model.reset());
        }
    }

    /// Reserves capacity for `tokens` more tokens in the draft model.
    pub fn reserve(&mut self, tokens: usize) {
        for source in &mut self.sources {
            let room = tokens + source.pace.max;
            source.model.iter_mut().for_each(|model| model.reserve(room));
        }
    }

    /// Returns the provider and the device on which the draft model runs; empty without a draft model.
    pub fn placements(&self) -> Vec<&Placement> {
        self.sources.iter().filter_map(|source| source.model.as_ref()).flat_map(|model| model.placements()).collect()
    }
}

/// Returns a description of the first difference of the vocabularies of a model and its draft model; `None` if the
/// draft model has every token of the model. If one of them has no tokenizer, only the numbers of tokens are compared,
/// where both are known.
fn difference(target: &Generator, draft: &Generator) -> Option<String> {
    if let (Some(a), Some(b)) = (target.tokenizer(), draft.tokenizer()) {
        let (a, b) = (a.tokens(), b.tokens());
        return vocabulary::difference(&a, &b).or_else(|| vocabulary::missing(&a, &b));
    }
    match (target.decoder().vocabulary, draft.decoder().vocabulary) {
        (Some(a), Some(b)) if a != b => Some(format!("one has {a} tokens and the other {b}")),
        _ => None,
    }
}

/// Returns the `most` tokens that followed the longest earlier occurrence of the last tokens of `text`, of equally long
/// ones the latest; none if there is no occurrence. If fewer than `most` tokens follow the occurrence, they are
/// repeated.
fn look_up(text: &[i64], most: usize) -> Vec<i64> {
    let common = |end: usize| {
        let pairs = text[..end].iter().rev().zip(text.iter().rev());
        pairs.take(LONGEST_MATCH).take_while(|(a, b)| a == b).count()
    };
    let (mut longest, mut found) = (SHORTEST_MATCH - 1, text.len());
    for end in (SHORTEST_MATCH..text.len()).rev() {
        let length = common(end);
        if length > longest {
            (longest, found) = (length, end);
        }
        if longest == LONGEST_MATCH {
            break;
        }
    }
    let period = text.len() - found;
    (0..most).filter(|_| period > 0).map(|index| text[found + index % period]).collect()
}

/// Returns at most `most` tokens that the draft model generates after `text`; none if its context is full or it does
/// not know a token of `text`. The draft model reads only the part of `text` that it has not read before.
fn by_model(
    model: &mut Generator,
    text: &[i64],
    most: usize,
    request: &mut DraftRequest<'_>,
    stop: &Stop,
) -> Result<Vec<i64>> {
    // The draft model does not read the last token that it drafts, so that token may exceed its context.
    let longest = model.decoder().context.map_or(usize::MAX, |context| (context + 1).saturating_sub(text.len()));
    let most = most.min(longest);
    if model.row_count() != 1 {
        model.start(1)?;
    }
    let read = model.tokens(0)?;
    let same = read.iter().zip(text).take_while(|(a, b)| a == b).count();
    let wrong = read.len() - same;
    let unknown = |token: &i64| model.decoder().vocabulary.is_some_and(|size| *token >= size as i64);
    if most == 0 || text[same..].iter().any(unknown) {
        return Ok(Vec::new());
    }
    model.rewind(0, wrong)?;
    model.append(0, Prompt::Tokens(&text[same..]))?;
    let mut drafted = Vec::with_capacity(most);
    while drafted.len() < most {
        model.advance_rows(&[0], stop, &mut |_| Ok(()))?;
        let Some(token) = (request.choose)(model.next_logits(0)?, model.tokens(0)?) else { break };
        drafted.push(token);
        if (request.ends)(token) {
            break;
        }
        model.push(0, token)?;
    }
    Ok(drafted)
}

/// The number of tokens to draft, which depends on how many were accepted before.
struct Pace {
    max: usize,
    next: usize,
    /// Number of consecutive runs in which no drafted token was accepted.
    misses: u32,
    /// Number of runs until tokens are drafted again.
    pause: usize,
}

impl Pace {
    fn new(max: usize) -> Pace {
        Pace { max, next: max.min(FIRST), misses: 0, pause: 0 }
    }

    fn length(&mut self) -> usize {
        if self.pause > 0 {
            self.pause -= 1;
            return 0;
        }
        self.next
    }

    fn learn(&mut self, drafted: usize, accepted: usize) {
        if accepted == drafted {
            self.next = self.max.min(self.next * 2);
        } else {
            self.next = accepted.max(self.next / 2).max(1);
        }
        self.misses = if accepted == 0 { self.misses + 1 } else { 0 };
        // After 1, 2, 3, 4 … misses in succession, drafting pauses for 0, 1, 3, 7 … runs.
        self.pause = (1usize << self.misses.saturating_sub(1).min(8)).saturating_sub(1).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests;
