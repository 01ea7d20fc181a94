//! Measures the tokens per second of generation: `cargo bench --bench generate [-- [--threads N] MODEL...]`.
//!
//! Each model (by default a GGUF file of SmolLM2) runs with ONNX Runtime's own kernels (`Stock`) and with the default
//! (`Auto`), which also uses the kernels of this library. All of them take turns in one process. Results are medians
//! over the rounds: of processor time with one thread (the default), of wall-clock time otherwise.

#[allow(dead_code)]
mod common;

use common::{RUNTIME, median, now};
use optimize::call::Call;
use optimize::error::Result;
use optimize::open;
use optimize::runtime::{Execution, Kernels, Runtime, SessionOptions};
use optimize::source::LoadOptions;
use optimize::text::{GenerateOptions, Generator, Prompt};
use std::path::{Path, PathBuf};

const MODEL: &str = "target/deps/models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
/// Length in tokens of the prompt whose processing is timed.
const PROMPT: usize = 512;
/// Number of tokens whose generation is timed.
const TOKENS: usize = 32;
const ROUNDS: usize = 7;
/// Numbers of prompt tokens after which generation is timed; two untimed tokens are generated first.
const LENGTHS: [usize; 2] = [8, PROMPT];

/// Returns the time in seconds that `work` takes, by the clock that [`now`] reads.
fn seconds(processor: bool, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = now(processor);
    work()?;
    Ok(now(processor) - start)
}

/// Returns options that generate `tokens` tokens and do not stop at an end-of-sequence token.
fn exactly(tokens: usize) -> GenerateOptions {
    GenerateOptions { max_new_tokens: Some(tokens), eos_token_ids: Some(vec![]), ..GenerateOptions::default() }
}

/// Returns the times in seconds of one round: to process a prompt of [`PROMPT`] tokens, and to generate [`TOKENS`]
/// tokens after each of [`LENGTHS`].
fn round(generator: &mut Generator, processor: bool) -> Result<Vec<f64>> {
    let call = Call::default();
    let prompt: Vec<i64> = (0..PROMPT as i64).map(|i| 1000 + i * 37 % 20_000).collect();
    let mut times = vec![seconds(processor, || {
        generator.start(1)?;
        generator.append(0, Prompt::Tokens(&prompt))?;
        generator.advance(&call)
    })?];
    for length in LENGTHS {
        generator.start(1)?;
        generator.append(0, Prompt::Tokens(&prompt[..length]))?;
        generator.run(&exactly(2), None, &call)?;
        times.push(seconds(processor, || generator.run(&exactly(TOKENS), None, &call).map(|_| ()))?);
    }
    Ok(times)
}

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let runtime = Runtime::open(Some(&root.join(RUNTIME)))?;
    let (mut models, mut threads) = (Vec::new(), 1);
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--threads" => threads = arguments.next().and_then(|count| count.parse().ok()).expect("a number"),
            _ => models.push(PathBuf::from(argument)),
        }
    }
    if models.is_empty() {
        models.push(root.join(MODEL));
    }
    let mut generators = Vec::new();
    for path in &models {
        for kernels in [Kernels::Stock, Kernels::Auto] {
            let model = open::load(path, &LoadOptions::default())?;
            let execution = Execution { kernels, ..Execution::default() };
            let options = SessionOptions { threads, execution, ..SessionOptions::default() };
            generators.push((path, kernels, Generator::new(runtime, &model, &options, &Call::default())?, Vec::new()));
        }
    }
    for _ in 0..ROUNDS {
        for (_, _, generator, rounds) in &mut generators {
            rounds.push(round(generator, threads == 1)?);
        }
    }
    println!("tokens/s with {threads} threads: prefill of {PROMPT}, decode after {LENGTHS:?}");
    for (path, kernels, _, rounds) in generators {
        let time = |index: usize| median(rounds.iter().map(|round| round[index]).collect());
        let rates = (0..=LENGTHS.len()).map(|index| if index == 0 { PROMPT } else { TOKENS } as f64 / time(index));
        let rates: Vec<_> = rates.map(|rate| format!("{rate:.1}")).collect();
        println!("{} {kernels:?}: {}", path.display(), rates.join(", "));
    }
    Ok(())
}
