//! The execution provider in ONNX Runtime: the shared library is registered as any program would do it, and the results
//! of the nodes that it claims are compared with those of ONNX Runtime alone.

#[path = "common/mod.rs"]
mod common;
#[path = "provider/graphs.rs"]
mod graphs;
#[path = "provider/grouped.rs"]
mod grouped;
#[path = "provider/host.rs"]
mod host;
mod support;

use common::Random;
use graphs::{Builder, Form, Mask, layer, of};
use host::{Host, Input};
use optimize::graph::edit::{float_tensor, int_attribute, node};
use optimize::model::Model;
use optimize::onnx::dtype::DataType;
use optimize::onnx::proto::*;
use support::build::{self, value, with_graph};

/// Returns random values in (-1, 1).
fn values(random: &mut Random, count: usize) -> Vec<f32> {
    (0..count).map(|_| random.below(20_001) as f32 / 10_000.0 - 1.0).collect()
}

/// Returns inputs of a layer for `batch` × `tokens`, with a random mask in which at least the first key is visible.
fn inputs(random: &mut Random, form: &Form, batch: usize, tokens: usize) -> Vec<(&'static str, Input)> {
    let x = values(random, batch * tokens * form.hidden());
    let mut inputs = vec![("x", Input::Floats(vec![batch, tokens, form.hidden()], x))];
    let Some(shape) = form.mask_shape(batch, tokens) else { return inputs };
    let count: usize = shape.iter().product();
    let keep: Vec<bool> = (0..count).map(|at| at % tokens == 0 || random.below(3) > 0).collect();
    let number = |keep: &bool| if *keep { 0.0 } else { f32::MIN };
    inputs.push(match form.mask {
        Mask::Bool => ("mask", Input::Flags(shape, keep)),
        Mask::Heads => ("mask", Input::Floats(shape, values(random, count))),
        _ => ("mask", Input::Floats(shape, keep.iter().map(number).collect())),
    });
    inputs
}

/// Returns the largest difference of the outputs, relative to their largest value.
fn difference(expected: &[Vec<f32>], found: &[Vec<f32>]) -> f32 {
    assert_eq!(expected.len(), found.len());
    let pairs = expected.iter().zip(found).map(|(expected, found)| {
        assert_eq!(expected.len(), found.len());
        let most = expected.iter().fold(1e-6f32, |most, value| most.max(value.abs()));
        expected.iter().zip(found).fold(0f32, |worst, (a, b)| worst.max((a - b).abs())) / most
    });
    pairs.fold(0.0, f32::max)
}

#[test]
fn layers_in_any_form_are_claimed_and_give_what_onnx_runtime_gives() {
    let host = Host::open();
    let mut random = Random(11);
    let rounds = std::env::var("OPTIMIZE_PROPERTY_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(40);
    for round in 0..rounds {
        let form = Form::random(&mut random);
        let model = host.save(&layer(&form));
        let mut stock = host.stock(&model);
        for (precision, bound) in [("fp32", 2e-5), ("bf16", 4e-2)] {
            let mut ours = host.session(&model, &[("precision", precision)]);
            let claimed = ours.claims();
            assert!(claimed.contains(&"Softmax".to_owned()), "attention is not claimed: {form:?}: {claimed:?}");
            let norms = claimed.iter().filter(|op| op.ends_with("Normalization")).count();
            assert_eq!(norms, 2, "{form:?}: {claimed:?}");
            let products = claimed.iter().filter(|op| *op == "MatMul").count();
            assert_eq!(products, if precision == "fp32" { 2 } else { 8 }, "{form:?}: {claimed:?}");
            for _ in 0..3 {
                let (batch, tokens) = (1 + random.below(3), 1 + random.below(40));
                let inputs = inputs(&mut random, &form, batch, tokens);
                let found = difference(&stock.run(&inputs), &ours.run(&inputs));
                assert!(found <= bound, "round {round}, {precision}, {batch} x {tokens}: {found} in {form:?}");
            }
        }
    }
}

#[test]
fn a_session_answers_sixteen_threads_at_once_with_the_same_bits() {
    let host = Host::open();
    let mut random = Random(5);
    let form = Form { mask: Mask::Keys, heads: 4, size: 16, inner: 65, ..Form::random(&mut random) };
    let model = host.save(&layer(&form));
    let ours = host.session(&model, &[("precision", "int8"), ("threads", "2")]);
    let cases: Vec<_> = [(1, 16), (2, 33), (3, 7), (1, 64)]
        .iter()
        .map(|(batch, tokens)| inputs(&mut random, &form, *batch, *tokens))
        .collect();
    let expected: Vec<_> = cases.iter().map(|case| ours.run_shared(case)).collect();
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let (ours, cases, expected) = (&ours, &cases, &expected);
            scope.spawn(move || {
                for round in 0..8 {
                    let at = (thread + round) % cases.len();
                    assert!(ours.run_shared(&cases[at]) == expected[at], "thread {thread}, round {round}");
                }
            });
        }
    });
}

#[test]
fn the_sum_before_a_normalization_may_have_parts_of_any_sizes() {
    let host = Host::open();
    let mut b = Builder::new();
    let (gamma, beta) = (b.weight(&[24]), b.weight(&[24]));
    let sum = b.op("Add", &["x", "z"]);
    let norm = b.node("LayerNormalization", &[&sum, &gamma, &beta], vec![int_attribute("axis", -1)]);
    b.nodes.push(node("Identity", &[&norm], &["y"]));
    let open = |name, rank: usize| value(name, DataType::Float32, &[-1, -2, -3][..rank]);
    let model = host.save(&of(b, vec![open("x", 3), open("z", 3)], vec![open("y", 3)]));
    let (mut stock, mut ours) = (host.stock(&model), host.session(&model, &[]));
    assert_eq!(ours.claims().len(), 2);
    let mut random = Random(3);
    let shapes = [
        ([2, 5, 24], [2, 5, 24]),
        ([2, 5, 24], [1, 5, 24]),
        ([1, 1, 24], [2, 5, 24]),
        ([2, 1, 24], [1, 5, 24]),
        ([2, 5, 1], [1, 5, 24]),
        ([2, 5, 24], [2, 5, 1]),
        ([0, 5, 24], [1, 5, 24]),
    ];
    for (x, z) in shapes {
        let floats = |random: &mut Random, shape: [usize; 3]| {
            Input::Floats(shape.to_vec(), values(random, shape.iter().product()))
        };
        let inputs = [("x", floats(&mut random, x)), ("z", floats(&mut random, z))];
        let found = difference(&stock.run(&inputs), &ours.run(&inputs));
        assert!(found <= 1e-5, "{x:?} + {z:?}: {found}");
    }
}

#[test]
fn the_bodies_of_if_are_claimed_and_weights_of_the_graph_around_are_found() {
    let host = Host::open();
    let model = host.save(&branches());
    let (mut stock, mut ours) = (host.stock(&model), host.session(&model, &[("precision", "bf16")]));
    assert_eq!(ours.claims().iter().filter(|op| *op == "MatMul").count(), 2);
    let mut random = Random(4);
    for flag in [true, false] {
        let x = Input::Floats(vec![3, 20], values(&mut random, 60));
        let inputs = [("x", x), ("flag", Input::Flags(vec![], vec![flag]))];
        assert!(difference(&stock.run(&inputs), &ours.run(&inputs)) <= 2e-2);
    }
}

/// Returns an `If` with a product in each branch: one with its own weight, one with a weight of the main graph.
fn branches() -> Model {
    let branch = |weight: &str, output: &str, initializer: Vec<TensorProto>| GraphProto {
        name: Some(output.into()),
        node: vec![node("MatMul", &["x", weight], &[output])],
        initializer,
        output: vec![value(output, DataType::Float32, &[-1, 12])],
        ..Default::default()
    };
    let own = float_tensor("own", &[20, 12], &build::smooth(240, 1.0));
    let choice = with_graph(node("If", &["flag"], &["y"]), "then_branch", branch("outer", "a", vec![]));
    let choice = with_graph(choice, "else_branch", branch("own", "b", vec![own]));
    let inputs = vec![value("x", DataType::Float32, &[-1, 20]), value("flag", DataType::Bool, &[])];
    let outer = float_tensor("outer", &[20, 12], &build::smooth(240, 2.0));
    build::model(21, inputs, vec![value("y", DataType::Float32, &[-1, 12])], vec![outer], vec![choice])
}

#[test]
fn a_wrong_option_is_an_error_that_says_what_is_right() {
    let host = Host::open();
    let model = host.save(&layer(&Form::random(&mut Random(1))));
    let error = host.try_session(&model, &[("precision", "int7")]).err().unwrap();
    assert!(error.contains("fp32, bf16 or int8"), "{error}");
}

#[test]
fn kinds_that_are_not_wanted_are_not_claimed() {
    let host = Host::open();
    let model = host.save(&layer(&Form { rms: false, ..Form::random(&mut Random(2)) }));
    let ours = host.session(&model, &[("claim", "norm")]);
    let claimed = ours.claims();
    assert!(
        !claimed.contains(&"Softmax".to_owned()) && claimed.contains(&"LayerNormalization".to_owned()),
        "{claimed:?}"
    );
}

#[test]
fn each_class_claims_what_is_faster_there() {
    let claims = |class: &str| {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "claims_of_the_class", "--ignored", "--nocapture"]).env("OPTIMIZE_CPU", class);
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{class}: {text}");
        let line = text.lines().find(|line| line.contains("claims of")).unwrap_or_else(|| panic!("{text}")).to_owned();
        // A processor that does not support the class uses a lower one.
        line.contains(&format!("claims of {class}:")).then_some(line)
    };
    let has = |line: &str, ops: &[&str]| ops.iter().all(|op| line.contains(op));
    let line = claims("scalar").unwrap();
    assert!(!has(&line, &["Softmax"]) && !has(&line, &["MatMul"]) && !has(&line, &["Norm"]), "{line}");
    if let Some(line) = claims("avx2") {
        assert!(has(&line, &["Softmax", "LayerNormalization", "MatMul "]) && !has(&line, &["MatMulInteger"]), "{line}");
    }
    for class in ["avx2vnni", "avx512vnni", "avx512bf16", "amx"] {
        if let Some(line) = claims(class) {
            assert!(has(&line, &["Softmax", "LayerNormalization", "MatMul ", "MatMulInteger"]), "{line}");
        }
    }
}

#[test]
#[ignore = "a process for each class: each_class_claims_what_is_faster_there"]
fn claims_of_the_class() {
    use optimize::quantize::{QuantizeOptions, quantize};
    let host = Host::open();
    let form = Form { mask: Mask::Keys, heads: 4, size: 16, inner: 64, rms: false, ..Form::random(&mut Random(7)) };
    let float = layer(&form);
    let (int8, _) = quantize(&float, &QuantizeOptions::default(), &Default::default()).unwrap();
    let inputs = inputs(&mut Random(8), &form, 2, 19);
    let mut claims = Vec::new();
    for (model, precision, bound) in [(&float, "bf16", 4e-2), (&int8, "fp32", 0.2)] {
        let path = host.save(model);
        let mut ours = host.session(&path, &[("precision", precision), ("claim", "default")]);
        let found = difference(&host.stock(&path).run(&inputs), &ours.run(&inputs));
        assert!(found <= bound, "{found} with {precision}");
        claims.extend(ours.claims());
    }
    println!("claims of {}: {} .", optimize::kernels::Class::detect().name(), claims.join(" "));
}

#[test]
fn int8_and_four_bits_as_our_quantizer_writes_them_are_claimed_and_agree() {
    use optimize::quantize::{QuantizeOptions, quantize};
    let host = Host::open();
    let form = Form { mask: Mask::Keys, heads: 4, size: 16, inner: 64, rms: false, ..Form::random(&mut Random(7)) };
    let float = layer(&form);
    let mut reference = host.stock(&host.save(&float));
    let mut random = Random(8);
    let inputs = inputs(&mut random, &form, 2, 19);
    let (small, _) = quantize(&float, &QuantizeOptions::default(), &Default::default()).unwrap();
    let model = host.save(&small);
    let (mut stock, mut ours) = (host.stock(&model), host.session(&model, &[]));
    assert!(ours.claims().contains(&"MatMulInteger".to_owned()), "{:?}", ours.claims());
    let (exact, stock, ours) = (reference.run(&inputs), stock.run(&inputs), ours.run(&inputs));
    // One scale per row is at least as accurate as one scale for all rows.
    let (theirs, own) = (difference(&exact, &stock), difference(&exact, &ours));
    assert!(own <= theirs * 1.2 + 1e-3, "{own} from float32, ONNX Runtime {theirs}");
}

#[test]
fn a_compiled_model_gives_the_same_bits_and_a_damaged_one_is_refused() {
    let host = Host::open();
    let form = Form { mask: Mask::Keys, heads: 4, size: 16, inner: 65, ..Form::random(&mut Random(9)) };
    let model = host.save(&layer(&form));
    let options = [("precision", "int8")];
    let mut ours = host.session(&model, &options);
    let compiled = host.compile(&model, &options).unwrap();
    let packed = compiled.with_file_name(format!("{}.packed", compiled.file_name().unwrap().to_str().unwrap()));
    let mut opened = host.session(&compiled, &[]);
    let inputs = inputs(&mut Random(10), &form, 2, 21);
    let (packed_here, mapped) = (ours.run(&inputs), opened.run(&inputs));
    assert!(packed_here == mapped, "{} apart: {form:?}, {:?}", difference(&packed_here, &mapped), opened.claims());
    drop(opened);
    let whole = std::fs::read(&packed).unwrap();
    let refused = |bytes: &[u8]| {
        // The file is removed and created again, because the previous one may still be mapped.
        std::fs::remove_file(&packed).unwrap();
        std::fs::write(&packed, bytes).unwrap();
        host.try_session(&compiled, &[]).err().unwrap()
    };
    assert!(refused(&whole[..whole.len() / 2]).contains("truncated"));
    let mut damaged = whole.clone();
    damaged[5000] ^= 4;
    assert!(refused(&damaged).contains("damaged"));
    assert!(refused(b"").contains("packed"));
}

#[test]
fn a_weight_that_an_unclaimed_node_takes_too_is_kept() {
    let host = Host::open();
    let mut b = Builder::new();
    let weight = b.weight(&[16, 16]);
    let product = b.op("MatMul", &["x", &weight]);
    let other = b.op("Mul", &["x", &weight]);
    b.nodes.push(node("Add", &[&product, &other], &["y"]));
    // The inputs have three axes: with two, ONNX Runtime would fuse the MatMul and the Add into a Gemm.
    let square = |name| value(name, DataType::Float32, &[2, 16, 16]);
    let model = host.save(&of(b, vec![square("x")], vec![square("y")]));
    let (mut stock, mut ours) = (host.stock(&model), host.session(&model, &[("precision", "bf16")]));
    assert_eq!(ours.claims(), ["MatMul"]);
    let inputs = [("x", Input::Floats(vec![2, 16, 16], values(&mut Random(6), 512)))];
    assert!(difference(&stock.run(&inputs), &ours.run(&inputs)) <= 2e-2);
}

#[test]
fn the_body_of_a_loop_is_claimed_except_while_a_model_is_compiled() {
    let host = Host::open();
    let body = GraphProto {
        name: Some("body".into()),
        node: vec![node("Identity", &["again"], &["go"]), node("MatMul", &["v", "weight"], &["next"])],
        input: vec![
            value("at", DataType::Int64, &[]),
            value("again", DataType::Bool, &[]),
            value("v", DataType::Float32, &[-1, 12]),
        ],
        output: vec![value("go", DataType::Bool, &[]), value("next", DataType::Float32, &[-1, 12])],
        ..Default::default()
    };
    let count = optimize::graph::edit::tensor("count", DataType::Int64, &[], 3i64.to_le_bytes().to_vec().into());
    let weight = float_tensor("weight", &[12, 12], &build::smooth(144, 0.5));
    let turns = with_graph(node("Loop", &["count", "", "x"], &["y"]), "body", body);
    let x = vec![value("x", DataType::Float32, &[-1, 12])];
    let y = vec![value("y", DataType::Float32, &[-1, 12])];
    let model = host.save(&build::model(21, x, y, vec![count, weight], vec![turns]));
    let options = [("precision", "bf16")];
    let (mut stock, mut ours) = (host.stock(&model), host.session(&model, &options));
    assert_eq!(ours.claims(), ["MatMul"]);
    let inputs = [("x", Input::Floats(vec![5, 12], values(&mut Random(6), 60)))];
    let expected = stock.run(&inputs);
    assert!(difference(&expected, &ours.run(&inputs)) <= 3e-2);
    if let Some(path) = host.compile(&model, &options) {
        assert!(difference(&expected, &host.session(&path, &[]).run(&inputs)) <= 3e-2);
    }
}

#[test]
fn nothing_is_claimed_inside_of_if_while_a_model_is_compiled() {
    let host = Host::open();
    let model = host.save(&branches());
    // A claimed branch would make the compiled model invalid. Without claimed nodes, ONNX Runtime writes no model.
    if let Some(path) = host.compile(&model, &[("precision", "bf16")]) {
        host.session(&path, &[]);
    }
}
