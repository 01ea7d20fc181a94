//! The measured rows on disk, each in a file whose name is the hash of everything that the row depends on.

use super::report::Row;
use crate::error::{Context, Result};
use crate::files;
use crate::files::digest::hex;
use crate::limits;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The output folder, in which `rows/` has the measured rows, and `packages/` the packages that were measured.
pub(super) struct Store(PathBuf);

/// The facts about a package that was written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Made {
    /// Hash of the model, the recipe and all other data on which the package depends.
    pub key: String,
    /// Time in seconds that the recipe took.
    pub seconds: f64,
    /// Number of nodes by action.
    pub actions: Vec<(String, u64)>,
    /// Warnings of the techniques.
    pub notes: Vec<String>,
}

/// Returns the SHA-256 of a JSON value, in hexadecimal digits.
pub(super) fn key(of: &Value) -> String {
    hex(&Sha256::digest(of.to_string()))
}

impl Store {
    /// Returns the store in the output folder, which is created if necessary. Fails with `Io` or `NotFound` if a folder
    /// cannot be created.
    pub fn new(folder: &Path) -> Result<Store> {
        for name in ["rows", "packages"] {
            let path = folder.join(name);
            std::fs::create_dir_all(&path).at(|| path.display())?;
        }
        Ok(Store(folder.to_owned()))
    }

    /// Returns the measured row with the key `key`; `None` if there is none, or if its file is damaged.
    pub fn row(&self, key: &str) -> Option<Row> {
        read(&self.row_path(key))
    }

    /// Saves a measured row under the key `key`. Fails with `Io` or `NotFound` if the file cannot be written.
    pub fn keep(&self, key: &str, row: &Row) -> Result<()> {
        write(&self.row_path(key), row)
    }

    fn row_path(&self, key: &str) -> PathBuf {
        self.0.join("rows").join(format!("{key}.json"))
    }

    /// Returns the path of the package with the name `name`.
    pub fn package(&self, name: &str) -> PathBuf {
        self.0.join("packages").join(name)
    }

    /// Returns the facts about the package `name`; `None` if it does not exist, or was written with another key.
    pub fn made(&self, name: &str, key: &str) -> Option<Made> {
        let made: Made = read(&self.made_path(name))?;
        (made.key == key && self.package(name).exists()).then_some(made)
    }

    /// Saves the facts about the package `name`. Fails like [`Store::keep`].
    pub fn keep_made(&self, name: &str, made: &Made) -> Result<()> {
        write(&self.made_path(name), made)
    }

    fn made_path(&self, name: &str) -> PathBuf {
        self.0.join("packages").join(format!("{name}.made.json"))
    }

    /// Writes the file `name` of the output folder, and replaces an existing one. Fails like [`Store::keep`].
    pub fn write(&self, name: &str, content: &str) -> Result<()> {
        files::replace(&self.0.join(name), content.as_bytes())
    }
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    serde_json::from_slice(&files::read(path, limits::CONFIG_BYTES).ok()?).ok()
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    files::replace(path, serde_json::to_string_pretty(value).unwrap_or_default().as_bytes())
}
