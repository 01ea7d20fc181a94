//! The fuzz targets for readers of files, each of which is a function that must return for any bytes. `tests/fuzz.rs`
//! also runs them on the committed corpus.

use bytes::Bytes;
use optimize::call::Call;
use optimize::model::{Dim, Model, ValueInfo};
use optimize::onnx::dtype::DataType;
use optimize::onnx::{self, load, save};
use optimize::open;
use optimize::package::manifest::{OURS, SEAL, THEIRS, WEIGHTS};
use optimize::package::shapes;
use optimize::package::{Manifest, Package, archive, verify};
use optimize::source::checkpoint::safetensors::Safetensors;
use optimize::source::weights::Weights as _;
use optimize::source::{Dialect, LoadOptions, gguf};
use optimize::text::chat::{ChatTemplate, message};
use optimize::text::tokenizer::Tokenizer;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, OnceLock};

/// A function that processes one input. It panics if the library behaves wrongly.
pub type Target = fn(&[u8]);

/// The fuzz targets of this module by name. The target `calls` is in [`crate::calls`].
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

/// Folder of this process for readers that need a path. It is in memory (`/dev/shm`) where there is that folder, and
/// otherwise in the folder for temporary files.
pub static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let base = Path::new("/dev/shm");
    let base = if base.is_dir() { base.to_path_buf() } else { std::env::temp_dir() };
    let folder = base.join(format!("liboptimize-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the files of an input");
    folder
});

/// Contents of the files of [`FOLDER`], so that unchanged files are not written again. Most mutations change one file
/// of several.
static WRITTEN: Mutex<BTreeMap<PathBuf, Vec<u8>>> = Mutex::new(BTreeMap::new());

/// Writes `content` to the file `name` of [`FOLDER`], and returns its path.
pub fn write(name: &str, content: &[u8]) -> PathBuf {
    let path = FOLDER.join(name);
    let mut written = WRITTEN.lock().unwrap_or_else(|e| e.into_inner());
    match written.get_mut(&path) {
        Some(known) if known == content => return path,
        Some(known) => content.clone_into(known),
        None => {
            std::fs::create_dir_all(path.parent().unwrap_or(&path)).expect("a folder in memory");
            written.insert(path.clone(), content.to_owned());
        }
    }
    std::fs::write(&path, content).expect("a file in memory");
    path
}

/// Removes the file `name` of [`FOLDER`] if it exists.
fn remove(name: &str) {
    let path = FOLDER.join(name);
    if WRITTEN.lock().unwrap_or_else(|e| e.into_inner()).remove(&path).is_some() {
        std::fs::remove_file(&path).expect("a file that was written");
    }
}

/// Line that separates the files of an input. It is text, so that mutations of libFuzzer move and repeat it.
pub const SEPARATOR: &[u8] = b"\n--8<--\n";

/// Returns the parts of an input that consists of several files.
pub fn parts(data: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = data;
    let mut from = 0;
    while let Some(line) = rest[from..].iter().position(|byte| *byte == SEPARATOR[0]) {
        let at = from + line;
        if rest[at..].starts_with(SEPARATOR) {
            parts.push(&rest[..at]);
            (rest, from) = (&rest[at + SEPARATOR.len()..], 0);
        } else {
            from = at + 1;
        }
    }
    parts.push(rest);
    parts
}

/// Writes the parts of an input as the files `names` of a folder in [`FOLDER`], and returns its path. There are no
/// files for missing and empty parts.
pub fn write_parts(folder: &str, names: &[&str], data: &[u8]) -> PathBuf {
    let parts = parts(data);
    for (index, name) in names.iter().enumerate() {
        let path = format!("{folder}/{name}");
        match parts.get(index).filter(|content| !content.is_empty()) {
            Some(content) => drop(write(&path, content)),
            None => remove(&path),
        }
    }
    FOLDER.join(folder)
}

/// Inspects a model, and uses its tokenizer and chat template if it has them.
fn look(model: &Model) {
    optimize::inspect::inspect(model);
    let tokenizer = Tokenizer::of(model).ok().flatten();
    if let Some(tokenizer) = &tokenizer {
        use_tokenizer(tokenizer);
    }
    if let Ok(Some(template)) = ChatTemplate::of(model, tokenizer.as_ref()) {
        let hello = [message("user", "hello")];
        let _ = template.render(&hello, &Default::default());
    }
}

/// Encodes and decodes a text with several kinds of characters that tokenizers treat specially, and decodes unknown
/// ids.
pub fn use_tokenizer(tokenizer: &Tokenizer) {
    if let Ok(encoding) = tokenizer.encode("a b\u{e9} <end> 12\n\u{1f600}", true) {
        let _ = tokenizer.decode(&encoding.ids, false);
        let _ = tokenizer.decode(&encoding.ids, true);
    }
    let _ = tokenizer.decode(&[0, 1, 2, 300, i64::MAX, -1], false);
}

/// Reads an ONNX file from memory. An accepted model is written, read and written again, and both files must be equal.
pub fn onnx(data: &[u8]) {
    let Ok(model) = Model::from_bytes(Bytes::copy_from_slice(data)) else { return };
    optimize::inspect::inspect(&model);
    let saved = Bytes::from(save::encode(model.proto()).concat());
    let second = load::from_bytes(saved.clone(), None).expect("what was saved loads").proto;
    assert!(save::encode(&second).concat() == saved, "the model comes back changed");
}

/// Reads a packed file. The checksum at its end is corrected, so that the content before it is read. An input that does
/// not begin like a packed file consists of the parts of a packed file: the model, the index, and the pieces of
/// tensors.
pub fn packed(data: &[u8]) {
    let mut content = if onnx::packed::is_packed(data) { data.to_vec() } else { put_together(&parts(data)) };
    content.extend_from_slice(&Sha256::digest(&content));
    let _ = onnx::packed::read(&Bytes::from(content));
}

/// Returns a packed file with these parts, without the checksum.
fn put_together(parts: &[&[u8]]) -> Vec<u8> {
    let part = |index: usize| parts.get(index).copied().unwrap_or_default();
    let (model, index, pieces) = (part(0), part(1), part(2));
    let stored = zstd::bulk::compress(model, 1).expect("a compressed model");
    let mut file = b"\x93ONNXPK\n\x01\0\0\0\0\0\0\0".to_vec();
    file.extend_from_slice(pieces);
    let stored_at = file.len();
    file.extend_from_slice(&stored);
    let index_at = file.len();
    file.extend_from_slice(index);
    // Each tensor of one piece takes 13 bytes.
    for number in [stored_at, stored.len(), model.len(), index_at, index.len(), index.len() / 13] {
        file.extend_from_slice(&(number as u64).to_le_bytes());
    }
    file
}

/// Reads a GGUF file, with its vocabulary and chat template.
pub fn gguf(data: &[u8]) {
    let loaded = gguf::from_bytes(Bytes::copy_from_slice(data), Path::new("model.gguf"), &options(data));
    if let Ok(model) = loaded {
        look(&model);
    }
}

/// Returns load options with a dialect, which the length of an input selects.
fn options(data: &[u8]) -> LoadOptions {
    LoadOptions { dialect: if data.len().is_multiple_of(2) { Dialect::Runtime } else { Dialect::Portable } }
}

/// Reads the header and the tensors of a safetensors file.
pub fn safetensors(data: &[u8]) {
    let Ok(file) = Safetensors::of_bytes(Bytes::copy_from_slice(data)) else { return };
    for name in file.names() {
        let _ = file.find(&name);
    }
}

/// Names of the files of a folder, in the order of the parts of an input.
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

/// Maximum size in bytes of weights that are generated for a header of an input.
const MADE_UP: u64 = 1 << 20;

/// Loads a checkpoint folder. The last part is the header of a safetensors file, whose tensors are zeros.
pub fn checkpoint(data: &[u8]) {
    let (names, weights) = (&NAMES[..NAMES.len() - 1], NAMES.len() - 1);
    let folder = write_parts("checkpoint", names, data);
    if let Some(header) = parts(data).get(weights) {
        let path = write("checkpoint/model.safetensors", &[&(header.len() as u64).to_le_bytes()[..], header].concat());
        let file = std::fs::File::options().write(true).open(path).expect("the file that was written");
        file.set_len(8 + header.len() as u64 + length_of(header)).expect("a longer file");
    } else {
        remove("checkpoint/model.safetensors");
    }
    if let Ok(model) = open::load(&folder, &options(data)) {
        look(&model);
    }
}

/// Returns the size in bytes of the tensors of a safetensors header.
fn length_of(header: &[u8]) -> u64 {
    let tensors = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(header).unwrap_or_default();
    let end = |tensor: &serde_json::Value| tensor.get("data_offsets")?.get(1)?.as_u64();
    tensors.values().filter_map(end).max().unwrap_or(0).min(MADE_UP)
}

/// Loads a `tokenizer.json`. An accepted tokenizer encodes and decodes a text.
pub fn tokenizer(data: &[u8]) {
    if let Ok(tokenizer) = Tokenizer::from_bytes(data) {
        use_tokenizer(&tokenizer);
    }
}

/// Renders the chat template in the first part of the input, with messages from the JSON of the second part, or with a
/// fixed message if there is none.
pub fn template(data: &[u8]) {
    let parts = parts(data);
    let Ok(source) = std::str::from_utf8(parts[0]) else { return };
    let Ok(template) = ChatTemplate::new(source) else { return };
    let given = parts.get(1).and_then(|json| serde_json::from_slice::<Vec<serde_json::Value>>(json).ok());
    let messages = given.unwrap_or_else(|| vec![message("user", "hello \u{1f600}")]);
    let _ = template.render(&messages, &Default::default());
}

/// Opens, reads and verifies a package in one file. An input that begins like such a file is used with only the
/// checksum of its manifest corrected. Other inputs consist of the files of a package, which get valid checksums.
pub fn package(data: &[u8]) {
    let path = if archive::is_archive(data) {
        write("model.package", &mended(data))
    } else {
        write("model.package", &packaged(&parts(data)))
    };
    let Ok(package) = Package::open(&path, &Default::default()) else { return };
    let _ = package.inspect(None);
    let _ = package.verify(None, &Call::default());
    let _ = package.tokenizer();
    if let Ok(model) = package.model() {
        optimize::inspect::inspect(&model);
    }
}

/// Returns an archive whose manifest has a valid checksum, if there is space for one.
fn mended(data: &[u8]) -> Vec<u8> {
    let (whole, mut mended) = (Bytes::copy_from_slice(data), data.to_vec());
    let Ok(entries) = archive::entries(&whole) else { return mended };
    let find = |name: &str| entries.iter().find(|(known, _)| known == name).map(|(_, content)| content);
    if let (Some(manifest), Some(seal)) = (find(OURS), find(SEAL)) {
        let (at, right) = (seal.as_ptr() as usize - whole.as_ptr() as usize, verify::seal(manifest));
        if right.len() == seal.len() {
            mended[at..at + right.len()].copy_from_slice(right.as_bytes());
        }
    }
    mended
}

/// Names of the files of a package, in the order of the parts of an input. The last part is the header of the weights,
/// which are zeros.
const INSIDE: [&str; 6] =
    [OURS, THEIRS, "model/fp32/model.onnx", "model/fp32-ahead/model.onnx", "assets/tokenizer.json", WEIGHTS];

/// Returns a package of these files, with corrected sizes and hashes in its manifest.
fn packaged(parts: &[&[u8]]) -> Vec<u8> {
    let mut files: Vec<(&str, Vec<u8>)> =
        INSIDE.into_iter().zip(parts.iter().map(|part| part.to_vec())).filter(|(_, part)| !part.is_empty()).collect();
    for (_, header) in files.iter_mut().filter(|(name, _)| *name == WEIGHTS) {
        let length = length_of(header).min(16 << 10) as usize;
        *header = [&(header.len() as u64).to_le_bytes()[..], header, &vec![0; length]].concat();
    }
    let manifest = files.iter().position(|(name, _)| *name == OURS);
    if let Some(at) = manifest {
        if let Ok(mut json) = serde_json::from_slice::<serde_json::Value>(&files[at].1) {
            for (name, content) in &files {
                if let Some(file) = json.get_mut("files").and_then(|files| files.get_mut(*name)) {
                    let sha256: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
                    *file = serde_json::json!({ "bytes": content.len(), "sha256": sha256 });
                }
            }
            files[at].1 = serde_json::to_vec(&json).unwrap_or_default();
        }
        files.push((SEAL, verify::seal(&files[at].1).into_bytes()));
    }
    let entry = |(name, content): &(&str, Vec<u8>)| archive::Entry {
        name: (*name).to_owned(),
        size: content.len() as u64,
        crc: crc32fast::hash(content),
    };
    let skeleton = archive::skeleton(&files.iter().map(entry).collect::<Vec<_>>());
    let mut whole = Vec::new();
    for ((_, header), (_, content)) in skeleton.headers.iter().zip(&files) {
        whole.extend_from_slice(header);
        whole.extend_from_slice(content);
    }
    whole.extend_from_slice(&skeleton.tail);
    whole
}

/// Copies the package that the environment variable OPTIMIZE_FUZZ_PACKAGE names into [`FOLDER`] on the first call.
/// Returns whether there is a copy.
fn others() -> bool {
    static ONCE: OnceLock<bool> = OnceLock::new();
    *ONCE.get_or_init(|| {
        let Some(from) = std::env::var_os("OPTIMIZE_FUZZ_PACKAGE") else { return false };
        let copy = std::process::Command::new("cp").arg("-r").arg(from).arg(FOLDER.join("package")).status();
        copy.is_ok_and(|status| status.success())
    })
}

/// Reads the manifest of a package; an accepted manifest is written and read again, and must be equal. If
/// OPTIMIZE_FUZZ_PACKAGE names a package, also opens this package with the input as its `optimize.json`.
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

/// Parses dynamic shapes in the JSON of the first part for a model with dynamic dimensions, makes a contract of them,
/// and checks sizes against it, which are the bytes of the second part minus 8.
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
