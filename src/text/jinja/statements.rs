//! The parsing of statements.

use super::ast::{Expr, For, Kind, Macro, Node, Target, Uses};
use super::lexer::Token;
use super::parser::Parser;
use crate::error::{Result, bail};
use std::sync::Arc;

impl Parser {
    /// Returns the statements up to a tag with one of these names, which is then the current token, or up to the end of
    /// the template. Fails like [`Parser::expression`].
    pub fn body(&mut self, ends: &[&str]) -> Result<Vec<Node>> {
        self.deeper(|parser| {
            let mut nodes = Vec::new();
            loop {
                let line = parser.line();
                parser.links = 0;
                match parser.current().clone() {
                    Token::Text(text) => {
                        parser.advance();
                        nodes.push(Node { line, kind: Kind::Text(text) });
                    }
                    Token::BeginWrite => {
                        parser.advance();
                        let value = parser.tuple(false, true, &[])?;
                        parser.expect_end(&Token::EndWrite)?;
                        nodes.push(Node { line, kind: Kind::Write(value) });
                    }
                    Token::BeginBlock => {
                        parser.advance();
                        if ends.iter().any(|name| parser.is_name(name)) {
                            return Ok(nodes);
                        }
                        parser.statement(line, &mut nodes)?;
                        parser.expect_end(&Token::EndBlock)?;
                    }
                    Token::End if ends.is_empty() => return Ok(nodes),
                    Token::End => {
                        let end = ends.last().copied().unwrap_or_default();
                        bail!(InvalidModel, "the template ends where {end:?} is expected")
                    }
                    other => bail!(InvalidModel, "{} is not expected here", parser.describe(&other)),
                }
            }
        })
    }

    /// Returns the statements of a block, and makes the token after the name of its end tag current.
    fn block(&mut self, end: &str) -> Result<Vec<Node>> {
        self.expect_end(&Token::EndBlock)?;
        let body = self.body(&[end])?;
        self.advance();
        Ok(body)
    }

    /// Reads a part in which an unknown filter or test is an error at once, even inside of an enclosing `if`, and
    /// returns it.
    fn hard<T>(&mut self, read: impl FnOnce(&mut Parser) -> Result<T>) -> Result<T> {
        let soft = std::mem::replace(&mut self.soft, false);
        let read = read(self);
        self.soft = soft;
        read
    }

    /// Returns the body of a macro or block, whose enclosing loops `break` cannot leave.
    fn function(&mut self, end: &str) -> Result<Vec<Node>> {
        let loops = std::mem::replace(&mut self.loops, 0);
        let body = self.hard(|parser| parser.block(end));
        self.loops = loops;
        body
    }

    fn statement(&mut self, line: usize, nodes: &mut Vec<Node>) -> Result<()> {
        let name = self.name()?;
        let kind = match name.as_str() {
            "for" => self.hard(Parser::for_loop)?,
            "if" => self.choice()?,
            "with" => self.hard(Parser::with)?,
            "set" => self.set()?,
            "macro" => self.macro_definition()?,
            "call" => self.call_block()?,
            "filter" => {
                let filter = self.filters(None)?;
                Kind::FilterBlock(filter, self.hard(|parser| parser.block("endfilter"))?)
            }
            "generation" => Kind::Generation(self.function("endgeneration")?),
            "print" => loop {
                nodes.push(Node { line, kind: Kind::Write(self.expression()?) });
                if !self.skip_operator(",") {
                    return Ok(());
                }
            },
            "break" | "continue" if self.loops == 0 => bail!(InvalidModel, "{name} is outside of a loop"),
            "break" => Kind::Break,
            "continue" => Kind::Continue,
            "block" => self.block_definition()?,
            "extends" | "include" | "import" | "from" | "autoescape" => {
                bail!(Unsupported, "the tag {name:?} is not supported in chat templates")
            }
            _ => bail!(InvalidModel, "there is no tag {name:?}"),
        };
        nodes.push(Node { line, kind });
        Ok(())
    }

    /// Returns the statement of a block. No template extends this one, so that the block is written in place.
    fn block_definition(&mut self) -> Result<Kind> {
        let name = self.name()?;
        if self.current() != &Token::EndBlock {
            bail!(Unsupported, "blocks that are scoped or required are not supported in chat templates");
        }
        if self.blocks.contains(&name) {
            bail!(InvalidModel, "the block {name:?} is defined twice");
        }
        self.blocks.push(name.clone());
        let body = self.function("endblock")?;
        if !self.skip_name(&name) && self.current() != &Token::EndBlock {
            bail!(InvalidModel, "the endblock of {name:?} has another name");
        }
        Ok(Kind::Block(body))
    }

    fn for_loop(&mut self) -> Result<Kind> {
        let target = self.target(&["in"])?;
        if !self.skip_name("in") {
            bail!(InvalidModel, "\"in\" is expected after the names of a loop");
        }
        let items = self.tuple(false, false, &["recursive"])?;
        let test = if self.skip_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive");
        self.expect_end(&Token::EndBlock)?;
        self.loops += 1;
        let body = self.body(&["endfor", "else"]);
        self.loops -= 1;
        let body = body?;
        let mut otherwise = Vec::new();
        if self.skip_name("else") {
            otherwise = self.block("endfor")?;
        } else {
            self.advance();
        }
        Ok(Kind::For(Arc::new(For { target, items, test, body, otherwise, recursive })))
    }

    fn choice(&mut self) -> Result<Kind> {
        let soft = std::mem::replace(&mut self.soft, true);
        let mut branches = Vec::new();
        let otherwise = loop {
            let test = self.tuple(false, false, &[])?;
            self.expect_end(&Token::EndBlock)?;
            branches.push((test, self.body(&["elif", "else", "endif"])?));
            if self.skip_name("elif") {
                continue;
            }
            if self.skip_name("else") {
                break self.block("endif")?;
            }
            self.advance();
            break Vec::new();
        };
        self.soft = soft;
        Ok(Kind::If(branches, otherwise))
    }

    fn with(&mut self) -> Result<Kind> {
        let mut pairs = Vec::new();
        while self.current() != &Token::EndBlock {
            if !pairs.is_empty() {
                self.expect(",")?;
            }
            let target = self.target(&[])?;
            self.expect("=")?;
            pairs.push((target, self.expression()?));
        }
        Ok(Kind::With(pairs, self.block("endwith")?))
    }

    fn set(&mut self) -> Result<Kind> {
        let target = self.target(&[])?;
        if self.skip_operator("=") {
            return Ok(Kind::Set(target, self.tuple(false, true, &[])?));
        }
        let filter = if self.is_operator("|") { Some(self.filters(None)?) } else { None };
        Ok(Kind::SetBlock(target, filter, self.hard(|parser| parser.block("endset"))?))
    }

    fn macro_definition(&mut self) -> Result<Kind> {
        let name = self.name()?;
        if ["true", "false", "none", "True", "False", "None"].contains(&name.as_str()) {
            bail!(InvalidModel, "cannot assign to {name}");
        }
        Ok(Kind::Macro(Arc::new(self.signature_and_body(Some(name), "endmacro")?)))
    }

    fn call_block(&mut self) -> Result<Kind> {
        let (parameters, defaults) = if self.is_operator("(") { self.signature()? } else { Default::default() };
        let call = self.expression()?;
        if !matches!(call, Expr::Call(..)) {
            bail!(InvalidModel, "a call is expected after \"call\"");
        }
        let block = self.macro_body(None, (parameters, defaults), "endcall")?;
        Ok(Kind::CallBlock(call, Arc::new(block)))
    }

    fn signature_and_body(&mut self, name: Option<String>, end: &str) -> Result<Macro> {
        let signature = self.signature()?;
        self.macro_body(name, signature, end)
    }

    fn macro_body(
        &mut self,
        name: Option<String>,
        (parameters, defaults): (Vec<String>, Vec<Expr>),
        end: &str,
    ) -> Result<Macro> {
        let around = std::mem::take(&mut self.uses);
        let body = self.function(end)?;
        let mut uses = self.uses;
        self.uses = Uses {
            caller: around.caller | uses.caller,
            varargs: around.varargs | uses.varargs,
            kwargs: around.kwargs | uses.kwargs,
        };
        let declared = |name: &str| parameters.iter().position(|parameter| parameter == name);
        let explicit = declared("caller").filter(|_| uses.caller);
        if explicit.is_some_and(|at| at + defaults.len() < parameters.len()) {
            bail!(InvalidModel, "the parameter \"caller\" of a macro must have a default");
        }
        uses.varargs &= declared("varargs").is_none();
        uses.kwargs &= declared("kwargs").is_none();
        Ok(Macro { name, parameters, defaults, body, uses })
    }

    /// Returns the parameters of a macro, and the default values of the last of them.
    fn signature(&mut self) -> Result<(Vec<String>, Vec<Expr>)> {
        self.expect("(")?;
        let (mut parameters, mut defaults) = (Vec::new(), Vec::new());
        while !self.skip_operator(")") {
            if !parameters.is_empty() {
                self.expect(",")?;
            }
            let name = self.name()?;
            if parameters.contains(&name) {
                bail!(InvalidModel, "the parameter {name:?} is defined twice");
            }
            parameters.push(name);
            if self.skip_operator("=") {
                defaults.push(self.expression()?);
            } else if !defaults.is_empty() {
                bail!(InvalidModel, "a parameter without a default follows one with a default");
            }
        }
        Ok((parameters, defaults))
    }

    /// Returns the target of an assignment, up to one of the names in `ends`.
    fn target(&mut self, ends: &[&str]) -> Result<Target> {
        let mut items = Vec::new();
        let mut comma = false;
        loop {
            let closes = matches!(self.current(), Token::EndBlock | Token::Operator(")"));
            if closes || ends.iter().any(|name| self.is_name(name)) {
                break;
            }
            items.push(self.one_target(ends)?);
            if !self.skip_operator(",") {
                break;
            }
            comma = true;
        }
        match (comma, items.len()) {
            (false, 1) => Ok(items.remove(0)),
            (false, _) => bail!(InvalidModel, "a name is expected to assign to"),
            _ => Ok(Target::Tuple(items)),
        }
    }

    fn one_target(&mut self, ends: &[&str]) -> Result<Target> {
        if self.skip_operator("(") {
            let target = self.deeper(|parser| parser.target(&[]))?;
            self.expect(")")?;
            return Ok(target);
        }
        let name = self.name()?;
        if ["true", "false", "none", "True", "False", "None"].contains(&name.as_str()) {
            bail!(InvalidModel, "cannot assign to {name}");
        }
        let of_loop = !ends.is_empty();
        if of_loop && name == "loop" {
            bail!(InvalidModel, "a loop variable cannot have the name loop");
        }
        // Names of a loop have no attributes.
        if !of_loop && self.skip_operator(".") {
            return Ok(Target::Attribute(name, self.name()?));
        }
        Ok(Target::Name(name))
    }
}
