//! Measures the time to choose one token from a large vocabulary: `cargo bench --bench sampler`.
//!
//! It prints the mean wall-clock time in microseconds per token for several sampling options, and the time to compute
//! log-probabilities.

use optimize::text::SamplingOptions;
use optimize::text::sampler::{Context, Sampler, logprobs};
use std::time::Instant;

/// Size of the vocabulary of Qwen 2.5.
const VOCABULARY: usize = 151_936;
/// Number of calls over which a time is averaged.
const CHOICES: u32 = 200;

/// Returns pseudorandom logits, approximately in (-8, 8).
fn logits() -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..VOCABULARY).map(|_| (uniform() + uniform() - 1.0) * 8.0).collect()
}

fn main() {
    let logits = logits();
    for (name, top_k, top_p, min_p, temperature) in [
        ("greedy", 0, 1.0, 0.0, 0.0),
        ("plain", 0, 1.0, 0.0, 1.0),
        ("top-k 40", 40, 1.0, 0.0, 1.0),
        ("top-p 0.9", 0, 0.9, 0.0, 1.0),
        ("min-p 0.05", 0, 1.0, 0.05, 1.0),
        ("all three", 40, 0.95, 0.05, 0.7),
    ] {
        let options = SamplingOptions { temperature, top_k, top_p, min_p, ..SamplingOptions::default() };
        let mut sampler = Sampler::new(&options).expect("options that make sense");
        let start = Instant::now();
        for row in 0..u64::from(CHOICES) {
            let context = Context { tokens: &[], prompt: 0, row };
            std::hint::black_box(sampler.choose(&logits, &context).expect("a token"));
        }
        println!("{name}: {:.0} us", start.elapsed().as_secs_f64() / f64::from(CHOICES) * 1e6);
    }
    let start = Instant::now();
    (0..CHOICES).for_each(|_| drop(std::hint::black_box(logprobs(&logits, 3, 5).expect("log-probabilities"))));
    println!("log-probabilities, top 5: {:.0} us", start.elapsed().as_secs_f64() / f64::from(CHOICES) * 1e6);
}
