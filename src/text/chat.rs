//! Chat templates: how a model wants a conversation to be written down.
//!
//! Templates are Jinja, written for Python's jinja2 in the setting of the Hugging Face library; they are rendered
//! here as there: blocks trimmed, Python's spelling of values, its methods and arithmetic, JSON as `json.dumps`
//! writes it, `raise_exception` and `strftime_now`, which shows the local time. What cannot be rendered as there is
//! refused with a message that names it. Templates come from strangers: steps, nesting and output are bounded, and
//! nothing outside the given values can be reached.
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

/// Where special tokens have their names.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
/// The template of a list that is for conversations with tools.
const WITH_TOOLS: &str = "tool_use";
/// Names that a message's reasoning goes by, the usual one first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A chat template, compiled. Never changes; shared freely between threads.
pub struct ChatTemplate {
    template: Template,
    /// What is taken in its place if there are tools.
    with_tools: Option<Template>,
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
    /// The time that templates with a date show, in UTC; `None` is now, in the local time of the machine (as in the
    /// Hugging Face library).
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
    /// [`crate::error::Kind::InvalidModel`] with the line if it is not valid Jinja, `Unsupported` for what is not
    /// rendered here, `LimitExceeded` above [`limits::TEMPLATE_BYTES`].
    pub fn new(source: &str) -> Result<ChatTemplate> {
        Ok(ChatTemplate { template: compiled(source)?, with_tools: None, tokens: Map::new() })
    }

    /// The template of a model, with the names of its special tokens; `None` if it has no template.
    ///
    /// The tokens are those of `tokenizer_config.json` and `special_tokens_map.json`: one that is null there is not
    /// defined in the template, whatever ids the model's configuration has.
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
        // A template of its own file stands for all.
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

    /// Gives a special token its text: `bos_token`, `eos_token` …
    pub fn with_token(mut self, name: &str, text: &str) -> ChatTemplate {
        self.tokens.insert(name.to_owned(), text.into());
        self
    }

    /// The conversation as the text that the model is to be given. It has the model's special tokens in it already:
    /// encode it without adding any.
    ///
    /// Keys of a message that are null are left out, as in the Hugging Face library.
    /// [`crate::error::Kind::InvalidArgument`] with the line if the template refuses the messages or cannot do with
    /// them; `Unsupported` for what is not rendered here; `LimitExceeded` if it does not come to an end in
    /// [`limits::TEMPLATE_STEPS`] steps, or writes more than [`limits::TEXT_BYTES`].
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

/// A message as templates see it: without keys that are null, its reasoning under each name that templates read.
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
