//! Text generation: with SmolLM2 from its GGUF file, with tiny random checkpoints of many families in both dialects
//! (a cache in place and one that grows), and with small graphs made for one rule.

#[path = "generate/draft.rs"]
mod draft;
#[path = "generate/kv_cache.rs"]
mod kv_cache;
#[path = "generate/rows.rs"]
mod rows;
#[path = "generate/shapes.rs"]
mod shapes;
mod support;
#[path = "generate/text.rs"]
mod text;

use optimize::call::Call;
use optimize::error::{Kind, Result};
use optimize::model::Model;
use optimize::open;
use optimize::runtime::{Session, SessionOptions, Tensor};
use optimize::source::{Dialect, LoadOptions};
use optimize::text::*;
use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

const BOTH: [Dialect; 2] = [Dialect::Runtime, Dialect::Portable];
/// Families of decoders that differ in attention, positions or norms.
const FAMILIES: [&str; 5] = ["llama", "gpt2", "gemma3", "qwen3", "mistral"];

fn fixture(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(family)
}

fn load(path: &Path, dialect: Dialect) -> Model {
    open::load(path, &LoadOptions { dialect }).unwrap()
}

fn generator(model: &Model, threads: usize) -> Generator {
    let options = SessionOptions { threads, ..SessionOptions::default() };
    Generator::new(support::runtime(), model, &options, &Call::default()).unwrap()
}

fn tiny(family: &str, dialect: Dialect) -> Generator {
    generator(&load(&fixture(family), dialect), 1)
}

fn smollm2(dialect: Dialect, threads: usize) -> Generator {
    generator(&load(&support::deps("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"), dialect), threads)
}

/// Runs `check` for every tiny model in both dialects.
fn every(check: impl Fn(&str, &mut Generator)) {
    for family in FAMILIES {
        for dialect in BOTH {
            check(&format!("{family} {dialect:?}"), &mut tiny(family, dialect));
        }
    }
}

/// Returns options with which exactly that many tokens are generated.
fn exactly(tokens: usize) -> GenerateOptions {
    GenerateOptions { max_new_tokens: Some(tokens), eos_token_ids: Some(vec![]), ..GenerateOptions::default() }
}

fn write(generator: &mut Generator, prompts: &[Prompt<'_>], options: &GenerateOptions) -> Vec<Generation> {
    generator.generate(prompts, options, None, &Call::default()).unwrap()
}

fn tokens(generator: &mut Generator, prompts: &[&[i64]], options: &GenerateOptions) -> Vec<Vec<i64>> {
    let prompts: Vec<Prompt<'_>> = prompts.iter().map(|tokens| Prompt::Tokens(tokens)).collect();
    write(generator, &prompts, options).into_iter().map(|g| g.tokens).collect()
}

fn chat(generator: &Generator, model: &Model, question: &str) -> String {
    let template = ChatTemplate::of(model, generator.tokenizer().map(|t| &**t)).unwrap().unwrap();
    template.render(&[chat::message("user", question)], &ChatOptions::default()).unwrap()
}

/// A session that reads a whole text in each run.
struct Reader {
    session: Session,
    decoder: Decoder,
}

impl Reader {
    fn new(model: &Model) -> Reader {
        let options = SessionOptions { varying_sizes: true, ..SessionOptions::default() };
        let session = Session::new(support::runtime(), model, &options, &Call::default()).unwrap();
        Reader { session, decoder: Decoder::of(model).unwrap() }
    }

    /// Returns the most probable token after each of the last `count` tokens.
    fn next(&mut self, tokens: &[i64], count: usize) -> Vec<i64> {
        let shape = [1, tokens.len() as i64];
        let ids = Tensor::from_i64(&shape, tokens.to_vec()).unwrap();
        let mask = Tensor::from_i64(&shape, vec![1; tokens.len()]).unwrap();
        let positions = Tensor::from_i64(&shape, (0..tokens.len() as i64).collect()).unwrap();
        let keep = Tensor::from_i64(&[], vec![count as i64]).unwrap();
        let empty: Vec<Tensor> = (self.decoder.cache.iter())
            .map(|pair| Tensor::from_f32(&[1, pair.shape[1], 0, pair.shape[3]], vec![]).unwrap())
            .collect();
        let mut inputs = vec![("input_ids", &ids), ("attention_mask", &mask), ("position_ids", &positions)];
        inputs.push(("num_logits_to_keep", &keep));
        inputs.extend(self.decoder.cache.iter().map(|pair| pair.past.as_str()).zip(&empty));
        let outputs = self.session.run(&inputs, &["logits"], &Call::default()).unwrap();
        let logits = outputs[0].1.as_slice::<f32>().unwrap();
        logits.chunks(logits.len() / count).map(highest).collect()
    }
}

/// Returns the most probable tokens one after the other, by a session that reads everything again each time.
fn greedy_without_cache(model: &Model, prompt: &[i64], count: usize) -> Vec<i64> {
    let mut reader = Reader::new(model);
    let mut tokens = prompt.to_vec();
    for _ in 0..count {
        tokens.extend(reader.next(&tokens, 1));
    }
    tokens.split_off(prompt.len())
}

/// Returns the most probable token after the prompt and after each of `tokens` but the last, from one run without a
/// cache.
fn greedy_in_one_run(model: &Model, prompt: &[i64], tokens: &[i64]) -> Vec<i64> {
    let read = [prompt, &tokens[..tokens.len() - 1]].concat();
    Reader::new(model).next(&read, tokens.len())
}

fn highest(logits: &[f32]) -> i64 {
    let better = |best: usize, id: usize| if logits[id] > logits[best] { id } else { best };
    (0..logits.len()).reduce(better).unwrap() as i64
}

fn texts_of(generations: &[Generation]) -> Vec<&str> {
    generations.iter().map(|g| g.text.as_str()).collect()
}
