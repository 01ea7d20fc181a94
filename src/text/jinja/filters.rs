//! The filters, which are the part after a bar.

use super::arguments::{Given, int_or, required, text_or_none};
use super::engine::Engine;
use super::value::Value;
use super::{choose, json, numbers, phrases, strings};
use crate::error::{Result, bail};

/// The names of all filters in jinja2.
const NAMES: [&str; 54] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "items",
    "map",
    "min",
    "max",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
    "tojson",
];

/// Returns whether jinja2 has a filter with this name. Some filters are not supported: [`apply`] fails for them.
pub fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Returns the result of the filter `name` for a value: `value|name(...)`. Fails with `InvalidArgument` for values and
/// arguments that Python refuses, and `Unsupported` for filters that are not implemented.
pub fn apply(engine: &mut Engine, name: &str, value: &Value, given: Given) -> Result<Value> {
    engine.spend(1)?;
    match name {
        "map" | "select" | "reject" | "selectattr" | "rejectattr" | "unique" | "groupby" | "sort" | "dictsort"
        | "min" | "max" | "sum" | "batch" | "slice" => choose::apply(engine, name, value, given),
        "capitalize" | "center" | "escape" | "e" | "filesizeformat" | "forceescape" | "format" | "indent" | "join"
        | "lower" | "replace" | "safe" | "string" | "title" | "trim" | "truncate" | "upper" | "urlencode"
        | "wordcount" | "xmlattr" | "striptags" => phrases::apply(engine, name, value, given),
        "tojson" => json::apply(engine, value, given),
        "d" | "default" => {
            let [default, boolean] = given.bind(name, ["default_value", "boolean"])?;
            let by_truth = boolean.is_some_and(|boolean| engine.truth(&boolean));
            let missing = value.is_undefined() || (by_truth && !engine.truth(value));
            Ok(if missing { default.unwrap_or_else(|| Value::text("")) } else { value.clone() })
        }
        "attr" => {
            let [name] = given.bind("attr", ["name"])?;
            attr(engine, value, &required(name, "attr", "name")?)
        }
        "int" => int(value, given),
        "float" => float(value, given),
        "round" => round(value, given),
        "length" | "count" => {
            given.none(name)?;
            match engine.length(value) {
                Some(length) => Ok(Value::Int(length as i128)),
                None => bail!(InvalidArgument, "a {} has no length", value.type_name()),
            }
        }
        "random" | "urlize" | "wordwrap" => {
            bail!(Unsupported, "the filter {name} is not supported in chat templates")
        }
        _ => {
            given.none(name)?;
            plain(engine, name, value)
        }
    }
}

/// Returns the result of a filter that takes no arguments.
fn plain(engine: &mut Engine, name: &str, value: &Value) -> Result<Value> {
    match name {
        "abs" => match value {
            Value::Float(float) => Ok(Value::Float(float.abs())),
            other => match other.as_int().map(i128::checked_abs) {
                Some(Some(int)) => Ok(Value::Int(int)),
                _ => bail!(InvalidArgument, "a {} has no absolute value", value.type_name()),
            },
        },
        "pprint" => {
            let text = engine.repr(&sorted(engine, value)?)?;
            if text.chars().count() > LINE || text.contains("\\n") {
                bail!(Unsupported, "pprint of more than one line is not supported in chat templates");
            }
            Ok(Value::text(text))
        }
        "list" => Value::list(engine.iterate(value)?),
        "first" => first(engine, value),
        "last" => match value {
            Value::Object(_) => bail!(InvalidArgument, "the last item of an iterator is not defined"),
            other => {
                let last = engine.iterate(other)?.pop();
                Ok(last.unwrap_or_else(|| Value::Undefined("there is no last item".into())))
            }
        },
        "items" => {
            let items = match value {
                Value::Undefined(_) => Vec::new(),
                Value::Dict(_) => match Engine::view(value, "items") {
                    Some(view) => engine.iterate(&view)?,
                    None => Vec::new(),
                },
                other => bail!(InvalidArgument, "items requires a dict, not a {}", other.type_name()),
            };
            Ok(engine.iterator(items))
        }
        "reverse" => match value {
            Value::Text(text) | Value::Markup(text) => Ok(Value::text(text.chars().rev().collect::<String>())),
            other => {
                let mut values = engine.iterate(other)?;
                values.reverse();
                // Other values become iterators, but objects become lists, because Python cannot iterate them in
                // reverse.
                if matches!(other, Value::Object(_)) {
                    return Value::list(values);
                }
                Ok(engine.iterator(values))
            }
        },
        other => bail!(InvalidModel, "there is no filter {other:?}"),
    }
}

/// The width of a line of `pprint` in characters.
const LINE: usize = 80;

/// Returns a value in which the keys of all dicts are sorted.
fn sorted(engine: &Engine, value: &Value) -> Result<Value> {
    let each = |values: &[Value]| values.iter().map(|value| sorted(engine, value)).collect::<Result<Vec<_>>>();
    match value {
        Value::List(items) => Value::list(each(&items.values)?),
        Value::Tuple(items) => Value::tuple(each(&items.values)?),
        Value::Dict(dict) => {
            let mut pairs = Vec::new();
            for (key, value) in &dict.entries {
                if key.as_text().is_none() {
                    bail!(Unsupported, "pprint of keys other than strings is not supported in chat templates");
                }
                pairs.push((key.clone(), Value::tuple(vec![key.clone(), sorted(engine, value)?])?));
            }
            let mut sorted = Vec::new();
            for pair in engine.sort(pairs, false)? {
                if let Value::Tuple(pair) = pair {
                    sorted.push((pair.values[0].clone(), pair.values[1].clone()));
                }
            }
            Value::dict(sorted)
        }
        other => Ok(other.clone()),
    }
}

fn first(engine: &mut Engine, value: &Value) -> Result<Value> {
    let first = match value {
        Value::Object(number) => match engine.object(*number) {
            super::engine::Object::Iterator(values) => values.pop_front(),
            other => bail!(InvalidArgument, "{} has no first item", other.name()),
        },
        other => engine.iterate(other)?.into_iter().next(),
    };
    Ok(first.unwrap_or_else(|| Value::Undefined("there is no first item".into())))
}

/// Returns an attribute, not an item.
fn attr(engine: &mut Engine, value: &Value, name: &Value) -> Result<Value> {
    let Some(name) = name.as_text() else { bail!(InvalidArgument, "the name of an attribute must be a string") };
    let missing = || Ok(Value::Undefined(format!("there is no attribute {name:?}").into()));
    match value {
        Value::Undefined(message) => bail!(InvalidArgument, "{message}"),
        // A dict only has the methods of an empty dict as attributes; its items are not attributes here.
        Value::Dict(_) => match engine.attribute(&Value::dict([])?, name)? {
            Value::Method(_) => engine.attribute(value, name),
            _ => missing(),
        },
        other => engine.attribute(other, name),
    }
}

fn int(value: &Value, given: Given) -> Result<Value> {
    let [default, base] = given.bind("int", ["default", "base"])?;
    let default = default.unwrap_or(Value::Int(0));
    let base = int_or(base, "int", 10)?;
    let Some(base) = u32::try_from(base).ok().filter(|base| (2..=36).contains(base)) else {
        bail!(Unsupported, "the base {base} of an integer is not supported in chat templates");
    };
    let whole = |float: f64| match float.is_finite() {
        true if float.abs() < 1e38 => Ok(Value::Int(float as i128)),
        true => bail!(Unsupported, "an integer has more than 128 bits"),
        false => Ok(default.clone()),
    };
    match value {
        Value::Undefined(message) => bail!(InvalidArgument, "{message}"),
        Value::Float(float) => whole(*float),
        other => match (other.as_int(), other.as_text()) {
            (Some(int), _) => Ok(Value::Int(int)),
            (_, Some(text)) => match numbers::parse_int(text, base)? {
                Some(int) => Ok(Value::Int(int)),
                None => numbers::parse_float(text)?.map_or(Ok(default.clone()), whole),
            },
            _ => Ok(default),
        },
    }
}

fn float(value: &Value, given: Given) -> Result<Value> {
    let [default] = given.bind("float", ["default"])?;
    let default = default.unwrap_or(Value::Float(0.0));
    match value {
        Value::Undefined(message) => bail!(InvalidArgument, "{message}"),
        Value::Float(_) => Ok(value.clone()),
        other => match (other.as_int(), other.as_text()) {
            (Some(int), _) => Ok(Value::Float(int as f64)),
            (_, Some(text)) => Ok(numbers::parse_float(text)?.map_or(default, Value::Float)),
            _ => Ok(default),
        },
    }
}

fn round(value: &Value, given: Given) -> Result<Value> {
    let [precision, method] = given.bind("round", ["precision", "method"])?;
    let method = text_or_none(method, "round")?;
    let up = match method.as_deref() {
        None | Some("common") => return numbers::round(value, int_or(precision, "round", 0)?),
        Some("ceil") => true,
        Some("floor") => false,
        Some(other) => bail!(InvalidArgument, "the method of round is {other:?}; it must be common, ceil or floor"),
    };
    let precision = int_or(precision, "round", 0)?;
    let Some(unit) = i32::try_from(precision).ok().filter(|precision| (0..=22).contains(precision)) else {
        bail!(Unsupported, "rounding to {precision} digits is not supported in chat templates");
    };
    let unit = 10f64.powi(unit);
    let float = match value {
        Value::Float(float) => *float,
        other => match other.as_int() {
            Some(int) => int as f64,
            None => bail!(InvalidArgument, "a {} cannot be rounded", other.type_name()),
        },
    };
    let scaled = float * unit;
    if !scaled.is_finite() || scaled.abs() > 9e15 {
        bail!(Unsupported, "rounding {float} is not supported in chat templates");
    }
    // In Python, `ceil` and `floor` return integers, which have no negative zero.
    Ok(Value::Float((if up { scaled.ceil() } else { scaled.floor() } + 0.0) / unit))
}

/// Returns the text of a value. Fails with `Unsupported` for text that is marked as safe: the filters that call this
/// function would have to keep the mark.
pub fn soft(engine: &Engine, value: &Value) -> Result<std::rc::Rc<str>> {
    match value {
        Value::Markup(_) => {
            bail!(Unsupported, "this filter of text that is marked as safe is not supported in chat templates")
        }
        other => engine.text(other),
    }
}

/// Returns the result of `str.replace` for values as text. Fails with `InvalidArgument` for missing or wrong arguments,
/// and with `LimitExceeded` if the text is too long.
pub fn replaced(engine: &Engine, value: &Value, given: Given) -> Result<Value> {
    let [old, new, count] = given.bind("replace", ["old", "new", "count"])?;
    let (old, new) = (required(old, "replace", "old")?, required(new, "replace", "new")?);
    let (text, old, new) = (engine.text(value)?, engine.text(&old)?, engine.text(&new)?);
    let count = match count {
        Some(Value::None) => -1,
        other => int_or(other, "replace", -1)?,
    };
    strings::replace(engine, &text, &old, &new, count)
}
