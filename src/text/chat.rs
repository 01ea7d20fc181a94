//! Chat templates: how a model wants a conversation to be written down.
//!
//! Templates are Jinja, written for Python's jinja2 in the setting of the Hugging Face library; they are rendered
//! here as there: blocks trimmed, Python's methods on strings and its spelling of values, JSON as `json.dumps`
//! writes it, `raise_exception` and `strftime_now`. Templates come from strangers: steps, nesting and output are
//! bounded, and nothing outside the given values can be reached.
//!
//! ```
//! use optimize::text::chat::{ChatOptions, ChatTemplate, message};
//!
//! let source = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}";
//! let template = ChatTemplate::new(source)?;
//! let text = template.render(&[message("user", "Hello")], &ChatOptions::default())?;
//! assert_eq!(text, "<|user|>Hello</s>");
//! # Ok::<(), optimize::error::Error>(())
//! ```

mod date;
mod python;

use super::Tokenizer;
use crate::error::{Context, Error, Kind, Result, bail, error};
use crate::limits;
use crate::model::Model;
use minijinja::{Environment, ErrorKind};
use serde_json::{Map, Value};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

/// Name of the template in its environment; never shown.
const NAME: &str = "chat";
/// Marks the error for too much output.
const TOO_LONG: &str = "output";
/// Where special tokens have their names.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// A chat template, compiled. Never changes; shared freely between threads.
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token`, `eos_token` …: variables of every rendering.
    tokens: Map<String, Value>,
}

/// What a conversation is rendered with besides its messages. `Default` is what a program wants that goes on to
/// generate the answer.
#[derive(Debug, Clone)]
pub struct ChatOptions {
    /// End with what comes before the model's answer.
    pub add_generation_prompt: bool,
    /// Functions the model may call, as JSON schemas; `None` for none.
    pub tools: Option<Vec<Value>>,
    /// More variables, such as `enable_thinking`; they go before all others.
    pub variables: Map<String, Value>,
    /// The time that templates with a date show, in UTC; `None` is now.
    pub now: Option<SystemTime>,
}

impl Default for ChatOptions {
    fn default() -> Self {
        ChatOptions { add_generation_prompt: true, tools: None, variables: Map::new(), now: None }
    }
}

/// A message of a conversation: `role` is `system`, `user`, `assistant` or `tool`.
pub fn message(role: &str, content: &str) -> Value {
    serde_json::json!({ "role": role, "content": content })
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// [`Kind::InvalidModel`] with the line if it is not valid Jinja, [`Kind::LimitExceeded`] above
    /// [`limits::TEMPLATE_BYTES`].
    pub fn new(source: &str) -> Result<ChatTemplate> {
        if source.len() > limits::TEMPLATE_BYTES {
            bail!(LimitExceeded, "the template has {} bytes; the limit is {}", source.len(), limits::TEMPLATE_BYTES);
        }
        let mut environment = environment();
        let added = environment.add_template_owned(NAME, without_generation_blocks(source));
        added.map_err(|e| explain(&e)).at(|| "chat template")?;
        Ok(ChatTemplate { environment, tokens: Map::new() })
    }

    /// The template of a model, with the names of its special tokens; `None` if it has no template.
    pub fn of(model: &Model, tokenizer: Option<&Tokenizer>) -> Result<Option<ChatTemplate>> {
        let Some(source) = &model.card().chat_template else { return Ok(None) };
        let mut template = ChatTemplate::new(source)?;
        let generation = &model.card().generation;
        let ids = [("bos_token", generation.bos_token_id), ("eos_token", generation.eos_token_ids.first().copied())];
        for (name, id) in ids {
            let token = tokenizer.zip(id).and_then(|(tokenizer, id)| tokenizer.token(id));
            template.tokens.insert(name.to_owned(), token.unwrap_or_default().into());
        }
        if let Some(content) = model.card().side_file(TOKENIZER_CONFIG) {
            let config: Value = serde_json::from_slice(&content.read()?)
                .map_err(|e| error!(InvalidModel, "{TOKENIZER_CONFIG}: {e}"))?;
            template.tokens.extend(special_tokens(&config));
        }
        Ok(Some(template))
    }

    /// Gives a special token its text: `bos_token`, `eos_token` …
    pub fn with_token(mut self, name: &str, text: &str) -> ChatTemplate {
        self.tokens.insert(name.to_owned(), text.into());
        self
    }

    /// The conversation as the text that the model is to be given. It has the model's special tokens in it already:
    /// encode it without adding any.
    ///
    /// [`Kind::InvalidArgument`] with the line if the template refuses the messages or cannot do with them;
    /// [`Kind::LimitExceeded`] if it does not come to an end in [`limits::TEMPLATE_STEPS`] steps, or writes more
    /// than [`limits::TEXT_BYTES`].
    pub fn render(&self, messages: &[Value], options: &ChatOptions) -> Result<String> {
        let mut variables = self.tokens.clone();
        variables.insert("messages".into(), messages.into());
        variables.insert("tools".into(), options.tools.clone().into());
        variables.insert("documents".into(), Value::Null);
        variables.insert("add_generation_prompt".into(), options.add_generation_prompt.into());
        variables.extend(options.variables.clone());
        let mut context = minijinja::Value::from_serialize(&variables);
        if let Some(now) = options.now {
            let fixed = minijinja::Value::from_function(move |format: &str| date::format(now, format));
            context = minijinja::context! { strftime_now => fixed, ..context };
        }
        // A copy, for a count of its own: compiled templates are shared, not copied.
        let mut environment = self.environment.clone();
        count_output(&mut environment);
        let template = environment.get_template(NAME).map_err(|e| explain(&e))?;
        // The engine is known to panic on some templates: `[][::-1]`.
        let rendered = catch_unwind(AssertUnwindSafe(|| template.render(context).map_err(|e| explain(&e))));
        let failed = |_| Err(error!(InvalidArgument, "the template cannot be rendered: the engine failed"));
        rendered.unwrap_or_else(failed).at(|| "chat template")
    }
}

/// Jinja as chat templates expect it.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(limits::TEMPLATE_STEPS));
    environment.set_recursion_limit(limits::TEMPLATE_DEPTH);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", python::to_json);
    environment.add_filter("string", |value: minijinja::Value| {
        let mut text = String::new();
        python::text(&value, &mut text).map(|()| text)
    });
    environment.add_function("raise_exception", |message: String| -> std::result::Result<String, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", |format: &str| date::format(SystemTime::now(), format));
    environment
}

/// Writes values as Python does, and only so many bytes. Captured blocks are counted too: a template cannot double
/// its text without bound.
fn count_output(environment: &mut Environment<'_>) {
    let written = AtomicUsize::new(0);
    environment.set_formatter(move |out, _, value| {
        let mut text = String::new();
        python::text(value, &mut text)?;
        if written.fetch_add(text.len(), Ordering::Relaxed) > limits::TEXT_BYTES {
            return Err(minijinja::Error::new(ErrorKind::OutOfFuel, TOO_LONG));
        }
        out.write_str(&text).map_err(|e| minijinja::Error::new(ErrorKind::WriteFailure, e.to_string()))
    });
}

/// Takes out `{% generation %}` and its end: they mark what a model is trained on and write nothing.
fn without_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(end) = rest[start..].find("%}").map(|end| start + end + 2) else { break };
        let (before, tag) = (&rest[..start], &rest[start..end]);
        out.push_str(before);
        match tag[2..tag.len() - 2].trim_matches(['-', '+']).trim() {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = &rest[end..];
    }
    out + rest
}

/// `bos_token`, `eos_token` …: texts of a tokenizer's configuration, plain or with `content` inside.
fn special_tokens(config: &Value) -> Map<String, Value> {
    let entries = config.as_object().into_iter().flatten().filter(|(key, _)| key.ends_with("_token"));
    let text = |value: &Value| value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned);
    entries.filter_map(|(key, value)| Some((key.clone(), text(value)?.into()))).collect()
}

/// An error of the template engine as one of ours, with the line.
fn explain(e: &minijinja::Error) -> Error {
    let kind = match e.kind() {
        ErrorKind::SyntaxError | ErrorKind::UnknownFilter | ErrorKind::UnknownTest => Kind::InvalidModel,
        ErrorKind::OutOfFuel => Kind::LimitExceeded,
        _ => Kind::InvalidArgument,
    };
    let detail = e.detail().map_or_else(|| e.kind().to_string(), str::to_owned);
    let detail = match e.kind() {
        ErrorKind::OutOfFuel if e.detail() == Some(TOO_LONG) => {
            format!("writes more than {} bytes", limits::TEXT_BYTES)
        }
        ErrorKind::OutOfFuel => format!("does not come to an end within {} steps", limits::TEMPLATE_STEPS),
        ErrorKind::UndefinedError if e.detail().is_none() => "uses a value that is not defined".to_owned(),
        _ => detail,
    };
    match e.line() {
        Some(line) => Error::new(kind, detail).at(format_args!("line {line}")),
        None => Error::new(kind, detail),
    }
}

#[cfg(test)]
mod tests;
