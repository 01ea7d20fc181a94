//! Tests with tiny models of many families, in both dialects: rows do not influence each other.

use super::*;

#[test]
fn greedy_tokens_are_those_of_reading_everything_again() {
    for family in FAMILIES {
        let prompt = [5, 9, 17, 33, 90, 4, 4, 21];
        let expected = greedy_without_cache(&load(&fixture(family), Dialect::Portable), &prompt, 50);
        for dialect in BOTH {
            let got = tokens(&mut tiny(family, dialect), &[&prompt], &exactly(50));
            assert_eq!(got[0], expected, "{family} {dialect:?}");
        }
    }
}

#[test]
fn a_batch_writes_what_each_row_writes_alone() {
    let prompts: [&[i64]; 4] = [&[7, 8, 9, 10, 11, 12], &[40], &[100, 3, 77], &[13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3]];
    every(|name, generator| {
        for temperature in [0.0, 0.9] {
            let sampling = SamplingOptions { temperature, seed: 11, ..SamplingOptions::default() };
            // Some rows end early: the others continue.
            let options = GenerateOptions { sampling, eos_token_ids: Some(vec![3, 50, 99, 140]), ..exactly(40) };
            let together = tokens(generator, &prompts, &options);
            for (row, prompt) in prompts.iter().enumerate() {
                let options = GenerateOptions { first_row: row as u64, ..options.clone() };
                assert_eq!(tokens(generator, &[prompt], &options)[0], together[row], "{name}, row {row}");
            }
        }
    });
}

#[test]
fn going_on_is_the_same_as_one_long_prompt() {
    every(|name, generator| {
        for temperature in [0.0, 1.0] {
            let sampling = SamplingOptions { temperature, seed: 3, ..SamplingOptions::default() };
            let options = GenerateOptions { sampling, ..exactly(7) };
            generator.start(2).unwrap();
            generator.append(0, Prompt::Tokens(&[5, 6, 7])).unwrap();
            generator.append(1, Prompt::Tokens(&[9])).unwrap();
            generator.run(&options, None, &Call::default()).unwrap();
            generator.append(0, Prompt::Tokens(&[20, 21])).unwrap();
            generator.append(1, Prompt::Tokens(&[30, 31, 32, 33, 34])).unwrap();
            let so_far = [generator.tokens(0).unwrap().to_vec(), generator.tokens(1).unwrap().to_vec()];
            let second = generator.run(&options, None, &Call::default()).unwrap();
            assert_eq!(second[1].prompt_tokens, so_far[1].len());
            let whole = tokens(generator, &[&so_far[0], &so_far[1]], &options);
            assert_eq!([&second[0].tokens, &second[1].tokens], [&whole[0], &whole[1]], "{name}");
        }
    });
}

#[test]
fn what_is_taken_back_is_written_again_the_same() {
    every(|name, generator| {
        let prompts: [&[i64]; 2] = [&[5, 6, 7, 8], &[60, 61]];
        let first = tokens(generator, &prompts, &exactly(20));
        for (row, count) in [(0, 13), (1, 20), (0, 1), (1, 3)] {
            generator.rewind(row, count).unwrap();
            let left = generator.tokens(row).unwrap().len() - prompts[row].len();
            let again = generator.run(&exactly(20), None, &Call::default()).unwrap();
            // The other row has continued, and is rewound to where it was.
            assert_eq!(again[row].tokens[..20 - left], first[row][left..], "{name}, {count} back");
            for row in 0..2 {
                let extra = generator.tokens(row).unwrap().len() - prompts[row].len() - 20;
                generator.rewind(row, extra).unwrap();
                assert_eq!(generator.tokens(row).unwrap()[prompts[row].len()..], first[row], "{name}");
            }
        }
        let e = generator.rewind(0, 1000).unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidArgument);
    });
}

#[test]
fn a_generator_moves_between_threads() {
    let mut generator = tiny("llama", Dialect::Runtime);
    let here = tokens(&mut generator, &[&[1, 2]], &exactly(5));
    let there = std::thread::spawn(move || tokens(&mut generator, &[&[1, 2]], &exactly(5))).join().unwrap();
    assert_eq!(here, there);
}

#[test]
fn tokens_can_be_chosen_by_the_caller() {
    every(|name, generator| {
        let expected = tokens(generator, &[&[1, 2, 3]], &exactly(10)).remove(0);
        generator.start(1).unwrap();
        generator.append(0, Prompt::Tokens(&[1, 2, 3])).unwrap();
        assert_eq!(generator.next_logits(0).unwrap_err().kind(), Kind::InvalidArgument);
        for token in expected {
            generator.advance(&Call::default()).unwrap();
            let logits = generator.next_logits(0).unwrap().to_vec();
            assert_eq!(highest(&logits), token, "{name}");
            // A wrong token is appended and removed again.
            generator.push(0, 4).unwrap();
            generator.advance(&Call::default()).unwrap();
            generator.rewind(0, 1).unwrap();
            generator.advance(&Call::default()).unwrap();
            let again = generator.next_logits(0).unwrap();
            assert!(again.iter().zip(&logits).all(|(a, b)| (a - b).abs() < 1e-5), "{name}");
            generator.push(0, token).unwrap();
        }
    });
}

#[test]
fn a_seed_gives_the_same_text_and_another_seed_another() {
    let mut generator = tiny("llama", Dialect::Runtime);
    let mut draw = |seed| {
        let sampling = SamplingOptions { temperature: 1.5, top_p: 0.98, seed, ..SamplingOptions::default() };
        tokens(&mut generator, &[&[1, 2], &[1, 2]], &GenerateOptions { sampling, ..exactly(30) })
    };
    let first = draw(1);
    assert_eq!(first, draw(1));
    assert_ne!(first[0], first[1], "rows with the same prompt draw on their own");
    assert_ne!(first, draw(2));
}

#[test]
fn log_probabilities_come_with_every_token() {
    let mut generator = tiny("qwen3", Dialect::Runtime);
    let sampling = SamplingOptions { temperature: 2.0, seed: 5, ..SamplingOptions::default() };
    let options = GenerateOptions { logprobs: Some(150), sampling, ..exactly(5) };
    let seen = RefCell::new(Vec::new());
    let mut on_token = |written: &Written<'_>| {
        seen.borrow_mut().push(written.logprobs.unwrap().clone());
        ControlFlow::Continue(())
    };
    let prompt = [Prompt::Tokens(&[1, 2, 3])];
    let text = generator.generate(&prompt, &options, Some(&mut on_token), &Call::default()).unwrap().remove(0);
    assert_eq!((text.logprobs.len(), &text.logprobs), (5, &*seen.borrow()));
    for (token, found) in text.tokens.iter().zip(&text.logprobs) {
        assert_eq!(found.chosen.token, *token);
        let sum: f64 = found.top.iter().map(|l| f64::from(l.logprob).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-5 && found.top.len() == 150, "{sum}");
        assert!(found.top.windows(2).all(|w| w[0].logprob >= w[1].logprob));
        let same = found.top.iter().find(|l| l.token == *token).unwrap();
        assert_eq!(same.logprob, found.chosen.logprob);
    }
    assert!(write(&mut generator, &prompt, &exactly(2))[0].logprobs.is_empty());
}

#[test]
fn limits_are_kept_and_what_is_beyond_them_refused() {
    let mut generator = tiny("llama", Dialect::Runtime);
    let prompt: Vec<i64> = (0..10).collect();
    let mut length = |new: Option<usize>, all: Option<usize>| {
        let options = GenerateOptions { max_new_tokens: new, max_length: all, ..exactly(0) };
        let text = generator.generate(&[Prompt::Tokens(&prompt)], &options, None, &Call::default())?.remove(0);
        assert_eq!(text.finish_reason, FinishReason::Length);
        Result::Ok(text.tokens.len())
    };
    assert_eq!(length(Some(4), None).unwrap(), 4);
    assert_eq!(length(None, Some(14)).unwrap(), 4);
    assert_eq!(length(Some(3), Some(14)).unwrap(), 3);
    assert_eq!(length(Some(9), Some(14)).unwrap(), 4);
    assert_eq!(length(Some(0), None).unwrap(), 0);
    assert_eq!(length(None, Some(10)).unwrap(), 0);
    // The model reads 64 tokens.
    assert_eq!(length(None, None).unwrap(), 54);
    assert_eq!(length(Some(1000), None).unwrap(), 54);
    let e = length(None, Some(9)).unwrap_err();
    assert_eq!(e.to_string(), "row 1: the prompt already has 10 tokens; max_length is 9 and includes them");
    let mut refused = |prompt: Prompt<'_>, options: &GenerateOptions| {
        let e = generator.generate(&[prompt], options, None, &Call::default()).unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidArgument);
        e.to_string()
    };
    let long = vec![1; 65];
    assert!(refused(Prompt::Tokens(&long), &exactly(1)).contains("65 tokens; the limit of the model is 64"));
    assert!(refused(Prompt::Tokens(&[]), &exactly(1)).contains("row 1: the prompt is empty"));
    assert!(refused(Prompt::Tokens(&[-1]), &exactly(1)).contains("prompt 1: -1 is not a token id"));
    assert!(refused(Prompt::Text("Hi"), &exactly(1)).contains("no tokenizer.json"));
    let stop = GenerateOptions { stop: vec!["x".into()], ..exactly(1) };
    assert!(refused(Prompt::Tokens(&[1]), &stop).contains("stop strings need a tokenizer"));
    let e = generator.generate(&[Prompt::Tokens(&[5000])], &exactly(1), None, &Call::default()).unwrap_err();
    assert_eq!(e.kind(), Kind::Runtime, "an id beyond the vocabulary: {e}");
    assert!(generator.start(1 << 20).is_err());
    assert!(write(&mut generator, &[], &exactly(1)).is_empty());
}

#[test]
fn the_callback_can_stop_and_sees_every_token() {
    let mut generator = tiny("llama", Dialect::Portable);
    let seen = RefCell::new(Vec::new());
    let mut on_token = |written: &Written<'_>| {
        seen.borrow_mut().push((written.row, written.token));
        if seen.borrow().len() == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let prompts = [Prompt::Tokens(&[1]), Prompt::Tokens(&[2, 3])];
    let texts = generator.generate(&prompts, &exactly(20), Some(&mut on_token), &Call::default()).unwrap();
    let lengths: Vec<usize> = texts.iter().map(|t| t.tokens.len()).collect();
    assert_eq!(
        (lengths, texts[0].finish_reason, texts[1].finish_reason),
        (vec![3, 2], FinishReason::Cancelled, FinishReason::Cancelled)
    );
    assert_eq!(seen.borrow()[4], (0, texts[0].tokens[2]));
    // The generation continues from where it was stopped.
    let rest = generator.run(&exactly(5), None, &Call::default()).unwrap();
    let whole = tokens(&mut generator, &[&[1], &[2, 3]], &exactly(8));
    assert_eq!((&rest[0].tokens[..], &rest[1].tokens[..]), (&whole[0][3..8], &whole[1][2..7]));
}
