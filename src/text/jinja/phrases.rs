//! The filters that return text.

use super::arguments::{Given, int_or, text_or_none};
use super::engine::Engine;
use super::filters::{replaced, soft};
use super::split::lines;
use super::strings::{capitalize, center, strip};
use super::text::{is_alnum, is_space};
use super::value::Value;
use crate::error::{Result, bail};
use crate::limits;
use std::fmt::Write;

/// Returns the result of a filter of texts, `value|name(...)`. Fails with `InvalidArgument` for wrong arguments, with
/// `Unsupported` for what is not implemented, and with `LimitExceeded` if a text becomes too long.
pub fn apply(engine: &mut Engine, name: &str, value: &Value, given: Given) -> Result<Value> {
    match name {
        "format" => return format(engine, value, given),
        "indent" => return indent(engine, value, given),
        "join" => return join(engine, value, given),
        "replace" => return replaced(engine, value, given),
        "truncate" => return truncate(engine, value, given),
        "center" => {
            let [width] = given.bind(name, ["width"])?;
            let width = usize::try_from(int_or(width, name, 80)?).unwrap_or(0).min(limits::TEXT_BYTES + 1);
            engine.spend_bytes(width)?;
            return Ok(Value::text(center(&soft(engine, value)?, width, ' ')));
        }
        "trim" => {
            let [chars] = given.bind(name, ["chars"])?;
            let chars = text_or_none(chars, name)?;
            let text = engine.text(value)?;
            let trimmed = strip(&text, chars.as_deref(), true, true);
            engine.spend_bytes(trimmed.len())?;
            return Ok(if let Value::Markup(_) = value { Value::Markup(trimmed.into()) } else { Value::text(trimmed) });
        }
        "filesizeformat" => return file_size(engine, value, given),
        "xmlattr" => return attributes(engine, value, given),
        _ => given.none(name)?,
    }
    let text = match name {
        "string" => {
            return Ok(match value {
                Value::Markup(_) => value.clone(),
                other => Value::Text(engine.text(other)?),
            });
        }
        "safe" => return Ok(Value::Markup(engine.text(value)?)),
        "escape" | "e" if matches!(value, Value::Markup(_)) => return Ok(value.clone()),
        "escape" | "e" | "forceescape" => return Ok(Value::Markup(escaped(&engine.text(value)?).into())),
        "urlencode" => return url_encode(engine, value),
        _ => engine.text(value)?,
    };
    engine.spend_bytes(text.len())?;
    // Safe text stays marked as safe.
    let like = |text: String| match value {
        Value::Markup(_) => Value::Markup(text.into()),
        _ => Value::text(text),
    };
    Ok(match name {
        "upper" => like(text.to_uppercase()),
        "lower" => like(text.to_lowercase()),
        "capitalize" => like(capitalize(&text)),
        "striptags" => Value::text(without_tags(&text)?),
        "title" => Value::text(title(&text)),
        "wordcount" => Value::Int(words(&text)?),
        other => bail!(Unsupported, "the filter {other} is not supported in chat templates"),
    })
}

/// Returns text with `&`, `<`, `>` and quotes escaped for HTML.
pub fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('>', "&gt;").replace('<', "&lt;");
    text.replace('\'', "&#39;").replace('"', "&#34;")
}

/// Returns a text with upper case after whitespace, hyphens and opening brackets, and lower case elsewhere.
fn title(text: &str) -> String {
    let begins = |c: char| is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let of_kind = begins(first);
        let length = rest.find(|c| begins(c) != of_kind).unwrap_or(rest.len());
        let (word, after) = rest.split_at(length);
        out.extend(first.to_uppercase());
        out.push_str(&word[first.len_utf8()..].to_lowercase());
        rest = after;
    }
    out
}

/// Returns a text without HTML comments and tags, with single spaces and characters in place of entities. Fails with
/// `Unsupported` for entities that are not in [`ENTITIES`].
fn without_tags(text: &str) -> Result<String> {
    let mut text = text.to_owned();
    for (open, close) in [("<!--", "-->"), ("<", ">")] {
        let mut from = 0;
        while let Some(start) = text[from..].find(open).map(|at| from + at) {
            let Some(end) = text[start..].find(close).map(|at| start + at + close.len()) else { break };
            text.replace_range(start..end, "");
            from = 0;
        }
    }
    let text = text.split(is_space).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let known = ENTITIES.iter().find(|(entity, _)| rest.starts_with(entity));
        let plain = rest[1..].starts_with(|c: char| !c.is_alphanumeric() && c != '#') || rest.len() == 1;
        match known {
            Some((entity, c)) => {
                out.push(*c);
                rest = &rest[entity.len()..];
            }
            None if plain => {
                out.push('&');
                rest = &rest[1..];
            }
            None => bail!(Unsupported, "striptags of HTML entities is not supported in chat templates"),
        }
    }
    Ok(out + rest)
}

/// The entities that the filter `escape` writes, and the usual names of the characters.
const ENTITIES: [(&str, char); 6] =
    [("&amp;", '&'), ("&lt;", '<'), ("&gt;", '>'), ("&quot;", '"'), ("&#39;", '\''), ("&#34;", '"')];

/// Returns the number of runs of letters, digits and underscores.
fn words(text: &str) -> Result<i128> {
    let (mut count, mut inside) = (0, false);
    for c in text.chars() {
        let part = c == '_' || is_alnum(c);
        count += i128::from(part && !inside);
        inside = part;
    }
    Ok(count)
}

fn format(engine: &mut Engine, value: &Value, given: Given) -> Result<Value> {
    let text = soft(engine, value)?;
    let values = match (given.positional.is_empty(), given.named.is_empty()) {
        (false, false) => bail!(InvalidArgument, "format takes values or keywords, not both"),
        (true, false) => Value::dict(given.named.into_iter().map(|(name, value)| (Value::Text(name), value)))?,
        _ => Value::tuple(given.positional)?,
    };
    engine.percent(&text, &values)
}

fn join(engine: &mut Engine, value: &Value, given: Given) -> Result<Value> {
    let [separator, attribute] = given.bind("join", ["d", "attribute"])?;
    let separator = engine.text(&separator.unwrap_or_else(|| Value::text("")))?;
    let mut values = engine.iterate(value)?;
    if let Some(attribute) = attribute.filter(|attribute| !matches!(attribute, Value::None)) {
        let path = super::choose::path(&attribute)?;
        for value in &mut values {
            *value = super::choose::follow(engine, value, &path, None)?;
        }
    }
    let mut text = String::new();
    for (index, value) in values.iter().enumerate() {
        text.push_str(if index > 0 { &separator } else { "" });
        text.push_str(&engine.text(value)?);
        engine.spend_bytes(separator.len() + BYTES)?;
        if text.len() > limits::TEXT_BYTES {
            bail!(LimitExceeded, "the template writes more than {} bytes", limits::TEXT_BYTES);
        }
    }
    engine.spend_bytes(text.len())?;
    Ok(Value::text(text))
}

/// The number of bytes that an item of a list counts besides its text.
const BYTES: usize = 16;

fn indent(engine: &mut Engine, value: &Value, given: Given) -> Result<Value> {
    let [width, first, blank] = given.bind("indent", ["width", "first", "blank"])?;
    let indent = match width {
        Some(Value::Text(text)) => text.to_string(),
        other => {
            let width = usize::try_from(int_or(other, "indent", 4)?).unwrap_or(0).min(limits::TEXT_BYTES + 1);
            engine.spend_bytes(width)?;
            " ".repeat(width)
        }
    };
    let Value::Text(text) = value else {
        bail!(InvalidArgument, "indent requires a string, not a {}", value.type_name())
    };
    let truth = |value: Option<Value>| value.is_some_and(|value| engine.truth(&value));
    let (first, blank) = (truth(first), truth(blank));
    let text = format!("{text}\n");
    let lines = lines(&text, false);
    engine.spend_bytes(text.len().saturating_add(lines.len().saturating_mul(indent.len())))?;
    let mut out = String::new();
    for (index, line) in lines.iter().enumerate() {
        out.push_str(if index > 0 { "\n" } else { "" });
        let indented = if index == 0 { first } else { blank || !line.is_empty() };
        out.push_str(if indented { &indent } else { "" });
        out.push_str(line);
    }
    Ok(Value::text(out))
}

fn truncate(engine: &mut Engine, value: &Value, given: Given) -> Result<Value> {
    let [length, kill, end, leeway] = given.bind("truncate", ["length", "killwords", "end", "leeway"])?;
    let Value::Text(text) = value else {
        bail!(InvalidArgument, "truncate requires a string, not a {}", value.type_name())
    };
    let length = int_or(length, "truncate", 255)?;
    let end = match end {
        None => "...".into(),
        Some(end) => text_or_none(Some(end), "truncate")?.unwrap_or_else(|| "None".into()),
    };
    let leeway = match leeway {
        Some(Value::None) => 5,
        other => int_or(other, "truncate", 5)?,
    };
    let kept = length.saturating_sub(end.chars().count() as i128);
    if kept < 0 || leeway < 0 {
        bail!(InvalidArgument, "truncate to {length} characters is shorter than its end {end:?}");
    }
    engine.spend_bytes(text.len())?;
    if text.chars().count() as i128 <= length.saturating_add(leeway) {
        return Ok(value.clone());
    }
    let cut: String = text.chars().take(usize::try_from(kept).unwrap_or(usize::MAX)).collect();
    let cut = match kill.is_some_and(|kill| engine.truth(&kill)) {
        true => cut.as_str(),
        false => cut.rsplit_once(' ').map_or(cut.as_str(), |(before, _)| before),
    };
    Ok(Value::text(format!("{cut}{end}")))
}

fn file_size(engine: &Engine, value: &Value, given: Given) -> Result<Value> {
    let [binary] = given.bind("filesizeformat", ["binary"])?;
    let binary = binary.is_some_and(|binary| engine.truth(&binary));
    let bytes = match value {
        Value::Float(float) => *float,
        other => match (other.as_int(), other.as_text()) {
            (Some(int), _) => int as f64,
            (_, Some(text)) => match super::numbers::parse_float(text)? {
                Some(float) => float,
                None => bail!(InvalidArgument, "{text:?} is not a size"),
            },
            _ => bail!(InvalidArgument, "a {} is not a size", other.type_name()),
        },
    };
    let (base, units) = match binary {
        true => (1024.0, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"]),
        false => (1000.0, ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"]),
    };
    if bytes == 1.0 {
        return Ok(Value::text("1 Byte"));
    }
    if bytes < base {
        return Ok(Value::text(format!("{} Bytes", bytes as i128)));
    }
    let mut unit: f64 = base;
    let mut name = units[0];
    for next in units {
        (unit, name) = (unit * base, next);
        if bytes < unit {
            break;
        }
    }
    Ok(Value::text(format!("{} {name}", super::numbers::fixed(base * bytes / unit, 1))))
}

fn attributes(engine: &Engine, value: &Value, given: Given) -> Result<Value> {
    let [space] = given.bind("xmlattr", ["autospace"])?;
    let space = space.is_none_or(|space| engine.truth(&space));
    let Value::Dict(dict) = value else {
        bail!(InvalidArgument, "xmlattr requires a dict, not a {}", value.type_name())
    };
    let mut out = String::new();
    for (key, value) in &dict.entries {
        if matches!(value, Value::None | Value::Undefined(_)) {
            continue;
        }
        let Value::Text(key) = key else { bail!(InvalidArgument, "the name of an attribute must be a string") };
        if key.contains([' ', '\t', '\n', '\r', '\x0b', '\x0c', '/', '>', '=']) {
            bail!(InvalidArgument, "{key:?} is not a valid attribute name");
        }
        let text = engine.text(value)?;
        let text = if let Value::Markup(_) = value { text.to_string() } else { escaped(&text) };
        let _ = write!(out, "{}{}=\"{text}\"", if space || !out.is_empty() { " " } else { "" }, escaped(key));
    }
    Ok(Value::text(out))
}

/// Returns a text with `%NN` for all characters except letters, digits and a few others; for a list of pairs or a dict,
/// the result is a query string.
fn url_encode(engine: &mut Engine, value: &Value) -> Result<Value> {
    let quote = |text: &str, form: bool| {
        let mut out = String::new();
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => out.push(char::from(byte)),
                b'/' if !form => out.push('/'),
                b' ' if form => out.push('+'),
                byte => {
                    let _ = write!(out, "%{byte:02X}");
                }
            }
        }
        out
    };
    if value.as_text().is_some() || !engine.is_iterable(value) {
        let text = engine.text(value)?;
        engine.spend_bytes(3 * text.len())?;
        return Ok(Value::text(quote(&text, false)));
    }
    let pairs = Engine::view(value, "items").unwrap_or_else(|| value.clone());
    let mut out = Vec::new();
    for pair in engine.iterate(&pairs)? {
        let pair = engine.iterate(&pair)?;
        let [key, value] = pair.as_slice() else { bail!(InvalidArgument, "urlencode requires pairs") };
        let (key, value) = (engine.text(key)?, engine.text(value)?);
        engine.spend_bytes(3 * (key.len() + value.len()))?;
        out.push(format!("{}={}", quote(&key, true), quote(&value, true)));
    }
    Ok(Value::text(out.join("&")))
}
