//! Tests of attributes that change what a lowered operator computes, against ONNX Runtime.

use super::{Type, Types, lower};
use crate::call::Call;
use crate::graph::edit::{int_attribute, ints_attribute};
use crate::model::{Dim, Model};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{ModelProto, NodeProto, OperatorSetIdProto};
use crate::runtime::testing::{graph, model, node, value, weight};
use crate::runtime::{Session, SessionOptions, Tensor, test_runtime};

/// Returns a model of one node with the input `x` of the given sizes and the output `y`.
fn model_of(node: NodeProto, sizes: &[i64]) -> ModelProto {
    let dims: Vec<String> = sizes.iter().map(i64::to_string).collect();
    let dims: Vec<&str> = dims.iter().map(String::as_str).collect();
    let unknown: Vec<&str> = dims.iter().map(|_| "n").collect();
    let mut model = model(graph(vec![node], vec![value("x", 1, &dims)], vec![value("y", 1, &unknown)]));
    let domain = Some("com.microsoft".to_owned());
    model.opset_import.push(OperatorSetIdProto { domain, version: Some(1), ..OperatorSetIdProto::default() });
    model
}

/// Returns the output `y` of a model for the given elements of `x`.
fn run(model: &ModelProto, sizes: &[i64], x: &[f32]) -> Vec<f32> {
    let x = Tensor::from_f32(sizes, x.to_vec()).unwrap();
    let model = Model::from_proto(model.clone());
    let session = Session::new(test_runtime(), &model, &SessionOptions::default(), &Call::default()).unwrap();
    session.run(&[("x", &x)], &["y"], &Call::default()).unwrap()[0].1.to_f32_vec().unwrap()
}

/// Returns a lowered copy of `model`, and the reasons why nodes stay unchanged.
fn lowered(model: &ModelProto, sizes: &[i64]) -> (ModelProto, Vec<String>) {
    let dims = Some(sizes.iter().map(|size| Dim::Fixed(*size)).collect());
    let types = Types::from([("x".to_owned(), Type { dtype: Some(DataType::Float32), dims })]);
    let mut lowered = model.clone();
    let left = lower(&mut lowered, types, &|_| true).unwrap().left;
    (lowered, left.into_iter().map(|left| left.reason).collect())
}

#[test]
fn a_skip_normalization_has_the_epsilon_of_onnx_runtime() {
    // The variance is 1e-10: the result is near 1 with the default epsilon of 1e-12, and near 0 with one of 1e-5.
    let x = [1e-5, -1e-5, 1e-5, -1e-5];
    let mut made = node("SkipLayerNormalization", &["x", "skip", "gamma"], "y");
    made.domain = Some("com.microsoft".to_owned());
    let mut model = model_of(made, &[1, 1, 4]);
    let graph = model.graph.as_deref_mut().unwrap();
    graph.initializer = vec![weight("skip", &[1, 1, 4], &[0.0; 4]), weight("gamma", &[4], &[1.0, 2.0, 3.0, 4.0])];
    let expected = run(&model, &[1, 1, 4], &x);
    assert!(expected[0] > 0.9, "{expected:?}");
    let (simple, left) = lowered(&model, &[1, 1, 4]);
    assert!(left.is_empty() && simple.graph.as_deref().unwrap().node[0].op() == "Add", "{left:?}");
    let got = run(&simple, &[1, 1, 4], &x);
    assert!(got.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?} {expected:?}");
}

#[test]
fn a_power_pool_is_lowered_without_dilations_only() {
    let x: Vec<f32> = (0..25).map(|i| (i as f32 * 0.7).sin()).collect();
    let pool = |dilation: i64| {
        let mut pool = node("LpPool", &["x"], "y");
        pool.attribute = vec![ints_attribute("kernel_shape", &[2, 2]), int_attribute("p", 3)];
        pool.attribute.extend((dilation > 1).then(|| ints_attribute("dilations", &[dilation, dilation])));
        let mut model = model_of(pool, &[1, 1, 5, 5]);
        model.opset_import[0].version = Some(18);
        model
    };
    let (simple, left) = lowered(&pool(1), &[1, 1, 5, 5]);
    assert!(left.is_empty(), "{left:?}");
    let (got, expected) = (run(&simple, &[1, 1, 5, 5], &x), run(&pool(1), &[1, 1, 5, 5], &x));
    assert!(got.len() == 16 && got.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?} {expected:?}");
    let (same, left) = lowered(&pool(2), &[1, 1, 5, 5]);
    assert_eq!(left, ["an LpPool with dilations is not supported"]);
    assert_eq!(same.graph, pool(2).graph);
}

#[test]
fn samples_of_volumes_stay() {
    let mut made = node("GridSample", &["x", "grid"], "y");
    made.attribute = vec![crate::graph::edit::text_attribute("mode", "bilinear")];
    let sizes = [1, 1, 2, 2, 2];
    let mut model = model_of(made, &sizes);
    model.graph.as_deref_mut().unwrap().initializer = vec![weight("grid", &[1, 1, 1, 1, 3], &[0.0; 3])];
    let (same, left) = lowered(&model, &sizes);
    assert!(left.len() == 1 && left[0].contains("5 dimensions is not supported"), "{left:?}");
    assert_eq!(same.graph, model.graph);
}
