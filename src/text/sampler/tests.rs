use super::numbers::{exp, philox};
use super::*;
use crate::error::Kind;

/// Returns logits without a pattern, in about (-8, 8).
fn logits(count: usize, seed: u64) -> Vec<f32> {
    (0..count as u64).map(|i| ((uniform(seed, 7, i) + uniform(seed, 8, i) - 1.0) * 8.0) as f32).collect()
}

fn context(tokens: &[i64], row: u64) -> Context<'_> {
    Context { tokens, prompt: 0, row }
}

/// Returns the probabilities after all filters, as the module describes them, computed in float64 with a full sort.
fn reference(logits: &[f32], options: &SamplingOptions, context: &Context<'_>) -> Vec<f64> {
    let mut x: Vec<f64> = logits.iter().map(|l| f64::from(*l)).collect();
    let written = &context.tokens[context.prompt..];
    for (id, value) in x.iter_mut().enumerate() {
        let token = id as i64;
        if context.tokens.contains(&token) {
            let penalty = f64::from(options.repetition_penalty);
            *value = if *value > 0.0 { *value / penalty } else { *value * penalty };
        }
        let count = written.iter().filter(|t| **t == token).count() as f64;
        if count > 0.0 {
            *value -= f64::from(options.presence_penalty) + f64::from(options.frequency_penalty) * count;
        }
    }
    let size = options.no_repeat_ngram_size;
    for gram in context.tokens.windows(size.max(1)).filter(|_| size > 0) {
        if gram[..size - 1] == context.tokens[context.tokens.len() + 1 - size..] {
            x[gram[size - 1] as usize] = f64::NEG_INFINITY;
        }
    }
    let mut ids: Vec<usize> = (0..x.len()).collect();
    ids.sort_by(|a, b| x[*b].total_cmp(&x[*a]).then(a.cmp(b)));
    if options.top_k > 0 {
        ids.truncate(options.top_k);
    }
    let weight = |id: usize| ((x[id] - x[ids[0]]) / f64::from(options.temperature)).exp();
    let total: f64 = ids.iter().map(|id| weight(*id)).sum();
    let (mut kept, mut sum) = (Vec::new(), 0.0);
    for &id in &ids {
        if sum >= f64::from(options.top_p) * total {
            break;
        }
        sum += weight(id);
        kept.push(id);
    }
    kept.retain(|id| weight(*id) >= f64::from(options.min_p));
    let total: f64 = kept.iter().map(|id| weight(*id)).sum();
    let mut p = vec![0.0; x.len()];
    kept.iter().for_each(|id| p[*id] = weight(*id) / total);
    p
}

/// Returns the token that the reference samples.
fn drawn(p: &[f64], point: f64) -> usize {
    let mut left = point;
    let possible = p.iter().enumerate().filter(|(_, p)| **p > 0.0);
    let mut last = 0;
    for (id, p) in possible {
        last = id;
        left -= p;
        if left < 0.0 {
            break;
        }
    }
    last
}

#[test]
fn every_combination_of_filters_draws_as_the_reference_does() {
    let tokens: Vec<i64> = (0..60).map(|i| (i * i * 7 + i / 3) % 50).collect();
    let mut different = 0;
    let mut draws = 0;
    for (index, size) in [50usize, 300, 3000].iter().cycle().take(240).enumerate() {
        let pick =
            |values: &[f32], salt: u64| values[(philox([index as u32, 0, 0, 0], salt)[0] as usize) % values.len()];
        let options = SamplingOptions {
            temperature: pick(&[0.3, 1.0, 2.5], 1),
            top_k: pick(&[0.0, 1.0, 5.0, 40.0, 700.0], 2) as usize,
            top_p: pick(&[1.0, 0.999, 0.9, 0.3], 3),
            min_p: pick(&[0.0, 0.02, 0.5], 4),
            repetition_penalty: pick(&[1.0, 1.3], 5),
            presence_penalty: pick(&[0.0, 0.5], 6),
            frequency_penalty: pick(&[0.0, 0.2], 7),
            no_repeat_ngram_size: pick(&[0.0, 1.0, 2.0], 8) as usize * usize::from(*size > 50),
            seed: index as u64,
        };
        let logits = logits(*size, index as u64);
        let context = Context { tokens: &tokens, prompt: 20, row: 3 };
        let p = reference(&logits, &options, &context);
        let mut sampler = Sampler::new(&options).unwrap();
        for length in 0..20 {
            let context = Context { tokens: &tokens[..40 + length], ..context };
            let p = if options.penalizes() { reference(&logits, &options, &context) } else { p.clone() };
            let expected = drawn(&p, uniform(options.seed, 3, context.tokens.len() as u64));
            let got = sampler.choose(&logits, &context).unwrap() as usize;
            draws += 1;
            different += usize::from(got != expected);
            // float32 may move a boundary slightly, but never to a token that the reference clearly excludes.
            assert!(p[got] > 0.0 || p.iter().filter(|p| **p > 0.0).count() > 100, "{options:?}: token {got}");
        }
    }
    assert!(different <= draws / 1000, "{different} of {draws} draws differ");
}

#[test]
fn what_is_drawn_has_the_probabilities_of_the_reference() {
    let logits = logits(200, 5);
    for (top_k, top_p, min_p) in [(0, 1.0, 0.0), (20, 1.0, 0.0), (0, 0.8, 0.0), (50, 0.9, 0.05)] {
        let options = SamplingOptions { temperature: 1.3, top_k, top_p, min_p, seed: 9, ..Default::default() };
        let p = reference(&logits, &options, &context(&[], 0));
        let mut sampler = Sampler::new(&options).unwrap();
        let draws = 40_000;
        let mut counts = vec![0u32; 200];
        for row in 0..draws {
            counts[sampler.choose(&logits, &context(&[], row)).unwrap() as usize] += 1;
        }
        // Chi-squared over tokens expected often enough: mean = degrees, standard deviation = sqrt(2 · degrees).
        let (mut chi, mut degrees) = (0.0, 0.0);
        for (count, p) in counts.iter().zip(&p) {
            assert!(*p > 0.0 || *count == 0);
            let expected = p * draws as f64;
            if expected >= 5.0 {
                chi += (f64::from(*count) - expected).powi(2) / expected;
                degrees += 1.0;
            }
        }
        assert!((chi - degrees).abs() < 4.0 * (2.0f64 * degrees).sqrt(), "{chi} for {degrees}");
    }
}

#[test]
fn without_temperature_the_lowest_id_of_the_best_is_taken() {
    let mut sampler = Sampler::new(&SamplingOptions::default()).unwrap();
    assert_eq!(sampler.choose(&[1.0, 3.0, -2.0, 3.0], &context(&[], 0)).unwrap(), 1);
    assert_eq!(sampler.choose(&[f32::NAN, -7.0, f32::NEG_INFINITY], &context(&[], 0)).unwrap(), 1);
    for bad in [&[f32::NAN, f32::NEG_INFINITY][..], &[f32::INFINITY, 1.0], &[]] {
        assert_eq!(sampler.choose(bad, &context(&[], 0)).unwrap_err().kind(), Kind::Runtime);
    }
    let options = SamplingOptions { temperature: 5.0, top_k: 2, seed: 1, ..Default::default() };
    let mut sampler = Sampler::new(&options).unwrap();
    for row in 0..100 {
        let id = sampler.choose(&[1.0, f32::NAN, 1.0, 1.0], &context(&[], row)).unwrap();
        assert!(id == 0 || id == 2, "of equal candidates those with the lowest ids stay, got {id}");
    }
}

#[test]
fn penalties_act_on_what_they_should() {
    let choose = |options: SamplingOptions, tokens: &[i64], prompt| {
        let context = Context { tokens, prompt, row: 0 };
        Sampler::new(&options).unwrap().choose(&[2.0, 1.9, -1.0], &context).unwrap()
    };
    let off = SamplingOptions::default;
    assert_eq!(choose(SamplingOptions { repetition_penalty: 1.2, ..off() }, &[0], 1), 1);
    assert_eq!(choose(SamplingOptions { presence_penalty: 0.5, ..off() }, &[0], 1), 0, "not on the prompt");
    assert_eq!(choose(SamplingOptions { presence_penalty: 0.5, ..off() }, &[9, 0], 1), 1);
    assert_eq!(choose(SamplingOptions { frequency_penalty: 0.06, ..off() }, &[0], 0), 0);
    assert_eq!(choose(SamplingOptions { frequency_penalty: 0.06, ..off() }, &[0, 0], 0), 1);
    assert_eq!(choose(SamplingOptions { no_repeat_ngram_size: 2, ..off() }, &[2, 0, 1, 2], 4), 1);
    assert_eq!(choose(SamplingOptions { no_repeat_ngram_size: 3, ..off() }, &[2, 0, 1, 2], 4), 0);
    let all = SamplingOptions { no_repeat_ngram_size: 1, ..off() };
    let e = Sampler::new(&all).unwrap().choose(&[1.0, 2.0], &context(&[0, 1], 0)).unwrap_err();
    assert_eq!(e.kind(), Kind::InvalidArgument);
}

#[test]
fn options_out_of_range_are_named() {
    let wrong = |options: SamplingOptions| Sampler::new(&options).err().unwrap().to_string();
    let off = SamplingOptions::default;
    assert!(wrong(SamplingOptions { temperature: -1.0, ..off() }).contains("temperature is -1; it must be 0 or more"));
    assert!(wrong(SamplingOptions { temperature: f32::NAN, ..off() }).contains("temperature"));
    assert!(wrong(SamplingOptions { top_p: 0.0, ..off() }).contains("top_p is 0; it must be above 0 and at most 1"));
    assert!(wrong(SamplingOptions { min_p: 1.5, ..off() }).contains("min_p"));
    assert!(wrong(SamplingOptions { presence_penalty: 3.0, ..off() }).contains("between -2 and 2"));
    assert!(wrong(SamplingOptions { repetition_penalty: 0.0, ..off() }).contains("above 0"));
}

#[test]
fn recommended_options_are_those_of_the_file() {
    let defaults = |text: &str| {
        let sampling = serde_json::from_str(text).unwrap();
        SamplingOptions::recommended(&GenerationDefaults { sampling, ..Default::default() })
    };
    assert_eq!(defaults("{}").temperature, 0.0);
    assert_eq!(defaults(r#"{"temperature": 0.6}"#).temperature, 0.0);
    assert!(defaults(r#"{"top_k": 20, "top_p": 0.9, "min_p": 0.1}"#).check().is_ok());
    let options = defaults(r#"{"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95}"#);
    assert_eq!((options.temperature, options.top_k, options.top_p), (0.6, 20, 0.95));
}

#[test]
fn options_that_are_drawn_are_drawn_and_filters_without_a_draw_are_refused() {
    let sampling = serde_json::from_str(r#"{"temperature": 0.6, "top_p": 0.9}"#).unwrap();
    let drawn = SamplingOptions::drawn(&GenerationDefaults { sampling, ..Default::default() });
    assert_eq!((drawn.temperature, drawn.top_k, drawn.top_p), (0.6, 50, 0.9));
    let drawn = SamplingOptions::drawn(&GenerationDefaults::default());
    assert_eq!((drawn.temperature, drawn.top_k, drawn.top_p), (1.0, 50, 1.0));
    let off = SamplingOptions::default;
    let wrong = [
        ("top_k", SamplingOptions { top_k: 50, ..off() }),
        ("top_p", SamplingOptions { top_p: 0.9, ..off() }),
        ("min_p", SamplingOptions { min_p: 0.1, ..off() }),
    ];
    for (name, options) in wrong {
        let e = options.check().unwrap_err();
        assert!(e.to_string().contains(name) && e.to_string().contains("temperature"), "{e}");
        assert!(SamplingOptions { temperature: 1.0, ..options }.check().is_ok());
    }
    // With one candidate, nothing is sampled either.
    assert!(SamplingOptions { top_k: 1, ..off() }.check().is_ok());
}

#[test]
fn log_probabilities_are_those_of_float64() {
    let logits = logits(50_257, 3);
    let max = logits.iter().copied().fold(f32::MIN, f32::max);
    let total: f64 = logits.iter().map(|l| f64::from(l - max).exp()).sum();
    let of = |id: usize| f64::from(logits[id]) - f64::from(max) - total.ln();
    let found = logprobs(&logits, 77, 5).unwrap();
    assert!((f64::from(found.chosen.logprob) - of(77)).abs() < 2e-6);
    let mut ids: Vec<usize> = (0..logits.len()).collect();
    ids.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    for (got, id) in found.top.iter().zip(&ids) {
        assert_eq!(got.token, *id as i64);
        assert!((f64::from(got.logprob) - of(*id)).abs() < 2e-6);
    }
    let all = logprobs(&logits, 0, logits.len()).unwrap();
    let sum: f64 = all.top.iter().map(|l| f64::from(l.logprob).exp()).sum();
    assert!(all.top.len() == logits.len() && (sum - 1.0).abs() < 1e-5, "{sum}");
    assert_eq!(logprobs(&[0.0], 1, 0).unwrap_err().kind(), Kind::InvalidArgument);
}

#[test]
fn exponentials_are_exact_enough() {
    for i in 0..100_000 {
        let x = -(i as f32) * 1e-3;
        let (got, exact) = (f64::from(exp(x)), f64::from(x).exp());
        let tolerance = if x > -87.0 { 2e-7 * exact } else { 2e-38 };
        assert!((got - exact).abs() <= tolerance, "{x}: {got} {exact}");
    }
    assert_eq!((exp(0.0), exp(f32::NEG_INFINITY), exp(f32::NAN)), (1.0, 0.0, 0.0));
}

#[test]
fn random_numbers_are_those_of_the_published_vectors() {
    // Known answers of Random123 for philox4x32 with 10 rounds.
    assert_eq!(philox([0; 4], 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(philox([u32::MAX; 4], u64::MAX), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
    assert_eq!(philox(counter, 0x299f_31d0_a409_3822), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    let mean: f64 = (0..10_000).map(|i| uniform(1, 2, i)).sum::<f64>() / 10_000.0;
    assert!((mean - 0.5).abs() < 0.01, "{mean}");
}
