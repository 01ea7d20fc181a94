//! The generation of text: the loop from prompt to answer.
//!
//! ```no_run
//! # use optimize::{call::Call, error::Result, model::Model, runtime::*, text::*};
//! # fn main() -> Result<()> {
//! let model = Model::load("SmolLM2-135M-Instruct.Q4_1.gguf".as_ref())?;
//! let mut generator = Generator::new(Runtime::open(None)?, &model, &SessionOptions::default(), &Call::default())?;
//! let prompt = Prompt::Text("The capital of France is");
//! let answers = generator.generate(&[prompt], &GenerateOptions::default(), None, &Call::default())?;
//! println!("{}", answers[0].text);
//! # Ok(()) }
//! ```

pub use super::generation::{DEFAULT_NEW_TOKENS, FinishReason, GenerateOptions, Generation, OnToken, Written};

use super::draft::DraftRequest;
use super::generation::Uncertainty;
use super::rows::{Prompt, Rows};
use super::sampler::{self, Logprobs, Sampler};
use super::stream::StopFinder;
use crate::call::{Call, REPORTS_PER_SECOND, Stage};
use crate::counters::PROCESS;
use crate::error::{Context, Result, bail};
use crate::runtime::Stop;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// The maximum number of cache columns that are allocated in advance; the cache grows if more are needed.
const MOST_ROOM: usize = 512;

impl dyn Rows + '_ {
    /// Generates a text after each prompt and returns the generations. Fails like
    /// [`Generator::generate`](super::Generator::generate), which describes the arguments.
    pub fn generate(
        &mut self,
        prompts: &[Prompt<'_>],
        options: &GenerateOptions,
        on_token: Option<&mut OnToken<'_>>,
        call: &Call,
    ) -> Result<Vec<Generation>> {
        generate(self, prompts, options, on_token, call)
    }
}

/// Generates a text after each prompt and returns the generations; see
/// [`Generator::generate`](super::Generator::generate).
pub(crate) fn generate(
    rows: &mut dyn Rows,
    prompts: &[Prompt<'_>],
    options: &GenerateOptions,
    on_token: Option<&mut OnToken<'_>>,
    call: &Call,
) -> Result<Vec<Generation>> {
    rows.start(prompts.len())?;
    for (row, prompt) in prompts.iter().enumerate() {
        rows.append(row, *prompt).at(|| format!("prompt {}", row + 1))?;
    }
    rows.run(options, on_token, call)
}

/// Continues all rows and returns their generations; see [`Generator::run`](super::Generator::run).
pub(crate) fn run(
    rows: &mut dyn Rows,
    options: &GenerateOptions,
    on_token: Option<&mut OnToken<'_>>,
    call: &Call,
) -> Result<Vec<Generation>> {
    let mut sampler = Sampler::new(&options.sampling)?;
    if rows.tokenizer().is_none() && !options.stop.is_empty() {
        bail!(InvalidArgument, "stop strings need a tokenizer, and the model has none");
    }
    let mut writers =
        (0..rows.row_count()).map(|row| Writer::new(rows, row, options)).collect::<Result<Vec<Writer>>>()?;
    let longest = writers.iter().map(|w| w.limit - w.prompt).max().unwrap_or(0);
    rows.reserve(longest.min(MOST_ROOM));
    let mut reports = Reports::new(call, &writers);
    let stop = Stop::new()?;
    let mut tell = on_token;
    stop.during(call, || {
        loop {
            let active: Vec<usize> = (0..writers.len()).filter(|row| writers[*row].finish.is_none()).collect();
            if active.is_empty() {
                return Ok(());
            }
            for row in &active {
                writers[*row].draft(rows, &mut sampler, options, &stop)?;
            }
            rows.advance_rows(&active, &stop, &mut |tokens| reports.ran(tokens))?;
            for row in active {
                let flow = writers[row].write(rows, &mut sampler, options, tell.as_deref_mut())?;
                if flow.is_break() {
                    return writers.iter_mut().try_for_each(|writer| writer.cancel(rows));
                }
            }
            reports.wrote(writers.iter().map(|w| w.tokens.len()).sum())?;
        }
    })?;
    Ok(writers.into_iter().map(Writer::finish).collect())
}

/// Returns the maximum number of tokens in a row that now has `length` tokens, if the model reads at most `context`.
/// Fails with `InvalidArgument` if the row is already too long.
fn limit(length: usize, context: Option<usize>, options: &GenerateOptions) -> Result<usize> {
    let mut limit = match (options.max_new_tokens, options.max_length) {
        (None, None) => length + DEFAULT_NEW_TOKENS,
        (new, all) => new.map_or(usize::MAX, |new| length.saturating_add(new)).min(all.unwrap_or(usize::MAX)),
    };
    if let Some(max) = options.max_length.filter(|max| length > *max) {
        bail!(InvalidArgument, "the prompt already has {length} tokens; max_length is {max} and includes them");
    }
    if let Some(context) = context {
        if length > context {
            bail!(InvalidArgument, "the prompt has {length} tokens; the limit of the model is {context}");
        }
        limit = limit.min(context);
    }
    Ok(limit)
}

/// The state of a row while its text is generated.
struct Writer {
    row: usize,
    prompt: usize,
    /// Maximum number of tokens in the row.
    limit: usize,
    eos: Vec<i64>,
    finder: StopFinder,
    /// Texts of special tokens that the text does not show, for the stop finder, by id.
    hidden: HashMap<i64, String>,
    text: String,
    tokens: Vec<i64>,
    logprobs: Vec<Logprobs>,
    uncertainty: Vec<Uncertainty>,
    finish: Option<FinishReason>,
}

impl Writer {
    fn new(rows: &mut dyn Rows, row: usize, options: &GenerateOptions) -> Result<Writer> {
        let place = || format!("row {}", row + 1);
        let prompt = rows.tokens(row)?.len();
        if prompt == 0 {
            bail!(InvalidArgument, "{}: the prompt is empty", place());
        }
        let limit = limit(prompt, rows.context(), options).at(place)?;
        let text = rows.begin_text(row, options.keep_special_tokens, options.echo).at(place)?;
        let finder = StopFinder::new(&options.stop);
        let hides = !finder.is_idle() && !options.keep_special_tokens;
        let hidden = rows.tokenizer().filter(|_| hides).map(|tokenizer| tokenizer.special_tokens());
        Ok(Writer {
            row,
            prompt,
            limit,
            eos: options.eos_token_ids.clone().unwrap_or_else(|| rows.defaults().eos_token_ids.clone()),
            finder,
            hidden: hidden.unwrap_or_default(),
            text,
            tokens: Vec::new(),
            logprobs: Vec::new(),
            uncertainty: Vec::new(),
            finish: (limit <= prompt).then_some(FinishReason::Length),
        })
    }

    /// Lets the row draft tokens, which are selected as those of the text are. Nothing is drafted before the first
    /// generated token.
    fn draft(&self, rows: &mut dyn Rows, sampler: &mut Sampler, options: &GenerateOptions, stop: &Stop) -> Result<()> {
        // The run of the last token itself gives one more token.
        let most = (self.limit - self.prompt - self.tokens.len()).saturating_sub(1);
        if self.tokens.is_empty() || most == 0 {
            return Ok(());
        }
        let (prompt, row) = (self.prompt, options.first_row + self.row as u64);
        let mut choose =
            |logits: &[f32], tokens: &[i64]| sampler.choose(logits, &sampler::Context { tokens, prompt, row }).ok();
        let ends = |token: i64| self.eos.contains(&token) || options.stop_tokens.contains(&token);
        rows.draft(self.row, &mut DraftRequest { most, choose: &mut choose, ends: &ends }, stop)
    }

    /// Selects the next token of the row, appends it and reports it to `tell`. Returns `Break` if `tell` ends the
    /// generation.
    fn write(
        &mut self,
        rows: &mut dyn Rows,
        sampler: &mut Sampler,
        options: &GenerateOptions,
        tell: Option<&mut OnToken<'_>>,
    ) -> Result<ControlFlow<()>> {
        let logits = rows.next_logits(self.row)?;
        let context = sampler::Context {
            tokens: rows.tokens(self.row)?,
            prompt: self.prompt,
            row: options.first_row + self.row as u64,
        };
        let token = sampler.choose(logits, &context)?;
        let logprobs = options.logprobs.map(|top| sampler::logprobs(logits, token, top)).transpose()?;
        let uncertainty = rows.uncertainty(self.row, token);
        rows.push(self.row, token)?;
        self.tokens.push(token);
        let ended = self.eos.contains(&token);
        let stopped = options.stop_tokens.contains(&token);
        // The end-of-sequence token has a name in the vocabulary but is never text.
        let silent = stopped || ended && !options.keep_special_tokens;
        let (mut piece, found) = if silent { (String::new(), false) } else { self.piece(rows, token)? };
        let full = self.prompt + self.tokens.len() >= self.limit;
        self.finish = match () {
            () if found || stopped => Some(FinishReason::Stop),
            () if ended => Some(FinishReason::Eos),
            () if full => Some(FinishReason::Length),
            () => None,
        };
        if self.finish.is_some() && !found {
            piece += &self.rest(rows)?;
        }
        self.text += &piece;
        let (logprob, finish_reason) = (logprobs.as_ref(), self.finish);
        let written = Written { row: self.row, token, text: &piece, logprobs: logprob, uncertainty, finish_reason };
        let flow = tell.map_or(ControlFlow::Continue(()), |tell| tell(&written));
        self.logprobs.extend(logprobs);
        self.uncertainty.extend(uncertainty);
        Ok(flow)
    }

    /// Returns the text that a token completes, and whether a stop string was found in it.
    fn piece(&mut self, rows: &mut dyn Rows, token: i64) -> Result<(String, bool)> {
        let piece = rows.piece(self.row, token)?;
        if self.finder.is_idle() {
            return Ok((piece, false));
        }
        let hidden = self.hidden.get(&token).map_or("", String::as_str);
        Ok(self.finder.push(&piece, hidden, &rows.open_text(self.row)?))
    }

    /// Returns the text that the stop finder and the decoder held back, because no token follows.
    fn rest(&mut self, rows: &mut dyn Rows) -> Result<String> {
        Ok(self.finder.finish() + &rows.end_text(self.row)?)
    }

    fn cancel(&mut self, rows: &mut dyn Rows) -> Result<()> {
        if self.finish.is_none() {
            self.finish = Some(FinishReason::Cancelled);
            let rest = self.rest(rows)?;
            self.text += &rest;
        }
        Ok(())
    }

    fn finish(self) -> Generation {
        PROCESS.generated_tokens.add(self.tokens.len() as u64);
        Generation {
            text: self.text,
            tokens: self.tokens,
            logprobs: self.logprobs,
            mean_uncertainty: Uncertainty::mean(&self.uncertainty),
            uncertainty: self.uncertainty,
            finish_reason: self.finish.unwrap_or(FinishReason::Cancelled),
            prompt_tokens: self.prompt,
            draft: None,
        }
    }
}

/// The progress of a run, which is reported with a limited frequency, and at the beginning of each stage.
struct Reports<'a> {
    call: &'a Call<'a>,
    read: u64,
    prompt: u64,
    total: u64,
    /// The stage of the last report, and the time of the next one in that stage.
    last: Option<(Stage, Instant)>,
}

impl<'a> Reports<'a> {
    fn new(call: &'a Call<'a>, writers: &[Writer]) -> Reports<'a> {
        let prompt = writers.iter().map(|w| w.prompt as u64).sum();
        let total = writers.iter().fold(0u64, |sum, w| sum.saturating_add((w.limit - w.prompt) as u64));
        Reports { call, read: 0, prompt, total, last: None }
    }

    /// Counts tokens that were run: as read tokens of the prompts, until all of these have been read.
    fn ran(&mut self, tokens: usize) -> Result<()> {
        self.read += tokens as u64;
        if self.read > self.prompt {
            return self.call.check();
        }
        self.report(Stage::PROMPT, self.read, self.prompt)
    }

    fn wrote(&mut self, tokens: usize) -> Result<()> {
        self.report(Stage::GENERATE, tokens as u64, self.total)
    }

    fn report(&mut self, stage: Stage, done: u64, total: u64) -> Result<()> {
        let now = Instant::now();
        if self.last.is_some_and(|(last, next)| last == stage && now < next) {
            return self.call.check();
        }
        self.last = Some((stage, now + Duration::from_secs(1) / REPORTS_PER_SECOND));
        self.call.report(stage, done, total)
    }
}

#[cfg(test)]
mod tests;
