//! Chat templates: the text format that a model requires for a conversation.
//!
//! Templates are written for Python's jinja2 as the Hugging Face Transformers library configures it, and the text that
//! is rendered here is the same. That includes trimmed blocks, the formatting, methods and arithmetic of Python's
//! values, JSON as of `json.dumps`, and the functions `raise_exception` and `strftime_now` (by default the local time).
//! A feature that is not known to give the same text is an error that names it. Templates are untrusted: their steps,
//! nesting and output are limited, and they can only read the given values and the time.
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

pub(super) mod date;
mod tokens;

use super::Tokenizer;
use super::jinja::Template;
use crate::error::{Context, Result, bail, error};
use crate::limits;
use crate::model::Model;
use serde_json::{Map, Value};
use std::time::SystemTime;

/// The name of the file with the texts of special tokens and, in some models, the templates.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
/// The name of the template for conversations with tools, in a list of templates.
const WITH_TOOLS: &str = "tool_use";
/// The files of templates, whose existence makes those in `tokenizer_config.json` irrelevant.
const FILES: [&str; 2] = ["chat_template.jinja", "additional_chat_templates/default.jinja"];
const FILE_WITH_TOOLS: &str = "additional_chat_templates/tool_use.jinja";
/// The keys for a message's reasoning, the usual one first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A compiled chat template, which is immutable and can be shared between threads.
pub struct ChatTemplate {
    /// Template for conversations; `None` if there is only one for those with tools.
    template: Option<Template>,
    /// Template for conversations with tools, if it is a different one.
    with_tools: Option<Template>,
    /// Variables of every rendering: the texts of special tokens, such as `bos_token` and `eos_token`.
    tokens: Map<String, Value>,
}

/// Options for rendering a conversation. The defaults are right for generating the answer next.
#[derive(Debug, Clone)]
pub struct ChatOptions {
    /// Whether the text ends with the prefix of the model's answer. Default: true.
    pub add_generation_prompt: bool,
    /// Functions that the model may call, as JSON schemas; `None` for none.
    pub tools: Option<Vec<Value>>,
    /// Additional variables of the template, such as `enable_thinking`; they override all others, also `messages`.
    pub variables: Map<String, Value>,
    /// Time that templates with a date show, in UTC; `None` for now, in the machine's local time (like the Hugging Face
    /// library).
    pub now: Option<SystemTime>,
}

impl Default for ChatOptions {
    fn default() -> Self {
        ChatOptions { add_generation_prompt: true, tools: None, variables: Map::new(), now: None }
    }
}

/// Returns a message of a conversation. `role` is one that the template knows: usually `system`, `user`, `assistant` or
/// `tool`.
pub fn message(role: &str, content: &str) -> Value {
    serde_json::json!({ "role": role, "content": content })
}

impl ChatTemplate {
    /// Compiles a template and returns it.
    ///
    /// Fails with [`crate::error::Kind::InvalidModel`], with the line, for invalid Jinja, `Unsupported` for features
    /// that are not implemented, and `LimitExceeded` above [`limits::TEMPLATE_BYTES`].
    pub fn new(source: &str) -> Result<ChatTemplate> {
        Ok(ChatTemplate { template: Some(compiled(source)?), with_tools: None, tokens: Map::new() })
    }

    /// Returns the template of a model, with the texts of its special tokens; `None` if the model has no template.
    /// Conversations with tools use the template `tool_use`, if the model has one of that name, in
    /// `additional_chat_templates` or in the list of `tokenizer_config.json`.
    ///
    /// The special tokens are those of `tokenizer_config.json` and of `special_tokens_map.json` in older folders: one
    /// that is null there is not defined in the template. Tokens that neither defines are those of the tokenizer's
    /// class or, if the class is unknown, those of the ids in the model's configuration; `tokenizer` converts the ids.
    ///
    /// Fails with `InvalidModel` if a file is damaged, or if of several templates none is named `default` or
    /// `tool_use`, and otherwise like [`ChatTemplate::new`].
    pub fn of(model: &Model, tokenizer: Option<&Tokenizer>) -> Result<Option<ChatTemplate>> {
        let read = |name: &str| -> Result<Option<Map<String, Value>>> {
            let Some(content) = model.card().side_file(name) else { return Ok(None) };
            let parsed = serde_json::from_slice(&content.read()?);
            parsed.map(Some).map_err(|e| error!(InvalidModel, "{name}: {e}"))
        };
        let config = read(TOKENIZER_CONFIG)?;
        let (default, with_tools) = (&model.card().chat_template, with_tools(model, config.as_ref())?);
        if default.is_none() && with_tools.is_none() {
            return none_named_default(config.as_ref()).map(|()| None);
        }
        let template = default.as_deref().map(compiled).transpose()?;
        let with_tools = with_tools.as_deref().map(compiled).transpose()?;
        let mut template = ChatTemplate { template, with_tools, tokens: Map::new() };
        let generation = &model.card().generation;
        let text = |id: Option<i64>| tokenizer.zip(id).and_then(|(tokenizer, id)| tokenizer.token(id));
        let by_id = [
            ("bos_token", text(generation.bos_token_id)),
            ("eos_token", text(generation.eos_token_ids.first().copied())),
        ];
        template.tokens = tokens::named(config.as_ref(), read(SPECIAL_TOKENS_MAP)?.as_ref(), by_id);
        Ok(Some(template))
    }

    /// Returns the template with the text `text` for a special token, such as `bos_token` or `eos_token`.
    pub fn with_token(mut self, name: &str, text: &str) -> ChatTemplate {
        self.tokens.insert(name.to_owned(), text.into());
        self
    }

    /// Returns the conversation as text for the model. It already contains the special tokens that the template writes:
    /// encode it without adding any.
    ///
    /// Keys of a message that are null are omitted, like in the Hugging Face library. A message's reasoning (its
    /// `reasoning_content`, `thinking` or `reasoning`) is passed under both of the first two keys. Fails with
    /// [`crate::error::Kind::InvalidArgument`] if a message is not a JSON object, if there are no tools and the model
    /// has a template only for tools, or, with the line, if the template rejects the messages or fails on them;
    /// `Unsupported` for features that are not implemented; `LimitExceeded` above [`limits::TEMPLATE_STEPS`] steps or
    /// [`limits::TEXT_BYTES`] of output.
    pub fn render(&self, messages: &[Value], options: &ChatOptions) -> Result<String> {
        let messages: Vec<Value> = messages.iter().enumerate().map(seen).collect::<Result<_>>()?;
        let mut variables = self.tokens.clone();
        variables.insert("messages".into(), messages.into());
        variables.insert("tools".into(), options.tools.clone().into());
        variables.insert("documents".into(), Value::Null);
        variables.insert("add_generation_prompt".into(), options.add_generation_prompt.into());
        variables.extend(options.variables.clone());
        let with_tools = self.with_tools.as_ref().filter(|_| options.tools.is_some());
        let Some(template) = with_tools.or(self.template.as_ref()) else {
            bail!(InvalidArgument, "the model has a chat template only for conversations with tools");
        };
        template.render(&variables, options.now).at(|| "chat template")
    }
}

/// Returns the named templates in a `tokenizer_config.json`; empty if it has no list or object of templates.
fn named<'a>(config: Option<&'a Map<String, Value>>) -> Vec<(&'a str, Option<&'a str>)> {
    match config.and_then(|config| config.get("chat_template")) {
        Some(Value::Array(list)) => {
            let entries = list.iter().map(|entry| (entry.get("name"), entry.get("template")));
            let text = |value: Option<&'a Value>| value.and_then(Value::as_str);
            entries.filter_map(|(name, template)| Some((text(name)?, text(template)))).collect()
        }
        Some(Value::Object(list)) => list.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect(),
        _ => Vec::new(),
    }
}

/// Returns the source of the template for conversations with tools, if it is a separate one.
fn with_tools(model: &Model, config: Option<&Map<String, Value>>) -> Result<Option<String>> {
    let card = model.card();
    if let Some(file) = card.side_file(FILE_WITH_TOOLS) {
        let text = String::from_utf8(file.read()?.into());
        return text.map(Some).map_err(|_| error!(InvalidModel, "the text is not UTF-8")).at(|| FILE_WITH_TOOLS);
    }
    if FILES.iter().any(|name| card.side_file(name).is_some()) {
        return Ok(None);
    }
    // Of several templates of one name, the last one counts, as in transformers.
    let found = named(config).into_iter().rev().find(|(name, _)| *name == WITH_TOOLS);
    Ok(found.and_then(|(_, template)| template).map(str::to_owned))
}

/// Fails with `InvalidModel` if there are named templates, of which none can be used.
fn none_named_default(config: Option<&Map<String, Value>>) -> Result<()> {
    let names: Vec<&str> = named(config).into_iter().map(|(name, _)| name).collect();
    if names.is_empty() {
        return Ok(());
    }
    let names = names.join(", ");
    bail!(InvalidModel, "{TOKENIZER_CONFIG}: there are several chat templates ({names}), none of them named default")
}

fn compiled(source: &str) -> Result<Template> {
    if source.len() > limits::TEMPLATE_BYTES {
        bail!(LimitExceeded, "the template has {} bytes; the limit is {}", source.len(), limits::TEMPLATE_BYTES);
    }
    Template::new(source).at(|| "chat template")
}

/// Returns the message `index` as templates receive it: without null keys, and with its reasoning, if it has any, under
/// the two keys that most templates read, `reasoning_content` and `thinking`.
fn seen((index, message): (usize, &Value)) -> Result<Value> {
    let Some(message) = message.as_object() else {
        bail!(InvalidArgument, "message {} is not a JSON object", index + 1);
    };
    let given = |name: &&str| message.get(*name).filter(|value| !value.is_null());
    let reasoning = REASONING.iter().find_map(given);
    let mut seen = Map::new();
    if let Some(reasoning) = reasoning {
        seen.insert("thinking".into(), reasoning.clone());
    }
    let kept = message.iter().filter(|(_, value)| !value.is_null());
    seen.extend(kept.map(|(key, value)| (key.clone(), value.clone())));
    if let Some(reasoning) = reasoning {
        seen.insert(REASONING[0].into(), reasoning.clone());
    }
    Ok(Value::Object(seen))
}

#[cfg(test)]
mod tests;
