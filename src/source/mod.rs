//! From what users have to a [`Model`](crate::model::Model): ONNX files, exported folders, Hugging Face checkpoints, GGUF files.
//!
//! Readers return a graph whose weights are slices of the mapped files, and a [`Card`](crate::model::Card) with the
//! rest. Which of them reads a path, [`crate::open`] decides.

pub mod blocks;
pub mod builder;
pub mod checkpoint;
pub mod folder;
pub mod gguf;
pub mod weights;

pub use builder::Dialect;

/// How to load a model.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Which operators a graph is built of, where one is built (checkpoints, GGUF).
    pub dialect: Dialect,
}
