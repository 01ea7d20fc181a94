//! Tests of the selection of weights: names of modules, globs, anonymous weights, weights in unusual places.

use super::*;
use optimize::graph::edit::node;

/// Returns two layers of an encoder as exporters write them: one with scopes, one with only the names of biases.
fn encoder() -> Model {
    let mut tensors = vec![weight("words", &[50, 32])];
    let mut nodes = vec![op("Gather", &["words", "ids"], &["h0"], &[])];
    let mut add = |layer: usize, part: &str, input: &str, output: &str| {
        let path = format!("encoder.layer.{layer}.{part}");
        let (w, b) = (format!("onnx::MatMul_{}", 10 * layer + nodes.len()), format!("{path}.bias"));
        tensors.push(weight(&w, &[32, 32]));
        tensors.push(float_tensor(&b, &[32], &[0.1; 32]));
        let middle = format!("{output}_product");
        let mut product = op("MatMul", &[input, &w], &[&middle], &[]);
        product.name = Some(match layer {
            0 => {
                format!("/{}/MatMul", path.replacen("layer.", "layer/layer.", 1).replace(".attention.", "/attention/"))
            }
            _ => format!("MatMul_{}", nodes.len()),
        });
        nodes.push(product);
        nodes.push(node("Add", &[&b, &middle], &[output]));
    };
    add(0, "attention.query", "h0", "a");
    add(0, "mlp.fc1", "a", "b");
    add(1, "attention.query", "b", "c");
    add(1, "mlp.fc1", "c", "y");
    let inputs = vec![value("ids", DataType::Int64, &[-1])];
    model(17, inputs, vec![value("y", Float32, &[-1, 32])], tensors, nodes)
}

fn meant(model: &Model, targets: &[&str], exclude: &[&str]) -> Vec<String> {
    let own = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    let options = PruneOptions { target_modules: own(targets), exclude: own(exclude), ..magnitude(0.5) };
    let (result, report) = pruned(model, &options);
    let changed = |t: &&TensorProto| numbers(t) != values(model, t.name.as_deref().unwrap());
    let changed: Vec<String> =
        result.graph().initializer.iter().filter(changed).filter_map(|t| t.name.clone()).collect();
    assert_eq!(report.summary["weights_pruned"], changed.len());
    changed
}

#[test]
fn modules_are_meant_by_name_and_glob() {
    let model = encoder();
    let all = ["onnx::MatMul_1", "onnx::MatMul_3", "onnx::MatMul_15", "onnx::MatMul_17"];
    let cases: [(&[&str], &[&str], &[&str]); 12] = [
        (&[], &[], &all),
        (&["query"], &[], &[all[0], all[2]]),
        (&["fc1"], &[], &[all[1], all[3]]),
        (&["query", "fc1"], &[], &all),
        (&["layer.*.mlp.*"], &[], &[all[1], all[3]]),
        (&["layer.1.*"], &[], &[all[2], all[3]]),
        (&["encoder.layer.1.mlp.fc1"], &[], &[all[3]]),
        (&["MatMul_5"], &[], &[all[2]]),
        (&["onnx::MatMul_3"], &[], &[all[1]]),
        (&["*"], &["layer.0.*"], &[all[2], all[3]]),
        (&[], &["query"], &[all[1], all[3]]),
        (&["words"], &[], &["words"]),
    ];
    for (targets, exclude, expected) in cases {
        assert_eq!(meant(&model, targets, exclude), expected, "{targets:?} without {exclude:?}");
    }
    let embeddings = PruneOptions { embeddings: true, ..magnitude(0.5) };
    assert_eq!(pruned(&model, &embeddings).1.summary["weights_pruned"], 5);
}

#[test]
fn a_name_that_is_none_is_refused_with_those_there_are() {
    let options = |targets: &[&str]| {
        let target_modules = targets.iter().map(|t| (*t).to_owned()).collect();
        PruneOptions { target_modules, ..magnitude(0.5) }
    };
    for targets in [&["qery"][..], &["query", "qery"], &["layer.7.*"], &["uery"], &["ml"]] {
        let error = refused(&encoder(), &options(targets));
        assert_eq!(error.kind(), Kind::InvalidArgument);
        let text = error.to_string();
        assert!(text.contains(targets.last().unwrap()) && text.contains("fc1 (2), query (2), words (1)"), "{text}");
    }
    let error = refused(&encoder(), &PruneOptions { overrides: vec!["no=0.2".parse().unwrap()], ..magnitude(0.5) });
    assert!(error.to_string().contains("\"no\""), "{error}");
}

#[test]
fn overrides_have_their_own_sparsity_and_the_first_counts() {
    let overrides = ["layer.0.*=0.25", "fc1=0.75", "layer.1.attention.*=0"].map(|o| o.parse().unwrap()).to_vec();
    let model = encoder();
    let (result, report) = pruned(&model, &PruneOptions { overrides, ..magnitude(0.5) });
    let count = |name: &str| zeros(&values(&result, name));
    let found = ["onnx::MatMul_1", "onnx::MatMul_3", "onnx::MatMul_15", "onnx::MatMul_17"].map(count);
    assert_eq!(found, [256, 256, zeros(&values(&model, "onnx::MatMul_15")), 768]);
    assert!(report.nodes.iter().any(|n| n.reason == "its requested sparsity is 0"));
}

#[test]
fn weights_are_pruned_once_and_wherever_they_lie() {
    // The weights are shared by two nodes, one of them in a branch; before a Transpose; in a Constant node; in a
    // branch.
    let inner = GraphProto {
        name: Some("branch".into()),
        node: vec![op("MatMul", &["x", "shared"], &["u"], &[]), op("MatMul", &["u", "inside"], &["v"], &[])],
        initializer: vec![weight("inside", &[32, 32])],
        output: vec![value("v", Float32, &[-1, 32])],
        ..Default::default()
    };
    let mut turn = node("Transpose", &["transposed"], &["back"]);
    turn.attribute = vec![optimize::graph::edit::ints_attribute("perm", &[1, 0])];
    let choose = with_graph(with_graph(node("If", &["c"], &["y"]), "then_branch", inner.clone()), "else_branch", inner);
    let nodes = vec![
        op("MatMul", &["x", "shared"], &["a"], &[]),
        turn,
        op("MatMul", &["a", "back"], &["b"], &[]),
        constant(weight("own", &[32, 32])),
        op("MatMul", &["b", "own"], &["z"], &[]),
        choose,
    ];
    let inputs = vec![value("x", Float32, &[-1, 32]), value("c", DataType::Bool, &[])];
    let outputs = vec![value("y", Float32, &[-1, 32]), value("z", Float32, &[-1, 32])];
    let model = model(17, inputs, outputs, vec![weight("shared", &[32, 32]), weight("transposed", &[32, 32])], nodes);
    let (result, report) = pruned(&model, &magnitude(0.5));
    assert_eq!((&report.summary["weights_pruned"], &report.summary["nodes_pruned"]), (&5.into(), &7.into()));
    assert!(report.nodes.iter().filter(|n| n.reason.contains("shared with the node above")).count() == 2);
    assert_eq!([zeros(&values(&result, "shared")), zeros(&values(&result, "transposed"))], [512, 512]);
    let attribute = |node: &NodeProto| node.attribute[0].t.as_deref().map(|t| zeros(&numbers(t)));
    let own = result.graph().node.iter().find(|n| n.op() == "Constant").unwrap();
    assert_eq!(attribute(own), Some(512));
    let branches = &result.graph().node.iter().find(|n| n.op() == "If").unwrap().attribute;
    for branch in branches {
        assert_eq!(zeros(&numbers(&branch.g.as_deref().unwrap().initializer[0])), 512);
    }
    let options = optimize::runtime::SessionOptions::default();
    optimize::runtime::Session::new(support::runtime(), &result, &options, &Call::default()).unwrap();
}

#[test]
fn small_integer_and_recurrent_weights_stay_unless_named() {
    let lstm = op("LSTM", &["x", "W", "R"], &["y"], &[("hidden_size", 16)]);
    let tensors = vec![weight("W", &[1, 64, 32]), weight("R", &[1, 64, 16]), weight("tiny", &[32, 2])];
    let nodes = vec![lstm, op("MatMul", &["x", "tiny"], &["z"], &[])];
    let inputs = vec![value("x", Float32, &[5, 1, 32])];
    let outputs = vec![value("y", Float32, &[5, 1, 1, 16]), value("z", Float32, &[5, 1, 2])];
    let model = model(17, inputs, outputs, tensors, nodes);
    let error = refused(&model, &PruneOptions { min_elements: 1024, ..magnitude(0.5) });
    let text = error.to_string();
    assert!(text.contains("recurrent") && text.contains("only 64 elements"), "{text}");
    assert_eq!(meant(&model, &["W", "R"], &[]), ["W", "R"]);
    let vad = Model::load(&support::deps("models/silero-vad/silero_vad.onnx")).unwrap();
    let (result, _) = pruned(&vad, &magnitude(0.5));
    let options = optimize::runtime::SessionOptions::default();
    optimize::runtime::Session::new(support::runtime(), &result, &options, &Call::default()).unwrap();
}

#[test]
fn how_a_weight_lies_is_not_guessed_where_the_call_of_a_function_says_it() {
    let given = |name: &str| Some(name.to_owned());
    let mut gemm = node("Gemm", &["a", "w"], &["o"]);
    let kind = Some(attribute_kind::INT);
    gemm.attribute =
        vec![AttributeProto { name: given("transB"), kind, ref_attr_name: given("t"), ..Default::default() }];
    let opset = OperatorSetIdProto { version: Some(17), ..Default::default() };
    let function = FunctionProto {
        name: given("F"),
        domain: given("local"),
        input: vec!["a".into()],
        output: vec!["o".into()],
        attribute: vec!["t".into()],
        node: vec![constant(weight("w", &[32, 32])), gemm],
        opset_import: vec![opset.clone()],
        ..Default::default()
    };
    let mut call = op("F", &["x"], &["y"], &[("t", 1)]);
    call.domain = given("local");
    let (x, y) = (value("x", Float32, &[-1, 32]), value("y", Float32, &[-1, 32]));
    let mut proto = model(17, vec![x], vec![y], vec![], vec![call]).proto().clone();
    proto.functions = vec![function];
    proto.opset_import.push(OperatorSetIdProto { domain: given("local"), version: Some(1), ..Default::default() });
    let model = Model::from_proto(proto);
    let pattern = PruneOptions { pattern: Some("2:4".parse().unwrap()), ..magnitude(0.5) };
    let text = refused(&model, &pattern).to_string();
    assert!(text.contains("depends on the call"), "{text}");
    let (result, _) = pruned(&model, &magnitude(0.5));
    let stored = result.proto().functions[0].node[0].attribute[0].t.as_deref().unwrap();
    assert_eq!(zeros(&numbers(stored)), 512);
}
