//! What the two models are given: texts through the tokenizer, or inputs made from the model's signature.
//!
//! One [`Source`] serves both models, so they always get the same. Input sets are made one at a time.

use super::BenchmarkOptions;
use super::sentences::SENTENCES;
use super::sizes::{Sizes, is_past};
use super::tables::rows_indexed_by;
use super::text::{Role, Text, Tokens};
use super::values::Fill;
use crate::error::{Result, bail};
use crate::graph::View;
use crate::model::{Model, ValueInfo};
use crate::runtime::Tensor;
use crate::statistics::Random;
use crate::text::Tokenizer;
use std::collections::HashMap;

/// Generated input sets that the quality figures are taken from.
const GENERATED_SETS: usize = 8;
/// Length of generated sequences, and of built-in text for timing.
pub const DEFAULT_LENGTH: usize = 128;

/// The inputs of one run.
pub struct InputSet {
    /// Names and values, in the model's order.
    pub tensors: Vec<(String, Tensor)>,
    /// Which tokens are no padding; `None` if nothing is padded.
    pub mask: Option<Mask>,
    /// Texts in it, or 1.
    pub samples: usize,
    /// Texts of which there are not all tokens.
    pub cut: Vec<Cut>,
}

/// A text that was too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Its place in the set, from 0 on.
    pub text: usize,
    /// Tokens it has.
    pub tokens: usize,
    /// Those that the model gets.
    pub kept: usize,
}

/// Which positions of `[batch, length]` hold a token and not padding.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    /// Batch and length.
    pub shape: [i64; 2],
    /// Row-major.
    pub keep: Vec<bool>,
}

impl InputSet {
    /// The inputs as a run takes them.
    pub fn feed(&self) -> Vec<(&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect()
    }

    /// Names and shapes.
    pub fn shapes(&self) -> Vec<(String, Vec<i64>)> {
        self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect()
    }
}

/// Makes input sets.
pub struct Source<'a> {
    inputs: Vec<ValueInfo>,
    /// Sizes of the tables that inputs index.
    rows: HashMap<String, i64>,
    text: Option<Text<'a>>,
    options: &'a BenchmarkOptions,
}

impl<'a> Source<'a> {
    /// Looks at the signatures and decides where inputs come from: from text if there is a tokenizer and the
    /// model takes token ids, else from the signature. An error if the two models take different inputs.
    pub fn new(
        original: &Model,
        result: &Model,
        tokenizer: Option<&'a Tokenizer>,
        options: &'a BenchmarkOptions,
    ) -> Result<Source<'a>> {
        let inputs = original.inputs();
        same_inputs(&inputs, &result.inputs())?;
        for name in options.shapes.iter().map(|s| &s.0).chain(options.values.iter().map(|v| &v.0)) {
            if !inputs.iter().any(|info| info.name == *name) {
                let names: Vec<&str> = inputs.iter().map(|info| info.name.as_str()).collect();
                bail!(NotFound, "there is no input {name:?}; the inputs are {}", names.join(", "));
            }
        }
        let view = View::new(original.proto());
        let rows = inputs.iter().filter_map(|i| Some((i.name.clone(), rows_indexed_by(&view, &i.name)?))).collect();
        let text = match (tokenizer, Role::ids(&inputs)) {
            (Some(tokenizer), Some(ids)) => Some(Text::new(tokenizer, ids, options)?),
            _ if options.texts.is_empty() => None,
            (None, _) => bail!(InvalidArgument, "texts were given, but no tokenizer was found beside the model"),
            _ => bail!(InvalidArgument, "texts were given, but the model has no input of token ids (`input_ids`)"),
        };
        Ok(Source { inputs, rows, text, options })
    }

    /// Texts are cut after so many tokens, not after 512, where neither the model nor the options say.
    pub fn up_to(mut self, tokens: usize) -> Source<'a> {
        if let Some(text) = &mut self.text {
            text.longest = tokens;
        }
        self
    }

    /// `text` or `generated`.
    pub fn name(&self) -> &'static str {
        if self.text.is_some() { "text" } else { "generated" }
    }

    /// Sizes that look like a vocabulary: the tokenizer's, and those of the tables that inputs index.
    pub fn vocabularies(&self) -> Vec<i64> {
        let tokenizer = self.text.as_ref().map(|text| text.vocabulary());
        self.rows.values().copied().chain(tokenizer).collect()
    }

    /// What the caller can do if a model refuses the inputs.
    pub fn hint(&self) -> &'static str {
        match self.text {
            Some(_) => "the options `sequence_length`, `shapes` and `values` set what the model is given",
            None => "the inputs were generated from the model's signature; the options `shapes` and `values` set them",
        }
    }

    /// The inputs to time: of the first texts, as long as they are, or of `sequence_length`; for built-in text
    /// 128 tokens, so that the figure is not about overheads.
    pub fn timing(&self) -> Result<InputSet> {
        match &self.text {
            Some(text) => self.make(0, Some(text.timing()?)),
            None => self.make(0, None),
        }
    }

    /// The number of input sets for the quality figures.
    pub fn count(&self) -> usize {
        self.text.as_ref().map_or(GENERATED_SETS, Text::count)
    }

    /// One of the input sets for the quality figures.
    pub fn set(&self, index: usize) -> Result<InputSet> {
        match &self.text {
            Some(text) => self.make(index, Some(text.set(index)?)),
            None => self.make(index, None),
        }
    }

    fn make(&self, index: usize, tokens: Option<Tokens>) -> Result<InputSet> {
        let length = tokens.as_ref().map_or(self.options.sequence_length, |t| t.batch.length);
        let batch = tokens.as_ref().map_or(self.options.batch_size, |t| t.batch.batch);
        let mut sizes = Sizes::new(batch, if length == 0 { DEFAULT_LENGTH } else { length });
        let roles: Vec<Option<Role>> =
            self.inputs.iter().map(|info| tokens.as_ref().and_then(|_| Role::of(info))).collect();
        let of_tokens = tokens.as_ref().map(|_| vec![batch as i64, length as i64]);
        let shapes = self.shapes(&mut sizes, &roles, of_tokens)?;
        let mut random = Random::part(self.options.seed, index as u64);
        let mut tensors = Vec::with_capacity(self.inputs.len());
        for ((info, role), shape) in self.inputs.iter().zip(roles).zip(shapes) {
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
            tensors.push((info.name.clone(), fill.tensor(info, &shape, &mut random)?));
        }
        let samples = tokens.as_ref().map_or(1, |t| t.samples);
        let cut = tokens.as_ref().map(Tokens::cut).unwrap_or_default();
        Ok(InputSet { tensors, mask: tokens.map(Tokens::into_mask), samples, cut })
    }

    /// The shape of each input. Tokens and what the caller gave come first, so that other inputs follow them;
    /// caches come last, so that they do not make a name they share mean "empty".
    fn shapes(&self, sizes: &mut Sizes, roles: &[Option<Role>], of_tokens: Option<Vec<i64>>) -> Result<Vec<Vec<i64>>> {
        let mut shapes: Vec<Option<Vec<i64>>> = vec![None; self.inputs.len()];
        for ((info, role), shape) in self.inputs.iter().zip(roles).zip(&mut shapes) {
            let given = self.options.shapes.iter().find(|s| s.0 == info.name).map(|s| s.1.clone());
            // A list of values says how long an input of one dimension is.
            let one_dimension = info.shape.as_ref().is_none_or(|s| s.len() == 1);
            let listed = self.values(&info.name).filter(|values| values.len() > 1 && one_dimension);
            let listed = listed.map(|values| vec![values.len() as i64]);
            *shape = given.or_else(|| role.and(of_tokens.clone())).or(listed);
            if let Some(shape) = shape {
                sizes.bind(info, shape)?;
            }
        }
        let fits = |last: bool| move |info: &ValueInfo| is_past(&info.name) == last;
        for last in [false, true] {
            for (index, info) in self.inputs.iter().enumerate().filter(|(_, info)| fits(last)(info)) {
                if shapes[index].is_some() {
                    continue;
                }
                let sequential = roles[index].is_some() || Role::of(info).is_some();
                shapes[index] = Some(sizes.resolve(info, sequential)?);
            }
        }
        Ok(shapes.into_iter().flatten().collect())
    }

    fn values(&self, name: &str) -> Option<&[f64]> {
        self.options.values.iter().find(|v| v.0 == name).map(|v| v.1.as_slice())
    }
}

/// The texts to use: the caller's, or the built-in ones.
pub fn texts(options: &BenchmarkOptions) -> Vec<&str> {
    if options.texts.is_empty() { SENTENCES.to_vec() } else { options.texts.iter().map(String::as_str).collect() }
}

fn same_inputs(original: &[ValueInfo], result: &[ValueInfo]) -> Result<()> {
    let missing = |from: &[ValueInfo], of: &[ValueInfo]| {
        // Layers that were dropped have no cache.
        let lacks = |info: &&ValueInfo| !is_past(&info.name) && !from.iter().any(|other| other.name == info.name);
        of.iter().find(lacks).map(|info| info.name.clone())
    };
    if let Some(name) = missing(result, original) {
        bail!(InvalidArgument, "only the original has an input {name:?}: the models cannot be compared");
    }
    if let Some(name) = missing(original, result) {
        bail!(InvalidArgument, "only the result has an input {name:?}: the models cannot be compared");
    }
    for info in original {
        let other = result.iter().find(|other| other.name == info.name && other.dtype != info.dtype);
        if let Some(other) = other {
            let (name, was, is) = (&info.name, info.describe(), other.describe());
            bail!(InvalidArgument, "the input {name:?} is {was} in the original, but {is} in the result");
        }
    }
    Ok(())
}
