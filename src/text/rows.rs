//! [`Rows`]: one model or several that generate text, as the generation loop sees them.

use super::generation::{GenerateOptions, Generation, OnToken, Uncertainty};
use super::tokenizer::Tokenizer;
use crate::call::Call;
use crate::error::Result;
use crate::model::GenerationDefaults;
use crate::runtime::{Placement, Stop};
use std::sync::Arc;

/// Text that is appended to a row.
#[derive(Debug, Clone, Copy)]
pub enum Prompt<'a> {
    /// Plain text. At the beginning of a row, the model's special tokens (`<s>`) are added, as in training.
    Text(&'a str),
    /// Text that already contains special tokens, from [`super::ChatTemplate::render`].
    Rendered(&'a str),
    /// Token ids, used unchanged.
    Tokens(&'a [i64]),
}

/// The text of rows while tokens are generated. The provided methods return empty texts, for rows whose tokens are not
/// generated one by one.
pub trait RowTexts {
    /// Begins a run; called before its first [`RowTexts::piece`]. A text that ended inside a character continues. With
    /// `whole`, the text begins with the existing tokens of the row: returns their text as far as it is final.
    fn begin_text(&mut self, _row: usize, _keep_special: bool, _whole: bool) -> Result<String> {
        Ok(String::new())
    }

    /// Returns the text that `token` makes final in a row.
    fn piece(&mut self, _row: usize, _token: i64) -> Result<String> {
        Ok(String::new())
    }

    /// Returns the text that would be added to a row if no token followed.
    fn open_text(&self, _row: usize) -> Result<String> {
        Ok(String::new())
    }

    /// Returns the rest of a row's text: no token follows in this run.
    fn end_text(&mut self, _row: usize) -> Result<String> {
        Ok(String::new())
    }
}

/// Rows of generated tokens. [`super::Generator`] uses one model, the result of
/// [`crate::ensemble::Ensemble::generator`] several.
pub trait Rows: RowTexts + Send {
    /// Starts again with `rows` empty rows.
    fn start(&mut self, rows: usize) -> Result<()>;

    /// Drops all rows.
    fn reset(&mut self);

    /// Returns the number of rows.
    fn row_count(&self) -> usize;

    /// Returns the ids of all tokens of a row, read and generated.
    fn tokens(&self, row: usize) -> Result<&[i64]>;

    /// Appends to a row without running the model; returns the number of tokens added.
    fn append(&mut self, row: usize, prompt: Prompt<'_>) -> Result<usize>;

    /// Appends one token to a row.
    fn push(&mut self, row: usize, token: i64) -> Result<()>;

    /// Runs the tokens of these rows that were not run yet. `ran` receives the number of tokens of each run.
    fn advance_rows(&mut self, rows: &[usize], stop: &Stop, ran: &mut dyn FnMut(usize) -> Result<()>) -> Result<()>;

    /// Returns the logits of the next token of a row, once it has advanced.
    fn next_logits(&self, row: usize) -> Result<&[f32]>;

    /// Reserves capacity for that many more tokens in each row, so that caches need not grow while they are
    /// generated.
    fn reserve(&mut self, tokens: usize);

    /// Returns the maximum number of tokens in a row; `None` if unknown.
    fn context(&self) -> Option<usize>;

    /// Returns where the models run, each once.
    fn placements(&self) -> Vec<&Placement>;

    /// Returns the tokenizer that decodes the tokens, if there is one.
    fn tokenizer(&self) -> Option<&Arc<Tokenizer>>;

    /// Returns special token ids and sampling defaults.
    fn defaults(&self) -> &GenerationDefaults;

    /// Returns the whole text of a row.
    fn text(&self, row: usize, keep_special: bool) -> Result<String> {
        match self.tokenizer() {
            Some(tokenizer) => tokenizer.decode(self.tokens(row)?, !keep_special),
            None => Ok(String::new()),
        }
    }

    /// Returns the members' uncertainty about the next token if it is `token`; `None` for a single model.
    fn uncertainty(&self, _row: usize, _token: i64) -> Option<Uncertainty> {
        None
    }

    /// Continues all rows: see [`super::Generator::run`].
    fn run(
        &mut self,
        options: &GenerateOptions,
        on_token: Option<&mut OnToken<'_>>,
        call: &Call,
    ) -> Result<Vec<Generation>>;
}
