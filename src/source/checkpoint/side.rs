//! What lies beside the weights of a checkpoint: generation defaults, chat template, tokenizer files.

use super::config::Config;
use crate::error::{Context, Result, bail, error};
use crate::source::card::{GenerationDefaults, SideContent, SideFile};
use crate::{files, limits};
use serde_json::{Map, Value};
use std::path::Path;

/// Files that travel with a model, where they are.
const FILES: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "LICENSE",
];

/// Keys of `generation_config.json` that say how to sample.
const SAMPLING: &[&str] = &[
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "max_length",
    "max_new_tokens",
];

/// Reads a JSON file that holds an object; `None` if there is no such file.
pub fn read_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    if !path.is_file() {
        return Ok(None);
    }
    let content = files::read(path, limits::CONFIG_BYTES)?;
    let parsed = serde_json::from_slice(&content).map_err(|e| error!(InvalidModel, "is damaged: {e}"));
    parsed.at(|| path.display()).map(Some)
}

/// The files of a checkpoint's folder that travel with the model.
pub fn files_of(folder: &Path) -> Vec<SideFile> {
    let there = FILES.iter().map(|name| (name, folder.join(name))).filter(|(_, path)| path.is_file());
    there.map(|(name, path)| SideFile { name: (*name).to_owned(), content: SideContent::Path(path) }).collect()
}

/// Token ids and sampling defaults. `generation_config.json` wins over `config.json`.
pub fn generation_defaults(
    config: &Map<String, Value>,
    generation: Option<&Map<String, Value>>,
) -> Result<GenerationDefaults> {
    let sources: Vec<Config<'_>> = generation.into_iter().chain([config]).map(Config::new).collect();
    let first = |key: &str| sources.iter().find_map(|source| source.value(key));
    let ids = |key: &str| first(key).map_or(Ok(Vec::new()), |value| token_ids(key, value));
    let sampling = generation.into_iter().flat_map(|map| SAMPLING.iter().map(move |key| (key, map.get(*key))));
    Ok(GenerationDefaults {
        eos_token_ids: ids("eos_token_id")?,
        bos_token_id: ids("bos_token_id")?.first().copied(),
        pad_token_id: ids("pad_token_id")?.first().copied(),
        sampling: sampling.filter_map(|(key, value)| Some(((*key).to_owned(), value?.clone()))).collect(),
    })
}

/// One id, or a list of them.
fn token_ids(key: &str, value: &Value) -> Result<Vec<i64>> {
    let one = std::slice::from_ref(value);
    let list = value.as_array().map_or(one, Vec::as_slice);
    let ids: Option<Vec<i64>> = list.iter().map(Value::as_i64).collect();
    ids.ok_or_else(|| error!(InvalidModel, "{key:?} is neither a token id nor a list of them"))
}

/// The chat template of a folder: `chat_template.jinja`, else that in `tokenizer_config.json`.
pub fn chat_template(folder: &Path) -> Result<Option<String>> {
    let file = folder.join("chat_template.jinja");
    if file.is_file() {
        let content = files::read(&file, limits::SIDE_FILE_BYTES)?;
        let text = String::from_utf8(content).map_err(|_| error!(InvalidModel, "is not UTF-8"));
        return text.at(|| file.display()).map(Some);
    }
    let path = folder.join("tokenizer_config.json");
    let Some(config) = read_object(&path)? else { return Ok(None) };
    template_in(&config).at(|| path.display())
}

/// The template in a `tokenizer_config.json`: a text, or a list of named ones of which `default` is taken. `None` if
/// none is named so: [`crate::text::ChatTemplate::of`] says it then.
pub fn template_in(tokenizer_config: &Map<String, Value>) -> Result<Option<String>> {
    let text = match Config::new(tokenizer_config).value("chat_template") {
        None => return Ok(None),
        Some(Value::Array(named)) => {
            let is_default = |entry: &&Value| entry.get("name").and_then(Value::as_str) == Some("default");
            match named.iter().find(is_default) {
                Some(entry) => entry.get("template"),
                None => return Ok(None),
            }
        }
        Some(other) => Some(other),
    };
    match text.and_then(Value::as_str) {
        Some(text) => Ok(Some(text.to_owned())),
        None => bail!(InvalidModel, "\"chat_template\" is neither a text nor a list of named ones"),
    }
}
