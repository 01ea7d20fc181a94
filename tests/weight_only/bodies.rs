//! Tests of weights in branches and functions, and of weights that several nodes share.

use super::*;

pub fn branching() -> Model {
    let branch = |name: &str, weight: &str, initializer: Vec<TensorProto>| GraphProto {
        name: Some(name.into()),
        node: vec![op("MatMul", &["x", weight], &[&format!("{name}_y")], &[])],
        initializer,
        output: vec![value(&format!("{name}_y"), Float32, &[-1, 40])],
        ..Default::default()
    };
    let choose = op("If", &["c"], &["y"], &[]);
    let choose = with_graph(choose, "then_branch", branch("then", "inner", vec![weight("inner", &[96, 40])]));
    let choose = with_graph(choose, "else_branch", branch("else", "outer", vec![]));
    let inputs = vec![float_in("x", 96), value("c", Bool, &[])];
    model(17, inputs, vec![float_in("y", 40)], vec![weight("outer", &[96, 40])], vec![choose])
}

/// Returns a model that calls the same function twice, so that its constants are stored once for both.
pub fn calling() -> Model {
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
        node: vec![constant(weight("w", &[96, 96])), op("MatMul", &["a", "w"], &["b"], &[])],
        ..Default::default()
    };
    let call =
        |input: &str, output: &str| NodeProto { domain: Some("mine".into()), ..op("Dense", &[input], &[output], &[]) };
    let graph = GraphProto {
        name: Some("g".into()),
        node: vec![call("x", "y"), call("x2", "y2")],
        input: vec![float_in("x", 96), float_in("x2", 96)],
        output: vec![float_in("y", 96), float_in("y2", 96)],
        ..Default::default()
    };
    let mut proto = model_of(17, graph);
    proto.opset_import.push(import("mine", 1));
    proto.functions.push(function);
    Model::from_proto(proto)
}

#[test]
fn branches_and_functions_are_quantized() {
    let (x, x2) = (uniform(&[3, 96], 0.5), uniform(&[3, 96], 0.7));
    for form in forms() {
        for chosen in [true, false] {
            let c = Tensor::from_bools(&[], &[chosen]).unwrap();
            let (result, report) = check(&branching(), &[("x", &x), ("c", &c)], &form);
            assert_eq!(report.nodes.len(), 2);
            assert!(initializers(&result, Float32, 2).iter().all(|t| t.name.as_deref() != Some("outer")));
        }
        check(&calling(), &[("x", &x), ("x2", &x2)], &form);
    }
}

#[test]
fn one_weight_of_two_nodes_is_stored_once_and_a_float_reader_keeps_the_original() {
    let nodes = vec![
        op("MatMul", &["x", "w"], &["a"], &[]),
        op("MatMul", &["x2", "w"], &["b"], &[]),
        op("ReduceSum", &["w"], &["s"], &[]),
    ];
    let outputs = vec![float_in("a", 40), float_in("b", 40), value("s", Float32, &[1, 1])];
    let model = model(17, vec![float_in("x", 96), float_in("x2", 96)], outputs, vec![weight("w", &[96, 40])], nodes);
    let inputs = [("x", &uniform(&[3, 96], 0.5)), ("x2", &uniform(&[3, 96], 0.7))];
    let (result, report) = check(&model, &inputs, &options(4));
    codes_of(&result, "w", 4);
    assert!(result.graph().initializer.iter().any(|t| t.name.as_deref() == Some("w")));
    assert!(report.nodes[0].reason.contains("is kept for another node"), "{}", report.nodes[0].reason);
    // Scales are converted to float once for both readers.
    assert_eq!((count(&result, "Cast"), count(&result, "Mul")), (1, 1));
}
