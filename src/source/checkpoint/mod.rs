//! Hugging Face checkpoints: `config.json` and safetensors, built into a graph.
//!
//! [`build`] makes the graph of any family this version knows from a configuration and named tensors, wherever
//! those come from (safetensors here, GGUF next door). One file a family; what families share is described in
//! `decoder.rs` and built by it, `attention.rs`, `rope.rs` and `mlp.rs`.

mod config;

pub use config::Config;

use super::weights::Weights;
use super::{Dialect, LoadOptions, Task};
use crate::error::{Context, Result, bail};
use crate::model::Model;
use crate::onnx::proto::ModelProto;
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
const FAMILIES: &[(&str, Family)] = &[];

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
    let (proto, task) = family(&config, weights, dialect).at(|| format!("architecture {model_type}"))?;
    Ok(Built { proto, task, architecture: model_type.to_owned() })
}

/// Loads the checkpoint in `folder`.
pub fn load(folder: &Path, _options: &LoadOptions) -> Result<Model> {
    bail!(Unsupported, "{}: checkpoints cannot be loaded yet", folder.display())
}
