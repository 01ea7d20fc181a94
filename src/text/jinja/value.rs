//! The values of a template, like in Python.

use super::ast::Macro;
use super::text::float_text;
use crate::error::{Result, bail};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// The maximum nesting of lists and dicts.
const NESTING: usize = 200;

/// A value of a template. Lists and dicts are immutable: jinja2's sandbox does not let templates change them.
#[derive(Clone)]
pub enum Value {
    /// An undefined name, with the text for errors.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Rc<str>),
    /// Text that is marked as safe HTML.
    Markup(Rc<str>),
    List(Rc<Items>),
    Tuple(Rc<Items>),
    Dict(Rc<Dict>),
    Range(Range),
    /// The `keys`, `values` or `items` of a dict.
    View(View, Rc<Dict>),
    /// A stateful object (a namespace, a loop, an iterator …), as an index into the engine's objects.
    Object(usize),
    Macro(Rc<Bound>),
    Function(&'static str),
    Method(Rc<(Value, String)>),
}

/// The items of a list or a tuple.
pub struct Items {
    /// Items in order.
    pub values: Vec<Value>,
    /// Whether the tuple is a pair of `groupby`, whose items have names.
    pub is_group: bool,
    depth: usize,
}

/// A macro with the scope in which it was defined.
pub struct Bound {
    /// Macro in the template.
    pub definition: Arc<Macro>,
    /// Index of the scope in which the macro was defined.
    pub scope: usize,
}

/// The part of a dict that a view shows: `dict.keys()`, `dict.values()` or `dict.items()`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum View {
    Keys,
    Values,
    Items,
}

/// The range `range(start, stop, step)`.
#[derive(Clone, Copy)]
pub struct Range {
    /// First value.
    pub start: i128,
    /// End, which the range does not include.
    pub stop: i128,
    /// Difference of consecutive values, which is not 0.
    pub step: i128,
}

impl Range {
    /// Returns the number of values.
    pub fn len(self) -> usize {
        let (distance, step) = if self.step > 0 {
            (self.stop.saturating_sub(self.start), self.step)
        } else {
            (self.start.saturating_sub(self.stop), self.step.saturating_neg())
        };
        if distance <= 0 { 0 } else { usize::try_from((distance - 1) / step + 1).unwrap_or(usize::MAX) }
    }

    /// Returns the value with this index, from 0. The index is not checked.
    pub fn get(self, index: usize) -> Value {
        Value::Int(self.start.saturating_add((index as i128).saturating_mul(self.step)))
    }
}

/// A dict, which keeps the order of insertion. Keys compare like in Python, where 1, 1.0 and True are one key.
#[derive(Default)]
pub struct Dict {
    /// Keys and values in the order of insertion.
    pub entries: Vec<(Value, Value)>,
    /// Indices of the entries whose keys are texts, which are looked up without a copy.
    texts: HashMap<Rc<str>, usize>,
    /// Indices of the entries with other keys.
    others: HashMap<Key, usize>,
    depth: usize,
}

/// The identity of a key.
#[derive(PartialEq, Eq, Hash)]
pub enum Key {
    Undefined,
    None,
    Int(i128),
    Float(u64),
    Text(Rc<str>),
    Tuple(Vec<Key>),
}

impl Dict {
    /// Returns the value of a key; `None` if the dict does not have the key. Fails like [`Value::key`].
    pub fn get(&self, key: &Value) -> Result<Option<&Value>> {
        let place = match key.key()? {
            Key::Text(text) => self.texts.get(&text),
            key => self.others.get(&key),
        };
        Ok(place.map(|place| &self.entries[*place].1))
    }

    /// Returns the value of a key that is a text; `None` if the dict does not have the key.
    pub fn get_text(&self, key: &str) -> Option<&Value> {
        self.texts.get(key).map(|place| &self.entries[*place].1)
    }

    /// Sets the value of a key; the value of an equal key is replaced, and the key is kept. Fails like [`Value::key`],
    /// and with `LimitExceeded` if the dict is nested too deeply.
    pub fn insert(&mut self, key: Value, value: Value) -> Result<()> {
        self.depth = self.depth.max(deeper(&key)?).max(deeper(&value)?);
        let next = self.entries.len();
        let place = match key.key()? {
            Key::Text(text) => *self.texts.entry(text).or_insert(next),
            key => *self.others.entry(key).or_insert(next),
        };
        if place == next {
            self.entries.push((key, value));
        } else {
            self.entries[place].1 = value;
        }
        Ok(())
    }
}

/// Returns the depth of a container that holds `value`. Fails with `LimitExceeded` if it is above [`NESTING`], because
/// values are traversed and dropped recursively.
fn deeper(value: &Value) -> Result<usize> {
    let depth = 1 + match value {
        Value::List(items) | Value::Tuple(items) => items.depth,
        Value::Dict(dict) | Value::View(_, dict) => dict.depth,
        Value::Method(method) => deeper(&method.0)?,
        _ => 0,
    };
    if depth > NESTING {
        bail!(LimitExceeded, "a value is nested more than {NESTING} deep");
    }
    Ok(depth)
}

impl Value {
    /// Returns a text that is not marked as safe.
    pub fn text(text: impl AsRef<str>) -> Value {
        Value::Text(text.as_ref().into())
    }

    /// Returns the undefined value of a name; using it is an error with a message that contains the name.
    pub fn undefined(name: &str) -> Value {
        Value::Undefined(format!("{name:?} is not defined").into())
    }

    /// Returns a list. Fails with `LimitExceeded` if a value is nested too deeply.
    pub fn list(values: Vec<Value>) -> Result<Value> {
        Ok(Value::List(Rc::new(Items::new(values)?)))
    }

    /// Returns a tuple. Fails with `LimitExceeded` if a value is nested too deeply.
    pub fn tuple(values: Vec<Value>) -> Result<Value> {
        Ok(Value::Tuple(Rc::new(Items::new(values)?)))
    }

    /// Returns a pair whose items are named `grouper` and `list`. Fails with `LimitExceeded` if a value is nested too
    /// deeply.
    pub fn group(grouper: Value, list: Value) -> Result<Value> {
        let items = Items::new(vec![grouper, list])?;
        Ok(Value::Tuple(Rc::new(Items { is_group: true, ..items })))
    }

    /// Returns a dict; of equal keys, the last value is kept. Fails like [`Dict::insert`].
    pub fn dict(pairs: impl IntoIterator<Item = (Value, Value)>) -> Result<Value> {
        let mut dict = Dict::default();
        pairs.into_iter().try_for_each(|(key, value)| dict.insert(key, value))?;
        Ok(Value::Dict(Rc::new(dict)))
    }

    /// Returns the value that a JSON value represents. Fails with `LimitExceeded` if it is nested too deeply, and
    /// `Unsupported` for an integer of more than 64 bits.
    pub fn from_json(json: &serde_json::Value) -> Result<Value> {
        Ok(match json {
            serde_json::Value::Null => Value::None,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) => match number.as_i128() {
                Some(value) => Value::Int(value),
                None => Value::Float(float_or_integer(number.as_f64().unwrap_or(f64::NAN))?),
            },
            serde_json::Value::String(text) => Value::text(text),
            serde_json::Value::Array(items) => Value::list(items.iter().map(Value::from_json).collect::<Result<_>>()?)?,
            serde_json::Value::Object(map) => {
                let mut dict = Dict::default();
                for (key, value) in map {
                    dict.insert(Value::text(key), Value::from_json(value)?)?;
                }
                Value::Dict(Rc::new(dict))
            }
        })
    }

    /// Returns the text; `None` if the value is not a text.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) | Value::Markup(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the value as an integer; `None` if it is not an integer or a bool.
    pub fn as_int(&self) -> Option<i128> {
        match self {
            Value::Int(value) => Some(*value),
            Value::Bool(value) => Some(i128::from(*value)),
            _ => None,
        }
    }

    /// Returns whether the value is undefined.
    pub fn is_undefined(&self) -> bool {
        matches!(self, Value::Undefined(_))
    }

    /// Returns the name of the value's type in Python.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Text(_) => "str",
            Value::Markup(_) => "Markup",
            Value::List(_) => "list",
            Value::Tuple(_) => "tuple",
            Value::Dict(_) => "dict",
            Value::Range(_) => "range",
            Value::View(View::Keys, _) => "dict_keys",
            Value::View(View::Values, _) => "dict_values",
            Value::View(View::Items, _) => "dict_items",
            Value::Object(_) => "object",
            Value::Macro(_) => "Macro",
            Value::Function(_) => "function",
            Value::Method(_) => "method",
        }
    }

    /// Returns the identity of the value as a key. Fails with `InvalidArgument` for lists and dicts, and `Unsupported`
    /// for other values that are not keys in practice, such as functions.
    pub fn key(&self) -> Result<Key> {
        Ok(match self {
            Value::Undefined(_) => Key::Undefined,
            Value::None => Key::None,
            Value::Bool(value) => Key::Int(i128::from(*value)),
            Value::Int(value) => Key::Int(*value),
            Value::Float(value) => match whole(*value) {
                Some(int) => Key::Int(int),
                None => Key::Float(value.to_bits()),
            },
            Value::Text(text) | Value::Markup(text) => Key::Text(text.clone()),
            Value::Tuple(items) => Key::Tuple(items.values.iter().map(Value::key).collect::<Result<_>>()?),
            Value::List(_) | Value::Dict(_) => bail!(InvalidArgument, "unhashable type: '{}'", self.type_name()),
            _ => bail!(Unsupported, "a {} as a key is not supported in chat templates", self.type_name()),
        })
    }

    /// Returns whether the values are equal by Python's `==`. Fails with `Unsupported` if both values are views or
    /// methods.
    pub fn equals(&self, other: &Value) -> Result<bool> {
        let all = |a: &[Value], b: &[Value]| -> Result<bool> {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (a, b) in a.iter().zip(b) {
                if !a.equals(b)? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        Ok(match (self, other) {
            (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
            (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => all(&a.values, &b.values)?,
            (Value::Dict(a), Value::Dict(b)) => {
                let mut same = a.entries.len() == b.entries.len();
                for (key, value) in &a.entries {
                    same = same
                        && match b.get(key)? {
                            Some(other) => value.equals(other)?,
                            None => false,
                        };
                }
                same
            }
            (Value::Range(a), Value::Range(b)) => {
                a.len() == b.len() && (a.len() == 0 || a.start == b.start) && (a.len() < 2 || a.step == b.step)
            }
            (Value::Object(a), Value::Object(b)) => a == b,
            (Value::Macro(a), Value::Macro(b)) => Rc::ptr_eq(a, b),
            (Value::Function(a), Value::Function(b)) => a == b,
            (Value::View(..) | Value::Method(_), Value::View(..) | Value::Method(_)) => {
                bail!(Unsupported, "comparing a {} is not supported in chat templates", self.type_name())
            }
            _ => match (self.as_text(), other.as_text()) {
                (Some(a), Some(b)) => a == b,
                _ => compare_numbers(self, other) == Some(std::cmp::Ordering::Equal),
            },
        })
    }
}

impl Items {
    fn new(values: Vec<Value>) -> Result<Items> {
        let mut depth = 0;
        for value in &values {
            depth = depth.max(deeper(value)?);
        }
        Ok(Items { values, is_group: false, depth })
    }
}

/// Returns a float from JSON. The JSON parser reads integers above 2^64 - 1 and below -2^63 as floats: a value that may
/// have been such an integer is rejected with `Unsupported`.
fn float_or_integer(value: f64) -> Result<f64> {
    let (least, most) = (if value < 0.0 { 9.2e18 } else { 1.8e19 }, 1e40);
    if value.fract() == 0.0 && (least..most).contains(&value.abs()) {
        bail!(
            Unsupported,
            "the number {value} has more than 64 bits, which is not supported in messages and variables"
        );
    }
    Ok(value)
}

/// Returns the integer value of a float; `None` if it has a fraction or is too large.
pub fn whole(value: f64) -> Option<i128> {
    (value.fract() == 0.0 && value.abs() < 1e38).then_some(value as i128)
}

/// Returns the order of two numbers; `None` if one is not a number or is NaN.
pub fn compare_numbers(a: &Value, b: &Value) -> Option<std::cmp::Ordering> {
    match (a.as_int(), b.as_int(), a, b) {
        (Some(a), Some(b), ..) => Some(a.cmp(&b)),
        (None, None, Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Some(a), None, _, Value::Float(b)) => compare_mixed(a, *b),
        (None, Some(b), Value::Float(a), _) => compare_mixed(b, *a).map(std::cmp::Ordering::reverse),
        _ => None,
    }
}

/// Returns the order of an integer and a float, which are compared exactly; `None` for NaN.
fn compare_mixed(int: i128, float: f64) -> Option<std::cmp::Ordering> {
    if float.is_nan() {
        return None;
    }
    if float.abs() >= 1e38 {
        return Some(if float > 0.0 { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater });
    }
    let floor = float.floor();
    Some(int.cmp(&(floor as i128)).then(if float > floor {
        std::cmp::Ordering::Less
    } else {
        std::cmp::Ordering::Equal
    }))
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Int(value) => write!(f, "{value}"),
            Value::Float(value) => f.write_str(&float_text(*value)),
            Value::Text(text) => write!(f, "{text:?}"),
            other => f.write_str(other.type_name()),
        }
    }
}
