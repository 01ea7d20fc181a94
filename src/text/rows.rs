//! [`Rows`]: one model or several that generate text, as the generation loop sees them.

use super::generate::{self, GenerateOptions, Generation, OnToken};
use super::generator::Prompt;
use super::tokenizer::Tokenizer;
use crate::call::Call;
use crate::error::Result;
use crate::model::GenerationDefaults;
use crate::runtime::{Placement, Stop};
use std::sync::Arc;

/// Uncertainty of an ensemble about one token. Entropies are in nats.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Uncertainty {
    /// Entropy of the combined distribution: the total uncertainty.
    pub entropy: f64,
    /// Entropy of the members' (weighted) mean minus the mean of their entropies: the part caused by their
    /// disagreement.
    pub mutual_information: f64,
    /// Fraction of the members, by weight, for which the chosen token is the most probable.
    pub agreement: f64,
}

impl Uncertainty {
    /// Returns the mean over tokens; `None` without tokens.
    pub fn mean(tokens: &[Uncertainty]) -> Option<Uncertainty> {
        let mean = |of: fn(&Uncertainty) -> f64| tokens.iter().map(of).sum::<f64>() / tokens.len() as f64;
        (!tokens.is_empty()).then(|| Uncertainty {
            entropy: mean(|u| u.entropy),
            mutual_information: mean(|u| u.mutual_information),
            agreement: mean(|u| u.agreement),
        })
    }
}

/// Rows of generated text. [`super::Generator`] uses one model, the result of
/// [`crate::ensemble::Ensemble::generator`] several.
pub trait Rows: Send {
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

    /// Begins a run; called before its first [`Rows::piece`]. A text that ended inside a character continues. With
    /// `whole`, the text begins with the existing tokens of the row: returns their text as far as it is final.
    fn begin_text(&mut self, row: usize, keep_special: bool, whole: bool) -> Result<String>;

    /// Returns the text that `token` makes final in a row.
    fn piece(&mut self, row: usize, token: i64) -> Result<String>;

    /// Returns the text that would be added to a row if no token followed.
    fn open_text(&self, row: usize) -> Result<String>;

    /// Returns the rest of a row's text: no token follows in this run.
    fn end_text(&mut self, row: usize) -> Result<String>;

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

impl dyn Rows + '_ {
    /// Generates a text after each prompt: see [`super::Generator::generate`].
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
