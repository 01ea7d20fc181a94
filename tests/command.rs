//! Tests of the command apart from its techniques: interrupts, drafts, version, completions, manual pages.

mod support;

use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::{deps, scratch};

fn optimize(arguments: &[&str]) -> Command {
    let runtime = std::env::var_os("ORT_DYLIB_PATH");
    let runtime = runtime.map_or_else(|| deps("onnxruntime/libonnxruntime.so.1"), PathBuf::from);
    let mut command = Command::new(env!("CARGO_BIN_EXE_optimize"));
    command.env("ORT_DYLIB_PATH", runtime).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn printed(arguments: &[&str]) -> String {
    let output = optimize(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the command, and sends it a signal as soon as `file` exists.
fn interrupted(arguments: &[&str], signal: Signal, file: &Path) -> Output {
    let mut child = optimize(arguments).spawn().unwrap();
    let start = Instant::now();
    while !file.exists() {
        assert!(child.try_wait().unwrap().is_none(), "{arguments:?} ended before {} was there", file.display());
        assert!(start.elapsed() < Duration::from_secs(300), "{} does not appear", file.display());
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), signal).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn an_interrupted_distillation_leaves_a_checkpoint_and_resumes() {
    let folder = scratch("command-distill");
    let (text, out) = (folder.join("text.txt"), folder.join("student"));
    let lines: String =
        (0..120).map(|i| format!("Story number {i} tells of a baker who sings {} songs.\n", i * 7)).collect();
    std::fs::write(&text, lines).unwrap();
    let checkpoint = folder.join("student.checkpoint");
    let teacher = deps("models/paraphrase-MiniLM-L3-v2/model.onnx");
    let mut arguments =
        vec!["distill", "--teacher", teacher.to_str().unwrap(), "--student", "layers:1", "--threads", "1"];
    arguments.extend(["--data", text.to_str().unwrap(), "--output", out.to_str().unwrap(), "--max-steps", "20"]);
    arguments.extend(["--sequence-length", "12", "--checkpoint-every", "2"]);
    let output = interrupted(&arguments, Signal::INT, &checkpoint);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("--resume continues from"), "{said}");
    assert!(checkpoint.exists() && !out.join("model.onnx").exists());
    arguments.push("--resume");
    printed(&arguments);
    assert!(!checkpoint.exists() && out.join("model.onnx").exists());
}

#[test]
fn an_interrupted_quantization_leaves_nothing() {
    let folder = scratch("command-quantize");
    let out = folder.join("small");
    let model = std::fs::read_dir(deps("models/smollm2")).unwrap().flatten().map(|entry| entry.path());
    let model = model.into_iter().find(|path| path.extension().is_some_and(|end| end == "gguf")).unwrap();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let arguments = ["quantize", "-m", model.to_str().unwrap(), "-o", out.to_str().unwrap()];
        let more = ["--type", "weight-only", "--bits", "4", "--no-benchmark", "--threads", "1"];
        let output = interrupted(&[&arguments[..], &more].concat(), signal, &out);
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!out.exists(), "the folder that was created for the output must be removed");
    }
}

#[test]
fn a_draft_changes_no_text() {
    let model = deps("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    let model = model.to_str().unwrap();
    let prompt = "one, two, three, four, five, one, two, three,";
    let base = ["generate", "-m", model, "--prompt", prompt, "--max-new-tokens", "16", "--threads", "2"];
    let with = |more: &[&str]| optimize(&[&base[..], more].concat()).output().unwrap();
    let text = printed(&base);
    for draft in [&["--draft-lookup"][..], &["--draft", model, "--draft-max", "4"]] {
        let output = with(&[draft, &["-v"]].concat());
        assert_eq!(String::from_utf8_lossy(&output.stdout), text);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(" tokens drafted, ") && said.contains(" accepted ("), "{said}");
    }
    let report: serde_json::Value = serde_json::from_slice(&with(&["--draft-lookup", "--json"]).stdout).unwrap();
    let draft = &report["generations"][0]["draft"];
    assert!(draft["steps"].as_u64() < Some(16) && draft["accepted"].as_u64() > Some(0), "{draft}");
    for (wrong, code, why) in [
        (&["--draft-max", "4"][..], 2, "needs a draft model or prompt look-up"),
        (&["--draft-lookup", "--prompt", "Another"], 2, "2 rows"),
        (&["--draft", "nothing.gguf"], 1, "--draft: nothing.gguf"),
    ] {
        let output = with(wrong);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && said.contains(why), "{said}");
    }
}

#[test]
fn a_bfloat16_cache_is_an_option_of_commands_that_read_texts() {
    let model = deps("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    let model = model.to_str().unwrap();
    let base = ["generate", "-m", model, "--prompt", "one, two, three,", "--max-new-tokens", "6", "--threads", "1"];
    let narrow = ["--kv-cache-type", "bfloat16"];
    assert_eq!(printed(&[&base[..], &narrow].concat()), printed(&base));
    let refused = optimize(&[&base[..], &narrow, &["--kernels", "stock"]].concat()).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(2) && said.contains("kv_cache_type bfloat16 needs"), "{said}");
    let folder = scratch("command-kv-cache");
    let text = folder.join("text.txt");
    std::fs::write(&text, "The river rose in spring, and the fields near the village were under water.").unwrap();
    let base = ["evaluate", "-m", model, "--data", text.to_str().unwrap(), "--threads", "1", "--json"];
    let of = |more: &[&str]| {
        let report: serde_json::Value = serde_json::from_str(&printed(&[&base[..], more].concat())).unwrap();
        report["quality"]["nll"].as_f64().unwrap()
    };
    let (narrow, exact) = (of(&narrow), of(&[]));
    assert!(narrow != exact && (narrow / exact - 1.0).abs() < 0.02, "{narrow} {exact}");
}

/// `generate` of transformers with `do_sample=False` applies the penalties of `generation_config.json`, too.
#[test]
fn the_penalties_of_a_model_apply_without_sampling() {
    let folder = scratch("command-penalties");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let parts = [("checkpoints/llama", "config.json"), ("checkpoints/llama", "model.safetensors")];
    for (from, file) in parts.into_iter().chain([("sentences/model", "tokenizer.json")]) {
        std::fs::copy(fixtures.join(from).join(file), folder.join(file)).unwrap();
    }
    let settings = folder.join("generation_config.json");
    let model = folder.to_str().unwrap();
    let tokens = |more: &[&str]| {
        let base = ["generate", "-m", model, "--prompt", "a man a man", "--max-new-tokens", "16", "--json"];
        let report: serde_json::Value = serde_json::from_str(&printed(&[&base[..], more].concat())).unwrap();
        report["generations"][0]["tokens"].to_string()
    };
    std::fs::write(&settings, r#"{"eos_token_id": 100000}"#).unwrap();
    let (plain, given) = (tokens(&[]), tokens(&["--repetition-penalty", "3", "--no-repeat-ngram-size", "2"]));
    assert_ne!(plain, given);
    let penalties = r#"{"eos_token_id": 100000, "repetition_penalty": 3.0, "no_repeat_ngram_size": 2}"#;
    std::fs::write(&settings, penalties).unwrap();
    assert_eq!(tokens(&[]), given);
    assert_eq!(tokens(&["--repetition-penalty", "1", "--no-repeat-ngram-size", "100"]), plain);
}

#[test]
fn the_version_names_what_runs() {
    assert_eq!(printed(&["--version"]), format!("optimize {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(printed(&["-V"]), printed(&["--version"]));
    let long = printed(&["--version", "--verbose"]);
    for line in ["optimize ", "commit ", "ONNX Runtime  1.", "TensorRT ", "processor ", "kernels "] {
        assert!(long.lines().any(|found| found.starts_with(line)), "no {line} in {long}");
    }
    for arguments in [&["--verbose"][..], &[]] {
        assert_eq!(optimize(arguments).output().unwrap().status.code(), Some(2));
    }
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let help = printed(&["--help"]);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> = listed.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() > 12 && commands.contains(&"quantize"), "{commands:?}");
    let folder = scratch("command-man");
    printed(&["man", "--output", folder.to_str().unwrap()]);
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&["completions", shell]);
        for name in commands.iter().filter(|name| **name != "help") {
            assert!(script.contains(name), "the completions of {shell} lack {name}");
            assert!(folder.join(format!("optimize-{name}.1")).is_file(), "there is no page of {name}");
        }
    }
    let page = printed(&["man", "quantize"]);
    assert_eq!(page, std::fs::read_to_string(folder.join("optimize-quantize.1")).unwrap());
    assert!(page.contains("max\\-quality\\-loss") && page.contains("Examples:"), "{page}");
    assert!(std::fs::read_to_string(folder.join("optimize.1")).unwrap().contains("ORT_DYLIB_PATH"));
    assert_eq!(optimize(&["man", "nothing"]).output().unwrap().status.code(), Some(2));
}
