//! Two equivalent models under different ids: classes in another order, tokens under other ids. Every comparison of
//! two models must map the ids or fail.

mod support;

use optimize::benchmark::{BenchmarkOptions, benchmark};
use optimize::call::Call;
use optimize::distill::{Corpus, DistillOptions, distill};
use optimize::ensemble::{Ensemble, EnsembleOptions, MergeOptions, merge};
use optimize::evaluate::*;
use optimize::inputs::InputOptions;
use optimize::model::{Model, SideContent, SideFile};
use optimize::onnx::proto::TensorProto;
use optimize::open::load;
use optimize::source::{Dialect, LoadOptions};
use optimize::text::Tokenizer;
use serde_json::{Map, Value, json};
use std::ops::ControlFlow;
use std::path::Path;
use support::runtime;
use support::words::{Join, tokenizer_of};

fn cases() -> usize {
    // Each case creates sessions, so there are a tenth as many as in tests without sessions.
    let asked = std::env::var("OPTIMIZE_PROPERTY_CASES").ok().and_then(|count| count.parse().ok());
    asked.unwrap_or(80usize).div_ceil(10)
}

fn fixture(name: &str) -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    load(&path, &LoadOptions { dialect: Dialect::Portable }).unwrap()
}

/// A generator of pseudorandom numbers (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        (1..count).rev().for_each(|at| order.swap(at, self.below(at + 1)));
        order
    }
}

/// Reorders the rows of a tensor: row `order[i]` becomes row `i`.
fn reorder_rows(tensor: &mut TensorProto, order: &[usize]) {
    let raw = tensor.raw_data.take().unwrap();
    let width = raw.len() / tensor.dims[0] as usize;
    let rows: Vec<u8> = (0..tensor.dims[0] as usize)
        .flat_map(|row| {
            let from = order.get(row).copied().unwrap_or(row);
            raw[from * width..(from + 1) * width].to_vec()
        })
        .collect();
    tensor.raw_data = Some(rows.into());
}

/// Returns the model with the rows of the tensors whose names end with one of `ends` in another order.
fn reordered(model: &Model, ends: &[&str], order: &[usize]) -> Model {
    let mut proto = model.proto().clone();
    let mut count = 0;
    for tensor in &mut proto.graph.as_mut().unwrap().initializer {
        if ends.iter().any(|end| tensor.name.as_ref().unwrap().ends_with(end)) {
            reorder_rows(tensor, order);
            count += 1;
        }
    }
    assert_eq!(count, ends.len());
    model.derive(proto)
}

fn named(model: Model, names: &[&str]) -> Model {
    let mut card = model.card().clone();
    let labels: Map<String, Value> = names.iter().enumerate().map(|(i, name)| (i.to_string(), json!(name))).collect();
    card.config.insert("id2label".into(), Value::Object(labels));
    model.with_card(card)
}

/// Returns a tokenizer in which the word `w{order[id]}` is token `id`.
fn words(order: &[usize]) -> String {
    tokenizer_of(order.iter().map(|word| format!("w{word}")), Join::Fuse)
}

fn speaking(model: Model, order: &[usize]) -> Model {
    let mut card = model.card().clone();
    card.side_files.retain(|file| !file.name.contains("token"));
    let content = SideContent::Bytes(words(order).into());
    card.side_files.push(SideFile { name: "tokenizer.json".into(), content });
    model.with_card(card)
}

fn texts(random: &mut Random, vocabulary: usize) -> Vec<String> {
    let text = |random: &mut Random| {
        let count = 3 + random.below(8);
        (0..count).map(|_| format!("w{}", random.below(vocabulary))).collect::<Vec<_>>().join(" ")
    };
    (0..6).map(|_| text(random)).collect()
}

fn quick() -> BenchmarkOptions {
    BenchmarkOptions { runs: 1, warmup: 0, threads: 1, ..BenchmarkOptions::default() }
}

/// Returns the scores of a classifier on texts, one text at a time.
fn probabilities(model: &Model, tokenizer: &Tokenizer, rows: &[Labelled]) -> ClassScores {
    let options = TextOptions { threads: 1, ..TextOptions::default() };
    classify(runtime(), model, tokenizer, rows, &options, &Call::default()).unwrap()
}

#[test]
fn classes_in_another_order_are_compared_fused_and_measured_by_name() {
    const NAMES: [&str; 3] = ["neg", "neu", "pos"];
    let a = named(speaking(fixture("encoders/bert-classify"), &(0..60).collect::<Vec<_>>()), &NAMES);
    let tokenizer = Tokenizer::of(&a).unwrap().unwrap();
    let options = TextOptions { threads: 1, ..TextOptions::default() };
    let mut random = Random(1);
    for _ in 0..cases() {
        let order = random.order(3);
        let b = reordered(&a, &["classifier.weight", "classifier.bias"], &order);
        let b = named(b, &order.iter().map(|class| NAMES[*class]).collect::<Vec<_>>());
        let same = order.is_sorted();
        let texts = texts(&mut random, 60);
        let row = |(i, text): (usize, &String)| Labelled { label: "neg".into(), text: text.clone(), line: i + 1 };
        let rows: Vec<Labelled> = texts.iter().enumerate().map(row).collect();
        let found = compare_classification(runtime(), &a, &b, &tokenizer, &rows, &options, &Call::default()).unwrap();
        assert_eq!((found.agreement, found.accuracy_change.value), (1.0, 0.0), "{order:?}");
        assert_eq!(found.scores.original.accuracy, found.scores.result.accuracy);
        assert_eq!(class_agreement(runtime(), &a, &b, &tokenizer, &texts, &options, &Call::default()).unwrap(), 1.0);
        let ensemble = Ensemble::new(vec![a.clone(), b.clone()], EnsembleOptions::default()).unwrap();
        assert_eq!(ensemble.notes().is_empty(), same, "{:?}", ensemble.notes());
        let (fused, _) = ensemble.fuse(&Call::default()).unwrap();
        let one = probabilities(&a, &tokenizer, &rows);
        assert_eq!(probabilities(&fused, &tokenizer, &rows).confusion, one.confusion);
        assert_eq!(merge(&[a.clone(), b.clone()], None, &MergeOptions::default(), &Call::default()).is_ok(), same);
        let options = BenchmarkOptions { inputs: InputOptions { texts, ..Default::default() }, ..quick() };
        let (report, quality) = benchmark(runtime(), &a, &b, Some(&tokenizer), &options, &Call::default()).unwrap();
        assert!(quality.max_abs_error.unwrap() < 1e-5 && quality.top1_agreement == Some(1.0), "{quality:?}");
        assert_eq!(report.notes.is_empty(), same);
    }
    let other = named(a.clone(), &["neg", "neu", "mixed"]);
    let e = Ensemble::new(vec![a.clone(), other.clone()], EnsembleOptions::default()).err().unwrap().to_string();
    assert!(e.contains("member 1 are neg, neu, pos, those of member 2 neg, neu, mixed"), "{e}");
    let rows = [Labelled { label: "neg".into(), text: "w1 w2".into(), line: 1 }];
    assert!(compare_classification(runtime(), &a, &other, &tokenizer, &rows, &options, &Call::default()).is_err());
    println!("{} orders", cases());
}

#[test]
fn a_student_learns_the_classes_of_its_teacher_by_name() {
    let a = named(speaking(fixture("encoders/bert-classify"), &(0..60).collect::<Vec<_>>()), &["x", "y", "z"]);
    let b = named(reordered(&a, &["classifier.weight", "classifier.bias"], &[2, 0, 1]), &["z", "x", "y"]);
    let mut random = Random(2);
    let lines: String =
        (0..8).flat_map(|_| texts(&mut random, 60)).map(|text| json!({ "text": text }).to_string() + "\n").collect();
    let corpus = Corpus::from_json_lines(&lines).unwrap();
    let options = DistillOptions { max_steps: 1, threads: 1, ..DistillOptions::default() };
    let run = |teacher: &Model, student: &Model| {
        distill(runtime(), teacher, student, &corpus, &options, &|_| ControlFlow::Continue(()), &Call::default())
    };
    let (_, report) = run(&a, &b).unwrap();
    assert!(report.summary["loss_before"].as_f64().unwrap().abs() < 1e-6, "{:?}", report.summary["loss_before"]);
    assert!(report.warnings.len() == 1 && report.warnings[0].contains("another order"), "{:?}", report.warnings);
    assert_eq!(report.quality.unwrap()["before"]["agreement"], 1.0);
    assert!(run(&named(a.clone(), &["x", "y", "w"]), &b).err().unwrap().to_string().contains("the teacher x, y, w"));
    // A token that only one of the models has is a different token under the same id.
    let mut order: Vec<usize> = (0..60).collect();
    order[7] = 99;
    let e = run(&speaking(a, &order), &b).err().unwrap().to_string();
    assert!(e.contains("id 7 is \"w99\" in one and \"w7\" in the other"), "{e}");
}

#[test]
fn tokens_under_other_ids_are_read_with_their_own_tokenizer_or_refused() {
    let a = speaking(fixture("encoders/bert"), &(0..60).collect::<Vec<_>>());
    let tokenizer = Tokenizer::of(&a).unwrap().unwrap();
    let options = TextOptions { threads: 1, ..TextOptions::default() };
    let mut random = Random(3);
    for _ in 0..cases() {
        let mut order = random.order(60);
        if random.below(4) == 0 {
            order.sort_unstable();
        }
        let same = order.is_sorted();
        let b = speaking(reordered(&a, &["word_embeddings.weight"], &order), &order);
        let texts = texts(&mut random, 60);
        let found = compare_embeddings(runtime(), &a, &b, &tokenizer, &texts, &options, &Call::default()).unwrap();
        assert!(found.cosine_min > 1.0 - 1e-6, "{found:?}");
        let options =
            BenchmarkOptions { inputs: InputOptions { texts: texts.clone(), ..Default::default() }, ..quick() };
        let (report, quality) = benchmark(runtime(), &a, &b, Some(&tokenizer), &options, &Call::default()).unwrap();
        assert!(quality.max_abs_error.unwrap() < 1e-4, "{quality:?}");
        assert_eq!(report.notes.is_empty(), same);
        let both = vec![a.clone(), b.clone()];
        assert_eq!(Ensemble::new(both.clone(), EnsembleOptions::default()).is_ok(), same);
        assert_eq!(merge(&both, None, &MergeOptions::default(), &Call::default()).is_ok(), same);
    }
    println!("{} vocabularies", cases());
}

#[test]
fn writers_of_other_ids_cannot_be_compared_token_by_token() {
    let ids: Vec<usize> = (0..150).collect();
    let a = speaking(fixture("checkpoints/llama"), &ids);
    let tokenizer = Tokenizer::of(&a).unwrap().unwrap();
    let text = texts(&mut Random(4), 150).join(" ");
    let options = PerplexityOptions { threads: 1, ..PerplexityOptions::default() };
    let compare = |b: &Model| compare_perplexity(runtime(), &a, b, &tokenizer, &text, &options, &Call::default());
    assert_eq!(compare(&a).unwrap().ratio.value, 1.0);
    let mut moved = ids.clone();
    moved.swap(20, 21);
    let b = speaking(a.clone(), &moved);
    let e = compare(&b).err().unwrap().to_string();
    assert!(e.contains("different vocabularies") && e.contains("bits per byte"), "{e}");
    let e = benchmark(runtime(), &a, &b, Some(&tokenizer), &quick(), &Call::default()).unwrap_err().to_string();
    assert!(e.contains("different vocabularies"), "{e}");
    // The models have the same words, but split texts differently: they are compared on the original's tokens, with a
    // note.
    let mut card = a.card().clone();
    let lower = words(&ids).replace("\"normalizer\":null", "\"normalizer\":{\"type\":\"Lowercase\"}");
    card.side_files.last_mut().unwrap().content = SideContent::Bytes(lower.into());
    let lower = a.clone().with_card(card);
    assert_eq!(compare(&lower).unwrap().ratio.value, 1.0);
    // A member of an ensemble without a tokenizer uses the tokens of the first member, with a note.
    let mut card = a.card().clone();
    card.side_files.clear();
    let bare = fixture("checkpoints/llama").with_card(card);
    let ensemble = Ensemble::new(vec![a.clone(), bare], EnsembleOptions::default()).unwrap();
    assert!(ensemble.notes()[0].contains("member 2 has no tokenizer"), "{:?}", ensemble.notes());
}
