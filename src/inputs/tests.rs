//! Tests of batches for hand-made signatures.

use super::{Batch, InputOptions, Source};
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::*;
use crate::runtime::{Tensor, test_deps};
use crate::text::Tokenizer;

const MINI_LM: &str = "models/paraphrase-MiniLM-L3-v2";

/// Returns a model with these inputs, and an embedding table of 50 rows for `input_ids`.
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

fn tensor<'a>(set: &'a Batch, name: &str) -> &'a Tensor {
    &set.inputs.iter().find(|t| t.0 == name).unwrap().1
}

fn refusal(model: &Model, options: &InputOptions) -> String {
    let made = Source::new(model, None, options).and_then(|source| source.timing().map(drop));
    made.unwrap_err().to_string()
}

#[test]
fn inputs_are_made_from_the_signature() {
    let values = vec![("temperature".to_owned(), vec![0.7])];
    let options = InputOptions { batch_size: 2, sequence_length: 6, values, ..Default::default() };
    let model = decoder();
    let source = Source::new(&model, None, &options).unwrap();
    assert_eq!((source.name(), source.count(), source.vocabularies()), ("generated", 8, vec![50]));
    let set = source.timing().unwrap();
    let shapes: Vec<Vec<i64>> = set.shapes().into_iter().map(|s| s.1).collect();
    assert_eq!(shapes, [vec![2, 6], vec![2, 6], vec![2, 6], vec![2, 3, 0, 4], vec![]]);
    let ids = tensor(&set, "input_ids").as_slice::<i64>().unwrap();
    assert!(ids.iter().all(|id| (0..50).contains(id)));
    assert_eq!(tensor(&set, "attention_mask").as_slice::<i64>().unwrap(), [1; 12]);
    assert_eq!(tensor(&set, "position_ids").as_slice::<i32>().unwrap()[..7], [0, 1, 2, 3, 4, 5, 0]);
    assert_eq!(tensor(&set, "temperature").as_slice::<f32>().unwrap(), [0.7]);
    assert_eq!(source.set(0).unwrap().inputs[0].1.bytes(), set.inputs[0].1.bytes());
    assert_ne!(source.set(1).unwrap().inputs[0].1.bytes(), set.inputs[0].1.bytes());
    assert_eq!(set.mask, None);
}

#[test]
fn what_the_caller_gives_holds_for_the_other_inputs_too() {
    let model = decoder();
    let shapes = vec![("input_ids".to_owned(), vec![3, 5]), ("temperature".to_owned(), vec![])];
    let options = InputOptions { shapes, ..Default::default() };
    let set = Source::new(&model, None, &options).unwrap().timing().unwrap();
    assert_eq!(tensor(&set, "position_ids").shape(), [3, 5]);
    assert_eq!(tensor(&set, "attention_mask").shape(), [3, 5]);
    let named = |name: &str, shape: &[i64]| InputOptions {
        shapes: vec![(name.to_owned(), shape.to_vec())],
        ..Default::default()
    };
    assert!(refusal(&model, &named("ids", &[1])).contains("no input \"ids\"; the inputs are input_ids, "));
    assert!(refusal(&model, &named("past_key_values.0.key", &[1, 2, 0, 4])).contains("does not fit"));
    let values = vec![("temperature".to_owned(), vec![0.7, 0.8])];
    let e = refusal(&model, &InputOptions { values, ..Default::default() });
    let texts = InputOptions { texts: vec!["a".into()], ..Default::default() };
    assert!(refusal(&model, &texts).contains("no tokenizer"));
    assert!(e.contains("input \"temperature\": 2 values were given, but the shape [] needs 1"), "{e}");
}

#[test]
fn texts_become_inputs_of_the_models_types() {
    use DataType::*;
    let tokenizer = Tokenizer::load(&test_deps(MINI_LM)).unwrap();
    let inputs: [(&str, DataType, &[&str]); 3] =
        [("input_ids", Int32, &["b", "s"]), ("attention_mask", Float32, &["b", "s"]), ("hidden", Float32, &["b", "s"])];
    let model = model(&inputs);
    let texts = ["one two three four", "one", "three"].map(str::to_owned).to_vec();
    let options = InputOptions { texts, batch_size: 2, ..Default::default() };
    let source = Source::new(&model, Some(&tokenizer), &options).unwrap();
    assert_eq!((source.name(), source.count()), ("text", 2));
    let set = source.timing().unwrap();
    assert_eq!(tensor(&set, "input_ids").as_slice::<i32>().unwrap()[6..], [101, 2028, 102, 0, 0, 0]);
    assert_eq!(tensor(&set, "attention_mask").as_slice::<f32>().unwrap()[6..], [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
    assert_eq!(tensor(&set, "hidden").shape(), [2, 6]);
    let mask = set.mask.unwrap();
    assert_eq!((mask.shape, mask.keep[6..].iter().filter(|k| **k).count()), ([2, 6], 3));
    let last = source.set(1).unwrap();
    assert_eq!((last.samples, tensor(&last, "input_ids").shape()), (1, &[1i64, 3][..]));
    let exact = InputOptions { sequence_length: 40, ..options };
    let source = Source::new(&model, Some(&tokenizer), &exact).unwrap();
    let set = source.timing().unwrap();
    assert_eq!(tensor(&set, "input_ids").shape(), [2, 40]);
    assert!(set.mask.unwrap().keep.iter().all(|k| *k));
}

#[test]
fn texts_that_are_cut_are_counted() {
    let tokenizer = Tokenizer::load(&test_deps(MINI_LM)).unwrap();
    let texts = vec!["one two".to_owned(), "one ".repeat(600)];
    let options = InputOptions { texts, batch_size: 2, ..Default::default() };
    let cut = |dims: &[&str], options: &InputOptions, longest: Option<usize>| {
        let model = model(&[("input_ids", DataType::Int64, dims)]);
        let source = Source::new(&model, Some(&tokenizer), options).unwrap();
        let source = longest.into_iter().fold(source, Source::up_to);
        source.set(0).unwrap().truncated.iter().map(|c| (c.text, c.tokens, c.kept)).collect::<Vec<_>>()
    };
    assert_eq!(cut(&["b", "s"], &options, None), [(1, 602, 512)]);
    assert_eq!(cut(&["b", "s"], &options, Some(602)), []);
    assert_eq!(cut(&["b", "s"], &options, Some(3)), [(0, 4, 3), (1, 602, 3)]);
    assert_eq!(cut(&["b", "s"], &InputOptions { sequence_length: 9, ..options.clone() }, Some(3)), [(1, 602, 9)]);
    assert_eq!(cut(&["3", "8"], &options, Some(3)), [(1, 602, 8)]);
}

#[test]
fn sizes_the_model_insists_on_are_kept() {
    let tokenizer = Tokenizer::load(&test_deps(MINI_LM)).unwrap();
    let model = model(&[("input_ids", DataType::Int64, &["2", "8"]), ("input_mask", DataType::Int64, &["2", "8"])]);
    let texts = vec!["one two".to_owned(), "three".to_owned(), "four".to_owned()];
    let options = InputOptions { texts, ..Default::default() };
    let source = Source::new(&model, Some(&tokenizer), &options).unwrap();
    assert_eq!(tensor(&source.timing().unwrap(), "input_mask").as_slice::<i64>().unwrap(), [1; 16]);
    let last = source.set(1).unwrap();
    assert_eq!((source.count(), last.samples, tensor(&last, "input_ids").shape()), (2, 1, &[2i64, 8][..]));
    assert_eq!(tensor(&last, "input_mask").as_slice::<i64>().unwrap()[..8], [1, 1, 1, 0, 0, 0, 0, 0]);
    let wrong = InputOptions { sequence_length: 9, ..options };
    assert!(Source::new(&model, Some(&tokenizer), &wrong).is_err());
}
