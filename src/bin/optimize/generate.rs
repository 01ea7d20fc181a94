//! `optimize generate`: text from a decoder.

use crate::common::{self, Machine, On, Output};
use clap::Args;
use optimize::ensemble::{Ensemble, manifest};
use optimize::error::{Result, bail};
use optimize::model::Model;
use optimize::runtime::SessionOptions;
use optimize::source::GenerationDefaults;
use optimize::text::{
    ChatOptions, ChatTemplate, FinishReason, GenerateOptions, Generation, Generator, Prompt, Rows, SamplingOptions,
    Tokenizer, Uncertainty, Written, chat,
};
use serde_json::json;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Arguments of `generate`.
#[derive(Args)]
pub struct Arguments {
    /// The model: a .gguf file, a checkpoint folder, an exported folder, an .onnx file or an ensemble
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    #[command(flatten)]
    prompts: Prompts,
    /// Let products of weights in blocks (GGUF, weight-only) round what they are multiplied with to 8 bits: faster,
    /// not as exact
    #[arg(long)]
    round_activations: bool,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    on: On,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    output: Output,
}

/// What texts begin with.
#[derive(Args)]
pub struct Prompts {
    /// What the text begins with, as it is; repeat for several texts
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,
    /// A file that holds the prompt
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompt_file: Option<PathBuf>,
    /// Wrap the prompt in the model's chat template, as a user's message
    #[arg(long)]
    chat: bool,
    /// A system message before it
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
}

impl Prompts {
    /// Whether there is any.
    pub fn asked(&self) -> bool {
        !self.prompt.is_empty() || self.prompt_file.is_some()
    }

    /// The texts to go on from, in the template of `model` if that is asked for.
    pub fn read(&self, model: &Model, tokenizer: Option<&Tokenizer>) -> Result<Vec<String>> {
        let mut prompts = self.prompt.clone();
        if let Some(file) = &self.prompt_file {
            prompts.push(common::text_of(file)?);
        }
        if prompts.is_empty() {
            bail!(InvalidArgument, "there is nothing to go on from: give --prompt or --prompt-file");
        }
        if self.chat {
            let Some(template) = ChatTemplate::of(model, tokenizer)? else {
                let name = model.path().unwrap_or(Path::new("model")).display();
                bail!(NotFound, "{name}: the model has no chat template");
            };
            let system: Vec<_> = self.system.iter().map(|text| chat::message("system", text)).collect();
            for prompt in &mut prompts {
                let messages: Vec<_> = system.iter().cloned().chain([chat::message("user", prompt)]).collect();
                *prompt = template.render(&messages, &ChatOptions::default())?;
            }
        }
        Ok(prompts)
    }
}

/// How much is written, and how tokens are chosen.
#[derive(Args)]
pub struct Writing {
    /// Most tokens to write [default: 256]
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Most tokens in all, the prompt included
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// Draw tokens as the model's makers recommend, where no other flag says how; else at temperature 1 among the 50
    /// most probable
    #[arg(long)]
    sample: bool,
    /// 0 takes the most probable token; higher is more varied [default: 0; 1 with --top-k, --top-p or --min-p]
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Draw among so many most probable tokens; 0 is all
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Draw among the most probable tokens that together have this probability
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Draw among tokens at least this many times as probable as the most probable
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Above 1: make tokens of prompt and text less probable
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f32>,
    /// Taken off the logits of tokens already written
    #[arg(long, value_name = "X")]
    presence_penalty: Option<f32>,
    /// Taken off the logits of tokens already written, for each time
    #[arg(long, value_name = "X")]
    frequency_penalty: Option<f32>,
    /// No sequence of so many tokens appears twice
    #[arg(long, value_name = "N")]
    no_repeat_ngram_size: Option<usize>,
    /// Of the draw: the same seed gives the same text [default: 0]
    #[arg(long)]
    seed: Option<u64>,
    /// A string that ends the text; repeat for several. The text of a special token counts where the model writes it
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// The id of a token that ends the text; repeat for several
    #[arg(long, value_name = "ID")]
    stop_token: Vec<i64>,
    /// With --json: log-probabilities of each token and of the N most probable ones
    #[arg(long, value_name = "N")]
    logprobs: Option<usize>,
}

impl Writing {
    /// The options, for a model with these defaults.
    pub fn options(&self, defaults: &GenerationDefaults) -> GenerateOptions {
        // Whoever says what to draw among wants a draw.
        let among = self.top_k.is_some_and(|k| k > 1) || self.top_p.is_some() || self.min_p.is_some();
        let base = match self.temperature {
            _ if !self.sample && among => SamplingOptions { temperature: 1.0, ..SamplingOptions::default() },
            _ if !self.sample => SamplingOptions::default(),
            Some(0.0) => SamplingOptions::drawn(defaults).greedy(),
            _ => SamplingOptions::drawn(defaults),
        };
        GenerateOptions {
            max_new_tokens: self.max_new_tokens,
            max_length: self.max_length,
            sampling: SamplingOptions {
                temperature: self.temperature.unwrap_or(base.temperature),
                top_k: self.top_k.unwrap_or(base.top_k),
                top_p: self.top_p.unwrap_or(base.top_p),
                min_p: self.min_p.unwrap_or(base.min_p),
                repetition_penalty: self.repetition_penalty.unwrap_or(base.repetition_penalty),
                presence_penalty: self.presence_penalty.unwrap_or(base.presence_penalty),
                frequency_penalty: self.frequency_penalty.unwrap_or(base.frequency_penalty),
                no_repeat_ngram_size: self.no_repeat_ngram_size.unwrap_or(base.no_repeat_ngram_size),
                seed: self.seed.unwrap_or(0),
            },
            stop: self.stop.clone(),
            stop_tokens: self.stop_token.clone(),
            logprobs: self.logprobs,
            ..GenerateOptions::default()
        }
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let bar = arguments.output.bar();
    let session = SessionOptions {
        threads: arguments.machine.threads,
        round_activations: arguments.round_activations,
        execution: arguments.on.execution()?,
        ..SessionOptions::default()
    };
    if let Some(manifest) = manifest::find(&arguments.model) {
        let ensemble = Ensemble::load(&manifest)?;
        let runtime = arguments.machine.runtime()?;
        let mut generator = bar.call(|call| ensemble.generator(runtime, &session, call))?;
        bar.finish();
        generator.placements().into_iter().for_each(|p| common::tell(&arguments.output, &session.execution, p));
        let model = &ensemble.members()[0].model;
        return write(&arguments.prompts, &arguments.writing, &arguments.output, model, &mut *generator);
    }
    let model = common::load(&arguments.model, &bar)?;
    let runtime = arguments.machine.runtime()?;
    let mut generator = bar.call(|call| Generator::new(runtime, &model, &session, call))?;
    let notes = generator.tokenizer().map(|tokenizer| tokenizer.notes().to_vec());
    notes.iter().flatten().for_each(|note| arguments.output.warn(note));
    bar.finish();
    common::tell(&arguments.output, &session.execution, generator.placements()[0]);
    write(&arguments.prompts, &arguments.writing, &arguments.output, &model, &mut generator)
}

/// Writes after the prompts and prints what is written. `model` has the chat template.
pub fn write(
    asked: &Prompts,
    writing: &Writing,
    output: &Output,
    model: &Model,
    generator: &mut dyn Rows,
) -> Result<()> {
    let prompts = asked.read(model, generator.tokenizer().map(|t| &**t))?;
    let options = writing.options(generator.defaults());
    if writing.seed.is_some() && options.sampling.temperature == 0.0 {
        output.warn("--seed has no effect: without --sample or --temperature the most probable token is taken");
    }
    let wrap = |text| if asked.chat { Prompt::Rendered(text) } else { Prompt::Text(text) };
    let prompts: Vec<Prompt<'_>> = prompts.iter().map(|p| wrap(p.as_str())).collect();
    // One text streams as it comes; several would be mixed, and JSON is one object at the end.
    let streams = prompts.len() == 1 && !output.json;
    let mut stdout = std::io::stdout();
    let mut gone = false;
    let start = Instant::now();
    let mut first = None;
    let mut tell = |written: &Written<'_>| {
        first.get_or_insert_with(|| start.elapsed());
        if streams && (stdout.write_all(written.text.as_bytes()).and_then(|()| stdout.flush())).is_err() {
            gone = true;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    let call = optimize::call::Call::default();
    let written = generator.generate(&prompts, &options, Some(&mut tell), &call)?;
    if gone {
        return Ok(());
    }
    let seconds = (first.unwrap_or_default().as_secs_f64(), start.elapsed().as_secs_f64());
    if output.json {
        let text = serde_json::to_string(&json!({ "generations": written, "placement": generator.placements() }))
            .unwrap_or_default();
        common::print(&format!("{text}\n"))?;
    } else if streams {
        common::print("\n")?;
    } else {
        for (index, generation) in written.iter().enumerate() {
            common::print(&format!("[{}] {}\n", index + 1, generation.text))?;
        }
    }
    if output.verbose {
        eprintln!("{}", summary(&written, seconds));
    }
    Ok(())
}

fn summary(written: &[Generation], (first, all): (f64, f64)) -> String {
    let read: usize = written.iter().map(|g| g.prompt_tokens).sum();
    let made: usize = written.iter().map(|g| g.tokens.len()).sum();
    let rows = written.len();
    let reason = match written.first().map(|g| g.finish_reason) {
        Some(FinishReason::Eos) => "end of sequence",
        Some(FinishReason::Length) => "length",
        Some(FinishReason::Stop) => "a stop string or token",
        _ => "cancelled",
    };
    // The first token of every row comes with the prompt's own pass.
    let later = made.saturating_sub(rows) as f64;
    let speed = |count: f64, seconds: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
    let uncertain: Vec<Uncertainty> = written.iter().flat_map(|g| &g.uncertainty).copied().collect();
    let thought = Uncertainty::mean(&uncertain).map_or(String::new(), |mean| {
        format!(
            "\nentropy {:.3} nats a token, of which {:.3} disagreement; {:.0} % of the members agree",
            mean.entropy,
            mean.mutual_information,
            100.0 * mean.agreement
        )
    });
    format!(
        "{read} tokens read at {:.0} tokens/s, {made} written at {:.1} tokens/s, ended by {reason}{thought}",
        speed(read as f64, first),
        speed(later, all - first)
    )
}
