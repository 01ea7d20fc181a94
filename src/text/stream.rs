//! Text out of tokens as they come: never a part of a character, never a part of a stop string.

use super::Tokenizer;
use crate::error::Result;

/// What decoders write for bytes that are no character (yet).
const UNKNOWN: char = char::REPLACEMENT_CHARACTER;
/// A character has up to four bytes: of an unfinished one, up to three are there.
const UNFINISHED: usize = 3;

/// Tokens without text that are kept as context before the window moves on all the same.
const SILENT: usize = 32;

/// Turns tokens into text one by one. A character that is spread over several tokens comes out with the last of
/// them; all pieces together are what decoding all tokens at once gives.
///
/// A token's text can depend on the token before it (spaces, mostly), so each piece is decoded with the few tokens
/// before it in front.
#[derive(Debug, Clone, Default)]
pub struct TextStream {
    /// The latest tokens: those before `fresh` have given all their text and are there as context.
    tokens: Vec<i64>,
    fresh: usize,
    /// Bytes of the text of all `tokens` that have been given.
    given: usize,
    keep_special: bool,
}

impl TextStream {
    /// A stream at the beginning of a text. Special tokens give no text, unless they are to be kept.
    pub fn new(keep_special: bool) -> TextStream {
        TextStream { keep_special, ..TextStream::default() }
    }

    /// The text that is certain now that `token` has come; empty in the middle of a character.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: i64) -> Result<String> {
        self.tokens.push(token);
        let text = tokenizer.decode(&self.tokens, !self.keep_special)?;
        let certain = certain(&text);
        // A decoder that takes back what it gave before (it should not) gives nothing until it has caught up.
        let piece = text.get(self.given..certain).unwrap_or_default().to_owned();
        self.given = self.given.max(certain);
        if certain == text.len() && (!piece.is_empty() || self.tokens.len() > SILENT) {
            self.forget(tokenizer)?;
        }
        Ok(piece)
    }

    /// Lets go of tokens that are no context for the next one any more.
    fn forget(&mut self, tokenizer: &Tokenizer) -> Result<()> {
        if self.fresh > 0 {
            self.tokens.drain(..self.fresh);
            self.given = tokenizer.decode(&self.tokens, !self.keep_special)?.len();
        }
        self.fresh = self.tokens.len();
        Ok(())
    }
}

/// How many bytes of `text` no later token will change: all but an unfinished character at the end.
fn certain(text: &str) -> usize {
    let mut end = text.len();
    for _ in 0..UNFINISHED {
        match text[..end].strip_suffix(UNKNOWN) {
            Some(before) => end = before.len(),
            None => break,
        }
    }
    end
}

/// Looks for stop strings in a text that comes in pieces.
#[derive(Debug, Clone, Default)]
pub struct StopFinder {
    stops: Vec<String>,
    /// Text that may be the beginning of a stop string.
    held: String,
}

impl StopFinder {
    /// A finder of any of `stops`; empty ones are ignored.
    pub fn new(stops: &[String]) -> StopFinder {
        StopFinder { stops: stops.iter().filter(|stop| !stop.is_empty()).cloned().collect(), held: String::new() }
    }

    /// Takes a piece; gives the text that is certainly before any stop string, and whether one was found. What
    /// comes after it is dropped.
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        if self.stops.is_empty() {
            return (piece.to_owned(), false);
        }
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let begins = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        // Only the last characters can begin a stop string.
        let from = self.held.len().saturating_sub(longest);
        let at = (from..self.held.len()).filter(|at| self.held.is_char_boundary(*at)).find(begins);
        let rest = self.held.split_off(at.unwrap_or(self.held.len()));
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The text that was held back: there is no more to come, so it begins no stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte-level tokenizer whose tokens are the single bytes, in the alphabet such tokenizers use, then one
    /// special token.
    fn bytes() -> Tokenizer {
        let mut shown: Vec<char> = Vec::new();
        let mut next = 256;
        for byte in 0..=255u8 {
            let printable = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
            shown.push(if printable { char::from(byte) } else { char::from_u32(next).unwrap() });
            next += u32::from(!printable);
        }
        let vocabulary: serde_json::Map<String, serde_json::Value> =
            shown.iter().enumerate().map(|(id, c)| (c.to_string(), id.into())).collect();
        let tokenizer = serde_json::json!({
            "version": "1.0", "normalizer": null, "post_processor": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
            "added_tokens": [{"id": 256, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true}],
            "model": {"type": "BPE", "vocab": vocabulary, "merges": []}
        });
        Tokenizer::from_bytes(tokenizer.to_string().as_bytes()).unwrap()
    }

    fn pieces(tokens: &[u8]) -> Vec<String> {
        let (tokenizer, mut stream) = (bytes(), TextStream::new(false));
        tokens.iter().map(|byte| stream.push(&tokenizer, i64::from(*byte)).unwrap()).collect()
    }

    #[test]
    fn characters_come_whole() {
        assert_eq!(pieces("aé😀b".as_bytes()), ["a", "", "é", "", "", "", "😀", "b"]);
        let long = "Grüße, 世界! 👩‍👩‍👧 ".repeat(20);
        let got = pieces(long.as_bytes());
        assert_eq!(got.concat(), long);
        assert!(got.iter().all(|piece| !piece.contains(UNKNOWN)));
    }

    #[test]
    fn bytes_that_are_no_text_come_out_marked_and_an_unfinished_end_stays_in() {
        assert_eq!(pieces(b"a\xFFb").concat(), "a\u{FFFD}b");
        assert_eq!(pieces(b"a\xF0\x9F").concat(), "a");
        // However long the nonsense, it is not held back without end.
        let nonsense = pieces(&[0xFF; 100]).concat();
        assert!(nonsense.chars().count() >= 97, "{}", nonsense.len());
        assert_eq!(pieces("a\u{FFFD}b".as_bytes()).concat(), "a\u{FFFD}b");
    }

    #[test]
    fn special_tokens_are_silent_unless_kept() {
        let tokenizer = bytes();
        for (keep, expected) in [(false, "ab"), (true, "a<end>b")] {
            let mut stream = TextStream::new(keep);
            let text: String = [97, 256, 98].iter().map(|t| stream.push(&tokenizer, *t).unwrap()).collect();
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn the_pieces_of_a_stream_are_the_text_of_all_tokens() {
        let tokenizer = Tokenizer::load(&crate::runtime::test_deps("models/paraphrase-MiniLM-L3-v2")).unwrap();
        let ids = tokenizer.encode("An unbelievably long tokenization, isn't it? (42)", false).unwrap().ids;
        let mut stream = TextStream::new(false);
        let text: String = ids.iter().map(|id| stream.push(&tokenizer, *id).unwrap()).collect();
        assert_eq!(text, tokenizer.decode(&ids, true).unwrap());
    }

    fn found(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut finder = StopFinder::new(&stops.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        let mut given = Vec::new();
        for piece in pieces {
            let (text, stop) = finder.push(piece);
            given.push(text);
            if stop {
                return (given, true);
            }
        }
        given.push(finder.finish());
        (given, false)
    }

    #[test]
    fn stop_strings_are_found_across_pieces_and_never_shown() {
        assert_eq!(found(&["STOP"], &["a S", "T", "OP b"]), (vec!["a ".into(), "".into(), "".into()], true));
        let (given, stop) = found(&["STOP"], &["a S", "T", "UP"]);
        assert_eq!((given.concat(), given[0].as_str(), stop), ("a STUP".into(), "a ", false));
        assert_eq!(found(&["\n\n", "end"], &["x\n", "y\n", "\nend"]).0.concat(), "x\ny");
        assert_eq!(found(&["aab"], &["a", "a", "a", "b"]), (vec!["".into(), "".into(), "a".into(), "".into()], true));
        assert_eq!(found(&["é!"], &["caf", "é", "?"]).0, ["caf", "", "é?", ""]);
        assert_eq!(found(&["ends here"], &["it en"]).0, ["it ", "en"]);
        assert_eq!(found(&[], &["a", "b"]).0, ["a", "b", ""]);
        assert_eq!(found(&[""], &["a"]).0, ["a", ""]);
    }
}
