//! The texts of values as in Python: `str`, `repr`, and Python's classes of whitespace and letters.

use super::engine::{Engine, Object};
use super::marks::is_mark;
use super::value::{Dict, Value, View};
use crate::error::{Result, bail};
use std::fmt::Write;
use std::rc::Rc;

/// Returns whether `str.strip` and `str.split` treat a character as whitespace.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

impl Engine {
    /// Returns the result of `str(value)`: text unchanged, nothing for undefined values, `repr` for all others. Fails
    /// with `Unsupported` for values that Python writes with a memory address, and with `LimitExceeded` if the text is
    /// too long.
    pub fn text(&self, value: &Value) -> Result<Rc<str>> {
        match value {
            Value::Text(text) | Value::Markup(text) => Ok(text.clone()),
            Value::Undefined(_) => Ok("".into()),
            _ => {
                let mut out = String::new();
                self.write_repr(value, &mut out)?;
                self.spend_bytes(out.len())?;
                Ok(out.into())
            }
        }
    }

    /// Returns the result of `repr(value)` in Python. Fails like [`Engine::text`] with `Unsupported` for values that
    /// Python writes with a memory address.
    pub fn repr(&self, value: &Value) -> Result<String> {
        let mut out = String::new();
        self.write_repr(value, &mut out)?;
        self.spend_bytes(out.len())?;
        Ok(out)
    }

    /// Appends the `repr` of a value to `out`. Fails with [`crate::error::Kind::Unsupported`] for values that Python
    /// writes with a memory address.
    fn write_repr(&self, value: &Value, out: &mut String) -> Result<()> {
        if out.len() > crate::limits::TEXT_BYTES {
            bail!(LimitExceeded, "the template writes more than {} bytes", crate::limits::TEXT_BYTES);
        }
        self.spend(1)?;
        match value {
            Value::Undefined(_) => out.push_str("Undefined"),
            Value::None => out.push_str("None"),
            Value::Bool(value) => out.push_str(if *value { "True" } else { "False" }),
            Value::Int(value) => {
                let _ = write!(out, "{value}");
            }
            Value::Float(value) => out.push_str(&float_text(*value)),
            Value::Text(text) => quoted(text, out),
            Value::Markup(text) => {
                out.push_str("Markup(");
                quoted(text, out);
                out.push(')');
            }
            Value::List(items) => self.write_items(&items.values, ("[", "]"), out)?,
            Value::Tuple(items) if items.values.len() == 1 => self.write_items(&items.values, ("(", ",)"), out)?,
            Value::Tuple(items) => self.write_items(&items.values, ("(", ")"), out)?,
            Value::Dict(dict) => self.write_dict(dict, out)?,
            Value::Range(range) => {
                let _ = write!(out, "range({}, {}", range.start, range.stop);
                let _ = if range.step == 1 { write!(out, ")") } else { write!(out, ", {})", range.step) };
            }
            Value::View(view, dict) => {
                let _ = write!(out, "{}(", value.type_name());
                let of = |(key, value): &(Value, Value)| match view {
                    View::Keys => Ok(key.clone()),
                    View::Values => Ok(value.clone()),
                    View::Items => Value::tuple(vec![key.clone(), value.clone()]),
                };
                let values: Vec<Value> = dict.entries.iter().map(of).collect::<Result<_>>()?;
                self.write_items(&values, ("[", "]"), out)?;
                out.push(')');
            }
            Value::Macro(bound) => {
                out.push_str("<Macro ");
                match bound.definition.name.as_deref() {
                    Some(name) => quoted(name, out),
                    None => out.push_str("anonymous"),
                }
                out.push('>');
            }
            Value::Object(number) => match &self.objects()[*number] {
                Object::Loop(state) => {
                    let _ = write!(out, "<LoopContext {}/{}>", state.at + 1, state.items.len());
                }
                other => bail!(Unsupported, "{} cannot be written as text", other.name()),
            },
            Value::Function(name) => bail!(Unsupported, "the function {name} cannot be written as text"),
            Value::Method(method) => {
                bail!(Unsupported, "the method {} of a {} cannot be written as text", method.1, method.0.type_name())
            }
        }
        Ok(())
    }

    fn write_items(&self, items: &[Value], (open, close): (&str, &str), out: &mut String) -> Result<()> {
        out.push_str(open);
        for (index, item) in items.iter().enumerate() {
            out.push_str(if index > 0 { ", " } else { "" });
            self.write_repr(item, out)?;
        }
        out.push_str(close);
        Ok(())
    }

    fn write_dict(&self, dict: &Dict, out: &mut String) -> Result<()> {
        out.push('{');
        for (index, (key, value)) in dict.entries.iter().enumerate() {
            out.push_str(if index > 0 { ", " } else { "" });
            self.write_repr(key, out)?;
            out.push_str(": ");
            self.write_repr(value, out)?;
        }
        out.push('}');
        Ok(())
    }
}

/// Returns whether Python writes a character unescaped in `repr`: no controls, separators or unassigned characters.
pub fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    // Within a text, `escape_debug` escapes exactly the characters that are not printable; at its beginning it also
    // escapes marks.
    let mut shown = String::from("a");
    shown.push(c);
    shown.escape_debug().nth(1) == Some(c)
}

/// Appends a string to `out`, in the quotes that Python chooses.
pub fn quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c => {
                let _ = match u32::from(c) {
                    code @ ..0x100 => write!(out, "\\x{code:02x}"),
                    code @ ..0x1_0000 => write!(out, "\\u{code:04x}"),
                    code => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

/// Returns `repr` of a float: the shortest digits that are the same number, with an exponent below 1e-4 and from 1e16
/// on.
pub fn float_text(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.into();
    }
    let shortest = format!("{value:e}");
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value == 0.0 || (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// Appends the title-case form of a character to `out`. It is the upper-case form, except for digraphs (U+01C4 to
/// U+01CC, U+01F1 to U+01F3), Greek letters with iota subscript, Georgian letters (unchanged), and characters whose
/// upper-case form is several letters, of which only the first is upper case.
pub fn title_case(c: char, out: &mut String) {
    let code = u32::from(c);
    let shifted = match code {
        0x1C4 | 0x1C7 | 0x1CA | 0x1F1 => Some(code + 1),
        0x1C6 | 0x1C9 | 0x1CC | 0x1F3 => Some(code - 1),
        0x1F80..=0x1F87 | 0x1F90..=0x1F97 | 0x1FA0..=0x1FA7 => Some(code + 8),
        0x1FB3 | 0x1FC3 | 0x1FF3 => Some(code + 9),
        0x10D0..=0x10FA | 0x10FD..=0x10FF => Some(code),
        _ if is_title(c) => Some(code),
        _ => None,
    };
    if let Some(shifted) = shifted.and_then(char::from_u32) {
        out.push(shifted);
        return;
    }
    let mut upper = c.to_uppercase();
    out.extend(upper.next());
    for rest in upper {
        match rest {
            // In U+0149, the apostrophe comes before the letter.
            rest if c == '\u{149}' => out.push(rest),
            '\u{399}' => out.push('\u{345}'),
            rest => out.extend(rest.to_lowercase()),
        }
    }
}

/// Returns whether a character is in title case, which is neither upper nor lower case.
pub fn is_title(c: char) -> bool {
    matches!(u32::from(c), 0x1C5 | 0x1C8 | 0x1CB | 0x1F2 | 0x1F88..=0x1F8F | 0x1F98..=0x1F9F | 0x1FA8..=0x1FAF
        | 0x1FBC | 0x1FCC | 0x1FFC)
}

/// Returns the result of `str.isalpha` for a character: whether it is a letter, not a mark.
pub fn is_alpha(c: char) -> bool {
    c.is_alphabetic() && !is_mark(c)
}

/// Returns the result of `str.isalnum` for a character: whether it is a letter or a number.
pub fn is_alnum(c: char) -> bool {
    is_alpha(c) || c.is_numeric()
}

/// Returns whether a character is a decimal digit, whether it is a digit (including superscripts), and whether it is a
/// number. Fails with `Unsupported` for characters of which that is not known.
pub fn numeric(c: char) -> Result<(bool, bool, bool)> {
    match c {
        '0'..='9' | '\u{660}'..='\u{669}' | '\u{6F0}'..='\u{6F9}' | '\u{966}'..='\u{96F}' | '\u{FF10}'..='\u{FF19}' => {
            Ok((true, true, true))
        }
        '²' | '³' | '¹' | '⁰' | '⁴'..='⁹' | '₀'..='₉' | '①'..='⑨' => Ok((false, true, true)),
        '¼'..='¾' | '⅐'..='ↈ' => Ok((false, false, true)),
        // Ideographs may represent numbers; other characters outside the number categories do not.
        c if !c.is_numeric() && !matches!(u32::from(c), 0x3400..=0x9FFF | 0xF900..=0xFAFF | 0x20000..) => {
            Ok((false, false, false))
        }
        c => bail!(Unsupported, "number tests of the character U+{:04X} are not supported", u32::from(c)),
    }
}
