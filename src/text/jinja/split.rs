//! The division of texts like `str.split` and `str.splitlines`.

use super::text::is_space;

/// Returns the result of `str.split` or (`right`) `str.rsplit`: the parts at a separator or at whitespace, after at
/// most `most` splits.
pub fn split<'a>(text: &'a str, separator: Option<&str>, most: usize, right: bool) -> Vec<&'a str> {
    let Some(separator) = separator else { return words(text, most, right) };
    let most = most.saturating_add(1);
    if !right {
        return text.splitn(most, separator).collect();
    }
    let mut parts: Vec<&str> = text.rsplitn(most, separator).collect();
    parts.reverse();
    parts
}

fn words(text: &str, most: usize, right: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        rest = if right { rest.trim_end_matches(is_space) } else { rest.trim_start_matches(is_space) };
        if rest.is_empty() {
            break;
        }
        if parts.len() == most {
            // The rest keeps the whitespace at the end from which no words were taken.
            parts.push(if right { rest.trim_end_matches(is_space) } else { rest });
            break;
        }
        let (word, after) = match right {
            false => rest.split_at(rest.find(is_space).unwrap_or(rest.len())),
            true => {
                let last = rest.char_indices().rev().find(|(_, c)| is_space(*c));
                let (before, word) = rest.split_at(last.map_or(0, |(at, c)| at + c.len_utf8()));
                (word, before)
            }
        };
        parts.push(word);
        rest = after;
    }
    if right {
        parts.reverse();
    }
    parts
}

/// Returns the result of `str.splitlines`, with line ends or without.
pub fn lines(text: &str, ends: bool) -> Vec<&str> {
    let ends_line =
        |c: char| matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some((at, c)) = rest.char_indices().find(|(_, c)| ends_line(*c)) else {
            parts.push(rest);
            break;
        };
        let after = at + if rest[at..].starts_with("\r\n") { 2 } else { c.len_utf8() };
        parts.push(&rest[..if ends { after } else { at }]);
        rest = &rest[after..];
    }
    parts
}
