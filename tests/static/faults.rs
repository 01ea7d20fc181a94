//! Tests with graphs that ONNX Runtime changes or rejects if they are not written with care. The original is the
//! reference.

use super::*;
use optimize::onnx::dtype::DataType::{Bool, Int64};
use optimize::runtime::{OptimizationLevel, Session, SessionOptions};

/// Returns the outputs of a model without graph optimization.
pub fn plainly(model: &Model, inputs: &[(String, Tensor)]) -> Vec<Vec<f32>> {
    let options =
        SessionOptions { threads: 1, optimization_level: OptimizationLevel::Disabled, ..SessionOptions::default() };
    let session = Session::new(runtime(), model, &options, &Call::default()).unwrap();
    let feed: Vec<(&str, &Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let outputs = session.run(&feed, &[], &Call::default()).unwrap();
    outputs.iter().map(|(_, t)| t.to_f32_vec().unwrap()).collect()
}

/// Returns the model with `value` as the only value of an optional input.
pub fn given(model: &Model, name: &str, value: f32) -> Model {
    let mut proto = model.proto().clone();
    let graph = proto.graph.as_mut().unwrap();
    assert!(graph.input.iter().any(|input| input.name.as_deref() == Some(name)), "{name} is no input");
    let tensor = graph.initializer.iter_mut().find(|tensor| tensor.name.as_deref() == Some(name)).unwrap();
    *tensor = floats(name, &[], &[value]);
    Model::from_proto(proto)
}

/// Checks a model like [`check`], with the outputs of both optimization levels near those of the original.
fn both(model: &Model, data: &[(String, Tensor)], allowed: f32) -> (Report, Vec<String>) {
    let (result, report, kernels) = check(model, data, allowed);
    let found = error(&run(model, data), &plainly(&result, data));
    assert!(found < allowed, "without optimizers: {found}");
    assert!(report.summary["verified"]["levels_differ"].as_f64().unwrap() < 0.05, "{:?}", report.summary);
    (report, kernels)
}

fn at_opset(model: &Model, version: i64) -> Model {
    let mut proto = model.proto().clone();
    proto.opset_import[0].version = Some(version);
    proto.ir_version = Some(9);
    Model::from_proto(proto)
}

fn ints(name: &str, values: &[i64]) -> TensorProto {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    optimize::graph::edit::tensor(name, Int64, &[values.len() as i64], raw.into())
}

#[test]
fn a_bound_that_a_caller_may_give_stays() {
    let tail = vec![op("Clip", &["a", "low", "high"], &["c"], &[])];
    let bounds = vec![floats("low", &[], &[0.0]), floats("high", &[], &[6.0])];
    let mut proto = between(tail, ("c", 4), bounds).proto().clone();
    proto.graph.as_mut().unwrap().input.push(value("high", Float32, &[]));
    let model = Model::from_proto(proto);
    let (result, report, _) = check(&model, &picture(), 0.03);
    let warned = |report: &Report| report.warnings.iter().any(|w| w.contains("default value of the optional input"));
    assert!(warned(&report), "{:?}", report.warnings);
    assert!(!warned(&check(&between(vec![], ("a", 4), vec![]), &picture(), 0.03).1));
    let (a, b) = (run(&given(&model, "high", 0.25), &picture()), run(&given(&result, "high", 0.25), &picture()));
    assert!(error(&a, &b) < 0.1 && error(&a, &run(&model, &picture())) > 0.2, "{}", error(&a, &b));
}

#[test]
fn masks_are_as_wide_as_the_sum_that_they_end() {
    for lowest in [f32::NEG_INFINITY, f32::MIN, -1e9, -1e7, -1e4] {
        let mask: Vec<f32> = (0..64).map(|i| if i % 3 == 0 { lowest } else { 0.0 }).collect();
        let tail = vec![op("Add", &["a", "mask"], &["s"], &[]), op("Relu", &["s"], &["r"], &[])];
        let model = between(tail, ("r", 4), vec![floats("mask", &[8, 8], &mask)]);
        let (_, kernels) = both(&model, &picture(), 0.03);
        assert_eq!((count(&kernels, "QLinearConv"), count(&kernels, "QLinearAdd")), (2, 1), "{lowest}: {kernels:?}");
    }
}

#[test]
fn pools_of_which_the_kernel_for_bytes_makes_another_one_stay_float() {
    let pool = |attributes: &[(&str, i64)], dilation: i64| {
        let mut node = op("AveragePool", &["a"], &["p"], attributes);
        node.attribute.push(ints_attribute("kernel_shape", &[3, 3]));
        node.attribute.push(ints_attribute("strides", &[2, 2]));
        if dilation > 0 {
            node.attribute.push(ints_attribute("dilations", &[dilation, dilation]));
        }
        at_opset(&between(vec![node], ("p", 4), vec![]), 19)
    };
    let cases = [
        (pool(&[("ceil_mode", 1), ("count_include_pad", 1)], 0), 0),
        (pool(&[("ceil_mode", 1)], 0), 1),
        (pool(&[("count_include_pad", 1)], 0), 1),
        (pool(&[], 1), 1),
        (pool(&[], 2), 0),
    ];
    for (model, integer) in cases {
        let (_, kernels) = both(&model, &picture(), 0.04);
        let found = (count(&kernels, "QLinearConv"), count(&kernels, "QLinearAveragePool"));
        assert_eq!(found, (2, integer), "{kernels:?}");
    }
}

#[test]
fn what_has_axes_opens() {
    let axes = |node: NodeProto| NodeProto {
        attribute: node.attribute.iter().cloned().chain([ints_attribute("axes", &[2, 3])]).collect(),
        ..node
    };
    let constants = || vec![ints("pads", &[1, 1, 1, 1]), ints("axes", &[-2, 3]), floats("scales", &[2], &[2.0, 2.0])];
    let cases = [
        (vec![axes(op("Resize", &["a", "", "scales"], &["m"], &[]))], constants()),
        (vec![op("Pad", &["a", "pads", "", "axes"], &["m"], &[])], constants()),
        // This graph looks correct before it is loaded.
        (vec![axes(op("Resize", &["a", "", "", "sizes"], &["m"], &[]))], vec![ints("sizes", &[16, 20])]),
    ];
    for (index, (tail, tensors)) in cases.into_iter().enumerate() {
        let model = at_opset(&between(tail, ("m", 4), tensors), 19);
        let (report, kernels) = both(&model, &picture(), 0.04);
        let conv = count(&kernels, "QLinearConv");
        match index {
            2 => {
                assert_eq!(conv, 1, "{kernels:?}");
                let left = report.nodes.iter().find(|n| n.op == "Conv" && n.action == "left").unwrap();
                assert!(left.reason.contains("ONNX Runtime does not run the result"), "{}", left.reason);
            }
            _ => assert_eq!(conv, 2, "{kernels:?}"),
        }
    }
}

#[test]
fn sums_of_tens_of_thousands_of_products_stay_within_32_bits() {
    // With codes of 127, the sums would reach 255 * 127 * 100,000, one and a half times what fits.
    let rows = 100_000i64;
    let weights = vec![floats("w", &[rows, 8], &vec![1e-5; rows as usize * 8]), weight("v", &[8, 32])];
    let nodes = vec![op("MatMul", &["x", "w"], &["h"], &[]), op("MatMul", &["h", "v"], &["y"], &[])];
    let (x, y) = (value("x", Float32, &[-1, rows]), value("y", Float32, &[-1, 32]));
    let model = model(17, vec![x], vec![y], weights, nodes);
    let values: Vec<f32> = smooth(2 * rows as usize, 1.0).iter().map(|v| 0.9 + 0.1 * v).collect();
    let data = vec![("x".to_owned(), Tensor::from_f32(&[2, rows], values).unwrap())];
    let (_, kernels) = both(&model, &data, 0.03);
    let found = (count(&kernels, "QLinearMatMul"), count(&kernels, "MatMulIntegerToFloat"), count(&kernels, "MatMul"));
    assert_eq!(found, (1, 1, 0), "{kernels:?}");
    let (result, _) = calibrated(&model, &data, &options()).unwrap();
    let codes = result.graph().initializer.iter().find(|t| t.dims == [rows, 8]).unwrap();
    let sum: i64 = codes.raw_data.as_ref().unwrap().iter().step_by(8).map(|code| i64::from(*code as i8).abs()).sum();
    assert!(sum > 0 && 255 * sum < 1 << 30, "{sum}");
}

/// Returns a model of four nodes: a product of an input of `dims`, a bias of shape `bias`, optionally a bound, and a
/// product that is too small for int8.
fn dense(dims: &[i64], bias: &[i64], bound: Option<&str>) -> Model {
    let mut nodes = vec![op("MatMul", &["x", "w"], &["m"], &[])];
    let mut last = "m";
    if !bias.is_empty() {
        nodes.push(op("Add", &["m", "b"], &["s"], &[]));
        last = "s";
    }
    match bound {
        Some("Clip") => nodes.push(op("Clip", &[last, "low", "high"], &["r"], &[])),
        Some(other) => nodes.push(op(other, &[last], &["r"], &[])),
        None => {}
    }
    nodes.push(op("MatMul", &[if bound.is_some() { "r" } else { last }, "small"], &["y"], &[]));
    let weights = vec![
        weight("w", &[48, 32]),
        floats("b", bias, &smooth(bias.iter().product::<i64>() as usize, 3.0)),
        weight("small", &[32, 2]),
        floats("low", &[], &[0.5]),
        floats("high", &[], &[2.0]),
    ];
    let outputs: Vec<i64> = dims[..dims.len() - 1].iter().copied().chain([2]).collect();
    model(17, vec![value("x", Float32, dims)], vec![value("y", Float32, &outputs)], weights, nodes)
}

#[test]
fn products_with_a_bias_or_a_bound_behind_them_are_integer_and_reports_name_what_runs() {
    let options = QuantizeOptions { min_elements: 1024, ..options() };
    for dims in [&[-1, 48][..], &[4, 48], &[-1, 6, 48], &[2, 6, 48], &[2, 2, 3, 48]] {
        let size: Vec<i64> = dims.iter().map(|d| if *d < 0 { 4 } else { *d }).collect();
        for bias in [&[][..], &[32], &[1, 32]] {
            for bound in [None, Some("Relu"), Some("Clip"), Some("Tanh")] {
                let (model, data) = (dense(dims, bias, bound), input("x", &size));
                let (result, report) = calibrated(&model, &data, &options).unwrap();
                let kernels = kernels(&result);
                let place = format!("{dims:?} {bias:?} {bound:?}: {kernels:?} {:?}", report.nodes);
                let integer: Vec<&String> =
                    kernels.iter().filter(|k| matches!(k.as_str(), "QGemm" | "MatMulIntegerToFloat")).collect();
                let claimed: Vec<_> = report.nodes.iter().filter(|n| n.reason.contains("uint8 in")).collect();
                assert!(
                    integer.len() == 1 && claimed.len() == 1 && claimed[0].reason.starts_with(integer[0]),
                    "{place}"
                );
                let expected = run(&model, &data);
                assert!(error(&expected, &run(&result, &data)) < 0.03, "{place}");
                assert!(error(&expected, &plainly(&result, &data)) < 0.03, "{place}");
            }
        }
    }
}

#[test]
fn weights_that_stay_float_are_not_there_a_second_time() {
    let nodes = ["q", "k", "v"].map(|n| op("MatMul", &["x", &format!("w_{n}")], &[n], &[]));
    let weights = ["w_q", "w_k", "w_v"].map(|n| weight(n, &[256, 256]));
    let outputs = ["q", "k", "v"].map(|n| value(n, Float32, &[-1, 256]));
    let model = model(17, vec![value("x", Float32, &[-1, 256])], outputs.into(), weights.into(), nodes.into());
    let one = QuantizeOptions { include: vec!["w_k".to_owned()], ..options() };
    let (result, report) = calibrated(&model, &input("x", &[4, 256]), &one).unwrap();
    // Two of three weights stay unchanged, and one has a quarter of its size.
    let expected = model.bytes() - 256 * 256 * 3;
    assert!(result.bytes() < expected + 8192, "{} bytes, {expected} expected", result.bytes());
    let none = QuantizeOptions { include: vec!["w_k".to_owned()], max_quality_loss: 1.0, ..options() };
    assert_eq!(calibrated(&model, &input("x", &[8, 256]), &none).unwrap().0.bytes(), result.bytes());
    assert_eq!(report.nodes.iter().filter(|n| n.reason == "not included").count(), 2);
}

#[test]
fn constants_in_half_precision_behind_casts_are_constants() {
    let half = |name: &str, dims: &[i64]| {
        let values = match dims {
            [] => vec![0.7],
            _ => smooth(dims.iter().product::<i64>() as usize, name.len() as f32),
        };
        let raw: Vec<u8> = values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
        optimize::graph::edit::tensor(name, Float16, dims, raw.into())
    };
    let names = [("w16", "w"), ("b16", "b"), ("c16", "c")];
    let mut nodes: Vec<NodeProto> = names.map(|(from, to)| op("Cast", &[from], &[to], &[("to", 1)])).into();
    nodes.extend([conv("x", "w", Some("b"), "h"), op("Clip", &["h", "", "c"], &["r"], &[])]);
    nodes.push(conv("r", "second", None, "y"));
    let tensors =
        vec![half("w16", &[4, 4, 3, 3]), half("b16", &[4]), half("c16", &[]), weight("second", &[4, 4, 3, 3])];
    let model = model(17, x(), vec![value("y", Float32, &[-1, 4, 8, 8])], tensors, nodes);
    let (result, report) = calibrated(&model, &picture(), &options()).unwrap();
    assert!(error(&run(&model, &picture()), &run(&result, &picture())) < 0.03);
    assert_eq!(count(&kernels(&result), "QLinearConv"), 2, "{:?}", report.nodes);
}

#[test]
fn branches_hold_int8_weights_too() {
    let branch = |name: &str, weight: &str| GraphProto {
        name: Some(name.to_owned()),
        node: vec![op("MatMul", &["m", weight], &[name], &[])],
        output: vec![value(name, Float32, &[-1, 32])],
        ..Default::default()
    };
    let node = with_graph(op("If", &["flag"], &["y"], &[]), "then_branch", branch("yes", "w_yes"));
    let node = with_graph(node, "else_branch", branch("no", "w_no"));
    let nodes = vec![op("MatMul", &["x", "w"], &["m"], &[]), node];
    let weights = vec![weight("w", &[32, 32]), weight("w_yes", &[32, 32]), weight("w_no", &[32, 32])];
    let inputs = vec![value("x", Float32, &[-1, 32]), value("flag", Bool, &[])];
    let model = model(17, inputs, vec![value("y", Float32, &[-1, 32])], weights, nodes);
    let mut data = input("x", &[4, 32]);
    data.push(("flag".to_owned(), Tensor::from_bools(&[], &[true]).unwrap()));
    let (result, report) = calibrated(&model, &data, &options()).unwrap();
    assert!(error(&run(&model, &data), &run(&result, &data)) < 0.03);
    let quantized: Vec<&str> =
        report.nodes.iter().filter(|n| n.action == "quantized").map(|n| n.name.as_str()).collect();
    assert_eq!(quantized, ["m", "yes", "no"]);
    let float = |t: &&TensorProto| t.data_type == Some(Float32.to_onnx()) && t.dims.len() == 2;
    assert_eq!(result.graph().initializer.iter().filter(float).count(), 0);
}

#[test]
fn an_old_model_is_lifted_and_hard_swish_is_made_of_sums_and_products_of_bytes() {
    let bound = |name: &str, value: f32| AttributeProto {
        name: Some(name.to_owned()),
        kind: Some(1),
        f: Some(value),
        ..Default::default()
    };
    let clip = NodeProto { attribute: vec![bound("min", 0.0), bound("max", 1.0)], ..op("Clip", &["a"], &["c"], &[]) };
    let old = between(vec![clip], ("c", 4), vec![]).proto().clone();
    let old = Model::from_proto(ModelProto {
        opset_import: vec![OperatorSetIdProto { version: Some(9), ..Default::default() }],
        ir_version: Some(4),
        ..old
    });
    let (report, kernels) = both(&old, &picture(), 0.03);
    assert_eq!((count(&kernels, "QLinearConv"), count(&kernels, "Clip")), (2, 0), "{kernels:?}");
    assert_eq!((&report.summary["opset_before"], &report.summary["opset_after"]), (&9.into(), &17.into()));
    // Without a node that can be quantized, the error is the same for every opset.
    let mut empty = old.proto().clone();
    let graph = empty.graph.as_mut().unwrap();
    graph.node = vec![op("Relu", &["x"], &["y"], &[])];
    let nothing = calibrated(&Model::from_proto(empty), &picture(), &options()).err().unwrap();
    assert!(nothing.to_string().contains("the model has no Conv"), "{nothing}");
    let swish = between(vec![op("HardSwish", &["a"], &["s"], &[])], ("s", 4), vec![]);
    let (_, kernels) = both(&swish, &picture(), 0.03);
    let found = (count(&kernels, "QLinearAdd"), count(&kernels, "QLinearMul"), count(&kernels, "HardSigmoid"));
    assert_eq!(found, (1, 1, 0), "{kernels:?}");
}

/// Returns a network on the logarithm of a power spectrum through a filter bank, and a loud and a quiet signal.
fn on_a_spectrum() -> (Model, Vec<(String, Tensor)>) {
    let wave = |quarter: f32| -> Vec<f32> {
        let at = |i: usize| ((i / 64) as f32 * (i % 64) as f32 * 0.049 + quarter).sin() * 0.1;
        (0..64 * 64).map(at).collect()
    };
    let windows = |weight: &str, to: &str| {
        let mut node = op("Conv", &["x", weight], &[to], &[]);
        node.attribute.push(ints_attribute("strides", &[32]));
        node.name = Some(weight.to_owned());
        node
    };
    let transposed = |from: &str, to: &str| {
        let mut node = op("Transpose", &[from], &[to], &[]);
        node.attribute.push(ints_attribute("perm", &[0, 2, 1]));
        node
    };
    let nodes = vec![
        windows("cos", "re"),
        windows("sin", "im"),
        op("Mul", &["re", "re"], &["re2"], &[]),
        op("Mul", &["im", "im"], &["im2"], &[]),
        op("Add", &["re2", "im2"], &["power"], &[]),
        transposed("power", "frames"),
        NodeProto { name: Some("bank".into()), ..op("MatMul", &["frames", "filters"], &["bands"], &[]) },
        op("Clip", &["bands", "least"], &["clipped"], &[]),
        op("Log", &["clipped"], &["log"], &[]),
        transposed("log", "channels"),
        NodeProto { name: Some("last".into()), ..op("Conv", &["channels", "w"], &["y"], &[]) },
    ];
    let bank: Vec<f32> = (0..64 * 20).map(|i| if i / 20 / 3 == i % 20 { 0.3 } else { 0.0 }).collect();
    let tensors = vec![
        floats("cos", &[64, 1, 64], &wave(std::f32::consts::FRAC_PI_2)),
        floats("sin", &[64, 1, 64], &wave(0.0)),
        floats("filters", &[64, 20], &bank),
        floats("least", &[], &[1e-10]),
        weight("w", &[16, 20, 3]),
    ];
    let made =
        model(17, vec![value("x", Float32, &[2, 1, 2048])], vec![value("y", Float32, &[2, 16, 61])], tensors, nodes);
    let signal =
        smooth(4096, 3.0).iter().enumerate().map(|(i, v)| if i % 2048 < 1024 { *v } else { v * 1e-3 }).collect();
    (made, vec![("x".to_owned(), Tensor::from_f32(&[2, 1, 2048], signal).unwrap())])
}

#[test]
fn what_goes_into_a_logarithm_stays_float() {
    let (model, data) = on_a_spectrum();
    let done = |report: &Report, name: &str| report.nodes.iter().find(|n| n.name == name).unwrap().action;
    let (report, kernels) = both(&model, &data, 0.05);
    assert_eq!(done(&report, "last"), "quantized");
    assert_eq!(count(&kernels, "QLinearConv"), 1, "{kernels:?}");
    for name in ["cos", "sin", "bank"] {
        assert_eq!(done(&report, name), "stored int8", "{:?}", report.nodes);
    }
    let mut proto = model.proto().clone();
    let graph = proto.graph.as_mut().unwrap();
    graph.node.truncate(9);
    graph.output = vec![value("log", Float32, &[2, 63, 20])];
    let spectrum = Model::from_proto(proto);
    let (result, report) = calibrated(&spectrum, &data, &options()).unwrap();
    assert!(report.nodes.iter().all(|node| node.action == "stored int8"), "{:?}", report.nodes);
    assert!(error(&run(&spectrum, &data), &run(&result, &data)) < 0.02);
    let again = calibrated(&result, &data, &options()).err().unwrap();
    assert!(again.message().contains("is already quantized"), "{again}");
    // If there is a limit on loss, the loss is measured.
    let limit = QuantizeOptions { max_quality_loss: 1.0, ..options() };
    let report = calibrated(&spectrum, &data, &limit).unwrap().1;
    assert!(report.nodes.iter().any(|node| node.action == "quantized"), "{:?}", report.nodes);
    let dynamic = QuantizeOptions { quantize_type: QuantizeType::Dynamic, ..options() };
    let (result, report) = quantize(&model, &dynamic, &Call::default()).unwrap();
    assert_eq!(done(&report, "bank"), "stored int8");
    assert!(error(&run(&model, &data), &run(&result, &data)) < 0.05);
    // The sum with 1 keeps small values from the logarithm.
    let nodes = vec![
        NodeProto { name: Some("head".into()), ..op("MatMul", &["x", "w"], &["a"], &[]) },
        op("Relu", &["a"], &["r"], &[]),
        op("Add", &["r", "one"], &["s"], &[]),
        op("Log", &["s"], &["y"], &[]),
    ];
    let (x, y) = (value("x", Float32, &[-1, 64]), value("y", Float32, &[-1, 64]));
    let tensors = vec![weight("w", &[64, 64]), floats("one", &[], &[1.0])];
    let head = super::model(17, vec![x], vec![y], tensors, nodes);
    assert_eq!(done(&quantize(&head, &dynamic, &Call::default()).unwrap().1, "head"), "quantized");
}
