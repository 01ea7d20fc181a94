//! The options of a caller for inputs ([`InputOptions`]).

use super::sentences::SENTENCES;
use crate::runtime::Tensor;
use crate::text::Encoding;
use serde::{Serialize, Serializer};

/// The length of generated sequences, and of built-in text for timing, in tokens, if the options set none.
pub const DEFAULT_LENGTH: usize = 128;

/// The options of a caller for the inputs of runs. By default, inputs are built-in texts if there is a tokenizer and
/// the model takes token ids; otherwise they are generated.
#[derive(Debug, Clone, Serialize)]
pub struct InputOptions {
    /// Texts for models that take token ids; they need a tokenizer. Default: empty, which uses 32 built-in sentences.
    #[serde(serialize_with = "count")]
    pub texts: Vec<String>,
    /// Second texts, one for each of `texts`, for models that read pairs. Default: empty.
    #[serde(skip)]
    pub second_texts: Vec<String>,
    /// Texts as tokens, in place of `texts`, for the batches that [`super::Source::set`] returns. None may be longer
    /// than the model accepts. Default: empty.
    #[serde(skip)]
    pub encodings: Vec<Encoding>,
    /// Number of texts or generated samples per run, unless the model fixes it. Default: 1.
    pub batch_size: usize,
    /// Length of the timed inputs and maximum length of any text, in tokens. 0 (default) uses the length of the
    /// caller's texts, truncated to the number of positions of the model (at most 512), and 128 for built-in text in
    /// timed runs and for generated inputs.
    pub sequence_length: usize,
    /// Shapes of inputs by name, for dimensions that the model does not fix. Default: empty.
    #[serde(serialize_with = "as_map")]
    pub shapes: Vec<(String, Vec<i64>)>,
    /// Values of inputs by name: one number for all elements, or one per element, row-major. Default: empty.
    #[serde(serialize_with = "as_map")]
    pub values: Vec<(String, Vec<f64>)>,
    /// Tensors for inputs by name, in place of texts; other inputs are generated. The first dimension counts samples,
    /// of which `batch_size` form a run, or as many as the model requires. A tensor with one dimension more than its
    /// input is split along the first one. A tensor for an input without dimensions belongs to every run. Default:
    /// empty.
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
