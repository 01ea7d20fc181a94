//! What an evaluation needs to know of a model's configuration files.

use crate::error::{Context, Result, error};
use crate::model::Model;
use serde_json::{Map, Value};

/// Architectures whose positions begin after the padding id, so that some of them are never used.
const SHIFTED: [&str; 4] = ["roberta", "xlm-roberta", "camembert", "xlm-roberta-xl"];
/// Keys of a `config.json` that hold the number of positions.
const POSITIONS: [&str; 5] = ["max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"];
/// Tokenizers that know no limit say so with a number as large as this or larger.
const NO_LIMIT: f64 = 1e12;

/// The most tokens a text may have for a model: what its configuration and its tokenizer's say; `None` if neither does.
pub fn longest_text(model: &Model) -> Result<Option<usize>> {
    let limit = |file: &str, key: &str| -> Result<Option<usize>> {
        let number = side_file(model, file)?.get(key).and_then(Value::as_f64);
        // Written as 1e30 by some.
        Ok(number.filter(|number| (1.0..NO_LIMIT).contains(number)).map(|number| number as usize))
    };
    let limits = [
        positions(&model.card().config),
        limit("tokenizer_config.json", "model_max_length")?,
        limit("sentence_bert_config.json", "max_seq_length")?,
    ];
    Ok(limits.into_iter().flatten().min())
}

/// The most tokens that a configuration says there are positions for; `None` if it does not say.
fn positions(config: &Map<String, Value>) -> Option<usize> {
    let size = |name: &str| config.get(name).and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
    let all = POSITIONS.iter().find_map(|name| size(name))?;
    let shifted = config.get("model_type").and_then(Value::as_str).is_some_and(|name| SHIFTED.contains(&name));
    let unused = if shifted { size("pad_token_id").unwrap_or(1).saturating_add(1) } else { 0 };
    Some(all.saturating_sub(unused)).filter(|length| *length > 0)
}

/// The names of classes by their number (`id2label`).
pub fn labels(model: &Model) -> Vec<(usize, String)> {
    let map = model.card().config.get("id2label").and_then(Value::as_object);
    let entry = |(index, name): (&String, &Value)| Some((index.parse().ok()?, name.as_str()?.to_owned()));
    map.into_iter().flatten().filter_map(entry).collect()
}

/// A JSON object beside a model; empty if it is not there.
fn side_file(model: &Model, name: &str) -> Result<Map<String, Value>> {
    let Some(content) = model.card().side_file(name) else { return Ok(Map::new()) };
    let parsed = serde_json::from_slice(&content.read()?).map_err(|e| error!(InvalidModel, "is not JSON: {e}"));
    parsed.at(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::ModelProto;
    use crate::source::{Card, SideContent, SideFile};
    use serde_json::json;

    fn model(config: Value, files: &[(&str, &'static str)]) -> Model {
        let file = |(name, content): &(&str, &'static str)| SideFile {
            name: (*name).to_owned(),
            content: SideContent::Bytes(content.as_bytes().into()),
        };
        let config = config.as_object().cloned().unwrap();
        let card = Card { config, side_files: files.iter().map(file).collect(), ..Card::default() };
        Model::assemble(ModelProto::default(), card, "m".as_ref(), Vec::new())
    }

    #[test]
    fn the_longest_text_is_the_least_that_any_file_says() {
        let longest = |config, files: &[_]| longest_text(&model(config, files)).unwrap();
        assert_eq!(longest(json!({ "n_positions": 32 }), &[]), Some(32));
        let roberta = json!({ "model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1 });
        assert_eq!(longest(roberta, &[]), Some(512));
        assert_eq!(longest(json!({ "max_position_embeddings": -1 }), &[]), None);
        let tokenizer = ("tokenizer_config.json", r#"{ "model_max_length": 1e30 }"#);
        let sentence = ("sentence_bert_config.json", r#"{ "max_seq_length": 256 }"#);
        assert_eq!(longest(json!({}), &[tokenizer]), None);
        assert_eq!(longest(json!({ "n_ctx": 512 }), &[tokenizer, sentence]), Some(256));
        let broken = model(json!({}), &[("tokenizer_config.json", "{")]);
        assert!(longest_text(&broken).unwrap_err().to_string().contains("tokenizer_config.json"));
    }

    #[test]
    fn labels_are_numbered() {
        let config = json!({ "id2label": { "0": "ham", "1": "spam", "x": "y", "2": 7 } });
        assert_eq!(labels(&model(config, &[])), [(0, "ham".to_owned()), (1, "spam".to_owned())]);
        assert!(labels(&model(json!({ "id2label": ["a"] }), &[])).is_empty());
    }
}
