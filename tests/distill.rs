//! Tests of the command `distill`: a killed run can be continued, and invalid options are rejected before anything is
//! overwritten.

mod common;
#[path = "support/words.rs"]
mod words;

use common::{Folder, Random};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use words::{Join, numbered};

fn deps(name: &str) -> PathBuf {
    let folder = std::env::var_os("OPTIMIZE_TEST_DEPS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/deps"), PathBuf::from);
    folder.join(name)
}

fn text(folder: &Folder) -> PathBuf {
    let mut random = Random(5);
    let words = ["river", "machine", "winter", "captain", "letter", "garden", "slowly", "opened", "seven", "against"];
    let line = |random: &mut Random| {
        let count = 4 + random.below(12);
        (0..count).map(|_| words[random.below(words.len())]).collect::<Vec<_>>().join(" ")
    };
    let path = folder.join("text.txt");
    std::fs::write(&path, (0..160).map(|_| line(&mut random) + ".\n").collect::<String>()).unwrap();
    path
}

fn command(folder: &Folder, data: &Path, output: &str, more: &[&str]) -> Command {
    let mut command = command_of(&deps("models/paraphrase-MiniLM-L3-v2"), "layers:1", data, &folder.join(output));
    command.args(["--sequence-length", "24", "--quiet"]).args(more);
    command
}

fn command_of(teacher: &Path, student: &str, data: &Path, output: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_optimize"));
    command.args(["distill", "--student", student, "--threads", "1"]);
    command.arg("--teacher").arg(teacher).arg("--data").arg(data).arg("--output").arg(output);
    if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        command.env("ORT_DYLIB_PATH", deps("onnxruntime/libonnxruntime.so.1"));
    }
    command
}

fn run(folder: &Folder, data: &Path, output: &str, more: &[&str]) -> Output {
    command(folder, data, output, more).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_is_killed_goes_on_to_the_same_end() {
    let folder = Folder::new("distill-killed");
    let data = text(&folder);
    let steps = ["--max-steps", "24", "--checkpoint-every", "1", "--evaluate-every", "7", "--learning-rate", "3e-4"];
    let whole = run(&folder, &data, "whole.onnx", &steps);
    assert!(whole.status.success(), "{}", said(&whole));
    let checkpoint = folder.join("parts.onnx.checkpoint");
    let (mut random, mut kills) = (Random(u64::from(std::process::id())), 0);
    let resumed: Vec<&str> = steps.iter().copied().chain(["--resume"]).collect();
    // The run is killed a few times at random after its first checkpoint, and then continues to its end.
    while kills < 3 {
        let mut child = command(&folder, &data, "parts.onnx", &resumed).spawn().unwrap();
        let begun = Instant::now();
        while !checkpoint.exists() && child.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(120)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(random.next() % 400));
        let ended = child.try_wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        if ended.is_some() {
            break;
        }
        kills += 1;
    }
    if !folder.join("parts.onnx").exists() {
        let last = run(&folder, &data, "parts.onnx", &resumed);
        assert!(last.status.success(), "{}", said(&last));
    }
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    assert!(read("whole.onnx") == read("parts.onnx"), "a resumed run differs after {kills} kills");
    assert!(!checkpoint.exists(), "the checkpoint of a finished run is left behind");
}

#[test]
fn a_checkpoint_is_not_overwritten_unasked_and_a_full_disk_leaves_the_last_one() {
    let folder = Folder::new("distill-checkpoint");
    let data = text(&folder);
    let checkpoint = folder.join("student.onnx.checkpoint");
    std::fs::write(&checkpoint, "not a checkpoint").unwrap();
    let e = run(&folder, &data, "student.onnx", &["--max-steps", "1"]);
    assert!(e.status.code() == Some(2) && said(&e).contains("unfinished run"), "{}", said(&e));
    let e = run(&folder, &data, "student.onnx", &["--max-steps", "1", "--resume"]);
    assert!(!e.status.success() && said(&e).contains("not a distillation checkpoint"), "{}", said(&e));
    assert_eq!(std::fs::read(&checkpoint).unwrap(), b"not a checkpoint");
    std::fs::remove_file(&checkpoint).unwrap();
    // Files are limited to 1 MB: as on a full disk, the first checkpoint cannot be written.
    let limited = command(&folder, &data, "student.onnx", &["--max-steps", "2", "--checkpoint-every", "1"]);
    let mut shell = Command::new("bash");
    shell.args(["-c", "ulimit -f 1000; trap '' XFSZ; exec \"$0\" \"$@\""]).arg(limited.get_program());
    shell.args(limited.get_args()).envs(limited.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let e = shell.output().unwrap();
    assert!(!e.status.success() && said(&e).contains("student.onnx.checkpoint"), "{}", said(&e));
    assert_eq!(folder.names(), ["text.txt"], "something half-written is left");
}

#[test]
fn texts_that_are_none_are_refused_with_the_reason() {
    let folder = Folder::new("distill-texts");
    let cases: [(&str, &[u8], &str); 6] = [
        ("empty.txt", b"", "the text is empty"),
        ("binary.txt", b"\x7fELF\x02\x01\x01\x00\x00\x00", "not text"),
        ("latin.txt", b"caf\xe9 au lait\n", "utf-8"),
        ("line.txt", b"One line and no more.\n", "at least 20"),
        ("lines.jsonl", b"{\"text\": \"fine\"}\n{\"texts\": 1}\n", "line 2"),
        ("lines.JSONL", b"fine\n", "line 1: the content is not JSON"),
    ];
    for (name, content, reason) in cases {
        let data = folder.join(name);
        std::fs::write(&data, content).unwrap();
        let e = run(&folder, &data, "student.onnx", &[]);
        assert!(!e.status.success() && said(&e).contains(reason), "{name}: {}", said(&e));
    }
    let data = text(&folder);
    for (more, reason) in [
        (["--epochs", "0"], "epochs"),
        (["--learning-rate", "nan"], "learning_rate"),
        (["--temperature", "0"], "temperature"),
        (["--validation-ratio", "0.9"], "validation_ratio"),
        (["--labels-weight", "1"], "labels_weight"),
        (["--freeze", "nothing"], "matches no weight"),
    ] {
        let e = run(&folder, &data, "student.onnx", &more);
        assert!(!e.status.success() && said(&e).contains(reason), "{more:?}: {}", said(&e));
    }
    assert!(!folder.join("student.onnx").exists());
}

#[test]
fn frozen_weights_stay_and_others_learn() {
    let folder = Folder::new("distill-frozen");
    let data = text(&folder);
    let steps = ["--max-steps", "3", "--learning-rate", "1e-3", "--freeze", "*embeddings*"];
    let done = run(&folder, &data, "student.onnx", &steps);
    assert!(done.status.success(), "{}", said(&done));
    let load = |path: &Path| optimize::model::Model::load(path).unwrap();
    let (before, after) = (load(&deps("models/paraphrase-MiniLM-L3-v2")), load(&folder.join("student.onnx")));
    let weights = |model: &optimize::model::Model, part: &str| -> Vec<Vec<u8>> {
        let of = |t: &&optimize::onnx::proto::TensorProto| t.name.as_deref().unwrap_or("").contains(part);
        model.graph().initializer.iter().filter(of).map(|t| t.raw_data.clone().unwrap_or_default().to_vec()).collect()
    };
    let table = "embeddings.word_embeddings.weight";
    assert!(!weights(&before, table).is_empty() && weights(&before, table) == weights(&after, table));
    let first = "encoder.layer.0.output.dense.bias";
    assert!(!weights(&before, first).is_empty() && weights(&before, first) != weights(&after, first));
}

/// Returns a folder with an untrained classifier of three classes, whose words are `w0` to `w59`.
fn classifier(folder: &Folder) -> PathBuf {
    let bert = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoders/bert-classify");
    let model = folder.join("classifier");
    std::fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(bert.join(name), model.join(name)).unwrap();
    }
    std::fs::write(model.join("tokenizer.json"), numbered(60, Join::Spaces)).unwrap();
    model
}

#[test]
fn a_classifier_learns_the_classes_that_the_text_has() {
    let folder = Folder::new("distill-classes");
    let (model, mut random) = (classifier(&folder), Random(7));
    // One of three words determines the class of a text; the others are noise. Some texts have no class.
    let line = |random: &mut Random| {
        let class = random.below(3);
        let mut words: Vec<String> = (0..5).map(|_| format!("w{}", 20 + random.below(30))).collect();
        words[random.below(5)] = format!("w{}", 10 + class);
        let label = ["\"LABEL_0\"", "1", "\"LABEL_2\""][class];
        let label = if random.below(8) == 0 { String::new() } else { format!(", \"label\": {label}") };
        format!("{{\"text\": \"{}\"{label}}}\n", words.join(" "))
    };
    let data = folder.join("texts.jsonl");
    std::fs::write(&data, (0..400).map(|_| line(&mut random)).collect::<String>()).unwrap();
    let learn = |output: &str, teacher: &Path, student: &str, more: &[&str]| {
        let mut command = command_of(teacher, student, &data, &folder.join(output));
        command.args(["--json", "--epochs", "12", "--batch-size", "16", "--learning-rate", "1e-2"]).args(more);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", said(&done));
        serde_json::from_slice::<Value>(&done.stdout).unwrap()
    };
    let report = learn("labels", &model, "layers:1", &["--logits-weight", "0", "--labels-weight", "1"]);
    let accuracy = |of: &str| report.pointer(&format!("/quality/{of}/accuracy")).and_then(Value::as_f64).unwrap();
    assert!(accuracy("after/result") > 0.9 && accuracy("before/result") < 0.8, "{}", report["quality"]);
    // Another student is trained from the cached outputs.
    let report = learn("said", &folder.join("labels"), model.to_str().unwrap(), &[]);
    let agreement = |of: &str| report.pointer(&format!("/quality/{of}/agreement")).and_then(Value::as_f64).unwrap();
    assert!(agreement("after") > 0.9 && agreement("before") < 0.8, "{}", report["quality"]);
    let wrong = folder.join("wrong.jsonl");
    std::fs::write(&wrong, "{\"text\": \"w1\", \"label\": 3}\n".repeat(40)).unwrap();
    let e = run(&folder, &wrong, "none.onnx", &["--labels-weight", "1"]);
    assert!(said(&e).contains("labels_weight applies only to text generation and classification"), "{}", said(&e));
}

#[test]
fn a_student_of_a_quantized_file_learns_in_float32() {
    let folder = Folder::new("distill-gguf");
    let data = folder.join("text.txt");
    let text = "The old captain sold seven red apples, and nobody in the village knew why. ".repeat(40);
    std::fs::write(&data, text).unwrap();
    let teacher = deps("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    let mut command = command_of(&teacher, "layers:1", &data, &folder.join("student"));
    command.args([
        "--max-steps",
        "1",
        "--batch-size",
        "1",
        "--sequence-length",
        "8",
        "--validation-ratio",
        "0.1",
        "--json",
    ]);
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", said(&done));
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    let warning = report.pointer("/warnings/0").and_then(Value::as_str).unwrap();
    assert!(warning.contains("to float32: quantize the result"), "{warning}");
    let student = optimize::model::Model::load(&folder.join("student/model.onnx")).unwrap();
    assert!(student.graph().node.iter().all(|node| !node.op_type.as_deref().unwrap_or("").ends_with("NBits")));
}

#[test]
fn a_device_that_is_not_there_is_said_and_nothing_is_written() {
    let folder = Folder::new("distill-device");
    let data = text(&folder);
    let e = run(&folder, &data, "student.onnx", &["--provider", "cuda", "--device-id", "63"]);
    assert!(!e.status.success() && said(&e).contains("cuda"), "{}", said(&e));
    let e = run(&folder, &data, "student.onnx", &["--provider", "tensorrt"]);
    assert!(!e.status.success() && said(&e).contains("cpu, cuda or auto"), "{}", said(&e));
    assert_eq!(folder.names(), ["text.txt"]);
}

#[test]
fn classifiers_whose_classes_do_not_exclude_each_other_learn_from_the_logits_of_a_teacher() {
    let mut random = Random(11);
    let line = |random: &mut Random| {
        let words: Vec<String> = (0..5).map(|_| format!("w{}", 10 + random.below(40))).collect();
        format!("{{\"text\": \"{}\", \"label\": 1}}\n", words.join(" "))
    };
    let texts: String = (0..120).map(|_| line(&mut random)).collect();
    for problem in ["multi_label_classification", "regression"] {
        let folder = Folder::new(&format!("distill-{problem}"));
        let model = classifier(&folder);
        let config = std::fs::read(model.join("config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&config).unwrap();
        config["problem_type"] = problem.into();
        std::fs::write(model.join("config.json"), config.to_string()).unwrap();
        let data = folder.join("texts.jsonl");
        std::fs::write(&data, &texts).unwrap();
        let learn = |output: &str, more: &[&str]| {
            let mut command = command_of(&model, "layers:1", &data, &folder.join(output));
            command.args(["--json", "--batch-size", "16", "--learning-rate", "1e-2"]).args(more).output().unwrap()
        };
        let loss = |done: &Output, which: &str| {
            assert!(done.status.success(), "{problem}: {}", said(done));
            let report: Value = serde_json::from_slice(&done.stdout).unwrap();
            report.pointer(&format!("/summary/loss_{which}")).and_then(Value::as_f64).unwrap()
        };
        let done = learn("plain", &[]);
        let (before, after) = (loss(&done, "before"), loss(&done, "after"));
        assert!(after < before, "{problem}: {before} and {after}");
        // All logits are cached, because the most probable ones describe only a distribution.
        let cache = folder.join("cache");
        let cached = learn("cached", &["--teacher-top-k", "1", "--teacher-cache", cache.to_str().unwrap()]);
        let of_cache = loss(&cached, "after");
        assert!((of_cache - after).abs() < 0.02 * before, "{problem}: {of_cache} and {after}");
        let refused = learn("none", &["--labels-weight", "1"]);
        assert!(!refused.status.success() && said(&refused).contains("labels_weight: a label"), "{}", said(&refused));
    }
}

#[test]
fn a_negative_label_is_refused() {
    let folder = Folder::new("distill-negative");
    let (model, data) = (classifier(&folder), folder.join("texts.jsonl"));
    std::fs::write(&data, "{\"text\": \"w11 w12\", \"label\": \"-1\"}\n".repeat(40)).unwrap();
    let more = ["--logits-weight", "0", "--labels-weight", "1"];
    let e = command_of(&model, "layers:1", &data, &folder.join("none")).args(more).output().unwrap();
    assert!(!e.status.success() && said(&e).contains("the label \"-1\" is not a class of the student"), "{}", said(&e));
}
