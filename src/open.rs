//! The front door: a path becomes a [`Model`], whatever lies there.
//!
//! [`load`] looks at what is there (at the content, not only at names) and hands over to the reader of that kind in
//! [`crate::source`], [`crate::package`] or [`crate::ensemble`]. Nothing in the rooms below asks it back: who needs a
//! model there is given one, or a way to load it.

use crate::ensemble::{Ensemble, manifest};
use crate::error::{Context, Result, bail};
use crate::files;
use crate::model::Model;
use crate::package::{self, OpenOptions, Package};
use crate::source::{LoadOptions, checkpoint, folder, gguf};
use std::path::Path;

impl Model {
    /// Loads any kind of model this version knows: an `.onnx` file, an exported folder, a Hugging Face checkpoint, a
    /// GGUF file, a package, the manifest of an ensemble. See [`crate::open`].
    ///
    /// Nothing is copied: weights stay in the mapped files, which must not be truncated while the model lives.
    pub fn load(path: &Path) -> Result<Model> {
        load(path, &LoadOptions::default())
    }
}

impl Ensemble {
    /// Loads the ensemble that a manifest describes, or a folder that has one, with its members.
    ///
    /// [`crate::error::Kind::NotFound`] if there is none; `InvalidModel` if it is damaged or of a newer version, or if
    /// a member's files are not those it was made with; else as loading the members and [`Ensemble::new`].
    pub fn load(path: &Path) -> Result<Ensemble> {
        manifest::load(path, &Model::load)
    }
}

/// Loads any kind of model this version knows. Weights are mapped, not read.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Model> {
    let place = || path.display().to_string();
    if manifest::find(path).is_some() {
        return manifest::load_fused(path, &Model::load);
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
    let has = |name: &str| path.join(name).is_file();
    if folder::find_onnx(path)?.is_some() {
        return folder::load(path);
    }
    if has("config.json") && (has("model.safetensors") || has("model.safetensors.index.json")) {
        return checkpoint::load(path, options).at(|| path.display());
    }
    bail!(NotFound, "{}", folder::nothing_found(path))
}
