//! The conversion of tokens to text as they arrive. A piece of text never ends inside a character, has no part of a
//! stop string, and no text that the tokenizer's decoder may still change.

mod steps;
mod stop;

pub use stop::StopFinder;

use super::Tokenizer;
use crate::error::{Result, error};
use std::sync::Arc;
use steps::Steps;

/// The text of a row during generation: nothing before the first run, and then a [`TextStream`] that continues from run
/// to run.
#[derive(Debug, Clone, Default)]
pub struct RowText(Option<TextStream>);

impl RowText {
    /// Begins a run (see [`super::rows::RowTexts::begin_text`]). With `whole`, the existing tokens of the row, the text
    /// begins with theirs, which is returned; with `None`, the result is empty. Fails like [`TextStream::push`].
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

    /// Returns the text that a token completes, like [`TextStream::push`]; empty without a tokenizer or before the
    /// first run. Fails like [`TextStream::push`].
    pub fn push(&mut self, tokenizer: Option<&Arc<Tokenizer>>, token: i64) -> Result<String> {
        match (tokenizer, &mut self.0) {
            (Some(tokenizer), Some(stream)) => stream.push(tokenizer, token),
            _ => Ok(String::new()),
        }
    }

    /// Returns the text that would be added if no token followed, like [`TextStream::open`]; empty before the first
    /// run. Fails like [`TextStream::open`].
    pub fn open(&self) -> Result<String> {
        self.0.as_ref().map_or_else(|| Ok(String::new()), TextStream::open)
    }

    /// Returns the rest of the text, like [`TextStream::end`]; empty before the first run. Fails like
    /// [`TextStream::end`].
    pub fn end(&mut self) -> Result<String> {
        self.0.as_mut().map_or_else(|| Ok(String::new()), TextStream::end)
    }
}

/// A converter of tokens to text, one by one. All pieces together, with that of [`TextStream::end`], are the result of
/// decoding all tokens at once.
///
/// Text is returned as soon as no later token can change it. This depends on the decoder. A character of a byte-level
/// vocabulary is returned with the last of its bytes. With byte fallback (SentencePiece), decoders convert a run of
/// byte tokens only as a whole, so its text is returned with the first token after the run.
#[derive(Debug, Clone, Default)]
pub struct TextStream {
    keep_special: bool,
    /// Steps of the decoder; `None` before the first token.
    steps: Option<Steps>,
    /// Text that [`TextStream::end`] returned before it was complete.
    ahead: String,
}

impl TextStream {
    /// Returns a stream at the beginning of a text. Special tokens are omitted unless `keep_special` is set.
    pub fn new(keep_special: bool) -> TextStream {
        TextStream { keep_special, ..TextStream::default() }
    }

    /// Returns the text that `token` completes; empty, for example, in the middle of a character.
    ///
    /// Fails with [`crate::error::Kind::InvalidArgument`] if `token` is negative or has more than 32 bits, and
    /// `InvalidModel` if the decoder fails.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: i64) -> Result<String> {
        let id = u32::try_from(token).map_err(|_| error!(InvalidArgument, "{token} is not a token id"))?;
        let steps = self.steps.get_or_insert_with(|| Steps::of(tokenizer));
        let mut text = String::new();
        if let Some(shown) = tokenizer.shown(id, !self.keep_special) {
            steps.push(shown, &mut text)?;
        }
        Ok(self.beyond(text))
    }

    /// Returns the text that [`TextStream::end`] would return now, without ending the text. Fails like
    /// [`TextStream::end`].
    pub fn open(&self) -> Result<String> {
        self.clone().end()
    }

    /// Returns the rest of the text if no token follows, with an unfinished character as the decoder writes it. If
    /// tokens do follow, their text continues where it differs from what was returned here. Fails with `InvalidModel`
    /// if a decoder of the tokenizer fails.
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

    /// Returns the part of `text` that [`TextStream::end`] has not returned before.
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
