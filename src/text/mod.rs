//! Text as input and output of models.
//!
//! - [`tokenizer`]: text to token ids and back, with the `tokenizer.json` of a model and the files next to it
//!   (`settings`, and `sentences` for those of sentence-transformers). `sentencepiece` merges characters where
//!   `tokenizer.json` cannot express the order.
//! - [`pieces`]: the bytes of each token.
//! - [`chat`]: converts a conversation to the text format that a model was trained on, with the template engine
//!   `jinja`.
//! - [`generate`]: generates text from prompts with a [`generator`], which has the rows of text. [`sampler`] chooses
//!   tokens, [`stream`] converts them to text as they arrive, [`decoder`] derives the inputs from the graph, and
//!   `kv_cache` keeps keys and values. [`rows`] has the trait that the generation loop needs: a generator of one model
//!   implements it, and one of several models ([`crate::ensemble`]).
//! - [`draft`]: tokens that a generator verifies several at a time, for speculative decoding; `vocabulary` compares the
//!   tokens of two models.

pub mod chat;
pub mod decoder;
pub mod draft;
pub mod generate;
mod generation;
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
pub(crate) mod vocabulary;

pub use chat::{ChatOptions, ChatTemplate};
pub use decoder::Decoder;
pub use draft::{Draft, Drafted};
pub use generate::{FinishReason, GenerateOptions, Generation, OnToken, Written};
pub use generation::Uncertainty;
pub use generator::Generator;
pub use pieces::Pieces;
pub use rows::{Prompt, RowTexts, Rows};
pub use sampler::{Logprob, Logprobs, SamplingOptions};
pub(crate) use sentences::named_prompt;
pub use stream::TextStream;
pub(crate) use tokenizer::FILES as TOKENIZER_FILES;
pub use tokenizer::{Batch, Encoding, Tokenizer};
pub(crate) use tokenizer::{Token, Window, Windows};
