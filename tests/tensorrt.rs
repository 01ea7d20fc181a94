//! Engines that TensorRT-RTX really builds, without a GPU: of text encoders, a decoder with its cache, a speech model
//! and small models of the `onnx` wheel; the error of lower precision on ONNX Runtime; and every way in which
//! building fails.

#[path = "tensorrt/refusals.rs"]
mod refusals;
mod support;

use optimize::call::{Call, Cancel, Progress};
use optimize::error::Kind;
use optimize::model::Model;
use optimize::onnx::save::ExternalData;
use optimize::open;
use optimize::report::Report;
use optimize::runtime::{Session, SessionOptions, Tensor};
use optimize::source::{Dialect, LoadOptions};
use optimize::tensorrt::{
    self, Choice, GivenProfile, Manifest, OpenOptions, Precision, TensorRtOptions, parse_dimensions, parse_shapes,
};
use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use support::{deps, lacks, runtime, scratch};

fn options() -> TensorRtOptions {
    TensorRtOptions {
        backend: Choice::TensorRtRtx,
        library: Some(deps("tensorrt-rtx")),
        threads: 1,
        ..TensorRtOptions::default()
    }
}

fn text(precision: Precision) -> TensorRtOptions {
    TensorRtOptions { precision, batch_size: 1, sequence_length: 16, ..options() }
}

fn build(model: &Model, at: &Path, options: &TensorRtOptions) -> optimize::error::Result<Report> {
    tensorrt::build(Some(runtime()), model, at, options, &Call::default())
}

fn minilm() -> Model {
    Model::load(&deps("models/paraphrase-MiniLM-L3-v2")).unwrap()
}

fn kind_of(outcome: optimize::error::Result<Report>) -> (Kind, String) {
    let error = outcome.err().unwrap();
    (error.kind(), error.to_string())
}

#[test]
fn an_engine_is_built_once_and_its_manifest_says_of_what() {
    if lacks("tensorrt-rtx") {
        return;
    }
    let (folder, model) = (scratch("tensorrt-once"), minilm());
    let engine = folder.join("a.engine");
    let seen = RefCell::new(Vec::new());
    let progress = |p: Progress<'_>| {
        if p.stage == "build" {
            seen.borrow_mut().push((p.done, p.total));
        }
        ControlFlow::Continue(())
    };
    let call = Call { progress: Some(&progress), ..Call::default() };
    let first = tensorrt::build(Some(runtime()), &model, &engine, &text(Precision::Fp16), &call).unwrap();
    assert_eq!(first.summary["reused"], false);
    assert!(seen.borrow().iter().any(|(done, total)| *done > 0 && done <= total), "{:?}", seen.borrow());
    let manifest = Manifest::read(&engine).unwrap().unwrap();
    let bytes = std::fs::read(&engine).unwrap();
    assert!(manifest.is_of(&bytes) && bytes.len() > 10_000_000);
    assert_eq!(manifest.key.model_sha256, model.identity(&Call::default()).unwrap().sha256);
    assert_eq!((manifest.key.backend.name(), manifest.key.compute_capability.as_str()), ("tensorrt-rtx", "none"));
    assert_eq!(manifest.key.profiles[0]["input_ids"]["max"], serde_json::json!([1, 16]));
    let relative = manifest.error.unwrap()["relative"].as_f64().unwrap();
    assert!(relative > 0.0 && relative < 0.01, "{relative}");

    let written = std::fs::metadata(&engine).unwrap().modified().unwrap();
    let second = build(&model, &engine, &text(Precision::Fp16)).unwrap();
    assert_eq!(second.summary["reused"], true);
    assert_eq!(std::fs::metadata(&engine).unwrap().modified().unwrap(), written);
    let other = TensorRtOptions { refuse_mismatch: true, ..text(Precision::Fp32) };
    let (kind, message) = kind_of(build(&model, &engine, &other));
    assert!(kind == Kind::Mismatch && message.contains("precision"), "{message}");
    let third = build(&model, &engine, &text(Precision::Fp32)).unwrap();
    assert!(third.summary["reused"] == false && third.summary["reason"].as_str().unwrap().contains("precision"));
    assert!(std::fs::metadata(&engine).unwrap().len() as f64 > 1.7 * bytes.len() as f64, "fp16 halves the weights");
}

#[test]
fn profiles_are_ranges_and_several() {
    if lacks("tensorrt-rtx") {
        return;
    }
    let (folder, model) = (scratch("tensorrt-profiles"), minilm());
    let ranges = TensorRtOptions { dimensions: parse_dimensions("batch=1:4:8,sequence=1:32:64").unwrap(), ..options() };
    let report = build(&model, &folder, &ranges).unwrap();
    let profiles = &report.summary["profiles"];
    assert_eq!(profiles[0]["attention_mask"], serde_json::json!({"min": [1, 1], "opt": [4, 32], "max": [8, 64]}));
    assert!(folder.join("model.engine").is_file() && folder.join("model.engine.json").is_file());
    let profile = |size: &str| GivenProfile {
        opt: parse_shapes(&format!("input_ids:{size},attention_mask:{size}")).unwrap(),
        ..GivenProfile::default()
    };
    let two = TensorRtOptions { profiles: vec![profile("1x16"), profile("8x16")], ..options() };
    let report = build(&model, &folder, &two).unwrap();
    assert_eq!(report.summary["profiles"].as_array().unwrap().len(), 2);
    let odd = TensorRtOptions { profiles: vec![profile("1x16x2")], ..options() };
    let (kind, message) = kind_of(build(&model, &folder, &odd));
    assert!(kind == Kind::InvalidArgument && message.contains("input_ids"), "{message}");
}

#[test]
fn a_decoder_keeps_its_cache_inputs() {
    if lacks("tensorrt-rtx") {
        return;
    }
    let folder = scratch("tensorrt-decoder");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints/llama");
    let model = open::load(&path, &LoadOptions { dialect: Dialect::Portable }).unwrap();
    for precision in [Precision::Fp32, Precision::Fp16, Precision::Bf16] {
        let options = TensorRtOptions {
            precision,
            batch_size: 1,
            dimensions: parse_dimensions("sequence=1:8:16,past=0:16:32").unwrap(),
            ..options()
        };
        let report = build(&model, &folder.join("d.engine"), &options).unwrap();
        let shapes = &report.summary["profiles"][0];
        assert!(shapes.as_object().unwrap().keys().any(|name| name.contains("past")), "{shapes}");
        println!("llama {}: {}", precision.name(), report.summary["error"]);
    }
}

#[test]
fn a_speech_model_is_built() {
    if lacks("tensorrt-rtx") {
        return;
    }
    let folder = scratch("tensorrt-speech");
    let model = Model::load(&deps("models/silero-vad/silero_vad_op18_ifless.onnx")).unwrap();
    let sizes: Vec<String> = model.inputs().iter().map(|info| info.describe()).collect();
    let speech = |precision| {
        let profile = GivenProfile { opt: parse_shapes("input:1x512,state:2x1x128").unwrap(), ..Default::default() };
        let options = TensorRtOptions { precision, profiles: vec![profile], batch_size: 1, ..options() };
        build(&model, &folder.join("v.engine"), &options)
    };
    speech(Precision::Fp32).unwrap_or_else(|e| panic!("{sizes:?}: {e}"));
    // All nodes are in the branches of one node, which stay unchanged.
    let (kind, message) = kind_of(speech(Precision::Fp16));
    assert!(kind == Kind::Unsupported && message.contains("with a subgraph"), "{message}");
}

/// Models with convolutions, pooling, norms, products and the nodes between them.
const WHEEL: [&str; 26] = [
    "pytorch-converted/test_AvgPool2d",
    "pytorch-converted/test_BatchNorm2d_eval",
    "pytorch-converted/test_ConstantPad2d",
    "pytorch-converted/test_Conv1d",
    "pytorch-converted/test_Conv1d_groups",
    "pytorch-converted/test_Conv2d",
    "pytorch-converted/test_Conv2d_depthwise",
    "pytorch-converted/test_Conv2d_strided",
    "pytorch-converted/test_Conv3d",
    "pytorch-converted/test_ConvTranspose2d",
    "pytorch-converted/test_ELU",
    "pytorch-converted/test_LeakyReLU",
    "pytorch-converted/test_MaxPool2d",
    "pytorch-converted/test_PixelShuffle",
    "pytorch-converted/test_ReLU",
    "pytorch-converted/test_SELU",
    "pytorch-converted/test_Sigmoid",
    "pytorch-converted/test_Softmax",
    "pytorch-converted/test_Tanh",
    "pytorch-converted/test_Conv2d_groups",
    "pytorch-converted/test_Conv2d_padding",
    "pytorch-converted/test_Conv1d_dilated",
    "pytorch-converted/test_Softplus",
    "pytorch-operator/test_operator_conv",
    "pytorch-operator/test_operator_concat2",
    "simple/test_single_relu_model",
];

#[test]
fn models_of_the_onnx_wheel_are_built_in_both_precisions() {
    if lacks("tensorrt-rtx") {
        return;
    }
    let folder = scratch("tensorrt-wheel");
    let mut built = 0;
    for name in WHEEL {
        let model = Model::load(&deps("onnx-tests").join(name).join("model.onnx")).unwrap();
        build(&model, &folder.join("w.engine"), &options()).unwrap_or_else(|e| panic!("{name}: {e}"));
        built += 1;
        let half = TensorRtOptions { precision: Precision::Fp16, ..options() };
        match build(&model, &folder.join("w.engine"), &half) {
            Ok(report) => {
                let relative = report.summary["error"]["relative"].as_f64().unwrap();
                println!("{name}: {relative:.2e}");
                assert!(relative <= 0.01, "{name}: {relative}");
                built += 1;
            }
            // A model with only a softmax has nothing to lower, and ONNX Runtime has no kernel for some operators of
            // 2017.
            Err(e) => {
                let reasons = ["delicate", "Could not find an implementation"];
                assert!(reasons.iter().any(|reason| e.message().contains(reason)), "{name}: {e}");
            }
        }
    }
    assert!(built >= 2 * WHEEL.len() - 4, "{built}");
}

fn run(model: &Model, inputs: &[(&str, &Tensor)]) -> Vec<(String, Tensor)> {
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let session = Session::new(runtime(), model, &options, &Call::default()).unwrap();
    session.run(inputs, &[], &Call::default()).unwrap()
}

#[test]
fn the_graph_alone_is_a_model_with_the_same_inputs_and_outputs() {
    let (folder, model) = (scratch("tensorrt-graph"), minilm());
    let (graph, report) = tensorrt::graph(Some(runtime()), &model, &text(Precision::Fp16), &Call::default()).unwrap();
    assert_eq!((graph.inputs(), graph.outputs()), (model.inputs(), model.outputs()));
    assert!(report.nodes.iter().any(|n| n.op == "MatMul" && n.action == tensorrt::LOWERED));
    assert!(report.nodes.iter().all(|n| n.op != "Softmax" || n.action == tensorrt::KEPT));
    let path = folder.join("half.onnx");
    graph.save(&path, ExternalData::Auto, &Call::default()).unwrap();
    let (before, after) = (model.bytes() as f64, std::fs::metadata(&path).unwrap().len() as f64);
    assert!(after < 0.6 * before, "{after} of {before}");
    let ids = Tensor::from_i64(&[1, 8], vec![101, 2023, 2003, 1037, 6251, 2008, 3632, 102]).unwrap();
    let mask = Tensor::from_i64(&[1, 8], vec![1; 8]).unwrap();
    let inputs = [("input_ids", &ids), ("attention_mask", &mask)];
    let (a, b) = (run(&model, &inputs), run(&Model::load(&path).unwrap(), &inputs));
    for ((name, a), (_, b)) in a.iter().zip(&b) {
        assert_eq!(a.dtype(), b.dtype());
        let (a, b) = (a.to_f32_vec().unwrap(), b.to_f32_vec().unwrap());
        let far = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far < 0.02, "{name} is off by {far}");
    }
}

/// Returns a layer norm in basic operators, of values of 1e4, between two products: its squares exceed float16.
fn overflowing() -> Model {
    use optimize::graph::edit::{float_tensor, ints_attribute, node, value};
    use optimize::onnx::dtype::DataType::Float32;
    use optimize::onnx::proto::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto};
    let mean = |from: &str, to: &str| NodeProto {
        attribute: vec![ints_attribute("axes", &[-1])],
        ..node("ReduceMean", &[from], &[to])
    };
    let weights: Vec<f32> = (0..256).map(|i| ((i * 37 % 101) as f32 - 50.0) * 40.0).collect();
    let small: Vec<f32> = (0..256).map(|i| ((i * 29 % 97) as f32 - 48.0) / 100.0).collect();
    let graph = GraphProto {
        node: vec![
            node("MatMul", &["x", "w"], &["h"]),
            mean("h", "m"),
            node("Sub", &["h", "m"], &["d"]),
            node("Pow", &["d", "two"], &["s"]),
            mean("s", "v"),
            node("Add", &["v", "epsilon"], &["e"]),
            node("Sqrt", &["e"], &["r"]),
            node("Div", &["d", "r"], &["n"]),
            node("MatMul", &["n", "u"], &["y"]),
        ],
        initializer: vec![
            float_tensor("w", &[16, 16], &weights),
            float_tensor("u", &[16, 16], &small),
            float_tensor("two", &[], &[2.0]),
            float_tensor("epsilon", &[], &[1e-12]),
        ],
        input: vec![value("x", Float32, 2)],
        output: vec![value("y", Float32, 2)],
        ..Default::default()
    };
    Model::from_proto(ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { version: Some(17), ..Default::default() }],
        graph: Some(Box::new(graph)),
        ..Default::default()
    })
}

#[test]
fn a_layer_norm_of_large_values_stays_right_in_float16() {
    let model = overflowing();
    let options = TensorRtOptions {
        precision: Precision::Fp16,
        profiles: vec![GivenProfile { opt: parse_shapes("x:2x16").unwrap(), ..Default::default() }],
        ..options()
    };
    let (graph, report) = tensorrt::graph(Some(runtime()), &model, &options, &Call::default()).unwrap();
    let of = |op: &str| report.nodes.iter().filter(|n| n.op == op).map(|n| n.action).collect::<Vec<_>>();
    assert_eq!((of("Pow"), of("Sub"), of("Div")), (vec!["fp32"], vec!["fp32"], vec!["fp32"]));
    assert!(of("MatMul").contains(&tensorrt::LOWERED));
    let x = Tensor::from_f32(&[2, 16], (0..32).map(|i| (i as f32 * 0.7).sin()).collect()).unwrap();
    let (a, b) = (run(&model, &[("x", &x)]), run(&graph, &[("x", &x)]));
    let (a, b) = (a[0].1.to_f32_vec().unwrap(), b[0].1.to_f32_vec().unwrap());
    let size = a.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    let far = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far < 0.01 * size, "off by {far} of {size}");
    build(&model, &scratch("tensorrt-norm").join("n.engine"), &options).unwrap();
}

#[test]
fn a_budget_moves_nodes_back_and_says_which() {
    let tight = TensorRtOptions { max_error: 3e-4, ..text(Precision::Fp16) };
    let (_, report) = tensorrt::graph(Some(runtime()), &minilm(), &tight, &Call::default()).unwrap();
    let back = report.summary["nodes_back_to_fp32"].as_array().unwrap();
    assert!(!back.is_empty() && report.summary["error"]["relative"].as_f64().unwrap() <= 3e-4, "{back:?}");
}

#[test]
fn a_cancel_is_answered_soon_and_leaves_nothing() {
    if lacks("tensorrt-rtx") {
        return;
    }
    let folder = scratch("tensorrt-cancel");
    let model = Model::load(&deps("models/all-MiniLM-L6-v2")).unwrap();
    let cancel = Cancel::new();
    let asked = Cell::new(None);
    let progress = |p: Progress<'_>| {
        if p.stage == "build" && asked.get().is_none() {
            asked.set(Some(Instant::now()));
            cancel.fire();
        }
        ControlFlow::Continue(())
    };
    let call = Call { progress: Some(&progress), cancel: Some(&cancel), ..Call::default() };
    let outcome = tensorrt::build(None, &model, &folder.join("c.engine"), &text(Precision::Fp32), &call);
    let took = asked.get().unwrap().elapsed();
    assert_eq!(kind_of(outcome).0, Kind::Cancelled);
    println!("cancelled in {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(std::fs::read_dir(&*folder).unwrap().count(), 0);
    let call = Call { deadline: Some(Instant::now() + Duration::from_millis(300)), ..Call::default() };
    let outcome = tensorrt::build(None, &model, &folder.join("c.engine"), &text(Precision::Fp32), &call);
    assert_eq!(kind_of(outcome).0, Kind::Timeout);
}
