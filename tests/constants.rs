//! Constants: attributes from the call of a function, defaults of inputs that a caller may override, blocks and
//! channels of zeros, sums that overflow 32 bits. Each graph is run in ONNX Runtime before and after, with its
//! optimizers and without.

#[path = "constants/goals.rs"]
mod goals;
#[path = "constants/property.rs"]
mod property;
mod support;

use optimize::call::Call;
use optimize::graph::edit::{float_tensor, node};
use optimize::model::Model;
use optimize::onnx::dtype::DataType::{Float32, Int64};
use optimize::onnx::proto::*;
use optimize::quantize::{Algorithm, QuantizeOptions, QuantizeType, ScaleType, quantize};
use optimize::report::Report;
use optimize::runtime::{OptimizationLevel, Session, SessionOptions, Tensor};
use support::build::*;
use support::runtime;

const SCALES: [ScaleType; 3] = [ScaleType::Uint8, ScaleType::Float16, ScaleType::Float32];
const LEVELS: [OptimizationLevel; 2] = [OptimizationLevel::All, OptimizationLevel::Disabled];

fn dynamic() -> QuantizeOptions {
    QuantizeOptions { min_elements: 1, ..Default::default() }
}

fn in_blocks(bits: u32) -> QuantizeOptions {
    QuantizeOptions { quantize_type: QuantizeType::WeightOnly, bits, ..dynamic() }
}

fn run(model: &Model, level: OptimizationLevel, inputs: &[(&str, &Tensor)]) -> Vec<f32> {
    let options = SessionOptions { threads: 1, optimization_level: level, ..Default::default() };
    let session = Session::new(runtime(), model, &options, &Call::default()).unwrap();
    let given = session.run(inputs, &[], &Call::default()).unwrap();
    given.iter().flat_map(|(_, tensor)| tensor.to_f32_vec().unwrap()).collect()
}

/// Returns the relative error √(Σ (a-b)² / Σ a²).
fn error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |v: f32| f64::from(v).powi(2);
    let off: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (off / a.iter().map(|v| square(*v)).sum::<f64>()).sqrt()
}

/// Returns the largest error of the result over both optimization levels, against the original without optimizers.
fn lost(original: &Model, result: &Model, inputs: &[(&str, &Tensor)]) -> f64 {
    let expected = run(original, OptimizationLevel::Disabled, inputs);
    let of = |level| {
        let lost = error(&expected, &run(result, level, inputs));
        if lost.is_nan() { f64::INFINITY } else { lost }
    };
    LEVELS.into_iter().map(of).fold(0.0, f64::max)
}

fn made(model: &Model, options: &QuantizeOptions) -> (Model, Report) {
    quantize(model, options, &Call::default()).unwrap()
}

fn ones(dims: &[i64]) -> Tensor {
    Tensor::from_f32(dims, vec![1.0; dims.iter().product::<i64>() as usize]).unwrap()
}

fn rows(dims: &[i64], seed: f32) -> Tensor {
    Tensor::from_f32(dims, smooth(dims.iter().product::<i64>() as usize, seed)).unwrap()
}

/// Returns `y = x W` with a weight `[k, n]`.
fn product(k: i64, n: i64, values: &[f32]) -> Model {
    let (inputs, outputs) = (vec![value("x", Float32, &[-1, k])], vec![value("y", Float32, &[-1, n])]);
    model(17, inputs, outputs, vec![float_tensor("w", &[k, n], values)], vec![node("MatMul", &["x", "w"], &["y"])])
}

/// Returns weights whose rows from `from` on are zero.
fn padded(k: usize, n: usize, from: usize, size: f32) -> Vec<f32> {
    smooth(k * n, 3.0).into_iter().enumerate().map(|(i, v)| if i / n < from { size * v } else { 0.0 }).collect()
}

#[test]
fn a_block_of_zeros_takes_nothing_from_the_others() {
    for size in [0.002, 0.02, 5e-4, 3.0] {
        let original = product(128, 24, &padded(128, 24, 96, size));
        let x = rows(&[5, 128], 0.3);
        for bits in [2, 4, 8] {
            for algorithm in [Algorithm::Rtn, Algorithm::Hqq] {
                if algorithm == Algorithm::Hqq && bits == 8 {
                    continue;
                }
                let loss = |scale_type| {
                    let options = QuantizeOptions { algorithm, scale_type, ..in_blocks(bits) };
                    lost(&original, &made(&original, &options).0, &[("x", &x)])
                };
                let [byte, half, float] = SCALES.map(loss);
                // The error for uniform weights, whose codes are 2/(2^bits - 1) apart, as weight_only.rs derives it;
                // activations in 8 bits add 1/255.
                let bound = 2.5 * (1.0 / f64::from((1u32 << bits) - 1)).hypot(1.0 / 255.0);
                assert!(float < bound, "{bits} bits of {size}: {float}");
                assert!(byte < 1.3 * float && half < 1.3 * float, "{bits} bits of {size}: {byte} {half} {float}");
            }
        }
    }
}

#[test]
fn rows_and_tables_of_zeros_are_zeros() {
    let mut values = smooth(64 * 32, 1.0);
    values.iter_mut().skip(5).step_by(32).for_each(|v| *v = 0.0); // output 5 is zero throughout
    let original = product(64, 32, &values);
    let x = rows(&[3, 64], 0.7);
    for scale_type in SCALES {
        let (result, _) = made(&original, &QuantizeOptions { scale_type, ..in_blocks(4) });
        for level in LEVELS {
            let given = run(&result, level, &[("x", &x)]);
            // The kernel adds codes and zero points, whose products with the inputs cancel up to rounding. The rest is
            // multiplied by the scale of the block, which is at least 6e-8 in half precision.
            assert!(given.iter().skip(5).step_by(32).all(|v| v.abs() < 1e-9), "{scale_type:?}");
        }
    }
    let table: Vec<f32> =
        smooth(40 * 128, 2.0).into_iter().enumerate().map(|(i, v)| if i % 128 < 32 { 0.0 } else { 0.01 * v }).collect();
    let (inputs, outputs) = (vec![value("ids", Int64, &[-1])], vec![value("y", Float32, &[-1, 128])]);
    let tables = vec![float_tensor("t", &[40, 128], &table)];
    let original = model(17, inputs, outputs, tables, vec![node("Gather", &["t", "ids"], &["y"])]);
    let ids = Tensor::from_i64(&[4], vec![3, 0, 39, 17]).unwrap();
    for (bits, most) in [(4, 0.17), (8, 0.01)] {
        let found = lost(&original, &made(&original, &in_blocks(bits)).0, &[("ids", &ids)]);
        assert!(found < most, "{bits} bits: {found}");
    }
}

#[test]
fn computed_scales_are_right_without_optimizers_too() {
    let original = product(64, 48, &smooth(64 * 48, 1.0));
    let x = rows(&[5, 64], 0.1);
    for bits in [2, 4, 8] {
        for (symmetric, scale_type) in [(false, ScaleType::Uint8), (true, ScaleType::Float16), (true, ScaleType::Uint8)]
        {
            let (result, _) = made(&original, &QuantizeOptions { symmetric, scale_type, ..in_blocks(bits) });
            let [folded, plain] = LEVELS.map(|level| run(&result, level, &[("x", &x)]));
            // Without folding, another kernel runs, which keeps activations in float.
            let apart = error(&folded, &plain);
            assert!(apart < 0.02, "{bits} bits, {scale_type:?}: {apart}");
        }
    }
}

#[test]
fn a_bias_that_beta_leaves_out_is_not_read() {
    let mut gemm = node("Gemm", &["x", "w", "c"], &["y"]);
    gemm.attribute =
        vec![AttributeProto { name: Some("beta".into()), kind: Some(1), f: Some(0.0), ..Default::default() }];
    let constants = vec![weight("w", &[32, 16]), float_tensor("c", &[16], &[f32::INFINITY; 16])];
    let (inputs, outputs) = (vec![value("x", Float32, &[-1, 32])], vec![value("y", Float32, &[-1, 16])]);
    let original = model(17, inputs, outputs, constants, vec![gemm]);
    let x = rows(&[4, 32], 0.9);
    for options in [dynamic(), in_blocks(8)] {
        let (result, _) = made(&original, &options);
        assert!(lost(&original, &result, &[("x", &x)]) < 0.02);
    }
}

#[test]
fn sums_stay_within_32_bits() {
    // The columns are small equal weights (a mean), large equal weights of the other sign, and weights whose codes
    // stay.
    let k = 100_000usize;
    let value = |row: usize, column: usize| match column {
        0 => 1.0 / k as f32,
        1 => -3.0,
        _ => (row as f32 * 12.9898).sin(),
    };
    let values: Vec<f32> = (0..k * 3).map(|i| value(i / 3, i % 3)).collect();
    let original = product(k as i64, 3, &values);
    let x = ones(&[1, k as i64]);
    for per_channel in [true, false] {
        let (result, _) = made(&original, &QuantizeOptions { per_channel, ..dynamic() });
        let expected = run(&original, OptimizationLevel::Disabled, &[("x", &x)]);
        for level in LEVELS {
            let given = run(&result, level, &[("x", &x)]);
            assert!((given[1] / expected[1] - 1.0).abs() < 0.02, "{given:?} {expected:?}");
            // With a single scale, the mean is far below one step.
            assert!(!per_channel || (given[0] / expected[0] - 1.0).abs() < 0.02, "{given:?} {expected:?}");
        }
    }
}

/// Returns a model that calls the function `f` with `x`, in opset `opset`; `attributes` are the attributes of the call.
fn calling(opset: i64, body: Vec<NodeProto>, declared: &[&str], attributes: &[(&str, i64)]) -> Model {
    let call = NodeProto { domain: Some("local".into()), ..op("f", &["x"], &["y"], attributes) };
    let graph = GraphProto {
        name: Some("g".into()),
        node: vec![call],
        input: vec![value("x", Float32, &[-1, 32])],
        output: vec![value("y", Float32, &[-1, 32])],
        ..Default::default()
    };
    let mut proto = model_of(opset, graph);
    proto.functions.push(FunctionProto {
        name: Some("f".into()),
        domain: Some("local".into()),
        input: vec!["x".into()],
        output: vec!["y".into()],
        attribute: declared.iter().map(|name| (*name).to_owned()).collect(),
        node: body,
        opset_import: proto.opset_import.clone(),
        ..Default::default()
    });
    let local = OperatorSetIdProto { domain: Some("local".into()), version: Some(1), ..Default::default() };
    proto.opset_import.push(local);
    Model::from_proto(proto)
}

fn refers(name: &str, to: &str, kind: i32) -> AttributeProto {
    AttributeProto { name: Some(name.into()), ref_attr_name: Some(to.into()), kind: Some(kind), ..Default::default() }
}

#[test]
fn an_attribute_of_the_call_is_not_the_default_of_the_operator() {
    let mut gemm = node("Gemm", &["x", "w"], &["h"]);
    gemm.attribute = vec![refers("transB", "tb", 2)];
    let body = vec![
        constant(weight("w", &[32, 32])),
        constant(weight("other", &[32, 32])),
        gemm,
        node("MatMul", &["h", "other"], &["y"]),
    ];
    let original = calling(17, body, &["tb"], &[("tb", 1)]);
    let x = rows(&[4, 32], 0.2);
    for (options, most) in [(dynamic(), 0.02), (in_blocks(8), 0.02)] {
        let (result, report) = made(&original, &options);
        assert!(lost(&original, &result, &[("x", &x)]) < most);
        let gemm = report.nodes.iter().find(|n| n.op == "Gemm").unwrap();
        // The result is the same in any form in which the weight is stored.
        assert!(gemm.action != "quantized" && result.proto().functions[0].node.iter().any(|n| n.refers()), "{gemm:?}");
    }
}

#[test]
fn functions_import_the_domain_of_what_is_written_into_them() {
    let x = rows(&[4, 32], 0.2);
    let plain = vec![constant(weight("w", &[32, 32])), node("MatMul", &["x", "w"], &["y"])];
    // The result uses DynamicQuantizeMatMul of com.microsoft, a domain that the function does not import yet: before
    // opset 11, ONNX has no DynamicQuantizeLinear.
    let original = calling(10, plain, &[], &[]);
    let (result, _) = made(&original, &dynamic());
    assert!(lost(&original, &result, &[("x", &x)]) < 0.02);
    // Nodes inside an If inside a function.
    let branch = |op: NodeProto| GraphProto {
        name: Some("b".into()),
        node: vec![op],
        output: vec![ValueInfoProto { name: Some("z".into()), ..Default::default() }],
        ..Default::default()
    };
    let yes = tensor_of_true("yes");
    let mut choice = node("If", &["yes"], &["y"]);
    choice = with_graph(choice, "then_branch", branch(node("MatMul", &["x", "w"], &["z"])));
    choice = with_graph(choice, "else_branch", branch(node("Neg", &["x"], &["z"])));
    let original = calling(17, vec![constant(yes), constant(weight("w", &[32, 32])), choice], &[], &[]);
    for options in [in_blocks(8), dynamic()] {
        let (result, _) = made(&original, &options);
        assert!(lost(&original, &result, &[("x", &x)]) < 0.02);
    }
}

fn tensor_of_true(name: &str) -> TensorProto {
    let dtype = optimize::onnx::dtype::DataType::Bool;
    optimize::graph::edit::tensor(name, dtype, &[], vec![1u8].into())
}

/// Returns `y = x W (+ mean of W)`, where `W` is an optional input.
fn optional(read_twice: bool) -> Model {
    let inputs = vec![value("x", Float32, &[-1, 32]), value("w", Float32, &[32, 32])];
    let mut nodes = vec![node("MatMul", &["x", "w"], &[if read_twice { "p" } else { "y" }])];
    if read_twice {
        nodes.push(op("ReduceMean", &["w"], &["m"], &[("keepdims", 0)]));
        nodes.push(node("Add", &["p", "m"], &["y"]));
    }
    let outputs = vec![value("y", Float32, &[-1, 32])];
    model(17, inputs, outputs, vec![weight("w", &[32, 32]), weight("v", &[32, 32])], {
        nodes.insert(0, node("MatMul", &["x", "v"], &["unused"]));
        nodes
    })
}

#[test]
fn an_optional_input_goes_with_its_weight_or_both_stay() {
    for options in [dynamic(), in_blocks(4)] {
        let (result, report) = made(&optional(false), &options);
        assert!(result.graph().input.iter().all(|input| input.name.as_deref() != Some("w")));
        let warnings = report.warnings.concat();
        assert!(warnings.contains("\"w\" was removed"), "{warnings}");
        let (result, report) = made(&optional(true), &options);
        assert!(result.graph().input.iter().any(|input| input.name.as_deref() == Some("w")));
        let left = report.nodes.iter().find(|n| n.action == "left").unwrap();
        assert!(left.reason.contains("the weight is an optional input"), "{}", left.reason);
        assert!(result.graph().node.iter().any(|n| n.op() == "MatMul" && n.input[1] == "w"));
    }
}

#[test]
fn why_a_product_has_no_constant_weight_is_said() {
    let shaped = vec![
        node("Reshape", &["w", "shape"], &["shaped"]),
        node("MatMul", &["x", "shaped"], &["a"]),
        node("DequantizeLinear", &["codes", "scale"], &["float"]),
        node("MatMul", &["a", "float"], &["b"]),
        node("MatMul", &["b", "v"], &["y"]),
    ];
    let shape =
        optimize::graph::edit::tensor("shape", Int64, &[2], [32i64, 32].iter().flat_map(|v| v.to_le_bytes()).collect());
    let codes = optimize::graph::edit::tensor(
        "codes",
        optimize::onnx::dtype::DataType::Int8,
        &[32, 32],
        vec![3u8; 1024].into(),
    );
    let constants =
        vec![weight("w", &[1024]), shape, codes, float_tensor("scale", &[], &[0.1]), weight("v", &[32, 32])];
    let (inputs, outputs) = (vec![value("x", Float32, &[-1, 32])], vec![value("y", Float32, &[-1, 32])]);
    let (_, report) = made(&model(17, inputs, outputs, constants, shaped), &dynamic());
    let reasons: Vec<&str> = report.nodes.iter().filter(|n| n.action == "left").map(|n| n.reason.as_str()).collect();
    assert_eq!(reasons, ["the weight is computed from constants by Reshape", "is already quantized"]);
}
