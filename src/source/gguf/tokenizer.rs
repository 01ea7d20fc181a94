//! The tokenizer inside a GGUF file as a Hugging Face `tokenizer.json`.
//!
//! Two kinds are supported: "gpt2", byte pairs over byte-level text with listed merges; and "llama", SentencePiece byte
//! pairs with scores, which become merges in the order of the scores (and a list of equal ones), with byte fallback.

use super::pretokenize::Cutting;
use super::values::Keys;
use super::vocabulary::{Scored, SpecialIds, TokenKind, Vocabulary};
use crate::error::{Context, Result, bail};
use crate::limits;
use crate::text::sentencepiece::KEY;
use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use std::borrow::Cow;

/// The character with which SentencePiece replaces a space.
const SPACE: &str = "\u{2581}";

/// The tokenizer of a file, as the files of a Hugging Face tokenizer.
pub struct Described {
    /// Content of `tokenizer.json`.
    pub tokenizer: Bytes,
    /// Content of `tokenizer_config.json`.
    pub tokenizer_config: Value,
    /// Ids of special tokens.
    pub ids: SpecialIds,
    /// Number of tokens.
    pub tokens: usize,
}

/// Returns the tokenizer of a file; `None` if the file has none. Fails with `Unsupported` for another kind of tokenizer
/// or pre-tokenizer, `InvalidModel` if the vocabulary is damaged, and `LimitExceeded` if it exceeds a limit.
pub fn describe(keys: &Keys) -> Result<Option<Described>> {
    match keys.text("tokenizer.ggml.model")? {
        None | Some("none" | "no_vocab") => Ok(None),
        Some("gpt2") => {
            let cutting = Cutting::named(keys.text("tokenizer.ggml.pre")?.unwrap_or("default"))?;
            let vocabulary = Vocabulary::read(keys)?;
            let merges = vocabulary.listed_merges(keys)?;
            let parts = byte_level(cutting, &vocabulary, merges);
            finish(keys, &vocabulary, parts, cutting.add_bos, None).map(Some)
        }
        Some("llama") => {
            let vocabulary = Vocabulary::read(keys)?;
            let Scored { merges, equal } = vocabulary.scored_merges(keys)?;
            let prefix = keys.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
            let parts = sentence_piece(prefix, keys, &vocabulary, merges)?;
            finish(keys, &vocabulary, parts, true, Some(equal)).map(Some)
        }
        Some(other) => {
            bail!(Unsupported, "the tokenizer type is {other:?}; supported are \"gpt2\" and \"llama\"")
        }
    }
}

/// The parts of a tokenizer that differ between kinds.
struct Parts<'v> {
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    model: Model<'v>,
}

fn byte_level<'v>(cutting: &Cutting, vocabulary: &'v Vocabulary<'_>, merges: Vec<(&'v str, &'v str)>) -> Parts<'v> {
    let split = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let steps: Vec<Value> = cutting.patterns.iter().map(split).chain([bytes.clone()]).collect();
    Parts {
        normalizer: if cutting.composed { json!({"type": "NFC"}) } else { Value::Null },
        pre_tokenizer: json!({"type": "Sequence", "pretokenizers": steps}),
        decoder: bytes,
        model: Model {
            kind: "BPE",
            unknown: None,
            fuse_unknown: false,
            byte_fallback: false,
            whole_pieces_first: cutting.whole_pieces_first,
            tokens: Ids(&vocabulary.tokens),
            merges,
        },
    }
}

fn sentence_piece<'v>(
    prefix: bool,
    keys: &Keys,
    vocabulary: &'v Vocabulary<'_>,
    merges: Vec<(&'v str, &'v str)>,
) -> Result<Parts<'v>> {
    let unknown = vocabulary.special_ids(keys)?.unknown;
    let unknown = unknown.or_else(|| vocabulary.kinds.iter().position(|k| *k == TokenKind::Unknown).map(|i| i as u32));
    let bytes = (0..=255u8).all(|byte| vocabulary.id(&format!("<0x{byte:02X}>")).is_some());
    let marked = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let begun = json!({"type": "Prepend", "prepend": SPACE});
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(Parts {
        normalizer: match prefix {
            true => json!({"type": "Sequence", "normalizers": [begun, marked]}),
            false => marked,
        },
        pre_tokenizer: Value::Null,
        decoder: json!({"type": "Sequence", "decoders": decoders}),
        model: Model {
            kind: "BPE",
            unknown: unknown.map(|id| vocabulary.text(id)),
            fuse_unknown: unknown.is_some(),
            byte_fallback: bytes,
            whole_pieces_first: false,
            tokens: Ids(&vocabulary.tokens),
            merges,
        },
    })
}

/// Returns the complete tokenizer. `equal` are merges with equal scores, for a SentencePiece vocabulary.
fn finish(
    keys: &Keys,
    vocabulary: &Vocabulary<'_>,
    parts: Parts<'_>,
    add_bos: bool,
    equal: Option<Vec<(usize, usize)>>,
) -> Result<Described> {
    let ids = vocabulary.special_ids(keys)?;
    let flag = |name: &str, default: bool| -> Result<bool> {
        Ok(keys.flag(&format!("tokenizer.ggml.{name}"))?.unwrap_or(default))
    };
    let (add_bos, add_eos) = (flag("add_bos_token", add_bos)?, flag("add_eos_token", false)?);
    let (bos, eos) = (ids.bos.filter(|_| add_bos), ids.eos.filter(|_| add_eos));
    let tokenizer = Tokenizer {
        version: "1.0",
        added: added(vocabulary),
        normalizer: parts.normalizer,
        pre_tokenizer: parts.pre_tokenizer,
        post_processor: template(vocabulary, bos, eos),
        decoder: parts.decoder,
        model: parts.model,
    };
    let mut content = Limited(Vec::new());
    if let Err(e) = serde_json::to_writer(&mut content, &tokenizer) {
        bail!(LimitExceeded, "the tokenizer cannot be written: {e}");
    }
    let text = |id: Option<u32>| id.map(|id| vocabulary.text(id));
    let template = keys.text("tokenizer.chat_template").at(|| "tokenizer")?;
    let mut tokenizer_config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": text(ids.bos),
        "eos_token": text(ids.eos),
        "unk_token": text(ids.unknown),
        "pad_token": text(ids.pad),
        "add_bos_token": add_bos,
        "add_eos_token": add_eos,
        "clean_up_tokenization_spaces": false,
        "chat_template": template,
    });
    if let Some(equal) = equal {
        tokenizer_config[KEY] = json!(equal);
    }
    Ok(Described { tokenizer: content.0.into(), tokenizer_config, ids, tokens: vocabulary.tokens.len() })
}

/// Returns the tokens that are matched in a text before all other steps.
fn added(vocabulary: &Vocabulary<'_>) -> Vec<Value> {
    let entry = |(id, (text, kind)): (usize, (&Cow<'_, str>, &TokenKind))| {
        let special = match kind {
            TokenKind::Control | TokenKind::Unknown => true,
            TokenKind::UserDefined => false,
            TokenKind::Normal | TokenKind::Unused | TokenKind::Byte => return None,
        };
        Some(json!({
            "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special,
        }))
    };
    vocabulary.tokens.iter().zip(&vocabulary.kinds).enumerate().filter_map(entry).collect()
}

/// Returns the step that adds special tokens around a text; null if none are added.
fn template(vocabulary: &Vocabulary<'_>, bos: Option<u32>, eos: Option<u32>) -> Value {
    if bos.is_none() && eos.is_none() {
        return Value::Null;
    }
    let token =
        |id: Option<u32>, kind: u32| id.map(|id| json!({"SpecialToken": {"id": vocabulary.text(id), "type_id": kind}}));
    let part = |name: &str, kind: u32| -> Vec<Value> {
        let sequence = json!({"Sequence": {"id": name, "type_id": kind}});
        token(bos, kind).into_iter().chain([sequence]).chain(token(eos, kind)).collect()
    };
    let specials: serde_json::Map<String, Value> = bos
        .into_iter()
        .chain(eos)
        .map(|id| {
            let text = vocabulary.text(id);
            (text.to_owned(), json!({"id": text, "ids": [id], "tokens": [text]}))
        })
        .collect();
    let pair = [part("A", 0), part("B", 1)].concat();
    json!({
        "type": "TemplateProcessing",
        "single": part("A", 0),
        "pair": pair,
        "special_tokens": specials,
    })
}

/// A buffer of bytes of at most the size of a side file. Writing more fails.
struct Limited(Vec<u8>);

impl std::io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if (self.0.len() + bytes.len()) as u64 > limits::SIDE_FILE_BYTES {
            return Err(std::io::Error::other(format!("it has more than {} bytes", limits::SIDE_FILE_BYTES)));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The content of a `tokenizer.json`, which is written without building it in memory first, because vocabularies are
/// large.
#[derive(Serialize)]
struct Tokenizer<'v> {
    version: &'static str,
    #[serde(rename = "added_tokens")]
    added: Vec<Value>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: Model<'v>,
}

/// The byte-pair model of a `tokenizer.json`.
#[derive(Serialize)]
struct Model<'v> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "unk_token")]
    unknown: Option<&'v str>,
    #[serde(rename = "fuse_unk")]
    fuse_unknown: bool,
    byte_fallback: bool,
    #[serde(rename = "ignore_merges")]
    whole_pieces_first: bool,
    #[serde(rename = "vocab")]
    tokens: Ids<'v>,
    merges: Vec<(&'v str, &'v str)>,
}

/// The tokens with their ids, as a JSON object.
struct Ids<'v>(&'v [Cow<'v, str>]);

impl Serialize for Ids<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().enumerate().map(|(id, token)| (token.as_ref(), id)))
    }
}
