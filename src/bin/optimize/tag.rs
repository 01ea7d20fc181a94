//! The subcommand `optimize tag`, which finds entities in texts, or labels their words.

use crate::common::{self, Machine, On, Output};
use crate::texts::Texts;
use clap::Args;
use optimize::encoder::{Aggregation, Span, Tagger, TaggerOptions};
use optimize::error::{Result, bail};
use serde::Serialize;
use std::path::PathBuf;

/// Arguments of `tag`.
#[derive(Args)]
pub struct Arguments {
    /// The model: an .onnx or .gguf file, a checkpoint or exported folder, a package, or the manifest of an ensemble
    #[arg(short, long, value_name = "MODEL")]
    model: PathBuf,
    /// Rule by which the tokens of an entity become one span
    #[arg(long, value_enum, default_value_t)]
    aggregation: Aggregation,
    /// Tokens by which the windows of a long text overlap [default: a quarter of --max-length]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    stride: usize,
    /// Print spans with the label O, which belong to no entity, too
    #[arg(long)]
    keep_outside: bool,
    #[command(flatten, next_help_heading = "Data")]
    texts: Texts,
    #[command(flatten, next_help_heading = "Device")]
    on: On,
    #[command(flatten, next_help_heading = "Runtime")]
    machine: Machine,
    #[command(flatten, next_help_heading = "Output")]
    output: Output,
}

/// The spans of a text, as a line of the output.
#[derive(Serialize)]
struct Line<'l> {
    index: usize,
    spans: Vec<Part<'l>>,
}

/// A span of a text, with its characters.
#[derive(Serialize)]
struct Part<'l> {
    label: &'l str,
    score: f32,
    start: usize,
    end: usize,
    text: &'l str,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let texts = &arguments.texts;
    let given = texts.read()?;
    if !given.second.is_empty() {
        bail!(InvalidArgument, "the data has pairs, but spans are of one text");
    }
    let options = TaggerOptions {
        text: texts.options(&arguments.machine, &arguments.on)?,
        aggregation: arguments.aggregation,
        stride: arguments.stride,
        keep_outside: arguments.keep_outside,
    };
    let found = common::with_bar(&arguments.output, |bar| {
        let model = common::load(&arguments.model, bar)?;
        let tokenizer = texts.tokenizer(&model)?;
        let runtime = arguments.machine.runtime()?;
        let tagger = bar.call(|call| Tagger::new(runtime, &model, tokenizer, &options, call))?;
        bar.call(|call| tagger.tag(&given.first, call))
    })?;
    let lines = given.indices.iter().zip(given.first.iter().zip(&found));
    common::print(&match arguments.output.json {
        true => lines.map(|(index, (text, spans))| json(*index, text, spans)).collect::<String>(),
        false => lines.map(|(index, (text, spans))| plain(*index, text, spans)).collect(),
    })
}

fn json(index: usize, text: &str, spans: &[Span]) -> String {
    let part = |span| Part::new(span, text);
    let line = Line { index, spans: spans.iter().map(part).collect() };
    format!("{}\n", serde_json::to_string(&line).unwrap_or_default())
}

fn plain(index: usize, text: &str, spans: &[Span]) -> String {
    let line = |span| {
        let Part { label, score, text, .. } = Part::new(span, text);
        format!("{index}\t{label}\t{score:.6}\t{text}\n")
    };
    spans.iter().map(line).collect()
}

impl<'l> Part<'l> {
    fn new(span: &'l Span, text: &'l str) -> Part<'l> {
        let (start, end) = (span.bytes.start, span.bytes.end);
        Part { label: &span.label, score: span.score, start, end, text: text.get(start..end).unwrap_or("") }
    }
}
