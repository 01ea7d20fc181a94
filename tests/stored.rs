//! Tests of the forms `stored int8` and `stored int4`: weights in 8 or 4 bits that ONNX Runtime converts to float,
//! because it has neither an integer kernel nor a kernel for blocks for their nodes. Each graph is run before and after
//! quantization, with all graph optimizations and with none.

#[path = "stored/models.rs"]
mod models;
#[path = "stored/refusals.rs"]
mod refusals;
mod support;

use models::{Case, FAMILIES, Random, case};
use optimize::call::Call;
use optimize::graph::edit::float_tensor;
use optimize::model::Model;
use optimize::onnx::dtype::DataType::{self, Float32};
use optimize::onnx::proto::*;
use optimize::onnx::save::encode;
use optimize::quantize::{QuantizeOptions, QuantizeType, forecast, quantize, quantize_with};
use optimize::report::Report;
use optimize::runtime::{OptimizationLevel, Session, SessionOptions, Tensor};
use std::path::Path;
use std::process::Command;
use support::build::*;
use support::{deps, runtime, scratch};

pub fn run_at(model: &Model, inputs: &[(String, Tensor)], options: &SessionOptions) -> Vec<(String, Tensor)> {
    let options = SessionOptions { threads: 1, ..options.clone() };
    let session = Session::new(runtime(), model, &options, &Call::default()).unwrap();
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    session.run(&inputs, &[], &Call::default()).unwrap()
}

pub fn run(model: &Model, inputs: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    run_at(model, inputs, &SessionOptions::default())
}

/// Returns the norm of the difference of the first outputs, relative to the norm of the first of both.
pub fn error(before: &[(String, Tensor)], after: &[(String, Tensor)]) -> f64 {
    let ((name, a), (other, b)) = (&before[0], &after[0]);
    assert_eq!((name, a.dtype(), a.shape()), (other, b.dtype(), b.shape()));
    let (a, b) = (a.to_f32_vec().unwrap(), b.to_f32_vec().unwrap());
    let length = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    length(&mut a.iter().zip(&b).map(|(a, b)| a - b)) / length(&mut a.iter().copied()).max(1e-12)
}

pub fn options(bits: u32) -> QuantizeOptions {
    let quantize_type = if bits == 8 { QuantizeType::Dynamic } else { QuantizeType::WeightOnly };
    QuantizeOptions { quantize_type, bits, min_elements: 256, ..Default::default() }
}

/// Quantizes a model and checks that the outputs agree at all optimization levels.
pub fn check(case: &Case, options: &QuantizeOptions, most: f64) -> (Model, Report) {
    let (result, report) =
        quantize(&case.model, options, &Call::default()).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let before = run(&case.model, &case.inputs);
    for optimization_level in [OptimizationLevel::All, OptimizationLevel::Disabled] {
        let options = SessionOptions { optimization_level, ..Default::default() };
        let found = error(&before, &run_at(&result, &case.inputs, &options));
        assert!(found < most && found > 0.0, "{}, {optimization_level:?}: relative error {found}", case.name);
    }
    (result, report)
}

pub fn size(model: &Model) -> usize {
    encode(model.proto()).concat().len()
}

/// Returns the operators of the graph that ONNX Runtime runs.
fn kernels(model: &Model, inputs: &[(String, Tensor)], folder: &Path) -> Vec<String> {
    let file = folder.join("optimized.onnx");
    run_at(model, inputs, &SessionOptions { optimized_model: Some(file.clone()), ..Default::default() });
    let made = Model::load(&file).unwrap();
    let mut kernels: Vec<String> = made.graph().node.iter().map(|n| n.op().to_owned()).collect();
    kernels.sort();
    kernels
}

#[test]
fn each_family_is_a_quarter_of_the_size_with_the_kernels_of_the_float_model() {
    let folder = scratch("stored-families");
    let mut random = Random::new(11);
    for family in FAMILIES {
        let case = loop {
            let case = case(family, &mut random, true);
            if !case.half && case.opset >= 7 {
                break case;
            }
        };
        let (result, report) = check(&case, &options(8), 0.03);
        assert!(report.nodes.iter().any(|n| n.action == "stored int8"), "{}: {:?}", case.name, report.nodes);
        assert_eq!(report.summary["nodes_quantized"], 0, "{}: {:?}", case.name, report.nodes);
        let (before, after) = (size(&case.model), size(&result));
        assert!(after * 100 < before * 40, "{}: {after} of {before} bytes", case.name);
        let wanted = kernels(&case.model, &case.inputs, &folder);
        assert_eq!(kernels(&result, &case.inputs, &folder), wanted, "{}", case.name);
    }
}

/// Returns the action on each node.
fn actions(report: &Report) -> Vec<(&str, &str)> {
    report.nodes.iter().map(|n| (n.name.as_str(), n.action)).collect()
}

#[test]
fn a_forecast_knows_which_weights_stay_at_8_bits() {
    let mut random = Random::new(5);
    let weight = |name: &str, dims: &[i64], random: &mut Random| {
        let values: Vec<f32> = (0..dims.iter().product::<i64>()).map(|_| random.normal() as f32 * 0.1).collect();
        float_tensor(name, dims, &values)
    };
    // 4 bits change channels of 48 inputs too much; those of 512 inputs do not change as much, and rows of 27 cannot be
    // divided into blocks.
    let weights = vec![
        weight("w1", &[48, 3, 3, 3], &mut random),
        weight("w2", &[512, 48, 1, 1], &mut random),
        weight("w3", &[64, 512, 1, 1], &mut random),
    ];
    let nodes = vec![
        op("Conv", &["x", "w1"], &["a"], &[]),
        op("Conv", &["a", "w2"], &["b"], &[]),
        op("Conv", &["b", "w3"], &["y"], &[]),
    ];
    let (x, y) = (value("x", Float32, &[1, 3, 8, 8]), value("y", Float32, &[1, 64, 6, 6]));
    let model = model(13, vec![x], vec![y], weights, nodes);
    let (result, report) = quantize(&model, &options(4), &Call::default()).unwrap();
    let done: Vec<&str> = report.nodes.iter().map(|n| n.action).collect();
    assert_eq!(done, ["stored int8", "stored int8", "stored int4"], "{:?}", report.nodes);
    let plan = forecast(&model, &options(4)).unwrap();
    assert_eq!(actions(&plan), actions(&report));
    let reasons = |report: &Report| report.nodes.iter().map(|n| n.reason.clone()).collect::<Vec<String>>();
    assert_eq!(reasons(&plan), reasons(&report));
    let (planned, made) = (plan.summary["bytes_after"].as_u64().unwrap() as f64, size(&result) as f64);
    assert!((0.95..1.05).contains(&(planned / made)), "{planned} planned, {made} made");
}

#[test]
fn any_shape_any_operator_set() {
    let cases: u64 = std::env::var("OPTIMIZE_PROPERTY_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    let (mut stored, mut small) = (0, 0);
    for number in 0..cases {
        let mut random = Random::new(number + 1000);
        let family = FAMILIES[random.index(FAMILIES.len())];
        let case = case(family, &mut random, false);
        let form = match random.index(4) {
            0 => options(4),
            1 => QuantizeOptions { bits: 8, ..options(4) },
            2 => QuantizeOptions { per_channel: false, ..options(8) },
            _ => options(8),
        };
        match quantize(&case.model, &form, &Call::default()) {
            Ok(_) => {
                let (result, report) = check(&case, &form, if form.bits == 8 { 0.04 } else { 0.3 });
                let quantized = report.nodes.iter().any(|n| n.action == "quantized");
                let (before, after) = (size(&case.model), size(&result));
                assert!(quantized || after < before, "{number} {}: {before}, {after} {:?}", case.name, report.nodes);
                let plan = forecast(&case.model, &form).unwrap();
                assert_eq!(actions(&plan), actions(&report), "{number} {}: {:?}", case.name, report.nodes);
                stored += 1;
            }
            Err(e) => {
                assert!(e.message().contains("elements") && e.message().contains("Alternatives"), "{number} {e}");
                assert_eq!(forecast(&case.model, &form).unwrap_err().message(), e.message());
                small += 1;
            }
        }
    }
    println!("{stored} models stored and run at both levels, {small} with too few elements");
    assert!(stored as u64 * 10 > cases * 6);
}

#[test]
fn four_bits_lie_two_a_byte_where_rows_allow_it() {
    let mut random = Random::new(3);
    for family in ["Conv", "LSTM", "MatMul of matrices", "Gemm, transposed", "left operand"] {
        let case = case(family, &mut random, true);
        let (result, report) = check(&case, &options(4), 0.25);
        let stored: Vec<_> = report.nodes.iter().map(|n| (n.action, n.reason.as_str())).collect();
        assert!(stored.iter().any(|(action, _)| *action == "stored int4"), "{}: {stored:?}", case.name);
        assert!(
            stored.iter().any(|(_, why)| why.contains("4.75 bits per weight") || why.contains("5.50 bits")),
            "{stored:?}"
        );
        let eight = quantize(&case.model, &options(8), &Call::default()).unwrap().0;
        assert!(size(&result) * 100 < size(&eight) * 92, "{} {} {}", case.name, size(&result), size(&eight));
        let plain = QuantizeOptions { symmetric: true, ..options(4) };
        assert!(size(&check(&case, &plain, 0.25).0) < size(&result));
    }
    // Rows of 27 cannot be divided into blocks: the report lists these weights with 8 bits.
    let node = op("Conv", &["x", "w"], &["y"], &[]);
    let (x, y) = (value("x", Float32, &[1, 3, 8, 8]), value("y", Float32, &[1, 64, 6, 6]));
    let model = model(13, vec![x], vec![y], vec![weight("w", &[64, 3, 3, 3])], vec![node]);
    let inputs = vec![("x".to_owned(), Tensor::from_f32(&[1, 3, 8, 8], smooth(192, 0.1)).unwrap())];
    let (_, report) =
        check(&Case { name: "rows of 27".into(), model, inputs, half: false, opset: 13 }, &options(4), 0.02);
    assert_eq!(report.nodes[0].action, "stored int8");
}

#[test]
fn what_takes_no_codes_gets_the_same_floats() {
    let mut random = Random::new(21);
    for (number, family) in FAMILIES.iter().filter(|family| **family != "a function").enumerate() {
        let case = case(family, &mut random, true);
        let form = options(if number % 2 == 0 { 8 } else { 4 });
        let (result, _) = quantize(&case.model, &form, &Call::default()).unwrap();
        let mut floats = result.proto().clone();
        assert!(optimize::graph::blocks::dequantize(&mut floats).unwrap() > 0, "{}", case.name);
        let floats = Model::from_proto(floats);
        let is_codes = |t: &TensorProto| matches!(t.data_type, Some(2 | 3));
        assert!(!floats.graph().initializer.iter().any(is_codes), "{}", case.name);
        let found = error(&run(&result, &case.inputs), &run(&floats, &case.inputs));
        assert!(found < 1e-5, "{}: {found}", case.name);
    }
}

/// Returns a network of convolutions around a dense layer, which has an integer form.
fn network() -> Case {
    let nodes = vec![
        NodeProto { name: Some("first".into()), ..op("Conv", &["x", "w1"], &["a"], &[]) },
        op("Relu", &["a"], &["b"], &[]),
        NodeProto { name: Some("second".into()), ..op("Conv", &["b", "w2"], &["c"], &[]) },
        op("GlobalAveragePool", &["c"], &["d"], &[]),
        op("Flatten", &["d"], &["e"], &[]),
        NodeProto { name: Some("head".into()), ..op("MatMul", &["e", "w3"], &["y"], &[]) },
    ];
    let scaled = |name: &str, dims: &[i64], factor: f32| {
        let values = smooth(dims.iter().product::<i64>() as usize, name.len() as f32 + factor);
        float_tensor(name, dims, &values.iter().map(|v| v * factor).collect::<Vec<f32>>())
    };
    let weights =
        vec![scaled("w1", &[16, 3, 3, 3], 0.3), scaled("w2", &[64, 16, 3, 3], 0.1), scaled("w3", &[64, 40], 0.2)];
    let (x, y) = (value("x", Float32, &[1, 3, 12, 12]), value("y", Float32, &[1, 40]));
    let model = model(13, vec![x], vec![y], weights, nodes);
    let inputs = vec![("x".to_owned(), Tensor::from_f32(&[1, 3, 12, 12], smooth(432, 0.4)).unwrap())];
    Case { name: "network".into(), model, inputs, half: false, opset: 13 }
}

#[test]
fn plans_limits_and_races_know_what_is_stored() {
    let case = network();
    let options = options(8);
    let (result, report) = check(&case, &options, 0.05);
    let actions: Vec<_> = report.nodes.iter().map(|n| (n.name.as_str(), n.action)).collect();
    assert_eq!(actions, [("first", "stored int8"), ("second", "stored int8"), ("head", "quantized")]);
    let summary = |report: &Report, key: &str| report.summary[key].as_u64().unwrap();
    let counts = ["nodes_quantized", "nodes_stored", "nodes_left"].map(|key| summary(&report, key));
    assert_eq!(counts, [1, 2, 0]);
    let plan = forecast(&case.model, &options).unwrap();
    assert_eq!(["nodes_quantized", "nodes_stored", "nodes_left"].map(|key| summary(&plan, key)), [1, 2, 0]);
    let (planned, made) = (summary(&plan, "bytes_after") as f64, size(&result) as f64);
    assert!((0.8..1.3).contains(&(planned / made)), "{planned} planned, {made} made");

    let with = |options: QuantizeOptions| quantize_with(runtime(), &case.model, &options, None, &Call::default());
    let loose = with(QuantizeOptions { max_quality_loss: 1.0, ..options.clone() }).unwrap();
    assert_eq!(summary(&loose.1, "nodes_stored"), 2);
    assert!(loose.1.nodes.iter().all(|n| n.sensitivity.is_some_and(|loss| loss > 0.0)), "{:?}", loose.1.nodes);
    let all: f64 = loose.1.nodes.iter().filter_map(|n| n.sensitivity).sum();
    let (some, left) = with(QuantizeOptions { max_quality_loss: all * 0.7, ..options.clone() }).unwrap();
    assert!(summary(&left, "nodes_left") > 0 && size(&some) > size(&result), "{:?}", left.nodes);
    assert!(left.nodes.iter().any(|n| n.reason.contains("max_quality_loss")), "{:?}", left.nodes);
    let target_size = size(&case.model) as u64 / 2;
    let (half, report) = with(QuantizeOptions { target_size, ..options.clone() }).unwrap();
    assert!(half.bytes() <= target_size && summary(&report, "nodes_stored") > 0);
    // Weights that are computed in float are never slower than the original, so they stay.
    let (_, raced) = with(QuantizeOptions { never_slower: true, threads: 1, ..options }).unwrap();
    assert_eq!(summary(&raced, "nodes_stored"), 2, "{:?}", raced.nodes);
}

fn samples(number: usize) -> Vec<f32> {
    let tone = |at: f32| (at * 0.055).sin() * (1.0 + 0.5 * (at * 0.0016).sin()) + 0.5 * (at * 0.27).sin();
    (0..576)
        .map(|i| tone((i + number * 512) as f32) * if (number / 20).is_multiple_of(2) { 0.3 } else { 0.01 })
        .collect()
}

/// Returns the outputs of silero-vad for a second and a half of audio: probabilities and states.
fn listen(model: &Model) -> Vec<f32> {
    let session = Session::new(runtime(), model, &SessionOptions::default(), &Call::default()).unwrap();
    let rate = Tensor::from_i64(&[], vec![16000]).unwrap();
    let mut state = Tensor::from_f32(&[2, 1, 128], vec![0.0; 256]).unwrap();
    let mut given = Vec::new();
    for number in 0..50 {
        let input = Tensor::from_f32(&[1, 576], samples(number)).unwrap();
        let feed = [("input", &input), ("state", &state), ("sr", &rate)];
        let mut outputs = session.run(&feed, &[], &Call::default()).unwrap();
        state = outputs.remove(1).1;
        given.extend(outputs[0].1.to_f32_vec().unwrap());
        given.extend(state.to_f32_vec().unwrap());
    }
    given
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Runs the command `quantize` and returns its output.
fn command(model: &Path, output: &Path, more: &[&str]) -> String {
    let (model, output) = (model.to_str().unwrap(), output.to_str().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_optimize"));
    let done = command.args(["quantize", "--model", model, "--output", output]).args(more).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn silero_vad_and_a_convolution_of_the_wheel_through_the_command() {
    let folder = scratch("stored-command");
    let (silero, small) = (deps("models/silero-vad/silero_vad.onnx"), folder.join("silero.onnx"));
    let printed = command(&silero, &small, &[]);
    assert!(printed.contains("0 nodes quantized, 14 stored int8, 0 left"), "{printed}");
    let bytes = |path: &Path| std::fs::metadata(path).unwrap().len() as f64;
    assert!(bytes(&small) < 0.31 * bytes(&silero), "{} of {}", bytes(&small), bytes(&silero));
    let (original, result) = (Model::load(&silero).unwrap(), Model::load(&small).unwrap());
    let alike = cosine(&listen(&original), &listen(&result));
    println!("silero-vad: {} of {} bytes, cosine {alike:.5}", bytes(&small), bytes(&silero));
    assert!(alike > 0.99, "{alike}");
    // The second time, there is nothing to quantize.
    let again = quantize(&result, &QuantizeOptions::default(), &Call::default()).err().unwrap();
    assert!(again.message().contains("is already quantized"), "{again}");

    let wheel = deps("onnx-tests/pytorch-operator/test_operator_conv/model.onnx");
    let out = folder.join("conv.onnx");
    let printed = command(&wheel, &out, &["-v", "--json"]);
    assert!(printed.contains("\"stored int8\""), "{printed}");
    assert!(bytes(&out) < 0.35 * bytes(&wheel), "{} of {}", bytes(&out), bytes(&wheel));
    let content = std::fs::read(wheel.with_file_name("test_data_set_0").join("input_0.pb")).unwrap();
    let proto: TensorProto = optimize::onnx::wire::Reader::new(content.into()).read_message().unwrap();
    let model = Model::load(&wheel).unwrap();
    let tensor = Tensor::new(DataType::Float32, &proto.dims, proto.raw_data.unwrap()).unwrap();
    let inputs = vec![(model.inputs()[0].name.clone(), tensor)];
    let found = error(&run(&model, &inputs), &run(&Model::load(&out).unwrap(), &inputs));
    assert!(found > 0.0 && found < 0.01, "{found}");
}
