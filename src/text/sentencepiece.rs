//! The merging of characters to tokens like SentencePiece, for vocabularies with equal scores ([`Merger`]).
//!
//! Of all adjacent pairs that form a token, those with the highest score are merged first, and of equal scores the
//! leftmost. A `tokenizer.json` lists merges and cannot express equal scores: there, the merge listed first has
//! priority at any position. So the readers of SentencePiece vocabularies record which merges are equal, under [`KEY`]
//! in `tokenizer_config.json`, and texts are then merged here.

use crate::error::{Result, bail, error};
use serde::Deserialize;
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use tokenizers::{Token, Tokenizer};

/// The key of `tokenizer_config.json` with the ranges of merges `[first, count]` whose scores are equal although they
/// form different tokens. Merges that form the same token are always equal.
pub const KEY: &str = "equal_merges";

/// A merger of characters to tokens, by the ranks of merges. Several merges may have the same rank.
#[derive(Clone)]
pub struct Merger {
    tokens: HashMap<String, Piece>,
    /// Id of the token of each byte, if all bytes have one.
    bytes: Option<Vec<u32>>,
    unknown: Option<u32>,
}

#[derive(Clone, Copy)]
struct Piece {
    id: u32,
    /// Rank of the merge that forms the token, lower ones first; `None` if it is never formed.
    rank: Option<u32>,
}

/// A part of a text during merging.
struct Symbol {
    start: usize,
    end: usize,
    previous: usize,
    next: usize,
}

const NONE: usize = usize::MAX;

/// The candidates for merging: rank, left symbol, right symbol, and the end of the pair. Symbols may have changed since
/// they were queued.
type Queue = BinaryHeap<Reverse<(u32, usize, usize, usize)>>;

#[derive(Deserialize)]
struct File {
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    merges: Vec<(String, String)>,
    unk_token: Option<String>,
}

impl Merger {
    /// Returns a merger for the merges of `content`, a `tokenizer.json` that `inner` was loaded from. `equal` is the
    /// value of [`KEY`], which says which merges have equal scores; `None` if there is none: then no merger is needed.
    ///
    /// Fails with [`crate::error::Kind::InvalidModel`] if `content` or `equal` is damaged.
    pub fn read(content: &[u8], equal: Option<&Value>, inner: &Tokenizer) -> Result<Option<Merger>> {
        let Some(equal) = equal else { return Ok(None) };
        let ranges: Vec<(usize, usize)> =
            serde_json::from_value(equal.clone()).map_err(|e| error!(InvalidModel, "{KEY:?} is damaged: {e}"))?;
        let file: File = serde_json::from_slice(content)
            .map_err(|e| error!(InvalidModel, "{KEY:?} does not match the pairs of tokens: {e}"))?;
        let joined: Vec<String> = file.model.merges.iter().map(|(left, right)| format!("{left}{right}")).collect();
        // The range of each merge.
        let mut range_of: Vec<Option<usize>> = vec![None; joined.len()];
        let mut end = 0;
        for (range, (first, count)) in ranges.iter().enumerate() {
            let last = first.saturating_add(*count);
            if *first < end || last > joined.len() {
                bail!(InvalidModel, "{KEY:?}: the range {first}, {count} does not follow the others within the merges");
            }
            range_of[*first..last].fill(Some(range));
            end = last;
        }
        let mut tokens: HashMap<String, Piece> =
            inner.get_vocab(false).into_iter().map(|(token, id)| (token, Piece { id, rank: None })).collect();
        let mut rank = 0;
        for (index, token) in joined.iter().enumerate() {
            let together = |index: usize| range_of[index].is_some() && range_of[index] == range_of[index - 1];
            let same = index > 0 && (joined[index - 1] == *token || together(index));
            rank += u32::from(index > 0 && !same);
            if let Some(piece) = tokens.get_mut(token) {
                piece.rank = piece.rank.or(Some(rank));
            }
        }
        let byte = |byte: u8| tokens.get(&format!("<0x{byte:02X}>")).map(|piece| piece.id);
        let bytes = (0..=u8::MAX).map(byte).collect();
        let unknown = file.model.unk_token.and_then(|token| tokens.get(&token)).map(|piece| piece.id);
        Ok(Some(Merger { tokens, bytes, unknown }))
    }

    /// Returns the tokens of a text in which spaces are already replaced. A part without a token becomes the tokens of
    /// its bytes; if the bytes have none, adjacent parts become one unknown token; if there is no unknown token either,
    /// the part is omitted.
    pub fn tokens(&self, text: &str) -> Vec<Token> {
        let mut found: Vec<Token> = Vec::new();
        let mut fused = false;
        for (start, end) in self.merged(text) {
            let part = &text[start..end];
            let token = |id: u32| Token::new(id, part.to_owned(), (start, end));
            match (self.tokens.get(part), &self.bytes, self.unknown) {
                (Some(piece), ..) => found.push(token(piece.id)),
                (None, Some(bytes), _) => found.extend(part.bytes().map(|byte| token(bytes[usize::from(byte)]))),
                (None, None, Some(unknown)) if !fused => found.push(token(unknown)),
                _ => {}
            }
            fused = !self.tokens.contains_key(part);
        }
        found
    }

    /// Returns the beginning and the end of each part that remains after all merges.
    fn merged(&self, text: &str) -> Vec<(usize, usize)> {
        let mut symbols: Vec<Symbol> = Vec::new();
        for (start, character) in text.char_indices() {
            let index = symbols.len();
            let (previous, next) = (index.checked_sub(1).unwrap_or(NONE), index + 1);
            symbols.push(Symbol { start, end: start + character.len_utf8(), previous, next });
        }
        if let Some(last) = symbols.last_mut() {
            last.next = NONE;
        }
        let mut queue = Queue::new();
        let offer = |symbols: &[Symbol], queue: &mut Queue, left: usize, right: usize| {
            if left != NONE && right != NONE {
                let (start, end) = (symbols[left].start, symbols[right].end);
                if let Some(rank) = self.tokens.get(&text[start..end]).and_then(|piece| piece.rank) {
                    queue.push(Reverse((rank, left, right, end)));
                }
            }
        };
        (1..symbols.len()).for_each(|right| offer(&symbols, &mut queue, right - 1, right));
        while let Some(Reverse((_, left, right, end))) = queue.pop() {
            // A symbol that was merged into the previous one is empty.
            let gone = |symbol: &Symbol| symbol.start == symbol.end;
            if gone(&symbols[left]) || gone(&symbols[right]) || symbols[left].next != right || symbols[right].end != end
            {
                continue;
            }
            let next = symbols[right].next;
            symbols[left].end = end;
            symbols[left].next = next;
            symbols[right].start = symbols[right].end;
            if next != NONE {
                symbols[next].previous = left;
            }
            let previous = symbols[left].previous;
            offer(&symbols, &mut queue, previous, left);
            offer(&symbols, &mut queue, left, next);
        }
        symbols.iter().filter(|symbol| symbol.start < symbol.end).map(|symbol| (symbol.start, symbol.end)).collect()
    }
}
