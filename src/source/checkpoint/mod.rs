//! Hugging Face checkpoints: `config.json` and safetensors, built into a graph.
//!
//! [`build`] makes the graph of any family this version knows from a configuration and named tensors, wherever
//! those come from (safetensors here, GGUF next door). Decoders (`llama.rs`, `gemma.rs`, `gpt2.rs`) describe themselves
//! in the terms of `decoder.rs`, which builds them with `attention`, `rope.rs` and `mlp.rs`; encoders are all in
//! `encoder.rs`, and `sentence.rs` puts what sentence-transformers add behind them.

mod activation;
mod attention;
mod config;
mod decoder;
mod encoder;
mod gemma;
mod gpt2;
mod header;
mod llama;
mod mlp;
mod rope;
pub mod safetensors;
mod sentence;
pub mod side;

pub use config::Config;

use super::card::Card;
use super::weights::Weights;
use super::{Dialect, Format, LoadOptions, Task};
use crate::error::{Context, Result, bail};
use crate::model::Model;
use crate::onnx::proto::ModelProto;
use safetensors::Safetensors;
use sentence::Sentence;
use serde_json::{Map, Value};
use std::path::Path;

/// A graph made from a checkpoint.
pub struct Built {
    /// The model: weights are slices of what `Weights` gave.
    pub proto: ModelProto,
    /// What it does.
    pub task: Task,
    /// The `model_type` it was built as, e.g. `llama`.
    pub architecture: String,
}

/// Builds the graph of one family. `task` and `architecture` of the result are what the family says.
type Family = fn(&Config<'_>, &dyn Weights, Dialect) -> Result<(ModelProto, Task)>;

/// What can be built: `model_type` of the configuration, and how.
const FAMILIES: &[(&str, Family)] = &[
    ("llama", llama::llama),
    ("mistral", llama::mistral),
    ("qwen2", llama::qwen2),
    ("qwen3", llama::qwen3),
    ("smollm3", llama::smollm3),
    ("phi3", llama::phi3),
    ("gemma", gemma::gemma),
    ("gemma2", gemma::gemma2),
    ("gemma3_text", gemma::gemma3),
    ("gpt2", gpt2::gpt2),
    ("bert", encoder::build),
    ("roberta", encoder::build),
    ("xlm-roberta", encoder::build),
    ("camembert", encoder::build),
    ("distilbert", encoder::build),
];

/// The family of a `model_type`.
fn family(model_type: &str) -> Option<Family> {
    FAMILIES.iter().find(|(name, _)| *name == model_type).map(|(_, build)| *build)
}

/// Builds the graph that `config` (in the form of a Hugging Face `config.json`) describes over `weights`.
///
/// [`crate::error::Kind::Unsupported`] for an architecture that is not known: the message names it and lists
/// those that are. `InvalidModel` if the configuration is incomplete or a tensor is missing or misshapen.
pub fn build(config: &Map<String, Value>, weights: &dyn Weights, dialect: Dialect) -> Result<Built> {
    let config = Config::new(config);
    let model_type = config.text("model_type")?.unwrap_or("");
    let Some(family) = family(model_type) else {
        let known: Vec<&str> = FAMILIES.iter().map(|(name, _)| *name).collect();
        let named = config.architectures().join(", ");
        bail!(
            Unsupported,
            "the architecture {model_type:?} ({named}) cannot be built; those that can: {}",
            known.join(", ")
        );
    };
    if let Some(quantization) = config.object("quantization_config")? {
        let method = quantization.text("quant_method")?.unwrap_or("unnamed");
        bail!(Unsupported, "the checkpoint was quantized by another program (method {method}): take the original");
    }
    let (proto, task) = family(&config, weights, dialect).at(|| format!("architecture {model_type}"))?;
    Ok(Built { proto, task, architecture: model_type.to_owned() })
}

/// Loads the checkpoint in `folder`: `config.json` with `model.safetensors` or an index of several such files.
///
/// Nothing of the weights is read: the graph refers to slices of the mapped files, which must not be truncated
/// while the model lives. Errors as [`build`], and as [`safetensors::Safetensors::open_folder`].
pub fn load(folder: &Path, options: &LoadOptions) -> Result<Model> {
    let Some(config) = side::read_object(&folder.join("config.json"))? else {
        bail!(NotFound, "the folder has no config.json");
    };
    let weights = Safetensors::open_folder(folder)?;
    let text = text_config(&config);
    let place = || folder.join("config.json").display().to_string();
    let mut pooling = None;
    let built = match Sentence::read(folder, &weights)? {
        Some((sentence, weights)) => {
            pooling = sentence.pooling();
            encoder::build_sentence(&Config::new(&text), &weights, options.dialect, &sentence).at(place)?
        }
        None => build(&text, &weights, options.dialect).at(place)?,
    };
    let generation = side::read_object(&folder.join("generation_config.json"))?;
    let card = Card {
        contract: None,
        format: Format::Checkpoint,
        architecture: Some(built.architecture),
        task: built.task,
        generation: side::generation_defaults(&text, generation.as_ref())?,
        chat_template: side::chat_template(folder)?,
        pooling,
        side_files: side::files_of(folder),
        config: text,
        ..Card::default()
    };
    Ok(Model::assemble(built.proto, card, folder, weights.files().to_vec()))
}

/// The configuration of the model of text: that of Gemma 3 lies inside the one of text and images, which adds what
/// it leaves out. Any other is given back as it is.
fn text_config(config: &Map<String, Value>) -> Map<String, Value> {
    let inner = config.get("text_config").and_then(Value::as_object);
    match (config.get("model_type").and_then(Value::as_str), inner) {
        (Some("gemma3"), Some(inner)) => {
            let mut merged = config.clone();
            merged.remove("text_config");
            merged.extend(inner.clone());
            merged.insert("model_type".to_owned(), Value::from("gemma3_text"));
            merged
        }
        _ => config.clone(),
    }
}
