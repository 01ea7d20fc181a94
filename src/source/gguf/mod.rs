//! GGUF files: weights, tokenizer and chat template in one file, converted to a graph.
//!
//! ```text
//! header.rs       content of the file (values.rs, reader.rs, types.rs below it)
//! names.rs        tensor names in a checkpoint                weights.rs   tensor contents in a checkpoint
//! config.rs       sizes and switches (rope.rs: rotary embeddings)
//! tokenizer.rs    tokenizer (vocabulary.rs, pretokenize.rs)
//! dequantize.rs   unpacks blocks of integers
//! ```
//!
//! The result is equivalent to a checkpoint of the same model: it has the same names, a `config.json` with the same
//! keys, and the graph of the same builder, in which quantized blocks stay quantized (see [`super::blocks`]).

mod config;
pub mod dequantize;
mod header;
mod names;
mod pretokenize;
mod reader;
mod rope;
mod scope;
mod tokenizer;
mod types;
mod values;
mod vocabulary;
mod weights;

pub use header::{Header, TensorInfo};

use super::weights::{Form, Weights};
use super::{Dialect, LoadOptions, checkpoint};
use crate::error::{Result, bail, error};
use crate::model::{Card, Format, GenerationDefaults, Model, SideContent, SideFile};
use crate::text::Tokenizer;
use crate::{files, limits, threads};
use bytes::Bytes;
use names::Architecture;
use serde_json::{Map, Value, json};
use std::path::Path;
use tokenizer::Described;
use weights::GgufWeights;

/// A GGUF file that was read, but whose graph is not built yet.
pub struct Gguf {
    header: Header,
    architecture: &'static Architecture,
    /// Configuration with the keys of a Hugging Face `config.json`.
    pub config: Map<String, Value>,
    heads: i64,
    key_value_heads: i64,
    tokenizer: Option<Described>,
}

impl Gguf {
    /// Reads the header and the metadata of the GGUF file with the content `file`, and returns the file. Errors name
    /// the key or tensor, if one is invalid.
    ///
    /// Fails with [`crate::error::Kind::InvalidModel`] for damaged files, `LimitExceeded` for sizes beyond the limits,
    /// and `Unsupported` for an unknown architecture, tokenizer or element type, and for one of several files of a
    /// model.
    pub fn read(file: &Bytes) -> Result<Gguf> {
        let header = Header::read(file)?;
        let name = header.keys.text("general.architecture")?;
        let name = name.ok_or_else(|| error!(InvalidModel, "the file has no \"general.architecture\""))?;
        let architecture = Architecture::named(name)?;
        if let Some(parts) = header.keys.integer("split.count")?.filter(|count| *count > 1) {
            bail!(Unsupported, "this is one of {parts} files of a model: merge them first");
        }
        let tokenizer = tokenizer::describe(&header.keys)?;
        let configured = config::configure(&header, architecture)?;
        let mut config = configured.config;
        let vocabulary = config.get("vocab_size").and_then(Value::as_i64).unwrap_or(0);
        if let Some(tokenizer) = &tokenizer {
            if tokenizer.tokens as i64 > vocabulary {
                bail!(
                    InvalidModel,
                    "the tokenizer has {} tokens, but the embedding table has {vocabulary} rows",
                    tokenizer.tokens
                );
            }
            config.extend(token_ids(tokenizer));
        }
        let (heads, key_value_heads) = (configured.heads, configured.key_value_heads);
        Ok(Gguf { header, architecture, config, heads, key_value_heads, tokenizer })
    }

    /// Returns the tensors under the names of a checkpoint. Fails with `Unsupported` for a tensor of an unknown name or
    /// of an element type that is not supported.
    pub fn weights(&self) -> Result<impl Weights> {
        self.stored()
    }

    fn stored(&self) -> Result<GgufWeights<'_>> {
        GgufWeights::new(&self.header, self.architecture, self.heads as usize, self.key_value_heads as usize)
    }

    /// Returns the card of the model. Files that a checkpoint's folder would have are created from the metadata.
    fn card(&self) -> Result<Card> {
        let file =
            |name: &str, content: Bytes| SideFile { name: name.to_owned(), content: SideContent::Bytes(content) };
        let json = |value: &Value| Bytes::from(format!("{value:#}\n"));
        let config = Value::Object(self.config.clone());
        let mut card = Card {
            format: Format::Gguf,
            architecture: Some(self.architecture.model_type.to_owned()),
            config: self.config.clone(),
            chat_template: self.header.keys.text("tokenizer.chat_template")?.map(str::to_owned),
            side_files: vec![file("config.json", json(&config))],
            ..Card::default()
        };
        if let Some(described) = &self.tokenizer {
            card.side_files.push(file("generation_config.json", json(&Value::Object(token_ids(described)))));
            card.side_files.push(file("tokenizer.json", described.tokenizer.clone()));
            card.side_files.push(file("tokenizer_config.json", json(&described.tokenizer_config)));
            card.generation = GenerationDefaults {
                eos_token_ids: described.ids.ends.iter().map(|id| i64::from(*id)).collect(),
                bos_token_id: described.ids.bos.map(i64::from),
                pad_token_id: described.ids.pad.map(i64::from),
                sampling: Map::new(),
            };
        }
        Ok(card)
    }
}

/// Returns the ids of special tokens with the keys of a `generation_config.json`; ids that do not exist are omitted.
fn token_ids(described: &Described) -> Map<String, Value> {
    let ids = &described.ids;
    let ends = match ids.ends[..] {
        [] => Value::Null,
        [one] => json!(one),
        ref many => json!(many),
    };
    let entries = [("bos_token_id", json!(ids.bos)), ("eos_token_id", ends), ("pad_token_id", json!(ids.pad))];
    entries.into_iter().filter(|(_, id)| !id.is_null()).map(|(name, id)| (name.to_owned(), id)).collect()
}

/// Returns the `tokenizer.json` for a GGUF file, which need not contain a model; `None` if it has no tokenizer. Fails
/// with `InvalidModel` if the file is damaged, `LimitExceeded` for sizes beyond the limits, and `Unsupported` for an
/// unknown kind of tokenizer.
pub fn tokenizer_json(file: &Bytes) -> Result<Option<Bytes>> {
    Ok(tokenizer::describe(&Header::read(file)?.keys)?.map(|described| described.tokenizer))
}

/// Returns the tokenizer inside a GGUF file; `None` if it has none. Fails like [`tokenizer_json`].
pub fn tokenizer(file: &Bytes) -> Result<Option<Tokenizer>> {
    let Some(described) = tokenizer::describe(&Header::read(file)?.keys)? else { return Ok(None) };
    let config = Bytes::from(serde_json::to_vec(&described.tokenizer_config).unwrap_or_default());
    let beside = |name: &str| Ok((name == "tokenizer_config.json").then(|| config.clone()));
    Tokenizer::with_files(&described.tokenizer, &beside).map(Some)
}

/// Loads a GGUF file and returns the model.
///
/// Plain weights stay in the mapped file, which must not be truncated while the model lives; blocks and weights that
/// are changed are written to an unlinked file in the folder for temporary files. Memory stays near the size of the
/// largest tensor. Fails with `NotFound` or `Io` if the file cannot be read or a temporary file cannot be written, and
/// otherwise like [`Gguf::read`] and [`checkpoint::build`].
pub fn load(path: &Path, options: &LoadOptions) -> Result<Model> {
    from_bytes(files::map(&files::open(path)?, limits::DATA_FILE_BYTES)?, path, options)
}

/// Loads the content of a GGUF file like [`load`]; `path` is recorded as the origin of the model. Fails like [`load`].
pub fn from_bytes(bytes: Bytes, path: &Path, options: &LoadOptions) -> Result<Model> {
    let gguf = Gguf::read(&bytes)?;
    let weights = gguf.weights()?;
    let built = threads::in_pool(|| checkpoint::build(&gguf.config, &weights, options.dialect))?;
    let card = Card { task: built.task, warnings: built.warnings, ..gguf.card()? };
    Ok(Model::assemble(built.proto, card, path, vec![(path.to_owned(), bytes)]))
}

/// A GGUF model with its blocks converted to floats.
pub struct Floats {
    /// Model with float weights.
    pub model: Model,
    /// Number of bits per weight of each tensor that was stored in blocks.
    pub bits: Vec<u32>,
}

/// Returns `model`, which [`load`] has returned, with its blocks converted to floats, so that it can be quantized in
/// another form. Returns `None` for any other model, also for one that was derived from such a model, for example by
/// pruning. The floats are in an unlinked file in the folder for temporary files. Fails like [`load`], and with `Io` if
/// that file cannot be written.
pub fn as_floats(model: &Model) -> Result<Option<Floats>> {
    let (Format::Gguf, Some(bytes)) = (model.card().format, model.file()) else { return Ok(None) };
    let gguf = Gguf::read(bytes)?;
    let floats = gguf.stored()?.floats();
    let built = threads::in_pool(|| checkpoint::build(&gguf.config, &floats, Dialect::Runtime))?;
    let bits = gguf.header.tensors.iter().filter_map(|tensor| match tensor.element.form {
        Some(Form::Blocks(form)) => Some(form.layout().bits),
        _ => None,
    });
    Ok(Some(Floats { bits: bits.collect(), model: model.derive(built.proto) }))
}
