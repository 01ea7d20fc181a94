//! Texts to vectors and to classes: against transformers and sentence-transformers (`fixtures/encoders/make_pairs.py`,
//! `fixtures/sentences/make.py`), in any order and number, for files, folders and packages.

mod support;

use optimize::call::Call;
use optimize::encoder::{Classifier, Embedder, EmbedderOptions, ScoreFunction, TextOptions};
use optimize::error::Kind;
use optimize::model::Model;
use optimize::package::{CompileOptions, compile};
use optimize::text::Tokenizer;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::{deps, runtime, scratch};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixtures().join(name)).unwrap()).unwrap()
}

fn embedder(model: &Model, options: &EmbedderOptions) -> Embedder {
    Embedder::new(runtime(), model, None, options, &Call::default()).unwrap()
}

fn furthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn pairs_become_the_tokens_that_transformers_makes() {
    let tokenizer = Tokenizer::load(&deps("models/paraphrase-MiniLM-L3-v2")).unwrap();
    let reference = json("encoders/pairs.json");
    let pairs = reference["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 30);
    for pair in pairs {
        let text = |key: &str| pair[key].as_str().unwrap();
        let length = pair["length"].as_u64().unwrap() as usize;
        let found = tokenizer.encode_pairs(&[(text("first"), text("second"))], Some(length)).unwrap();
        let wanted = |key: &str| serde_json::from_value::<Vec<i64>>(pair[key].clone()).unwrap();
        assert_eq!((found.ids, found.type_ids), (wanted("ids"), wanted("types")), "{pair}");
    }
    let error = tokenizer.encode_pairs(&[("a", "b")], Some(2)).unwrap_err();
    assert!(error.kind() == Kind::InvalidArgument && error.to_string().contains("3 special tokens"), "{error}");
}

#[test]
fn scores_are_those_of_transformers_for_texts_and_pairs() {
    let model = Model::load(&fixtures().join("encoders/bert-classify")).unwrap();
    let tokenizer = Arc::new(Tokenizer::load(&fixtures().join("sentences/model/tokenizer.json")).unwrap());
    let reference = &json("encoders/pairs.json")["scores"];
    let texts: Vec<(String, String)> = serde_json::from_value(reference["texts"].clone()).unwrap();
    let (first, second): (Vec<String>, Vec<String>) = texts.into_iter().unzip();
    let wanted = |key: &str| serde_json::from_value::<Vec<Vec<f32>>>(reference[key].clone()).unwrap().concat();
    let made = |function, batch_size| {
        let options = TextOptions { batch_size, threads: 1, ..TextOptions::default() };
        Classifier::new(runtime(), &model, Some(tokenizer.clone()), function, &options, &Call::default()).unwrap()
    };
    for batch_size in [1, 2, 8] {
        let classifier = made(ScoreFunction::Auto, batch_size);
        assert_eq!(classifier.labels(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
        let alone = classifier.classify(&first, None, &Call::default()).unwrap();
        assert!(alone.classes == 3 && furthest(&alone.values, &wanted("alone")) < 1e-5, "{alone:?}");
        let both = classifier.classify(&first, Some(&second), &Call::default()).unwrap();
        assert!(furthest(&both.values, &wanted("both")) < 1e-5, "{both:?}");
    }
    let logits = made(ScoreFunction::None, 8).classify(&first, None, &Call::default()).unwrap();
    let sigmoid = made(ScoreFunction::Sigmoid, 8).classify(&first, None, &Call::default()).unwrap();
    let expected: Vec<f32> = logits.values.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
    assert!(furthest(&sigmoid.values, &expected) < 1e-6);

    let classifier = made(ScoreFunction::Auto, 8);
    let error = classifier.classify(&first, Some(&second[1..]), &Call::default()).unwrap_err();
    assert!(error.to_string().contains("3 texts, but 2 second texts"), "{error}");
    assert_eq!(classifier.classify::<String>(&[], None, &Call::default()).unwrap_err().kind(), Kind::InvalidArgument);
    let minilm = Model::load(&deps("models/paraphrase-MiniLM-L3-v2")).unwrap();
    let made =
        Classifier::new(runtime(), &minilm, None, ScoreFunction::Auto, &TextOptions::default(), &Call::default());
    assert_eq!(made.err().unwrap().kind(), Kind::Unsupported);
}

#[test]
fn vectors_are_those_of_sentence_transformers_in_any_order() {
    let reference = json("encoders/minilm-l6.json");
    let rows = reference.as_array().unwrap();
    let texts: Vec<&str> = rows.iter().map(|row| row["text"].as_str().unwrap()).collect();
    let vector = |row: &Value| serde_json::from_value::<Vec<f32>>(row["embedding"].clone()).unwrap();
    let wanted: Vec<f32> = rows.iter().flat_map(vector).collect();
    let model = Model::load(&deps("models/all-MiniLM-L6-v2")).unwrap();
    let options = EmbedderOptions {
        text: TextOptions { batch_size: 4, threads: 1, ..TextOptions::default() },
        ..EmbedderOptions::default()
    };
    let plain = embedder(&model, &options);
    let found = plain.embed(&texts, &Call::default()).unwrap();
    assert_eq!(found.width, 384);
    // The reference contains every sixth element.
    let sixth: Vec<f32> = found.values.iter().step_by(6).copied().collect();
    assert!(furthest(&sixth, &wanted) < 1e-5, "{}", furthest(&sixth, &wanted));
    let last = plain.embed(&texts[texts.len() - 1..], &Call::default()).unwrap();
    assert!(furthest(&last.values, &found.values[found.values.len() - 384..]) < 1e-6);

    let short = embedder(&model, &EmbedderOptions { dimensions: 64, ..options.clone() });
    let cut = short.embed(&texts[..2], &Call::default()).unwrap();
    assert!(cut.width == 64 && furthest(&cut.values[64..], &found.values[384..448]) < 1e-6);
    let unit = embedder(&model, &EmbedderOptions { dimensions: 64, normalize: true, ..options.clone() });
    let row = unit.embed(&texts[..1], &Call::default()).unwrap().values;
    let norm = cut.values[..64].iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!(row.iter().zip(&cut.values).all(|(a, b)| (a - b / norm).abs() < 1e-6));

    let folder = scratch("encoder-package");
    let compiled = CompileOptions { dynamic: true, ..CompileOptions::default() };
    compile(runtime(), &model, &folder.join("p"), &compiled, &Call::default()).unwrap();
    let package = Model::load(&folder.join("p")).unwrap();
    let packed = embedder(&package, &options).embed(&texts, &Call::default()).unwrap();
    assert!(furthest(&packed.values, &found.values) < 1e-5);

    let wide = EmbedderOptions { dimensions: 385, ..options.clone() };
    let error = embedder(&model, &wide).embed(&texts, &Call::default()).unwrap_err();
    assert!(error.to_string().contains("dimensions is 385, but the vectors have 384 elements"), "{error}");
    let named = EmbedderOptions { prompt_name: Some("query".to_owned()), ..options };
    let error = Embedder::new(runtime(), &model, None, &named, &Call::default()).err().unwrap();
    assert!(error.kind() == Kind::NotFound && error.to_string().contains("no prompt \"query\""), "{error}");
}

#[test]
fn a_named_prompt_is_read_like_a_default_one() {
    let reference = json("sentences/reference.json");
    let texts: Vec<String> = serde_json::from_value(reference["texts"].clone()).unwrap();
    // Tests texts with the default prompt and with another one, with and without the tokens of the prompt in the
    // pooling.
    for (form, wanted) in
        [("no default", "prompt"), ("prompt", "no default"), ("without prompt: mean", "without prompt: mean")]
    {
        let folder = scratch(&format!("prompt-{}", form.replace([' ', ':'], "-")));
        for entry in std::fs::read_dir(fixtures().join("sentences/model")).unwrap().flatten() {
            if entry.path().is_file() {
                std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
            }
        }
        std::fs::create_dir_all(folder.join("1_Pooling")).unwrap();
        for (name, content) in reference["forms"][form]["files"].as_object().unwrap() {
            std::fs::write(folder.join(name), content.to_string()).unwrap();
        }
        let name = if wanted == "no default" { "document" } else { "query" };
        let model = Model::load(&folder).unwrap();
        let options = EmbedderOptions { prompt_name: Some(name.to_owned()), ..EmbedderOptions::default() };
        let vectors: Vec<Vec<f32>> = serde_json::from_value(reference["forms"][wanted]["vectors"].clone()).unwrap();
        if form.starts_with("without") {
            // The graph of a checkpoint excludes the tokens of the default prompt from pooling; another prompt is
            // refused.
            let error = Embedder::new(runtime(), &model, None, &options, &Call::default()).err().unwrap();
            assert!(error.to_string().contains("the prompt cannot be chosen"), "{error}");
            continue;
        }
        let found = embedder(&model, &options).embed(&texts, &Call::default()).unwrap();
        assert!(furthest(&found.values, &vectors.concat()) < 2e-6, "{form}");
    }
}
