//! Tokens per second and texts with KV caches of each element type:
//! `cargo bench --bench kv_cache [-- [--threads N] [--round-activations] [MODEL]]`.
//!
//! The model (by default a GGUF file of SmolLM2) generates after prompts of several lengths, with the types taking
//! turns in one process. Times are medians over the rounds: of processor time with one thread (the default), of
//! wall-clock time otherwise. Then the model continues 20 texts of the Brown corpus greedily. The benchmark prints how
//! many texts are the same as with float32, and the mean number of equal tokens at the beginning of a text.

#[allow(dead_code)]
mod common;

use common::{RUNTIME, TEXTS, median, now, texts};
use optimize::call::Call;
use optimize::error::Result;
use optimize::open;
use optimize::runtime::{Execution, KvCacheType, Runtime, SessionOptions};
use optimize::source::LoadOptions;
use optimize::text::{GenerateOptions, Generator, Prompt};
use std::path::Path;

const MODEL: &str = "target/deps/models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
/// Numbers of prompt tokens after which generation is timed; two untimed tokens are generated first.
const LENGTHS: [usize; 3] = [8, 512, 2048];
const TOKENS: usize = 32;
const ROUNDS: usize = 7;
const WRITTEN: usize = 128;

fn exactly(tokens: usize) -> GenerateOptions {
    GenerateOptions { max_new_tokens: Some(tokens), eos_token_ids: Some(vec![]), ..GenerateOptions::default() }
}

/// Returns the time in seconds to generate [`TOKENS`] tokens after each of [`LENGTHS`], and to read the longest prompt.
fn round(generator: &mut Generator, processor: bool) -> Result<Vec<f64>> {
    let call = Call::default();
    let longest = LENGTHS[LENGTHS.len() - 1];
    let prompt: Vec<i64> = (0..longest as i64).map(|i| 1000 + i * 37 % 20_000).collect();
    let (mut times, mut reading) = (Vec::new(), 0.0);
    for length in LENGTHS {
        generator.start(1)?;
        generator.append(0, Prompt::Tokens(&prompt[..length]))?;
        let start = now(processor);
        generator.advance(&call)?;
        reading = now(processor) - start;
        generator.run(&exactly(2), None, &call)?;
        let start = now(processor);
        generator.run(&exactly(TOKENS), None, &call)?;
        times.push(now(processor) - start);
    }
    times.push(reading);
    Ok(times)
}

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let runtime = Runtime::open(Some(&root.join(RUNTIME)))?;
    let (mut path, mut threads, mut round_activations) = (root.join(MODEL), 1, false);
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--threads" => threads = arguments.next().and_then(|count| count.parse().ok()).expect("a number"),
            "--round-activations" => round_activations = true,
            _ => path = argument.into(),
        }
    }
    let model = open::load(&path, &LoadOptions::default())?;
    let mut generators = Vec::new();
    for kv_cache_type in KvCacheType::ALL {
        let execution = Execution { kv_cache_type: *kv_cache_type, ..Execution::default() };
        let options = SessionOptions { threads, round_activations, execution, ..SessionOptions::default() };
        generators.push((kv_cache_type, Generator::new(runtime, &model, &options, &Call::default())?, Vec::new()));
    }
    for _ in 0..ROUNDS {
        for (_, generator, rounds) in &mut generators {
            rounds.push(round(generator, threads == 1)?);
        }
    }
    println!("tokens/s with {threads} threads: decode after {LENGTHS:?}, prefill of the last; greedy texts");
    let texts = texts(root)?;
    let mut exact = Vec::new();
    for (kind, generator, rounds) in &mut generators {
        let time = |index: usize| median(rounds.iter().map(|round| round[index]).collect());
        let rate = |index: usize| if index < LENGTHS.len() { TOKENS } else { LENGTHS[index - 1] } as f64 / time(index);
        let rates: Vec<_> = (0..=LENGTHS.len()).map(|index| format!("{:.1}", rate(index))).collect();
        let mut written = Vec::new();
        for text in &texts {
            let prompts = [Prompt::Text(text)];
            written.push(generator.generate(&prompts, &exactly(WRITTEN), None, &Call::default())?.remove(0).tokens);
        }
        if exact.is_empty() {
            exact = written.clone();
        }
        let equal = |(a, b): (&Vec<i64>, &Vec<i64>)| a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let equal: Vec<usize> = exact.iter().zip(&written).map(equal).collect();
        let same = equal.iter().filter(|count| **count == WRITTEN).count();
        let mean = equal.iter().sum::<usize>() as f64 / TEXTS as f64;
        println!("{}: {}; {same} of {TEXTS} equal, {mean:.0} of {WRITTEN} tokens", kind.name(), rates.join(", "));
    }
    Ok(())
}
