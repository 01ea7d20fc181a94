//! A cancel from another thread stops the quantization of a 4 GB model at once and leaves no file.

mod support;

use optimize::call::{Call, Cancel};
use optimize::error::Kind;
use optimize::model::Model;
use optimize::onnx::dtype::DataType::Float32;
use optimize::onnx::proto::{EXTERNAL, StringStringEntryProto, TensorProto};
use optimize::onnx::save;
use optimize::quantize::{QuantizeOptions, quantize};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::build::{model, op, value};
use support::scratch;

const WEIGHTS: u64 = 8;
const BYTES: u64 = 8192 * 16384 * 4;

/// Returns a model of eight layers of half a gigabyte in a sparse file: as large as a real model, without using disk
/// space.
fn large_model(folder: &Path) -> PathBuf {
    let file = File::create(folder.join("weights")).unwrap();
    file.set_len(WEIGHTS * BYTES).unwrap();
    let entry = |key: &str, value: String| StringStringEntryProto {
        key: Some(key.into()),
        value: Some(value.into_bytes().into()),
        ..Default::default()
    };
    let weight = |index: u64| TensorProto {
        name: Some(format!("w{index}")),
        dims: if index.is_multiple_of(2) { vec![8192, 16384] } else { vec![16384, 8192] },
        data_type: Some(Float32.to_onnx()),
        data_location: Some(EXTERNAL),
        external_data: vec![entry("location", "weights".into()), entry("offset", (index * BYTES).to_string())],
        ..Default::default()
    };
    let nodes =
        (0..WEIGHTS).map(|i| op("MatMul", &[&format!("x{i}"), &format!("w{i}")], &[&format!("x{}", i + 1)], &[]));
    let inputs = vec![value("x0", Float32, &[-1, 8192])];
    let outputs = vec![value(&format!("x{WEIGHTS}"), Float32, &[-1, 8192])];
    let made = model(17, inputs, outputs, (0..WEIGHTS).map(weight).collect(), nodes.collect());
    let path = folder.join("model.onnx");
    std::fs::write(&path, save::encode(made.proto()).concat()).unwrap();
    path
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_cancel_stops_at_once_and_leaves_no_file() {
    let folder = scratch("cancel");
    let model = Model::load(&large_model(&folder)).unwrap();
    let before = names(&folder);
    let mut slowest = Duration::ZERO;
    for wait in [1, 50, 200, 400, 800] {
        let cancel = Cancel::new();
        let options = QuantizeOptions { scratch_folder: Some(folder.to_path_buf()), ..Default::default() };
        let call = Call { cancel: Some(&cancel), ..Call::default() };
        let (fired, outcome) = std::thread::scope(|scope| {
            let firing = scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(wait));
                cancel.fire();
                Instant::now()
            });
            let outcome = quantize(&model, &options, &call);
            let ended = Instant::now();
            (ended.saturating_duration_since(firing.join().unwrap()), outcome)
        });
        assert_eq!(outcome.err().unwrap().kind(), Kind::Cancelled);
        assert_eq!(names(&folder), before);
        slowest = slowest.max(fired);
    }
    println!("a cancel took at most {slowest:?}");
    // The limit allows for a busy machine; without the cancel, the call would take half a minute.
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}
