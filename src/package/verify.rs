//! [`verify()`]: every byte of a package against its hash.

use super::manifest::{FILE, HASH, Manifest, entries, hash};
use crate::call::Call;
use crate::error::{Context, Result, bail};
use serde::Serialize;
use std::path::Path;

/// What was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Files that have the content they had.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Reads all of a package and compares it with the hashes of its manifest.
///
/// Reports the stage `verify` in bytes. [`crate::error::Kind::InvalidModel`] naming the first file that was changed, is
/// missing, or was put there since.
pub fn verify(package: &Path, call: &Call) -> Result<Verified> {
    let manifest = Manifest::read(package)?;
    let known = &manifest.package.files;
    let bytes: u64 = known.iter().map(|entry| entry.bytes).sum();
    manifest.check_sizes(package)?;
    let mut done = 0;
    for entry in known {
        call.report("verify", done, bytes)?;
        let path = package.join(&entry.path);
        if hash(&path)? != (entry.bytes, entry.sha256.clone()) {
            bail!(InvalidModel, "{}: was changed after the package was made: its hash is another", path.display());
        }
        done += entry.bytes;
    }
    for entry in std::fs::read_dir(package).at(|| package.display())? {
        let entry = entry.at(|| package.display())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let foreign = match entry.path().is_dir() {
            true => entries(&entry.path(), &name)?
                .into_iter()
                .map(|e| e.path)
                .find(|path| !known.iter().any(|k| k.path == *path)),
            false => (name != FILE && name != HASH).then_some(name),
        };
        if let Some(path) = foreign {
            bail!(InvalidModel, "{}: is no part of the package that was made", package.join(path).display());
        }
    }
    Ok(Verified { files: known.len(), bytes })
}
