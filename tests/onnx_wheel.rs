//! Every model test of the `onnx` wheel with data (82 converted from PyTorch, 35 operators, 23 simple), and
//! silero-vad: loaded, saved, loaded again and run, the outputs are bit-equal; quantized, the graph is valid and the
//! outputs keep their types and shapes.

mod support;

use optimize::calibrate::Calibration;
use optimize::call::Call;
use optimize::error::Kind;
use optimize::model::Model;
use optimize::onnx::dtype::DataType;
use optimize::onnx::proto::TensorProto;
use optimize::onnx::save::ExternalData;
use optimize::onnx::wire::Reader;
use optimize::quantize::{QuantizeOptions, QuantizeType, quantize, quantize_with};
use optimize::runtime::{Session, SessionOptions, Tensor};
use std::path::{Path, PathBuf};
use support::{deps, runtime, scratch};

/// Reasons for which ONNX Runtime 1.32 rejects some of these models in their original form: opsets of 2017 without a
/// kernel, an operator of the training preview, a locale that this machine may not have.
const REFUSALS: [&str; 3] = [
    "Could not find an implementation for",
    "Gradient(-1) is not a registered function/op",
    "Failed to construct locale",
];

fn tensor_from(proto: &TensorProto) -> Tensor {
    let dtype = DataType::from_onnx(proto.data_type.unwrap()).unwrap();
    if dtype == DataType::String {
        let strings = proto.string_data.iter().map(|s| String::from_utf8(s.to_vec()).unwrap()).collect();
        return Tensor::from_strings(&proto.dims, strings).unwrap();
    }
    let bytes: Vec<u8> = match &proto.raw_data {
        Some(raw) => raw.to_vec(),
        None => match dtype {
            DataType::Float32 => proto.float_data.0.iter().flat_map(|v| v.to_le_bytes()).collect(),
            DataType::Int64 => proto.int64_data.0.iter().flat_map(|v| v.to_le_bytes()).collect(),
            DataType::Int32 => proto.int32_data.0.iter().flat_map(|v| v.to_le_bytes()).collect(),
            other => panic!("typed data of {}", other.name()),
        },
    };
    Tensor::new(dtype, &proto.dims, bytes.into()).unwrap()
}

fn inputs(folder: &Path, model: &Model) -> Option<Vec<(String, Tensor)>> {
    let names = model.inputs();
    if names.iter().any(|info| info.dtype.is_none()) {
        return None;
    }
    let one = |(index, info): (usize, &optimize::model::ValueInfo)| {
        let content = std::fs::read(folder.join(format!("test_data_set_0/input_{index}.pb"))).unwrap();
        let proto: TensorProto = Reader::new(content.into()).read_message().unwrap();
        (info.name.clone(), tensor_from(&proto))
    };
    Some(names.iter().enumerate().map(one).collect())
}

fn run(model: &Model, inputs: &[(String, Tensor)]) -> optimize::error::Result<Vec<(String, Tensor)>> {
    let options = SessionOptions { threads: 1, ..Default::default() };
    let session = Session::new(runtime(), model, &options, &Call::default())?;
    let feed: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    session.run(&feed, &[], &Call::default())
}

fn same(a: &[(String, Tensor)], b: &[(String, Tensor)]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|((an, at), (bn, bt))| {
            an == bn && at.shape() == bt.shape() && at.bytes() == bt.bytes() && at.strings() == bt.strings()
        })
}

fn wheel_models() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for group in ["pytorch-converted", "pytorch-operator", "simple"] {
        let group = deps("onnx-tests").join(group);
        folders.extend(std::fs::read_dir(group).unwrap().flatten().map(|e| e.path()));
    }
    folders.retain(|f| f.join("model.onnx").is_file());
    folders.sort();
    folders
}

fn round_trip(file: &Path, scratch: &Path) -> (Model, Model) {
    let original = Model::load(file).unwrap();
    let saved = scratch.join("saved.onnx");
    original.save(&saved, ExternalData::Auto, &Call::default()).unwrap();
    let again = Model::load(&saved).unwrap();
    assert_eq!(original.proto(), again.proto(), "{}", file.display());
    (original, again)
}

/// Types of quantization with their bits.
const FORMS: [(QuantizeType, u32); 4] = [
    (QuantizeType::Dynamic, 8),
    (QuantizeType::WeightOnly, 4),
    (QuantizeType::WeightOnly, 8),
    (QuantizeType::Static, 8),
];

fn quantized(
    model: &Model,
    (quantize_type, bits): (QuantizeType, u32),
    inputs: &[(String, Tensor)],
) -> optimize::error::Result<Model> {
    let options = QuantizeOptions { quantize_type, bits, min_elements: 1, ..Default::default() };
    if quantize_type != QuantizeType::Static {
        return quantize(model, &options, &Call::default()).map(|(result, _)| result);
    }
    let data = Calibration::Tensors(inputs);
    quantize_with(runtime(), model, &options, Some(&data), &Call::default()).map(|(result, _)| result)
}

fn alike((a, b): (&(String, Tensor), &(String, Tensor))) -> bool {
    a.0 == b.0 && a.1.dtype() == b.1.dtype() && a.1.shape() == b.1.shape()
}

#[test]
fn wheel_models_survive_and_quantize() {
    let scratch = scratch("wheel");
    let folders = wheel_models();
    assert_eq!(folders.len(), 140);
    let (mut equal, mut counts) = (0, [[0usize; 2]; FORMS.len()]);
    let (mut refused, mut not_tensors, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for folder in &folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let (original, again) = round_trip(&folder.join("model.onnx"), &scratch);
        let Some(inputs) = inputs(folder, &original) else {
            not_tensors.push(name);
            continue;
        };
        let expected = match run(&original, &inputs) {
            Ok(outputs) => outputs,
            Err(e) if e.kind() == Kind::Unsupported && e.message().contains("not a tensor") => {
                not_tensors.push(name);
                continue;
            }
            Err(e) => {
                let still = run(&again, &inputs).map(|_| ()).unwrap_err();
                assert_eq!(still.message(), e.message(), "{name}");
                refused.push((name, e.message().to_owned()));
                continue;
            }
        };
        match run(&again, &inputs) {
            Ok(outputs) if same(&expected, &outputs) => equal += 1,
            Ok(_) => failures.push(format!("{name}: outputs differ after load and save")),
            Err(e) => failures.push(format!("{name}: {e}")),
        }
        for (form, counts) in FORMS.iter().zip(&mut counts) {
            match quantized(&original, *form, &inputs) {
                Err(e) if e.kind() == Kind::Unsupported => counts[1] += 1,
                // The inputs of some tests are not samples of a batch.
                Err(e) if e.message().starts_with("calibration data has ") => counts[1] += 1,
                Err(e) => failures.push(format!("{name}: {form:?}: {e}")),
                Ok(result) => match run(&result, &inputs) {
                    Err(e) => failures.push(format!("{name}: {form:?}: result: {e}")),
                    Ok(outputs) if expected.iter().zip(&outputs).all(alike) => counts[0] += 1,
                    Ok(_) => failures.push(format!("{name}: {form:?}: outputs have other types or shapes")),
                },
            }
        }
    }
    println!("{equal} bit-equal after load and save");
    assert!(failures.is_empty(), "{failures:#?}");
    for ((kind, bits), [quantized, nothing]) in FORMS.iter().zip(&counts) {
        println!("{kind:?}, {bits} bits: {quantized} quantized and run, {nothing} with nothing to quantize");
    }
    println!("not run, no tensors: {not_tensors:?}\nrefused by ONNX Runtime, before and after: {}", refused.len());
    refused.iter().for_each(|(name, why)| println!("  {name}: {}", why.chars().take(100).collect::<String>()));
    assert!(failures.is_empty(), "{failures:#?}");
    let known = |(_, why): &(String, String)| REFUSALS.iter().any(|reason| why.contains(reason));
    assert!(refused.iter().all(known), "{refused:#?}");
    assert!(not_tensors.is_empty() && equal >= 100);
    assert_eq!(equal + not_tensors.len() + refused.len(), 140);
}

#[test]
fn silero_vad_survives_with_its_weights_in_branches() {
    let scratch = scratch("silero");
    let (original, again) = round_trip(&deps("models/silero-vad/silero_vad.onnx"), &scratch);
    let samples: Vec<f32> = (0..512).map(|i| (i as f32 * 0.05).sin() * 0.3).collect();
    let inputs = vec![
        ("input".to_owned(), Tensor::from_f32(&[1, 512], samples).unwrap()),
        ("state".to_owned(), Tensor::from_f32(&[2, 1, 128], vec![0.0; 256]).unwrap()),
        ("sr".to_owned(), Tensor::from_i64(&[], vec![16000]).unwrap()),
    ];
    let expected = run(&original, &inputs).unwrap();
    assert!(same(&expected, &run(&again, &inputs).unwrap()));
    // The weights belong to Conv and LSTM, which have no integer form here, so they are stored in 8 bits.
    let (result, report) = quantize(&original, &QuantizeOptions::default(), &Call::default()).unwrap();
    assert!(report.nodes.iter().all(|node| node.action == "stored int8"), "{:#?}", report.nodes);
    let outputs = run(&result, &inputs).unwrap();
    assert_eq!(outputs[0].1.shape(), expected[0].1.shape());
}
