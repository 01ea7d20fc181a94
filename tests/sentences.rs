//! Folders of sentence-transformers, as checkpoints and as exported graphs, against that library's vectors
//! (`fixtures/sentences/make.py`): every pooling, the other steps, lower case, prompts.

mod support;

use optimize::call::Call;
use optimize::evaluate::{TextOptions, embed};
use optimize::model::Model;
use optimize::onnx::save::ExternalData;
use optimize::text::Tokenizer;
use serde_json::Value;
use std::path::{Path, PathBuf};
use support::runtime;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sentences")
}

fn reference() -> Value {
    serde_json::from_slice(&std::fs::read(fixtures().join("reference.json")).unwrap()).unwrap()
}

fn write(folder: &Path, name: &str, content: &[u8]) {
    let file = folder.join(name);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, content).unwrap();
}

/// Returns a folder of this form, without the files whose names begin with one of `without`.
fn folder(name: &str, form: &Value, without: &[&str]) -> support::Scratch {
    let folder = support::scratch(name);
    let mut left = vec![PathBuf::new()];
    while let Some(inner) = left.pop() {
        for entry in std::fs::read_dir(fixtures().join("model").join(&inner)).unwrap().flatten() {
            let path = inner.join(entry.file_name());
            match entry.path().is_dir() {
                true => left.push(path),
                false if without.iter().any(|name| path.starts_with(name)) => {}
                false => write(&folder, path.to_str().unwrap(), &std::fs::read(entry.path()).unwrap()),
            }
        }
    }
    for (name, content) in form["files"].as_object().unwrap() {
        write(&folder, name, content.to_string().as_bytes());
    }
    folder
}

/// Returns the largest difference from the reference, with both normalized to length 1.
fn difference(model: &Model, form: &Value) -> f64 {
    let texts: Vec<String> = serde_json::from_value(reference()["texts"].clone()).unwrap();
    let tokenizer = Tokenizer::of(model).unwrap().unwrap();
    let found = embed(runtime(), model, &tokenizer, &texts, &TextOptions::default(), &Call::default()).unwrap();
    let expected: Vec<Vec<f64>> = serde_json::from_value(form["vectors"].clone()).unwrap();
    assert_eq!(found.width, expected[0].len());
    let unit = |row: &[f64]| {
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        row.iter().map(|x| x / norm).collect::<Vec<f64>>()
    };
    let expected: Vec<f64> = expected.iter().flat_map(|row| unit(row)).collect();
    found.unit().iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn checkpoints_and_exported_graphs_give_the_vectors_of_sentence_transformers() {
    let plain = support::scratch("plain");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(fixtures().join("model").join(name), plain.join(name)).unwrap();
    }
    let graph = Model::load(&plain).unwrap();
    let forms = reference()["forms"].as_object().unwrap().clone();
    assert_eq!(forms.len(), 20);
    for (index, (name, form)) in forms.iter().enumerate() {
        let checkpoint = folder(&format!("form-{index}"), form, &[]);
        let of_checkpoint = difference(&Model::load(&checkpoint).unwrap(), form);
        // The graph is exported up to the token vectors, and the steps are in files next to it. The folder is tested
        // without and with safetensors.
        let exported = folder(&format!("exported-{index}"), form, &["model.safetensors"]);
        graph.save(&exported.join("model.onnx"), ExternalData::Never, &Call::default()).unwrap();
        let clone = folder(&format!("clone-{index}"), form, &[]);
        std::fs::create_dir(clone.join("onnx")).unwrap();
        std::fs::copy(exported.join("model.onnx"), clone.join("onnx/model.onnx")).unwrap();
        let worst = [exported.to_path_buf(), clone.to_path_buf(), clone.join("onnx"), clone.join("onnx/model.onnx")]
            .map(|path| difference(&Model::load(&path).unwrap(), form));
        println!("{name}: {of_checkpoint:e}, {worst:?}");
        assert!(of_checkpoint < 2e-6 && worst.iter().all(|worst| *worst < 2e-6), "{name}: {of_checkpoint} {worst:?}");
    }
}

#[test]
fn folders_that_other_programs_quantized_are_refused_with_modules_too() {
    let form = &reference()["forms"]["mean"];
    let folder = folder("quantized", form, &[]);
    let mut config: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    config["quantization_config"] = serde_json::json!({"quant_method": "gptq"});
    write(&folder, "config.json", config.to_string().as_bytes());
    assert!(Model::load(&folder).err().unwrap().to_string().contains("gptq"));
    // The transformer of this folder is a decoder.
    config.as_object_mut().unwrap().remove("quantization_config");
    config["model_type"] = "qwen3".into();
    write(&folder, "config.json", config.to_string().as_bytes());
    let error = Model::load(&folder).err().unwrap().to_string();
    assert!(error.contains("qwen3") && error.contains("only encoders"), "{error}");
}
