//! Tests of recipes: the recipe in a report repeats its operation, and the package of several techniques has their
//! reports.

mod support;

use optimize::package::{OpenOptions, Package};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::{deps, scratch};

fn optimize(arguments: &[&str]) -> Output {
    let runtime = std::env::var_os("ORT_DYLIB_PATH");
    let runtime = runtime.map_or_else(|| deps("onnxruntime/libonnxruntime.so.1"), PathBuf::from);
    let mut command = Command::new(env!("CARGO_BIN_EXE_optimize"));
    command.env("ORT_DYLIB_PATH", runtime).args(arguments).args(["--threads", "1"]).output().unwrap()
}

fn report(arguments: &[&str]) -> Value {
    let output = optimize(&[arguments, &["--json", "--no-benchmark"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_report_of_a_technique_repeats_it() {
    let folder = scratch("recipe-repeat");
    let model = deps("models/paraphrase-MiniLM-L3-v2/model.onnx");
    let data = folder.join("text.txt");
    std::fs::write(&data, "A man is eating food.\nThe stock market fell sharply.\nHow are you?\n").unwrap();
    let cases: [&[&str]; 3] = [
        &["quantize", "--type", "weight-only", "--bits", "4", "--block-size", "64", "--override", "*intermediate*=8"],
        &[
            "prune",
            "--method",
            "structured",
            "--sparsity",
            "0.3",
            "--importance",
            "activation",
            "--calibration",
            "DATA",
        ],
        &["prune", "--pattern", "2:4", "--target-modules", "query", "key"],
    ];
    for (index, case) in cases.iter().enumerate() {
        let [first, again] = [format!("{index}.onnx"), format!("{index}-again.onnx")].map(|name| folder.join(name));
        let mut arguments: Vec<&str> = case.iter().map(|a| if *a == "DATA" { text(&data) } else { *a }).collect();
        arguments.extend(["--model", text(&model), "--output", text(&first)]);
        let made = report(&arguments);
        assert_eq!(made["recipe"][0]["operation"], case[0], "{made}");
        let recipe = folder.join("report.json");
        std::fs::write(&recipe, made.to_string()).unwrap();
        let repeated = report(&["apply", "--model", text(&model), "--recipe", text(&recipe), "--output", text(&again)]);
        assert_eq!(repeated["output"]["sha256"], made["output"]["sha256"], "{}", made["recipe"]);
        assert_eq!(repeated["recipe"], made["recipe"]);
        assert_eq!(repeated["summary"]["steps"][0]["options"], made["options"]);
    }
}

#[test]
fn a_chain_becomes_a_package_that_knows_its_steps() {
    let folder = scratch("recipe-chain");
    let model = deps("models/paraphrase-MiniLM-L3-v2");
    let (data, recipe, package) = (folder.join("text.txt"), folder.join("recipe.json"), folder.join("package"));
    let lines: String = (0..40).map(|i| format!("Story {i} tells of a baker who sings {} songs.\n", i * 7)).collect();
    std::fs::write(&data, lines).unwrap();
    let steps = r#"[{"operation": "prune", "method": "structured", "sparsity": 0.3},
        {"operation": "distill", "data": true, "max_steps": 2, "sequence_length": 16},
        {"operation": "quantize", "type": "dynamic"},
        {"operation": "compile", "dynamic": true, "portable_only": true, "licence": "Apache-2.0"}]"#;
    std::fs::write(&recipe, steps).unwrap();
    let mut arguments = vec!["apply", "-m", text(&model), "-r", text(&recipe), "-o", text(&package)];
    let refused = optimize(&arguments);
    assert_eq!(refused.status.code(), Some(2), "{}", String::from_utf8_lossy(&refused.stderr));
    assert!(!package.exists());
    arguments.extend(["--data", text(&data)]);
    let made = report(&arguments);
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|step| step["operation"].as_str().unwrap().to_owned()).collect()
    };
    let all = ["prune", "distill", "quantize", "compile"];
    assert_eq!(names(&made["recipe"]), all);
    assert_eq!(names(&made["summary"]["steps"]), all);
    let manifest = Package::open(&package, &OpenOptions::default()).unwrap().manifest().clone();
    assert_eq!(names(&Value::Array(manifest.lineage.clone())), all);
    assert_eq!(manifest.lineage[1]["recipe"][0]["max_steps"], 2, "{}", manifest.lineage[1]);
    assert_eq!(manifest.licence.as_deref(), Some("Apache-2.0"));
    // The manifest of a package can be applied as a recipe. It does not contain the data, so --data supplies them.
    let again = folder.join("again");
    let manifest = package.join("optimize.json");
    let repeated =
        report(&["apply", "-m", text(&model), "-r", text(&manifest), "-o", text(&again), "--data", text(&data)]);
    assert_eq!(repeated["output"]["sha256"], made["output"]["sha256"]);
    let bytes = made["summary"]["bytes_after"].as_u64().unwrap();
    assert!(bytes < made["summary"]["bytes_before"].as_u64().unwrap() / 2, "{bytes}");
}

#[test]
fn the_schema_has_every_operation() {
    let output = optimize(&["apply", "--schema"]);
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["items"]["oneOf"].as_array().unwrap().len(), 7);
}

#[test]
fn two_decoders_become_a_package() {
    let folder = scratch("recipe-decoders");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints/llama");
    let recipe = folder.join("recipe.json");
    let ensemble = serde_json::json!({ "operation": "ensemble", "models": [text(&model)], "method": "mean" });
    let compile = serde_json::json!({ "operation": "compile", "dynamic": true });
    std::fs::write(&recipe, serde_json::json!([ensemble, compile]).to_string()).unwrap();
    let package = folder.join("package");
    let made = optimize(&["apply", "--model", text(&model), "--recipe", text(&recipe), "--output", text(&package)]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Package::open(&package, &OpenOptions::default()).unwrap();
    // Each of the two members has caches of two layers.
    let manifest = std::fs::read_to_string(package.join("optimize.json")).unwrap();
    assert!(manifest.contains("past_key_values.3.key"), "{manifest}");
}
