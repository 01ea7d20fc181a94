//! Tests of text generation with SmolLM2.

use super::*;
use optimize::call::Cancel;
use std::time::{Duration, Instant};

#[test]
fn smollm2_answers_and_writes_the_same_64_tokens_with_and_without_a_cache() {
    let path = support::deps("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    let portable = load(&path, Dialect::Portable);
    let mut fast = smollm2(Dialect::Runtime, 2);
    let question = chat(&fast, &portable, "What is the capital of France?");
    let answer = write(&mut fast, &[Prompt::Rendered(&question)], &GenerateOptions::default());
    assert_eq!(answer[0].text, "The capital of France is Paris.");
    assert_eq!(answer[0].finish_reason, FinishReason::Eos);
    let prompt = "Once upon a time, in a village by the sea, there lived";
    let long = write(&mut fast, &[Prompt::Text(prompt)], &exactly(64));
    println!("{}", long[0].text);
    let ids = fast.tokenizer().unwrap().encode(prompt, true).unwrap().ids;
    assert_eq!(long[0].tokens, greedy_in_one_run(&portable, &ids, &long[0].tokens));
    let same = write(&mut generator(&portable, 2), &[Prompt::Text(prompt)], &exactly(64));
    assert_eq!(same[0].tokens, long[0].tokens);
    assert_eq!(
        write(&mut smollm2(Dialect::Runtime, 1), &[Prompt::Text(prompt)], &exactly(64))[0].tokens,
        long[0].tokens
    );
}

#[test]
fn smollm2_writes_the_same_in_a_batch_and_with_any_number_of_threads() {
    let questions = ["Name three colours.", "Why is the sky blue?", "Write a haiku about rain.", "2 + 2 ="];
    let model = load(&support::deps("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"), Dialect::Runtime);
    let mut one = generator(&model, 1);
    let texts: Vec<String> = questions.iter().map(|q| chat(&one, &model, q)).collect();
    let prompts: Vec<Prompt<'_>> = texts.iter().map(|t| Prompt::Rendered(t)).collect();
    let options = GenerateOptions { max_new_tokens: Some(48), ..GenerateOptions::default() };
    let together = write(&mut one, &prompts, &options);
    let mut two = generator(&model, 2);
    assert_eq!(texts_of(&write(&mut two, &prompts, &options)), texts_of(&together));
    for (prompt, expected) in prompts.iter().zip(&together) {
        let alone = write(&mut two, &[*prompt], &options);
        assert_eq!((&alone[0].tokens, alone[0].finish_reason), (&expected.tokens, expected.finish_reason));
    }
}

#[test]
fn cancel_deadline_and_progress_end_a_text_and_leave_it_usable() {
    let mut generator = smollm2(Dialect::Runtime, 2);
    let prompt = [Prompt::Text("Once upon a time"), Prompt::Text("The")];
    let expected = write(&mut generator, &prompt, &exactly(4));
    let long = exactly(4000);
    let cancel = Cancel::new();
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(400));
            cancel.fire();
        });
        let call = Call { cancel: Some(&cancel), ..Call::default() };
        let e = generator.generate(&prompt, &long, None, &call).unwrap_err();
        assert_eq!(e.kind(), Kind::Cancelled, "{e}");
    });
    assert!(start.elapsed() < Duration::from_secs(60));
    // A deadline also ends the prefill of a long prompt before its end.
    let many: Vec<i64> = (0..4000).map(|i| 1000 + i % 3000).collect();
    let call = Call { deadline: Some(Instant::now() + Duration::from_millis(300)), ..Call::default() };
    let e = generator.generate(&[Prompt::Tokens(&many)], &long, None, &call).unwrap_err();
    assert_eq!(e.kind(), Kind::Timeout, "{e}");
    let stages = RefCell::new(Vec::new());
    let progress = |p: optimize::call::Progress<'_>| {
        stages.borrow_mut().push((p.stage.to_owned(), p.done, p.total));
        if p.stage == "generate" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let call = Call { progress: Some(&progress), ..Call::default() };
    let e = generator.generate(&prompt, &long, None, &call).unwrap_err();
    assert_eq!(e.kind(), Kind::Cancelled, "{e}");
    assert_eq!(stages.borrow()[0].0, "prompt");
    assert_eq!(stages.borrow().last().unwrap().2, 8000);
    let again = write(&mut generator, &prompt, &exactly(4));
    assert_eq!(texts_of(&again), texts_of(&expected));
}

#[test]
fn stop_strings_end_a_text_and_are_never_shown() {
    let mut generator = smollm2(Dialect::Runtime, 2);
    let prompt = [Prompt::Text("one, two, three, four,")];
    let free = write(&mut generator, &prompt, &exactly(24)).remove(0);
    println!("{:?}", free.text);
    // The stop string is a part of the output that crosses boundaries of tokens.
    let pieces = free.text.char_indices().filter(|(i, c)| *i > 8 && c.is_alphabetic()).map(|(i, _)| i).next().unwrap();
    let stop = free.text[pieces + 1..pieces + 9].to_owned();
    let seen = RefCell::new(String::new());
    let mut on_token = |written: &Written<'_>| {
        seen.borrow_mut().push_str(written.text);
        ControlFlow::Continue(())
    };
    let options = GenerateOptions { stop: vec!["never there".into(), stop.clone()], ..exactly(24) };
    let text = generator.generate(&prompt, &options, Some(&mut on_token), &Call::default()).unwrap().remove(0);
    assert_eq!(text.finish_reason, FinishReason::Stop);
    assert_eq!(text.text, free.text[..free.text.find(&stop).unwrap()]);
    assert_eq!(text.text, *seen.borrow());
    assert!(text.tokens.len() < free.tokens.len() && free.tokens.starts_with(&text.tokens));
    // If the text ends with half a stop string, that half is part of the text.
    let half: String = free.text.chars().rev().take(3).collect::<Vec<_>>().into_iter().rev().collect();
    let options = GenerateOptions { stop: vec![half + "!never!"], ..exactly(24) };
    assert_eq!(write(&mut generator, &prompt, &options)[0].text, free.text);
}

#[test]
fn characters_of_several_tokens_come_whole() {
    let mut generator = smollm2(Dialect::Runtime, 2);
    let prompt = "😀 🎉 😀 🎉 😀 🎉 😀 🎉 😀";
    let ids = generator.tokenizer().unwrap().encode(prompt, true).unwrap().ids;
    assert!(ids.len() > 20, "each of these characters is several tokens: {}", ids.len());
    let pieces = RefCell::new(Vec::new());
    let mut on_token = |written: &Written<'_>| {
        pieces.borrow_mut().push(written.text.to_owned());
        ControlFlow::Continue(())
    };
    let text = generator.generate(&[Prompt::Text(prompt)], &exactly(30), Some(&mut on_token), &Call::default());
    let text = text.unwrap().remove(0);
    println!("{:?} {:?}", text.text, pieces.borrow());
    assert!(text.text.contains('🎉') && !text.text.contains(char::REPLACEMENT_CHARACTER));
    assert_eq!(pieces.borrow().concat(), text.text);
    assert!(pieces.borrow().iter().any(String::is_empty));
    // A run that ends inside a character returns what its tokens decode to; the next one returns the whole character.
    for first in 1..6 {
        let begun = write(&mut generator, &[Prompt::Text(prompt)], &exactly(first)).remove(0);
        let rest = generator.run(&exactly(30 - first), None, &Call::default()).unwrap().remove(0);
        let whole = begun.text.trim_end_matches(char::REPLACEMENT_CHARACTER).to_owned() + &rest.text;
        assert_eq!(whole, text.text, "{first}");
    }
}

#[test]
fn the_prompt_can_be_shown_and_special_tokens_kept() {
    let mut generator = smollm2(Dialect::Runtime, 2);
    let model = load(&support::deps("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"), Dialect::Runtime);
    let question = chat(&generator, &model, "What is the capital of France?");
    let prompt = [Prompt::Rendered(question.as_str())];
    let options = GenerateOptions { echo: true, keep_special_tokens: true, ..GenerateOptions::default() };
    let text = write(&mut generator, &prompt, &options).remove(0);
    assert_eq!(text.text, question.clone() + "The capital of France is Paris.<|im_end|>");
    let options = GenerateOptions { echo: true, ..GenerateOptions::default() };
    let text = write(&mut generator, &prompt, &options).remove(0).text;
    assert!(text.ends_with("assistant\nThe capital of France is Paris.") && !text.contains("<|"), "{text}");
}
