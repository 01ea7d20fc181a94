//! The built-in functions of templates, and calls.

use super::arguments::{Given, int_or, required};
use super::engine::{Engine, Object};
use super::strings;
use super::value::{Dict, Range, Value};
use crate::error::{Result, bail};
use crate::text::chat::date;
use std::rc::Rc;

/// The maximum number of values of a `range` in jinja2's sandbox.
const LONGEST_RANGE: usize = 100_000;

impl Engine {
    /// Returns the result of a call of a macro, a function, a method, a loop or a joiner. Fails with `InvalidArgument`
    /// if the value cannot be called, and like [`Engine::evaluate`] in the call.
    pub fn call(&mut self, callee: &Value, given: Given) -> Result<Value> {
        self.deeper(|engine| match callee {
            Value::Undefined(message) => bail!(InvalidArgument, "{message}"),
            Value::Macro(bound) => engine.call_macro(&bound.definition.clone(), bound.scope, given),
            Value::Function(name) => engine.function(name, given),
            Value::Method(method) => engine.method(&method.0, &method.1, given),
            Value::Object(number) => engine.call_object(*number, given),
            other => bail!(InvalidArgument, "a {} cannot be called", other.type_name()),
        })
    }

    fn function(&mut self, name: &str, given: Given) -> Result<Value> {
        match name {
            "range" => range(given),
            "dict.fromkeys" => self.dict_of_keys(given),
            "dict" => self.new_dict(given).map(|dict| Value::Dict(Rc::new(dict))),
            "namespace" => {
                let names = self.new_dict(given)?;
                let wrong = names.entries.iter().find_map(|(key, _)| key.as_text().filter(|key| key.starts_with('_')));
                if let Some(name) = wrong {
                    bail!(InvalidArgument, "the name {name:?} in a namespace begins with an underscore");
                }
                Ok(self.add(Object::Namespace(names)))
            }
            "cycler" => {
                if given.positional.is_empty() || !given.named.is_empty() {
                    bail!(InvalidArgument, "cycler requires at least one item");
                }
                Value::list(given.positional.clone())?;
                Ok(self.add(Object::Cycler(given.positional, 0)))
            }
            "joiner" => {
                let [separator] = given.bind("joiner", ["sep"])?;
                Ok(self.add(Object::Joiner(separator.unwrap_or_else(|| Value::text(", ")), false)))
            }
            "raise_exception" => {
                let [message] = given.bind("raise_exception", ["message"])?;
                let message = self.text(&required(message, "raise_exception", "message")?)?;
                bail!(InvalidArgument, "{message}")
            }
            "strftime_now" => {
                let [format] = given.bind("strftime_now", ["format"])?;
                match required(format, "strftime_now", "format")? {
                    Value::Text(format) => date::show(self.now, &format).map(Value::text),
                    other => bail!(InvalidArgument, "strftime_now requires a string, not a {}", other.type_name()),
                }
            }
            other => bail!(Unsupported, "the function {other} is not supported in chat templates"),
        }
    }

    /// Returns the result of `dict(mapping or pairs, name=value ...)`.
    fn new_dict(&mut self, given: Given) -> Result<Dict> {
        let mut dict = Dict::default();
        let mut positional = given.positional.into_iter();
        match positional.next() {
            None => {}
            Some(Value::Dict(of)) => {
                of.entries.iter().try_for_each(|(key, value)| dict.insert(key.clone(), value.clone()))?;
            }
            Some(pairs) => {
                for pair in self.iterate(&pairs)? {
                    let pair = self.iterate(&pair)?;
                    let [key, value] = pair.as_slice() else {
                        bail!(InvalidArgument, "dict requires pairs, not {} values", pair.len());
                    };
                    dict.insert(key.clone(), value.clone())?;
                }
            }
        }
        if positional.next().is_some() {
            bail!(InvalidArgument, "dict takes at most one argument without a name");
        }
        given.named.into_iter().try_for_each(|(name, value)| dict.insert(Value::Text(name), value))?;
        Ok(dict)
    }

    fn call_object(&mut self, number: usize, given: Given) -> Result<Value> {
        let recursive = match self.object(number) {
            Object::Joiner(separator, used) => {
                let text = if std::mem::replace(used, true) { separator.clone() } else { Value::text("") };
                return given.none("a joiner").map(|()| text);
            }
            Object::Loop(state) => state.recursive.clone().map(|recursive| (recursive, state.depth + 1)),
            other => bail!(InvalidArgument, "{} cannot be called", other.name()),
        };
        let Some(((of, scope), depth)) = recursive else {
            bail!(InvalidArgument, "a loop must be marked as recursive to be called");
        };
        let [items] = given.bind("loop", ["iterable"])?;
        let items = required(items, "loop", "iterable")?;
        let mut text = String::new();
        let before = std::mem::replace(&mut self.scope, scope);
        self.looped(&of, &items, depth, &mut text)?;
        self.scope = before;
        Ok(Value::text(text))
    }

    /// Returns the result of the method call `value.name(...)`.
    fn method(&mut self, value: &Value, name: &str, given: Given) -> Result<Value> {
        match value {
            Value::Text(text) => strings::call(self, text, name, given),
            Value::Markup(_) => {
                bail!(Unsupported, "methods of text that is marked as safe are not supported in chat templates")
            }
            Value::Dict(dict) => self.dict_method(value, dict, name, given),
            Value::Object(number) => self.object_method(*number, name, given),
            Value::Float(float) => given.none(name).map(|()| Value::Bool(float.is_finite() && float.fract() == 0.0)),
            Value::Bool(_) | Value::Int(_) => {
                let size = value.as_int().unwrap_or(0).unsigned_abs();
                given.none(name).map(|()| Value::Int(i128::from(u128::BITS - size.leading_zeros())))
            }
            _ => self.sequence_method(value, name, given),
        }
    }

    fn dict_method(&mut self, value: &Value, dict: &Dict, name: &str, given: Given) -> Result<Value> {
        if let Some(view) = Engine::view(value, name) {
            return given.none(name).map(|()| view);
        }
        match name {
            "get" => {
                let [key, default] = given.bind("get", ["/key", "/default"])?;
                let key = required(key, "get", "key")?;
                Ok(dict.get(&key)?.cloned().or(default).unwrap_or(Value::None))
            }
            "copy" => given.none("copy").map(|()| value.clone()),
            _ => self.dict_of_keys(given),
        }
    }

    /// Returns the result of `dict.fromkeys(keys, value)`.
    fn dict_of_keys(&mut self, given: Given) -> Result<Value> {
        let [keys, value] = given.bind("fromkeys", ["/iterable", "/value"])?;
        let keys = self.iterate(&required(keys, "fromkeys", "iterable")?)?;
        let value = value.unwrap_or(Value::None);
        Value::dict(keys.into_iter().map(|key| (key, value.clone())))
    }

    fn sequence_method(&mut self, value: &Value, name: &str, given: Given) -> Result<Value> {
        match name {
            "copy" => given.none("copy").map(|()| value.clone()),
            "count" => {
                let [item] = given.bind("count", ["/value"])?;
                let item = required(item, "count", "value")?;
                let mut count = 0;
                for value in self.iterate(value)? {
                    count += i128::from(value.equals(&item)?);
                }
                Ok(Value::Int(count))
            }
            _ => {
                let [item, start, stop] = given.bind("index", ["/value", "/start", "/stop"])?;
                let item = required(item, "index", "value")?;
                let values = self.iterate(value)?;
                let length = values.len() as i128;
                let clamp = |bound: i128| (if bound < 0 { bound + length } else { bound }).clamp(0, length) as usize;
                let start = clamp(int_or(start, "index", 0)?);
                let stop = clamp(int_or(stop, "index", length)?);
                for (at, value) in values.iter().enumerate().take(stop).skip(start) {
                    if value.equals(&item)? {
                        return Ok(Value::Int(at as i128));
                    }
                }
                bail!(InvalidArgument, "the value is not in the {}", value.type_name())
            }
        }
    }

    fn object_method(&mut self, number: usize, name: &str, given: Given) -> Result<Value> {
        match (self.object(number), name) {
            (Object::Cycler(items, at), "next") => {
                let value = items[*at].clone();
                *at = (*at + 1) % items.len();
                given.none("next").map(|()| value)
            }
            (Object::Cycler(_, at), "reset") => {
                *at = 0;
                given.none("reset").map(|()| Value::None)
            }
            (Object::Loop(state), "cycle") => match given.positional.len() {
                0 => bail!(InvalidArgument, "cycle requires at least one item"),
                count => Ok(given.positional[state.at % count].clone()),
            },
            (Object::Loop(state), "changed") => {
                let before = state.changed.take();
                let same = match &before {
                    Some(before) if before.len() == given.positional.len() => {
                        let mut same = true;
                        for (a, b) in before.iter().zip(&given.positional) {
                            same = same && a.equals(b)?;
                        }
                        same
                    }
                    _ => false,
                };
                if let Object::Loop(state) = self.object(number) {
                    state.changed = if same { before } else { Some(given.positional) };
                }
                Ok(Value::Bool(!same))
            }
            (other, _) => bail!(InvalidArgument, "{} has no method {name}", other.name()),
        }
    }
}

fn range(given: Given) -> Result<Value> {
    let mut bounds = Vec::new();
    for value in given.positional {
        bounds.push(int_or(Some(value), "range", 0)?);
    }
    let (start, stop, step) = match (bounds.as_slice(), given.named.is_empty()) {
        ([stop], true) => (0, *stop, 1),
        ([start, stop], true) => (*start, *stop, 1),
        ([start, stop, step], true) => (*start, *stop, *step),
        _ => bail!(InvalidArgument, "range takes one to three integers"),
    };
    if step == 0 {
        bail!(InvalidArgument, "the step of a range is 0");
    }
    let range = Range { start, stop, step };
    if range.len() > LONGEST_RANGE {
        bail!(LimitExceeded, "a range has more than {LONGEST_RANGE} values");
    }
    Ok(Value::Range(range))
}
