//! Tests of every rule against gradients in float64 (see `tests/fixtures/gradients/make.py`).

use super::*;
use crate::calibrate::read_tensors;
use crate::call::Call;
use crate::graph::edit;
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::ModelProto;
use crate::runtime::{Session, SessionOptions, Tensor, test_runtime};
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gradients")
}

/// Returns the largest difference relative to the largest expected element, or to `least` if that is larger.
fn off(found: &Tensor, expected: &Tensor, least: f64) -> f64 {
    let expected: Vec<f64> = match expected.dtype() {
        DataType::Float64 => expected.as_slice::<f64>().unwrap().to_vec(),
        _ => expected.to_f32_vec().unwrap().into_iter().map(f64::from).collect(),
    };
    let found = found.as_slice::<f32>().unwrap();
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(least, |most: f64, v| most.max(v.abs()));
    found.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max) / largest
}

/// Returns the gradients of the sum of `y` times `direction`, with respect to the values `names`, which are inputs or
/// constants of the model.
pub(super) fn gradients(
    mut proto: ModelProto,
    names: &[String],
    inputs: &[(&str, &Tensor)],
    direction: &Tensor,
) -> Result<Vec<Tensor>> {
    let call = Call::default();
    lower(test_runtime(), &mut proto, &call)?;
    upgrade(&mut proto)?;
    let types = infer(test_runtime(), &proto, &call)?;
    let mut tape = Tape::new(&proto, types)?;
    let raw = direction.bytes().to_vec();
    let seed = tape.constant(DataType::Float32, direction.shape(), raw);
    let output = proto.graph.as_ref().unwrap().output[0].name.clone().unwrap();
    let found = differentiate(&mut tape, &[(output, seed)], names)?;
    let graph = proto.graph.as_deref_mut().unwrap();
    graph.node = tape.forward.iter().chain(&tape.nodes).cloned().collect();
    graph.initializer.append(&mut tape.constants);
    graph.output = Vec::new();
    let mut wanted = Vec::new();
    for name in names {
        let output = format!("of {name}");
        graph.node.push(match found.get(name) {
            Some(gradient) => edit::node("Identity", &[gradient], &[&output]),
            None => edit::node("Sub", &[name, name], &[&output]),
        });
        graph.output.push(edit::untyped(&output));
        wanted.push(output);
    }
    graph.value_info.clear();
    edit::import_domain(&mut proto.opset_import, "com.microsoft", 1);
    let model = Model::from_proto(proto);
    let session = Session::new(test_runtime(), &model, &SessionOptions::default(), &call)?;
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    Ok(session.run(inputs, &wanted, &call)?.into_iter().map(|(_, tensor)| tensor).collect())
}

/// Returns the worst error of a case, and its place. `open` makes trained constants inputs with dynamic sizes.
fn check(model: &Path, expected: &Path, open: bool) -> (f64, String) {
    let mut proto = Model::load(model).unwrap().proto().clone();
    let tensors = read_tensors(expected).unwrap();
    let with = |prefix: &'static str| {
        tensors.iter().filter_map(move |(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor)))
    };
    let (names, references): (Vec<String>, Vec<&Tensor>) = with("gradient.").unzip();
    let fed: Vec<(String, &Tensor)> = with("inputs.").collect();
    let mut fed: Vec<(&str, &Tensor)> = fed.iter().map(|(name, tensor)| (name.as_str(), *tensor)).collect();
    let (_, direction) = tensors.iter().find(|(name, _)| name == "direction").unwrap();
    let mut values = Vec::new();
    if open {
        let graph = proto.graph.as_deref_mut().unwrap();
        let (learned, rest) = std::mem::take(&mut graph.initializer)
            .into_iter()
            .partition(|t| t.name.as_ref().is_some_and(|name| names.contains(name)));
        graph.initializer = rest;
        for tensor in learned {
            let name = tensor.name.clone().unwrap();
            graph.input.push(edit::value(&name, DataType::Float32, tensor.dims.len()));
            values.push((name, Tensor::new(DataType::Float32, &tensor.dims, tensor.raw_data.unwrap()).unwrap()));
        }
        fed.extend(values.iter().map(|(name, tensor)| (name.as_str(), tensor)));
    }
    let found = gradients(proto, &names, &fed, direction).unwrap();
    let errors = found
        .iter()
        .zip(references)
        .zip(&names)
        .map(|((found, expected), name)| (off(found, expected, 1e-3), format!("{} {name}", model.display())));
    errors.fold((0.0, String::new()), |worst, next| if next.0 > worst.0 { next } else { worst })
}

/// The beginnings of the names of cases that need the number of heads or their width as constants, as models have them.
const STATIC: [&str; 8] = [
    "Attention-4",
    "Attention-bool",
    "Attention-ca",
    "Attention-groups",
    "Attention-ma",
    "Attention-microsoft",
    "Attention-p",
    "MultiHeadAttention-bias",
];

#[test]
fn every_rule_gives_the_gradients_of_a_reference_in_float64() {
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(folder().join("ops")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|e| e == "onnx"));
    cases.sort();
    assert!(cases.len() > 230);
    let (mut seen, mut wrong) = (std::collections::BTreeSet::new(), Vec::new());
    for case in &cases {
        let name = case.file_stem().unwrap().to_string_lossy().into_owned();
        for open in [false, true] {
            if open && STATIC.iter().any(|form| name.starts_with(form)) {
                continue;
            }
            let reference = case.with_extension("safetensors");
            let way = if open { "dynamic" } else { "static" };
            match std::panic::catch_unwind(|| check(case, &reference, open)) {
                Ok((error, place)) if error > 1e-5 || error.is_nan() => {
                    wrong.push(format!("{place}, {way}, is off by {error:.1e}"));
                }
                Ok(_) => {}
                Err(_) => wrong.push(format!("{name}, {way}, fails")),
            }
        }
        let proto = Model::load(case).unwrap();
        seen.extend(proto.graph().node.iter().map(|node| node.op().to_owned()));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Every rule has a case.
    let covered = registry::RULES.iter().flat_map(|(ops, _)| ops.iter().copied());
    let untested: Vec<&str> = covered.filter(|op| !seen.contains(*op)).collect();
    // RMSNormalization is lowered to SimplifiedLayerNormalization; the casts and Dropout are tested in whole models.
    assert_eq!(untested, ["Cast", "CastLike", "Dropout", "SimplifiedLayerNormalization"], "no case tests these");
}

#[test]
fn a_convolutional_network_has_the_gradients_that_pytorch_gives() {
    let models = folder().join("models");
    let proto = Model::load(&models.join("resnet.onnx")).unwrap().proto().clone();
    let tensors = read_tensors(&models.join("resnet.safetensors")).unwrap();
    let get = |name: &str| &tensors.iter().find(|(n, _)| n == name).unwrap().1;
    let weights = tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix("gradient.")?, tensor)));
    let (names, references): (Vec<String>, Vec<&Tensor>) = weights.map(|(n, t)| (n.to_owned(), t)).unzip();
    let found = gradients(proto, &names, &[("x", get("x"))], get("direction")).unwrap();
    assert_eq!(names.len(), 20);
    for ((found, expected), name) in found.iter().zip(references).zip(&names) {
        let error = off(found, expected, 1e-3);
        assert!(error <= 1e-5, "{name} is off by {error:.1e}");
    }
}

#[test]
fn an_encoder_has_the_gradients_that_pytorch_gives() {
    let fixtures = folder().join("..");
    let model = Model::load(&fixtures.join("encoders/bert")).unwrap();
    let tensors = read_tensors(&folder().join("models/bert.safetensors")).unwrap();
    let get = |name: &str| &tensors.iter().find(|(n, _)| n == name).unwrap().1;
    let mut proto = model.proto().clone();
    let last = |o: &crate::onnx::proto::ValueInfoProto| o.name.as_deref() == Some("last_hidden_state");
    proto.graph.as_deref_mut().unwrap().output.retain(last);
    let known: Vec<String> = model.graph().initializer.iter().filter_map(|t| t.name.clone()).collect();
    let weights = tensors.iter().filter_map(|(name, tensor)| {
        let name = name.strip_prefix("gradient.")?;
        Some((known.iter().find(|known| known.ends_with(name))?.clone(), tensor))
    });
    let (names, references): (Vec<String>, Vec<&Tensor>) = weights.unzip();
    assert_eq!(names.len(), tensors.iter().filter(|(name, _)| name.starts_with("gradient.")).count());
    let types = Tensor::from_i64(get("ids").shape(), vec![0; get("ids").elements()]).unwrap();
    let mut inputs = vec![("input_ids", get("ids")), ("attention_mask", get("keep"))];
    if model.inputs().iter().any(|input| input.name == "token_type_ids") {
        inputs.push(("token_type_ids", &types));
    }
    let found = gradients(proto, &names, &inputs, get("direction")).unwrap();
    for ((found, expected), name) in found.iter().zip(references).zip(&names) {
        // A bias of the keys adds the same value to the scores of all keys, which changes no probability: its gradient
        // is 0 except for rounding.
        let error = off(found, expected, if name.ends_with("key.bias") { 1e-2 } else { 1e-3 });
        assert!(error <= 1e-5, "{name} is off by {error:.1e}");
    }
}

/// Compares the gradients at a kink, a pole or a tie with those of PyTorch 2.15.
#[test]
fn kinks_have_the_slopes_that_pytorch_gives() {
    let number = |name: &str, value: f32| edit::float_tensor(name, &[], &[value]);
    let slopes = |node: NodeProto, x: &[f32], constants: Vec<crate::onnx::proto::TensorProto>| {
        let is_pool = node.op().starts_with("Global");
        let graph = crate::onnx::proto::GraphProto {
            node: vec![node],
            initializer: constants,
            input: vec![edit::value("x", DataType::Float32, if is_pool { 3 } else { 1 })],
            output: vec![edit::untyped("y")],
            ..Default::default()
        };
        let mut proto = ModelProto { ir_version: Some(8), graph: Some(Box::new(graph)), ..Default::default() };
        proto.opset_import.push(crate::onnx::proto::OperatorSetIdProto { version: Some(17), ..Default::default() });
        let count = x.len() as i64;
        let shape = if is_pool { vec![1, 1, count] } else { vec![count] };
        let x = Tensor::from_f32(&shape, x.to_vec()).unwrap();
        let is_reduced = is_pool || proto.graph.as_ref().unwrap().node[0].op().starts_with("Reduce");
        let ones = match is_reduced {
            true => Tensor::from_f32(&vec![1; shape.len()], vec![1.0]).unwrap(),
            false => Tensor::from_f32(x.shape(), vec![1.0; x.elements()]).unwrap(),
        };
        gradients(proto, &["x".to_owned()], &[("x", &x)], &ones).unwrap()[0].to_f32_vec().unwrap()
    };
    let unary = |op: &str, x: &[f32]| slopes(edit::node(op, &["x"], &["y"]), x, Vec::new());
    let power = |p: f32, x: f32| slopes(edit::node("Pow", &["x", "p"], &["y"]), &[x], vec![number("p", p)])[0];
    assert_eq!([power(0.0, 0.0), power(1.0, 0.0), power(2.0, 0.0), power(3.0, 0.0)], [0.0, 1.0, 0.0, 0.0]);
    assert_eq!(power(0.5, 0.0), f32::INFINITY);
    assert_eq!(unary("Sqrt", &[0.0, 4.0]), [f32::INFINITY, 0.25]);
    assert_eq!(unary("Relu", &[-1.0, 0.0, 1.0]), [0.0, 0.0, 1.0]);
    assert_eq!(unary("Abs", &[-1.0, 0.0, 1.0]), [-1.0, 0.0, 1.0]);
    assert_eq!(unary("Elu", &[0.0]), [1.0]);
    assert_eq!(unary("ReduceL2", &[0.0, 0.0]), [0.0, 0.0]);
    assert_eq!(unary("GlobalLpPool", &[0.0, 0.0]), [0.0, 0.0]);
    assert_eq!(unary("ReduceMax", &[2.0, 1.0, 2.0]), [0.5, 0.0, 0.5]);
    let clip = edit::node("Clip", &["x", "low", "high"], &["y"]);
    let bounds = || vec![number("low", -1.0), number("high", 1.0)];
    assert_eq!(slopes(clip, &[-2.0, -1.0, 0.0, 1.0, 2.0], bounds()), [0.0, 1.0, 1.0, 1.0, 0.0]);
    let max = edit::node("Max", &["x", "c"], &["y"]);
    assert_eq!(slopes(max, &[0.0, 1.0, 2.0], vec![number("c", 1.0)]), [0.0, 0.5, 1.0]);
}

#[test]
fn what_has_no_rule_is_named_before_anything_runs() {
    let mut odd = edit::node("Det", &["x"], &["y"]);
    odd.name = Some("odd".into());
    let nodes = [edit::node("MatMul", &["in", "w"], &["x"]), odd];
    let found = uncovered(&nodes, &["w".to_owned()], &["y"]);
    assert_eq!(found, [Uncovered { name: "odd".into(), op: "Det".into() }]);
    assert!(uncovered(&nodes, &["other".to_owned()], &["y"]).is_empty(), "no weight flows through it");
    assert!(uncovered(&nodes, &["w".to_owned()], &["x"]).is_empty(), "it leads nowhere");
}
