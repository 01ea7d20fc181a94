//! Tests of data from a file in place of generated inputs.

use super::*;

#[test]
fn data_in_a_file_are_what_models_are_compared_on() {
    let folder = scratch("inputs-file");
    let of = |name: &str, values: &[f32]| {
        let nodes = vec![op("Mul", &["x", "w"], &["y"], &[])];
        saved(&model(&[("x", "b 2")], nodes, vec![float_tensor("w", &[2], values)]), &folder.join(name))
    };
    let (a, b) = (of("a.onnx", &[1.0, 1.0]), of("b.onnx", &[1.0, -1.0]));
    let data = folder.join("x.safetensors");
    let header = r#"{"x":{"dtype":"F32","shape":[3,2],"data_offsets":[0,24]}}"#;
    let values: Vec<u8> = [1f32, 0.0, 2.0, 0.0, 3.0, 0.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &values].concat();
    std::fs::write(&data, file).unwrap();
    let data = data.display().to_string();
    let (code, printed, said) =
        optimize(&["benchmark", "--model", &a, "--against", &b, "--inputs", &data, "--runs", "3", "--min-cosine", "1"]);
    assert!(code == Some(0) && printed.contains("Timed on x 1x2 (given); quality on 3 samples."), "{printed}{said}");
    let (code, printed, said) = optimize(&["evaluate", "--model", &a, "--against", &b, "--data", &data]);
    assert!(code == Some(0) && printed.contains("1.00000"), "{printed}{said}");
    assert_eq!(optimize(&["benchmark", "--model", &a, "--against", &b, "--runs", "3", "--min-cosine", "1"]).0, Some(3));
    let (code, printed, said) = optimize(&["run", "--model", &a, "--inputs", &data]);
    assert!(code == Some(0) && printed.contains("1.00000 0.00000"), "{printed}{said}");
    assert_eq!(optimize(&["evaluate", "--model", &a, "--data", &data]).0, Some(2));
}
