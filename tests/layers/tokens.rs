//! Rust source as a list of tokens, without comments, the content of strings, and test code.

/// A word, a `::` or a single character of punctuation, and the line it is on.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

impl Token {
    pub fn is(&self, text: &str) -> bool {
        self.text == text
    }

    pub fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// Returns the tokens of `source`. A string or a character becomes the token `"`.
pub fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    while at < chars.len() {
        let start = at;
        let c = chars[at];
        let text = if c.is_whitespace() {
            at += 1;
            None
        } else if chars[at..].starts_with(&['/', '/']) {
            at += chars[at..].iter().position(|c| *c == '\n').unwrap_or(chars.len() - at);
            None
        } else if chars[at..].starts_with(&['/', '*']) {
            at = end_of_comment(&chars, at);
            None
        } else if let Some(end) = end_of_literal(&chars, at) {
            at = end;
            Some("\"".to_owned())
        } else if c.is_alphanumeric() || c == '_' {
            while at < chars.len() && (chars[at].is_alphanumeric() || chars[at] == '_') {
                at += 1;
            }
            Some(chars[start..at].iter().collect())
        } else {
            at += if chars[at..].starts_with(&[':', ':']) { 2 } else { 1 };
            Some(chars[start..at].iter().collect())
        };
        found.extend(text.map(|text| Token { text, line }));
        line += chars[start..at].iter().filter(|c| **c == '\n').count();
    }
    found
}

/// Returns the end of a comment in `/* */`; such comments may be nested.
fn end_of_comment(chars: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < chars.len() {
        if chars[at..].starts_with(&['/', '*']) {
            depth += 1;
            at += 2;
        } else if chars[at..].starts_with(&['*', '/']) {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// Returns the end of the string or the character that starts at `start`; `None` if none starts there.
fn end_of_literal(chars: &[char], start: usize) -> Option<usize> {
    let mut at = start;
    while at < chars.len() && matches!(chars[at], 'b' | 'c' | 'r') && at < start + 2 {
        at += 1;
    }
    let raw = chars[start..at].contains(&'r');
    let hashes = if raw { chars[at..].iter().take_while(|c| **c == '#').count() } else { 0 };
    at += hashes;
    let quote = *chars.get(at)?;
    if quote == '\'' {
        // A lifetime has no quote after its first letter.
        let character = hashes == 0 && (chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\''));
        if !character {
            return None;
        }
    } else if quote != '"' {
        return None;
    }
    at += 1;
    while at < chars.len() {
        if chars[at] == '\\' && !raw {
            at += 2;
        } else if chars[at] == quote && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes {
            return Some(at + 1 + hashes);
        } else {
            at += 1;
        }
    }
    Some(at)
}

/// Returns the tokens without the items under `#[cfg(test)]`.
pub fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if is_attribute(&tokens[at..]) {
            let end = closing(tokens, at + 1) + 1;
            let words: Vec<&str> = tokens[at + 2..end].iter().map(|t| t.text.as_str()).collect();
            if words.starts_with(&["cfg", "(", "test"]) || words.starts_with(&["cfg", "(", "all", "(", "test"]) {
                at = end_of_item(tokens, end);
                continue;
            }
        }
        kept.push(tokens[at].clone());
        at += 1;
    }
    kept
}

fn is_attribute(tokens: &[Token]) -> bool {
    tokens.len() > 2 && tokens[0].is("#") && tokens[1].is("[")
}

/// Returns the end of the item that begins at `at`, after one of its attributes.
fn end_of_item(tokens: &[Token], mut at: usize) -> usize {
    while at < tokens.len() && is_attribute(&tokens[at..]) {
        at = closing(tokens, at + 1) + 1;
    }
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "{" => {
                let end = closing(tokens, at) + 1;
                // `use a::{b, c};` continues after its braces.
                return end + usize::from(tokens.get(end).is_some_and(|t| t.is(";")));
            }
            "(" | "[" => at = closing(tokens, at) + 1,
            // A field or an argument ends with a comma or a bracket.
            ";" | "," => return at + 1,
            ")" | "}" => return at,
            _ => at += 1,
        }
    }
    at
}

/// Returns the index of the bracket that closes the one at `open`.
pub fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len().saturating_sub(1)
}
