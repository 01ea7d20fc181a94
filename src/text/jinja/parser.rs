//! The parser of templates, with its position in the tokens.

use super::ast::{Node, Uses};
use super::lexer::{Token, tokens};
use crate::error::{Context, Error, Kind, Result, bail};
use crate::limits;

/// The maximum number of operators, attributes and filters between two delimiters.
const LINKS: usize = 4000;

/// Returns the statements of a template's source text.
///
/// Fails with [`crate::error::Kind::InvalidModel`], with the line, for invalid syntax, and with `Unsupported` for
/// features of jinja2 that are not implemented.
pub fn parse(source: &str) -> Result<Vec<Node>> {
    let mut parser = Parser {
        tokens: tokens(source)?,
        at: 0,
        depth: 0,
        links: 0,
        loops: 0,
        soft: false,
        blocks: Vec::new(),
        uses: Uses::default(),
        unknown: Vec::new(),
    };
    let body = parser.body(&[]);
    let line = parser.line();
    let body = body.at(|| format!("line {line}"))?;
    match parser.unknown.into_iter().next() {
        Some((line, what)) => Err(Error::new(Kind::InvalidModel, what)).at(|| format!("line {line}")),
        None => Ok(body),
    }
}

/// The state of the parsing of a template.
pub struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: usize,
    /// Number of parts of the current expression.
    pub links: usize,
    /// Number of enclosing loops that `break` can leave.
    pub loops: usize,
    /// Whether an unknown filter or test is an error only when it is executed: directly inside of `if`.
    pub soft: bool,
    /// Names of the blocks so far.
    pub blocks: Vec<String>,
    /// Names that the current macro uses.
    pub uses: Uses,
    /// Unknown filters and tests, with their lines.
    pub unknown: Vec<(usize, String)>,
}

impl Parser {
    /// Returns the current token; [`Token::End`] at the end of the template.
    pub fn current(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(_, token)| token)
    }

    /// Returns the line of the current token, from 1.
    pub fn line(&self) -> usize {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |(line, _)| *line)
    }

    /// Makes the next token current. The last token stays current.
    pub fn advance(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    /// Returns the current token, and makes the next one current.
    pub fn take(&mut self) -> Token {
        let token = self.current().clone();
        self.advance();
        token
    }

    /// Returns whether the current token is the name `name`.
    pub fn is_name(&self, name: &str) -> bool {
        matches!(self.current(), Token::Name(found) if found == name)
    }

    /// Returns whether the token after the current one is the name `name`.
    pub fn next_is_name(&self, name: &str) -> bool {
        matches!(self.tokens.get(self.at + 1), Some((_, Token::Name(found))) if found == name)
    }

    /// Returns whether the token after the current one is `operator`.
    pub fn next_is_operator(&self, operator: &str) -> bool {
        matches!(self.tokens.get(self.at + 1), Some((_, Token::Operator(found))) if *found == operator)
    }

    /// Returns whether the current token is the name `name`; if so, the next token becomes current.
    pub fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        if found {
            self.advance();
        }
        found
    }

    /// Returns whether the current token is `operator`.
    pub fn is_operator(&self, operator: &str) -> bool {
        matches!(self.current(), Token::Operator(found) if *found == operator)
    }

    /// Returns whether the current token is `operator`; if so, the next token becomes current.
    pub fn skip_operator(&mut self, operator: &str) -> bool {
        let found = self.is_operator(operator);
        if found {
            self.advance();
        }
        found
    }

    /// Makes the token after `operator` current. Fails with `InvalidModel` if the current token is another one.
    pub fn expect(&mut self, operator: &str) -> Result<()> {
        if self.skip_operator(operator) {
            return Ok(());
        }
        let found = self.current().clone();
        bail!(InvalidModel, "{operator:?} is expected, not {}", self.describe(&found))
    }

    /// Returns the name that is the current token, and makes the next token current. Fails with `InvalidModel` if it is
    /// not a name.
    pub fn name(&mut self) -> Result<String> {
        match self.current().clone() {
            Token::Name(name) => {
                self.advance();
                Ok(name)
            }
            other => bail!(InvalidModel, "a name is expected, not {}", self.describe(&other)),
        }
    }

    /// Returns the description of a token for error messages.
    pub fn describe(&self, token: &Token) -> String {
        match token {
            Token::Text(_) => "text".into(),
            Token::BeginWrite => "\"{{\"".into(),
            Token::EndWrite => "\"}}\"".into(),
            Token::BeginBlock => "\"{%\"".into(),
            Token::EndBlock => "\"%}\"".into(),
            Token::Name(name) => format!("{name:?}"),
            Token::Int(value) => value.to_string(),
            Token::Float(value) => value.to_string(),
            Token::String(text) => format!("the string {text:?}"),
            Token::Operator(operator) => format!("{operator:?}"),
            Token::End => "the end of the template".into(),
        }
    }

    /// Reads a nested part one level deeper, and returns it. Fails with `LimitExceeded` if that is too deep.
    pub fn deeper<T>(&mut self, read: impl FnOnce(&mut Parser) -> Result<T>) -> Result<T> {
        if self.depth >= limits::TEMPLATE_DEPTH {
            bail!(LimitExceeded, "the template is nested more than {} deep", limits::TEMPLATE_DEPTH);
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    /// Makes the token after `end` current. Fails with `InvalidModel` if the current token is another one.
    pub fn expect_end(&mut self, end: &Token) -> Result<()> {
        if self.current() == end {
            self.advance();
            return Ok(());
        }
        let found = self.current().clone();
        bail!(InvalidModel, "{} is expected, not {}", self.describe(end), self.describe(&found))
    }

    /// Counts a part that makes an expression deeper without nesting, because it is evaluated recursively. Fails with
    /// `LimitExceeded` above [`LINKS`].
    pub fn link(&mut self) -> Result<()> {
        self.links += 1;
        if self.links > LINKS {
            bail!(LimitExceeded, "an expression has more than {LINKS} parts");
        }
        Ok(())
    }

    /// Records that a filter or test is unknown, unless it is directly inside of an `if`, where it is an error only
    /// when it is executed.
    pub fn missing(&mut self, what: String) {
        if !self.soft {
            self.unknown.push((self.line(), what));
        }
    }
}
