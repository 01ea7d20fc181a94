//! The facts about a model that are not in its graph, such as its origin, its task and its chat template ([`Card`]).

use super::contract::Contract;
use crate::error::{Result, bail};
use crate::{files, limits};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::sync::Arc;

/// The kind of file or folder that a model came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// A single ONNX file.
    #[default]
    Onnx,
    /// A folder with an ONNX file and the files around it (optimum, sentence-transformers …).
    OnnxFolder,
    /// A folder for onnxruntime-genai.
    GenaiFolder,
    /// A folder for transformers.js.
    TransformersJs,
    /// A Hugging Face checkpoint: config.json and safetensors.
    Checkpoint,
    /// A GGUF file.
    Gguf,
    /// A package of this library.
    Package,
    /// A model that was created in memory.
    Memory,
}

/// The task of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Text generation: a decoder with logits over a vocabulary.
    Generate,
    /// Text embedding.
    Embed,
    /// Classification, or the computation of scores.
    Classify,
    /// The prediction of masked tokens.
    FillMask,
    /// Another task, or one that could not be determined.
    #[default]
    Unknown,
}

/// The method by which token vectors become one vector for a text (sentence-transformers `1_Pooling/config.json`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The mean over the tokens, without padding.
    #[default]
    Mean,
    /// The vector of the first token.
    Cls,
    /// The maximum of each element over the tokens.
    Max,
    /// The vector of the last token.
    LastToken,
    /// The sum over the tokens, without padding, divided by the square root of their number.
    MeanSqrtLen,
    /// The mean over the tokens, without padding, weighted by position from 1.
    WeightedMean,
}

/// The token ids and defaults for text generation, from `generation_config.json`, otherwise from `config.json`,
/// otherwise from the keys of a GGUF file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct GenerationDefaults {
    /// Ids of the tokens that end a text; empty if none are given.
    pub eos_token_ids: Vec<i64>,
    /// Id of the token that begins a text; `None` if the model uses none.
    pub bos_token_id: Option<i64>,
    /// Id of the token that pads the shorter rows of a batch; `None` if it is not given.
    pub pad_token_id: Option<i64>,
    /// Recommended sampling parameters, by the names of `generation_config.json` (`temperature` …).
    pub sampling: Map<String, Value>,
}

/// A file that belongs to a model and is copied with it.
#[derive(Debug, Clone)]
pub struct SideFile {
    /// Name inside the model's folder, for example `tokenizer.json`.
    pub name: String,
    /// Content of the file.
    pub content: SideContent,
}

/// The content of a [`SideFile`].
#[derive(Debug, Clone)]
pub enum SideContent {
    /// Path of a file next to the model.
    Path(PathBuf),
    /// Content that was created while loading (the tokenizer inside a GGUF file …).
    Bytes(Bytes),
}

/// The facts about a model that are not in its graph. Techniques copy them to their results.
///
/// The manifest of a package contains all fields without `#[serde(skip)]`. Of the others, a package stores the side
/// files, the contract and the lineage elsewhere.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Card {
    /// Kind of file or folder that the model came from.
    #[serde(skip)]
    pub format: Format,
    /// Architecture of the model, for example `llama` or `bert`; `None` if unknown.
    pub architecture: Option<String>,
    /// Task of the model.
    pub task: Task,
    /// Configuration in the form of a Hugging Face `config.json`; empty if there is none.
    pub config: Map<String, Value>,
    /// Generation defaults, for decoders.
    pub generation: GenerationDefaults,
    /// Chat template (Jinja); `None` if the model has none.
    pub chat_template: Option<String>,
    /// Pooling of token vectors, for embedding models; `None` if no file says it.
    pub pooling: Option<Pooling>,
    /// Files that are copied with the model, such as its tokenizer and configuration.
    #[serde(skip)]
    pub side_files: Vec<SideFile>,
    /// Shape contract of a package, which sessions enforce; `None` for other models.
    #[serde(skip)]
    pub contract: Option<Arc<Contract>>,
    /// Unexpected properties of the model: unused content of its files, inconsistencies.
    #[serde(skip)]
    pub warnings: Vec<String>,
    /// Reports of the steps that led to the model, oldest first, as far as packages have kept them.
    #[serde(skip)]
    pub lineage: Vec<Value>,
}

impl Card {
    /// Returns the content of a side file; `None` if there is no file of that name.
    pub fn side_file(&self, name: &str) -> Option<&SideContent> {
        self.side_files.iter().find(|f| f.name == name).map(|f| &f.content)
    }

    /// Returns the pairs of class index and name in `id2label` of the configuration, in its order; empty if it has
    /// none.
    pub fn class_names(&self) -> Vec<(usize, String)> {
        let map = self.config.get("id2label").and_then(Value::as_object);
        let entry = |(index, name): (&String, &Value)| Some((index.parse().ok()?, name.as_str()?.to_owned()));
        map.into_iter().flatten().filter_map(entry).collect()
    }

    /// Returns the value of a key of the configuration; `None` if the key is missing or its value is not an integer.
    pub fn integer(&self, key: &str) -> Option<i64> {
        self.config.get(key).and_then(Value::as_i64)
    }
}

impl SideFile {
    /// Returns the path of the file, or its name if it is in memory, for messages.
    pub fn place(&self) -> String {
        match &self.content {
            SideContent::Path(path) => path.display().to_string(),
            SideContent::Bytes(_) => self.name.clone(),
        }
    }
}

impl SideContent {
    /// Returns the content, which is read if it is in a file. Fails with [`crate::error::Kind::LimitExceeded`] above
    /// [`limits::SIDE_FILE_BYTES`], and with `NotFound` or `Io` if the file cannot be read.
    pub fn read(&self) -> Result<Bytes> {
        self.read_within(limits::SIDE_FILE_BYTES)
    }

    /// Returns the content like [`SideContent::read`], with `limit` as the maximum number of bytes. Fails like
    /// [`SideContent::read`], with `LimitExceeded` above `limit`.
    pub fn read_within(&self, limit: u64) -> Result<Bytes> {
        match self {
            SideContent::Bytes(bytes) if bytes.len() as u64 > limit => {
                bail!(LimitExceeded, "the file has {} bytes; the limit is {limit}", bytes.len())
            }
            SideContent::Bytes(bytes) => Ok(bytes.clone()),
            SideContent::Path(path) => Ok(files::read(path, limit)?.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes_are_numbered() {
        let labels =
            |config: Value| Card { config: config.as_object().cloned().unwrap(), ..Card::default() }.class_names();
        let config = json!({ "id2label": { "0": "ham", "1": "spam", "x": "y", "2": 7 } });
        assert_eq!(labels(config), [(0, "ham".to_owned()), (1, "spam".to_owned())]);
        assert!(labels(json!({ "id2label": ["a"] })).is_empty());
    }
}
