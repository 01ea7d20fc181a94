//! Values as Python writes them: templates are written for Python, and models were trained on its spelling.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};
use std::fmt::Write;

/// Nesting of a value that is written out. Python's own limit is 1000.
const DEPTH: usize = 200;

/// `str(value)`: strings as they are, all else as [`repr`]; nothing for what is undefined.
pub fn text(value: &Value, out: &mut String) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => out.push_str(text),
        None if value.is_undefined() => {}
        None => repr(value, out, DEPTH)?,
    }
    Ok(())
}

/// `repr(value)`.
fn repr(value: &Value, out: &mut String, depth: usize) -> Result<(), Error> {
    let Some(depth) = depth.checked_sub(1) else { return Err(too_deep()) };
    match value.kind() {
        ValueKind::String => quoted(value.as_str().unwrap_or_default(), out),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::None => out.push_str("None"),
        ValueKind::Number => number(value, out),
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter()?.enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                repr(&key, out, depth)?;
                out.push_str(": ");
                repr(&value.get_item(&key)?, out, depth)?;
            }
            out.push('}');
        }
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (index, item) in value.try_iter()?.enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                repr(&item, out, depth)?;
            }
            out.push(']');
        }
        _ => write!(out, "{value}").map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?,
    }
    Ok(())
}

/// A string in the quotes that Python chooses.
fn quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if c < ' ' || c == '\x7f' => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

fn number(value: &Value, out: &mut String) {
    if value.is_integer() {
        let _ = write!(out, "{value}");
        return;
    }
    let float = f64::try_from(value.clone()).unwrap_or(f64::NAN);
    let mut digits = match float {
        f if f.is_nan() => "nan".to_owned(),
        f if f.is_infinite() => if f > 0.0 { "inf" } else { "-inf" }.to_owned(),
        f => format!("{f:?}"),
    };
    // Rust writes 1e16 and 1e-7 where Python writes 1e+16 and 1e-07.
    if let Some((mantissa, exponent)) = digits.split_once('e') {
        let (sign, size) = exponent.strip_prefix('-').map_or(('+', exponent), |size| ('-', size));
        digits = format!("{mantissa}e{sign}{size:0>2}");
    }
    out.push_str(&digits);
}

fn too_deep() -> Error {
    Error::new(ErrorKind::BadSerialization, format!("the value is nested more than {DEPTH} deep"))
}

/// How `json.dumps` is to write.
struct Json {
    indent: Option<String>,
    item: String,
    key: String,
    ascii: bool,
    sort: bool,
}

/// The filter `tojson`, which is `json.dumps` in chat templates: with spaces after commas and colons, and without
/// the HTML escapes that Jinja's own filter makes.
pub fn to_json(value: &Value, indent: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<Value> = match indent {
        Some(indent) => Some(indent),
        None => options.get("indent")?,
    };
    let indent = indent.filter(|i| !i.is_none() && !i.is_undefined()).map(|indent| match indent.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(indent.as_usize().unwrap_or(0).min(64)),
    });
    let separators: Option<(String, String)> = match options.get::<Option<Value>>("separators")? {
        Some(pair) if !pair.is_none() => {
            Some((pair.get_item_by_index(0)?.to_string(), pair.get_item_by_index(1)?.to_string()))
        }
        _ => None,
    };
    let usual = || (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned());
    let (item, key) = separators.unwrap_or_else(usual);
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sort = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let mut out = String::new();
    Json { indent, item, key, ascii, sort }.write(value, &mut out, 0)?;
    Ok(Value::from_safe_string(out))
}

impl Json {
    fn write(&self, value: &Value, out: &mut String, level: usize) -> Result<(), Error> {
        if level > DEPTH {
            return Err(too_deep());
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => {
                let start = out.len();
                number(value, out);
                let python = [("nan", "NaN"), ("inf", "Infinity"), ("-inf", "-Infinity")];
                if let Some((_, json)) = python.iter().find(|(python, _)| *python == &out[start..]) {
                    out.replace_range(start.., json);
                }
            }
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out),
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort {
                    keys.sort();
                }
                self.items(out, level, ('{', '}'), keys.len(), |index, out| {
                    let key = &keys[index];
                    self.string(&key.to_string(), out);
                    out.push_str(&self.key);
                    self.write(&value.get_item(key)?, out, level + 1)
                })?;
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                let item = |index: usize, out: &mut String| self.write(&items[index], out, level + 1);
                self.items(out, level, ('[', ']'), items.len(), item)?;
            }
            other => {
                let message = format!("a value of kind {other} is not JSON serializable");
                return Err(Error::new(ErrorKind::BadSerialization, message));
            }
        }
        Ok(())
    }

    fn items(
        &self,
        out: &mut String,
        level: usize,
        (open, close): (char, char),
        count: usize,
        item: impl Fn(usize, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
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
