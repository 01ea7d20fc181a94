//! What is known about a model besides its graph: where it came from, what it is for, how to talk to it.

use super::contract::Contract;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::sync::Arc;

/// The kind of file or folder a model came from.
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
    /// A package of ours.
    Package,
    /// Made in memory.
    Memory,
}

/// What a model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Writes text: a decoder with logits over a vocabulary.
    Generate,
    /// Turns text into vectors.
    Embed,
    /// Turns text into classes or scores.
    Classify,
    /// Fills masked tokens.
    FillMask,
    /// Not known.
    #[default]
    Unknown,
}

/// How token vectors become one vector for a text (sentence-transformers `1_Pooling/config.json`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// Mean over the tokens that are no padding.
    #[default]
    Mean,
    /// The first token.
    Cls,
    /// The largest value in each dimension.
    Max,
    /// The last token.
    LastToken,
    /// The sum of the tokens that are no padding, by the root of their number.
    MeanSqrtLen,
    /// Mean over the tokens that are no padding, each weighted by its place, from 1 on.
    WeightedMean,
}

/// Token ids and defaults for writing text (`generation_config.json`, else `config.json`, else GGUF keys).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct GenerationDefaults {
    /// Any of these ends a text.
    pub eos_token_ids: Vec<i64>,
    /// Begins a text, for models that want it.
    pub bos_token_id: Option<i64>,
    /// Fills rows up.
    pub pad_token_id: Option<i64>,
    /// Sampling defaults of the model's makers, by the names of `generation_config.json` (`temperature` …).
    pub sampling: Map<String, Value>,
}

/// A file that belongs to a model and travels with it.
#[derive(Debug, Clone)]
pub struct SideFile {
    /// Name inside the model's folder, e.g. `tokenizer.json`.
    pub name: String,
    /// Where its content is.
    pub content: SideContent,
}

/// Content of a [`SideFile`].
#[derive(Debug, Clone)]
pub enum SideContent {
    /// In a file beside the model.
    Path(PathBuf),
    /// Made while loading (the tokenizer inside a GGUF file …).
    Bytes(Bytes),
}

/// What is known about a model besides its graph. Techniques hand it on to their results.
#[derive(Debug, Clone, Default)]
pub struct Card {
    /// Where the model came from.
    pub format: Format,
    /// The architecture, e.g. `llama`, `bert`; `None` if nothing says so.
    pub architecture: Option<String>,
    /// What the model does.
    pub task: Task,
    /// The configuration in the form of a Hugging Face `config.json`; empty if there is none.
    pub config: Map<String, Value>,
    /// For models that write text.
    pub generation: GenerationDefaults,
    /// The chat template (Jinja), if the model has one.
    pub chat_template: Option<String>,
    /// For models that embed text.
    pub pooling: Option<Pooling>,
    /// Files that travel with the model: tokenizer, configuration …
    pub side_files: Vec<SideFile>,
    /// Sizes that inputs may have, if the model comes from a package: sessions keep to them.
    pub contract: Option<Arc<Contract>>,
    /// What the user may not expect of the model: what its files say and is not used, what does not fit together.
    pub warnings: Vec<String>,
    /// Reports of what was done to the model, oldest first, as far as packages have kept them.
    pub lineage: Vec<Value>,
}

impl Card {
    /// The content of a side file; `None` if there is none of that name.
    pub fn side_file(&self, name: &str) -> Option<&SideContent> {
        self.side_files.iter().find(|f| f.name == name).map(|f| &f.content)
    }

    /// The names of classes by their number (`id2label`).
    pub fn class_names(&self) -> Vec<(usize, String)> {
        let map = self.config.get("id2label").and_then(Value::as_object);
        let entry = |(index, name): (&String, &Value)| Some((index.parse().ok()?, name.as_str()?.to_owned()));
        map.into_iter().flatten().filter_map(entry).collect()
    }

    /// An integer of the configuration.
    pub fn integer(&self, key: &str) -> Option<i64> {
        self.config.get(key).and_then(Value::as_i64)
    }
}

impl SideContent {
    /// Reads the content.
    pub fn read(&self) -> crate::error::Result<Bytes> {
        match self {
            SideContent::Bytes(bytes) => Ok(bytes.clone()),
            SideContent::Path(path) => Ok(crate::files::read(path, crate::limits::SIDE_FILE_BYTES)?.into()),
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
