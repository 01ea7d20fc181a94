//! Text in and out of models.
//!
//! - [`tokenizer`]: text to ids and back, with the `tokenizer.json` that comes with a model.

pub mod tokenizer;

pub use tokenizer::{Batch, Encoding, Tokenizer};
