//! The check that every token of a tokenizer has a row in the embedding table.

use crate::error::{Context, Result, error};
use crate::model::SideFile;
use crate::onnx::proto::ModelProto;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// The maximum number of tokens in a message.
const SHOWN: usize = 4;

/// Returns a warning about the tokens of `tokenizer.json` without a row in the embedding table of `proto`: a text that
/// contains one fails. Returns `None` if every token has a row, if there is no such file or table, or if the file is
/// damaged.
pub(in crate::source) fn without_rows(files: &[SideFile], proto: &ModelProto) -> Result<Option<String>> {
    let Some(file) = files.iter().find(|file| file.name == "tokenizer.json") else { return Ok(None) };
    let Some(rows) = rows(proto) else { return Ok(None) };
    let content = file.content.read()?;
    // A tokenizer that cannot be read is reported when it is used.
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
        "tokenizer.json: {count} no row in the embedding table of {rows} rows: {shown}{rest}; texts with them fail"
    )))
}

/// Returns the number of rows of the first table that token ids index; `None` if there is no such table.
fn rows(proto: &ModelProto) -> Option<i64> {
    let graph = proto.graph.as_deref()?;
    let ids = |input: Option<&String>| input.is_some_and(|name| name == "input_ids");
    let gather = graph.node.iter().find(|node| node.op() == "Gather" && ids(node.input.get(1)))?;
    let table = gather.input.first()?;
    let tensor = graph.initializer.iter().find(|tensor| tensor.name.as_ref() == Some(table))?;
    tensor.dims.first().copied()
}

/// Returns the tokens with ids from `rows` on, by id. Only these are kept in memory, for any size of the file.
fn beyond(content: &[u8], rows: i64) -> Result<BTreeMap<i64, String>> {
    let mut found = BTreeMap::new();
    let mut from = serde_json::Deserializer::from_slice(content);
    Part { level: Level::File, rows, found: &mut found }
        .deserialize(&mut from)
        .map_err(|e| error!(InvalidModel, "{e}"))
        .at(|| "tokenizer.json")?;
    Ok(found)
}

#[derive(Deserialize)]
struct Added {
    id: i64,
    content: String,
}

/// The location of a [`Part`] in the file: the file has a list `added_tokens` and an object `model` with a `vocab`,
/// which is an object of ids or a list of pieces with their scores.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    File,
    Model,
    Vocabulary,
}

/// A part of the file, which is read piece by piece.
struct Part<'f> {
    level: Level,
    rows: i64,
    found: &'f mut BTreeMap<i64, String>,
}

impl Part<'_> {
    fn add(&mut self, id: i64, token: impl Into<String>) {
        if id >= self.rows {
            self.found.insert(id, token.into());
        }
    }

    fn inner(&mut self, level: Level) -> Part<'_> {
        Part { level, rows: self.rows, found: self.found }
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.level == Level::Vocabulary { "an object or a list" } else { "an object" })
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match (self.level, key.as_ref()) {
                (Level::Vocabulary, _) => {
                    let id = map.next_value()?;
                    self.add(id, key);
                }
                (Level::File, "added_tokens") => {
                    let added: Vec<Added> = map.next_value()?;
                    added.into_iter().for_each(|token| self.add(token.id, token.content));
                }
                (Level::File, "model") => map.next_value_seed(self.inner(Level::Model))?,
                (Level::Model, "vocab") => map.next_value_seed(self.inner(Level::Vocabulary))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> std::result::Result<(), A::Error> {
        if self.level != Level::Vocabulary {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        let mut id = 0;
        while let Some((token, _)) = list.next_element::<(Cow<'de, str>, f64)>()? {
            self.add(id, token);
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
