//! The interface of the rows of text of one model or several, for the generation loop ([`Rows`]).

use super::draft::DraftRequest;
use super::generation::{GenerateOptions, Generation, OnToken, Uncertainty};
use super::tokenizer::Tokenizer;
use crate::call::Call;
use crate::error::Result;
use crate::model::GenerationDefaults;
use crate::runtime::{Placement, Stop};
use std::sync::Arc;

/// The text that is appended to a row.
#[derive(Debug, Clone, Copy)]
pub enum Prompt<'a> {
    /// Plain text. At the beginning of a row, the model's special tokens (`<s>`) are added, as in training; later none
    /// are.
    Text(&'a str),
    /// Text that already contains special tokens, such as that of [`super::ChatTemplate::render`].
    Rendered(&'a str),
    /// Token ids, which are used unchanged.
    Tokens(&'a [i64]),
}

/// The text of rows while their tokens are generated. The provided methods return empty texts: they serve
/// implementations whose tokens are not generated one by one.
pub trait RowTexts {
    /// Begins a run, before its first [`RowTexts::piece`]. `keep_special` says whether the text has special tokens. If
    /// a text ended inside a character, that character continues. With `whole`, the text begins with the existing
    /// tokens of the row, and their text is returned as far as it is complete; otherwise the result is empty.
    fn begin_text(&mut self, _row: usize, _keep_special: bool, _whole: bool) -> Result<String> {
        Ok(String::new())
    }

    /// Returns the text that `token` completes in a row; empty, for example, in the middle of a character.
    fn piece(&mut self, _row: usize, _token: i64) -> Result<String> {
        Ok(String::new())
    }

    /// Returns the text that would be added to a row if no token followed.
    fn open_text(&self, _row: usize) -> Result<String> {
        Ok(String::new())
    }

    /// Returns the rest of a row's text, because no token follows in this run.
    fn end_text(&mut self, _row: usize) -> Result<String> {
        Ok(String::new())
    }
}

/// The rows of text that one model or several generate. [`super::Generator`] uses one model, the result of
/// [`crate::ensemble::Ensemble::generator`] several.
pub trait Rows: RowTexts + Send {
    /// Replaces all rows by `rows` empty rows. Fails with `LimitExceeded` above [`crate::limits::GENERATED_ROWS`].
    fn start(&mut self, rows: usize) -> Result<()>;

    /// Discards all rows, so that another text can begin.
    fn reset(&mut self);

    /// Returns the number of rows.
    fn row_count(&self) -> usize;

    /// Returns the ids of all tokens of a row, read and generated. Fails with `InvalidArgument` if there is no such
    /// row.
    fn tokens(&self, row: usize) -> Result<&[i64]>;

    /// Appends a prompt to a row without running the model, and returns the number of tokens that were added. Fails
    /// like [`super::Generator::append`].
    fn append(&mut self, row: usize, prompt: Prompt<'_>) -> Result<usize>;

    /// Appends one token to a row. Fails with `InvalidArgument` if there is no such row.
    fn push(&mut self, row: usize, token: i64) -> Result<()>;

    /// Drafts tokens that may follow a row, which the next [`Rows::advance_rows`] verifies. The provided method drafts
    /// none.
    fn draft(&mut self, _row: usize, _request: &mut DraftRequest<'_>, _stop: &Stop) -> Result<()> {
        Ok(())
    }

    /// Runs the tokens of `rows` that were not run yet. `ran` receives the number of tokens of each run; its error ends
    /// the call.
    fn advance_rows(&mut self, rows: &[usize], stop: &Stop, ran: &mut dyn FnMut(usize) -> Result<()>) -> Result<()>;

    /// Returns the logits of the next token of a row. Fails with `InvalidArgument` if the row has tokens that have not
    /// been run, and with `Unsupported` if the texts are not generated token by token.
    fn next_logits(&self, row: usize) -> Result<&[f32]>;

    /// Reserves capacity for `tokens` more tokens in each row, so that caches need not grow until these have been
    /// generated.
    fn reserve(&mut self, tokens: usize);

    /// Returns the maximum number of tokens in a row; `None` if unknown.
    fn context(&self) -> Option<usize>;

    /// Returns the provider and the device on which each of the models runs.
    fn placements(&self) -> Vec<&Placement>;

    /// Returns the tokenizer that decodes the tokens; `None` if there is none.
    fn tokenizer(&self) -> Option<&Arc<Tokenizer>>;

    /// Returns the special token ids and the sampling defaults of the model or models.
    fn defaults(&self) -> &GenerationDefaults;

    /// Returns the whole text of a row, with the prompt, and with special tokens if `keep_special` is set; empty
    /// without a tokenizer.
    fn text(&self, row: usize, keep_special: bool) -> Result<String> {
        match self.tokenizer() {
            Some(tokenizer) => tokenizer.decode(self.tokens(row)?, !keep_special),
            None => Ok(String::new()),
        }
    }

    /// Returns the uncertainty of the members of an ensemble about the next token of a row, of which `token` is the
    /// choice; `None` for a single model.
    fn uncertainty(&self, _row: usize, _token: i64) -> Option<Uncertainty> {
        None
    }

    /// Continues all rows and returns their generations; see [`super::Generator::run`].
    fn run(
        &mut self,
        options: &GenerateOptions,
        on_token: Option<&mut OnToken<'_>>,
        call: &Call,
    ) -> Result<Vec<Generation>>;
}
