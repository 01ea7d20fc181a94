//! The source of batches ([`Source`]): given tensors, texts through the tokenizer, or values for the model's signature.
//!
//! One source can serve several models that are compared, so that all get the same inputs. Batches are made one at a
//! time.

use super::batch::Batch;
use super::generated::Fill;
use super::options::{DEFAULT_LENGTH, InputOptions};
use super::role::Role;
use super::sizes::{Sizes, TRIALS, Wanted};
use super::tables::rows_indexed_by;
use super::tensors::{Run, cut};
use super::texts::{Text, Tokens};
use crate::error::{Error, Kind, Result, bail};
use crate::graph::View;
use crate::model::{Model, ValueInfo};
use crate::statistics::Random;
use crate::text::Tokenizer;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The number of generated batches for measuring quality.
const GENERATED_SETS: usize = 8;
/// The maximum number of given batches for measuring quality.
const GIVEN_SETS: usize = 64;
/// The time after which no further sizes are tried on a model that rejects its inputs.
const PATIENCE: Duration = Duration::from_secs(20);

/// The source of batches for one model, or for several models that are compared.
pub struct Source<'a> {
    inputs: Vec<ValueInfo>,
    sizes: Sizes,
    /// Numbers of rows of the tables that inputs index, by name of the input.
    rows: HashMap<String, i64>,
    text: Option<Text<'a>>,
    given: Vec<Run>,
    options: &'a InputOptions,
    /// Number of positions that all models have; `None` if none declares it.
    longest: Option<usize>,
    /// Index of the trial for sizes that are not given.
    trial: usize,
}

impl<'a> Source<'a> {
    /// Returns a source for a model: given tensors, otherwise texts if there is a tokenizer and the model takes token
    /// ids, otherwise values for the model's signature. Sizes stay within the contract of a package.
    ///
    /// Fails with `NotFound` if the options name an input that the model does not have; `InvalidArgument` if texts are
    /// given together with tensors, without a tokenizer, or for a model without token ids, or if other options do not
    /// fit the model.
    pub fn new(model: &Model, tokenizer: Option<&'a Tokenizer>, options: &'a InputOptions) -> Result<Source<'a>> {
        Source::of(&[model], tokenizer, options)
    }

    /// Returns a source like [`Source::new`] for two models with the same inputs, with sizes that both accept. The
    /// inputs are named, typed and ordered as those of `original`. Fails like [`Source::new`].
    pub fn pair(
        original: &Model,
        result: &Model,
        tokenizer: Option<&'a Tokenizer>,
        options: &'a InputOptions,
    ) -> Result<Source<'a>> {
        Source::of(&[original, result], tokenizer, options)
    }

    fn of(models: &[&Model], tokenizer: Option<&'a Tokenizer>, options: &'a InputOptions) -> Result<Source<'a>> {
        let original = models[0];
        let inputs = original.inputs();
        for name in options.shapes.iter().map(|s| &s.0).chain(options.values.iter().map(|v| &v.0)) {
            if !inputs.iter().any(|info| info.name == *name) {
                let names: Vec<&str> = inputs.iter().map(|info| info.name.as_str()).collect();
                bail!(NotFound, "there is no input {name:?}; the inputs are {}", names.join(", "));
            }
        }
        let mut sizes = Sizes::new(original);
        models[1..].iter().filter(|model| !std::ptr::eq(**model, original)).for_each(|model| sizes.and(model));
        let mut longest = None;
        for model in models {
            longest = [longest, model.card().longest_text()?].into_iter().flatten().min();
        }
        let view = View::new(original.proto());
        let rows = inputs.iter().filter_map(|i| Some((i.name.clone(), rows_indexed_by(&view, &i.name)?))).collect();
        let given = given(&sizes, &inputs, options)?;
        let text = match (tokenizer, Role::ids(&inputs)) {
            _ if !given.is_empty() && !options.texts.is_empty() => {
                bail!(InvalidArgument, "texts and tensors were both given; the inputs can come from only one of them")
            }
            _ if !given.is_empty() => None,
            (Some(tokenizer), Some(ids)) => Some(Text::new(tokenizer, (&inputs[ids], ids), &sizes, longest, options)?),
            _ if options.texts.is_empty() => None,
            (None, _) => bail!(InvalidArgument, "texts were given, but no tokenizer was found next to the model"),
            _ => bail!(InvalidArgument, "texts were given, but the model has no input of token ids (`input_ids`)"),
        };
        Ok(Source { inputs, sizes, rows, text, given, options, longest, trial: 0 })
    }

    /// Returns the source with texts truncated to `tokens` tokens by default, instead of to the positions of the model
    /// and at most 512. Lengths that the options or the model's inputs require still apply.
    pub fn up_to(mut self, tokens: usize) -> Source<'a> {
        if let Some(text) = &mut self.text {
            text.longest = tokens;
        }
        self
    }

    /// Runs `run` with guesses of unknown sizes, the most common ones first, until it succeeds, and returns its result;
    /// the source keeps the sizes. Stops with an error at the first error that other inputs cannot avoid. If all
    /// guesses fail, or after 20 seconds, the error is that of the first guess, with advice to the user.
    pub fn settle<T>(&mut self, mut run: impl FnMut(&Source<'a>) -> Result<T>) -> Result<T> {
        let begin = Instant::now();
        self.trial = 0;
        match self.set(0) {
            Err(e) if e.kind() != Kind::LimitExceeded => return Err(e),
            _ => {}
        }
        let mut refused: Option<Error> = None;
        for trial in 0..self.trials() {
            self.trial = trial;
            match run(self) {
                Ok(done) => return Ok(done),
                Err(e) if !is_refusal(&e) && e.kind() != Kind::LimitExceeded => return Err(e),
                Err(e) => {
                    refused.get_or_insert(e);
                }
            }
            if begin.elapsed() > PATIENCE {
                break;
            }
        }
        self.trial = 0;
        let e = refused.unwrap_or_else(|| crate::error::error!(Internal, "there are no input sizes to try"));
        Err(self.hinted(e))
    }

    /// Uses the guessed sizes of the same trial as another source.
    pub fn follow(&mut self, other: &Source<'_>) {
        self.trial = other.trial;
    }

    /// Returns the number of guesses of sizes that can be tried.
    fn trials(&self) -> usize {
        match &self.text {
            Some(text) => text.trials(),
            None if self.sizes.is_open() => TRIALS,
            None => 1,
        }
    }

    /// Returns the error of a run; if the inputs may be its cause ([`is_refusal`]), with advice to the user in its
    /// message.
    pub fn hinted(&self, e: Error) -> Error {
        match is_refusal(&e) {
            true => Error::new(e.kind(), format!("{}; {}", e.message(), self.hint())).at(e.place()),
            false => e,
        }
    }

    /// Returns the name of the kind of inputs: `text`, `given` or `generated`.
    pub fn name(&self) -> &'static str {
        match &self.text {
            Some(_) => "text",
            None if !self.given.is_empty() => "given",
            None => "generated",
        }
    }

    /// Returns the sizes that may be those of a vocabulary: that of the tokenizer if the inputs are texts, and the
    /// numbers of rows of the tables that inputs index.
    pub fn vocabularies(&self) -> Vec<i64> {
        let tokenizer = self.text.as_ref().map(|text| text.vocabulary());
        self.rows.values().copied().chain(tokenizer).collect()
    }

    /// Returns advice to the user on which options change the inputs that a model rejects.
    fn hint(&self) -> &'static str {
        match self.name() {
            "text" => "the options `sequence_length`, `shapes` and `values` set the inputs",
            "given" => "the given inputs were used; `shapes` and `values` set the others",
            _ => "the inputs were generated from the model's signature; the options `shapes` and `values` set them",
        }
    }

    /// Returns the inputs for timing: the first given or generated ones, or the caller's first texts at their own
    /// length. With `sequence_length`, texts have that length; built-in text has 128 tokens by default, so that
    /// overhead does not dominate. Fails with `InvalidArgument` if no text has tokens, or if an input does not get
    /// values of its type and shape.
    pub fn timing(&self) -> Result<Batch> {
        match &self.text {
            Some(text) => self.make(0, Some(text.timing(self.trial)?)),
            None => self.make(0, None),
        }
    }

    /// Returns the number of batches for measuring quality: as many as all texts need, at most 64 of given tensors, or
    /// 8 generated ones.
    pub fn count(&self) -> usize {
        match &self.text {
            Some(text) => text.count(),
            None if !self.given.is_empty() => self.given.len().min(GIVEN_SETS),
            None => GENERATED_SETS,
        }
    }

    /// Returns the batch `index` of those for measuring quality. `index` is less than [`Source::count`]. Fails like
    /// [`Source::timing`].
    pub fn set(&self, index: usize) -> Result<Batch> {
        match &self.text {
            Some(text) => self.make(index, Some(text.set(index, self.trial)?)),
            None => self.make(index, None),
        }
    }

    fn make(&self, index: usize, tokens: Option<Tokens>) -> Result<Batch> {
        // Given sets are selected evenly from all of them.
        let given = self.given.get(index * self.given.len() / self.count().max(1));
        let roles: Vec<Option<Role>> =
            self.inputs.iter().map(|info| tokens.as_ref().and_then(|_| Role::of(info))).collect();
        let shapes = self.shapes(&roles, tokens.as_ref(), given)?;
        let mut random = Random::part(self.options.seed, index as u64);
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for ((info, role), (_, shape)) in self.inputs.iter().zip(roles).zip(&shapes) {
            if let Some((name, tensor)) = given.into_iter().flatten().find(|(name, _)| *name == info.name) {
                inputs.push((name.clone(), tensor.clone()));
                continue;
            }
            let given = self.values(&info.name).map(|values| match values {
                [one] => Fill::Constant(*one),
                many => Fill::Given(many.to_vec()),
            });
            let rows = self.rows.get(&info.name).copied();
            let fill = match (given, role, &tokens) {
                (Some(given), ..) => given,
                (None, Some(role), Some(tokens)) => tokens.fill(role),
                _ => Fill::guess(info, rows),
            };
            inputs.push((info.name.clone(), fill.tensor(info, shape, &mut random)?));
        }
        let samples = match (&tokens, given) {
            (Some(tokens), _) => tokens.samples,
            (None, Some(_)) => shapes.iter().find_map(|(_, shape)| shape.first()).map_or(1, |size| *size as usize),
            (None, None) => 1,
        };
        let truncated = tokens.as_ref().map(Tokens::truncated).unwrap_or_default();
        Ok(Batch { inputs, mask: tokens.map(Tokens::into_mask), samples, truncated })
    }

    /// Returns the shape of each input. The shapes of tokens and of the caller's values are set first, because other
    /// inputs depend on them.
    fn shapes(
        &self,
        roles: &[Option<Role>],
        tokens: Option<&Tokens>,
        given: Option<&Run>,
    ) -> Result<Vec<(String, Vec<i64>)>> {
        let mut sizes = self.sizes.clone();
        let of_tokens = tokens.map(|t| vec![t.batch.batch as i64, t.batch.length as i64]);
        let mut sequential = Vec::with_capacity(self.inputs.len());
        for (index, (info, role)) in self.inputs.iter().zip(roles).enumerate() {
            let asked = self.options.shapes.iter().find(|s| s.0 == info.name).map(|s| s.1.clone());
            let tensor = given.into_iter().flatten().find(|(name, _)| *name == info.name);
            // A list of values sets the length of an input with one dimension.
            let one_dimension = info.shape.as_ref().is_none_or(|s| s.len() == 1);
            let listed = self.values(&info.name).filter(|values| values.len() > 1 && one_dimension);
            let listed = listed.map(|values| vec![values.len() as i64]);
            let tensor = tensor.map(|(_, tensor)| tensor.shape().to_vec());
            if let Some(shape) = tensor.or(asked).or_else(|| role.and(of_tokens.clone())).or(listed) {
                sizes.bind(index, &shape)?;
            }
            sequential.push(role.is_some() || Role::of(info).is_some());
        }
        let default = DEFAULT_LENGTH.min(self.longest.unwrap_or(usize::MAX));
        let asked = self.options.sequence_length;
        let length = tokens.map_or(if asked == 0 { default } else { asked }, |t| t.batch.length);
        sizes.choose(&Wanted {
            batch: tokens.map_or(self.options.batch_size, |t| t.batch.batch) as i64,
            sequence: length as i64,
            asked: asked != 0 || tokens.is_some(),
            longest: self.longest.map(|longest| longest as i64),
            sequential: &sequential,
            trial: self.trial,
        });
        sizes.all()
    }

    fn values(&self, name: &str) -> Option<&[f64]> {
        self.options.values.iter().find(|v| v.0 == name).map(|v| v.1.as_slice())
    }
}

/// Returns whether an error may mean that a model rejected its inputs, so that other inputs may work.
pub fn is_refusal(e: &Error) -> bool {
    matches!(e.kind(), Kind::Runtime | Kind::InvalidArgument)
}

/// Returns the given tensors divided into runs; none if no tensors are given.
fn given(sizes: &Sizes, inputs: &[ValueInfo], options: &InputOptions) -> Result<Vec<Run>> {
    if options.tensors.is_empty() {
        return Ok(Vec::new());
    }
    let is_given = |info: &ValueInfo| options.tensors.iter().any(|(name, _)| *name == info.name);
    let least = inputs.iter().enumerate().filter(|(_, info)| is_given(info)).map(|(index, _)| sizes.bounds(index, 0).0);
    let rows = least.max().and_then(|rows| usize::try_from(rows).ok()).unwrap_or(1).max(options.batch_size);
    cut(&sizes.infos(), &options.tensors, rows, "data")
}
