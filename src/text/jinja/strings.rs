//! The methods of `str`, as templates call them.

use super::arguments::{Given, int_or, required, text_or_none};
use super::engine::Engine;
use super::split::{lines, split};
use super::text::{is_alnum, is_alpha, is_printable, is_space, is_title, numeric, title_case};
use super::value::Value;
use crate::error::{Result, bail};
use crate::limits;
use std::rc::Rc;

/// The names of all methods of `str`.
pub const METHODS: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];

/// Returns the result of a method of `str`, `text.name(...)`. Fails with `InvalidArgument` for arguments that Python
/// refuses, and `Unsupported` for methods and characters that are not implemented.
pub fn call(engine: &mut Engine, text: &Rc<str>, name: &str, given: Given) -> Result<Value> {
    engine.spend_bytes(text.len())?;
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = given.bind(name, ["/chars"])?;
            let chars = text_or_none(chars, name)?;
            Ok(Value::text(strip(text, chars.as_deref(), name != "rstrip", name != "lstrip")))
        }
        "split" | "rsplit" => {
            let [separator, most] = given.bind(name, ["sep", "maxsplit"])?;
            let separator = text_or_none(separator, name)?;
            if separator.as_deref() == Some("") {
                bail!(InvalidArgument, "the separator of {name} is empty");
            }
            let most = usize::try_from(int_or(most, name, -1)?).unwrap_or(usize::MAX);
            let parts = split(text, separator.as_deref(), most, name == "rsplit");
            engine.spend(parts.len() as u64)?;
            Value::list(parts.into_iter().map(Value::text).collect())
        }
        "splitlines" => {
            let [ends] = given.bind(name, ["keepends"])?;
            let ends = ends.is_some_and(|ends| engine.truth(&ends));
            Value::list(lines(text, ends).into_iter().map(Value::text).collect())
        }
        "startswith" | "endswith" | "find" | "rfind" | "index" | "rindex" | "count" => search(text, name, given),
        "replace" => {
            let [old, new, count] = given.bind(name, ["/old", "/new", "/count"])?;
            let (old, new) = (wanted(old, name)?, wanted(new, name)?);
            replace(engine, text, &old, &new, int_or(count, name, -1)?)
        }
        _ => joined(engine, text, name, given),
    }
}

/// Returns the result of a method that joins or splits texts.
fn joined(engine: &mut Engine, text: &Rc<str>, name: &str, given: Given) -> Result<Value> {
    match name {
        "join" => {
            let [items] = given.bind(name, ["/iterable"])?;
            let mut parts = Vec::new();
            for item in engine.iterate(&required(items, name, "iterable")?)? {
                match item {
                    Value::Text(part) => parts.push(part),
                    other => bail!(InvalidArgument, "join requires strings, not a {}", other.type_name()),
                }
            }
            let joined = parts.join(text);
            engine.spend_bytes(joined.len())?;
            Ok(Value::text(joined))
        }
        "removeprefix" | "removesuffix" => {
            let [part] = given.bind(name, ["/part"])?;
            let part = wanted(part, name)?;
            let rest = if name == "removeprefix" { text.strip_prefix(&*part) } else { text.strip_suffix(&*part) };
            Ok(Value::text(rest.unwrap_or(text)))
        }
        "partition" | "rpartition" => {
            let [separator] = given.bind(name, ["/sep"])?;
            let separator = wanted(separator, name)?;
            if separator.is_empty() {
                bail!(InvalidArgument, "the separator of {name} is empty");
            }
            let parts = match (name, text.split_once(&*separator), text.rsplit_once(&*separator)) {
                ("partition", Some((a, b)), _) | ("rpartition", _, Some((a, b))) => [a, &separator, b],
                ("partition", ..) => [text, "", ""],
                _ => ["", "", text],
            };
            Value::tuple(parts.iter().map(Value::text).collect())
        }
        "center" | "ljust" | "rjust" | "zfill" | "expandtabs" => pad(engine, text, name, given),
        "format" => engine.format(text, given),
        "format_map" => {
            let [values] = given.bind(name, ["/mapping"])?;
            match required(values, name, "mapping")? {
                Value::Dict(dict) => {
                    let named = dict.entries.iter().filter_map(|(key, value)| match key {
                        Value::Text(key) => Some((key.clone(), value.clone())),
                        _ => None,
                    });
                    engine.format(text, Given { positional: Vec::new(), named: named.collect() })
                }
                other => bail!(Unsupported, "format_map of a {} is not supported", other.type_name()),
            }
        }
        "encode" | "maketrans" | "translate" => {
            bail!(Unsupported, "the method {name} of a string is not supported in chat templates")
        }
        _ => {
            given.none(name)?;
            plain(text, name)
        }
    }
}

/// Returns the result of a method that takes no arguments.
fn plain(text: &str, name: &str) -> Result<Value> {
    let every = |of: &dyn Fn(char) -> Result<bool>| -> Result<Value> {
        for c in text.chars() {
            if !of(c)? {
                return Ok(Value::Bool(false));
            }
        }
        Ok(Value::Bool(!text.is_empty()))
    };
    match name {
        "upper" => Ok(Value::text(text.to_uppercase())),
        "lower" => Ok(Value::text(text.to_lowercase())),
        "capitalize" => Ok(Value::text(capitalize(text))),
        "title" => Ok(Value::text(title(text))),
        "swapcase" => Ok(Value::text(swapcase(text)?)),
        "casefold" if text.is_ascii() => Ok(Value::text(text.to_ascii_lowercase())),
        "casefold" => bail!(Unsupported, "casefold of non-ASCII text is not supported in chat templates"),
        "isascii" => Ok(Value::Bool(text.is_ascii())),
        "isspace" => every(&|c| Ok(is_space(c))),
        "isprintable" => Ok(Value::Bool(text.chars().all(is_printable))),
        "isalpha" => every(&|c| Ok(is_alpha(c))),
        "isdecimal" => every(&|c| Ok(numeric(c)?.0)),
        "isdigit" => every(&|c| Ok(numeric(c)?.1)),
        "isnumeric" => every(&|c| Ok(numeric(c)?.2)),
        "isalnum" => every(&|c| Ok(is_alnum(c))),
        "islower" => Ok(Value::Bool(super::checks::cased(text, char::is_lowercase, char::is_uppercase))),
        "isupper" => Ok(Value::Bool(super::checks::cased(text, char::is_uppercase, char::is_lowercase))),
        "istitle" => Ok(Value::Bool(has_title(text))),
        "isidentifier" if text.is_ascii() => {
            let begins = text.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic());
            Ok(Value::Bool(begins && text.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())))
        }
        _ => bail!(Unsupported, "{name} of non-ASCII text is not supported in chat templates"),
    }
}

/// Returns a required string. Fails with `InvalidArgument` if it is missing or of another type.
fn wanted(value: Option<Value>, function: &str) -> Result<Rc<str>> {
    match text_or_none(value, function)? {
        Some(text) => Ok(text),
        None => bail!(InvalidArgument, "{function} requires a string"),
    }
}

/// Returns the result of `str.strip` of whitespace or of some characters.
pub fn strip<'a>(text: &'a str, chars: Option<&str>, start: bool, end: bool) -> &'a str {
    let strips = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if start { text.trim_start_matches(strips) } else { text };
    if end { text.trim_end_matches(strips) } else { text }
}

/// Returns the result of `str.capitalize`.
pub fn capitalize(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    if let Some(first) = chars.next() {
        title_case(first, &mut out);
    }
    // Lower case depends on the preceding characters (sigma), so the whole text is lowered.
    let lower = text.to_lowercase();
    let skipped: usize = text.chars().next().map_or(0, |first| first.to_lowercase().map(char::len_utf8).sum());
    out + &lower[skipped..]
}

/// Returns the result of `str.title`: upper case for each letter after a character without case.
fn title(text: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    let lower = text.to_lowercase();
    let mut lowered = lower.chars();
    for c in text.chars() {
        let lower: String = lowered.by_ref().take(c.to_lowercase().count()).collect();
        if inside {
            out.push_str(&lower)
        } else {
            title_case(c, &mut out)
        }
        inside = is_cased(c);
    }
    out
}

fn is_cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase() || is_title(c)
}

fn has_title(text: &str) -> bool {
    let (mut inside, mut any) = (false, false);
    for c in text.chars() {
        let wrong = if c.is_uppercase() || is_title(c) { inside } else { c.is_lowercase() && !inside };
        if wrong {
            return false;
        }
        inside = is_cased(c);
        any |= inside;
    }
    any
}

fn swapcase(text: &str) -> Result<String> {
    if text.contains('Σ') {
        bail!(Unsupported, "swapcase of a sigma is not supported in chat templates");
    }
    let mut out = String::new();
    for c in text.chars() {
        match (c.is_uppercase(), c.is_lowercase()) {
            (true, _) => out.extend(c.to_lowercase()),
            (_, true) => out.extend(c.to_uppercase()),
            _ => out.push(c),
        }
    }
    Ok(out)
}

/// Returns the result of `str.replace`, at most `count` times if that is not negative. Fails with `LimitExceeded` if
/// the result is too long.
pub fn replace(engine: &Engine, text: &str, old: &str, new: &str, count: i128) -> Result<Value> {
    let most = usize::try_from(count).unwrap_or(usize::MAX);
    let found = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() }.min(most);
    engine.spend_bytes(text.len().saturating_add(found.saturating_mul(new.len())))?;
    Ok(Value::text(text.replacen(old, new, found)))
}

/// Returns the index of the first character and the characters of a text between two indices, which are clamped like in
/// Python; `None` if the first index is after the second.
fn between(text: &str, start: Option<Value>, stop: Option<Value>, name: &str) -> Result<Option<(usize, String)>> {
    let length = text.chars().count() as i128;
    let number = |value: Option<Value>, default: i128| match value {
        None | Some(Value::None) => Ok(default),
        other => int_or(other, name, default),
    };
    let clamp = |bound: i128| if bound < 0 { (bound + length).max(0) } else { bound };
    let (start, stop) = (clamp(number(start, 0)?), clamp(number(stop, length)?).min(length));
    if start > stop {
        return Ok(None);
    }
    let part = text.chars().skip(start as usize).take((stop - start) as usize).collect();
    Ok(Some((start as usize, part)))
}

/// Returns the result of a method that searches in a part of the text.
fn search(text: &str, name: &str, given: Given) -> Result<Value> {
    let [wanted_part, start, stop] = given.bind(name, ["/sub", "/start", "/end"])?;
    let wanted_part = required(wanted_part, name, "sub")?;
    let part = between(text, start, stop, name)?;
    if let "startswith" | "endswith" = name {
        let options = match &wanted_part {
            Value::Tuple(items) => items.values.clone(),
            other => vec![other.clone()],
        };
        for option in options {
            let option = wanted(Some(option), name)?;
            let has =
                |part: &str| if name == "startswith" { part.starts_with(&*option) } else { part.ends_with(&*option) };
            if part.as_ref().is_some_and(|(_, part)| has(part)) {
                return Ok(Value::Bool(true));
            }
        }
        return Ok(Value::Bool(false));
    }
    let sub = wanted(Some(wanted_part), name)?;
    if name == "count" {
        let count = part.map_or(0, |(_, part)| match sub.is_empty() {
            true => part.chars().count() + 1,
            false => part.matches(&*sub).count(),
        });
        return Ok(Value::Int(count as i128));
    }
    let found = part.and_then(|(from, part)| {
        let at = if name.starts_with('r') { part.rfind(&*sub) } else { part.find(&*sub) }?;
        Some((from + part[..at].chars().count()) as i128)
    });
    match found {
        None if name.ends_with("index") => bail!(InvalidArgument, "{name}: the substring is not found"),
        found => Ok(Value::Int(found.unwrap_or(-1))),
    }
}

/// Returns the result of `str.center` with a width in characters. An odd number of fills is split as in Python.
pub fn center(text: &str, width: usize, fill: char) -> String {
    let length = text.chars().count();
    let pad = width.saturating_sub(length);
    let left = pad / 2 + (pad & width & 1);
    let fills = |count: usize| std::iter::repeat_n(fill, count).collect::<String>();
    fills(left) + text + &fills(pad - left)
}

fn pad(engine: &Engine, text: &str, name: &str, given: Given) -> Result<Value> {
    let [width, fill] = match name {
        "zfill" => {
            let [width] = given.bind(name, ["/width"])?;
            [width, None]
        }
        "expandtabs" => {
            let [size] = given.bind(name, ["tabsize"])?;
            return expand_tabs(engine, text, int_or(size, name, 8)?);
        }
        _ => given.bind(name, ["/width", "/fillchar"])?,
    };
    let width = usize::try_from(int_or(Some(required(width, name, "width")?), name, 0)?.max(0)).unwrap_or(usize::MAX);
    let fill = match text_or_none(fill, name)? {
        None => ' ',
        Some(fill) if fill.chars().count() == 1 => fill.chars().next().unwrap_or(' '),
        Some(_) => bail!(InvalidArgument, "the fill of {name} must be one character"),
    };
    if width > limits::TEXT_BYTES / 4 {
        bail!(LimitExceeded, "a text has more than {} bytes", limits::TEXT_BYTES);
    }
    engine.spend_bytes(width)?;
    let missing = width.saturating_sub(text.chars().count());
    let fills = |fill: char| std::iter::repeat_n(fill, missing).collect::<String>();
    Ok(Value::text(match name {
        "center" => center(text, width, fill),
        "ljust" => text.to_owned() + &fills(fill),
        "rjust" => fills(fill) + text,
        _ => match text.strip_prefix(['-', '+']) {
            Some(rest) => text[..1].to_owned() + &fills('0') + rest,
            None => fills('0') + text,
        },
    }))
}

fn expand_tabs(engine: &Engine, text: &str, size: i128) -> Result<Value> {
    let size = usize::try_from(size).unwrap_or(0);
    engine.spend_bytes(text.matches('\t').count().saturating_mul(size))?;
    let (mut out, mut column) = (String::new(), 0);
    for c in text.chars() {
        match c {
            '\t' if size > 0 => {
                let spaces = size - column % size;
                out.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            '\t' => {}
            c => {
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
                out.push(c);
            }
        }
    }
    Ok(Value::text(out))
}
