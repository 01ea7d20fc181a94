use super::*;
use crate::onnx::proto::{ModelProto, NodeProto};
use crate::runtime::test_runtime;
use crate::runtime::testing::{graph, model, node, value, weight};

fn ints(name: &str, values: &[i64]) -> crate::onnx::proto::TensorProto {
    crate::onnx::proto::TensorProto {
        data_type: Some(7),
        raw_data: Some(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into()),
        ..weight(name, &[values.len() as i64], &[])
    }
}

fn made(nodes: Vec<NodeProto>, dims: &[&str], weights: Vec<crate::onnx::proto::TensorProto>) -> Model {
    let mut graph = graph(nodes, vec![value("x", 1, dims)], vec![value("y", 1, &["a", "b"])]);
    graph.output[0].value_type.as_mut().unwrap().tensor_type.as_mut().unwrap().shape = None;
    graph.initializer = weights;
    let proto: ModelProto = model(graph);
    Model::from_proto(proto)
}

fn promise(model: &Model, options: &CompileOptions) -> Result<Promise> {
    Promise::new(test_runtime(), model, options, &Call::default())
}

fn dynamic(batch_max: i64) -> CompileOptions {
    CompileOptions { dynamic: true, batch_max, ..CompileOptions::default() }
}

/// Returns a model that runs only batches of one, because it reshapes `[b, 2, 4]` to `[1, 8]`.
fn batch_of_one() -> Model {
    let nodes = vec![node("Reshape", &["x", "s"], "r"), node("MatMul", &["r", "w"], "y")];
    made(nodes, &["b", "2", "4"], vec![ints("s", &[1, 8]), weight("w", &[8, 2], &[0.5; 16])])
}

#[test]
fn sizes_are_those_that_the_graph_wants() {
    let features = made(vec![node("MatMul", &["x", "w"], "y")], &["b", "f"], vec![weight("w", &[8, 8], &[0.1; 64])]);
    assert_eq!(promise(&features, &CompileOptions::default()).unwrap().example[0].1, [1, 8]);
    let image =
        made(vec![node("Conv", &["x", "w"], "y")], &["", "", "", ""], vec![weight("w", &[4, 3, 3, 3], &[0.1; 108])]);
    assert_eq!(promise(&image, &CompileOptions::default()).unwrap().example[0].1, [1, 3, 128, 128]);
}

#[test]
fn sizes_that_the_model_refuses_are_not_taken() {
    // The number of features of this model is not the size of any weight; the `Reshape` requires 32 features.
    let nodes = vec![node("Reshape", &["x", "s"], "r"), node("MatMul", &["r", "w"], "y")];
    let hidden = made(nodes, &["1", "f"], vec![ints("s", &[4, 8]), weight("w", &[8, 2], &[0.5; 16])]);
    let promise = promise(&hidden, &CompileOptions::default()).unwrap();
    assert_eq!((&promise.example[0].1[..], promise.warnings.len()), (&[1, 32][..], 0));
}

#[test]
fn what_was_asked_for_and_does_not_run_is_refused() {
    let e = promise(&batch_of_one(), &dynamic(8)).err().unwrap();
    assert_eq!(e.kind(), Kind::InvalidArgument);
    assert!(e.to_string().contains("\"batch\": 1 to 8, but the model does not run with 8"), "{e}");
    let example = HashMap::from([("x".to_owned(), vec![3, 2, 4])]);
    let e = promise(&batch_of_one(), &CompileOptions { example, ..CompileOptions::default() }).err().unwrap();
    assert!(e.to_string().contains("does not run on x [3, 2, 4]"), "{e}");
    let range = |min, max| Range { name: "n".to_owned(), min, max };
    let shapes = Asked::from([("x".to_owned(), BTreeMap::from([(0, range(2, Some(4)))]))]);
    assert!(promise(&batch_of_one(), &CompileOptions { shapes, ..CompileOptions::default() }).is_err());
}

#[test]
fn a_default_that_does_not_run_is_narrowed_with_a_warning() {
    let narrowed = promise(&batch_of_one(), &dynamic(CompileOptions::default().batch_max)).unwrap();
    let dims = narrowed.contract.inputs[0].dims.clone().unwrap();
    assert_eq!(dims[0], Size::Range(Range { name: "batch".to_owned(), min: 1, max: Some(1) }));
    let warnings = narrowed.warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("the model does not run with 64"), "{warnings:?}");
    // An image of the default size is smaller than the kernel of this convolution.
    let kernel = vec![weight("w", &[1, 3, 5, 5], &[0.1; 75])];
    let conv = made(vec![node("Conv", &["x", "w"], "y")], &["b", "3", "h", "w"], kernel);
    let narrowed = promise(&conv, &dynamic(64)).unwrap();
    let dims = narrowed.contract.inputs[0].dims.clone().unwrap();
    assert_eq!(dims[2], Size::Range(Range { name: "h".to_owned(), min: 8, max: None }));
    assert_eq!(narrowed.warnings.len(), 2, "{:?}", narrowed.warnings);
}
