//! int8, fp8, block-quantized weights and the pattern 2:4 for TensorRT: their error on ONNX Runtime, and which of
//! them TensorRT-RTX builds without a GPU; also running an engine, or the reason why not.

mod support;

use optimize::call::Call;
use optimize::error::Kind;
use optimize::model::Model;
use optimize::package::{self, CompileOptions, Package};
use optimize::quantize::{QuantizeOptions, QuantizeType, ScaleType, quantize};
use optimize::runtime::{Session, SessionOptions, Tensor};
use optimize::tensorrt::{self, Choice, Engine, EngineFile, OpenOptions, Precision, Span, TensorRtOptions};
use std::process::Command;
use support::{deps, lacks, runtime, scratch};

fn options(precision: Precision) -> TensorRtOptions {
    TensorRtOptions {
        precision,
        backend: Choice::TensorRtRtx,
        library: if lacks("tensorrt-rtx") { None } else { Some(deps("tensorrt-rtx")) },
        batch_size: 1,
        sequence_length: 16,
        threads: 1,
        ..TensorRtOptions::default()
    }
}

fn minilm() -> Model {
    Model::load(&deps("models/paraphrase-MiniLM-L3-v2")).unwrap()
}

fn ids(model: &Model) -> Vec<Tensor> {
    let ids = Tensor::from_i64(&[1, 16], (0..16).map(|i| 1000 + i * 137).collect()).unwrap();
    vec![ids, Tensor::from_i64(&[1, 16], vec![1; 16]).unwrap()][..model.inputs().len()].to_vec()
}

/// Returns the distance of the first float outputs of two models, relative to that of the first model.
fn far(plain: &Model, other: &Model) -> f64 {
    let run = |model: &Model| {
        let session = SessionOptions { threads: 1, ..SessionOptions::default() };
        let session = Session::new(runtime(), model, &session, &Call::default()).unwrap();
        let tensors = ids(model);
        let names: Vec<String> = model.inputs().into_iter().map(|info| info.name).collect();
        let feed: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(&tensors).collect();
        let outputs = session.run(&feed, &[], &Call::default()).unwrap();
        let floats = outputs.iter().find(|(_, tensor)| tensor.dtype() == optimize::onnx::dtype::DataType::Float32);
        floats.unwrap().1.to_f32_vec().unwrap()
    };
    let (a, b) = (run(plain), run(other));
    let size: f64 = a.iter().map(|a| f64::from(*a).powi(2)).sum();
    let apart: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (apart / size).sqrt()
}

/// Returns `Relu(Conv(x, w))` at opset 17.
fn convolution() -> Model {
    use optimize::graph::edit::{float_tensor, node};
    use optimize::onnx::dtype::DataType::Float32;
    use optimize::onnx::proto::{GraphProto, ModelProto, OperatorSetIdProto};
    let fixed = |name: &str, dims: [i64; 4]| {
        let mut info = optimize::graph::edit::value(name, Float32, 4);
        let shape = info.value_type.as_mut().unwrap().tensor_type.as_mut().unwrap().shape.as_mut().unwrap();
        for (dim, size) in shape.dim.iter_mut().zip(dims) {
            (dim.dim_value, dim.dim_param) = (Some(size), None);
        }
        info
    };
    let weights: Vec<f32> = (0..16 * 8 * 9).map(|i| ((i * 37 % 101) as f32 - 50.0) / 100.0).collect();
    let graph = GraphProto {
        name: Some("conv".into()),
        node: vec![node("Conv", &["x", "w"], &["h"]), node("Relu", &["h"], &["y"])],
        initializer: vec![float_tensor("w", &[16, 8, 3, 3], &weights)],
        input: vec![fixed("x", [1, 8, 16, 16])],
        output: vec![fixed("y", [1, 16, 14, 14])],
        ..Default::default()
    };
    let imports = vec![OperatorSetIdProto { version: Some(17), ..Default::default() }];
    let graph = Some(Box::new(graph));
    Model::from_proto(ModelProto { ir_version: Some(8), graph, opset_import: imports, ..Default::default() })
}

#[test]
fn quantized_graphs_are_near_and_their_error_is_the_one_that_is_said() {
    let model = minilm();
    for precision in [Precision::Int8, Precision::Fp8] {
        let (graph, report) = tensorrt::graph(Some(runtime()), &model, &options(precision), &Call::default()).unwrap();
        assert_eq!((graph.inputs(), graph.outputs()), (model.inputs(), model.outputs()));
        let relative = report.summary["error"]["relative"].as_f64().unwrap();
        assert!(relative > 1e-4 && relative <= 0.15, "{}: {relative}", precision.name());
        assert!(report.summary["error"]["calibration_batches"].as_u64().unwrap() > 0);
        let far = far(&model, &graph);
        println!("MiniLM {}: {relative:.4} on the sample, {far:.4} on other tokens", precision.name());
        assert!(far > 1e-4 && far < 0.25, "{}: {far}", precision.name());
        let short = report.nodes.iter().filter(|n| n.action == tensorrt::LOWERED).count();
        assert!(short >= 12, "{short}");
        assert!(graph.bytes() < model.bytes(), "weights are eight bits");
    }
}

#[test]
fn a_budget_of_int8_moves_nodes_back() {
    let tight = TensorRtOptions { max_error: 0.05, ..options(Precision::Int8) };
    let (_, report) = tensorrt::graph(Some(runtime()), &minilm(), &tight, &Call::default()).unwrap();
    assert!(report.summary["error"]["relative"].as_f64().unwrap() <= 0.05);
    assert!(!report.summary["nodes_back_to_fp32"].as_array().unwrap().is_empty());
}

/// An error of 0 would be wrong if there is nothing to compare.
#[test]
fn no_error_is_measured_where_the_original_has_only_nan() {
    let mut proto = convolution().proto().clone();
    let graph = proto.graph.as_deref_mut().unwrap();
    graph.node[1].output[0] = "positive".into();
    let more = [(["positive", "positive"], "Sub", "zero"), (["zero", "zero"], "Div", "y")];
    graph.node.extend(more.map(|(inputs, op, output)| optimize::graph::edit::node(op, &inputs, &[output])));
    let model = Model::from_proto(proto);
    let refused = tensorrt::graph(Some(runtime()), &model, &options(Precision::Fp16), &Call::default()).err().unwrap();
    assert!(refused.kind() == Kind::Unsupported && refused.to_string().contains("have no finite value"), "{refused}");
    tensorrt::graph(Some(runtime()), &model, &options(Precision::Fp32), &Call::default()).unwrap();
}

#[test]
fn sizes_that_do_not_ascend_are_refused_without_profiles_too() {
    let dimensions = vec![("batch".to_owned(), Span { min: 4, opt: 2, max: 8 })];
    let options = TensorRtOptions { dimensions, ..options(Precision::Fp32) };
    let refused = tensorrt::graph(None, &minilm(), &options, &Call::default()).err().unwrap();
    assert!(refused.kind() == Kind::InvalidArgument && refused.to_string().contains("must ascend"), "{refused}");
}

#[test]
fn calibration_data_are_read_or_refused() {
    let (folder, model) = (scratch("tensorrt-calibration"), minilm());
    let with = |name: &str, content: &[u8]| {
        let file = folder.join(name);
        std::fs::write(&file, content).unwrap();
        let options = TensorRtOptions { calibration: Some(file), ..options(Precision::Int8) };
        tensorrt::graph(Some(runtime()), &model, &options, &Call::default())
    };
    let text = "The committee met on Tuesday to discuss the budget.\n".repeat(20);
    let (_, report) = with("text.txt", text.as_bytes()).unwrap();
    assert!(report.summary["error"]["calibration_batches"].as_u64().unwrap() > 0);
    assert_eq!(with("junk.txt", &[0xff, 0xfe, 0x00]).err().unwrap().kind(), Kind::InvalidArgument);
    assert_eq!(with("junk.safetensors", b"no").err().unwrap().kind(), Kind::InvalidModel);
    let none = TensorRtOptions { calibration: Some(folder.join("none.txt")), ..options(Precision::Int8) };
    let missing = tensorrt::graph(Some(runtime()), &model, &none, &Call::default()).err().unwrap();
    assert!(missing.kind() == Kind::NotFound && missing.to_string().contains("none.txt"), "{missing}");
}

/// Checks what the documentation says about int8 and fp8.
#[test]
fn what_rtx_takes_of_quantized_graphs() {
    if lacks("tensorrt-rtx") {
        return;
    }
    let folder = scratch("tensorrt-quantized");
    for (name, model) in [("MiniLM", minilm()), ("Conv", convolution())] {
        for precision in [Precision::Int8, Precision::Fp8] {
            let at = folder.join("q.engine");
            let wide = TensorRtOptions { max_error: 0.5, ..options(precision) };
            match tensorrt::build(Some(runtime()), &model, &at, &wide, &Call::default()) {
                Ok(report) => println!("{name} {}: {} bytes", precision.name(), report.summary["bytes_after"]),
                Err(e) => {
                    println!("{name} {}: {:?} {e}", precision.name(), e.kind());
                    assert_eq!(precision, Precision::Fp8, "int8 is what TensorRT-RTX builds: {e}");
                    assert!(matches!(e.kind(), Kind::Unsupported | Kind::Backend), "{e}");
                }
            }
        }
    }
}

#[test]
fn weights_in_blocks_become_numbers_again() {
    let model = minilm();
    let forms = [(4, true, ScaleType::Float32), (4, false, ScaleType::Float16), (8, true, ScaleType::Float16)];
    for (bits, symmetric, scale_type) in forms {
        let blocks = QuantizeOptions {
            quantize_type: QuantizeType::WeightOnly,
            bits,
            symmetric,
            embeddings: false,
            scale_type,
            accuracy_level: 1,
            threads: 1,
            ..QuantizeOptions::default()
        };
        let (small, _) = quantize(&model, &blocks, &Call::default()).unwrap();
        assert!(small.graph().node.iter().any(|node| node.op() == "MatMulNBits"));
        let (graph, report) = tensorrt::graph(None, &small, &options(Precision::Fp32), &Call::default()).unwrap();
        assert!(graph.graph().node.iter().all(|node| node.op() != "MatMulNBits"));
        assert!(report.summary["nodes_lowered"].as_u64().unwrap() >= 12);
        let far = far(&small, &graph);
        assert!(far < 1e-4, "{bits} bits, symmetric {symmetric}: {far}");
    }
}

#[test]
fn weights_of_the_pattern_are_counted() {
    let sparse = TensorRtOptions { sparsity: true, ..options(Precision::Fp32) };
    let count = |model: &Model| {
        let (_, report) = tensorrt::graph(None, model, &sparse, &Call::default()).unwrap();
        let of = |key: &str| report.summary["weights_2_4"][key].as_u64().unwrap();
        (of("weights"), of("with_pattern"))
    };
    let model = minilm();
    let (weights, none) = count(&model);
    assert!(weights >= 18 && none == 0, "{weights} {none}");
    let pruning = optimize::prune::PruneOptions {
        pattern: Some(optimize::prune::Pattern { keep: 2, of: 4 }),
        ..optimize::prune::PruneOptions::default()
    };
    let (pruned, _) = optimize::prune::prune(&model, &pruning, &Call::default()).unwrap();
    let (all, with) = count(&pruned);
    assert!(all == weights && with >= 12, "{with} of {all}");
}

#[test]
fn an_engine_runs_where_a_device_is_and_says_so_where_none_is() {
    if lacks("tensorrt-rtx") {
        return;
    }
    let (folder, model) = (scratch("tensorrt-run"), minilm());
    let engine = folder.join("r.engine");
    tensorrt::build(Some(runtime()), &model, &engine, &options(Precision::Fp32), &Call::default()).unwrap();
    assert!(EngineFile::is_one(&engine) && !EngineFile::is_one(&folder));
    let open = |trust: bool, device: u32| {
        let library = Some(deps("tensorrt-rtx"));
        Engine::open(&engine, &OpenOptions { trust, library, ..OpenOptions::default() }, device)
    };
    assert_eq!(open(false, 0).err().unwrap().kind(), Kind::Untrusted);
    assert_eq!(open(true, 4096).err().unwrap().kind(), Kind::DeviceMissing);
    let mut command = Command::new(env!("CARGO_BIN_EXE_optimize"));
    command.args(["run", "--json", "--trust-engines", "--tensorrt-library"]).arg(deps("tensorrt-rtx"));
    let output = command.arg("--model").arg(&engine).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut ready = match open(true, 0) {
        Ok(ready) => ready,
        Err(e) => {
            assert!(matches!(e.kind(), Kind::DeviceMissing | Kind::Backend), "{e}");
            assert!(output.status.code() == Some(1) && said.contains(e.message()), "{said}");
            return;
        }
    };
    assert!(output.status.success(), "{said}");
    let tensors = ids(&model);
    let names: Vec<String> = ready.inputs().into_iter().map(|info| info.name).collect();
    let feed: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(&tensors).collect();
    let outputs = ready.run(&feed, &[], &Call::default()).unwrap();
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let session = Session::new(runtime(), &model, &options, &Call::default()).unwrap();
    for (name, wanted) in session.run(&feed, &[], &Call::default()).unwrap() {
        let Some((_, given)) = outputs.iter().find(|(other, _)| *other == name) else { panic!("no {name}") };
        let (a, b) = (wanted.to_f32_vec().unwrap(), given.to_f32_vec().unwrap());
        let size: f32 = a.iter().map(|v| v * v).sum();
        let apart: f32 = a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum();
        assert!((apart / size).sqrt() < 5e-3, "{name}");
    }
}

#[test]
fn the_provider_of_onnx_runtime_builds_where_it_starts_and_else_says_why_not() {
    let (folder, model) = (scratch("tensorrt-provider"), minilm());
    let at = folder.join("m_ctx.onnx");
    let provider = TensorRtOptions { backend: Choice::OnnxRuntime, library: None, ..options(Precision::Fp32) };
    let without = tensorrt::build(None, &model, &at, &provider, &Call::default()).err().unwrap();
    assert_eq!(without.kind(), Kind::InvalidArgument);
    match tensorrt::build(Some(runtime()), &model, &at, &provider, &Call::default()) {
        Ok(report) => {
            assert_eq!(report.summary["backend"], "onnxruntime");
            let made = Model::load(&at).unwrap();
            assert!(made.graph().node.iter().any(|node| node.op() == "EPContext"));
        }
        Err(e) => {
            assert!(matches!(e.kind(), Kind::BackendMissing | Kind::DeviceMissing), "{e}");
            assert!(e.message().contains("tensorrt") || e.message().contains("NVIDIA"), "{e}");
            assert_eq!(std::fs::read_dir(&*folder).unwrap().count(), 0);
        }
    }
}

#[test]
fn a_package_carries_an_engine_and_says_why_it_is_not_used() {
    if lacks("tensorrt-rtx") {
        return;
    }
    let (folder, model) = (scratch("tensorrt-package"), minilm());
    let engine = folder.join("p.engine");
    tensorrt::build(Some(runtime()), &model, &engine, &options(Precision::Fp16), &Call::default()).unwrap();
    let compile = |model: &Model, engine: &std::path::Path| {
        let with = CompileOptions {
            engine: Some(engine.to_owned()),
            portable_only: true,
            dynamic: true,
            ..Default::default()
        };
        package::compile(runtime(), model, &folder.join("package"), &with, &Call::default())
    };
    compile(&model, &engine).unwrap();
    let opened = Package::open(&folder.join("package"), &package::OpenOptions::default()).unwrap();
    opened.verify(None, &Call::default()).unwrap();
    let inspected: serde_json::Value = serde_json::from_str(&opened.inspect(Some(runtime())).unwrap()).unwrap();
    assert_eq!(inspected["variants"][0]["provider"], "tensorrt");
    assert_eq!(inspected["chosen"]["variant"], "fp32");
    let reason = inspected["chosen"]["reason"].as_str().unwrap();
    assert!(reason.contains("not tensorrt-fp16: it ") && reason.contains("portable"), "{reason}");
    assert!(far(&model, &opened.model().unwrap()) < 1e-6, "the portable graph runs");
    let trusted = OpenOptions { trust: true, library: Some(deps("tensorrt-rtx")), ..OpenOptions::default() };
    assert_eq!(opened.engine(&OpenOptions::default(), 0).err().unwrap().kind(), Kind::Untrusted);
    if let Err(e) = opened.engine(&trusted, 0) {
        assert!(matches!(e.kind(), Kind::DeviceMissing | Kind::Backend), "{e}");
    }
    // An engine of another model, or without a manifest, is rejected.
    let other = Model::load(&deps("onnx-tests/pytorch-converted/test_Conv2d/model.onnx")).unwrap();
    assert_eq!(compile(&other, &engine).err().unwrap().kind(), Kind::Mismatch);
    std::fs::remove_file(tensorrt::manifest::path_of(&engine)).unwrap();
    assert_eq!(compile(&model, &engine).err().unwrap().kind(), Kind::InvalidArgument);
}

/// Tests the path for models above 2 GiB with a small model.
#[test]
fn a_model_is_parsed_from_a_file_with_its_weights_beside_it() {
    if lacks("tensorrt-rtx") {
        return;
    }
    let (folder, model) = (scratch("tensorrt-file"), minilm());
    let engine = folder.join("f.engine");
    let by_file = TensorRtOptions { by_file: true, ..options(Precision::Fp32) };
    tensorrt::build(None, &model, &engine, &by_file, &Call::default()).unwrap();
    assert!(std::fs::metadata(&engine).unwrap().len() > 10_000_000, "the weights are in it");
    let mut names: Vec<_> = std::fs::read_dir(&*folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["f.engine", "f.engine.json"], "nothing else is left");
}

#[test]
fn a_branch_without_a_rank_is_named() {
    if lacks("tensorrt-rtx") {
        return;
    }
    use optimize::graph::edit::{float_tensor, node, untyped};
    use optimize::onnx::dtype::DataType::Float32;
    use optimize::onnx::proto::GraphProto;
    let branch = |name: &str, op: &str| GraphProto {
        name: Some(name.into()),
        node: vec![node(op, &["x"], &[name])],
        output: vec![untyped(name)],
        ..GraphProto::default()
    };
    let mut choose = node("If", &["c"], &["i"]);
    choose.name = Some("/choose".into());
    let choose = support::build::with_graph(choose, "then_branch", branch("t", "Squeeze"));
    let choose = support::build::with_graph(choose, "else_branch", branch("e", "Relu"));
    let nodes = vec![
        support::build::op("ReduceSum", &["x"], &["s"], &[("keepdims", 0)]),
        node("Greater", &["s", "zero"], &["c"]),
        choose,
        support::build::op("Concat", &["i", "i"], &["k"], &[("axis", 1)]),
        support::build::op("Softmax", &["k"], &["y"], &[("axis", 2)]),
    ];
    let (x, y) = (support::build::value("x", Float32, &[1, 4, 8]), untyped("y"));
    let model = support::build::model(17, vec![x], vec![y], vec![float_tensor("zero", &[], &[0.0])], nodes);
    let folder = scratch("tensorrt-unranked");
    let options = TensorRtOptions {
        backend: Choice::TensorRtRtx,
        library: Some(deps("tensorrt-rtx")),
        precision: Precision::Fp32,
        ..TensorRtOptions::default()
    };
    let e =
        tensorrt::build(Some(runtime()), &model, &folder.join("a.engine"), &options, &Call::default()).err().unwrap();
    assert!(e.kind() == Kind::Unsupported && e.message().contains("If \"/choose\" gives \"i\""), "{e}");
}
