//! The loading of any model from a path.
//!
//! [`load`] detects the kind of model (by content, not only by name) and calls the reader of that kind in
//! [`crate::source`], [`crate::package`] or [`crate::ensemble`]. The modules below this one in the picture of the crate
//! cannot call it: a function there that needs a model takes the model, or a function that loads it, as an argument.

use crate::counters::PROCESS;
use crate::ensemble::{Ensemble, manifest};
use crate::error::{Context, Result, bail};
use crate::files;
use crate::log::{self, LogLevel};
use crate::model::Model;
use crate::package::{self, OpenOptions, Package};
use crate::source::provided::{FileSource, Provided};
use crate::source::{LoadOptions, checkpoint, folder, gguf};
use crate::{call::Call, limits};
use bytes::Bytes;
use std::path::Path;
use std::time::Instant;

impl Model {
    /// Loads a model of any supported kind and returns it: an `.onnx` file, a packed file, an exported folder, a
    /// Hugging Face checkpoint, a GGUF file, a package, or the manifest of an ensemble, which is loaded as one fused
    /// graph.
    ///
    /// Weights that the graph uses as they are stored stay in the mapped files, which must not be truncated while the
    /// model exists. Other weights are converted to memory (small ones) or to a temporary file.
    ///
    /// Fails, among others, with [`crate::error::Kind::NotFound`] if nothing is at `path` or no model is in the folder,
    /// and with `InvalidModel` if a file is damaged. Fails with `Unsupported` if the model uses a feature that this
    /// version lacks, and with `LimitExceeded` if a file exceeds a limit of [`limits`].
    pub fn load(path: &Path) -> Result<Model> {
        load(path, &LoadOptions::default())
    }
}

impl Ensemble {
    /// Loads an ensemble and its members from a manifest, or from a folder that contains one, and returns it.
    ///
    /// Fails with [`crate::error::Kind::NotFound`] if there is no manifest, and with `InvalidModel` if it is damaged or
    /// of a newer version, or if the size of a member differs from the one in the manifest. Fails with `Unsupported` if
    /// a member is itself an ensemble, and with the errors of [`Model::load`] for the members and of [`Ensemble::new`].
    pub fn load(path: &Path) -> Result<Ensemble> {
        manifest::load(path, &Model::load)
    }
}

/// Loads a model of any supported kind with the given options, and returns it. [`Model::load`] lists the kinds; this
/// function fails like it.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Model> {
    let start = Instant::now();
    let model = find(path, options)?;
    count(&model, &path.display().to_string(), start);
    Ok(model)
}

/// Loads the model in the file `name` of a source, and returns it: an `.onnx` file with its external data and the files
/// next to it, a packed file, a GGUF file, or a package in one file. The files are read into memory during this call,
/// on the caller's thread. `call` receives the stage `load` for each file, in bytes, and can cancel. Fails with the
/// error of the source, with `Cancelled` or `Timeout`, and like [`Model::load`] for the content.
pub fn load_provided(source: &dyn FileSource, name: &str, options: &LoadOptions, call: &Call) -> Result<Model> {
    let start = Instant::now();
    let file = Provided::new(source, name, call)?;
    let onnx = |bytes| folder::load_provided(bytes, &file);
    let model = of_content(file.content(limits::DATA_FILE_BYTES)?, name, options, &onnx)?;
    count(&model, name, start);
    Ok(model)
}

/// Loads a model from the bytes of an `.onnx` file without external data, a packed file, a GGUF file, or a package in
/// one file, and returns it. Fails like [`Model::load`] for the content, and with `InvalidArgument` for a model with
/// external data.
pub fn load_bytes(bytes: Bytes, options: &LoadOptions) -> Result<Model> {
    let start = Instant::now();
    let model = of_content(bytes, "memory", options, &Model::from_bytes)?;
    count(&model, "memory", start);
    Ok(model)
}

/// Loads a model from the content of a file and returns it; `onnx` loads the content of an `.onnx` file or of a packed
/// file. `name` is the name of the file in messages.
fn of_content(bytes: Bytes, name: &str, options: &LoadOptions, onnx: &dyn Fn(Bytes) -> Result<Model>) -> Result<Model> {
    if bytes.starts_with(b"GGUF") {
        return gguf::from_bytes(bytes, Path::new(name), options).at(|| name);
    }
    if package::is_package_file(&bytes) {
        return Package::from_bytes(bytes, name, &OpenOptions::default())?.model();
    }
    onnx(bytes)
}

/// Counts a model whose loading began at `start` in [`PROCESS`], and logs its warnings and the duration. `place` is the
/// name of the model in the messages.
pub(crate) fn count(model: &Model, place: &str, start: Instant) {
    PROCESS.models_loaded.add(1);
    PROCESS.bytes_loaded.add(model.bytes());
    PROCESS.load_seconds.add(start);
    for warning in &model.card().warnings {
        log::ours(LogLevel::Warning, || format!("{place}: {warning}"));
    }
    log::ours(LogLevel::Info, || format!("{place}: loaded in {:.1} ms", start.elapsed().as_secs_f64() * 1e3));
}

fn find(path: &Path, options: &LoadOptions) -> Result<Model> {
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
