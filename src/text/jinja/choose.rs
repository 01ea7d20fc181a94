//! Filters that process the items of an iterable value.

use super::arguments::{Given, int_or, required, text_or_none};
use super::ast::Operator;
use super::engine::Engine;
use super::value::{Key, Value};
use super::{checks, filters};
use crate::error::{Result, bail};
use std::cmp::Ordering;
use std::collections::HashSet;

/// Returns the names and indices in an attribute such as `a.0.b`, which lead to a nested value; empty for `none`. This
/// function never fails.
pub fn path(attribute: &Value) -> Result<Vec<Value>> {
    Ok(match attribute {
        Value::None => Vec::new(),
        Value::Text(text) => {
            let part = |part: &str| match !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
                true => Value::Int(part.parse().unwrap_or(i128::MAX)),
                false => Value::text(part),
            };
            text.split('.').map(part).collect()
        }
        other => vec![other.clone()],
    })
}

/// Returns the value at a path of attributes or items within `value`. `default` replaces undefined values. Fails like
/// [`Engine::item`].
pub fn follow(engine: &mut Engine, value: &Value, path: &[Value], default: Option<&Value>) -> Result<Value> {
    let mut value = value.clone();
    for part in path {
        value = engine.item(&value, part)?;
        if let (true, Some(default)) = (value.is_undefined(), default) {
            value = default.clone();
        }
    }
    Ok(value)
}

/// Returns a text in lower case unless case matters; other values unchanged.
fn folded(engine: &Engine, value: Value, case_sensitive: bool) -> Result<Value> {
    match &value {
        Value::Text(text) if !case_sensitive => {
            engine.spend_bytes(text.len())?;
            Ok(Value::text(text.to_lowercase()))
        }
        _ => Ok(value),
    }
}

/// Returns whether an optional flag is set.
fn flag(engine: &Engine, value: Option<Value>) -> bool {
    value.is_some_and(|value| engine.truth(&value))
}

/// Returns the result of a filter of items, `value|name(...)`. Fails with `InvalidArgument` where jinja2 raises an
/// error, with `Unsupported` for what is not implemented, and with `LimitExceeded` for too many steps.
pub fn apply(engine: &mut Engine, name: &str, value: &Value, given: Given) -> Result<Value> {
    match name {
        "map" => map(engine, value, given),
        "select" | "reject" | "selectattr" | "rejectattr" => select(engine, name, value, given),
        "unique" => unique(engine, value, given),
        "groupby" => group(engine, value, given),
        "sort" => sort(engine, value, given),
        "dictsort" => sort_dict(engine, value, given),
        "min" | "max" => extreme(engine, name, value, given),
        "sum" => sum(engine, value, given),
        _ => parts(engine, name, value, given),
    }
}

fn map(engine: &mut Engine, value: &Value, mut given: Given) -> Result<Value> {
    if !engine.truth(value) {
        return Ok(engine.iterator(Vec::new()));
    }
    let values = engine.iterate(value)?;
    let mut mapped = Vec::with_capacity(values.len());
    if given.positional.is_empty() && given.named.iter().any(|(name, _)| &**name == "attribute") {
        let [attribute, default] = given.bind("map", ["attribute", "default"])?;
        let path = path(&required(attribute, "map", "attribute")?)?;
        let default = default.filter(|default| !matches!(default, Value::None));
        for value in values {
            mapped.push(follow(engine, &value, &path, default.as_ref())?);
        }
        return Ok(engine.iterator(mapped));
    }
    if given.positional.is_empty() {
        bail!(InvalidArgument, "map requires the name of a filter or an attribute");
    }
    let Value::Text(name) = given.positional.remove(0) else {
        bail!(InvalidArgument, "the name of a filter must be a string");
    };
    if !filters::exists(&name) {
        bail!(InvalidArgument, "there is no filter {name:?}");
    }
    for value in values {
        mapped.push(filters::apply(engine, &name, &value, copy(&given))?);
    }
    Ok(engine.iterator(mapped))
}

fn copy(given: &Given) -> Given {
    Given { positional: given.positional.clone(), named: given.named.clone() }
}

fn select(engine: &mut Engine, name: &str, value: &Value, mut given: Given) -> Result<Value> {
    let mut kept = Vec::new();
    if !engine.truth(value) {
        return Ok(engine.iterator(kept));
    }
    let mut leads = Vec::new();
    if name.ends_with("attr") {
        if given.positional.is_empty() {
            bail!(InvalidArgument, "{name} requires the name of an attribute");
        }
        leads = path(&given.positional.remove(0))?;
    }
    let test = match given.positional.is_empty() {
        true => None,
        false => match given.positional.remove(0) {
            Value::Text(test) if checks::exists(&test) => Some(test),
            other => bail!(InvalidArgument, "there is no test {other:?}"),
        },
    };
    let wanted = name.starts_with("select");
    for value in engine.iterate(value)? {
        let found = follow(engine, &value, &leads, None)?;
        let holds = match &test {
            Some(test) => checks::apply(engine, test, &found, copy(&given))?,
            None => engine.truth(&found),
        };
        if holds == wanted {
            kept.push(value);
        }
    }
    Ok(engine.iterator(kept))
}

fn unique(engine: &mut Engine, value: &Value, given: Given) -> Result<Value> {
    let [case_sensitive, attribute] = given.bind("unique", ["case_sensitive", "attribute"])?;
    let case_sensitive = flag(engine, case_sensitive);
    let path = path(&attribute.unwrap_or(Value::None))?;
    let mut seen: HashSet<Key> = HashSet::new();
    let mut kept = Vec::new();
    for value in engine.iterate(value)? {
        let found = follow(engine, &value, &path, None)?;
        if seen.insert(folded(engine, found, case_sensitive)?.key()?) {
            kept.push(value);
        }
    }
    Ok(engine.iterator(kept))
}

fn group(engine: &mut Engine, value: &Value, given: Given) -> Result<Value> {
    let [attribute, default, case_sensitive] = given.bind("groupby", ["attribute", "default", "case_sensitive"])?;
    let case_sensitive = flag(engine, case_sensitive);
    let path = path(&required(attribute, "groupby", "attribute")?)?;
    let default = default.filter(|default| !matches!(default, Value::None));
    let mut pairs = Vec::new();
    for value in engine.iterate(value)? {
        let found = follow(engine, &value, &path, default.as_ref())?;
        let key = folded(engine, found.clone(), case_sensitive)?;
        // The value is kept as it was found: the first one of a group is the group's name.
        pairs.push((key.clone(), Value::tuple(vec![key, found, value])?));
    }
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for sorted in engine.sort(pairs, false)? {
        let Value::Tuple(items) = sorted else { continue };
        let [key, found, value] = items.values.as_slice() else { continue };
        match groups.last_mut() {
            Some((last, _, values)) if last.equals(key)? => values.push(value.clone()),
            _ => groups.push((key.clone(), found.clone(), vec![value.clone()])),
        }
    }
    let groups = groups.into_iter().map(|(_, found, values)| Value::group(found, Value::list(values)?));
    Value::list(groups.collect::<Result<_>>()?)
}

fn sort(engine: &mut Engine, value: &Value, given: Given) -> Result<Value> {
    let [reverse, case_sensitive, attribute] = given.bind("sort", ["reverse", "case_sensitive", "attribute"])?;
    let (reverse, case_sensitive) = (flag(engine, reverse), flag(engine, case_sensitive));
    let attribute = attribute.unwrap_or(Value::None);
    let paths: Vec<Vec<Value>> = match &attribute {
        Value::Text(names) => names.split(',').map(|name| path(&Value::text(name))).collect::<Result<_>>()?,
        other => vec![path(other)?],
    };
    let mut pairs = Vec::new();
    for value in engine.iterate(value)? {
        let mut key = Vec::new();
        for path in &paths {
            let found = follow(engine, &value, path, None)?;
            key.push(folded(engine, found, case_sensitive)?);
        }
        pairs.push((Value::list(key)?, value));
    }
    Value::list(engine.sort(pairs, reverse)?)
}

fn sort_dict(engine: &mut Engine, value: &Value, given: Given) -> Result<Value> {
    let [case_sensitive, by, reverse] = given.bind("dictsort", ["case_sensitive", "by", "reverse"])?;
    let (case_sensitive, reverse) = (flag(engine, case_sensitive), flag(engine, reverse));
    let by_value = match text_or_none(by, "dictsort")?.as_deref() {
        None | Some("key") => false,
        Some("value") => true,
        Some(other) => bail!(InvalidArgument, "dictsort sorts by key or by value, not by {other:?}"),
    };
    let Value::Dict(dict) = value else {
        bail!(InvalidArgument, "dictsort requires a dict, not a {}", value.type_name())
    };
    let mut pairs = Vec::new();
    for (key, value) in &dict.entries {
        let by = folded(engine, if by_value { value.clone() } else { key.clone() }, case_sensitive)?;
        pairs.push((by, Value::tuple(vec![key.clone(), value.clone()])?));
    }
    Value::list(engine.sort(pairs, reverse)?)
}

fn extreme(engine: &mut Engine, name: &str, value: &Value, given: Given) -> Result<Value> {
    let [case_sensitive, attribute] = given.bind(name, ["case_sensitive", "attribute"])?;
    let case_sensitive = flag(engine, case_sensitive);
    let path = path(&attribute.unwrap_or(Value::None))?;
    let mut best: Option<(Value, Value)> = None;
    for value in engine.iterate(value)? {
        let found = follow(engine, &value, &path, None)?;
        let key = folded(engine, found, case_sensitive)?;
        let better = match &best {
            None => true,
            Some((most, _)) => match (engine.order(&key, most)?, name) {
                (None, _) => bail!(Unsupported, "{name} of values without an order (nan) is not supported"),
                (Some(order), "min") => order == Ordering::Less,
                (Some(order), _) => order == Ordering::Greater,
            },
        };
        if better {
            best = Some((key, value));
        }
    }
    Ok(best.map_or_else(|| Value::Undefined("there is no item to take".into()), |(_, value)| value))
}

fn sum(engine: &mut Engine, value: &Value, given: Given) -> Result<Value> {
    let [attribute, start] = given.bind("sum", ["attribute", "start"])?;
    let path = path(&attribute.unwrap_or(Value::None))?;
    let mut total = start.unwrap_or(Value::Int(0));
    if total.as_text().is_some() {
        bail!(InvalidArgument, "sum cannot add strings");
    }
    for value in engine.iterate(value)? {
        let found = follow(engine, &value, &path, None)?;
        total = engine.binary(Operator::Add, &total, &found)?;
    }
    Ok(total)
}

/// Returns the result of the filter `batch` or `slice`.
fn parts(engine: &mut Engine, name: &str, value: &Value, given: Given) -> Result<Value> {
    let [count, fill] = given.bind(name, [if name == "batch" { "linecount" } else { "slices" }, "fill_with"])?;
    let count = int_or(Some(required(count, name, "count")?), name, 0)?;
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let values = engine.iterate(value)?;
    let Some(count) = usize::try_from(count).ok().filter(|count| *count > 0) else {
        return odd_parts(engine, name, count, values);
    };
    engine.spend(count as u64)?;
    let mut parts: Vec<Vec<Value>> = Vec::new();
    if name == "batch" {
        parts.extend(values.chunks(count).map(<[Value]>::to_vec));
        if let (Some(last), Some(fill)) = (parts.last_mut(), fill) {
            last.resize(count, fill);
        }
    } else {
        let (each, longer) = (values.len() / count, values.len() % count);
        let mut rest = values.into_iter();
        for part in 0..count {
            let mut values: Vec<Value> = rest.by_ref().take(each + usize::from(part < longer)).collect();
            if part >= longer {
                values.extend(fill.clone());
            }
            parts.push(values);
        }
    }
    let parts: Vec<Value> = parts.into_iter().map(Value::list).collect::<Result<_>>()?;
    Ok(engine.iterator(parts))
}

/// Returns the result of jinja2's `batch` or `slice` for a count of 0 or less.
fn odd_parts(engine: &mut Engine, name: &str, count: i128, values: Vec<Value>) -> Result<Value> {
    let mut parts = Vec::new();
    match (name, count) {
        ("batch", _) if values.is_empty() => {}
        ("batch", 0) => parts.extend([Value::list(Vec::new())?, Value::list(values)?]),
        ("batch", _) => parts.push(Value::list(values)?),
        (_, 0) => bail!(InvalidArgument, "slice: division by zero"),
        _ => {}
    }
    Ok(engine.iterator(parts))
}
