//! The decoder of a tokenizer as a chain of steps that text passes through as it arrives.
//!
//! The decoders of the `tokenizers` crate receive all tokens at once and may look at any of them. Each step here does
//! the same as the decoder of its name, but returns the text that no later token can change, and keeps the rest.

use crate::error::Result;
use crate::text::tokenizer::{Tokenizer, guarded};
use std::sync::Arc;
use tokenizers::Decoder;
use tokenizers::decoders::DecoderWrapper;

/// A step of the decoder, with the text that it holds back.
#[derive(Debug, Clone)]
struct Step {
    /// Decoder of the step; `None` joins tokens with spaces, which is the behaviour without a decoder.
    kind: Option<Arc<DecoderWrapper>>,
    /// Text that the step replaces and its replacement, if the pattern is plain text.
    replace: Option<Arc<(String, String)>>,
    /// Part of the current token that has not been passed on.
    held: String,
    /// Bytes that do not form text yet.
    bytes: Vec<u8>,
    /// Previous token, if the step must receive the next one before it can decode it.
    last: Option<String>,
    /// Whether a token has already been passed on.
    begun: bool,
    /// Number of characters of the current token that have been checked.
    seen: usize,
}

/// The steps of a decoder, first to last.
#[derive(Debug, Clone)]
pub struct Steps(Vec<Step>);

/// A function that receives a part of a token, and whether it is the last part of this token.
type Next<'a> = dyn FnMut(&str, bool) -> Result<()> + 'a;

impl Steps {
    /// Returns the steps of a tokenizer's decoder, at the beginning of a text.
    pub fn of(tokenizer: &Tokenizer) -> Steps {
        let mut kinds = Vec::new();
        match tokenizer.decoder() {
            Some(decoder) => flatten(decoder, &mut kinds),
            None => return Steps(vec![Step::new(None)]),
        }
        Steps(kinds.into_iter().map(|kind| Step::new(Some(kind))).collect())
    }

    /// Adds a token, and appends the text that no later token can change to `out`. Fails with `InvalidModel` if a
    /// decoder of the tokenizer fails.
    pub fn push(&mut self, token: String, out: &mut String) -> Result<()> {
        feed(&mut self.0, &token, true, out)
    }

    /// Appends the text that was held back to `out`, because no more tokens follow. Fails like [`Self::push`].
    pub fn finish(mut self, out: &mut String) -> Result<()> {
        let mut steps = self.0.as_mut_slice();
        while let Some((step, rest)) = std::mem::take(&mut steps).split_first_mut() {
            step.finish(&mut |text, ends| feed(rest, text, ends, out))?;
            steps = rest;
        }
        Ok(())
    }
}

/// Appends the decoders of a sequence to `into`, in order.
fn flatten(decoder: &DecoderWrapper, into: &mut Vec<DecoderWrapper>) {
    match decoder {
        DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().for_each(|inner| flatten(inner, into)),
        other => into.push(other.clone()),
    }
}

/// Passes a part of a token to the first of `steps`, its output to the next, and so on.
fn feed(steps: &mut [Step], text: &str, ends: bool, out: &mut String) -> Result<()> {
    match steps.split_first_mut() {
        Some((step, rest)) => step.take(text, ends, &mut |text, ends| feed(rest, text, ends, out)),
        None => {
            out.push_str(text);
            Ok(())
        }
    }
}

impl Step {
    fn new(kind: Option<DecoderWrapper>) -> Step {
        let replace = kind.as_ref().and_then(plain_pattern).map(Arc::new);
        let kind = kind.map(Arc::new);
        let (held, bytes) = (String::new(), Vec::new());
        Step { kind, replace, held, bytes, last: None, begun: false, seen: 0 }
    }

    /// Processes a part of a token; `ends` says whether it is the last part. Passes text that is complete to `next`.
    fn take(&mut self, text: &str, ends: bool, next: &mut Next<'_>) -> Result<()> {
        match (self.kind.as_deref(), self.replace.clone()) {
            (Some(DecoderWrapper::Fuse(_)), _) => return next(text, false),
            (_, Some(replace)) => return self.replace(text, ends, &replace, next),
            (Some(DecoderWrapper::Strip(strip)), _) => {
                let (content, start, stop) = (strip.content, strip.start, strip.stop);
                return self.strip(text, ends, (content, start, stop), next);
            }
            _ => {}
        }
        self.held.push_str(text);
        if !ends {
            return Ok(());
        }
        let token = std::mem::take(&mut self.held);
        self.whole(token, next)
    }

    /// Processes a whole token. Passes text that is complete to `next`.
    fn whole(&mut self, token: String, next: &mut Next<'_>) -> Result<()> {
        let Some(kind) = self.kind.clone() else {
            let begun = std::mem::replace(&mut self.begun, true);
            return next(&if begun { format!(" {token}") } else { token }, true);
        };
        match &*kind {
            DecoderWrapper::ByteFallback(_) => match byte(&token) {
                Some(byte) => self.bytes.push(byte),
                None => {
                    self.fallen_back(next)?;
                    next(&token, true)?;
                }
            },
            DecoderWrapper::ByteLevel(_) => {
                let bytes: Option<Vec<u8>> = token.chars().map(crate::text::pieces::byte_of).collect();
                self.bytes.extend(bytes.unwrap_or_else(|| token.into_bytes()));
                next(&characters(&mut self.bytes), false)?;
            }
            DecoderWrapper::BPE(_) => {
                // A decoder treats the last token differently, and this may be the last.
                if let Some(before) = self.last.replace(token) {
                    let decoded = chain(&kind, vec![before, String::new()])?;
                    decoded.first().map_or(Ok(()), |token| next(token, true))?;
                }
            }
            DecoderWrapper::CTC(_) => {
                if self.last.as_ref() != Some(&token) {
                    self.last = Some(token.clone());
                    chain(&kind, vec![token])?.iter().try_for_each(|token| next(token, true))?;
                }
            }
            // These decoders only need to know whether another token precedes.
            DecoderWrapper::WordPiece(_) | DecoderWrapper::Metaspace(_) | DecoderWrapper::Replace(_) => {
                let before = usize::from(std::mem::replace(&mut self.begun, true));
                let tokens = std::iter::repeat_n(String::new(), before).chain([token]).collect();
                chain(&kind, tokens)?.iter().skip(before).try_for_each(|token| next(token, true))?;
            }
            DecoderWrapper::Fuse(_) | DecoderWrapper::Strip(_) | DecoderWrapper::Sequence(_) => next(&token, true)?,
        }
        Ok(())
    }

    /// Passes the text that the step has kept on to `next`, because no token follows.
    fn finish(&mut self, next: &mut Next<'_>) -> Result<()> {
        let Some(kind) = self.kind.clone() else { return Ok(()) };
        match &*kind {
            DecoderWrapper::ByteFallback(_) => self.fallen_back(next),
            DecoderWrapper::ByteLevel(_) => next(&String::from_utf8_lossy(&std::mem::take(&mut self.bytes)), true),
            DecoderWrapper::Fuse(_) => next("", true),
            DecoderWrapper::BPE(_) => match self.last.take() {
                Some(token) => chain(&kind, vec![token])?.iter().try_for_each(|token| next(token, true)),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Ends a run of byte tokens: as text if all of it is valid, otherwise as one replacement character per byte.
    fn fallen_back(&mut self, next: &mut Next<'_>) -> Result<()> {
        match String::from_utf8(std::mem::take(&mut self.bytes)) {
            Ok(text) if text.is_empty() => Ok(()),
            Ok(text) => next(&text, true),
            Err(e) => e.as_bytes().iter().try_for_each(|_| next("\u{FFFD}", true)),
        }
    }

    /// Processes a part of a token by `Strip`, which removes up to `start` characters at the beginning of a token and
    /// up to `stop` at its end.
    fn strip(
        &mut self,
        text: &str,
        ends: bool,
        (content, start, stop): (char, usize, usize),
        next: &mut Next<'_>,
    ) -> Result<()> {
        for c in text.chars() {
            let strips = self.seen < start && c == content;
            // After the first other character, nothing more is stripped from the beginning.
            self.seen = if strips { self.seen + 1 } else { usize::MAX };
            if !strips {
                self.held.push(c);
            }
        }
        // The last characters may be the end of the token.
        let keep = if ends { 0 } else { stop };
        let at = self.held.char_indices().rev().take(keep).last().map_or(self.held.len(), |(at, _)| at);
        let mut rest = self.held.split_off(at);
        std::mem::swap(&mut rest, &mut self.held);
        if ends {
            for _ in 0..stop {
                rest = match rest.strip_suffix(content) {
                    Some(shorter) => shorter.to_owned(),
                    None => break,
                };
            }
            self.seen = 0;
        }
        next(&rest, ends)
    }

    /// Processes a part of a token by `Replace` of plain text.
    fn replace(
        &mut self,
        text: &str,
        ends: bool,
        (pattern, content): &(String, String),
        next: &mut Next<'_>,
    ) -> Result<()> {
        self.held.push_str(text);
        let mut out = String::new();
        let mut from = 0;
        while let Some(at) = self.held[from..].find(pattern.as_str()) {
            out.push_str(&self.held[from..from + at]);
            out.push_str(content);
            from += at + pattern.len();
        }
        let rest = &self.held[from..];
        // A possible beginning of the pattern waits for the rest.
        let begins = |at: &usize| rest.is_char_boundary(*at) && pattern.starts_with(&rest[*at..]);
        let low = rest.len().saturating_sub(pattern.len());
        let at = if ends { rest.len() } else { (low..rest.len()).find(begins).unwrap_or(rest.len()) };
        out.push_str(&rest[..at]);
        self.held.drain(..from + at);
        next(&out, ends)
    }
}

/// Returns tokens as a decoder of the crate converts them.
fn chain(kind: &DecoderWrapper, tokens: Vec<String>) -> Result<Vec<String>> {
    guarded(|| kind.decode_chain(tokens))
}

/// Returns the plain text that a `Replace` searches for, and its replacement; `None` if it is not plain.
fn plain_pattern(kind: &DecoderWrapper) -> Option<(String, String)> {
    let DecoderWrapper::Replace(replace) = kind else { return None };
    let described = serde_json::to_value(replace).ok()?;
    let pattern = described.get("pattern")?.get("String")?.as_str().filter(|pattern| !pattern.is_empty())?;
    Some((pattern.to_owned(), replace.content.clone()))
}

/// Returns the byte of a token `<0xNN>`, NN being two hexadecimal digits; `None` for other tokens.
fn byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>').filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok()
}

/// Removes all complete characters from the front of `bytes` and returns them. Invalid bytes become replacement
/// characters.
fn characters(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut rest = bytes.as_slice();
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                rest = &[];
                break;
            }
            Err(e) => {
                let (valid, after) = rest.split_at(e.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                rest = after;
                match e.error_len() {
                    Some(length) => {
                        text.push(char::REPLACEMENT_CHARACTER);
                        rest = &rest[length..];
                    }
                    None => break,
                }
            }
        }
    }
    let left = rest.len();
    bytes.drain(..bytes.len() - left);
    text
}
