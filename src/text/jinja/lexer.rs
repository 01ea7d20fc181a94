//! The division of a template into tokens: text, and the parts between `{{ }}` and `{% %}`.

use super::escapes::unescaped;
use super::text::is_space;
use crate::error::{Context, Result, bail};

/// A token of a template.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    Text(String),
    BeginWrite,
    EndWrite,
    BeginBlock,
    EndBlock,
    Name(String),
    Int(i128),
    Float(f64),
    String(String),
    Operator(&'static str),
    End,
}

/// The operators, longest first.
const OPERATORS: [&str; 26] = [
    "**", "//", "==", "!=", "<=", ">=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",", ";",
];

/// Returns the tokens of a template with their lines; the last one is [`Token::End`]. Fails with `InvalidModel`, with
/// the line, for invalid syntax.
pub fn tokens(source: &str) -> Result<Vec<(usize, Token)>> {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    let mut lexer = Lexer { source: &source, at: 0, line: 1, line_starts: true, tokens: Vec::new() };
    let result = lexer.root();
    let line = lexer.line;
    result.at(|| format!("line {line}"))?;
    let mut tokens = lexer.tokens;
    tokens.push((line, Token::End));
    Ok(tokens)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: usize,
    /// Whether the last token ended a line.
    line_starts: bool,
    tokens: Vec<(usize, Token)>,
}

/// Returns the `-` or `+` at the beginning of a text, next to a delimiter; `None` if there is none.
fn sign(text: &str) -> Option<char> {
    text.chars().next().filter(|c| matches!(c, '-' | '+'))
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn push(&mut self, token: Token) {
        self.tokens.push((self.line, token));
    }

    /// Advances by `bytes` bytes.
    fn skip(&mut self, bytes: usize) {
        let passed = &self.rest()[..bytes];
        self.line += passed.matches('\n').count();
        if bytes > 0 {
            self.line_starts = passed.ends_with('\n');
        }
        self.at += bytes;
    }

    fn skip_spaces(&mut self) {
        let rest = self.rest();
        self.skip(rest.len() - rest.trim_start_matches(is_space).len());
    }

    /// Adds the text outside of all tags.
    fn root(&mut self) -> Result<()> {
        loop {
            let rest = self.rest();
            let begins = |at: &usize| ["{{", "{%", "{#"].iter().any(|tag| rest[*at..].starts_with(tag));
            let Some(at) = rest.match_indices('{').map(|(at, _)| at).find(begins) else {
                if !rest.is_empty() {
                    self.push(Token::Text(rest.to_owned()));
                    self.skip(rest.len());
                }
                return Ok(());
            };
            let tag = &rest[at..at + 2];
            let mark = sign(&rest[at + 2..]);
            self.text(&rest[..at], mark, tag != "{{");
            self.skip(at + 2);
            if let Some(length) = raw_tag(self.rest()).filter(|_| tag == "{%") {
                self.skip(length);
                self.raw()?;
                continue;
            }
            self.skip(usize::from(mark.is_some()));
            match tag {
                "{#" => self.comment()?,
                "{{" => self.inside(Token::BeginWrite, Token::EndWrite)?,
                _ => self.inside(Token::BeginBlock, Token::EndBlock)?,
            }
        }
    }

    /// Adds the text before a tag, without the whitespace that the tag removes.
    fn text(&mut self, text: &'a str, mark: Option<char>, is_block: bool) {
        let line_start = text.rfind('\n').map_or(0, |at| at + 1);
        let indent = &text[line_start..];
        let kept = match mark {
            Some('-') => text.trim_end_matches(is_space),
            None if is_block && (line_start > 0 || self.line_starts) && indent.chars().all(is_space) => {
                &text[..line_start]
            }
            _ => text,
        };
        if !kept.is_empty() {
            self.push(Token::Text(kept.to_owned()));
        }
    }

    /// If the end of a tag is next, skips it with its sign and the line break after it. Returns whether it was next.
    fn end_tag(&mut self, end: &str) -> bool {
        let rest = self.rest();
        if let Some(after) = rest.strip_prefix('-').and_then(|rest| rest.strip_prefix(end)) {
            self.skip(rest.len() - after.trim_start_matches(is_space).len());
            return true;
        }
        let plus = rest.starts_with('+') && end != "}}" && rest[1..].starts_with(end);
        if !plus && !rest.starts_with(end) {
            return false;
        }
        self.skip(end.len() + usize::from(plus));
        if !plus && end != "}}" && self.rest().starts_with('\n') {
            self.skip(1);
        }
        true
    }

    fn comment(&mut self) -> Result<()> {
        let Some(end) = self.rest().find("#}") else { bail!(InvalidModel, "a comment is not closed") };
        // A `-` or `+` before `#}` is part of the end of the comment.
        let end = end - usize::from(self.rest()[..end].ends_with(['-', '+']));
        self.skip(end);
        self.end_tag("#}");
        Ok(())
    }

    /// Adds the text between the tags `raw` and `endraw`.
    fn raw(&mut self) -> Result<()> {
        let rest = self.rest();
        for (at, _) in rest.match_indices("{%") {
            let mark = sign(&rest[at + 2..]);
            let inside = at + 2 + usize::from(mark.is_some());
            let name = rest[inside..].trim_start_matches(is_space);
            let Some(after) = name.strip_prefix("endraw") else { continue };
            let after = after.trim_start_matches(is_space);
            if !["-%}", "+%}", "%}"].iter().any(|end| after.starts_with(end)) {
                continue;
            }
            self.text(&rest[..at], mark, true);
            self.skip(rest.len() - after.len());
            self.end_tag("%}");
            return Ok(());
        }
        bail!(InvalidModel, "a raw block is not closed")
    }

    /// Adds the tokens between the delimiters of a tag.
    fn inside(&mut self, begin: Token, end: Token) -> Result<()> {
        let delimiter = if end == Token::EndWrite { "}}" } else { "%}" };
        self.push(begin);
        let mut open: Vec<char> = Vec::new();
        loop {
            if open.is_empty() && self.end_tag(delimiter) {
                self.push(end);
                return Ok(());
            }
            self.skip_spaces();
            if open.is_empty() && self.end_tag(delimiter) {
                self.push(end);
                return Ok(());
            }
            let rest = self.rest();
            let Some(first) = rest.chars().next() else { bail!(InvalidModel, "a tag is not closed with {delimiter}") };
            let after_dot = self.source[..self.at].ends_with('.');
            if first.is_ascii_digit() {
                let (token, length) = number(rest, after_dot)?;
                self.push(token);
                self.skip(length);
            } else if first == '_' || first.is_alphanumeric() {
                let length = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
                self.push(Token::Name(rest[..length].to_owned()));
                self.skip(length);
            } else if first == '"' || first == '\'' {
                let length = string_length(rest)?;
                self.push(Token::String(unescaped(&rest[1..length - 1])?));
                self.skip(length);
            } else {
                self.operator(&mut open)?;
            }
        }
    }

    fn operator(&mut self, open: &mut Vec<char>) -> Result<()> {
        let rest = self.rest();
        let Some(operator) = OPERATORS.iter().find(|operator| rest.starts_with(**operator)) else {
            let other = rest.chars().next().unwrap_or_default();
            bail!(InvalidModel, "{other:?} is not expected here");
        };
        match *operator {
            "{" => open.push('}'),
            "(" => open.push(')'),
            "[" => open.push(']'),
            "}" | ")" | "]" if open.pop() != operator.chars().next() => {
                bail!(InvalidModel, "{operator:?} has no matching opening bracket");
            }
            _ => {}
        }
        self.push(Token::Operator(operator));
        self.skip(operator.len());
        Ok(())
    }
}

/// Returns the length of the rest of a `raw` tag, from after its `{%`; `None` for other tags.
fn raw_tag(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    let after = inside.trim_start_matches(is_space).strip_prefix("raw")?.trim_start_matches(is_space);
    let end = match after.strip_prefix("-%}") {
        Some(text) => text.trim_start_matches(is_space),
        None => after.strip_prefix("%}")?,
    };
    Some(rest.len() - end.len())
}

/// Returns the length of a string with its quotes.
fn string_length(rest: &str) -> Result<usize> {
    let quote = rest.chars().next();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if Some(c) == quote {
            return Ok(at + 1);
        }
    }
    bail!(InvalidModel, "a string is not closed")
}

/// Returns the length of the digits at the beginning of a text, with single underscores between them.
fn digits(text: &str, radix: u32) -> usize {
    let mut length = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c.is_digit(radix) {
            length = at + 1;
        } else if c != '_' || at != length || !chars.peek().is_some_and(|(_, next)| next.is_digit(radix)) {
            break;
        }
    }
    length
}

/// Returns the number at the beginning of a text, and its length.
fn number(rest: &str, after_dot: bool) -> Result<(Token, usize)> {
    let whole = digits(rest, 10);
    if !after_dot {
        let fraction = match rest[whole..].strip_prefix('.').map(|rest| digits(rest, 10)) {
            Some(length) if length > 0 => length + 1,
            _ => 0,
        };
        let exponent = exponent(&rest[whole + fraction..]);
        if fraction + exponent > 0 {
            let length = whole + fraction + exponent;
            let text = rest[..length].replace('_', "");
            return match text.parse() {
                Ok(value) => Ok((Token::Float(value), length)),
                Err(_) => bail!(InvalidModel, "{text} is not a number"),
            };
        }
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        let begins = rest.get(..2).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
        // An underscore may follow the prefix.
        let gap = usize::from(begins && rest[2..].starts_with('_'));
        let length = if begins { digits(&rest[2 + gap..], radix) } else { 0 };
        if length > 0 {
            let end = 2 + gap + length;
            return Ok((Token::Int(integer(&rest[2 + gap..end], radix)?), end));
        }
    }
    // Leading zeros are read as a separate number.
    let length =
        if rest.starts_with('0') { rest[..whole].find(|c| c != '0' && c != '_').unwrap_or(whole) } else { whole };
    let length = rest[..length].trim_end_matches('_').len();
    Ok((Token::Int(integer(&rest[..length], 10)?), length))
}

fn integer(text: &str, radix: u32) -> Result<i128> {
    match i128::from_str_radix(&text.replace('_', ""), radix) {
        Ok(value) => Ok(value),
        Err(_) => bail!(Unsupported, "the integer {text} has more than 128 bits"),
    }
}

/// Returns the length of an exponent such as `e+10`; 0 if there is none.
fn exponent(text: &str) -> usize {
    let Some(rest) = text.strip_prefix(['e', 'E']) else { return 0 };
    let signed = usize::from(rest.starts_with(['+', '-']));
    match digits(&rest[signed..], 10) {
        0 => 0,
        length => 1 + signed + length,
    }
}
