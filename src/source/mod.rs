//! From what users have to a [`Model`]: ONNX files, exported folders, Hugging Face checkpoints, GGUF files.
//!
//! [`load`] looks at what is there (at the content, not only at names) and hands over to the reader of that
//! kind. Readers give a graph whose weights are slices of the mapped files, and a [`Card`] with the rest.

pub mod blocks;
pub mod builder;
pub mod card;
pub mod checkpoint;
pub mod folder;
pub mod gguf;
mod longest;
pub mod weights;

pub use builder::Dialect;
pub use card::{Card, Format, GenerationDefaults, Pooling, SideContent, SideFile, Task};

use crate::ensemble::manifest;
use crate::error::{Context, Result, bail};
use crate::files;
use crate::model::Model;
use crate::package::{self, OpenOptions, Package};
use std::path::Path;

/// How to load a model.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Which operators a graph is built of, where one is built (checkpoints, GGUF).
    pub dialect: Dialect,
}

/// Loads any kind of model this version knows. Weights are mapped, not read.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Model> {
    let place = || path.display().to_string();
    if manifest::find(path).is_some() {
        return manifest::load_fused(path);
    }
    let metadata = std::fs::metadata(path).at(place)?;
    if package::is_package(path) {
        return Package::open(path, &OpenOptions::default())?.model();
    }
    if metadata.is_dir() {
        return load_folder(path, options);
    }
    let mut magic = [0u8; 4];
    let read = std::io::Read::read(&mut files::open(path)?, &mut magic).at(place)?;
    if magic[..read] == *b"GGUF" {
        return gguf::load(path, options).at(place);
    }
    if path.extension().is_some_and(|e| e == "safetensors") || path.ends_with("config.json") {
        return load_folder(files::parent_of(path), options);
    }
    folder::load_file(path)
}

fn load_folder(path: &Path, options: &LoadOptions) -> Result<Model> {
    let place = || path.display().to_string();
    let has = |name: &str| path.join(name).is_file();
    if folder::find_onnx(path)?.is_some() {
        return folder::load(path);
    }
    if has("config.json") && (has("model.safetensors") || has("model.safetensors.index.json")) {
        return checkpoint::load(path, options).at(place);
    }
    bail!(NotFound, "{}", folder::nothing_found(path))
}
