//! Writes the initial inputs of fuzzing: `seeds FOLDER` creates `FOLDER/TARGET/*` from the fixtures of the tests and
//! from texts in this file, and `FOLDER/files`, whose files the target `calls` opens. `tools/fuzz.sh` adds packages.

use liboptimize_fuzz::targets::SEPARATOR;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "../../tests/abi/fixtures.rs"]
mod fixtures;

/// Maximum size of an input in bytes: larger ones are slow to mutate and rarely find more.
const LARGEST: u64 = 64 << 10;

fn main() {
    let out = PathBuf::from(std::env::args_os().nth(1).expect("usage: seeds FOLDER"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the project's folder").join("tests");
    let files = out.join("files");
    fs::create_dir_all(&files).expect("a folder for the files");
    fixtures::write(&files, &root);
    let mut found = Vec::new();
    walk(&root, &mut found);
    for path in found {
        let Ok(content) = fs::read(&path) else { continue };
        for target in targets(&path, &content) {
            write(&out, target, &path, &root, &content);
        }
    }
    for (number, text) in TEMPLATES.iter().enumerate() {
        write(&out, "template", Path::new(&format!("given{number}")), &root, text.as_bytes());
    }
    for (number, text) in CONTRACTS.iter().enumerate() {
        write(&out, "contract", Path::new(&format!("given{number}")), &root, text.as_bytes());
    }
    checkpoints(&out, &root);
    packed(&out, &files.join("model.onnx"));
    for number in 0..32u32 {
        // The target `calls` reads any bytes as a sequence of calls.
        let bytes: Vec<u8> = (0..200u32).map(|i| (i * 37 + number * 101).wrapping_mul(2_654_435_761) as u8).collect();
        write(&out, "calls", Path::new(&format!("given{number}")), &root, &bytes);
    }
}

/// Returns the targets that read files with this name and content.
fn targets(path: &Path, content: &[u8]) -> Vec<&'static str> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    match path.extension().and_then(|e| e.to_str()).unwrap_or_default() {
        "onnx" => vec!["onnx"],
        "gguf" => vec!["gguf"],
        "safetensors" => vec!["safetensors"],
        "jinja" => vec!["template"],
        "json" if name.contains("tokenizer") && content.windows(7).any(|w| w == b"\"model\"") => vec!["tokenizer"],
        _ => vec![],
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, found);
        } else if entry.metadata().is_ok_and(|m| m.len() <= LARGEST) {
            found.push(path);
        }
    }
}

fn write(out: &Path, target: &str, path: &Path, root: &Path, content: &[u8]) {
    let folder = out.join(target);
    fs::create_dir_all(&folder).expect("a folder for seeds");
    let name = path.strip_prefix(root).unwrap_or(path).display().to_string().replace('/', "-");
    fs::write(folder.join(name), content).expect("a seed");
}

/// Writes a packed file without its checksum, and the parts that the target `packed` assembles.
fn packed(out: &Path, model: &Path) {
    let file = out.join("model.packed");
    let model = optimize::onnx::load::from_bytes(fs::read(model).expect("a model").into(), None).expect("a model");
    optimize::onnx::packed::to_file(&model.proto, &file, &Default::default()).expect("a packed model");
    let whole = fs::read(&file).expect("what was written");
    let whole = &whole[..whole.len() - 32];
    let number = |at: usize| {
        let at = whole.len() - 48 + 8 * at;
        u64::from_le_bytes(whole[at..at + 8].try_into().expect("eight bytes")) as usize
    };
    let (at, stored, bytes, index) = (number(0), number(1), number(2), number(3));
    let model = zstd::bulk::decompress(&whole[at..at + stored], bytes).expect("the model");
    let parts = [&model[..], &whole[index..index + number(4)], &whole[16..at]].join(SEPARATOR);
    for (name, content) in [("whole", whole), ("parts", &parts)] {
        write(out, "packed", Path::new(name), out, content);
    }
}

/// Writes each folder with a configuration as the parts of an input of the target `checkpoint`.
fn checkpoints(out: &Path, root: &Path) {
    for kind in ["checkpoints", "encoders"] {
        for entry in fs::read_dir(root.join("fixtures").join(kind)).into_iter().flatten().flatten() {
            let part = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
            let names = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"];
            let others = ["modules.json", "1_Pooling/config.json", "model.safetensors.index.json", "model.safetensors"];
            let mut parts: Vec<Vec<u8>> = names.into_iter().chain(others).map(part).collect();
            if let Some((config, header)) = of_one_layer(&parts[0], &parts[7]) {
                (parts[0], parts[7]) = (config, header);
                write(out, "checkpoint", &entry.path(), root, &parts.join(SEPARATOR));
            }
        }
    }
}

/// Returns the configuration of a checkpoint and the header of its weights, with the first layer only.
fn of_one_layer(config: &[u8], weights: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut config: Map<String, Value> = serde_json::from_slice(config).ok()?;
    for key in ["num_hidden_layers", "n_layer", "n_layers"] {
        config.get_mut(key).map(|layers| *layers = 1.into());
    }
    config.remove("layer_types");
    let length = u64::from_le_bytes(weights.get(..8)?.try_into().ok()?) as usize;
    let mut header: Map<String, Value> = serde_json::from_slice(weights.get(8..8 + length)?).ok()?;
    header.retain(|name, _| name.split('.').find_map(|part| part.parse::<u32>().ok()).unwrap_or(0) == 0);
    let mut end = 0;
    for tensor in header.iter_mut().filter(|(name, _)| *name != "__metadata__").map(|(_, tensor)| tensor) {
        let offsets = tensor["data_offsets"].as_array()?;
        let size = offsets[1].as_u64()? - offsets[0].as_u64()?;
        tensor["data_offsets"] = json!([end, end + size]);
        end += size;
    }
    Some((serde_json::to_vec(&config).ok()?, serde_json::to_vec(&header).ok()?))
}

const TEMPLATES: [&str; 4] = [
    "{% for m in messages %}{{ m.role }}: {{ m['content'] | trim }}{% endfor %}",
    "{%- if messages[0].role == 'system' -%}{{ messages[0].content.split('a')[-1] }}{%- set ns = namespace(x=0) %}{% endif %}",
    "{% macro f(a, b=1) %}{{ a ~ b }}{% endmacro %}{{ f('x') }}{{ messages | tojson(indent=2) }}{{ strftime_now('%d %b') }}",
    "{{ bos_token }}{{ messages[::-1] | map(attribute='role') | join(', ') }}{{ raise_exception('no') }}\n--8<--\n[{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}]}]",
];

const CONTRACTS: [&str; 3] = [
    r#"{"ids": {"0": {"name": "batch", "min": 1, "max": 8}, "1": {"name": "sequence", "min": 1, "max": 128}}}"#,
    r#"{"ids": {"1": {"min": 4}}, "past": {"2": {"name": "past", "min": 0, "max": 64}}}"#,
    "{\"past\": {\"0\": {\"name\": \"b\", \"max\": 2}}}\n--8<--\n\x09\x10\x09\x0a\x08\x0c",
];
