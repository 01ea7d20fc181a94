//! Reading a `config.json`: typed, with errors that name the key, and sizes bounded before they are used.

use crate::error::{Result, bail, error};
use crate::limits;
use serde_json::{Map, Value};

/// The configuration of a checkpoint.
///
/// A family's code reads it after [`super::schema::Schema::complete`], which puts the family's defaults where keys are
/// absent: what is missing then is `null`, and an error where the family has no meaning for that.
#[derive(Clone, Copy)]
pub struct Config<'a> {
    map: &'a Map<String, Value>,
}

impl<'a> Config<'a> {
    /// A view of a parsed `config.json`.
    pub fn new(map: &'a Map<String, Value>) -> Config<'a> {
        Config { map }
    }

    /// The value of a key, `None` if absent or null.
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The first of several keys that is there, as a size.
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

    /// A size: an integer from 1 to [`limits::CONFIG_SIZE`].
    pub fn size(&self, key: &str) -> Result<Option<i64>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_i64().filter(|size| (1..=limits::CONFIG_SIZE).contains(size)) {
            Some(size) => Ok(Some(size)),
            None => bail!(InvalidModel, "{key:?} of the configuration is {}, not a size", shown(value)),
        }
    }

    /// An integer of any sign.
    pub fn integer(&self, key: &str) -> Result<Option<i64>> {
        self.typed(key, "an integer", Value::as_i64)
    }

    /// A finite number.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", |value| value.as_f64().filter(|number| number.is_finite()))
    }

    /// A finite number that must be there.
    pub fn needed(&self, key: &str) -> Result<f64> {
        self.number(key)?.ok_or_else(|| error!(InvalidModel, "{key:?} of the configuration is not a number"))
    }

    /// A switch; `default` if it is not there.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.map.get(key) {
            Some(Value::Null) => bail!(InvalidModel, "{key:?} of the configuration is null, not true or false"),
            _ => Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(default)),
        }
    }

    /// A text that must be there.
    pub fn word(&self, key: &str) -> Result<&'a str> {
        self.text(key)?.ok_or_else(|| error!(InvalidModel, "{key:?} of the configuration is not a string"))
    }

    /// The object itself.
    pub fn map(&self) -> &'a Map<String, Value> {
        self.map
    }

    /// Whether two views are of one object.
    pub fn same_as(&self, other: &Config<'_>) -> bool {
        std::ptr::eq(self.map, other.map)
    }

    /// The keys of this object, and their values.
    pub fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.map.iter()
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a text", Value::as_str)
    }

    /// A configuration inside this one.
    pub fn object(&self, key: &str) -> Result<Option<Config<'a>>> {
        Ok(self.typed(key, "an object", Value::as_object)?.map(Config::new))
    }

    /// A list.
    pub fn list(&self, key: &str) -> Result<Option<&'a [Value]>> {
        self.typed(key, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    /// The class names the checkpoint was saved from (`LlamaForCausalLM` …).
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

/// A value for a message, cut short.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
