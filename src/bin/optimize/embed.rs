//! The subcommand `optimize embed`, which computes vectors of texts.

use crate::common::{self, Machine, On, Output};
use crate::texts::Texts;
use clap::Args;
use optimize::encoder::{Embedder, EmbedderOptions};
use optimize::error::{Result, bail};
use serde::Serialize;
use std::path::PathBuf;

/// Arguments of `embed`.
#[derive(Args)]
pub struct Arguments {
    /// The model: an .onnx or .gguf file, a checkpoint or exported folder, a package, or the manifest of an ensemble
    #[arg(short, long, value_name = "MODEL")]
    model: PathBuf,
    /// Normalize each vector to length 1, even if the model does not ask for it
    #[arg(long)]
    normalize: bool,
    /// Number of elements to keep of each vector, its first ones, for models trained with Matryoshka loss [default: the
    /// truncate_dim of the model, if it has one, otherwise all]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    dimensions: usize,
    /// Text that precedes every text [default: the default prompt of the model, if it has one]
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_name")]
    prompt: Option<String>,
    /// Name of a prompt of the model (config_sentence_transformers.json), such as query
    #[arg(long, value_name = "NAME")]
    prompt_name: Option<String>,
    #[command(flatten, next_help_heading = "Data")]
    texts: Texts,
    #[command(flatten, next_help_heading = "Device")]
    on: On,
    #[command(flatten, next_help_heading = "Runtime")]
    machine: Machine,
    #[command(flatten, next_help_heading = "Output")]
    output: Output,
}

/// The vector of a text, as a line of the output.
#[derive(Serialize)]
struct Line<'l> {
    index: usize,
    embedding: &'l [f32],
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let texts = &arguments.texts;
    let given = texts.read()?;
    if !given.second.is_empty() {
        bail!(InvalidArgument, "the data contains pairs of texts, but a vector is computed for a single text");
    }
    let options = EmbedderOptions {
        text: texts.options(&arguments.machine, &arguments.on)?,
        normalize: arguments.normalize,
        dimensions: arguments.dimensions,
        prompt: arguments.prompt.clone(),
        prompt_name: arguments.prompt_name.clone(),
    };
    let found = common::with_bar(&arguments.output, |bar| {
        let model = common::load(&arguments.model, bar)?;
        let (tokenizer, runtime) = (texts.tokenizer(&model)?, arguments.machine.runtime()?);
        let embedder = bar.call(|call| Embedder::new(runtime, &model, tokenizer, &options, call))?;
        bar.call(|call| embedder.embed(&given.first, call))
    })?;
    let line = |(&index, embedding): (&usize, &[f32])| {
        let line = serde_json::to_string(&Line { index, embedding }).unwrap_or_default();
        format!("{line}\n")
    };
    let vectors = found.values.chunks_exact(found.width);
    common::print(&given.indices.iter().zip(vectors).map(line).collect::<String>())
}
