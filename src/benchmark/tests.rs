//! Benchmarks of real models.

use super::pairing::same_inputs;
use super::*;
use crate::error::Kind;
use crate::model::{Dim, ValueInfo};
use crate::onnx::dtype::DataType;
use crate::quantize::{QuantizeOptions, quantize};
use crate::runtime::{test_deps, test_runtime};
use std::cell::RefCell;
use std::ops::ControlFlow;

const MINI_LM: &str = "models/paraphrase-MiniLM-L3-v2";

#[test]
fn models_with_different_inputs_are_not_compared() {
    let info = |name: &str, dtype| ValueInfo {
        name: name.into(),
        dtype: Some(dtype),
        shape: Some(vec![Dim::Symbolic("b".into())]),
    };
    let refusal = |a: &[ValueInfo], b: &[ValueInfo]| same_inputs(a, b).unwrap_err().to_string();
    let one = [info("input_ids", DataType::Int64)];
    let two = [info("input_ids", DataType::Int64), info("extra", DataType::Bool)];
    assert!(refusal(&one, &two).contains("only the result has an input \"extra\""));
    assert!(refusal(&two, &one).contains("only the original has an input \"extra\""));
    let other = [info("input_ids", DataType::Int32)];
    assert!(refusal(&one, &other).contains("int64[b] in the original, but int32[b] in the result"));
    // A model whose layers were dropped lacks their cache inputs.
    same_inputs(&[info("input_ids", DataType::Int64), info("past_key_values.0.key", DataType::Float32)], &one).unwrap();
}

/// Checks that every number in a report is finite: JSON turns the others into null.
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

fn of_length(sequence_length: usize, warmup: usize) -> BenchmarkOptions {
    let inputs = InputOptions { sequence_length, ..Default::default() };
    BenchmarkOptions { runs: 5, warmup, threads: 1, inputs, ..Default::default() }
}

#[test]
fn a_model_equals_itself_on_generated_inputs() {
    let model = Model::load(&test_deps(MINI_LM)).unwrap();
    let options = of_length(8, 1);
    let (speed, quality) = benchmark(test_runtime(), &model, &model, None, &options, &Call::default()).unwrap();
    assert_eq!((speed.inputs, quality.samples, quality.top1_agreement), ("generated", 8, Some(1.0)));
    assert!(quality.cosine.unwrap() > 1.0 - 1e-9 && quality.max_abs_error == Some(0.0));
    assert_eq!(speed.size_ratio, 1.0);
}

#[test]
fn refused_inputs_come_with_the_option_that_helps() {
    let model = Model::load(&test_deps(MINI_LM)).unwrap();
    let options = of_length(2000, 5);
    let e = benchmark(test_runtime(), &model, &model, None, &options, &Call::default()).unwrap_err();
    assert!(e.to_string().contains("`shapes` and `values`"), "{e}");
    let stop = crate::call::Cancel::new();
    stop.fire();
    let call = Call { cancel: Some(&stop), ..Call::default() };
    let e = benchmark(test_runtime(), &model, &model, None, &options, &call).unwrap_err();
    assert_eq!(e.kind(), Kind::Cancelled);
    for wrong in [
        BenchmarkOptions { runs: 0, ..Default::default() },
        BenchmarkOptions { inputs: InputOptions { batch_size: 0, ..Default::default() }, ..Default::default() },
        BenchmarkOptions { max_seconds: f64::NAN, ..Default::default() },
    ] {
        let e = benchmark(test_runtime(), &model, &model, None, &wrong, &Call::default()).unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidArgument);
    }
}
