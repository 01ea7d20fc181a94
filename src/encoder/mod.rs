//! Encoders, which compute vectors of texts ([`Embedder`]), scores of classes ([`Classifier`]) and labelled spans
//! ([`Tagger`]).
//!
//! Each owns a session and a tokenizer, and takes a list of one or more texts per call. `batches` passes texts to a
//! session, in the given order or by length, and returns a row of values for each text. `vectors` finds the output with
//! vectors and pools it, `outputs` finds the output with logits or scores, and `scores` selects the function that
//! converts logits to scores.

mod batches;
mod classifier;
mod embedder;
mod outputs;
mod scores;
mod tagger;
mod vectors;

pub use batches::{Batches, TextOptions};
pub use classifier::{Classifier, Scores};
pub(crate) use classifier::{logits, logits_of};
pub use embedder::{Embedder, EmbedderOptions};
pub(crate) use scores::LogitKind;
pub use scores::ScoreFunction;
pub use tagger::{Aggregation, Span, Tagger, TaggerOptions};
pub use vectors::Embeddings;
pub(crate) use vectors::{Vectors, output_of, usual_dimensions};

use crate::error::{Result, bail};
use crate::model::Model;
use crate::text::Tokenizer;
use std::sync::Arc;

/// Returns the given tokenizer, or the model's own. Fails with [`crate::error::Kind::NotFound`] if there is neither,
/// and like [`Tokenizer::of`].
fn tokenizer_of(model: &Model, given: Option<Arc<Tokenizer>>) -> Result<Arc<Tokenizer>> {
    if let Some(given) = given {
        return Ok(given);
    }
    match Tokenizer::of(model)? {
        Some(own) => Ok(Arc::new(own)),
        None => bail!(NotFound, "the model has no tokenizer.json next to it, and no tokenizer was given"),
    }
}
