//! Encoders built from checkpoints, against transformers: tiny random ones of every family (made by
//! `tests/fixtures/encoders/make.py`), and the real MiniLM-L6.

mod support;

use optimize::call::Call;
use optimize::error::Error;
use optimize::model::{Model, Task};
use optimize::onnx::save;
use optimize::runtime::{Session, SessionOptions, Tensor};
use optimize::source::Dialect;
use optimize::source::checkpoint::{self, safetensors::Safetensors};
use optimize::source::weights::{Stored, Weights};
use optimize::text::Tokenizer;
use serde_json::Value;
use std::path::{Path, PathBuf};
use support::{deps, runtime};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoders")
}

fn session(model: &Model) -> Session {
    Session::new(runtime(), model, &SessionOptions { threads: 1, ..Default::default() }, &Call::default()).unwrap()
}

fn integers(rows: &Value) -> Tensor {
    let rows: Vec<Vec<i64>> = serde_json::from_value(rows.clone()).unwrap();
    let shape = [rows.len() as i64, rows[0].len() as i64];
    Tensor::from_i64(&shape, rows.concat()).unwrap()
}

/// Returns the largest difference at positions that are not padding.
fn difference(folder: &Path) -> (f32, Task) {
    let reference: Value = serde_json::from_slice(&std::fs::read(folder.join("reference.json")).unwrap()).unwrap();
    let model = Model::load(folder).unwrap();
    let inputs: Vec<(String, Tensor)> =
        reference["inputs"].as_object().unwrap().iter().map(|(name, rows)| (name.clone(), integers(rows))).collect();
    let feed: Vec<(&str, &Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let output = reference["output"].as_str().unwrap();
    let session = session(&model);
    if let Some(second) = reference.get("second") {
        let name = second["output"].as_str().unwrap();
        let found = session.run(&feed, &[name], &Call::default()).unwrap()[0].1.to_f32_vec().unwrap();
        let expected: Vec<f32> = serde_json::from_value(second["values"].clone()).unwrap();
        assert_eq!(found.len(), expected.len());
        // Only the first text is compared: it has no padding, and rows of padding differ.
        let first = expected.len() / 2;
        let worst = expected.iter().zip(&found).take(first).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4, "{name}: {worst}");
    }
    let found = session.run(&feed, &[output], &Call::default()).unwrap();
    let shape: Vec<i64> = serde_json::from_value(reference["shape"].clone()).unwrap();
    assert_eq!(found[0].1.shape(), shape);
    let expected: Vec<f32> = serde_json::from_value(reference["values"].clone()).unwrap();
    let found = found[0].1.to_f32_vec().unwrap();
    let mask = inputs.iter().find(|(n, _)| n == "attention_mask").unwrap().1.as_slice::<i64>().unwrap().to_vec();
    let per_position = expected.len() / if shape.len() == 3 { mask.len() } else { shape[0] as usize };
    let by_token = shape.len() == 3 || per_position == 9;
    let counts = |index: usize| !by_token || mask[if shape.len() == 3 { index / per_position } else { index }] == 1;
    let differences =
        expected.iter().zip(&found).enumerate().filter(|(i, _)| counts(*i)).map(|(_, (a, b))| (a - b).abs());
    (differences.fold(0.0, f32::max), model.card().task)
}

#[test]
fn every_family_and_head_equals_transformers() {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(fixtures())
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.join("reference.json").is_file())
        .collect();
    folders.sort();
    assert_eq!(folders.len(), 15);
    for folder in folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let (worst, task) = difference(&folder);
        println!("{name}: largest difference {worst:e}, {task:?}");
        assert!(worst < 1e-4, "{name}: {worst}");
        let expected = match () {
            _ if name.ends_with("classify") || name.ends_with("tokens") => Task::Classify,
            _ if name.ends_with("masked") => Task::FillMask,
            _ if ["causal", "question", "pretraining"].iter().any(|end| name.ends_with(end)) => Task::Unknown,
            _ => Task::Embed,
        };
        assert_eq!(task, expected, "{name}");
    }
}

#[test]
fn minilm_l6_embeds_text_as_sentence_transformers_does() {
    // Embeddings of sentences by transformers + mean pooling + normalisation, made by make_minilm.py.
    let reference: Value = serde_json::from_slice(&std::fs::read(fixtures().join("minilm-l6.json")).unwrap()).unwrap();
    let model = Model::load(&deps("models/all-MiniLM-L6-v2")).unwrap();
    let tokenizer = Tokenizer::of(&model).unwrap().unwrap();
    let session = session(&model);
    let (mut worst, mut count) = (0f32, 0);
    for entry in reference.as_array().unwrap() {
        let batch = tokenizer.encode_batch(&[entry["text"].as_str().unwrap()], true, None).unwrap();
        let shape = [1, batch.length as i64];
        let tensor = |values: Vec<i64>| Tensor::from_i64(&shape, values).unwrap();
        let (ids, mask, types) = (tensor(batch.ids), tensor(batch.mask), tensor(batch.type_ids));
        let feed = [("input_ids", &ids), ("attention_mask", &mask), ("token_type_ids", &types)];
        let found = session.run(&feed, &["sentence_embedding"], &Call::default()).unwrap();
        let expected: Vec<f32> = serde_json::from_value(entry["embedding"].clone()).unwrap();
        let found = found[0].1.to_f32_vec().unwrap();
        assert_eq!(found.len(), 384);
        // The reference has every sixth value, to stay small.
        worst = expected.iter().zip(found.iter().step_by(6)).fold(worst, |w, (a, b)| w.max((a - b).abs()));
        count += 1;
    }
    println!("{count} sentences, largest difference {worst:e}");
    assert_eq!(count, 100);
    assert!(worst < 1e-5, "{worst}");
}

/// Returns the `bert` fixture with changes to its file and its configuration.
fn changed(name: &str, weights: &dyn Fn(&mut Vec<u8>), config: &dyn Fn(&mut Value)) -> support::Scratch {
    let folder = support::scratch(name);
    let mut bytes = std::fs::read(fixtures().join("bert/model.safetensors")).unwrap();
    weights(&mut bytes);
    std::fs::write(folder.join("model.safetensors"), bytes).unwrap();
    let mut read: Value = serde_json::from_slice(&std::fs::read(fixtures().join("bert/config.json")).unwrap()).unwrap();
    config(&mut read);
    std::fs::write(folder.join("config.json"), read.to_string()).unwrap();
    std::fs::copy(fixtures().join("bert/reference.json"), folder.join("reference.json")).unwrap();
    folder
}

#[test]
fn normalizations_under_their_names_in_tensorflow_are_found() {
    let rename = |bytes: &mut Vec<u8>| {
        // The new names have the length of the old ones, so that no offset changes: a space may precede a colon.
        for (new, old) in [("LayerNorm.weight\":", "LayerNorm.gamma\" :"), ("LayerNorm.bias\"", "LayerNorm.beta\"")] {
            let mut at = 0;
            while let Some(found) = bytes[at..].windows(new.len()).position(|window| window == new.as_bytes()) {
                at += found;
                bytes[at..at + new.len()].copy_from_slice(old.as_bytes());
            }
        }
        assert!(bytes.windows(5).any(|window| window == b"gamma"));
    };
    let folder = changed("gamma", &rename, &|_| {});
    assert!(difference(&folder).0 < 1e-4);
    assert!(Model::load(&folder).unwrap().card().warnings.is_empty());
}

/// The weights of a tied model with the table under the name of the output layer only.
struct HeadOnly<'a>(&'a Safetensors, String, &'a str);

impl Weights for HeadOnly<'_> {
    fn find(&self, name: &str) -> optimize::error::Result<Option<Stored>> {
        match name {
            _ if name == self.1 => Ok(None),
            _ if name == self.2 => self.0.find(&self.1),
            _ => self.0.find(name),
        }
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

#[test]
fn the_table_of_a_tied_model_may_have_the_name_of_the_output_layer() {
    for (name, prefix, head) in [
        ("bert-masked", "bert", "cls.predictions.decoder.weight"),
        ("bert-causal", "bert", "cls.predictions.decoder.weight"),
        ("bert-pretraining", "bert", "cls.predictions.decoder.weight"),
        ("roberta-masked", "roberta", "lm_head.decoder.weight"),
        ("mpnet-masked", "mpnet", "lm_head.decoder.weight"),
        ("distilbert-masked", "distilbert", "vocab_projector.weight"),
    ] {
        let folder = fixtures().join(name);
        let weights = Safetensors::open_folder(&folder).unwrap();
        let mut config: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
        let table = format!("{prefix}.embeddings.word_embeddings.weight");
        let only = HeadOnly(&weights, table.clone(), head);
        let build = |config: &Value, weights: &dyn Weights| {
            let built = checkpoint::build(config.as_object().unwrap(), weights, Dialect::Portable)?;
            Ok::<_, Error>(save::encode(&built.proto).concat())
        };
        assert!(build(&config, &only).unwrap() == build(&config, &weights).unwrap(), "{name}");
        // The table of a model without that output layer is missing.
        config["tie_word_embeddings"] = false.into();
        assert!(build(&config, &only).unwrap_err().to_string().contains(&table), "{name}");
    }
}

#[test]
fn heads_that_cannot_be_built_are_refused_and_tensors_that_are_left_over_named() {
    let with_class = |class: &str| changed(class, &|_| {}, &|config| config["architectures"] = vec![class].into());
    let fault = |class: &str| Model::load(&with_class(class)).err().unwrap().to_string();
    for class in ["BertForMultipleChoice", "BertForSomethingNew"] {
        let error = fault(class);
        assert!(error.contains(class) && error.contains("ForQuestionAnswering"), "{error}");
    }
    let model = Model::load(&with_class("OwnEncoder")).unwrap();
    assert!(model.card().warnings[0].contains("OwnEncoder"), "{:?}", model.card().warnings);
    // These are the weights of a body, with the configuration of a model with a head: the error names the head.
    let folder = support::scratch("body");
    std::fs::copy(fixtures().join("bert-masked/model.safetensors"), folder.join("model.safetensors")).unwrap();
    let config = std::fs::read_to_string(fixtures().join("bert-masked/config.json")).unwrap();
    std::fs::write(folder.join("config.json"), config.replace("BertForMaskedLM", "BertModel")).unwrap();
    let warnings = Model::load(&folder).unwrap().card().warnings.clone();
    assert!(warnings.len() == 1 && warnings[0].contains("not used by BertModel: cls.predictions"), "{warnings:?}");
}

#[test]
fn half_precision_and_unknown_families_and_missing_tensors() {
    let scratch = support::scratch("encoders");
    let copy = |name: &str, change: &dyn Fn(String) -> String| {
        let folder = scratch.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let config = std::fs::read_to_string(fixtures().join("bert/config.json")).unwrap();
        std::fs::write(folder.join("config.json"), change(config)).unwrap();
        std::fs::copy(fixtures().join("bert/model.safetensors"), folder.join("model.safetensors")).unwrap();
        folder
    };
    let nameless = copy("nameless", &|c| c.replace("\"model_type\": \"bert\",", ""));
    let error = Model::load(&nameless).err().unwrap().to_string();
    assert!(error.contains("has no architecture") && error.contains("mpnet"), "{error}");
    let unknown = copy("unknown", &|c| c.replace("\"model_type\": \"bert\"", "\"model_type\": \"mamba9\""));
    let error = Model::load(&unknown).err().unwrap().to_string();
    assert!(error.contains("mamba9") && error.contains("bert") && error.contains("distilbert"), "{error}");
    let deeper = copy("deeper", &|c| c.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"));
    let error = Model::load(&deeper).err().unwrap().to_string();
    assert!(error.contains("encoder.layer.2.attention"), "{error}");
    let wider = copy("wider", &|c| c.replace("\"intermediate_size\": 24", "\"intermediate_size\": 25"));
    let error = Model::load(&wider).err().unwrap().to_string();
    assert!(error.contains("[24, 16]") && error.contains("[25, 16]"), "{error}");
    let broken = copy("broken", &|c| c.replace("\"hidden_size\": 16,", "\"hidden_size\": ,"));
    assert!(Model::load(&broken).err().unwrap().to_string().contains("config.json"));
}
