//! Tests of the command as users and scripts see it: exit codes, standard output, files.

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::words::{Join, numbered};
use support::{deps, scratch};

fn optimize(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_optimize"));
    command.env("ORT_DYLIB_PATH", onnxruntime());
    command.args(arguments).output().unwrap()
}

fn onnxruntime() -> PathBuf {
    std::env::var_os("ORT_DYLIB_PATH").map_or_else(|| deps("onnxruntime/libonnxruntime.so.1"), PathBuf::from)
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
    assert!(report["summary"]["verified"]["levels_differ"].as_f64().unwrap() < 0.02, "{}", report["summary"]);
    let nodes = report["nodes"].as_array().unwrap();
    assert!(nodes.iter().filter(|n| n["action"] == "quantized").count() >= 20);
    assert!(nodes.iter().all(|n| !n["reason"].as_str().unwrap().is_empty()));
    assert!(report["quality"]["cosine"].as_f64().unwrap() > 0.99);
    assert!(report["benchmark"]["speedup"]["median"].as_f64().unwrap() > 0.0);
    assert_eq!(report["benchmark"]["clock"], "thread_cpu");
    let listed = names(&out);
    assert!(listed.contains(&"tokenizer.json".to_owned()), "{listed:?}");
    assert!(listed.iter().all(|name| !name.starts_with('.')), "{listed:?}");

    // The result is an ordinary model.
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
fn plans_are_estimates_or_measured() {
    let plan = |kernels: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_optimize"));
        command.env("ORT_DYLIB_PATH", onnxruntime()).env("OPTIMIZE_KERNELS", kernels);
        command.args(["inspect", "--model", text(&model()), "--plan", "--json"]).args(more);
        json(&command.output().unwrap())
    };
    let estimated = plan("stock", &[]);
    let estimated = estimated.as_array().unwrap();
    assert_eq!(estimated.len(), 4);
    for report in estimated {
        assert_eq!(report["operation"], "plan");
        assert_eq!(report["summary"]["kernels"], "stock");
        assert!(report["benchmark"].is_null());
    }
    let own = optimize::provider::class_for_quantized(true).unwrap_or("stock");
    for report in plan("auto", &["--benchmark", "--threads", "1"]).as_array().unwrap() {
        assert!(report["benchmark"]["speedup"]["median"].as_f64().unwrap() > 0.0);
        assert!(report["quality"]["cosine"].as_f64().unwrap() > 0.9);
        let groups = report["benchmark"]["placement"]["result"]["groups"].as_u64().unwrap_or(0);
        if report["options"]["quantize_type"] == "weight-only" {
            assert_eq!(report["summary"]["kernels"], own);
            assert_eq!(groups >= 18, own != "stock", "{groups} groups on {own}");
        }
    }
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
    // The file has two inputs of the type int64[2, 4], in the format of safetensors.
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
    // If the file is the cause, the error names it; if the model is, the error does not.
    let words = |file: &Path, more: &[&str]| {
        let (model, out) = (model(), out.clone());
        let mut arguments = vec!["quantize", "--model", text(&model), "--output", text(&out), "--type", "static"];
        arguments.extend(["--calibration", text(file)].iter().chain(more));
        String::from_utf8_lossy(&optimize(&arguments).stderr).into_owned()
    };
    let excluded = words(&data, &["--exclude", "*"]);
    assert!(excluded.contains("no node could be quantized") && !excluded.contains("data.safetensors"), "{excluded}");
    let header = format!("{{{}}}", entry((0, &"nothing")));
    let file: Vec<u8> =
        (header.len() as u64).to_le_bytes().iter().copied().chain(header.bytes()).chain([0; 64]).collect();
    std::fs::write(&data, file).unwrap();
    let other = words(&data, &[]);
    assert!(other.contains("data.safetensors") && other.contains("\"nothing\""), "{other}");
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
        (&["quantize", "--model", model, "--output", &out, "--bits", "3"], 2, "bits is 3"),
        (&["quantize", "--model", model, "--output", &out, "--percentile", "99"], 2, "calibration_method percentile"),
        (&["quantize", "--model", model, "--output", &out, "--bits", "4", "--reduce-range", "on"], 2, "weight-only"),
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
    let file = folder.join("tokenizer.json");
    std::fs::write(&file, numbered(60, Join::Spaces)).unwrap();
    let run = |model: &Path, words: usize, more: &[&str]| {
        let prompt = "w1 ".repeat(words);
        let done = optimize(&[&["run", "--model", text(model), "--text", "w2", "--text", &prompt], more].concat());
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{stderr}");
        stderr
    };
    // The model has 20 positions.
    let tokenizer = ["--tokenizer", text(&file)];
    assert_eq!(run(&bert, 20, &tokenizer), "");
    let warning = run(&bert, 33, &tokenizer);
    assert!(warning.contains("text 2 has 33 tokens, of which 20 are used"), "{warning}");
    assert_eq!(run(&bert, 33, &[&tokenizer[..], &["--sequence-length", "9"]].concat()), "");
    assert_eq!(run(&bert, 33, &[&tokenizer[..], &["--quiet"]].concat()), "");
    // The tokenizer has a limit of 512. Each of these words is two tokens, and there are two special tokens.
    let warning = run(&model(), 300, &["--output-names", "461"]);
    assert!(warning.contains("text 2 has 602 tokens, of which 512 are used"), "{warning}");
}

/// Each error is one line that describes it, and no file is left.
#[test]
fn prune_refuses_what_makes_no_sense_in_words() {
    let folder = scratch("cli-prune");
    let (out, sparse, int8) = (folder.join("out.onnx"), folder.join("sparse.onnx"), folder.join("int8.onnx"));
    let done = |arguments: &[&str]| assert!(optimize(arguments).status.success(), "{arguments:?}");
    done(&["prune", "--model", text(&model()), "--output", text(&sparse), "--sparsity", "0.5", "-q"]);
    done(&["quantize", "--model", text(&model()), "--output", text(&int8), "-q"]);
    let structured = ["--method", "structured"];
    let cases: [(&Path, &[&str], &str); 19] = [
        (&model(), &["--sparsity", "0"], "sparsity is 0, which prunes nothing"),
        (&model(), &["--sparsity", "1"], "sparsity is 1, which leaves nothing"),
        (&model(), &["--sparsity", "nan"], "sparsity is NaN"),
        (&model(), &["--sparsity", "-0.3"], "sparsity is -0.3"),
        (&model(), &["--sparsity", "30"], "sparsity is 30"),
        (&model(), &["--sparsity", "0.3", "--target-modules", "qery"], "query (3)"),
        (&sparse, &["--sparsity", "0.5"], "as many zeros as requested"),
        (&int8, &["--sparsity", "0.5"], "is already quantized"),
        (&model(), &["--sparsity", "0.5", "--method", "wanda"], "wanda needs a calibration text"),
        (&model(), &["--sparsity", "0.5", "--layers", "1"], "are for structured pruning"),
        (&model(), &["--sparsity", "0", structured[0], structured[1]], "sparsity is 0"),
        (&model(), &["--sparsity", "nan", structured[0], structured[1]], "sparsity is NaN"),
        (&model(), &["--sparsity", "0.3", "--target-modules", "qery", structured[0], structured[1]], "query"),
        (&int8, &["--sparsity", "0.3", structured[0], structured[1]], "already quantized; prune the float model"),
        (&model(), &["--layers", "3", structured[0], structured[1]], "there is no layer 3; there are 0 to 2"),
        (&model(), &["--drop-layers", "3", structured[0], structured[1]], "only 3 layers"),
        (&model(), &["--target-size", "1kB", structured[0], structured[1]], "bytes are left"),
        (&model(), &["--target-size", "small", structured[0], structured[1]], "is not a unit"),
        (&model(), &["--target-speedup", "0.9", structured[0], structured[1]], "target_speedup is 0.9"),
    ];
    let before = names(&folder);
    for (model, arguments, phrase) in cases {
        let all = [&["prune", "--model", text(model), "--output", text(&out)], arguments].concat();
        let done = optimize(&all);
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && done.stdout.is_empty(), "{arguments:?}");
        assert!(stderr.contains(phrase) && !stderr.contains("panicked"), "{arguments:?}: {stderr}");
    }
    assert_eq!(names(&folder), before, "a failure left something");
}

#[test]
fn prune_takes_layers_units_and_bytes_and_says_so() {
    let (folder, whole) = (scratch("cli-prune-structured"), model());
    let out = folder.join("small.onnx");
    let bytes = |path: &Path| std::fs::metadata(path).unwrap().len();
    let prune = |more: &[&str]| {
        let fixed = ["prune", "--model", text(&whole), "--output", text(&out), "--method", "structured", "--json"];
        json(&optimize(&[&fixed, more].concat()))["summary"].clone()
    };
    let summary = prune(&["--layers", "1", "--sparsity", "0.3"]);
    assert_eq!((&summary["layers_before"], &summary["layers_after"]), (&3.into(), &2.into()));
    for what in ["parameters", "bytes", "flops_per_position"] {
        let of = |when: &str| summary[format!("{what}_{when}")].as_u64().unwrap();
        assert!(of("after") < of("before"), "{what}: {summary}");
    }
    assert_eq!(summary["bytes_after"], bytes(&out));
    prune(&["--target-size", "90%"]);
    let share = bytes(&out) as f64 / bytes(&whole) as f64;
    assert!((0.88..=0.9).contains(&share), "{share}");
    // Naming a module that reads units selects them.
    let of_nodes = |summary: &Value| summary["units_before"].as_u64().unwrap();
    let (reads, makes) = (["--target-modules", "layer.*.output.dense"], ["--target-modules", "intermediate"]);
    let by = |targets: &[&str]| of_nodes(&prune(&[&["--sparsity", "0.3"], targets].concat()));
    assert_eq!((by(&makes), by(&["--target-modules", "layer.0.output.dense"])), (3 * 1536, 1536));
    assert_eq!(by(&reads), 3 * (1536 + 12));
    // Packed zeros take little space, and the report states the other effects.
    let packed = folder.join("sparse.onnx.packed");
    let report = json(&optimize(&[
        "prune",
        "--model",
        text(&whole),
        "--output",
        text(&packed),
        "--sparsity",
        "0.5",
        "--packed",
        "--json",
    ]));
    assert!(report["summary"]["note"].as_str().unwrap().starts_with("stored packed"), "{}", report["summary"]["note"]);
    let shown = optimize(&["inspect", "--model", text(&packed)]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("onnx (packed)"));
}

#[test]
fn integers_are_printed_exactly() {
    use optimize::onnx::dtype::DataType;
    let folder = scratch("cli-integers");
    let shape = |name: &str| support::build::value(name, DataType::Int64, &[3]);
    let node = support::build::op("Identity", &["x"], &["y"], &[]);
    let identity = support::build::model(17, vec![shape("x")], vec![shape("y")], Vec::new(), vec![node]);
    let file = folder.join("identity.onnx");
    identity.save(&file, optimize::onnx::save::ExternalData::Auto, &optimize::call::Call::default()).unwrap();
    let run = ["run", "--model", text(&file), "--values", "x:101,16777217,9007199254740991"];
    let done = optimize(&run);
    let printed = String::from_utf8(done.stdout).unwrap();
    assert!(
        printed.contains("\n  101 16777217 9007199254740991\n"),
        "{printed}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let values = json(&optimize(&[&run[..], &["--json"]].concat()))["outputs"]["y"]["values"].clone();
    assert_eq!(values, serde_json::json!([101, 16777217, 9007199254740991i64]));
}

#[test]
fn limits_that_nothing_meets_have_an_exit_code_of_their_own() {
    let folder = scratch("cli-limits");
    let out = folder.join("out.onnx");
    let mut both = vec!["--model", "", "--output", text(&out), "--no-benchmark", "--threads", "1"];
    let minilm = model();
    both[1] = text(&minilm);
    for arguments in [
        &["quantize", "--max-quality-loss", "1e-12"][..],
        &["quantize", "--target-size", "1000"],
        &["quantize", "--type", "weight-only", "--target-size", "3%"],
        &["prune", "--method", "structured", "--target-size", "1000"],
    ] {
        let done = optimize(&[arguments, &both].concat());
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(3), "{arguments:?}: {said}");
        assert!(said.contains("max_quality_loss") || said.contains("target_size is"), "{said}");
        assert!(names(&folder).is_empty());
    }
}

#[test]
fn inspect_says_what_it_verified() {
    let folder = scratch("cli-verify");
    let package = folder.join("package");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sentences/model");
    assert!(optimize(&["compile", "--model", text(&model), "--output", text(&package)]).status.success());
    let inspect = |more: &[&str]| optimize(&[&["inspect", "--model", text(&package)], more].concat());
    let plain = |more: &[&str]| String::from_utf8(inspect(more).stdout).unwrap();
    assert_eq!(plain(&["--verify"]), plain(&[]) + "verified\n  hashes\n");
    assert_eq!(json(&inspect(&["--json", "--verify"]))["verified"], "hashes");
    assert!(json(&inspect(&["--json"])).get("verified").is_none());
}
