//! Runs of an encoder on texts, one batch at a time.

use crate::call::Units;
use crate::error::{Result, bail};
use crate::inputs::{InputOptions, Source};
use crate::model::Model;
use crate::runtime::{Execution, Session, SessionOptions, Stop, Tensor};
use crate::text::Tokenizer;
use serde::Serialize;

/// The number and the maximum length of the texts in a run of an encoder, and the options of its session.
#[derive(Debug, Clone, Serialize)]
pub struct TextOptions {
    /// Maximum length of a text in tokens; longer texts are truncated. 0 (default) selects the limit for texts in the
    /// files of the model (`max_seq_length`, `model_max_length`), bounded by its positions. If the files state no
    /// limit, the length is the number of positions, at most 512, or 512 if the model declares no positions.
    pub max_length: usize,
    /// Number of texts in one run, at least 1 (default). Texts are padded to the longest text of the run, or to the
    /// length that the model fixes. With 1, texts are padded only to a length that the model fixes. The results of
    /// models in which the texts of a run influence each other (dynamic int8) then do not depend on the order of the
    /// texts.
    pub batch_size: usize,
    /// Number of threads of the session; 0 (default) for one per physical core.
    pub threads: usize,
    /// Execution provider and device of the session. Default: the CPU.
    pub execution: Execution,
}

impl TextOptions {
    /// Returns the maximum length of a text of `model` in tokens. Fails with [`crate::error::Kind::InvalidArgument`] if
    /// `max_length` exceeds the positions of the model, and with `InvalidModel` if a file with the model's limits is
    /// damaged.
    pub fn length(&self, model: &Model) -> Result<usize> {
        match (self.max_length, model.card().longest_text()?) {
            (0, _) => model.card().usual_text(),
            (asked, Some(longest)) if asked > longest => {
                bail!(InvalidArgument, "max_length is {asked}, above the model's limit of {longest} tokens")
            }
            (asked, _) => Ok(asked),
        }
    }

    /// Returns the options of a session for runs on texts of varying length.
    pub fn session(&self) -> SessionOptions {
        let execution = self.execution.clone();
        SessionOptions { threads: self.threads, execution, varying_sizes: true, ..SessionOptions::default() }
    }
}

impl Default for TextOptions {
    fn default() -> Self {
        TextOptions { max_length: 0, batch_size: 1, threads: 0, execution: Execution::default() }
    }
}

/// Texts that a model encodes in batches.
pub struct Batches<'a> {
    model: &'a Model,
    tokenizer: &'a Tokenizer,
    options: InputOptions,
    /// Maximum length of a text in tokens, unless the model fixes the length.
    length: usize,
    /// Index among the caller's texts of each text of `options`.
    order: Vec<usize>,
}

impl<'a> Batches<'a> {
    /// Returns the batches of `texts`. Fails with `InvalidArgument` if there is no text, if `batch_size` is 0, or if
    /// `max_length` exceeds the positions of the model.
    pub fn new(
        model: &'a Model,
        tokenizer: &'a Tokenizer,
        texts: &[String],
        options: &TextOptions,
    ) -> Result<Batches<'a>> {
        if texts.is_empty() {
            bail!(InvalidArgument, "there is no text");
        }
        if options.batch_size == 0 {
            bail!(InvalidArgument, "batch_size is 0; it must be at least 1");
        }
        let length = options.length(model)?;
        let options = InputOptions { texts: texts.to_vec(), batch_size: options.batch_size, ..InputOptions::default() };
        let order = (0..texts.len()).collect();
        Ok(Batches { model, tokenizer, options, length, order })
    }

    /// Returns these batches as pairs: text `i` is encoded together with `second[i]`. Fails with `InvalidArgument` if
    /// `second` does not have one text for each text, in the order of the caller's texts. It must be called before
    /// [`Batches::by_length`].
    pub fn with_second(mut self, second: Vec<String>) -> Result<Batches<'a>> {
        if second.len() != self.order.len() {
            bail!(
                InvalidArgument,
                "{} texts, but {} second texts: pairs have one of each",
                self.order.len(),
                second.len()
            );
        }
        self.options.second_texts = second;
        Ok(self)
    }

    /// Returns these batches with the texts sorted by their number of bytes, shortest first, so that little is padded.
    /// [`Batches::rows`] still returns the rows in the order of the caller's texts.
    pub fn by_length(mut self) -> Batches<'a> {
        let InputOptions { texts, second_texts, .. } = &mut self.options;
        let length = |index: usize| texts[index].len() + second_texts.get(index).map_or(0, String::len);
        self.order.sort_by_key(|index| length(*index));
        for list in [texts, second_texts].into_iter().filter(|list| !list.is_empty()) {
            *list = self.order.iter().map(|index| std::mem::take(&mut list[*index])).collect();
        }
        self
    }

    /// Runs the session on all texts, and counts them in `units`. Returns the rows of values of all texts, one after
    /// another in the order of the caller's texts, and the number of values of a row.
    ///
    /// `of` computes the rows of a batch. Its arguments are the output `output`, whether each position of the batch
    /// holds a token (and not padding), and the number of texts; the output may have further rows after those of the
    /// texts. Fails with `Unsupported` if the rows are empty or the number of values is not a multiple of the number of
    /// texts, and otherwise like `of` and [`Session::run_until`].
    pub fn rows(
        &self,
        session: &Session,
        output: &str,
        units: &mut Units,
        mut of: impl FnMut(&Tensor, &[bool], usize) -> Result<Vec<f32>>,
    ) -> Result<(Vec<f32>, usize)> {
        let source = Source::new(self.model, Some(self.tokenizer), &self.options)?.up_to(self.length);
        let stop = Stop::new()?;
        let mut values = Vec::new();
        stop.during(&units.quiet(), || {
            for index in 0..source.count() {
                let set = source.set(index)?;
                let (_, tensor) = session.run_until(&set.feed(), &[output], &stop)?.remove(0);
                values.extend(of(&tensor, set.mask.as_ref().map_or(&[], |mask| &mask.keep), set.samples)?);
                units.add(set.samples)?;
            }
            Ok(())
        })?;
        let width = values.len() / self.order.len();
        if width == 0 || width * self.order.len() != values.len() {
            bail!(Unsupported, "the output {output:?} has vectors of different lengths");
        }
        Ok((in_order(&values, width, &self.order), width))
    }
}

/// Returns rows of `width` values in the order of the caller's texts. Row `i` of `values` belongs to the caller's text
/// `order[i]`.
fn in_order(values: &[f32], width: usize, order: &[usize]) -> Vec<f32> {
    let mut sorted = vec![0.0; values.len()];
    for (row, text) in values.chunks_exact(width).zip(order) {
        sorted[text * width..][..width].copy_from_slice(row);
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_return_to_their_texts() {
        let rows = [10.0, 11.0, 20.0, 21.0, 30.0, 31.0];
        assert_eq!(in_order(&rows, 2, &[1, 2, 0]), [30.0, 31.0, 10.0, 11.0, 20.0, 21.0]);
    }
}
