//! The options of a caller for inputs ([`InputOptions`]).

use super::sentences::SENTENCES;
use crate::runtime::Tensor;
use crate::text::Encoding;
use serde::{Serialize, Serializer};

/// The length of generated sequences, and of built-in text for timing, in tokens.
pub const DEFAULT_LENGTH: usize = 128;

/// The options of a caller for the inputs of runs. By default, inputs are built-in texts, or generated.
#[derive(Debug, Clone, Serialize)]
pub struct InputOptions {
    /// Texts for models that take token ids; they need a tokenizer. Default: empty, which uses 32 built-in sentences.
    #[serde(serialize_with = "count")]
    pub texts: Vec<String>,
    /// Second texts, one for each of `texts`, for models that read pairs. Default: empty.
    #[serde(skip)]
    pub second_texts: Vec<String>,
    /// Texts as tokens, in place of `texts`. Each must fit the model. Default: empty.
    #[serde(skip)]
    pub encodings: Vec<Encoding>,
    /// Number of texts or generated samples per run. Default: 1.
    pub batch_size: usize,
    /// Length of the timed inputs and maximum length of any text, in tokens. 0 uses the length of the caller's texts,
    /// and 128 for built-in text and generated inputs.
    pub sequence_length: usize,
    /// Shapes of inputs by name, for dynamic dimensions.
    #[serde(serialize_with = "as_map")]
    pub shapes: Vec<(String, Vec<i64>)>,
    /// Values of inputs by name: one number for all elements, or one per element.
    #[serde(serialize_with = "as_map")]
    pub values: Vec<(String, Vec<f64>)>,
    /// Tensors for inputs by name, instead of generated values and texts. The first dimension counts samples, of
    /// which `batch_size` form a run, or as many as the model requires; tensors with one dimension more than their
    /// input are split along it.
    #[serde(serialize_with = "names")]
    pub tensors: Vec<(String, Tensor)>,
    /// Seed of generated inputs; the same seed gives the same inputs. Default: 0.
    pub seed: u64,
}

impl Default for InputOptions {
    fn default() -> Self {
        InputOptions {
            texts: Vec::new(),
            second_texts: Vec::new(),
            encodings: Vec::new(),
            batch_size: 1,
            sequence_length: 0,
            shapes: Vec::new(),
            values: Vec::new(),
            tensors: Vec::new(),
            seed: 0,
        }
    }
}

impl InputOptions {
    /// Returns the caller's texts, or the built-in ones if there are none.
    pub fn texts(&self) -> Vec<&str> {
        if self.texts.is_empty() { SENTENCES.to_vec() } else { self.texts.iter().map(String::as_str).collect() }
    }
}

/// Serializes only the number of texts: they may be many, and they belong to the caller.
fn count<S: Serializer>(texts: &[String], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_u64(texts.len() as u64)
}

/// Serializes pairs as a JSON object.
pub fn as_map<T: Serialize, S: Serializer>(
    pairs: &[(String, T)],
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}

/// Serializes only the names of tensors: they may be large, and they belong to the caller.
fn names<S: Serializer>(pairs: &[(String, Tensor)], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_seq(pairs.iter().map(|(name, _)| name))
}
