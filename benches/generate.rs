//! Tokens per second of SmolLM2, loaded from its GGUF file in both dialects: `cargo bench --bench generate`.
//!
//! Results are the minimum of several rounds. Processor time is the sum over all threads.

use optimize::call::Call;
use optimize::open;
use optimize::runtime::{Runtime, SessionOptions};
use optimize::source::{Dialect, LoadOptions};
use optimize::text::{GenerateOptions, Generator, Prompt};
use std::path::Path;
use std::time::Instant;

const MODEL: &str = "target/deps/models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const RUNTIME: &str = "target/deps/onnxruntime/libonnxruntime.so.1";
const PROMPT: usize = 512;
const TOKENS: usize = 64;

/// Returns the processor time of this process in seconds, with a resolution of 10 ms.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc");
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}

/// Returns the minimum wall-clock time and processor time of `work` in seconds.
fn least(rounds: usize, mut work: impl FnMut()) -> (f64, f64) {
    let mut least = (f64::MAX, f64::MAX);
    for _ in 0..rounds {
        let (wall, processor) = (Instant::now(), processor_seconds());
        work();
        least = (least.0.min(wall.elapsed().as_secs_f64()), least.1.min(processor_seconds() - processor));
    }
    least
}

fn exactly(tokens: usize) -> GenerateOptions {
    GenerateOptions { max_new_tokens: Some(tokens), eos_token_ids: Some(vec![]), ..GenerateOptions::default() }
}

/// Returns the tokens per second of reading a prompt and of generating after it, as text.
fn measure(generator: &mut Generator) -> optimize::error::Result<String> {
    let call = Call::default();
    let prompt: Vec<i64> = (0..PROMPT as i64).map(|i| 1000 + i * 37 % 20_000).collect();
    let mut shown = Vec::new();
    let mut show = |what: &str, tokens: usize, (wall, processor): (f64, f64)| {
        let rate = |seconds: f64| tokens as f64 / seconds;
        shown.push(format!("{what} {:.1} (by processor time {:.1})", rate(wall), rate(processor)));
    };
    let prefill = least(3, || {
        generator.start(1).expect("a row");
        generator.append(0, Prompt::Tokens(&prompt)).expect("a prompt");
        generator.advance(&call).expect("a step");
    });
    show("prefill 512", PROMPT, prefill);
    for length in [8, PROMPT] {
        generator.start(1)?;
        generator.append(0, Prompt::Tokens(&prompt[..length]))?;
        generator.run(&exactly(2), None, &call)?;
        let decode = least(4, || {
            generator.run(&exactly(TOKENS), None, &call).expect("a text");
            generator.rewind(0, TOKENS).expect("a way back");
        });
        show(&format!("decode at {length}"), TOKENS, decode);
    }
    Ok(shown.join(", "))
}

fn main() -> optimize::error::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let runtime = Runtime::open(Some(&root.join(RUNTIME)))?;
    for threads in [1, 2] {
        for dialect in [Dialect::Runtime, Dialect::Portable] {
            let model = open::load(&root.join(MODEL), &LoadOptions { dialect })?;
            let options = SessionOptions { threads, ..SessionOptions::default() };
            let mut generator = Generator::new(runtime, &model, &options, &Call::default())?;
            println!("{dialect:?}, {threads} threads, tokens/s: {}", measure(&mut generator)?);
        }
    }
    Ok(())
}
