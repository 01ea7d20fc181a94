//! Block-quantized weights of 4 and 8 bits: each graph is run in ONNX Runtime before and after.
//!
//! The required accuracy follows from the bits. Weights that are uniform in (-1, 1) have the root mean square 1/√3,
//! and codes of `b` bits are 2/(2ᵇ-1) apart, which gives an error of that over √12: 1/(2ᵇ-1) of the weights. Errors
//! that are independent of the activations keep this ratio in a sum of products; activations quantized to 8 bits add
//! 1/255. See [`bound`].

#[path = "weight_only/bodies.rs"]
mod bodies;
#[path = "weight_only/models.rs"]
mod models;
#[path = "weight_only/refusals.rs"]
mod refusals;
mod support;

use bodies::{branching, calling};
use optimize::call::Call;
use optimize::error::Kind;
use optimize::graph::edit::{float_tensor, tensor};
use optimize::model::Model;
use optimize::onnx::dtype::DataType::{self, Bfloat16, Bool, Float16, Float32, Int64};
use optimize::onnx::proto::*;
use optimize::onnx::save::{self, ExternalData};
use optimize::quantize::{
    Algorithm, CalibrationMethod, QuantizeOptions, QuantizeType, ReduceRange, ScaleType, quantize,
};
use optimize::report::Report;
use optimize::runtime::{Session, SessionOptions, Tensor};
use optimize::text::Tokenizer;
use support::build::*;
use support::{deps, runtime, scratch};

const SCALES: [ScaleType; 3] = [ScaleType::Uint8, ScaleType::Float16, ScaleType::Float32];
/// The accuracy levels: activations stay float, or are quantized to 8 bits block by block.
const LEVELS: [u32; 2] = [1, 4];

fn options(bits: u32) -> QuantizeOptions {
    QuantizeOptions { quantize_type: QuantizeType::WeightOnly, bits, min_elements: 1, ..Default::default() }
}

/// Returns all forms of a weight: bits, symmetric or not, scales, accuracy level.
fn forms() -> Vec<QuantizeOptions> {
    forms_of(&[4, 8])
}

fn forms_of(bits: &[u32]) -> Vec<QuantizeOptions> {
    let mut forms = Vec::new();
    for bits in bits.iter().copied() {
        for symmetric in [true, false] {
            for scale_type in SCALES {
                let accuracy_level = LEVELS[forms.len() % 2];
                forms.push(QuantizeOptions { symmetric, scale_type, accuracy_level, ..options(bits) });
            }
        }
    }
    forms
}

/// Returns the maximum root mean square error relative to that of the outputs: two and a half times the error of the
/// bits, since a few sums of products may be small. Codes, scales or zero points in a wrong place cause errors of
/// about 1.
fn bound(options: &QuantizeOptions) -> f64 {
    let weights = 1.0 / f64::from((1u32 << options.bits) - 1);
    let activations = if options.accuracy_level == 4 { 1.0 / 255.0 } else { 0.0 };
    2.5 * weights.hypot(activations)
}

fn run_with(model: &Model, options: &SessionOptions, inputs: &[(&str, &Tensor)]) -> Vec<(String, Tensor)> {
    let session = Session::new(runtime(), model, options, &Call::default()).unwrap();
    session.run(inputs, &[], &Call::default()).unwrap()
}

fn run(model: &Model, inputs: &[(&str, &Tensor)]) -> Vec<(String, Tensor)> {
    run_with(model, &SessionOptions { threads: 1, ..Default::default() }, inputs)
}

/// Returns the relative error √(Σ (a-b)² / Σ a²) of the output with the largest error.
fn error(before: &[(String, Tensor)], after: &[(String, Tensor)]) -> f64 {
    assert_eq!(before.len(), after.len());
    let one = |((name, a), (other, b)): (&(String, Tensor), &(String, Tensor))| {
        assert_eq!((name, a.dtype(), a.shape()), (other, b.dtype(), b.shape()));
        let (a, b) = (a.to_f32_vec().unwrap(), b.to_f32_vec().unwrap());
        assert!(a.iter().chain(&b).all(|v| v.is_finite()));
        let square = |v: f32| f64::from(v).powi(2);
        let off: f64 = a.iter().zip(&b).map(|(a, b)| square(a - b)).sum();
        (off / a.iter().map(|v| square(*v)).sum::<f64>()).sqrt()
    };
    before.iter().zip(after).map(one).fold(0.0, f64::max)
}

/// Quantizes a model, checks that the outputs agree, and returns the result and the report.
fn check(model: &Model, inputs: &[(&str, &Tensor)], options: &QuantizeOptions) -> (Model, Report) {
    let (result, report) = quantize(model, options, &Call::default()).unwrap();
    let found = error(&run(model, inputs), &run(&result, inputs));
    assert!(found < bound(options), "relative error {found} with {options:?}");
    assert!(found > 0.0, "nothing was quantized at all");
    for node in report.nodes.iter().filter(|n| n.action == "quantized") {
        assert!(node.reason.starts_with(&format!("{} bits in blocks of ", options.bits)), "{}", node.reason);
        let kind = if options.symmetric || options.bits == 8 { ", symmetric, " } else { ", with zero points, " };
        assert!(node.reason.contains(kind), "{}", node.reason);
    }
    (result, report)
}

fn refusal(model: &Model, options: &QuantizeOptions) -> (Kind, String) {
    let error = quantize(model, options, &Call::default()).err().expect("refused");
    (error.kind(), error.message().to_owned())
}

fn count(model: &Model, op: &str) -> usize {
    model.graph().node.iter().filter(|n| n.op() == op).count()
}

fn initializers(model: &Model, dtype: DataType, rank: usize) -> Vec<&TensorProto> {
    let fits = |t: &&TensorProto| t.data_type == Some(dtype.to_onnx()) && t.dims.len() == rank;
    model.graph().initializer.iter().filter(fits).collect()
}

/// Returns the codes of a weight, which are stored once.
fn codes_of<'m>(model: &'m Model, weight: &str, bits: u32) -> &'m TensorProto {
    let start = format!("{weight}_int{bits}");
    let named = |t: &&TensorProto| t.name.as_ref().is_some_and(|name| name.starts_with(&start));
    let found: Vec<&TensorProto> = model.graph().initializer.iter().filter(named).collect();
    assert_eq!(found.len(), 1, "{weight}");
    found[0]
}

fn uniform(dims: &[i64], seed: f32) -> Tensor {
    Tensor::from_f32(dims, smooth(dims.iter().product::<i64>() as usize, seed)).unwrap()
}

fn float_in(name: &str, columns: i64) -> ValueInfoProto {
    value(name, Float32, &[-1, columns])
}

fn turn(input: &str, output: &str) -> NodeProto {
    let ints = AttributeProto {
        name: Some("perm".into()),
        kind: Some(attribute_kind::INTS),
        ints: vec![1, 0],
        ..Default::default()
    };
    NodeProto { attribute: vec![ints], ..op("Transpose", &[input], &[output], &[]) }
}

fn cast(input: &str, output: &str, to: DataType) -> NodeProto {
    op("Cast", &[input], &[output], &[("to", i64::from(to.to_onnx()))])
}

/// Returns a weight with elements of two bytes.
fn short(name: &str, dims: &[i64], dtype: DataType) -> TensorProto {
    let values = smooth(dims.iter().product::<i64>() as usize, 5.0);
    let bytes = |v: &f32| match dtype {
        Float16 => half::f16::from_f32(*v).to_le_bytes(),
        _ => half::bf16::from_f32(*v).to_le_bytes(),
    };
    tensor(name, dtype, dims, values.iter().flat_map(bytes).collect::<Vec<u8>>().into())
}

fn product(rows: i64, columns: i64) -> Model {
    let node = op("MatMul", &["x", "w"], &["y"], &[]);
    let weights = vec![weight("w", &[rows, columns])];
    model(17, vec![float_in("x", rows)], vec![float_in("y", columns)], weights, vec![node])
}

#[test]
fn every_form_of_the_blocks_agrees_with_the_float_product() {
    // If the number of rows is not a multiple of the block size, the last block is padded. If at least half of it would
    // be padding, the block size is halved first, if necessary repeatedly, down to 16 (2 bits: 32).
    let blocks = [(16, 256, 16), (32, 256, 32), (64, 256, 64), (128, 256, 128), (256, 256, 256)];
    let ragged = [(16, 200, 16), (64, 200, 16), (128, 200, 128), (256, 200, 256), (32, 90, 32), (16, 7, 16)];
    for (block_size, rows, made) in blocks.into_iter().chain(ragged) {
        let (model, x) = (product(rows, 48), uniform(&[6, rows], 0.5));
        for form in forms_of(&[2, 4, 8]) {
            let form = QuantizeOptions { block_size, ..form };
            let (result, report) = check(&model, &[("x", &x)], &form);
            let node = &report.nodes[0];
            let made = if form.bits == 2 { made.max(32) } else { made };
            assert!(node.reason.contains(&format!("in blocks of {made},")), "{rows} rows: {}", node.reason);
            let (count, bytes) = ((rows as usize).div_ceil(made), made * form.bits as usize / 8);
            // Codes are stored flat if scales are computed; see `weight_only::rewrite`.
            let codes = codes_of(&result, "w", form.bits);
            match form.scale_type {
                ScaleType::Float32 => assert_eq!(codes.dims, [48, count as i64, bytes as i64]),
                _ => assert_eq!(codes.dims, [48, (count * bytes) as i64]),
            }
            assert!(result.graph().initializer.iter().all(|t| t.name.as_deref() != Some("w")));
            assert_eq!(report.options["block_size"], block_size);
        }
    }
}

#[test]
fn more_bits_and_smaller_blocks_are_closer() {
    // Each row has one large value, which affects its whole block: a smaller block limits the damage.
    let mut values = smooth(256 * 48, 2.0);
    values.iter_mut().step_by(97).for_each(|v| *v *= 20.0);
    let node = op("MatMul", &["x", "w"], &["y"], &[]);
    let weights = vec![float_tensor("w", &[256, 48], &values)];
    let model = model(17, vec![float_in("x", 256)], vec![float_in("y", 48)], weights, vec![node]);
    let (x, wanted) = (uniform(&[6, 256], 0.5), run(&model, &[("x", &uniform(&[6, 256], 0.5))]));
    let off = |options: QuantizeOptions| {
        let (result, _) = quantize(&model, &options, &Call::default()).unwrap();
        error(&wanted, &run(&result, &[("x", &x)]))
    };
    let with = |bits, block_size| QuantizeOptions { block_size, accuracy_level: 1, ..options(bits) };
    let [large, small, eight] = [with(4, 256), with(4, 16), with(8, 256)].map(off);
    assert!(small < 0.7 * large, "{small} {large}");
    assert!(eight < 0.2 * large, "{eight} {large}");
}

#[test]
fn transposed_weights_and_the_factors_and_bias_of_gemm_are_kept() {
    let x = uniform(&[5, 96], 0.5);
    for form in forms() {
        let transposed = vec![turn("w", "t"), op("MatMul", &["x", "t"], &["y"], &[])];
        let weights = vec![weight("w", &[40, 96])];
        let transposed = model(17, vec![float_in("x", 96)], vec![float_in("y", 40)], weights, transposed);
        let (result, _) = check(&transposed, &[("x", &x)], &form);
        assert_eq!((count(&result, "Transpose"), count(&result, "MatMul"), count(&result, "MatMulNBits")), (0, 0, 1));
    }
    // The cases combine transB, a Transpose before it, factors and a bias.
    for (number, form) in forms().iter().cycle().take(32).enumerate() {
        let [trans_b, before, factors, bias] = [1, 2, 4, 8].map(|bit| number & bit != 0);
        let dims = if trans_b != before { [40, 96] } else { [96, 40] };
        let mut inputs = vec!["x", if before { "t" } else { "w" }];
        inputs.extend(bias.then_some("b"));
        let mut gemm = op("Gemm", &inputs, &["y"], &[("transB", i64::from(trans_b))]);
        for (name, value) in [("alpha", 0.5), ("beta", 3.0)] {
            let attribute =
                AttributeProto { name: Some(name.into()), kind: Some(1), f: Some(value), ..Default::default() };
            gemm.attribute.extend(factors.then_some(attribute));
        }
        let mut nodes = vec![gemm];
        if before {
            nodes.insert(0, turn("w", "t"));
        }
        let weights = vec![weight("w", &dims), weight("b", &[40])];
        let model = model(13, vec![float_in("x", 96)], vec![float_in("y", 40)], weights, nodes);
        let (result, _) = check(&model, &[("x", &x)], form);
        let expected = (0, 1, usize::from(factors), usize::from(bias));
        let found = ["Gemm", "MatMulNBits"].map(|op| count(&result, op));
        // uint8 scales need one more `Mul`, and so does a scaled bias.
        let extra = usize::from(form.scale_type == ScaleType::Uint8) + usize::from(factors && bias);
        let muls = count(&result, "Mul") - extra;
        assert_eq!((found[0], found[1], muls, count(&result, "Add")), expected, "{number}");
    }
    let transposed = op("Gemm", &["x", "w"], &["y"], &[("transA", 1)]);
    let inputs = vec![value("x", Float32, &[96, -1])];
    let left = model(13, inputs, vec![float_in("y", 40)], vec![weight("w", &[96, 40])], vec![transposed]);
    let (_, report) = quantize(&left, &options(4), &Call::default()).unwrap();
    assert_eq!(report.nodes[0].action, "stored int4");
}

#[test]
fn activations_of_any_rank_are_multiplied() {
    let node = || op("MatMul", &["x", "w"], &["y"], &[]);
    for dims in [vec![96], vec![2, 3, 96], vec![2, 1, 3, 96]] {
        let shape = [&dims[..dims.len() - 1], &[40]].concat();
        let outputs = vec![value("y", Float32, &shape)];
        let model = model(17, vec![value("x", Float32, &dims)], outputs, vec![weight("w", &[96, 40])], vec![node()]);
        for level in LEVELS {
            let options = QuantizeOptions { accuracy_level: level, ..options(4) };
            check(&model, &[("x", &uniform(&dims, 0.5))], &options);
        }
    }
}

fn ids() -> Tensor {
    Tensor::from_i64(&[2, 3], vec![0, 5, 2, 39, 7, 1]).unwrap()
}

#[test]
fn a_table_that_is_also_the_head_is_stored_once() {
    let gather = || op("Gather", &["table", "ids"], &["e"], &[]);
    let table = |width: i64| vec![weight("table", &[40, width])];
    let inputs = || vec![value("ids", Int64, &[2, 3])];
    let outputs = |width| vec![value("e", Float32, &[2, 3, width]), value("logits", Float32, &[2, 3, 40])];
    // 80 is not a multiple of the requested 32; blocks of 16 fit.
    for (width, block) in [(96, 32), (80, 16)] {
        let nodes = vec![gather(), turn("table", "transposed"), op("MatMul", &["e", "transposed"], &["logits"], &[])];
        let tied = model(17, inputs(), outputs(width), table(width), nodes);
        for form in forms() {
            let (result, report) = check(&tied, &[("ids", &ids())], &form);
            assert_eq!((count(&result, "MatMulNBits"), count(&result, "GatherBlockQuantized")), (1, 1));
            let codes = codes_of(&result, "table", form.bits);
            let bytes = i64::from(form.bits) * block / 8;
            match form.scale_type {
                ScaleType::Float32 => assert_eq!(codes.dims, [40, width / block, bytes]),
                _ => assert_eq!(codes.dims, [40, width / block * bytes]),
            }
            let stored: usize = result.graph().initializer.iter().map(|t| t.raw_data.as_ref().unwrap().len()).sum();
            let float = 40 * width as usize * 4;
            assert!((stored as f64) < float as f64 * f64::from(form.bits + 4) / 32.0, "{stored} of {float}");
            assert_eq!(report.nodes.len(), 2);
            assert_eq!(report.nodes[0].reason, report.nodes[1].reason);
        }
    }
    let alone = model(17, inputs(), vec![value("e", Float32, &[2, 3, 96])], table(96), vec![gather()]);
    forms().iter().for_each(|form| drop(check(&alone, &[("ids", &ids())], form)));
    let keep = QuantizeOptions { embeddings: false, ..options(4) };
    assert!(refusal(&alone, &keep).1.contains("embedding tables are kept float by the options"));
    let odd = model(17, inputs(), vec![value("e", Float32, &[2, 3, 40])], table(40), vec![gather()]);
    assert_eq!(quantize(&odd, &options(4), &Call::default()).unwrap().1.nodes[0].action, "stored int8");
    let nodes = vec![gather(), op("ReduceSum", &["table"], &["sum"], &[])];
    let outputs = vec![value("e", Float32, &[2, 3, 96]), value("sum", Float32, &[1, 1])];
    let shared = model(17, inputs(), outputs, table(96), nodes);
    assert!(refusal(&shared, &options(4)).1.contains("needs the table as float"));
}

#[test]
fn half_precision_graphs_stay_half() {
    let dense = vec![op("MatMul", &["x", "w"], &["y"], &[])];
    let mut gemm = op("Gemm", &["x", "w", "b"], &["y"], &[]);
    let alpha = AttributeProto { name: Some("alpha".into()), kind: Some(1), f: Some(0.5), ..Default::default() };
    gemm.attribute.push(alpha);
    let halves: Vec<half::f16> = smooth(4 * 96, 0.1).into_iter().map(half::f16::from_f32).collect();
    let x = Tensor::from_vec(&[4, 96], halves).unwrap();
    for nodes in [dense, vec![gemm]] {
        let (inputs, outputs) = (vec![value("x", Float16, &[-1, 96])], vec![value("y", Float16, &[-1, 40])]);
        let weights = vec![short("w", &[96, 40], Float16), short("b", &[40], Float16)];
        let model = model(17, inputs, outputs, weights, nodes);
        for form in forms() {
            let (result, _) = check(&model, &[("x", &x)], &form);
            assert_eq!(result.outputs()[0].dtype, model.outputs()[0].dtype);
        }
    }
    let gather = op("Gather", &["table", "ids"], &["e"], &[]);
    let (inputs, outputs) = (vec![value("ids", Int64, &[2, 3])], vec![value("e", Float16, &[2, 3, 96])]);
    let table = model(17, inputs, outputs, vec![short("table", &[40, 96], Float16)], vec![gather]);
    forms().iter().for_each(|form| drop(check(&table, &[("ids", &ids())], form)));
}

/// Returns a model of one MatMul whose weight is stored as `stored` and passes through Cast and Transpose, in either
/// order, as in checkpoints.
fn behind_a_cast(stored: DataType, cast_first: bool) -> Model {
    let chain = match cast_first {
        true => [cast("w", "c", Float32), turn("c", "t")],
        false => [turn("w", "c"), cast("c", "t", Float32)],
    };
    let nodes = [&chain[..], &[op("MatMul", &["x", "t"], &["y"], &[])]].concat();
    model(17, vec![float_in("x", 96)], vec![float_in("y", 40)], vec![short("w", &[40, 96], stored)], nodes)
}

#[test]
fn weights_behind_a_cast_are_found_whatever_the_form() {
    let dynamic = QuantizeOptions { min_elements: 1, ..Default::default() };
    for stored in [Float16, Bfloat16] {
        for cast_first in [true, false] {
            let (model, x) = (behind_a_cast(stored, cast_first), uniform(&[4, 96], 0.5));
            for form in forms() {
                let (result, _) = check(&model, &[("x", &x)], &form);
                // The remaining casts convert scales to float.
                let casts = usize::from(form.scale_type != ScaleType::Float32);
                assert_eq!((count(&result, "Cast"), count(&result, "Transpose")), (casts, 0));
            }
            let (result, report) = quantize(&model, &dynamic, &Call::default()).unwrap();
            let found = error(&run(&model, &[("x", &x)]), &run(&result, &[("x", &x)]));
            assert!(found > 0.0 && found < 0.02, "{found}");
            assert!(report.nodes[0].reason.contains("MatMulInteger"), "{}", report.nodes[0].reason);
            // One Cast remains: that of the sums.
            assert_eq!((count(&result, "Cast"), count(&result, "Transpose")), (1, 0));
            assert!(initializers(&result, stored, 2).is_empty());
        }
    }
    // A table and its output layer read the same Cast.
    let nodes = vec![
        cast("table", "c", Float32),
        op("Gather", &["c", "ids"], &["e"], &[]),
        turn("c", "t"),
        op("MatMul", &["e", "t"], &["y"], &[]),
    ];
    let (inputs, outputs) = (vec![value("ids", Int64, &[2, 3])], vec![value("y", Float32, &[2, 3, 40])]);
    let tied = model(17, inputs, outputs, vec![short("table", &[40, 96], Bfloat16)], nodes);
    for form in forms() {
        let (result, _) = check(&tied, &[("ids", &ids())], &form);
        assert!(initializers(&result, Bfloat16, 2).is_empty());
    }
    let (result, _) = quantize(&tied, &dynamic, &Call::default()).unwrap();
    let found = error(&run(&tied, &[("ids", &ids())]), &run(&result, &[("ids", &ids())]));
    assert!(found > 0.0 && found < 0.02, "{found}");
}
