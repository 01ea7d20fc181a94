//! The attributes, items and slices of values, like in jinja2's sandbox.

use super::engine::{Engine, Object};
use super::strings;
use super::value::{Range, Value, View};
use crate::error::{Result, bail};

/// The methods of dicts that templates can call.
const DICT: [&str; 6] = ["copy", "fromkeys", "get", "items", "keys", "values"];
/// The methods that would change a value, which the sandbox hides.
const UNSAFE_DICT: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];
const UNSAFE_LIST: [&str; 8] = ["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"];
/// The attributes of numbers, views and iterators that Python has. Those that [`Engine::own_attribute`] does not return
/// are not supported.
const OTHER: [&str; 17] = [
    "as_integer_ratio",
    "bit_count",
    "bit_length",
    "conjugate",
    "denominator",
    "from_bytes",
    "fromhex",
    "hex",
    "imag",
    "is_integer",
    "isdisjoint",
    "mapping",
    "numerator",
    "real",
    "to_bytes",
    "send",
    "throw",
];

impl Engine {
    /// Returns the attribute `value.name`, otherwise the item with that name, otherwise an undefined value. Fails with
    /// `InvalidArgument` if `value` is undefined, and with `Unsupported` for attributes that are not implemented.
    pub fn attribute(&mut self, value: &Value, name: &str) -> Result<Value> {
        if let Value::Undefined(message) = value {
            bail!(InvalidArgument, "{message}");
        }
        let of_namespace = matches!(value, Value::Object(n) if matches!(self.objects()[*n], Object::Namespace(_)));
        if name.starts_with("__") && !of_namespace {
            let has_item = matches!(value, Value::Dict(dict) if dict.get_text(name).is_some());
            if has_item {
                bail!(Unsupported, "the attribute {name} is not supported in chat templates");
            }
            return Ok(Value::Undefined(format!("the attribute {name:?} is not safe").into()));
        }
        if let Some(found) = self.own_attribute(value, name)? {
            return Ok(found);
        }
        match value {
            Value::Dict(dict) => Ok(dict.get_text(name).cloned().unwrap_or_else(|| no_attribute(value, name))),
            _ => Ok(no_attribute(value, name)),
        }
    }

    /// Returns the item `value[index]`, otherwise the attribute with that name, otherwise an undefined value. Fails
    /// like [`Engine::attribute`].
    pub fn item(&mut self, value: &Value, index: &Value) -> Result<Value> {
        let found = match value {
            Value::Undefined(message) => bail!(InvalidArgument, "{message}"),
            Value::Dict(dict) => match index {
                // A list or dict cannot be a key; the error that Python raises for it is ignored.
                Value::List(_) | Value::Dict(_) => None,
                _ => dict.get(index)?.cloned(),
            },
            Value::Text(_) | Value::Markup(_) | Value::List(_) | Value::Tuple(_) | Value::Range(_) => {
                index.as_int().and_then(|index| self.nth(value, index))
            }
            _ => None,
        };
        if let Some(found) = found {
            return Ok(found);
        }
        match index.as_text() {
            Some(name) if name.starts_with("__") => {
                Ok(Value::Undefined(format!("the attribute {name:?} is not safe").into()))
            }
            Some(name) => Ok(self.own_attribute(value, name)?.unwrap_or_else(|| no_attribute(value, name))),
            None => {
                let text = self.repr(index).unwrap_or_default();
                Ok(Value::Undefined(format!("{} object has no element {text}", value.type_name()).into()))
            }
        }
    }

    /// Returns the item at an index, counted from the end if negative; `None` if there is none.
    fn nth(&self, value: &Value, index: i128) -> Option<Value> {
        let length = self.length(value)? as i128;
        let index = usize::try_from(if index < 0 { index + length } else { index }).ok()?;
        match value {
            Value::Text(text) => text.chars().nth(index).map(|c| Value::text(c.encode_utf8(&mut [0; 4]))),
            Value::Markup(text) => text.chars().nth(index).map(|c| Value::Markup(c.to_string().into())),
            Value::List(items) | Value::Tuple(items) => items.values.get(index).cloned(),
            Value::Range(range) => (index < range.len()).then(|| range.get(index)),
            _ => None,
        }
    }

    /// Returns the attribute that Python's `getattr` finds; `None` if there is none.
    fn own_attribute(&mut self, value: &Value, name: &str) -> Result<Option<Value>> {
        let method = || Some(Value::Method(std::rc::Rc::new((value.clone(), name.to_owned()))));
        let hidden = || Some(Value::Undefined(format!("the attribute {name:?} is not safe").into()));
        Ok(match value {
            Value::Text(_) | Value::Markup(_) if strings::METHODS.contains(&name) => method(),
            Value::Dict(_) if DICT.contains(&name) => method(),
            Value::Dict(_) if UNSAFE_DICT.contains(&name) => hidden(),
            Value::List(_) if ["copy", "count", "index"].contains(&name) => method(),
            Value::List(_) if UNSAFE_LIST.contains(&name) => hidden(),
            Value::Tuple(items) if items.is_group && name == "grouper" => Some(items.values[0].clone()),
            Value::Tuple(items) if items.is_group && name == "list" => Some(items.values[1].clone()),
            Value::Tuple(_) | Value::Range(_) if ["count", "index"].contains(&name) => method(),
            Value::Range(range) => match name {
                "start" => Some(Value::Int(range.start)),
                "stop" => Some(Value::Int(range.stop)),
                "step" => Some(Value::Int(range.step)),
                _ => None,
            },
            Value::Macro(bound) => match name {
                "name" => Some(bound.definition.name.as_ref().map_or(Value::None, Value::text)),
                "arguments" => Some(Value::tuple(bound.definition.parameters.iter().map(Value::text).collect())?),
                "catch_kwargs" => Some(Value::Bool(bound.definition.uses.kwargs)),
                "catch_varargs" => Some(Value::Bool(bound.definition.uses.varargs)),
                "caller" => Some(Value::Bool(bound.definition.uses.caller)),
                _ => None,
            },
            Value::Object(number) => self.of_object(*number, value, name)?,
            Value::Bool(_) | Value::Int(_) if matches!(name, "real" | "numerator") => value.as_int().map(Value::Int),
            Value::Bool(_) | Value::Int(_) if matches!(name, "imag" | "denominator") => {
                Some(Value::Int(i128::from(name == "denominator")))
            }
            Value::Function("dict") if name == "fromkeys" => Some(Value::Function("dict.fromkeys")),
            Value::Bool(_) | Value::Int(_) if name == "bit_length" => method(),
            Value::Float(_) if name == "is_integer" => method(),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::View(..) if OTHER.contains(&name) => {
                bail!(Unsupported, "{name} of a {} is not supported in chat templates", value.type_name())
            }
            Value::Function(_) | Value::Method(_) => {
                bail!(Unsupported, "attributes of functions are not supported in chat templates")
            }
            _ => None,
        })
    }

    fn of_object(&mut self, number: usize, value: &Value, name: &str) -> Result<Option<Value>> {
        let method = || Some(Value::Method(std::rc::Rc::new((value.clone(), name.to_owned()))));
        let undefined = |text: &str| Some(Value::Undefined(text.into()));
        let size = |number: usize| Some(Value::Int(number as i128));
        Ok(match self.object(number) {
            Object::Namespace(names) => names.get_text(name).cloned(),
            Object::Cycler(items, at) => match name {
                "current" => Some(items[*at].clone()),
                "next" | "reset" => method(),
                "pos" => size(*at),
                "items" => Some(Value::tuple(items.clone())?),
                _ => None,
            },
            Object::Joiner(separator, used) => match name {
                "sep" => Some(separator.clone()),
                "used" => Some(Value::Bool(*used)),
                _ => None,
            },
            Object::Loop(state) => {
                let (at, length) = (state.at, state.items.len());
                state.peeked = match name {
                    "length" | "revindex" | "revindex0" => usize::MAX,
                    "last" | "nextitem" => state.peeked.max(1),
                    _ => state.peeked,
                };
                match name {
                    "index" => size(at + 1),
                    "index0" => size(at),
                    "revindex" => size(length - at),
                    "revindex0" => size(length - at - 1),
                    "first" => Some(Value::Bool(at == 0)),
                    "last" => Some(Value::Bool(at + 1 == length)),
                    "length" => size(length),
                    "depth" => size(state.depth + 1),
                    "depth0" => size(state.depth),
                    "previtem" if at == 0 => undefined("there is no previous item"),
                    "previtem" => Some(state.items[at - 1].clone()),
                    "nextitem" => state.items.get(at + 1).cloned().or_else(|| undefined("there is no next item")),
                    "cycle" | "changed" => method(),
                    _ => None,
                }
            }
            Object::Iterator(_) | Object::Busy if OTHER.contains(&name) || name == "close" => {
                bail!(Unsupported, "{name} of an iterator is not supported in chat templates")
            }
            Object::Iterator(_) | Object::Busy => None,
        })
    }

    /// Returns the slice `value[start:stop:step]`, in which `none` is the default of a bound. Fails with
    /// `InvalidArgument` if the value cannot be sliced, if a bound is not an integer, or if the step is 0.
    pub fn slice(&mut self, value: &Value, bounds: [&Value; 3]) -> Result<Value> {
        let Some(length) = self.length(value).filter(|_| !value.is_undefined()) else {
            bail!(InvalidArgument, "a {} cannot be sliced", value.type_name());
        };
        let mut numbers = [None; 3];
        for (number, bound) in numbers.iter_mut().zip(bounds) {
            *number = match bound {
                Value::None => None,
                other => match other.as_int() {
                    Some(int) => Some(int),
                    None => bail!(InvalidArgument, "a slice requires integers, not a {}", other.type_name()),
                },
            };
        }
        let step = numbers[2].unwrap_or(1);
        if step == 0 {
            bail!(InvalidArgument, "the step of a slice is 0");
        }
        if let Value::Range(range) = value {
            let (begin, end) = bounds_of(length as i128, numbers[0], numbers[1], step);
            let at = |place: i128| range.start.saturating_add(place.saturating_mul(range.step));
            return Ok(Value::Range(Range { start: at(begin), stop: at(end), step: range.step.saturating_mul(step) }));
        }
        let places = places(length as i128, numbers[0], numbers[1], step);
        self.spend(places.len() as u64 + length as u64 / 16)?;
        match value {
            Value::Text(text) | Value::Markup(text) => {
                let chars: Vec<char> = text.chars().collect();
                let sliced: String = places.iter().map(|place| chars[*place]).collect();
                Ok(if let Value::Markup(_) = value { Value::Markup(sliced.into()) } else { Value::text(sliced) })
            }
            Value::List(items) => Value::list(places.iter().map(|place| items.values[*place].clone()).collect()),
            Value::Tuple(items) => Value::tuple(places.iter().map(|place| items.values[*place].clone()).collect()),
            other => bail!(InvalidArgument, "a {} cannot be sliced", other.type_name()),
        }
    }

    /// Returns the view `keys`, `values` or `items` of a dict; `None` for other values and names.
    pub fn view(value: &Value, name: &str) -> Option<Value> {
        let Value::Dict(dict) = value else { return None };
        let view = match name {
            "keys" => View::Keys,
            "values" => View::Values,
            "items" => View::Items,
            _ => return None,
        };
        Some(Value::View(view, dict.clone()))
    }
}

/// Returns the positions at which a slice starts and stops in a sequence of length `length`.
fn bounds_of(length: i128, begin: Option<i128>, end: Option<i128>, step: i128) -> (i128, i128) {
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clamp = |bound: i128| (if bound < 0 { bound.saturating_add(length) } else { bound }).clamp(low, high);
    let begin = begin.map_or(if step > 0 { low } else { high }, clamp);
    (begin, end.map_or(if step > 0 { high } else { low }, clamp))
}

/// Returns the indices of a slice, in order.
fn places(length: i128, begin: Option<i128>, end: Option<i128>, step: i128) -> Vec<usize> {
    let (mut at, end) = bounds_of(length, begin, end, step);
    let mut places = Vec::new();
    while (step > 0 && at < end) || (step < 0 && at > end) {
        places.extend(usize::try_from(at));
        at = at.saturating_add(step);
    }
    places
}

fn no_attribute(value: &Value, name: &str) -> Value {
    Value::Undefined(format!("a {} has no attribute {name:?}", value.type_name()).into())
}
