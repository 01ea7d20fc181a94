//! The files next to the weights of a checkpoint: generation defaults, chat template and tokenizer files.

use super::config::{Config, shown};
use super::sentence::files_of_modules;
use crate::error::{Context, Result, bail, error};
use crate::model::{GenerationDefaults, SideContent, SideFile};
use crate::{files, limits};
use serde_json::{Map, Value};
use std::path::Path;

/// The files that belong to a model, if they exist.
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
    "additional_chat_templates/default.jinja",
    "additional_chat_templates/tool_use.jinja",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "LICENSE",
];

/// The files of an adapter that PEFT saves.
const ADAPTER: [&str; 3] = ["adapter_model.safetensors", "adapter_model.bin", "adapter_config.json"];

/// The keys of `generation_config.json` for sampling and for the length of texts.
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

/// The keys of `generation_config.json` without effect on the generated text, and `eos_token_id`, which is read
/// elsewhere.
const SILENT: &[&str] = &[
    "_from_model_config",
    "assistant_confidence_threshold",
    "assistant_lookbehind",
    "cache_config",
    "cache_implementation",
    "chat_format",
    "compile_config",
    "disable_compile",
    "eos_token_id",
    "is_assistant",
    "low_memory",
    "max_matching_ngram_size",
    "max_window_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "return_dict_in_generate",
    "target_lookbehind",
    "transformers_version",
    "use_cache",
];

/// The values (JSON) of other keys with which they have no effect: the defaults of transformers.
const USUAL: &[(&str, &str)] = &[
    ("diversity_penalty", "0"),
    ("early_stopping", "false"),
    ("encoder_no_repeat_ngram_size", "0"),
    ("encoder_repetition_penalty", "1"),
    ("epsilon_cutoff", "0"),
    ("eta_cutoff", "0"),
    ("guidance_scale", "1"),
    ("length_penalty", "1"),
    ("min_length", "0"),
    ("num_beam_groups", "1"),
    ("num_beams", "1"),
    ("remove_invalid_values", "false"),
    ("renormalize_logits", "false"),
    ("token_healing", "false"),
    ("typical_p", "1"),
    ("suppress_tokens", "[]"),
    ("bad_words_ids", "[]"),
];

/// Returns the object in a JSON file; `None` if the file does not exist. Fails with `InvalidModel` if it is not an
/// object, and `LimitExceeded` above [`limits::CONFIG_BYTES`].
pub fn read_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    if !path.is_file() {
        return Ok(None);
    }
    parse(&files::read(path, limits::CONFIG_BYTES)?).at(|| path.display()).map(Some)
}

/// Returns the object in the JSON file `name` among the files of a model; `None` if there is no such file. Fails like
/// [`read_object`].
pub fn object_in(files: &[SideFile], name: &str) -> Result<Option<Map<String, Value>>> {
    let Some(file) = files.iter().find(|file| file.name == name) else { return Ok(None) };
    parse(&file.content.read_within(limits::CONFIG_BYTES)?).at(|| file.place()).map(Some)
}

fn parse(content: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(content).map_err(|e| error!(InvalidModel, "the file is damaged: {e}"))
}

/// Returns the files of a checkpoint's folder that belong to the model: tokenizer, configuration and similar files, and
/// those of the steps that `modules.json` names.
pub fn files_of(folder: &Path) -> Vec<SideFile> {
    let find = |name: &str| {
        let path = folder.join(name);
        Ok(path.is_file().then_some(SideContent::Path(path)))
    };
    files_found(&find).unwrap_or_default()
}

/// Returns the files like [`files_of`]; `find` returns the content of a file by its name, or `None` if it does not
/// exist. Fails if `find` does.
pub fn files_found(find: &dyn Fn(&str) -> Result<Option<SideContent>>) -> Result<Vec<SideFile>> {
    let mut found: Vec<SideFile> = Vec::new();
    let add = |name: &str, found: &mut Vec<SideFile>| -> Result<()> {
        if found.iter().all(|file| file.name != name)
            && let Some(content) = find(name)?
        {
            found.push(SideFile { name: name.to_owned(), content });
        }
        Ok(())
    };
    FILES.iter().try_for_each(|name| add(name, &mut found))?;
    // Errors in this file are reported when its steps are read.
    let modules = found.iter().find(|file| file.name == "modules.json").and_then(|file| file.content.read().ok());
    let modules = serde_json::from_slice(&modules.unwrap_or_default()).unwrap_or_default();
    files_of_modules(&modules).iter().try_for_each(|name| add(name, &mut found))?;
    Ok(found)
}

/// Returns a warning about the keys of `generation_config.json` that generation ignores; `None` if there are none.
pub fn unread(generation: &Map<String, Value>) -> Option<String> {
    let heard =
        |key: &str| SAMPLING.contains(&key) || SILENT.contains(&key) || matches!(key, "bos_token_id" | "pad_token_id");
    let usual = |key: &str, value: &Value| {
        let same = |text: &str| serde_json::from_str::<Value>(text).is_ok_and(|usual| alike(&usual, value));
        value.is_null() || USUAL.iter().any(|(known, text)| *known == key && same(text))
    };
    let left: Vec<String> = generation
        .iter()
        .filter(|(key, value)| !heard(key) && !usual(key, value))
        .map(|(key, value)| format!("{key} = {}", shown(value)))
        .collect();
    (!left.is_empty()).then(|| format!("generation_config.json: keys that are ignored: {}", left.join(", ")))
}

/// Returns a warning about an adapter (LoRA) next to the weights, which is not applied; `None` if there is none.
pub fn adapter(folder: &Path) -> Option<String> {
    let found = ADAPTER.into_iter().find(|name| folder.join(name).is_file())?;
    Some(format!(
        "{found}: the adapter in the folder is not applied; merge it into the weights first (PEFT: merge_and_unload)"
    ))
}

/// Returns whether two values are equal, including 1 and 1.0.
fn alike(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().is_some_and(|a| b.as_f64() == Some(a))
}

/// Returns the special token ids and the sampling defaults of a model. For the ids, `generation_config.json` has
/// priority over `config.json`; sampling defaults are only read from `generation_config.json`. Fails with
/// `InvalidModel` if an id is not a number.
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

/// Returns the ids of a value that is one id or a list of ids.
fn token_ids(key: &str, value: &Value) -> Result<Vec<i64>> {
    let one = std::slice::from_ref(value);
    let list = value.as_array().map_or(one, Vec::as_slice);
    let ids: Option<Vec<i64>> = list.iter().map(Value::as_i64).collect();
    ids.ok_or_else(|| error!(InvalidModel, "{key:?} is neither a token id nor a list of them"))
}

/// Returns the chat template among the files of a model: `chat_template.jinja`, otherwise
/// `additional_chat_templates/default.jinja`, otherwise the one in `tokenizer_config.json`, unless there is another
/// file of templates; `None` if there is none. Fails with `InvalidModel` if the file is damaged.
pub fn chat_template(files: &[SideFile]) -> Result<Option<String>> {
    let named = |name: &str| files.iter().find(|file| file.name == name);
    let folder = "additional_chat_templates";
    if let Some(file) = named("chat_template.jinja").or_else(|| named(&format!("{folder}/default.jinja"))) {
        let text = String::from_utf8(file.content.read()?.into());
        return text.map_err(|_| error!(InvalidModel, "the text is not UTF-8")).at(|| file.place()).map(Some);
    }
    if named(&format!("{folder}/tool_use.jinja")).is_some() {
        return Ok(None);
    }
    let name = "tokenizer_config.json";
    let Some(config) = object_in(files, name)? else { return Ok(None) };
    let place = || named(name).map_or_else(String::new, SideFile::place);
    template_in(&config).at(place)
}

/// Returns the chat template in a `tokenizer_config.json`: the string `chat_template` or, in a list or an object of
/// named templates, the one named `default`; `None` if there is none. Fails with `InvalidModel` for other values.
pub fn template_in(tokenizer_config: &Map<String, Value>) -> Result<Option<String>> {
    let text = match Config::new(tokenizer_config).value("chat_template") {
        None => return Ok(None),
        Some(Value::Array(named)) => {
            let is_default = |entry: &&Value| entry.get("name").and_then(Value::as_str) == Some("default");
            // Of several templates of one name, the last one counts, as in transformers.
            match named.iter().rev().find(is_default) {
                Some(entry) => entry.get("template"),
                None => return Ok(None),
            }
        }
        Some(Value::Object(named)) => match named.get("default") {
            Some(text) => Some(text),
            None => return Ok(None),
        },
        Some(other) => Some(other),
    };
    match text.and_then(Value::as_str) {
        Some(text) => Ok(Some(text.to_owned())),
        None => bail!(InvalidModel, "\"chat_template\" is neither a string nor a list or an object of named ones"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_generation_does_not_heed_is_named() {
        let said = |value: Value| unread(value.as_object().unwrap());
        let usual = json!({ "temperature": 0.6, "num_beams": 1, "length_penalty": 1.0, "pad_token_id": 3,
                            "eos_token_id": [1], "suppress_tokens": null, "transformers_version": "4.0" });
        assert_eq!(said(usual), None);
        let odd =
            said(json!({ "num_beams": 4, "forced_eos_token_id": 2, "min_new_tokens": 5, "bad_words_ids": [[7]] }));
        for key in ["num_beams = 4", "min_new_tokens = 5", "bad_words_ids = [[7]]", "forced_eos_token_id = 2"] {
            assert!(odd.as_ref().unwrap().contains(key), "{key}: {odd:?}");
        }
    }
}
