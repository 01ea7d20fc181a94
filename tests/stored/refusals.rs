//! Tests of weights that stay unchanged, with the reason.

use super::support::build::*;
use super::{options, run};
use optimize::call::Call;
use optimize::error::Kind;
use optimize::graph::edit::float_tensor;
use optimize::model::Model;
use optimize::onnx::dtype::DataType::Float32;
use optimize::onnx::proto::*;
use optimize::quantize::{QuantizeOptions, quantize};
use optimize::runtime::Tensor;

fn conv(weights: TensorProto, more: Vec<NodeProto>, outputs: Vec<ValueInfoProto>) -> ModelProto {
    let x = value("x", Float32, &[1, 8, 6, 6]);
    let mut nodes = vec![NodeProto { name: Some("/net/conv".into()), ..op("Conv", &["x", "w"], &["y"], &[]) }];
    nodes.extend(more);
    let mut all = vec![value("y", Float32, &[1, 32, 4, 4])];
    all.extend(outputs);
    model(13, vec![x], all, vec![weights], nodes).proto().clone()
}

fn kernel() -> TensorProto {
    weight("w", &[32, 8, 3, 3])
}

fn message(proto: ModelProto, options: &QuantizeOptions) -> String {
    let model = Model::from_proto(proto);
    let error = quantize(&model, options, &Call::default()).err().expect("refused");
    assert_eq!(error.kind(), Kind::Unsupported);
    error.message().to_owned()
}

#[test]
fn what_must_stay_stays_and_the_message_says_why_and_what_would_help() {
    let sum = op("ReduceSum", &["w"], &["s"], &[]);
    let read = conv(kernel(), vec![sum], vec![value("s", Float32, &[1, 1, 1, 1])]);
    assert!(message(read, &options(8)).contains("Conv (s needs the weight as float)"));
    let given = conv(kernel(), vec![], vec![value("w", Float32, &[32, 8, 3, 3])]);
    assert!(message(given, &options(8)).contains("its weight is also an output"));
    let mut optional = conv(kernel(), vec![], vec![]);
    optional.graph.as_mut().unwrap().input.push(value("w", Float32, &[32, 8, 3, 3]));
    assert!(message(optional.clone(), &options(8)).contains("the weight is an optional input"));
    // Before IR version 4, every initializer was also listed as an input.
    let old = Model::from_proto(ModelProto { ir_version: Some(3), ..optional });
    let (result, _) = quantize(&old, &options(8), &Call::default()).unwrap();
    assert_eq!(result.graph().input.len(), 1);
    let x = vec![("x".to_owned(), Tensor::from_f32(&[1, 8, 6, 6], smooth(288, 0.3)).unwrap())];
    assert!(super::error(&run(&old, &x), &run(&result, &x)) < 0.02);
    for damaged in [f32::NAN, f32::INFINITY] {
        let mut values = smooth(32 * 72, 1.0);
        values[100] = damaged;
        let proto = conv(float_tensor("w", &[32, 8, 3, 3], &values), vec![], vec![]);
        assert!(message(proto, &options(8)).contains("not finite"));
    }
    // In every row and column, one value is so much larger than the others that these would become zeros.
    let values: Vec<f32> = (0..512 * 512).map(|i| if i / 512 == i % 512 { 1.0 } else { 0.0035 }).collect();
    let spread = float_tensor("w", &[512, 512], &values);
    let node = op("MatMul", &["w", "x"], &["y"], &[]);
    let (x, y) = (value("x", Float32, &[512, 3]), value("y", Float32, &[512, 3]));
    let wide = model(13, vec![x], vec![y], vec![spread], vec![node]).proto().clone();
    assert!(message(wide, &options(8)).contains("would change a channel of the weight by"));
    let small = message(conv(kernel(), vec![], vec![]), &QuantizeOptions { min_elements: 5000, ..options(8) });
    for part in ["no node could be quantized", "--type static --calibration", "optimize prune", "min_elements"] {
        assert!(small.contains(part), "{small}");
    }
}

#[test]
fn globs_go_by_nodes_and_weights() {
    let with = |include: &[&str], exclude: &[&str]| {
        let own = |list: &[&str]| list.iter().map(|s| s.to_string()).collect();
        let options = QuantizeOptions { include: own(include), exclude: own(exclude), ..options(8) };
        quantize(&Model::from_proto(conv(kernel(), vec![], vec![])), &options, &Call::default())
    };
    assert_eq!(with(&["*conv*"], &[]).unwrap().1.nodes[0].action, "stored int8");
    assert_eq!(with(&["w"], &[]).unwrap().1.nodes[0].action, "stored int8");
    assert!(with(&[], &["*conv"]).err().unwrap().message().contains("Conv (excluded)"));
    assert!(with(&[], &["w"]).err().unwrap().message().contains("Conv (excluded)"));
    assert_eq!(with(&["*dense*"], &[]).err().unwrap().kind(), Kind::InvalidArgument);
}

#[test]
fn tables_that_are_to_stay_do() {
    let ids = value("ids", optimize::onnx::dtype::DataType::Int64, &[3]);
    let nodes = vec![op("Gather", &["w", "ids"], &["y"], &[("axis", 1)])];
    let make = || {
        model(13, vec![ids.clone()], vec![value("y", Float32, &[64, 3])], vec![weight("w", &[64, 40])], nodes.clone())
    };
    assert_eq!(quantize(&make(), &options(8), &Call::default()).unwrap().1.nodes[0].action, "stored int8");
    let kept = QuantizeOptions { embeddings: false, ..options(8) };
    assert!(message(make().proto().clone(), &kept).contains("embedding tables are kept float by the options"));
}
