//! The generation of text by members with different vocabularies, which are combined by the text of their tokens
//! ([`Union`]).
//!
//! At every token the best candidates of each member are combined by their bytes; each member scores all candidates.
//! The score of a candidate is that of the member's token with the same bytes, or otherwise of its token for the
//! longest prefix of these bytes. The selected candidate is appended to the text, and every member reads the text in
//! its own tokens; if these differ from the tokens that it has read, it continues from the first difference. All
//! end-of-text tokens are one candidate. Source: Yao et al., "Determine-Then-Ensemble", 2024 (UniTE).
//!
//! For callers, tokens have the ids of the first member's vocabulary; pieces of text without a token there get ids
//! beyond it, in order of appearance.

use super::chorus::Voices;
use super::combine::{Combined, Combiner};
use super::{Ensemble, place};
use crate::call::Call;
use crate::error::{Context, Result, bail, error};
use crate::model::GenerationDefaults;
use crate::runtime::{Placement, Runtime, SessionOptions, Stop};
use crate::text::generate;
use crate::text::{GenerateOptions, Generation, OnToken, Pieces, Prompt, RowTexts, Rows, Tokenizer, Uncertainty};
use std::collections::HashMap;
use std::sync::Arc;

/// The number of candidates of each member. More are considered only if none of these can continue the text.
const CANDIDATES: usize = 20;

pub(super) struct Union {
    voices: Voices,
    /// Vocabularies of the generators.
    speakers: Vec<Speaker>,
    combiner: Combiner,
    rows: Vec<Row>,
    ids: Ids,
    defaults: GenerationDefaults,
    /// Whether all members have tokens for single bytes, so that a token may end inside a character.
    bytes: bool,
}

/// The tokenizer and the pieces of a generator.
struct Speaker {
    tokenizer: Arc<Tokenizer>,
    pieces: Pieces,
    ends: Vec<i64>,
}

/// The ids of pieces of text.
struct Ids {
    /// Pieces beyond the first member's vocabulary, whose ids begin with `base`.
    pieces: Vec<Vec<u8>>,
    found: HashMap<Vec<u8>, i64>,
    base: i64,
    /// Id of the candidate that ends a text.
    end: i64,
}

#[derive(Default)]
struct Row {
    /// Prompt of the row, and whether special tokens are added to it; `None` before there is one.
    start: Option<(String, bool)>,
    /// Text of the row after the prompt.
    text: Vec<u8>,
    /// Number of bytes of `text` that have been emitted.
    given: usize,
    tokens: Vec<i64>,
    next: Option<Next>,
}

/// The candidates of the next token.
struct Next {
    /// Combined logits of all ids; negative infinity for ids that are not candidates.
    logits: Vec<f32>,
    /// Ids of the candidates, in the order of `combined`.
    ids: Vec<i64>,
    combined: Combined,
}

impl Union {
    /// Loads the members with their tokenizers, and returns them. Fails with `InvalidArgument` if a member has no
    /// tokenizer, and like [`Voices::with_tokenizers`].
    pub fn new(ensemble: &Ensemble, runtime: &'static Runtime, options: &SessionOptions, call: &Call) -> Result<Union> {
        let members = ensemble.members();
        let mut speakers = Vec::new();
        let voices = Voices::with_tokenizers(ensemble, runtime, options, call, |index| {
            let model = &members[index].model;
            let Some(tokenizer) = Tokenizer::of(model)?.map(Arc::new) else {
                bail!(InvalidArgument, "{}: there is no tokenizer to decode its tokens", place(index));
            };
            let pieces = Pieces::of(&tokenizer).at(|| place(index))?;
            let ends = model.card().generation.eos_token_ids.clone();
            speakers.push(Speaker { tokenizer: tokenizer.clone(), pieces, ends });
            Ok(Some(tokenizer))
        })?;
        let first = speakers.first().ok_or_else(|| error!(Internal, "the ensemble has no members"))?;
        let base = first.pieces.len() as i64;
        let end = first.ends.first().copied().unwrap_or(base);
        let ids = Ids { pieces: vec![Vec::new(); usize::from(end == base)], found: HashMap::new(), base, end };
        let defaults = voices.generators[0].defaults().clone();
        let defaults = GenerationDefaults { eos_token_ids: vec![end], ..defaults };
        let bytes = speakers.iter().all(|speaker| speaker.pieces.has_all_bytes());
        Ok(Union { voices, speakers, combiner: ensemble.combiner(), rows: Vec::new(), ids, defaults, bytes })
    }

    fn row(&self, row: usize) -> Result<&Row> {
        self.rows
            .get(row)
            .ok_or_else(|| error!(InvalidArgument, "row {row} does not exist; there are {}", self.rows.len()))
    }

    /// Sets the tokens of a row in every generator to those of the present text; tokens before the first difference are
    /// kept.
    fn catch_up(&mut self, row: usize) -> Result<()> {
        for (generator, speaker) in self.voices.generators.iter_mut().zip(&self.speakers) {
            let wanted = speaker.read(&self.rows[row])?;
            let had = generator.tokens(row)?;
            let same = had.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
            let back = had.len() - same;
            generator.rewind(row, back)?;
            generator.append(row, Prompt::Tokens(&wanted[same..]))?;
        }
        Ok(())
    }

    /// Returns the candidates of the next token of a row, with their distribution.
    fn next(&mut self, row: usize) -> Result<Next> {
        let generators = &self.voices.generators;
        let logits: Vec<&[f32]> =
            generators.iter().map(|generator| generator.next_logits(row)).collect::<Result<_>>()?;
        let pending = pending(&self.rows[row].text);
        let mut count = CANDIDATES;
        let candidates = loop {
            let found = self.candidates(&logits, pending, count);
            let all = logits.iter().all(|logits| count >= logits.len());
            if !found.is_empty() || all {
                break found;
            }
            count = count.saturating_mul(8);
        };
        if candidates.is_empty() {
            bail!(Runtime, "no member has a token that continues the text");
        }
        let scored: Vec<Vec<f32>> = self
            .speakers
            .iter()
            .zip(&logits)
            .map(|(speaker, logits)| candidates.iter().map(|piece| speaker.score(logits, piece.as_deref())).collect())
            .collect();
        let members: Vec<&[f32]> = self.voices.of_member.iter().map(|voice| scored[*voice].as_slice()).collect();
        let combined = self.combiner.combine(&members)?;
        let first = &self.speakers[0].pieces;
        let ids: Vec<i64> = candidates.into_iter().map(|piece| self.ids.of(first, piece)).collect();
        let mut spread = vec![f32::NEG_INFINITY; self.ids.len()];
        for (id, log) in ids.iter().zip(&combined.log_probabilities) {
            spread[*id as usize] = *log;
        }
        Ok(Next { logits: spread, ids, combined })
    }

    /// Returns the best `count` pieces of each generator that can continue the text, each once; `None` is the end of
    /// the text.
    fn candidates(&self, logits: &[&[f32]], pending: &[u8], count: usize) -> Vec<Option<Vec<u8>>> {
        let mut found: Vec<Option<Vec<u8>>> = Vec::new();
        for (speaker, logits) in self.speakers.iter().zip(logits) {
            for id in best(logits, count) {
                let piece = match speaker.pieces.bytes(id) {
                    _ if speaker.ends.contains(&(id as i64)) => None,
                    Some(bytes) if self.goes_on(pending, bytes) => Some(bytes.to_vec()),
                    _ => continue,
                };
                if !found.contains(&piece) {
                    found.push(piece);
                }
            }
        }
        found
    }

    /// Returns whether text with `pending` bytes of a character at its end can continue with `bytes`.
    fn goes_on(&self, pending: &[u8], bytes: &[u8]) -> bool {
        let together = [pending, bytes].concat();
        match std::str::from_utf8(&together) {
            Ok(_) => !bytes.is_empty(),
            // The character may still be completed by later bytes.
            Err(e) => e.error_len().is_none() && self.bytes && !bytes.is_empty(),
        }
    }
}

/// Returns the bytes of the unfinished character at the end of a text, if there is one.
fn pending(text: &[u8]) -> &[u8] {
    match std::str::from_utf8(text) {
        Ok(_) => &[],
        Err(e) => &text[e.valid_up_to()..],
    }
}

/// Returns the ids of the `count` highest logits, best first; the lowest id first among equal ones.
fn best(logits: &[f32], count: usize) -> Vec<usize> {
    let mut ids: Vec<usize> = (0..logits.len()).filter(|id| logits[*id] > f32::NEG_INFINITY).collect();
    let order = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
    if count < ids.len() {
        ids.select_nth_unstable_by(count, order);
        ids.truncate(count);
    }
    ids.sort_unstable_by(order);
    ids
}

impl Speaker {
    /// Returns the tokens of a row's whole text: those of its characters, followed by those of the bytes of an
    /// unfinished one.
    fn read(&self, row: &Row) -> Result<Vec<i64>> {
        let Some((start, special)) = &row.start else { return Ok(Vec::new()) };
        let rest = pending(&row.text);
        let whole = &row.text[..row.text.len() - rest.len()];
        let text = start.clone() + &String::from_utf8_lossy(whole);
        let mut tokens = self.tokenizer.encode(&text, *special)?.ids;
        for byte in rest {
            let id = self.pieces.id(&[*byte]);
            tokens.push(id.ok_or_else(|| error!(Internal, "a vocabulary has no token for the byte {byte}"))?);
        }
        Ok(tokens)
    }

    /// Returns the logit of the token of a piece, or of the token of its longest prefix; `None` is the end of the text.
    fn score(&self, logits: &[f32], piece: Option<&[u8]>) -> f32 {
        let of = |id: i64| usize::try_from(id).ok().and_then(|id| logits.get(id)).copied();
        match piece {
            None => self.ends.iter().filter_map(|id| of(*id)).fold(f32::NEG_INFINITY, f32::max),
            Some(bytes) => self.pieces.id_of_beginning(bytes).and_then(of).unwrap_or(f32::NEG_INFINITY),
        }
    }
}

impl Ids {
    /// Returns the id of a piece, which gets a new id if it has none; `None` is the end of the text.
    fn of(&mut self, first: &Pieces, piece: Option<Vec<u8>>) -> i64 {
        let Some(piece) = piece else { return self.end };
        if let Some(id) = first.id(&piece).or_else(|| self.found.get(&piece).copied()) {
            return id;
        }
        let id = self.base + self.pieces.len() as i64;
        self.pieces.push(piece.clone());
        self.found.insert(piece, id);
        id
    }

    fn len(&self) -> usize {
        self.base as usize + self.pieces.len()
    }

    /// Returns the bytes of the piece with the id `id`.
    fn bytes<'a>(&'a self, first: &'a Pieces, id: i64) -> &'a [u8] {
        let index = usize::try_from(id).unwrap_or(usize::MAX);
        let beyond = || self.pieces.get(index.checked_sub(self.base as usize)?).map(Vec::as_slice);
        first.bytes(index).or_else(beyond).unwrap_or_default()
    }
}

impl RowTexts for Union {
    fn begin_text(&mut self, row: usize, keep_special: bool, whole: bool) -> Result<String> {
        if whole { self.text(row, keep_special) } else { Ok(String::new()) }
    }

    fn piece(&mut self, row: usize, _: i64) -> Result<String> {
        let row = &mut self.rows[row];
        let end = row.text.len() - pending(&row.text).len();
        let piece = String::from_utf8_lossy(&row.text[row.given.min(end)..end]).into_owned();
        row.given = row.given.max(end);
        Ok(piece)
    }

    fn open_text(&self, row: usize) -> Result<String> {
        // The pending bytes are the beginning of one character, so they become one replacement character.
        Ok(String::from_utf8_lossy(pending(&self.row(row)?.text)).into_owned())
    }

    fn end_text(&mut self, row: usize) -> Result<String> {
        self.open_text(row)
    }
}

impl Rows for Union {
    fn start(&mut self, rows: usize) -> Result<()> {
        self.voices.each(|generator| generator.start(rows))?;
        self.rows.clear();
        self.rows.resize_with(rows, Row::default);
        Ok(())
    }

    fn placements(&self) -> Vec<&Placement> {
        self.voices.placements()
    }

    fn reset(&mut self) {
        self.voices.reset();
        self.rows.clear();
    }

    fn row_count(&self) -> usize {
        self.rows.len()
    }

    fn tokens(&self, row: usize) -> Result<&[i64]> {
        Ok(&self.row(row)?.tokens)
    }

    fn append(&mut self, row: usize, prompt: Prompt<'_>) -> Result<usize> {
        let (text, special) = match prompt {
            Prompt::Text(text) => (text, true),
            Prompt::Rendered(text) => (text, false),
            Prompt::Tokens(_) => {
                bail!(InvalidArgument, "members with different vocabularies accept text, not token ids")
            }
        };
        let first = self.row(row)?.start.is_none();
        let mut tokens = self.speakers[0].tokenizer.encode(text, special && first)?.ids;
        if first && tokens.is_empty() {
            // An empty prompt begins with the beginning-of-sequence token.
            tokens.extend(self.defaults.bos_token_id);
        }
        let row = &mut self.rows[row];
        match first {
            true => row.start = Some((text.to_owned(), special)),
            false => row.text.extend_from_slice(text.as_bytes()),
        }
        (row.given, row.next) = (row.text.len(), None);
        row.tokens.extend(&tokens);
        Ok(tokens.len())
    }

    fn push(&mut self, row: usize, token: i64) -> Result<()> {
        self.row(row)?;
        if token < 0 || token as usize >= self.ids.len() {
            bail!(InvalidArgument, "{token} is not a token id");
        }
        let bytes = if token == self.ids.end { &[][..] } else { self.ids.bytes(&self.speakers[0].pieces, token) };
        let row = &mut self.rows[row];
        row.text.extend_from_slice(bytes);
        row.tokens.push(token);
        row.next = None;
        Ok(())
    }

    fn advance_rows(&mut self, rows: &[usize], stop: &Stop, ran: &mut dyn FnMut(usize) -> Result<()>) -> Result<()> {
        let rows: Vec<usize> = rows.iter().copied().filter(|row| self.rows[*row].next.is_none()).collect();
        rows.iter().try_for_each(|row| self.catch_up(*row))?;
        self.voices.advance(&rows, stop, ran)?;
        for row in rows {
            self.rows[row].next = Some(self.next(row)?);
        }
        Ok(())
    }

    fn next_logits(&self, row: usize) -> Result<&[f32]> {
        match &self.row(row)?.next {
            Some(next) => Ok(&next.logits),
            None => bail!(InvalidArgument, "row {row} has tokens that have not been run yet"),
        }
    }

    fn reserve(&mut self, tokens: usize) {
        self.voices.reserve(tokens);
    }

    fn context(&self) -> Option<usize> {
        self.voices.context()
    }

    fn tokenizer(&self) -> Option<&Arc<Tokenizer>> {
        self.voices.tokenizer()
    }

    fn defaults(&self) -> &GenerationDefaults {
        &self.defaults
    }

    fn text(&self, row: usize, _: bool) -> Result<String> {
        let row = self.row(row)?;
        let start = row.start.as_ref().map_or("", |(start, _)| start);
        Ok(format!("{start}{}", String::from_utf8_lossy(&row.text)))
    }

    fn uncertainty(&self, row: usize, token: i64) -> Option<Uncertainty> {
        let next = self.rows.get(row)?.next.as_ref()?;
        Some(self.combiner.uncertainty(&next.combined, |top| next.ids.get(*top) == Some(&token)))
    }

    fn run(
        &mut self,
        options: &GenerateOptions,
        on_token: Option<&mut OnToken<'_>>,
        call: &Call,
    ) -> Result<Vec<Generation>> {
        generate::run(self, options, on_token, call)
    }
}

#[cfg(test)]
mod tests;
