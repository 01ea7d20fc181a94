//! The parsing of expressions.

use super::ast::{Arguments, Comparison, Const, Expr, Filter, Operator};
use super::lexer::Token;
use super::parser::Parser;
use super::{checks, filters};
use crate::error::{Result, bail};

impl Parser {
    /// Returns the whole expression at the current position, including conditions. Fails with `InvalidModel` for
    /// invalid syntax, with `Unsupported` for what is not implemented, and with `LimitExceeded` if it is nested too
    /// deeply or too long.
    pub fn expression(&mut self) -> Result<Expr> {
        self.deeper(|parser| {
            let mark = parser.unknown.len();
            let mut value = parser.either()?;
            while parser.skip_name("if") {
                parser.link()?;
                let test = parser.either()?;
                let otherwise = if parser.skip_name("else") { Some(parser.expression()?) } else { None };
                // Unknown filters and tests in a conditional are errors only when they are executed.
                parser.unknown.truncate(mark);
                value = Expr::Choice(Box::new((test, value, otherwise)));
            }
            Ok(value)
        })
    }

    /// Returns the expression at the current position, without a conditional (`a if b else c`) at its top level. Fails
    /// like [`Parser::expression`].
    pub fn either(&mut self) -> Result<Expr> {
        let mut left = self.both()?;
        while self.skip_name("or") {
            self.link()?;
            left = Expr::Or(Box::new((left, self.both()?)));
        }
        Ok(left)
    }

    fn both(&mut self) -> Result<Expr> {
        let mut left = self.not()?;
        while self.skip_name("and") {
            self.link()?;
            left = Expr::And(Box::new((left, self.not()?)));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr> {
        if self.skip_name("not") {
            return self.deeper(|parser| Ok(Expr::Not(Box::new(parser.not()?))));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expr> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let comparison = match self.current() {
                Token::Operator("==") => Comparison::Equal,
                Token::Operator("!=") => Comparison::NotEqual,
                Token::Operator("<") => Comparison::Less,
                Token::Operator("<=") => Comparison::LessEqual,
                Token::Operator(">") => Comparison::Greater,
                Token::Operator(">=") => Comparison::GreaterEqual,
                _ if self.is_name("in") => Comparison::In,
                _ if self.is_name("not") && self.next_is_name("in") => {
                    self.advance();
                    Comparison::NotIn
                }
                _ => break,
            };
            self.advance();
            rest.push((comparison, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) })
    }

    fn sum(&mut self) -> Result<Expr> {
        let mut left = self.concat()?;
        loop {
            let operator = match self.current() {
                Token::Operator("+") => Operator::Add,
                Token::Operator("-") => Operator::Subtract,
                _ => return Ok(left),
            };
            self.advance();
            self.link()?;
            left = Expr::Binary(operator, Box::new((left, self.concat()?)));
        }
    }

    fn concat(&mut self) -> Result<Expr> {
        let first = self.product()?;
        if !self.is_operator("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_operator("~") {
            parts.push(self.product()?);
        }
        Ok(Expr::Concat(parts))
    }

    fn product(&mut self) -> Result<Expr> {
        let mut left = self.power()?;
        loop {
            let operator = match self.current() {
                Token::Operator("*") => Operator::Multiply,
                Token::Operator("/") => Operator::Divide,
                Token::Operator("//") => Operator::FloorDivide,
                Token::Operator("%") => Operator::Remainder,
                _ => return Ok(left),
            };
            self.advance();
            self.link()?;
            left = Expr::Binary(operator, Box::new((left, self.power()?)));
        }
    }

    /// Returns the power at the current position. Powers are left-associative here, unlike in Python.
    fn power(&mut self) -> Result<Expr> {
        let mut left = self.unary(true)?;
        while self.skip_operator("**") {
            self.link()?;
            left = Expr::Binary(Operator::Power, Box::new((left, self.unary(true)?)));
        }
        Ok(left)
    }

    fn unary(&mut self, filtered: bool) -> Result<Expr> {
        let mut value = if self.skip_operator("-") {
            Expr::Negative(Box::new(self.deeper(|parser| parser.unary(false))?))
        } else if self.skip_operator("+") {
            Expr::Positive(Box::new(self.deeper(|parser| parser.unary(false))?))
        } else {
            self.primary()?
        };
        value = self.postfix(value)?;
        if filtered { self.filtered(value) } else { Ok(value) }
    }

    /// Returns the name, literal or parenthesized expression at the current position. Fails like
    /// [`Parser::expression`].
    pub fn primary(&mut self) -> Result<Expr> {
        let token = self.current().clone();
        match token {
            Token::Name(name) => {
                self.advance();
                Ok(match name.as_str() {
                    "true" | "True" => Expr::Const(Const::Bool(true)),
                    "false" | "False" => Expr::Const(Const::Bool(false)),
                    "none" | "None" => Expr::Const(Const::None),
                    "self" => bail!(Unsupported, "the name self is not supported in chat templates"),
                    _ => {
                        self.uses.caller |= name == "caller";
                        self.uses.varargs |= name == "varargs";
                        self.uses.kwargs |= name == "kwargs";
                        Expr::Name(name)
                    }
                })
            }
            Token::String(first) => {
                self.advance();
                let mut text = first;
                while let Token::String(more) = self.current() {
                    text.push_str(more);
                    self.advance();
                }
                Ok(Expr::Const(Const::Text(text)))
            }
            Token::Int(value) => {
                self.advance();
                Ok(Expr::Const(Const::Int(value)))
            }
            Token::Float(value) => {
                self.advance();
                Ok(Expr::Const(Const::Float(value)))
            }
            Token::Operator("(") => {
                self.advance();
                let value = self.tuple(true, true, &[])?;
                self.expect(")")?;
                Ok(value)
            }
            Token::Operator("[") => self.list(),
            Token::Operator("{") => self.dict(),
            other => bail!(InvalidModel, "an expression is expected, not {}", self.describe(&other)),
        }
    }

    /// Returns the values separated by commas at the current position as a tuple, or a single one. Without
    /// `parentheses`, at least one value is required, and the list ends before any of the names in `ends`. `choices`
    /// says whether a value may be a conditional, `a if b else c`. Fails like [`Parser::expression`].
    pub fn tuple(&mut self, parentheses: bool, choices: bool, ends: &[&str]) -> Result<Expr> {
        let mut items = Vec::new();
        let mut comma = false;
        loop {
            let closes = matches!(self.current(), Token::EndWrite | Token::EndBlock | Token::Operator(")"));
            if closes || ends.iter().any(|name| self.is_name(name)) {
                break;
            }
            items.push(if choices { self.expression()? } else { self.either()? });
            if !self.skip_operator(",") {
                break;
            }
            comma = true;
        }
        match (comma, items.pop()) {
            (false, Some(only)) => Ok(only),
            (false, None) if !parentheses => {
                let found = self.current().clone();
                bail!(InvalidModel, "an expression is expected, not {}", self.describe(&found))
            }
            (_, last) => Ok(Expr::Tuple(items.into_iter().chain(last).collect())),
        }
    }

    fn list(&mut self) -> Result<Expr> {
        self.expect("[")?;
        let mut items = Vec::new();
        while !self.skip_operator("]") {
            if !items.is_empty() {
                self.expect(",")?;
                if self.skip_operator("]") {
                    break;
                }
            }
            items.push(self.expression()?);
        }
        Ok(Expr::List(items))
    }

    fn dict(&mut self) -> Result<Expr> {
        self.expect("{")?;
        let mut items = Vec::new();
        while !self.skip_operator("}") {
            if !items.is_empty() {
                self.expect(",")?;
                if self.skip_operator("}") {
                    break;
                }
            }
            let key = self.expression()?;
            self.expect(":")?;
            items.push((key, self.expression()?));
        }
        Ok(Expr::Dict(items))
    }

    fn postfix(&mut self, mut value: Expr) -> Result<Expr> {
        loop {
            self.link()?;
            value = match self.current() {
                Token::Operator(".") => {
                    self.advance();
                    match self.take() {
                        Token::Name(name) => Expr::Attribute(Box::new(value), name),
                        Token::Int(index) => Expr::Item(Box::new(value), Box::new(Expr::Const(Const::Int(index)))),
                        other => bail!(InvalidModel, "a name is expected after the dot, not {}", self.describe(&other)),
                    }
                }
                Token::Operator("[") => {
                    self.advance();
                    self.subscript(value)?
                }
                Token::Operator("(") => Expr::Call(Box::new(value), self.arguments()?),
                _ => return Ok(value),
            };
        }
    }

    fn subscript(&mut self, value: Expr) -> Result<Expr> {
        let mut indices = Vec::new();
        while !self.skip_operator("]") {
            if !indices.is_empty() {
                self.expect(",")?;
            }
            let begin = if self.is_operator(":") { None } else { Some(self.expression()?) };
            if !self.skip_operator(":") {
                indices.extend(begin);
                continue;
            }
            let bound = |parser: &mut Parser| -> Result<Option<Expr>> {
                let none = [":", "]", ","].iter().any(|end| parser.is_operator(end));
                if none { Ok(None) } else { parser.expression().map(Some) }
            };
            let end = bound(self)?;
            let step = if self.skip_operator(":") { bound(self)? } else { None };
            if !indices.is_empty() || !self.skip_operator("]") {
                bail!(Unsupported, "a slice beside other subscripts is not supported in chat templates");
            }
            return Ok(Expr::Slice(Box::new(value), Box::new([begin, end, step])));
        }
        let index = if indices.len() == 1 { indices.remove(0) } else { Expr::Tuple(indices) };
        Ok(Expr::Item(Box::new(value), Box::new(index)))
    }

    /// Returns the parenthesized arguments of a call. Fails like [`Parser::expression`].
    pub fn arguments(&mut self) -> Result<Arguments> {
        self.expect("(")?;
        let mut arguments = Arguments::default();
        let mut first = true;
        while !self.skip_operator(")") {
            if !first {
                self.expect(",")?;
                if self.skip_operator(")") {
                    break;
                }
            }
            first = false;
            let (starred, double) = (arguments.more.is_some(), arguments.more_named.is_some());
            let misplaced = if self.skip_operator("*") {
                arguments.more = Some(Box::new(self.expression()?));
                starred || double
            } else if self.skip_operator("**") {
                arguments.more_named = Some(Box::new(self.expression()?));
                double
            } else if let (Token::Name(name), true) = (self.current().clone(), self.next_is_operator("=")) {
                self.advance();
                self.advance();
                arguments.named.push((name, self.expression()?));
                double
            } else {
                arguments.positional.push(self.expression()?);
                starred || double || !arguments.named.is_empty()
            };
            if misplaced {
                bail!(InvalidModel, "the arguments of a call are in the wrong order");
            }
        }
        Ok(arguments)
    }

    /// Returns a value with the filters, tests and calls after it.
    fn filtered(&mut self, mut value: Expr) -> Result<Expr> {
        loop {
            self.link()?;
            value = match self.current() {
                Token::Operator("|") => self.filters(Some(value))?,
                Token::Operator("(") => Expr::Call(Box::new(value), self.arguments()?),
                _ if self.is_name("is") => self.test(value)?,
                _ => return Ok(value),
            };
        }
    }

    /// Returns the filters `|name(...)|name(...)`, applied to `input`. For a block, the first filter has no bar. Fails
    /// like [`Parser::expression`].
    pub fn filters(&mut self, input: Option<Expr>) -> Result<Expr> {
        let mut begins = input.is_none() && !self.is_operator("|");
        let mut value = input;
        while self.skip_operator("|") || std::mem::take(&mut begins) {
            self.link()?;
            let name = self.dotted_name()?;
            if !filters::exists(&name) {
                self.missing(format!("there is no filter {name:?}"));
            }
            let arguments = if self.is_operator("(") { self.arguments()? } else { Arguments::default() };
            value = Some(Expr::Filter(Box::new(Filter { input: value, name, arguments })));
        }
        match value {
            Some(value) => Ok(value),
            None => bail!(InvalidModel, "a filter is expected"),
        }
    }

    fn test(&mut self, input: Expr) -> Result<Expr> {
        self.advance();
        let negated = self.skip_name("not");
        let name = self.dotted_name()?;
        if !checks::exists(&name) {
            self.missing(format!("there is no test {name:?}"));
        }
        let begins = matches!(
            self.current(),
            Token::Name(_) | Token::String(_) | Token::Int(_) | Token::Float(_) | Token::Operator("[" | "{")
        );
        let arguments = if self.is_operator("(") {
            self.arguments()?
        } else if begins && !["else", "or", "and"].iter().any(|name| self.is_name(name)) {
            if self.is_name("is") {
                bail!(InvalidModel, "tests cannot follow each other");
            }
            let value = self.primary()?;
            Arguments { positional: vec![self.postfix(value)?], ..Arguments::default() }
        } else {
            Arguments::default()
        };
        let test = Expr::Test(Box::new(Filter { input: Some(input), name, arguments }));
        Ok(if negated { Expr::Not(Box::new(test)) } else { test })
    }

    fn dotted_name(&mut self) -> Result<String> {
        let mut name = self.name()?;
        while self.skip_operator(".") {
            name = format!("{name}.{}", self.name()?);
        }
        Ok(name)
    }
}
