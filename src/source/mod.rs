//! Readers of [`Model`](crate::model::Model)s: ONNX files, exported folders, Hugging Face checkpoints, GGUF files.
//!
//! Readers return a graph whose weights are slices of the mapped files, and a [`Card`](crate::model::Card) with the
//! rest. [`crate::open`] chooses the reader of a path.

pub mod blocks;
pub mod builder;
pub mod checkpoint;
pub mod folder;
pub mod gguf;
pub mod weights;

pub use builder::Dialect;

/// Options for loading a model.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The operators of graphs that are built (checkpoints, GGUF).
    pub dialect: Dialect,
}
