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
    // With the file next to it, the tokenizer has a class that returns no token types.
    let file = std::fs::read(fixtures().join("sentences/model/tokenizer.json")).unwrap();
    let tokenizer = Arc::new(Tokenizer::from_bytes(&file).unwrap());
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
    // The graph of a checkpoint excludes the tokens of the default prompt from pooling; with another prompt, the token
    // vectors are pooled in memory.
    for (index, (form, wanted)) in [
        ("no default", "prompt"),
        ("prompt", "no default"),
        ("without prompt: mean", "without prompt: mean"),
        ("without prompt: cls", "without prompt: cls"),
        ("without prompt: weightedmean", "without prompt: weightedmean"),
        ("without prompt: mean", "no default"),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = scratch(&format!("prompt-{index}"));
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
        let found = embedder(&model, &options).embed(&texts, &Call::default()).unwrap();
        assert!(furthest(&found.values, &vectors.concat()) < 2e-6, "{form}");
    }
}

/// Returns a folder with the files of the fixture `bert-classify`, its tokenizer, and `more` files. `edit` changes the
/// configuration.
fn reranker(
    name: &str,
    more: &[(&str, Value)],
    edit: impl Fn(&mut serde_json::Map<String, Value>),
) -> support::Scratch {
    let folder = scratch(name);
    let from = fixtures().join("encoders/bert-classify");
    std::fs::copy(from.join("model.safetensors"), folder.join("model.safetensors")).unwrap();
    let tokenizer = fixtures().join("sentences/model/tokenizer.json");
    std::fs::copy(tokenizer, folder.join("tokenizer.json")).unwrap();
    let mut config = json("encoders/bert-classify/config.json").as_object().cloned().unwrap();
    edit(&mut config);
    std::fs::write(folder.join("config.json"), Value::Object(config).to_string()).unwrap();
    for (name, content) in more {
        std::fs::write(folder.join(name), content.to_string()).unwrap();
    }
    folder
}

fn scores(model: &Model, function: ScoreFunction) -> Vec<f32> {
    let options = TextOptions { threads: 1, ..TextOptions::default() };
    let made = Classifier::new(runtime(), model, None, function, &options, &Call::default()).unwrap();
    made.classify(&["hello", "world ab"], None, &Call::default()).unwrap().values
}

#[test]
fn scores_have_the_function_of_the_cross_encoder_in_every_form_of_the_model() {
    let declared = serde_json::json!({ "activation_fn": "torch.nn.modules.linear.Identity", "version": "5.0.0" });
    let folder = reranker("encoder-activation", &[], |config| {
        config.insert("sentence_transformers".to_owned(), declared.clone());
    });
    let model = Model::load(&folder).unwrap();
    let logits = scores(&model, ScoreFunction::None);
    assert_eq!(scores(&model, ScoreFunction::Auto), logits);
    assert!(furthest(&scores(&model, ScoreFunction::Softmax), &logits) > 0.1);

    let options = optimize::quantize::QuantizeOptions { min_elements: 1, ..Default::default() };
    let (small, _) = optimize::quantize::quantize(&model, &options, &Call::default()).unwrap();
    assert_eq!(scores(&small, ScoreFunction::Auto), scores(&small, ScoreFunction::None));
    let compiled = CompileOptions { dynamic: true, ..CompileOptions::default() };
    compile(runtime(), &small, &folder.join("p"), &compiled, &Call::default()).unwrap();
    let package = Model::load(&folder.join("p")).unwrap();
    assert_eq!(scores(&package, ScoreFunction::Auto), scores(&package, ScoreFunction::None));
    // An exported graph next to the same configuration.
    let graph = folder.join("model.onnx");
    model.save(&graph, optimize::onnx::save::ExternalData::Auto, &Call::default()).unwrap();
    assert!(furthest(&scores(&Model::load(&graph).unwrap(), ScoreFunction::Auto), &logits) < 1e-6);
}

#[test]
fn a_saved_cross_encoder_is_a_classifier() {
    let class = "sentence_transformers.base.modules.transformer.Transformer";
    let saved = |activation: &str| {
        [
            ("modules.json", serde_json::json!([{ "idx": 0, "name": "0", "path": "", "type": class }])),
            ("sentence_bert_config.json", serde_json::json!({ "transformer_task": "sequence-classification" })),
            (
                "config_sentence_transformers.json",
                serde_json::json!({ "model_type": "CrossEncoder", "activation_fn": activation, "prompts": {} }),
            ),
        ]
    };
    let folder = reranker("encoder-cross", &saved("torch.nn.modules.activation.Sigmoid"), |_| {});
    let model = Model::load(&folder).unwrap();
    assert_eq!(model.card().task, optimize::model::Task::Classify);
    assert_eq!(scores(&model, ScoreFunction::Auto), scores(&model, ScoreFunction::Sigmoid));
    let embedder = Embedder::new(runtime(), &model, None, &EmbedderOptions::default(), &Call::default());
    assert_eq!(embedder.err().unwrap().kind(), Kind::Unsupported);

    let folder = reranker("encoder-strange", &saved("my_code.Squash"), |_| {});
    let (model, options) = (Model::load(&folder).unwrap(), TextOptions::default());
    let made = |function| Classifier::new(runtime(), &model, None, function, &options, &Call::default());
    let error = made(ScoreFunction::Auto).err().unwrap();
    assert!(error.kind() == Kind::Unsupported && error.to_string().contains("my_code.Squash"), "{error}");
    assert!(made(ScoreFunction::None).is_ok());
}

#[test]
fn scores_of_the_graph_are_not_changed_and_are_no_vectors() {
    let folder = reranker("encoder-probabilities", &[], |_| {});
    let model = Model::load(&folder).unwrap();
    let wanted = scores(&model, ScoreFunction::Softmax);
    let with_last = |op: &str, output: &str| {
        let mut proto = model.proto().clone();
        let graph = proto.graph.as_mut().unwrap();
        graph.node.push(optimize::graph::edit::node(op, &["logits"], &[output]));
        graph.output[0].name = Some(output.to_owned());
        Model::from_memory(proto, model.card().clone(), Vec::new())
    };
    for output in ["output_0", "probabilities"] {
        let model = with_last("Softmax", output);
        assert!(furthest(&scores(&model, ScoreFunction::Auto), &wanted) < 1e-6, "{output}");
        let made = Embedder::new(runtime(), &model, None, &EmbedderOptions::default(), &Call::default());
        assert_eq!(made.err().unwrap().kind(), Kind::Unsupported, "{output}");
    }
    // The name does not say what the output is: the configuration names a class for classification.
    let model = with_last("Identity", "output_0");
    let made = Embedder::new(runtime(), &model, None, &EmbedderOptions::default(), &Call::default());
    assert_eq!(made.err().unwrap().kind(), Kind::Unsupported);
    assert!(furthest(&scores(&model, ScoreFunction::Auto), &wanted) < 1e-6);
}

#[test]
fn vectors_have_the_width_of_the_file_unless_another_is_requested() {
    let mut model = Model::load(&deps("models/paraphrase-MiniLM-L3-v2")).unwrap();
    let vectors = |model: &Model, dimensions| {
        let options = EmbedderOptions { dimensions, ..EmbedderOptions::default() };
        embedder(model, &options).embed(&["How are you?"], &Call::default()).unwrap().values
    };
    let all = vectors(&model, 0);
    let mut truncated = |size: usize| {
        let mut card = model.card().clone();
        let name = "config_sentence_transformers.json".to_owned();
        card.side_files.retain(|file| file.name != name);
        let content = format!(r#"{{ "truncate_dim": {size} }}"#);
        let content = optimize::model::SideContent::Bytes(content.into_bytes().into());
        card.side_files.push(optimize::model::SideFile { name, content });
        model = model.clone().with_card(card);
        model.clone()
    };
    assert_eq!(all.len(), 384);
    let short = truncated(8);
    assert_eq!((vectors(&short, 0), vectors(&short, 12)), (all[..8].to_vec(), all[..12].to_vec()));
    assert_eq!(vectors(&truncated(1000), 0), all);
}
