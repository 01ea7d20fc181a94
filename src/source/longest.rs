//! How long a text may be for a model, as the files beside it say.

use super::Card;
use crate::error::{Context, Result, error};
use serde_json::{Map, Value};

/// Architectures whose positions begin after the padding id, so that some of them are never used.
const SHIFTED: [&str; 4] = ["roberta", "xlm-roberta", "camembert", "xlm-roberta-xl"];
/// Keys of a `config.json` that hold the number of positions.
const POSITIONS: [&str; 5] = ["max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"];
/// Tokenizers that know no limit say so with a number as large as this or larger.
const NO_LIMIT: f64 = 1e12;

impl Card {
    /// The most tokens a text may have for the model: what its configuration and its tokenizer's say; `None` if
    /// neither does.
    pub fn longest_text(&self) -> Result<Option<usize>> {
        let limit = |file: &str, key: &str| -> Result<Option<usize>> {
            let number = self.object(file)?.get(key).and_then(Value::as_f64);
            // Written as 1e30 by some.
            Ok(number.filter(|number| (1.0..NO_LIMIT).contains(number)).map(|number| number as usize))
        };
        let limits = [
            positions(&self.config),
            limit("tokenizer_config.json", "model_max_length")?,
            limit("sentence_bert_config.json", "max_seq_length")?,
        ];
        Ok(limits.into_iter().flatten().min())
    }

    /// A JSON object beside the model; empty if it is not there.
    fn object(&self, name: &str) -> Result<Map<String, Value>> {
        let Some(content) = self.side_file(name) else { return Ok(Map::new()) };
        let parsed = serde_json::from_slice(&content.read()?).map_err(|e| error!(InvalidModel, "is not JSON: {e}"));
        parsed.at(|| name.to_owned())
    }
}

/// The most tokens that a configuration says there are positions for; `None` if it does not say.
fn positions(config: &Map<String, Value>) -> Option<usize> {
    let size = |name: &str| config.get(name).and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
    let all = POSITIONS.iter().find_map(|name| size(name))?;
    let shifted = config.get("model_type").and_then(Value::as_str).is_some_and(|name| SHIFTED.contains(&name));
    let unused = if shifted { size("pad_token_id").unwrap_or(1).saturating_add(1) } else { 0 };
    Some(all.saturating_sub(unused)).filter(|length| *length > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{SideContent, SideFile};
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
    fn the_longest_text_is_the_least_that_any_file_says() {
        let longest = |config, files: &[_]| card(config, files).longest_text().unwrap();
        assert_eq!(longest(json!({ "n_positions": 32 }), &[]), Some(32));
        let roberta = json!({ "model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1 });
        assert_eq!(longest(roberta, &[]), Some(512));
        assert_eq!(longest(json!({ "max_position_embeddings": -1 }), &[]), None);
        let tokenizer = ("tokenizer_config.json", r#"{ "model_max_length": 1e30 }"#);
        let sentence = ("sentence_bert_config.json", r#"{ "max_seq_length": 256 }"#);
        assert_eq!(longest(json!({}), &[tokenizer]), None);
        assert_eq!(longest(json!({ "n_ctx": 512 }), &[tokenizer, sentence]), Some(256));
        let broken = card(json!({}), &[("tokenizer_config.json", "{")]);
        assert!(broken.longest_text().unwrap_err().to_string().contains("tokenizer_config.json"));
    }
}
