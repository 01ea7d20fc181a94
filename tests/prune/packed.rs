//! Tests of the packed file: it is small, exact, and cannot request more memory than is allowed.

use super::*;
use optimize::onnx::save::{ExternalData, encode};
use optimize::open;
use sha2::{Digest, Sha256};
use support::{deps, scratch};

fn minilm() -> Model {
    Model::load(&deps("models/paraphrase-MiniLM-L3-v2")).unwrap()
}

#[test]
fn pruned_models_are_smaller_by_what_was_pruned_and_come_back_bit_by_bit() {
    let (folder, model) = (scratch("packed"), minilm());
    for sparsity in [0.3, 0.5, 0.9] {
        let options = PruneOptions { embeddings: true, sparsity, ..PruneOptions::default() };
        let (result, _) = prune(&model, &options, &Call::default()).unwrap();
        let (plain, packed) = (folder.join("plain.onnx"), folder.join("model.onnx.packed"));
        result.save(&plain, ExternalData::Auto, &Call::default()).unwrap();
        let saved = result.save_packed(&packed, &Call::default()).unwrap();
        let bytes = |path: &std::path::Path| std::fs::metadata(path).unwrap().len();
        let ratio = bytes(&packed) as f64 / bytes(&plain) as f64;
        println!("{sparsity}: {ratio:.4} of the size");
        assert!(ratio < 1.0 - sparsity, "{sparsity} pruned, but {ratio} of the size");
        assert_eq!((saved.files[0].bytes, saved.files.len()), (bytes(&packed), 1));
        let digest: String =
            Sha256::digest(std::fs::read(&packed).unwrap()).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(saved.files[0].sha256, digest);
        let again = Model::load(&packed).unwrap();
        assert!(*again.proto() == *result.proto(), "{sparsity}: another model came back");
        assert_eq!(encode(again.proto()).concat(), std::fs::read(&plain).unwrap());
        assert_eq!((again.bytes(), again.path()), (bytes(&packed), Some(packed.as_path())));
        assert_eq!(again.identity(&Call::default()).unwrap().sha256, digest);
    }
}

#[test]
fn a_folder_with_a_packed_model_is_loaded_with_what_lies_beside_it() {
    let folder = scratch("packed-folder");
    let model = minilm();
    model.save_packed(&folder.join("model.onnx.packed"), &Call::default()).unwrap();
    std::fs::copy(deps("models/paraphrase-MiniLM-L3-v2/tokenizer.json"), folder.join("tokenizer.json")).unwrap();
    for path in [folder.to_path_buf(), folder.join("model.onnx.packed")] {
        let again = open::load(&path, &Default::default()).unwrap();
        assert!(*again.proto() == *model.proto());
        assert!(optimize::text::Tokenizer::of(&again).unwrap().is_some());
    }
    let bytes = bytes::Bytes::from(std::fs::read(folder.join("model.onnx.packed")).unwrap());
    assert!(*Model::from_bytes(bytes).unwrap().proto() == *model.proto());
}

/// Returns a model with every element type, odd sizes, tensors of only zeros, and typed fields.
fn odd() -> Model {
    let mut tensors = Vec::new();
    for number in 1..=26 {
        let dtype = DataType::from_onnx(number).unwrap();
        if dtype == DataType::String {
            continue;
        }
        let count = 3001u64;
        let bytes = dtype.bytes_of(count).unwrap() as usize;
        let raw: Vec<u8> = (0..bytes).map(|i| if i % 5 < 3 { 0 } else { (i * i) as u8 }).collect();
        tensors.push(tensor(dtype.name(), dtype, &[count as i64], raw.into()));
    }
    tensors.push(tensor("empty", Float32, &[0, 7], bytes::Bytes::new()));
    tensors.push(tensor("zeros", Float32, &[3000, 1000], vec![0; 12_000_000].into()));
    let typed = TensorProto {
        raw_data: None,
        float_data: optimize::onnx::fields::Packed(vec![0.5; 2000]),
        ..tensor("typed", Float32, &[2000], bytes::Bytes::new())
    };
    tensors.push(typed);
    let nodes = vec![constant(weight("own", &[40, 40])), op("Identity", &["x"], &["y"], &[])];
    model(21, vec![value("x", Float32, &[1])], vec![value("y", Float32, &[1])], tensors, nodes)
}

#[test]
fn every_kind_of_tensor_comes_back_and_the_same_model_gives_the_same_file() {
    let (folder, model) = (scratch("packed-odd"), odd());
    let (a, b) = (folder.join("a.packed"), folder.join("b.packed"));
    model.save_packed(&a, &Call::default()).unwrap();
    model.save_packed(&b, &Call::default()).unwrap();
    assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
    // 12 MB of zeros are more than a file of so few bytes may request, so it is padded.
    let size = std::fs::metadata(&a).unwrap().len();
    assert!((12_000_000 / 64..600_000).contains(&size), "{size}");
    assert!(*Model::load(&a).unwrap().proto() == *model.proto());
}

/// Returns a packed file with its checksum corrected, so that the reader does not stop at the checksum.
fn sealed(mut file: Vec<u8>) -> Vec<u8> {
    let end = file.len() - 32;
    let digest = Sha256::digest(&file[..end]);
    file[end..].copy_from_slice(&digest);
    file
}

#[test]
fn damaged_and_hostile_files_are_refused() {
    let folder = scratch("packed-bad");
    let path = folder.join("model.onnx.packed");
    pruned(&product(weight_of(Float32, &[64, 64])), &magnitude(0.5)).0.save_packed(&path, &Call::default()).unwrap();
    let good = std::fs::read(&path).unwrap();
    assert!(Model::from_bytes(good.clone().into()).is_ok());
    let refused = |file: Vec<u8>| Model::from_bytes(file.into()).err().expect("it is refused");
    for at in 0..good.len() {
        assert!(Model::from_bytes(good[..at].to_vec().into()).is_err(), "cut at {at}");
        let mut changed = good.clone();
        changed[at] ^= 0x40;
        let error = refused(changed);
        let kinds = [Kind::InvalidModel, Kind::Unsupported, Kind::LimitExceeded];
        assert!(kinds.contains(&error.kind()), "{at}: {error}");
    }
    let damaged = |at: usize, value: u64| {
        let mut file = good.clone();
        let start = file.len() - 80 + 8 * at;
        file[start..start + 8].copy_from_slice(&value.to_le_bytes());
        refused(sealed(file))
    };
    let mut middle = good.clone();
    middle[40] ^= 1;
    assert!(refused(middle).to_string().contains("checksum"));
    let mut later = good.clone();
    later[8] = 2;
    assert!(refused(sealed(later)).to_string().contains("format 2"));
    // The size of the model is more than a file of this size may request, or makes sums overflow.
    for value in [1 << 30, 1 << 62, u64::MAX] {
        assert_eq!(damaged(2, value).kind(), Kind::LimitExceeded);
    }
    for (at, value) in [(0, 0), (0, u64::MAX), (1, u64::MAX), (3, 1 << 40), (4, u64::MAX), (5, 0), (5, u64::MAX)] {
        assert_eq!(damaged(at, value).kind(), Kind::InvalidModel, "{at} {value}");
    }
    // The size of the first tensor is at the beginning of the index.
    let index = u64::from_le_bytes(good[good.len() - 80 + 24..][..8].try_into().unwrap()) as usize;
    for (value, kind) in [(1u64 << 40, Kind::LimitExceeded), (u64::MAX, Kind::LimitExceeded), (4, Kind::InvalidModel)] {
        let mut file = good.clone();
        file[index..index + 8].copy_from_slice(&value.to_le_bytes());
        assert_eq!(refused(sealed(file)).kind(), kind, "{value}");
    }
    for width in [0, 3, 5, 17, 255] {
        let mut file = good.clone();
        file[index + 8] = width;
        assert_eq!(refused(sealed(file)).kind(), Kind::InvalidModel, "{width}");
    }
}
