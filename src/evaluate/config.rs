//! What an evaluation needs to know of a model's configuration files.

use crate::error::{Context, Result, error};
use crate::model::Model;
use serde_json::{Map, Value};

/// Architectures whose positions begin after the padding id, so that two of them are never used.
const SHIFTED: [&str; 4] = ["roberta", "xlm-roberta", "camembert", "xlm-roberta-xl"];
/// Tokenizers that know no limit say so with a number as large as this or larger.
const NO_LIMIT: u64 = 1 << 40;

/// The configuration of a model, in the form of a Hugging Face `config.json`; empty if it has none.
#[derive(Debug, Default)]
pub struct Config(Map<String, Value>);

impl Config {
    /// That of a model: as it was loaded, else the `config.json` beside it.
    pub fn of(model: &Model) -> Result<Config> {
        let card = model.card();
        if !card.config.is_empty() {
            return Ok(Config(card.config.clone()));
        }
        Ok(Config(side_file(model, "config.json")?))
    }

    /// The most tokens that the configuration says the model has positions for; `None` if it does not say.
    pub fn positions(&self) -> Option<usize> {
        let names = ["max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"];
        let size = names.iter().find_map(|name| self.size(name))?;
        let shifted = self.0.get("model_type").and_then(Value::as_str).is_some_and(|name| SHIFTED.contains(&name));
        let unused = if shifted { self.size("pad_token_id").unwrap_or(1) as usize + 1 } else { 0 };
        Some((size as usize).saturating_sub(unused)).filter(|length| *length > 0)
    }

    /// Heads of the cache of keys and values.
    pub fn cache_heads(&self) -> Result<i64> {
        let names = ["num_key_value_heads", "num_attention_heads", "n_head"];
        let heads = names.iter().find_map(|name| self.size(name));
        heads.ok_or_else(|| error!(Unsupported, "neither the model nor its configuration says how many heads it has"))
    }

    /// Elements of one key or value.
    pub fn head_size(&self) -> Result<i64> {
        let width = self.size("hidden_size").or_else(|| self.size("n_embd"));
        let heads = self.size("num_attention_heads").or_else(|| self.size("n_head"));
        let divided = width.zip(heads).map(|(width, heads)| width / heads);
        let size = self.size("head_dim").or(divided);
        size.ok_or_else(|| error!(Unsupported, "neither the model nor its configuration says how large a head is"))
    }

    /// The names of classes by their number (`id2label`).
    pub fn labels(&self) -> Vec<(usize, String)> {
        let map = self.0.get("id2label").and_then(Value::as_object);
        let entry = |(index, name): (&String, &Value)| Some((index.parse().ok()?, name.as_str()?.to_owned()));
        map.into_iter().flatten().filter_map(entry).collect()
    }

    fn size(&self, name: &str) -> Option<i64> {
        self.0.get(name).and_then(Value::as_i64).filter(|size| *size > 0)
    }
}

/// The most tokens a text may have for a model: what its configuration and its tokenizer's say; `None` if neither does.
pub fn longest_text(model: &Model) -> Result<Option<usize>> {
    let limit = |file: &str, key: &str| -> Result<Option<usize>> {
        let number = side_file(model, file)?.get(key).and_then(Value::as_f64);
        // Written as 1e30 by some.
        Ok(number.filter(|number| (1.0..NO_LIMIT as f64).contains(number)).map(|number| number as usize))
    };
    let limits = [
        Config::of(model)?.positions(),
        limit("tokenizer_config.json", "model_max_length")?,
        limit("sentence_bert_config.json", "max_seq_length")?,
    ];
    Ok(limits.into_iter().flatten().min())
}

/// A JSON object beside a model; empty if it is not there.
fn side_file(model: &Model, name: &str) -> Result<Map<String, Value>> {
    let Some(content) = model.card().side_file(name) else { return Ok(Map::new()) };
    let parsed = serde_json::from_slice(&content.read()?).map_err(|e| error!(InvalidModel, "is not JSON: {e}"));
    parsed.at(|| name.to_owned())
}

#[cfg(test)]
impl From<Value> for Config {
    fn from(value: Value) -> Config {
        Config(value.as_object().cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_come_from_the_names_that_families_use() {
        let llama = Config::from(json!({ "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
            "hidden_size": 40, "max_position_embeddings": 64 }));
        assert_eq!((llama.cache_heads().unwrap(), llama.head_size().unwrap(), llama.positions()), (2, 16, Some(64)));
        let gpt2 = Config::from(json!({ "n_head": 3, "n_embd": 24, "n_positions": 32, "head_dim": null }));
        assert_eq!((gpt2.cache_heads().unwrap(), gpt2.head_size().unwrap(), gpt2.positions()), (3, 8, Some(32)));
        let roberta =
            Config::from(json!({ "model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1 }));
        assert_eq!(roberta.positions(), Some(512));
        let empty = Config::default();
        assert_eq!((empty.positions(), empty.labels().len()), (None, 0));
        assert!(empty.cache_heads().is_err() && empty.head_size().is_err());
        assert_eq!(Config::from(json!({ "max_position_embeddings": -1 })).positions(), None);
    }

    #[test]
    fn labels_are_numbered() {
        let config = Config::from(json!({ "id2label": { "0": "ham", "1": "spam", "x": "y", "2": 7 } }));
        assert_eq!(config.labels(), [(0, "ham".to_owned()), (1, "spam".to_owned())]);
    }
}
