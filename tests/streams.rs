//! The streams of the command: texts on standard input and in pipes, and progress on standard error.

mod support;

use optimize::call::Stage;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use support::{Scratch, deps, scratch};

const TEXT: &str = "A man is eating food.\nTwo dogs run through the wet grass.\nThe sun is over the hill.\n\
                    She sells sea shells by the sea shore, and he buys them.\nA man and two dogs are in the sun.\n\
                    The grass on the hill is wet, and the food by the shore is in the shells that she sells.\n\
                    He buys two shells and a hill of wet grass.\nThrough the sea runs the man, over the sun.\n";

/// A decoder with a tokenizer, an encoder with classes, and a text.
struct Files {
    folder: Scratch,
    decoder: String,
    embedder: String,
    classifier: String,
    tagger: String,
    tokenizer: String,
    text: String,
}

impl Files {
    fn new(name: &str) -> Files {
        let folder = scratch(name);
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        let decoder = folder.join("decoder");
        std::fs::create_dir(&decoder).unwrap();
        let parts = [("checkpoints/llama", "config.json"), ("checkpoints/llama", "model.safetensors")];
        for (from, file) in parts.into_iter().chain([("sentences/model", "tokenizer.json")]) {
            std::fs::copy(fixtures.join(from).join(file), decoder.join(file)).unwrap();
        }
        std::fs::write(folder.join("text.txt"), TEXT).unwrap();
        Files {
            decoder: path(decoder),
            embedder: path(fixtures.join("sentences/model")),
            classifier: path(fixtures.join("encoders/bert-classify")),
            tagger: path(fixtures.join("encoders/bert-tags")),
            tokenizer: path(fixtures.join("sentences/model/tokenizer.json")),
            text: path(folder.join("text.txt")),
            folder,
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }
}

fn command(arguments: &[&str]) -> Command {
    let runtime = std::env::var_os("ORT_DYLIB_PATH");
    let runtime = runtime.map_or_else(|| deps("onnxruntime/libonnxruntime.so.1"), PathBuf::from);
    let mut command = Command::new(env!("CARGO_BIN_EXE_optimize"));
    command.env("ORT_DYLIB_PATH", runtime).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the command with `text` on standard input.
fn fed(arguments: &[&str], text: &str) -> Output {
    let mut child = command(arguments).spawn().unwrap();
    // A command that fails early does not read its input.
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    child.wait_with_output().unwrap()
}

/// Returns what a command prints.
fn printed(arguments: &[&str], text: &str) -> String {
    let output = fed(arguments, text);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Checks that `FILE` among the arguments can be a file, `-` or a pipe, with the same result.
fn same_from_a_stream(file: &str, text: &str, arguments: &[&str]) {
    let with = |file: &str| -> Vec<String> { arguments.iter().map(|a| a.replace("FILE", file)).collect() };
    let run = |file: &str| {
        let arguments = with(file);
        printed(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), text)
    };
    let wanted = run(file);
    assert!(!wanted.is_empty(), "{arguments:?} prints nothing");
    assert_eq!(run("-"), wanted, "{arguments:?}");
    assert_eq!(run("/dev/stdin"), wanted, "{arguments:?}");
}

#[test]
fn commands_that_print_results_read_texts_from_streams() {
    let files = Files::new("streams-print");
    let Files { decoder, embedder, classifier, tagger, tokenizer, .. } = &files;
    let same = |arguments: &[&str]| same_from_a_stream(&files.text, TEXT, arguments);
    // The context of the decoder has 64 tokens.
    let (prompt, few) = ("a man is eating food", files.path("prompt.txt"));
    std::fs::write(&few, prompt).unwrap();
    let prompted = |arguments: &[&str]| same_from_a_stream(&few, prompt, arguments);
    same(&["embed", "-m", embedder, "--data", "FILE"]);
    same(&["classify", "-m", classifier, "--tokenizer", tokenizer, "--data", "FILE"]);
    same(&["tag", "-m", tagger, "--data", "FILE"]);
    prompted(&["generate", "-m", decoder, "--prompt-file", "FILE", "--max-new-tokens", "4"]);
    prompted(&["ensemble", "--models", decoder, decoder, "--prompt-file", "FILE", "--max-new-tokens", "4"]);
    same(&["ensemble", "--models", decoder, decoder, "--method", "weighted", "--fit", "FILE"]);
    let quality = |file: &str| {
        let report = printed(&["evaluate", "-m", decoder, "--data", file, "--json"], TEXT);
        serde_json::from_str::<Value>(&report).unwrap()["quality"]["perplexity"].clone()
    };
    assert!(quality("-").is_f64() || quality("-").is_object());
    assert_eq!(quality("-"), quality(&files.text));
    let report = printed(&["benchmark", "-m", embedder, "--against", embedder, "--text-file", "-", "--json"], TEXT);
    assert_eq!(serde_json::from_str::<Value>(&report).unwrap()["quality"]["samples"], 8);
}

#[test]
fn techniques_read_texts_from_streams() {
    let files = Files::new("streams-techniques");
    let (decoder, out) = (files.decoder.as_str(), files.path("out.onnx"));
    let bytes = |arguments: &[&str], file: &str, option: &str| {
        let more = ["-m", decoder, "-o", &out, option, file, "--json", "--threads", "1"];
        let report: Value = serde_json::from_str(&printed(&[arguments, &more].concat(), TEXT)).unwrap();
        // In the recipe, data from a stream, which a later call cannot read again, is `true`.
        let noted = &report["recipe"][0]["calibration"];
        assert_eq!(*noted, if file == files.text { Value::from(file) } else { true.into() }, "{arguments:?}");
        std::fs::read(&out).unwrap()
    };
    for arguments in [
        &["quantize", "--type", "static", "--min-elements", "16", "--benchmark", "--benchmark-runs", "3"][..],
        &["prune", "--method", "wanda", "--sparsity", "0.5", "--min-elements", "16", "--no-benchmark"],
    ] {
        let wanted = bytes(arguments, &files.text, "--calibration");
        assert!(bytes(arguments, "-", "--calibration") == wanted, "{arguments:?} with -");
        assert!(bytes(arguments, "/dev/stdin", "--calibration") == wanted, "{arguments:?} with a pipe");
    }

    let student = |file: &str| {
        let student = files.path("student");
        let _ = std::fs::remove_dir_all(&student);
        let train = ["distill", "--teacher", decoder, "--student", "layers:1", "--data", file, "-o", &student];
        let few = ["--max-steps", "2", "--sequence-length", "8", "--threads", "1", "--json"];
        let report: Value = serde_json::from_str(&printed(&[&train[..], &few].concat(), TEXT)).unwrap();
        (std::fs::read(files.folder.join("student/model.onnx")).unwrap(), report["recipe"][0]["data"].clone())
    };
    let (wanted, (trained, noted)) = (student(&files.text).0, student("-"));
    assert!(trained == wanted && noted == true);

    let recipe = r#"[{"operation": "quantize", "type": "static", "min_elements": 16, "calibration": true}]"#;
    std::fs::write(files.folder.join("recipe.json"), recipe).unwrap();
    let (recipe_file, applied) = (files.path("recipe.json"), files.path("applied.onnx"));
    let apply = |recipe_file: &str, data: &str, text| {
        fed(&["apply", "-m", decoder, "-r", recipe_file, "--data", data, "-o", &applied, "--no-benchmark"], text)
    };
    assert!(apply(&recipe_file, "-", TEXT).status.success());
    let result = std::fs::read(&applied).unwrap();
    assert!(apply("-", &files.text, recipe).status.success());
    assert!(std::fs::read(&applied).unwrap() == result);
    let twice = apply("-", "-", recipe);
    assert_eq!(twice.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&twice.stderr).contains("only once"), "{twice:?}");
}

#[test]
fn int8_for_tensorrt_is_calibrated_on_a_stream() {
    let files = Files::new("streams-tensorrt");
    let model = deps("models/paraphrase-MiniLM-L3-v2");
    let graph = |file: &str| {
        let out = files.path("graph.onnx");
        let arguments = ["tensorrt", "-m", model.to_str().unwrap(), "--precision", "int8", "--graph-only", "-o", &out];
        printed(&[&arguments[..], &["--calibration", file, "--max-error", "9", "--threads", "1"]].concat(), TEXT);
        std::fs::read(&out).unwrap()
    };
    let wanted = graph(&files.text);
    assert!(graph("-") == wanted && graph("/dev/stdin") == wanted);
}

#[test]
fn streams_of_json_lines_of_blank_lines_and_of_bytes_that_are_no_text() {
    let files = Files::new("streams-json");
    let lines = "{\"text\": \"a man\"}\n{\"text\": \"two dogs\"}\n";
    let embed = |text: &str| fed(&["embed", "-m", &files.embedder, "--data", "-"], text);
    assert_eq!(embed(lines).stdout, embed("a man\ntwo dogs\n").stdout);
    // Indices are those of lines, of which blank ones have no result, and a byte order mark is not text.
    let indices = |arguments: &[&str], text: &str| -> Vec<u64> {
        let output = String::from_utf8(fed(arguments, text).stdout).unwrap();
        let index = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["index"].as_u64().unwrap();
        output.lines().map(index).collect()
    };
    assert_eq!(embed(&format!("\u{feff}{lines}")).stdout, embed(lines).stdout);
    let apart = "\na man\n\n \ntwo dogs\n\n";
    assert_eq!(indices(&["embed", "-m", &files.embedder, "--data", "-"], apart), [1, 4]);
    assert_eq!(indices(&["tag", "-m", &files.tagger, "--data", "-", "--json"], apart), [1, 4]);
    let classify = ["classify", "-m", &files.classifier, "--tokenizer", &files.tokenizer, "--data", "-", "--json"];
    assert_eq!(indices(&classify, apart), [1, 4]);
    let mut child = command(&["embed", "-m", &files.embedder, "--data", "-"]).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"\xff\xfe").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("standard input") && said.contains("utf-8"), "{said}");
    // A folder cannot be read as a stream.
    let folder = printed_error(&["embed", "-m", &files.embedder, "--data", files.folder.to_str().unwrap()]);
    assert!(folder.contains("not a regular file"), "{folder}");
}

fn printed_error(arguments: &[&str]) -> String {
    let output = fed(arguments, "");
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

/// The stages of a command with `--progress json`: the unit, and the last line of each.
type Stages = BTreeMap<String, Value>;

/// Runs a command with `--progress json --quiet`, checks each line, and adds its stages to `seen`.
fn watch(arguments: &[&str], seen: &mut BTreeSet<(String, String)>) -> Stages {
    let output = fed(&[arguments, &["--progress", "json", "--quiet"]].concat(), TEXT);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {said}");
    let mut last = Stages::new();
    for line in said.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{arguments:?}: {line}: {e}"));
        let (stage, unit) = (value["stage"].as_str().unwrap().to_owned(), value["unit"].as_str().unwrap().to_owned());
        let known = Stage::ALL.iter().any(|known| known.name == stage && known.unit == unit);
        assert!(known, "{line}");
        let done = value["done"].as_u64().unwrap();
        let left = value["seconds_left"].as_f64();
        assert!(left.is_none_or(|left| left >= 0.0), "{line}");
        if let Some(total) = value.get("total") {
            assert!(done <= total.as_u64().unwrap(), "{arguments:?}: {line}");
        }
        seen.insert((stage.clone(), unit));
        last.insert(stage, value);
    }
    for (stage, line) in &last {
        // Generation can end at a token, and training at its limit.
        let ends = !["generate", "prompt"].contains(&stage.as_str());
        let complete = line.get("total").is_none_or(|total| *total == line["done"]);
        assert!(!ends || complete, "{arguments:?}: the last line of {stage} is {line}");
    }
    last
}

#[test]
fn progress_is_lines_of_json_in_the_units_of_the_stages() {
    let files = Files::new("streams-progress");
    let Files { decoder, embedder, classifier, tagger, tokenizer, text, .. } = &files;
    let (out, student) = (files.path("out.onnx"), files.path("student"));
    let mut seen = BTreeSet::new();
    let quantize = ["quantize", "-m", decoder, "-o", &out, "--min-elements", "16", "--threads", "1"];
    let with = |more: &[&'static str]| [&quantize[..], more].concat();
    let stages = watch(&with(&["--benchmark", "--benchmark-runs", "3"]), &mut seen);
    for stage in ["load", "quantize", "hash", "save", "benchmark"] {
        assert!(stages.contains_key(stage), "no {stage} in {stages:?}");
    }
    assert_eq!(stages["save"]["done"], std::fs::metadata(&out).unwrap().len());
    let limits = ["--min-elements", "16", "--max-quality-loss", "9", "--never-slower", "--no-benchmark"];
    watch(&[&["quantize", "-m", classifier, "-o", &out], &limits[..]].concat(), &mut seen);
    let fixed = ["--type", "static", "--calibration", text, "--calibration-method", "entropy", "--no-benchmark"];
    let fixed = [&quantize[..], &fixed, &["--max-quality-loss", "9", "--smooth-quant", "0.5"]].concat();
    watch(&fixed, &mut seen);
    let awq = ["--type", "weight-only", "--algorithm", "awq", "--calibration", text, "--no-benchmark"];
    watch(&[&quantize[..], &awq].concat(), &mut seen);

    let prune = ["prune", "-m", decoder, "-o", &out, "--calibration", text, "--no-benchmark", "--threads", "1"];
    watch(&[&prune[..], &["--method", "wanda", "--sparsity", "0.5", "--min-elements", "16"]].concat(), &mut seen);
    let narrow = ["--method", "structured", "--sparsity", "0.3", "--importance", "activation", "--reconstruct"];
    watch(&[&prune[..], &narrow, &["--drop-layers", "1"]].concat(), &mut seen);

    let train = ["distill", "--teacher", decoder, "--student", "layers:1", "--data", text, "-o", &student];
    let few = ["--max-steps", "3", "--sequence-length", "8", "--threads", "1"];
    let stages = watch(&[&train[..], &few].concat(), &mut seen);
    assert!(stages["distill"]["loss"].is_f64() || stages["distill"]["validation_loss"].is_f64(), "{stages:?}");

    let ensemble = ["ensemble", "--models", decoder, decoder];
    watch(&[&ensemble[..], &["--method", "weighted", "--fit", text]].concat(), &mut seen);
    watch(&[&ensemble[..], &["--fuse", "-o", &out]].concat(), &mut seen);
    watch(&[&ensemble[..], &["--merge", "linear", "-o", &out]].concat(), &mut seen);

    watch(&["evaluate", "-m", decoder, "--data", text], &mut seen);
    watch(&["evaluate", "-m", embedder, "--data", text, "--task", "embedding", "--against", embedder], &mut seen);
    watch(&["embed", "-m", embedder, "--data", text], &mut seen);
    watch(&["classify", "-m", classifier, "--tokenizer", tokenizer, "--data", text], &mut seen);
    watch(&["tag", "-m", tagger, "--data", text], &mut seen);
    watch(&["generate", "-m", decoder, "--prompt", "a man", "--max-new-tokens", "4"], &mut seen);
    let (package, table) = (files.path("package"), files.path("table"));
    watch(&["compile", "-m", embedder, "-o", &package], &mut seen);
    watch(&["inspect", "-m", &package, "--verify"], &mut seen);
    let half = ["tensorrt", "-m", decoder, "--precision", "fp16", "--graph-only", "-o", &out, "--max-error", "9"];
    watch(&half, &mut seen);
    let rows = ["--rows", "compile", "--runs", "1", "--max-seconds", "0.1"];
    let stages = watch(&[&["table", "--models", embedder, "-o", &table], &rows[..]].concat(), &mut seen);
    assert!(stages["table"]["unit"] == "thousandths", "{stages:?}");

    let rest: Vec<&Stage> =
        Stage::ALL.iter().filter(|s| !seen.contains(&(s.name.to_owned(), s.unit.to_owned()))).collect();
    // An engine can only be built where a TensorRT library is.
    assert!(rest.iter().all(|stage| **stage == Stage::BUILD), "not seen: {rest:?}");
}

#[test]
fn progress_has_the_requested_form() {
    let files = Files::new("streams-forms");
    let embed = |more: &[&str]| {
        let output = fed(&[&["embed", "-m", &files.embedder, "--data", &files.text], more].concat(), "");
        String::from_utf8(output.stderr).unwrap()
    };
    // Standard error is not a terminal here.
    for none in [&[][..], &["--progress", "auto"], &["--progress", "none"], &["--quiet"]] {
        assert_eq!(embed(none), "", "{none:?}");
    }
    assert!(embed(&["--progress", "json"]).starts_with("{\"stage\":\"load\",\"done\":0,\"unit\":\"bytes\"}\n"));
    assert!(embed(&["--progress", "bar"]).contains("[possible values: auto, json, none]"));
}
