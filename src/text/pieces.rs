//! The bytes of text of each token of a vocabulary ([`Pieces`]).

use super::Tokenizer;
use crate::error::{Result, bail};
use std::collections::HashMap;

/// The bytes of the tokens of a [`Tokenizer`], and the reverse mapping.
pub struct Pieces {
    /// Bytes of each token by id; `None` for special tokens and unused ids.
    bytes: Vec<Option<Vec<u8>>>,
    /// Id of each piece of bytes; the lowest if several tokens have the same bytes.
    ids: HashMap<Vec<u8>, i64>,
    /// Length of the longest piece in bytes.
    longest: usize,
}

/// The way in which the tokens of a vocabulary represent bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alphabet {
    /// Tokens have one character per byte (GPT-2): printable bytes are themselves, others start at U+0100.
    ByteLevel,
    /// Tokens are text with U+2581 for a space, and `<0xNN>` for a byte that is not text (SentencePiece).
    SentencePiece,
    /// Tokens with `##` continue a word, and others begin one, after a space (BERT).
    WordPiece,
}

impl Pieces {
    /// Returns the bytes of the tokens of a vocabulary. Fails with [`crate::error::Kind::Unsupported`] if the
    /// tokenizer's decoder does not determine the bytes of single tokens.
    pub fn of(tokenizer: &Tokenizer) -> Result<Pieces> {
        let decoder = tokenizer.decoder_kinds();
        let has = |kind: &str| decoder.iter().any(|found| found == kind);
        let alphabet = match () {
            () if has("ByteLevel") => Alphabet::ByteLevel,
            () if has("ByteFallback") || has("Metaspace") || has("Replace") => Alphabet::SentencePiece,
            () if has("WordPiece") => Alphabet::WordPiece,
            () => {
                bail!(
                    Unsupported,
                    "the tokenizer's decoder ({}) does not determine the text of single tokens",
                    decoder.join(", ")
                )
            }
        };
        let added = tokenizer.added_tokens();
        let tokens = tokenizer.tokens();
        let mut bytes = vec![None; tokens.values().max().map_or(0, |last| *last as usize + 1)];
        for (token, id) in &tokens {
            bytes[*id as usize] = match added.get(id) {
                Some(special) if *special => None,
                // Added tokens are plain text in every alphabet.
                Some(_) => Some(token.clone().into_bytes()),
                None => Some(alphabet.bytes(token)),
            };
        }
        let mut ids = HashMap::with_capacity(bytes.len());
        for (id, piece) in bytes.iter().enumerate().rev() {
            if let Some(piece) = piece.as_ref().filter(|piece| !piece.is_empty()) {
                ids.insert(piece.clone(), id as i64);
            }
        }
        let longest = ids.keys().map(Vec::len).max().unwrap_or(0);
        Ok(Pieces { bytes, ids, longest })
    }

    /// Returns the bytes of a token; `None` for special tokens and unused ids.
    pub fn bytes(&self, id: usize) -> Option<&[u8]> {
        self.bytes.get(id)?.as_deref()
    }

    /// Returns the id of the token with exactly these bytes, the lowest of several; `None` if there is none.
    pub fn id(&self, bytes: &[u8]) -> Option<i64> {
        self.ids.get(bytes).copied()
    }

    /// Returns the id of the token of the longest prefix of these bytes; `None` if there is none.
    pub fn id_of_beginning(&self, bytes: &[u8]) -> Option<i64> {
        (1..=bytes.len().min(self.longest)).rev().find_map(|end| self.id(&bytes[..end]))
    }

    /// Returns whether each byte that occurs in UTF-8 only as a part of a longer character has a token of its own.
    pub fn has_all_bytes(&self) -> bool {
        (0x80..=0xF4u8).filter(|byte| !matches!(byte, 0xC0 | 0xC1)).all(|byte| self.ids.contains_key(&[byte][..]))
    }

    /// Returns the highest id of the vocabulary plus one; 0 for an empty vocabulary.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl Alphabet {
    fn bytes(self, token: &str) -> Vec<u8> {
        match self {
            Alphabet::ByteLevel => {
                let known: Option<Vec<u8>> = token.chars().map(byte_of).collect();
                known.unwrap_or_else(|| token.as_bytes().to_vec())
            }
            Alphabet::SentencePiece => {
                let hex = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
                match hex.filter(|hex| hex.len() == 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    Some(byte) => vec![byte],
                    None => token.replace('\u{2581}', " ").into_bytes(),
                }
            }
            Alphabet::WordPiece => match token.strip_prefix("##") {
                Some(rest) => rest.as_bytes().to_vec(),
                None => format!(" {token}").into_bytes(),
            },
        }
    }
}

/// Returns the byte of a character of the byte-level alphabet. Source: `bytes_to_unicode` of GPT-2's encoder: printable
/// bytes are themselves, the others count up from U+0100 in order. `None` for characters outside the alphabet.
pub(super) fn byte_of(character: char) -> Option<u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    match u32::from(character) {
        code @ 0..=0xFF => u8::try_from(code).ok().filter(|byte| printable(*byte)),
        code => (0..=255u8).filter(|byte| !printable(*byte)).nth((code - 0x100) as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character_and_comes_back() {
        // The space is U+0120, the line feed U+010A.
        assert_eq!(
            (byte_of('Ġ'), byte_of('Ċ'), byte_of('a'), byte_of('é')),
            (Some(32), Some(10), Some(97), Some(0xE9))
        );
        assert_eq!((byte_of(' '), byte_of('\u{143}'), byte_of('\u{144}')), (None, Some(0xAD), None));
        let all: std::collections::HashSet<u8> = (0..0x144).filter_map(char::from_u32).filter_map(byte_of).collect();
        assert_eq!(all.len(), 256);
    }

    #[test]
    fn pieces_are_what_the_tokenizer_decodes() {
        let word = Tokenizer::load(&crate::runtime::test_deps("models/all-MiniLM-L6-v2")).unwrap();
        let pieces = Pieces::of(&word).unwrap();
        let id = word.token_id("##ing").unwrap();
        assert_eq!(pieces.bytes(id as usize).unwrap(), b"ing");
        assert_eq!(pieces.id(b" hello"), word.token_id("hello"));
        assert_eq!((pieces.bytes(101), pieces.has_all_bytes()), (None, false));
        assert_eq!(pieces.id_of_beginning(b" hellos"), word.token_id("hello"));
        assert_eq!((pieces.len(), pieces.is_empty()), (30522, false));
        let sentence = Alphabet::SentencePiece;
        assert_eq!((sentence.bytes("\u{2581}the"), sentence.bytes("<0x0A>")), (b" the".to_vec(), vec![10]));
        assert_eq!(sentence.bytes("<0xZZ>"), b"<0xZZ>");
    }
}
