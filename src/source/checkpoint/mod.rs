//! Hugging Face checkpoints: `config.json` and safetensors, converted to a graph.
//!
//! [`build`] makes the graph of any supported family from a configuration and named tensors, from safetensors here or
//! from GGUF. Decoders (`llama.rs`, `gemma.rs`, `gpt2.rs`) describe themselves in the terms of `decoder.rs`, which
//! builds them with `attention`, `rope.rs` and `mlp.rs`; encoders are in `encoder.rs` with their `heads.rs`, and
//! `sentence.rs` adds the steps of sentence-transformers.
//!
//! Every key of a configuration is used, known to have no effect, rejected, or named in a warning: `families.rs` lists
//! the keys of each family, `schema.rs` checks them, and `weights.rs` reports unused tensors.

mod activation;
mod attention;
mod by_hand;
mod classes;
mod config;
mod decoder;
mod encoder;
mod families;
mod gemma;
mod gpt2;
mod header;
mod heads;
mod llama;
mod mlp;
pub mod pooling;
mod rope;
pub mod safetensors;
mod schema;
pub mod sentence;
pub mod side;
mod tokens;
mod weights;

pub use config::Config;
pub(in crate::source) use gpt2::TRANSPOSED;
pub(in crate::source) use rope::ROTARY;
pub(in crate::source) use tokens::without_rows as tokens_without_rows;

use super::weights::Weights;
use super::{Dialect, LoadOptions};
use crate::error::{Context, Result, bail};
use crate::model::{Card, Format, Model, Task};
use crate::onnx::proto::ModelProto;
use safetensors::Safetensors;
use schema::Schema;
use sentence::Sentence;
use serde_json::{Map, Value};
use std::path::Path;
use weights::Renamed;

/// A graph made from a checkpoint.
pub struct Built {
    /// Model, whose weights are slices of the tensors in [`Weights`] wherever their form is unchanged.
    pub proto: ModelProto,
    /// Task of the model.
    pub task: Task,
    /// Name of the family (`model_type`) whose graph was built, for example `llama`.
    pub architecture: String,
    /// Warnings about keys of the configuration that are not used, and about classes and code that do not belong to the
    /// family.
    pub warnings: Vec<String>,
}

/// A function that builds the graph of a decoder.
type BuildDecoder = fn(&Config<'_>, &dyn Weights, Dialect) -> Result<(ModelProto, Task)>;

/// The way in which the graphs of a family are built.
#[derive(Clone, Copy)]
enum Build {
    /// A model that generates text.
    Decoder(BuildDecoder),
    /// A model that reads text.
    Encoder,
}

/// A family of models, with one `model_type`.
struct Family {
    /// Name of the `model_type`.
    name: &'static str,
    /// Prefixes of the class names of the family.
    classes: &'static [&'static str],
    build: Build,
    schema: Schema,
}

/// Builds the graph that `config`, with the keys of a Hugging Face `config.json`, describes over `weights`.
///
/// Fails with [`crate::error::Kind::Unsupported`] for an unknown architecture (the message names it and lists the
/// supported ones) and for unsupported settings; `InvalidModel` if the configuration is damaged or a tensor is missing
/// or has the wrong shape; `LimitExceeded` for sizes beyond the limits.
pub fn build(config: &Map<String, Value>, weights: &dyn Weights, dialect: Dialect) -> Result<Built> {
    build_with(config, weights, dialect, None)
}

fn build_with(
    config: &Map<String, Value>,
    weights: &dyn Weights,
    dialect: Dialect,
    sentence: Option<&Sentence>,
) -> Result<Built> {
    let Some(family) = families::of(config) else {
        let named = Config::new(config).architectures().join(", ");
        let what = match Config::new(config).text("model_type")? {
            Some(name) => format!("the architecture {name:?} ({named}) is not supported"),
            None => "the configuration has no architecture (\"model_type\")".to_owned(),
        };
        bail!(Unsupported, "{what}; supported: {}", families::names());
    };
    schema::refuse_quantized(&Config::new(config))?;
    let place = || format!("architecture {}", family.name);
    let (complete, mut warnings) = family.schema.complete(family.name, config).at(place)?;
    let (config, weights) = (Config::new(&complete), Renamed(weights));
    warnings.extend(classes::check(family, &config, sentence.is_some()).at(place)?);
    let (proto, task) = match (family.build, sentence) {
        (Build::Decoder(_), Some(_)) => {
            bail!(
                Unsupported,
                "text embeddings (modules.json): only encoders are supported, not the architecture {:?}",
                family.name
            )
        }
        (Build::Decoder(build), None) => {
            let (phi, gemma) = (family.name == "phi3", family.name == "gemma3_text");
            warnings.extend(rope::unread(&config, phi, gemma).at(place)?);
            build(&config, &weights, dialect).at(place)?
        }
        (Build::Encoder, sentence) => encoder::build(&config, &weights, dialect, sentence).at(place)?,
    };
    Ok(Built { proto, task, architecture: family.name.to_owned(), warnings })
}

/// Loads the checkpoint in `folder`, `config.json` with `model.safetensors` or an index of several such files, and
/// returns the model.
///
/// The weights are not copied: the graph refers to slices of the mapped files, which must not be truncated while the
/// model lives. Fails with `NotFound` if there is no `config.json`, and like [`build`] and
/// [`safetensors::Safetensors::open_folder`].
pub fn load(folder: &Path, options: &LoadOptions) -> Result<Model> {
    let Some(config) = side::read_object(&folder.join("config.json"))? else {
        bail!(NotFound, "the folder has no config.json");
    };
    let weights = Safetensors::open_folder(folder)?;
    let text = text_config(&config);
    let place = || folder.join("config.json").display().to_string();
    let files = side::files_of(folder);
    let sentence = Sentence::read(folder, &files)?;
    let built = match &sentence {
        Some(sentence) => {
            let weights = sentence.weights(folder, &weights)?;
            build_with(&text, &weights, options.dialect, Some(sentence)).at(place)?
        }
        None => build(&text, &weights, options.dialect).at(place)?,
    };
    let generation = side::read_object(&folder.join("generation_config.json"))?;
    let by = match Config::new(&text).architectures().first().filter(|_| sentence.is_none()) {
        Some(class) => (*class).to_owned(),
        None => format!("the {} that is built", built.architecture),
    };
    let mut warnings = built.warnings;
    warnings.extend(weights::unused(&weights, &built.proto, &by));
    warnings.extend(tokens_without_rows(&files, &built.proto)?);
    warnings.extend(side::adapter(folder));
    if built.task == Task::Generate {
        warnings.extend(generation.as_ref().and_then(side::unread));
    }
    let mut card = Card {
        contract: None,
        format: Format::Checkpoint,
        architecture: Some(built.architecture),
        task: built.task,
        generation: side::generation_defaults(&text, generation.as_ref())?,
        chat_template: side::chat_template(&files)?,
        pooling: sentence.as_ref().and_then(Sentence::pooling),
        side_files: files,
        config: text,
        warnings,
        ..Card::default()
    };
    families::add_context(&mut card.config);
    Ok(Model::assemble(built.proto, card, folder, weights.files().to_vec()))
}

/// The keys of a model of text and images that do not affect its text part.
const IMAGES: [&str; 6] =
    ["text_config", "vision_config", "mm_tokens_per_image", "boi_token_index", "eoi_token_index", "image_token_index"];

/// Returns the configuration of the text model. In a Gemma 3 model of text and images, that is the nested
/// `text_config`, with the keys of the outer configuration that it lacks. Any other configuration is returned
/// unchanged.
fn text_config(config: &Map<String, Value>) -> Map<String, Value> {
    let inner = config.get("text_config").and_then(Value::as_object);
    match (config.get("model_type").and_then(Value::as_str), inner) {
        (Some("gemma3"), Some(inner)) => {
            let mut merged = config.clone();
            merged.retain(|key, _| !IMAGES.contains(&key.as_str()));
            merged.extend(inner.clone());
            merged.insert("model_type".to_owned(), Value::from("gemma3_text"));
            merged
        }
        _ => config.clone(),
    }
}
