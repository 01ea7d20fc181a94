//! The division of texts into windows of tokens, with the place of each token in the text.

use super::{Encoding, Tokenizer, guarded};
use crate::error::{Result, bail};
use crate::limits;
use std::ops::Range;
use tokenizers::{ModelWrapper, OffsetType, PostProcessor as _, TruncationDirection};

/// The names of the unknown token in a vocabulary that does not tell which one it is.
const UNKNOWN: [&str; 2] = ["<unk>", "[UNK]"];

/// A token, with its place in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// Range of the token's bytes in the text.
    pub bytes: Range<usize>,
    /// Whether the token is a part of the word of the token before it.
    pub continues_word: bool,
}

/// A part of a text as the input of a model, with its special tokens.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    /// Tokens of the window, including special ones.
    pub encoding: Encoding,
    /// Index in the text of each token of `encoding`; `None` for special tokens.
    pub places: Vec<Option<usize>>,
}

/// A text as tokens, with the windows that contain them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Windows {
    /// Tokens of the text, without special ones.
    pub tokens: Vec<Token>,
    /// Inputs that contain these tokens: one, several that overlap, or none for a text without tokens.
    pub windows: Vec<Window>,
}

impl Tokenizer {
    /// Returns a text, divided into windows of at most `length` tokens, special tokens included. A window and the next
    /// have `overlap` tokens in common; `None` selects a quarter of a window. No prompt is added.
    ///
    /// Fails like [`Tokenizer::encode`], and with [`crate::error::Kind::InvalidArgument`] if a window has no room for
    /// tokens of the text, or if the overlap is not shorter than a window. Fails with `Unsupported` if the tokenizer
    /// adds tokens to a text that it does not mark as special.
    pub(crate) fn windows(&self, text: &str, length: usize, overlap: Option<usize>) -> Result<Windows> {
        let special = self.inner.get_post_processor().map_or(0, |step| step.added_tokens(false));
        let room = length.saturating_sub(special);
        if room == 0 {
            bail!(InvalidArgument, "a length of {length} has no room for a text and {special} special tokens");
        }
        let overlap = overlap.unwrap_or(room / 4);
        if overlap >= room {
            bail!(InvalidArgument, "stride is {overlap}; a window has room for {room} tokens of a text");
        }
        let mut all = self.with_places(text)?;
        let count = all.len();
        if count == 0 {
            return Ok(Windows::default());
        }
        all.truncate(room, overlap, TruncationDirection::Right);
        let mut first = guarded(|| self.inner.post_process(all, None, true))?;
        let rest = first.take_overflowing();
        let mut found = Windows { tokens: vec![Token { bytes: 0..0, continues_word: false }; count], windows: vec![] };
        for (index, window) in std::iter::once(first).chain(rest).enumerate() {
            found.add(self.words(text, &window), &window, index * (room - overlap))?;
        }
        if self.settings.untyped {
            found.windows.iter_mut().for_each(|window| window.encoding.type_ids.fill(0));
        }
        Ok(found)
    }

    /// Returns the tokens of a text with their bytes in it, without special tokens. The last step of the tokenizer is
    /// left out because it may move the bytes of tokens, and must run only once.
    fn with_places(&self, text: &str) -> Result<tokenizers::Encoding> {
        if text.len() > limits::TEXT_BYTES {
            bail!(LimitExceeded, "the text has {} bytes; the limit is {}", text.len(), limits::TEXT_BYTES);
        }
        guarded(|| self.pieces(text, OffsetType::Byte))
    }

    /// Returns the id of the unknown token: the one that the files next to the tokenizer name, otherwise that of the
    /// vocabulary; `None` if there is none.
    fn unknown(&self) -> Option<u32> {
        let named = |name: &str| self.inner.token_to_id(name);
        let own = || match self.inner.get_model() {
            ModelWrapper::WordPiece(model) => named(&model.unk_token),
            ModelWrapper::WordLevel(model) => named(&model.unk_token),
            ModelWrapper::BPE(model) => model.get_unk_token().as_deref().and_then(named),
            // The library does not tell the id. These are the names in the files of SentencePiece and of BERT.
            ModelWrapper::Unigram(_) => UNKNOWN.into_iter().find_map(named),
        };
        self.settings.unk_token.as_deref().and_then(named).or_else(own)
    }

    /// Returns whether each token of `window` is a part of the word of the token before it. Vocabularies with a prefix
    /// for such tokens (`##`) mark them; with others, a word begins at a space. An unknown token always begins a word.
    /// All this is as in the pipelines of transformers.
    fn words(&self, text: &str, window: &tokenizers::Encoding) -> Vec<bool> {
        let prefix = match self.inner.get_model() {
            ModelWrapper::WordPiece(model) => Some(model.continuing_subword_prefix.as_str()),
            ModelWrapper::BPE(model) => model.get_continuing_subword_prefix().as_deref(),
            _ => None,
        };
        let unknown = self.unknown();
        let prefix = prefix.filter(|prefix| !prefix.is_empty());
        let one = |index: usize| match prefix {
            // The text of an unknown token may be that of the text (Unigram): only its id says what it is.
            _ if unknown == Some(window.get_ids()[index]) => false,
            Some(prefix) => window.get_tokens()[index].starts_with(prefix),
            None => {
                let start = window.get_offsets()[index].0;
                let before = text.get(..start).and_then(|part| part.chars().next_back());
                let first = text.get(start..).and_then(|part| part.chars().next());
                before.is_some_and(|c| c != ' ') && first != Some(' ')
            }
        };
        (0..window.len()).map(one).collect()
    }
}

impl Windows {
    /// Adds a window whose first token has the index `start` in the text.
    fn add(&mut self, continues: Vec<bool>, window: &tokenizers::Encoding, start: usize) -> Result<()> {
        let wide = |values: &[u32]| values.iter().map(|value| i64::from(*value)).collect::<Vec<i64>>();
        let mut next = start;
        let mut places = Vec::with_capacity(window.len());
        for (index, special) in window.get_special_tokens_mask().iter().enumerate() {
            if *special != 0 {
                places.push(None);
                continue;
            }
            let (begin, end) = window.get_offsets()[index];
            let Some(token) = self.tokens.get_mut(next) else {
                bail!(Unsupported, "the tokenizer adds tokens to a text that it does not mark as special");
            };
            *token = Token { bytes: begin..end, continues_word: continues[index] };
            places.push(Some(next));
            next += 1;
        }
        let encoding = Encoding {
            ids: wide(window.get_ids()),
            attention_mask: wide(window.get_attention_mask()),
            type_ids: wide(window.get_type_ids()),
        };
        self.windows.push(Window { encoding, places });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a tokenizer like that of XLM-RoBERTa, with few pieces.
    fn unigram(unknown: &str) -> Tokenizer {
        let pieces = [unknown, "▁", "a", "b", "c", "▁a"];
        let vocabulary: Vec<(&str, f64)> = pieces.iter().map(|piece| (*piece, -1.0 - piece.len() as f64)).collect();
        let file = serde_json::json!({
            "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null, "decoder": null,
            "pre_tokenizer": { "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true },
            "model": { "type": "Unigram", "unk_id": 0, "vocab": vocabulary, "byte_fallback": false },
        });
        Tokenizer::from_bytes(file.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn an_unknown_token_begins_a_word() {
        for unknown in ["<unk>", "[UNK]"] {
            let windows = unigram(unknown).windows("abçbc ab", 64, None).unwrap();
            let found: Vec<_> = windows.tokens.iter().map(|t| (t.bytes.clone(), t.continues_word)).collect();
            // As in transformers: the cedilla is not in the vocabulary, and its token has the text of the input.
            let wanted = [(0..1, false), (1..2, true), (2..4, false), (4..5, true), (5..6, true)];
            assert_eq!(found[..5], wanted, "{unknown}: {found:?}");
            assert_eq!(found.last().unwrap(), &(8..9, true));
        }
    }
}
