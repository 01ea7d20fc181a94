//! The operator `%` of strings, `'...' % values`.

use super::engine::Engine;
use super::numbers::fixed;
use super::value::Value;
use crate::error::{Result, bail};
use crate::limits;
use std::fmt::Write;

/// The flags, the width and the precision of a conversion.
#[derive(Default, Clone)]
pub struct Layout {
    /// Whether the text is aligned to the left (`-`).
    pub left: bool,
    /// Whether numbers are padded with zeros (`0`).
    pub zeros: bool,
    /// Whether positive numbers have a plus sign (`+`).
    pub plus: bool,
    /// Whether positive numbers have a space in the place of the sign (a space).
    pub space: bool,
    /// Whether the alternate form is used (`#`).
    pub alternate: bool,
    /// Minimum number of characters.
    pub width: usize,
    /// Precision; `None` if none is given.
    pub precision: Option<usize>,
}

/// The values that the conversions of a format have not used yet.
struct Values<'a> {
    rest: std::vec::IntoIter<Value>,
    whole: &'a Value,
}

impl Values<'_> {
    fn next(&mut self) -> Result<Value> {
        match self.rest.next() {
            Some(value) => Ok(value),
            None => bail!(InvalidArgument, "there are not enough values for a format"),
        }
    }
}

impl Engine {
    /// Returns the result of `format % values` in Python. Fails with `InvalidArgument` where Python raises an error,
    /// with `Unsupported` for what is not implemented, and with `LimitExceeded` if the text is too long.
    pub fn percent(&self, format: &str, values: &Value) -> Result<Value> {
        let rest = match values {
            Value::Tuple(items) => items.values.clone(),
            other => vec![other.clone()],
        };
        let mut values = Values { rest: rest.into_iter(), whole: values };
        let mut out = String::new();
        let mut rest = format;
        let mut by_name = false;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            rest = self.conversion(&rest[at + 1..], &mut values, &mut by_name, &mut out)?;
            self.spend_bytes(out.len())?;
        }
        out.push_str(rest);
        // A dict, for example, may have items that the format does not use.
        let may_have_more =
            matches!(values.whole, Value::Dict(_) | Value::List(_) | Value::Range(_) | Value::Undefined(_));
        if !may_have_more && !by_name && values.rest.next().is_some() {
            bail!(InvalidArgument, "not all values of a format are used");
        }
        Ok(Value::text(out))
    }

    /// Writes one conversion after its percent sign, and returns the rest of the format.
    fn conversion<'a>(
        &self,
        text: &'a str,
        values: &mut Values<'_>,
        by_name: &mut bool,
        out: &mut String,
    ) -> Result<&'a str> {
        let mut rest = text;
        let mut named = None;
        if let Some(after) = rest.strip_prefix('(') {
            let Some((name, after)) = balanced(after) else {
                bail!(InvalidArgument, "the key of a format is not closed")
            };
            let Value::Dict(dict) = values.whole else { bail!(InvalidArgument, "a format with keys requires a dict") };
            match dict.get_text(name) {
                Some(value) => named = Some(value.clone()),
                None => bail!(InvalidArgument, "a format refers to the missing key {name:?}"),
            }
            *by_name = true;
            rest = after;
        }
        let mut layout = Layout::default();
        while let Some(flag) = rest.chars().next().filter(|c| "-+ #0".contains(*c)) {
            match flag {
                '-' => layout.left = true,
                '+' => layout.plus = true,
                ' ' => layout.space = true,
                '#' => layout.alternate = true,
                _ => layout.zeros = true,
            }
            rest = &rest[1..];
        }
        let width = size(&mut rest, values)?;
        layout.left |= width < 0;
        layout.width = bounded(width.unsigned_abs())?;
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            layout.precision = Some(bounded(size(&mut rest, values)?.max(0).unsigned_abs())?);
        }
        rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
        let Some(kind) = rest.chars().next() else { bail!(InvalidArgument, "a format ends within a conversion") };
        rest = &rest[kind.len_utf8()..];
        if kind == '%' {
            out.push('%');
            return Ok(rest);
        }
        let value = match named {
            Some(value) => value,
            None => values.next()?,
        };
        out.push_str(&self.converted(kind, &value, &layout)?);
        Ok(rest)
    }

    fn converted(&self, kind: char, value: &Value, layout: &Layout) -> Result<String> {
        match kind {
            's' | 'r' | 'a' => {
                let text = match kind {
                    's' => self.text(value)?.to_string(),
                    'r' => self.repr(value)?,
                    _ => ascii(&self.repr(value)?),
                };
                let kept: String = text.chars().take(layout.precision.unwrap_or(usize::MAX)).collect();
                Ok(padded(&kept, layout))
            }
            'c' => match (value, value.as_int()) {
                (Value::Text(text), _) if text.chars().count() == 1 => Ok(padded(text, layout)),
                (_, Some(code)) => match u32::try_from(code).ok().and_then(char::from_u32) {
                    Some(c) => Ok(padded(&c.to_string(), layout)),
                    None => bail!(InvalidArgument, "%c: {code} is not a character"),
                },
                _ => bail!(InvalidArgument, "%c requires a character, not a {}", value.type_name()),
            },
            'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
                let int = match value {
                    Value::Float(float) if float.is_finite() && float.abs() < 1e38 && !"xXo".contains(kind) => {
                        *float as i128
                    }
                    other => match other.as_int() {
                        Some(int) => int,
                        None => bail!(InvalidArgument, "%{kind} requires a number, not a {}", value.type_name()),
                    },
                };
                let digits = match kind {
                    'x' => format!("{:x}", int.unsigned_abs()),
                    'X' => format!("{:X}", int.unsigned_abs()),
                    'o' => format!("{:o}", int.unsigned_abs()),
                    _ => int.unsigned_abs().to_string(),
                };
                let zeros = layout.precision.unwrap_or(0).saturating_sub(digits.len());
                let prefix = match kind {
                    'x' | 'X' | 'o' if layout.alternate => format!("0{kind}"),
                    _ => String::new(),
                };
                let digits = format!("{}{digits}", "0".repeat(zeros));
                Ok(signed(int < 0, &prefix, &digits, layout))
            }
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
                let float = match value {
                    Value::Float(float) => *float,
                    other => match other.as_int() {
                        Some(int) => int as f64,
                        None => bail!(InvalidArgument, "%{kind} requires a number, not a {}", value.type_name()),
                    },
                };
                if layout.alternate || (!float.is_finite() && layout.zeros) {
                    bail!(Unsupported, "this form of %{kind} is not supported in chat templates");
                }
                let digits = float_as(float.abs(), kind, layout.precision.unwrap_or(6))?;
                Ok(signed(float.is_sign_negative() && !float.is_nan(), "", &digits, layout))
            }
            other => bail!(InvalidArgument, "there is no conversion %{other}"),
        }
    }
}

/// Returns the text before the matching parenthesis, and the text after it; `None` if there is none.
fn balanced(text: &str) -> Option<(&str, &str)> {
    let mut open = 1;
    for (at, c) in text.char_indices() {
        match c {
            '(' => open += 1,
            ')' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some((&text[..at], &text[at + 1..]));
        }
    }
    None
}

/// Returns a width or a precision: digits, or a star for the next value.
fn size(rest: &mut &str, values: &mut Values<'_>) -> Result<i128> {
    if let Some(after) = rest.strip_prefix('*') {
        *rest = after;
        return match values.next()?.as_int() {
            Some(size) => Ok(size),
            None => bail!(InvalidArgument, "* in a format requires an integer"),
        };
    }
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at(end);
    *rest = after;
    if digits.is_empty() { Ok(0) } else { Ok(digits.parse().unwrap_or(i128::MAX)) }
}

/// Returns `size`, which is a width or a precision, as a `usize`. Fails with `LimitExceeded` if it is too large.
pub fn bounded(size: u128) -> Result<usize> {
    match usize::try_from(size).ok().filter(|size| *size <= limits::TEXT_BYTES / 4) {
        Some(size) => Ok(size),
        None => bail!(LimitExceeded, "a format has the width {size}; the limit is {}", limits::TEXT_BYTES / 4),
    }
}

/// Returns text padded with spaces to its width.
pub fn padded(text: &str, layout: &Layout) -> String {
    let spaces = " ".repeat(layout.width.saturating_sub(text.chars().count()));
    if layout.left { text.to_owned() + &spaces } else { spaces + text }
}

/// Returns a number with its sign, padded to its width.
fn signed(negative: bool, prefix: &str, digits: &str, layout: &Layout) -> String {
    let sign = match negative {
        true => "-",
        false if layout.plus => "+",
        false if layout.space => " ",
        false => "",
    };
    let missing = layout.width.saturating_sub(sign.len() + prefix.len() + digits.len());
    if layout.zeros && !layout.left {
        return format!("{sign}{prefix}{}{digits}", "0".repeat(missing));
    }
    padded(&format!("{sign}{prefix}{digits}"), layout)
}

/// Returns a text with all non-ASCII characters escaped: Python's `ascii` of a value, given its `repr`.
pub fn ascii(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let _ = match u32::from(c) {
            ..0x80 => write!(out, "{c}"),
            code @ ..0x100 => write!(out, "\\x{code:02x}"),
            code @ ..0x1_0000 => write!(out, "\\u{code:04x}"),
            code => write!(out, "\\U{code:08x}"),
        };
    }
    out
}

/// Returns a non-negative float in the format `e`, `f` or `g` of C. Fails with `Unsupported` for a precision above
/// 1,000.
pub fn float_as(value: f64, kind: char, precision: usize) -> Result<String> {
    if precision > 1000 {
        bail!(Unsupported, "a format with {precision} digits is not supported in chat templates");
    }
    let text = match kind.to_ascii_lowercase() {
        _ if value.is_nan() => "nan".to_owned(),
        _ if value.is_infinite() => "inf".to_owned(),
        'f' => fixed(value, precision),
        'e' => {
            let (digits, exponent) = digits(value, precision + 1);
            scientific(&digits, exponent)
        }
        _ => {
            let precision = precision.max(1);
            let (digits, exponent) = digits(value, precision);
            if exponent < -4 || exponent >= precision as i32 {
                scientific(digits.trim_end_matches('0'), exponent)
            } else {
                let text = fixed(value, usize::try_from(precision as i32 - 1 - exponent).unwrap_or(0));
                if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
            }
        }
    };
    Ok(if kind.is_ascii_uppercase() { text.to_ascii_uppercase() } else { text })
}

fn scientific(digits: &str, exponent: i32) -> String {
    let (first, rest) = digits.split_at(digits.len().min(1));
    let first = if first.is_empty() { "0" } else { first };
    let point = if rest.is_empty() { "" } else { "." };
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{first}{point}{rest}e{sign}{:02}", exponent.abs())
}

/// Returns `count` digits of a float, rounded half to even, and its exponent.
fn digits(value: f64, count: usize) -> (String, i32) {
    if value == 0.0 {
        return ("0".repeat(count), 0);
    }
    let exact = format!("{value:.1100e}");
    let (mantissa, exponent) = exact.split_once('e').unwrap_or((&exact, "0"));
    let mut exponent: i32 = exponent.parse().unwrap_or(0);
    let all: Vec<u8> = mantissa.bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect();
    let (kept, rest) = all.split_at(count.min(all.len()));
    let mut kept = kept.to_vec();
    let more = rest.iter().skip(1).any(|digit| *digit > 0);
    let odd = kept.last().is_some_and(|digit| digit % 2 == 1);
    if rest.first().is_some_and(|first| *first > 5 || (*first == 5 && (more || odd))) {
        let mut at = kept.len();
        loop {
            match at.checked_sub(1) {
                Some(before) if kept[before] == 9 => {
                    kept[before] = 0;
                    at = before;
                }
                Some(before) => {
                    kept[before] += 1;
                    break;
                }
                None => {
                    kept.insert(0, 1);
                    kept.pop();
                    exponent += 1;
                    break;
                }
            }
        }
    }
    (kept.into_iter().map(|digit| char::from(digit + b'0')).collect(), exponent)
}
