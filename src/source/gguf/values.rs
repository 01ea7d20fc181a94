//! The values of a GGUF file's metadata, as slices of the mapped file.

use super::reader::Reader;
use crate::error::{Context, Result, bail, error};
use crate::limits;
use bytes::Bytes;
use std::collections::HashMap;

/// The type of a metadata value. The discriminant is the number of the type in the GGUF format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)] // the names say it
pub enum Kind {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    Text = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl Kind {
    /// Returns the type with the number `number`. Fails with `InvalidModel` for other numbers.
    pub fn of(number: u32) -> Result<Kind> {
        use Kind::*;
        const ALL: [Kind; 13] = [U8, I8, U16, I16, U32, I32, F32, Bool, Text, Array, U64, I64, F64];
        match ALL.get(number as usize) {
            Some(kind) => Ok(*kind),
            None => bail!(InvalidModel, "its value type {number} is not defined by the format"),
        }
    }

    /// Returns the size of one value in bytes; `None` for strings and arrays, which contain their length.
    fn bytes(self) -> Option<usize> {
        use Kind::*;
        match self {
            U8 | I8 | Bool => Some(1),
            U16 | I16 => Some(2),
            U32 | I32 | F32 => Some(4),
            U64 | I64 | F64 => Some(8),
            Text | Array => None,
        }
    }
}

/// A metadata value, as its bytes in the file, which were checked to be complete. Clones share the bytes.
#[derive(Debug, Clone)]
pub struct Value {
    kind: Kind,
    /// Type and number of the elements, if the value is an array.
    elements: Option<(Kind, usize)>,
    /// Content of the value; for a string or an array, without its length.
    bytes: Bytes,
}

impl Value {
    /// Returns the next value, of the type `kind`. Nothing is copied, and the elements of arrays are only skipped.
    /// Fails with `InvalidModel` if the value is incomplete or a boolean is neither 0 nor 1, and `LimitExceeded` if
    /// arrays are nested too deeply.
    pub fn read(reader: &mut Reader, kind: Kind) -> Result<Value> {
        match kind {
            Kind::Text => Ok(Value { kind, elements: None, bytes: reader.text()? }),
            Kind::Array => {
                let (element, count) = array_head(reader)?;
                let start = reader.position();
                skip_elements(reader, element, count, 1)?;
                let bytes = reader.since(start);
                Ok(Value { kind, elements: Some((element, count)), bytes })
            }
            _ => {
                let bytes = reader.take(kind.bytes().unwrap_or(0))?;
                if kind == Kind::Bool && bytes[0] > 1 {
                    bail!(InvalidModel, "a boolean is {}, neither 0 nor 1", bytes[0]);
                }
                Ok(Value { kind, elements: None, bytes })
            }
        }
    }

    fn number(&self) -> Option<Number> {
        number(self.kind, &self.bytes)
    }
}

/// Returns the type and the number of the elements of an array, which are read from its head. Fails with `InvalidModel`
/// if the file is too short for them.
fn array_head(reader: &mut Reader) -> Result<(Kind, usize)> {
    let element = Kind::of(reader.u32()?)?;
    let count = reader.u64()?;
    // Even empty strings and arrays take eight bytes each, so a count beyond the file is detected first.
    let least = element.bytes().unwrap_or(8) as u64;
    if count.checked_mul(least).is_none_or(|bytes| bytes > reader.left()) {
        bail!(InvalidModel, "an array of {count} values does not fit into the file");
    }
    Ok((element, count as usize))
}

fn skip_elements(reader: &mut Reader, element: Kind, count: usize, depth: usize) -> Result<()> {
    match element {
        Kind::Text => (0..count).try_for_each(|_| reader.text().map(drop)),
        Kind::Array if depth >= limits::GGUF_ARRAY_DEPTH => {
            bail!(LimitExceeded, "arrays are nested more than {} deep", limits::GGUF_ARRAY_DEPTH)
        }
        Kind::Array => (0..count).try_for_each(|_| {
            let (inner, count) = array_head(reader)?;
            skip_elements(reader, inner, count, depth + 1)
        }),
        // Reading the header ensured that this product fits the file.
        _ => reader.take(count * element.bytes().unwrap_or(0)).map(drop),
    }
}

/// A number of any width.
#[derive(Clone, Copy)]
enum Number {
    Integer(i128),
    Float(f64),
}

fn number(kind: Kind, bytes: &[u8]) -> Option<Number> {
    let mut wide = [0u8; 8];
    let width = kind.bytes()?;
    wide[..width].copy_from_slice(bytes.get(..width)?);
    let raw = u64::from_le_bytes(wide);
    Some(match kind {
        Kind::U8 | Kind::U16 | Kind::U32 | Kind::U64 => Number::Integer(i128::from(raw)),
        Kind::I8 => Number::Integer(i128::from(raw as i8)),
        Kind::I16 => Number::Integer(i128::from(raw as i16)),
        Kind::I32 => Number::Integer(i128::from(raw as i32)),
        Kind::I64 => Number::Integer(i128::from(raw as i64)),
        Kind::F32 => Number::Float(shortest(f32::from_bits(raw as u32))),
        Kind::F64 => Number::Float(f64::from_bits(raw)),
        Kind::Bool | Kind::Text | Kind::Array => return None,
    })
}

/// Returns the float64 with the fewest decimal digits that converts to this float32: for example, 1e-5 for the float32
/// nearest to it.
fn shortest(value: f32) -> f64 {
    format!("{value}").parse().unwrap_or(f64::from(value))
}

/// The metadata of a file, as values by key. Methods that return an `Option` return `None` for a missing key, and fail
/// with `InvalidModel` for a value of another type.
#[derive(Debug, Default)]
pub struct Keys {
    values: HashMap<String, Value>,
}

impl Keys {
    /// Adds a value. Fails with `InvalidModel` if the key already exists.
    pub fn add(&mut self, key: &str, value: Value) -> Result<()> {
        if self.values.insert(key.to_owned(), value).is_some() {
            bail!(InvalidModel, "the key occurs twice");
        }
        Ok(())
    }

    /// Returns whether the metadata has a key.
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    fn typed<'k, T>(&'k self, key: &str, what: &str, read: impl FnOnce(&'k Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => Err(error!(InvalidModel, "the value is not {what}").at(place(key))),
        }
    }

    /// Returns the value of a key as an integer of any width; `None` if it is missing. Fails with `InvalidModel` if the
    /// value is not an integer of 64 bits.
    pub fn integer(&self, key: &str) -> Result<Option<i64>> {
        self.typed(key, "an integer of 64 bits", |value| match value.number()? {
            Number::Integer(integer) => i64::try_from(integer).ok(),
            Number::Float(_) => None,
        })
    }

    /// Returns the value of a key as a finite number of any type; `None` if it is missing. Fails with `InvalidModel`
    /// for another value.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a finite number", |value| match value.number()? {
            Number::Integer(integer) => Some(integer as f64),
            Number::Float(float) => float.is_finite().then_some(float),
        })
    }

    /// Returns the value of a key as a bool; `None` if it is missing. Fails with `InvalidModel` for a value of another
    /// type.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a truth value", |value| (value.kind == Kind::Bool).then(|| value.bytes.first() == Some(&1)))
    }

    /// Returns the value of a key as a string of at most [`limits::GGUF_TEXT_BYTES`]; `None` if it is missing. Fails
    /// with `InvalidModel` if it is not a string in UTF-8, and with `LimitExceeded` if it is longer.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        let text = self.typed(key, "a UTF-8 string", |value| {
            (value.kind == Kind::Text).then(|| std::str::from_utf8(&value.bytes).ok()).flatten()
        })?;
        match text.filter(|text| text.len() > limits::GGUF_TEXT_BYTES) {
            Some(long) => {
                let (length, limit) = (long.len(), limits::GGUF_TEXT_BYTES);
                Err(error!(LimitExceeded, "the string has {length} bytes; the limit is {limit}").at(place(key)))
            }
            None => Ok(text),
        }
    }

    /// Returns the elements of an array of strings. Fails with `LimitExceeded` if there are more than `limit`.
    pub fn texts(&self, key: &str, limit: usize) -> Result<Option<Vec<&str>>> {
        let Some((bytes, count)) = self.array(key, "an array of strings", &[Kind::Text], limit)? else {
            return Ok(None);
        };
        let mut texts = Vec::with_capacity(count);
        let mut rest = &bytes[..];
        for index in 0..count {
            let broken = || error!(InvalidModel, "element {index} is not a UTF-8 string").at(place(key));
            let (length, after) = rest.split_first_chunk::<8>().ok_or_else(broken)?;
            let length = usize::try_from(u64::from_le_bytes(*length)).ok();
            let (text, after) = length.and_then(|length| after.split_at_checked(length)).ok_or_else(broken)?;
            texts.push(std::str::from_utf8(text).map_err(|_| broken())?);
            rest = after;
        }
        Ok(Some(texts))
    }

    /// Returns the elements of an array of 32-bit integers; unsigned ones above `i32::MAX` become negative. Fails with
    /// `LimitExceeded` if there are more than `limit`.
    pub fn integers(&self, key: &str, limit: usize) -> Result<Option<Vec<i32>>> {
        let kinds = [Kind::I32, Kind::U32];
        let Some((bytes, _)) = self.array(key, "an array of integers of 32 bits", &kinds, limit)? else {
            return Ok(None);
        };
        Ok(Some(bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()))
    }

    /// Returns the elements of an array of 32-bit floats. Fails with `LimitExceeded` if there are more than `limit`.
    pub fn floats(&self, key: &str, limit: usize) -> Result<Option<Vec<f32>>> {
        let Some((bytes, _)) = self.array(key, "an array of floats", &[Kind::F32], limit)? else { return Ok(None) };
        Ok(Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()))
    }

    fn array(&self, key: &str, what: &str, kinds: &[Kind], limit: usize) -> Result<Option<(&Bytes, usize)>> {
        let array = self.typed(key, what, |value| {
            let (element, count) = value.elements?;
            kinds.contains(&element).then_some((&value.bytes, count))
        })?;
        if let Some((_, count)) = array.filter(|(_, count)| *count > limit) {
            let error = error!(LimitExceeded, "the array has {count} elements; the limit is {limit}");
            return Err(error.at(place(key)));
        }
        Ok(array)
    }

    /// Returns the value of a key as an integer that may be given once or per layer. Fails with `Unsupported` if the
    /// layers differ or the list of layers is empty.
    pub fn layer_integer(&self, key: &str) -> Result<Option<i64>> {
        if self.values.get(key).is_none_or(|value| value.kind != Kind::Array) {
            return self.integer(key);
        }
        let each = self.integers(key, limits::LAYERS as usize)?.unwrap_or_default();
        match each.first() {
            Some(first) if each.iter().all(|value| value == first) => Ok(Some(i64::from(*first))),
            _ => Err(error!(Unsupported, "the value differs between layers").at(place(key))),
        }
    }

    /// Returns the value of a key like [`Keys::layer_integer`]. Fails with `InvalidModel` if it is missing.
    pub fn needed(&self, key: &str) -> Result<i64> {
        self.layer_integer(key)?.ok_or_else(|| error!(InvalidModel, "the file has no {key:?}"))
    }
}

fn place(key: &str) -> String {
    format!("key {key:?}")
}

/// Returns the next `count` keys with their values. Fails with `InvalidModel` if one is damaged or occurs twice, and
/// `LimitExceeded` above [`limits::GGUF_KEYS`].
pub fn read_keys(reader: &mut Reader, count: u64) -> Result<Keys> {
    if count > limits::GGUF_KEYS {
        bail!(LimitExceeded, "the file declares {count} keys; the limit is {}", limits::GGUF_KEYS);
    }
    let mut keys = Keys::default();
    for index in 0..count {
        let name = reader.text().at(|| format!("key {index}"))?;
        let name = super::reader::name(&name).at(|| format!("key {index}"))?;
        let value = Kind::of(reader.u32()?).and_then(|kind| Value::read(reader, kind)).at(|| place(name))?;
        keys.add(name, value).at(|| place(name))?;
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(kind: Kind, bytes: &[u8]) -> Result<Value> {
        Value::read(&mut Reader::new(Bytes::copy_from_slice(bytes)), kind)
    }

    fn keys(kind: Kind, bytes: &[u8]) -> Keys {
        let mut keys = Keys::default();
        keys.add("k", value(kind, bytes).unwrap()).unwrap();
        keys
    }

    #[test]
    fn numbers_of_every_width_are_read() {
        assert_eq!(keys(Kind::U8, &[255]).integer("k").unwrap(), Some(255));
        assert_eq!(keys(Kind::I8, &[255]).integer("k").unwrap(), Some(-1));
        assert_eq!(keys(Kind::U16, &[1, 2]).integer("k").unwrap(), Some(513));
        assert_eq!(keys(Kind::I16, &[254, 255]).integer("k").unwrap(), Some(-2));
        assert_eq!(keys(Kind::U32, &[255; 4]).integer("k").unwrap(), Some(u32::MAX.into()));
        assert_eq!(keys(Kind::I32, &[255; 4]).integer("k").unwrap(), Some(-1));
        assert_eq!(keys(Kind::I64, &[255; 8]).integer("k").unwrap(), Some(-1));
        assert!(keys(Kind::U64, &[255; 8]).integer("k").is_err());
        assert_eq!(keys(Kind::F32, &1e-5f32.to_le_bytes()).number("k").unwrap(), Some(1e-5));
        assert_eq!(keys(Kind::F64, &0.1f64.to_le_bytes()).number("k").unwrap(), Some(0.1));
        assert!(keys(Kind::F32, &f32::NAN.to_le_bytes()).number("k").is_err());
        assert_eq!(keys(Kind::Bool, &[1]).flag("k").unwrap(), Some(true));
        assert!(value(Kind::Bool, &[2]).is_err());
        assert!(keys(Kind::U8, &[1]).text("k").unwrap_err().to_string().contains("key \"k\""));
    }

    #[test]
    fn arrays_are_walked_without_memory_and_bounded() {
        let array =
            |kind: u32, count: u64, rest: &[u8]| [&kind.to_le_bytes()[..], &count.to_le_bytes()[..], rest].concat();
        let two = array(8, 2, b"\x01\0\0\0\0\0\0\0a\x02\0\0\0\0\0\0\0bc");
        assert_eq!(keys(Kind::Array, &two).texts("k", 2).unwrap().unwrap(), ["a", "bc"]);
        assert!(keys(Kind::Array, &two).texts("k", 1).is_err());
        assert!(keys(Kind::Array, &two).integers("k", 9).is_err());
        assert_eq!(keys(Kind::Array, &array(5, 1, &[255; 4])).integers("k", 9).unwrap().unwrap(), [-1]);
        assert_eq!(keys(Kind::Array, &array(5, 1, &[7, 0, 0, 0])).layer_integer("k").unwrap(), Some(7));
        assert!(value(Kind::Array, &array(0, u64::MAX, &[])).is_err());
        assert!(value(Kind::Array, &array(8, 1 << 60, &[0; 64])).is_err());
        assert!(value(Kind::Array, &array(99, 1, &[0; 64])).is_err());
        let mut nested = Vec::new();
        (0..100_000).for_each(|_| nested.extend(array(9, 1, &[])));
        assert!(value(Kind::Array, &nested).unwrap_err().message().contains("nested"));
        let nested = array(9, 2, &[array(0, 2, &[1, 2]), array(6, 0, &[])].concat());
        assert!(value(Kind::Array, &nested).is_ok());
    }
}
