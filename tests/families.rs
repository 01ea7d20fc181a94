//! Every technique on every supported family of checkpoints, through the command: docs/support.md is the result.
//! `OPTIMIZE_SUPPORT_TABLE=write` rewrites it.

mod support;

use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::words::{Join, numbered};
use support::{deps, scratch};

/// Columns of the table. `{model}`, `{text}`, `{student}`, `{out}` and `{use}` are replaced.
const TECHNIQUES: &[(&str, &str)] = &[
    ("int8", "quantize --model {model} --type dynamic --min-elements 1 --output {out}"),
    ("8 bits", "quantize --model {model} --type weight-only --bits 8 --min-elements 1 --output {out}"),
    ("4 bits", "quantize --model {model} --type weight-only --bits 4 --min-elements 1 --output {out}"),
    (
        "GPTQ",
        "quantize --model {model} --type weight-only --bits 4 --algorithm gptq --calibration {text} --min-elements 1 \
         --output {out}",
    ),
    ("static", "quantize --model {model} --type static --calibration {text} --min-elements 1 --output {out}"),
    ("magnitude", "prune --model {model} --method magnitude --sparsity 0.3 --min-elements 1 --output {out}"),
    (
        "Wanda",
        "prune --model {model} --method wanda --sparsity 0.3 --calibration {text} --min-elements 1 --output {out}",
    ),
    ("structured", "prune --model {model} --method structured --sparsity 0.3 --output {out}"),
    ("merged", "ensemble --models {model} {model} --merge linear --output {out}"),
    ("fused", "ensemble --models {model} {model} --fuse --output {out}.onnx"),
    ("distilled", "distill --teacher {model} --student {student} --data {text} --max-steps 1 --output {out}"),
    ("package", "compile --model {model} --dynamic --output {out}"),
    (
        "TensorRT graph",
        "tensorrt --model {model} --precision fp16 --graph-only --batch-size 1 --sequence-length 8 --output {out}.onnx",
    ),
    ("used by", "{use} --model {model}"),
];

/// Commands that use a model of a class.
const USES: &[(&str, &str)] = &[
    ("BertLMHeadModel", "run --text w1"),
    ("ForCausalLM", "generate --prompt w1 --max-length 6"),
    ("LMHeadModel", "generate --prompt w1 --max-length 6"),
    ("ForSequenceClassification", "classify --text w1"),
    ("ForTokenClassification", "tag --text w1"),
    ("For", "run --text w1"),
    ("", "embed --text w1"),
];

/// Class and column of the cell that is not tried: the checkpoint has one layer and no `logits`, so that the loss of
/// distillation has no part to compare.
const NOT_TRIED: (&str, &str) = ("DistilBertForQuestionAnswering", "distilled");

/// Returns the folders of the fixtures, one for each class of a family: first decoders, then encoders.
fn folders() -> Vec<PathBuf> {
    let mut all = Vec::new();
    for kind in ["checkpoints", "encoders"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(kind);
        let mut found: Vec<PathBuf> = std::fs::read_dir(root).unwrap().flatten().map(|entry| entry.path()).collect();
        found.retain(|path| path.join("config.json").exists());
        found.sort();
        all.extend(found);
    }
    all
}

/// Copies a checkpoint into a folder, with a tokenizer that gives the word `wN` the number N.
fn copy(from: &Path, to: &Path, config: &Value) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let count = config["vocab_size"].as_u64().unwrap();
    std::fs::write(to.join("tokenizer.json"), numbered(count as usize, Join::Spaces)).unwrap();
}

/// Returns the name of a class, with what distinguishes its variants among the fixtures.
fn title(folder: &Path, class: &str) -> String {
    let name = folder.file_name().unwrap().to_str().unwrap();
    match ["untied", "tied", "yarn", "tanh", "causal"].iter().find(|variant| name.contains(*variant)) {
        Some(variant) => format!("`{class}` ({variant})"),
        None => format!("`{class}`"),
    }
}

/// Runs the command, and returns its error.
fn run(arguments: &[String]) -> Result<(), String> {
    let runtime =
        std::env::var_os("ORT_DYLIB_PATH").map_or_else(|| deps("onnxruntime/libonnxruntime.so.1"), PathBuf::from);
    let mut command = Command::new(env!("CARGO_BIN_EXE_optimize"));
    let output = command.args(arguments).arg("--quiet").env("ORT_DYLIB_PATH", runtime).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(()),
        Some(1) => Err(errors.lines().last().unwrap_or_default().to_owned()),
        _ => panic!("{arguments:?}: {}: {errors}", output.status),
    }
}

#[test]
fn every_technique_is_applied_to_every_family() {
    let root = scratch("families");
    let text: String = (0..24)
        .map(|i| (0..12).map(|j| format!("w{} ", 1 + (7 * i + 5 * j) % 30)).collect::<String>() + "\n")
        .collect();
    let data = root.join("text.txt");
    std::fs::write(&data, text).unwrap();
    let heading: String = TECHNIQUES.iter().map(|(name, _)| format!(" {name} |")).collect();
    let mut table = format!("| class |{heading}\n|---|{}\n", "---|".repeat(TECHNIQUES.len()));
    let mut failures = Vec::new();
    for folder in folders() {
        let config: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
        let class = config["architectures"][0].as_str().unwrap_or("BertModel").to_owned();
        let model = root.join(folder.file_name().unwrap());
        copy(&folder, &model, &config);
        let layers = ["num_hidden_layers", "n_layers", "n_layer"].iter().find_map(|key| config[*key].as_u64()).unwrap();
        // A model of one layer is its own student. It has no hidden states to compare.
        let itself = format!("{} --hidden-weight 0", model.display());
        let student = if layers > 1 { "layers:1".to_owned() } else { itself };
        let usage = USES.iter().find(|(end, _)| class.contains(end)).unwrap().1;
        let mut cells = String::new();
        for (index, (name, line)) in TECHNIQUES.iter().enumerate() {
            if (class.as_str(), *name) == NOT_TRIED {
                cells += " |";
                continue;
            }
            let out = root.join(format!("out-{index}"));
            let arguments: Vec<String> = line
                .replace("{use}", usage)
                .replace("{student}", &student)
                .split_whitespace()
                .map(|word| match word {
                    "{model}" => model.display().to_string(),
                    "{text}" => data.display().to_string(),
                    _ => word.replace("{out}", out.to_str().unwrap()),
                })
                .collect();
            let done = run(&arguments);
            let cell = match &done {
                Ok(()) if *name == "used by" => format!("`{}`", arguments[0]),
                Ok(()) => "yes".to_owned(),
                Err(_) => "no".to_owned(),
            };
            if let Err(message) = done {
                failures.push(format!("{class}: {}: {message}", arguments.join(" ")));
            }
            write!(cells, " {cell} |").unwrap();
            let _ = std::fs::remove_dir_all(&out).or_else(|_| std::fs::remove_file(&out));
        }
        writeln!(table, "| {} |{cells}", title(&folder, &class)).unwrap();
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    compare(&table);
}

/// Compares the table with the one of docs/support.md, or writes it there.
fn compare(table: &str) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/support.md");
    let before = std::fs::read_to_string(&page).unwrap();
    let (begin, end) = ("<!-- table: begin -->\n", "<!-- table: end -->");
    let (start, stop) = (before.find(begin).unwrap() + begin.len(), before.find(end).unwrap());
    let after = format!("{}\n{table}\n{}", &before[..start], &before[stop..]);
    if std::env::var("OPTIMIZE_SUPPORT_TABLE").is_ok_and(|value| value == "write") {
        std::fs::write(&page, after).unwrap();
    } else {
        assert!(after == before, "docs/support.md is not what was measured: OPTIMIZE_SUPPORT_TABLE=write rewrites it");
    }
}
