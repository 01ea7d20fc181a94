//! The template language Jinja, for chat templates.
//!
//! Templates are written for Python's jinja2 as the Hugging Face library configures it: an immutable sandbox, trimmed
//! blocks, the extensions for `break`, `continue` and `generation`. The result is identical, including Python's
//! formatting of values, its arithmetic and its string methods; what is not known to be rendered identically is an
//! error that names it.
//!
//! Templates are untrusted: steps, nesting and output are limited, and nothing except the given values and the time is
//! accessible.
//!
//! `lexer` splits a template into tokens, `parser` with `statements` and `expressions` makes an `ast`, and `engine`
//! with `execute` and `evaluate` runs it. `value` has the values; `text`, `numbers`, `iterate` and `attributes` are
//! Python's operations on them. Templates call `functions`, `checks` (tests), `filters` (with `choose`, `phrases` and
//! `json`) and methods (`strings`, `split`, `format` and `fields`), whose parameters `arguments` binds. `escapes` reads
//! string literals, and `marks` lists characters that Python does not count as letters.

mod arguments;
mod ast;
mod attributes;
mod checks;
mod choose;
mod engine;
mod escapes;
mod evaluate;
mod execute;
mod expressions;
mod fields;
mod filters;
mod format;
mod functions;
mod iterate;
mod json;
mod lexer;
mod marks;
mod numbers;
mod parser;
mod phrases;
mod split;
mod statements;
mod strings;
mod text;
mod value;

use crate::error::{Context, Result};
use std::time::SystemTime;
pub use value::Value;

/// A parsed template, which is immutable and can be shared between threads.
pub struct Template {
    body: Vec<ast::Node>,
}

impl Template {
    /// Returns the parsed template of a source text.
    ///
    /// Fails with [`crate::error::Kind::InvalidModel`], with the line, for invalid syntax, and with `Unsupported` for
    /// features that are not implemented.
    pub fn new(source: &str) -> Result<Template> {
        Ok(Template { body: parser::parse(source)? })
    }

    /// Returns the text of the template with these variables. `now` is the time that the template shows, in UTC; `None`
    /// stands for the current local time.
    ///
    /// Fails with [`crate::error::Kind::InvalidArgument`], with the line, where Python raises an exception,
    /// `Unsupported` for features that are not implemented, and `LimitExceeded` for too many steps or too much output.
    pub fn render(
        &self,
        variables: &serde_json::Map<String, serde_json::Value>,
        now: Option<SystemTime>,
    ) -> Result<String> {
        let mut names = Vec::with_capacity(variables.len());
        for (name, value) in variables {
            names.push((name.as_str().into(), Value::from_json(value)?));
        }
        let mut engine = engine::Engine::new(names, now);
        let mut out = String::new();
        let result = engine.run(&self.body, &mut out);
        result.at(|| format!("line {}", engine.line))?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
