//! The tests of values, which are the part after `is`.

use super::arguments::{Given, required};
use super::ast::{Comparison, Operator};
use super::engine::{Engine, Object};
use super::filters;
use super::text::is_title;
use super::value::Value;
use crate::error::{Result, bail};

/// The names of the tests, as in `value is name`.
const NAMES: [&str; 39] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
];

/// Returns whether a test with this name exists.
pub fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        "==" | "eq" | "equalto" => Comparison::Equal,
        "!=" | "ne" => Comparison::NotEqual,
        ">" | "gt" | "greaterthan" => Comparison::Greater,
        ">=" | "ge" => Comparison::GreaterEqual,
        "<" | "lt" | "lessthan" => Comparison::Less,
        "<=" | "le" => Comparison::LessEqual,
        "in" => Comparison::In,
        _ => return None,
    })
}

/// Returns whether `value is name(...)`. Fails with `InvalidArgument` for values and arguments that Python refuses.
pub fn apply(engine: &mut Engine, name: &str, value: &Value, given: Given) -> Result<bool> {
    if let Some(comparison) = comparison(name) {
        let [other] = given.bind(name, [if name == "in" { "seq" } else { "/b" }])?;
        return engine.holds(comparison, value, &required(other, name, "b")?);
    }
    match name {
        "divisibleby" => {
            let [number] = given.bind(name, ["num"])?;
            return remains(engine, value, &required(number, name, "num")?, 0);
        }
        "sameas" => {
            let [other] = given.bind(name, ["other"])?;
            return same(value, &required(other, name, "other")?);
        }
        _ => given.none(name)?,
    }
    Ok(match name {
        "odd" => remains(engine, value, &Value::Int(2), 1)?,
        "even" => remains(engine, value, &Value::Int(2), 0)?,
        "defined" => !value.is_undefined(),
        "undefined" => value.is_undefined(),
        "filter" => known(value, filters::exists)?,
        "test" => known(value, exists)?,
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "false" => matches!(value, Value::Bool(false)),
        "true" => matches!(value, Value::Bool(true)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "lower" => cased(&engine.text(value)?, char::is_lowercase, char::is_uppercase),
        "upper" => cased(&engine.text(value)?, char::is_uppercase, char::is_lowercase),
        "string" => value.as_text().is_some(),
        "mapping" => matches!(value, Value::Dict(_)),
        "number" => value.as_int().is_some() || matches!(value, Value::Float(_)),
        "sequence" => match value {
            Value::View(..) | Value::Object(_) => false,
            other => engine.length(other).is_some(),
        },
        "iterable" => engine.is_iterable(value),
        "callable" => match value {
            Value::Object(number) => matches!(engine.objects()[*number], Object::Joiner(..) | Object::Loop(_)),
            other => {
                matches!(other, Value::Undefined(_) | Value::Macro(_) | Value::Function(_) | Value::Method(_))
            }
        },
        "escaped" => matches!(value, Value::Markup(_)),
        other => bail!(InvalidModel, "there is no test {other:?}"),
    })
}

/// Returns whether `value % number == rest`.
fn remains(engine: &Engine, value: &Value, number: &Value, rest: i128) -> Result<bool> {
    engine.binary(Operator::Remainder, value, number)?.equals(&Value::Int(rest))
}

fn known(value: &Value, exists: fn(&str) -> bool) -> Result<bool> {
    // Names are looked up in a dict, so a value that cannot be a key is an error.
    value.key()?;
    Ok(value.as_text().is_some_and(exists))
}

/// Returns whether a text has letters of one case and none of the other.
pub fn cased(text: &str, of: fn(char) -> bool, other: fn(char) -> bool) -> bool {
    text.chars().any(of) && !text.chars().any(|c| other(c) || is_title(c))
}

/// Returns whether two values are the same object. Fails with [`crate::error::Kind::Unsupported`] if this depends on
/// CPython.
fn same(a: &Value, b: &Value) -> Result<bool> {
    let small = -5..=256;
    Ok(match (a, b) {
        (Value::None, Value::None) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) if a != b => false,
        (Value::Int(a), Value::Int(_)) if small.contains(a) => true,
        (Value::Object(a), Value::Object(b)) => a == b,
        (Value::Dict(a), Value::Dict(b)) if std::rc::Rc::ptr_eq(a, b) => true,
        (Value::List(a), Value::List(b)) if std::rc::Rc::ptr_eq(a, b) => true,
        _ if a.type_name() != b.type_name() || !a.equals(b)? => false,
        _ => bail!(Unsupported, "the test sameas of two equal values is not supported in chat templates"),
    })
}
