//! Dynamic quantization, rule by rule: each graph is run in ONNX Runtime before and after, and the outputs must agree
//! as closely as 8 bits allow.

mod support;

use optimize::call::Call;
use optimize::error::Kind;
use optimize::graph::edit::float_tensor;
use optimize::model::Model;
use optimize::onnx::dtype::DataType::{self, Bool, Float16, Float32, Int64};
use optimize::onnx::proto::*;
use optimize::quantize::{QuantizeOptions, ReduceRange, quantize};
use optimize::report::Report;
use optimize::runtime::{Session, SessionOptions, Tensor};
use support::build::*;
use support::runtime;

fn run(model: &Model, inputs: &[(&str, &Tensor)]) -> Vec<(String, Tensor)> {
    let options = SessionOptions { threads: 1, ..Default::default() };
    let session = Session::new(runtime(), model, &options, &Call::default()).unwrap();
    session.run(inputs, &[], &Call::default()).unwrap()
}

/// Returns the largest difference of the outputs, relative to the largest output.
fn error(before: &[(String, Tensor)], after: &[(String, Tensor)]) -> f32 {
    assert_eq!(before.len(), after.len());
    let one = |((name, a), (other, b)): (&(String, Tensor), &(String, Tensor))| {
        assert_eq!((name, a.dtype(), a.shape()), (other, b.dtype(), b.shape()));
        let (a, b) = (a.to_f32_vec().unwrap(), b.to_f32_vec().unwrap());
        let largest = a.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
        a.iter().zip(&b).fold(0f32, |m, (x, y)| m.max((x - y).abs())) / largest
    };
    before.iter().zip(after).map(one).fold(0.0, f32::max)
}

/// Quantizes a model, checks that the outputs agree, and returns the result and the report.
fn check(model: &Model, inputs: &[(&str, &Tensor)]) -> (Model, Report) {
    let options = QuantizeOptions { min_elements: 1, ..Default::default() };
    check_with(model, inputs, &options)
}

fn check_with(model: &Model, inputs: &[(&str, &Tensor)], options: &QuantizeOptions) -> (Model, Report) {
    let (result, report) = quantize(model, options, &Call::default()).unwrap();
    let found = error(&run(model, inputs), &run(&result, inputs));
    assert!(found < 0.02, "relative error {found}");
    assert!(found > 0.0, "nothing was quantized at all");
    (result, report)
}

fn floats(model: &Model) -> Vec<&str> {
    let is_float = |t: &&TensorProto| t.data_type == Some(Float32.to_onnx()) && t.dims.len() > 1;
    model.graph().initializer.iter().filter(is_float).filter_map(|t| t.name.as_deref()).collect()
}

fn count(model: &Model, op: &str) -> usize {
    model.graph().node.iter().filter(|n| n.op() == op).count()
}

fn x(rows: i64, columns: i64) -> Tensor {
    Tensor::from_f32(&[rows, columns], smooth((rows * columns) as usize, 0.5)).unwrap()
}

fn float_in(name: &str, columns: i64) -> ValueInfoProto {
    value(name, Float32, &[-1, columns])
}

#[test]
fn matmuls_that_share_an_activation_quantize_it_once() {
    let nodes = ["q", "k", "v"].map(|n| op("MatMul", &["x", &format!("w_{n}")], &[n], &[]));
    let weights = ["w_q", "w_k", "w_v"].map(|n| weight(n, &[48, 32]));
    let outputs = ["q", "k", "v"].map(|n| float_in(n, 32));
    let model = model(17, vec![float_in("x", 48)], outputs.into(), weights.into(), nodes.into());
    let (result, report) = check(&model, &[("x", &x(5, 48))]);
    assert_eq!((count(&result, "DynamicQuantizeLinear"), count(&result, "MatMulInteger")), (1, 3));
    assert!(floats(&result).is_empty());
    assert!(report.nodes.iter().all(|n| n.action == "quantized" && n.op == "MatMul"));
}

#[test]
fn gemm_keeps_its_factors_bias_and_transposed_weight() {
    for trans_b in [0, 1] {
        let dims = if trans_b == 1 { [24, 40] } else { [40, 24] };
        let mut gemm = op("Gemm", &["x", "w", "b"], &["y"], &[("transB", trans_b)]);
        for (name, value) in [("alpha", 0.5), ("beta", 2.0)] {
            let name = Some(name.to_owned());
            gemm.attribute.push(AttributeProto { name, kind: Some(1), f: Some(value), ..Default::default() });
        }
        let weights = vec![weight("w", &dims), weight("b", &[24])];
        let model = model(13, vec![float_in("x", 40)], vec![float_in("y", 24)], weights, vec![gemm]);
        let (result, _) = check(&model, &[("x", &x(3, 40))]);
        assert_eq!((count(&result, "Gemm"), count(&result, "MatMulInteger")), (0, 1));
    }
    let transposed = op("Gemm", &["x", "w"], &["y"], &[("transA", 1)]);
    let model = model(
        13,
        vec![value("x", Float32, &[40, -1])],
        vec![float_in("y", 24)],
        vec![weight("w", &[40, 24])],
        vec![transposed],
    );
    // With a transposed left factor there is no integer form; the weight is still stored in 8 bits.
    let (_, report) = check(&model, &[("x", &x(40, 5))]);
    assert_eq!(report.nodes[0].action, "stored int8");
}

#[test]
fn weights_behind_constants_transposes_and_identities_are_found_and_removed() {
    let nodes = vec![
        constant(weight("w", &[32, 48])),
        op("Identity", &["w"], &["i"], &[]),
        NodeProto {
            attribute: vec![AttributeProto {
                name: Some("perm".into()),
                kind: Some(attribute_kind::INTS),
                ints: vec![1, 0],
                ..Default::default()
            }],
            ..op("Transpose", &["i"], &["t"], &[])
        },
        op("MatMul", &["x", "t"], &["y"], &[]),
    ];
    let model = model(17, vec![float_in("x", 48)], vec![float_in("y", 32)], vec![], nodes);
    let (result, _) = check(&model, &[("x", &x(4, 48))]);
    assert_eq!((count(&result, "Transpose"), count(&result, "Constant"), count(&result, "Identity")), (0, 0, 0));
}

#[test]
fn a_table_is_quantized_by_row_unless_somebody_needs_it_as_float() {
    let ids = Tensor::from_i64(&[2, 3], vec![0, 5, 2, 7, 7, 1]).unwrap();
    let table = || vec![weight("table", &[8, 32])];
    let id_value = value("ids", Int64, &[2, 3]);
    let gather = op("Gather", &["table", "ids"], &["e"], &[]);
    let out = || vec![value("e", Float32, &[2, 3, 32])];
    let plain = model(17, vec![id_value.clone()], out(), table(), vec![gather.clone()]);
    let (result, report) = check(&plain, &[("ids", &ids)]);
    assert!(floats(&result).iter().all(|name| name.contains("scale")));
    assert!(report.nodes[0].reason.contains("one scale per row"));

    // The table is tied to an output layer: both become int8, and the float table is removed.
    let head = op("MatMul", &["e", "transposed"], &["logits"], &[]);
    let turn = op("Transpose", &["table"], &["transposed"], &[]);
    let turn = NodeProto {
        attribute: vec![AttributeProto {
            name: Some("perm".into()),
            kind: Some(attribute_kind::INTS),
            ints: vec![1, 0],
            ..Default::default()
        }],
        ..turn
    };
    let outputs = vec![value("logits", Float32, &[2, 3, 8])];
    let tied = model(17, vec![id_value.clone()], outputs, table(), vec![gather.clone(), turn, head]);
    let (result, _) = check(&tied, &[("ids", &ids)]);
    assert!(floats(&result).iter().all(|name| name.contains("scale")));

    // An operator that stays float also reads the table: leaving the table unchanged costs nothing, quantizing it would
    // add bytes.
    let reader = op("ReduceSum", &["table"], &["sum"], &[]);
    let outputs = vec![value("e", Float32, &[2, 3, 32]), value("sum", Float32, &[1, 1])];
    let shared = model(17, vec![id_value], outputs, table(), vec![gather, reader]);
    let left = quantize(&shared, &QuantizeOptions { min_elements: 1, ..Default::default() }, &Call::default());
    assert!(left.err().unwrap().message().contains("needs the table as float"));
}

#[test]
fn weights_in_branches_and_of_the_graph_around_them_are_quantized() {
    let branch = |name: &str, nodes: Vec<NodeProto>, initializer: Vec<TensorProto>| GraphProto {
        name: Some(name.into()),
        node: nodes,
        initializer,
        output: vec![value(&format!("{name}_y"), Float32, &[-1, 32])],
        ..Default::default()
    };
    let inside =
        branch("then", vec![op("MatMul", &["x", "inner"], &["then_y"], &[])], vec![weight("inner", &[48, 32])]);
    let around = branch(
        "else",
        vec![
            constant(weight("bias", &[32])),
            op("MatMul", &["x", "outer"], &["m"], &[]),
            op("Add", &["m", "bias"], &["else_y"], &[]),
        ],
        vec![],
    );
    let choose = with_graph(op("If", &["c"], &["y"], &[]), "then_branch", inside);
    let choose = with_graph(choose, "else_branch", around);
    let inputs = vec![float_in("x", 48), value("c", Bool, &[])];
    let model = model(17, inputs, vec![float_in("y", 32)], vec![weight("outer", &[48, 32])], vec![choose]);
    for chosen in [true, false] {
        let c = Tensor::from_bools(&[], &[chosen]).unwrap();
        let (result, report) = check(&model, &[("x", &x(2, 48)), ("c", &c)]);
        assert!(floats(&result).is_empty());
        assert_eq!(report.nodes.len(), 2);
    }
}

#[test]
fn function_bodies_are_quantized_with_their_constants() {
    let import = |domain: &str, version| OperatorSetIdProto {
        domain: Some(domain.into()),
        version: Some(version),
        ..Default::default()
    };
    let function = FunctionProto {
        name: Some("Dense".into()),
        domain: Some("mine".into()),
        input: vec!["a".into()],
        output: vec!["b".into()],
        opset_import: vec![import("", 17)],
        node: vec![constant(weight("w", &[48, 32])), op("MatMul", &["a", "w"], &["b"], &[])],
        ..Default::default()
    };
    let call = NodeProto { domain: Some("mine".into()), ..op("Dense", &["x"], &["y"], &[]) };
    let graph = GraphProto {
        name: Some("g".into()),
        node: vec![call],
        input: vec![float_in("x", 48)],
        output: vec![float_in("y", 32)],
        ..Default::default()
    };
    let mut proto = model_of(17, graph);
    proto.opset_import.push(import("mine", 1));
    proto.functions.push(function);
    check(&Model::from_proto(proto), &[("x", &x(3, 48))]);
}

#[test]
fn half_precision_weights_become_int8_and_the_output_stays_half() {
    let raw: Vec<u8> = smooth(48 * 32, 3.0).iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
    let weight = optimize::graph::edit::tensor("w", Float16, &[48, 32], raw.into());
    let node = op("MatMul", &["x", "w"], &["y"], &[]);
    let model =
        model(17, vec![value("x", Float16, &[-1, 48])], vec![value("y", Float16, &[-1, 32])], vec![weight], vec![node]);
    let halves: Vec<half::f16> = smooth(4 * 48, 0.1).into_iter().map(half::f16::from_f32).collect();
    check(&model, &[("x", &Tensor::from_vec(&[4, 48], halves).unwrap())]);
}

#[test]
fn old_operator_sets_get_the_contrib_form_and_old_files_lose_the_inputs_of_their_weights() {
    let node = op("MatMul", &["x", "w"], &["y"], &[]);
    let made = model(9, vec![float_in("x", 48)], vec![float_in("y", 32)], vec![weight("w", &[48, 32])], vec![node]);
    let mut proto = made.proto().clone();
    proto.ir_version = Some(3);
    proto.graph.as_mut().unwrap().input.push(value("w", Float32, &[48, 32]));
    let (result, report) = check(&Model::from_proto(proto), &[("x", &x(3, 48))]);
    assert_eq!(count(&result, "DynamicQuantizeMatMul"), 1);
    assert_eq!(result.graph().input.len(), 1);
    assert!(report.nodes[0].reason.contains("DynamicQuantizeMatMul"));
}

#[test]
fn one_weight_of_two_nodes_is_stored_once_and_a_float_reader_keeps_the_original() {
    let nodes = vec![
        op("MatMul", &["x", "w"], &["a"], &[]),
        op("MatMul", &["x2", "w"], &["b"], &[]),
        op("ReduceSum", &["w"], &["s"], &[]),
    ];
    let outputs = vec![float_in("a", 32), float_in("b", 32), value("s", Float32, &[1, 1])];
    let model = model(17, vec![float_in("x", 48), float_in("x2", 48)], outputs, vec![weight("w", &[48, 32])], nodes);
    let (result, report) = check(&model, &[("x", &x(2, 48)), ("x2", &x(2, 48))]);
    let int8 = result.graph().initializer.iter().filter(|t| t.data_type == Some(DataType::Int8.to_onnx())).count();
    assert_eq!((int8, floats(&result)), (1, vec!["w"]));
    assert!(report.nodes[0].reason.contains("is kept for another node"));
}

#[test]
fn globs_choose_and_a_glob_without_a_match_is_an_error() {
    let named = |name: &str, input: &str, w: &str, output: &str| NodeProto {
        name: Some(name.into()),
        ..op("MatMul", &[input, w], &[output], &[])
    };
    let nodes = vec![named("/layer.0/query/MatMul", "x", "wq", "q"), named("/layer.0/value/MatMul", "x", "wv", "v")];
    let weights = vec![weight("wq", &[48, 32]), weight("wv", &[48, 32])];
    let outputs = vec![float_in("q", 32), float_in("v", 32)];
    let model = model(17, vec![float_in("x", 48)], outputs, weights, nodes);
    let with = |include: &[&str], exclude: &[&str]| {
        let own = |list: &[&str]| list.iter().map(|s| s.to_string()).collect();
        let options =
            QuantizeOptions { min_elements: 1, include: own(include), exclude: own(exclude), ..Default::default() };
        quantize(&model, &options, &Call::default())
    };
    let actions = |report: &Report| report.nodes.iter().map(|n| n.action).collect::<Vec<_>>();
    assert_eq!(actions(&with(&["*query*"], &[]).unwrap().1), ["quantized", "left"]);
    assert_eq!(actions(&with(&[], &["wq"]).unwrap().1), ["left", "quantized"]);
    let none = with(&["*dense*"], &[]).err().unwrap();
    assert_eq!(none.kind(), Kind::InvalidArgument);
    assert!(none.message().contains("/layer.0/query/MatMul"), "{none}");
    assert_eq!(with(&["["], &[]).err().unwrap().kind(), Kind::InvalidArgument);
    assert_eq!(with(&[], &["*"]).err().unwrap().kind(), Kind::Unsupported);
}

#[test]
fn weights_that_are_not_finite_are_left_with_the_reason() {
    let mut values = smooth(48 * 32, 1.0);
    values[77] = f32::NAN;
    let nodes = vec![op("MatMul", &["x", "bad"], &["a"], &[]), op("MatMul", &["x", "w"], &["b"], &[])];
    let weights = vec![float_tensor("bad", &[48, 32], &values), weight("w", &[48, 32])];
    let outputs = vec![float_in("a", 32), float_in("b", 32)];
    let model = model(17, vec![float_in("x", 48)], outputs, weights, nodes);
    let options = QuantizeOptions { min_elements: 1, ..Default::default() };
    let (result, report) = quantize(&model, &options, &Call::default()).unwrap();
    assert_eq!(floats(&result), ["bad"]);
    assert!(report.nodes[0].reason.contains("not finite"));
    run(&result, &[("x", &x(2, 48))]);
}

#[test]
fn per_tensor_and_reduced_range_are_honoured() {
    let node = op("MatMul", &["x", "w"], &["y"], &[]);
    let model = model(17, vec![float_in("x", 48)], vec![float_in("y", 32)], vec![weight("w", &[48, 32])], vec![node]);
    let options =
        QuantizeOptions { min_elements: 1, per_channel: false, reduce_range: ReduceRange::On, ..Default::default() };
    let (result, _) = check_with(&model, &[("x", &x(4, 48))], &options);
    let int8 = result.graph().initializer.iter().find(|t| t.data_type == Some(3)).unwrap();
    let largest = int8.raw_data.as_ref().unwrap().iter().map(|b| (*b as i8).unsigned_abs()).max();
    assert_eq!(largest, Some(63));
    assert!(result.graph().initializer.iter().any(|t| t.data_type == Some(1) && t.dims.is_empty()));
}

#[test]
fn quantizing_is_deterministic_and_leaves_the_original_alone() {
    let model = Model::load(&support::deps("models/paraphrase-MiniLM-L3-v2/model.onnx")).unwrap();
    let before = model.identity(&Call::default()).unwrap().sha256;
    let bytes = |threads| {
        let options = QuantizeOptions { threads, ..Default::default() };
        let (result, _) = quantize(&model, &options, &Call::default()).unwrap();
        optimize::onnx::save::encode(result.proto()).concat()
    };
    let one = bytes(1);
    assert_eq!(one, bytes(2));
    assert!((one.len() as f64) < 0.3 * model.bytes() as f64, "{} of {}", one.len(), model.bytes());
    assert_eq!(before, model.identity(&Call::default()).unwrap().sha256);
}
