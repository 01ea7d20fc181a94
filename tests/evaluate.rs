//! Evaluation on data: perplexity against transformers' own logits and figures, comparisons, classification, probes,
//! the command.

mod support;

use optimize::call::{Call, Cancel};
use optimize::error::Kind;
use optimize::evaluate::*;
use optimize::model::{Model, Task};
use optimize::quantize::{QuantizeOptions, quantize};
use optimize::runtime::{Session, SessionOptions, Tensor};
use optimize::source::{Dialect, LoadOptions};
use optimize::text::Tokenizer;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::words::{Join, numbered};
use support::{deps, runtime, scratch};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Returns a tokenizer in which the word `w17` is token 17.
fn numbers(vocabulary: usize) -> Tokenizer {
    Tokenizer::from_bytes(numbered(vocabulary, Join::Fuse).as_bytes()).unwrap()
}

fn words(ids: &[i64]) -> String {
    ids.iter().map(|id| format!("w{id}")).collect::<Vec<_>>().join(" ")
}

fn one_thread() -> PerplexityOptions {
    PerplexityOptions { threads: 1, ..PerplexityOptions::default() }
}

/// Returns the first prompt of a decoder's `reference.safetensors`, and transformers' logits for it.
fn reference(folder: &Path) -> (Vec<i64>, Vec<f32>) {
    let file = std::fs::read(folder.join("reference.safetensors")).unwrap();
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    let bytes = |name: &str| {
        let at = |index: usize| 8 + length + header[name]["data_offsets"][index].as_u64().unwrap() as usize;
        &file[at(0)..at(1)]
    };
    let ids = bytes("ids.0").chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
    let logits = bytes("logits.0").chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    (ids, logits)
}

#[test]
fn perplexity_is_that_of_transformers_logits_for_every_family_and_dialect() {
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(fixture("checkpoints")).unwrap().flatten().map(|e| e.path()).collect();
    folders.retain(|folder| folder.join("reference.safetensors").is_file());
    assert!(folders.len() >= 10);
    for folder in folders {
        let (ids, logits) = reference(&folder);
        let vocabulary = logits.len() / ids.len();
        let surprise = |position: usize| {
            let row: Vec<f64> = logits[position * vocabulary..][..vocabulary].iter().map(|x| f64::from(*x)).collect();
            row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[ids[position + 1] as usize]
        };
        let expected = (0..ids.len() - 1).map(surprise).sum::<f64>() / (ids.len() - 1) as f64;
        for dialect in [Dialect::Runtime, Dialect::Portable] {
            let model = optimize::open::load(&folder, &LoadOptions { dialect }).unwrap();
            let tokenizer = numbers(vocabulary);
            let text = words(&ids);
            let found = perplexity(runtime(), &model, &tokenizer, &text, &one_thread(), &Call::default());
            let found = found.unwrap_or_else(|e| panic!("{}, {dialect:?}: {e}", folder.display()));
            let name = folder.file_name().unwrap().to_string_lossy();
            assert!((found.nll - expected).abs() < 1e-4, "{name}, {dialect:?}: {} for {expected}", found.nll);
            assert_eq!((found.tokens, found.windows, found.bos), (ids.len() - 1, 1, false));
            assert!((found.perplexity - found.nll.exp()).abs() < 1e-9 && found.bits_per_byte > 0.0);
        }
    }
}

#[test]
fn windows_score_what_a_run_of_each_alone_scores() {
    let model = Model::load(&fixture("checkpoints/llama")).unwrap();
    let tokenizer = numbers(150);
    let ids: Vec<i64> = (0..50).map(|i| (i * i * 7 + i) % 150).collect();
    let options = PerplexityOptions { context_length: 16, stride: 6, ..one_thread() };
    let of = |ids: &[i64], options: &PerplexityOptions| {
        perplexity(runtime(), &model, &tokenizer, &words(ids), options, &Call::default())
    };
    let found = of(&ids, &options).unwrap();
    // The first window has 16 tokens, each later one six new ones; the last is shorter.
    assert_eq!((found.windows, found.tokens, found.context_length, found.stride), (7, 49, 16, 6));
    // The same figure is computed directly: the scored part of a window is the whole window minus the part before it.
    let whole = |ids: &[i64]| of(ids, &one_thread()).unwrap().nll * (ids.len() - 1) as f64;
    let mut sum = whole(&ids[..16]);
    for begin in [6, 12, 18, 24, 30, 36usize] {
        let (end, before) = ((begin + 16).min(50), begin + 10);
        sum += whole(&ids[begin..end]) - whole(&ids[begin..before]);
    }
    assert!((found.nll - sum / 49.0).abs() < 1e-5, "{} {}", found.nll, sum / 49.0);
    // With more context, the perplexity of a model with random weights must change, but need not decrease.
    let other = of(&ids, &PerplexityOptions { stride: 1, ..options.clone() }).unwrap();
    assert_eq!((other.tokens, other.windows), (49, 35));
    let short = of(&ids, &PerplexityOptions { max_tokens: 20, ..options }).unwrap();
    assert_eq!(short.tokens, 19);
}

#[test]
fn smollm2_has_the_perplexity_that_transformers_gives_it() {
    let model = Model::load(&deps("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")).unwrap();
    let tokenizer = Tokenizer::of(&model).unwrap().unwrap();
    let text = "The Fulton County Grand Jury said Friday an investigation of Atlanta's recent primary election produced \
                \"no evidence\" that any irregularities took place. The jury further said in term-end presentments that \
                the City Executive Committee, which had over-all charge of the election, \"deserves the praise and \
                thanks of the City of Atlanta\" for the manner in which the election was conducted.";
    let options = PerplexityOptions { context_length: 48, stride: 16, ..PerplexityOptions::default() };
    let found = perplexity(runtime(), &model, &tokenizer, text, &options, &Call::default()).unwrap();
    println!("{found:?}");
    // The expected figures are those of transformers in float32, on the weights that the gguf package dequantizes (as
    // in benches/peers/perplexity.py).
    assert_eq!((found.tokens, found.windows), (SMOLLM2.1, SMOLLM2.2));
    assert!((found.perplexity / SMOLLM2.0 - 1.0).abs() < 5e-3, "{}", found.perplexity);
}

/// Perplexity, number of scored tokens and number of windows of SmolLM2.
const SMOLLM2: (f64, usize, usize) = (47.544_949, 77, 3);

#[test]
fn a_model_is_no_worse_than_itself_and_a_damaged_one_is() {
    let folder = fixture("checkpoints/llama");
    let model = Model::load(&folder).unwrap();
    let other = optimize::open::load(&folder, &LoadOptions { dialect: Dialect::Portable }).unwrap();
    let tokenizer = numbers(150);
    let ids: Vec<i64> = (0..400).map(|i| (i * i * 7 + i * 3) % 150).collect();
    let compare = |a: &Model, b: &Model| {
        compare_perplexity(runtime(), a, b, &tokenizer, &words(&ids), &one_thread(), &Call::default())
    };
    let same = compare(&model, &other).unwrap();
    assert!((same.ratio.value - 1.0).abs() < 1e-5 && same.kl.value < 1e-8, "{same:?}");
    assert_eq!((same.perplexity.original.tokens, same.top1_agreement), (399, 1.0));
    assert!(same.ratio.low <= same.ratio.value && same.ratio.value <= same.ratio.high);
    let itself = compare(&model, &model).unwrap();
    assert_eq!((itself.ratio.value, itself.ratio.low, itself.verdict), (1.0, 1.0, "no difference"));
    let stranger = Model::load(&fixture("checkpoints/mistral")).unwrap();
    let different = compare(&model, &stranger).unwrap();
    assert!(different.kl.value > 1e-4 && different.kl_p99 >= different.kl.value && different.top1_agreement < 0.9);
    // A model with another vocabulary cannot be compared token by token, and an encoder cannot be compared at all.
    let encoder = Model::load(&fixture("encoders/bert-masked")).unwrap();
    let e = compare(&model, &encoder).unwrap_err();
    assert!(e.kind() == Kind::Unsupported && e.to_string().contains("the result"), "{e}");
}

#[test]
fn an_evaluation_can_be_cancelled_and_timed_out_and_says_how_far_it_is() {
    let model = Model::load(&fixture("checkpoints/llama")).unwrap();
    let (tokenizer, text) = (numbers(150), words(&(0..2000).map(|i| i * 31 % 150).collect::<Vec<_>>()));
    let run = |call: &Call| perplexity(runtime(), &model, &tokenizer, &text, &one_thread(), call);
    let last = std::cell::Cell::new((0, 0));
    let watch = |p: optimize::call::Progress<'_>| {
        last.set((p.done, p.total));
        ControlFlow::Continue(())
    };
    run(&Call { progress: Some(&watch), ..Call::default() }).unwrap();
    assert_eq!(last.get(), (1999, 1999));
    let stop = |_: optimize::call::Progress<'_>| ControlFlow::Break(());
    let e = run(&Call { progress: Some(&stop), ..Call::default() }).unwrap_err();
    assert_eq!(e.kind(), Kind::Cancelled);
    let cancel = Cancel::new();
    cancel.fire();
    assert_eq!(run(&Call { cancel: Some(&cancel), ..Call::default() }).unwrap_err().kind(), Kind::Cancelled);
    let deadline = Some(std::time::Instant::now());
    assert_eq!(run(&Call { deadline, ..Call::default() }).unwrap_err().kind(), Kind::Timeout);
}

/// Returns the class of each text, computed directly.
fn predictions(model: &Model, texts: &[Vec<i64>]) -> Vec<usize> {
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let session = Session::new(runtime(), model, &options, &Call::default()).unwrap();
    let predict = |ids: &Vec<i64>| {
        let row = |values: Vec<i64>| Tensor::from_i64(&[1, ids.len() as i64], values).unwrap();
        let (mask, types) = (row(vec![1; ids.len()]), row(vec![0; ids.len()]));
        let feed = [("input_ids", &row(ids.clone())), ("attention_mask", &mask), ("token_type_ids", &types)];
        let logits = session.run(&feed, &["logits"], &Call::default()).unwrap()[0].1.to_f32_vec().unwrap();
        (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap()
    };
    texts.iter().map(predict).collect()
}

#[test]
fn a_classifier_is_as_right_as_its_labels_say() {
    let model = Model::load(&fixture("encoders/bert-classify")).unwrap();
    assert_eq!(model.card().task, Task::Classify);
    let tokenizer = numbers(60);
    let texts: Vec<Vec<i64>> = (0..20).map(|t| (0..4 + t % 7).map(|i| (t * 11 + i * i * 5) % 60).collect()).collect();
    let predicted = predictions(&model, &texts);
    // One text in four is labelled wrongly.
    let label = |text: usize| if text.is_multiple_of(4) { (predicted[text] + 1) % 3 } else { predicted[text] };
    let rows: Vec<Labelled> = texts
        .iter()
        .enumerate()
        .map(|(i, ids)| Labelled { label: format!("label_{}", label(i)), text: words(ids), line: i + 1 })
        .collect();
    for batch_size in [1, 6] {
        let options = TextOptions { batch_size, threads: 1, ..TextOptions::default() };
        let found = classify(runtime(), &model, &tokenizer, &rows, &options, &Call::default()).unwrap();
        assert_eq!((found.accuracy, found.samples), (0.75, 20));
        assert!(found.classes.iter().all(|class| class.name.starts_with("LABEL_")));
        let counts: u64 = found.confusion.unwrap().iter().flatten().sum();
        assert_eq!(counts, 20);
        let paired =
            compare_classification(runtime(), &model, &model, &tokenizer, &rows, &options, &Call::default()).unwrap();
        assert_eq!((paired.agreement, paired.accuracy_change.value, paired.accuracy_change.high), (1.0, 0.0, 0.0));
    }
    let wrong = vec![Labelled { label: "LABEL_9".into(), text: "w1".into(), line: 7 }];
    let e = classify(runtime(), &model, &tokenizer, &wrong, &TextOptions::default(), &Call::default()).unwrap_err();
    assert!(e.to_string().contains("line 7") && e.to_string().contains("LABEL_0, LABEL_1, LABEL_2"), "{e}");
    let options = TextOptions { max_length: 21, ..TextOptions::default() };
    let e = classify(runtime(), &model, &tokenizer, &rows, &options, &Call::default()).unwrap_err();
    assert!(e.to_string().contains("20 tokens"), "{e}");
    // A text that is too long for the model is truncated, not rejected.
    let long = vec![Labelled { label: "1".into(), text: words(&[5; 100]), line: 1 }];
    classify(runtime(), &model, &tokenizer, &long, &TextOptions::default(), &Call::default()).unwrap();
}

/// Returns sentences of files of the Brown corpus, without the tags of the words.
fn brown(files: &[&str], count: usize) -> Vec<String> {
    let sentence = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().map(|token| token.rsplit_once('/').unwrap().0).collect();
        (words.len() > 8).then(|| words.join(" "))
    };
    let read = |file: &&str| std::fs::read_to_string(deps("corpus/brown").join(file)).unwrap();
    files.iter().map(read).flat_map(|text| text.lines().filter_map(sentence).collect::<Vec<_>>()).take(count).collect()
}

#[test]
fn embeddings_of_an_int8_model_are_close_and_its_probe_as_good() {
    let folder = deps("models/paraphrase-MiniLM-L3-v2");
    let model = Model::load(&folder).unwrap();
    let tokenizer = Tokenizer::of(&model).unwrap().unwrap();
    let (small, _) = quantize(&model, &QuantizeOptions::default(), &Call::default()).unwrap();
    let texts = brown(&["ca01"], 40);
    let text = TextOptions { threads: 1, ..TextOptions::default() };
    let compare =
        |other| compare_embeddings(runtime(), &model, other, &tokenizer, &texts, &text, &Call::default()).unwrap();
    let (same, close) = (compare(&model), compare(&small));
    assert!(same.cosine > 1.0 - 1e-12 && same.nearest_kept == 1.0, "{same:?}");
    assert!(close.cosine > 0.99 && close.cosine < 0.99999 && close.cosine_min <= close.cosine_p1, "{close:?}");
    assert_eq!((close.texts, close.width, close.pooling), (40, 384, None));

    // The classes are government documents and romance novels.
    let of = |files: &[&str], label: &str| -> Vec<Labelled> {
        brown(files, 80).into_iter().map(|text| Labelled { label: label.into(), text, line: 0 }).collect()
    };
    let rows = [of(&["ch01", "ch05"], "government"), of(&["cp01", "cp05"], "romance")].concat();
    let options = ProbeOptions { text, ..ProbeOptions::default() };
    let both = compare_probes(runtime(), &model, &small, &tokenizer, &rows, &options, &Call::default()).unwrap();
    println!("{both:?}");
    let probe = &both.probes.original;
    assert_eq!((probe.scores.samples, probe.train_samples), (32, 128));
    assert!(probe.scores.accuracy > 0.85 && probe.train_accuracy > probe.scores.accuracy - 0.05 && probe.converged);
    assert!(both.accuracy_change.value.abs() < 0.1);
    let alone = probe_accuracy(runtime(), &model, &tokenizer, &rows, &options, &Call::default()).unwrap();
    assert_eq!(alone, *probe);
}

#[test]
fn a_task_by_its_name_reports_what_it_used_and_found() {
    let model = Model::load(&fixture("checkpoints/qwen3")).unwrap();
    let tokenizer = numbers(150);
    let text = words(&(0..100).map(|i| i * 13 % 150).collect::<Vec<_>>());
    let options = EvaluateOptions { threads: 1, stride: 20, ..EvaluateOptions::default() };
    let evaluate = |model: &Model, data: &str, options| {
        evaluate(runtime(), model, None, &tokenizer, data, options, &Call::default())
    };
    let report: Value = serde_json::from_str(&evaluate(&model, &text, &options).unwrap().to_json()).unwrap();
    assert_eq!((&report["operation"], &report["options"]["task"]), (&json!("evaluate"), &json!("perplexity")));
    assert_eq!((&report["quality"]["task"], &report["quality"]["stride"]), (&json!("perplexity"), &json!(20)));
    assert!(report["quality"]["perplexity"].as_f64().unwrap() > 1.0);
    let encoder = Model::load(&fixture("encoders/bert")).unwrap();
    let e = evaluate(&encoder, "w1 w2", &options).unwrap_err();
    assert!(e.kind() == Kind::InvalidArgument && e.to_string().contains("`against`"), "{e}");
    let masked = Model::load(&fixture("encoders/bert-masked")).unwrap();
    assert!(evaluate(&masked, "w1 w2", &options).unwrap_err().to_string().contains("name a task"));
    let probe = EvaluateOptions { task: Some(EvaluateTask::Probe), ..options.clone() };
    assert!(evaluate(&encoder, "a,w1 w2\na,w3", &probe).unwrap_err().to_string().contains("one class"));
}

fn optimize(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_optimize"));
    if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        command.env("ORT_DYLIB_PATH", deps("onnxruntime/libonnxruntime.so.1"));
    }
    command.arg("evaluate").args(arguments).output().unwrap()
}

#[test]
fn the_command_prints_a_table_or_json_and_has_gates() {
    let folder = scratch("evaluate");
    let write = |name: &str, content: &str| {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let tokenizer = write("tokenizer.json", &numbered(60, Join::Spaces));
    let text = write("text.txt", &words(&(0..200).map(|i| i * 13 % 60).collect::<Vec<_>>()));
    let rows = write("rows.tsv", "label\ttext\nLABEL_0\tw1 w2\nLABEL_1\tw3 w4\n2\tw5\n");
    let (llama, bert) = (fixture("checkpoints/llama"), fixture("encoders/bert-classify"));
    let (llama, bert) = (llama.to_str().unwrap(), bert.to_str().unwrap());
    let common = ["--tokenizer", &tokenizer, "--threads", "1"];
    let run = |arguments: &[&str]| optimize(&[&common, arguments].concat());
    let stdout = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap();

    let done = run(&["--model", llama, "--data", &text]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(stdout(&done).contains("perplexity") && stdout(&done).contains("199 tokens scored in 6 windows of 64"));
    let done = run(&["--model", llama, "--against", llama, "--data", &text, "--json"]);
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(
        (&report["quality"]["ratio"]["value"], &report["quality"]["verdict"]),
        (&json!(1.0), &json!("no difference"))
    );
    assert_eq!(report["input"]["sha256"], report["output"]["sha256"]);
    let done = run(&["--model", bert, "--data", &rows, "-v"]);
    assert!(stdout(&done).contains("accuracy") && stdout(&done).contains("as LABEL_"), "{}", stdout(&done));

    let broken = write("broken.tsv", "LABEL_0\tw1\nLABEL_7\tw2\n");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--model", llama, "--data", &text, "--max-perplexity", "1"], 3, "perplexity"),
        (&["--model", llama, "--data", &text, "--against", llama, "--max-perplexity-ratio", "0.99"], 3, "ratio"),
        (&["--model", llama, "--data", &text, "--against", llama, "--max-perplexity-ratio", "1.01"], 0, ""),
        (&["--model", llama, "--data", &text, "--min-cosine", "0.9"], 3, "no cosine"),
        (&["--model", bert, "--data", &rows, "--min-accuracy", "1.01"], 3, "accuracy"),
        (&["--model", bert, "--data", &broken], 2, "broken.tsv: line 2"),
        (&["--model", llama, "--data", "/nowhere"], 1, "/nowhere"),
        (&["--model", bert, "--data", &rows, "--task", "embedding"], 2, "`against`"),
        (&["--model", llama, "--data", &text, "--context-length", "65"], 2, "64"),
    ];
    for (arguments, code, phrase) in cases {
        let done = run(arguments);
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(*code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(phrase), "{arguments:?}: {stderr}");
    }
}
