//! The subcommand `optimize generate`, which generates text with a decoder.

use crate::common::{self, KvCache, Machine, On, Output};
use crate::progress::{Bar, Form};
use crate::read;
use clap::Args;
use optimize::ensemble::{Ensemble, manifest};
use optimize::error::{Context, Result, bail};
use optimize::model::{GenerationDefaults, Model};
use optimize::runtime::{Runtime, SessionOptions};
use optimize::text::{
    ChatOptions, ChatTemplate, Draft, FinishReason, GenerateOptions, Generation, Generator, Prompt, Rows,
    SamplingOptions, Tokenizer, Uncertainty, Written, chat,
};
use serde_json::json;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Arguments of `generate`.
#[derive(Args)]
pub struct Arguments {
    /// The model: an .onnx or .gguf file, a checkpoint or exported folder, a package, or the manifest of an ensemble
    #[arg(short, long, value_name = "MODEL")]
    model: PathBuf,
    /// Round the activations of block-quantized matrix products (GGUF, weight-only) to 8 bits, which is faster and
    /// less exact
    #[arg(long)]
    round_activations: bool,
    #[command(flatten, next_help_heading = "Prompt")]
    prompts: Prompts,
    #[command(flatten, next_help_heading = "Sampling")]
    writing: Writing,
    #[command(flatten, next_help_heading = "Speculative decoding")]
    drafting: Drafting,
    #[command(flatten, next_help_heading = "Device")]
    on: On,
    #[command(flatten, next_help_heading = "Device")]
    cache: KvCache,
    #[command(flatten, next_help_heading = "Runtime")]
    machine: Machine,
    #[command(flatten, next_help_heading = "Output")]
    output: Output,
}

/// Arguments for drafted tokens.
#[derive(Args)]
struct Drafting {
    /// A smaller model with the same vocabulary that drafts tokens, which the model verifies several at a time. The
    /// text stays the same
    #[arg(long, value_name = "MODEL")]
    draft: Option<PathBuf>,
    /// Draft tokens by prompt look-up: those that followed an earlier occurrence of the last tokens. The text stays the
    /// same
    #[arg(long)]
    draft_lookup: bool,
    /// Maximum number of tokens to draft at a time [default: 8]
    #[arg(long, value_name = "N")]
    draft_max: Option<usize>,
}

impl Drafting {
    /// Loads the draft model, and adds the draft to the generator.
    fn add(
        &self,
        generator: &mut Generator,
        runtime: &'static Runtime,
        session: &SessionOptions,
        bar: &Bar,
    ) -> Result<()> {
        let draft = |path: &PathBuf| {
            let model = common::load(path, bar)?;
            bar.call(|call| Generator::new(runtime, &model, session, call)).map(Box::new)
        };
        let model = self.draft.as_ref().map(draft).transpose().at(|| "--draft")?;
        generator.set_draft(Some(Draft { model, lookup: self.draft_lookup, max: self.draft_max }))
    }

    /// Returns the first of the flags that are given; `None` if there is none.
    fn given(&self) -> Option<&'static str> {
        match self {
            _ if self.draft.is_some() => Some("--draft"),
            _ if self.draft_lookup => Some("--draft-lookup"),
            _ => self.draft_max.map(|_| "--draft-max"),
        }
    }
}

/// Arguments for prompts.
#[derive(Args)]
pub struct Prompts {
    /// The prompt; repeat for several texts
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,
    /// A file that contains the prompt; - reads standard input
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompt_file: Option<PathBuf>,
    /// Render the prompt with the model's chat template, as a message of the user
    #[arg(long)]
    chat: bool,
    /// A system message before the message of the user
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
}

impl Prompts {
    /// Returns whether there is a prompt.
    pub fn asked(&self) -> bool {
        !self.prompt.is_empty() || self.prompt_file.is_some()
    }

    /// Returns the prompts, rendered in the chat template of `model` if `--chat` is given.
    pub fn read(&self, model: &Model, tokenizer: Option<&Tokenizer>) -> Result<Vec<String>> {
        let mut prompts = self.prompt.clone();
        if let Some(file) = &self.prompt_file {
            prompts.push(read::text(file)?);
        }
        if prompts.is_empty() {
            bail!(InvalidArgument, "there is no prompt: --prompt or --prompt-file is required");
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

/// Arguments for the length of the text and for sampling.
#[derive(Args)]
pub struct Writing {
    /// Maximum number of tokens to generate [default: 256]
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Maximum number of tokens including the prompt
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// Sample with the settings of the model's generation_config.json, unless other flags set them; without that
    /// file, at temperature 1 among the 50 most probable tokens
    #[arg(long)]
    sample: bool,
    /// Sampling temperature; 0 selects the most probable token each time [default: 0; 1 with --top-k, --top-p or
    /// --min-p]
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Sample among this number of most probable tokens; 0 means all
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Sample among the most probable tokens with this total probability
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Sample among tokens with at least this probability, relative to that of the most probable token
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Repetition penalty; a value above 1 makes tokens of the prompt and the generated text less probable [default:
    /// that of generation_config.json, otherwise 1]
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f32>,
    /// Presence penalty, subtracted from the logits of tokens that occur in the generated text
    #[arg(long, value_name = "X")]
    presence_penalty: Option<f32>,
    /// Frequency penalty, subtracted from the logit of a token for each occurrence in the generated text
    #[arg(long, value_name = "X")]
    frequency_penalty: Option<f32>,
    /// Length of token sequences that must not occur twice [default: that of generation_config.json]
    #[arg(long, value_name = "N")]
    no_repeat_ngram_size: Option<usize>,
    /// Seed of sampling [default: 0]
    #[arg(long)]
    seed: Option<u64>,
    /// A string that ends the text; repeat for several. The text of a special token is found when the model generates
    /// that token
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// The id of a token that ends the text; repeat for several
    #[arg(long, value_name = "ID")]
    stop_token: Vec<i64>,
    /// With --json: also print the log-probabilities of each token and of the N most probable tokens
    #[arg(long, value_name = "N")]
    logprobs: Option<usize>,
}

impl Writing {
    /// Returns the options that the flags describe, for a model with these defaults.
    pub fn options(&self, defaults: &GenerationDefaults) -> GenerateOptions {
        // Options that restrict the candidates imply sampling.
        let among = self.top_k.is_some_and(|k| k > 1) || self.top_p.is_some() || self.min_p.is_some();
        let drawn = SamplingOptions::drawn(defaults);
        let base = match self.temperature {
            _ if !self.sample && among => SamplingOptions { temperature: 1.0, ..drawn.greedy() },
            temperature if !self.sample || temperature == Some(0.0) => drawn.greedy(),
            _ => drawn,
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
        execution: arguments.on.with_cache(&arguments.cache)?,
        ..SessionOptions::default()
    };
    if let Some(manifest) = manifest::find(&arguments.model) {
        if let Some(flag) = arguments.drafting.given() {
            bail!(InvalidArgument, "{flag} is for a single model, and {} is an ensemble", arguments.model.display());
        }
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
    if arguments.drafting.given().is_some() {
        arguments.drafting.add(&mut generator, runtime, &session, &bar)?;
    }
    bar.finish();
    common::tell(&arguments.output, &session.execution, generator.placements()[0]);
    write(&arguments.prompts, &arguments.writing, &arguments.output, &model, &mut generator)
}

/// Generates texts from the prompts and prints them; a single text is printed while it is generated, unless `--json` is
/// given. `model` is the one whose chat template is used.
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
        output.warn("--seed has no effect: without --sample or --temperature the most probable token is selected");
    }
    let wrap = |text| if asked.chat { Prompt::Rendered(text) } else { Prompt::Text(text) };
    let prompts: Vec<Prompt<'_>> = prompts.iter().map(|p| wrap(p.as_str())).collect();
    // A single text is streamed. Several texts would be mixed, and JSON is printed as one object at the end.
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
    // The text itself shows the progress, unless lines of JSON are requested.
    let bar = Bar::new(if output.progress == Form::Json { Form::Json } else { Form::None }, output.quiet);
    let written = bar.call(|call| generator.generate(&prompts, &options, Some(&mut tell), call))?;
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
    // The first token of every row is computed in the run of the prompt.
    let later = made.saturating_sub(rows) as f64;
    let speed = |count: f64, seconds: f64, digits: usize| match count > 0.0 && seconds > 0.0 {
        true => format!(" at {:.digits$} tokens/s", count / seconds),
        false => String::new(),
    };
    let uncertain: Vec<Uncertainty> = written.iter().flat_map(|g| &g.uncertainty).copied().collect();
    let thought = Uncertainty::mean(&uncertain).map_or(String::new(), |mean| {
        format!(
            "\nentropy {:.3} nats per token, of which {:.3} disagreement; {:.0} % of the members agree",
            mean.entropy,
            mean.mutual_information,
            100.0 * mean.agreement
        )
    });
    let drafted = written.iter().find_map(|g| g.draft).map_or(String::new(), |draft| {
        let acceptance = draft.acceptance.map_or(String::new(), |ratio| format!(" ({:.0} %)", 100.0 * ratio));
        format!("\n{} tokens drafted, {} accepted{acceptance}, {} runs", draft.drafted, draft.accepted, draft.steps)
    });
    format!(
        "{read} prompt tokens{}, {made} generated{}, ended by {reason}{thought}{drafted}",
        speed(read as f64, first, 0),
        speed(later, all - first, 1)
    )
}
