//! Tests of inputs of attention with one value per head, and of nodes whose results depend on the number of channels.

use crate::random::Random;
use crate::run;
use crate::support::build::{model, op, value};
use optimize::call::Call;
use optimize::graph::edit::{float_tensor, ints_attribute, tensor};
use optimize::model::Model;
use optimize::onnx::dtype::DataType::{Float32, Int32, Int64};
use optimize::onnx::proto::{OperatorSetIdProto, TensorProto};
use optimize::prune::structured::{Plan, PruneOptions};
use optimize::runtime::Tensor;

fn weights(name: &str, dims: &[i64], seed: u64) -> TensorProto {
    let mut random = Random(seed);
    let count = dims.iter().product::<i64>() as usize;
    float_tensor(name, dims, &(0..count).map(|_| random.float() * 0.5).collect::<Vec<_>>())
}

fn ints(name: &str, dims: &[i64], value: i32) -> TensorProto {
    tensor(name, Int32, dims, value.to_le_bytes().to_vec().into())
}

/// Returns attention of four heads of eight elements, of which two each share keys and values, on six tokens. `bias` is
/// the number of heads of a bias of the scores, 0 without one.
fn attention(bias: i64, sink: bool) -> Model {
    let mut tensors = vec![
        weights("wq", &[8, 32], 1),
        weights("wk", &[8, 16], 2),
        weights("wv", &[8, 16], 3),
        weights("wo", &[32, 8], 4),
        ints("lengths", &[1], 5),
        ints("total", &[], 6),
        float_tensor("past_k", &[1, 2, 0, 8], &[]),
        float_tensor("past_v", &[1, 2, 0, 8], &[]),
    ];
    let mut inputs = vec!["q", "k", "v", "past_k", "past_v", "lengths", "total", "", "", "", "", ""];
    if bias > 0 {
        inputs[10] = "bias";
        tensors.push(weights("bias", &[1, bias, 6, 6], 5));
    }
    if sink {
        inputs[11] = "sink";
        tensors.push(weights("sink", &[4], 6));
    }
    while inputs.last() == Some(&"") {
        inputs.pop();
    }
    let heads = [("num_heads", 4), ("kv_num_heads", 2)];
    let mut attention = op("GroupQueryAttention", &inputs, &["a", "present_k", "present_v"], &heads);
    attention.domain = Some("com.microsoft".to_owned());
    let nodes = vec![
        op("MatMul", &["x", "wq"], &["q"], &[]),
        op("MatMul", &["x", "wk"], &["k"], &[]),
        op("MatMul", &["x", "wv"], &["v"], &[]),
        attention,
        op("MatMul", &["a", "wo"], &["y"], &[]),
    ];
    let (x, y) = (value("x", Float32, &[1, 6, 8]), value("y", Float32, &[1, 6, 8]));
    let mut proto = model(17, vec![x], vec![y], tensors, nodes).proto().clone();
    let domain = Some("com.microsoft".to_owned());
    proto.opset_import.push(OperatorSetIdProto { domain, version: Some(1), ..Default::default() });
    Model::from_proto(proto)
}

fn options() -> PruneOptions {
    PruneOptions { sparsity: 0.5, round_to: 1, ..PruneOptions::structured() }
}

fn image(shape: &[i64]) -> Tensor {
    let mut random = Random(9);
    Tensor::from_f32(shape, (0..shape.iter().product::<i64>()).map(|_| random.float()).collect()).unwrap()
}

/// Cuts half of a model, checks that the result equals the masked one, and returns it.
fn halved(model: &Model, x: &Tensor) -> Model {
    let plan = Plan::new(model, &options(), None, &Call::default()).unwrap();
    let cut = plan.cut(&Call::default()).unwrap();
    let (expected, found) = (run(&plan.masked().unwrap(), x), run(&cut, x));
    let scale = expected.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
    assert_eq!(expected.len(), found.len());
    expected.iter().zip(&found).for_each(|(a, b)| assert!((a - b).abs() <= 1e-5 * scale, "{a} became {b}"));
    cut
}

fn dims(model: &Model, name: &str) -> Vec<i64> {
    model.graph().initializer.iter().find(|t| t.name.as_deref() == Some(name)).unwrap().dims.clone()
}

#[test]
fn sinks_and_biases_of_heads_go_with_the_heads() {
    for (bias, sink) in [(0, false), (0, true), (4, false), (1, true), (4, true)] {
        let cut = halved(&attention(bias, sink), &image(&[1, 6, 8]));
        assert_eq!(dims(&cut, "wq"), [8, 16], "{bias} {sink}");
        if sink {
            assert_eq!(dims(&cut, "sink"), [2]);
        }
        if bias > 0 {
            assert_eq!(dims(&cut, "bias"), [1, if bias == 4 { 2 } else { 1 }, 6, 6]);
        }
    }
}

/// Returns two convolutions with a `MaxPool` between them, whose indices are added to its values if they are `read`.
fn pooled(read: bool) -> Model {
    let mut pool = op("MaxPool", &["r"], &["p", "at"], &[]);
    pool.attribute = vec![ints_attribute("kernel_shape", &[2, 2]), ints_attribute("strides", &[2, 2])];
    let mut nodes = vec![op("Conv", &["x", "a"], &["c"], &[]), op("Relu", &["c"], &["r"], &[]), pool];
    if read {
        nodes.extend([
            op("Mod", &["at", "seven"], &["rest"], &[]),
            op("Cast", &["rest"], &["number"], &[("to", 1)]),
            op("Add", &["p", "number"], &["s"], &[]),
        ]);
    }
    nodes.push(op("Conv", &[if read { "s" } else { "p" }, "b"], &["y"], &[]));
    let seven = tensor("seven", Int64, &[1], 7i64.to_le_bytes().to_vec().into());
    let tensors = vec![weights("a", &[8, 2, 1, 1], 1), weights("b", &[3, 8, 1, 1], 2), seven];
    let (x, y) = (value("x", Float32, &[-1, 2, 6, 6]), value("y", Float32, &[-1, 3, 3, 3]));
    model(17, vec![x], vec![y], tensors, nodes)
}

#[test]
fn channels_that_indices_count_stay() {
    assert_eq!(dims(&halved(&pooled(false), &image(&[2, 2, 6, 6])), "b"), [3, 4, 1, 1]);
    let refused = Plan::new(&pooled(true), &options(), None, &Call::default()).err().unwrap().to_string();
    assert!(refused.contains("its indices depend on the number of channels"), "{refused}");
}
