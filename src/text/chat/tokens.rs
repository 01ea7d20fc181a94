//! The special tokens, by their names in templates.

use serde_json::{Map, Value};

/// The names of the special tokens that a tokenizer may have.
const STANDARD: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Returns the special tokens (`bos_token`, `eos_token` …) by name. Their texts are those of `tokenizer_config.json`,
/// overridden by the `special_tokens_map.json` of folders from before `added_tokens_decoder`. A token that these do not
/// name has the default of the tokenizer's class or, without a known class, the text of `by_id`: the token whose id the
/// model's configuration names. A null removes a token.
pub fn named<const N: usize>(
    config: Option<&Map<String, Value>>,
    map: Option<&Map<String, Value>>,
    by_id: [(&str, Option<String>); N],
) -> Map<String, Value> {
    let class = config.and_then(|config| config.get("tokenizer_class")?.as_str());
    let class = class.map(|class| class.strip_suffix("Fast").unwrap_or(class));
    let mut tokens = Map::new();
    match class.and_then(of_class) {
        Some(defaults) => {
            tokens.extend(defaults.iter().map(|(name, text)| ((*name).to_owned(), Value::from(*text))));
        }
        // The defaults of other classes are not known: the ids of the model's configuration are used.
        None => {
            let known = by_id.into_iter().filter_map(|(name, text)| Some((name.to_owned(), Value::from(text?))));
            tokens.extend(known);
        }
    }
    let Some(config) = config else { return tokens };
    let legacy = map.filter(|_| !config.contains_key("added_tokens_decoder"));
    for source in [Some(config), legacy].into_iter().flatten() {
        for (name, value) in entries(source) {
            match text(value) {
                Some(text) => {
                    tokens.insert(name.clone(), text.into());
                }
                // Null means that the tokenizer has no such token.
                None if STANDARD.contains(&name.as_str()) => {
                    tokens.shift_remove(name);
                }
                None => {}
            }
        }
    }
    tokens
}

/// Returns the keys that name a token, with their values: those that end in `_token` and are not booleans
/// (`add_bos_token`), and all of `extra_special_tokens`, which was named `model_specific_special_tokens` before.
fn entries(source: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let own = ["extra_special_tokens", "model_specific_special_tokens"];
    let own = own.into_iter().filter_map(|key| source.get(key)?.as_object()).flatten();
    source.iter().filter(|(key, value)| key.ends_with("_token") && !value.is_boolean()).chain(own)
}

/// Returns the text of a token, which is plain or nested as `content`; `None` if the value has neither.
fn text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}

/// Returns the default special tokens of a tokenizer class; `None` for an unknown class.
fn of_class(class: &str) -> Option<&'static [(&'static str, &'static str)]> {
    const END: &str = "<|endoftext|>";
    Some(match class {
        "PreTrainedTokenizer" | "TokenizersBackend" => &[],
        "LlamaTokenizer" | "CodeLlamaTokenizer" => {
            &[("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")]
        }
        "GPT2Tokenizer" | "GPTNeoXTokenizer" => &[("bos_token", END), ("eos_token", END), ("unk_token", END)],
        "Qwen2Tokenizer" => &[("eos_token", END), ("unk_token", END), ("pad_token", END)],
        "GemmaTokenizer" => &[
            ("bos_token", "<bos>"),
            ("eos_token", "<eos>"),
            ("unk_token", "<unk>"),
            ("pad_token", "<pad>"),
            ("mask_token", "<mask>"),
        ],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tokens(config: Value, map: Value) -> Value {
        let ids = [("bos_token", Some("<id>".to_owned())), ("eos_token", None)];
        named(config.as_object(), map.as_object(), ids).into()
    }

    #[test]
    fn special_tokens_are_texts_or_objects_and_null_is_none() {
        let config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "pad_token": null,
            "eos_token": {"content": "</s>", "lstrip": false}, "model_max_length": 5, "add_bos_token": true,
            "extra_special_tokens": {"image_token": "<img>"}
        });
        let all = json!({"bos_token": "<s>", "eos_token": "</s>", "image_token": "<img>"});
        assert_eq!(tokens(config, Value::Null), all);
        // Null overrides the ids and the class.
        assert_eq!(tokens(json!({"bos_token": null}), Value::Null), json!({}));
        let qwen = json!({"tokenizer_class": "Qwen2Tokenizer", "bos_token": null, "pad_token": "<p>"});
        let expected = json!({"eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<p>"});
        assert_eq!(tokens(qwen, Value::Null), expected);
    }

    #[test]
    fn the_map_of_special_tokens_counts_where_the_configuration_is_of_its_time() {
        let map = json!({"bos_token": {"content": "<s>"}, "eos_token": "</s>"});
        let config = json!({"tokenizer_class": "PreTrainedTokenizerFast"});
        assert_eq!(tokens(config, map.clone()), map_of(&[("bos_token", "<s>"), ("eos_token", "</s>")]));
        let newer = json!({"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": {}});
        assert_eq!(tokens(newer, map), json!({}));
        // Without a tokenizer configuration, the ids are used.
        assert_eq!(tokens(Value::Null, Value::Null), json!({"bos_token": "<id>"}));
        let llama = tokens(json!({"tokenizer_class": "LlamaTokenizerFast"}), Value::Null);
        assert_eq!(llama, map_of(&[("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")]));
    }

    fn map_of(pairs: &[(&str, &str)]) -> Value {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), Value::from(*text))).collect::<Map<_, _>>().into()
    }
}
