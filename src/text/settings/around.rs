//! The steps of classes of tokenizers that put special tokens around texts ([`Step`]).

use super::family::{Setting, damaged, flag};
use crate::error::Result;
use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;
use tokenizers::processors::PostProcessorWrapper;

/// The settings with the first and the last token of an encoder.
pub const CLS_SEP: [&str; 2] = ["cls_token", "sep_token"];
/// The settings with the first and the last token of a generated text.
pub const BOS_EOS: [&str; 2] = ["bos_token", "eos_token"];

/// A step that puts special tokens around texts.
pub enum Step {
    /// A template with token types.
    Template {
        /// Whether there is a last token after each text, and the first token only before the first text, as in BERT.
        /// Otherwise the first token is before each text, as in Code Llama.
        ends: bool,
    },
    /// The step of RoBERTa: the texts of a pair are separated by two last tokens.
    Roberta {
        /// Whether a space was added before the text.
        space: bool,
    },
}

impl Step {
    /// Sets the step, with the first and the last token that the settings `keys` name, by default those of `usual`.
    /// Returns a note if the tokenizer has neither these tokens nor another step. Fails with `InvalidModel` if the step
    /// does not fit the tokenizer.
    pub fn set(
        &self,
        inner: &mut Tokenizer,
        value: &Setting<'_>,
        keys: [&str; 2],
        usual: [&str; 2],
    ) -> Result<Option<String>> {
        let text = |at: usize| {
            let found = value(keys[at]).and_then(|token| token.as_str().or_else(|| token.get("content")?.as_str()));
            found.unwrap_or(usual[at]).to_owned()
        };
        let (first, last) = (text(0), text(1));
        let (Some(first_id), Some(last_id)) = (inner.token_to_id(&first), inner.token_to_id(&last)) else {
            let missing =
                || format!("no special tokens are put around texts: the tokenizer lacks `{first}` or `{last}`");
            return Ok(inner.get_post_processor().is_none().then(missing));
        };
        let step = match self {
            Step::Roberta { space } => {
                let trim = flag(value, "trim_offsets").unwrap_or(true);
                json!({"type": "RobertaProcessing", "sep": [last, last_id], "cls": [first, first_id],
                    "trim_offsets": trim, "add_prefix_space": space})
            }
            Step::Template { ends } => template([(&first, first_id), (&last, last_id)], *ends),
        };
        let step: PostProcessorWrapper = serde_json::from_value(step).map_err(|e| damaged(e.into()))?;
        inner.with_post_processor(Some(step));
        Ok(None)
    }
}

/// Returns the description of a template with token types: the first token before a text and the second after each
/// text (`ends`), like that of BERT, or the first token before each text, like that of Code Llama.
fn template(tokens: [(&str, u32); 2], ends: bool) -> Value {
    let special = |token: &str, kind: u32| json!({"SpecialToken": {"id": token, "type_id": kind}});
    let part = |name: &str, kind: u32| json!({"Sequence": {"id": name, "type_id": kind}});
    let [(first, _), (last, _)] = tokens;
    let (single, second) = if ends {
        (vec![special(first, 0), part("A", 0), special(last, 0)], vec![part("B", 1), special(last, 1)])
    } else {
        (vec![special(first, 0), part("A", 0)], vec![special(first, 1), part("B", 1)])
    };
    let pair = [single.clone(), second].concat();
    let mut ids = Map::new();
    for (token, id) in tokens {
        ids.insert(token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]}));
    }
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": ids})
}
