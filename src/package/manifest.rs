//! [`Manifest`]: `manifest.json` of a package.
//!
//! The outer keys are those of ONNX Runtime's model-package layout (`schema_version` "1.0": components, their variants,
//! and for each how it is run). What is ours stands in each variant's `executor_info.optimize`, and readers that do not
//! know it pass it over.

use super::shapes::Contract;
use crate::error::{Context, Result, bail, error};
use crate::model::{Model, ValueInfo};
use crate::onnx::save::hex;
use crate::{files, limits};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Component, Path, PathBuf};

/// The manifest's name in a package.
pub const FILE: &str = "manifest.json";
/// The file with the manifest's hash.
pub const HASH: &str = "manifest.sha256";
/// Version of what is ours. Readers of a version read all earlier ones.
pub const VERSION: u32 = 1;
const SCHEMA: &str = "1.0";

/// A file of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where, with `/`, from the package on.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// What a package says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Package {
    /// [`VERSION`] of the library that wrote it.
    pub version: u32,
    /// Version of that library.
    pub library_version: String,
    /// The shapes that inputs may have.
    pub contract: Contract,
    /// Names and types of the outputs, as `name: type[dims]`.
    pub outputs: Vec<String>,
    /// What the model does, and of which architecture it is.
    pub task: String,
    /// `null` if nothing says so.
    pub architecture: Option<String>,
    /// The model it was made of: `{path, bytes, sha256}`.
    pub source: Value,
    /// The oldest ONNX Runtime that runs it.
    pub runtime: String,
    /// All files but the manifest and its hash.
    pub files: Vec<Entry>,
}

/// A form of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// Its folder, from the package on.
    pub folder: String,
}

/// `manifest.json`, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The forms there are.
    pub variants: Vec<Variant>,
    /// What is ours.
    pub package: Package,
}

/// Whether a folder is a package.
pub fn is_package(folder: &Path) -> bool {
    folder.join(FILE).is_file() && folder.join(HASH).is_file()
}

impl Manifest {
    /// Reads the manifest of a package, and checks it against its hash.
    pub fn read(package: &Path) -> Result<Manifest> {
        let place = package.join(FILE);
        let content = files::read(&place, limits::CONFIG_BYTES)?;
        let wanted = files::read(&package.join(HASH), 1024)?;
        let found = hex(&Sha256::digest(&content));
        if wanted.strip_suffix(b"\n") != Some(found.as_bytes()) {
            bail!(InvalidModel, "{}: was changed after the package was made: its hash is another", place.display());
        }
        Manifest::parse(&content).at(|| place.display())
    }

    /// Reads the JSON form.
    pub fn parse(content: &[u8]) -> Result<Manifest> {
        let json: Value = serde_json::from_slice(content).map_err(|e| error!(InvalidModel, "is damaged: {e}"))?;
        let missing = |what: &str| error!(InvalidModel, "has no {what}");
        match json["schema_version"].as_str() {
            Some(version) if version.split('.').next() == Some("1") => {}
            other => bail!(InvalidModel, "schema_version is {other:?}; this library knows 1.0"),
        }
        let variants = json["components"]["model"]["variants"].as_object().ok_or_else(|| missing("variants"))?;
        let mut found = Vec::with_capacity(variants.len());
        let mut package = None;
        for (name, variant) in variants {
            let folder = variant["variant_directory"].as_str().ok_or_else(|| missing("variant_directory"))?;
            safe(folder)?;
            found.push(Variant { name: name.clone(), folder: folder.to_owned() });
            let ours = &variant["executor_info"]["optimize"];
            if !ours.is_null() {
                let version = ours["version"].as_u64().unwrap_or(0);
                if version > u64::from(VERSION) {
                    bail!(InvalidModel, "is of version {version}; this library knows versions up to {VERSION}");
                }
                let ours = Package::deserialize(ours).map_err(|e| error!(InvalidModel, "is damaged: {e}"))?;
                package.get_or_insert(ours);
            }
        }
        let package: Package = package.ok_or_else(|| missing("variant that was written by this library"))?;
        package.files.iter().try_for_each(|entry| safe(&entry.path))?;
        Ok(Manifest { variants: found, package })
    }

    /// The JSON form, with a final newline.
    pub fn to_json(&self) -> String {
        let ours = serde_json::to_value(&self.package).unwrap_or_default();
        let variant = |variant: &Variant| {
            let info = json!({
                "variant_directory": variant.folder,
                "ep": "CPUExecutionProvider",
                "device": "cpu",
                "compatibility_string": "",
                "executor_info": {
                    "ort": {"model_file": "model.onnx", "session_options": {}, "provider_options": {}},
                    "optimize": ours,
                },
            });
            (variant.name.clone(), info)
        };
        let variants: serde_json::Map<String, Value> = self.variants.iter().map(variant).collect();
        let manifest = json!({
            "schema_version": SCHEMA,
            "layout": "folder",
            "components": {"model": {"variants": variants}},
            "shared_assets": {},
        });
        format!("{manifest:#}\n")
    }

    /// The form that this machine runs.
    pub fn variant(&self) -> Result<&Variant> {
        self.variants.first().ok_or_else(|| error!(InvalidModel, "the package has no variant"))
    }

    /// The shapes that inputs may have.
    pub fn contract(&self) -> Contract {
        self.package.contract.clone()
    }

    /// Whether all files are there, with the sizes that they had.
    pub fn check_sizes(&self, package: &Path) -> Result<()> {
        for entry in &self.package.files {
            let path = package.join(&entry.path);
            let place = || path.display();
            let metadata = std::fs::symlink_metadata(&path).at(place)?;
            if !metadata.is_file() || metadata.len() != entry.bytes {
                bail!(InvalidModel, "{}: has {} bytes, not the {} that it had", place(), metadata.len(), entry.bytes);
            }
        }
        Ok(())
    }

    /// Whether a model has the inputs and outputs that the package promises.
    pub fn check_signature(&self, model: &Model) -> Result<()> {
        let inputs: Vec<String> = model.inputs().into_iter().map(|info| info.name).collect();
        let promised: Vec<&str> = self.package.contract.inputs.iter().map(|input| input.name.as_str()).collect();
        let outputs: Vec<String> = model.outputs().iter().map(shown).collect();
        if inputs != promised || outputs != self.package.outputs {
            bail!(InvalidModel, "the model has other inputs or outputs than the manifest says");
        }
        Ok(())
    }
}

/// An input or output in words.
pub(super) fn shown(info: &ValueInfo) -> String {
    format!("{}: {}", info.name, info.describe())
}

/// Refuses paths that leave the package.
fn safe(path: &str) -> Result<()> {
    let inside = !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if !inside || path.contains('\\') {
        bail!(InvalidModel, "{path:?} is not a path inside the package");
    }
    Ok(())
}

/// The files of a folder, with their hashes, by path; `prefix` is the folder's own path in the package.
pub(super) fn entries(folder: &Path, prefix: &str) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    let mut left = vec![(folder.to_owned(), PathBuf::from(prefix))];
    while let Some((folder, prefix)) = left.pop() {
        for entry in std::fs::read_dir(&folder).at(|| folder.display())? {
            let entry = entry.at(|| folder.display())?;
            let (path, name) = (entry.path(), prefix.join(entry.file_name()));
            if path.is_dir() {
                left.push((path, name));
                continue;
            }
            let (bytes, sha256) = hash(&path)?;
            let path = name.to_string_lossy().replace('\\', "/");
            found.push(Entry { path, bytes, sha256 });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Size and SHA-256 of a file.
pub(super) fn hash(path: &Path) -> Result<(u64, String)> {
    let place = || path.display();
    let mut file = files::open(path)?;
    let mut digest = Sha256::new();
    let bytes = std::io::copy(&mut file, &mut digest).at(place)?;
    Ok((bytes, hex(&digest.finalize())))
}
