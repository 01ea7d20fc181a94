//! The filter `tojson`, which is `json.dumps` in chat templates.

use super::arguments::{Given, text_or_none};
use super::engine::Engine;
use super::text::float_text;
use super::value::Value;
use crate::error::{Result, bail};
use crate::limits;
use std::fmt::Write;
use std::rc::Rc;

/// The maximum indent in spaces.
const MOST_INDENT: i128 = 1000;

/// The options of `json.dumps`.
struct Json {
    indent: Option<String>,
    item: Rc<str>,
    key: Rc<str>,
    ascii: bool,
    sort: bool,
}

/// Returns `value|tojson(...)` with the parameters of the filter in the Hugging Face library, and without the HTML
/// escapes of jinja2's own filter. Fails with `InvalidArgument` for wrong arguments, and with `LimitExceeded` if the
/// indent or the text is too long.
pub fn apply(engine: &mut Engine, value: &Value, given: Given) -> Result<Value> {
    let [ascii, indent, separators, sort] =
        given.bind("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Text(text)) => Some(text.to_string()),
        Some(other) => match other.as_int() {
            Some(width) if width > MOST_INDENT => {
                bail!(LimitExceeded, "tojson: the indent is {width}; the limit is {MOST_INDENT}")
            }
            Some(width) => Some(" ".repeat(usize::try_from(width).unwrap_or(0))),
            None => {
                bail!(InvalidArgument, "tojson: the indent must be an integer or a string, not a {}", other.type_name())
            }
        },
    };
    let (item, key) = match separators {
        None | Some(Value::None) => (if indent.is_some() { "," } else { ", " }.into(), ": ".into()),
        Some(pair) => match engine.iterate(&pair)?.as_slice() {
            [item, key] => {
                let text = |value: &Value| text_or_none(Some(value.clone()), "tojson");
                (text(item)?.unwrap_or_default(), text(key)?.unwrap_or_default())
            }
            other => bail!(InvalidArgument, "tojson requires two separators, not {}", other.len()),
        },
    };
    let truth = |value: Option<Value>| value.is_some_and(|value| engine.truth(&value));
    let json = Json { indent, item, key, ascii: truth(ascii), sort: truth(sort) };
    let mut out = String::new();
    json.write(engine, value, &mut out, 0)?;
    engine.spend_bytes(out.len())?;
    Ok(Value::text(out))
}

impl Json {
    fn write(&self, engine: &Engine, value: &Value, out: &mut String, level: usize) -> Result<()> {
        engine.spend(1)?;
        if out.len() > limits::TEXT_BYTES {
            bail!(LimitExceeded, "the template writes more than {} bytes", limits::TEXT_BYTES);
        }
        match value {
            Value::Text(text) | Value::Markup(text) => self.string(text, out),
            Value::List(items) | Value::Tuple(items) => {
                let item = |index: usize, out: &mut String| self.write(engine, &items.values[index], out, level + 1);
                self.items(out, level, ('[', ']'), items.values.len(), item)?;
            }
            Value::Dict(dict) => {
                let mut keys: Vec<Value> = dict.entries.iter().map(|(key, _)| key.clone()).collect();
                if self.sort {
                    keys = engine.sort(keys.iter().map(|key| (key.clone(), key.clone())).collect(), false)?;
                }
                self.items(out, level, ('{', '}'), keys.len(), |index, out| {
                    match &keys[index] {
                        Value::Text(key) | Value::Markup(key) => self.string(key, out),
                        Value::Tuple(_) | Value::Undefined(_) => {
                            bail!(InvalidArgument, "a {} cannot be a key in JSON", keys[index].type_name())
                        }
                        plain => {
                            out.push('"');
                            out.push_str(&simple(plain)?);
                            out.push('"');
                        }
                    }
                    out.push_str(&self.key);
                    match dict.get(&keys[index])? {
                        Some(value) => self.write(engine, value, out, level + 1),
                        None => bail!(Unsupported, "a dict with a key that is not equal to itself is not supported"),
                    }
                })?;
            }
            other => out.push_str(&simple(other)?),
        }
        Ok(())
    }

    fn items(
        &self,
        out: &mut String,
        level: usize,
        (open, close): (char, char),
        count: usize,
        item: impl Fn(usize, &mut String) -> Result<()>,
    ) -> Result<()> {
        let line = |out: &mut String, level: usize| {
            if let Some(indent) = &self.indent {
                out.push('\n');
                (0..level).for_each(|_| out.push_str(indent));
            }
        };
        out.push(open);
        for index in 0..count {
            out.push_str(if index > 0 { &self.item } else { "" });
            line(out, level + 1);
            item(index, out)?;
        }
        if count > 0 {
            line(out, level);
        }
        out.push(close);
        Ok(())
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && c > '\x7e') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// Returns the JSON of a value that is neither a string nor a container.
fn simple(value: &Value) -> Result<String> {
    Ok(match value {
        Value::None => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) if value.is_nan() => "NaN".into(),
        Value::Float(value) if value.is_infinite() => if *value > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        Value::Float(value) => float_text(*value),
        Value::Undefined(message) => bail!(InvalidArgument, "tojson: {message}"),
        other => bail!(InvalidArgument, "a {} has no form in JSON", other.type_name()),
    })
}
