//! Tests of the spans of texts, against the token classification pipeline of transformers
//! (`fixtures/encoders/make_tags.py`), for long texts, and what is refused.

mod support;

use optimize::call::Call;
use optimize::encoder::{Aggregation, Classifier, ScoreFunction, Span, Tagger, TaggerOptions, TextOptions};
use optimize::error::Kind;
use optimize::model::Model;
use serde_json::Value;
use std::path::{Path, PathBuf};
use support::{deps, runtime};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoders")
}

fn tiny() -> Model {
    Model::load(&fixtures().join("bert-tags")).unwrap()
}

fn tagger(model: &Model, options: TaggerOptions) -> Tagger {
    let text = TextOptions { threads: 1, batch_size: options.text.batch_size.max(3), ..options.text.clone() };
    Tagger::new(runtime(), model, None, &TaggerOptions { text, ..options }, &Call::default()).unwrap()
}

/// Compares the spans of `texts` with those of transformers, which are given for each strategy.
fn compare(model: &Model, texts: &[Value]) {
    let given: Vec<&str> = texts.iter().map(|text| text["text"].as_str().unwrap()).collect();
    let mut compared = 0;
    for (key, aggregation, keep_outside) in [
        ("none", Aggregation::None, false),
        ("simple", Aggregation::Simple, false),
        ("first", Aggregation::First, false),
        ("average", Aggregation::Average, false),
        ("max", Aggregation::Max, false),
        ("outside", Aggregation::First, true),
    ] {
        let found = tagger(model, TaggerOptions { aggregation, keep_outside, ..TaggerOptions::default() });
        let found = found.tag(&given, &Call::default()).unwrap();
        for ((text, spans), row) in given.iter().zip(&found).zip(texts) {
            let wanted = row["spans"][key].as_array().unwrap();
            assert_eq!(spans.len(), wanted.len(), "{key} {text:?}: {spans:?}");
            for (span, wanted) in spans.iter().zip(wanted) {
                let place = |key: &str| wanted[key].as_u64().unwrap() as usize;
                // If a token includes the space before its word, so does the span of transformers' pipeline, but not
                // that of the tagger.
                let part = &text[place("start")..place("end")];
                let start =
                    place("start") + if part.trim().is_empty() { 0 } else { part.len() - part.trim_start().len() };
                assert_eq!((span.bytes.start, span.bytes.end), (start, place("end")), "{key} {text:?}");
                assert_eq!(span.label, wanted["label"].as_str().unwrap(), "{key} {text:?}");
                let score = wanted["score"].as_f64().unwrap() as f32;
                assert!((span.score - score).abs() < 2e-5, "{key} {text:?}: {span:?} {score}");
                compared += 1;
            }
        }
    }
    assert!(compared >= 90, "{compared}");
}

#[test]
fn spans_are_those_of_transformers() {
    let reference: Value = serde_json::from_slice(&std::fs::read(fixtures().join("tags.json")).unwrap()).unwrap();
    compare(&tiny(), reference["tiny"].as_array().unwrap());
    // The weights have 4 bits. They are computed in float32, as ONNX Runtime computed the reference.
    let rampart = Model::load(&deps("models/rampart/onnx/model_q4.onnx")).unwrap();
    compare(&rampart, reference["rampart"].as_array().unwrap());
}

#[test]
fn a_long_text_is_read_in_windows() {
    let model = Model::load(&deps("models/rampart")).unwrap();
    let filler = "The meeting was long and nothing was decided about the budget of the coming year. ";
    let sentence = "My name is Maria Fernandez and I live in Springfield. ";
    let text = format!("{}{sentence}{}{sentence}", filler.repeat(12), filler.repeat(9));
    let options = |max_length, stride| TaggerOptions {
        text: TextOptions { max_length, ..TextOptions::default() },
        aggregation: Aggregation::Average,
        stride,
        ..TaggerOptions::default()
    };
    let entities = |spans: &[Span]| -> Vec<(String, String)> {
        spans.iter().map(|span| (text[span.bytes.clone()].to_owned(), span.label.clone())).collect()
    };
    let wanted = ["Maria", "Fernandez", "Springfield"].map(str::to_owned);
    for (max_length, stride) in [(0, 0), (64, 0), (64, 24), (32, 20)] {
        let found = tagger(&model, options(max_length, stride)).tag(&[&text], &Call::default()).unwrap().remove(0);
        let found: Vec<String> = entities(&found).into_iter().map(|(text, _)| text).collect();
        assert_eq!(found, [&wanted[..], &wanted[..]].concat(), "windows of {max_length}, overlap {stride}");
    }
    let refused =
        |options: &TaggerOptions| Tagger::new(runtime(), &model, None, options, &Call::default()).err().unwrap();
    for (max_length, stride, message) in [(64, 62, "stride is 62"), (2, 0, "no room"), (513, 0, "max_length is 513")] {
        let error = refused(&options(max_length, stride));
        assert!(error.kind() == Kind::InvalidArgument && error.message().contains(message), "{error}");
    }
}

#[test]
fn texts_without_tokens_and_models_without_labels() {
    let model = tiny();
    let found = tagger(&model, TaggerOptions { keep_outside: true, ..TaggerOptions::default() });
    assert_eq!(found.labels().collect::<Vec<_>>(), ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]);
    let spans = found.tag(&["", "la", ""], &Call::default()).unwrap();
    assert!(spans[0].is_empty() && !spans[1].is_empty() && spans[2].is_empty());
    assert_eq!(found.tag(&[""], &Call::default()).unwrap(), [vec![]]);
    assert_eq!(found.tag::<&str>(&[], &Call::default()).unwrap_err().kind(), Kind::InvalidArgument);

    let (runtime, call) = (runtime(), Call::default());
    let mut card = model.card().clone();
    card.config.remove("id2label");
    let error =
        Tagger::new(runtime, &model.clone().with_card(card), None, &TaggerOptions::default(), &call).err().unwrap();
    assert!(error.kind() == Kind::Unsupported && error.message().contains("id2label"), "{error}");
    let mut card = model.card().clone();
    card.config.insert("id2label".into(), serde_json::json!({ "0": "O", "1": "I-PER" }));
    let two = Tagger::new(runtime, &model.clone().with_card(card), None, &TaggerOptions::default(), &call).unwrap();
    let error = two.tag(&["la"], &call).unwrap_err();
    assert!(error.kind() == Kind::InvalidModel && error.message().contains("2 labels"), "{error}");

    let classes = Model::load(&fixtures().join("bert-classify")).unwrap();
    let error = Tagger::new(runtime, &classes, None, &TaggerOptions::default(), &call).err().unwrap();
    assert!(error.kind() == Kind::Unsupported && error.message().contains("three dimensions"), "{error}");
    let (function, options) = (ScoreFunction::Auto, TextOptions::default());
    let error = Classifier::new(runtime, &model, None, function, &options, &call).err().unwrap();
    assert!(error.kind() == Kind::Unsupported && error.message().contains("a Tagger reads them"), "{error}");
}
