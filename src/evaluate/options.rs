//! The options for reading a text ([`PerplexityOptions`]).

use crate::choice::choice;
use crate::runtime::Execution;
use serde::Serialize;

choice! {
    /// The position at which the beginning-of-sequence token (`<s>`) is inserted, for models whose tokenizer adds one.
    /// It is never scored.
    pub enum Bos: optimize_bos_t = EveryWindow {
        /// The start of every window, as in llama.cpp.
        ///
        /// Models trained with the token need it.
        EveryWindow = 0, "every-window";
        /// The start of the text only.
        FirstWindow = 1, "first-window";
        /// The token is not inserted.
        Never = 2, "never";
    }
}

/// The options for reading a text.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PerplexityOptions {
    /// Length of a window in tokens; 0 selects the number of positions of the model, up to 512.
    pub context_length: usize,
    /// Distance between the beginnings of two windows in tokens; 0 selects half of the context length. Each token that
    /// can be predicted is scored once ([`super::windows`]), and from the second window on has at least
    /// `context_length - stride` tokens before it: a small stride takes longer and gives a lower (more accurate)
    /// perplexity.
    pub stride: usize,
    /// Number of tokens of the text to read; 0 for all.
    pub max_tokens: usize,
    /// Position of the beginning-of-sequence token; see [`Bos`].
    pub bos: Bos,
    /// Number of threads of the session and of the computations on its logits; 0 for one per physical core.
    pub threads: usize,
    /// Execution provider and device of the session.
    pub execution: Execution,
}
