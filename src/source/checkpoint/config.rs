//! A view of a `config.json` with typed access, errors that name the key, and limits on sizes.

use crate::error::{Result, bail, error};
use crate::limits;
use serde_json::{Map, Value};

/// The configuration of a checkpoint.
///
/// A family reads it after `Schema::complete`, which inserts the family's defaults for missing keys. A
/// key without a default is then `null`; if the family requires it, that is an error. Methods that return an `Option`
/// return `None` for a missing or null key, and fail with `InvalidModel` for a value of another type.
#[derive(Clone, Copy)]
pub struct Config<'a> {
    map: &'a Map<String, Value>,
}

impl<'a> Config<'a> {
    /// Returns a view of a parsed `config.json`.
    pub fn new(map: &'a Map<String, Value>) -> Config<'a> {
        Config { map }
    }

    /// Returns the value of a key; `None` if it is missing or null.
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Returns the value of the first of several keys that exists and is not null, as a size. Fails with `InvalidModel`
    /// if there is none, or if the value is not a size.
    pub fn size_of(&self, keys: &[&str]) -> Result<i64> {
        for key in keys {
            if let Some(size) = self.size(key)? {
                return Ok(size);
            }
        }
        let key = keys.first().unwrap_or(&"");
        match self.map.contains_key(*key) {
            true => bail!(InvalidModel, "{key:?} of the configuration is null, not a size"),
            false => bail!(InvalidModel, "the configuration has no {key:?}"),
        }
    }

    /// Returns the value of a key as a size: an integer from 1 to [`limits::CONFIG_SIZE`]; `None` if it is missing or
    /// null. Fails with `InvalidModel` for other values.
    pub fn size(&self, key: &str) -> Result<Option<i64>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_i64().filter(|size| (1..=limits::CONFIG_SIZE).contains(size)) {
            Some(size) => Ok(Some(size)),
            None => bail!(InvalidModel, "{key:?} of the configuration is {}, not a size", shown(value)),
        }
    }

    /// Returns the value of a key as an integer of either sign; `None` if it is missing or null. Fails with
    /// `InvalidModel` for a value of another type.
    pub fn integer(&self, key: &str) -> Result<Option<i64>> {
        self.typed(key, "an integer", Value::as_i64)
    }

    /// Returns the value of a key as a finite number; `None` if it is missing or null. Fails with `InvalidModel` for
    /// another value.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", |value| value.as_f64().filter(|number| number.is_finite()))
    }

    /// Returns the value of a key as a finite number. Fails with `InvalidModel` if it is missing, null, or another
    /// value.
    pub fn needed(&self, key: &str) -> Result<f64> {
        self.number(key)?.ok_or_else(|| error!(InvalidModel, "{key:?} of the configuration is not a number"))
    }

    /// Returns the value of a key as a bool; `default` if it is missing. Fails with `InvalidModel` if it is null or of
    /// another type.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.map.get(key) {
            Some(Value::Null) => bail!(InvalidModel, "{key:?} of the configuration is null, not true or false"),
            _ => Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(default)),
        }
    }

    /// Returns the value of a key as a string. Fails with `InvalidModel` if it is missing, null, or of another type.
    pub fn word(&self, key: &str) -> Result<&'a str> {
        self.text(key)?.ok_or_else(|| error!(InvalidModel, "{key:?} of the configuration is not a string"))
    }

    /// Returns the JSON object of the configuration.
    pub fn map(&self) -> &'a Map<String, Value> {
        self.map
    }

    /// Returns whether two views are views of the same object.
    pub fn same_as(&self, other: &Config<'_>) -> bool {
        std::ptr::eq(self.map, other.map)
    }

    /// Returns the keys of this object with their values.
    pub fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.map.iter()
    }

    /// Returns the value of a key as a string; `None` if it is missing or null. Fails with `InvalidModel` for a value
    /// of another type.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a text", Value::as_str)
    }

    /// Returns the value of a key as a nested configuration; `None` if it is missing or null. Fails with `InvalidModel`
    /// for a value of another type.
    pub fn object(&self, key: &str) -> Result<Option<Config<'a>>> {
        Ok(self.typed(key, "an object", Value::as_object)?.map(Config::new))
    }

    /// Returns the value of a key as a list; `None` if it is missing or null. Fails with `InvalidModel` for a value of
    /// another type.
    pub fn list(&self, key: &str) -> Result<Option<&'a [Value]>> {
        self.typed(key, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    /// Returns the class names of the saved model (`LlamaForCausalLM` …).
    pub fn architectures(&self) -> Vec<&'a str> {
        let list = self.value("architectures").and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    fn typed<T>(&self, key: &str, what: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => Err(error!(InvalidModel, "{key:?} of the configuration is {}, not {what}", shown(value))),
        }
    }
}

/// Returns the text of a value for a message, truncated.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
