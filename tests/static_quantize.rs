//! Static quantization, rule by rule: outputs stay within the accuracy of 8 bits, and ONNX Runtime uses the intended
//! integer kernels.

#[path = "static/faults.rs"]
mod faults;
#[path = "static/random.rs"]
mod random;
mod support;

use optimize::calibrate::{Calibration, batches, without_data};
use optimize::call::{Call, Cancel};
use optimize::error::{Kind, Result};
use optimize::graph::edit::ints_attribute;
use optimize::model::Model;
use optimize::onnx::dtype::DataType::{Float16, Float32};
use optimize::onnx::proto::*;
use optimize::quantize::{CalibrationMethod, QuantizeOptions, QuantizeType, quantize, quantize_with};
use optimize::report::Report;
use optimize::runtime::Tensor;
use support::build::*;
use support::quantized::*;
use support::runtime;

/// Quantizes a model, checks that the outputs agree within `allowed`, and returns the result, the report and the
/// kernels.
fn check(model: &Model, data: &[(String, Tensor)], allowed: f32) -> (Model, Report, Vec<String>) {
    let (result, report) = calibrated(model, data, &options()).unwrap();
    let found = error(&run(model, data), &run(&result, data));
    assert!(found > 0.0 && found < allowed, "relative error {found}");
    let kernels = kernels(&result);
    (result, report, kernels)
}

fn picture() -> Vec<(String, Tensor)> {
    input("x", &[2, 4, 8, 8])
}

fn x() -> Vec<ValueInfoProto> {
    vec![value("x", Float32, &[-1, 4, 8, 8])]
}

fn conv(from: &str, weight: &str, bias: Option<&str>, to: &str) -> NodeProto {
    let mut node = op("Conv", &[from, weight], &[to], &[]);
    node.input.extend(bias.map(str::to_owned));
    node.attribute.push(ints_attribute("pads", &[1, 1, 1, 1]));
    node
}

/// Returns a convolution from `x` to `a`, `tail`, and a convolution from `last` to the output: int8 at both ends of
/// the tail.
fn between(tail: Vec<NodeProto>, last: (&str, i64), mut tensors: Vec<TensorProto>) -> Model {
    tensors.extend([weight("first", &[4, 4, 3, 3]), weight("second", &[4, last.1, 3, 3]), weight("bias", &[4])]);
    let mut nodes = vec![conv("x", "first", Some("bias"), "a")];
    nodes.extend(tail);
    nodes.push(conv(last.0, "second", None, "y"));
    model(17, x(), vec![value("y", Float32, &[-1, 4, -1, -1])], tensors, nodes)
}

fn action<'r>(report: &'r Report, op: &str) -> (&'r str, &'r str) {
    let node = report.nodes.iter().find(|n| n.op == op).unwrap_or_else(|| panic!("no {op} in the report"));
    (node.action, &node.reason)
}

#[test]
fn convolutions_are_integer_per_channel_and_relu_is_what_saturates() {
    let model = between(vec![op("Relu", &["a"], &["r"], &[])], ("r", 4), vec![]);
    let (result, report, kernels) = check(&model, &picture(), 0.03);
    assert_eq!((count(&kernels, "QLinearConv"), count(&kernels, "Relu"), count(&kernels, "Conv")), (2, 0, 0));
    assert_eq!((count(&kernels, "QuantizeLinear"), count(&kernels, "DequantizeLinear")), (1, 1));
    assert_eq!(action(&report, "Conv"), ("quantized", "QLinearConv, int8 weight per channel, uint8 in, uint8 out"));
    assert_eq!(action(&report, "Relu").0, "quantized");
    assert!(result.graph().initializer.iter().all(|t| t.data_type != Some(Float32.to_onnx()) || t.dims.len() < 2));
    assert_eq!(report.summary["calibration_batches"], 1);
    // A single scale for the whole weight loses more.
    let coarse = QuantizeOptions { per_channel: false, ..options() };
    let coarse = calibrated(&model, &picture(), &coarse).unwrap();
    assert!(action(&coarse.1, "Conv").1.contains("per tensor"));
}

#[test]
fn followers_between_convolutions_become_integer_kernels() {
    let pool = |op_type: &str, size: i64| {
        let mut node = op(op_type, &["a"], &["p"], &[]);
        node.attribute.push(ints_attribute("kernel_shape", &[size, size]));
        node
    };
    let cases: Vec<(&str, Vec<NodeProto>, (&str, i64))> = vec![
        ("QLinearAdd", vec![op("Add", &["a", "x"], &["s"], &[])], ("s", 4)),
        ("QLinearMul", vec![op("Mul", &["a", "constant"], &["s"], &[])], ("s", 4)),
        ("QLinearConcat", vec![op("Concat", &["a", "x"], &["s"], &[("axis", 1)])], ("s", 8)),
        ("QLinearSigmoid", vec![op("Sigmoid", &["a"], &["s"], &[])], ("s", 4)),
        ("QLinearLeakyRelu", vec![op("LeakyRelu", &["a"], &["s"], &[])], ("s", 4)),
        ("QLinearAveragePool", vec![pool("AveragePool", 2)], ("p", 4)),
        ("MaxPool", vec![pool("MaxPool", 2)], ("p", 4)),
        (
            "Transpose",
            vec![NodeProto {
                attribute: vec![ints_attribute("perm", &[0, 1, 3, 2])],
                ..op("Transpose", &["a"], &["p"], &[])
            }],
            ("p", 4),
        ),
        ("Resize", vec![op("Resize", &["a", "", "scales"], &["p"], &[])], ("p", 4)),
    ];
    for (kernel, tail, last) in cases {
        let tensors = vec![weight("constant", &[8, 8]), floats("scales", &[4], &[1.0, 1.0, 2.0, 2.0])];
        let (_, _, kernels) = check(&between(tail, last, tensors), &picture(), 0.06);
        assert_eq!((count(&kernels, kernel), count(&kernels, "QLinearConv")), (1, 2), "{kernels:?}");
        // The input is quantized and the output dequantized; there is no conversion in between.
        assert_eq!((count(&kernels, "QuantizeLinear"), count(&kernels, "DequantizeLinear")), (1, 1), "{kernels:?}");
    }
}

#[test]
fn what_has_no_integer_kernel_or_leads_to_none_stays_float() {
    // Softplus has no integer kernel. The Add after it has one, but its input is float and no reader needs int8.
    let tail = vec![op("Softplus", &["a"], &["s"], &[]), op("Add", &["s", "s"], &["t"], &[])];
    let (_, report, kernels) = check(&between(tail, ("t", 4), vec![]), &picture(), 0.03);
    assert_eq!((count(&kernels, "Add"), count(&kernels, "QLinearAdd"), count(&kernels, "QLinearConv")), (1, 0, 2));
    assert!(report.nodes.iter().all(|n| n.op == "Conv"));
    // The range of a scale always includes zero, so a `Clip` whose bounds exclude zero cannot be merged into it.
    let clip = |low: f32, high: f32| {
        let tail = vec![op("Clip", &["a", "low", "high"], &["c"], &[])];
        let bounds = vec![floats("low", &[], &[low]), floats("high", &[], &[high])];
        check(&between(tail, ("c", 4), bounds), &picture(), 0.03).2
    };
    assert_eq!(
        (count(&clip(0.5, 2.0), "Clip"), count(&clip(0.0, 0.5), "Clip"), count(&clip(-0.25, 0.5), "Clip")),
        (1, 0, 0)
    );
}

#[test]
fn a_relu_whose_input_somebody_else_reads_stays() {
    let tail = vec![op("Relu", &["a"], &["r"], &[]), op("Add", &["a", "r"], &["s"], &[])];
    let (_, _, kernels) = check(&between(tail, ("s", 4), vec![]), &picture(), 0.03);
    assert_eq!((count(&kernels, "QLinearConv"), count(&kernels, "Relu")), (2, 1));
}

#[test]
fn outputs_keep_their_names_and_values_for_readers_of_floats() {
    let relu = op("Relu", &["a"], &["r"], &[]);
    let mut proto = between(vec![relu], ("r", 4), vec![]).proto().clone();
    let graph = proto.graph.as_mut().unwrap();
    graph.output.push(value("r", Float32, &[-1, 4, 8, 8]));
    let model = Model::from_proto(proto);
    let (result, _, kernels) = check(&model, &picture(), 0.03);
    let names: Vec<String> = result.outputs().into_iter().map(|o| o.name).collect();
    assert_eq!((names, count(&kernels, "QLinearConv")), (vec!["y".to_owned(), "r".to_owned()], 2));
    assert!(run(&result, &picture())[1].iter().all(|v| *v >= 0.0));
}

#[test]
fn matmuls_share_one_quantized_activation_and_give_floats() {
    let nodes = ["q", "k", "v"].map(|n| op("MatMul", &["x", &format!("w_{n}")], &[n], &[]));
    let weights = ["w_q", "w_k", "w_v"].map(|n| weight(n, &[48, 32]));
    let outputs = ["q", "k", "v"].map(|n| value(n, Float32, &[-1, 6, 32]));
    let model = model(17, vec![value("x", Float32, &[-1, 6, 48])], outputs.into(), weights.into(), nodes.into());
    let (_, report, kernels) = check(&model, &input("x", &[3, 6, 48]), 0.02);
    assert_eq!((count(&kernels, "QuantizeLinear"), count(&kernels, "MatMulIntegerToFloat"), kernels.len()), (1, 3, 4));
    assert_eq!(action(&report, "MatMul").1, "MatMulIntegerToFloat, int8 weight per channel, uint8 in, float out");
}

#[test]
fn gemm_keeps_its_factors_bias_and_transposed_weight() {
    for trans_b in [0, 1] {
        let dims = if trans_b == 1 { [24, 40] } else { [40, 24] };
        let mut gemm = op("Gemm", &["x", "w", "b"], &["h"], &[("transB", trans_b)]);
        for (name, value) in [("alpha", 0.5), ("beta", 2.0)] {
            let name = Some(name.to_owned());
            gemm.attribute.push(AttributeProto { name, kind: Some(1), f: Some(value), ..Default::default() });
        }
        let nodes = vec![gemm, op("Relu", &["h"], &["r"], &[]), op("Gemm", &["r", "v"], &["y"], &[])];
        let weights = vec![weight("w", &dims), weight("b", &[24]), weight("v", &[24, 16])];
        let model =
            model(13, vec![value("x", Float32, &[-1, 40])], vec![value("y", Float32, &[-1, 16])], weights, nodes);
        let (_, _, kernels) = check(&model, &input("x", &[5, 40]), 0.03);
        assert_eq!((count(&kernels, "QGemm"), count(&kernels, "Relu"), kernels.len()), (2, 0, 3), "{kernels:?}");
    }
}

#[test]
fn a_bias_beyond_32_bits_of_its_scale_is_kept() {
    let mut tiny = smooth(4 * 4 * 9, 1.0);
    tiny[..36].iter_mut().for_each(|v| *v *= 1e-12);
    let tensors = vec![floats("tiny", &[4, 4, 3, 3], &tiny), floats("offset", &[4], &[0.5, -1.0, 2.0, 0.0])];
    let tail = vec![conv("a", "tiny", Some("offset"), "b")];
    check(&between(tail, ("b", 4), tensors), &picture(), 0.03);
    // A bias of one value belongs to all channels.
    let mut narrow = smooth(8 * 4, 1.0);
    (0..8).for_each(|row| narrow[row * 4 + 2] *= 1e-12);
    let tensors = vec![floats("narrow", &[8, 4], &narrow), floats("one", &[1], &[2.0])];
    let (x, y) = (value("x", Float32, &[-1, 8]), value("y", Float32, &[-1, 4]));
    let nodes = vec![op("Gemm", &["x", "narrow", "one"], &["y"], &[])];
    check(&model(17, vec![x], vec![y], tensors, nodes), &input("x", &[16, 8]), 0.03);
}

#[test]
fn normalizations_and_constants_behind_a_convolution_are_folded_into_it() {
    let tail = vec![
        op("BatchNormalization", &["a", "g", "o", "m", "v"], &["n"], &[]),
        op("Mul", &["n", "times"], &["t"], &[]),
        op("Add", &["t", "plus"], &["s"], &[]),
        op("Relu", &["s"], &["r"], &[]),
    ];
    let tensors = vec![
        floats("g", &[4], &[0.5, -2.0, 1.0, 3.0]),
        floats("o", &[4], &[0.1, 0.2, -0.3, 0.0]),
        floats("m", &[4], &[0.0, 1.0, -1.0, 0.5]),
        floats("v", &[4], &[1.0, 0.5, 4.0, 2.0]),
        floats("times", &[1], &[1.5]),
        floats("plus", &[1, 4, 1, 1], &[0.25, 0.5, -0.5, 0.0]),
    ];
    let (_, report, kernels) = check(&between(tail, ("r", 4), tensors), &picture(), 0.03);
    assert_eq!((count(&kernels, "QLinearConv"), kernels.len()), (2, 4), "{kernels:?}");
    assert!(action(&report, "BatchNormalization").1.contains("folded"));
}

#[test]
fn before_operator_set_13_convolutions_still_have_channels() {
    let mut proto = between(vec![op("Relu", &["a"], &["r"], &[])], ("r", 4), vec![]).proto().clone();
    proto.opset_import[0].version = Some(11);
    // Channels of very different size show whether each has its own scale.
    for tensor in proto.graph.as_mut().unwrap().initializer.iter_mut().filter(|t| t.dims.len() == 4) {
        let size = tensor.dims[1..].iter().product::<i64>() as usize;
        let values: Vec<f32> =
            smooth(4 * size, 3.0).iter().enumerate().map(|(i, v)| v * [1.0, 0.003, 0.1, 0.003][i / size]).collect();
        *tensor = floats(tensor.name.as_deref().unwrap(), &tensor.dims, &values);
    }
    let (result, _) = calibrated(&Model::from_proto(proto.clone()), &picture(), &options()).unwrap();
    let (a, b) = (run(&Model::from_proto(proto.clone()), &picture()), run(&result, &picture()));
    let channel = |all: &[Vec<f32>], c: usize| vec![all[0][c * 64..(c + 1) * 64].to_vec()];
    assert!(error(&a, &b) < 0.03);
    let coarse = QuantizeOptions { per_channel: false, ..options() };
    let coarse = run(&calibrated(&Model::from_proto(proto.clone()), &picture(), &coarse).unwrap().0, &picture());
    // The output has one scale for all channels, so small channels are coarse in any case, but not as coarse as with
    // one scale for the weight.
    assert!(error(&channel(&a, 0), &channel(&b, 0)) <= error(&channel(&a, 0), &channel(&coarse, 0)) + 0.01);
    assert_eq!(count(&kernels(&result), "QLinearConv"), 2);
    assert!(result.graph().node.iter().any(|n| n.op() == "QLinearConv"));
    // QuantizeLinear exists from opset 10 on. Older models are converted, except those with subgraphs.
    let branch = |name: &str| GraphProto {
        name: Some(name.to_owned()),
        node: vec![op("Identity", &["r"], &[name], &[])],
        output: vec![value(name, Float32, &[-1, 4, 8, 8])],
        ..Default::default()
    };
    let node = with_graph(op("If", &["flag"], &["i"], &[]), "then_branch", branch("yes"));
    let node = with_graph(node, "else_branch", branch("no"));
    let flag = optimize::graph::edit::tensor("flag", optimize::onnx::dtype::DataType::Bool, &[], vec![1u8].into());
    let mut proto = between(vec![op("Relu", &["a"], &["r"], &[]), node], ("i", 4), vec![flag]).proto().clone();
    proto.opset_import[0].version = Some(9);
    let old = calibrated(&Model::from_proto(proto), &picture(), &options()).err().unwrap();
    assert!(old.kind() == Kind::Unsupported && old.message().contains("opset 10"), "{old}");
}

#[test]
fn what_is_left_has_a_reason() {
    let inner = GraphProto {
        name: Some("inner".to_owned()),
        node: vec![op("MatMul", &["x", "w"], &["inside"], &[])],
        output: vec![value("inside", Float32, &[-1, 32])],
        ..Default::default()
    };
    let other = GraphProto {
        name: Some("other".to_owned()),
        node: vec![op("Identity", &["m"], &["outside"], &[])],
        output: vec![value("outside", Float32, &[-1, 32])],
        ..Default::default()
    };
    let branch = with_graph(with_graph(op("If", &["flag"], &["z"], &[]), "then_branch", inner), "else_branch", other);
    let half = TensorProto { data_type: Some(Float16.to_onnx()), ..floats("half", &[32, 2], &[0.0; 32]) };
    let nodes = vec![
        op("MatMul", &["x", "w"], &["m"], &[]),
        op("MatMul", &["x", "excluded"], &["e"], &[]),
        op("Cast", &["x"], &["narrow"], &[("to", 10)]),
        op("MatMul", &["narrow", "half"], &["n"], &[]),
        op("DequantizeLinear", &["bytes", "scale"], &["w8"], &[]),
        op("MatMul", &["x", "w8"], &["already"], &[]),
        op("MatMul", &["x", "broken"], &["b"], &[]),
        branch,
    ];
    let mut broken = smooth(32 * 32, 1.0);
    broken[7] = f32::INFINITY;
    let tensors = vec![
        weight("w", &[32, 32]),
        weight("excluded", &[32, 32]),
        TensorProto { dims: vec![32, 2], ..half },
        optimize::graph::edit::tensor("bytes", optimize::onnx::dtype::DataType::Int8, &[32, 8], vec![3u8; 256].into()),
        floats("scale", &[], &[0.1]),
        floats("broken", &[32, 32], &broken),
        optimize::graph::edit::tensor("flag", optimize::onnx::dtype::DataType::Bool, &[], vec![1u8].into()),
    ];
    let outputs = ["e", "already", "b", "z"].map(|n| value(n, Float32, &[-1, -1]));
    let mut outputs = outputs.to_vec();
    outputs.push(value("n", Float16, &[-1, 2]));
    let model = model(17, vec![value("x", Float32, &[-1, 32])], outputs, tensors, nodes);
    let options = QuantizeOptions { exclude: vec!["excluded".to_owned()], ..options() };
    let (result, report) = calibrated(&model, &input("x", &[4, 32]), &options).unwrap();
    let reason = |name: &str| report.nodes.iter().find(|n| n.name == name).unwrap().reason.clone();
    assert!(reason("m").starts_with("MatMulIntegerToFloat"));
    assert_eq!(reason("e"), "excluded");
    assert!(reason("n").contains("float16"));
    assert_eq!(reason("already"), "is already quantized");
    assert!(reason("b").contains("not finite"));
    // If no ranges are known, activations are quantized at run time.
    assert!(reason("inside").contains("MatMulInteger"), "{}", reason("inside"));
    assert!(!result.graph().initializer.iter().any(|t| t.name.as_deref() == Some("w")), "nobody reads it as floats");
    let none = QuantizeOptions { exclude: vec!["*".to_owned()], ..options };
    let none = calibrated(&model, &input("x", &[4, 32]), &none).err().unwrap();
    assert!(none.kind() == Kind::Unsupported && none.message().contains("excluded"), "{none}");
}

#[test]
fn data_is_cut_into_batches() {
    let free = model(
        17,
        vec![value("x", Float32, &[-1, 3]), value("flag", Float32, &[])],
        vec![value("y", Float32, &[-1, 3])],
        vec![],
        vec![op("Mul", &["x", "flag"], &["y"], &[])],
    );
    let flag = ("flag".to_owned(), Tensor::from_f32(&[], vec![2.0]).unwrap());
    let data = |dims: &[i64]| vec![input("x", dims).remove(0), flag.clone()];
    let shapes = |model: &Model, data: &[(String, Tensor)]| -> Result<Vec<Vec<i64>>> {
        let found = batches(model, &Calibration::Tensors(data))?;
        Ok(found.iter().map(|b| b.inputs[0].1.shape().to_vec()).collect())
    };
    let tens = data(&[10, 3]);
    assert_eq!(shapes(&free, &tens).unwrap(), [vec![8, 3], vec![2, 3]]);
    let cut = batches(&free, &Calibration::Tensors(&tens)).unwrap();
    let together: Vec<f32> = cut.iter().flat_map(|b| b.inputs[0].1.to_f32_vec().unwrap()).collect();
    assert_eq!(together, tens[0].1.to_f32_vec().unwrap());
    assert!(cut.iter().all(|b| b.inputs[1].1.shape().is_empty()));
    // The tensor has one dimension more than the input, so each run gets one sample.
    assert_eq!(shapes(&free, &data(&[2, 5, 3])).unwrap(), [vec![5, 3], vec![5, 3]]);
    let fixed = model(
        17,
        vec![value("x", Float32, &[4, 3])],
        vec![value("y", Float32, &[4, 3])],
        vec![],
        vec![op("Relu", &["x"], &["y"], &[])],
    );
    assert_eq!(shapes(&fixed, &input("x", &[9, 3])).unwrap(), [vec![4, 3], vec![4, 3]]);
    let fails = |model: &Model, data: &[(String, Tensor)]| shapes(model, data).unwrap_err().to_string();
    assert!(fails(&fixed, &input("x", &[3, 3])).contains("4 at a time"));
    assert!(fails(&fixed, &input("nothing", &[3, 3])).contains("no input \"nothing\""));
    assert!(fails(&free, std::slice::from_ref(&flag)).contains("no calibration data has a dimension of samples"));
    assert!(fails(&free, &data(&[0, 3])).contains("no samples"));
    assert_eq!(without_data(&free).unwrap().len(), 8);
}

#[test]
fn without_data_static_quantization_says_what_it_needs() {
    let model = between(vec![], ("a", 4), vec![]);
    let none = quantize(&model, &options(), &Call::default()).err().unwrap();
    assert!(none.kind() == Kind::InvalidArgument && none.message().contains("calibration data"), "{none}");
    let cancel = Cancel::new();
    cancel.fire();
    let call = Call { cancel: Some(&cancel), ..Call::default() };
    let data = picture();
    let stopped = quantize_with(runtime(), &model, &options(), Some(&Calibration::Tensors(&data)), &call);
    assert_eq!(stopped.err().unwrap().kind(), Kind::Cancelled);
}

#[test]
fn outliers_are_cut_off_where_that_is_asked_for() {
    let weights = vec![weight("w", &[64, 32])];
    let nodes = vec![op("MatMul", &["x", "w"], &["y"], &[])];
    let (x, y) = (value("x", Float32, &[-1, 512, 64]), value("y", Float32, &[-1, 512, 32]));
    let model = model(17, vec![x], vec![y], weights, nodes);
    let mut values = smooth(128 * 512 * 64, 0.1);
    values[5] = 300.0;
    let data = vec![("x".to_owned(), Tensor::from_f32(&[128, 512, 64], values).unwrap())];
    let judged = input("x", &[1, 512, 64]);
    let lost = |calibration_method| {
        let options = QuantizeOptions { calibration_method, ..options() };
        error(&run(&model, &judged), &run(&calibrated(&model, &data, &options).unwrap().0, &judged))
    };
    let whole = lost(CalibrationMethod::MinMax);
    for method in [CalibrationMethod::Percentile, CalibrationMethod::Entropy, CalibrationMethod::Mse] {
        let cut = lost(method);
        assert!(cut < 0.5 * whole && cut < 0.2, "{method:?}: {cut}, without {whole}");
    }
}
