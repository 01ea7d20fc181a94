//! The vocabulary of a GGUF file: tokens, their kinds, merges and special ids.

use super::values::Keys;
use crate::error::{Context, Result, bail, error};
use crate::limits;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The kind of a token, by its value in the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A token that is text.
    Normal,
    /// The token for unknown pieces of text.
    Unknown,
    /// A control token (`<|im_end|>`), not text.
    Control,
    /// Text that is never split.
    UserDefined,
    /// A token that is not used.
    Unused,
    /// A token for one byte.
    Byte,
}

/// The tokens of a file, with their kinds.
pub struct Vocabulary<'k> {
    /// Texts of the tokens, by id.
    pub tokens: Vec<Cow<'k, str>>,
    /// Kinds of the tokens, by id.
    pub kinds: Vec<TokenKind>,
    ids: HashMap<Cow<'k, str>, u32>,
}

/// The score, the merged token, the left token and the right token of a merge.
type Merge = (f32, u32, u32, u32);

/// Sorts merges of equal score so that a program that takes the first listed merge also merges the leftmost pair, as
/// far as an order of merges can express this. A merge in which a token is on the left comes before one in which the
/// token is on the right.
fn leftmost_first(group: &mut [Merge]) {
    let mut outgoing: BTreeMap<u32, Vec<Merge>> = BTreeMap::new();
    let mut waiting: HashMap<u32, usize> = HashMap::new();
    for merge in group.iter() {
        outgoing.entry(merge.2).or_default().push(*merge);
        *waiting.entry(merge.3).or_default() += 1;
    }
    let free = |waiting: &HashMap<u32, usize>, token: &u32| waiting.get(token).is_none_or(|count| *count == 0);
    let mut ready: BTreeSet<u32> = outgoing.keys().copied().filter(|token| free(&waiting, token)).collect();
    let mut place = 0;
    // If tokens depend on each other (ab, ba), the one with the lowest id comes first.
    while let Some(token) = ready.pop_first().or_else(|| outgoing.keys().next().copied()) {
        for merge in outgoing.remove(&token).unwrap_or_default() {
            group[place] = merge;
            place += 1;
            if let Some(count) = waiting.get_mut(&merge.3) {
                *count -= 1;
            }
            if free(&waiting, &merge.3) && outgoing.contains_key(&merge.3) {
                ready.insert(merge.3);
            }
        }
    }
}

/// The merges of a vocabulary with scores.
pub struct Scored<'v> {
    /// Pairs of tokens to merge, in order of priority.
    pub merges: Vec<(&'v str, &'v str)>,
    /// Index of the first merge and number of the merges, for each run of merges whose scores are equal although they
    /// form different tokens. Merges of one token always have equal scores.
    pub equal: Vec<(usize, usize)>,
}

/// The ids of special tokens; `None` for missing and invalid ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Id of the token at the beginning of a text.
    pub bos: Option<u32>,
    /// Id of the token at the end of a text.
    pub eos: Option<u32>,
    /// Id of the padding token.
    pub pad: Option<u32>,
    /// Id of the unknown token.
    pub unknown: Option<u32>,
    /// Ids of the tokens that end a generated text, `eos` first.
    pub ends: Vec<u32>,
}

/// The tokens by which models end a turn, for files that name only one end.
const ENDS: [&str; 9] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<EOT>",
    "<｜end▁of▁sentence｜>",
];

impl<'k> Vocabulary<'k> {
    /// Returns the tokens of a file. Tokens without text get one, `[EMPTY_n]` for the id `n`. Fails with `InvalidModel`
    /// if there are none or two have the same text, and `LimitExceeded` for sizes beyond the limits.
    pub fn read(keys: &'k Keys) -> Result<Vocabulary<'k>> {
        const TOKENS: &str = "tokenizer.ggml.tokens";
        let Some(texts) = keys.texts(TOKENS, limits::VOCABULARY)? else {
            bail!(InvalidModel, "the file has no {TOKENS:?}");
        };
        let bytes: u64 = texts.iter().map(|text| text.len() as u64).sum();
        if bytes > limits::SIDE_FILE_BYTES / 8 {
            bail!(LimitExceeded, "the tokens have {bytes} bytes; the limit is {}", limits::SIDE_FILE_BYTES / 8);
        }
        let kinds = kinds(keys, texts.len())?;
        let name = |(id, text): (usize, &'k str)| match text {
            "" => Cow::Owned(format!("[EMPTY_{id}]")),
            text => Cow::Borrowed(text),
        };
        let tokens: Vec<Cow<'k, str>> = texts.into_iter().enumerate().map(name).collect();
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if let Some(other) = ids.insert(token.clone(), id as u32) {
                bail!(InvalidModel, "the tokens {other} and {id} have the same text {token:?}");
            }
        }
        Ok(Vocabulary { tokens, kinds, ids })
    }

    /// Returns the id of the token with the text `token`; `None` if there is none.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    /// Returns the text of the token `id`; empty if there is no such token.
    pub fn text(&self, id: u32) -> &str {
        self.tokens.get(id as usize).map_or("", |text| text)
    }

    /// Returns the ids of special tokens. Fails with `InvalidModel` if an id is not an integer.
    pub fn special_ids(&self, keys: &Keys) -> Result<SpecialIds> {
        let id = |name: &str| -> Result<Option<u32>> {
            let given = keys.integer(&format!("tokenizer.ggml.{name}_token_id"))?;
            // Existing files have ids beyond the vocabulary for tokens that they do not have.
            Ok(given.and_then(|id| u32::try_from(id).ok()).filter(|id| (*id as usize) < self.tokens.len()))
        };
        let eos = id("eos")?;
        let named = ENDS.iter().filter_map(|text| self.id(text));
        let named = named.filter(|id| self.kinds[*id as usize] == TokenKind::Control);
        let mut ends: Vec<u32> = Vec::new();
        for end in eos.into_iter().chain(id("eot")?).chain(id("eom")?).chain(named) {
            if !ends.contains(&end) {
                ends.push(end);
            }
        }
        Ok(SpecialIds { bos: id("bos")?, eos, pad: id("padding")?, unknown: id("unknown")?, ends })
    }

    /// Returns the merges that the file lists: pairs of tokens to merge, in order of priority. Fails with
    /// `InvalidModel` if there is no list, or if a merge is not a pair of tokens that forms a token.
    pub fn listed_merges(&self, keys: &'k Keys) -> Result<Vec<(&'k str, &'k str)>> {
        const MERGES: &str = "tokenizer.ggml.merges";
        let Some(texts) = keys.texts(MERGES, limits::VOCABULARY)? else {
            bail!(InvalidModel, "the file has no {MERGES:?}");
        };
        let split = |(index, text): (usize, &'k str)| {
            // The space at which a merge is split is not its first character: if spaces are not encoded, a token may
            // begin with one.
            let second = text.char_indices().nth(1).map_or(text.len(), |(at, _)| at);
            let Some(at) = text[second..].find(' ').map(|at| second + at) else {
                bail!(InvalidModel, "merge {index}, {text:?}, is not a pair");
            };
            let pair = (&text[..at], &text[at + 1..]);
            let joined = [pair.0, pair.1].concat();
            match [pair.0, pair.1, &joined].into_iter().find(|part| self.id(part).is_none()) {
                Some(part) => bail!(InvalidModel, "merge {index}, {text:?}, needs {part:?}, which is not a token"),
                None => Ok(pair),
            }
        };
        texts.into_iter().enumerate().map(split).collect()
    }

    /// Returns the merges of a SentencePiece vocabulary in order of priority: of all adjacent pairs that form a token,
    /// those with the highest score are merged first, and of equal scores the leftmost. Fails with `InvalidModel` if
    /// there is no score for each token, and `LimitExceeded` for too many merges.
    pub fn scored_merges(&self, keys: &Keys) -> Result<Scored<'_>> {
        const SCORES: &str = "tokenizer.ggml.scores";
        let Some(scores) = keys.floats(SCORES, limits::VOCABULARY)? else {
            bail!(InvalidModel, "the file has no {SCORES:?}");
        };
        if scores.len() < self.tokens.len() {
            bail!(InvalidModel, "{SCORES:?} has {} entries for {} tokens", scores.len(), self.tokens.len());
        }
        let joins = |id: u32| matches!(self.kinds[id as usize], TokenKind::Normal | TokenKind::UserDefined);
        let mut merges: Vec<Merge> = Vec::new();
        for (id, token) in self.tokens.iter().enumerate().filter(|(id, _)| joins(*id as u32)) {
            // Longer tokens are lines of spaces or dashes, which are never split.
            for (at, _) in token.char_indices().skip(1).take(limits::MERGED_CHARACTERS) {
                let (left, right) = token.split_at(at);
                if let (Some(left), Some(right)) = (self.id(left), self.id(right))
                    && joins(left)
                    && joins(right)
                {
                    merges.push((scores[id], id as u32, left, right));
                }
            }
            if merges.len() > limits::VOCABULARY {
                bail!(LimitExceeded, "the vocabulary has more than {} merges", limits::VOCABULARY);
            }
        }
        // 0 and -0 are the same score.
        merges.iter_mut().for_each(|merge| merge.0 += 0.0);
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2, a.3).cmp(&(b.1, b.2, b.3))));
        let mut equal = Vec::new();
        let mut first = 0;
        for group in merges.chunk_by_mut(|a, b| a.0.total_cmp(&b.0).is_eq()) {
            // Merges that form the same token always have equal scores; a group is recorded if it has merges that form
            // different tokens.
            if group.iter().any(|merge| merge.1 != group[0].1) {
                equal.push((first, group.len()));
                leftmost_first(group);
            }
            first += group.len();
        }
        let merges = merges.iter().map(|(_, _, left, right)| (self.text(*left), self.text(*right))).collect();
        Ok(Scored { merges, equal })
    }
}

fn kinds(keys: &Keys, count: usize) -> Result<Vec<TokenKind>> {
    const KINDS: &str = "tokenizer.ggml.token_type";
    let Some(numbers) = keys.integers(KINDS, limits::VOCABULARY)? else { return Ok(vec![TokenKind::Normal; count]) };
    if numbers.len() < count {
        bail!(InvalidModel, "{KINDS:?} has {} entries for {count} tokens", numbers.len());
    }
    let kind = |(id, number): (usize, &i32)| match number {
        0 | 1 => Ok(TokenKind::Normal),
        2 => Ok(TokenKind::Unknown),
        3 => Ok(TokenKind::Control),
        4 => Ok(TokenKind::UserDefined),
        5 => Ok(TokenKind::Unused),
        6 => Ok(TokenKind::Byte),
        other => Err(error!(InvalidModel, "{other} is not a token type")).at(|| format!("token {id}")),
    };
    numbers.iter().take(count).enumerate().map(kind).collect()
}
