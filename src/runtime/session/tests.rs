//! Tests of sessions.

use super::*;
use crate::call::Cancel;
use crate::error::Kind;
use crate::onnx::proto::GraphProto;
use crate::runtime::testing::*;
use crate::runtime::{OptimizationLevel, test_deps, test_runtime};
use crate::text::Tokenizer;
use std::time::{Duration, Instant};

fn session(graph: GraphProto) -> Session {
    let model = Model::from_proto(model(graph));
    Session::new(test_runtime(), &model, &SessionOptions::default(), &Call::default()).unwrap()
}

fn floats(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 0.37).sin()).collect()
}

#[test]
fn a_session_is_send() {
    fn send<T: Send>() {}
    send::<Session>();
}

#[test]
fn outputs_come_in_the_order_asked_for() {
    let session = session(graph(
        vec![node("Add", &["x", "y"], "sum"), node("Mul", &["x", "y"], "product")],
        vec![value("x", 1, &["n"]), value("y", 1, &["n"])],
        vec![value("sum", 1, &["n"]), value("product", 1, &["n"])],
    ));
    assert_eq!(session.inputs()[0].describe(), "float32[n]");
    assert_eq!(session.outputs()[1].name, "product");
    let x = Tensor::from_f32(&[2], vec![1.0, 2.0]).unwrap();
    let y = Tensor::from_f32(&[2], vec![3.0, 5.0]).unwrap();
    let all = session.run(&[("y", &y), ("x", &x)], &[], &Call::default()).unwrap();
    let shown: Vec<_> = all.iter().map(|(name, t)| (name.as_str(), t.as_slice::<f32>().unwrap().to_vec())).collect();
    assert_eq!(shown, [("sum", vec![4.0, 7.0]), ("product", vec![3.0, 10.0])]);
    let swapped = session.run(&[("x", &x), ("y", &y)], &["product", "sum"], &Call::default()).unwrap();
    assert_eq!((swapped[0].0.as_str(), swapped[1].0.as_str()), ("product", "sum"));
    let one = session.run(&[("x", &x), ("y", &y)], &["product"], &Call::default()).unwrap();
    assert_eq!(one.len(), 1);
    drop(session);
    assert_eq!(one[0].1.as_slice::<f32>().unwrap(), [3.0, 10.0], "outputs must outlive the session");
}

#[test]
fn what_the_model_does_not_take_is_refused_before_it_runs() {
    let session = session(graph(
        vec![node("Add", &["x", "y"], "sum")],
        vec![value("x", 1, &["n"]), value("y", 1, &["n"])],
        vec![value("sum", 1, &["n"])],
    ));
    let (x, y) = (Tensor::from_f32(&[4], floats(4)).unwrap(), Tensor::from_f32(&[1], floats(1)).unwrap());
    // Without the check, ONNX Runtime would broadcast this input.
    let e = session.run(&[("x", &x), ("y", &y)], &[], &Call::default()).unwrap_err();
    assert_eq!(e.kind(), Kind::InvalidArgument);
    assert!(e.to_string().contains("dimension 0 is 1") && e.to_string().contains("expects 4"), "{e}");
    let e = session.run(&[("x", &x), ("y", &x)], &["z"], &Call::default()).unwrap_err();
    assert!(e.message().contains("no output \"z\"; the outputs are \"sum\""), "{e}");
    assert_eq!(e.kind(), Kind::NotFound);
    assert!(session.run(&[("x", &x), ("y", &x)], &["sum", "sum"], &Call::default()).is_err());
}

#[test]
fn inputs_passed_through_and_strings_and_nothing_come_back() {
    let session = session(graph(
        vec![node("Identity", &["x"], "same"), node("Identity", &["s"], "text")],
        vec![value("x", 1, &["n"]), value("s", 8, &["m"])],
        vec![value("same", 1, &["n"]), value("text", 8, &["m"]), value("x", 1, &["n"])],
    ));
    let strings = vec!["a".to_owned(), "äöü".to_owned()];
    let text = Tensor::from_strings(&[2], strings.clone()).unwrap();
    let x = Tensor::from_f32(&[64], floats(64)).unwrap();
    let outputs = session.run(&[("x", &x), ("s", &text)], &[], &Call::default()).unwrap();
    drop((x, session.inputs()));
    assert_eq!(outputs[0].1.as_slice::<f32>().unwrap(), floats(64));
    assert_eq!(outputs[1].1.strings().unwrap(), strings);
    assert_eq!(outputs[2].1.as_slice::<f32>().unwrap(), floats(64));
    let nothing = (Tensor::from_f32(&[0], vec![]).unwrap(), Tensor::from_strings(&[0], vec![]).unwrap());
    let outputs = session.run(&[("x", &nothing.0), ("s", &nothing.1)], &[], &Call::default()).unwrap();
    assert!(outputs.iter().all(|(_, tensor)| tensor.elements() == 0));
}

#[test]
fn an_output_that_is_no_tensor_is_named() {
    let session = session(graph(
        vec![node("SequenceConstruct", &["x"], "list"), node("Neg", &["x"], "minus")],
        vec![value("x", 1, &["n"])],
        vec![sequence("list", 1), value("minus", 1, &["n"])],
    ));
    let x = Tensor::from_f32(&[1], vec![1.0]).unwrap();
    let e = session.run(&[("x", &x)], &[], &Call::default()).unwrap_err();
    assert_eq!(e.kind(), Kind::Unsupported);
    assert!(e.message().contains("\"list\""), "{e}");
    assert_eq!(session.run(&[("x", &x)], &["minus"], &Call::default()).unwrap()[0].1.to_f32_vec().unwrap(), [-1.0]);
}

#[test]
fn weights_that_are_outputs_outlive_the_session() {
    let mut graph = graph(
        vec![node("Add", &["x", "w"], "sum")],
        vec![value("x", 1, &["n"])],
        vec![value("sum", 1, &["n"]), value("w", 1, &["n"])],
    );
    graph.initializer = vec![weight("w", &[2048], &floats(2048))];
    let session = session(graph);
    let x = Tensor::from_f32(&[2048], vec![0.0; 2048]).unwrap();
    let outputs = session.run(&[("x", &x)], &[], &Call::default()).unwrap();
    drop(session);
    for (_, tensor) in outputs {
        assert_eq!(tensor.as_slice::<f32>().unwrap(), floats(2048));
    }
}

#[test]
fn a_model_without_a_kernel_or_a_meaning_is_refused() {
    let refuse = |graph| {
        let model = Model::from_proto(model(graph));
        Session::new(test_runtime(), &model, &SessionOptions::default(), &Call::default()).err().unwrap().kind()
    };
    let x = || vec![value("x", 1, &["n"])];
    let y = || vec![value("y", 1, &["n"])];
    assert_ne!(refuse(graph(vec![node("NoSuchOperator", &["x"], "y")], x(), y())), Kind::Internal);
    assert_ne!(refuse(graph(vec![node("Neg", &["nowhere"], "y")], x(), y())), Kind::Internal);
}

/// Returns a chain of matrix products: seconds of work in many nodes.
fn slow() -> (Session, Tensor) {
    let nodes = (0..400).map(|i| node("MatMul", &[&format!("v{i}"), "v0"], &format!("v{}", i + 1))).collect();
    let graph = graph(nodes, vec![value("v0", 1, &["n", "n"])], vec![value("v400", 1, &["n", "n"])]);
    (session(graph), Tensor::from_f32(&[700, 700], vec![1e-3; 490_000]).unwrap())
}

#[test]
fn a_run_ends_at_its_deadline_or_when_cancelled_and_the_session_stays_usable() {
    let (session, input) = slow();
    let started = Instant::now();
    let call = Call { deadline: Some(started + Duration::from_millis(50)), ..Call::default() };
    let e = session.run(&[("v0", &input)], &[], &call).unwrap_err();
    assert_eq!(e.kind(), Kind::Timeout, "{e}");
    let cancel = Cancel::new();
    let call = Call { cancel: Some(&cancel), ..Call::default() };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            cancel.fire();
        });
        let e = session.run(&[("v0", &input)], &[], &call).unwrap_err();
        assert_eq!(e.kind(), Kind::Cancelled, "{e}");
    });
    let small = Tensor::from_f32(&[1, 1], vec![1.0]).unwrap();
    let open = Cancel::new();
    let call = Call { cancel: Some(&open), ..Call::default() };
    let outputs = session.run(&[("v0", &small)], &[], &call).unwrap();
    assert_eq!(outputs[0].1.to_f32_vec().unwrap(), [1.0]);
}

#[test]
fn a_cancelled_load_makes_no_session() {
    let model = Model::load(&test_deps("models/paraphrase-MiniLM-L3-v2/model.onnx")).unwrap();
    let cancel = Cancel::new();
    cancel.fire();
    let call = Call { cancel: Some(&cancel), ..Call::default() };
    let e = Session::new(test_runtime(), &model, &SessionOptions::default(), &call).err().unwrap();
    assert_eq!(e.kind(), Kind::Cancelled);
}

#[test]
fn a_real_model_knows_which_sentences_are_alike() {
    let folder = test_deps("models/paraphrase-MiniLM-L3-v2");
    let tokenizer = Tokenizer::load(&folder).unwrap();
    let texts = ["A man is eating food.", "Someone has a meal.", "The stock market fell sharply."];
    let batch = tokenizer.encode_batch(&texts, true, None).unwrap();
    let shape = [batch.batch as i64, batch.length as i64];
    let tensor = |values: &[i64]| Tensor::from_i64(&shape, values.to_vec()).unwrap();
    let (ids, mask, types) = (tensor(&batch.ids), tensor(&batch.mask), tensor(&batch.type_ids));
    let model = Model::load(&folder).unwrap();
    let options = SessionOptions { optimization_level: OptimizationLevel::All, ..SessionOptions::default() };
    let session = Session::new(test_runtime(), &model, &options, &Call::default()).unwrap();
    let given = [("input_ids", &ids), ("attention_mask", &mask), ("token_type_ids", &types)];
    let given: Vec<_> = given.into_iter().filter(|g| session.inputs().iter().any(|i| i.name == g.0)).collect();
    // In this export, `461` is the pooled embedding.
    let outputs = session.run(&given, &["461"], &Call::default()).unwrap();
    let (_, sentences) = &outputs[0];
    assert_eq!(sentences.shape(), [3, 384]);
    let rows: Vec<&[f32]> = sentences.as_slice::<f32>().unwrap().chunks(384).collect();
    let cosine = |a: &[f32], b: &[f32]| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let (alike, unlike) = (cosine(rows[0], rows[1]), cosine(rows[0], rows[2]));
    assert!(alike > unlike + 0.3, "{alike} {unlike}");
}
