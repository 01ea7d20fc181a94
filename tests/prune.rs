//! Tests of pruning: exact counts, the right weights and modules, and errors for invalid options.

#[path = "prune/calibrated.rs"]
mod calibrated;
#[path = "prune/packed.rs"]
mod packed;
mod support;
#[path = "prune/targets.rs"]
mod targets;

use optimize::call::Call;
use optimize::error::Kind;
use optimize::graph::edit::{float_tensor, tensor};
use optimize::model::Model;
use optimize::onnx::dtype::DataType::{self, Bfloat16, Float16, Float32};
use optimize::onnx::proto::*;
use optimize::prune::{Importance, PruneMethod, PruneOptions, prune};
use optimize::quantize::{QuantizeOptions, quantize};
use optimize::report::Report;
use support::build::*;

fn options(method: PruneMethod, sparsity: f64) -> PruneOptions {
    PruneOptions { method, sparsity, min_elements: 1, ..PruneOptions::default() }
}

fn magnitude(sparsity: f64) -> PruneOptions {
    options(PruneMethod::Magnitude, sparsity)
}

fn pruned(model: &Model, options: &PruneOptions) -> (Model, Report) {
    prune(model, options, &Call::default()).unwrap()
}

fn refused(model: &Model, options: &PruneOptions) -> optimize::error::Error {
    prune(model, options, &Call::default()).err().expect("it is refused")
}

/// Returns the values of an initializer of any type.
fn values(model: &Model, name: &str) -> Vec<f32> {
    let tensor = model.graph().initializer.iter().find(|t| t.name.as_deref() == Some(name)).unwrap();
    numbers(tensor)
}

fn numbers(tensor: &TensorProto) -> Vec<f32> {
    let raw = tensor.raw_data.as_ref().unwrap();
    let pairs = || raw.chunks_exact(2).map(|b| [b[0], b[1]]);
    match DataType::from_onnx(tensor.data_type.unwrap()).unwrap() {
        Float16 => pairs().map(|b| half::f16::from_le_bytes(b).to_f32()).collect(),
        Bfloat16 => pairs().map(|b| half::bf16::from_le_bytes(b).to_f32()).collect(),
        Float32 => raw.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        other => panic!("{other:?}"),
    }
}

fn zeros(values: &[f32]) -> usize {
    values.iter().filter(|v| **v == 0.0).count()
}

/// Returns `y = x w` with this weight, of any type.
fn product(weight: TensorProto) -> Model {
    let dtype = DataType::from_onnx(weight.data_type.unwrap()).unwrap();
    let (k, n) = (weight.dims[0], weight.dims[1]);
    let name = weight.name.clone().unwrap();
    let input = vec![value("x", dtype, &[-1, k])];
    model(17, input, vec![value("y", dtype, &[-1, n])], vec![weight], vec![op("MatMul", &["x", &name], &["y"], &[])])
}

/// Returns a weight of this type without zeros.
fn weight_of(dtype: DataType, dims: &[i64]) -> TensorProto {
    let values = smooth(dims.iter().product::<i64>() as usize, 1.0);
    let values: Vec<f32> = values.into_iter().map(|v| if v == 0.0 { 0.5 } else { v }).collect();
    let raw: Vec<u8> = match dtype {
        Float16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
        Bfloat16 => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    };
    tensor("w", dtype, dims, raw.into())
}

#[test]
fn counts_are_exact_and_what_stays_stays_bit_by_bit() {
    for dtype in [Float32, Float16, Bfloat16] {
        let model = product(weight_of(dtype, &[61, 37]));
        let before = values(&model, "w");
        for method in [PruneMethod::Magnitude, PruneMethod::Random] {
            for sparsity in [0.001, 0.1, 0.3, 1.0 / 3.0, 0.5, 0.9, 0.999] {
                let (result, report) = pruned(&model, &options(method, sparsity));
                let after = values(&result, "w");
                let wanted = (sparsity * before.len() as f64).round() as usize;
                assert_eq!(zeros(&after), wanted, "{dtype:?} {method:?} {sparsity}");
                assert_eq!(report.summary["zeros_after"], wanted, "{dtype:?} {method:?} {sparsity}");
                let kept = before.iter().zip(&after).filter(|(_, after)| **after != 0.0);
                assert!(kept.clone().all(|(before, after)| before.to_bits() == after.to_bits()));
                if method == PruneMethod::Magnitude {
                    let least = kept.fold(f32::MAX, |least, (v, _)| least.min(v.abs()));
                    let gone = before.iter().zip(&after).filter(|(_, after)| **after == 0.0);
                    assert!(gone.fold(0f32, |most, (v, _)| most.max(v.abs())) <= least);
                }
            }
        }
    }
}

#[test]
fn of_equal_weights_the_first_go() {
    let mut w = vec![0.5f32; 600_000];
    w[3] = -0.25;
    w[599_999] = 0.25;
    let model = product(float_tensor("w", &[1000, 600], &w));
    let after = values(&pruned(&model, &magnitude(0.5)).0, "w");
    assert_eq!(zeros(&after), 300_000);
    assert!(after[599_999] == 0.0 && after[..299_999].iter().all(|v| *v == 0.0) && after[299_999] == 0.5, "by index");
    // One thread gives the same result as two.
    for threads in [1, 2] {
        assert_eq!(values(&pruned(&model, &PruneOptions { threads, ..magnitude(0.5) }).0, "w"), after);
    }
}

#[test]
fn one_threshold_for_all_takes_more_where_weights_are_small() {
    let small: Vec<f32> = smooth(1024, 3.0).iter().map(|v| v * 0.1).collect();
    let tensors = vec![weight("large", &[32, 32]), float_tensor("small", &[32, 32], &small), weight("own", &[32, 32])];
    let nodes = [("x", "large", "a"), ("a", "small", "b"), ("b", "own", "y")];
    let nodes = nodes.map(|(x, w, y)| op("MatMul", &[x, w], &[y], &[])).to_vec();
    let model = model(17, vec![value("x", Float32, &[-1, 32])], vec![value("y", Float32, &[-1, 32])], tensors, nodes);
    let overrides = vec!["own=0.25".parse().unwrap()];
    let options = PruneOptions { global: true, overrides, ..magnitude(0.5) };
    let (result, report) = pruned(&model, &options);
    let count = |name: &str| zeros(&values(&result, name));
    assert_eq!((count("large") + count("small"), count("own")), (1024, 256));
    assert!(count("small") > 900, "{}", count("small"));
    let largest_gone = |name: &str| {
        let (before, after) = (values(&model, name), values(&result, name));
        before.iter().zip(after).filter(|(_, after)| *after == 0.0).fold(0f32, |m, (v, _)| m.max(v.abs()))
    };
    let least_kept = |name: &str| values(&result, name).iter().filter(|v| **v != 0.0).fold(9f32, |m, v| m.min(v.abs()));
    assert!(largest_gone("large") <= least_kept("small") && largest_gone("small") <= least_kept("large"));
    assert_eq!(report.summary["modules"]["own"]["sparsity_asked"], 0.25);
    assert!(report.nodes.iter().any(|n| n.reason.contains("global threshold")), "{:?}", report.nodes);
}

#[test]
fn random_choices_depend_on_the_seed_alone() {
    let model = product(weight_of(Float32, &[64, 64]));
    let places = |seed: u64| -> Vec<usize> {
        let options = PruneOptions { seed, ..options(PruneMethod::Random, 0.25) };
        let after = values(&pruned(&model, &options).0, "w");
        (0..after.len()).filter(|i| after[*i] == 0.0).collect()
    };
    // The expected indices were computed in Python with splitmix64 and FNV-1a: they are the same on every platform.
    assert_eq!(
        places(7)[..12],
        [6, 11, 16, 31, 33, 39, 44, 48, 60, 72, 80, 85],
        "a seed gives other weights than before"
    );
    assert_eq!(places(7), places(7));
    let (a, b) = (places(7), places(8));
    let common = a.iter().filter(|i| b.contains(i)).count();
    assert!((160..360).contains(&common), "{common} of 1024 in common, of 256 expected");
    // Every row and every column is pruned.
    for i in 0..64 {
        assert!(a.iter().any(|p| p / 64 == i) && a.iter().any(|p| p % 64 == i));
    }
}

/// Returns a `MatMul`, a transposed `Gemm` and a `Conv`, whose inputs are the rows, the columns and the channels.
fn three_layouts() -> Model {
    let tensors = vec![weight("rows", &[18, 16]), weight("columns", &[8, 16]), weight("taps", &[5, 10, 3, 3])];
    let nodes = vec![
        op("MatMul", &["x", "rows"], &["a"], &[]),
        op("Gemm", &["a", "columns"], &["y"], &[("transB", 1)]),
        op("Conv", &["image", "taps"], &["z"], &[]),
    ];
    let inputs = vec![value("x", Float32, &[-1, 18]), value("image", Float32, &[1, 10, 8, 8])];
    let outputs = vec![value("y", Float32, &[-1, 8]), value("z", Float32, &[1, 5, 6, 6])];
    model(17, inputs, outputs, tensors, nodes)
}

/// Returns the weights of each output, in the order of its inputs and in groups of `of`. The weight of output `(o, i)`
/// for input `k` is at index `(o inputs + k) inner + i` of `values`.
fn groups(values: &[f32], outer: usize, inputs: usize, inner: usize, of: usize) -> Vec<Vec<f32>> {
    let mut found = Vec::new();
    for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
        let row: Vec<f32> = (0..inputs).map(|k| values[(o * inputs + k) * inner + i]).collect();
        found.extend(row.chunks(of).map(<[f32]>::to_vec));
    }
    found
}

#[test]
fn patterns_hold_along_the_inputs_of_each_output() {
    let model = three_layouts();
    for (text, keep, of) in [("2:4", 2, 4), ("1:4", 1, 4), ("4:8", 4, 8), ("3:5", 3, 5)] {
        for method in [PruneMethod::Magnitude, PruneMethod::Random] {
            let pattern = Some(text.parse().unwrap());
            let (result, _) = pruned(&model, &PruneOptions { pattern, ..options(method, 0.5) });
            for (name, outer, inputs, inner) in [("rows", 1, 18, 16), ("columns", 8, 16, 1), ("taps", 5, 10, 9)] {
                let before = groups(&values(&model, name), outer, inputs, inner, of);
                let after = groups(&values(&result, name), outer, inputs, inner, of);
                for (before, after) in before.iter().zip(&after) {
                    // At most this many values remain in a row.
                    let stay = keep.min(before.len());
                    assert_eq!(after.len() - zeros(after), stay, "{text} {name} {method:?}");
                    if method == PruneMethod::Magnitude {
                        let mut sizes: Vec<f32> = before.iter().map(|v| v.abs()).collect();
                        sizes.sort_by(f32::total_cmp);
                        let least = sizes[before.len() - stay];
                        assert!(after.iter().all(|v| *v == 0.0 || v.abs() >= least), "{text} {name}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason() {
    let model = product(weight_of(Float32, &[64, 64]));
    let base = magnitude(0.5);
    let pattern = Some("2:4".parse().unwrap());
    let cases: Vec<(PruneOptions, &str)> = vec![
        (magnitude(0.0), "sparsity is 0, which prunes nothing"),
        (magnitude(1.0), "sparsity is 1, which leaves nothing"),
        (magnitude(-0.3), "sparsity is -0.3"),
        (magnitude(1.5), "sparsity is 1.5"),
        (magnitude(f64::NAN), "sparsity is NaN"),
        (magnitude(f64::INFINITY), "sparsity is inf"),
        (PruneOptions { pattern, ..magnitude(0.3) }, "has a sparsity of 0.5, not 0.3"),
        (PruneOptions { pattern, global: true, ..base.clone() }, "global threshold"),
        (PruneOptions { global: true, ..options(PruneMethod::Wanda, 0.5) }, "no global threshold"),
        (options(PruneMethod::SparseGpt, 0.5), "sparsegpt needs a calibration text"),
        (PruneOptions { overrides: vec!["w=1".parse().unwrap()], ..base.clone() }, "not from 0 to below 1"),
        (PruneOptions { importance: Importance::L2, ..base.clone() }, "structured"),
        (PruneOptions { threads: 1 << 20, ..base.clone() }, "threads"),
        (PruneOptions { target_modules: vec!["[a".into()], ..base.clone() }, "[a"),
    ];
    for (options, part) in cases {
        let error = refused(&model, &options);
        assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
        assert!(error.to_string().contains(part), "{error} has no {part}");
    }
    for bad in ["", "4", "0:4", "4:4", "5:4", "2:4:8", "2:1000", "a:b"] {
        assert!(bad.parse::<optimize::prune::Pattern>().is_err(), "{bad:?}");
    }
    for bad in ["", "=0.5", "a", "a=x"] {
        assert!(bad.parse::<optimize::prune::SparsityOverride>().is_err(), "{bad:?}");
    }
}

#[test]
fn what_is_pruned_or_quantized_already_is_said() {
    let model = product(weight_of(Float32, &[64, 64]));
    let (half, _) = pruned(&model, &magnitude(0.5));
    for options in [magnitude(0.3), magnitude(0.5), options(PruneMethod::Random, 0.4)] {
        let error = refused(&half, &options);
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.to_string().contains("1 MatMul (already has as many zeros as requested)"), "{error}");
    }
    // Pruning further is possible, and the zeros stay zeros.
    for method in [PruneMethod::Magnitude, PruneMethod::Random] {
        let (more, report) = pruned(&half, &options(method, 0.75));
        let (before, after) = (values(&half, "w"), values(&more, "w"));
        assert_eq!(zeros(&after), 3072);
        assert!(before.iter().zip(&after).all(|(before, after)| *before != 0.0 || *after == 0.0));
        assert_eq!((&report.summary["zeros_before"], &report.summary["zeros_after"]), (&2048.into(), &3072.into()));
        assert!(report.nodes[0].reason.contains("75.0 % are zero (3072 of 4096), 75.0 % requested, 50.0 % before"));
    }
    let (int8, _) =
        quantize(&model, &QuantizeOptions { min_elements: 1, ..Default::default() }, &Call::default()).unwrap();
    let error = refused(&int8, &magnitude(0.5));
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.to_string().contains("is already quantized"), "{error}");
}

#[test]
fn zeros_stay_zeros_when_the_result_is_quantized() {
    let model = Model::load(&support::deps("models/paraphrase-MiniLM-L3-v2")).unwrap();
    let (sparse, report) =
        prune(&model, &PruneOptions { sparsity: 0.5, ..Default::default() }, &Call::default()).unwrap();
    assert_eq!(report.summary["nodes_pruned"], 18);
    let (int8, _) = quantize(&sparse, &QuantizeOptions::default(), &Call::default()).unwrap();
    let mut compared = 0;
    for tensor in &sparse.graph().initializer {
        let name = tensor.name.as_deref().unwrap_or("");
        let small = int8.graph().initializer.iter().find(|t| {
            t.data_type == Some(DataType::Int8.to_onnx())
                && t.name.as_deref().is_some_and(|n| n.starts_with(&format!("{name}_")))
        });
        let Some(small) = small.filter(|small| small.dims == tensor.dims) else { continue };
        let before = numbers(tensor);
        let codes = small.raw_data.as_ref().unwrap();
        assert!(before.iter().zip(codes.iter()).all(|(before, code)| *before != 0.0 || *code == 0), "{name}");
        compared += usize::from(zeros(&before) * 2 >= before.len());
    }
    assert_eq!(compared, 18);
}

#[test]
fn the_report_says_what_a_plain_file_does_with_zeros() {
    let model = Model::load(&support::deps("models/paraphrase-MiniLM-L3-v2")).unwrap();
    let (result, report) = pruned(&model, &magnitude(0.3));
    let summary = &report.summary;
    assert!(summary["note"].as_str().unwrap().contains("neither smaller nor faster"));
    assert_eq!(summary["bytes_before"], model.bytes());
    assert!(result.bytes().abs_diff(model.bytes()) < 10_000);
    let of_modules =
        |key: &str| summary["modules"].as_object().unwrap().values().map(|m| m[key].as_u64().unwrap()).sum::<u64>();
    for key in ["zeros_before", "zeros_after"] {
        assert_eq!(summary[key], of_modules(key));
    }
    assert_eq!(summary["parameters_pruned"], of_modules("parameters"));
    assert_eq!(summary["sparsity"], 0.3);
    assert_eq!(summary["nodes_pruned"], report.nodes.iter().filter(|n| n.action == "pruned").count());
}
