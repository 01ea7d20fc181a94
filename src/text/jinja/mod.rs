//! Jinja as chat templates use it.
//!
//! Templates are written for Python's jinja2 in the setting of the Hugging Face library: its sandbox that changes no
//! value, blocks trimmed, the extensions for `break`, `continue` and `generation`. What is rendered here is what is
//! rendered there, down to Python's spelling of values, its arithmetic and its methods of strings; what cannot be
//! rendered exactly is refused with a message that names it, never rendered otherwise.
//!
//! Templates come from strangers: steps, nesting and output are bounded, and nothing outside the given values is
//! reached.
//!
//! The way of a template: `lexer` makes tokens of it, `parser` with `statements` and `expressions` an `ast`, `engine`
//! with `execute` and `evaluate` runs that. `value` is what is reckoned with; `text`, `numbers`, `iterate` and
//! `attributes` are what Python does with it, `strings`, `format`, `filters`, `checks` (tests) and `functions` what
//! templates call.

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

/// A template, ready to be rendered. Never changes; shared freely between threads.
pub struct Template {
    body: Vec<ast::Node>,
}

impl Template {
    /// Returns the template of a source text, parsed and ready to render.
    ///
    /// [`crate::error::Kind::InvalidModel`] with the line if it is not valid, `Unsupported` for what is not rendered
    /// here.
    pub fn new(source: &str) -> Result<Template> {
        Ok(Template { body: parser::parse(source)? })
    }

    /// The text of the template with these variables; `now` is the time it shows, in UTC, or else the local time.
    ///
    /// [`crate::error::Kind::InvalidArgument`] with the line for what is an error in Python, `Unsupported` for what is
    /// not rendered here, `LimitExceeded` for what takes too many steps or writes too much.
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
