//! The command as a person or a script meets it: exit codes, what goes to stdout, what files appear.

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::{deps, scratch};

fn optimize(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_optimize"));
    if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        command.env("ORT_DYLIB_PATH", deps("onnxruntime/libonnxruntime.so.1"));
    }
    command.args(arguments).output().unwrap()
}

fn model() -> PathBuf {
    deps("models/paraphrase-MiniLM-L3-v2/model.onnx")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn quantize_to_a_folder_carries_the_tokenizer_and_reports() {
    let folder = scratch("cli-folder");
    let out = folder.join("small");
    let report = json(&optimize(&[
        "quantize",
        "--model",
        text(&model()),
        "--output",
        text(&out),
        "--json",
        "--benchmark",
        "--benchmark-runs",
        "5",
        "--threads",
        "1",
    ]));
    assert_eq!(report["schema_version"], 1);
    assert_eq!(report["operation"], "quantize");
    assert_eq!(report["output"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(report["output"]["bytes"], std::fs::metadata(out.join("model.onnx")).unwrap().len());
    assert!(report["output"]["bytes"].as_f64().unwrap() < 0.3 * report["input"]["bytes"].as_f64().unwrap());
    let nodes = report["nodes"].as_array().unwrap();
    assert!(nodes.iter().filter(|n| n["action"] == "quantized").count() >= 20);
    assert!(nodes.iter().all(|n| !n["reason"].as_str().unwrap().is_empty()));
    assert!(report["quality"]["cosine"].as_f64().unwrap() > 0.99);
    assert!(report["benchmark"]["speedup"]["median"].as_f64().unwrap() > 0.0);
    assert_eq!(report["benchmark"]["clock"], "thread_cpu");
    let listed = names(&out);
    assert!(listed.contains(&"tokenizer.json".to_owned()), "{listed:?}");
    assert!(listed.iter().all(|name| !name.starts_with('.')), "{listed:?}");

    // The result is a model like any other.
    let inspected = json(&optimize(&["inspect", "--model", text(&out), "--json"]));
    assert!(inspected["weights"]["int8"]["tensors"].as_u64().unwrap() >= 20);
    let run = json(&optimize(&["run", "--model", text(&out), "--text", "How are you?", "--text", "Fine.", "--json"]));
    assert!(run["outputs"].as_object().unwrap().values().any(|o| o["shape"] == serde_json::json!([2, 384])));
}

#[test]
fn quantize_to_a_file_writes_that_file_alone() {
    let folder = scratch("cli-file");
    let out = folder.join("small.onnx");
    let done = optimize(&["quantize", "--model", text(&model()), "--output", text(&out)]);
    assert!(done.status.success());
    assert_eq!(names(&folder), ["small.onnx"]);
    let table = String::from_utf8(done.stdout).unwrap();
    assert!(table.contains("nodes quantized") && table.contains("size"), "{table}");
    let quiet = optimize(&["quantize", "--model", text(&model()), "--output", text(&out), "-q"]);
    assert!(quiet.status.success() && quiet.stdout.is_empty() && quiet.stderr.is_empty());
}

#[test]
fn static_quantization_takes_a_text_or_a_file_of_tensors() {
    let folder = scratch("cli-static");
    let (out, data) = (folder.join("static.onnx"), folder.join("data.safetensors"));
    let static_with = |file: &Path| {
        optimize(&[
            "quantize",
            "--model",
            text(&model()),
            "--output",
            text(&out),
            "--type",
            "static",
            "--calibration",
            text(file),
            "--json",
        ])
    };
    let lines = folder.join("lines.txt");
    std::fs::write(&lines, "A man is eating food.\nTwo dogs run through the wet grass.\n").unwrap();
    let report = json(&static_with(&lines));
    assert_eq!(report["summary"]["calibration_batches"], 1);
    // Two inputs of int64[2, 4], as safetensors has them.
    let names = ["attention_mask", "input_ids"];
    let entry = |(i, name): (usize, &&str)| {
        format!("\"{name}\":{{\"dtype\":\"I64\",\"shape\":[2,4],\"data_offsets\":[{},{}]}}", 64 * i, 64 * i + 64)
    };
    let header = format!("{{{}}}", names.iter().enumerate().map(entry).collect::<Vec<_>>().join(","));
    let values = [[1i64; 8], [101, 2003, 2158, 102, 101, 2048, 6077, 102]];
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(values.iter().flatten().flat_map(|v| v.to_le_bytes()));
    std::fs::write(&data, file).unwrap();
    assert!(json(&static_with(&data))["summary"]["nodes_quantized"].as_u64().unwrap() >= 18);
    let none = optimize(&["quantize", "--model", text(&model()), "--output", text(&out), "--type", "static"]);
    assert!(!none.status.success() && String::from_utf8_lossy(&none.stderr).contains("calibration data"));
}

#[test]
fn failures_have_their_exit_codes_and_say_what_and_where_on_stderr() {
    let folder = scratch("cli-fail");
    let damaged = folder.join("damaged.onnx");
    std::fs::write(&damaged, b"not a model").unwrap();
    let out = folder.join("out.onnx");
    let (model, out, damaged) = (model(), text(&out).to_owned(), text(&damaged).to_owned());
    let model = text(&model);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["inspect", "--model", "/nowhere/at/all.onnx"], 1, "/nowhere/at/all.onnx"),
        (&["inspect", "--model", &damaged], 1, &damaged),
        (&["quantize", "--model", model], 2, "--output"),
        (&["quantize", "--model", model, "--output", &out, "--bits", "3"], 1, "bits is 3"),
        (&["quantize", "--model", model, "--output", &out, "--include", "*nothing*"], 2, "*nothing*"),
        (&["quantize", "--model", model, "--output", &out, "--exclude", "*"], 1, "excluded"),
        (&["quantize", "--model", model, "--output", "/nowhere/at/all.onnx"], 1, "/nowhere/at"),
        (&["run", "--model", model, "--runtime-library", &damaged], 1, &damaged),
        (&["run", "--model", model, "--values", "nothing:1"], 1, "nothing"),
        (&["benchmark", "--model", model, "--against", model, "--runs", "3", "--min-speedup", "1000"], 3, "1000"),
        (&["nonsense"], 2, "nonsense"),
    ];
    for (arguments, code, phrase) in cases {
        let done = optimize(arguments);
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(*code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(phrase), "{arguments:?}: {stderr}");
    }
    assert_eq!(names(&folder), ["damaged.onnx"], "a failure left something");
}

#[test]
fn run_takes_what_the_model_takes_and_says_what_it_leaves_out() {
    let folder = scratch("cli-run-cut");
    let bert = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoders/bert-classify");
    let words: serde_json::Map<String, Value> = (0..60).map(|id| (format!("w{id}"), id.into())).collect();
    let tokenizer = serde_json::json!({ "version": "1.0", "added_tokens": [], "normalizer": null, "decoder": null,
        "post_processor": null, "pre_tokenizer": { "type": "Whitespace" },
        "model": { "type": "WordLevel", "vocab": words, "unk_token": "w0" } });
    let file = folder.join("tokenizer.json");
    std::fs::write(&file, tokenizer.to_string()).unwrap();
    let run = |model: &Path, words: usize, more: &[&str]| {
        let prompt = "w1 ".repeat(words);
        let done = optimize(&[&["run", "--model", text(model), "--text", "w2", "--text", &prompt], more].concat());
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{stderr}");
        stderr
    };
    // It has 20 positions.
    let tokenizer = ["--tokenizer", text(&file)];
    assert_eq!(run(&bert, 20, &tokenizer), "");
    let warning = run(&bert, 33, &tokenizer);
    assert!(warning.contains("text 2 has 33 tokens, of which 20 are used"), "{warning}");
    assert_eq!(run(&bert, 33, &[&tokenizer[..], &["--sequence-length", "9"]].concat()), "");
    assert_eq!(run(&bert, 33, &[&tokenizer[..], &["--quiet"]].concat()), "");
    // Its tokenizer says 512; each of these words is two tokens, and two more begin and end a text.
    let warning = run(&model(), 300, &["--only", "461"]);
    assert!(warning.contains("text 2 has 602 tokens, of which 512 are used"), "{warning}");
}
