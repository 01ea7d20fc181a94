//! Inputs of runs: texts, given tensors, generated values and empty caches, with their roles and their sizes.
//!
//! [`Source`] returns each [`Batch`] that [`InputOptions`] describe: of texts (`texts`), of given tensors
//! ([`tensors`]), or of values that are generated for the model's signature (`generated`). [`Sizes`] determines the
//! dimensions that a model does not fix, within the contract of its package. [`role`] derives the role of an input from
//! its name. [`hints`] and [`tables`] read from the graph which sizes it requires, and how many rows the tables have
//! that inputs index. [`window`] and [`feed`] make the inputs of decoders that read tokens with an empty cache.

mod batch;
pub mod feed;
mod generated;
pub mod hints;
mod options;
pub mod role;
mod sentences;
pub mod sizes;
mod source;
pub mod tables;
pub mod tensors;
mod texts;
pub mod window;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use batch::{Batch, Mask, Truncation};
pub(crate) use generated::guesses_values;
pub use options::InputOptions;
pub(crate) use options::as_map;
pub use role::{Role, is_named_as_tokens, is_of_tokens, is_past, plain_name};
pub use sizes::{Sizes, Wanted};
pub use source::{Source, is_refusal};
pub use tensors::read_tensors;
pub(crate) use texts::token_limit;
