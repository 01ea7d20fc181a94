//! Tests of the loop from prompt to answer, with scripted tokens.

use super::*;
use crate::model::GenerationDefaults;
use crate::runtime::Placement;
use crate::text::{RowTexts, TextStream, Tokenizer};
use serde_json::json;
use std::sync::Arc;

/// Rows that generate the tokens of a script, independent of the prompt.
struct Scripted {
    script: Vec<i64>,
    row: Vec<i64>,
    logits: Vec<f32>,
    stream: Option<TextStream>,
    tokenizer: Arc<Tokenizer>,
    defaults: GenerationDefaults,
}

impl RowTexts for Scripted {
    fn begin_text(&mut self, _: usize, keep_special: bool, whole: bool) -> Result<String> {
        let mut stream = TextStream::new(keep_special);
        let read = if whole { self.row.as_slice() } else { &[] };
        let text = read.iter().map(|token| stream.push(&self.tokenizer, *token)).collect();
        self.stream = Some(stream);
        text
    }

    fn piece(&mut self, _: usize, token: i64) -> Result<String> {
        self.stream.as_mut().unwrap().push(&self.tokenizer, token)
    }

    fn open_text(&self, _: usize) -> Result<String> {
        self.stream.as_ref().unwrap().open()
    }

    fn end_text(&mut self, _: usize) -> Result<String> {
        self.stream.as_mut().unwrap().end()
    }
}

impl Rows for Scripted {
    fn start(&mut self, _: usize) -> Result<()> {
        (self.row, self.stream) = (Vec::new(), None);
        Ok(())
    }
    fn reset(&mut self) {}
    fn row_count(&self) -> usize {
        1
    }
    fn tokens(&self, _: usize) -> Result<&[i64]> {
        Ok(&self.row)
    }
    fn append(&mut self, _: usize, prompt: Prompt<'_>) -> Result<usize> {
        let Prompt::Tokens(tokens) = prompt else { bail!(InvalidArgument, "tokens only") };
        self.row.extend(tokens);
        Ok(tokens.len())
    }
    fn push(&mut self, _: usize, token: i64) -> Result<()> {
        self.row.push(token);
        Ok(())
    }
    fn advance_rows(&mut self, _: &[usize], _: &Stop, _: &mut dyn FnMut(usize) -> Result<()>) -> Result<()> {
        self.logits = vec![0.0; self.tokenizer.vocabulary_size()];
        self.logits[self.script.remove(0) as usize] = 1.0;
        Ok(())
    }
    fn next_logits(&self, _: usize) -> Result<&[f32]> {
        Ok(&self.logits)
    }
    fn reserve(&mut self, _: usize) {}
    fn context(&self) -> Option<usize> {
        None
    }
    fn placements(&self) -> Vec<&Placement> {
        Vec::new()
    }
    fn tokenizer(&self) -> Option<&Arc<Tokenizer>> {
        Some(&self.tokenizer)
    }
    fn defaults(&self) -> &GenerationDefaults {
        &self.defaults
    }
    fn run(
        &mut self,
        options: &GenerateOptions,
        on_token: Option<&mut OnToken<'_>>,
        call: &Call,
    ) -> Result<Vec<Generation>> {
        run(self, options, on_token, call)
    }
}

/// Returns a tokenizer like that of Llama 2: pieces of text, a token for each byte, and two special tokens that do not
/// end a text.
fn llama() -> Arc<Tokenizer> {
    let mut pieces: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    pieces.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    pieces.extend(["\u{2581}Yes", "\u{2581}No", "go", "a"].map(str::to_owned));
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        pieces.iter().enumerate().map(|(id, piece)| (piece.clone(), id.into())).collect();
    let added = |id: usize, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let content = json!({
        "version": "1.0", "normalizer": null, "post_processor": null, "pre_tokenizer": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "added_tokens": [added(1, "<s>"), added(2, "</s>"), added(263, "<|im_end|>"), added(264, "<|x|>")],
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [], "byte_fallback": true}
    });
    Arc::new(Tokenizer::from_bytes(content.to_string().as_bytes()).unwrap())
}

/// Returns the result of generating the tokens after "go": the whole text, and the callback's pieces.
fn write(tokens: &[i64], options: &GenerateOptions) -> (Generation, String) {
    // A generation can be stopped, which needs the runtime.
    let _ = crate::runtime::test_runtime();
    let defaults = GenerationDefaults { eos_token_ids: vec![2], ..Default::default() };
    let (script, tokenizer) = (tokens.to_vec(), llama());
    let mut rows = Scripted { script, row: vec![], logits: vec![], stream: None, tokenizer, defaults };
    let options = GenerateOptions { max_new_tokens: options.max_new_tokens.or(Some(tokens.len())), ..options.clone() };
    let mut told = String::new();
    let mut tell = |written: &Written<'_>| {
        told += written.text;
        ControlFlow::Continue(())
    };
    let prompt = [Prompt::Tokens(&[261])];
    let written = generate(&mut rows, &prompt, &options, Some(&mut tell), &Call::default());
    (written.unwrap().remove(0), told)
}

fn bytes(text: &str) -> Vec<i64> {
    text.bytes().map(|byte| i64::from(byte) + 3).collect()
}

#[test]
fn characters_of_bytes_come_out_whole_wherever_the_text_ends() {
    for text in ["😀😀😀", "界😀ab界😀", "é", "界"] {
        let tokens: Vec<i64> = [bytes(text), vec![262], bytes(text)].concat();
        for count in 1..=tokens.len() {
            let (written, told) = write(&tokens[..count], &GenerateOptions::default());
            let whole = llama().decode(&tokens[..count], true).unwrap();
            assert_eq!((written.text.as_str(), told.as_str()), (whole.as_str(), whole.as_str()));
        }
        let (written, _) = write(&tokens, &GenerateOptions::default());
        assert_eq!(written.text, format!("{text}a{text}"));
        // The end-of-sequence token is not part of the text, with or without bytes before it.
        let (written, told) = write(&[bytes(text), vec![2, 262]].concat(), &GenerateOptions::default());
        assert_eq!((written.text.as_str(), told.as_str(), written.finish_reason), (text, text, FinishReason::Eos));
    }
}

#[test]
fn stop_strings_are_seen_in_bytes_and_in_special_tokens() {
    let stop = |stop: &str| GenerateOptions { stop: vec![stop.into()], ..GenerateOptions::default() };
    let tokens = [bytes("😀"), bytes("界界"), vec![262]].concat();
    let (written, told) = write(&tokens, &stop("界"));
    assert_eq!((written.text.as_str(), told.as_str(), written.tokens.len()), ("😀", "😀", 7));
    assert_eq!(written.finish_reason, FinishReason::Stop);
    // Yes<|im_end|> No
    let tokens = [259, 263, 260, 2];
    for text in ["<|im_end|>", "<|im_end|> No", "im_end"] {
        let (written, told) = write(&tokens, &stop(text));
        assert_eq!((written.text.as_str(), told.as_str()), ("Yes", "Yes"), "{text}");
        assert_eq!(written.finish_reason, FinishReason::Stop);
        assert_eq!(written.tokens.len(), if text.ends_with("No") { 3 } else { 2 });
    }
    let (written, told) = write(&tokens, &stop("<|x|>"));
    assert_eq!((written.text.as_str(), told.as_str(), written.finish_reason), ("Yes No", "Yes No", FinishReason::Eos));
    let kept = GenerateOptions { keep_special_tokens: true, ..stop("end|>") };
    assert_eq!(write(&tokens, &kept).0.text, "Yes<|im_");
}

#[test]
fn a_stop_token_ends_the_text_and_is_no_part_of_it() {
    let options = |tokens: &[i64]| GenerateOptions { stop_tokens: tokens.to_vec(), ..GenerateOptions::default() };
    for (stops, text, count) in [(&[263][..], "Yes", 2), (&[7, 260], "Yes", 3), (&[], "Yes No", 4), (&[259], "", 1)] {
        let (written, told) = write(&[259, 263, 260, 2], &options(stops));
        assert_eq!((written.text.as_str(), told.as_str(), written.tokens.len()), (text, text, count), "{stops:?}");
        let expected = if stops.is_empty() { FinishReason::Eos } else { FinishReason::Stop };
        assert_eq!(written.finish_reason, expected);
    }
}

#[test]
fn a_text_that_begins_with_its_prompt_is_decoded_as_one() {
    let options = GenerateOptions { echo: true, ..GenerateOptions::default() };
    let (written, told) = write(&[259, 262], &options);
    assert_eq!((written.text.as_str(), told.as_str()), ("go Yesa", " Yesa"));
    assert_eq!(write(&[259, 262], &GenerateOptions::default()).0.text, "Yesa");
}
