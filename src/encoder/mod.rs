//! Encoders: texts to vectors ([`Embedder`]) and to the scores of classes ([`Classifier`]).
//!
//! Both own a session and a tokenizer, and take any number of texts per call. They sort the texts, shortest first, so
//! that little is padded; `batches` passes them to a session; `vectors` finds the output with vectors and pools it.

mod batches;
mod classifier;
mod embedder;
mod vectors;

pub use batches::{Batches, TextOptions};
pub(crate) use classifier::logits_of;
pub use classifier::{Classifier, ScoreFunction, Scores};
pub use embedder::{Embedder, EmbedderOptions};
pub use vectors::Embeddings;
pub(crate) use vectors::{Vectors, output_of};

use crate::error::{Result, bail};
use crate::model::Model;
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

/// Returns the order in which texts are run: by length, so that those of a batch are padded little.
fn by_length(lengths: &[usize]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|index| lengths[*index]);
    order
}

/// Returns rows of `width` values in the order of the texts; row `i` is that of text `order[i]`.
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
        let order = by_length(&[5, 1, 3]);
        assert_eq!(order, [1, 2, 0]);
        assert_eq!(in_order(&[10.0, 11.0, 20.0, 21.0, 30.0, 31.0], 2, &order), [30.0, 31.0, 10.0, 11.0, 20.0, 21.0]);
    }
}
