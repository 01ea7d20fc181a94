//! The preprocessing of texts that the files of sentence-transformers describe.

use crate::error::{Context, Result, bail, error};
use bytes::Bytes;
use serde_json::{Map, Value};
use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Sequence};

/// A function that returns the content of a file next to a model, by name; `None` if it does not exist.
pub type Beside<'a> = dyn Fn(&str) -> Result<Option<Bytes>> + 'a;

/// Returns the object in a JSON file next to the model; empty if the file does not exist.
fn object(beside: &Beside<'_>, name: &str) -> Result<Map<String, Value>> {
    let Some(content) = beside(name)? else { return Ok(Map::new()) };
    serde_json::from_slice(&content)
        .map_err(|e| error!(InvalidModel, "the file is not a JSON object: {e}"))
        .at(|| name.to_owned())
}

/// Returns the default prompt, which precedes every text: the one that `default_prompt_name` names; empty if there is
/// none. Fails with `InvalidModel` if there is no prompt of that name, or if the file is not a JSON object.
pub fn prompt(beside: &Beside<'_>) -> Result<String> {
    let name = "config_sentence_transformers.json";
    let config = object(beside, name)?;
    let Some(default) = config.get("default_prompt_name").and_then(Value::as_str) else { return Ok(String::new()) };
    match config.get("prompts").and_then(|prompts| prompts.get(default)) {
        Some(Value::String(prompt)) => Ok(prompt.clone()),
        Some(Value::Null) => Ok(String::new()),
        _ => bail!(InvalidModel, "{name}: default_prompt_name is {default:?}, which is not one of the prompts"),
    }
}

/// Returns the prompt with the name `wanted`; empty if it is null. Fails with [`crate::error::Kind::NotFound`] if there
/// is no prompt of that name, and with `InvalidModel` if the file is not a JSON object.
pub fn named_prompt(beside: &Beside<'_>, wanted: &str) -> Result<String> {
    let name = "config_sentence_transformers.json";
    let config = object(beside, name)?;
    let prompts = config.get("prompts").and_then(Value::as_object);
    match prompts.and_then(|prompts| prompts.get(wanted)) {
        Some(Value::String(prompt)) => Ok(prompt.clone()),
        Some(Value::Null) => Ok(String::new()),
        _ => {
            let names: Vec<&str> = prompts.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            bail!(NotFound, "the model has no prompt {wanted:?}; it has {names}")
        }
    }
}

/// Returns whether `sentence_bert_config.json` says that texts are converted to lower case. Fails with `InvalidModel`
/// if the file is not a JSON object, and if it cannot be read.
pub fn lower_case(beside: &Beside<'_>) -> Result<bool> {
    let config = object(beside, "sentence_bert_config.json")?;
    Ok(config.get("do_lower_case").and_then(Value::as_bool).unwrap_or(false))
}

/// Adds the conversion to lower case before all other steps of the normalization. Added tokens that are not normalized,
/// usually the special ones, are still found as they are.
pub fn make_lower(tokenizer: &mut tokenizers::Tokenizer) -> tokenizers::Result<()> {
    let mut steps = vec![NormalizerWrapper::Lowercase(Lowercase)];
    steps.extend(tokenizer.get_normalizer().cloned());
    tokenizer.with_normalizer(Some(NormalizerWrapper::Sequence(Sequence::new(steps)))).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    /// Returns a lookup with one file next to a model.
    fn one(name: &'static str, content: &'static str) -> impl Fn(&str) -> Result<Option<bytes::Bytes>> {
        move |asked| Ok((asked == name).then(|| content.as_bytes().into()))
    }

    #[test]
    fn prompts_have_names() {
        let of =
            |name| named_prompt(&one("config_sentence_transformers.json", r#"{"prompts": {"query": "q: "}}"#), name);
        assert_eq!(of("query").unwrap(), "q: ");
        assert!(of("passage").unwrap_err().to_string().contains("it has query"));
        assert!(named_prompt(&one("", ""), "query").unwrap_err().to_string().contains("it has none"));
    }

    #[test]
    fn a_prompt_is_that_of_the_default_name() {
        let of = |content| prompt(&one("config_sentence_transformers.json", content));
        assert_eq!(prompt(&one("", "")).unwrap(), "");
        assert_eq!(of(r#"{"prompts": {"query": "q: "}, "default_prompt_name": null}"#).unwrap(), "");
        assert_eq!(of(r#"{"prompts": {"query": "q: "}, "default_prompt_name": "query"}"#).unwrap(), "q: ");
        assert!(of(r#"{"prompts": {}, "default_prompt_name": "query"}"#).unwrap_err().to_string().contains("query"));
        assert!(of("[]").is_err());
        assert!(lower_case(&one("sentence_bert_config.json", r#"{"do_lower_case": true}"#)).unwrap());
        assert!(!lower_case(&one("sentence_bert_config.json", "{}")).unwrap());
    }
}
