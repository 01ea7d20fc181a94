//! What an evaluation needs to know of a model's configuration.

use crate::source::Card;
use serde_json::Value;

/// The names of classes by their number (`id2label`).
pub fn labels(card: &Card) -> Vec<(usize, String)> {
    let map = card.config.get("id2label").and_then(Value::as_object);
    let entry = |(index, name): (&String, &Value)| Some((index.parse().ok()?, name.as_str()?.to_owned()));
    map.into_iter().flatten().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_are_numbered() {
        let labels = |config: Value| labels(&Card { config: config.as_object().cloned().unwrap(), ..Card::default() });
        let config = json!({ "id2label": { "0": "ham", "1": "spam", "x": "y", "2": 7 } });
        assert_eq!(labels(config), [(0, "ham".to_owned()), (1, "spam".to_owned())]);
        assert!(labels(json!({ "id2label": ["a"] })).is_empty());
    }
}
