//! A decoder with its rows of text ([`Generator`]).

use super::Tokenizer;
use super::decoder::{CacheKind, Decoder};
use super::draft::{DraftRequest, Drafter};
use super::generate::{self, GenerateOptions, Generation, OnToken};
use super::kv_cache::{Cache, Read, RowLogits};
use super::rows::{Prompt, RowTexts, Rows};
use super::stream::RowText;
use crate::call::Call;
use crate::counters::PROCESS;
use crate::error::{Context, Result, bail, error};
use crate::limits;
use crate::model::{GenerationDefaults, Model};
use crate::runtime::{Placement, Runtime, Session, SessionOptions, Stop};
use speculate::Ahead;
use std::sync::Arc;

mod speculate;

/// The number of prompt tokens per run. A longer prompt takes several runs: that limits the memory of attention and
/// logits, and is faster, too (SmolLM2, 2048 tokens, one thread: 4.7 s of CPU time in runs of 256, 5.2 of 512, 6.3 at
/// once).
const CHUNK: usize = 256;
/// The number of cache columns beyond the prompt if it is not known how much will be generated.
const ROOM: usize = 64;

/// A decoder with rows of text: their tokens and their cache. It may move between threads, and runs one call at a time.
///
/// [`Generator::generate`] does everything at once. In steps, [`Generator::start`] makes the rows,
/// [`Generator::append`] adds prompts, and [`Generator::run`] generates. Appending and running again continues the same
/// text, for which only the new tokens are read. Programs that choose tokens themselves use [`Generator::advance`],
/// [`Generator::next_logits`], [`Generator::push`] and [`Generator::rewind`].
///
/// Rows are independent: a row's tokens are the same alone and in a batch, with two exceptions. Kernels may add in
/// another order for several rows, which changes logits by rounding and can decide ties. Activations that are quantized
/// over the whole batch have other scales.
pub struct Generator {
    session: Session,
    decoder: Decoder,
    tokenizer: Option<Arc<Tokenizer>>,
    defaults: GenerationDefaults,
    cache: Cache,
    rows: Vec<Row>,
    drafter: Option<Drafter>,
}

/// A row: its tokens and its text.
struct Row {
    /// Ids of all tokens of the row, read and generated.
    tokens: Vec<i64>,
    /// Logits after the last token; `None` if it has not been run yet.
    logits: Option<RowLogits>,
    /// Generated text of the row, which continues if a run ended in the middle of a character.
    text: RowText,
    ahead: Ahead,
}

impl Generator {
    /// Loads a model for generation, with its tokenizer if it has one, and returns the generator.
    ///
    /// Fails with [`crate::error::Kind::Unsupported`] if the model is not a supported decoder; otherwise like
    /// [`Session::new`] and [`Tokenizer::of`].
    pub fn new(runtime: &'static Runtime, model: &Model, options: &SessionOptions, call: &Call) -> Result<Generator> {
        let tokenizer = Tokenizer::of(model)?.map(Arc::new);
        Generator::with_own_tokenizer(runtime, model, tokenizer, options, call)
    }

    /// Returns a generator like [`Generator::new`], with a tokenizer that is already loaded, or without one: then
    /// prompts must be token ids, and texts are empty. Fails like [`Generator::new`].
    pub fn with_own_tokenizer(
        runtime: &'static Runtime,
        model: &Model,
        tokenizer: Option<Arc<Tokenizer>>,
        options: &SessionOptions,
        call: &Call,
    ) -> Result<Generator> {
        let place = || model.path().map_or_else(|| "model".to_owned(), |path| path.display().to_string());
        let mut decoder = Decoder::of(model).at(place)?;
        let options = SessionOptions { varying_sizes: true, ..options.clone() };
        let session = Session::new(runtime, model, &options, call)?;
        decoder.set_cache_types(&session);
        let defaults = model.card().generation.clone();
        let cache = Cache::new(ROOM);
        Ok(Generator { session, decoder, tokenizer, defaults, cache, rows: Vec::new(), drafter: None })
    }

    /// Generates a text after each prompt and returns the generations, one per prompt. Existing rows are dropped first.
    /// `on_token` is called for every token.
    ///
    /// Fails like [`Generator::start`], [`Generator::append`] and [`Generator::run`]; an error that concerns one prompt
    /// contains its number, from 1.
    pub fn generate(
        &mut self,
        prompts: &[Prompt<'_>],
        options: &GenerateOptions,
        on_token: Option<&mut OnToken<'_>>,
        call: &Call,
    ) -> Result<Vec<Generation>> {
        generate::generate(self, prompts, options, on_token, call)
    }

    /// Continues all rows, each until it ends, and returns their generations. Tokens that were already read are not
    /// read again.
    ///
    /// Progress stages: `prompt` (tokens read) and `generate` (tokens generated). If `call` is cancelled or its
    /// deadline passes, `run` fails; the rows then end with the last generated token and can be continued. Fails with
    /// [`crate::error::Kind::InvalidArgument`] if an option is out of range, a row is empty, a prompt is longer than
    /// `max_length` or the model's context, stop strings are given without a tokenizer, or there are several rows and a
    /// draft ([`Generator::set_draft`]). Fails with `Runtime` if the logits of a row are not finite, and otherwise like
    /// [`Session::run`].
    pub fn run(
        &mut self,
        options: &GenerateOptions,
        on_token: Option<&mut OnToken<'_>>,
        call: &Call,
    ) -> Result<Vec<Generation>> {
        match self.drafter {
            Some(_) => self.speculate(|generator| generate::run(generator, options, on_token, call)),
            None => generate::run(self, options, on_token, call),
        }
    }

    /// Returns the tokenizer; `None` if there is none.
    pub fn tokenizer(&self) -> Option<&Arc<Tokenizer>> {
        self.tokenizer.as_ref()
    }

    /// Returns the inputs and outputs of the model.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Returns the special token ids and sampling defaults of the model.
    pub fn defaults(&self) -> &GenerationDefaults {
        &self.defaults
    }

    /// Replaces all rows by `rows` empty rows. Fails with [`crate::error::Kind::LimitExceeded`] above
    /// [`limits::GENERATED_ROWS`].
    pub fn start(&mut self, rows: usize) -> Result<()> {
        if rows > limits::GENERATED_ROWS {
            bail!(LimitExceeded, "{rows} rows of text are requested; the limit is {}", limits::GENERATED_ROWS);
        }
        self.reset();
        let row = || Row { tokens: Vec::new(), logits: None, text: RowText::default(), ahead: Ahead::default() };
        self.rows.resize_with(rows, row);
        Ok(())
    }

    /// Drops all rows and frees their caches.
    pub fn reset(&mut self) {
        self.rows.clear();
        self.cache = Cache::new(ROOM);
        self.drafter.iter_mut().for_each(Drafter::reset);
    }

    /// Returns the number of rows.
    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// Returns the ids of all tokens of a row, read and generated. Fails with [`crate::error::Kind::InvalidArgument`]
    /// if there is no such row.
    pub fn tokens(&self, row: usize) -> Result<&[i64]> {
        Ok(&self.row(row)?.tokens)
    }

    /// Appends a prompt to a row without running the model, and returns the number of tokens that were added. An empty
    /// text at the beginning of a row becomes the beginning-of-sequence token, if the model has one.
    ///
    /// Fails with [`crate::error::Kind::InvalidArgument`] if there is no such row, for text without a tokenizer and for
    /// negative token ids, and like [`Tokenizer::encode`].
    pub fn append(&mut self, row: usize, prompt: Prompt<'_>) -> Result<usize> {
        let first = self.row(row)?.tokens.is_empty();
        let tokens = match prompt {
            Prompt::Tokens(tokens) => tokens.to_vec(),
            Prompt::Text(text) => {
                let tokens = self.encode(text, first)?;
                // An empty prompt begins with the beginning-of-sequence token.
                let begin = self.defaults.bos_token_id.filter(|_| first && tokens.is_empty());
                begin.map_or(tokens, |token| vec![token])
            }
            Prompt::Rendered(text) => self.encode(text, false)?,
        };
        if let Some(token) = tokens.iter().find(|token| **token < 0) {
            bail!(InvalidArgument, "{token} is not a token id");
        }
        let row = &mut self.rows[row];
        if !tokens.is_empty() {
            (row.logits, row.text) = (None, RowText::default());
            row.tokens.extend(&tokens);
        }
        Ok(tokens.len())
    }

    fn encode(&self, text: &str, special: bool) -> Result<Vec<i64>> {
        match &self.tokenizer {
            Some(tokenizer) => Ok(tokenizer.encode(text, special)?.ids),
            None => bail!(InvalidArgument, "the model has no tokenizer.json and accepts only token ids, not text"),
        }
    }

    /// Appends one token to a row, as if the model had generated it. Fails with [`crate::error::Kind::InvalidArgument`]
    /// for a negative id or if there is no such row.
    pub fn push(&mut self, row: usize, token: i64) -> Result<()> {
        if token < 0 {
            bail!(InvalidArgument, "{token} is not a token id");
        }
        self.row(row)?;
        let state = &mut self.rows[row];
        state.logits = state.ahead.accept(token);
        if state.logits.is_none() {
            self.cache.truncate(row, state.tokens.len());
        }
        state.tokens.push(token);
        Ok(())
    }

    /// Removes the last `count` tokens of a row. Tokens before them need not be read again, except the last one. Fails
    /// with [`crate::error::Kind::InvalidArgument`] if the row has fewer tokens or does not exist.
    pub fn rewind(&mut self, row: usize, count: usize) -> Result<()> {
        let length = self.row(row)?.tokens.len();
        let Some(length) = length.checked_sub(count) else {
            bail!(InvalidArgument, "row {row} has {length} tokens; {count} cannot be removed");
        };
        if count > 0 {
            let row = &mut self.rows[row];
            row.tokens.truncate(length);
            (row.logits, row.text) = (None, RowText::default());
        }
        self.cache.truncate(row, length);
        Ok(())
    }

    /// Runs all tokens that were appended and not run yet, so that [`Generator::next_logits`] works for every row.
    /// Fails with [`crate::error::Kind::InvalidArgument`] if a row is empty or longer than the model's context, and
    /// like [`Session::run`].
    pub fn advance(&mut self, call: &Call) -> Result<()> {
        let rows: Vec<usize> = (0..self.rows.len()).collect();
        let stop = Stop::new()?;
        stop.during(call, || self.advance_rows(&rows, &stop, &mut |_| Ok(())))
    }

    /// Returns the unmodified logits of the next token of a row, one per token of the vocabulary. Fails with
    /// [`crate::error::Kind::InvalidArgument`] if the row does not exist, is empty, or has tokens that have not been
    /// run: call [`Generator::advance`] first.
    pub fn next_logits(&self, row: usize) -> Result<&[f32]> {
        match &self.row(row)?.logits {
            Some(logits) => logits.values(),
            None => bail!(InvalidArgument, "row {row} has tokens that have not been run yet"),
        }
    }

    /// Runs the tokens of `rows` that were not run yet. `ran` receives the number of tokens of each run; its error ends
    /// the call.
    pub(crate) fn advance_rows(
        &mut self,
        rows: &[usize],
        stop: &Stop,
        ran: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        let mut together = Vec::with_capacity(rows.len());
        for &row in rows {
            let length = self.row(row)?.tokens.len();
            if self.rows[row].logits.is_some() {
                continue;
            }
            let Some(before) = length.checked_sub(1) else {
                bail!(InvalidArgument, "row {row} is empty: there is nothing to continue");
            };
            if let Some(context) = self.decoder.context.filter(|context| length > *context) {
                bail!(InvalidArgument, "row {row} has {length} tokens; the limit of the model is {context}");
            }
            // If the last token is not new, it is run again: its logits are needed.
            self.cache.truncate(row, before);
            if self.rows[row].ahead.is_drafted() {
                self.verify(row, stop, ran)?;
            } else if self.decoder.pads && self.cache.length(row) == before && before > 0 {
                together.push(row);
            } else {
                self.run_alone(row, stop, ran)?;
            }
        }
        if together.is_empty() {
            return Ok(());
        }
        let tokens: Vec<&[i64]> = together.iter().map(|row| last(&self.rows[*row].tokens, 1)).collect();
        let longest = together.iter().map(|row| self.rows[*row].tokens.len()).max().unwrap_or(0);
        let read = Read { rows: &together, tokens: &tokens, keep: 1, expected: longest };
        let logits = self.cache.run(&mut self.session, &self.decoder, &read, stop)?;
        for (row, logits) in together.iter().zip(logits) {
            self.rows[*row].set_logits(logits);
        }
        PROCESS.read_tokens.add(together.len() as u64);
        ran(together.len())
    }

    fn run_alone(&mut self, row: usize, stop: &Stop, ran: &mut dyn FnMut(usize) -> Result<()>) -> Result<()> {
        let all = self.rows[row].tokens.len();
        let chunk = if self.decoder.kind == CacheKind::Recompute { all } else { CHUNK };
        let mut done = self.cache.length(row);
        while done < all {
            let end = (done + chunk).min(all);
            let tokens = [&self.rows[row].tokens[done..end]];
            let read = Read { rows: &[row], tokens: &tokens, keep: self.keep(end - done), expected: all };
            let mut logits = self.cache.run(&mut self.session, &self.decoder, &read, stop)?;
            if let Some(logits) = logits.pop().filter(|_| end == all) {
                self.rows[row].set_logits(logits);
            }
            PROCESS.read_tokens.add((end - done) as u64);
            ran(end - done)?;
            done = end;
        }
        Ok(())
    }

    fn row(&self, row: usize) -> Result<&Row> {
        self.rows
            .get(row)
            .ok_or_else(|| error!(InvalidArgument, "row {row} does not exist; there are {}", self.rows.len()))
    }
}

impl Row {
    fn set_logits(&mut self, logits: RowLogits) {
        self.logits = Some(logits);
        self.ahead.counts.steps += 1;
    }
}

impl RowTexts for Generator {
    fn begin_text(&mut self, row: usize, keep_special: bool, whole: bool) -> Result<String> {
        self.row(row)?;
        let row = &mut self.rows[row];
        row.text.begin(self.tokenizer.as_ref(), keep_special, whole.then_some(&row.tokens))
    }

    fn piece(&mut self, row: usize, token: i64) -> Result<String> {
        self.row(row)?;
        self.rows[row].text.push(self.tokenizer.as_ref(), token)
    }

    fn open_text(&self, row: usize) -> Result<String> {
        self.row(row)?.text.open()
    }

    fn end_text(&mut self, row: usize) -> Result<String> {
        self.row(row)?;
        self.rows[row].text.end()
    }
}

impl Rows for Generator {
    fn start(&mut self, rows: usize) -> Result<()> {
        Generator::start(self, rows)
    }

    fn placements(&self) -> Vec<&Placement> {
        let drafts = self.drafter.iter().flat_map(Drafter::placements);
        std::iter::once(self.session.placement()).chain(drafts).collect()
    }

    fn reset(&mut self) {
        Generator::reset(self);
    }

    fn row_count(&self) -> usize {
        Generator::row_count(self)
    }

    fn tokens(&self, row: usize) -> Result<&[i64]> {
        Generator::tokens(self, row)
    }

    fn append(&mut self, row: usize, prompt: Prompt<'_>) -> Result<usize> {
        Generator::append(self, row, prompt)
    }

    fn push(&mut self, row: usize, token: i64) -> Result<()> {
        Generator::push(self, row, token)
    }

    fn advance_rows(&mut self, rows: &[usize], stop: &Stop, ran: &mut dyn FnMut(usize) -> Result<()>) -> Result<()> {
        Generator::advance_rows(self, rows, stop, ran)
    }

    fn next_logits(&self, row: usize) -> Result<&[f32]> {
        Generator::next_logits(self, row)
    }

    fn draft(&mut self, row: usize, request: &mut DraftRequest<'_>, stop: &Stop) -> Result<()> {
        self.draft_row(row, request, stop)
    }

    fn reserve(&mut self, tokens: usize) {
        self.cache.room = tokens;
        self.drafter.iter_mut().for_each(|drafter| drafter.reserve(tokens));
    }

    fn context(&self) -> Option<usize> {
        self.decoder.context
    }

    fn tokenizer(&self) -> Option<&Arc<Tokenizer>> {
        self.tokenizer.as_ref()
    }

    fn defaults(&self) -> &GenerationDefaults {
        &self.defaults
    }

    fn run(
        &mut self,
        options: &GenerateOptions,
        on_token: Option<&mut OnToken<'_>>,
        call: &Call,
    ) -> Result<Vec<Generation>> {
        Generator::run(self, options, on_token, call)
    }
}

fn last(tokens: &[i64], count: usize) -> &[i64] {
    &tokens[tokens.len().saturating_sub(count)..]
}
