//! Texts through an encoder, a batch at a time.

use super::progress::Units;
use crate::benchmark::BenchmarkOptions;
use crate::benchmark::inputs::Source;
use crate::error::{Result, bail};
use crate::limits;
use crate::model::Model;
use crate::runtime::{Execution, Session, SessionOptions, Stop, Tensor};
use crate::text::Tokenizer;
use serde::Serialize;

/// How texts are given to an encoder.
#[derive(Debug, Clone, Serialize)]
pub struct TextOptions {
    /// Tokens after which a text is cut; 0: as many as the model has positions for, up to 512.
    pub max_length: usize,
    /// Texts in one run; shorter ones are padded to the longest. With 1 nothing is padded, so that the figures of
    /// models whose results depend on what else is in a batch (dynamic int8) do not depend on the order of the texts.
    pub batch_size: usize,
    /// Threads of the session; 0 is one for each physical core.
    pub threads: usize,
    /// What the session runs on.
    pub execution: Execution,
}

impl TextOptions {
    pub(super) fn session(&self) -> SessionOptions {
        let execution = self.execution.clone();
        SessionOptions { threads: self.threads, execution, varying_sizes: true, ..SessionOptions::default() }
    }
}

impl Default for TextOptions {
    fn default() -> Self {
        TextOptions { max_length: 0, batch_size: 1, threads: 0, execution: Execution::default() }
    }
}

/// Texts ready to be given to a model.
pub struct Batches<'a> {
    model: &'a Model,
    tokenizer: &'a Tokenizer,
    options: BenchmarkOptions,
    /// Tokens after which a text is cut, unless the model insists on a length.
    length: usize,
}

impl<'a> Batches<'a> {
    /// An error if there is no text, or if the options do not fit the model.
    pub fn new(
        model: &'a Model,
        tokenizer: &'a Tokenizer,
        texts: &[String],
        options: &TextOptions,
    ) -> Result<Batches<'a>> {
        if texts.is_empty() {
            bail!(InvalidArgument, "there is no text to evaluate on");
        }
        if options.batch_size == 0 {
            bail!(InvalidArgument, "batch_size is 0; it must be at least 1");
        }
        let longest = model.card().longest_text()?;
        let length = match (options.max_length, longest) {
            (0, longest) => longest.unwrap_or(limits::DEFAULT_TEXT_TOKENS).min(limits::DEFAULT_TEXT_TOKENS),
            (asked, Some(longest)) if asked > longest => {
                bail!(InvalidArgument, "max_length is {asked}, above the model's limit of {longest} tokens")
            }
            (asked, _) => asked,
        };
        let options =
            BenchmarkOptions { texts: texts.to_vec(), batch_size: options.batch_size, ..BenchmarkOptions::default() };
        Ok(Batches { model, tokenizer, options, length })
    }

    /// Runs the session on all texts and hands over the named output, batch after batch, with which positions hold a
    /// token and how many texts are in it.
    pub fn run(
        &self,
        session: &mut Session,
        output: &str,
        units: &mut Units,
        mut take: impl FnMut(&Tensor, &[bool], usize) -> Result<()>,
    ) -> Result<()> {
        let source = Source::new(self.model, self.model, Some(self.tokenizer), &self.options)?.up_to(self.length);
        let stop = Stop::new()?;
        stop.during(&units.quiet(), || {
            for index in 0..source.count() {
                let set = source.set(index)?;
                let (_, tensor) = session.run_until(&set.feed(), &[output], &stop)?.remove(0);
                take(&tensor, set.mask.as_ref().map_or(&[], |mask| &mask.keep), set.samples)?;
                units.add(set.samples)?;
            }
            Ok(())
        })
    }
}

/// TensorFlow's exports say `input_ids:0`, others `model/input_ids`.
pub fn plain(name: &str) -> &str {
    let name = name.rsplit('/').next().unwrap_or("");
    name.split(':').next().unwrap_or("")
}
