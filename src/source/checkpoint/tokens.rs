//! Whether every token of a tokenizer has a row in the table of embeddings.

use crate::error::{Context, Result, error};
use crate::onnx::proto::ModelProto;
use crate::source::SideFile;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// How many tokens a message has room for.
const SHOWN: usize = 4;

/// A warning that names the tokens of `tokenizer.json` without a row in the table of `proto`: a text that holds one
/// fails. `None` if all have one, or there is no such file.
pub(in crate::source) fn without_rows(files: &[SideFile], proto: &ModelProto) -> Result<Option<String>> {
    let Some(file) = files.iter().find(|file| file.name == "tokenizer.json") else { return Ok(None) };
    let Some(rows) = rows(proto) else { return Ok(None) };
    let content = file.content.read()?;
    // A tokenizer that cannot be read is said to be so when it is used.
    let Ok(tokens) = beyond(&content, rows) else { return Ok(None) };
    let shown: Vec<String> = tokens.iter().take(SHOWN).map(|(id, token)| format!("{token:?} ({id})")).collect();
    let more = tokens.len().saturating_sub(SHOWN);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    let count = match tokens.len() {
        0 => return Ok(None),
        1 => "a token has".to_owned(),
        many => format!("{many} tokens have"),
    };
    let shown = shown.join(", ");
    Ok(Some(format!(
        "tokenizer.json: {count} no row in the table of {rows} embeddings: {shown}{rest}; texts with them fail"
    )))
}

/// Rows of the first table that ids are looked up in.
fn rows(proto: &ModelProto) -> Option<i64> {
    let graph = proto.graph.as_deref()?;
    let ids = |input: Option<&String>| input.is_some_and(|name| name == "input_ids");
    let gather = graph.node.iter().find(|node| node.op() == "Gather" && ids(node.input.get(1)))?;
    let table = gather.input.first()?;
    let tensor = graph.initializer.iter().find(|tensor| tensor.name.as_ref() == Some(table))?;
    tensor.dims.first().copied()
}

/// Tokens with ids from `rows` on, by id. Only they are kept, whatever the size of the file.
fn beyond(content: &[u8], rows: i64) -> Result<BTreeMap<i64, String>> {
    let mut found = BTreeMap::new();
    let mut from = serde_json::Deserializer::from_slice(content);
    from.deserialize_map(File { rows, found: &mut found })
        .map_err(|e| error!(InvalidModel, "{e}"))
        .at(|| "tokenizer.json")?;
    Ok(found)
}

/// The file: `added_tokens` is a list, `model.vocab` an object or a list of pieces with their scores.
struct File<'f> {
    rows: i64,
    found: &'f mut BTreeMap<i64, String>,
}

#[derive(Deserialize)]
struct Added {
    id: i64,
    content: String,
}

impl<'de> Visitor<'de> for File<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "added_tokens" => {
                    let added: Vec<Added> = map.next_value()?;
                    let beyond = added.into_iter().filter(|token| token.id >= self.rows);
                    self.found.extend(beyond.map(|token| (token.id, token.content)));
                }
                "model" => map.next_value_seed(Model { rows: self.rows, found: self.found })?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

struct Model<'f> {
    rows: i64,
    found: &'f mut BTreeMap<i64, String>,
}

impl<'de> serde::de::DeserializeSeed<'de> for Model<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Model<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "vocab" => map.next_value_seed(Vocabulary { rows: self.rows, found: self.found })?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

struct Vocabulary<'f> {
    rows: i64,
    found: &'f mut BTreeMap<i64, String>,
}

impl<'de> serde::de::DeserializeSeed<'de> for Vocabulary<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Vocabulary<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some((token, id)) = map.next_entry::<std::borrow::Cow<'de, str>, i64>()? {
            if id >= self.rows {
                self.found.insert(id, token.into_owned());
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<(), A::Error> {
        let mut id = 0;
        while let Some((token, _)) = list.next_element::<(std::borrow::Cow<'de, str>, f64)>()? {
            if id >= self.rows {
                self.found.insert(id, token.into_owned());
            }
            id += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tokens_beyond_the_table_are_found_in_both_kinds_of_vocabulary() {
        let added = json!([{ "id": 3, "content": "<c>", "special": true }, { "id": 1, "content": "b" }]);
        let map = json!({ "added_tokens": added, "model": { "type": "BPE", "vocab": { "a": 0, "b": 1, "z": 2 }, "merges": ["a b"] } });
        let list = json!({ "model": { "vocab": [["a", -1.0], ["b", -2], ["z", 0]] }, "added_tokens": added });
        for tokenizer in [map, list] {
            let found = |rows| beyond(tokenizer.to_string().as_bytes(), rows).unwrap().into_iter().collect::<Vec<_>>();
            assert_eq!(found(2), [(2, "z".to_owned()), (3, "<c>".to_owned())]);
            assert!(found(4).is_empty());
        }
        assert!(beyond(b"{", 1).is_err() && beyond(b"[]", 1).is_err());
    }
}
