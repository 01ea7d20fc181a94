//! Tests of scaling activations into weights: SmoothQuant for int8, AWQ for weights of few bits, and both on a real
//! model.

mod support;

use optimize::calibrate::Calibration;
use optimize::call::Call;
use optimize::error::Result;
use optimize::evaluate::{TextOptions, compare_embeddings};
use optimize::model::Model;
use optimize::onnx::dtype::DataType::Float32;
use optimize::onnx::save::ExternalData;
use optimize::quantize::{Algorithm, QuantizeOptions, QuantizeType, quantize, quantize_with};
use optimize::report::Report;
use optimize::runtime::{SessionOptions, Tensor};
use optimize::text::Tokenizer;
use support::build::*;
use support::quantized::*;
use support::{deps, runtime, scratch};

/// Returns a model whose inputs have channels a hundred times as large as others; `norm` adds a normalization before
/// the weight.
fn spread(norm: bool) -> (Model, Vec<(String, Tensor)>) {
    let gains: Vec<f32> = (0..64).map(|i| if i % 16 == 0 { 100.0 } else { 1.0 }).collect();
    let mut nodes = vec![match norm {
        true => op("LayerNormalization", &["x", "gains", "zeros"], &["n"], &[]),
        false => op("Mul", &["x", "gains"], &["m"], &[]),
    }];
    if !norm {
        // Another node reads the value as well, so nothing can be folded into its producer.
        nodes.push(op("Identity", &["m"], &["n"], &[]));
        nodes.push(op("ReduceMax", &["n"], &["most"], &[]));
    }
    nodes.push(op("MatMul", &["n", "w"], &["y"], &[]));
    let mut w = smooth(64 * 32, 0.3);
    (0..64).filter(|i| i % 16 == 0).for_each(|i| w[i * 32..(i + 1) * 32].iter_mut().for_each(|v| *v *= 0.01));
    let tensors = vec![floats("gains", &[64], &gains), floats("zeros", &[64], &[0.0; 64]), floats("w", &[64, 32], &w)];
    let mut outputs = vec![value("y", Float32, &[-1, 32])];
    if !norm {
        outputs.push(value("most", Float32, &[1, 1]));
    }
    (model(17, vec![value("x", Float32, &[-1, 64])], outputs, tensors, nodes), input("x", &[16, 64]))
}

#[test]
fn smoothing_moves_the_spread_of_activations_into_weights() {
    for norm in [true, false] {
        let (model, data) = spread(norm);
        for quantize_type in [QuantizeType::Static, QuantizeType::Dynamic] {
            let lost = |smooth_quant: f64| {
                let options = QuantizeOptions { smooth_quant, quantize_type, ..options() };
                let result = match (quantize_type, smooth_quant > 0.0) {
                    (QuantizeType::Dynamic, false) => quantize(&model, &options, &Call::default()),
                    _ => calibrated(&model, &data, &options),
                };
                let result = result.unwrap().0;
                // A scaling that is quantized itself would round the activations before it.
                assert!(
                    !result.graph().initializer.iter().any(|t| t.name.as_deref().unwrap().contains("factor_uint8"))
                );
                let multiplications =
                    result.graph().node.iter().filter(|n| n.input.iter().any(|i| i.contains("factor"))).count();
                (error(&run(&model, &data)[..1], &run(&result, &data)[..1]), multiplications)
            };
            let ((rough, _), (smooth, multiplications)) = (lost(0.0), lost(0.5));
            assert!(smooth < 0.5 * rough, "{quantize_type:?}: {smooth}, without {rough}");
            assert_eq!(multiplications, usize::from(!norm), "folded where a normalization comes before");
        }
    }
    let (model, _) = spread(true);
    let options = QuantizeOptions { smooth_quant: 0.5, quantize_type: QuantizeType::Dynamic, ..options() };
    let none = quantize_with(runtime(), &model, &options, None, &Call::default()).err().unwrap();
    assert!(none.message().contains("needs calibration data"), "{none}");
}

#[test]
fn awq_scales_what_matters_and_folds_it_into_the_weight_before() {
    // The model is a gated layer as in language models: up, gate, product, down. Two channels of the product are large.
    let mut up = smooth(32 * 64, 0.2);
    (0..32).for_each(|row| [7, 40].iter().for_each(|c| up[row * 64 + c] *= 40.0));
    let tensors = vec![floats("up", &[32, 64], &up), weight("gate", &[32, 64]), weight("down", &[64, 32])];
    let nodes = vec![
        op("MatMul", &["x", "up"], &["u"], &[]),
        op("MatMul", &["x", "gate"], &["g"], &[]),
        op("Sigmoid", &["g"], &["s"], &[]),
        op("Mul", &["s", "u"], &["h"], &[]),
        op("MatMul", &["h", "down"], &["y"], &[]),
    ];
    let model = model(17, vec![value("x", Float32, &[-1, 32])], vec![value("y", Float32, &[-1, 32])], tensors, nodes);
    let data = input("x", &[64, 32]);
    let options = |algorithm| QuantizeOptions {
        quantize_type: QuantizeType::WeightOnly,
        bits: 4,
        block_size: 32,
        accuracy_level: 1,
        algorithm,
        include: vec!["down".to_owned(), "up".to_owned()],
        ..options()
    };
    let rounded = quantize(&model, &options(Algorithm::Rtn), &Call::default()).unwrap().0;
    let (scaled, _) = calibrated(&model, &data, &options(Algorithm::Awq)).unwrap();
    let square = |other: &Model| -> f32 {
        run(&model, &data)[0].iter().zip(&run(other, &data)[0]).map(|(a, b)| (a - b).powi(2)).sum()
    };
    assert!(square(&scaled) < 0.8 * square(&rounded), "{} {}", square(&scaled), square(&rounded));
    let own = scaled.graph().node.iter().filter(|n| n.input.iter().any(|i| i == "x_factor")).count();
    assert_eq!(own, 1, "x alone needs a node: the product's factors go into the columns of `up`");
    // Quantization fails if required data is missing, or if it would not use the given data.
    let fails = |result: Result<(Model, Report)>| result.err().unwrap().to_string();
    assert!(fails(quantize(&model, &options(Algorithm::Awq), &Call::default())).contains("awq needs calibration data"));
    assert!(
        fails(quantize(&model, &options(Algorithm::Gptq), &Call::default())).contains("gptq needs calibration data")
    );
    assert!(fails(calibrated(&model, &data, &options(Algorithm::Hqq))).contains("hqq uses no calibration data"));
    let symmetric = QuantizeOptions { symmetric: true, ..options(Algorithm::Hqq) };
    assert!(fails(quantize(&model, &symmetric, &Call::default())).contains("zero points"));
    // GPTQ takes tensors as well as texts.
    let (spread, _) = calibrated(&model, &data, &options(Algorithm::Gptq)).unwrap();
    assert!(square(&spread) < square(&rounded), "{} {}", square(&spread), square(&rounded));
    let half = quantize(&model, &options(Algorithm::Hqq), &Call::default()).unwrap().0;
    assert!(square(&half) < 2.0 * square(&rounded));
}

/// A product of one column has no column for each value of a product that it is multiplied by.
#[test]
fn a_gate_of_one_value_has_no_channels() {
    let tensors = vec![weight("gate", &[64, 1]), weight("up", &[64, 64]), weight("down", &[64, 32])];
    let data = input("x", &[64, 64]);
    for order in [["g", "u"], ["u", "g"]] {
        let nodes = vec![
            op("MatMul", &["x", "gate"], &["g"], &[]),
            op("MatMul", &["x", "up"], &["u"], &[]),
            op("Mul", &order, &["h"], &[]),
            op("MatMul", &["h", "down"], &["y"], &[]),
        ];
        let (x, y) = (value("x", Float32, &[-1, 64]), value("y", Float32, &[-1, 32]));
        let model = model(17, vec![x], vec![y], tensors.clone(), nodes);
        let lost = |options: QuantizeOptions| {
            let result = match options.smooth_quant > 0.0 || options.algorithm == Algorithm::Awq {
                true => calibrated(&model, &data, &options),
                false => quantize(&model, &options, &Call::default()),
            };
            error(&run(&model, &data), &run(&result.unwrap().0, &data))
        };
        let dynamic = |smooth_quant| {
            let quantize_type = QuantizeType::Dynamic;
            QuantizeOptions { smooth_quant, quantize_type, ..options() }
        };
        let in_blocks = |algorithm| QuantizeOptions {
            quantize_type: QuantizeType::WeightOnly,
            bits: 4,
            block_size: 32,
            accuracy_level: 1,
            algorithm,
            ..options()
        };
        let (rough, smooth) = (lost(dynamic(0.0)), lost(dynamic(0.5)));
        assert!(smooth < 2.0 * rough, "{order:?}: {smooth}, without {rough}");
        let (rounded, scaled) = (lost(in_blocks(Algorithm::Rtn)), lost(in_blocks(Algorithm::Awq)));
        assert!(scaled < 2.0 * rounded, "{order:?}: {scaled}, without {rounded}");
    }
}

#[test]
fn a_real_encoder_stays_close_and_smoothing_brings_it_closer() {
    let model = Model::load(&deps("models/paraphrase-MiniLM-L3-v2")).unwrap();
    let tokenizer = Tokenizer::of(&model).unwrap().unwrap();
    let text = brown("cb01", 64).join("\n");
    let made = |smooth_quant: f64, quantize_type: QuantizeType| {
        let options = QuantizeOptions { quantize_type, smooth_quant, ..QuantizeOptions::default() };
        let calibration = Calibration::Text { text: &text, tokenizer: &tokenizer, windows: 4, length: 0 };
        quantize_with(runtime(), &model, &options, Some(&calibration), &Call::default()).unwrap()
    };
    let judged = brown("ca01", 40);
    // Smoothing is for ONNX Runtime's kernels, so these are used.
    let execution = SessionOptions::stock().execution;
    let text_options = TextOptions { threads: 1, execution, ..TextOptions::default() };
    let cosine = |other: &Model| {
        compare_embeddings(runtime(), &model, other, &tokenizer, &judged, &text_options, &Call::default())
            .unwrap()
            .cosine
    };
    let ((plain, report), (smooth, _)) = (made(0.0, QuantizeType::Static), made(0.8, QuantizeType::Static));
    let dynamic = quantize(&model, &QuantizeOptions::default(), &Call::default()).unwrap().0;
    let smooth_dynamic = made(0.8, QuantizeType::Dynamic).0;
    let found = [&plain, &smooth, &dynamic, &smooth_dynamic].map(cosine);
    println!("cosine: static {:.5}, smooth {:.5}; dynamic {:.5}, smooth {:.5}", found[0], found[1], found[2], found[3]);
    assert!(found[0] > 0.98 && found[1] > 0.995 && 1.0 - found[1] < 0.5 * (1.0 - found[0]), "{found:?}");
    assert!(1.0 - found[3] < 0.5 * (1.0 - found[2]), "{found:?}");
    assert!(plain.bytes() < model.bytes() * 3 / 10);
    let products = report.nodes.iter().filter(|n| n.op == "MatMul" && n.action == "quantized").count();
    let kernels = kernels(&plain);
    assert_eq!(count(&kernels, "MatMulIntegerToFloat") + count(&kernels, "QLinearMatMul"), products);
    // The saved and loaded model gives the same outputs.
    let folder = scratch("static");
    let path = folder.join("model.onnx");
    plain.save(&path, ExternalData::Auto, &Call::default()).unwrap();
    assert_eq!(cosine(&Model::load(&path).unwrap()), found[0]);
}
