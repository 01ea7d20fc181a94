//! Compares a model with its quantized form.

use super::build::smooth;
use super::{deps, runtime, scratch};
use optimize::calibrate::Calibration;
use optimize::call::Call;
use optimize::error::Result;
use optimize::graph::edit::float_tensor;
use optimize::model::Model;
use optimize::onnx::proto::TensorProto;
use optimize::quantize::{QuantizeOptions, QuantizeType, quantize_with};
use optimize::report::Report;
use optimize::runtime::{OptimizationLevel, Session, SessionOptions, Tensor};

/// Returns options for static quantization of all nodes, on one thread.
pub fn options() -> QuantizeOptions {
    QuantizeOptions { quantize_type: QuantizeType::Static, min_elements: 1, threads: 1, ..QuantizeOptions::default() }
}

/// Returns the outputs of a model.
pub fn run(model: &Model, inputs: &[(String, Tensor)]) -> Vec<Vec<f32>> {
    let session = SessionOptions { threads: 1, ..Default::default() };
    let session = Session::new(runtime(), model, &session, &Call::default()).unwrap();
    let feed: Vec<(&str, &Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let outputs = session.run(&feed, &[], &Call::default()).unwrap();
    outputs.iter().map(|(_, t)| t.to_f32_vec().unwrap()).collect()
}

/// Returns the largest difference of the outputs, relative to the largest output.
pub fn error(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let one = |(a, b): (&Vec<f32>, &Vec<f32>)| {
        assert_eq!(a.len(), b.len());
        let largest = a.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
        a.iter().zip(b).fold(0f32, |m, (x, y)| m.max((x - y).abs())) / largest
    };
    a.iter().zip(b).map(one).fold(0.0, f32::max)
}

/// Returns the result of quantization with tensors as calibration data.
pub fn calibrated(model: &Model, data: &[(String, Tensor)], options: &QuantizeOptions) -> Result<(Model, Report)> {
    quantize_with(runtime(), model, options, Some(&Calibration::Tensors(data)), &Call::default())
}

/// Returns the operators of a graph after ONNX Runtime's own optimization.
pub fn kernels(model: &Model) -> Vec<String> {
    let folder = scratch("kernels");
    let path = folder.join("optimized.onnx");
    let options = SessionOptions {
        threads: 1,
        optimization_level: OptimizationLevel::Extended,
        optimized_model: Some(path.clone()),
        ..Default::default()
    };
    Session::new(runtime(), model, &options, &Call::default()).unwrap();
    Model::load(&path).unwrap().graph().node.iter().map(|n| n.op().to_owned()).collect()
}

/// Returns the number of times that `op` is among the operators.
pub fn count(kernels: &[String], op: &str) -> usize {
    kernels.iter().filter(|k| *k == op).count()
}

/// Returns an input with reproducible values.
pub fn input(name: &str, dims: &[i64]) -> Vec<(String, Tensor)> {
    let values = smooth(dims.iter().product::<i64>() as usize, 0.5);
    vec![(name.to_owned(), Tensor::from_f32(dims, values).unwrap())]
}

/// Returns a float32 constant.
pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    float_tensor(name, dims, values)
}

/// Returns sentences of a file of the Brown corpus, without the tags of the words.
pub fn brown(file: &str, count: usize) -> Vec<String> {
    let sentence = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().map(|token| token.rsplit_once('/').unwrap().0).collect();
        (words.len() > 8).then(|| words.join(" "))
    };
    let text = std::fs::read_to_string(deps("corpus/brown").join(file)).unwrap();
    text.lines().filter_map(sentence).take(count).collect()
}
