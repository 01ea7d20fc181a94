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
/// The keys for a message's reasoning, the usual one first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A compiled chat template, which is immutable and can be shared between threads.
pub struct ChatTemplate {
    template: Template,
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
        Ok(ChatTemplate { template: compiled(source)?, with_tools: None, tokens: Map::new() })
    }

    /// Returns the template of a model, with the texts of its special tokens; `None` if the model has no template.
    /// Conversations with tools use the template `tool_use`, if the model has one of that name.
    ///
    /// The special tokens are those of `tokenizer_config.json` and of `special_tokens_map.json` in older folders: one
    /// that is null there is not defined in the template. Tokens that neither defines are those of the tokenizer's
    /// class or, if the class is unknown, those of the ids in the model's configuration; `tokenizer` converts the ids.
    ///
    /// Fails with `InvalidModel` if a file is damaged, or if several templates have no default, and otherwise like
    /// [`ChatTemplate::new`].
    pub fn of(model: &Model, tokenizer: Option<&Tokenizer>) -> Result<Option<ChatTemplate>> {
        let read = |name: &str| -> Result<Option<Map<String, Value>>> {
            let Some(content) = model.card().side_file(name) else { return Ok(None) };
            let parsed = serde_json::from_slice(&content.read()?);
            parsed.map(Some).map_err(|e| error!(InvalidModel, "{name}: {e}"))
        };
        let config = read(TOKENIZER_CONFIG)?;
        let named = config.as_ref().and_then(|config| config.get("chat_template")?.as_array());
        let Some(source) = &model.card().chat_template else {
            if let Some(named) = named {
                let names: Vec<&str> = named.iter().filter_map(|entry| entry.get("name")?.as_str()).collect();
                bail!(
                    InvalidModel,
                    "{TOKENIZER_CONFIG}: there are several chat templates ({}), none of them named default",
                    names.join(", ")
                );
            }
            return Ok(None);
        };
        let mut template = ChatTemplate::new(source)?;
        let for_tools =
            named.and_then(|named| named.iter().find(|entry| entry.get("name") == Some(&WITH_TOOLS.into())));
        // A template in its own file has priority.
        if let Some(source) = for_tools.filter(|_| model.card().side_file("chat_template.jinja").is_none()) {
            template.with_tools = source.get("template").and_then(Value::as_str).map(compiled).transpose()?;
        }
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
    /// [`crate::error::Kind::InvalidArgument`] if a message is not a JSON object or, with the line, if the template
    /// rejects the messages or fails on them; `Unsupported` for features that are not implemented; `LimitExceeded`
    /// above [`limits::TEMPLATE_STEPS`] steps or [`limits::TEXT_BYTES`] of output.
    pub fn render(&self, messages: &[Value], options: &ChatOptions) -> Result<String> {
        let messages: Vec<Value> = messages.iter().enumerate().map(seen).collect::<Result<_>>()?;
        let mut variables = self.tokens.clone();
        variables.insert("messages".into(), messages.into());
        variables.insert("tools".into(), options.tools.clone().into());
        variables.insert("documents".into(), Value::Null);
        variables.insert("add_generation_prompt".into(), options.add_generation_prompt.into());
        variables.extend(options.variables.clone());
        let template = self.with_tools.as_ref().filter(|_| options.tools.is_some()).unwrap_or(&self.template);
        template.render(&variables, options.now).at(|| "chat template")
    }
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
