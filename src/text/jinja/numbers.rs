//! The arithmetic of Python.

use super::ast::Operator;
use super::engine::Engine;
use super::text::is_space;
use super::value::Value;
use crate::error::{Error, Result, bail, error};
use crate::limits;

fn too_large() -> Error {
    error!(Unsupported, "an integer has more than 128 bits")
}

fn no_division() -> Error {
    error!(InvalidArgument, "division by zero")
}

/// Two operands as integers or as floats.
enum Pair {
    Ints(i128, i128),
    Floats(f64, f64),
}

/// Returns `a / b` of integers, rounded once. Fails with [`crate::error::Kind::Unsupported`] for a large divisor.
fn quotient(a: i128, b: i128) -> Result<f64> {
    let (x, y) = (a as f64, b as f64);
    if x as i128 == a && y as i128 == b {
        return Ok(x / y);
    }
    let (n, d) = (a.unsigned_abs(), b.unsigned_abs());
    if d >= 1 << 64 {
        bail!(Unsupported, "dividing by an integer of more than 64 bits is not supported in chat templates");
    }
    // `exact` has at least 63 bits of the quotient; its lowest bit is also set if there is a remainder.
    let shift = n.leading_zeros();
    let shifted = n << shift;
    let exact = (shifted / d) | u128::from(shifted % d != 0);
    let value = exact as f64 * 2f64.powi(-(shift as i32));
    Ok(if (a < 0) != (b < 0) { -value } else { value })
}

fn pair(a: &Value, b: &Value) -> Option<Pair> {
    Some(match (a.as_int(), b.as_int(), a, b) {
        (Some(a), Some(b), ..) => Pair::Ints(a, b),
        (Some(a), None, _, Value::Float(b)) => Pair::Floats(a as f64, *b),
        (None, Some(b), Value::Float(a), _) => Pair::Floats(*a, b as f64),
        (None, None, Value::Float(a), Value::Float(b)) => Pair::Floats(*a, *b),
        _ => return None,
    })
}

impl Engine {
    /// Returns the result of `a operator b` in Python. Fails with `InvalidArgument` where Python raises an error, with
    /// `Unsupported` for what is not implemented, and with `LimitExceeded` if a text becomes too long.
    pub fn binary(&self, operator: Operator, a: &Value, b: &Value) -> Result<Value> {
        if let (Operator::Remainder, Value::Text(format)) = (operator, a) {
            return self.percent(format, b);
        }
        for value in [a, b] {
            if let Value::Undefined(message) = value {
                bail!(InvalidArgument, "{message}");
            }
            if let (Operator::Add, true) = (operator, a.as_text().is_some() && b.as_text().is_some()) {
                continue;
            }
            if matches!(value, Value::Markup(_)) {
                bail!(Unsupported, "arithmetic with text that is marked as safe is not supported in chat templates");
            }
        }
        if let Some(pair) = pair(a, b) {
            return match pair {
                Pair::Ints(a, b) => ints(operator, a, b),
                Pair::Floats(a, b) => floats(operator, a, b),
            };
        }
        match (operator, a, b) {
            (Operator::Add, Value::Text(a), Value::Text(b)) => {
                self.spend_bytes(a.len() + b.len())?;
                Ok(Value::text([&**a, &**b].concat()))
            }
            // Text without the mark is escaped when it is added to safe text.
            (Operator::Add, Value::Markup(_) | Value::Text(_), Value::Markup(_) | Value::Text(_)) => {
                let safe = |value: &Value| match value {
                    Value::Text(text) => super::phrases::escaped(text),
                    other => other.as_text().unwrap_or_default().to_owned(),
                };
                let text = safe(a) + &safe(b);
                self.spend_bytes(text.len())?;
                Ok(Value::Markup(text.into()))
            }
            (Operator::Add, Value::List(a), Value::List(b)) => {
                self.spend((a.values.len() + b.values.len()) as u64)?;
                Value::list([a.values.as_slice(), &b.values].concat())
            }
            (Operator::Add, Value::Tuple(a), Value::Tuple(b)) => {
                self.spend((a.values.len() + b.values.len()) as u64)?;
                Value::tuple([a.values.as_slice(), &b.values].concat())
            }
            (Operator::Multiply, ..) => match (a.as_int(), b.as_int()) {
                (None, Some(times)) => self.repeat(a, times),
                (Some(times), None) => self.repeat(b, times),
                _ => Err(unfit(operator, a, b)),
            },
            _ => Err(unfit(operator, a, b)),
        }
    }

    fn repeat(&self, value: &Value, times: i128) -> Result<Value> {
        let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
        match value {
            Value::Text(text) => {
                if text.len().saturating_mul(times) > limits::TEXT_BYTES {
                    bail!(LimitExceeded, "a text has more than {} bytes", limits::TEXT_BYTES);
                }
                self.spend_bytes(text.len() * times)?;
                Ok(Value::text(text.repeat(times)))
            }
            Value::List(items) | Value::Tuple(items) => {
                self.spend(items.values.len().saturating_mul(times) as u64)?;
                let values: Vec<Value> = (0..times).flat_map(|_| items.values.iter().cloned()).collect();
                if matches!(value, Value::List(_)) { Value::list(values) } else { Value::tuple(values) }
            }
            other => Err(unfit(Operator::Multiply, other, &Value::Int(0))),
        }
    }

    /// Returns the result of `-value` or `+value` in Python. Fails with `InvalidArgument` if the value is not a number,
    /// and with `Unsupported` if the result has more than 128 bits.
    pub fn unary(&self, value: &Value, negative: bool) -> Result<Value> {
        match value {
            Value::Undefined(message) => bail!(InvalidArgument, "{message}"),
            Value::Float(value) => Ok(Value::Float(if negative { -value } else { *value })),
            other => match (other.as_int(), negative) {
                (Some(value), false) => Ok(Value::Int(value)),
                (Some(value), true) => value.checked_neg().map(Value::Int).ok_or_else(too_large),
                _ => bail!(InvalidArgument, "a sign before a {} is not defined", other.type_name()),
            },
        }
    }
}

fn unfit(operator: Operator, a: &Value, b: &Value) -> Error {
    error!(InvalidArgument, "{operator:?} of a {} and a {} is not defined", a.type_name(), b.type_name())
}

fn ints(operator: Operator, a: i128, b: i128) -> Result<Value> {
    let value = match operator {
        Operator::Add => a.checked_add(b),
        Operator::Subtract => a.checked_sub(b),
        Operator::Multiply => a.checked_mul(b),
        Operator::Divide if b == 0 => return Err(no_division()),
        Operator::Divide => return quotient(a, b).map(Value::Float),
        Operator::FloorDivide | Operator::Remainder if b == 0 => return Err(no_division()),
        Operator::FloorDivide => a.checked_div(b).map(|q| if a % b != 0 && (a < 0) != (b < 0) { q - 1 } else { q }),
        Operator::Remainder => a.checked_rem(b).map(|r| if r != 0 && (r < 0) != (b < 0) { r + b } else { r }),
        Operator::Power if b < 0 && a == 0 => return Err(no_division()),
        Operator::Power if b < 0 => return floats(operator, a as f64, b as f64),
        Operator::Power => match a {
            0 | 1 => Some(if b == 0 { 1 } else { a }),
            -1 => Some(if b % 2 == 0 { 1 } else { -1 }),
            _ => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
        },
    };
    value.map(Value::Int).ok_or_else(too_large)
}

fn floats(operator: Operator, a: f64, b: f64) -> Result<Value> {
    let divides = matches!(operator, Operator::Divide | Operator::FloorDivide | Operator::Remainder);
    if divides && b == 0.0 {
        return Err(no_division());
    }
    // As in CPython, the remainder is computed first; it has the sign of the divisor.
    let remainder = || {
        let r = a % b;
        if r == 0.0 {
            0.0f64.copysign(b)
        } else if (r < 0.0) != (b < 0.0) {
            r + b
        } else {
            r
        }
    };
    Ok(Value::Float(match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Divide => a / b,
        Operator::Remainder => remainder(),
        Operator::FloorDivide => {
            let r = a % b;
            let mut quotient = (a - r) / b;
            if r != 0.0 && (r < 0.0) != (b < 0.0) {
                quotient -= 1.0;
            }
            if quotient == 0.0 {
                0.0f64.copysign(a / b)
            } else {
                let floor = quotient.floor();
                if quotient - floor > 0.5 { floor + 1.0 } else { floor }
            }
        }
        Operator::Power if a == 0.0 && b < 0.0 => return Err(no_division()),
        Operator::Power if a < 0.0 && a.is_finite() && b.is_finite() && b.fract() != 0.0 => {
            bail!(Unsupported, "complex numbers are not supported in chat templates")
        }
        Operator::Power => {
            let value = a.powf(b);
            if value.is_infinite() && a.is_finite() && b.is_finite() {
                bail!(InvalidArgument, "the result of ** is too large");
            }
            value
        }
    }))
}

/// Returns the result of `round(value, digits)` in Python: half to even, of the exact value. Fails with
/// `InvalidArgument` if the value is not a number, and with `Unsupported` for a finite float with -308 to -1 digits and
/// for an integer whose result has more than 128 bits.
pub fn round(value: &Value, digits: i128) -> Result<Value> {
    match value {
        Value::Float(float) if !float.is_finite() => Ok(value.clone()),
        Value::Float(float) => {
            // The smallest positive float is above 10^-324.
            if digits > 323 {
                return Ok(value.clone());
            }
            if digits < -308 {
                return Ok(Value::Float(0.0f64.copysign(*float)));
            }
            if digits >= 0 {
                return Ok(Value::Float(fixed(*float, digits as usize).parse().unwrap_or(*float)));
            }
            bail!(Unsupported, "rounding a float to {digits} digits is not supported in chat templates")
        }
        other => match other.as_int() {
            Some(int) if digits >= 0 => Ok(Value::Int(int)),
            Some(int) => {
                let Some(unit) = u32::try_from(digits.unsigned_abs()).ok().and_then(|power| 10i128.checked_pow(power))
                else {
                    return Ok(Value::Int(0));
                };
                let (floor, rest) = (int.div_euclid(unit), int.rem_euclid(unit));
                let up = rest * 2 > unit || (rest * 2 == unit && floor % 2 != 0);
                (floor + i128::from(up)).checked_mul(unit).map(Value::Int).ok_or_else(too_large)
            }
            None => bail!(InvalidArgument, "a {} cannot be rounded", other.type_name()),
        },
    }
}

/// Returns a float with `digits` digits after the point, rounded half to even, like `%.*f` in C.
pub fn fixed(value: f64, digits: usize) -> String {
    // Rust's digits are exact, but some versions of Rust rounded ties away from zero, so ties are handled here.
    let text = format!("{value:.digits$}");
    let exact = format!("{value:.1100}");
    let end = exact.find('.').map_or(exact.len(), |at| at + 1 + digits);
    let (kept, rest) = exact.split_at(end);
    let tie = rest.strip_prefix('5').is_some_and(|rest| rest.bytes().all(|byte| byte == b'0'));
    let even = kept.bytes().rev().find(u8::is_ascii_digit).is_some_and(|digit| (digit - b'0').is_multiple_of(2));
    if tie && even { kept.trim_end_matches('.').to_owned() } else { text }
}

/// Returns the result of `int(text, base)` in Python; `None` if the text is not an integer. Fails with `Unsupported`
/// for digits of other scripts, and for more than 128 bits.
pub fn parse_int(text: &str, base: u32) -> Result<Option<i128>> {
    let text = ascii_digits(text.trim_matches(is_space))?;
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text.as_str()),
    };
    let lower = digits.to_ascii_lowercase();
    let prefix = match base {
        16 => "0x",
        8 => "0o",
        2 => "0b",
        _ => "-",
    };
    let digits = match lower.strip_prefix(prefix) {
        Some(rest) => rest.strip_prefix('_').unwrap_or(rest),
        None => lower.as_str(),
    };
    let grouped = digits.split('_').all(|group| !group.is_empty());
    let plain = digits.replace('_', "");
    if !grouped || plain.is_empty() || !plain.chars().all(|c| c.is_digit(base)) {
        return Ok(None);
    }
    let value = i128::from_str_radix(&plain, base).map_err(|_| too_large())?;
    Ok(Some(if negative { -value } else { value }))
}

/// Returns the result of `float(text)` in Python; `None` if the text is not a number. Fails with `Unsupported` for
/// digits of other scripts.
pub fn parse_float(text: &str) -> Result<Option<f64>> {
    let text = ascii_digits(text.trim_matches(is_space))?;
    let bytes = text.as_bytes();
    let between = |at: usize| {
        let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
        digit(at.checked_sub(1)) && digit(Some(at + 1))
    };
    if !text.match_indices('_').all(|(at, _)| between(at)) {
        return Ok(None);
    }
    Ok(text.replace('_', "").parse().ok())
}

/// Returns a copy of `text`. Fails with `Unsupported` if it has digits of other scripts, which Python accepts.
fn ascii_digits(text: &str) -> Result<String> {
    match text.chars().find(|c| !c.is_ascii() && c.is_numeric()) {
        Some(c) => bail!(Unsupported, "the digit {c:?} is not supported in chat templates"),
        None => Ok(text.to_owned()),
    }
}
