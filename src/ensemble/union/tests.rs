//! Tests with two tiny models of different vocabularies, each of which has read the generated text.

use super::super::tests::fixture;
use super::super::{Ensemble, EnsembleOptions, Method};
use super::*;
use crate::model::{Model, SideContent, SideFile};
use crate::runtime::test_runtime;
use crate::text::{FinishReason, SamplingOptions};
use serde_json::{Map, Value, json};

/// Returns a byte-level tokenizer with 150 tokens: special tokens, then letters, punctuation and the given pieces.
fn byte_level(pieces: &[&str], bytes: &[char]) -> Value {
    let mut vocabulary = Map::new();
    for (id, token) in ["<pad>", "<s>", "</s>"].iter().enumerate() {
        vocabulary.insert((*token).to_owned(), id.into());
    }
    let letters = ('a'..='z').chain('A'..='Z').chain(['.', ',', '!', '\'', 'Ġ', 'Ċ']).chain(bytes.iter().copied());
    let singles: Vec<String> = letters.map(String::from).collect();
    for token in singles.iter().cloned().chain(pieces.iter().map(|piece| (*piece).to_owned())) {
        let id = vocabulary.len();
        vocabulary.entry(token).or_insert(id.into());
    }
    // The merge of each piece joins all its characters but the last with the last one.
    let parts = |piece: &&str| {
        let last = piece.char_indices().last().map_or(0, |(at, _)| at);
        format!("{} {}", &piece[..last], &piece[last..])
    };
    let merges: Vec<String> = pieces.iter().map(parts).collect();
    let added: Vec<Value> = ["<pad>", "<s>", "</s>"]
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect();
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    json!({"version": "1.0", "normalizer": null, "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "added_tokens": added, "model": {"type": "BPE", "vocab": vocabulary, "merges": merges}})
}

/// Returns a tiny model with this tokenizer.
fn with(family: &str, tokenizer: &Value) -> Model {
    let model = Model::load(&fixture(family)).unwrap();
    let mut card = model.card().clone();
    let content = SideContent::Bytes(tokenizer.to_string().into_bytes().into());
    card.side_files.push(SideFile { name: "tokenizer.json".to_owned(), content });
    model.with_card(card)
}

/// The characters of byte-level tokens for the bytes of `é` and `ß`: C3 A9, C3 9F.
const ACCENTS: [char; 3] = ['Ã', '©', 'Ł'];

fn pair(accents: &[char]) -> Ensemble {
    let first = byte_level(&["th", "the", "Ġt", "Ġa", "an", "and", "in", "ing", "Ġth"], accents);
    let second = byte_level(&["he", "Ġh", "Ġhe", "er", "ere", "nd", "Ġa", "Ġan", "is", "Ġi", "Ġis", "st"], accents);
    let options = EnsembleOptions { allow_different_vocabularies: true, ..EnsembleOptions::default() };
    Ensemble::new(vec![with("llama", &first), with("gpt2", &second)], options).unwrap()
}

fn union(ensemble: &Ensemble) -> Union {
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    Union::new(ensemble, test_runtime(), &options, &Call::default()).unwrap()
}

#[test]
fn every_member_has_read_what_was_written() {
    for (seed, accents) in [(1, &ACCENTS[..0]), (2, &ACCENTS[..]), (3, &ACCENTS[..]), (4, &ACCENTS[..])] {
        let ensemble = pair(accents);
        let mut rows = union(&ensemble);
        // The members have tokens for these bytes and no others, which is enough here: a token may end inside a
        // character.
        rows.bytes = !accents.is_empty();
        let sampling = SamplingOptions { temperature: 1.5, seed, ..SamplingOptions::default() };
        for tokens in [1, 5, 20] {
            let options = GenerateOptions {
                max_new_tokens: Some(tokens),
                sampling: sampling.clone(),
                eos_token_ids: Some(Vec::new()),
                ..GenerateOptions::default()
            };
            let prompts = [Prompt::Text("the start and"), Prompt::Text("he is")];
            let mut streamed = [String::new(), String::new()];
            let mut tell = |written: &crate::text::Written<'_>| {
                streamed[written.row].push_str(written.text);
                std::ops::ControlFlow::Continue(())
            };
            let written = generate::generate(&mut rows, &prompts, &options, Some(&mut tell), &Call::default()).unwrap();
            for row in 0..2 {
                let unfinished = pending(&rows.rows[row].text).len();
                let end = rows.rows[row].text.len() - unfinished;
                let whole = ["the start and", "he is"][row].to_owned()
                    + std::str::from_utf8(&rows.rows[row].text[..end]).unwrap();
                assert_eq!(written[row].text, streamed[row]);
                rows.catch_up(row).unwrap();
                for (generator, speaker) in rows.voices.generators.iter().zip(&rows.speakers) {
                    let read = generator.tokens(row).unwrap();
                    let (read, _) = read.split_at(read.len() - unfinished);
                    // The text that the member has read is the generated text, in its own tokens.
                    assert_eq!(read, speaker.tokenizer.encode(&whole, true).unwrap().ids, "{whole:?}");
                    assert_eq!(speaker.tokenizer.decode(read, true).unwrap(), whole);
                }
                assert_eq!(written[row].finish_reason, FinishReason::Length);
            }
        }
    }
}

#[test]
fn a_character_may_come_byte_by_byte() {
    let ensemble = pair(&ACCENTS);
    let mut rows = union(&ensemble);
    rows.bytes = true;
    rows.start(1).unwrap();
    rows.append(0, Prompt::Text("the")).unwrap();
    let first = rows.speakers[0].pieces.id(&[0xC3]).unwrap();
    rows.push(0, first).unwrap();
    assert_eq!(rows.piece(0, first).unwrap(), "");
    let stop = Stop::new().unwrap();
    rows.advance_rows(&[0], &stop, &mut |_| Ok(())).unwrap();
    // Only a token that completes the character may follow, or the end token.
    let next = rows.rows[0].next.as_ref().unwrap();
    let bytes = |id: &i64| rows.ids.bytes(&rows.speakers[0].pieces, *id).to_vec();
    let ends: Vec<Vec<u8>> = next.ids.iter().filter(|id| **id != rows.ids.end).map(bytes).collect();
    assert!(!ends.is_empty() && ends.iter().all(|end| [vec![0xA9], vec![0x9F]].contains(end)), "{ends:?}");
    let last = rows.speakers[0].pieces.id(&[0xA9]).unwrap();
    rows.push(0, last).unwrap();
    assert_eq!((rows.piece(0, last).unwrap().as_str(), rows.text(0, false).unwrap().as_str()), ("é", "theé"));
    rows.catch_up(0).unwrap();
    for (generator, speaker) in rows.voices.generators.iter().zip(&rows.speakers) {
        assert_eq!(speaker.tokenizer.decode(generator.tokens(0).unwrap(), true).unwrap(), "theé");
    }
}

#[test]
fn candidates_are_scored_by_every_member() {
    let ensemble = pair(&[]);
    let mut rows = union(&ensemble);
    rows.start(1).unwrap();
    rows.append(0, Prompt::Text("the")).unwrap();
    let stop = Stop::new().unwrap();
    rows.advance_rows(&[0], &stop, &mut |_| Ok(())).unwrap();
    let total: f64 = rows.next_logits(0).unwrap().iter().map(|log| f64::from(*log).exp()).sum();
    assert!((total - 1.0).abs() < 1e-5, "{total}");
    let next = rows.rows[0].next.as_ref().unwrap();
    assert!(next.ids.len() >= CANDIDATES / 4 && next.combined.tops.len() == 2);
    // The end-of-text tokens of all members are one candidate; pushing it adds no text.
    let before = rows.text(0, false).unwrap();
    rows.push(0, rows.ids.end).unwrap();
    assert_eq!(rows.text(0, false).unwrap(), before);
    let e = rows.append(0, Prompt::Tokens(&[3])).unwrap_err();
    assert!(e.to_string().contains("accept text"), "{e}");
    // A second prompt continues the same text.
    rows.append(0, Prompt::Text(" is he")).unwrap();
    assert_eq!(rows.text(0, false).unwrap(), "the is he");
}

#[test]
fn different_vocabularies_have_to_be_asked_for() {
    let ensemble = pair(&[]);
    let models: Vec<Model> = ensemble.members().iter().map(|member| member.model.clone()).collect();
    let e = Ensemble::new(models.clone(), EnsembleOptions::default()).err().unwrap().to_string();
    assert!(e.contains("member 1 and member 2") && e.contains("id 61") && e.contains("allow"), "{e}");
    assert!(ensemble.fuse(&Call::default()).err().unwrap().to_string().contains("different vocabularies"));
    assert!(ensemble.notes()[0].contains("by the text of their tokens"));
    let options =
        EnsembleOptions { allow_different_vocabularies: true, method: Method::Rerank, ..EnsembleOptions::default() };
    let rerank = Ensemble::new(models, options).unwrap();
    assert!(rerank.generator(test_runtime(), &SessionOptions::default(), &Call::default()).is_err());
}
