//! Tests with small graphs that are each made for one rule: other shapes of cache, and none.

use super::*;
use crate::support::build;
use optimize::graph::edit;
use optimize::onnx::dtype::DataType;
use optimize::onnx::proto::ValueInfoProto;

/// Returns an input in which all open sizes (-1) are different.
fn open(name: &str, dtype: DataType, dims: &[i64]) -> ValueInfoProto {
    let mut value = build::value(name, dtype, dims);
    let shape = value.value_type.as_mut().unwrap().tensor_type.as_mut().unwrap().shape.as_mut().unwrap();
    for (at, dim) in shape.dim.iter_mut().enumerate().filter(|(_, dim)| dim.dim_value.is_none()) {
        dim.dim_param = Some(format!("{name}_{at}"));
    }
    value
}

/// Returns a model whose next token is twice the sum of all tokens in a row, modulo 50. Its cache has an older form,
/// `[2, batch, 1, tokens, 1]`, of type `dtype`. Like merged exports, it has an input that says whether there is a
/// past.
pub fn summing(dtype: DataType) -> Model {
    let ints = |name: &str, values: &[i64]| {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        edit::tensor(name, DataType::Int64, &[values.len() as i64], raw.into())
    };
    let floats = |name: &str, dims: &[i64], values: &[f32]| edit::float_tensor(name, dims, values);
    let range: Vec<f32> = (0..50).map(|v| v as f32).collect();
    let cast =
        |from: &str, to: &str, dtype: DataType| build::op("Cast", &[from], &[to], &[("to", dtype.to_onnx().into())]);
    let nodes = vec![
        cast("use_cache_branch", "flag", dtype),
        build::op("Mul", &["past_0", "flag"], &["past"], &[]),
        cast("input_ids", "f", dtype),
        build::op("Unsqueeze", &["f", "five"], &["u"], &[]),
        build::op("Concat", &["u", "u"], &["new"], &[("axis", 0)]),
        build::op("Concat", &["past", "new"], &["present_0"], &[("axis", 3)]),
        cast("present_0", "seen", DataType::Float32),
        build::op("ReduceSum", &["seen", "all"], &["sum"], &[("keepdims", 0)]),
        build::op("Mod", &["sum", "fifty"], &["m"], &[("fmod", 1)]),
        build::op("Unsqueeze", &["m", "three"], &["column"], &[]),
        build::op("Sub", &["range", "column"], &["d"], &[]),
        build::op("Abs", &["d"], &["a"], &[]),
        build::op("Neg", &["a"], &["n"], &[]),
        cast("n", "logits", dtype),
    ];
    let inputs = vec![
        open("input_ids", DataType::Int64, &[-1, -1]),
        open("attention_mask", DataType::Int64, &[-1, -1]),
        open("use_cache_branch", DataType::Bool, &[1]),
        open("past_0", dtype, &[2, -1, 1, -1, 1]),
    ];
    let outputs = vec![open("logits", dtype, &[-1, -1, 50]), open("present_0", dtype, &[2, -1, 1, -1, 1])];
    let initializers = vec![
        ints("five", &[0, 2, 4]),
        ints("all", &[0, 2, 3, 4]),
        ints("three", &[1, 2]),
        floats("fifty", &[], &[50.0]),
        floats("range", &[50], &range),
    ];
    build::model(17, inputs, outputs, initializers, nodes)
}

#[test]
fn a_cache_of_any_shape_and_type_is_kept() {
    let expected = |prompt: &[i64], count: usize| {
        let mut tokens = prompt.to_vec();
        (0..count).for_each(|_| tokens.push(2 * tokens.iter().sum::<i64>() % 50));
        tokens.split_off(prompt.len())
    };
    for dtype in [DataType::Float32, DataType::Float16] {
        let mut generator = generator(&summing(dtype), 1);
        assert!(!generator.decoder().pads && generator.decoder().use_cache_branch.is_some());
        let prompts: [&[i64]; 3] = [&[1, 2, 3], &[7], &[4, 4, 4, 4]];
        let got = tokens(&mut generator, &prompts, &exactly(30));
        for (prompt, got) in prompts.iter().zip(&got) {
            assert_eq!(got, &expected(prompt, 30));
        }
        generator.rewind(1, 25).unwrap();
        let again = generator.run(&exactly(25), None, &Call::default()).unwrap();
        assert_eq!(again[1].tokens, got[1][5..]);
        let logits = GenerateOptions { logprobs: Some(1), ..exactly(1) };
        assert_eq!(write(&mut generator, &[Prompt::Tokens(&[3])], &logits)[0].logprobs[0].top[0].token, 6);
    }
}

/// Returns a model without a cache, whose next token depends only on the last one: seven times it and 3, modulo 30.
pub fn next_by_table() -> Model {
    let table: Vec<f32> = (0..30 * 30).map(|i| if i % 30 == (i / 30 * 7 + 3) % 30 { 1.0 } else { 0.0 }).collect();
    build::model(
        17,
        vec![open("input_ids", DataType::Int64, &[-1, -1])],
        vec![open("logits", DataType::Float32, &[-1, -1, 30])],
        vec![edit::float_tensor("table", &[30, 30], &table)],
        vec![build::op("Gather", &["table", "input_ids"], &["logits"], &[])],
    )
}

#[test]
fn a_model_without_a_cache_reads_everything_again() {
    let got = tokens(&mut generator(&next_by_table(), 1), &[&[5], &[1, 2]], &exactly(4));
    assert_eq!(got, [[8, 29, 26, 5], [17, 2, 17, 2]]);
}
