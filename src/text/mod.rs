//! Text in and out of models.
//!
//! - [`tokenizer`]: text to ids and back, with the `tokenizer.json` that comes with a model, and what `settings` finds
//!   in the files beside it.
//! - [`pieces`]: the bytes that each token stands for.
//! - [`chat`]: a conversation as the text a model was trained on.
//! - [`generate`]: from prompts to answers, on a [`generator`], which holds rows of text in the making; [`sampler`]
//!   chooses tokens, [`stream`] makes text of them as they come, [`decoder`] reads off a graph how it is fed, and
//!   `kv_cache` keeps what it has read. [`rows`] is what the loop needs of what writes: one model, or several
//!   ([`crate::ensemble`]).

pub mod chat;
pub mod decoder;
pub mod generate;
pub mod generator;
mod jinja;
mod kv_cache;
pub mod pieces;
pub mod rows;
pub mod sampler;
pub(crate) mod sentencepiece;
mod sentences;
mod settings;
pub mod stream;
pub mod tokenizer;

pub use chat::{ChatOptions, ChatTemplate};
pub use decoder::Decoder;
pub use generate::{FinishReason, GenerateOptions, Generation, OnToken, Written};
pub use generator::{Generator, Prompt};
pub use pieces::Pieces;
pub use rows::{Rows, Uncertainty};
pub use sampler::{Logprob, Logprobs, SamplingOptions};
pub use stream::TextStream;
pub(crate) use tokenizer::FILES as TOKENIZER_FILES;
pub use tokenizer::{Batch, Encoding, Tokenizer};
