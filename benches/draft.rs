//! Tokens per second with and without drafts:
//! `cargo bench --bench draft [-- [--draft MODEL] [--draft-max N] [--round-activations] [MODEL]]`.
//!
//! The model (by default a GGUF file of SmolLM2) quotes from 20 texts of the Brown corpus, and continues them freely.
//! Each prompt is generated without a draft, with prompt look-up, and with the draft model if there is one, by one
//! thread. Times are processor times of the generation without the reading of the prompt; the tokens must be equal.

#[allow(dead_code)]
mod common;

use common::{RUNTIME, now, texts};
use optimize::call::Call;
use optimize::error::Result;
use optimize::model::Model;
use optimize::open;
use optimize::runtime::{Runtime, SessionOptions};
use optimize::source::LoadOptions;
use optimize::text::{ChatOptions, ChatTemplate, Draft, GenerateOptions, Generation, Generator, Prompt, chat};
use std::path::{Path, PathBuf};

const MODEL: &str = "target/deps/models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const TOKENS: usize = 96;

/// The sums of one way to generate.
#[derive(Default)]
struct Sum {
    seconds: f64,
    tokens: usize,
    steps: usize,
    drafted: usize,
    accepted: usize,
}

/// Generates after a prompt, and adds the time and the numbers to `sum`. Returns the text.
fn write(generator: &mut Generator, prompt: &str, sum: &mut Sum) -> Result<Generation> {
    let options = |tokens: usize| GenerateOptions { max_new_tokens: Some(tokens), ..GenerateOptions::default() };
    generator.start(1)?;
    generator.append(0, Prompt::Rendered(prompt))?;
    generator.advance(&Call::default())?;
    let start = now(true);
    let written = generator.run(&options(TOKENS), None, &Call::default())?.remove(0);
    sum.seconds += now(true) - start;
    sum.tokens += written.tokens.len();
    let counts = written.draft.unwrap_or_default();
    sum.steps += counts.steps;
    sum.drafted += counts.drafted;
    sum.accepted += counts.accepted;
    Ok(written)
}

struct Arguments {
    model: PathBuf,
    draft: Option<PathBuf>,
    max: Option<usize>,
    round_activations: bool,
}

fn arguments(root: &Path) -> Arguments {
    let mut found = Arguments { model: root.join(MODEL), draft: None, max: None, round_activations: false };
    let mut given = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--draft" => found.draft = given.next().map(PathBuf::from),
            "--round-activations" => found.round_activations = true,
            "--draft-max" => found.max = given.next().and_then(|number| number.parse().ok()),
            _ => found.model = PathBuf::from(argument),
        }
    }
    found
}

/// Measures all prompts, in which `question` precedes each text.
fn measure(ways: &mut [(&str, Generator)], model: &Model, texts: &[String], question: &str) -> Result<()> {
    let template = ChatTemplate::of(model, ways[0].1.tokenizer().map(|tokenizer| &**tokenizer))?;
    let template = template.expect("a chat template");
    let mut sums: Vec<Sum> = ways.iter().map(|_| Sum::default()).collect();
    for text in texts {
        let messages = [chat::message("user", &format!("{question}\n\n{text}"))];
        let prompt = template.render(&messages, &ChatOptions::default())?;
        let mut plain = None;
        for ((way, generator), sum) in ways.iter_mut().zip(&mut sums) {
            let tokens = write(generator, &prompt, sum)?.tokens;
            let plain = plain.get_or_insert_with(|| tokens.clone());
            assert_eq!(*plain, tokens, "{way}");
        }
    }
    println!("{question}");
    let base = sums[0].tokens as f64 / sums[0].seconds;
    for ((way, _), sum) in ways.iter().zip(&sums) {
        let (rate, acceptance) = (sum.tokens as f64 / sum.seconds, 100.0 * sum.accepted as f64 / sum.drafted as f64);
        print!("  {way}: {} tokens, {rate:.1} tokens/s, {:.2} x", sum.tokens, rate / base);
        match sum.drafted {
            0 => println!(),
            drafted => println!(", {} runs, {drafted} drafted, {acceptance:.0} % accepted", sum.steps),
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Arguments { model, draft, max, round_activations } = arguments(root);
    let runtime = Runtime::open(Some(&root.join(RUNTIME)))?;
    let options = SessionOptions { threads: 1, round_activations, ..SessionOptions::default() };
    let model = open::load(&model, &LoadOptions::default())?;
    let make = |model: &Model| Generator::new(runtime, model, &options, &Call::default());
    let mut ways = vec![("no draft", make(&model)?), ("look-up", make(&model)?)];
    ways[1].1.set_draft(Some(Draft { lookup: true, max, model: None }))?;
    if let Some(path) = draft {
        let small = open::load(&path, &LoadOptions::default())?;
        let mut generator = make(&model)?;
        generator.set_draft(Some(Draft { model: Some(Box::new(make(&small)?)), lookup: false, max }))?;
        ways.push(("draft model", generator));
        let mut generator = make(&model)?;
        generator.set_draft(Some(Draft { model: Some(Box::new(make(&small)?)), lookup: true, max }))?;
        ways.push(("both", generator));
    }
    let texts = texts(root)?;
    measure(&mut ways, &model, &texts, "Quote the most important sentences of this text word for word:")?;
    measure(&mut ways, &model, &texts, "Summarize this text:")?;
    measure(&mut ways, &model, &texts, "Invent a story that begins like this text:")
}
