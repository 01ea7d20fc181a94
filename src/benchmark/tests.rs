//! Inputs of hand-made signatures, and whole benchmarks of real models.

use super::inputs::Source;
use super::*;
use crate::error::Kind;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::*;
use crate::quantize::{QuantizeOptions, quantize};
use crate::runtime::{Tensor, test_deps, test_runtime};
use std::cell::RefCell;
use std::ops::ControlFlow;

const MINI_LM: &str = "models/paraphrase-MiniLM-L3-v2";

/// A model with these inputs, and an embedding table of 50 rows for `input_ids`.
fn model(inputs: &[(&str, DataType, &[&str])]) -> Model {
    let value = |(name, dtype, dims): &(&str, DataType, &[&str])| {
        let dim = |text: &&str| match text.parse() {
            Ok(size) => DimensionProto { dim_value: Some(size), ..Default::default() },
            Err(_) => DimensionProto { dim_param: Some(text.to_string()), ..Default::default() },
        };
        let shape = TensorShapeProto { dim: dims.iter().map(dim).collect(), ..Default::default() };
        let tensor =
            TensorTypeProto { elem_type: Some(dtype.to_onnx()), shape: Some(Box::new(shape)), ..Default::default() };
        let value_type = TypeProto { tensor_type: Some(Box::new(tensor)), ..Default::default() };
        ValueInfoProto { name: Some(name.to_string()), value_type: Some(Box::new(value_type)), ..Default::default() }
    };
    let graph = GraphProto {
        input: inputs.iter().map(value).collect(),
        initializer: vec![crate::graph::edit::float_tensor("table", &[50, 2], &[0.0; 100])],
        node: vec![crate::graph::edit::node("Gather", &["table", "input_ids"], &["rows"])],
        ..Default::default()
    };
    Model::from_proto(ModelProto { graph: Some(Box::new(graph)), ..Default::default() })
}

fn decoder() -> Model {
    use DataType::*;
    model(&[
        ("input_ids", Int64, &["batch_size", "sequence_length"]),
        ("attention_mask", Int64, &["batch_size", "past_sequence_length + sequence_length"]),
        ("position_ids", Int32, &["batch_size", "sequence_length"]),
        ("past_key_values.0.key", Float32, &["batch_size", "3", "past_sequence_length", "4"]),
        ("temperature", Float32, &[]),
    ])
}

fn tensor<'a>(set: &'a InputSet, name: &str) -> &'a Tensor {
    &set.tensors.iter().find(|t| t.0 == name).unwrap().1
}

fn refusal(original: &Model, result: &Model, options: &BenchmarkOptions) -> String {
    let made = Source::new(original, result, None, options).and_then(|source| source.timing().map(drop));
    made.unwrap_err().to_string()
}

#[test]
fn inputs_are_made_from_the_signature() {
    let values = vec![("temperature".to_owned(), vec![0.7])];
    let options = BenchmarkOptions { batch_size: 2, sequence_length: 6, values, ..Default::default() };
    let model = decoder();
    let source = Source::new(&model, &model, None, &options).unwrap();
    assert_eq!((source.name(), source.count(), source.vocabularies()), ("generated", 8, vec![50]));
    let set = source.timing().unwrap();
    let shapes: Vec<Vec<i64>> = set.shapes().into_iter().map(|s| s.1).collect();
    assert_eq!(shapes, [vec![2, 6], vec![2, 6], vec![2, 6], vec![2, 3, 0, 4], vec![]]);
    let ids = tensor(&set, "input_ids").as_slice::<i64>().unwrap();
    assert!(ids.iter().all(|id| (0..50).contains(id)));
    assert_eq!(tensor(&set, "attention_mask").as_slice::<i64>().unwrap(), [1; 12]);
    assert_eq!(tensor(&set, "position_ids").as_slice::<i32>().unwrap()[..7], [0, 1, 2, 3, 4, 5, 0]);
    assert_eq!(tensor(&set, "temperature").as_slice::<f32>().unwrap(), [0.7]);
    assert_eq!(source.set(0).unwrap().tensors[0].1.bytes(), set.tensors[0].1.bytes());
    assert_ne!(source.set(1).unwrap().tensors[0].1.bytes(), set.tensors[0].1.bytes());
    assert_eq!(set.mask, None);
}

#[test]
fn what_the_caller_gives_holds_for_the_other_inputs_too() {
    let model = decoder();
    let shapes = vec![("input_ids".to_owned(), vec![3, 5]), ("temperature".to_owned(), vec![])];
    let options = BenchmarkOptions { shapes, ..Default::default() };
    let set = Source::new(&model, &model, None, &options).unwrap().timing().unwrap();
    assert_eq!(tensor(&set, "position_ids").shape(), [3, 5]);
    assert_eq!(tensor(&set, "attention_mask").shape(), [3, 5]);
    let named = |name: &str, shape: &[i64]| BenchmarkOptions {
        shapes: vec![(name.to_owned(), shape.to_vec())],
        ..Default::default()
    };
    assert!(refusal(&model, &model, &named("ids", &[1])).contains("no input \"ids\"; the inputs are input_ids, "));
    assert!(refusal(&model, &model, &named("past_key_values.0.key", &[1, 2, 0, 4])).contains("does not fit"));
    let values = vec![("temperature".to_owned(), vec![0.7, 0.8])];
    let e = refusal(&model, &model, &BenchmarkOptions { values, ..Default::default() });
    assert!(e.contains("input \"temperature\": 2 values were given, but the shape [] needs 1"), "{e}");
}

#[test]
fn models_with_different_inputs_are_not_compared() {
    let options = BenchmarkOptions::default();
    let one = model(&[("input_ids", DataType::Int64, &["b"])]);
    let two = model(&[("input_ids", DataType::Int64, &["b"]), ("extra", DataType::Bool, &["1"])]);
    let other = model(&[("input_ids", DataType::Int32, &["b"])]);
    assert!(refusal(&one, &two, &options).contains("only the result has an input \"extra\""));
    assert!(refusal(&two, &one, &options).contains("only the original has an input \"extra\""));
    assert!(refusal(&one, &other, &options).contains("int64[b] in the original, but int32[b] in the result"));
    let texts = BenchmarkOptions { texts: vec!["a".into()], ..Default::default() };
    assert!(refusal(&one, &one, &texts).contains("no tokenizer"));
}

#[test]
fn texts_become_inputs_of_the_models_types() {
    use DataType::*;
    let tokenizer = Tokenizer::load(&test_deps(MINI_LM)).unwrap();
    let inputs: [(&str, DataType, &[&str]); 3] =
        [("input_ids", Int32, &["b", "s"]), ("attention_mask", Float32, &["b", "s"]), ("hidden", Float32, &["b", "s"])];
    let model = model(&inputs);
    let texts = ["one two three four", "one", "three"].map(str::to_owned).to_vec();
    let options = BenchmarkOptions { texts, batch_size: 2, ..Default::default() };
    let source = Source::new(&model, &model, Some(&tokenizer), &options).unwrap();
    assert_eq!((source.name(), source.count()), ("text", 2));
    let set = source.timing().unwrap();
    assert_eq!(tensor(&set, "input_ids").as_slice::<i32>().unwrap()[6..], [101, 2028, 102, 0, 0, 0]);
    assert_eq!(tensor(&set, "attention_mask").as_slice::<f32>().unwrap()[6..], [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
    assert_eq!(tensor(&set, "hidden").shape(), [2, 6]);
    let mask = set.mask.unwrap();
    assert_eq!((mask.shape, mask.keep[6..].iter().filter(|k| **k).count()), ([2, 6], 3));
    let last = source.set(1).unwrap();
    assert_eq!((last.samples, tensor(&last, "input_ids").shape()), (1, &[1i64, 3][..]));
    let exact = BenchmarkOptions { sequence_length: 40, ..options };
    let source = Source::new(&model, &model, Some(&tokenizer), &exact).unwrap();
    let set = source.timing().unwrap();
    assert_eq!(tensor(&set, "input_ids").shape(), [2, 40]);
    assert!(set.mask.unwrap().keep.iter().all(|k| *k));
}

#[test]
fn texts_that_are_cut_are_counted() {
    let tokenizer = Tokenizer::load(&test_deps(MINI_LM)).unwrap();
    let texts = vec!["one two".to_owned(), "one ".repeat(600)];
    let options = BenchmarkOptions { texts, batch_size: 2, ..Default::default() };
    let cut = |dims: &[&str], options: &BenchmarkOptions, longest: Option<usize>| {
        let model = model(&[("input_ids", DataType::Int64, dims)]);
        let source = Source::new(&model, &model, Some(&tokenizer), options).unwrap();
        let source = longest.into_iter().fold(source, Source::up_to);
        source.set(0).unwrap().cut.iter().map(|c| (c.text, c.tokens, c.kept)).collect::<Vec<_>>()
    };
    assert_eq!(cut(&["b", "s"], &options, None), [(1, 602, 512)]);
    assert_eq!(cut(&["b", "s"], &options, Some(602)), []);
    assert_eq!(cut(&["b", "s"], &options, Some(3)), [(0, 4, 3), (1, 602, 3)]);
    assert_eq!(cut(&["b", "s"], &BenchmarkOptions { sequence_length: 9, ..options.clone() }, Some(3)), [(1, 602, 9)]);
    assert_eq!(cut(&["3", "8"], &options, Some(3)), [(1, 602, 8)]);
}

#[test]
fn sizes_the_model_insists_on_are_kept() {
    let tokenizer = Tokenizer::load(&test_deps(MINI_LM)).unwrap();
    let model = model(&[("input_ids", DataType::Int64, &["2", "8"]), ("input_mask", DataType::Int64, &["2", "8"])]);
    let texts = vec!["one two".to_owned(), "three".to_owned(), "four".to_owned()];
    let options = BenchmarkOptions { texts, ..Default::default() };
    let source = Source::new(&model, &model, Some(&tokenizer), &options).unwrap();
    assert_eq!(tensor(&source.timing().unwrap(), "input_mask").as_slice::<i64>().unwrap(), [1; 16]);
    let last = source.set(1).unwrap();
    assert_eq!((source.count(), last.samples, tensor(&last, "input_ids").shape()), (2, 1, &[2i64, 8][..]));
    assert_eq!(tensor(&last, "input_mask").as_slice::<i64>().unwrap()[..8], [1, 1, 1, 0, 0, 0, 0, 0]);
    let wrong = BenchmarkOptions { sequence_length: 9, ..options };
    assert!(Source::new(&model, &model, Some(&tokenizer), &wrong).is_err());
}

/// Every number in a report must be one: JSON turns the others into null.
fn numbers_are_finite(value: &serde_json::Value, at: &str) {
    match value {
        serde_json::Value::Object(map) => map.iter().for_each(|(k, v)| numbers_are_finite(v, &format!("{at}.{k}"))),
        serde_json::Value::Null => panic!("{at} is null"),
        _ => {}
    }
}

#[test]
fn a_quantized_model_is_measured_against_its_original() {
    let folder = test_deps(MINI_LM);
    let original = Model::load(&folder).unwrap();
    let tokenizer = Tokenizer::load(&folder).unwrap();
    let (result, _) = quantize(&original, &QuantizeOptions::default(), &Call::default()).unwrap();
    let seen = RefCell::new(Vec::new());
    let progress = |p: crate::call::Progress<'_>| {
        seen.borrow_mut().push((p.stage.to_owned(), p.done, p.total));
        ControlFlow::Continue(())
    };
    let call = Call { progress: Some(&progress), ..Call::default() };
    for threads in [1, 2] {
        let options = BenchmarkOptions { threads, runs: 7, warmup: 1, ..Default::default() };
        let (speed, quality) =
            benchmark(test_runtime(), &original, &result, Some(&tokenizer), &options, &call).unwrap();
        assert!(quality.cosine.unwrap() > 0.98, "{quality:?}");
        assert!(quality.samples == 32 && quality.outputs.iter().all(|o| o.non_finite == 0));
        assert_eq!((speed.runs, speed.threads, speed.inputs), (7, threads, "text"));
        assert_eq!(speed.clock, if threads == 1 { "thread_cpu" } else { "wall" });
        assert!(speed.input_shapes.iter().all(|s| s.1 == [1, 128]), "{:?}", speed.input_shapes);
        assert!(speed.size_ratio > 3.0 && speed.speedup.low <= speed.speedup.high);
        let report = into_report(&options, &speed, &quality);
        numbers_are_finite(report.benchmark.as_ref().unwrap(), "benchmark");
        println!("{}", report.to_json());
    }
    assert!(seen.borrow().iter().all(|s| s.0 == "benchmark" && s.1 <= s.2));
    assert!(seen.borrow().last().is_some_and(|s| s.1 == s.2));
}

#[test]
fn a_model_equals_itself_on_generated_inputs() {
    let model = Model::load(&test_deps(MINI_LM)).unwrap();
    let options = BenchmarkOptions { runs: 5, warmup: 1, sequence_length: 8, threads: 1, ..Default::default() };
    let (speed, quality) = benchmark(test_runtime(), &model, &model, None, &options, &Call::default()).unwrap();
    assert_eq!((speed.inputs, quality.samples, quality.top1_agreement), ("generated", 8, Some(1.0)));
    assert!(quality.cosine.unwrap() > 1.0 - 1e-9 && quality.max_abs_error == Some(0.0));
    assert_eq!(speed.size_ratio, 1.0);
}

#[test]
fn refused_inputs_come_with_the_option_that_helps() {
    let model = Model::load(&test_deps(MINI_LM)).unwrap();
    let options = BenchmarkOptions { runs: 5, sequence_length: 2000, threads: 1, ..Default::default() };
    let e = benchmark(test_runtime(), &model, &model, None, &options, &Call::default()).unwrap_err();
    assert!(e.to_string().contains("`shapes` and `values`"), "{e}");
    let stop = crate::call::Cancel::new();
    stop.fire();
    let call = Call { cancel: Some(&stop), ..Call::default() };
    let e = benchmark(test_runtime(), &model, &model, None, &options, &call).unwrap_err();
    assert_eq!(e.kind(), Kind::Cancelled);
    for wrong in [
        BenchmarkOptions { runs: 0, ..Default::default() },
        BenchmarkOptions { batch_size: 0, ..Default::default() },
        BenchmarkOptions { max_seconds: f64::NAN, ..Default::default() },
    ] {
        let e = benchmark(test_runtime(), &model, &model, None, &wrong, &Call::default()).unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidArgument);
    }
}
