//! The verification of drafted tokens, in one run of the model.

use super::{CacheKind, Generator};
use crate::counters::PROCESS;
use crate::error::{Context, Result, bail};
use crate::runtime::Stop;
use crate::text::draft::{Draft, DraftRequest, Drafted, Drafter};
use crate::text::generate::Generation;
use crate::text::kv_cache::{Read, RowLogits};
use std::collections::VecDeque;

/// The drafted tokens of a row, before and after they have been run.
#[derive(Default)]
pub(super) struct Ahead {
    /// Tokens that the next run of the row verifies.
    drafted: Vec<i64>,
    /// Drafted tokens that have been run, each with the logits after it.
    verified: VecDeque<(i64, RowLogits)>,
    /// Numbers of drafted and of accepted tokens of the latest verification, until the drafter has learned them.
    outcome: Option<(usize, usize)>,
    /// Whether the last token of the row is an accepted one, whose logits come from the verification.
    accepted: bool,
    /// Numbers of the current generation.
    pub counts: Drafted,
}

impl Ahead {
    /// Returns whether the next run verifies drafted tokens.
    pub fn is_drafted(&self) -> bool {
        !self.drafted.is_empty()
    }

    /// Returns the logits after `token`, which has been selected, if it is the next drafted one. Otherwise the drafted
    /// tokens are discarded.
    pub fn accept(&mut self, token: i64) -> Option<RowLogits> {
        let logits = self.verified.pop_front().filter(|(drafted, _)| *drafted == token).map(|(_, logits)| logits);
        self.accepted = logits.is_some();
        if self.accepted {
            self.counts.accepted += 1;
            self.outcome.iter_mut().for_each(|(_, accepted)| *accepted += 1);
        } else {
            self.verified.clear();
        }
        logits
    }
}

impl Generator {
    /// Sets the sources of drafted tokens of [`Generator::run`] and [`Generator::generate`], or none. The generated
    /// tokens are the same with and without a draft, up to the rounding that [`crate::text::draft`] describes;
    /// [`Generation::draft`] has the number of accepted ones. A generator with a draft generates one row at a time.
    ///
    /// Fails with [`crate::error::Kind::InvalidArgument`] if there is no source, if the maximum is out of range, or if
    /// the draft model has another vocabulary; the message names the first difference.
    pub fn set_draft(&mut self, draft: Option<Draft>) -> Result<()> {
        self.drafter = draft.map(|draft| Drafter::new(self, draft)).transpose()?;
        Ok(())
    }

    /// Runs `work`, which generates texts, and returns its result with the numbers of drafted tokens. Fails with
    /// `InvalidArgument` if there are several rows, and like `work`.
    pub(super) fn speculate(
        &mut self,
        work: impl FnOnce(&mut Generator) -> Result<Vec<Generation>>,
    ) -> Result<Vec<Generation>> {
        if self.rows.len() > 1 {
            bail!(
                InvalidArgument,
                "there are {} rows of text; a generator with a draft generates one at a time",
                self.rows.len()
            );
        }
        self.rows.iter_mut().for_each(|row| row.ahead.counts = Drafted::default());
        let written = work(self);
        self.settle();
        let mut written = written?;
        for (generation, row) in written.iter_mut().zip(&self.rows) {
            generation.draft = Some(row.ahead.counts.rated());
        }
        Ok(written)
    }

    /// Drafts tokens after a row, unless its next logits are already known or it has several tokens to read.
    pub(super) fn draft_row(&mut self, row: usize, request: &mut DraftRequest<'_>, stop: &Stop) -> Result<()> {
        let Some(drafter) = &mut self.drafter else { return Ok(()) };
        let state = &mut self.rows[row];
        let is_next = self.decoder.kind == CacheKind::Recompute || self.cache.length(row) + 1 == state.tokens.len();
        if state.logits.is_some() || !is_next {
            return Ok(());
        }
        if let Some((drafted, accepted)) = state.ahead.outcome.take() {
            drafter.learn(drafted, accepted);
        }
        let mut drafted = drafter.draft(&state.tokens, request, stop)?;
        // A draft model may have more logits than the model has tokens.
        if let Some(size) = self.decoder.vocabulary {
            let known = drafted.iter().position(|token| *token >= size as i64).unwrap_or(drafted.len());
            drafted.truncate(known);
        }
        state.ahead.drafted = drafted;
        Ok(())
    }

    /// Runs the last token of a row and the drafted tokens after it, and keeps the logits after each.
    pub(super) fn verify(&mut self, row: usize, stop: &Stop, ran: &mut dyn FnMut(usize) -> Result<()>) -> Result<()> {
        let drafted = std::mem::take(&mut self.rows[row].ahead.drafted);
        let state = &self.rows[row];
        let tokens = [&state.tokens[self.cache.length(row)..], &drafted].concat();
        let (keep, expected) = (drafted.len() + 1, state.tokens.len() + drafted.len());
        let read = Read { rows: &[row], tokens: &[&tokens], keep, expected };
        let logits = self.cache.run(&mut self.session, &self.decoder, &read, stop).at(|| "drafted tokens")?;
        let state = &mut self.rows[row];
        let mut logits = logits.into_iter();
        state.logits = logits.next();
        state.ahead.outcome = Some((drafted.len(), 0));
        state.ahead.counts.drafted += drafted.len();
        state.ahead.counts.steps += 1;
        state.ahead.verified = drafted.into_iter().zip(logits).collect();
        PROCESS.read_tokens.add(tokens.len() as u64);
        ran(tokens.len())
    }

    /// Returns the number of last tokens whose logits a run of `count` tokens returns. With a draft, a model that
    /// always outputs the logits of a single token is refused when it reads the prompt, not in the middle of a text.
    pub(super) fn keep(&self, count: usize) -> usize {
        let is_checked = self.drafter.is_some() && self.decoder.logits_to_keep.is_none();
        if is_checked { count.clamp(1, 2) } else { 1 }
    }

    /// Discards drafted tokens after a generation, so that the rows are as without a draft: the last token is read when
    /// they are continued.
    fn settle(&mut self) {
        for (index, row) in self.rows.iter_mut().enumerate() {
            let mut length = row.tokens.len();
            row.ahead.drafted.clear();
            row.ahead.verified.clear();
            if std::mem::take(&mut row.ahead.accepted) {
                row.logits = None;
                length -= 1;
            }
            self.cache.truncate(index, length);
        }
    }
}
