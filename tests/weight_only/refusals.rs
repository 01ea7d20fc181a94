//! Tests of weights that stay unchanged, and of rejected options, with the reason.

use super::*;

#[test]
fn activations_that_are_bfloat16_have_no_blocks() {
    let node = op("MatMul", &["x", "w"], &["y"], &[]);
    let (inputs, outputs) = (vec![value("x", Bfloat16, &[-1, 96])], vec![value("y", Bfloat16, &[-1, 40])]);
    let model = model(17, inputs, outputs, vec![short("w", &[96, 40], Bfloat16)], vec![node]);
    let (result, report) = quantize(&model, &options(4), &Call::default()).unwrap();
    assert_eq!((report.nodes[0].action, count(&result, "MatMulNBits")), ("stored int4", 0));
}

#[test]
fn weights_too_large_for_a_scale_are_left() {
    for (scale_type, large, action) in [
        (ScaleType::Float16, 1e5, "quantized"),
        (ScaleType::Float16, 1e7, "left"),
        (ScaleType::Uint8, 1e29, "quantized"),
        (ScaleType::Uint8, 3e38, "left"),
        (ScaleType::Float32, 3e38, "left"),
    ] {
        for form in forms().iter().filter(|form| form.scale_type == scale_type) {
            let values: Vec<f32> = smooth(96 * 40, 1.0).iter().map(|v| v * large).collect();
            let small: Vec<f32> = smooth(3 * 96, 0.5).iter().map(|v| v / large).collect();
            let nodes = vec![op("MatMul", &["x", "large"], &["a"], &[]), op("MatMul", &["x", "w"], &["b"], &[])];
            let weights = vec![float_tensor("large", &[96, 40], &values), weight("w", &[96, 40])];
            let outputs = vec![float_in("a", 40)];
            let model = model(17, vec![float_in("x", 96)], outputs, weights, nodes);
            let (result, report) = quantize(&model, form, &Call::default()).unwrap();
            assert_eq!(report.nodes[0].action, action, "{form:?}");
            let x = Tensor::from_f32(&[3, 96], small).unwrap();
            let found = error(&run(&model, &[("x", &x)]), &run(&result, &[("x", &x)]));
            assert!(found < bound(form), "{found} with {form:?}");
        }
    }
}

#[test]
fn weights_that_are_not_finite_are_left() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut values = smooth(96 * 40, 1.0);
        values[77] = bad;
        let nodes = vec![op("MatMul", &["x", "bad"], &["a"], &[]), op("MatMul", &["x", "w"], &["b"], &[])];
        let weights = vec![float_tensor("bad", &[96, 40], &values), weight("w", &[96, 40])];
        let model = model(17, vec![float_in("x", 96)], vec![float_in("a", 40), float_in("b", 40)], weights, nodes);
        let (result, report) = quantize(&model, &options(4), &Call::default()).unwrap();
        assert_eq!((report.nodes[0].action, report.nodes[1].action), ("left", "quantized"));
        assert!(report.nodes[0].reason.contains("not finite"), "{}", report.nodes[0].reason);
        assert_eq!((count(&result, "MatMul"), count(&result, "MatMulNBits")), (1, 1));
        run(&result, &[("x", &uniform(&[2, 96], 0.5))]);
    }
}

#[test]
fn extreme_values_stay_finite() {
    // The columns are all zero, tiny, a single value, and large: one output of each.
    let row = |column: usize, k: usize| match column {
        0 => 0.0,
        1 => 1e-30 * (k as f32 - 48.0),
        2 if k == 50 => 1.0,
        2 => 0.0,
        _ => 1e5 * (k as f32 * 0.7).sin(),
    };
    let values: Vec<f32> = (0..96 * 4).map(|i| row(i % 4, i / 4)).collect();
    let node = op("MatMul", &["x", "w"], &["y"], &[]);
    let weights = vec![float_tensor("w", &[96, 4], &values)];
    let model = model(17, vec![float_in("x", 96)], vec![float_in("y", 4)], weights, vec![node]);
    forms().iter().for_each(|form| drop(check(&model, &[("x", &uniform(&[3, 96], 0.5))], form)));
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let model = product(96, 40);
    let with = |change: &dyn Fn(&mut QuantizeOptions)| {
        let mut options = options(4);
        change(&mut options);
        refusal(&model, &options)
    };
    for bits in [0, 1, 3, 5, 7, 9, 16, 32, u32::MAX] {
        let (kind, message) = with(&|o| o.bits = bits);
        assert_eq!(kind, Kind::InvalidArgument);
        assert!(message.contains(&format!("bits is {bits};")) && message.contains("2, 4 or 8"), "{message}");
    }
    for block_size in [1, 8, 17, 48, 100, 512, usize::MAX] {
        let (kind, message) = with(&|o| o.block_size = block_size);
        assert_eq!(kind, Kind::InvalidArgument);
        assert!(message.contains(&format!("block_size is {block_size},")), "{message}");
    }
    for level in [5, u32::MAX] {
        let (kind, message) = with(&|o| o.accuracy_level = level);
        assert_eq!(kind, Kind::InvalidArgument);
        assert!(message.contains(&format!("accuracy_level is {level};")), "{message}");
    }
    assert!(with(&|o| o.threads = 100_000).1.contains("threads"));
    // Dynamic quantization supports only 8 bits, and none of the options of blocks.
    let dynamic = |bits| QuantizeOptions { quantize_type: QuantizeType::Dynamic, ..options(bits) };
    let (kind, message) = refusal(&model, &dynamic(4));
    assert_eq!(kind, Kind::InvalidArgument);
    assert!(message.contains("bits is 4;") && message.contains("weight-only"), "{message}");
    quantize(&model, &dynamic(8), &Call::default()).unwrap();
    type Change = fn(&mut QuantizeOptions);
    let changes: [(&str, Change); 6] = [
        ("block_size", |o| o.block_size = 64),
        ("symmetric", |o| o.symmetric = true),
        ("overrides", |o| o.overrides = vec!["*=8".parse().unwrap()]),
        ("scale_type", |o| o.scale_type = ScaleType::Float16),
        ("accuracy_level", |o| o.accuracy_level = 1),
        ("algorithm", |o| o.algorithm = Algorithm::Rtn),
    ];
    for (name, change) in changes {
        for quantize_type in [QuantizeType::Dynamic, QuantizeType::Static] {
            let mut options = QuantizeOptions { quantize_type, ..dynamic(8) };
            change(&mut options);
            let (kind, message) = refusal(&model, &options);
            assert_eq!(
                (kind, message),
                (Kind::InvalidArgument, format!("{name} applies only to weight-only quantization"))
            );
        }
    }
    let none = QuantizeOptions { min_elements: 100_000, ..options(4) };
    assert!(refusal(&model, &none).1.contains("the weight has only 3840 elements"));
}

#[test]
fn options_without_effect_are_refused() {
    let model = product(96, 40);
    let refused = |options: QuantizeOptions, message: &str| {
        assert_eq!(refusal(&model, &options), (Kind::InvalidArgument, message.to_owned()));
    };
    let message = "reduce_range applies only to dynamic and static quantization, not to the type weight-only";
    for reduce_range in [ReduceRange::On, ReduceRange::Off] {
        refused(QuantizeOptions { reduce_range, ..options(4) }, message);
    }
    let message = "percentile applies only to the calibration_method percentile";
    for quantize_type in [QuantizeType::Dynamic, QuantizeType::Static] {
        refused(QuantizeOptions { quantize_type, percentile: 99.9, ..Default::default() }, message);
    }
    refused(QuantizeOptions { percentile: 99.9, ..options(4) }, message);
    let (method, quantize_type) = (CalibrationMethod::Mse, QuantizeType::Static);
    let other = QuantizeOptions { quantize_type, calibration_method: method, percentile: 99.9, ..Default::default() };
    refused(other, message);
    let message = "calibration_method applies only to static quantization";
    refused(QuantizeOptions { calibration_method: CalibrationMethod::Percentile, ..options(4) }, message);
    // With the method percentile, only the data is missing.
    let fits = QuantizeOptions {
        quantize_type,
        calibration_method: CalibrationMethod::Percentile,
        percentile: 99.9,
        reduce_range: ReduceRange::On,
        ..Default::default()
    };
    assert!(refusal(&model, &fits).1.contains("needs calibration data"));
    let message = "smooth_quant applies only to int8 activations; use the algorithm awq for weight-only quantization";
    refused(QuantizeOptions { smooth_quant: 0.5, ..options(4) }, message);
    let sized = QuantizeOptions { quantize_type, target_size: 1000, ..Default::default() };
    assert!(refusal(&model, &sized).1.starts_with("target_size applies only to dynamic and weight-only quantization"));
}

#[test]
fn what_is_in_blocks_already_is_not_quantized_again() {
    let (result, _) = quantize(&product(96, 40), &options(4), &Call::default()).unwrap();
    for options in [options(4), options(8), QuantizeOptions { min_elements: 1, ..Default::default() }] {
        let (kind, message) = refusal(&result, &options);
        assert_eq!(kind, Kind::Unsupported);
        assert!(message.contains("no node could be quantized") && message.contains("already"), "{message}");
    }
}
