//! Tokenizers of whole words.
#![allow(dead_code)] // not every test file uses all of it

use serde_json::{Map, Value, json};

/// How a tokenizer joins words to a text.
#[derive(Clone, Copy)]
pub enum Join {
    /// With spaces between them.
    Spaces,
    /// Without a separator.
    Fuse,
}

/// Returns the content of a tokenizer.json in which each word is the token with the word's index, and unknown words are
/// the word `w0`.
pub fn tokenizer_of(words: impl IntoIterator<Item = String>, join: Join) -> String {
    let vocabulary: Map<String, Value> = words.into_iter().enumerate().map(|(id, word)| (word, json!(id))).collect();
    let decoder = match join {
        Join::Spaces => Value::Null,
        Join::Fuse => json!({ "type": "Fuse" }),
    };
    json!({ "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null,
        "pre_tokenizer": { "type": "Whitespace" }, "decoder": decoder,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "w0" } })
    .to_string()
}

/// Returns the content of a tokenizer.json in which the word `w17` is token 17, for `count` words.
pub fn numbered(count: usize, join: Join) -> String {
    tokenizer_of((0..count).map(|id| format!("w{id}")), join)
}
