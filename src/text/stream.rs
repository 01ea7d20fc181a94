//! Text out of tokens as they come: never a part of a character, never a part of a stop string, never what the
//! tokenizer's decoder may still take back.

mod steps;
mod stop;

pub use stop::StopFinder;

use super::Tokenizer;
use crate::error::{Result, error};
use steps::Steps;

/// Turns tokens into text one by one. All pieces together, with that of [`TextStream::end`], are what decoding all
/// tokens at once gives, whatever the tokenizer's decoder.
///
/// Text comes as soon as no later token can change it. How soon that is depends on the decoder: a character of a
/// byte-level vocabulary comes with the last of its bytes; where bytes are a fallback (SentencePiece), decoders judge
/// a run of them as a whole, so it comes with the first token after the run.
#[derive(Debug, Clone, Default)]
pub struct TextStream {
    keep_special: bool,
    /// The decoder, step by step; `None` before the first token.
    steps: Option<Steps>,
    /// Text that [`TextStream::end`] gave before it was certain.
    ahead: String,
}

impl TextStream {
    /// A stream at the beginning of a text. Special tokens give no text, unless they are to be kept.
    pub fn new(keep_special: bool) -> TextStream {
        TextStream { keep_special, ..TextStream::default() }
    }

    /// The text that is certain now that `token` has come; empty in the middle of a character.
    ///
    /// [`crate::error::Kind::InvalidArgument`] if it is not the id of a token.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: i64) -> Result<String> {
        let id = u32::try_from(token).map_err(|_| error!(InvalidArgument, "{token} is not the id of a token"))?;
        let steps = self.steps.get_or_insert_with(|| Steps::of(tokenizer));
        let mut text = String::new();
        if let Some(shown) = tokenizer.shown(id, !self.keep_special) {
            steps.push(shown, &mut text)?;
        }
        Ok(self.beyond(text))
    }

    /// The text that would come if no token followed.
    pub fn open(&self) -> Result<String> {
        self.clone().end()
    }

    /// The rest of the text if no token follows: an unfinished character as the decoder writes it. If tokens do
    /// follow, their text goes on where it differs from what was given here.
    pub fn end(&mut self) -> Result<String> {
        let mut rest = String::new();
        if let Some(steps) = &self.steps {
            steps.clone().finish(&mut rest)?;
        }
        let whole = rest.clone();
        let rest = self.beyond(rest);
        self.ahead = whole;
        Ok(rest)
    }

    /// What of `text` was not given ahead of its time.
    fn beyond(&mut self, text: String) -> String {
        if self.ahead.is_empty() {
            return text;
        }
        let same = self.ahead.chars().zip(text.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
        if same == text.len() {
            self.ahead.drain(..same);
            return String::new();
        }
        self.ahead.clear();
        text[same..].to_owned()
    }
}

#[cfg(test)]
mod tests;
