//! Text out of tokens as they come: never a part of a character, never a part of a stop string, never what the
//! tokenizer's decoder may still take back.

mod steps;
mod stop;

pub use stop::StopFinder;

use super::Tokenizer;
use crate::error::{Result, error};
use std::sync::Arc;
use steps::Steps;

/// The text of a row in the making: none before the first run, then a [`TextStream`] that goes on from run to run.
#[derive(Debug, Clone, Default)]
pub struct RowText(Option<TextStream>);

impl RowText {
    /// Begins a run: see [`super::rows::Rows::begin_text`]. `read` is what the row has already, where `whole` text is
    /// wanted.
    pub fn begin(
        &mut self,
        tokenizer: Option<&Arc<Tokenizer>>,
        keep_special: bool,
        whole: Option<&[i64]>,
    ) -> Result<String> {
        let mut text = String::new();
        if whole.is_some() || self.0.is_none() {
            let mut stream = TextStream::new(keep_special);
            if let (Some(tokenizer), Some(tokens)) = (tokenizer, whole) {
                for token in tokens {
                    text += &stream.push(tokenizer, *token)?;
                }
            }
            self.0 = Some(stream);
        }
        Ok(text)
    }

    /// As [`TextStream::push`]; nothing without a tokenizer, and before the first run.
    pub fn push(&mut self, tokenizer: Option<&Arc<Tokenizer>>, token: i64) -> Result<String> {
        match (tokenizer, &mut self.0) {
            (Some(tokenizer), Some(stream)) => stream.push(tokenizer, token),
            _ => Ok(String::new()),
        }
    }

    /// As [`TextStream::open`]; nothing before the first run.
    pub fn open(&self) -> Result<String> {
        self.0.as_ref().map_or_else(|| Ok(String::new()), TextStream::open)
    }

    /// As [`TextStream::end`]; nothing before the first run.
    pub fn end(&mut self) -> Result<String> {
        self.0.as_mut().map_or_else(|| Ok(String::new()), TextStream::end)
    }
}

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
        let id = u32::try_from(token).map_err(|_| error!(InvalidArgument, "{token} is not a token id"))?;
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
