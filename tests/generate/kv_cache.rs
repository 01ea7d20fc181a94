//! Tests of KV caches in bfloat16: the texts are near those with a float32 cache and do not depend on how they are
//! read, and sessions that cannot have such a cache are refused.

use super::*;
use optimize::onnx::dtype::DataType;
use optimize::package::{CompileOptions, OpenOptions, Package, compile};
use optimize::runtime::{Execution, Kernels, KvCacheType, OptimizationLevel};

fn options(kv_cache_type: KvCacheType, threads: usize) -> SessionOptions {
    let execution = Execution { kv_cache_type, ..Execution::default() };
    SessionOptions { threads, execution, ..SessionOptions::default() }
}

fn with(model: &Model, options: &SessionOptions) -> Result<Generator> {
    Generator::new(support::runtime(), model, options, &Call::default())
}

/// Returns the logits after all tokens, which are read in parts of these lengths.
fn logits(generator: &mut Generator, tokens: &[i64], parts: &[usize]) -> Vec<f32> {
    generator.start(1).unwrap();
    let mut rest = tokens;
    for part in parts {
        let (now, later) = rest.split_at(*part);
        generator.append(0, Prompt::Tokens(now)).unwrap();
        generator.advance(&Call::default()).unwrap();
        rest = later;
    }
    assert!(rest.is_empty());
    generator.next_logits(0).unwrap().to_vec()
}

#[test]
fn logits_are_near_those_with_a_float32_cache_however_the_tokens_are_read() {
    let tokens: Vec<i64> = (0..40).map(|index| (index * 37 + 5) % 120).collect();
    for family in FAMILIES {
        let model = load(&fixture(family), Dialect::Runtime);
        let exact = logits(&mut with(&model, &options(KvCacheType::Float32, 1)).unwrap(), &tokens, &[40]);
        let spread = exact.iter().fold(0f32, |most, logit| most.max(logit.abs()));
        let mut generator = with(&model, &options(KvCacheType::Bfloat16, 1)).unwrap();
        assert!(generator.decoder().cache.iter().all(|pair| pair.dtype == DataType::Bfloat16), "{family}");
        let found = logits(&mut generator, &tokens, &[40]);
        let error = exact.iter().zip(&found).fold(0f32, |most, (a, b)| most.max((a - b).abs())) / spread;
        println!("{family}: {error}");
        assert!(error > 0.0 && error < 0.03, "{family}: {error}");
        let ones = [1; 40];
        for (parts, threads) in [(&[39, 1][..], 1), (&[17, 6, 1, 16], 3), (&ones, 3)] {
            let mut generator = with(&model, &options(KvCacheType::Bfloat16, threads)).unwrap();
            let parted = logits(&mut generator, &tokens, parts);
            assert!(parted == found, "{family}: other bits in the parts {parts:?} on {threads} threads");
        }
    }
}

#[test]
fn rows_and_drafts_change_no_text() {
    let prompts: [&[i64]; 3] = [&[5, 6, 7, 8, 5, 6, 7, 8, 5, 6], &[40, 3, 77, 12, 90], &[9]];
    let mut generator = with(&load(&fixture("llama"), Dialect::Runtime), &options(KvCacheType::Bfloat16, 2)).unwrap();
    let together = tokens(&mut generator, &prompts, &exactly(40));
    for (prompt, together) in prompts.iter().zip(&together) {
        generator.set_draft(None).unwrap();
        assert_eq!(tokens(&mut generator, &[prompt], &exactly(40))[0], *together, "alone");
        generator.set_draft(Some(Draft { lookup: true, model: None, max: Some(6) })).unwrap();
        assert_eq!(tokens(&mut generator, &[prompt], &exactly(40))[0], *together, "with a draft");
    }
    // Two rows share a cache that grows, and one of them is rewound.
    generator.set_draft(None).unwrap();
    generator.start(2).unwrap();
    generator.append(0, Prompt::Tokens(prompts[0])).unwrap();
    generator.append(1, Prompt::Tokens(prompts[1])).unwrap();
    generator.run(&exactly(20), None, &Call::default()).unwrap();
    generator.rewind(1, 7).unwrap();
    let rest = generator.run(&exactly(20), None, &Call::default()).unwrap();
    assert_eq!(rest[0].tokens, together[0][20..]);
    assert_eq!(rest[1].tokens, together[1][13..33]);
}

#[test]
fn sessions_without_such_a_cache_are_refused() {
    let model = load(&fixture("llama"), Dialect::Runtime);
    let refused = |model: &Model, options: &SessionOptions, kind: Kind, what: &str| {
        let e = with(model, options).err().expect("it was not refused");
        assert!(e.kind() == kind && e.to_string().contains(what), "{:?}: {e}", e.kind());
    };
    let plain = options(KvCacheType::Bfloat16, 1);
    let mut stock = plain.clone();
    stock.execution.kernels = Kernels::Stock;
    refused(&model, &stock, Kind::InvalidArgument, "needs this library's kernels, but kernels is stock");
    let mut basic = plain.clone();
    basic.optimization_level = OptimizationLevel::Basic;
    refused(&model, &basic, Kind::Unsupported, "needs all optimizations");
    let growing = load(&fixture("llama"), Dialect::Portable);
    refused(&growing, &plain, Kind::Unsupported, "this model has none");
    // The option `claim` leaves the attention to ONNX Runtime.
    let mut elsewhere = plain.clone();
    elsewhere.execution.provider_options = vec![("claim".to_owned(), "norm".to_owned())];
    refused(&model, &elsewhere, Kind::Unsupported, "GroupQueryAttention");
}

#[test]
fn a_compiled_package_has_a_cache_of_either_type() {
    let folder = support::scratch("kv-cache-package");
    let path = folder.join("package");
    let model = load(&fixture("llama"), Dialect::Runtime);
    let options_of = CompileOptions { variants: vec!["int8".to_owned()], ..CompileOptions::default() };
    compile(support::runtime(), &model, &path, &options_of, &Call::default()).unwrap();
    let package = Package::open(&path, &OpenOptions::default()).unwrap();
    let tokens: Vec<i64> = (0..40).map(|index| (index * 37 + 5) % 120).collect();
    let mut found = Vec::new();
    for kind in [KvCacheType::Float32, KvCacheType::Bfloat16] {
        let chosen = package.choose(Some(support::runtime())).unwrap();
        assert!(chosen.reason.contains("int8-compiled"), "{}", chosen.reason);
        let mut generator = package.generator(support::runtime(), &options(kind, 1), &Call::default()).unwrap();
        let placement = generator.placements()[0];
        assert!(placement.passed_over.is_empty() && placement.groups > 0, "{placement:?}");
        found.push(logits(&mut generator, &tokens, &[17, 6, 1, 16]));
    }
    let spread = found[0].iter().fold(0f32, |most, logit| most.max(logit.abs()));
    let error = found[0].iter().zip(&found[1]).fold(0f32, |most, (a, b)| most.max((a - b).abs())) / spread;
    assert!(error > 0.0 && error < 0.05, "{error}");
}
