//! What is fuzzed, one function a target: each takes any bytes and must come back. `tests/fuzz.rs` reads the committed corpus
//! with them, too.

use bytes::Bytes;
use optimize::call::Call;
use optimize::model::{Dim, Model, ValueInfo};
use optimize::onnx::dtype::DataType;
use optimize::onnx::{load, save};
use optimize::package::shapes;
use optimize::package::{Manifest, Package, verify};
use optimize::source::Dialect;
use optimize::source::checkpoint::safetensors::Safetensors;
use optimize::text::chat::{ChatTemplate, message};
use optimize::text::tokenizer::Tokenizer;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, OnceLock};

/// What is done with one input.
pub type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Target); 10] = [
    ("onnx", onnx),
    ("packed", packed),
    ("gguf", gguf),
    ("safetensors", safetensors),
    ("checkpoint", checkpoint),
    ("tokenizer", tokenizer),
    ("template", template),
    ("package", package),
    ("manifest", manifest),
    ("contract", contract),
];

/// This process's folder in memory (`/dev/shm`), for readers that want a path.
pub static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let base = Path::new("/dev/shm");
    let base = if base.is_dir() { base.to_path_buf() } else { std::env::temp_dir() };
    let folder = base.join(format!("liboptimize-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the files of an input");
    folder
});

/// Writes `content` as the file `name` of [`FOLDER`], and returns its path.
pub fn write(name: &str, content: &[u8]) -> PathBuf {
    let path = FOLDER.join(name);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).expect("a folder in memory");
    }
    std::fs::write(&path, content).expect("a file in memory");
    path
}

/// Line that separates the files of one input. A text, so that libFuzzer's mutations move and repeat it.
pub const SEPARATOR: &[u8] = b"\n--8<--\n";

/// The parts of an input that stands for several files.
pub fn parts(data: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = data;
    while let Some(at) = rest.windows(SEPARATOR.len()).position(|window| window == SEPARATOR) {
        parts.push(&rest[..at]);
        rest = &rest[at + SEPARATOR.len()..];
    }
    parts.push(rest);
    parts
}

/// Writes the parts of an input as the files `names` of a folder; parts that are missing are no files.
pub fn write_parts(folder: &str, names: &[&str], data: &[u8]) -> PathBuf {
    let parts = parts(data);
    for (index, name) in names.iter().enumerate() {
        let path = format!("{folder}/{name}");
        match parts.get(index) {
            Some(content) => drop(write(&path, content)),
            None => drop(std::fs::remove_file(FOLDER.join(path))),
        }
    }
    FOLDER.join(folder)
}

/// Reads a model as a program would, and looks at what lies beside its weights.
pub fn read(path: &Path, dialect: Dialect) {
    let Ok(model) = optimize::open::load(path, &optimize::source::LoadOptions { dialect }) else { return };
    optimize::inspect::inspect(&model);
    let tokenizer = Tokenizer::of(&model).ok().flatten();
    if let Some(tokenizer) = &tokenizer {
        use_tokenizer(tokenizer);
    }
    if let Ok(Some(template)) = ChatTemplate::of(&model, tokenizer.as_ref()) {
        let hello = [message("user", "hello")];
        let _ = template.render(&hello, &Default::default());
    }
}

/// Encodes and decodes a text with everything that tokenizers treat in their own way.
pub fn use_tokenizer(tokenizer: &Tokenizer) {
    if let Ok(encoding) = tokenizer.encode("a b\u{e9} <end> 12\n\u{1f600}", true) {
        let _ = tokenizer.decode(&encoding.ids, false);
        let _ = tokenizer.decode(&encoding.ids, true);
    }
    let _ = tokenizer.decode(&[0, 1, 2, 300, i64::MAX, -1], false);
}

/// ONNX files from memory: what is taken is written again, and comes back equal.
pub fn onnx(data: &[u8]) {
    let Ok(model) = Model::from_bytes(Bytes::copy_from_slice(data)) else { return };
    optimize::inspect::inspect(&model);
    let saved = Bytes::from(save::encode(model.proto()).concat());
    let second = load::from_bytes(saved.clone(), None).expect("what was saved loads").proto;
    assert!(save::encode(&second).concat() == saved, "the model comes back changed");
}

/// Packed files. The checksum at the end is put right, so that what lies before it is read.
pub fn packed(data: &[u8]) {
    let mut content = data.to_vec();
    content.extend_from_slice(&Sha256::digest(data));
    let _ = optimize::onnx::packed::read(&Bytes::from(content));
}

/// GGUF files, with the vocabulary and the chat template inside them.
pub fn gguf(data: &[u8]) {
    let path = write("model.gguf", data);
    let dialect = if data.len().is_multiple_of(2) { Dialect::Runtime } else { Dialect::Portable };
    read(&path, dialect);
}

/// The header and the tensors of a safetensors file.
pub fn safetensors(data: &[u8]) {
    let _ = Safetensors::open_file(&write("model.safetensors", data));
}

/// Files of a folder in the order of an input's parts.
const NAMES: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "modules.json",
    "1_Pooling/config.json",
    "model.safetensors.index.json",
    "model.safetensors",
];

/// Checkpoint folders: the configurations are the input, the weights are made from the fixtures.
pub fn checkpoint(data: &[u8]) {
    let folder = write_parts("checkpoint", &NAMES, data);
    let dialect = if data.len().is_multiple_of(2) { Dialect::Runtime } else { Dialect::Portable };
    read(&folder, dialect);
}

/// `tokenizer.json`: what is taken encodes and decodes.
pub fn tokenizer(data: &[u8]) {
    if let Ok(tokenizer) = Tokenizer::from_bytes(data) {
        use_tokenizer(&tokenizer);
    }
}

/// Chat templates, with messages that are JSON of the input.
pub fn template(data: &[u8]) {
    let parts = parts(data);
    let Ok(source) = std::str::from_utf8(parts[0]) else { return };
    let Ok(template) = ChatTemplate::new(source) else { return };
    let given = parts.get(1).and_then(|json| serde_json::from_slice::<Vec<serde_json::Value>>(json).ok());
    let messages = given.unwrap_or_else(|| vec![message("user", "hello \u{1f600}")]);
    let _ = template.render(&messages, &Default::default());
}

/// Packages in one file: opened, read and verified.
pub fn package(data: &[u8]) {
    let path = write("model.package", data);
    let Ok(package) = Package::open(&path, &Default::default()) else { return };
    let _ = package.inspect(None);
    let _ = package.verify(None, &Call::default());
    let _ = package.tokenizer();
    if let Ok(model) = package.model() {
        optimize::inspect::inspect(&model);
    }
}

/// Copies the files of the package that OPTIMIZE_FUZZ_PACKAGE names, once; returns whether there is one.
fn others() -> bool {
    static ONCE: OnceLock<bool> = OnceLock::new();
    *ONCE.get_or_init(|| {
        let Some(from) = std::env::var_os("OPTIMIZE_FUZZ_PACKAGE") else { return false };
        let copy = std::process::Command::new("cp").arg("-r").arg(from).arg(FOLDER.join("package")).status();
        copy.is_ok_and(|status| status.success())
    })
}

/// `optimize.json`, the manifest of a package, in a folder whose other files are sound.
pub fn manifest(data: &[u8]) {
    if let Ok(manifest) = Manifest::read(data) {
        let again = Manifest::read(manifest.to_json().as_bytes()).expect("what was written is read");
        assert_eq!(again.to_json(), manifest.to_json());
        if !others() {
            return;
        }
        write("package/optimize.json", data);
        write("package/optimize.json.sha256", verify::seal(data).as_bytes());
        let path = FOLDER.join("package");
        let Ok(package) = Package::open(&path, &Default::default()) else { return };
        let _ = package.inspect(None);
        let _ = package.verify(None, &Call::default());
        let _ = package.model();
    }
}

fn infos() -> Vec<ValueInfo> {
    let open = |name: &str| Dim::Symbolic(name.to_owned());
    let value = |name: &str, shape: Vec<Dim>| ValueInfo {
        name: name.to_owned(),
        dtype: Some(DataType::Float32),
        shape: Some(shape),
    };
    vec![
        value("ids", vec![open("batch"), open("sequence")]),
        value("past", vec![open("batch"), Dim::Fixed(2), open("past"), Dim::Fixed(4)]),
    ]
}

/// Contracts of shapes as JSON, on a model with open sizes, and shapes held against them.
pub fn contract(data: &[u8]) {
    let parts = parts(data);
    let Ok(json) = std::str::from_utf8(parts[0]) else { return };
    let Ok(asked) = shapes::parse(json) else { return };
    let example = HashMap::from([("ids".to_owned(), vec![1, 8]), ("past".to_owned(), vec![1, 2, 0, 4])]);
    let Ok(contract) = shapes::contract(&infos(), &asked, &example) else { return };
    let sizes: Vec<i64> = parts.get(1).unwrap_or(&&b""[..]).iter().map(|&b| i64::from(b) - 8).collect();
    let (ids, past) = sizes.split_at(sizes.len().min(2));
    let _ = contract.check(&[("ids", DataType::Float32, ids), ("past", DataType::Float32, past)]);
}
