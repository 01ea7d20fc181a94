//! Valid models that the damage starts from: the fixtures, and small ones that use everything a file can contain.

use crate::common::*;
use crate::{gguf, mutate, onnx};
use bytes::Bytes;
use optimize::call::Call;
use optimize::model::Model;
use optimize::source::gguf::tokenizer_json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A model as files.
pub struct Seed {
    /// Contents of the files by name.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Path of the model in the folder; empty for the folder itself.
    pub model: &'static str,
    /// Whether the model can be loaded without damage.
    pub sound: bool,
}

impl Seed {
    /// Writes the files of the model as the only content of `folder`.
    pub fn write(&self, folder: &Path) {
        let _ = std::fs::remove_dir_all(folder);
        for (name, content) in &self.files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
    }

    /// Returns the name and the content of a file, damaged in one to three places: mostly in one, so that some are
    /// still accepted.
    pub fn damaged(&self, random: &mut Random) -> (&str, Vec<u8>) {
        let names: Vec<&String> = self.files.keys().filter(|name| !name.ends_with(".data")).collect();
        let name = names[random.below(names.len())];
        let mut content = self.files[name].clone();
        for _ in 0..1 + random.below(2) * random.below(3) {
            content = damage(name, content, random);
        }
        (name, content)
    }
}

fn damage(name: &str, content: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let extension = Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or("");
    let blind = random.below(4) == 0;
    match extension {
        "gguf" if blind => mutate::bytes(content, gguf::header_end, random),
        "gguf" => gguf::mutate(content, random),
        "onnx" if blind => mutate::bytes(content, |bytes| bytes.len(), random),
        "onnx" => onnx::mutate(&content, random),
        "packed" => resealed(mutate::bytes(content, |bytes| bytes.len(), random), blind),
        "safetensors" => mutate::safetensors(content, blind, random),
        _ if blind => mutate::bytes(content, |bytes| bytes.len(), random),
        _ => mutate::text(content, random),
    }
}

/// Returns the file with its checksum corrected, so that the reader does not stop at the checksum; if `blind`, the
/// checksum stays wrong.
fn resealed(mut content: Vec<u8>, blind: bool) -> Vec<u8> {
    if let Some(end) = content.len().checked_sub(32).filter(|_| !blind) {
        let digest = Sha256::digest(&content[..end]);
        content[end..].copy_from_slice(&digest);
    }
    content
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).unwrap()
}

/// Returns the paths in a folder of the tests, sorted so that they are the same in every run.
fn entries(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(fixture(folder)).unwrap();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn one(model: &'static str, content: Vec<u8>, sound: bool) -> Seed {
    Seed { files: [(model.to_owned(), content)].into(), model, sound }
}

pub fn gguf() -> Vec<Seed> {
    let files = entries("fixtures/gguf");
    let models = files.iter().filter(|path| path.extension().is_some_and(|e| e == "gguf"));
    let fixtures = models.map(|path| {
        // The three files named here contain tensors of every form, or a tokenizer, but no model.
        let sound =
            !path.ends_with("forms.gguf") && !path.ends_with("forms_more.gguf") && !path.ends_with("logits.gguf");
        one("model.gguf", std::fs::read(path).unwrap(), sound)
    });
    // The smallest models are repeated: in them, most bytes matter.
    let small = [gguf::small(), gguf::small(), gguf::scored()];
    fixtures.chain(small.map(|content| one("model.gguf", content, true))).collect()
}

/// Returns every tiny checkpoint with its weights next to it, some with a tokenizer, a template or further steps.
pub fn checkpoints() -> Vec<Seed> {
    let folders = [entries("fixtures/checkpoints"), entries("fixtures/encoders")].concat();
    let mut seeds: Vec<Seed> = folders.iter().filter_map(|folder| checkpoint(folder)).collect();
    let tokenizer = tokenizer_json(&Bytes::from(gguf::small())).unwrap().unwrap();
    let config = br#"{"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template":
        [{"name": "default", "template": "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"}]}"#;
    for (number, seed) in seeds.iter_mut().enumerate() {
        match number % 3 {
            0 => drop(seed.files.insert("tokenizer.json".to_owned(), tokenizer.to_vec())),
            1 => drop(seed.files.insert("tokenizer_config.json".to_owned(), config.to_vec())),
            _ => drop(seed.files.insert("chat_template.jinja".to_owned(), bytes("fixtures/chat/thinking.jinja"))),
        }
    }
    let mut sentence = checkpoint(&fixture("fixtures/encoders/bert")).unwrap();
    let modules = br#"[{"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]"#;
    let pooling = br#"{"word_embedding_dimension": 32, "pooling_mode_cls_token": false,
        "pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": false}"#;
    sentence.files.insert("modules.json".to_owned(), modules.to_vec());
    sentence.files.insert("1_Pooling/config.json".to_owned(), pooling.to_vec());
    seeds.push(sentence);
    seeds
}

/// Returns the files of a checkpoint; `None` if its weights are elsewhere or would take most of the time to write.
fn checkpoint(folder: &Path) -> Option<Seed> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).ok()? {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.starts_with("reference") {
            files.insert(name, std::fs::read(&path).ok()?);
        }
    }
    let weights: usize = files.iter().filter(|(name, _)| name.ends_with(".safetensors")).map(|(_, c)| c.len()).sum();
    (files.contains_key("config.json") && (1..400_000).contains(&weights)).then_some(Seed {
        files,
        model: "",
        sound: true,
    })
}

/// Returns small packed models: their parts are a few hundred bytes each, so that damage reaches all of them.
pub fn packed() -> Vec<Seed> {
    let folder = Folder::new("fuzz-packed");
    let path = folder.join("model.onnx.packed");
    let pack = |content: Vec<u8>| {
        let model = Model::from_bytes(Bytes::from(content)).unwrap();
        model.save_packed(&path, &Call::default()).unwrap();
        one("model.onnx.packed", std::fs::read(&path).unwrap(), true)
    };
    let weight = |name: &str, count: usize| {
        let values = (0..count).flat_map(|i| if i % 3 == 0 { 0f32 } else { i as f32 }.to_le_bytes());
        tensor(name, FLOAT, &[count as i64]).bytes(9, &values.collect::<Vec<u8>>())
    };
    let with = |tensors: Vec<Proto>| model(identity_graph().all(5, tensors)).0;
    let small = with(vec![weight("w", 300)]);
    let two = with(vec![weight("a", 256), bytes_tensor("zeros", 2000), weight("b", 300)]);
    [small, two, onnx::everything()[0].clone()].map(pack).into()
}

pub fn onnx() -> Vec<Seed> {
    let whole = onnx::everything().map(|content| {
        let mut seed = one("model.onnx", content, true);
        seed.files.insert("weights.data".to_owned(), vec![5; 24]);
        seed
    });
    let exported = ["genai-llama", "genai-llama-int4"].map(|name| {
        let part = |file: &str| (file.to_owned(), bytes(&format!("fixtures/exported/{name}/{file}")));
        let files = ["model.onnx", "model.onnx.data", "genai_config.json"].map(part).into();
        Seed { files, model: "", sound: true }
    });
    // Damage to hostile files may make them worse.
    let corpus = entries("corpus").into_iter().filter(|path| path.extension().is_some_and(|e| e == "onnx"));
    let hostile = corpus.step_by(8).map(|path| one("model.onnx", std::fs::read(path).unwrap(), false));
    // Valid files are the majority; otherwise few inputs would be accepted.
    let twice = onnx::everything().map(|content| one("model.onnx", content, false));
    whole.into_iter().chain(exported).chain(twice).chain(hostile).collect()
}
