//! The options and the result of a generation ([`GenerateOptions`] and [`Generation`]).

use super::draft::Drafted;
use super::sampler::{Logprobs, SamplingOptions};
use crate::choice::choice;
use std::ops::ControlFlow;

/// The number of tokens that are generated if no limit is set.
pub const DEFAULT_NEW_TOKENS: usize = 256;

/// The limits, the sampling, and the outputs of a generation.
#[derive(Debug, Clone, Default)]
pub struct GenerateOptions {
    /// Maximum number of tokens to generate in each row. If both this and `max_length` are `None`, the limit is
    /// [`DEFAULT_NEW_TOKENS`]. The context of the model is always a limit, too.
    pub max_new_tokens: Option<usize>,
    /// Maximum number of tokens in each row, including the prompt. With both limits, the one reached first applies;
    /// `None` for no such limit.
    pub max_length: Option<usize>,
    /// Options for the selection of tokens. Default: the most probable one.
    pub sampling: SamplingOptions,
    /// Strings that end a row's text when they are generated; they are not part of the text. The text of a special
    /// token (`<|im_end|>`) is also found where the model generates that token, even if special tokens are not shown.
    pub stop: Vec<String>,
    /// Ids of tokens that end a row's text, in addition to the end-of-sequence tokens; the text of a stop token is not
    /// part of the row's text.
    pub stop_tokens: Vec<i64>,
    /// Ids of the end-of-sequence tokens; `None` uses those of the model. With an empty list, generation continues
    /// after these tokens.
    pub eos_token_ids: Option<Vec<i64>>,
    /// Number of most probable tokens whose log-probabilities are returned in addition to that of each generated token;
    /// `None` returns none.
    pub logprobs: Option<usize>,
    /// Whether each text begins with its prompt.
    pub echo: bool,
    /// Whether special tokens appear in the text.
    pub keep_special_tokens: bool,
    /// Index of the first row for the random numbers: row `i` of a batch generates the same text as the only row of a
    /// batch with `first_row` set to `i`.
    pub first_row: u64,
}

choice! {
    /// The reason why a row's text ends.
    pub enum FinishReason: optimize_finish_reason_t {
        /// The model generated an end-of-sequence token.
        Eos = 1, "eos";
        /// A limit was reached: `max_new_tokens`, `max_length` or the model's context.
        Length = 2, "length";
        /// A stop string or a stop token was generated.
        Stop = 3, "stop";
        /// The callback ended the generation.
        Cancelled = 4, "cancelled";
    }
}

/// The text that was generated for one row.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Generation {
    /// Text of the generated tokens: the result of decoding all of them at once, up to a stop string. It begins with
    /// the prompt if `echo` is set, and has special tokens only if `keep_special_tokens` is set. A character that a
    /// limit cut off is U+FFFD. Empty without a tokenizer.
    pub text: String,
    /// Ids of the generated tokens, including the one that ended the text.
    pub tokens: Vec<i64>,
    /// Log-probabilities of each token; empty if not requested.
    pub logprobs: Vec<Logprobs>,
    /// Uncertainty of each token if an ensemble generated it; otherwise empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uncertainty: Vec<Uncertainty>,
    /// Mean of the uncertainty over all tokens; `None` if `uncertainty` is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_uncertainty: Option<Uncertainty>,
    /// Reason why the text ends.
    pub finish_reason: FinishReason,
    /// Number of tokens that the row had before the generation.
    pub prompt_tokens: usize,
    /// Number of runs and of drafted tokens; `None` if the generator has no draft.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft: Option<Drafted>,
}

/// A token that has just been generated.
#[derive(Debug, Clone, Copy)]
pub struct Written<'a> {
    /// Index of the row.
    pub row: usize,
    /// Id of the token.
    pub token: i64,
    /// Text that this token completes: whole characters, no part of a stop string. It is often empty, and not always
    /// the text of this token alone. The pieces of a row together are its text, without the prompt that `echo` adds; if
    /// a callback ends the generation, text that is not complete is only in [`Generation::text`].
    pub text: &'a str,
    /// Log-probabilities of the token; `None` if not requested.
    pub logprobs: Option<&'a Logprobs>,
    /// Uncertainty of the members of an ensemble about the token; `None` for a single model.
    pub uncertainty: Option<Uncertainty>,
    /// Reason why the text ends, for the last token of a row; otherwise `None`.
    pub finish_reason: Option<FinishReason>,
}

/// A callback that is called for every token, on the thread that called the library. `Break` ends all rows.
pub type OnToken<'a> = dyn FnMut(&Written<'_>) -> ControlFlow<()> + 'a;

/// The uncertainty of an ensemble about one token. Entropies are in nats.
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
    /// Returns the mean of each field over tokens; `None` without tokens.
    pub fn mean(tokens: &[Uncertainty]) -> Option<Uncertainty> {
        let mean = |of: fn(&Uncertainty) -> f64| tokens.iter().map(of).sum::<f64>() / tokens.len() as f64;
        (!tokens.is_empty()).then(|| Uncertainty {
            entropy: mean(|u| u.entropy),
            mutual_information: mean(|u| u.mutual_information),
            agreement: mean(|u| u.agreement),
        })
    }
}
