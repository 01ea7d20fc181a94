//! The subcommand `optimize classify`, which computes scores of classes for texts or pairs of texts.

use crate::common::{self, Machine, On, Output};
use crate::texts::Texts;
use clap::Args;
use optimize::encoder::{Classifier, ScoreFunction};
use optimize::error::{Result, bail};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Arguments of `classify`.
#[derive(Args)]
pub struct Arguments {
    /// The model: an .onnx or .gguf file, a checkpoint or exported folder, a package, or the manifest of an ensemble
    #[arg(short, long, value_name = "MODEL")]
    model: PathBuf,
    /// The function that turns logits into scores
    #[arg(long, value_enum, default_value_t)]
    score_function: ScoreFunction,
    /// Second text of a pair; repeat it as often as --text
    #[arg(long, value_name = "TEXT", conflicts_with = "data")]
    second_text: Vec<String>,
    #[command(flatten, next_help_heading = "Data")]
    texts: Texts,
    #[command(flatten, next_help_heading = "Device")]
    on: On,
    #[command(flatten, next_help_heading = "Runtime")]
    machine: Machine,
    #[command(flatten, next_help_heading = "Output")]
    output: Output,
}

/// The scores of a text, as a line of the output.
#[derive(Serialize)]
struct Line {
    index: usize,
    label: String,
    score: f32,
    scores: BTreeMap<String, f32>,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let texts = &arguments.texts;
    let mut given = texts.read()?;
    given.second.extend(arguments.second_text.iter().cloned());
    let options = texts.options(&arguments.machine, &arguments.on)?;
    let (labels, scores) = common::with_bar(&arguments.output, |bar| {
        let model = common::load(&arguments.model, bar)?;
        let tokenizer = texts.tokenizer(&model)?;
        let (runtime, function) = (arguments.machine.runtime()?, arguments.score_function);
        let classifier = bar.call(|call| Classifier::new(runtime, &model, tokenizer, function, &options, call))?;
        let second = (!given.second.is_empty()).then_some(&given.second[..]);
        let scores = bar.call(|call| classifier.classify(&given.first, second, call))?;
        Ok((classifier.labels().to_vec(), scores))
    })?;
    if !labels.is_empty() && labels.len() != scores.classes {
        let (classes, labels) = (scores.classes, labels.len());
        bail!(InvalidModel, "the model has {classes} classes, but {labels} labels");
    }
    let label = |class: usize| labels.get(class).cloned().unwrap_or_else(|| class.to_string());
    let line = |(text, row): (usize, &[f32])| {
        let best = (0..row.len()).reduce(|best, class| if row[class] > row[best] { class } else { best }).unwrap_or(0);
        if !arguments.output.json {
            return format!("{}\t{:.6}\t{}\n", label(best), row[best], given.first[text]);
        }
        let scores = (0..row.len()).map(|class| (label(class), row[class])).collect();
        let line = Line { index: given.indices[text], label: label(best), score: row[best], scores };
        format!("{}\n", serde_json::to_string(&line).unwrap_or_default())
    };
    common::print(&scores.values.chunks_exact(scores.classes).enumerate().map(line).collect::<String>())
}
