//! Readers that load a [`Model`](crate::model::Model) from ONNX files, exported folders, Hugging Face checkpoints and
//! GGUF files, on disk or provided by a program.
//!
//! Readers return a graph whose weights are slices of the mapped files wherever possible, and a
//! [`Card`](crate::model::Card) with the rest. [`crate::open`] chooses the reader of a path.

pub mod blocks;
pub mod builder;
pub mod checkpoint;
pub mod folder;
pub mod gguf;
pub mod provided;
pub mod weights;

pub use builder::Dialect;

/// Options for loading a model.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Operators of the graphs that are built from checkpoints and GGUF files. Default: [`Dialect::Runtime`].
    pub dialect: Dialect,
}
