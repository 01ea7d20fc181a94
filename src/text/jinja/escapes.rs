//! Escapes in the strings of a template, like in Python's `unicode-escape`.

use crate::error::{Result, bail};
use std::fmt::Write;

/// Returns the text of a string literal, which is given without its quotes.
///
/// Fails with [`crate::error::Kind::InvalidModel`] for incomplete escapes, and with `Unsupported` for names of
/// characters and for surrogates.
pub fn unescaped(literal: &str) -> Result<String> {
    if !literal.contains('\\') {
        return Ok(literal.to_owned());
    }
    // As in jinja2, non-ASCII characters are first replaced by escapes. A backslash before such a character then
    // escapes the backslash of the replacement.
    let mut ascii = String::new();
    for c in literal.chars() {
        let _ = match u32::from(c) {
            0..0x80 => write!(ascii, "{c}"),
            code @ ..0x100 => write!(ascii, "\\x{code:02x}"),
            code @ ..0x1_0000 => write!(ascii, "\\u{code:04x}"),
            code => write!(ascii, "\\U{code:08x}"),
        };
    }
    let mut out = String::new();
    let mut rest = ascii.as_str();
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(kind) = rest.chars().next() else { bail!(InvalidModel, "a string ends with a backslash") };
        rest = &rest[1..];
        match kind {
            '\n' => {}
            '\\' | '\'' | '"' => out.push(kind),
            'a' => out.push('\x07'),
            'b' => out.push('\x08'),
            'f' => out.push('\x0c'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\x0b'),
            '0'..='7' => {
                let more = rest.bytes().take(2).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
                let digits = format!("{kind}{}", &rest[..more]);
                out.extend(u32::from_str_radix(&digits, 8).ok().and_then(char::from_u32));
                rest = &rest[more..];
            }
            'x' | 'u' | 'U' => {
                let length = if kind == 'x' {
                    2
                } else if kind == 'u' {
                    4
                } else {
                    8
                };
                out.push(character(rest, kind, length)?);
                rest = &rest[length..];
            }
            'N' => bail!(Unsupported, "characters by name (\\N{{...}}) are not supported in chat templates"),
            // Python keeps unknown escapes.
            other => out.extend(['\\', other]),
        }
    }
    Ok(out + rest)
}

/// Returns the character that `length` hexadecimal digits name.
fn character(rest: &str, kind: char, length: usize) -> Result<char> {
    let digits = rest.get(..length).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    match code {
        Some(0xD800..=0xDFFF) => bail!(Unsupported, "the surrogate \\{kind}{} is not supported", &rest[..length]),
        Some(code) => match char::from_u32(code) {
            Some(c) => Ok(c),
            None => bail!(InvalidModel, "there is no character \\{kind}{}", &rest[..length]),
        },
        None => bail!(InvalidModel, "the escape \\{kind} requires {length} hexadecimal digits"),
    }
}
