//! Tests of speculative decoding: a draft changes no token, and what it cannot do is refused.

use super::shapes::{next_by_table, summing};
use super::*;
use optimize::call::Cancel;
use optimize::distill::{StudentLayers, student_of};
use optimize::limits;
use optimize::onnx::dtype::DataType;
use serde_json::json;
use std::sync::Arc;

/// Prompts of the tiny models: a text that repeats itself, one that does not, and a single token.
const PROMPTS: [&[i64]; 3] = [&[5, 6, 7, 8, 5, 6, 7, 8, 5, 6], &[40, 3, 77, 12, 90], &[9]];

fn lookup(max: usize) -> Draft {
    Draft { lookup: true, max: Some(max), model: None }
}

fn by(model: Generator, max: usize) -> Draft {
    Draft { model: Some(Box::new(model)), lookup: false, max: Some(max) }
}

fn sampled(temperature: f32) -> SamplingOptions {
    SamplingOptions { temperature, seed: 7, ..SamplingOptions::default() }
}

fn one(generator: &mut Generator, prompt: &[i64], options: &GenerateOptions) -> Generation {
    write(generator, &[Prompt::Tokens(prompt)], options).remove(0)
}

fn counts(generation: &Generation) -> Drafted {
    let counts = generation.draft.expect("numbers of drafted tokens");
    let ratio = counts.accepted as f64 / counts.drafted as f64;
    assert_eq!(counts.acceptance, (counts.drafted > 0).then_some(ratio));
    // A run adds one token to the text, and one more for each accepted token; a text may end before the last of them.
    let given = counts.steps + counts.accepted;
    assert!(given == generation.tokens.len() || given == generation.tokens.len() + 1, "{counts:?}");
    counts
}

/// Checks that every generation is the same with and without a draft, and returns the number of accepted tokens.
fn check_same(name: &str, generator: &mut Generator, make: &dyn Fn() -> Draft, options: &[GenerateOptions]) -> usize {
    let mut accepted = 0;
    for prompt in PROMPTS {
        for options in options {
            generator.set_draft(None).unwrap();
            let expected = one(generator, prompt, options);
            assert!(expected.draft.is_none());
            generator.set_draft(Some(make())).unwrap();
            let found = one(generator, prompt, options);
            assert_eq!(found.tokens, expected.tokens, "{name} {:?}", options.sampling);
            assert_eq!(found.finish_reason, expected.finish_reason, "{name}");
            accepted += counts(&found).accepted;
        }
    }
    accepted
}

#[test]
fn look_up_changes_no_token() {
    every(|name, generator| {
        let penalties = SamplingOptions { repetition_penalty: 1.3, no_repeat_ngram_size: 4, ..sampled(0.0) };
        let options = [sampled(0.0), sampled(0.3), sampled(1.0), penalties];
        let options = options.map(|sampling| GenerateOptions { sampling, ..exactly(40) });
        let accepted: usize = [1, 3, 8].map(|max| check_same(name, generator, &|| lookup(max), &options)).iter().sum();
        println!("{name}: {accepted} accepted");
        assert!(accepted > 0, "{name}");
    });
}

#[test]
fn a_draft_model_changes_no_token() {
    for family in FAMILIES {
        for dialect in BOTH {
            let mut generator = tiny(family, dialect);
            let other = if family == "llama" { "mistral" } else { "llama" };
            let options = [0.0, 1.0].map(|heat| GenerateOptions { sampling: sampled(heat), ..exactly(40) });
            check_same(family, &mut generator, &|| by(tiny(other, dialect), 3), &options);
            let both = || Draft { lookup: true, ..by(tiny(other, dialect), 5) };
            check_same(family, &mut generator, &both, &options);
        }
    }
}

#[test]
fn a_model_accepts_every_token_that_it_drafts_itself() {
    let heats = [sampled(0.0), sampled(0.8), SamplingOptions { top_k: 9, frequency_penalty: 0.5, ..sampled(1.2) }];
    for sampling in heats {
        let mut generator = tiny("llama", Dialect::Runtime);
        generator.set_draft(Some(by(tiny("llama", Dialect::Runtime), 8))).unwrap();
        let options = GenerateOptions { sampling, first_row: 3, ..exactly(40) };
        let found = one(&mut generator, PROMPTS[1], &options);
        let counts = counts(&found);
        assert_eq!((counts.acceptance, counts.accepted), (Some(1.0), counts.drafted));
        // The six runs give 1, 5, 9, 9, 9 and 7 tokens: the drafted ones (none, 4, 8 ...), and one of the run itself.
        assert_eq!((counts.steps, counts.accepted), (6, 34));
    }
}

#[test]
fn texts_end_where_they_end_without_a_draft() {
    let mut generator = tiny("llama", Dialect::Runtime);
    let whole = one(&mut generator, PROMPTS[0], &exactly(40)).tokens;
    let draft = || by(tiny("llama", Dialect::Runtime), 8);
    for length in 1..=30 {
        generator.set_draft(Some(draft())).unwrap();
        let found = one(&mut generator, PROMPTS[0], &exactly(length));
        assert_eq!((found.tokens.as_slice(), found.finish_reason), (&whole[..length], FinishReason::Length));
        // The text continues as if it had not ended inside accepted tokens.
        let rest = generator.run(&exactly(40 - length), None, &Call::default()).unwrap().remove(0);
        assert_eq!(rest.tokens, whole[length..], "after {length}");
        assert_eq!(rest.prompt_tokens, PROMPTS[0].len() + length);
        // A token that ends the text is found wherever it is among the drafted ones.
        let end = whole[length - 1];
        let first = whole.iter().position(|token| *token == end).unwrap();
        let stopped = GenerateOptions { stop_tokens: vec![end], ..exactly(40) };
        let found = one(&mut generator, PROMPTS[0], &stopped);
        assert_eq!((found.tokens.as_slice(), found.finish_reason), (&whole[..=first], FinishReason::Stop));
        let ended = GenerateOptions { eos_token_ids: Some(vec![end]), ..exactly(40) };
        let found = one(&mut generator, PROMPTS[0], &ended);
        assert_eq!((found.tokens.as_slice(), found.finish_reason), (&whole[..=first], FinishReason::Eos));
        assert_eq!(counts(&found).acceptance.unwrap_or(1.0), 1.0, "nothing is drafted after the end");
    }
    // The context of 64 tokens ends the text.
    let found = one(&mut generator, PROMPTS[0], &exactly(1000));
    assert_eq!((found.tokens.len(), found.finish_reason), (54, FinishReason::Length));
}

#[test]
fn texts_continue_rewind_and_are_cancelled_as_without_a_draft() {
    every(|name, generator| {
        let mut runs = Vec::new();
        for drafts in [false, true] {
            generator.set_draft(drafts.then(|| lookup(6))).unwrap();
            let mut seen = Vec::new();
            let mut stop_at_ninth = |written: &Written<'_>| {
                seen.push(written.token);
                if seen.len() == 9 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            generator.start(1).unwrap();
            generator.append(0, Prompt::Tokens(PROMPTS[0])).unwrap();
            let options = GenerateOptions { sampling: sampled(0.4), ..exactly(12) };
            let broken = generator.run(&options, Some(&mut stop_at_ninth), &Call::default()).unwrap().remove(0);
            assert_eq!((&broken.tokens, broken.finish_reason), (&seen, FinishReason::Cancelled), "{name}");
            generator.append(0, Prompt::Tokens(&[20, 21, 5, 6])).unwrap();
            generator.run(&options, None, &Call::default()).unwrap();
            generator.rewind(0, 5).unwrap();
            // A call that has been cancelled generates nothing.
            let cancel = Cancel::new();
            cancel.fire();
            let call = Call { cancel: Some(&cancel), ..Call::default() };
            assert_eq!(generator.run(&options, None, &call).unwrap_err().kind(), Kind::Cancelled, "{name}");
            generator.run(&exactly(8), None, &Call::default()).unwrap();
            runs.push(generator.tokens(0).unwrap().to_vec());
        }
        assert_eq!(runs[0], runs[1], "{name}");
    });
}

#[test]
fn a_model_without_a_cache_verifies_in_one_run() {
    let mut plain = generator(&next_by_table(), 1);
    let expected = one(&mut plain, &[5], &exactly(20)).tokens;
    plain.set_draft(Some(lookup(8))).unwrap();
    let found = one(&mut plain, &[5], &exactly(20));
    // The tokens are 8 29 26 5 again and again.
    assert_eq!(found.tokens, expected);
    assert!(counts(&found).accepted >= 10, "{:?}", found.draft);
}

#[test]
fn drafts_that_cannot_be_used_are_refused() {
    let mut generator = tiny("llama", Dialect::Runtime);
    let mut refused = |draft: Draft, what: &str| {
        let e = generator.set_draft(Some(draft)).unwrap_err();
        assert!(e.kind() == Kind::InvalidArgument && e.to_string().contains(what), "{e}");
    };
    refused(Draft::default(), "needs a draft model or prompt look-up");
    refused(lookup(0), "draft_max is 0; it must be between 1 and 64");
    refused(lookup(limits::DRAFT_TOKENS + 1), "draft_max is 65");
    let small = super::generator(&next_by_table(), 1);
    refused(by(small, 4), "different vocabularies: one has 150 tokens and the other 30");
    generator.set_draft(Some(lookup(4))).unwrap();
    let prompts = [Prompt::Tokens(&[1, 2]), Prompt::Tokens(&[3])];
    let e = generator.generate(&prompts, &exactly(2), None, &Call::default()).unwrap_err();
    assert_eq!(e.to_string(), "there are 2 rows of text; a generator with a draft generates one at a time");
    generator.set_draft(None).unwrap();
    assert_eq!(write(&mut generator, &prompts, &exactly(2)).len(), 2);

    // This model outputs the logits of one token, whatever it reads.
    let mut summing = super::generator(&summing(DataType::Float32), 1);
    let expected = one(&mut summing, &[4, 4, 4], &exactly(8)).tokens;
    summing.set_draft(Some(lookup(4))).unwrap();
    let e = summing.generate(&[Prompt::Tokens(&[4, 4, 4])], &exactly(8), None, &Call::default()).unwrap_err();
    assert_eq!(e.kind(), Kind::Unsupported, "{e}");
    assert!(e.to_string().contains("a draft needs those of 2 tokens"), "{e}");
    summing.set_draft(None).unwrap();
    assert_eq!(one(&mut summing, &[4, 4, 4], &exactly(8)).tokens, expected);
}

#[test]
fn the_first_difference_of_two_vocabularies_is_named() {
    let with = |words: &[&str]| {
        let vocabulary: serde_json::Map<String, serde_json::Value> =
            words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), id.into())).collect();
        let content = json!({
            "version": "1.0", "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "added_tokens": [], "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "a"}
        });
        let tokenizer = Tokenizer::from_bytes(content.to_string().as_bytes()).unwrap();
        let model = load(&fixture("llama"), Dialect::Runtime);
        let (runtime, options) = (support::runtime(), SessionOptions::default());
        let tokenizer = Some(Arc::new(tokenizer));
        Generator::with_own_tokenizer(runtime, &model, tokenizer, &options, &Call::default()).unwrap()
    };
    let mut target = with(&["a", "b", "c"]);
    let e = target.set_draft(Some(by(with(&["a", "x", "y"]), 4))).unwrap_err();
    let what = "the model and its draft model have different vocabularies: id 1 is \"b\" in one and \"x\" in the other";
    assert_eq!((e.kind(), e.to_string().as_str()), (Kind::InvalidArgument, what));
    let e = target.set_draft(Some(by(with(&["a", "b"]), 4))).unwrap_err();
    assert!(e.to_string().ends_with("id 2 is \"c\" in one, and the other does not have it"), "{e}");
    // More tokens than the model has are not a difference: the model never selects them.
    target.set_draft(Some(by(with(&["a", "b", "c", "d"]), 4))).unwrap();
    let mut plain = tiny("llama", Dialect::Runtime);
    assert_eq!(one(&mut target, &[2, 1], &exactly(9)).tokens, one(&mut plain, &[2, 1], &exactly(9)).tokens);
}

/// The texts that SmolLM2 continues: two that contain repetitions, and one that does not.
const TEXTS: [&str; 3] = [
    "The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick",
    "one, two, three, four, five, six, seven, eight, one, two, three, four,",
    "Once upon a time, in a village by the sea,",
];

/// Returns whether a token has the same bits in a run of several tokens as in a run of one: not with the kernels of
/// ONNX Runtime, with which only the tokens are compared.
fn exact() -> bool {
    std::env::var_os("OPTIMIZE_KERNELS").is_none_or(|kernels| kernels != "stock")
}

/// Returns the generation and all that the callback received.
fn heard(generator: &mut Generator, prompt: &str, options: &GenerateOptions) -> (Generation, Vec<String>) {
    let mut pieces = Vec::new();
    let mut on_token = |written: &Written<'_>| {
        let logprob = written.logprobs.filter(|_| exact()).map(|logprobs| logprobs.chosen.logprob.to_bits());
        pieces.push(format!("{} {:?} {logprob:?} {:?}", written.token, written.text, written.finish_reason));
        ControlFlow::Continue(())
    };
    let prompt = [Prompt::Text(prompt)];
    let text = generator.generate(&prompt, options, Some(&mut on_token), &Call::default()).unwrap().remove(0);
    (text, pieces)
}

#[test]
fn smollm2_generates_the_same_bits_with_and_without_drafts() {
    let model = load(&support::deps("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"), Dialect::Runtime);
    let student = student_of(&model, StudentLayers::Count(26), &Call::default()).unwrap();
    let (mut plain, mut found, mut drafted) = (generator(&model, 2), generator(&model, 2), generator(&model, 2));
    found.set_draft(Some(lookup(12))).unwrap();
    drafted.set_draft(Some(by(generator(&student, 2), 3))).unwrap();
    let penalties = SamplingOptions { repetition_penalty: 1.2, presence_penalty: 0.3, ..sampled(0.6) };
    let among = SamplingOptions { top_k: 20, top_p: 0.9, seed: 3, ..sampled(0.9) };
    let mut accepted = [0, 0];
    for text in TEXTS {
        for sampling in [sampled(0.0), sampled(0.5), penalties.clone(), among.clone()] {
            let options = GenerateOptions { sampling, logprobs: Some(2), ..exactly(24) };
            let expected = heard(&mut plain, text, &options);
            for (index, generator) in [&mut found, &mut drafted].into_iter().enumerate() {
                let (generation, pieces) = heard(generator, text, &options);
                assert_eq!(pieces, expected.1, "{text} {:?}", options.sampling);
                assert_eq!(generation.text, expected.0.text);
                if exact() {
                    assert_eq!(generation.logprobs, expected.0.logprobs, "{text} {:?}", options.sampling);
                }
                accepted[index] += counts(&generation).accepted;
            }
        }
    }
    println!("accepted by look-up and by the student: {accepted:?}");
    assert!(accepted.iter().all(|count| *count > 10), "{accepted:?}");
    assert_eq!(found.placements().len(), 1);
    assert_eq!(drafted.placements().len(), 2);
}

#[test]
fn stop_strings_are_found_inside_accepted_tokens() {
    let mut plain = smollm2(Dialect::Runtime, 2);
    let mut found = smollm2(Dialect::Runtime, 2);
    found.set_draft(Some(lookup(16))).unwrap();
    let free = heard(&mut plain, TEXTS[0], &exactly(60)).0.text;
    for start in (1..free.len().min(90)).step_by(7) {
        let stop: String = free.chars().skip(start).take(5).collect();
        let options = GenerateOptions { stop: vec![stop.clone()], ..exactly(60) };
        let (expected, pieces) = heard(&mut plain, TEXTS[0], &options);
        let (generation, heard) = heard(&mut found, TEXTS[0], &options);
        assert_eq!((generation.text, heard), (expected.text, pieces), "{stop:?}");
        assert_eq!(generation.finish_reason, FinishReason::Stop);
    }
}
