//! The rendering of conversations as prompts, by the chat template of a model.

use super::error::optimize_error_t;
use super::handle;
use super::model::optimize_model_t;
use super::options::{self, Options};
use super::status::optimize_status_t;
use super::{Out, buffer, guard, text};
use crate::choice::choice;
use crate::error::{Result, bail, error};
use crate::text::{ChatOptions, ChatTemplate, Tokenizer};
use serde_json::{Map, Value};
use std::ffi::c_char;

choice! {
    /// Use of the reasoning of a model before its answer.
    enum Thinking: optimize_thinking_t = Template {
        /// The default of the template is used.
        Template = 0, "template";
        /// The model thinks before it answers.
        On = 1, "on";
        /// The model answers without thinking.
        Off = 2, "off";
    }
}

/// Use of the reasoning of a model before its answer, for templates with the variable `enable_thinking`.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_thinking_t {
    /// The default of the template is used.
    OPTIMIZE_THINKING_TEMPLATE = 0,
    /// The model thinks before it answers.
    OPTIMIZE_THINKING_ON = 1,
    /// The model answers without thinking.
    OPTIMIZE_THINKING_OFF = 2,
}

/// Options of `optimize_model_apply_chat_template`. Fields that are 0 or NULL have their defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_chat_options_t {
    /// sizeof(optimize_chat_options_t).
    pub struct_size: u32,
    /// A value other than 0 leaves out the beginning of the answer, which otherwise ends the prompt.
    pub no_generation_prompt: u32,
    /// Tools that the model may call, a JSON list of their schemas ({"type": "function", "function": {...}}); or NULL.
    pub tools: *const c_char,
    /// Further variables of the template, a JSON object; or NULL. They override variables of the same name that the
    /// library sets, except `enable_thinking` if `thinking` is not 0.
    pub variables: *const c_char,
    /// Use of the reasoning of the model, an optimize_thinking_t. It sets the variable `enable_thinking`.
    pub thinking: i32,
    /// Must be 0.
    pub reserved: u32,
}
// SAFETY: repr(C), two u32, two pointers that may be NULL and two 32-bit integers: no padding, all zero is valid.
unsafe impl Options for optimize_chat_options_t {}

/// Renders a conversation with the chat template of a model, and writes the text to `prompt`. The caller frees it.
/// `messages` is JSON: [{"role": "user", "content": "..."}, ...]. Messages may have further keys, such as `tool_calls`.
/// The text contains special tokens: set `rendered` of optimize_generate_options_t when you pass it to a generator.
///
/// Returns OPTIMIZE_NOT_FOUND if the model has no chat template; OPTIMIZE_INVALID_ARGUMENT if messages, tools or
/// variables are not JSON of that form, or if the template refuses them; OPTIMIZE_INVALID_MODEL for a template with an
/// error; OPTIMIZE_UNSUPPORTED if the template uses a feature of Jinja that is not supported.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_apply_chat_template(
    model: *const optimize_model_t,
    messages: *const c_char,
    options: *const optimize_chat_options_t,
    prompt: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(prompt, "prompt")?;
            let model = &handle::get(model)?.model;
            let messages = list(text(messages, "messages")?, "messages")?;
            let given = options::read(options)?;
            if given.reserved != 0 {
                bail!(InvalidArgument, "reserved is not 0");
            }
            let mut variables = match given.variables.is_null() {
                true => Map::new(),
                false => match parsed(text(given.variables, "variables")?, "variables")? {
                    Value::Object(variables) => variables,
                    _ => bail!(InvalidArgument, "variables is not a JSON object"),
                },
            };
            match Thinking::from_code(given.thinking, "thinking")? {
                Thinking::Template => {}
                thinking => drop(variables.insert("enable_thinking".into(), (thinking == Thinking::On).into())),
            }
            let tools = match given.tools.is_null() {
                true => None,
                false => Some(list(text(given.tools, "tools")?, "tools")?),
            };
            let add_generation_prompt = given.no_generation_prompt == 0;
            let options = ChatOptions { add_generation_prompt, tools, variables, ..ChatOptions::default() };
            let tokenizer = Tokenizer::of(model)?;
            let Some(template) = ChatTemplate::of(model, tokenizer.as_ref())? else {
                bail!(NotFound, "the model has no chat template");
            };
            out.set(buffer::new(template.render(&messages, &options)?));
            Ok(())
        })
    }
}

fn parsed(json: &str, name: &str) -> Result<Value> {
    serde_json::from_str(json).map_err(|e| error!(InvalidArgument, "{name} is not JSON: {e}"))
}

fn list(json: &str, name: &str) -> Result<Vec<Value>> {
    match parsed(json, name)? {
        Value::Array(list) => Ok(list),
        _ => bail!(InvalidArgument, "{name} is not a JSON list"),
    }
}

#[cfg(test)]
mod tests {
    use super::Thinking;

    #[test]
    fn the_enum_of_the_header_has_the_values_of_the_library() {
        assert_eq!(Thinking::C_NAME, "optimize_thinking_t");
        assert_eq!(Thinking::ALL.iter().map(|value| value.code()).collect::<Vec<_>>(), [0, 1, 2]);
    }
}
