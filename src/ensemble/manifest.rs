//! The manifest of an ensemble: a small JSON file, `ensemble.json`, with the members and the combination method.
//!
//! ```json
//! {"format": "liboptimize-ensemble", "version": 1, "method": "mean",
//!  "members": [{"model": "../a.gguf", "bytes": 98400000, "weight": 0.7, "temperature": 1.0}, ...]}
//! ```
//!
//! Models are named relative to the manifest's folder where possible. A manifest is accepted wherever a model is, and
//! loads the fused graph ([`super::Ensemble::fuse`]).

use super::{Ensemble, EnsembleOptions, Method, place};
use crate::call::Call;
use crate::error::{Context, Result, bail, error};
use crate::model::{Model, Task};
use crate::{files, limits};
use serde::{Deserialize, Serialize};
use std::path::{Component, Path, PathBuf};

/// A function that loads the model at a path.
pub type Loader<'a> = &'a dyn Fn(&Path) -> Result<Model>;

/// The name of the manifest in a folder.
pub const FILE: &str = "ensemble.json";
const FORMAT: &str = "liboptimize-ensemble";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Manifest {
    format: String,
    version: u32,
    method: Method,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<Task>,
    #[serde(default)]
    gate: bool,
    #[serde(default)]
    allow_different_vocabularies: bool,
    #[serde(default)]
    candidates: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    length_penalty: Option<f64>,
    members: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    model: PathBuf,
    /// Total size of the model's files in bytes, to detect another model under the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
}

/// Returns the path of the manifest that a path names: the file itself, or the one in a folder; `None` if it does not
/// exist or has another name than [`FILE`].
pub fn find(path: &Path) -> Option<PathBuf> {
    let file = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
    (file.file_name().is_some_and(|name| name == FILE) && file.is_file()).then_some(file)
}

impl Ensemble {
    /// Saves a manifest into a folder, which is created if necessary, and returns the path of the manifest. The members
    /// are not copied.
    ///
    /// Fails with [`crate::error::Kind::InvalidArgument`] if a member exists only in memory, because it was not loaded
    /// from a file. Fails like [`Ensemble::fuse`] if the members generate no text and cannot be fused, because loading
    /// the manifest fuses them. Fails with [`crate::error::Kind::Io`] or another error of the file system if a file
    /// cannot be found or written.
    pub fn save(&self, folder: &Path) -> Result<PathBuf> {
        if self.task != Task::Generate {
            self.fuse(&Call::default())?;
        }
        std::fs::create_dir_all(folder).at(|| folder.display())?;
        let home = folder.canonicalize().at(|| folder.display())?;
        let equal = self.options.weights.is_empty();
        let mut members = Vec::with_capacity(self.members.len());
        for (index, member) in self.members.iter().enumerate() {
            let Some(path) = member.model.path() else {
                bail!(
                    InvalidArgument,
                    "{}: the model exists only in memory; save it before the manifest",
                    place(index)
                );
            };
            let path = path.canonicalize().at(|| path.display())?;
            members.push(Entry {
                model: relative(&home, &path),
                bytes: Some(member.model.bytes()),
                weight: (!equal).then_some(member.weight),
                temperature: (member.temperature != 1.0).then_some(member.temperature),
            });
        }
        let EnsembleOptions { method, task, gate, allow_different_vocabularies, candidates, length_penalty, .. } =
            self.options.clone();
        let (format, version) = (FORMAT.to_owned(), VERSION);
        let manifest = Manifest {
            format,
            version,
            method,
            task,
            gate,
            allow_different_vocabularies,
            candidates,
            length_penalty,
            members,
        };
        let mut text = serde_json::to_string_pretty(&manifest)
            .map_err(|e| error!(Internal, "a manifest cannot be written: {e}"))?;
        text.push('\n');
        let file = folder.join(FILE);
        files::replace(&file, text.as_bytes())?;
        Ok(file)
    }
}

/// Loads an ensemble from a manifest, or from a folder with one, and returns it; `load` loads its members. Fails with
/// [`crate::error::Kind::NotFound`] if there is no manifest, with `Io` if it cannot be read, and with `InvalidModel` if
/// it is not valid or a member has another size than it says. Fails with `Unsupported` if a member is itself an
/// ensemble, and like `load` and [`Ensemble::new`].
pub fn load(path: &Path, load: Loader<'_>) -> Result<Ensemble> {
    let Some(file) = find(path) else { bail!(NotFound, "{}: the folder contains no {FILE}", path.display()) };
    read(&file, load).at(|| file.display())
}

/// Loads the ensemble of a manifest, and returns it as one fused model; `load_member` loads its members. Fails like
/// [`load`] and [`Ensemble::fuse`].
pub fn load_fused(path: &Path, load_member: Loader<'_>) -> Result<Model> {
    let (model, _) = load(path, load_member)?.fuse(&Call::default()).at(|| path.display())?;
    let (proto, card) = (model.proto().clone(), model.card().clone());
    Ok(Model::assemble(proto, card, path, Vec::new()))
}

fn read(file: &Path, load: Loader<'_>) -> Result<Ensemble> {
    let content = files::read(file, limits::CONFIG_BYTES)?;
    let manifest: Manifest = serde_json::from_slice(&content)
        .map_err(|e| error!(InvalidModel, "the file is not the manifest of an ensemble: {e}"))?;
    if manifest.format != FORMAT {
        bail!(InvalidModel, "the file is not the manifest of an ensemble: its format is {:?}", manifest.format);
    }
    if manifest.version > VERSION {
        let version = manifest.version;
        bail!(InvalidModel, "the manifest has version {version}; this library supports versions up to {VERSION}");
    }
    let home = files::parent_of(file);
    let mut models = Vec::with_capacity(manifest.members.len());
    for (index, entry) in manifest.members.iter().enumerate() {
        let path = home.join(&entry.model);
        // The canonical path has no `..` components.
        let path = path.canonicalize().unwrap_or(path);
        if find(&path).is_some() {
            bail!(Unsupported, "{}: {} is itself an ensemble", place(index), path.display());
        }
        let model = load(&path).at(|| place(index))?;
        if let Some(bytes) = entry.bytes.filter(|bytes| *bytes != model.bytes()) {
            let now = model.bytes();
            bail!(
                InvalidModel,
                "{}: {} has {now} bytes, not {bytes}: it is a different model",
                place(index),
                path.display()
            );
        }
        models.push(model);
    }
    let either = |values: Vec<Option<f64>>, name: &str| match values.iter().flatten().count() {
        0 => Ok(Vec::new()),
        count if count == values.len() => Ok(values.into_iter().flatten().collect()),
        _ => Err(error!(InvalidModel, "some members have a {name} and some have none")),
    };
    let weights = either(manifest.members.iter().map(|entry| entry.weight).collect(), "weight")?;
    let temperatures = manifest.members.iter().map(|entry| entry.temperature.unwrap_or(1.0)).collect();
    Ensemble::new(
        models,
        EnsembleOptions {
            method: manifest.method,
            weights,
            temperatures,
            gate: manifest.gate,
            allow_different_vocabularies: manifest.allow_different_vocabularies,
            candidates: manifest.candidates,
            length_penalty: manifest.length_penalty,
            task: manifest.task,
        },
    )
}

/// Returns `path` relative to `home`; unchanged if they have nothing in common. Both are canonical.
fn relative(home: &Path, path: &Path) -> PathBuf {
    let (home, whole): (Vec<Component<'_>>, Vec<Component<'_>>) =
        (home.components().collect(), path.components().collect());
    let same = home.iter().zip(&whole).take_while(|(a, b)| a == b).count();
    // The root alone does not count as a common prefix.
    if same <= 1 {
        return path.to_owned();
    }
    let up = home[same..].iter().map(|_| Component::ParentDir);
    up.chain(whole[same..].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_named_from_the_manifest() {
        let of = |home: &str, path: &str| relative(Path::new(home), Path::new(path)).display().to_string();
        assert_eq!(of("/work/e", "/work/a.gguf"), "../a.gguf");
        assert_eq!(of("/work/e", "/work/e/a/m.onnx"), "a/m.onnx");
        assert_eq!(of("/work/e", "/data/a"), "/data/a");
    }
}
