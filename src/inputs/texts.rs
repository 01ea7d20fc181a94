//! Texts as inputs: the tokens that a model gets for them.

use super::batch::{Mask, Truncation};
use super::generated::Fill;
use super::options::{DEFAULT_LENGTH, InputOptions};
use super::role::Role;
use super::sizes::Sizes;
use crate::error::{Context, Result, bail};
use crate::limits;
use crate::model::{Model, ValueInfo};
use crate::text::{Batch, Encoding, Tokenizer};

/// The texts for a model, with the tokenizer, and the number and length of texts per run that the model requires.
pub struct Text<'a> {
    tokenizer: &'a Tokenizer,
    texts: Vec<&'a str>,
    options: &'a InputOptions,
    /// Number of texts per batch.
    batch: usize,
    /// Minimum and maximum length in tokens that the model's input accepts.
    lengths: (usize, Option<usize>),
    /// Whether the model fixes the number of texts.
    fixed_batch: bool,
    /// Maximum length in tokens if the options set none. The bounds in `lengths` also apply.
    pub longest: usize,
}

/// Returns the maximum number of tokens of a text that the inputs of `model` accept; `None` if there is no limit or no
/// input of token ids.
pub(crate) fn token_limit(model: &Model) -> Option<usize> {
    let ids = Role::ids(&model.inputs())?;
    let (_, most) = Sizes::new(model).bounds(ids, 1);
    most.map(|most| usize::try_from(most).unwrap_or(usize::MAX))
}

/// The tokens of one input set.
pub struct Tokens {
    /// Token ids, mask and token type ids of the set.
    pub batch: Batch,
    /// Number of texts.
    pub samples: usize,
}

impl<'a> Text<'a> {
    /// Returns the texts for a model. `ids` and `info` are the index and the declaration of the model's input of token
    /// ids; `longest` is the number of positions of the model. Fails with `InvalidArgument` if the options request
    /// another length than the one that the model fixes.
    pub fn new(
        tokenizer: &'a Tokenizer,
        (info, ids): (&ValueInfo, usize),
        sizes: &Sizes,
        longest: Option<usize>,
        options: &'a InputOptions,
    ) -> Result<Text<'a>> {
        let whole = |size: i64| usize::try_from(size).unwrap_or(usize::MAX);
        let bounds = |axis| {
            let (min, max) = sizes.bounds(ids, axis);
            (whole(min), max.map(whole))
        };
        let (rows, lengths) = (bounds(0), bounds(1));
        let asked = options.sequence_length;
        let fits = asked >= lengths.0 && lengths.1.is_none_or(|most| asked <= most);
        if asked != 0 && !fits && lengths.1 == Some(lengths.0) {
            bail!(InvalidArgument, "the input {:?} always has {} tokens, not {asked}", info.name, lengths.0);
        }
        let most = rows.1.unwrap_or(usize::MAX);
        let batch = options.batch_size.max(rows.0).min(most).max(1);
        let fixed_batch = rows.0 > 1 || rows.1 == Some(rows.0);
        let longest = longest.unwrap_or(usize::MAX).min(limits::DEFAULT_TEXT_TOKENS);
        Ok(Text { tokenizer, texts: options.texts(), options, batch, lengths, fixed_batch, longest })
    }

    /// Returns the length that the model fixes; `None` if it fixes none.
    fn fixed_length(&self) -> Option<usize> {
        self.lengths.1.filter(|most| *most == self.lengths.0)
    }

    /// Returns the number of trials: after the first, each limits the texts to half the tokens of the trial before,
    /// from 64 to 8. There is only one if the options or the model set the length.
    pub fn trials(&self) -> usize {
        if self.options.sequence_length != 0 || self.fixed_length().is_some() { 1 } else { 5 }
    }

    /// Returns `length`, limited for the trial `trial` and by the bounds of the model's input; at least 1.
    fn bounded(&self, length: usize, trial: usize) -> usize {
        let shorter = if trial == 0 { usize::MAX } else { DEFAULT_LENGTH >> trial };
        length.min(shorter).min(self.lengths.1.unwrap_or(usize::MAX)).max(self.lengths.0).max(1)
    }

    /// Returns the number of tokens in the tokenizer's vocabulary.
    pub fn vocabulary(&self) -> i64 {
        self.tokenizer.vocabulary_size() as i64
    }

    /// Returns the number of sets. Each is a batch of texts; the last one may have fewer texts than the others.
    pub fn count(&self) -> usize {
        let texts = if self.options.encodings.is_empty() { self.texts.len() } else { self.options.encodings.len() };
        texts.div_ceil(self.batch)
    }

    /// Returns the tokens of the set `index`, padded to its longest text or to the minimum length of the model's input.
    /// Fails with `InvalidArgument` if no text of the set has tokens.
    pub fn set(&self, index: usize, trial: usize) -> Result<Tokens> {
        if !self.options.encodings.is_empty() {
            return Ok(self.encoded(index));
        }
        let mut rows: Vec<&str> = self.texts.iter().copied().skip(index * self.batch).take(self.batch).collect();
        let samples = rows.len();
        if self.fixed_batch {
            rows.extend(self.texts.iter().cycle().take(self.batch.saturating_sub(samples)));
        }
        let longest = match self.options.sequence_length {
            0 => self.bounded(self.longest, trial),
            length => self.bounded(length, 0),
        };
        let second = self.options.second_texts.iter().map(String::as_str);
        let second: Vec<&str> = second.skip(index * self.batch).take(samples).collect();
        let batch = match second.is_empty() {
            true => self.tokenizer.encode_batch(&rows, true, Some(longest)),
            false => {
                let cycled = second.iter().cycle().take(rows.len()).copied();
                let pairs: Vec<(&str, &str)> = rows.iter().copied().zip(cycled).collect();
                self.tokenizer.encode_pairs(&pairs, Some(longest))
            }
        };
        let batch = self.padded(batch.at(|| "the texts")?);
        if batch.length == 0 {
            bail!(InvalidArgument, "text {} has no tokens", index * self.batch + 1);
        }
        Ok(Tokens { batch, samples })
    }

    /// Returns the tokens of the set `index` of texts that are given as tokens.
    fn encoded(&self, index: usize) -> Tokens {
        let encodings = &self.options.encodings;
        let mut rows: Vec<&Encoding> = encodings.iter().skip(index * self.batch).take(self.batch).collect();
        let samples = rows.len();
        if self.fixed_batch {
            rows.extend(encodings.iter().cycle().take(self.batch.saturating_sub(samples)));
        }
        let batch = self.tokenizer.padded(rows.into_iter().map(|row| (row.clone(), 0)).collect());
        Tokens { batch: self.padded(batch), samples }
    }

    /// Returns the tokens of the run that is timed. See [`super::Source::timing`] for their length. Fails with
    /// `InvalidArgument` if no text has tokens.
    pub fn timing(&self, trial: usize) -> Result<Tokens> {
        match (self.fixed_length(), self.options.sequence_length) {
            (Some(length), _) => self.exactly(length),
            (None, 0) if self.options.texts.is_empty() => {
                self.exactly(self.bounded(DEFAULT_LENGTH.min(self.longest), trial))
            }
            (None, 0) => self.set(0, trial),
            (None, length) => self.exactly(self.bounded(length, 0)),
        }
    }

    /// Returns a batch in which each row has exactly `length` tokens of concatenated texts. Row `i` begins with text
    /// `i`; after the last text, the first one follows. Fails with `InvalidArgument` if the texts are so short that
    /// they would have to be repeated too often.
    fn exactly(&self, length: usize) -> Result<Tokens> {
        // The necessary length of the text in bytes is estimated, and doubled until there are enough tokens.
        let mut wanted = length.saturating_mul(8);
        loop {
            if wanted.saturating_mul(self.batch) > limits::TEXT_BYTES {
                bail!(InvalidArgument, "the texts are too short for {} rows of {length} tokens", self.batch);
            }
            let rows: Vec<String> = (0..self.batch).map(|row| self.joined(row, wanted)).collect();
            let batch = self.tokenizer.encode_batch(&rows, true, Some(length)).at(|| "the texts")?;
            if batch.length == length && batch.mask.iter().all(|m| *m == 1) {
                return Ok(Tokens { samples: self.batch, batch });
            }
            wanted *= 2;
        }
    }

    /// Returns at least `bytes` bytes of texts, starting at text `first` and repeating the texts if needed.
    fn joined(&self, first: usize, bytes: usize) -> String {
        let mut joined = String::new();
        for text in self.texts.iter().cycle().skip(first % self.texts.len().max(1)) {
            joined.push_str(text);
            joined.push(' ');
            if joined.len() >= bytes {
                break;
            }
        }
        joined
    }

    fn padded(&self, batch: Batch) -> Batch {
        let length = self.lengths.0;
        if length <= batch.length {
            return batch;
        }
        let pad = |values: &[i64], with: i64| -> Vec<i64> {
            let row = |row: &[i64]| [row, &vec![with; length - batch.length]].concat();
            match batch.length {
                0 => vec![with; length * batch.batch],
                old => values.chunks(old).flat_map(row).collect(),
            }
        };
        let ids = pad(&batch.ids, self.tokenizer.pad_id());
        Batch { ids, mask: pad(&batch.mask, 0), type_ids: pad(&batch.type_ids, 0), length, ..batch }
    }
}

impl Tokens {
    /// Returns the values of an input with the role `role`, row-major.
    pub fn fill(&self, role: Role) -> Fill {
        let numbers = |values: &[i64]| Fill::Given(values.iter().map(|v| *v as f64).collect());
        match role {
            Role::Ids => numbers(&self.batch.ids),
            Role::Mask => numbers(&self.batch.mask),
            Role::Types => numbers(&self.batch.type_ids),
            Role::Positions => Fill::Positions { period: 0 },
        }
    }

    /// Returns the truncated texts of the set with their original and their remaining length, without the texts that
    /// only fill up the batch.
    pub fn truncated(&self) -> Vec<Truncation> {
        let one = |(text, (cut, mask)): (usize, (&usize, &[i64]))| {
            let kept = mask.iter().filter(|m| **m != 0).count();
            Truncation { text, tokens: kept + cut, kept }
        };
        let rows = self.batch.cut.iter().zip(self.batch.mask.chunks(self.batch.length.max(1)));
        rows.take(self.samples).enumerate().map(one).filter(|cut| cut.kept < cut.tokens).collect()
    }

    /// Returns the mask of the positions that hold tokens.
    pub fn into_mask(self) -> Mask {
        let shape = [self.batch.batch as i64, self.batch.length as i64];
        Mask { shape, keep: self.batch.mask.iter().map(|m| *m != 0).collect() }
    }
}
