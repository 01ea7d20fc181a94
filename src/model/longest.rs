//! The maximum length of a text for a model, according to the files next to it.

use super::Card;
use crate::error::{Context, Result, error};
use crate::limits;
use serde_json::{Map, Value};

/// The architectures (`model_type`) whose positions start after the padding id, so that the first ones are never used.
const SHIFTED: [&str; 5] = ["roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "mpnet"];
/// The keys of a `config.json` with the number of positions, in the order in which they are looked up.
const POSITIONS: [&str; 5] = ["max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"];
/// The smallest value of a tokenizer's length limit that means "no limit".
const NO_LIMIT: f64 = 1e12;

impl Card {
    /// Returns the maximum number of tokens with positions, extended by scaling; `None` if it is unknown. See
    /// [`context`].
    pub fn context(&self) -> Option<usize> {
        context(&self.config)
    }

    /// Returns the maximum number of tokens of a text: `max_seq_length` of `sentence_bert_config.json`, otherwise
    /// `model_max_length` of `tokenizer_config.json`, and at most the number of positions in the model's configuration;
    /// `None` if there is none of these limits. Fails with [`crate::error::Kind::InvalidModel`] if one of these files
    /// is not a JSON object.
    pub fn longest_text(&self) -> Result<Option<usize>> {
        Ok([positions(&self.config), self.stated_text()?].into_iter().flatten().min())
    }

    /// Returns the number of tokens to which texts are truncated by default: [`Card::longest_text`] if
    /// `tokenizer_config.json` or `sentence_bert_config.json` has a limit; otherwise the number of positions, at most
    /// [`limits::DEFAULT_TEXT_TOKENS`]. Fails like [`Card::longest_text`].
    pub fn usual_text(&self) -> Result<usize> {
        let longest = self.longest_text()?.unwrap_or(limits::DEFAULT_TEXT_TOKENS);
        let stated = self.stated_text()?.is_some();
        Ok(if stated { longest } else { longest.min(limits::DEFAULT_TEXT_TOKENS) })
    }

    /// Returns the limit for texts in `sentence_bert_config.json`, which sentence-transformers gives the tokenizer in
    /// place of its own, or otherwise that in `tokenizer_config.json`; `None` if there is none.
    fn stated_text(&self) -> Result<Option<usize>> {
        let stated = |file: &str, key: &str| -> Result<Option<f64>> {
            Ok(self.object(file)?.get(key).and_then(Value::as_f64).filter(|number| *number >= 1.0))
        };
        let tokenizer = stated("tokenizer_config.json", "model_max_length")?;
        let limit = stated("sentence_bert_config.json", "max_seq_length")?.or(tokenizer);
        // Some files write 1e30 for no limit.
        Ok(limit.filter(|number| *number < NO_LIMIT).map(|number| number as usize))
    }

    /// Returns the object in a JSON file that belongs to the model; empty if there is no file of that name. Fails with
    /// [`crate::error::Kind::InvalidModel`] if the file is not a JSON object.
    pub(crate) fn object(&self, name: &str) -> Result<Map<String, Value>> {
        let Some(content) = self.side_file(name) else { return Ok(Map::new()) };
        let parsed =
            serde_json::from_slice(&content.read()?).map_err(|e| error!(InvalidModel, "the content is not JSON: {e}"));
        parsed.at(|| name.to_owned())
    }
}

/// Returns the maximum number of tokens in a model's context; `None` if `max_position_embeddings` is missing.
///
/// It is the larger of two numbers: `max_position_embeddings`, and the length to which the scaling of rotary positions
/// extends the training length. Some configurations leave `max_position_embeddings` at the training length.
///
/// Only `linear` and `yarn` scaling are taken into account. Dynamic scaling has other angles for every length beyond
/// the training length. The factor of Llama 3 would give more than `max_position_embeddings` (Llama 3.2: 32 x 8,192
/// instead of 131,072). The scaling of Gemma 3 is ignored, because it applies to some layers only.
pub fn context(config: &Map<String, Value>) -> Option<usize> {
    let size = |from: &Map<String, Value>, key: &str| from.get(key).and_then(Value::as_u64).filter(|size| *size > 0);
    let all = size(config, "max_position_embeddings")?;
    let object = |key: &str| config.get(key).and_then(Value::as_object).filter(|object| !object.is_empty());
    let scaling = object("rope_scaling").or(object("rope_parameters"));
    let stretched =
        scaling.filter(|_| config.get("model_type").is_none_or(|name| name != "gemma3_text")).and_then(|s| {
            let kind = s.get("rope_type").or(s.get("type")).and_then(Value::as_str)?;
            let factor = s.get("factor").and_then(Value::as_f64).filter(|factor| factor.is_finite())?;
            let key = "original_max_position_embeddings";
            let trained = size(config, key).or(size(s, key)).unwrap_or(all);
            matches!(kind, "linear" | "yarn").then_some((trained as f64 * factor) as u64)
        });
    // Larger values are not sizes; they are reported elsewhere.
    let most = stretched.unwrap_or(0).min(limits::CONFIG_SIZE.unsigned_abs());
    usize::try_from(all.max(most)).ok()
}

/// Returns the maximum number of tokens of a text that have positions, by a configuration: that of [`context`], or the
/// first key of [`POSITIONS`], without the positions that are never used; `None` if the configuration has neither.
fn positions(config: &Map<String, Value>) -> Option<usize> {
    let size = |name: &str| config.get(name).and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
    let all = context(config).or_else(|| POSITIONS.iter().find_map(|name| size(name)))?;
    let shifted = config.get("model_type").and_then(Value::as_str).is_some_and(|name| SHIFTED.contains(&name));
    let unused = if shifted { size("pad_token_id").unwrap_or(1).saturating_add(1) } else { 0 };
    Some(all.saturating_sub(unused)).filter(|length| *length > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SideContent, SideFile};
    use serde_json::json;

    fn card(config: Value, files: &[(&str, &'static str)]) -> Card {
        let file = |(name, content): &(&str, &'static str)| SideFile {
            name: (*name).to_owned(),
            content: SideContent::Bytes(content.as_bytes().into()),
        };
        let config = config.as_object().cloned().unwrap();
        Card { config, side_files: files.iter().map(file).collect(), ..Card::default() }
    }

    #[test]
    fn a_context_that_scaling_stretches_is_as_long_as_it_says() {
        let of = |config: Value| context(config.as_object().unwrap());
        let scaled = |kind: &str, more: Value| {
            let mut config = json!({ "max_position_embeddings": 32, "rope_scaling": { "type": kind, "factor": 4 } });
            for (key, value) in more.as_object().unwrap() {
                config[key] = value.clone();
            }
            of(config)
        };
        assert_eq!(
            ["yarn", "linear", "dynamic", "default"].map(|kind| scaled(kind, json!({}))),
            [128, 128, 32, 32].map(Some)
        );
        assert_eq!(scaled("yarn", json!({ "original_max_position_embeddings": 8 })), Some(32));
        assert_eq!(scaled("linear", json!({ "model_type": "gemma3_text" })), Some(32));
        assert_eq!(
            scaled("linear", json!({ "rope_scaling": { "rope_type": "linear", "factor": 1e300 } })),
            Some(limits::CONFIG_SIZE as usize)
        );
        assert_eq!((of(json!({})), of(json!({ "max_position_embeddings": -1 }))), (None, None));
    }

    #[test]
    fn the_longest_text_is_what_the_files_say_within_the_positions() {
        let longest = |config, files: &[_]| card(config, files).longest_text().unwrap();
        assert_eq!(longest(json!({ "n_positions": 32 }), &[]), Some(32));
        let roberta = json!({ "model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1 });
        assert_eq!(longest(roberta, &[]), Some(512));
        assert_eq!(longest(json!({ "max_position_embeddings": -1 }), &[]), None);
        let tokenizer = ("tokenizer_config.json", r#"{ "model_max_length": 1e30 }"#);
        let sentence = ("sentence_bert_config.json", r#"{ "max_seq_length": 256 }"#);
        assert_eq!(longest(json!({}), &[tokenizer]), None);
        assert_eq!(longest(json!({ "n_ctx": 512 }), &[tokenizer, sentence]), Some(256));
        // sentence-transformers sets the tokenizer's limit to `max_seq_length`, be it shorter or longer.
        let short = ("tokenizer_config.json", r#"{ "model_max_length": 10 }"#);
        let null = ("sentence_bert_config.json", r#"{ "max_seq_length": null }"#);
        assert_eq!(longest(json!({ "n_ctx": 512 }), &[short, sentence]), Some(256));
        assert_eq!(longest(json!({ "n_ctx": 64 }), &[short, sentence]), Some(64));
        assert_eq!([longest(json!({}), &[short, null]), longest(json!({}), &[short])], [Some(10); 2]);
        let broken = card(json!({}), &[("tokenizer_config.json", "{")]);
        assert!(broken.longest_text().unwrap_err().to_string().contains("tokenizer_config.json"));
    }

    #[test]
    fn texts_are_truncated_to_the_limit_that_a_file_states_or_else_to_512_tokens() {
        let usual = |config, files: &[_]| card(config, files).usual_text().unwrap();
        let positions = json!({ "max_position_embeddings": 8192 });
        assert_eq!([usual(json!({}), &[]), usual(positions.clone(), &[])], [512, 512]);
        assert_eq!(usual(json!({ "max_position_embeddings": 128 }), &[]), 128);
        let sentence = ("sentence_bert_config.json", r#"{ "max_seq_length": 2048 }"#);
        let tokenizer = ("tokenizer_config.json", r#"{ "model_max_length": 1024 }"#);
        let unlimited = ("tokenizer_config.json", r#"{ "model_max_length": 1e30 }"#);
        assert_eq!(usual(positions.clone(), &[sentence]), 2048);
        assert_eq!(
            [usual(positions.clone(), &[tokenizer]), usual(positions.clone(), &[sentence, tokenizer])],
            [1024, 2048]
        );
        assert_eq!(usual(positions, &[unlimited]), 512);
        assert_eq!(usual(json!({ "max_position_embeddings": 1536 }), &[sentence]), 1536);
    }
}
