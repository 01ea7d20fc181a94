//! Packages: a model with all that belongs to it, and the shapes it takes, for programs that run it.
//!
//! [`compile()`] writes one; [`Model::load`] takes it like any other model, and a session of it refuses shapes outside
//! its contract ([`shapes`]). A package is a folder in the layout of ONNX Runtime's model packages ([`manifest`]):
//!
//! ```text
//! manifest.json          what there is: variants, signature, shapes, a SHA-256 of every file
//! manifest.sha256        of manifest.json itself
//! model/portable/        model.onnx, tokenizer.json, configuration ...
//! ```
//!
//! It holds no path to anywhere else, so it can be moved, and is opened read-only. [`verify()`] reads all of it and finds
//! every changed bit; opening checks what is cheap: the manifest against its hash, and the sizes of the files.

mod compile;
pub mod manifest;
pub mod shapes;
mod verify;

pub use compile::{CompileOptions, compile};
pub use shapes::{Contract, DynamicShapes, Range, Size};
pub use verify::{Verified, verify};

use crate::error::{Context, Result};
use crate::model::Model;
use crate::source::folder;
use manifest::Manifest;
use std::path::Path;
use std::sync::Arc;

/// Loads a package as a model: the variant for this machine, with the package's contract.
///
/// [`crate::error::Kind::InvalidModel`] if the manifest is damaged or of a newer version, or a file is missing or of
/// another size; the message names it.
pub fn open(path: &Path) -> Result<Model> {
    let manifest = Manifest::read(path)?;
    manifest.check_sizes(path)?;
    let folder = path.join(&manifest.variant()?.folder);
    let model = folder::load(&folder)?;
    manifest.check_signature(&model).at(|| path.display())?;
    let mut card = model.card().clone();
    card.contract = Some(Arc::new(manifest.contract()));
    Ok(model.named(path).with_card(card))
}

#[cfg(test)]
mod tests;
