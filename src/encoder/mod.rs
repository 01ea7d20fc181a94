//! Encoders, which compute vectors of texts ([`Embedder`]), scores of classes ([`Classifier`]) and labelled spans
//! ([`Tagger`]).
//!
//! Each owns a session and a tokenizer, and takes a list of one or more texts per call. `batches` passes texts to a
//! session, in the given order or by length, and returns a row of values for each; `vectors` finds the output with
//! vectors and pools it.

mod batches;
mod classifier;
mod embedder;
mod tagger;
mod vectors;

pub use batches::{Batches, TextOptions};
pub use classifier::{Classifier, ScoreFunction, Scores};
pub(crate) use classifier::{logits, logits_of};
pub use embedder::{Embedder, EmbedderOptions};
pub use tagger::{Aggregation, Span, Tagger, TaggerOptions};
pub use vectors::Embeddings;
pub(crate) use vectors::{Vectors, output_of};

use crate::error::{Error, Result, bail, error};
use crate::model::{Model, ValueInfo};
use crate::onnx::dtype::DataType;
use crate::text::Tokenizer;
use std::sync::Arc;

/// Returns the given tokenizer, or the model's own. Fails with [`crate::error::Kind::NotFound`] if there is none.
fn tokenizer_of(model: &Model, given: Option<Arc<Tokenizer>>) -> Result<Arc<Tokenizer>> {
    if let Some(given) = given {
        return Ok(given);
    }
    match Tokenizer::of(model)? {
        Some(own) => Ok(Arc::new(own)),
        None => bail!(NotFound, "the model has no tokenizer.json next to it, and no tokenizer was given"),
    }
}

/// Returns the name of the output with logits: of the float outputs that have `dimensions` dimensions or an undeclared
/// shape, the first with "logit" in its name, otherwise the only output of the model; `None` if there is none.
fn logits_in(model: &Model, dimensions: usize) -> Option<String> {
    let outputs = model.outputs();
    let fits = |info: &&ValueInfo| {
        matches!(info.dtype, Some(DataType::Float32 | DataType::Float16 | DataType::Bfloat16))
            && info.shape.as_ref().is_none_or(|shape| shape.len() == dimensions)
    };
    let fitting: Vec<&ValueInfo> = outputs.iter().filter(fits).collect();
    match (fitting.iter().find(|info| info.name.to_lowercase().contains("logit")), fitting.as_slice()) {
        (Some(info), _) => Some(info.name.clone()),
        (None, [only]) if outputs.len() == 1 => Some(only.name.clone()),
        _ => None,
    }
}

/// Returns the error for a model in which [`logits_in`] finds no output. `dimensions` and `owner` are words of the
/// message.
fn no_logits(model: &Model, dimensions: &str, owner: &str) -> Error {
    let outputs = model.outputs();
    let names: Vec<&str> = outputs.iter().map(|info| info.name.as_str()).take(8).collect();
    error!(
        Unsupported,
        "the model has no output `logits` of {dimensions} dimensions, as {owner} have; its outputs are {}",
        names.join(", ")
    )
}
