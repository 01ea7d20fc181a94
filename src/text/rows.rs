//! [`Rows`]: what writes text, one model or several, as the loop from prompt to answer sees it.

use super::generate::{self, GenerateOptions, Generation, OnToken};
use super::generator::Prompt;
use super::tokenizer::Tokenizer;
use crate::call::Call;
use crate::error::Result;
use crate::model::GenerationDefaults;
use crate::runtime::{Placement, Stop};
use std::sync::Arc;

/// What the members of an ensemble thought of one token. Entropies are in nats.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Uncertainty {
    /// Entropy of the combined distribution: how open the choice was.
    pub entropy: f64,
    /// Entropy of the members' (weighted) mean, less the mean of their entropies: how much of it is their disagreement.
    pub mutual_information: f64,
    /// Share of the members, by weight, that hold the token that was chosen for the most probable one.
    pub agreement: f64,
}

impl Uncertainty {
    /// The mean over tokens; `None` of none.
    pub fn mean(tokens: &[Uncertainty]) -> Option<Uncertainty> {
        let mean = |of: fn(&Uncertainty) -> f64| tokens.iter().map(of).sum::<f64>() / tokens.len() as f64;
        (!tokens.is_empty()).then(|| Uncertainty {
            entropy: mean(|u| u.entropy),
            mutual_information: mean(|u| u.mutual_information),
            agreement: mean(|u| u.agreement),
        })
    }
}

/// Rows of text in the making. [`super::Generator`] has one model for them, what [`crate::ensemble::Ensemble::generator`]
/// gives several.
pub trait Rows: Send {
    /// Begins anew with `rows` empty rows.
    fn start(&mut self, rows: usize) -> Result<()>;

    /// Forgets all rows.
    fn reset(&mut self);

    /// Number of rows.
    fn row_count(&self) -> usize;

    /// Ids of all tokens of a row, read and written.
    fn tokens(&self, row: usize) -> Result<&[i64]>;

    /// Appends to a row; gives the number of tokens that came to it. Nothing is run yet.
    fn append(&mut self, row: usize, prompt: Prompt<'_>) -> Result<usize>;

    /// Appends one token to a row.
    fn push(&mut self, row: usize, token: i64) -> Result<()>;

    /// Runs what these rows have not run yet. `ran` is told the tokens of each run.
    fn advance_rows(&mut self, rows: &[usize], stop: &Stop, ran: &mut dyn FnMut(usize) -> Result<()>) -> Result<()>;

    /// The logits of the token that comes next in a row, once it has advanced.
    fn next_logits(&self, row: usize) -> Result<&[f32]>;

    /// Room for so many more tokens in each row, so that caches need not grow while they are written.
    fn reserve(&mut self, tokens: usize);

    /// Most tokens in a row; `None` if nothing says so.
    fn context(&self) -> Option<usize>;

    /// What the models run on, each once.
    fn placements(&self) -> Vec<&Placement>;

    /// What makes text of the tokens, if there is anything.
    fn tokenizer(&self) -> Option<&Arc<Tokenizer>>;

    /// Token ids and sampling defaults.
    fn defaults(&self) -> &GenerationDefaults;

    /// Called before the first [`Rows::piece`] of a run; a text that ended inside a character goes on there. With
    /// `whole`, the text begins with what the row has already: gives that, as far as it is certain.
    fn begin_text(&mut self, row: usize, keep_special: bool, whole: bool) -> Result<String>;

    /// The text that is certain now that `token` has come to a row.
    fn piece(&mut self, row: usize, token: i64) -> Result<String>;

    /// The text that would come to a row if no token followed.
    fn open_text(&self, row: usize) -> Result<String>;

    /// The rest of a row's text: no token follows in this run.
    fn end_text(&mut self, row: usize) -> Result<String>;

    /// The whole text of a row.
    fn text(&self, row: usize, keep_special: bool) -> Result<String> {
        match self.tokenizer() {
            Some(tokenizer) => tokenizer.decode(self.tokens(row)?, !keep_special),
            None => Ok(String::new()),
        }
    }

    /// What the members thought of the token that comes next, if there are several and it is `token`.
    fn uncertainty(&self, _row: usize, _token: i64) -> Option<Uncertainty> {
        None
    }

    /// Writes on in all rows: see [`super::Generator::run`].
    fn run(
        &mut self,
        options: &GenerateOptions,
        on_token: Option<&mut OnToken<'_>>,
        call: &Call,
    ) -> Result<Vec<Generation>>;
}

impl dyn Rows + '_ {
    /// Writes a text after each prompt: see [`super::Generator::generate`].
    pub fn generate(
        &mut self,
        prompts: &[Prompt<'_>],
        options: &GenerateOptions,
        on_token: Option<&mut OnToken<'_>>,
        call: &Call,
    ) -> Result<Vec<Generation>> {
        generate::generate(self, prompts, options, on_token, call)
    }
}
