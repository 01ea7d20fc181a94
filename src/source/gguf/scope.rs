//! The keys of one architecture in a GGUF file ([`Scope`]), and the sizes in them ([`Sizes`]).

use super::header::TensorInfo;
use super::values::Keys;
use crate::error::{Result, bail, error};
use serde_json::{Map, Value};

/// The metadata of a file, with access to the keys of one architecture. Methods that return an `Option` return `None`
/// for a missing key.
pub(super) struct Scope<'h> {
    /// All keys of the file.
    pub keys: &'h Keys,
    /// Name of the architecture, with which its keys begin.
    pub prefix: &'static str,
}

impl Scope<'_> {
    /// Returns the key `{architecture}.{name}`.
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// Returns a required size. Fails with `InvalidModel` if it is missing or not from 1 to `most`.
    pub fn size(&self, name: &str, most: i64) -> Result<i64> {
        let size = self.keys.needed(&self.key(name))?;
        match (1..=most).contains(&size) {
            true => Ok(size),
            false => bail!(InvalidModel, "{:?} is {size}, not a size from 1 to {most}", self.key(name)),
        }
    }

    /// Returns an optional size; `None` if it is missing. Fails with `InvalidModel` if it is not from 1 to `most`.
    pub fn optional_size(&self, name: &str, most: i64) -> Result<Option<i64>> {
        if !self.keys.has(&self.key(name)) {
            return Ok(None);
        }
        self.size(name, most).map(Some)
    }

    /// Returns an optional number; `None` if it is missing. Fails with `InvalidModel` if the value is not a finite
    /// number.
    pub fn number(&self, name: &str) -> Result<Option<f64>> {
        self.keys.number(&self.key(name))
    }

    /// Returns a required number. Fails with `InvalidModel` if it is missing or not a finite number.
    pub fn number_needed(&self, name: &str) -> Result<f64> {
        self.number(name)?.ok_or_else(|| error!(InvalidModel, "the file has no {:?}", self.key(name)))
    }
}

/// The sizes that every architecture has.
pub(super) struct Sizes {
    /// Number of tokens.
    pub vocabulary: i64,
    /// Width of the hidden states.
    pub width: i64,
    /// Number of layers.
    pub layers: i64,
    /// Number of attention heads.
    pub heads: i64,
    /// Number of heads of keys and values.
    pub key_value_heads: i64,
    /// Number of elements of a head.
    pub head: i64,
    /// Width of the feed-forward part.
    pub inner: i64,
    /// Maximum number of positions.
    pub positions: i64,
}

/// Adds the entries of the object `entries` to a configuration.
pub(super) fn extend(config: &mut Map<String, Value>, entries: Value) {
    if let Value::Object(entries) = entries {
        config.extend(entries);
    }
}

/// Returns the elements of a float32 vector of the file; `None` for other tensors.
pub(super) fn vector(tensor: &TensorInfo) -> Option<Vec<f32>> {
    let float = tensor.element.name == "F32" && tensor.dims.len() == 1;
    float.then(|| tensor.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}
