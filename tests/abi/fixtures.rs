//! The files that the generated programs find in their folder, and the programs of fuzzed calls in theirs.

use std::path::Path;

/// Writes the files of the programs to `folder`; `tests` is the folder of the tests.
pub fn write(folder: &Path, tests: &Path) {
    let write = |name: &str, content: &[u8]| std::fs::write(folder.join(name), content).expect(name);
    write("model.onnx", &model());
    write("tokenizer.json", TOKENIZER.as_bytes());
    let decoder = folder.join("decoder");
    std::fs::create_dir_all(&decoder).expect("decoder");
    let tiny = tests.join("fixtures/checkpoints/llama");
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        std::fs::copy(tiny.join(name), decoder.join(name)).expect(name);
    }
    write("decoder/tokenizer.json", TOKENIZER.as_bytes());
    for (name, model) in [("encoder", "bert"), ("classes", "bert-classify"), ("tags", "bert-tags")] {
        std::fs::create_dir_all(folder.join(name)).expect(name);
        for file in ["config.json", "model.safetensors"] {
            let from = tests.join("fixtures/encoders").join(model).join(file);
            std::fs::copy(from, folder.join(name).join(file)).expect(file);
        }
        write(&format!("{name}/tokenizer.json"), TOKENIZER.as_bytes());
    }
    write("decoder/chat_template.jinja", b"{% for m in messages %}{{ m.content }}{% endfor %}");
}

const TOKENIZER: &str = r#"{"version": "1.0", "added_tokens": [], "normalizer": null,
"pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
"model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "[UNK]": 2}, "unk_token": "[UNK]"}}"#;

/// Returns y = x * w with x of float32[1, 32] and w of float32[32, 32]: small, and large enough to be quantized.
fn model() -> Vec<u8> {
    let weights: Vec<u8> = (0..1024).flat_map(|i| (i as f32 * 0.37).sin().to_le_bytes()).collect();
    let node = [text(1, "x"), text(1, "w"), text(2, "y"), text(4, "MatMul")].concat();
    let initializer = [number(1, 32), number(1, 32), number(2, 1), text(8, "w"), bytes(9, &weights)].concat();
    let value = |name: &str| {
        let dims = [bytes(1, &number(1, 1)), bytes(1, &number(1, 32))].concat();
        let tensor = [number(1, 1), bytes(2, &dims)].concat();
        [text(1, name), bytes(2, &bytes(1, &tensor))].concat()
    };
    let graph =
        [bytes(1, &node), text(2, "graph"), bytes(5, &initializer), bytes(11, &value("x")), bytes(12, &value("y"))];
    [number(1, 8), bytes(7, &graph.concat()), bytes(8, &number(2, 17))].concat()
}

/// Returns a protobuf field with a number.
fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// Returns a protobuf field with bytes, a string or a message.
fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn text(field: u64, value: &str) -> Vec<u8> {
    bytes(field, value.as_bytes())
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
    out
}
