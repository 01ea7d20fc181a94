//! Tests that sample inputs suit the model when goals are measured, and that goals which cannot be met are reported.

use super::*;
use optimize::calibrate::Calibration;
use optimize::error::Kind;
use optimize::quantize::quantize_with;

/// Returns a model that accepts only rows of multiples of 16 samples.
fn frames() -> Model {
    let nodes = vec![
        node("Reshape", &["samples", "shape"], &["frames"]),
        node("MatMul", &["frames", "w"], &["h"]),
        node("MatMul", &["h", "v"], &["y"]),
    ];
    let shape: Vec<u8> = [-1i64, 16].iter().flat_map(|v| v.to_le_bytes()).collect();
    let shape = optimize::graph::edit::tensor("shape", Int64, &[2], shape.into());
    let (inputs, outputs) = (vec![value("samples", Float32, &[1, -1])], vec![value("y", Float32, &[-1, 16])]);
    model(17, inputs, outputs, vec![shape, weight("w", &[16, 256]), weight("v", &[256, 16])], nodes)
}

#[test]
fn shapes_and_values_reach_what_is_measured() {
    let model = frames();
    let shapes = [("samples".to_owned(), vec![1i64, 64])];
    let odd = [("samples".to_owned(), vec![1i64, 63])];
    let measured = [
        QuantizeOptions { never_slower: true, ..dynamic() },
        QuantizeOptions { max_quality_loss: 0.1, ..dynamic() },
        QuantizeOptions { target_size: model.bytes() * 2 / 3, ..in_blocks(8) },
    ];
    for options in measured {
        let made = |shapes: &[(String, Vec<i64>)]| {
            let generated = Calibration::Generated { shapes, values: &[] };
            quantize_with(runtime(), &model, &options, Some(&generated), &Call::default())
        };
        let refused = made(&odd).err().expect("63 samples are no frames");
        assert!(refused.message().contains("`shapes`"), "{refused}");
        match made(&shapes) {
            Ok(_) => {}
            // Whether int8 is faster depends on the machine.
            Err(e) => assert!(e.kind() == Kind::GateNotMet && options.never_slower, "{e}"),
        }
    }
}

#[test]
fn a_race_takes_calibration_data() {
    let model = frames();
    let data = [("samples".to_owned(), rows(&[4, 1, 64], 0.5))];
    for options in [dynamic(), QuantizeOptions { algorithm: Algorithm::Rtn, ..in_blocks(4) }] {
        let options = QuantizeOptions { never_slower: true, ..options };
        match quantize_with(runtime(), &model, &options, Some(&Calibration::Tensors(&data)), &Call::default()) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), Kind::GateNotMet, "{e}"),
        }
    }
}

#[test]
fn a_size_that_is_too_small_is_told_the_smallest() {
    let original = product(64, 64, &smooth(4096, 1.0));
    let asked = |target_size| {
        let options = QuantizeOptions { target_size, ..in_blocks(4) };
        quantize_with(runtime(), &original, &options, None, &Call::default())
    };
    let message = asked(100).err().unwrap().message().to_owned();
    let smallest: u64 = message.rsplit(' ').next().unwrap().parse().unwrap();
    assert_eq!(
        message,
        format!("target_size is 100 bytes, but the smallest result with 4 bits or more has {smallest}")
    );
    let (result, _) = asked(smallest).unwrap();
    assert_eq!(result.bytes(), smallest);
    assert!(asked(smallest - 1).is_err());
}
